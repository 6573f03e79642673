//! What services do not take: told, or dropped without a word.

use super::*;

#[test]
fn a_service_without_backends_refuses_at_once() {
    for family in FAMILIES {
        let mut lab = lab(web(family, &[]));
        let (reason, source) = (DropReason::ServiceNoBackend, POD_A.ip(family));
        let mut events = vec![Event::ServiceRefused { reason, source, destination: vip(family), port: 80 }];
        for frame in questions(&POD_A.via_router(vip(family)), 80) {
            told(&mut lab, &POD_A, family, &frame);
            assert_eq!(lab.events(), std::mem::take(&mut events), "once a minute");
            lab.expect([
                dropped(POD_A.port, DropReason::ServiceNoBackend),
                left(POD_A.port, From::Originated),
            ]);
        }
        let mut damaged = POD_A.via_router(vip(family)).tcp_syn(40_000, 80);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(lab.send(POD_A.port, &damaged).is_empty());
        lab.expect([dropped(POD_A.port, DropReason::TransportChecksum)]);
        assert_eq!((connections(&lab), lab.switch.balanced()), (0, 0));

        let mut silent = web(family, &[]);
        for service in &mut silent {
            service.entrances[0].ways[Origin::Inside as usize].when_empty = Refusal::Drop;
        }
        let mut lab = acquainted(with_services(services(silent)));
        for frame in questions(&POD_A.via_router(vip(family)), 80) {
            assert!(lab.send(POD_A.port, &frame).is_empty());
            lab.expect([dropped(POD_A.port, DropReason::ServiceNoBackend)]);
        }
    }
}

#[test]
fn who_is_not_among_the_sources_is_dropped_but_the_node_never() {
    for family in FAMILIES {
        let mut of = web(family, &[pod_b(family)]);
        for service in &mut of {
            service.entrances[0].sources = vec![net("192.0.2.0/24"), net("2001:db8:9::/48")];
        }
        let mut lab = lab(of);
        for frame in questions(&POD_A.via_router(vip(family)), 80) {
            assert!(lab.send(POD_A.port, &frame).is_empty());
            lab.expect([dropped(POD_A.port, DropReason::ServiceSourceRange)]);
        }
        assert_eq!(one(lab.send(NODE.port, &NODE.via_router(vip(family)).tcp_syn(1, 80))).port, POD_B.port);
        let among = ip(family.of("192.0.2.9", "2001:db8:9::9"));
        assert_eq!(
            one(lab.send(FAR.port, &from_outside(among, vip(family)).tcp_syn(1, 80))).port,
            POD_B.port
        );
        lab.settle();
    }
}

#[test]
fn what_is_given_to_services_goes_nowhere_else() {
    for family in FAMILIES {
        let mut lab = lab(web(family, &[pod_b(family)]));
        let free = ip(family.of(FREE[0], FREE[1]));
        // Sent to the router, and past it to another station's MAC address.
        let past = |destination| Packet { destination, ..POD_A.to(&POD_B, family) };
        for packet in [POD_A.via_router(free), past(free)] {
            let mut frames = questions(&packet, 80);
            frames.extend([packet.echo(1, 1, b"x"), packet.protocol(47, &[0; 20])]);
            for frame in frames {
                assert!(lab.send(POD_A.port, &frame).is_empty());
                lab.expect([dropped(POD_A.port, DropReason::ServiceAddressFree)]);
            }
        }
        for packet in [POD_A.via_router(vip(family)), past(vip(family))] {
            let mut frames = questions(&packet, 81);
            frames.extend([packet.echo(1, 1, b"x"), packet.protocol(47, &[0; 20])]);
            for frame in frames {
                told(&mut lab, &POD_A, family, &frame);
                lab.expect([
                    dropped(POD_A.port, DropReason::ServicePortClosed),
                    left(POD_A.port, From::Originated),
                ]);
                // Errors are limited for each destination.
                lab.now += Duration::from_secs(1);
            }
        }
        // A service is asked on the bridge too.
        let out = one(lab.send(POD_A.port, &past(vip(family)).udp(40_000, 80, b"x")));
        assert_eq!((out.port, endpoints(&out.bytes).1), (POD_B.port, pod_b(family).into()));
        lab.settle();
        assert_eq!(lab.switch.connection_entries(lab.now).count(), 1);
    }
}
