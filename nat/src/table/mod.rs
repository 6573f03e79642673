//! The table of connections: a fixed number of slots, and an index that finds a connection by either of its tuples.
//!
//! # Theory of operation
//! Both tuples of a connection are filed in one index, so that a packet of either direction finds it by one search.
//! A slot that is freed is used again first; its generation tells the old connection from the new. Everything is allocated
//! when the table is made and nothing grows afterwards.
//!
//! A connection whose time is up is gone for every search from that moment on; its slot is freed by [`Table::sweep`], a
//! bounded piece at a time.
//!
//! A full table refuses nobody at once: of the few connections that lie near the new one's place in the index, one that is
//! over or not assured makes room ([`Table::victim`]). An assured one never does.

mod deadlines;
mod index;
mod mappings;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::hash::{BuildHasher as _, Hasher as _};
use core::hint::black_box;
use core::ops::Range;
use core::time::Duration;

use foldhash::quality::FixedState;

use crate::connection::{Connection, ConnectionId, State, Status};
use crate::ticks::Ticks;
use crate::tuple::{Address, Direction, Tuple};
use deadlines::{Deadlines, GROUP};
use index::Index;
pub use mappings::Remainder;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// The most connections that a table can hold.
pub const MOST: usize = (index::LARGEST / 2) as usize;
/// How many places of the index are looked at for a connection that makes room.
const VICTIMS: usize = 16;
/// What is over is cleared away at most this much late, and so at most this often.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Table<A> {
    slots: Vec<Connection<A>>,
    /// The first free slot; the next one stands in its `siblings[0]`.
    free: u32,
    used: usize,
    capacity: usize,
    index: Index,
    /// The first connection of each mapping, by its inside endpoint; see [`mappings`].
    sources: Index,
    hasher: FixedState,
    deadlines: Deadlines,
    /// The next group to look at, and when the round before this one ended.
    cursor: usize,
    swept: Ticks,
}

/// What is to be kept of a new connection.
#[derive(Clone, Copy, Debug)]
pub struct Opening<A> {
    /// The tuple of its first packet.
    pub original: Tuple<A>,
    /// The tuple that packets of the other side carry.
    pub reply: Tuple<A>,
    /// The state of its protocol.
    pub state: State,
    /// How long it is kept.
    pub timeout: Duration,
    /// What else is known of it.
    pub status: Status,
    /// For the owner of the table to use.
    pub marks: [u32; 3],
}

/// The table is full of connections that are worth more than a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Touches what a search compares, which may lie across two cache lines.
#[inline(always)]
fn compared<A: Address>(connection: &Connection<A>) -> u32 {
    u32::from(connection.endpoints[0][0].port) ^ connection.generation
}

impl<A: Address> Table<A> {
    /// A table for at most `capacity` connections ([`MOST`] at most). The seed decides where in the table a tuple lies:
    /// whoever does not know it cannot crowd a place.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, MOST);
        Self {
            slots: Vec::with_capacity(capacity),
            free: NONE,
            used: 0,
            capacity,
            index: Index::new(2 * capacity),
            sources: Index::new(capacity),
            hasher: FixedState::with_seed(seed),
            deadlines: Deadlines::new(capacity),
            cursor: 0,
            swept: Ticks::at(Duration::ZERO),
        }
    }

    /// How many connections there are, those included whose time is up and that are not yet cleared away.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Octets that the table takes when it is full.
    pub fn size(&self) -> usize {
        self.capacity * size_of::<Connection<A>>()
            + self.index.size()
            + self.sources.size()
            + self.deadlines.size()
    }

    #[inline]
    fn hash(&self, tuple: &Tuple<A>) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        let (source, destination) = (tuple.source.address.to_bits(), tuple.destination.address.to_bits());
        if A::BITS == 32 {
            hasher.write_u64(low(source) << 32 | low(destination));
        } else {
            hasher.write_u128(source);
            hasher.write_u128(destination);
        }
        let ports = u64::from(tuple.source.port) << 48 | u64::from(tuple.destination.port) << 32;
        hasher.write_u64(ports | u64::from(tuple.zone) << 8 | u64::from(tuple.protocol));
        u32::try_from(hasher.finish() >> 32).unwrap_or(0)
    }

    /// The connection that packets with this tuple belong to, and their direction in it.
    #[inline]
    pub fn find(&self, tuple: &Tuple<A>, now: Duration) -> Option<(ConnectionId, Direction)> {
        self.find_hashed(self.hash(tuple), tuple, Ticks::at(now))
    }

    #[inline]
    fn find_hashed(&self, hash: u32, tuple: &Tuple<A>, now: Ticks) -> Option<(ConnectionId, Direction)> {
        self.living(self.index.find(hash, |number| self.is_at(number, tuple))?, now)
    }

    /// Whether this is where a tuple is filed.
    #[inline]
    fn is_at(&self, number: u32, tuple: &Tuple<A>) -> bool {
        let (slot, direction) = split(number);
        self.slots[slot as usize].tuple(direction) == *tuple
    }

    /// What is filed as a number, unless its time is up.
    #[inline]
    fn living(&self, number: u32, now: Ticks) -> Option<(ConnectionId, Direction)> {
        let (slot, direction) = split(number);
        let Connection { deadline, generation, .. } = self.slots[slot as usize];
        (!deadline.has_come(now)).then_some((ConnectionId { slot, generation }, direction))
    }

    /// Who is in a slot that is in use.
    #[inline]
    fn id(&self, slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: self.slots[slot as usize].generation }
    }

    /// Has the memory fetch at the same time what searches for all of these tuples look at, and what tracking changes in the
    /// connections that they find. Where there are many connections, waiting for it is most of what a search costs.
    pub fn fetch(&self, tuples: &[Tuple<A>]) {
        for tuples in tuples.chunks(BATCH) {
            // The state lies in a cache line of its own.
            self.fetch_some(tuples, |it| compared(it) ^ u32::from(it.state == State::Query));
        }
    }

    /// The same for [`BATCH`] tuples at most, with the cache lines that `lines` touches. Gives for each tuple the first number
    /// that is filed under its hash.
    #[inline(always)]
    fn fetch_some(&self, tuples: &[Tuple<A>], lines: impl Fn(&Connection<A>) -> u32) -> [u32; BATCH] {
        let (mut hashes, mut numbers) = ([0; BATCH], [NONE; BATCH]);
        let hashes = &mut hashes[..tuples.len()];
        for (hash, tuple) in hashes.iter_mut().zip(tuples) {
            *hash = self.hash(tuple);
        }
        // The loops that fetch do nothing else, so that a processor looks as far ahead as it can.
        black_box(hashes.iter().fold(0, |all, &hash| all ^ self.index.peek(hash)));
        for (number, &hash) in numbers.iter_mut().zip(&*hashes) {
            *number = self.index.find(hash, |_| true).unwrap_or(NONE);
        }
        let slot = |&number: &u32| self.slots.get(split(number).0 as usize);
        let found = numbers[..tuples.len()].iter().filter_map(slot);
        black_box(found.fold(0, |all, connection| all ^ lines(connection)));
        numbers
    }

    /// Finds the connections of many tuples, whose memory is fetched at once. `found` gets one answer for each tuple.
    pub fn find_batch(
        &self,
        tuples: &[Tuple<A>],
        now: Duration,
        found: &mut [Option<(ConnectionId, Direction)>],
    ) {
        let time = Ticks::at(now);
        for (tuples, found) in tuples.chunks(BATCH).zip(found.chunks_mut(BATCH)) {
            let numbers = self.fetch_some(tuples, compared);
            for ((tuple, number), found) in tuples.iter().zip(numbers).zip(found) {
                // Hashes of 32 bits are so rarely equal that the first number is the right one nearly always.
                *found = if number != NONE && self.is_at(number, tuple) {
                    self.living(number, time)
                } else {
                    self.find(tuple, now)
                };
            }
        }
    }

    /// Whether packets with this tuple would belong to a connection.
    pub fn is_taken(&self, tuple: &Tuple<A>, now: Duration) -> bool {
        self.find(tuple, now).is_some()
    }

    /// The connection that a tuple is filed under, its time being up or not: what is over stays filed until it is cleared
    /// away.
    pub fn holder(&self, tuple: &Tuple<A>) -> Option<ConnectionId> {
        let number = self.index.find(self.hash(tuple), |number| self.is_at(number, tuple))?;
        Some(self.id(split(number).0))
    }

    /// Whether a connection's time is up, or it has ended.
    pub fn is_over(&self, id: ConnectionId, now: Duration) -> bool {
        self.get(id).is_none_or(|connection| connection.deadline.has_come(Ticks::at(now)))
    }

    /// The connection, unless it has ended.
    #[inline]
    pub fn get(&self, id: ConnectionId) -> Option<&Connection<A>> {
        self.slots.get(id.slot as usize).filter(|connection| connection.generation == id.generation)
    }

    /// The connection, unless it has ended.
    #[inline]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<A>> {
        self.slots.get_mut(id.slot as usize).filter(|connection| connection.generation == id.generation)
    }

    /// Keeps a connection for `timeout` from `now` on.
    #[inline]
    pub fn keep(&mut self, id: ConnectionId, now: Duration, timeout: Duration) {
        self.follow(id, |_| Some(Ticks::at(now).after(timeout)));
    }

    /// Has a connection take note of a packet, which says until when it is kept then; none, and nothing noted, if that is
    /// not for this to do. False then, and if there is no such connection.
    #[inline]
    pub fn follow(
        &mut self,
        id: ConnectionId,
        note: impl FnOnce(&mut Connection<A>) -> Option<Ticks>,
    ) -> bool {
        let connection = self.slots.get_mut(id.slot as usize);
        let Some(connection) = connection.filter(|connection| connection.generation == id.generation) else {
            return false;
        };
        let Some(deadline) = note(connection) else { return false };
        let shorter = !connection.deadline.has_come(deadline);
        connection.deadline = deadline;
        if shorter {
            self.deadlines.note(id.slot as usize, deadline);
        }
        true
    }

    /// Keeps a connection for `timeout` from `now` on if it would not be kept as long otherwise, and its time is not up.
    pub fn keep_at_least(&mut self, id: ConnectionId, now: Duration, timeout: Duration) {
        let remaining = self.get(id).map_or(Duration::ZERO, |connection| connection.remaining(now));
        if !remaining.is_zero() && remaining < timeout {
            self.keep(id, now, timeout);
        }
    }

    /// A connection that may go to make room for one with this tuple: one whose time is up, or else one that is not
    /// assured. One that is `needed` stays.
    pub fn victim(
        &self,
        tuple: &Tuple<A>,
        now: Duration,
        needed: Option<ConnectionId>,
    ) -> Option<ConnectionId> {
        let now = Ticks::at(now);
        let mut unassured = None;
        for number in self.index.near(self.hash(tuple), VICTIMS) {
            let (slot, _) = split(number);
            let connection = &self.slots[slot as usize];
            if needed.is_some_and(|needed| needed.slot == slot) {
                continue;
            }
            if connection.deadline.has_come(now) {
                return Some(self.id(slot));
            }
            if !connection.status.has(Status::ASSURED) {
                unassured = unassured.or(Some(self.id(slot)));
            }
        }
        unassured
    }

    /// Whether the next one needs room made for it.
    pub fn is_full(&self) -> bool {
        self.used == self.capacity
    }

    /// Adds a connection. The caller has seen that both tuples are free.
    ///
    /// # Errors
    /// [`Full`].
    pub fn insert(&mut self, opening: &Opening<A>, now: Duration) -> Result<ConnectionId, Full> {
        if self.is_full() {
            return Err(Full);
        }
        let deadline = Ticks::at(now).after(opening.timeout);
        let Opening { original, reply, state, status, marks, .. } = *opening;
        let mut connection = Connection {
            endpoints: [[original.source, original.destination], [reply.source, reply.destination]],
            zones: [original.zone, reply.zone],
            protocol: original.protocol,
            status,
            deadline,
            generation: 0,
            siblings: [NONE; 2],
            marks,
            state,
        };
        let slot = match self.slots.get_mut(self.free as usize) {
            Some(place) => {
                let slot = self.free;
                self.free = place.siblings[0];
                connection.generation = place.generation;
                *place = connection;
                slot
            }
            // Every slot ever used is in use.
            None => {
                self.slots.push(connection);
                u32::try_from(self.slots.len() - 1).unwrap_or(NONE)
            }
        };
        self.used += 1;
        for (direction, tuple) in [(Direction::Original, &original), (Direction::Reply, &reply)] {
            self.index.insert(self.hash(tuple), join(slot, direction));
        }
        self.deadlines.note(slot as usize, deadline);
        Ok(ConnectionId { slot, generation: connection.generation })
    }

    /// Ends a connection and returns what was kept of it, and what remains of its mapping; `None` if it had ended.
    pub fn remove(&mut self, id: ConnectionId) -> Option<(Connection<A>, Remainder)> {
        let connection = *self.get(id)?;
        let remainder = self.leave(id.slot);
        for direction in [Direction::Original, Direction::Reply] {
            let hash = self.hash(&connection.tuple(direction));
            self.index.remove(hash, join(id.slot, direction));
        }
        let place = &mut self.slots[id.slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.siblings[0] = self.free;
        place.status = Status::FREE;
        self.free = id.slot;
        self.used -= 1;
        Some((connection, remainder))
    }

    /// Looks through at most `groups` groups of 64 slots and adds to `ended` whose time is up; the caller removes them.
    pub fn sweep(&mut self, now: Duration, groups: usize, ended: &mut Vec<ConnectionId>) {
        let now = Ticks::at(now);
        for _ in 0..groups {
            let ahead = self.deadlines.due(self.cursor, now).or_else(|| self.deadlines.due(0, now));
            let Some(group) = ahead else {
                self.cursor = 0;
                self.deadlines.settle();
                self.swept = now;
                return;
            };
            self.cursor = group + 1;
            let first = group * GROUP;
            let mut next: Option<Ticks> = None;
            for (slot, connection) in (first..).zip(self.slots[first..].iter().take(GROUP)) {
                if connection.status.has(Status::FREE) {
                    continue;
                }
                if connection.deadline.has_come(now) {
                    let slot = u32::try_from(slot).unwrap_or(NONE);
                    ended.push(ConnectionId { slot, generation: connection.generation });
                } else {
                    let deadline = connection.deadline;
                    next = Some(next.map_or(deadline, |next| next.earlier(deadline)));
                }
            }
            self.deadlines.looked(group, next);
        }
    }

    /// In how long [`Self::sweep`] is to be called; `None` while there is nothing to end.
    pub fn next_sweep(&self, now: Duration) -> Option<Duration> {
        let now = Ticks::at(now);
        // The moments of connections that were removed may still stand.
        let due = self.deadlines.next().filter(|_| !self.is_empty())?;
        // What was begun goes on at once.
        let pause =
            if self.cursor == 0 { self.swept.after(SWEEP_INTERVAL).from(now) } else { Duration::ZERO };
        Some(due.from(now).max(pause.min(SWEEP_INTERVAL)))
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Connection<A>)> {
        self.iter_in(0..self.slots.len())
    }

    /// How many slots there are, used and free.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The connections in these slots.
    pub fn iter_in(&self, slots: Range<usize>) -> impl Iterator<Item = (ConnectionId, &Connection<A>)> {
        let some = self.slots.iter().enumerate().take(slots.end).skip(slots.start);
        let used = some.filter(|(_, connection)| !connection.status.has(Status::FREE));
        used.map(|(slot, connection)| {
            let slot = u32::try_from(slot).unwrap_or(NONE);
            (ConnectionId { slot, generation: connection.generation }, connection)
        })
    }
}

/// Tuples that [`Table::fetch`] fetches for together.
const BATCH: usize = 32;

#[inline]
const fn join(slot: u32, direction: Direction) -> u32 {
    match direction {
        Direction::Original => slot << 1,
        Direction::Reply => slot << 1 | 1,
    }
}

#[inline]
const fn split(number: u32) -> (u32, Direction) {
    (number >> 1, if number & 1 == 0 { Direction::Original } else { Direction::Reply })
}

#[inline]
fn low(bits: u128) -> u64 {
    u64::try_from(bits & 0xffff_ffff).unwrap_or(0)
}
