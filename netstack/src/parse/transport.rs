//! The upper layer's header: TCP, UDP, ICMP, ICMPv6 and SCTP.

use core::net::IpAddr;

use nat::checksum;

use super::{Fragment, Ip, Transport, protocol, word};
use crate::verdict::DropReason;

pub(crate) const TCP_HEADER: usize = 20;
pub(crate) const UDP_HEADER: usize = 8;
/// RFC 792 and RFC 4443 messages all have 8 octets at least, though ICMPv6 promises only 4.
const ICMP_HEADER: usize = 8;
const SCTP_HEADER: usize = 12;

/// ICMP types of echo request and reply (RFC 792), and ICMPv6's (RFC 4443 section 4).
pub(super) const ECHO_V4: [u8; 2] = [8, 0];
pub(super) const ECHO_V6: [u8; 2] = [128, 129];

/// Which of the two ICMPs is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Reads the header at the start of `segment`, which is what the packet or fragment holds of the upper layer.
#[inline]
pub(super) fn parse(
    segment: &[u8],
    protocol: u8,
    family: Family,
    fragment: Option<Fragment>,
) -> Result<Transport, DropReason> {
    if fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Ok(Transport::Opaque);
    }
    // A first fragment's upper layer goes on in the others, so its lengths cannot be held against it; but it must hold
    // the header (RFC 7112 section 5 for IPv6; for IPv4 it is what makes a filter possible, RFC 1858).
    let whole = fragment.is_none();
    let short =
        |reason| if whole || family == Family::V4 { reason } else { DropReason::Ipv6HeadersFragmented };
    match (protocol, family) {
        (protocol::TCP, _) => tcp(segment, whole, short),
        (protocol::UDP, _) => udp(segment, whole, short),
        (protocol::ICMP, Family::V4) => icmp(segment, ECHO_V4).ok_or(short(DropReason::IcmpTruncated)),
        (protocol::ICMPV6, Family::V6) => icmp(segment, ECHO_V6).ok_or(short(DropReason::Icmpv6Truncated)),
        (protocol::SCTP, _) if segment.len() < SCTP_HEADER => Err(short(DropReason::SctpTruncated)),
        (protocol::SCTP, _) => {
            Ok(Transport::Sctp { source_port: word(segment, 0), destination_port: word(segment, 2) })
        }
        _ => Ok(Transport::Opaque),
    }
}

#[inline]
fn tcp(
    segment: &[u8],
    whole: bool,
    short: impl Fn(DropReason) -> DropReason,
) -> Result<Transport, DropReason> {
    let header = segment.first_chunk::<TCP_HEADER>().ok_or_else(|| short(DropReason::TcpTruncated))?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < TCP_HEADER {
        return Err(DropReason::TcpHeaderLength);
    }
    if header_len > segment.len() {
        return Err(if whole { DropReason::TcpHeaderLength } else { short(DropReason::TcpTruncated) });
    }
    Ok(Transport::Tcp {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
        flags: header[13],
        header_len,
    })
}

#[inline]
fn udp(
    segment: &[u8],
    whole: bool,
    short: impl Fn(DropReason) -> DropReason,
) -> Result<Transport, DropReason> {
    let header = segment.first_chunk::<UDP_HEADER>().ok_or_else(|| short(DropReason::UdpTruncated))?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if len < UDP_HEADER || (whole && len > segment.len()) {
        return Err(DropReason::UdpLength);
    }
    Ok(Transport::Udp {
        source_port: u16::from_be_bytes([header[0], header[1]]),
        destination_port: u16::from_be_bytes([header[2], header[3]]),
    })
}

#[inline]
fn icmp(segment: &[u8], echo: [u8; 2]) -> Option<Transport> {
    let header = segment.first_chunk::<ICMP_HEADER>()?;
    let id = echo.contains(&header[0]).then(|| u16::from_be_bytes([header[4], header[5]]));
    Some(Transport::Icmp { kind: header[0], code: header[1], id })
}

/// Whether the checksum of the upper layer is right, over its pseudo-header and all of its octets. `ip` is what
/// [`network`](super::network) read from the same frame.
///
/// A UDP checksum of 0 is none: right over IPv4 (RFC 768), wrong over IPv6 (RFC 8200 section 8.1). What has no checksum
/// of this kind is taken as right: [`Transport::Opaque`], SCTP (a CRC), and fragments, whose checksum covers more than
/// is here. A frame whose checksum is still to be filled in ([`Checksum::Partial`](crate::offload::Checksum)) fails:
/// whoever holds the frame's offload state asks only when the field is said to be complete.
pub fn verify_transport_checksum(frame: &[u8], ip: &Ip) -> bool {
    let segment = segment(frame, ip);
    if ip.fragment.is_some() {
        return true;
    }
    let over_pseudo_header = |segment: &[u8]| {
        // At most 65,535, because both families' length fields have 16 bits.
        let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
        let pseudo = checksum::pseudo_header(ip.source, ip.destination, ip.protocol, length);
        checksum::is_valid(pseudo + checksum::sum(segment))
    };
    match (ip.transport, ip.destination) {
        (Transport::Opaque | Transport::Sctp { .. }, _) => true,
        (Transport::Tcp { .. }, _) | (Transport::Icmp { .. }, IpAddr::V6(_)) => over_pseudo_header(segment),
        (Transport::Icmp { .. }, IpAddr::V4(_)) => checksum::is_valid(checksum::sum(segment)),
        (Transport::Udp { .. }, destination) => {
            if word(segment, 6) == 0 {
                return destination.is_ipv4();
            }
            // The datagram may be shorter than the packet that carries it.
            let len = usize::from(word(segment, 4)).min(segment.len());
            over_pseudo_header(&segment[..len])
        }
    }
}

/// What the packet holds of the upper layer; nothing if `ip` was not read from this frame.
#[inline]
pub(super) fn segment<'a>(frame: &'a [u8], ip: &Ip) -> &'a [u8] {
    frame.get(ip.transport_offset..ip.end).unwrap_or_default()
}
