//! Ports of this machine that lead inside.
//!
//! # Theory of operation
//! A door is a socket that listens, or is bound for datagrams, at an address of this machine, and leads to one address and
//! port inside. Who comes in by it is a flow like those that pods begin, only that here the pod is called.
//!
//! *Who is seen inside* is the client himself, with his address and port, wherever an answer to that address would come
//! back here: not if he is on this machine's loopback, which means somebody else inside, nor if his address is one that is
//! inside as well, nor if door and target are of different families. Then it is the edge, at a port that is free.
//!
//! *Datagrams* of all clients come by the door's one socket, and answers leave by it from the address that was asked. Each
//! client is a flow, found by where he is and what he has asked.
//!
//! *Without descriptors* clients wait where the kernel has them wait, and are taken a little later.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netstack::addr::IpNet;
use netstack::flow::FlowKey;
use netstack::parse::protocol;
use netstack::seed::Rng;

use super::Edge;
use super::config::EdgeDrop;
use super::flows::{Flow, Flows};
use super::messages::MessageFlow;
use super::outside::{Farewell, Messages, Outside, Refusal, SocketId};
use super::tcp::Tcp;
use super::turn::{Fate, Turn};

/// Numbers of doors' sockets begin here; those below are flows'.
const FIRST: u32 = 1 << 31;
/// Clients, and datagrams, that a door takes in before others have their turn.
const PER_TURN: usize = 64;
/// When those are looked for again who could not be taken.
const AGAIN: Duration = Duration::from_millis(100);
/// Ports that are tried for a client who cannot have his own.
const TRIES: usize = 64;
/// The first port that such a client may be seen with.
const FIRST_PORT: u16 = 1024;

/// What a door carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Carried {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of this machine that leads inside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Door {
    /// What it carries.
    pub carried: Carried,
    /// Where it is: an address of this machine, or all of a family.
    pub at: SocketAddr,
    /// Where it leads.
    pub to: SocketAddr,
}

/// A client of a door for datagrams: who, and which of this machine's addresses he has asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Client {
    pub(super) door: SocketId,
    pub(super) at: IpAddr,
    pub(super) from: SocketAddr,
}

/// All doors.
#[derive(Debug, Default)]
pub(super) struct Doors {
    doors: Vec<Option<Door>>,
    clients: HashMap<Client, u32>,
    /// When those are looked for who could not be taken.
    pub(super) again: Option<Duration>,
}

impl Doors {
    pub(super) fn forget(&mut self, client: &Client) {
        self.clients.remove(client);
    }
}

impl<O: Outside> Edge<O> {
    /// Opens a door.
    ///
    /// # Errors
    /// Why this machine does not let it be opened.
    pub fn publish(&mut self, door: Door) -> Result<(), Refusal> {
        if self.doors.doors.iter().flatten().any(|other| *other == door) {
            return Ok(());
        }
        let free = self.doors.doors.iter().position(Option::is_none);
        let at = free.unwrap_or(self.doors.doors.len());
        let id = socket(at).ok_or(Refusal::NoSockets)?;
        match door.carried {
            Carried::Tcp => self.outside.listen(id, door.at)?,
            Carried::Udp => self.outside.bind(id, door.at)?,
        }
        if free.is_none() {
            self.doors.doors.push(None);
        }
        self.doors.doors[at] = Some(door);
        Ok(())
    }

    /// Closes a door. Connections that came in by it stay, datagrams have no way back; whether it was there.
    pub fn withdraw(&mut self, door: &Door) -> bool {
        let Some(at) = self.doors.doors.iter().position(|other| other.as_ref() == Some(door)) else {
            return false;
        };
        let Some(id) = socket(at) else { return false };
        let clients: Vec<u32> = self
            .doors
            .clients
            .iter()
            .filter(|(client, _)| client.door == id)
            .map(|(_, slot)| *slot)
            .collect();
        clients.into_iter().for_each(|slot| self.end_messages(slot));
        self.outside.close(id, Farewell::Gentle);
        self.doors.doors[at] = None;
        true
    }

    /// The doors that are open.
    pub fn doors(&self) -> impl Iterator<Item = &Door> {
        self.doors.doors.iter().flatten()
    }

    /// Whether a socket is a door's, which is served then.
    pub(super) fn serve_door(&mut self, id: SocketId) -> bool {
        let Some(at) = id.0.checked_sub(FIRST) else { return false };
        let door = self.doors.doors.get(at as usize).copied().flatten();
        match door {
            Some(door @ Door { carried: Carried::Tcp, .. }) => self.accept(id, door),
            Some(door @ Door { carried: Carried::Udp, .. }) => self.take_in(id, door),
            None => {}
        }
        true
    }

    /// Looks for those again who could not be taken.
    pub(super) fn serve_doors_again(&mut self) {
        if self.doors.again.is_some_and(|at| at <= self.now) {
            self.doors.again = None;
            let all: Vec<SocketId> = (0..self.doors.doors.len()).filter_map(socket).collect();
            all.into_iter().for_each(|id| {
                self.serve_door(id);
            });
        }
    }

    fn accept(&mut self, id: SocketId, door: Door) {
        for _ in 0..PER_TURN {
            let slot = self.flows.next_slot();
            match self.outside.accept(id, SocketId(slot)) {
                Ok(Some(from)) => self.call(slot, door, from),
                Ok(None) => return,
                Err(Refusal::NoSockets) => {
                    self.counters.drop(EdgeDrop::NoSockets);
                    self.doors.again = Some(self.now + AGAIN);
                    return;
                }
                // Whoever has gone again before he was taken.
                Err(_) => {}
            }
        }
        // The others after everybody else's turn.
        self.doors.again = Some(self.now);
    }

    /// Calls whom a client wants.
    fn call(&mut self, slot: u32, door: Door, from: SocketAddr) {
        let key = match self.flows.connections() < self.config.limits.connections {
            true => self.key(protocol::TCP, door, from),
            false => None,
        };
        let Some(key) = key else {
            self.counters.drop(EdgeDrop::TooManyConnections);
            return self.outside.close(SocketId(slot), Farewell::Abrupt);
        };
        self.counters.asked += 1;
        let first = u32::try_from(self.rng.next_u64() >> 32).unwrap_or(0);
        let mut turn = Turn {
            now: self.now,
            key,
            socket: SocketId(slot),
            outside: &mut self.outside,
            link: &mut self.link,
            counters: &mut self.counters,
            timers: &self.config.timers,
            limits: &self.config.limits,
            held: &mut self.held,
        };
        let tcp = Tcp::call(&mut turn, first);
        let slot = self.flows.insert(key, Flow::Tcp(Box::new(tcp)));
        self.after(slot, Some(Fate::Stays));
    }

    fn take_in(&mut self, id: SocketId, door: Door) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..PER_TURN {
            match self.outside.receive_from(id, &mut scratch) {
                Ok(Some((count, from, at))) => {
                    let client = Client { door: id, at, from };
                    let octets = scratch.get(..count).unwrap_or_default();
                    self.deliver(client, door, octets);
                }
                Ok(None) => break,
                // What became of an answer; its client is told by nobody else.
                Err(_) => {}
            }
        }
        self.scratch = scratch;
    }

    /// Brings a client's datagram to whom he wants.
    fn deliver(&mut self, client: Client, door: Door, octets: &[u8]) {
        let known = self.doors.clients.get(&client).copied();
        let Some(slot) = known.or_else(|| self.meet(client, door)) else {
            return self.counters.drop(EdgeDrop::NoRoom);
        };
        let fate = self.with(slot, |flow, turn, _| {
            if let Flow::Messages(flow) = flow {
                flow.bring(turn, octets);
            }
            Fate::Stays
        });
        self.after(slot, fate);
    }

    /// A flow for a client that is new.
    fn meet(&mut self, client: Client, door: Door) -> Option<u32> {
        if self.flows.messages() >= self.config.limits.messages {
            self.displace();
        }
        let key = self.key(protocol::UDP, door, client.from)?;
        let flow = MessageFlow::of_client(Messages::Udp, client);
        let slot = self.flows.insert(key, Flow::Messages(flow));
        self.doors.clients.insert(client, slot);
        Some(slot)
    }

    /// The flow of a client, as the inside sees it; none if no port is free.
    fn key(&mut self, protocol: u8, door: Door, from: SocketAddr) -> Option<FlowKey> {
        let of = |shown: SocketAddr| FlowKey {
            source: door.to.ip(),
            destination: shown.ip(),
            protocol,
            source_port: door.to.port(),
            destination_port: shown.port(),
        };
        if is_shown(from.ip(), door.to.ip(), &self.config.inside) && is_free(&self.flows, &of(from)) {
            return Some(of(from));
        }
        let own = self.link.own(door.to.ip())?;
        let same = of(SocketAddr::new(own, from.port()));
        if from.port() >= FIRST_PORT && is_free(&self.flows, &same) {
            return Some(same);
        }
        let ports = (0..TRIES).map(|_| of(SocketAddr::new(own, port(&mut self.rng))));
        let mut free = ports.filter(|key| is_free(&self.flows, key));
        free.next()
    }
}

fn is_free(flows: &Flows, key: &FlowKey) -> bool {
    flows.slot_of(key).is_none()
}

fn port(rng: &mut Rng) -> u16 {
    let above = rng.below(u32::from(u16::MAX - FIRST_PORT));
    FIRST_PORT.saturating_add(u16::try_from(above).unwrap_or(0))
}

/// Whether a client can be seen as who he is.
fn is_shown(from: IpAddr, to: IpAddr, inside: &[IpNet]) -> bool {
    let of_machine = match from {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.to_ipv4().is_some(),
    };
    from.is_ipv4() == to.is_ipv4() && !of_machine && !inside.iter().any(|net| net.contains(&from))
}

fn socket(at: usize) -> Option<SocketId> {
    u32::try_from(at).ok()?.checked_add(FIRST).map(SocketId)
}

/// Where a door's socket stands among doors', or none if it is a flow's.
pub(super) const fn place(socket: SocketId) -> Option<u32> {
    socket.0.checked_sub(FIRST)
}
