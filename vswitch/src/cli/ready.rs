//! Telling whoever started `up` how far it is: a line on a descriptor, and the messages of `sd_notify(3)`.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::RawFd;

use sd_notify::NotifyState;

/// What waits to be told that the cluster can be asked.
#[derive(Debug)]
pub(super) struct Ready {
    descriptor: Option<File>,
}

impl Ready {
    /// Takes over the descriptor of `--ready-fd`, so that no process started later keeps it open.
    ///
    /// # Errors
    /// When there is no such descriptor.
    pub(super) fn take(descriptor: Option<RawFd>) -> Result<Self, String> {
        let take = |number| {
            let taken = crate::sys::inherited(number).map(File::from);
            taken.map_err(|error| format!("--ready-fd {number}: {error}"))
        };
        Ok(Self { descriptor: descriptor.map(take).transpose()? })
    }

    /// Says that the cluster can be asked, and what it is; closes the descriptor.
    pub(super) fn tell(self, status: &str) {
        if let Some(mut file) = self.descriptor
            && let Err(error) = file.write_all(b"ready\n")
        {
            complain("--ready-fd", &error);
        }
        notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }
}

/// Says what is being done before it is ready.
pub(super) fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Says that it comes down.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("coming down")]);
}

/// Does nothing unless `NOTIFY_SOCKET` is set.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        complain("NOTIFY_SOCKET", &error);
    }
}

/// The cluster is as good if nobody hears that it is there.
fn complain(whom: &str, error: &io::Error) {
    let _ = writeln!(io::stderr(), "warning: {whom} cannot be told: {error}");
}
