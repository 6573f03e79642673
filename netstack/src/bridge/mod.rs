//! Layer 2 forwarding.
