//! The table of TCP connections and listeners, and what makes them move.
//!
//! # Theory of operation
//! - *Connections* live in a table keyed by both ends, so that a segment finds its own in one lookup. *Listeners* live in
//!   a second one, looked up by address and port, then by port alone, when a SYN belongs to no connection.
//! - A SYN makes a connection whose smoltcp socket listens on exactly that address and port and is fed the SYN. From then
//!   until it is accepted it counts against the listener's backlog.
//! - A connection that may have something to send stands once in the *ready* queue; [`Connections::run`] lets it send a
//!   few segments at a time, and then puts it among the [`Deadlines`] if time alone can wake it. Handles of connections
//!   that are gone are skipped when their turn comes, and swept out before they outnumber the living.
//! - A connection that is over and wanted by nobody leaves the table; its buffers go to a small stock for the next.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use smoltcp::socket::tcp::State;

use super::config::{HostConfig, HostTimers};
use super::event::{HostEvent, IcmpError, Quoted};
use super::flow::{Flow, Opening, Tuple};
use super::lingering::Lingering;
use super::link::Link;
use super::segment::{Segment, flag, sequence};
use super::table::{Handle, Table};
use super::tcp::{ConnectError, TcpError, TcpHandle, TcpListener};
use super::timer::Deadlines;
use super::{BindError, EPHEMERAL_PORTS, ephemeral_port};
use crate::parse::Ip;
use crate::seed::{Rng, Seed};

/// Segments that a connection sends before the next one has its turn.
const TURN: usize = 16;

/// The largest distance between the local ports of two connections in a row.
const PORT_STEP: u32 = 16;
/// Handles in a queue from which on it is worth looking for those of connections that are gone.
const SWEEP_FROM: usize = 64;

/// What a listener listens on; the unspecified address stands for all of its family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ListenKey {
    pub(super) address: IpAddr,
    pub(super) l4_port: u16,
}

#[derive(Debug)]
struct Listener {
    /// Connections in their handshake or not yet accepted.
    pending: usize,
    established: VecDeque<u32>,
    told: bool,
}

/// What became of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    Yes,
    NoListener,
    BacklogFull,
    TableFull,
}

#[derive(Debug)]
pub(super) struct Connections {
    flows: Table<Tuple, Box<Flow>>,
    listeners: Table<ListenKey, Listener>,
    #[expect(clippy::vec_box, reason = "a flow moves between the stock and the table without being copied")]
    idle: Vec<Box<Flow>>,
    ready: VecDeque<Handle>,
    deadlines: Deadlines,
    told: VecDeque<Handle>,
    told_listeners: VecDeque<Handle>,
    lingering: Lingering,
    rng: Rng,
    next_port: u32,
    timers: HostTimers,
    backlog: usize,
    idle_limit: usize,
}

impl Connections {
    pub(super) fn new(config: &HostConfig, seed: &Seed) -> Self {
        let limits = &config.limits;
        let mut rng = seed.rng("host tcp sequence numbers and ports");
        Self {
            next_port: rng.below(EPHEMERAL_PORTS),
            flows: Table::new(limits.tcp_flows, seed.hasher("host tcp")),
            listeners: Table::new(limits.tcp_listeners, seed.hasher("host tcp listeners")),
            idle: Vec::with_capacity(limits.idle_flows),
            ready: VecDeque::new(),
            deadlines: Deadlines::new(limits.tcp_flows),
            told: VecDeque::new(),
            told_listeners: VecDeque::new(),
            lingering: Lingering::default(),
            rng,
            timers: config.timers,
            backlog: limits.backlog,
            idle_limit: limits.idle_flows,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn flow(&mut self, handle: Handle) -> Option<(u32, &mut Flow)> {
        self.flows.of(handle).map(|flow| (handle.slot, &mut **flow))
    }

    pub(super) fn peek(&self, handle: Handle) -> Option<&Flow> {
        self.flows.at(self.flows.live(handle)?).map(|(_, flow)| &**flow)
    }

    pub(super) fn connect(
        &mut self,
        link: &mut Link,
        config: &HostConfig,
        remote: SocketAddr,
    ) -> Result<Handle, ConnectError> {
        let address = remote.ip();
        if remote.port() == 0
            || address.is_unspecified()
            || address.is_multicast()
            || link.is_broadcast(address)
        {
            return Err(ConnectError::InvalidDestination);
        }
        let source = link.source_for(address).ok_or(ConnectError::NoRoute)?;
        if !link.has_route(address) {
            return Err(ConnectError::NoRoute);
        }
        if !self.make_room(link) {
            link.counters.connects_refused += 1;
            return Err(ConnectError::TableFull);
        }
        let remote = SocketAddr::new(address, remote.port());
        // Random increments (RFC 6056 section 3.3.5): hard to foresee, and a port does not come back while the other side
        // still has it in TIME-WAIT.
        self.next_port = (self.next_port + 1 + self.rng.below(PORT_STEP)) % EPHEMERAL_PORTS;
        let tuple = (self.next_port..self.next_port + EPHEMERAL_PORTS)
            .map(|place| Tuple { local: SocketAddr::new(source, ephemeral_port(place)), remote })
            .find(|tuple| self.flows.slot(tuple).is_none())
            .ok_or(ConnectError::NoFreePort)?;
        let handle = self.add(link, config, tuple, &Opening::Connect).ok_or(ConnectError::TableFull)?;
        self.mark_ready(handle.slot);
        Ok(handle)
    }

    fn add(
        &mut self,
        link: &mut Link,
        config: &HostConfig,
        tuple: Tuple,
        opening: &Opening,
    ) -> Option<Handle> {
        if !self.make_room(link) {
            return None;
        }
        let mut flow = self.idle.pop().unwrap_or_else(|| Flow::new(tuple, config, link));
        flow.open(tuple, opening, self.rng.next_u64(), config, link);
        self.flows.insert(tuple, flow).ok()
    }

    /// Whether there is room for one more connection, which one in TIME-WAIT may have to make.
    fn make_room(&mut self, link: &mut Link) -> bool {
        if self.flows.is_full()
            && let Some(slot) = self.lingering.oldest(&mut self.flows)
        {
            link.counters.time_waits_shortened += 1;
            self.forget(slot);
        }
        !self.flows.is_full()
    }

    pub(super) fn listen(&mut self, key: ListenKey) -> Result<Handle, BindError> {
        if key.l4_port == 0 {
            return Err(BindError::InvalidPort);
        }
        if self.listeners.slot(&key).is_some() {
            return Err(BindError::InUse);
        }
        let listener = Listener { pending: 0, established: VecDeque::new(), told: false };
        self.listeners.insert(key, listener).map_err(|_| BindError::TableFull)
    }

    pub(super) fn accept(&mut self, listener: Handle) -> Option<Handle> {
        let listener = self.listeners.of(listener)?;
        let slot = listener.established.pop_front()?;
        listener.pending -= 1;
        let (_, flow) = self.flows.at_mut(slot)?;
        flow.listener = None;
        // What arrived before has been told to nobody.
        self.tell(slot);
        Some(self.flows.handle(slot))
    }

    /// Connections that wait to be accepted.
    pub(super) fn incoming(&self, listener: Handle) -> usize {
        let slot = self.listeners.live(listener);
        slot.and_then(|slot| self.listeners.at(slot)).map_or(0, |(_, listener)| listener.established.len())
    }

    pub(super) fn unlisten(&mut self, listener: Handle) {
        let Some(slot) = self.listeners.live(listener) else { return };
        self.listeners.remove_at(slot);
        self.told_listeners.retain(|&told| told != listener);
        let orphans: Vec<u32> = self
            .flows
            .iter()
            .filter_map(|(flow_slot, _, flow)| (flow.listener == Some(slot)).then_some(flow_slot))
            .collect();
        for orphan in orphans {
            if let Some((_, flow)) = self.flows.at_mut(orphan) {
                flow.listener = None;
                flow.released = true;
                flow.fail(TcpError::Aborted);
            }
            self.mark_ready(orphan);
        }
    }

    /// Puts a connection in the queue of those that may have something to send.
    pub(super) fn mark_ready(&mut self, slot: u32) {
        let Some((_, flow)) = self.flows.at_mut(slot) else { return };
        if !core::mem::replace(&mut flow.ready, true) {
            self.ready.push_back(self.flows.handle(slot));
        }
    }

    /// Moves the connections whose time has come into the ready queue, `most` at a time.
    pub(super) fn expire(&mut self, now: Duration, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.deadlines.pop_due(now) else { return };
            self.mark_ready(slot);
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadlines.earliest()
    }

    /// Lets the next ready connection send; returns whether there was one.
    pub(super) fn run(&mut self, link: &mut Link) -> bool {
        let Some(handle) = self.ready.pop_front() else { return false };
        let (slot, timers) = (handle.slot, self.timers);
        let Some(flow) = self.flows.of(handle) else { return true };
        flow.ready = false;
        if flow.released && flow.socket().can_recv() {
            flow.fail(TcpError::Aborted);
        }
        let patience = flow.check_patience(link.now, &timers);
        let sent = (0..TURN).take_while(|_| flow.transmit(link)).count();
        let deadline = match flow.wake_at(link.now) {
            _ if sent == TURN => None,
            Some(at) => Some(patience.map_or(at, |patience| at.min(patience))),
            None => patience,
        };
        self.deadlines.set(slot, deadline);
        if sent == TURN {
            self.mark_ready(slot);
        }
        self.conclude(link, slot);
        true
    }

    /// Takes in a segment to an address of ours. `packet` begins at the IP header.
    pub(super) fn handle(
        &mut self,
        link: &mut Link,
        config: &HostConfig,
        ip: &Ip,
        segment: Segment,
        packet: &[u8],
    ) -> Taken {
        let Segment { source_port, destination_port, flags } = segment;
        let tuple = Tuple {
            local: SocketAddr::new(ip.destination, destination_port),
            remote: SocketAddr::new(ip.source, source_port),
        };
        let opens = flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
        let header = ip.transport_offset - ip.offset;
        if let Some(slot) = self.flows.slot(&tuple) {
            if !(opens && self.may_reopen(slot, sequence(packet, header))) {
                self.feed(link, slot, flags, header, packet);
                return Taken::Yes;
            }
            self.forget(slot);
        }
        let listener = self.listener_for(ip.destination, destination_port).filter(|_| source_port != 0);
        let Some(listener) = listener.filter(|_| opens) else {
            return Taken::NoListener;
        };
        let backlog = self.backlog;
        let Some((_, waiting)) = self.listeners.at_mut(listener) else { return Taken::NoListener };
        if waiting.pending >= backlog {
            return Taken::BacklogFull;
        }
        let Some(handle) = self.add(link, config, tuple, &Opening::Listen) else { return Taken::TableFull };
        if let Some((_, waiting)) = self.listeners.at_mut(listener) {
            waiting.pending += 1;
        }
        if let Some((_, flow)) = self.flows.at_mut(handle.slot) {
            flow.listener = Some(listener);
        }
        self.feed(link, handle.slot, flags, header, packet);
        Taken::Yes
    }

    /// Whether a SYN may take the place of a connection in TIME-WAIT: one that begins behind the old one's end (RFC 9293
    /// section 3.10.7.4).
    fn may_reopen(&self, slot: u32, sequence: u32) -> bool {
        let Some((_, flow)) = self.flows.at(slot) else { return false };
        let newer = |end: u32| sequence.wrapping_sub(end).wrapping_sub(1) < 1 << 31;
        let read = flow.released || (flow.closed_by_owner && !flow.socket().can_recv());
        flow.state() == State::TimeWait && read && flow.fin_sequence.is_some_and(newer)
    }

    fn listener_for(&self, address: IpAddr, l4_port: u16) -> Option<u32> {
        let any = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        self.listeners
            .slot(&ListenKey { address, l4_port })
            .or_else(|| self.listeners.slot(&ListenKey { address: any, l4_port }))
    }

    fn feed(&mut self, link: &mut Link, slot: u32, flags: u8, header: usize, packet: &[u8]) {
        let Some((_, flow)) = self.flows.at_mut(slot) else { return };
        let before = flow.state();
        if flags & flag::FIN != 0 {
            let data = packet.len() - header - usize::from(packet[header + 12] >> 4) * 4;
            let end = u32::try_from(data).unwrap_or(0).wrapping_add(1);
            flow.fin_sequence = Some(sequence(packet, header).wrapping_add(end));
        }
        flow.receive(packet, link);
        if flags & flag::RST != 0 && flow.state() == State::Closed && before != State::Closed {
            let error = if before == State::SynSent { TcpError::Refused } else { TcpError::Reset };
            // A RST after TIME-WAIT or our last FIN takes nothing away: everything was delivered.
            if before != State::TimeWait {
                flow.error.get_or_insert(error);
            }
        }
        self.tell(slot);
        self.finish(link, slot);
    }

    /// After something happened to a connection: draws the consequences and gives it its turn to send.
    pub(super) fn finish(&mut self, link: &mut Link, slot: u32) {
        self.mark_ready(slot);
        self.conclude(link, slot);
    }

    /// Draws the consequences of a connection's state: into the accept queue, to its owner's attention, or out of the
    /// table.
    fn conclude(&mut self, link: &mut Link, slot: u32) {
        let Some((_, flow)) = self.flows.at_mut(slot) else { return };
        let changed = flow.note_state(link.now);
        let state = flow.state();
        // A RST in the handshake sends smoltcp's socket back to listening.
        let over = flow.is_over() || state == State::Listen;
        let (listener, forgettable) = (flow.listener, flow.is_forgettable());
        if over && (listener.is_some() || forgettable) {
            self.forget(slot);
            return;
        }
        if changed {
            self.tell(slot);
        }
        if changed && state == State::TimeWait {
            self.lingering.push(self.flows.handle(slot));
        }
        if let Some(listener) = listener
            && changed
            && matches!(state, State::Established | State::CloseWait)
        {
            self.tell_listener(listener, slot);
        }
    }

    fn tell_listener(&mut self, listener: u32, slot: u32) {
        let handle = self.listeners.handle(listener);
        let Some((_, waiting)) = self.listeners.at_mut(listener) else { return };
        // A connection that goes on to CLOSE-WAIT stands in the queue already.
        if !waiting.established.contains(&slot) {
            waiting.established.push_back(slot);
            if !core::mem::replace(&mut waiting.told, true) {
                self.told_listeners.push_back(handle);
            }
        }
    }

    fn tell(&mut self, slot: u32) {
        let handle = self.flows.handle(slot);
        if let Some((_, flow)) = self.flows.at_mut(slot)
            && flow.listener.is_none()
            && !flow.released
            && !core::mem::replace(&mut flow.told, true)
        {
            self.told.push_back(handle);
        }
    }

    /// A connection or listener that has something to tell.
    pub(super) fn poll_event(&mut self) -> Option<HostEvent> {
        while let Some(handle) = self.told_listeners.pop_front() {
            if let Some(listener) = self.listeners.of(handle) {
                listener.told = false;
                return Some(HostEvent::TcpIncoming(TcpListener(handle)));
            }
        }
        while let Some(handle) = self.told.pop_front() {
            if let Some(flow) = self.flows.of(handle) {
                flow.told = false;
                return Some(HostEvent::TcpReady(TcpHandle(handle)));
            }
        }
        None
    }

    fn forget(&mut self, slot: u32) {
        self.deadlines.set(slot, None);
        let Some((_, flow)) = self.flows.remove_at(slot) else { return };
        let (flows, most) = (&self.flows, 2 * self.flows.len() + SWEEP_FROM);
        self.lingering.sweep(flows, most);
        for queue in [&mut self.ready, &mut self.told] {
            if queue.len() > most {
                queue.retain(|&handle| flows.live(handle).is_some());
            }
        }
        if let Some(listener) = flow.listener
            && let Some((_, waiting)) = self.listeners.at_mut(listener)
        {
            waiting.pending -= 1;
            waiting.established.retain(|&waiting| waiting != slot);
        }
        if self.idle.len() < self.idle_limit {
            self.idle.push(flow);
        }
    }

    /// Takes in an ICMP error about a segment of ours. A connection in its handshake fails at once where the error says
    /// that there is nobody (RFC 5461 section 4.1); an established one outlives everything but a smaller path MTU.
    pub(super) fn handle_error(
        &mut self,
        link: &mut Link,
        error: IcmpError,
        quoted: &Quoted,
        sequence: Option<u32>,
    ) {
        let tuple = Tuple { local: quoted.source, remote: quoted.destination };
        let Some(slot) = self.flows.slot(&tuple) else { return };
        let seed = self.rng.next_u64();
        let Some((_, flow)) = self.flows.at_mut(slot) else { return };
        if !sequence.is_some_and(|sequence| flow.may_have_sent(sequence)) {
            return;
        }
        let connecting = flow.state() == State::SynSent;
        match error {
            IcmpError::PacketTooBig { mtu } if mtu > 0 => {
                let mtu = link.lower_path_mtu(quoted.destination.ip(), mtu as usize);
                flow.lower_mtu(mtu, seed, link);
            }
            IcmpError::Unreachable { code } if connecting => {
                let nobody = if quoted.destination.is_ipv4() { matches!(code, 2 | 3) } else { code == 4 };
                flow.fail(if nobody { TcpError::Refused } else { TcpError::Unreachable });
            }
            IcmpError::Unreachable { .. }
            | IcmpError::PacketTooBig { .. }
            | IcmpError::TimeExceeded { .. }
            | IcmpError::ParameterProblem { .. } => return,
        }
        self.finish(link, slot);
    }

    /// Fails the connects that go through a neighbour that does not answer. Looks at every connection, which happens at
    /// most once in three seconds for a neighbour.
    pub(super) fn neighbor_failed(&mut self, link: &mut Link, neighbor: IpAddr) {
        let stuck: Vec<u32> = self
            .flows
            .iter()
            .filter(|(_, tuple, flow)| {
                matches!(flow.state(), State::SynSent | State::SynReceived)
                    && link.neighbor_for(tuple.remote.ip()) == Some(neighbor)
            })
            .map(|(slot, _, _)| slot)
            .collect();
        for slot in stuck {
            if let Some((_, flow)) = self.flows.at_mut(slot) {
                flow.fail(TcpError::Unreachable);
            }
            self.finish(link, slot);
        }
    }
}
