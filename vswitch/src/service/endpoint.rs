//! Who answers for a Service, and whether he may be asked.

use std::net::IpAddr;
use std::sync::Arc;

use super::words::Distribution;

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition {
    /// It takes new connections.
    pub ready: bool,
    /// It answers, whether it is about to go or not.
    pub serving: bool,
    /// It is about to go.
    pub terminating: bool,
}

impl Condition {
    /// That of a pod which says whether it is ready and is perhaps about to go.
    pub const fn of_pod(ready: bool, terminating: bool, not_ready_too: bool) -> Self {
        Self { ready: not_ready_too || (ready && !terminating), serving: ready, terminating }
    }

    /// Whether it is asked when nobody is ready.
    pub const fn is_last_resort(self) -> bool {
        self.serving && self.terminating
    }

    /// Whether it may be asked by anybody under any circumstances.
    pub const fn is_usable(self) -> bool {
        self.ready || self.is_last_resort()
    }
}

/// For whom an endpoint is meant; for everybody if empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// Clients of these zones.
    pub zones: Vec<Arc<str>>,
    /// Clients of these nodes.
    pub nodes: Vec<Arc<str>>,
}

impl Hints {
    /// Those of a pod of this node and zone.
    pub fn of_pod(distribution: Distribution, node: &Arc<str>, zone: Option<&Arc<str>>) -> Self {
        let zones = || zone.into_iter().cloned().collect();
        match distribution {
            Distribution::Even => Self::default(),
            Distribution::SameZone => Self { zones: zones(), nodes: Vec::new() },
            Distribution::SameNode => Self { zones: zones(), nodes: vec![Arc::clone(node)] },
        }
    }
}

/// One address and port of a Service's port, in one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its part of new connections, against others.
    pub weight: u32,
    /// Whether it may be asked.
    pub condition: Condition,
    /// The node it is on.
    pub node: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// For whom it is meant.
    pub hints: Hints,
    /// The pod, `NAMESPACE/NAME`, if it is known.
    pub pod: Option<Arc<str>>,
    /// Its name beneath its Service, if it asks for one.
    pub hostname: Option<Arc<str>>,
}

/// Of several that have one address and port, the one that is the most ready. In order of address and port.
pub(super) fn merge(mut all: Vec<Endpoint>) -> Vec<Endpoint> {
    let rank = |e: &Endpoint| (!e.condition.ready, !e.condition.serving, e.condition.terminating);
    all.sort_by(|a, b| (a.address, a.port).cmp(&(b.address, b.port)).then_with(|| rank(a).cmp(&rank(b))));
    all.dedup_by(|later, first| (later.address, later.port) == (first.address, first.port));
    // They stay for long, of thousands of Services.
    all.shrink_to_fit();
    all
}
