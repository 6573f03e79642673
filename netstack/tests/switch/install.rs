//! `install`: what a new configuration opens, closes, forgets and keeps.

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{Config, Limits, Snapshot, Station, VlanMode};
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::offload::OffloadFeatures;
use netstack::seed::Seed;
use netstack::switch::Switch;
use netstack::verdict::{DropReason, EgressDrop, Fate, Origin};

use crate::lab::{Counter, Lab, counted, dropped, entered, left, ports, queued, refused};
use crate::packets::{BROADCAST, as_routed, ask, ethernet, mac_from, tell};
use crate::world::{
    FAMILIES, FAR, GUEST, OTHER, POD_A, POD_B, UPLINK, acquainted, bridge, everybody, introduce, ip, net,
    port, segment, with,
};

const A: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xb]);

fn frame(from: MacAddr, to: MacAddr) -> Vec<u8> {
    ethernet(from, to, 0x88b5, 46)
}

#[test]
fn a_port_carries_nothing_until_it_is_named() {
    let mut lab = Lab::new(Config::default());
    lab.send(0, &frame(A, BROADCAST));
    lab.send(7, &frame(A, BROADCAST));
    lab.expect([dropped(0, DropReason::PortClosed), dropped(7, DropReason::PortClosed)]);
    lab.install(bridge(2));
    lab.send(0, &frame(A, BROADCAST));
    lab.expect([entered(0, Fate::Flooded), left(1, Origin::FloodCopy)]);
    lab.send(7, &frame(A, BROADCAST));
    lab.expect([dropped(7, DropReason::PortClosed)]);
    assert!(lab.switch.fdb().iter(lab.now).all(|e| e.port == PortId(0)));
}

#[test]
fn generations_count_up_and_are_told() {
    let mut lab = Lab::new(bridge(2));
    let first = lab.switch.snapshot().generation();
    lab.install(bridge(3));
    assert_eq!(lab.events(), [Event::Installed { generation: first + 1 }]);
    let old = lab.install(bridge(2));
    assert_eq!(old.generation(), first + 1);
    assert_eq!(lab.events(), [Event::Installed { generation: first + 2 }]);
}

#[test]
fn a_port_that_is_removed_loses_its_queue_and_its_addresses() {
    let mut lab = Lab::new(bridge(3));
    lab.send(1, &frame(B, BROADCAST));
    lab.settle();
    for _ in 0..5 {
        lab.offer(0, &frame(A, B));
    }
    lab.expect([entered(0, Fate::Forwarded) * 5, queued(1, Origin::Forwarded) * 5]);
    let mut without = bridge(3);
    without.ports.remove(1);
    lab.install(without.clone());
    lab.expect([counted(Counter::Egress(1, EgressDrop::PortClosed, Origin::Forwarded)) * 5]);
    assert_eq!(lab.switch.queued(), 0);
    assert!(lab.drain().is_empty());
    lab.send(0, &frame(A, B));
    lab.expect([entered(0, Fate::Flooded), left(2, Origin::FloodCopy)]);
    lab.send(1, &frame(B, A));
    lab.expect([dropped(1, DropReason::PortClosed)]);
    // It comes back empty, and works.
    lab.install(bridge(3));
    assert!(lab.drain().is_empty());
    lab.send(0, &frame(A, B));
    assert_eq!(lab.switch.fdb().port_len(PortId(1)), 0);
    lab.expect([entered(0, Fate::Flooded), left(1, Origin::FloodCopy), left(2, Origin::FloodCopy)]);
}

#[test]
fn a_removed_port_is_not_named_while_others_have_something_to_send() {
    let mut lab = Lab::new(bridge(3));
    lab.offer(0, &frame(A, BROADCAST));
    let mut without = bridge(3);
    without.ports.remove(1);
    lab.install(without);
    assert_eq!(ports(&lab.drain()), [2]);
    lab.settle();
}

#[test]
fn what_is_queued_for_another_segment_or_another_device_does_not_leave() {
    let two = |config: &mut Config| config.segments.push(segment(1, 1500));
    for change in [
        (|c: &mut Config| c.ports[1].vlan = VlanMode::Access(SegmentId(1))) as fn(&mut Config),
        |c| c.ports[1].vlan = VlanMode::Trunk { native: None, tagged: vec![(10, SegmentId(0))] },
        |c| c.ports[1].offload = OffloadFeatures::ALL,
    ] {
        let mut config = bridge(2);
        two(&mut config);
        let mut lab = Lab::new(config.clone());
        lab.offer(0, &frame(A, BROADCAST));
        lab.settle();
        change(&mut config);
        lab.install(config);
        assert!(lab.drain().is_empty());
        lab.expect([counted(Counter::Egress(1, EgressDrop::PortClosed, Origin::FloodCopy))]);
    }
    // Another name is no reason.
    let mut config = bridge(2);
    let mut lab = Lab::new(config.clone());
    lab.offer(0, &frame(A, BROADCAST));
    config.ports[1].name = "renamed".into();
    lab.install(config);
    assert_eq!(lab.drain().len(), 1);
    lab.settle();
}

#[test]
fn only_what_changed_is_forgotten() {
    for family in FAMILIES {
        let mut lab = acquainted(everybody());
        let known = lab.switch.neighbors().len();
        let addresses = lab.switch.fdb().len();
        let next = |lab: &mut Lab, change: fn(&mut Config)| {
            lab.install(with(change));
            lab.settle();
        };
        // Another pod, another route, another name of a segment: nobody forgets.
        next(&mut lab, |c| {
            c.ports.push(port(6, 0));
            c.routes.pop();
            c.segments[1].name = "other".into();
        });
        assert_eq!((lab.switch.neighbors().len(), lab.switch.fdb().len()), (known, addresses));
        lab.send(POD_A.port, &POD_A.via_router(FAR.ip(family)).udp(1, 2, b"x"));
        lab.expect([entered(POD_A.port, Fate::Forwarded), left(FAR.port, Origin::Forwarded)]);
        // One foreign port changes: its addresses go, others stay.
        next(&mut lab, |c| c.ports[5].name = "renamed".into());
        assert_eq!(lab.switch.fdb().port_len(PortId(OTHER.port)), 0);
        assert_eq!(lab.switch.fdb().len(), addresses - 1);
        // The router has one address more, and then a prefix more: the neighbours of that segment go.
        next(&mut lab, |c| c.segments[1].gateway.as_mut().unwrap().addresses.push(ip("10.99.0.1").into()));
        assert_eq!(lab.switch.neighbors().len(), known);
        next(&mut lab, |c| c.segments[1].gateway.as_mut().unwrap().addresses.push(net("10.98.0.1/24")));
        assert!(lab.switch.neighbors().iter(lab.now).all(|e| e.segment == SegmentId(0)));
        assert_eq!(lab.switch.neighbors().len(), 4);
    }
}

#[test]
fn what_waits_on_a_segment_that_goes_is_dropped_and_counted() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        lab.send(POD_A.port, &POD_A.via_router(FAR.ip(family)).udp(1, 2, b"x"));
        lab.settle();
        lab.install(with(|c| {
            c.segments.remove(1);
            c.routes.clear();
            c.ports.remove(3);
        }));
        assert_eq!(lab.switch.parked(), 0);
        lab.expect([counted(Counter::ParkedDrop(POD_A.port, DropReason::NeighborFailed))]);
    }
}

#[test]
fn what_waits_leaves_as_the_new_configuration_says() {
    for family in FAMILIES {
        let other_mac = MacAddr([2, 0, 0, 0, 0xee, 0x77]);
        let asker = ip(family.of("10.1.0.1", "fd00:1::1"));
        let mut lab = Lab::new(everybody());
        let (short, long) = (b"x".to_vec(), vec![7; 1400]);
        let sent: Vec<Vec<u8>> =
            [short, long].iter().map(|p| POD_A.via_router(FAR.ip(family)).udp(1, 2, p)).collect();
        sent.iter().for_each(|s| drop(lab.send(POD_A.port, s)));
        lab.settle();
        lab.install(with(|c| {
            c.segments[1].gateway.as_mut().unwrap().mac = other_mac;
            c.segments[1].mtu = 1280;
        }));
        let out = lab.send(FAR.port, &tell(FAR.mac, FAR.ip(family), other_mac, asker));
        assert_eq!(out[0].bytes, as_routed(&sent[0], other_mac, FAR.mac));
        lab.expect([
            entered(FAR.port, Fate::Consumed),
            left(FAR.port, Origin::Unparked),
            counted(Counter::ParkedDrop(POD_A.port, DropReason::PacketTooBig)),
        ]);
    }
}

#[test]
fn a_station_that_becomes_managed_is_found_there() {
    for family in FAMILIES {
        let mut lab = acquainted(everybody());
        lab.install(with(|c| {
            c.ports[usize::from(GUEST.port)].station =
                Station::Managed { mac: GUEST.mac, addresses: vec![ip(GUEST.v4), ip(GUEST.v6)] };
        }));
        let out = lab.send(POD_A.port, &ask(POD_A.mac, POD_A.ip(family), GUEST.ip(family)));
        assert_eq!((out.len(), out[0].port), (1, POD_A.port));
        lab.settle();
        // Its old place teaches nothing any more.
        lab.send(OTHER.port, &frame(GUEST.mac, BROADCAST));
        lab.settle();
        let out = lab.send(FAR.port, &FAR.via_router(GUEST.ip(family)).udp(1, 2, b"x"));
        assert_eq!((out[0].port, mac_from(&out[0].bytes)), (GUEST.port, GUEST.router));
        lab.settle();
    }
}

#[test]
fn a_full_queue_harms_its_own_port_alone() {
    let limits = Limits { queue_frames: 4, ..Limits::default() };
    let mut lab = Lab::with_limits(bridge(3), limits);
    lab.send(1, &frame(B, BROADCAST));
    lab.settle();
    for _ in 0..6 {
        lab.offer(0, &frame(A, B));
    }
    lab.expect([
        entered(0, Fate::Forwarded) * 6,
        queued(1, Origin::Forwarded) * 4,
        refused(1, EgressDrop::QueueFull, Origin::Forwarded) * 2,
    ]);
    lab.offer(0, &frame(A, BROADCAST));
    lab.expect([
        entered(0, Fate::Flooded),
        refused(1, EgressDrop::QueueFull, Origin::FloodCopy),
        queued(2, Origin::FloodCopy),
    ]);
    assert_eq!(ports(&lab.drain()), [1, 1, 1, 1, 2]);
    lab.expect([counted(Counter::Tx(1)) * 4, counted(Counter::Tx(2))]);
}

#[test]
fn a_queue_is_bounded_in_octets_too() {
    let limits = Limits { queue_bytes: 3000, ..Limits::default() };
    let mut lab = Lab::with_limits(bridge(2), limits);
    for _ in 0..3 {
        lab.offer(0, &ethernet(A, B, 0x88b5, 1400));
    }
    lab.offer(0, &frame(A, B));
    lab.expect([
        entered(0, Fate::Flooded) * 4,
        queued(1, Origin::FloodCopy) * 3,
        refused(1, EgressDrop::QueueFull, Origin::FloodCopy),
    ]);
    lab.drain();
    lab.settle();
}

#[test]
fn ports_are_served_in_turn() {
    let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
    switch.install(Snapshot::compile(bridge(3), None).unwrap());
    let mut pool = FramePool::new();
    let mut batch = FrameBatch::new();
    for _ in 0..150 {
        batch.push(pool.copy_of(&frame(A, BROADCAST))).unwrap();
        switch.handle_frames(core::time::Duration::ZERO, PortId(0), &mut batch);
    }
    let mut turns = Vec::new();
    while let Some(port) = switch.poll_transmit(&mut batch) {
        turns.push((port.0, batch.drain().count()));
    }
    assert_eq!(turns, [(1, 64), (2, 64), (1, 64), (2, 64), (1, 22), (2, 22)]);
    // A batch that is full already takes nothing.
    for _ in 0..64 {
        batch.push(pool.copy_of(&frame(A, BROADCAST))).unwrap();
    }
    assert_eq!(switch.poll_transmit(&mut batch), None);
    assert_eq!(batch.len(), 64);
}

#[test]
fn snapshots_share_what_did_not_change() {
    let first = Snapshot::compile(everybody(), None).unwrap();
    let second = Snapshot::compile(
        with(|c| {
            c.ports[0].name = "renamed".into();
            c.ports.push(port(6, 1));
        }),
        Some(&first),
    )
    .unwrap();
    let port_is_shared =
        |id| core::ptr::eq(first.port(PortId(id)).unwrap(), second.port(PortId(id)).unwrap());
    assert_eq!((0..6).map(port_is_shared).collect::<Vec<_>>(), [false, true, true, true, true, true]);
    let segment_is_shared =
        |id| core::ptr::eq(first.segment(SegmentId(id)).unwrap(), second.segment(SegmentId(id)).unwrap());
    // A name is no part of a segment, a member is.
    assert_eq!((0..3).map(segment_is_shared).collect::<Vec<_>>(), [true, false, true]);
    assert!(core::ptr::eq(first.router(), second.router()));
    let third = Snapshot::compile(with(|c| drop(c.routes.pop())), Some(&second)).unwrap();
    assert!(!core::ptr::eq(second.router(), third.router()));
    assert_eq!(third.generation(), first.generation() + 2);
}

#[test]
fn a_full_log_of_events_loses_the_oldest_and_says_how_many() {
    let mut lab = Lab::with_limits(bridge(2), Limits { events: 3, ..Limits::default() });
    for n in 0..8 {
        lab.offer(n % 2, &frame(A, BROADCAST));
    }
    assert_eq!(lab.switch.events_lost(), 4);
    assert_eq!(lab.events().len(), 3);
    lab.drain();
    lab.settle();
}

#[test]
fn the_router_changes_its_mac_address() {
    let other = MacAddr([2, 0, 0, 0, 0xee, 0x77]);
    let mut lab = Lab::new(everybody());
    introduce(&mut lab, &FAR);
    lab.install(with(|c| c.segments[1].gateway.as_mut().unwrap().mac = other));
    for family in FAMILIES {
        let sent = POD_B.via_router(FAR.ip(family)).udp(1, 2, b"x");
        assert_eq!(lab.send(POD_B.port, &sent)[0].bytes, as_routed(&sent, other, FAR.mac));
        lab.expect([entered(POD_B.port, Fate::Forwarded), left(FAR.port, Origin::Forwarded)]);
        // Its old one is a station like any other, and unknown.
        lab.send(FAR.port, &FAR.via_router(POD_A.ip(family)).udp(1, 2, b"x"));
        assert_eq!(FAR.router, UPLINK);
        lab.expect([dropped(FAR.port, DropReason::NoOtherPort)]);
    }
}
