//! A router with an inside and an outside, made of nothing but a translator.

extern crate std;

mod errors;
mod model;
mod pressure;
mod rules;
mod services;
mod sessions;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use std::vec;
use std::vec::Vec;

use etherparse::{
    IcmpEchoHeader, Icmpv4Type, Icmpv6Type, IpHeaders, PacketBuilder, PacketBuilderStep, TcpHeader,
};

use super::*;
use crate::behaviour::{Filtering, Sharing};
use crate::connection::State;
use crate::packet::{Content, Packet, parse};
use crate::ports::{Keep, PortRange, PortSet, Refused};
use crate::rule::{DestinationAction, Match, Prefix, Rule, SourceAction, Way};
use crate::tcp::flag;
use crate::translate::ChecksumState;
use crate::tuple::{Endpoint, protocol};

const INSIDE: u32 = 1;
const OUTSIDE: u32 = 2;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Runs a test for each family.
macro_rules! in_both_families {
    ($($(#[$meta:meta])* fn $name:ident<$family:ident>() $body:block)+) => {
        $(
            #[test]
            $(#[$meta])*
            fn $name() {
                fn check<$family: Address>() $body
                check::<Ipv4Addr>();
                check::<Ipv6Addr>();
            }
        )+
    };
}
use in_both_families;

/// The last octets of addresses inside, outside, and of the router's external ones.
fn inside<A: Address>(host: u16, port: u16) -> Endpoint<A> {
    let v6 = 0xfd00_0010_u128 << 96;
    let base = if A::BITS == 32 { 0x0a00_0000 } else { v6 };
    Endpoint { address: A::from_bits(base + u128::from(host)), port }
}

fn outside<A: Address>(host: u16, port: u16) -> Endpoint<A> {
    let v6 = 0x2001_0db8_u128 << 96;
    let base = if A::BITS == 32 { 0xcb00_7100 } else { v6 };
    Endpoint { address: A::from_bits(base + u128::from(host)), port }
}

fn external<A: Address>(host: u16, port: u16) -> Endpoint<A> {
    let v6 = 0x2001_0db8_0000_0001_u128 << 64;
    let base = if A::BITS == 32 { 0xc000_0200 } else { v6 };
    Endpoint { address: A::from_bits(base + u128::from(host)), port }
}

fn prefix<A: Address>(of: Endpoint<A>) -> Prefix<A> {
    Prefix { address: of.address, length: if A::BITS == 32 { 8 } else { 64 } }
}

fn start<A: Address>(from: Endpoint<A>, to: Endpoint<A>) -> PacketBuilderStep<IpHeaders> {
    match (from.address.into(), to.address.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!(),
    }
}

fn udp<A: Address>(from: Endpoint<A>, to: Endpoint<A>) -> Vec<u8> {
    let mut bytes = Vec::new();
    start(from, to).udp(from.port, to.port).write(&mut bytes, b"datagram").unwrap();
    bytes
}

/// A segment with a byte of data for each number given as its length.
fn tcp<A: Address>(
    from: Endpoint<A>,
    to: Endpoint<A>,
    flags: u8,
    numbers: (u32, u32),
    length: usize,
) -> Vec<u8> {
    let mut header = TcpHeader::new(from.port, to.port, numbers.0, 65_000);
    header.acknowledgment_number = numbers.1;
    header.syn = flags & flag::SYN != 0;
    header.ack = flags & flag::ACK != 0;
    header.fin = flags & flag::FIN != 0;
    header.rst = flags & flag::RST != 0;
    let mut bytes = Vec::new();
    start(from, to).tcp_header(header).write(&mut bytes, &vec![7; length]).unwrap();
    bytes
}

/// A question with the source's port as identifier, or its answer with the destination's.
fn echo<A: Address>(from: Endpoint<A>, to: Endpoint<A>, answers: bool) -> Vec<u8> {
    let header = IcmpEchoHeader { id: if answers { to.port } else { from.port }, seq: 1 };
    let mut bytes = Vec::new();
    let start = start(from, to);
    match (A::BITS, answers) {
        (32, false) => start.icmpv4(Icmpv4Type::EchoRequest(header)).write(&mut bytes, b"ping"),
        (32, true) => start.icmpv4(Icmpv4Type::EchoReply(header)).write(&mut bytes, b"ping"),
        (_, false) => start.icmpv6(Icmpv6Type::EchoRequest(header)).write(&mut bytes, b"ping"),
        (_, true) => start.icmpv6(Icmpv6Type::EchoReply(header)).write(&mut bytes, b"ping"),
    }
    .unwrap();
    bytes
}

/// What became of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Fate {
    /// It left by this interface.
    Left(u32, Vec<u8>),
    /// It is for the router itself.
    Local,
    Invalid(Invalid),
    Refused(Refusal),
}

impl Fate {
    /// The packet that left by `interface`, whose checksums must be right.
    #[track_caller]
    fn by(self, interface: u32) -> Vec<u8> {
        let Self::Left(by, bytes) = self else { panic!("it did not leave: {self:?}") };
        assert_eq!(by, interface);
        assert!(parse(&bytes).unwrap().has_sound_checksum(&bytes), "a checksum is wrong");
        bytes
    }
}

struct Router<A> {
    nat: Nat<A>,
    now: Duration,
    externals: Vec<A>,
}

/// Masquerades what is inside behind external addresses.
fn config<A: Address>(behaviour: Behaviour, addresses: u16, capacity: usize) -> Config<A> {
    let externals = (0..addresses).map(|host| external(host, 0).address).collect();
    let mut config = Config::new(capacity, behaviour, Timeouts::rfc(), 42);
    config.pools.push(ports::Config::new(externals, 43));
    let matches = Match { egress: Some(OUTSIDE), sources: vec![prefix(inside(0, 0))], ..Match::default() };
    config.rules.source.push(Rule { matches, action: SourceAction::Pool(0) });
    config
}

impl<A: Address> Router<A> {
    fn new(config: Config<A>) -> Self {
        let externals = config.pools.iter().flat_map(|pool| pool.addresses.clone()).collect();
        Self { nat: Nat::new(config).unwrap(), now: seconds(1_000_000), externals }
    }

    fn masquerade(behaviour: Behaviour) -> Self {
        Self::new(config(behaviour, 1, 1 << 17))
    }

    fn route(&self, to: A) -> Option<u32> {
        if self.externals.contains(&to) {
            return None;
        }
        Some(if prefix(inside::<A>(0, 0)).contains(to) { INSIDE } else { OUTSIDE })
    }

    /// A packet comes in.
    fn take(&mut self, ingress: u32, bytes: Vec<u8>) -> Fate {
        self.take_from(0, ingress, bytes)
    }

    /// A packet comes in, from a zone.
    fn take_from(&mut self, zone: u16, ingress: u32, mut bytes: Vec<u8>) -> Fate {
        let (now, state) = (self.now, ChecksumState::Complete);
        let packet = parse(&bytes).unwrap();
        let rewrite = match self.nat.track(now, zone, &packet, &bytes, state) {
            Tracked::Known { rewrite, .. } => rewrite,
            Tracked::Related { rewrite, source, .. } => {
                if let Some(rewrite) = rewrite {
                    rewrite.apply_error(&mut bytes, &packet, source).unwrap();
                }
                return self.leave(bytes);
            }
            Tracked::New(new) => match self.open(ingress, &new) {
                Ok(Some(rewrite)) => rewrite,
                Ok(None) => return Fate::Local,
                Err(refusal) => {
                    self.nat.count_refusal(refusal);
                    return Fate::Refused(refusal);
                }
            },
            Tracked::Invalid(reason) => return Fate::Invalid(reason),
            Tracked::Untracked => None,
        };
        if let Some(rewrite) = rewrite {
            rewrite.apply(&mut bytes, &packet, state).unwrap();
        }
        self.leave(bytes)
    }

    fn open(
        &mut self,
        ingress: u32,
        new: &New<A>,
    ) -> Result<Option<Option<crate::translate::Rewrite<A>>>, Refusal> {
        let way = Way { ingress, ..Way::default() };
        let destination = self.nat.destination(new, way);
        let Some(egress) = self.route(destination.unwrap_or(new.tuple.destination).address) else {
            return Ok(None);
        };
        let way = Way { egress: Some(egress), ..way };
        let prepared = self.nat.prepare(self.now, new, destination.into(), way)?;
        self.nat.commit(self.now, &prepared)?;
        Ok(Some(prepared.rewrite()))
    }

    fn leave(&self, bytes: Vec<u8>) -> Fate {
        let to = A::from_ip(parse(&bytes).unwrap().layout.destination).unwrap();
        self.route(to).map_or(Fate::Local, |interface| Fate::Left(interface, bytes))
    }

    /// Time goes by, and what is due is done.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wait) = self.nat.next_expiry(self.now).filter(|wait| self.now + *wait <= end) {
            self.now += wait.max(Duration::from_millis(1));
            self.nat.expire(self.now);
        }
        self.now = end;
        self.nat.expire(end);
    }

    /// What `from` is seen as when it sends to `to`.
    #[track_caller]
    fn seen(&mut self, from: Endpoint<A>, to: Endpoint<A>) -> Endpoint<A> {
        source(&self.take(INSIDE, udp(from, to)).by(OUTSIDE))
    }
}

fn ends<A: Address>(bytes: &[u8]) -> [Endpoint<A>; 2] {
    let tuple = parse(bytes).unwrap().tuple::<A>(0).unwrap();
    [tuple.source, tuple.destination]
}

fn source<A: Address>(bytes: &[u8]) -> Endpoint<A> {
    ends(bytes)[0]
}
