//! The IPv6 header and its extension headers (RFC 8200).
//!
//! The walk goes as far as a router or a firewall needs to find the upper layer: hop-by-hop options, destination
//! options, routing, fragment and authentication headers are passed over; at anything else it stops, and what stands
//! there is the upper layer. It is bounded twice, by [`MAX_EXTENSION_HEADERS`] and by the packet's end.

use core::net::{IpAddr, Ipv6Addr};

use super::{Fragment, Ip, Transport, from, transport};
use crate::verdict::DropReason;

const HEADER: usize = 40;
/// The longest payload, in octets, extension headers included.
const MAX_PAYLOAD: usize = 65_535;

/// How many extension headers are passed over before a packet is dropped. RFC 8200 section 4.1 lists seven different
/// ones in its recommended order, so eight leaves none out.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Next header values of extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;

/// Hop-by-hop options (RFC 8200 section 4.2).
const OPTION_PAD1: u8 = 0;
/// The bits of an option's type that say what to do when it is unknown; 00 is to skip it.
const OPTION_ACTION: u8 = 0xc0;

/// Where the chain of extension headers ended.
struct Chain {
    protocol: u8,
    /// Where the upper layer begins, from the start of the IPv6 header.
    offset: usize,
    /// Which octet names the protocol, from the start of the IPv6 header.
    named_at: usize,
    /// Whether there is a fragment header, be it that of an atomic fragment.
    fragment_header: bool,
    fragment: Option<Fragment>,
}

/// Whether a packet that was parsed has a fragment header, be it that of an atomic fragment.
pub(super) fn has_fragment_header(packet: &[u8]) -> bool {
    packet.get(6).is_some_and(|&next| walk(packet, next).is_ok_and(|chain| chain.fragment_header))
}

/// Which octet of a packet that was parsed names the upper layer's protocol, from the start of the IPv6 header.
pub(super) fn protocol_named_at(packet: &[u8]) -> usize {
    packet.get(6).and_then(|&next| walk(packet, next).ok()).map_or(6, |chain| chain.named_at)
}

/// Reads the packet that begins at `offset`.
pub(super) fn parse(frame: &[u8], offset: usize) -> Result<Ip, DropReason> {
    let arrived = from(frame, offset);
    let header = arrived.first_chunk::<HEADER>().ok_or(DropReason::Ipv6Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // 0 with something to come announces a jumbogram (RFC 2675), which Ethernet does not carry.
    if payload_len > arrived.len() - HEADER || (payload_len == 0 && header[6] != NO_NEXT_HEADER) {
        return Err(DropReason::Ipv6PayloadLength);
    }
    let packet = &arrived[..HEADER + payload_len];
    let chain = walk(packet, header[6])?;
    let (transport_offset, end) = (offset + chain.offset, offset + packet.len());
    let transport = match chain.protocol {
        NO_NEXT_HEADER => Transport::Opaque,
        protocol => {
            transport::parse(&frame[transport_offset..end], protocol, transport::Family::V6, chain.fragment)?
        }
    };
    let address =
        |at: usize| IpAddr::V6(Ipv6Addr::from(core::array::from_fn::<u8, 16, _>(|i| header[at + i])));
    Ok(Ip {
        source: address(8),
        destination: address(24),
        offset,
        transport_offset,
        end,
        hop_limit: header[7],
        protocol: chain.protocol,
        dont_fragment: true,
        fragment: chain.fragment,
        source_route: false,
        option_problem: None,
        transport,
    })
}

/// Follows the extension headers of `packet`, the first of which is `next`.
#[inline]
fn walk(packet: &[u8], next: u8) -> Result<Chain, DropReason> {
    let mut chain =
        Chain { protocol: next, offset: HEADER, named_at: 6, fragment_header: false, fragment: None };
    let mut passed = 0;
    while is_extension(chain.protocol) {
        if passed == MAX_EXTENSION_HEADERS {
            return Err(DropReason::Ipv6ExtensionChain);
        }
        if chain.protocol == HOP_BY_HOP && passed > 0 {
            return Err(DropReason::Ipv6ExtensionOrder);
        }
        let header = extension(packet, &chain)?;
        match chain.protocol {
            HOP_BY_HOP => options(&header[2..])?,
            ROUTING if header[2] == 0 => return Err(DropReason::Ipv6RoutingHeader),
            FRAGMENT => {
                // No sender makes a fragment of a fragment, and there is room for one position only.
                if chain.fragment_header {
                    return Err(DropReason::Ipv6ExtensionChain);
                }
                chain.fragment_header = true;
                chain.fragment = fragment(packet, chain.offset, header)?;
            }
            _ => {}
        }
        chain.protocol = header[0];
        chain.named_at = chain.offset;
        chain.offset += header.len();
        if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
            break;
        }
        passed += 1;
    }
    Ok(chain)
}

#[inline]
const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// The extension header at the chain's end, at least 8 octets.
fn extension<'a>(packet: &'a [u8], chain: &Chain) -> Result<&'a [u8], DropReason> {
    let rest = &packet[chain.offset..];
    let len = match (chain.protocol, rest) {
        // The field is reserved in a fragment header.
        (FRAGMENT, _) => Some(8),
        // Counted in units of 4 octets, less 2; 12 octets are always there (RFC 4302 section 2).
        (AUTHENTICATION, [_, units, ..]) if *units > 0 => Some((usize::from(*units) + 2) * 4),
        (AUTHENTICATION, _) => None,
        (_, [_, units, ..]) => Some((usize::from(*units) + 1) * 8),
        _ => None,
    };
    len.and_then(|len| rest.get(..len)).ok_or(match chain.fragment {
        Some(_) => DropReason::Ipv6HeadersFragmented,
        None => DropReason::Ipv6ExtensionTruncated,
    })
}

/// Walks hop-by-hop options, which every router on the way has to obey. None that asks for more than to be skipped is
/// known here.
fn options(mut rest: &[u8]) -> Result<(), DropReason> {
    while let [kind, tail @ ..] = rest {
        if *kind == OPTION_PAD1 {
            rest = tail;
            continue;
        }
        if kind & OPTION_ACTION != 0 {
            return Err(DropReason::Ipv6ExtensionOrder);
        }
        let len = tail.first().map(|&len| usize::from(len) + 2);
        rest = len.and_then(|len| rest.get(len..)).ok_or(DropReason::Ipv6ExtensionTruncated)?;
    }
    Ok(())
}

/// Reads the fragment header at `offset`; none for an atomic fragment, which is a whole packet (RFC 6946).
fn fragment(packet: &[u8], offset: usize, header: &[u8]) -> Result<Option<Fragment>, DropReason> {
    let position = super::word(header, 2);
    let (start, more) = (position & !7, position & 1 != 0);
    if start == 0 && !more {
        return Ok(None);
    }
    let data = packet.len() - offset - header.len();
    let odd = more && !data.is_multiple_of(8);
    // RFC 8200 section 4.5 bounds the payload of the packet that the fragments add up to: what stands before the
    // fragment header counts, the fragment header itself does not.
    if odd || offset - HEADER + usize::from(start) + data > MAX_PAYLOAD {
        return Err(DropReason::FragmentMalformed);
    }
    let id = header.get(4..8).and_then(|id| id.first_chunk()).map_or(0, |&id| u32::from_be_bytes(id));
    Ok(Some(Fragment { offset: start, more, id }))
}
