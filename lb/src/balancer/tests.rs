#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

extern crate std;

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::pool::{Backend, Pool};
use crate::rendezvous::mix;
use crate::service::{Entrance, Service, Way};

const KEY: [u8; 16] = *b"0123456789abcdef";
const NOW: Duration = Duration::from_secs(1000);
const VIP: Frontend = Frontend { address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), protocol: 6, port: 80 };
const NODE_PORT: Frontend =
    Frontend { address: IpAddr::V4(Ipv4Addr::new(10, 20, 30, 11)), protocol: 6, port: 30_080 };

fn at(n: u32) -> (IpAddr, u16) {
    (Ipv4Addr::from_bits(0x0af4_0000 + n).into(), 8080)
}

fn way(backends: impl IntoIterator<Item = u32>, policy: Policy) -> Way {
    let backend = |n| Backend { address: at(n).0, port: 8080, weight: 1 };
    let pool = Pool::new(backends.into_iter().map(backend), policy, None, KEY).unwrap();
    Way { pool: Arc::new(pool), masquerade: false, when_empty: Refusal::Reject }
}

/// A service with the backends at these numbers.
fn service(backends: impl IntoIterator<Item = u32>, policy: Policy) -> Service {
    let way = way(backends, policy);
    let entrance =
        |frontend| Entrance { frontend, sources: vec![], ways: [way.clone(), way.clone(), way.clone()] };
    Service {
        name: "default/web:http".into(),
        entrances: vec![entrance(VIP), entrance(NODE_PORT)],
        affinity: None,
        serving: way.pool.backends().iter().map(|backend| (backend.address, backend.port)).collect(),
        reset_gone: false,
    }
}

fn sticky(backends: impl IntoIterator<Item = u32>, policy: Policy, seconds: u64) -> Service {
    Service { affinity: Some(Duration::from_secs(seconds)), ..service(backends, policy) }
}

fn balancer(service: Service) -> Balancer {
    let mut balancer = Balancer::new(KEY, Limits { affinities: 16_384 });
    change(&mut balancer, service);
    balancer
}

fn change(balancer: &mut Balancer, service: Service) {
    let mut registry = balancer.registry().clone();
    registry.set(service).unwrap();
    balancer.install(registry);
}

fn client(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn ask(source: u32, source_port: u16) -> Ask {
    Ask { frontend: VIP, source: client(source), source_port, origin: Origin::Inside }
}

/// Opens a connection.
fn open(balancer: &mut Balancer, now: Duration, ask: &Ask) -> Chosen {
    let IpAddr::V4(source) = ask.source else { panic!() };
    let draw = mix(u64::from(source.to_bits()) << 16 | u64::from(ask.source_port));
    let verdict = balancer.choose(now, ask, draw);
    let Verdict::Chosen(chosen) = verdict else { panic!("{verdict:?}") };
    balancer.commit(now, ask, &chosen);
    chosen
}

#[test]
fn who_asks_for_no_service_gets_no_answer() {
    let balancer = balancer(service(0..3, Policy::Maglev));
    for frontend in [
        Frontend { port: 81, ..VIP },
        Frontend { protocol: 17, ..VIP },
        Frontend { address: Ipv6Addr::LOCALHOST.into(), ..VIP },
    ] {
        let verdict = balancer.choose(NOW, &Ask { frontend, ..ask(1, 1) }, 0);
        assert_eq!(verdict, Verdict::NotAService);
    }
}

#[test]
fn connections_are_spread_by_their_source_and_port() {
    let balancer = balancer(service(0..10, Policy::Maglev));
    let mut counts = BTreeMap::new();
    for n in 0..10_000u32 {
        let ask = ask(n / 100, u16::try_from(n % 100).unwrap());
        let Verdict::Chosen(chosen) = balancer.choose(NOW, &ask, 0) else { panic!() };
        assert_eq!(balancer.choose(NOW, &ask, 1), Verdict::Chosen(chosen), "nothing has changed");
        *counts.entry(chosen.backend).or_insert(0u32) += 1;
    }
    // Six deviations of a thousand draws, and the table's unevenness.
    assert!(counts.len() == 10 && counts.values().all(|count| count.abs_diff(1000) < 210), "{counts:?}");
}

/// Two switches choose alike, whatever else they know; another key chooses otherwise.
#[test]
fn every_switch_with_the_key_chooses_the_same() {
    let one = balancer(service(0..10, Policy::Maglev));
    let mut two =
        balancer(Service { name: "other".into(), entrances: vec![], ..service(0..3, Policy::Maglev) });
    change(&mut two, service((0..10).rev(), Policy::Maglev));
    let mut three = Balancer::new([1; 16], Limits::default());
    change(&mut three, service(0..10, Policy::Maglev));
    let backend = |balancer: &Balancer, port| match balancer.choose(NOW, &ask(1, port), 0) {
        Verdict::Chosen(chosen) => chosen.backend,
        Verdict::Refused { .. } | Verdict::NotAService => panic!(),
    };
    assert!((0..1000).all(|port| backend(&one, port) == backend(&two, port)));
    assert!((0..1000).any(|port| backend(&one, port) != backend(&three, port)));
}

#[test]
fn clients_of_each_origin_go_their_way() {
    let mut all = service(0..4, Policy::Maglev);
    let node = Way { masquerade: true, ..way([7], Policy::Maglev) };
    let outside = Way { when_empty: Refusal::Drop, ..way([], Policy::Maglev) };
    all.entrances[0].ways = [way([1], Policy::Maglev), node, outside];
    let balancer = balancer(all);
    let of = |origin| balancer.choose(NOW, &Ask { origin, ..ask(1, 1) }, 0);
    let Verdict::Chosen(inside) = of(Origin::Inside) else { panic!() };
    let Verdict::Chosen(node) = of(Origin::Node) else { panic!() };
    assert_eq!((inside.backend, inside.masquerade), (at(1), false));
    assert_eq!((node.backend, node.masquerade), (at(7), true));
    let refused = Verdict::Refused { mark: node.mark, how: Refusal::Drop, why: Reason::NoBackend };
    assert_eq!(of(Origin::Outside), refused);
}

#[test]
fn without_backends_clients_are_refused() {
    let balancer = balancer(service([], Policy::Maglev));
    let verdict = balancer.choose(NOW, &ask(1, 1), 0);
    assert!(matches!(verdict, Verdict::Refused { how: Refusal::Reject, why: Reason::NoBackend, .. }));
}

#[test]
fn source_ranges_hold_for_all_but_the_node() {
    let mut closed = service(0..3, Policy::Maglev);
    closed.entrances[0].sources = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let balancer = balancer(closed);
    let of = |origin, source: &str| {
        let source = source.parse().unwrap();
        balancer.choose(NOW, &Ask { origin, source, ..ask(1, 1) }, 0)
    };
    for origin in [Origin::Inside, Origin::Outside] {
        let refused = of(origin, "198.51.100.1");
        assert!(matches!(refused, Verdict::Refused { how: Refusal::Drop, why: Reason::SourceRange, .. }));
        assert!(matches!(of(origin, "192.0.2.200"), Verdict::Chosen(_)));
    }
    assert!(matches!(of(Origin::Node, "198.51.100.1"), Verdict::Chosen(_)));
    // The other entrance is open.
    let other = balancer.choose(NOW, &Ask { frontend: NODE_PORT, ..ask(1, 1) }, 0);
    assert!(matches!(other, Verdict::Chosen(_)));
}

#[test]
fn a_client_comes_back_to_its_backend() {
    for policy in [Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous] {
        let mut balancer = balancer(sticky(0..10, policy, 60));
        let first = open(&mut balancer, NOW, &ask(1, 1));
        assert!(!first.sticky);
        for port in 2..50 {
            let frontend = if port % 2 == 0 { VIP } else { NODE_PORT };
            let again = open(&mut balancer, NOW, &Ask { frontend, ..ask(1, port) });
            assert_eq!((again.backend, again.sticky), (first.backend, true), "{policy:?}");
        }
        // Others go elsewhere.
        let others: BTreeSet<_> = (2..100).map(|n| open(&mut balancer, NOW, &ask(n, 1)).backend).collect();
        assert!(others.len() == 10, "{policy:?}");
    }
}

#[test]
fn affinity_is_of_each_port_of_a_service() {
    const OTHER: Frontend = Frontend { port: 443, ..VIP };
    let mut balancer = balancer(sticky(0..10, Policy::RoundRobin, 60));
    let mut other = sticky(0..10, Policy::RoundRobin, 60);
    other.name = "default/web:https".into();
    other.entrances.truncate(1);
    other.entrances[0].frontend = OTHER;
    change(&mut balancer, other);
    open(&mut balancer, NOW, &ask(1, 1));
    assert!(open(&mut balancer, NOW, &ask(1, 2)).sticky);
    assert!(!open(&mut balancer, NOW, &Ask { frontend: OTHER, ..ask(1, 3) }).sticky);
    assert!(open(&mut balancer, NOW, &Ask { frontend: OTHER, ..ask(1, 4) }).sticky);
}

/// So that a client has the same backend at every node, and where it has been forgotten.
#[test]
fn affinity_by_maglev_leaves_the_source_port_out_of_the_hash() {
    let mut balancer = Balancer::new(KEY, Limits { affinities: 0 });
    change(&mut balancer, sticky(0..10, Policy::Maglev, 60));
    let of = |balancer: &mut Balancer| -> BTreeSet<_> {
        (1..50).map(|port| open(balancer, NOW, &ask(1, port)).backend).collect()
    };
    assert_eq!(of(&mut balancer).len(), 1);
    change(&mut balancer, service(0..10, Policy::Maglev));
    assert!(of(&mut balancer).len() > 5);
}

#[test]
fn affinity_ends_with_its_time_and_begins_again_with_each_connection() {
    // Round-robin moves on, so that who is not remembered comes elsewhere.
    let mut balancer = balancer(sticky(0..10, Policy::RoundRobin, 60));
    let seconds = |n| NOW + Duration::from_secs(n);
    let first = open(&mut balancer, seconds(0), &ask(1, 1));
    assert_eq!(open(&mut balancer, seconds(59), &ask(1, 2)).backend, first.backend);
    assert_eq!(open(&mut balancer, seconds(118), &ask(1, 3)).backend, first.backend);
    assert_eq!(balancer.affinities(seconds(177)).count(), 1);
    assert_eq!(balancer.affinities(seconds(178)).count(), 0);
    let late = open(&mut balancer, seconds(178), &ask(1, 4));
    assert!(!late.sticky && late.backend != first.backend);
    // Asking alone does not keep it.
    assert!(matches!(balancer.choose(seconds(230), &ask(1, 5), 0), Verdict::Chosen(c) if c.sticky));
    assert!(matches!(balancer.choose(seconds(238), &ask(1, 5), 0), Verdict::Chosen(c) if !c.sticky));
    // The service's new time counts for those who are there.
    change(&mut balancer, sticky(0..10, Policy::RoundRobin, 3600));
    assert!(open(&mut balancer, seconds(1000), &ask(1, 6)).sticky);
}

/// After a roll-out that replaces one backend after the other, clients are not all on one: an entry whose backend is gone
/// is not used, and those of the others stay as they are.
#[test]
fn affinity_does_not_skew() {
    const CLIENTS: u32 = 600;
    for policy in [Policy::Maglev, Policy::RoundRobin, Policy::Random] {
        let mut balancer = balancer(sticky(0..4, policy, 10_800));
        let mut had: BTreeMap<u32, (IpAddr, u16)> = BTreeMap::new();
        let mut backends: Vec<u32> = (0..4).collect();
        for round in 0..5 {
            if round > 0 {
                let gone = at(backends.remove(0));
                backends.push(3 + round);
                change(&mut balancer, sticky(backends.iter().copied(), policy, 10_800));
                had.retain(|_, backend| *backend != gone);
            }
            for n in 0..CLIENTS {
                let port = u16::try_from(round * CLIENTS + n).unwrap();
                let chosen = open(&mut balancer, NOW, &ask(n, port));
                assert!(backends.iter().any(|&n| at(n) == chosen.backend));
                let kept = had.insert(n, chosen.backend);
                assert!(kept.is_none_or(|kept| kept == chosen.backend && chosen.sticky), "{policy:?}");
            }
        }
        let mut counts: BTreeMap<_, u32> = BTreeMap::new();
        had.values().for_each(|backend| *counts.entry(*backend).or_default() += 1);
        assert!(counts.len() == 4, "{policy:?} {counts:?}");
        // Each that goes leaves a quarter of its clients to each that is there: 216, 178, 131 and 73 are to be expected.
        assert!(counts.values().all(|count| (40..=270).contains(count)), "{policy:?} {counts:?}");
    }
}

/// An entry counts only for who may go there: node-local clients may have fewer backends.
#[test]
fn affinity_stays_within_the_way() {
    let mut local = sticky(0..10, Policy::Maglev, 60);
    local.entrances[1].ways[0] = way([3], Policy::Maglev);
    let mut balancer = balancer(local);
    let elsewhere = (0..).find(|&n| open(&mut balancer, NOW, &ask(n, 1)).backend != at(3)).unwrap();
    let local = open(&mut balancer, NOW, &Ask { frontend: NODE_PORT, ..ask(elsewhere, 2) });
    assert_eq!((local.backend, local.sticky), (at(3), false));
}

#[test]
fn affinity_is_bounded_and_forgets_the_oldest() {
    let mut balancer = Balancer::new(KEY, Limits { affinities: 64 });
    assert_eq!(balancer.affinities.iter().count(), 0);
    change(&mut balancer, sticky(0..10, Policy::RoundRobin, 10_800));
    for n in 0..1000 {
        open(&mut balancer, NOW + Duration::from_secs(u64::from(n)), &ask(n, 1));
        assert!(balancer.affinities.iter().count() <= 64);
    }
    let kept: Vec<u32> = (0..1000)
        .filter(|&n| balancer.affinities(NOW).any(|affinity| affinity.client == client(n)))
        .collect();
    // In eight sets of eight the last 64 are not quite those that are left, but nearly.
    assert!(kept.len() > 60 && kept.iter().all(|&n| n > 800), "{kept:?}");
    // The youngest of all is never the one that goes.
    assert_eq!(kept.last(), Some(&999));
    // One who keeps coming is kept, whatever else there is.
    for n in 1000..3000 {
        let now = NOW + Duration::from_secs(u64::from(n));
        open(&mut balancer, now, &ask(n, 1));
        assert!(open(&mut balancer, now, &ask(5000, 1)).sticky || n == 1000);
    }
}

#[test]
fn without_room_there_is_no_affinity() {
    let mut balancer = Balancer::new(KEY, Limits { affinities: 0 });
    change(&mut balancer, sticky(0..10, Policy::RoundRobin, 60));
    assert!((0..20).all(|port| !open(&mut balancer, NOW, &ask(1, port)).sticky));
}

#[test]
fn affinities_are_listed() {
    let mut balancer = balancer(sticky(0..10, Policy::Maglev, 60));
    let chosen = open(&mut balancer, NOW, &ask(1, 1));
    let listed: Vec<Affinity> = balancer.affinities(NOW).collect();
    let expected = Affinity {
        service: "default/web:http".into(),
        client: client(1),
        backend: chosen.backend,
        until: NOW + Duration::from_secs(60),
    };
    assert_eq!(listed, [expected]);
    // Not those that are not used any more.
    let others = (0..10).filter(|&n| at(n) != chosen.backend);
    change(&mut balancer, sticky(others, Policy::Maglev, 60));
    assert_eq!(balancer.affinities(NOW).count(), 0);
    change(&mut balancer, sticky(0..10, Policy::Maglev, 60));
    assert_eq!(balancer.affinities(NOW).count(), 1);
    change(&mut balancer, service(0..10, Policy::Maglev));
    assert_eq!(balancer.affinities(NOW).count(), 0);
}

/// A service of the same name that comes after the first was gone is another one.
#[test]
fn affinity_does_not_outlive_its_service() {
    let mut balancer = balancer(sticky(0..10, Policy::RoundRobin, 60));
    open(&mut balancer, NOW, &ask(1, 1));
    let mut registry = balancer.registry().clone();
    registry.remove("default/web:http");
    balancer.install(registry);
    assert_eq!(balancer.affinities(NOW).count(), 0);
    change(&mut balancer, sticky(0..10, Policy::RoundRobin, 60));
    assert!(!open(&mut balancer, NOW, &ask(1, 2)).sticky);
}

#[test]
fn turns_are_taken_by_connections_that_go_their_way() {
    let mut balancer = balancer(service(0..3, Policy::RoundRobin));
    let Verdict::Chosen(asked) = balancer.choose(NOW, &ask(1, 1), 0) else { panic!() };
    let Verdict::Chosen(again) = balancer.choose(NOW, &ask(2, 2), 0) else { panic!() };
    assert_eq!(asked.backend, again.backend, "nobody has come");
    let turns: Vec<_> = (0..6).map(|n| open(&mut balancer, NOW, &ask(n, 1)).backend).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2].map(at));
    // Another service has turns of its own.
    let other = Frontend { port: 81, ..VIP };
    let mut second = Service { name: "second".into(), ..service(0..3, Policy::RoundRobin) };
    second.entrances.truncate(1);
    second.entrances[0].frontend = other;
    change(&mut balancer, second);
    assert_eq!(open(&mut balancer, NOW, &ask(1, 9)).backend, at(0));
    assert_eq!(open(&mut balancer, NOW, &Ask { frontend: other, ..ask(1, 9) }).backend, at(0));
    assert_eq!(open(&mut balancer, NOW, &ask(1, 9)).backend, at(1));
}

#[test]
fn a_connection_stands_while_its_backend_serves() {
    let mut balancer = balancer(service(0..4, Policy::Maglev));
    let mark = open(&mut balancer, NOW, &ask(1, 1)).mark;
    assert_eq!(balancer.standing(mark, &VIP, at(1)), Standing::Current);
    // Another service does not concern it, whatever its own serves.
    let other = Service { name: "other".into(), entrances: vec![], ..service(0..2, Policy::Maglev) };
    change(&mut balancer, other);
    let Standing::Renewed(mark) = balancer.standing(mark, &VIP, at(99)) else { panic!() };
    assert_eq!(balancer.standing(mark, &VIP, at(1)), Standing::Current);
    // Its own service changes: backend 1 still finishes, backend 2 is gone.
    let mut next = service([0, 3], Policy::Maglev);
    next.serving = [0, 1, 3].map(at).into_iter().collect();
    change(&mut balancer, next.clone());
    let Standing::Renewed(newer) = balancer.standing(mark, &VIP, at(1)) else { panic!() };
    assert_eq!(balancer.standing(newer, &VIP, at(1)), Standing::Current);
    assert_eq!(balancer.standing(mark, &VIP, at(2)), Standing::Gone { reset: false });
    change(&mut balancer, Service { reset_gone: true, ..next });
    assert_eq!(balancer.standing(mark, &VIP, at(2)), Standing::Gone { reset: true });
    assert!(matches!(balancer.standing(newer, &VIP, at(1)), Standing::Renewed(_)));
    // It is asked elsewhere.
    let mut moved = service([0, 3], Policy::Maglev);
    moved.serving = [0, 1, 3].map(at).into_iter().collect();
    moved.entrances.retain(|entrance| entrance.frontend != VIP);
    change(&mut balancer, moved);
    assert_eq!(balancer.standing(newer, &VIP, at(1)), Standing::Gone { reset: false });
    assert!(matches!(balancer.standing(newer, &NODE_PORT, at(1)), Standing::Renewed(_)));
    // The service goes, and another takes its slot.
    let mut registry = balancer.registry().clone();
    registry.remove("default/web:http");
    balancer.install(registry);
    assert_eq!(balancer.standing(newer, &VIP, at(1)), Standing::Gone { reset: false });
    change(&mut balancer, Service { name: "third".into(), ..service(0..4, Policy::Maglev) });
    assert_eq!(open(&mut balancer, NOW, &ask(1, 1)).mark.slot, mark.slot);
    assert_eq!(balancer.standing(newer, &VIP, at(1)), Standing::Gone { reset: false });
    // What is committed late concerns nobody.
    let late = Chosen { mark: newer, backend: at(1), masquerade: false, sticky: false };
    balancer.commit(NOW, &ask(1, 1), &late);
    let unknown = Mark { slot: 99, version: 1 };
    assert_eq!(balancer.standing(unknown, &VIP, at(1)), Standing::Gone { reset: false });
    balancer.commit(NOW, &ask(1, 1), &Chosen { mark: unknown, ..late });
}

/// What was read from a file anew is brought into the line of what is there.
#[test]
fn connections_outlive_a_registry_that_is_made_anew() {
    let mut balancer = balancer(service(0..4, Policy::Maglev));
    let other =
        |n| Service { name: format!("other-{n}").into(), entrances: vec![], ..service(0..2, Policy::Maglev) };
    (0..5).for_each(|n| change(&mut balancer, other(n)));
    let mark = open(&mut balancer, NOW, &ask(1, 1)).mark;
    let mut anew = Registry::new();
    for service in [other(4), other(9), service(0..4, Policy::Maglev)] {
        anew.set(service).unwrap();
    }
    let old = balancer.install(anew.clone());
    assert!(old.len() == 6 && *balancer.registry() == anew);
    assert!(matches!(balancer.standing(mark, &VIP, at(1)), Standing::Renewed(_)));
}

/// Who has adopted services follows their changes, and only these.
#[test]
fn what_is_adopted_is_followed() {
    let mut balancer = balancer(service(0..4, Policy::Maglev));
    let opened = open(&mut balancer, NOW, &ask(1, 1));
    let other =
        |n| Service { name: format!("other-{n}").into(), entrances: vec![], ..service(0..2, Policy::Maglev) };
    let mut theirs = Registry::new();
    theirs.set(service(0..4, Policy::Maglev)).unwrap();
    theirs.set_all((0..5).map(other)).unwrap();
    balancer.install(theirs.clone());
    for n in 0..5 {
        theirs.remove(&format!("other-{n}"));
        theirs.set(Service { reset_gone: true, ..other(n + 5) }).unwrap();
        let before = balancer.registry().get("default/web:http").map(std::ptr::from_ref);
        balancer.install(theirs.clone());
        assert!(*balancer.registry() == theirs);
        assert_eq!(balancer.registry().get("default/web:http").map(std::ptr::from_ref), before);
        assert!(matches!(balancer.standing(opened.mark, &VIP, opened.backend), Standing::Renewed(_)));
    }
    theirs.set(service(9..10, Policy::Maglev)).unwrap();
    balancer.install(theirs);
    assert_eq!(balancer.standing(opened.mark, &VIP, opened.backend), Standing::Gone { reset: false });
}

/// As from one kind of proxy to another and back: both lines count the same versions.
#[test]
fn connections_are_told_apart_by_the_line_that_they_were_opened_in() {
    for changes in 0..8 {
        let mut balancer = balancer(service(0..1, Policy::Maglev));
        let mut first = balancer.registry().clone();
        let mut second = Registry::new();
        second.set(service(1..2, Policy::Maglev)).unwrap();
        balancer.install(second);
        let opened = open(&mut balancer, NOW, &ask(1, 1));
        for n in 0..changes {
            first.set(service(2 + n..3 + n, Policy::Maglev)).unwrap();
        }
        balancer.install(first);
        let standing = balancer.standing(opened.mark, &VIP, opened.backend);
        assert_eq!(standing, Standing::Gone { reset: false }, "{changes}");
    }
}

#[test]
fn nothing_is_added_to_for_a_registry_of_another_time() {
    // A choice that was made before the last change is committed after it.
    let mut balancer = balancer(sticky(0..4, Policy::RoundRobin, 60));
    let Verdict::Chosen(chosen) = balancer.choose(NOW, &ask(1, 1), 0) else { panic!() };
    change(&mut balancer, sticky(0..5, Policy::RoundRobin, 60));
    balancer.commit(NOW, &ask(1, 1), &chosen);
    let again = open(&mut balancer, NOW, &ask(1, 2));
    assert!(again.sticky && again.backend == chosen.backend && again.mark != chosen.mark);
}

proptest! {
    /// Whatever happens, a connection gets a backend of its pool, and a client with valid affinity the one it had.
    #[test]
    fn affinity_is_a_bounded_memory_of_the_last_backend(
        steps in proptest::collection::vec((0u32..40, 0u64..30, proptest::option::weighted(0.1, 1u32..16)), 1..200),
    ) {
        let mut balancer = Balancer::new(KEY, Limits { affinities: 1024 });
        let (mut now, mut set) = (NOW, 0b1111u32);
        let in_pool = |set: u32| (0..4).filter(move |n| set & (1 << n) != 0);
        change(&mut balancer, sticky(in_pool(set), Policy::Random, 60));
        // With 128 sets of eight for 40 clients, nobody is ever pushed out: so this is exact.
        let mut model: BTreeMap<u32, ((IpAddr, u16), Duration)> = BTreeMap::new();
        for (n, pause, other) in steps {
            now += Duration::from_secs(pause);
            if let Some(other) = other {
                set = other;
                change(&mut balancer, sticky(in_pool(set), Policy::Random, 60));
            }
            let draw = mix(now.as_secs() ^ u64::from(n) << 32);
            let Verdict::Chosen(chosen) = balancer.choose(now, &ask(n, 1), draw) else { panic!() };
            balancer.commit(now, &ask(n, 1), &chosen);
            prop_assert!(in_pool(set).any(|n| at(n) == chosen.backend));
            let known = model.insert(n, (chosen.backend, now)).filter(|(backend, used)| {
                now - *used < Duration::from_secs(60) && in_pool(set).any(|n| at(n) == *backend)
            });
            prop_assert_eq!(chosen.sticky, known.is_some());
            prop_assert!(known.is_none_or(|(backend, _)| backend == chosen.backend));
        }
    }
}

/// What is foreseen is what is said, whatever has been committed meanwhile.
#[test]
fn what_is_foreseen_is_what_is_said_when_its_turn_comes() {
    let mut registry = Registry::new();
    let policies = [Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous];
    for n in 0..200u16 {
        let policy = policies[usize::from(n / 3 % 4)];
        let backends = if n % 7 == 0 { 0..0 } else { u32::from(n)..u32::from(n) + 5 };
        let entrance = Entrance {
            frontend: Frontend { port: n, ..VIP },
            sources: if n % 5 == 0 { vec!["10.0.0.0/28".parse().unwrap()] } else { vec![] },
            ways: [way(backends.clone(), policy), way(backends.clone(), policy), way(backends, policy)],
        };
        let sticky = (n % 4 == 0).then(|| Duration::from_secs(60));
        let name = format!("default/web-{n}:http").into();
        let any = service(0..1, Policy::Maglev);
        registry.set(Service { name, entrances: vec![entrance], affinity: sticky, ..any }).unwrap();
    }
    let mut balancer = Balancer::new(KEY, Limits { affinities: 1024 });
    balancer.install(registry);
    let mut foreseen = 0;
    for batch in 0..200u32 {
        let port = |n: u32| u16::try_from(mix(u64::from(batch * 32 + n)) % 220).unwrap();
        let asks: Vec<Ask> = (0..batch % 33)
            .map(|n| Ask { frontend: Frontend { port: port(n), ..VIP }, ..ask(n % 30, port(n)) })
            .collect();
        let mut verdicts = [None; AT_ONCE];
        balancer.foresee(&asks, &mut verdicts);
        assert!(verdicts[asks.len()..].iter().all(Option::is_none));
        for (ask, verdict) in asks.iter().zip(verdicts) {
            let said = balancer.choose(NOW, ask, mix(u64::from(ask.source_port)));
            assert!(verdict.is_none_or(|verdict| verdict == said), "{ask:?}: {verdict:?}, {said:?}");
            foreseen += u32::from(verdict.is_some());
            if let Verdict::Chosen(chosen) = said {
                balancer.commit(NOW, ask, &chosen);
            }
        }
    }
    assert!(foreseen > 300, "{foreseen}");
}
