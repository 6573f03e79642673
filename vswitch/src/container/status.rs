//! What is to be shown of a pod's containers.

use std::time::Duration;

use serde::Serialize;

/// The phase of a pod, with Kubernetes' meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Phase {
    /// No container has been started yet.
    Pending,
    /// At least one runs, or will run again. Also a pod that has nothing to run: its namespace is all there is.
    Running,
    /// All have ended with status 0, for good.
    Succeeded,
    /// All have ended, for good, at least one of them with another status.
    Failed,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        })
    }
}

/// How a container ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Ended {
    /// Its status as shells have it: 128 and the number of the signal that ended it, or what it returned.
    pub code: u8,
    /// `Completed` or `Error`.
    pub reason: &'static str,
    /// Why it was ended, if it did not end by itself.
    pub message: Option<String>,
    /// When it had started, on the supervisor's clock.
    pub started: Duration,
    /// When it ended.
    pub at: Duration,
}

/// Where a container stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerState {
    /// It does not run, and may or will.
    Waiting {
        /// One word: `PodInitializing`, `ContainerCreating`, `CrashLoopBackOff`, `RunContainerError`,
        /// `ImageNotRunnable`.
        reason: &'static str,
        /// A sentence, if there is more to say.
        message: String,
    },
    /// It runs.
    Running {
        /// Since when, on the supervisor's clock.
        since: Duration,
    },
    /// It has ended and is not started again.
    Terminated(Ended),
}

/// One container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Where it stands.
    pub state: ContainerState,
    /// How it ended before, if it has been started again or will be.
    pub last: Option<Ended>,
    /// Whether it does what it is there for: it runs and its readiness probe, if any, says so. For an init container:
    /// whether it has done it.
    pub ready: bool,
    /// Whether its startup probe, if any, has succeeded.
    pub started: bool,
    /// How often it has been started again.
    pub restarts: u32,
    /// What its probes found wrong last, if they did.
    pub complaint: Option<String>,
}

/// One pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its network namespace.
    pub namespace: String,
    /// Its phase.
    pub phase: Phase,
    /// Whether every container is ready.
    pub ready: bool,
    /// Whether it is being removed.
    pub terminating: bool,
    /// Whether every container answers, be it about to end or not: what `ready` would be if nothing were being ended.
    pub serving: bool,
    /// Its init containers, in order.
    pub init_containers: Vec<ContainerStatus>,
    /// Its containers, in order.
    pub containers: Vec<ContainerStatus>,
}

impl PodStatus {
    /// The one word that `kubectl get pods` would show: the phase, or what is most in the way.
    pub fn summary(&self) -> String {
        if self.terminating {
            return "Terminating".to_owned();
        }
        let done = self.init_containers.iter().filter(|container| container.ready).count();
        let initialising = self.init_containers.iter().find(|container| !container.ready);
        match initialising.map(|container| &container.state) {
            Some(ContainerState::Waiting { reason, .. }) if *reason != "ContainerCreating" => {
                return format!("Init:{reason}");
            }
            Some(ContainerState::Terminated(ended)) => return format!("Init:{}", ended.reason),
            Some(ContainerState::Waiting { .. } | ContainerState::Running { .. }) => {
                return format!("Init:{done}/{}", self.init_containers.len());
            }
            None => {}
        }
        // As kubectl has it, the first container that has something to say.
        let said = self.containers.iter().find_map(|container| match &container.state {
            ContainerState::Waiting { reason, .. } => Some(*reason),
            ContainerState::Terminated(ended) => Some(ended.reason),
            ContainerState::Running { .. } => None,
        });
        let runs = self.containers.iter().any(|c| matches!(c.state, ContainerState::Running { .. }));
        match said {
            Some("Completed") if runs => self.phase.to_string(),
            Some(reason) => reason.to_owned(),
            None => self.phase.to_string(),
        }
    }
}
