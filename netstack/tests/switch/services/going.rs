//! What becomes of connections when backends go.

use super::*;

#[test]
fn a_datagram_goes_to_the_new_backend_with_the_first_packet_after_the_swap() {
    for family in FAMILIES {
        let of = |port| service("web", UDP, &[(vip(family), 80)], &numbered(family, [port]));
        let mut lab = lab([of(8001)]);
        let sent = POD_A.via_router(vip(family)).udp(5000, 80, b"x");
        let met = |lab: &mut Lab| endpoints(&one(lab.send(POD_A.port, &sent)).bytes).1.port();
        assert_eq!(met(&mut lab), 8001);
        change(&mut lab, |registry| {
            registry.set(of(8002)).unwrap();
        });
        // What the old one has still to say is its client's.
        let late = POD_B.to(&POD_A, family).udp(8001, 5000, b"late");
        let back = one(lab.send(POD_B.port, &late));
        assert_eq!(endpoints(&back.bytes).0, SocketAddr::new(vip(family), 80));
        let trace = lab.explain(POD_A.port, &sent);
        assert_eq!(connections(&lab), 1);
        let out = one(lab.send(POD_A.port, &sent));
        assert_eq!(trace.frame.unwrap(), out.bytes);
        assert_eq!((endpoints(&out.bytes).1.port(), connections(&lab)), (8002, 1));
        // One that only finishes what it has begun keeps what it has.
        change(&mut lab, |registry| {
            let serving = numbered(family, [8002, 8003]).into_iter().collect();
            registry.set(Service { serving, ..of(8003) }).unwrap();
        });
        assert_eq!(met(&mut lab), 8002);
        let other = POD_A.via_router(vip(family)).udp(5001, 80, b"x");
        assert_eq!(endpoints(&one(lab.send(POD_A.port, &other)).bytes).1.port(), 8003);
        // With nobody left it is refused, and without the service there is nobody at the address.
        change(&mut lab, |registry| {
            registry.set(service("web", UDP, &[(vip(family), 80)], &[])).unwrap();
        });
        lab.settle();
        told(&mut lab, &POD_A, family, &sent);
        lab.expect([dropped(POD_A.port, DropReason::ServiceNoBackend), left(POD_A.port, From::Originated)]);
        change(&mut lab, |registry| {
            registry.remove("web");
        });
        assert!(lab.send(POD_A.port, &other).is_empty());
        lab.expect([dropped(POD_A.port, DropReason::ServiceAddressFree)]);
        assert_eq!(connections(&lab), 0);
    }
}

#[test]
fn an_established_connection_stays_while_its_backend_serves_and_is_reset_if_the_service_wants_it() {
    for family in FAMILIES {
        let of = |ports: &[u16], reset_gone| {
            let backends = numbered(family, ports.iter().copied());
            Service { reset_gone, ..service("web", TCP, &[(vip(family), 80)], &backends) }
        };
        let mut lab = lab([of(&[8001], false)]);
        assert_eq!(establish(&mut lab, family, 5000), 8001);
        let more = POD_A.via_router(vip(family)).tcp_segment(5000, 80, ACK, (1001, 9001));
        let met = |lab: &mut Lab| endpoints(&one(lab.send(POD_A.port, &more)).bytes).1.port();
        // It terminates, and serves.
        change(&mut lab, |registry| {
            let serving = numbered(family, [8001, 8002]).into_iter().collect();
            registry.set(Service { serving, ..of(&[8002], true) }).unwrap();
        });
        assert_eq!(met(&mut lab), 8001);
        assert_eq!(establish(&mut lab, family, 5001), 8002);
        // It is gone, and the service leaves it at that.
        change(&mut lab, |registry| {
            registry.set(of(&[8002], false)).unwrap();
        });
        assert_eq!(met(&mut lab), 8001);
        // Or does not: its client is told in a way that it believes.
        change(&mut lab, |registry| {
            registry.set(of(&[8002], true)).unwrap();
        });
        lab.settle();
        let trace = lab.explain(POD_A.port, &more).to_string();
        assert!(trace.contains("backend is gone") && trace.contains("TCP reset"), "{trace}");
        let out = one(lab.send(POD_A.port, &more));
        assert_eq!((out.port, segment(&out.bytes).0, segment(&out.bytes).1), (POD_A.port, RST, 9001));
        assert_eq!(endpoints(&out.bytes).0, SocketAddr::new(vip(family), 80));
        lab.expect([dropped(POD_A.port, DropReason::ServiceBackendGone), left(POD_A.port, From::Originated)]);
        assert_eq!(connections(&lab), 1);
        // The other one has its backend.
        let other = POD_A.via_router(vip(family)).tcp_segment(5001, 80, ACK, (1001, 9001));
        assert_eq!(endpoints(&one(lab.send(POD_A.port, &other)).bytes).1.port(), 8002);
        lab.settle();
    }
}

#[test]
fn a_connect_that_nobody_answered_is_balanced_anew_and_so_is_one_on_what_was_closed() {
    for family in FAMILIES {
        let of = |port| service("web", TCP, &[(vip(family), 80)], &numbered(family, [port]));
        let mut lab = lab([of(8001)]);
        let syn = POD_A.via_router(vip(family)).tcp_segment(5000, 80, SYN, (1000, 0));
        let met = |lab: &mut Lab, frame: &[u8]| endpoints(&one(lab.send(POD_A.port, frame)).bytes).1.port();
        assert_eq!(met(&mut lab, &syn), 8001);
        assert_eq!(met(&mut lab, &syn), 8001, "sent again");
        change(&mut lab, |registry| {
            registry.set(of(8002)).unwrap();
        });
        assert_eq!(met(&mut lab, &syn), 8002, "the old one will never answer");
        assert_eq!(connections(&lab), 1);
        // One whose backend is there and which was closed: the same ports open another.
        assert_eq!(establish(&mut lab, family, 5001), 8002);
        let (a, b) = (POD_A.via_router(vip(family)), POD_B.to(&POD_A, family));
        lab.send(POD_A.port, &a.tcp_segment(5001, 80, FIN | ACK, (1001, 9001)));
        lab.send(POD_B.port, &b.tcp_segment(8002, 5001, FIN | ACK, (9001, 1002)));
        lab.send(POD_A.port, &a.tcp_segment(5001, 80, ACK, (1002, 9002)));
        let states: Vec<_> = lab.switch.connection_entries(lab.now).filter_map(|entry| entry.state).collect();
        assert!(states.contains(&"TIME_WAIT"), "{states:?}");
        change(&mut lab, |registry| {
            let serving = numbered(family, [8002, 8003]).into_iter().collect();
            registry.set(Service { serving, ..of(8003) }).unwrap();
        });
        let again = a.tcp_segment(5001, 80, SYN, (70_000, 0));
        assert_eq!(met(&mut lab, &again), 8003);
        lab.settle();
    }
}

/// Who asked at an address before a service stood there.
#[test]
fn what_began_before_its_service_asks_it_with_the_next_packet() {
    for family in FAMILIES {
        let elsewhere = || service("web", UDP, &[(vip(family), 80)], &[pod_b(family)]);
        let asked = FAR.ip(family);
        let behind = |protocol| service("late", protocol, &[(asked, 80)], &[pod_b(family)]);
        let packet = POD_A.via_router(asked);
        let datagram = packet.udp(5000, 80, b"x");
        let syn = packet.tcp_segment(5000, 80, SYN, (1000, 0));
        for (protocol, frame) in [(UDP, &datagram), (TCP, &syn)] {
            let mut lab = lab([elsewhere()]);
            assert_eq!(one(lab.send(POD_A.port, frame)).port, FAR.port);
            // What concerns others leaves it where it is.
            change(&mut lab, |registry| assert!(registry.remove("web")));
            assert_eq!(one(lab.send(POD_A.port, frame)).port, FAR.port);
            change(&mut lab, |registry| {
                registry.set(behind(protocol)).unwrap();
            });
            let trace = lab.explain(POD_A.port, frame);
            let out = one(lab.send(POD_A.port, frame));
            assert_eq!((out.port, endpoints(&out.bytes).1), (POD_B.port, pod_b(family).into()));
            assert_eq!((trace.frame.unwrap(), connections(&lab)), (out.bytes, 1));
            // And when the service no longer stands there, it is asked no more.
            change(&mut lab, |registry| {
                let moved = service("late", protocol, &[(vip(family), 81)], &[pod_b(family)]);
                registry.set(moved).unwrap();
            });
            assert_eq!(one(lab.send(POD_A.port, frame)).port, FAR.port);
            assert_eq!(connections(&lab), 1);
            lab.settle();
        }
        // A connection that both sides have agreed on stays.
        let mut lab = lab([elsewhere()]);
        let seen = endpoints(&one(lab.send(POD_A.port, &syn)).bytes).0;
        let agreed = FAR.via_router(seen.ip()).tcp_segment(80, seen.port(), SYN | ACK, (9000, 1001));
        assert_eq!(one(lab.send(FAR.port, &agreed)).port, POD_A.port);
        change(&mut lab, |registry| {
            registry.set(behind(TCP)).unwrap();
        });
        let more = packet.tcp_segment(5000, 80, ACK, (1001, 9001));
        assert_eq!(one(lab.send(POD_A.port, &more)).port, FAR.port);
        lab.settle();
    }
}

#[test]
fn without_services_their_connections_go_as_their_backends_did() {
    for family in FAMILIES {
        let mut lab = lab(web(family, &[pod_b(family)]));
        let sent = POD_A.via_router(vip(family)).udp(5000, 80, b"x");
        assert_eq!(one(lab.send(POD_A.port, &sent)).port, POD_B.port);
        establish(&mut lab, family, 5000);
        let of = lab.switch.snapshot().services().unwrap().config().clone();
        let none = lab.switch.snapshot().with_services(None).unwrap();
        lab.switch.install(none);
        let out = one(lab.send(POD_A.port, &sent));
        assert_eq!(endpoints(&out.bytes).1, SocketAddr::new(vip(family), 80), "an address like any other");
        let more = POD_A.via_router(vip(family)).tcp_segment(5000, 80, ACK, (1001, 9001));
        assert_eq!(one(lab.send(POD_A.port, &more)).port, POD_B.port);
        let again = lab.switch.snapshot().with_services(Some(of)).unwrap();
        lab.switch.install(again);
        assert_eq!(one(lab.send(POD_A.port, &more)).port, POD_B.port);
        assert_eq!(endpoints(&one(lab.send(POD_A.port, &sent)).bytes).1, pod_b(family).into());
        lab.settle();
    }
}
