//! Address translation, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
