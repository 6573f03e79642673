//! Translation of prefixes, one to one and without state: NPTv6 (RFC 6296) and the exchange of IPv4 prefixes.
//!
//! The result is an address; [`super::Rewrite`] brings it into packets and into the packets that ICMP errors quote.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::tuple::Address;

/// Why two prefixes cannot be translated into each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unusable {
    /// A length is more than the family has bits, or than the 64 bits that RFC 6296 leaves to interface identifiers.
    Length,
    /// Bits are set behind a prefix's length.
    HostBits,
    /// IPv4 prefixes of different lengths do not hold the same number of addresses.
    Lengths,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "the prefix is too long: at most 32 bits in IPv4, 64 in IPv6",
            Self::HostBits => "bits are set behind the prefix's length: clear them",
            Self::Lengths => "the prefixes have different lengths: give both the same",
        })
    }
}

impl core::error::Error for Unusable {}

/// Why an address has no translation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Untranslatable {
    /// It is not in the prefix.
    Outside,
    /// No word of it can take the adjustment: the subnet is 0xffff (RFC 6296 section 3.4), or the interface identifier all
    /// ones, which is an anycast address (section 3.5).
    AllOnes,
}

fn mask<A: Address>(length: u8) -> u128 {
    let all = u128::MAX >> (128 - A::BITS);
    all & !all.checked_shr(u32::from(length)).unwrap_or(0)
}

fn check<A: Address>(prefix: (A, u8), longest: u8) -> Result<(), Unusable> {
    match prefix {
        (_, length) if length > longest => Err(Unusable::Length),
        (address, length) if address.to_bits() & !mask::<A>(length) != 0 => Err(Unusable::HostBits),
        _ => Ok(()),
    }
}

/// `address` with the upper `length` bits of `prefix`, if it is in `within`.
fn exchange<A: Address>(address: A, within: A, prefix: A, length: u8) -> Option<A> {
    let mask = mask::<A>(length);
    (address.to_bits() & mask == within.to_bits())
        .then(|| A::from_bits(address.to_bits() & !mask | prefix.to_bits()))
}

/// Exchanges two IPv4 prefixes of one length. Checksums change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    internal: Ipv4Addr,
    external: Ipv4Addr,
    length: u8,
}

impl Exchange {
    /// Between the prefixes of address and length.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(internal: (Ipv4Addr, u8), external: (Ipv4Addr, u8)) -> Result<Self, Unusable> {
        check(internal, 32)?;
        check(external, 32)?;
        if internal.1 != external.1 {
            return Err(Unusable::Lengths);
        }
        Ok(Self { internal: internal.0, external: external.0, length: internal.1 })
    }

    /// The external address of an internal one.
    pub fn outbound(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        exchange(address, self.internal, self.external, self.length)
    }

    /// The internal address of an external one.
    pub fn inbound(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        exchange(address, self.external, self.internal, self.length)
    }
}

/// Translates between two IPv6 prefixes such that no checksum changes (RFC 6296): one word of the address takes up the
/// difference of the prefixes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translator {
    internal: Ipv6Addr,
    external: Ipv6Addr,
    length: u8,
    /// What is added to a word outbound.
    outbound: u16,
}

impl Translator {
    /// Between the prefixes of address and length. If one is shorter, it is filled up with zeros.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(internal: (Ipv6Addr, u8), external: (Ipv6Addr, u8)) -> Result<Self, Unusable> {
        check(internal, 64)?;
        check(external, 64)?;
        let sum = |address: Ipv6Addr| checksum::sum(&address.octets());
        let difference = sum(internal.0) + u32::from(!checksum::fold(sum(external.0)));
        Ok(Self {
            internal: internal.0,
            external: external.0,
            length: internal.1.max(external.1),
            outbound: checksum::fold(difference),
        })
    }

    /// The external address of an internal one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn outbound(&self, address: Ipv6Addr) -> Result<Ipv6Addr, Untranslatable> {
        self.translate(address, self.internal, self.external, self.outbound)
    }

    /// The internal address of an external one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn inbound(&self, address: Ipv6Addr) -> Result<Ipv6Addr, Untranslatable> {
        self.translate(address, self.external, self.internal, !self.outbound)
    }

    fn translate(
        &self,
        address: Ipv6Addr,
        within: Ipv6Addr,
        prefix: Ipv6Addr,
        adjustment: u16,
    ) -> Result<Ipv6Addr, Untranslatable> {
        let exchanged = exchange(address, within, prefix, self.length).ok_or(Untranslatable::Outside)?;
        let mut words = exchanged.segments();
        // The subnet, or behind longer prefixes the first word of the interface identifier that is not all ones. Ones never
        // come out, so that the way back finds the same word.
        let adjusted = if self.length <= 48 { &mut words[3..4] } else { &mut words[4..] };
        let word = adjusted.iter_mut().find(|word| **word != 0xffff).ok_or(Untranslatable::AllOnes)?;
        *word = match checksum::fold(u32::from(*word) + u32::from(adjustment)) {
            0xffff => 0,
            sum => sum,
        };
        Ok(words.into())
    }
}
