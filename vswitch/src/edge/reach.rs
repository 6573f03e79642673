//! What pods may reach outside.
//!
//! # Theory of operation
//! Some destinations mean this machine itself whatever the network says, or speak for it to others: they are closed unless
//! the user opens them by name. All else is open, within the prefixes that the user allows and denies. Where an address is
//! in several of those, the longest decides, and of two of the same length the one that denies.
//!
//! An IPv6 address that a network turns into an IPv4 one (NAT64's well-known prefix, 6to4) is as closed as that is.
//!
//! What never has a place in a forwarded packet, multicast, reserved and unspecified addresses, is not a matter of opinion.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstack::addr::IpNet;

/// What is closed unless it is opened by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Opening {
    /// This machine's loopback, which pods see at the edge's own address.
    MachineLoopback,
    /// The services by which clouds tell a machine who it is, and give it credentials.
    Metadata,
}

/// Cloud metadata services that are not link-local: those of AWS over IPv6 (of machines, and of EKS's pods), Google, Scaleway,
/// Alibaba, Azure, Oracle.
const METADATA: [IpAddr; 7] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];
/// The link-local one that nearly all of them have.
pub const LINK_LOCAL_METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// What pods may reach.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// What is open although it would not be.
    pub openings: Vec<Opening>,
    /// If there are any, nothing else is open.
    pub allow: Vec<IpNet>,
    /// What is closed although it would be open.
    pub deny: Vec<IpNet>,
}

impl Reach {
    /// Whether a packet from a pod may go to this address, which is not one of the edge's own.
    pub fn permits(&self, to: IpAddr) -> bool {
        if METADATA.contains(&to) || to == LINK_LOCAL_METADATA {
            return self.is_open(Opening::Metadata);
        }
        let behind = embedded(to).is_none_or(|v4| !self.is_closed(IpAddr::V4(v4)));
        behind && !is_never(to) && self.is_listed(to)
    }

    /// Whether something speaks against it.
    fn is_closed(&self, to: IpAddr) -> bool {
        let metadata = METADATA.contains(&to) || to == LINK_LOCAL_METADATA;
        if metadata { !self.is_open(Opening::Metadata) } else { is_never(to) || self.is_denied(to) }
    }

    /// Whether something is open that otherwise is not.
    pub fn is_open(&self, opening: Opening) -> bool {
        self.openings.contains(&opening)
    }

    fn is_listed(&self, to: IpAddr) -> bool {
        let allowed = self.allow.is_empty() || longest(&self.allow, to).is_some();
        allowed && !self.is_denied(to)
    }

    fn is_denied(&self, to: IpAddr) -> bool {
        longest(&self.deny, to)
            .is_some_and(|denied| longest(&self.allow, to).is_none_or(|open| open <= denied))
    }
}

/// The length of the longest of these prefixes that the address is in.
fn longest(nets: &[IpNet], to: IpAddr) -> Option<u8> {
    nets.iter().filter(|net| net.contains(&to)).map(IpNet::prefix_len).max()
}

/// The IPv4 address that such an IPv6 address stands for (RFC 6052 section 2.1, RFC 3056 section 2).
fn embedded(to: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = to else { return None };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

/// Whether no packet to this address leaves by a socket: Linux takes the unspecified address for loopback, and an
/// IPv4-mapped one for what it maps.
fn is_never(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            first == 0 || first >= 240 || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            let embeds_v4 = v6.to_ipv4().is_some();
            embeds_v4
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(reach: &Reach, to: &str) -> bool {
        reach.permits(to.parse().unwrap())
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_machine_and_its_metadata_are_closed_and_the_internet_is_open() {
        let reach = Reach::default();
        for open in [
            "198.51.100.1",
            "10.0.0.1",
            "192.168.1.1",
            "2001:db8::1",
            "fd00::1",
            "100.64.0.1",
            "64:ff9b::198.51.100.1",
        ] {
            assert!(permits(&reach, open), "{open}");
        }
        let closed = [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:198.51.100.1",
            "::127.0.0.1",
            "169.254.169.254",
            "169.254.1.1",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "ff02::1",
        ];
        for closed in closed {
            assert!(!permits(&reach, closed), "{closed}");
        }
    }

    #[test]
    fn metadata_is_opened_by_its_name_and_by_no_list() {
        let mut reach = Reach { allow: nets(&["0.0.0.0/0", "::/0"]), ..Reach::default() };
        assert!(!permits(&reach, "169.254.169.254") && !permits(&reach, "fd00:ec2::254"));
        assert!(!permits(&reach, "127.0.0.1") && !permits(&reach, "fe80::1"));
        reach.openings.push(Opening::Metadata);
        assert!(permits(&reach, "169.254.169.254") && permits(&reach, "fd00:ec2::254"));
        assert!(!permits(&reach, "169.254.169.253") && !permits(&reach, "127.0.0.1"));
    }

    #[test]
    fn the_longest_prefix_decides_and_of_two_the_one_that_denies() {
        let reach = Reach { deny: nets(&["10.0.0.0/8"]), allow: nets(&["10.1.0.0/16"]), ..Reach::default() };
        assert!(permits(&reach, "10.1.2.3") && !permits(&reach, "10.2.0.1"));
        assert!(!permits(&reach, "198.51.100.1"), "nothing else is open once something is allowed");
        let reach = Reach { deny: nets(&["10.0.0.0/8"]), ..Reach::default() };
        assert!(permits(&reach, "198.51.100.1") && !permits(&reach, "10.1.2.3"));
        assert!(permits(&reach, "64:ff9b::198.51.100.1") && !permits(&reach, "64:ff9b::10.1.2.3"));
        let same = nets(&["2001:db8::/32"]);
        assert!(!permits(&Reach { deny: same.clone(), allow: same, ..Reach::default() }, "2001:db8::1"));
    }
}
