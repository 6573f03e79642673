//! Flows that are known: whatever comes, and however little room there is for them, all is as without them.

use std::time::Duration;

use netstack::addr::MacAddr;
use netstack::config::{Config, Limits, ReversePath, RouteConfig, RouteTarget, Snapshot};
use netstack::frame::{Checksum, Offload};
use netstack::verdict::DropReason;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::lab::Lab;
use crate::packets;
use crate::random::{self, Run, SMALL, Step};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, Host, NODE, OTHER, POD_A, POD_B, PODS, VIP, acquainted, everybody,
    introduce, ip, managed, node, reverse_path, route, with,
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

/// Of a frame whose checksums a device has found to be right.
const VERIFIED: Offload = Offload { checksum: Checksum::Verified, segmentation: None };

/// Somebody behind the gateway, which FAR is.
const BEYOND: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];

/// One end of a conversation says something; who it says it to answers by [`Step::Answer`].
fn said() -> impl Strategy<Value = Step> {
    let asker = prop::sample::select(vec![POD_A, POD_B, GUEST, OTHER, FAR, NODE]);
    let kind =
        prop_oneof![6 => Just(0u8), 1 => Just(1), 2 => Just(2), 6 => Just(3), 1 => Just(4), 1 => Just(5)];
    let traits = (any::<bool>(), any::<bool>());
    (asker, 0usize..7, prop::sample::select(FAMILIES.to_vec()), 1u16..4, kind, traits).prop_map(
        |(from, to, family, port, kind, (small, verified))| {
            let mut packet = match to {
                0 => from.via_router(ip(family.of(VIP[0], VIP[1]))),
                1 => from.via_router(FAR.ip(family)),
                2 => from.via_router(POD_B.ip(family)),
                3 => from.to(&neighbour(from), family),
                6 => from.via_router(ip(family.of(BEYOND[0], BEYOND[1]))),
                4 => from.via_router(POD_A.ip(family)),
                _ => from.via_router(NODE.ip(family)),
            };
            packet.dont_fragment = !small;
            let (l4, server) = (4000 + port, [2, 53][usize::from(port % 2)]);
            let bytes = match kind {
                0 => packet.udp(l4, server, b"said"),
                1 => packet.tcp_segment(l4, 2, SYN, (1000, 0)),
                2 => packet.tcp_segment(l4, 2, ACK, (1001, 9001)),
                3 => packet.tcp_segment(l4, 2, PSH_ACK, (1001, 9001)),
                4 => packet.tcp_segment(l4, 2, FIN_ACK, (1001, 9001)),
                _ => packet.tcp_segment(l4, 2, RST, (1001, 0)),
            };
            Step::Frame {
                port: from.port,
                bytes,
                offload: if verified { VERIFIED } else { Offload::default() },
            }
        },
    )
}

/// Who is on the same segment.
fn neighbour(of: Host) -> Host {
    match of.port {
        0 => POD_B,
        1 => GUEST,
        2 => OTHER,
        5 => GUEST,
        _ => FAR,
    }
}

/// Several frames in one batch, and now and then something else.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        100 => said(),
        60 => Just(Step::Answer),
        10 => random::step(),
        10 => (0u64..400).prop_map(Step::Wait),
        3 => random::policies(),
        3 => random::arrangement(),
    ]
}

/// Each, and how many flows of a long conversation are known at least: where policies come and go, few live long.
const CONFIGS: [(fn() -> Config, u64); 5] = [
    (random::everything, 200),
    (random::protected, 200),
    (random::translating, 200),
    (random::balanced, 200),
    (random::policed, 50),
];

/// More room for connections, so that they live long enough to be followed.
const ROOM: Limits = Limits { connections: 64, neighbors: 16, ..SMALL };

/// What comes out, and what is remembered, step by step.
fn together(config: fn() -> Config, seed: u64, limits: Limits, steps: &[Step]) -> u64 {
    let mut with = Run::new(config, seed, limits);
    let mut without = Run::new(config, seed, Limits { flows: 0, ..limits });
    for step in steps {
        with.step(step);
        without.step(step);
        assert_eq!(with.record, without.record, "{step:?}");
        assert_eq!(with.state(), without.state(), "{step:?}");
        with.record.clear();
        without.record.clear();
    }
    assert_eq!(without.switch.known(), 0);
    let known = with.switch.known();
    assert_eq!(with.finish(), without.finish());
    known
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn all_is_as_without_them(seed: u64, steps in proptest::collection::vec(step(), 1..150)) {
        for (config, _) in CONFIGS {
            together(config, seed, SMALL, &steps);
            together(config, seed, ROOM, &steps);
        }
    }
}

#[test]
fn the_generator_meets_known_flows() {
    let mut runner = TestRunner::deterministic();
    let steps: Vec<Step> = (0..4000).map(|_| step().new_tree(&mut runner).unwrap().current()).collect();
    for (config, least) in CONFIGS {
        let known = together(config, 1, ROOM, &steps);
        assert!(known > least, "{known}");
    }
}

/// Which segments of a connection, from its first to its last, are of a flow that is known.
fn known_of_a_connection(lab: &mut Lab, family: Family, offload: Offload) -> Vec<bool> {
    let client = POD_A.via_router(FAR.ip(family));
    let said = |flags, numbers| client.tcp_segment(4000, 2, flags, numbers);
    let mut known = Vec::new();
    let mut say = |port, bytes: &[u8]| {
        let before = lab.switch.known();
        let out = lab.send_with(port, bytes, offload);
        lab.settle();
        assert_eq!(out.len(), 1, "it goes through");
        known.push(lab.switch.known() > before);
        out[0].bytes.clone()
    };
    let mut answered = |flags, numbers| {
        let out = say(POD_A.port, &said(flags, numbers));
        say(FAR.port, &packets::answer(&out).unwrap());
    };
    answered(SYN, (1000, 0));
    answered(ACK, (1001, 9001));
    answered(PSH_ACK, (1001, 9001));
    answered(FIN_ACK, (1001, 9001));
    say(POD_A.port, &said(ACK, (1002, 9002)));
    known
}

#[test]
fn what_follows_the_handshake_is_known_to_the_end() {
    for family in FAMILIES {
        let (handshake, middle) = ([false, false, false], [true; 3]);
        for offload in [VERIFIED, Offload::default()] {
            let known = known_of_a_connection(&mut acquainted(everybody()), family, offload);
            assert_eq!(known, [&handshake[..], &middle, &[true; 3]].concat(), "{offload:?}");
        }
        let known = known_of_a_connection(&mut acquainted(node(|_| ())), family, VERIFIED);
        assert_eq!(known, [&handshake[..], &middle, &[true; 3]].concat());
        // An end that may be forged, or damaged, is looked at more closely where connections are remembered.
        let known = known_of_a_connection(&mut acquainted(node(|_| ())), family, Offload::default());
        assert_eq!(known, [&handshake[..], &middle, &[false, false, true]].concat());
    }
}

/// A datagram of POD_A's to FAR, and how many came out, knowing the flow and not.
fn one_more(lab: &mut Lab, family: Family) -> (usize, u64) {
    let before = lab.switch.known();
    let out = lab.send(POD_A.port, &POD_A.via_router(FAR.ip(family)).udp(4000, 53, b"said"));
    lab.settle();
    (out.len(), lab.switch.known() - before)
}

/// What was found out about a flow before the last change.
const KNOWN: (usize, u64) = (1, 1);
const FOUND_OUT: (usize, u64) = (1, 0);

/// A switch that knows the flow.
fn knowing(config: &Config, family: Family) -> Lab {
    let mut lab = acquainted(config.clone());
    for _ in 0..2 {
        one_more(&mut lab, family);
    }
    assert_eq!(one_more(&mut lab, family), KNOWN);
    lab
}

/// So many pods more.
fn with_pods(config: &Config, count: u8) -> Config {
    let mut config = config.clone();
    for number in 1..=count {
        let (v4, v6) = (format!("10.0.0.{}", 30 + number), format!("fd00::{}", 30 + number));
        let mac = MacAddr([2, 0, 0, 0, 9, number]);
        let host = Host { port: 9 + u16::from(number), mac, router: PODS, v4: v4.leak(), v6: v6.leak() };
        config.ports.push(managed(&host, 0));
    }
    config
}

fn with_routes(config: &Config, prefixes: impl IntoIterator<Item = String>) -> Config {
    let mut config = config.clone();
    let more = prefixes.into_iter().map(|prefix| route(&prefix, RouteTarget::Blackhole));
    config.routes.splice(..0, more.collect::<Vec<RouteConfig>>());
    config
}

#[test]
fn a_change_that_has_nothing_to_do_with_a_flow_leaves_it_known() {
    for (base, family) in [everybody(), node(|_| ())].iter().flat_map(|base| FAMILIES.map(|f| (base, f))) {
        let unrelated = family.of("203.0.113.0/24", "2001:db8:113::/48").to_owned();
        for changed in [with_routes(base, [unrelated]), with_pods(base, 1), with_pods(base, 20)] {
            let mut lab = knowing(base, family);
            for config in [&changed, base, &changed] {
                lab.install(config.clone());
                assert_eq!(one_more(&mut lab, family), KNOWN);
            }
            // Several changes between two of its frames.
            for config in [base, &changed, base] {
                lab.install(config.clone());
            }
            assert_eq!(one_more(&mut lab, family), KNOWN);
        }
    }
}

#[test]
fn a_change_that_has_to_do_with_a_flow_is_followed() {
    for (base, family) in [everybody(), node(|_| ())].iter().flat_map(|base| FAMILIES.map(|f| (base, f))) {
        let far = family.of("10.1.0.2/32", "fd00:1::2/128").to_owned();
        let mut lab = knowing(base, family);
        lab.install(with_routes(base, [far]));
        assert_eq!(one_more(&mut lab, family), (0, 0));
        assert_eq!(lab.switch.counters().dropped(DropReason::RouteBlackhole), 1);
        lab.install(base.clone());
        assert_eq!(one_more(&mut lab, family), FOUND_OUT);
        // The destination becomes a station of the switch's, behind another port.
        let mut moved = base.clone();
        moved.ports.push(managed(&Host { port: 9, mac: MacAddr([2, 0, 0, 0, 9, 9]), ..FAR }, 1));
        lab.install(moved);
        let out = lab.send(POD_A.port, &POD_A.via_router(FAR.ip(family)).udp(4000, 53, b"said"));
        assert_eq!(out.iter().map(|out| out.port).collect::<Vec<_>>(), [9]);
        lab.settle();
    }
}

#[test]
fn after_many_changes_and_after_large_ones_flows_are_found_out_anew() {
    for (base, family) in [everybody(), node(|_| ())].iter().flat_map(|base| FAMILIES.map(|f| (base, f))) {
        let mut lab = knowing(base, family);
        for change in 0..9 {
            lab.install(with_pods(base, 1 - change % 2));
        }
        assert_eq!(one_more(&mut lab, family), FOUND_OUT);
        assert_eq!(one_more(&mut lab, family), KNOWN);
        lab.install(with_routes(base, (0..70).map(|third| format!("198.18.{third}.0/24"))));
        assert_eq!(one_more(&mut lab, family), FOUND_OUT);
        // One that was compiled from another.
        let (pods, more) = (with_pods(base, 2), with_pods(base, 3));
        lab.install(pods);
        let aside = Snapshot::compile(more, Some(lab.switch.snapshot())).unwrap();
        one_more(&mut lab, family);
        lab.install(with_pods(base, 4));
        assert_eq!(one_more(&mut lab, family), KNOWN);
        lab.switch.install(aside);
        assert_eq!(one_more(&mut lab, family), FOUND_OUT);
    }
}

/// A change that one thing alone says a flow to be concerned by.
struct Concern {
    what: &'static str,
    base: Config,
    frame: fn(Family) -> (u16, Vec<u8>),
    change: fn(&mut Config),
}

/// Another station, on another port of a segment, that has this MAC address or these addresses.
fn another(config: &mut Config, segment: u16, host: Host) {
    config.ports.push(managed(&Host { port: 9, ..host }, segment));
}

fn blackhole(config: &mut Config, prefixes: &[&str]) {
    config.routes.extend(prefixes.iter().map(|prefix| route(prefix, RouteTarget::Blackhole)));
}

const OWN_MAC: MacAddr = MacAddr([2, 0, 0, 0, 9, 9]);

fn concerns() -> Vec<Concern> {
    vec![
        Concern {
            what: "the source's address",
            base: with(|config| reverse_path(config, 0, ReversePath::Strict)),
            frame: |f| (GUEST.port, GUEST.via_router(FAR.ip(f)).udp(4000, 53, b"said")),
            change: |config| blackhole(config, &["10.0.0.100/32", "fd00::100/128"]),
        },
        Concern {
            what: "the destination's address",
            base: everybody(),
            frame: |f| (POD_A.port, POD_A.via_router(ip(f.of(BEYOND[0], BEYOND[1]))).udp(4000, 53, b"said")),
            change: |config| blackhole(config, &["198.51.100.0/24", "2001:db8:7::/48"]),
        },
        Concern {
            what: "the address of who stands for it",
            base: random::balanced(),
            frame: |f| (POD_A.port, POD_A.via_router(ip(f.of(VIP[0], VIP[1]))).udp(4000, 53, b"said")),
            change: |config| {
                blackhole(config, &["10.1.0.2/32", "fd00:1::2/128", "10.0.0.3/32", "fd00::3/128"]);
            },
        },
        Concern {
            what: "the gateway's address",
            base: everybody(),
            frame: |f| (POD_A.port, POD_A.via_router(ip(f.of(BEYOND[0], BEYOND[1]))).udp(4000, 53, b"said")),
            change: |config| another(config, 1, Host { mac: OWN_MAC, ..FAR }),
        },
        Concern {
            what: "the destination's MAC address",
            base: everybody(),
            frame: |f| (GUEST.port, GUEST.to(&OTHER, f).udp(4000, 53, b"said")),
            change: |config| another(config, 0, Host { v4: "10.0.0.77", v6: "fd00::77", ..OTHER }),
        },
        Concern {
            what: "the next hop's MAC address",
            base: everybody(),
            frame: |f| (POD_A.port, POD_A.via_router(FAR.ip(f)).udp(4000, 53, b"said")),
            change: |config| another(config, 1, Host { v4: "10.1.0.77", v6: "fd00:1::77", ..FAR }),
        },
        Concern {
            what: "the port it comes by",
            base: everybody(),
            frame: |f| (GUEST.port, GUEST.to(&POD_B, f).udp(4000, 53, b"said")),
            change: |config| {
                let other = Host { mac: OWN_MAC, v4: "10.0.0.77", v6: "fd00::77", ..GUEST };
                config.ports[usize::from(GUEST.port)] = managed(&other, 0);
            },
        },
        Concern {
            what: "the port it leaves by",
            base: everybody(),
            frame: |f| (POD_A.port, POD_A.via_router(POD_B.ip(f)).udp(4000, 53, b"said")),
            change: |config| drop(config.ports.remove(usize::from(POD_B.port))),
        },
    ]
}

/// What comes of the frame before and after the change.
fn around(concern: &Concern, family: Family, flows: u32) -> [Vec<(u16, Vec<u8>)>; 2] {
    let limits = Limits { flows, ..Limits::default() };
    let mut lab = Lab::with_limits(concern.base.clone(), limits);
    for host in [GUEST, FAR, OTHER] {
        introduce(&mut lab, &host);
    }
    let one = |lab: &mut Lab| {
        let (port, bytes) = (concern.frame)(family);
        let out = lab.send(port, &bytes).into_iter().map(|out| (out.port, out.bytes)).collect::<Vec<_>>();
        lab.settle();
        out
    };
    for _ in 0..3 {
        one(&mut lab);
    }
    let known = lab.switch.known();
    let before = one(&mut lab);
    assert_eq!(lab.switch.known() - known, u64::from(flows > 0), "{}: its flow is known", concern.what);
    let mut config = concern.base.clone();
    (concern.change)(&mut config);
    let next = Snapshot::compile(config, Some(lab.switch.snapshot())).unwrap();
    assert!(next.difference_from(lab.switch.snapshot()).is_some(), "{}", concern.what);
    lab.switch.install(next);
    lab.settle();
    let after = one(&mut lab);
    [before, after]
}

#[test]
fn each_thing_that_may_concern_a_flow_is_looked_at() {
    for (concern, family) in concerns().iter().flat_map(|concern| FAMILIES.map(|f| (concern, f))) {
        let [before, after] = around(concern, family, 1000);
        assert_ne!(before, after, "{} {family:?}: it makes no difference", concern.what);
        assert_eq!(after, around(concern, family, 0)[1], "{} {family:?}", concern.what);
    }
}

#[test]
fn who_is_known_beforehand_is_learned_no_more() {
    for flows in [0, 1000] {
        let mut lab = Lab::with_limits(everybody(), Limits { flows, ..Limits::default() });
        let learned = |lab: &Lab| lab.switch.fdb().iter(lab.now).find(|at| at.mac == GUEST.mac).unwrap().age;
        let one = |lab: &mut Lab| {
            lab.now += Duration::from_secs(5);
            lab.send(GUEST.port, &GUEST.to(&OTHER, Family::V4).udp(4000, 53, b"said"));
            lab.settle();
        };
        introduce(&mut lab, &OTHER);
        for _ in 0..3 {
            one(&mut lab);
        }
        assert_eq!(learned(&lab), Duration::ZERO);
        let mut config = everybody();
        another(&mut config, 0, Host { v4: "10.0.0.77", v6: "fd00::77", ..GUEST });
        lab.install(config);
        lab.settle();
        one(&mut lab);
        assert_eq!(learned(&lab), Duration::from_secs(5), "{flows}");
    }
}
