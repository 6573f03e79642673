//! The cluster that stands when nobody describes another.

use super::{Allocations, compile};
use crate::cluster::Cluster;
use manifest::Source;

/// The manifest of [`builtin`].
pub fn builtin_source() -> Source {
    Source { name: "built-in".into(), text: include_str!("builtin.yaml").to_owned() }
}

/// The built-in cluster: two nodes, three pods, one machine outside.
pub fn builtin(name: &str) -> Cluster {
    let read = manifest::load(&[builtin_source()], manifest::Strictness::Strict);
    let mut store = super::Store::default();
    let compiled = read.and_then(|manifests| {
        store.apply(manifests);
        compile(&store, &Allocations::default(), name)
    });
    compiled.map(|compiled| compiled.cluster).expect("the built-in manifest is sound; a test reads it")
}
