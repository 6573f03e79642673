//! One deadline per flow: an indexed binary heap.
//!
//! # Theory of operation
//! A flow re-arms its deadline with nearly every segment, mostly to a later time. A heap with lazy deletion would pile
//! up stale entries, so each slot knows its place in the heap and moves there: setting, moving and removing cost
//! O(log n), the earliest is at hand, and all memory is taken at construction.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

/// Marks a slot that has no deadline.
const ABSENT: u32 = u32::MAX;

/// Slot to deadline, earliest first.
#[derive(Debug)]
pub(super) struct Deadlines {
    heap: Vec<u32>,
    at: Vec<Duration>,
    place: Vec<u32>,
}

impl Deadlines {
    /// Room for the slots `0..capacity`.
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self {
            heap: Vec::with_capacity(capacity),
            at: vec![Duration::ZERO; capacity],
            place: vec![ABSENT; capacity],
        }
    }

    /// Sets, moves or removes the deadline of a slot.
    pub(super) fn set(&mut self, slot: u32, deadline: Option<Duration>) {
        let place = self.place[slot as usize];
        match deadline {
            None if place == ABSENT => {}
            None => self.remove_place(place as usize),
            Some(at) => {
                self.at[slot as usize] = at;
                if place == ABSENT {
                    self.place(self.heap.len(), slot);
                    self.rise(self.heap.len() - 1);
                } else {
                    self.rise(place as usize);
                    self.sink(self.place[slot as usize] as usize);
                }
            }
        }
    }

    /// The earliest deadline.
    pub(super) fn earliest(&self) -> Option<Duration> {
        self.heap.first().map(|&slot| self.at[slot as usize])
    }

    /// Takes out a slot whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<u32> {
        let &slot = self.heap.first()?;
        if self.at[slot as usize] > now {
            return None;
        }
        self.remove_place(0);
        Some(slot)
    }

    fn remove_place(&mut self, place: usize) {
        let slot = self.heap.swap_remove(place);
        self.place[slot as usize] = ABSENT;
        if let Some(&moved) = self.heap.get(place) {
            self.place(place, moved);
            self.rise(place);
            self.sink(self.place[moved as usize] as usize);
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.key(parent) <= self.key(place) {
                return;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut least = place;
            for child in [left, right] {
                if child < self.heap.len() && self.key(child) < self.key(least) {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.swap(least, place);
            place = least;
        }
    }

    fn key(&self, place: usize) -> Duration {
        self.at[self.heap[place] as usize]
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (slot_a, slot_b) = (self.heap[a], self.heap[b]);
        self.place(a, slot_b);
        self.place(b, slot_a);
    }

    /// Writes `slot` at `place`, which is in the heap or one past its end.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a heap has at most as many places as there are u32 slots"
    )]
    fn place(&mut self, place: usize, slot: u32) {
        match self.heap.get_mut(place) {
            Some(there) => *there = slot,
            None => self.heap.push(slot),
        }
        self.place[slot as usize] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u32, u64),
        Clear(u32),
        Pop(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u32..20, 0u64..50).prop_map(|(s, t)| Step::Set(s, t)),
            1 => (0u32..20).prop_map(Step::Clear),
            1 => (0u64..50).prop_map(Step::Pop),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(steps in proptest::collection::vec(step(), 0..300)) {
            let mut deadlines = Deadlines::new(20);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(slot, at) => {
                        deadlines.set(slot, Some(Duration::from_secs(at)));
                        model.insert(slot, at);
                    }
                    Step::Clear(slot) => {
                        deadlines.set(slot, None);
                        model.remove(&slot);
                    }
                    Step::Pop(now) => match deadlines.pop_due(Duration::from_secs(now)) {
                        Some(slot) => {
                            let at = model.remove(&slot).unwrap();
                            prop_assert!(at <= now && model.values().all(|&other| other >= at));
                        }
                        None => prop_assert!(model.values().all(|&at| at > now)),
                    },
                }
                prop_assert_eq!(deadlines.earliest(), model.values().min().map(|&s| Duration::from_secs(s)));
            }
        }
    }
}
