//! A port's state: its counters and its output queue.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::addr::PortId;
use crate::config::Limits;
use crate::counters::Counters;
use crate::frame::{BATCH_FRAMES, Frame, FrameBatch, FramePool};
use crate::rate::Bucket;
use crate::verdict::{EgressDrop, Origin};

/// What the switch keeps per port.
#[derive(Debug)]
pub(super) struct PortState {
    pub(super) counters: Counters,
    pub(super) queue: OutputQueue,
    /// When it was last told that no more addresses are learned here.
    pub(super) fdb_full_told: Option<Duration>,
    /// What storm control has let through lately, and when it was last told that there was more.
    pub(super) storm: Bucket,
    pub(super) storm_told: Option<Duration>,
}

impl PortState {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            counters: Counters::default(),
            queue: OutputQueue::new(limits),
            fdb_full_told: None,
            storm: Bucket::default(),
            storm_told: None,
        }
    }

    /// Moves queued frames into a batch, as far as there is room.
    pub(super) fn fill(&mut self, batch: &mut FrameBatch) {
        let (frames, bytes) = (batch.len(), batch.bytes());
        if !self.queue.pour(batch) {
            while !batch.is_full() {
                let Some(frame) = self.queue.pop() else { break };
                // The batch has room: it was asked just before.
                if batch.push(frame).is_err() {
                    break;
                }
            }
        }
        self.counters.tx_frames += (batch.len() - frames) as u64;
        self.counters.tx_bytes += (batch.bytes() - bytes) as u64;
    }

    /// Queues a frame, leaving an empty one, and has the port served, whose number is `id`; what there is no room for is
    /// counted, and recycled.
    #[inline]
    pub(super) fn send(
        &mut self,
        id: PortId,
        frame: &mut Frame,
        origin: Origin,
        ready: &mut VecDeque<PortId>,
        pool: &mut FramePool,
    ) {
        self.counters.origins[origin.index()] += 1;
        frame.origin = origin;
        if !self.queue.push(frame) {
            self.counters.egress_drops[EgressDrop::QueueFull.index()][origin.index()] += 1;
            return pool.recycle(core::mem::take(frame));
        }
        if !self.queue.ready {
            self.queue.ready = true;
            ready.push_back(id);
        }
    }

    /// Counts a frame that could not be queued.
    pub(super) fn refuse(&mut self, reason: EgressDrop, origin: Origin) {
        self.counters.origins[origin.index()] += 1;
        self.counters.egress_drops[reason.index()][origin.index()] += 1;
    }
}

/// Frames waiting for a port's device: first in first out, bounded in frames and octets; a full queue refuses the new
/// frame and harms no other port.
#[derive(Debug)]
pub(super) struct OutputQueue {
    /// Those in front of `head` have left.
    frames: Vec<Frame>,
    head: usize,
    bytes: usize,
    max_frames: usize,
    max_bytes: usize,
    /// Whether the port stands in the switch's ring of ports to be served.
    pub(super) ready: bool,
}

impl OutputQueue {
    fn new(limits: &Limits) -> Self {
        Self {
            frames: Vec::new(),
            head: 0,
            bytes: 0,
            max_frames: limits.queue_frames as usize,
            max_bytes: limits.queue_bytes,
            ready: false,
        }
    }

    /// Takes a frame out of its place; false, and nothing taken, if there is no room.
    #[inline]
    fn push(&mut self, frame: &mut Frame) -> bool {
        if self.len() >= self.max_frames || self.bytes + frame.len() > self.max_bytes {
            return false;
        }
        self.bytes += frame.len();
        if self.frames.len() == self.frames.capacity() {
            self.make_room();
        }
        self.frames.push(core::mem::take(frame));
        true
    }

    /// Closes up, or takes memory: as much as a batch has at least, for whose list this one is exchanged.
    #[cold]
    fn make_room(&mut self) {
        drop(self.frames.drain(..self.head));
        self.head = 0;
        if self.frames.len() == self.frames.capacity() {
            self.frames.reserve(self.frames.len().max(BATCH_FRAMES));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Frame> {
        let frame = core::mem::take(self.frames.get_mut(self.head)?);
        self.head += 1;
        self.bytes -= frame.len();
        if self.head == self.frames.len() {
            self.frames.clear();
            self.head = 0;
        }
        Some(frame)
    }

    /// Gives all to a batch, if it takes them as they are.
    fn pour(&mut self, batch: &mut FrameBatch) -> bool {
        let all = self.head == 0 && batch.take_all(&mut self.frames, self.bytes);
        if all {
            self.bytes = 0;
        }
        all
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.frames.len() - self.head
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
