//! Each oracle of these tests is shown to catch a planted bug.

use netstack::counters::Counters;
use netstack::verdict::{DropReason, EgressDrop, Fate, Origin};

use crate::lab::{Lab, entered, left};
use crate::packets::{BROADCAST, ethernet, sound, with_wrong_checksum};
use crate::world::{FAMILIES, POD_A, POD_B, bridge, everybody};

const A: netstack::addr::MacAddr = netstack::addr::MacAddr([2, 0, 0, 0, 1, 0xa]);

/// Counters of a switch that has met every fate, with one frame queued and one parked.
fn balanced() -> Counters {
    let mut counters = Counters { rx_frames: 7, tx_frames: 4, ..Counters::default() };
    for (fate, count) in
        [(Fate::Forwarded, 2), (Fate::Flooded, 1), (Fate::Consumed, 1), (Fate::Parked, 2), (Fate::Dropped, 1)]
    {
        counters.fates[fate.index()] = count;
    }
    counters.drops[DropReason::NoRoute.index()] = 1;
    for (origin, count) in [
        (Origin::Forwarded, 1),
        (Origin::Segment, 2),
        (Origin::FloodCopy, 1),
        (Origin::Originated, 1),
        (Origin::Unparked, 1),
    ] {
        counters.origins[origin.index()] = count;
    }
    counters.replaced[Origin::Forwarded.index()] = 1;
    counters.egress_drops[EgressDrop::QueueFull.index()][Origin::FloodCopy.index()] = 1;
    counters
}

#[test]
fn conservation_holds_for_balanced_counters() {
    assert_eq!(balanced().check(1, 1, 0), Ok(()));
}

#[test]
fn conservation_catches_any_counter_that_is_off_by_one() {
    let plant = |bug: &dyn Fn(&mut Counters)| {
        let mut counters = balanced();
        bug(&mut counters);
        counters.check(1, 1, 0)
    };
    let text = plant(&|c| c.rx_frames += 1).unwrap_err();
    assert!(text.contains("frames in = fates + held: 8 != 7"), "{text}");
    assert!(plant(&|c| c.tx_frames += 1).is_err());
    for &fate in Fate::ALL {
        assert!(plant(&|c| c.fates[fate.index()] += 1).is_err(), "{fate}");
    }
    for &reason in DropReason::ALL {
        assert!(plant(&|c| c.drops[reason.index()] += 1).is_err(), "{reason}");
        assert!(plant(&|c| c.parked_drops[reason.index()] += 1).is_err(), "{reason} while parked");
    }
    for &origin in Origin::ALL {
        assert!(plant(&|c| c.origins[origin.index()] += 1).is_err(), "{origin}");
        for &reason in EgressDrop::ALL {
            assert!(
                plant(&|c| c.egress_drops[reason.index()][origin.index()] += 1).is_err(),
                "{reason} {origin}"
            );
        }
    }
    // What was replaced must have been forwarded or waiting; a copy of a flood has no equation of its own.
    for origin in [Origin::Forwarded, Origin::Unparked] {
        assert!(plant(&|c| c.replaced[origin.index()] += 1).is_err(), "{origin}");
    }
    assert!(balanced().check(0, 1, 0).is_err());
    assert!(balanced().check(1, 0, 0).is_err());
    assert!(balanced().check(2, 1, 0).is_err());
    assert!(balanced().check(1, 2, 0).is_err());
    assert!(balanced().check(1, 1, 1).is_err());
}

#[test]
#[should_panic(expected = "! Tx(2): +1, expected +0")]
fn the_lab_catches_a_counter_that_moved_unexpectedly() {
    let mut lab = Lab::new(bridge(3));
    lab.send(0, &ethernet(A, BROADCAST, 0x88b5, 46));
    lab.expect([entered(0, Fate::Flooded), left(1, Origin::FloodCopy)]);
}

#[test]
#[should_panic(expected = "! Rx(1): +0, expected +1")]
fn the_lab_catches_a_counter_that_did_not_move() {
    let mut lab = Lab::new(bridge(2));
    lab.send(0, &ethernet(A, BROADCAST, 0x88b5, 46));
    lab.expect([entered(0, Fate::Flooded), entered(1, Fate::Flooded), left(1, Origin::FloodCopy)]);
}

#[test]
#[should_panic(expected = "something happened that the test does not state")]
fn the_lab_catches_what_a_test_does_not_state() {
    let mut lab = Lab::new(bridge(2));
    lab.send(0, &ethernet(A, BROADCAST, 0x88b5, 46));
}

#[test]
fn a_failure_shows_the_tables() {
    let caught = std::panic::catch_unwind(|| {
        let mut lab = Lab::new(everybody());
        crate::world::introduce(&mut lab, &crate::world::FAR);
        lab.expect([entered(0, Fate::Flooded)]);
    });
    let text = *caught.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("fdb: ") && text.contains("neighbour: ") && text.contains("10.1.0.2"), "{text}");
}

#[test]
fn a_wrong_checksum_is_not_sound() {
    for family in FAMILIES {
        let packet = POD_A.to(&POD_B, family);
        for (good, field) in [
            (packet.udp(1, 2, b"x"), family.of(40, 60)),
            (packet.tcp(1, 2, b"x"), family.of(50, 70)),
            (packet.echo(1, 2, b"x"), family.of(36, 56)),
        ] {
            sound(&good);
            let bad = with_wrong_checksum(good, field);
            assert!(std::panic::catch_unwind(|| sound(&bad)).is_err());
        }
    }
}
