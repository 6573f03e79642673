//! Cutting IPv4 packets for a smaller MTU (RFC 791 section 3.2, RFC 1812 section 4.2.2.7).

use core::net::IpAddr;

use super::field::{finish_ipv4, word, write};
use super::{Checksum, Offload, OffloadInvalid, complete_checksum};
use crate::frame::{Frame, FramePool};
use crate::parse::Ip;

/// The smallest MTU of an IPv4 link: the longest header and one unit of fragmentation (RFC 791 section 3.2).
pub const MIN_MTU: usize = 68;

/// The more-fragments bit of the word that holds the offset.
const MORE: u16 = 0x2000;

/// Why a packet was not cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FragmentError {
    /// IPv6 packets are fragmented by their source alone (RFC 8200 section 5).
    #[error("only IPv4 packets are fragmented on the way")]
    NotIpv4,
    /// The packet carries DF.
    #[error("the packet must not be fragmented")]
    DontFragment,
    /// The MTU is under 68 octets.
    #[error("the MTU is smaller than IPv4 allows")]
    MtuTooSmall,
    /// The frame is a super-frame, which is segmented first, or its checksum cannot be completed.
    #[error(transparent)]
    OffloadInvalid(#[from] OffloadInvalid),
}

/// Cuts an IPv4 packet into fragments of at most `mtu` octets, hands them to `out` in order of their offsets (RFC 4787
/// REQ-13a) and says how many there were. A packet that fits becomes one frame.
///
/// A fragment is cut further: offsets count on and more-fragments stays set on the last piece. Options with the copied
/// flag go into all pieces, others into the first only and become no-operations in the rest, so that the header keeps
/// its length. A partial checksum is completed first. Each piece keeps the link header and the priority.
///
/// # Errors
/// See [`FragmentError`]; nothing is handed out then.
pub fn fragment_ipv4(
    frame: &Frame,
    ip: &Ip,
    mtu: usize,
    pool: &mut FramePool,
    out: &mut impl FnMut(Frame),
) -> Result<usize, FragmentError> {
    match ip.source {
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => return Err(FragmentError::NotIpv4),
    }
    if ip.dont_fragment {
        return Err(FragmentError::DontFragment);
    }
    if mtu < MIN_MTU {
        return Err(FragmentError::MtuTooSmall);
    }
    if frame.offload.segmentation.is_some() || frame.len() < ip.end {
        return Err(OffloadInvalid.into());
    }
    match frame.offload.checksum {
        Checksum::Complete | Checksum::Verified => Ok(cut(frame, ip, mtu, pool, out)),
        Checksum::Partial { .. } => {
            // The sum spans all pieces and its field may lie in any, so it is finished before the cut.
            let mut whole = pool.duplicate(frame);
            let completed = complete_checksum(&mut whole);
            let count = completed.map(|()| cut(&whole, ip, mtu, pool, out));
            pool.recycle(whole);
            Ok(count?)
        }
    }
}

/// Cuts a packet that may be cut and whose checksum is complete.
fn cut(frame: &Frame, ip: &Ip, mtu: usize, pool: &mut FramePool, out: &mut impl FnMut(Frame)) -> usize {
    // In IPv4 nothing stands between header and payload, so the payload begins where the options end.
    let header_end = ipv4_header_end(frame.bytes(), ip);
    let header_len = header_end - ip.offset;
    let payload = &frame.bytes()[header_end..ip.end];
    let (base, more_behind) = ip.fragment.map_or((0, false), |f| (usize::from(f.offset), f.more));
    let room = mtu - header_len;
    let mut position = 0;
    let mut count = 0;
    loop {
        let left = payload.len() - position;
        // All but the last carry a multiple of 8 octets, the unit of the offset field.
        let take = if left <= room { left } else { room & !7 };
        let last = take == left;
        let mut piece = pool.take(header_end + take);
        let bytes = piece.bytes_mut();
        bytes[..header_end].copy_from_slice(&frame.bytes()[..header_end]);
        bytes[header_end..].copy_from_slice(&payload[position..position + take]);
        let header = &mut bytes[ip.offset..header_end];
        if position > 0 {
            keep_copied_options(&mut header[20..]);
        }
        let more = if !last || more_behind { MORE } else { 0 };
        write(header, 6, more | word((base + position) / 8));
        finish_ipv4(header, header_len + take);
        piece.offload = Offload::default();
        piece.priority = frame.priority;
        out(piece);
        count += 1;
        position += take;
        if last {
            return count;
        }
    }
}

/// Overwrites the options without the copied flag (RFC 791 section 3.1) by no-operations.
fn keep_copied_options(options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let length = match kind {
            END => return,
            NO_OPERATION => 1,
            // The parser has refused options with impossible lengths; one that got here ends the walk.
            _ => match options.get(at + 1) {
                Some(&length) if length >= 2 => usize::from(length),
                Some(_) | None => return,
            },
        };
        let Some(option) = options.get_mut(at..at + length) else { return };
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        at += length;
    }
}

/// Where the IPv4 header ends, from the frame's first octet, by its own length field.
fn ipv4_header_end(bytes: &[u8], ip: &Ip) -> usize {
    let header_len = usize::from(bytes[ip.offset] & 0x0f) * 4;
    debug_assert!((20..=60).contains(&header_len));
    ip.offset + header_len
}
