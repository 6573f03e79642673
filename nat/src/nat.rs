//! Tracking and translation of one address family, composed.
//!
//! # Theory of operation
//! A packet first goes to [`Nat::track`]. If it belongs to a connection, that says how it leaves, and has taken note of it.
//! If it may open one, the caller decides where it goes: [`Nat::destination`] says what rules and mappings make of its
//! destination, and whoever balances load may say something else. Then [`Nat::prepare`], which changes nothing, says how
//! the packet would leave; and [`Nat::commit`] makes it so. A packet that is dropped between the two has left nothing
//! behind.
//!
//! A connection is its two tuples, that of packets as they come from either side. How packets of one side leave follows
//! from the other's tuple, so nothing else is stored for it, and a mapping is nothing but the connections that share an
//! external port; see [`crate::table`].
//!
//! There is no clock and no chance in here: time is said with each call, and what is random follows from the seed.

mod commit;
mod config;
mod prepare;
#[cfg(test)]
mod tests;
mod track;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::time::Duration;

pub use config::{Config, Counters};
pub use prepare::{Prepared, Refusal, Towards};
pub use track::{Invalid, New, Renewal, Tracked};

use crate::behaviour::{Behaviour, OnRefusal};
use crate::connection::{Connection, ConnectionId};
use crate::ports::{self, Pool};
use crate::rule::Rules;
use crate::table::Table;
use crate::timeouts::Timeouts;
use crate::tuple::{Address, Tuple};

/// Groups of 64 slots that one call of [`Nat::expire`] looks through.
const GROUPS: usize = 64;

/// See the module's documentation.
#[derive(Debug)]
pub struct Nat<A> {
    table: Table<A>,
    pools: Vec<Pool<A>>,
    rules: Arc<Rules<A>>,
    behaviour: Behaviour,
    timeouts: Timeouts,
    /// What chance is made from; another number for each connection.
    random: u64,
    counters: Counters,
    /// Room for those that a sweep ends.
    ended: Vec<ConnectionId>,
}

impl<A: Address> Nat<A> {
    /// A translator without connections.
    ///
    /// # Errors
    /// When a pool cannot be made.
    pub fn new(config: Config<A>) -> Result<Self, ports::ConfigError> {
        let pools = config.pools.into_iter().map(Pool::new).collect::<Result<_, _>>()?;
        let nat = Self::without_pools(config.capacity, config.behaviour, config.timeouts, config.seed);
        Ok(Self { pools, rules: Arc::new(config.rules), ..nat })
    }

    /// A tracker that translates nothing yet; the parameters are those of [`Config`].
    pub fn without_pools(capacity: usize, behaviour: Behaviour, timeouts: Timeouts, seed: u64) -> Self {
        Self {
            table: Table::new(capacity, seed),
            pools: Vec::new(),
            rules: Arc::default(),
            behaviour,
            timeouts,
            random: seed,
            counters: Counters::default(),
            ended: Vec::with_capacity(GROUPS * 64),
        }
    }

    /// Replaces the rules. Connections that have begun keep what was decided for them.
    pub fn set_rules(&mut self, rules: Arc<Rules<A>>) {
        self.rules = rules;
    }

    /// Replaces what is left to choice. Connections that have begun are kept for as long as was decided last, until they are
    /// heard again.
    pub fn set_behaviour(&mut self, behaviour: Behaviour, timeouts: Timeouts) {
        self.behaviour = behaviour;
        self.timeouts = timeouts;
    }

    /// Puts a pool under a number, in the place of what was there; connections with addresses of that one end. Numbers in
    /// between that were never used stand for pools without addresses. Returns how many connections ended.
    ///
    /// # Errors
    /// When the pool cannot be made; then nothing has changed.
    pub fn set_pool(
        &mut self,
        number: usize,
        config: ports::Config<A>,
        now: Duration,
    ) -> Result<usize, ports::ConfigError> {
        let pool = Pool::new(config)?;
        let addresses: Vec<A> =
            self.pools.get(number).map(|old| old.addresses().collect()).unwrap_or_default();
        let ended = self.remove_addresses(number, &addresses, now);
        while self.pools.len() <= number {
            self.pools.push(Pool::new(ports::Config::none())?);
        }
        self.pools[number] = pool;
        Ok(ended)
    }

    /// What was counted since the beginning.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the sender of a packet that [`Self::prepare`] refused is told.
    pub fn on_refusal(&self) -> OnRefusal {
        self.behaviour.on_refusal
    }

    /// Has the memory fetch at the same time what [`Self::track`] will look at for packets with these tuples. Who takes in
    /// packets by the batch calls it first, so that they wait for memory together.
    pub fn expect(&self, tuples: &[Tuple<A>]) {
        self.table.fetch(tuples);
    }

    /// A connection, unless it has ended.
    pub fn get(&self, id: ConnectionId) -> Option<&Connection<A>> {
        self.table.get(id)
    }

    /// A connection, unless it has ended.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection<A>> {
        self.table.get_mut(id)
    }

    /// All connections.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, &Connection<A>)> {
        self.table.iter()
    }

    /// The connections in these of the slots, so that somebody can look at all of them a few at a time: a connection stays in
    /// its slot.
    pub fn connections_in(
        &self,
        slots: Range<usize>,
    ) -> impl Iterator<Item = (ConnectionId, &Connection<A>)> {
        self.table.iter_in(slots)
    }

    /// How many slots there are: connections, and places of those that have ended.
    pub fn slots(&self) -> usize {
        self.table.slots()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The pool with this number.
    pub fn pool(&self, number: usize) -> Option<&Pool<A>> {
        self.pools.get(number)
    }

    /// The pool with this number, to add addresses and to reserve ports. To remove an address see
    /// [`Self::remove_address`].
    pub fn pool_mut(&mut self, number: usize) -> Option<&mut Pool<A>> {
        self.pools.get_mut(number)
    }

    /// Takes an external address out of a pool and ends its connections, no others. Returns how many ended. Looks at every
    /// connection.
    pub fn remove_address(&mut self, pool: usize, address: A, now: Duration) -> usize {
        self.remove_addresses(pool, &[address], now)
    }

    /// The same for several addresses, looking at every connection once.
    pub fn remove_addresses(&mut self, pool: usize, addresses: &[A], now: Duration) -> usize {
        let Some(pool) = self.pools.get_mut(pool) else { return 0 };
        let mut gone: Vec<A> = addresses.iter().copied().filter(|&address| pool.remove(address)).collect();
        if gone.is_empty() {
            return 0;
        }
        gone.sort_unstable();
        let ending: Vec<ConnectionId> = self
            .table
            .iter()
            .filter(|(_, it)| it.external().is_some_and(|external| gone.binary_search(&external).is_ok()))
            .map(|(id, _)| id)
            .collect();
        ending.iter().filter(|&&id| self.end(id, now, false)).count()
    }

    /// Ends connections whose time is up and sets ports free whose wait is over, a bounded piece of it.
    pub fn expire(&mut self, now: Duration) {
        for pool in &mut self.pools {
            pool.expire(now);
        }
        let mut ended = core::mem::take(&mut self.ended);
        self.table.sweep(now, GROUPS, &mut ended);
        for id in ended.drain(..) {
            self.end(id, now, true);
            self.counters.expired += 1;
        }
        self.ended = ended;
    }

    /// In how long [`Self::expire`] is to be called; `None` while there is nothing to do.
    pub fn next_expiry(&self, now: Duration) -> Option<Duration> {
        let pools = self.pools.iter().filter_map(Pool::next_expiry);
        pools.map(|moment| moment.saturating_sub(now)).chain(self.table.next_sweep(now)).min()
    }
}
