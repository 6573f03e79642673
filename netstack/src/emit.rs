//! The frames this stack makes itself.
