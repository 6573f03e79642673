//! Devices, switches and the clock, joined.
