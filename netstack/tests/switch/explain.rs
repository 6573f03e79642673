//! `explain` says what `handle_frames` then does: the same ports, the same octets, and nothing changed by asking.

use netstack::config::{Config, RouteTarget};
use netstack::verdict::{DropReason, Fate};

use crate::lab::{Lab, ports};
use crate::packets::{BROADCAST, ask, ethernet, tagged, tell};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, NODE, OTHER, POD_A, POD_B, acquainted, ip, route, trunk, with,
};

/// What a case's frame must come to; `explain` and the switch have to agree whatever it is.
enum Outcome {
    Leaves,
    Dropped(DropReason),
    Answered,
    Waits,
}
use Outcome::{Answered, Dropped, Leaves, Waits};

struct Case {
    name: &'static str,
    port: u16,
    frame: Vec<u8>,
    outcome: Outcome,
}

/// Everybody, with a trunk on the pods' segment and routes that refuse.
fn config() -> Config {
    with(|c| {
        c.ports.push(trunk(6, None, &[(10, 0)]));
        c.segments[1].mtu = 1400;
        for prefix in ["10.5.0.0/16", "fd00:5::/32"] {
            c.routes.push(route(prefix, RouteTarget::Prohibit));
        }
        for prefix in ["10.4.0.0/16", "fd00:4::/32"] {
            c.routes.push(route(prefix, RouteTarget::Blackhole));
        }
    })
}

/// A station behind the trunk, which the bridge knows.
fn behind_trunk() -> crate::world::Host {
    crate::world::Host {
        port: 6,
        mac: netstack::addr::MacAddr([2, 0, 0, 0, 0, 0x66]),
        v4: "10.0.0.102",
        v6: "fd00::102",
        ..GUEST
    }
}

fn cases(family: Family) -> Vec<Case> {
    let case = |name, port, frame, outcome| Case { name, port, frame, outcome };
    let to = |v4, v6| POD_A.via_router(ip(family.of(v4, v6)));
    let mut dying = to("10.1.0.2", "fd00:1::2");
    dying.hop_limit = 1;
    let mut spoofed = POD_A.to(&POD_B, family);
    spoofed.source = GUEST.ip(family);
    let mut unfragmented = to("10.1.0.2", "fd00:1::2");
    unfragmented.dont_fragment = true;
    let udp = |packet: crate::packets::Packet| packet.udp(1, 2, b"payload");
    vec![
        case("bridged to a managed pod", 0, udp(POD_A.to(&POD_B, family)), Leaves),
        case("bridged to a learned station", 0, udp(POD_A.to(&GUEST, family)), Leaves),
        case("bridged into a tag", 0, udp(POD_A.to(&behind_trunk(), family)), Leaves),
        case("bridged out of a tag", 6, tagged(&udp(behind_trunk().to(&POD_A, family)), 0x600a), Leaves),
        case("broadcast", 2, ethernet(GUEST.mac, BROADCAST, 0x88b5, 46), Leaves),
        case("unknown station", 2, ethernet(GUEST.mac, FAR.mac, 0x88b5, 46), Leaves),
        case("routed to a neighbour", 0, udp(to("203.0.113.1", "2001:db8::1")), Leaves),
        case("routed to a pod", 3, udp(FAR.via_router(POD_B.ip(family))), Leaves),
        case("routed into a tag", 3, udp(FAR.via_router(behind_trunk().ip(family))), Leaves),
        case("for the node", 3, udp(FAR.via_router(NODE.ip(family))), Leaves),
        case("from the node", 4, udp(NODE.via_router(POD_A.ip(family))), Leaves),
        case("unknown neighbour", 0, udp(to("10.1.0.99", "fd00:1::99")), Waits),
        case("question for a pod", 2, ask(GUEST.mac, GUEST.ip(family), POD_B.ip(family)), Answered),
        case(
            "question for a stranger",
            0,
            ask(POD_A.mac, POD_A.ip(family), ip(family.of("10.0.0.9", "fd00::9"))),
            Leaves,
        ),
        case("echo to the router", 0, to("10.0.0.1", "fd00::1").echo(1, 2, b"x"), Answered),
        case("out of hops", 0, udp(dying), Dropped(DropReason::TtlExceeded)),
        case("too long", 0, unfragmented.udp(1, 2, &[7; 1400]), Dropped(DropReason::PacketTooBig)),
        case("prohibited", 0, udp(to("10.5.0.1", "fd00:5::1")), Dropped(DropReason::RouteProhibit)),
        case("blackhole", 0, udp(to("10.4.0.1", "fd00:4::1")), Dropped(DropReason::RouteBlackhole)),
        case("spoofed address", 0, udp(spoofed), Dropped(DropReason::SpoofedAddress)),
        case(
            "wrong vlan",
            6,
            tagged(&udp(behind_trunk().to(&POD_A, family)), 11),
            Dropped(DropReason::VlanNotAllowed),
        ),
        case("to itself", 0, udp(POD_A.to(&POD_A, family)), Dropped(DropReason::SameIngress)),
        case("on a closed port", 12, udp(POD_A.to(&POD_B, family)), Dropped(DropReason::PortClosed)),
        case(
            "claims the router",
            2,
            tell(GUEST.mac, ip(family.of("10.0.0.1", "fd00::1")), OTHER.mac, OTHER.ip(family)),
            Dropped(DropReason::ManagedAddressClaimed),
        ),
    ]
}

fn prepared() -> Lab {
    let mut lab = acquainted(config());
    let station = behind_trunk();
    for family in FAMILIES {
        let question = ask(station.mac, station.ip(family), ip(family.of("10.0.0.1", "fd00::1")));
        lab.send(6, &tagged(&question, 10));
    }
    lab.settle();
    lab
}

#[test]
fn explain_agrees_with_what_is_then_done() {
    for family in FAMILIES {
        for case in cases(family) {
            let mut lab = prepared();
            let name = format!("{:?} {}", family, case.name);
            let trace = lab.explain(case.port, &case.frame);
            assert_eq!(lab.explain(case.port, &case.frame), trace, "{name}: asking changes nothing");
            let before = lab.switch.counters();
            let out = lab.send(case.port, &case.frame);
            let after = lab.switch.counters();
            lab.settle();
            let fate = *Fate::ALL.iter().find(|f| after.fate(**f) > before.fate(**f)).unwrap();
            match case.outcome {
                Leaves => {
                    assert!(matches!(fate, Fate::Forwarded | Fate::Flooded), "{name}: {fate}");
                    let mut named: Vec<u16> = trace.ports.iter().map(|p| p.0).collect();
                    named.sort_unstable();
                    assert_eq!(named, ports(&out), "{name}: {trace}");
                    match &out[..] {
                        [only] => assert_eq!(trace.frame.as_ref(), Some(&only.bytes), "{name}: {trace}"),
                        _ => assert_eq!(trace.frame, None, "{name}: by several ways"),
                    }
                }
                Dropped(reason) => {
                    assert_eq!(
                        (fate, after.dropped(reason)),
                        (Fate::Dropped, before.dropped(reason) + 1),
                        "{name}"
                    );
                    assert!(trace.outcome.contains(reason.name()), "{name}: {trace}");
                    assert_eq!(trace.outcome.contains("answers"), !out.is_empty(), "{name}: {trace}");
                    assert!(trace.ports.is_empty() && trace.frame.is_none(), "{name}");
                }
                Answered => {
                    assert_eq!((fate, out.len()), (Fate::Consumed, 1), "{name}");
                    assert!(trace.outcome.contains("answers"), "{name}: {trace}");
                }
                Waits => {
                    assert_eq!((fate, lab.switch.parked()), (Fate::Parked, 1), "{name}");
                    assert!(trace.outcome.contains("parked"), "{name}: {trace}");
                }
            }
        }
    }
}

#[test]
fn a_packet_that_is_cut_leaves_by_its_port_and_has_no_single_form() {
    let mut lab = prepared();
    let mut packet = POD_A.via_router(FAR.ip(Family::V4));
    packet.dont_fragment = false;
    let sent = packet.udp(1, 2, &[7; 1400]);
    let trace = lab.explain(0, &sent);
    assert!(trace.outcome.contains("fragments"), "{trace}");
    assert_eq!((trace.ports.len(), trace.ports[0].0, trace.frame.clone()), (1, FAR.port, None));
    assert_eq!(ports(&lab.send(0, &sent)), [FAR.port, FAR.port]);
    lab.settle();
}

#[test]
fn a_trace_reads_from_top_to_bottom() {
    let lab = prepared();
    let text = lab.explain(0, &POD_A.via_router(FAR.ip(Family::V4)).udp(1, 2, b"x")).to_string();
    let stages: Vec<&str> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(stages, ["parse", "guard", "route", "neighbor", "output", "outcome"]);
    assert!(text.contains("10.1.0.2 matches 10.1.0.0/24: on segment-1"), "{text}");
}

#[test]
fn any_octets_can_be_asked_about() {
    let lab = prepared();
    for len in [0, 13, 14, 65_536, 70_000] {
        assert!(lab.explain(0, &vec![0; len]).outcome.starts_with("dropped"));
    }
}
