//! What is measured of services in a switch: whole frames, from a client's device to a backend's.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Registry, Service, Way};
use netstack::addr::PortId;
use netstack::config::{Config, Limits, NatConfig, RouteConfig, RouteTarget, ServicesConfig, Snapshot};
use netstack::frame::{FrameBatch, FramePool, OffloadFeatures};
use netstack::seed::Seed;
use netstack::switch::Switch;

use crate::work::{Case, TURN, Work, begin};
use crate::{ROUTER, STATIONS, config, mac};

const NOW: Duration = Duration::from_secs(1000);
const KEY: [u8; 16] = *b"sixteen octets !";
/// Frames per batch.
const BATCH: usize = 32;
/// Backends of each service: L4 ports of the stations beside the client.
const ENDPOINTS: u16 = 10;

/// Routes that lead elsewhere, where there are many.
const ROUTES: u16 = 1000;

/// What there is among which a datagram finds its way.
#[derive(Clone, Copy)]
struct Among {
    services: u32,
    /// How many of them are asked.
    asked: u32,
    /// Routes that lead elsewhere.
    routes: u16,
}

/// All pieces of work, for each number of services; 0 is without any, the client asking a backend itself.
pub fn cases(services: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &services in services {
        let all = Among { services, asked: services, routes: 0 };
        for (suffix, among) in
            [("", all), ("/one", Among { asked: 1, ..all }), ("/routes", Among { routes: ROUTES, ..all })]
        {
            if suffix == "/one" && services < 2 || suffix == "/routes" && services != 1 {
                continue;
            }
            cases.push(begin(format!("packet/{services}{suffix}"), move || Through::established(among)));
            cases.push(begin(format!("new/{services}{suffix}"), move || Through::new(among)));
        }
    }
    cases
}

fn vip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0001 + n)
}

fn backend(k: u16) -> (IpAddr, u16) {
    let host = u8::try_from(11 + k % (STATIONS - 1)).expect("few stations");
    (Ipv4Addr::new(10, 0, 0, host).into(), 8000 + k)
}

fn service(n: u32) -> Service {
    // Each has others, so that no two pools are the same.
    let first = u16::try_from(n % 6000).expect("small") * ENDPOINTS % 50_000;
    let backends: Vec<(IpAddr, u16)> = (first..first + ENDPOINTS).map(backend).collect();
    let all = backends.iter().map(|&(address, port)| Backend { address, port, weight: 1 });
    let pool = Arc::new(Pool::new(all, Policy::Maglev, None, KEY).expect("a pool"));
    let way = Way { pool, masquerade: false, when_empty: Refusal::Reject };
    let entrance = Entrance {
        frontend: Frontend { address: vip(n).into(), protocol: 17, port: 80 },
        sources: Vec::new(),
        ways: [way.clone(), way.clone(), way],
    };
    Service {
        name: format!("default/service-{n}:http").into(),
        entrances: vec![entrance],
        affinity: None,
        serving: backends.into_iter().collect(),
        reset_gone: false,
    }
}

/// Prefixes of different lengths, so that each of them has to be told apart from shorter ones.
fn route(n: u16) -> RouteConfig {
    let [high, low] = n.to_be_bytes();
    let prefix = match n % 3 {
        0 => format!("100.{high}.{low}.0/24"),
        1 => format!("101.{high}.{low}.128/25"),
        _ => format!("10.{}.{low}.64/26", 128 + high),
    };
    RouteConfig { prefix: prefix.parse().expect("a prefix"), target: RouteTarget::Blackhole }
}

fn switch(Among { services, routes, .. }: Among) -> Switch {
    let mut registry = Registry::new();
    for n in 0..services {
        registry.set(service(n)).expect("its frontend is free");
    }
    let of = ServicesConfig {
        registry,
        inside: vec!["10.0.0.0/16".parse().expect("a prefix")],
        ranges: vec!["10.96.0.0/12".parse().expect("a prefix")],
        masquerade: None,
        key: KEY,
    };
    let config = Config {
        nat: Some(NatConfig::default()),
        services: (services > 0).then_some(of),
        routes: (0..routes).map(route).collect(),
        ..config(OffloadFeatures::NONE)
    };
    let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
    switch.install(Snapshot::compile(config, None).expect("a good configuration"));
    switch
}

/// A datagram from the first station by the router.
fn datagram(source_port: u16, to: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut bytes = [&ROUTER.0[..], &mac(0).0].concat();
    bytes.extend([8, 0, 0x45, 0, 0, 64 - 14, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 10]);
    bytes.extend(to.0.octets());
    let checksum = nat::checksum::checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    // Without a checksum, which UDP over IPv4 may do.
    bytes.extend([0, 30, 0, 0]);
    bytes.resize(64, 7);
    bytes
}

/// Datagrams to services in no order, a connection each.
struct Through {
    switch: Switch,
    batch: FrameBatch,
    frames: Vec<Vec<u8>>,
    now: Duration,
    /// Whether each turn's connections are new.
    anew: bool,
    received: u32,
}

impl Through {
    fn new(among: Among) -> Self {
        let Among { services, asked, .. } = among;
        let frame = |n: u32| {
            let source_port = u16::try_from(20_000 + n).expect("a port");
            match services {
                0 => {
                    let (IpAddr::V4(address), port) = backend(u16::try_from(n % 10).expect("small")) else {
                        unreachable!("they are of IPv4")
                    };
                    datagram(source_port, (address, port))
                }
                _ => datagram(source_port, (vip(n.wrapping_mul(2_654_435_761) % asked), 80)),
            }
        };
        Self {
            switch: switch(among),
            batch: FrameBatch::new(),
            frames: (0..TURN).map(frame).collect(),
            now: NOW,
            anew: true,
            received: 0,
        }
    }

    fn established(among: Among) -> Self {
        let mut through = Self { anew: false, ..Self::new(among) };
        // The first frame of a flow begins it, the next ones make it known.
        for _ in 0..8 {
            through.turn();
            through.reset();
        }
        through
    }
}

impl Work for Through {
    fn turn(&mut self) {
        for frames in self.frames.chunks(BATCH) {
            for frame in frames {
                let frame = self.switch.pool().copy_of(frame);
                assert!(self.batch.push(frame).is_ok(), "there is room");
            }
            self.switch.handle_frames(self.now, PortId(0), &mut self.batch);
            while self.switch.poll_transmit(&mut self.batch).is_some() {
                while let Some(frame) = self.batch.pop() {
                    self.received += 1;
                    self.switch.pool().recycle(frame);
                }
            }
        }
    }

    fn reset(&mut self) {
        assert_eq!(self.received, TURN, "{:?}", self.switch.counters().drops_by_name());
        self.received = 0;
        let connections = self.switch.connections().map_or(0, |(v4, _)| v4.len());
        assert_eq!(connections, TURN as usize);
        if self.anew {
            self.now += Duration::from_secs(3600);
            while self.switch.poll_timeout().is_some_and(|at| at <= self.now) {
                self.switch.handle_timeout(self.now);
            }
            assert!(self.switch.connections().is_some_and(|(v4, _)| v4.is_empty()));
        }
    }
}
