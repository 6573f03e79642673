//! The parser against etherparse, against `smoltcp::wire`, and against a table of minimal bad frames.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, Ipv6RoutingExtensions, LinkExtSlice, NetSlice,
    PacketBuilder, SlicedPacket, TransportSlice,
};
use nat::checksum;
use proptest::prelude::*;
use smoltcp::wire;

use super::*;

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const V4_A: [u8; 4] = [10, 0, 0, 1];
const V4_B: [u8; 4] = [10, 0, 0, 2];

fn v6_a() -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa)
}

fn v6_b() -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb)
}

// ---------------------------------------------------------------------------------------------------------------------
// Frames by hand, for the table: each octet is written down, nothing is checked while building.

fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&MAC_B[..], &MAC_A, &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet with these options and this payload, changed by `tweak` before the header checksum is made.
fn v4(protocol: u8, options: &[u8], payload: &[u8], tweak: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut packet = vec![0x45 + u8::try_from(options.len() / 4).unwrap(), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
    packet.extend([V4_A, V4_B].concat());
    packet.extend(options);
    packet.extend(payload);
    tweak(&mut packet);
    let sum = checksum::checksum(&packet[..20 + options.len()]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    ethernet(ethertype::IPV4, &packet)
}

fn v6_packet(next: u8, hop_limit: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(ethertype::IPV6, &v6_packet(next, 255, v6_a(), v6_b(), payload))
}

/// An ICMPv6 message with its checksum.
fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let sum = checksum::pseudo_header_v6(source, destination, 58, length) + checksum::sum(&message);
    message[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    ethernet(ethertype::IPV6, &v6_packet(58, hop_limit, source, destination, &message))
}

fn fragment_header(next: u8, offset: u16, more: bool) -> [u8; 8] {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    [next, 0xff, high, low, 0, 0, 0, 9]
}

const TCP: [u8; 20] = [0, 80, 1, 187, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0];
const UDP: [u8; 8] = [0, 53, 0, 54, 0, 8, 0, 0];

/// All that parsing can say about a frame, in the order in which a switch asks.
fn judge(frame: &[u8]) -> Result<Network, DropReason> {
    let link = link(frame)?;
    let network = network(frame, &link)?;
    if let Network::Ip(ip) = network {
        neighbor_discovery(frame, &ip)?;
        if !verify_transport_checksum(frame, &ip) {
            return Err(DropReason::TransportChecksum);
        }
    }
    Ok(network)
}

fn ip(frame: &[u8]) -> Ip {
    let link = link(frame).unwrap();
    match network(frame, &link).unwrap() {
        Network::Ip(ip) => ip,
        other @ (Network::Arp(_) | Network::Other) => panic!("not IP: {other:?}"),
    }
}

fn none(_: &mut [u8]) {}

#[test]
fn every_reason_of_the_parser_has_its_minimal_frame() {
    use DropReason as R;
    let hop_by_hop = [17, 0, 1, 4, 0, 0, 0, 0];
    let table: Vec<(DropReason, Vec<u8>)> = vec![
        (R::FrameTooShort, vec![0; 13]),
        (R::VlanTruncated, ethernet(ethertype::VLAN, &[0, 1, 8])),
        (R::VlanReserved, ethernet(ethertype::VLAN, &[0xef, 0xff, 8, 0])),
        (R::ArpMalformed, ethernet(ethertype::ARP, &[0, 1, 8, 0, 6, 4, 0, 1])),
        (R::Ipv4Truncated, ethernet(ethertype::IPV4, &[0x45; 19])),
        (R::Ipv4Version, v4(253, &[], &[], |p| p[0] = 0x65)),
        (R::Ipv4HeaderLength, v4(253, &[], &[], |p| p[0] = 0x44)),
        (R::Ipv4TotalLength, v4(253, &[], &[], |p| p[3] += 1)),
        (R::Ipv4Checksum, {
            let mut frame = v4(253, &[], &[], none);
            frame[24] ^= 1;
            frame
        }),
        (R::FragmentMalformed, v4(253, &[], &[0; 7], |p| p[6] = 0x20)),
        (R::Ipv6Truncated, ethernet(ethertype::IPV6, &[0x60; 39])),
        (R::Ipv6Version, {
            let mut frame = v6(59, &[]);
            frame[14] = 0x40;
            frame
        }),
        (R::Ipv6PayloadLength, {
            let mut frame = v6(59, &[]);
            frame[19] = 1;
            frame
        }),
        (R::Ipv6ExtensionTruncated, v6(60, &[17, 1, 1, 4, 0, 0, 0, 0])),
        (R::Ipv6ExtensionChain, {
            let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSION_HEADERS + 1);
            chain[8 * MAX_EXTENSION_HEADERS] = 59;
            v6(60, &chain)
        }),
        (R::Ipv6ExtensionOrder, v6(60, &[&[0, 0, 1, 4, 0, 0, 0, 0], &hop_by_hop[..], &UDP].concat())),
        (R::Ipv6RoutingHeader, v6(43, &[&[17, 0, 0, 0, 0, 0, 0, 0], &UDP[..]].concat())),
        (R::Ipv6HeadersFragmented, v6(44, &[&fragment_header(6, 0, true), &TCP[..16]].concat())),
        (R::TcpTruncated, v4(6, &[], &TCP[..19], none)),
        (R::TcpHeaderLength, {
            let mut tcp = TCP;
            tcp[12] = 0x60;
            v4(6, &[], &tcp, none)
        }),
        (R::UdpTruncated, v4(17, &[], &UDP[..7], none)),
        (R::UdpLength, v4(17, &[], &[0, 1, 0, 2, 0, 9, 0, 0], none)),
        (R::IcmpTruncated, v4(1, &[], &[8, 0, 0, 0, 0, 0, 0], none)),
        (R::Icmpv6Truncated, v6(58, &[128, 0, 0, 0, 0, 0, 0])),
        (R::SctpTruncated, v6(132, &[0; 11])),
        (R::TransportChecksum, v4(6, &[], &TCP, none)),
        (R::NeighborDiscoveryInvalid, icmpv6(v6_a(), v6_b(), 254, &solicit(v6_b(), &[]))),
    ];
    for (reason, frame) in &table {
        assert_eq!(judge(frame), Err(*reason), "{frame:02x?}");
    }
    let mut expected: Vec<_> = DropReason::ALL
        .iter()
        .copied()
        // A bad option is reported beside the packet: the router answers it.
        .filter(|&r| (R::ArpMalformed..=R::NeighborDiscoveryInvalid).contains(&r) && r != R::Ipv4Options)
        .chain([R::FrameTooShort, R::VlanTruncated, R::VlanReserved])
        .collect();
    let mut produced: Vec<_> = table.iter().map(|&(reason, _)| reason).collect();
    expected.sort_unstable();
    produced.sort_unstable();
    assert_eq!(produced, expected);
}

#[test]
fn each_rule_has_two_sides() {
    use DropReason as R;
    let ihl = |value: u8| move |p: &mut [u8]| p[0] = value;
    let position = |value: u16| move |p: &mut [u8]| p[6..8].copy_from_slice(&value.to_be_bytes());
    let cases: Vec<(&str, Option<DropReason>, Vec<u8>)> = vec![
        ("an empty payload of no protocol", None, v4(253, &[], &[], none)),
        ("IHL beyond the frame", Some(R::Ipv4HeaderLength), v4(253, &[], &[0; 3], ihl(0x46))),
        ("total length under the header's", Some(R::Ipv4TotalLength), v4(253, &[1; 4], &[], |p| p[3] = 20)),
        ("Ethernet padding", None, [v4(17, &[], &UDP, none), vec![0; 18]].concat()),
        ("end of options hides what follows", None, v4(253, &[0, 9, 99, 0], &[], none)),
        ("an option without its length", None, v4(253, &[1, 1, 1, 7], &[], none)),
        ("an option beyond the header", None, v4(253, &[1, 7, 4, 0], &[], none)),
        ("a last fragment of odd length", None, v4(17, &[], &[0; 7], position(1))),
        ("a fragment up to octet 65,535", None, v4(17, &[], &[0; 3], position(0x1ffd))),
        ("ping of death", Some(R::FragmentMalformed), v4(17, &[], &[0; 4], position(0x1ffd))),
        (
            "a first fragment with less than TCP",
            Some(R::TcpTruncated),
            v4(6, &[], &TCP[..8], position(0x2000)),
        ),
        (
            "a first fragment with less than TCP's options",
            Some(R::TcpTruncated),
            v4(6, &[], &[&TCP[..12], &[0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1]].concat(), position(0x2000)),
        ),
        ("UDP length of the whole in a first fragment", None, {
            v4(17, &[], &[0, 1, 0, 2, 9, 9, 0, 0], position(0x2000))
        }),
        ("UDP shorter than the packet", None, v4(17, &[], &[&UDP[..], &[1, 2, 3]].concat(), none)),
        ("UDP length under its header", Some(R::UdpLength), v4(17, &[], &[0, 1, 0, 2, 0, 7, 0, 0], none)),
        ("UDP over IPv6 without a checksum", Some(R::TransportChecksum), v6(17, &UDP)),
        ("ICMPv6 over IPv4 is opaque", None, v4(58, &[], &[], none)),
        ("ICMP over IPv6 is opaque", None, v6(1, &[1])),
        ("no next header and nothing", None, v6(59, &[])),
        ("no next header and something", None, v6(59, &[1, 2, 3])),
        ("a jumbogram", Some(R::Ipv6PayloadLength), {
            let mut frame = v6(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]);
            frame[19] = 0;
            frame
        }),
        ("payload length 0 before a protocol", Some(R::Ipv6PayloadLength), v6(253, &[])),
        ("as many extension headers as allowed", None, {
            let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSION_HEADERS);
            let last = chain.len() - 8;
            chain[last] = 59;
            v6(60, &chain)
        }),
        ("router alert", None, v6(0, &[59, 0, 5, 2, 0, 0, 1, 0])),
        ("padding by single octets", None, v6(0, &[59, 0, 0, 0, 0, 0, 0, 0])),
        ("an unknown option to skip", None, v6(0, &[59, 0, 0x3e, 4, 0, 0, 0, 0])),
        ("an unknown option to drop", Some(R::Ipv6ExtensionOrder), v6(0, &[59, 0, 0x7e, 4, 0, 0, 0, 0])),
        ("one to drop and report", Some(R::Ipv6ExtensionOrder), v6(0, &[59, 0, 0xbe, 4, 0, 0, 0, 0])),
        (
            "one to drop and report to unicast",
            Some(R::Ipv6ExtensionOrder),
            v6(0, &[59, 0, 0xfe, 4, 0, 0, 0, 0]),
        ),
        ("an option beyond its header", Some(R::Ipv6ExtensionTruncated), v6(0, &[59, 0, 1, 5, 0, 0, 0, 0])),
        ("a destination option for others", None, v6(60, &[59, 0, 0xfe, 4, 0, 0, 0, 0])),
        (
            "type 0 routing with no segments left",
            Some(R::Ipv6RoutingHeader),
            v6(43, &[59, 0, 0, 0, 0, 0, 0, 0]),
        ),
        ("segment routing", None, v6(43, &[59, 0, 4, 0, 0, 0, 0, 0])),
        ("authentication of 12 octets", None, v6(51, &[59, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
        ("authentication of 8", Some(R::Ipv6ExtensionTruncated), v6(51, &[59, 0, 0, 0, 0, 0, 0, 1])),
        ("ESP ends the walk", None, v6(50, &[1])),
        ("an atomic fragment", None, v6(44, &fragment_header(59, 0, false))),
        ("two fragment headers", Some(R::Ipv6ExtensionChain), {
            v6(44, &[fragment_header(44, 0, false), fragment_header(59, 0, false)].concat())
        }),
        ("a middle fragment of odd length", Some(R::FragmentMalformed), {
            v6(44, &[&fragment_header(17, 8, true)[..], &[0; 7]].concat())
        }),
        (
            "a fragment up to octet 65,535",
            None,
            v6(44, &[&fragment_header(17, 65_528, false)[..], &[0; 7]].concat()),
        ),
        ("a fragment beyond", Some(R::FragmentMalformed), {
            v6(44, &[&fragment_header(17, 65_528, false)[..], &[0; 8]].concat())
        }),
        ("what stands before the fragment header counts", Some(R::FragmentMalformed), {
            v6(0, &[&[44, 0, 1, 4, 0, 0, 0, 0], &fragment_header(17, 65_528, false)[..], &[0; 7]].concat())
        }),
        ("a chain that goes on in the next fragment", Some(R::Ipv6HeadersFragmented), {
            v6(44, &[&fragment_header(60, 0, true)[..], &[17, 1, 1, 4, 0, 0, 0, 0]].concat())
        }),
        ("a later fragment whose data look like a header", None, {
            v6(44, &[&fragment_header(43, 8, false)[..], &[0; 8]].concat())
        }),
        ("802.3 with LLC", None, ethernet(0x05ff, &[0x42, 0x42, 3])),
        ("a second tag", None, ethernet(ethertype::VLAN, &[0, 1, 0x81, 0, 0xff, 0xff])),
        ("a priority tag", None, ethernet(ethertype::VLAN, &[0xe0, 0, 0x88, 0xb5])),
    ];
    for (name, reason, frame) in cases {
        assert_eq!(judge(&frame).err(), reason, "{name}: {frame:02x?}");
    }
}

#[test]
fn fields_of_fragments() {
    let first = ip(&v6(44, &[&fragment_header(6, 0, true)[..], &TCP, &[0; 4]].concat()));
    assert_eq!(first.fragment, Some(Fragment { offset: 0, more: true, id: 9 }));
    assert!(matches!(first.transport, Transport::Tcp { source_port: 80, destination_port: 443, .. }));
    assert_eq!((first.transport_offset, first.end), (14 + 48, 14 + 48 + 24));
    let last = ip(&v6(44, &[&fragment_header(6, 24, false)[..], &[0; 3]].concat()));
    assert_eq!(last.fragment, Some(Fragment { offset: 24, more: false, id: 9 }));
    assert_eq!(last.transport, Transport::Opaque);
    assert_eq!(first.flow_key(), last.flow_key());
    let atomic = ip(&v6(44, &[&fragment_header(6, 0, false)[..], &TCP].concat()));
    assert_eq!(atomic.fragment, None);
    assert_ne!(atomic.flow_key(), last.flow_key());

    let first = ip(&v4(17, &[], &UDP, |p| p[6] = 0x20));
    let last = ip(&v4(17, &[], &[1], |p| p[6..8].copy_from_slice(&[0x40, 1])));
    assert_eq!(first.fragment, Some(Fragment { offset: 0, more: true, id: 7 }));
    assert_eq!(last.fragment, Some(Fragment { offset: 8, more: false, id: 7 }));
    assert!(last.dont_fragment && !first.dont_fragment);
    assert_eq!(first.flow_key(), last.flow_key());
}

#[test]
fn an_impossible_option_is_pointed_at() {
    for (options, expected) in [
        (&[1, 1, 1, 7][..], Some(23)),
        (&[1, 7, 4, 0], Some(21)),
        (&[7, 1, 0, 0], Some(20)),
        (&[7, 4, 0, 0], None),
        (&[0, 7, 1, 0], None),
    ] {
        assert_eq!(ip(&v4(253, options, &[], |_| ())).option_problem, expected, "{options:?}");
    }
}

#[test]
fn source_routes_are_seen_behind_other_options() {
    for (options, expected) in [
        (&[1, 1, 1, 1][..], false),
        (&[7, 3, 4, 131, 3, 4, 0, 0][..], true),
        (&[1, 137, 3, 4][..], true),
        (&[7, 7, 4, 131, 3, 4, 0, 0][..], false),
        (&[0, 131, 3, 4][..], false),
    ] {
        let frame = v4(253, options, &[], none);
        assert_eq!(ip(&frame).source_route, expected, "{options:?}");
        assert_eq!(ip(&frame).transport_offset, 34 + options.len());
    }
}

#[test]
fn super_frames_are_packets_like_others() {
    let payload = |len: usize| {
        let mut datagram = UDP.to_vec();
        datagram[4..6].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        datagram.resize(len, 0xff);
        datagram
    };
    let frame = v4(17, &[], &payload(65_515), none);
    assert_eq!((ip(&frame).end, frame.len()), (65_549, 65_549));
    let mut datagram = payload(65_535);
    let sum = checksum::pseudo_header_v6(v6_a(), v6_b(), 17, 65_535) + checksum::sum(&datagram);
    datagram[6..8].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    let mut frame = v6(17, &datagram);
    assert_eq!(ip(&frame).end, frame.len());
    assert!(judge(&frame).is_ok());
    frame[40_000] ^= 1;
    assert_eq!(judge(&frame), Err(DropReason::TransportChecksum));
}

#[test]
fn what_follows_a_datagram_in_its_packet_is_not_summed() {
    let mut datagram = [&UDP[..6], &[0, 0], b"data"].concat();
    datagram[5] = 12;
    let sum = checksum::pseudo_header_v6(v6_a(), v6_b(), 17, 12) + checksum::sum(&datagram);
    datagram[6..8].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    datagram.extend(b"trailer");
    assert!(judge(&v6(17, &datagram)).is_ok());
    datagram[11] ^= 1;
    assert_eq!(judge(&v6(17, &datagram)), Err(DropReason::TransportChecksum));
}

#[test]
fn the_octet_that_names_the_protocol() {
    let chain = [
        &[60, 0, 1, 4, 0, 0, 0, 0],
        &[51, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[253, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    for (frame, at) in [(v4(253, &[], &[], none), 9), (v6(253, &[1]), 6), (v6(0, &chain), 40 + 8 + 16)] {
        let ip = ip(&frame);
        assert_eq!(protocol_named_at(&frame, &ip), at);
        assert_eq!(frame[ip.offset + at], 253);
    }
}

#[test]
fn arp_fields_agree_with_smoltcp() {
    let repr = wire::ArpRepr::EthernetIpv4 {
        operation: wire::ArpOperation::Reply,
        source_hardware_addr: wire::EthernetAddress(MAC_A),
        source_protocol_addr: V4_A.into(),
        target_hardware_addr: wire::EthernetAddress(MAC_B),
        target_protocol_addr: V4_B.into(),
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut wire::ArpPacket::new_unchecked(&mut packet));
    let expected = Arp {
        operation: 2,
        sender_mac: MacAddr(MAC_A),
        sender: V4_A.into(),
        target_mac: MacAddr(MAC_B),
        target: V4_B.into(),
    };
    assert_eq!(judge(&ethernet(ethertype::ARP, &packet)), Ok(Network::Arp(expected)));
    for at in 0..6 {
        let mut bad = packet.clone();
        bad[at] ^= 0x10;
        assert_eq!(judge(&ethernet(ethertype::ARP, &bad)), Err(DropReason::ArpMalformed));
    }
    assert_eq!(judge(&ethernet(ethertype::ARP, &packet[..27])), Err(DropReason::ArpMalformed));
}

// ---------------------------------------------------------------------------------------------------------------------
// Neighbour discovery.

fn message(kind: u8, head: &[u8], options: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0], head, options].concat()
}

fn solicit(target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    message(135, &[&[0; 4], &target.octets()[..]].concat(), options)
}

fn advert(flags: u8, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    message(136, &[&[flags, 0, 0, 0], &target.octets()[..]].concat(), options)
}

#[test]
fn neighbour_discovery_obeys_rfc_4861() {
    use NeighborDiscovery as N;
    let discovered = |frame: &[u8]| neighbor_discovery(frame, &ip(frame));
    let bad = Err(DropReason::NeighborDiscoveryInvalid);
    let (a, b, any) = (v6_a(), v6_b(), Ipv6Addr::UNSPECIFIED);
    let solicited_node = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0xb);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let sllao = [&[1, 1][..], &MAC_A].concat();
    let tllao = [&[2, 1][..], &MAC_B].concat();
    let nonce = [14, 1, 0, 0, 0, 0, 0, 0];
    let mac = |octets| Some(MacAddr(octets));
    let solicit_of = |source_link, dad| Ok(Some(N::Solicit { target: b, source_link, dad }));
    let advert_of = |target_link, flags: u8| {
        Ok(Some(N::Advert {
            target: b,
            target_link,
            router: flags & 0x80 != 0,
            solicited: flags & 0x40 != 0,
            override_: flags & 0x20 != 0,
        }))
    };
    let redirect = |target: Ipv6Addr, to: Ipv6Addr| {
        message(137, &[&[0; 4], &target.octets()[..], &to.octets()].concat(), &[])
    };
    let with_code = |mut message: Vec<u8>| {
        message[1] = 1;
        message
    };
    let cases = vec![
        ("NS", icmpv6(a, solicited_node, 255, &solicit(b, &sllao)), solicit_of(mac(MAC_A), false)),
        ("unicast NS", icmpv6(a, b, 255, &solicit(b, &[])), solicit_of(None, false)),
        ("NS with a nonce", icmpv6(a, b, 255, &solicit(b, &[&nonce[..], &sllao].concat())), {
            solicit_of(mac(MAC_A), false)
        }),
        ("DAD", icmpv6(any, solicited_node, 255, &solicit(b, &nonce)), solicit_of(None, true)),
        ("DAD with an address", icmpv6(any, solicited_node, 255, &solicit(b, &sllao)), bad),
        ("DAD to unicast", icmpv6(any, b, 255, &solicit(b, &[])), bad),
        ("DAD to all nodes", icmpv6(any, all_nodes, 255, &solicit(b, &[])), bad),
        ("NS about a group", icmpv6(a, b, 255, &solicit(all_nodes, &[])), bad),
        ("a routed NS", icmpv6(a, b, 254, &solicit(b, &[])), bad),
        ("NS with a code", icmpv6(a, b, 255, &with_code(solicit(b, &[]))), bad),
        ("a short NS", icmpv6(a, b, 255, &solicit(b, &[])[..23]), bad),
        ("an option of length 0", icmpv6(a, b, 255, &solicit(b, &[99, 0, 0, 0, 0, 0, 0, 0])), bad),
        ("an option cut off", icmpv6(a, b, 255, &solicit(b, &[99, 2, 0, 0, 0, 0, 0, 0])), bad),
        ("half an option header", icmpv6(a, b, 255, &solicit(b, &[99])), bad),
        (
            "a link address of two units",
            icmpv6(a, b, 255, &solicit(b, &[&[1, 2][..], &[0; 14]].concat())),
            bad,
        ),
        ("NA", icmpv6(b, a, 255, &advert(0x60, b, &tllao)), advert_of(mac(MAC_B), 0x60)),
        ("a router's NA", icmpv6(b, a, 255, &advert(0xc0, b, &[])), advert_of(None, 0xc0)),
        ("NA to all", icmpv6(b, all_nodes, 255, &advert(0x20, b, &tllao)), advert_of(mac(MAC_B), 0x20)),
        ("solicited NA to all", icmpv6(b, all_nodes, 255, &advert(0x60, b, &tllao)), bad),
        ("NA about a group", icmpv6(b, a, 255, &advert(0x60, all_nodes, &tllao)), bad),
        ("a routed NA", icmpv6(b, a, 64, &advert(0x60, b, &tllao)), bad),
        ("RS", icmpv6(a, all_nodes, 255, &message(133, &[0; 4], &sllao)), Ok(Some(N::RouterSolicit))),
        (
            "RS from nowhere",
            icmpv6(any, all_nodes, 255, &message(133, &[0; 4], &[])),
            Ok(Some(N::RouterSolicit)),
        ),
        ("RS from nowhere with address", icmpv6(any, all_nodes, 255, &message(133, &[0; 4], &sllao)), bad),
        ("RA", icmpv6(a, all_nodes, 255, &message(134, &[0; 12], &sllao)), Ok(Some(N::RouterAdvert))),
        ("RA not from the link", icmpv6(global, all_nodes, 255, &message(134, &[0; 12], &[])), bad),
        ("a short RA", icmpv6(a, all_nodes, 255, &message(134, &[0; 11], &[])), bad),
        ("redirect to a router", icmpv6(a, b, 255, &redirect(b, global)), Ok(Some(N::Redirect))),
        ("redirect on link", icmpv6(a, b, 255, &redirect(global, global)), Ok(Some(N::Redirect))),
        ("redirect to a global router", icmpv6(a, b, 255, &redirect(global, b)), bad),
        ("redirect of a group", icmpv6(a, b, 255, &redirect(b, all_nodes)), bad),
        ("an echo request", icmpv6(a, b, 64, &message(128, &[0; 4], &[])), Ok(None)),
        ("nothing of the kind", v6(59, &[]), Ok(None)),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(discovered(&frame), expected, "{name}");
    }

    let mut frame = icmpv6(a, b, 255, &solicit(b, &[]));
    frame[57] ^= 1;
    assert_eq!(discovered(&frame), bad, "a wrong checksum");

    // RFC 6980: not even as an atomic fragment.
    let whole = icmpv6(a, b, 255, &solicit(b, &[]));
    let atomic = v6(44, &[&fragment_header(58, 0, false)[..], &whole[54..]].concat());
    assert_eq!(discovered(&atomic), bad, "an atomic fragment");
}

// ---------------------------------------------------------------------------------------------------------------------
// Random valid packets, built by etherparse.

#[derive(Clone, Debug)]
enum Upper {
    Tcp { ports: (u16, u16), flags: u8, options: Vec<u8> },
    Udp { ports: (u16, u16) },
    Echo { id: u16, reply: bool },
    Other,
}

#[derive(Clone, Debug)]
struct Recipe {
    vlan: Option<u16>,
    source: [u8; 16],
    destination: [u8; 16],
    v6: bool,
    hop_limit: u8,
    dont_fragment: bool,
    options: Vec<u8>,
    extensions: [bool; 5],
    fragment: Option<(u16, bool)>,
    upper: Upper,
    payload: Vec<u8>,
    padding: usize,
}

fn recipes() -> impl Strategy<Value = Recipe> {
    let upper = prop_oneof![
        (any::<(u16, u16)>(), any::<u8>(), 0usize..=10).prop_map(|(ports, flags, words)| Upper::Tcp {
            ports,
            flags,
            options: vec![1; words * 4]
        }),
        any::<(u16, u16)>().prop_map(|ports| Upper::Udp { ports }),
        any::<(u16, bool)>().prop_map(|(id, reply)| Upper::Echo { id, reply }),
        Just(Upper::Other),
    ];
    let option = prop_oneof![
        Just(vec![1; 4]),
        Just(vec![148, 4, 0, 0]),
        Just(vec![7, 7, 4, 0, 0, 0, 0, 1]),
        Just(vec![131, 7, 4, 1, 2, 3, 4, 1]),
    ];
    let options = proptest::collection::vec(option, 0..4).prop_map(|options| options.concat());
    let position = (prop_oneof![Just(0u16), 0u16..4000], any::<bool>());
    let fragment =
        proptest::option::weighted(0.2, position.prop_map(|(offset, more)| (offset, more || offset == 0)));
    let link = (proptest::option::of(0u16..4095), any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    let network = (any::<u8>(), any::<bool>(), options, any::<[bool; 5]>(), fragment);
    (link, network, upper, proptest::collection::vec(any::<u8>(), 0..200), 0usize..32).prop_map(
        |((vlan, v6, source, destination), network, upper, mut payload, padding)| {
            let (hop_limit, dont_fragment, options, extensions, fragment) = network;
            if fragment.is_some() {
                payload.truncate(payload.len() & !7);
            }
            Recipe {
                vlan,
                source,
                destination,
                v6,
                hop_limit,
                dont_fragment,
                options,
                extensions,
                fragment,
                upper,
                payload,
                padding,
            }
        },
    )
}

impl Recipe {
    fn headers(&self) -> IpHeaders {
        let first_four = |octets: [u8; 16]| [octets[0], octets[1], octets[2], octets[3]];
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let offset = IpFragOffset::try_new(offset).unwrap();
        if !self.v6 {
            let header = Ipv4Header {
                time_to_live: self.hop_limit,
                dont_fragment: self.dont_fragment,
                identification: 77,
                more_fragments: more,
                fragment_offset: offset,
                source: first_four(self.source),
                destination: first_four(self.destination),
                options: self.options.as_slice().try_into().unwrap(),
                ..Ipv4Header::default()
            };
            return IpHeaders::Ipv4(header, Ipv4Extensions::default());
        }
        let header = Ipv6Header {
            hop_limit: self.hop_limit,
            source: self.source,
            destination: self.destination,
            ..Ipv6Header::default()
        };
        let padding = |len: u8| {
            let body = [&[1, len - 2][..], &vec![0; usize::from(len) - 2]].concat();
            Ipv6RawExtHeader::new_raw(IpNumber::UDP, &body).unwrap()
        };
        let [hop_by_hop, destination, routing, atomic, last] = self.extensions;
        let fragment_header = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, 77);
        let extensions = Ipv6Extensions {
            hop_by_hop_options: hop_by_hop.then(|| padding(6)),
            destination_options: destination.then(|| padding(14)),
            routing: routing.then(|| Ipv6RoutingExtensions {
                routing: Ipv6RawExtHeader::new_raw(IpNumber::UDP, &[4, 0, 0, 0, 0, 0]).unwrap(),
                // Behind the fragment header, so in the first fragment only.
                final_destination_options: (last && self.fragment.is_none_or(|(at, _)| at == 0))
                    .then(|| padding(22)),
            }),
            fragment: (atomic || self.fragment.is_some()).then_some(fragment_header),
            auth: None,
        };
        IpHeaders::Ipv6(header, extensions)
    }

    fn build(&self) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(MAC_A, MAC_B);
        let builder = match self.vlan {
            Some(id) => builder.single_vlan(id.try_into().unwrap()).ip(self.headers()),
            None => builder.ip(self.headers()),
        };
        let mut frame = Vec::new();
        let payload = &self.payload[..];
        match &self.upper {
            Upper::Tcp { ports, flags, options } => {
                let mut header = etherparse::TcpHeader::new(ports.0, ports.1, 5, 6);
                header.fin = flags & 1 != 0;
                header.syn = flags & 2 != 0;
                header.rst = flags & 4 != 0;
                header.psh = flags & 8 != 0;
                header.ack = flags & 16 != 0;
                header.urg = flags & 32 != 0;
                header.ece = flags & 64 != 0;
                header.cwr = flags & 128 != 0;
                header.set_options_raw(options).unwrap();
                builder.tcp_header(header).write(&mut frame, payload)
            }
            Upper::Udp { ports } => builder.udp(ports.0, ports.1).write(&mut frame, payload),
            Upper::Echo { id, reply } => match (self.v6, reply) {
                (false, false) => builder.icmpv4_echo_request(*id, 1).write(&mut frame, payload),
                (false, true) => builder.icmpv4_echo_reply(*id, 1).write(&mut frame, payload),
                (true, false) => builder.icmpv6_echo_request(*id, 1).write(&mut frame, payload),
                (true, true) => builder.icmpv6_echo_reply(*id, 1).write(&mut frame, payload),
            },
            // 253 is for experiments (RFC 3692).
            Upper::Other => builder.write(&mut frame, IpNumber(253), payload),
        }
        .unwrap();
        frame.resize(frame.len() + self.padding, 0xee);
        frame
    }
}

/// Every offset within the frame and in order, and nothing else panics.
fn check_sound(frame: &[u8]) {
    let Ok(read) = link(frame) else { return };
    assert!(read.payload <= frame.len());
    let Ok(Network::Ip(ip)) = network(frame, &read) else { return };
    assert!(read.payload == ip.offset && ip.offset < ip.transport_offset);
    assert!(ip.transport_offset <= ip.end && ip.end <= frame.len());
    let segment = ip.end - ip.transport_offset;
    let needed = match ip.transport {
        Transport::Tcp { header_len, .. } => header_len,
        Transport::Udp { .. } | Transport::Icmp { .. } => 8,
        Transport::Sctp { .. } => 12,
        Transport::Opaque => 0,
    };
    assert!(needed <= segment);
    if let Some(fragment) = ip.fragment {
        assert!(fragment.offset.is_multiple_of(8) && (fragment.more || fragment.offset > 0));
        assert!(usize::from(fragment.offset) + segment <= 65_535);
        assert!(fragment.offset == 0 || ip.transport == Transport::Opaque);
    }
    ip.flow_key();
    verify_transport_checksum(frame, &ip);
    let _ = neighbor_discovery(frame, &ip);
    assert!(protocol_named_at(frame, &ip) < ip.transport_offset - ip.offset);
}

/// What was accepted must look the same to the checked parsers of both other libraries.
///
/// Deliberate differences, all of them where this parser is stricter, so that none shows here: it verifies the IPv4
/// header checksum and walks IPv4 options; it refuses fragments that cannot be, jumbograms, type 0 routing headers and
/// long chains; it holds UDP's length against the packet. Where it is laxer: it stops at a second VLAN tag, which
/// etherparse follows; it takes IPv4's authentication header for an upper layer of its own; and it leaves the checks
/// of ICMP bodies, IGMP and IPv6's mobility header to others. smoltcp's packet types see only the fixed IPv6 header.
fn check_agreement(frame: &[u8]) {
    let Ok(read) = link(frame) else { return };
    let Ok(Network::Ip(ip)) = network(frame, &read) else { return };
    let packet = &frame[ip.offset..];
    let fragmented = ip.fragment.is_some();
    let (header_len, end) = (ip.transport_offset - ip.offset, ip.end - ip.offset);
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let other = wire::Ipv4Packet::new_checked(packet).unwrap();
            assert!(other.verify_checksum());
            assert_eq!((usize::from(other.header_len()), usize::from(other.total_len())), (header_len, end));
            assert_eq!((other.src_addr(), other.dst_addr()), (source, destination));
            assert_eq!((other.hop_limit(), u8::from(other.next_header())), (ip.hop_limit, ip.protocol));
            assert_eq!(other.dont_frag(), ip.dont_fragment);
            let fragment = (other.frag_offset() > 0 || other.more_frags()).then(|| Fragment {
                offset: other.frag_offset(),
                more: other.more_frags(),
                id: u32::from(other.ident()),
            });
            assert_eq!(fragment, ip.fragment);
            if ip.protocol != 51 {
                let other = etherparse::Ipv4Slice::from_slice(packet).unwrap();
                assert_eq!(other.payload().payload.len(), end - header_len);
                assert_eq!(other.is_payload_fragmented(), fragmented);
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let other = wire::Ipv6Packet::new_checked(packet).unwrap();
            assert_eq!((other.src_addr(), other.dst_addr()), (source, destination));
            assert_eq!((other.total_len(), other.hop_limit()), (end, ip.hop_limit));
            // etherparse looks for extension headers in the data of later fragments, and takes payload length 0 for a
            // jumbogram of all that arrived.
            if ip.fragment.is_none_or(|fragment| fragment.offset == 0) && end > 40 {
                let other = etherparse::Ipv6Slice::from_slice(packet).unwrap();
                assert_eq!(other.payload().payload.len(), end - header_len);
                assert_eq!(other.payload().ip_number.0, ip.protocol);
                assert_eq!(other.is_payload_fragmented(), fragmented);
            }
        }
        _ => panic!("families differ"),
    }
    let segment = &frame[ip.transport_offset..ip.end];
    match ip.transport {
        Transport::Tcp { source_port, destination_port, header_len, .. } => {
            let other = wire::TcpPacket::new_checked(segment).unwrap();
            assert_eq!((other.src_port(), other.dst_port()), (source_port, destination_port));
            assert_eq!(usize::from(other.header_len()), header_len);
            let whole = other.verify_checksum(&ip.source.into(), &ip.destination.into());
            assert_eq!(whole || fragmented, verify_transport_checksum(frame, &ip));
        }
        Transport::Udp { source_port, destination_port } if !fragmented => {
            let other = wire::UdpPacket::new_checked(segment).unwrap();
            assert_eq!((other.src_port(), other.dst_port()), (source_port, destination_port));
            // smoltcp takes a missing checksum for right over IPv6 as well.
            if other.checksum() != 0 {
                let right = other.verify_checksum(&ip.source.into(), &ip.destination.into());
                assert_eq!(right, verify_transport_checksum(frame, &ip));
            }
        }
        Transport::Icmp { kind, code, .. } if !fragmented => {
            if let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) {
                let other = wire::Icmpv6Packet::new_unchecked(segment);
                assert_eq!((u8::from(other.msg_type()), other.msg_code()), (kind, code));
                assert_eq!(
                    other.verify_checksum(&source, &destination),
                    verify_transport_checksum(frame, &ip)
                );
            } else {
                let other = wire::Icmpv4Packet::new_checked(segment).unwrap();
                assert_eq!((u8::from(other.msg_type()), other.msg_code()), (kind, code));
                assert_eq!(other.verify_checksum(), verify_transport_checksum(frame, &ip));
            }
        }
        Transport::Udp { .. } | Transport::Icmp { .. } | Transport::Sctp { .. } | Transport::Opaque => {}
    }
}

/// Replaces octets, cuts or lengthens the frame, and mends the IPv4 header checksum so that more is reached.
fn mutate(
    frame: &mut Vec<u8>,
    changes: &[(prop::sample::Index, u8)],
    cut: Option<prop::sample::Index>,
    mend: bool,
) {
    for (index, value) in changes {
        // Most headers stand in the first 100 octets.
        let reach = frame.len().min(100);
        frame[index.index(reach)] = *value;
    }
    if let Some(cut) = cut {
        frame.truncate(cut.index(frame.len() + 1));
    }
    if let (true, Ok(read)) = (mend, link(frame)) {
        let header = usize::from(frame.get(read.payload).map_or(0, |b| b & 0xf)) * 4;
        if let (ethertype::IPV4, Some(header)) =
            (read.ethertype, frame.get_mut(read.payload..read.payload + header))
            && header.len() >= 20
        {
            header[10..12].fill(0);
            let sum = checksum::checksum(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn random_octets_are_harmless(
        frame in proptest::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x0806]),
    ) {
        check_sound(&frame);
        let mut frame = frame;
        if let Some(field) = frame.get_mut(12..14) {
            field.copy_from_slice(&kind.to_be_bytes());
        }
        check_sound(&frame);
        check_agreement(&frame);
    }

    #[test]
    fn mutated_frames_are_harmless_and_what_is_accepted_is_agreed_on(
        recipe in recipes(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in proptest::option::weighted(0.3, any::<prop::sample::Index>()),
        mend: bool,
    ) {
        let mut frame = recipe.build();
        mutate(&mut frame, &changes, cut, mend);
        check_sound(&frame);
        check_agreement(&frame);
    }

    #[test]
    fn valid_packets_are_read_as_etherparse_reads_them(recipe in recipes()) {
        let frame = recipe.build();
        let read = link(&frame).unwrap();
        let network = network(&frame, &read);
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();

        prop_assert_eq!((read.destination, read.source), (MacAddr(MAC_B), MacAddr(MAC_A)));
        let tag = sliced.link_exts.first().and_then(|ext| match ext {
            LinkExtSlice::Vlan(vlan) => Some(vlan.vlan_identifier().value()),
            LinkExtSlice::Macsec(_) => None,
        });
        prop_assert_eq!(read.tag.map(|tci| tci & 0xfff), tag);
        let ethertype = if recipe.v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        prop_assert_eq!(EtherType(read.ethertype), ethertype);

        // etherparse writes fragments of any position with a whole upper layer header in front of the payload, so the
        // two rules about their form may be broken.
        let upper_len = match &recipe.upper {
            Upper::Tcp { options, .. } => 20 + options.len(),
            Upper::Udp { .. } | Upper::Echo { .. } => 8,
            Upper::Other => 0,
        };
        if let Some((_, more)) = recipe.fragment {
            let data = upper_len + recipe.payload.len();
            if more && !data.is_multiple_of(8) {
                prop_assert_eq!(network, Err(DropReason::FragmentMalformed));
                return Ok(());
            }
        }
        // A packet with nothing in it has payload length 0, which is refused.
        let bare = recipe.v6 && frame.len() - recipe.padding == read.payload + 40;
        if bare {
            prop_assert_eq!(network, Err(DropReason::Ipv6PayloadLength));
            return Ok(());
        }
        let Ok(Network::Ip(ip)) = network else { panic!("{network:?}") };

        prop_assert_eq!(ip.end, frame.len() - recipe.padding);
        prop_assert_eq!(ip.hop_limit, recipe.hop_limit);
        prop_assert_eq!(ip.transport_offset, ip.end - recipe.payload.len() - upper_len);
        prop_assert_eq!(ip.source_route, !recipe.v6 && recipe.options.contains(&131));
        match sliced.net.as_ref().unwrap() {
            NetSlice::Ipv4(v4) => {
                prop_assert_eq!(ip.source, IpAddr::from(v4.header().source()));
                prop_assert_eq!(ip.destination, IpAddr::from(v4.header().destination()));
                prop_assert_eq!(ip.protocol, v4.payload_ip_number().0);
                prop_assert_eq!(ip.dont_fragment, recipe.dont_fragment);
                prop_assert_eq!(ip.fragment.is_some(), v4.is_payload_fragmented());
            }
            NetSlice::Ipv6(v6) => {
                prop_assert_eq!(ip.source, IpAddr::from(v6.header().source()));
                prop_assert_eq!(ip.destination, IpAddr::from(v6.header().destination()));
                prop_assert_eq!(ip.protocol, v6.payload().ip_number.0);
                prop_assert!(ip.dont_fragment);
                prop_assert_eq!(ip.fragment.is_some(), v6.is_payload_fragmented());
            }
            NetSlice::Arp(_) => panic!("not ARP"),
        }
        let expected = recipe.fragment.map(|(offset, more)| Fragment { offset: offset * 8, more, id: 77 });
        prop_assert_eq!(ip.fragment, expected);
        prop_assert!(verify_transport_checksum(&frame, &ip));

        let key = ip.flow_key();
        match (&recipe.upper, ip.transport) {
            (_, Transport::Opaque) if recipe.fragment.is_some_and(|(offset, _)| offset > 0) => {}
            (Upper::Tcp { ports, flags, options }, Transport::Tcp { source_port, destination_port, flags: f, header_len }) => {
                prop_assert_eq!((source_port, destination_port, f, header_len), (ports.0, ports.1, *flags, 20 + options.len()));
                if recipe.fragment.is_none() {
                    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
                    prop_assert_eq!((tcp.source_port(), tcp.header_len()), (source_port, header_len));
                    prop_assert_eq!((key.source_port, key.destination_port), *ports);
                }
            }
            (Upper::Udp { ports }, Transport::Udp { source_port, destination_port }) => {
                prop_assert_eq!((source_port, destination_port), *ports);
                if recipe.fragment.is_none() {
                    let Some(TransportSlice::Udp(udp)) = sliced.transport else { panic!("not UDP") };
                    prop_assert_eq!((udp.source_port(), udp.destination_port()), *ports);
                }
            }
            (Upper::Echo { id, .. }, Transport::Icmp { id: read, code, .. }) => {
                prop_assert_eq!((read, code), (Some(*id), 0));
                if recipe.fragment.is_none() {
                    prop_assert_eq!((key.source_port, key.destination_port), (*id, *id));
                }
            }
            (Upper::Other, Transport::Opaque) => {}
            (upper, transport) => panic!("{upper:?} was read as {transport:?}"),
        }

        // One wrong bit in the upper layer is found, wherever it is; UDP without a checksum aside.
        if recipe.fragment.is_none() && !matches!(recipe.upper, Upper::Other) && ip.end > ip.transport_offset + 8 {
            let mut frame = frame.clone();
            frame[ip.end - 1] ^= 4;
            prop_assert!(!verify_transport_checksum(&frame, &ip));
        }
    }
}

#[test]
fn martian_looking_addresses_are_not_the_parsers_business() {
    let frame = v4(17, &[], &UDP, |p| p[12..16].fill(255));
    assert_eq!(ip(&frame).source, IpAddr::V4(Ipv4Addr::BROADCAST));
}
