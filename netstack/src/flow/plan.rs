//! What is done to a frame on its way: the only code that writes into a forwarded packet.

use nat::translate::mss;

use super::translation::checksum_state;
use crate::addr::MacAddr;
use crate::frame::Frame;
use crate::parse::{self, ETHERNET_HEADER, Network};

const IPV4_TTL: usize = ETHERNET_HEADER + 8;
const IPV6_HOP_LIMIT: usize = ETHERNET_HEADER + 7;
/// Octets that every frame has which [`crate::parse`] accepted as an IP packet.
const HEADERS: usize = ETHERNET_HEADER + 20;

/// A routed frame's rewrite. A bridged frame needs none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Plan {
    /// The next hop's MAC address.
    pub destination: MacAddr,
    /// The router's MAC address on the next link.
    pub source: MacAddr,
    /// Whether TTL or hop limit goes down by one (RFC 1812 section 5.3.1): not towards or from the machine that the
    /// switch is, which is no hop away.
    pub decrement: bool,
    /// The largest MSS that a SYN may announce, where that is limited; set for SYNs alone.
    pub mss: Option<u16>,
}

impl Plan {
    /// Rewrites an untagged frame that [`crate::parse`] accepted as an IP packet with TTL or hop limit over 1.
    #[inline]
    pub fn apply(&self, frame: &mut Frame) {
        self.write(frame.bytes_mut());
        if let Some(largest) = self.mss {
            clamp(frame, largest);
        }
    }

    /// The same for the octets of a frame that is no SYN.
    #[inline]
    pub fn write(&self, bytes: &mut [u8]) {
        let Some(bytes) = bytes.first_chunk_mut::<HEADERS>() else { return };
        bytes[..6].copy_from_slice(&self.destination.0);
        bytes[6..12].copy_from_slice(&self.source.0);
        if self.decrement {
            decrement(bytes);
        }
    }
}

/// Lowers the MSS of a SYN. Rare enough to read the frame once more.
#[cold]
fn clamp(frame: &mut Frame, largest: u16) {
    let packet = parse::link(frame.bytes()).and_then(|link| parse::network(frame.bytes(), &link));
    if let Ok(Network::Ip(ip)) = packet
        && let Ok(packet) = ip.layout().read(frame.bytes())
    {
        let state = checksum_state(frame);
        mss::clamp(frame.bytes_mut(), &packet, largest, state);
    }
}

#[inline]
fn decrement(bytes: &mut [u8; HEADERS]) {
    if bytes[ETHERNET_HEADER] >> 4 == 6 {
        bytes[IPV6_HOP_LIMIT] -= 1;
        return;
    }
    let [ttl, _, high, low] = &mut bytes[IPV4_TTL..][..4] else { return };
    *ttl -= 1;
    // What RFC 1141 says of a TTL that is one less: the sum is less by that octet, so its complement is more. Of the two zeros
    // it is the one that RFC 1624 asks for.
    let sum = u32::from(u16::from_be_bytes([*high, *low])) + 0x0100;
    let sum = (sum & 0xffff) + (sum >> 16);
    let [.., h, l] = (if sum == 0xffff { 0 } else { sum }).to_be_bytes();
    (*high, *low) = (h, l);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nat::checksum;

    #[test]
    fn a_hop_less_is_what_the_checksum_says() {
        let mut bytes = [0u8; 34];
        bytes[ETHERNET_HEADER] = 0x45;
        for sum in 0..=u16::MAX {
            for ttl in [2, 64, 255] {
                bytes[IPV4_TTL] = ttl;
                bytes[IPV4_TTL + 1] = 17;
                bytes[IPV4_TTL + 2..IPV4_TTL + 4].copy_from_slice(&sum.to_be_bytes());
                decrement(&mut bytes);
                let expected =
                    checksum::update16(sum, u16::from_be_bytes([ttl, 17]), u16::from_be_bytes([ttl - 1, 17]));
                assert_eq!(bytes[IPV4_TTL + 2..IPV4_TTL + 4], expected.to_be_bytes(), "{sum:#x} {ttl}");
                assert_eq!(bytes[IPV4_TTL], ttl - 1);
            }
        }
    }
}
