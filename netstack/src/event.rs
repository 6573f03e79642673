//! State changes worth telling a person: never one per frame.

use core::net::IpAddr;

use crate::addr::{MacAddr, PortId, SegmentId};

/// Something changed. Events are bounded: when nobody polls, the oldest are dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A learned MAC address appeared on another port.
    MacMoved {
        /// Broadcast domain.
        segment: SegmentId,
        /// The address.
        mac: MacAddr,
        /// Where it was.
        from: PortId,
        /// Where it is.
        to: PortId,
    },
    /// The MAC table, or a port's share of it, is full: frames to unlearned addresses are flooded. Told once a minute
    /// per port at most.
    FdbFull {
        /// The port whose address was not learned.
        port: PortId,
    },
    /// A neighbour's address resolved to another MAC address than before.
    NeighborChanged {
        /// Where the neighbour is.
        segment: SegmentId,
        /// The neighbour.
        address: IpAddr,
        /// Its MAC address from here on.
        mac: MacAddr,
    },
    /// A neighbour did not answer.
    NeighborFailed {
        /// Where it was asked for.
        segment: SegmentId,
        /// The neighbour.
        address: IpAddr,
    },
    /// The neighbour table is full: traffic to new neighbours is dropped and counted. Told once a minute at most.
    NeighborTableFull {
        /// Where the neighbour was wanted.
        segment: SegmentId,
    },
    /// A configuration was installed.
    Installed {
        /// Its generation.
        generation: u64,
    },
}
