//! The rules, one by one. NAT-24 stands with the reading of segments, NAT-33 with the honest endpoints.

use super::flag::{CWR, ECE, PSH, URG};
use super::*;
use crate::timeouts::Timeouts;

const LINUX: Knobs = Knobs::linux();
const TIMES: TcpTimeouts = Timeouts::linux().tcp;
/// What every segment of the tests grants.
const WINDOW: u32 = 32_768;

fn above() -> Outcome {
    invalid(Invalid::SequenceAbove)
}

impl Talk {
    fn time(&self) -> Duration {
        self.tcp.timeout(&TIMES, self.knobs)
    }

    /// The next octet of a direction.
    fn at(&self, direction: Direction) -> u32 {
        self.next[direction.index()]
    }

    /// Some octets go in a direction, window by window, and each is acknowledged.
    fn transfer(mut self, direction: Direction, mut octets: u32) -> Self {
        while octets > 0 {
            let length = octets.min(WINDOW);
            self = self.ok(direction, ACK, length).ok(direction.reverse(), ACK, 0);
            octets -= length;
        }
        self
    }
}

#[test]
fn nat_21_a_syn_that_comes_again_does_not_extend_the_time() {
    let mut talk = Talk::open(LINUX);
    assert_eq!(talk.time(), TIMES.syn_sent);
    for _ in 0..60 {
        assert_eq!(talk.give(Original, segment(SYN, A, 0, 0)), accepted(false, false));
        assert_eq!(talk.give(Original, segment(SYN, A + 5, 0, 0)), accepted(false, false), "nor another one");
    }
    talk.next[0] = A + 6;
    assert_eq!(talk.say(Reply, SYN | ACK, 0), accepted(true, true));
    assert_eq!(talk.time(), TIMES.syn_recv);
}

#[test]
fn nat_23_of_the_64_combinations_of_flags_nine_are_sane() {
    let sane = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
    for flags in 0..=0xff_u8 {
        let probe = segment(flags, A, 0, 0);
        let expected = sane.contains(&(flags & !(PSH | ECE | CWR)));
        assert_eq!(probe.has_valid_flags(), expected, "{flags:08b}");
        if !expected {
            assert_eq!(Tcp::open(&probe, LINUX), Err(Invalid::Flags));
            let mut talk = Talk::established(LINUX);
            let before = talk.tcp;
            assert_eq!(talk.give(Original, probe), invalid(Invalid::Flags), "{flags:08b}");
            assert_eq!(talk.tcp, before);
        }
    }
}

#[test]
fn nat_25_condition_1_a_segment_begins_at_or_below_what_was_granted() {
    for (length, beyond, expected) in [
        (0, 0, accepted(true, false)),
        (100, 0, accepted(true, false)),
        (0, 1, Outcome::Ignored(Ignored::SequenceBeyond)),
        (0, WINDOW - 1, Outcome::Ignored(Ignored::SequenceBeyond)),
        (1, WINDOW - 1, above()),
        (0, WINDOW, above()),
        (0, 1 << 30, above()),
    ] {
        for (direction, first) in [(Original, A), (Reply, B)] {
            let mut talk = Talk::established(LINUX);
            let granted = first.wrapping_add(1).wrapping_add(WINDOW);
            let acknowledgement = talk.at(direction.reverse());
            let probe = segment(ACK, granted.wrapping_add(beyond), acknowledgement, length);
            assert_eq!(talk.give(direction, probe), expected, "{direction:?} {length} {beyond}");
        }
    }
}

#[test]
fn nat_26_what_lies_beyond_by_no_more_than_a_window_may_be_acknowledged() {
    let mut talk = Talk::established(LINUX);
    let granted = A + 1 + WINDOW;
    let late = segment(ACK, granted + 1, B.wrapping_add(1), 100);
    assert_eq!(talk.give(Original, late), Outcome::Ignored(Ignored::SequenceBeyond));
    let mut honest = talk;
    let acknowledging = segment(ACK, B.wrapping_add(1), granted + 101, 0);
    assert_eq!(honest.give(Reply, acknowledging), accepted(true, false));
    let mut early = Talk::established(LINUX);
    assert_eq!(early.give(Reply, acknowledging), invalid(Invalid::AcknowledgementAbove));
}

#[test]
fn nat_26_condition_2_what_was_acknowledged_long_ago_is_ignored() {
    for (direction, other) in [(Original, Reply), (Reply, Original)] {
        let talk = Talk::established(LINUX).transfer(direction, 70_000);
        let lowest = talk.at(direction).wrapping_sub(WINDOW);
        for (end, expected) in [
            (lowest, accepted(true, false)),
            (lowest.wrapping_sub(1), Outcome::Ignored(Ignored::SequenceBelow)),
        ] {
            let again = segment(ACK, end.wrapping_sub(1_000), talk.at(other), 1_000);
            let mut talk = talk;
            let before = talk.tcp;
            assert_eq!(talk.give(direction, again), expected, "{direction:?}");
            if matches!(expected, Outcome::Ignored(_)) {
                assert_eq!(talk.tcp, before, "nothing changes");
            }
        }
    }
}

#[test]
fn nat_25_condition_3_nothing_is_acknowledged_that_was_not_sent() {
    for (direction, other) in [(Original, Reply), (Reply, Original)] {
        let talk = Talk::established(LINUX).ok(other, ACK, 100);
        for (more, expected) in [(0, accepted(true, false)), (1, invalid(Invalid::AcknowledgementAbove))] {
            let mut talk = talk;
            let probe = segment(ACK, talk.at(direction), talk.at(other).wrapping_add(more), 0);
            assert_eq!(talk.give(direction, probe), expected, "{direction:?} {more}");
        }
    }
}

#[test]
fn nat_26_condition_4_an_acknowledgement_that_is_long_overdue_is_ignored() {
    for (direction, other) in [(Original, Reply), (Reply, Original)] {
        let talk = Talk::established(LINUX).transfer(other, 200_000);
        let least = talk.at(other).wrapping_sub(66_000);
        for (acknowledgement, expected) in [
            (least, accepted(true, false)),
            (least.wrapping_sub(1), Outcome::Ignored(Ignored::AcknowledgementBelow)),
        ] {
            let mut talk = talk;
            let probe = segment(ACK, talk.at(direction), acknowledgement, 0);
            assert_eq!(talk.give(direction, probe), expected, "{direction:?}");
        }
    }
}

/// Handshake with options and windows of the two SYNs.
fn handshake(options: [Options; 2], window: u16) -> Talk {
    let syn = Segment { options: options[0], window, ..segment(SYN, A, 0, 0) };
    let tcp = Tcp::open(&syn, LINUX).unwrap();
    let mut talk = Talk { tcp, knobs: LINUX, next: [A + 1, B.wrapping_add(1)] };
    let answer = Segment { options: options[1], window, ..segment(SYN | ACK, B, A + 1, 0) };
    assert_eq!(talk.give(Reply, answer), accepted(true, true));
    talk
}

#[test]
fn nat_25_windows_are_scaled_if_both_sides_offered_it_and_those_of_syns_never() {
    let offer = |scale| Options { scale, ..Options::default() };
    for (ours, theirs, shift) in [
        (None, None, 0),
        (Some(7), None, 0),
        (None, Some(3), 0),
        (Some(7), Some(3), 3),
        (Some(0), Some(14), 14),
    ] {
        let mut talk = handshake([offer(ours), offer(theirs)], 1_000);
        let probe = |sequence| segment(ACK, sequence, B.wrapping_add(1), 0);
        // The SYN, ACK granted 1,000 as they are.
        let mut early = talk;
        assert!(matches!(early.give(Original, probe(A + 1_001)), Outcome::Accepted(_)));
        let mut early = talk;
        assert!(matches!(early.give(Original, probe(A + 1_002)), Outcome::Ignored(_)));

        talk = talk.ok(Original, ACK, 0);
        let grant = Segment { window: 1_000, ..segment(ACK, B.wrapping_add(1), A + 1, 0) };
        assert_eq!(talk.give(Reply, grant), accepted(true, false));
        let granted = A + 1 + (1_000 << shift);
        let mut late = talk;
        assert_eq!(late.give(Original, probe(granted)), accepted(true, false), "{ours:?} {theirs:?}");
        let mut late = talk;
        assert_eq!(late.give(Original, probe(granted + (1_000 << shift))), above(), "{ours:?} {theirs:?}");
    }
}

#[test]
fn nat_25_a_window_of_zero_counts_as_one() {
    let mut talk = handshake([Options::default(); 2], 0).ok(Original, ACK, 0);
    let octet = segment(ACK, A + 1, B.wrapping_add(1), 1);
    let mut after = talk;
    assert_eq!(after.give(Original, segment(ACK, A + 2, B.wrapping_add(1), 0)), accepted(true, false));
    assert_eq!(talk.give(Original, octet), accepted(true, false), "a probe");
    assert_eq!(talk.give(Original, Segment { sequence: A + 4, ..octet }), above());
}

#[test]
fn nat_25_the_highest_selective_acknowledgement_counts() {
    let permitted = Options { sack_permitted: true, ..Options::default() };
    for (options, counts) in [([permitted; 2], true), ([Options::default(), permitted], false)] {
        let mut talk = handshake(options, 32_768).ok(Original, ACK, 0);
        // The first 1,000 octets are lost after they went past, and the next 1,000 arrive.
        talk = talk.ok(Original, ACK, 2_000);
        let sack = |edge| Segment {
            options: Options { sack: Some(edge), ..Options::default() },
            ..segment(ACK, B.wrapping_add(1), A + 1, 0)
        };
        let mut wrong = talk;
        let expected = if counts { invalid(Invalid::AcknowledgementAbove) } else { accepted(true, false) };
        assert_eq!(wrong.give(Reply, sack(A + 2_002)), expected);
        assert_eq!(talk.give(Reply, sack(A + 2_001)), accepted(true, false));
        let limit = if counts { A + 2_001 + WINDOW } else { A + 1 + WINDOW };
        let mut inside = talk;
        assert_eq!(inside.give(Original, segment(ACK, limit, B.wrapping_add(1), 0)), accepted(true, false));
        let outside = segment(ACK, limit + 1, B.wrapping_add(1), 0);
        assert_eq!(talk.give(Original, outside), Outcome::Ignored(Ignored::SequenceBeyond));
    }
}

#[test]
fn nat_25_what_was_acknowledged_selectively_widens_the_window() {
    let permitted = Options { sack_permitted: true, ..Options::default() };
    let mut talk = handshake([permitted; 2], 32_768).ok(Original, ACK, 0).ok(Original, ACK, 2_000);
    let options = Options { sack: Some(A + 2_001), ..Options::default() };
    let sack = Segment { options, ..segment(ACK, B.wrapping_add(1), A + 1, 0) };
    assert_eq!(talk.give(Reply, sack), accepted(true, false));
    talk = talk.transfer(Original, 70_000);
    let lowest = talk.at(Original) - WINDOW - 2_000;
    for (end, expected) in
        [(lowest, accepted(true, false)), (lowest - 1, Outcome::Ignored(Ignored::SequenceBelow))]
    {
        assert_eq!({ talk }.give(Original, segment(ACK, end - 10, B.wrapping_add(1), 10)), expected);
    }
}

#[test]
fn nat_25_liberal_passes_what_is_out_of_window_but_no_reset() {
    let mut talk = Talk::established(Knobs::node());
    let strange = A.wrapping_add(1 << 30);
    assert_eq!(talk.give(Original, segment(ACK, strange, B.wrapping_add(1), 10)), accepted(true, false));
    assert_eq!(talk.give(Original, segment(ACK, A + 1, B.wrapping_add(9_000), 0)), accepted(true, false));
    assert_eq!(talk.give(Original, segment(RST, strange, 0, 0)), above());
    assert_eq!(talk.give(Original, segment(RST, A, 0, 0)), invalid(Invalid::Reset));
    assert_eq!(talk.tcp.state(), State::Established);
}

#[test]
fn nat_27_a_reset_below_what_was_acknowledged_is_invalid() {
    let talk = Talk::established(LINUX).transfer(Reply, 3_000);
    for sequence in [1, 1_000, 2_999] {
        let mut talk = talk;
        let sequence = B.wrapping_add(sequence);
        assert_eq!(talk.give(Reply, segment(RST, sequence, 0, 0)), invalid(Invalid::Reset));
        assert_eq!(talk.tcp.state(), State::Established);
        talk.knobs.ignore_invalid_rst = true;
        assert!(matches!(talk.give(Reply, segment(RST, sequence, 0, 0)), Outcome::Accepted(_)));
    }
    let mut talk = talk;
    let sequence = B.wrapping_add(1_000_000);
    assert_eq!(talk.give(Reply, segment(RST, sequence, 0, 0)), above());
}

#[test]
fn nat_27_an_exact_reset_closes() {
    for flags in [RST, RST | ACK] {
        for direction in [Original, Reply] {
            let mut talk = Talk::established(LINUX).transfer(direction, 3_000);
            // Also with the ACK of zero that some stacks send.
            let probe = segment(flags, talk.at(direction), 0, 0);
            assert_eq!(talk.give(direction, probe), accepted(true, true));
            assert_eq!(talk.tcp.state(), State::Close);
            assert_eq!(talk.time(), TIMES.close);
        }
    }
}

#[test]
fn nat_27_an_inexact_rst_leaves_the_connection_standing_on_a_short_timer() {
    let mut talk = Talk::established(LINUX).transfer(Reply, 3_000);
    assert_eq!(talk.time(), TIMES.established);
    let inexact = segment(RST, talk.at(Reply).wrapping_add(1), 0, 0);
    assert_eq!(talk.give(Reply, inexact), accepted(true, false));
    assert_eq!(talk.tcp.state(), State::Established);
    assert_eq!(talk.time(), TIMES.close);
    // The challenge ACK that the receiver answers with.
    assert_eq!(talk.say(Original, ACK, 0), accepted(true, false));
    assert_eq!(talk.time(), TIMES.established);
}

#[test]
fn nat_27_a_reset_right_after_data_of_its_side_closes() {
    let mut talk = Talk::established(LINUX).ok(Reply, ACK, 19);
    let train = segment(RST, talk.at(Reply), 0, 0);
    assert_eq!(talk.give(Reply, train), accepted(true, true));
    assert_eq!(talk.tcp.state(), State::Close);
}

#[test]
fn nat_27_a_reset_that_refuses_an_ignored_syn_closes() {
    // The server has forgotten the connection, and numbers its RST from nothing.
    let mut talk = Talk::established(LINUX).transfer(Reply, 3_000);
    assert_eq!(talk.give(Original, segment(SYN, 0x7000_0000, 0, 0)), Outcome::Ignored(Ignored::State));
    let mut other = talk;
    let refusal = segment(RST | ACK, 0, 0x7000_0001, 0);
    assert_eq!(talk.give(Reply, refusal), accepted(true, true));
    assert_eq!(talk.tcp.state(), State::Close);
    let unrelated = segment(RST | ACK, 0, 0x7000_0002, 0);
    assert_eq!(other.give(Reply, unrelated), invalid(Invalid::AcknowledgementAbove));
}

#[test]
fn nat_27_a_reset_without_a_number_counts_before_the_connection_stands() {
    let middle = segment(ACK, A, 5_000, 10);
    let mut talk = Talk { tcp: Tcp::open(&middle, LINUX).unwrap(), knobs: LINUX, next: [A + 10, 5_000] };
    let mut standing = talk.ok(Reply, ACK, 10).ok(Original, ACK, 0);
    assert!(standing.tcp.is_assured());
    let unnumbered = segment(RST | ACK, 0, A + 10, 0);
    assert_eq!(talk.give(Reply, unnumbered), Outcome::Remove);
    assert_eq!(standing.give(Reply, unnumbered), invalid(Invalid::Reset));
    // Also if something else was heard before it.
    let mut talk = Talk::open(LINUX);
    let old = segment(SYN | ACK, 0x7000_0000, A.wrapping_sub(90_000), 0);
    assert!(matches!(talk.give(Reply, old), Outcome::Ignored(_)));
    assert_eq!(talk.give(Reply, segment(RST | ACK, 0, A + 1, 0)), accepted(true, true));
}

#[test]
fn nat_27_a_reset_that_refuses_what_opened_nothing_closes() {
    // Picked up from data that the other side knows nothing of: its RST follows what it was sent.
    let middle = segment(ACK, A, 5_000, 10);
    let tcp = Tcp::open(&middle, LINUX).unwrap();
    let mut talk = Talk { tcp, knobs: LINUX, next: [A + 10, 5_000] };
    assert_eq!(talk.give(Reply, segment(RST, 5_000, 0, 0)), Outcome::Remove);
}

#[test]
fn nat_27_a_connection_that_closes_believes_every_reset() {
    for state in STATES {
        let mut talk = Talk::reach(state, LINUX);
        if talk.tcp.is_closing() {
            let outcome = talk.give(Reply, segment(RST, 77, 0, 0));
            assert_eq!(outcome, accepted(true, state != State::Close), "{state}");
            assert_eq!(talk.tcp.state(), State::Close);
        }
    }
}

#[test]
fn nat_28_a_challenge_ack_is_not_taken_for_that_of_the_last_fin() {
    let mut talk = Talk::reach(State::LastAck, LINUX);
    assert_eq!(talk.give(Original, segment(SYN, 77, 0, 0)), Outcome::Ignored(Ignored::State));
    let mut without = Talk::reach(State::LastAck, LINUX);
    for (talk, state) in [(&mut talk, State::LastAck), (&mut without, State::TimeWait)] {
        let outcome = talk.say(Reply, ACK, 0);
        assert_eq!(talk.tcp.state(), state);
        let challenge = Outcome::Ignored(Ignored::ChallengeAcknowledgement);
        assert_eq!(outcome == challenge, state == State::LastAck);
    }
    let mut again = talk;
    for talk in [(Original, &mut talk), (Reply, &mut again)] {
        let (direction, talk) = talk;
        assert_eq!(talk.say(direction, ACK, 0), accepted(true, true), "one SYN is challenged once");
        assert_eq!(talk.tcp.state(), State::TimeWait);
    }
}

#[test]
fn nat_29_a_syn_after_the_end_starts_again_from_either_side() {
    for direction in [Original, Reply] {
        let mut talk = Talk::reach(State::TimeWait, LINUX);
        let before = talk.tcp;
        assert_eq!(talk.give(direction, segment(SYN, 77, 0, 0)), Outcome::StartAgain);
        assert_eq!(talk.tcp, before, "the caller deletes it");
    }
    // Closed by its own RST.
    let mut talk = Talk::reach(State::Close, LINUX);
    assert_eq!(talk.give(Original, segment(SYN, 77, 0, 0)), Outcome::StartAgain);
    // Closed by the other side's RST: it is still to be seen whether both agree.
    let mut talk = Talk::established(LINUX).ok(Reply, RST, 0);
    assert_eq!(talk.tcp.state(), State::Close);
    assert_eq!(talk.give(Original, segment(SYN, 77, 0, 0)), Outcome::Ignored(Ignored::State));
    assert_eq!(talk.give(Reply, segment(SYN, 77, 0, 0)), invalid(Invalid::State));
}

#[test]
fn nat_29_the_answer_to_an_ignored_syn_shows_that_the_ends_agree() {
    for state in [State::Established, State::FinWait, State::CloseWait, State::LastAck] {
        let mut talk = Talk::reach(state, LINUX);
        let options = Options { scale: Some(2), sack_permitted: true, sack: None };
        let syn = Segment { options, ..segment(SYN, 0x7000_0000, 0, 0) };
        assert_eq!(talk.give(Original, syn), Outcome::Ignored(Ignored::State));
        let mut wrong = talk;
        let stale = segment(SYN | ACK, 0x1000_0000, 0x7000_0002, 0);
        assert_eq!(wrong.give(Reply, stale), Outcome::Ignored(Ignored::State));
        let answer = Segment { options, ..segment(SYN | ACK, 0x1000_0000, 0x7000_0001, 0) };
        assert_eq!(talk.give(Reply, answer), accepted(true, true), "{state}");
        talk.next = [0x7000_0001, 0x1000_0001];
        assert_eq!(talk.say(Original, ACK, 0), accepted(true, true));
        talk = talk.transfer(Original, 100_000).transfer(Reply, 100_000);
        assert_eq!(talk.tcp.state(), State::Established);
        let scaled = segment(ACK, talk.at(Original) + 3 * WINDOW, talk.at(Reply), 0);
        assert_eq!(talk.give(Original, scaled), accepted(true, false), "as both SYNs offered");
    }
}

#[test]
fn nat_29_a_challenged_client_resets_and_starts_again() {
    let mut talk = Talk::established(LINUX).transfer(Original, 100);
    assert_eq!(talk.give(Original, segment(SYN, 0x7000_0000, 0, 0)), Outcome::Ignored(Ignored::State));
    assert_eq!(talk.say(Reply, ACK, 0), accepted(true, false), "the challenge ACK");
    assert_eq!(talk.say(Original, RST, 0), accepted(true, true));
    assert_eq!(talk.give(Original, segment(SYN, 0x7000_0000, 0, 0)), Outcome::StartAgain);
}

#[test]
fn nat_29_a_server_that_remembers_an_older_connection_challenges_the_syn() {
    let mut talk = Talk::open(LINUX);
    let old = segment(ACK, 145_824_453, 643_160_523, 0);
    assert_eq!(talk.give(Reply, old), Outcome::Ignored(Ignored::State));
    assert_eq!(talk.give(Original, segment(RST, 643_160_523, 0, 0)), accepted(true, true));
    assert_eq!(talk.give(Original, segment(SYN, A, 0, 0)), Outcome::StartAgain);
}

#[test]
fn nat_29_a_client_may_refuse_a_challenge_by_acknowledging_it() {
    let mut talk = Talk::open(LINUX);
    let old = segment(ACK, 145_824_453, 643_160_523, 0);
    assert_eq!(talk.give(Reply, old), Outcome::Ignored(Ignored::State));
    let mut other = talk;
    assert_eq!(talk.give(Original, segment(RST | ACK, A + 1, 145_824_453, 0)), accepted(true, true));
    let unrelated = segment(RST | ACK, A + 1, 145_824_454, 0);
    assert_eq!(other.give(Original, unrelated), invalid(Invalid::AcknowledgementAbove));
}

#[test]
fn nat_29_an_old_syn_ack_does_not_stand_in_the_way_of_the_right_one() {
    // Below and above what it replaces.
    for right in [145_758_918, 0x7000_0000, 0xf000_0000] {
        for old in [A.wrapping_sub(90_000), A + 90_000] {
            let mut talk = Talk::open(LINUX);
            let outcome = talk.give(Reply, segment(SYN | ACK, 145_824_453, old, 0));
            assert!(!matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
            assert_eq!(talk.tcp.state(), State::SynSent);
            assert_eq!(talk.give(Original, segment(SYN, A, 0, 0)), accepted(talk.tcp.has_reply(), false));
            talk.next[1] = right;
            talk = talk.ok(Reply, SYN | ACK, 0).ok(Original, ACK, 1).transfer(Reply, 100_000);
            assert!(talk.tcp.is_assured());
        }
    }
}

#[test]
fn nat_30_a_connection_is_picked_up_from_an_ack_only_if_that_is_wanted() {
    let middle = segment(ACK, A, B, 1_000);
    assert_eq!(Tcp::open(&middle, Knobs::strict()), Err(Invalid::Middle));
    for flags in [SYN | ACK, FIN | ACK, RST, RST | ACK] {
        assert_eq!(Tcp::open(&segment(flags, A, B, 0), LINUX), Err(Invalid::State), "{flags:06b}");
    }
    let tcp = Tcp::open(&middle, LINUX).unwrap();
    let mut talk = Talk { tcp, knobs: LINUX, next: [middle.end(), B] };
    assert_eq!(talk.tcp.state(), State::Established);
    assert_eq!(talk.time(), TIMES.picked_up, "until the other side is heard");
    // The scale is unknown, so windows do not count.
    assert_eq!(talk.say(Original, ACK, 1_000_000), accepted(true, false));
    assert_eq!(talk.time(), TIMES.picked_up);
    assert_eq!(talk.say(Reply, ACK, 1_000_000), accepted(true, false));
    assert!(talk.tcp.has_reply() && !talk.tcp.is_assured());
    talk = talk.ok(Original, ACK, 0).ok(Original, ACK, 1).ok(Reply, ACK, 0);
    assert!(talk.tcp.is_assured());
    assert_eq!(talk.time(), TIMES.established);
    // But a RST below what was acknowledged is nobody's.
    let forged = segment(RST, talk.at(Reply).wrapping_sub(1), 0, 0);
    assert_eq!(talk.give(Reply, forged), invalid(Invalid::Reset));
}

#[test]
fn nat_30_the_answer_to_a_keep_alive_is_accepted_after_a_pick_up() {
    let tcp = Tcp::open(&segment(ACK, A, B, 0), Knobs::linux()).unwrap();
    let mut talk = Talk { tcp, knobs: LINUX, next: [A, B] };
    assert_eq!(talk.give(Reply, segment(ACK, B, A + 1, 0)), accepted(true, false));
    assert_eq!(talk.give(Original, segment(ACK, A + 1, B, 0)), accepted(true, false));
    assert!(talk.tcp.is_assured());
    assert_eq!(talk.give(Original, segment(RST, A, 0, 0)), invalid(Invalid::Reset), "the answer counts");
}

#[test]
fn nat_33_what_came_in_fragments_may_be_acknowledged() {
    for (here, there) in [(Original, Reply), (Reply, Original)] {
        let mut talk = Talk::established(LINUX).transfer(here, 10_000);
        // 5,000 octets in fragments, of which nobody said that they are 5,000.
        let [said, heard] = [talk.at(here).wrapping_add(5_000), talk.at(there)];
        assert_eq!(
            talk.give(there, segment(ACK, heard, said, 0)),
            invalid(Invalid::AcknowledgementAbove),
            "nothing was said so far"
        );
        talk.tcp.fragment(here);
        assert_eq!(talk.give(there, segment(ACK, heard, said, 0)), accepted(true, false));
        // But not more than was granted.
        let beyond = segment(ACK, heard, said.wrapping_add(100_000), 0);
        assert_eq!(talk.give(there, beyond), invalid(Invalid::AcknowledgementAbove));
        talk.next[here.index()] = said;
        talk.transfer(here, 100_000).transfer(there, 100_000);
    }
}

#[test]
fn nat_31_a_simultaneous_open_is_a_connection() {
    // As drawn in RFC 9293 figure 7, and as stacks that answer the SYN with an ACK do it.
    for answers in [[SYN | ACK; 2], [SYN | ACK, ACK]] {
        let mut talk = Talk::open(LINUX);
        assert_eq!(talk.say(Reply, SYN, 0), accepted(false, true));
        assert_eq!(talk.tcp.state(), State::SynSent2);
        assert_eq!(talk.give(Original, segment(answers[0], A, B.wrapping_add(1), 0)), accepted(true, true));
        assert_eq!(talk.tcp.state(), State::SynRecv);
        let sequence = if answers[1] & SYN == 0 { B.wrapping_add(1) } else { B };
        let outcome = talk.give(Reply, segment(answers[1], sequence, A + 1, 0));
        assert!(!matches!(outcome, Outcome::Invalid { .. }));
        talk = talk.ok(Reply, ACK, 0);
        assert_eq!(talk.tcp.state(), State::Established);
        talk = talk.ok(Original, ACK, 0).transfer(Original, 100_000).transfer(Reply, 100_000);
        assert!(talk.tcp.is_assured());
        // What follows is opened by one side alone.
        assert_eq!(talk.give(Original, segment(SYN, 0x7000_0000, 0, 0)), Outcome::Ignored(Ignored::State));
        assert_eq!(talk.give(Reply, segment(SYN | ACK, 9, 0x7000_0001, 0)), accepted(true, true));
        assert_eq!(talk.give(Reply, segment(ACK, 10, 0x7000_0001, 0)), accepted(true, false));
        assert_eq!(talk.tcp.state(), State::SynRecv);
    }
}

#[test]
fn nat_32_if_the_only_reply_is_a_reset_the_connection_is_over() {
    let refused = segment(RST | ACK, 0, A + 1, 0);
    assert_eq!(Talk::open(LINUX).give(Reply, refused), Outcome::Remove);
    // Not by somebody who did not see the SYN.
    let blind = segment(RST | ACK, 0, A + 2, 0);
    assert_eq!(Talk::open(LINUX).give(Reply, blind), invalid(Invalid::AcknowledgementAbove));
    // After a reply it stays for a while, for what is still on its way.
    assert_eq!(
        Talk::answered(LINUX).give(Reply, segment(RST, B.wrapping_add(1), 0, 0)),
        accepted(true, true)
    );
}

#[test]
fn nat_32_assured_is_what_completed_the_handshake() {
    let mut talk = Talk::open(LINUX);
    assert!(!talk.tcp.has_reply());
    talk = talk.ok(Reply, SYN | ACK, 0);
    assert!(talk.tcp.has_reply() && !talk.tcp.is_assured());
    talk = talk.ok(Reply, ACK, 0);
    assert!(!talk.tcp.is_assured(), "it answers a SYN that came late");
    assert!(talk.ok(Original, ACK, 0).tcp.is_assured());
}

#[test]
fn each_state_has_its_time() {
    let times = [
        (State::SynSent, TIMES.syn_sent),
        (State::SynRecv, TIMES.syn_recv),
        (State::Established, TIMES.established),
        (State::FinWait, TIMES.fin_wait),
        (State::CloseWait, TIMES.close_wait),
        (State::LastAck, TIMES.last_ack),
        (State::TimeWait, TIMES.time_wait),
        (State::Close, TIMES.close),
        (State::SynSent2, TIMES.syn_sent2),
    ];
    for (state, time) in times {
        assert_eq!(Talk::reach(state, LINUX).time(), time, "{state}");
    }
}

#[test]
fn data_without_acknowledgement_shortens_the_time_until_it_is_acknowledged() {
    let times = TcpTimeouts { unacknowledged: Duration::from_secs(111), ..TIMES };
    let talk = Talk::established(LINUX).ok(Original, ACK, 1_000);
    assert_eq!(talk.tcp.timeout(&times, LINUX), times.unacknowledged);
    let talk = talk.ok(Reply, ACK, 0);
    assert_eq!(talk.tcp.timeout(&times, LINUX), times.established);
}

#[test]
fn a_segment_that_comes_three_times_again_shortens_the_time_until_another_comes() {
    let times = TcpTimeouts { retransmitted: Duration::from_secs(99), ..TIMES };
    for knob in [1, 3, 200] {
        let knobs = Knobs { max_retransmissions: knob, ..LINUX };
        let mut talk = Talk::established(knobs).ok(Original, ACK, 1_000);
        let again = segment(ACK, A + 1, B.wrapping_add(1), 1_000);
        for round in 1..=300_u32 {
            assert_eq!(talk.give(Original, again), accepted(true, false));
            let short = round >= u32::from(knob);
            let expected = if short { times.retransmitted } else { times.unacknowledged };
            assert_eq!(talk.tcp.timeout(&times, knobs), expected, "{knob} {round}");
        }
        talk = talk.ok(Reply, ACK, 0);
        assert_eq!(talk.tcp.timeout(&times, knobs), times.established);
    }
}

#[test]
fn a_closed_window_shortens_the_time() {
    let times = TcpTimeouts { retransmitted: Duration::from_secs(99), ..TIMES };
    let mut talk = Talk::established(LINUX);
    let closed = Segment { window: 0, ..segment(ACK, B.wrapping_add(1), A + 1, 0) };
    assert_eq!(talk.give(Reply, closed), accepted(true, false));
    assert_eq!(talk.tcp.timeout(&times, LINUX), times.retransmitted);
    assert_eq!(talk.say(Reply, ACK, 0), accepted(true, false));
    assert_eq!(talk.tcp.timeout(&times, LINUX), times.established);
}

#[test]
fn ends_that_both_end_what_the_tracker_cannot_follow_do_not_hold_it_for_days() {
    let far = 1 << 30;
    let mut talk = Talk::established(LINUX);
    let ours = segment(FIN | ACK, A.wrapping_add(far), B.wrapping_add(1), 0);
    let theirs = segment(FIN | ACK, B.wrapping_add(far), A + 1, 0);
    assert_eq!(talk.give(Original, ours), above());
    assert_eq!(talk.give(Original, ours), above(), "one side alone proves nothing");
    let shortened = Outcome::Invalid { reason: Invalid::SequenceAbove, shorten: true };
    assert_eq!(talk.give(Reply, theirs), shortened);
    assert_eq!(talk.tcp.state(), State::Established);
}

#[test]
fn a_super_frame_is_one_segment() {
    let scales = Options { scale: Some(7), ..Options::default() };
    let mut talk = handshake([scales; 2], 32_768).ok(Original, ACK, 0).ok(Reply, ACK, 0);
    for _ in 0..100 {
        assert_eq!(talk.say(Original, ACK | PSH, 65_483), accepted(true, false));
        assert_eq!(talk.say(Original, ACK | PSH, 200_000), accepted(true, false));
        assert_eq!(talk.say(Reply, ACK, 0), accepted(true, false));
    }
}
