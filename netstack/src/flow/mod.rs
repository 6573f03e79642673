//! What identifies a flow, and what is done to its frames.

mod key;
mod plan;
mod translation;

pub use key::FlowKey;
pub use plan::Plan;
pub use translation::{Change, Translation};
