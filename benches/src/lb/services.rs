//! The registry, and new connections to its services.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use lb::{
    Ask, Backend, Balancer, Chosen, Entrance, Frontend, Limits, Origin, Policy, Pool, Refusal, Registry,
    Service, Standing, Verdict, Way,
};

use super::Work;
use super::tables::mixed;
use crate::work::TURN;

const KEY: [u8; 16] = *b"sixteen octets !";
const NOW: Duration = Duration::from_secs(1000);
const ENDPOINTS: u32 = 10;

fn frontend(n: u32) -> Frontend {
    Frontend { address: Ipv4Addr::from_bits(0x0a60_0001 + n).into(), protocol: 6, port: 80 }
}

/// The n-th service, with ten backends behind two frontends.
fn service(n: u32) -> Service {
    let backend = |k| Backend {
        address: Ipv4Addr::from_bits(0x0af4_0000 + ENDPOINTS * n + k).into(),
        port: 8080,
        weight: 1,
    };
    let pool = Pool::new((0..ENDPOINTS).map(backend), Policy::Maglev, None, KEY).expect("a pool");
    let way = Way { pool: Arc::new(pool), masquerade: false, when_empty: Refusal::Reject };
    let entrance = |frontend| Entrance {
        frontend,
        sources: Vec::new(),
        ways: [way.clone(), way.clone(), Way { masquerade: true, ..way.clone() }],
    };
    let node_port = Frontend { address: Ipv4Addr::new(10, 20, 30, 11).into(), ..frontend(n) };
    // As many as there are, one after the other; only one in some has an L4 port of its own.
    let port = u16::try_from(20_000 + n % 40_000).expect("below 65,536");
    Service {
        name: format!("default/service-{n}:http").into(),
        entrances: vec![entrance(frontend(n)), entrance(Frontend { port, ..node_port })],
        affinity: None,
        serving: way.pool.backends().iter().map(|backend| (backend.address, backend.port)).collect(),
        reset_gone: false,
    }
}

fn registry(services: u32) -> Registry {
    let mut registry = Registry::new();
    for n in 0..services {
        registry.set(service(n)).expect("every frontend is free");
    }
    registry
}

fn balancer(services: u32) -> Balancer {
    let mut balancer = Balancer::new(KEY, Limits::default());
    balancer.install(registry(services));
    balancer
}

/// Connections to services in no order.
fn asks(services: u32) -> Vec<Ask> {
    let ask = |n: u32| {
        let any = u32::try_from(mixed(n.into()) % u64::from(services)).expect("less than the services");
        Ask {
            frontend: frontend(any),
            source: Ipv4Addr::from_bits(0x0af4_0000 + n % 97).into(),
            source_port: u16::try_from(32_768 + n % 28_000).expect("below 65,536"),
            origin: Origin::Inside,
        }
    };
    (0..64 * TURN).map(ask).collect()
}

/// The next turn's part of a list whose length is a multiple of a turn's.
fn part<'a, T>(all: &'a [T], at: &mut usize) -> &'a [T] {
    let turn = TURN as usize;
    *at = (*at + turn) % all.len();
    &all[*at..*at + turn]
}

/// Finding the service of a frontend.
pub(super) struct Find {
    registry: Registry,
    asked: Vec<Frontend>,
    at: usize,
}

impl Find {
    pub(super) fn among(services: u32) -> Self {
        let asked = asks(services).into_iter().map(|ask| ask.frontend).collect();
        Self { registry: registry(services), asked, at: 0 }
    }
}

impl Work for Find {
    fn turn(&mut self) {
        for frontend in part(&self.asked, &mut self.at) {
            let (service, _) = self.registry.find(frontend).expect("it is there");
            black_box(service);
        }
    }
}

/// Choosing a backend for a new connection, and committing it.
pub(super) struct Choose {
    balancer: Balancer,
    asks: Vec<Ask>,
    at: usize,
}

impl Choose {
    pub(super) fn among(services: u32) -> Self {
        Self { balancer: balancer(services), asks: asks(services), at: 0 }
    }
}

fn chosen(balancer: &Balancer, ask: &Ask) -> Chosen {
    match balancer.choose(NOW, ask, 0) {
        Verdict::Chosen(chosen) => chosen,
        Verdict::NotAService | Verdict::Refused { .. } => panic!("every service has backends"),
    }
}

impl Work for Choose {
    fn turn(&mut self) {
        for ask in part(&self.asks, &mut self.at) {
            let chosen = chosen(&self.balancer, ask);
            self.balancer.commit(NOW, ask, &chosen);
        }
    }
}

/// Asking how a connection stands to its service.
pub(super) struct Stand {
    balancer: Balancer,
    connections: Vec<(Frontend, Chosen)>,
    /// Whether a service has changed since.
    changed: bool,
    at: usize,
}

impl Stand {
    pub(super) fn among(services: u32) -> Self {
        let balancer = balancer(services);
        let connections = asks(services).iter().map(|ask| (ask.frontend, chosen(&balancer, ask))).collect();
        Self { balancer, connections, changed: false, at: 0 }
    }

    /// After a change that concerns none of them.
    pub(super) fn after_a_change(services: u32) -> Self {
        let mut stand = Self { changed: true, ..Self::among(services) };
        let mut registry = stand.balancer.registry().clone();
        registry.set(service(services)).expect("its frontends are free");
        stand.balancer.install(registry);
        stand
    }
}

impl Work for Stand {
    fn turn(&mut self) {
        for (frontend, chosen) in part(&self.connections, &mut self.at) {
            let standing = self.balancer.standing(chosen.mark, frontend, chosen.backend);
            assert_eq!(matches!(standing, Standing::Renewed(_)), self.changed);
        }
    }
}

/// One more service, in a clone of a registry that is in use, whose services have nothing in common with it.
pub(super) struct Add {
    in_use: Registry,
    more: Vec<Service>,
    changed: Vec<Registry>,
}

/// Registries to be dropped are kept until the turn is over: that is somebody else's work.
const CHANGES: u32 = 64;

impl Add {
    pub(super) fn to(services: u32) -> Self {
        let more = (services..services + CHANGES).map(service).collect();
        Self { in_use: registry(services), more, changed: Vec::with_capacity(CHANGES as usize) }
    }
}

impl Work for Add {
    fn operations(&self) -> u32 {
        CHANGES
    }

    fn turn(&mut self) {
        for service in &self.more {
            let mut registry = self.in_use.clone();
            registry.set(service.clone()).expect("its frontends are free");
            self.changed.push(registry);
        }
    }

    fn reset(&mut self) {
        assert!(self.changed.iter().all(|registry| registry.len() == self.in_use.len() + 1));
        self.changed.clear();
    }
}
