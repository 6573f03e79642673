//! What an agent is to do, and how it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::cluster::Protocol;

/// What listens in a node's own namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeDuties {
    /// Ports that lead elsewhere.
    pub relays: Vec<Relay>,
    /// Health checks of load balancers.
    pub health_checks: Vec<HealthCheck>,
}

/// A port of the node that leads elsewhere. TCP and UDP are relayed, SCTP is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    /// What is carried.
    pub protocol: Protocol,
    /// At which addresses: loopback ones, and the node's own.
    pub listen: Vec<IpAddr>,
    /// The port.
    pub port: u16,
    /// Where it leads, each in its turn. With nobody there nothing listens, so that whoever asks is refused.
    pub to: Vec<SocketAddr>,
}

/// A port that tells load balancers whether a service has endpoints on this node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The port, at all addresses of the node.
    pub port: u16,
    /// The service's namespace.
    pub namespace: String,
    /// The service.
    pub name: String,
    /// How many of its ready endpoints are on this node; with none the answer is 503.
    pub local_endpoints: u32,
}

/// Duties by what listens.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Listeners {
    pub(super) relays: BTreeMap<(Protocol, SocketAddr), Vec<SocketAddr>>,
    pub(super) health: BTreeMap<u16, HealthCheck>,
}

impl Listeners {
    pub(super) fn extend(&mut self, other: Self) {
        self.relays.extend(other.relays);
        self.health.extend(other.health);
    }

    pub(super) fn of(duties: &NodeDuties) -> Self {
        let relays = duties.relays.iter().flat_map(|relay| {
            let at = relay.listen.iter().map(|&address| SocketAddr::new(address, relay.port));
            at.map(|at| ((relay.protocol, at), relay.to.clone()))
        });
        let health = duties.health_checks.iter().map(|check| (check.port, check.clone()));
        Self { relays: relays.collect(), health: health.collect() }
    }

    /// What is to be told to whoever knows `self`, that he may know `next`.
    pub(super) fn order(&self, next: &Self, reset: bool) -> Order {
        Order {
            reset,
            relays: changes(&self.relays, &next.relays)
                .map(|((protocol, at), to)| RelayOrder { protocol, at, to })
                .collect(),
            health: changes(&self.health, &next.health)
                .map(|(port, check)| HealthOrder { port, check })
                .collect(),
        }
    }
}

/// Every key that is new, has another value, or is gone.
fn changes<'a, K: Ord + Copy, V: PartialEq + Clone>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, Option<V>)> + 'a {
    let gone = before.keys().filter(|key| !after.contains_key(key)).map(|key| (*key, None));
    let changed = after.iter().filter(|(key, value)| before.get(key) != Some(value));
    gone.chain(changed.map(|(key, value)| (*key, Some(value.clone()))))
}

/// One line from vswitch to an agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Whether this is all there is: what is not named is to end.
    pub(super) reset: bool,
    pub(super) relays: Vec<RelayOrder>,
    pub(super) health: Vec<HealthOrder>,
}

impl Order {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.reset && self.relays.is_empty() && self.health.is_empty()
    }
}

/// Where a port leads from now on; nowhere if it is to be no relay any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RelayOrder {
    pub(super) protocol: Protocol,
    pub(super) at: SocketAddr,
    pub(super) to: Option<Vec<SocketAddr>>,
}

/// What a port says from now on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct HealthOrder {
    pub(super) port: u16,
    pub(super) check: Option<HealthCheck>,
}

/// The first line, from an agent to vswitch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) node: String,
}
