//! Any frames, in any order, with the verbs called in any order: every frame is accounted for, and the same inputs give
//! the same outputs.

use std::sync::Arc;
use std::time::Duration;

use netstack::addr::{PortId, SegmentId};
use netstack::config::nat::{
    DestinationNat, DestinationRule, NatConfig, NatMatch, PoolConfig, PortRange, Sharing, SourceNat,
    SourceRule,
};
use netstack::config::{
    Config, Limits, PortConfig, ReversePath, RouteConfig, RouteTarget, RouterAdvertisement, Snapshot,
    StormControl,
};
use netstack::frame::{FrameBatch, FramePool};
use netstack::offload::{Checksum, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::seed::Seed;
use netstack::switch::Switch;
use netstack::verdict::DropReason;
use proptest::prelude::*;

use crate::packets::{self, BROADCAST, Packet, announce, ask, ethernet, tagged, tell};
use crate::rules::some_policies;
use crate::world::{
    FAMILIES, FAR, FREE, Family, GUEST, Host, NODE, OTHER, POD_A, POD_B, VIP, everybody, ip, managed,
    reverse_path, route, service, services, trunk, via,
};

/// A switch with everything on it: managed and foreign ports, a trunk, devices with and without offload, a node-local
/// link, a small MTU, routes of every kind.
pub(crate) fn everything() -> Config {
    let mut config = everybody();
    config.ports.push(trunk(6, Some(3), &[(10, 0), (20, 1)]));
    config.segments.push(crate::world::segment(3, 9000));
    config.ports[0].offload = OffloadFeatures::ALL;
    config.ports[3].offload = OffloadFeatures { checksum: true, tso4: true, ..OffloadFeatures::NONE };
    config.segments[1].mtu = 1280;
    reverse_path(&mut config, 1, ReversePath::Loose);
    config.routes.push(route("10.4.0.0/16", RouteTarget::Blackhole));
    config.routes.push(route("10.5.0.0/16", RouteTarget::Unreachable));
    config.routes.push(route("fd00:6::/48", RouteTarget::Prohibit));
    config
}

/// The same with all protection switched on.
pub(crate) fn protected() -> Config {
    let mut config = everything();
    for port in [2, 5] {
        config.ports[port].storm = Some(StormControl { rate: 2, burst: 3 });
    }
    for port in [2, 3, 5, 6] {
        config.ports[port].loop_guard = true;
    }
    for port in [0, 2, 6] {
        config.ports[port].isolated = true;
    }
    config.segments[0].proxy_neighbors = true;
    for segment in [0, 1] {
        let gateway = config.segments[segment].gateway.as_mut().unwrap();
        gateway.probe = true;
        let prefixes = gateway.addresses.iter().map(|a| a.trunc()).filter(|p| p.addr().is_ipv6());
        gateway.advertise = Some(RouterAdvertisement {
            min_interval: 3,
            max_interval: 4,
            router_lifetime: 60,
            ..RouterAdvertisement::for_prefixes(prefixes)
        });
    }
    config.routes.push(route("10.0.0.77/32", RouteTarget::Via(vec![via(1, FAR.v4)])));
    config
}

/// With connections, translation of what leaves and of what comes, and few external ports.
pub(crate) fn translating() -> Config {
    let mut config = everything();
    let mut pool = PoolConfig::new("node", vec![ip(NODE.v4), ip(NODE.v6)]);
    pool.ports = vec![PortRange { first: 5000, last: 5001 }];
    let mut nat = NatConfig { pools: vec![pool], ..NatConfig::default() };
    nat.behaviour.sharing = Sharing::Never;
    nat.timeouts.reassembly = [Duration::from_secs(5); 2];
    let matches = NatMatch { egress: Some(SegmentId(1)), ..NatMatch::default() };
    nat.source.push(SourceRule { matches, action: SourceNat::Pool("node".into()) });
    for (own, pod) in [(NODE.v4, POD_B.v4), (NODE.v6, POD_B.v6)] {
        let matches =
            NatMatch { destinations: vec![ip(own).into()], protocol: Some(17), ..NatMatch::default() };
        let action = DestinationNat::To { address: Some(ip(pod)), ports: None };
        nat.destination.push(DestinationRule { matches, action });
    }
    config.nat = Some(nat);
    config
}

/// The same with services.
pub(crate) fn balanced() -> Config {
    Config { services: Some(services(some_services(0b111_111))), ..translating() }
}

/// The same, where policies come and go; and with a station of which nothing is remembered, for which they have rules of
/// their own.
pub(crate) fn policed() -> Config {
    let mut config = balanced();
    if let Some(nat) = &mut config.nat {
        nat.untracked = vec![ip(OTHER.v4).into(), ip(OTHER.v6).into()];
    }
    config
}

/// The lower bits of `which` are the services that there are, the upper ones say which of them have a second backend.
fn some_services(which: u8) -> Vec<lb::Service> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let address = |text: [&str; 2]| ip(family.of(text[0], text[1]));
        let (pod, far, own) = (POD_B.ip(family), FAR.ip(family), NODE.ip(family));
        let backends = |bit: u8| if which & bit == 0 { vec![(far, 53)] } else { vec![(pod, 53), (far, 53)] };
        for (bit, protocol, frontends) in [
            (1, 6, vec![(address(VIP), 2), (own, 2)]),
            (2, 17, vec![(address(VIP), 2), (address(VIP), 53)]),
            (4, 132, vec![(address(VIP), 2)]),
        ] {
            let name = format!("{family:?}-{protocol}");
            let mut one = service(&name, protocol, &frontends, &backends(bit << 3));
            one.affinity = (bit == 2).then_some(Duration::from_secs(2));
            one.reset_gone = true;
            all.extend((which & bit != 0).then_some(one));
        }
        all.push(service(&format!("{family:?}-empty"), 17, &[(address(VIP), 80)], &[]));
    }
    all
}

/// Small, so that the bounds are met.
pub(crate) const SMALL: Limits = Limits {
    fdb_entries: 8,
    fdb_entries_per_port: 4,
    neighbors: 4,
    parked_per_neighbor: 2,
    parked: 3,
    parked_bytes: 4096,
    queue_frames: 6,
    queue_bytes: 1 << 16,
    events: 4,
    icmp_errors_per_second: 100,
    connections: 6,
    affinities: 8,
    flows: 16,
};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Frame {
        port: u16,
        bytes: Vec<u8>,
        offload: Offload,
    },
    Wait(u64),
    /// Time passes and nobody calls `handle_timeout`.
    Neglect(u64),
    Transmit(usize),
    /// What leaves next comes in again by another port, as if the two were patched together.
    Patch(u16),
    /// Another arrangement of ports, stations and routes.
    Install(Arrangement),
    /// These services in the place of those that there are.
    Services(Option<u8>),
    /// These policies in the place of those that there are, where there may be any.
    Policies(Option<u8>),
    /// What leaves next is answered where it comes to.
    Answer,
    Event,
    Explain {
        port: u16,
        bytes: Vec<u8>,
    },
}

/// What is there of a configuration, and beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrangement {
    /// Those of its ports whose bits are set.
    ports: u8,
    /// Those routes more whose bits are set, [`Arrangement::routes`].
    routes: u8,
    /// Who else is known beforehand, [`Arrangement::stations`].
    stations: u8,
}

impl Arrangement {
    fn of(self, mut config: Config) -> Config {
        self.stations(&mut config.ports);
        config.ports.retain(|port| self.ports >> port.id.0 & 1 == 1);
        self.routes(&mut config.routes);
        config
    }

    /// Routes to those who talk, by other ways and by none, and one to nobody.
    fn routes(self, routes: &mut Vec<RouteConfig>) {
        let more = [
            ("10.1.0.2/32", RouteTarget::Via(vec![via(0, POD_B.v4)])),
            ("fd00:1::2/128", RouteTarget::Blackhole),
            ("10.0.0.2/32", RouteTarget::Via(vec![via(1, FAR.v4)])),
            ("fd00::2/128", RouteTarget::Unreachable),
            ("10.0.0.101/32", RouteTarget::Prohibit),
            ("203.0.113.0/24", RouteTarget::Blackhole),
        ];
        let wanted = more.into_iter().enumerate().filter(|(bit, _)| self.routes >> bit & 1 == 1);
        routes.extend(wanted.map(|(_, (prefix, target))| route(prefix, target)));
        if self.routes >> 6 & 1 == 1 {
            routes.retain(|route| route.prefix.prefix_len() > 0);
        }
    }

    /// Stations that were learned before, and one in the place of a gateway that was.
    fn stations(self, ports: &mut [PortConfig]) {
        let gateway = Host { port: OTHER.port, mac: OTHER.mac, ..FAR };
        let (host, segment) = match self.stations {
            1 => (OTHER, 0),
            2 => (GUEST, 0),
            3 => (gateway, 1),
            _ => return,
        };
        if let Some(port) = ports.iter_mut().find(|port| port.id.0 == host.port) {
            *port = PortConfig { offload: port.offload, ..managed(&host, segment) };
        }
    }
}

/// Most often everything, and little changes from one to the next.
pub(crate) fn arrangement() -> impl Strategy<Value = Step> {
    let ports =
        prop_oneof![4 => Just(0x7f), 2 => (0u8..7).prop_map(|port| 0x7f & !(1 << port)), 1 => 0u8..0x80];
    let routes = prop_oneof![2 => Just(0), 4 => (0u8..7).prop_map(|route| 1 << route), 1 => 0u8..0x80];
    let stations = prop_oneof![3 => Just(0), 1 => 1u8..4];
    (ports, routes, stations)
        .prop_map(|(ports, routes, stations)| Step::Install(Arrangement { ports, routes, stations }))
}

const HOSTS: [Host; 6] = [POD_A, POD_B, GUEST, FAR, NODE, OTHER];

fn valid_frame() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let payload = prop_oneof![4 => 0usize..64, 1 => 1200usize..1500, 1 => Just(5000)];
    let destination = prop::sample::select(vec![
        ("10.0.0.1", "fd00::1"),
        ("10.0.0.3", "fd00::3"),
        ("10.1.0.1", "fd00:1::1"),
        ("10.1.0.2", "fd00:1::2"),
        ("10.1.0.9", "fd00:1::9"),
        ("203.0.113.1", "2001:db8::1"),
        ("10.4.0.1", "fd00:6::1"),
        ("10.5.0.1", "fe80::1"),
        ("255.255.255.255", "ff02::1"),
        ("10.0.0.100", "fd00::100"),
        (VIP[0], VIP[1]),
        (FREE[0], FREE[1]),
    ]);
    (
        0usize..6,
        0usize..6,
        any::<bool>(),
        destination,
        payload,
        0u8..12,
        prop::sample::select(vec![0u8, 1, 2, 64]),
    )
        .prop_map(|(from, to, v6, destination, len, kind, hops)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let (host, peer) = (HOSTS[from], HOSTS[to]);
            let destination = ip(family.of(destination.0, destination.1));
            let router = match host.port {
                3 => ip(family.of("10.1.0.1", "fd00:1::1")),
                _ => ip(family.of("10.0.0.1", "fd00::1")),
            };
            let mut packet = host.via_router(destination);
            packet.hop_limit = hops;
            packet.dont_fragment = len % 2 == 0;
            let payload = vec![7; len];
            let frame = match kind {
                0 if len % 2 == 0 => ask(host.mac, host.ip(family), router),
                0 => ask(host.mac, host.ip(family), destination),
                1 => tell(host.mac, host.ip(family), host.router, router),
                2 => announce(host.mac, host.ip(family)),
                3 => host.to(&peer, family).udp(1, 2, &payload),
                4 => tagged(&host.to(&peer, family).udp(1, 2, &payload), 10),
                5 => ethernet(host.mac, BROADCAST, 0x88b5, 46),
                6 | 7 => packet.tcp(1, 2, &payload),
                8 => packet.echo(1, 2, &payload),
                9 => packet.icmp(3, 1, [0; 4], &payload),
                _ => packet.udp(1, 2, &payload),
            };
            (host.port, frame)
        })
}

fn mutated() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = proptest::option::weighted(0.1, any::<prop::sample::Index>());
    (valid_frame(), changes, cut, 0u16..8, any::<bool>()).prop_map(
        |((own, mut bytes), changes, cut, other, swap)| {
            for (at, value) in changes {
                // Headers are where changes matter.
                let at = at.index(bytes.len().min(100));
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            (if swap { other } else { own }, bytes)
        },
    )
}

fn offload() -> impl Strategy<Value = Offload> {
    let honest = prop::sample::select(vec![(34u16, 16u16), (34, 6), (54, 16), (54, 6), (38, 6)]);
    let start = prop_oneof![3 => honest, 1 => any::<(u16, u16)>()];
    let checksum = prop_oneof![
        2 => Just(Checksum::Complete),
        1 => Just(Checksum::Verified),
        2 => start.prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kind = prop::sample::select(vec![SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp]);
    let segmentation = (kind, 0u16..2000).prop_map(|(kind, size)| Segmentation { kind, size, ecn: false });
    prop_oneof![
        3 => Just(Offload::default()),
        1 => (checksum, proptest::option::of(segmentation))
            .prop_map(|(checksum, segmentation)| Offload { checksum, segmentation }),
    ]
}

/// A super-frame whose state is true, from the pod whose device makes such.
fn super_frame() -> impl Strategy<Value = Step> {
    let to = prop::sample::select(vec![POD_B, GUEST, FAR, NODE]);
    (to, any::<bool>(), any::<bool>(), 2000usize..9000, 500u16..1400).prop_map(
        |(to, v6, routed, len, size)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let mut packet = if routed { POD_A.via_router(to.ip(family)) } else { POD_A.to(&to, family) };
            packet.dont_fragment = len % 2 == 0;
            let checksum = Checksum::Partial { start: family.of(34, 54), offset: 16 };
            let kind = family.of(SegmentKind::TcpV4, SegmentKind::TcpV6);
            let segmentation = Some(Segmentation { kind, size, ecn: false });
            let bytes = packet.tcp(1, 2, &vec![7; len]);
            Step::Frame { port: POD_A.port, bytes, offload: Offload { checksum, segmentation } }
        },
    )
}

/// A piece of one of a few datagrams.
fn fragment() -> impl Strategy<Value = Step> {
    let to = prop::sample::select(vec![POD_B, FAR]);
    (to, any::<bool>(), 0usize..5, 1u16..4, prop_oneof![4 => Just(16), 1 => Just(24)]).prop_map(
        |(to, v6, piece, id, size)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let packet = Packet { dont_fragment: false, id, ..POD_A.via_router(to.ip(family)) };
            let pieces = packets::fragment(&packet.udp(id, 53, &[id as u8; 70]), size);
            let bytes = pieces[piece % pieces.len()].clone();
            Step::Frame { port: POD_A.port, bytes, offload: Offload::default() }
        },
    )
}

/// What several pods ask of one server, or of a service, and what it answers to any of its askers.
fn conversation() -> impl Strategy<Value = Step> {
    (any::<bool>(), any::<bool>(), 1u16..9, 0u8..9).prop_map(|(v6, second, port, kind)| {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let pod = if second { POD_B } else { POD_A };
        let (ask, answer) = (pod.via_router(FAR.ip(family)), FAR.via_router(NODE.ip(family)));
        let balanced = pod.via_router(ip(family.of(VIP[0], VIP[1])));
        let (port, bytes) = match kind {
            0 => (pod.port, ask.udp(port, 53, b"question")),
            1 => (pod.port, ask.tcp_syn(port, 80)),
            2 => (pod.port, ask.echo(port, 1, b"ping")),
            3 => (FAR.port, answer.udp(53, 5000 + port % 2, b"answer")),
            4 => (FAR.port, answer.echo_reply(port, 1, b"ping")),
            6 => (pod.port, balanced.udp(port, [2, 53, 80][usize::from(port % 3)], b"question")),
            7 => (pod.port, balanced.tcp_syn(port, 2)),
            8 => (POD_B.port, POD_B.to(&pod, family).udp(53, port, b"answer")),
            _ => (FAR.port, answer.tcp_syn_ack(80, 5000 + port % 2, 1001)),
        };
        Step::Frame { port, bytes, offload: Offload::default() }
    })
}

pub(crate) fn policies() -> impl Strategy<Value = Step> {
    proptest::option::weighted(0.8, 0u8..64).prop_map(Step::Policies)
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => fragment(),
        3 => conversation(),
        4 => super_frame(),
        12 => (mutated(), offload()).prop_map(|((port, bytes), offload)| Step::Frame { port, bytes, offload }),
        2 => (0u64..8000).prop_map(Step::Wait),
        1 => (0u64..8000).prop_map(Step::Neglect),
        3 => (1usize..4).prop_map(Step::Transmit),
        1 => (0u16..8).prop_map(Step::Patch),
        1 => arrangement(),
        2 => proptest::option::weighted(0.8, 0u8..64).prop_map(Step::Services),
        2 => policies(),
        1 => Just(Step::Event),
        1 => mutated().prop_map(|(port, bytes)| Step::Explain { port, bytes }),
    ]
}

/// What a run gave out: every frame, event, trace and deadline, in order.
pub(crate) type Record = Vec<String>;

pub(crate) struct Run {
    config: fn() -> Config,
    limits: Limits,
    pub(crate) switch: Switch,
    pool: FramePool,
    batch: FrameBatch,
    now: Duration,
    pub(crate) record: Record,
}

impl Run {
    pub(crate) fn new(config: fn() -> Config, seed: u64, limits: Limits) -> Self {
        let mut switch = Switch::new(limits, &Seed::from_u64(seed), FramePool::new());
        switch.install(Snapshot::compile(config(), None).unwrap());
        let now = Duration::from_secs(1000);
        let (pool, batch) = (FramePool::new(), FrameBatch::new());
        Self { config, limits, switch, pool, batch, now, record: Record::new() }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Frame { port, bytes, offload } => {
                let mut frame = self.pool.copy_of(bytes);
                frame.offload = *offload;
                self.batch.push(frame).unwrap();
                self.switch.handle_frames(self.now, PortId(*port), &mut self.batch);
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(*ms);
                while self.switch.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.switch.handle_timeout(self.now);
                }
            }
            Step::Neglect(ms) => self.now += Duration::from_millis(*ms),
            Step::Transmit(times) => (0..*times).for_each(|_| self.transmit()),
            Step::Patch(port) => {
                if self.switch.poll_transmit(&mut self.batch).is_some() {
                    self.switch.handle_frames(self.now, PortId(*port), &mut self.batch);
                }
            }
            Step::Answer => {
                if let Some(port) = self.switch.poll_transmit(&mut self.batch) {
                    let out: Vec<_> = self.batch.drain().collect();
                    for frame in out {
                        self.record.push(format!("{port} {:?} {:?}", frame.offload, frame.bytes()));
                        if let Some(answer) = packets::answer(frame.bytes()) {
                            let mut answer = self.pool.copy_of(&answer);
                            if frame.offload.checksum == Checksum::Verified {
                                answer.offload.checksum = Checksum::Verified;
                            }
                            self.batch.push(answer).unwrap();
                        }
                        self.pool.recycle(frame);
                    }
                    self.switch.handle_frames(self.now, port, &mut self.batch);
                }
            }
            Step::Install(arrangement) => {
                let config = arrangement.of((self.config)());
                let next = Snapshot::compile(config, Some(self.switch.snapshot())).unwrap();
                self.switch.install(next);
            }
            Step::Services(which) if (self.config)().services.is_some() => {
                let of = which.map(|which| services(some_services(which)));
                let next = self.switch.snapshot().with_services(of).unwrap();
                self.switch.install(next);
            }
            Step::Services(_) => {}
            Step::Policies(which) => {
                if (self.config)().nat.is_some_and(|nat| !nat.untracked.is_empty()) {
                    let policies = which.map(|which| Arc::new(some_policies(which)));
                    let next = self.switch.snapshot().with_policies(policies).unwrap();
                    self.switch.install(next);
                }
            }
            Step::Event => {
                let event = self.switch.poll_event();
                self.record.push(format!("{event:?}"));
            }
            Step::Explain { port, bytes } => {
                let before = self.switch.counters();
                let trace = self.switch.explain(self.now, PortId(*port), bytes);
                assert_eq!(self.switch.counters(), before);
                self.record.push(trace.to_string());
            }
        }
        self.switch.check().unwrap();
        let stopped: Vec<_> = self.switch.policy_counters().collect();
        self.record.push(format!(
            "{:?} {:?} {stopped:?}",
            self.switch.poll_timeout(),
            self.switch.counters()
        ));
        self.bounds();
    }

    fn transmit(&mut self) {
        let Some(port) = self.switch.poll_transmit(&mut self.batch) else { return };
        let features = self.switch.snapshot().port(port).expect("only named ports send").offload();
        assert!(!self.batch.is_empty());
        for frame in self.batch.drain() {
            let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
            assert!(features.checksum || !partial);
            assert!(frame.offload.segmentation.is_none_or(|s| features.takes(s.kind)));
            self.record.push(format!("{port} {:?} {:?}", frame.offload, frame.bytes()));
            self.pool.recycle(frame);
        }
    }

    fn bounds(&self) {
        assert!(self.switch.fdb().len() <= 8);
        assert!((0..8).all(|p| self.switch.fdb().port_len(PortId(p)) <= 4));
        assert!(self.switch.neighbors().len() <= self.limits.neighbors as usize);
        assert!(self.switch.parked() <= 3);
        assert!(
            self.switch
                .connections()
                .is_none_or(|(v4, v6)| v4.len().max(v6.len()) <= self.limits.connections as usize)
        );
        assert!(self.switch.balancer().is_none_or(|balancer| balancer.affinities(self.now).count() <= 8));
        assert!(self.switch.queued() <= 7 * 6);
    }

    pub(crate) fn finish(mut self) -> Record {
        while self.switch.queued() > 0 {
            self.transmit();
        }
        assert_eq!(self.switch.poll_transmit(&mut self.batch), None);
        // Nothing waits for ever, and what is done by time ends.
        for _ in 0..20 {
            self.now += Duration::from_secs(1);
            let mut calls = 0;
            while self.switch.poll_timeout().is_some_and(|at| at <= self.now) {
                self.switch.handle_timeout(self.now);
                calls += 1;
                assert!(calls < 100, "a deadline that does not move");
            }
        }
        assert_eq!((self.switch.parked(), self.switch.held()), (0, 0));
        self.switch.check().unwrap();
        self.record
    }

    /// What is remembered of stations and connections.
    pub(crate) fn state(&self) -> String {
        let connections = self.switch.connections();
        let connections = connections
            .map(|(v4, v6)| (v4.connections().collect::<Vec<_>>(), v6.connections().collect::<Vec<_>>()));
        let mut stations: Vec<String> =
            self.switch.fdb().iter(self.now).map(|entry| format!("{entry:?}")).collect();
        stations.sort();
        format!("{connections:?} {stations:?} {:?}", self.switch.fdb().counters())
    }
}

fn run(config: fn() -> Config, seed: u64, steps: &[Step]) -> Record {
    let mut run = Run::new(config, seed, SMALL);
    steps.iter().for_each(|step| run.step(step));
    run.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_is_accounted_for_whatever_comes(steps in proptest::collection::vec(step(), 1..80)) {
        run(everything, 1, &steps);
        run(protected, 1, &steps);
        run(translating, 1, &steps);
        run(balanced, 1, &steps);
        run(policed, 1, &steps);
    }

    #[test]
    fn the_same_seed_and_inputs_give_the_same_outputs(seed: u64, steps in proptest::collection::vec(step(), 1..40)) {
        for config in [everything, protected, translating, balanced, policed] {
            prop_assert_eq!(run(config, seed, &steps), run(config, seed, &steps));
        }
    }

    /// How often and when output is taken does not change what is put out, as long as no queue overflows.
    #[test]
    fn the_order_of_calls_does_not_matter(frames in proptest::collection::vec(mutated(), 1..6)) {
        let mut eager = Run::new(everything, 1, SMALL);
        let mut lazy = Run::new(everything, 1, SMALL);
        for (port, bytes) in &frames {
            let step = Step::Frame { port: *port, bytes: bytes.clone(), offload: Offload::default() };
            eager.step(&step);
            eager.step(&Step::Transmit(8));
            eager.step(&Step::Wait(0));
            lazy.step(&step);
        }
        lazy.step(&Step::Transmit(64));
        let frames_of = |run: &Run| {
            let mut out: Vec<String> = run.record.iter().filter(|r| r.starts_with("port ")).cloned().collect();
            out.sort();
            out
        };
        let overflowed = |run: &Run| {
            run.switch.counters().egress_dropped(netstack::verdict::EgressDrop::QueueFull) > 0
        };
        prop_assume!(!overflowed(&eager) && !overflowed(&lazy));
        prop_assert_eq!(frames_of(&eager), frames_of(&lazy));
    }
}

#[test]
fn the_generator_reaches_every_fate() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut run = Run::new(everything, 1, SMALL);
    let mut guarded = Run::new(protected, 1, SMALL);
    let mut translated = Run::new(translating, 1, SMALL);
    let mut balanced = Run::new(balanced, 1, SMALL);
    let (mut policed, mut audited) = (Run::new(policed, 1, SMALL), 0);
    for _ in 0..24_000 {
        let step = step().new_tree(&mut runner).unwrap().current();
        for run in [&mut run, &mut guarded, &mut translated, &mut balanced, &mut policed] {
            run.step(&step);
            run.step(&Step::Transmit(1));
            run.record.clear();
        }
        let stopped = policed.switch.policy_counters().map(|(_, stopped)| stopped.audited);
        audited = audited.max(stopped.sum::<u64>());
    }
    assert!(policed.switch.counters().dropped(DropReason::PolicyDenied) > 100 && audited > 10, "{audited}");
    let counters = guarded.switch.counters();
    for reason in [DropReason::StormControl, DropReason::LoopBlocked, DropReason::PortIsolated] {
        assert!(counters.dropped(reason) > 0, "{reason}");
    }
    let counters = translated.switch.counters();
    for reason in [
        DropReason::ConnectionInvalid,
        DropReason::IcmpUnrelated,
        DropReason::ConnectionClash,
        DropReason::PortsExhausted,
        DropReason::FragmentRefused,
        DropReason::FragmentTimeout,
        DropReason::FragmentOrphaned,
    ] {
        assert!(counters.dropped(reason) > 0, "{reason}: {:?}", counters.drops_by_name());
    }
    let counters = balanced.switch.counters();
    for reason in
        [DropReason::ServiceNoBackend, DropReason::ServicePortClosed, DropReason::ServiceAddressFree]
    {
        assert!(counters.dropped(reason) > 0, "{reason}: {:?}", counters.drops_by_name());
    }
    assert!(balanced.switch.balanced() > 100);
    let counters = run.switch.counters();
    for &fate in netstack::verdict::Fate::ALL {
        assert!(counters.fate(fate) > 0, "{fate}: {counters:?}");
    }
    for &origin in netstack::verdict::Origin::ALL {
        assert!(counters.origin(origin) > 0, "{origin}");
    }
    let reasons = counters.drops.iter().filter(|&&n| n > 0).count();
    assert!(reasons >= 25, "{reasons} reasons: {:?}", counters.drops_by_name());
}
