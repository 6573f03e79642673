//! What was given out: to nodes their prefixes and addresses, to pods their node and addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstack::addr::IpNet;
use serde::{Deserialize, Serialize};

/// What one node or pod has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allocation {
    /// The node a pod is on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The prefixes of a node's pods.
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
}

/// Everything that was given out and not given back. Kept in the state directory, so that a cluster that is started again
/// is the same.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocations {
    /// By node.
    pub nodes: BTreeMap<String, Allocation>,
    /// By `NAMESPACE/NAME`.
    pub pods: BTreeMap<String, Allocation>,
    /// What Services have, by `NAMESPACE/NAME`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, crate::service::Allocation>,
}

/// Addresses in use, while new ones are given out.
#[derive(Debug, Default)]
pub(super) struct Used {
    addresses: HashSet<IpAddr>,
    /// Kept for load balancers: who asks for one of these gets it, but nobody by chance.
    kept: Vec<(IpAddr, IpAddr)>,
}

impl Used {
    /// Takes an address; false if it was taken before.
    pub(super) fn take(&mut self, address: IpAddr) -> bool {
        self.addresses.insert(address)
    }

    /// Gives out none between these any more.
    pub(super) fn keep(&mut self, ranges: impl IntoIterator<Item = (IpAddr, IpAddr)>) {
        self.kept.extend(ranges);
    }

    /// Takes the lowest free address of a prefix, after the router's; of IPv4 not the broadcast address either.
    pub(super) fn lowest(&mut self, prefix: IpNet) -> Option<IpAddr> {
        let hosts = host_bits(prefix);
        let last = match prefix {
            IpNet::V4(_) => (1u128 << hosts).saturating_sub(2),
            // The lower 64 bits are more than anybody will ever use up.
            IpNet::V6(_) => (1u128 << hosts.min(64)) - 1,
        };
        let mut number = 2;
        // One step for each address in use and for each range at the most, and what is next is free.
        while number <= last {
            let address = nth(prefix, number)?;
            let within = |(first, end): &&(IpAddr, IpAddr)| {
                same_family(*first, address) && (*first..=*end).contains(&address)
            };
            if let Some((_, end)) = self.kept.iter().find(within) {
                number += distance(address, *end) + 1;
            } else if self.addresses.insert(address) {
                return Some(address);
            } else {
                number += 1;
            }
        }
        None
    }
}

/// How many addresses one is behind another of its family.
fn distance(from: IpAddr, to: IpAddr) -> u128 {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    number(to).saturating_sub(number(from))
}

/// Bits of an address behind the prefix.
pub(crate) fn host_bits(prefix: IpNet) -> u32 {
    u32::from(prefix.max_prefix_len() - prefix.prefix_len())
}

/// The address number `n` of a prefix.
pub(crate) fn nth(prefix: IpNet, n: u128) -> Option<IpAddr> {
    match prefix.network() {
        IpAddr::V4(base) => {
            let address = u32::from(base).checked_add(u32::try_from(n).ok()?)?;
            Some(Ipv4Addr::from(address).into())
        }
        IpAddr::V6(base) => Some(Ipv6Addr::from(u128::from(base).checked_add(n)?).into()),
    }
}

/// The lowest part of `whole` of the length `length` that overlaps none of `taken`.
pub(super) fn free_part(whole: IpNet, length: u8, taken: &[IpNet]) -> Option<IpNet> {
    if length < whole.prefix_len() {
        return None;
    }
    let mut at = IpNet::new(whole.network(), length).ok()?;
    let step = 1u128 << host_bits(at);
    loop {
        if !whole.contains(&at.network()) {
            return None;
        }
        match taken.iter().find(|other| overlap(**other, at)) {
            None => return Some(at),
            Some(other) => {
                // Behind the one that is in the way, however large it is.
                let beyond = host_bits(*other).max(host_bits(at));
                let steps = (1u128 << beyond.min(127)) / step;
                at = IpNet::new(nth(align(at, beyond)?, step.checked_mul(steps)?)?, length).ok()?;
            }
        }
    }
}

/// The prefix with `bits` host bits that contains `net`'s first address.
fn align(net: IpNet, bits: u32) -> Option<IpNet> {
    let length = u8::try_from(u32::from(net.max_prefix_len()).checked_sub(bits)?).ok()?;
    Some(IpNet::new(net.network(), length).ok()?.trunc())
}

/// Whether two prefixes have addresses in common.
pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Whether both are IPv4, or both IPv6.
pub(super) fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// The first address of a prefix, with its length: the router's.
pub(super) fn gateway(prefix: IpNet) -> Option<IpNet> {
    IpNet::new(nth(prefix, 1)?, prefix.prefix_len()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn parts_are_given_out_in_order_around_what_is_taken() {
        let mut taken = vec![net("10.244.1.0/24"), net("10.244.2.128/25"), net("10.244.4.0/23")];
        let mut given = Vec::new();
        while given.len() < 4 {
            let part = free_part(net("10.244.0.0/16"), 24, &taken).unwrap();
            given.push(part.to_string());
            taken.push(part);
        }
        assert_eq!(given, ["10.244.0.0/24", "10.244.3.0/24", "10.244.6.0/24", "10.244.7.0/24"]);
        let six = free_part(net("fd00:10:244::/56"), 64, &[net("fd00:10:244::/64")]).unwrap();
        assert_eq!(six, net("fd00:10:244:1::/64"));
        assert_eq!(free_part(net("10.0.0.0/24"), 24, &[net("10.0.0.0/8")]), None);
        assert_eq!(free_part(net("10.0.0.0/25"), 24, &[]), None);
        assert_eq!(free_part(net("255.255.255.0/24"), 25, &[net("255.255.255.0/24")]), None);
    }

    #[test]
    fn addresses_are_given_out_from_the_second_to_the_last() {
        let mut used = Used::default();
        let given: Vec<String> =
            std::iter::from_fn(|| used.lowest(net("10.0.0.0/29"))).map(|a| a.to_string()).collect();
        assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(used.lowest(net("fd00::/64")), Some("fd00::2".parse().unwrap()));
        assert!(!used.take("fd00::2".parse().unwrap()));
        assert_eq!(used.lowest(net("10.0.1.0/31")), None);
    }
}
