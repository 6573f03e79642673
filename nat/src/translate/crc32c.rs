//! How a CRC32c changes with the octets that it covers (RFC 9260 appendix A).
//!
//! A CRC is the remainder of a polynomial over GF(2), and remainders add: the CRCs of two messages of one length differ by
//! the remainder of the difference of the messages. So a changed word is enough to know what becomes of the CRC, however
//! long the message is, and a wrong one stays wrong by the same bits.
//!
//! Polynomials are written as the register is: bit 31 is the coefficient of x^0.

const POLYNOMIAL: u32 = 0x82f6_3b78;
const ONE: u32 = 1 << 31;

/// x^8, x^16, x^32 … modulo the polynomial: what 1, 2, 4 … octets of zeros multiply a remainder with.
const ZEROS: [u32; 32] = {
    let mut powers = [ONE >> 8; 32];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = product(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
};

/// The product modulo the polynomial.
const fn product(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        if a >> bit & 1 != 0 {
            product ^= b;
        }
        b = if b & 1 == 0 { b >> 1 } else { b >> 1 ^ POLYNOMIAL };
    }
    product
}

/// By what the CRC of a message of `length` octets changes when its first four change by `difference`. Both are read and
/// exclusive-ored in little-endian order, which is that of SCTP's checksum field.
pub(super) fn difference(difference: u32, length: usize) -> u32 {
    ZEROS
        .iter()
        .enumerate()
        .filter(|&(bit, _)| length >> bit & 1 != 0)
        .fold(difference, |remainder, (_, &zeros)| product(remainder, zeros))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit, as the RFC draws it.
    fn crc(bytes: &[u8]) -> u32 {
        let mut register = !0u32;
        for &octet in bytes {
            register ^= u32::from(octet);
            for _ in 0..8 {
                register = if register & 1 == 0 { register >> 1 } else { register >> 1 ^ POLYNOMIAL };
            }
        }
        !register
    }

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(crc(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn the_difference_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..3000), changed: u32,
        ) {
            let before = crc(&bytes);
            for (octet, change) in bytes.iter_mut().zip(changed.to_le_bytes()) {
                *octet ^= change;
            }
            prop_assert_eq!(before ^ difference(changed, bytes.len()), crc(&bytes));
        }
    }
}
