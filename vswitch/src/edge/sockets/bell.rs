//! What tells the driver that sockets have got on.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use netstack::device::{Device, DeviceError, Sent};
use netstack::frame::{FrameBatch, FramePool, OffloadFeatures};

/// A device that gives one frame of no octets whenever the kernel says that some socket has got on. It takes none.
#[derive(Debug)]
pub struct Bell {
    epoll: OwnedFd,
}

impl Bell {
    pub(super) const fn new(epoll: OwnedFd) -> Self {
        Self { epoll }
    }
}

impl Device for Bell {
    fn mtu(&self) -> usize {
        0
    }

    fn offload(&self) -> OffloadFeatures {
        OffloadFeatures::NONE
    }

    /// Asked because the descriptor was readable: the engine finds out what there is.
    fn recv_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        match batch.push(pool.take(0)) {
            Ok(()) => Ok(1),
            Err(frame) => {
                pool.recycle(frame);
                Ok(0)
            }
        }
    }

    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let refused = batch.len() as u64;
        for frame in batch.drain() {
            pool.recycle(frame);
        }
        Ok(Sent { frames: 0, bytes: 0, refused })
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }
}
