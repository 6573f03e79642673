//! An embeddable network stack: a switch object that eats batches of frames and a time, and gives back batches
//! of frames. See `ARCHITECTURE.md` beside this crate for the journey of a frame.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod addr;
pub mod bridge;
pub mod config;
pub mod counters;
pub mod device;
#[cfg(feature = "std")]
pub mod driver;
pub mod emit;
pub mod event;
pub mod filter;
pub mod flow;
pub mod frame;
#[cfg(feature = "host")]
pub mod host;
pub mod icmp;
pub mod neighbor;
pub mod offload;
pub mod parse;
pub mod policy;
#[cfg(feature = "std")]
pub mod publish;
pub mod rate;
pub mod route;
pub mod seed;
#[cfg(feature = "sim")]
pub mod sim;
pub mod switch;
#[cfg(feature = "std")]
pub mod sync;
pub mod table;
pub mod verdict;
