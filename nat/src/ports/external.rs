//! One external address of a pool.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::Protocol;
use super::blocks::AddressBlocks;
use super::set::{PortRange, PortSet};
use super::space::Space;

/// Which ports may be given out; shared by all addresses of a pool.
#[derive(Debug)]
pub(super) struct Permitted {
    ports: (Arc<PortSet>, PortRange),
    identifiers: (Arc<PortSet>, PortRange),
}

impl Permitted {
    pub(super) fn new(ports: PortSet) -> Self {
        let with_span = |set: PortSet| {
            let span = set.span();
            (Arc::new(set), span)
        };
        Self { ports: with_span(ports), identifiers: with_span(PortSet::range(PortRange::ALL)) }
    }

    const fn of(&self, protocol: Protocol) -> &(Arc<PortSet>, PortRange) {
        match protocol {
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => &self.ports,
            Protocol::Icmp => &self.identifiers,
        }
    }

    pub(super) const fn set(&self, protocol: Protocol) -> &Arc<PortSet> {
        &self.of(protocol).0
    }

    /// From the lowest permitted port to the highest.
    pub(super) const fn span(&self, protocol: Protocol) -> PortRange {
        self.of(protocol).1
    }
}

#[derive(Debug)]
pub(super) struct External<A> {
    pub(super) address: A,
    /// Holders of its ports, over all protocols.
    pub(super) leases: u32,
    pub(super) blocks: Option<AddressBlocks<A>>,
    /// Made at a protocol's first lease or reservation.
    spaces: [Option<Box<Space>>; Protocol::COUNT],
}

impl<A> External<A> {
    pub(super) fn new(address: A, blocks: Option<AddressBlocks<A>>) -> Self {
        Self { address, leases: 0, blocks, spaces: Default::default() }
    }

    pub(super) fn space(&self, protocol: Protocol) -> Option<&Space> {
        self.spaces[protocol.index()].as_deref()
    }

    pub(super) fn space_mut(&mut self, protocol: Protocol) -> Option<&mut Space> {
        self.spaces[protocol.index()].as_deref_mut()
    }

    pub(super) fn make_space(&mut self, protocol: Protocol, permitted: &Permitted) -> &mut Space {
        self.spaces[protocol.index()]
            .get_or_insert_with(|| Box::new(Space::new(Arc::clone(permitted.set(protocol)))))
    }

    /// Permits other ports from now on.
    pub(super) fn permit(&mut self, permitted: &Permitted) {
        for (space, protocol) in self.spaces.iter_mut().zip(Protocol::ALL) {
            if let Some(space) = space {
                space.permit(Arc::clone(permitted.set(protocol)));
            }
        }
    }

    pub(super) fn free<'a>(&'a self, protocol: Protocol, permitted: &'a Permitted) -> &'a PortSet {
        self.space(protocol).map_or(permitted.set(protocol), Space::free)
    }

    pub(super) fn memory(&self) -> usize {
        self.spaces.iter().flatten().map(|space| space.memory()).sum()
    }
}
