//! Keeping what switches balance in step with objects and pods.
//!
//! # Theory of operation
//! The controller is told of objects by whoever changes them and of readiness by a thread of its own, which waits for
//! containers to change. Whoever tells it something then publishes: only registries that have changed go to the data path.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dns::Zone;
use lb::Registry;
use netstack::host::BindError;
use parking_lot::Mutex;

use super::naming::Naming;
use crate::agent::NodeDuties;
use crate::cluster::{Cluster, Place, Pod, Protocol};
use crate::container::{Phase, PodStatus, Runner};
use crate::names::{Sources, variables};
use crate::objects::{Plan, Planning};
use crate::runtime::{Runtime, RuntimeError};
use crate::service::{Controller, Detour, NodeFacts, Planned, PodFacts, PodPort, duties};

/// The label with a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// How long the thread waits for containers to change before it looks whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(500);

/// What pods say of themselves, by network namespace.
type Said = HashMap<String, (bool, bool)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Balancing {
    runtime: Arc<Runtime>,
    /// Knows how containers are; in-process pods have none.
    runner: Option<Arc<Runner>>,
    inner: Mutex<Inner>,
    /// Pods of which everybody knows that they are ready.
    ready: Mutex<HashSet<Arc<str>>>,
    /// Whether something has changed since somebody asked [`Self::has_moved`].
    moved: AtomicBool,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    controller: Controller,
    /// Ready, and ended for good. Without containers every pod is ready.
    said: Option<Said>,
    /// Pods that were looked at since the last time, and whether they are ready.
    looked: HashMap<Arc<str>, bool>,
    /// What nodes with a userspace proxy balance instead, and the addresses of those proxies.
    detours: BTreeMap<Arc<str>, (Vec<IpAddr>, Detour)>,
    /// Nodes that have got a proxy, or lost it, since the last time.
    turned: BTreeSet<Arc<str>>,
    naming: Naming,
    /// Pods whose names have to be told, and whether those of everybody have.
    named: BTreeSet<Arc<str>>,
    all_named: bool,
    /// Ports of Services that the proxy of a node cannot listen for, and why.
    unheard: BTreeMap<Arc<str>, Vec<(Arc<str>, BindError)>>,
}

impl Balancing {
    /// Of a cluster whose pods run containers, or have none.
    pub(super) fn new(runtime: Arc<Runtime>, runner: Option<Arc<Runner>>) -> Self {
        let controller = Controller::new(runtime.balancing_key());
        let said = runner.is_some().then(Said::new);
        let inner = Inner {
            controller,
            said,
            looked: HashMap::new(),
            detours: BTreeMap::new(),
            turned: BTreeSet::new(),
            naming: Naming::default(),
            named: BTreeSet::new(),
            all_named: false,
            unheard: BTreeMap::new(),
        };
        Self {
            runtime,
            runner,
            inner: Mutex::new(inner),
            ready: Mutex::default(),
            moved: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Asks the controller.
    pub(super) fn with<R>(&self, ask: impl FnOnce(&Controller) -> R) -> R {
        ask(&self.inner.lock().controller)
    }

    /// Asks what names stand for.
    pub(super) fn zone(&self) -> Option<Zone> {
        self.inner.lock().naming.zone().cloned()
    }

    /// Takes in what has changed of Services.
    pub(super) fn plan(&self, planning: &Planning) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let Plan { frame, pools, advertisements, .. } = &planning.plan;
        if inner.naming.frame(&frame.names) {
            inner.all_named = true;
            self.runtime.ask_others(Sources::of(&frame.names));
        }
        let controller = &mut inner.controller;
        controller.set_frame(frame.masquerade_all, Arc::clone(pools), Arc::clone(advertisements));
        for (name, slice) in &planning.slices {
            controller.set_slice(name, slice.clone());
        }
        self.link(&planning.services);
        for (name, planned) in &planning.services {
            controller.set_service(name, planned.clone());
        }
    }

    /// Has containers that are started from now on find Services in their environment.
    pub(super) fn link(&self, services: &[(Arc<str>, Option<Arc<Planned>>)]) {
        let Some(runner) = &self.runner else { return };
        for (full_name, planned) in services {
            let Some((namespace, name)) = full_name.split_once('/') else { continue };
            let variables = planned.as_deref().map(variables).unwrap_or_default();
            runner.link(namespace, name, variables);
        }
    }

    /// Takes in all nodes and pods.
    pub(super) fn cluster(&self, cluster: &Cluster) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        self.listen(inner);
        inner.controller.set_nodes(nodes(cluster));
        inner.turn(cluster);
        let mut left: BTreeMap<Arc<str>, ()> =
            inner.controller.pod_names().into_iter().map(|name| (name, ())).collect();
        for pod in &cluster.pods {
            let name: Arc<str> = pod.place().to_string().into();
            left.remove(&name);
            let facts = facts(cluster, pod, inner.said.as_ref());
            inner.set_pod(&name, Some(facts));
        }
        for name in left.into_keys() {
            inner.set_pod(&name, None);
        }
    }

    /// Has containers say how they are. That is asked for here, with the lock held: what was known before would come after
    /// what is known now.
    fn listen(&self, inner: &mut Inner) {
        let (Some(said), Some(runner)) = (&mut inner.said, &self.runner) else { return };
        let statuses = runner.statuses().into_iter();
        *said = statuses.map(|s| (s.namespace.clone(), (serves(&s), has_ended(&s)))).collect();
    }

    /// Takes in how containers are.
    pub(super) fn observe(&self) {
        let cluster = self.runtime.cluster();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        self.listen(inner);
        let Some(said) = inner.said.take() else { return };
        for pod in &cluster.pods {
            let place = pod.place();
            let name: Arc<str> = place.to_string().into();
            let Some(known) = inner.controller.pod(&name) else { continue };
            let (ready, ended) = said.get(&place.netns(&cluster.name)).copied().unwrap_or_default();
            if (known.ready, known.ended) != (ready, ended) {
                let facts = PodFacts { ready, ended, ..known.clone() };
                inner.set_pod(&name, Some(facts));
            }
        }
        inner.said = Some(said);
    }

    /// Takes in that pods are about to go: they get no new connections, unless there is nobody else. Who has become ready is
    /// somebody else, even if that has not been noticed yet.
    pub(super) fn leave(&self, pods: &[Place]) {
        self.observe();
        self.each_pod(pods, |facts| Some(PodFacts { terminating: true, ..facts }));
    }

    /// Takes in that they are gone.
    pub(super) fn forget(&self, pods: &[Place]) {
        self.each_pod(pods, |_| None);
    }

    fn each_pod(&self, places: &[Place], change: impl Fn(PodFacts) -> Option<PodFacts>) {
        let mut inner = self.inner.lock();
        for place in places {
            let name: Arc<str> = place.to_string().into();
            if let Some(facts) = inner.controller.pod(&name).cloned() {
                inner.set_pod(&name, change(facts));
            }
        }
    }

    /// Hands what has changed to the switches.
    ///
    /// # Errors
    /// What a switch refuses.
    pub(super) fn publish(&self) -> Result<(), RuntimeError> {
        // Held until they have it, or an older registry could come after a newer one.
        let mut inner = self.inner.lock();
        let changed = inner.publish();
        for (node, registry) in changed.proxies {
            let unheard = self.runtime.set_proxied(&node, registry)?;
            if let [(name, error), more @ ..] = &unheard[..]
                && inner.unheard.get(&node) != Some(&unheard)
            {
                let name = Detour::service_of(name);
                let others = match more.len() {
                    0 => String::new(),
                    1 => "; nor for another port".to_owned(),
                    more => format!("; nor for {more} other ports"),
                };
                self.runtime
                    .tell(&node, format!("the service proxy cannot listen for {name}: {error}{others}"));
            }
            inner.unheard.insert(node, unheard);
        }
        if !changed.switches.is_empty() {
            self.moved.store(true, Ordering::Relaxed);
        }
        self.runtime.balance(changed.switches)?;
        if let Some(zone) = inner.rename() {
            self.runtime.set_zone(&zone)?;
        }
        let mut ready = self.ready.lock();
        for (name, is_ready) in inner.looked.drain() {
            match is_ready {
                true => ready.insert(name),
                false => ready.remove(&name),
            };
        }
        Ok(())
    }

    /// Whether everybody knows that a pod is ready.
    pub(super) fn is_known_ready(&self, place: &Place) -> bool {
        self.ready.lock().contains(place.to_string().as_str())
    }

    /// Whether something has changed since this was asked last: another node may have to announce an address.
    pub(super) fn has_moved(&self) -> bool {
        self.moved.swap(false, Ordering::Relaxed)
    }

    /// What has changed for agents since this was asked last, by node.
    pub(super) fn duties(&self) -> BTreeMap<Arc<str>, Vec<(Arc<str>, NodeDuties)>> {
        duties(&mut self.inner.lock().controller)
    }

    /// Ports of Services that the proxy of a node cannot listen for; and why, in a sentence that begins with the node.
    pub(super) fn unheard(&self) -> BTreeMap<Arc<str>, String> {
        let inner = self.inner.lock();
        let of_node = |(node, unheard): (&Arc<str>, &Vec<(Arc<str>, BindError)>)| {
            let node = Arc::clone(node);
            let sentence = move |(name, error): &(Arc<str>, BindError)| {
                let why = format!("{node}: its service proxy cannot listen for it: {error}");
                (Detour::service_of(name).into(), why)
            };
            unheard.iter().map(sentence).collect::<Vec<_>>()
        };
        inner.unheard.iter().flat_map(of_node).collect()
    }

    /// Has each node of a cluster announce what [`Self::publish`] has found to be its own; whether that is a change.
    pub(super) fn announce(&self, cluster: &mut Cow<'_, Cluster>) -> bool {
        let inner = self.inner.lock();
        let owned = |name: &str| -> Vec<IpAddr> {
            let owners = inner.controller.owners().iter();
            owners.filter(|(_, owner)| owner.as_deref() == Some(name)).map(|(address, _)| *address).collect()
        };
        if cluster.nodes.iter().all(|node| node.announces == owned(&node.name)) {
            return false;
        }
        for node in &mut cluster.to_mut().nodes {
            node.announces = owned(&node.name);
        }
        true
    }

    /// Follows the readiness of pods on a thread of its own. `looked` is called each time, and says whether to go on.
    pub(super) fn follow(
        self: &Arc<Self>,
        runner: &Arc<Runner>,
        looked: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let (balancing, runner) = (Arc::clone(self), Arc::clone(runner));
        let follow = move || {
            let mut version = 0;
            while !balancing.ended.load(Ordering::Relaxed) && runner.ended().is_none() {
                version = runner.wait_change(version, PATIENCE);
                balancing.observe();
                if !looked() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("readiness".to_owned()).spawn(follow)
    }

    /// Has the thread of [`Self::follow`] end.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// What has changed since the last time, by node.
struct Changed {
    switches: Vec<(Arc<str>, Registry)>,
    /// To be taken up first: the switches send clients there.
    proxies: Vec<(Arc<str>, Registry)>,
}

impl Inner {
    fn set_pod(&mut self, name: &Arc<str>, pod: Option<PodFacts>) {
        self.looked.insert(Arc::clone(name), pod.as_ref().is_some_and(|pod| pod.ready));
        self.named.insert(Arc::clone(name));
        self.controller.set_pod(name, pod);
    }

    /// Makes the names of what has changed; the zone, if that is another now.
    fn rename(&mut self) -> Option<Zone> {
        let (mut services, mut pods) = (self.controller.take_renamed(), std::mem::take(&mut self.named));
        if std::mem::take(&mut self.all_named) {
            services.extend(self.controller.service_names().cloned());
            pods.extend(self.controller.pod_names());
        }
        for name in services {
            self.naming.service(&self.controller, &name);
        }
        for name in pods {
            self.naming.pod(&name, self.controller.pod(&name));
        }
        self.naming.take()
    }

    /// Takes in which nodes have a proxy.
    fn turn(&mut self, cluster: &Cluster) {
        let mut before = std::mem::take(&mut self.detours);
        for node in cluster.nodes.iter().filter(|node| !node.proxy.is_empty()) {
            let (name, detour) = before.remove_entry(node.name.as_str()).unwrap_or_else(|| {
                let name: Arc<str> = node.name.as_str().into();
                self.turned.insert(Arc::clone(&name));
                (name, (Vec::new(), Detour::default()))
            });
            if detour.0 != node.proxy {
                self.turned.insert(Arc::clone(&name));
            }
            self.detours.insert(name, (node.proxy.clone(), detour.1));
        }
        self.unheard.retain(|node, _| self.detours.contains_key(node));
        self.turned.extend(before.into_keys());
    }

    fn publish(&mut self) -> Changed {
        let mut changed: BTreeMap<Arc<str>, Registry> = self.controller.publish().into_iter().collect();
        let turned = std::mem::take(&mut self.turned);
        let all = self.controller.registries().filter(|(name, _)| turned.contains(*name));
        changed.extend(all.map(|(name, registry)| (Arc::clone(name), registry.clone())));
        let (mut switches, mut proxies) = (Vec::new(), Vec::new());
        for (node, registry) in changed {
            match self.detours.get_mut(&node) {
                Some((addresses, detour)) => {
                    detour.replace(&registry, addresses);
                    proxies.push((Arc::clone(&node), detour.proxy().clone()));
                    switches.push((node, detour.switch().clone()));
                }
                None => switches.push((node, registry)),
            }
        }
        Changed { switches, proxies }
    }
}

/// Whether it answers, also while it is about to go: then it is not ready by definition.
fn serves(status: &PodStatus) -> bool {
    status.ready || (status.terminating && status.serving)
}

fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase, Phase::Succeeded | Phase::Failed)
}

fn nodes(cluster: &Cluster) -> Vec<NodeFacts> {
    let segment = |name: &str| cluster.segments.iter().find(|segment| segment.name == name);
    let facts = |node: &crate::cluster::Node| NodeFacts {
        name: node.name.as_str().into(),
        zone: node.labels.get(ZONE).map(|zone| zone.as_str().into()),
        labels: node.labels.clone(),
        addresses: node.addresses.clone(),
        gateways: node.gateways.iter().map(ipnet::IpNet::addr).collect(),
        prefixes: segment(&node.segment)
            .into_iter()
            .flat_map(|s| &s.gateways)
            .map(ipnet::IpNet::trunc)
            .collect(),
    };
    cluster.nodes.iter().map(facts).collect()
}

fn facts(cluster: &Cluster, pod: &Pod, said: Option<&Said>) -> PodFacts {
    let of_pod = |said: &Said| said.get(&pod.place().netns(&cluster.name)).copied().unwrap_or_default();
    let (ready, ended) = said.map_or((true, false), of_pod);
    let on_host = pod.spec.host_network == Some(true);
    let node = cluster.nodes.iter().find(|node| node.name == pod.node && on_host);
    let ports = pod.spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        Some(PodPort {
            name: port.name.clone()?,
            protocol: Protocol::by_name(port.protocol.as_deref().unwrap_or("TCP"))?,
            port: u16::try_from(port.container_port).ok()?,
        })
    });
    let shared = |(name, of): (&str, &str)| (name.into(), of.into());
    PodFacts {
        namespace: pod.namespace.clone(),
        labels: pod.labels.clone(),
        addresses: node.map_or(&pod.addresses, |node| &node.addresses).clone(),
        node: pod.node.as_str().into(),
        hostname: pod.spec.hostname.as_deref().zip(pod.spec.subdomain.as_deref()).map(shared),
        ports: named.collect(),
        weight: pod.weight,
        ready,
        terminating: false,
        ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, Strictness};
    use crate::objects::{Allocations, Store, compile};
    use crate::runtime::{Mode, Options};
    use crate::state::StatePaths;

    #[test]
    fn a_pod_is_known_to_be_ready_once_switches_know_it() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: none}]}\n";
        let (store, _) =
            Store::read(&[Source { name: "x".into(), text: text.into() }], Strictness::Strict).unwrap();
        let cluster = compile(&store, &Allocations::default(), "lab").unwrap().cluster;
        let directory = std::env::temp_dir().join(format!("vswitch-balancing-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let options = Options {
            mode: Mode::Memory,
            offload: false,
            plain: Vec::new(),
            state: StatePaths::new(&directory),
            grace: Duration::ZERO,
            latency: netstack::driver::Latency::default(),
            threads: std::num::NonZeroUsize::MIN,
            confined: true,
        };
        let runtime = Arc::new(Runtime::start(cluster, &options, None).unwrap());
        let (balancing, cluster) = (Balancing::new(Arc::clone(&runtime), None), runtime.cluster());
        let place = cluster.pods[0].place();
        balancing.cluster(&cluster);
        assert!(!balancing.is_known_ready(&place));
        balancing.publish().unwrap();
        assert!(balancing.is_known_ready(&place));
        balancing.forget(std::slice::from_ref(&place));
        balancing.publish().unwrap();
        assert!(!balancing.is_known_ready(&place));
        assert_eq!(runtime.stop(), [""; 0]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
