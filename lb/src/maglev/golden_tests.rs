//! Tables that others have published, slot by slot, from their own hashes. Each was also computed by an independent
//! implementation in another language.
//!
//! With equal weights turns are taken alike everywhere, and the tables are those of [`Table::from_permutations`]. How
//! weights become turns differs: Envoy's, Cilium's and Katran's rules are written down here, and prove the filling of
//! slots; what of their tables holds for ours is said at each.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

extern crate std;

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use sha2::{Digest as _, Sha256};
use siphasher::sip::SipHasher24;
use twox_hash::XxHash64;

use super::*;

fn walks(pairs: impl IntoIterator<Item = (u64, u64)>, size: u32) -> Vec<Permutation> {
    pairs.into_iter().map(|(first, second)| Permutation::new(first, second, size)).collect()
}

fn even(walks: &[Permutation], size: u32) -> Table {
    Table::from_permutations(walks, &vec![1; walks.len()], size).unwrap()
}

fn counts(slots: &[u16], backends: usize) -> Vec<usize> {
    (0..backends).map(|backend| slots.iter().filter(|slot| usize::from(**slot) == backend).count()).collect()
}

/// Of the slots as 32-bit numbers, the low octet first.
fn digest(slots: &[u16]) -> String {
    let octets: Vec<u8> = slots.iter().flat_map(|slot| u32::from(*slot).to_le_bytes()).collect();
    Sha256::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Table 1 of the paper: before and after backend 1 is removed.
#[test]
fn the_papers_example() {
    let walks = [(3, 4), (0, 2), (3, 1)].map(|(offset, skip)| Permutation { offset, skip });
    assert_eq!(even(&walks, 7).slots(), [1, 0, 1, 0, 2, 2, 0]);
    let without = Table::from_permutations(&walks, &[1, 0, 1], 7).unwrap();
    assert_eq!(without.slots(), [0, 0, 0, 0, 2, 2, 2]);
}

/// github.com/dgryski/go-maglev, with SipHash-2-4 under the key (0xdeadbeefcafebabe, 0): the hash's halves.
#[test]
fn the_tables_of_go_maglev() {
    let walks = |backends: u32, size| {
        let hasher = SipHasher24::new_with_keys(0xdead_beef_cafe_babe, 0);
        let hash = |n| hasher.hash(format!("backend-{n}").as_bytes());
        walks((0..backends).map(hash).map(|hash| (hash >> 32, hash & 0xffff_ffff)), size)
    };
    let three = walks(3, 7);
    assert_eq!(three, [(2, 4), (0, 5), (1, 2)].map(|(offset, skip)| Permutation { offset, skip }));
    assert_eq!(even(&three, 7).slots(), [1, 2, 0, 2, 0, 1, 0]);
    assert_eq!(Table::from_permutations(&three, &[1, 0, 1], 7).unwrap().slots(), [0, 2, 0, 2, 0, 2, 0]);
    for (size, least, sum) in [
        (65_537, 65, "f5cc1e8b1303396de24303605b024c556ac83cfd7267e56adb00f2d0042d4ca9"),
        (655_373, 655, "82ba530446801e142d7bc6fb71a4f2b2062b59bc4ad6c8b269f87aeb6f3e257a"),
    ] {
        let table = even(&walks(1_000, size), size);
        let counts = counts(table.slots(), 1_000);
        assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&least), Some(&(least + 1))));
        assert_eq!(digest(table.slots()), sum);
    }
}

fn xxh64_walks(names: &[String], size: u32) -> Vec<Permutation> {
    let hash = |name: &String, seed| XxHash64::oneshot(seed, name.as_bytes());
    walks(names.iter().map(|name| (hash(name, 0), hash(name, 1))), size)
}

/// Envoy's maglev_lb_test.cc, with XXH64 of the host's key.
#[test]
fn the_tables_of_envoy() {
    let names = |prefix: &str, ports: core::ops::Range<u32>| -> Vec<String> {
        ports.map(|port| format!("{prefix}{port}")).collect()
    };
    let addresses = xxh64_walks(&names("127.0.0.1:", 90..96), 7);
    assert_eq!(even(&addresses, 7).slots(), [2, 4, 0, 1, 5, 0, 3]);
    assert_eq!(even(&xxh64_walks(&names("", 90..96), 7), 7).slots(), [2, 5, 0, 3, 4, 1, 0]);
    let two = xxh64_walks(&names("127.0.0.1:", 90..92), 17);
    assert_eq!(even(&two, 17).slots(), [1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1]);

    // Weights 1 and 2: in the n-th round who would have had more than n turns is passed over.
    let mut due = [0, 0];
    let turns = (1u32..).flat_map(|round| [(0, 1, round), (1, 2, round)]).filter(|&(host, weight, round)| {
        let turn = round * weight >= due[usize::from(host)];
        due[usize::from(host)] += if turn { 2 } else { 0 };
        turn
    });
    let theirs = fill(&two, 17, turns.map(|(host, _, _)| host).take(17));
    assert_eq!(*theirs, [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]);
    // Ours has the same shares: 17 / 3 is 5.67.
    let ours = Table::from_permutations(&two, &[1, 2], 17).unwrap();
    assert_eq!((counts(&theirs, 2), counts(ours.slots(), 2)), (vec![6, 11], vec![6, 11]));
}

/// MurmurHash3_x64_128 (public domain, Austin Appleby).
fn murmur3(octets: &[u8], seed: u32) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let first = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let second = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let finish = |mut h: u64| {
        h = (h ^ h >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h = (h ^ h >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ h >> 33
    };
    let word = |block: &[u8]| block.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet));
    let (mut h1, mut h2) = (u64::from(seed), u64::from(seed));
    for block in octets.chunks(16) {
        let (low, high) = block.split_at(block.len().min(8));
        let whole = block.len() == 16;
        h1 ^= first(word(low));
        if whole {
            h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        }
        h2 ^= second(word(high));
        if whole {
            h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
        }
    }
    let mix = |h1: u64, h2: u64| (h1.wrapping_add(h2), h2.wrapping_add(h1.wrapping_add(h2)));
    (h1, h2) = mix(h1 ^ octets.len() as u64, h2 ^ octets.len() as u64);
    mix(finish(h1), finish(h2))
}

#[test]
fn murmur3_is_murmur3() {
    // From the reference implementation: "The quick brown fox …" with seed 0.
    let hash = murmur3(b"The quick brown fox jumps over the lazy dog", 0);
    assert_eq!(hash, (0xe34b_bc7b_bc07_1b6c, 0x7a43_3ca9_c49a_9347));
}

/// Cilium's maglev_test.go, with MurmurHash3 of the backend's description; the seed is in the default of its option.
fn cilium_walks(numbers: &[u32], size: u32) -> Vec<Permutation> {
    let name = |n: &u32| format!("[0.0.0.{n}:{n}/TCP,State:active]");
    walks(numbers.iter().map(|n| murmur3(name(n).as_bytes(), 0x24b7_ef82)), size)
}

/// Turn n is that of backend n modulo their number or, if it has had its share of n turns, of the next that has not.
fn cilium_turns(weights: &[u32]) -> impl Iterator<Item = u16> {
    let count = u32::try_from(weights.len()).unwrap();
    let sum: u32 = weights.iter().sum();
    let mut due: Vec<f64> = weights.iter().map(|&weight| f64::from(weight) / f64::from(count)).collect();
    (0u32..).map(move |turn| {
        let has_turn = |at: &u32| f64::from((turn + 1) * weights[*at as usize]) >= due[*at as usize];
        let at = (0..).map(|next| (turn + next) % count).find(has_turn).unwrap();
        due[at as usize] += f64::from(sum);
        u16::try_from(at).unwrap()
    })
}

#[test]
fn the_tables_of_cilium() {
    let weights = [2, 13, 111, 10];
    let slots = fill(&cilium_walks(&[1, 3, 4, 5], 251), 251, cilium_turns(&weights).take(251));
    let runs: Vec<String> =
        slots.chunk_by(|a, b| a == b).map(|run| format!("{}({})", run[0], run.len())).collect();
    // TestReproducible, in its own notation.
    let expected = "2(5),3(1),2(3),1(1),2(2),0(1),2(1),3(1),2(1),3(1),2(1),1(1),2(7),1(1),2(14),3(1),2(1),\
        1(2),2(12),3(1),2(3),1(1),2(4),3(1),2(8),3(1),2(2),1(1),2(16),1(2),2(3),3(1),2(11),1(2),2(4),3(1),2(3),\
        1(1),2(4),3(1),2(1),0(1),1(1),2(8),1(1),2(7),1(1),2(4),3(1),2(1),3(1),2(9),1(2),2(5),1(1),2(7),3(1),2(1),\
        3(1),1(1),2(8),1(1),2(4),0(1),2(1),1(1),2(5),3(1),2(3),1(1),2(4),3(1),2(3),1(1),2(12),0(1),3(1),2(3),3(1),\
        2(4),3(1),2(2),1(1),2(7)";
    assert_eq!(runs.join(","), expected);

    // TestWeightedBackendWithRemoval has 16, 98, 832 and 75 slots; what the weights are worth is 15.01, 97.60, 833.32 and
    // 75.07, and that is what ours have.
    let walks = cilium_walks(&[1, 2, 3, 4], 1021);
    let theirs = fill(&walks, 1021, cilium_turns(&weights).take(1021));
    let ours = Table::from_permutations(&walks, &weights, 1021).unwrap();
    assert_eq!(counts(&theirs, 4), [16, 98, 832, 75]);
    assert_eq!(counts(ours.slots(), 4), [15, 98, 833, 75]);

    // TestBackendRemoval: less than 1 % of the slots of those who stay change.
    let walks = cilium_walks(&[1, 2, 3], 1021);
    let (before, after) = (even(&walks, 1021), Table::from_permutations(&walks, &[1, 1, 0], 1021).unwrap());
    let both = before.slots().iter().zip(after.slots());
    assert_eq!(both.filter(|(before, after)| **before != 2 && before != after).count(), 1);
}

/// Katran's CHHelpersTest.cpp and MaglevHashTest.cpp, with MurmurHash3 of the endpoint's number and a constant.
fn katran_walks(hashes: impl IntoIterator<Item = u64>, size: u32) -> Vec<Permutation> {
    let hash = |hash: u64, constant: u64, seed| {
        murmur3(&[hash.to_le_bytes(), constant.to_le_bytes()].concat(), seed).0
    };
    walks(hashes.into_iter().map(|n| (hash(n, 42, 0), hash(n, 2_718_281_828, 2307))), size)
}

/// The first version: as many turns in the first round as the weight says, then one a round.
fn katran_v1_turns(weights: &[u32]) -> impl Iterator<Item = u16> {
    let first = (0u16..).zip(weights).flat_map(|(at, &weight)| (0..weight).map(move |_| at));
    first.chain((0..u16::try_from(weights.len()).unwrap()).cycle())
}

/// The second: a turn whenever the weight has added up to the heaviest.
fn katran_v2_turns(weights: &[u32]) -> impl Iterator<Item = u16> {
    let heaviest = *weights.iter().max().unwrap();
    let mut sums = vec![0; weights.len()];
    (0u16..).zip(weights).cycle().filter_map(move |(at, weight)| {
        let sum = &mut sums[usize::from(at)];
        *sum += weight;
        let turn = *sum >= heaviest;
        *sum -= if turn { heaviest } else { 0 };
        turn.then_some(at)
    })
}

#[test]
fn the_tables_of_katran() {
    const SIZE: u32 = 65_537;
    let table = even(&katran_walks(0..400, SIZE), SIZE);
    let shares = counts(table.slots(), 400);
    assert_eq!((shares.iter().min(), shares.iter().max()), (Some(&163), Some(&164)));
    assert_eq!(digest(table.slots()), "b063260f9ffb7eee53e1a21eccfc50d1ebbf3839b6435e08d4b30d9ef2ccb7d0");

    let walks = katran_walks([1000, 2000], 7);
    assert_eq!(*fill(&walks, 7, katran_v1_turns(&[2, 1]).take(7)), [1, 1, 0, 1, 0, 0, 0]);
    assert_eq!(*fill(&walks, 7, katran_v2_turns(&[2, 1]).take(7)), [1, 0, 0, 1, 0, 0, 0]);
    // 14 / 3 is 4.67: as in its second version, whose order of turns differs.
    assert_eq!(counts(Table::from_permutations(&walks, &[2, 1], 7).unwrap().slots(), 2), [5, 2]);

    // Half, a quarter and a quarter: its first version forgets weights after a round, its second is one slot off.
    let (walks, weights) = (katran_walks([1, 2, 3], SIZE), [2, 1, 1]);
    assert_eq!(
        counts(&fill(&walks, SIZE, katran_v1_turns(&weights).take(SIZE as usize)), 3),
        [21_847, 21_845, 21_845]
    );
    assert_eq!(
        counts(&fill(&walks, SIZE, katran_v2_turns(&weights).take(SIZE as usize)), 3),
        [32_769, 16_384, 16_384]
    );
    let ours = Table::from_permutations(&walks, &weights, SIZE).unwrap();
    assert_eq!(counts(ours.slots(), 3), [32_769, 16_384, 16_384]);

    // Where it fills a ring without endpoints with -1, there is no table here; one endpoint has all of it.
    assert_eq!(Table::from_permutations(&[], &[], 7), Err(TableError::NoBackend));
    assert_eq!(even(&walks[..1], SIZE).slots(), vec![0; SIZE as usize]);
}

/// The sorted names of backends "10.0.a.b:8080", with XXH64 and its seeds 0 and 1.
#[test]
fn tables_over_sorted_names() {
    for (backends, size, least, sum) in [
        (100, 16_381, 163, "f3bc6e8ecc282ef57383bb6367505df2"),
        (1_000, 65_537, 65, "5cdc73f8231506b7a63605cb93c355ef"),
    ] {
        let mut names: Vec<String> =
            (0..backends).map(|n| format!("10.0.{}.{}:8080", n / 250, n % 250 + 1)).collect();
        names.sort();
        let table = even(&xxh64_walks(&names, size), size);
        let counts = counts(table.slots(), names.len());
        assert_eq!((counts.iter().min(), counts.iter().max()), (Some(&least), Some(&(least + 1))));
        assert!(digest(table.slots()).starts_with(sum));
    }
}
