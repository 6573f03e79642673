//! Flow hashing and backend selection, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

pub mod hash;
