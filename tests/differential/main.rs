//! The same through Linux and through us: equal octets, or a reason.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

mod conversations;
mod deliberate;
mod exceptions;
mod oracle;
mod packets;
mod relation;
mod switched;
