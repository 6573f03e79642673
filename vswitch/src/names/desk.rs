//! Questions and their answers, and those that wait for somebody else's.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dns::{Counters, Foreign, Known, Reply, Resolver, Transport, Zone};
use netstack::host::{TcpHandle, UdpHandle};

use super::Forwarding;
use super::latency::Latencies;
use super::query_log::Logged;

/// Clients that wait for what others say. More are told at once that nobody knows.
const OWED: usize = 4096;
/// How long they wait at the most: as long as a resolver waits for one server.
const PATIENCE: Duration = Duration::from_millis(4900);

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Client {
    Datagram(UdpHandle, SocketAddr),
    Stream(TcpHandle, SocketAddr),
}

impl Client {
    fn transport(self) -> Transport {
        match self {
            Self::Datagram(..) => Transport::Udp,
            Self::Stream(..) => Transport::Tcp,
        }
    }

    fn address(self) -> SocketAddr {
        match self {
            Self::Datagram(_, from) | Self::Stream(_, from) => from,
        }
    }
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
    /// Queries that the log could not take.
    unlogged: u64,
}

/// An answer that is to come.
#[derive(Debug)]
struct Owed {
    foreign: Arc<Foreign>,
    client: Client,
    asked: Duration,
    /// What came, if it is to be logged.
    query: Vec<u8>,
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

    /// Queries that the log could not take.
    pub(super) fn unlogged(&self) -> u64 {
        self.unlogged
    }

    /// Takes note of an answer to what came at `asked`, if there is a clock that goes on meanwhile.
    fn note(&mut self, asked: Duration, client: Client, query: &[u8], answer: &[u8]) {
        let Some(forwarding) = &self.forwarding else { return };
        let took = forwarding.now().saturating_sub(asked);
        self.latencies.note(took);
        if forwarding.logs() && !query.is_empty() {
            let (from, transport) = (client.address(), client.transport());
            let logged = Logged { from, transport, query: query.to_vec(), answer: answer.to_vec(), took };
            self.unlogged += u64::from(!forwarding.log(logged));
        }
    }

    /// When the oldest answer that is owed must be given.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.front().map(|(until, _)| *until)
    }

    /// Answers a message, or has others asked.
    pub(super) fn ask(&mut self, now: Duration, message: &[u8], client: Client) -> Told {
        let Some(resolver) = &mut self.resolver else { return Told::Never };
        let foreign = match resolver.query(message, client.transport()) {
            Reply::Answer(answer) => {
                self.note(now, client, message, &answer);
                return Told::Answer(answer);
            }
            Reply::Nothing => return Told::Never,
            Reply::Foreign(foreign) => Arc::new(foreign),
        };
        let token = self.next;
        let forwarding = self.forwarding.as_ref().filter(|_| self.owed.len() < OWED);
        if let Some(forwarding) = forwarding.filter(|way| way.ask(token, Arc::clone(&foreign))) {
            self.next = self.next.wrapping_add(1);
            let query = if forwarding.logs() { message.to_vec() } else { Vec::new() };
            self.owed.insert(token, Owed { foreign, client, asked: now, query });
            self.due.push_back((now + PATIENCE, token));
            return Told::Later;
        }
        let Some(answer) = given(resolver.fail(&foreign)) else { return Told::Never };
        self.note(now, client, message, &answer);
        Told::Answer(answer)
    }

    /// What the client of a question gets now that others have said something, or that nobody has.
    pub(super) fn settle(
        &mut self,
        token: u64,
        said: Option<(Arc<Known>, u32)>,
    ) -> Option<(Client, Vec<u8>)> {
        let Owed { foreign, client, asked, query } = self.owed.remove(&token)?;
        let resolver = self.resolver.as_mut()?;
        let reply = match said {
            Some((known, age)) => resolver.pass_on(&foreign, &known, age),
            None => resolver.fail(&foreign),
        };
        let answer = given(reply)?;
        self.note(asked, client, &query, &answer);
        Some((client, answer))
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
        self.owed.retain(|_, owed| !matches!(owed.client, Client::Stream(own, _) if own == client));
    }
}

fn given(reply: Reply) -> Option<Vec<u8>> {
    match reply {
        Reply::Answer(answer) => Some(answer),
        Reply::Foreign(_) | Reply::Nothing => None,
    }
}
