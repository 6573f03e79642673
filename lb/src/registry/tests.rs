#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
