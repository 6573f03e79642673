//! The node agent: what has to listen in a node's own namespace.
//!
//! # Theory of operation
//! What a node asks of its own address never leaves its namespace, so the switch cannot answer it. A small process in that
//! namespace does: this executable in the role `__agent`, which the helper runs as it runs containers. It relays ports of
//! the node to where they lead, answers the health checks of load balancers, and says at port [`HEALTHZ_PORT`] that it
//! is there.
//!
//! [`Agents`] is the other end: a socket in the state directory to which every agent connects and which tells it its
//! node's [`NodeDuties`], all of them first and then what changes. An agent that has died is started again like any
//! container, and one that has lost its vswitch goes on with what it knows, answers health checks with 503, and
//! connects to the next one.

mod datagrams;
mod duties;
mod health;
mod parent;
mod relay;
mod role;

#[cfg(test)]
mod tests;

pub use duties::{HealthCheck, NodeDuties, Relay};
pub use parent::Agents;
pub(crate) use role::main as agent_main;

/// The role in which this executable is an agent.
pub(crate) const AGENT_ROLE: &str = "__agent";
/// Where every agent answers `/healthz` and `/livez`, as kube-proxy does.
pub const HEALTHZ_PORT: u16 = 10256;
