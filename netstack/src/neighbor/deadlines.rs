//! When each neighbour is due next.
//!
//! # Theory of operation
//! A binary heap of slots ordered by time, and for every slot its place in the heap. A deadline that moves is moved in
//! place and one that is cancelled is taken out, so the heap never holds more than one item per slot: its memory is taken
//! at construction, and the first item is always a real deadline. Every operation is at worst logarithmic.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

/// A place that means "not in the heap".
const ABSENT: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Deadlines {
    /// The heap: no item is due before its parent at `(index - 1) / 2`. Equal times go by slot, so that the order does
    /// not depend on history.
    heap: Vec<(Duration, u32)>,
    /// Index in `heap` by slot.
    places: Vec<usize>,
}

impl Deadlines {
    pub(super) fn new(slots: u32) -> Self {
        Self { heap: Vec::with_capacity(slots as usize), places: vec![ABSENT; slots as usize] }
    }

    /// The earliest deadline and whose it is.
    pub(super) fn first(&self) -> Option<(Duration, u32)> {
        self.heap.first().copied()
    }

    /// Gives a slot this deadline and no other.
    pub(super) fn set(&mut self, slot: u32, at: Duration) {
        let Some(&place) = self.places.get(slot as usize) else {
            debug_assert!(false, "slot {slot} is not of this table");
            return;
        };
        if place == ABSENT {
            self.heap.push((at, slot));
            self.up(self.heap.len() - 1);
        } else {
            self.heap[place].0 = at;
            self.settle(place);
        }
    }

    /// Takes a slot's deadline away, if it has one.
    pub(super) fn clear(&mut self, slot: u32) {
        let place = self.places.get(slot as usize).copied().unwrap_or(ABSENT);
        if place == ABSENT {
            return;
        }
        self.places[slot as usize] = ABSENT;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
        }
    }

    #[cfg(test)]
    pub(super) fn of(&self, slot: u32) -> Option<Duration> {
        let place = self.places[slot as usize];
        (place != ABSENT).then(|| self.heap[place].0)
    }

    /// Moves a changed item to where it belongs.
    fn settle(&mut self, place: usize) {
        let place = self.up(place);
        self.down(place);
    }

    fn up(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.exchange(parent, place);
            place = parent;
        }
        self.note(place);
        place
    }

    fn down(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let Some(child) = (left..self.heap.len().min(left + 2)).min_by_key(|&c| self.heap[c]) else {
                break;
            };
            if self.heap[place] <= self.heap[child] {
                break;
            }
            self.exchange(place, child);
            place = child;
        }
        self.note(place);
    }

    fn exchange(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    fn note(&mut self, place: usize) {
        let slot = self.heap[place].1;
        self.places[slot as usize] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn first_is_the_minimum_of_a_map(steps in proptest::collection::vec((0u32..16, 0u64..50, any::<bool>()), 0..300)) {
            let mut deadlines = Deadlines::new(16);
            let memory = deadlines.heap.capacity();
            let mut model = BTreeMap::new();
            for (slot, at, set) in steps {
                let at = Duration::from_secs(at);
                if set {
                    deadlines.set(slot, at);
                    model.insert(slot, at);
                } else {
                    deadlines.clear(slot);
                    model.remove(&slot);
                }
                prop_assert_eq!(deadlines.first(), model.iter().map(|(&s, &at)| (at, s)).min());
                for slot in 0..16 {
                    prop_assert_eq!(deadlines.of(slot), model.get(&slot).copied());
                }
            }
            prop_assert_eq!(deadlines.heap.capacity(), memory);
            while let Some((_, slot)) = deadlines.first() {
                prop_assert_eq!(model.iter().map(|(&s, &at)| (at, s)).min().map(|x| x.1), Some(slot));
                model.remove(&slot);
                deadlines.clear(slot);
            }
            prop_assert!(model.is_empty());
        }
    }
}
