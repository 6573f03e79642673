//! The frames this stack makes itself, built by `smoltcp::wire`.
//!
//! Every function takes a frame from the pool and returns it finished: untagged (a tag belongs to the port it leaves
//! by), unpadded, with complete checksums. Whether such a frame may be made at all, and how often, is decided by the
//! caller; what is here knows only what it has to look like.
//!
//! An answer goes back the way its question came: Ethernet and IP addresses are those of the question, exchanged. So
//! it must have been sent to a unicast address of ours, which the functions hold as far as they can see it.

mod icmp;
mod neighbor;
mod router;
mod tcp;
#[cfg(test)]
mod tests;

pub use icmp::{IcmpError, echo_reply, icmp_error};
pub use neighbor::{
    ALL_NODES, arp_announcement, arp_reply, arp_request, neighbor_advertisement, neighbor_announcement,
    neighbor_answer, neighbor_probe, neighbor_question, neighbor_solicitation, solicited_node,
};
pub use router::router_advertisement;
pub use tcp::tcp_reset;

use core::net::IpAddr;

use nat::checksum;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire;

use crate::addr::MacAddr;
use crate::frame::{Frame, FramePool};
use crate::parse::{ETHERNET_HEADER, Ip};

/// TTL and hop limit of what is not bound to the link (RFC 1700's recommendation).
const HOP_LIMIT: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// What differs between the IP headers made here.
struct Header {
    source: IpAddr,
    destination: IpAddr,
    protocol: wire::IpProtocol,
    hop_limit: u8,
    /// Type of service or traffic class.
    class: u8,
    /// IPv4 identification; without one the datagram is atomic (RFC 6864 section 4.1) and must not be fragmented.
    id: Option<u16>,
}

/// A frame with an Ethernet header and `len` octets to write behind it.
fn ethernet(
    pool: &mut FramePool,
    source: MacAddr,
    destination: MacAddr,
    ethertype: wire::EthernetProtocol,
    len: usize,
) -> Frame {
    let mut frame = pool.take(ETHERNET_HEADER + len);
    wire::EthernetRepr {
        src_addr: wire::EthernetAddress(source.0),
        dst_addr: wire::EthernetAddress(destination.0),
        ethertype,
    }
    .emit(&mut wire::EthernetFrame::new_unchecked(frame.bytes_mut()));
    frame
}

/// A frame with Ethernet and IP headers and `len` octets to write behind them, and where those begin. `None` if the
/// addresses are not of one family, or if the packet would be longer than a packet can be.
fn packet(
    pool: &mut FramePool,
    source_mac: MacAddr,
    destination_mac: MacAddr,
    header: &Header,
    len: usize,
) -> Option<(Frame, usize)> {
    match (header.source, header.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            u16::try_from(IPV4_HEADER + len).ok()?;
            let ethertype = wire::EthernetProtocol::Ipv4;
            let mut frame = ethernet(pool, source_mac, destination_mac, ethertype, IPV4_HEADER + len);
            let mut packet = wire::Ipv4Packet::new_unchecked(&mut frame.bytes_mut()[ETHERNET_HEADER..]);
            wire::Ipv4Repr {
                src_addr: source,
                dst_addr: destination,
                next_header: header.protocol,
                payload_len: len,
                hop_limit: header.hop_limit,
            }
            .emit(&mut packet, &ChecksumCapabilities::ignored());
            packet.set_dscp(header.class >> 2);
            packet.set_ecn(header.class & 3);
            packet.set_dont_frag(header.id.is_none());
            packet.set_ident(header.id.unwrap_or(0));
            packet.fill_checksum();
            Some((frame, ETHERNET_HEADER + IPV4_HEADER))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            u16::try_from(len).ok()?;
            let ethertype = wire::EthernetProtocol::Ipv6;
            let mut frame = ethernet(pool, source_mac, destination_mac, ethertype, IPV6_HEADER + len);
            let mut packet = wire::Ipv6Packet::new_unchecked(&mut frame.bytes_mut()[ETHERNET_HEADER..]);
            wire::Ipv6Repr {
                src_addr: source,
                dst_addr: destination,
                next_header: header.protocol,
                payload_len: len,
                hop_limit: header.hop_limit,
            }
            .emit(&mut packet);
            packet.set_traffic_class(header.class);
            Some((frame, ETHERNET_HEADER + IPV6_HEADER))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Fills in the checksum of the ICMP or ICMPv6 message that begins at `at` and goes on to the frame's end.
fn fill_icmp_checksum(frame: &mut Frame, at: usize, header: &Header) {
    let message = &mut frame.bytes_mut()[at..];
    let pseudo = match header.source {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            checksum::pseudo_header(header.source, header.destination, header.protocol.into(), length)
        }
    };
    message[2..4].fill(0);
    let checksum = !checksum::fold(pseudo + checksum::sum(message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// Type of service or traffic class, and IPv4 identification, of a packet that came in.
fn class_and_id(frame: &[u8], ip: &Ip) -> (u8, u16) {
    let octet = |at: usize| frame.get(ip.offset + at).copied().unwrap_or(0);
    match ip.source {
        IpAddr::V4(_) => (octet(1), u16::from_be_bytes([octet(4), octet(5)])),
        IpAddr::V6(_) => (octet(0) << 4 | octet(1) >> 4, 0),
    }
}
