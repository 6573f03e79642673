//! Frame bytes to fields, for a host. The one place of this module that reads headers.

use core::net::IpAddr;

use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetFrame, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6FragmentHeader, Ipv6Packet,
    TcpPacket, UdpPacket,
};

use crate::addr::MacAddr;
use crate::parse::{Arp, Fragment, Ip, Link, Network, Transport, ethertype, protocol};
use crate::verdict::DropReason;

/// IPv6 extension headers followed before a packet is given up.
const EXTENSION_HEADERS: usize = 8;

/// Reads a frame down to the upper layer's ports.
pub(super) fn frame(bytes: &[u8]) -> Result<(Link, Network), DropReason> {
    let frame = EthernetFrame::new_checked(bytes).map_err(|_| DropReason::FrameTooShort)?;
    let link = Link {
        destination: MacAddr(frame.dst_addr().0),
        source: MacAddr(frame.src_addr().0),
        tag: None,
        ethertype: frame.ethertype().into(),
        payload: 14,
    };
    let network = match link.ethertype {
        ethertype::ARP => Network::Arp(arp(frame.payload())?),
        ethertype::IPV4 => Network::Ip(ipv4(bytes, link.payload)?),
        ethertype::IPV6 => Network::Ip(ipv6(bytes, link.payload)?),
        ethertype::VLAN => return Err(DropReason::VlanNotAllowed),
        _ => Network::Other,
    };
    Ok((link, network))
}

fn arp(payload: &[u8]) -> Result<Arp, DropReason> {
    let malformed = DropReason::ArpMalformed;
    let packet = ArpPacket::new_checked(payload).map_err(|_| malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_hardware_addr,
        target_protocol_addr,
    } = ArpRepr::parse(&packet).map_err(|_| malformed)?
    else {
        return Err(malformed);
    };
    Ok(Arp {
        operation: operation.into(),
        sender_mac: MacAddr(source_hardware_addr.0),
        sender: source_protocol_addr,
        target_mac: MacAddr(target_hardware_addr.0),
        target: target_protocol_addr,
    })
}

fn ipv4(bytes: &[u8], offset: usize) -> Result<Ip, DropReason> {
    let packet = Ipv4Packet::new_checked(&bytes[offset..]).map_err(|_| DropReason::Ipv4Truncated)?;
    if packet.version() != 4 {
        return Err(DropReason::Ipv4Version);
    }
    let header = usize::from(packet.header_len());
    if header < 20 {
        return Err(DropReason::Ipv4HeaderLength);
    }
    if !packet.verify_checksum() {
        return Err(DropReason::Ipv4Checksum);
    }
    let fragmented = packet.more_frags() || packet.frag_offset() != 0;
    let fragment = fragmented.then(|| Fragment {
        offset: packet.frag_offset(),
        more: packet.more_frags(),
        id: u32::from(packet.ident()),
    });
    let mut ip = Ip {
        source: IpAddr::V4(packet.src_addr()),
        destination: IpAddr::V4(packet.dst_addr()),
        offset,
        transport_offset: offset + header,
        end: offset + usize::from(packet.total_len()),
        hop_limit: packet.hop_limit(),
        protocol: packet.next_header().into(),
        dont_fragment: packet.dont_frag(),
        fragment,
        source_route: false,
        transport: Transport::Opaque,
    };
    ip.transport = transport(bytes, &ip)?;
    Ok(ip)
}

fn ipv6(bytes: &[u8], offset: usize) -> Result<Ip, DropReason> {
    let packet = Ipv6Packet::new_checked(&bytes[offset..]).map_err(|_| DropReason::Ipv6Truncated)?;
    if packet.version() != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let mut ip = Ip {
        source: IpAddr::V6(packet.src_addr()),
        destination: IpAddr::V6(packet.dst_addr()),
        offset,
        transport_offset: offset + 40,
        end: offset + packet.total_len(),
        hop_limit: packet.hop_limit(),
        protocol: packet.next_header().into(),
        dont_fragment: true,
        fragment: None,
        source_route: false,
        transport: Transport::Opaque,
    };
    for _ in 0..EXTENSION_HEADERS {
        let next = IpProtocol::from(ip.protocol);
        let extension = matches!(
            next,
            IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Frag | IpProtocol::Ipv6Opts
        );
        if !extension || ip.fragment.is_some() {
            ip.transport = transport(bytes, &ip)?;
            return Ok(ip);
        }
        let header = Ipv6ExtHeader::new_checked(&bytes[ip.transport_offset..ip.end])
            .map_err(|_| DropReason::Ipv6ExtensionTruncated)?;
        if next == IpProtocol::Ipv6Frag {
            let fragment = Ipv6FragmentHeader::new_checked(header.payload())
                .map_err(|_| DropReason::Ipv6ExtensionTruncated)?;
            // An atomic fragment is a whole packet (RFC 6946).
            if fragment.more_frags() || fragment.frag_offset() != 0 {
                let (offset, more) = (fragment.frag_offset(), fragment.more_frags());
                ip.fragment = Some(Fragment { offset, more, id: fragment.ident() });
            }
        }
        ip.protocol = header.next_header().into();
        // A fragment header has no length field.
        let words = if next == IpProtocol::Ipv6Frag { 0 } else { usize::from(header.header_len()) };
        ip.transport_offset += (words + 1) * 8;
        if ip.transport_offset > ip.end {
            return Err(DropReason::Ipv6ExtensionTruncated);
        }
    }
    Err(DropReason::Ipv6ExtensionChain)
}

fn transport(bytes: &[u8], ip: &Ip) -> Result<Transport, DropReason> {
    if ip.fragment.is_some() {
        return Ok(Transport::Opaque);
    }
    let payload = &bytes[ip.transport_offset..ip.end];
    Ok(match ip.protocol {
        protocol::TCP => {
            let segment = TcpPacket::new_checked(payload).map_err(|_| DropReason::TcpTruncated)?;
            if usize::from(segment.header_len()) < 20 {
                return Err(DropReason::TcpHeaderLength);
            }
            Transport::Tcp {
                source_port: segment.src_port(),
                destination_port: segment.dst_port(),
                flags: payload[13],
                header_len: usize::from(segment.header_len()),
            }
        }
        protocol::UDP => {
            let datagram = UdpPacket::new_checked(payload).map_err(|_| DropReason::UdpLength)?;
            Transport::Udp { source_port: datagram.src_port(), destination_port: datagram.dst_port() }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let [kind, code, _, _, a, b, _, _, ..] = *payload else {
                return Err(if ip.protocol == protocol::ICMP {
                    DropReason::IcmpTruncated
                } else {
                    DropReason::Icmpv6Truncated
                });
            };
            let echo =
                if ip.protocol == protocol::ICMP { matches!(kind, 0 | 8) } else { matches!(kind, 128 | 129) };
            Transport::Icmp { kind, code, id: echo.then(|| u16::from_be_bytes([a, b])) }
        }
        _ => Transport::Opaque,
    })
}
