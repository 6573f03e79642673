//! Deciding what runs: a state machine without a clock or a process of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::pod::{Known, Pod};
use super::spec::{Container, PodSpec, Probe};
use super::status::PodStatus;
use crate::helper::ContainerInfo;

/// What a probe found: well, or what is wrong.
pub type Finding = Result<(), String>;

/// Which of a container's probes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Whether it has come up.
    Startup,
    /// Whether it can serve.
    Readiness,
    /// Whether it has got stuck.
    Liveness,
    /// Not whether, but that it is about to be told to end.
    PreStop,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
            Self::PreStop => "preStop",
        })
    }
}

/// What a probe's answer is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ProbeId {
    /// The pod's network namespace.
    pub namespace: String,
    /// The container.
    pub container: String,
    /// Which of its probes.
    pub kind: Kind,
    /// Which of the container's runs, from 1.
    pub run: u32,
}

/// What has to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start a container and say how that went by [`Supervisor::started`].
    Start {
        /// The pod's network namespace.
        namespace: String,
        /// [`PodSpec::log_prefix`].
        log_prefix: String,
        /// [`PodSpec::links`].
        links: Option<String>,
        /// What to start; its program is not `None`.
        container: Box<Container>,
    },
    /// Send a signal to a container; its end shows in [`Supervisor::observe`].
    Signal {
        /// The pod's network namespace.
        namespace: String,
        /// The container.
        container: String,
        /// SIGTERM or SIGKILL.
        signal: i32,
    },
    /// Ask a probe, or a hook, and tell what it found by [`Supervisor::probed`].
    Probe {
        /// What the answer is about.
        id: ProbeId,
        /// The pod's address.
        address: Option<IpAddr>,
        /// [`PodSpec::probed_from`].
        from: Option<String>,
        /// The probe.
        probe: Box<Probe>,
        /// The container, for its environment, directory and user.
        of: Box<Container>,
    },
    /// A pod that was to be removed has nothing left that runs. The supervisor has forgotten it.
    Gone {
        /// The pod.
        pod: Box<PodSpec>,
    },
}

/// Decides for every pod what runs. Time is since an epoch that the caller chose.
#[derive(Debug, Default)]
pub struct Supervisor {
    pods: BTreeMap<String, Pod>,
    actions: VecDeque<Action>,
    changed: BTreeSet<String>,
}

impl Supervisor {
    /// One that knows no pod.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a pod on. What the helper knows of its containers is taken over as it is: what runs is left alone, what
    /// has ended is started again if and when it would have been. A pod of the same namespace is replaced; one that differs
    /// only in where it is probed from and how long it may take to end goes on.
    pub fn add(&mut self, spec: PodSpec, known: &[ContainerInfo], now: Duration) {
        let name = spec.namespace.clone();
        let mut actions = Vec::new();
        if self.pods.get_mut(&name).is_some_and(|pod| pod.goes_on_as(&spec)) {
            return self.step(&name, actions, now);
        }
        let known = known.iter().filter(|info| info.namespace == name);
        let known: Known<'_> = known.map(|info| (info.name.as_str(), info)).collect();
        self.pods.insert(name.clone(), Pod::new(spec, &known, now, &mut actions));
        self.step(&name, actions, now);
    }

    /// Ends a pod's containers: SIGTERM, and SIGKILL after `grace` or what the pod says. [`Action::Gone`] follows, at
    /// once if nothing runs.
    pub fn remove(&mut self, namespace: &str, grace: Option<Duration>, now: Duration) {
        if let Some(pod) = self.pods.get_mut(namespace) {
            pod.remove(grace.unwrap_or(pod.spec().termination_grace), now);
            self.step(namespace, Vec::new(), now);
        }
    }

    /// Takes the answer to [`Action::Start`].
    pub fn started(&mut self, namespace: &str, container: &str, result: Result<(), String>, now: Duration) {
        if let Some(pod) = self.pods.get_mut(namespace) {
            pod.started(container, result, now);
            self.step(namespace, Vec::new(), now);
        }
    }

    /// Compares with what the helper knows of all containers.
    pub fn observe(&mut self, all: &[ContainerInfo], now: Duration) {
        let mut known: BTreeMap<&str, Known<'_>> = BTreeMap::new();
        for info in all {
            known.entry(&info.namespace).or_default().insert(&info.name, info);
        }
        let none = Known::new();
        let mut news = Vec::new();
        for (name, pod) in &mut self.pods {
            if pod.observe(known.get(name.as_str()).unwrap_or(&none), now) {
                news.push(name.clone());
            }
        }
        for name in news {
            self.step(&name, Vec::new(), now);
        }
    }

    /// Takes the answer to [`Action::Probe`].
    pub fn probed(&mut self, id: &ProbeId, found: Finding, now: Duration) {
        if let Some(pod) = self.pods.get_mut(&id.namespace) {
            let mut actions = Vec::new();
            pod.probed(id, found, now, &mut actions);
            self.step(&id.namespace, actions, now);
        }
    }

    /// Does what is due by now.
    pub fn advance(&mut self, now: Duration) {
        let due = self.pods.iter().filter(|(_, pod)| pod.wake().is_some_and(|wake| wake <= now));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            self.step(&name, Vec::new(), now);
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::advance`], if nothing happens before.
    pub fn next_wake(&self) -> Option<Duration> {
        self.pods.values().filter_map(Pod::wake).min()
    }

    /// How a pod is.
    pub fn status(&self, namespace: &str) -> Option<PodStatus> {
        self.pods.get(namespace).map(Pod::status)
    }

    /// The pods whose status may have changed since this was last asked, those that are gone included.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    fn step(&mut self, namespace: &str, mut actions: Vec<Action>, now: Duration) {
        let Some(pod) = self.pods.get_mut(namespace) else { return };
        pod.step(now, &mut actions);
        self.changed.insert(namespace.to_owned());
        if pod.is_gone(now) {
            actions.extend(
                self.pods.remove(namespace).map(|pod| Action::Gone { pod: Box::new(pod.into_spec()) }),
            );
        }
        self.actions.extend(actions);
    }
}
