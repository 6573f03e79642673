//! What the driver turns.

use core::any::Any;
use core::fmt;
use std::time::Duration;

use crate::addr::PortId;
use crate::device::DeviceError;
use crate::event::Event;
use crate::frame::{FrameBatch, FramePool};
use crate::switch::Switch;

/// A switch or a host: batches and times in, batches out. Right in any call order.
pub trait Engine: Any + Send {
    /// Takes all frames out of the batch, which came in at `port`.
    fn handle_frames(&mut self, now: Duration, port: PortId, batch: &mut FrameBatch);

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Duration);

    /// Fills the empty batch with frames for one port; `None` when nothing is left to send.
    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId>;

    /// When [`Engine::handle_timeout`] is due next, in the epoch of `now`.
    fn poll_timeout(&self) -> Option<Duration>;

    /// The next state change worth telling.
    fn poll_event(&mut self) -> Option<Event>;

    /// Where frames for this engine come from and go back to.
    fn pool(&mut self) -> &mut FramePool;
}

impl Engine for Switch {
    fn handle_frames(&mut self, now: Duration, port: PortId, batch: &mut FrameBatch) {
        self.handle_frames(now, port, batch);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.handle_timeout(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.poll_transmit(batch)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }

    fn pool(&mut self) -> &mut FramePool {
        self.pool()
    }
}

/// An engine of one driver. Never used again after the engine was removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EngineId(pub(super) u32);

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine {}", self.0)
    }
}

/// Something a driver has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DriverEvent {
    /// A device failed for good and was detached.
    DeviceGone {
        /// The engine it was attached to.
        engine: EngineId,
        /// The port it was attached to.
        port: PortId,
        /// [`DeviceError::Gone`] when the other end is gone; otherwise what the system said.
        error: DeviceError,
    },
    /// An engine's state changed.
    Engine {
        /// The engine.
        engine: EngineId,
        /// What changed.
        event: Event,
    },
}

/// What went through one attachment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceCounters {
    /// Frames received from the device.
    pub rx_frames: u64,
    /// Octets of those.
    pub rx_bytes: u64,
    /// Frames that the kernel read ahead, through a ring ([`Reading`](super::Reading)), until now.
    pub rx_by_ring: u64,
    /// Frames the device took.
    pub tx_frames: u64,
    /// Octets of those.
    pub tx_bytes: u64,
    /// Frames the device refused: its queue was full, or its other end down.
    pub tx_refused: u64,
}
