//! The networks that the tests stand on: two pods, a station outside on their segment, one on another segment, and a
//! node-local link.

use std::net::IpAddr;
use std::sync::Arc;

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::nat::{
    DestinationNat, DestinationRule, NatConfig, NatMatch, PoolConfig, PortRange, SourceNat, SourceRule,
};
use netstack::config::{
    Config, GatewayConfig, NextHop, PortConfig, ReversePath, RouteConfig, RouteTarget, SegmentConfig,
    ServicesConfig, Station, VlanMode,
};

use crate::lab::Lab;
use crate::packets::{self, Packet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// One of two things.
    pub(crate) fn of<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    pub(crate) fn unspecified(self) -> IpAddr {
        ip(self.of("0.0.0.0", "::"))
    }
}

/// A station and the port it is behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) port: u16,
    pub(crate) mac: MacAddr,
    /// The router's MAC address on its segment.
    pub(crate) router: MacAddr,
    pub(crate) v4: &'static str,
    pub(crate) v6: &'static str,
}

impl Host {
    pub(crate) fn ip(&self, family: Family) -> IpAddr {
        ip(family.of(self.v4, self.v6))
    }

    /// A packet straight to a station of the same segment.
    pub(crate) fn to(&self, other: &Self, family: Family) -> Packet {
        Packet::new(self.mac, other.mac, self.ip(family), other.ip(family))
    }

    /// A packet by the router.
    pub(crate) fn via_router(&self, destination: IpAddr) -> Packet {
        let family = if destination.is_ipv4() { Family::V4 } else { Family::V6 };
        Packet::new(self.mac, self.router, self.ip(family), destination)
    }
}

pub(crate) const PODS: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 0]);
pub(crate) const UPLINK: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);
pub(crate) const LOCAL: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 2]);

pub(crate) const POD_A: Host =
    Host { port: 0, mac: MacAddr([2, 0, 0, 0, 0, 1]), router: PODS, v4: "10.0.0.2", v6: "fd00::2" };
pub(crate) const POD_B: Host =
    Host { port: 1, mac: MacAddr([2, 0, 0, 0, 0, 2]), router: PODS, v4: "10.0.0.3", v6: "fd00::3" };
/// A foreign station on the pods' segment.
pub(crate) const GUEST: Host =
    Host { port: 2, mac: MacAddr([2, 0, 0, 0, 0, 0x0c]), router: PODS, v4: "10.0.0.100", v6: "fd00::100" };
/// A foreign station on the other segment.
pub(crate) const FAR: Host =
    Host { port: 3, mac: MacAddr([2, 0, 0, 0, 0, 0x0d]), router: UPLINK, v4: "10.1.0.2", v6: "fd00:1::2" };
/// The machine that the switch is; it shares the router's address on the uplink.
pub(crate) const NODE: Host =
    Host { port: 4, mac: MacAddr([2, 0, 0, 0, 0, 0x0e]), router: LOCAL, v4: "10.1.0.1", v6: "fd00:1::1" };
/// A second foreign port on the pods' segment.
pub(crate) const OTHER: Host =
    Host { port: 5, mac: MacAddr([2, 0, 0, 0, 0, 0x0f]), router: PODS, v4: "10.0.0.101", v6: "fd00::101" };

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn port(id: u16, segment: u16) -> PortConfig {
    PortConfig::new(PortId(id), format!("port-{id}"), VlanMode::Access(SegmentId(segment)))
}

pub(crate) fn managed(host: &Host, segment: u16) -> PortConfig {
    let station = Station::Managed { mac: host.mac, addresses: vec![ip(host.v4), ip(host.v6)] };
    PortConfig { station, ..port(host.port, segment) }
}

pub(crate) fn trunk(id: u16, native: Option<u16>, tagged: &[(u16, u16)]) -> PortConfig {
    let tagged = tagged.iter().map(|&(vlan, segment)| (vlan, SegmentId(segment))).collect();
    PortConfig { vlan: VlanMode::Trunk { native: native.map(SegmentId), tagged }, ..port(id, 0) }
}

pub(crate) fn segment(id: u16, mtu: u16) -> SegmentConfig {
    SegmentConfig { mtu, ..SegmentConfig::new(SegmentId(id), format!("segment-{id}")) }
}

pub(crate) fn gateway(mac: MacAddr, addresses: &[&str]) -> GatewayConfig {
    GatewayConfig::new(mac, addresses.iter().map(|a| net(a)).collect())
}

pub(crate) fn routed(id: u16, mtu: u16, gateway: GatewayConfig) -> SegmentConfig {
    SegmentConfig { gateway: Some(gateway), ..segment(id, mtu) }
}

pub(crate) fn route(prefix: &str, target: RouteTarget) -> RouteConfig {
    RouteConfig { prefix: net(prefix), target }
}

pub(crate) fn via(segment: u16, gateway: &str) -> NextHop {
    NextHop { segment: SegmentId(segment), gateway: Some(ip(gateway)) }
}

/// `count` foreign ports on one segment without a router.
pub(crate) fn bridge(count: u16) -> Config {
    Config {
        ports: (0..count).map(|id| port(id, 0)).collect(),
        segments: vec![segment(0, 1500)],
        ..Config::default()
    }
}

/// Everybody named above, each where its comment says.
pub(crate) fn everybody() -> Config {
    let mut local = gateway(LOCAL, &["169.254.1.1/32"]);
    local.node_local = true;
    Config {
        ports: vec![
            managed(&POD_A, 0),
            managed(&POD_B, 0),
            port(GUEST.port, 0),
            port(FAR.port, 1),
            managed(&NODE, 2),
            port(OTHER.port, 0),
        ],
        segments: vec![
            routed(0, 1500, gateway(PODS, &["10.0.0.1/24", "fd00::1/64"])),
            routed(1, 1500, gateway(UPLINK, &["10.1.0.1/24", "fd00:1::1/64"])),
            routed(2, 1500, local),
        ],
        routes: vec![
            route("0.0.0.0/0", RouteTarget::Via(vec![via(1, FAR.v4)])),
            route("::/0", RouteTarget::Via(vec![via(1, FAR.v6)])),
        ],
        nat: None,
        services: None,
    }
}

/// `everybody`, with something changed.
pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = everybody();
    change(&mut config);
    config
}

/// `everybody`, with translation: pods leave for the other segment behind the router's address there, but for one prefix; a port of that address is POD_B's.
pub(crate) fn node(change: impl FnOnce(&mut NatConfig)) -> Config {
    with(|config| {
        let pool = PoolConfig::new("node", vec![ip(NODE.v4), ip(NODE.v6)]);
        let mut nat = NatConfig { pools: vec![pool], ..NatConfig::default() };
        let uplink = Some(SegmentId(1));
        for (pods, exempt, own, pod) in [
            ("10.0.0.0/24", "198.51.100.0/24", NODE.v4, POD_B.v4),
            ("fd00::/64", "2001:db8:100::/48", NODE.v6, POD_B.v6),
        ] {
            let matches = NatMatch { destinations: vec![net(exempt)], ..NatMatch::default() };
            nat.source.push(SourceRule { matches, action: SourceNat::Keep });
            let matches = NatMatch { egress: uplink, sources: vec![net(pods)], ..NatMatch::default() };
            nat.source.push(SourceRule { matches, action: SourceNat::Pool("node".into()) });
            let matches = NatMatch {
                destinations: vec![ip(own).into()],
                protocol: Some(17),
                destination_ports: Some(PortRange { first: 8080, last: 8080 }),
                ..NatMatch::default()
            };
            let ports = Some(PortRange { first: 80, last: 80 });
            nat.destination.push(DestinationRule {
                matches,
                action: DestinationNat::To { address: Some(ip(pod)), ports },
            });
        }
        change(&mut nat);
        config.nat = Some(nat);
    })
}

/// Addresses that are given to services: one that has some, one that has none.
pub(crate) const VIP: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
pub(crate) const FREE: [&str; 2] = ["10.96.0.99", "fd00:96::99"];

/// A service: its frontends, and its backends for clients wherever they are. Clients from the node and from outside are
/// masqueraded.
pub(crate) fn service(
    name: &str,
    protocol: u8,
    frontends: &[(IpAddr, u16)],
    backends: &[(IpAddr, u16)],
) -> lb::Service {
    let all = backends.iter().map(|&(address, port)| lb::Backend { address, port, weight: 1 });
    let pool = Arc::new(lb::Pool::new(all, lb::Policy::Maglev, None, [7; 16]).unwrap());
    let way = |masquerade| lb::Way { pool: pool.clone(), masquerade, when_empty: lb::Refusal::Reject };
    let entrance = |&(address, port): &(IpAddr, u16)| lb::Entrance {
        frontend: lb::Frontend { address, protocol, port },
        sources: Vec::new(),
        ways: [way(false), way(true), way(true)],
    };
    lb::Service {
        name: name.into(),
        entrances: frontends.iter().map(entrance).collect(),
        affinity: None,
        serving: backends.iter().copied().collect(),
        reset_gone: false,
    }
}

/// Services for [`node`].
pub(crate) fn services(services: impl IntoIterator<Item = lb::Service>) -> ServicesConfig {
    let mut registry = lb::Registry::new();
    for service in services {
        registry.set(service).unwrap();
    }
    ServicesConfig {
        registry,
        inside: vec![net("10.0.0.0/24"), net("fd00::/64")],
        ranges: vec![net("10.96.0.0/12"), net("fd00:96::/112")],
        masquerade: Some("node".into()),
        key: [9; 16],
    }
}

pub(crate) fn reverse_path(config: &mut Config, segment: usize, filter: ReversePath) {
    config.segments[segment].gateway.as_mut().unwrap().reverse_path = filter;
}

/// A lab with everybody in it, whose foreign stations the router knows.
pub(crate) fn acquainted(config: Config) -> Lab {
    let mut lab = Lab::new(config);
    for host in [GUEST, FAR, OTHER] {
        introduce(&mut lab, &host);
    }
    lab
}

/// Lets a station ask for its router in both families, from which the router learns where it is.
pub(crate) fn introduce(lab: &mut Lab, host: &Host) {
    for family in FAMILIES {
        let segment =
            lab.switch.snapshot().segments().find(|s| s.gateway().is_some_and(|g| g.mac == host.router));
        let gateway = segment.unwrap().gateway().unwrap();
        let Some(router) =
            gateway.addresses.iter().map(IpNet::addr).find(|a| a.is_ipv4() == (family == Family::V4))
        else {
            continue;
        };
        let out = lab.send(host.port, &packets::ask(host.mac, host.ip(family), router));
        assert_eq!(out.len(), 1, "the router answers");
    }
    lab.settle();
}
