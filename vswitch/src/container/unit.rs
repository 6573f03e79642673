//! One container: where it stands, and what follows from what happens to it.
//!
//! # Theory of operation
//! ```text
//! Waiting -> Starting -> Running -> BackOff -> Starting ...
//!    |          |           |
//!    |          +-> BackOff +-> Ended
//!    +-- Unrunnable (nothing to run)
//! ```
//! A container that ended is started again at once the first time, then after 10 s, and each time after twice as long,
//! at most 300 s; one that ran for ten minutes begins anew. These are the kubelet's numbers (`MaxContainerBackOff`,
//! `containerBackOffPeriod`).

use std::time::Duration;

use super::prober::Prober;
use super::spec::{Container, PreStop, Probe, Program, RestartPolicy};
use super::status::{ContainerState, ContainerStatus, Ended};
use super::supervisor::{Finding, Kind};
use crate::helper::{ContainerInfo, RunState};

const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);
/// A container that ran this long is not one that crashes in a loop.
const STEADY: Duration = Duration::from_secs(600);

/// What a container has after a hook that took all of its time, as in Kubernetes.
const LAST: Duration = Duration::from_secs(2);

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What is to be done for one container.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    Signal(i32),
    Ask(Kind, Box<Probe>),
}

/// That a container is to end.
#[derive(Debug)]
struct Stop {
    /// What SIGTERM waits for.
    before: Option<Before>,
    /// When it is killed; absent once it has been.
    kill_at: Option<Duration>,
    why: String,
}

/// What comes before SIGTERM.
#[derive(Debug)]
enum Before {
    /// The end of a hook.
    Answer,
    /// A time.
    Until(Duration),
}

impl Stop {
    /// The signal that is due.
    fn step(&mut self, now: Duration) -> Option<i32> {
        let over = self.kill_at.is_some_and(|kill_at| kill_at <= now);
        match self.before {
            Some(Before::Until(time)) if time <= now => self.hooked(),
            Some(_) if over => {
                self.kill_at = Some(now.saturating_add(LAST));
                self.hooked()
            }
            None if over => {
                self.kill_at = None;
                Some(SIGKILL)
            }
            Some(_) | None => None,
        }
    }

    /// What SIGTERM has waited for has happened.
    fn hooked(&mut self) -> Option<i32> {
        self.before.take().map(|_| SIGTERM)
    }

    fn wake(&self) -> Option<Duration> {
        let until = match self.before {
            Some(Before::Until(time)) => Some(time),
            Some(Before::Answer) | None => None,
        };
        [self.kill_at, until].into_iter().flatten().min()
    }
}

#[derive(Debug)]
enum State {
    /// Its turn has not come.
    Waiting,
    /// There is nothing to run.
    Unrunnable(String),
    /// The helper has been asked.
    Starting,
    Running {
        since: Duration,
        stop: Option<Stop>,
    },
    BackOff {
        until: Duration,
        delay: Duration,
        /// Why it could not be started; otherwise it had run.
        error: Option<String>,
    },
    Ended(Ended),
}

#[derive(Debug)]
pub(super) struct Unit {
    container: Container,
    init: bool,
    policy: RestartPolicy,
    state: State,
    /// How often it has been started; tells the answers about one run from those about another.
    starts: u32,
    /// Starts since it was last steady.
    failures: u32,
    last: Option<Ended>,
    probers: [Option<Prober>; 3],
}

impl Unit {
    pub(super) fn new(container: &Container, init: bool, policy: RestartPolicy) -> Self {
        let state = match &container.program {
            Program::None(why) => State::Unrunnable(why.clone()),
            Program::Command(_) | Program::Builtin(_) => State::Waiting,
        };
        let probes = &container.probes;
        let prober = |probe: &Option<Probe>| probe.as_ref().map(Prober::new);
        // Init containers run to their end; Kubernetes has no probes for them.
        let probers = if init {
            [None, None, None]
        } else {
            [prober(&probes.startup), prober(&probes.readiness), prober(&probes.liveness)]
        };
        Self {
            container: container.clone(),
            init,
            policy,
            state,
            starts: 0,
            failures: 0,
            last: None,
            probers,
        }
    }

    pub(super) fn container(&self) -> &Container {
        &self.container
    }

    pub(super) fn starts(&self) -> u32 {
        self.starts
    }

    /// Goes on from where another supervisor left off. What it knew of failures is taken from the number of starts.
    pub(super) fn adopt(&mut self, info: &ContainerInfo, now: Duration) {
        if self.is_unrunnable() {
            return;
        }
        let since = now.saturating_sub(Duration::from_millis(info.age_ms));
        self.starts = info.starts;
        self.failures = info.starts.saturating_sub(1);
        self.run_since(since, now);
        if let RunState::Exited { code } = info.state {
            // How long it ran is not known any more; not long is the careful guess.
            self.ended(code, since);
        }
    }

    /// That the containers after this init container have been started says that it has done its work.
    pub(super) fn assume_done(&mut self, now: Duration) {
        if !matches!(self.state, State::Ended(_) | State::Running { .. }) {
            let ended = Ended { code: 0, reason: "Completed", message: None, started: now, at: now };
            self.state = State::Ended(ended);
        }
    }

    fn run_since(&mut self, since: Duration, now: Duration) {
        self.state = State::Running { since, stop: None };
        for prober in self.probers.iter_mut().flatten() {
            prober.stop();
        }
        if let Some(startup) = self.prober_mut(Kind::Startup) {
            startup.begin(since, now);
        } else {
            self.begin_probes(since, now);
        }
    }

    fn begin_probes(&mut self, since: Duration, now: Duration) {
        for kind in [Kind::Readiness, Kind::Liveness] {
            if let Some(prober) = self.prober_mut(kind) {
                prober.begin(since, now);
            }
        }
    }

    fn prober(&self, kind: Kind) -> Option<&Prober> {
        let [startup, readiness, liveness] = &self.probers;
        match kind {
            Kind::Startup => startup.as_ref(),
            Kind::Readiness => readiness.as_ref(),
            Kind::Liveness => liveness.as_ref(),
            Kind::PreStop => None,
        }
    }

    fn prober_mut(&mut self, kind: Kind) -> Option<&mut Prober> {
        let [startup, readiness, liveness] = &mut self.probers;
        match kind {
            Kind::Startup => startup.as_mut(),
            Kind::Readiness => readiness.as_mut(),
            Kind::Liveness => liveness.as_mut(),
            Kind::PreStop => None,
        }
    }

    /// What is to be done now.
    pub(super) fn step(&mut self, may_start: bool, now: Duration, steps: &mut Vec<Step>) {
        match &mut self.state {
            State::Waiting if may_start => {}
            State::BackOff { until, .. } if may_start && *until <= now => {}
            State::Running { stop: Some(stop), .. } => {
                steps.extend(stop.step(now).map(Step::Signal));
                // Whether it still serves matters to whoever has nobody else to ask.
                return self.ask(&[Kind::Readiness], now, steps);
            }
            State::Running { stop: None, .. } => return self.ask(&Kind::ALL, now, steps),
            State::Waiting
            | State::Unrunnable(_)
            | State::Starting
            | State::BackOff { .. }
            | State::Ended(_) => return,
        }
        self.state = State::Starting;
        self.starts = self.starts.saturating_add(1);
        steps.push(Step::Start);
    }

    fn ask(&mut self, kinds: &[Kind], now: Duration, steps: &mut Vec<Step>) {
        for &kind in kinds {
            if let Some(prober) = self.prober_mut(kind)
                && prober.ask(now)
            {
                steps.push(Step::Ask(kind, Box::new(prober.probe().clone())));
            }
        }
    }

    /// When [`Self::step`] has something to do next.
    pub(super) fn wake(&self, may_start: bool) -> Option<Duration> {
        match &self.state {
            State::BackOff { until, .. } => may_start.then_some(*until),
            State::Running { stop: Some(stop), .. } => {
                let readiness = self.prober(Kind::Readiness).and_then(Prober::due);
                [stop.wake(), readiness].into_iter().flatten().min()
            }
            State::Running { stop: None, .. } => self.probers.iter().flatten().filter_map(Prober::due).min(),
            State::Waiting | State::Unrunnable(_) | State::Starting | State::Ended(_) => None,
        }
    }

    /// Takes the helper's answer to [`Step::Start`].
    pub(super) fn started(&mut self, result: Result<(), String>, now: Duration) {
        if !matches!(self.state, State::Starting) {
            return;
        }
        match result {
            Ok(()) => self.run_since(now, now),
            Err(error) => {
                // It was no start.
                self.starts = self.starts.saturating_sub(1);
                // At once would be as bad.
                self.failures = self.failures.max(1);
                self.back_off(now, Some(error));
            }
        }
    }

    fn back_off(&mut self, now: Duration, error: Option<String>) {
        let delay = back_off(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.state = State::BackOff { until: now.saturating_add(delay), delay, error };
    }

    /// The container has ended.
    pub(super) fn ended(&mut self, code: u8, now: Duration) {
        let State::Running { since, stop } = &mut self.state else { return };
        let reason = if code == 0 { "Completed" } else { "Error" };
        let message = stop.take().map(|stop| stop.why);
        let ended = Ended { code, reason, message, started: *since, at: now };
        if now.saturating_sub(*since) >= STEADY {
            self.failures = 0;
        }
        for prober in self.probers.iter_mut().flatten() {
            prober.stop();
        }
        let again = match self.policy {
            RestartPolicy::Never => false,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Always => code != 0 || !self.init,
        };
        if again {
            self.last = Some(ended);
            self.back_off(now, None);
        } else {
            self.state = State::Ended(ended);
        }
    }

    /// Tells the container to end, if it runs and has not been told.
    pub(super) fn stop(&mut self, why: String, grace: Duration, now: Duration, steps: &mut Vec<Step>) {
        let State::Running { stop, .. } = &mut self.state else { return };
        let told = stop.is_some();
        let kill_at = now.saturating_add(grace);
        match stop {
            // Of two deadlines the earlier counts.
            Some(stop) => stop.kill_at = stop.kill_at.map(|before| before.min(kill_at)),
            None => *stop = Some(Stop { before: None, kill_at: Some(kill_at), why }),
        }
        if told || grace.is_zero() {
            return;
        }
        let before = match &self.container.pre_stop {
            None => return steps.push(Step::Signal(SIGTERM)),
            Some(PreStop::Sleep(time)) => Before::Until(now.saturating_add(*time)),
            Some(PreStop::Ask(check)) => {
                let probe = Probe { timeout: grace, ..Probe::new(check.clone()) };
                steps.push(Step::Ask(Kind::PreStop, Box::new(probe)));
                Before::Answer
            }
        };
        if let Some(stop) = stop {
            stop.before = Some(before);
        }
    }

    /// Takes the answer of a probe.
    pub(super) fn probed(
        &mut self,
        kind: Kind,
        found: Finding,
        pod_grace: Duration,
        now: Duration,
        steps: &mut Vec<Step>,
    ) {
        let State::Running { since, stop } = &mut self.state else { return };
        match (kind, stop) {
            (Kind::PreStop, Some(stop)) => return steps.extend(stop.hooked().map(Step::Signal)),
            (Kind::Readiness, _) | (_, None) => {}
            (_, Some(_)) => return,
        }
        let since = *since;
        let Some(prober) = self.prober_mut(kind) else { return };
        let news = prober.answer(found, now);
        match (kind, news) {
            (Kind::Startup, Some(true)) => {
                // It has said all it has to say.
                self.quiet(Kind::Startup);
                self.begin_probes(since, now);
            }
            (Kind::Startup | Kind::Liveness, Some(false)) => {
                let Some(prober) = self.prober(kind) else { return };
                let why = prober.complaint().unwrap_or_default();
                let why = format!("{kind} probe failed: {why}");
                let grace = prober.probe().termination_grace.unwrap_or(pod_grace);
                self.stop(why, grace, now, steps);
            }
            (Kind::Readiness | Kind::PreStop, _) | (_, None) | (Kind::Liveness, Some(true)) => {}
        }
    }

    /// Asks no more, and keeps what is known.
    fn quiet(&mut self, kind: Kind) {
        if let Some(prober) = self.prober_mut(kind) {
            prober.quiet();
        }
    }

    /// Whether there is a process, or may be one soon.
    pub(super) fn lives(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. })
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// How it ended for good.
    pub(super) fn end(&self) -> Option<&Ended> {
        match &self.state {
            State::Ended(ended) => Some(ended),
            State::Waiting
            | State::Unrunnable(_)
            | State::Starting
            | State::Running { .. }
            | State::BackOff { .. } => None,
        }
    }

    pub(super) fn is_unrunnable(&self) -> bool {
        matches!(self.state, State::Unrunnable(_))
    }

    /// Whether it has ever run, or runs.
    pub(super) fn has_run(&self) -> bool {
        self.runs() || self.last.is_some() || self.end().is_some()
    }

    fn has_started(&self) -> bool {
        self.runs() && self.prober(Kind::Startup).is_none_or(|prober| prober.verdict() == Some(true))
    }

    pub(super) fn is_ready(&self) -> bool {
        if self.init {
            return self.end().is_some_and(|ended| ended.code == 0);
        }
        matches!(self.state, State::Running { stop: None, .. }) && self.is_serving()
    }

    /// Whether it runs and is well, be it about to end or not.
    pub(super) fn is_serving(&self) -> bool {
        self.has_started() && self.prober(Kind::Readiness).is_none_or(|prober| prober.verdict() == Some(true))
    }

    pub(super) fn status(&self, initialising: bool) -> ContainerStatus {
        let waiting = |reason, message: String| ContainerState::Waiting { reason, message };
        let state = match &self.state {
            State::Waiting if initialising => waiting("PodInitializing", String::new()),
            State::Waiting | State::Starting => waiting("ContainerCreating", String::new()),
            State::Unrunnable(why) => waiting("ImageNotRunnable", why.clone()),
            State::Running { since, .. } => ContainerState::Running { since: *since },
            State::BackOff { error: Some(error), .. } => waiting("RunContainerError", error.clone()),
            State::BackOff { delay, .. } => {
                let delay = delay.as_secs();
                waiting("CrashLoopBackOff", format!("it is started again {delay} s after it ended"))
            }
            State::Ended(ended) => ContainerState::Terminated(ended.clone()),
        };
        let complaint = self.probers.iter().rev().flatten().find_map(Prober::complaint);
        ContainerStatus {
            name: self.container.name.clone(),
            image: self.container.image.clone(),
            state,
            last: self.last.clone(),
            ready: self.is_ready(),
            started: self.has_started(),
            restarts: self.starts.saturating_sub(1),
            complaint: complaint.filter(|_| self.runs()).map(str::to_owned),
        }
    }
}

/// How long to wait after an end, the given number of starts after the first.
fn back_off(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    FIRST_BACK_OFF.saturating_mul(1 << doublings.min(16)).min(LONGEST_BACK_OFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_is_the_kubelets() {
        let seconds: Vec<u64> = (0..8).map(|failures| back_off(failures).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off(u32::MAX).as_secs(), 300);
    }
}
