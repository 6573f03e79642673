use super::*;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use proptest::prelude::*;

const T0: Duration = Duration::from_secs(1000);
const LAN: SegmentId = SegmentId(1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const ANSWER: Hearing = Hearing::Advertisement { solicited: true, override_flag: true };

fn limits(neighbors: u32) -> Limits {
    Limits { neighbors, ..Limits::default() }
}

fn table(neighbors: u32) -> Neighbors {
    Neighbors::new(&limits(neighbors), &Seed::from_u64(1), NeighborTimers::default())
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn v6(last: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
}

fn actions(table: &mut Neighbors, now: Duration) -> Vec<NeighborAction> {
    let mut out = Vec::new();
    table.handle_timeout(now, usize::MAX, &mut |action| out.push(action));
    out
}

fn state(table: &Neighbors, now: Duration, ip: IpAddr) -> Option<NeighborState> {
    table.iter(now).find(|e| e.ip == ip).map(|e| e.state)
}

fn mac(table: &Neighbors, now: Duration, ip: IpAddr) -> Option<MacAddr> {
    table.iter(now).find(|e| e.ip == ip).and_then(|e| e.mac)
}

/// A table with `ip` in the wanted state at [`T0`], with [`MAC`] where the state has an address, brought there by
/// messages and time alone.
fn in_state(wanted: NeighborState, ip: IpAddr) -> Neighbors {
    let mut t = table(8);
    match wanted {
        NeighborState::Incomplete => assert!(t.resolve(T0, LAN, ip).unwrap().solicit),
        NeighborState::Reachable => {
            assert!(t.resolve(T0 - secs(2), LAN, ip).unwrap().solicit);
            assert!(matches!(t.heard(T0 - secs(1), LAN, ip, Some(MAC), ANSWER), Heard::Resolved { .. }));
        }
        NeighborState::Stale | NeighborState::Delay | NeighborState::Probe => {
            let at = if wanted == NeighborState::Probe { T0 - secs(6) } else { T0 - secs(1) };
            let Heard::Created { slot } = t.heard(at, LAN, ip, Some(MAC), Hearing::Solicitation) else {
                panic!("a solicitation creates an entry");
            };
            if wanted != NeighborState::Stale {
                t.use_entry(at, slot);
            }
            if wanted == NeighborState::Probe {
                assert_eq!(actions(&mut t, at + secs(5)).len(), 1);
            }
        }
        NeighborState::Failed => {
            let _ = t.resolve(T0 - secs(3), LAN, ip).unwrap();
            for s in [2, 1, 0] {
                actions(&mut t, T0 - secs(s));
            }
        }
    }
    assert_eq!(state(&t, T0, ip), Some(wanted));
    t
}

/// The expectations are the rows of RFC 4861 appendix C, in the order of that table.
#[test]
fn rfc4861_7_2_5_advertisements_follow_appendix_c() {
    use NeighborState::{Delay, Incomplete, Probe, Reachable, Stale};
    for ip in [v6(1), v4(1)] {
        for before in [Incomplete, Reachable, Stale, Delay, Probe] {
            for said in [None, Some(MAC), Some(OTHER)] {
                for (s, o) in [(false, false), (false, true), (true, false), (true, true)] {
                    let same = said == Some(MAC);
                    let different = said == Some(OTHER);
                    let (after, kept) = match (before, s, o) {
                        // INCOMPLETE, NA, Solicited=0, Override=any: record link-layer address, send queued packets; STALE
                        (Incomplete, false, _) if said.is_some() => (Stale, said),
                        // INCOMPLETE, NA, Solicited=1, Override=any: record, send queued packets; REACHABLE
                        (Incomplete, true, _) if said.is_some() => (Reachable, said),
                        // INCOMPLETE, NA, no link-layer address: update content of IsRouter flag; unchanged
                        (Incomplete, _, _) => (Incomplete, None),
                        // !INCOMPLETE, NA, Solicited=1, Override=0, same as cached: REACHABLE
                        (_, true, false) if same => (Reachable, Some(MAC)),
                        // REACHABLE, NA, Solicited=any, Override=0, different than cached: STALE
                        (Reachable, _, false) if different => (Stale, Some(MAC)),
                        // STALE, PROBE, or DELAY, NA, Solicited=any, Override=0, different: unchanged
                        (_, _, false) if different => (before, Some(MAC)),
                        // !INCOMPLETE, NA, Solicited=1, Override=1: record (if different); REACHABLE
                        (_, true, true) if said.is_some() => (Reachable, said),
                        // !INCOMPLETE, NA, Solicited=0, Override=1, different: record; STALE
                        (_, false, true) if different => (Stale, Some(OTHER)),
                        // !INCOMPLETE, NA, Solicited=0, Override=any, same: unchanged
                        (_, false, _) if same => (before, Some(MAC)),
                        // Section 7.2.5, no option: only S has a say.
                        (_, true, _) => (Reachable, Some(MAC)),
                        (_, false, _) => (before, Some(MAC)),
                    };
                    let mut t = in_state(before, ip);
                    let hearing = Hearing::Advertisement { solicited: s, override_flag: o };
                    let heard = t.heard(T0, LAN, ip, said, hearing);
                    let case = (ip, before, said, s, o);
                    assert_eq!(state(&t, T0, ip), Some(after), "{case:?}");
                    assert_eq!(mac(&t, T0, ip), kept, "{case:?}");
                    assert_eq!(
                        matches!(heard, Heard::Resolved { .. }),
                        before == Incomplete && after != before
                    );
                    let moved = before != Incomplete && kept == Some(OTHER);
                    assert_eq!(matches!(heard, Heard::Moved { from: MAC, .. }), moved, "{case:?}");
                    let due = matches!(after, Incomplete | Delay | Probe);
                    assert_eq!(t.next_timeout().is_some(), due, "{case:?}");
                }
            }
        }
    }
}

#[test]
fn rfc4861_7_2_5_an_advertisement_creates_nothing() {
    for s in [false, true] {
        let hearing = Hearing::Advertisement { solicited: s, override_flag: true };
        let mut t = table(8);
        assert_eq!(t.heard(T0, LAN, v6(1), Some(MAC), hearing), Heard::Ignored);
        assert!(t.is_empty());
        let mut t = in_state(NeighborState::Failed, v6(1));
        assert_eq!(t.heard(T0, LAN, v6(1), Some(MAC), hearing), Heard::Ignored);
        assert_eq!(state(&t, T0, v6(1)), Some(NeighborState::Failed));
    }
}

#[test]
fn rfc4861_7_2_3_a_solicitation_creates_or_replaces_and_leaves_stale() {
    use NeighborState::{Delay, Failed, Incomplete, Probe, Reachable, Stale};
    for before in [Incomplete, Reachable, Stale, Delay, Probe, Failed] {
        let mut t = in_state(before, v6(1));
        let heard = t.heard(T0, LAN, v6(1), Some(OTHER), Hearing::Solicitation);
        assert_ne!(heard, Heard::Ignored);
        assert_eq!((state(&t, T0, v6(1)), mac(&t, T0, v6(1))), (Some(Stale), Some(OTHER)), "from {before:?}");
        assert_eq!(matches!(heard, Heard::Resolved { .. }), before == Incomplete);
    }
    // The address on record says nothing new, and a solicitation without its sender's MAC says nothing at all.
    for before in [Reachable, Stale, Delay, Probe] {
        for said in [Some(MAC), None] {
            let mut t = in_state(before, v6(1));
            t.heard(T0, LAN, v6(1), said, Hearing::Solicitation);
            assert_eq!(state(&t, T0, v6(1)), Some(before));
        }
    }
    let mut t = table(8);
    assert_eq!(t.heard(T0, LAN, v6(1), None, Hearing::Solicitation), Heard::Ignored);
    assert!(t.is_empty());
}

#[test]
fn arp_1_merges_what_it_knows_and_adds_only_who_asks_for_us() {
    let mut t = table(8);
    for hearing in [Hearing::Overheard, Hearing::Answer, Hearing::Gratuitous] {
        assert_eq!(t.heard(T0, LAN, v4(1), Some(MAC), hearing), Heard::Ignored);
    }
    assert!(matches!(t.heard(T0, LAN, v4(1), Some(MAC), Hearing::Solicitation), Heard::Created { .. }));
    let later = T0 + secs(1);
    assert!(matches!(
        t.heard(later, LAN, v4(1), Some(OTHER), Hearing::Overheard),
        Heard::Moved { from: MAC, .. }
    ));
    assert_eq!((state(&t, later, v4(1)), mac(&t, later, v4(1))), (Some(NeighborState::Stale), Some(OTHER)));
    assert_eq!(t.lookup(later, SegmentId(2), v4(1)), Adjacency::Unknown);
}

#[test]
fn arp_1_a_request_between_others_resolves_whom_we_ask_for() {
    let mut t = in_state(NeighborState::Incomplete, v4(1));
    assert!(matches!(t.heard(T0, LAN, v4(1), Some(MAC), Hearing::Overheard), Heard::Resolved { .. }));
    assert_eq!(state(&t, T0, v4(1)), Some(NeighborState::Stale));
}

#[test]
fn arp_2_addresses_no_station_has_teach_nothing() {
    let mut t = in_state(NeighborState::Incomplete, v4(1));
    for bad in [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr([0x01, 0, 0x5e, 0, 0, 1])] {
        assert_eq!(t.heard(T0, LAN, v4(1), Some(bad), Hearing::Answer), Heard::Ignored);
    }
    for bad in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1", "::1"] {
        assert_eq!(
            t.heard(T0, LAN, bad.parse().unwrap(), Some(MAC), Hearing::Solicitation),
            Heard::Ignored,
            "{bad}"
        );
    }
    assert_eq!(t.len(), 1);
}

#[test]
fn arp_3_asks_three_times_a_second_apart_and_then_fails() {
    for ip in [v4(9), v6(9)] {
        let mut t = table(8);
        assert_eq!(t.lookup(T0, LAN, ip), Adjacency::Unknown);
        let first = t.resolve(T0, LAN, ip).unwrap();
        assert!(first.solicit);
        assert_eq!(t.lookup(T0, LAN, ip), Adjacency::Pending { slot: first.slot });
        // Wanting it again asks no faster.
        assert_eq!(t.resolve(T0 + ms(10), LAN, ip), Ok(Resolving { slot: first.slot, solicit: false }));
        let ask = NeighborAction::Solicit { segment: LAN, ip, unicast_to: None };
        assert_eq!(actions(&mut t, T0 + ms(999)), []);
        assert_eq!(actions(&mut t, T0 + secs(1)), [ask]);
        assert_eq!(actions(&mut t, T0 + secs(2)), [ask]);
        assert_eq!(t.next_timeout(), Some(T0 + secs(3)));
        let failed = NeighborAction::Failed { segment: LAN, ip, slot: first.slot };
        assert_eq!(actions(&mut t, T0 + secs(3)), [failed]);
        assert_eq!(t.next_timeout(), None);
        // For a second it counts as unreachable, and then it is asked again.
        assert_eq!(t.lookup(T0 + ms(3999), LAN, ip), Adjacency::Failed);
        assert_eq!(t.lookup(T0 + secs(4), LAN, ip), Adjacency::Unknown);
        assert!(t.resolve(T0 + secs(4), LAN, ip).unwrap().solicit);
        assert_eq!(t.counters().solicitations, 4);
    }
}

#[test]
fn arp_3_late_timeouts_do_not_bunch_solicitations() {
    let mut t = table(8);
    assert!(t.resolve(T0, LAN, v4(1)).unwrap().solicit);
    assert_eq!(actions(&mut t, T0 + ms(1900)).len(), 1);
    assert_eq!(t.next_timeout(), Some(T0 + ms(2900)));
}

#[test]
fn arp_4_walks_through_the_states() {
    use NeighborState::{Delay, Probe, Reachable, Stale};
    for (ip, answer) in [(v4(1), Hearing::Answer), (v6(1), ANSWER)] {
        let mut t = table(8);
        let _ = t.resolve(T0, LAN, ip).unwrap();
        let Heard::Resolved { slot } = t.heard(T0, LAN, ip, Some(MAC), answer) else {
            panic!("the answer resolves");
        };
        assert_eq!(state(&t, T0, ip), Some(Reachable));
        t.use_entry(T0, slot);
        assert_eq!(state(&t, T0 + ms(14_999), ip), Some(Reachable));
        assert_eq!(state(&t, T0 + secs(45), ip), Some(Stale));
        // An idle stale entry costs nothing.
        assert_eq!(t.next_timeout(), None);
        let used = T0 + secs(50);
        t.use_entry(used, slot);
        assert_eq!(state(&t, used, ip), Some(Delay));
        // Traffic goes on meanwhile, and does not put the probe off.
        t.use_entry(used + secs(3), slot);
        assert!(matches!(t.lookup(used + secs(3), LAN, ip), Adjacency::Known { mac: MAC, .. }));
        let probe = NeighborAction::Solicit { segment: LAN, ip, unicast_to: Some(MAC) };
        assert_eq!(actions(&mut t, used + secs(5)), [probe]);
        assert_eq!(state(&t, used + secs(5), ip), Some(Probe));
        t.heard(used + secs(6), LAN, ip, Some(MAC), answer);
        assert_eq!(state(&t, used + secs(6), ip), Some(Reachable));
        assert_eq!(t.next_timeout(), None);
    }
}

#[test]
fn ip6_2_three_unanswered_probes_fail_and_traffic_asks_anew_at_once() {
    let mut t = in_state(NeighborState::Probe, v6(1));
    let Adjacency::Known { slot, generation, .. } = t.lookup(T0, LAN, v6(1)) else {
        panic!("a probed neighbour is known");
    };
    assert_eq!(t.resolved(slot, generation), Some(MAC));
    // The first probe went out one second before T0.
    assert_eq!(actions(&mut t, T0).len(), 1);
    assert_eq!(actions(&mut t, T0 + secs(1)).len(), 1);
    let failed = NeighborAction::Failed { segment: LAN, ip: v6(1), slot };
    assert_eq!(actions(&mut t, T0 + secs(2)), [failed]);
    assert_eq!(t.resolved(slot, generation), None);
    assert_eq!(t.lookup(T0 + secs(2), LAN, v6(1)), Adjacency::Unknown);
    assert!(t.resolve(T0 + secs(2), LAN, v6(1)).unwrap().solicit);
    // The same MAC address found anew is another object.
    t.heard(T0 + secs(2), LAN, v6(1), Some(MAC), ANSWER);
    assert_eq!(t.resolved(slot, generation), None);
}

#[test]
fn ip6_2_reachable_time_is_random_between_half_and_one_and_a_half() {
    let mut t = table(400);
    let mut times = Vec::new();
    for n in 0..400 {
        let _ = t.resolve(T0, LAN, v6(n)).unwrap();
        t.heard(T0, LAN, v6(n), Some(MAC), ANSWER);
        times
            .push((15..=46).find(|&s| state(&t, T0 + secs(s), v6(n)) == Some(NeighborState::Stale)).unwrap());
    }
    assert_eq!(times.iter().filter(|&&s| s <= 15).count(), 0, "never before half the time");
    assert!(times.iter().all(|&s| s <= 45));
    assert!(times.iter().any(|&s| s < 19) && times.iter().any(|&s| s > 41), "{times:?}");
}

#[test]
fn arp_6_a_gratuitous_message_updates_only_what_is_there() {
    let mut t = table(8);
    assert_eq!(t.heard(T0, LAN, v4(1), Some(MAC), Hearing::Gratuitous), Heard::Ignored);
    let mut t = in_state(NeighborState::Reachable, v4(1));
    let Adjacency::Known { slot, generation, .. } = t.lookup(T0, LAN, v4(1)) else {
        panic!("a reachable neighbour is known");
    };
    let heard = t.heard(T0, LAN, v4(1), Some(OTHER), Hearing::Gratuitous);
    assert_eq!(heard, Heard::Moved { slot, from: MAC });
    assert_eq!(state(&t, T0, v4(1)), Some(NeighborState::Stale));
    assert_eq!(t.resolved(slot, generation), None);
}

#[test]
fn arp_6_the_first_of_two_arp_answers_wins_for_100_ms() {
    let mut t = table(8);
    let _ = t.resolve(T0, LAN, v4(1)).unwrap();
    t.heard(T0, LAN, v4(1), Some(MAC), Hearing::Answer);
    assert!(matches!(t.heard(T0 + ms(99), LAN, v4(1), Some(OTHER), Hearing::Answer), Heard::Noted { .. }));
    assert_eq!(
        (state(&t, T0 + ms(99), v4(1)), mac(&t, T0 + ms(99), v4(1))),
        (Some(NeighborState::Reachable), Some(MAC))
    );
    assert!(matches!(t.heard(T0 + ms(100), LAN, v4(1), Some(OTHER), Hearing::Answer), Heard::Moved { .. }));
    // An announcement does not wait, nor does IPv6, which has the override flag.
    assert!(matches!(t.heard(T0 + ms(101), LAN, v4(1), Some(MAC), Hearing::Gratuitous), Heard::Moved { .. }));
    let _ = t.resolve(T0, LAN, v6(1)).unwrap();
    t.heard(T0, LAN, v6(1), Some(MAC), ANSWER);
    assert!(matches!(t.heard(T0, LAN, v6(1), Some(OTHER), ANSWER), Heard::Moved { .. }));
}

#[test]
fn arp_4_a_full_table_gives_up_the_failed_and_the_stale_and_refuses_otherwise() {
    let mut t = table(2);
    t.heard(T0, LAN, v4(1), Some(MAC), Hearing::Solicitation);
    t.heard(T0 + secs(30), LAN, v4(2), Some(MAC), Hearing::Solicitation);
    // Somebody who merely asks does not push out what is younger than a minute.
    assert_eq!(t.heard(T0 + secs(59), LAN, v4(3), Some(MAC), Hearing::Solicitation), Heard::Ignored);
    assert_eq!(t.counters().refused, 1);
    assert!(matches!(
        t.heard(T0 + secs(60), LAN, v4(3), Some(MAC), Hearing::Solicitation),
        Heard::Created { .. }
    ));
    assert_eq!(state(&t, T0 + secs(60), v4(1)), None, "the one stale for longest goes");
    // Traffic does.
    let _ = t.resolve(T0 + secs(61), LAN, v4(4)).unwrap();
    let _ = t.resolve(T0 + secs(61), LAN, v4(5)).unwrap();
    assert_eq!(t.resolve(T0 + secs(61), LAN, v4(6)), Err(TableFull));
    assert_eq!((t.len(), t.counters().evicted, t.counters().refused), (2, 3, 2));
    for s in 62..=64 {
        actions(&mut t, T0 + secs(s));
    }
    let _ = t.resolve(T0 + secs(64), LAN, v4(6)).unwrap();
    assert_eq!(t.len(), 2);
}

#[test]
fn arp_3_eviction_does_not_forget_that_a_neighbour_was_just_asked() {
    let mut t = table(1);
    let _ = t.resolve(T0, LAN, v4(1)).unwrap();
    t.heard(T0 + ms(200), LAN, v4(1), Some(MAC), Hearing::Overheard);
    assert_eq!(t.resolve(T0 + ms(999), LAN, v4(2)), Err(TableFull));
    assert!(t.resolve(T0 + secs(1), LAN, v4(2)).is_ok());
}

#[test]
fn what_is_removed_names_its_slot_and_leaves_no_deadline() {
    let mut t = table(8);
    let kept = t.resolve(T0, SegmentId(2), v4(1)).unwrap().slot;
    let one = t.resolve(T0, LAN, v4(1)).unwrap().slot;
    let two = t.resolve(T0, LAN, v6(1)).unwrap().slot;
    let three = t.resolve(T0, LAN, v6(2)).unwrap().slot;
    assert_eq!(t.remove(LAN, v4(1)), Some(one));
    assert_eq!(t.remove(LAN, v4(1)), None);
    let mut slots = Vec::new();
    t.flush_segment(LAN, &mut |slot| slots.push(slot));
    slots.sort_unstable();
    assert_eq!(slots, [two.min(three), two.max(three)]);
    assert_eq!(t.lookup(T0, SegmentId(2), v4(1)), Adjacency::Pending { slot: kept });
    assert_eq!(actions(&mut t, T0 + secs(1)).len(), 1);
    assert_eq!(t.counters().removed, 3);
}

#[test]
fn a_timeout_does_no_more_than_its_budget() {
    let mut t = table(8);
    for n in 0..8 {
        let _ = t.resolve(T0, LAN, v6(n)).unwrap();
    }
    let mut count = 0;
    t.handle_timeout(T0 + secs(1), 3, &mut |_| count += 1);
    assert_eq!(count, 3);
    assert_eq!(t.next_timeout(), Some(T0 + secs(1)));
    t.handle_timeout(T0 + secs(1), 100, &mut |_| count += 1);
    assert_eq!(count, 8);
    assert_eq!(t.next_timeout(), Some(T0 + secs(2)));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(u64),
    Send(u8),
    Resolve(u8),
    Hear(u8, Option<u8>, Hearing),
    Timeout(usize),
    Remove(u8),
    Flush,
}

fn hearing() -> impl Strategy<Value = Hearing> {
    prop_oneof![
        Just(Hearing::Solicitation),
        Just(Hearing::Overheard),
        Just(Hearing::Answer),
        Just(Hearing::Gratuitous),
        (any::<bool>(), any::<bool>())
            .prop_map(|(solicited, override_flag)| Hearing::Advertisement { solicited, override_flag }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..1200).prop_map(Step::Advance),
        1 => (0u64..50_000).prop_map(Step::Advance),
        8 => (0u8..10).prop_map(Step::Send),
        2 => (0u8..10).prop_map(Step::Resolve),
        8 => (0u8..10, proptest::option::of(0u8..3), hearing()).prop_map(|(n, m, h)| Step::Hear(n, m, h)),
        6 => (0usize..6).prop_map(Step::Timeout),
        1 => (0u8..10).prop_map(Step::Remove),
        1 => (0u8..40).prop_map(|n| if n == 0 { Step::Flush } else { Step::Send(n % 10) }),
    ]
}

/// Ten addresses of both families.
fn address(n: u8) -> IpAddr {
    if n.is_multiple_of(2) { v4(n + 1) } else { v6(u16::from(n) + 1) }
}

/// When each destination was asked last; whoever is asked again within a second fails the test.
#[derive(Default)]
struct Rate(BTreeMap<IpAddr, Duration>);

impl Rate {
    fn asked(&mut self, now: Duration, ip: IpAddr) -> Result<(), TestCaseError> {
        if let Some(last) = self.0.insert(ip, now) {
            prop_assert!(now - last >= secs(1), "{ip} asked at {last:?} and {now:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_deadlines_rate_and_bounds_hold(
        capacity in 1u32..8,
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut t = Neighbors::new(&limits(capacity), &Seed::from_u64(seed), NeighborTimers::default());
        let mut now = secs(100);
        let mut rate = Rate::default();
        // Whose frames would be parked under which slot.
        let mut waiting: BTreeMap<u32, IpAddr> = BTreeMap::new();
        let mut kept: Vec<(IpAddr, MacAddr, u32, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Advance(by) => now += ms(by),
                Step::Send(n) => match t.lookup(now, LAN, address(n)) {
                    Adjacency::Known { mac, slot, generation } => {
                        t.use_entry(now, slot);
                        kept.push((address(n), mac, slot, generation));
                    }
                    Adjacency::Pending { slot } => prop_assert_eq!(waiting.get(&slot), Some(&address(n))),
                    Adjacency::Failed => {}
                    Adjacency::Unknown => if let Ok(resolving) = t.resolve(now, LAN, address(n)) {
                        if resolving.solicit {
                            rate.asked(now, address(n))?;
                        }
                        prop_assert_eq!(waiting.insert(resolving.slot, address(n)), None);
                    }
                },
                Step::Resolve(n) => if let Ok(resolving) = t.resolve(now, LAN, address(n)) {
                    if resolving.solicit {
                        rate.asked(now, address(n))?;
                    }
                    if t.lookup(now, LAN, address(n)) == (Adjacency::Pending { slot: resolving.slot }) {
                        waiting.insert(resolving.slot, address(n));
                    }
                }
                Step::Hear(n, m, hearing) => {
                    let mac = m.map(|m| MacAddr::local(u64::from(m) + 1));
                    let before = t.lookup(now, LAN, address(n));
                    let heard = t.heard(now, LAN, address(n), mac, hearing);
                    let after = t.lookup(now, LAN, address(n));
                    if let Heard::Resolved { slot } = heard {
                        prop_assert_eq!(before, Adjacency::Pending { slot });
                        prop_assert_eq!(waiting.remove(&slot), Some(address(n)));
                    }
                    let known = |a| {
                        if let Adjacency::Known { mac, .. } = a { Some(mac) } else { None }
                    };
                    match heard {
                        Heard::Ignored => prop_assert_eq!(before, after),
                        Heard::Noted { .. } => prop_assert_eq!(known(before), known(after)),
                        Heard::Created { .. } | Heard::Resolved { .. } => {
                            prop_assert_eq!((known(before), known(after)), (None, mac));
                        }
                        Heard::Moved { from, .. } => {
                            prop_assert_eq!((known(before), known(after)), (Some(from), mac));
                            prop_assert_ne!(Some(from), mac);
                        }
                    }
                }
                Step::Timeout(budget) => {
                    let mut out = Vec::new();
                    t.handle_timeout(now, budget, &mut |action| out.push(action));
                    prop_assert!(out.len() <= budget);
                    for action in out {
                        match action {
                            NeighborAction::Solicit { ip, unicast_to, .. } => {
                                rate.asked(now, ip)?;
                                let known = mac(&t, now, ip);
                                prop_assert_eq!(known, unicast_to);
                            }
                            NeighborAction::Failed { ip, slot, .. } => {
                                let waited = waiting.remove(&slot);
                                prop_assert!(waited.is_none() || waited == Some(ip));
                                prop_assert_eq!(state(&t, now, ip), Some(NeighborState::Failed));
                            }
                        }
                    }
                }
                Step::Remove(n) => if let Some(slot) = t.remove(LAN, address(n)) {
                    waiting.remove(&slot);
                    rate.0.remove(&address(n));
                },
                Step::Flush => {
                    t.flush_segment(LAN, &mut |slot| { waiting.remove(&slot); });
                    rate.0.clear();
                    prop_assert!(t.is_empty() && waiting.is_empty());
                }
            }
            prop_assert!(t.len() <= capacity as usize);
            // Exactly the states that wait for something have a deadline, and it is at most five seconds away.
            let mut due = 0;
            for (slot, key, entry) in t.table.iter() {
                let pending = match entry.state(now) {
                    NeighborState::Incomplete | NeighborState::Delay | NeighborState::Probe => true,
                    NeighborState::Reachable | NeighborState::Stale | NeighborState::Failed => false,
                };
                let deadline = t.deadlines.of(slot);
                prop_assert_eq!(deadline.is_some(), pending, "{:?} {:?}", key, entry);
                prop_assert!(deadline.is_none_or(|at| at <= now + secs(5)));
                due += usize::from(pending);
                // Frames wait for those that are asked for and for nobody else.
                let incomplete = entry.state(now) == NeighborState::Incomplete;
                prop_assert_eq!(waiting.get(&slot) == Some(&key.1), incomplete);
            }
            let mut heap = 0;
            for slot in 0..capacity {
                heap += usize::from(t.deadlines.of(slot).is_some());
            }
            prop_assert_eq!(heap, due);
            // A kept slot and generation give the kept address of the kept neighbour, or nothing.
            for (ip, mac, slot, generation) in &kept {
                if let Some(found) = t.resolved(*slot, *generation) {
                    prop_assert_eq!(found, *mac);
                    prop_assert_eq!(t.table.at(*slot).map(|(key, _)| key.1), Some(*ip));
                }
            }
            let c = t.counters();
            prop_assert_eq!(c.created, t.len() as u64 + c.evicted + c.removed);
        }
    }

    #[test]
    fn driven_on_time_every_question_ends_within_three_seconds(wanted in proptest::collection::vec(0u8..10, 1..10)) {
        let mut t = table(10);
        for &n in &wanted {
            let _ = t.resolve(T0, LAN, address(n));
        }
        let mut failed = 0;
        let mut rounds = 0;
        while let Some(at) = t.next_timeout() {
            failed += actions(&mut t, at).iter().filter(|a| matches!(a, NeighborAction::Failed { .. })).count();
            prop_assert!(at <= T0 + secs(3));
            rounds += 1;
            prop_assert!(rounds <= 3);
        }
        prop_assert_eq!(failed, t.len());
    }
}
