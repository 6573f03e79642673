//! What may be chosen about the tracking of TCP.

/// Choices where the field disagrees. Every one can be set; the three functions are the combinations that are known to
/// go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Knobs {
    /// A connection whose beginning was not seen is picked up from an ACK that the inside sends.
    pub loose: bool,
    /// A segment outside of the windows belongs to its connection all the same, unless it is a RST.
    pub liberal: bool,
    /// A RST below what the other side has acknowledged is judged by the windows alone.
    pub ignore_invalid_rst: bool,
    /// After so many repetitions of a segment without an answer the connection is kept for
    /// [`TcpTimeouts::retransmitted`](crate::timeouts::TcpTimeouts::retransmitted) only.
    pub max_retransmissions: u8,
}

impl Knobs {
    /// The RFCs to the letter: only what has begun with a SYN is a connection, and only what is in window belongs to it.
    pub const fn strict() -> Self {
        Self { loose: false, ..Self::linux() }
    }

    /// What Linux does unless told otherwise.
    pub const fn linux() -> Self {
        Self { loose: true, liberal: false, ignore_invalid_rst: false, max_retransmissions: 3 }
    }

    /// What suits the addresses of a cluster's nodes: whatever a pod sends leaves translated, because a segment that is
    /// refused here would be taken for a stranger's there.
    pub const fn node() -> Self {
        Self { liberal: true, ..Self::linux() }
    }
}
