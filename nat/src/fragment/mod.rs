//! Virtual reassembly: which connection a fragment is of, without putting the datagram together.
//!
//! # Theory of operation
//! Only a datagram's first fragment has ports. [`Table::take`] records every fragment. The first is given back at once; its
//! owner finds or opens the connection as for any packet, and says with [`Table::resolve`] what the others are to be told:
//! a connection, a translated identification, what it likes. Later fragments get that value and go on; those that came
//! before the first are *parked* until then, and come out in the order in which they came (RFC 4787 REQ-14).
//!
//! A datagram is forgotten as soon as all of it has passed. Until then it takes one entry of a fixed number, and parked
//! fragments count against limits in number and octets. When something is full, the oldest datagram of those in question
//! makes room: what honest hosts send passes in a moment, so the oldest is most likely the one that never gets complete. Nothing
//! grows, and packets that are no fragments are untouched by any of it.
//!
//! What a receiver could put together in more than one way is a way around every rule, so it goes no further: with an
//! overlap the whole datagram is refused (RFC 5722, applied to IPv4 too), as are second fragments of TCP where the flags
//! stand (RFC 3128) and IPv6 fragments that leave headers to the next (RFC 7112). A first fragment of TCP over IPv4 may
//! still be as short as 8 octets (RFC 791): it has ports and a sequence number but no flags. Who tracks TCP must not open a
//! connection with it and should let it pass on an existing one without a change of its state.

mod datagram;
mod part;
mod slab;
mod table;
#[cfg(test)]
mod tests;

pub use part::{Key, Part};
pub use table::Table;

use core::time::Duration;

/// How much a table holds; all of it is allocated at the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Datagrams of which fragments are outstanding.
    pub datagrams: u32,
    /// Fragments of one datagram.
    pub fragments: u16,
    /// Parked fragments, of all datagrams together.
    pub parked: u32,
    /// Octets in parked fragments. One datagram has at most 65,535 and its fragments' headers.
    pub parked_octets: usize,
    /// How long a datagram may take until its first fragment has come, and from then until it is complete; see
    /// [`crate::timeouts::Timeouts::reassembly`].
    pub timeout: Duration,
}

impl Limits {
    /// Enough for a node: 1024 datagrams of 64 fragments, 512 fragments and 512 KiB parked.
    pub const fn new(timeout: Duration) -> Self {
        Self { datagrams: 1024, fragments: 64, parked: 512, parked_octets: 512 << 10, timeout }
    }
}

/// Why a fragment goes no further.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The same octets came before. The datagram is not harmed.
    Duplicate,
    /// It overlaps another; the whole datagram is refused.
    Overlap,
    /// It is empty, leaves the 65,535 octets of a datagram, is not cut at a multiple of 8, or contradicts another fragment
    /// about where the datagram ends; the whole datagram is refused.
    Length,
    /// The headers are spread over fragments; the whole datagram is refused.
    Tiny,
    /// The datagram has more fragments than the limit; it is refused.
    Count,
    /// The datagram was the oldest when room was needed.
    Pressure,
    /// The first fragment, or another one, did not come in time.
    Timeout,
    /// The first fragment was rejected by the owner of the table.
    Rejected,
}

/// What is to become of a fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken<V, P> {
    /// The first of its datagram: call [`Table::resolve`] or [`Table::reject`].
    First(P),
    /// A later one, and the value that the first was resolved with.
    Later(V, P),
    /// Kept until the first comes.
    Parked,
    /// It goes no further.
    Refused(Refusal, P),
}
