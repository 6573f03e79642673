//! What the driver needs of a device, and nothing about how one is made.

use core::time::Duration;

use crate::frame::{Frame, FrameBatch, FramePool, OffloadFeatures};

pub mod fault;
#[cfg(feature = "std")]
pub mod memory;
#[cfg(feature = "std")]
pub mod pcap;
#[cfg(feature = "std")]
pub(crate) mod ring;
#[cfg(feature = "std")]
pub(crate) mod sys;
#[cfg(feature = "tap")]
pub mod tap;

/// Something that frames come from and go to. Frames are whole Ethernet frames; buffers come from the pool that is
/// passed in and go back to it.
pub trait Device: Send {
    /// The largest IP packet the device carries, in octets.
    fn mtu(&self) -> usize;

    /// What the device takes over from software on frames sent to it.
    fn offload(&self) -> OffloadFeatures;

    /// Receives until the batch is full or nothing is waiting; returns how many frames were added. Never blocks.
    fn recv_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError>;

    /// Sends what the batch holds, in order, and returns what became of it. The batch is empty afterwards: what the
    /// device refuses is recycled and counted, never kept, so that one stuck device holds nobody else's frames.
    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError>;

    /// The descriptor that becomes readable when frames wait, if the device is one the kernel knows.
    #[cfg(feature = "std")]
    fn raw_fd(&self) -> Option<std::os::fd::RawFd>;

    /// Whether asking for frames costs no system call, so that the driver does so at every turn and does not wait for
    /// the descriptor. A device without descriptor is asked at every turn as well, but wakes nobody.
    fn is_polled(&self) -> bool {
        false
    }

    /// Says that the caller is about to sleep until the descriptor is readable. Returns false when frames wait
    /// already, so the caller must not sleep. Devices whose descriptor is readable by itself need nothing here.
    fn prepare_sleep(&mut self) -> bool {
        true
    }

    /// Says that the caller sleeps no more: until the next sleep nobody needs to make the descriptor readable.
    fn end_sleep(&mut self) {}

    /// Whether the driver may read the descriptor in the device's stead: each read gives one frame, and goes to
    /// [`Device::take_read`].
    fn takes_reads(&self) -> bool {
        false
    }

    /// Takes what a read in the device's stead gave, a frame as it came or an `errno`. [`Device::recv_batch`] hands on what
    /// is left of it before it reads by itself.
    fn take_read(&mut self, pool: &mut FramePool, read: Result<Frame, i32>) {
        if let Ok(frame) = read {
            pool.recycle(frame);
        }
    }

    /// Within what time a polled device must be asked again although nothing wakes the caller, because it holds frames
    /// back until then; `None` when it holds none.
    fn wake_within(&self) -> Option<Duration> {
        None
    }
}

/// Which way a frame goes, seen from the switch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the device into the switch.
    Inbound,
    /// From the switch to the device.
    Outbound,
}

/// What became of a batch given to [`Device::send_batch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Frames the device took.
    pub frames: u64,
    /// Octets of those.
    pub bytes: u64,
    /// Frames the device refused because its queue is full or its other end is down.
    pub refused: u64,
}

/// A device that can no longer be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The other end is gone: the link's peer was dropped, or the TAP's namespace vanished.
    #[error("the other end of the device is gone")]
    Gone,
    /// The operating system refused, with this `errno`.
    #[error("the device failed with errno {0}")]
    Os(i32),
}
