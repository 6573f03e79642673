//! Datagrams of clients, each client with a socket of its own towards its backend.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use lb::{Frontend, Mark, Standing};
use netstack::host::{Host, UdpHandle};

use super::{ProxyCounters, Services};

/// Clients at the same time. At the limit a new one displaces one that was silent.
pub(super) const SESSIONS: u32 = 4096;
/// How long a client that is silent keeps its backend; what a switch gives one that nobody has answered for long.
const IDLE: Duration = Duration::from_secs(120);
/// How often silent ones are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Who talks to whom.
type Key = (Frontend, SocketAddr);

/// One client's.
#[derive(Debug)]
struct Session {
    /// Towards the backend.
    socket: UdpHandle,
    backend: SocketAddr,
    mark: Mark,
    until: Duration,
}

/// All of them, found by client and by socket.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<Key, Session>,
    /// The client, and the socket that it is answered from.
    by_socket: HashMap<UdpHandle, (Key, UdpHandle)>,
    /// Their sockets, each with when it would have expired as it was last looked at, which is longest ago for the first.
    turns: VecDeque<(UdpHandle, Duration)>,
    next_sweep: Duration,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn next_expiry(&self) -> Option<Duration> {
        (!self.sessions.is_empty()).then_some(self.next_sweep)
    }

    pub(super) fn expire(&mut self, host: &mut Host, now: Duration) {
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.close(host, |_, session| session.until <= now);
        }
    }

    /// Ends those of a frontend that is no more.
    pub(super) fn close_of(&mut self, host: &mut Host, frontend: Frontend) {
        self.close(host, |(own, _), _| *own == frontend);
    }

    fn close(&mut self, host: &mut Host, which: impl Fn(&Key, &Session) -> bool) {
        let by_socket = &mut self.by_socket;
        self.sessions.retain(|key, session| {
            let ends = which(key, session);
            if ends {
                by_socket.remove(&session.socket);
                host.udp_close(session.socket);
            }
            !ends
        });
        self.turns.retain(|(socket, _)| self.by_socket.contains_key(socket));
    }

    fn remove(&mut self, host: &mut Host, key: &Key) {
        if let Some(session) = self.sessions.remove(key) {
            self.by_socket.remove(&session.socket);
            host.udp_close(session.socket);
        }
    }

    /// Makes room: ends the first in turn that was silent since its last turn. Those before it have had theirs, so that each
    /// is looked at once in as many times as there are clients.
    fn displace(&mut self, host: &mut Host) {
        while let Some((socket, seen)) = self.turns.pop_front() {
            let Some(&(key, _)) = self.by_socket.get(&socket) else { continue };
            match self.sessions.get(&key) {
                Some(session) if session.until > seen => self.turns.push_back((socket, session.until)),
                _ => return self.remove(host, &key),
            }
        }
    }
}

/// What carrying on needs.
pub(super) struct Turn<'a> {
    pub(super) now: Duration,
    pub(super) host: &'a mut Host,
    pub(super) services: &'a mut Services,
    pub(super) sessions: &'a mut Sessions,
    pub(super) buffer: &'a mut [u8],
    pub(super) counters: &'a mut ProxyCounters,
}

impl Turn<'_> {
    /// Carries what clients have sent.
    pub(super) fn carry_questions(&mut self, socket: UdpHandle, frontend: Frontend) {
        while let Ok(datagram) = self.host.udp_recv_from(socket, self.buffer) {
            let key = (frontend, datagram.from);
            let sent = self.session(key, socket).is_some_and(|(towards, backend)| {
                self.host.udp_send_to(self.now, towards, &self.buffer[..datagram.len], backend).is_ok()
            });
            self.count(sent);
        }
    }

    /// The client's socket and backend, new ones if it has none or its backend is no more.
    fn session(&mut self, key: Key, answers_from: UdpHandle) -> Option<(UdpHandle, SocketAddr)> {
        if let Some(session) = self.sessions.sessions.get_mut(&key) {
            let backend = (session.backend.ip(), session.backend.port());
            match self.services.balancer.standing(session.mark, &key.0, backend) {
                Standing::Gone { .. } => self.sessions.remove(self.host, &key),
                standing @ (Standing::Current | Standing::Renewed(_)) => {
                    if let Standing::Renewed(mark) = standing {
                        session.mark = mark;
                    }
                    session.until = self.now + IDLE;
                    return Some((session.socket, session.backend));
                }
            }
        }
        let (frontend, client) = key;
        let chosen = self.services.choose(self.now, frontend, client)?;
        if self.sessions.len() >= SESSIONS as usize {
            self.sessions.displace(self.host);
            self.counters.displaced += 1;
        }
        let backend = SocketAddr::from(chosen.backend);
        let any = match client {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = self.host.udp_bind(SocketAddr::new(any, 0)).ok()?;
        if self.sessions.sessions.is_empty() {
            self.sessions.next_sweep = self.now + SWEEP;
        }
        let until = self.now + IDLE;
        self.sessions.sessions.insert(key, Session { socket, backend, mark: chosen.mark, until });
        self.sessions.turns.push_back((socket, until));
        self.sessions.by_socket.insert(socket, (key, answers_from));
        Some((socket, backend))
    }

    /// Carries what a backend has answered.
    pub(super) fn carry_answers(&mut self, socket: UdpHandle) {
        while let Ok(datagram) = self.host.udp_recv_from(socket, self.buffer) {
            let Some(&(key, answers_from)) = self.sessions.by_socket.get(&socket) else { return };
            let Some(session) = self.sessions.sessions.get_mut(&key) else { return };
            // Whoever else knows the port is not the backend.
            let sent = datagram.from == session.backend && {
                session.until = self.now + IDLE;
                let payload = &self.buffer[..datagram.len];
                self.host.udp_send_to(self.now, answers_from, payload, key.1).is_ok()
            };
            self.count(sent);
        }
    }

    fn count(&mut self, carried: bool) {
        if carried {
            self.counters.datagrams += 1;
        } else {
            self.counters.datagrams_dropped += 1;
        }
    }
}
