//! What runs in pods and nodes: that it is what is wanted, and how it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::plane::Plane;
use crate::agent::NodeDuties;
use crate::cluster::{Cluster, Place, Pod};
use crate::container::{PodSpec, Runner, log_path};
use crate::helper::{Containers, RunState};

/// How long containers have to end when the whole cluster does.
const LAST_GRACE: Duration = Duration::from_secs(3);
/// How much longer their end is waited for than they are given: what a hook that took all of the time leaves, and more.
const GRACE_SLACK: Duration = Duration::from_secs(3);

/// Whoever wants to know that pods end.
pub trait Departures: std::fmt::Debug + Send + Sync {
    /// What runs in these pods will be told to end when this returns. Until it has ended it goes on to serve, as far as
    /// [`PodStatus::serving`](crate::container::PodStatus::serving) says. A pod may come back: what runs in it is replaced then.
    fn leaving(&self, pods: &[Place]);

    /// It has ended, or has had all the time it may take.
    fn gone(&self, pods: &[Place]);
}

impl Plane {
    /// Has `departures` be told of pods that end, once nobody is sent there any more.
    pub fn watch_departures(&self, departures: Arc<dyn Departures>) {
        self.departures.lock().push(departures);
    }

    /// Has agents listen as Services need it now. Each is started when there is something for it to do. Without namespaces
    /// nothing listens, and this does nothing.
    pub(super) fn attend(&self, changes: BTreeMap<Arc<str>, Vec<(Arc<str>, NodeDuties)>>) {
        let Some(agents) = self.agents.as_ref().filter(|_| !changes.is_empty()) else { return };
        agents.retain(|node| changes.contains_key(node));
        let mut begins = false;
        for (node, changes) in changes {
            let is_wanted = agents.is_wanted(&node);
            if is_wanted || changes.iter().any(|(_, duties)| *duties != NodeDuties::default()) {
                agents.set(&node, changes);
                begins |= !is_wanted;
            }
        }
        if begins {
            self.run_agents(&self.runtime().cluster());
        }
    }

    fn run_agents(&self, cluster: &Cluster) {
        let (Some(agents), Some(runner)) = (&self.agents, &self.runner) else { return };
        for node in cluster.nodes.iter().filter(|node| agents.is_wanted(&node.name)) {
            self.run(runner, &Arc::new(agents.workload(&cluster.name, &node.name)));
        }
    }

    /// Ends what an earlier vswitch has left running that is not what is wanted: it was killed in the middle of a change.
    pub(super) fn end_stale(&self) {
        let Some(runner) = &self.runner else { return };
        let Ok(Some(mut helper)) = Containers::connect(&self.state) else { return };
        let running = helper.list().unwrap_or_default().into_iter();
        let running = running.filter(|container| container.state == RunState::Running);
        let running: BTreeMap<(String, String), String> =
            running.map(|container| ((container.namespace, container.name), container.made_of)).collect();
        let is_stale = |workload: &PodSpec| {
            workload.init_containers.iter().chain(&workload.containers).any(|container| {
                let log = log_path(&self.state, &workload.log_prefix, &container.name);
                let known = running.get(&(workload.namespace.clone(), container.name.clone()));
                known.is_some_and(|known| container.made_of(log).as_ref() != Some(known))
            })
        };
        let cluster = self.runtime().cluster();
        let stale: Vec<&Pod> = cluster.pods.iter().filter(|pod| is_stale(&pod.workload)).collect();
        for pod in &stale {
            self.run(runner, &pod.workload);
        }
        let places: Vec<Place> = stale.iter().map(|pod| pod.place()).collect();
        self.farewell(&cluster.name, &places);
    }

    /// Has every pod run what it is to run, where that is not what it runs already.
    pub(super) fn run_containers(&self) {
        let Some(runner) = &self.runner else { return };
        let cluster = self.runtime().cluster();
        let replaced: Vec<Place> = {
            let told = self.told.lock();
            let replaced = cluster.pods.iter().filter(|pod| {
                told.get(&pod.workload.namespace).is_some_and(|old| old.is_replaced_by(&pod.workload))
            });
            replaced.map(Pod::place).collect()
        };
        self.farewell(&cluster.name, &replaced);
        for pod in &cluster.pods {
            self.run(runner, &pod.workload);
        }
        self.run_agents(&cluster);
    }

    fn run(&self, runner: &Runner, workload: &Arc<PodSpec>) {
        let mut told = self.told.lock();
        if told.get(&workload.namespace) != Some(workload) {
            runner.add(PodSpec::clone(workload));
            told.insert(workload.namespace.clone(), Arc::clone(workload));
        }
    }

    /// Lets the containers of pods that are about to go end by themselves, as long as each is allowed to.
    pub(super) fn farewell(&self, cluster: &str, places: &[Place]) {
        let pods: Vec<Place> =
            places.iter().filter(|place| matches!(place, Place::Pod { .. })).cloned().collect();
        if pods.is_empty() {
            return self.end_containers_of(places.iter().map(|place| place.netns(cluster)));
        }
        let departures = self.departures.lock().clone();
        // A data path that has stopped is told of by what comes next.
        self.balancing.leave(&pods);
        let _ = self.publish();
        for departures in &departures {
            departures.leaving(&pods);
        }
        self.end_containers_of(places.iter().map(|place| place.netns(cluster)));
        self.balancing.forget(&pods);
        let _ = self.publish();
        for departures in &departures {
            departures.gone(&pods);
        }
    }

    fn end_containers_of(&self, namespaces: impl Iterator<Item = String>) {
        let Some(runner) = &self.runner else { return };
        let leaving: Vec<Arc<PodSpec>> = {
            let mut told = self.told.lock();
            namespaces.filter_map(|name| told.remove(&name)).collect()
        };
        for pod in &leaving {
            runner.remove(&pod.namespace, None);
        }
        for pod in &leaving {
            // Whoever has not ended by then is ended with the namespace.
            runner.wait_removed(&pod.namespace, pod.termination_grace + GRACE_SLACK);
        }
    }

    /// Tells all containers to end, and waits a moment; who has not ended by then is ended with its namespace.
    pub(super) fn end_containers(&self) {
        let Some(runner) = &self.runner else { return };
        let told = std::mem::take(&mut *self.told.lock());
        for namespace in told.keys() {
            runner.remove(namespace, Some(LAST_GRACE));
        }
        let begin = crate::clock::now();
        for namespace in told.keys() {
            let left = (LAST_GRACE + GRACE_SLACK).saturating_sub(begin.elapsed());
            runner.wait_removed(namespace, left);
        }
    }
}
