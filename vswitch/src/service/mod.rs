//! Services: from objects and the state of pods to what each node's switch balances.
//!
//! # Theory of operation
//! ```text
//! Service ──Spec::read──> Spec ──Book::plan──> Planned ──┐
//!                    its own rules    addresses, ports    │   per node
//! EndpointSlice ──> Slice ───────────────────────────────┼─Controller──ways──> lb::Registry ──> the node's switch
//! Pods, readiness, nodes ────────────────────────────────┘
//! ```
//! [`Book`] is what has been given out: it is kept, so that a Service has the same addresses tomorrow, and it is a
//! persistent map, so that a change can be tried on a copy and thrown away. [`Controller`] takes changes one by one and
//! computes again only what they concern: the Services that select a pod which became ready, one Service that was
//! applied. What clients of one origin get at one frontend is decided in [`ways`] alone, by pure functions.

mod allocate;
mod announce;
mod controller;
mod duties;
mod endpoint;
mod entrances;
mod facts;
mod given;
mod pool;
mod port;
mod search;
mod slice;
mod spec;
mod userspace;
pub mod ways;
mod words;

pub use allocate::{Book, Draft, Surroundings};
pub use announce::{Advertisement, owner};
pub use controller::{Controller, PortEndpoints};
pub use duties::duties;
pub use endpoint::{Condition, Endpoint, Hints};
pub use facts::{NodeFacts, PodFacts, PodPort};
pub use given::{Allocation, Frame, Meaning, Names, NodePort, Planned, Range};
pub use pool::{AddressPool, Pools};
pub use port::{Port, Target};
pub use slice::Slice;
pub(crate) use slice::{WEIGHT, weight};
pub use spec::Spec;
pub use userspace::Detour;
pub use words::{Distribution, Family, Ingress, Kind, Stack};

#[cfg(test)]
mod tests;

/// What is wrong with an object, each with the field that it is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Complaints {
    /// What makes it unusable.
    pub faults: Vec<(String, String)>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<(String, String)>,
}

impl Complaints {
    /// Adds a fault.
    pub fn fault(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.faults.push((path.into(), message.into()));
    }

    /// Adds a warning.
    pub fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.warnings.push((path.into(), message.into()));
    }
}
