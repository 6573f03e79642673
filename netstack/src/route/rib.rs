//! The table of record.

use core::net::IpAddr;

use prefix_trie::PrefixMap;

use super::RouteTable;
use crate::addr::IpNet;

/// The routes as the control plane changes them, one at a time; [`RouteTable::build`] compiles them for lookup. Each
/// prefix has one target. Host bits of prefixes are ignored.
#[derive(Clone, Default)]
pub struct Rib {
    v4: PrefixMap<ipnet::Ipv4Net, u32>,
    v6: PrefixMap<ipnet::Ipv6Net, u32>,
}

impl core::fmt::Debug for Rib {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Rib {
    /// A table without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route and gives back the target that its prefix had.
    pub fn insert(&mut self, prefix: IpNet, target: u32) -> Option<u32> {
        match prefix {
            IpNet::V4(p) => self.v4.insert(p, target),
            IpNet::V6(p) => self.v6.insert(p, target),
        }
    }

    /// Takes a route out and gives back its target.
    pub fn remove(&mut self, prefix: IpNet) -> Option<u32> {
        match prefix {
            IpNet::V4(p) => self.v4.remove(&p),
            IpNet::V6(p) => self.v6.remove(&p),
        }
    }

    /// The target of exactly this prefix.
    pub fn get(&self, prefix: IpNet) -> Option<u32> {
        match prefix {
            IpNet::V4(p) => self.v4.get(&p).copied(),
            IpNet::V6(p) => self.v6.get(&p).copied(),
        }
    }

    /// The longest prefix that holds `address`, and its target.
    pub fn lookup(&self, address: IpAddr) -> Option<(IpNet, u32)> {
        match address {
            IpAddr::V4(a) => self.v4.get_lpm(&a.into()).map(|(p, &target)| (p.into(), target)),
            IpAddr::V6(a) => self.v6.get_lpm(&a.into()).map(|(p, &target)| (p.into(), target)),
        }
    }

    /// Every route, IPv4 first, by network and then by length.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, u32)> {
        let v4 = self.v4.iter().map(|(p, &target)| (p.into(), target));
        v4.chain(self.v6.iter().map(|(p, &target)| (p.into(), target)))
    }

    /// Routes held.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Compiles the routes for lookup.
    pub fn compile(&self) -> RouteTable {
        RouteTable::build(self.iter())
    }
}
