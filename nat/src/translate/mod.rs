//! Translation of the octets of packets.
//!
//! # Theory of operation
//! What is to become of a connection's packets in one direction is worked out once, as a [`Rewrite`]: both endpoints, and
//! what the change does to every checksum that covers them. To apply it to a packet is a few stores and one addition for
//! each checksum.
//!
//! Nothing here recomputes a checksum, so nothing repairs one: what arrives wrong leaves just as wrong (RFC 1624), and its
//! receiver finds out. Even SCTP's CRC32c is updated by the difference alone. One exception of form: ones' complement has
//! two zeros, and a checksum of 0xffff, which no sender computes but for UDP, may leave as 0x0000, which means the same.
//!
//! ICMP errors carry the beginning of the packet they are about. They go to who sent that packet, so the quote must look as
//! it did there: [`Rewrite::apply_error`] undoes the translation inside and redirects the outside, see there.
//!
//! The rest stands alone: [`mss`] for the MSS option, [`identification`] for IPv4's identification, [`prefix`] for
//! translation of prefixes without state.

mod crc32c;
mod error;
pub mod identification;
pub mod mss;
pub mod prefix;
mod rewrite;
#[cfg(test)]
mod tests;

pub use error::{ErrorFault, check_error};
pub use rewrite::Rewrite;

use crate::checksum::Delta;
use crate::packet::Layout;

/// How far a packet's upper-layer checksum has been computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumState {
    /// All of it.
    Complete,
    /// The field holds the bare sum of the pseudo-header, and a device adds the rest as the packet leaves
    /// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`). Addresses change it, L4 ports do not.
    Partial,
}

/// Why a packet was left as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Unfit {
    /// The octets are too few for the layout, or the packet is of the other family.
    Layout,
    /// It is no ICMP error.
    Content,
    /// A fragment of SCTP: its ports cannot change, because the checksum they are under covers the other fragments too.
    Fragment,
}

/// The octets of the IP header, with extension headers, and those of the upper layer.
#[inline]
fn split<'a>(bytes: &'a mut [u8], layout: &Layout) -> Result<(&'a mut [u8], &'a mut [u8]), Unfit> {
    let packet = bytes.get_mut(..layout.end).ok_or(Unfit::Layout)?;
    let (headers, upper) = packet.split_at_mut_checked(layout.upper).ok_or(Unfit::Layout)?;
    Ok((headers.get_mut(layout.header..).ok_or(Unfit::Layout)?, upper))
}

/// Updates the checksum at `at`, if the octets reach that far.
#[inline]
fn update(bytes: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some([high, low]) = bytes.get_mut(at..at + 2) {
        [*high, *low] = change(u16::from_be_bytes([*high, *low])).to_be_bytes();
    }
}

/// The checksum after a change of words that lie behind the pseudo-header: a partial one does not cover them.
#[inline]
fn changed(checksum: u16, delta: Delta, state: ChecksumState) -> u16 {
    match state {
        ChecksumState::Complete => delta.apply(checksum),
        ChecksumState::Partial => checksum,
    }
}
