//! Cluster DNS: the names of Services and pods, and an authoritative answerer for them.
//!
//! # Theory of operation
//! ```text
//! Service, Pod ──kubernetes::records──> records ──Registrar::set──> Zone ──Resolver::query──> octets
//!                  what the specification says        by owner     a persistent value     RFC 1034, 1035 and on
//! ```
//! A [`Registrar`] holds who said what: each Service and each pod owns its records, and one that changes replaces its own
//! and nobody else's. What it makes, a [`Zone`], is a persistent value: a clone costs next to nothing and shares all that
//! has not changed, so every node's server has one of its own without a lock. A [`Resolver`] turns the octets of a query
//! into those of its answer, or says that somebody else must be asked.
//!
//! Nothing here has a socket, a clock or a source of randomness. Messages are read and written by `hickory-proto`, in
//! `message` alone.

#![forbid(unsafe_code)]

// Nothing is called, but what hickory-proto calls is in there.
use critical_section as _;

mod answer;
mod cache;
mod counters;
mod forward;
pub mod kubernetes;
mod message;
mod name;
mod registrar;
pub mod resolv_conf;
pub mod reverse;
mod zone;

pub use answer::{Foreign, Reply, Resolver, TTL, Transport};
pub use cache::Cache;
pub use counters::{Code, Counters, QueryType};
pub use forward::{Attempt, Heard, Known};
pub use message::{MAX_UDP, Question, journal};
pub use name::{DomainName, NameError};
pub use registrar::Registrar;
pub use zone::{Data, Srv, Zone};

#[cfg(test)]
mod tests;
