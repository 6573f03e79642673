//! The control plane: what the user wants, kept in the state directory, and the runtime that is made to follow.
//!
//! # Theory of operation
//! What is wanted is written down before it is done. So a process that is killed in the middle finds, when it is started
//! again, what it was about to do, and does it; and what was refused by the runtime is put back as it was. A change is
//! computed as far as it reaches: one that is of Services alone leaves the cluster as it stands.
//!
//! A change takes as long as containers have to end. It holds the one lock that keeps changes apart, and the others only
//! while it looks or writes: whoever asks what is there never waits for a change.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use manifest::{Invalid, Key, Manifests, Source, Strictness, load};
use netstack::driver::Stopped;
use parking_lot::Mutex;

use super::api::{ApplyView, ChangeView, LogView, ScaleRequest};
use super::balancing::Balancing;
pub use super::desired::Desired;
use super::desired::Keeper;
use super::names;
use super::published::Published;
use super::rollout::Rollout;
use super::workloads::Departures;
use crate::agent::Agents;
use crate::cluster::{Cluster, Place, Pod};
use crate::container::{PodSpec, PodStatus, Runner, log_path};
use crate::helper::{Helper, HelperOptions};
use crate::objects::{Allocations, Change, Changes, Compiled, Planning, Store, compile};
use crate::runtime::{Applied, Options, Runtime, RuntimeError};
use crate::service::Controller;
use crate::state::StatePaths;

/// Kinds of objects that say nothing of nodes, pods and what is between them.
const BESIDE_CLUSTER: [&str; 3] = ["EndpointSlice", "L2Advertisement", "Service"];

/// So many ports of Services that no proxy listens for are told by name.
const UNHEARD: usize = 5;

/// Why what was asked is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaneError {
    /// Manifests are wrong, or contradict what is there.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such object.
    #[error("{0} does not exist; `vswitch get deployments` lists those that do")]
    Unknown(Key),
    /// The runtime refused.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The state directory cannot be written.
    #[error("cannot keep what is wanted in the state directory: {0}")]
    State(#[from] io::Error),
}

fn warnings(manifests: &Manifests) -> Vec<String> {
    manifests.warnings.iter().map(ToString::to_string).collect()
}

/// What every cluster of this process has, whatever its manifests say.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its name, unless a Cluster object has one.
    pub name: String,
    /// Its MTU, in place of the manifests'.
    pub mtu: Option<u16>,
}

impl Frame {
    /// The cluster that follows from objects.
    ///
    /// # Errors
    /// Every fault of every object.
    pub fn compile(&self, store: &Store, before: &Allocations) -> Result<Compiled, Invalid> {
        let mut compiled = compile(store, before, &self.name)?;
        if let Some(mtu) = self.mtu {
            compiled.cluster.set_mtu(mtu);
        }
        Ok(compiled)
    }
}

/// Pods of which nothing is to be had without namespaces.
fn idle_guests(runtime: &Runtime) -> Option<String> {
    let cluster = runtime.cluster();
    let mut guests = cluster.pods.iter().filter(|pod| pod.host_network);
    let first = guests.next().filter(|_| !runtime.has_namespaces())?;
    let (name, more) = (first.place(), guests.count());
    let others = if more == 0 { String::new() } else { format!(" and {more} more") };
    Some(format!(
        "{name}{others}: hostNetwork is not supported on memory links, where nodes have no namespace: there is nothing of \
         the pod but its name"
    ))
}

/// The control plane of a running cluster.
#[derive(Debug)]
pub struct Plane {
    runtime: Arc<Runtime>,
    pub(super) state: StatePaths,
    frame: Frame,
    /// Held during a change, so that there is one at a time; whether the end has begun, after which there is none.
    changing: Mutex<bool>,
    desired: Mutex<Desired>,
    keeper: Mutex<Keeper>,
    pub(super) balancing: Arc<Balancing>,
    /// Runs the containers; in-process pods have none.
    pub(super) runner: Option<Arc<Runner>>,
    /// Follows the readiness of pods.
    follower: Mutex<Option<JoinHandle<()>>>,
    /// What it was told to run, by network namespace.
    pub(super) told: Mutex<BTreeMap<String, Arc<PodSpec>>>,
    /// Tells nodes' agents what listens there.
    pub(super) agents: Option<Agents>,
    pub(super) departures: Mutex<Vec<Arc<dyn Departures>>>,
    /// Held while what has changed of Services is handed out.
    publishing: Mutex<()>,
    /// Ports of this machine that the user has asked for.
    pub(super) published: Mutex<Published>,
    /// Whether the end has been asked for.
    pub(super) ending: AtomicBool,
    /// Whether nothing is to be remembered at the end.
    forgets: AtomicBool,
}

impl Plane {
    /// Starts the cluster that `desired` describes, with what an adopted helper has `kept`. Returns what is to be told to
    /// the user as well.
    ///
    /// # Errors
    /// What is wrong or was refused; nothing stands then.
    pub fn start(
        desired: Desired,
        frame: Frame,
        options: &Options,
        kept: Option<Helper>,
    ) -> Result<(Arc<Self>, Vec<String>), PlaneError> {
        let Compiled { cluster, allocations, mut warnings } =
            frame.compile(&desired.store, &desired.allocations)?;
        let planning = desired.plan.change(&desired.store, None, &cluster, &desired.allocations.services)?;
        warnings.extend(planning.warnings.iter().cloned());
        let (allocations, plan) = (Arc::new(allocations), planning.plan.clone());
        let desired = Desired { allocations, plan, ..desired };
        let keeper = Mutex::new(Keeper::begin(&options.state, &desired)?);
        let runtime = Arc::new(Runtime::start(cluster, options, kept)?);
        let helper = HelperOptions::new(options.state.clone());
        let runner = runtime.has_namespaces().then(|| Runner::start(&helper)).transpose();
        let runner = runner.inspect_err(|_| drop(runtime.stop())).map_err(RuntimeError::from)?;
        let runner = runner.map(Arc::new);
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        warnings.extend(idle_guests(&runtime));
        let agents = runner.is_some().then(|| Agents::start(&options.state)).transpose();
        let agents = agents.inspect_err(|_| drop(runtime.stop()))?;
        let balancing = Arc::new(Balancing::new(Arc::clone(&runtime), runner.clone()));
        let plane = Arc::new(Self {
            runtime,
            state: options.state.clone(),
            frame,
            changing: Mutex::default(),
            desired: Mutex::new(desired),
            keeper,
            balancing,
            runner,
            follower: Mutex::default(),
            told: Mutex::default(),
            agents,
            departures: Mutex::default(),
            publishing: Mutex::default(),
            published: Mutex::default(),
            ending: AtomicBool::new(false),
            forgets: AtomicBool::new(false),
        });
        plane.begin(&planning).inspect_err(|_| drop(plane.runtime.stop()))?;
        warnings.extend(plane.unheard_since(&BTreeMap::new()));
        Ok((plane, warnings))
    }

    /// Has the cluster that stands run what it is to run.
    fn begin(self: &Arc<Self>, planning: &Planning) -> Result<(), PlaneError> {
        self.balancing.plan(planning);
        self.end_stale();
        self.run_containers();
        self.balancing.cluster(&self.runtime.cluster());
        self.publish()?;
        self.announce();
        if let Some(runner) = &self.runner {
            let plane: Weak<Self> = Arc::downgrade(self);
            let looked = move || plane.upgrade().is_some_and(|plane| plane.follow());
            *self.follower.lock() = Some(self.balancing.follow(runner, looked)?);
        }
        Ok(())
    }

    /// Has everybody know of pods that have become ready or are so no more; whether there still is anybody to know.
    fn follow(&self) -> bool {
        // The data path has stopped.
        if self.publish().is_err() {
            return false;
        }
        // A change that is on its way has said who announces what as things were then: it will be done when that is over.
        if let Some(ended) = self.changing.try_lock()
            && self.balancing.has_moved()
            && !*ended
        {
            self.announce();
        }
        true
    }

    /// Asks what is known of Services.
    pub fn services<R>(&self, ask: impl FnOnce(&Controller) -> R) -> R {
        self.balancing.with(ask)
    }

    /// Has each load balancer address announced by the node that is to announce it. That it cannot be is told by the data
    /// path itself.
    fn announce(&self) -> Vec<String> {
        let now = self.runtime.cluster();
        let mut wanted = Cow::Borrowed(&*now);
        if !self.balancing.announce(&mut wanted) {
            return Vec::new();
        }
        match self.runtime.apply(wanted.into_owned(), |_| {}) {
            Ok(applied) => applied.problems,
            Err(error) => vec![error.to_string()],
        }
    }

    /// How the containers of all pods are, by network namespace. A pod is ready once Services lead there.
    pub fn statuses(&self) -> BTreeMap<String, PodStatus> {
        let statuses = self.runner.iter().flat_map(|runner| runner.statuses());
        let mut statuses: BTreeMap<String, PodStatus> =
            statuses.map(|status| (status.namespace.clone(), status)).collect();
        let cluster = self.runtime.cluster();
        for place in cluster.pods.iter().map(Pod::place) {
            if let Some(status) = statuses.get_mut(&place.netns(&cluster.name)) {
                status.ready &= self.balancing.is_known_ready(&place);
            }
        }
        statuses
    }

    /// The logs of a pod's containers, init containers first; `None` if it is no pod.
    pub fn logs(&self, place: &Place) -> Option<Vec<LogView>> {
        let cluster = self.runtime.cluster();
        if names::is_name_server(&cluster, place) {
            return Some(vec![names::log(&self.state)]);
        }
        let pod = cluster.pods.iter().find(|pod| pod.place() == *place)?;
        let workload = &pod.workload;
        let containers = workload.init_containers.iter().chain(&workload.containers);
        let view = |container: &crate::container::Container| LogView {
            container: container.name.clone(),
            path: log_path(&self.state, &workload.log_prefix, &container.name),
        };
        Some(containers.map(view).collect())
    }

    /// The running cluster.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// What is wanted now.
    pub fn desired(&self) -> Desired {
        self.desired.lock().clone()
    }

    /// Adds and changes objects.
    ///
    /// # Errors
    /// Every fault; nothing has changed then.
    pub fn apply(&self, sources: &[Source], strictness: Strictness) -> Result<ApplyView, PlaneError> {
        let manifests = load(sources, strictness)?;
        self.change(warnings(&manifests), |store| Ok(store.apply(manifests)))
    }

    /// Removes objects, by name.
    ///
    /// # Errors
    /// Every fault; nothing has changed then.
    pub fn delete(&self, sources: &[Source], strictness: Strictness) -> Result<ApplyView, PlaneError> {
        let manifests = load(sources, strictness)?;
        self.change(warnings(&manifests), |store| Ok(store.delete(&manifests)?))
    }

    /// Gives a Deployment another number of pods.
    ///
    /// # Errors
    /// When there is no such Deployment, and every fault; nothing has changed then.
    pub fn scale(&self, request: &ScaleRequest) -> Result<ApplyView, PlaneError> {
        let ScaleRequest { namespace, name, replicas } = request.clone();
        let key = Key { kind: "Deployment", namespace, name };
        self.change(Vec::new(), |store| store.scale(&key, replicas).ok_or(PlaneError::Unknown(key)))
    }

    fn change(
        &self,
        mut warnings: Vec<String>,
        change: impl FnOnce(&mut Store) -> Result<Changes, PlaneError>,
    ) -> Result<ApplyView, PlaneError> {
        let ended = self.changing.lock();
        if *ended {
            return Err(RuntimeError::Stopped(Stopped).into());
        }
        let before = self.desired();
        let mut next = before.clone();
        let changes = change(&mut next.store)?;
        let keys =
            changes.iter().filter(|(_, change)| *change != Change::Unchanged).map(|(key, _)| key.clone());
        let keys: Vec<Key> = keys.collect();
        let mut cluster = None;
        if keys.iter().any(|key| !BESIDE_CLUSTER.contains(&key.kind)) {
            let compiled = self.frame.compile(&next.store, &before.allocations)?;
            warnings.extend(compiled.warnings.iter().map(ToString::to_string));
            next.allocations = Arc::new(compiled.allocations);
            cluster = Some(compiled.cluster);
        }
        let stands = self.runtime.cluster();
        let around = cluster.as_ref().unwrap_or(&stands);
        let remembered = &before.allocations.services;
        let planning = before.plan.change(&next.store, Some(&keys), around, remembered)?;
        warnings.extend(planning.warnings.iter().map(ToString::to_string));
        next.plan = planning.plan.clone();
        let unheard = self.balancing.unheard();
        let mut rollout = cluster.map(|cluster| self.rollout(cluster));
        let wanted = rollout.as_ref().map(Rollout::cluster);
        let mut problems = self.become_as(&next, &before, &keys, &planning, wanted)?;
        // There may be thousands, and they are held against others only when they change.
        let beside = changes.iter().filter(|(key, _)| BESIDE_CLUSTER.contains(&key.kind));
        next.store.settle(&before.store, beside);
        *self.desired.lock() = next;
        self.turn_doors()?;
        if let Some(rollout) = &mut rollout {
            problems.extend(self.roll_out(rollout));
            problems.extend(self.announce());
            warnings.extend(idle_guests(&self.runtime));
        }
        problems.extend(self.unheard_since(&unheard));
        let changes = changes.into_iter();
        let changes = changes.map(|(key, change)| ChangeView { object: key.to_string(), change }).collect();
        Ok(ApplyView { changes, warnings, problems })
    }

    /// What proxies cannot listen for that they could, or had not to, before: the first few, and how many more.
    fn unheard_since(&self, before: &BTreeMap<Arc<str>, String>) -> Vec<String> {
        let mut new = self.balancing.unheard();
        new.retain(|name, _| !before.contains_key(name));
        let more = new.len().saturating_sub(UNHEARD);
        let told = new.iter().take(UNHEARD).map(|(name, why)| format!("{name}: {why}"));
        let rest = (more > 0).then(|| format!("the same holds for {more} more ports of Services"));
        told.chain(rest).collect()
    }

    /// Makes what stands follow. A cluster that stays as it is is none.
    fn become_as(
        &self,
        next: &Desired,
        before: &Desired,
        keys: &[Key],
        planning: &Planning,
        cluster: Option<Cluster>,
    ) -> Result<Vec<String>, PlaneError> {
        if keys.is_empty() && cluster.is_none() {
            return Ok(Vec::new());
        }
        self.keeper.lock().add(before, next, keys)?;
        let mut problems = Vec::new();
        // What a pod begins with is there before the pod is.
        self.balancing.link(&planning.services);
        if let Some(cluster) = cluster {
            let applied = self.step_to(cluster);
            if applied.is_err() {
                let were = planning
                    .services
                    .iter()
                    .map(|(name, _)| (Arc::clone(name), before.plan.services.get(&**name).cloned()));
                self.balancing.link(&were.collect::<Vec<_>>());
                self.keeper.lock().add(next, before, keys)?;
            }
            problems.extend(applied?.problems);
        }
        self.balancing.plan(planning);
        self.publish()?;
        problems.extend(self.announce());
        let changed: HashSet<&str> = planning.services.iter().map(|(name, _)| &**name).collect();
        problems.extend(self.balancing.with(|controller| {
            let of =
                |name: &str| name.rsplit_once(':').map(|(service, _)| service.to_owned()).unwrap_or_default();
            let mine = controller.conflicts().iter().filter(|(name, _)| changed.contains(of(name).as_str()));
            mine.map(|(name, why)| format!("{name}: {why}")).collect::<Vec<String>>()
        }));
        Ok(problems)
    }

    /// Makes what runs a cluster on the way to what is wanted.
    pub(super) fn step_to(&self, cluster: Cluster) -> Result<Applied, RuntimeError> {
        let name = cluster.name.clone();
        let mut cluster = Cow::Owned(cluster);
        self.balancing.announce(&mut cluster);
        let applied = self.runtime.apply(cluster.into_owned(), |leaving| self.farewell(&name, leaving));
        self.run_containers();
        // Also when it was refused: pods that were about to go are back.
        self.balancing.cluster(&self.runtime.cluster());
        self.publish()?;
        applied
    }

    /// Hands what has changed of Services to switches, proxies and agents.
    pub(super) fn publish(&self) -> Result<(), RuntimeError> {
        // What was found out earlier must not come later.
        let _one_at_a_time = self.publishing.lock();
        self.balancing.publish()?;
        self.attend(self.balancing.duties());
        self.move_doors()
    }

    /// Has [`Self::stop`] leave nothing behind.
    pub fn forget(&self) {
        self.forgets.store(true, Ordering::Relaxed);
    }

    /// Ends the cluster; returns what could not be removed, in sentences. What was given out is remembered, unless it is to
    /// be forgotten; objects are not: whoever starts a cluster again says which.
    pub fn stop(&self) -> Vec<String> {
        self.ending.store(true, Ordering::Relaxed);
        self.balancing.end();
        self.end_containers();
        let mut problems = self.runtime.stop();
        // A change that waited for containers to end waits no longer: they have. It writes once more what was wanted
        // before it.
        *self.changing.lock() = true;
        let kept = if self.forgets.load(Ordering::Relaxed) {
            Desired::remove(&self.state)
        } else {
            let mut desired = self.desired.lock();
            desired.store = Store::default();
            Keeper::end(&self.state, &desired)
        };
        if let Some(agents) = &self.agents {
            agents.close();
        }
        if let Some(follower) = self.follower.lock().take() {
            // A panic has been reported where it happened.
            let _ = follower.join();
        }
        if let Err(error) = kept {
            problems.push(format!("{}: {error}", self.state.desired().display()));
        }
        problems
    }
}
