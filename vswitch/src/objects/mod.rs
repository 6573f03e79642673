//! What the user wants: the objects of all manifests applied so far, and the cluster that follows from them.
//!
//! # Theory of operation
//! A [`Store`] holds objects by name. [`compile`] turns all of them at once into a [`Cluster`](crate::cluster::Cluster):
//! defaults are filled in, Deployments become pods, pods get a node and addresses. It is a pure function of the objects and
//! of [`Allocations`], what was given out before, which makes the answer sticky: whoever had a node and addresses keeps
//! them. Either everything is sound, or nothing is done and every fault is told with the place in the file.

mod allocations;
mod builtin;
mod compile;
mod containers;
mod egress;
mod host_ports;
mod names;
mod node;
mod pod;
mod policies;
mod replacement;
mod services;
mod store;
mod underlay;

pub use allocations::{Allocation, Allocations};
pub(crate) use allocations::{host_bits, nth};
pub use builtin::{builtin, builtin_source};
pub use compile::{Compiled, compile};
pub(crate) use compile::{LABEL, is_label};
pub use services::{Plan, Planning};
pub use store::{Change, Changes, Store};

#[cfg(test)]
mod tests;
