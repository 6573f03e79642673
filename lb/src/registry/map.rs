//! A map that shares with its clones what they have in common.
//!
//! # Theory of operation
//! A tree of fixed depth: a root of 256 branches, each of 128 shards, each a short sorted list. Which shard a key is in,
//! its spread says. All three are behind reference counts. A clone is a clone of the root's count. A change copies the
//! shard, and the branch and the root if somebody else still has them: 384 pointers and a few entries, whatever
//! else the map holds. Since the depth is fixed, a search costs the same in an empty map as in a full one, up to the
//! shards' lists, which are searched by halving; with 32,768 shards those are short.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::hint::black_box;
use core::net::IpAddr;

use crate::rendezvous::mix;
use crate::service::Frontend;

const BRANCHES: usize = 256;
const SHARDS: usize = 128;
/// How many are looked for at once.
pub const AT_ONCE: usize = 32;

type Shard<K, V> = Option<Arc<[(K, V)]>>;
type Branch<K, V> = Option<Arc<[Shard<K, V>; SHARDS]>>;

/// A map whose clones share with it what they have in common: a clone costs next to nothing, and a change one path of a tree
/// of fixed depth, however much there is.
#[derive(Debug)]
pub struct Map<K, V> {
    root: Arc<[Branch<K, V>; BRANCHES]>,
}

/// What can be a key of a [`Map`].
pub trait Key: Ord {
    /// A number that differs between keys, in its low 15 bits too.
    fn spread(&self) -> u64;
}

impl Key for u32 {
    /// Numbers are given out in order: the low bits spread them best.
    fn spread(&self) -> u64 {
        u64::from(*self)
    }
}

impl Key for IpAddr {
    fn spread(&self) -> u64 {
        match self {
            Self::V4(address) => mix(u64::from(address.to_bits())),
            Self::V6(address) => {
                let [high, low] = words(address.to_bits());
                mix(mix(high).wrapping_add(low))
            }
        }
    }
}

/// A frontend as numbers: compared in a few instructions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Packed {
    high: u64,
    low: u64,
    /// Which family, protocol and L4 port.
    rest: u64,
}

impl From<&Frontend> for Packed {
    fn from(frontend: &Frontend) -> Self {
        let rest = u64::from(frontend.protocol) << 16 | u64::from(frontend.port);
        match frontend.address {
            IpAddr::V4(address) => Self { high: 0, low: address.to_bits().into(), rest },
            IpAddr::V6(address) => {
                let [high, low] = words(address.to_bits());
                Self { high, low, rest: rest | 1 << 24 }
            }
        }
    }
}

impl Key for Packed {
    fn spread(&self) -> u64 {
        // Odd numbers, without a pattern.
        let high = self.high.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mix((high ^ self.low).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ self.rest)
    }
}

impl Key for Arc<str> {
    fn spread(&self) -> u64 {
        str::spread(self)
    }
}

impl Key for str {
    fn spread(&self) -> u64 {
        let word = |octets: &[u8]| octets.iter().fold(0, |word, octet| word << 8 | u64::from(*octet));
        self.as_bytes().chunks(8).fold(0, |spread, octets| mix(mix(spread).wrapping_add(word(octets))))
    }
}

/// The upper and the lower half.
fn words(bits: u128) -> [u64; 2] {
    let narrow = |bits: u128| u64::try_from(bits).unwrap_or(0);
    [narrow(bits >> 64), narrow(bits & u128::from(u64::MAX))]
}

/// Where in the root and in the branch.
fn place(spread: u64) -> (usize, usize) {
    // Both are small.
    let below = |bits: u64, limit: usize| usize::try_from(bits % limit as u64).unwrap_or(0);
    (below(spread / SHARDS as u64, BRANCHES), below(spread, SHARDS))
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root) }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Arc::new([const { None }; BRANCHES]) }
    }
}

impl<K: Key + Clone, V: Clone> Map<K, V> {
    /// What a key has.
    pub fn get<Q: Key + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (branch, shard) = place(key.spread());
        let shard = self.root[branch].as_ref()?[shard].as_ref()?;
        shard.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok().map(|at| &shard[at].1)
    }

    /// What each of several keys has, as far as there is room in `found`. They wait for memory together: each loop reads for
    /// all keys what the one before has found, and as long as it takes to come nothing depends on what it is.
    pub(super) fn get_each<'a>(&'a self, keys: impl Iterator<Item = K>, found: &mut [Option<&'a V>]) {
        let mut shards = [const { None }; AT_ONCE];
        for (shard, key) in shards.iter_mut().zip(keys) {
            let (branch, at) = place(key.spread());
            *shard = self.root[branch].as_ref().map(|branch| (key, &branch[at]));
        }
        let list = |(key, shard): &'_ (K, &'a Shard<K, V>)| Some((key.clone(), shard.as_deref()?));
        let lists = shards.each_ref().map(|shard| shard.as_ref().and_then(list));
        black_box(lists.iter().flatten().fold(0, |all, (_, list)| all ^ list[0].0.spread()));
        for (found, list) in found.iter_mut().zip(lists) {
            *found = list.and_then(|(key, list)| {
                list.binary_search_by(|(other, _)| other.cmp(&key)).ok().map(|at| &list[at].1)
            });
        }
    }

    /// Gives a key a value, whatever it had.
    pub fn insert(&mut self, key: K, value: V) {
        let shard = self.shard(key.spread());
        let others = shard.as_deref().unwrap_or_default();
        let (before, behind) = match others.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => (&others[..at], &others[at + 1..]),
            Err(at) => others.split_at(at),
        };
        *shard = Some(before.iter().cloned().chain([(key, value)]).chain(behind.iter().cloned()).collect());
    }

    /// Takes what a key has.
    pub fn remove<Q: Key + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let value = self.get(key)?.clone();
        let shard = self.shard(key.spread());
        let left: Vec<(K, V)> = shard
            .iter()
            .flat_map(|shard| shard.iter())
            .filter(|(other, _)| other.borrow() != key)
            .cloned()
            .collect();
        *shard = (!left.is_empty()).then(|| left.into());
        Some(value)
    }

    /// The shard of keys with this spread, its way there no longer shared with anybody.
    fn shard(&mut self, spread: u64) -> &mut Shard<K, V> {
        let (branch, shard) = place(spread);
        let branch = &mut Arc::make_mut(&mut self.root)[branch];
        let branch = branch.get_or_insert_with(|| Arc::new([const { None }; SHARDS]));
        &mut Arc::make_mut(branch)[shard]
    }

    /// All values, in an order that means nothing.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.shards().flat_map(|shard| shard.iter()).map(|(_, value)| value)
    }

    /// The values in shards that `other` does not share.
    pub(super) fn values_not_shared<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a V> {
        let branches = self.root.iter().zip(other.root.iter());
        let apart = |(ours, theirs): &(&'a Branch<K, V>, &'a Branch<K, V>)| !same(ours, theirs);
        let shards = branches.filter(apart).flat_map(|(ours, theirs)| {
            let theirs = theirs.as_deref();
            let ours = ours.iter().flat_map(|branch| branch.iter().enumerate());
            ours.filter(move |(at, shard)| !theirs.is_some_and(|theirs| same(shard, &theirs[*at])))
        });
        shards.flat_map(|(_, shard)| shard.iter().flat_map(|shard| shard.iter())).map(|(_, value)| value)
    }

    fn shards(&self) -> impl Iterator<Item = &Arc<[(K, V)]>> {
        self.root.iter().flatten().flat_map(|branch| branch.iter().flatten())
    }
}

/// Whether two clones have it in common.
fn same<T: ?Sized>(ours: &Option<Arc<T>>, theirs: &Option<Arc<T>>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::vec;

    /// A key whose spread is its upper half, so that some share a shard.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    struct Pair(u16, u16);

    impl Key for Pair {
        fn spread(&self) -> u64 {
            u64::from(self.0)
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_its_clones_stay_as_they_were(
            steps in proptest::collection::vec((0u16..4, 0u16..20, proptest::option::of(any::<u8>()), any::<bool>()), 0..200),
        ) {
            let mut map = Map::default();
            let mut model = BTreeMap::new();
            let mut kept = vec![];
            for (spread, low, value, keep) in steps {
                let key = Pair(spread * 100, low);
                match value {
                    Some(value) => {
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                if keep {
                    kept.push((map.clone(), model.clone()));
                }
            }
            kept.push((map, model));
            for (map, model) in kept {
                let mut values: Vec<u8> = map.values().copied().collect();
                let mut expected: Vec<u8> = model.values().copied().collect();
                values.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(values, expected);
                for key in (0..4).flat_map(|high| (0..20).map(move |low| Pair(high * 100, low))) {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
            }
        }
    }

    fn packed(address: Ipv4Addr, port: u16) -> Packed {
        Packed::from(&Frontend { address: address.into(), protocol: 6, port })
    }

    /// What is not shared between two maps: the root, branches, shards.
    fn apart<K, V>(one: &Map<K, V>, other: &Map<K, V>) -> (usize, usize, usize) {
        let branches = || one.root.iter().zip(other.root.iter()).filter(|(a, b)| !same(a, b));
        let shards = |(a, b): (&Branch<K, V>, &Branch<K, V>)| {
            let shard =
                |branch: &Branch<K, V>, at: usize| branch.as_ref().and_then(|branch| branch[at].clone());
            (0..SHARDS).filter(|&at| !same(&shard(a, at), &shard(b, at))).count()
        };
        (usize::from(!Arc::ptr_eq(&one.root, &other.root)), branches().count(), branches().map(shards).sum())
    }

    #[test]
    fn a_change_copies_one_path_whatever_there_is() {
        for count in [0u32, 1, 10, 10_000] {
            let mut map = Map::default();
            for n in 0..count {
                map.insert(packed(Ipv4Addr::from_bits(n), 80), n);
            }
            let clone = map.clone();
            assert_eq!(apart(&map, &clone), (0, 0, 0));
            map.insert(packed(Ipv4Addr::BROADCAST, 80), 0);
            assert_eq!(apart(&map, &clone), (1, 1, 1), "{count}");
            assert_eq!(clone.values_not_shared(&clone).count(), 0);
            assert!((1..10).contains(&map.values_not_shared(&clone).count()));
            // Without a clone nothing has to be copied but the shard.
            drop(clone);
            let root = Arc::as_ptr(&map.root);
            map.insert(packed(Ipv4Addr::BROADCAST, 81), 0);
            assert_eq!(Arc::as_ptr(&map.root), root);
        }
    }

    /// Shards are short: a search among many takes hardly more steps than among few.
    #[test]
    fn keys_spread() {
        let longest = |keys: &mut dyn Iterator<Item = u64>| {
            let mut lengths = BTreeMap::new();
            keys.for_each(|spread| *lengths.entry(place(spread)).or_insert(0u32) += 1);
            lengths.into_values().max().unwrap_or(0)
        };
        assert_eq!(longest(&mut (0u32..32_768).map(|n| n.spread())), 1);
        let at = |n: u32| packed(Ipv4Addr::from_bits(n), 80).spread();
        assert!(longest(&mut (0..10_000).map(|n| at(0x0a60_0000 + n))) < 8);
        assert!(longest(&mut (0..10_000).map(|n| at(n << 18))) < 8);
        let port = |port| packed(Ipv4Addr::new(10, 96, 0, 1), port).spread();
        assert!(longest(&mut (20_000..30_000).map(port)) < 8);
        let v6 = |n: u128| Frontend {
            address: Ipv6Addr::from_bits(0xfd << 120 | n).into(),
            protocol: 6,
            port: 80,
        };
        for shift in [0, 60, 100] {
            assert!(longest(&mut (0..10_000).map(|n| Packed::from(&v6(n << shift)).spread())) < 8);
        }
        assert!(longest(&mut (0..10_000).map(|n| IpAddr::from(Ipv4Addr::from_bits(n)).spread())) < 8);
        assert!(
            longest(&mut (0..10_000).map(|n| std::format!("default/web-{n}:http").as_str().spread())) < 8
        );
    }
}
