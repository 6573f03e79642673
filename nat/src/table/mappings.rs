//! Mappings: connections of one inside endpoint that share an external port (RFC 4787 REQ-1).
//!
//! # Theory of operation
//! A mapping is nothing of its own: it is the list of its connections, which hang together by their `siblings`, and it
//! lasts until the last of them is cleared away (RFC 7857 section 12). The first one is filed under the inside endpoint, so that the
//! next connection from there finds the external port to use. That an external port leads to the first connection is the
//! business of who owns the ports.

use core::hash::{BuildHasher as _, Hasher as _};

use super::{NONE, Table};
use crate::connection::{Connection, ConnectionId, Status};
use crate::tuple::{Address, Tuple};

/// What remains of a connection's mapping when it has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remainder {
    /// It was in none.
    NoMapping,
    /// Nothing: the external port is free.
    Nothing,
    /// Other connections, the first of them as before.
    Others,
    /// Other connections, of which this is now the first.
    First(ConnectionId),
}

impl<A: Address> Table<A> {
    /// The hash of where a packet comes from, whoever it goes to.
    fn source_hash(&self, tuple: &Tuple<A>) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u128(tuple.source.address.to_bits());
        let port = u64::from(tuple.source.port) << 32;
        hasher.write_u64(port | u64::from(tuple.zone) << 8 | u64::from(tuple.protocol));
        u32::try_from(hasher.finish() >> 32).unwrap_or(0)
    }

    /// A mapping of the endpoint that `original` comes from, by one of its connections. An endpoint may have several, to
    /// different external addresses; `is` says which is wanted.
    pub fn mapping(
        &self,
        original: &Tuple<A>,
        mut is: impl FnMut(&Connection<A>) -> bool,
    ) -> Option<ConnectionId> {
        let slot = self.sources.find(self.source_hash(original), |slot| {
            let connection = &self.slots[slot as usize];
            let tuple = connection.inside();
            let same = (tuple.source, tuple.protocol, tuple.zone)
                == (original.source, original.protocol, original.zone);
            same && is(connection)
        })?;
        Some(self.id(slot))
    }

    /// The connections of the mapping whose first is in `slot`.
    pub fn siblings(&self, slot: u32) -> impl Iterator<Item = (ConnectionId, &Connection<A>)> {
        let mut next = slot;
        core::iter::from_fn(move || {
            let used = |connection: &&Connection<A>| !connection.status.has(Status::FREE);
            let connection = self.slots.get(next as usize).filter(used)?;
            let id = ConnectionId { slot: next, generation: connection.generation };
            next = connection.siblings[1];
            Some((id, connection))
        })
    }

    /// Makes a connection the first of a new mapping, or one more of the mapping that `first` begins, be it opened from inside
    /// or from outside.
    pub fn join(&mut self, id: ConnectionId, first: Option<ConnectionId>) {
        let Some(connection) = self.get_mut(id) else { return };
        connection.status.set(Status::LEASED);
        let tuple = connection.inside();
        match first.filter(|&first| self.get(first).is_some()) {
            None => self.sources.insert(self.source_hash(&tuple), id.slot),
            Some(first) => {
                // Behind the first, so that what is filed stays filed.
                let second = core::mem::replace(&mut self.slots[first.slot as usize].siblings[1], id.slot);
                self.slots[id.slot as usize].siblings = [first.slot, second];
                if let Some(second) = self.slots.get_mut(second as usize) {
                    second.siblings[0] = id.slot;
                }
            }
        }
    }

    /// Notes that a connection uses an external port that others use towards other destinations. It is no mapping: nothing
    /// else can use the port because of it.
    pub fn share(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.status.set(Status::SHARED);
        }
    }

    /// Takes a connection out of its mapping.
    pub(super) fn leave(&mut self, slot: u32) -> Remainder {
        let connection = &self.slots[slot as usize];
        if !connection.status.has(Status::LEASED) {
            return Remainder::NoMapping;
        }
        let ([before, after], tuple) = (connection.siblings, connection.inside());
        if let Some(after) = self.slots.get_mut(after as usize) {
            after.siblings[0] = before;
        }
        if let Some(place) = self.slots.get_mut(before as usize) {
            place.siblings[1] = after;
            return Remainder::Others;
        }
        let hash = self.source_hash(&tuple);
        if after == NONE {
            self.sources.remove(hash, slot);
            return Remainder::Nothing;
        }
        self.sources.replace(hash, slot, after);
        Remainder::First(self.id(after))
    }
}
