//! The userspace service proxy: what kube-proxy was at first.
//!
//! # Theory of operation
//! A node's switch sends a client of a Service to a port of this host instead of to a backend. The proxy takes the
//! connection, chooses a backend, opens a connection of its own to it and carries octets between the two; so it is two
//! TCP connections, each with its own sequence numbers, windows and options, and a backend sees the node as its client.
//! Datagrams are carried by a socket of its own for each client.
//!
//! Which of its ports stands for which Service, and who its backends are, is a [`Registry`] like a switch's, in which this
//! host's own ports are the frontends. The [`Balancer`] chooses and keeps session affinity, exactly as in a switch.
//!
//! - *A backend that cannot be reached* is not the end: the next one is tried, as long as the client has got nothing.
//! - *Half-closed stays half-closed*: an end on one side is passed on when everything before it was.
//! - *Everything is bounded*: connections by the host's own limit, clients of UDP by a constant of its own.

mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb::{Ask, Balancer, Frontend, Origin, Registry, Service, Verdict};
use netstack::addr::{IpNet, MacAddr, PortId};
use netstack::driver::Engine;
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::host::{BindError, Host, HostConfig, HostConfigError, HostEvent, TcpListener, UdpHandle};
use netstack::parse::protocol;
use netstack::seed::Seed;

use self::tcp::Relays;
use self::udp::{SESSIONS, Sessions};

/// The first port that stands for a Service; up to it are the system's, from 49152 on those that the host itself calls
/// from.
pub const FIRST_PORT: u16 = 1024;
/// The last one.
pub const LAST_PORT: u16 = 49_151;
/// Services' ports of each protocol.
const LISTENERS: u32 = 16_384;
/// Connections held at once: two for each client.
const CONNECTIONS: u32 = 8192;
/// The longest datagram.
const DATAGRAM: usize = 65_535;

/// What a proxy has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProxyCounters {
    /// TCP connections of clients that were taken.
    pub accepted: u64,
    /// Of those, how many ended because no backend could be reached.
    pub refused: u64,
    /// Other backends tried after one could not be reached.
    pub retried: u64,
    /// Octets carried over TCP, both ways.
    pub octets: u64,
    /// Datagrams carried, both ways.
    pub datagrams: u64,
    /// Datagrams that went no further: no backend, or too long for the link.
    pub datagrams_dropped: u64,
    /// Clients of UDP that made room for others.
    pub displaced: u64,
}

/// A proxy, as an engine of the driver. It has one interface, at port 0.
#[derive(Debug)]
pub struct ServiceProxy {
    host: Host,
    services: Services,
    listeners: HashMap<Frontend, Listener>,
    /// What could not be opened.
    refused: BTreeSet<Frontend>,
    by_listener: HashMap<TcpListener, Frontend>,
    by_socket: HashMap<UdpHandle, Frontend>,
    relays: Relays,
    sessions: Sessions,
    pool: FramePool,
    buffer: Vec<u8>,
    counters: ProxyCounters,
}

/// What is open for a frontend.
#[derive(Clone, Copy, Debug)]
enum Listener {
    Tcp(TcpListener),
    Udp(UdpHandle),
}

/// Who chooses.
#[derive(Debug)]
struct Services {
    balancer: Balancer,
    /// Another number for each choice, for policies that want one.
    draw: u64,
}

impl Services {
    /// A backend for a client, which is remembered as its own if the Service wants that.
    fn choose(&mut self, now: Duration, frontend: Frontend, client: SocketAddr) -> Option<lb::Chosen> {
        let origin = Origin::Inside;
        let ask = Ask { frontend, source: client.ip(), source_port: client.port(), origin };
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        match self.balancer.choose(now, &ask, self.draw) {
            Verdict::Chosen(chosen) => {
                self.balancer.commit(now, &ask, &chosen);
                Some(chosen)
            }
            Verdict::Refused { .. } | Verdict::NotAService => None,
        }
    }
}

impl ServiceProxy {
    /// A proxy without Services. `addresses` are its own, with the router's of each family.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        mac: MacAddr,
        addresses: Vec<IpNet>,
        gateways: &[IpAddr],
        mtu: u16,
        key: [u8; 16],
        seed: Seed,
    ) -> Result<Self, HostConfigError> {
        let mut config = HostConfig::new(mac, addresses);
        for gateway in gateways {
            match gateway {
                IpAddr::V4(gateway) => config.gateway_v4 = Some(*gateway),
                IpAddr::V6(gateway) => config.gateway_v6 = Some(*gateway),
            }
        }
        config.mtu = usize::from(mtu);
        config.limits.tcp_flows = CONNECTIONS;
        config.limits.tcp_listeners = LISTENERS;
        config.limits.backlog = 1024;
        config.limits.udp_sockets = LISTENERS + SESSIONS;
        Ok(Self {
            host: Host::new(config, seed)?,
            services: Services { balancer: Balancer::new(key, lb::Limits::default()), draw: 0 },
            listeners: HashMap::new(),
            refused: BTreeSet::new(),
            by_listener: HashMap::new(),
            by_socket: HashMap::new(),
            relays: Relays::default(),
            sessions: Sessions::default(),
            pool: FramePool::new(),
            buffer: vec![0; DATAGRAM],
            counters: ProxyCounters::default(),
        })
    }

    /// Takes up other Services. Connections stay; new ones go where it now says. Returns what could not be opened.
    pub fn install(&mut self, now: Duration, registry: Registry) -> Vec<(Frontend, BindError)> {
        let before = self.services.balancer.install(registry.clone());
        let frontends =
            |of: &Service| of.entrances.iter().map(|entrance| entrance.frontend).collect::<Vec<_>>();
        let gone = before.differing(&registry).flat_map(frontends);
        for frontend in gone.filter(|frontend| registry.find(frontend).is_none()) {
            self.refused.remove(&frontend);
            self.close(now, frontend);
        }
        // What could not be opened may have got out of the way of what now can.
        let mut wanted = std::mem::take(&mut self.refused);
        wanted.extend(registry.differing(&before).flat_map(frontends));
        let mut failed = Vec::new();
        for frontend in wanted {
            if let Err(error) = self.open(frontend) {
                self.refused.insert(frontend);
                failed.push((frontend, error));
            }
        }
        failed
    }

    fn open(&mut self, frontend: Frontend) -> Result<(), BindError> {
        if self.listeners.contains_key(&frontend) {
            return Ok(());
        }
        let local = SocketAddr::new(frontend.address, frontend.port);
        let listener = match frontend.protocol {
            protocol::TCP => {
                let listener = self.host.tcp_listen(local)?;
                self.by_listener.insert(listener, frontend);
                Listener::Tcp(listener)
            }
            protocol::UDP => {
                let socket = self.host.udp_bind(local)?;
                self.by_socket.insert(socket, frontend);
                Listener::Udp(socket)
            }
            // Nothing else has ever been carried by such a proxy.
            _ => return Err(BindError::InvalidPort),
        };
        self.listeners.insert(frontend, listener);
        Ok(())
    }

    fn close(&mut self, now: Duration, frontend: Frontend) {
        match self.listeners.remove(&frontend) {
            Some(Listener::Tcp(listener)) => {
                self.by_listener.remove(&listener);
                self.host.tcp_unlisten(now, listener);
            }
            Some(Listener::Udp(socket)) => {
                self.by_socket.remove(&socket);
                self.sessions.close_of(&mut self.host, frontend);
                self.host.udp_close(socket);
            }
            None => {}
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> ProxyCounters {
        self.counters
    }

    /// TCP connections that are carried, and clients of UDP.
    pub fn carried(&self) -> (usize, usize) {
        (self.relays.len(), self.sessions.len())
    }

    /// Lets everything go on that can.
    fn pump(&mut self, now: Duration) {
        while let Some(event) = self.host.poll_event() {
            match event {
                HostEvent::TcpIncoming(listener) => {
                    let Some(&frontend) = self.by_listener.get(&listener) else { continue };
                    while let Some(client) = self.host.tcp_accept(listener) {
                        self.counters.accepted += 1;
                        self.turn(now).begin(client, frontend);
                    }
                }
                HostEvent::TcpReady(connection) => self.turn(now).advance(connection),
                HostEvent::UdpReady(socket) => self.carry_datagrams(now, socket),
                // What happens to packets is told to connections, and nobody pings.
                HostEvent::EchoReply { .. }
                | HostEvent::IcmpError { .. }
                | HostEvent::NeighborFailed { .. }
                | _ => {}
            }
        }
    }

    fn turn(&mut self, now: Duration) -> tcp::Turn<'_> {
        tcp::Turn {
            now,
            host: &mut self.host,
            services: &mut self.services,
            relays: &mut self.relays,
            buffer: &mut self.buffer,
            counters: &mut self.counters,
        }
    }

    fn carry_datagrams(&mut self, now: Duration, socket: UdpHandle) {
        let mut turn = udp::Turn {
            now,
            host: &mut self.host,
            services: &mut self.services,
            sessions: &mut self.sessions,
            buffer: &mut self.buffer,
            counters: &mut self.counters,
        };
        match self.by_socket.get(&socket) {
            Some(&frontend) => turn.carry_questions(socket, frontend),
            None => turn.carry_answers(socket),
        }
    }
}

impl Engine for ServiceProxy {
    fn handle_frames(&mut self, now: Duration, _port: PortId, batch: &mut FrameBatch) {
        self.host.handle_frames(now, batch);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.host.handle_timeout(now);
        self.sessions.expire(&mut self.host, now);
        self.pump(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.host.poll_transmit(batch).then_some(PortId(0))
    }

    fn poll_timeout(&self) -> Option<Duration> {
        [self.host.poll_timeout(), self.sessions.next_expiry()].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}
