//! Every error of a configuration, each by one that has it alone, and what its message names.

use std::collections::BTreeSet;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, ConfigError, RouteTarget, RouterAdvertisement, Snapshot, Station, StormControl, VlanMode,
};

use crate::world::{PODS, everybody, net, port, route, routed, segment, trunk, via, with};

fn errors(config: Config) -> Vec<ConfigError> {
    Snapshot::compile(config, None).expect_err("the configuration is wrong").0
}

fn station(config: &mut Config, port: usize, change: impl FnOnce(&mut MacAddr, &mut Vec<core::net::IpAddr>)) {
    let Station::Managed { mac, addresses } = &mut config.ports[port].station else { panic!("not managed") };
    change(mac, addresses);
}

fn gateway(config: &mut Config, segment: usize, addresses: &[&str]) {
    config.segments[segment].gateway.as_mut().unwrap().addresses = addresses.iter().map(|a| net(a)).collect();
}

/// What is done to a good configuration, and the words that the one error names.
type Case = (fn(&mut Config), &'static [&'static str]);

const PORTS: &[Case] = &[
    (|c| c.ports.push(port(3, 0)), &["port 3", "twice"]),
    (|c| c.ports.push(port(9, 77)), &["port-9", "segment 77", "not defined"]),
    (|c| c.ports.push(trunk(9, None, &[(10, 77)])), &["port-9", "segment 77", "not defined"]),
    (|c| c.ports.push(trunk(9, Some(77), &[])), &["port-9", "segment 77", "not defined"]),
    (|c| c.ports.push(trunk(9, None, &[(0, 0)])), &["port-9", "VLAN 0", "out of range"]),
    (|c| c.ports.push(trunk(9, None, &[(4095, 0)])), &["port-9", "VLAN 4095", "out of range"]),
    (|c| c.ports.push(trunk(9, None, &[(10, 0), (10, 1)])), &["port-9", "VLAN 10", "twice"]),
    (|c| c.ports.push(trunk(9, None, &[(10, 0), (11, 0)])), &["port-9", "segment 0", "two tags"]),
    (|c| c.ports.push(trunk(9, Some(0), &[(11, 0)])), &["port-9", "segment 0", "two tags"]),
    (
        |c| c.ports[0].vlan = VlanMode::Trunk { native: Some(SegmentId(0)), tagged: vec![] },
        &["port-0", "managed", "access"],
    ),
];

/// Changes what the pods' router tells about itself, from something that is right.
fn tell(config: &mut Config, change: impl FnOnce(&mut RouterAdvertisement)) {
    let mut told = RouterAdvertisement::for_prefixes([net("fd00::/64")]);
    change(&mut told);
    config.segments[0].gateway.as_mut().unwrap().advertise = Some(told);
}

const PROTECTION: &[Case] = &[
    (|c| c.ports[3].storm = Some(StormControl { rate: 0, burst: 1 }), &["port-3", "storm"]),
    (|c| c.ports[3].storm = Some(StormControl { rate: 1, burst: 0 }), &["port-3", "storm"]),
    (|c| tell(c, |t| t.max_interval = 3), &["segment-0", "advertisement", "max_interval"]),
    (|c| tell(c, |t| t.max_interval = 1801), &["max_interval is 4 to 1800"]),
    (|c| tell(c, |t| t.min_interval = 2), &["min_interval"]),
    (|c| tell(c, |t| t.min_interval = 451), &["min_interval", "three quarters"]),
    (|c| tell(c, |t| t.router_lifetime = 599), &["router_lifetime"]),
    (|c| tell(c, |t| t.router_lifetime = 9001), &["router_lifetime"]),
    (|c| tell(c, |t| t.dns_servers = vec!["fd00::53".parse().unwrap(); 74]), &["1280"]),
    (|c| tell(c, |t| t.dns_servers.push("::".parse().unwrap())), &["DNS"]),
    (|c| tell(c, |t| t.prefixes[0].prefix = net("10.0.0.0/24")), &["IPv4"]),
    (|c| tell(c, |t| t.prefixes[0].prefix = net("fd00::1/64")), &["bits set"]),
    (|c| tell(c, |t| t.prefixes[0].prefix = net("fe80::/64")), &["link-local"]),
    (|c| tell(c, |t| t.prefixes[0].prefix = net("fd00::/56")), &["64 bits"]),
    (|c| tell(c, |t| t.prefixes[0].preferred_lifetime = u32::MAX), &["preferred"]),
];

const STATIONS: &[Case] = &[
    (|c| station(c, 0, |mac, _| *mac = MacAddr::ZERO), &["port-0", "00:00:00:00:00:00"]),
    (|c| station(c, 0, |mac, _| *mac = MacAddr::BROADCAST), &["port-0", "ff:ff:ff:ff:ff:ff"]),
    (
        |c| station(c, 0, |mac, _| *mac = MacAddr([2, 0, 0, 0, 0, 2])),
        &["02:00:00:00:00:02", "port-0", "port-1"],
    ),
    (|c| station(c, 0, |mac, _| *mac = PODS), &["02:00:00:00:ee:00", "gateway", "port-0"]),
    (|c| station(c, 0, |_, a| a.push("10.0.0.3".parse().unwrap())), &["10.0.0.3", "port-0", "port-1"]),
    (|c| station(c, 0, |_, a| a.push("10.0.0.1".parse().unwrap())), &["10.0.0.1", "gateway", "port-0"]),
    // The link-local addresses that MAC addresses give are addresses like others.
    (
        |c| station(c, 0, |_, a| a.push("fe80::ff:fe00:2".parse().unwrap())),
        &["fe80::ff:fe00:2", "port-0", "port-1"],
    ),
    (
        |c| station(c, 0, |_, a| a.push(PODS.link_local().into())),
        &["fe80::ff:fe00:ee00", "gateway", "port-0"],
    ),
    (|c| station(c, 0, |_, a| a.push("224.0.0.1".parse().unwrap())), &["port-0", "224.0.0.1"]),
    (|c| station(c, 0, |_, a| a.push("::".parse().unwrap())), &["port-0", "::"]),
    (|c| station(c, 0, |_, a| a.push("127.0.0.1".parse().unwrap())), &["port-0", "127.0.0.1"]),
    (|c| station(c, 0, |_, a| a.push("255.255.255.255".parse().unwrap())), &["port-0", "255.255.255.255"]),
];

const SEGMENTS: &[Case] = &[
    (|c| c.segments.push(segment(1, 1500)), &["segment 1", "twice"]),
    (|c| c.segments.push(segment(9, 67)), &["segment-9", "MTU 67", "68", "IPv4"]),
    (|c| c.segments[0].mtu = 1279, &["segment-0", "MTU 1279", "1280", "IPv6"]),
    // Without an address of the router's own: by a station, by a route.
    (
        |c| {
            gateway(c, 2, &["169.254.1.1/32"]);
            c.segments[2].mtu = 1279;
        },
        &["segment-2", "MTU 1279", "IPv6"],
    ),
    (
        |c| {
            c.segments.push(routed(
                9,
                1279,
                crate::world::gateway(MacAddr([2, 0, 0, 0, 9, 9]), &["10.9.0.1/24"]),
            ));
            c.routes.push(route("fd09::/64", RouteTarget::Via(vec![via(9, "fe80::1")])));
        },
        &["segment-9", "MTU 1279", "IPv6"],
    ),
    (
        |c| c.segments[0].gateway.as_mut().unwrap().mac = MacAddr::BROADCAST,
        &["segment-0", "gateway", "ff:ff:ff:ff:ff:ff"],
    ),
    (|c| gateway(c, 0, &["10.0.0.0/24", "fd00::1/64"]), &["segment-0", "gateway", "10.0.0.0"]),
    (|c| gateway(c, 0, &["10.0.0.255/24", "fd00::1/64"]), &["segment-0", "gateway", "10.0.0.255"]),
    (|c| gateway(c, 0, &["239.0.0.1/24", "fd00::1/64"]), &["segment-0", "gateway", "239.0.0.1"]),
    (|c| gateway(c, 0, &["10.0.0.1/24", "10.0.0.1/16", "fd00::1/64"]), &["10.0.0.1", "gateway"]),
    (|c| gateway(c, 0, &["10.0.0.1/24", "10.1.0.9/24", "fd00::1/64"]), &["10.1.0.0/24", "twice"]),
];

const ROUTES: &[Case] = &[
    (|c| c.routes.push(route("10.9.0.0/16", RouteTarget::Via(vec![]))), &["10.9.0.0/16", "no next hop"]),
    (
        |c| c.routes.push(route("10.9.0.0/16", RouteTarget::Via(vec![via(1, "fd00:1::2")]))),
        &["10.9.0.0/16", "fd00:1::2", "family"],
    ),
    (
        |c| c.routes.push(route("10.9.0.0/16", RouteTarget::Via(vec![via(7, "10.1.0.2")]))),
        &["10.9.0.0/16", "segment 7", "not defined"],
    ),
    (
        |c| {
            c.segments.push(segment(7, 1500));
            c.routes.push(route("10.9.0.0/16", RouteTarget::Via(vec![via(7, "10.1.0.2")])));
        },
        &["10.9.0.0/16", "segment 7", "no gateway"],
    ),
    (
        |c| c.routes.push(route("10.9.0.0/16", RouteTarget::Via(vec![via(1, "10.1.0.1")]))),
        &["10.9.0.0/16", "10.1.0.1", "own"],
    ),
    (|c| c.routes.push(route("0.0.0.0/0", RouteTarget::Blackhole)), &["0.0.0.0/0", "twice"]),
    (|c| c.routes.push(route("10.0.0.0/24", RouteTarget::Blackhole)), &["10.0.0.0/24", "a segment's own"]),
    (|c| c.routes.push(route("10.9.0.1/16", RouteTarget::Blackhole)), &["10.9.0.1/16", "write 10.9.0.0/16"]),
];

#[test]
fn every_error_is_found_alone_and_names_its_place() {
    let mut kinds = BTreeSet::new();
    for (change, words) in [PORTS, PROTECTION, STATIONS, SEGMENTS, ROUTES].into_iter().flatten() {
        let found = errors(with(change));
        let [error] = &found[..] else { panic!("{words:?}: {found:?}") };
        let text = error.to_string();
        for word in *words {
            assert!(text.contains(word), "{text:?} does not name {word:?}");
        }
        kinds.insert(format!("{error:?}").split([' ', '{']).next().unwrap().to_owned());
    }
    // As many as the list of errors has: a new one needs a line above.
    assert_eq!(kinds.len(), 19, "{kinds:?}");
}

#[test]
fn all_errors_are_told_at_once() {
    let config = with(|c| {
        c.segments[0].mtu = 100;
        c.ports.push(port(9, 77));
        c.routes.push(route("10.9.0.0/16", RouteTarget::Via(vec![])));
    });
    let all = Snapshot::compile(config, None).unwrap_err();
    assert_eq!(all.0.len(), 3);
    assert_eq!(all.to_string().lines().count(), 3);
}

#[test]
fn a_good_configuration_has_none_and_is_kept() {
    let snapshot = Snapshot::compile(everybody(), None).unwrap();
    assert_eq!(*snapshot.config(), everybody());
    assert_eq!(snapshot.ports().map(|p| p.id()).collect::<Vec<_>>(), (0..6).map(PortId).collect::<Vec<_>>());
    assert!(Snapshot::compile(Config::default(), None).is_ok());
    // The link-local address that a MAC address gives may be written out.
    let written = with(|c| {
        gateway(c, 0, &["10.0.0.1/24", "fd00::1/64", "fe80::ff:fe00:ee00/64"]);
        station(c, 0, |mac, addresses| addresses.push(mac.link_local().into()));
    });
    assert!(Snapshot::compile(written, None).is_ok());
    assert!(Snapshot::compile(with(|c| tell(c, |_| ())), None).is_ok());
    // Two addresses of one segment may share their prefix.
    assert!(
        Snapshot::compile(with(|c| gateway(c, 0, &["10.0.0.1/24", "10.0.0.9/24", "fd00::1/64"])), None)
            .is_ok()
    );
}
