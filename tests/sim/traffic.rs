//! What the hosts do: transfers over TCP, questions and answers over UDP, pings. Whatever arrives must be what was sent.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netstack::host::{Host, HostEvent, TcpError, TcpHandle, TcpListener, TcpState, UdpHandle};
use netstack::seed::{Rng, Seed};
use netstack::sim::Lab;

use crate::world::{Member, World, below, chance};

/// How long after a failed connect the next one is tried.
const RETRY: Duration = Duration::from_secs(1);
/// Where the answering sockets are.
pub(crate) const ECHO: u16 = 7;
pub(crate) const TRANSFERS: u16 = 5000;
/// The identifier of all pings.
const PING: u16 = 0x5a17;

/// Octets that differ from place to place and from one use to the next.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Seed::from_u64(seed).rng("pattern");
    (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(len).collect()
}

fn hash(octets: &[u8]) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    hasher.write(octets);
    hasher.finish()
}

fn any(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// One transfer: the client tries until a server has read everything and its end. There is one server, unless a service
/// is asked.
pub(crate) struct Transfer {
    from: usize,
    remote: SocketAddr,
    data: Vec<u8>,
    listeners: Vec<(usize, TcpListener)>,
    client: Option<(TcpHandle, usize)>,
    retry_at: Option<Duration>,
    /// Connections, each with its server's host.
    servers: Vec<(usize, TcpHandle, Vec<u8>)>,
    pub(crate) attempts: u32,
    pub(crate) done: bool,
}

impl Transfer {
    fn client(&mut self, now: Duration, host: &mut Host) {
        if self.retry_at.is_some_and(|at| at > now) || self.done {
            return;
        }
        let Some((client, mut sent)) = self.client else {
            self.retry_at = None;
            self.attempts += 1;
            match host.tcp_connect(now, self.remote) {
                Ok(client) => self.client = Some((client, 0)),
                Err(_) => self.retry_at = Some(now + RETRY),
            }
            return;
        };
        while sent < self.data.len() {
            match host.tcp_send(now, client, &self.data[sent..]) {
                Ok(count) => sent += count,
                Err(TcpError::WouldBlock) => break,
                Err(_) => {
                    host.tcp_abort(now, client);
                    (self.client, self.retry_at) = (None, Some(now + RETRY));
                    return;
                }
            }
            if sent == self.data.len() {
                host.tcp_close(now, client);
            }
        }
        self.client = Some((client, sent));
        // What is sent and not acknowledged may still be lost with the connection.
        if sent == self.data.len() && host.tcp_state(client) == TcpState::Closed {
            host.tcp_release(now, client);
            (self.client, self.retry_at) = (None, Some(now + RETRY));
        }
    }

    /// How far it is, for a failure's report.
    pub(crate) fn describe(&self, lab: &Lab, members: &[Member]) -> String {
        let client = lab.host(members[self.from].id);
        let sent =
            self.client.map(|(handle, sent)| (sent, client.tcp_state(handle), client.tcp_error(handle)));
        let state = |at: usize, handle| lab.host(members[at].id).tcp_state(handle);
        let got: Vec<_> =
            self.servers.iter().map(|&(at, handle, ref got)| (at, got.len(), state(at, handle))).collect();
        format!(
            "host {} to {}, {} octets, attempt {}, retry at {:?}: sent {sent:?}, got {got:?}",
            self.from,
            self.remote,
            self.data.len(),
            self.attempts,
            self.retry_at
        )
    }

    /// Reads on all connections of a host. `tamper` turns a bit of what was read, for the test of this test.
    fn server(&mut self, now: Duration, own: usize, host: &mut Host, tamper: bool) -> Result<(), String> {
        for (_, listener) in self.listeners.iter().filter(|(at, _)| *at == own) {
            while let Some(server) = host.tcp_accept(*listener) {
                self.servers.push((own, server, Vec::new()));
            }
        }
        let mut buffer = [0; 4096];
        let mut at = 0;
        while let Some((place, server, got)) = self.servers.get_mut(at) {
            if *place != own {
                at += 1;
                continue;
            }
            match host.tcp_recv(now, *server, &mut buffer) {
                Ok(0) => {
                    if hash(got) != hash(&self.data) || got.len() != self.data.len() {
                        return Err(format!("{} octets of {} and the end", got.len(), self.data.len()));
                    }
                    self.done = true;
                    host.tcp_release(now, *server);
                    self.servers.swap_remove(at);
                }
                Ok(count) => {
                    buffer[0] ^= u8::from(tamper && got.is_empty());
                    if self.data.get(got.len()..got.len() + count) != Some(&buffer[..count]) {
                        return Err(format!("octets {} and on are not those that were sent", got.len()));
                    }
                    got.extend_from_slice(&buffer[..count]);
                }
                Err(TcpError::WouldBlock) => at += 1,
                Err(_) => {
                    host.tcp_release(now, *server);
                    self.servers.swap_remove(at);
                }
            }
        }
        Ok(())
    }
}

/// A question that was asked: by ping (its sequence number) or datagram.
struct Question {
    from: usize,
    remote: SocketAddr,
    at: Duration,
    asked: bool,
    ping: bool,
    by_service: bool,
    answers: u32,
    data: Vec<u8>,
}

/// All that the hosts do.
pub(crate) struct Traffic {
    pub(crate) transfers: Vec<Transfer>,
    questions: Vec<Question>,
    /// Answering sockets, by host and family.
    echo: BTreeMap<(usize, bool), UdpHandle>,
    /// Asking ones; those for services are others, because whom a foreign station asks on its own bridge nobody remembers,
    /// and the two would look alike to a service's backend.
    asking: BTreeMap<(usize, bool, bool), UdpHandle>,
    tamper: bool,
}

impl Traffic {
    pub(crate) fn new(world: &mut World, rng: &mut Rng, tamper: bool) -> Self {
        let World { lab, members, services, .. } = world;
        let mut traffic = Self {
            transfers: Vec::new(),
            questions: Vec::new(),
            echo: BTreeMap::new(),
            asking: BTreeMap::new(),
            tamper,
        };
        for (number, member) in members.iter().enumerate() {
            let host = lab.host_mut(member.id);
            for v6 in [false, true] {
                let socket = |l4_port| SocketAddr::new(any(v6), l4_port);
                traffic.echo.insert((number, v6), host.udp_bind(socket(ECHO)).unwrap());
                for by_service in [false, true] {
                    traffic.asking.insert((number, v6, by_service), host.udp_bind(socket(0)).unwrap());
                }
            }
        }
        let pair = |rng: &mut Rng| {
            let from = below(rng, members.len());
            (from, (from + 1 + below(rng, members.len() - 1)) % members.len())
        };
        for (number, l4_port) in (TRANSFERS..).take(1 + below(rng, 3)).enumerate() {
            let ((from, to), v6) = (pair(rng), chance(rng, 50));
            let mut by_service = services.iter().filter(|service| service.is_for_transfers());
            let (remote, to) = match by_service.nth(number).filter(|_| chance(rng, 70)) {
                Some(service) => (service.socket(v6), service.backends.clone()),
                None => (SocketAddr::new(members[to].address(v6), l4_port), vec![to]),
            };
            let listeners = to.into_iter().map(|to| {
                let own = SocketAddr::new(members[to].address(v6), l4_port);
                (to, lab.host_mut(members[to].id).tcp_listen(own).unwrap())
            });
            let most = if chance(rng, 20) { 100_000 } else { 20_000 };
            let len = 1 + below(rng, most);
            traffic.transfers.push(Transfer {
                from,
                remote,
                listeners: listeners.collect(),
                data: pattern(rng.next_u64(), len),
                client: None,
                retry_at: None,
                servers: Vec::new(),
                attempts: 0,
                done: false,
            });
        }
        for number in 0..below(rng, 16) {
            let ((from, to), v6) = (pair(rng), chance(rng, 50));
            let mut data = pattern(rng.next_u64(), 2 + below(rng, 1000));
            data[..2].copy_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
            let mut by_service = services.iter().filter(|service| !service.is_for_transfers());
            let service = by_service.next().filter(|_| chance(rng, 50));
            let host = SocketAddr::new(members[to].address(v6), ECHO);
            traffic.questions.push(Question {
                from,
                remote: service.map_or(host, |service| service.socket(v6)),
                at: Duration::from_millis(u64::from(rng.below(3000))),
                asked: false,
                ping: service.is_none() && chance(rng, 50),
                by_service: service.is_some(),
                answers: 0,
                data,
            });
        }
        traffic
    }

    /// Whether every transfer is over and every question asked.
    pub(crate) fn is_done(&self) -> bool {
        self.transfers.iter().all(|t| t.done) && self.questions.iter().all(|q| q.asked)
    }

    /// Questions without an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.questions.iter().filter(|q| q.answers == 0).count()
    }

    pub(crate) fn answers(&self) -> u64 {
        self.questions.iter().map(|q| u64::from(q.answers)).sum()
    }

    /// When something is to be done although nothing happened.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let retries = self.transfers.iter().filter(|t| !t.done).filter_map(|t| t.retry_at);
        retries.chain(self.questions.iter().filter(|q| !q.asked).map(|q| q.at)).min()
    }

    /// Does on one host what its owner would do now.
    pub(crate) fn turn(&mut self, lab: &mut Lab, members: &[Member], at: usize) -> Result<(), String> {
        let now = lab.now();
        let host = lab.host_mut(members[at].id);
        while let Some(event) = host.poll_event() {
            // Another's identifier is no answer to us: a liar may have asked in our name.
            if let HostEvent::EchoReply { from, id: PING, sequence, payload, .. } = event {
                self.answered(at, SocketAddr::new(from, ECHO), usize::from(sequence), &payload, true)?;
            }
        }
        for transfer in &mut self.transfers {
            if transfer.from == at {
                transfer.client(now, host);
            }
            transfer
                .server(now, at, host, self.tamper)
                .map_err(|e| format!("transfer to {}: {e}", transfer.remote))?;
        }
        for (sequence, question) in (0..).zip(&mut self.questions) {
            if question.from == at && !question.asked && question.at <= now {
                question.asked = true;
                let remote = question.remote;
                if question.ping {
                    // The answer may be that there is no way, or a path MTU: then nothing is asked.
                    let _ = host.ping(now, remote.ip(), PING, sequence, &question.data);
                } else if let Some(&socket) = self.asking.get(&(at, remote.is_ipv6(), question.by_service)) {
                    let _ = host.udp_send_to(now, socket, &question.data, remote);
                }
            }
        }
        let mut buffer = [0; 2000];
        for v6 in [false, true] {
            let (echo, asking) = (self.echo[&(at, v6)], [false, true].map(|by| self.asking[&(at, v6, by)]));
            while let Ok(got) = host.udp_recv_from(echo, &mut buffer) {
                let _ = host.udp_send_to(now, echo, &buffer[..got.len], got.from);
            }
            for asking in asking {
                while let Ok(got) = host.udp_recv_from(asking, &mut buffer) {
                    let octets = &buffer[..got.len];
                    let number = octets.first_chunk().map_or(0, |&octets| u16::from_be_bytes(octets));
                    self.answered(at, got.from, usize::from(number), octets, false)?;
                }
            }
        }
        Ok(())
    }

    /// Notes an answer, which must be one to a question that was asked.
    fn answered(
        &mut self,
        at: usize,
        from: SocketAddr,
        number: usize,
        data: &[u8],
        ping: bool,
    ) -> Result<(), String> {
        let question = self
            .questions
            .get_mut(number)
            .filter(|q| q.asked && q.from == at && q.remote == from && q.ping == ping && q.data == data);
        let question =
            question.ok_or_else(|| format!("host {at} has an answer from {from} to no question"))?;
        question.answers += 1;
        Ok(())
    }
}
