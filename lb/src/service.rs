//! What a service is: where clients ask, and who answers them.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use ipnet::IpNet;

use crate::pool::Pool;

/// Where a client is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Origin {
    /// In the cluster, in a pod of any node.
    Inside,
    /// In the node's own namespace.
    Node,
    /// Anywhere else.
    Outside,
}

/// Where clients ask for a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Frontend {
    /// The address.
    pub address: IpAddr,
    /// The IP protocol's number.
    pub protocol: u8,
    /// The L4 port.
    pub port: u16,
}

/// What becomes of a packet that nobody is there to answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Refusal {
    /// The client is told: a TCP reset, or that the port is unreachable.
    Reject,
    /// It is dropped without a word.
    Drop,
}

/// What clients of one origin get.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Way {
    /// Who answers them.
    pub pool: Arc<Pool>,
    /// Whether the backend sees the node's address in place of the client's.
    pub masquerade: bool,
    /// What becomes of them if there is nobody.
    pub when_empty: Refusal,
}

/// One frontend, and what it leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Entrance {
    /// Where clients ask.
    pub frontend: Frontend,
    /// Who may: others are dropped. Anybody if empty. The node itself always may.
    pub sources: Vec<IpNet>,
    /// What clients get, in the order of [`Origin`]'s variants.
    pub ways: [Way; 3],
}

impl Entrance {
    /// What clients of an origin get.
    pub const fn way(&self, origin: Origin) -> &Way {
        &self.ways[origin as usize]
    }

    /// Whether a client may come in here.
    pub fn admits(&self, source: IpAddr, origin: Origin) -> bool {
        origin == Origin::Node
            || self.sources.is_empty()
            || self.sources.iter().any(|net| net.contains(&source))
    }
}

/// Backends by address and L4 port, in order: cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(from = "Vec<(IpAddr, u16)>")
)]
pub struct Serving(Arc<[(IpAddr, u16)]>);

impl Serving {
    /// Whether a backend is one of them.
    pub fn contains(&self, backend: (IpAddr, u16)) -> bool {
        self.0.binary_search(&backend).is_ok()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.0.iter().copied()
    }
}

impl Default for Serving {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<(IpAddr, u16)>> for Serving {
    fn from(mut backends: Vec<(IpAddr, u16)>) -> Self {
        backends.sort_unstable();
        backends.dedup();
        Self(backends.into())
    }
}

impl FromIterator<(IpAddr, u16)> for Serving {
    fn from_iter<I: IntoIterator<Item = (IpAddr, u16)>>(backends: I) -> Self {
        Self::from(Vec::from_iter(backends))
    }
}

/// One port of a service in one address family, with every frontend it has.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Service {
    /// What it is known by.
    pub name: Arc<str>,
    /// Where clients ask for it.
    pub entrances: Vec<Entrance>,
    /// For how long a client without new connections comes back to the backend that it had, if at all.
    pub affinity: Option<Duration>,
    /// The backends that connections may keep: those in the pools, and those that only finish what they have begun.
    pub serving: Serving,
    /// Whether a connection whose backend is gone for good is reset.
    pub reset_gone: bool,
}
