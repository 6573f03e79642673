//! Questions to the data path.
//!
//! # Theory of operation
//! A question is answered on a thread of the data path between two batches, and frames wait meanwhile. So questions come one
//! at a time, and after each the data path is left alone for [`REST`] times as long as the answer took. Whatever clients
//! ask for, and however many they are, it loses about a tenth of its time to them, in pieces of one question; who asks
//! much waits for it. Changes of the cluster do not come here: they are few, and should not wait.

use std::time::Duration;

use netstack::driver::{Clock, Driver, DriverHandle, Stopped};
use parking_lot::Mutex;

/// How many times as long as an answer took the data path is left alone after it.
const REST: u32 = 9;
/// The longest that it is left alone for one question: an answer may have waited for a processor.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// Asks the data path, one question at a time.
#[derive(Debug)]
pub(super) struct Questions {
    handle: DriverHandle,
    clock: Clock,
    /// Held by whoever asks: until when the data path is left alone.
    rests_until: Mutex<Duration>,
}

impl Questions {
    pub(super) fn new(handle: DriverHandle, clock: Clock) -> Self {
        Self { handle, clock, rests_until: Mutex::default() }
    }

    /// Waits for its turn, and for the answer.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Driver) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let mut rests_until = self.rests_until.lock();
        std::thread::sleep(rests_until.saturating_sub(self.clock.now()));
        let begin = self.clock.now();
        let answer = self.handle.call(question);
        let end = self.clock.now();
        *rests_until = end + ((end - begin) * REST).min(LONGEST_REST);
        answer
    }
}
