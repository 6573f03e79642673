//! Which flow a frame is of, at a glance, where it is as nearly all frames are: whole, untagged, with headers of the usual
//! shape. What is said of such a frame is what [`crate::parse`] would say of it; of every other frame nothing is said.

use core::fmt::Debug;
use core::net::{Ipv4Addr, Ipv6Addr};

use nat::checksum;
use nat::tuple::{Address, Endpoint, Tuple};

use super::cache::Key;
use crate::addr::PortId;
use crate::frame::{Checksum, Frame, SegmentKind};
use crate::offload::MAX_PIECES;
use crate::parse::{ETHERNET_HEADER, protocol};

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The addresses of an Ethernet header, destination first.
pub type Macs = [u8; 12];

/// What tells the packets of a flow from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source and destination port, as they stand in the header.
    pub ports: [u8; 4],
    /// MAC addresses, which say whether it is for the router.
    pub macs: Macs,
    /// The port it came in by.
    pub port: PortId,
    /// TCP or UDP.
    pub protocol: u8,
}

/// What tells the frames between two stations from all others, where nothing but their Ethernet header counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkKey {
    /// MAC addresses.
    pub macs: Macs,
    /// The port it came in by.
    pub port: PortId,
}

impl<A: Family> Key for PacketKey<A> {
    #[inline]
    fn words(&self) -> [u64; 2] {
        [A::mixed(self.source, self.destination), rest(self.ports, self.protocol, self.port)]
    }
}

impl Key for LinkKey {
    #[inline]
    fn words(&self) -> [u64; 2] {
        link_words(&self.macs, self.port)
    }
}

/// A packet, as far as forwarding it needs.
#[derive(Clone, Copy, Debug)]
pub struct Packet<A> {
    /// Its flow.
    pub key: PacketKey<A>,
    /// Where it ends; what follows is padding.
    pub end: u32,
    /// The size of the largest IP packet that it becomes on the wire.
    pub size: u32,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Whether its identification means nothing: IPv6, or IPv4 with DF.
    pub atomic: bool,
}

/// The layout of a family's headers without options or extensions.
pub trait Family: Copy + Eq + Debug {
    /// Where the upper layer begins.
    const UPPER: usize;
    /// The family of TCP's super-frames.
    const TSO: SegmentKind;
    /// A word that differs between pairs of addresses, as a rule.
    fn mixed(source: Self, destination: Self) -> u64;
    /// The addresses and the protocol, as they would stand in an IP header.
    fn peek(frame: &[u8]) -> Option<(Self, Self, u8)>;
    /// Reads the IP header: addresses, protocol, end, TTL, whether it is atomic.
    fn read(frame: &[u8]) -> Option<(Self, Self, u8, usize, u8, bool)>;
}

impl Family for Ipv4Addr {
    const UPPER: usize = ETHERNET_HEADER + 20;
    const TSO: SegmentKind = SegmentKind::TcpV4;

    #[inline]
    fn mixed(source: Self, destination: Self) -> u64 {
        u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits())
    }

    #[inline]
    fn peek(frame: &[u8]) -> Option<(Self, Self, u8)> {
        let header = frame.get(ETHERNET_HEADER..)?.first_chunk::<20>()?;
        let &[.., protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = header;
        Some((Self::new(s0, s1, s2, s3), Self::new(d0, d1, d2, d3), protocol))
    }

    #[inline]
    fn read(frame: &[u8]) -> Option<(Self, Self, u8, usize, u8, bool)> {
        const VERSION_AND_LENGTH: u8 = 0x45;
        const DONT_FRAGMENT: u16 = 0x4000;
        const FRAGMENT: u16 = 0x3fff;
        let header = frame.get(ETHERNET_HEADER..)?.first_chunk::<20>()?;
        let &[first, _, l0, l1, _, _, f0, f1, hop_limit, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            header;
        let position = u16::from_be_bytes([f0, f1]);
        let usual = first == VERSION_AND_LENGTH && position & FRAGMENT == 0;
        if !usual || !checksum::is_valid(checksum::sum(header)) {
            return None;
        }
        let end = ETHERNET_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
        let (source, destination) = (Self::new(s0, s1, s2, s3), Self::new(d0, d1, d2, d3));
        Some((source, destination, protocol, end, hop_limit, position & DONT_FRAGMENT != 0))
    }
}

impl Family for Ipv6Addr {
    const UPPER: usize = ETHERNET_HEADER + 40;
    const TSO: SegmentKind = SegmentKind::TcpV6;

    /// The low halves as they are: who makes many that fall together only slows down his own packets.
    #[inline]
    fn mixed(source: Self, destination: Self) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let fold = |address: Self| {
            let (high, low) = halves(address);
            high.wrapping_mul(ODD) ^ low
        };
        fold(source).wrapping_mul(ODD).rotate_left(32) ^ fold(destination)
    }

    #[inline]
    fn peek(frame: &[u8]) -> Option<(Self, Self, u8)> {
        let header = frame.get(ETHERNET_HEADER..)?.first_chunk::<40>()?;
        let (source, destination) = header.get(8..)?.split_first_chunk::<16>()?;
        Some((Self::from(*source), Self::from(*destination.first_chunk()?), header[6]))
    }

    #[inline]
    fn read(frame: &[u8]) -> Option<(Self, Self, u8, usize, u8, bool)> {
        let header = frame.get(ETHERNET_HEADER..)?.first_chunk::<40>()?;
        let &[first, _, _, _, l0, l1, protocol, hop_limit, ref addresses @ ..] = header;
        if first >> 4 != 6 {
            return None;
        }
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let end = Self::UPPER + usize::from(u16::from_be_bytes([l0, l1]));
        Some((Self::from(*source), Self::from(*destination.first_chunk()?), protocol, end, hop_limit, true))
    }
}

#[inline]
fn halves(address: Ipv6Addr) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, ref low @ ..] = address.octets();
    (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(*low))
}

/// The EtherType and the MAC addresses.
#[inline]
pub fn link(frame: &[u8]) -> Option<(Macs, u16)> {
    let header = frame.first_chunk::<ETHERNET_HEADER>()?;
    let &[ref macs @ .., t0, t1] = header;
    Some((*macs, u16::from_be_bytes([t0, t1])))
}

/// What the hash of a packet's key is made of, if the frame is what [`Packet::read`] reads. Nothing is checked.
#[inline]
pub fn packet_words<A: Family>(frame: &[u8], port: PortId) -> Option<[u64; 2]> {
    let header = frame.get(..A::UPPER + 4)?;
    let (source, destination, protocol) = A::peek(header)?;
    let ports = *header.last_chunk::<4>()?;
    Some([A::mixed(source, destination), rest(ports, protocol, port)])
}

/// The tuple of the connection that the packet is probably of.
#[inline]
pub fn tuple<A: Family + Address>(frame: &[u8]) -> Option<Tuple<A>> {
    let header = frame.get(..A::UPPER + 4)?;
    let (source, destination, protocol) = A::peek(header)?;
    let [s0, s1, d0, d1] = *header.last_chunk::<4>()?;
    let end = |address, port| Endpoint { address, port: u16::from_be_bytes(port) };
    Some(Tuple { source: end(source, [s0, s1]), destination: end(destination, [d0, d1]), protocol, zone: 0 })
}

/// The same of the key of a frame between two stations.
#[inline]
pub fn link_words(macs: &Macs, port: PortId) -> [u64; 2] {
    let &[ref first @ .., a, b, c, d] = macs;
    let rest = u64::from(u32::from_le_bytes([a, b, c, d]));
    [u64::from_le_bytes(*first), rest | u64::from(port.0) << 32]
}

#[inline]
fn rest(ports: [u8; 4], protocol: u8, port: PortId) -> u64 {
    u64::from(u32::from_le_bytes(ports)) | u64::from(protocol) << 32 | u64::from(port.0) << 48
}

impl<A: Family> Packet<A> {
    /// Reads a frame that came in by a port with these MAC addresses and this family's EtherType. TCP segments that begin
    /// or end a connection are not of those that are read.
    #[inline]
    pub fn read(frame: &Frame, macs: Macs, port: PortId) -> Option<Self> {
        let bytes = frame.bytes();
        let (source, destination, protocol, end, hop_limit, atomic) = A::read(bytes)?;
        let upper = bytes.get(A::UPPER..end)?;
        let headers = match protocol {
            protocol::TCP => tcp(upper)?,
            protocol::UDP => udp(upper)?,
            _ => return None,
        };
        let packet = end - ETHERNET_HEADER;
        let size = match frame.offload.segmentation {
            None if matches!(frame.offload.checksum, Checksum::Partial { .. }) => {
                is_partial::<A>(frame, protocol, end).then_some(packet)?
            }
            None => packet,
            Some(cut) => {
                let payload = upper.len().checked_sub(headers).filter(|payload| *payload > 0)?;
                let kind = if protocol == protocol::TCP { A::TSO } else { SegmentKind::Udp };
                let piece = usize::from(cut.size);
                let fits = cut.kind == kind && piece > 0 && payload.div_ceil(piece) <= MAX_PIECES;
                if !fits || !is_partial::<A>(frame, protocol, end) {
                    return None;
                }
                packet.min(A::UPPER - ETHERNET_HEADER + headers + piece)
            }
        };
        let ports = *upper.first_chunk()?;
        let key = PacketKey { source, destination, ports, macs, port, protocol };
        let small = |octets| u32::try_from(octets).ok();
        Some(Self { key, end: small(end)?, size: small(size)?, hop_limit, atomic })
    }
}

/// Octets of the header of a TCP segment that neither begins nor ends a connection.
#[inline]
fn tcp(segment: &[u8]) -> Option<usize> {
    const FIN_SYN_RST: u8 = 0b111;
    let header = segment.first_chunk::<TCP_HEADER>()?;
    let length = usize::from(header[12] >> 4) * 4;
    let fits = length >= TCP_HEADER && length <= segment.len();
    (fits && header[13] & FIN_SYN_RST == 0).then_some(length)
}

/// Octets of the header of a UDP datagram.
#[inline]
fn udp(segment: &[u8]) -> Option<usize> {
    let header = segment.first_chunk::<UDP_HEADER>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (length >= UDP_HEADER && length <= segment.len()).then_some(UDP_HEADER)
}

/// Whether a checksum that is still to be made is the upper layer's.
#[inline]
fn is_partial<A: Family>(frame: &Frame, protocol: u8, end: usize) -> bool {
    let field = if protocol == protocol::TCP { 16 } else { 6 };
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return false };
    usize::from(start) == A::UPPER && offset == field && A::UPPER + usize::from(field) + 2 <= end
}
