//! What one port of a Service is on one node: its frontends, and the pools behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lb::{Backend, Entrance, Frontend, Pool, Serving, Way};

use super::endpoint::Endpoint;
use super::facts::NodeFacts;
use super::given::Planned;
use super::spec::Spec;
use super::ways::{self, Door, ORIGINS, Policies, Scope};
use super::words::Family;
use crate::cluster::Protocol;

/// One port of a Service in one family.
#[derive(Debug)]
pub(super) struct Served {
    /// What the registries call it.
    pub(super) name: Arc<str>,
    pub(super) family: Family,
    /// Its place in the Service's list.
    pub(super) port: usize,
    pub(super) endpoints: Vec<Endpoint>,
    /// The pools in use, on any node.
    pub(super) pools: Vec<Arc<Pool>>,
}

/// Making pools, each once.
pub(super) struct Pooling<'a> {
    pub(super) planned: &'a Planned,
    pub(super) key: [u8; 16],
    pub(super) before: &'a [Arc<Pool>],
    pub(super) made: Vec<Arc<Pool>>,
}

impl Pooling<'_> {
    fn pool(&mut self, endpoints: &[&Endpoint]) -> Arc<Pool> {
        let Spec { policy, table_size, .. } = self.planned.spec;
        let of = |e: &&Endpoint| Backend { address: e.address, port: e.port, weight: e.weight };
        let mut backends: Vec<Backend> = endpoints.iter().map(of).collect();
        backends.sort_unstable();
        let same = |pool: &&Arc<Pool>| {
            pool.backends() == backends && pool.policy() == policy && is_sized(pool, table_size)
        };
        if let Some(pool) = self.made.iter().chain(self.before).find(same).cloned() {
            if !self.made.iter().any(|made| Arc::ptr_eq(made, &pool)) {
                self.made.push(Arc::clone(&pool));
            }
            return pool;
        }
        let make = |backends: Vec<Backend>, size| Pool::new(backends, policy, size, self.key);
        // A table that is too small for so many backends is made larger; without any backend nothing can go wrong.
        let pool = make(backends.clone(), table_size).or_else(|_| make(backends, None));
        let pool = Arc::new(
            pool.or_else(|_| make(Vec::new(), None)).unwrap_or_else(|_| unreachable!("an empty pool")),
        );
        self.made.push(Arc::clone(&pool));
        pool
    }
}

/// Whether a pool's table, if it has one, has this size, or the one that it has if nobody says.
fn is_sized(pool: &Pool, wanted: Option<u32>) -> bool {
    let weighted = || pool.backends().iter().filter(|backend| backend.weight > 0).count();
    pool.table_size().is_none_or(|size| size == wanted.unwrap_or_else(|| lb::maglev::size_for(weighted())))
}

/// Every frontend of a Service's port in one family on one node.
pub(super) fn entrances(
    owners: &BTreeMap<IpAddr, Option<Arc<str>>>,
    planned: &Planned,
    served: &Served,
    node: &NodeFacts,
    masquerade_all: bool,
    pools: &mut Pooling<'_>,
) -> Vec<Entrance> {
    let Planned { spec, allocation, .. } = planned;
    if !spec.is_proxied() {
        return Vec::new();
    }
    let port = &spec.ports[served.port];
    let policies =
        Policies { internal_local: spec.internal_local, external_local: spec.external_local, masquerade_all };
    let zone = node.zone.as_deref();
    let mut pool = |scope| pools.pool(&ways::chosen(&served.endpoints, scope, &node.name, zone));
    let all = pool(Scope::Cluster);
    let local = (spec.internal_local || spec.external_local).then(|| pool(Scope::Local));
    let way = |door, origin| {
        let lead = ways::lead(door, origin, policies);
        let pool = match (lead.scope, &local) {
            (Scope::Local, Some(local)) => local,
            (Scope::Local, None) | (Scope::Cluster, _) => &all,
        };
        let when_empty = ways::refusal(lead.scope, &served.endpoints);
        Way { pool: Arc::clone(pool), masquerade: lead.masquerade, when_empty }
    };
    let ranges = spec.source_ranges.iter().filter(|net| Family::of(net.addr()) == served.family);
    let ranges: Vec<IpNet> = ranges.copied().collect();
    let mut entrances: Vec<Entrance> = Vec::new();
    let mut enter = |door, address: IpAddr, number| {
        let frontend = Frontend { address, protocol: port.protocol.number(), port: number };
        if Family::of(address) != served.family || entrances.iter().any(|e| e.frontend == frontend) {
            return;
        }
        let balanced = matches!(door, Door::LoadBalancer | Door::ProxiedLoadBalancer);
        let sources = if balanced { ranges.clone() } else { Vec::new() };
        entrances.push(Entrance { frontend, sources, ways: ORIGINS.map(|origin| way(door, origin)) });
    };
    allocation.cluster_ips.iter().for_each(|address| enter(Door::ClusterIp, *address, port.port));
    let proxied = |address: IpAddr| spec.ingress.iter().any(|one| one.address == address && one.proxied);
    let foreign = spec.ingress.iter().filter(|one| !one.proxied).map(|one| one.address);
    let own = allocation.load_balancer.iter().copied();
    for address in own.clone().filter(|address| !proxied(*address)).chain(foreign) {
        enter(Door::LoadBalancer, address, port.port);
    }
    // Whoever has it is the load balancer; the others send packets to it there.
    let here = |address: &IpAddr| matches!(owners.get(address), Some(Some(owner)) if *owner == node.name);
    for address in own.filter(|address| proxied(*address) && here(address)) {
        enter(Door::ProxiedLoadBalancer, address, port.port);
    }
    spec.external_ips.iter().for_each(|address| enter(Door::ExternalIp, *address, port.port));
    if let Some(number) = allocation.node_port(port.protocol, port.port) {
        let own = node.addresses.iter().chain(&node.gateways);
        own.for_each(|address| enter(Door::NodePort, *address, number));
    }
    entrances
}

/// The endpoints that established connections keep: of UDP, which does not know that its peer is gone, those that still
/// answer.
pub(super) fn serving(protocol: Protocol, endpoints: &[Endpoint]) -> Serving {
    let answers = |e: &&Endpoint| e.condition.ready || e.condition.serving;
    let kept = endpoints.iter().filter(|e| protocol != Protocol::Udp || answers(e));
    kept.map(|e| (e.address, e.port)).collect()
}
