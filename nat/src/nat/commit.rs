//! How a connection begins and ends: the only places where tuples, ports and mappings change together.

use alloc::vec::Vec;
use core::time::Duration;

use super::Nat;
use super::prepare::{Port, Prepared, Refusal};
use crate::connection::{Connection, ConnectionId, State, Status};
use crate::ports::{Lease, Protocol, Refused};
use crate::table::{Opening, Remainder};
use crate::tcp;
use crate::tuple::{Address, Direction};

impl<A: Address> Nat<A> {
    /// Begins a connection as it was prepared. Nothing may have begun between the two.
    ///
    /// # Errors
    /// Why it cannot any more; then nothing has changed, but for who has made room.
    pub fn commit(&mut self, now: Duration, prepared: &Prepared<A>) -> Result<ConnectionId, Refusal> {
        let Prepared { new, reply, port, marks } = prepared;
        if self.table.is_full() {
            let needed = match *port {
                Port::Mapped(first) | Port::Asked(first) => Some(first),
                Port::Leased { pool, choice, shared: true } => {
                    self.holder(pool, choice.lease()).map(|(holder, _)| holder)
                }
                Port::None | Port::Moved | Port::Leased { .. } => None,
            };
            let victim = self.table.victim(&new.tuple, now, needed).ok_or(Refusal::Full)?;
            self.end(victim, now, true);
            self.counters.displaced += 1;
        }
        // Some whose time is up may still be filed there.
        let mut over = [None; 2];
        for (place, tuple) in over.iter_mut().zip([&new.tuple, reply]) {
            let Some(holder) = self.table.holder(tuple) else { continue };
            if !self.table.is_over(holder, now) {
                return Err(Refusal::Clash);
            }
            *place = Some(holder);
        }
        let opening = Opening {
            original: new.tuple,
            reply: *reply,
            state: new.state,
            timeout: new.timeout,
            status: status(prepared),
            marks: *marks,
        };
        let id = self.table.insert(&opening, now).map_err(|_| Refusal::Full)?;
        let leased = match *port {
            Port::None | Port::Moved => true,
            Port::Mapped(first) | Port::Asked(first) => self.join(id, first),
            Port::Leased { pool, choice, shared } => {
                let taken = self.pools.get_mut(pool).is_some_and(|pool| pool.take(choice, id.slot).is_ok());
                if taken && shared {
                    self.table.share(id);
                } else if taken {
                    self.table.join(id, None);
                }
                taken
            }
        };
        if !leased {
            self.table.remove(id);
        }
        // Only now, so that a mapping of theirs goes on with the new one.
        for over in over.into_iter().flatten() {
            if self.end(over, now, true) {
                self.counters.expired += 1;
            }
        }
        if !leased {
            return Err(Refusal::Ports(Refused::Exhausted));
        }
        self.counters.opened += 1;
        // Another number for the next one (Weyl sequence, then mixed by whoever draws from it).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Ok(id)
    }

    /// Adds a connection to the mapping that `first` began; false if nothing is left of it.
    fn join(&mut self, id: ConnectionId, first: ConnectionId) -> bool {
        let Some(connection) = self.table.get(id) else { return false };
        let (inside, external) = (connection.inside(), connection.outside().source);
        // The first one may have ended since, because its time was up.
        let first = self.table.get(first).map(|_| first);
        let first = first.or_else(|| self.table.mapping(&inside, |other| other.outside().source == external));
        if first.is_some() {
            self.table.join(id, first);
        }
        first.is_some()
    }

    /// Ends a connection and gives back what it held, which nobody else gets while packets may be on their way. Returns
    /// whether there was one.
    pub fn remove(&mut self, id: ConnectionId, now: Duration) -> bool {
        self.end(id, now, true)
    }

    /// Ends the connections of a host that is no more: those that it has opened and those that it answers, by whatever
    /// address others know it. Returns how many ended. Looks at every connection.
    pub fn remove_host(&mut self, address: A, now: Duration) -> usize {
        let is_of = |connection: &Connection<A>| {
            let ends = [Direction::Original, Direction::Reply].map(|direction| connection.tuple(direction));
            ends.iter().any(|end| end.source.address == address)
        };
        let ending: Vec<ConnectionId> =
            self.table.iter().filter(|(_, connection)| is_of(connection)).map(|(id, _)| id).collect();
        ending.iter().filter(|&&id| self.end(id, now, true)).count()
    }

    /// Ends a connection and gives back what it held. Returns whether there was one.
    pub(super) fn end(&mut self, id: ConnectionId, now: Duration, silent: bool) -> bool {
        let Some((connection, remainder)) = self.table.remove(id) else { return false };
        let Some(lease) = lease(&connection) else { return true };
        let Some(pool) = self.pools.iter_mut().find(|pool| pool.contains(lease.external)) else {
            return true;
        };
        match remainder {
            Remainder::Others => {}
            Remainder::First(first) => {
                pool.set_owner(lease, id.slot, first.slot);
            }
            Remainder::Nothing => {
                // The state machine saw it close: nothing of it is on its way any more (RFC 6888 REQ-8 b).
                let hold = silent && !is_closed(&connection);
                pool.release(lease, id.slot, now, hold);
            }
            Remainder::NoMapping if connection.status.has(Status::SHARED) => {
                pool.release(lease, id.slot, now, false);
            }
            Remainder::NoMapping => {}
        }
        true
    }
}

/// What is known of a connection from its beginning.
fn status<A: Address>(prepared: &Prepared<A>) -> Status {
    let mut status = Status::default();
    match prepared.port {
        Port::None | Port::Asked(_) => {}
        Port::Moved => status.set(Status::MOVED),
        Port::Mapped(_) | Port::Leased { .. } => status.set(Status::OUTWARD),
    }
    status
}

/// The external port that a connection uses, if it does.
fn lease<A: Address>(connection: &Connection<A>) -> Option<Lease<A>> {
    if !connection.status.has(Status::LEASED) && !connection.status.has(Status::SHARED) {
        return None;
    }
    let outside = connection.outside().source;
    Some(Lease {
        inside: connection.inside().source.address,
        external: outside.address,
        protocol: Protocol::from_number(connection.protocol)?,
        port: outside.port,
    })
}

fn is_closed<A>(connection: &Connection<A>) -> bool {
    match &connection.state {
        State::Tcp(tcp) => matches!(tcp.state(), tcp::State::TimeWait | tcp::State::Close),
        State::Sctp(_) | State::Udp(_) | State::Query | State::Other => false,
    }
}
