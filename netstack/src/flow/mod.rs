//! What identifies a flow, and what is done to its frames.

pub mod cache;
pub mod glance;
mod key;
mod plan;
mod translation;

pub use key::FlowKey;
pub use plan::Plan;
pub use translation::{Change, Translation, checksum_state, rewrite_plain};
