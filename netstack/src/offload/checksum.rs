//! Finishing checksums.

use super::{Checksum, OffloadInvalid};
use crate::frame::Frame;
use crate::parse::ethertype;

/// A service tag (IEEE 802.1Q table 9-1): a bridged frame may carry one in front of what this stack reads.
const SERVICE_VLAN: u16 = 0x88a8;

/// Distance of the checksum from the start of the TCP header (RFC 9293 section 3.1).
pub(super) const TCP_FIELD: u16 = 16;
/// Distance of the checksum from the start of the UDP header (RFC 768).
pub(super) const UDP_FIELD: u16 = 6;

/// Finishes a [`Checksum::Partial`] in place, so that the state is [`Checksum::Complete`]; does nothing in other
/// states.
///
/// The sum ends with the IP packet and so leaves out what pads a short Ethernet frame; of what is no IP packet it
/// takes all. A sum of zero is sent as all ones where zero means "none", which is UDP (RFC 768), known by the field's
/// place. On a super-frame the result covers all segments as one, which is good for a capture or a receiver in this
/// process, not for cutting.
///
/// # Errors
/// [`OffloadInvalid`] if the packet or the field reaches beyond the frame; the frame is unchanged.
pub fn complete_checksum(frame: &mut Frame) -> Result<(), OffloadInvalid> {
    let Checksum::Partial { start, offset } = frame.offload.checksum else {
        return Ok(());
    };
    let bytes = frame.bytes_mut();
    let end = packet_end(bytes).ok_or(OffloadInvalid)?;
    let summed = bytes.get_mut(usize::from(start)..end).ok_or(OffloadInvalid)?;
    finish(summed, offset)?;
    frame.offload.checksum = Checksum::Complete;
    Ok(())
}

/// Replaces the sum of the pseudo-header at `offset` by the checksum of the whole: `summed` is the upper layer.
pub(super) fn finish(summed: &mut [u8], offset: u16) -> Result<(), OffloadInvalid> {
    let field = usize::from(offset);
    if summed.len() < field + 2 {
        return Err(OffloadInvalid);
    }
    let checksum = match internet(summed) {
        0 if offset == UDP_FIELD => 0xffff,
        checksum => checksum,
    };
    summed[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// The Internet checksum of `bytes` (RFC 1071): the complement of their ones' complement sum.
pub(super) fn internet(bytes: &[u8]) -> u16 {
    nat::checksum::checksum(bytes)
}

/// `sum`, a folded sum, with the word `old` taken out and `new` put in.
pub(super) fn replace(sum: u16, old: u16, new: u16) -> u16 {
    nat::checksum::Delta::NONE.replace16(old, new).apply_partial(sum)
}

/// Where the IP packet in a frame ends, by its own account; for other frames where the frame ends. None if the headers
/// that say so are cut off.
fn packet_end(frame: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let mut at = 12;
    while matches!(word(at)?, ethertype::VLAN | SERVICE_VLAN) {
        at += 4;
    }
    let packet = at + 2;
    match word(at)? {
        ethertype::IPV4 => Some(packet + usize::from(word(packet + 2)?)),
        ethertype::IPV6 => Some(packet + 40 + usize::from(word(packet + 4)?)),
        _ => Some(frame.len()),
    }
}
