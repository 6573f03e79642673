//! The cluster's name server: a host in each node's switch that has the cluster's DNS address.
//!
//! # Theory of operation
//! It is a station like a pod, without a kernel: the switch routes to its address and remembers nothing of who asks, so
//! there is no connection to track, nothing to translate, and no socket of the machine's in use. What is known is a
//! [`Zone`], a value that is replaced as a whole when Services or pods change; questions are answered in the turn in which
//! they come.
//!
//! - *Over UDP* every datagram is a question, and the answer fits what its sender says that he takes, 1232 octets at the most.
//! - *Over TCP* (RFC 7766) a client may ask many questions without waiting; whoever is silent for [`IDLE`] is let go, also in
//!   the middle of a question.
//! - *Names of others* are asked for by a thread beside the data path (`forwarder`); the client's turn comes when they are known, or
//!   when it has waited for five seconds. The cluster's own names never wait for anybody, and are never asked for elsewhere.
//! - *What is asked* can be logged (`query_log`), by the same thread.
//! - *Everything is bounded*: clients by the host's table of connections, what each has sent by one message, and what waits
//!   for it by its answers to those it was read with.

mod desk;
mod files;
mod forwarder;
mod latency;
mod links;
mod query_log;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dns::{Counters, Zone};
use netstack::addr::{IpNet, MacAddr, PortId};
use netstack::driver::Engine;
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::host::{Host, HostConfig, HostConfigError, HostEvent, TcpHandle, TcpListener, UdpHandle};
use netstack::seed::Seed;

use self::desk::{Client, Desk, Told};
pub(crate) use self::files::{check, files};
pub(crate) use self::forwarder::{Forwarder, Forwarding, Said, Sources};
pub use self::latency::{BOUNDS, Latencies};
pub(crate) use self::links::{Variables, variables};
use self::stream::Stream;

/// The Service and pod that the name server shows itself as.
pub const NAME: &str = "kube-dns";
/// Its namespace.
pub const NAMESPACE: &str = "kube-system";
/// Where it is asked.
pub const PORT: u16 = 53;
/// How long a client that is connected may be silent (RFC 7766 section 6.2.3).
pub const IDLE: Duration = Duration::from_secs(10);
/// How often those are looked for who are silent.
const SWEEP: Duration = Duration::from_secs(1);
/// Clients that are connected at the same time.
const CONNECTIONS: u32 = 1024;
/// Datagrams that wait at the same time.
const DATAGRAMS: usize = 4096;
/// Of a client that has left before it was greeted.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// The longest message.
const MESSAGE: usize = 65_535;

/// What a name server has done, besides answering.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NameServerCounters {
    /// What was asked, and how it was answered.
    pub queries: Counters,
    /// Questions by UDP and by TCP.
    pub asked: [u64; 2],
    /// Clients that were let go because they were silent.
    pub idle: u64,
    /// Answers that could not be sent.
    pub unsent: u64,
    /// Queries that the log could not take.
    pub unlogged: u64,
    /// How long clients waited for an answer, from when their questions came in.
    pub latencies: Latencies,
}

/// A name server, as an engine of the driver. It has one interface, at port 0.
#[derive(Debug)]
pub struct NameServer {
    host: Host,
    desk: Desk,
    sockets: Vec<UdpHandle>,
    listeners: Vec<TcpListener>,
    streams: HashMap<TcpHandle, Stream>,
    next_sweep: Duration,
    pool: FramePool,
    buffer: Vec<u8>,
    counters: NameServerCounters,
}

impl NameServer {
    /// A name server that knows nothing yet. `addresses` are its own, `gateways` the routers of each family.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        mac: MacAddr,
        addresses: &[IpAddr],
        gateways: &[IpAddr],
        mtu: u16,
        seed: Seed,
    ) -> Result<Self, HostConfigError> {
        let nets: Vec<IpNet> = addresses.iter().map(|address| IpNet::from(*address)).collect();
        let mut config = HostConfig::new(mac, nets);
        for gateway in gateways {
            match gateway {
                IpAddr::V4(gateway) => config.gateway_v4 = Some(*gateway),
                IpAddr::V6(gateway) => config.gateway_v6 = Some(*gateway),
            }
        }
        config.mtu = usize::from(mtu);
        config.limits.tcp_flows = CONNECTIONS;
        config.limits.backlog = CONNECTIONS as usize;
        config.limits.receive_buffer = 16 * 1024;
        config.limits.udp_datagrams = DATAGRAMS;
        config.limits.udp_bytes = DATAGRAMS * 2048;
        config.limits.transmit_queue = DATAGRAMS;
        let mut host = Host::new(config, seed)?;
        let at = |address: &IpAddr| SocketAddr::new(*address, PORT);
        // They are its own addresses, and nobody else listens.
        let sockets = addresses.iter().filter_map(|address| host.udp_bind(at(address)).ok()).collect();
        let listeners = addresses.iter().filter_map(|address| host.tcp_listen(at(address)).ok()).collect();
        Ok(Self {
            host,
            desk: Desk::default(),
            sockets,
            listeners,
            streams: HashMap::new(),
            next_sweep: Duration::ZERO,
            pool: FramePool::new(),
            buffer: vec![0; MESSAGE],
            counters: NameServerCounters::default(),
        })
    }

    /// Takes up another zone.
    pub fn install(&mut self, zone: Zone) {
        self.desk.install(zone);
    }

    /// Has others asked what it does not know itself.
    pub(crate) fn forward_by(&mut self, forwarding: Forwarding) {
        self.desk.forward_by(forwarding);
    }

    /// Takes in what others say, or that nobody knows.
    pub(crate) fn hear(&mut self, now: Duration, (token, said): Said) {
        let Some((client, answer)) = self.desk.settle(token, said) else { return };
        match client {
            Client::Datagram(socket, to) => {
                if self.host.udp_send_to(now, socket, &answer, to).is_err() {
                    self.counters.unsent += 1;
                }
            }
            Client::Stream(client, _) => {
                if let Some(stream) = self.streams.get_mut(&client) {
                    stream.hear(&answer);
                    self.advance(now, client);
                }
            }
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> NameServerCounters {
        NameServerCounters {
            queries: self.desk.counters(),
            latencies: self.desk.latencies(),
            unlogged: self.desk.unlogged(),
            ..self.counters.clone()
        }
    }

    /// Clients that are connected.
    pub fn connected(&self) -> usize {
        self.streams.len()
    }

    /// Whether it listens at each of its addresses.
    pub fn listens(&self) -> bool {
        !self.sockets.is_empty() && self.sockets.len() == self.listeners.len()
    }

    /// Lets everything go on that can.
    fn pump(&mut self, now: Duration) {
        while let Some(event) = self.host.poll_event() {
            match event {
                HostEvent::UdpReady(socket) => self.answer_datagrams(now, socket),
                HostEvent::TcpIncoming(listener) => {
                    while let Some(client) = self.host.tcp_accept(listener) {
                        self.host.tcp_set_nagle(client, false);
                        if self.streams.is_empty() {
                            self.next_sweep = now + SWEEP;
                        }
                        let from = self.host.tcp_endpoints(client).map(|(_, from)| from);
                        self.streams.insert(client, Stream::new(now, from.unwrap_or(NOBODY)));
                        self.advance(now, client);
                    }
                }
                HostEvent::TcpReady(client) => self.advance(now, client),
                // What happens to packets is told to connections, and nobody pings.
                HostEvent::EchoReply { .. }
                | HostEvent::IcmpError { .. }
                | HostEvent::NeighborFailed { .. }
                | _ => {}
            }
        }
    }

    fn answer_datagrams(&mut self, now: Duration, socket: UdpHandle) {
        while let Ok(datagram) = self.host.udp_recv_from(socket, &mut self.buffer) {
            self.counters.asked[0] += 1;
            let client = Client::Datagram(socket, datagram.from);
            let Told::Answer(answer) = self.desk.ask(now, &self.buffer[..datagram.len], client) else {
                continue;
            };
            if self.host.udp_send_to(now, socket, &answer, datagram.from).is_err() {
                self.counters.unsent += 1;
            }
        }
    }

    /// Goes on with a client that is connected, as far as it goes.
    fn advance(&mut self, now: Duration, client: TcpHandle) {
        let Some(stream) = self.streams.get_mut(&client) else { return };
        let (asked, desk, from) = (&mut self.counters.asked[1], &mut self.desk, stream.from());
        let mut ask = |message: &[u8]| {
            *asked += 1;
            desk.ask(now, message, Client::Stream(client, from))
        };
        if !stream.advance(&mut self.host, now, client, &mut self.buffer, &mut ask) {
            self.streams.remove(&client);
            self.desk.forget(client);
        }
    }

    fn sweep(&mut self, now: Duration) {
        if self.streams.is_empty() || now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        let (host, counters, desk) = (&mut self.host, &mut self.counters, &mut self.desk);
        self.streams.retain(|client, stream| {
            let stays = stream.until() > now;
            if !stays {
                counters.idle += 1;
                host.tcp_abort(now, *client);
                desk.forget(*client);
            }
            stays
        });
    }
}

impl Engine for NameServer {
    fn handle_frames(&mut self, now: Duration, _port: PortId, batch: &mut FrameBatch) {
        self.host.handle_frames(now, batch);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.host.handle_timeout(now);
        self.sweep(now);
        while let Some(token) = self.desk.overdue(now) {
            self.hear(now, (token, None));
        }
        self.pump(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.host.poll_transmit(batch).then_some(PortId(0))
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let sweep = (!self.streams.is_empty()).then_some(self.next_sweep);
        [self.host.poll_timeout(), sweep, self.desk.next_due()].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}
