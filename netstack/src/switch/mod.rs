//! The switch: eats batches of frames and a time, gives back batches of frames.
//!
//! # Theory of operation
//! A frame of a flow that is known leaves as those before it (`fast`). Any other is *admitted* (port and VLAN to segment,
//! headers parsed, sender checked), passes the *gate* (loops, storms), its source is *learned*, the slow path *decides* about
//! it without changing anything, and the decision is *committed*: rewritten, queued, parked, answered or dropped, and
//! counted. [`Switch::explain`] runs the same admission and decision and commits nothing.
//!
//! The five verbs may be called in any order and at any time:
//!
//! | verb | does |
//! |---|---|
//! | [`handle_frames`](Switch::handle_frames) | takes in a batch that came from a port |
//! | [`handle_timeout`](Switch::handle_timeout) | does what is due |
//! | [`poll_transmit`](Switch::poll_transmit) | gives a batch for one port |
//! | [`poll_timeout`](Switch::poll_timeout) | says when something will be due |
//! | [`poll_event`](Switch::poll_event) | tells what changed |
//!
//! Every frame is accounted for: see [`Counters::check`].

mod admit;
mod bridging;
mod commit;
mod connections;
mod discovery;
mod explain;
mod fast;
mod flows;
mod layer3;
mod listing;
mod output;
mod own;
mod policy;
mod port;
mod protect;
mod remember;
mod service;
mod slow;
mod track;
mod waiting;

pub use connections::PolicyCounters;
pub use explain::{Stage, Step, Trace};
pub use listing::{ConnectionEntry, PortUse};

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use lb::Balancer;
use lb::hash::FlowHash;
use nat::Nat;

use self::connections::{Connections, Passage, Tracked};
use self::explain::Silent;
use self::flows::Flows;
use self::port::PortState;
use self::protect::Moves;
use self::waiting::Waiting;
use crate::addr::{PortId, SegmentId};
use crate::bridge::{Fdb, LoopAction, LoopGuard};
use crate::config::{Gateway, Limits, Port, Segment, Snapshot};
use crate::counters::Counters;
use crate::event::Event;
use crate::frame::{Frame, FrameBatch, FramePool};
use crate::icmp::RateLimiter;
use crate::neighbor::{
    Advertiser, ClaimAction, Claims, ConflictCounters, Defence, NeighborAction, NeighborTimers, Neighbors,
    Parked,
};
use crate::seed::Seed;
use crate::verdict::{DropReason, EgressDrop, Fate};

/// Timer actions per call of [`Switch::handle_timeout`].
const TIMEOUT_BUDGET: usize = 256;
/// How often, and how many entries at a time, the MAC table is swept for aged ones. A full sweep of the default table
/// takes a minute; lookups honour the age by themselves.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const SWEEP_SLOTS: usize = 256;

/// A switch: bridge, neighbours and router in one object, owned by one thread, without I/O, clock or randomness.
#[derive(Debug)]
pub struct Switch {
    snapshot: Arc<Snapshot>,
    limits: Limits,
    pool: FramePool,
    ports: Vec<PortState>,
    /// Ports with frames to send, each at most once, served in turn.
    ready: VecDeque<PortId>,
    fdb: Fdb,
    neighbors: Neighbors,
    parked: Parked<Waiting>,
    limiter: RateLimiter,
    loops: LoopGuard,
    moves: Moves,
    claims: Claims,
    defence: Defence,
    advertiser: Advertiser,
    /// Where the configuration asks for them.
    connections: Option<Box<Connections>>,
    connections_seed: u64,
    flows: Flows,
    flow_hash: FlowHash,
    events: VecDeque<Event>,
    events_lost: u64,
    /// When it was last told that no more neighbours are resolved.
    neighbors_full_told: Option<Duration>,
    /// When it was last told that connections are refused.
    refusals_told: Option<Duration>,
    denials_told: [Option<Duration>; service::DENIALS.len()],
    next_sweep: Duration,
    /// What time it was last, for what is asked without being told it.
    seen: Duration,
    /// Scratch for frames being cut.
    pieces: Vec<Frame>,
    segments: Vec<Frame>,
    actions: Vec<NeighborAction>,
    loop_actions: Vec<LoopAction>,
    claim_actions: Vec<ClaimAction>,
    advertise_on: Vec<SegmentId>,
}

impl Switch {
    /// A switch that carries nothing until [`Switch::install`] names its ports. Takes the memory for its tables at once.
    pub fn new(limits: Limits, seed: &Seed, pool: FramePool) -> Self {
        Self {
            snapshot: Snapshot::empty(),
            limits,
            pool,
            ports: Vec::new(),
            ready: VecDeque::new(),
            fdb: Fdb::new(&limits, seed),
            neighbors: Neighbors::new(&limits, seed, NeighborTimers::default()),
            parked: Parked::new(&limits),
            limiter: RateLimiter::new(limits.icmp_errors_per_second, seed),
            loops: LoopGuard::new(seed),
            moves: Moves::default(),
            claims: Claims::new(seed),
            defence: Defence::new(seed),
            advertiser: Advertiser::new(seed),
            connections: None,
            connections_seed: seed.derive("connections"),
            flows: Flows::new(limits.flows, seed),
            flow_hash: FlowHash::new(flow_key(seed)),
            events: VecDeque::with_capacity(limits.events as usize),
            events_lost: 0,
            neighbors_full_told: None,
            refusals_told: None,
            denials_told: [None; service::DENIALS.len()],
            next_sweep: SWEEP_INTERVAL,
            seen: Duration::ZERO,
            pieces: Vec::with_capacity(64),
            segments: Vec::with_capacity(64),
            actions: Vec::with_capacity(TIMEOUT_BUDGET),
            loop_actions: Vec::new(),
            claim_actions: Vec::new(),
            advertise_on: Vec::new(),
        }
    }

    /// Decides about a frame, and does what was decided.
    fn handle_frame(&mut self, snapshot: &Snapshot, now: Duration, port: PortId, mut frame: Frame) {
        match admit::admit(snapshot, port, &mut frame, &mut Silent) {
            Ok(arrival) => match self.gate(now, &arrival, &frame, &mut Silent) {
                Some(stopped) => {
                    self.commit(snapshot, now, &arrival, &Tracked::Not, stopped, &Passage::Plain, frame);
                }
                None => {
                    self.learn(now, &arrival);
                    self.pass(snapshot, now, &arrival, frame);
                }
            },
            Err(reason) => self.drop_frame(port, frame, reason),
        }
    }

    /// Does what is due by `now`; bounded work, so call again while [`Switch::poll_timeout`] is not after `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        let snapshot = Arc::clone(&self.snapshot);
        self.seen = now;
        self.neighbor_timeouts(&snapshot, now);
        self.protection_timeouts(&snapshot, now);
        self.own_timeouts(&snapshot, now);
        if let Some(connections) = &mut self.connections {
            connections.expire(now);
            self.drop_lost();
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.fdb.sweep(now, SWEEP_SLOTS);
        }
    }

    /// Moves frames for one port into `batch` (which may hold frames already) and names the port; `None` when nothing
    /// is to be sent. Ports are served in turn.
    pub fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        if batch.is_full() {
            return None;
        }
        let id = self.next_ready()?;
        let state = self.port_mut(id);
        state.fill(batch);
        if state.queue.is_empty() {
            state.queue.ready = false;
        } else {
            self.ready.push_back(id);
        }
        Some(id)
    }

    /// The port whose turn it is; those whose queue was emptied by their removal lose theirs.
    fn next_ready(&mut self) -> Option<PortId> {
        loop {
            let id = self.ready.pop_front()?;
            let queue = &mut self.port_mut(id).queue;
            if !queue.is_empty() {
                return Some(id);
            }
            queue.ready = false;
        }
    }

    /// When [`Switch::handle_timeout`] has something to do next, in the epoch of `now`; `None` when nothing is pending.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let sweep = (!self.fdb.is_empty()).then_some(self.next_sweep);
        let pending = [
            self.neighbors.next_timeout(),
            sweep,
            self.loops.next_timeout(),
            self.moves.next_timeout(),
            self.claims.next_timeout(),
            self.advertiser.next_timeout(),
            self.connections.as_ref().and_then(|connections| connections.next_timeout(self.seen)),
        ];
        pending.into_iter().flatten().min()
    }

    /// The oldest event not yet told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Swaps the configuration and returns the old one, to be dropped wherever that disturbs nobody. Ports that are no
    /// longer named, or that lead to another segment or device, lose what they had queued; what was learned behind ports
    /// and segments that changed is forgotten.
    pub fn install(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let old = core::mem::replace(&mut self.snapshot, snapshot);
        let new = Arc::clone(&self.snapshot);
        let same_network = old.differs_in_services_alone(&new);
        if !same_network {
            self.configure_network(&old, &new);
        }
        // Who stands for a service, its connections say.
        let same_rules = old.has_services_like(&new) && old.has_policies_of(&new);
        match new.difference_from(&old) {
            _ if same_rules && same_network => {}
            Some(difference) if same_rules => self.flows.change(difference),
            Some(_) | None => self.flows.forget(),
        }
        self.configure_connections(&new);
        self.event(Event::Installed { generation: new.generation() });
        old
    }

    /// Takes up what a new configuration says about ports, segments and the router.
    fn configure_network(&mut self, old: &Snapshot, new: &Snapshot) {
        let stays = |id| matches!((old.port(id), new.port(id)), (Some(a), Some(b)) if core::ptr::eq(a, b));
        self.fdb.flush_ports(|id| !stays(id));
        for port in old.ports().filter(|port| !stays(port.id())) {
            if new.port(port.id()).is_none_or(|kept| !kept.carries_like(port)) {
                self.purge(port.id(), EgressDrop::PortClosed);
                self.loops.forget(port.id());
            }
        }
        for segment in old.segments() {
            // Which stations are on the link, its prefixes say; who has one address more or less has the same neighbours.
            let links = |segment: &Segment| segment.gateway().map(Gateway::links);
            if new.segment(segment.id()).is_none_or(|kept| links(kept) != links(segment)) {
                self.forget_neighbors(segment.id());
            }
        }
        for port in new.ports() {
            self.port_mut(port.id());
        }
        self.loops.watch(new.ports().filter(|p| p.is_loop_guarded()).map(Port::id));
        self.configure_own(old, new);
    }

    /// Takes up what a new configuration says about connections. Those that have begun stay, but for those with an
    /// external address that is no more; where none are asked for any more, all are forgotten.
    fn configure_connections(&mut self, new: &Snapshot) {
        let Some(translator) = new.translator() else {
            if let Some(connections) = &mut self.connections {
                connections.close();
                self.drop_lost();
                self.connections = None;
            }
            return;
        };
        let (limits, seed, now) = (&self.limits, self.connections_seed, self.seen);
        let connections =
            self.connections.get_or_insert_with(|| Box::new(Connections::new(limits, translator, seed)));
        connections.configure(translator, new.services(), new.policies(), now);
    }

    fn forget_neighbors(&mut self, segment: SegmentId) {
        let mut slots = Vec::new();
        self.neighbors.flush_segment(segment, &mut |slot| slots.push(slot));
        slots.into_iter().for_each(|slot| self.abandon(slot));
    }

    /// Throws away what was queued for a port that is no more what it was.
    fn purge(&mut self, id: PortId, reason: EgressDrop) {
        while let Some(frame) = self.port_mut(id).queue.pop() {
            self.counters_mut(id).egress_drops[reason.index()][frame.origin.index()] += 1;
            self.pool.recycle(frame);
        }
    }

    /// Says, without changing anything, where a frame from `port` would go at `now` and why.
    pub fn explain(&self, now: Duration, port: PortId, frame: &[u8]) -> Trace {
        explain::explain(self, now, port, frame)
    }

    /// The installed configuration.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The bounds it was built with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where its frames come from; a driver fills batches from here.
    pub fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    /// Learned MAC addresses.
    pub fn fdb(&self) -> &Fdb {
        &self.fdb
    }

    /// Learned neighbours.
    pub fn neighbors(&self) -> &Neighbors {
        &self.neighbors
    }

    /// Counters of one port; `None` if it never existed.
    pub fn port_counters(&self, id: PortId) -> Option<&Counters> {
        self.ports.get(usize::from(id.0)).map(|p| &p.counters)
    }

    /// Counters of all ports together, those of closed ones included.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for port in &self.ports {
            sum.add(&port.counters);
        }
        sum
    }

    /// Frames in output queues.
    pub fn queued(&self) -> usize {
        self.ports.iter().map(|p| p.queue.len()).sum()
    }

    /// Fragments waiting for the first of their datagram.
    pub fn held(&self) -> usize {
        self.connections.as_ref().map_or(0, |connections| connections.held())
    }

    /// The connections of IPv4 and of IPv6; none if no configuration has asked for them.
    pub fn connections(&self) -> Option<(&Nat<Ipv4Addr>, &Nat<Ipv6Addr>)> {
        self.connections.as_ref().map(|connections| connections.nats())
    }

    /// What chooses backends for the clients of services, and remembers whose client is whose; none if no configuration has
    /// asked for services.
    pub fn balancer(&self) -> Option<&Balancer> {
        self.connections.as_ref().and_then(|connections| connections.balancer())
    }

    /// Connections that services have given a backend since the beginning. Those refused are counted by reason, among the
    /// drops.
    pub fn balanced(&self) -> u64 {
        self.connections.as_ref().map_or(0, |connections| connections.balanced())
    }

    /// Frames that have left as those of their flow before them, without being decided about.
    pub fn known(&self) -> u64 {
        self.flows.known
    }

    /// Frames waiting for neighbours.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Until when a port is blocked because it is part of a loop, if it is.
    pub fn blocked_until(&self, port: PortId) -> Option<Duration> {
        self.loops.blocked_until(port)
    }

    /// What became of claims to addresses in use here.
    pub fn conflicts(&self) -> ConflictCounters {
        self.defence.counters()
    }

    /// Events that nobody polled in time.
    pub fn events_lost(&self) -> u64 {
        self.events_lost
    }

    /// Whether every frame is accounted for at this moment.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check(&self) -> Result<(), String> {
        self.counters().check(self.queued() as u64, self.parked() as u64, self.held() as u64)
    }

    fn port_mut(&mut self, id: PortId) -> &mut PortState {
        let index = usize::from(id.0);
        if index >= self.ports.len() {
            let limits = self.limits;
            self.ports.resize_with(index + 1, || PortState::new(&limits));
        }
        &mut self.ports[index]
    }

    fn counters_mut(&mut self, id: PortId) -> &mut Counters {
        &mut self.port_mut(id).counters
    }

    fn count_fate(&mut self, port: PortId, fate: Fate) {
        self.counters_mut(port).fates[fate.index()] += 1;
    }

    fn drop_frame(&mut self, port: PortId, frame: Frame, reason: DropReason) {
        let counters = self.counters_mut(port);
        counters.fates[Fate::Dropped.index()] += 1;
        counters.drops[reason.index()] += 1;
        self.pool.recycle(frame);
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= self.limits.events as usize {
            self.events.pop_front();
            self.events_lost += 1;
        }
        self.events.push_back(event);
    }
}

// It may go from thread to thread, and several may look at it.
const _: () = {
    const fn is_for_threads<T: Send + Sync>() {}
    is_for_threads::<Switch>();
};

fn flow_key(seed: &Seed) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&seed.derive("flow hash").to_le_bytes());
    key[8..].copy_from_slice(&seed.derive("flow hash, second half").to_le_bytes());
    key
}
