//! What the controller is told of nodes and pods, and how Services and pods find each other.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::spec::Spec;
use crate::cluster::{Labels, Protocol};

/// A node, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, at which its ports are.
    pub addresses: Vec<IpAddr>,
    /// Those that it has as its pods' router, where its ports are as well: what the node itself sends there reaches its switch.
    pub gateways: Vec<IpAddr>,
    /// The prefixes of the segment that it is on.
    pub prefixes: Vec<IpNet>,
}

/// A port that a container names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodPort {
    /// The name.
    pub name: String,
    /// What is carried.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A pod, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node it is on.
    pub node: Arc<str>,
    /// Its host name, if it asks for one, and the headless Service beneath which it is one.
    pub hostname: Option<(Arc<str>, Arc<str>)>,
    /// Its named ports.
    pub ports: Vec<PodPort>,
    /// Its part of new connections, against others.
    pub weight: u32,
    /// Whether all of its containers are ready.
    pub ready: bool,
    /// Whether it is about to go.
    pub terminating: bool,
    /// Whether all of its containers have ended for good.
    pub ended: bool,
}

/// A label in a namespace.
pub(super) type Label = (String, String, String);

pub(super) fn label(namespace: &str, key: &str, value: &str) -> Label {
    (namespace.to_owned(), key.to_owned(), value.to_owned())
}

pub(super) fn labels(pod: &PodFacts) -> Vec<Label> {
    pod.labels.iter().map(|(key, value)| label(&pod.namespace, key, value)).collect()
}

/// The label under which a Service is found by pods.
pub(super) fn selected_by(spec: &Spec) -> Option<Label> {
    spec.selector.first_key_value().map(|(key, value)| label(&spec.namespace, key, value))
}

pub(super) fn selects(spec: &Spec, pod: &PodFacts) -> bool {
    spec.namespace == pod.namespace
        && !spec.selector.is_empty()
        && spec.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

pub(super) fn forget(index: &mut HashMap<Label, BTreeSet<Arc<str>>>, label: &Label, name: &Arc<str>) {
    if let Some(all) = index.get_mut(label) {
        all.remove(name);
        if all.is_empty() {
            index.remove(label);
        }
    }
}
