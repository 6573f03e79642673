//! What each node's switch balances, kept up to date change by change.
//!
//! # Theory of operation
//! Facts come in one by one: a Service and what it was given, a slice, a pod, the nodes. Each marks the Services that it
//! concerns; two indices say which: Services by one label of their selector, pods by each of theirs. [`Controller::publish`]
//! computes the marked Services again, each for every node, and puts them into the nodes' registries, which share with
//! those handed out before all that has not changed. Pools whose backends stay are not made again; one that is the same on
//! every node is made once. What comes out does not depend on the way there, but for the versions in the registries.

mod computing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use lb::Registry;
use manifest::parallel::each;

use super::announce::{Advertisement, owner};
use super::endpoint::Endpoint;
use super::entrances::Served;
use super::facts::{Label, NodeFacts, PodFacts, forget, labels, selected_by, selects};
use super::given::Planned;
use super::pool::Pools;
use super::port::Port;
use super::slice::Slice;
use super::ways;
use super::words::Family;

/// One port of a Service in one family, and who is behind it.
#[derive(Clone, Copy, Debug)]
pub struct PortEndpoints<'a> {
    /// What registries call it.
    pub name: &'a Arc<str>,
    /// The family.
    pub family: Family,
    /// The port.
    pub port: &'a Port,
    /// In order of address and port.
    pub endpoints: &'a [Endpoint],
}

#[derive(Debug)]
struct Entry {
    planned: Arc<Planned>,
    served: Vec<Served>,
}

/// A node and what its switch balances.
#[derive(Debug)]
struct Node {
    facts: NodeFacts,
    registry: Registry,
    changed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    key: [u8; 16],
    masquerade_all: bool,
    nodes: Vec<Node>,
    pools: Arc<Pools>,
    advertisements: Arc<[Advertisement]>,
    services: HashMap<Arc<str>, Entry>,
    by_selector: HashMap<Label, BTreeSet<Arc<str>>>,
    slices: HashMap<Arc<str>, Arc<Slice>>,
    slices_of: HashMap<String, BTreeSet<Arc<str>>>,
    pods: HashMap<Arc<str>, PodFacts>,
    by_label: HashMap<Label, BTreeSet<Arc<str>>>,
    dirty: BTreeSet<Arc<str>>,
    /// Load balancer addresses, and the Services that share each.
    sharers: BTreeMap<IpAddr, BTreeSet<Arc<str>>>,
    /// Services that are or were asked for at nodes themselves, and have changed since somebody took them.
    exposed: BTreeSet<Arc<str>>,
    /// Services that have changed or gone since somebody took them.
    renamed: BTreeSet<Arc<str>>,
    /// The node that announces each.
    owners: BTreeMap<IpAddr, Option<Arc<str>>>,
    /// Ports of Services that another stands in the way of.
    conflicts: BTreeMap<Arc<str>, String>,
}

impl Controller {
    /// Without any Service. `key` is the same on every node and every start.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            masquerade_all: false,
            nodes: Vec::new(),
            pools: Arc::default(),
            advertisements: Arc::from([]),
            services: HashMap::new(),
            by_selector: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            pods: HashMap::new(),
            by_label: HashMap::new(),
            dirty: BTreeSet::new(),
            sharers: BTreeMap::new(),
            exposed: BTreeSet::new(),
            renamed: BTreeSet::new(),
            owners: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        }
    }

    /// What all Services have in common.
    pub fn set_frame(
        &mut self,
        masquerade_all: bool,
        pools: Arc<Pools>,
        advertisements: Arc<[Advertisement]>,
    ) {
        let same = self.masquerade_all == masquerade_all
            && (Arc::ptr_eq(&self.pools, &pools) || self.pools == pools)
            && (Arc::ptr_eq(&self.advertisements, &advertisements) || self.advertisements == advertisements);
        (self.masquerade_all, self.pools, self.advertisements) = (masquerade_all, pools, advertisements);
        if !same {
            self.dirty.extend(self.services.keys().cloned());
        }
    }

    /// All nodes there are.
    pub fn set_nodes(&mut self, nodes: Vec<NodeFacts>) {
        if self.nodes.iter().map(|node| &node.facts).eq(&nodes) {
            return;
        }
        let mut before = std::mem::take(&mut self.nodes);
        for facts in nodes {
            let registry = match before.iter().position(|node| node.facts.name == facts.name) {
                Some(at) => before.swap_remove(at).registry,
                None => Registry::new(),
            };
            self.nodes.push(Node { facts, registry, changed: true });
        }
        self.dirty.extend(self.services.keys().cloned());
    }

    /// A Service, `NAMESPACE/NAME`; `None` if it is gone.
    pub fn set_service(&mut self, name: &Arc<str>, planned: Option<Arc<Planned>>) {
        if let Some(entry) = self.services.get(name) {
            if entry.planned.allocation.is_exposed() {
                self.exposed.insert(Arc::clone(name));
            }
            if let Some(label) = selected_by(&entry.planned.spec) {
                forget(&mut self.by_selector, &label, name);
            }
            for address in &entry.planned.allocation.load_balancer {
                let Some(sharers) = self.sharers.get_mut(address) else { continue };
                sharers.remove(name);
                if sharers.is_empty() {
                    self.sharers.remove(address);
                    self.owners.remove(address);
                }
            }
        }
        match planned {
            Some(planned) => {
                if let Some(label) = selected_by(&planned.spec) {
                    self.by_selector.entry(label).or_default().insert(Arc::clone(name));
                }
                for address in &planned.allocation.load_balancer {
                    self.sharers.entry(*address).or_default().insert(Arc::clone(name));
                }
                match self.services.get_mut(name) {
                    Some(entry) => entry.planned = planned,
                    None => {
                        self.services.insert(Arc::clone(name), Entry { planned, served: Vec::new() });
                    }
                }
                self.dirty.insert(Arc::clone(name));
            }
            None => {
                for served in self.services.remove(name).into_iter().flat_map(|entry| entry.served) {
                    self.withdraw(&served.name);
                }
                self.dirty.remove(name);
                self.renamed.insert(Arc::clone(name));
            }
        }
    }

    /// A slice, `NAMESPACE/NAME`; `None` if it is gone.
    pub fn set_slice(&mut self, name: &Arc<str>, slice: Option<Arc<Slice>>) {
        let before = match &slice {
            Some(slice) => self.slices.insert(Arc::clone(name), Arc::clone(slice)),
            None => self.slices.remove(name),
        };
        if let Some(service) = before.as_ref().and_then(|slice| slice.service.as_ref()) {
            if let Some(all) = self.slices_of.get_mut(service) {
                all.remove(name);
                if all.is_empty() {
                    self.slices_of.remove(service);
                }
            }
            self.touch(service);
        }
        if let Some(service) = slice.as_ref().and_then(|slice| slice.service.as_ref()) {
            self.slices_of.entry(service.clone()).or_default().insert(Arc::clone(name));
            self.touch(service);
        }
    }

    /// A pod, `NAMESPACE/NAME`; `None` if it is gone.
    pub fn set_pod(&mut self, name: &Arc<str>, pod: Option<PodFacts>) {
        if self.pods.get(name) == pod.as_ref() {
            return;
        }
        if let Some(before) = self.pods.remove(name) {
            self.touch_selecting(&before);
            for label in labels(&before) {
                forget(&mut self.by_label, &label, name);
            }
        }
        if let Some(pod) = pod {
            self.touch_selecting(&pod);
            for label in labels(&pod) {
                self.by_label.entry(label).or_default().insert(Arc::clone(name));
            }
            self.pods.insert(Arc::clone(name), pod);
        }
    }

    /// A pod that is known.
    pub fn pod(&self, name: &str) -> Option<&PodFacts> {
        self.pods.get(name)
    }

    /// The names of the pods that are known.
    pub fn pod_names(&self) -> Vec<Arc<str>> {
        self.pods.keys().cloned().collect()
    }

    fn touch(&mut self, service: &str) {
        if let Some((name, _)) = self.services.get_key_value(service) {
            self.dirty.insert(Arc::clone(name));
        }
    }

    fn touch_selecting(&mut self, pod: &PodFacts) {
        for label in labels(pod) {
            for name in self.by_selector.get(&label).into_iter().flatten() {
                let spec = self.services.get(name).map(|entry| &entry.planned.spec);
                if spec.is_some_and(|spec| selects(spec, pod)) {
                    self.dirty.insert(Arc::clone(name));
                }
            }
        }
    }

    /// Computes what the changes concern. Returns the nodes whose registry is another now, with it.
    pub fn publish(&mut self) -> Vec<(Arc<str>, Registry)> {
        let mut dirty = std::mem::take(&mut self.dirty);
        let moves = !dirty.is_empty() || self.nodes.iter().any(|node| node.changed);
        if moves {
            dirty.extend(self.in_conflict());
        }
        self.compute(dirty);
        // What stood in the way may have gone out of it after somebody else was refused.
        let mut left = usize::MAX;
        while moves && !self.conflicts.is_empty() && self.conflicts.len() < left {
            left = self.conflicts.len();
            self.compute(self.in_conflict());
        }
        let changed = self.nodes.iter_mut().filter_map(|node| {
            std::mem::take(&mut node.changed).then(|| (Arc::clone(&node.facts.name), node.registry.clone()))
        });
        changed.collect()
    }

    /// The Services of ports that another stands in the way of.
    fn in_conflict(&self) -> BTreeSet<Arc<str>> {
        // A port's name is its Service's, a colon, and what has none.
        let services = self.conflicts.keys().filter_map(|name| name.rsplit_once(':'));
        let known = services.filter_map(|(service, _)| self.services.get_key_value(service));
        known.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// What each node balances.
    pub fn registries(&self) -> impl Iterator<Item = (&Arc<str>, &Registry)> {
        self.nodes.iter().map(|node| (&node.facts.name, &node.registry))
    }

    /// All nodes there are.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeFacts> {
        self.nodes.iter().map(|node| &node.facts)
    }

    /// Those Services whose names may stand for something else than when this was called last.
    pub fn take_renamed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.renamed)
    }

    /// All Services, `NAMESPACE/NAME`.
    pub fn service_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.services.keys()
    }

    /// Those of the Services that are or were asked for at nodes themselves that have changed since this was called last.
    pub fn take_exposed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.exposed)
    }

    /// The node that announces each load balancer address, if any can.
    pub fn owners(&self) -> &BTreeMap<IpAddr, Option<Arc<str>>> {
        &self.owners
    }

    /// Ports of Services that nodes do not translate, because another stands in the way; and why, in a sentence.
    pub fn conflicts(&self) -> &BTreeMap<Arc<str>, String> {
        &self.conflicts
    }

    /// A Service, and each of its ports in each family.
    pub fn service(&self, name: &str) -> Option<(&Arc<Planned>, Vec<PortEndpoints<'_>>)> {
        let Entry { planned, served } = self.services.get(name)?;
        let ports = served.iter().filter_map(|served| {
            let port = planned.spec.ports.get(served.port)?;
            Some(PortEndpoints {
                name: &served.name,
                family: served.family,
                port,
                endpoints: &served.endpoints,
            })
        });
        Some((planned, ports.collect()))
    }

    fn withdraw(&mut self, name: &Arc<str>) {
        self.conflicts.remove(name);
        for node in &mut self.nodes {
            node.changed |= node.registry.remove(name);
        }
    }

    /// Computes Services again: on all processors what is found by looking alone, one after the other what it changes.
    fn compute(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        let known = names.into_iter().filter_map(|name| {
            let planned = Arc::clone(&self.services.get(&name)?.planned);
            Some((name, planned))
        });
        let known: Vec<(Arc<str>, Arc<Planned>)> = known.collect();
        let served = each(&known, |(name, planned)| self.serve(name, planned));
        let (served, gone): (Vec<_>, Vec<_>) = served.into_iter().unzip();
        // Those that are gone make room for those that come.
        gone.into_iter().flatten().for_each(|name| self.withdraw(&name));
        for ((name, planned), served) in known.iter().zip(&served) {
            if planned.allocation.is_exposed() {
                self.exposed.insert(Arc::clone(name));
            }
            self.renamed.insert(Arc::clone(name));
            self.find_owners(planned, served);
        }
        let all: Vec<(Arc<str>, Arc<Planned>, Vec<Served>)> =
            known.into_iter().zip(served).map(|((name, planned), served)| (name, planned, served)).collect();
        let made = each(&all, |(_, planned, served)| {
            served.iter().map(|served| self.make(planned, served)).collect::<Vec<_>>()
        });
        for ((name, planned, mut served), made) in all.into_iter().zip(made) {
            for (served, made) in served.iter_mut().zip(made) {
                served.pools = made.pools;
                self.put(&served.name, made.services);
            }
            self.services.insert(name, Entry { planned, served });
        }
    }

    /// Says who announces the load balancer addresses of a Service.
    fn find_owners(&mut self, planned: &Planned, served: &[Served]) {
        for &address in &planned.allocation.load_balancer {
            let Some(pool) = self.pools.of(address) else { continue };
            let healthy = |node: &NodeFacts| {
                !planned.spec.external_local
                    || served.iter().any(|served| ways::healthy(&served.endpoints, &node.name) > 0)
            };
            let facts = || self.nodes.iter().map(|node| &node.facts);
            let on_link = |node: &NodeFacts| node.prefixes.iter().any(|net| net.contains(&address));
            let anywhere = !facts().any(on_link);
            let fit = facts().filter(|node| {
                (anywhere || on_link(node))
                    && Advertisement::admits(&self.advertisements, pool, &node.labels)
                    && healthy(node)
            });
            let owner = owner(address, fit.map(|node| &*node.name)).map(Arc::from);
            self.owners.insert(address, owner);
        }
    }

    /// Puts one port of a Service into every node's registry.
    fn put(&mut self, name: &Arc<str>, services: Vec<lb::Service>) {
        let mut conflict = None;
        for (node, service) in self.nodes.iter_mut().zip(services) {
            if service.entrances.is_empty() {
                node.changed |= node.registry.remove(name);
                continue;
            }
            if node.registry.get(name) == Some(&service) {
                continue;
            }
            match node.registry.set(service) {
                Ok(_) => node.changed = true,
                Err(error) => {
                    node.changed |= node.registry.remove(name);
                    conflict = Some(format!("{}: {error}", node.facts.name));
                }
            }
        }
        match conflict {
            Some(why) => self.conflicts.insert(Arc::clone(name), why),
            None => self.conflicts.remove(name),
        };
    }
}
