//! Frames: bytes in a slab with room in front, and the state that travels with them.

mod batch;
mod pool;
mod state;

pub use batch::{BATCH_BYTES, BATCH_FRAMES, FrameBatch};
#[cfg(feature = "std")]
pub use pool::Depot;
pub use pool::{FramePool, PoolCounters};
pub use state::{Checksum, Offload, OffloadFeatures, SegmentKind, Segmentation};

use alloc::boxed::Box;
use core::fmt;

use crate::verdict::Origin;

/// Octets kept free in front of a fresh frame: an 802.1Q tag, or an outer header of 70 octets (VXLAN over IPv6).
pub const HEADROOM: usize = 128;
/// Octets of a small slab; holds a frame of MTU 1500 with headroom.
pub const SMALL_SLAB: usize = 2048;
/// Octets of a large slab: a 64 KiB packet, its Ethernet header with two tags, and headroom.
pub const LARGE_SLAB: usize = MAX_FRAME + HEADROOM + PAGE;
/// The longest frame a slab can hold.
pub const MAX_FRAME: usize = 65536 + 64;
/// Octets of a page, and where in a page a long frame begins. The kernel copies super-frames from and to pages of its own,
/// which begin at their first octet; a copy between places that are nearly alike in their pages is slow on some
/// processors, one between places half a page apart is not. Behind the 66 octets of Ethernet, IPv4 and TCP with
/// timestamps, the payload begins a cache line.
const PAGE: usize = 4096;
const PLACE_IN_PAGE: usize = 2176 - 66;

/// One Ethernet frame: `slab[start..end]`, without preamble and FCS.
pub struct Frame {
    slab: Box<[u8]>,
    start: u32,
    end: u32,
    /// Checksum and segmentation state.
    pub offload: Offload,
    /// PCP and DEI of the 802.1Q tag it came with (the upper four bits of the TCI, in place), 0 if it had none.
    pub priority: u16,
    /// How it came to leave, while it waits in a queue.
    pub(crate) origin: Origin,
}

impl Frame {
    /// `len` octets of a slab, which has room for them behind [`HEADROOM`].
    #[inline]
    fn in_slab(slab: Box<[u8]>, len: usize) -> Self {
        let spare = match slab.len() {
            LARGE_SLAB => (PLACE_IN_PAGE + PAGE - (slab.as_ptr().addr() + HEADROOM) % PAGE) % PAGE,
            _ => 0,
        };
        let start = offset(HEADROOM + spare);
        Self {
            slab,
            start,
            end: start + offset(len),
            offload: Offload::default(),
            priority: 0,
            origin: Origin::Forwarded,
        }
    }

    #[inline]
    fn into_slab(self) -> Box<[u8]> {
        self.slab
    }

    /// The frame's octets.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.slab[self.start as usize..self.end as usize]
    }

    /// The frame's octets, to change in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.slab[self.start as usize..self.end as usize]
    }

    /// Octets in the frame.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the frame has no octet.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Octets that [`Frame::set_len`] can reach without moving the start.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.slab.len() - self.start as usize
    }

    /// Octets that [`Frame::grow_front`] can still give.
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// Makes the frame `len` octets long; new octets hold whatever the slab held. Refuses more than
    /// [`Frame::capacity`].
    #[inline]
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > self.capacity() {
            return false;
        }
        self.end = self.start + offset(len);
        true
    }

    /// Moves the start `count` octets forward into the headroom; refuses when there is not enough.
    #[must_use]
    pub fn grow_front(&mut self, count: usize) -> bool {
        if count > self.headroom() {
            return false;
        }
        self.start -= offset(count);
        true
    }

    /// Drops `count` octets from the front; refuses more than the frame has.
    #[must_use]
    pub fn shrink_front(&mut self, count: usize) -> bool {
        if count > self.len() {
            return false;
        }
        self.start += offset(count);
        true
    }

    /// Whether the slab is of the small class. One that was taken away is of none.
    fn is_small(&self) -> bool {
        self.slab.len() == SMALL_SLAB
    }

    /// Whether the slab is of the large class.
    pub fn is_large(&self) -> bool {
        self.slab.len() > SMALL_SLAB
    }
}

/// An offset into a slab, which is at most [`LARGE_SLAB`] octets long.
#[expect(clippy::cast_possible_truncation, reason = "a slab is shorter than 2^32 octets")]
const fn offset(octets: usize) -> u32 {
    octets as u32
}

/// A frame of nothing, which holds no slab: what is left where a frame was taken.
impl Default for Frame {
    #[inline]
    fn default() -> Self {
        Self {
            slab: Box::default(),
            start: 0,
            end: 0,
            offload: Offload::default(),
            priority: 0,
            origin: Origin::Forwarded,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("len", &self.len())
            .field("offload", &self.offload)
            .finish_non_exhaustive()
    }
}

// Moved some times on its way.
const _: () = assert!(size_of::<Frame>() == 40 || size_of::<usize>() != 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_grow_and_shrink_in_place() {
        let mut pool = FramePool::new();
        let mut frame = pool.copy_of(b"payload");
        assert!(frame.grow_front(4));
        frame.bytes_mut()[..4].copy_from_slice(b"tag ");
        assert_eq!(frame.bytes(), b"tag payload");
        assert!(frame.shrink_front(4));
        assert_eq!(frame.bytes(), b"payload");
        assert!(!frame.shrink_front(8));
        assert!(!frame.grow_front(HEADROOM + 1));
        assert!(!frame.set_len(SMALL_SLAB));
        assert!(frame.set_len(SMALL_SLAB - HEADROOM));
    }

    #[test]
    fn size_decides_the_class() {
        let mut pool = FramePool::new();
        assert!(!pool.take(1514).is_large());
        assert!(pool.take(SMALL_SLAB - HEADROOM + 1).is_large());
        assert_eq!(pool.take(MAX_FRAME).len(), MAX_FRAME);
    }
}
