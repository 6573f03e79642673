use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const RED: SegmentId = SegmentId(1);
const BLUE: SegmentId = SegmentId(2);

fn limits(entries: u32, per_port: u32) -> Limits {
    Limits { fdb_entries: entries, fdb_entries_per_port: per_port, ..Limits::default() }
}

fn fdb(entries: u32, per_port: u32) -> Fdb {
    Fdb::new(&limits(entries, per_port), &Seed::from_u64(1))
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn br_1_never_learns_what_is_no_source() {
    let mut fdb = fdb(8, 8);
    for mac in [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr([0x01, 0, 0x5e, 0, 0, 1])] {
        assert_eq!(fdb.learn(secs(0), RED, mac, PortId(1)), Learned::Refused(Refusal::InvalidSource));
    }
    assert!(fdb.is_empty());
}

#[test]
fn br_1_segments_learn_apart() {
    let mut fdb = fdb(8, 8);
    let mac = MacAddr::local(1);
    fdb.learn(secs(0), RED, mac, PortId(1));
    assert_eq!(fdb.lookup(secs(0), BLUE, mac), None);
    fdb.learn(secs(0), BLUE, mac, PortId(2));
    assert_eq!(fdb.lookup(secs(0), RED, mac), Some(PortId(1)));
    assert_eq!(fdb.lookup(secs(0), BLUE, mac), Some(PortId(2)));
    assert_eq!(fdb.flush_segment(RED), 1);
    assert_eq!(fdb.lookup(secs(0), RED, mac), None);
    assert_eq!(fdb.lookup(secs(0), BLUE, mac), Some(PortId(2)));
}

#[test]
fn br_2_an_address_is_believed_for_300_s_after_its_last_frame() {
    let mut fdb = fdb(8, 8);
    let mac = MacAddr::local(1);
    assert_eq!(fdb.learn(secs(10), RED, mac, PortId(1)), Learned::New);
    assert_eq!(fdb.learn(secs(200), RED, mac, PortId(1)), Learned::Refreshed);
    // Looking an address up does not keep it alive.
    let last = secs(500) - Duration::from_nanos(1);
    assert_eq!(fdb.lookup(last, RED, mac), Some(PortId(1)));
    assert_eq!(fdb.lookup(secs(500), RED, mac), None);
    assert_eq!(fdb.iter(secs(500)).count(), 0);
    assert_eq!(fdb.sweep(secs(500), 8), 1);
    assert_eq!((fdb.len(), fdb.port_len(PortId(1)), fdb.counters().aged), (0, 0, 1));
}

#[test]
fn br_2_a_busy_source_is_written_down_once_a_second() {
    let mut fdb = fdb(8, 8);
    let mac = MacAddr::local(1);
    fdb.learn(secs(0), RED, mac, PortId(1));
    let outcomes: Vec<Learned> =
        (1..=3000u64).map(|ms| fdb.learn(Duration::from_millis(ms), RED, mac, PortId(1))).collect();
    assert_eq!(outcomes.iter().filter(|&&o| o == Learned::Refreshed).count(), 3);
    assert_eq!(outcomes.iter().filter(|&&o| o == Learned::Unchanged).count(), 2997);
}

#[test]
fn br_3_mac_moves_at_once_and_stales_only_its_own_decisions() {
    let mut fdb = fdb(8, 8);
    let (mover, other) = (MacAddr::local(1), MacAddr::local(2));
    fdb.learn(secs(0), RED, mover, PortId(1));
    fdb.learn(secs(0), RED, other, PortId(1));
    let kept = fdb.lookup_slot(secs(0), RED, mover).unwrap();
    let bystander = fdb.lookup_slot(secs(0), RED, other).unwrap();
    let at = Duration::from_millis(1);
    assert_eq!(
        fdb.learn(at, RED, mover, PortId(2)),
        Learned::Moved { from: PortId(1), restless: Restless { moves: 1, returns: 0 } }
    );
    assert_eq!(fdb.lookup(at, RED, mover), Some(PortId(2)));
    assert_ne!(fdb.generation(kept.slot), Some(kept.generation));
    assert_eq!(fdb.generation(bystander.slot), Some(bystander.generation));
    // Coming back is a change as well.
    let away = fdb.lookup_slot(at, RED, mover).unwrap();
    assert_eq!(
        fdb.learn(at, RED, mover, PortId(1)),
        Learned::Moved { from: PortId(2), restless: Restless { moves: 2, returns: 1 } }
    );
    let back = fdb.lookup_slot(at, RED, mover).unwrap();
    assert!(back.generation != away.generation && back.generation != kept.generation);
}

#[test]
fn a_slot_used_again_has_another_generation() {
    let mut fdb = fdb(1, 1);
    fdb.learn(secs(0), RED, MacAddr::local(1), PortId(1));
    let kept = fdb.lookup_slot(secs(0), RED, MacAddr::local(1)).unwrap();
    assert_eq!(fdb.flush_port(PortId(1)), 1);
    assert_eq!(fdb.generation(kept.slot), None);
    fdb.learn(secs(0), RED, MacAddr::local(2), PortId(1));
    let reused = fdb.lookup_slot(secs(0), RED, MacAddr::local(2)).unwrap();
    assert_eq!(reused.slot, kept.slot);
    assert_ne!(reused.generation, kept.generation);
}

#[test]
fn br_6_a_full_table_learns_nothing_and_forgets_nothing() {
    let mut fdb = fdb(4, 4);
    for id in 0..4 {
        fdb.learn(secs(0), RED, MacAddr::local(id), PortId(1));
    }
    assert_eq!(fdb.learn(secs(1), RED, MacAddr::local(9), PortId(2)), Learned::Refused(Refusal::TableFull));
    assert_eq!(fdb.counters().refused_table, 1);
    for id in 0..4 {
        assert_eq!(fdb.lookup(secs(1), RED, MacAddr::local(id)), Some(PortId(1)));
    }
    // Room comes back with age.
    fdb.sweep(secs(300), 4);
    assert_eq!(fdb.learn(secs(300), RED, MacAddr::local(9), PortId(2)), Learned::New);
}

#[test]
fn br_6_a_move_to_a_port_without_share_leaves_the_address_to_flooding() {
    let mut fdb = fdb(8, 1);
    fdb.learn(secs(0), RED, MacAddr::local(1), PortId(1));
    fdb.learn(secs(0), RED, MacAddr::local(2), PortId(2));
    assert_eq!(
        fdb.learn(secs(1), RED, MacAddr::local(1), PortId(2)),
        Learned::Refused(Refusal::PortShareFull)
    );
    assert_eq!(fdb.lookup(secs(1), RED, MacAddr::local(1)), None);
    assert_eq!(fdb.port_len(PortId(1)), 0);
    assert_eq!(fdb.counters().displaced, 1);
}

#[test]
fn br_6_a_million_sources_on_one_port_do_not_touch_the_others() {
    let mut fdb = fdb(1024, 256);
    let host = |id: u64| MacAddr([0x02, 0xff, 0, 0, 0, id.to_be_bytes()[7]]);
    for id in 0..100 {
        assert_eq!(fdb.learn(secs(0), RED, host(id), PortId(1)), Learned::New);
    }
    for id in 0..1_000_000u64 {
        let now = Duration::from_micros(id);
        fdb.learn(now, RED, MacAddr::local(id), PortId(7));
        if id % 1000 == 0 {
            // A host that was silent so far still finds room.
            fdb.learn(now, RED, host(100 + id / 1000 % 100), PortId(2));
        }
    }
    assert_eq!(fdb.table.capacity(), 1024);
    assert_eq!((fdb.port_len(PortId(7)), fdb.port_len(PortId(1)), fdb.port_len(PortId(2))), (256, 100, 100));
    assert_eq!(fdb.held.len(), 8);
    assert_eq!(fdb.counters().refused_port, 1_000_000 - 256);
    for id in 0..200 {
        let port = if id < 100 { PortId(1) } else { PortId(2) };
        assert_eq!(fdb.lookup(secs(1), RED, host(id)), Some(port));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Advance(u16),
    Learn { segment: u16, mac: u8, port: u16 },
    Sweep(usize),
    FlushPort(u16),
    FlushSegment(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u16..2000).prop_map(Step::Advance),
        1 => (0u16..60_000).prop_map(Step::Advance),
        12 => (0u16..2, 0u8..8, 0u16..4).prop_map(|(segment, mac, port)| Step::Learn { segment, mac, port }),
        2 => (0usize..12).prop_map(Step::Sweep),
        1 => (0u16..4).prop_map(Step::FlushPort),
        1 => (0u16..2).prop_map(Step::FlushSegment),
    ]
}

/// One entry of the model: key, port, time of the last note.
type Row = (Key, PortId, Duration);

const CAPACITY: usize = 8;
const SHARE: usize = 4;
const MODEL_AGEING: Duration = Duration::from_secs(30);

fn model_learn(rows: &mut Vec<Row>, now: Duration, key: Key, port: PortId) -> Learned {
    rows.retain(|r| r.0 != key || now - r.2 < MODEL_AGEING);
    let used = rows.iter().filter(|r| r.1 == port).count();
    let Some(at) = rows.iter().position(|r| r.0 == key) else {
        if used >= SHARE {
            return Learned::Refused(Refusal::PortShareFull);
        }
        if rows.len() >= CAPACITY {
            return Learned::Refused(Refusal::TableFull);
        }
        rows.push((key, port, now));
        return Learned::New;
    };
    let (_, from, noted) = rows[at];
    if from == port {
        if now - noted < secs(1) {
            return Learned::Unchanged;
        }
        rows[at].2 = now;
        return Learned::Refreshed;
    }
    if used >= SHARE {
        rows.remove(at);
        return Learned::Refused(Refusal::PortShareFull);
    }
    rows[at] = (key, port, now);
    Learned::Moved { from, restless: Restless::default() }
}

/// How often an address went back and forth is not the model's to know.
fn at_rest(mut learned: Learned) -> Learned {
    if let Learned::Moved { restless, .. } = &mut learned {
        *restless = Restless::default();
    }
    learned
}

#[test]
fn br_7_going_back_and_forth_is_counted_within_a_second() {
    let mut fdb = fdb(8, 8);
    let mac = MacAddr::local(1);
    let mut go = |ms: u64, port: u16| {
        let learned = fdb.learn(Duration::from_millis(ms), RED, mac, PortId(port));
        let Learned::Moved { restless, .. } = learned else { return (0, 0) };
        (restless.moves, restless.returns)
    };
    assert_eq!([go(5000, 1), go(5001, 2), go(5002, 1), go(5003, 2)], [(0, 0), (1, 0), (2, 1), (3, 2)]);
    // A third port is another journey.
    assert_eq!([go(5004, 3), go(5005, 1), go(5006, 3), go(5007, 1)], [(4, 0), (5, 0), (6, 1), (7, 2)]);
    assert_eq!([go(6000, 3), go(6999, 1), go(7000, 3)], [(1, 1), (2, 2), (1, 1)]);
}

proptest! {
    #[test]
    fn behaves_like_a_list(steps in proptest::collection::vec(step(), 0..300)) {
        let mut fdb = Fdb::with_ageing(&limits(8, 4), &Seed::from_u64(5), MODEL_AGEING);
        let mut rows: Vec<Row> = Vec::new();
        let mut now = Duration::ZERO;
        let mut kept: Vec<(Key, FdbHit)> = Vec::new();
        for step in steps {
            match step {
                Step::Advance(ms) => now += Duration::from_millis(u64::from(ms)),
                Step::Learn { segment, mac, port } => {
                    let key = (SegmentId(segment), MacAddr::local(u64::from(mac)));
                    let learned = fdb.learn(now, key.0, key.1, PortId(port));
                    prop_assert_eq!(at_rest(learned), model_learn(&mut rows, now, key, PortId(port)));
                    kept.extend(fdb.lookup_slot(now, key.0, key.1).map(|hit| (key, hit)));
                }
                Step::Sweep(count) => {
                    let before = rows.len();
                    let gone = fdb.sweep(now, count);
                    prop_assert!(gone <= count);
                    // Which of the expired ones the cursor meets is the table's own affair.
                    rows.retain(|r| now - r.2 < MODEL_AGEING || fdb.table.get(&r.0).is_some());
                    prop_assert_eq!(rows.len(), before - gone);
                    if count >= CAPACITY {
                        prop_assert!(rows.iter().all(|r| now - r.2 < MODEL_AGEING));
                    }
                }
                Step::FlushPort(port) => {
                    let before = rows.len();
                    rows.retain(|r| r.1 != PortId(port));
                    prop_assert_eq!(fdb.flush_port(PortId(port)), before - rows.len());
                }
                Step::FlushSegment(segment) => {
                    let before = rows.len();
                    rows.retain(|r| r.0.0 != SegmentId(segment));
                    prop_assert_eq!(fdb.flush_segment(SegmentId(segment)), before - rows.len());
                }
            }
            prop_assert_eq!(fdb.len(), rows.len());
            prop_assert!(fdb.len() <= CAPACITY);
            for segment in 0..2 {
                for mac in 0..8 {
                    let key = (SegmentId(segment), MacAddr::local(mac));
                    let expected = rows.iter().find(|r| r.0 == key && now - r.2 < MODEL_AGEING).map(|r| r.1);
                    prop_assert_eq!(fdb.lookup(now, key.0, key.1), expected);
                }
            }
            for port in 0..4 {
                let count = rows.iter().filter(|r| r.1 == PortId(port)).count();
                prop_assert_eq!(fdb.port_len(PortId(port)) as usize, count);
                prop_assert!(count <= SHARE);
            }
            // A kept slot and generation hold for exactly the entry they were taken from.
            for (key, hit) in &kept {
                if fdb.generation(hit.slot) == Some(hit.generation) {
                    let row = rows.iter().find(|r| r.0 == *key);
                    prop_assert_eq!(row.map(|r| r.1), Some(hit.port));
                }
            }
            let c = fdb.counters();
            prop_assert_eq!(c.learned, fdb.len() as u64 + c.aged + c.flushed + c.displaced);
        }
    }
}
