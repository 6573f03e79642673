//! What the tracker says about a segment.

use crate::accepted::Accepted;

/// What follows from a segment for its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It belongs to the connection.
    Accepted(Accepted),
    /// It is passed on, but proves nothing: neither the state nor the connection's time changes.
    Ignored(Ignored),
    /// It does not belong to the connection.
    Invalid {
        /// Why not.
        reason: Invalid,
        /// Both sides want to end what the tracker holds to be standing: of the time that is left at most
        /// [`TcpTimeouts::unacknowledged`](crate::timeouts::TcpTimeouts::unacknowledged) stays.
        shorten: bool,
    },
    /// It opens the same ports again: the connection is over, and the segment is the first of another one (RFC 9293
    /// section 3.6.1).
    StartAgain,
    /// It is passed on, and the connection is over at once.
    Remove,
}

/// Why a segment is passed on without counting.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ignored {
    /// The endpoints may know more than the tracker, and their answer will tell.
    State,
    /// It may be the answer to a SYN that was ignored (RFC 5961 section 4), and not to a FIN.
    ChallengeAcknowledgement,
    /// It reaches beyond the window, by no more than a window.
    SequenceBeyond,
    /// All of its data was acknowledged long ago.
    SequenceBelow,
    /// Its acknowledgement is long overdue.
    AcknowledgementBelow,
}

/// Why a segment does not belong to a connection, or opens none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invalid {
    /// Its flags make no sense together.
    Flags,
    /// Nothing of the kind can come in this state, or open a connection.
    State,
    /// It belongs to the middle of a connection, and none is picked up.
    Middle,
    /// It lies above the receiver's window.
    SequenceAbove,
    /// It acknowledges what was not sent.
    AcknowledgementAbove,
    /// It is a RST below what the other side has acknowledged.
    Reset,
}
