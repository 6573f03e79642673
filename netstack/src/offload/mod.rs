//! What software does with a frame's checksum and segmentation state when the next device does not take it over.

mod checksum;
mod field;
mod fragment;
mod join;
mod segment;
mod validate;

pub use crate::frame::{Checksum, Offload, OffloadFeatures, SegmentKind, Segmentation};
pub use checksum::complete_checksum;
pub use fragment::{FragmentError, MIN_MTU, fragment_ipv4};
pub use join::{MOST_JOINED, join};
pub use segment::segment;
pub use validate::{MAX_PIECES, packet_size_on_wire, validate};

/// The offload state does not fit the frame it stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the offload state does not fit the frame")]
pub struct OffloadInvalid;

#[cfg(test)]
mod tests;
