//! A packet's headers, as offsets and fields.
//!
//! [`parse`] reads an IP packet from its first octet. Who has read the IP header already, as a switch has, fills in a
//! [`Layout`] and calls [`Layout::read`] for the rest. Either way a [`Packet`] holds together: every offset lies within the
//! octets it was read from, and the upper layer's header is there as far as tracking and translation touch it.

pub(crate) mod icmp;
mod ipv4;
pub(crate) mod ipv6;
#[cfg(test)]
mod tests;

pub use icmp::{Error, Query};

use core::net::IpAddr;

use crate::checksum;
use crate::tuple::{Address, Endpoint, Tuple, protocol};

/// Why octets are no packet that can be tracked. Nothing of it reaches a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Neither version 4 nor 6.
    Version,
    /// The IP header is cut short, or contradicts its own lengths.
    Header,
    /// The IPv4 header's checksum is wrong.
    HeaderChecksum,
    /// The chain of IPv6 extension headers is longer than is followed, or leaves the packet.
    Extensions,
    /// The upper layer's header is cut short, or contradicts its own lengths.
    Upper,
    /// An ICMP error quotes too little, or something that is no packet (RFC 5508 REQ-3).
    Quote,
}

/// Position of a fragment in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Octets before it.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Identification; 16 bits in IPv4.
    pub identification: u32,
}

/// What the IP header says. Offsets are in octets from the start of the octets that hold the packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Protocol of the upper layer, behind all extension headers.
    pub protocol: u8,
    /// Where the IP header begins.
    pub header: usize,
    /// Where the upper layer begins.
    pub upper: usize,
    /// Where the packet ends; what follows is padding.
    pub end: usize,
    /// Present in fragments; an atomic one (RFC 6946) is a whole packet.
    pub fragment: Option<Fragment>,
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// What the IP header says.
    pub layout: Layout,
    /// What the upper layer's header says.
    pub content: Content,
}

/// The upper layer's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// TCP, UDP, SCTP: L4 ports.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// An ICMP or ICMPv6 query or its answer.
    Query(Query),
    /// An ICMP or ICMPv6 error about a packet that it quotes.
    Error(Error),
    /// ICMP that belongs to the link or to nobody: neighbour discovery, group membership, redirects, unknown types.
    Control,
    /// A protocol known by its addresses alone.
    Opaque,
    /// A fragment other than the first: which ports it belongs to, only the first can say.
    Rest,
}

/// Reads the IP packet at the start of `bytes`; what follows its end is padding.
///
/// # Errors
/// The first rule that it breaks, from outside in.
pub fn parse(bytes: &[u8]) -> Result<Packet, Malformed> {
    let layout = match bytes.first().map(|first| first >> 4) {
        Some(4) => ipv4::layout(bytes, 0),
        Some(6) => ipv6::layout(bytes, 0),
        Some(_) => Err(Malformed::Version),
        None => Err(Malformed::Header),
    }?;
    layout.read(bytes)
}

impl Layout {
    /// Reads the upper layer's header. `bytes` are those the layout tells of.
    ///
    /// # Errors
    /// [`Malformed::Upper`], [`Malformed::Quote`].
    #[inline]
    pub fn read(self, bytes: &[u8]) -> Result<Packet, Malformed> {
        let upper = bytes.get(self.upper..self.end).ok_or(Malformed::Header)?;
        let content = match self.fragment {
            Some(fragment) if fragment.offset != 0 => Content::Rest,
            Some(_) | None => self.content(upper)?,
        };
        Ok(Packet { layout: self, content })
    }

    fn content(&self, upper: &[u8]) -> Result<Content, Malformed> {
        let least = match (self.protocol, self.source) {
            (protocol::TCP, _) => 20,
            (protocol::UDP, _) => 8,
            (protocol::SCTP, _) => 12,
            (protocol::ICMP, IpAddr::V4(_)) => return icmp::read_v4(upper, self.upper),
            (protocol::ICMPV6, IpAddr::V6(_)) => return icmp::read_v6(upper, self.upper),
            _ => return Ok(Content::Opaque),
        };
        // Of a first fragment the ports are enough: RFC 8200 section 5 wants all headers in it, RFC 791 wants 8 octets.
        let least = if self.fragment.is_some() { 8 } else { least };
        if upper.len() < least {
            return Err(Malformed::Upper);
        }
        Ok(Content::Ports { source: word(upper, 0), destination: word(upper, 2) })
    }
}

impl Packet {
    /// The tuple that identifies its connection; of an error that of the packet it quotes. `None` for the other family, for
    /// fragments without ports, and for what belongs to no connection.
    #[inline]
    pub fn tuple<A: Address>(&self, zone: u16) -> Option<Tuple<A>> {
        let (source_port, destination_port) = match self.content {
            Content::Ports { source, destination } => (source, destination),
            Content::Query(query) => query.ports(),
            Content::Opaque => (0, 0),
            Content::Error(_) | Content::Control | Content::Rest => return None,
        };
        Some(Tuple {
            source: Endpoint { address: A::from_ip(self.layout.source)?, port: source_port },
            destination: Endpoint { address: A::from_ip(self.layout.destination)?, port: destination_port },
            protocol: self.layout.protocol,
            zone,
        })
    }

    /// Whether the upper layer's checksum is right. Fragments cannot be judged and pass, and so does UDP without a checksum
    /// (RFC 768): over IPv6 tunnels may do without (RFC 6935), and it is for receivers to refuse it from others. What a
    /// routing header sends on from its destination is for the last destination to judge, and passes too.
    pub fn has_sound_checksum(&self, bytes: &[u8]) -> bool {
        let Layout { source, destination, protocol, upper, end, fragment, .. } = self.layout;
        if ipv6::is_routed(bytes, &self.layout) {
            return true;
        }
        let Some(upper) = bytes.get(upper..end).filter(|_| fragment.is_none()) else { return true };
        let pseudo = |length| checksum::pseudo_header(source, destination, protocol, length);
        let Ok(length) = u32::try_from(upper.len()) else { return false };
        match (protocol, source) {
            (protocol::UDP, _) if upper.get(6..8) == Some(&[0, 0]) => true,
            (protocol::UDP, _) => {
                // A length of 0 stands in super-frames, whose length is known by the packet's own (RFC 2675 section 4).
                let length = match word(upper, 4) {
                    0 => length,
                    said => u32::from(said),
                };
                let datagram = usize::try_from(length).ok().and_then(|length| upper.get(..length));
                datagram.is_some_and(|datagram| {
                    datagram.len() >= 8 && checksum::is_valid(pseudo(length) + checksum::sum(datagram))
                })
            }
            (protocol::TCP, _) | (protocol::ICMPV6, IpAddr::V6(_)) => {
                checksum::is_valid(pseudo(length) + checksum::sum(upper))
            }
            (protocol::ICMP, IpAddr::V4(_)) => checksum::is_valid(checksum::sum(upper)),
            // SCTP's is a CRC32c, which translation of an address leaves alone.
            _ => true,
        }
    }
}

/// The word at `at`; 0 where there is none.
#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()).map_or(0, |&octets| u16::from_be_bytes(octets))
}
