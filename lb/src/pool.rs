//! Backends, and which of them a connection gets.

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use siphasher::sip128::SipHasher13;

use crate::maglev::{self, Permutation, Table, TableError};
use crate::rendezvous;
use crate::weights::Turns;

/// Who answers clients. Which one it is, address and L4 port say; the weight may change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its L4 port.
    pub port: u16,
    /// Its part of new connections, as against the others'; none if 0.
    pub weight: u32,
}

/// How one of several backends is selected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
pub enum Policy {
    /// By the flow's hash, from a table: shares are even, and few flows move when backends come and go.
    #[default]
    Maglev,
    /// By the number drawn.
    Random,
    /// One after the other: the number drawn counts turns.
    RoundRobin,
    /// By the flow's hash, without a table: no flow moves without need, but each selection looks at every backend.
    Rendezvous,
}

/// Backends of one address family and the way to select one: made once, then shared and never changed.
///
/// The same backends, policy, size and key make the same pool everywhere and forever, in whatever order they are given.
/// A backend's walk through the table comes from SipHash-1-3 with 128 bits over the octet 4 or 6, its address and its L4
/// port in network order, under the pool's key: the first word modulo the size is the offset, the second modulo the size
/// less one, plus one, the skip.
#[derive(Clone)]
pub struct Pool {
    backends: Box<[Backend]>,
    policy: Policy,
    key: [u8; 16],
    selector: Selector,
}

/// What a policy needs.
#[derive(Clone)]
enum Selector {
    /// No backend has a weight.
    Nothing,
    Maglev(Table),
    /// Where the part of each backend ends.
    Random {
        ends: Box<[u64]>,
    },
    /// Whose turn it is.
    RoundRobin {
        turns: Box<[u16]>,
    },
    /// What each backend draws by, and whether their weights are all the same.
    Rendezvous {
        ids: Box<[u64]>,
        even: bool,
    },
}

/// The longest round of turns. Weights whose sum is more, divided by what they have in common, are met nearly.
const LONGEST_ROUND: u64 = 16_384;

impl Pool {
    /// A pool of these backends; none is allowed too. `size` is that of Maglev's table, a prime; if none is given, the
    /// first of [`maglev::SIZES`] with 100 slots for each backend. Other policies have no use for it.
    pub fn new(
        backends: impl IntoIterator<Item = Backend>,
        policy: Policy,
        size: Option<u32>,
        key: [u8; 16],
    ) -> Result<Self, PoolError> {
        let mut backends: Box<[Backend]> = backends.into_iter().collect();
        backends.sort_unstable();
        for pair in backends.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            if (a.address, a.port) == (b.address, b.port) {
                return Err(PoolError::Twice { address: a.address, port: a.port });
            }
            if a.address.is_ipv4() != b.address.is_ipv4() {
                return Err(PoolError::Families { v4: a.address, v6: b.address });
            }
        }
        if let Some(size) = size {
            maglev::check_size(size)?;
        }
        if backends.len() > Table::MOST_BACKENDS {
            return Err(TableError::TooManyBackends { backends: backends.len() }.into());
        }
        let selector = Selector::new(&backends, policy, size, key)?;
        Ok(Self { backends, policy, key, selector })
    }

    /// The backends by address and L4 port, those without weight too.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// How one is selected.
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// How many slots Maglev's table has, if it is Maglev's and any backend has a weight.
    pub fn table_size(&self) -> Option<u32> {
        match &self.selector {
            Selector::Maglev(table) => u32::try_from(table.slots().len()).ok(),
            Selector::Nothing
            | Selector::Random { .. }
            | Selector::RoundRobin { .. }
            | Selector::Rendezvous { .. } => None,
        }
    }

    /// The backend for a flow's hash and a number drawn: whatever draws it, it has to be spread over all 64 bits if the
    /// policy is random, and to grow by one each time if it is round-robin. None if no backend has a weight.
    pub fn select(&self, hash: u64, draw: u64) -> Option<&Backend> {
        let at = match &self.selector {
            Selector::Nothing => return None,
            Selector::Maglev(table) => usize::from(table.lookup(hash)),
            Selector::Random { ends } => {
                let sum = ends.last().copied().unwrap_or(0);
                let point = (u128::from(draw) * u128::from(sum)) >> 64;
                ends.partition_point(|&end| u128::from(end) <= point)
            }
            Selector::RoundRobin { turns } => {
                // Below the number of turns, which is a usize.
                let turn = draw % (turns.len() as u64).max(1);
                usize::from(turns[usize::try_from(turn).unwrap_or(0)])
            }
            Selector::Rendezvous { ids, even: true } => {
                let weighted = self.backends.iter().zip(ids).filter(|(backend, _)| backend.weight > 0);
                return rendezvous::select(hash, weighted.clone().map(|(_, id)| *id))
                    .and_then(|at| weighted.map(|(backend, _)| backend).nth(at));
            }
            Selector::Rendezvous { ids, even: false } => {
                let weights = self.backends.iter().map(|backend| backend.weight);
                rendezvous::select_weighted(hash, ids.iter().copied().zip(weights))?
            }
        };
        self.backends.get(at)
    }

    /// Reads what a selection looks at first, wherever that lies.
    pub(crate) fn touch(&self) -> usize {
        let nothing = matches!(self.selector, Selector::Nothing);
        self.backends.len() ^ usize::from(self.policy == Policy::Random) ^ usize::from(nothing)
    }

    /// The backend for a flow's hash where a look at a table says it.
    pub(crate) fn likely(&self, hash: u64) -> Option<&Backend> {
        match &self.selector {
            Selector::Maglev(table) => self.backends.get(usize::from(table.lookup(hash))),
            Selector::Nothing
            | Selector::Random { .. }
            | Selector::RoundRobin { .. }
            | Selector::Rendezvous { .. } => None,
        }
    }

    /// Whether a backend is in here and takes new connections.
    pub fn selects(&self, backend: (IpAddr, u16)) -> bool {
        self.backends
            .binary_search_by_key(&backend, |backend| (backend.address, backend.port))
            .is_ok_and(|at| self.backends[at].weight > 0)
    }

    /// Each backend's part of new connections.
    pub fn shares(&self) -> impl Iterator<Item = Share<'_>> {
        let weights = || self.backends.iter().map(|backend| u64::from(backend.weight)).collect();
        let parts: Vec<u64> = match &self.selector {
            Selector::Maglev(table) => self.count(table.slots()),
            Selector::RoundRobin { turns } => self.count(turns),
            Selector::Nothing | Selector::Random { .. } | Selector::Rendezvous { .. } => weights(),
        };
        let of = parts.iter().sum();
        self.backends.iter().zip(parts).map(move |(backend, parts)| Share { backend, parts, of })
    }

    fn count(&self, slots: &[u16]) -> Vec<u64> {
        let mut counts = vec![0; self.backends.len()];
        for slot in slots {
            counts[usize::from(*slot)] += 1;
        }
        counts
    }
}

/// What a backend has of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share<'a> {
    /// The backend.
    pub backend: &'a Backend,
    /// Its slots of Maglev's table, its turns of a round, or its weight.
    pub parts: u64,
    /// All backends' parts together.
    pub of: u64,
}

impl Selector {
    fn new(
        backends: &[Backend],
        policy: Policy,
        size: Option<u32>,
        key: [u8; 16],
    ) -> Result<Self, TableError> {
        let weights: Vec<u32> = backends.iter().map(|backend| backend.weight).collect();
        let weighted = weights.iter().filter(|weight| **weight > 0).count();
        let hasher = SipHasher13::new_with_key(&key);
        if weighted == 0 {
            return Ok(Self::Nothing);
        }
        Ok(match policy {
            Policy::Maglev => {
                let size = size.unwrap_or_else(|| maglev::size_for(weighted));
                let walk = |backend| {
                    let [first, second] = identity(hasher, backend);
                    Permutation::new(first, second, size)
                };
                let walks: Vec<Permutation> = backends.iter().map(walk).collect();
                Self::Maglev(Table::from_permutations(&walks, &weights, size)?)
            }
            Policy::Random => {
                let mut end = 0;
                let ends = weights.iter().map(|&weight| {
                    end += u64::from(weight);
                    end
                });
                Self::Random { ends: ends.collect() }
            }
            Policy::RoundRobin => {
                let common = weights.iter().fold(0, |a, &b| divisor(a, b)).max(1);
                let round = weights.iter().map(|weight| u64::from(weight / common)).sum::<u64>();
                let round = round.min(LONGEST_ROUND.max(weighted as u64));
                Self::RoundRobin { turns: Turns::new(&weights, u32::try_from(round).unwrap_or(0)).collect() }
            }
            Policy::Rendezvous => {
                let mut some = weights.iter().filter(|weight| **weight > 0);
                let first = some.next();
                Self::Rendezvous {
                    ids: backends.iter().map(|backend| identity(hasher, backend)[0]).collect(),
                    even: some.all(|weight| Some(weight) == first),
                }
            }
        })
    }
}

/// Two words that say which backend it is.
fn identity(hasher: SipHasher13, backend: &Backend) -> [u64; 2] {
    let mut octets = Vec::with_capacity(19);
    match backend.address {
        IpAddr::V4(address) => {
            octets.push(4);
            octets.extend(address.octets());
        }
        IpAddr::V6(address) => {
            octets.push(6);
            octets.extend(address.octets());
        }
    }
    octets.extend(backend.port.to_be_bytes());
    let hash = hasher.hash(&octets);
    [hash.h1, hash.h2]
}

/// The greatest number that divides both.
const fn divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What a pool is made of decides what it does.
impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        self.backends == other.backends
            && self.policy == other.policy
            && self.table_size() == other.table_size()
            && self.key == other.key
    }
}

impl Eq for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who knows the key can choose flows that fall together: it stays out of logs.
        f.debug_struct("Pool")
            .field("backends", &self.backends)
            .field("policy", &self.policy)
            .field("table_size", &self.table_size())
            .finish_non_exhaustive()
    }
}

/// Why backends make no pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolError {
    /// One backend is given twice.
    Twice {
        /// Its address.
        address: IpAddr,
        /// Its L4 port.
        port: u16,
    },
    /// IPv4 and IPv6 do not go together.
    Families {
        /// A backend's address.
        v4: IpAddr,
        /// Another's.
        v6: IpAddr,
    },
    /// They make no table.
    Table(TableError),
}

impl From<TableError> for PoolError {
    fn from(error: TableError) -> Self {
        Self::Table(error)
    }
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice { address, port } => {
                write!(
                    f,
                    "backend {address} port {port} is given twice: give it once, with the weight of both"
                )
            }
            Self::Families { v4, v6 } => {
                write!(f, "backends {v4} and {v6} are of two address families: make a pool for each")
            }
            Self::Table(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PoolError {}

/// What a pool is made of.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    backends: Vec<Backend>,
    #[serde(default)]
    policy: Policy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
    key: [u8; 16],
}

#[cfg(feature = "serde")]
impl serde::Serialize for Pool {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let size = self.table_size();
        Parts { backends: self.backends.to_vec(), policy: self.policy, size, key: self.key }
            .serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Pool {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { backends, policy, size, key } = Parts::deserialize(deserializer)?;
        Self::new(backends, policy, size, key).map_err(serde::de::Error::custom)
    }
}
