//! State changes worth telling a person: never one per frame.

use core::net::IpAddr;
use core::time::Duration;

use crate::addr::{MacAddr, PortId, SegmentId};
use crate::verdict::DropReason;

/// Something changed. Events are bounded: when nobody polls, the oldest are dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A learned MAC address appeared on another port. Ten a second are told at most, after a burst of ten; the others
    /// are counted in [`Event::MacMovesUntold`].
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
    /// More MAC addresses moved than were told, within about a second.
    MacMovesUntold {
        /// How many moves were not told.
        count: u64,
    },
    /// A port's storm control drops frames. Told once a minute per port at most.
    Storm {
        /// The port by which too much comes in.
        port: PortId,
    },
    /// Two ports are part of one loop: one of them is blocked, and tried again later.
    LoopDetected {
        /// The port that is blocked.
        port: PortId,
        /// The other end of the loop; the same port when what it sends comes back to itself.
        other: PortId,
        /// What showed it.
        evidence: LoopEvidence,
        /// For how long the port is blocked before it is tried again.
        blocked_for: Duration,
    },
    /// A port that was blocked is open again: nothing shows a loop any more.
    LoopCleared {
        /// The port.
        port: PortId,
    },
    /// Someone else claims an address in use here. It is announced by its owner; told and announced once in ten seconds
    /// per address at most.
    AddressConflict {
        /// Broadcast domain.
        segment: SegmentId,
        /// The address: the gateway's or a managed station's.
        address: IpAddr,
        /// Who claims it.
        mac: MacAddr,
        /// Where the claim came in.
        port: PortId,
    },
    /// Probing found that a gateway's address is in use elsewhere: it stays unused.
    DuplicateAddress {
        /// Broadcast domain.
        segment: SegmentId,
        /// The address.
        address: IpAddr,
        /// Who has it.
        mac: MacAddr,
        /// Where that was heard.
        port: PortId,
    },
    /// Probing found that a gateway's address is free: it is used from here on.
    AddressReady {
        /// Broadcast domain.
        segment: SegmentId,
        /// The address.
        address: IpAddr,
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
    /// A connection was refused: there are as many as may be, or no external port is left for it. Told once a minute at
    /// most; the frames are counted by their reason.
    ConnectionRefused {
        /// Why.
        reason: DropReason,
        /// Who wanted it.
        source: IpAddr,
    },
    /// A service did not take a packet. Told once a minute at most for each reason; the frames are counted by it.
    ServiceRefused {
        /// Why.
        reason: DropReason,
        /// Who asked.
        source: IpAddr,
        /// Where.
        destination: IpAddr,
        /// The port; 0 where there is none.
        port: u16,
    },
    /// A configuration was installed.
    Installed {
        /// Its generation.
        generation: u64,
    },
}

/// What showed a loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoopEvidence {
    /// The switch's own probe came back.
    Probe,
    /// A station's MAC address went back and forth between two ports.
    Flapping,
}
