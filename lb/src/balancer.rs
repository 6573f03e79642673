//! What one switch keeps to balance load: the services, and what it has to remember of its clients.
//!
//! # Theory of operation
//! The first packet of a connection is put to [`Balancer::choose`], which answers from what there is and changes nothing;
//! if the packet goes its way, [`Balancer::commit`] remembers what has to be. The connection keeps its backend and the
//! mark that came with it. Before it is used again [`Balancer::standing`] is asked, which compares one number as long as
//! no service has changed, and gives it a newer mark if others have.
//!
//! The hash of a flow covers its source, its L4 source port and the frontend. For a service with affinity it leaves the
//! port out, so that a client whose entry was lost comes to the same backend if the policy goes by hash. An entry is the
//! client's at the service, whichever frontend it came by.

#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use core::net::IpAddr;
use core::time::Duration;

use crate::affinity::{Affinities, Affinity, Entry, Which};
use crate::hash::FlowHash;
use crate::pool::{Backend, Policy};
use crate::registry::{AT_ONCE, Door, Mark, Placed, Registry};
use crate::service::{Frontend, Origin, Refusal, Way};

/// What a balancer may take of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Limits {
    /// Clients whose backend is remembered, rounded up to a multiple of 8. Memory for all of them, some 100 octets each, is
    /// taken when the first service with affinity is installed. At the limit, who has been away for longest is forgotten,
    /// of those few who share a set with the new one.
    pub affinities: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { affinities: 65_536 }
    }
}

/// A connection to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Where the client asks.
    pub frontend: Frontend,
    /// The client's address.
    pub source: IpAddr,
    /// The client's L4 port.
    pub source_port: u16,
    /// Where the client is.
    pub origin: Origin,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// No service is asked for.
    NotAService,
    /// It gets no backend.
    Refused {
        /// The service.
        mark: Mark,
        /// What becomes of its packet.
        how: Refusal,
        /// Why.
        why: Reason,
    },
    /// It gets one.
    Chosen(Chosen),
}

/// Why a connection gets no backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is none for clients of its origin.
    NoBackend,
    /// The client is not among those who may ask.
    SourceRange,
}

/// A backend for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// What the connection is to remember.
    pub mark: Mark,
    /// The backend's address and L4 port.
    pub backend: (IpAddr, u16),
    /// Whether the backend sees the node's address in place of the client's.
    pub masquerade: bool,
    /// Whether it is the backend that the client had before.
    pub sticky: bool,
}

/// How a connection stands to the service that it was opened through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing has changed.
    Current,
    /// Services have changed and its backend still serves: this mark is to be remembered in place of the old one.
    Renewed(Mark),
    /// Its backend serves no more, or the service is gone from where it was asked.
    Gone {
        /// Whether the service wants such connections reset.
        reset: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Balancer {
    registry: Registry,
    /// What was installed last, if that is of another line.
    adopted: Option<Registry>,
    hash: FlowHash,
    limits: Limits,
    affinities: Affinities,
    /// How many connections each slot's service has been asked for, for those whose backends take turns.
    turns: Vec<u64>,
}

impl Balancer {
    /// Without services. Switches with the same key and the same services choose the same backends.
    pub fn new(key: [u8; 16], limits: Limits) -> Self {
        Self {
            registry: Registry::new(),
            adopted: None,
            hash: FlowHash::new(key),
            limits,
            affinities: Affinities::default(),
            turns: Vec::new(),
        }
    }

    /// The services in use.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes other services into use, and gives back those it had, for somebody else to drop. What connections and
    /// affinities remember stays of value. That costs the same whatever has changed, if the new registry came from a clone
    /// of the old one. One that was made anew is adopted, service by service, and what comes from a clone of that one then
    /// costs what differs.
    ///
    /// Only one of several clones may be changed and installed: what two of them would call the same version differs.
    pub fn install(&mut self, registry: Registry) -> Registry {
        let adopted = self.adopted.take().filter(|adopted| adopted.is_in_line_with(&registry));
        let registry = if self.registry.is_in_line_with(&registry) || self.registry.is_unused() {
            registry
        } else {
            let own = self.registry.follow(adopted.as_ref().unwrap_or(&self.registry), &registry);
            self.adopted = Some(registry);
            own
        };
        if registry.is_sticky() {
            self.affinities.prepare(self.limits.affinities);
        }
        self.turns.resize(registry.bound() as usize, 0);
        core::mem::replace(&mut self.registry, registry)
    }

    /// The backend for a connection. `draw` is a random number, for services whose policy is random.
    pub fn choose(&self, now: Duration, ask: &Ask, draw: u64) -> Verdict {
        let Some(door) = self.registry.door(&ask.frontend) else { return Verdict::NotAService };
        let mark = Mark { slot: door.slot, version: self.registry.version() };
        let (entrance, way) = (&door.entrance, door.entrance.way(ask.origin));
        if !entrance.admits(ask.source, ask.origin) {
            return Verdict::Refused { mark, how: Refusal::Drop, why: Reason::SourceRange };
        }
        let port = match door.affinity {
            Some(timeout) => {
                let which = Which { slot: mark.slot, since: door.since };
                let known = self.known(now, which, ask.source, timeout);
                if let Some(backend) = known.filter(|backend| way.pool.selects(*backend)) {
                    return chosen(mark, way, backend, true);
                }
                0
            }
            None => ask.source_port,
        };
        let draw = match way.pool.policy() {
            Policy::RoundRobin => self.turns.get(mark.slot as usize).copied().unwrap_or(0),
            Policy::Maglev | Policy::Random | Policy::Rendezvous => draw,
        };
        selected(mark, way, way.pool.select(self.flow(ask, port), draw))
    }

    /// What [`Self::choose`] will say for each of these connections, [`AT_ONCE`] at most, where nothing that is committed before
    /// can change it; nothing is said of the others. Who takes in packets by the batch asks this first: so they wait for memory
    /// together, which among thousands of services is most of what a choice costs.
    pub fn foresee(&self, asks: &[Ask], verdicts: &mut [Option<Verdict>; AT_ONCE]) {
        // Each loop reads what the one before has found, so that a processor looks as far ahead as it can.
        let mut doors = [None; AT_ONCE];
        self.registry.doors(asks.iter().map(|ask| ask.frontend), &mut doors);
        black_box(doors.iter().flatten().fold(0, |all, door| all ^ door.touch()));
        let mut ways: [Option<(&Door, &Way, u64)>; AT_ONCE] = [None; AT_ONCE];
        for ((way, door), ask) in ways.iter_mut().zip(doors).zip(asks) {
            // Who has been here before, a connection that comes first may say.
            let door = door.filter(|door| door.affinity.is_none());
            *way = door.map(|door| (door, door.entrance.way(ask.origin), self.flow(ask, ask.source_port)));
        }
        black_box(ways.iter().flatten().fold(0, |all, (_, way, _)| all ^ way.pool.touch()));
        let mut backends = [None; AT_ONCE];
        for (backend, way) in backends.iter_mut().zip(ways) {
            *backend = way.and_then(|(_, way, hash)| way.pool.likely(hash));
        }
        black_box(backends.iter().flatten().fold(0, |all, backend| all ^ backend.port));
        let version = self.registry.version();
        for (((verdict, way), backend), ask) in verdicts.iter_mut().zip(ways).zip(backends).zip(asks) {
            *verdict = way.zip(backend).map(|((door, way, _), backend)| {
                let mark = Mark { slot: door.slot, version };
                match door.entrance.admits(ask.source, ask.origin) {
                    true => selected(mark, way, Some(backend)),
                    false => Verdict::Refused { mark, how: Refusal::Drop, why: Reason::SourceRange },
                }
            });
        }
    }

    /// The hash of a connection.
    fn flow(&self, ask: &Ask, source_port: u16) -> u64 {
        let Frontend { address, protocol, port } = ask.frontend;
        self.hash.hash(ask.source, address, protocol, source_port, port)
    }

    /// Remembers what `choose` has said for a connection that goes its way.
    pub fn commit(&mut self, now: Duration, ask: &Ask, chosen: &Chosen) {
        // A turn too many does no harm, should the slot be another service's by now.
        if let Some(turn) = self.turns.get_mut(chosen.mark.slot as usize).filter(|_| !chosen.sticky) {
            *turn += 1;
        }
        let sticky = || self.registry.at(chosen.mark.slot).filter(|placed| placed.service.affinity.is_some());
        let Some(placed) = self.registry.is_sticky().then(sticky).flatten() else { return };
        if chosen.mark.is_since(placed.since) {
            let which = which(placed);
            let entry = Entry { which, client: ask.source, backend: chosen.backend, used: now };
            self.affinities.remember(self.client_hash(which, ask.source), entry);
        }
    }

    /// How a connection with this mark, opened by this frontend, to this backend, stands to its service now.
    #[inline]
    pub fn standing(&self, mark: Mark, frontend: &Frontend, backend: (IpAddr, u16)) -> Standing {
        match mark.version == self.registry.version() {
            true => Standing::Current,
            false => self.standing_anew(mark, frontend, backend),
        }
    }

    fn standing_anew(&self, mark: Mark, frontend: &Frontend, backend: (IpAddr, u16)) -> Standing {
        let placed = self.registry.at(mark.slot).filter(|placed| mark.is_since(placed.since));
        let Some(Placed { service, mark: Mark { version, .. }, .. }) = placed else {
            return Standing::Gone { reset: false };
        };
        let is_asked_there = || self.registry.door(frontend).is_some_and(|door| door.slot == mark.slot);
        let unchanged = mark.is_since(*version);
        match unchanged || (service.serving.contains(backend) && is_asked_there()) {
            true => Standing::Renewed(Mark { version: self.registry.version(), ..mark }),
            false => Standing::Gone { reset: service.reset_gone },
        }
    }

    /// The clients that come back to a backend.
    pub fn affinities(&self, now: Duration) -> impl Iterator<Item = Affinity> {
        self.affinities.iter().filter_map(move |entry| {
            let placed = self.registry.at(entry.which.slot).filter(|placed| which(placed) == entry.which)?;
            let until = entry.used.saturating_add(placed.service.affinity?);
            let ways = placed.service.entrances.iter().flat_map(|entrance| &entrance.ways);
            let used = now < until && ways.into_iter().any(|way| way.pool.selects(entry.backend));
            used.then(|| Affinity {
                service: Arc::clone(&placed.service.name),
                client: entry.client,
                backend: entry.backend,
                until,
            })
        })
    }

    /// The backend that a client of a service had last, if that is not too long ago.
    fn known(&self, now: Duration, which: Which, client: IpAddr, timeout: Duration) -> Option<(IpAddr, u16)> {
        let entry = self.affinities.find(self.client_hash(which, client), which, client)?;
        (now < entry.used.saturating_add(timeout)).then_some(entry.backend)
    }

    fn client_hash(&self, Which { slot, since }: Which, client: IpAddr) -> u64 {
        // Both numbers, in the place of a destination: no two clients of a service are alike, and no two services.
        let service = (u64::from(slot) << 32) | u64::from(since);
        let service = core::net::Ipv6Addr::from_bits(u128::from(service));
        self.hash.hash(client, service.into(), 0, 0, 0)
    }
}

fn chosen(mark: Mark, way: &Way, backend: (IpAddr, u16), sticky: bool) -> Verdict {
    Verdict::Chosen(Chosen { mark, backend, masquerade: way.masquerade, sticky })
}

/// What becomes of a connection that a pool has selected a backend for, or none.
fn selected(mark: Mark, way: &Way, backend: Option<&Backend>) -> Verdict {
    match backend {
        Some(backend) => chosen(mark, way, (backend.address, backend.port), false),
        None => Verdict::Refused { mark, how: way.when_empty, why: Reason::NoBackend },
    }
}

const fn which(placed: &Placed) -> Which {
    Which { slot: placed.mark.slot, since: placed.since }
}
