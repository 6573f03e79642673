//! Names of addresses (RFC 1035 section 3.5, RFC 3596 section 2.5), and the zones that prefixes are.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::DomainName;

/// The name that PTR records of an address have.
pub fn name_of(address: IpAddr) -> DomainName {
    name(address, u8::MAX)
}

/// The zones of all names of a prefix: one, or where its length is between two labels those of the next longer length.
pub fn zones_of(prefix: IpNet) -> Vec<DomainName> {
    let (step, bits): (u8, u8) = if prefix.addr().is_ipv4() { (8, 32) } else { (4, 128) };
    let length = prefix.prefix_len().max(1).next_multiple_of(step);
    let first = to_number(prefix.network());
    let count = 1u128 << (length - prefix.prefix_len());
    let zones = (0..count).map(|number| {
        let offset = number.checked_shl(u32::from(bits - length)).unwrap_or(0);
        name(to_address(first | offset, prefix.addr().is_ipv4()), length / step)
    });
    zones.collect()
}

/// The name of the first so many parts of an address.
fn name(address: IpAddr, parts: u8) -> DomainName {
    let mut labels: Vec<String> = match address {
        IpAddr::V4(address) => address.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect()
        }
    };
    labels.truncate(parts.into());
    labels.reverse();
    let family = if address.is_ipv4() { "in-addr" } else { "ip6" };
    let labels = labels.iter().map(String::as_bytes).chain([family.as_bytes(), b"arpa"]);
    // Thirty-four short labels are far from what a name can be.
    DomainName::from_labels(labels).unwrap_or_else(|_| DomainName::root())
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn to_address(number: u128, is_ipv4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if is_ipv4 => IpAddr::V4(number.into()),
        Ok(_) | Err(_) => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_names_of_the_rfcs() {
        let of = |text: &str| name_of(text.parse().unwrap()).to_string();
        assert_eq!(of("10.96.0.1"), "1.0.96.10.in-addr.arpa.");
        let expected = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(of("fd00:10:96::a"), expected);
    }

    #[test]
    fn a_prefix_between_labels_is_several_zones() {
        let of = |text: &str| {
            let zones = zones_of(text.parse().unwrap());
            zones.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of("10.244.0.0/16"), ["244.10.in-addr.arpa."]);
        let twelve = of("10.96.0.0/12");
        assert_eq!(
            (twelve.len(), &*twelve[0], &*twelve[15]),
            (16, "96.10.in-addr.arpa.", "111.10.in-addr.arpa.")
        );
        assert_eq!(of("10.0.0.128/31"), ["128.0.0.10.in-addr.arpa.", "129.0.0.10.in-addr.arpa."]);
        assert_eq!(of("fd00:10:244::/56"), ["0.0.4.4.2.0.0.1.0.0.0.0.d.f.ip6.arpa."]);
        assert_eq!(of("fd00::/7"), ["c.f.ip6.arpa.", "d.f.ip6.arpa."]);
        assert_eq!(of("10.0.0.0/8"), ["10.in-addr.arpa."]);
    }
}
