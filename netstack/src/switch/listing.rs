//! What there is of connections, in plain numbers, for whoever shows or counts them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;
use core::time::Duration;

use lb::Mark;
use nat::Nat;
use nat::connection::{Connection, Status};
use nat::ports::Protocol;
use nat::tuple::{Address, Direction, Tuple};

use super::Switch;
use super::connections::mark;
use crate::config::nat::PoolConfig;
use crate::config::translator;

/// A connection as it is now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionEntry {
    /// IP protocol number.
    pub protocol: u8,
    /// The state of its protocol, as Linux's tools write it; none where the protocol has no states.
    pub state: Option<&'static str>,
    /// Whether there was an answer.
    pub is_answered: bool,
    /// Whether it is kept when the table is full.
    pub is_assured: bool,
    /// How long it is kept if it stays silent.
    pub remaining: Duration,
    /// Source and destination of packets from who opened it, as they come. Of a query of ICMP or ICMPv6 the source's port
    /// is its identifier and the destination's its type; other protocols without ports have 0.
    pub original: [SocketAddr; 2],
    /// The same of answers, as they come. Where it is not the inverse, packets are translated.
    pub reply: [SocketAddr; 2],
    /// The service that it was opened through; the registry of [`Switch::balancer`] knows [which](lb::Registry::of).
    pub mark: Option<Mark>,
}

impl ConnectionEntry {
    fn of<A: Address>(connection: &Connection<A>, now: Duration) -> Self {
        let ends = |tuple: Tuple<A>| [tuple.source.to_socket(), tuple.destination.to_socket()];
        let original = connection.tuple(Direction::Original);
        Self {
            protocol: original.protocol,
            state: connection.state.name(),
            is_answered: connection.status.has(Status::SEEN_REPLY),
            is_assured: connection.status.has(Status::ASSURED),
            remaining: connection.remaining(now),
            original: ends(original),
            reply: ends(connection.tuple(Direction::Reply)),
            mark: mark(connection),
        }
    }
}

/// How many ports of an external address are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortUse {
    /// The address.
    pub address: IpAddr,
    /// Of which protocol: `tcp`, `udp`, `icmp` or `sctp`.
    pub protocol: &'static str,
    /// Ports that cannot be given out now.
    pub taken: u32,
    /// All that may be given out.
    pub permitted: u32,
}

impl Switch {
    /// The connections of both families, those aside whose time is up.
    pub fn connection_entries(&self, now: Duration) -> impl Iterator<Item = ConnectionEntry> + '_ {
        self.connection_entries_in(now, 0..self.connection_slots())
    }

    /// Those of them that are in these slots, for who looks at some at a time: a connection stays in its slot.
    pub fn connection_entries_in(
        &self,
        now: Duration,
        slots: Range<usize>,
    ) -> impl Iterator<Item = ConnectionEntry> + '_ {
        let (v4, v6) = self.connections().unzip();
        let v4 = v4.into_iter().flat_map({
            let slots = slots.clone();
            move |nat| entries(nat, now, slots.clone())
        });
        v4.chain(v6.into_iter().flat_map(move |nat| entries(nat, now, slots.clone())))
    }

    /// All slots are below.
    pub fn connection_slots(&self) -> usize {
        self.connections().map_or(0, |(v4, v6)| v4.slots().max(v6.slots()))
    }

    /// How many ports are taken, by external address and protocol.
    pub fn port_uses(&self) -> Vec<PortUse> {
        let mut uses = Vec::new();
        if let (Some((v4, v6)), Some(translator)) = (self.connections(), self.snapshot().translator()) {
            for (number, pool) in translator.pools().iter().enumerate() {
                let Some(pool) = pool else { continue };
                of_pool::<Ipv4Addr>(v4, number, pool, &mut uses);
                of_pool::<Ipv6Addr>(v6, number, pool, &mut uses);
            }
        }
        uses
    }
}

fn entries<A: Address>(
    nat: &Nat<A>,
    now: Duration,
    slots: Range<usize>,
) -> impl Iterator<Item = ConnectionEntry> + '_ {
    let all = nat.connections_in(slots).map(move |(_, connection)| ConnectionEntry::of(connection, now));
    all.filter(|entry| !entry.remaining.is_zero())
}

/// Identifiers of queries, all of which may be given out whatever the pool's ports.
const IDENTIFIERS: u32 = 1 << 16;

fn of_pool<A: Address>(nat: &Nat<A>, number: usize, config: &PoolConfig, uses: &mut Vec<PortUse>) {
    let Some(pool) = nat.pool(number) else { return };
    let ports = translator::pool::<A>(config, 0).ports.len();
    let protocols = [
        ("tcp", Protocol::Tcp, ports),
        ("udp", Protocol::Udp, ports),
        ("icmp", Protocol::Icmp, IDENTIFIERS),
        ("sctp", Protocol::Sctp, ports),
    ];
    for address in pool.addresses() {
        uses.extend(protocols.map(|(name, protocol, permitted)| PortUse {
            address: address.into(),
            protocol: name,
            taken: permitted.saturating_sub(pool.free(address, protocol)),
            permitted,
        }));
    }
}
