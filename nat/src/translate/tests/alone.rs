//! What stands alone: the MSS option, identifications, prefixes.

use etherparse::TcpOptionElement;
use std::collections::HashSet;

use super::identification::{Identifications, is_atomic};
use super::prefix::{Exchange, Translator, Untranslatable, Unusable};
use super::*;

fn syn(ends: Ends, options: &[u8], answers: bool, syn: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tcp = ip(ends).tcp(ends.source.1, ends.destination.1, 1, 2).options_raw(options).unwrap();
    if syn {
        tcp = tcp.syn();
    }
    if answers {
        tcp = tcp.ack(5);
    }
    tcp.write(&mut bytes, &[]).unwrap();
    bytes
}

fn mss_of(bytes: &[u8], v4: bool) -> Vec<u16> {
    let tcp = etherparse::TcpHeaderSlice::from_slice(&bytes[upper(v4)..]).unwrap();
    tcp.options_iterator()
        .filter_map(Result::ok)
        .filter_map(
            |option| {
                if let TcpOptionElement::MaximumSegmentSize(size) = option { Some(size) } else { None }
            },
        )
        .collect()
}

fn clamp(bytes: &mut [u8], largest: u16, state: ChecksumState) -> bool {
    let packet = parse(bytes).unwrap();
    mss::clamp(bytes, &packet, largest, state)
}

proptest! {
    #[test]
    fn nat_48_the_mss_is_lowered_and_never_raised(old: u16, largest: u16, padding in 0..9usize, answers: bool, which in 0..2usize) {
        let [ends, _] = examples()[which];
        let v4 = ends.source.0.is_ipv4();
        let options = |size: u16| {
            let mut options = std::vec![1u8; padding];
            options.extend([4, 2, 2, 4]);
            options.extend(size.to_be_bytes());
            options.extend([3, 3, 7]);
            options
        };
        let mut bytes = syn(ends, &options(old), answers, true);
        let lowered = clamp(&mut bytes, largest, ChecksumState::Complete);
        prop_assert_eq!(lowered, old > largest);
        prop_assert_eq!(mss_of(&bytes, v4), [old.min(largest)]);
        prop_assert_eq!(bytes, syn(ends, &options(old.min(largest)), answers, true));
        // A partial checksum covers no options.
        let mut bytes = syn(ends, &options(old), answers, true);
        let before = bytes.clone();
        clamp(&mut bytes, largest, ChecksumState::Partial);
        prop_assert_eq!(&bytes[..upper(v4) + 20], &before[..upper(v4) + 20]);
        prop_assert_eq!(mss_of(&bytes, v4), [old.min(largest)]);
        // Only a handshake announces one.
        let original = syn(ends, &options(old), answers, false);
        let mut bytes = original.clone();
        prop_assert!(!clamp(&mut bytes, largest, ChecksumState::Complete));
        prop_assert_eq!(bytes, original);
    }

    #[test]
    fn nat_48_options_of_any_octets_are_walked_to_their_end(options in proptest::collection::vec(0..6u8, 0..40)) {
        let [[ends, _], _] = examples();
        let mut bytes = syn(ends, &options, false, true);
        let packet = parse(&bytes).unwrap();
        mss::clamp(&mut bytes, &packet, 3, ChecksumState::Complete);
        prop_assert!(packet.has_sound_checksum(&bytes));
        prop_assert!(mss_of(&bytes, true).iter().all(|&size| size <= 3));
    }

    #[test]
    fn npt_is_neutral_to_checksums_and_can_be_undone(
        internal: u64, external: u64, lengths in (0..=64u8, 0..=64u8), suffix: u128, ones in 0..16u8,
    ) {
        let cut = |bits: u64, length: u8| bits & !u64::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let prefix = |bits: u64, length: u8| (Ipv6Addr::from(u128::from(cut(bits, length)) << 64), length);
        let (internal, external) = (prefix(internal, lengths.0), prefix(external, lengths.1));
        let translator = Translator::new(internal, external).unwrap();
        let length = lengths.0.max(lengths.1);
        let host = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        // Words of ones are rare by chance.
        let ones = (0..4).filter(|bit| ones >> bit & 1 != 0).fold(0, |all, word| all | 0xffff_u128 << (word * 16));
        let inside = Ipv6Addr::from(u128::from(internal.0) | (suffix | ones) & host);
        let words = |address: Ipv6Addr| if length <= 48 { address.segments()[3..4].to_vec() } else { address.segments()[4..].to_vec() };
        match translator.outbound(inside) {
            Ok(outside) => {
                prop_assert_eq!(u128::from(outside) & !host, u128::from(external.0));
                prop_assert_eq!(naive(&inside.octets()) % 0xffff, naive(&outside.octets()) % 0xffff);
                let changed = words(inside).into_iter().zip(words(outside)).find(|(old, _)| *old != 0xffff);
                prop_assert!(changed.is_some_and(|(_, new)| new != 0xffff));
                prop_assert_eq!(translator.inbound(outside), Ok(inside));
            }
            Err(reason) => {
                prop_assert_eq!(reason, Untranslatable::AllOnes);
                prop_assert!(words(inside).iter().all(|&word| word == 0xffff));
            }
        }
    }

    #[test]
    fn prefixes_of_ipv4_are_exchanged(internal: u32, external: u32, length in 0..=32u8, suffix: u32) {
        let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let (internal, external) = (internal & !host, external & !host);
        let exchange = Exchange::new((internal.into(), length), (external.into(), length)).unwrap();
        let outside = exchange.outbound(Ipv4Addr::from(internal | suffix & host)).unwrap();
        prop_assert_eq!(outside, Ipv4Addr::from(external | suffix & host));
        prop_assert_eq!(exchange.inbound(outside), Some(Ipv4Addr::from(internal | suffix & host)));
        if length > 0 {
            prop_assert_eq!(exchange.outbound(Ipv4Addr::from(internal ^ 1 << 31)), None);
        }
    }
}

#[test]
fn nat_48_the_mss_of_a_path() {
    assert_eq!((mss::of_mtu(1450, false), mss::of_mtu(1450, true), mss::of_mtu(10, true)), (1410, 1390, 0));
}

#[test]
fn npt_example_of_rfc_6296() {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let translator = Translator::new((address("fd01:203:405::"), 48), (address("2001:db8:1::"), 48)).unwrap();
    let (inside, outside) = (address("fd01:203:405:1::1234"), address("2001:db8:1:d550::1234"));
    assert_eq!(translator.outbound(inside), Ok(outside));
    assert_eq!(translator.inbound(outside), Ok(inside));
    assert_eq!(translator.outbound(outside), Err(Untranslatable::Outside));
    assert_eq!(translator.outbound(address("fd01:203:405:ffff::1")), Err(Untranslatable::AllOnes));
}

#[test]
fn npt_maps_every_subnet_to_one_of_its_own() {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let translator = Translator::new((address("fd01:203:405::"), 48), (address("2001:db8:1::"), 48)).unwrap();
    let inside = |subnet: u128| Ipv6Addr::from(u128::from(address("fd01:203:405::")) | subnet << 64);
    let subnets: HashSet<u16> = (0..0xffff)
        .map(|subnet| {
            let outside = translator.outbound(inside(subnet)).unwrap();
            assert_eq!(translator.inbound(outside), Ok(inside(subnet)));
            outside.segments()[3]
        })
        .collect();
    assert!(!subnets.contains(&0xffff));
    assert_eq!(subnets.len(), 0xffff);
}

#[test]
fn unusable_prefixes_are_named() {
    let v6 = |length| (Ipv6Addr::from(0xfd << 120), length);
    assert_eq!(Translator::new(v6(65), v6(48)), Err(Unusable::Length));
    assert_eq!(Translator::new(v6(4), v6(48)), Err(Unusable::HostBits));
    let v4 = |length| (Ipv4Addr::new(10, 0, 0, 0), length);
    assert_eq!(Exchange::new(v4(33), v4(33)), Err(Unusable::Length));
    assert_eq!(Exchange::new(v4(8), v4(4)), Err(Unusable::HostBits));
    assert_eq!(Exchange::new(v4(8), v4(9)), Err(Unusable::Lengths));
}

#[test]
fn nat_41_datagrams_with_one_source_destination_and_protocol_differ() {
    let mut identifications = Identifications::new(64, 1);
    let [a, b, c] = [1, 2, 3].map(|last| Ipv4Addr::new(192, 0, 2, last));
    let mut seen: HashSet<_> = HashSet::new();
    for at in 0..20_000u32 {
        for (source, destination, protocol) in [(a, b, 17), (a, c, 17), (a, b, 1)] {
            let identification = identifications.next(source, destination, protocol, 1);
            assert!(seen.insert((source, destination, protocol, identification)), "{at}");
        }
    }
    // A super-frame takes as many as the datagrams it becomes.
    let first = identifications.next(a, b, 17, 40);
    assert_eq!(identifications.next(a, b, 17, 1), first.wrapping_add(40));
    // Another seed begins elsewhere.
    let start = |seed| Identifications::new(1, seed).next(a, b, 17, 1);
    assert!((1..20).any(|seed| start(seed) != start(0)));
}

#[test]
fn nat_41_all_but_atomic_datagrams_get_another_identification() {
    let [[ends, _], _] = examples();
    let whole = build(Kind::Udp, ends, &[1; 40]);
    // etherparse sets DF.
    assert!(is_atomic(&whole, &parse(&whole).unwrap()));
    let mut fragments = packets::cut(&whole, &[8, 24]);
    let mut divisible = whole;
    divisible[6] = 0;
    divisible[10..12].fill(0);
    let sum = naive(&divisible[..20]);
    divisible[10..12].copy_from_slice(&sum.to_be_bytes());
    fragments.push(divisible);
    for mut bytes in fragments {
        let packet = parse(&bytes).unwrap();
        assert!(!is_atomic(&bytes, &packet));
        let mut wanted = bytes.clone();
        wanted[4..6].copy_from_slice(&0xbeef_u16.to_be_bytes());
        wanted[10..12].fill(0);
        let sum = naive(&wanted[..20]);
        wanted[10..12].copy_from_slice(&sum.to_be_bytes());
        identification::write(&mut bytes, &packet, 0xbeef);
        assert_eq!(bytes, wanted);
    }
    for [ends, _] in examples() {
        let mut bytes = build(Kind::Udp, ends, &[1; 40]);
        let packet = parse(&bytes).unwrap();
        identification::write(&mut bytes, &packet, 0xbeef);
        assert_eq!(bytes, build(Kind::Udp, ends, &[1; 40]));
    }
}
