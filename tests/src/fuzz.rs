//! What the fuzzer calls, and the corpus replay with it. One function per target; a finding is a panic.

mod balancer;
mod names;
mod policies;
mod translation;
mod translator;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use balancer::balancer;
pub use names::dns;
pub use translation::rewrite;
pub use translator::nat;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Registry, Service, Way};
use netstack::addr::{IpNet, PortId, SegmentId};
use netstack::config::nat::{
    DestinationNat, DestinationRule, NatConfig, NatMatch, PoolConfig, PortRange, SourceNat, SourceRule,
};
use netstack::config::{
    Config, GatewayConfig, Limits, NextHop, PortConfig, ReversePath, RouteConfig, RouteTarget,
    RouterAdvertisement, SegmentConfig, ServicesConfig, Snapshot, Station, StormControl, VlanMode,
};
use netstack::frame::{FrameBatch, FramePool, MAX_FRAME};
use netstack::offload::{Checksum, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::seed::Seed;
use netstack::switch::Switch;

/// A switch with everything on it: two managed stations, a foreign access port, a trunk, a port that takes super-frames
/// and one that does not, a node-local link, a small MTU, routes of every kind, protection of every kind; and small
/// tables, so that their limits are met.
pub fn everything() -> Config {
    let net = |text: &str| -> IpNet { text.parse().expect("a valid prefix") };
    let gateway = |id: u8, addresses: &[&str], node_local: bool| GatewayConfig {
        reverse_path: if id == 1 { ReversePath::Strict } else { ReversePath::Off },
        node_local,
        ..GatewayConfig::new(
            netstack::addr::MacAddr([2, 0, 0, 0, 0xee, id]),
            addresses.iter().map(|a| net(a)).collect(),
        )
    };
    let segment = |id: u16, mtu: u16, gateway: GatewayConfig| SegmentConfig {
        mtu,
        gateway: Some(gateway),
        bridge: id != 1,
        ..SegmentConfig::new(SegmentId(id), format!("segment-{id}"))
    };
    let station = |last: u8, addresses: &[&str]| Station::Managed {
        mac: netstack::addr::MacAddr([2, 0, 0, 0, 0, last]),
        addresses: addresses.iter().map(|a| a.parse().expect("a valid address")).collect(),
    };
    let port = |id: u16, segment: u16, offload: OffloadFeatures, station: Station| PortConfig {
        offload,
        station,
        ..PortConfig::new(PortId(id), format!("port-{id}"), VlanMode::Access(SegmentId(segment)))
    };
    let (all, none) = (OffloadFeatures::ALL, OffloadFeatures::NONE);
    let mut ports = vec![
        port(0, 0, all, station(1, &["10.0.0.2", "fd00::2"])),
        port(1, 0, none, station(2, &["10.0.0.3", "fd00::3"])),
        port(2, 0, none, Station::Foreign),
        port(3, 1, all, Station::Foreign),
        port(4, 2, none, station(3, &["10.0.0.1", "fd00::1"])),
    ];
    let vlans =
        VlanMode::Trunk { native: Some(SegmentId(3)), tagged: vec![(10, SegmentId(0)), (20, SegmentId(1))] };
    ports.push(PortConfig::new(PortId(5), "trunk", vlans));
    for port in [2, 3, 5] {
        ports[port].loop_guard = true;
    }
    for port in [1, 2] {
        ports[port].isolated = true;
    }
    ports[2].storm = Some(StormControl { rate: 10, burst: 20 });
    let via = |gateway: &str| NextHop {
        segment: SegmentId(1),
        gateway: Some(gateway.parse().expect("an address")),
    };
    let route = |prefix: &str, target| RouteConfig { prefix: net(prefix), target };
    let mut telling = gateway(0, &["10.0.0.1/24", "fd00::1/64"], false);
    telling.advertise = Some(RouterAdvertisement::for_prefixes([net("fd00::/64")]));
    let mut probing = gateway(3, &["10.3.0.1/24", "fd00:3::1/64"], false);
    probing.probe = true;
    Config {
        ports,
        segments: vec![
            SegmentConfig { proxy_neighbors: true, ..segment(0, 1500, telling) },
            segment(1, 1280, gateway(1, &["10.1.0.1/24", "fd00:1::1/64"], false)),
            segment(2, 1500, gateway(2, &["169.254.1.1/32"], true)),
            segment(3, 9000, probing),
        ],
        routes: vec![
            route("0.0.0.0/0", RouteTarget::Via(vec![via("10.1.0.2"), via("10.1.0.3")])),
            route("::/0", RouteTarget::Via(vec![via("fd00:1::2"), via("fd00:1::3")])),
            route("10.4.0.0/16", RouteTarget::Blackhole),
            route("10.5.0.0/16", RouteTarget::Unreachable),
            route("fd00:6::/48", RouteTarget::Prohibit),
        ],
        nat: Some(translation()),
        services: Some(services()),
    }
}

/// What leaves by the uplink is translated, and one port of the router's address is published.
fn translation() -> NatConfig {
    let address = |text: &str| text.parse().expect("an address");
    let ports = |first, last| Some(PortRange { first, last });
    let mut pool = PoolConfig::new("uplink", vec![address("10.1.0.1"), address("fd00:1::1")]);
    pool.ports = ports(5000, 5003).into_iter().collect();
    let leaving = NatMatch { egress: Some(SegmentId(1)), ..NatMatch::default() };
    let published = NatMatch { destination_ports: ports(80, 90), ..NatMatch::default() };
    let target = |text: &str| DestinationNat::To { address: Some(address(text)), ports: ports(8080, 8081) };
    NatConfig {
        pools: vec![pool],
        source: vec![SourceRule { matches: leaving, action: SourceNat::Pool("uplink".into()) }],
        destination: vec![
            DestinationRule { matches: published.clone(), action: target("10.0.0.2") },
            DestinationRule { matches: published, action: target("fd00::2") },
        ],
        ..NatConfig::default()
    }
}

/// Addresses beside the published one, asked for in UDP: one that remembers its clients, one that nobody answers.
fn services() -> ServicesConfig {
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let mut registry = Registry::new();
    for (name, vip, port, backends) in [
        ("answered-4", "10.96.0.1", 53, &["10.0.0.2", "10.1.0.2"][..]),
        ("answered-6", "fd00:96::1", 53, &["fd00::2", "fd00:1::2"][..]),
        ("empty-4", "10.96.0.1", 54, &[][..]),
        ("empty-6", "fd00:96::1", 54, &[][..]),
        ("node-4", "10.1.0.1", 53, &["10.0.0.2"][..]),
        ("node-6", "fd00:1::1", 53, &["fd00::2"][..]),
    ] {
        let backends = backends.iter().map(|at| Backend { address: address(at), port: 53, weight: 1 });
        let pool =
            Arc::new(Pool::new(backends, Policy::Maglev, None, [1; 16]).expect("backends of one family"));
        let way = |masquerade| Way { pool: Arc::clone(&pool), masquerade, when_empty: Refusal::Reject };
        let entrance = Entrance {
            frontend: Frontend { address: address(vip), protocol: 17, port },
            sources: Vec::new(),
            ways: [way(false), way(true), way(true)],
        };
        let serving = pool.backends().iter().map(|backend| (backend.address, backend.port)).collect();
        let affinity = (port == 53).then_some(Duration::from_secs(1));
        let service =
            Service { name: name.into(), entrances: vec![entrance], affinity, serving, reset_gone: true };
        registry.set(service).expect("frontends that differ");
    }
    let net = |text: &str| text.parse().expect("a prefix");
    ServicesConfig {
        registry,
        inside: vec![net("10.0.0.0/24"), net("fd00::/64")],
        ranges: vec![net("10.96.0.0/24"), net("fd00:96::/112")],
        masquerade: Some("uplink".into()),
        key: [2; 16],
    }
}

/// Small limits, so that a short input meets them.
fn small() -> Limits {
    Limits {
        fdb_entries: 16,
        fdb_entries_per_port: 8,
        neighbors: 8,
        parked_per_neighbor: 2,
        parked: 4,
        parked_bytes: 8192,
        queue_frames: 8,
        queue_bytes: 1 << 17,
        events: 4,
        icmp_errors_per_second: 100,
        connections: 8,
        affinities: 8,
        flows: 16,
    }
}

/// Feeds a whole switch with steps read from `data` and checks after each that every frame is accounted for; and one that
/// knows no flows, which must do the same.
///
/// A step is an octet that says what, and its operands: a frame for a port (with an offload state that may be a lie), an
/// advance of time, a drained output queue, another configuration, with policies or without.
pub fn switch(data: &[u8]) {
    let mut input = Input(data);
    let limits = [small(), Limits { flows: 0, ..small() }];
    let mut twins = limits.map(|limits| Switch::new(limits, &Seed::from_u64(9), FramePool::new()));
    let full = Snapshot::compile(everything(), None).expect("the configuration is valid");
    let mut fewer = everything();
    fewer.ports.truncate(3);
    fewer.services = None;
    let fewer = Snapshot::compile(fewer, Some(&full)).expect("the configuration is valid");
    let [enforced, audited] = [false, true].map(|audits| {
        let policies = Some(policies::policies(audits));
        full.with_policies(policies).expect("connections are tracked")
    });
    twins.iter_mut().for_each(|switch| drop(switch.install(full.clone())));
    let mut pool = FramePool::new();
    let mut batch = FrameBatch::new();
    let mut now = Duration::from_secs(1);
    while let Some(step) = input.octet() {
        match step >> 5 {
            0 => now += Duration::from_millis(u64::from(input.octet().unwrap_or(0)) * 40),
            1 => {
                let next = [&full, &fewer, &enforced, &audited][usize::from(step & 3)];
                twins.iter_mut().for_each(|switch| drop(switch.install(next.clone())));
            }
            2 => {
                let left = twins.each_mut().map(|switch| drain(switch, &mut batch, &mut pool));
                assert!(left[0] == left[1], "{left:?}");
            }
            _ => {
                let length = usize::from(u16::from_be_bytes([
                    input.octet().unwrap_or(0),
                    input.octet().unwrap_or(64),
                ]));
                let bytes = input.octets(length.min(MAX_FRAME)).to_vec();
                let port = PortId(u16::from(step & 7));
                let offload = offload(step, &mut input);
                for switch in &mut twins {
                    let mut frame = pool.copy_of(&bytes);
                    frame.offload = offload;
                    drop(switch.explain(now, port, frame.bytes()));
                    let _ = batch.push(frame);
                    switch.handle_frames(now, port, &mut batch);
                }
            }
        }
        for switch in &mut twins {
            while switch.poll_timeout().is_some_and(|at| at <= now) {
                switch.handle_timeout(now);
            }
            switch.check().unwrap_or_else(|e| panic!("frames are not accounted for:\n{e}"));
        }
        let [one, other] = &twins;
        assert_eq!((one.counters(), one.poll_timeout()), (other.counters(), other.poll_timeout()));
        assert!(one.policy_counters().eq(other.policy_counters()));
    }
    let left = twins.each_mut().map(|switch| drain(switch, &mut batch, &mut pool));
    assert!(left[0] == left[1], "{left:?}");
    for switch in &twins {
        switch.check().unwrap_or_else(|e| panic!("frames are not accounted for:\n{e}"));
        assert_eq!(switch.queued(), 0);
    }
}

/// What leaves must be fit for the port it leaves by.
fn drain(
    switch: &mut Switch,
    batch: &mut FrameBatch,
    pool: &mut FramePool,
) -> Vec<(PortId, Offload, Vec<u8>)> {
    let mut left = Vec::new();
    while let Some(port) = switch.poll_transmit(batch) {
        let features = switch.snapshot().port(port).map(netstack::config::Port::offload);
        for frame in batch.drain() {
            if let Some(features) = features {
                assert!(
                    frame.offload.segmentation.is_none_or(|s| features.takes(s.kind)),
                    "a super-frame for {port}"
                );
                let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
                assert!(features.checksum || !partial, "an unfinished checksum for {port}");
            }
            left.push((port, frame.offload, frame.bytes().to_vec()));
            pool.recycle(frame);
        }
    }
    left
}

fn offload(step: u8, input: &mut Input<'_>) -> Offload {
    if step & 0b1_0000 == 0 {
        return Offload::default();
    }
    let octet = |input: &mut Input<'_>| u16::from(input.octet().unwrap_or(0));
    let (start, offset, size) = (octet(input), octet(input) & 31, octet(input) * 16);
    let segmentation = match step & 0b1000 {
        0 => None,
        _ => Some(Segmentation {
            kind: [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp][usize::from(size / 16 % 3)],
            size,
            ecn: start & 1 == 1,
        }),
    };
    Offload { checksum: Checksum::Partial { start, offset }, segmentation }
}

/// The parsers: never a panic, never an offset outside the frame.
pub fn parse(data: &[u8]) {
    use netstack::parse::{self, Network};
    let Ok(link) = parse::link(data) else { return };
    assert!(link.payload <= data.len());
    let Ok(Network::Ip(ip)) = parse::network(data, &link) else { return };
    assert!(ip.offset <= ip.transport_offset && ip.transport_offset <= ip.end && ip.end <= data.len());
    let _ = parse::verify_transport_checksum(data, &ip);
    let _ = parse::neighbor_discovery(data, &ip);
}

/// Capture filters: an expression, a zero octet and a frame. Whatever is read is bounded, and of a filter and its opposite
/// at most one matches; exactly one if the frame is long enough for both.
pub fn filter(data: &[u8]) {
    use netstack::filter::Filter;
    let end = data.iter().position(|octet| *octet == 0).unwrap_or(data.len());
    let Ok(text) = core::str::from_utf8(&data[..end]) else { return };
    let frame = data.get(end + 1..).unwrap_or_default();
    let filter: Filter = match text.parse() {
        Ok(filter) => filter,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if let Ok(opposite) = format!("not ({text})").parse::<Filter>() {
        assert!(!(filter.matches(frame) && opposite.matches(frame)), "{text:?} and its opposite");
    }
    let long = [frame, &[0; 256]].concat();
    if let Ok(either) = format!("({text}) or not ({text})").parse::<Filter>() {
        // Each `vlan` looks one tag further, so that only without it both halves ask the same.
        assert!(text.contains("vlan") || either.matches(&long), "{text:?} or its opposite");
    }
}

/// The reader of manifests: an answer, whatever is read; and each fault at a place that exists.
pub fn manifest(data: &[u8]) {
    use manifest::{Source, Strictness, load};
    let Ok(text) = core::str::from_utf8(data) else { return };
    // YAML ends lines at a carriage return as well (YAML 1.2.2 section 5.4).
    let lines = text.chars().filter(|c| matches!(c, '\n' | '\r')).count() + 2;
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let source = Source { name: "fuzz".into(), text: text.to_owned() };
        match load(&[source], strictness) {
            Ok(read) => {
                for located in &read.objects {
                    assert!(!located.place().is_empty());
                }
            }
            Err(invalid) => {
                assert!(!invalid.problems.is_empty());
                for problem in &invalid.problems {
                    assert!((1..=lines).contains(&(problem.mark.line as usize)), "{problem}");
                    assert!(!problem.to_string().is_empty());
                }
            }
        }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A word; zeros are missing at the end.
    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.octet().unwrap_or(0), self.octet().unwrap_or(0)])
    }

    fn octets(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
