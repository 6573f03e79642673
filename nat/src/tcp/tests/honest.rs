//! Two endpoints that keep to RFC 9293, on a network that does not keep to anything.
//!
//! The endpoints count in positions of 64 bits: the SYN is 0, data begins at 1, the FIN is the last. Only the tracker sees
//! sequence numbers, so that nothing here can be wrong about them in the same way.

use super::flag::PSH;
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::vec::Vec;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What is under way: what the tracker sees, and what is meant.
#[derive(Clone, Copy)]
struct Sent {
    wire: Segment,
    position: u64,
    acknowledged: Option<u64>,
    /// In octets.
    window: u64,
}

impl Sent {
    fn is_syn(&self) -> bool {
        self.wire.flags & SYN != 0
    }

    fn is_fin(&self) -> bool {
        self.wire.flags & FIN != 0
    }
}

#[derive(Clone, Debug)]
struct Settings {
    first: u32,
    octets: u64,
    capacity: u64,
    scale: Option<u8>,
    sack: bool,
}

/// One endpoint.
struct End {
    settings: Settings,
    other_first: u32,
    /// Both offered it.
    shift: Option<u8>,
    sack: bool,
    /// Positions: not acknowledged, to be sent next, sent at most, and granted by the other side.
    oldest: u64,
    next: u64,
    newest: u64,
    granted: u64,
    /// The position expected, once the other side's SYN came.
    expected: Option<u64>,
    /// What came early, from and to.
    early: Vec<(u64, u64)>,
    /// Octets that the application has not read.
    unread: u64,
    /// The other side's FIN came.
    ended: bool,
}

impl End {
    fn new(settings: &Settings, other: &Settings) -> Self {
        let both = settings.scale.is_some() && other.scale.is_some();
        // So many windows are filled in a reasonable number of rounds.
        let octets = settings.octets.min(other.capacity * 100);
        Self {
            settings: Settings { octets, ..settings.clone() },
            other_first: other.first,
            shift: if both { settings.scale } else { None },
            sack: settings.sack && other.sack,
            oldest: 0,
            next: 0,
            newest: 0,
            granted: 1,
            expected: None,
            early: Vec::new(),
            unread: 0,
            ended: false,
        }
    }

    fn fin(&self) -> u64 {
        self.settings.octets + 1
    }

    fn is_done(&self) -> bool {
        self.oldest > self.fin() && self.ended
    }

    fn window(&self) -> u64 {
        self.settings.capacity - self.unread
    }

    fn segment(&self, flags: u8, position: u64, length: u64) -> Sent {
        let syn = flags & SYN != 0;
        let shift = if syn { 0 } else { self.shift.unwrap_or(0) };
        let field = (self.window() >> shift).min(0xffff);
        let low = |position: u64| u32::try_from(position & 0xffff_ffff).unwrap();
        let edge = self.early.iter().map(|&(_, to)| to).max().filter(|_| self.sack && !syn);
        let options = Options {
            scale: self.settings.scale.filter(|_| syn),
            sack_permitted: self.settings.sack && syn,
            sack: edge.map(|edge| self.other_first.wrapping_add(low(edge))),
        };
        let acknowledged = self.expected;
        let wire = Segment {
            flags: flags | if acknowledged.is_some() { ACK } else { 0 },
            sequence: self.settings.first.wrapping_add(low(position)),
            acknowledgement: acknowledged.map_or(0, |a| self.other_first.wrapping_add(low(a))),
            window: u16::try_from(field).unwrap(),
            length: low(length),
            options,
        };
        Sent { wire, position, acknowledged, window: field << shift }
    }

    fn acknowledge(&self) -> Sent {
        self.segment(0, self.next, 0)
    }

    /// What follows from a position: data as far as it was granted, and the FIN.
    fn transmit(&mut self, random: &mut Random) -> Option<Sent> {
        if self.oldest == 0 {
            self.newest = 1;
            self.next = 1;
            return Some(self.segment(SYN, 0, 0));
        }
        self.expected?;
        let from = self.next;
        if from > self.fin() {
            return None;
        }
        // One octet more than nothing was granted: a probe.
        let probe = u64::from(from == self.granted && self.oldest == from);
        let most = (self.granted.max(from) - from + probe).min(self.fin() - from);
        let length = if most == 0 { 0 } else { 1 + random.below(most.min(70_000)) };
        let fin = from + length == self.fin() && random.percent(70);
        if length == 0 && !fin {
            return None;
        }
        self.next = from + length + u64::from(fin);
        self.newest = self.newest.max(self.next);
        Some(self.segment(if fin { FIN } else { PSH }, from, length))
    }

    /// Takes a segment. True if it is to be answered.
    fn receive(&mut self, sent: &Sent) -> bool {
        let known = self.expected.is_some();
        if sent.is_syn() && !known {
            self.expected = Some(1);
        }
        let Some(mut expected) = self.expected else { return false };
        if let Some(acknowledged) = sent.acknowledged
            && acknowledged <= self.newest
            && acknowledged >= self.oldest
        {
            self.oldest = acknowledged;
            self.next = self.next.max(acknowledged);
            self.granted = self.granted.max(acknowledged + sent.window);
        }
        let (from, length) = (sent.position, u64::from(sent.wire.length));
        let to = (from + length).min(expected + self.window());
        if to > from {
            self.early.push((from, to));
        }
        while let Some(&(_, to)) = self.early.iter().find(|&&(from, to)| from <= expected && to > expected) {
            self.unread += to - expected;
            expected = to;
        }
        self.early.retain(|&(_, to)| to > expected);
        if sent.is_fin() && from + length == expected && !self.ended {
            expected += 1;
            self.ended = true;
        }
        self.expected = Some(expected);
        sent.is_syn() || length > 0 || sent.is_fin() || from < expected
    }
}

struct Network {
    random: Random,
    tcp: Option<Tcp>,
    knobs: Knobs,
    ends: [End; 2],
    /// By direction: towards the tracker, and from it.
    before: [VecDeque<Sent>; 2],
    after: [VecDeque<Sent>; 2],
    /// Chances in per cent: loss, repetition, disorder.
    faults: [u64; 3],
    accepted: u32,
}

impl Network {
    fn new(seed: u64, knobs: Knobs, settings: &[Settings; 2], faults: [u64; 3]) -> Self {
        let [a, b] = settings;
        Self {
            random: Random(seed),
            tcp: None,
            knobs,
            ends: [End::new(a, b), End::new(b, a)],
            before: Default::default(),
            after: Default::default(),
            faults,
            accepted: 0,
        }
    }

    /// The next segment of a queue, if it is not lost. SYNs stay where they are in the order: neither this tracker nor Linux
    /// can tell a SYN and its answer that come after their own connection's data from those of a new one.
    fn take(random: &mut Random, queue: &mut VecDeque<Sent>, faults: [u64; 3]) -> Option<Sent> {
        let [loss, repetition, disorder] = faults;
        let reach = queue.iter().take_while(|sent| !sent.is_syn()).count().min(8);
        let index = if reach > 1 && random.percent(disorder) { random.below(reach as u64) } else { 0 };
        let index = usize::try_from(index).unwrap();
        let sent = *queue.get(index)?;
        if sent.is_syn() || !random.percent(repetition) {
            queue.remove(index);
        }
        (!random.percent(loss)).then_some(sent)
    }

    fn pass(&mut self, direction: Direction) {
        let index = direction.index();
        let Some(sent) = Self::take(&mut self.random, &mut self.before[index], self.faults) else { return };
        let Some(tcp) = &mut self.tcp else {
            self.tcp = Some(Tcp::open(&sent.wire, self.knobs).unwrap());
            self.after[index].push_back(sent);
            return;
        };
        let earlier = *tcp;
        let outcome = tcp.update(direction, &sent.wire, self.knobs);
        match outcome {
            Outcome::Accepted(_) => self.accepted += 1,
            Outcome::Ignored(_) => {}
            Outcome::Invalid { .. } | Outcome::StartAgain | Outcome::Remove => {
                panic!("{outcome:?} {direction:?} {:?}\n{earlier:?}", sent.wire)
            }
        }
        if earlier.is_standing() && !self.knobs.liberal {
            let forged =
                Segment { sequence: sent.wire.sequence.wrapping_add(1 << 30), flags: ACK, ..sent.wire };
            let outcome = { earlier }.update(direction, &forged, self.knobs);
            assert_eq!(outcome, invalid(Invalid::SequenceAbove), "{forged:?}");
        }
        self.after[index].push_back(sent);
    }

    fn deliver(&mut self, direction: Direction) {
        let index = direction.index();
        let Some(sent) = Self::take(&mut self.random, &mut self.after[index], self.faults) else { return };
        let back = direction.reverse().index();
        let end = &mut self.ends[back];
        let answer = end.receive(&sent);
        if answer {
            // A SYN is answered by a SYN, ACK, which is this end's first segment.
            let answer =
                if end.oldest == 0 { end.transmit(&mut self.random) } else { Some(end.acknowledge()) };
            self.before[back].extend(answer);
        }
    }

    fn act(&mut self, direction: Direction, choice: u64) {
        let index = direction.index();
        let random = &mut self.random;
        let end = &mut self.ends[index];
        // The server waits for a SYN.
        if direction == Reply && end.expected.is_none() {
            return;
        }
        let sent = match choice {
            0..4 => end.transmit(random),
            4 => {
                // What was not acknowledged goes again, all of it or cut anew.
                end.next = end.oldest.max(1).min(end.next.max(1));
                end.transmit(random)
            }
            5..8 => {
                let read = if random.percent(50) { end.unread } else { random.below(end.unread + 1) };
                end.unread -= read;
                (end.oldest > 0 && end.expected.is_some()).then(|| end.acknowledge())
            }
            // A keep-alive.
            _ => (end.oldest > 0 && end.expected.is_some())
                .then(|| end.segment(0, end.oldest.min(end.next) - 1, 0)),
        };
        self.before[index].extend(sent);
    }

    fn step(&mut self) {
        let direction = if self.random.percent(50) { Original } else { Reply };
        match self.random.below(20) {
            0..5 => self.pass(direction),
            5..10 => self.deliver(direction),
            choice => self.act(direction, choice - 10),
        }
    }

    /// Everything arrives from now on.
    fn finish(&mut self) {
        self.faults = [0; 3];
        for _ in 0..1_000 {
            for direction in [Original, Reply] {
                while !self.before[direction.index()].is_empty() {
                    self.pass(direction);
                }
                while !self.after[direction.index()].is_empty() {
                    self.deliver(direction);
                }
                self.act(direction, 7);
                self.ends[direction.index()].unread = 0;
                self.act(direction, 4);
                for _ in 0..20 {
                    self.act(direction, 0);
                }
            }
            if self.ends.iter().all(End::is_done) {
                for direction in [Original, Reply] {
                    while !self.before[direction.index()].is_empty() {
                        self.pass(direction);
                    }
                }
                return;
            }
        }
        panic!("the transfer does not end: {:?}", self.ends.each_ref().map(|end| (end.oldest, end.expected)));
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![any::<u32>(), 0xffff_0000..=0xffff_ffff_u32, 0..10_u32],
        prop_oneof![Just(0_u64), 1..2_000_u64, 1..3_000_000_u64],
        prop_oneof![1..3_000_u64, 1..70_000_u64, 1..1_000_000_u64],
        proptest::option::of(0..=14_u8),
        any::<bool>(),
    )
        .prop_map(|(first, octets, capacity, scale, sack)| {
            // A window that never reaches one unit of its scale never opens.
            let capacity = capacity.max(1 << scale.unwrap_or(0));
            Settings { first, octets, capacity, scale, sack }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn nat_33_nothing_that_honest_endpoints_send_is_invalid(
        seed: u64,
        ends in [settings(), settings()],
        faults in prop_oneof![Just([0, 0, 0]), [0..40_u64, 0..30_u64, 0..80_u64]],
        steps in 0..3_000_u32,
        knobs in prop_oneof![Just(Knobs::strict()), Just(Knobs::linux()), Just(Knobs::node())],
    ) {
        let mut network = Network::new(seed, knobs, &ends, faults);
        network.act(Original, 0);
        for _ in 0..steps {
            network.step();
        }
        network.finish();
        let tcp = network.tcp.unwrap();
        // A FIN may be the first that arrives after the SYN, ACK.
        prop_assert!(tcp.is_assured() || faults != [0; 3]);
        prop_assert_eq!(tcp.state(), State::TimeWait);
        prop_assert!(network.accepted >= 4);
        // Both ends know that nothing is left to say, and so may either begin again.
        for direction in [Original, Reply] {
            prop_assert_eq!({ tcp }.update(direction, &segment(SYN, 7, 0, 0), knobs), Outcome::StartAgain);
        }
    }
}
