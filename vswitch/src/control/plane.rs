//! The control plane: what the user wants, kept in the state directory, and the runtime that is made to follow.
//!
//! # Theory of operation
//! What is wanted is written down before it is done. So a process that is killed in the middle finds, when it is started
//! again, what it was about to do, and does it; and what was refused by the runtime is put back as it was. Objects and
//! what was given out for them stand in one file, which is replaced as a whole: they never disagree.
//!
//! A change takes as long as containers have to end. It holds the one lock that keeps changes apart, and the others only
//! while it looks or writes: whoever asks what is there never waits for a change.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use manifest::{Invalid, Key, Manifests, Source, Strictness, load};
use netstack::driver::Stopped;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::api::{ApplyView, ChangeView, LogView, ScaleRequest};
use super::workloads::Departures;
use crate::agent::Agents;
use crate::cluster::{Cluster, Place};
use crate::container::{PodSpec, PodStatus, Runner, log_path};
use crate::helper::{Helper, HelperOptions};
use crate::objects::{Allocations, Changes, Compiled, Store, compile};
use crate::runtime::{Applied, Options, Runtime, RuntimeError};
use crate::state::{StatePaths, write_atomically};

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

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Objects.
    pub store: Store,
    /// What was given out for them.
    pub allocations: Allocations,
}

/// The file in the state directory: a manifest, with what was given out beside its objects.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(flatten)]
    list: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    allocations: Allocations,
}

impl Desired {
    /// What an earlier process wanted; nothing if there was none.
    ///
    /// # Errors
    /// When the file cannot be read, or is not as it was written.
    pub fn read(state: &StatePaths) -> Result<Self, PlaneError> {
        let text = match std::fs::read_to_string(state.desired()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let file: File = serde_json::from_str(&text).map_err(io::Error::from)?;
        Ok(Self { store: Store::from_manifest(text)?, allocations: file.allocations })
    }

    /// Removes all that is kept of a cluster in the state directory, the logs of its containers included.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(state: &StatePaths) -> io::Result<()> {
        let unless_missing = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        unless_missing(std::fs::remove_file(state.desired()))?;
        unless_missing(std::fs::remove_dir_all(state.logs()))
    }

    fn write(&self, state: &StatePaths) -> io::Result<()> {
        let list = self.store.to_manifest()?;
        let file = File { list, allocations: self.allocations.clone() };
        write_atomically(&state.desired(), &serde_json::to_vec_pretty(&file)?)
    }
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

/// The control plane of a running cluster.
#[derive(Debug)]
pub struct Plane {
    runtime: Arc<Runtime>,
    pub(super) state: StatePaths,
    frame: Frame,
    /// Held during a change, so that there is one at a time; whether the end has begun, after which there is none.
    changing: Mutex<bool>,
    desired: Mutex<Desired>,
    /// Runs the containers; in-process pods have none.
    pub(super) runner: Option<Runner>,
    /// What it was told to run, by network namespace.
    pub(super) told: Mutex<BTreeMap<String, Arc<PodSpec>>>,
    /// Tells nodes' agents what listens there.
    pub(super) agents: Option<Agents>,
    pub(super) departures: Mutex<Option<Arc<dyn Departures>>>,
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
    ) -> Result<(Self, Vec<String>), PlaneError> {
        let Compiled { cluster, allocations, warnings } =
            frame.compile(&desired.store, &desired.allocations)?;
        let desired = Desired { allocations, ..desired };
        desired.write(&options.state)?;
        let runtime = Arc::new(Runtime::start(cluster, options, kept)?);
        let helper = HelperOptions::new(options.state.clone());
        let runner = runtime.has_namespaces().then(|| Runner::start(&helper)).transpose();
        let runner = runner.inspect_err(|_| drop(runtime.stop())).map_err(RuntimeError::from)?;
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        warnings.extend(idle_guests(&runtime));
        let state = options.state.clone();
        let (desired, changing, told) = (Mutex::new(desired), Mutex::default(), Mutex::default());
        let agents = runner.is_some().then(|| Agents::start(&options.state)).transpose();
        let agents = agents.inspect_err(|_| drop(runtime.stop()))?;
        let (forgets, ending) = (AtomicBool::new(false), AtomicBool::new(false));
        let departures = Mutex::default();
        let plane = Self {
            runtime,
            state,
            frame,
            changing,
            desired,
            runner,
            told,
            agents,
            departures,
            ending,
            forgets,
        };
        plane.end_stale();
        plane.run_containers();
        Ok((plane, warnings))
    }

    /// How the containers of all pods are, by network namespace.
    pub fn statuses(&self) -> BTreeMap<String, PodStatus> {
        let statuses = self.runner.iter().flat_map(Runner::statuses);
        statuses.map(|status| (status.namespace.clone(), status)).collect()
    }

    /// The logs of a pod's containers, init containers first; `None` if it is no pod.
    pub fn logs(&self, place: &Place) -> Option<Vec<LogView>> {
        let cluster = self.runtime.cluster();
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
        let mut store = before.store.clone();
        let changes = change(&mut store)?;
        let compiled = self.frame.compile(&store, &before.allocations)?;
        warnings.extend(compiled.warnings.iter().map(ToString::to_string));
        let next = Desired { store, allocations: compiled.allocations };
        let mut rollout = self.rollout(compiled.cluster);
        let mut problems = self.become_as(&next, &before, rollout.cluster())?.problems;
        *self.desired.lock() = next;
        problems.extend(self.roll_out(&mut rollout));
        warnings.extend(idle_guests(&self.runtime));
        let changes = changes.into_iter();
        let changes = changes.map(|(key, change)| ChangeView { object: key.to_string(), change }).collect();
        Ok(ApplyView { changes, warnings, problems })
    }

    /// Makes what runs a cluster on the way to what is wanted.
    pub(super) fn step_to(&self, cluster: Cluster) -> Result<Applied, RuntimeError> {
        let name = cluster.name.clone();
        let applied = self.runtime.apply(cluster, |leaving| self.farewell(&name, leaving));
        self.run_containers();
        applied
    }

    fn become_as(&self, next: &Desired, before: &Desired, cluster: Cluster) -> Result<Applied, PlaneError> {
        next.write(&self.state)?;
        let applied = self.step_to(cluster);
        if applied.is_err() {
            before.write(&self.state)?;
        }
        Ok(applied?)
    }

    /// Has [`Self::stop`] leave nothing behind.
    pub fn forget(&self) {
        self.forgets.store(true, Ordering::Relaxed);
    }

    /// Ends the cluster; returns what could not be removed, in sentences. What was given out is remembered, unless it is to
    /// be forgotten; objects are not: whoever starts a cluster again says which.
    pub fn stop(&self) -> Vec<String> {
        self.ending.store(true, Ordering::Relaxed);
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
            desired.write(&self.state)
        };
        if let Err(error) = kept {
            problems.push(format!("{}: {error}", self.state.desired().display()));
        }
        problems
    }
}
