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
pub(super) trait Key: Ord + Clone {
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

impl<K: Key, V: Clone> Map<K, V> {
    /// What a key has.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let (branch, shard) = place(key.spread());
        let shard = self.root[branch].as_ref()?[shard].as_ref()?;
        shard.binary_search_by(|(other, _)| other.cmp(key)).ok().map(|at| &shard[at].1)
    }

    /// Gives a key a value, whatever it had.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let shard = self.shard(&key);
        let others = shard.as_deref().unwrap_or_default();
        let (before, behind) = match others.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => (&others[..at], &others[at + 1..]),
            Err(at) => others.split_at(at),
        };
        *shard = Some(before.iter().cloned().chain([(key, value)]).chain(behind.iter().cloned()).collect());
    }

    /// Takes what a key has.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.get(key)?.clone();
        let shard = self.shard(key);
        let left: Vec<(K, V)> =
            shard.iter().flat_map(|shard| shard.iter()).filter(|(other, _)| other != key).cloned().collect();
        *shard = (!left.is_empty()).then(|| left.into());
        Some(value)
    }

    /// The shard of a key, no longer shared with anybody.
    fn shard(&mut self, key: &K) -> &mut Shard<K, V> {
        let (branch, shard) = place(key.spread());
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
