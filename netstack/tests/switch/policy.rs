//! Policies in the switch: who is let through, what stops, and what an isolated station never gets.

use std::sync::Arc;

use netstack::config::{Config, Limits};
use netstack::policy::{Peers, Policies, PolicyId, PortMatch, PortName, Ports, Rule, Ruleset, Subject};
use netstack::switch::PolicyCounters;
use netstack::verdict::{DropReason, Fate, Origin};

use crate::lab::{Lab, dropped, entered, left};
use crate::packets::{self, Packet};
use crate::rules::{
    CLOSE, GROUP_A, GROUP_B, TCP, UDP, accept, blocks, egress, group, ingress, isolated, on, only, policies,
    put,
};
use crate::services::sctp_init;
use crate::translation::{from_outside, one};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, Host, NODE, POD_A, POD_B, VIP, acquainted, ip, node, service, services,
};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn set(lab: &mut Lab, policies: Policies) {
    let next = lab.switch.snapshot().with_policies(Some(Arc::new(policies))).unwrap();
    lab.switch.install(next);
    lab.events();
}

fn lab_of(config: Config, policies: Policies) -> Lab {
    let mut lab = acquainted(config);
    set(&mut lab, policies);
    lab
}

fn lab(policies: Policies) -> Lab {
    lab_of(node(|_| {}), policies)
}

/// A frame that a policy stops: nothing leaves, it is counted, and a trace says the same.
#[track_caller]
fn stops(lab: &mut Lab, host: &Host, frame: &[u8]) {
    let trace = lab.explain(host.port, frame);
    assert!(trace.outcome.starts_with("dropped: policy_denied"), "{trace}");
    assert!(trace.to_string().contains("policy "), "{trace}");
    assert!(lab.send(host.port, frame).is_empty(), "{trace}");
    lab.expect([dropped(host.port, DropReason::PolicyDenied)]);
}

/// A frame that goes to another port.
#[track_caller]
fn passes(lab: &mut Lab, host: &Host, to: u16, frame: &[u8]) -> Vec<u8> {
    let trace = lab.explain(host.port, frame);
    let out = one(lab.send(host.port, frame));
    assert_eq!((out.port, trace.ports.len()), (to, 1), "{trace}");
    lab.expect([entered(host.port, Fate::Forwarded), left(to, Origin::Forwarded)]);
    out.bytes
}

fn counted(lab: &Lab, policy: PolicyId) -> PolicyCounters {
    lab.switch.policy_counters().find(|(of, _)| *of == Some(policy)).map(|(_, it)| it).unwrap_or_default()
}

/// What opens a connection to port 80, of every protocol.
fn openers(packet: &Packet) -> [Vec<u8>; 4] {
    [
        packet.tcp_syn(40_000, 80),
        packet.udp(40_000, 80, b"x"),
        sctp_init(packet, 40_000, 80),
        packet.echo(40_000, 1, b"x"),
    ]
}

#[test]
fn an_isolated_pod_is_opened_nothing_to_and_opens_what_it_likes() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_B, &ingress(&[])));
        for frame in openers(&POD_A.to(&POD_B, family)) {
            stops(&mut lab, &POD_A, &frame);
        }
        for frame in openers(&POD_A.via_router(POD_B.ip(family))) {
            stops(&mut lab, &POD_A, &frame);
        }
        for frame in openers(&FAR.via_router(POD_B.ip(family))) {
            stops(&mut lab, &FAR, &frame);
        }
        assert_eq!(counted(&lab, CLOSE), PolicyCounters { dropped: 12, audited: 0 });
        assert_eq!(lab.switch.connection_entries(lab.now).count(), 0);
        passes(&mut lab, &POD_B, POD_A.port, &POD_B.to(&POD_A, family).udp(40_000, 80, b"question"));
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).udp(80, 40_000, b"answer"));
        passes(&mut lab, &POD_B, POD_A.port, &POD_B.to(&POD_A, family).tcp_syn(40_000, 80));
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).tcp_syn_ack(80, 40_000, 1001));
        passes(&mut lab, &POD_B, POD_A.port, &POD_B.to(&POD_A, family).echo(7, 1, b"ping"));
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).echo_reply(7, 1, b"ping"));
    }
}

#[test]
fn an_isolated_pod_that_may_open_nothing_answers_all_the_same() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_B, &egress(&[])));
        for frame in openers(&POD_B.to(&POD_A, family)) {
            stops(&mut lab, &POD_B, &frame);
        }
        for frame in openers(&POD_B.via_router(FAR.ip(family))) {
            stops(&mut lab, &POD_B, &frame);
        }
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).tcp_syn(40_000, 80));
        passes(&mut lab, &POD_B, POD_A.port, &POD_B.to(&POD_A, family).tcp_syn_ack(80, 40_000, 1001));
    }
}

#[test]
fn rules_accept_by_group_block_number_and_name() {
    for family in FAMILIES {
        let far = family.of("10.1.0.0/24", "fd00:1::/64");
        let named = Ports::These(vec![PortMatch::Named { protocol: TCP, name: PortName(1) }]);
        for (rule, host) in [
            (accept(group(GROUP_A), only(TCP, 80)), POD_A),
            (accept(group(GROUP_A), named), POD_A),
            (accept(group(GROUP_A), Ports::These(vec![PortMatch::Protocol(TCP)])), POD_A),
            (accept(blocks(&[far]), only(TCP, 80)), FAR),
        ] {
            let mut lab = lab(on(&POD_B, &ingress(&[rule])));
            let packet = host.via_router(POD_B.ip(family));
            passes(&mut lab, &host, POD_B.port, &packet.tcp_syn(40_000, 80));
            stops(&mut lab, &host, &packet.udp(40_000, 80, b"x"));
            stops(&mut lab, &host, &packet.echo(40_000, 1, b"x"));
            let other = if host.port == FAR.port { POD_A } else { FAR };
            stops(&mut lab, &other, &other.via_router(POD_B.ip(family)).tcp_syn(40_000, 80));
        }
        let mut lab = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), Ports::All)])));
        for frame in openers(&POD_A.to(&POD_B, family)) {
            passes(&mut lab, &POD_A, POD_B.port, &frame);
        }
    }
}

/// The node's own address and the port that leads from there to the pod hide nobody.
#[test]
fn who_asks_and_who_is_asked_are_those_that_really_are() {
    for family in FAMILIES {
        let far = blocks(&[family.of("192.0.2.0/24", "2001:db8:9::/48")]);
        let mut lab = lab(on(&POD_B, &ingress(&[accept(far, only(UDP, 80))])));
        let own = NODE.ip(family);
        let among = ip(family.of("192.0.2.9", "2001:db8:9::9"));
        let out = passes(&mut lab, &FAR, POD_B.port, &from_outside(among, own).udp(40_000, 8080, b"x"));
        assert_eq!(crate::translation::endpoints(&out).1.ip(), POD_B.ip(family));
        stops(&mut lab, &FAR, &FAR.via_router(own).udp(40_000, 8080, b"x"));
        stops(&mut lab, &POD_A, &POD_A.via_router(own).udp(40_000, 8080, b"x"));

        // Seen from outside a pod is its node; a policy knows it all the same.
        let mut inside = lab_of(
            node(|_| {}),
            on(
                &POD_A,
                &egress(&[accept(blocks(&[family.of("192.0.2.9/32", "2001:db8:9::9/128")]), Ports::All)]),
            ),
        );
        passes(&mut inside, &POD_A, FAR.port, &POD_A.via_router(among).udp(40_000, 53, b"x"));
        passes(&mut inside, &FAR, POD_A.port, &from_outside(among, own).udp(53, 40_000, b"x"));
        let another = ip(family.of("192.0.2.8", "2001:db8:9::8"));
        stops(&mut inside, &POD_A, &POD_A.via_router(another).udp(40_000, 53, b"x"));
    }
}

#[test]
fn a_service_is_judged_by_its_backend() {
    for family in FAMILIES {
        let vip = ip(family.of(VIP[0], VIP[1]));
        let of = || services([service("web", TCP, &[(vip, 80)], &[(POD_B.ip(family), 8080)])]);
        let config = || Config { services: Some(of()), ..node(|_| {}) };
        let syn = POD_A.via_router(vip).tcp_syn(40_000, 80);
        let mut open = lab_of(config(), on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 8080))])));
        passes(&mut open, &POD_A, POD_B.port, &syn);
        let mut closed = lab_of(config(), on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 80))])));
        stops(&mut closed, &POD_A, &syn);
        assert_eq!(closed.switch.balanced(), 0, "nothing is left behind");
        let mut client = lab_of(config(), on(&POD_A, &egress(&[accept(group(GROUP_B), only(TCP, 8080))])));
        passes(&mut client, &POD_A, POD_B.port, &syn);
    }
}

#[test]
fn the_node_and_its_pods_always_talk() {
    for family in FAMILIES {
        let mut both = policies();
        let closed = Subject { ingress: isolated(&[]), egress: isolated(&[]) };
        put(&mut both, &POD_B, &closed);
        let mut lab = lab(both);
        passes(&mut lab, &NODE, POD_B.port, &NODE.via_router(POD_B.ip(family)).tcp_syn(40_000, 80));
        passes(&mut lab, &POD_B, NODE.port, &POD_B.via_router(NODE.ip(family)).tcp_syn(40_000, 22));
        let gateway = ip(family.of("10.0.0.1", "fd00::1"));
        let out = one(lab.send(POD_B.port, &POD_B.via_router(gateway).echo(1, 1, b"ping")));
        assert_eq!(out.port, POD_B.port);
        lab.settle();
    }
}

/// What fits no connection passes a bridge; it does not pass a policy.
#[test]
fn what_belongs_to_nothing_does_not_get_in() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 443))])));
        let packet = POD_A.to(&POD_B, family);
        for flags in [ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, 0, SYN | FIN, SYN | RST] {
            stops(&mut lab, &POD_A, &packet.tcp_segment(40_000, 80, flags, (1, 1)));
        }
        stops(&mut lab, &POD_A, &packet.echo_reply(1, 1, b"x"));
        stops(&mut lab, &POD_A, &packet.protocol(47, &[0; 8]));
        let broken = packets::with_wrong_checksum(packet.tcp_syn(40_000, 80), family.of(50, 70));
        stops(&mut lab, &POD_A, &broken);
    }
}

/// Nobody gets past what is said about an address by another one of the same pod.
#[test]
fn link_local_addresses_are_their_pods() {
    let [a, b] = [POD_A, POD_B].map(|host| host.mac.link_local().into());
    let packet = Packet::new(POD_A.mac, POD_B.mac, a, b);
    let mut closed = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 443))])));
    stops(&mut closed, &POD_A, &packet.tcp_syn(40_000, 80));
    stops(&mut closed, &POD_A, &packet.udp(40_000, 80, b"x"));
    stops(&mut closed, &POD_A, &packet.echo(1, 1, b"x"));
    passes(&mut closed, &POD_A, POD_B.port, &packet.tcp_syn(40_000, 443));
    // To the router, and with questions that every station asks.
    let gateway: netstack::addr::MacAddr = POD_B.router;
    let router = Packet::new(POD_B.mac, gateway, b, gateway.link_local().into());
    assert_eq!(closed.send(POD_B.port, &router.echo(1, 1, b"x")).len(), 1);
    for family in FAMILIES {
        let out = closed.send(POD_A.port, &packets::ask(POD_A.mac, POD_A.ip(family), POD_B.ip(family)));
        assert_eq!(one(out).port, POD_A.port, "a neighbour is found whoever may talk to it");
    }
    closed.settle();
}

#[test]
fn groups_reach_those_who_may_be_reached() {
    let everybody: std::net::IpAddr = ip("224.0.0.251");
    let packet = Packet::new(
        POD_A.mac,
        netstack::addr::MacAddr::for_multicast(everybody),
        POD_A.ip(Family::V4),
        everybody,
    );
    let frame = packet.udp(5353, 5353, b"who is there?");
    let ports = |lab: &mut Lab, frame: &[u8]| crate::lab::ports(&lab.send(POD_A.port, frame));
    let mut open = lab(policies());
    assert!(ports(&mut open, &frame).contains(&POD_B.port));
    open.settle();
    let mut closed = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 80))])));
    let out = ports(&mut closed, &frame);
    assert!(!out.is_empty() && !out.contains(&POD_B.port), "{out:?}");
    let broadcast = Packet::new(POD_A.mac, packets::BROADCAST, POD_A.ip(Family::V4), ip("10.0.0.255"));
    assert!(!ports(&mut closed, &broadcast.udp(1, 2, b"x")).contains(&POD_B.port));
    // ARP asks for somebody who is not managed.
    let arp = packets::ask(POD_A.mac, POD_A.ip(Family::V4), ip("10.0.0.77"));
    ports(&mut closed, &arp);
    closed.settle();
    let mut silent = lab(on(&POD_A, &egress(&[accept(blocks(&["224.0.0.0/4"]), only(UDP, 5353))])));
    assert!(ports(&mut silent, &frame).contains(&POD_B.port));
    silent.settle();
    stops(&mut silent, &POD_A, &packet.udp(5353, 5354, b"x"));
    stops(&mut silent, &POD_A, &broadcast.udp(1, 2, b"x"));
}

#[test]
fn what_is_no_packet_stays_outside_as_well() {
    let frame = packets::ethernet(POD_A.mac, POD_B.mac, 0x88b5, 60);
    let mut open = lab(policies());
    passes(&mut open, &POD_A, POD_B.port, &frame);
    let mut closed = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 80))])));
    stops(&mut closed, &POD_A, &frame);
    let mut silent = lab(on(&POD_A, &egress(&[])));
    stops(&mut silent, &POD_A, &frame);
}

/// To the MAC address of one, and to the address of another.
#[test]
fn a_packet_that_is_led_astray_is_not_let_in() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_B, &ingress(&[])));
        let gateway = netstack::addr::MacAddr::link_local(POD_B.router).into();
        for destination in [
            ip(family.of("192.0.2.1", "2001:db8::1")),
            ip(family.of("10.0.0.99", "fd00::99")),
            ip(family.of("10.0.0.1", "fd00::1")),
            if family == Family::V4 { ip("10.0.0.1") } else { gateway },
        ] {
            let packet = Packet { destination, ..POD_A.to(&POD_B, family) };
            for frame in openers(&packet) {
                stops(&mut lab, &POD_A, &frame);
            }
        }
    }
}

/// A kernel gives what is for everybody to any socket, whatever MAC address it came to.
#[test]
fn a_group_in_the_packet_does_not_open_the_door_of_one() {
    let everybody = |family: Family| match family {
        Family::V4 => vec!["224.0.0.1", "224.0.0.251", "239.1.2.3", "255.255.255.255", "10.0.0.255"],
        Family::V6 => vec!["ff02::1", "ff05::2", "ff0e::1:2"],
    };
    for family in FAMILIES {
        for destination in everybody(family).into_iter().map(ip) {
            let packet = Packet { destination, ..POD_A.to(&POD_B, family) };
            let mut open = lab(policies());
            passes(&mut open, &POD_A, POD_B.port, &packet.udp(40_000, 80, b"x"));
            let mut closed = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(UDP, 53))])));
            stops(&mut closed, &POD_A, &packet.udp(40_000, 80, b"x"));
            passes(&mut closed, &POD_A, POD_B.port, &packet.udp(40_000, 53, b"x"));
        }
    }
    // Reports of membership are for groups; to one station they are packets like others.
    let mut closed = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(UDP, 53))])));
    let mut report = POD_A.to(&POD_B, Family::V6).echo(1, 1, &[0; 20]);
    let (kind, sum) = (14 + 40, 14 + 42);
    report[kind] = 143;
    // The checksum of a message whose kind is another by 15: RFC 1624.
    let old = u16::from_be_bytes([report[sum], report[sum + 1]]);
    let (new, borrow) = old.overflowing_sub(15 << 8);
    report[sum..sum + 2].copy_from_slice(&(new - u16::from(borrow)).to_be_bytes());
    stops(&mut closed, &POD_A, &report);
    stops(&mut closed, &POD_A, &POD_A.to(&POD_B, Family::V4).protocol(2, &[0; 8]));
}

/// Opens a connection and has it known, both ways.
fn talk(lab: &mut Lab, family: Family, port: u16) {
    let (there, back) = (POD_A.to(&POD_B, family), POD_B.to(&POD_A, family));
    passes(lab, &POD_A, POD_B.port, &there.tcp_segment(port, 80, SYN, (1000, 0)));
    passes(lab, &POD_B, POD_A.port, &back.tcp_segment(80, port, SYN | ACK, (9000, 1001)));
    for _ in 0..3 {
        passes(lab, &POD_A, POD_B.port, &there.tcp_segment(port, 80, ACK, (1001, 9001)));
        passes(lab, &POD_B, POD_A.port, &back.tcp_segment(80, port, ACK, (9001, 1001)));
    }
}

#[test]
fn what_is_forbidden_now_stops_with_its_next_packet_and_the_rest_goes_on() {
    for (family, flows) in FAMILIES.into_iter().flat_map(|family| [(family, 0), (family, 65_536)]) {
        let limits = Limits { flows, ..Limits::default() };
        let mut lab = Lab::with_limits(node(|_| {}), limits);
        set(&mut lab, on(&POD_B, &ingress(&[accept(group(GROUP_A), Ports::All)])));
        talk(&mut lab, family, 40_000);
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).udp(1, 53, b"question"));
        passes(&mut lab, &POD_B, POD_A.port, &POD_B.to(&POD_A, family).udp(53, 1, b"answer"));
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).udp(1, 53, b"question"));
        let (there, back) = (POD_A.to(&POD_B, family), POD_B.to(&POD_A, family));
        let (ask, answer) = (
            there.tcp_segment(40_000, 80, ACK, (1001, 9001)),
            back.tcp_segment(80, 40_000, ACK, (9001, 1001)),
        );
        for first_of in [POD_A, POD_B] {
            set(&mut lab, on(&POD_B, &ingress(&[accept(group(GROUP_A), only(UDP, 53))])));
            if first_of.port == POD_A.port {
                stops(&mut lab, &POD_A, &ask);
            }
            stops(&mut lab, &POD_B, &answer);
            stops(&mut lab, &POD_A, &ask);
            passes(&mut lab, &POD_A, POD_B.port, &there.udp(1, 53, b"question"));
            passes(&mut lab, &POD_B, POD_A.port, &back.udp(53, 1, b"answer"));
            // It is not forgotten: what is allowed again goes on.
            set(&mut lab, on(&POD_B, &ingress(&[accept(group(GROUP_A), Ports::All)])));
            passes(&mut lab, &POD_A, POD_B.port, &ask);
            passes(&mut lab, &POD_B, POD_A.port, &answer);
        }
        let none = lab.switch.snapshot().with_policies(None).unwrap();
        set(&mut lab, on(&POD_B, &ingress(&[])));
        stops(&mut lab, &POD_A, &ask);
        lab.switch.install(none);
        lab.events();
        passes(&mut lab, &POD_A, POD_B.port, &ask);
    }
}

/// A connection from before there were any policies.
#[test]
fn the_first_policies_are_about_what_is_there() {
    let mut lab = acquainted(node(|_| {}));
    talk(&mut lab, Family::V4, 40_000);
    set(&mut lab, on(&POD_B, &ingress(&[])));
    stops(&mut lab, &POD_A, &POD_A.to(&POD_B, Family::V4).tcp_segment(40_000, 80, ACK, (1001, 9001)));
}

/// After a start nobody knows who has opened it: whoever speaks first is taken for him.
#[test]
fn a_connection_whose_beginning_was_not_seen_goes_on_when_its_opener_speaks() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_A, &ingress(&[])));
        let answer = POD_B.to(&POD_A, family).tcp_segment(80, 40_000, ACK, (9001, 1001));
        stops(&mut lab, &POD_B, &answer);
        let ask = POD_A.to(&POD_B, family).tcp_segment(40_000, 80, ACK, (1001, 9001));
        passes(&mut lab, &POD_A, POD_B.port, &ask);
        passes(&mut lab, &POD_B, POD_A.port, &answer);
    }
}

#[test]
fn errors_about_what_is_allowed_pass() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_A, &ingress(&[])));
        let sent = POD_A.to(&POD_B, family).udp(40_000, 53, b"question");
        passes(&mut lab, &POD_A, POD_B.port, &sent);
        let (kind, code) = family.of((3, 3), (1, 4));
        let error = POD_B.to(&POD_A, family).icmp(kind, code, [0; 4], &sent[14..]);
        passes(&mut lab, &POD_B, POD_A.port, &error);
        // And with the connection they are about they stop.
        set(&mut lab, on(&POD_A, &egress(&[])));
        stops(&mut lab, &POD_B, &error);
        let stray = POD_B.to(&POD_A, family).udp(40_000, 54, b"x");
        let error = POD_B.to(&POD_A, family).icmp(kind, code, [0; 4], &stray[14..]);
        set(&mut lab, on(&POD_A, &ingress(&[])));
        stops(&mut lab, &POD_B, &error);
    }
}

#[test]
fn fragments_go_the_way_of_their_first() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_B, &ingress(&[accept(group(GROUP_A), only(UDP, 53))])));
        let cut = |port: u16, id: u16| {
            let whole = Packet { dont_fragment: false, id, ..POD_A.to(&POD_B, family) };
            packets::fragment(&whole.udp(40_000, port, b"as long as four pieces of sixteen octets are"), 16)
        };
        let pieces = cut(53, 1);
        let out: usize = pieces.iter().map(|piece| lab.send(POD_A.port, piece).len()).sum();
        assert_eq!(out, pieces.len());
        let pieces = cut(54, 2);
        for piece in pieces.iter().chain(pieces.iter().rev()) {
            assert!(lab.send(POD_A.port, piece).is_empty());
        }
        lab.settle();
    }
}

/// Also where nobody else would put fragments in order: from a foreign station on the same segment.
#[test]
fn an_answer_in_fragments_is_an_answer() {
    for family in FAMILIES {
        let mut lab = lab(on(&POD_A, &ingress(&[])));
        passes(&mut lab, &POD_A, GUEST.port, &POD_A.to(&GUEST, family).udp(40_000, 53, b"question"));
        let cut = |port: u16, id: u16| {
            let whole = Packet { dont_fragment: false, id, ..GUEST.to(&POD_A, family) };
            packets::fragment(&whole.udp(port, 40_000, b"as long as four pieces of sixteen octets are"), 16)
        };
        let pieces = cut(53, 1);
        let out: usize = pieces.iter().rev().map(|piece| lab.send(GUEST.port, piece).len()).sum();
        assert_eq!(out, pieces.len());
        for piece in cut(54, 2) {
            assert!(lab.send(GUEST.port, &piece).is_empty());
        }
        lab.settle();
    }
}

/// A frame that was let in and waits for a neighbour is judged again when policies have changed meanwhile.
#[test]
fn who_waits_is_judged_by_the_policies_of_when_he_leaves() {
    for family in FAMILIES {
        let unknown = ip(family.of("10.1.0.77", "fd00:1::77"));
        let mac = netstack::addr::MacAddr([2, 0, 0, 0, 0, 0x77]);
        for forbid in [false, true] {
            let mut lab = lab(on(&POD_A, &egress(&[accept(Peers::Everyone, Ports::All)])));
            let frame = POD_A.via_router(unknown).udp(40_000, 53, b"x");
            let asked = lab.send(POD_A.port, &frame);
            assert_eq!(asked.len(), 1, "the neighbour is asked for");
            lab.settle();
            let rules: &[Rule] = if forbid { &[] } else { &[accept(Peers::Everyone, only(UDP, 53))] };
            set(&mut lab, on(&POD_A, &egress(rules)));
            let answer = packets::tell(mac, unknown, crate::world::UPLINK, packets::asker(&asked[0].bytes));
            let out = lab.send(FAR.port, &answer);
            assert_eq!(out.len(), usize::from(!forbid));
            assert_eq!(counted(&lab, CLOSE).dropped, u64::from(forbid));
            lab.settle();
        }
    }
}

#[test]
fn audited_policies_count_and_let_through() {
    for family in FAMILIES {
        let mut audited = on(&POD_B, &ingress(&[accept(group(GROUP_A), only(TCP, 443))]));
        audited.set_audit(true);
        let mut lab = lab(audited.clone());
        talk(&mut lab, family, 40_000);
        assert_eq!(counted(&lab, CLOSE), PolicyCounters { dropped: 0, audited: 1 }, "once for a connection");
        passes(&mut lab, &POD_A, POD_B.port, &POD_A.to(&POD_B, family).tcp_syn(40_001, 443));
        passes(&mut lab, &POD_A, POD_B.port, &packets::ethernet(POD_A.mac, POD_B.mac, 0x88b5, 60));
        assert_eq!(counted(&lab, CLOSE), PolicyCounters { dropped: 0, audited: 2 });
        let trace = lab.explain(POD_A.port, &POD_A.to(&POD_B, family).tcp_syn(40_002, 80)).to_string();
        assert!(trace.contains("but policies are only audited"), "{trace}");
        audited.set_audit(false);
        set(&mut lab, audited);
        stops(&mut lab, &POD_A, &POD_A.to(&POD_B, family).tcp_segment(40_000, 80, ACK, (1001, 9001)));
        assert_eq!(counted(&lab, CLOSE), PolicyCounters { dropped: 1, audited: 2 });
    }
}

#[test]
fn counters_end_with_their_policy() {
    let mut lab = lab(on(&POD_B, &ingress(&[])));
    stops(&mut lab, &POD_A, &POD_A.to(&POD_B, Family::V4).tcp_syn(40_000, 80));
    set(&mut lab, on(&POD_A, &ingress(&[])));
    assert_eq!(counted(&lab, CLOSE).dropped, 1);
    set(&mut lab, Policies::new());
    assert_eq!(counted(&lab, CLOSE).dropped, 0);
    let mut closed = Policies::new();
    let denies = Arc::new(Ruleset { denies: true, ..Ruleset::default() });
    put(&mut closed, &POD_B, &Subject { ingress: denies, ..Subject::default() });
    set(&mut lab, closed);
    stops(&mut lab, &POD_A, &POD_A.to(&POD_B, Family::V4).tcp_syn(40_000, 80));
    let default = lab.switch.policy_counters().find(|(policy, _)| policy.is_none());
    assert_eq!(default.map(|(_, it)| it.dropped), Some(1));
}

/// Of such a station nobody knows what it was asked: what could be an answer of its passes, everything else does not.
#[test]
fn what_could_be_an_answer_of_somebody_untracked_is_one() {
    for family in FAMILIES {
        let server = POD_B.ip(family);
        let config = || node(|nat| nat.untracked = vec![server.into()]);
        let closed =
            Subject { ingress: isolated(&[]), egress: isolated(&[accept(group(GROUP_B), only(UDP, 53))]) };
        let mut lab = lab_of(config(), on(&POD_A, &closed));
        let (there, back) = (POD_A.to(&POD_B, family), POD_B.to(&POD_A, family));
        passes(&mut lab, &POD_A, POD_B.port, &there.udp(40_000, 53, b"question"));
        passes(&mut lab, &POD_B, POD_A.port, &back.udp(53, 40_000, b"answer"));
        stops(&mut lab, &POD_A, &there.udp(40_000, 54, b"question"));
        stops(&mut lab, &POD_B, &back.udp(54, 40_000, b"answer"));
        stops(&mut lab, &POD_B, &back.tcp_syn(53, 40_000));
        set(&mut lab, on(&POD_A, &Subject { egress: isolated(&[]), ..closed.clone() }));
        stops(&mut lab, &POD_A, &there.udp(40_000, 53, b"question"));
        // Who may be sent anything by it may not therefore ask it.
        set(&mut lab, on(&POD_A, &egress(&[])));
        stops(&mut lab, &POD_A, &there.udp(40_000, 53, b"question"));
        passes(&mut lab, &POD_B, POD_A.port, &back.udp(53, 40_000, b"answer"));
    }
}

/// The port, who is behind it and what is said of him come in one snapshot: there is no moment in between.
#[test]
fn a_pod_that_comes_is_closed_before_its_first_frame() {
    let without = || {
        let mut config = node(|_| {});
        config.ports.retain(|port| port.id.0 != POD_B.port);
        config
    };
    for family in FAMILIES {
        let mut lab = lab_of(without(), policies());
        let flood = |lab: &mut Lab, count: u16| {
            for port in 0..count {
                for packet in [POD_A.to(&POD_B, family), POD_A.via_router(POD_B.ip(family))] {
                    let out = lab.send(POD_A.port, &packet.tcp_syn(40_000 + port, 80));
                    assert!(out.iter().all(|out| out.port != POD_B.port
                        || packets::asked_for(&out.bytes, POD_B.ip(family)).is_some()));
                }
            }
        };
        for _ in 0..20 {
            flood(&mut lab, 10);
            let next =
                netstack::config::Snapshot::compile(node(|_| {}), Some(lab.switch.snapshot())).unwrap();
            let next = next.with_policies(Some(Arc::new(on(&POD_B, &ingress(&[]))))).unwrap();
            lab.switch.install(next);
            let before =
                lab.switch.port_counters(netstack::addr::PortId(POD_B.port)).map_or(0, |it| it.tx_frames);
            flood(&mut lab, 10);
            let _ = lab.wait(std::time::Duration::from_secs(1));
            let after =
                lab.switch.port_counters(netstack::addr::PortId(POD_B.port)).map_or(0, |it| it.tx_frames);
            assert_eq!(after, before, "not one packet gets through");
            lab.install(without());
        }
        lab.settle();
    }
}

#[test]
fn policies_need_connections_and_outlive_a_reload() {
    let plain = netstack::config::Snapshot::compile(crate::world::everybody(), None).unwrap();
    let refused = plain.with_policies(Some(Arc::new(policies()))).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "policies need connections: add `nat`, with its defaults if nothing is translated"
    );
    let mut lab = lab(on(&POD_B, &ingress(&[])));
    lab.install(node(|_| {}));
    stops(&mut lab, &POD_A, &POD_A.to(&POD_B, Family::V4).tcp_syn(40_000, 80));
    let before = lab.switch.snapshot().clone();
    let after = before.with_policies(Some(Arc::new(policies()))).unwrap();
    assert!(after.differs_in_services_alone(&before) && std::ptr::eq(before.router(), after.router()));
    assert!(!after.has_policies_of(&before) && before.with_services(None).unwrap().has_policies_of(&before));
}

/// 100,000 flows stand when other policies come: of those that are forbidden now not one packet passes, of the others every one.
#[test]
fn a_reload_under_a_hundred_thousand_flows() {
    const FLOWS: u16 = 25_000;
    let limits = Limits { connections: 65_536, ..Limits::default() };
    let mut lab = Lab::with_limits(node(|_| {}), limits);
    set(&mut lab, on(&POD_B, &ingress(&[accept(group(GROUP_A), Ports::All)])));
    let flows = || FAMILIES.into_iter().flat_map(|family| (0..FLOWS).map(move |n| (family, 1024 + n)));
    let ask = |family: Family, port: u16, to: u16| POD_A.to(&POD_B, family).udp(port, to, b"question");
    let answer = |family: Family, port: u16, from: u16| POD_B.to(&POD_A, family).udp(from, port, b"answer");
    for (family, port) in flows() {
        for to in [53, 54] {
            assert_eq!(lab.send(POD_A.port, &ask(family, port, to)).len(), 1);
            assert_eq!(lab.send(POD_B.port, &answer(family, port, to)).len(), 1);
        }
    }
    assert_eq!(lab.switch.connection_entries(lab.now).count(), 4 * usize::from(FLOWS));
    set(&mut lab, on(&POD_B, &ingress(&[accept(group(GROUP_A), only(UDP, 53))])));
    for (family, port) in flows() {
        assert_eq!(lab.send(POD_B.port, &answer(family, port, 53)).len(), 1);
        assert!(lab.send(POD_B.port, &answer(family, port, 54)).is_empty());
        assert!(lab.send(POD_A.port, &ask(family, port, 54)).is_empty());
        assert_eq!(lab.send(POD_A.port, &ask(family, port, 53)).len(), 1);
    }
    assert_eq!(counted(&lab, CLOSE).dropped, 4 * u64::from(FLOWS));
    lab.settle();
}
