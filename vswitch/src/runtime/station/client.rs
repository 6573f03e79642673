//! What an in-process pod can be asked to do, and doing it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netstack::host::{Host, TcpHandle, UdpHandle};
use netstack::seed::{Rng, Seed};

use super::conversation::Conversation;
use crate::probe::{self, Report};

/// How long one message is waited for.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// The identifier of our echo requests.
const ECHO_ID: u16 = 7;

/// What an in-process pod is asked to do: the same as [`crate::probe`]'s clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Octets each way over TCP, hashes compared.
    Tcp {
        /// The server.
        to: SocketAddr,
        /// Octets each way.
        bytes: u64,
    },
    /// Datagrams that come back equal, one at a time.
    Udp {
        /// The server.
        to: SocketAddr,
        /// How many.
        count: u64,
        /// Octets each.
        size: usize,
    },
    /// Echo requests, one at a time.
    Ping {
        /// Whom.
        to: IpAddr,
        /// How many.
        count: u64,
        /// Octets each.
        size: usize,
    },
}

enum Work {
    Tcp { handle: TcpHandle, conversation: Conversation, bytes: u64 },
    Messages(Messages),
    Failed(String),
}

/// Messages sent one at a time.
struct Messages {
    to: SocketAddr,
    /// None for echo requests.
    socket: Option<UdpHandle>,
    count: u64,
    sent: u64,
    waiting_since: Option<Duration>,
    payload: Vec<u8>,
    rng: Rng,
    rtts: Vec<f64>,
}

/// One job in progress.
pub(super) struct Client {
    started: Duration,
    work: Work,
    result: Option<Result<Report, String>>,
    done: bool,
}

impl Client {
    pub(super) fn start(host: &mut Host, now: Duration, exchange: Exchange) -> Self {
        let work = match exchange {
            Exchange::Tcp { to, bytes } => match host.tcp_connect(now, to) {
                Ok(handle) => Work::Tcp { handle, conversation: Conversation::client(bytes), bytes },
                Err(error) => Work::Failed(error.to_string()),
            },
            Exchange::Udp { to, count, size } => {
                let any = if to.is_ipv4() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                } else {
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                };
                match host.udp_bind(SocketAddr::new(any, 0)) {
                    Ok(socket) => Work::Messages(Messages::new(to, Some(socket), count, size)),
                    Err(error) => Work::Failed(error.to_string()),
                }
            }
            Exchange::Ping { to, count, size } => {
                Work::Messages(Messages::new(SocketAddr::new(to, 0), None, count, size))
            }
        };
        Self { started: now, work, result: None, done: false }
    }

    pub(super) fn take_result(&mut self) -> Option<Result<Report, String>> {
        self.result.take()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match &self.work {
            Work::Messages(m) if !self.done => {
                Some(m.waiting_since.map_or(Duration::ZERO, |at| at + MESSAGE_TIMEOUT))
            }
            Work::Failed(_) if !self.done => Some(Duration::ZERO),
            Work::Tcp { .. } | Work::Messages(_) | Work::Failed(_) => None,
        }
    }

    pub(super) fn echo_reply(&mut self, now: Duration, sequence: u16, payload: &[u8]) {
        if let Work::Messages(m) = &mut self.work
            && m.socket.is_none()
            && u64::from(sequence) == m.sent & 0xffff
        {
            m.answered(now, payload);
        }
    }

    pub(super) fn advance(&mut self, host: &mut Host, now: Duration, buffer: &mut [u8]) {
        if self.done {
            return;
        }
        let outcome = match &mut self.work {
            Work::Failed(reason) => Some(Err(reason.clone())),
            Work::Tcp { handle, conversation, bytes } => match conversation.advance(host, now, *handle) {
                Ok(false) => None,
                Ok(true) => {
                    host.tcp_release(now, *handle);
                    Some(Ok(Report { bytes: *bytes * 2, ..Report::default() }))
                }
                Err(reason) => {
                    host.tcp_abort(now, *handle);
                    Some(Err(reason))
                }
            },
            Work::Messages(messages) => messages.advance(host, now, buffer),
        };
        if let Some(outcome) = outcome {
            let seconds = now.saturating_sub(self.started).as_secs_f64();
            self.result = Some(outcome.map(|report| Report { seconds, ..report }));
            self.done = true;
        }
    }
}

impl Messages {
    fn new(to: SocketAddr, socket: Option<UdpHandle>, count: u64, size: usize) -> Self {
        Self {
            to,
            socket,
            count,
            sent: 0,
            waiting_since: None,
            payload: vec![0; size],
            rng: Seed::from_u64(count).rng("messages"),
            rtts: Vec::new(),
        }
    }

    fn answered(&mut self, now: Duration, payload: &[u8]) {
        if let (Some(since), true) = (self.waiting_since, payload == self.payload) {
            self.rtts.push(now.saturating_sub(since).as_secs_f64());
            self.waiting_since = None;
        }
    }

    fn advance(
        &mut self,
        host: &mut Host,
        now: Duration,
        buffer: &mut [u8],
    ) -> Option<Result<Report, String>> {
        if let Some(socket) = self.socket {
            while let Ok(datagram) = host.udp_recv_from(socket, buffer) {
                self.answered(now, &buffer[..datagram.len]);
            }
        }
        if self.waiting_since.is_some_and(|since| now < since + MESSAGE_TIMEOUT) {
            return None;
        }
        if self.sent == self.count {
            if let Some(socket) = self.socket {
                host.udp_close(socket);
            }
            return Some(Ok(self.report()));
        }
        probe::fill(&mut self.rng, &mut self.payload);
        self.sent += 1;
        self.waiting_since = Some(now);
        let sequence = u16::try_from(self.sent & 0xffff).unwrap_or(0);
        let sent = match self.socket {
            Some(socket) => host.udp_send_to(now, socket, &self.payload, self.to),
            None => host.ping(now, self.to.ip(), ECHO_ID, sequence, &self.payload),
        };
        sent.err().map(|error| Err(error.to_string()))
    }

    fn report(&mut self) -> Report {
        self.rtts.sort_by(f64::total_cmp);
        Report {
            bytes: self.rtts.len() as u64 * self.payload.len() as u64 * 2,
            seconds: 0.0,
            sent: self.count,
            received: self.rtts.len() as u64,
            median_rtt: self.rtts.get(self.rtts.len() / 2).copied().unwrap_or_default(),
        }
    }
}
