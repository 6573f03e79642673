//! Whether a segment's numbers lie within the windows, as far as they can be known between the ends.
//!
//! # Theory of operation
//! After Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (SANE 2000), as Linux developed it. What the
//! receiver can have granted is bounded by what went past. Of each side are known: the highest sequence number it sent
//! (*end*), the highest it may send (*max end*: the other side's acknowledgement plus window), its largest window (*max
//! window*) and its highest acknowledgement. A segment has to meet four conditions:
//!
//! 1. it begins at or below its sender's max end;
//! 2. it ends no lower than its sender's end minus the receiver's max window;
//! 3. it acknowledges no more than the receiver's end;
//! 4. it acknowledges no less than the receiver's end minus the sender's max window, or 66,000.
//!
//! A segment that fails 1 or 3 is invalid, for nobody honest sends it. One that fails 2 or 4 is old, and is passed on
//! because its receiver answers it. One that fails 1 by no more than a window is passed on too, and what it carries is
//! expected to be acknowledged: there are stacks that send more than they were granted.
//!
//! A selective acknowledgement's highest edge counts as what is acknowledged. A window of zero counts as one, for the
//! sender may probe it. Windows are shifted if both SYNs offered it (RFC 7323 section 2.2), those of SYNs never.

use super::outcome::{Ignored, Invalid};
use super::segment::{Options, Segment, flag};
use super::state::{Kind, State};

/// What is known of one side. Its two parts are stored apart, since together they would be padded.
pub(super) struct Side<'a> {
    pub(super) edges: &'a mut Edges,
    pub(super) marks: &'a mut Marks,
}

/// Sequence numbers of one side, and its window. See the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Edges {
    pub(super) end: u32,
    pub(super) max_end: u32,
    /// 0 as long as nothing was seen of this side.
    pub(super) max_window: u32,
    pub(super) max_acknowledgement: u32,
}

/// What else is known of one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Marks {
    pub(super) scale: u8,
    bits: u8,
}

impl Marks {
    /// The SYN offered to shift windows.
    pub(super) const SCALES: u8 = 1;
    /// The SYN permitted selective acknowledgements.
    pub(super) const SACK: u8 = 1 << 1;
    /// Conditions do not count, because the beginning was not seen.
    pub(super) const LIBERAL: u8 = 1 << 2;
    /// Something that this side sent is not acknowledged.
    pub(super) const UNACKNOWLEDGED: u8 = 1 << 3;
    /// This side sent the first FIN.
    pub(super) const CLOSED_FIRST: u8 = 1 << 4;
    /// This side has acknowledged something.
    pub(super) const ACKNOWLEDGED: u8 = 1 << 5;

    #[inline]
    pub(super) const fn has(self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, bits: u8) {
        self.bits |= bits;
    }

    #[inline]
    const fn clear(&mut self, bits: u8) {
        self.bits &= !bits;
    }

    /// What a SYN's options say.
    pub(super) fn of(options: Options) -> Self {
        let mut marks = Self { scale: options.scale.unwrap_or(0), bits: 0 };
        if options.scale.is_some() {
            marks.set(Self::SCALES);
        }
        if options.sack_permitted {
            marks.set(Self::SACK);
        }
        marks
    }
}

/// What the conditions say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    In,
    Ignored(Ignored),
    Invalid(Invalid),
}

/// `a < b`, as sequence numbers (RFC 9293 section 3.4).
#[inline]
pub(super) const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// A window of zero may be probed with one octet.
#[inline]
pub(super) const fn at_least_one(window: u32) -> u32 {
    if window == 0 { 1 } else { window }
}

impl Side<'_> {
    /// Takes up a side from its SYN. In the reply's direction it settles whether windows are shifted.
    pub(super) fn begin(&mut self, segment: &Segment, other: Option<&mut Side<'_>>) {
        let liberal = self.marks.has(Marks::LIBERAL);
        let end = segment.end();
        *self.edges = Edges {
            end,
            max_end: end,
            max_window: at_least_one(segment.window.into()),
            max_acknowledgement: 0,
        };
        *self.marks = Marks::of(segment.options);
        if liberal {
            self.marks.set(Marks::LIBERAL);
        }
        if let Some(other) = other
            && !(self.marks.has(Marks::SCALES) && other.marks.has(Marks::SCALES))
        {
            self.marks.scale = 0;
            other.marks.scale = 0;
        }
    }

    /// Takes up a side from the middle of its connection.
    fn join(&mut self, segment: &Segment, acknowledged: u32, receiver: &mut Side<'_>) {
        let window = at_least_one(u32::from(segment.window) << self.marks.scale);
        let end = segment.end();
        self.edges.end = end;
        self.edges.max_window = window;
        self.edges.max_end = end.wrapping_add(window);
        // The answer to a keep-alive acknowledges one octet more than the keep-alive's end.
        if receiver.marks.has(Marks::LIBERAL) && acknowledged == receiver.edges.end.wrapping_add(1) {
            receiver.edges.end = acknowledged;
        }
    }
}

/// A segment's numbers, as the conditions take them.
#[derive(Clone, Copy)]
struct Numbers {
    sequence: u32,
    end: u32,
    acknowledgement: u32,
    /// The acknowledgement, or the highest edge of the selective ones.
    acknowledged: u32,
}

/// Holds a segment of a kind against the conditions, and takes up what it says if it meets them. `reply` tells its
/// direction.
///
/// All that depends on flags is asked of the kind, so that nothing of it is left where the kind is known beforehand.
#[inline(always)]
pub(super) fn fit(
    mut sender: Side<'_>,
    mut receiver: Side<'_>,
    segment: &Segment,
    kind: Kind,
    reply: bool,
    state: State,
) -> Fit {
    let sack = if receiver.marks.has(Marks::SACK) { segment.options.sack } else { None };
    let mut numbers = Numbers {
        sequence: segment.sequence,
        end: segment.end_of(kind),
        acknowledgement: segment.acknowledgement,
        acknowledged: sack.unwrap_or(segment.acknowledgement),
    };
    if sender.edges.max_window == 0 || kind.is_syn() {
        begins(&mut sender, &mut receiver, segment, kind, numbers, reply, state);
    }
    let acknowledges = match kind {
        Kind::SynAck | Kind::Fin | Kind::Ack => true,
        // Some stacks set ACK in a RST that acknowledges nothing.
        Kind::Rst => segment.has(flag::ACK) && numbers.acknowledgement != 0,
        Kind::Syn | Kind::Other => false,
    };
    if !acknowledges {
        numbers.acknowledgement = receiver.edges.end;
        numbers.acknowledged = receiver.edges.end;
    }
    if kind == Kind::Rst && numbers.sequence == 0 && state == State::SynSent {
        // A RST that answers a SYN has nothing to number from (RFC 9293 section 3.10.7.1).
        numbers.sequence = sender.edges.end;
        numbers.end = sender.edges.end;
    }
    let fit = conditions(&mut sender, &receiver, numbers);
    if fit == Fit::In {
        let scale = if kind.is_syn() { 0 } else { sender.marks.scale };
        take(sender, receiver, u32::from(segment.window) << scale, acknowledges, numbers);
    }
    fit
}

/// Takes up a side that was not heard before, or that begins anew.
#[cold]
fn begins(
    sender: &mut Side<'_>,
    receiver: &mut Side<'_>,
    segment: &Segment,
    kind: Kind,
    numbers: Numbers,
    reply: bool,
    state: State,
) {
    if !kind.is_syn() {
        return sender.join(segment, numbers.acknowledged, receiver);
    }
    // A later SYN replaces an earlier one, and the SYN, ACK of this very SYN whatever was heard before it.
    let later = before(sender.edges.end, numbers.end) && matches!(state, State::SynSent | State::SynRecv);
    let answers = state == State::SynSent
        && kind == Kind::SynAck
        && numbers.acknowledgement == receiver.edges.end
        && numbers.end != sender.edges.end;
    if sender.edges.max_window == 0 || later || answers {
        sender.begin(segment, reply.then_some(receiver));
    }
}

#[inline(always)]
fn conditions(sender: &mut Side<'_>, receiver: &Side<'_>, numbers: Numbers) -> Fit {
    /// An acknowledgement may always be so much older than the newest octet.
    const LEAST: u32 = 66_000;
    let Numbers { sequence, end, acknowledged, .. } = numbers;
    let (ours, theirs) = (&mut *sender.edges, &*receiver.edges);
    let above = before(theirs.end, acknowledged);
    let overdue = before(acknowledged, theirs.end.wrapping_sub(ours.max_window.max(LEAST)));
    let old = before(end, ours.end.wrapping_sub(theirs.max_window));
    if before(ours.max_end, sequence) {
        let beyond = end.wrapping_sub(ours.max_end).wrapping_add(1);
        if theirs.max_window != 0 && !old && !overdue && !above && beyond <= theirs.max_window {
            ours.end = end;
            sender.marks.set(Marks::UNACKNOWLEDGED);
            return Fit::Ignored(Ignored::SequenceBeyond);
        }
        return Fit::Invalid(Invalid::SequenceAbove);
    }
    if above {
        return Fit::Invalid(Invalid::AcknowledgementAbove);
    }
    if old && theirs.max_window != 0 {
        return Fit::Ignored(Ignored::SequenceBelow);
    }
    if overdue {
        return Fit::Ignored(Ignored::AcknowledgementBelow);
    }
    Fit::In
}

#[inline(always)]
fn take(sender: Side<'_>, receiver: Side<'_>, window: u32, acknowledges: bool, numbers: Numbers) {
    let Numbers { end, acknowledgement, acknowledged, .. } = numbers;
    let (ours, theirs) = (sender.edges, receiver.edges);

    let reach = window.wrapping_add(acknowledged.wrapping_sub(acknowledgement));
    ours.max_window = ours.max_window.max(reach);
    if before(ours.end, end) {
        ours.end = end;
        sender.marks.set(Marks::UNACKNOWLEDGED);
    }
    if acknowledges
        && (!sender.marks.has(Marks::ACKNOWLEDGED) || before(ours.max_acknowledgement, acknowledgement))
    {
        ours.max_acknowledgement = acknowledgement;
        sender.marks.set(Marks::ACKNOWLEDGED);
    }

    if theirs.max_window != 0 && before(ours.max_end, end) {
        theirs.max_window = theirs.max_window.wrapping_add(end.wrapping_sub(ours.max_end));
    }
    let granted = acknowledged.wrapping_add(window);
    if !before(granted, theirs.max_end) {
        theirs.max_end = acknowledged.wrapping_add(at_least_one(window));
    }
    if acknowledgement == theirs.end {
        receiver.marks.clear(Marks::UNACKNOWLEDGED);
    }
}
