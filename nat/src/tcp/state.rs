//! The states of a connection as seen from between its ends, and what leads from one to another.

use core::fmt;

use super::segment::{Segment, flag};
use crate::tuple::Direction;

/// How far a connection has come. The tracker sees segments that may yet be lost, so these are not the states that either
/// end is in. Names and meaning are those of Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Nothing was seen. No connection that stands is in this state.
    None,
    /// A SYN.
    SynSent,
    /// A SYN and its SYN, ACK.
    SynRecv,
    /// The ACK of it too.
    Established,
    /// A FIN.
    FinWait,
    /// The ACK of it too.
    CloseWait,
    /// FINs from both.
    LastAck,
    /// The ACK of the last one too.
    TimeWait,
    /// A RST.
    Close,
    /// SYNs from both: a simultaneous open (RFC 9293 section 3.5).
    SynSent2,
}

impl State {
    /// Its name, as Linux's tools write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a segment is to the table, by the most telling of its flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    /// None of these flags. Such a segment is invalid in every state.
    Other,
}

impl Kind {
    #[inline]
    pub(super) const fn of(segment: &Segment) -> Self {
        if segment.has(flag::RST) {
            Self::Rst
        } else if segment.has(flag::SYN | flag::ACK) {
            Self::SynAck
        } else if segment.has(flag::SYN) {
            Self::Syn
        } else if segment.has(flag::FIN) {
            Self::Fin
        } else if segment.has(flag::ACK) {
            Self::Ack
        } else {
            Self::Other
        }
    }

    #[inline]
    pub(super) const fn is_syn(self) -> bool {
        matches!(self, Self::Syn | Self::SynAck)
    }
}

/// Where a segment leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    To(State),
    Ignore,
    Invalid,
}

/// Where a segment of a kind leads from a state, before its numbers are looked at.
#[inline]
pub(super) const fn next(direction: Direction, kind: Kind, state: State) -> Next {
    TABLE[direction.index()][kind as usize][state as usize]
}

const SS: Next = Next::To(State::SynSent);
const SR: Next = Next::To(State::SynRecv);
const ES: Next = Next::To(State::Established);
const FW: Next = Next::To(State::FinWait);
const CW: Next = Next::To(State::CloseWait);
const LA: Next = Next::To(State::LastAck);
const TW: Next = Next::To(State::TimeWait);
const CL: Next = Next::To(State::Close);
const S2: Next = Next::To(State::SynSent2);
const IG: Next = Next::Ignore;
const IV: Next = Next::Invalid;

/// By direction, kind and state.
#[rustfmt::skip]
static TABLE: [[[Next; 10]; 6]; 2] = [
    // From:  NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
    [
        /*S*/[SS, SS, IG, IG, IG, IG, IG, SS, SS, S2],
        /*S.*/[IV, IV, SR, IV, IV, IV, IV, IV, IV, SR],
        /*F*/[IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        /*.*/[ES, IV, ES, ES, CW, CW, TW, TW, CL, IV],
        /*R*/[IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* */[IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
    [
        /*S*/[IV, S2, IV, IV, IV, IV, IV, SS, IV, S2],
        /*S.*/[IV, SR, IG, IG, IG, IG, IG, IG, IG, SR],
        /*F*/[IV, IV, FW, FW, LA, LA, LA, TW, CL, IV],
        /*.*/[IV, IG, SR, ES, CW, CW, TW, TW, CL, IG],
        /*R*/[IV, CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* */[IV, IV, IV, IV, IV, IV, IV, IV, IV, IV],
    ],
];
