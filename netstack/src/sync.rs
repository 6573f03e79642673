//! Standard or loom primitives, and the only file that names either. Everything shared between threads goes through
//! here, so that `RUSTFLAGS="--cfg loom"` checks every interleaving of it.

mod link;

pub use link::{LinkGone, LinkReceiver, LinkSender, LinkState, Notify, SendError, link};

/// The channel that commands travel over. The same under loom: it is not part of any model, crossbeam tests it.
pub use crossbeam::channel;

#[cfg(not(loom))]
mod real {
    pub use parking_lot::RwLock;
    pub use std::sync::Arc;
    pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

    /// A bounded queue between any number of threads.
    #[derive(Debug)]
    pub struct Queue<T>(crossbeam::queue::ArrayQueue<T>);

    impl<T> Queue<T> {
        /// An empty queue of fixed capacity (at least 1).
        pub fn new(capacity: usize) -> Self {
            Self(crossbeam::queue::ArrayQueue::new(capacity))
        }

        /// Appends, or gives the value back when the queue is full.
        pub fn push(&self, value: T) -> Result<(), T> {
            self.0.push(value)
        }

        /// Takes the oldest.
        pub fn pop(&self) -> Option<T> {
            self.0.pop()
        }

        /// Whether nothing is queued at this moment.
        pub fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }
}

#[cfg(loom)]
#[expect(missing_docs, reason = "the same items as in `real`, which documents them")]
mod model {
    pub use loom::sync::Arc;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
    use std::collections::VecDeque;

    /// loom's lock behind parking_lot's signatures.
    #[derive(Debug)]
    pub struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn new(value: T) -> Self {
            Self(loom::sync::RwLock::new(value))
        }

        pub fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
            self.0.read().expect("a model thread panicked")
        }

        pub fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
            self.0.write().expect("a model thread panicked")
        }
    }

    /// The bounded queue's meaning, without its lock-free implementation (crossbeam tests that itself).
    ///
    /// `is_empty` reads a length beside the lock: under the lock it would order everything around it, and a model of
    /// who-sleeps-while-who-pushes would pass without the fences it is there to check.
    #[derive(Debug)]
    pub struct Queue<T> {
        items: loom::sync::Mutex<VecDeque<T>>,
        len: AtomicU64,
        capacity: usize,
    }

    impl<T> Queue<T> {
        pub fn new(capacity: usize) -> Self {
            Self { items: loom::sync::Mutex::new(VecDeque::new()), len: AtomicU64::new(0), capacity }
        }

        pub fn push(&self, value: T) -> Result<(), T> {
            let mut items = self.items.lock().expect("a model thread panicked");
            if items.len() >= self.capacity {
                return Err(value);
            }
            items.push_back(value);
            self.len.fetch_add(1, Ordering::Release);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            let mut items = self.items.lock().expect("a model thread panicked");
            let value = items.pop_front()?;
            self.len.fetch_sub(1, Ordering::Release);
            Some(value)
        }

        pub fn is_empty(&self) -> bool {
            self.len.load(Ordering::Acquire) == 0
        }
    }
}

#[cfg(loom)]
pub use model::*;
#[cfg(not(loom))]
pub use real::*;
