//! The command's clock: the only place in this crate that reads one.

use std::time::Instant;

/// Now, for measuring how long something took.
#[expect(clippy::disallowed_methods, reason = "this is where the command reads its clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
