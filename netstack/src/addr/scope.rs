//! How far an address reaches, and which may not stand in a forwarded packet at all.

use core::net::IpAddr;

/// Whether `address` must not be the source of a packet that a router forwards: it names no single host, or one that
/// cannot be on any link.
///
/// | prefix | why |
/// |---|---|
/// | 0.0.0.0/8 | "this network" (RFC 1122 section 3.2.1.3 a, b; RFC 1812 section 5.3.7) |
/// | 127.0.0.0/8 | loopback (RFC 1122 section 3.2.1.3 g; RFC 1812 section 5.3.7) |
/// | 224.0.0.0/4 | multicast (RFC 1812 section 5.3.7: not unicast) |
/// | 240.0.0.0/4 | reserved, with the limited broadcast (RFC 1112 section 4; RFC 1812 section 5.3.7) |
/// | ::/128 | unspecified (RFC 4291 section 2.5.2) |
/// | ::1/128 | loopback (RFC 4291 section 2.5.3) |
/// | ::ffff:0:0/96 | IPv4-mapped: never on the wire (RFC 4291 section 2.5.5.2, RFC 4942 section 2.2) |
/// | ff00::/8 | multicast (RFC 4291 section 2.7) |
///
/// A broadcast address of a known prefix is the caller's to know.
pub const fn martian_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => matches!(a.octets()[0], 0 | 127 | 224..=255),
        IpAddr::V6(a) => a.is_multicast() || names_no_node(a),
    }
}

/// Whether `address` must not be the destination of a packet that a router receives from a link.
///
/// | prefix | why |
/// |---|---|
/// | 0.0.0.0/8 | "this network" (RFC 1122 section 3.2.1.3 a, b; RFC 1812 section 5.3.7) |
/// | 127.0.0.0/8 | loopback (RFC 1122 section 3.2.1.3 g; RFC 1812 section 5.3.7) |
/// | 240.0.0.0/4 but 255.255.255.255 | reserved (RFC 1812 section 5.3.7) |
/// | ::/128 | unspecified (RFC 4291 section 2.5.2) |
/// | ::1/128 | loopback (RFC 4291 section 2.5.3) |
/// | ::ffff:0:0/96 | IPv4-mapped: never on the wire (RFC 4291 section 2.5.5.2, RFC 4942 section 2.2) |
/// | ffX0::/16, ffX1::/16 | multicast of reserved and of interface-local scope (RFC 4291 section 2.7, erratum 3480) |
///
/// Multicast and the limited broadcast are no martians: a router hears them and does not forward them.
pub const fn martian_destination(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => matches!(a.octets()[0], 0 | 127 | 240..=255) && !a.is_broadcast(),
        IpAddr::V6(a) => names_no_node(a) || (a.is_multicast() && multicast_scope(a) <= 1),
    }
}

/// Whether `address` has a meaning on its link only, so that a packet from it or to it must not be forwarded.
///
/// | prefix | why |
/// |---|---|
/// | 169.254.0.0/16 | link-local (RFC 3927 section 7) |
/// | 224.0.0.0/24 | local network control block (RFC 5771 section 4) |
/// | 255.255.255.255/32 | limited broadcast (RFC 1812 section 5.3.5.1) |
/// | fe80::/10 | link-local (RFC 4291 section 2.5.6) |
/// | ffX0::/16 to ffX2::/16 | multicast up to link-local scope (RFC 4291 section 2.7) |
pub const fn is_link_scoped(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_broadcast() || matches!(a.octets(), [224, 0, 0, _]),
        IpAddr::V6(a) => a.is_unicast_link_local() || (a.is_multicast() && multicast_scope(a) <= 2),
    }
}

/// Whether more than one station may hear what is sent to `address`: multicast of either family and the limited
/// broadcast. A directed broadcast looks like any other address without its prefix.
pub const fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast(),
    }
}

/// Unspecified, loopback and IPv4-mapped.
const fn names_no_node(address: core::net::Ipv6Addr) -> bool {
    matches!(address.segments(), [0, 0, 0, 0, 0, 0, 0, 0 | 1] | [0, 0, 0, 0, 0, 0xffff, _, _])
}

/// The scop field (RFC 4291 section 2.7).
const fn multicast_scope(address: core::net::Ipv6Addr) -> u8 {
    address.octets()[1] & 0x0f
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;
    use proptest::prelude::*;

    const MARTIAN_SOURCES: &[&str] = &[
        "0.0.0.0/8",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "ff00::/8",
    ];
    const MARTIAN_DESTINATIONS: &[&str] =
        &["0.0.0.0/8", "127.0.0.0/8", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96"];
    const LINK_SCOPED: &[&str] = &["169.254.0.0/16", "224.0.0.0/24", "255.255.255.255/32", "fe80::/10"];
    const GROUPS: &[&str] = &["224.0.0.0/4", "255.255.255.255/32", "ff00::/8"];

    fn among(address: IpAddr, table: &[&str]) -> bool {
        table.iter().any(|p| p.parse::<IpNet>().unwrap().contains(&address))
    }

    /// The scope of an IPv6 multicast address from its text, or 15 for what is none.
    fn scope_of(address: IpAddr) -> u8 {
        let IpAddr::V6(a) = address else { return 15 };
        let text = alloc::format!("{:04x}", a.segments()[0]);
        if text.starts_with("ff") { u8::from_str_radix(&text[3..], 16).unwrap() } else { 15 }
    }

    fn check(address: IpAddr) {
        assert_eq!(martian_source(address), among(address, MARTIAN_SOURCES), "source {address}");
        let destination = among(address, MARTIAN_DESTINATIONS) && address != IpAddr::V4([255; 4].into());
        assert_eq!(
            martian_destination(address),
            destination || scope_of(address) < 2,
            "destination {address}"
        );
        assert_eq!(
            is_link_scoped(address),
            among(address, LINK_SCOPED) || scope_of(address) < 3,
            "link {address}"
        );
        assert_eq!(is_group(address), among(address, GROUPS), "group {address}");
    }

    /// The first and last address of each prefix, and their neighbours outside.
    #[test]
    fn edges_of_every_prefix() {
        for table in [MARTIAN_SOURCES, MARTIAN_DESTINATIONS, LINK_SCOPED, GROUPS] {
            for prefix in table {
                match prefix.parse::<IpNet>().unwrap() {
                    IpNet::V4(p) => {
                        let (first, last) = (p.network().to_bits(), p.broadcast().to_bits());
                        for bits in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                            check(IpAddr::V4(bits.into()));
                        }
                    }
                    IpNet::V6(p) => {
                        let (first, last) = (p.network().to_bits(), p.broadcast().to_bits());
                        for bits in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                            check(IpAddr::V6(bits.into()));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_upper_half_of_ipv4_and_first_group_of_ipv6() {
        for high in 0..=u16::MAX {
            let [a, b] = high.to_be_bytes();
            for low in [[0, 0], [0, 1], [1, 0], [255, 255]] {
                check(IpAddr::from([a, b, low[0], low[1]]));
            }
            check(IpAddr::from([high, 0, 0, 0, 0, 0, 0, 1]));
            check(IpAddr::from([high, 0xffff, 0, 0, 0, 0, 0xffff, 0]));
            check(IpAddr::from([0, 0, 0, 0, 0, high, 0x0a00, 1]));
            check(IpAddr::from([0, 0, 0, 0, 0, 0, high, 1]));
        }
    }

    #[test]
    fn ordinary_addresses_pass() {
        for text in
            ["10.0.0.1", "192.0.2.1", "100.64.0.1", "1.1.1.1", "223.255.255.255", "fd00::1", "2001:db8::1"]
        {
            let address = text.parse().unwrap();
            assert!(
                !martian_source(address) && !martian_destination(address) && !is_link_scoped(address),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_address(address: IpAddr) {
            check(address);
        }
    }
}
