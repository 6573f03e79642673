//! What identifies a flow, and what is done to its frames.

mod key;
mod plan;

pub use key::FlowKey;
pub use plan::Plan;
