//! What identifies a flow, and what is done to its frames.

mod key;

pub use key::FlowKey;
