//! Network policies: from objects and labels to what each node's switch enforces.
//!
//! # Theory of operation
//! ```text
//! NetworkPolicy, ClusterNetworkPolicy ──> PolicySpec ──┐
//! Namespaces, Pods, Nodes ─────────────────────────────┴─ Compiler ──> netstack::policy::Policies, one for each node
//! ```
//! [`PolicySpec`] is what an object says, with all defaults filled in. [`Compiler`] takes facts one by one and computes again
//! only what they concern. What a switch makes of it stands in [`netstack::policy`].
//!
//! A node's switch enforces what is about its own pods. Whom rules name it knows wherever he lives.

mod admin;
mod cluster;
mod compiler;
mod groups;
mod matrix;
mod read;
mod rulesets;
mod selector;
mod spec;
mod stations;
#[cfg(test)]
mod tests;
mod words;

pub use cluster::{ClusterPolicies, Keeper};
pub use compiler::Compiler;
pub use matrix::{Cell, End, Matrix};
pub use selector::Selector;
pub use spec::{
    Defaults, NAMESPACE_NAME, Namespaces, PeerSpec, PodSelector, PolicySpec, PortSpec, RuleSpec, Tier,
    with_name,
};
pub use stations::{NodeFacts, PodFacts};
pub use words::protocol_name;
