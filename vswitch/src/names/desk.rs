//! Questions and their answers, and those that wait for somebody else's.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dns::{Counters, Foreign, Known, Reply, Resolver, Transport, Zone};
use netstack::host::{TcpHandle, UdpHandle};

use super::Forwarding;
use super::latency::Latencies;

/// Clients that wait for what others say. More are told at once that nobody knows.
const OWED: usize = 4096;
/// How long they wait at the most: as long as a resolver waits for one server.
const PATIENCE: Duration = Duration::from_millis(4900);

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Client {
    Datagram(UdpHandle, SocketAddr),
    Stream(TcpHandle),
}

/// What becomes of a message at once.
pub(super) enum Told {
    Answer(Vec<u8>),
    /// The answer comes later.
    Later,
    /// Nothing: it was no question.
    Never,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// None until it is told what there is: then questions are let fall, and their clients ask again.
    resolver: Option<Resolver>,
    forwarding: Option<Forwarding>,
    owed: HashMap<u64, Owed>,
    /// Until when each is owed, the oldest first.
    due: VecDeque<(Duration, u64)>,
    next: u64,
    latencies: Latencies,
}

/// An answer that is to come.
#[derive(Debug)]
struct Owed {
    foreign: Arc<Foreign>,
    client: Client,
    asked: Duration,
}

impl Desk {
    pub(super) fn install(&mut self, zone: Zone) {
        match &mut self.resolver {
            Some(resolver) => resolver.install(zone),
            None => self.resolver = Some(Resolver::new(zone)),
        }
    }

    pub(super) fn forward_by(&mut self, forwarding: Forwarding) {
        self.forwarding = Some(forwarding);
    }

    pub(super) fn counters(&self) -> Counters {
        self.resolver.as_ref().map(|resolver| resolver.counters().clone()).unwrap_or_default()
    }

    /// How long clients have waited.
    pub(super) fn latencies(&self) -> Latencies {
        self.latencies
    }

    /// Takes note of an answer to what came at `asked`, if there is a clock that goes on meanwhile.
    fn note(&mut self, asked: Duration) {
        if let Some(forwarding) = &self.forwarding {
            self.latencies.note(forwarding.now().saturating_sub(asked));
        }
    }

    /// When the oldest answer that is owed must be given.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.front().map(|(until, _)| *until)
    }

    /// Answers a message, or has others asked.
    pub(super) fn ask(&mut self, now: Duration, message: &[u8], client: Client) -> Told {
        let Some(resolver) = &mut self.resolver else { return Told::Never };
        let transport = match client {
            Client::Datagram(..) => Transport::Udp,
            Client::Stream(_) => Transport::Tcp,
        };
        let foreign = match resolver.query(message, transport) {
            Reply::Answer(answer) => {
                self.note(now);
                return Told::Answer(answer);
            }
            Reply::Nothing => return Told::Never,
            Reply::Foreign(foreign) => Arc::new(foreign),
        };
        let token = self.next;
        let forwarding = self.forwarding.as_ref().filter(|_| self.owed.len() < OWED);
        if forwarding.is_some_and(|forwarding| forwarding.ask(token, Arc::clone(&foreign))) {
            self.next = self.next.wrapping_add(1);
            self.owed.insert(token, Owed { foreign, client, asked: now });
            self.due.push_back((now + PATIENCE, token));
            return Told::Later;
        }
        given(resolver.fail(&foreign)).map_or(Told::Never, Told::Answer)
    }

    /// What the client of a question gets now that others have said something, or that nobody has.
    pub(super) fn settle(
        &mut self,
        token: u64,
        said: Option<(Arc<Known>, u32)>,
    ) -> Option<(Client, Vec<u8>)> {
        let Owed { foreign, client, asked } = self.owed.remove(&token)?;
        self.note(asked);
        let resolver = self.resolver.as_mut()?;
        let reply = match said {
            Some((known, age)) => resolver.pass_on(&foreign, &known, age),
            None => resolver.fail(&foreign),
        };
        Some((client, given(reply)?))
    }

    /// A question that nobody has answered in time.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<u64> {
        while let Some(&(until, token)) = self.due.front() {
            if until > now && self.owed.contains_key(&token) {
                return None;
            }
            self.due.pop_front();
            if self.owed.contains_key(&token) {
                return Some(token);
            }
        }
        None
    }

    /// Forgets a client that has left.
    pub(super) fn forget(&mut self, client: TcpHandle) {
        self.owed.retain(|_, owed| owed.client != Client::Stream(client));
    }
}

fn given(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Answer(answer) => Some(answer),
        Reply::Foreign(_) | Reply::Nothing => None,
    }
}
