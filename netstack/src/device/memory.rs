//! Links in memory: two devices, each the other's far end.
//!
//! # Theory of operation
//! A batch that is sent changes owner as a whole: the box it travels in goes through a queue to the other thread, and
//! comes back empty through a second queue. After the first few batches nothing is allocated. The frames in it move
//! from one switch's pool to the other's; pools that share a [`Depot`](crate::frame::Depot) balance that out.
//!
//! *Limits.* `capacity` batches wait in each direction; a batch more is refused, as a network card's full ring refuses.
//! Small batches are joined on receipt as far as they fit, so that a sender of single frames costs the receiver no more
//! than a sender of full batches.
//!
//! *Sleeping and the end* are those of [`crate::sync::link`].

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::sys::EventFd;
use super::{Device, DeviceError, Sent};
use crate::frame::{BATCH_BYTES, BATCH_FRAMES, FrameBatch, FramePool};
use crate::offload::OffloadFeatures;
use crate::sync::{LinkGone, LinkReceiver, LinkSender, SendError, link};

/// What a link carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOptions {
    /// The largest IP packet, in octets.
    pub mtu: usize,
    /// What the far end takes without software's help.
    pub offload: OffloadFeatures,
}

impl Default for MemoryOptions {
    /// An Ethernet link that takes everything: nothing is computed for a wire that does not exist.
    fn default() -> Self {
        Self { mtu: 1500, offload: OffloadFeatures::ALL }
    }
}

type Carrier = Box<FrameBatch>;

/// One end of a link.
#[derive(Debug)]
pub struct MemoryDevice {
    sender: LinkSender<Carrier, EventFd>,
    receiver: LinkReceiver<Carrier, EventFd>,
    options: MemoryOptions,
    /// An empty carrier that a refusal left over.
    spare: Option<Carrier>,
    /// A batch that did not fit behind what the caller's batch held already.
    waiting: Option<Carrier>,
}

/// A link that holds up to `capacity_batches` batches (at least 1) in each direction. Either end may move to another
/// thread. Fails when the process has no file descriptor left.
pub fn pair(capacity_batches: usize, options: MemoryOptions) -> io::Result<(MemoryDevice, MemoryDevice)> {
    let (left_sender, right_receiver) = link(capacity_batches, EventFd::new()?);
    let (right_sender, left_receiver) = link(capacity_batches, EventFd::new()?);
    let device = |sender, receiver| MemoryDevice { sender, receiver, options, spare: None, waiting: None };
    Ok((device(left_sender, left_receiver), device(right_sender, right_receiver)))
}

/// Whether all of `next` can be added to `batch`.
fn fits(batch: &FrameBatch, next: &FrameBatch) -> bool {
    batch.is_empty()
        || (batch.len() + next.len() <= BATCH_FRAMES && batch.bytes() + next.bytes() < BATCH_BYTES)
}

impl Device for MemoryDevice {
    fn mtu(&self) -> usize {
        self.options.mtu
    }

    fn offload(&self) -> OffloadFeatures {
        self.options.offload
    }

    fn recv_batch(&mut self, _pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        let before = batch.len();
        while !batch.is_full() {
            let mut carrier = match self.waiting.take() {
                Some(carrier) => carrier,
                None => match self.receiver.recv() {
                    Ok(Some(carrier)) => carrier,
                    Ok(None) => break,
                    // What was received before the end is the caller's; the end is reported when nothing is left.
                    Err(LinkGone) if batch.len() > before => break,
                    Err(LinkGone) => return Err(DeviceError::Gone),
                },
            };
            if !fits(batch, &carrier) {
                self.waiting = Some(carrier);
                break;
            }
            if batch.is_empty() {
                std::mem::swap(batch, &mut carrier);
            } else {
                for frame in carrier.drain() {
                    let refused = batch.push(frame);
                    debug_assert!(refused.is_ok(), "`fits` says that there is room");
                }
            }
            self.receiver.give_back(carrier);
        }
        Ok(batch.len() - before)
    }

    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let (frames, bytes) = (batch.len() as u64, batch.bytes() as u64);
        let result = if self.sender.is_gone() {
            Err(DeviceError::Gone)
        } else if batch.is_empty() {
            Ok(Sent::default())
        } else {
            let mut carrier = self.spare.take().or_else(|| self.sender.reclaim()).unwrap_or_default();
            std::mem::swap(batch, &mut carrier);
            match self.sender.send(carrier) {
                Ok(()) => Ok(Sent { frames, bytes, refused: 0 }),
                Err(SendError::Full(mut carrier)) => {
                    std::mem::swap(batch, &mut carrier);
                    self.spare = Some(carrier);
                    Ok(Sent { frames: 0, bytes: 0, refused: frames })
                }
                Err(SendError::Gone(mut carrier)) => {
                    std::mem::swap(batch, &mut carrier);
                    Err(DeviceError::Gone)
                }
            }
        };
        for frame in batch.drain() {
            pool.recycle(frame);
        }
        result
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.receiver.notifier().as_raw_fd())
    }

    fn is_polled(&self) -> bool {
        true
    }

    fn prepare_sleep(&mut self) -> bool {
        self.waiting.is_none() && self.receiver.prepare_sleep()
    }

    fn end_sleep(&mut self) {
        self.receiver.awake();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::sync::Notify as _;

    fn batch_of(pool: &mut FramePool, sizes: &[usize]) -> FrameBatch {
        let mut batch = FrameBatch::new();
        for &size in sizes {
            batch.push(pool.take(size)).unwrap();
        }
        batch
    }

    #[test]
    fn batches_arrive_in_order_and_are_joined_as_far_as_they_fit() {
        let mut pool = FramePool::new();
        let (mut left, mut right) = pair(8, MemoryOptions::default()).unwrap();
        for size in [60, 61] {
            let mut batch = batch_of(&mut pool, &[size]);
            let sent = left.send_batch(&mut pool, &mut batch).unwrap();
            assert_eq!(sent, Sent { frames: 1, bytes: size as u64, refused: 0 });
            assert!(batch.is_empty());
        }
        let mut full = batch_of(&mut pool, &[62; BATCH_FRAMES]);
        left.send_batch(&mut pool, &mut full).unwrap();

        let mut batch = FrameBatch::new();
        assert_eq!(right.recv_batch(&mut pool, &mut batch), Ok(2));
        assert_eq!(batch.drain().map(|f| f.len()).collect::<Vec<_>>(), [60, 61]);
        assert!(!right.prepare_sleep(), "a batch waits behind");
        assert_eq!(right.recv_batch(&mut pool, &mut batch), Ok(BATCH_FRAMES));
        assert!(batch.drain().all(|f| f.len() == 62));
        assert_eq!(right.recv_batch(&mut pool, &mut batch), Ok(0));
        assert!(right.prepare_sleep());
    }

    #[test]
    fn a_full_link_refuses_and_recycles() {
        let mut pool = FramePool::new();
        let (mut left, mut right) = pair(2, MemoryOptions::default()).unwrap();
        let mut refused = 0;
        for _ in 0..1000 {
            let mut batch = batch_of(&mut pool, &[100; 3]);
            refused += left.send_batch(&mut pool, &mut batch).unwrap().refused;
            assert!(batch.is_empty());
        }
        assert_eq!(refused, 998 * 3);
        assert_eq!(pool.counters().allocated, 9, "two batches wait, one is in hand");
        let mut batch = FrameBatch::new();
        assert_eq!(right.recv_batch(&mut pool, &mut batch), Ok(6));
    }

    #[test]
    fn an_end_that_is_gone_is_reported_after_what_it_sent() {
        let mut pool = FramePool::new();
        let (mut left, mut right) = pair(2, MemoryOptions::default()).unwrap();
        let mut batch = batch_of(&mut pool, &[100]);
        left.send_batch(&mut pool, &mut batch).unwrap();
        drop(left);
        assert!(!right.prepare_sleep());
        assert_eq!(right.recv_batch(&mut pool, &mut batch), Ok(1));
        assert_eq!(right.send_batch(&mut pool, &mut batch), Err(DeviceError::Gone));
        assert!(batch.is_empty());
        assert_eq!(right.recv_batch(&mut pool, &mut batch), Err(DeviceError::Gone));
    }

    #[test]
    fn who_sleeps_no_more_is_not_woken() {
        let mut pool = FramePool::new();
        let (mut left, mut right) = pair(4, MemoryOptions::default()).unwrap();
        for sleeps in [true, false, true] {
            assert!(right.prepare_sleep());
            if !sleeps {
                right.end_sleep();
            }
            let mut batch = batch_of(&mut pool, &[100]);
            left.send_batch(&mut pool, &mut batch).unwrap();
            assert_eq!(right.receiver.notifier().drain(), u64::from(sleeps));
            assert_eq!(right.recv_batch(&mut pool, &mut batch), Ok(1));
            batch.drain().for_each(|frame| pool.recycle(frame));
        }
    }

    #[test]
    fn carriers_come_back() {
        let mut pool = FramePool::new();
        let (mut left, mut right) = pair(4, MemoryOptions::default()).unwrap();
        let mut batch = FrameBatch::new();
        for round in 0..100 {
            let mut sent = batch_of(&mut pool, &[100]);
            let spare = left.sender.reclaim();
            assert_eq!(spare.is_some(), round > 0, "one carrier goes back and forth");
            left.spare = spare;
            left.send_batch(&mut pool, &mut sent).unwrap();
            right.recv_batch(&mut pool, &mut batch).unwrap();
            for frame in batch.drain() {
                pool.recycle(frame);
            }
        }
    }
}
