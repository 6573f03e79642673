//! Network policies against an evaluator that was written from the text of the specification and knows nothing of the
//! compiler: through switches in memory, with random ones by the thousand, and with real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "in a test a panic is the report, and the numbers are small"
)]

#[path = "../common/mod.rs"]
mod common;

mod costs;
mod evaluator;
mod fabric;
mod flood;
mod random;
mod table;
mod tap;
