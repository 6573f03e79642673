//! Links in memory.
