//! Keeping what switches balance in step with objects and pods.
//!
//! # Theory of operation
//! The controller is told of objects by whoever changes them and of readiness by a thread of its own, which waits for
//! containers to change. Whoever tells it something then publishes: only registries that have changed go to the data path.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use lb::Registry;
use parking_lot::Mutex;

use super::workloads::Departures;
use crate::cluster::{Cluster, Place, Pod, Protocol};
use crate::container::{Phase, PodStatus, Runner};
use crate::objects::{Plan, Planning};
use crate::runtime::{Runtime, RuntimeError};
use crate::service::{Controller, Detour, NodeFacts, PodFacts, PodPort};

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
    /// Whether pods that end have changed something since the thread of [`Self::follow`] has looked.
    departed: AtomicBool,
    ended: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    controller: Controller,
    /// Ready, and ended for good. Without containers every pod is ready.
    said: Option<Said>,
    /// What nodes with a userspace proxy balance instead, and the addresses of those proxies.
    detours: BTreeMap<Arc<str>, (Vec<IpAddr>, Detour)>,
    /// Nodes that have got a proxy, or lost it, since the last time.
    turned: BTreeSet<Arc<str>>,
}

impl Balancing {
    /// Of a cluster whose pods run containers, or have none.
    pub(super) fn new(runtime: Arc<Runtime>, runner: Option<Arc<Runner>>) -> Self {
        let controller = Controller::new(runtime.balancing_key());
        let said = runner.is_some().then(Said::new);
        let inner = Inner { controller, said, detours: BTreeMap::new(), turned: BTreeSet::new() };
        Self {
            runtime,
            runner,
            inner: Mutex::new(inner),
            departed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Asks the controller.
    pub(super) fn with<R>(&self, ask: impl FnOnce(&Controller) -> R) -> R {
        ask(&self.inner.lock().controller)
    }

    /// Takes in what has changed of Services.
    pub(super) fn plan(&self, planning: &Planning) {
        let mut inner = self.inner.lock();
        let Plan { frame, pools, advertisements, .. } = &planning.plan;
        let controller = &mut inner.controller;
        controller.set_frame(frame.masquerade_all, Arc::clone(pools), Arc::clone(advertisements));
        for (name, slice) in &planning.slices {
            controller.set_slice(name, slice.clone());
        }
        for (name, planned) in &planning.services {
            controller.set_service(name, planned.clone());
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
            inner.controller.set_pod(&name, Some(facts));
        }
        for name in left.into_keys() {
            inner.controller.set_pod(&name, None);
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
    fn observe(&self) {
        let cluster = self.runtime.cluster();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        self.listen(inner);
        let Some(said) = &inner.said else { return };
        for pod in &cluster.pods {
            let place = pod.place();
            let name: Arc<str> = place.to_string().into();
            let Some(known) = inner.controller.pod(&name) else { continue };
            let (ready, ended) = said.get(&place.netns(&cluster.name)).copied().unwrap_or_default();
            if (known.ready, known.ended) != (ready, ended) {
                let facts = PodFacts { ready, ended, ..known.clone() };
                inner.controller.set_pod(&name, Some(facts));
            }
        }
    }

    fn each_pod(&self, places: &[Place], change: impl Fn(PodFacts) -> Option<PodFacts>) {
        let mut inner = self.inner.lock();
        for place in places {
            let name: Arc<str> = place.to_string().into();
            if let Some(facts) = inner.controller.pod(&name).cloned() {
                inner.controller.set_pod(&name, change(facts));
            }
        }
    }

    /// Hands what has changed to the switches; whether anything has.
    ///
    /// # Errors
    /// What a switch refuses.
    pub(super) fn publish(&self) -> Result<bool, RuntimeError> {
        // Held until they have it, or an older registry could come after a newer one.
        let mut inner = self.inner.lock();
        let changed = inner.publish();
        for (node, registry) in changed.proxies {
            self.runtime.set_proxied(&node, registry)?;
        }
        let any = !changed.switches.is_empty();
        self.runtime.balance(changed.switches)?;
        Ok(any)
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

    /// Follows the readiness of pods on a thread of its own. `changed` is called after something has, and called again later
    /// as long as it says that it could not do all there is to do.
    pub(super) fn follow(
        self: &Arc<Self>,
        runner: &Arc<Runner>,
        changed: impl Fn() -> bool + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let (balancing, runner) = (Arc::clone(self), Arc::clone(runner));
        let follow = move || {
            let (mut version, mut behind) = (0, false);
            while !balancing.ended.load(Ordering::Relaxed) && runner.ended().is_none() {
                version = runner.wait_change(version, PATIENCE);
                balancing.observe();
                match balancing.publish() {
                    Ok(any) => {
                        let news = any | balancing.departed.swap(false, Ordering::Relaxed);
                        behind = (news || behind) && !changed();
                    }
                    // The data path has stopped: so will this thread.
                    Err(_) => break,
                }
            }
        };
        std::thread::Builder::new().name("readiness".to_owned()).spawn(follow)
    }

    /// Publishes that pods end, and leaves the rest to the thread of [`Self::follow`]: whoever ends them waits for them.
    fn depart(&self) {
        // A data path that has stopped is told of by what comes next.
        if let Ok(true) = self.publish() {
            self.departed.store(true, Ordering::Relaxed);
        }
    }

    /// Has the thread of [`Self::follow`] end.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Departures for Balancing {
    /// They get no new connections from now on, unless there is nobody else. Who has become ready is somebody else, even if
    /// that has not been noticed yet.
    fn leaving(&self, pods: &[Place]) {
        self.observe();
        self.each_pod(pods, |facts| Some(PodFacts { terminating: true, ..facts }));
        self.depart();
    }

    fn gone(&self, pods: &[Place]) {
        self.each_pod(pods, |_| None);
        self.depart();
    }
}

/// What has changed since the last time, by node.
struct Changed {
    switches: Vec<(Arc<str>, Registry)>,
    /// To be taken up first: the switches send clients there.
    proxies: Vec<(Arc<str>, Registry)>,
}

impl Inner {
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
    PodFacts {
        namespace: pod.namespace.clone(),
        labels: pod.labels.clone(),
        addresses: node.map_or(&pod.addresses, |node| &node.addresses).clone(),
        node: pod.node.as_str().into(),
        ports: named.collect(),
        weight: pod.weight,
        ready,
        terminating: false,
        ended,
    }
}
