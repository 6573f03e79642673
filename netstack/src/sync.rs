//! Standard or loom primitives, and the only file that names either. Everything shared between threads goes through
//! here, so that `RUSTFLAGS="--cfg loom"` checks every interleaving of it.

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
    #[derive(Debug)]
    pub struct Queue<T> {
        items: loom::sync::Mutex<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> Queue<T> {
        pub fn new(capacity: usize) -> Self {
            Self { items: loom::sync::Mutex::new(VecDeque::new()), capacity }
        }

        pub fn push(&self, value: T) -> Result<(), T> {
            let mut items = self.items.lock().expect("a model thread panicked");
            if items.len() >= self.capacity {
                return Err(value);
            }
            items.push_back(value);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            self.items.lock().expect("a model thread panicked").pop_front()
        }

        pub fn is_empty(&self) -> bool {
            self.items.lock().expect("a model thread panicked").is_empty()
        }
    }
}

#[cfg(loom)]
pub use model::*;
#[cfg(not(loom))]
pub use real::*;
