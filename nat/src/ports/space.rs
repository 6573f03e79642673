//! The ports of one external address and protocol: which are free, and who holds the others.
//!
//! # Theory of operation
//! What nobody holds, and what may be given out, stands in a set of free ports. Who holds a port stands in a cell for it, in
//! chunks of 512 cells that are allocated when first used and kept, so that finding the owner of a port is one load. A port
//! that is neither free nor in use by anyone is excluded: it was not permitted to begin with.
//!
//! A port that is shared has one owner in its cell, the others stand in a set aside. When the owner goes, one of those takes
//! its place, so a port has an owner as long as anybody holds it.
//!
//! Memory: 9.3 KiB before the first lease, 4 bytes more for each port once every chunk is in use (265 KiB), and about 12
//! bytes for each holder beyond a port's first.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;

use super::set::PortSet;

/// Owners are numbers below this one.
pub const OWNERS: u32 = u32::MAX - 7;

// Cells that hold no owner.
const VACANT: u32 = u32::MAX;
const RESERVED: u32 = u32::MAX - 1;
const WAITING: u32 = u32::MAX - 2;

const CHUNK: u16 = 512;
const CHUNKS: usize = 65_536 / CHUNK as usize;

type Chunk = Box<[u32; CHUNK as usize]>;

/// What became of a port that a holder let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Nothing: who let go did not hold it.
    NotHeld,
    /// Somebody else still holds it.
    Shared,
    /// Nobody holds it; it waits to be freed.
    Waiting,
}

#[derive(Debug)]
pub(super) struct Space {
    free: PortSet,
    permitted: Arc<PortSet>,
    chunks: Box<[Option<Chunk>; CHUNKS]>,
    /// Holders of shared ports other than those in the cells.
    sharers: BTreeSet<(u16, u32)>,
}

impl Space {
    pub(super) fn new(permitted: Arc<PortSet>) -> Self {
        Self {
            free: (*permitted).clone(),
            permitted,
            chunks: Box::new([const { None }; CHUNKS]),
            sharers: BTreeSet::new(),
        }
    }

    /// Permits other ports from now on; those that are held or wait stay what they are.
    pub(super) fn permit(&mut self, permitted: Arc<PortSet>) {
        self.free = (*permitted).clone();
        self.permitted = permitted;
        for (chunk, first) in self.chunks.iter().zip((0..=u16::MAX).step_by(usize::from(CHUNK))) {
            let cells = chunk.iter().flat_map(|cells| cells.iter()).zip(first..=u16::MAX);
            for (_, port) in cells.filter(|(cell, _)| **cell != VACANT) {
                self.free.remove(port);
            }
        }
    }

    pub(super) const fn free(&self) -> &PortSet {
        &self.free
    }

    #[inline]
    fn cell(&self, port: u16) -> u32 {
        self.chunks[usize::from(port / CHUNK)]
            .as_ref()
            .map_or(VACANT, |chunk| chunk[usize::from(port % CHUNK)])
    }

    fn cell_mut(&mut self, port: u16) -> &mut u32 {
        let chunk =
            self.chunks[usize::from(port / CHUNK)].get_or_insert_with(|| Box::new([VACANT; CHUNK as usize]));
        &mut chunk[usize::from(port % CHUNK)]
    }

    #[inline]
    pub(super) fn owner(&self, port: u16) -> Option<u32> {
        Some(self.cell(port)).filter(|&cell| cell < OWNERS)
    }

    pub(super) fn is_shared(&self, port: u16) -> bool {
        self.sharers.range((port, 0)..=(port, u32::MAX)).next().is_some()
    }

    /// Gives a free port to `owner`.
    pub(super) fn take(&mut self, port: u16, owner: u32) -> bool {
        if !self.free.remove(port) {
            return false;
        }
        *self.cell_mut(port) = owner;
        true
    }

    /// Adds a holder to a port that has one.
    pub(super) fn share(&mut self, port: u16, owner: u32) -> bool {
        self.owner(port).is_some_and(|first| first != owner) && self.sharers.insert((port, owner))
    }

    /// Takes a port from one of its holders.
    pub(super) fn let_go(&mut self, port: u16, owner: u32) -> Left {
        if self.owner(port) != Some(owner) {
            return if self.sharers.remove(&(port, owner)) { Left::Shared } else { Left::NotHeld };
        }
        let heir = self.sharers.range((port, 0)..=(port, u32::MAX)).next().copied();
        match heir {
            Some(heir) => {
                self.sharers.remove(&heir);
                *self.cell_mut(port) = heir.1;
                Left::Shared
            }
            None => {
                *self.cell_mut(port) = WAITING;
                Left::Waiting
            }
        }
    }

    /// Puts one holder in the place of another.
    pub(super) fn set_owner(&mut self, port: u16, from: u32, to: u32) -> bool {
        if self.owner(port) == Some(to) || self.sharers.contains(&(port, to)) {
            return false;
        }
        if self.owner(port) == Some(from) {
            *self.cell_mut(port) = to;
            return true;
        }
        self.sharers.remove(&(port, from)) && self.sharers.insert((port, to))
    }

    /// Ends a port's wait.
    pub(super) fn free_waiting(&mut self, port: u16) {
        if self.cell(port) == WAITING {
            self.vacate(port);
        }
    }

    pub(super) fn is_waiting(&self, port: u16) -> bool {
        self.cell(port) == WAITING
    }

    /// Keeps a port that nobody holds from being leased, whether it is permitted or not.
    pub(super) fn reserve(&mut self, port: u16) -> bool {
        if !matches!(self.cell(port), VACANT | WAITING) {
            return false;
        }
        self.free.remove(port);
        *self.cell_mut(port) = RESERVED;
        true
    }

    pub(super) fn unreserve(&mut self, port: u16) -> bool {
        if self.cell(port) != RESERVED {
            return false;
        }
        self.vacate(port);
        true
    }

    fn vacate(&mut self, port: u16) {
        *self.cell_mut(port) = VACANT;
        if self.permitted.contains(port) {
            self.free.insert(port);
        }
    }

    /// Bytes allocated, the holders of shared ports aside.
    pub(super) fn memory(&self) -> usize {
        let chunks = self.chunks.iter().flatten().count() * size_of::<[u32; CHUNK as usize]>();
        size_of::<Self>() + PortSet::MEMORY + size_of_val(&*self.chunks) + chunks
    }
}
