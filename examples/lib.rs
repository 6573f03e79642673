//! The examples are `cargo run --example NAME` from the top of the repository.
