//! The threads that changes are made on.
//!
//! # Theory of operation
//! Whatever serves clients gives way to the data path, and on a busy machine gets next to nothing: that is right for
//! questions, of which there may be any number. A change is what somebody waits for, and there is one at a time. So changes
//! are made on threads that do not give way; and because a thread has the priority of the one that starts it, they are
//! started by one that was there before anything gave way.

use std::sync::mpsc;
use std::{io, thread};

use tokio::sync::oneshot;

use crate::sys::give_back;

type Change = Box<dyn FnOnce() + Send>;

/// Has changes made. A clone has them made by the same.
#[derive(Clone, Debug)]
pub struct Changes(mpsc::Sender<Change>);

impl Changes {
    /// Their threads will have the priority of the calling one.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> io::Result<Self> {
        let (sender, changes) = mpsc::channel::<Change>();
        let start = move || {
            for change in changes {
                // Each has its own, because it may wait for containers to end. If there can be none, whoever waits for the
                // change is told when it is dropped.
                let _ = thread::Builder::new().name("change".to_owned()).spawn(change);
            }
        };
        thread::Builder::new().name("changes".to_owned()).spawn(start)?;
        Ok(Self(sender))
    }

    /// What comes of a change; nothing if there was no thread for it, or it has panicked. One for which `large` texts were
    /// read gives back what that has taken.
    pub(super) async fn make<R: Send + 'static>(
        &self,
        large: bool,
        change: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, answer) = oneshot::channel();
        let make = move || {
            // Whether anybody waits for it does not matter to what is changed.
            let _ = sender.send(change());
            if large {
                give_back();
            }
        };
        self.0.send(Box::new(make)).ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::give_way;

    /// The niceness of the calling thread.
    fn niceness() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn who_gives_way_has_changes_made_that_do_not_and_a_panic_is_told() {
        let own = niceness();
        let changes = Changes::start().unwrap();
        let served = thread::spawn(move || {
            give_way();
            let executor = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let changed = executor.block_on(changes.make(true, niceness));
            let panicked: Option<()> =
                executor.block_on(changes.make(false, || panic!("as the test wants it")));
            let after = executor.block_on(changes.make(false, || 7));
            (niceness(), changed, panicked, after)
        });
        let (gives_way, changed, panicked, after) = served.join().unwrap();
        assert!(gives_way > own);
        assert_eq!((changed, panicked, after), (Some(own), None, Some(7)));
    }
}
