//! A translator with little room, and whatever may happen to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nat::behaviour::{Behaviour, Filtering};
use nat::connection::{Connection, Status};
use nat::packet::{Content, parse};
use nat::ports::{Assignment, Blocks, PortRange, PortSet, Protocol};
use nat::rule::{DestinationAction, Match, Prefix, Rule, Rules, SourceAction, Way};
use nat::timeouts::Timeouts;
use nat::translate::{ChecksumState, Unfit};
use nat::tuple::{Address, Direction, Endpoint, Tuple, protocol};
use nat::{Config, Nat, New, Prepared, Refusal, Tracked};

use super::Input;
use super::wire::mend;

const INSIDE: u32 = 1;
const OUTSIDE: u32 = 2;
const CAPACITY: usize = 8;
const PORTS: core::ops::RangeInclusive<u16> = 2000..=2003;
const PROTOCOLS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];

/// A history: an octet of choices, a word for the time at which it begins, and steps. A step is an octet that says what, and
/// its operands: time that goes by, a sweep, a change of rules or of addresses, a frame of any octets or a sensible one. A
/// connection that a frame would begin may begin at once, later or never.
pub fn nat(data: &[u8]) {
    let mut input = Input(data);
    let how = input.octet().unwrap_or(0);
    let start = Duration::from_secs(u64::from(input.word()) << 16);
    if how & 1 == 0 {
        History::<Ipv4Addr>::new(how >> 1, start).play(&mut input);
    } else {
        History::<Ipv6Addr>::new(how >> 1, start).play(&mut input);
    }
}

struct History<A> {
    nat: Nat<A>,
    now: Duration,
    /// Prepared and not begun yet.
    late: VecDeque<Prepared<A>>,
    /// Packets that have left, for errors to quote.
    left: VecDeque<Vec<u8>>,
    /// Connections that ended with an external address.
    flushed: u64,
    refused: u64,
    /// Whether ports are given out in blocks.
    blocks: bool,
}

fn address<A: Address>(v4: u32, v6: u128, host: u8) -> A {
    let base = if A::BITS == 32 { u128::from(v4) } else { v6 };
    A::from_bits(base + u128::from(host))
}

fn inside<A: Address>(host: u8) -> A {
    address(0x0a00_0000, 0xfd00 << 112, host)
}

fn external<A: Address>(host: u8) -> A {
    address(0xc000_0200, 0x2001_0db8_0001 << 80, host)
}

fn outside<A: Address>(host: u8) -> A {
    address(0xcb00_7100, 0x2001_0db8 << 96, host)
}

fn alone<A: Address>(address: A) -> Vec<Prefix<A>> {
    vec![Prefix { address, length: u8::try_from(A::BITS).expect("at most 128") }]
}

fn within<A: Address>() -> Prefix<A> {
    Prefix { address: inside(0), length: 8 }
}

/// Masquerading, a published port, and two services in front of one server.
fn config<A: Address>(how: u8) -> Config<A> {
    let mut behaviour =
        [Behaviour::strict(), Behaviour::linux(), Behaviour::node()][usize::from(how & 3) % 3];
    behaviour.filtering =
        [Filtering::AddressAndPortDependent, Filtering::AddressDependent, Filtering::EndpointIndependent]
            [usize::from(how >> 2 & 3) % 3];
    let timeouts = if how & 0x10 == 0 { Timeouts::rfc() } else { Timeouts::linux() };
    let mut config = Config::new(CAPACITY, behaviour, timeouts, u64::from(how));
    let mut pool = nat::ports::Config::new(vec![external(0), external(1)], u64::from(how));
    pool.ports = PortSet::range(PORTS);
    pool.limits.subscribers = 4;
    pool.limits.leases_per_subscriber = 6;
    pool.limits.waiting = 3;
    if how & 0x20 != 0 {
        pool.assignment = Assignment::Blocks(Blocks { size: 2, per_subscriber: 2 });
    }
    config.pools.push(pool);
    config.rules = rules();
    config
}

fn rules<A: Address>() -> Rules<A> {
    let matches = Match { egress: Some(OUTSIDE), sources: vec![within()], ..Match::default() };
    let source = vec![Rule { matches, action: SourceAction::Pool(0) }];
    let published = |from: A, port: u16| Rule {
        matches: Match {
            destinations: alone(from),
            destination_ports: Some(PortRange { first: port, last: port }),
            ..Match::default()
        },
        action: DestinationAction::To {
            address: Some(inside(1)),
            ports: Some(PortRange { first: 2000, last: 2000 }),
        },
    };
    let destination =
        vec![published(external(0), 8080), published(outside(8), 53), published(outside(9), 53)];
    Rules { source, destination }
}

impl<A: Address> History<A> {
    fn new(how: u8, now: Duration) -> Self {
        let config = config(how);
        let blocks = matches!(config.pools[0].assignment, Assignment::Blocks(_));
        let nat = Nat::new(config).expect("the configuration is valid");
        Self { nat, now, late: VecDeque::new(), left: VecDeque::new(), flushed: 0, refused: 0, blocks }
    }

    fn play(mut self, input: &mut Input<'_>) {
        while let Some(step) = input.octet() {
            match step >> 5 {
                0 => {
                    self.now +=
                        Duration::from_secs(u64::from(input.octet().unwrap_or(0)) * u64::from(1 + step % 32))
                }
                1 if step & 0x18 != 0 => self.nat.expire(self.now),
                1 => self.change(step),
                2 => self.begin(),
                3 => {
                    let length = usize::from(input.octet().unwrap_or(0));
                    let mut bytes = input.octets(length).to_vec();
                    mend(&mut bytes, step & 1 == 0);
                    self.take(step, bytes);
                }
                4 => {
                    if let Some(bytes) = self.error(step, input) {
                        self.take(step, bytes);
                    }
                }
                _ => {
                    let bytes = sensible::<A>(step, input);
                    self.take(step, bytes);
                }
            }
            self.check();
        }
        self.end();
    }

    fn change(&mut self, step: u8) {
        let rules = if step & 1 == 0 { rules() } else { Rules::default() };
        match step & 6 {
            0 => self.nat.set_rules(rules.into()),
            2 => {
                self.flushed +=
                    u64::try_from(self.nat.remove_address(0, external(step & 1), self.now)).expect("few")
            }
            4 => drop(self.nat.pool_mut(0).map(|pool| pool.add(external(step & 1)))),
            _ => {}
        }
    }

    /// Begins the oldest of those that wait, whatever has happened since.
    fn begin(&mut self) {
        let Some(prepared) = self.late.pop_front() else { return };
        if let Err(refusal) = self.nat.commit(self.now, &prepared) {
            self.refuse(refusal);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refused += 1;
        self.nat.count_refusal(refusal);
    }

    fn take(&mut self, step: u8, mut bytes: Vec<u8>) {
        let Ok(packet) = parse(&bytes) else { return };
        let state = ChecksumState::Complete;
        let ingress = A::from_ip(packet.layout.source)
            .map_or(OUTSIDE, |from| if within().contains(from) { INSIDE } else { OUTSIDE });
        let zone = u16::from(step >> 4 & 1);
        let rewrite = match self.nat.track(self.now, zone, &packet, &bytes, state) {
            Tracked::Known { rewrite, .. } => rewrite,
            Tracked::Related { rewrite, source, .. } => {
                if let Some(rewrite) = rewrite {
                    rewrite.apply_error(&mut bytes, &packet, source).expect("it is an error");
                }
                assert!(matches!(parse(&bytes).map(|packet| packet.content), Ok(Content::Error(_))));
                return;
            }
            Tracked::New(new) => match self.open(step, ingress, &new) {
                Some(prepared) => prepared.rewrite(),
                None => return,
            },
            Tracked::Invalid(_) | Tracked::Untracked => None,
        };
        if let Some(rewrite) = rewrite {
            match rewrite.apply(&mut bytes, &packet, state) {
                Ok(()) => {}
                Err(reason) => return assert_eq!(reason, Unfit::Fragment),
            }
            let tuple = parse(&bytes).expect("it is still a packet").tuple::<A>(0);
            let leaves = [rewrite.source().address, rewrite.destination().address];
            assert_eq!(tuple.map(|tuple| [tuple.source.address, tuple.destination.address]), Some(leaves));
        }
        self.left.push_back(bytes);
        self.left.truncate(4);
    }

    fn open(&mut self, step: u8, ingress: u32, new: &New<A>) -> Option<Prepared<A>> {
        let way = Way { ingress, ..Way::default() };
        let destination = self.nat.destination(new, way);
        let to = destination.unwrap_or(new.tuple.destination).address;
        let egress = Some(if within().contains(to) { INSIDE } else { OUTSIDE });
        let before = *self.nat.counters();
        let prepared = self.nat.prepare(self.now, new, destination.into(), Way { egress, ..way });
        assert_eq!(before, *self.nat.counters(), "it is only prepared");
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                self.refuse(refusal);
                return None;
            }
        };
        match step & 3 {
            0 => self.late.push_back(prepared),
            1 => {}
            _ => {
                let full = self.nat.len() == CAPACITY;
                let id = match self.nat.commit(self.now, &prepared) {
                    Ok(id) => id,
                    // Who could make room is needed: it began the mapping, or has the block of ports.
                    Err(refusal) if full && (refusal == Refusal::Full || self.blocks) => {
                        self.refuse(refusal);
                        return None;
                    }
                    Err(refusal) => panic!("nothing has happened since: {refusal:?} of {prepared:?}"),
                };
                let connection = self.nat.get(id).expect("it has just begun");
                assert_eq!(connection.tuple(Direction::Original), new.tuple);
                let leaves = connection.translated(Direction::Original);
                assert_eq!(leaves.destination, destination.unwrap_or(new.tuple.destination));
                let rewrite = prepared.rewrite().map(|rewrite| [rewrite.source(), rewrite.destination()]);
                let translated = connection.is_translated().then_some([leaves.source, leaves.destination]);
                assert_eq!(rewrite, translated);
            }
        }
        self.late.truncate(4);
        Some(prepared)
    }

    /// An error about a packet that has left, from where that was going or from elsewhere.
    fn error(&self, step: u8, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let about = self.left.get(usize::from(step & 3))?;
        let layout = parse(about).ok()?.layout;
        let from = if step & 4 == 0 { A::from_ip(layout.destination)? } else { outside(77) };
        let quoted = &about[layout.header..layout.end];
        let quoted =
            &quoted[..quoted.len().min(layout.upper - layout.header + 8 + usize::from(input.octet()? % 40))];
        let (number, kind) =
            if A::BITS == 32 { (protocol::ICMP, [3, 3]) } else { (protocol::ICMPV6, [1, 4]) };
        let message = [&kind[..], &[0; 6], quoted].concat();
        let ends = [from, A::from_ip(layout.source)?];
        Some(packet(ends, number, &message))
    }

    fn check(&self) {
        let (nat, counters) = (&self.nat, self.nat.counters());
        let connections: Vec<(u32, Connection<A>)> =
            nat.connections().map(|(id, connection)| (id.slot, *connection)).collect();
        assert!(nat.len() == connections.len() && nat.len() <= CAPACITY);
        let ended = counters.expired + counters.displaced + counters.cut_short + self.flushed;
        assert_eq!(counters.opened - ended, u64::try_from(nat.len()).expect("few"));
        assert_eq!(counters.refused_full + counters.refused_ports + counters.refused_clash, self.refused);
        let mut tuples: Vec<Tuple<A>> = Vec::new();
        for (_, connection) in &connections {
            let [one, other] = [Direction::Original, Direction::Reply].map(|way| connection.tuple(way));
            assert!(!tuples.contains(&one) && !tuples.contains(&other), "{one:?} or {other:?} is two's");
            tuples.extend([one, other]);
        }
        self.check_ports(&connections);
    }

    /// What is leased is what connections use: a port is taken and returned once.
    fn check_ports(&self, connections: &[(u32, Connection<A>)]) {
        let pool = self.nat.pool(0).expect("there is one");
        let mut held = BTreeSet::new();
        let mut mappings = BTreeMap::new();
        let mut shared = 0;
        for (slot, connection) in connections {
            let (inside, outside) = (connection.inside(), connection.outside().source);
            let (leased, shares) =
                (connection.status.has(Status::LEASED), connection.status.has(Status::SHARED));
            assert!(!leased || !shares);
            if !leased && !shares {
                continue;
            }
            let protocol = Protocol::from_number(inside.protocol).expect("it has ports");
            let owner = pool.owner(outside.address, protocol, outside.port);
            let owner = connections.iter().find(|(slot, _)| Some(*slot) == owner).map(|(_, owner)| owner);
            let owner = owner.unwrap_or_else(|| panic!("nobody holds {outside:?}"));
            held.insert((outside, protocol));
            if leased {
                let user = (inside.source, inside.zone);
                assert_eq!(user, (owner.inside().source, owner.inside().zone), "slot {slot}");
                assert_eq!(*mappings.entry((outside, protocol)).or_insert(user), user);
            }
            shared += u64::from(shares);
        }
        let (mut free, mut permitted) = (0, 0);
        for address in pool.addresses() {
            for protocol in PROTOCOLS {
                free += pool.free(address, protocol) as usize;
                permitted += if protocol == Protocol::Icmp { 1 << 16 } else { PORTS.len() };
            }
        }
        assert_eq!(free + held.len() + pool.waiting(), permitted, "{held:?}");
        if self.flushed == 0 && pool.addresses().count() == 2 {
            let leases = pool.counters().taken - pool.counters().released;
            assert_eq!(leases, u64::try_from(mappings.len()).expect("few") + shared);
        }
    }

    /// Silence returns everything to where it was.
    fn end(mut self) {
        for _ in 0..4 {
            self.now += Duration::from_secs(500_000);
            self.nat.expire(self.now);
            self.check();
        }
        assert!(self.nat.is_empty());
        assert_eq!(self.nat.pool(0).map(|pool| (pool.waiting(), pool.subscribers())), Some((0, 0)));
        assert_eq!(self.nat.next_expiry(self.now), None);
    }
}

/// A packet that means something, between endpoints of which there are few.
fn sensible<A: Address>(step: u8, input: &mut Input<'_>) -> Vec<u8> {
    let mut end = || {
        let octet = input.octet().unwrap_or(0);
        let port = 2000 + u16::from(octet >> 2 & 3);
        match octet >> 5 {
            0..3 => Endpoint { address: inside::<A>(octet & 3), port },
            3 => Endpoint { address: outside(8 + (octet & 1)), port: 53 },
            4 | 5 => Endpoint { address: outside(octet & 3), port: 53 + (port & 1) },
            _ if octet & 2 != 0 => Endpoint { address: external(octet & 1), port: 8080 },
            _ => Endpoint { address: external(octet & 1), port },
        }
    };
    let (from, to) = (end(), end());
    let ports = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    let what = input.octet().unwrap_or(0);
    let mut number = || match what >> 2 & 7 {
        0 => 100_u32,
        1 => 101,
        2 => 102,
        3 => 7000,
        4 => 7001,
        5 => 7002,
        _ => u32::from(input.octet().unwrap_or(0)) << 24,
    };
    let ends = [from.address, to.address];
    match step >> 2 & 7 {
        0..3 => {
            let (sequence, acknowledgement) = (number().to_be_bytes(), number().to_be_bytes());
            let flags = [2, 0x12, 0x10, 0x11, 4, 0x14, 1, input.octet().unwrap_or(0)][usize::from(what >> 5)];
            let rest = [0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
            packet(ends, protocol::TCP, &[&ports[..], &sequence, &acknowledgement, &rest].concat())
        }
        3 | 4 => packet(ends, protocol::UDP, &[&ports[..], &[0, 9, 0, 0, b'?']].concat()),
        5 => {
            let (icmp, kinds) =
                if A::BITS == 32 { (protocol::ICMP, [8, 0]) } else { (protocol::ICMPV6, [128, 129]) };
            let answers = what & 1 == 1;
            let identifier = if answers { to.port } else { from.port }.to_be_bytes();
            packet(ends, icmp, &[kinds[usize::from(answers)], 0, 0, 0, identifier[0], identifier[1], 0, 1])
        }
        6 => {
            let tag = (number() & 0xff).to_be_bytes();
            let chunk = [what >> 4, what & 1, 0, 20, 0, 0, 0, 7, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 9];
            packet(ends, protocol::SCTP, &[&ports[..], &tag, &[0; 4], &chunk].concat())
        }
        _ => packet(ends, 47, &[0; 8]),
    }
}

fn packet<A: Address>([from, to]: [A; 2], number: u8, upper: &[u8]) -> Vec<u8> {
    let length = |octets: usize| u16::try_from(octets).unwrap_or(0).to_be_bytes();
    let mut bytes = match (from.into(), to.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = length(20 + upper.len());
            let start = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, number, 0, 0];
            [&start[..], &from.octets(), &to.octets()].concat()
        }
        (from, to) => {
            let [high, low] = length(upper.len());
            let octets = |address: IpAddr| match address {
                IpAddr::V6(address) => address.octets(),
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            };
            [&[0x60, 0, 0, 0, high, low, number, 64][..], &octets(from), &octets(to)].concat()
        }
    };
    bytes.extend(upper);
    mend(&mut bytes, true);
    bytes
}
