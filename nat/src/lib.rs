//! Address translation, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
