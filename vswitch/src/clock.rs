//! The command's clock: the only place in this crate that reads one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for measuring how long something took.
#[expect(clippy::disallowed_methods, reason = "this is where the command reads its clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Time since 1970, for captures and state files.
#[expect(clippy::disallowed_methods, reason = "this is where the command reads its clock")]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
