//! Whole packets and fragments.

use core::time::Duration;

use super::*;
use crate::fragment::{Limits, Part, Table, Taken};

proptest! {
    #[test]
    fn nat_42_incremental_equals_recomputation(
        (from, to) in before_and_after(), payload in any_payload(), which in 0..KINDS.len(), padding in 0..9usize,
    ) {
        let kind = KINDS[which];
        let (mut bytes, mut wanted) = (build(kind, from, &payload), build(kind, to, &payload));
        for bytes in [&mut bytes, &mut wanted] {
            bytes.extend([0xd5; 9][..padding].iter());
        }
        apply(from, to, kind, &mut bytes, ChecksumState::Complete).unwrap();
        prop_assert_eq!(bytes, wanted);
    }

    #[test]
    fn there_and_back_is_identity(
        (from, to) in before_and_after(), payload in any_payload(), which in 0..KINDS.len(),
    ) {
        let kind = KINDS[which];
        let original = build(kind, from, &payload);
        let mut bytes = original.clone();
        apply(from, to, kind, &mut bytes, ChecksumState::Complete).unwrap();
        apply(to, from, kind, &mut bytes, ChecksumState::Complete).unwrap();
        prop_assert_eq!(bytes, original);
    }

    /// Ones' complement numbers are those modulo 0xffff: what was missing before is missing after.
    #[test]
    fn nat_43_a_bad_checksum_stays_exactly_as_bad(
        (from, to) in before_and_after(), payload in any_payload(), bad in 1..0xffffu16, which in 0..5usize,
    ) {
        let kind = KINDS[which];
        let v4 = from.source.0.is_ipv4();
        let at = upper(v4) + match kind { Kind::Tcp => 16, Kind::Udp | Kind::Bare => 6, Kind::Question | Kind::Answer | Kind::Sctp | Kind::Other => 2 };
        let field = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let (mut bytes, wanted) = (build(kind, from, &payload), build(kind, to, &payload));
        let good = field(&bytes);
        bytes[at..at + 2].copy_from_slice(&bad.to_be_bytes());
        apply(from, to, kind, &mut bytes, ChecksumState::Complete).unwrap();
        if kind != Kind::Bare {
            prop_assert_eq!((field(&bytes) + good) % 0xffff, (u32::from(bad) + field(&wanted)) % 0xffff);
        }
        bytes[at..at + 2].copy_from_slice(&wanted[at..at + 2]);
        prop_assert_eq!(bytes, wanted);
    }

    #[test]
    fn nat_43_a_bad_crc_stays_exactly_as_bad((from, to) in before_and_after(), payload in any_payload(), flips: u32) {
        let at = upper(from.source.0.is_ipv4()) + 8;
        let (mut bytes, mut wanted) = (build(Kind::Sctp, from, &payload), build(Kind::Sctp, to, &payload));
        for bytes in [&mut bytes, &mut wanted] {
            for (octet, flip) in bytes[at..at + 4].iter_mut().zip(flips.to_le_bytes()) {
                *octet ^= flip;
            }
        }
        prop_assume!(bytes[at..at + 4] != [0; 4]);
        apply(from, to, Kind::Sctp, &mut bytes, ChecksumState::Complete).unwrap();
        prop_assert_eq!(bytes, wanted);
    }

    #[test]
    fn nat_44_a_partial_checksum_follows_the_addresses_alone(
        (from, to) in before_and_after(), payload in any_payload(), udp: bool,
    ) {
        let kind = if udp { Kind::Udp } else { Kind::Tcp };
        let v4 = from.source.0.is_ipv4();
        let partial = |ends: Ends| {
            let mut bytes = build(kind, ends, &payload);
            let (upper, at) = (upper(v4), upper(v4) + if udp { 6 } else { 16 });
            let mut pseudo = bytes[if v4 { 12..20 } else { 8..40 }].to_vec();
            pseudo.extend([0, if udp { 17 } else { 6 }]);
            pseudo.extend(u16::try_from(bytes.len() - upper).unwrap().to_be_bytes());
            let sum = !naive(&pseudo);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            bytes
        };
        let mut bytes = partial(from);
        apply(from, to, kind, &mut bytes, ChecksumState::Partial).unwrap();
        prop_assert_eq!(&bytes, &partial(to));
        // The device adds up what the field and all behind it hold.
        let upper = upper(v4);
        let at = upper + if udp { 6 } else { 16 };
        let sum = match naive(&bytes[upper..]) {
            0 if udp => 0xffff,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(bytes, build(kind, to, &payload));
    }

    /// In front of and behind the packet nothing changes, and nothing panics, whatever the octets are.
    #[test]
    fn whatever_parses_is_translated_within_its_octets(
        mut bytes in proptest::collection::vec(any::<u8>(), 20..160), version in 0..2u8, protocol in 0..8usize,
        ends in any_ends(true), ends6 in any_ends(false), partial: bool,
    ) {
        const PROTOCOLS: [u8; 8] = [1, 6, 17, 58, 132, 43, 44, 60];
        bytes[0] = if version == 0 { 0x45 + (bytes[0] & 1) } else { 0x60 };
        bytes[if version == 0 { 9 } else { 6 }] = PROTOCOLS[protocol];
        let length = u8::try_from(bytes.len()).unwrap();
        if version == 0 {
            bytes[2..4].copy_from_slice(&[0, length - length / 8]);
            bytes[10..12].fill(0);
            let header = bytes.len().min(usize::from(bytes[0] & 15) * 4);
            let sum = naive(&bytes[..header]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            bytes[4..6].copy_from_slice(&[0, length.saturating_sub(40 + length / 8)]);
        }
        let Ok(packet) = parse(&bytes) else { return Ok(()) };
        let original = bytes.clone();
        let state = if partial { ChecksumState::Partial } else { ChecksumState::Complete };
        let v4 = Rewrite::<Ipv4Addr>::new(&ends.tuple(Kind::Tcp), &ends.swapped().tuple(Kind::Tcp));
        let v6 = Rewrite::<Ipv6Addr>::new(&ends6.tuple(Kind::Tcp), &ends6.swapped().tuple(Kind::Tcp));
        let results = [v4.apply(&mut bytes, &packet, state), v6.apply(&mut bytes, &packet, state)];
        prop_assert_eq!(results[usize::from(version == 0)], Err(Unfit::Layout));
        let _ = v4.apply_error(&mut bytes, &packet, Ipv4Addr::LOCALHOST);
        let _ = v6.apply_error(&mut bytes, &packet, Ipv6Addr::LOCALHOST);
        let _ = check_error(&bytes, &packet);
        let _ = mss::clamp(&mut bytes, &packet, 500, state);
        identification::write(&mut bytes, &packet, 7);
        prop_assert_eq!(&bytes[packet.layout.end..], &original[packet.layout.end..]);
        // A layout that does not fit its octets is no reason to panic either.
        for length in 0..bytes.len() {
            let bytes = &mut bytes[..length];
            let _ = v4.apply(bytes, &packet, state);
            let _ = v6.apply(bytes, &packet, state);
            let _ = v4.apply_error(bytes, &packet, Ipv4Addr::LOCALHOST);
            let _ = v6.apply_error(bytes, &packet, Ipv6Addr::LOCALHOST);
            let _ = mss::clamp(bytes, &packet, 400, state);
            identification::write(bytes, &packet, 7);
        }
    }
}

#[test]
fn nat_42_a_datagram_without_a_checksum_stays_without() {
    for [from, to] in examples() {
        let mut bytes = build(Kind::Bare, from, b"x");
        apply(from, to, Kind::Bare, &mut bytes, ChecksumState::Complete).unwrap();
        assert_eq!(bytes[upper(from.source.0.is_ipv4()) + 6..][..2], [0; 2]);
    }
}

#[test]
fn an_untouched_sctp_checksum_and_one_that_is_not_there_stay() {
    for [from, to] in examples() {
        let at = upper(from.source.0.is_ipv4()) + 8;
        let same_ports = Ends { source: (to.source.0, from.source.1), ..to };
        let mut bytes = build(Kind::Sctp, from, b"chunk");
        let before = bytes[at..at + 4].to_vec();
        apply(from, same_ports, Kind::Sctp, &mut bytes, ChecksumState::Complete).unwrap();
        assert_eq!(bytes[at..at + 4], before);
        bytes[at..at + 4].fill(0);
        apply(same_ports, to, Kind::Sctp, &mut bytes, ChecksumState::Complete).unwrap();
        assert_eq!(bytes[at..at + 4], [0; 4]);
    }
}

/// Puts a routing header of type 2 (RFC 6275 section 6.4) with one more destination to go in front of the upper layer.
pub(super) fn routed(mut bytes: Vec<u8>, by: IpAddr, last: Ipv6Addr, left: u8) -> Vec<u8> {
    let IpAddr::V6(by) = by else { unreachable!() };
    let mut header = std::vec![bytes[6], 2, 2, left, 0, 0, 0, 0];
    header.extend(last.octets());
    bytes.splice(40..40, header);
    bytes[6] = 43;
    bytes[5] += 24;
    bytes[24..40].copy_from_slice(&by.octets());
    bytes
}

#[test]
fn the_checksum_covers_the_last_destination_of_a_routing_header() {
    let [_, [from, to]] = examples();
    let last = (IpAddr::from([0x2001, 0xdb8, 5, 5, 5, 5, 5, 5]), 443);
    let IpAddr::V6(address) = last.0 else { unreachable!() };
    let to = Ends { destination: (IpAddr::from([0x2001, 0xdb8, 7, 7, 7, 7, 7, 7]), 443), ..to };
    for kind in [Kind::Tcp, Kind::Udp, Kind::Question] {
        let packet = |ends: Ends| {
            let straight = build(kind, Ends { destination: last, ..ends }, b"payload");
            routed(straight, ends.destination.0, address, 1)
        };
        let mut bytes = packet(from);
        assert!(parse(&bytes).unwrap().has_sound_checksum(&bytes));
        apply(from, to, kind, &mut bytes, ChecksumState::Complete).unwrap();
        assert_eq!(bytes, packet(to), "{kind:?}");
        // Where nothing is left to visit, the header's destination is the last one.
        let packet = |ends: Ends| routed(build(kind, ends, b"payload"), ends.destination.0, address, 0);
        let mut bytes = packet(from);
        assert!(parse(&bytes).unwrap().has_sound_checksum(&bytes));
        apply(from, to, kind, &mut bytes, ChecksumState::Complete).unwrap();
        assert_eq!(bytes, packet(to), "{kind:?}");
    }
}

/// Cuts an IPv4 packet at these places of its payload.
pub(super) fn cut(bytes: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut fragments = Vec::new();
    let mut start = 0;
    for &end in places.iter().chain([&(bytes.len() - 20)]) {
        let mut fragment = bytes[..20].to_vec();
        fragment.extend(&bytes[20 + start..20 + end]);
        let length = u16::try_from(fragment.len()).unwrap();
        let more = if end == bytes.len() - 20 { 0 } else { 0x2000 };
        fragment[2..4].copy_from_slice(&length.to_be_bytes());
        fragment[6..8].copy_from_slice(&(u16::try_from(start / 8).unwrap() | more).to_be_bytes());
        fragment[10..12].fill(0);
        let sum = naive(&fragment[..20]);
        fragment[10..12].copy_from_slice(&sum.to_be_bytes());
        fragments.push(fragment);
        start = end;
    }
    fragments
}

#[test]
fn nat_40_fragments_are_translated_one_by_one_however_small_the_first_is() {
    let [[from, to], _] = examples();
    for kind in [Kind::Tcp, Kind::Udp, Kind::Bare, Kind::Question, Kind::Other] {
        for places in [&[8, 16, 24][..], &[16, 24], &[16], &[24, 40], &[32]] {
            let mut fragments = cut(&build(kind, from, &[0xa7; 60]), places);
            for fragment in &mut fragments {
                apply(from, to, kind, fragment, ChecksumState::Complete).unwrap();
            }
            assert_eq!(fragments, cut(&build(kind, to, &[0xa7; 60]), places), "{kind:?} {places:?}");
        }
    }
    let mut first = cut(&build(Kind::Sctp, from, &[0xa7; 60]), &[40]).remove(0);
    let original = first.clone();
    let refused = apply(from, to, Kind::Sctp, &mut first, ChecksumState::Complete);
    assert_eq!((refused, first), (Err(Unfit::Fragment), original));
}

/// Through the whole of it: the first fragment decides, in whatever order they come.
#[test]
fn nat_40_and_41_fragments_in_every_order_leave_as_one_datagram() {
    let [[from, to], _] = examples();
    let rewrite = Rewrite::<Ipv4Addr>::new(&from.tuple(Kind::Tcp), &to.tuple(Kind::Tcp));
    let now = Duration::ZERO;
    for kind in [Kind::Tcp, Kind::Udp] {
        let fragments = cut(&build(kind, from, &[0x3c; 100]), &[16, 40, 80]);
        let wanted = build(kind, to, &[0x3c; 100]);
        for order in (0..4 * 4 * 4 * 4).map(|n| [n % 4, n / 4 % 4, n / 16 % 4, n / 64]) {
            if (0..4).any(|at| !order.contains(&at)) {
                continue;
            }
            let mut table = Table::new(Limits::new(Duration::from_secs(30)), 1);
            let mut leave = Vec::new();
            for bytes in order.map(|at| fragments[at].clone()) {
                let part = Part::<Ipv4Addr>::of(&bytes, &parse(&bytes).unwrap(), 0).unwrap();
                match table.take(&part, bytes, now, &mut |_, why| panic!("{why:?}")) {
                    Taken::First(first) => {
                        leave.push(first);
                        table.resolve(&part.key, (rewrite, 0xbeef), now, &mut |parked| leave.push(parked));
                    }
                    Taken::Later(value, later) => {
                        assert_eq!(value, (rewrite, 0xbeef));
                        leave.push(later);
                    }
                    Taken::Parked => {}
                    Taken::Refused(why, _) => panic!("{why:?}"),
                }
            }
            for bytes in &mut leave {
                let packet = parse(bytes).unwrap();
                rewrite.apply(bytes, &packet, ChecksumState::Complete).unwrap();
                identification::write(bytes, &packet, 0xbeef);
            }
            // Sorted by offset and put together.
            leave.sort_by_key(|bytes| u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff);
            assert!(leave.iter().all(|bytes| parse(bytes).is_ok() && bytes[4..6] == [0xbe, 0xef]));
            let payload: Vec<u8> = leave.iter().flat_map(|bytes| bytes[20..].to_vec()).collect();
            assert_eq!((&payload[..], &leave[0][12..20]), (&wanted[20..], &wanted[12..20]), "{order:?}");
            assert!(table.is_empty());
        }
    }
}
