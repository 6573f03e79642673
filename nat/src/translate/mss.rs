//! The MSS option of TCP (RFC 9293 section 3.7.1), lowered to what a path can carry.

use super::rewrite::at;
use super::{ChecksumState, changed, split, update};
use crate::checksum::Delta;
use crate::packet::{Content, Packet};
use crate::tuple::protocol;

const HEADER: usize = 20;
const SYN: u8 = 1 << 1;

/// The option's kind and length.
const MSS: [u8; 2] = [2, 4];

/// The largest MSS that fits a path's MTU: 40 octets of headers less in IPv4, 60 in IPv6.
pub const fn of_mtu(mtu: u16, v6: bool) -> u16 {
    mtu.saturating_sub(if v6 { 60 } else { 40 })
}

/// Lowers the MSS that a SYN or SYN-ACK announces to `largest`, and tells whether it did. It never raises one, and adds none
/// where there is none.
pub fn clamp(bytes: &mut [u8], packet: &Packet, largest: u16, state: ChecksumState) -> bool {
    let is_tcp = packet.layout.protocol == protocol::TCP && matches!(packet.content, Content::Ports { .. });
    let Ok((_, segment)) = split(bytes, &packet.layout) else { return false };
    if !is_tcp || segment.get(13).is_none_or(|flags| flags & SYN == 0) {
        return false;
    }
    // The data offset counts words of four octets, at most 15 of them.
    let end = usize::from(segment[12] >> 4) * 4;
    let mut lowered = false;
    let mut next = HEADER;
    while next < end {
        let Some(option) = segment.get(next..end) else { break };
        let length = match *option {
            [0, ..] => break,
            [1, ..] => 1,
            [_, length, ..] if length >= 2 => usize::from(length),
            _ => break,
        };
        if let [kind, length, high, low, ..] = *option
            && [kind, length] == MSS
        {
            let old = u16::from_be_bytes([high, low]);
            if old > largest {
                write(segment, next + 2, old, largest, state);
                lowered = true;
            }
        }
        next += length;
    }
    lowered
}

fn write(segment: &mut [u8], place: usize, old: u16, new: u16, state: ChecksumState) {
    segment[place..place + 2].copy_from_slice(&new.to_be_bytes());
    // At an odd place the value lies across two words, which sum up as if its octets were swapped (RFC 1071 section 2).
    let delta = if place.is_multiple_of(2) {
        Delta::NONE.replace16(old, new)
    } else {
        Delta::NONE.replace16(old.swap_bytes(), new.swap_bytes())
    };
    update(segment, at::TCP, |sum| changed(sum, delta, state));
}
