extern crate std;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::tuple::{Endpoint, protocol};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn endpoint<A: Address>(host: u8, port: u16) -> Endpoint<A> {
    Endpoint { address: A::from_bits(u128::from(host) + 0x0a00_0000), port }
}

/// A connection from an inside host by its own port, translated to an outside address and a port of its own.
fn opening<A: Address>(inside: u16, outside: u16, timeout: Duration) -> Opening<A> {
    let original =
        Tuple { source: endpoint(1, inside), destination: endpoint(9, 80), protocol: protocol::UDP, zone: 0 };
    let reply = Tuple { source: endpoint(9, 80), destination: endpoint(200, outside), ..original };
    Opening { original, reply, state: State::Other, timeout, status: Status::default(), marks: [0; 3] }
}

fn in_both_families(test: impl Fn(bool)) {
    test(false);
    test(true);
}

fn sweep_all<A: Address>(table: &mut Table<A>, now: Duration) -> usize {
    let mut ended = vec![];
    table.sweep(now, usize::MAX, &mut ended);
    ended.iter().filter_map(|&id| table.remove(id)).count()
}

#[test]
fn nat_50_a_flow_takes_what_is_published() {
    // Everything of a table of a million, per flow.
    assert!(Table::<Ipv4Addr>::new(1 << 20, 1).size() / (1 << 20) <= 160);
    assert!(Table::<Ipv6Addr>::new(1 << 20, 1).size() / (1 << 20) <= 256);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u16, u16, u64),
    Keep(u16, u64),
    Remove(u16),
    Find(u16, u16),
    Wait(u64),
    Sweep(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..60u16, 0..60u16, 0..100u64).prop_map(|(a, b, t)| Step::Insert(a, b, t)),
        3 => (0..60u16, 0..100u64).prop_map(|(a, t)| Step::Keep(a, t)),
        2 => (0..60u16).prop_map(Step::Remove),
        4 => (0..60u16, 0..60u16).prop_map(|(a, b)| Step::Find(a, b)),
        2 => (0..50u64).prop_map(Step::Wait),
        1 => (1..4usize).prop_map(Step::Sweep),
    ]
}

/// What a table holds, plainly: the connection's outside port, its end, and its identity, by inside port.
#[derive(Default)]
struct Model(BTreeMap<u16, (u16, Duration, Option<ConnectionId>)>);

fn history<A: Address>(steps: &[Step], capacity: usize, start: u64) -> Result<(), TestCaseError> {
    let mut table = Table::<A>::new(capacity, 7);
    let mut model = Model::default();
    let mut now = Duration::from_millis(start);
    for &step in steps {
        match step {
            Step::Insert(inside, outside, timeout) => {
                let opening = opening::<A>(inside, outside, seconds(timeout));
                // Those that are over stay filed until they are swept.
                if model.0.contains_key(&inside) || model.0.values().any(|held| held.0 == outside) {
                    continue;
                }
                let id = table.insert(&opening, now).ok();
                prop_assert_eq!(id.is_some(), model.0.len() < capacity);
                if id.is_some() {
                    model.0.insert(inside, (outside, now + seconds(timeout), id));
                }
            }
            Step::Keep(inside, timeout) => {
                if let Some((_, end, Some(id))) = model.0.get_mut(&inside) {
                    table.keep(*id, now, seconds(timeout));
                    *end = now + seconds(timeout);
                }
            }
            Step::Remove(inside) => {
                if let Some((.., Some(id))) = model.0.remove(&inside) {
                    prop_assert!(table.remove(id).is_some());
                    prop_assert!(table.remove(id).is_none() && table.get(id).is_none());
                }
            }
            Step::Find(inside, outside) => {
                let tuples = opening::<A>(inside, outside, seconds(1));
                let original = model.0.get(&inside).filter(|held| now < held.1).and_then(|held| held.2);
                let reply = model.0.values().find(|held| held.0 == outside && now < held.1);
                let wanted = [
                    original.map(|id| (id, Direction::Original)),
                    reply.and_then(|held| held.2).map(|id| (id, Direction::Reply)),
                ];
                let asked = [tuples.original, tuples.reply];
                prop_assert_eq!(asked.map(|tuple| table.find(&tuple, now)), wanted);
                let mut found = [None; 2];
                table.find_batch(&asked, now, &mut found);
                prop_assert_eq!(found, wanted);
            }
            Step::Wait(time) => {
                now += seconds(time);
                // Whoever is over is due, sooner or later.
                if model.0.values().any(|held| held.1 <= now) {
                    prop_assert!(table.next_sweep(now).is_some_and(|wait| wait <= SWEEP_INTERVAL));
                }
            }
            Step::Sweep(groups) => {
                let mut ended = vec![];
                table.sweep(now, groups, &mut ended);
                for id in ended {
                    let over: Vec<u16> = model
                        .0
                        .iter()
                        .filter(|(_, held)| held.2 == Some(id))
                        .map(|(inside, _)| *inside)
                        .collect();
                    prop_assert_eq!(over.len(), 1);
                    prop_assert!(model.0.remove(&over[0]).is_some_and(|held| held.1 <= now));
                    prop_assert!(table.remove(id).is_some());
                }
            }
        }
        prop_assert_eq!(table.len(), model.0.len());
        prop_assert_eq!(table.iter().count(), model.0.len());
        let all: Vec<ConnectionId> = table.iter().map(|(id, _)| id).collect();
        let some = (0..table.slots()).step_by(3).flat_map(|from| table.iter_in(from..from + 3));
        prop_assert_eq!(some.map(|(id, _)| id).collect::<Vec<_>>(), all, "some at a time");
    }
    // In the end a sweep clears away all that is over, and nothing else.
    let over = model.0.values().filter(|held| held.1 <= now).count();
    prop_assert_eq!(sweep_all(&mut table, now), over);
    prop_assert_eq!(table.next_sweep(now).is_some(), !table.is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn a_map_with_a_clock_agrees(
        steps in proptest::collection::vec(step(), 0..200),
        capacity in 1..50usize,
        start in prop_oneof![Just(0), Just((1u64 << 32) - 20_000), Just((1u64 << 31) - 20_000), any::<u32>().prop_map(u64::from)],
    ) {
        history::<Ipv4Addr>(&steps, capacity, start)?;
        history::<Ipv6Addr>(&steps, capacity, start)?;
    }
}

#[test]
fn room_is_made_by_who_is_over_or_not_assured() {
    fn full<A: Address>(assured: impl Fn(u16) -> bool) -> Table<A> {
        let mut table = Table::new(100, 3);
        for n in 0..100 {
            let id = table.insert(&opening(n, n, seconds(10)), Duration::ZERO).unwrap();
            if assured(n) {
                table.get_mut(id).unwrap().status.set(Status::ASSURED);
            }
        }
        assert_eq!(table.insert(&opening(100, 100, seconds(1)), Duration::ZERO), Err(Full));
        table
    }
    fn check<A: Address>() {
        let newcomer = |n: u16| opening::<A>(1000 + n, 1000, seconds(1)).original;
        let table = full::<A>(|_| true);
        assert!((0..1000).all(|n| table.victim(&newcomer(n), seconds(9), None).is_none()));
        assert!((0..1000).all(|n| table.victim(&newcomer(n), seconds(10), None).is_some()));
        let table = full::<A>(|n| n % 2 == 0);
        let mut found = 0;
        for n in 0..1000 {
            let Some(victim) = table.victim(&newcomer(n), seconds(9), None) else { continue };
            assert!(!table.get(victim).unwrap().status.has(Status::ASSURED));
            found += 1;
        }
        // Only a few connections are looked at; that all of them are assured is rare.
        assert!(found > 950, "{found}");
    }
    in_both_families(|v6| if v6 { check::<Ipv6Addr>() } else { check::<Ipv4Addr>() });
}

#[test]
fn what_has_ended_is_never_found_by_its_old_name() {
    let mut table = Table::<Ipv4Addr>::new(4, 3);
    let first = table.insert(&opening(1, 1, seconds(1)), Duration::ZERO).unwrap();
    assert!(table.remove(first).is_some());
    let second = table.insert(&opening(2, 2, seconds(1)), Duration::ZERO).unwrap();
    assert_eq!(second.slot, first.slot);
    assert!(table.get(first).is_none() && table.remove(first).is_none());
    table.keep(first, Duration::ZERO, seconds(100));
    assert_eq!(table.get(second).unwrap().remaining(Duration::ZERO), seconds(1));
}

#[test]
fn a_silent_connection_lasts_exactly_its_time() {
    let mut table = Table::<Ipv4Addr>::new(4, 3);
    let made = opening(1, 1, seconds(30));
    let begin = Duration::from_millis(5_000_000_123);
    table.insert(&made, begin).unwrap();
    assert!(table.is_taken(&made.reply, begin + seconds(30) - Duration::from_millis(1)));
    assert!(!table.is_taken(&made.reply, begin + seconds(30)));
    assert_eq!(table.next_sweep(begin), Some(seconds(30)));
}

#[test]
fn wake_ups_are_few() {
    // A thousand connections that end at a thousand moments within ten seconds: about ten looks a second.
    let mut table = Table::<Ipv4Addr>::new(1000, 3);
    for n in 0..1000u16 {
        let timeout = Duration::from_millis(u64::from(n) * 10 + 1);
        table.insert(&opening(n, n, timeout), Duration::ZERO).unwrap();
    }
    let (mut now, mut looks) = (Duration::ZERO, 0);
    while let Some(wait) = table.next_sweep(now) {
        now += wait;
        looks += 1;
        sweep_all(&mut table, now);
    }
    assert!(table.is_empty() && now < seconds(11) && looks < 120, "{now:?} {looks}");
}

/// Connections from one inside endpoint to many places, by one external port.
#[test]
fn a_mapping_lasts_as_long_as_the_last_of_its_connections() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 2, 0, 3], [2, 3, 1, 0]] {
        let mut table = Table::<Ipv4Addr>::new(8, 3);
        let mut ids = vec![];
        for host in 0..4 {
            let original = Tuple {
                source: endpoint(1, 7),
                destination: endpoint(100 + host, 80),
                protocol: protocol::UDP,
                zone: 0,
            };
            let reply = Tuple { destination: endpoint(200, 7000), ..original.inverse() };
            let opening = Opening { original, reply, ..opening(7, 7000, seconds(10)) };
            let id = table.insert(&opening, Duration::ZERO).unwrap();
            let first = table.mapping(&original, |_| true);
            assert_eq!(first, ids.first().copied());
            table.join(id, first);
            ids.push(id);
        }
        let tuple = table.get(ids[0]).unwrap().tuple(Direction::Original);
        assert_eq!(table.mapping(&tuple, |_| false), None);
        assert_eq!(table.mapping(&Tuple { zone: 1, ..tuple }, |_| true), None);
        let mut left: Vec<ConnectionId> = ids.clone();
        for n in order {
            let before = table.mapping(&tuple, |_| true).unwrap();
            let (_, remainder) = table.remove(ids[n]).unwrap();
            left.retain(|id| *id != ids[n]);
            let first = table.mapping(&tuple, |_| true);
            match remainder {
                Remainder::NoMapping => panic!("it was in one"),
                Remainder::Nothing => assert!(left.is_empty() && first.is_none()),
                Remainder::Others => assert!(first == Some(before) && before != ids[n]),
                Remainder::First(now) => assert!(first == Some(now) && before == ids[n]),
            }
            let mut siblings: Vec<ConnectionId> =
                first.iter().flat_map(|first| table.siblings(first.slot)).map(|(id, _)| id).collect();
            siblings.sort_by_key(|id| id.slot);
            assert_eq!(siblings, left);
        }
    }
}
