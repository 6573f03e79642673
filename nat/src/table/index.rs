//! From a hash to the numbers filed under it: open addressing, linear probing, one array of fixed size.
//!
//! # Theory of operation
//! An entry is one 64-bit word: the 32-bit hash above, the number plus one below; 0 is an empty place. The place a hash
//! wants is `hash * places >> 32`, so the hash's high bits choose the place, its low bits tell neighbours apart, and any
//! size will do. An entry lies at its place or, past others, behind it without a gap. Removal closes the gap by moving back
//! what lies behind it and may (Knuth 6.4, algorithm R): no tombstones, so the length of a search depends on what is in the
//! index and not on what ever was.
//!
//! With at most two thirds of the places taken, a search for what is there looks at 2 places on average, one for what is
//! not at 5; eight places share a cache line. The hash must be keyed, or whoever chooses tuples chooses collisions.

use alloc::boxed::Box;
use alloc::vec;

/// The largest number that can be filed.
pub(crate) const LARGEST: u32 = u32::MAX - 1;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    places: Box<[u64]>,
}

impl Index {
    /// An index for at most `most` entries. It takes 12 octets for each, once and for all; memory that was never written is
    /// given by most allocators only when it is.
    pub(crate) fn new(most: usize) -> Self {
        Self { places: vec![0; most + most / 2 + 1].into_boxed_slice() }
    }

    /// Octets that it takes.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&*self.places)
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        let wide = u64::from(hash) * self.places.len() as u64;
        usize::try_from(wide >> 32).unwrap_or(0)
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }

    /// The word at the place that `hash` wants. Whoever reads those of many hashes before searching for the first has the
    /// memory fetch them at the same time.
    #[inline]
    pub(crate) fn peek(&self, hash: u32) -> u64 {
        self.places[self.home(hash)]
    }

    /// The number in a word; `None` for an empty place.
    #[inline]
    fn number(word: u64) -> Option<u32> {
        let low = u32::try_from(word & 0xffff_ffff).unwrap_or(0);
        low.checked_sub(1)
    }

    #[inline]
    fn word(hash: u32, number: u32) -> u64 {
        debug_assert!(number <= LARGEST);
        u64::from(hash) << 32 | (u64::from(number) + 1)
    }

    /// The first number filed under `hash` that `is` the one.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut place = self.home(hash);
        loop {
            let word = self.places[place];
            let number = Self::number(word)?;
            if word >> 32 == u64::from(hash) && is(number) {
                return Some(number);
            }
            place = self.after(place);
        }
    }

    /// Files `number` under `hash`. The caller files no more than the index was made for.
    pub(crate) fn insert(&mut self, hash: u32, number: u32) {
        let mut place = self.home(hash);
        while self.places[place] != 0 {
            place = self.after(place);
        }
        self.places[place] = Self::word(hash, number);
    }

    fn place_of(&self, hash: u32, number: u32) -> Option<usize> {
        let wanted = Self::word(hash, number);
        let mut place = self.home(hash);
        loop {
            match self.places[place] {
                0 => return None,
                word if word == wanted => return Some(place),
                _ => place = self.after(place),
            }
        }
    }

    /// Files `new` in the place of `old`. Returns whether `old` was there.
    pub(crate) fn replace(&mut self, hash: u32, old: u32, new: u32) -> bool {
        let place = self.place_of(hash, old);
        if let Some(place) = place {
            self.places[place] = Self::word(hash, new);
        }
        place.is_some()
    }

    /// Takes `number` out from under `hash`. Returns whether it was there.
    pub(crate) fn remove(&mut self, hash: u32, number: u32) -> bool {
        let Some(mut gap) = self.place_of(hash, number) else { return false };
        let mut place = self.after(gap);
        loop {
            let word = self.places[place];
            if word == 0 {
                break;
            }
            let home = self.home(u32::try_from(word >> 32).unwrap_or(0));
            // It may move back if that does not bring it before its home: if the gap lies between its home and its place.
            let (from_home, from_gap) = (self.distance(home, place), self.distance(gap, place));
            if from_home >= from_gap {
                self.places[gap] = word;
                gap = place;
            }
            place = self.after(place);
        }
        self.places[gap] = 0;
        true
    }

    /// Places from one to another, going forward and around.
    #[inline]
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.places.len() - from }
    }

    /// The numbers at the first `count` taken places from the one that `hash` wants on.
    pub(crate) fn near(&self, hash: u32, count: usize) -> impl Iterator<Item = u32> + '_ {
        let home = self.home(hash);
        let around = self.places[home..].iter().chain(&self.places[..home]);
        around.take(count).filter_map(|&word| Self::number(word))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u32, u32),
        Remove(u32, u32),
        Replace(u32, u32, u32),
    }

    /// Few hashes, close together and at both ends, so that runs are long and go around the end.
    fn hash() -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), Just(u32::MAX), (0..6u32).prop_map(|n| n << 29), any::<u32>()]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (hash(), 0..40u32).prop_map(|(hash, number)| Step::Insert(hash, number)),
            3 => (hash(), 0..40u32).prop_map(|(hash, number)| Step::Remove(hash, number)),
            1 => (hash(), 0..40u32, 0..40u32).prop_map(|(hash, old, new)| Step::Replace(hash, old, new)),
        ]
    }

    proptest! {
        #[test]
        fn a_set_of_pairs_agrees(most in 1..40usize, steps in proptest::collection::vec(step(), 0..300)) {
            let mut index = Index::new(most);
            let mut model: BTreeSet<(u32, u32)> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Insert(hash, number) => {
                        if model.len() < most && model.insert((hash, number)) {
                            index.insert(hash, number);
                        }
                    }
                    Step::Remove(hash, number) => {
                        prop_assert_eq!(index.remove(hash, number), model.remove(&(hash, number)));
                    }
                    Step::Replace(hash, old, new) => {
                        if !model.contains(&(hash, new)) {
                            let there = model.remove(&(hash, old));
                            prop_assert_eq!(index.replace(hash, old, new), there);
                            if there {
                                model.insert((hash, new));
                            }
                        }
                    }
                }
                for &(hash, number) in &model {
                    prop_assert_eq!(index.find(hash, |found| found == number), Some(number));
                }
                let taken = index.places.iter().filter(|&&word| word != 0).count();
                prop_assert_eq!(taken, model.len());
            }
        }
    }

    #[test]
    fn searches_are_as_short_as_promised() {
        let most = 100_000u32;
        let mut index = Index::new(most as usize);
        let hash = |n: u32| n.wrapping_mul(0x9e37_79b9).rotate_left(15).wrapping_mul(0x85eb_ca6b);
        for n in 0..most {
            index.insert(hash(n), n);
        }
        let looked = |n: u32| {
            let home = index.home(hash(n));
            let place = index.place_of(hash(n), n).unwrap_or_else(|| {
                (0..).map(|i| (home + i) % index.places.len()).find(|&p| index.places[p] == 0).unwrap()
            });
            index.distance(home, place) + 1
        };
        let mean = |range: core::ops::Range<u32>| {
            let count = range.len();
            range.map(looked).sum::<usize>() as f64 / count as f64
        };
        let (hits, misses) = (mean(0..most), mean(most..2 * most));
        assert!(hits < 2.5 && misses < 6.5, "{hits} {misses}");
    }
}
