//! Connections of clients and their backends, two by two.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use lb::Frontend;
use netstack::host::{Host, TcpError, TcpHandle, TcpState};

use super::{ProxyCounters, Services};

/// Backends tried for one client, as kube-proxy did.
const ATTEMPTS: u8 = 4;

/// A client's connection and a backend's.
#[derive(Debug)]
struct Relay {
    client: TcpHandle,
    backend: TcpHandle,
    frontend: Frontend,
    from: SocketAddr,
    attempts: u8,
    /// Whether the backend has ever answered.
    connected: bool,
    /// Whether each side's end was passed on: the client's, the backend's.
    ended: [bool; 2],
}

/// All of them, found by either connection.
#[derive(Debug, Default)]
pub(super) struct Relays {
    relays: HashMap<u64, Relay>,
    by_connection: HashMap<TcpHandle, u64>,
    next: u64,
}

impl Relays {
    pub(super) fn len(&self) -> usize {
        self.relays.len()
    }

    fn add(&mut self, relay: Relay) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_connection.insert(relay.client, number);
        self.by_connection.insert(relay.backend, number);
        self.relays.insert(number, relay);
        number
    }
}

/// What carrying on needs.
pub(super) struct Turn<'a> {
    pub(super) now: Duration,
    pub(super) host: &'a mut Host,
    pub(super) services: &'a mut Services,
    pub(super) relays: &'a mut Relays,
    pub(super) buffer: &'a mut [u8],
    pub(super) counters: &'a mut ProxyCounters,
}

/// How a connection's octets got on.
enum Carried {
    /// As far as they could for now.
    On,
    /// The other side's end has been passed on.
    Ended,
    Failed,
}

impl Turn<'_> {
    /// Takes a client that has connected, and calls a backend.
    pub(super) fn begin(&mut self, client: TcpHandle, frontend: Frontend) {
        let Some((_, from)) = self.host.tcp_endpoints(client) else { return };
        let Some(backend) = self.call(frontend, from) else {
            self.counters.refused += 1;
            return self.host.tcp_abort(self.now, client);
        };
        self.relays.add(Relay {
            client,
            backend,
            frontend,
            from,
            attempts: 1,
            connected: false,
            ended: [false; 2],
        });
    }

    fn call(&mut self, frontend: Frontend, from: SocketAddr) -> Option<TcpHandle> {
        let (address, port) = self.services.choose(self.now, frontend, from)?.backend;
        self.host.tcp_connect(self.now, SocketAddr::new(address, port)).ok()
    }

    /// Carries on what a connection is part of.
    pub(super) fn advance(&mut self, connection: TcpHandle) {
        let Some(&number) = self.relays.by_connection.get(&connection) else { return };
        let Some(mut relay) = self.relays.relays.remove(&number) else { return };
        let before = relay.backend;
        if self.carry_on(&mut relay) {
            if relay.backend != before {
                self.relays.by_connection.remove(&before);
                self.relays.by_connection.insert(relay.backend, number);
            }
            self.relays.relays.insert(number, relay);
        } else {
            self.relays.by_connection.remove(&relay.client);
            self.relays.by_connection.remove(&before);
        }
    }

    /// Returns whether there is anything left to carry.
    fn carry_on(&mut self, relay: &mut Relay) -> bool {
        if !relay.connected {
            if self.host.tcp_error(relay.backend).is_some() {
                self.host.tcp_release(self.now, relay.backend);
                return self.call_another(relay);
            }
            relay.connected = !matches!(
                self.host.tcp_state(relay.backend),
                TcpState::SynSent | TcpState::SynReceived | TcpState::Closed
            );
            if !relay.connected {
                // A client that has gone meanwhile is not called back.
                return match self.host.tcp_error(relay.client) {
                    Some(_) => self.abort(relay),
                    None => true,
                };
            }
        }
        let ways = [(relay.client, relay.backend), (relay.backend, relay.client)];
        for (way, (from, to)) in ways.into_iter().enumerate() {
            if relay.ended[way] {
                continue;
            }
            match self.carry(from, to) {
                Carried::On => {}
                Carried::Ended => relay.ended[way] = true,
                Carried::Failed => return self.abort(relay),
            }
        }
        if relay.ended != [true; 2] {
            return true;
        }
        // Both sides have ended and all that was said has been passed on; what is left is the host's.
        self.host.tcp_release(self.now, relay.client);
        self.host.tcp_release(self.now, relay.backend);
        false
    }

    fn call_another(&mut self, relay: &mut Relay) -> bool {
        if relay.attempts < ATTEMPTS
            && let Some(backend) = self.call(relay.frontend, relay.from)
        {
            relay.attempts += 1;
            self.counters.retried += 1;
            relay.backend = backend;
            return true;
        }
        self.counters.refused += 1;
        self.host.tcp_abort(self.now, relay.client);
        false
    }

    /// Moves octets as long as there are some, and room for them.
    fn carry(&mut self, from: TcpHandle, to: TcpHandle) -> Carried {
        loop {
            let room = self.host.tcp_writable(to).min(self.buffer.len());
            if room == 0 && self.host.tcp_readable(from) > 0 {
                // Nobody will ever make room where the connection has failed.
                return if self.host.tcp_error(to).is_some() { Carried::Failed } else { Carried::On };
            }
            match self.host.tcp_recv(self.now, from, &mut self.buffer[..room.max(1)]) {
                Ok(0) => {
                    self.host.tcp_close(self.now, to);
                    return Carried::Ended;
                }
                Ok(count) => {
                    if self.host.tcp_send(self.now, to, &self.buffer[..count]) != Ok(count) {
                        return Carried::Failed;
                    }
                    self.counters.octets += count as u64;
                }
                Err(TcpError::WouldBlock) => return Carried::On,
                Err(_) => return Carried::Failed,
            }
        }
    }

    /// One side has failed: the other is told so.
    fn abort(&mut self, relay: &Relay) -> bool {
        self.host.tcp_abort(self.now, relay.client);
        self.host.tcp_abort(self.now, relay.backend);
        false
    }
}
