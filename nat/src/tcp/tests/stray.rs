//! Segments from anybody.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn number() -> impl Strategy<Value = u32> {
    // Near the conversation's, near the edges, or anywhere.
    prop_oneof![
        (-70_000..70_000_i32).prop_map(|off| A.wrapping_add_signed(off)),
        (-70_000..70_000_i32).prop_map(|off| B.wrapping_add_signed(off)),
        Just(0),
        any::<u32>(),
    ]
}

fn stray() -> impl Strategy<Value = (bool, Segment)> {
    let flags = prop_oneof![
        prop_oneof![Just(SYN), Just(SYN | ACK), Just(FIN | ACK), Just(ACK), Just(RST), Just(RST | ACK)],
        any::<u8>()
    ];
    let options = (proptest::option::of(0..=14_u8), any::<bool>(), proptest::option::of(number()))
        .prop_map(|(scale, sack_permitted, sack)| Options { scale, sack_permitted, sack });
    let length = prop_oneof![Just(0), 0..70_000_u32, any::<u32>()];
    (any::<bool>(), flags, number(), number(), any::<u16>(), length, options).prop_map(
        |(reply, flags, sequence, acknowledgement, window, length, options)| {
            (reply, Segment { flags, sequence, acknowledgement, window, length, options })
        },
    )
}

fn knobs() -> impl Strategy<Value = Knobs> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<u8>()).prop_map(
        |(loose, liberal, ignore_invalid_rst, max_retransmissions)| Knobs {
            loose,
            liberal,
            ignore_invalid_rst,
            max_retransmissions,
        },
    )
}

fn direction(reply: bool) -> Direction {
    if reply { Reply } else { Original }
}

/// The connection as it looks from its other end.
fn mirrored(mut tcp: Tcp) -> Tcp {
    tcp.edges.swap(0, 1);
    tcp.marks.swap(0, 1);
    tcp.last.direction = tcp.last.direction.reverse();
    tcp
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_segments_make_the_tracker_panic_or_forget(
        start in 1..STATES.len(),
        strays in proptest::collection::vec(stray(), 1..60),
        knobs in knobs(),
    ) {
        let times = crate::timeouts::Timeouts::rfc().tcp;
        let mut tcp = Talk::reach(STATES[start], LINUX).tcp;
        for (reply, segment) in strays {
            let before = tcp;
            let outcome = tcp.update(direction(reply), &segment, knobs);
            prop_assert_ne!(tcp.state(), State::None);
            prop_assert!(tcp.has_reply() || !before.has_reply());
            prop_assert!(tcp.is_assured() || !before.is_assured());
            prop_assert!(tcp.marks.iter().all(|marks| marks.scale <= 14));
            let time = tcp.timeout(&times, knobs);
            prop_assert!(time > Duration::ZERO && time <= times.established);
            match outcome {
                Outcome::Accepted(accepted) => {
                    prop_assert_eq!(accepted.changed, tcp.state() != before.state());
                    prop_assert!(segment.has_valid_flags());
                }
                Outcome::Ignored(_) | Outcome::Invalid { .. } => {
                    prop_assert_eq!(tcp.state(), before.state());
                    prop_assert_eq!(tcp.is_assured(), before.is_assured());
                }
                Outcome::StartAgain => {
                    prop_assert_eq!(tcp, before);
                    prop_assert!(segment.flags & SYN != 0);
                }
                Outcome::Remove => prop_assert!(segment.flags & RST != 0),
            }
        }
    }

    /// Only what is taken without a judgement is taken at all, and as it would be with one.
    #[test]
    fn what_is_proceeded_with_is_as_it_would_be_judged(
        start in 1..STATES.len(),
        strays in proptest::collection::vec(stray(), 1..60),
        knobs in knobs(),
    ) {
        let mut tcp = Talk::reach(STATES[start], LINUX).tcp;
        for (reply, segment) in strays {
            let (before, mut judged) = (tcp, tcp);
            let outcome = judged.update(direction(reply), &segment, knobs);
            if tcp.proceed(direction(reply), &segment, knobs) {
                prop_assert_eq!(tcp, judged);
                let refreshed = matches!(outcome, Outcome::Accepted(accepted) if accepted.refresh);
                prop_assert!(refreshed && segment.flags & (SYN | RST) == 0);
            } else {
                prop_assert_eq!(tcp, before);
            }
            tcp = judged;
        }
    }

    #[test]
    fn an_opened_connection_stands_or_is_refused(segment in stray(), knobs in knobs()) {
        let (_, segment) = segment;
        match Tcp::open(&segment, knobs) {
            Ok(tcp) if segment.flags & SYN != 0 => prop_assert_eq!(tcp.state(), State::SynSent),
            Ok(tcp) => {
                prop_assert_eq!(tcp.state(), State::Established);
                prop_assert!(knobs.loose);
            }
            Err(Invalid::Flags) => prop_assert!(!segment.has_valid_flags()),
            Err(Invalid::Middle) => prop_assert!(!knobs.loose),
            Err(reason) => prop_assert_eq!(reason, Invalid::State),
        }
    }

    /// Once it is established, nothing tells a connection's two ends apart but a SYN.
    #[test]
    fn both_ends_are_treated_alike(
        start in 3..9_usize,
        strays in proptest::collection::vec(stray(), 1..60),
        knobs in knobs(),
    ) {
        let mut tcp = Talk::reach(STATES[start], LINUX).tcp;
        let mut mirror = mirrored(tcp);
        let strays: Vec<_> = strays.into_iter().filter(|(_, segment)| segment.flags & SYN == 0).collect();
        for (reply, segment) in strays {
            let here = tcp.update(direction(reply), &segment, knobs);
            let there = mirror.update(direction(!reply), &segment, knobs);
            prop_assert_eq!(here, there);
            prop_assert_eq!(mirrored(tcp), mirror);
        }
    }
}

const LINUX: Knobs = Knobs::linux();
