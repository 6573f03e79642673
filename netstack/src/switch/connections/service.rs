//! Services: who answers a packet that opens a connection, and what becomes of connections whose backend is gone.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use lb::{Ask, Balancer, Chosen, Frontend, Limits, Mark, Reason, Refusal, Registry, Standing, Verdict};
use nat::connection::{Connection, State, Status};
use nat::rule::Way;
use nat::tuple::{Address, Direction};
use nat::{Nat, New, Towards};

use super::packet::{Denial, Kind, What};
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
    limits: Limits,
    /// What chance is made from.
    seed: u64,
    /// Connections that got a backend.
    balanced: u64,
}

/// A backend that was chosen, and for whom.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) struct Selected {
    ask: Ask,
    chosen: Chosen,
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
        Self { services: None, balancer: None, limits: Limits { affinities }, seed, balanced: 0 }
    }

    /// Takes up what a new configuration says. The registry before it is dropped here, which costs little: it is a clone of
    /// that in the snapshot that goes.
    pub(super) fn configure(&mut self, new: Option<&Arc<Services>>) {
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

    /// The services in use.
    pub(in crate::switch) fn registry(&self) -> Option<&Registry> {
        Some(self.services.as_ref()?.registry())
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
        match self.choose(now, &new, ingress) {
            Verdict::NotAService => {
                What::Opens { new, towards: nat.destination(&new, way).into(), selected: None }
            }
            Verdict::Refused { mark, how, why } => {
                let reason = match why {
                    Reason::NoBackend => DropReason::ServiceNoBackend,
                    Reason::SourceRange => DropReason::ServiceSourceRange,
                };
                What::Denied(Denial { reason, how, mark: Some(mark) })
            }
            Verdict::Chosen(chosen) => self.selected(new, ingress, chosen),
        }
    }

    fn selected<A: Kind>(&self, new: New<A>, ingress: &Segment, chosen: Chosen) -> What<A> {
        let (address, port) = chosen.backend;
        let (Some(address), Some(ask)) = (A::from_ip(address), self.ask(&new, ingress)) else {
            // A backend of the other family cannot be reached from here.
            let (how, mark) = (Refusal::Reject, Some(chosen.mark));
            return What::Denied(Denial { reason: DropReason::ServiceNoBackend, how, mark });
        };
        let pool = self.services.as_ref().and_then(|services| services.masquerade());
        let towards = Towards {
            destination: Some(nat::tuple::Endpoint { address, port }),
            masquerade: pool.filter(|_| chosen.masquerade),
        };
        What::Opens { new, towards, selected: Some(Selected { ask, chosen }) }
    }

    fn choose<A: Kind>(&self, now: Duration, new: &New<A>, ingress: &Segment) -> Verdict {
        let asked = self.balancer.as_ref().zip(self.ask(new, ingress));
        asked.map_or(Verdict::NotAService, |(balancer, ask)| balancer.choose(now, &ask, self.draw(new)))
    }

    /// What a packet asks for, if there are services and it is of a protocol that has ports.
    fn ask<A: Kind>(&self, new: &New<A>, ingress: &Segment) -> Option<Ask> {
        let (services, gateway) = self.services.as_ref().zip(ingress.gateway())?;
        let tuple = &new.tuple;
        if !matches!(tuple.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) {
            return None;
        }
        let (address, source) = (tuple.destination.address.into(), tuple.source.address.into());
        Some(Ask {
            frontend: Frontend { address, protocol: tuple.protocol, port: tuple.destination.port },
            source,
            source_port: tuple.source.port,
            origin: services.origin(gateway, source),
        })
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
    pub(super) fn begun(&mut self, now: Duration, selected: &Selected) {
        if let Some(balancer) = &mut self.balancer {
            balancer.commit(now, &selected.ask, &selected.chosen);
            self.balanced += 1;
        }
    }

    /// How a connection stands to the service that it was opened through, if it was.
    #[inline]
    pub(super) fn standing<A: Kind>(&self, connection: &Connection<A>) -> Standing {
        let Some(mark) = mark(connection) else { return Standing::Current };
        let Some(balancer) = self.balancer.as_ref().filter(|_| self.services.is_some()) else {
            return Standing::Gone { reset: false };
        };
        let backend = connection.tuple(Direction::Reply).source;
        balancer.standing(mark, (backend.address.into(), backend.port))
    }

    /// A backend that was chosen, in words.
    pub(in crate::switch) fn describe(&self, selected: &Selected) -> String {
        let Selected { ask, chosen } = selected;
        let Some((service, entrance)) = self.registry().and_then(|registry| registry.find(&ask.frontend))
        else {
            return String::new();
        };
        let pool = &entrance.way(ask.origin).pool;
        let by = match (chosen.sticky, pool.table_size()) {
            (true, _) => "by affinity".into(),
            (false, Some(size)) => format!("by a table of {size} slots ({:?})", pool.policy()),
            (false, None) => format!("by {:?}", pool.policy()),
        };
        let count = pool.backends().len();
        let (address, port) = chosen.backend;
        let seen = match chosen.masquerade {
            true => "the client is masqueraded",
            false => "the client stays visible",
        };
        let backend = core::net::SocketAddr::new(address, port);
        format!("{} for {:?}: {backend}, one of {count}, {by}; {seen}", service.name, ask.origin)
    }
}

impl Selected {
    /// What the connection remembers of it.
    pub(super) fn marks(&self) -> [u32; 3] {
        let [slot, version] = Mark::words(Some(self.chosen.mark));
        [slot, version, 0]
    }
}

/// The service that a connection was opened through.
#[inline]
pub(in crate::switch) fn mark<A>(connection: &Connection<A>) -> Option<Mark> {
    let [slot, version, _] = connection.marks;
    Mark::from_words([slot, version])
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
