//! Flow hashing and backend selection, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

pub mod hash;
pub mod rendezvous;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
