//! Frame bytes to offsets and fields, in one pass and without a copy.
//!
//! [`link`] reads the Ethernet header, [`network`] what follows it, down to the upper layer's ports. Whatever they
//! accept holds together: every offset they report lies within the frame, in the order header, upper layer, end. What
//! they refuse is named by a [`DropReason`] that says which rule was broken. They judge the form of a packet only:
//! whether an address may stand where it does, or a checksum of the upper layer is right, is asked by those who care
//! ([`verify_transport_checksum`], [`neighbor_discovery`]).
//!
//! Super-frames are packets like others here: up to 65,535 octets in one frame, one set of headers.

mod ipv4;
mod ipv6;
mod neighbor;
mod summary;
#[cfg(test)]
mod tests;
mod transport;

pub use ipv6::MAX_EXTENSION_HEADERS;
pub use neighbor::{NeighborDiscovery, neighbor_discovery};
pub use summary::Summary;
pub use transport::verify_transport_checksum;
pub(crate) use transport::{TCP_HEADER, UDP_HEADER};

use core::net::{IpAddr, Ipv4Addr};

use crate::addr::MacAddr;
use crate::flow::FlowKey;
use crate::verdict::DropReason;

/// EtherType values.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The Ethernet header and at most one 802.1Q tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Destination address.
    pub destination: MacAddr,
    /// Source address, not yet judged.
    pub source: MacAddr,
    /// The TCI of an 802.1Q tag (PCP, DEI, VLAN identifier), if there is one.
    pub tag: Option<u16>,
    /// EtherType behind the tag; under 0x0600 it is an 802.3 length.
    pub ethertype: u16,
    /// Where the payload begins, from the frame's first octet.
    pub payload: usize,
}

/// What follows the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// ARP for Ethernet and IPv4.
    Arp(Arp),
    /// IPv4 or IPv6.
    Ip(Ip),
    /// Something this stack only bridges.
    Other,
}

/// An ARP packet for Ethernet and IPv4 (RFC 826).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// 1 request, 2 reply, others are ignored.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: MacAddr,
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: MacAddr,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

/// An IPv4 or IPv6 packet whose lengths have been checked. Offsets are in octets from the frame's first octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Where the IP header begins.
    pub offset: usize,
    /// Where the upper layer begins: behind IPv4 options or IPv6 extension headers. In a fragment other than the first,
    /// where the fragment's data begin.
    pub transport_offset: usize,
    /// Where the packet ends; what follows in the frame is padding.
    pub end: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Protocol of the upper layer. In a fragment other than the first it is what the fragment header names, which may
    /// be one more extension header.
    pub protocol: u8,
    /// Whether it must not be fragmented on the way: DF in IPv4, always in IPv6.
    pub dont_fragment: bool,
    /// Present for a fragment; an atomic fragment (RFC 6946: offset 0, no more) counts as a whole packet.
    pub fragment: Option<Fragment>,
    /// IPv4 loose or strict source routing is asked for (options 131 and 137).
    pub source_route: bool,
    /// Where an IPv4 option of impossible length stands, in octets from the start of the header: the router tells the
    /// sender (RFC 792, parameter problem), everybody else drops the packet.
    pub option_problem: Option<u8>,
    /// What was read of the upper layer's header.
    pub transport: Transport,
}

/// Position of a fragment in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Offset in octets.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Identification (16 bits in IPv4).
    pub id: u32,
}

/// The upper layer's fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// The low eight flag bits: CWR ECE URG ACK PSH RST SYN FIN.
        flags: u8,
        /// Header octets with options.
        header_len: usize,
    },
    /// UDP.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// ICMP over IPv4 or ICMPv6 over IPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The identifier of an echo request or reply.
        id: Option<u16>,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// A fragment other than the first, another protocol, or ESP and the like.
    Opaque,
}

impl Ip {
    /// The same in the words of the translator.
    #[inline]
    pub fn layout(&self) -> nat::packet::Layout {
        nat::packet::Layout {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            header: self.offset,
            upper: self.transport_offset,
            end: self.end,
            fragment: self.fragment.map(|Fragment { offset, more, id }| nat::packet::Fragment {
                offset,
                more,
                identification: id,
            }),
        }
    }

    /// The tuple that identifies the packet's flow.
    pub fn flow_key(&self) -> FlowKey {
        let (source_port, destination_port) = match (self.fragment, self.transport) {
            (Some(_), _) | (None, Transport::Opaque) => (0, 0),
            (
                None,
                Transport::Tcp { source_port, destination_port, .. }
                | Transport::Udp { source_port, destination_port }
                | Transport::Sctp { source_port, destination_port },
            ) => (source_port, destination_port),
            (None, Transport::Icmp { id, .. }) => (id.unwrap_or(0), id.unwrap_or(0)),
        };
        FlowKey {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            source_port,
            destination_port,
        }
    }
}

/// Octets of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
/// Octets of an 802.1Q tag.
pub const VLAN_TAG: usize = 4;
/// The smallest EtherType: what is below is an 802.3 length (IEEE 802.3 clause 3.2.6).
pub const MIN_ETHERTYPE: u16 = 0x0600;

/// The VLAN identifier's bits in a TCI, and the reserved identifier (IEEE 802.1Q table 9-2).
const VLAN_ID: u16 = 0x0fff;

/// Reads the Ethernet header and one 802.1Q tag. A second tag is left in place: it is the EtherType that the result
/// names, and the frame is bridged by its outer tag.
///
/// # Errors
/// [`DropReason::FrameTooShort`], [`DropReason::VlanTruncated`], [`DropReason::VlanReserved`].
#[inline]
pub fn link(frame: &[u8]) -> Result<Link, DropReason> {
    let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] =
        frame.first_chunk::<ETHERNET_HEADER>().ok_or(DropReason::FrameTooShort)?;
    let mut link = Link {
        destination: MacAddr([d0, d1, d2, d3, d4, d5]),
        source: MacAddr([s0, s1, s2, s3, s4, s5]),
        tag: None,
        ethertype: u16::from_be_bytes([t0, t1]),
        payload: ETHERNET_HEADER,
    };
    if link.ethertype == ethertype::VLAN {
        let &[c0, c1, t0, t1] =
            frame[ETHERNET_HEADER..].first_chunk::<VLAN_TAG>().ok_or(DropReason::VlanTruncated)?;
        let control = u16::from_be_bytes([c0, c1]);
        if control & VLAN_ID == VLAN_ID {
            return Err(DropReason::VlanReserved);
        }
        link.tag = Some(control);
        link.ethertype = u16::from_be_bytes([t0, t1]);
        link.payload += VLAN_TAG;
    }
    Ok(link)
}

/// Reads what follows the Ethernet header, down to the upper layer's ports. `link` is what [`link`] read from the same
/// frame.
///
/// # Errors
/// The reason of the first rule that the packet breaks, from outside in: the ARP, IPv4, IPv6 and upper layer parts of
/// [`DropReason`].
#[inline]
pub fn network(frame: &[u8], link: &Link) -> Result<Network, DropReason> {
    match link.ethertype {
        ethertype::IPV4 => ipv4::parse(frame, link.payload).map(Network::Ip),
        ethertype::IPV6 => ipv6::parse(frame, link.payload).map(Network::Ip),
        ethertype::ARP => arp(from(frame, link.payload)).map(Network::Arp),
        _ => Ok(Network::Other),
    }
}

/// Reads an ARP packet; octets behind it are padding.
fn arp(packet: &[u8]) -> Result<Arp, DropReason> {
    let packet = packet.first_chunk::<28>().ok_or(DropReason::ArpMalformed)?;
    // Hardware type Ethernet, protocol type IPv4, and their address lengths.
    if packet[..6] != [0, 1, 8, 0, 6, 4] {
        return Err(DropReason::ArpMalformed);
    }
    let mac = |at: usize| core::array::from_fn(|i| packet[at + i]);
    let address = |at: usize| Ipv4Addr::from(core::array::from_fn::<u8, 4, _>(|i| packet[at + i]));
    Ok(Arp {
        operation: u16::from_be_bytes([packet[6], packet[7]]),
        sender_mac: MacAddr(mac(8)),
        sender: address(14),
        target_mac: MacAddr(mac(18)),
        target: address(24),
    })
}

/// Which octet of an IP packet names the protocol of its upper layer, from the start of the IP header: what a parameter
/// problem about an unknown protocol points at (RFC 4443 section 3.4).
pub(crate) fn protocol_named_at(frame: &[u8], ip: &Ip) -> usize {
    match ip.source {
        IpAddr::V4(_) => 9,
        IpAddr::V6(_) => ipv6::protocol_named_at(frame.get(ip.offset..ip.end).unwrap_or_default()),
    }
}

/// The octets from `at` on; none when the frame ends before.
#[inline]
fn from(frame: &[u8], at: usize) -> &[u8] {
    frame.get(at..).unwrap_or_default()
}

/// The word at `at`, which the caller knows to exist; 0 otherwise.
#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    from(bytes, at).first_chunk::<2>().map_or(0, |&octets| u16::from_be_bytes(octets))
}
