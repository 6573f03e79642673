//! Replacing the pods of Deployments, a few at a time.
//!
//! # Theory of operation
//! What is wanted is one cluster, and what stands is on its way to it: pods whose turn has not come are held back, which is
//! to say that the cluster that stands has them as they were, with what they run, their ports and their labels. Step by
//! step some are released, and the next ones only when those are ready. Pods that were not ready are released first: nobody
//! misses them. What does not become ready in time ends the replacement where it is; the next change goes on from there.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::plane::Plane;
use crate::clock;
use crate::cluster::{Cluster, Place, Pod, Replacement};
use crate::container::{ContainerState, PodStatus};

/// How often it is looked whether all is to end.
const LOOK: Duration = Duration::from_millis(500);

/// A cluster that is wanted, and the pods that are still as they were.
#[derive(Debug)]
pub(super) struct Rollout {
    wanted: Cluster,
    held: BTreeMap<Place, Pod>,
}

impl Rollout {
    /// The cluster that is to stand now.
    pub(super) fn cluster(&self) -> Cluster {
        let mut cluster = self.wanted.clone();
        for pod in &mut cluster.pods {
            if let Some(old) = self.held.get(&pod.place()) {
                *pod = old.clone();
            }
        }
        cluster
    }

    /// Releases the next pods of every Deployment.
    fn release(&mut self, is_ready: impl Fn(&Pod) -> bool) -> Vec<Place> {
        let mut missing: BTreeMap<String, usize> = BTreeMap::new();
        let mut released = Vec::new();
        let (unready, ready): (Vec<&Pod>, Vec<&Pod>) = self.held.values().partition(|pod| !is_ready(pod));
        released.extend(unready.iter().map(|pod| pod.place()));
        for pod in &unready {
            *missing.entry(deployment(pod)).or_default() += 1;
        }
        for pod in ready {
            let missing = missing.entry(deployment(pod)).or_default();
            if self
                .replacement(&pod.place())
                .is_none_or(|r| r.max_unavailable.is_none_or(|most| *missing < most))
            {
                *missing += 1;
                released.push(pod.place());
            }
        }
        self.held.retain(|place, _| !released.contains(place));
        released
    }

    /// How a pod is to be replaced, as is wanted now.
    fn replacement(&self, place: &Place) -> Option<&Replacement> {
        self.wanted.pods.iter().find(|pod| pod.place() == *place)?.replacement.as_deref()
    }
}

fn deployment(pod: &Pod) -> String {
    pod.replacement.as_ref().map(|replacement| replacement.deployment.clone()).unwrap_or_default()
}

impl Plane {
    /// Plans the way to a cluster.
    pub(super) fn rollout(&self, wanted: Cluster) -> Rollout {
        let mut held = BTreeMap::new();
        if self.runner.is_some() {
            let now = self.runtime().cluster();
            let standing: BTreeMap<Place, &Pod> = now.pods.iter().map(|pod| (pod.place(), pod)).collect();
            for pod in wanted.pods.iter().filter(|pod| in_turn(pod)) {
                let old = standing.get(&pod.place()).filter(|old| {
                    in_turn(old)
                        && old.workload.is_replaced_by(&pod.workload)
                        && old.host_network == pod.host_network
                });
                held.extend(old.map(|&old| (pod.place(), old.clone())));
            }
        }
        Rollout { wanted, held }
    }

    /// Goes all the way, or as far as it leads; returns what is in the way.
    pub(super) fn roll_out(&self, rollout: &mut Rollout) -> Vec<String> {
        let mut problems = Vec::new();
        let all = rollout.held.len();
        while !rollout.held.is_empty() && problems.is_empty() {
            let released =
                rollout.release(|pod| self.status_of(&pod.place()).is_some_and(|status| status.ready));
            match self.step_to(rollout.cluster()) {
                Ok(applied) => problems.extend(applied.problems),
                Err(error) => problems.push(error.to_string()),
            }
            for place in released {
                let deadline = rollout.replacement(&place).map_or(Duration::ZERO, |r| r.deadline);
                if let Err(why) = self.wait_ready(&place, deadline) {
                    let done = all - rollout.held.len();
                    problems.push(format!(
                        "{place} {why}; {done} of {all} pods are replaced, and the others stay as they were"
                    ));
                    break;
                }
            }
        }
        problems
    }

    fn status_of(&self, place: &Place) -> Option<PodStatus> {
        self.runner.as_ref()?.status(&place.netns(&self.runtime().cluster().name))
    }

    /// Waits until a pod is ready, or will never be.
    fn wait_ready(&self, place: &Place, limit: Duration) -> Result<(), String> {
        let Some(runner) = &self.runner else { return Ok(()) };
        let begin = clock::now();
        let mut version = 0;
        loop {
            let status = self.status_of(place);
            if status.as_ref().is_some_and(|status| status.ready || runs_nothing(status)) {
                // The next pods go only when Services lead to this one.
                self.balancing.observe();
                return self.publish().map_err(|error| error.to_string());
            }
            if self.ending.load(Ordering::Relaxed) || runner.ended().is_some() {
                return Err("is not waited for any more: the cluster ends".to_owned());
            }
            let left = limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                let complaint = status.as_ref().map(complaint).unwrap_or_default();
                return Err(format!("was not ready within {} s{complaint}", limit.as_secs()));
            }
            version = runner.wait_change(version, left.min(LOOK));
        }
    }
}

/// Whether a pod is one of several that are replaced in turn.
fn in_turn(pod: &Pod) -> bool {
    pod.replacement.as_ref().is_some_and(|replacement| replacement.max_unavailable.is_some())
}

/// Whether there is nothing that could become ready: the pod is a namespace and no more.
fn runs_nothing(status: &PodStatus) -> bool {
    status.containers.iter().all(|container| {
        matches!(container.state, ContainerState::Waiting { reason: "ImageNotRunnable", .. })
    })
}

fn complaint(status: &PodStatus) -> String {
    let complaint = status.containers.iter().find_map(|container| container.complaint.clone());
    format!(": {}", complaint.unwrap_or_else(|| status.summary()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Source, Strictness};
    use crate::objects::{Allocations, Store, compile};

    fn cluster(strategy: &str, port: u16) -> Cluster {
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 5\n  strategy: {strategy}\n  \
             selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
             spec: {{containers: [{{name: c, image: vswitch/http, args: [--port, \"{port}\"]}}]}}\n"
        );
        let (store, _) = Store::read(&[Source { name: "x".into(), text }], Strictness::Strict).unwrap();
        compile(&store, &Allocations::default(), "lab").unwrap().cluster
    }

    fn rollout(strategy: &str) -> Rollout {
        let (before, wanted) = (cluster(strategy, 80), cluster(strategy, 81));
        let held = before.pods.iter().map(|pod| (pod.place(), pod.clone())).collect();
        Rollout { wanted, held }
    }

    /// Names of pods released at each step, where the first of all is not ready.
    fn steps(strategy: &str, unready: &str) -> Vec<Vec<String>> {
        let mut rollout = rollout(strategy);
        let mut steps = Vec::new();
        while !rollout.held.is_empty() {
            let released = rollout.release(|pod| pod.name != unready);
            assert!(!released.is_empty());
            steps.push(released.iter().map(|place| place.name().to_owned()).collect());
        }
        steps
    }

    #[test]
    fn pods_go_a_few_at_a_time_and_those_that_nobody_misses_first() {
        let one = steps("{}", "none");
        assert_eq!(one, [["web-0"], ["web-1"], ["web-2"], ["web-3"], ["web-4"]]);
        let most = "{rollingUpdate: {maxUnavailable: 40%}}";
        assert_eq!(steps(most, "none"), [vec!["web-0", "web-1"], vec!["web-2", "web-3"], vec!["web-4"]]);
        assert_eq!(steps(most, "web-3"), [vec!["web-3", "web-0"], vec!["web-1", "web-2"], vec!["web-4"]]);
    }

    #[test]
    fn what_is_held_back_stays_as_it_was() {
        let mut rollout = rollout("{}");
        let runs = |cluster: &Cluster| {
            cluster.pods.iter().map(|pod| pod.workload.containers[0].program.clone()).collect::<Vec<_>>()
        };
        let (old, new) = (runs(&cluster("{}", 80)), runs(&rollout.wanted));
        assert_eq!(runs(&rollout.cluster()), old);
        rollout.release(|_| true);
        assert_eq!(runs(&rollout.cluster()), [&new[..1], &old[1..]].concat());
    }
}
