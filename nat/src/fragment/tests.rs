extern crate std;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::checksum;
use crate::packet::parse;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits { datagrams: 4, fragments: 8, parked: 6, parked_octets: 600, timeout: 30 * SECOND }
}

fn key(identification: u32) -> Key<Ipv4Addr> {
    Key {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        identification,
        protocol: 17,
        zone: 0,
    }
}

/// The fragment from `start` to `end`, in units of 8 octets.
fn part(identification: u32, start: u16, end: u16, more: bool) -> Part<Ipv4Addr> {
    let octets = usize::from(end - start) * 8 + 20;
    Part { key: key(identification), start: start * 8, end: Ok(end * 8), more, octets }
}

type Fragments = Table<Ipv4Addr, u32, u32>;

fn take(table: &mut Fragments, part: &Part<Ipv4Addr>, payload: u32, now: Duration) -> Taken<u32, u32> {
    table.take(part, payload, now, &mut |payload, reason| panic!("{payload} is lost: {reason:?}"))
}

/// What comes out for one datagram, whose first fragment is resolved at once.
fn run(table: &mut Fragments, parts: &[Part<Ipv4Addr>]) -> (Vec<usize>, Vec<(usize, Refusal)>) {
    let (mut out, mut refused) = (Vec::new(), Vec::new());
    let payload = |at| u32::try_from(at).unwrap();
    for (at, part) in parts.iter().enumerate() {
        match table.take(part, payload(at), SECOND, &mut |at, why| refused.push((at as usize, why))) {
            Taken::First(first) => {
                out.push(first as usize);
                table.resolve(&part.key, 7, SECOND, &mut |parked| out.push(parked as usize));
            }
            Taken::Later(value, later) => {
                assert_eq!(value, 7);
                out.push(later as usize);
            }
            Taken::Parked => {}
            Taken::Refused(why, back) => refused.push((back as usize, why)),
        }
    }
    (out, refused)
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return std::vec![Vec::new()];
    }
    let insert = |rest: Vec<usize>| {
        (0..=rest.len()).map(move |at| {
            let mut order = rest.clone();
            order.insert(at, count - 1);
            order
        })
    };
    permutations(count - 1).into_iter().flat_map(insert).collect()
}

#[test]
fn nat_40_every_order_of_four_fragments_comes_through() {
    let all = [part(1, 0, 2, true), part(1, 2, 3, true), part(1, 3, 5, true), part(1, 5, 6, false)];
    let orders = permutations(4);
    assert_eq!(orders.len(), 24);
    let mut table = Fragments::new(limits(), 1);
    for order in orders {
        let parts: Vec<_> = order.iter().map(|&at| all[at]).collect();
        let (out, refused) = run(&mut table, &parts);
        // The first fragment goes first, then what it was waited for, then the others, each as it came.
        let first = order.iter().position(|&at| at == 0).unwrap();
        let wanted: Vec<usize> = [first].into_iter().chain(0..first).chain(first + 1..4).collect();
        assert_eq!((out, refused), (wanted, Vec::new()), "{order:?}");
        assert_eq!((table.len(), table.parked(), table.parked_octets()), (0, 0, 0));
    }
}

#[test]
fn nat_40_duplicates_are_refused_alone_and_gaps_keep_the_datagram() {
    let all = [part(1, 0, 2, true), part(1, 2, 3, true), part(1, 3, 5, true), part(1, 5, 6, false)];
    for order in permutations(4) {
        // Each but the last is sent twice in a row.
        let parts: Vec<_> = order.iter().flat_map(|&at| [all[at]; 2]).take(7).collect();
        let mut table = Fragments::new(limits(), 1);
        let (out, refused) = run(&mut table, &parts);
        assert_eq!(out.len(), 4);
        assert_eq!(refused, [(1, Refusal::Duplicate), (3, Refusal::Duplicate), (5, Refusal::Duplicate)]);
        assert!(table.is_empty());

        for missing in 0..4 {
            let parts: Vec<_> = order.iter().filter(|&&at| at != missing).map(|&at| all[at]).collect();
            let mut table = Fragments::new(limits(), 1);
            let (out, refused) = run(&mut table, &parts);
            let passed = if missing == 0 { 0 } else { 3 };
            assert_eq!((out.len(), table.parked(), table.len()), (passed, 3 - passed, 1));
            assert!(refused.is_empty());
            let mut lost = 0;
            table.expire(SECOND + limits().timeout, 9, &mut |_, why| {
                assert_eq!(why, Refusal::Timeout);
                lost += 1;
            });
            assert_eq!((lost, table.len(), table.parked_octets()), (3 - passed, 0, 0));
        }
    }
}

#[test]
fn nat_40_an_overlap_refuses_the_whole_datagram() {
    for (one, other) in
        [((0, 4, true), (2, 6, true)), ((2, 6, true), (0, 4, true)), ((2, 4, true), (1, 5, true))]
    {
        let [one, other] = [one, other].map(|(start, end, more)| part(1, start, end, more));
        let mut table = Fragments::new(limits(), 1);
        let parked = part(1, 6, 7, true);
        let (out, refused) =
            run(&mut table, &[parked, one, other, part(1, 0, 1, true), part(1, 7, 8, false)]);
        assert!(out.len() <= 2);
        assert!(refused.len() >= 3 && refused.iter().all(|&(_, why)| why == Refusal::Overlap), "{refused:?}");
        assert_eq!((table.len(), table.parked()), (1, 0));
    }
}

#[test]
fn nat_40_fragments_that_disagree_about_the_end_refuse_the_datagram() {
    for (one, other) in [
        ((4, 5, false), (5, 6, true)),
        ((4, 5, false), (5, 6, false)),
        ((4, 5, false), (4, 5, true)),
        ((4, 5, true), (4, 5, false)),
        ((4, 6, true), (2, 3, false)),
    ] {
        let [one, other] = [one, other].map(|(start, end, more)| part(1, start, end, more));
        let (out, refused) = run(&mut Fragments::new(limits(), 1), &[one, other, part(1, 0, 1, true)]);
        assert_eq!(out, []);
        let why = Refusal::Length;
        assert_eq!(refused, [(0, why), (1, why), (2, why)]);
    }
}

#[test]
fn nat_40_too_many_fragments_refuse_the_datagram() {
    let parts: Vec<_> = (0..10).map(|at| part(1, at, at + 1, true)).collect();
    let (out, refused) = run(&mut Fragments::new(limits(), 1), &parts);
    assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(refused, [(8, Refusal::Count), (9, Refusal::Count)]);
}

#[test]
fn nat_40_what_follows_a_rejected_first_fragment_is_refused() {
    let mut table = Fragments::new(limits(), 1);
    assert_eq!(take(&mut table, &part(1, 1, 2, true), 10, SECOND), Taken::Parked);
    assert_eq!(take(&mut table, &part(1, 0, 1, true), 11, SECOND), Taken::First(11));
    let mut lost = Vec::new();
    table.reject(&key(1), SECOND, &mut |payload, why| lost.push((payload, why)));
    assert_eq!(lost, [(10, Refusal::Rejected)]);
    let refused = take(&mut table, &part(1, 2, 3, false), 12, SECOND);
    assert_eq!(refused, Taken::Refused(Refusal::Rejected, 12));
}

#[test]
fn nat_40_a_flood_costs_the_oldest_datagrams_and_no_memory() {
    let mut table = Fragments::new(limits(), 1);
    let mut lost = Vec::new();
    for at in 0..100_000u32 {
        let taken = table.take(&part(at, 1, 2, true), at, SECOND, &mut |payload, why| {
            assert_eq!(why, Refusal::Pressure);
            lost.push(payload);
        });
        assert_eq!(taken, Taken::Parked);
        assert!(table.len() <= 4 && table.parked() <= 6 && table.parked_octets() <= 600);
    }
    assert_eq!(lost, (0..99_996).collect::<Vec<u32>>());
    // A datagram in order passes in the middle of it.
    let (out, refused) = run(&mut table, &[part(200_000, 0, 2, true), part(200_000, 2, 3, false)]);
    assert_eq!(out, [0, 1]);
    assert_eq!(refused, [(99_996, Refusal::Pressure)]);
}

#[test]
fn nat_40_parked_fragments_are_bounded_in_octets() {
    let mut table = Fragments::new(Limits { parked: 100, ..limits() }, 1);
    let mut lost = Vec::new();
    let mut park = |table: &mut Fragments, part: &Part<_>, payload| {
        table.take(part, payload, SECOND, &mut |payload, _| lost.push(payload))
    };
    // 260 octets each.
    assert_eq!(park(&mut table, &part(1, 1, 31, true), 1), Taken::Parked);
    assert_eq!(park(&mut table, &part(2, 1, 31, true), 2), Taken::Parked);
    assert_eq!(park(&mut table, &part(3, 1, 31, true), 3), Taken::Parked);
    assert_eq!(table.parked_octets(), 520);
    // The oldest datagram pays for its own fragment.
    assert_eq!(park(&mut table, &part(2, 31, 61, true), 4), Taken::Refused(Refusal::Pressure, 4));
    // More than there is room for at all costs nobody else anything.
    assert_eq!(park(&mut table, &part(4, 1, 81, true), 5), Taken::Refused(Refusal::Pressure, 5));
    assert_eq!((table.parked(), table.parked_octets()), (1, 260));
    assert_eq!(lost, [1, 2]);
}

fn datagram(v6: bool, tcp: bool, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let start = if v6 {
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
    } else {
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let payload = std::vec![9; payload];
    if tcp {
        start.tcp(5, 6, 7, 8).write(&mut bytes, &payload).unwrap();
    } else {
        start.udp(5, 6).write(&mut bytes, &payload).unwrap();
    }
    bytes
}

/// A fragment of `length` octets; `next` in IPv6 is the protocol that the fragment header names.
fn fragment(datagram: &[u8], offset: u16, length: usize, more: bool) -> Vec<u8> {
    let v6 = datagram[0] >> 4 == 6;
    let mut bytes = datagram[..if v6 { 40 } else { 20 }].to_vec();
    if v6 {
        let position = (offset | u16::from(more)).to_be_bytes();
        bytes.extend([bytes[6], 0, position[0], position[1], 0, 0, 0, 5]);
        bytes[6] = 44;
        bytes.extend(&datagram[40 + usize::from(offset) % 1024..][..length]);
        let length = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
    } else {
        bytes.extend(&datagram[20 + usize::from(offset) % 1024..][..length]);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let position = (offset / 8) | if more { 0x2000 } else { 0 };
        bytes[6..8].copy_from_slice(&position.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = checksum::checksum(&bytes[..20]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

fn judged(bytes: &[u8]) -> Result<(u16, u16), Refusal> {
    let packet = parse(bytes).unwrap();
    if packet.layout.source.is_ipv4() {
        let part = Part::<Ipv4Addr>::of(bytes, &packet, 3).unwrap();
        assert_eq!((part.key.protocol, part.key.zone), (bytes[9], 3));
        part.end.map(|end| (part.start, end))
    } else {
        let part = Part::<Ipv6Addr>::of(bytes, &packet, 3).unwrap();
        assert_eq!((part.key.protocol, part.key.zone, part.key.identification), (0, 3, 5));
        part.end.map(|end| (part.start, end))
    }
}

#[test]
fn nat_40_headers_in_more_than_one_fragment_are_refused() {
    for v6 in [false, true] {
        let tcp = datagram(v6, true, 2000);
        let udp = datagram(v6, false, 2000);
        assert_eq!(judged(&fragment(&tcp, 0, 24, true)), Ok((0, 24)));
        assert_eq!(judged(&fragment(&udp, 0, 8, true)), Ok((0, 8)));
        assert_eq!(judged(&fragment(&udp, 8, 8, true)), Ok((8, 16)));
        // RFC 791 allows 8 octets in the first, RFC 7112 does not.
        let first = judged(&fragment(&tcp, 0, 8, true));
        assert_eq!(first, if v6 { Err(Refusal::Tiny) } else { Ok((0, 8)) });
        // RFC 3128: the flags stand in the second 8 octets.
        let second = judged(&fragment(&tcp, 8, 16, true));
        assert_eq!(second, if v6 { Ok((8, 24)) } else { Err(Refusal::Tiny) });
        assert_eq!(judged(&fragment(&tcp, 16, 16, true)), Ok((16, 32)));
    }
}

#[test]
fn nat_40_lengths_are_judged() {
    for v6 in [false, true] {
        let udp = datagram(v6, false, 2000);
        assert_eq!(judged(&fragment(&udp, 8, 9, true)), Err(Refusal::Length));
        assert_eq!(judged(&fragment(&udp, 8, 9, false)), Ok((8, 17)));
        assert_eq!(judged(&fragment(&udp, 8, 0, false)), Err(Refusal::Length));
        // 65,535 octets with the header in IPv4, without it in IPv6.
        let most = if v6 { 7 } else { 3 };
        let last = if v6 { 65_528 } else { 65_512 };
        assert_eq!(
            judged(&fragment(&udp, last, most, false)),
            Ok((last, last + u16::try_from(most).unwrap()))
        );
        assert_eq!(judged(&fragment(&udp, last, most + 1, false)), Err(Refusal::Length));
    }
}

#[test]
fn whole_packets_and_the_other_family_are_no_fragments() {
    let whole = datagram(false, false, 9);
    assert_eq!(Part::<Ipv4Addr>::of(&whole, &parse(&whole).unwrap(), 0), None);
    let cut = fragment(&datagram(true, false, 99), 8, 16, true);
    assert_eq!(Part::<Ipv4Addr>::of(&cut, &parse(&cut).unwrap(), 0), None);
}

#[test]
fn extension_headers_behind_the_fragment_header_are_part_of_the_datagram() {
    // Destination options, 8 octets of them, then UDP.
    let mut udp = datagram(true, false, 100);
    udp.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
    udp[6] = 60;
    assert_eq!(judged(&fragment(&udp, 0, 24, true)), Ok((0, 24)));
    assert_eq!(judged(&fragment(&udp, 24, 24, true)), Ok((24, 48)));
}

/// The rules without any of the machinery: octets in a list, datagrams in a vector.
#[derive(Default)]
struct Model {
    datagrams: Vec<ModelDatagram>,
    changes: u64,
    log: Vec<Event>,
}

struct ModelDatagram {
    key: u32,
    state: Option<Result<u32, Refusal>>,
    deadline: Duration,
    changed: u64,
    parts: Vec<(u16, u16, bool)>,
    parked: Vec<(u32, usize)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Event {
    Taken(Taken<u32, u32>),
    Lost(u32, Refusal),
    Released(u32),
}

impl Model {
    fn oldest(&self, waiting: bool) -> Option<usize> {
        (0..self.datagrams.len()).filter(|&at| !waiting || self.datagrams[at].state.is_none()).min_by_key(
            |&at| {
                let datagram = &self.datagrams[at];
                (datagram.deadline, datagram.state.is_some(), datagram.changed)
            },
        )
    }

    fn lose(&mut self, at: usize, why: Refusal) {
        for (payload, _) in self.datagrams[at].parked.split_off(0) {
            self.log.push(Event::Lost(payload, why));
        }
    }

    fn settle(&mut self, at: usize, state: Result<u32, Refusal>, now: Duration) {
        self.changes += 1;
        let datagram = &mut self.datagrams[at];
        (datagram.state, datagram.deadline, datagram.changed) =
            (Some(state), now + limits().timeout, self.changes);
    }

    fn refuse(&mut self, at: usize, why: Refusal, now: Duration) -> Refusal {
        self.lose(at, why);
        self.settle(at, Err(why), now);
        why
    }

    fn take(&mut self, key: u32, new: (u16, u16, bool), payload: u32, now: Duration) -> Taken<u32, u32> {
        for _ in 0..2 {
            if let Some(at) = self.oldest(false).filter(|&at| self.datagrams[at].deadline <= now) {
                self.lose(at, Refusal::Timeout);
                self.datagrams.remove(at);
            }
        }
        if let Some(at) = self.datagrams.iter().position(|d| d.key == key && d.deadline <= now) {
            self.lose(at, Refusal::Timeout);
            self.datagrams.remove(at);
        }
        let at = self.datagrams.iter().position(|d| d.key == key).unwrap_or_else(|| {
            if self.datagrams.len() == limits().datagrams as usize {
                let at = self.oldest(false).unwrap();
                self.lose(at, Refusal::Pressure);
                self.datagrams.remove(at);
            }
            self.changes += 1;
            self.datagrams.push(ModelDatagram {
                key,
                state: None,
                deadline: now + limits().timeout,
                changed: self.changes,
                parts: Vec::new(),
                parked: Vec::new(),
            });
            self.datagrams.len() - 1
        });
        if let Some(Err(why)) = self.datagrams[at].state {
            return Taken::Refused(why, payload);
        }
        let parts = &self.datagrams[at].parts;
        let end = parts.iter().find(|part| !part.2).map(|part| part.1);
        let inside = |octet: u16| parts.iter().any(|part| (part.0..part.1).contains(&octet));
        let is_last = |octet: u16| !new.2 && octet >= new.1;
        let contradicts = match end {
            Some(end) if new.2 => new.1 >= end,
            Some(end) => new.1 != end,
            None => parts.iter().any(|part| is_last(part.1)),
        };
        if contradicts {
            return Taken::Refused(self.refuse(at, Refusal::Length, now), payload);
        }
        if parts.contains(&new) {
            return Taken::Refused(Refusal::Duplicate, payload);
        }
        if (new.0..new.1).any(inside) {
            return Taken::Refused(self.refuse(at, Refusal::Overlap, now), payload);
        }
        if parts.len() == usize::from(limits().fragments) {
            return Taken::Refused(self.refuse(at, Refusal::Count, now), payload);
        }
        self.datagrams[at].parts.push(new);
        match self.datagrams[at].state {
            Some(Ok(value)) => {
                if self.complete(at) {
                    self.datagrams.remove(at);
                }
                Taken::Later(value, payload)
            }
            _ if new.0 == 0 => Taken::First(payload),
            _ => self.park(at, payload, usize::from(new.1 - new.0) * 8 + 20, now),
        }
    }

    fn park(&mut self, at: usize, payload: u32, octets: usize, now: Duration) -> Taken<u32, u32> {
        if octets > limits().parked_octets {
            return Taken::Refused(self.refuse(at, Refusal::Pressure, now), payload);
        }
        loop {
            let all: Vec<usize> =
                self.datagrams.iter().flat_map(|d| &d.parked).map(|parked| parked.1).collect();
            if all.len() < limits().parked as usize
                && all.iter().sum::<usize>() + octets <= limits().parked_octets
            {
                self.datagrams[at].parked.push((payload, octets));
                return Taken::Parked;
            }
            let oldest = self.oldest(true).unwrap();
            let why = self.refuse(oldest, Refusal::Pressure, now);
            if oldest == at {
                return Taken::Refused(why, payload);
            }
        }
    }

    fn complete(&self, at: usize) -> bool {
        let parts = &self.datagrams[at].parts;
        let end = parts.iter().find(|part| !part.2).map(|part| part.1);
        end.is_some_and(|end| {
            (0..end).all(|octet| parts.iter().any(|part| (part.0..part.1).contains(&octet)))
        })
    }

    fn resolve(&mut self, key: u32, value: u32, now: Duration) {
        let waiting = |d: &ModelDatagram| d.key == key && d.state.is_none();
        let Some(at) = self.datagrams.iter().position(waiting) else { return };
        for (payload, _) in self.datagrams[at].parked.split_off(0) {
            self.log.push(Event::Released(payload));
        }
        if self.complete(at) {
            self.datagrams.remove(at);
        } else {
            self.settle(at, Ok(value), now);
        }
    }

    fn reject(&mut self, key: u32, now: Duration) {
        if let Some(at) = self.datagrams.iter().position(|d| d.key == key) {
            self.refuse(at, Refusal::Rejected, now);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take(u32, u16, u16, bool, bool),
    Reject(u32),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..7u32, 0..7u16, 1..4u16, prop::bool::weighted(0.8), prop::bool::weighted(0.9))
            .prop_map(|(key, start, length, more, resolve)| Step::Take(key, start, start + length, more, resolve)),
        // Whole units in order of their own, which get complete.
        30 => (0..7u32, 0..3u16).prop_map(|(key, at)| Step::Take(key, at, at + 1, at < 2, true)),
        3 => (0..7u32).prop_map(Step::Reject),
        10 => (0..20_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn nat_40_the_table_agrees_with_a_plain_model(steps in prop::collection::vec(any_step(), 1..200), seed: u64) {
        let mut table = Fragments::new(limits(), seed);
        let mut model = Model::default();
        let mut now = Duration::ZERO;
        for (payload, step) in (0u32..).zip(steps) {
            let mut log = Vec::new();
            match step {
                Step::Take(identification, start, end, more, resolve) => {
                    let new = part(identification, start, end, more);
                    let taken = table.take(&new, payload, now, &mut |payload, why| log.push(Event::Lost(payload, why)));
                    log.push(Event::Taken(taken.clone()));
                    let expected = model.take(identification, (start, end, more), payload, now);
                    model.log.push(Event::Taken(expected));
                    if resolve && matches!(taken, Taken::First(_)) {
                        table.resolve(&new.key, payload, now, &mut |payload| log.push(Event::Released(payload)));
                        model.resolve(identification, payload, now);
                    }
                }
                Step::Reject(identification) => {
                    table.reject(&key(identification), now, &mut |payload, why| log.push(Event::Lost(payload, why)));
                    model.reject(identification, now);
                }
                Step::Wait(time) => now += Duration::from_millis(time),
            }
            prop_assert_eq!(&log, &model.log);
            model.log.clear();
            prop_assert_eq!(table.len(), model.datagrams.len());
            let parked: Vec<usize> = model.datagrams.iter().flat_map(|d| &d.parked).map(|parked| parked.1).collect();
            prop_assert_eq!(table.parked(), parked.len());
            prop_assert_eq!(table.parked_octets(), parked.iter().sum::<usize>());
            prop_assert_eq!(table.next_deadline(), model.datagrams.iter().map(|d| d.deadline).min());
        }
    }
}
