//! Ports that were released and may not be given out again yet (RFC 6888 REQ-8).
//!
//! One queue for a whole pool: as the time to wait is the same for all, who came first is free first. Its memory is taken at
//! construction. When it is full, the oldest is set free early.

use alloc::collections::VecDeque;
use core::time::Duration;

use super::Protocol;

/// A port that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting<A> {
    pub(super) address: A,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) until: Duration,
}

#[derive(Debug)]
pub(super) struct HoldDown<A> {
    queue: VecDeque<Waiting<A>>,
    most: usize,
}

impl<A: Copy + Eq> HoldDown<A> {
    pub(super) fn new(most: u32) -> Self {
        let most = most as usize;
        Self { queue: VecDeque::with_capacity(most), most }
    }

    /// Adds a port; who is pushed out by that is free.
    pub(super) fn push(&mut self, waiting: Waiting<A>) -> Option<Waiting<A>> {
        if self.most == 0 {
            return Some(waiting);
        }
        let oldest = if self.queue.len() < self.most { None } else { self.queue.pop_front() };
        self.queue.push_back(waiting);
        oldest
    }

    /// The next whose wait is over.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Waiting<A>> {
        self.queue.pop_front_if(|waiting| waiting.until <= now)
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.queue.front().map(|waiting| waiting.until)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Forgets a port, after a look at all that wait: for commands, not for packets.
    pub(super) fn forget(&mut self, address: A, protocol: Protocol, port: u16) {
        self.queue.retain(|w| (w.address, w.protocol, w.port) != (address, protocol, port));
    }

    pub(super) fn forget_address(&mut self, address: A) {
        self.queue.retain(|waiting| waiting.address != address);
    }
}
