//! What is being done just now, on one line of standard error, for people who watch.

use std::io::{self, Write as _};

/// Shows this in place of what was shown before; nothing takes the line away.
pub(crate) fn show(text: &str) {
    // Losing it loses nothing.
    let _ = write!(io::stderr(), "\r\x1b[K{text}");
}
