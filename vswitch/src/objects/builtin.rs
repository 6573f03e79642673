//! The cluster that stands when nobody describes another.

use manifest::{Source, Strictness};

use super::{Allocations, Store, compile};
use crate::cluster::Cluster;

/// The manifest of [`builtin`].
pub fn builtin_source() -> Source {
    Source { name: "built-in".into(), text: include_str!("builtin.yaml").to_owned() }
}

/// The built-in cluster: two nodes, three pods, one machine outside.
pub fn builtin(name: &str) -> Cluster {
    let read = Store::read(&[builtin_source()], Strictness::Strict);
    let compiled = read.and_then(|(store, _)| compile(&store, &Allocations::default(), name));
    compiled.map(|compiled| compiled.cluster).expect("the built-in manifest is sound; a test reads it")
}
