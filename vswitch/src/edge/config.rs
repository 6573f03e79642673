//! What an edge is made from, and what it counts.

use std::net::IpAddr;
use std::time::Duration;

use netstack::addr::{IpNet, MacAddr};

use super::Reach;

/// What an [`Edge`](super::Edge) is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EdgeConfig {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its own addresses, one of each family at most: what it answers pings at and sends errors from.
    pub addresses: Vec<IpAddr>,
    /// The MAC address of the router that everything for the inside goes to.
    pub router: MacAddr,
    /// The largest IP packet on its link.
    pub mtu: u16,
    /// What pods may reach.
    pub reach: Reach,
    /// What is inside: clients of doors who have such an address cannot be seen with it, as no answer to it comes here.
    pub inside: Vec<IpNet>,
    /// How much it may hold.
    pub limits: EdgeLimits,
    /// How long it waits for what.
    pub timers: EdgeTimers,
}

impl EdgeConfig {
    /// An edge with these addresses and everything else as usual.
    pub fn new(mac: MacAddr, addresses: Vec<IpAddr>, router: MacAddr) -> Self {
        let (limits, timers) = (EdgeLimits::default(), EdgeTimers::default());
        Self {
            mac,
            addresses,
            router,
            mtu: 1500,
            reach: Reach::default(),
            inside: Vec::new(),
            limits,
            timers,
        }
    }
}

/// How much an edge may hold. At each bound something named happens, and is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EdgeLimits {
    /// TCP connections. At the limit a new one is reset; none that stands makes room.
    pub connections: usize,
    /// Flows of UDP and echo. At the limit the one that would end soonest makes room.
    pub messages: usize,
    /// Octets from pods that sockets have not taken yet, of all connections. What is over is dropped, and its sender
    /// sends it again.
    pub held: usize,
    /// Frames that wait to be sent, apart from segments, which are made when there is room for them.
    pub queue: usize,
    /// Datagrams of which not all fragments have come. At the limit the oldest makes room.
    pub fragmented: usize,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self { connections: 65_536, messages: 8192, held: 64 << 20, queue: 4096, fragmented: 64 }
    }
}

/// How long an edge waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EdgeTimers {
    /// For a connection to the outside to stand. Linux gives up by itself after 130 s.
    pub connect: Duration,
    /// Before it asks whether a pod that says nothing is still there (RFC 9293 section 3.8.4).
    pub idle: Duration,
    /// The same, once one side has ended its stream.
    pub half_closed: Duration,
    /// Between such questions without an answer.
    pub probe: Duration,
    /// How long a connection that is over is remembered, for a pod that has missed the last acknowledgement.
    pub linger: Duration,
    /// For messages of flows that have never been answered.
    pub unreplied: Duration,
    /// For messages to and from name servers, which are asked once.
    pub dns: Duration,
    /// For messages of flows that have been answered (RFC 4787 REQ-5 wants more than two minutes).
    pub replied: Duration,
    /// For answers to echo requests.
    pub echo: Duration,
    /// For the rest of a datagram whose first fragment has come (RFC 8200 section 4.5 has 60 s, Linux 30).
    pub fragments: Duration,
}

impl Default for EdgeTimers {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(140),
            idle: Duration::from_hours(2),
            half_closed: Duration::from_secs(60),
            probe: Duration::from_secs(15),
            linger: Duration::from_secs(2),
            unreplied: Duration::from_secs(30),
            dns: Duration::from_secs(10),
            replied: Duration::from_secs(180),
            echo: Duration::from_secs(30),
            fragments: Duration::from_secs(30),
        }
    }
}

/// Why something went no further.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EdgeDrop {
    /// No frame or packet that makes sense, or not for the edge.
    Malformed,
    /// A checksum is wrong.
    Checksum,
    /// Something that the edge does not carry: another protocol, TCP in fragments.
    NotCarried,
    /// Pods may not reach that.
    Prohibited,
    /// Its hop limit ends here.
    HopLimit,
    /// A segment of no connection.
    NoConnection,
    /// A segment that comes before one that is missing.
    OutOfOrder,
    /// A segment that is beyond what was offered, or that makes no sense where its connection is.
    Unacceptable,
    /// Octets that sockets could not take, beyond what is held for them.
    Held,
    /// There are as many connections as there may be.
    TooManyConnections,
    /// This process or machine has no sockets left.
    NoSockets,
    /// A socket that was to carry it said no.
    Refused,
    /// A socket had no room for a message.
    NoRoom,
    /// Fragments that did not become a datagram.
    Fragments,
    /// Too many frames waited to be sent.
    QueueFull,
    /// A message from outside that is no answer to what was asked.
    Stray,
}

impl EdgeDrop {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::Checksum,
        Self::NotCarried,
        Self::Prohibited,
        Self::HopLimit,
        Self::NoConnection,
        Self::OutOfOrder,
        Self::Unacceptable,
        Self::Held,
        Self::TooManyConnections,
        Self::NoSockets,
        Self::Refused,
        Self::NoRoom,
        Self::Fragments,
        Self::QueueFull,
        Self::Stray,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::NotCarried => "not_carried",
            Self::Prohibited => "prohibited",
            Self::HopLimit => "hop_limit",
            Self::NoConnection => "no_connection",
            Self::OutOfOrder => "out_of_order",
            Self::Unacceptable => "unacceptable",
            Self::Held => "held",
            Self::TooManyConnections => "too_many_connections",
            Self::NoSockets => "no_sockets",
            Self::Refused => "refused",
            Self::NoRoom => "no_room",
            Self::Fragments => "fragments",
            Self::QueueFull => "queue_full",
            Self::Stray => "stray",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Malformed => 0,
            Self::Checksum => 1,
            Self::NotCarried => 2,
            Self::Prohibited => 3,
            Self::HopLimit => 4,
            Self::NoConnection => 5,
            Self::OutOfOrder => 6,
            Self::Unacceptable => 7,
            Self::Held => 8,
            Self::TooManyConnections => 9,
            Self::NoSockets => 10,
            Self::Refused => 11,
            Self::NoRoom => 12,
            Self::Fragments => 13,
            Self::QueueFull => 14,
            Self::Stray => 15,
        }
    }
}

/// What an edge has done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EdgeCounters {
    /// Connections that pods asked for.
    pub asked: u64,
    /// Of those, how many came to stand.
    pub established: u64,
    /// How many the outside refused, for whatever reason.
    pub refused: u64,
    /// Connections that a pod broke off.
    pub reset_by_pods: u64,
    /// Connections that the outside broke off.
    pub reset_by_outside: u64,
    /// Connections whose pod did not answer any more.
    pub given_up: u64,
    /// Octets carried over TCP: to the outside, and to pods.
    pub octets: [u64; 2],
    /// Segments that were sent to a pod again.
    pub retransmitted: u64,
    /// Messages carried: to the outside, and to pods.
    pub messages: [u64; 2],
    /// Flows of messages that made room for others.
    pub displaced: u64,
    /// Errors that pods were told of by ICMP.
    pub errors: u64,
    dropped: [u64; EdgeDrop::ALL.len()],
}

impl EdgeCounters {
    /// How much went no further for this reason.
    pub fn dropped(&self, reason: EdgeDrop) -> u64 {
        self.dropped[reason.index()]
    }

    pub(super) fn drop(&mut self, reason: EdgeDrop) {
        self.dropped[reason.index()] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place_and_name() {
        let names: std::collections::BTreeSet<&str> =
            EdgeDrop::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), EdgeDrop::ALL.len());
        for (at, reason) in EdgeDrop::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }
}
