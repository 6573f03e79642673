//! Internet checksums, whole and incremental (RFC 1071, RFC 1624).
//!
//! # Theory of operation
//! The Internet checksum is the complement of the ones' complement sum of the data's 16-bit words. Three of its
//! properties carry this module (RFC 1071 section 2): words may be added in any order and grouping, so a packet is
//! summed in pieces; the sum comes out the same in either byte order, so words are read as the machine likes them and
//! the result is swapped once; and carries may be collected late, so wide words are added into wide accumulators.
//!
//! *Partial sums* are `u32` values of at most 0xffff, so that up to 65,537 of them may be added with plain `+` before
//! [`fold`] brings them back to 16 bits. A partial sum is not yet complemented.
//!
//! A change of some words is applied to a checksum without looking at the rest (RFC 1624 equation 3):
//! `HC' = ~(~HC + ~m + m')`. The part `~m + m'` depends only on the words, so [`Delta`] collects it once and applies it
//! to as many checksums as needed. An incremental update keeps a wrong checksum exactly as wrong as it was: nothing is
//! ever repaired by it.
//!
//! Ones' complement has two zeros. A sum over data that is not all zero is never 0x0000, so a checksum is never 0xffff;
//! updates agree with that, and every packet that has a pseudo-header or a header is such data.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The partial sum of `bytes` as big-endian 16-bit words, 0 to 0xffff. An odd last octet counts as the upper half of a
/// word, so of several pieces only the last may have an odd length.
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // Four 64-bit accumulators of 32-bit words cannot overflow below 2^32 chunks (128 GiB), and give the compiler
    // independent lanes.
    let mut lanes = [0u64; 4];
    let (chunks, rest) = bytes.as_chunks::<16>();
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().map(|&lane| (lane & 0xffff_ffff) + (lane >> 32)).sum();
    let (words, last) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let Some(&octet) = last.first() {
        total += u64::from(u16::from_ne_bytes([octet, 0]));
    }
    u32::from(u16::from_be(fold_wide(total)))
}

/// Folds the carries of up to 65,537 added partial sums into 16 bits.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    low_half(twice)
}

const fn fold_wide(sum: u64) -> u16 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    let twice = (once & 0xffff_ffff) + (once >> 32);
    // After the second round nothing is left above 32 bits.
    fold(low_word(twice))
}

#[expect(clippy::cast_possible_truncation, reason = "the upper half has been folded into the lower")]
const fn low_half(sum: u32) -> u16 {
    sum as u16
}

#[expect(clippy::cast_possible_truncation, reason = "the upper half has been folded into the lower")]
const fn low_word(sum: u64) -> u32 {
    sum as u32
}

/// The checksum of `bytes`, as it stands in a header whose checksum field was zero while summing.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// Whether a partial sum that included the checksum field says that all is well: it folds to 0xffff then.
#[inline]
pub const fn is_valid(sum: u32) -> bool {
    fold(sum) == 0xffff
}

/// The partial sum of a pseudo-header: both addresses, the upper layer's protocol and its length in octets, header
/// included. One function serves both families, because IPv4's (RFC 9293 section 3.1) and IPv6's (RFC 8200 section 8.1)
/// differ only in where zeros stand.
#[inline]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: u32) -> u32 {
    address(source) + address(destination) + u32::from(protocol) + (length >> 16) + (length & 0xffff)
}

/// As [`pseudo_header`], for IPv4.
#[inline]
pub fn pseudo_header_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u32 {
    pseudo_header(IpAddr::V4(source), IpAddr::V4(destination), protocol, u32::from(length))
}

/// As [`pseudo_header`], for IPv6.
#[inline]
pub fn pseudo_header_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, length: u32) -> u32 {
    pseudo_header(IpAddr::V6(source), IpAddr::V6(destination), protocol, length)
}

#[inline]
fn address(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// The checksum after the word `old` became `new` (RFC 1624 equation 3).
#[inline]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    Delta::NONE.replace16(old, new).apply(checksum)
}

/// The checksum after the aligned double word `old` became `new`.
#[inline]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    Delta::NONE.replace32(old, new).apply(checksum)
}

/// What a set of replaced words does to every checksum that covers them. Words must be whole 16-bit words of the
/// summed data, at even distances from its start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Delta(u16);

impl Delta {
    /// Nothing replaced: leaves every checksum as it is, bit for bit.
    pub const NONE: Self = Self(0);

    /// Adds the replacement of one word.
    #[inline]
    #[must_use]
    pub const fn replace16(self, old: u16, new: u16) -> Self {
        // Equal words would add the other zero, 0xffff, which is harmless but not the identity on every bit pattern.
        if old == new {
            return self;
        }
        Self(fold(self.0 as u32 + !old as u32 + new as u32))
    }

    /// Adds the replacement of two adjacent words.
    #[inline]
    #[must_use]
    pub const fn replace32(self, old: u32, new: u32) -> Self {
        self.replace16(low_half(old >> 16), low_half(new >> 16))
            .replace16(low_half(old & 0xffff), low_half(new & 0xffff))
    }

    /// Adds the replacement of an address by another of either family.
    #[inline]
    #[must_use]
    pub fn replace_address(self, old: IpAddr, new: IpAddr) -> Self {
        if old == new {
            return self;
        }
        let (old, new) = (fold(address(old)), fold(address(new)));
        Self(fold(u32::from(self.0) + u32::from(!old) + u32::from(new)))
    }

    /// Both sets of replacements.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The checksum after the replacements. For TCP, ICMP, ICMPv6 and the IPv4 header.
    #[inline]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }

    /// The UDP checksum after the replacements: 0 means that there is none and stays 0, and a computed 0 is sent as
    /// 0xffff (RFC 768).
    #[inline]
    #[must_use]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// The partial sum after the replacements, for a checksum field that holds the bare sum of the pseudo-header
    /// because a device will finish it. Only words of the pseudo-header (addresses, not L4 ports) belong in such a
    /// delta.
    #[inline]
    #[must_use]
    pub const fn apply_partial(self, sum: u16) -> u16 {
        add(sum, self.0)
    }
}

/// The ones' complement sum of two words: a carry comes back in at the bottom, and cannot carry again.
#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// RFC 1071 to the letter: one word at a time, carry folded at each step.
    pub(crate) fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    const EDGES: [u16; 12] =
        [0, 1, 2, 0x00ff, 0x0100, 0x7fff, 0x8000, 0x8001, 0xff00, 0xfffd, 0xfffe, 0xffff];

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&bytes), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // The one that equation 2 of RFC 1141 gets wrong.
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn all_ones_of_any_length() {
        let bytes = std::vec![0xff; 65_600];
        for len in (0..200).chain([65_535, 65_536, 65_599, 65_600]) {
            assert_eq!(checksum(&bytes[..len]), naive(&bytes[..len]), "{len}");
        }
    }

    #[test]
    fn update_equals_recomputation_for_every_word_and_every_edge() {
        for neighbour in EDGES.into_iter().filter(|&n| n != 0) {
            for edge in EDGES {
                for word in 0..=0xffff_u16 {
                    for (old, new) in [(word, edge), (edge, word)] {
                        let before = [neighbour.to_be_bytes(), old.to_be_bytes()].concat();
                        let after = [neighbour.to_be_bytes(), new.to_be_bytes()].concat();
                        assert_eq!(
                            update16(naive(&before), old, new),
                            naive(&after),
                            "{neighbour:04x} {old:04x} {new:04x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn update_undone_gives_the_same_validity_for_every_checksum() {
        // Right or wrong, a checksum comes back as it was (but for the two zeros).
        for checksum in 0..=0xffff_u16 {
            for (old, new) in [(0, 0xffff), (0x1234, 0xedcb), (0xffff, 0), (7, 7)] {
                let there = update16(checksum, old, new);
                let back = update16(there, new, old);
                assert_eq!(back % 0xffff, checksum % 0xffff);
            }
        }
    }

    #[test]
    fn udp_without_checksum_stays_without_and_zero_is_sent_as_ones() {
        let delta = Delta::NONE.replace16(0x1000, 0x2000);
        assert_eq!(delta.apply_udp(0), 0);
        for checksum in 1..=0xffff_u16 {
            let updated = delta.apply_udp(checksum);
            assert_ne!(updated, 0);
            assert_eq!(updated % 0xffff, delta.apply(checksum) % 0xffff);
        }
        assert_eq!(Delta::NONE.replace16(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    #[test]
    fn an_empty_delta_changes_no_bit() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let delta = Delta::NONE.replace16(5, 5).replace32(9, 9).replace_address(address, address);
        assert_eq!(delta, Delta::NONE);
        for checksum in 0..=0xffff {
            assert_eq!(delta.apply(checksum), checksum);
            assert_eq!(delta.apply_udp(checksum), checksum);
            assert_eq!(delta.apply_partial(checksum), checksum);
        }
    }

    fn any_address(v6: bool) -> BoxedStrategy<IpAddr> {
        // Octets are mostly edges, so that sums of 0 and 0xffff come up.
        let octet = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
        if v6 {
            proptest::array::uniform16(octet).prop_map(IpAddr::from).boxed()
        } else {
            proptest::array::uniform4(octet).prop_map(IpAddr::from).boxed()
        }
    }

    /// Two pairs of addresses of one family, old and new.
    fn addresses() -> impl Strategy<Value = [IpAddr; 4]> {
        any::<bool>().prop_flat_map(|v6| [any_address(v6), any_address(v6), any_address(v6), any_address(v6)])
    }

    /// The pseudo-header's octets as the RFCs draw them.
    fn drawn(source: IpAddr, destination: IpAddr, protocol: u8, length: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend([0, protocol]);
                bytes.extend(length.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(u32::from(length).to_be_bytes());
                bytes.extend([0, 0, 0, protocol]);
            }
            _ => unreachable!(),
        }
        bytes
    }

    proptest! {
        #[test]
        fn sum_equals_the_naive_one(bytes in proptest::collection::vec(any::<u8>(), 0..300), start in 0usize..8) {
            let bytes = &bytes[start.min(bytes.len())..];
            prop_assert_eq!(checksum(bytes), naive(bytes));
        }

        #[test]
        fn pieces_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
            let (head, tail) = bytes.split_at((cut * 2).min(bytes.len()));
            prop_assert_eq!(!fold(sum(head) + sum(tail)), naive(&bytes));
        }

        #[test]
        fn pseudo_header_is_the_drawn_one(a in addresses(), protocol: u8, length: u16) {
            let [source, destination, ..] = a;
            prop_assert_eq!(
                !fold(pseudo_header(source, destination, protocol, u32::from(length))),
                naive(&drawn(source, destination, protocol, length))
            );
        }

        #[test]
        fn a_valid_packet_sums_to_ones(a in addresses(), payload in proptest::collection::vec(any::<u8>(), 2..99)) {
            let [source, destination, ..] = a;
            let length = u16::try_from(payload.len()).unwrap();
            let mut packet = drawn(source, destination, 6, length);
            let field = packet.len();
            packet.extend(&payload);
            packet[field..field + 2].fill(0);
            let value = checksum(&packet);
            packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
            let total = pseudo_header(source, destination, 6, u32::from(length)) + sum(&packet[field..]);
            prop_assert!(is_valid(total));
            packet[field + 1] ^= 0x40;
            let total = pseudo_header(source, destination, 6, u32::from(length)) + sum(&packet[field..]);
            prop_assert!(!is_valid(total));
        }

        #[test]
        fn a_delta_equals_recomputation(
            a in addresses(), old_ports: (u16, u16), new_ports: (u16, u16),
            payload in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let [source, destination, new_source, new_destination] = a;
            let length = u16::try_from(4 + payload.len()).unwrap();
            let packet = |source, destination, ports: (u16, u16)| {
                let mut bytes = drawn(source, destination, 17, length);
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend(&payload);
                naive(&bytes)
            };
            let before = packet(source, destination, old_ports);
            let after = packet(new_source, new_destination, new_ports);
            let addresses = Delta::NONE
                .replace_address(source, new_source)
                .replace_address(destination, new_destination);
            let both = |p: (u16, u16)| u32::from(p.0) << 16 | u32::from(p.1);
            let delta = addresses.replace32(both(old_ports), both(new_ports));
            prop_assert_eq!(delta.apply(before), after);
            prop_assert_eq!(
                addresses.and(Delta::NONE.replace32(both(old_ports), both(new_ports))).apply(before),
                after
            );
            // A partial checksum holds the pseudo-header's sum alone.
            let partial = fold(pseudo_header(source, destination, 17, u32::from(length)));
            prop_assert_eq!(
                addresses.apply_partial(partial),
                fold(pseudo_header(new_source, new_destination, 17, u32::from(length)))
            );
        }
    }
}
