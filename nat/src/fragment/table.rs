//! The table of datagrams.

use alloc::boxed::Box;
use alloc::vec;
use core::hash::BuildHasher;
use core::time::Duration;

use foldhash::quality::FixedState;

use super::datagram::{Datagram, Range, State};
use super::part::{Key, Part};
use super::slab::{NONE, Slab};
use super::{Limits, Refusal, Taken};
use crate::tuple::Address;

/// How many datagrams are forgotten in passing, for each fragment that comes; a fragment adds one at most.
const FORGOTTEN: usize = 2;

/// Datagrams of which fragments are outstanding. `V` is what later fragments are told, `P` what a parked one is kept as: the
/// frame, or a handle to it.
#[derive(Debug)]
pub struct Table<A, V, P> {
    limits: Limits,
    hasher: FixedState,
    /// The first datagram of each bucket; a power of two of them.
    buckets: Box<[u32]>,
    datagrams: Slab<Datagram<A, V>>,
    /// `limits.fragments` for each place of a datagram.
    ranges: Box<[Range]>,
    parked: Slab<Parked<P>>,
    parked_octets: usize,
    /// Those that wait for their first fragment, and the others.
    queues: [Queue; 2],
}

#[derive(Debug)]
struct Parked<P> {
    payload: P,
    octets: usize,
    next: u32,
}

/// Datagrams by deadline.
#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
}

impl<A: Address, V: Copy, P> Table<A, V, P> {
    /// An empty table. `seed` should not be guessable.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let ranges = limits.datagrams as usize * usize::from(limits.fragments);
        let buckets = (limits.datagrams as usize).next_power_of_two();
        Self {
            limits,
            hasher: FixedState::with_seed(seed),
            buckets: vec![NONE; buckets].into(),
            datagrams: Slab::new(limits.datagrams),
            ranges: vec![Range::default(); ranges].into(),
            parked: Slab::new(limits.parked),
            parked_octets: 0,
            queues: [Queue { oldest: NONE, newest: NONE }; 2],
        }
    }

    /// Changes how long datagrams may take that begin or go on from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.limits.timeout = timeout;
    }

    /// What a later fragment would be told if it came now; `None` if it would be parked or refused.
    pub fn peek(&self, key: &Key<A>, now: Duration) -> Option<V> {
        let datagram = self.datagrams.get(self.position(key)?)?;
        match datagram.state {
            State::Known(value) if datagram.deadline > now => Some(value),
            State::Known(_) | State::Waiting | State::Refused(_) => None,
        }
    }

    /// How many datagrams have fragments outstanding.
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many fragments are parked.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// How many octets they have.
    pub fn parked_octets(&self) -> usize {
        self.parked_octets
    }

    /// Takes a fragment. `payload` is what comes back when it may go on; `lost` gets those parked fragments that go no
    /// further.
    pub fn take(
        &mut self,
        part: &Part<A>,
        payload: P,
        now: Duration,
        lost: &mut impl FnMut(P, Refusal),
    ) -> Taken<V, P> {
        self.expire(now, FORGOTTEN, lost);
        let at = match (self.find(&part.key, now, lost), part.end) {
            (Some(at), _) => at,
            (None, Err(refusal)) => return Taken::Refused(refusal, payload),
            (None, Ok(_)) => match self.create(part.key, now, lost) {
                Some(at) => at,
                None => return Taken::Refused(Refusal::Pressure, payload),
            },
        };
        let ranges = at as usize * usize::from(self.limits.fragments);
        let ranges = &mut self.ranges[ranges..][..usize::from(self.limits.fragments)];
        let Some(datagram) = self.datagrams.get_mut(at) else {
            return Taken::Refused(Refusal::Pressure, payload);
        };
        if let State::Refused(refusal) = datagram.state {
            return Taken::Refused(refusal, payload);
        }
        match datagram.record(part, ranges) {
            Ok(()) => {}
            Err(Refusal::Duplicate) => return Taken::Refused(Refusal::Duplicate, payload),
            Err(refusal) => {
                self.settle(at, State::Refused(refusal), now, &mut |payload| lost(payload, refusal));
                return Taken::Refused(refusal, payload);
            }
        }
        match datagram.state {
            State::Known(value) => {
                if datagram.is_complete() {
                    self.remove(at, &mut |_| {});
                }
                Taken::Later(value, payload)
            }
            State::Waiting | State::Refused(_) if part.is_first() => Taken::First(payload),
            State::Waiting | State::Refused(_) => match self.park(at, payload, part.octets, now, lost) {
                Ok(()) => Taken::Parked,
                Err(payload) => Taken::Refused(Refusal::Pressure, payload),
            },
        }
    }

    /// Says what the other fragments of a first one are to be told; those that are parked go to `release`. Nothing happens
    /// if the datagram has been forgotten meanwhile.
    pub fn resolve(&mut self, key: &Key<A>, value: V, now: Duration, release: &mut impl FnMut(P)) {
        let Some(at) = self.position(key) else { return };
        let Some(datagram) = self.datagrams.get(at) else { return };
        if !matches!(datagram.state, State::Waiting) {
            return;
        }
        if datagram.is_complete() {
            self.remove(at, release);
        } else {
            self.settle(at, State::Known(value), now, release);
        }
    }

    /// Says that the first fragment went no further, and so none of the others may; those that are parked go to `lost`.
    pub fn reject(&mut self, key: &Key<A>, now: Duration, lost: &mut impl FnMut(P, Refusal)) {
        if let Some(at) = self.position(key) {
            let refusal = Refusal::Rejected;
            self.settle(at, State::Refused(refusal), now, &mut |payload| lost(payload, refusal));
        }
    }

    /// Forgets up to `most` datagrams whose time is over.
    pub fn expire(&mut self, now: Duration, most: usize, lost: &mut impl FnMut(P, Refusal)) {
        for _ in 0..most {
            match self.oldest() {
                Some((at, deadline)) if deadline <= now => {
                    self.remove(at, &mut |payload| lost(payload, Refusal::Timeout));
                }
                Some(_) | None => return,
            }
        }
    }

    /// When the next datagram's time is over.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.oldest().map(|(_, deadline)| deadline)
    }

    fn bucket(&self, key: &Key<A>) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let hash = self.hasher.hash_one(key) as usize;
        hash & (self.buckets.len() - 1)
    }

    fn position(&self, key: &Key<A>) -> Option<u32> {
        let mut at = self.buckets[self.bucket(key)];
        loop {
            let datagram = self.datagrams.get(at)?;
            if datagram.key == *key {
                return Some(at);
            }
            at = datagram.chain;
        }
    }

    /// The datagram, unless its time is over.
    fn find(&mut self, key: &Key<A>, now: Duration, lost: &mut impl FnMut(P, Refusal)) -> Option<u32> {
        let at = self.position(key)?;
        if self.datagrams.get(at)?.deadline > now {
            return Some(at);
        }
        self.remove(at, &mut |payload| lost(payload, Refusal::Timeout));
        None
    }

    /// The oldest of all.
    fn oldest(&self) -> Option<(u32, Duration)> {
        let head = |queue: &Queue| Some((queue.oldest, self.datagrams.get(queue.oldest)?.deadline));
        self.queues.iter().filter_map(head).min_by_key(|&(_, deadline)| deadline)
    }

    fn create(&mut self, key: Key<A>, now: Duration, lost: &mut impl FnMut(P, Refusal)) -> Option<u32> {
        if self.datagrams.is_full() {
            let (oldest, _) = self.oldest()?;
            self.remove(oldest, &mut |payload| lost(payload, Refusal::Pressure));
        }
        let bucket = self.bucket(&key);
        let mut datagram = Datagram::new(key, now.saturating_add(self.limits.timeout));
        datagram.chain = self.buckets[bucket];
        let at = self.datagrams.insert(datagram).ok()?;
        self.buckets[bucket] = at;
        self.enqueue(at);
        Some(at)
    }

    /// Parks a fragment, at the expense of the oldest waiting datagrams. If that is its own, it is refused with it.
    fn park(
        &mut self,
        at: u32,
        payload: P,
        octets: usize,
        now: Duration,
        lost: &mut impl FnMut(P, Refusal),
    ) -> Result<(), P> {
        let refusal = Refusal::Pressure;
        if self.limits.parked == 0 || octets > self.limits.parked_octets {
            self.settle(at, State::Refused(refusal), now, &mut |payload| lost(payload, refusal));
            return Err(payload);
        }
        while self.parked.is_full() || self.parked_octets + octets > self.limits.parked_octets {
            let oldest = self.queues[0].oldest;
            self.settle(oldest, State::Refused(refusal), now, &mut |payload| lost(payload, refusal));
            if oldest == at {
                return Err(payload);
            }
        }
        let parked = Parked { payload, octets, next: NONE };
        let place = self.parked.insert(parked).map_err(|parked| parked.payload)?;
        self.parked_octets += octets;
        if let Some(datagram) = self.datagrams.get_mut(at) {
            let [_, last] = datagram.parked;
            match self.parked.get_mut(last) {
                Some(last) => last.next = place,
                None => datagram.parked[0] = place,
            }
            datagram.parked[1] = place;
        }
        Ok(())
    }

    /// Ends a datagram's waiting; its time begins anew.
    fn settle(&mut self, at: u32, state: State<V>, now: Duration, release: &mut impl FnMut(P)) {
        self.unpark(at, release);
        self.dequeue(at);
        let deadline = now.saturating_add(self.limits.timeout);
        if let Some(datagram) = self.datagrams.get_mut(at) {
            datagram.state = state;
            datagram.deadline = deadline;
        }
        self.enqueue(at);
    }

    fn unpark(&mut self, at: u32, release: &mut impl FnMut(P)) {
        let Some(datagram) = self.datagrams.get_mut(at) else { return };
        let [mut next, _] = core::mem::replace(&mut datagram.parked, [NONE; 2]);
        while let Some(parked) = self.parked.remove(next) {
            next = parked.next;
            self.parked_octets -= parked.octets;
            release(parked.payload);
        }
    }

    fn remove(&mut self, at: u32, release: &mut impl FnMut(P)) {
        self.unpark(at, release);
        self.dequeue(at);
        let Some(datagram) = self.datagrams.remove(at) else { return };
        let bucket = self.bucket(&datagram.key);
        if self.buckets[bucket] == at {
            self.buckets[bucket] = datagram.chain;
            return;
        }
        let mut before = self.buckets[bucket];
        while let Some(other) = self.datagrams.get_mut(before) {
            if other.chain == at {
                other.chain = datagram.chain;
                return;
            }
            before = other.chain;
        }
    }

    /// The queue that a datagram belongs into.
    fn queue(datagram: &Datagram<A, V>) -> usize {
        usize::from(!matches!(datagram.state, State::Waiting))
    }

    fn enqueue(&mut self, at: u32) {
        let Some(datagram) = self.datagrams.get_mut(at) else { return };
        let queue = &mut self.queues[Self::queue(datagram)];
        (datagram.older, datagram.newer) = (queue.newest, NONE);
        let newest = core::mem::replace(&mut queue.newest, at);
        match self.datagrams.get_mut(newest) {
            Some(before) => before.newer = at,
            None => queue.oldest = at,
        }
    }

    fn dequeue(&mut self, at: u32) {
        let Some(datagram) = self.datagrams.get(at) else { return };
        let (older, newer) = (datagram.older, datagram.newer);
        let queue = &mut self.queues[Self::queue(datagram)];
        match self.datagrams.get_mut(older) {
            Some(before) => before.newer = newer,
            None => queue.oldest = newer,
        }
        match self.datagrams.get_mut(newer) {
            Some(after) => after.older = older,
            None => queue.newest = older,
        }
    }
}
