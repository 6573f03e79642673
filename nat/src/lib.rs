//! Connection tracking and address translation, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod accepted;
pub mod checksum;
pub mod connection;
pub mod fragment;
pub mod packet;
pub mod ports;
pub mod table;
pub mod ticks;
pub mod sctp;
pub mod tcp;
pub mod timeouts;
pub mod translate;
pub mod tuple;

pub use accepted::Accepted;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
