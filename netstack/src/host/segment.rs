//! TCP segments as bytes: the few fields that the table of connections looks at.

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
