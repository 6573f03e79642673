//! ARP-1 to ARP-4, ARP-6, IP6-1 and IP6-2 as they show through the switch: who is answered, who is asked, what waits.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use etherparse::ArpOperation;
use netstack::addr::{MacAddr, SegmentId};
use netstack::config::Limits;
use netstack::event::Event;
use netstack::neighbor::NeighborState;
use netstack::verdict::{DropReason, Fate, Origin};

use crate::lab::{Counter, Lab, counted, dropped, entered, left, ports};
use crate::packets::{
    BROADCAST, Packet, announce, arp, as_routed, ask, asked_for, discovery, icmp, mac_to, router_message,
    solicited_node, tell, told,
};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, Host, OTHER, POD_A, POD_B, PODS, UPLINK, acquainted, everybody, introduce,
    ip, with,
};

const SECOND: Duration = Duration::from_secs(1);

fn router(family: Family) -> IpAddr {
    ip(family.of("10.0.0.1", "fd00::1"))
}

/// Where the router's own questions go to.
fn question_to(target: IpAddr) -> MacAddr {
    match target {
        IpAddr::V4(_) => BROADCAST,
        IpAddr::V6(v6) => MacAddr::for_multicast(solicited_node(v6).into()),
    }
}

fn consumed_and_answered(port: u16) -> [crate::lab::Change; 2] {
    [entered(port, Fate::Consumed), left(port, Origin::Originated)]
}

fn state_of(lab: &Lab, host: &Host, family: Family) -> Option<NeighborState> {
    lab.switch.neighbors().iter(lab.now).find(|e| e.ip == host.ip(family)).map(|e| e.state)
}

#[test]
fn arp_1_the_gateway_answers_everybody() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        for host in [POD_A, POD_B, GUEST] {
            let out = lab.send(host.port, &ask(host.mac, host.ip(family), router(family)));
            assert_eq!(told(&out[0].bytes), Some((router(family), PODS, host.mac)));
            lab.expect(consumed_and_answered(host.port));
        }
    }
    let link_local = IpAddr::V6(PODS.link_local());
    let out = lab.send(POD_A.port, &ask(POD_A.mac, POD_A.mac.link_local().into(), link_local));
    assert_eq!(told(&out[0].bytes), Some((link_local, PODS, POD_A.mac)));
    lab.expect(consumed_and_answered(POD_A.port));
}

#[test]
fn arp_1_the_switch_answers_for_managed_pods() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        for asker in [POD_B, GUEST] {
            let out = lab.send(asker.port, &ask(asker.mac, asker.ip(family), POD_A.ip(family)));
            assert_eq!(told(&out[0].bytes), Some((POD_A.ip(family), POD_A.mac, asker.mac)));
            // The pod itself, and everybody else, hears nothing of it.
            lab.expect(consumed_and_answered(asker.port));
        }
    }
    let link_local = IpAddr::V6(POD_A.mac.link_local());
    let out = lab.send(GUEST.port, &ask(GUEST.mac, GUEST.ip(Family::V6), link_local));
    assert_eq!(told(&out[0].bytes), Some((link_local, POD_A.mac, GUEST.mac)));
    lab.expect(consumed_and_answered(GUEST.port));
}

#[test]
fn arp_1_a_verification_by_unicast_is_answered_too() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        for (target, mac) in [(POD_A.ip(family), POD_A.mac), (router(family), PODS)] {
            let mut frame = ask(POD_B.mac, POD_B.ip(family), target);
            frame[..6].copy_from_slice(&mac.0);
            let out = lab.send(POD_B.port, &frame);
            assert_eq!(told(&out[0].bytes), Some((target, mac, POD_B.mac)));
            lab.expect(consumed_and_answered(POD_B.port));
        }
    }
}

#[test]
fn arp_1_other_packets_are_neither_answered_nor_learned_from() {
    let mut lab = Lab::new(everybody());
    let [a, b] = [GUEST.v4, POD_A.v4].map(|a| a.parse().unwrap());
    let request = arp(ArpOperation::REQUEST, (GUEST.mac, BROADCAST), (GUEST.mac, a), (MacAddr::ZERO, b));
    // Hardware type, protocol type and both lengths, in turn.
    for field in [15, 16, 18, 19] {
        let mut wrong = request.clone();
        wrong[field] ^= 1;
        let out = lab.send(GUEST.port, &wrong);
        // To the bridge it is a broadcast like any other.
        assert_eq!(ports(&out), [0, 1, 5]);
        lab.settle();
        lab.send(POD_A.port, &{
            wrong[6..12].copy_from_slice(&POD_A.mac.0);
            wrong
        });
        lab.expect([dropped(POD_A.port, DropReason::ArpMalformed)]);
    }
    assert!(lab.switch.neighbors().is_empty());
}

#[test]
fn arp_1_only_who_asks_us_is_put_on_record() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        lab.send(GUEST.port, &ask(GUEST.mac, GUEST.ip(family), POD_A.ip(family)));
        lab.send(GUEST.port, &ask(GUEST.mac, GUEST.ip(family), OTHER.ip(family)));
        lab.send(OTHER.port, &announce(OTHER.mac, OTHER.ip(family)));
        assert_eq!(state_of(&lab, &GUEST, family), None);
        lab.send(GUEST.port, &ask(GUEST.mac, GUEST.ip(family), router(family)));
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Stale));
        // Who is not on this link cannot be a neighbour.
        lab.send(OTHER.port, &ask(OTHER.mac, FAR.ip(family), router(family)));
        assert_eq!(lab.switch.neighbors().iter(lab.now).find(|e| e.ip == FAR.ip(family)), None);
    }
    // Managed stations are known from the configuration.
    lab.send(POD_A.port, &ask(POD_A.mac, POD_A.ip(Family::V4), router(Family::V4)));
    assert_eq!(lab.switch.neighbors().len(), 2);
    lab.settle();
}

#[test]
fn arp_2_senders_that_no_station_can_be_teach_nothing_and_get_no_answer() {
    let mut lab = Lab::new(everybody());
    for mac in [BROADCAST, MacAddr::ZERO, MacAddr([1, 0, 0x5e, 0, 0, 1])] {
        let [sender, target] = [GUEST.v4, "10.0.0.1"].map(|a| a.parse().unwrap());
        lab.send(
            GUEST.port,
            &arp(ArpOperation::REQUEST, (GUEST.mac, BROADCAST), (mac, sender), (mac, target)),
        );
        lab.expect([entered(GUEST.port, Fate::Consumed)]);
        let target: Ipv6Addr = "fd00::1".parse().unwrap();
        let group = IpAddr::V6(solicited_node(target));
        let packet = Packet::new(GUEST.mac, MacAddr::for_multicast(group), GUEST.ip(Family::V6), group);
        lab.send(GUEST.port, &discovery(packet, 135, [0; 4], target, Some((1, mac))));
        lab.expect([entered(GUEST.port, Fate::Consumed)]);
    }
    assert!(lab.switch.neighbors().is_empty());
}

#[test]
fn arp_2_a_probe_is_answered_and_not_learned_from() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        for (target, mac) in [(POD_A.ip(family), POD_A.mac), (router(family), PODS)] {
            let out = lab.send(GUEST.port, &ask(GUEST.mac, family.unspecified(), target));
            // The prober of neighbour discovery has no address yet: everybody hears the answer (RFC 4861, 7.2.4).
            let to = family.of(GUEST.mac, MacAddr([0x33, 0x33, 0, 0, 0, 1]));
            assert_eq!(told(&out[0].bytes), Some((target, mac, to)));
            lab.expect(consumed_and_answered(GUEST.port));
        }
    }
    assert!(lab.switch.neighbors().is_empty());
}

#[test]
fn ip6_1_duplicate_address_detection_finds_others_and_not_oneself() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        lab.send(POD_A.port, &ask(POD_A.mac, family.unspecified(), POD_A.ip(family)));
        lab.expect([entered(POD_A.port, Fate::Consumed)]);
        lab.send(POD_B.port, &ask(POD_B.mac, family.unspecified(), POD_A.ip(family)));
        lab.expect(consumed_and_answered(POD_B.port));
    }
    lab.send(POD_A.port, &ask(POD_A.mac, ip("::"), POD_A.mac.link_local().into()));
    lab.expect([entered(POD_A.port, Fate::Consumed)]);
}

#[test]
fn suppression_a_managed_pod_hears_no_questions() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        for (asker, heard) in [(POD_A, vec![GUEST.port, OTHER.port]), (GUEST, vec![OTHER.port])] {
            let frame = ask(asker.mac, asker.ip(family), ip(family.of("10.0.0.77", "fd00::77")));
            let out = lab.send(asker.port, &frame);
            assert!(out.iter().all(|o| o.bytes == frame));
            let copies = heard.iter().map(|&p| left(p, Origin::FloodCopy));
            lab.expect(copies.chain([entered(asker.port, Fate::Flooded)]));
        }
    }
}

#[test]
fn guards_mac_address_and_source_address() {
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        for to in [GUEST.mac, POD_B.mac, PODS, BROADCAST] {
            let mut packet = POD_A.to(&GUEST, family);
            packet.to = to;
            packet.from = GUEST.mac;
            lab.send(POD_A.port, &packet.udp(1, 2, b"x"));
            lab.expect([dropped(POD_A.port, DropReason::SpoofedMac)]);
            packet.from = POD_A.mac;
            for source in [GUEST.ip(family), POD_B.ip(family), router(family), family.unspecified()] {
                packet.source = source;
                lab.send(POD_A.port, &packet.udp(1, 2, b"x"));
                lab.expect([dropped(POD_A.port, DropReason::SpoofedAddress)]);
            }
        }
    }
    let mut packet = POD_A.to(&GUEST, Family::V6);
    packet.source = GUEST.mac.link_local().into();
    lab.send(POD_A.port, &packet.udp(1, 2, b"x"));
    lab.expect([dropped(POD_A.port, DropReason::SpoofedAddress)]);
    assert!(lab.switch.fdb().is_empty());
}

#[test]
fn guards_arp_and_neighbour_discovery() {
    let mut lab = Lab::new(everybody());
    let [a, b]: [std::net::Ipv4Addr; 2] = [POD_A.v4, POD_B.v4].map(|a| a.parse().unwrap());
    let frames = (POD_A.mac, BROADCAST);
    for operation in [ArpOperation::REQUEST, ArpOperation::REPLY] {
        for sender in [(POD_A.mac, b), (POD_B.mac, a), (POD_B.mac, b)] {
            lab.send(POD_A.port, &arp(operation, frames, sender, (MacAddr::ZERO, b)));
            lab.expect([dropped(POD_A.port, DropReason::SpoofedArp)]);
        }
    }
    let [own, other] = [POD_A.v6, POD_B.v6].map(|a| a.parse::<Ipv6Addr>().unwrap());
    let to_guest = Packet::new(POD_A.mac, GUEST.mac, own.into(), GUEST.ip(Family::V6));
    let all = IpAddr::V6("ff02::1".parse().unwrap());
    let to_all = Packet::new(POD_A.mac, MacAddr::for_multicast(all), own.into(), all);
    for (packet, kind, flags, target, option) in [
        // Another's address, another's MAC address, a router's flag.
        (to_guest, 136, 0x60, other, (2, POD_A.mac)),
        (to_guest, 136, 0x60, own, (2, POD_B.mac)),
        (to_guest, 136, 0xe0, own, (2, POD_A.mac)),
        (to_all, 136, 0x20, other, (2, POD_A.mac)),
        (to_guest, 135, 0, GUEST.ip(Family::V6).to_string().parse().unwrap(), (1, POD_B.mac)),
    ] {
        lab.send(POD_A.port, &discovery(packet, kind, [flags, 0, 0, 0], target, Some(option)));
        lab.expect([dropped(POD_A.port, DropReason::SpoofedNeighbor)]);
    }
    // Router advertisements and redirects are a router's.
    let mut packet = to_all;
    packet.source = POD_A.mac.link_local().into();
    for kind in [134, 137] {
        lab.send(POD_A.port, &router_message(packet, kind));
        lab.expect([dropped(POD_A.port, DropReason::SpoofedNeighbor)]);
    }
}

#[test]
fn guards_nobody_outside_claims_an_address_of_ours() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        for address in [POD_A.ip(family), router(family)] {
            // The first claim is met by an announcement.
            assert_eq!(ports(&lab.send(GUEST.port, &announce(GUEST.mac, address))), [GUEST.port, OTHER.port]);
            lab.settle();
            for frame in [
                announce(GUEST.mac, address),
                ask(GUEST.mac, address, OTHER.ip(family)),
                tell(GUEST.mac, address, POD_B.mac, POD_B.ip(family)),
                tell(GUEST.mac, address, OTHER.mac, OTHER.ip(family)),
            ] {
                lab.send(GUEST.port, &frame);
                lab.expect([dropped(GUEST.port, DropReason::ManagedAddressClaimed)]);
            }
        }
        // Its own it may.
        lab.send(GUEST.port, &tell(GUEST.mac, GUEST.ip(family), POD_B.mac, POD_B.ip(family)));
        lab.expect([entered(GUEST.port, Fate::Forwarded), left(POD_B.port, Origin::Forwarded)]);
    }
}

#[test]
fn ip6_1_invalid_discovery_is_dropped_where_there_is_a_router() {
    let mut lab = Lab::new(everybody());
    let target: Ipv6Addr = "fd00::1".parse().unwrap();
    let group = IpAddr::V6(solicited_node(target));
    for host in [GUEST, POD_A] {
        let packet = Packet::new(host.mac, MacAddr::for_multicast(group), host.ip(Family::V6), group);
        let valid = discovery(packet, 135, [0; 4], target, Some((1, host.mac)));
        assert_eq!(lab.send(host.port, &valid).len(), 1);
        lab.expect(consumed_and_answered(host.port));
        let mut hop_limit = valid.clone();
        hop_limit[21] = 254;
        let mut checksum = valid.clone();
        checksum[57] ^= 1;
        let mut option = valid.clone();
        option[79] = 0;
        let multicast = discovery(packet, 135, [0; 4], "ff02::1".parse().unwrap(), Some((1, host.mac)));
        let mut probe = packet;
        probe.source = ip("::");
        let probe_with_mac = discovery(probe, 135, [0; 4], target, Some((1, host.mac)));
        let solicited_to_all = discovery(
            Packet::new(host.mac, MacAddr([0x33, 0x33, 0, 0, 0, 1]), host.ip(Family::V6), ip("ff02::1")),
            136,
            [0x60, 0, 0, 0],
            host.v6.parse().unwrap(),
            Some((2, host.mac)),
        );
        for frame in [hop_limit, checksum, option, multicast, probe_with_mac, solicited_to_all] {
            lab.send(host.port, &frame);
            lab.expect([dropped(host.port, DropReason::NeighborDiscoveryInvalid)]);
        }
    }
}

#[test]
fn arp_3_frames_wait_and_leave_in_order_when_the_neighbour_answers() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        let frames: Vec<Vec<u8>> =
            (0..5).map(|n| POD_A.via_router(FAR.ip(family)).udp(1000 + n, 2, b"waits")).collect();
        let out: Vec<_> = frames.iter().flat_map(|f| lab.send(POD_A.port, f)).collect();
        // One question, whoever waits.
        assert_eq!(out.len(), 1);
        assert_eq!(
            (out[0].port, asked_for(&out[0].bytes, FAR.ip(family))),
            (FAR.port, Some(question_to(FAR.ip(family))))
        );
        assert_eq!(lab.switch.parked(), 5);
        lab.expect([entered(POD_A.port, Fate::Parked) * 5, left(FAR.port, Origin::Originated)]);
        let asker = ip(family.of("10.1.0.1", "fd00:1::1"));
        let out = lab.send(FAR.port, &tell(FAR.mac, FAR.ip(family), UPLINK, asker));
        let expected: Vec<Vec<u8>> = frames.iter().map(|f| as_routed(f, UPLINK, FAR.mac)).collect();
        assert_eq!(out.iter().map(|o| o.bytes.clone()).collect::<Vec<_>>(), expected);
        lab.expect([entered(FAR.port, Fate::Consumed), left(FAR.port, Origin::Unparked) * 5]);
        assert_eq!((lab.switch.parked(), state_of(&lab, &FAR, family)), (0, Some(NeighborState::Reachable)));
        lab.send(POD_A.port, &frames[0]);
        lab.expect([entered(POD_A.port, Fate::Forwarded), left(FAR.port, Origin::Forwarded)]);
    }
}

#[test]
fn arp_3_a_silent_neighbour_is_asked_three_times_and_its_senders_are_told() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        let sent = POD_A.via_router(FAR.ip(family)).udp(1, 2, b"lost");
        let started = lab.now;
        lab.send(POD_A.port, &sent);
        lab.expect([entered(POD_A.port, Fate::Parked), left(FAR.port, Origin::Originated)]);
        for _ in 0..2 {
            assert!(lab.wait(SECOND - Duration::from_millis(1)).is_empty(), "once a second at most");
            let out = lab.wait(Duration::from_millis(1));
            assert_eq!(asked_for(&out[0].bytes, FAR.ip(family)), Some(question_to(FAR.ip(family))));
            lab.expect([left(FAR.port, Origin::Originated)]);
        }
        lab.switch.poll_event();
        lab.now = started + 3 * SECOND;
        lab.switch.handle_timeout(lab.now);
        let failed = Event::NeighborFailed { segment: SegmentId(1), address: FAR.ip(family) };
        assert_eq!(lab.events(), [failed]);
        let out = lab.drain();
        let error = icmp(&out[0].bytes);
        assert_eq!((out[0].port, mac_to(&out[0].bytes)), (POD_A.port, POD_A.mac));
        assert_eq!((error.kind, error.code), family.of((3, 1), (1, 3)));
        assert_eq!((error.source, error.destination), (router(family), POD_A.ip(family)));
        assert_eq!(error.body, sent[14..]);
        lab.expect([
            counted(Counter::ParkedDrop(POD_A.port, DropReason::NeighborFailed)),
            left(POD_A.port, Origin::Originated),
        ]);
        // For a moment it is known to be dead, then it is asked again.
        lab.send(POD_A.port, &sent);
        lab.expect([dropped(POD_A.port, DropReason::NeighborFailed), left(POD_A.port, Origin::Originated)]);
        lab.wait(SECOND);
        lab.send(POD_A.port, &sent);
        lab.expect([entered(POD_A.port, Fate::Parked), left(FAR.port, Origin::Originated)]);
    }
}

#[test]
fn arp_3_what_waits_is_bounded() {
    let limits = Limits { parked_per_neighbor: 2, parked: 3, ..Limits::default() };
    for family in FAMILIES {
        let mut lab = Lab::with_limits(everybody(), limits);
        let to = |last: u8, n: u16| {
            let destination = ip(&family.of(format!("10.1.0.{last}"), format!("fd00:1::{last}")));
            POD_A.via_router(destination).udp(n, 2, b"waits")
        };
        for n in 0..4 {
            lab.send(POD_A.port, &to(50, n));
        }
        // The latest two are kept.
        lab.expect([
            entered(POD_A.port, Fate::Parked) * 4,
            counted(Counter::ParkedDrop(POD_A.port, DropReason::NeighborQueueFull)) * 2,
            left(FAR.port, Origin::Originated),
        ]);
        for n in 0..2 {
            lab.send(POD_B.port, &{
                let mut frame = to(51, n);
                let packet =
                    POD_B.via_router(ip(&family.of("10.1.0.51".to_owned(), "fd00:1::51".to_owned())));
                frame.clone_from(&packet.udp(n, 2, b"waits"));
                frame
            });
        }
        lab.expect([
            entered(POD_B.port, Fate::Parked),
            dropped(POD_B.port, DropReason::NeighborQueueFull),
            left(FAR.port, Origin::Originated),
        ]);
        let fifty = ip(family.of("10.1.0.50", "fd00:1::50"));
        let asker = ip(family.of("10.1.0.1", "fd00:1::1"));
        let out = lab.send(FAR.port, &tell(FAR.mac, fifty, UPLINK, asker));
        let ports: Vec<u16> = out
            .iter()
            .map(|o| u16::from_be_bytes(o.bytes[family.of(34, 54)..][..2].try_into().unwrap()))
            .collect();
        assert_eq!(ports, [2, 3]);
        lab.expect([entered(FAR.port, Fate::Consumed), left(FAR.port, Origin::Unparked) * 2]);
    }
}

#[test]
fn arp_3_the_table_of_neighbours_is_bounded() {
    let limits = Limits { neighbors: 4, ..Limits::default() };
    for family in FAMILIES {
        let mut lab = Lab::with_limits(everybody(), limits);
        let to =
            |last: u16| ip(&family.of(format!("10.1.{}.{}", 0, last % 250 + 2), format!("fd00:1::{last:x}")));
        for last in 2..6 {
            lab.send(POD_A.port, &POD_A.via_router(to(last)).udp(1, 2, b"waits"));
        }
        lab.settle();
        lab.offer(POD_A.port, &POD_A.via_router(to(9)).udp(1, 2, b"waits"));
        assert_eq!(lab.events(), [Event::NeighborTableFull { segment: SegmentId(1) }]);
        lab.expect([dropped(POD_A.port, DropReason::NeighborTableFull)]);
        // Made-up askers do not push out what is being resolved.
        for n in 0..1000u16 {
            let address = ip(&family.of(format!("10.1.0.{}", n % 250 + 2), format!("fd00:1::{n:x}")));
            lab.send(FAR.port, &ask(FAR.mac, address, ip(family.of("10.1.0.1", "fd00:1::1"))));
        }
        assert_eq!(lab.switch.neighbors().len(), 4);
        lab.settle();
    }
}

#[test]
fn arp_3_an_unlearned_answerer_is_reached_wherever_it_is() {
    // With no room in the MAC table, what waited goes to every foreign port, as any frame to an unknown station does.
    let limits = Limits { fdb_entries: 0, ..Limits::default() };
    for family in FAMILIES {
        let mut lab = Lab::with_limits(everybody(), limits);
        let sent = FAR.via_router(OTHER.ip(family)).udp(1, 2, b"waits");
        lab.send(FAR.port, &sent);
        lab.settle();
        let out = lab.send(OTHER.port, &tell(OTHER.mac, OTHER.ip(family), PODS, router(family)));
        assert_eq!(ports(&out), [GUEST.port, OTHER.port]);
        assert!(out.iter().all(|o| o.bytes == as_routed(&sent, PODS, OTHER.mac)));
        lab.settle();
        // So does what comes later.
        assert_eq!(ports(&lab.send(FAR.port, &sent)), [GUEST.port, OTHER.port]);
        lab.expect([
            entered(FAR.port, Fate::Flooded),
            left(GUEST.port, Origin::FloodCopy),
            left(OTHER.port, Origin::FloodCopy),
        ]);
    }
}

#[test]
fn arp_4_a_stale_neighbour_in_use_is_verified_where_it_is() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        for host in [GUEST, OTHER] {
            introduce(&mut lab, &host);
        }
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Stale));
        lab.send(FAR.port, &FAR.via_router(GUEST.ip(family)).udp(1, 2, b"x"));
        lab.expect([entered(FAR.port, Fate::Forwarded), left(GUEST.port, Origin::Forwarded)]);
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Delay));
        // After five seconds without a hint it is asked by unicast, on its own port alone.
        assert!(lab.wait(5 * SECOND - Duration::from_millis(1)).is_empty());
        let out = lab.wait(Duration::from_millis(1));
        assert_eq!(asked_for(&out[0].bytes, GUEST.ip(family)), Some(GUEST.mac));
        lab.expect([left(GUEST.port, Origin::Originated)]);
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Probe));
        // While it is asked, frames still go there.
        lab.send(FAR.port, &FAR.via_router(GUEST.ip(family)).udp(1, 2, b"x"));
        lab.expect([entered(FAR.port, Fate::Forwarded), left(GUEST.port, Origin::Forwarded)]);
        lab.send(GUEST.port, &tell(GUEST.mac, GUEST.ip(family), PODS, router(family)));
        lab.expect([entered(GUEST.port, Fate::Consumed)]);
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Reachable));
        assert!(lab.wait(60 * SECOND).is_empty());
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Stale));
    }
}

#[test]
fn arp_4_a_neighbour_that_left_fails_after_three_more_questions() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        introduce(&mut lab, &GUEST);
        lab.send(FAR.port, &FAR.via_router(GUEST.ip(family)).udp(1, 2, b"x"));
        lab.settle();
        let out = lab.wait(10 * SECOND);
        assert_eq!(out.len(), 3);
        lab.expect([left(GUEST.port, Origin::Originated) * 3]);
        assert_eq!(state_of(&lab, &GUEST, family), Some(NeighborState::Failed));
    }
}

#[test]
fn arp_6_an_announcement_changes_what_is_on_record_and_adds_nothing() {
    let moved = MacAddr([2, 0, 0, 0, 9, 9]);
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        lab.send(GUEST.port, &announce(GUEST.mac, GUEST.ip(family)));
        let copies = [POD_A.port, POD_B.port, OTHER.port].map(|p| left(p, Origin::FloodCopy));
        lab.expect(copies.into_iter().chain([entered(GUEST.port, Fate::Flooded)]));
        assert!(lab.switch.neighbors().is_empty());
        introduce(&mut lab, &GUEST);
        lab.wait(SECOND);
        lab.offer(OTHER.port, &announce(moved, GUEST.ip(family)));
        let changed = Event::NeighborChanged { segment: SegmentId(0), address: GUEST.ip(family), mac: moved };
        assert_eq!(lab.events(), [changed]);
        lab.drain();
        lab.settle();
        let out = lab.send(FAR.port, &FAR.via_router(GUEST.ip(family)).udp(1, 2, b"x"));
        assert_eq!((out[0].port, mac_to(&out[0].bytes)), (OTHER.port, moved));
        lab.settle();
    }
}

#[test]
fn ip6_2_questions_name_their_asker() {
    let mut lab = Lab::new(with(|_| {}));
    for family in FAMILIES {
        let out = lab.send(POD_A.port, &POD_A.via_router(FAR.ip(family)).udp(1, 2, b"x"));
        let question = &out[0].bytes;
        match family {
            Family::V4 => {
                assert_eq!(question[22..28], UPLINK.0);
                assert_eq!(question[28..32], [10, 1, 0, 1]);
            }
            Family::V6 => {
                assert_eq!(question[21], 255);
                assert_eq!(question[78..86], [&[1, 1][..], &UPLINK.0].concat());
            }
        }
    }
    lab.settle();
}
