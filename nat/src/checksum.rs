//! Internet checksums, whole and incremental (RFC 1071, RFC 1624).

/// The ones' complement sum of `bytes` as big-endian 16-bit words, an odd last octet padded with zero. Carries are not
/// folded, so sums of parts of even length may be added.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let sum: u64 = words.by_ref().map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    sum + words.remainder().first().map_or(0, |&odd| u64::from(odd) << 8)
}
