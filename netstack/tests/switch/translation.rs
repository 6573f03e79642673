//! Connections and translation in the switch: what leaves, what comes back, and what is left behind.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nat::connection::Status;
use netstack::addr::MacAddr;
use netstack::config::nat::{Behaviour, NatConfig, PortRange};
use netstack::config::{Limits, ReversePath};
use netstack::event::Event;
use netstack::switch::ConnectionEntry;
use netstack::verdict::{DropReason, Fate, Origin};

use crate::lab::{Lab, Out, dropped, entered, left, ports};
use crate::packets::{self, Packet, as_routed, sound};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, Host, NODE, POD_A, POD_B, UPLINK, acquainted, ip, managed, net, node, port,
    segment,
};

/// A host that only the router of the other segment knows.
const SERVER: [&str; 2] = ["192.0.2.9", "2001:db8:9::9"];

fn server(family: Family) -> IpAddr {
    ip(family.of(SERVER[0], SERVER[1]))
}

fn lab() -> Lab {
    acquainted(node(|_| {}))
}

/// The endpoints of a packet; an echo's identifier stands for the asker's port.
pub(crate) fn endpoints(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    sound(frame);
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination): (IpAddr, IpAddr) = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => panic!("no ARP"),
    };
    let id = |octets: &[u8]| u16::from_be_bytes([octets[4], octets[5]]);
    let (from, to) = match packet.transport {
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => (id(icmp.slice()), id(icmp.slice())),
        Some(TransportSlice::Icmpv6(icmp)) => (id(icmp.slice()), id(icmp.slice())),
        Some(TransportSlice::Igmp(_)) | None => (0, 0),
    };
    (SocketAddr::new(source, from), SocketAddr::new(destination, to))
}

pub(crate) fn one(out: Vec<Out>) -> Out {
    let [out] = <[Out; 1]>::try_from(out).expect("one frame leaves");
    out
}

/// What FAR's router sends for somebody behind it.
pub(crate) fn from_outside(source: IpAddr, destination: IpAddr) -> Packet {
    Packet { source, ..FAR.via_router(destination) }
}

#[test]
fn a_pod_leaves_behind_the_nodes_address_and_is_answered() {
    for family in FAMILIES {
        let mut lab = lab();
        let own = NODE.ip(family);
        type Make = fn(&Packet) -> Vec<u8>;
        let kinds: [(Make, Make); 3] = [
            (|p| p.udp(40_000, 53, b"question"), |p| p.udp(53, 40_000, b"answer")),
            (|p| p.tcp_syn(40_000, 80), |p| p.tcp_syn_ack(80, 40_000, 1001)),
            (|p| p.echo(40_000, 1, b"ping"), |p| p.echo_reply(40_000, 1, b"ping")),
        ];
        for (ask, answer) in kinds {
            let sent = ask(&POD_A.via_router(server(family)));
            let out = one(lab.send(POD_A.port, &sent));
            assert_eq!(out.port, FAR.port);
            let (source, destination) = endpoints(&out.bytes);
            assert_eq!((source.ip(), destination.ip()), (own, server(family)));
            assert_eq!(source.port(), 40_000, "the port is kept while it is free");
            assert_eq!(&out.bytes[..6], &FAR.mac.0);

            let back = one(lab.send(FAR.port, &answer(&from_outside(server(family), own))));
            assert_eq!(back.port, POD_A.port);
            let (source, destination) = endpoints(&back.bytes);
            assert_eq!((source.ip(), destination.ip()), (server(family), POD_A.ip(family)));
            lab.expect([
                entered(POD_A.port, Fate::Forwarded),
                left(FAR.port, Origin::Forwarded),
                entered(FAR.port, Fate::Forwarded),
                left(POD_A.port, Origin::Forwarded),
            ]);
        }
    }
}

#[test]
fn what_is_exempt_or_inside_keeps_its_source() {
    for family in FAMILIES {
        let mut lab = lab();
        let exempt = ip(family.of("198.51.100.7", "2001:db8:100::7"));
        let sent = POD_A.via_router(exempt).udp(40_000, 53, b"x");
        let out = one(lab.send(POD_A.port, &sent));
        assert_eq!(out.bytes, as_routed(&sent, UPLINK, FAR.mac));
        let inside = POD_A.to(&POD_B, family).udp(40_000, 53, b"x");
        assert_eq!(one(lab.send(POD_A.port, &inside)).bytes, inside, "bridged as it is");
        let from_node = NODE.via_router(server(family)).udp(40_000, 53, b"x");
        let out = one(lab.send(NODE.port, &from_node));
        assert_eq!(endpoints(&out.bytes).0, SocketAddr::new(NODE.ip(family), 40_000));
        lab.settle();
    }
}

/// The answer goes straight from one pod to the other's MAC address, over the bridge, and must still come from where the
/// question went.
#[test]
fn a_bridged_answer_is_translated_back() {
    for family in FAMILIES {
        for client in [POD_A, GUEST] {
            let mut lab = lab();
            let own = NODE.ip(family);
            let sent = client.via_router(own).udp(40_000, 8080, b"question");
            let out = one(lab.send(client.port, &sent));
            assert_eq!(out.port, POD_B.port);
            assert_eq!(
                endpoints(&out.bytes),
                (SocketAddr::new(client.ip(family), 40_000), SocketAddr::new(POD_B.ip(family), 80))
            );
            let answer = POD_B.to(&client, family).udp(80, 40_000, b"answer");
            let back = one(lab.send(POD_B.port, &answer));
            assert_eq!(back.port, client.port);
            assert_eq!(
                endpoints(&back.bytes),
                (SocketAddr::new(own, 8080), SocketAddr::new(client.ip(family), 40_000))
            );
            lab.settle();
        }
    }
}

#[test]
fn an_error_from_outside_finds_the_pod_and_quotes_what_it_sent() {
    for family in FAMILIES {
        let mut lab = lab();
        let sent = POD_A.via_router(server(family)).udp(40_000, 53, b"question");
        let out = one(lab.send(POD_A.port, &sent));
        let (kind, code) = family.of((3, 3), (1, 4));
        let hop = ip(family.of("192.0.2.1", "2001:db8:9::1"));
        let error = from_outside(hop, NODE.ip(family)).icmp(kind, code, [0; 4], &out.bytes[14..]);
        let back = one(lab.send(FAR.port, &error));
        assert_eq!(back.port, POD_A.port);
        sound(&back.bytes);
        let header = family.of(20, 40);
        let quoted = &back.bytes[14 + header + 8..];
        // The pod's packet as the router got it, one hop later.
        let expected = as_routed(&sent, UPLINK, FAR.mac);
        assert_eq!(quoted, &expected[14..]);
        // About a packet that nobody sent.
        let stray = from_outside(server(family), NODE.ip(family)).udp(1, 2, b"x");
        let mut stray = stray[14..].to_vec();
        let swap = family.of(12..20, 8..40);
        stray[swap.clone()].rotate_left(swap.len() / 2);
        if family == Family::V4 {
            packets::fix_ipv4_checksum(&mut stray);
        }
        lab.settle();
        let error = from_outside(hop, NODE.ip(family)).icmp(kind, code, [0; 4], &stray);
        assert!(lab.send(FAR.port, &error).is_empty());
        lab.expect([dropped(FAR.port, DropReason::IcmpUnrelated)]);
    }
}

#[test]
fn who_was_not_asked_reaches_nobody_inside() {
    for family in FAMILIES {
        let mut lab = lab();
        // The machine itself gets what is for its address and for no connection.
        let call = from_outside(server(family), NODE.ip(family)).tcp_syn(50_000, 40_000);
        assert_eq!(one(lab.send(FAR.port, &call)).port, NODE.port);
        // And somebody who is asked by another.
        lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(40_000, 53, b"x"));
        let other = ip(family.of("192.0.2.10", "2001:db8:9::10"));
        let call = from_outside(other, NODE.ip(family)).udp(53, 40_000, b"x");
        assert_eq!(one(lab.send(FAR.port, &call)).port, NODE.port);
        lab.settle();

        // Where no machine is behind the address, nobody answers (RFC 5382 REQ-4).
        let mut config = node(|_| {});
        config.ports.retain(|port| port.id.0 != NODE.port);
        let mut lab = acquainted(config);
        for call in [
            from_outside(server(family), NODE.ip(family)).tcp_syn(50_000, 40_000),
            from_outside(server(family), NODE.ip(family)).udp(50_000, 40_000, b"x"),
        ] {
            assert!(lab.send(FAR.port, &call).is_empty());
            lab.expect([dropped(FAR.port, DropReason::NoMapping)]);
        }
    }
}

#[test]
fn nat_45_for_want_of_a_port_the_sender_is_told() {
    for family in FAMILIES {
        let few = PortRange { first: 2000, last: 2001 };
        let config = node(|nat| {
            nat.behaviour = Behaviour::strict();
            nat.behaviour.keep.parity = false;
            nat.behaviour.keep.class = false;
            nat.pools[0].ports = vec![few];
        });
        let mut lab = acquainted(config);
        for port in [40_000, 40_001] {
            let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(port, 53, b"x")));
            assert!((2000..=2001).contains(&endpoints(&out.bytes).0.port()));
        }
        lab.settle();
        let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(40_002, 53, b"x")));
        assert_eq!(out.port, POD_A.port);
        let message = packets::icmp(&out.bytes);
        assert_eq!((message.kind, message.code), family.of((3, 13), (1, 1)));
        lab.expect([dropped(POD_A.port, DropReason::PortsExhausted), left(POD_A.port, Origin::Originated)]);
    }
}

#[test]
fn two_datagrams_for_an_unknown_neighbour_make_one_mapping_and_both_arrive() {
    const BURSTS: u32 = 100_000;
    for family in FAMILIES {
        let mut done = 0;
        while done < BURSTS / 2 {
            // Neighbours that are known are no use here; a new lab knows none.
            let mut config = node(|_| {});
            config.segments[1].gateway.as_mut().unwrap().addresses[0] = net("10.1.0.1/16");
            let mut lab = Lab::new(config);
            for host in 0..2000u16 {
                let [high, low] = (host + 256).to_be_bytes();
                // On the other segment's own link, so each of them is asked for.
                let target = match family {
                    Family::V4 => ip(&format!("10.1.{high}.{low}")),
                    Family::V6 => ip(&format!("fd00:1::5:{:x}", host + 256)),
                };
                burst(&mut lab, family, target, 1024 + host);
                done += 1;
            }
            lab.settle();
        }
    }
}

fn burst(lab: &mut Lab, family: Family, target: IpAddr, port: u16) {
    let count = |lab: &Lab| {
        let (v4, v6) = lab.switch.connections().unwrap();
        (v4.len() + v6.len(), v4.counters().opened + v6.counters().opened)
    };
    let (before, opened) = count(lab);
    let packet = POD_A.via_router(target);
    let asked = lab.send(POD_A.port, &packet.udp(port, 53, b"first"));
    assert!(lab.send(POD_A.port, &packet.udp(port, 53, b"second")).is_empty());
    assert_eq!(count(lab), (before, opened), "nothing is begun that may never leave");
    let asker = packets::asker(&one(asked).bytes);
    let out = lab.send(FAR.port, &packets::tell(FAR.mac, target, UPLINK, asker));
    assert_eq!(ports(&out), [FAR.port; 2]);
    let seen: Vec<(SocketAddr, SocketAddr)> = out.iter().map(|out| endpoints(&out.bytes)).collect();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].0.ip(), NODE.ip(family));
    assert_eq!(seen[0].1, SocketAddr::new(target, 53));
    assert_eq!(count(lab), (before + 1, opened + 1));
}

#[test]
fn nat_53_a_reload_keeps_connections_and_a_lost_address_ends_its_own() {
    for family in FAMILIES {
        let second = ip(family.of("10.1.0.77", "fd00:1::77"));
        let two = |nat: &mut NatConfig| nat.pools[0].addresses.push(second);
        let mut lab = acquainted(node(two));
        let seen = |lab: &mut Lab, host: &Host, port| {
            let out = one(lab.send(host.port, &host.via_router(server(family)).udp(port, 53, b"x")));
            endpoints(&out.bytes).0
        };
        // A host has one address of the pool; of several hosts some have the other.
        let hosts: Vec<Host> = (2..40u8)
            .map(|last| Host {
                v4: Box::leak(format!("10.0.0.{}", 100 + last).into_boxed_str()),
                v6: Box::leak(format!("fd00::{}", 100 + u16::from(last)).into_boxed_str()),
                ..GUEST
            })
            .collect();
        for host in &hosts {
            crate::world::introduce(&mut lab, host);
        }
        let before: Vec<SocketAddr> = hosts.iter().map(|host| seen(&mut lab, host, 40_000)).collect();
        assert!(before.iter().any(|at| at.ip() == second));
        assert!(before.iter().any(|at| at.ip() == NODE.ip(family)));
        // Without any rule, those that have begun go on.
        lab.install(node(|nat| {
            two(nat);
            nat.source.clear();
        }));
        let after: Vec<SocketAddr> = hosts.iter().map(|host| seen(&mut lab, host, 40_000)).collect();
        assert_eq!(after, before);
        assert_eq!(seen(&mut lab, &hosts[0], 40_001).ip(), hosts[0].ip(family));
        // Without the second address exactly its own end.
        lab.install(node(|_| {}));
        for (host, before) in hosts.iter().zip(&before) {
            let back = from_outside(server(family), before.ip()).udp(53, before.port(), b"x");
            let back = lab.send(FAR.port, &back);
            if before.ip() == second {
                assert!(back.iter().all(|out| out.port != host.port), "it is nobody's any more");
            } else {
                assert_eq!(endpoints(&one(back).bytes).1, SocketAddr::new(host.ip(family), 40_000));
            }
        }
        lab.settle();
    }
}

/// Cuts an IP packet in a frame into fragments of 8 octets' multiples.
fn fragments(packet: &Packet, payload: &[u8]) -> Vec<Vec<u8>> {
    let whole = Packet { dont_fragment: false, ..*packet }.udp(40_000, 53, payload);
    packets::fragment(&whole, 16)
}

#[test]
fn nat_40_fragments_in_any_order_leave_with_one_source_and_one_identification() {
    for family in FAMILIES {
        let pieces =
            fragments(&POD_A.via_router(server(family)), b"as long as four pieces of sixteen octets are");
        assert_eq!(pieces.len(), 4);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let mut lab = lab();
            let out: Vec<Out> = order.iter().flat_map(|&at| lab.send(POD_A.port, &pieces[at])).collect();
            assert_eq!(lab.switch.held(), 0);
            assert_eq!(ports(&out), [FAR.port; 4]);
            let whole = packets::reassemble(out.iter().map(|out| &out.bytes[..]));
            let (source, destination) = endpoints(&whole);
            assert_eq!(source, SocketAddr::new(NODE.ip(family), 40_000));
            assert_eq!(destination, SocketAddr::new(server(family), 53));
            lab.expect([entered(POD_A.port, Fate::Forwarded) * 4, left(FAR.port, Origin::Forwarded) * 4]);
        }
        // The first never comes.
        let mut lab = lab();
        for piece in &pieces[1..] {
            assert!(lab.send(POD_A.port, piece).is_empty());
        }
        assert_eq!(lab.switch.held(), 3);
        lab.settle();
        lab.wait(Duration::from_secs(61));
        assert_eq!(lab.switch.held(), 0);
        lab.settle();
    }
}

#[test]
fn what_begins_no_connection_goes_no_further() {
    for family in FAMILIES {
        let mut lab = lab();
        let packet = POD_A.via_router(server(family));
        let syn_fin = packets::with_tcp_flags(packet.tcp_syn(40_000, 80), 0x03);
        assert!(lab.send(POD_A.port, &syn_fin).is_empty());
        lab.expect([dropped(POD_A.port, DropReason::ConnectionInvalid)]);
        // An answer that nobody asked for.
        assert!(lab.send(POD_A.port, &packet.echo_reply(7, 1, b"x")).is_empty());
        lab.expect([dropped(POD_A.port, DropReason::IcmpUnrelated)]);
        let mut damaged = packet.udp(40_000, 53, b"x");
        *damaged.last_mut().unwrap() ^= 1;
        assert!(lab.send(POD_A.port, &damaged).is_empty());
        lab.expect([dropped(POD_A.port, DropReason::TransportChecksum)]);
        // A redirect or a node information query, and a kind that nobody knows: without a connection they would leave
        // with a source from inside.
        for kind in [family.of(5, 139), 200] {
            assert!(lab.send(POD_A.port, &packet.icmp(kind, 0, [0; 4], &[0; 36])).is_empty());
            lab.expect([dropped(POD_A.port, DropReason::ConnectionInvalid)]);
        }
    }
}

#[test]
fn a_trace_shows_the_translation_and_changes_nothing() {
    for family in FAMILIES {
        let mut lab = lab();
        let sent = POD_A.via_router(server(family)).udp(40_000, 53, b"x");
        let trace = lab.explain(POD_A.port, &sent);
        let text = trace.to_string();
        assert!(text.contains("opens a connection"), "{text}");
        let own = SocketAddr::new(NODE.ip(family), 40_000);
        assert!(text.contains(&format!("leaves as {own} > ")), "{text}");
        assert!(
            lab.switch.connections().unwrap().0.is_empty() && lab.switch.connections().unwrap().1.is_empty()
        );
        assert_eq!(trace.frame.unwrap(), one(lab.send(POD_A.port, &sent)).bytes);
        let text = lab.explain(POD_A.port, &sent).to_string();
        assert!(text.contains("of the connection udp"), "{text}");
        let back = from_outside(server(family), NODE.ip(family)).udp(53, 40_000, b"x");
        let text = lab.explain(FAR.port, &back).to_string();
        assert!(text.contains("in answer"), "{text}");
        lab.settle();
    }
}

#[test]
fn a_full_table_of_answered_connections_refuses_the_next() {
    let mut lab = Lab::with_limits(node(|_| {}), Limits { connections: 4, ..Limits::default() });
    for host in [GUEST, FAR] {
        crate::world::introduce(&mut lab, &host);
    }
    let family = Family::V4;
    for port in 1..=4 {
        lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(port, 53, b"x"));
        let (v4, _) = lab.switch.connections().unwrap();
        let external =
            v4.connections().find_map(|(_, c)| (c.inside().source.port == port).then(|| c.outside().source));
        let back = from_outside(server(family), NODE.ip(family)).udp(53, external.unwrap().port, b"x");
        assert_eq!(one(lab.send(FAR.port, &back)).port, POD_A.port);
    }
    lab.settle();
    for _ in 0..2 {
        let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(5, 53, b"x")));
        assert_eq!(out.port, POD_A.port, "the sender is told");
    }
    let reason = DropReason::ConnectionTableFull;
    let told = Event::ConnectionRefused { reason, source: POD_A.ip(family) };
    assert_eq!(lab.events(), [told], "once a minute");
    lab.expect([dropped(POD_A.port, reason) * 2, left(POD_A.port, Origin::Originated) * 2]);
}

/// As Linux: an error about an IPv4 packet has 576 octets at most, one about an IPv6 packet 1280.
#[test]
fn nat_39_and_47_what_is_too_large_is_reported_in_the_usual_size_and_the_path_is_learned_inside() {
    for family in FAMILIES {
        let mut config = node(|_| {});
        config.segments[1].mtu = 1280;
        let mut lab = acquainted(config);
        let sent = POD_A.via_router(server(family)).echo(7, 1, &[7; 1400]);
        let out = one(lab.send(POD_A.port, &sent));
        assert_eq!(out.port, POD_A.port);
        let message = packets::icmp(&out.bytes);
        assert_eq!((message.kind, message.code, message.rest), family.of((3, 4, 1280), (2, 0, 1280)));
        assert_eq!(out.bytes.len() - 14, family.of(576, 1280));
        assert_eq!(message.source, ip(family.of("10.0.0.1", "fd00::1")), "from the side that it came from");
        lab.settle();

        // And what a router behind says about a packet that fitted here reaches the pod.
        let fitting = POD_A.via_router(server(family)).echo(7, 1, &[7; 1200]);
        let out = one(lab.send(POD_A.port, &fitting));
        let hop = ip(family.of("192.0.2.1", "2001:db8:9::1"));
        let kind = family.of((3, 4), (2, 0));
        let quoted = &out.bytes[14..14 + family.of(548, 1180)];
        let error = from_outside(hop, NODE.ip(family)).icmp(kind.0, kind.1, 1100u32.to_be_bytes(), quoted);
        let back = one(lab.send(FAR.port, &error));
        assert_eq!(back.port, POD_A.port);
        let message = packets::icmp(&back.bytes);
        assert_eq!((message.source, message.destination), (hop, POD_A.ip(family)));
        assert_eq!((message.kind, message.code, message.rest), (kind.0, kind.1, 1100));
        lab.settle();
    }
}

#[test]
fn nat_46_every_hop_counts_once() {
    for family in FAMILIES {
        let mut lab = lab();
        let hops = |frame: &[u8]| frame[family.of(22, 21)];
        let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(40_000, 53, b"x")));
        assert_eq!(hops(&out.bytes), 63);
        let back =
            one(lab.send(FAR.port, &from_outside(server(family), NODE.ip(family)).udp(53, 40_000, b"x")));
        assert_eq!(hops(&back.bytes), 63);
        let hairpin = one(lab.send(POD_A.port, &POD_A.via_router(NODE.ip(family)).udp(40_001, 8080, b"x")));
        assert_eq!((hairpin.port, hops(&hairpin.bytes)), (POD_B.port, 63));
        lab.settle();
        // Out of hops on the way back: whoever sent it is told about what it sent, by who it sent it to.
        let dying = Packet { hop_limit: 1, ..from_outside(server(family), NODE.ip(family)) };
        let dying = dying.udp(53, 40_000, b"x");
        let out = one(lab.send(FAR.port, &dying));
        assert_eq!(out.port, FAR.port);
        let message = packets::icmp(&out.bytes);
        assert_eq!((message.kind, message.code), family.of((11, 0), (3, 0)));
        assert_eq!(message.source, NODE.ip(family));
        assert!(message.body.starts_with(&dying[14..]));
        lab.settle();
    }
}

/// What must not be sent on whole is cut, and leaves in order under one identification.
#[test]
fn nat_41_and_47_what_may_be_cut_is_cut_after_its_translation() {
    let mut config = node(|_| {});
    config.segments[1].mtu = 576;
    config.segments[1].gateway.as_mut().unwrap().addresses.retain(|net| net.addr().is_ipv4());
    config.routes.retain(|route| route.prefix.addr().is_ipv4());
    let nat = config.nat.as_mut().unwrap();
    nat.pools[0].addresses.retain(|address| address.is_ipv4());
    config.ports.retain(|port| port.id.0 != NODE.port);
    let mut lab = Lab::new(config);
    lab.send(FAR.port, &packets::ask(FAR.mac, ip(FAR.v4), ip(NODE.v4)));
    let mut seen = Vec::new();
    for host in [POD_A, POD_B] {
        // Both chose the same identification.
        let packet = Packet { dont_fragment: false, id: 7, ..host.via_router(server(Family::V4)) };
        let out = lab.send(host.port, &packet.udp(40_000, 53, &[7; 1400]));
        assert_eq!(out.len(), 3);
        let whole = packets::reassemble(out.iter().map(|out| &out.bytes[..]));
        assert_eq!(endpoints(&whole).0.ip(), ip(NODE.v4));
        seen.push(whole[18..20].to_vec());
    }
    assert_ne!(seen[0], seen[1], "one address never has two datagrams under one identification");
    lab.settle();
}

#[test]
fn nat_48_a_syn_announces_no_more_than_fits_its_links() {
    for family in FAMILIES {
        let headers = family.of(40, 60);
        for (clamp, mtu, expected) in [(false, 1400, 1460), (true, 1400, 1400 - headers), (true, 1500, 1440)]
        {
            let mut config = node(|_| {});
            config.segments[1].mtu = mtu;
            config.segments[1].gateway.as_mut().unwrap().clamp_mss = clamp;
            let mut lab = acquainted(config);
            let announced = if mtu == 1500 { 1440 } else { 1460 };
            let out =
                one(lab
                    .send(POD_A.port, &POD_A.via_router(server(family)).tcp_syn_mss(40_000, 80, announced)));
            sound(&out.bytes);
            let at = family.of(54, 74);
            assert_eq!(out.bytes[at..at + 4], [&[2, 4][..], &u16::to_be_bytes(expected)].concat());
            // And so for the answer, which comes the other way.
            let answer = from_outside(server(family), NODE.ip(family)).tcp_syn_ack(80, 40_000, 1001);
            assert_eq!(one(lab.send(FAR.port, &answer)).port, POD_A.port);
            lab.settle();
        }
    }
}

/// A managed pod and a stranger on a segment that the router is not on.
#[test]
fn where_the_router_is_not_nothing_is_tracked() {
    let mut config = node(|_| {});
    let isle = 9;
    let pod = Host { port: 10, mac: MacAddr([2, 0, 0, 0, 9, 1]), ..POD_A };
    let stranger = Host { port: 11, mac: MacAddr([2, 0, 0, 0, 9, 2]), ..GUEST };
    config.segments.push(segment(isle, 1500));
    config.ports.extend([managed(&pod, isle), port(stranger.port, isle)]);
    let mut lab = acquainted(config);
    lab.send(stranger.port, &packets::announce(stranger.mac, ip(stranger.v4)));
    for family in FAMILIES {
        let syn = pod.to(&stranger, family).tcp_syn(40_000, 80);
        assert_eq!(one(lab.send(pod.port, &syn)).bytes, syn);
        let syn_ack = stranger.to(&pod, family).tcp_syn_ack(80, 40_000, 1001);
        assert_eq!(one(lab.send(stranger.port, &syn_ack)).bytes, syn_ack);
        let data = pod.to(&stranger, family).tcp(40_000, 80, b"x");
        assert_eq!(one(lab.send(pod.port, &data)).bytes, data);
    }
    let (v4, v6) = lab.switch.connections().unwrap();
    assert!(v4.is_empty() && v6.is_empty());
    lab.settle();
}

/// A stranger sends a packet in a pod's name, for somebody far away, to another pod's MAC address.
#[test]
fn a_stranger_on_the_bridge_cannot_make_a_pod_leave_as_it_is() {
    for family in FAMILIES {
        let mut lab = lab();
        let lie =
            Packet { source: POD_A.ip(family), destination: server(family), ..GUEST.to(&POD_B, family) };
        lab.send(GUEST.port, &lie.udp(123, 123, b"x"));
        let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(123, 123, b"x")));
        assert_eq!(endpoints(&out.bytes).0.ip(), NODE.ip(family));
        lab.settle();
    }
}

#[test]
fn an_external_address_that_is_only_routed_here_does_not_loop() {
    for family in FAMILIES {
        let external = ip(family.of("203.0.113.5", "2001:db8:113::5"));
        let mut lab = acquainted(node(|nat| nat.pools[0].addresses.push(external)));
        let call = from_outside(server(family), external).udp(53, 40_000, b"x");
        assert!(lab.send(FAR.port, &call).is_empty());
        lab.expect([dropped(FAR.port, DropReason::NoMapping)]);
    }
}

#[test]
fn fragments_of_strangers_pass_as_on_any_bridge() {
    let other = crate::world::OTHER;
    for family in FAMILIES {
        let mut lab = lab();
        let pieces = fragments(&GUEST.to(&other, family), b"as long as four pieces of sixteen octets are");
        // In any order, and more than once: they may come by several ways.
        for at in [2, 1, 2, 0, 0, 3] {
            assert_eq!(one(lab.send(GUEST.port, &pieces[at])).bytes, pieces[at]);
        }
        assert_eq!(lab.switch.held(), 0);
        lab.settle();
    }
}

#[test]
fn fragments_that_cross_twice_are_not_their_own_duplicates() {
    for family in FAMILIES {
        let mut lab = lab();
        // A pod's fragments go to another router on its own segment, which sends them on by ours.
        let pieces = fragments(&Packet { destination: server(family), ..POD_A.to(&GUEST, family) }, &[7; 40]);
        let again =
            fragments(&Packet { source: GUEST.ip(family), ..GUEST.via_router(server(family)) }, &[7; 40]);
        for (first, second) in pieces.iter().zip(&again) {
            assert_eq!(one(lab.send(POD_A.port, first)).port, GUEST.port);
            assert_eq!(one(lab.send(GUEST.port, second)).port, FAR.port);
        }
        lab.settle();
    }
}

#[test]
fn nat_53_a_pool_that_changes_keeps_what_it_has_given_out() {
    for family in FAMILIES {
        let mut lab = lab();
        let ask = |lab: &mut Lab, port| {
            let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(port, 53, b"x")));
            endpoints(&out.bytes).0
        };
        let before = ask(&mut lab, 40_000);
        lab.install(node(|nat| {
            nat.pools[0].ports = vec![PortRange { first: 2000, last: 2009 }];
            nat.pools[0].hold = Duration::from_secs(1);
            nat.pools[0].ports_per_host = Some(5);
        }));
        assert_eq!(ask(&mut lab, 40_000), before);
        for port in 1..5 {
            assert!((2000..2010).contains(&ask(&mut lab, port).port()), "new ones are of the new ports");
        }
        lab.settle();
        assert_eq!(
            one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(9, 53, b"x"))).port,
            POD_A.port
        );
        lab.expect([dropped(POD_A.port, DropReason::PortQuota), left(POD_A.port, Origin::Originated)]);
        // And without translation nothing is left of it.
        let mut without = node(|_| {});
        without.nat = None;
        lab.install(without);
        assert!(lab.switch.connections().is_none());
        assert_eq!(ask(&mut lab, 40_000), SocketAddr::new(POD_A.ip(family), 40_000));
        lab.settle();
    }
}

#[test]
fn what_a_link_has_no_route_to_is_about_what_its_stations_say() {
    for family in FAMILIES {
        let mut config = node(|_| {});
        config.segments[1].gateway.as_mut().unwrap().no_route_to = vec![net("10.0.0.0/24"), net("fd00::/64")];
        let mut lab = acquainted(config);
        lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(40_000, 53, b"x"));
        let back = from_outside(server(family), NODE.ip(family)).udp(53, 40_000, b"x");
        assert_eq!(one(lab.send(FAR.port, &back)).port, POD_A.port);
        lab.settle();
        let direct = from_outside(server(family), POD_A.ip(family)).udp(53, 40_000, b"x");
        assert_eq!(one(lab.send(FAR.port, &direct)).port, FAR.port);
        lab.expect([dropped(FAR.port, DropReason::NoRoute), left(FAR.port, Origin::Originated)]);
    }
}

#[test]
fn a_first_fragment_that_goes_no_further_takes_the_others_along() {
    for family in FAMILIES {
        let mut lab = lab();
        let nobody = ip(family.of("10.1.0.99", "fd00:1::99"));
        let pieces = fragments(&POD_A.via_router(nobody), &[7; 40]);
        for piece in &pieces {
            lab.send(POD_A.port, piece);
        }
        assert_eq!((lab.switch.parked(), lab.switch.held()), (1, 2), "they wait for the neighbour with it");
        lab.wait(Duration::from_secs(5));
        assert_eq!((lab.switch.parked(), lab.switch.held()), (0, 0), "nobody there");
        assert_eq!(lab.switch.counters().dropped(DropReason::FragmentOrphaned), 2);
        lab.settle();
    }
}

#[test]
fn ports_are_for_protocols_that_have_them() {
    for family in FAMILIES {
        let mut lab = acquainted(node(|nat| {
            for rule in &mut nat.destination {
                rule.matches.protocol = None;
                rule.matches.destination_ports = None;
            }
        }));
        // Everything for the node's address goes to the pod, on port 80 where there are ports.
        let query = from_outside(server(family), NODE.ip(family)).protocol(47, &[7; 20]);
        assert_eq!(one(lab.send(FAR.port, &query)).port, POD_B.port);
        let answer = POD_B.via_router(server(family)).protocol(47, &[7; 20]);
        let out = one(lab.send(POD_B.port, &answer));
        assert_eq!(endpoints(&out.bytes).0.ip(), NODE.ip(family));
        lab.settle();
    }
}

#[test]
fn who_may_not_come_from_there_leaves_no_note() {
    for family in FAMILIES {
        let mut config = node(|_| {});
        crate::world::reverse_path(&mut config, 0, ReversePath::Strict);
        let mut lab = acquainted(config);
        lab.send(GUEST.port, &GUEST.via_router(FAR.ip(family)).udp(4009, 53, b"x"));
        let assured = |lab: &Lab| {
            let (v4, v6) = lab.switch.connections().unwrap();
            v4.connections()
                .map(|(_, c)| c.status)
                .chain(v6.connections().map(|(_, c)| c.status))
                .any(|status| status.has(Status::SEEN_REPLY))
        };
        let lie = Packet { source: FAR.ip(family), ..GUEST.via_router(NODE.ip(family)) };
        lab.settle();
        assert!(lab.send(GUEST.port, &lie.udp(53, 4009, b"x")).is_empty());
        lab.expect([dropped(GUEST.port, DropReason::ReversePath)]);
        assert!(!assured(&lab));
        lab.send(FAR.port, &FAR.via_router(NODE.ip(family)).udp(53, 4009, b"x"));
        assert!(assured(&lab));
        lab.settle();
    }
}

#[test]
fn nat_12_a_pod_reaches_itself_by_what_is_published() {
    for family in FAMILIES {
        let mut lab = lab();
        let sent = POD_B.via_router(NODE.ip(family)).udp(40_000, 8080, b"question");
        let out = one(lab.send(POD_B.port, &sent));
        assert_eq!(out.port, POD_B.port);
        let (source, destination) = endpoints(&out.bytes);
        assert_eq!(destination, SocketAddr::new(POD_B.ip(family), 80));
        assert_eq!(source.ip(), NODE.ip(family), "nobody takes a packet from itself");
        let back =
            one(lab.send(POD_B.port, &POD_B.via_router(source.ip()).udp(80, source.port(), b"answer")));
        assert_eq!(back.port, POD_B.port);
        assert_eq!(
            endpoints(&back.bytes),
            (SocketAddr::new(NODE.ip(family), 8080), SocketAddr::new(POD_B.ip(family), 40_000))
        );
        lab.settle();
    }
}

#[test]
fn a_trace_knows_fragments_and_states() {
    for family in FAMILIES {
        let mut lab = lab();
        let pieces = fragments(&POD_A.via_router(server(family)), &[7; 40]);
        assert!(lab.explain(POD_A.port, &pieces[1]).outcome.contains("held"));
        lab.send(POD_A.port, &pieces[0]);
        let trace = lab.explain(POD_A.port, &pieces[1]);
        assert_eq!(trace.frame.unwrap(), one(lab.send(POD_A.port, &pieces[1])).bytes);
        let syn = POD_A.via_router(server(family)).tcp_syn(40_000, 80);
        lab.send(POD_A.port, &syn);
        let early = POD_A.via_router(server(family)).tcp(40_000, 80, b"x");
        assert!(lab.explain(POD_A.port, &early).outcome.contains("connection_invalid"));
        assert!(lab.send(POD_A.port, &early).is_empty());
        lab.settle();
    }
}

#[test]
fn what_is_listed_is_what_there_is() {
    for family in FAMILIES {
        let mut lab = lab();
        lab.send(POD_A.port, &POD_A.via_router(server(family)).tcp_syn(40_000, 80));
        lab.send(POD_A.port, &POD_A.via_router(server(family)).echo(7, 1, b"x"));
        let now = lab.now;
        let mut entries: Vec<ConnectionEntry> = lab.switch.connection_entries(now).collect();
        let slots = 0..lab.switch.connection_slots();
        let one_by_one = slots.flat_map(|slot| lab.switch.connection_entries_in(now, slot..slot + 1));
        assert_eq!(one_by_one.collect::<Vec<_>>(), entries);
        entries.sort_by_key(|entry| entry.protocol);
        let (echo, query) = family.of((1, 8), (58, 128));
        let [tcp, icmp] = if echo < 6 { [1, 0] } else { [0, 1] }.map(|at: usize| entries[at]);
        let (pod, own) = (POD_A.ip(family), NODE.ip(family));
        assert_eq!((tcp.protocol, tcp.state, tcp.is_answered), (6, Some("SYN_SENT"), false));
        assert_eq!(tcp.original, [SocketAddr::new(pod, 40_000), SocketAddr::new(server(family), 80)]);
        assert_eq!(tcp.reply, [SocketAddr::new(server(family), 80), SocketAddr::new(own, 40_000)]);
        assert_eq!((icmp.protocol, icmp.state), (echo, None));
        assert_eq!(icmp.original, [SocketAddr::new(pod, 7), SocketAddr::new(server(family), query)]);
        let taken = |lab: &Lab, protocol: &str| {
            let uses = lab.switch.port_uses().into_iter();
            let mine = uses.filter(|u| u.address == own && u.protocol == protocol);
            mine.map(|u| (u.taken, u.permitted)).collect::<Vec<_>>()
        };
        assert_eq!(taken(&lab, "tcp"), [(1, 64_512)]);
        assert_eq!(taken(&lab, "icmp"), [(1, 65_536)]);
        assert_eq!(taken(&lab, "udp"), [(0, 64_512)]);
        lab.wait(Duration::from_secs(3600));
        assert_eq!(lab.switch.connection_entries(lab.now).count(), 0);
        assert_eq!(taken(&lab, "tcp"), [(0, 64_512)]);
        lab.settle();
    }
}

#[test]
fn nothing_is_remembered_of_a_station_that_is_not_tracked() {
    for family in FAMILIES {
        let alone = |host: &Host| host.ip(family).into();
        let held = |lab: &Lab| {
            let (v4, v6) = lab.switch.connections().unwrap();
            v4.connections().count() + v6.connections().count()
        };
        let mut lab = acquainted(node(|nat| nat.untracked = vec![alone(&FAR), alone(&POD_B)]));
        let ways = [(POD_A, FAR), (FAR, POD_A), (NODE, POD_B), (POD_B, NODE), (POD_A, POD_B), (POD_B, POD_A)];
        // The first packets of a flow are decided about, later ones are known.
        for _ in 0..4 {
            for (from, to) in ways {
                let asked = from.via_router(to.ip(family)).udp(40_000, 53, b"question");
                let out = one(lab.send(from.port, &asked));
                assert_eq!(out.port, to.port, "{from:?} {to:?}");
                let expected = (SocketAddr::new(from.ip(family), 40_000), SocketAddr::new(to.ip(family), 53));
                assert_eq!(endpoints(&out.bytes), expected);
            }
        }
        assert_eq!(held(&lab), 0);
        // Others are tracked and translated as ever.
        let out = one(lab.send(POD_A.port, &POD_A.via_router(server(family)).udp(40_000, 53, b"question")));
        assert_eq!(endpoints(&out.bytes).0.ip(), NODE.ip(family));
        assert_eq!(held(&lab), 1);
        lab.settle();
    }
}
