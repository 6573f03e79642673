//! One direction of a link between two threads.
//!
//! # Theory of operation
//! The sender pushes values into a bounded queue; the receiver takes them out and gives their empty containers back
//! through a second queue, so that a warm link allocates nothing. Both queues are lock-free; nobody ever waits inside.
//!
//! *Waking.* A receiver that has nothing to do says so ([`LinkReceiver::prepare_sleep`]) and then looks at the queue
//! once more; a sender pushes and then looks whether the receiver sleeps. Each side writes one location and reads the
//! other, so a sequentially consistent fence stands between the write and the read on both sides (Dekker's pattern):
//! at least one of the two sees the other, and no value is left in front of a sleeper. The sender that takes the
//! `sleeping` flag down is the one that notifies: one notification per sleep, none while the receiver is busy.
//!
//! *Shutdown.* Dropping an end raises its flag, then wakes the other end the same way. A receiver that sees the flag
//! looks at the queue once more before it reports [`LinkGone`], so what was sent before the end is received first.
//!
//! *Limits.* The queue holds `capacity` values; a value more is given back to the sender ([`SendError::Full`]).

use core::fmt;

use super::{Arc, AtomicBool, Ordering, Queue, fence};

/// Wakes the thread that sleeps until it is notified; a notification given before the sleep ends it at once.
pub trait Notify {
    /// Ends the receiver's sleep, or the next one.
    fn notify(&self);

    /// Takes notifications back, so that the next sleep is a sleep. Returns how many there were.
    fn drain(&self) -> u64;
}

/// The other end of a link was dropped, and everything it sent has been received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkGone;

/// Why a value was not sent; the value comes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError<T> {
    /// The queue holds as many values as it may.
    Full(T),
    /// The receiver was dropped.
    Gone(T),
}

/// What both ends share.
pub struct LinkState<T, N> {
    full: Queue<T>,
    empty: Queue<T>,
    sleeping: AtomicBool,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
    notify: N,
}

impl<T, N> fmt::Debug for LinkState<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkState").finish_non_exhaustive()
    }
}

impl<T, N: Notify> LinkState<T, N> {
    /// Called after anything that a sleeper must see: a push, the end of the sender.
    fn wake(&self) {
        // Pairs with the fence in `prepare_sleep`: either this thread sees `sleeping`, or the receiver sees the push.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.notify.notify();
        }
    }
}

/// A link of `capacity` values (at least 1) whose receiver sleeps on `notify`.
pub fn link<T, N: Notify>(capacity: usize, notify: N) -> (LinkSender<T, N>, LinkReceiver<T, N>) {
    let state = Arc::new(LinkState {
        full: Queue::new(capacity.max(1)),
        // Every container there can be: in the queue, in the sender's hands and in the receiver's.
        empty: Queue::new(capacity.max(1) + 2),
        sleeping: AtomicBool::new(false),
        sender_gone: AtomicBool::new(false),
        receiver_gone: AtomicBool::new(false),
        notify,
    });
    (LinkSender { state: state.clone() }, LinkReceiver { state, armed: false, owed: 0 })
}

/// The end that values enter.
#[derive(Debug)]
pub struct LinkSender<T, N: Notify> {
    state: Arc<LinkState<T, N>>,
}

impl<T, N: Notify> LinkSender<T, N> {
    /// Sends, and wakes the receiver if it sleeps.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_gone() {
            return Err(SendError::Gone(value));
        }
        self.state.full.push(value).map_err(SendError::Full)?;
        self.state.wake();
        Ok(())
    }

    /// A container that the receiver is done with.
    pub fn reclaim(&self) -> Option<T> {
        self.state.empty.pop()
    }

    /// Whether the receiver was dropped.
    pub fn is_gone(&self) -> bool {
        self.state.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T, N: Notify> Drop for LinkSender<T, N> {
    fn drop(&mut self) {
        self.state.sender_gone.store(true, Ordering::Release);
        self.state.wake();
    }
}

/// The end that values leave.
#[derive(Debug)]
pub struct LinkReceiver<T, N: Notify> {
    state: Arc<LinkState<T, N>>,
    /// `sleeping` was raised by this end and has not been looked at since.
    armed: bool,
    /// How often a sender took `sleeping` down whose notification has not been taken back: it has come or is about to.
    owed: u64,
}

impl<T, N: Notify> LinkReceiver<T, N> {
    /// Takes the oldest value; `None` when nothing waits. Never blocks. Ends a sleep that was prepared.
    pub fn recv(&mut self) -> Result<Option<T>, LinkGone> {
        self.awake();
        if let Some(value) = self.state.full.pop() {
            return Ok(Some(value));
        }
        if !self.state.sender_gone.load(Ordering::Acquire) {
            return Ok(None);
        }
        // The flag is raised after the last push, so one more look is enough.
        self.state.full.pop().map_or(Err(LinkGone), |value| Ok(Some(value)))
    }

    /// Gives a container back for the sender to use again; one too many is dropped.
    pub fn give_back(&self, container: T) {
        drop(self.state.empty.push(container));
    }

    /// Says that this end is about to sleep until it is notified. Returns false when it must not: a value waits, or
    /// the sender is gone.
    pub fn prepare_sleep(&mut self) -> bool {
        // A read-modify-write like the senders': theirs and this have one order that all threads agree on.
        self.state.sleeping.swap(true, Ordering::AcqRel);
        self.armed = true;
        // Pairs with the fence in `LinkState::wake`.
        fence(Ordering::SeqCst);
        if self.state.full.is_empty() && !self.state.sender_gone.load(Ordering::Acquire) {
            return true;
        }
        self.awake();
        false
    }

    /// What this end sleeps on.
    pub fn notifier(&self) -> &N {
        &self.state.notify
    }

    /// Ends a sleep that was prepared: takes the flag down, so that senders stop notifying, and takes back the notification if
    /// one was given.
    pub fn awake(&mut self) {
        if self.armed {
            self.armed = false;
            self.owed += u64::from(!self.state.sleeping.swap(false, Ordering::AcqRel));
        }
        // A sender may be between taking the flag and notifying: then that debt is settled at a later look.
        if self.owed > 0 {
            self.owed = self.owed.saturating_sub(self.state.notify.drain());
        }
    }
}

impl<T, N: Notify> Drop for LinkReceiver<T, N> {
    fn drop(&mut self) {
        self.state.receiver_gone.store(true, Ordering::Release);
    }
}
