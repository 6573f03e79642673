//! Services in front of hosts: the same on every node, so that each client is balanced by the one that it stands on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Registry, Service, Way};
use netstack::config::ServicesConfig;
use netstack::seed::Rng;

use crate::traffic::{ECHO, TRANSFERS};
use crate::world::{below, chance, ip, net};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where services are asked. What leads to a transfer has a port of its own, for each expects other octets.
const WEB: u16 = 80;
const NAMES: u16 = 53;
/// Services for transfers.
const COUNT: u16 = 3;
/// The addresses of services.
pub(crate) const RANGES: [&str; 2] = ["10.96.0.0/24", "fd00:96::/64"];
const KEY: [u8; 16] = *b"all nodes' alike";

/// A service of both families, asked at one address and answered by some of the hosts.
#[derive(Clone, Debug)]
pub(crate) struct Balanced {
    protocol: u8,
    port: u16,
    target: u16,
    /// The hosts, by number.
    pub(crate) backends: Vec<usize>,
}

impl Balanced {
    pub(crate) fn socket(&self, v6: bool) -> SocketAddr {
        let address = if v6 { "fd00:96::1" } else { "10.96.0.1" };
        SocketAddr::new(ip(address), self.port)
    }

    pub(crate) const fn is_for_transfers(&self) -> bool {
        self.protocol == TCP
    }

    fn service(&self, hosts: &[[IpAddr; 2]], v6: bool, rng: &mut Rng) -> Service {
        let backends = self.backends.iter().map(|&host| (hosts[host][usize::from(v6)], self.target));
        let policy = [Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous][below(rng, 4)];
        let socket = self.socket(v6);
        let entrance = Entrance {
            frontend: Frontend { address: socket.ip(), protocol: self.protocol, port: socket.port() },
            sources: Vec::new(),
            ways: ways(backends.clone().collect(), policy, [chance(rng, 30), true, true]),
        };
        Service {
            name: format!("{}-{socket}", self.protocol).into(),
            entrances: vec![entrance],
            affinity: chance(rng, 30).then_some(Duration::from_secs(3)),
            serving: backends.collect(),
            reset_gone: false,
        }
    }
}

fn ways(backends: Vec<(IpAddr, u16)>, policy: Policy, masquerade: [bool; 3]) -> [Way; 3] {
    let backends = backends.into_iter().map(|(address, port)| Backend { address, port, weight: 1 });
    let pool = Arc::new(Pool::new(backends, policy, None, KEY).unwrap());
    masquerade.map(|masquerade| Way { pool: Arc::clone(&pool), masquerade, when_empty: Refusal::Reject })
}

/// A few services, each with a few of the hosts behind it.
pub(crate) fn plan(rng: &mut Rng, hosts: usize) -> Vec<Balanced> {
    let tcp = (0..COUNT).map(|number| (TCP, WEB + number, TRANSFERS + number));
    let all = tcp.chain([(UDP, NAMES, ECHO)]);
    all.map(|(protocol, port, target)| {
        let mut backends: Vec<usize> = (0..1 + below(rng, 3)).map(|_| below(rng, hosts)).collect();
        backends.sort_unstable();
        backends.dedup();
        Balanced { protocol, port, target, backends }
    })
    .collect()
}

/// What a node is told of them.
pub(crate) fn config(plan: &[Balanced], hosts: &[[IpAddr; 2]], rng: &mut Rng) -> ServicesConfig {
    let mut registry = Registry::new();
    for balanced in plan {
        for v6 in [false, true] {
            registry.set(balanced.service(hosts, v6, rng)).unwrap();
        }
    }
    ServicesConfig {
        registry,
        inside: vec![net("10.244.0.0/16"), net("fd00:244::/32")],
        ranges: RANGES.map(net).to_vec(),
        masquerade: Some("node".into()),
        key: KEY,
    }
}

/// The same services, each with only one of its backends left: the others finish what they have begun, or are gone.
pub(crate) fn fewer(before: &ServicesConfig, rng: &mut Rng) -> ServicesConfig {
    let mut next = before.clone();
    let mut all: Vec<Service> = before.registry.iter().cloned().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    for mut service in all {
        let way = &service.entrances[0].ways[0];
        let (masquerade, policy) = (way.masquerade, way.pool.policy());
        let backends: Vec<(IpAddr, u16)> = service.serving.iter().collect();
        let left = vec![backends[below(rng, backends.len())]];
        service.entrances[0].ways = ways(left.clone(), policy, [masquerade, true, true]);
        if chance(rng, 50) {
            service.serving = left.into();
            service.reset_gone = chance(rng, 50);
        }
        if chance(rng, 10) {
            next.registry.remove(&service.name);
        } else {
            next.registry.set(service).unwrap();
        }
    }
    next
}
