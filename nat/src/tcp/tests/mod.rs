//! Conversations for the tests, and what they have in common.

extern crate std;

mod honest;
mod read;
mod rules;
mod stray;
mod table;

use super::flag::{ACK, FIN, RST, SYN};
use super::*;
use Direction::{Original, Reply};

/// First sequence numbers of the two sides. The reply's wraps around soon.
const A: u32 = 1_000;
const B: u32 = 0xffff_ff00;

/// A segment with a window that scales to 32,768 if it does.
fn segment(flags: u8, sequence: u32, acknowledgement: u32, length: u32) -> Segment {
    Segment { flags, sequence, acknowledgement, window: 32_768, length, options: Options::default() }
}

fn accepted(refresh: bool, changed: bool) -> Outcome {
    Outcome::Accepted(Accepted { refresh, changed })
}

fn invalid(reason: Invalid) -> Outcome {
    Outcome::Invalid { reason, shorten: false }
}

/// A connection, and the sequence numbers that its sides use next.
#[derive(Clone, Copy)]
struct Talk {
    tcp: Tcp,
    knobs: Knobs,
    next: [u32; 2],
}

impl Talk {
    fn open(knobs: Knobs) -> Self {
        let tcp = Tcp::open(&segment(SYN, A, 0, 0), knobs).unwrap();
        Self { tcp, knobs, next: [A.wrapping_add(1), B] }
    }

    fn give(&mut self, direction: Direction, segment: Segment) -> Outcome {
        self.tcp.update(direction, &segment, self.knobs)
    }

    /// A side says something in its turn.
    fn say(&mut self, direction: Direction, flags: u8, length: u32) -> Outcome {
        let [here, there] = [direction.index(), direction.reverse().index()];
        let acknowledgement = if flags & ACK == 0 { 0 } else { self.next[there] };
        let said = segment(flags, self.next[here], acknowledgement, length);
        self.next[here] = said.end();
        self.give(direction, said)
    }

    /// As [`Self::say`], when nothing else than acceptance is expected.
    fn ok(mut self, direction: Direction, flags: u8, length: u32) -> Self {
        let outcome = self.say(direction, flags, length);
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        self
    }

    fn answered(knobs: Knobs) -> Self {
        Self::open(knobs).ok(Reply, SYN | ACK, 0)
    }

    fn established(knobs: Knobs) -> Self {
        Self::answered(knobs).ok(Original, ACK, 0)
    }

    fn reach(state: State, knobs: Knobs) -> Self {
        let talk = match state {
            State::None => Self { tcp: Tcp::nothing(), knobs, next: [A, B] },
            State::SynSent => Self::open(knobs),
            State::SynRecv => Self::answered(knobs),
            State::Established => Self::established(knobs),
            State::FinWait => Self::established(knobs).ok(Original, FIN | ACK, 0),
            State::CloseWait => Self::reach(State::FinWait, knobs).ok(Reply, ACK, 0),
            State::LastAck => Self::reach(State::CloseWait, knobs).ok(Reply, FIN | ACK, 0),
            State::TimeWait => Self::reach(State::LastAck, knobs).ok(Original, ACK, 0),
            State::Close => Self::established(knobs).ok(Original, RST, 0),
            State::SynSent2 => Self::open(knobs).ok(Reply, SYN, 0),
        };
        assert_eq!(talk.tcp.state(), state);
        talk
    }
}

const STATES: [State; 10] = [
    State::None,
    State::SynSent,
    State::SynRecv,
    State::Established,
    State::FinWait,
    State::CloseWait,
    State::LastAck,
    State::TimeWait,
    State::Close,
    State::SynSent2,
];
