//! A pool of external addresses: what changes it. What only looks at it is in `choose`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use super::blocks::{AddressBlocks, BlockEvent, BlockEventKind};
use super::choose::{Choice, Kind};
use super::config::{Assignment, Config, ConfigError, Limits, MOST_ADDRESSES};
use super::external::{External, Permitted};
use super::hold::{HoldDown, Waiting};
use super::set::{PortRange, PortSet};
use super::space::{Left, OWNERS};
use super::subscribers::Subscribers;
use super::{Lease, NotTaken, Protocol, Refused};
use crate::tuple::Address;

/// What a pool has counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Leases taken, shared ones included.
    pub taken: u64,
    /// Of those, shared ones.
    pub shared: u64,
    /// Leases released, but for those that went with their address.
    pub released: u64,
    /// Refusals that the caller reported, for want of a port.
    pub exhausted: u64,
    /// The same, because of a quota.
    pub quota: u64,
    /// The same, for want of room for an inside address.
    pub subscribers: u64,
    /// The same, because an inside address has no ports by arithmetic.
    pub unmapped: u64,
    /// Ports set free before their time, because too many waited.
    pub hold_cut_short: u64,
    /// Block events that found no room.
    pub block_events_lost: u64,
}

/// External addresses and their ports. See the module's documentation.
#[derive(Debug)]
pub struct Pool<A> {
    /// In the order of their addresses.
    pub(super) externals: Vec<External<A>>,
    pub(super) subscribers: Subscribers<A>,
    pub(super) permitted: Permitted,
    pub(super) assignment: Assignment<A>,
    pub(super) limits: Limits,
    waiting: HoldDown<A>,
    hold: Duration,
    events: VecDeque<BlockEvent<A>>,
    counters: Counters,
}

impl<A: Address> Pool<A> {
    /// A pool without leases. An address that is named twice counts once.
    pub fn new(config: Config<A>) -> Result<Self, ConfigError> {
        config.check()?;
        let events = match config.assignment {
            Assignment::Blocks(_) => config.limits.block_events as usize,
            Assignment::Any | Assignment::Deterministic(_) => 0,
        };
        let mut pool = Self {
            externals: Vec::new(),
            subscribers: Subscribers::new(config.limits.subscribers, config.seed),
            permitted: Permitted::new(config.ports),
            assignment: config.assignment,
            limits: config.limits,
            waiting: HoldDown::new(config.limits.waiting),
            hold: config.hold,
            events: VecDeque::with_capacity(events),
            counters: Counters::default(),
        };
        for address in config.addresses {
            pool.add(address)?;
        }
        Ok(pool)
    }

    /// Adds an external address; nothing happens if it is there.
    pub fn add(&mut self, address: A) -> Result<(), ConfigError> {
        let Err(at) = self.position(address) else { return Ok(()) };
        if self.externals.len() >= MOST_ADDRESSES {
            return Err(ConfigError::Addresses);
        }
        let blocks = match self.assignment {
            Assignment::Blocks(blocks) => {
                Some(AddressBlocks::new(blocks.size, self.permitted.set(Protocol::Tcp)))
            }
            Assignment::Any | Assignment::Deterministic(_) => None,
        };
        self.externals.insert(at, External::new(address, blocks));
        Ok(())
    }

    /// Changes what decides about leases from now on: which ports are permitted, how long they wait, how many inside addresses
    /// there may be and how many leases of each. What is leased stays so. False, and nothing changes, where ports are
    /// assigned in blocks or by arithmetic.
    pub fn reconfigure(&mut self, ports: PortSet, hold: Duration, limits: Limits) -> bool {
        let Assignment::Any = self.assignment else { return false };
        self.permitted = Permitted::new(ports);
        for external in &mut self.externals {
            external.permit(&self.permitted);
        }
        self.hold = hold;
        self.limits.leases_per_subscriber = limits.leases_per_subscriber;
        self.limits.subscribers = limits.subscribers;
        self.subscribers.set_most(limits.subscribers);
        true
    }

    /// Removes an external address with its leases, waiting ports and reservations; false if it was not there. The caller
    /// flushes the connections that use it; releasing their leases afterwards does nothing.
    pub fn remove(&mut self, address: A) -> bool {
        let Ok(at) = self.position(address) else { return false };
        let external = self.externals.remove(at);
        self.waiting.forget_address(address);
        self.subscribers.forget_external(address);
        for (inside, ports) in external.blocks.iter().flat_map(AddressBlocks::assigned) {
            self.record(BlockEventKind::Returned, inside, address, ports);
        }
        true
    }

    /// Whether `address` is one of the external addresses.
    pub fn contains(&self, address: A) -> bool {
        self.position(address).is_ok()
    }

    /// The external addresses, in order.
    pub fn addresses(&self) -> impl Iterator<Item = A> {
        self.externals.iter().map(|external| external.address)
    }

    /// Where the address stands, or belongs.
    pub(super) fn position(&self, address: A) -> Result<usize, usize> {
        self.externals.binary_search_by_key(&address, |external| external.address)
    }

    pub(super) fn external(&self, address: A) -> Option<&External<A>> {
        self.externals.get(self.position(address).ok()?)
    }

    fn external_mut(&mut self, address: A) -> Option<&mut External<A>> {
        let at = self.position(address).ok()?;
        self.externals.get_mut(at)
    }

    /// Takes what was chosen. It is gone if anything that the choice rested on has changed: then nothing is taken.
    pub fn take(&mut self, choice: Choice<A>, owner: u32) -> Result<Lease<A>, NotTaken> {
        if owner >= OWNERS {
            return Err(NotTaken::Owner);
        }
        let lease = choice.lease();
        let subscriber = self.admit(lease.inside).map_err(|_| NotTaken::Gone)?;
        if subscriber.is_some_and(|subscriber| subscriber.external != lease.external) {
            return Err(NotTaken::Gone);
        }
        let blocks = subscriber.map_or(0, |subscriber| subscriber.blocks().len());
        self.occupy(lease, choice.kind(), blocks, owner).ok_or(NotTaken::Gone)?;
        self.counters.taken += 1;
        let subscriber = self.subscribers.enter(lease.inside, lease.external);
        subscriber.leases += 1;
        match choice.kind() {
            Kind::Free => {}
            Kind::Shared => self.counters.shared += 1,
            Kind::NewBlock(block) => {
                subscriber.add_block(block.number);
                self.record(BlockEventKind::Assigned, lease.inside, lease.external, block.ports);
            }
        }
        Ok(lease)
    }

    /// Everything about a new lease that concerns its external address; `None` and no change if it cannot be. The subscriber
    /// `had` so many blocks so far.
    fn occupy(&mut self, lease: Lease<A>, kind: Kind, had: usize, owner: u32) -> Option<()> {
        let at = self.position(lease.external).ok()?;
        let external = self.externals.get_mut(at)?;
        if let Some(blocks) = &external.blocks {
            let stands = match kind {
                Kind::Free => blocks.tenant(blocks.of(lease.port)) == Some(lease.inside),
                Kind::NewBlock(block) => block.had == had && blocks.is_free(block.number),
                Kind::Shared => false,
            };
            if !stands {
                return None;
            }
        }
        let space = external.make_space(lease.protocol, &self.permitted);
        let taken = match kind {
            Kind::Free | Kind::NewBlock(_) => space.take(lease.port, owner),
            Kind::Shared => space.share(lease.port, owner),
        };
        if !taken {
            return None;
        }
        external.leases += 1;
        if let Some(blocks) = &mut external.blocks {
            let block = blocks.of(lease.port);
            if blocks.is_free(block) {
                blocks.assign(block, lease.inside);
            }
            blocks.occupy(block);
        }
        Some(())
    }

    /// Ends a lease of `owner`, as [`Self::take`] returned it; false, and nothing changes, if `owner` does not hold the port. A port that nobody else holds waits if `hold` says
    /// so, else it is free at once, as it may be where a state machine saw the connection close, where the filter depends on
    /// the destination, and where ports are assigned by arithmetic (RFC 6888 REQ-8).
    pub fn release(&mut self, lease: Lease<A>, owner: u32, now: Duration, hold: bool) -> bool {
        let Lease { inside, external: address, protocol, port } = lease;
        let Some(external) = self.external_mut(address) else { return false };
        let Some(space) = external.space_mut(protocol) else { return false };
        let left = space.let_go(port, owner);
        if left == Left::NotHeld {
            return false;
        }
        external.leases = external.leases.saturating_sub(1);
        self.counters.released += 1;
        self.subscribers.end_lease(inside);
        if left == Left::Shared {
            return true;
        }
        let waiting = Waiting { address, protocol, port, until: now.saturating_add(self.hold) };
        if !hold || self.hold.is_zero() {
            self.set_free(waiting);
        } else if let Some(oldest) = self.waiting.push(waiting) {
            self.counters.hold_cut_short += 1;
            self.set_free(oldest);
        }
        true
    }

    /// Sets those ports free whose wait is over. Costs nothing while none is, and else about what their release has cost.
    pub fn expire(&mut self, now: Duration) {
        while let Some(waiting) = self.waiting.pop(now) {
            self.set_free(waiting);
        }
    }

    /// When the next port's wait is over.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.waiting.next()
    }

    fn set_free(&mut self, waiting: Waiting<A>) {
        let Some(external) = self.external_mut(waiting.address) else { return };
        if let Some(space) = external.space_mut(waiting.protocol) {
            space.free_waiting(waiting.port);
        }
        self.leave_block(waiting.address, waiting.port);
    }

    /// A port is neither leased nor held down any more.
    fn leave_block(&mut self, address: A, port: u16) {
        let Some(blocks) = self.external_mut(address).and_then(|external| external.blocks.as_mut()) else {
            return;
        };
        let block = blocks.of(port);
        let ports = blocks.range(block);
        if let Some(inside) = blocks.vacate(block) {
            self.subscribers.end_block(inside, block);
            self.record(BlockEventKind::Returned, inside, address, ports);
        }
    }

    fn record(&mut self, kind: BlockEventKind, inside: A, external: A, ports: PortRange) {
        if self.events.len() < self.limits.block_events as usize {
            self.events.push_back(BlockEvent { kind, inside, external, ports });
        } else {
            self.counters.block_events_lost += 1;
        }
    }

    /// What happened to blocks since this was last asked.
    pub fn block_events(&mut self) -> impl Iterator<Item = BlockEvent<A>> {
        self.events.drain(..)
    }

    /// Whom a packet to an external port belongs to: the port's owner, the first of them if it [is shared](Self::is_shared).
    #[inline]
    pub fn owner(&self, external: A, protocol: Protocol, port: u16) -> Option<u32> {
        self.external(external)?.space(protocol)?.owner(port)
    }

    /// Whether a port has several holders, who differ in their destinations.
    pub fn is_shared(&self, external: A, protocol: Protocol, port: u16) -> bool {
        self.external(external).and_then(|e| e.space(protocol)).is_some_and(|space| space.is_shared(port))
    }

    /// Hands a lease from one owner to another; false if `from` does not hold it, `to` does already, or is no owner.
    pub fn set_owner(&mut self, lease: Lease<A>, from: u32, to: u32) -> bool {
        let space = self.external_mut(lease.external).and_then(|e| e.space_mut(lease.protocol));
        to < OWNERS && space.is_some_and(|space| space.set_owner(lease.port, from, to))
    }

    /// Keeps a port from being leased, be it permitted or not: for a local socket, or for traffic forwarded statically. False
    /// if the port is leased or reserved, or the address none of the pool's. Ends the port's wait, after a look at all that
    /// wait.
    pub fn reserve(&mut self, external: A, protocol: Protocol, port: u16) -> bool {
        let Ok(at) = self.position(external) else { return false };
        let space = self.externals[at].make_space(protocol, &self.permitted);
        let waited = space.is_waiting(port);
        let reserved = space.reserve(port);
        if waited {
            self.waiting.forget(external, protocol, port);
            self.leave_block(external, port);
        }
        reserved
    }

    /// Ends a reservation; false if there is none.
    pub fn unreserve(&mut self, external: A, protocol: Protocol, port: u16) -> bool {
        let space = self.external_mut(external).and_then(|e| e.space_mut(protocol));
        space.is_some_and(|space| space.unreserve(port))
    }

    /// Counts a refusal: `choose` cannot, as it changes nothing.
    pub const fn count_refusal(&mut self, refused: Refused) {
        let counter = match refused {
            Refused::Exhausted => &mut self.counters.exhausted,
            Refused::Quota => &mut self.counters.quota,
            Refused::Subscribers => &mut self.counters.subscribers,
            Refused::Unmapped => &mut self.counters.unmapped,
        };
        *counter += 1;
    }

    /// What was counted.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Ports that can be leased now on one of the pool's addresses.
    pub fn free(&self, external: A, protocol: Protocol) -> u32 {
        self.external(external).map_or(0, |e| e.free(protocol, &self.permitted).len())
    }

    /// Ports in hold-down.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Inside addresses with leases or blocks.
    pub fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Leases of one inside address.
    pub fn leases_of(&self, inside: A) -> u32 {
        self.subscribers.get(inside).map_or(0, |subscriber| subscriber.leases)
    }

    /// Bytes that the spaces have allocated, holders of shared ports aside.
    pub fn memory(&self) -> usize {
        self.externals.iter().map(External::memory).sum()
    }
}
