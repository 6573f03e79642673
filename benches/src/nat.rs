//! What is measured of translation: pieces of work that stand alone, so that one tool can take their time and another count
//! their instructions.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nat::behaviour::Behaviour;
use nat::connection::{ConnectionId, State};
use nat::packet::{self, Packet};
use nat::rule::{Match, Prefix, Rule, SourceAction, Way};
use nat::table::{Opening, Table};
use nat::tcp::flag::{ACK, SYN};
use nat::timeouts::{LONGEST, Timeouts};
use nat::translate::{ChecksumState, Rewrite};
use nat::tuple::{Address, Direction, Endpoint, Tuple, protocol};
use nat::{Config, Nat, Tracked, checksum, ports};

/// Packets that come together.
const BATCH: usize = 32;
/// Operations in a turn, unless said otherwise.
pub const TURN: u32 = 1024;

const SEED: u64 = 0x5eed;
const NOW: Duration = Duration::from_secs(1000);
/// Inside hosts that the flows are spread over.
const HOSTS: u32 = 1024;
/// Ports of an external address.
const PORTS: u32 = 64_512;
const OUT: Way = Way { ingress: 1, egress: Some(2), zone: 0 };

/// A piece of work.
pub trait Work {
    /// How many operations a turn is.
    fn operations(&self) -> u32 {
        TURN
    }
    /// Does them: what is measured.
    fn turn(&mut self);
    /// Makes ready for the next turn, which is not measured.
    fn reset(&mut self) {}
}

/// A piece of work by name, and how to begin it.
pub struct Case {
    /// What is done, the address family, and with how many flows if that may matter.
    pub name: String,
    /// Makes it ready.
    pub begin: Box<dyn Fn() -> Box<dyn Work>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// All pieces of work, those that depend on how many flows there are for each of `flows`.
pub fn cases(flows: &[u32]) -> Vec<Case> {
    let memory = |&count: &u32| Case {
        name: format!("memory/{count}"),
        begin: Box::new(move || Box::new(Memory::of(count))),
    };
    let mut cases: Vec<Case> = flows.iter().map(memory).collect();
    cases.extend(family::<Ipv4Addr>("v4", flows));
    cases.extend(family::<Ipv6Addr>("v6", flows));
    cases
}

/// The piece of work with a name, whatever the number of flows in it.
pub fn case(name: &str) -> Option<Case> {
    let flows: Vec<u32> = name.split('/').filter_map(|part| part.parse().ok()).collect();
    cases(&flows).into_iter().find(|case| case.name == name)
}

fn family<A: Address + 'static>(family: &str, flows: &[u32]) -> Vec<Case> {
    fn case<W: Work + 'static>(name: String, begin: impl Fn() -> W + 'static) -> Case {
        Case { name, begin: Box::new(move || Box::new(begin())) }
    }
    let mut cases = Vec::new();
    for &count in flows {
        cases.push(case(format!("lookup/{family}/{count}"), move || Lookup::<A>::among(count, false)));
        cases.push(case(format!("lookup/{family}/{count}/batch"), move || Lookup::<A>::among(count, true)));
        cases.push(case(format!("new/{family}/{count}"), move || New::<A>::among(count)));
        cases.push(case(format!("established/{family}/{count}"), move || Established::<A>::among(count)));
        cases.push(case(format!("end/{family}/{count}"), move || End::<A>::among(count)));
    }
    cases.push(case(format!("parse/{family}"), Parse::new::<A>));
    for (name, number) in [("tcp", protocol::TCP), ("udp", protocol::UDP)] {
        cases.push(case(format!("rewrite/{family}/{name}"), move || Apply::<A>::of(number)));
    }
    cases.push(case(format!("sweep/{family}"), Sweep::<A>::new));
    cases
}

/// An address of a network that begins with `network`.
fn address<A: Address>(network: [u8; 4], n: u32) -> A {
    let low = u128::from(u32::from_be_bytes(network) + n);
    A::from_bits(if A::BITS == 32 { low } else { 0xfd00 << 112 | low })
}

fn port(n: u32) -> u16 {
    u16::try_from(1024 + n % PORTS).expect("1024 and 64,511 are 65,535")
}

/// Numbers of flows in no order, all of them before one comes again, and a turn of them at least.
fn shuffled(flows: u32) -> impl Iterator<Item = u32> {
    // A prime, which so has no divisor in common with their number.
    let flow = move |n: u32| u64::from(n) * 2_654_435_761 % u64::from(flows);
    (0..flows.next_multiple_of(TURN)).map(move |n| u32::try_from(flow(n)).expect("below their number"))
}

fn external<A: Address>(n: u32) -> A {
    address([192, 0, 2, 0], n)
}

/// The tuple of flow `n` on the inside: hosts in turn, each with ports of its own that lie apart.
fn inside<A: Address>(n: u32, protocol: u8) -> Tuple<A> {
    let host = n % HOSTS;
    let source = Endpoint { address: address([10, 0, 0, 0], host), port: port(host * 61 + n / HOSTS * 7919) };
    let destination = Endpoint { address: address([198, 51, 100, 0], n % 199), port: 443 };
    Tuple { source, destination, protocol, zone: 0 }
}

/// What flow `n` leaves with.
fn outside<A: Address>(n: u32, protocol: u8) -> Tuple<A> {
    let source = Endpoint { address: external(n / PORTS), port: port(n) };
    Tuple { source, ..inside(n, protocol) }
}

/// A packet with a tuple. UDP has no flags.
fn packet<A: Address>(
    tuple: &Tuple<A>,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    data: usize,
) -> Arrived {
    let mut upper = [tuple.source.port.to_be_bytes(), tuple.destination.port.to_be_bytes()].concat();
    let at = if tuple.protocol == protocol::TCP {
        upper.extend([sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat());
        upper.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        16
    } else {
        upper.extend(u16::try_from(8 + data).expect("it fits a packet").to_be_bytes());
        upper.extend([0, 0]);
        6
    };
    upper.resize(upper.len() + data, 7);
    let (source, destination) = (tuple.source.address, tuple.destination.address);
    let length = u16::try_from(upper.len()).expect("it fits a packet");
    let pseudo =
        checksum::pseudo_header(source.into(), destination.into(), tuple.protocol, u32::from(length));
    let sum = !checksum::fold(pseudo + checksum::sum(&upper));
    upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let (source, destination) = (source.to_bits().to_be_bytes(), destination.to_bits().to_be_bytes());
    let header = if A::BITS == 32 {
        let length = (20 + length).to_be_bytes();
        let mut header =
            [&[0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, tuple.protocol, 0, 0], &source[12..]]
                .concat();
        header.extend(&destination[12..]);
        let sum = checksum::checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header
    } else {
        let length = length.to_be_bytes();
        [&[0x60, 0, 0, 0, length[0], length[1], tuple.protocol, 64], &source[..], &destination].concat()
    };
    Arrived::new([header, upper].concat())
}

/// A packet as it came, and what was read from it.
struct Arrived {
    bytes: Vec<u8>,
    packet: Packet,
}

impl Arrived {
    fn new(bytes: Vec<u8>) -> Self {
        Self { packet: packet::parse(&bytes).expect("it is well-formed"), bytes }
    }
}

/// What memory costs: words at random places of as much memory as so many flows take, none of which depends on another. Two
/// of them are the least that finding one of many flows can cost.
struct Memory {
    words: Vec<u64>,
    state: u64,
}

impl Memory {
    fn of(flows: u32) -> Self {
        Self { words: (0..u64::from(flows) * 20).collect(), state: SEED }
    }
}

impl Work for Memory {
    fn turn(&mut self) {
        let mut sum = 0;
        for _ in 0..TURN {
            // A linear congruential generator, whose upper bits are the good ones.
            self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let place = u128::from(self.state) * self.words.len() as u128 >> 64;
            sum ^= usize::try_from(place).map_or(0, |place| self.words[place]);
        }
        black_box(sum);
    }
}

/// Reading packets: what is needed of each before all else.
struct Parse(Vec<Arrived>);

impl Parse {
    fn new<A: Address>() -> Self {
        Self((0..TURN).map(|n| packet::<A>(&inside(n, protocol::TCP), ACK, 1, 1, 64)).collect())
    }
}

impl Work for Parse {
    fn turn(&mut self) {
        for came in &self.0 {
            let read = packet::parse(black_box(&came.bytes));
            assert!(black_box(read).is_ok());
        }
    }
}

/// Finding connections by tuples of either direction, in no order, among many.
struct Lookup<A> {
    table: Table<A>,
    asked: Vec<Tuple<A>>,
    at: usize,
    batch: bool,
    found: Vec<Option<(ConnectionId, Direction)>>,
}

impl<A: Address> Lookup<A> {
    fn among(flows: u32, batch: bool) -> Self {
        let mut table = Table::new(flows as usize, SEED);
        for n in 0..flows {
            let original = inside(n, protocol::UDP);
            let reply = outside(n, protocol::UDP).inverse();
            let opening = Opening { original, reply, state: State::Other, timeout: LONGEST };
            table.insert(&opening, NOW).expect("there is room");
        }
        let asked =
            shuffled(flows).take(1 << 20).zip([false, true].into_iter().cycle()).map(|(flow, reply)| {
                if reply { outside(flow, protocol::UDP).inverse() } else { inside(flow, protocol::UDP) }
            });
        Self { table, asked: asked.collect(), at: 0, batch, found: vec![None; TURN as usize] }
    }
}

impl<A: Address> Work for Lookup<A> {
    fn turn(&mut self) {
        let turn = TURN as usize;
        if self.at + turn > self.asked.len() {
            self.at = 0;
        }
        let asked = &self.asked[self.at..self.at + turn];
        if self.batch {
            self.table.find_batch(asked, NOW, &mut self.found);
        } else {
            for (found, tuple) in self.found.iter_mut().zip(asked) {
                *found = self.table.find(tuple, NOW);
            }
        }
        self.at += turn;
    }

    fn reset(&mut self) {
        assert!(self.found.iter().all(Option::is_some), "all that is asked for is there");
    }
}

/// A translator behind as many external addresses as `flows` flows need.
fn translator<A: Address>(flows: u32) -> Nat<A> {
    let mut timeouts = Timeouts::rfc();
    timeouts.tcp.established = LONGEST;
    let capacity = (flows + TURN) as usize;
    let mut config = Config::new(capacity, Behaviour::node(), timeouts, SEED);
    let externals = (0..=(flows + TURN) / PORTS).map(external).collect();
    config.pools.push(ports::Config::new(externals, SEED));
    let network =
        Prefix { address: address([10, 0, 0, 0], 0), length: u8::try_from(A::BITS - 24).expect("small") };
    let matches = Match { sources: vec![network], egress: OUT.egress, ..Match::default() };
    config.source_rules.push(Rule { matches, action: SourceAction::Pool(0) });
    Nat::new(config).expect("a good configuration")
}

/// Opens the connection that a packet asks for, as a switch does; how its packets leave.
fn open<A: Address>(nat: &mut Nat<A>, now: Duration, came: &Arrived) -> Option<Rewrite<A>> {
    let Tracked::New(new) = nat.track(now, 0, &came.packet, &came.bytes, ChecksumState::Complete) else {
        panic!("it is there already");
    };
    let destination = nat.destination(&new, OUT);
    let prepared = nat.prepare(now, &new, destination, OUT).expect("there is a port");
    nat.commit(now, &prepared).expect("there is room");
    prepared.rewrite()
}

/// A translator with so many connections, each opened by a SYN.
pub fn filled<A: Address>(connections: u32) -> Nat<A> {
    let mut nat = translator(connections);
    for n in 0..connections {
        open(&mut nat, NOW, &packet::<A>(&inside(n, protocol::TCP), SYN, 0, 0, 0));
    }
    nat
}

/// Completes the handshake of a connection that leaves as `outside`.
fn establish<A: Address>(nat: &mut Nat<A>, now: Duration, inside: &Tuple<A>) -> Rewrite<A> {
    let rewrite = open(nat, now, &packet(inside, SYN, 0, 0, 0)).expect("it is translated");
    let answer = Tuple { source: rewrite.source(), ..*inside }.inverse();
    for came in [packet(&answer, SYN | ACK, 0, 1, 0), packet(inside, ACK, 1, 1, 0)] {
        let tracked = nat.track(now, 0, &came.packet, &came.bytes, ChecksumState::Complete);
        assert!(matches!(tracked, Tracked::Known { .. }), "{tracked:?}");
    }
    rewrite
}

/// New TCP connections, from the packet to the committed connection, among many that stand.
struct New<A> {
    nat: Nat<A>,
    standing: u32,
    packets: Vec<Arrived>,
    now: Duration,
}

impl<A: Address> New<A> {
    fn among(standing: u32) -> Self {
        let mut nat = translator::<A>(standing);
        for n in 0..standing {
            establish(&mut nat, NOW, &inside(n, protocol::TCP));
        }
        let syn = |n| packet(&inside::<A>(n, protocol::TCP), SYN, 0, 0, 0);
        Self { nat, standing, packets: (standing..standing + TURN).map(syn).collect(), now: NOW }
    }

    fn open(&mut self) {
        for came in &self.packets {
            black_box(open(&mut self.nat, self.now, came));
        }
    }

    /// Lets time pass until all of a turn are over.
    fn pass(&mut self) {
        self.now += Timeouts::rfc().tcp.syn_sent + Duration::from_secs(120);
    }

    fn expire(&mut self) {
        while self.nat.next_expiry(self.now).is_some_and(|wait| wait.is_zero()) {
            self.nat.expire(self.now);
        }
    }
}

impl<A: Address> Work for New<A> {
    fn turn(&mut self) {
        self.open();
    }

    fn reset(&mut self) {
        assert_eq!(self.nat.len(), (self.standing + TURN) as usize);
        self.pass();
        self.expire();
        // Their ports have waited by now.
        self.pass();
        self.expire();
        assert_eq!(self.nat.len(), self.standing as usize);
    }
}

/// The end of the same connections: the sweep that finds them, and what is given back.
struct End<A>(New<A>);

impl<A: Address> End<A> {
    fn among(standing: u32) -> Self {
        let mut end = Self(New::among(standing));
        end.reset();
        end
    }
}

impl<A: Address> Work for End<A> {
    fn turn(&mut self) {
        self.0.expire();
    }

    fn reset(&mut self) {
        assert_eq!(self.0.nat.len(), self.0.standing as usize);
        self.0.pass();
        self.0.expire();
        self.0.open();
        self.0.pass();
    }
}

/// A packet translated there and back.
struct Apply<A> {
    bytes: Vec<u8>,
    ways: [(Rewrite<A>, Packet); 2],
}

impl<A: Address> Apply<A> {
    fn of(protocol: u8) -> Self {
        let (inside, outside) = (inside(7, protocol), outside(7, protocol));
        let [before, after] = [inside, outside].map(|tuple| packet::<A>(&tuple, ACK, 1, 1, 64));
        let there = (Rewrite::new(&inside, &outside), before.packet);
        let back = (Rewrite::new(&outside, &inside), after.packet);
        Self { bytes: before.bytes, ways: [there, back] }
    }
}

impl<A: Address> Work for Apply<A> {
    fn turn(&mut self) {
        for _ in 0..TURN / 2 {
            for (rewrite, packet) in &self.ways {
                rewrite.apply(black_box(&mut self.bytes), packet, ChecksumState::Complete).expect("it fits");
            }
        }
    }
}

/// Data one way and its acknowledgement the other, on established TCP connections in no order: finding the connection,
/// holding the segment against it, and translating it. Packets come in batches.
struct Established<A> {
    nat: Nat<A>,
    flows: Vec<[(Arrived, Tuple<A>); 2]>,
    at: usize,
    sent: u32,
}

impl<A: Address> Established<A> {
    const DATA: u32 = 64;

    fn among(standing: u32) -> Self {
        let mut nat = translator::<A>(standing);
        let rewrites: Vec<Rewrite<A>> =
            (0..standing).map(|n| establish(&mut nat, NOW, &inside(n, protocol::TCP))).collect();
        let flows = shuffled(standing).take(1 << 17).map(|n| {
            let inside = inside::<A>(n, protocol::TCP);
            let answer = Tuple { source: rewrites[n as usize].source(), ..inside }.inverse();
            [
                (packet(&inside, ACK, 1, 1, Self::DATA as usize), inside),
                (packet(&answer, ACK, 1, 1, 0), answer),
            ]
        });
        Self { nat, flows: flows.collect(), at: 0, sent: 1 }
    }
}

impl<A: Address> Work for Established<A> {
    fn turn(&mut self) {
        let header = if A::BITS == 32 { 20 } else { 40 };
        let turn = TURN as usize / 2;
        if self.at + turn > self.flows.len() {
            self.at = 0;
            self.sent = self.sent.wrapping_add(Self::DATA);
        }
        let next = self.sent.wrapping_add(Self::DATA);
        for flows in self.flows[self.at..self.at + turn].chunks_mut(BATCH / 2) {
            let mut tuples = [flows[0][0].1; BATCH];
            for (tuple, (_, came)) in tuples.iter_mut().zip(flows.as_flattened()) {
                *tuple = *came;
            }
            self.nat.expect(&tuples);
            for [(data, _), (answer, _)] in flows {
                data.bytes[header + 4..header + 8].copy_from_slice(&self.sent.to_be_bytes());
                answer.bytes[header + 8..header + 12].copy_from_slice(&next.to_be_bytes());
                for Arrived { bytes, packet } in [data, answer] {
                    let tracked = self.nat.track(NOW, 0, packet, bytes, ChecksumState::Complete);
                    let Tracked::Known { rewrite: Some(rewrite), .. } = tracked else {
                        panic!("{tracked:?}")
                    };
                    // What is read of a packet was read before, so it may be overwritten again and again.
                    rewrite.apply(bytes, packet, ChecksumState::Complete).expect("it fits");
                }
            }
        }
        self.at += turn;
    }
}

/// Looking through slots all of which are in use and none over.
struct Sweep<A> {
    table: Table<A>,
    ids: Vec<ConnectionId>,
    now: Duration,
}

impl<A: Address> Sweep<A> {
    const SLOTS: u32 = 64 * TURN;

    fn new() -> Self {
        let mut table = Table::new(Self::SLOTS as usize, SEED);
        let ids = (0..Self::SLOTS).map(|n| {
            let (original, reply) = (inside(n, protocol::UDP), outside(n, protocol::UDP).inverse());
            let opening = Opening { original, reply, state: State::Other, timeout: Duration::from_secs(10) };
            table.insert(&opening, NOW).expect("there is room")
        });
        let ids = ids.collect();
        let mut sweep = Self { table, ids, now: NOW };
        sweep.reset();
        sweep
    }
}

impl<A: Address> Work for Sweep<A> {
    fn operations(&self) -> u32 {
        Self::SLOTS
    }

    fn turn(&mut self) {
        self.table.sweep(self.now, usize::MAX, &mut Vec::new());
    }

    /// All are due by what is known of them, and have been heard of since.
    fn reset(&mut self) {
        assert_eq!(self.table.len(), Self::SLOTS as usize);
        for &id in &self.ids {
            self.table.keep(id, self.now, Duration::from_secs(9));
            self.table.keep(id, self.now, Duration::from_secs(19));
        }
        self.now += Duration::from_secs(10);
    }
}
