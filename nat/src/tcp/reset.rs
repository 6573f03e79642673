//! Whether a RST is believed (RFC 5961 section 3).
//!
//! A RST counts for its receiver if it stands exactly where the next octet is expected. What the receiver expects is what
//! it last acknowledged, and of that the tracker knows only what went past; so a RST in window that is not exact may
//! still count, or may be answered with a challenge ACK. It is passed on, and the connection stands for the time of a
//! closed one: that is short if it has counted, and the first segment of a connection that lives on lengthens it again.
//! Unlike in Linux, such a RST leaves no other trace, so that a forged one does not shorten the time for longer.

use super::outcome::Invalid;
use super::segment::Segment;
use super::state::{Kind, State};
use super::{Knobs, Tcp};
use crate::tuple::Direction;

/// What is to be done about a RST.
pub(super) enum Belief {
    /// It does not count, and is none of the connection's.
    Refused(Invalid),
    /// It counts, without a look at the windows.
    Certain,
    /// It leads to this state if it lies in window.
    Likely(State),
}

pub(super) fn judge(tcp: &Tcp, direction: Direction, segment: &Segment, knobs: Knobs) -> Belief {
    // The ports of a connection that closes may be in use again already, and nothing that is known would fit.
    if tcp.is_closing() {
        return Belief::Certain;
    }
    let mut next = State::Close;
    // After a SYN was passed on without counting, what was acknowledged before may be outdated.
    if tcp.last.kind != Kind::Syn
        && let Some(expected) = tcp.acknowledged_by(direction.reverse())
    {
        let sequence = segment.sequence;
        let stands = tcp.is_standing();
        if sequence == 0 && !stands {
            // Probably the answer to a SYN.
            return Belief::Likely(next);
        }
        if super::window::before(sequence, expected) && !knobs.ignore_invalid_rst {
            return Belief::Refused(Invalid::Reset);
        }
        let follows =
            tcp.last.kind == Kind::Ack && tcp.last.direction == direction && sequence == tcp.last.end;
        if !stands || sequence == expected || follows {
            return Belief::Likely(next);
        }
        next = tcp.state;
    }
    if answers_what_was_ignored(tcp, segment) { Belief::Certain } else { Belief::Likely(next) }
}

/// A RST that refuses a segment that was passed on without counting: what it acknowledges or follows is that segment, and
/// the windows know nothing of it.
fn answers_what_was_ignored(tcp: &Tcp, segment: &Segment) -> bool {
    let refuses =
        (tcp.has_reply() && tcp.last.kind == Kind::Syn) || (!tcp.is_assured() && tcp.last.kind == Kind::Ack);
    let half_open = tcp.state == State::SynSent
        && tcp.last.kind == Kind::Ack
        && tcp.last.direction == Direction::Reply
        && segment.sequence == tcp.last.acknowledgement;
    half_open || (refuses && segment.acknowledgement == tcp.last.end)
}
