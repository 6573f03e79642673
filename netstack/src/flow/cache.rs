//! What was found out about flows, kept for their next frames.
//!
//! # Theory of operation
//! The table is set-associative: a flow's hash chooses a set of [`WAYS`] places, and the tags of a set, 16 bits of the hash
//! each, say at which of them the key is worth comparing. A search reads one cache line of tags and, nearly always, one
//! entry. Whoever looks up a batch first [touches](Cache::touch) the tags of all its frames, then looks for their entries,
//! then reads what these lead to: each step waits for memory once for the whole batch.
//!
//! *Validity.* What an entry says was found out under a stamp. A change of what it was found out from, ports, segments,
//! routes, own addresses, takes the next stamp, and all entries before it are as good as gone, but for those that their user
//! knows the change to have nothing to do with; nothing is walked. What changes more often is not under the stamp: it carries
//! a generation of its own, which an entry names and its user compares.
//!
//! *Admission.* A new flow takes a place that is free or of an older stamp, or that of the flow which was used least
//! recently, if that has been idle for [`IDLE`]. Where all flows of a set are in use it is let in one time in [`LOT`]: flows
//! that do not fit all together leave most of each other's entries alone, and most of their frames still find theirs.
//!
//! *Size.* The table begins small and grows by four when it turns flows away, up to the size it was given. The larger table
//! is made a piece at a time and begins empty, for what it is to hold can be found out again.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::seed::{Rng, Seed};

/// Places of a set.
pub const WAYS: usize = 8;
/// Seconds without a frame after which a flow's place may be taken.
pub const IDLE: u16 = 2;
/// One in so many flows is let into a set whose flows are all in use.
pub const LOT: u32 = 16;
/// Flows of the smallest table, and by how much it grows.
const LEAST: usize = 1024;
const GROWTH: usize = 4;
/// Places of a larger table that are made for each flow that finds no room.
const PIECE: usize = 256;
/// Flows turned away, as a part of the table's size, before it grows.
const PRESSURE: usize = 8;

/// Bits of a tag, tags in a word, and a word of as many ones.
const TAG_BITS: usize = 16;
const LANE_COUNT: usize = 4;
const LANES: u64 = 0x0001_0001_0001_0001;
const TAG: u64 = 0xffff;

/// No place.
pub const NOWHERE: u32 = u32::MAX;

/// What tells flows apart.
pub trait Key: Copy + Eq + Debug {
    /// Two words that hold all that a hash is made of.
    fn words(&self) -> [u64; 2];
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Entry<K, V> {
    /// Which flow it is.
    pub key: K,
    /// What becomes of its frames.
    pub value: V,
    /// Where they go: a number that means something to the user of the cache.
    pub adjacency: u16,
    /// The second in which it was used last, as far as 16 bits say.
    pub used: u16,
    /// Under which it was found out.
    pub stamp: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Cache<K, V> {
    /// Four in a word, the first way lowest; 0 is a place that was never taken.
    tags: Vec<[u64; WAYS / LANE_COUNT]>,
    entries: Vec<Option<Entry<K, V>>>,
    /// A larger table on its way.
    next: Vec<Option<Entry<K, V>>>,
    /// Flows turned away since the table has its size.
    pressure: usize,
    most: usize,
    keys: [u64; 4],
    rng: Rng,
}

/// A hash: which set, and which tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(u64);

impl Hash {
    /// Of nothing.
    pub const NONE: Self = Self(0);
}

impl<K: Key, V: Copy> Cache<K, V> {
    /// A cache for `most` flows at most, rounded to what the sets hold; with 0 nothing is ever kept. It takes memory when
    /// the first flow comes.
    pub fn new(most: u32, seed: &Seed, label: &str) -> Self {
        let mut rng = seed.rng(label);
        let most = (most as usize).next_power_of_two() * usize::from(most > 0);
        Self {
            tags: Vec::new(),
            entries: Vec::new(),
            next: Vec::new(),
            pressure: 0,
            most: most.max(usize::from(most > 0) * WAYS),
            keys: core::array::from_fn(|_| rng.next_u64()),
            rng,
        }
    }

    /// The hash of a key with these words.
    #[inline]
    pub fn hash(&self, [first, second]: [u64; 2]) -> Hash {
        let [a, b, c, d] = self.keys;
        Hash(fold(fold(first ^ a, b) ^ second ^ c, d))
    }

    /// Reads the tags that a search will look at.
    #[inline]
    pub fn touch(&self, hash: Hash) -> u64 {
        self.tags.get(self.set(hash)).map_or(0, |tags| tags[0])
    }

    /// Where a flow's entry is, if there is one: a place whose tag is that of the hash, or [`NOWHERE`].
    #[inline]
    pub fn candidate(&self, hash: Hash) -> u32 {
        let (set, tag) = (self.set(hash), tag(hash));
        let Some(tags) = self.tags.get(set) else { return NOWHERE };
        // Four ways at once, without a branch for each: which way it is cannot be predicted.
        let [low, high] = tags.map(|four| zeros(four ^ (tag * LANES)));
        let way = if low != 0 { low.trailing_zeros() / 16 } else { 4 + high.trailing_zeros() / 16 };
        let place = u32::try_from(set * WAYS).unwrap_or(NOWHERE) | way;
        if low | high == 0 { NOWHERE } else { place }
    }

    /// Candidates may be of another flow, or have become another's. Nobody's entry is read but of those with this tag.
    #[inline(never)]
    fn search(&self, hash: Hash, key: &K) -> u32 {
        let (set, tag) = (self.set(hash), tag(hash));
        let Some(tags) = self.tags.get(set) else { return NOWHERE };
        let tagged = |way: &usize| {
            let (word, shift) = lane(*way);
            tags[word] >> shift & TAG == tag
        };
        let is = |place: &usize| matches!(self.entries.get(*place), Some(Some(entry)) if entry.key == *key);
        let place = (0..WAYS).filter(tagged).map(|way| set * WAYS + way).find(is);
        place.and_then(|place| u32::try_from(place).ok()).unwrap_or(NOWHERE)
    }

    /// A flow's entry, most often at its [candidate](Self::candidate). Whether its stamp still counts is for the user to say.
    #[inline]
    pub fn get(&mut self, candidate: u32, hash: Hash, key: &K) -> Option<&mut Entry<K, V>> {
        let is_there = match self.entries.get(candidate as usize) {
            Some(Some(entry)) => entry.key == *key,
            _ => false,
        };
        let place = if is_there { candidate } else { self.search(hash, key) };
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// What an entry says, to have the memory fetch it; nothing is known of whose it is.
    #[inline]
    pub fn peek(&self, place: u32) -> Option<&V> {
        self.entries.get(place as usize)?.as_ref().map(|entry| &entry.value)
    }

    /// Keeps what was found out about a flow; whether it was let in.
    pub fn insert(&mut self, key: K, value: V, adjacency: u16, stamp: u32, second: u16) -> bool {
        if self.most == 0 {
            return false;
        }
        if self.tags.is_empty() {
            self.take(vec![None; LEAST.min(self.most)]);
        }
        let hash = self.hash(key.words());
        let set = self.set(hash);
        let Some(way) = self.place_for(set, &key, stamp, second) else {
            self.grow();
            return false;
        };
        let (word, shift) = lane(way);
        let word = &mut self.tags[set][word];
        *word = *word & !(TAG << shift) | tag(hash) << shift;
        self.entries[set * WAYS + way] = Some(Entry { key, value, adjacency, stamp, used: second });
        true
    }

    /// The way of a set that a flow may have.
    fn place_for(&mut self, set: usize, key: &K, stamp: u32, second: u16) -> Option<usize> {
        let ways = &self.entries[set * WAYS..(set + 1) * WAYS];
        let is_free = |entry: &Option<Entry<K, V>>| entry.as_ref().is_none_or(|e| e.stamp != stamp);
        let own = |entry: &Option<Entry<K, V>>| entry.as_ref().is_some_and(|e| e.key == *key);
        if let Some(way) = ways.iter().position(own).or_else(|| ways.iter().position(is_free)) {
            return Some(way);
        }
        let idle =
            |entry: &Option<Entry<K, V>>| entry.as_ref().map_or(u16::MAX, |e| second.wrapping_sub(e.used));
        let (way, longest) = ways.iter().map(idle).enumerate().max_by_key(|(_, idle)| *idle)?;
        if longest >= IDLE {
            return Some(way);
        }
        self.pressure += 1;
        (self.rng.below(LOT) == 0).then_some(way)
    }

    /// Makes a piece of a larger table if this one turns too many away, and goes over to it once it is whole.
    fn grow(&mut self) {
        let now = self.entries.len();
        let larger = (now * GROWTH).min(self.most);
        if larger == now || self.pressure < now / PRESSURE {
            return;
        }
        if self.next.is_empty() {
            self.next.reserve_exact(larger);
        }
        let made = (self.next.len() + PIECE).min(larger);
        self.next.resize(made, None);
        if made == larger {
            let next = core::mem::take(&mut self.next);
            self.take(next);
        }
    }

    fn take(&mut self, entries: Vec<Option<Entry<K, V>>>) {
        self.tags = vec![[0; WAYS / LANE_COUNT]; (entries.len() / WAYS).max(1)];
        self.entries = entries;
        self.pressure = 0;
    }

    #[inline]
    fn set(&self, hash: Hash) -> usize {
        // The number of sets is a power of two, and no more than 2^32.
        usize::try_from(hash.0 >> 32).unwrap_or(0) & self.tags.len().wrapping_sub(1)
    }
}

/// Of 16 bits.
#[inline]
fn tag(Hash(hash): Hash) -> u64 {
    (hash & TAG).max(1)
}

/// Which word of a set a way's tag is in, and how far up.
#[inline]
const fn lane(way: usize) -> (usize, usize) {
    (way / LANE_COUNT, way % LANE_COUNT * TAG_BITS)
}

/// The top bit of the lowest lane that is zero, and of some above it that may be; nothing if none is.
#[inline]
const fn zeros(lanes: u64) -> u64 {
    lanes.wrapping_sub(LANES) & !lanes & LANES << 15
}

/// Both halves of a product, each of which depends on all bits of both factors.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the halves of a product")]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    /// A key that says itself which set it wants, as far as sets are told apart.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    struct Number(u32);

    impl Key for Number {
        fn words(&self) -> [u64; 2] {
            [u64::from(self.0), 0]
        }
    }

    const FEW: u32 = 1024;

    type Small = Cache<Number, Option<bool>>;

    impl Small {
        /// How many flows it has room for at this time.
        fn capacity(&self) -> usize {
            self.entries.len()
        }

        /// The flows that are known under this stamp.
        fn len(&self, stamp: u32) -> usize {
            self.entries.iter().flatten().filter(|entry| entry.stamp == stamp).count()
        }
    }

    fn cache(most: u32) -> Small {
        Cache::new(most, &Seed::from_u64(1), "test")
    }

    fn find(cache: &mut Small, number: u32, stamp: u32) -> Option<(Option<bool>, u16)> {
        let key = Number(number);
        let hash = cache.hash(key.words());
        let entry = cache.get(cache.candidate(hash), hash, &key).filter(|entry| entry.stamp == stamp)?;
        assert_eq!(entry.key, key);
        entry.used = 0;
        Some((entry.value, entry.adjacency))
    }

    proptest! {
        /// Whatever is found is what was put in last under that stamp.
        #[test]
        fn it_never_says_what_it_was_not_told(
            most in 0u32..2000,
            steps in proptest::collection::vec((0u32..60, any::<bool>(), any::<u16>(), 0u8..8, 0u16..5), 0..400),
        ) {
            let mut cache = cache(most);
            let mut told = BTreeMap::new();
            let mut stamp = 1;
            for (number, value, adjacency, what, second) in steps {
                match what {
                    0 => stamp += 1,
                    1..4 => {
                        if cache.insert(Number(number), Some(value), adjacency, stamp, second) {
                            told.insert(number, (stamp, Some(value), adjacency));
                        }
                    }
                    _ => {
                        if let Some(found) = find(&mut cache, number, stamp) {
                            prop_assert_eq!(told.get(&number), Some(&(stamp, found.0, found.1)));
                        }
                    }
                }
                prop_assert!(cache.capacity() <= (most as usize).next_power_of_two().max(WAYS));
                prop_assert!(most > 0 || cache.capacity() == 0);
            }
        }
    }

    #[test]
    fn what_was_put_in_is_found_as_long_as_there_is_room() {
        let mut cache = cache(FEW);
        let some: Vec<u32> = (0..FEW / 8).collect();
        let kept = some.iter().filter(|&&n| cache.insert(Number(n), None, 1, 1, 0)).count();
        assert!(kept == some.len());
        assert!(some.iter().all(|&n| find(&mut cache, n, 1).is_some()));
        // Under another stamp nothing is, and its room is free.
        assert!(some.iter().all(|&n| find(&mut cache, n, 2).is_none()));
        assert_eq!((cache.len(1), cache.len(2)), (some.len(), 0));
    }

    /// Flows that come once each leave most of those that are in use where they are.
    #[test]
    fn a_scan_evicts_few_of_those_in_use() {
        let mut cache = cache(FEW);
        let used: Vec<u32> = (0..FEW / 2).collect();
        for _ in 0..64 {
            for &n in &used {
                cache.insert(Number(n), None, 1, 1, 9);
            }
        }
        let held = |cache: &mut Small| used.iter().filter(|&&n| find(cache, n, 1).is_some()).count();
        let before = held(&mut cache);
        assert!(before > used.len() * 9 / 10, "{before}");
        for n in 0..FEW * 4 {
            // All of them are still in use.
            for &n in &used {
                cache.insert(Number(n), None, 1, 1, 9);
            }
            cache.insert(Number(1_000_000 + n), None, 1, 1, 9);
        }
        let after = held(&mut cache);
        assert!(after > before * 8 / 10, "{after} of {before}");
        // What nobody has used for a while makes room at once.
        let new = (0..1000u32).filter(|n| cache.insert(Number(2_000_000 + n), None, 1, 1, 9 + IDLE)).count();
        assert!(new > LEAST * 8 / 10, "{new}");
    }

    #[test]
    fn it_grows_to_what_it_may_and_no_further() {
        let mut cache = cache(10_000);
        let mut sizes = Vec::new();
        for n in 0..2_000_000u32 {
            cache.insert(Number(n), None, 1, 1, 0);
            if sizes.last() != Some(&cache.capacity()) {
                sizes.push(cache.capacity());
            }
        }
        assert_eq!(sizes, [1024, 4096, 16_384]);
    }
}
