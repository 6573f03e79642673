//! What is known by name, as a value.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rpds::HashTrieMapSync;

use crate::name::{DomainName, ancestors};

/// What a record says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name is another's as well.
    Cname(DomainName),
    /// The name of an address.
    Ptr(DomainName),
    /// Where a Service's port is.
    Srv(Srv),
    /// A text.
    Txt(Arc<str>),
}

/// Where a Service's port is (RFC 2782).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Srv {
    /// The lowest is asked first.
    pub priority: u16,
    /// Its part of those of a priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// Who has it.
    pub target: DomainName,
}

impl From<IpAddr> for Data {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::A(address),
            IpAddr::V6(address) => Self::Aaaa(address),
        }
    }
}

impl std::fmt::Display for Data {
    /// Type and data as in master files.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::A(address) => write!(f, "A {address}"),
            Self::Aaaa(address) => write!(f, "AAAA {address}"),
            Self::Cname(name) => write!(f, "CNAME {name}"),
            Self::Ptr(name) => write!(f, "PTR {name}"),
            Self::Srv(Srv { priority, weight, port, target }) => {
                write!(f, "SRV {priority} {weight} {port} {target}")
            }
            Self::Txt(text) => write!(f, "TXT {text:?}"),
        }
    }
}

/// A record, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) owner: Arc<str>,
    pub(crate) data: Data,
}

/// A name that exists: it has records, or one beneath it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// Names directly beneath it.
    pub(crate) below: u32,
    pub(crate) entries: Arc<[Entry]>,
}

impl Node {
    pub(crate) fn data(&self) -> impl Iterator<Item = &Data> {
        self.entries.iter().map(|entry| &entry.data)
    }
}

/// All that is known by name. A clone costs next to nothing.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(crate) nodes: HashTrieMapSync<DomainName, Node>,
    /// Where zones begin that are ours: what is not known beneath is known not to exist.
    pub(crate) apexes: Arc<HashSet<DomainName>>,
    /// The cluster's domain.
    pub(crate) domain: DomainName,
    /// The name of the server.
    pub(crate) server: DomainName,
    /// Another number after each change.
    pub(crate) serial: u32,
}

impl Zone {
    /// The cluster's domain.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// Another number after each change (RFC 1035 section 3.3.13).
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many names there are, those included that only lead to others.
    pub fn len(&self) -> usize {
        self.nodes.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every record, in order of names.
    pub fn records(&self) -> Vec<(&DomainName, &Data)> {
        let all = self.nodes.iter().flat_map(|(name, node)| node.data().map(move |data| (name, data)));
        let mut all: Vec<(&DomainName, &Data)> = all.collect();
        // From the root on, so that what belongs together stands together.
        let key = |name: &DomainName| {
            let mut labels: Vec<Vec<u8>> = name.labels().map(<[u8]>::to_vec).collect();
            labels.reverse();
            labels
        };
        all.sort_by_cached_key(|(name, data)| (key(name), (*data).clone()));
        all
    }

    /// The zone of ours that a name is in.
    pub(crate) fn apex_of<'a>(&self, wire: &'a [u8]) -> Option<&'a [u8]> {
        ancestors(wire).find(|name| self.apexes.contains(*name))
    }

    pub(crate) fn node(&self, wire: &[u8]) -> Option<&Node> {
        self.nodes.get(wire)
    }

    /// Whether questions about a name are ours to answer: it is in one of our zones, or we know something of it.
    pub(crate) fn is_ours(&self, wire: &[u8]) -> bool {
        self.apex_of(wire).is_some() || self.node(wire).is_some_and(|node| !node.entries.is_empty())
    }
}
