//! Services in the switch: who answers, what is refused, and what becomes of connections when backends come and go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use lb::{Origin, Policy, Refusal, Service};
use netstack::config::{Config, Limits, ServicesConfig, Snapshot};
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::verdict::{DropReason, Fate, Origin as From};

use crate::lab::{Lab, Out, dropped, entered, left, ports};
use crate::packets::{self, Packet};
use crate::translation::{endpoints, from_outside, one};
use crate::world::{
    FAMILIES, FAR, FREE, Family, GUEST, Host, NODE, POD_A, POD_B, UPLINK, VIP, acquainted, ip, net, node,
    route, service, services, via,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn vip(family: Family) -> IpAddr {
    ip(family.of(VIP[0], VIP[1]))
}

fn with_services(of: ServicesConfig) -> Config {
    Config { services: Some(of), ..node(|_| {}) }
}

fn lab(of: impl IntoIterator<Item = Service>) -> Lab {
    acquainted(with_services(services(of)))
}

/// Replaces the services and nothing else, as a controller does: by a change of the registry that is in use.
fn change(lab: &mut Lab, change: impl FnOnce(&mut lb::Registry)) {
    let mut config = lab.switch.snapshot().services().unwrap().config().clone();
    change(&mut config.registry);
    let next = lab.switch.snapshot().with_services(Some(config)).unwrap();
    lab.switch.install(next);
    lab.events();
}

/// Port 80 of the address in two protocols, answered by a pod.
fn web(family: Family, backends: &[(IpAddr, u16)]) -> Vec<Service> {
    [(TCP, "tcp"), (UDP, "udp"), (SCTP, "sctp")]
        .map(|(protocol, name)| service(name, protocol, &[(vip(family), 80)], backends))
        .into()
}

fn pod_b(family: Family) -> (IpAddr, u16) {
    (POD_B.ip(family), 8080)
}

/// An SCTP INIT, with the checksum worked out bit by bit (RFC 9260 appendix A).
fn sctp_init(packet: &Packet, source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut init = Vec::new();
    init.extend(source_port.to_be_bytes());
    init.extend(destination_port.to_be_bytes());
    init.extend([0; 8]);
    init.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
    let mut crc = u32::MAX;
    for octet in &init {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    init[8..12].copy_from_slice(&(!crc).to_le_bytes());
    packet.protocol(SCTP, &init)
}

/// Flags, sequence number and acknowledgement of a segment.
fn segment(frame: &[u8]) -> (u8, u32, u32) {
    packets::sound(frame);
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).unwrap().transport else {
        panic!("no TCP")
    };
    (tcp.slice()[13], tcp.sequence_number(), tcp.acknowledgment_number())
}

type Make = fn(&Packet, u16, u16) -> Vec<u8>;

/// What opens a connection, and what answers it.
const OPENERS: [(Make, Make); 2] = [
    (|p, from, to| p.udp(from, to, b"question"), |p, from, to| p.udp(from, to, b"answer")),
    (|p, from, to| p.tcp_syn(from, to), |p, from, to| p.tcp_syn_ack(from, to, 1001)),
];

fn connections(lab: &Lab) -> usize {
    lab.switch.connection_entries(lab.now).count()
}

/// The backend answers straight to its client's MAC address, over the bridge that both are on.
#[test]
fn a_pod_reaches_a_service_and_is_answered_by_its_address() {
    for family in FAMILIES {
        for (ask, answer) in OPENERS {
            let mut lab = lab(web(family, &[pod_b(family)]));
            let out = one(lab.send(POD_A.port, &ask(&POD_A.via_router(vip(family)), 40_000, 80)));
            assert_eq!(out.port, POD_B.port);
            let client = SocketAddr::new(POD_A.ip(family), 40_000);
            assert_eq!(endpoints(&out.bytes), (client, pod_b(family).into()));
            let back = one(lab.send(POD_B.port, &answer(&POD_B.to(&POD_A, family), 8080, 40_000)));
            assert_eq!(back.port, POD_A.port);
            assert_eq!(endpoints(&back.bytes), (SocketAddr::new(vip(family), 80), client));
            lab.expect([
                entered(POD_A.port, Fate::Forwarded),
                left(POD_B.port, From::Forwarded),
                entered(POD_B.port, Fate::Forwarded),
                left(POD_A.port, From::Forwarded),
            ]);
            assert_eq!(lab.switch.balanced(), 1);
            let entry = lab.switch.connection_entries(lab.now).next().unwrap();
            let of = lab.switch.balancer().unwrap().registry().of(entry.mark.unwrap()).unwrap();
            assert!(["tcp", "udp"].contains(&&*of.name));
        }
        let mut lab = lab(web(family, &[pod_b(family)]));
        let init = sctp_init(&POD_A.via_router(vip(family)), 40_000, 80);
        assert_eq!(one(lab.send(POD_A.port, &init)).port, POD_B.port);
        lab.settle();
    }
}

#[test]
fn who_asks_from_the_node_or_from_outside_is_masqueraded_where_the_way_says_so() {
    for family in FAMILIES {
        let own = NODE.ip(family);
        let frontends = [(vip(family), 80), (own, 30_080)];
        let balanced = || vec![service("web", UDP, &frontends, &[pod_b(family)])];
        let back = |lab: &mut Lab, seen: SocketAddr| {
            one(lab.send(POD_B.port, &POD_B.via_router(seen.ip()).udp(8080, seen.port(), b"answer")))
        };
        // The node keeps its port, which is its own address's.
        let mut lab = lab(balanced());
        let out = one(lab.send(NODE.port, &NODE.via_router(vip(family)).udp(40_000, 80, b"x")));
        let (seen, to) = endpoints(&out.bytes);
        assert_eq!((seen, to), (SocketAddr::new(own, 40_000), pod_b(family).into()));
        let answer = back(&mut lab, seen);
        assert_eq!(answer.port, NODE.port);
        assert_eq!(endpoints(&answer.bytes), (SocketAddr::new(vip(family), 80), seen));
        // Outside, by the node's own address.
        let out = one(lab.send(FAR.port, &FAR.via_router(own).udp(40_000, 30_080, b"x")));
        let (seen, to) = endpoints(&out.bytes);
        assert_eq!((seen.ip(), to), (own, pod_b(family).into()));
        assert_ne!(seen.port(), 40_000, "the node has that one");
        let answer = back(&mut lab, seen);
        assert_eq!(answer.port, FAR.port);
        let client = SocketAddr::new(FAR.ip(family), 40_000);
        assert_eq!(endpoints(&answer.bytes), (SocketAddr::new(own, 30_080), client));
        lab.settle();

        let mut local = balanced();
        local[0].entrances[1].ways[Origin::Outside as usize].masquerade = false;
        let mut lab = acquainted(with_services(services(local)));
        let out = one(lab.send(FAR.port, &FAR.via_router(own).udp(40_000, 30_080, b"x")));
        assert_eq!(endpoints(&out.bytes).0, client, "its address is kept");
        assert_eq!(endpoints(&back(&mut lab, client).bytes), (SocketAddr::new(own, 30_080), client));
        lab.settle();
    }
}

#[test]
fn a_pod_reaches_itself_by_its_service() {
    for family in FAMILIES {
        for masquerade in [false, true] {
            for (ask, answer) in OPENERS {
                let mut of = web(family, &[pod_b(family)]);
                for service in &mut of {
                    service.entrances[0].ways[Origin::Inside as usize].masquerade = masquerade;
                }
                let mut lab = lab(of);
                let out = one(lab.send(POD_B.port, &ask(&POD_B.via_router(vip(family)), 40_000, 80)));
                assert_eq!(out.port, POD_B.port);
                let (seen, to) = endpoints(&out.bytes);
                assert_eq!(to, pod_b(family).into());
                assert_eq!(seen.ip(), if masquerade { NODE.ip(family) } else { vip(family) });
                let answer = answer(&POD_B.via_router(seen.ip()), 8080, seen.port());
                let back = one(lab.send(POD_B.port, &answer));
                assert_eq!(back.port, POD_B.port);
                let client = SocketAddr::new(POD_B.ip(family), 40_000);
                assert_eq!(endpoints(&back.bytes), (SocketAddr::new(vip(family), 80), client));
                lab.settle();
            }
        }
    }
}

#[test]
fn a_node_reaches_itself_by_a_service() {
    for family in FAMILIES {
        let own = NODE.ip(family);
        for (ask, answer) in OPENERS {
            let mut lab = lab(web(family, &[(own, 8080)]));
            let out = one(lab.send(NODE.port, &ask(&NODE.via_router(vip(family)), 40_000, 80)));
            assert_eq!(out.port, NODE.port);
            let (seen, to) = endpoints(&out.bytes);
            // Its own address would be a stranger's lie to it.
            assert_eq!((seen.ip(), to), (vip(family), SocketAddr::new(own, 8080)));
            let answer = answer(&NODE.via_router(seen.ip()), 8080, seen.port());
            let back = one(lab.send(NODE.port, &answer));
            let client = SocketAddr::new(own, 40_000);
            assert_eq!(endpoints(&back.bytes), (SocketAddr::new(vip(family), 80), client));
            assert_eq!(back.port, NODE.port);
            lab.settle();
        }
    }
}

/// What is told: that nobody listens, in the words of the packet's protocol.
fn told(lab: &mut Lab, host: &Host, family: Family, frame: &[u8]) {
    let out = one(lab.send(host.port, frame));
    assert_eq!(out.port, host.port);
    if frame[family.of(23, 20)] == TCP {
        let (asked, (flags, sequence, acknowledgement)) = (segment(frame), segment(&out.bytes));
        // RFC 9293 section 3.10.7.1; a client in SYN-SENT takes no reset that does not acknowledge its SYN.
        assert_eq!((flags, sequence, acknowledgement), (RST | ACK, 0, asked.1 + 1));
        let (from, to) = endpoints(frame);
        assert_eq!(endpoints(&out.bytes), (to, from), "from the service's address");
    } else {
        let message = packets::icmp(&out.bytes);
        assert_eq!((message.kind, message.code), family.of((3, 3), (1, 4)));
        assert_eq!(message.body[..20], frame[14..34]);
    }
}

fn questions(packet: &Packet, port: u16) -> Vec<Vec<u8>> {
    vec![packet.tcp_syn(40_000, port), packet.udp(40_000, port, b"x"), sctp_init(packet, 40_000, port)]
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    for family in FAMILIES {
        let (mut lab, mut events) = (lab(web(family, &[])), Vec::new());
        for frame in questions(&POD_A.via_router(vip(family)), 80) {
            told(&mut lab, &POD_A, family, &frame);
            events.extend(lab.events());
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
        let (reason, source) = (DropReason::ServiceNoBackend, POD_A.ip(family));
        let refused = Event::ServiceRefused { reason, source, destination: vip(family), port: 80 };
        assert_eq!(events, [refused], "once a minute");

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

#[test]
fn two_services_on_one_backend_with_one_client_port_both_work() {
    for family in FAMILIES {
        for (ask, answer) in OPENERS {
            let second = ip(family.of("10.96.0.11", "fd00:96::11"));
            let mut of = web(family, &[pod_b(family)]);
            for (protocol, name) in [(TCP, "tcp-2"), (UDP, "udp-2")] {
                of.push(service(name, protocol, &[(second, 80)], &[pod_b(family)]));
            }
            let mut lab = lab(of);
            let asked = [vip(family), second].map(|to| {
                let out = one(lab.send(POD_A.port, &ask(&POD_A.via_router(to), 40_000, 80)));
                (to, endpoints(&out.bytes).0)
            });
            assert_eq!(asked[0].1.port(), 40_000);
            assert_ne!(asked[1].1.port(), 40_000);
            for (to, seen) in asked {
                let back = answer(&POD_B.to(&POD_A, family), 8080, seen.port());
                let (from, client) = endpoints(&one(lab.send(POD_B.port, &back)).bytes);
                assert_eq!(from, SocketAddr::new(to, 80));
                assert_eq!(client, SocketAddr::new(POD_A.ip(family), 40_000));
            }
            lab.settle();
        }
    }
}

/// Backends of one pod, told apart by their ports.
fn numbered(family: Family, ports: impl IntoIterator<Item = u16>) -> Vec<(IpAddr, u16)> {
    ports.into_iter().map(|port| (POD_B.ip(family), port)).collect()
}

#[test]
fn a_thousand_connects_at_once_have_a_thousand_answers() {
    for family in FAMILIES {
        let mut lab = lab(web(family, &numbered(family, 8001..=8004)));
        for port in 0..1000 {
            lab.offer(POD_A.port, &POD_A.via_router(vip(family)).tcp_syn(20_000 + port, 80));
        }
        let out = lab.drain();
        assert_eq!(out.len(), 1000);
        let mut met: BTreeMap<u16, u32> = BTreeMap::new();
        for Out { bytes, .. } in out {
            let (client, backend) = endpoints(&bytes);
            *met.entry(backend.port()).or_default() += 1;
            let answer = POD_B.to(&POD_A, family).tcp_syn_ack(backend.port(), client.port(), 1001);
            lab.offer(POD_B.port, &answer);
        }
        let answers = lab.drain();
        assert_eq!(ports(&answers), [POD_A.port; 1000]);
        let vip = SocketAddr::new(vip(family), 80);
        assert!(answers.iter().all(|out| endpoints(&out.bytes).0 == vip));
        // Each of four gets a quarter, give or take six standard deviations.
        assert!(met.len() == 4 && met.values().all(|n| (168..=332).contains(n)), "{met:?}");
        assert_eq!(lab.switch.balanced(), 1000);
        lab.settle();
    }
}

/// Many services, each with one backend on the other segment that nobody knows yet.
fn unknown(family: Family, count: u16) -> (ServicesConfig, Vec<IpAddr>) {
    let target = |host: u16| {
        let [high, low] = (host + 256).to_be_bytes();
        match family {
            Family::V4 => ip(&format!("10.1.{high}.{low}")),
            Family::V6 => ip(&format!("fd00:1::5:{:x}", host + 256)),
        }
    };
    let targets: Vec<IpAddr> = (0..count).map(target).collect();
    let all = targets.iter().enumerate().map(|(at, target)| {
        let port = 1000 + u16::try_from(at).unwrap();
        service(&format!("service-{at}"), UDP, &[(vip(family), port)], &[(*target, 53)])
    });
    (services(all), targets)
}

/// The table says nothing of what is parked; who is chosen for the first datagram is chosen for the second.
#[test]
fn pairs_of_datagrams_for_an_unknown_backend_all_arrive_as_one_connection() {
    const BURSTS: usize = 100_000;
    const SERVICES: u16 = 2000;
    for family in FAMILIES {
        let (of, targets) = unknown(family, SERVICES);
        let mut done = 0;
        while done < BURSTS / 2 {
            let mut config = with_services(of.clone());
            config.segments[1].gateway.as_mut().unwrap().addresses[0] = net("10.1.0.1/16");
            let mut lab = Lab::new(config);
            for (port, target) in (1000..).zip(&targets) {
                pair(&mut lab, family, *target, port);
                done += 1;
            }
            assert_eq!(lab.switch.balanced(), u64::from(SERVICES));
            lab.settle();
        }
    }
}

fn pair(lab: &mut Lab, family: Family, target: IpAddr, port: u16) {
    let counts = |lab: &Lab| {
        let (v4, v6) = lab.switch.connections().unwrap();
        (v4.len() + v6.len(), lab.switch.balanced())
    };
    let (before, balanced) = counts(lab);
    let packet = POD_A.via_router(vip(family));
    let asked = lab.send(POD_A.port, &packet.udp(port, port, b"first"));
    assert!(lab.send(POD_A.port, &packet.udp(port, port, b"second")).is_empty());
    assert_eq!(counts(lab), (before, balanced), "nothing is begun that may never leave");
    let asker = packets::asker(&one(asked).bytes);
    let out = lab.send(FAR.port, &packets::tell(FAR.mac, target, UPLINK, asker));
    assert_eq!(ports(&out), [FAR.port; 2]);
    assert_eq!(endpoints(&out[0].bytes), endpoints(&out[1].bytes));
    assert_eq!(endpoints(&out[0].bytes).1, SocketAddr::new(target, 53));
    assert_eq!(counts(lab), (before + 1, balanced + 1));
}

/// The first datagram waits for a backend that is not known, and by the time that is, the second has begun the connection
/// with another one.
#[test]
fn who_has_waited_follows_the_connection_that_began_meanwhile() {
    for family in FAMILIES {
        let target = |host| ip(&family.of(format!("10.1.0.{host}"), format!("fd00:1::{host}")));
        for (known, len) in [(true, 1), (false, 0)] {
            let slow = (target(77), 53);
            let quick = if known { pod_b(family) } else { (target(78), 53) };
            let mut lab = lab([service("web", UDP, &[(vip(family), 80)], &[slow])]);
            let packet = POD_A.via_router(vip(family));
            let asked = one(lab.send(POD_A.port, &packet.udp(4000, 80, b"first")));
            change(&mut lab, |registry| {
                let mut next = service("web", UDP, &[(vip(family), 80)], &[quick]);
                next.serving = [slow, quick].into_iter().collect();
                registry.set(next).unwrap();
            });
            let second = lab.send(POD_A.port, &packet.udp(4000, 80, b"second"));
            assert_eq!(connections(&lab), len);
            let answered = |lab: &mut Lab, host: IpAddr, out: &Out| {
                lab.send(FAR.port, &packets::tell(FAR.mac, host, UPLINK, packets::asker(&out.bytes)))
            };
            let mut out = Vec::new();
            if !known {
                out.extend(answered(&mut lab, quick.0, &second[0]));
                assert_eq!(endpoints(&out[0].bytes).1, quick.into());
            }
            out.extend(answered(&mut lab, slow.0, &asked));
            assert_eq!(endpoints(&out.last().unwrap().bytes).1, quick.into(), "{family:?}");
            assert_eq!((connections(&lab), lab.switch.balanced(), lab.switch.parked()), (1, 1, 0));
            lab.settle();
        }
    }
}

#[test]
fn what_waits_in_vain_leaves_nothing_behind() {
    for family in FAMILIES {
        let nobody = ip(family.of("10.1.0.77", "fd00:1::77"));
        let mut sticky = service("web", UDP, &[(vip(family), 80)], &[(nobody, 53)]);
        sticky.affinity = Some(Duration::from_secs(3600));
        let mut lab = lab([sticky]);
        lab.send(POD_A.port, &POD_A.via_router(vip(family)).udp(1, 80, b"x"));
        assert_eq!(lab.switch.parked(), 1);
        lab.wait(Duration::from_secs(10));
        let remembered = lab.switch.balancer().unwrap().affinities(lab.now).count();
        assert_eq!((lab.switch.parked(), connections(&lab), remembered), (0, 0, 0));
        assert_eq!(lab.switch.balanced(), 0);
        lab.settle();
    }
}

#[test]
fn a_client_with_affinity_comes_back_and_a_reload_does_not_forget_it() {
    for family in FAMILIES {
        let sticky = |ports: std::ops::RangeInclusive<u16>| {
            let mut of = service("web", UDP, &[(vip(family), 80)], &numbered(family, ports));
            of.affinity = Some(Duration::from_secs(60));
            of
        };
        let mut lab = lab([sticky(8001..=8002)]);
        let met = |lab: &mut Lab, port| {
            let sent = POD_A.via_router(vip(family)).udp(port, 80, b"x");
            let trace = lab.explain(POD_A.port, &sent).to_string();
            (endpoints(&one(lab.send(POD_A.port, &sent)).bytes).1.port(), trace.contains("by affinity"))
        };
        let (first, known) = met(&mut lab, 1000);
        assert!(!known);
        assert_eq!(met(&mut lab, 1001), (first, true));
        // More backends would have changed the choice for some clients; never for this one.
        change(&mut lab, |registry| {
            registry.set(sticky(8001..=8050)).unwrap();
        });
        assert_eq!(met(&mut lab, 1002), (first, true));
        lab.wait(Duration::from_secs(61));
        assert!(!met(&mut lab, 1003).1);
        // Under another key they are filed elsewhere, and connections still know their service.
        let mut other = lab.switch.snapshot().services().unwrap().config().clone();
        other.key = [1; 16];
        let next = lab.switch.snapshot().with_services(Some(other)).unwrap();
        lab.switch.install(next);
        assert!(!met(&mut lab, 1004).1);
        let sent = POD_A.via_router(vip(family)).udp(1004, 80, b"x");
        assert!(lab.explain(POD_A.port, &sent).to_string().contains("of the connection"));
        lab.settle();
    }
}

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

/// Opens a TCP connection to the service and completes the handshake.
fn establish(lab: &mut Lab, family: Family, port: u16) -> u16 {
    let packet = POD_A.via_router(vip(family));
    let out = one(lab.send(POD_A.port, &packet.tcp_segment(port, 80, SYN, (1000, 0))));
    let backend = endpoints(&out.bytes).1.port();
    let back = POD_B.to(&POD_A, family).tcp_segment(backend, port, SYN | ACK, (9000, 1001));
    assert_eq!(lab.send(POD_B.port, &back).len(), 1);
    assert_eq!(lab.send(POD_A.port, &packet.tcp_segment(port, 80, ACK, (1001, 9001))).len(), 1);
    backend
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

#[test]
fn fragments_go_to_the_backend_of_the_first() {
    for family in FAMILIES {
        let mut lab = lab(web(family, &numbered(family, 8001..=8004)));
        let packet = Packet { dont_fragment: false, ..POD_A.via_router(vip(family)) };
        let mut pieces = packets::fragment(&packet.udp(5000, 80, &[7; 56]), 16);
        pieces.reverse();
        let out: Vec<Out> = pieces.iter().flat_map(|piece| lab.send(POD_A.port, piece)).collect();
        assert_eq!(ports(&out), [POD_B.port; 4]);
        let whole = packets::reassemble(out.iter().map(|out| &out.bytes[..]));
        assert!((8001..=8004).contains(&endpoints(&whole).1.port()));
        lab.settle();
    }
}

#[test]
fn a_trace_goes_where_the_packet_goes_and_says_why() {
    for family in FAMILIES {
        let mut random = service("random", TCP, &[(vip(family), 443)], &numbered(family, 8001..=8009));
        let pool = lb::Pool::new(
            random.entrances[0].ways[0].pool.backends().to_vec(),
            Policy::Random,
            None,
            [0; 16],
        );
        random.entrances[0].ways[0].pool = std::sync::Arc::new(pool.unwrap());
        let mut of = web(family, &numbered(family, 8001..=8009));
        of.push(random);
        of.push(service("empty", TCP, &[(vip(family), 8)], &[]));
        let mut lab = lab(of);
        for port in 0..50 {
            for to in [80, 443] {
                let sent = POD_A.via_router(vip(family)).tcp_syn(5000 + port, to);
                let trace = lab.explain(POD_A.port, &sent);
                let out = one(lab.send(POD_A.port, &sent));
                assert_eq!(trace.frame.as_deref(), Some(&out.bytes[..]));
                let text = trace.to_string();
                let by = if to == 80 { "tcp for Inside" } else { "random for Inside" };
                let how = if to == 80 { "slots (Maglev)" } else { "by Random" };
                assert!(text.contains(by) && text.contains(how) && text.contains("one of 9"), "{text}");
                assert!(text.contains(&endpoints(&out.bytes).1.to_string()), "{text}");
            }
        }
        let node = lab.explain(NODE.port, &NODE.via_router(vip(family)).udp(1, 80, b"x")).to_string();
        assert!(node.contains("udp for Node") && node.contains("masqueraded"), "{node}");
        let empty = lab.explain(POD_A.port, &POD_A.via_router(vip(family)).tcp_syn(1, 8)).to_string();
        assert!(empty.contains("empty: rejected") && empty.contains("service_no_backend"), "{empty}");
        let closed = lab.explain(POD_A.port, &POD_A.via_router(vip(family)).tcp_syn(1, 9)).to_string();
        assert!(closed.contains("service_port_closed") && closed.contains("TCP reset"), "{closed}");
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
        assert_eq!(lab.send(POD_A.port, &sent).len(), 1, "it is told");
        lab.settle();
    }
}

#[test]
fn what_is_wrong_with_services_is_said() {
    let all = |of: &ServicesConfig, config: Config| {
        let errors = Snapshot::compile(Config { services: Some(of.clone()), ..config }, None).unwrap_err();
        errors.to_string()
    };
    let of = services([]);
    let without = all(&of, crate::world::everybody());
    assert_eq!(
        without,
        "services: need connections: add `nat`, with its defaults if nothing else is translated"
    );
    let wrong = ServicesConfig {
        masquerade: Some("nod".into()),
        inside: vec![net("10.0.0.1/24")],
        ranges: vec![net("fd00:96::1/112"), net("0.0.0.0/0")],
        ..of
    };
    let said = all(&wrong, node(|_| {}));
    let expected = [
        "services: masquerade names the pool \"nod\", which is not in `nat` (there: node)",
        "services: inside: 10.0.0.1/24 has bits set behind its length; write 10.0.0.0/24",
        "services: ranges: fd00:96::1/112 has bits set behind its length; write fd00:96::/112",
        "services: ranges: 0.0.0.0/0 is every address there is; name those given to services",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    let good = Snapshot::compile(node(|_| {}), None).unwrap();
    assert_eq!(good.with_services(Some(wrong)).unwrap_err().to_string(), said);
    assert!(!format!("{:?}", services([])).contains("key"));
}

/// Not by the clock but by what is shared: nothing else is looked at, so nothing else can cost.
#[test]
fn other_services_share_everything_else() {
    let mut config = with_services(services([]));
    config.routes.extend((0..1000).map(|n: u32| {
        let [.., high, low] = n.to_be_bytes();
        let target = netstack::config::RouteTarget::Via(vec![via(1, FAR.v4)]);
        route(&format!("172.16.{high}.{low}/32"), target)
    }));
    let first = Snapshot::compile(config, None).unwrap();
    let of = services(web(Family::V4, &[pod_b(Family::V4)]));
    let second = first.with_services(Some(of)).unwrap();
    assert!(second.differs_in_services_alone(&first));
    assert_eq!(second.generation(), first.generation() + 1);
    assert!(std::ptr::eq(first.router(), second.router()));
    assert!(first.ports().zip(second.ports()).all(|(a, b)| std::ptr::eq(a, b)));
    assert_eq!(second.services().unwrap().registry().len(), 3);
    assert!(second.with_services(None).unwrap().services().is_none());
}

#[test]
fn as_many_clients_are_remembered_as_the_limit_says() {
    let family = Family::V4;
    let mut sticky = service("web", UDP, &[(vip(family), 80)], &numbered(family, 8001..=8004));
    sticky.affinity = Some(Duration::from_secs(3600));
    let limits = Limits { affinities: 16, ..Limits::default() };
    let mut lab = Lab::with_limits(with_services(services([sticky])), limits);
    for host in [GUEST, FAR] {
        crate::world::introduce(&mut lab, &host);
    }
    for host in 1..=200u8 {
        let client = ip(&format!("192.0.2.{host}"));
        assert_eq!(lab.send(FAR.port, &from_outside(client, vip(family)).udp(1, 80, b"x")).len(), 1);
    }
    let remembered = lab.switch.balancer().unwrap().affinities(lab.now).count();
    assert!((1..=16).contains(&remembered), "{remembered}");
    lab.settle();
}

/// A whole batch at once, as a driver hands it over.
#[test]
fn a_batch_of_new_connections_is_balanced_like_one_after_the_other() {
    for family in FAMILIES {
        let of = web(family, &numbered(family, 8001..=8004));
        let frames: Vec<Vec<u8>> =
            (0..32).map(|port| POD_A.via_router(vip(family)).udp(5000 + port, 80, b"x")).collect();
        let mut single = lab(of.clone());
        let expected: Vec<Vec<u8>> =
            frames.iter().map(|frame| one(single.send(POD_A.port, frame)).bytes).collect();
        single.settle();
        let mut switch = {
            let pool = FramePool::new();
            let seed = netstack::seed::Seed::from_u64(1);
            netstack::switch::Switch::new(Limits::default(), &seed, pool)
        };
        switch.install(Snapshot::compile(with_services(services(of)), None).unwrap());
        let mut batch = FrameBatch::new();
        for frame in &frames {
            batch.push(switch.pool().copy_of(frame)).unwrap();
        }
        switch.handle_frames(Duration::from_secs(1000), netstack::addr::PortId(POD_A.port), &mut batch);
        assert_eq!(switch.poll_transmit(&mut batch), Some(netstack::addr::PortId(POD_B.port)));
        let got: Vec<Vec<u8>> = batch.drain().map(|frame| frame.bytes().to_vec()).collect();
        assert_eq!(got, expected);
    }
}
