//! TCP segments as bytes: the few fields that the table of connections looks at, and the RST it answers with.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use super::link::{DEFAULT_HOP_LIMIT, Link};
use crate::parse::{Ip, protocol};

/// The TCP flags that decide.
pub(super) mod flag {
    pub(in crate::host) const FIN: u8 = 0x01;
    pub(in crate::host) const SYN: u8 = 0x02;
    pub(in crate::host) const RST: u8 = 0x04;
    pub(in crate::host) const ACK: u8 = 0x10;
}

/// What decides where a segment goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) flags: u8,
}

/// The sequence number of the segment `header` octets into the packet; its TCP header is known to be there.
pub(super) fn sequence(packet: &[u8], header: usize) -> u32 {
    let at = header + 4;
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

/// Answers a segment that belongs to nobody (RFC 9293 section 3.10.7.1).
pub(super) fn reset(link: &mut Link, ip: &Ip, segment: &[u8]) {
    let segment = TcpPacket::new_unchecked(segment);
    let ack = (!segment.ack()).then(|| segment.seq_number() + segment.segment_len());
    let reply = TcpRepr {
        src_port: segment.dst_port(),
        dst_port: segment.src_port(),
        control: TcpControl::Rst,
        seq_number: if segment.ack() { segment.ack_number() } else { TcpSeqNumber(0) },
        ack_number: ack,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let length = reply.buffer_len();
    let (mut frame, at) = link.ip_packet(ip.destination, ip.source, protocol::TCP, length, DEFAULT_HOP_LIMIT);
    let mut packet = TcpPacket::new_unchecked(&mut frame.bytes_mut()[at..]);
    let (source, destination) = (IpAddress::from(ip.destination), IpAddress::from(ip.source));
    reply.emit(&mut packet, &source, &destination, &ChecksumCapabilities::default());
    link.send(frame, ip.source);
}
