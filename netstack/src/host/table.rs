//! A bounded table whose entries are named by handles that go stale with them.

use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hash;

use crate::seed::TableHasher;
use crate::table::{BoundedMap, TableFull};

/// A slot and which of its successive tenants is meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Handle {
    pub(super) slot: u32,
    generation: u32,
}

/// A [`BoundedMap`] with a generation per slot.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    map: BoundedMap<K, V>,
    generations: Vec<u32>,
}

impl<K: Hash + Eq, V> Table<K, V> {
    pub(super) fn new(capacity: u32, hasher: TableHasher) -> Self {
        Self { map: BoundedMap::new(capacity, hasher), generations: vec![0; capacity as usize] }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.map.len() == self.map.capacity()
    }

    /// Adds an entry; the key must not be there yet.
    pub(super) fn insert(&mut self, key: K, value: V) -> Result<Handle, TableFull> {
        debug_assert!(self.map.slot(&key).is_none());
        let slot = self.map.insert(key, value)?;
        self.generations[slot as usize] = self.generations[slot as usize].wrapping_add(1);
        Ok(self.handle(slot))
    }

    /// The handle of the entry that lives in `slot`.
    pub(super) fn handle(&self, slot: u32) -> Handle {
        Handle { slot, generation: self.generations[slot as usize] }
    }

    pub(super) fn slot(&self, key: &K) -> Option<u32> {
        self.map.slot(key)
    }

    /// The slot of a handle whose entry still lives.
    pub(super) fn live(&self, handle: Handle) -> Option<u32> {
        let live = self.map.at(handle.slot).is_some() && self.handle(handle.slot) == handle;
        live.then_some(handle.slot)
    }

    pub(super) fn at(&self, slot: u32) -> Option<(&K, &V)> {
        self.map.at(slot)
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<(&K, &mut V)> {
        self.map.at_mut(slot)
    }

    /// The entry that a handle names, to change.
    pub(super) fn of(&mut self, handle: Handle) -> Option<&mut V> {
        let slot = self.live(handle)?;
        self.map.at_mut(slot).map(|(_, value)| value)
    }

    pub(super) fn remove_at(&mut self, slot: u32) -> Option<(K, V)> {
        self.map.remove_at(slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        self.map.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    fn a_handle_does_not_name_the_next_tenant() {
        let mut table = Table::new(1, Seed::from_u64(1).hasher("test"));
        let first = table.insert("a", 1).unwrap();
        assert_eq!(table.insert("b", 2), Err(TableFull));
        assert_eq!(table.of(first), Some(&mut 1));
        table.remove_at(first.slot);
        assert_eq!(table.live(first), None);
        let second = table.insert("b", 2).unwrap();
        assert_eq!(first.slot, second.slot);
        assert_eq!(table.of(first), None);
        assert_eq!(table.of(second), Some(&mut 2));
    }
}
