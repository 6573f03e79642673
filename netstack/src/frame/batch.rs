//! A batch: what moves between devices, links and switches, bounded in frames and in octets.

use alloc::vec;
use alloc::vec::Vec;

use super::{Frame, Offload};

/// Most frames in one batch.
pub const BATCH_FRAMES: usize = 64;
/// Octets after which a batch is full: one super-frame of 64 KiB fills it, so that it is written out while a core's
/// caches still hold what was read.
pub const BATCH_BYTES: usize = 48 * 1024;

/// Up to [`BATCH_FRAMES`] frames. A batch is full once it holds [`BATCH_BYTES`] octets, so it holds at most that much
/// plus one frame.
#[derive(Debug)]
pub struct FrameBatch {
    frames: Vec<Frame>,
    bytes: usize,
    /// Frames after which it is full.
    most: usize,
}

impl Default for FrameBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameBatch {
    /// An empty batch with room for [`BATCH_FRAMES`].
    pub fn new() -> Self {
        Self { frames: Vec::with_capacity(BATCH_FRAMES), bytes: 0, most: BATCH_FRAMES }
    }

    /// From now on the batch is full with so many frames, at most [`BATCH_FRAMES`].
    #[cfg(feature = "std")]
    pub(crate) fn hold_at_most(&mut self, frames: usize) {
        self.most = frames.min(BATCH_FRAMES);
    }

    /// Frames held.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Octets held.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether either bound is reached.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.frames.len() >= self.most || self.bytes >= BATCH_BYTES
    }

    /// Adds a frame, or gives it back when the batch is full.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.is_full() {
            return Err(frame);
        }
        self.bytes += frame.len();
        self.frames.push(frame);
        Ok(())
    }

    /// How many frames of so many octets can still be added.
    pub(super) fn room(&self, len: usize) -> usize {
        let by_octets = BATCH_BYTES.saturating_sub(self.bytes).div_ceil(len.max(1));
        self.most.saturating_sub(self.frames.len()).min(by_octets)
    }

    /// Adds frames that hold so many octets, for which there is room.
    #[inline]
    pub(super) fn extend(&mut self, frames: impl Iterator<Item = Frame>, bytes: usize) {
        self.frames.extend(frames);
        self.bytes += bytes;
    }

    /// Takes all of a list at once, which holds so many octets, and leaves it an empty one. False, and nothing done, unless
    /// the batch is empty and they fit into one.
    #[inline]
    pub(crate) fn take_all(&mut self, frames: &mut Vec<Frame>, bytes: usize) -> bool {
        let fits = self.frames.is_empty() && frames.len() <= self.most && bytes <= BATCH_BYTES;
        if fits {
            core::mem::swap(&mut self.frames, frames);
            self.bytes = bytes;
        }
        fits
    }

    /// Takes the frames, in order, out of a batch that whoever gets them leaves empty ones in; then it is empty.
    pub(crate) fn take_each(&mut self, mut take: impl FnMut(usize, &mut Frame)) {
        self.bytes = 0;
        self.frames.iter_mut().enumerate().for_each(|(at, frame)| take(at, frame));
        self.frames.clear();
    }

    /// Takes all frames out, first in first out, leaving the batch empty.
    #[inline]
    pub fn drain(&mut self) -> vec::Drain<'_, Frame> {
        self.bytes = 0;
        self.frames.drain(..)
    }

    /// Takes the frame added last.
    #[inline]
    pub fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    /// The octets of the frames, in order, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.frames.iter_mut().map(Frame::bytes_mut)
    }

    /// The checksum and segmentation state of a frame, to be changed.
    pub fn offload_mut(&mut self, at: usize) -> Option<&mut Offload> {
        self.frames.get_mut(at).map(|frame| &mut frame.offload)
    }

    /// Makes a frame `len` octets long, as [`Frame::set_len`] does; false if there is none, or no room.
    #[must_use]
    pub fn set_len(&mut self, at: usize, len: usize) -> bool {
        let Some(frame) = self.frames.get_mut(at) else { return false };
        let before = frame.len();
        let done = frame.set_len(len);
        self.bytes = self.bytes - before + frame.len();
        done
    }

    /// The frames, in order.
    #[inline]
    pub fn iter(&self) -> core::slice::Iter<'_, Frame> {
        self.frames.iter()
    }
}

impl<'a> IntoIterator for &'a FrameBatch {
    type Item = &'a Frame;
    type IntoIter = core::slice::Iter<'a, Frame>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FramePool, MAX_FRAME};
    use super::*;

    #[test]
    fn both_bounds_hold() {
        let mut pool = FramePool::new();
        let mut batch = FrameBatch::new();
        for _ in 0..BATCH_FRAMES {
            batch.push(pool.take(60)).unwrap();
        }
        assert!(batch.push(pool.take(60)).is_err());
        assert_eq!(batch.drain().count(), BATCH_FRAMES);
        assert_eq!(batch.bytes(), 0);
        let mut count = 0;
        while batch.push(pool.take(MAX_FRAME)).is_ok() {
            count += 1;
        }
        assert_eq!(count, BATCH_BYTES.div_ceil(MAX_FRAME));
        assert!(batch.bytes() < BATCH_BYTES + MAX_FRAME);
        batch.pop().unwrap();
        assert_eq!(batch.bytes(), (count - 1) * MAX_FRAME);
    }

    #[test]
    fn a_frame_changes_in_its_place() {
        let mut pool = FramePool::new();
        let mut batch = FrameBatch::new();
        batch.push(pool.copy_of(b"first")).unwrap();
        batch.push(pool.copy_of(b"second")).unwrap();
        assert!(batch.set_len(1, 3) && !batch.set_len(1, MAX_FRAME) && !batch.set_len(2, 1));
        batch.bytes_mut().for_each(|bytes| bytes.reverse());
        assert_eq!(batch.bytes(), 8);
        assert_eq!(batch.offload_mut(2), None);
        assert_eq!(batch.drain().map(|f| f.bytes().to_vec()).collect::<Vec<_>>(), [&b"tsrif"[..], b"ces"]);
    }
}
