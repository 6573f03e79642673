//! TCP connections as seen from between their ends.
//!
//! # Theory of operation
//! The tracker decides of each segment whether it belongs to its connection, and how long the connection is kept. It acts
//! as Linux's connection tracking does, so that both can be compared; where it does not, the documentation says so.
//!
//! A segment goes through three steps. First a table leads from the state and the kind of segment to the next
//! state, or says that the segment is invalid or has to be ignored. Then what the table cannot know is looked at: a SYN
//! that opens the ports again, answers to segments that were ignored, simultaneous opens, RSTs. Last, the
//! segment's numbers have to lie in the windows. Only then does it count.
//!
//! *Ignored* is for segments about which the endpoints may know more than the tracker: its idea of the connection can
//! be wrong, for it has not seen what was before it. Such a segment is passed on and noted. If a SYN was ignored and is
//! answered by the SYN, ACK that fits, then the endpoints were right, and the tracker follows them.
//!
//! There is no clock. Who holds the connections asks [`Tcp::timeout`] after a segment that says so.

mod knobs;
mod outcome;
mod reset;
mod segment;
mod state;
mod window;

#[cfg(test)]
mod tests;

use core::time::Duration;

pub use knobs::Knobs;
pub use outcome::{Ignored, Invalid, Outcome};
pub use segment::{Malformed, Options, Segment, flag};
pub use state::State;

use crate::accepted::Accepted;
use crate::timeouts::TcpTimeouts;
use crate::tuple::Direction;
use reset::Belief;
use state::{Kind, Next};
use window::{Edges, Fit, Marks, Side, at_least_one};

/// One connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    edges: [Edges; 2],
    marks: [Marks; 2],
    last: Last,
    state: State,
    /// How often the last segment came again without an answer.
    retransmissions: u8,
    bits: u8,
}

// A table of connections pays for every octet.
const _: () = assert!(size_of::<Tcp>() == 56);

/// The newest segment that was accepted or ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Last {
    end: u32,
    acknowledgement: u32,
    window: u16,
    /// 65,535 stands for more, too: it only serves to recognise a segment that comes again.
    length: u16,
    kind: Kind,
    direction: Direction,
    /// What an ignored SYN offered.
    offer: Marks,
}

/// Bits of a connection.
mod bit {
    /// Something came in the reply's direction.
    pub(super) const REPLIED: u8 = 1;
    /// The handshake was completed.
    pub(super) const ASSURED: u8 = 1 << 1;
    /// Both sides sent a SYN.
    pub(super) const SIMULTANEOUS: u8 = 1 << 2;
    /// A SYN was ignored that may be answered by a challenge ACK.
    pub(super) const CHALLENGED: u8 = 1 << 3;
}

/// What the table and what it cannot know say together.
enum Step {
    /// The segment leads there if it lies in window.
    Check(State),
    /// The segment leads there.
    Skip(State),
    Done(Outcome),
}

/// Flags that say nothing about the connection.
const MEANINGLESS: u8 = flag::PSH | flag::URG | flag::ECE | flag::CWR;

impl Tcp {
    /// The connection that a first segment opens, in the original direction.
    pub fn open(segment: &Segment, knobs: Knobs) -> Result<Self, Invalid> {
        if !segment.has_valid_flags() {
            return Err(Invalid::Flags);
        }
        let kind = Kind::of(segment);
        let state = match state::next(Direction::Original, kind, State::None) {
            Next::To(state) => state,
            Next::Ignore | Next::Invalid => return Err(Invalid::State),
        };
        let mut tcp = Self::nothing();
        if kind == Kind::Syn {
            tcp.sides(Direction::Original).0.begin(segment, None);
        } else if knobs.loose {
            tcp.pick_up(segment);
        } else {
            return Err(Invalid::Middle);
        }
        tcp.state = state;
        tcp.last.kind = kind;
        Ok(tcp)
    }

    fn nothing() -> Self {
        Self {
            edges: [Edges::default(); 2],
            marks: [Marks::default(); 2],
            last: Last {
                end: 0,
                acknowledgement: 0,
                // A window of zero would shorten the time.
                window: 1,
                length: 0,
                kind: Kind::Other,
                direction: Direction::Original,
                offer: Marks::default(),
            },
            state: State::None,
            retransmissions: 0,
            bits: 0,
        }
    }

    /// Begins in the middle: the windows' scale is unknown, so the conditions cannot count.
    fn pick_up(&mut self, segment: &Segment) {
        let window = at_least_one(segment.window.into());
        let end = segment.end();
        let acknowledged = segment.options.sack.unwrap_or(segment.acknowledgement);
        self.edges = [
            Edges {
                end,
                max_end: end.wrapping_add(window),
                max_window: window,
                max_acknowledgement: segment.acknowledgement,
            },
            Edges { end: acknowledged, max_end: acknowledged, ..Edges::default() },
        ];
        for marks in &mut self.marks {
            marks.set(Marks::SACK | Marks::LIBERAL);
        }
        self.marks[0].set(Marks::ACKNOWLEDGED);
        self.note(Direction::Original, Kind::Ack, segment);
    }

    /// Takes a segment of the connection.
    pub fn update(&mut self, direction: Direction, segment: &Segment, knobs: Knobs) -> Outcome {
        // Nearly every segment is one of these, and needs nothing but its numbers to be looked at.
        if segment.flags & !MEANINGLESS == flag::ACK && self.state == State::Established {
            let established = State::Established;
            return self.weigh(direction, Kind::Ack, segment, knobs, established, established);
        }
        self.update_slowly(direction, segment, knobs)
    }

    /// Takes a segment that the connection goes on with, or comes to its end in good order; false, and nothing taken, if this
    /// is another one, for [`Self::update`] to judge.
    #[inline]
    pub(crate) fn proceed(&mut self, direction: Direction, segment: &Segment, knobs: Knobs) -> bool {
        if segment.flags & !MEANINGLESS != flag::ACK || self.state != State::Established {
            return self.proceed_slowly(direction, segment, knobs);
        }
        let (before, established) = (*self, State::Established);
        let outcome = self.weigh(direction, Kind::Ack, segment, knobs, established, established);
        self.take_or_leave(before, outcome)
    }

    #[inline(never)]
    fn proceed_slowly(&mut self, direction: Direction, segment: &Segment, knobs: Knobs) -> bool {
        if segment.flags & (flag::SYN | flag::RST) != 0 {
            return false;
        }
        let before = *self;
        let outcome = self.update_slowly(direction, segment, knobs);
        self.take_or_leave(before, outcome)
    }

    /// Whether a segment was taken in a way that needs no judgement; if not, all is as before.
    #[inline]
    fn take_or_leave(&mut self, before: Self, outcome: Outcome) -> bool {
        let taken = matches!(outcome, Outcome::Accepted(Accepted { refresh: true, .. }));
        if !taken {
            *self = before;
        }
        taken
    }

    #[inline(never)]
    fn update_slowly(&mut self, direction: Direction, segment: &Segment, knobs: Knobs) -> Outcome {
        if !segment.has_valid_flags() {
            return Outcome::Invalid { reason: Invalid::Flags, shorten: false };
        }
        let kind = Kind::of(segment);
        let mut from = self.state;
        match self.step(direction, kind, segment, knobs, &mut from) {
            Step::Check(to) => self.weigh(direction, kind, segment, knobs, from, to),
            Step::Skip(to) => self.accept(direction, kind, from, to),
            Step::Done(outcome) => outcome,
        }
    }

    /// Notes that the first fragment of a segment has gone past. Where the segment ends is not known: it may reach as far as
    /// was granted, and so may what is acknowledged next.
    pub fn fragment(&mut self, direction: Direction) {
        let edges = &mut self.edges[direction.index()];
        edges.end = edges.max_end;
    }

    /// Holds a segment against the windows, and follows it if it lies in them.
    #[inline(always)]
    fn weigh(
        &mut self,
        direction: Direction,
        kind: Kind,
        segment: &Segment,
        knobs: Knobs,
        from: State,
        to: State,
    ) -> Outcome {
        let before = (self.edges, self.marks);
        let (sender, receiver) = self.sides(direction);
        let fit = window::fit(sender, receiver, segment, kind, direction == Direction::Reply, from);
        // A RST that may not count proves nothing.
        if kind == Kind::Rst && to != State::Close {
            (self.edges, self.marks) = before;
        }
        match fit {
            Fit::In => {
                if kind == Kind::Ack {
                    self.repeated(direction, kind, segment);
                }
            }
            Fit::Ignored(_) | Fit::Invalid(_) if self.is_liberal(direction, kind, knobs) => {}
            Fit::Ignored(reason) => return self.ignore(direction, reason),
            Fit::Invalid(reason) => return self.refuse(direction, kind, reason),
        }
        self.accept(direction, kind, from, to)
    }

    /// Whether the windows count for nothing.
    #[cold]
    fn is_liberal(&self, direction: Direction, kind: Kind, knobs: Knobs) -> bool {
        // Without the SYNs' options nothing is known about a RST's window either.
        self.marks[direction.index()].has(Marks::LIBERAL) || (knobs.liberal && kind != Kind::Rst)
    }

    /// What the table says, completed by what it cannot know. `from` changes if the tracker follows the endpoints.
    fn step(
        &mut self,
        direction: Direction,
        kind: Kind,
        segment: &Segment,
        knobs: Knobs,
        from: &mut State,
    ) -> Step {
        let to = match state::next(direction, kind, *from) {
            Next::To(to) => to,
            Next::Ignore => return self.out_of_state(direction, kind, segment, from),
            Next::Invalid => return Step::Done(Outcome::Invalid { reason: Invalid::State, shorten: false }),
        };
        match to {
            State::SynSent if matches!(from, State::TimeWait | State::Close) => {
                let closed = self.marks.iter().any(|marks| marks.has(Marks::CLOSED_FIRST));
                if closed || (self.last.kind == Kind::Rst && self.last.direction == direction) {
                    return Step::Done(Outcome::StartAgain);
                }
                self.out_of_state(direction, kind, segment, from)
            }
            State::TimeWait
                if *from == State::LastAck
                    && kind == Kind::Ack
                    && self.last.kind == Kind::Syn
                    && self.last.direction != direction
                    && self.has(bit::CHALLENGED) =>
            {
                self.bits &= !bit::CHALLENGED;
                Step::Done(self.ignore(direction, Ignored::ChallengeAcknowledgement))
            }
            State::SynSent2 => {
                self.bits |= bit::SIMULTANEOUS;
                Step::Check(to)
            }
            // The reply's ACK is the handshake's last if both sides opened.
            State::SynRecv
                if kind == Kind::Ack && direction == Direction::Reply && self.has(bit::SIMULTANEOUS) =>
            {
                Step::Check(State::Established)
            }
            State::Close if kind == Kind::Rst => match reset::judge(self, direction, segment, knobs) {
                Belief::Refused(reason) => Step::Done(Outcome::Invalid { reason, shorten: false }),
                Belief::Certain => Step::Skip(to),
                Belief::Likely(to) => Step::Check(to),
            },
            State::None
            | State::SynSent
            | State::SynRecv
            | State::Established
            | State::FinWait
            | State::CloseWait
            | State::LastAck
            | State::TimeWait
            | State::Close => Step::Check(to),
        }
    }

    /// A segment that does not fit the state, but may fit what the endpoints know.
    fn out_of_state(
        &mut self,
        direction: Direction,
        kind: Kind,
        segment: &Segment,
        from: &mut State,
    ) -> Step {
        let answers = kind == Kind::SynAck
            && self.last.kind == Kind::Syn
            && self.last.direction != direction
            && segment.acknowledgement == self.last.end;
        if answers {
            let window = at_least_one(self.last.window.into());
            let (end, there, here) = (self.last.end, self.last.direction.index(), direction.index());
            self.edges[there] = Edges { end, max_end: end, max_window: window, max_acknowledgement: 0 };
            self.marks[there] = self.last.offer;
            self.edges[here] = Edges::default();
            self.bits &= !bit::CHALLENGED;
            *from = State::SynSent;
            return Step::Check(State::SynRecv);
        }
        self.note(direction, kind, segment);
        self.last.kind = kind;
        if kind == Kind::Syn && direction == Direction::Original {
            self.last.offer = Marks::of(segment.options);
            self.bits &= !(bit::CHALLENGED | bit::SIMULTANEOUS);
            // In this state an ACK would be taken for that of the last FIN.
            if *from == State::LastAck {
                self.bits |= bit::CHALLENGED;
            }
        }
        Step::Done(self.ignore(direction, Ignored::State))
    }

    #[inline(always)]
    fn accept(&mut self, direction: Direction, kind: Kind, from: State, to: State) -> Outcome {
        self.last.kind = kind;
        self.last.direction = direction;
        let changed = self.state != to;
        self.state = to;
        if to == State::FinWait && from != to {
            self.marks[direction.index()].set(Marks::CLOSED_FIRST);
        }
        let replied = self.has_reply();
        if !replied && kind == Kind::Rst {
            return Outcome::Remove;
        }
        // Who repeats a SYN that nobody answers, or uses its ports again, must not keep the connection for ever.
        let refresh = replied || !(kind == Kind::Syn && from == State::SynSent);
        if replied && to == State::Established && matches!(from, State::SynRecv | State::Established) {
            self.bits |= bit::ASSURED;
        }
        self.heard(direction);
        Outcome::Accepted(Accepted { refresh, changed })
    }

    fn ignore(&mut self, direction: Direction, reason: Ignored) -> Outcome {
        self.heard(direction);
        Outcome::Ignored(reason)
    }

    /// Two ends that each send a FIN or RST which the tracker refuses are through with each other, whatever it thinks.
    #[cold]
    fn refuse(&mut self, direction: Direction, kind: Kind, reason: Invalid) -> Outcome {
        let mut shorten = false;
        if self.is_assured() && matches!(kind, Kind::Fin | Kind::Rst) {
            shorten = matches!(self.last.kind, Kind::Fin | Kind::Rst) && self.last.direction != direction;
            if !shorten {
                self.last.kind = kind;
                self.last.direction = direction;
            }
        }
        Outcome::Invalid { reason, shorten }
    }

    /// Counts a segment that is the last one once more.
    #[inline(always)]
    fn repeated(&mut self, direction: Direction, kind: Kind, segment: &Segment) {
        let before = self.last;
        self.note(direction, kind, segment);
        self.retransmissions = if self.last == before { self.retransmissions.saturating_add(1) } else { 0 };
    }

    #[inline(always)]
    fn note(&mut self, direction: Direction, kind: Kind, segment: &Segment) {
        self.last = Last {
            end: segment.end_of(kind),
            acknowledgement: segment.acknowledgement,
            window: segment.window,
            length: u16::try_from(segment.length).unwrap_or(u16::MAX),
            direction,
            ..self.last
        };
    }

    #[inline]
    fn heard(&mut self, direction: Direction) {
        if direction == Direction::Reply {
            self.bits |= bit::REPLIED;
        }
    }

    /// The sender and the receiver of a segment.
    #[inline(always)]
    fn sides(&mut self, direction: Direction) -> (Side<'_>, Side<'_>) {
        let ([a, b], [c, d]) = (&mut self.edges, &mut self.marks);
        let (original, reply) = (Side { edges: a, marks: c }, Side { edges: b, marks: d });
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    #[inline]
    const fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    /// The highest acknowledgement in a direction.
    fn acknowledged_by(&self, direction: Direction) -> Option<u32> {
        let index = direction.index();
        self.marks[index].has(Marks::ACKNOWLEDGED).then_some(self.edges[index].max_acknowledgement)
    }

    /// Whether both ends agree on the connection and nobody closes it.
    fn is_standing(&self) -> bool {
        self.state == State::Established && self.is_assured()
    }

    /// How far the connection has come.
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether anything came back, and was not invalid.
    #[inline]
    pub const fn has_reply(&self) -> bool {
        self.has(bit::REPLIED)
    }

    /// Whether the handshake was completed. Such a connection gives way to no other before it closes.
    #[inline]
    pub const fn is_assured(&self) -> bool {
        self.has(bit::ASSURED)
    }

    /// Whether the connection has begun to end, and may give way to another if there is no room.
    #[inline]
    pub const fn is_closing(&self) -> bool {
        matches!(
            self.state,
            State::FinWait | State::CloseWait | State::LastAck | State::TimeWait | State::Close
        )
    }

    /// How long the connection is kept from now on if nothing comes. To be asked when it was opened, and after a segment
    /// whose [`Accepted::refresh`] says so.
    pub fn timeout(&self, timeouts: &TcpTimeouts, knobs: Knobs) -> Duration {
        let time = timeouts.of(self.state);
        let unacknowledged = self.marks.iter().any(|marks| marks.has(Marks::UNACKNOWLEDGED));
        let limit = if self.retransmissions >= knobs.max_retransmissions && time > timeouts.retransmitted {
            timeouts.retransmitted
        } else if self.last.kind == Kind::Rst {
            return timeouts.close;
        } else if unacknowledged && time > timeouts.unacknowledged {
            timeouts.unacknowledged
        } else if self.last.window == 0 {
            timeouts.retransmitted
        } else {
            time
        };
        let time = time.min(limit);
        if self.state == State::Established && !self.has_reply() {
            time.min(timeouts.picked_up)
        } else {
            time
        }
    }
}

impl TcpTimeouts {
    const fn of(&self, state: State) -> Duration {
        match state {
            State::None | State::SynSent => self.syn_sent,
            State::SynRecv => self.syn_recv,
            State::Established => self.established,
            State::FinWait => self.fin_wait,
            State::CloseWait => self.close_wait,
            State::LastAck => self.last_ack,
            State::TimeWait => self.time_wait,
            State::Close => self.close,
            State::SynSent2 => self.syn_sent2,
        }
    }
}
