//! What is emitted, read back by our own parser, by etherparse and by `smoltcp::wire`.
//!
//! Every frame is made twice, into slabs of zeros and of ones, so that no octet is left as the slab had it.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use smoltcp::wire;

use super::*;
use crate::frame::MAX_FRAME;
use crate::offload::Offload;
use crate::parse::{self, Arp, Link, NeighborDiscovery, Network, Transport};

const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xc]);
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x1]);
const V4_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
const V4_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const V4_FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const V6_CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xc);
const V6_ROUTER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x1);
const V6_FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab, 0xcdef);

/// A pool whose slabs hold `fill` throughout.
fn pool_of(fill: u8) -> FramePool {
    let mut pool = FramePool::new();
    for len in [64, MAX_FRAME] {
        let mut frame = pool.take(len);
        let capacity = frame.capacity();
        assert!(frame.set_len(capacity));
        frame.bytes_mut().fill(fill);
        pool.recycle(frame);
    }
    pool
}

/// The octets that `make` emits, whatever the slab held.
fn emitted(make: impl Fn(&mut FramePool) -> Option<Frame>) -> Option<Vec<u8>> {
    let [zeros, ones] = [0, 0xff].map(|fill| {
        make(&mut pool_of(fill)).map(|frame| {
            assert_eq!((frame.offload, frame.priority), (Offload::default(), 0));
            frame.bytes().to_vec()
        })
    });
    assert_eq!(zeros, ones, "an octet was left unwritten");
    zeros
}

fn read(frame: &[u8]) -> (Link, Network) {
    let link = parse::link(frame).unwrap();
    let network = parse::network(frame, &link).unwrap();
    (link, network)
}

/// The IP packet in `frame`, its checksums verified by smoltcp and by our own parser, its lengths by etherparse.
fn read_ip(frame: &[u8]) -> (Link, Ip) {
    let (link, network) = read(frame);
    let Network::Ip(ip) = network else { panic!("not IP: {network:?}") };
    assert_eq!(ip.end, frame.len());
    assert!(parse::verify_transport_checksum(frame, &ip));
    SlicedPacket::from_ethernet(frame).unwrap();
    let segment = &frame[ip.transport_offset..];
    let right = match (ip.transport, ip.source, ip.destination) {
        (Transport::Tcp { .. }, source, destination) => wire::TcpPacket::new_checked(segment)
            .unwrap()
            .verify_checksum(&source.into(), &destination.into()),
        (Transport::Icmp { .. }, IpAddr::V4(_), _) => {
            wire::Icmpv4Packet::new_checked(segment).unwrap().verify_checksum()
        }
        (Transport::Icmp { .. }, IpAddr::V6(source), IpAddr::V6(destination)) => {
            wire::Icmpv6Packet::new_checked(segment).unwrap().verify_checksum(&source, &destination)
        }
        (other, ..) => panic!("not emitted here: {other:?}"),
    };
    assert!(right, "smoltcp finds the checksum wrong");
    if ip.source.is_ipv4() {
        let packet = wire::Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum());
    }
    (link, ip)
}

// ---------------------------------------------------------------------------------------------------------------------
// ARP and neighbour discovery.

#[test]
fn arp_says_what_it_is_asked_to() {
    let cases = [
        (
            emitted(|pool| Some(arp_request(pool, ROUTER, V4_ROUTER, V4_CLIENT, MacAddr::BROADCAST))),
            MacAddr::BROADCAST,
            (1, V4_ROUTER, MacAddr::ZERO, V4_CLIENT),
        ),
        (
            emitted(|pool| Some(arp_request(pool, ROUTER, V4_ROUTER, V4_CLIENT, CLIENT))),
            CLIENT,
            (1, V4_ROUTER, MacAddr::ZERO, V4_CLIENT),
        ),
        (
            emitted(|pool| Some(arp_reply(pool, ROUTER, V4_ROUTER, CLIENT, V4_CLIENT))),
            CLIENT,
            (2, V4_ROUTER, CLIENT, V4_CLIENT),
        ),
        (
            emitted(|pool| Some(arp_announcement(pool, ROUTER, V4_ROUTER))),
            MacAddr::BROADCAST,
            (1, V4_ROUTER, MacAddr::ZERO, V4_ROUTER),
        ),
    ];
    for (frame, to, (operation, sender, target_mac, target)) in cases {
        let frame = frame.unwrap();
        let (link, network) = read(&frame);
        assert_eq!((link.source, link.destination, frame.len()), (ROUTER, to, 42));
        assert_eq!(network, Network::Arp(Arp { operation, sender_mac: ROUTER, sender, target_mac, target }));
        let Some(NetSlice::Arp(arp)) = SlicedPacket::from_ethernet(&frame).unwrap().net else {
            panic!("not ARP")
        };
        assert_eq!((arp.operation().0, arp.sender_hw_addr()), (operation, &ROUTER.0[..]));
        assert_eq!(
            (arp.sender_protocol_addr(), arp.target_protocol_addr()),
            (&sender.octets()[..], &target.octets()[..])
        );
    }
}

fn discovered(frame: &[u8]) -> (Link, Ip, NeighborDiscovery) {
    let (link, ip) = read_ip(frame);
    assert_eq!((ip.hop_limit, frame[14] << 4 | frame[15] >> 4), (255, 0));
    let repr = wire::Icmpv6Packet::new_checked(&frame[54..]).unwrap();
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
        panic!("not IPv6")
    };
    wire::Icmpv6Repr::parse(&source, &destination, &repr, &Default::default()).unwrap();
    (link, ip, parse::neighbor_discovery(frame, &ip).unwrap().unwrap())
}

#[test]
fn solicitations_go_to_the_solicited_node_group_or_straight_to_the_neighbour() {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xffab, 0xcdef);
    let group_mac = MacAddr([0x33, 0x33, 0xff, 0xab, 0xcd, 0xef]);
    for (source, unicast, to_mac, to) in [
        (V6_ROUTER, None, group_mac, group),
        (V6_ROUTER, Some(CLIENT), CLIENT, V6_FAR),
        (Ipv6Addr::UNSPECIFIED, None, group_mac, group),
    ] {
        let frame =
            emitted(|pool| Some(neighbor_solicitation(pool, ROUTER, source, V6_FAR, unicast))).unwrap();
        let (link, ip, message) = discovered(&frame);
        assert_eq!((link.source, link.destination), (ROUTER, to_mac));
        assert_eq!((ip.source, ip.destination), (IpAddr::V6(source), IpAddr::V6(to)));
        let dad = source.is_unspecified();
        let source_link = (!dad).then_some(ROUTER);
        assert_eq!(message, NeighborDiscovery::Solicit { target: V6_FAR, source_link, dad });
    }
}

#[test]
fn advertisements_are_solicited_only_when_they_have_an_addressee() {
    let all = (MacAddr([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    for (to, router, override_) in [
        (Some((CLIENT, V6_CLIENT)), true, true),
        (Some((CLIENT, V6_CLIENT)), false, false),
        (None, false, true),
    ] {
        let make = |pool: &mut FramePool| {
            Some(neighbor_advertisement(pool, V6_ROUTER, ROUTER, to, router, override_))
        };
        let frame = emitted(make).unwrap();
        let (link, ip, message) = discovered(&frame);
        let (to_mac, to_address) = to.unwrap_or(all);
        assert_eq!((link.source, link.destination), (ROUTER, to_mac));
        assert_eq!((ip.source, ip.destination), (IpAddr::V6(V6_ROUTER), IpAddr::V6(to_address)));
        assert_eq!(
            message,
            NeighborDiscovery::Advert {
                target: V6_ROUTER,
                target_link: Some(ROUTER),
                router,
                solicited: to.is_some(),
                override_,
            }
        );
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Echo.

fn v4_builder() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    v4_builder_to(V4_ROUTER)
}

fn v4_builder_to(to: Ipv4Addr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(CLIENT.0, ROUTER.0).ipv4(V4_CLIENT.octets(), to.octets(), 7)
}

fn v6_builder_to(to: Ipv6Addr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(CLIENT.0, ROUTER.0).ipv6(V6_CLIENT.octets(), to.octets(), 7)
}

fn echo_request(v6: bool, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    if v6 {
        v6_builder_to(V6_ROUTER).icmpv6_echo_request(5, 6).write(&mut frame, data).unwrap();
    } else {
        v4_builder().icmpv4_echo_request(5, 6).write(&mut frame, data).unwrap();
    }
    frame
}

fn reply_to(frame: &[u8]) -> Option<Vec<u8>> {
    let (link, network) = read(frame);
    let Network::Ip(ip) = network else { panic!("not IP") };
    emitted(|pool| echo_reply(pool, frame, &link, &ip))
}

/// Checks that `reply` answers echo 5/6 with `data`.
fn check_reply(reply: &[u8], v6: bool, data: &[u8]) -> Ip {
    let (link, ip) = read_ip(reply);
    assert_eq!((link.source, link.destination, link.tag), (ROUTER, CLIENT, None));
    let addresses: (IpAddr, IpAddr) =
        if v6 { (V6_ROUTER.into(), V6_CLIENT.into()) } else { (V4_ROUTER.into(), V4_CLIENT.into()) };
    assert_eq!(((ip.source, ip.destination), ip.hop_limit), (addresses, 64));
    let kind = if v6 { 129 } else { 0 };
    assert_eq!(ip.transport, Transport::Icmp { kind, code: 0, id: Some(5) });
    assert_eq!(reply[ip.transport_offset + 4..ip.transport_offset + 8], [0, 5, 0, 6]);
    assert_eq!(&reply[ip.transport_offset + 8..], data);
    ip
}

#[test]
fn an_echo_comes_back_with_its_data() {
    for v6 in [false, true] {
        for len in [0, 1, 56, 57, 1472, 65_000] {
            let data: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
            let reply = reply_to(&echo_request(v6, &data)).unwrap();
            check_reply(&reply, v6, &data);
        }
    }
}

#[test]
fn the_longest_echo_comes_back() {
    let data = vec![0xff; 65_535 - 20 - 8];
    check_reply(&reply_to(&echo_request(false, &data)).unwrap(), false, &data);
    let data = vec![0xff; 65_535 - 8];
    check_reply(&reply_to(&echo_request(true, &data)).unwrap(), true, &data);
}

#[test]
fn an_echo_whose_checksum_was_left_to_a_device_comes_back_right() {
    for v6 in [false, true] {
        let mut request = echo_request(v6, b"data");
        let field = if v6 { 14 + 40 + 2 } else { 14 + 20 + 2 };
        request[field..field + 2].copy_from_slice(&[0xab, 0xcd]);
        check_reply(&reply_to(&request).unwrap(), v6, b"data");
    }
}

#[test]
fn tags_padding_options_and_extension_headers_stay_behind() {
    // Tag, options and padding.
    let header = etherparse::Ipv4Header {
        time_to_live: 9,
        source: V4_CLIENT.octets(),
        destination: V4_ROUTER.octets(),
        options: [1, 1, 1, 1].into(),
        ..Default::default()
    };
    let mut request = Vec::new();
    PacketBuilder::ethernet2(CLIENT.0, ROUTER.0)
        .single_vlan(9.try_into().unwrap())
        .ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
        .icmpv4_echo_request(5, 6)
        .write(&mut request, b"abc")
        .unwrap();
    request.extend([0xee; 9]);
    check_reply(&reply_to(&request).unwrap(), false, b"abc");

    let plain = echo_request(true, b"abc");
    let mut request = plain[..54].to_vec();
    request[20] = 60;
    request[19] += 8;
    request.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    request.extend(&plain[54..]);
    check_reply(&reply_to(&request).unwrap(), true, b"abc");
}

#[test]
fn the_type_of_service_comes_back_and_a_datagram_that_may_be_cut_has_an_identification() {
    let mut request = echo_request(false, b"abc");
    for (id, expected) in [(0x1234_u16, 0x1234), (0, 6)] {
        request[15] = 0xb9;
        request[18..20].copy_from_slice(&id.to_be_bytes());
        let mut packet = wire::Ipv4Packet::new_unchecked(&mut request[14..]);
        packet.fill_checksum();
        let reply = reply_to(&request).unwrap();
        let ip = check_reply(&reply, false, b"abc");
        let packet = wire::Ipv4Packet::new_checked(&reply[14..]).unwrap();
        assert_eq!((packet.dscp() << 2 | packet.ecn(), packet.ident()), (0xb9, expected));
        assert!(!ip.dont_fragment && ip.fragment.is_none());
    }
    let mut request = echo_request(true, b"abc");
    request[14..16].copy_from_slice(&[0x6b, 0x90]);
    let reply = reply_to(&request).unwrap();
    assert_eq!(wire::Ipv6Packet::new_checked(&reply[14..]).unwrap().traffic_class(), 0xb9);
}

#[test]
fn only_unicast_echo_requests_are_answered() {
    for v6 in [false, true] {
        let reply = reply_to(&echo_request(v6, b"x")).unwrap();
        assert_eq!(reply_to(&reply), None, "a reply");
        let mut request = echo_request(v6, b"x");
        request[0] = 0x33;
        assert_eq!(reply_to(&request), None, "to a group address");
    }
    let mut frame = Vec::new();
    v6_builder_to(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1))
        .icmpv6_echo_request(5, 6)
        .write(&mut frame, &[])
        .unwrap();
    assert_eq!(reply_to(&frame), None, "to a group");
    let mut frame = Vec::new();
    v4_builder().udp(8, 8).write(&mut frame, &[0; 8]).unwrap();
    assert_eq!(reply_to(&frame), None, "not ICMP");
    let mut fragment = echo_request(false, &[0; 8]);
    fragment[20] = 0x20;
    wire::Ipv4Packet::new_unchecked(&mut fragment[14..]).fill_checksum();
    assert_eq!(reply_to(&fragment), None, "a fragment");
}

// ---------------------------------------------------------------------------------------------------------------------
// Errors.

fn error_about(error: IcmpError, frame: &[u8], source: IpAddr) -> Option<Vec<u8>> {
    let (_, network) = read(frame);
    let Network::Ip(ip) = network else { panic!("not IP") };
    emitted(|pool| icmp_error(pool, error, frame, &ip, source, ROUTER, CLIENT))
}

/// The error about `frame`: type, code, the four octets before the quote, and the quote, when all else is as it has to
/// be.
fn check_error(error: IcmpError, frame: &[u8], v6: bool) -> (u8, u8, [u8; 4], Vec<u8>) {
    let source: IpAddr = if v6 { V6_ROUTER.into() } else { V4_ROUTER.into() };
    let made = error_about(error, frame, source).unwrap();
    let (link, ip) = read_ip(&made);
    assert_eq!((link.source, link.destination, link.tag), (ROUTER, CLIENT, None));
    let client: IpAddr = if v6 { V6_CLIENT.into() } else { V4_CLIENT.into() };
    assert_eq!((ip.source, ip.destination, ip.hop_limit), (source, client, 64));
    assert!(made.len() - 14 <= if v6 { 1280 } else { 576 });
    let class = if v6 { made[14] << 4 | made[15] >> 4 } else { made[15] };
    assert_eq!(class, if v6 { 0 } else { 0xc0 });
    let (kind, code) = match &SlicedPacket::from_ethernet(&made).unwrap().transport {
        Some(TransportSlice::Icmpv4(icmp)) => (icmp.type_u8(), icmp.code_u8()),
        Some(TransportSlice::Icmpv6(icmp)) => (icmp.type_u8(), icmp.code_u8()),
        other => panic!("not ICMP: {other:?}"),
    };
    let message = &made[ip.transport_offset..];
    (kind, code, message[4..8].try_into().unwrap(), message[8..].to_vec())
}

#[test]
fn every_error_has_the_type_and_code_of_the_table() {
    use IcmpError as E;
    let table = [
        (E::TtlExceeded, (11, 0, 0), (3, 0, 0)),
        (E::ReassemblyTimeout, (11, 1, 0), (3, 1, 0)),
        (E::NoRoute, (3, 0, 0), (1, 0, 0)),
        (E::RouteUnreachable, (3, 1, 0), (1, 0, 0)),
        (E::AddressUnreachable, (3, 1, 0), (1, 3, 0)),
        (E::PortUnreachable, (3, 3, 0), (1, 4, 0)),
        (E::ProtocolUnreachable, (3, 2, 0), (4, 1, 6)),
        (E::AdminProhibited, (3, 13, 0), (1, 1, 0)),
        (E::SourceRouteFailed, (3, 5, 0), (1, 0, 0)),
        (E::BeyondScope, (3, 1, 0), (1, 2, 0)),
        (E::PacketTooBig { mtu: 1400 }, (3, 4, 1400), (2, 0, 1400)),
        (E::ParameterProblem { pointer: 20 }, (12, 0, 20 << 24), (4, 0, 20)),
        (E::ParameterProblem { pointer: 0x0102_0304 }, (12, 0, 0xff00_0000), (4, 0, 0x0102_0304)),
    ];
    let mut v4 = Vec::new();
    v4_builder_to(V4_FAR).udp(1, 2).write(&mut v4, b"payload").unwrap();
    let mut v6 = Vec::new();
    v6_builder_to(V6_FAR).udp(1, 2).write(&mut v6, b"payload").unwrap();
    for (error, in_v4, in_v6) in table {
        for (frame, (kind, code, rest), is_v6) in [(&v4, in_v4, false), (&v6, in_v6, true)] {
            let expected = (kind, code, u32::to_be_bytes(rest), frame[14..].to_vec());
            assert_eq!(check_error(error, frame, is_v6), expected, "{error:?}");
        }
    }
}

#[test]
fn an_unknown_protocol_is_pointed_at_behind_extension_headers() {
    let mut frame = Vec::new();
    v6_builder_to(V6_FAR).write(&mut frame, IpNumber(60), &[253, 0, 1, 4, 0, 0, 0, 0, 9]).unwrap();
    let (kind, code, pointer, _) = check_error(IcmpError::ProtocolUnreachable, &frame, true);
    assert_eq!((kind, code, u32::from_be_bytes(pointer)), (4, 1, 40));
}

#[test]
fn an_error_quotes_what_came_in_as_far_as_it_fits() {
    for (v6, most) in [(false, 576 - 28), (true, 1280 - 48)] {
        for len in [0, 1, 500, 511, 512, 513, 1183, 1184, 1185, 3000, 60_000] {
            let mut frame = Vec::new();
            if v6 {
                v6_builder_to(V6_FAR).udp(1, 2).write(&mut frame, &vec![0xab; len]).unwrap();
            } else {
                v4_builder_to(V4_FAR).udp(1, 2).write(&mut frame, &vec![0xab; len]).unwrap();
            }
            // A checksum that was left to a device is quoted as it is.
            let field = if v6 { 60 } else { 40 };
            frame[field] ^= 0x55;
            let packet = frame[14..].to_vec();
            frame.extend([0xee; 6]);
            let (.., quote) = check_error(IcmpError::TtlExceeded, &frame, v6);
            assert_eq!(quote, packet[..packet.len().min(most)]);
        }
    }
}

#[test]
fn an_error_from_the_other_family_is_not_made() {
    let mut frame = Vec::new();
    v4_builder_to(V4_FAR).udp(1, 2).write(&mut frame, &[]).unwrap();
    assert_eq!(error_about(IcmpError::NoRoute, &frame, V6_ROUTER.into()), None);
}

#[test]
fn an_error_may_be_cut_and_carries_the_identification_of_its_cause() {
    let mut frame = Vec::new();
    v4_builder_to(V4_FAR).udp(1, 2).write(&mut frame, &[]).unwrap();
    frame[18..20].copy_from_slice(&[0xbe, 0xef]);
    wire::Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    let made = error_about(IcmpError::NoRoute, &frame, V4_ROUTER.into()).unwrap();
    let packet = wire::Ipv4Packet::new_checked(&made[14..]).unwrap();
    assert_eq!((packet.ident(), packet.dont_frag()), (0xbeef, false));
}

// ---------------------------------------------------------------------------------------------------------------------
// Resets.

fn segment(v6: bool, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let mut header = etherparse::TcpHeader::new(40_000, 80, seq, 1000);
    header.acknowledgment_number = ack;
    (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    (header.psh, header.ack, header.urg) = (flags & 8 != 0, flags & 16 != 0, flags & 32 != 0);
    header.set_options_raw(&[1, 1, 1, 1]).unwrap();
    let mut frame = Vec::new();
    if v6 {
        v6_builder_to(V6_ROUTER).tcp_header(header).write(&mut frame, data).unwrap();
    } else {
        v4_builder().tcp_header(header).write(&mut frame, data).unwrap();
    }
    frame
}

fn reset_of(frame: &[u8]) -> Option<Vec<u8>> {
    let (link, network) = read(frame);
    let Network::Ip(ip) = network else { panic!("not IP") };
    emitted(|pool| tcp_reset(pool, frame, &link, &ip))
}

#[test]
fn a_reset_obeys_rfc_9293_section_3_5_2() {
    const SYN: u8 = 2;
    const FIN: u8 = 1;
    const ACK: u8 = 16;
    let long = vec![0; 60_000];
    for v6 in [false, true] {
        for (flags, seq, ack, data, expected) in [
            (SYN, 100, 0, &b""[..], (0, Some(101))),
            (SYN, u32::MAX, 0, b"", (0, Some(0))),
            (SYN | FIN, 100, 0, b"abc", (0, Some(105))),
            (0, 100, 0, b"abc", (0, Some(103))),
            (0, u32::MAX - 1, 0, &long, (0, Some(59_998))),
            (ACK, 100, 777, b"abc", (777, None)),
            (SYN | ACK, 100, 0x8000_0001, b"", (0x8000_0001, None)),
            (FIN | ACK, 100, u32::MAX, b"abc", (u32::MAX, None)),
        ] {
            let made = reset_of(&segment(v6, flags, seq, ack, data)).unwrap();
            let (link, ip) = read_ip(&made);
            assert_eq!((link.source, link.destination), (ROUTER, CLIENT));
            let addresses: (IpAddr, IpAddr) =
                if v6 { (V6_ROUTER.into(), V6_CLIENT.into()) } else { (V4_ROUTER.into(), V4_CLIENT.into()) };
            assert_eq!(((ip.source, ip.destination), ip.hop_limit), (addresses, 64));
            let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(&made).unwrap().transport else {
                panic!("not TCP")
            };
            assert_eq!((tcp.source_port(), tcp.destination_port(), tcp.window_size()), (80, 40_000, 0));
            let (expected_seq, expected_ack) = expected;
            assert!(tcp.rst() && !tcp.syn() && !tcp.fin() && !tcp.psh());
            assert_eq!((tcp.sequence_number(), tcp.ack()), (expected_seq, expected_ack.is_some()));
            assert_eq!(tcp.acknowledgment_number(), expected_ack.unwrap_or(0));
            assert_eq!((tcp.header_len(), tcp.payload().len()), (20, 0));
            assert_eq!(tcp.urgent_pointer(), 0);
            assert_eq!(reset_of(&made), None, "a reset is never reset");
        }
    }
}

#[test]
fn no_reset_for_what_is_not_a_unicast_segment() {
    let mut frame = Vec::new();
    v4_builder().udp(1, 2).write(&mut frame, &[]).unwrap();
    assert_eq!(reset_of(&frame), None);
    let mut frame = segment(false, 2, 1, 0, &[]);
    frame[0] = 0xff;
    assert_eq!(reset_of(&frame), None, "to a link-layer group");
    let mut frame = segment(true, 2, 1, 0, &[]);
    frame[38] = 0xff;
    assert_eq!(reset_of(&frame), None, "to a group");
    let mut frame = segment(false, 2, 1, 0, &[]);
    frame[20] = 0x20;
    wire::Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    assert_eq!(reset_of(&frame), None, "a fragment");
}

// ---------------------------------------------------------------------------------------------------------------------

proptest! {
    #[test]
    fn answers_to_random_packets_are_sound(
        v6: bool,
        protocol in prop::sample::select(vec![1u8, 6, 17, 58, 132, 253]),
        payload in proptest::collection::vec(any::<u8>(), 0..1600),
        kind in 0u8..12,
        pointer: u32,
        mtu: u16,
    ) {
        let mut frame = Vec::new();
        let number = IpNumber(protocol);
        if v6 {
            v6_builder_to(V6_FAR).write(&mut frame, number, &payload).unwrap();
        } else {
            v4_builder_to(V4_FAR).write(&mut frame, number, &payload).unwrap();
        }
        let link = parse::link(&frame).unwrap();
        let Ok(Network::Ip(ip)) = parse::network(&frame, &link) else { return Ok(()) };
        let error = match kind {
            0 => IcmpError::TtlExceeded,
            1 => IcmpError::NoRoute,
            2 => IcmpError::AddressUnreachable,
            3 => IcmpError::PortUnreachable,
            4 => IcmpError::ProtocolUnreachable,
            5 => IcmpError::AdminProhibited,
            6 => IcmpError::BeyondScope,
            7 => IcmpError::PacketTooBig { mtu },
            _ => IcmpError::ParameterProblem { pointer },
        };
        let (.., quote) = check_error(error, &frame, v6);
        prop_assert!(frame[14..].starts_with(&quote));
        let reply = emitted(|pool| echo_reply(pool, &frame, &link, &ip));
        let reset = emitted(|pool| tcp_reset(pool, &frame, &link, &ip));
        for answer in reply.iter().chain(&reset) {
            read_ip(answer);
        }
    }
}

#[test]
fn a_router_advertisement_is_read_by_smoltcp_and_says_all_of_it() {
    use crate::config::{AdvertisedPrefix, RouterAdvertisement};
    let prefix = |text: &str| AdvertisedPrefix::new(text.parse().unwrap());
    for (managed, other, mtu, prefixes, servers, final_) in [
        (false, false, false, 0usize, 0usize, false),
        (true, false, true, 1, 0, false),
        (false, true, true, 1, 2, false),
        (true, true, false, 1, 1, true),
        (false, false, true, 20, 30, false),
    ] {
        let advertisement = RouterAdvertisement {
            managed,
            other,
            mtu,
            prefixes: vec![prefix("2001:db8:1::/64"); prefixes],
            dns_servers: vec![V6_FAR; servers],
            ..RouterAdvertisement::default()
        };
        let frame = emitted(|pool| router_advertisement(pool, ROUTER, &advertisement, 1420, final_)).unwrap();
        let (link, ip) = read_ip(&frame);
        assert_eq!((link.source, link.destination), (ROUTER, MacAddr([0x33, 0x33, 0, 0, 0, 1])));
        assert_eq!((ip.source, ip.hop_limit), (ROUTER.link_local().into(), 255));
        assert_eq!(parse::neighbor_discovery(&frame, &ip), Ok(Some(NeighborDiscovery::RouterAdvert)));
        let message = wire::Icmpv6Packet::new_checked(&frame[54..]).unwrap();
        let wire::NdiscRepr::RouterAdvert {
            hop_limit,
            flags,
            router_lifetime,
            reachable_time,
            retrans_time,
            lladdr,
            mtu: told,
            prefix_info,
        } = wire::NdiscRepr::parse(&message).unwrap()
        else {
            panic!("another message")
        };
        let mut expected = wire::NdiscRouterFlags::empty();
        expected.set(wire::NdiscRouterFlags::MANAGED, managed);
        expected.set(wire::NdiscRouterFlags::OTHER, other);
        assert_eq!((hop_limit, flags), (64, expected));
        assert_eq!(router_lifetime.secs(), if final_ { 0 } else { 1800 });
        assert_eq!((reachable_time.millis(), retrans_time.millis()), (0, 0));
        assert_eq!(lladdr, Some(wire::EthernetAddress(ROUTER.0).into()));
        assert_eq!(told, mtu.then_some(1420));
        assert_eq!(prefix_info.is_some(), prefixes > 0);
        if let Some(info) = prefix_info {
            assert_eq!((info.prefix_len, info.prefix), (64, "2001:db8:1::".parse().unwrap()));
            let both = wire::NdiscPrefixInfoFlags::ON_LINK | wire::NdiscPrefixInfoFlags::ADDRCONF;
            assert_eq!(info.flags, both);
            assert_eq!((info.valid_lifetime.secs(), info.preferred_lifetime.secs()), (2_592_000, 604_800));
        }
        assert_eq!(dns_servers(&frame[70..]), (vec![V6_FAR; servers], (servers > 0).then_some(1800)));
        assert!(frame.len() <= 14 + 1280);
    }
}

/// Servers and lifetime of the DNS option among `options` (RFC 8106 section 5.1).
fn dns_servers(mut options: &[u8]) -> (Vec<Ipv6Addr>, Option<u32>) {
    let (mut servers, mut lifetime) = (Vec::new(), None);
    while let [kind, units, ..] = *options {
        let (option, rest) = options.split_at(usize::from(units) * 8);
        if kind == 25 {
            lifetime = Some(u32::from_be_bytes(option[4..8].try_into().unwrap()));
            let octets = |o: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(o).unwrap());
            servers.extend(option[8..].chunks(16).map(octets));
        }
        options = rest;
    }
    (servers, lifetime)
}
