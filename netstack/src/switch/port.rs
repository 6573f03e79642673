//! A port's state: its counters and its output queue.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::addr::PortId;
use crate::config::Limits;
use crate::counters::Counters;
use crate::frame::Frame;
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

    /// Queues a frame; when there is no room, counts it and gives it back to be recycled.
    #[inline]
    pub(super) fn enqueue(&mut self, frame: Frame, origin: Origin) -> Option<Frame> {
        self.counters.origins[origin.index()] += 1;
        let refused = self.queue.push(frame, origin);
        if refused.is_some() {
            self.counters.egress_drops[EgressDrop::QueueFull.index()][origin.index()] += 1;
        }
        refused
    }

    /// Queues a frame that is forwarded, and has the port served; what there is no room for comes back, counted.
    #[inline]
    pub(super) fn forward(
        &mut self,
        id: PortId,
        frame: Frame,
        ready: &mut VecDeque<PortId>,
    ) -> Option<Frame> {
        let refused = self.enqueue(frame, Origin::Forwarded);
        if !self.queue.ready && !self.queue.is_empty() {
            self.queue.ready = true;
            ready.push_back(id);
        }
        refused
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
    frames: VecDeque<(Frame, Origin)>,
    bytes: usize,
    max_frames: usize,
    max_bytes: usize,
    /// Whether the port stands in the switch's ring of ports to be served.
    pub(super) ready: bool,
}

impl OutputQueue {
    fn new(limits: &Limits) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            max_frames: limits.queue_frames as usize,
            max_bytes: limits.queue_bytes,
            ready: false,
        }
    }

    #[inline]
    fn push(&mut self, frame: Frame, origin: Origin) -> Option<Frame> {
        if self.frames.len() >= self.max_frames || self.bytes + frame.len() > self.max_bytes {
            return Some(frame);
        }
        self.bytes += frame.len();
        self.frames.push_back((frame, origin));
        None
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<(Frame, Origin)> {
        let (frame, origin) = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some((frame, origin))
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}
