//! Snapshots across threads.
