//! Random networks: a tree of bridges with or without VLANs and a router among them, or nodes with pods around an
//! underlay router. Both families everywhere.

use std::net::IpAddr;
use std::time::Duration;

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::nat::{NatConfig, NatMatch, PoolConfig, SourceNat, SourceRule};
use netstack::config::{
    Config, GatewayConfig, Limits, NextHop, PortConfig, RouteConfig, RouteTarget, SegmentConfig, Snapshot,
    Station, VlanMode,
};
use netstack::host::{HostConfig, HostLimits};
use netstack::offload::OffloadFeatures;
use netstack::seed::{Rng, Seed};
use netstack::sim::{End, HostId, Lab, LinkProfile, Probability, SwitchId};

use crate::services::{self, Balanced};

/// How bad the links are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Weather {
    /// Nothing is lost: everything must arrive.
    Clear,
    /// A little of everything: connections must get through.
    Fair,
    /// A lot of everything: nothing may arrive that was not sent.
    Foul,
}

/// A host, and where it is plugged in.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: HostId,
    pub(crate) at: End,
    pub(crate) mac: MacAddr,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
}

impl Member {
    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6 } else { self.v4 }
    }
}

/// A laboratory and what stands in it.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) weather: Weather,
    pub(crate) vlans: bool,
    pub(crate) switches: Vec<(SwitchId, Config)>,
    pub(crate) members: Vec<Member>,
    /// Services that every node has.
    pub(crate) services: Vec<Balanced>,
}

/// A random number below `bound`.
pub(crate) fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(u32::try_from(bound).unwrap()) as usize
}

pub(crate) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.below(100) < percent
}

/// Small tables: they are made a thousand times, and their bounds are to be met.
const LIMITS: Limits = Limits {
    fdb_entries: 64,
    fdb_entries_per_port: 48,
    neighbors: 64,
    parked_per_neighbor: 8,
    parked: 64,
    parked_bytes: 256 * 1024,
    queue_frames: 128,
    queue_bytes: 512 * 1024,
    events: 16,
    icmp_errors_per_second: 1000,
    connections: 256,
    affinities: 16,
    flows: FLOWS,
};
/// Flows that a switch knows.
pub(crate) const FLOWS: u32 = 64;

fn host_limits() -> HostLimits {
    HostLimits {
        tcp_flows: 16,
        idle_flows: 4,
        tcp_listeners: 8,
        backlog: 8,
        receive_buffer: 16 * 1024,
        send_buffer: 16 * 1024,
        udp_sockets: 8,
        udp_datagrams: 32,
        neighbors: 32,
        transmit_queue: 128,
        ..HostLimits::default()
    }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A host before it is made.
struct HostPlan {
    mac: MacAddr,
    nets: [IpNet; 2],
    gateways: [IpAddr; 2],
    mtu: u16,
    switch: usize,
    port: PortId,
}

/// A network before it is made.
#[derive(Default)]
struct Plan {
    configs: Vec<Config>,
    /// Links between switches.
    trunks: Vec<[(usize, PortId); 2]>,
    hosts: Vec<HostPlan>,
    services: Vec<Balanced>,
}

impl Plan {
    fn port(&mut self, switch: usize, vlan: VlanMode, offload: OffloadFeatures, station: Station) -> PortId {
        let ports = &mut self.configs[switch].ports;
        let id = PortId(u16::try_from(ports.len()).unwrap());
        ports.push(PortConfig { offload, station, ..PortConfig::new(id, format!("port-{}", id.0), vlan) });
        id
    }

    /// A host on a segment, known to its switch beforehand or not.
    fn host(&mut self, switch: usize, segment: u16, nets: [IpNet; 2], gateways: [IpAddr; 2], managed: bool) {
        let mac = MacAddr::local(self.hosts.len() as u64 + 1);
        let addresses = nets.iter().map(IpNet::addr).collect();
        let mtu = self.configs[switch].segments[usize::from(segment)].mtu;
        let station = if managed { Station::Managed { mac, addresses } } else { Station::Foreign };
        let port = self.port(switch, VlanMode::Access(SegmentId(segment)), OffloadFeatures::NONE, station);
        self.hosts.push(HostPlan { mac, nets, gateways, mtu, switch, port });
    }
}

fn segment(id: u16, mtu: u16, bridge: bool, gateway: Option<(u64, [IpNet; 2])>) -> SegmentConfig {
    let gateway = gateway.map(|(mac, addresses)| GatewayConfig::new(MacAddr::local(mac), addresses.to_vec()));
    SegmentConfig { mtu, gateway, bridge, ..SegmentConfig::new(SegmentId(id), format!("segment-{id}")) }
}

fn via(prefix: &str, segment: u16, gateway: IpAddr) -> RouteConfig {
    let hop = NextHop { segment: SegmentId(segment), gateway: Some(gateway) };
    RouteConfig { prefix: net(prefix), target: RouteTarget::Via(vec![hop]) }
}

/// A tree of bridges. With VLANs the bridges carry two on their trunks, and the first one routes between them.
fn tree(rng: &mut Rng, hosts: usize, vlans: bool) -> Plan {
    let mut plan = Plan::default();
    let count = 1 + below(rng, 4);
    let segments = if vlans { 2 } else { 1 };
    let gateways = |s: u16| [net(&format!("10.0.{s}.1/24")), net(&format!("fd00:{s}::1/64"))];
    for switch in 0..count {
        let own = |s: u16| (switch == 0).then(|| (1000 + u64::from(s), gateways(s)));
        let segments = (0..segments).map(|s| segment(s, 1500, true, own(s))).collect();
        plan.configs.push(Config { segments, ..Config::default() });
        if switch > 0 {
            let parent = below(rng, switch);
            let native = chance(rng, 50).then_some(SegmentId(0));
            let mode = || match (vlans, native) {
                (false, _) => VlanMode::Access(SegmentId(0)),
                (true, None) => {
                    VlanMode::Trunk { native: None, tagged: vec![(10, SegmentId(0)), (20, SegmentId(1))] }
                }
                (true, native) => VlanMode::Trunk { native, tagged: vec![(20, SegmentId(1))] },
            };
            let offload = if chance(rng, 50) { OffloadFeatures::ALL } else { OffloadFeatures::NONE };
            let up = plan.port(parent, mode(), offload, Station::Foreign);
            let down = plan.port(switch, mode(), offload, Station::Foreign);
            plan.trunks.push([(parent, up), (switch, down)]);
        }
    }
    for host in 0..hosts {
        let s = u16::try_from(below(rng, usize::from(segments))).unwrap();
        let nets = [net(&format!("10.0.{s}.{}/24", 10 + host)), net(&format!("fd00:{s}::{}/64", 10 + host))];
        let switch = below(rng, count);
        plan.host(switch, s, nets, gateways(s).map(|g| g.addr()), chance(rng, 50));
    }
    plan
}

/// A node tracks connections behind its own address.
fn tracking(uplink: [IpNet; 2]) -> NatConfig {
    let pool = PoolConfig::new("node", uplink.iter().map(IpNet::addr).collect());
    NatConfig { pools: vec![pool], ..NatConfig::default() }
}

/// Pods leave behind their node's address, whoever they go to.
fn masquerade(pods: [IpNet; 2], uplink: [IpNet; 2]) -> NatConfig {
    let rule = |pods: IpNet| {
        let matches =
            NatMatch { sources: vec![pods.trunc()], egress: Some(SegmentId(0)), ..NatMatch::default() };
        SourceRule { matches, action: SourceNat::Pool("node".into()) }
    };
    NatConfig { source: pods.map(rule).to_vec(), ..tracking(uplink) }
}

/// Nodes with a pod segment and an uplink each, on one or two racks that a router joins; now and then a plain host on a
/// rack, or a rack that carries only small packets.
fn cluster(rng: &mut Rng, hosts: usize) -> Plan {
    let mut plan = Plan::default();
    let (nodes, racks) = (1 + below(rng, 4), 1 + below(rng, 2));
    let mtu = if chance(rng, 25) { 1400 } else { 1500 };
    let balanced = chance(rng, 60);
    let rack_gateways = |r: usize| [net(&format!("10.10{r}.0.1/24")), net(&format!("fd00:10{r}::1/64"))];
    let number = |n: usize| u16::try_from(n).unwrap();
    let mut underlay = Config::default();
    for r in 0..racks {
        underlay.segments.push(segment(number(r), mtu, true, Some((1000 + r as u64, rack_gateways(r)))));
    }
    for node in 0..nodes {
        let rack = node % racks;
        let uplink = [net(&format!("10.10{rack}.0.1{node}/24")), net(&format!("fd00:10{rack}::1{node}/64"))];
        let pods = [net(&format!("10.244.{node}.1/24")), net(&format!("fd00:244:{node}::1/64"))];
        let [v4, v6] = rack_gateways(rack).map(|g| g.addr());
        let nat = match (chance(rng, 50), balanced) {
            (true, _) => Some(masquerade(pods, uplink)),
            (false, true) => Some(tracking(uplink)),
            (false, false) => None,
        };
        plan.configs.push(Config {
            nat,
            segments: vec![
                segment(0, mtu, false, Some((2000 + node as u64, uplink))),
                segment(1, 1500, true, Some((3000 + node as u64, pods))),
            ],
            routes: vec![via("0.0.0.0/0", 0, v4), via("::/0", 0, v6)],
            ..Config::default()
        });
        for (pods, hop) in pods.iter().zip(uplink) {
            underlay.routes.push(via(&pods.trunc().to_string(), number(rack), hop.addr()));
        }
        if balanced && node == 0 {
            // Whoever is no pod asks by the first node.
            for (prefix, hop) in services::RANGES.iter().zip(uplink) {
                underlay.routes.push(via(prefix, number(rack), hop.addr()));
            }
        }
    }
    plan.configs.push(underlay);
    for node in 0..nodes {
        let offload = if chance(rng, 50) { OffloadFeatures::ALL } else { OffloadFeatures::NONE };
        let rack = VlanMode::Access(SegmentId(number(node % racks)));
        let up = plan.port(node, VlanMode::Access(SegmentId(0)), offload, Station::Foreign);
        let down = plan.port(nodes, rack, offload, Station::Foreign);
        plan.trunks.push([(node, up), (nodes, down)]);
    }
    for host in 0..hosts {
        if chance(rng, 20) {
            let r = below(rng, racks);
            let nets = [
                net(&format!("10.10{r}.0.{}/24", 100 + host)),
                net(&format!("fd00:10{r}::{}/64", 100 + host)),
            ];
            plan.host(nodes, number(r), nets, rack_gateways(r).map(|g| g.addr()), false);
        } else {
            let n = below(rng, nodes);
            let nets = [
                net(&format!("10.244.{n}.{}/24", 10 + host)),
                net(&format!("fd00:244:{n}::{}/64", 10 + host)),
            ];
            let gateways = [ip(&format!("10.244.{n}.1")), ip(&format!("fd00:244:{n}::1"))];
            plan.host(n, 1, nets, gateways, chance(rng, 80));
        }
    }
    if balanced {
        plan.services = services::plan(rng, hosts);
        let addresses: Vec<[IpAddr; 2]> =
            plan.hosts.iter().map(|host| host.nets.map(|net| net.addr())).collect();
        let of = services::config(&plan.services, &addresses, rng);
        plan.configs[..nodes].iter_mut().for_each(|config| config.services = Some(of.clone()));
    }
    plan
}

fn millis(rng: &mut Rng, most: u32) -> Duration {
    Duration::from_micros(u64::from(rng.below(most * 1000 + 1)))
}

fn parts(rng: &mut Rng, most: u32) -> Probability {
    Probability::per_million(rng.below(most + 1))
}

/// What a link does in this weather. Nothing is damaged here: see [`World::new`].
fn profile(rng: &mut Rng, weather: Weather) -> LinkProfile {
    let delay = millis(rng, 5) + Duration::from_micros(10);
    match weather {
        Weather::Clear => LinkProfile { jitter: millis(rng, 1), ..LinkProfile::delayed(delay) },
        Weather::Fair => LinkProfile {
            loss: parts(rng, 10_000),
            duplication: parts(rng, 30_000),
            reordering: parts(rng, 50_000),
            late_by: millis(rng, 5),
            delay,
            jitter: millis(rng, 2),
            rate: if chance(rng, 30) { 500_000 + u64::from(rng.below(5_000_000)) } else { 0 },
            queue_bytes: 8_000 + below(rng, 60_000),
            ..LinkProfile::PERFECT
        },
        Weather::Foul => LinkProfile {
            loss: parts(rng, 200_000),
            duplication: parts(rng, 200_000),
            reordering: parts(rng, 300_000),
            late_by: millis(rng, 50),
            delay: delay + millis(rng, 50),
            jitter: millis(rng, 20),
            rate: if chance(rng, 50) { 20_000 + u64::from(rng.below(500_000)) } else { 0 },
            queue_bytes: 2_000 + below(rng, 20_000),
            ..LinkProfile::PERFECT
        },
    }
}

impl World {
    pub(crate) fn new(seed: u64, rng: &mut Rng, flows: u32) -> Self {
        let weather = match rng.below(10) {
            0 | 1 => Weather::Clear,
            2..=7 => Weather::Fair,
            _ => Weather::Foul,
        };
        let hosts = 2 + below(rng, 7);
        let routed = chance(rng, 50);
        let vlans = !routed && chance(rng, 60);
        let plan = if routed { cluster(rng, hosts) } else { tree(rng, hosts, vlans) };
        let mut lab = Lab::new(Seed::from_u64(seed));
        let mut switches = Vec::new();
        for (number, config) in plan.configs.into_iter().enumerate() {
            let snapshot = Snapshot::compile(config.clone(), None).unwrap_or_else(|e| panic!("{e}"));
            switches.push((
                lab.add_switch(&format!("s{number}"), snapshot, Limits { flows, ..LIMITS }).unwrap(),
                config,
            ));
        }
        for ends in plan.trunks {
            let [first, second] = ends.map(|(switch, port)| (switches[switch].0, port));
            let (forth, back) = (profile(rng, weather), profile(rng, weather));
            lab.connect_asymmetric(first, second, forth, back).unwrap();
        }
        // One host's link damages frames and no other, so that no packet is damaged twice: a checksum of 16 bits finds
        // every single wrong bit, but not every pair. Who answers for a service may ask himself, over his link twice.
        let damaged = (weather != Weather::Clear && chance(rng, 60)).then(|| below(rng, hosts));
        let damaged = damaged.filter(|host| plan.services.iter().all(|all| !all.backends.contains(host)));
        let mut members = Vec::new();
        for (number, host) in plan.hosts.into_iter().enumerate() {
            let mut config = HostConfig::new(host.mac, host.nets.to_vec());
            let [IpAddr::V4(v4), IpAddr::V6(v6)] = host.gateways else { panic!("a gateway of each family") };
            (config.gateway_v4, config.gateway_v6, config.limits) = (Some(v4), Some(v6), host_limits());
            config.mtu = usize::from(host.mtu);
            let id = lab.add_host(&format!("h{number}"), config).unwrap();
            let at = End::from((switches[host.switch].0, host.port));
            let (mut forth, mut back) = (profile(rng, weather), profile(rng, weather));
            if damaged == Some(number) {
                (forth.corruption, back.corruption) = (parts(rng, 50_000), parts(rng, 50_000));
            }
            lab.connect_asymmetric(id, at, forth, back).unwrap();
            let [v4, v6] = host.nets.map(|n| n.addr());
            members.push(Member { id, at, mac: host.mac, v4, v6 });
        }
        Self { lab, weather, vlans, switches, members, services: plan.services }
    }
}
