//! A device on a port of an engine, and the ways a batch takes between the two.

use core::fmt;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Clock;
use super::engine::{DeviceCounters, Engine, EngineId};
use super::reading::{Density, Reader};
use crate::addr::PortId;
use crate::device::{Device, DeviceError, Direction};
use crate::frame::{BATCH_FRAMES, Frame, FrameBatch};

/// Octets up to which what is sent to a sparse device may be a request, which is often answered before the write returns.
const REQUEST: u64 = 2048;

/// Sees each frame of an attachment, before the engine or the device does, with the driver's time. A frame may still
/// carry a partial checksum or be a super-frame; who writes a capture completes a copy.
pub type Observer = Box<dyn FnMut(Duration, Direction, &Frame) + Send>;

/// A device on a port.
pub(super) struct Attachment {
    pub(super) engine: EngineId,
    pub(super) port: PortId,
    pub(super) device: Box<dyn Device>,
    pub(super) counters: DeviceCounters,
    pub(super) observer: Option<Observer>,
    /// Frames may wait: the kernel said so, and the device has not run dry since.
    pub(super) ready: bool,
    pub(super) polled: bool,
    pub(super) failed: Option<DeviceError>,
    pub(super) reader: Reader,
    pub(super) density: Density,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("engine", &self.engine)
            .field("port", &self.port)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Runs before the engine sees anything else in a turn.
pub(super) type Prologue = Box<dyn FnMut(&mut dyn Engine) + Send>;

/// An engine and where its ports are.
pub(super) struct Slot {
    pub(super) engine: Box<dyn Engine>,
    /// Port to place in the list of attachments.
    pub(super) ports: BTreeMap<PortId, usize>,
    pub(super) prologue: Option<Prologue>,
    /// Frames for ports with no device attached.
    pub(super) unattached: u64,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl Attachment {
    pub(super) fn new(engine: EngineId, port: PortId, device: Box<dyn Device>) -> Self {
        let polled = device.is_polled() || device.raw_fd().is_none();
        let counters = DeviceCounters::default();
        Self {
            engine,
            port,
            device,
            counters,
            observer: None,
            // Frames may have waited before the driver knew of the device.
            ready: true,
            polled,
            failed: None,
            reader: Reader::Itself,
            density: Density::default(),
        }
    }

    /// Whether its frames come one by one, and it reads them itself.
    fn is_sparse(&self) -> bool {
        !self.polled && self.reader == Reader::Itself && self.density.is_least()
    }

    /// Moves one batch from the device into its engine and returns the number of frames. The first one of a turn holds one
    /// frame where that is likely to be all: it goes on before the device is asked in vain for another.
    pub(super) fn receive(
        &mut self,
        engine: &mut dyn Engine,
        clock: &Clock,
        batch: &mut FrameBatch,
        first: bool,
    ) -> usize {
        batch.hold_at_most(if first && self.is_sparse() { 1 } else { BATCH_FRAMES });
        let received = self.device.recv_batch(engine.pool(), batch);
        let full = batch.is_full();
        batch.hold_at_most(BATCH_FRAMES);
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                self.failed = Some(error);
                self.ready = false;
                return 0;
            }
        };
        // A batch with room left means that nothing waits; a polled device is asked again, which costs nothing.
        self.ready = if self.polled { received > 0 } else { full };
        if received == 0 {
            return 0;
        }
        self.counters.rx_frames += received as u64;
        self.counters.rx_bytes += batch.bytes() as u64;
        let now = clock.now();
        self.observe(now, Direction::Inbound, batch);
        engine.handle_frames(now, self.port, batch);
        debug_assert!(batch.is_empty(), "an engine takes all frames out");
        received
    }

    /// Hands a batch to the device. A device whose other end is gone may still have frames to give: it is asked for
    /// them, and says that it is gone once there are none.
    fn send(&mut self, engine: &mut dyn Engine, now: Duration, batch: &mut FrameBatch) {
        self.observe(now, Direction::Outbound, batch);
        let frames = batch.len() as u64;
        match self.device.send_batch(engine.pool(), batch) {
            Ok(sent) => {
                self.counters.tx_frames += sent.frames;
                self.counters.tx_bytes += sent.bytes;
                self.counters.tx_refused += sent.refused;
                // Who is asked at once needs no epoll to say that there is an answer.
                self.ready |= sent.bytes <= REQUEST && self.is_sparse();
            }
            Err(DeviceError::Gone) => {
                self.counters.tx_refused += frames;
                self.ready = true;
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn observe(&mut self, now: Duration, direction: Direction, batch: &FrameBatch) {
        if let Some(observer) = &mut self.observer {
            for frame in batch {
                observer(now, direction, frame);
            }
        }
    }
}

impl Slot {
    /// Hands everything that the engine has to send to its devices. Ends because an engine's queues are bounded and
    /// nothing enters it meanwhile. Returns whether a device failed.
    pub(super) fn flush(
        &mut self,
        attachments: &mut [Option<Attachment>],
        now: Duration,
        batch: &mut FrameBatch,
    ) -> bool {
        let mut failed = false;
        while let Some(port) = self.engine.poll_transmit(batch) {
            let place = self.ports.get(&port).copied();
            if let Some(attachment) = place.and_then(|place| attachments.get_mut(place)?.as_mut()) {
                attachment.send(&mut *self.engine, now, batch);
                failed |= attachment.failed.is_some();
            } else {
                self.unattached += batch.len() as u64;
                for frame in batch.drain() {
                    self.engine.pool().recycle(frame);
                }
            }
        }
        failed
    }
}
