//! A hash map of fixed capacity whose slots can be swept a few at a time.
//!
//! # Theory of operation
//! Entries live in a slab, so that a slot number stays valid while its entry lives and a sweep is a cursor over
//! slots; a `hashbrown` table maps keys to slots. All memory is taken at construction: a full table refuses the
//! insert, it never grows. The index is built for twice the entries, because `hashbrown` answers a table worn by many
//! removals by rehashing in place while it is at most half full, and by taking more memory otherwise.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use hashbrown::HashTable;

use crate::seed::TableHasher;

/// Key to value, at most `capacity` entries.
#[derive(Debug)]
pub struct BoundedMap<K, V> {
    slots: Vec<Option<(K, V)>>,
    index: HashTable<u32>,
    free: Vec<u32>,
    hasher: TableHasher,
    cursor: usize,
}

/// The table holds as many entries as it was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

impl<K: Hash + Eq, V> BoundedMap<K, V> {
    /// An empty table; takes the memory for `capacity` entries at once.
    pub fn new(capacity: u32, hasher: TableHasher) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(capacity as usize, || None);
        Self {
            slots,
            index: HashTable::with_capacity(capacity as usize * 2),
            free: (0..capacity).rev().collect(),
            hasher,
            cursor: 0,
        }
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that can be held.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The slot of `key`.
    pub fn slot(&self, key: &K) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index.find(hash, |&slot| self.key_at(slot) == Some(key)).copied()
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.at(self.slot(key)?).map(|(_, value)| value)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slot(key)?;
        self.at_mut(slot).map(|(_, value)| value)
    }

    /// What stands in a slot.
    pub fn at(&self, slot: u32) -> Option<(&K, &V)> {
        self.slots.get(slot as usize)?.as_ref().map(|(key, value)| (key, value))
    }

    /// What stands in a slot, to change.
    pub fn at_mut(&mut self, slot: u32) -> Option<(&K, &mut V)> {
        self.slots.get_mut(slot as usize)?.as_mut().map(|(key, value)| (&*key, value))
    }

    /// Puts `value` at `key`, replacing what was there, and names its slot.
    pub fn insert(&mut self, key: K, value: V) -> Result<u32, TableFull> {
        if let Some(slot) = self.slot(&key) {
            self.slots[slot as usize] = Some((key, value));
            return Ok(slot);
        }
        let slot = self.free.pop().ok_or(TableFull)?;
        let hash = self.hasher.hash_one(&key);
        self.slots[slot as usize] = Some((key, value));
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, slot, |&s| match &slots[s as usize] {
            Some((key, _)) => hasher.hash_one(key),
            None => 0,
        });
        Ok(slot)
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slot(key)?;
        self.remove_at(slot).map(|(_, value)| value)
    }

    /// Empties a slot.
    pub fn remove_at(&mut self, slot: u32) -> Option<(K, V)> {
        let hash = self.hasher.hash_one(self.key_at(slot)?);
        if let Ok(entry) = self.index.find_entry(hash, |&s| s == slot) {
            entry.remove();
        }
        self.free.push(slot);
        self.slots[slot as usize].take()
    }

    /// Every entry with its slot, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        (0u32..).zip(&self.slots).filter_map(|(slot, entry)| entry.as_ref().map(|(k, v)| (slot, k, v)))
    }

    /// Looks at the next `count` slots, wrapping around, and removes the entries that `expired` names. The removed
    /// entries are handed to `removed`. Work is bounded by `count`.
    pub fn sweep(
        &mut self,
        count: usize,
        mut expired: impl FnMut(&K, &V) -> bool,
        mut removed: impl FnMut(K, V),
    ) {
        for _ in 0..count.min(self.slots.len()) {
            let slot = self.cursor;
            self.cursor = (self.cursor + 1) % self.slots.len();
            let gone = matches!(&self.slots[slot], Some((k, v)) if expired(k, v));
            if gone
                && let Ok(slot) = u32::try_from(slot)
                && let Some((key, value)) = self.remove_at(slot)
            {
                removed(key, value);
            }
        }
    }

    fn key_at(&self, slot: u32) -> Option<&K> {
        self.slots.get(slot as usize)?.as_ref().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, u32),
        Remove(u8),
        Sweep(u8, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<u8>(), any::<u32>()).prop_map(|(k, v)| Step::Insert(k, v)),
            any::<u8>().prop_map(Step::Remove),
            (any::<u8>(), any::<u32>()).prop_map(|(n, v)| Step::Sweep(n, v)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_bounded_btreemap(steps in proptest::collection::vec(step(), 0..200)) {
            let mut map = BoundedMap::new(16, Seed::from_u64(3).hasher("test"));
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(k, v) => {
                        let full = model.len() == 16 && !model.contains_key(&k);
                        prop_assert_eq!(map.insert(k, v).is_err(), full);
                        if !full { model.insert(k, v); }
                    }
                    Step::Remove(k) => prop_assert_eq!(map.remove(&k), model.remove(&k)),
                    Step::Sweep(n, v) => map.sweep(n as usize, |_, &x| x < v, |k, x| {
                        assert!(x < v);
                        assert_eq!(model.remove(&k), Some(x));
                    }),
                }
                prop_assert_eq!(map.len(), model.len());
                for (k, v) in &model { prop_assert_eq!(map.get(k), Some(v)); }
            }
            map.sweep(16, |_, _| true, |_, _| ());
            prop_assert!(map.is_empty());
        }
    }

    #[test]
    fn memory_stands_still_under_churn() {
        for capacity in [1u32, 7, 28, 100, 1000] {
            let mut map = BoundedMap::new(capacity, Seed::from_u64(3).hasher("test"));
            let mut rng = Seed::from_u64(9).rng("test");
            let memory = map.index.allocation_size();
            for key in 0..u64::from(capacity) * 2000 {
                if map.insert(key, ()).is_err() {
                    map.remove_at(rng.below(capacity)).unwrap();
                    map.insert(key, ()).unwrap();
                }
            }
            assert_eq!(map.index.allocation_size(), memory, "{capacity} entries");
        }
    }
}
