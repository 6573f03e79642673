//! Which flow a frame is of, at a glance, where it is as nearly all frames are: whole, untagged, with headers of the usual
//! shape. What is said of such a frame is what [`crate::parse`] would say of it; of every other frame nothing is said.

use core::fmt::Debug;
use core::net::{Ipv4Addr, Ipv6Addr};

use nat::checksum;
use nat::tuple::{Address, Endpoint, Tuple};

use super::cache::Key;
use crate::addr::{MacAddr, PortId};
use crate::frame::{Checksum, Frame, SegmentKind};
use crate::offload::MAX_PIECES;
use crate::parse::{ETHERNET_HEADER, TCP_HEADER, UDP_HEADER, protocol};

/// The addresses of an Ethernet header, destination first, in words that a machine compares at once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Macs([u32; 3]);

impl Macs {
    /// Whether the frame is for a group, as the first bit on the wire says.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether the frame is for the station with this address, as [`Self::number`] has it.
    #[inline]
    pub fn is_for(self, number: u64) -> bool {
        let [first, second, _] = self.0;
        u64::from(first) | u64::from(second & 0xffff) << 32 == number
    }

    /// An address as a number.
    pub fn number(mac: MacAddr) -> u64 {
        let MacAddr([a, b, c, d, e, f]) = mac;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Whom it is for.
    pub fn destination(self) -> MacAddr {
        let [[a, b, c, d], [e, f, ..], _] = self.0.map(u32::to_le_bytes);
        MacAddr([a, b, c, d, e, f])
    }

    /// Whom it is from.
    #[inline]
    pub fn source(self) -> MacAddr {
        let [_, [.., a, b], [c, d, e, f]] = self.0.map(u32::to_le_bytes);
        MacAddr([a, b, c, d, e, f])
    }
}

/// What tells the packets of a flow from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketKey<A: Family> {
    /// Source and destination address.
    pub addresses: A::Pair,
    /// Source and destination port, as they stand in the header.
    ports: u32,
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
        let rest = u64::from(self.ports) | u64::from(self.protocol) << 32 | u64::from(self.port.0) << 48;
        [A::mixed(&self.addresses), rest]
    }
}

impl<A: Family + Address> PacketKey<A> {
    /// The tuple of the connection that its packets are of.
    pub fn tuple(&self) -> Tuple<A> {
        let [s0, s1, d0, d1] = self.ports.to_le_bytes();
        let end = |address, port| Endpoint { address, port: u16::from_be_bytes(port) };
        Tuple {
            source: end(A::source(&self.addresses), [s0, s1]),
            destination: end(A::destination(&self.addresses), [d0, d1]),
            protocol: self.protocol,
            zone: 0,
        }
    }
}

impl Key for LinkKey {
    #[inline]
    fn words(&self) -> [u64; 2] {
        let Macs([a, b, c]) = self.macs;
        [u64::from(a) | u64::from(b) << 32, u64::from(c) | u64::from(self.port.0) << 32]
    }
}

/// A packet, as far as forwarding it needs.
#[derive(Clone, Copy, Debug)]
pub struct Packet<A: Family> {
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
    /// The flags of its segment; a datagram's are those of one in the middle.
    flags: u8,
}

/// The layout of a family's headers without options or extensions.
pub trait Family: Copy + Eq + Debug {
    /// Where the upper layer begins.
    const UPPER: usize;
    /// The family of TCP's super-frames.
    const TSO: SegmentKind;
    /// Two addresses as they stand in a header, in words that a machine compares at once.
    type Pair: Copy + Eq + Debug;
    /// A word that differs between pairs of addresses, as a rule.
    fn mixed(pair: &Self::Pair) -> u64;
    /// The first of two addresses.
    fn source(pair: &Self::Pair) -> Self;
    /// The second of two addresses.
    fn destination(pair: &Self::Pair) -> Self;
    /// Reads the IP header: addresses, protocol, end, TTL, whether it is atomic.
    fn read(frame: &[u8]) -> Option<(Self::Pair, u8, usize, u8, bool)>;
}

impl Family for Ipv4Addr {
    const UPPER: usize = ETHERNET_HEADER + 20;
    const TSO: SegmentKind = SegmentKind::TcpV4;
    type Pair = [u32; 2];

    #[inline]
    fn mixed(&[source, destination]: &[u32; 2]) -> u64 {
        u64::from(source) << 32 | u64::from(destination)
    }

    #[inline]
    fn source(&[source, _]: &[u32; 2]) -> Self {
        source.to_le_bytes().into()
    }

    #[inline]
    fn destination(&[_, destination]: &[u32; 2]) -> Self {
        destination.to_le_bytes().into()
    }

    #[inline]
    fn read(frame: &[u8]) -> Option<([u32; 2], u8, usize, u8, bool)> {
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
        let pair = [u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([d0, d1, d2, d3])];
        Some((pair, protocol, end, hop_limit, position & DONT_FRAGMENT != 0))
    }
}

impl Family for Ipv6Addr {
    const UPPER: usize = ETHERNET_HEADER + 40;
    const TSO: SegmentKind = SegmentKind::TcpV6;
    type Pair = [u64; 4];

    /// The low halves as they are: who makes many that fall together only slows down his own packets.
    #[inline]
    fn mixed(&[s0, s1, d0, d1]: &[u64; 4]) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let source = s0.wrapping_mul(ODD) ^ s1;
        let destination = d0.wrapping_mul(ODD) ^ d1;
        source.wrapping_mul(ODD).rotate_left(32) ^ destination
    }

    #[inline]
    fn source(&[high, low, ..]: &[u64; 4]) -> Self {
        address(high, low)
    }

    #[inline]
    fn destination(&[.., high, low]: &[u64; 4]) -> Self {
        address(high, low)
    }

    #[inline]
    fn read(frame: &[u8]) -> Option<([u64; 4], u8, usize, u8, bool)> {
        let header = frame.get(ETHERNET_HEADER..)?.first_chunk::<40>()?;
        let &[first, _, _, _, l0, l1, protocol, hop_limit, ref addresses @ ..] = header;
        if first >> 4 != 6 {
            return None;
        }
        let (words, _) = addresses.as_chunks::<8>();
        let &[s0, s1, d0, d1] = words else { return None };
        let end = Self::UPPER + usize::from(u16::from_be_bytes([l0, l1]));
        Some(([s0, s1, d0, d1].map(u64::from_le_bytes), protocol, end, hop_limit, true))
    }
}

fn address(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(high.swap_bytes()) << 64 | u128::from(low.swap_bytes()))
}

/// The EtherType and the MAC addresses.
#[inline]
pub fn link(frame: &[u8]) -> Option<(Macs, u16)> {
    let (words, kind) = frame.first_chunk::<ETHERNET_HEADER>()?.as_chunks::<4>();
    let (&[a, b, c], &[t0, t1]) = (words, kind) else { return None };
    Some((Macs([a, b, c].map(u32::from_le_bytes)), u16::from_be_bytes([t0, t1])))
}

impl<A: Family> Packet<A> {
    /// Reads a frame that came in by a port with these MAC addresses and this family's EtherType.
    #[inline]
    pub fn read(frame: &Frame, macs: Macs, port: PortId) -> Option<Self> {
        let bytes = frame.bytes();
        let (addresses, protocol, end, hop_limit, atomic) = A::read(bytes)?;
        let upper = bytes.get(A::UPPER..end)?;
        let (headers, flags) = match protocol {
            protocol::TCP => tcp(upper)?,
            protocol::UDP => (udp(upper)?, ACK),
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
        let ports = u32::from_le_bytes(*upper.first_chunk()?);
        let key = PacketKey { addresses, ports, macs, port, protocol };
        let small = |octets| u32::try_from(octets).ok();
        Some(Self { key, end: small(end)?, size: small(size)?, hop_limit, atomic, flags })
    }

    /// Whether it neither begins nor ends a connection.
    #[inline]
    pub const fn goes_on(&self) -> bool {
        self.flags & MARKS & !ACK == 0
    }

    /// Whether it ends its sender's stream, and nothing else.
    pub const fn ends(&self) -> bool {
        self.flags & MARKS == FIN | ACK
    }

    /// Whether it answers who has asked for a connection.
    pub const fn answers(&self) -> bool {
        self.flags & MARKS == SYN | ACK
    }
}

const FIN: u8 = 1;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;
/// What flags say of a connection.
const MARKS: u8 = FIN | SYN | RST | ACK;

/// Octets of the header of a TCP segment, and its flags.
#[inline]
fn tcp(segment: &[u8]) -> Option<(usize, u8)> {
    let header = segment.first_chunk::<TCP_HEADER>()?;
    let length = usize::from(header[12] >> 4) * 4;
    let fits = length >= TCP_HEADER && length <= segment.len();
    fits.then_some((length, header[13]))
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
