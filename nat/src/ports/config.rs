//! What a pool is made from.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::blocks::{Blocks, MOST_BLOCKS};
use super::deterministic::Deterministic;
use super::set::PortSet;

/// External addresses in one pool, at most: where all are exhausted, each is looked at before a request is refused.
pub const MOST_ADDRESSES: usize = 4096;

/// A pool's configuration.
#[derive(Clone, Debug)]
pub struct Config<A> {
    /// The external addresses, in any order and with any gaps (RFC 6888 REQ-3).
    pub addresses: Vec<A>,
    /// Ports that may be given out: 1024 to 65535 unless said otherwise. ICMP identifiers are not concerned.
    pub ports: PortSet,
    /// How ports are divided among inside addresses.
    pub assignment: Assignment<A>,
    /// How long a released port waits (RFC 6888 REQ-8: 120 s).
    pub hold: Duration,
    /// Capacities.
    pub limits: Limits,
    /// Secret of the table of inside addresses.
    pub seed: u64,
}

impl<A> Config<A> {
    /// The defaults for these addresses.
    pub fn new(addresses: Vec<A>, seed: u64) -> Self {
        Self {
            addresses,
            ports: PortSet::range(1024..=65_535),
            assignment: Assignment::Any,
            hold: Duration::from_secs(120),
            limits: Limits::default(),
            seed,
        }
    }
}

impl<A> Config<A> {
    /// A pool that has no addresses and never will have.
    pub(crate) fn none() -> Self {
        let limits = Limits { subscribers: 0, leases_per_subscriber: 0, waiting: 0, block_events: 0 };
        Self { limits, ..Self::new(Vec::new(), 0) }
    }
}

/// How ports are divided among inside addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assignment<A> {
    /// Every port is for everyone.
    Any,
    /// In blocks, as they are needed.
    Blocks(Blocks),
    /// By arithmetic. The pool's addresses are [`Deterministic::externals`], or those of them that exist.
    Deterministic(Deterministic<A>),
}

/// Capacities of a pool, and what happens there. Memory for all of them is taken when the pool is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Inside addresses with leases or blocks: others are [`Refused::Subscribers`](super::Refused::Subscribers).
    pub subscribers: u32,
    /// Leases of one inside address (RFC 6888 REQ-4): more are [`Refused::Quota`](super::Refused::Quota).
    pub leases_per_subscriber: u32,
    /// Ports in hold-down: with one more, the oldest is set free early.
    pub waiting: u32,
    /// Block events that nobody has drained: more are lost and counted.
    pub block_events: u32,
}

impl Default for Limits {
    /// 4,096 inside addresses, as many leases as there are ports, 65,536 ports in hold-down, 4,096 block events.
    fn default() -> Self {
        Self { subscribers: 4096, leases_per_subscriber: u32::MAX, waiting: 65_536, block_events: 4096 }
    }
}

/// Why a pool cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// There are more addresses than [`MOST_ADDRESSES`].
    Addresses,
    /// A block has no ports.
    BlockSize,
    /// A subscriber may have no blocks, or more than [`MOST_BLOCKS`].
    BlocksPerSubscriber,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses => {
                write!(f, "addresses: at most {MOST_ADDRESSES}; divide them among several pools")
            }
            Self::BlockSize => f.write_str("blocks: size must be 1 or more"),
            Self::BlocksPerSubscriber => write!(f, "blocks: per_subscriber must be 1 to {MOST_BLOCKS}"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl<A> Config<A> {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        match self.assignment {
            _ if self.addresses.len() > MOST_ADDRESSES => Err(ConfigError::Addresses),
            Assignment::Blocks(Blocks { size: 0, .. }) => Err(ConfigError::BlockSize),
            Assignment::Blocks(Blocks { per_subscriber, .. })
                if !(1..=MOST_BLOCKS).contains(&per_subscriber) =>
            {
                Err(ConfigError::BlocksPerSubscriber)
            }
            Assignment::Any | Assignment::Blocks(_) | Assignment::Deterministic(_) => Ok(()),
        }
    }
}
