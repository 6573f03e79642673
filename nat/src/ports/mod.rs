//! The ports of external addresses: who holds them, and which to give out next.
//!
//! # Theory of operation
//! A [`Pool`] has external addresses, and for each of them and each protocol a space of 65,536 ports. Leasing a port takes
//! two steps. [`Pool::choose`] borrows the pool immutably and says which port it would be; whoever is then dropped has
//! changed nothing. [`Pool::take`] takes the port for an owner, a number that means something to the caller alone, or says
//! that the choice no longer stands. [`Pool::release`] gives it back, into hold-down if asked.
//!
//! *Which address.* An inside address stays on one external address while it has any lease, whatever the protocol (RFC 4787
//! REQ-2, RFC 6888 REQ-2). A new one comes to the less used of two external addresses drawn at random, or to the next with a
//! free port: that spreads the load about as well as a look at all addresses, at a cost that does not grow with them, and
//! by load instead of number, unlike a hash.
//!
//! *Which port.* The inside port if it is free, else one at random (RFC 6056), else the next that is free: every permitted
//! port is given out before a request is refused. No port is given to two, except through [`Pool::choose_shared`], by which
//! the caller answers for their having different destinations.
//!
//! *When.* A released port waits (RFC 6888 REQ-8) until [`Pool::expire`] is told that its time has come. The caller tells it
//! before it chooses, once for a batch: then no port stays away longer than it has to, and none comes back early.
//!
//! # Cost
//! Choosing and taking are a few loads and word operations and do not depend on how many ports are taken, shared and block
//! leases aside, which say their bounds. A lease allocates only if it is the first in its space, or the first among 512
//! neighbouring ports, or shared. A space has 9.3 KiB when empty, 265 KiB at most.

mod blocks;
mod choose;
mod config;
mod deterministic;
mod draws;
mod external;
mod hold;
mod pool;
mod set;
mod space;
mod subscribers;
#[cfg(test)]
mod tests;

use core::fmt;

pub use blocks::{BlockEvent, BlockEventKind, Blocks, MOST_BLOCKS};
pub(crate) use choose::walk;
pub use choose::{Choice, MOST_PROBES};
pub use config::{Assignment, Config, ConfigError, Limits, MOST_ADDRESSES};
pub use deterministic::{Deterministic, DeterministicError};
pub(crate) use draws::Draws;
pub use pool::{Counters, Pool};
pub use set::{PortRange, PortSet};
pub use space::OWNERS;

use crate::tuple::protocol;

/// Protocols whose ports are leased, each from a space of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Identifiers of ICMP and ICMPv6 queries, all 65,536 of which are permitted whatever the permitted ports.
    Icmp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    const COUNT: usize = 4;
    /// By index.
    const ALL: [Self; Self::COUNT] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Sctp];

    /// That of an IP protocol number, if its ports are leased.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            protocol::ICMP | protocol::ICMPV6 => Some(Self::Icmp),
            protocol::SCTP => Some(Self::Sctp),
            _ => None,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
            Self::Icmp => 2,
            Self::Sctp => 3,
        }
    }
}

/// What an external port has in common with the inside port. What is asked for is kept always: a port that differs is not
/// given out even if there is no other (RFC 4787 REQ-11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Keep {
    /// Try the inside port itself before all others. This alone is a preference.
    pub port: bool,
    /// An even port for an even one, an odd for an odd (RFC 4787 REQ-4). Not for ICMP.
    pub parity: bool,
    /// A port below 1024 for one below 1024, one from 1024 up for one from 1024 up (RFC 4787 REQ-3a). Without effect where
    /// no port of the class is permitted at all, and for ICMP.
    pub class: bool,
}

impl Default for Keep {
    /// The port, if it is free.
    fn default() -> Self {
        Self { port: true, parity: false, class: false }
    }
}

/// Who asks for a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<A> {
    /// The inside address, or what stands for a subscriber with several, such as the first of an IPv6 prefix.
    pub inside: A,
    /// The protocol.
    pub protocol: Protocol,
    /// The inside port.
    pub port: u16,
    /// How like it the external port is to be.
    pub keep: Keep,
}

/// A port of an external address that somebody holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lease<A> {
    /// As in the [`Request`].
    pub inside: A,
    /// The external address.
    pub external: A,
    /// The protocol.
    pub protocol: Protocol,
    /// The external port.
    pub port: u16,
}

/// Why a request was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refused {
    /// No port that would do is free.
    Exhausted,
    /// The inside address has as many leases or blocks as it may (RFC 6888 REQ-4).
    Quota,
    /// There are as many inside addresses as [`Limits::subscribers`] allows.
    Subscribers,
    /// The deterministic relation has no ports for this inside address.
    Unmapped,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "no external port is free",
            Self::Quota => "the inside address has all the ports that it may have",
            Self::Subscribers => "no room for one more inside address: raise the limit of subscribers",
            Self::Unmapped => "the inside address lies outside of the deterministic prefix",
        })
    }
}

impl core::error::Error for Refused {}

/// Why a choice was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NotTaken {
    /// What was chosen is no longer to be had: choose again.
    Gone,
    /// An owner is a number below [`OWNERS`].
    Owner,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the port is no longer to be had: choose again"),
            Self::Owner => write!(f, "an owner is a number below {OWNERS}"),
        }
    }
}

impl core::error::Error for NotTaken {}
