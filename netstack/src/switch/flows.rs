//! What is kept of flows, so that their next frames need no decision: which connection they are of, how they leave, where to.
//!
//! # Theory of operation
//! An entry is made where a decision about a frame has been carried out, and says nothing but what that decision was. It owns
//! nothing: a connection's state, backend and port are the connection's, and an entry that is lost is found out again to the
//! same. What an entry says holds as long as
//!
//! - its stamp is the switch's: ports, segments, routes, rules and own addresses are what they were, or what has changed of
//!   ports and routes since has nothing to do with it ([`Difference`]), which is looked at when its next frame comes;
//! - its connection has not ended and was judged under the services of this moment, which the connection itself says;
//! - its adjacency holds: the neighbour is known by the same MAC address, the station is behind the same port. Both carry
//!   generations of their own, so that one station that moves takes only what led to it.
//!
//! Only what is of a connection that has begun, or what no connection is kept of, is let in: a flow enters with its second
//! packet, and one that never has a second one costs nothing here.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use nat::Renewal;
use nat::connection::ConnectionId;
use nat::translate::Rewrite;
use nat::tuple::Direction;

use super::connections::Kind;
use crate::addr::{PortId, SegmentId};
use crate::config::Difference;
use crate::flow::Plan;
use crate::flow::cache::{Cache, Entry, Hash};
use crate::flow::glance::{LinkKey, Macs, Packet, PacketKey};
use crate::frame::OffloadFeatures;
use crate::neighbor::Neighbors;
use crate::seed::Seed;

/// Adjacencies that are told apart; one more, and all flows are found out anew.
const ADJACENCIES: usize = 16_384;

/// Changes that a flow may have missed without being found out anew.
const CHANGES: usize = 8;

/// A place in a table, and what stood there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reference {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Where frames go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Adjacency {
    pub(super) port: PortId,
    pub(super) segment: SegmentId,
    /// Whether padding behind the packet is taken away.
    pub(super) trim: bool,
    /// The largest packet that goes there whole, in octets.
    pub(super) mtu: u32,
    /// The VLAN identifier that frames leave with.
    pub(super) tag: Option<u16>,
    /// What the device takes over from software.
    pub(super) offload: OffloadFeatures,
    /// The rewrite of routed packets.
    pub(super) plan: Option<Plan>,
    /// The neighbour, unless the configuration says where it is.
    pub(super) neighbor: Option<Reference>,
    /// The same of the station in the bridge's table.
    pub(super) station: Option<Reference>,
}

/// How a packet goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Through<A> {
    /// A connection's slot and a direction in it.
    number: u32,
    generation: u32,
    pub(super) rewrite: Option<Rewrite<A>>,
    /// How they prolong it.
    pub(super) renewal: Renewal,
}

/// Not of any connection.
const NONE: u32 = u32::MAX;

impl<A> Through<A> {
    /// Of no connection.
    pub(super) const PLAIN: Self =
        Self { number: NONE, generation: 0, rewrite: None, renewal: Renewal::Sometimes };

    /// Of this connection.
    pub(super) fn of(
        id: ConnectionId,
        direction: Direction,
        rewrite: Option<Rewrite<A>>,
        renewal: Renewal,
    ) -> Self {
        let number = id.slot << 1 | u32::from(direction == Direction::Reply);
        Self { number, generation: id.generation, rewrite, renewal }
    }

    /// The connection, and which way packets go in it.
    #[inline]
    pub(super) fn connection(&self) -> Option<(ConnectionId, Direction)> {
        let direction = if self.number & 1 == 0 { Direction::Original } else { Direction::Reply };
        let id = ConnectionId { slot: self.number >> 1, generation: self.generation };
        (self.number != NONE).then_some((id, direction))
    }
}

type Packets<A> = Cache<PacketKey<A>, Through<A>>;

// One cache line, and two.
const _: () = assert!(size_of::<Option<Entry<PacketKey<Ipv4Addr>, Through<Ipv4Addr>>>>() == 64);
const _: () = assert!(size_of::<Option<Entry<PacketKey<Ipv6Addr>, Through<Ipv6Addr>>>>() == 128);
const _: () = assert!(size_of::<Option<Entry<LinkKey, Option<Reference>>>>() == 64);

/// Which flow a frame is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flow {
    /// None that is kept here.
    Other,
    V4(PacketKey<Ipv4Addr>),
    V6(PacketKey<Ipv6Addr>),
    Link(LinkKey),
}

/// What a frame is at a glance, and where its flow probably is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    pub(super) seen: Glance,
    pub(super) hash: Hash,
    pub(super) candidate: u32,
}

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Glance {
    /// Nothing that is kept here.
    Other,
    V4(Packet<Ipv4Addr>),
    V6(Packet<Ipv6Addr>),
    Link(LinkKey),
}

impl Glance {
    /// The flow whose next frames are to be known by this one. Of one that has ended there are none, nor may there be any of
    /// one that is only asked for.
    pub(super) const fn flow(&self) -> Flow {
        match self {
            Self::V4(packet) if packet.goes_on() || packet.answers() => Flow::V4(packet.key),
            Self::V6(packet) if packet.goes_on() || packet.answers() => Flow::V6(packet.key),
            Self::Link(key) => Flow::Link(*key),
            Self::Other | Self::V4(_) | Self::V6(_) => Flow::Other,
        }
    }
}

/// The entries.
#[derive(Debug)]
pub(super) struct Caches {
    pub(super) v4: Packets<Ipv4Addr>,
    pub(super) v6: Packets<Ipv6Addr>,
    /// By the source's place in the bridge's table, which is refreshed; none where nothing is learned.
    pub(super) links: Cache<LinkKey, Option<Reference>>,
}

/// The stamp of this moment, and the changes that led to it.
#[derive(Debug)]
pub(super) struct Age {
    stamp: u32,
    /// Each took the next stamp; the latest last.
    changes: VecDeque<Arc<Difference>>,
}

impl Age {
    /// What was found out before holds no more.
    fn forget(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        self.changes.clear();
    }

    /// What was found out before holds where this has nothing to do with it.
    fn change(&mut self, difference: &Arc<Difference>) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.changes.len() == CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Arc::clone(difference));
    }

    /// Whether what was found out under this very stamp holds without a further look.
    #[inline]
    pub(super) const fn is_current(&self, stamp: u32) -> bool {
        stamp == self.stamp
    }

    /// Whether what was found out under an older stamp holds, as nothing that has changed since concerns it. In that case it is
    /// as if it were found out now.
    fn renew(&self, stamp: &mut u32, concerns: impl Fn(&Difference) -> bool) -> bool {
        let missed = usize::try_from(self.stamp.wrapping_sub(*stamp)).unwrap_or(usize::MAX);
        let Some(known) = self.changes.len().checked_sub(missed) else { return false };
        let outlives = !self.changes.range(known..).any(|difference| concerns(difference));
        if outlives {
            *stamp = self.stamp;
        }
        outlives
    }

    /// [`Self::renew`] of what is known of packets.
    #[cold]
    #[inline(never)]
    pub(super) fn renew_packets<A: Kind>(
        &self,
        flow: &mut Entry<PacketKey<A>, Through<A>>,
        adjacencies: &[Adjacency],
        neighbors: &Neighbors,
    ) -> bool {
        let to = adjacencies.get(usize::from(flow.adjacency));
        let (key, rewrite) = (flow.key, flow.value.rewrite);
        self.renew(&mut flow.stamp, |change| concerns_packets(change, &key, rewrite.as_ref(), to, neighbors))
    }

    /// [`Self::renew`] of what is known of frames between two stations.
    #[cold]
    #[inline(never)]
    pub(super) fn renew_link(
        &self,
        flow: &mut Entry<LinkKey, Option<Reference>>,
        adjacencies: &[Adjacency],
    ) -> bool {
        let (macs, to) = (flow.key.macs, adjacencies.get(usize::from(flow.adjacency)));
        self.renew(&mut flow.stamp, |change| concerns_link(change, macs, to))
    }
}

/// Whether a change may have to do with frames between these stations that go this way.
fn concerns_link(change: &Difference, macs: Macs, to: Option<&Adjacency>) -> bool {
    let next = to.and_then(|to| to.plan).map(|plan| plan.destination);
    [Some(macs.source()), Some(macs.destination()), next]
        .into_iter()
        .flatten()
        .any(|mac| change.names_mac(mac))
}

/// The same of the packets of a flow.
fn concerns_packets<A: Kind>(
    change: &Difference,
    key: &PacketKey<A>,
    rewrite: Option<&Rewrite<A>>,
    to: Option<&Adjacency>,
    neighbors: &Neighbors,
) -> bool {
    let names = |address: A| change.names_address(address.into());
    let neighbor = to.and_then(|to| to.neighbor).map(|at| neighbors.address(at.slot));
    concerns_link(change, key.macs, to)
        || names(A::source(&key.addresses))
        || names(A::destination(&key.addresses))
        || rewrite.is_some_and(|to| names(to.source().address) || names(to.destination().address))
        || neighbor.is_some_and(|address| address.is_none_or(|address| change.names_address(address)))
}

/// See the module.
#[derive(Debug)]
pub(super) struct Flows {
    pub(super) caches: Caches,
    pub(super) adjacencies: Vec<Adjacency>,
    numbers: HashMap<Adjacency, u16, FixedState>,
    pub(super) age: Age,
    /// What the frame is that is being decided about.
    pub(super) current: Flow,
    /// Room for where the flows of a batch's frames are.
    pub(super) hints: Vec<Hint>,
    /// Frames that needed no decision.
    pub(super) known: u64,
    enabled: bool,
}

impl Flows {
    /// For so many flows of each family, and as many between stations.
    pub(super) fn new(most: u32, seed: &Seed) -> Self {
        Self {
            caches: Caches {
                v4: Cache::new(most, seed, "flows of IPv4"),
                v6: Cache::new(most, seed, "flows of IPv6"),
                links: Cache::new(most, seed, "flows between stations"),
            },
            adjacencies: Vec::new(),
            numbers: HashMap::default(),
            age: Age { stamp: 1, changes: VecDeque::new() },
            current: Flow::Other,
            hints: Vec::new(),
            known: 0,
            enabled: most > 0,
        }
    }

    /// Whether anything is ever kept.
    pub(super) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// What was found out so far holds no more.
    pub(super) fn forget(&mut self) {
        self.age.forget();
        self.adjacencies.clear();
        self.numbers.clear();
    }

    /// What was found out so far holds where this change has nothing to do with it.
    pub(super) fn change(&mut self, difference: &Arc<Difference>) {
        self.age.change(difference);
    }

    fn number(&mut self, adjacency: Adjacency) -> u16 {
        if let Some(&number) = self.numbers.get(&adjacency) {
            return number;
        }
        if self.adjacencies.len() >= ADJACENCIES {
            self.forget();
        }
        let number = u16::try_from(self.adjacencies.len()).unwrap_or(u16::MAX);
        self.adjacencies.push(adjacency);
        self.numbers.insert(adjacency, number);
        number
    }

    /// Keeps what was decided about packets of a flow.
    pub(super) fn keep_packets<A: Kind>(
        &mut self,
        key: PacketKey<A>,
        through: Through<A>,
        to: Adjacency,
        second: u16,
    ) {
        let number = self.number(to);
        let stamp = self.age.stamp;
        A::flows_mut(&mut self.caches).insert(key, through, number, stamp, second);
    }

    /// Keeps where frames between two stations go.
    pub(super) fn keep_link(&mut self, key: LinkKey, source: Option<Reference>, to: Adjacency, second: u16) {
        let number = self.number(to);
        self.caches.links.insert(key, source, number, self.age.stamp, second);
    }
}
