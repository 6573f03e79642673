//! What the table of neighbours tells its caller.

use core::net::IpAddr;
use core::time::Duration;

use super::NeighborState;
#[cfg(doc)]
use super::Neighbors;
use crate::addr::{MacAddr, SegmentId};

/// What is known about a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adjacency {
    /// Frames may be sent to this address; say so to [`Neighbors::use_entry`].
    Known {
        /// The neighbour's MAC address.
        mac: MacAddr,
        /// The entry's slot.
        slot: u32,
        /// The address's generation; see [`Neighbors::resolved`].
        generation: u32,
    },
    /// It is being asked for: frames wait, parked under this slot.
    Pending {
        /// The entry's slot.
        slot: u32,
    },
    /// Nothing is known: [`Neighbors::resolve`] asks.
    Unknown,
    /// It did not answer a moment ago: frames for it are undeliverable.
    Failed,
}

/// A neighbour is being asked for: frames for it can wait under its slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a solicitation that is due now is sent by the caller"]
pub struct Resolving {
    /// The entry's slot.
    pub slot: u32,
    /// Whether the first solicitation, by multicast, is to be sent at once.
    pub solicit: bool,
}

/// What came of a message from a neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// Nothing: no entry that it may touch, no room for one, or an address that no station has.
    Ignored,
    /// The entry is there and its MAC address is what it was.
    Noted {
        /// The entry's slot.
        slot: u32,
    },
    /// The neighbour is on record from here on, nobody waited for it.
    Created {
        /// The entry's slot.
        slot: u32,
    },
    /// The neighbour was being asked for: what is parked under its slot can go.
    Resolved {
        /// The entry's slot.
        slot: u32,
    },
    /// The neighbour has another MAC address than before.
    Moved {
        /// The entry's slot.
        slot: u32,
        /// The address it had.
        from: MacAddr,
    },
}

/// What the passing of time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighborAction {
    /// Send a solicitation.
    Solicit {
        /// Where.
        segment: SegmentId,
        /// For whom.
        ip: IpAddr,
        /// To the known address, or none for broadcast (ARP) or the solicited-node group (neighbour discovery).
        unicast_to: Option<MacAddr>,
    },
    /// It did not answer: what is parked under its slot is undeliverable (ICMP host or address unreachable).
    Failed {
        /// Where it was asked for.
        segment: SegmentId,
        /// Who.
        ip: IpAddr,
        /// The entry's slot.
        slot: u32,
    },
}

/// One entry, for listings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighborEntry {
    /// Where it is.
    pub segment: SegmentId,
    /// Who.
    pub ip: IpAddr,
    /// What is known of it.
    pub state: NeighborState,
    /// Its MAC address, in the states that have one.
    pub mac: Option<MacAddr>,
    /// For how long the state and the address have been as they are.
    pub age: Duration,
}

/// What the table has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NeighborCounters {
    /// Entries made.
    pub created: u64,
    /// Neighbours that were being asked for and gave their address.
    pub resolved: u64,
    /// Known addresses that were replaced by another.
    pub moved: u64,
    /// Neighbours that did not answer.
    pub failed: u64,
    /// Solicitations to be sent, multicast and unicast.
    pub solicitations: u64,
    /// Entries that gave way to a newcomer.
    pub evicted: u64,
    /// Entries removed on request.
    pub removed: u64,
    /// Newcomers without room, because none of the slots looked at could be evicted.
    pub refused: u64,
}
