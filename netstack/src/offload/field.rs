//! The 16-bit fields of a header.

use super::checksum;

/// The field at `at`.
pub(super) fn read(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// Sets the field at `at`.
pub(super) fn write(header: &mut [u8], at: usize, value: u16) {
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Sets the length of an IPv4 packet and, over everything else as it stands, the checksum of its header (RFC 791 section
/// 3.1). `header` holds the options, and nothing else.
pub(super) fn finish_ipv4(header: &mut [u8], packet_len: usize) {
    write(header, 2, word(packet_len));
    write(header, 10, 0);
    let checksum = checksum::internet(header);
    write(header, 10, checksum);
}

/// Numbers that are below 2^16 because the packet's length fields hold no more.
#[expect(
    clippy::cast_possible_truncation,
    reason = "lengths and offsets within one packet fit its 16-bit fields"
)]
pub(super) const fn word(value: usize) -> u16 {
    debug_assert!(value <= 0xffff);
    value as u16
}
