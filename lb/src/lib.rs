//! Load balancing of connections to services, usable alone. See the README.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod affinity;
mod balancer;
pub mod hash;
pub mod maglev;
mod pool;
mod registry;
pub mod rendezvous;
mod service;
mod weights;

pub use affinity::Affinity;
pub use balancer::{Ask, Balancer, Chosen, Limits, Reason, Standing, Verdict};
pub use pool::{Backend, Policy, Pool, PoolError, Share};
pub use registry::{AT_ONCE, Conflict, Key, Map, Mark, Registry};
pub use service::{Entrance, Frontend, Origin, Refusal, Service, Serving, Way};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
