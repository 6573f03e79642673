//! Snapshots across threads.
//!
//! # Theory of operation
//! One publisher holds the latest snapshot in a slot; every subscriber compares one number with the one it saw last,
//! which costs a load per batch, and takes the lock only when they differ. The number is raised while the slot is
//! locked for writing, so whoever sees generation *g* finds snapshot *g* or a later one in the slot. Snapshots between
//! two looks of a subscriber are skipped; the last one never is.
//!
//! The publisher also keeps each snapshot until nobody else holds it, so that a large tree is freed on its thread and
//! not on a thread that moves frames. At most one snapshot per subscriber is kept besides the latest, once
//! [`Publisher::collect`] has run, which every publication does.

use alloc::vec::Vec;

use crate::sync::{Arc, AtomicU64, Ordering, RwLock};

#[derive(Debug)]
struct Slot<T> {
    generation: AtomicU64,
    latest: RwLock<(u64, Option<Arc<T>>)>,
}

/// The side that makes snapshots.
#[derive(Debug)]
pub struct Publisher<T> {
    slot: Arc<Slot<T>>,
    kept: Vec<Arc<T>>,
}

/// A side that follows them. It may be cloned; the clone has seen what the original has.
#[derive(Debug)]
pub struct Subscriber<T> {
    slot: Arc<Slot<T>>,
    seen: u64,
}

impl<T> Clone for Subscriber<T> {
    fn clone(&self) -> Self {
        Self { slot: self.slot.clone(), seen: self.seen }
    }
}

impl<T> Default for Publisher<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Publisher<T> {
    /// A publisher that has published nothing yet: generation 0.
    pub fn new() -> Self {
        let slot = Slot { generation: AtomicU64::new(0), latest: RwLock::new((0, None)) };
        Self { slot: Arc::new(slot), kept: Vec::new() }
    }

    /// Makes `snapshot` the latest and returns its generation, counted from 1.
    pub fn publish(&mut self, snapshot: Arc<T>) -> u64 {
        self.kept.push(snapshot.clone());
        let generation = {
            let mut latest = self.slot.latest.write();
            latest.0 += 1;
            latest.1 = Some(snapshot);
            self.slot.generation.store(latest.0, Ordering::Release);
            latest.0
        };
        self.collect();
        generation
    }

    /// Frees snapshots that nobody uses any more and returns how many are left, the latest included.
    pub fn collect(&mut self) -> usize {
        // The slot holds the latest, so a count of one means that no subscriber can come by it again.
        self.kept.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.kept.len()
    }

    /// A follower that has seen nothing: its first look finds the latest snapshot, if there is one.
    pub fn subscribe(&self) -> Subscriber<T> {
        Subscriber { slot: self.slot.clone(), seen: 0 }
    }
}

impl<T> Subscriber<T> {
    /// The latest snapshot if it is another than at the last call.
    pub fn changed(&mut self) -> Option<Arc<T>> {
        if self.slot.generation.load(Ordering::Acquire) == self.seen {
            return None;
        }
        let latest = self.slot.latest.read();
        self.seen = latest.0;
        latest.1.clone()
    }

    /// The generation of the snapshot that was returned last; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_sees_the_latest_and_only_once() {
        let mut publisher = Publisher::new();
        let mut early = publisher.subscribe();
        assert_eq!(early.changed(), None);
        assert_eq!(publisher.publish(Arc::new("a")), 1);
        assert_eq!(publisher.publish(Arc::new("b")), 2);
        assert_eq!(early.changed().as_deref(), Some(&"b"));
        assert_eq!(early.generation(), 2);
        assert_eq!(early.changed(), None);
        assert_eq!(publisher.subscribe().changed().as_deref(), Some(&"b"));
        assert_eq!(early.clone().changed(), None);
    }

    #[test]
    fn a_snapshot_in_use_is_freed_by_the_publisher() {
        let mut publisher = Publisher::new();
        let mut subscriber = publisher.subscribe();
        let first = Arc::new(1);
        let weak = Arc::downgrade(&first);
        publisher.publish(first);
        let held = subscriber.changed().unwrap();
        publisher.publish(Arc::new(2));
        drop(held);
        assert!(weak.upgrade().is_some(), "the subscriber's thread must not free it");
        assert_eq!(publisher.collect(), 1);
        assert!(weak.upgrade().is_none());
    }
}
