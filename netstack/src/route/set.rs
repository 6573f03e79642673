//! A set of prefixes that answers in a binary search whether an address is in one of them.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::addr::IpNet;

/// Prefixes of both families.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PrefixSet {
    /// First and last address of ranges that neither overlap nor touch, in order; IPv4 before IPv6.
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl PrefixSet {
    /// The addresses of all of `prefixes`.
    pub fn new(prefixes: &[IpNet]) -> Self {
        let merged = IpNet::aggregate(&prefixes.to_vec());
        let mut ranges: Vec<(IpAddr, IpAddr)> =
            merged.iter().map(|net| (net.network(), net.broadcast())).collect();
        ranges.sort_unstable();
        Self { ranges }
    }

    /// Whether an address is in one of the prefixes.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let behind = self.ranges.partition_point(|(first, _)| *first <= address);
        behind > 0 && self.ranges.get(behind - 1).is_some_and(|(_, last)| address <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(a, len)| IpNet::new(a.into(), len).unwrap());
        let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(a, len)| IpNet::new(a.into(), len).unwrap());
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn it_answers_as_a_linear_scan_does(nets in prop::collection::vec(net(), 0..12), random in any::<[u8; 16]>()) {
            let set = PrefixSet::new(&nets);
            let ends = nets.iter().flat_map(|n| [n.network(), n.broadcast(), n.addr()]);
            let short: [u8; 4] = random[..4].try_into().unwrap();
            for address in ends.chain([IpAddr::from(random), IpAddr::from(short)]) {
                prop_assert_eq!(set.contains(address), nets.iter().any(|n| n.contains(&address)), "{}", address);
            }
        }
    }
}
