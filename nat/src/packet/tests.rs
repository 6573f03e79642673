extern crate std;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder, PacketBuilderStep};
use proptest::prelude::*;

use super::*;

const V4: [[u8; 4]; 2] = [[10, 0, 0, 2], [192, 0, 2, 9]];
const V6: [[u8; 16]; 2] = [
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
];

fn start(v6: bool) -> PacketBuilderStep<IpHeaders> {
    if v6 { PacketBuilder::ipv6(V6[0], V6[1], 64) } else { PacketBuilder::ipv4(V4[0], V4[1], 64) }
}

fn udp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    start(v6).udp(4000, 53).write(&mut bytes, payload).unwrap();
    bytes
}

fn tcp(v6: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    start(v6).tcp(4000, 80, 7, 1000).write(&mut bytes, payload).unwrap();
    bytes
}

fn echo(v6: bool, answers: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = IcmpEchoHeader { id: 77, seq: 1 };
    if v6 {
        let kind = if answers { Icmpv6Type::EchoReply(header) } else { Icmpv6Type::EchoRequest(header) };
        PacketBuilder::ipv6(V6[0], V6[1], 64).icmpv6(kind).write(&mut bytes, payload).unwrap();
    } else {
        let kind = if answers { Icmpv4Type::EchoReply(header) } else { Icmpv4Type::EchoRequest(header) };
        PacketBuilder::ipv4(V4[0], V4[1], 64).icmpv4(kind).write(&mut bytes, payload).unwrap();
    }
    bytes
}

/// An error of type "unreachable" about the first octets of a packet.
fn error(v6: bool, quote: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if v6 {
        let kind = Icmpv6Type::Unknown { type_u8: 1, code_u8: 4, bytes5to8: [0; 4] };
        PacketBuilder::ipv6(V6[1], V6[0], 64).icmpv6(kind).write(&mut bytes, quote).unwrap();
    } else {
        let kind = Icmpv4Type::Unknown { type_u8: 3, code_u8: 3, bytes5to8: [0; 4] };
        PacketBuilder::ipv4(V4[1], V4[0], 64).icmpv4(kind).write(&mut bytes, quote).unwrap();
    }
    bytes
}

fn ports(packet: &Packet, v6: bool) -> Option<(u16, u16)> {
    if v6 {
        packet.tuple::<Ipv6Addr>(0).map(|tuple| (tuple.source.port, tuple.destination.port))
    } else {
        packet.tuple::<Ipv4Addr>(0).map(|tuple| (tuple.source.port, tuple.destination.port))
    }
}

#[test]
fn ports_and_identifiers_make_the_tuple() {
    for v6 in [false, true] {
        for (bytes, wanted) in [
            (udp(v6, b"x"), (4000, 53)),
            (tcp(v6, b"x"), (4000, 80)),
            (echo(v6, false, b"x"), (77, if v6 { 128 } else { 8 })),
            (echo(v6, true, b"x"), (if v6 { 128 } else { 8 }, 77)),
        ] {
            let packet = parse(&bytes).unwrap();
            assert_eq!(ports(&packet, v6), Some(wanted));
            assert!(packet.has_sound_checksum(&bytes));
            assert_eq!(packet.layout.end, bytes.len());
        }
    }
}

#[test]
fn every_octet_of_the_upper_layer_is_under_its_checksum() {
    for v6 in [false, true] {
        for bytes in [udp(v6, b"some payload"), tcp(v6, b"some payload"), echo(v6, false, b"some payload")] {
            let packet = parse(&bytes).unwrap();
            for at in packet.layout.upper..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x11;
                // What no longer parses is refused as well.
                let judged = parse(&wrong).map(|packet| packet.has_sound_checksum(&wrong));
                assert_ne!(judged, Ok(true), "octet {at}");
            }
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_is_sound() {
    for v6 in [false, true] {
        let mut bytes = udp(v6, b"x");
        let packet = parse(&bytes).unwrap();
        bytes[packet.layout.upper + 6..][..2].fill(0);
        assert!(packet.has_sound_checksum(&bytes));
    }
}

#[test]
fn an_error_is_about_the_packet_it_quotes() {
    for v6 in [false, true] {
        let original = tcp(v6, &[7; 600]);
        let headers = if v6 { 40 } else { 20 };
        for quote in [8, 28, 548] {
            let bytes = error(v6, &original[..headers + quote]);
            let packet = parse(&bytes).unwrap();
            assert!(packet.has_sound_checksum(&bytes));
            let Content::Error(error) = packet.content else { panic!("{:?}", packet.content) };
            assert_eq!(error.ports, (4000, 80));
            assert_eq!(error.quoted.source, packet.layout.destination);
            assert_eq!(error.quoted.end - error.quoted.upper, quote);
        }
        for short in [0, 1, headers - 1, headers, headers + 7] {
            assert_eq!(parse(&error(v6, &original[..short])), Err(Malformed::Quote), "{short}");
        }
    }
}

#[test]
fn options_of_a_quoted_packet_are_skipped_and_extensions_of_the_message_are_no_part_of_it() {
    let mut original = udp(false, &[]);
    // Two words of options: no operation.
    original[0] = 0x47;
    original.splice(20..20, [1; 8]);
    original[3] += 8;
    let mut quote = original.clone();
    quote.extend([0xee; 100]);
    let packet = parse(&error(false, &quote)).unwrap();
    let Content::Error(error) = packet.content else { panic!("{:?}", packet.content) };
    assert_eq!(error.ports, (4000, 53));
    assert_eq!(error.quoted.end - error.quoted.header, original.len());
}

#[test]
fn an_error_about_an_error_is_nobodys() {
    for v6 in [false, true] {
        let inner = error(v6, &udp(v6, b"x"));
        assert_eq!(parse(&error(v6, &inner)), Err(Malformed::Quote));
    }
}

#[test]
fn extension_headers_are_skipped_and_an_endless_chain_is_refused() {
    let plain = udp(true, b"x");
    let with = |count: usize| {
        let mut bytes = plain.clone();
        for _ in 0..count {
            let next = bytes[6];
            bytes.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
            bytes[6] = 60;
        }
        let length = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    for count in 0..=8 {
        let bytes = with(count);
        let packet = parse(&bytes).unwrap();
        assert_eq!(ports(&packet, true), Some((4000, 53)), "{count}");
        assert!(packet.has_sound_checksum(&bytes));
    }
    assert_eq!(parse(&with(9)), Err(Malformed::Extensions));
}

#[test]
fn only_a_first_fragment_has_ports() {
    let mut first = udp(false, &[1; 24]);
    first[6] = 0x20;
    let mut later = first.clone();
    later[7] = 3;
    for bytes in [&mut first, &mut later] {
        bytes[10..12].fill(0);
        let sum = checksum::checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    assert_eq!(ports(&parse(&first).unwrap(), false), Some((4000, 53)));
    let packet = parse(&later).unwrap();
    assert_eq!((packet.content, ports(&packet, false)), (Content::Rest, None));
    assert_eq!(packet.layout.fragment.unwrap().offset, 24);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0..3u8) {
        if let Some(first) = bytes.first_mut() {
            *first = match version { 0 => 0x45, 1 => 0x60, _ => *first };
        }
        if let Ok(packet) = parse(&bytes) {
            let Layout { header, upper, end, .. } = packet.layout;
            prop_assert!(header < upper && upper <= end && end <= bytes.len());
            let _ = packet.has_sound_checksum(&bytes);
            if let Content::Error(error) = packet.content {
                let Layout { header, upper: quoted, end: last, .. } = error.quoted;
                prop_assert!(upper < header && header < quoted && quoted + 8 <= last && last <= end);
            }
        }
    }

    /// One octet of a good packet changed, so that the deeper parts are reached.
    #[test]
    fn a_damaged_packet_is_read_or_refused(v6: bool, at in 0..200usize, octet: u8, cut in 0..200usize) {
        for good in [udp(v6, &[3; 40]), tcp(v6, &[3; 40]), echo(v6, true, &[3; 40]), error(v6, &tcp(v6, &[3; 40]))] {
            let mut bytes = good.clone();
            if let Some(place) = bytes.get_mut(at) {
                *place = octet;
            }
            bytes.truncate(good.len().saturating_sub(cut));
            if let Ok(packet) = parse(&bytes) {
                let _ = packet.has_sound_checksum(&bytes);
            }
        }
    }
}
