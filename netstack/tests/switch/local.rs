//! The node-local link: the machine that the switch is. It shares the router's addresses and is no hop away.

use netstack::config::{ReversePath, RouteTarget};
use netstack::verdict::{DropReason, Fate, Origin};

use crate::lab::{Change, dropped, entered, left};
use crate::packets::{ask, icmp, mac_from, mac_to, readdressed, told, with_wrong_checksum};
use crate::world::{
    FAMILIES, FAR, LOCAL, NODE, POD_A, UPLINK, acquainted, everybody, ip, reverse_path, route, with,
};

fn forwarded(from: u16, to: u16) -> [Change; 2] {
    [entered(from, Fate::Forwarded), left(to, Origin::Forwarded)]
}

#[test]
fn what_is_addressed_to_the_node_is_handed_to_its_station_as_it_is() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        for host in [POD_A, FAR] {
            for hop_limit in [1, 64] {
                let mut packet = host.via_router(NODE.ip(family));
                packet.hop_limit = hop_limit;
                for sent in [
                    packet.udp(1, 2, b"x"),
                    packet.tcp_syn(1, 22),
                    packet.protocol(253, b"x"),
                    // Replies and errors are the station's, and whether a checksum is right is its affair.
                    packet.icmp(family.of(0, 129), 0, [0, 1, 0, 2], b"x"),
                    packet.icmp(family.of(3, 1), 1, [0; 4], b"quote"),
                    with_wrong_checksum(packet.udp(1, 2, b"x"), family.of(40, 60)),
                ] {
                    let out = lab.send(host.port, &sent);
                    assert_eq!(out[0].bytes, readdressed(&sent, LOCAL, NODE.mac), "its TTL is untouched");
                    lab.expect(forwarded(host.port, NODE.port));
                }
            }
        }
    }
}

#[test]
fn the_switch_answers_echo_for_the_node() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let out = lab.send(FAR.port, &FAR.via_router(NODE.ip(family)).echo(1, 2, b"x"));
        let reply = icmp(&out[0].bytes);
        assert_eq!((reply.kind, reply.source), (family.of(0, 129), NODE.ip(family)));
        lab.expect([entered(FAR.port, Fate::Consumed), left(FAR.port, Origin::Originated)]);
    }
}

#[test]
fn what_the_station_sends_is_routed_with_its_ttl() {
    for filter in [ReversePath::Off, ReversePath::Strict, ReversePath::Loose] {
        let mut lab = acquainted(with(|c| reverse_path(c, 2, filter)));
        for family in FAMILIES {
            for (host, router) in [(FAR, UPLINK), (POD_A, POD_A.router)] {
                for hop_limit in [1, 64] {
                    let mut packet = NODE.via_router(host.ip(family));
                    packet.hop_limit = hop_limit;
                    let sent = packet.tcp(22, 1, b"reply");
                    let out = lab.send(NODE.port, &sent);
                    assert_eq!(out[0].bytes, readdressed(&sent, router, host.mac));
                    lab.expect(forwarded(NODE.port, host.port));
                }
            }
        }
    }
}

#[test]
fn the_station_finds_its_router() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let router = family.of(ip("169.254.1.1"), LOCAL.link_local().into());
        let out = lab.send(NODE.port, &ask(NODE.mac, NODE.ip(family), router));
        assert_eq!(told(&out[0].bytes), Some((router, LOCAL, NODE.mac)));
        lab.expect([entered(NODE.port, Fate::Consumed), left(NODE.port, Origin::Originated)]);
    }
}

#[test]
fn errors_for_the_station_do_not_come_from_its_own_address() {
    let owned = ["10.0.0.1", "fd00::1", NODE.v4, NODE.v6].map(ip);
    let mut lab = acquainted(with(|c| {
        c.routes.push(route("10.4.0.0/16", RouteTarget::Unreachable));
        c.routes.push(route("fd00:4::/32", RouteTarget::Unreachable));
        if let netstack::config::Station::Managed { addresses, .. } = &mut c.ports[4].station {
            *addresses = owned.to_vec();
        }
    }));
    for family in FAMILIES {
        let out =
            lab.send(NODE.port, &NODE.via_router(ip(family.of("10.4.0.1", "fd00:4::1"))).udp(1, 2, b"x"));
        let error = icmp(&out[0].bytes);
        assert_eq!((mac_from(&out[0].bytes), mac_to(&out[0].bytes)), (LOCAL, NODE.mac));
        assert_eq!(error.destination, NODE.ip(family));
        // A host drops what comes from its own address.
        assert!(!owned.contains(&error.source), "{}", error.source);
        lab.expect([dropped(NODE.port, DropReason::RouteUnreachable), left(NODE.port, Origin::Originated)]);
    }
}

#[test]
fn nobody_else_may_use_the_node_s_address() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let mut packet = FAR.via_router(POD_A.ip(family));
        packet.source = NODE.ip(family);
        lab.send(FAR.port, &packet.udp(1, 2, b"x"));
        lab.expect([dropped(FAR.port, DropReason::MartianSource)]);
    }
}

#[test]
fn an_address_of_the_station_alone_is_a_host_route() {
    let mut lab = acquainted(with(|c| {
        if let netstack::config::Station::Managed { addresses, .. } = &mut c.ports[4].station {
            addresses.extend([ip("10.66.0.1"), ip("fd66::1")]);
        }
    }));
    for family in FAMILIES {
        let own = ip(family.of("10.66.0.1", "fd66::1"));
        let sent = FAR.via_router(own).udp(1, 2, b"x");
        assert_eq!(lab.send(FAR.port, &sent)[0].bytes, readdressed(&sent, LOCAL, NODE.mac));
        lab.expect(forwarded(FAR.port, NODE.port));
        // It is the station's alone, so it answers for it as well.
        let sent = FAR.via_router(own).echo(1, 2, b"x");
        assert_eq!(lab.send(FAR.port, &sent)[0].bytes, readdressed(&sent, LOCAL, NODE.mac));
        lab.expect(forwarded(FAR.port, NODE.port));
    }
}
