//! BR-7, BR-9 and BR-11: storms, loops, isolated ports, and that a port forwards from its first frame.

use std::time::Duration;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{Config, StormControl};
use netstack::event::{Event, LoopEvidence};
use netstack::verdict::{DropReason, EgressDrop, Fate, Origin};

use crate::lab::{Lab, Out, dropped, entered, left, ports, refused};
use crate::packets::{BROADCAST, ask, ethernet, told};
use crate::world::{
    FAMILIES, Family, GUEST, Host, OTHER, POD_A, POD_B, PODS, acquainted, bridge, everybody, ip, with,
};

const A: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xa]);
const B: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xb]);
const C: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xc]);
const GROUP: MacAddr = MacAddr([0x01, 0x00, 0x5e, 1, 2, 3]);
const EXPERIMENT: u16 = 0x88b5;
const SECOND: Duration = Duration::from_secs(1);

fn frame(from: MacAddr, to: MacAddr) -> Vec<u8> {
    ethernet(from, to, EXPERIMENT, 46)
}

/// Foreign ports on one segment, some of them watched for loops.
fn guarded(count: u16, guarded: &[u16]) -> Config {
    let mut config = bridge(count);
    guarded.iter().for_each(|&port| config.ports[usize::from(port)].loop_guard = true);
    config
}

fn detected(events: &[Event]) -> Vec<(u16, u16, LoopEvidence)> {
    let found = events.iter().filter_map(|event| {
        let Event::LoopDetected { port, other, evidence, .. } = event else { return None };
        Some((port.0, other.0, *evidence))
    });
    found.collect()
}

/// What leaves by one of two ports that are patched together comes in by the other, until nothing moves or `limit`
/// frames have: how many have.
fn circulate(lab: &mut Lab, patch: [u16; 2], mut out: Vec<Out>, limit: usize) -> usize {
    let mut moved = 0;
    while !out.is_empty() && moved < limit {
        let mut next = Vec::new();
        for frame in out {
            let Some(end) = patch.iter().position(|&p| p == frame.port) else { continue };
            moved += 1;
            next.extend(lab.send(patch[1 - end], &frame.bytes));
        }
        out = next;
    }
    moved
}

/// Lets time pass with two ports patched together; gives the frames that went through the patch.
fn wait_patched(lab: &mut Lab, patch: [u16; 2], time: Duration) -> usize {
    let end = lab.now + time;
    let mut moved = 0;
    while let Some(at) = lab.switch.poll_timeout().filter(|&at| at <= end) {
        lab.now = lab.now.max(at);
        lab.switch.handle_timeout(lab.now);
        let out = lab.drain();
        moved += circulate(lab, patch, out, 10_000);
    }
    lab.now = end;
    moved
}

#[test]
fn br_7_storm_control_drops_the_excess_and_nothing_else() {
    let mut config = bridge(3);
    config.ports[0].storm = Some(StormControl { rate: 10, burst: 5 });
    let mut lab = Lab::new(config);
    lab.send(1, &frame(B, BROADCAST));
    lab.settle();
    // Broadcast, multicast and unknown unicast share one bucket.
    for to in [BROADCAST, GROUP, C, BROADCAST, C] {
        lab.send(0, &frame(A, to));
        lab.expect([entered(0, Fate::Flooded), left(1, Origin::FloodCopy), left(2, Origin::FloodCopy)]);
    }
    lab.offer(0, &frame(A, BROADCAST));
    assert_eq!(lab.events(), [Event::Storm { port: PortId(0) }]);
    for to in [GROUP, C, BROADCAST] {
        let trace = lab.explain(0, &frame(A, to));
        assert!(trace.outcome.contains("storm_control"), "{trace}");
        lab.offer(0, &frame(A, to));
        assert_eq!(lab.events(), [], "told once");
    }
    lab.expect([dropped(0, DropReason::StormControl) * 4]);
    // Known unicast is not limited, and neither are other ports.
    lab.send(0, &frame(A, B));
    lab.expect([entered(0, Fate::Forwarded), left(1, Origin::Forwarded)]);
    lab.send(1, &frame(B, BROADCAST));
    lab.expect([entered(1, Fate::Flooded), left(0, Origin::FloodCopy), left(2, Origin::FloodCopy)]);
    // One more every tenth of a second.
    lab.wait(SECOND / 10);
    lab.send(0, &frame(A, BROADCAST));
    lab.send(0, &frame(A, BROADCAST));
    lab.expect([
        entered(0, Fate::Flooded),
        left(1, Origin::FloodCopy),
        left(2, Origin::FloodCopy),
        dropped(0, DropReason::StormControl),
    ]);
}

#[test]
fn br_7_a_storm_teaches_nothing() {
    let mut config = bridge(2);
    config.ports[0].storm = Some(StormControl { rate: 1, burst: 1 });
    let mut lab = Lab::new(config);
    for n in 0..1000 {
        lab.send(0, &frame(MacAddr::local(n), BROADCAST));
    }
    assert_eq!(lab.switch.fdb().len(), 1);
    lab.settle();
}

#[test]
fn br_7_two_ports_patched_together_without_a_guard_never_rest() {
    let mut lab = Lab::new(bridge(3));
    let out = lab.send(0, &frame(A, BROADCAST));
    assert_eq!(circulate(&mut lab, [1, 2], out, 10_000), 10_000);
    lab.settle();
}

#[test]
fn br_7_one_broadcast_into_a_patched_pair_costs_a_bounded_amount_of_work() {
    for guards in [&[1, 2][..], &[1], &[2], &[0, 1, 2]] {
        let mut lab = Lab::new(guarded(3, guards));
        let out = lab.send(0, &frame(A, BROADCAST));
        let moved = circulate(&mut lab, [1, 2], out, 10_000);
        assert!(moved < 64, "{moved} frames went round");
        let blocked = if guards == [1] { 1 } else { 2 };
        assert_eq!(detected(&lab.events()), [(blocked, 3 - blocked, LoopEvidence::Flapping)]);
        lab.settle();
        // From here on the port is out of it in both directions.
        let open = 3 - blocked;
        let sent = frame(A, BROADCAST);
        let trace = lab.explain(0, &sent);
        assert_eq!(trace.ports, [PortId(open)], "{trace}");
        let out = lab.send(0, &sent);
        lab.expect([
            entered(0, Fate::Flooded),
            left(open, Origin::FloodCopy),
            refused(blocked, EgressDrop::LoopBlocked, Origin::FloodCopy),
        ]);
        let trace = lab.explain(blocked, &out[0].bytes);
        assert!(trace.outcome.contains("loop_blocked"), "{trace}");
        assert_eq!(circulate(&mut lab, [1, 2], out, 10), 1);
        lab.expect([dropped(blocked, DropReason::LoopBlocked)]);
        assert!(lab.switch.fdb().port_len(PortId(blocked)) == 0);
    }
}

#[test]
fn br_7_a_patch_is_found_by_its_probes_before_anybody_speaks() {
    let mut lab = Lab::new(guarded(3, &[1, 2]));
    wait_patched(&mut lab, [1, 2], SECOND / 1000);
    assert_eq!(detected(&lab.events()), [(2, 1, LoopEvidence::Probe)]);
    // While the patch is there the port stays blocked, however often its time is over, and probes are all there is.
    let moved = wait_patched(&mut lab, [1, 2], 3600 * SECOND);
    assert!((2 * 1300..2 * 2600).contains(&moved), "{moved}");
    assert_eq!(lab.events(), []);
    assert!(lab.switch.blocked_until(PortId(2)).is_some());
    lab.settle();
    // A broadcast meanwhile goes to everybody once.
    let out = lab.send(0, &frame(A, BROADCAST));
    assert_eq!((ports(&out), circulate(&mut lab, [1, 2], out, 10_000)), (vec![1], 1));
    lab.settle();
    // The patch is taken away: the port opens within its longest time, once.
    lab.wait(400 * SECOND);
    assert_eq!(lab.events(), [Event::LoopCleared { port: PortId(2) }]);
    assert_eq!(ports(&lab.send(0, &frame(A, BROADCAST))), [1, 2]);
    lab.settle();
}

#[test]
fn br_7_a_loop_behind_one_port_blocks_that_port() {
    let mut lab = Lab::new(guarded(2, &[0, 1]));
    let out = lab.wait(SECOND / 1000);
    assert_eq!(ports(&out), [0, 1]);
    let probe = out.iter().find(|o| o.port == 1).unwrap();
    lab.expect([left(0, Origin::Originated), left(1, Origin::Originated)]);
    let trace = lab.explain(1, &probe.bytes);
    assert!(trace.outcome.contains("one loop"), "{trace}");
    lab.offer(1, &probe.bytes);
    assert_eq!(detected(&lab.events()), [(1, 1, LoopEvidence::Probe)]);
    lab.expect([entered(1, Fate::Consumed)]);
}

#[test]
fn br_7_who_replays_or_forges_a_probe_blocks_nobody_else() {
    let mut lab = Lab::new(guarded(3, &[0, 1, 2]));
    let out = lab.wait(SECOND / 1000);
    let heard = out.iter().find(|o| o.port == 1).unwrap().bytes.clone();
    lab.settle();
    // The probe of port 1 made out to be that of port 0 or 2 is a frame like any other.
    for other in [0, 2] {
        let mut forged = heard.clone();
        forged[23] = other;
        lab.send(1, &forged);
        lab.expect([entered(1, Fate::Flooded), left(0, Origin::FloodCopy), left(2, Origin::FloodCopy)]);
    }
    lab.offer(1, &heard);
    assert_eq!(detected(&lab.events()), [(1, 1, LoopEvidence::Probe)]);
    assert!(lab.switch.blocked_until(PortId(0)).is_none() && lab.switch.blocked_until(PortId(2)).is_none());
    lab.settle();
}

#[test]
fn br_7_probes_of_other_switches_pass_and_segments_may_be_joined() {
    let mut other = Lab::with_seed(guarded(1, &[0]), Default::default(), 2);
    let theirs = other.wait(SECOND / 1000).remove(0).bytes;
    other.settle();
    let mut config = guarded(3, &[0, 1, 2]);
    config.segments.push(crate::world::segment(1, 1500));
    config.ports[2] = crate::world::port(2, 1);
    config.ports[2].loop_guard = true;
    config.ports.push(crate::world::port(3, 1));
    config.ports.push(crate::world::managed(&Host { port: 4, ..POD_A }, 0));
    let mut lab = Lab::new(config);
    let out = lab.wait(SECOND / 1000);
    lab.settle();
    lab.send(0, &theirs);
    // A managed station is no bridge: it is spared.
    lab.expect([entered(0, Fate::Flooded), left(1, Origin::FloodCopy)]);
    // A probe of segment 0 in segment 1: the two are joined somewhere, which is no loop yet.
    let probe = out.iter().find(|o| o.port == 0).unwrap();
    lab.send(2, &probe.bytes);
    lab.expect([entered(2, Fate::Flooded), left(3, Origin::FloodCopy)]);
    assert_eq!(lab.events(), []);
}

/// Two switches, their clocks in step, joined by cables between ports of the same number.
struct Pair {
    labs: [Lab; 2],
    cables: Vec<u16>,
}

impl Pair {
    /// Carries what leaves by the cables until nothing moves or `limit` frames have.
    fn carry(&mut self, mut out: [Vec<Out>; 2], limit: usize) -> usize {
        let mut moved = 0;
        while out.iter().any(|o| !o.is_empty()) && moved < limit {
            let mut next = [Vec::new(), Vec::new()];
            for (side, frames) in out.into_iter().enumerate() {
                for frame in frames.into_iter().filter(|f| self.cables.contains(&f.port)) {
                    moved += 1;
                    next[1 - side].extend(self.labs[1 - side].send(frame.port, &frame.bytes));
                }
            }
            out = next;
        }
        moved
    }

    fn wait(&mut self, time: Duration) -> usize {
        let end = self.labs[0].now + time;
        let mut moved = 0;
        let next = |pair: &Self| pair.labs.iter().filter_map(|lab| lab.switch.poll_timeout()).min();
        while let Some(at) = next(self).filter(|&at| at <= end) {
            let out = [0, 1].map(|side| {
                let lab = &mut self.labs[side];
                lab.now = lab.now.max(at);
                lab.switch.handle_timeout(lab.now);
                lab.drain()
            });
            moved += self.carry(out, 10_000);
        }
        self.labs.iter_mut().for_each(|lab| lab.now = end);
        moved
    }
}

#[test]
fn br_7_two_switches_joined_twice_stay_joined_once() {
    for seed in 0..20 {
        let labs = [2 * seed, 2 * seed + 1]
            .map(|seed| Lab::with_seed(guarded(3, &[1, 2]), Default::default(), seed));
        let mut pair = Pair { labs, cables: vec![1, 2] };
        let out = pair.labs[0].send(0, &frame(A, BROADCAST));
        let moved = pair.carry([out, Vec::new()], 10_000);
        assert!(moved < 200, "{moved} frames went round");
        pair.wait(600 * SECOND);
        pair.labs.iter_mut().for_each(Lab::settle);
        for _ in 0..50 {
            pair.wait(7 * SECOND);
            pair.labs.iter_mut().for_each(Lab::settle);
            let blocked =
                |lab: &Lab| (1..3).filter(|&p| lab.switch.blocked_until(PortId(p)).is_some()).count();
            assert_eq!(pair.labs.iter().map(blocked).sum::<usize>(), 1, "seed {seed}");
            // One cable carries, so a broadcast arrives at the far station exactly once.
            let out = pair.labs[0].send(0, &frame(A, BROADCAST));
            pair.carry([out, Vec::new()], 10_000);
            let far = pair.labs[1].switch.port_counters(PortId(0)).unwrap().origin(Origin::FloodCopy);
            pair.labs.iter_mut().for_each(Lab::settle);
            let out = pair.labs[0].send(0, &frame(A, BROADCAST));
            pair.carry([out, Vec::new()], 10_000);
            let after = pair.labs[1].switch.port_counters(PortId(0)).unwrap().origin(Origin::FloodCopy);
            assert_eq!(after - far, 1);
            pair.labs.iter_mut().for_each(Lab::settle);
        }
    }
}

#[test]
fn br_7_a_new_configuration_keeps_what_is_known_of_loops() {
    let mut lab = Lab::new(guarded(3, &[1, 2]));
    wait_patched(&mut lab, [1, 2], SECOND / 1000);
    assert!(lab.switch.blocked_until(PortId(2)).is_some());
    lab.install(guarded(4, &[1, 2]));
    assert!(lab.switch.blocked_until(PortId(2)).is_some());
    lab.install(guarded(3, &[1]));
    assert!(lab.switch.blocked_until(PortId(2)).is_none(), "nobody watches it any more");
    lab.settle();
}

#[test]
fn br_3_moves_are_told_ten_a_second_and_the_others_counted() {
    let mut lab = Lab::new(bridge(2));
    for n in 0..10_001 {
        lab.send(n % 2, &frame(A, BROADCAST));
    }
    let events = lab.events();
    assert_eq!(events.len(), 10);
    assert!(events.iter().all(|event| matches!(event, Event::MacMoved { .. })));
    lab.wait(SECOND);
    assert_eq!(lab.events(), [Event::MacMovesUntold { count: 9_990 }]);
    assert_eq!(lab.switch.events_lost(), 0);
    lab.wait(2 * SECOND);
    assert_eq!(lab.events(), []);
    lab.send(1, &frame(A, BROADCAST));
    let moved = Event::MacMoved { segment: SegmentId(0), mac: A, from: PortId(0), to: PortId(1) };
    assert_eq!(lab.events(), [moved]);
    lab.settle();
}

#[test]
fn br_9_isolated_ports_reach_only_ports_that_are_not() {
    let mut config = bridge(4);
    for port in [0, 1] {
        config.ports[port].isolated = true;
    }
    let mut lab = Lab::new(config);
    for (port, mac) in [(1, B), (2, C)] {
        lab.send(port, &frame(mac, BROADCAST));
    }
    lab.settle();
    for to in [BROADCAST, GROUP, MacAddr([2, 9, 9, 9, 9, 9])] {
        assert_eq!(lab.explain(0, &frame(A, to)).ports, [PortId(2), PortId(3)]);
        lab.send(0, &frame(A, to));
        lab.expect([entered(0, Fate::Flooded), left(2, Origin::FloodCopy), left(3, Origin::FloodCopy)]);
        lab.send(2, &frame(C, to));
        lab.expect(
            [entered(2, Fate::Flooded)].into_iter().chain([0, 1, 3].map(|p| left(p, Origin::FloodCopy))),
        );
    }
    let trace = lab.explain(0, &frame(A, B));
    assert!(trace.outcome.contains("port_isolated"), "{trace}");
    lab.send(0, &frame(A, B));
    lab.expect([dropped(0, DropReason::PortIsolated)]);
    lab.send(0, &frame(A, C));
    lab.expect([entered(0, Fate::Forwarded), left(2, Origin::Forwarded)]);
    lab.send(2, &frame(C, A));
    lab.expect([entered(2, Fate::Forwarded), left(0, Origin::Forwarded)]);
}

#[test]
fn br_9_where_all_are_isolated_a_flood_goes_nowhere() {
    let mut config = bridge(2);
    config.ports.iter_mut().for_each(|port| port.isolated = true);
    let mut lab = Lab::new(config);
    let trace = lab.explain(0, &frame(A, BROADCAST));
    assert!(trace.outcome.contains("port_isolated"), "{trace}");
    lab.send(0, &frame(A, BROADCAST));
    lab.expect([dropped(0, DropReason::PortIsolated)]);
}

#[test]
fn br_9_isolated_stations_are_not_told_of_each_other_and_reach_the_router() {
    let mut lab = acquainted(with(|c| {
        for port in [POD_A.port, POD_B.port] {
            c.ports[usize::from(port)].isolated = true;
        }
    }));
    for family in FAMILIES {
        lab.send(POD_A.port, &ask(POD_A.mac, POD_A.ip(family), POD_B.ip(family)));
        lab.expect([dropped(POD_A.port, DropReason::PortIsolated)]);
        lab.send(POD_A.port, &POD_A.to(&POD_B, family).udp(1, 2, b"x"));
        lab.expect([dropped(POD_A.port, DropReason::PortIsolated)]);
        // A station that looks for a duplicate of its own address still finds none.
        lab.send(POD_A.port, &ask(POD_A.mac, family.unspecified(), POD_A.ip(family)));
        lab.expect([entered(POD_A.port, Fate::Consumed)]);
        let out =
            lab.send(POD_A.port, &ask(POD_A.mac, POD_A.ip(family), ip(family.of("10.0.0.1", "fd00::1"))));
        assert_eq!(told(&out[0].bytes).unwrap().1, PODS);
        lab.send(POD_A.port, &POD_A.to(&GUEST, family).udp(1, 2, b"x"));
        lab.send(GUEST.port, &GUEST.to(&POD_A, family).udp(1, 2, b"x"));
        assert_eq!(
            lab.switch.counters().dropped(DropReason::PortIsolated),
            2 + 2 * u64::from(family == Family::V6)
        );
        lab.settle();
    }
}

#[test]
fn br_11_everything_forwards_and_answers_from_the_first_frame() {
    // No time has been told to this switch yet.
    let mut lab = Lab::new(guarded(2, &[0, 1]));
    assert_eq!(ports(&lab.send(0, &frame(A, BROADCAST))), [1]);
    lab.settle();
    let mut lab = Lab::new(everybody());
    for family in FAMILIES {
        let router = ip(family.of("10.0.0.1", "fd00::1"));
        assert!(told(&lab.send(OTHER.port, &ask(OTHER.mac, OTHER.ip(family), router))[0].bytes).is_some());
        let out = lab.send(POD_A.port, &POD_A.via_router(POD_B.ip(family)).udp(1, 2, b"x"));
        assert_eq!(ports(&out), [POD_B.port]);
    }
    lab.settle();
}
