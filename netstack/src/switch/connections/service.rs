//! Services: who answers a packet that opens a connection, and what becomes of connections whose backend is gone.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use lb::{Ask, Balancer, Chosen, Frontend, Limits, Mark, Origin, Reason, Refusal, Registry, Verdict};
use nat::connection::{Connection, State, Status};
use nat::rule::Way;
use nat::tuple::{Address, Direction, Endpoint, Tuple};
use nat::{Nat, New, Towards};

use super::expect::Foreseen;
use super::packet::{Denial, Kind, Opening, What};
use crate::config::{Segment, Services};
use crate::parse::protocol;
use crate::verdict::DropReason;

/// The services in use, and what is remembered of their clients.
#[derive(Debug)]
pub(in crate::switch) struct Balancing {
    /// What the configuration says, while it says anything.
    services: Option<Arc<Services>>,
    /// From the first configuration with services on: what connections remember means something to this one alone.
    balancer: Option<Balancer>,
    /// The version of the services in use; 0 if there are none.
    version: u32,
    pub(super) foreseen: Foreseen,
    limits: Limits,
    /// What chance is made from.
    seed: u64,
    /// Connections that got a backend.
    balanced: u64,
}

/// What a connection that is opened was judged under.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) struct Judged {
    /// The registry's version; 0 if there are no services.
    version: u32,
    /// The number of the policies; 0 if there have been none.
    policies: u32,
    /// How it got a backend, if a service was asked.
    pub(in crate::switch) selected: Option<Selected>,
}

/// How a backend was chosen; which it is, and who asks, the packet and its way say.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) struct Selected {
    slot: u32,
    origin: Origin,
    masquerade: bool,
    sticky: bool,
}

/// Where a connection's marks hold what.
const SLOT: usize = 0;
const VERSION: usize = 1;

/// How a connection stands to services.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// Nothing has changed.
    Current,
    /// What has changed does not concern it: this version is to be remembered.
    Renewed(u32),
    /// Its backend serves no more, or a service has come to where it goes.
    Gone {
        /// Whether the service wants such connections reset.
        reset: bool,
    },
}

/// What becomes of a connection whose backend is gone.
pub(super) enum Orphan<A> {
    /// It goes on: its state is at the backend's, wherever that may be.
    Stays,
    /// Its packet opens another one, with another backend.
    Moves(New<A>),
    /// Its client is told.
    Reset,
}

impl Balancing {
    pub(super) fn new(affinities: u32, seed: u64) -> Self {
        Self {
            services: None,
            balancer: None,
            version: 0,
            foreseen: Foreseen::default(),
            limits: Limits { affinities },
            seed,
            balanced: 0,
        }
    }

    /// Takes up what a new configuration says. The registry before it is dropped here, which costs little: it is a clone of
    /// that in the snapshot that goes.
    pub(super) fn configure(&mut self, new: Option<&Arc<Services>>) {
        self.take_up(new);
        self.version = self.registry().map_or(0, Registry::version);
    }

    fn take_up(&mut self, new: Option<&Arc<Services>>) {
        let old = core::mem::replace(&mut self.services, new.cloned());
        let Some(new) = new.filter(|new| !old.as_ref().is_some_and(|old| Arc::ptr_eq(old, new))) else {
            return;
        };
        let key = new.config().key;
        let balancer = self.balancer.get_or_insert_with(|| Balancer::new(key, self.limits));
        if old.is_some_and(|old| old.config().key != key) {
            // Affinities are filed by the key; what connections remember is not.
            let mut other = Balancer::new(key, self.limits);
            other.install(balancer.registry().clone());
            *balancer = other;
        }
        balancer.install(new.registry().clone());
    }

    pub(super) fn balancer(&self) -> Option<&Balancer> {
        self.balancer.as_ref()
    }

    /// The services in use, if there are any: those that marks mean something to.
    pub(in crate::switch) fn registry(&self) -> Option<&Registry> {
        self.in_use().map(Balancer::registry)
    }

    /// What chooses backends, while there are services.
    pub(super) fn in_use(&self) -> Option<&Balancer> {
        self.balancer.as_ref().filter(|_| self.services.is_some())
    }

    pub(super) fn balanced(&self) -> u64 {
        self.balanced
    }

    /// What a packet is that opens a connection: one of a service, or one that goes where rules and mappings say.
    pub(super) fn opens<A: Kind>(
        &self,
        now: Duration,
        nat: &Nat<A>,
        new: New<A>,
        ingress: &Segment,
        way: Way,
    ) -> What<A> {
        let (origin, verdict) = self.choose(now, &new, ingress);
        let version = self.version;
        let denied =
            |reason, how, mark| What::Denied(Denial { reason, how, mark: Some(mark), judgement: None });
        match verdict {
            Verdict::NotAService => {
                let judged = Judged { version, policies: 0, selected: None };
                What::Opens { new, towards: nat.destination(&new, way).into(), judged }
            }
            Verdict::Refused { mark, how, why } => match why {
                Reason::NoBackend => denied(DropReason::ServiceNoBackend, how, mark),
                Reason::SourceRange => denied(DropReason::ServiceSourceRange, how, mark),
            },
            Verdict::Chosen(Chosen { mark, backend: (address, port), masquerade, sticky }) => {
                let Some(address) = A::from_ip(address) else {
                    // A backend of the other family cannot be reached from here.
                    return denied(DropReason::ServiceNoBackend, Refusal::Reject, mark);
                };
                let pool = self.services.as_ref().and_then(|services| services.masquerade());
                let destination = Some(Endpoint { address, port });
                let towards = Towards { destination, masquerade: pool.filter(|_| masquerade) };
                let selected = Some(Selected { slot: mark.slot, origin, masquerade, sticky });
                What::Opens { new, towards, judged: Judged { version, policies: 0, selected } }
            }
        }
    }

    fn choose<A: Kind>(&self, now: Duration, new: &New<A>, ingress: &Segment) -> (Origin, Verdict) {
        let Some((balancer, origin)) = self.balancer.as_ref().zip(self.origin(&new.tuple, ingress)) else {
            return (Origin::Outside, Verdict::NotAService);
        };
        let ask = ask(&new.tuple, origin);
        let foreseen = self.foreseen.take(&ask);
        (origin, foreseen.unwrap_or_else(|| balancer.choose(now, &ask, self.draw(new))))
    }

    /// Where a client is, if there are services and it is one of a protocol that has ports.
    pub(super) fn origin<A: Kind>(&self, tuple: &Tuple<A>, ingress: &Segment) -> Option<Origin> {
        let has_ports = matches!(tuple.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        let (services, gateway) = self.services.as_ref().filter(|_| has_ports).zip(ingress.gateway())?;
        Some(services.origin(gateway, tuple.source.address.into()))
    }

    /// A number that looks random, and is the same for all packets of a flow that has not begun yet.
    fn draw<A: Address>(&self, new: &New<A>) -> u64 {
        let bits = new.tuple.source.address.to_bits();
        let [high, low] =
            [bits >> 64, bits].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        let ports = u64::from(new.tuple.source.port) << 16 | u64::from(new.tuple.destination.port);
        mix(mix(self.seed ^ high.rotate_left(32) ^ low).wrapping_add(ports))
    }

    /// A connection has begun that a backend was chosen for.
    pub(super) fn begun<A: Address>(&mut self, now: Duration, opening: &Opening<A>) {
        let Judged { version, selected, .. } = opening.judged;
        let (Some(selected), Some(backend)) = (selected, opening.towards.destination) else { return };
        let Selected { slot, origin, masquerade, sticky } = selected;
        let mark = Mark { slot, version };
        let backend = (backend.address.into(), backend.port);
        if let Some(balancer) = &mut self.balancer {
            let asked = ask(opening.prepared.tuple(), origin);
            balancer.commit(now, &asked, &Chosen { mark, backend, masquerade, sticky });
            self.balanced += 1;
        }
    }

    /// Whether no service has changed since a connection was last looked at.
    #[inline]
    pub(super) fn is_current<A>(&self, connection: &Connection<A>) -> bool {
        connection.marks[VERSION] == self.version
    }

    /// How a connection stands to services by a packet of its opener: as it did when it was last looked at, unless any has
    /// changed since.
    #[inline]
    pub(super) fn standing<A: Kind>(&self, connection: &Connection<A>, ingress: &Segment) -> Standing {
        match self.is_current(connection) {
            true => Standing::Current,
            false => self.standing_anew(connection, ingress),
        }
    }

    fn standing_anew<A: Kind>(&self, connection: &Connection<A>, ingress: &Segment) -> Standing {
        let tuple = connection.tuple(Direction::Original);
        let Some(mark) = mark(connection) else {
            // What began when nobody stood at its destination may ask for a service now.
            let registry = self.registry().filter(|_| self.origin(&tuple, ingress).is_some());
            let asks = registry.is_some_and(|registry| registry.find(&frontend(&tuple)).is_some());
            return match asks {
                true => Standing::Gone { reset: false },
                false => Standing::Renewed(self.version),
            };
        };
        let Some(balancer) = self.in_use() else {
            return Standing::Gone { reset: false };
        };
        let backend = connection.tuple(Direction::Reply).source;
        match balancer.standing(mark, &frontend(&tuple), (backend.address.into(), backend.port)) {
            lb::Standing::Current => Standing::Current,
            lb::Standing::Renewed(mark) => Standing::Renewed(mark.version),
            lb::Standing::Gone { reset } => Standing::Gone { reset },
        }
    }

    /// A backend that was chosen, in words.
    pub(in crate::switch) fn describe<A: Address>(
        &self,
        selected: &Selected,
        tuple: &Tuple<A>,
        towards: &Towards<A>,
    ) -> String {
        let Ask { frontend, origin, .. } = ask(tuple, selected.origin);
        let entrance = self.registry().and_then(|registry| registry.find(&frontend));
        let (Some((service, entrance)), Some(backend)) = (entrance, towards.destination) else {
            return String::new();
        };
        let pool = &entrance.way(origin).pool;
        let by = match (selected.sticky, pool.table_size()) {
            (true, _) => "by affinity".into(),
            (false, Some(size)) => format!("by a table of {size} slots ({:?})", pool.policy()),
            (false, None) => format!("by {:?}", pool.policy()),
        };
        let seen = match selected.masquerade {
            true => "the client is masqueraded",
            false => "the client stays visible",
        };
        let (backend, count) = (backend.to_socket(), pool.backends().len());
        format!("{} for {origin:?}: {backend}, one of {count}, {by}; {seen}", service.name)
    }
}

/// What a packet asks for.
pub(super) fn ask<A: Address>(tuple: &Tuple<A>, origin: Origin) -> Ask {
    let Endpoint { address, port } = tuple.source;
    Ask { frontend: frontend(tuple), source: address.into(), source_port: port, origin }
}

/// Where it asks.
fn frontend<A: Address>(tuple: &Tuple<A>) -> Frontend {
    let Endpoint { address, port } = tuple.destination;
    Frontend { address: address.into(), protocol: tuple.protocol, port }
}

impl Judged {
    /// What the connection remembers of it: the number after the slot of its service, 0 if there is none, under which
    /// version it was last looked at, and under which policies.
    pub(super) fn marks(&self) -> [u32; 3] {
        let slot = self.selected.map_or(0, |selected| selected.slot.saturating_add(1));
        [slot, self.version, self.policies]
    }

    /// The same, let through under these policies.
    pub(super) const fn under(self, policies: u32) -> Self {
        Self { policies, ..self }
    }
}

/// The service that a connection was opened through.
#[inline]
pub(in crate::switch) fn mark<A>(connection: &Connection<A>) -> Option<Mark> {
    let slot = connection.marks[SLOT].checked_sub(1)?;
    Some(Mark { slot, version: connection.marks[VERSION] })
}

/// Remembers under which version of the services a connection was looked at.
pub(super) fn renew<A>(connection: &mut Connection<A>, version: u32) {
    connection.marks[VERSION] = version;
}

/// What becomes of a connection whose backend is gone, by a packet of its client that would open `anew`. State at the
/// backend there is only once it has answered, and of protocols that have any.
pub(super) fn orphan<A: Address>(
    connection: &Connection<A>,
    reset: bool,
    anew: impl FnOnce() -> Option<New<A>>,
) -> Orphan<A> {
    let has_state = match connection.state {
        State::Tcp(_) | State::Sctp(_) => true,
        State::Udp(_) | State::Query | State::Other => false,
    };
    if !has_state || !connection.status.has(Status::SEEN_REPLY) {
        return anew().map_or(Orphan::Stays, Orphan::Moves);
    }
    if reset { Orphan::Reset } else { Orphan::Stays }
}

/// A finaliser of full avalanche (Stafford's variant 13).
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
