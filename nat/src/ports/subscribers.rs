//! The inside addresses that hold ports: how many, on which external address, in which blocks.
//!
//! An inside address keeps its external address while it has a lease or a block, over all protocols (RFC 6888 REQ-2).

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::blocks::MOST_BLOCKS;
use crate::tuple::Address;

#[derive(Debug)]
pub(super) struct Subscriber<A> {
    /// The external address of all its leases.
    pub(super) external: A,
    pub(super) leases: u32,
    blocks: [u16; MOST_BLOCKS as usize],
    block_count: u8,
}

impl<A> Subscriber<A> {
    pub(super) fn blocks(&self) -> &[u16] {
        &self.blocks[..usize::from(self.block_count)]
    }

    pub(super) fn add_block(&mut self, block: u16) {
        if let Some(place) = self.blocks.get_mut(usize::from(self.block_count)) {
            *place = block;
            self.block_count += 1;
        }
    }

    fn remove_block(&mut self, block: u16) {
        let count = usize::from(self.block_count);
        if let Some(at) = self.blocks().iter().position(|&own| own == block) {
            self.blocks.copy_within(at + 1..count, at);
            self.block_count -= 1;
        }
    }
}

/// At most as many as it was built for; all memory is taken at construction.
#[derive(Debug)]
pub(super) struct Subscribers<A> {
    map: HashMap<A, Subscriber<A>, FixedState>,
    most: usize,
}

impl<A: Address> Subscribers<A> {
    pub(super) fn new(most: u32, seed: u64) -> Self {
        let most = most as usize;
        // Built for twice as many, so that a map worn by removals is put in order in place and never grows.
        let map = HashMap::with_capacity_and_hasher(most.saturating_mul(2), FixedState::with_seed(seed));
        Self { map, most }
    }

    /// Allows another number from now on.
    pub(super) fn set_most(&mut self, most: u32) {
        self.most = most as usize;
        self.map.reserve(self.most.saturating_mul(2).saturating_sub(self.map.len()));
    }

    pub(super) fn get(&self, inside: A) -> Option<&Subscriber<A>> {
        self.map.get(&inside)
    }

    pub(super) fn is_full(&self) -> bool {
        self.map.len() >= self.most
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// The entry of `inside`, made if there is none: the caller has asked whether there is room.
    pub(super) fn enter(&mut self, inside: A, external: A) -> &mut Subscriber<A> {
        self.map.entry(inside).or_insert(Subscriber {
            external,
            leases: 0,
            blocks: [0; MOST_BLOCKS as usize],
            block_count: 0,
        })
    }

    pub(super) fn end_lease(&mut self, inside: A) {
        self.update(inside, |subscriber| subscriber.leases = subscriber.leases.saturating_sub(1));
    }

    pub(super) fn end_block(&mut self, inside: A, block: u16) {
        self.update(inside, |subscriber| subscriber.remove_block(block));
    }

    fn update(&mut self, inside: A, change: impl FnOnce(&mut Subscriber<A>)) {
        let Some(subscriber) = self.map.get_mut(&inside) else { return };
        change(subscriber);
        if subscriber.leases == 0 && subscriber.block_count == 0 {
            self.map.remove(&inside);
        }
    }

    /// Forgets all whose ports are on `external`.
    pub(super) fn forget_external(&mut self, external: A) {
        self.map.retain(|_, subscriber| subscriber.external != external);
    }
}
