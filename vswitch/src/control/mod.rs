//! The control socket: HTTP and JSON, served by `up`, used by every other verb.

pub mod api;
mod balancing;
pub mod changes;
pub mod client;
mod connections;
mod desired;
mod impatient;
mod metrics;
pub mod names;
mod naming;
pub mod objects;
mod openapi;
pub mod plane;
pub mod policies;
mod publication;
mod published;
mod rollout;
mod routes;
pub mod server;
pub mod services;
mod standing;
pub mod table;
pub mod workloads;
