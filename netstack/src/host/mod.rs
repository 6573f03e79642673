//! In-process endpoints.
