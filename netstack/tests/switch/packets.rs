//! Frames for the tests, and the judgement of frames that come out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder,
    PacketBuilderStep,
};
use netstack::addr::MacAddr;
use smoltcp::wire;

pub(crate) const BROADCAST: MacAddr = MacAddr::BROADCAST;

/// The parts of a packet that tests care about; everything else gets a usual value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) from: MacAddr,
    pub(crate) to: MacAddr,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) id: u16,
}

impl Packet {
    pub(crate) fn new(from: MacAddr, to: MacAddr, source: IpAddr, destination: IpAddr) -> Self {
        Self { from, to, source, destination, hop_limit: 64, dont_fragment: true, id: 7 }
    }

    fn headers(&self) -> IpHeaders {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4Header {
                    time_to_live: self.hop_limit,
                    dont_fragment: self.dont_fragment,
                    identification: self.id,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Default::default()
                };
                IpHeaders::Ipv4(header, Default::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    hop_limit: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
            _ => panic!("addresses of two families"),
        }
    }

    fn builder(&self) -> PacketBuilderStep<IpHeaders> {
        PacketBuilder::ethernet2(self.from.0, self.to.0).ip(self.headers())
    }

    pub(crate) fn udp(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().udp(source_port, destination_port).write(&mut frame, payload).unwrap();
        frame
    }

    pub(crate) fn tcp_syn(&self, source_port: u16, destination_port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().tcp(source_port, destination_port, 1000, 4096).syn().write(&mut frame, &[]).unwrap();
        frame
    }

    pub(crate) fn tcp(&self, source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = self.builder().tcp(source_port, destination_port, 1000, 4096).ack(5).psh();
        step.write(&mut frame, payload).unwrap();
        frame
    }

    pub(crate) fn echo(&self, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.source {
            IpAddr::V4(_) => {
                self.builder().icmpv4_echo_request(id, sequence).write(&mut frame, payload).unwrap();
            }
            IpAddr::V6(_) => {
                self.builder().icmpv6_echo_request(id, sequence).write(&mut frame, payload).unwrap();
            }
        }
        frame
    }

    /// A SYN that announces what it can take.
    pub(crate) fn tcp_syn_mss(&self, source_port: u16, destination_port: u16, mss: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = self.builder().tcp(source_port, destination_port, 1000, 4096).syn();
        let step = step.options(&[etherparse::TcpOptionElement::MaximumSegmentSize(mss)]).unwrap();
        step.write(&mut frame, &[]).unwrap();
        frame
    }

    /// A segment without data, by its flags, sequence number and acknowledgement.
    pub(crate) fn tcp_segment(
        &self,
        source_port: u16,
        destination_port: u16,
        flags: u8,
        (sequence, acknowledgement): (u32, u32),
    ) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = self.builder().tcp(source_port, destination_port, sequence, 4096).ack(acknowledgement);
        step.write(&mut frame, &[]).unwrap();
        with_tcp_flags(frame, flags)
    }

    /// The answer to a SYN with the sequence number before `acknowledgement`.
    pub(crate) fn tcp_syn_ack(
        &self,
        source_port: u16,
        destination_port: u16,
        acknowledgement: u32,
    ) -> Vec<u8> {
        let mut frame = Vec::new();
        let step = self.builder().tcp(source_port, destination_port, 9000, 4096).syn().ack(acknowledgement);
        step.write(&mut frame, &[]).unwrap();
        frame
    }

    pub(crate) fn echo_reply(&self, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.source {
            IpAddr::V4(_) => {
                self.builder().icmpv4_echo_reply(id, sequence).write(&mut frame, payload).unwrap();
            }
            IpAddr::V6(_) => {
                self.builder().icmpv6_echo_reply(id, sequence).write(&mut frame, payload).unwrap();
            }
        }
        frame
    }

    /// An ICMP or ICMPv6 message by type and code.
    pub(crate) fn icmp(&self, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        match self.source {
            IpAddr::V4(_) => {
                self.builder().icmpv4_raw(kind, code, rest).write(&mut frame, payload).unwrap();
            }
            IpAddr::V6(_) => {
                self.builder().icmpv6_raw(kind, code, rest).write(&mut frame, payload).unwrap();
            }
        }
        frame
    }

    /// Any upper layer, its octets given.
    pub(crate) fn protocol(&self, number: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.builder().write(&mut frame, IpNumber(number), payload).unwrap();
        frame
    }
}

/// An ARP packet in a frame.
pub(crate) fn arp(
    operation: ArpOperation,
    (from, to): (MacAddr, MacAddr),
    (sender_mac, sender): (MacAddr, Ipv4Addr),
    (target_mac, target): (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender_mac.0,
        sender_ipv4: sender.octets(),
        target_mac: target_mac.0,
        target_ipv4: target.octets(),
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(from.0, to.0).arp(packet.into()).write(&mut frame).unwrap();
    frame
}

/// A question of either family for `target`: ARP request or neighbour solicitation, with the sender's MAC address in it.
/// An unspecified sender makes it a probe.
pub(crate) fn ask(from: MacAddr, sender: IpAddr, target: IpAddr) -> Vec<u8> {
    match (sender, target) {
        (IpAddr::V4(sender), IpAddr::V4(target)) => {
            arp(ArpOperation::REQUEST, (from, BROADCAST), (from, sender), (MacAddr::ZERO, target))
        }
        (IpAddr::V6(sender), IpAddr::V6(target)) => {
            let group = solicited_node(target);
            let option = (!sender.is_unspecified()).then_some((1, from));
            let to = MacAddr::for_multicast(group.into());
            discovery(Packet::new(from, to, sender.into(), group.into()), 135, [0; 4], target, option)
        }
        _ => panic!("addresses of two families"),
    }
}

/// A solicited answer: "`address` is at `from`".
pub(crate) fn tell(from: MacAddr, address: IpAddr, to: MacAddr, asker: IpAddr) -> Vec<u8> {
    match (address, asker) {
        (IpAddr::V4(address), IpAddr::V4(asker)) => {
            arp(ArpOperation::REPLY, (from, to), (from, address), (to, asker))
        }
        (IpAddr::V6(address), IpAddr::V6(asker)) => {
            let packet = Packet::new(from, to, address.into(), asker.into());
            discovery(packet, 136, [0x60, 0, 0, 0], address, Some((2, from)))
        }
        _ => panic!("addresses of two families"),
    }
}

/// An announcement to everybody: "`address` is at `from`".
pub(crate) fn announce(from: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => {
            arp(ArpOperation::REQUEST, (from, BROADCAST), (from, address), (MacAddr::ZERO, address))
        }
        IpAddr::V6(address) => {
            let all = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
            let packet = Packet::new(from, MacAddr::for_multicast(all), address.into(), all);
            discovery(packet, 136, [0x20, 0, 0, 0], address, Some((2, from)))
        }
    }
}

/// A neighbour discovery message with a target and at most one link-layer address option.
pub(crate) fn discovery(
    mut packet: Packet,
    kind: u8,
    flags: [u8; 4],
    target: Ipv6Addr,
    option: Option<(u8, MacAddr)>,
) -> Vec<u8> {
    packet.hop_limit = 255;
    let mut body = target.octets().to_vec();
    if let Some((kind, mac)) = option {
        body.extend([kind, 1]);
        body.extend(mac.0);
    }
    packet.icmp(kind, 0, flags, &body)
}

/// A router advertisement or redirect, which is not a pod's to send.
pub(crate) fn router_message(mut packet: Packet, kind: u8) -> Vec<u8> {
    const ADVERTISEMENT: u8 = 134;
    packet.hop_limit = 255;
    packet.icmp(kind, 0, [64, 0, 0, 0], &[0; 32][..if kind == ADVERTISEMENT { 8 } else { 32 }])
}

pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// A frame of which only the Ethernet header means something.
pub(crate) fn ethernet(from: MacAddr, to: MacAddr, ethertype: u16, len: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0, &ethertype.to_be_bytes()].concat();
    frame.extend((0..len).map(|i| i as u8));
    frame
}

/// The frame with an 802.1Q tag: PCP, DEI and VLAN identifier as one TCI.
pub(crate) fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// The frame with a broken checksum of its upper layer.
pub(crate) fn with_wrong_checksum(mut frame: Vec<u8>, field: usize) -> Vec<u8> {
    frame[field] ^= 0x55;
    frame
}

pub(crate) fn mac_to(frame: &[u8]) -> MacAddr {
    MacAddr(frame[..6].try_into().unwrap())
}

pub(crate) fn mac_from(frame: &[u8]) -> MacAddr {
    MacAddr(frame[6..12].try_into().unwrap())
}

/// What a router must do to a frame: other MAC addresses, TTL or hop limit down by one.
pub(crate) fn as_routed(frame: &[u8], from: MacAddr, to: MacAddr) -> Vec<u8> {
    let mut routed = readdressed(frame, from, to);
    match routed[14] >> 4 {
        4 => {
            let mut packet = wire::Ipv4Packet::new_unchecked(&mut routed[14..]);
            packet.set_hop_limit(packet.hop_limit() - 1);
            packet.fill_checksum();
        }
        _ => routed[21] -= 1,
    }
    routed
}

/// The same packet on another link.
pub(crate) fn readdressed(frame: &[u8], from: MacAddr, to: MacAddr) -> Vec<u8> {
    [&to.0[..], &from.0, &frame[12..]].concat()
}

/// An ICMP error: who sent it to whom, type, code, the four octets behind the checksum, the quote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IcmpMessage {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) rest: u32,
    pub(crate) body: Vec<u8>,
}

/// Reads an ICMP or ICMPv6 message; checks all its checksums.
pub(crate) fn icmp(frame: &[u8]) -> IcmpMessage {
    sound(frame);
    let packet = &frame[14..];
    let (source, destination, message): (IpAddr, IpAddr, &[u8]) = match packet[0] >> 4 {
        4 => {
            let packet = wire::Ipv4Packet::new_checked(packet).unwrap();
            assert_eq!(packet.next_header(), wire::IpProtocol::Icmp);
            (packet.src_addr().into(), packet.dst_addr().into(), packet.payload())
        }
        _ => {
            let packet = wire::Ipv6Packet::new_checked(packet).unwrap();
            assert_eq!(packet.next_header(), wire::IpProtocol::Icmpv6);
            (packet.src_addr().into(), packet.dst_addr().into(), packet.payload())
        }
    };
    IcmpMessage {
        source,
        destination,
        kind: message[0],
        code: message[1],
        rest: u32::from_be_bytes(message[4..8].try_into().unwrap()),
        body: message[8..].to_vec(),
    }
}

/// Fails unless every length and checksum of an untagged frame is right: what a plain port must get.
pub(crate) fn sound(frame: &[u8]) {
    let ethernet = wire::EthernetFrame::new_checked(frame).unwrap();
    match ethernet.ethertype() {
        wire::EthernetProtocol::Ipv4 => {
            let packet = wire::Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            assert!(packet.verify_checksum(), "IPv4 header checksum");
            if !packet.more_frags() && packet.frag_offset() == 0 {
                let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
                upper(packet.next_header(), packet.payload(), source, destination);
            }
        }
        wire::EthernetProtocol::Ipv6 => {
            let packet = wire::Ipv6Packet::new_checked(ethernet.payload()).unwrap();
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            upper(packet.next_header(), packet.payload(), source, destination);
        }
        wire::EthernetProtocol::Arp => {
            wire::ArpPacket::new_checked(ethernet.payload()).unwrap();
        }
        wire::EthernetProtocol::Unknown(_) => {}
    }
}

fn upper(protocol: wire::IpProtocol, payload: &[u8], source: wire::IpAddress, destination: wire::IpAddress) {
    let good = match (protocol, source, destination) {
        (wire::IpProtocol::Tcp, ..) => {
            wire::TcpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination)
        }
        (wire::IpProtocol::Udp, ..) => {
            wire::UdpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination)
        }
        (wire::IpProtocol::Icmp, ..) => wire::Icmpv4Packet::new_checked(payload).unwrap().verify_checksum(),
        (wire::IpProtocol::Icmpv6, wire::IpAddress::Ipv6(source), wire::IpAddress::Ipv6(destination)) => {
            wire::Icmpv6Packet::new_checked(payload).unwrap().verify_checksum(&source, &destination)
        }
        _ => true,
    };
    assert!(good, "{protocol} checksum from {source} to {destination}");
}

/// Whether a frame is an ARP request or neighbour solicitation for `target`, and to which MAC address.
pub(crate) fn asked_for(frame: &[u8], target: IpAddr) -> Option<MacAddr> {
    let found = match (wire::EthernetFrame::new_checked(frame).ok()?.ethertype(), target) {
        (wire::EthernetProtocol::Arp, IpAddr::V4(target)) => {
            let packet = wire::ArpPacket::new_checked(&frame[14..]).ok()?;
            packet.operation() == wire::ArpOperation::Request
                && packet.target_protocol_addr() == target.octets()
        }
        (wire::EthernetProtocol::Ipv6, IpAddr::V6(target)) => {
            frame[20] == 58 && frame[54] == 135 && frame[62..78] == target.octets()
        }
        _ => false,
    };
    found.then(|| mac_to(frame))
}

/// Who an ARP reply or neighbour advertisement says where to be: address, MAC address, receiver.
pub(crate) fn told(frame: &[u8]) -> Option<(IpAddr, MacAddr, MacAddr)> {
    match wire::EthernetFrame::new_checked(frame).ok()?.ethertype() {
        wire::EthernetProtocol::Arp => {
            let packet = wire::ArpPacket::new_checked(&frame[14..]).ok()?;
            let address: [u8; 4] = packet.source_protocol_addr().try_into().ok()?;
            let mac = MacAddr(packet.source_hardware_addr().try_into().ok()?);
            (packet.operation() == wire::ArpOperation::Reply).then(|| (address.into(), mac, mac_to(frame)))
        }
        wire::EthernetProtocol::Ipv6 if frame[20] == 58 && frame[54] == 136 => {
            sound(frame);
            let target: [u8; 16] = frame[62..78].try_into().ok()?;
            assert_eq!(frame[78..80], [2, 1], "the target's link-layer address is told");
            Some((target.into(), MacAddr(frame[80..86].try_into().ok()?), mac_to(frame)))
        }
        wire::EthernetProtocol::Ipv4 | wire::EthernetProtocol::Ipv6 | wire::EthernetProtocol::Unknown(_) => {
            None
        }
    }
}

/// The address that a question for a neighbour comes from.
pub(crate) fn asker(frame: &[u8]) -> IpAddr {
    match wire::EthernetFrame::new_checked(frame).unwrap().ethertype() {
        wire::EthernetProtocol::Arp => {
            let packet = wire::ArpPacket::new_checked(&frame[14..]).unwrap();
            IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.source_protocol_addr()).unwrap()))
        }
        wire::EthernetProtocol::Ipv6 => {
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap()))
        }
        wire::EthernetProtocol::Ipv4 | wire::EthernetProtocol::Unknown(_) => panic!("it asks for nobody"),
    }
}

/// Makes the header checksum of an IPv4 packet right again.
pub(crate) fn fix_ipv4_checksum(packet: &mut [u8]) {
    wire::Ipv4Packet::new_unchecked(packet).fill_checksum();
}

/// The same segment with other flags.
pub(crate) fn with_tcp_flags(mut frame: Vec<u8>, flags: u8) -> Vec<u8> {
    let at = if frame[14] >> 4 == 4 { 34 } else { 54 };
    frame[at + 13] = flags;
    let (source, destination): (wire::IpAddress, wire::IpAddress) = match at {
        34 => {
            let packet = wire::Ipv4Packet::new_checked(&frame[14..]).unwrap();
            (packet.src_addr().into(), packet.dst_addr().into())
        }
        _ => {
            let packet = wire::Ipv6Packet::new_checked(&frame[14..]).unwrap();
            (packet.src_addr().into(), packet.dst_addr().into())
        }
    };
    wire::TcpPacket::new_unchecked(&mut frame[at..]).fill_checksum(&source, &destination);
    frame
}

/// A frame's packet in fragments with `size` octets of its payload each, a multiple of 8.
pub(crate) fn fragment(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let v4 = frame[14] >> 4 == 4;
    let (header, payload) = frame.split_at(if v4 { 34 } else { 54 });
    let pieces = payload.chunks(size).count();
    let cut = |(at, piece): (usize, &[u8])| {
        let (offset, more) = ((at * size) as u16, at + 1 < pieces);
        let mut out = header.to_vec();
        if v4 {
            out[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            out[20..22].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            fix_ipv4_checksum(&mut out[14..]);
        } else {
            out[18..20].copy_from_slice(&(8 + piece.len() as u16).to_be_bytes());
            let upper = std::mem::replace(&mut out[20], 44);
            out.extend([upper, 0]);
            out.extend((offset | u16::from(more)).to_be_bytes());
            out.extend([0, 0, 0x12, 0x34]);
        }
        out.extend_from_slice(piece);
        out
    };
    payload.chunks(size).enumerate().map(cut).collect()
}

/// The frame whose packet came in these fragments, in any order; all must have the same identification.
pub(crate) fn reassemble<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut sorted: Vec<(u16, &[u8], Vec<u8>)> = pieces
        .map(|frame| {
            let v4 = frame[14] >> 4 == 4;
            let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            let (offset, payload, id) = if v4 {
                ((word(20) & 0x1fff) * 8, 34, &frame[18..20])
            } else {
                (word(56) & 0xfff8, 62, &frame[58..62])
            };
            (offset, &frame[..payload], [id, &frame[payload..]].concat())
        })
        .collect();
    sorted.sort_by_key(|(offset, ..)| *offset);
    let first = sorted[0].1;
    let v4 = first[14] >> 4 == 4;
    let id = if v4 { 2 } else { 4 };
    let mut out = first[..if v4 { 34 } else { 54 }].to_vec();
    for (offset, _, tail) in &sorted {
        assert_eq!(tail[..id], sorted[0].2[..id], "one identification");
        assert_eq!(usize::from(*offset), out.len() - if v4 { 34 } else { 54 }, "no gap");
        out.extend_from_slice(&tail[id..]);
    }
    let length = (out.len() - if v4 { 14 } else { 54 }) as u16;
    if v4 {
        out[16..18].copy_from_slice(&length.to_be_bytes());
        out[20..22].fill(0);
        fix_ipv4_checksum(&mut out[14..]);
    } else {
        out[18..20].copy_from_slice(&length.to_be_bytes());
        out[20] = first[54];
    }
    out
}

/// What the receiver of a packet of UDP or TCP answers, by the way that it came.
pub(crate) fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let headers = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match headers.net? {
        etherparse::NetSlice::Ipv4(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::NetSlice::Ipv6(ip) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        etherparse::NetSlice::Arp(_) => return None,
    };
    let back = Packet::new(mac_to(frame), mac_from(frame), destination, source);
    match headers.transport? {
        etherparse::TransportSlice::Udp(udp) => {
            Some(back.udp(udp.destination_port(), udp.source_port(), b"answer"))
        }
        etherparse::TransportSlice::Tcp(tcp) => {
            const SERVER: u32 = 9000;
            let (from, to) = (tcp.destination_port(), tcp.source_port());
            let sequence = tcp.sequence_number();
            match (tcp.syn(), tcp.ack(), tcp.rst()) {
                (true, false, false) => {
                    Some(back.tcp_segment(from, to, 0x12, (SERVER, sequence.wrapping_add(1))))
                }
                (false, true, false) => {
                    let length = u32::try_from(tcp.payload().len()).unwrap() + u32::from(tcp.fin());
                    let next = sequence.wrapping_add(length);
                    // Whoever hears an end ends as well.
                    let flags = if tcp.fin() { 0x11 } else { 0x10 };
                    Some(back.tcp_segment(from, to, flags, (tcp.acknowledgment_number(), next)))
                }
                _ => None,
            }
        }
        etherparse::TransportSlice::Icmpv4(_)
        | etherparse::TransportSlice::Icmpv6(_)
        | etherparse::TransportSlice::Igmp(_) => None,
    }
}
