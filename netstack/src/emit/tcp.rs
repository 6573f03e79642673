//! The answer to a TCP segment for nobody (RFC 9293 section 3.5.2).

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::{HOP_LIMIT, Header, packet};
use crate::frame::{Frame, FramePool};
use crate::parse::{Ip, Link, Transport};

/// Flag bits of a segment.
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A reset for the segment in `frame`, its addresses exchanged. `None` for a reset, for a fragment, for what is not
/// TCP, and for what was not sent from and to unicast addresses (RFC 9293 MUST-57).
///
/// To a segment with the ACK bit the reset answers with that segment's acknowledgement as its sequence number. To
/// another its sequence number is 0, and it acknowledges the segment's sequence number plus its length, in which SYN and
/// FIN count; a super-frame counts whole.
pub fn tcp_reset(pool: &mut FramePool, frame: &[u8], link: &Link, ip: &Ip) -> Option<Frame> {
    let Transport::Tcp { source_port, destination_port, flags, .. } = ip.transport else {
        return None;
    };
    let unicast = !link.source.is_multicast() && !link.destination.is_multicast();
    let multicast = ip.source.is_multicast() || ip.destination.is_multicast();
    if flags & RST != 0 || ip.fragment.is_some() || !unicast || multicast || ip.source.is_unspecified() {
        return None;
    }
    let segment = TcpPacket::new_checked(frame.get(ip.transport_offset..ip.end)?).ok()?;
    let (seq_number, ack_number) = if flags & ACK != 0 {
        (segment.ack_number(), None)
    } else {
        (TcpSeqNumber(0), Some(segment.seq_number() + segment.segment_len()))
    };
    let repr = TcpRepr {
        src_port: destination_port,
        dst_port: source_port,
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let header = Header {
        source: ip.destination,
        destination: ip.source,
        protocol: IpProtocol::Tcp,
        hop_limit: HOP_LIMIT,
        class: 0,
        id: None,
    };
    let (mut reset, at) = packet(pool, link.destination, link.source, &header, repr.buffer_len())?;
    let mut segment = TcpPacket::new_unchecked(&mut reset.bytes_mut()[at..]);
    repr.emit(
        &mut segment,
        &IpAddress::from(ip.destination),
        &IpAddress::from(ip.source),
        &ChecksumCapabilities::default(),
    );
    Some(reset)
}
