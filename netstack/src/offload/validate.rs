//! Whether what a device claims of a frame can be true.

use core::net::IpAddr;

use super::checksum::{TCP_FIELD, UDP_FIELD};
use super::{Checksum, OffloadInvalid, SegmentKind, Segmentation};
use crate::frame::Frame;
use crate::parse::{Ip, Transport};
use crate::verdict::DropReason;

/// Most pieces that one super-frame may be cut into. A segment size of 16 octets or more never reaches it; less would
/// let one frame cost as much as tens of thousands.
pub const MAX_PIECES: usize = 4096;

/// Checks the offload state of a frame from a device against its headers. `ip` is what the parser found in it.
///
/// A partial checksum must start at the upper layer and have its field where TCP or UDP has it. A super-frame must be
/// of the protocol and family that its kind says, whole, with a partial checksum, at least one octet of payload, and no
/// more than [`MAX_PIECES`] pieces.
///
/// # Errors
/// [`DropReason::OffloadInvalid`].
pub fn validate(frame: &Frame, ip: &Ip) -> Result<(), DropReason> {
    check(frame, ip).map_err(|OffloadInvalid| DropReason::OffloadInvalid)
}

/// The size of the largest IP packet that this frame becomes on the wire, for comparing with an MTU: of a super-frame,
/// the headers and one segment's payload.
pub fn packet_size_on_wire(frame: &Frame, ip: &Ip) -> usize {
    let packet = ip.end - ip.offset;
    match (frame.offload.segmentation, headers_end(ip)) {
        (Some(Segmentation { size, .. }), Some(headers_end)) => {
            packet.min(headers_end - ip.offset + usize::from(size))
        }
        (Some(_), None) | (None, _) => packet,
    }
}

/// Where the TCP or UDP header ends, from the frame's first octet.
pub(super) fn headers_end(ip: &Ip) -> Option<usize> {
    match ip.transport {
        Transport::Tcp { header_len, .. } => Some(ip.transport_offset + header_len),
        Transport::Udp { .. } => Some(ip.transport_offset + 8),
        Transport::Icmp { .. } | Transport::Sctp { .. } | Transport::Opaque => None,
    }
}

pub(super) fn check(frame: &Frame, ip: &Ip) -> Result<(), OffloadInvalid> {
    let fits = match frame.offload.checksum {
        Checksum::Complete | Checksum::Verified => frame.offload.segmentation.is_none(),
        Checksum::Partial { start, offset } => {
            frame.len() >= ip.end
                && partial_fits(ip, usize::from(start), offset)
                && frame.offload.segmentation.is_none_or(|segmentation| segmentation_fits(ip, segmentation))
        }
    };
    if fits { Ok(()) } else { Err(OffloadInvalid) }
}

fn partial_fits(ip: &Ip, start: usize, offset: u16) -> bool {
    let field = match ip.transport {
        Transport::Tcp { .. } => TCP_FIELD,
        Transport::Udp { .. } => UDP_FIELD,
        Transport::Icmp { .. } | Transport::Sctp { .. } | Transport::Opaque => return false,
    };
    // The sum of a fragment covers octets that are not in it.
    ip.fragment.is_none()
        && start == ip.transport_offset
        && offset == field
        && start + usize::from(offset) + 2 <= ip.end
}

fn segmentation_fits(ip: &Ip, segmentation: Segmentation) -> bool {
    let kind_fits = match (segmentation.kind, ip.transport, ip.source) {
        (SegmentKind::TcpV4, Transport::Tcp { .. }, IpAddr::V4(_))
        | (SegmentKind::TcpV6, Transport::Tcp { .. }, IpAddr::V6(_))
        | (SegmentKind::Udp, Transport::Udp { .. }, _) => true,
        (SegmentKind::TcpV4 | SegmentKind::TcpV6 | SegmentKind::Udp, _, _) => false,
    };
    let payload = headers_end(ip).and_then(|headers_end| ip.end.checked_sub(headers_end)).unwrap_or(0);
    let size = usize::from(segmentation.size);
    kind_fits && size > 0 && payload > 0 && payload.div_ceil(size) <= MAX_PIECES
}
