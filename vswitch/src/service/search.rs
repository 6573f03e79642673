//! Where an address or a port that is free is looked for.

use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::given::Range;
use crate::objects::{host_bits, nth};

/// Offsets in the range of cluster IPs that are kept for a Service.
pub(super) const RESERVED: [(u128, &str); 2] = [(1, "default/kubernetes"), (10, NAME_SERVER)];
/// The name of the cluster's name server, whosever it is.
pub(super) const NAME_SERVER: &str = "kube-system/kube-dns";

/// Addresses for a Service, best first; so many are in use, and one more than that is enough of the upper part.
pub(super) fn addresses(cidr: IpNet, name: &str, in_use: usize) -> impl Iterator<Item = IpAddr> {
    let mine = RESERVED.iter().find(|(_, holder)| *holder == name).map(|(n, _)| *n);
    let last = last(cidr);
    let kept = static_band(cidr);
    let begin = u128::from(spread(name, &cidr.to_string()));
    let upper = (last - kept).min(1 << 64);
    let most = upper.min((in_use + RESERVED.len()) as u128 + 1);
    let upper = (0..most).map(move |n| kept + 1 + (begin + n) % upper);
    let others = upper.chain(1..=kept).filter(|n| RESERVED.iter().all(|(reserved, _)| reserved != n));
    mine.into_iter().chain(others).filter_map(move |n| nth(cidr, n))
}

/// Ports of nodes for a Service, best first.
pub(super) fn ports(range: Range, name: &str, what: &str) -> impl Iterator<Item = u16> {
    let size = u64::from(range.last - range.first) + 1;
    let kept = (size / 32).clamp(16, 128).min(size);
    let (begin, upper) = (spread(name, what), size - kept);
    let upper = (0..upper).map(move |n| kept + (begin + n) % upper);
    upper.chain(0..kept).filter_map(move |n| u16::try_from(u64::from(range.first) + n).ok())
}

/// Whether somebody can have an address of a prefix.
pub(super) fn is_usable(cidr: IpNet, address: IpAddr) -> bool {
    offset(cidr, address).is_some_and(|n| (1..=last(cidr)).contains(&n))
}

/// How many of the lowest addresses of a prefix are left to those who ask for a certain one.
fn static_band(cidr: IpNet) -> u128 {
    match 1u128.checked_shl(host_bits(cidr)) {
        Some(..=16) => 0,
        Some(size) => (size / 16).clamp(16, 256),
        None => 256,
    }
}

/// The number of the last address of a prefix that somebody can have.
fn last(cidr: IpNet) -> u128 {
    let all = 1u128.checked_shl(host_bits(cidr)).unwrap_or(0).wrapping_sub(1);
    // Of IPv4 not the broadcast address.
    if cidr.addr().is_ipv4() { all.saturating_sub(1) } else { all }
}

fn offset(cidr: IpNet, address: IpAddr) -> Option<u128> {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    number(address).checked_sub(number(cidr.network()))
}

/// Where the search for a name begins.
fn spread(name: &str, what: &str) -> u64 {
    let digest = Sha256::new().chain_update(what).chain_update([0]).chain_update(name).finalize();
    digest.iter().take(7).fold(0, |number, octet| number << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first three are the examples of Kubernetes' documentation.
    #[test]
    fn cluster_ip_static_band_is_a_sixteenth_of_16_to_256_addresses() {
        for (cidr, end) in [
            ("10.96.0.0/24", "10.96.0.16"),
            ("10.96.0.0/20", "10.96.1.0"),
            ("10.96.0.0/16", "10.96.1.0"),
            ("10.96.0.0/23", "10.96.0.32"),
            ("10.96.0.0/27", "10.96.0.16"),
            ("10.96.0.0/28", "10.96.0.0"),
            ("fd00::/112", "fd00::100"),
            ("fd00::/120", "fd00::10"),
        ] {
            let (cidr, end): (IpNet, IpAddr) = (cidr.parse().unwrap(), end.parse().unwrap());
            let all: Vec<IpAddr> = addresses(cidr, "default/web", 1 << 32).collect();
            let dynamic = all.iter().position(|address| *address <= end).unwrap_or(all.len());
            let lowest = all.iter().take(dynamic).min().copied();
            let is_kept = |n: &u128| RESERVED.iter().any(|(reserved, _)| reserved == n);
            let expected = (offset(cidr, end).unwrap() + 1..).find(|n| !is_kept(n));
            assert_eq!(lowest.and_then(|lowest| offset(cidr, lowest)), expected, "{cidr}");
            // What is left when those are gone is all of the band, but for the two that are kept.
            assert!(all.iter().skip(dynamic).all(|address| *address <= end), "{cidr}");
            assert_eq!(all.len() as u128 + RESERVED.len() as u128, last(cidr), "{cidr}");
        }
    }
}
