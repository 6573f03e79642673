#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

extern crate std;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::string::ToString as _;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::rendezvous::mix;

const KEY: [u8; 16] = [7; 16];
const POLICIES: [Policy; 4] = [Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous];

fn backend(n: u32, weight: u32) -> Backend {
    Backend { address: Ipv4Addr::from_bits(0x0a00_0000 + n).into(), port: 8080, weight }
}

fn pool(weights: &[u32], policy: Policy) -> Pool {
    Pool::new((0..).zip(weights).map(|(n, &weight)| backend(n, weight)), policy, None, KEY).unwrap()
}

/// How many of so many connections each backend gets, if hashes are evenly spread and draws are what the policy wants.
fn connections(pool: &Pool, count: u64) -> Vec<u64> {
    let mut counts = vec![0; pool.backends().len()];
    for n in 0..count {
        let draw = if pool.policy() == Policy::RoundRobin { n } else { mix(!n) };
        let chosen = pool.select(mix(n), draw).unwrap();
        counts[pool.backends().iter().position(|backend| backend == chosen).unwrap()] += 1;
    }
    counts
}

/// The backend in each slot.
fn slots(pool: &Pool) -> Vec<Backend> {
    let Selector::Maglev(table) = &pool.selector else { panic!("not Maglev's") };
    table.slots().iter().map(|slot| pool.backends[usize::from(*slot)]).collect()
}

/// Computed by another implementation: which backend each of the first slots has, and a sum over all of them.
#[test]
fn tables_are_the_same_everywhere_and_forever() {
    let pool = pool(&[1; 10], Policy::Maglev);
    assert_eq!(pool.table_size(), Some(1021));
    let Selector::Maglev(table) = &pool.selector else { panic!() };
    assert_eq!(table.slots()[..16], [2, 4, 6, 7, 2, 7, 7, 9, 5, 4, 0, 3, 3, 3, 3, 9]);
    let sum = (1u64..).zip(table.slots()).map(|(n, slot)| n * u64::from(*slot)).sum::<u64>();
    assert_eq!(sum, 2_353_763);
    let six = |n| Backend { address: Ipv6Addr::from_bits(n).into(), port: 53, weight: 1 };
    let pool = Pool::new((1..=3).map(six), Policy::Maglev, Some(13), KEY).unwrap();
    let Selector::Maglev(table) = &pool.selector else { panic!() };
    assert_eq!(table.slots(), [0, 1, 0, 1, 1, 0, 0, 1, 2, 2, 2, 0, 2]);
}

#[test]
fn nothing_is_selected_from_nothing() {
    for policy in POLICIES {
        for weights in [&[][..], &[0], &[0, 0]] {
            let pool = pool(weights, policy);
            assert_eq!(pool.select(1, 1), None, "{policy:?} {weights:?}");
            assert_eq!((pool.table_size(), pool.shares().count()), (None, weights.len()));
        }
    }
}

#[test]
fn every_policy_meets_the_weights() {
    for policy in POLICIES {
        for weights in [&[1; 7][..], &[1, 2, 3, 4], &[0, 5, 0, 5, 1], &[1, 1000], &[7]] {
            let pool = pool(weights, policy);
            let sum: u32 = weights.iter().sum();
            let got = connections(&pool, 40_000);
            for (count, &weight) in got.iter().zip(weights) {
                let expected = 40_000.0 * f64::from(weight) / f64::from(sum);
                // Six deviations of a draw, and what a table of 100 slots for each is off.
                let slack =
                    6.0 * expected.sqrt() + 0.01 * expected + 40_000.0 / 251.0 * f64::from(weight.min(1));
                assert!((*count as f64 - expected).abs() <= slack, "{policy:?} {weights:?}: {got:?}");
            }
        }
    }
}

/// Turns of a backend are spread over the round, and each has exactly its own.
#[test]
fn turns_go_round() {
    let turns = |weights: &[u32], count| -> Vec<u8> {
        let pool = pool(weights, Policy::RoundRobin);
        (0..count).map(|n| pool.select(99, n).unwrap().address).map(last).collect()
    };
    assert_eq!(turns(&[1; 3], 7), [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(turns(&[0, 4, 0, 2], 6), [1, 1, 3, 1, 1, 3]);
    assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 0, 1, 2, 0, 0]);
    // More than a round can hold: the nearest that it can.
    let pool = pool(&[1, 1_000_000, 1_000_001], Policy::RoundRobin);
    let parts: Vec<u64> = pool.shares().map(|share| share.parts).collect();
    assert_eq!((parts.iter().sum::<u64>(), parts[1].abs_diff(parts[2])), (16_384, 0));
}

fn last(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

#[test]
fn shares_are_what_is_selected() {
    let parts = |weights: &[u32], policy| -> Vec<u64> {
        pool(weights, policy).shares().map(|share| share.parts).collect()
    };
    assert_eq!(parts(&[1, 1, 2], Policy::Maglev), [127, 127, 255]);
    assert_eq!(parts(&[2, 4, 0], Policy::RoundRobin), [1, 2, 0]);
    assert_eq!(parts(&[2, 4, 0], Policy::Random), [2, 4, 0]);
    assert_eq!(parts(&[2, 4, 0], Policy::Rendezvous), [2, 4, 0]);
    assert!(pool(&[1, 2, 3], Policy::Maglev).shares().all(|share| share.of == 509));
}

#[test]
fn what_makes_no_pool_is_refused_with_a_remedy() {
    let new = |backends: Vec<Backend>, size| {
        Pool::new(backends, Policy::Maglev, size, KEY).unwrap_err().to_string()
    };
    assert_eq!(
        new(vec![backend(1, 1), backend(2, 1), backend(1, 2)], None),
        "backend 10.0.0.1 port 8080 is given twice: give it once, with the weight of both"
    );
    let six = Backend { address: Ipv6Addr::LOCALHOST.into(), ..backend(1, 1) };
    assert_eq!(
        new(vec![six, backend(1, 1)], None),
        "backends 10.0.0.1 and ::1 are of two address families: make a pool for each"
    );
    assert_eq!(new(vec![backend(1, 1)], Some(8)), "table size 8 is not a prime: the next prime is 11");
    // A size that is wrong is wrong without backends too, so that it is found before there are any.
    assert_eq!(new(vec![], Some(8)), "table size 8 is not a prime: the next prime is 11");
    let many = (0..=65_535).map(|n| backend(n, 0)).collect();
    assert_eq!(new(many, None), "65536 backends are too many for one table: at most 65535");
}

#[test]
fn who_selects_takes_new_connections() {
    let pool = pool(&[1, 0], Policy::Maglev);
    let of = |n: u32| (backend(n, 1).address, 8080);
    assert!(pool.selects(of(0)) && !pool.selects(of(1)) && !pool.selects(of(2)));
    assert!(!pool.selects((backend(0, 1).address, 80)));
}

#[test]
fn the_key_stays_out_of_logs() {
    assert!(!std::format!("{:?}", pool(&[1, 2], Policy::Maglev)).contains('7'));
}

/// What is measured for the paper's algorithm: with 1,000 backends, so many of 10,000 entries change when some go.
#[test]
fn removing_backends_moves_little_else() {
    for (size, gone, most) in [
        (65_537, 1, 69),
        (65_537, 10, 327),
        (65_537, 50, 817),
        (65_537, 100, 1350),
        (655_373, 1, 42),
        (655_373, 10, 156),
        (655_373, 50, 592),
    ] {
        let build = |skip: u32| {
            let backends = (0..1_000).filter(|n| skip == 0 || (n + skip * 7) % 1_000 >= gone);
            Pool::new(backends.map(|n| backend(n, 1)), Policy::Maglev, Some(size), KEY).unwrap()
        };
        let before = slots(&build(0));
        const TRIALS: u32 = 4;
        let mut changed = 0;
        for trial in 1..=TRIALS {
            let after = build(trial);
            assert_eq!(after.backends().len(), 1_000 - gone as usize);
            changed += before.iter().zip(slots(&after)).filter(|(before, after)| *before != after).count();
        }
        let changed = changed as f64 / f64::from(TRIALS) / f64::from(size) * 10_000.0;
        // A few backends are not all: what comes of others' walks is off by some hundredths.
        assert!(changed <= f64::from(most) * 1.1, "{gone} of {size}: {changed} instead of {most}");
        assert!(changed >= f64::from(gone) * 10.0 * 0.98, "{gone} of {size}: {changed} is too good");
    }
}

fn some_backends() -> impl Strategy<Value = Vec<Backend>> {
    let weight = prop_oneof![3 => Just(1u32), 1 => 0u32..5, 1 => any::<u32>()];
    let address = prop_oneof![
        proptest::collection::btree_map((0u32..500, 1u16..4), weight.clone(), 1..60).prop_map(|all| {
            let v4 = |((n, port), weight)| Backend { port, ..backend(n, weight) };
            all.into_iter().map(v4).collect::<Vec<_>>()
        }),
        proptest::collection::btree_map((any::<u128>(), 1u16..4), weight, 1..60).prop_map(|all| {
            let v6 = |((n, port), weight)| Backend { address: Ipv6Addr::from_bits(n).into(), port, weight };
            all.into_iter().map(v6).collect()
        }),
    ];
    address
}

proptest! {
    #[test]
    fn order_does_not_matter(
        (sorted, shuffled) in some_backends().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        which in 0usize..4, hash: u64, draw: u64,
    ) {
        let new = |backends: &[Backend]| Pool::new(backends.iter().copied(), POLICIES[which], None, KEY).unwrap();
        let (one, other) = (new(&sorted), new(&shuffled));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.select(hash, draw), other.select(hash, draw));
        if which == 0 && one.table_size().is_some() {
            prop_assert_eq!(slots(&one), slots(&other));
        }
    }

    #[test]
    fn who_has_no_weight_is_not_selected(backends in some_backends(), which in 0usize..4, seed: u64) {
        let pool = Pool::new(backends.iter().copied(), POLICIES[which], None, KEY).unwrap();
        let any = backends.iter().any(|backend| backend.weight > 0);
        for n in 0..100 {
            let chosen = pool.select(mix(seed ^ n), mix(seed.wrapping_add(n)));
            prop_assert_eq!(chosen.is_some(), any);
            prop_assert!(chosen.is_none_or(|chosen| chosen.weight > 0 && backends.contains(chosen)));
        }
    }

    #[test]
    fn by_rendezvous_only_flows_of_the_gone_move(
        weights in proptest::collection::vec(0u32..1000, 2..20), gone: prop::sample::Index, seed: u64,
    ) {
        let before = pool(&weights, Policy::Rendezvous);
        let gone = before.backends()[gone.index(weights.len())];
        let left = before.backends().iter().copied().filter(|backend| *backend != gone);
        let after = Pool::new(left, Policy::Rendezvous, None, KEY).unwrap();
        for hash in (0..300).map(|n| mix(seed ^ n)) {
            let (before, after) = (before.select(hash, 0), after.select(hash, 0));
            // That holds too where equal weights are left, which are compared without logarithms.
            prop_assert!(before == Some(&gone) || before == after, "{before:?} {after:?}");
        }
    }

    /// More weight never takes a flow away.
    #[test]
    fn by_rendezvous_more_weight_only_wins_flows(
        weights in proptest::collection::vec(1u32..1000, 2..10), more in 1u32..1000, seed: u64,
    ) {
        let before = pool(&weights, Policy::Rendezvous);
        let mut weights = weights;
        weights[0] += more;
        let after = pool(&weights, Policy::Rendezvous);
        for hash in (0..300).map(|n| mix(seed ^ n)) {
            let of = |pool: &Pool| pool.select(hash, 0).map(|backend| backend.address);
            prop_assert!(of(&after) == of(&before) || of(&after) == Some(backend(0, 1).address));
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_pool_is_written_and_read() {
    for policy in POLICIES {
        let pool = pool(&[1, 0, 3], policy);
        let text = serde_json::to_string(&pool).unwrap();
        let read: Pool = serde_json::from_str(&text).unwrap();
        assert_eq!(read, pool);
        let by: std::collections::BTreeMap<u64, u64> = (0..100).map(|n| (n, mix(n))).collect();
        assert!(by.iter().all(|(n, hash)| read.select(*hash, *n) == pool.select(*hash, *n)));
    }
    let composite = r#"{"backends":[],"size":4,"key":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}"#;
    let error = serde_json::from_str::<Pool>(composite).unwrap_err().to_string();
    assert!(error.starts_with("table size 4 is not a prime"), "{error}");
}
