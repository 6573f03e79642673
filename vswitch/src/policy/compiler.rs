//! From policies, pods and namespaces to what each node's switch enforces, at the price of what changes.
//!
//! # Theory of operation
//! Facts come in one by one. Each says at once which pods it concerns: a pod itself, those of a namespace whose labels
//! change, those that a policy is about. [`Compiler::publish`] looks at these alone and puts what became of them into
//! the switches' maps, which share with those before them all that has not changed.
//!
//! A policy's rules name groups, not pods ([`groups`](super::groups)): who comes and goes changes no rule. Pods that the same
//! policies are about have the same rules; these are compiled once, and dropped with the last pod that has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use netstack::policy::{
    GroupId, NamedPort, Peer, PeerMap, Peers, Policies, PolicyId, PortMatch, PortName, Ports, Rule, Subject,
};

use super::groups::{Groups, Who};
use super::rulesets::{Compiled, Rulesets};
use super::spec::{Defaults, PeerSpec, PolicySpec, PortSpec, RuleSpec, Tier, with_name};
use super::stations::{NodeFacts, Pod, PodFacts, Pods};
use crate::cluster::Labels;

/// A policy's place among all.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Order {
    tier: Tier,
    priority: i32,
    /// Its namespace's name and its own.
    name: (Option<String>, String),
    /// Another number for each version of it.
    version: u64,
}

/// A policy as it was read, and what was made of it.
#[derive(Debug)]
struct Standing {
    spec: Arc<PolicySpec>,
    order: Arc<Order>,
    subject: GroupId,
    /// The groups that its rules name, each as often as it is named.
    named: Vec<GroupId>,
    compiled: Arc<Compiled>,
}

/// A node, and what its switch enforces.
#[derive(Debug, Default)]
struct Node {
    facts: NodeFacts,
    groups: BTreeSet<GroupId>,
    policies: Policies,
    changed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Compiler {
    defaults: Defaults,
    namespaces: HashMap<String, Labels>,
    pods: Pods,
    nodes: BTreeMap<Arc<str>, Node>,
    groups: Groups,
    /// By title.
    policies: BTreeMap<Arc<str>, Standing>,
    /// Those of [`Self::policies`] by their place.
    by_order: BTreeMap<Arc<Order>, Arc<Compiled>>,
    rulesets: Rulesets,
    peers: PeerMap,
    port_names: HashMap<String, PortName>,
    next_policy: u32,
    next_version: u64,
    /// Pods to look at, and groups all of whom are to be.
    dirty: BTreeSet<Arc<str>>,
    touched: BTreeSet<GroupId>,
    /// Addresses that somebody had, and their node.
    vacated: Vec<(IpAddr, Option<Arc<str>>)>,
    /// How many pods were looked at since the beginning.
    looked: u64,
}

impl Compiler {
    /// Says what holds where no policy says anything.
    pub fn set_defaults(&mut self, defaults: Defaults) {
        if self.defaults == defaults {
            return;
        }
        if self.defaults.denies != defaults.denies {
            self.rulesets = Rulesets::default();
            self.dirty.extend(self.pods.names().cloned());
        }
        self.defaults = defaults;
        for node in self.nodes.values_mut() {
            node.policies.set_audit(defaults.audits);
            node.changed = true;
        }
    }

    /// Says what labels a namespace has; none if there is no such object.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) {
        let before = match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        if before.as_ref() == labels {
            return;
        }
        let inside: Vec<Arc<str>> = self.pods.in_namespace(name).cloned().collect();
        inside.iter().for_each(|pod| self.place(pod));
    }

    /// Says what there is to know of a pod, `NAMESPACE/NAME`; none if it is gone.
    pub fn set_pod(&mut self, name: &Arc<str>, facts: Option<PodFacts>) {
        let before = self.pods.get(name).map(|pod| &pod.facts);
        if before == facts.as_ref() {
            return;
        }
        if let Some(old) = self.pods.remove(name) {
            let node = old.facts.node;
            self.vacated.extend(old.facts.addresses.into_iter().map(|address| (address, node.clone())));
            old.groups.into_iter().for_each(|group| self.leave(group, name));
        }
        let Some(facts) = facts else {
            self.dirty.remove(name);
            return;
        };
        self.pods.insert(name, Pod { facts, groups: BTreeSet::new(), peer: None, subject: None });
        self.place(name);
        self.dirty.insert(Arc::clone(name));
    }

    /// Says what there is to know of a node; none if it is gone.
    pub fn set_node(&mut self, name: &Arc<str>, facts: Option<NodeFacts>) {
        let before = self.nodes.get(name).map(|node| &node.facts);
        if before == facts.as_ref() {
            return;
        }
        let old = self.nodes.remove(name);
        if let Some(node) = &old {
            self.vacated.extend(node.facts.addresses.iter().map(|address| (*address, None)));
            node.groups.iter().for_each(|group| self.leave(*group, name));
        }
        let Some(facts) = facts else { return };
        let mut policies = old.map_or_else(|| self.fresh(), |node| node.policies);
        policies.set_node(facts.addresses.iter().chain(&facts.inside).copied().collect());
        let groups: BTreeSet<GroupId> = self.groups.of_node(&facts.labels).into_iter().collect();
        groups.iter().for_each(|group| self.join(*group, name));
        self.nodes.insert(Arc::clone(name), Node { facts, groups, policies, changed: true });
        let here =
            |pod: &&Arc<str>| self.pods.get(pod).is_some_and(|pod| pod.facts.node.as_ref() == Some(name));
        let here: Vec<Arc<str>> = self.pods.names().filter(here).cloned().collect();
        self.dirty.extend(here);
    }

    /// What a switch begins with: the names of all policies.
    fn fresh(&self) -> Policies {
        let mut policies = Policies::new();
        policies.set_audit(self.defaults.audits);
        for (title, standing) in &self.policies {
            policies.set_name(standing.compiled.id, Some(Arc::clone(title)));
        }
        policies
    }

    /// Says what a policy of this title says; none if it is gone.
    pub fn set_policy(&mut self, title: &Arc<str>, spec: Option<Arc<PolicySpec>>) {
        let before = self.policies.get(title).map(|standing| &standing.spec);
        if before == spec.as_ref() {
            return;
        }
        let old = self.policies.remove(title);
        let id = old.as_ref().map(|standing| standing.compiled.id);
        // The new one first, so that groups of both are not made anew.
        let standing = spec.map(|spec| self.stand(spec, id));
        if let Some(old) = old {
            self.fall(&old);
        }
        let (id, name) = match &standing {
            Some(standing) => (Some(standing.compiled.id), Some(Arc::clone(title))),
            None => (id, None),
        };
        for node in self.nodes.values_mut() {
            id.into_iter().for_each(|id| node.policies.set_name(id, name.clone()));
            node.changed = true;
        }
        if let Some(standing) = standing {
            self.policies.insert(Arc::clone(title), standing);
        }
    }

    /// Makes of a policy what pods get.
    fn stand(&mut self, spec: Arc<PolicySpec>, id: Option<PolicyId>) -> Standing {
        let id = id.unwrap_or_else(|| {
            self.next_policy += 1;
            PolicyId(self.next_policy)
        });
        let mut named = Vec::new();
        let [ingress, egress] = [&spec.ingress, &spec.egress].map(|rules| {
            let rules = rules.as_ref()?;
            let numbered = (0u32..).zip(rules);
            Some(numbered.map(|(number, rule)| self.rule(id, number, rule, &mut named)).collect())
        });
        for group in &named {
            self.name(*group);
        }
        let subject = self.group(&Who::Pods(spec.subject.clone()));
        let (priority, name) = (spec.priority, (spec.namespace.clone(), spec.name.clone()));
        self.next_version += 1;
        let order = Arc::new(Order { tier: spec.tier, priority, name, version: self.next_version });
        let compiled = Arc::new(Compiled { id, tier: spec.tier, ingress, egress });
        self.by_order.insert(Arc::clone(&order), Arc::clone(&compiled));
        if let Some(group) = self.groups.get_mut(subject) {
            group.policies.insert(Arc::clone(&order));
        }
        self.touched.insert(subject);
        Standing { spec, order, subject, named, compiled }
    }

    /// Takes back what [`Self::stand`] has done.
    fn fall(&mut self, old: &Standing) {
        self.by_order.remove(&old.order);
        if let Some(group) = self.groups.get_mut(old.subject) {
            group.policies.remove(&old.order);
        }
        self.touched.insert(old.subject);
        for group in &old.named {
            if let Some(group) = self.groups.get_mut(*group) {
                group.named -= 1;
            }
        }
        for id in old.named.iter().copied().chain([old.subject]) {
            for member in self.groups.sweep(id) {
                if let Some(pod) = self.pods.get_mut(&member) {
                    pod.groups.remove(&id);
                }
                if let Some(node) = self.nodes.get_mut(&member) {
                    node.groups.remove(&id);
                }
                if id == old.subject {
                    self.dirty.insert(member);
                }
            }
        }
    }

    /// One more rule names a group; with the first, switches must know who is in it.
    fn name(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.named += 1;
        if group.named == 1 {
            self.touched.insert(id);
            if matches!(group.who, Who::Nodes(_)) {
                self.nodes.values_mut().for_each(|node| node.changed = true);
            }
        }
    }

    /// The group of these, with all who are in it.
    fn group(&mut self, who: &Who) -> GroupId {
        let (id, new) = self.groups.of(who);
        if !new {
            return id;
        }
        for name in self.pods.candidates(who) {
            let Some(pod) = self.pods.get(&name) else { continue };
            let (namespace, labels) = (&pod.facts.namespace, &pod.facts.labels);
            let is_in = match who {
                Who::Pods(selector) => selector.selects(namespace, &self.namespace(namespace), labels),
                Who::Nodes(_) => false,
            };
            if is_in {
                self.join(id, &name);
                if let Some(pod) = self.pods.get_mut(&name) {
                    pod.groups.insert(id);
                }
            }
        }
        if let Who::Nodes(selector) = who {
            let selected = self.nodes.iter().filter(|(_, node)| selector.selects(&node.facts.labels));
            let names: Vec<Arc<str>> = selected.map(|(name, _)| Arc::clone(name)).collect();
            for name in names {
                self.join(id, &name);
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.groups.insert(id);
                }
            }
        }
        id
    }

    fn namespace(&self, name: &str) -> Labels {
        with_name(name, self.namespaces.get(name))
    }

    fn join(&mut self, group: GroupId, name: &Arc<str>) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.insert(Arc::clone(name));
        }
    }

    fn leave(&mut self, group: GroupId, name: &Arc<str>) {
        if let Some(group) = self.groups.get_mut(group) {
            group.members.remove(name);
        }
    }

    /// Finds out which groups a pod is in.
    fn place(&mut self, name: &Arc<str>) {
        let Some(pod) = self.pods.get(name) else { return };
        let PodFacts { namespace, labels, .. } = &pod.facts;
        let found = self.groups.of_pod(namespace, &self.namespace(namespace), labels);
        let found: BTreeSet<GroupId> = found.into_iter().collect();
        if found == pod.groups {
            return;
        }
        let (come, gone): (Vec<GroupId>, Vec<GroupId>) = (
            found.difference(&pod.groups).copied().collect(),
            pod.groups.difference(&found).copied().collect(),
        );
        come.into_iter().for_each(|group| self.join(group, name));
        gone.into_iter().for_each(|group| self.leave(group, name));
        if let Some(pod) = self.pods.get_mut(name) {
            pod.groups = found;
        }
        self.dirty.insert(Arc::clone(name));
    }

    fn rule(&mut self, policy: PolicyId, number: u32, rule: &RuleSpec, named: &mut Vec<GroupId>) -> Rule {
        let peers = match &rule.peers {
            None => Peers::Everyone,
            Some(peers) => {
                let (mut groups, mut blocks) = (Vec::new(), Vec::new());
                for peer in peers {
                    match peer {
                        PeerSpec::Pods(selector) => groups.push(self.group(&Who::Pods(selector.clone()))),
                        PeerSpec::Nodes(selector) => groups.push(self.group(&Who::Nodes(selector.clone()))),
                        PeerSpec::Block(block) => blocks.push(block.clone()),
                    }
                }
                groups.sort_unstable();
                groups.dedup();
                named.extend(&groups);
                Peers::These { groups, blocks }
            }
        };
        let ports = match &rule.ports {
            None => Ports::All,
            Some(ports) => Ports::These(ports.iter().map(|port| self.port(port)).collect()),
        };
        Rule { policy, number, action: rule.action, peers, ports }
    }

    fn port(&mut self, port: &PortSpec) -> PortMatch {
        match port {
            PortSpec::Protocol(protocol) => PortMatch::Protocol(*protocol),
            PortSpec::Range { protocol, first, last } => {
                PortMatch::Range { protocol: *protocol, first: *first, last: *last }
            }
            PortSpec::Named { protocol, name } => {
                PortMatch::Named { protocol: *protocol, name: self.port_name(name) }
            }
        }
    }

    fn port_name(&mut self, name: &str) -> PortName {
        if let Some(known) = self.port_names.get(name) {
            return *known;
        }
        let number = PortName(u32::try_from(self.port_names.len()).unwrap_or(u32::MAX));
        self.port_names.insert(name.to_owned(), number);
        number
    }

    /// The pods that a policy is about, in order.
    pub fn selected(&self, title: &str) -> Vec<Arc<str>> {
        let group = self.policies.get(title).and_then(|standing| self.groups.get(standing.subject));
        let subject = |name: &&Arc<str>| self.pods.get(name).is_some_and(|pod| pod.facts.node.is_some());
        group.into_iter().flat_map(|group| &group.members).filter(subject).cloned().collect()
    }

    /// Whether anybody may be forbidden anything.
    pub fn is_active(&self) -> bool {
        self.defaults.denies || !self.policies.is_empty()
    }

    /// How many pods were looked at since the beginning: what a change has cost, the difference says.
    pub fn looked(&self) -> u64 {
        self.looked
    }

    /// What has changed since the last time, by node; none where nobody is forbidden anything.
    pub fn publish(&mut self) -> Vec<(Arc<str>, Option<Arc<Policies>>)> {
        let mut peers = false;
        for (address, node) in std::mem::take(&mut self.vacated) {
            self.peers.set(address, None);
            peers = true;
            if let Some(node) = node.and_then(|node| self.nodes.get_mut(&node)) {
                node.policies.set_subject(address, None);
                node.changed = true;
            }
        }
        for group in std::mem::take(&mut self.touched) {
            self.dirty.extend(self.groups.get(group).into_iter().flat_map(|group| &group.members).cloned());
        }
        let mut alike = HashMap::new();
        for name in std::mem::take(&mut self.dirty) {
            self.looked += 1;
            peers |= self.look(&name, &mut alike);
        }
        peers |= self.look_at_nodes();
        self.rulesets.sweep();
        let active = self.is_active();
        let mut changed = Vec::new();
        for (name, node) in &mut self.nodes {
            if peers {
                node.policies.set_peers(self.peers.clone());
            }
            if std::mem::take(&mut node.changed) || peers {
                changed.push((Arc::clone(name), active.then(|| Arc::new(node.policies.clone()))));
            }
        }
        changed
    }

    /// Looks at a pod; whether others know it otherwise now. Pods of the same groups get the same.
    fn look(&mut self, name: &Arc<str>, alike: &mut HashMap<Vec<GroupId>, Option<Arc<Subject>>>) -> bool {
        let Some(pod) = self.pods.get(name) else { return false };
        let named = pod.facts.ports.clone();
        let named: Vec<NamedPort> = named
            .into_iter()
            .map(|(name, protocol, number)| NamedPort { name: self.port_name(&name), protocol, number })
            .collect();
        let Some(pod) = self.pods.get(name) else { return false };
        let is_named = |group: &GroupId| self.groups.get(*group).is_some_and(|group| group.named > 0);
        let peer = Peer::new(pod.groups.iter().copied().filter(is_named), named);
        let policies = |group: &GroupId| self.groups.get(*group).map(|group| &group.policies);
        let has_some = |group: &GroupId| policies(group).is_some_and(|policies| !policies.is_empty());
        let ours: Vec<GroupId> = pod.groups.iter().copied().filter(has_some).collect();
        let subject = match (&pod.facts.node, alike.get(&ours).cloned()) {
            (None, _) => None,
            (Some(_), Some(known)) => known,
            (Some(_), None) => {
                let about: BTreeSet<&Arc<Order>> = ours.iter().filter_map(policies).flatten().collect();
                let about: Vec<&Arc<Compiled>> =
                    about.into_iter().filter_map(|order| self.by_order.get(order)).collect();
                let subject = self.rulesets.subject(&about, self.defaults.denies);
                alike.insert(ours, subject.clone());
                subject
            }
        };
        let Some(pod) = self.pods.get_mut(name) else { return false };
        let same = match (&pod.subject, &subject) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let home = pod.facts.node.as_ref().and_then(|node| self.nodes.get_mut(node));
        if let Some(node) = home {
            // Its node may be a new one.
            for address in &pod.facts.addresses {
                node.policies.set_subject(*address, subject.clone());
            }
            node.changed |= !same;
        }
        pod.subject = subject;
        if pod.peer.as_deref() == Some(&peer) {
            return false;
        }
        let peer = Arc::new(peer);
        for address in &pod.facts.addresses {
            self.peers.set(*address, Some(Arc::clone(&peer)));
        }
        pod.peer = Some(peer);
        true
    }

    /// Puts nodes' addresses where rules find them; whether anything is otherwise now.
    fn look_at_nodes(&mut self) -> bool {
        let mut changed = false;
        for node in self.nodes.values().filter(|node| node.changed) {
            let is_named = |group: &GroupId| self.groups.get(*group).is_some_and(|group| group.named > 0);
            let peer = Arc::new(Peer::new(node.groups.iter().copied().filter(is_named), []));
            for address in &node.facts.addresses {
                let known = self.peers.get(*address).map_or(&[][..], |peer| peer.groups());
                if known != peer.groups() {
                    self.peers.set(*address, Some(Arc::clone(&peer)));
                    changed = true;
                }
            }
        }
        changed
    }
}
