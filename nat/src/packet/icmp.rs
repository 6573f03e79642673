//! ICMP and ICMPv6: queries, which have an identifier, and errors, which quote a packet (RFC 792, RFC 4443, RFC 5508).

use core::net::IpAddr;

use super::{Content, Layout, Malformed, ipv4, ipv6, word};
use crate::tuple::{Address, Endpoint, Tuple, protocol};

/// Octets of an ICMP header.
const HEADER: usize = 8;
/// Octets of the quoted upper layer that are needed: L4 ports, or type and identifier (RFC 792, RFC 5508 REQ-3).
const LEAST: usize = 8;

/// A question, or the answer to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    /// The asker's identifier.
    pub identifier: u16,
    /// The question's type, also in its answer.
    pub kind: u8,
    /// Whether this is the answer.
    pub answers: bool,
}

impl Query {
    /// Source and destination port of its tuple: the identifier is the asker's port, the type that of who is asked.
    #[inline]
    pub(super) fn ports(self) -> (u16, u16) {
        let kind = u16::from(self.kind);
        if self.answers { (kind, self.identifier) } else { (self.identifier, kind) }
    }
}

/// An error about a packet, of which it quotes the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The quoted packet's headers; the packet may end anywhere behind the first 8 octets of its upper layer.
    pub quoted: Layout,
    /// Source and destination port of the quoted packet's tuple.
    pub ports: (u16, u16),
}

impl Error {
    /// The tuple of the quoted packet, as it was on the link where it failed.
    #[inline]
    pub fn tuple<A: Address>(&self, zone: u16) -> Option<Tuple<A>> {
        Some(Tuple {
            source: Endpoint { address: A::from_ip(self.quoted.source)?, port: self.ports.0 },
            destination: Endpoint { address: A::from_ip(self.quoted.destination)?, port: self.ports.1 },
            protocol: self.quoted.protocol,
            zone,
        })
    }
}

/// Reads an ICMP message that begins at `at`.
pub(super) fn read_v4(message: &[u8], at: usize) -> Result<Content, Malformed> {
    let header: &[u8; HEADER] = message.first_chunk().ok_or(Malformed::Upper)?;
    if let Some(query) = query_v4(header) {
        return Ok(Content::Query(query));
    }
    // Destination unreachable, source quench, time exceeded, parameter problem. A redirect belongs to its link.
    if !matches!(header[0], 3 | 4 | 11 | 12) {
        return Ok(Content::Control);
    }
    let start = at + HEADER;
    let (quoted, length) = ipv4::fields(&message[HEADER..], start).map_err(|_| Malformed::Quote)?;
    // The quoted packet ends where it says at the latest: what follows it are extensions (RFC 4884), no part of it.
    let quoted = Layout { end: quoted.end.min(start + length).max(quoted.upper), ..quoted };
    error(header, quoted, &message[quoted.upper - at..quoted.end - at])
}

/// Reads an ICMPv6 message that begins at `at`.
pub(super) fn read_v6(message: &[u8], at: usize) -> Result<Content, Malformed> {
    let header: &[u8; HEADER] = message.first_chunk().ok_or(Malformed::Upper)?;
    if let Some(query) = query_v6(header) {
        return Ok(Content::Query(query));
    }
    // Errors have the high bit clear; known are destination unreachable to parameter problem.
    if !matches!(header[0], 1..=4) {
        return Ok(Content::Control);
    }
    let quoted = ipv6::fields(&message[HEADER..], at + HEADER).map_err(|_| Malformed::Quote)?;
    error(header, quoted, &message[quoted.upper - at..quoted.end - at])
}

fn error(header: &[u8; HEADER], quoted: Layout, upper: &[u8]) -> Result<Content, Malformed> {
    let later = quoted.fragment.is_some_and(|fragment| fragment.offset != 0);
    if upper.len() < LEAST || later {
        return Err(Malformed::Quote);
    }
    let ports = match (quoted.protocol, quoted.source) {
        // An error about an error, or about something that is no query, is nobody's (RFC 1122 section 3.2.2).
        (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => {
            query(&quoted, upper).ok_or(Malformed::Quote)?.ports()
        }
        (protocol::TCP | protocol::UDP | protocol::SCTP, _) => (word(upper, 0), word(upper, 2)),
        _ => (0, 0),
    };
    Ok(Content::Error(Error { kind: header[0], code: header[1], quoted, ports }))
}

/// The query that a packet's upper layer begins with.
pub(crate) fn query(layout: &Layout, upper: &[u8]) -> Option<Query> {
    let header = upper.first_chunk()?;
    match (layout.protocol, layout.source) {
        (protocol::ICMP, IpAddr::V4(_)) => query_v4(header),
        (protocol::ICMPV6, IpAddr::V6(_)) => query_v6(header),
        _ => None,
    }
}

fn query_v4(header: &[u8; HEADER]) -> Option<Query> {
    let (kind, answers) = match header[0] {
        0 => (8, true),
        // Echo, timestamp, information, address mask.
        kind @ (8 | 13 | 15 | 17) => (kind, false),
        kind @ (14 | 16 | 18) => (kind - 1, true),
        _ => return None,
    };
    Some(Query { identifier: word(header, 4), kind, answers })
}

fn query_v6(header: &[u8; HEADER]) -> Option<Query> {
    let (kind, answers) = match header[0] {
        128 => (128, false),
        129 => (128, true),
        _ => return None,
    };
    Some(Query { identifier: word(header, 4), kind, answers })
}
