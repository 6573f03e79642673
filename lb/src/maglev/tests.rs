#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

extern crate std;

use proptest::prelude::*;
use std::string::ToString as _;
use std::vec;
use std::vec::Vec;

use super::*;

/// The pseudocode of the paper, letter by letter: `permutation[i][j]`, `next`, `entry`.
fn plain(walks: &[Permutation], size: u32) -> Vec<u16> {
    let (n, m) = (walks.len(), size as usize);
    let row = |walk: &Permutation| -> Vec<usize> {
        (0..m).map(|j| (walk.offset as usize + j * walk.skip as usize) % m).collect()
    };
    let permutation: Vec<Vec<usize>> = walks.iter().map(row).collect();
    let mut next = vec![0; n];
    let mut entry: Vec<Option<u16>> = vec![None; m];
    let mut filled = 0;
    loop {
        for i in 0..n {
            let mut c = permutation[i][next[i]];
            while entry[c].is_some() {
                next[i] += 1;
                c = permutation[i][next[i]];
            }
            entry[c] = Some(u16::try_from(i).unwrap());
            next[i] += 1;
            filled += 1;
            if filled == m {
                return entry.into_iter().flatten().collect();
            }
        }
    }
}

/// Walks that depend on nothing but their number and a seed.
fn walks(backends: usize, seed: u64, size: u32) -> Vec<Permutation> {
    let hash = |n: u64| crate::rendezvous::mix(seed ^ crate::rendezvous::mix(n));
    (0..backends as u64).map(|n| Permutation::new(hash(2 * n), hash(2 * n + 1), size)).collect()
}

fn counts(table: &Table, backends: usize) -> Vec<u64> {
    let mut counts = vec![0; backends];
    table.slots().iter().for_each(|slot| counts[usize::from(*slot)] += 1);
    counts
}

fn a_size() -> impl Strategy<Value = u32> {
    prop_oneof![Just(7), Just(251), Just(509), Just(1021), Just(2039), Just(4093)]
}

/// Weights of every magnitude, and none.
fn a_weight() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(1u32),
        1 => Just(0u32),
        2 => 1u32..=4,
        2 => 1u32..=1000,
        1 => Just(1_000_000),
        1 => any::<u32>(),
    ]
}

proptest! {
    #[test]
    fn with_equal_weights_it_is_the_papers_algorithm(
        size in a_size(), backends in 1usize..300, seed: u64, weight in 1u32..,
    ) {
        let backends = backends.min(size as usize);
        let walks = walks(backends, seed, size);
        let table = Table::from_permutations(&walks, &vec![weight; backends], size).unwrap();
        prop_assert_eq!(table.slots(), plain(&walks, size));
        let counts = counts(&table, backends);
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
    }

    #[test]
    fn every_backend_has_what_its_weight_is_worth(
        size in a_size(), weights in proptest::collection::vec(a_weight(), 1..200), seed: u64,
    ) {
        let weights = &weights[..weights.len().min(size as usize)];
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        prop_assume!(sum > 0);
        let table = Table::from_permutations(&walks(weights.len(), seed, size), weights, size).unwrap();
        let counts = counts(&table, weights.len());
        // Every slot was given away: had one been left out, it would show as one more of backend 0.
        for (count, weight) in counts.iter().zip(weights) {
            let worth = u64::from(size) * u64::from(*weight);
            prop_assert!((count * sum).abs_diff(worth) < sum, "{count} slots for {weight} of {sum}");
        }
    }

    #[test]
    fn a_hash_finds_what_is_in_its_slot(size in a_size(), hash: u64, seed: u64) {
        let table = Table::from_permutations(&walks(5, seed, size), &[1; 5], size).unwrap();
        // By long division: the size times the hash, over 2^64.
        let slot = (u128::from(size) * u128::from(hash)) >> 64;
        prop_assert_eq!(table.slots()[usize::try_from(slot).unwrap()], table.lookup(hash));
    }
}

#[test]
fn hashes_reach_every_slot() {
    let table = Table::from_permutations(&walks(251, 1, 251), &[1; 251], 251).unwrap();
    let found: std::collections::BTreeSet<u16> =
        (0..251u64).map(|n| table.lookup(n * (u64::MAX / 251) + u64::MAX / 502)).collect();
    assert_eq!(found.len(), 251);
    assert_eq!(table.lookup(0), table.slots()[0]);
    assert_eq!(table.lookup(u64::MAX), table.slots()[250]);
}

/// The worst cases of rules that let weights add up: who is light is rounded up at the expense of who is heavy.
#[test]
fn one_heavy_backend_among_many_light_ones() {
    const SIZE: u32 = 65_537;
    for heavy in [1_000, 1_000_000, u32::MAX] {
        let mut weights = vec![1; 1_000];
        weights[500] = heavy;
        let table = Table::from_permutations(&walks(1_000, 3, SIZE), &weights, SIZE).unwrap();
        let worth = f64::from(SIZE) * f64::from(heavy) / (f64::from(heavy) + 999.0);
        assert!((counts(&table, 1_000)[500] as f64 - worth).abs() < 1.0, "{heavy}");
    }
}

#[test]
fn with_a_hundred_slots_for_each_shares_are_within_a_hundredth() {
    for backends in [2, 3, 40, 163, 655, 1310] {
        let size = size_for(backends);
        let table = Table::from_permutations(&walks(backends, 9, size), &vec![1; backends], size).unwrap();
        let mean = f64::from(size) / backends as f64;
        for count in counts(&table, backends) {
            assert!((count as f64 - mean).abs() / mean <= 0.01, "{count} of {size} for {backends}");
        }
    }
}

#[test]
fn the_size_is_the_first_with_a_hundred_slots_for_each() {
    for (backends, size) in [
        (0, 251),
        (1, 251),
        (2, 251),
        (3, 509),
        (10, 1021),
        (163, 16_381),
        (655, 65_537),
        (656, 131_071),
        (1000, 131_071),
        (6_553, 655_373),
        (6_554, 655_439),
        (65_535, 6_553_511),
        (usize::MAX, LARGEST),
    ] {
        assert_eq!(size_for(backends), size, "{backends}");
        assert!(size::is_prime(size), "{size}");
    }
    assert!(SIZES.is_sorted() && SIZES.into_iter().all(size::is_prime));
}

#[test]
fn what_makes_no_table_is_refused_with_a_remedy() {
    let build = |weights: &[u32], size| {
        Table::from_permutations(&walks(weights.len(), 1, size), weights, size).unwrap_err().to_string()
    };
    assert_eq!(build(&[1], 0), "a table of 0 slots holds no backend: take a prime such as 16381");
    assert_eq!(build(&[1], 1), "table size 1 is not a prime: the next prime is 2");
    assert_eq!(build(&[1], 65_536), "table size 65536 is not a prime: the next prime is 65537");
    assert_eq!(build(&[1], u32::MAX), "table size 4294967295 is too large: at most 16777213");
    assert_eq!(build(&[1; 8], 7), "table size 7 is too small for 8 backends: 1021 keeps their shares even");
    assert_eq!(build(&[0, 0], 7), "no backend has a weight above 0");
    assert_eq!(build(&vec![1; 65_536], 655_373), "65536 backends are too many for one table: at most 65535");
    // Backends without weight need no slot.
    let weights: Vec<u32> = (0..8).map(|n| u32::from(n > 0)).collect();
    let table = Table::from_permutations(&walks(8, 1, 7), &weights, 7).unwrap();
    assert_eq!(counts(&table, 8), [0, 1, 1, 1, 1, 1, 1, 1]);

    let walk = |offset, skip| Table::from_permutations(&[Permutation { offset, skip }], &[1], 7);
    for (offset, skip) in [(7, 1), (0, 0), (0, 7)] {
        assert_eq!(walk(offset, skip), Err(TableError::Permutation { backend: 0, size: 7 }));
    }
    assert!(walk(6, 6).is_ok());
    let lengths = Table::from_permutations(&[Permutation { offset: 0, skip: 1 }], &[], 7);
    assert_eq!(lengths, Err(TableError::Lengths { permutations: 1, weights: 0 }));
}

#[test]
fn as_many_backends_as_there_can_be() {
    let most = Table::MOST_BACKENDS;
    let table = Table::from_permutations(&walks(most, 1, 65_537), &vec![1; most], 65_537).unwrap();
    let counts = counts(&table, most);
    assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&1), Some(&2)));
}
