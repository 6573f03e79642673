//! The control socket: HTTP and JSON, served by `up`, used by every other verb.

pub mod api;
pub mod client;
pub mod objects;
pub mod plane;
pub mod server;
pub mod table;
