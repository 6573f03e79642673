//! Tracking of connections and translation of addresses, as plain data of both families.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

pub use nat::behaviour::{Behaviour, Filtering, OnRefusal, Sharing};
pub use nat::ports::PortRange;
pub use nat::timeouts::Timeouts;

use crate::addr::{IpNet, SegmentId};

/// How a switch tracks connections, and what it translates. A switch that has it tracks every packet that it routes, and
/// what it bridges from managed ports.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct NatConfig {
    /// How to act where the field disagrees.
    pub behaviour: Behaviour,
    /// How long silent connections are kept.
    pub timeouts: Timeouts,
    /// External addresses, which source rules name.
    pub pools: Vec<PoolConfig>,
    /// What becomes of the sources of new connections: the first rule that matches decides, and without one the source
    /// stays. Of destinations those count that destination rules have chosen.
    pub source: Vec<SourceRule>,
    /// What becomes of their destinations, before they are routed: the first rule that matches decides.
    pub destination: Vec<DestinationRule>,
    /// Addresses of stations of which nothing is to be remembered: packets from them and to them are neither tracked nor
    /// translated. They suit who has many short exchanges with everybody, and needs no protection that rests on connections.
    pub untracked: Vec<IpNet>,
}

impl Default for NatConfig {
    /// Tracks as suits a cluster's node, with the RFCs' times, and translates nothing.
    fn default() -> Self {
        Self {
            behaviour: Behaviour::node(),
            timeouts: Timeouts::rfc(),
            pools: Vec::new(),
            source: Vec::new(),
            destination: Vec::new(),
            untracked: Vec::new(),
        }
    }
}

/// External addresses whose ports are given out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct PoolConfig {
    /// What rules call it.
    pub name: String,
    /// The addresses, of either family or of both. Someone must bring packets for them here: they are addresses of a
    /// gateway, or routed to the switch.
    pub addresses: Vec<IpAddr>,
    /// The ports that may be given out; those from 1024 up if none are named.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ports: Vec<PortRange>,
    /// How long nobody else gets a port that was given back (RFC 6888 REQ-8).
    #[cfg_attr(feature = "serde", serde(default = "default_hold"))]
    pub hold: Duration,
    /// Inside addresses that may have ports at the same time.
    #[cfg_attr(feature = "serde", serde(default = "default_hosts"))]
    pub hosts: u32,
    /// Ports that one inside address may have at the same time; none for all there are (RFC 6888 REQ-4).
    #[cfg_attr(feature = "serde", serde(default))]
    pub ports_per_host: Option<u32>,
    /// Ports are given out in blocks of that many, as they are needed, so that a log of blocks is enough (RFC 6888
    /// REQ-14); none for single ports.
    #[cfg_attr(feature = "serde", serde(default))]
    pub block_size: Option<u16>,
}

const fn default_hold() -> Duration {
    Duration::from_secs(120)
}

const fn default_hosts() -> u32 {
    4096
}

impl PoolConfig {
    /// All ports from 1024 up, for everyone.
    pub fn new(name: impl Into<String>, addresses: Vec<IpAddr>) -> Self {
        Self {
            name: name.into(),
            addresses,
            ports: Vec::new(),
            hold: default_hold(),
            hosts: default_hosts(),
            ports_per_host: None,
            block_size: None,
        }
    }
}

/// Which new connections a rule is for: those for which everything holds that is said. Prefixes of one family make it a rule
/// of that family; without any it is one of both.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct NatMatch {
    /// The segment that the packet comes from.
    pub ingress: Option<SegmentId>,
    /// The segment that it leaves to. Not known yet where destinations are chosen.
    pub egress: Option<SegmentId>,
    /// Where it comes from; anywhere if empty.
    pub sources: Vec<IpNet>,
    /// Where it goes; anywhere if empty.
    pub destinations: Vec<IpNet>,
    /// The IP protocol.
    pub protocol: Option<u8>,
    /// The L4 port that it comes from.
    pub source_ports: Option<PortRange>,
    /// The L4 port that it goes to.
    pub destination_ports: Option<PortRange>,
}

/// A rule for sources.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct SourceRule {
    /// Which connections it is for.
    pub matches: NatMatch,
    /// What becomes of them.
    pub action: SourceNat,
}

/// What becomes of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum SourceNat {
    /// It stays.
    Keep,
    /// A port of an address of the pool with this name. A pool without addresses of a packet's family has no port for it.
    Pool(String),
    /// The address at the same place in another prefix of the same length, with the same port.
    Prefix {
        /// Inside.
        from: IpNet,
        /// Outside.
        to: IpNet,
    },
}

/// A rule for destinations.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct DestinationRule {
    /// Which connections it is for.
    pub matches: NatMatch,
    /// What becomes of them.
    pub action: DestinationNat,
}

/// What becomes of a destination.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum DestinationNat {
    /// It stays.
    Keep,
    /// Another address, another port. Ports of a range go to those at the same place in the new one.
    To {
        /// The address; none for the same.
        address: Option<IpAddr>,
        /// The ports; none for the same.
        ports: Option<PortRange>,
    },
    /// The address at the same place in another prefix of the same length.
    Prefix {
        /// Outside.
        from: IpNet,
        /// Inside.
        to: IpNet,
    },
}
