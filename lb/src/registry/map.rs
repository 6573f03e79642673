//! A map that shares with its clones what they have in common.
//!
//! # Theory of operation
//! A tree of fixed depth: a root of 128 branches, each of 128 shards, each a short sorted list. Which shard a key is in,
//! its spread says. All three are behind reference counts. A clone is a clone of the root's count. A change copies the
//! shard, and the branch and the root if somebody else still has them: two times 128 pointers and a few entries, whatever
//! else the map holds. Since the depth is fixed, a search costs the same in an empty map as in a full one, up to the
//! shards' lists, which are searched by halving; with 16,384 shards those are short.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::net::IpAddr;

use crate::rendezvous::mix;
use crate::service::Frontend;

const FANOUT: usize = 128;

type Shard<K, V> = Option<Arc<[(K, V)]>>;
type Branch<K, V> = Option<Arc<[Shard<K, V>; FANOUT]>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Map<K, V> {
    root: Arc<[Branch<K, V>; FANOUT]>,
}

/// What can be a key.
pub(super) trait Key: Ord {
    /// A number that differs between keys, in its low 14 bits too.
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

impl Key for Frontend {
    fn spread(&self) -> u64 {
        mix(self.address.spread() ^ u64::from(self.protocol) << 16 ^ u64::from(self.port))
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
    let low = |bits: u64| usize::try_from(bits % FANOUT as u64).unwrap_or(0);
    (low(spread / FANOUT as u64), low(spread))
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root) }
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { root: Arc::new([const { None }; FANOUT]) }
    }
}

impl<K: Key + Clone, V: Clone> Map<K, V> {
    /// What a key has.
    pub(super) fn get<Q: Key + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (branch, shard) = place(key.spread());
        let shard = self.root[branch].as_ref()?[shard].as_ref()?;
        shard.binary_search_by(|(other, _)| other.borrow().cmp(key)).ok().map(|at| &shard[at].1)
    }

    /// Gives a key a value, whatever it had.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let shard = self.shard(key.spread());
        let others = shard.as_deref().unwrap_or_default();
        let (before, behind) = match others.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => (&others[..at], &others[at + 1..]),
            Err(at) => others.split_at(at),
        };
        *shard = Some(before.iter().cloned().chain([(key, value)]).chain(behind.iter().cloned()).collect());
    }

    /// Takes what a key has.
    pub(super) fn remove<Q: Key + ?Sized>(&mut self, key: &Q) -> Option<V>
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
        let branch = branch.get_or_insert_with(|| Arc::new([const { None }; FANOUT]));
        &mut Arc::make_mut(branch)[shard]
    }

    /// All values, in an order that means nothing.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
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
    use std::net::Ipv4Addr;
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

    /// What is not shared between two maps: the root, branches, shards.
    fn apart<K, V>(one: &Map<K, V>, other: &Map<K, V>) -> (usize, usize, usize) {
        let branches = || one.root.iter().zip(other.root.iter()).filter(|(a, b)| !same(a, b));
        let shards = |(a, b): (&Branch<K, V>, &Branch<K, V>)| {
            let shard =
                |branch: &Branch<K, V>, at: usize| branch.as_ref().and_then(|branch| branch[at].clone());
            (0..FANOUT).filter(|&at| !same(&shard(a, at), &shard(b, at))).count()
        };
        (usize::from(!Arc::ptr_eq(&one.root, &other.root)), branches().count(), branches().map(shards).sum())
    }

    #[test]
    fn a_change_copies_one_path_whatever_there_is() {
        for count in [0u32, 1, 10, 10_000] {
            let mut map = Map::default();
            for n in 0..count {
                map.insert(Frontend { address: Ipv4Addr::from_bits(n).into(), protocol: 6, port: 80 }, n);
            }
            let clone = map.clone();
            assert_eq!(apart(&map, &clone), (0, 0, 0));
            map.insert(Frontend { address: Ipv4Addr::BROADCAST.into(), protocol: 6, port: 80 }, 0);
            assert_eq!(apart(&map, &clone), (1, 1, 1), "{count}");
            assert_eq!(clone.values_not_shared(&clone).count(), 0);
            assert!((1..10).contains(&map.values_not_shared(&clone).count()));
            // Without a clone nothing has to be copied but the shard.
            drop(clone);
            let root = Arc::as_ptr(&map.root);
            map.insert(Frontend { address: Ipv4Addr::BROADCAST.into(), protocol: 6, port: 81 }, 0);
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
        let frontend = |n: u32| Frontend { address: Ipv4Addr::from_bits(n).into(), protocol: 6, port: 80 };
        assert_eq!(longest(&mut (0u32..16_384).map(|n| n.spread())), 1);
        assert!(longest(&mut (0..10_000).map(|n| frontend(0x0a60_0000 + n).spread())) < 8);
        assert!(longest(&mut (0..10_000).map(|n| frontend(n << 18).spread())) < 8);
        let port = |port| Frontend { port, ..frontend(0x0a60_0001) };
        assert!(longest(&mut (20_000..30_000).map(|n| port(n).spread())) < 8);
        assert!(
            longest(&mut (0..10_000).map(|n| std::format!("default/web-{n}:http").as_str().spread())) < 8
        );
    }
}
