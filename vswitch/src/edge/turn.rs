//! What a flow's turn needs of everything around it.

use std::time::Duration;

use netstack::emit::IcmpError;
use netstack::flow::FlowKey;
use netstack::frame::Frame;

use super::config::{EdgeCounters, EdgeDrop, EdgeLimits, EdgeTimers};
use super::link::Link;
use super::outside::{Outside, SocketId};

/// See the module.
pub(super) struct Turn<'a, O> {
    pub(super) now: Duration,
    pub(super) key: FlowKey,
    /// The flow's own.
    pub(super) socket: SocketId,
    pub(super) outside: &'a mut O,
    pub(super) link: &'a mut Link,
    pub(super) counters: &'a mut EdgeCounters,
    pub(super) timers: &'a EdgeTimers,
    pub(super) limits: &'a EdgeLimits,
    /// Octets that are held for sockets, of all flows.
    pub(super) held: &'a mut usize,
}

/// Whether a flow goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Stays,
    /// It has given up its socket.
    Over,
}

impl<O: Outside> Turn<'_, O> {
    pub(super) fn drop(&mut self, reason: EdgeDrop) {
        self.counters.drop(reason);
    }

    pub(super) fn enqueue(&mut self, frame: Frame) {
        self.link.enqueue(frame, self.counters);
    }

    pub(super) fn send_error(&mut self, quote: [u8; 8], error: IcmpError) {
        self.link.send_error(self.now, &self.key, quote, error, self.counters);
    }
}
