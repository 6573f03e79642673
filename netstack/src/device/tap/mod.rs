//! Kernel TAP devices.
