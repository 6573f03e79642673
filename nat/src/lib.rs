//! Connection tracking and address translation, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod accepted;
pub mod behaviour;
pub mod checksum;
pub mod connection;
pub mod fragment;
mod nat;
pub mod packet;
pub mod ports;
pub mod rule;
pub mod sctp;
pub mod table;
pub mod tcp;
pub mod ticks;
pub mod timeouts;
pub mod translate;
pub mod tuple;

pub use accepted::Accepted;
pub use nat::{Config, Counters, Invalid, Nat, New, Prepared, Refusal, Renewal, Towards, Tracked};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
