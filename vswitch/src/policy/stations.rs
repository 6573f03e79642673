//! Pods and nodes, and where to look for those that a new group may have.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use netstack::policy::{GroupId, Peer, Subject};

use super::groups::Who;
use super::spec::{Namespaces, PodSelector};
use crate::cluster::Labels;

/// A pod, as far as policies are concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node it is on; none for one that rules may name and that none is about.
    pub node: Option<Arc<str>>,
    /// What it calls its ports: name, IP protocol number, port.
    pub ports: Vec<(String, u8, u16)>,
}

/// A node, as far as policies are concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeFacts {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, by which rules know it.
    pub addresses: Vec<IpAddr>,
    /// Further ones, that its own pods reach it by.
    pub inside: Vec<IpAddr>,
}

/// A pod, and what became of it.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) facts: PodFacts,
    pub(super) groups: BTreeSet<GroupId>,
    /// What switches know of it.
    pub(super) peer: Option<Arc<Peer>>,
    pub(super) subject: Option<Arc<Subject>>,
}

/// Pods by name, `NAMESPACE/NAME`.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: HashMap<Arc<str>, Pod>,
    by_label: HashMap<(String, String), BTreeSet<Arc<str>>>,
    by_namespace: HashMap<String, BTreeSet<Arc<str>>>,
}

impl Pods {
    pub(super) fn get(&self, name: &str) -> Option<&Pod> {
        self.pods.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Pod> {
        self.pods.get_mut(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pods.keys()
    }

    pub(super) fn insert(&mut self, name: &Arc<str>, pod: Pod) {
        for (key, value) in &pod.facts.labels {
            self.by_label.entry((key.clone(), value.clone())).or_default().insert(Arc::clone(name));
        }
        self.by_namespace.entry(pod.facts.namespace.clone()).or_default().insert(Arc::clone(name));
        self.pods.insert(Arc::clone(name), pod);
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Pod> {
        let pod = self.pods.remove(name)?;
        for (key, value) in &pod.facts.labels {
            take(&mut self.by_label, &(key.clone(), value.clone()), name);
        }
        take(&mut self.by_namespace, &pod.facts.namespace, name);
        Some(pod)
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<str>> {
        self.by_namespace.get(namespace).into_iter().flatten()
    }

    /// Those of whom some may be in a group.
    pub(super) fn candidates(&self, who: &Who) -> Vec<Arc<str>> {
        let Who::Pods(PodSelector { namespaces, pods }) = who else { return Vec::new() };
        let labelled =
            pods.label().map(|(key, value)| self.by_label.get(&(key.to_owned(), value.to_owned())));
        let inside = match namespaces {
            Namespaces::Named(name) => Some(self.by_namespace.get(name)),
            Namespaces::Labelled(_) => None,
        };
        let fewest =
            [labelled, inside].into_iter().flatten().min_by_key(|names| names.map_or(0, BTreeSet::len));
        match fewest {
            Some(names) => names.into_iter().flatten().cloned().collect(),
            None => self.names().cloned().collect(),
        }
    }
}

fn take<K: std::hash::Hash + Eq>(map: &mut HashMap<K, BTreeSet<Arc<str>>>, key: &K, name: &str) {
    if let Some(names) = map.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            map.remove(key);
        }
    }
}
