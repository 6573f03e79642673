//! Joining datagrams of one flow to a super-frame, for a device that takes one whole (what Linux calls UDP GRO).

use super::checksum::{UDP_FIELD, replace};
use super::field::{finish_ipv4, read, word, write};
use super::{Checksum, SegmentKind, Segmentation};
use crate::frame::{Frame, FramePool};
use crate::parse::{ETHERNET_HEADER, UDP_HEADER, ethertype, protocol};

/// Most pieces of a frame that was joined, as many as Linux joins.
pub const MOST_JOINED: usize = 64;
/// The longest IPv4 packet, and the longest payload of an IPv6 header.
const LONGEST: usize = 0xffff;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Appends the payload of the datagram `next` to `head`, a datagram or a super-frame of datagrams, if [`super::segment`]
/// would give back both as they are: one flow, all headers alike, the same length but for the last one. False, with nothing
/// changed, if not.
///
/// Only datagrams whose checksum is still to be made are joined, for one that has a checksum would lose it, and with it what
/// it says of the way so far. Nor are those with IPv4 options or IPv6 extension headers, those behind a tag, empty ones, and
/// fragments. IPv4 identifications count up, or mean nothing (RFC 6864 section 4.1: DF is set).
pub fn join(head: &mut Frame, next: &Frame, pool: &mut FramePool) -> bool {
    let Some(Joint { upper, size, length }) = joint(head, next) else { return false };
    let before = head.len();
    if !head.set_len(before + length) {
        let mut large = pool.take(before + length);
        large.bytes_mut()[..before].copy_from_slice(head.bytes());
        (large.offload, large.priority, large.origin) = (head.offload, head.priority, head.origin);
        pool.recycle(core::mem::replace(head, large));
    }
    let payload = upper + UDP_HEADER;
    head.bytes_mut()[before..].copy_from_slice(&next.bytes()[payload..]);
    write_lengths(head.bytes_mut(), upper);
    head.offload.segmentation = Some(Segmentation { kind: SegmentKind::Udp, size, ecn: false });
    true
}

/// Where two frames meet.
struct Joint {
    /// Where the UDP header is.
    upper: usize,
    /// Payload octets of each piece but the last.
    size: u16,
    /// Payload octets of the next one.
    length: usize,
}

fn joint(head: &Frame, next: &Frame) -> Option<Joint> {
    let Checksum::Partial { start, offset: UDP_FIELD } = next.offload.checksum else { return None };
    let alike = head.offload.checksum == next.offload.checksum && head.priority == next.priority;
    if !alike || next.offload.segmentation.is_some() {
        return None;
    }
    let upper = usize::from(start);
    let (before, after) = (head.bytes(), next.bytes());
    let payload = upper + UDP_HEADER;
    let (so_far, length) = (before.len().checked_sub(payload)?, after.len().checked_sub(payload)?);
    let size = match head.offload.segmentation {
        None => word(Some(so_far).filter(|octets| *octets <= LONGEST)?),
        Some(Segmentation { kind: SegmentKind::Udp, size, .. }) => size,
        Some(_) => return None,
    };
    let piece = usize::from(size);
    let pieces = so_far.checked_div(piece).filter(|pieces| pieces * piece == so_far)?;
    let room = (1..MOST_JOINED).contains(&pieces)
        && (1..=piece).contains(&length)
        && before.len() + length - ETHERNET_HEADER <= LONGEST;
    (room && same_flow(before, after, upper, pieces)).then_some(Joint { upper, size, length })
}

/// Whether the headers of a datagram say what those of the `pieces` before it do, of which the first ones stand in `before`.
fn same_flow(before: &[u8], after: &[u8], upper: usize, pieces: usize) -> bool {
    const DONT_FRAGMENT: u16 = 0x4000;
    const IPV4_UPPER: usize = ETHERNET_HEADER + IPV4_HEADER;
    const IPV6_UPPER: usize = ETHERNET_HEADER + IPV6_HEADER;
    let same = |from: usize, to: usize| before[from..to] == after[from..to];
    // A packet that ends before its frame does is followed by padding.
    let ends = |frame: &[u8], octets: u16| frame.len() == ETHERNET_HEADER + usize::from(octets);
    // Both frames are longer than `upper`.
    let internet = match upper {
        IPV4_UPPER if read(before, 12) == ethertype::IPV4 => {
            let fragment = read(after, 20);
            let identified = fragment == DONT_FRAGMENT
                || fragment == 0 && read(after, 18) == read(before, 18).wrapping_add(word(pieces));
            before[14] == 0x45
                && after[23] == protocol::UDP
                && identified
                && same(14, 16)
                && same(20, 24)
                && same(26, IPV4_UPPER)
                && ends(before, read(before, 16))
                && ends(after, read(after, 16))
        }
        IPV6_UPPER if read(before, 12) == ethertype::IPV6 => {
            let header = word(IPV6_HEADER);
            let ends = |frame: &[u8]| read(frame, 18).checked_add(header).is_some_and(|all| ends(frame, all));
            after[20] == protocol::UDP && same(14, 18) && same(20, IPV6_UPPER) && ends(before) && ends(after)
        }
        _ => false,
    };
    let length = |frame: &[u8]| read(frame, upper + 4);
    let whole = |frame: &[u8]| usize::from(length(frame)) == frame.len() - upper;
    // The sums of the pseudo-headers differ by the lengths, or one of them is wrong and must stay so.
    let pseudo = |frame: &[u8]| read(frame, upper + usize::from(UDP_FIELD));
    internet
        && same(0, ETHERNET_HEADER)
        && same(upper, upper + 4)
        && whole(before)
        && whole(after)
        && replace(pseudo(before), length(before), length(after)) == pseudo(after)
}

/// Sets the lengths of a super-frame to what it holds now, and the sums that depend on them.
fn write_lengths(frame: &mut [u8], upper: usize) {
    let packet = frame.len() - ETHERNET_HEADER;
    let datagram = word(frame.len() - upper);
    if upper == ETHERNET_HEADER + IPV4_HEADER {
        finish_ipv4(&mut frame[ETHERNET_HEADER..upper], packet);
    } else {
        write(frame, ETHERNET_HEADER + 4, word(packet - IPV6_HEADER));
    }
    let header = &mut frame[upper..];
    let at = usize::from(UDP_FIELD);
    let pseudo = replace(read(header, at), read(header, 4), datagram);
    write(header, 4, datagram);
    write(header, at, pseudo);
}
