//! Tracking, ports and translation together.

use std::hint::black_box;
use std::time::Duration;

use nat::behaviour::Behaviour;
use nat::rule::{Match, Prefix, Rule, SourceAction, Way};
use nat::tcp::flag::{ACK, SYN};
use nat::timeouts::{LONGEST, Timeouts};
use nat::translate::{ChecksumState, Rewrite};
use nat::tuple::{Address, Tuple, protocol};
use nat::{Config, Nat, Tracked, ports};

use super::flows::{Arrived, PORTS, address, external, inside, packet, shuffled};
use super::{NOW, SEED, TURN, Work};

/// Packets that come together.
const BATCH: usize = 32;
const OUT: Way = Way { ingress: 1, egress: Some(2), zone: 0 };

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
    config.rules.source.push(Rule { matches, action: SourceAction::Pool(0) });
    Nat::new(config).expect("a good configuration")
}

/// Opens the connection that a packet asks for, as a switch does; how its packets leave.
fn open<A: Address>(nat: &mut Nat<A>, now: Duration, came: &Arrived) -> Option<Rewrite<A>> {
    let Tracked::New(new) = nat.track(now, 0, &came.packet, &came.bytes, ChecksumState::Complete) else {
        panic!("it is there already");
    };
    let destination = nat.destination(&new, OUT);
    let prepared = nat.prepare(now, &new, destination.into(), OUT).expect("there is a port");
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
pub(super) struct New<A> {
    nat: Nat<A>,
    standing: u32,
    packets: Vec<Arrived>,
    now: Duration,
}

impl<A: Address> New<A> {
    pub(super) fn among(standing: u32) -> Self {
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
pub(super) struct End<A>(New<A>);

impl<A: Address> End<A> {
    pub(super) fn among(standing: u32) -> Self {
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

/// Data one way and its acknowledgement the other, on established TCP connections in no order: finding the connection,
/// holding the segment against it, and translating it. Packets come in batches.
pub(super) struct Established<A> {
    nat: Nat<A>,
    flows: Vec<[(Arrived, Tuple<A>); 2]>,
    at: usize,
    sent: u32,
}

impl<A: Address> Established<A> {
    const DATA: u32 = 64;

    pub(super) fn among(standing: u32) -> Self {
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
