//! Packets as octets, and their checksums summed up in the plainest way.

use nat::packet::Layout;
use nat::tuple::protocol;

/// The words' sum modulo 0xffff (RFC 1071); of data and their checksum together it is 0 if that is right.
pub(super) fn residue(octets: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
    octets.chunks(2).map(word).fold(0, |sum, word| (sum + word) % 0xffff)
}

/// What to store in a field that held 0 while the sum was taken.
pub(super) fn complement(residue: u32) -> [u8; 2] {
    u16::try_from(0xffff - residue).unwrap_or(0xffff).to_be_bytes()
}

/// As RFC 9260 appendix A draws it, bit by bit.
pub(super) fn crc32c(octets: impl Iterator<Item = u8>) -> u32 {
    let shifted = |register: u32| if register & 1 == 0 { register >> 1 } else { register >> 1 ^ 0x82f6_3b78 };
    !octets
        .fold(!0, |register, octet| (0..8).fold(register ^ u32::from(octet), |register, _| shifted(register)))
}

/// Where the upper layer's checksum stands in its header, if it is one of 16 bits.
pub(super) fn checksum_at(layout: &Layout) -> Option<usize> {
    match (layout.protocol, layout.source.is_ipv4()) {
        (protocol::TCP, _) => Some(16),
        (protocol::UDP, _) => Some(6),
        (protocol::ICMP, true) | (protocol::ICMPV6, false) => Some(2),
        _ => None,
    }
}

/// The addresses that the upper layer's checksum covers beside it: with a routing header on, not the next destination, but
/// the last, which stands in that header (RFC 8200 section 8.1).
pub(super) fn pseudo(bytes: &[u8], layout: &Layout) -> Vec<u8> {
    let header = &bytes[layout.header..];
    let mut pseudo = match (layout.source.is_ipv4(), layout.protocol) {
        (true, protocol::ICMP) => return Vec::new(),
        (true, _) => header[12..20].to_vec(),
        (false, _) if is_routed(bytes, layout) => header[8..24].to_vec(),
        (false, _) => header[8..40].to_vec(),
    };
    let length = u16::try_from(layout.end - layout.upper).unwrap_or(0);
    pseudo.extend([0, layout.protocol]);
    pseudo.extend(length.to_be_bytes());
    pseudo
}

fn is_routed(bytes: &[u8], layout: &Layout) -> bool {
    let (mut at, mut next) = (layout.header + 40, bytes[layout.header + 6]);
    while at < layout.upper {
        if next == 43 && bytes[at + 3] != 0 {
            return true;
        }
        let length = usize::from(bytes[at + 1]);
        let extension = std::mem::replace(&mut next, bytes[at]);
        at += match extension {
            44 => 8,
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
    }
    false
}

/// Makes the checksums right: that of the IPv4 header, and if the packet can be read then, that of its upper layer.
pub(super) fn mend(bytes: &mut [u8], upper: bool) {
    let header = usize::from(bytes.first().map_or(0, |first| first & 15)) * 4;
    if bytes.first().is_some_and(|first| first >> 4 == 4) && (20..=bytes.len()).contains(&header) {
        store(bytes, 0..header, 10, 0);
    }
    let Ok(packet) = nat::packet::parse(bytes) else { return };
    let layout = packet.layout;
    if let Some(at) = checksum_at(&layout).filter(|at| upper && layout.upper + at + 2 <= layout.end) {
        let pseudo = residue(&pseudo(bytes, &layout));
        store(bytes, layout.upper..layout.end, at, pseudo);
    }
}

/// Stores the checksum of a part of the octets at a place in it.
pub(super) fn store(bytes: &mut [u8], part: core::ops::Range<usize>, at: usize, pseudo: u32) {
    let part = &mut bytes[part];
    part[at..at + 2].fill(0);
    let sum = complement((residue(part) + pseudo) % 0xffff);
    part[at..at + 2].copy_from_slice(&sum);
}
