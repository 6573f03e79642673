//! The containers of one pod, and which of them has its turn.

use std::collections::BTreeMap;
use std::time::Duration;

use super::spec::PodSpec;
use super::status::{Phase, PodStatus};
use super::supervisor::{Action, Finding, ProbeId};
use super::unit::{Step, Unit};
use crate::helper::{ContainerInfo, RunState};

/// How long after SIGKILL a pod that is removed is waited for; only a process stuck in the kernel takes longer.
const STUCK: Duration = Duration::from_secs(10);
/// The status of a container of which nothing is known but that it is gone: killed.
const GONE: u8 = 128 + 9;

/// What the helper knows of the containers of one pod, by name.
pub(super) type Known<'a> = BTreeMap<&'a str, &'a ContainerInfo>;

#[derive(Debug)]
pub(super) struct Pod {
    spec: PodSpec,
    init: Vec<Unit>,
    main: Vec<Unit>,
    /// Until when a pod that is being removed is waited for.
    ending: Option<Duration>,
}

impl Pod {
    /// A pod of which `known` runs or has ended already.
    pub(super) fn new(spec: PodSpec, known: &Known<'_>, now: Duration, actions: &mut Vec<Action>) -> Self {
        let unit = |init: bool| {
            let policy = spec.restart_policy;
            move |container| Unit::new(container, init, policy)
        };
        let init = spec.init_containers.iter().map(unit(true)).collect();
        let main = spec.containers.iter().map(unit(false)).collect();
        let mut pod = Self { spec, init, main, ending: None };
        for unit in pod.units_mut() {
            if let Some(info) = known.get(unit.container().name.as_str()) {
                unit.adopt(info, now);
            }
        }
        if pod.main.iter().any(|unit| unit.starts() > 0) {
            pod.init.iter_mut().for_each(|unit| unit.assume_done(now));
        }
        // What runs and is not asked for is of a pod that had this name before.
        for info in known.values().filter(|info| info.state == RunState::Running) {
            if pod.unit_mut(&info.name).is_none() {
                let (namespace, container) = (info.namespace.clone(), info.name.clone());
                actions.push(Action::Signal { namespace, container, signal: 9 });
            }
        }
        pod
    }

    /// Whether it is what `spec` says but for where it is probed from and how long it may take to end, which it then takes
    /// over.
    pub(super) fn goes_on_as(&mut self, spec: &PodSpec) -> bool {
        let PodSpec { probed_from, termination_grace, .. } = spec.clone();
        let goes_on =
            self.ending.is_none() && PodSpec { probed_from, termination_grace, ..self.spec.clone() } == *spec;
        if goes_on {
            self.spec = spec.clone();
        }
        goes_on
    }

    pub(super) fn spec(&self) -> &PodSpec {
        &self.spec
    }

    pub(super) fn into_spec(self) -> PodSpec {
        self.spec
    }

    fn units(&self) -> impl Iterator<Item = &Unit> {
        self.init.iter().chain(&self.main)
    }

    fn units_mut(&mut self) -> impl Iterator<Item = &mut Unit> {
        self.init.iter_mut().chain(&mut self.main)
    }

    fn unit_mut(&mut self, name: &str) -> Option<&mut Unit> {
        self.units_mut().find(|unit| unit.container().name == name)
    }

    /// Whether every init container has done its work.
    fn is_initialised(&self) -> bool {
        self.turn().is_none()
    }

    /// Begins to remove the pod. Once more, it only moves the deadline forward.
    pub(super) fn remove(&mut self, grace: Duration, now: Duration) {
        self.spec.termination_grace = grace;
        let until = now.saturating_add(grace).saturating_add(STUCK);
        self.ending = Some(self.ending.map_or(until, |before| before.min(until)));
    }

    /// Whether a pod that is being removed has nothing left that runs.
    pub(super) fn is_gone(&self, now: Duration) -> bool {
        self.ending.is_some_and(|until| until <= now || !self.units().any(Unit::lives))
    }

    pub(super) fn wake(&self) -> Option<Duration> {
        let ending = self.ending.is_some();
        let turn = self.turn();
        let init = self.init.iter().enumerate().map(|(at, unit)| (unit, turn == Some(at)));
        let main = self.main.iter().map(|unit| (unit, turn.is_none()));
        let wakes = init.chain(main).filter_map(|(unit, has_turn)| unit.wake(has_turn && !ending));
        wakes.chain(self.ending).min()
    }

    /// The init container that has its turn: the first that has not done its work. `None` if it is the others' turn.
    fn turn(&self) -> Option<usize> {
        self.init.iter().position(|unit| !unit.is_ready())
    }

    /// Does what is due.
    pub(super) fn step(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let ending = self.ending.is_some();
        let grace = self.spec.termination_grace;
        let turn = self.turn();
        let init = self.init.iter_mut().enumerate().map(|(at, unit)| (unit, turn == Some(at)));
        let main = self.main.iter_mut().map(|unit| (unit, turn.is_none()));
        let mut steps = Vec::new();
        for (unit, has_turn) in init.chain(main) {
            if ending {
                unit.stop("the pod is being removed".to_owned(), grace, now, &mut steps);
            }
            unit.step(has_turn && !ending, now, &mut steps);
            actions.extend(steps.drain(..).map(|step| action(&self.spec, unit, step)));
        }
    }

    pub(super) fn started(&mut self, name: &str, result: Result<(), String>, now: Duration) {
        if let Some(unit) = self.unit_mut(name) {
            unit.started(result, now);
        }
    }

    /// Compares with what the helper knows; true if something has ended.
    pub(super) fn observe(&mut self, known: &Known<'_>, now: Duration) -> bool {
        let mut news = false;
        for unit in self.units_mut().filter(|unit| unit.runs()) {
            match known.get(unit.container().name.as_str()).map(|info| (info.state, info.age_ms)) {
                Some((RunState::Running, _)) => continue,
                Some((RunState::Exited { code }, age_ms)) => {
                    unit.ended(code, now.saturating_sub(Duration::from_millis(age_ms)));
                }
                None => unit.ended(GONE, now),
            }
            news = true;
        }
        news
    }

    pub(super) fn probed(&mut self, id: &ProbeId, found: Finding, now: Duration, actions: &mut Vec<Action>) {
        let grace = self.spec.termination_grace;
        let units = self.init.iter_mut().chain(&mut self.main);
        // An answer about a run that has ended says nothing about the next.
        let unit =
            units.into_iter().find(|unit| unit.container().name == id.container && unit.starts() == id.run);
        if let Some(unit) = unit {
            let mut steps = Vec::new();
            unit.probed(id.kind, found, grace, now, &mut steps);
            actions.extend(steps.into_iter().map(|step| action(&self.spec, unit, step)));
        }
    }

    pub(super) fn status(&self) -> PodStatus {
        let (phase, initialised) = (self.phase(), self.is_initialised());
        PodStatus {
            namespace: self.spec.namespace.clone(),
            phase,
            ready: phase == Phase::Running
                && initialised
                && self.ending.is_none()
                && self.main.iter().all(Unit::is_ready),
            terminating: self.ending.is_some(),
            serving: phase == Phase::Running && initialised && self.main.iter().all(Unit::is_serving),
            init_containers: self.init.iter().map(|unit| unit.status(false)).collect(),
            containers: self.main.iter().map(|unit| unit.status(!initialised)).collect(),
        }
    }

    fn phase(&self) -> Phase {
        if !self.is_initialised() {
            let failed = self.init.iter().any(|unit| unit.end().is_some_and(|ended| ended.code != 0));
            return if failed { Phase::Failed } else { Phase::Pending };
        }
        let mut ends = self.main.iter().map(Unit::end);
        if !self.main.is_empty() && ends.all(|end| end.is_some()) {
            let failed = self.main.iter().filter_map(Unit::end).any(|ended| ended.code != 0);
            return if failed { Phase::Failed } else { Phase::Succeeded };
        }
        let up = |unit: &Unit| unit.has_run() || unit.is_unrunnable();
        if self.main.is_empty() || self.main.iter().any(up) { Phase::Running } else { Phase::Pending }
    }
}

fn action(spec: &PodSpec, unit: &Unit, step: Step) -> Action {
    let namespace = spec.namespace.clone();
    let container = unit.container();
    match step {
        Step::Start => Action::Start {
            namespace,
            log_prefix: spec.log_prefix.clone(),
            links: spec.links.clone(),
            container: Box::new(container.clone()),
        },
        Step::Signal(signal) => Action::Signal { namespace, container: container.name.clone(), signal },
        Step::Ask(kind, probe) => Action::Probe {
            id: ProbeId { namespace, container: container.name.clone(), kind, run: unit.starts() },
            address: spec.address,
            from: spec.probed_from.clone(),
            probe,
            of: Box::new(container.clone()),
        },
    }
}
