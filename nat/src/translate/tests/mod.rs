//! Every expected packet is built anew by etherparse, which computes all checksums from nothing.

extern crate std;

mod alone;
mod errors;
mod packets;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep,
};
use proptest::prelude::*;

use super::*;
use crate::checksum::tests::naive;
use crate::packet::{Content, parse};
use crate::tuple::{Address, Endpoint, Tuple};

/// What is in a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Udp,
    /// UDP without a checksum.
    Bare,
    Question,
    Answer,
    Sctp,
    /// A protocol without ports.
    Other,
}

const KINDS: [Kind; 7] =
    [Kind::Tcp, Kind::Udp, Kind::Bare, Kind::Question, Kind::Answer, Kind::Sctp, Kind::Other];

/// Both ends of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ends {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
}

impl Ends {
    fn swapped(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }

    fn tuple<A: Address>(self, kind: Kind) -> Tuple<A> {
        let end = |(address, port)| Endpoint { address: A::from_ip(address).unwrap(), port };
        let (mut source, mut destination) = (end(self.source), end(self.destination));
        let question = if A::BITS == 32 { 8 } else { 128 };
        // What is no identifier is the query's type.
        match kind {
            Kind::Question => destination.port = question,
            Kind::Answer => source.port = question,
            Kind::Other => (source.port, destination.port) = (0, 0),
            Kind::Tcp | Kind::Udp | Kind::Bare | Kind::Sctp => {}
        }
        Tuple { source, destination, protocol: 0, zone: 0 }
    }
}

fn ip(ends: Ends) -> PacketBuilderStep<IpHeaders> {
    match (ends.source.0, ends.destination.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::ipv6(source.octets(), destination.octets(), 64)
        }
        _ => unreachable!(),
    }
}

fn upper(v4: bool) -> usize {
    if v4 { 20 } else { 40 }
}

fn build(kind: Kind, ends: Ends, payload: &[u8]) -> Vec<u8> {
    let v4 = ends.source.0.is_ipv4();
    let mut bytes = Vec::new();
    let write = |start: PacketBuilderStep<IpHeaders>, id| {
        let mut bytes = Vec::new();
        let header = IcmpEchoHeader { id, seq: 9 };
        match (v4, kind == Kind::Answer) {
            (true, false) => start.icmpv4(Icmpv4Type::EchoRequest(header)).write(&mut bytes, payload),
            (true, true) => start.icmpv4(Icmpv4Type::EchoReply(header)).write(&mut bytes, payload),
            (false, false) => start.icmpv6(Icmpv6Type::EchoRequest(header)).write(&mut bytes, payload),
            (false, true) => start.icmpv6(Icmpv6Type::EchoReply(header)).write(&mut bytes, payload),
        }
        .unwrap();
        bytes
    };
    let (from, to) = (ends.source.1, ends.destination.1);
    match kind {
        Kind::Tcp => ip(ends).tcp(from, to, 77, 1000).write(&mut bytes, payload).unwrap(),
        Kind::Udp | Kind::Bare => ip(ends).udp(from, to).write(&mut bytes, payload).unwrap(),
        Kind::Question => bytes = write(ip(ends), from),
        Kind::Answer => bytes = write(ip(ends), to),
        Kind::Sctp => {
            let mut message = [from.to_be_bytes(), to.to_be_bytes(), [1, 2], [3, 4], [0; 2], [0; 2]].concat();
            message.extend(payload);
            let sum = crc32c(&message);
            message[8..12].copy_from_slice(&sum.to_le_bytes());
            ip(ends).write(&mut bytes, IpNumber::SCTP, &message).unwrap();
        }
        Kind::Other => ip(ends).write(&mut bytes, IpNumber::GRE, payload).unwrap(),
    }
    if kind == Kind::Bare {
        bytes[upper(v4) + 6..][..2].fill(0);
    }
    bytes
}

/// As RFC 9260 appendix A draws it, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut register = !0u32;
    for &octet in bytes {
        register ^= u32::from(octet);
        for _ in 0..8 {
            register = if register & 1 == 0 { register >> 1 } else { register >> 1 ^ 0x82f6_3b78 };
        }
    }
    !register
}

fn apply(from: Ends, to: Ends, kind: Kind, bytes: &mut [u8], state: ChecksumState) -> Result<(), Unfit> {
    let packet = parse(bytes).unwrap();
    if from.source.0.is_ipv4() {
        Rewrite::<Ipv4Addr>::new(&from.tuple(kind), &to.tuple(kind)).apply(bytes, &packet, state)
    } else {
        Rewrite::<Ipv6Addr>::new(&from.tuple(kind), &to.tuple(kind)).apply(bytes, &packet, state)
    }
}

fn any_end(v4: bool) -> BoxedStrategy<(IpAddr, u16)> {
    // Mostly edges, so that sums of 0 and 0xffff come up.
    let octet = prop_oneof![Just(0u8), Just(0xff), any::<u8>()];
    let port = prop_oneof![Just(0u16), Just(0xffff), any::<u16>()];
    if v4 {
        (proptest::array::uniform4(octet).prop_map(IpAddr::from), port).boxed()
    } else {
        (proptest::array::uniform16(octet).prop_map(IpAddr::from), port).boxed()
    }
}

fn any_ends(v4: bool) -> impl Strategy<Value = Ends> {
    (any_end(v4), any_end(v4)).prop_map(|(source, destination)| Ends { source, destination })
}

/// What packets are before and after.
fn before_and_after() -> impl Strategy<Value = (Ends, Ends)> {
    any::<bool>().prop_flat_map(|v4| (any_ends(v4), any_ends(v4)))
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..120)
}

fn examples() -> [[Ends; 2]; 2] {
    let v4 = |last, port| (IpAddr::from([192, 0, 2, last]), port);
    let v6 = |last, port| (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]), port);
    let inside =
        [(IpAddr::from([10, 0, 0, 7]), 40_000), (IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, 7]), 40_000)];
    let ends = |source, destination| Ends { source, destination };
    [
        [ends(inside[0], v4(9, 443)), ends(v4(1, 1024), v4(9, 443))],
        [ends(inside[1], v6(9, 443)), ends(v6(1, 1024), v6(9, 443))],
    ]
}
