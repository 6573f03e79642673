//! Deterministic NAT: an inside address has its external address and ports by arithmetic, so that nothing need be logged
//! (RFC 7422).
//!
//! With a sharing ratio of R inside addresses for each external one, an external address's 64,512 ports above 1023 are
//! divided into R equal ranges, the remainder being left unused. The inside address with offset i in its prefix has the
//! external address with offset i / R, and there the range with number i mod R.

use core::fmt;

use super::set::PortRange;
use crate::tuple::Address;

/// The first port that is divided.
const FIRST_PORT: u16 = 1024;

/// Bits of the highest ratio: 2^15 inside addresses with one port each.
const MOST_RATIO_BITS: u32 = 15;

/// A fixed relation between two prefixes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deterministic<A> {
    inside: A,
    external: A,
    /// Bits of an offset in the inside prefix.
    inside_bits: u32,
    /// Bits of an offset in the external prefix, at most as many.
    external_bits: u32,
}

/// Why two prefixes do not make a deterministic NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeterministicError {
    /// A prefix length is longer than an address.
    Length,
    /// A prefix has bits set behind its length.
    HostBits,
    /// There are more external addresses than inside ones.
    Sparse,
    /// More than 32,768 inside addresses would share an external one.
    Ratio,
}

impl fmt::Display for DeterministicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => {
                "a prefix length is longer than an address: use at most 32 for IPv4, 128 for IPv6"
            }
            Self::HostBits => {
                "a prefix has bits set behind its length: clear them, or make the prefix longer"
            }
            Self::Sparse => "the external prefix is larger than the inside prefix: make it longer",
            Self::Ratio => "over 32768 inside addresses would share one external address: add external ones",
        })
    }
}

impl core::error::Error for DeterministicError {}

impl<A: Address> Deterministic<A> {
    /// The relation between two prefixes, each an address and a length.
    pub fn new(inside: (A, u8), external: (A, u8)) -> Result<Self, DeterministicError> {
        let host_bits = |(address, length): (A, u8)| {
            let bits = A::BITS.checked_sub(length.into()).ok_or(DeterministicError::Length)?;
            let clear = address.to_bits().trailing_zeros() >= bits;
            if clear { Ok(bits) } else { Err(DeterministicError::HostBits) }
        };
        let (inside_bits, external_bits) = (host_bits(inside)?, host_bits(external)?);
        match inside_bits.checked_sub(external_bits) {
            None => Err(DeterministicError::Sparse),
            Some(ratio) if ratio > MOST_RATIO_BITS => Err(DeterministicError::Ratio),
            Some(_) => Ok(Self { inside: inside.0, external: external.0, inside_bits, external_bits }),
        }
    }

    /// How many ports of an external address an inside address has.
    pub fn ports_per_subscriber(&self) -> u16 {
        (u16::MAX - FIRST_PORT + 1) >> self.ratio_bits()
    }

    fn ratio_bits(&self) -> u32 {
        self.inside_bits - self.external_bits
    }

    /// The external address and ports of an inside address.
    pub fn external(&self, inside: A) -> Option<(A, PortRange)> {
        let offset = offset(inside, self.inside, self.inside_bits)?;
        let external = A::from_bits(self.external.to_bits() | offset >> self.ratio_bits());
        let number = u16::try_from(offset & ((1 << self.ratio_bits()) - 1)).ok()?;
        let ports = self.ports_per_subscriber();
        let first = FIRST_PORT + number * ports;
        Some((external, PortRange { first, last: first + (ports - 1) }))
    }

    /// The inside address that has a port of an external address.
    pub fn inside(&self, external: A, port: u16) -> Option<A> {
        let offset = offset(external, self.external, self.external_bits)?;
        let number = u128::from(port.checked_sub(FIRST_PORT)? / self.ports_per_subscriber());
        let inside = offset << self.ratio_bits() | number;
        (number >> self.ratio_bits() == 0).then(|| A::from_bits(self.inside.to_bits() | inside))
    }

    /// The external addresses, in order.
    pub fn externals(&self) -> impl Iterator<Item = A> {
        let first = self.external.to_bits();
        let last = 1u128.checked_shl(self.external_bits).map_or(u128::MAX, |count| count - 1);
        (0..=last).map(move |offset| A::from_bits(first | offset))
    }
}

/// Where `address` stands in the prefix whose first address is `first`.
fn offset<A: Address>(address: A, first: A, bits: u32) -> Option<u128> {
    let offset = address.to_bits() ^ first.to_bits();
    (offset.checked_shr(bits).unwrap_or(0) == 0).then_some(offset)
}
