//! Where frames come from and go back to.
//!
//! # Theory of operation
//! A pool belongs to one thread and keeps free slabs of two sizes, last in first out, so that the slab handed out is
//! the one most likely to be in cache. Frames are born in one pool and may die in another (a link carries them between
//! switches), so pools of one process share a [`Depot`]: free slabs move there and back a *magazine* (a fixed number of
//! slabs) at a time, after Bonwick and Adams, "Magazines and Vmem" (USENIX 2001). Cost on the hot path: a push or a pop
//! on a `Vec`; an atomic once per magazine.
//!
//! A pool never refuses: what bounds memory is that every place that *keeps* frames (queues, parked frames, batches) is
//! bounded. What is kept *free* is bounded here.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
#[cfg(feature = "std")]
use std::sync::Arc;

use super::{Frame, FrameBatch, HEADROOM, LARGE_SLAB, MAX_FRAME, SMALL_SLAB};
#[cfg(feature = "std")]
use crate::sync::Queue;

type Slab = Box<[u8]>;

/// Slabs per magazine and magazines per depot, by class. Large slabs are few and hot.
const SMALL_MAGAZINE: usize = 64;
const LARGE_MAGAZINE: usize = 8;
#[cfg(feature = "std")]
const DEPOT_MAGAZINES: usize = 64;

/// What a pool has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolCounters {
    /// Slabs taken from the allocator: stands still once the pool is warm.
    pub allocated: u64,
    /// Slabs given back to the allocator because enough were free.
    pub released: u64,
}

/// Full and empty magazines shared by the pools of one process.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct Depot {
    small: Exchange,
    large: Exchange,
}

#[cfg(feature = "std")]
#[derive(Debug)]
struct Exchange {
    full: Queue<Vec<Slab>>,
    empty: Queue<Vec<Slab>>,
}

#[cfg(feature = "std")]
impl Depot {
    /// An empty depot.
    pub fn new() -> Arc<Self> {
        let exchange = || Exchange { full: Queue::new(DEPOT_MAGAZINES), empty: Queue::new(DEPOT_MAGAZINES) };
        Arc::new(Self { small: exchange(), large: exchange() })
    }
}

/// Free slabs of one size, in two magazines, so that a thread which alternates at the border of a magazine does not go
/// to the depot each time.
#[derive(Debug)]
struct Class {
    loaded: Vec<Slab>,
    previous: Vec<Slab>,
    magazine: usize,
    slab: usize,
}

impl Class {
    fn new(magazine: usize, slab: usize) -> Self {
        Self { loaded: Vec::with_capacity(magazine), previous: Vec::with_capacity(magazine), magazine, slab }
    }

    fn take(&mut self, counters: &mut PoolCounters, refill: impl FnOnce(&mut Vec<Slab>)) -> Slab {
        if self.loaded.is_empty() {
            core::mem::swap(&mut self.loaded, &mut self.previous);
        }
        if self.loaded.is_empty() {
            refill(&mut self.loaded);
        }
        self.loaded.pop().unwrap_or_else(|| {
            counters.allocated += 1;
            vec![0; self.slab].into_boxed_slice()
        })
    }

    fn put(&mut self, slab: Slab, counters: &mut PoolCounters, spill: impl FnOnce(&mut Vec<Slab>)) {
        if self.loaded.len() >= self.magazine {
            core::mem::swap(&mut self.loaded, &mut self.previous);
        }
        if self.loaded.len() >= self.magazine {
            spill(&mut self.loaded);
        }
        if self.loaded.len() >= self.magazine {
            counters.released += 1;
        } else {
            self.loaded.push(slab);
        }
    }
}

/// A thread's source of frames.
#[derive(Debug)]
pub struct FramePool {
    small: Class,
    large: Class,
    counters: PoolCounters,
    #[cfg(feature = "std")]
    depot: Option<Arc<Depot>>,
}

impl Default for FramePool {
    fn default() -> Self {
        Self::new()
    }
}

impl FramePool {
    /// A pool of its own.
    pub fn new() -> Self {
        Self {
            small: Class::new(SMALL_MAGAZINE, SMALL_SLAB),
            large: Class::new(LARGE_MAGAZINE, LARGE_SLAB),
            counters: PoolCounters::default(),
            #[cfg(feature = "std")]
            depot: None,
        }
    }

    /// A pool that exchanges free slabs with the other pools of `depot`.
    #[cfg(feature = "std")]
    pub fn with_depot(depot: Arc<Depot>) -> Self {
        Self { depot: Some(depot), ..Self::new() }
    }

    /// A frame of `len` octets whose content is whatever the slab held before: the caller writes it.
    ///
    /// # Panics
    /// If `len` is over [`MAX_FRAME`], which no caller computes from outside bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Frame {
        // A slab is found one way or the other, and then a frame is made once: in registers, not in memory.
        let slab = if len <= SMALL_SLAB - HEADROOM
            && let Some(slab) = self.small.loaded.pop()
        {
            slab
        } else {
            self.take_slowly(len)
        };
        Frame::in_slab(slab, len)
    }

    #[inline(never)]
    fn take_slowly(&mut self, len: usize) -> Slab {
        assert!(len <= MAX_FRAME, "a frame of {len} octets was asked for; the longest is {MAX_FRAME}");
        self.take_slab(len > SMALL_SLAB - HEADROOM)
    }

    /// A frame holding a copy of `bytes`.
    ///
    /// # Panics
    /// As [`FramePool::take`].
    #[inline]
    pub fn copy_of(&mut self, bytes: &[u8]) -> Frame {
        let mut frame = self.take(bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    /// Adds `count` frames of `len` octets to a batch, or as many as it has room for; returns how many. What they hold is
    /// whatever their slabs held before: the caller writes it.
    ///
    /// # Panics
    /// As [`FramePool::take`].
    pub fn fill(&mut self, batch: &mut FrameBatch, count: usize, len: usize) -> usize {
        let count = count.min(batch.room(len));
        let ready = if len <= SMALL_SLAB - HEADROOM { count.min(self.small.loaded.len()) } else { 0 };
        let first = self.small.loaded.len() - ready;
        batch.extend(
            self.small.loaded.drain(first..).rev().map(|slab| Frame::in_slab(slab, len)),
            ready * len,
        );
        for _ in ready..count {
            let refused = batch.push(self.take(len));
            debug_assert!(refused.is_ok(), "there was room");
        }
        count
    }

    /// A second frame like `frame`, with its offload state and priority.
    pub fn duplicate(&mut self, frame: &Frame) -> Frame {
        let mut copy = self.copy_of(frame.bytes());
        copy.offload = frame.offload;
        copy.priority = frame.priority;
        copy
    }

    /// Gives a frame's slab back.
    #[inline]
    pub fn recycle(&mut self, frame: Frame) {
        let slab = frame.into_slab();
        if slab.len() == SMALL_SLAB && self.small.loaded.len() < SMALL_MAGAZINE {
            return self.small.loaded.push(slab);
        }
        self.recycle_slowly(slab);
    }

    /// Gives the slabs of all frames of a batch back.
    pub fn recycle_all(&mut self, batch: &mut FrameBatch) {
        let room = SMALL_MAGAZINE.saturating_sub(self.small.loaded.len());
        let plain = batch.len() <= room && batch.iter().all(Frame::is_small);
        let slabs = batch.drain().map(Frame::into_slab);
        if plain {
            self.small.loaded.extend(slabs);
        } else {
            slabs.for_each(|slab| self.recycle_slowly(slab));
        }
    }

    #[inline(never)]
    fn recycle_slowly(&mut self, slab: Slab) {
        if slab.is_empty() {
            return;
        }
        let (class, counters) = match slab.len() {
            SMALL_SLAB => (&mut self.small, &mut self.counters),
            _ => (&mut self.large, &mut self.counters),
        };
        #[cfg(feature = "std")]
        let exchange =
            self.depot.as_deref().map(|d| if slab.len() == SMALL_SLAB { &d.small } else { &d.large });
        class.put(slab, counters, |_loaded| {
            #[cfg(feature = "std")]
            if let Some(exchange) = exchange {
                let capacity = _loaded.capacity();
                let spare = exchange.empty.pop().unwrap_or_else(|| Vec::with_capacity(capacity));
                match exchange.full.push(core::mem::replace(_loaded, spare)) {
                    Ok(()) => {}
                    Err(refused) => {
                        let spare = core::mem::replace(_loaded, refused);
                        drop(exchange.empty.push(spare));
                    }
                }
            }
        });
    }

    /// What the pool has done so far.
    pub fn counters(&self) -> PoolCounters {
        self.counters
    }

    fn take_slab(&mut self, large: bool) -> Slab {
        let class = if large { &mut self.large } else { &mut self.small };
        #[cfg(feature = "std")]
        let exchange = self.depot.as_deref().map(|d| if large { &d.large } else { &d.small });
        class.take(&mut self.counters, |_loaded| {
            #[cfg(feature = "std")]
            if let Some(exchange) = exchange
                && let Some(full) = exchange.full.pop()
            {
                let spare = core::mem::replace(_loaded, full);
                drop(exchange.empty.push(spare));
            }
        })
    }
}

#[cfg(all(test, feature = "std", not(loom)))]
mod tests {
    use super::super::BATCH_FRAMES;
    use super::*;

    #[test]
    fn a_warm_pool_allocates_nothing() {
        let mut pool = FramePool::new();
        for round in 0..100 {
            let frames: Vec<Frame> = (0..SMALL_MAGAZINE).map(|_| pool.take(1500)).collect();
            frames.into_iter().for_each(|f| pool.recycle(f));
            if round > 0 {
                assert_eq!(pool.counters().allocated, SMALL_MAGAZINE as u64);
            }
        }
    }

    #[test]
    fn a_batch_is_filled_and_emptied_at_once() {
        let mut pool = FramePool::new();
        let mut batch = FrameBatch::new();
        for (count, len, added) in
            [(0, 60, 0), (32, 60, 32), (1, 0, 1), (100, 60, BATCH_FRAMES - 33), (1, 60, 0), (0, 60, 0)]
        {
            assert_eq!(pool.fill(&mut batch, count, len), added, "{count} of {len}");
        }
        pool.recycle_all(&mut batch);
        assert!(batch.is_empty() && batch.bytes() == 0);
        for round in 0..3 {
            assert_eq!(pool.fill(&mut batch, 40, 1500), 33, "48 KiB are full in round {round}");
            assert_eq!(batch.bytes(), 33 * 1500);
            assert!(batch.iter().all(|frame| frame.len() == 1500 && frame.headroom() == HEADROOM));
            pool.recycle_all(&mut batch);
            assert_eq!(pool.fill(&mut batch, 3, MAX_FRAME), 1);
            pool.recycle_all(&mut batch);
        }
        assert_eq!(pool.counters(), PoolCounters { allocated: BATCH_FRAMES as u64 + 1, released: 0 });
    }

    #[test]
    fn one_way_traffic_returns_through_the_depot() {
        let depot = Depot::new();
        let (mut near, mut far) = (FramePool::with_depot(depot.clone()), FramePool::with_depot(depot));
        for _ in 0..10_000 {
            let frame = near.take(100);
            far.recycle(frame);
            let frame = near.take(40_000);
            far.recycle(frame);
        }
        let warm = near.counters().allocated;
        for _ in 0..10_000 {
            let frame = near.take(100);
            far.recycle(frame);
            let frame = near.take(40_000);
            far.recycle(frame);
        }
        assert_eq!(near.counters().allocated, warm);
        assert_eq!(far.counters().released, 0);
    }

    #[test]
    fn idle_slabs_are_bounded() {
        let mut pool = FramePool::new();
        let frames: Vec<Frame> = (0..1000).map(|_| pool.take(64)).collect();
        frames.into_iter().for_each(|f| pool.recycle(f));
        assert_eq!(pool.counters().released, 1000 - 2 * SMALL_MAGAZINE as u64);
    }
}
