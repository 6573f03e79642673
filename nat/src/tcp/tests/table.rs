//! The table of transitions, against a copy of its own.

use super::flag::PSH;
use super::*;
use std::vec::Vec;

/// Columns: NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2. IV is invalid, IG
/// is ignored.
const ORIGINAL: &str = "
    syn    SS SS IG IG IG IG IG SS SS S2
    synack IV IV SR IV IV IV IV IV IV SR
    fin    IV IV FW FW LA LA LA TW CL IV
    ack    ES IV ES ES CW CW TW TW CL IV
    rst    IV CL CL CL CL CL CL CL CL CL
    none   IV IV IV IV IV IV IV IV IV IV";
const REPLY: &str = "
    syn    IV S2 IV IV IV IV IV SS IV S2
    synack IV SR IG IG IG IG IG IG IG SR
    fin    IV IV FW FW LA LA LA TW CL IV
    ack    IV IG SR ES CW CW TW TW CL IG
    rst    IV CL CL CL CL CL CL CL CL CL
    none   IV IV IV IV IV IV IV IV IV IV";

fn named(name: &str) -> State {
    match name {
        "SS" => State::SynSent,
        "SR" => State::SynRecv,
        "ES" => State::Established,
        "FW" => State::FinWait,
        "CW" => State::CloseWait,
        "LA" => State::LastAck,
        "TW" => State::TimeWait,
        "CL" => State::Close,
        "S2" => State::SynSent2,
        _ => panic!("{name}"),
    }
}

/// What goes into a cell: a segment in window.
fn probe(talk: &Talk, direction: Direction, flags: u8) -> Segment {
    let [here, there] = [direction.index(), direction.reverse().index()];
    let first = [A, B][here];
    let sequence = if flags & SYN == 0 { talk.next[here] } else { first };
    // A RST without ACK acknowledges nothing.
    let acknowledgement = if flags & ACK == 0 { 0 } else { talk.next[there] };
    segment(flags, sequence, acknowledgement, 0)
}

fn cell(direction: Direction, row: &str, from: State, expected: &str) {
    let flags = match row {
        "syn" => SYN,
        "synack" => SYN | ACK,
        "fin" => FIN | ACK,
        "ack" => ACK,
        "rst" => RST,
        "none" => PSH,
        _ => panic!("{row}"),
    };
    let mut talk = Talk::reach(from, Knobs::linux());
    let probe = probe(&talk, direction, flags);
    let place = std::format!("{direction:?} {row} from {from}");
    if from == State::None && direction == Original {
        let opened = Tcp::open(&probe, Knobs::linux());
        match expected {
            "IV" => assert!(opened.is_err(), "{place}"),
            _ => assert_eq!(opened.unwrap().state(), named(expected), "{place}"),
        }
        return;
    }
    let replied = talk.tcp.has_reply();
    let outcome = talk.give(direction, probe);
    match expected {
        "IV" if row == "none" => assert_eq!(outcome, invalid(Invalid::Flags), "{place}"),
        "IV" => assert_eq!(outcome, invalid(Invalid::State), "{place}"),
        "IG" => assert_eq!(outcome, Outcome::Ignored(Ignored::State), "{place}"),
        "SS" if from != State::SynSent => assert_eq!(outcome, Outcome::StartAgain, "{place}"),
        "CL" if !replied => assert_eq!(outcome, Outcome::Remove, "{place}"),
        _ => {
            assert_eq!(talk.tcp.state(), named(expected), "{place}: {outcome:?}");
            assert!(matches!(outcome, Outcome::Accepted(a) if a.changed == (talk.tcp.state() != from)));
        }
    }
    if matches!(expected, "IV" | "IG") {
        assert_eq!(talk.tcp.state(), from, "{place}");
    }
}

#[test]
fn all_120_cells() {
    let mut cells = 0;
    for (direction, text) in [(Original, ORIGINAL), (Reply, REPLY)] {
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (row, columns) = words.split_first().unwrap();
            assert_eq!(columns.len(), STATES.len());
            for (&from, expected) in STATES.iter().zip(columns) {
                cell(direction, row, from, expected);
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 120);
}

#[test]
fn a_segment_without_a_telling_flag_leads_nowhere() {
    // Its flags are refused first, so these cells cannot be reached through a segment.
    for direction in [Original, Reply] {
        for state in STATES {
            assert_eq!(state::next(direction, Kind::Other, state), Next::Invalid);
        }
    }
}
