//! The groups that policies select by, each once, however many policies select by it.
//!
//! # Theory of operation
//! To find out which groups something is in, only those are tried that it may be in: a group that demands a label with a
//! value is filed under that label, one of a namespace under the namespace, one that demands a label of namespaces under
//! that; what is left demands nothing of the kind, and is tried with everybody.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use netstack::policy::GroupId;

use super::selector::Selector;
use super::spec::{Namespaces, PodSelector};
use crate::cluster::Labels;

/// Who is in a group.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Who {
    Pods(PodSelector),
    Nodes(Selector),
}

/// Where groups are filed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Drawer {
    Label(String, String),
    /// A label of pods of one namespace.
    Inside(String, String, String),
    Namespace(String),
    NamespaceLabel(String, String),
    Nodes,
    Rest,
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) who: Who,
    /// Rules that name it.
    pub(super) named: usize,
    /// Policies about it, by their place in the order of all.
    pub(super) policies: BTreeSet<Arc<super::compiler::Order>>,
    /// Who is in it: pods, or nodes.
    pub(super) members: BTreeSet<Arc<str>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Groups {
    by_who: HashMap<Who, GroupId>,
    groups: HashMap<GroupId, Group>,
    drawers: HashMap<Drawer, BTreeSet<GroupId>>,
    next: u32,
}

impl Groups {
    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    /// The group of these; and whether it is new, so that nobody is in it yet.
    pub(super) fn of(&mut self, who: &Who) -> (GroupId, bool) {
        if let Some(id) = self.by_who.get(who) {
            return (*id, false);
        }
        let id = GroupId(self.next);
        self.next += 1;
        self.by_who.insert(who.clone(), id);
        self.drawers.entry(drawer(who)).or_default().insert(id);
        let group = Group { who: who.clone(), named: 0, policies: BTreeSet::new(), members: BTreeSet::new() };
        self.groups.insert(id, group);
        (id, true)
    }

    /// Takes a group away that nobody selects by any more; who was in it.
    pub(super) fn sweep(&mut self, id: GroupId) -> BTreeSet<Arc<str>> {
        let unused = |group: &&Group| group.named == 0 && group.policies.is_empty();
        if self.groups.get(&id).filter(unused).is_none() {
            return BTreeSet::new();
        }
        let Some(group) = self.groups.remove(&id) else { return BTreeSet::new() };
        self.by_who.remove(&group.who);
        let drawer = drawer(&group.who);
        if let Some(filed) = self.drawers.get_mut(&drawer) {
            filed.remove(&id);
            if filed.is_empty() {
                self.drawers.remove(&drawer);
            }
        }
        group.members
    }

    /// The groups that a pod is in.
    pub(super) fn of_pod(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> Vec<GroupId> {
        let own = |(key, value): (&String, &String)| Drawer::Label(key.clone(), value.clone());
        let inside = |(key, value): (&String, &String)| {
            Drawer::Inside(namespace.to_owned(), key.clone(), value.clone())
        };
        let around = |(key, value): (&String, &String)| Drawer::NamespaceLabel(key.clone(), value.clone());
        let drawers =
            labels.iter().map(own).chain(labels.iter().map(inside)).chain(of_namespace.iter().map(around));
        let drawers = drawers.chain([Drawer::Namespace(namespace.to_owned()), Drawer::Rest]);
        let filed = drawers.filter_map(|drawer| self.drawers.get(&drawer)).flatten().copied();
        let is_in = |id: &GroupId| match &self.groups.get(id).map(|group| &group.who) {
            Some(Who::Pods(selector)) => selector.selects(namespace, of_namespace, labels),
            Some(Who::Nodes(_)) | None => false,
        };
        filed.filter(is_in).collect()
    }

    /// The groups that a node is in.
    pub(super) fn of_node(&self, labels: &Labels) -> Vec<GroupId> {
        let filed = self.drawers.get(&Drawer::Nodes).into_iter().flatten().copied();
        let is_in = |id: &GroupId| match &self.groups.get(id).map(|group| &group.who) {
            Some(Who::Nodes(selector)) => selector.selects(labels),
            Some(Who::Pods(_)) | None => false,
        };
        filed.filter(is_in).collect()
    }
}

fn drawer(who: &Who) -> Drawer {
    let Who::Pods(PodSelector { namespaces, pods }) = who else { return Drawer::Nodes };
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    match (namespaces, pods.label().map(owned)) {
        (Namespaces::Named(name), Some((key, value))) => Drawer::Inside(name.clone(), key, value),
        (Namespaces::Named(name), None) => Drawer::Namespace(name.clone()),
        (Namespaces::Labelled(_), Some((key, value))) => Drawer::Label(key, value),
        (Namespaces::Labelled(selector), None) => match selector.label().map(owned) {
            Some((key, value)) => Drawer::NamespaceLabel(key, value),
            None => Drawer::Rest,
        },
    }
}
