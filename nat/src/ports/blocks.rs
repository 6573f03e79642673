//! Ports given out in blocks, so that one log line says for a whole block who used it (RFC 6888 REQ-14, RFC 7422).
//!
//! A block is a run of ports of one external address, in all protocols. It goes to a subscriber when a lease finds no port in
//! the blocks that the subscriber has, and comes back when none of its ports is leased or held down.

use alloc::boxed::Box;

use super::draws::Draws;
use super::set::{Parity, PortRange, PortSet};

/// Blocks that one subscriber may have at most, whatever is configured.
pub const MOST_BLOCKS: u8 = 8;

/// How ports are divided into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// Ports in a block. The first block begins at port 0, and blocks with no permitted port are not given out.
    pub size: u16,
    /// Blocks for one subscriber, up to [`MOST_BLOCKS`].
    pub per_subscriber: u8,
}

/// What a log needs to answer who used a port: the block, and since when or until when, which is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockEvent<A> {
    /// What happened.
    pub kind: BlockEventKind,
    /// The subscriber.
    pub inside: A,
    /// The external address.
    pub external: A,
    /// The block's ports.
    pub ports: PortRange,
}

/// See [`BlockEvent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockEventKind {
    /// The block is the subscriber's.
    Assigned,
    /// It no longer is.
    Returned,
}

#[derive(Clone, Copy, Debug)]
struct Tenant<A> {
    inside: A,
    /// Its ports, counted by protocol, that are leased or held down.
    busy: u32,
}

/// The blocks of one external address.
#[derive(Debug)]
pub(super) struct AddressBlocks<A> {
    size: u16,
    /// Numbers of blocks that nobody has.
    free: PortSet,
    tenants: Box<[Option<Tenant<A>>]>,
}

impl<A: Copy + Eq> AddressBlocks<A> {
    /// `size` is not 0.
    pub(super) fn new(size: u16, permitted: &PortSet) -> Self {
        let count = u16::MAX / size;
        let mut free = PortSet::new();
        for block in 0..=count {
            if permitted.first(range(size, block), Parity::Any).is_some() {
                free.insert(block);
            }
        }
        Self { size, free, tenants: (0..=count).map(|_| None).collect() }
    }

    pub(super) fn range(&self, block: u16) -> PortRange {
        range(self.size, block)
    }

    pub(super) fn of(&self, port: u16) -> u16 {
        port / self.size
    }

    pub(super) fn tenant(&self, block: u16) -> Option<A> {
        self.tenants.get(usize::from(block)).copied().flatten().map(|tenant| tenant.inside)
    }

    pub(super) fn is_free(&self, block: u16) -> bool {
        self.free.contains(block)
    }

    /// Of the free blocks, from one at random on, the first in which `port_in` finds a port.
    pub(super) fn search(
        &self,
        draws: &mut Draws,
        mut port_in: impl FnMut(PortRange, &mut Draws) -> Option<u16>,
    ) -> Option<(u16, u16)> {
        let all = PortRange { first: 0, last: u16::MAX / self.size };
        let first = self.free.pick(all, Parity::Any, draws)?;
        let mut block = first;
        loop {
            if let Some(port) = port_in(self.range(block), draws) {
                return Some((block, port));
            }
            block = self.free.first_from(block.wrapping_add(1), all, Parity::Any)?;
            if block == first {
                return None;
            }
        }
    }

    pub(super) fn assign(&mut self, block: u16, inside: A) {
        if let Some(tenant) = self.tenants.get_mut(usize::from(block)) {
            self.free.remove(block);
            *tenant = Some(Tenant { inside, busy: 0 });
        }
    }

    /// One more port of the block is leased.
    pub(super) fn occupy(&mut self, block: u16) {
        if let Some(Some(tenant)) = self.tenants.get_mut(usize::from(block)) {
            tenant.busy += 1;
        }
    }

    /// One less is leased or held down; whose block it was if that was the last.
    pub(super) fn vacate(&mut self, block: u16) -> Option<A> {
        let place = self.tenants.get_mut(usize::from(block))?;
        let tenant = place.as_mut()?;
        tenant.busy = tenant.busy.saturating_sub(1);
        if tenant.busy > 0 {
            return None;
        }
        let inside = tenant.inside;
        *place = None;
        self.free.insert(block);
        Some(inside)
    }

    /// Every block that somebody has.
    pub(super) fn assigned(&self) -> impl Iterator<Item = (A, PortRange)> {
        (0..).zip(&self.tenants).filter_map(|(block, tenant)| Some(((*tenant)?.inside, self.range(block))))
    }
}

fn range(size: u16, block: u16) -> PortRange {
    let first = block.saturating_mul(size);
    PortRange { first, last: first.saturating_add(size - 1) }
}
