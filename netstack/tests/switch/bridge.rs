//! BR-1 to BR-6 and BR-8 to BR-10: learning, flooding, VLANs and lengths.

use std::time::Duration;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{Config, Limits};
use netstack::event::Event;
use netstack::verdict::{DropReason, Fate, Origin};

use crate::lab::{Change, Lab, dropped, entered, left, ports};
use crate::packets::{BROADCAST, ask, ethernet, mac_from, tagged};
use crate::world::{
    FAMILIES, FAR, GUEST, OTHER, POD_A, POD_B, PODS, acquainted, bridge, everybody, port, segment, trunk,
    with,
};

const A: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xb]);
const C: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xc]);
/// An EtherType for local experiments (IEEE 802).
const EXPERIMENT: u16 = 0x88b5;

fn frame(from: MacAddr, to: MacAddr) -> Vec<u8> {
    ethernet(from, to, EXPERIMENT, 46)
}

fn flooded(from: u16, to: &[u16]) -> Vec<Change> {
    let copies = to.iter().map(|&p| left(p, Origin::FloodCopy));
    std::iter::once(entered(from, Fate::Flooded)).chain(copies).collect()
}

fn forwarded(from: u16, to: u16) -> Vec<Change> {
    vec![entered(from, Fate::Forwarded), left(to, Origin::Forwarded)]
}

#[test]
fn br_1_a_source_is_learned_and_found() {
    let mut lab = Lab::new(bridge(3));
    let sent = frame(A, B);
    let out = lab.send(0, &sent);
    assert!(out.iter().all(|o| o.bytes == sent));
    lab.expect(flooded(0, &[1, 2]));
    let answer = frame(B, A);
    let out = lab.send(1, &answer);
    assert_eq!((out[0].port, &out[0].bytes), (0, &answer));
    lab.expect(forwarded(1, 0));
    lab.send(0, &sent);
    lab.expect(forwarded(0, 1));
}

#[test]
fn br_1_segments_learn_apart() {
    let config = Config {
        ports: vec![port(0, 0), port(1, 0), port(2, 1), port(3, 1), port(4, 1)],
        segments: vec![segment(0, 1500), segment(1, 1500)],
        ..Config::default()
    };
    let mut lab = Lab::new(config);
    lab.send(0, &frame(A, BROADCAST));
    lab.expect(flooded(0, &[1]));
    // The other segment does not know the address, and has the same one elsewhere.
    lab.send(2, &frame(B, A));
    lab.expect(flooded(2, &[3, 4]));
    lab.send(3, &frame(A, B));
    lab.expect(forwarded(3, 2));
    lab.send(1, &frame(C, A));
    lab.expect(forwarded(1, 0));
}

#[test]
fn br_1_group_and_zero_sources_are_dropped_and_not_learned() {
    let mut lab = Lab::new(bridge(3));
    for source in [MacAddr::ZERO, BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1])] {
        lab.send(0, &frame(source, B));
        lab.expect([dropped(0, DropReason::SourceMacInvalid)]);
    }
    assert!(lab.switch.fdb().is_empty());
}

#[test]
fn br_2_addresses_age_unless_they_speak() {
    let mut lab = Lab::new(bridge(3));
    lab.send(0, &frame(A, BROADCAST));
    lab.send(1, &frame(B, BROADCAST));
    lab.settle();
    // B speaks to A all the time; A is silent, and being spoken to does not keep it.
    for _ in 0..29 {
        lab.wait(Duration::from_secs(10));
        lab.send(1, &frame(B, A));
        lab.expect(forwarded(1, 0));
    }
    lab.wait(Duration::from_millis(10_001));
    lab.send(1, &frame(B, A));
    lab.expect(flooded(1, &[0, 2]));
    lab.send(0, &frame(C, B));
    lab.expect(forwarded(0, 1));
    lab.wait(Duration::from_secs(400));
    lab.send(2, &frame(C, B));
    lab.expect(flooded(2, &[0, 1]));
}

#[test]
fn br_3_a_station_moves_with_its_next_frame() {
    let mut lab = Lab::new(bridge(3));
    lab.send(0, &frame(A, BROADCAST));
    lab.settle();
    lab.offer(1, &frame(A, BROADCAST));
    let moved = Event::MacMoved { segment: SegmentId(0), mac: A, from: PortId(0), to: PortId(1) };
    assert_eq!(lab.events(), [moved]);
    lab.drain();
    lab.expect(flooded(1, &[0, 2]));
    lab.send(2, &frame(B, A));
    lab.expect(forwarded(2, 1));
}

#[test]
fn br_3_managed_stations_and_the_router_are_not_moved_by_a_foreign_port() {
    let mut lab = acquainted(everybody());
    for (mac, destination) in [(POD_A.mac, POD_B.mac), (PODS, POD_B.mac)] {
        lab.offer(GUEST.port, &frame(mac, destination));
        assert_eq!(lab.events(), []);
        lab.drain();
        lab.expect(forwarded(GUEST.port, POD_B.port));
        assert!(lab.switch.fdb().iter(lab.now).all(|e| e.mac != mac), "{mac} is not learned");
    }
    lab.send(OTHER.port, &frame(OTHER.mac, POD_A.mac));
    lab.expect(forwarded(OTHER.port, POD_A.port));
}

#[test]
fn br_4_groups_go_to_all_others_once_and_unknown_stations_to_foreign_ports() {
    let mut lab = Lab::new(everybody());
    let group = MacAddr([0x01, 0x00, 0x5e, 1, 2, 3]);
    for to in [BROADCAST, group, MacAddr([0x33, 0x33, 0, 0, 0, 1])] {
        lab.send(POD_A.port, &frame(POD_A.mac, to));
        lab.expect(flooded(POD_A.port, &[POD_B.port, GUEST.port, OTHER.port]));
        lab.send(GUEST.port, &frame(GUEST.mac, to));
        lab.expect(flooded(GUEST.port, &[POD_A.port, POD_B.port, OTHER.port]));
    }
    // Managed ports have exactly one station each, which is known: nothing unknown can be there.
    lab.send(POD_A.port, &frame(POD_A.mac, C));
    lab.expect(flooded(POD_A.port, &[GUEST.port, OTHER.port]));
    lab.send(GUEST.port, &frame(GUEST.mac, C));
    lab.expect(flooded(GUEST.port, &[OTHER.port]));
}

#[test]
fn br_4_a_flood_never_returns_to_its_port() {
    let mut lab = Lab::new(bridge(1));
    lab.send(0, &frame(A, BROADCAST));
    lab.expect([dropped(0, DropReason::NoOtherPort)]);
    lab.send(0, &frame(A, B));
    lab.expect([dropped(0, DropReason::NoOtherPort)]);
}

#[test]
fn br_4_groups_of_routers_do_not_reach_managed_stations() {
    let mut lab = Lab::new(everybody());
    for to in [[0x33, 0x33, 0, 0, 0, 0x02], [0x33, 0x33, 0, 0, 0, 0x16], [1, 0, 0x5e, 0, 0, 0x16]] {
        lab.send(POD_A.port, &frame(POD_A.mac, MacAddr(to)));
        lab.expect(flooded(POD_A.port, &[GUEST.port, OTHER.port]));
    }
}

#[test]
fn br_5_what_is_on_the_port_it_came_from_is_filtered() {
    let mut lab = Lab::new(bridge(2));
    lab.send(0, &frame(A, BROADCAST));
    lab.settle();
    lab.send(0, &frame(B, A));
    lab.expect([dropped(0, DropReason::SameIngress)]);
    let mut lab = Lab::new(everybody());
    lab.send(POD_A.port, &frame(POD_A.mac, POD_A.mac));
    lab.expect([dropped(POD_A.port, DropReason::SameIngress)]);
}

fn numbered(n: u32) -> MacAddr {
    MacAddr::local(0x10_0000 + u64::from(n))
}

#[test]
fn br_6_a_full_table_floods_and_keeps_what_it_knows() {
    let limits = Limits { fdb_entries: 8, fdb_entries_per_port: 6, ..Limits::default() };
    let mut lab = Lab::with_limits(bridge(3), limits);
    lab.send(1, &frame(B, BROADCAST));
    for n in 0..10_000 {
        lab.send(0, &frame(numbered(n), BROADCAST));
    }
    lab.settle();
    assert_eq!(lab.switch.fdb().port_len(PortId(0)), 6, "the port's share");
    // Others still learn, and known ones are still found.
    lab.send(2, &frame(C, B));
    lab.expect(forwarded(2, 1));
    lab.send(1, &frame(B, C));
    lab.expect(forwarded(1, 2));
    lab.send(1, &frame(B, numbered(0)));
    lab.expect(forwarded(1, 0));
    // What was not learned is flooded, and so reaches its station.
    lab.send(1, &frame(B, numbered(9_999)));
    lab.expect(flooded(1, &[0, 2]));
    assert_eq!(lab.switch.fdb().len(), 8);
    lab.offer(2, &frame(A, B));
    assert_eq!(lab.events(), [Event::FdbFull { port: PortId(2) }]);
    lab.drain();
    lab.expect(forwarded(2, 1));
}

/// Port 0 is an access port of segment 0; port 1 a trunk with segment 0 native and 1 tagged 10; port 2 a trunk with both
/// tagged; port 3 an access port of segment 1.
fn vlans() -> Config {
    Config {
        ports: vec![
            port(0, 0),
            trunk(1, Some(0), &[(10, 1)]),
            trunk(2, None, &[(20, 0), (10, 1)]),
            port(3, 1),
        ],
        segments: vec![segment(0, 1500), segment(1, 1500)],
        ..Config::default()
    }
}

#[test]
fn br_8_an_access_port_takes_untagged_and_priority_tagged_frames() {
    let mut lab = Lab::new(vlans());
    let plain = frame(A, BROADCAST);
    let out = lab.send(0, &plain);
    assert_eq!(out[0].bytes, plain, "native");
    assert_eq!(out[1].bytes, tagged(&plain, 20));
    lab.expect(flooded(0, &[1, 2]));
    // A priority tag is taken off; its priority lives on where there is a tag.
    let out = lab.send(0, &tagged(&plain, 0xb000));
    assert_eq!(out[0].bytes, plain);
    assert_eq!(out[1].bytes, tagged(&plain, 0xb000 | 20));
    lab.expect(flooded(0, &[1, 2]));
    for vlan in [10, 20, 4094] {
        lab.send(0, &tagged(&plain, vlan));
        lab.expect([dropped(0, DropReason::VlanNotAllowed)]);
    }
}

#[test]
fn br_8_a_trunk_takes_its_own_vlans_only() {
    let mut lab = Lab::new(vlans());
    let plain = frame(A, BROADCAST);
    for (port, tci, reason) in [
        (1, 20, DropReason::VlanNotAllowed),
        (1, 11, DropReason::VlanNotAllowed),
        (1, 4095, DropReason::VlanReserved),
        (2, 0, DropReason::VlanNotAllowed),
        (2, 0xe000, DropReason::VlanNotAllowed),
        (0, 0xffff, DropReason::VlanReserved),
    ] {
        lab.send(port, &tagged(&plain, tci));
        lab.expect([dropped(port, reason)]);
    }
    lab.send(2, &plain);
    lab.expect([dropped(2, DropReason::VlanNotAllowed)]);
    assert!(lab.switch.fdb().is_empty(), "what is not let in teaches nothing");
    for len in 14..18 {
        lab.send(2, &tagged(&plain, 20)[..len]);
        lab.expect([dropped(2, DropReason::VlanTruncated)]);
    }
}

#[test]
fn br_8_tags_are_popped_and_pushed_with_their_priority() {
    let mut lab = Lab::new(vlans());
    let plain = frame(A, BROADCAST);
    for priority in [0, 0x1000, 0x6000, 0xf000] {
        let out = lab.send(1, &tagged(&plain, priority | 10));
        assert_eq!(ports(&out), [2, 3]);
        assert_eq!(out.iter().find(|o| o.port == 2).unwrap().bytes, tagged(&plain, priority | 10));
        assert_eq!(out.iter().find(|o| o.port == 3).unwrap().bytes, plain);
        lab.expect(flooded(1, &[2, 3]));
        // From VLAN 20 of one trunk to native of the other.
        let out = lab.send(2, &tagged(&plain, priority | 20));
        assert_eq!(out.iter().find(|o| o.port == 1).unwrap().bytes, plain);
        lab.expect(flooded(2, &[0, 1]));
    }
}

#[test]
fn br_8_a_tag_inside_a_priority_tag_does_not_hop_into_another_vlan() {
    let mut lab = Lab::new(vlans());
    let hop = tagged(&tagged(&frame(A, BROADCAST), 10), 0);
    for port in [0, 1] {
        lab.send(port, &hop);
        lab.expect([dropped(port, DropReason::VlanNotAllowed)]);
    }
}

#[test]
fn br_9_segments_are_apart() {
    let mut lab = Lab::new(with(|c| {
        c.segments.iter_mut().for_each(|s| s.gateway = None);
        c.routes.clear();
    }));
    lab.send(GUEST.port, &frame(GUEST.mac, FAR.mac));
    lab.expect(flooded(GUEST.port, &[OTHER.port]));
    lab.send(FAR.port, &frame(FAR.mac, BROADCAST));
    lab.expect([dropped(FAR.port, DropReason::NoOtherPort)]);
}

#[test]
fn br_9_a_segment_without_bridging_isolates_its_ports() {
    let mut lab = acquainted(with(|c| c.segments[0].bridge = false));
    for to in [POD_B.mac, OTHER.mac, C, BROADCAST] {
        let reason = if to == BROADCAST { DropReason::MulticastNotRouted } else { DropReason::NotForUs };
        for from in [POD_A, GUEST] {
            lab.send(from.port, &frame(from.mac, to));
            lab.expect([dropped(from.port, reason)]);
        }
    }
    for family in FAMILIES {
        // Neither questions nor announcements leak.
        lab.send(POD_A.port, &ask(POD_A.mac, POD_A.ip(family), OTHER.ip(family)));
        lab.expect([dropped(POD_A.port, DropReason::MulticastNotRouted)]);
        lab.send(GUEST.port, &crate::packets::announce(GUEST.mac, GUEST.ip(family)));
        lab.expect([dropped(GUEST.port, DropReason::MulticastNotRouted)]);
        // The router is there for everybody.
        let out = lab.send(POD_A.port, &POD_A.via_router(OTHER.ip(family)).udp(1, 2, b"x"));
        assert_eq!((out[0].port, mac_from(&out[0].bytes)), (OTHER.port, PODS));
        lab.expect(forwarded(POD_A.port, OTHER.port));
    }
}

#[test]
fn br_10_short_frames_are_dropped() {
    let mut lab = Lab::new(bridge(2));
    let whole = frame(A, B);
    for len in 0..14 {
        lab.send(0, &whole[..len]);
        lab.expect([dropped(0, DropReason::FrameTooShort)]);
    }
    lab.send(0, &whole[..14]);
    lab.expect(flooded(0, &[1]));
}

#[test]
fn br_10_frames_beyond_the_mtu_are_dropped() {
    let mut lab = Lab::new(vlans());
    let longest = ethernet(A, BROADCAST, EXPERIMENT, 1500);
    lab.send(0, &longest);
    lab.expect(flooded(0, &[1, 2]));
    lab.send(2, &tagged(&longest, 20));
    lab.expect(flooded(2, &[0, 1]));
    let longer = ethernet(A, BROADCAST, EXPERIMENT, 1501);
    lab.send(0, &longer);
    lab.expect([dropped(0, DropReason::FrameTooLong)]);
    lab.send(2, &tagged(&longer, 20));
    lab.expect([dropped(2, DropReason::FrameTooLong)]);
}

#[test]
fn br_10_what_pads_a_packet_counts_towards_the_frame() {
    for family in FAMILIES {
        for (from, to) in [(POD_A, POD_B), (POD_A, GUEST), (GUEST, POD_A), (GUEST, OTHER)] {
            let mut lab = acquainted(everybody());
            let mut sent = from.to(&to, family).udp(1, 2, b"short");
            sent.resize(14 + 1500, 0);
            assert_eq!(lab.send(from.port, &sent)[0].bytes, sent);
            lab.expect(forwarded(from.port, to.port));
            sent.push(0);
            lab.send(from.port, &sent);
            lab.expect([dropped(from.port, DropReason::FrameTooLong)]);
        }
    }
}

#[test]
fn br_10_llc_and_unknown_protocols_pass_as_they_are() {
    let mut lab = acquainted(everybody());
    // Under 0x0600 it is a length (IEEE 802.3); a service tag belongs to others.
    for ethertype in [0x0026, 0x05ff, 0x8847, 0x88a8, 0xffff] {
        for (from, to) in [(GUEST, OTHER), (GUEST, POD_A), (POD_A, GUEST)] {
            let sent = ethernet(from.mac, to.mac, ethertype, 46);
            assert_eq!(lab.send(from.port, &sent)[0].bytes, sent);
            lab.expect(forwarded(from.port, to.port));
        }
    }
}

#[test]
fn br_10_a_bridge_does_not_look_into_packets_between_others() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let mut sent = GUEST.to(&OTHER, family).udp(1, 2, b"payload");
        sent[14] = 0x15;
        assert_eq!(lab.send(GUEST.port, &sent)[0].bytes, sent);
        lab.expect(forwarded(GUEST.port, OTHER.port));
    }
}

#[test]
fn reserved_groups_are_not_forwarded() {
    let mut lab = Lab::new(bridge(2));
    for last in 0..=0x0f {
        lab.send(0, &frame(A, MacAddr([0x01, 0x80, 0xc2, 0, 0, last])));
        lab.expect([dropped(0, DropReason::ReservedMulticast)]);
    }
    for last in [0x10, 0x20, 0x21] {
        lab.send(0, &frame(A, MacAddr([0x01, 0x80, 0xc2, 0, 0, last])));
        lab.expect(flooded(0, &[1]));
    }
}
