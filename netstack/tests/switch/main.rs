//! The switch as a black box: frames in by its verbs, frames out by its verbs, on a virtual clock. Tests are named after
//! the rule they prove. The frames are built by `etherparse` and checked by `smoltcp::wire`, neither of which the
//! forwarding path uses.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "in a test a panic is the report, and the numbers are small"
)]

mod bridge;
mod config;
mod discovery;
mod explain;
mod flows;
mod install;
mod lab;
mod local;
mod offload;
mod oracles;
mod own;
mod packets;
mod policy;
mod protect;
mod random;
mod router;
mod rules;
mod services;
mod translation;
mod world;
