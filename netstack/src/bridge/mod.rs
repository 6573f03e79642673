//! Layer 2 forwarding: the table of learned addresses, the watch for loops, and the handling of 802.1Q tags.
//!
//! What is here knows frames, ports and segments, and nothing of IP. It decides nothing by itself: the switch asks for
//! the port of a destination, and keeps the rules about where a frame may leave (never through the port it came in by,
//! never through a port of another segment).

mod fdb;
mod loops;

pub use fdb::{AGEING, Fdb, FdbCounters, FdbEntry, FdbHit, Learned, Refusal, Restless};
pub use loops::{LOOP_GROUP, LOOP_PROBE, LoopAction, LoopFound, LoopGuard};

use crate::addr::MacAddr;
use crate::frame::Frame;
use crate::offload::Checksum;
use crate::parse::ethertype;

/// Octets of an 802.1Q tag: TPID and TCI.
pub const TAG_LEN: usize = 4;
/// The same, as offsets of checksums are counted.
const TAG_OFFSET: u16 = 4;
/// Octets of the two addresses, in front of which nothing and behind which the tag stands.
const ADDRESSES: usize = 12;
/// Octets of an Ethernet header without a tag.
const UNTAGGED_HEADER: usize = 14;
/// Octets of an Ethernet header with one tag.
const TAGGED_HEADER: usize = UNTAGGED_HEADER + TAG_LEN;
/// PCP and DEI in a TCI; the other bits are the VLAN identifier.
const PRIORITY_BITS: u16 = 0xf000;

/// Whether a bridge must not forward frames to this address: 01-80-C2-00-00-00 to 01-80-C2-00-00-0F, which reach the
/// next bridge and no further (IEEE 802.1Q table 8-1).
pub fn is_reserved(mac: MacAddr) -> bool {
    let [a, b, c, d, e, f] = mac.0;
    [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && f <= 0x0f
}

/// Takes an 802.1Q tag off and gives its VLAN identifier (0 for a tag that carries only a priority). PCP and DEI go to
/// [`Frame::priority`], and the start of a partial checksum moves with the octets it counts. None, and the frame as it
/// was, when there is no whole tag with an EtherType behind it.
pub fn pop_tag(frame: &mut Frame) -> Option<u16> {
    let header = frame.bytes_mut().first_chunk_mut::<TAGGED_HEADER>()?;
    if header[ADDRESSES..ADDRESSES + 2] != ethertype::VLAN.to_be_bytes() {
        return None;
    }
    let tci = u16::from_be_bytes([header[ADDRESSES + 2], header[ADDRESSES + 3]]);
    header.copy_within(..ADDRESSES, TAG_LEN);
    let shrunk = frame.shrink_front(TAG_LEN);
    debug_assert!(shrunk, "a frame of {TAGGED_HEADER} octets can lose {TAG_LEN}");
    frame.priority = tci & PRIORITY_BITS;
    if let Checksum::Partial { start, .. } = &mut frame.offload.checksum {
        // A start inside the header fits no packet before and none after: whoever completes the checksum says so.
        *start = start.saturating_sub(TAG_OFFSET);
    }
    Some(tci & !PRIORITY_BITS)
}

/// Puts an 802.1Q tag with the lower twelve bits of `vlan` and with [`Frame::priority`] behind the addresses, and moves
/// the start of a partial checksum. Refuses, and leaves the frame as it was, when it is shorter than an Ethernet header,
/// when its headroom is used up, or when the start of its checksum is no offset any more.
#[must_use]
pub fn push_tag(frame: &mut Frame, vlan: u16) -> bool {
    let checksum = match frame.offload.checksum {
        Checksum::Partial { start, offset } => match start.checked_add(TAG_OFFSET) {
            Some(start) => Checksum::Partial { start, offset },
            None => return false,
        },
        other @ (Checksum::Complete | Checksum::Verified) => other,
    };
    if frame.len() < UNTAGGED_HEADER || !frame.grow_front(TAG_LEN) {
        return false;
    }
    let tci = (frame.priority & PRIORITY_BITS) | (vlan & !PRIORITY_BITS);
    let bytes = frame.bytes_mut();
    bytes.copy_within(TAG_LEN..TAG_LEN + ADDRESSES, 0);
    bytes[ADDRESSES..ADDRESSES + 2].copy_from_slice(&ethertype::VLAN.to_be_bytes());
    bytes[ADDRESSES + 2..ADDRESSES + TAG_LEN].copy_from_slice(&tci.to_be_bytes());
    frame.offload.checksum = checksum;
    true
}

#[cfg(test)]
mod tests;
