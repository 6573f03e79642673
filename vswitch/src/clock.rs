//! The command's clock: the only place in this crate that reads one.

use std::time::{Duration, Instant, SystemTime};

/// Now, for measuring how long something took.
#[expect(clippy::disallowed_methods, reason = "this is where the command reads its clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time since the Unix epoch, for times that are told to others.
#[expect(clippy::disallowed_methods, reason = "this is where the command reads its clock")]
pub(crate) fn since_epoch() -> Duration {
    // A clock set before 1970 tells no time anyway.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
