//! One TCP connection: a smoltcp interface with a set of one socket, and what we add to it.
//!
//! # Theory of operation
//! smoltcp looks its sockets up by walking them, so each connection has an interface of its own, found through our table;
//! the interface knows one address and one MTU and is made anew (it holds no memory of its own) when the connection or
//! its path MTU changes. The socket with its two buffers is the expensive part: it is used again for the next
//! connection.
//!
//! smoltcp gives up on a connection only by a timer that any silence trips, idle or not. So it is given none, and patience
//! is kept here: it runs while the peer owes us something (an answer to our SYN, an acknowledgement, a FIN) and starts
//! afresh with each segment that arrives.

use alloc::boxed::Box;
use alloc::vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use smoltcp::iface::{self, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};

use super::config::{Congestion, HostConfig, HostTimers};
use super::device::{FlowDevice, duration, instant};
use super::link::Link;
use super::tcp::TcpError;

/// The next poll of a flow that says it has something to do but does nothing: keeps a disagreement from becoming a spin.
const IDLE_POLL: Duration = Duration::from_millis(1);
/// smoltcp empties the receive buffer when TIME-WAIT ends after 10 s; unread data is kept from that.
const TIME_WAIT_GUARD: Duration = Duration::from_secs(9);

/// Both ends of a connection, ours first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Tuple {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// How a flow begins.
pub(super) enum Opening {
    Connect,
    Listen,
}

pub(super) struct Flow {
    iface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    pub(super) tuple: Tuple,
    mtu: usize,
    /// The sequence number of the last segment sent.
    pub(super) sequence: u32,
    /// The end of the peer's sequence space, once its FIN has been seen.
    pub(super) fin_sequence: Option<u32>,
    /// The slot of the listener that this connection came to, until it is accepted.
    pub(super) listener: Option<u32>,
    /// The owner will send no more.
    pub(super) closed_by_owner: bool,
    /// The owner has let go of it: whatever else arrives is unwanted.
    pub(super) released: bool,
    /// It is over without a RST.
    silent: bool,
    /// Why it failed.
    pub(super) error: Option<TcpError>,
    /// Whether it is in the queue of flows that have something to send.
    pub(super) ready: bool,
    /// Whether an event about it waits.
    pub(super) told: bool,
    /// The state seen last, and since when.
    state: State,
    state_since: Duration,
    /// Since when the peer owes us something.
    owed_since: Option<Duration>,
}

impl core::fmt::Debug for Flow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Flow").field("tuple", &self.tuple).field("state", &self.state).finish_non_exhaustive()
    }
}

/// An interface that is `local` and nobody else.
fn interface(local: IpAddr, mtu: usize, seed: u64, link: &mut Link) -> Interface {
    let mut config = iface::Config::new(HardwareAddress::Ip);
    config.random_seed = seed;
    let now = instant(link.now);
    let mut unused = 0;
    let mut device = FlowDevice { link, remote: local, mtu, received: None, sequence: &mut unused };
    let mut iface = Interface::new(config, &mut device, now);
    iface.update_ip_addrs(|addresses| {
        // The set of addresses is empty and has room for two.
        let full = addresses.push(IpCidr::new(local.into(), if local.is_ipv4() { 32 } else { 128 }));
        debug_assert!(full.is_ok());
    });
    iface
}

impl Flow {
    /// A flow with new buffers.
    pub(super) fn new(tuple: Tuple, config: &HostConfig, link: &mut Link) -> Box<Self> {
        link.counters.buffers_allocated += 1;
        let buffer = |len: usize| SocketBuffer::new(vec![0; len]);
        let socket = Socket::new(buffer(config.limits.receive_buffer), buffer(config.limits.send_buffer));
        let mut sockets = SocketSet::new(vec![]);
        let socket = sockets.add(socket);
        Box::new(Self {
            iface: interface(tuple.local.ip(), link.mtu, 0, link),
            sockets,
            socket,
            tuple,
            mtu: link.mtu,
            sequence: 0,
            fin_sequence: None,
            listener: None,
            closed_by_owner: false,
            released: false,
            silent: false,
            error: None,
            ready: false,
            told: false,
            state: State::Closed,
            state_since: Duration::ZERO,
            owed_since: None,
        })
    }

    /// Begins a connection; the flow is new or the last one in it is over. `seed` decides the initial sequence number.
    pub(super) fn open(
        &mut self,
        tuple: Tuple,
        opening: &Opening,
        seed: u64,
        config: &HostConfig,
        link: &mut Link,
    ) {
        let mtu = link.path_mtu(tuple.remote.ip());
        self.iface = interface(tuple.local.ip(), mtu, seed, link);
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        // What smoltcp's own reset leaves behind of the last connection is its duplicate-ACK bookkeeping, which the first
        // acknowledgement clears, and the congestion window, which is set here.
        socket.abort();
        socket.set_congestion_control(match config.congestion {
            Congestion::Reno => tcp::CongestionControl::Reno,
            Congestion::None => tcp::CongestionControl::None,
        });
        socket.set_hop_limit(Some(link.hop_limit));
        socket.set_nagle_enabled(true);
        let local = IpListenEndpoint { addr: Some(tuple.local.ip().into()), port: tuple.local.port() };
        // The caller has checked what these could refuse: both ports are set, both addresses of one family.
        let opened = match opening {
            Opening::Connect => socket.connect(self.iface.context(), tuple.remote, local).is_ok(),
            Opening::Listen => socket.listen(local).is_ok(),
        };
        debug_assert!(opened);
        let (state, now) = (socket.state(), link.now);
        (self.tuple, self.mtu) = (tuple, mtu);
        (self.sequence, self.fin_sequence, self.listener) = (0, None, None);
        (self.closed_by_owner, self.released, self.silent, self.error) = (false, false, false, None);
        (self.ready, self.told) = (false, false);
        (self.state, self.state_since, self.owed_since) = (state, now, None);
    }

    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.socket)
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    pub(super) fn state(&self) -> State {
        self.socket().state()
    }

    /// Gives a segment, with its IP header, to the connection.
    pub(super) fn receive(&mut self, packet: &[u8], link: &mut Link) {
        self.owed_since = None;
        let now = instant(link.now);
        let (remote, mtu) = (self.tuple.remote.ip(), self.mtu);
        let mut device =
            FlowDevice { link, remote, mtu, received: Some(packet), sequence: &mut self.sequence };
        self.iface.poll_ingress_single(now, &mut device, &mut self.sockets);
    }

    /// Lets the connection send at most one segment; returns whether it did.
    pub(super) fn transmit(&mut self, link: &mut Link) -> bool {
        if self.silent || self.keeps_unread(link.now) {
            return false;
        }
        let now = instant(link.now);
        let (remote, mtu) = (self.tuple.remote.ip(), self.mtu);
        let mut device = FlowDevice { link, remote, mtu, received: None, sequence: &mut self.sequence };
        self.iface.poll_egress(now, &mut device, &mut self.sockets) == PollResult::SocketStateChanged
    }

    /// Whether the end of TIME-WAIT must wait for the owner to read.
    fn keeps_unread(&self, now: Duration) -> bool {
        self.state == State::TimeWait
            && !self.released
            && self.socket().can_recv()
            && now.saturating_sub(self.state_since) >= TIME_WAIT_GUARD
    }

    /// Notes the state; returns whether it is another than last time.
    pub(super) fn note_state(&mut self, now: Duration) -> bool {
        let state = self.state();
        let changed = state != self.state;
        if changed {
            (self.state, self.state_since) = (state, now);
            self.owed_since = None;
        }
        changed
    }

    /// How long to wait for what the peer owes us, if it owes anything.
    fn patience(&self, timers: &HostTimers) -> Option<Duration> {
        match self.state() {
            State::SynSent => Some(timers.connect),
            State::SynReceived => Some(timers.handshake),
            State::FinWait1 | State::Closing | State::LastAck => Some(timers.user),
            State::Established | State::CloseWait => (self.socket().send_queue() > 0).then_some(timers.user),
            State::FinWait2 => self.released.then_some(timers.orphan),
            State::Closed | State::Listen | State::TimeWait => None,
        }
    }

    /// Gives up if patience has run out, and says when it will.
    pub(super) fn check_patience(&mut self, now: Duration, timers: &HostTimers) -> Option<Duration> {
        let Some(patience) = self.patience(timers) else {
            self.owed_since = None;
            return None;
        };
        // A SYN is answered once: retransmissions of it are no progress, so its clock starts with the state.
        let since = match self.state() {
            State::SynSent | State::SynReceived => self.state_since,
            State::Closed
            | State::Listen
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => *self.owed_since.get_or_insert(now),
        };
        let deadline = since.saturating_add(patience);
        if deadline > now {
            return Some(deadline);
        }
        self.fail(TcpError::TimedOut);
        None
    }

    /// Ends the connection with an error. The peer of an established one is told by a RST.
    pub(super) fn fail(&mut self, error: TcpError) {
        self.silent |= matches!(self.state(), State::SynSent | State::Listen | State::TimeWait);
        self.error.get_or_insert(error);
        self.socket_mut().abort();
    }

    /// Whether nothing more will be sent or received.
    pub(super) fn is_over(&self) -> bool {
        self.state() == State::Closed && (self.silent || self.socket().local_endpoint().is_none())
    }

    /// Whether the table may forget it: it is over and nobody will ask for it again.
    pub(super) fn is_forgettable(&self) -> bool {
        self.is_over() && (self.released || (self.closed_by_owner && !self.socket().can_recv()))
    }

    /// When the connection wants to transmit next by itself. `None` if only a segment or its owner can wake it.
    pub(super) fn wake_at(&mut self, now: Duration) -> Option<Duration> {
        if self.silent || self.keeps_unread(now) {
            return None;
        }
        let at = self.iface.poll_at(instant(now), &self.sockets).map(duration)?;
        let guarded = if self.state == State::TimeWait && self.socket().can_recv() {
            at.min((self.state_since + TIME_WAIT_GUARD).max(now))
        } else {
            at
        };
        Some(guarded.max(now + IDLE_POLL))
    }

    /// Whether an ICMP error that quotes this sequence number can be about a segment of this connection (RFC 5927
    /// section 4.1).
    pub(super) fn may_have_sent(&self, sequence: u32) -> bool {
        let behind = self.sequence.wrapping_sub(sequence);
        let most = self.socket().send_capacity() + 2 * self.mtu;
        (behind as usize) <= most || (sequence.wrapping_sub(self.sequence) as usize) <= most
    }

    /// Makes the connection send smaller packets.
    pub(super) fn lower_mtu(&mut self, mtu: usize, seed: u64, link: &mut Link) {
        if mtu < self.mtu {
            self.mtu = mtu;
            self.iface = interface(self.tuple.local.ip(), mtu, seed, link);
        }
    }
}
