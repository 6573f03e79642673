//! Who talks to whom: endpoints, and the tuple that a packet carries.
//!
//! What a port is depends on the protocol. For TCP, UDP and SCTP it is the L4 port. An ICMP query has one identifier, and
//! it belongs to who asked: it stands as the asker's port, with the query's type as the port of who is asked. So the tuple
//! of an answer is the inverse of the question's, as it is with TCP. Other protocols have ports 0.

use core::fmt;
use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

mod sealed {
    #[expect(unnameable_types, reason = "only the two families are addresses")]
    pub trait Sealed {}
    impl Sealed for core::net::Ipv4Addr {}
    impl Sealed for core::net::Ipv6Addr {}
}

/// An address of either family. Tables hold one family each, so that an IPv4 flow does not pay for IPv6's longer addresses;
/// the code is the same.
pub trait Address: Copy + Eq + Ord + Hash + fmt::Debug + Into<IpAddr> + sealed::Sealed {
    /// Bits in an address.
    const BITS: u32;
    /// The address if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self>;
    /// As a number, the first octet being the most significant.
    fn to_bits(self) -> u128;
    /// The address of the number's low [`Self::BITS`] bits.
    fn from_bits(bits: u128) -> Self;
}

impl Address for Ipv4Addr {
    const BITS: u32 = 32;
    #[inline]
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
    #[inline]
    fn to_bits(self) -> u128 {
        u128::from(u32::from(self))
    }
    #[inline]
    fn from_bits(bits: u128) -> Self {
        let [.., a, b, c, d] = bits.to_be_bytes();
        Self::new(a, b, c, d)
    }
}

impl Address for Ipv6Addr {
    const BITS: u32 = 128;
    #[inline]
    fn from_ip(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
    #[inline]
    fn to_bits(self) -> u128 {
        u128::from(self)
    }
    #[inline]
    fn from_bits(bits: u128) -> Self {
        Self::from(bits)
    }
}

/// An address and the port on it, see the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Endpoint<A> {
    /// The address.
    pub address: A,
    /// The port.
    pub port: u16,
}

impl<A: Address> Endpoint<A> {
    /// The same, whatever the family.
    pub fn to_socket(self) -> SocketAddr {
        SocketAddr::new(self.address.into(), self.port)
    }
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The way of the packet that opened it.
    Original,
    /// The other way.
    Reply,
}

impl Direction {
    /// The other one.
    #[inline]
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }

    /// 0 for the original direction, 1 for the reply's.
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            Self::Original => 0,
            Self::Reply => 1,
        }
    }
}

/// What identifies a connection to a packet: endpoints, protocol, and a zone that keeps apart those who use the same
/// addresses without knowing of each other (RFC 4787 REQ-7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple<A> {
    /// Where the packet comes from.
    pub source: Endpoint<A>,
    /// Where it goes.
    pub destination: Endpoint<A>,
    /// IP protocol number.
    pub protocol: u8,
    /// The zone.
    pub zone: u16,
}

impl<A: Copy> Tuple<A> {
    /// That of an answer that nothing translates.
    #[inline]
    #[must_use]
    pub fn inverse(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// IP protocol numbers that are tracked by more than their addresses.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}
