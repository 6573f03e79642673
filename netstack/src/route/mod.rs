//! Longest-prefix match.
//!
//! # Theory of operation
//! Routes are kept twice. The *table of record* ([`Rib`]) is a trie that takes insertions and removals one at a time;
//! it belongs to the control plane. What forwards packets is a [`RouteTable`], compiled from all routes at once into a
//! snapshot and never changed: a poptrie per family, a few cache lines per lookup, over a list of prefixes and
//! targets. Replacing the table means compiling another; that takes time in proportion to the routes and happens off
//! the data thread.
//!
//! The table knows nothing of what a target is. It gives back the number that came with the prefix, which is the
//! caller's index of next hops or of a refusal. Which next hop of several a flow takes is decided by [`multipath`].

pub mod multipath;
mod poptrie;
#[cfg(feature = "std")]
mod rib;
mod set;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::addr::IpNet;
pub use crate::addr::scope::{is_group, is_link_scoped, martian_destination, martian_source};
pub use multipath::select_next_hop;
#[cfg(feature = "std")]
pub use rib::Rib;
pub use set::PrefixSet;

use poptrie::Poptrie;

/// All routes of one switch, compiled for lookup. Immutable.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    v4: Family,
    v6: Family,
}

/// The routes of one family: position n of the two lists is leaf n of the trie. Apart, because a lookup needs targets
/// alone.
#[derive(Clone, Debug, Default)]
struct Family {
    trie: Poptrie,
    prefixes: Box<[IpNet]>,
    targets: Box<[u32]>,
}

impl RouteTable {
    /// Compiles `routes`: prefixes, with or without host bits, each with the caller's index of its target. Of several
    /// with the same prefix the last counts.
    pub fn build(routes: impl Iterator<Item = (IpNet, u32)>) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) =
            routes.map(|(prefix, target)| (prefix.trunc(), target)).partition(|(prefix, _)| is_v4(prefix));
        Self { v4: Family::build(v4), v6: Family::build(v6) }
    }

    /// The target of the longest prefix that holds `destination`.
    pub fn lookup(&self, destination: IpAddr) -> Option<u32> {
        let family = self.family(destination);
        family.targets.get(family.trie.lookup(key(destination))?).copied()
    }

    /// The longest prefix that holds `destination`, and its target.
    pub fn lookup_prefix(&self, destination: IpAddr) -> Option<(IpNet, u32)> {
        let family = self.family(destination);
        let route = family.trie.lookup(key(destination))?;
        Some((*family.prefixes.get(route)?, *family.targets.get(route)?))
    }

    /// Every route, IPv4 first, by network and then by length, each once.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, u32)> {
        [&self.v4, &self.v6]
            .into_iter()
            .flat_map(|f| f.prefixes.iter().copied().zip(f.targets.iter().copied()))
    }

    /// Routes held.
    pub fn len(&self) -> usize {
        self.v4.targets.len() + self.v6.targets.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of the structures that a lookup reads.
    pub fn lookup_bytes(&self) -> usize {
        [&self.v4, &self.v6].into_iter().map(|f| f.trie.bytes() + size_of_val(&*f.targets)).sum()
    }

    fn family(&self, address: IpAddr) -> &Family {
        match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        }
    }
}

impl Family {
    fn build(mut routes: Vec<(IpNet, u32)>) -> Self {
        // A stable sort keeps equal prefixes in the caller's order, so the last of each run is the one that counts.
        routes.sort_by_key(|(prefix, _)| (key(prefix.addr()), prefix.prefix_len()));
        routes.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                *kept = *later;
            }
            same
        });
        let keys: Vec<_> =
            routes.iter().map(|(prefix, _)| (key(prefix.addr()), prefix.prefix_len())).collect();
        let (prefixes, targets): (Vec<_>, Vec<_>) = routes.into_iter().unzip();
        Self {
            trie: Poptrie::build(&keys),
            prefixes: prefixes.into_boxed_slice(),
            targets: targets.into_boxed_slice(),
        }
    }
}

const fn is_v4(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V4(_))
}

/// The address's bits from the left, so that prefixes of both families are read alike.
const fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => (a.to_bits() as u128) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests;
