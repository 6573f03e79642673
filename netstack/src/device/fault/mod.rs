//! Faults on purpose: loss, duplication, reordering, delay, corruption and a limited rate, from a seed.
//!
//! # Theory of operation
//! A [`Line`] is one direction of a link that does to frames what its [`LinkProfile`] says; `sim::Lab` is made of them.
//! [`Fault`] puts one in each direction around a real [`Device`], for the driver.
//!
//! *Time.* A device has no clock, and a delayed frame must leave although nothing else happens. So a `Fault` gets at
//! construction what tells it the time, which is to be the driver's clock; it asks to be polled at every turn
//! ([`Device::is_polled`]) and tells the driver within what time the next frame it holds back is due
//! ([`Device::wake_within`]). Under a driver a frame may leave up to a millisecond late, the kernel's grain of a sleep.
//!
//! *Limits* are those of the lines. A frame refused by the line towards the device is counted as refused, as a full ring
//! would have it; one that the device itself refuses later is in [`FaultCounters::refused`].
//!
//! *The end.* When the device is gone, what is under way from it still arrives; then `Fault` says that it is gone.

mod line;
mod profile;

pub use line::{Line, LineCounters, MAX_IN_FLIGHT, Offered};
pub use profile::{LinkProfile, Probability};

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use super::{Device, DeviceError, Direction, Sent};
use crate::frame::{FrameBatch, FramePool, OffloadFeatures};
use crate::seed::Seed;

/// What a [`Fault`] has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounters {
    /// The line from the device.
    pub inbound: LineCounters,
    /// The line to the device.
    pub outbound: LineCounters,
    /// Frames that came out of the line to the device and that the device refused.
    pub refused: u64,
}

/// A device behind a bad link; see the [module](self).
pub struct Fault<D> {
    device: D,
    clock: Box<dyn Fn() -> Duration + Send>,
    inbound: Line,
    outbound: Line,
    refused: u64,
    scratch: FrameBatch,
}

impl<D: fmt::Debug> fmt::Debug for Fault<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("device", &self.device)
            .field("inbound", &self.inbound)
            .field("outbound", &self.outbound)
            .finish_non_exhaustive()
    }
}

impl<D: Device> Fault<D> {
    /// Puts lines with these profiles between `device` and whoever uses it: `inbound` for frames from the device,
    /// `outbound` for frames to it. `clock` never goes back. The same seed, calls and times give the same faults.
    pub fn new(
        device: D,
        inbound: LinkProfile,
        outbound: LinkProfile,
        seed: &Seed,
        clock: impl Fn() -> Duration + Send + 'static,
    ) -> Self {
        Self {
            device,
            clock: Box::new(clock),
            inbound: Line::new(inbound, seed.rng("fault inbound")),
            outbound: Line::new(outbound, seed.rng("fault outbound")),
            refused: 0,
            scratch: FrameBatch::new(),
        }
    }

    /// Does something else from here on to frames in this direction.
    pub fn set_profile(&mut self, direction: Direction, profile: LinkProfile) {
        match direction {
            Direction::Inbound => self.inbound.set_profile(profile),
            Direction::Outbound => self.outbound.set_profile(profile),
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> FaultCounters {
        FaultCounters {
            inbound: *self.inbound.counters(),
            outbound: *self.outbound.counters(),
            refused: self.refused,
        }
    }

    /// Whether every frame is accounted for at this moment.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check(&self) -> Result<(), String> {
        self.inbound.check()?;
        self.outbound.check()
    }

    /// The device behind the link; what is under way is lost.
    pub fn into_inner(self) -> D {
        self.device
    }

    /// Hands to the device what has arrived there.
    fn flush(&mut self, now: Duration, pool: &mut FramePool) -> Result<(), DeviceError> {
        loop {
            while !self.scratch.is_full()
                && let Some(frame) = self.outbound.take(now)
            {
                let refused = self.scratch.push(frame);
                debug_assert!(refused.is_ok(), "it was asked whether there is room");
            }
            if self.scratch.is_empty() {
                return Ok(());
            }
            self.refused += self.device.send_batch(pool, &mut self.scratch)?.refused;
        }
    }

    /// When the next frame arrives in either direction.
    fn next_due(&self) -> Option<Duration> {
        [self.inbound.next_due(), self.outbound.next_due()].into_iter().flatten().min()
    }
}

impl<D: Device> Device for Fault<D> {
    fn mtu(&self) -> usize {
        self.device.mtu()
    }

    fn offload(&self) -> OffloadFeatures {
        self.device.offload()
    }

    fn recv_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        let now = (self.clock)();
        match self.flush(now, pool) {
            // The device says so itself below, once it has nothing left to give.
            Ok(()) | Err(DeviceError::Gone) => {}
            Err(error) => return Err(error),
        }
        let received = self.device.recv_batch(pool, &mut self.scratch);
        for frame in self.scratch.drain() {
            self.inbound.offer(now, frame, pool);
        }
        let before = batch.len();
        while !batch.is_full()
            && let Some(frame) = self.inbound.take(now)
        {
            let refused = batch.push(frame);
            debug_assert!(refused.is_ok(), "it was asked whether there is room");
        }
        match received {
            Err(error) if batch.len() == before && self.inbound.in_flight() == 0 => Err(error),
            Ok(_) | Err(_) => Ok(batch.len() - before),
        }
    }

    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let now = (self.clock)();
        let mut sent = Sent::default();
        for frame in batch.drain() {
            let len = frame.len() as u64;
            match self.outbound.offer(now, frame, pool) {
                Offered::Carried { .. } | Offered::Lost => {
                    sent.frames += 1;
                    sent.bytes += len;
                }
                Offered::Overflowed => sent.refused += 1,
            }
        }
        self.flush(now, pool)?;
        Ok(sent)
    }

    #[cfg(feature = "std")]
    fn raw_fd(&self) -> Option<std::os::fd::RawFd> {
        self.device.raw_fd()
    }

    fn is_polled(&self) -> bool {
        true
    }

    fn prepare_sleep(&mut self) -> bool {
        let arrived = self.next_due().is_some_and(|due| due <= (self.clock)());
        !arrived && self.device.prepare_sleep()
    }

    fn end_sleep(&mut self) {
        self.device.end_sleep();
    }

    fn wake_within(&self) -> Option<Duration> {
        self.next_due().map(|due| due.saturating_sub((self.clock)()))
    }
}

#[cfg(test)]
mod tests;
