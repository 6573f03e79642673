//! Cutting super-frames for a device that does not (TSO and USO in software).

use core::net::IpAddr;

use super::checksum::{self, TCP_FIELD, UDP_FIELD};
use super::field::{finish_ipv4, read, word, write};
use super::validate::{check, headers_end};
use super::{Checksum, Offload, OffloadFeatures, OffloadInvalid};
use crate::frame::{Frame, FramePool};
use crate::parse::{Ip, Transport};

/// TCP flag bits (RFC 9293 section 3.1, RFC 3168 section 6.1).
const CWR: u8 = 0x80;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;

/// Cuts a super-frame into frames of its segment size, hands them to `out` in order and says how many there were.
///
/// Headers are copied to each piece with IPv4 options, IPv6 extension headers and TCP options, and so is the priority.
/// IPv4 identifications count up from the super-frame's (as in Linux, so that fragments of two pieces do not mix).
/// Of TCP's flags, FIN and PSH stand on the last piece only, and CWR on the first only (RFC 3168 section 6.1.2). Each
/// piece of UDP is a datagram. Padding behind the packet is not copied.
///
/// The L4 checksum is left partial if `features` says that the egress device finishes it, else it is complete. It is
/// derived from the partial sum in the super-frame, so one that was wrong stays wrong.
///
/// # Errors
/// [`OffloadInvalid`] if the frame is no super-frame or does not pass [`super::validate`]; nothing is handed out then.
pub fn segment(
    frame: &Frame,
    ip: &Ip,
    features: OffloadFeatures,
    pool: &mut FramePool,
    out: &mut impl FnMut(Frame),
) -> Result<usize, OffloadInvalid> {
    check(frame, ip)?;
    let size = usize::from(frame.offload.segmentation.ok_or(OffloadInvalid)?.size);
    let headers_end = headers_end(ip).ok_or(OffloadInvalid)?;
    let headers = &frame.bytes()[..headers_end];
    let payload = &frame.bytes()[headers_end..ip.end];
    let count = payload.len().div_ceil(size);
    for (index, chunk) in payload.chunks(size).enumerate() {
        let mut piece = pool.take(headers_end + chunk.len());
        let bytes = piece.bytes_mut();
        bytes[..headers_end].copy_from_slice(headers);
        bytes[headers_end..].copy_from_slice(chunk);
        write_ip(bytes, ip, index);
        let field = write_transport(bytes, ip, index * size, index + 1 == count);
        piece.offload = Offload { checksum: frame.offload.checksum, segmentation: None };
        if !features.checksum {
            checksum::finish(&mut piece.bytes_mut()[ip.transport_offset..], field)?;
            piece.offload.checksum = Checksum::Complete;
        }
        piece.priority = frame.priority;
        out(piece);
    }
    Ok(count)
}

/// Sets length, and for IPv4 identification and header checksum, of the piece number `index`.
fn write_ip(bytes: &mut [u8], ip: &Ip, index: usize) {
    let header = &mut bytes[ip.offset..];
    match ip.source {
        IpAddr::V4(_) => {
            let id = read(header, 4).wrapping_add(word(index));
            write(header, 4, id);
            let length = header.len();
            finish_ipv4(&mut header[..ip.transport_offset - ip.offset], length);
        }
        IpAddr::V6(_) => {
            let length = word(header.len() - 40);
            write(header, 4, length);
        }
    }
}

/// Sets the TCP or UDP fields of the piece whose payload begins `position` octets into the super-frame's, and the
/// checksum field to the sum of the piece's pseudo-header. Says where that field is.
fn write_transport(bytes: &mut [u8], ip: &Ip, position: usize, last: bool) -> u16 {
    let header = &mut bytes[ip.transport_offset..];
    let length = word(header.len());
    let field = match ip.transport {
        Transport::Tcp { .. } => {
            let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let position = u32::from(word(position));
            header[4..8].copy_from_slice(&sequence.wrapping_add(position).to_be_bytes());
            let not_first = if position > 0 { CWR } else { 0 };
            let not_last = if last { 0 } else { FIN | PSH };
            header[13] &= !(not_first | not_last);
            TCP_FIELD
        }
        Transport::Udp { .. } | Transport::Icmp { .. } | Transport::Sctp { .. } | Transport::Opaque => {
            write(header, 4, length);
            UDP_FIELD
        }
    };
    // The pseudo-header of a piece differs from the super-frame's in the length alone.
    let whole = word(ip.end - ip.transport_offset);
    let at = usize::from(field);
    let pseudo = checksum::replace(read(header, at), whole, length);
    write(header, at, pseudo);
    field
}
