//! The supervisor on a virtual clock: a world that does what it is told, and a script of what happens in it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::helper::{ContainerInfo, RunState};

const NS: &str = "lab-web";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn container(name: &str) -> Container {
    Container::new(name, "x", Program::Command(vec!["true".to_owned()]))
}

fn pod(containers: &[&str]) -> PodSpec {
    let mut pod = PodSpec::new(NS);
    pod.containers = containers.iter().map(|name| container(name)).collect();
    pod
}

fn probe() -> Probe {
    Probe::new(Check::TcpSocket { host: None, port: 80 })
}

/// A helper made of a map, and a clock that goes from one event to the next.
#[derive(Default)]
struct World {
    supervisor: Supervisor,
    now: Duration,
    /// State, starts, and since when.
    containers: BTreeMap<String, (RunState, u32, Duration)>,
    /// What was done, in order: `12 start web`, `12 signal web 15`, `12 probe web liveness 1`.
    log: Vec<String>,
    asked: Vec<ProbeId>,
    refuse: Option<String>,
    gone: bool,
}

impl World {
    fn new(pod: PodSpec) -> Self {
        let mut world = Self { now: s(1000), ..Self::default() };
        world.add(pod);
        world
    }

    fn add(&mut self, pod: PodSpec) {
        let known = self.infos();
        self.supervisor.add(pod, &known, self.now);
        self.settle();
    }

    fn infos(&self) -> Vec<ContainerInfo> {
        let info = |(name, (state, starts, since)): (&String, &(RunState, u32, Duration))| ContainerInfo {
            namespace: NS.to_owned(),
            name: name.clone(),
            made_of: String::new(),
            pid: 1,
            state: *state,
            starts: *starts,
            age_ms: u64::try_from((self.now - *since).as_millis()).unwrap(),
        };
        self.containers.iter().map(info).collect()
    }

    fn settle(&mut self) {
        while let Some(action) = self.supervisor.poll_action() {
            let at = (self.now - s(1000)).as_secs();
            match action {
                Action::Start { container, .. } => {
                    self.log.push(format!("{at} start {}", container.name));
                    let result = self.refuse.clone().map_or(Ok(()), Err);
                    if result.is_ok() {
                        let starts = self.containers.get(&container.name).map_or(0, |c| c.1) + 1;
                        self.containers.insert(container.name.clone(), (RunState::Running, starts, self.now));
                    }
                    self.supervisor.started(NS, &container.name, result, self.now);
                }
                Action::Signal { container, signal, .. } => {
                    self.log.push(format!("{at} signal {container} {signal}"));
                    if signal == 9 {
                        self.end(&container, 137);
                    }
                }
                Action::Probe { id, probe, .. } => {
                    assert!(!probe.timeout.is_zero());
                    self.log.push(format!("{at} probe {} {} {}", id.container, id.kind, id.run));
                    self.asked.push(id);
                }
                Action::Gone { pod } => {
                    assert_eq!(pod.namespace, NS);
                    self.log.push(format!("{at} gone"));
                    self.gone = true;
                }
            }
        }
    }

    fn end(&mut self, name: &str, code: u8) {
        let container = self.containers.get_mut(name).unwrap();
        assert_eq!(container.0, RunState::Running, "{name}");
        (container.0, container.2) = (RunState::Exited { code }, self.now);
        let known = self.infos();
        self.supervisor.observe(&known, self.now);
        self.settle();
    }

    /// Lets time pass, from one wake to the next, with `answer` to every probe.
    fn pass_with(&mut self, time: Duration, mut answer: impl FnMut(&ProbeId) -> Option<Finding>) {
        let until = self.now + time;
        loop {
            for id in std::mem::take(&mut self.asked) {
                if let Some(found) = answer(&id) {
                    self.supervisor.probed(&id, found, self.now);
                }
            }
            self.settle();
            if !self.asked.is_empty() {
                continue;
            }
            match self.supervisor.next_wake() {
                Some(wake) if wake <= until => {
                    self.now = self.now.max(wake);
                    self.supervisor.advance(self.now);
                    self.settle();
                    let again = self.supervisor.next_wake();
                    assert!(
                        again.is_none_or(|again| again > self.now || !self.asked.is_empty()),
                        "a deadline that has been served is over"
                    );
                }
                _ => break,
            }
        }
        self.now = until;
    }

    fn pass(&mut self, seconds: u64) {
        self.pass_with(s(seconds), |_| Some(Ok(())));
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    fn status(&self) -> PodStatus {
        self.supervisor.status(NS).unwrap()
    }

    fn state(&self, at: usize) -> ContainerState {
        self.status().containers[at].state.clone()
    }

    fn summary(&self) -> String {
        self.status().summary()
    }
}

fn bad() -> Option<Finding> {
    Some(Err("refused".to_owned()))
}

#[test]
fn containers_start_side_by_side_and_the_pod_is_ready() {
    let mut world = World::new(pod(&["a", "b"]));
    assert_eq!(world.log(), ["0 start a", "0 start b"]);
    let status = world.status();
    assert!(status.ready && status.phase == Phase::Running);
    assert_eq!(status.containers[0].state, ContainerState::Running { since: s(1000) });
    assert_eq!(world.supervisor.next_wake(), None, "nothing is polled");
    assert_eq!(world.supervisor.take_changed().into_iter().collect::<Vec<_>>(), [NS]);
    assert!(world.supervisor.take_changed().is_empty());
}

#[test]
fn a_pod_that_runs_nothing_is_up() {
    let world = World::new(pod(&[]));
    assert!(world.status().ready);
    assert_eq!(world.summary(), "Running");
}

#[test]
fn the_back_off_doubles_up_to_five_minutes_and_ten_good_minutes_forgive_all() {
    let mut world = World::new(pod(&["a"]));
    let mut starts = Vec::new();
    for _ in 0..9 {
        world.pass(1);
        world.end("a", 1);
        world.pass(400);
        starts.extend(world.log());
    }
    let times: Vec<u64> =
        starts.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    let delays: Vec<u64> = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    // Each run ends one second into its turn of 401 s.
    let ends: Vec<u64> = (0..9).map(|turn| turn * 401 + 1).collect();
    let waits: Vec<u64> = times.iter().skip(1).zip(&ends).map(|(start, end)| start - end).collect();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300], "{delays:?}");
    assert_eq!(world.status().containers[0].restarts, 9);
    // It ran for less than ten minutes, then for more.
    world.pass(300);
    world.end("a", 1);
    assert_eq!(world.summary(), "CrashLoopBackOff");
    world.pass(1000);
    world.log();
    world.end("a", 0);
    assert_eq!(world.log().len(), 1, "after ten good minutes it is started at once");
}

#[test]
fn restart_policies() {
    for (policy, code, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::Always, 3, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::OnFailure, 3, true),
        (RestartPolicy::Never, 0, false),
        (RestartPolicy::Never, 3, false),
    ] {
        let mut spec = pod(&["a"]);
        spec.restart_policy = policy;
        let mut world = World::new(spec);
        world.pass(5);
        world.log();
        world.end("a", code);
        assert_eq!(world.log().len() == 1, again, "{policy:?} {code}");
        let status = world.status();
        if again {
            assert_eq!(status.containers[0].last.as_ref().unwrap().code, code);
            assert_eq!(status.phase, Phase::Running);
        } else {
            let ContainerState::Terminated(ended) = &status.containers[0].state else { panic!() };
            assert_eq!((ended.code, ended.started, ended.at), (code, s(1000), s(1005)));
            assert_eq!(status.phase, if code == 0 { Phase::Succeeded } else { Phase::Failed });
            assert_eq!(status.summary(), if code == 0 { "Completed" } else { "Error" });
            assert!(!status.ready);
        }
    }
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let mut spec = pod(&["main"]);
    spec.init_containers = vec![container("one"), container("two")];
    let mut world = World::new(spec);
    assert_eq!(world.log(), ["0 start one"]);
    assert_eq!(world.summary(), "Init:0/2");
    assert_eq!(world.status().phase, Phase::Pending);
    assert!(
        matches!(world.state(0), ContainerState::Waiting { reason: "PodInitializing", .. }),
        "{:?}",
        world.state(0)
    );
    world.end("one", 5);
    assert_eq!(world.log(), ["0 start one"], "once more, at once");
    world.end("one", 5);
    assert_eq!(world.summary(), "Init:CrashLoopBackOff");
    world.pass(10);
    assert_eq!(world.log(), ["10 start one"]);
    world.end("one", 0);
    assert_eq!(world.log(), ["10 start two"], "an init container that is done is not started again");
    assert_eq!(world.summary(), "Init:1/2");
    world.end("two", 0);
    assert_eq!(world.log(), ["10 start main"]);
    assert!(world.status().ready);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_is_never_restarted() {
    let mut spec = pod(&["main"]);
    spec.init_containers = vec![container("one")];
    spec.restart_policy = RestartPolicy::Never;
    let mut world = World::new(spec);
    world.end("one", 1);
    world.pass(1000);
    assert_eq!(world.log(), ["0 start one"]);
    assert_eq!(world.status().phase, Phase::Failed);
    assert_eq!(world.summary(), "Init:Error");
}

#[test]
fn an_image_that_cannot_be_run_leaves_the_pod_up_and_says_why() {
    let mut spec = pod(&["a", "b"]);
    spec.containers[0].program = Program::None("no registry".to_owned());
    let mut world = World::new(spec);
    assert_eq!(world.log(), ["0 start b"]);
    let status = world.status();
    assert_eq!(
        status.containers[0].state,
        ContainerState::Waiting { reason: "ImageNotRunnable", message: "no registry".to_owned() }
    );
    assert_eq!((status.phase, status.ready), (Phase::Running, false));
    assert_eq!(world.summary(), "ImageNotRunnable");
    world.supervisor.remove(NS, Some(s(0)), world.now);
    world.settle();
    assert!(world.gone);
}

#[test]
fn a_start_that_the_helper_refuses_is_tried_again() {
    let mut world = World { now: s(1000), refuse: Some("no such user".to_owned()), ..World::default() };
    world.add(pod(&["a"]));
    assert_eq!(world.summary(), "RunContainerError");
    let ContainerState::Waiting { message, .. } = world.state(0) else { panic!() };
    assert_eq!(message, "no such user");
    assert_eq!(world.status().phase, Phase::Pending);
    world.pass(30);
    assert_eq!(world.log(), ["0 start a", "10 start a", "30 start a"]);
    world.refuse = None;
    world.pass(40);
    assert_eq!(world.log(), ["70 start a"]);
    assert_eq!(world.status().containers[0].restarts, 0, "it has been started once");
}

#[test]
fn a_container_is_ready_when_its_probe_says_so_and_while_it_does() {
    let mut spec = pod(&["a"]);
    let mut readiness = probe();
    (readiness.initial_delay, readiness.period) = (s(3), s(5));
    (readiness.success_threshold, readiness.failure_threshold) = (2, 2);
    spec.containers[0].probes.readiness = Some(readiness);
    let mut world = World::new(spec);
    assert!(!world.status().ready);
    world.pass(4);
    assert_eq!(world.log(), ["0 start a", "3 probe a readiness 1"]);
    assert!(!world.status().ready, "once is not enough");
    world.pass(5);
    assert!(world.status().ready);
    world.pass_with(s(5), |_| bad());
    assert!(world.status().ready, "one failure is not enough");
    world.pass_with(s(5), |_| bad());
    assert!(!world.status().ready);
    assert_eq!(world.status().containers[0].complaint.as_deref(), Some("refused"));
    assert!(world.log().iter().all(|line| !line.contains("signal")), "nobody is ended for that");
    world.pass(10);
    assert!(world.status().ready);
    assert_eq!(world.status().containers[0].complaint, None);
    // A new run begins without any answer.
    world.end("a", 1);
    assert!(!world.status().ready);
    world.pass(8);
    assert!(world.status().ready);
}

#[test]
fn a_container_that_is_not_alive_is_ended_and_started_again() {
    let mut spec = pod(&["a"]);
    spec.containers[0].probes.liveness = Some(probe());
    spec.termination_grace = s(7);
    let mut world = World::new(spec);
    world.pass(1);
    world.log();
    world.pass_with(s(29), |_| bad());
    assert_eq!(
        world.log(),
        ["10 probe a liveness 1", "20 probe a liveness 1", "30 probe a liveness 1", "30 signal a 15"]
    );
    assert!(!world.status().ready, "one that is being ended is not ready");
    world.pass(6);
    assert_eq!(world.log(), Vec::<String>::new(), "and is not asked any more");
    world.pass(1);
    assert_eq!(world.log(), ["37 signal a 9", "37 start a", "37 probe a liveness 2"]);
    let last = world.status().containers[0].last.clone().unwrap();
    assert_eq!((last.code, last.message.as_deref()), (137, Some("liveness probe failed: refused")));
    assert_eq!(world.status().containers[0].restarts, 1);
}

#[test]
fn the_probes_own_grace_counts_for_what_it_ends() {
    let mut spec = pod(&["a"]);
    let mut liveness = probe();
    (liveness.failure_threshold, liveness.termination_grace) = (1, Some(s(0)));
    spec.containers[0].probes.liveness = Some(liveness);
    let mut world = World::new(spec);
    world.pass_with(s(0), |id| if id.run == 1 { bad() } else { None });
    assert_eq!(
        world.log(),
        ["0 start a", "0 probe a liveness 1", "0 signal a 9", "0 start a", "0 probe a liveness 2"]
    );
}

#[test]
fn the_other_probes_wait_for_the_startup_probe() {
    let mut spec = pod(&["a"]);
    let mut startup = probe();
    (startup.period, startup.failure_threshold) = (s(1), 30);
    spec.containers[0].probes =
        Probes { startup: Some(startup), readiness: Some(probe()), liveness: Some(probe()) };
    let mut world = World::new(spec);
    world.pass_with(s(19), |_| bad());
    assert!(world.log().iter().skip(1).all(|line| line.contains("startup")));
    assert!(!world.status().containers[0].started);
    world.pass(1);
    let log = world.log();
    assert_eq!(log, ["20 probe a startup 1", "20 probe a readiness 1", "20 probe a liveness 1"], "{log:?}");
    assert!(world.status().ready && world.status().containers[0].started);
    world.pass(10);
    assert!(world.log().iter().all(|line| !line.contains("startup")));
    // One that does not come up is ended.
    world.end("a", 0);
    world.pass_with(s(31), |_| bad());
    let log = world.log();
    assert_eq!(log.iter().filter(|line| line.contains("startup 2")).count(), 30);
    assert_eq!(log.last().unwrap(), "59 signal a 15");
}

#[test]
fn an_answer_about_a_former_run_says_nothing_about_this_one() {
    let mut spec = pod(&["a"]);
    let mut liveness = probe();
    liveness.failure_threshold = 1;
    spec.containers[0].probes.liveness = Some(liveness);
    let mut world = World::new(spec);
    let [id] = &std::mem::take(&mut world.asked)[..] else { panic!() };
    world.end("a", 1);
    world.log();
    world.supervisor.probed(id, Err("late".to_owned()), world.now);
    world.settle();
    assert_eq!(world.log(), Vec::<String>::new());
    assert!(world.status().ready);
}

#[test]
fn a_pod_that_is_removed_gets_its_grace() {
    let mut spec = pod(&["a", "b", "c"]);
    spec.termination_grace = s(20);
    let mut world = World::new(spec);
    world.end("c", 1);
    world.end("c", 1);
    world.log();
    world.supervisor.remove(NS, None, world.now);
    world.settle();
    assert_eq!(world.log(), ["0 signal a 15", "0 signal b 15"], "c waits for its back-off");
    assert_eq!((world.summary(), world.status().ready), ("Terminating".to_owned(), false));
    world.pass(15);
    world.end("a", 0);
    assert_eq!(world.log(), Vec::<String>::new(), "nothing is started again");
    world.pass(10);
    assert_eq!(world.log(), ["20 signal b 9", "20 gone"]);
    assert_eq!(world.supervisor.next_wake(), None);
    assert!(world.supervisor.status(NS).is_none());
}

#[test]
fn a_pod_that_is_removed_twice_ends_by_the_earlier_deadline() {
    let mut world = World::new(pod(&["a"]));
    world.log();
    for grace in [30, 5, 60] {
        world.supervisor.remove(NS, Some(s(grace)), world.now);
        world.settle();
    }
    world.pass(30);
    assert_eq!(world.log(), ["0 signal a 15", "5 signal a 9", "5 gone"]);
}

#[test]
fn a_process_that_does_not_even_die_is_not_waited_for_without_end() {
    let mut world = World::new(pod(&["a"]));
    world.supervisor.remove(NS, Some(s(0)), world.now);
    let mut actions = Vec::new();
    let mut gone_at = None;
    for second in 0..30 {
        world.supervisor.advance(world.now + s(second));
        while let Some(action) = world.supervisor.poll_action() {
            if matches!(action, Action::Gone { .. }) {
                gone_at = Some(second);
            }
            actions.push(action);
        }
    }
    assert_eq!((actions.len(), gone_at), (2, Some(10)), "SIGKILL once, and the end: {actions:?}");
}

#[test]
fn what_runs_is_taken_over_as_it_is() {
    let mut spec = pod(&["up", "down", "new"]);
    spec.init_containers = vec![container("init")];
    spec.containers[0].probes.readiness = Some(probe());
    let mut first = World::new(spec.clone());
    first.end("init", 0);
    first.pass(100);
    first.end("down", 2);
    first.end("down", 2);
    first.log();
    first.containers.remove("new");
    first.containers.insert("stranger".to_owned(), (RunState::Running, 1, s(1000)));
    // The supervisor dies; three seconds later there is another.
    let mut second =
        World { now: first.now + s(3), containers: first.containers.clone(), ..World::default() };
    second.add(spec);
    assert_eq!(
        second.log(),
        ["103 signal stranger 9", "103 probe up readiness 1", "103 start new"],
        "what runs is left alone, and what has ended waits for its time"
    );
    let status = second.status();
    assert!(status.init_containers[0].ready);
    assert_eq!(status.containers[0].state, ContainerState::Running { since: s(1000) });
    assert_eq!(status.containers[1].restarts, 1);
    assert_eq!(second.summary(), "CrashLoopBackOff");
    second.pass(10);
    assert!(second.log().contains(&"110 start down".to_owned()), "ten seconds after it ended");
    assert!(second.status().ready);
}

#[test]
fn a_container_that_the_helper_no_longer_knows_has_ended() {
    let mut world = World::new(pod(&["a"]));
    world.containers.clear();
    world.supervisor.observe(&[], world.now);
    world.settle();
    assert_eq!(world.status().containers[0].last.as_ref().unwrap().code, 137);
}

#[test]
fn the_helper_is_told_everything_with_variables_replaced() {
    let mut one = container("a");
    one.program = Program::Command(["echo", "$(B)", "$(PATH)"].map(str::to_owned).to_vec());
    one.env = vec![("B".to_owned(), "c".to_owned())];
    (one.working_dir, one.user, one.no_new_privs) = (Some("/tmp".into()), Some((1, 2)), true);
    let told = one.helper_spec("/l/a.log".into()).unwrap();
    assert_eq!(told.argv[1], "c");
    assert!(told.argv[2].contains("/usr/bin"), "programs are found without being told where");
    assert_eq!((told.env.len(), told.user, told.no_new_privs), (2, Some((1, 2)), true));
    one.program = Program::Builtin(["http", "--port", "8080"].map(str::to_owned).to_vec());
    let told = one.helper_spec("/l/a.log".into()).unwrap();
    assert_eq!(told.argv, ["/proc/self/exe", "__image", "http", "--port", "8080"]);
    one.program = Program::None("why".to_owned());
    assert_eq!(one.helper_spec("/l/a.log".into()), Err("why"));
}

fn told_to_end(spec: PodSpec, grace: u64) -> World {
    let mut world = World::new(spec);
    world.pass(1);
    world.log();
    world.supervisor.remove(NS, Some(s(grace)), world.now);
    world.settle();
    world
}

#[test]
fn a_hook_that_sleeps_comes_before_the_signal() {
    let mut spec = pod(&["a", "b"]);
    spec.containers[0].pre_stop = Some(PreStop::Sleep(s(5)));
    let mut world = told_to_end(spec, 30);
    assert_eq!(world.log(), ["1 signal b 15"]);
    world.pass(4);
    assert_eq!(world.log(), [""; 0]);
    world.pass(1);
    assert_eq!(world.log(), ["6 signal a 15"]);
    world.pass(30);
    let log = world.log();
    assert!(log.contains(&"31 signal a 9".to_owned()), "the time of the hook counts: {log:?}");
}

#[test]
fn a_hook_that_asks_is_followed_by_the_signal_whatever_it_says() {
    for found in [Ok(()), Err("refused".to_owned())] {
        let mut spec = pod(&["a"]);
        spec.containers[0].pre_stop = Some(PreStop::Ask(Check::Exec(vec!["true".to_owned()])));
        let mut world = told_to_end(spec, 30);
        assert_eq!(world.log(), ["1 probe a preStop 1"]);
        world.pass_with(s(7), |_| None);
        let id = ProbeId { namespace: NS.into(), container: "a".into(), kind: Kind::PreStop, run: 1 };
        world.supervisor.probed(&id, found, world.now);
        world.settle();
        assert_eq!(world.log(), ["8 signal a 15"]);
        world.end("a", 0);
        assert!(world.gone);
    }
}

#[test]
fn a_hook_without_end_leaves_two_seconds_for_the_signal() {
    let mut spec = pod(&["a"]);
    spec.containers[0].pre_stop = Some(PreStop::Sleep(s(100)));
    let mut world = told_to_end(spec.clone(), 10);
    world.pass(20);
    assert_eq!(world.log(), ["11 signal a 15", "13 signal a 9", "13 gone"]);
    // No time at all is none for a hook either.
    let mut world = told_to_end(spec, 0);
    world.pass(1);
    assert_eq!(world.log(), ["1 signal a 9", "1 gone"]);
}

#[test]
fn hooks_come_before_every_end_that_is_ours() {
    let mut spec = pod(&["a"]);
    spec.containers[0].pre_stop = Some(PreStop::Sleep(s(2)));
    let mut liveness = probe();
    liveness.failure_threshold = 1;
    spec.containers[0].probes.liveness = Some(liveness);
    let mut world = World::new(spec);
    world.pass_with(s(5), |_| bad());
    assert_eq!(world.log(), ["0 start a", "0 probe a liveness 1", "2 signal a 15"]);
}

#[test]
fn a_pod_that_is_about_to_end_serves_as_long_as_its_probe_says_so() {
    let mut spec = pod(&["a"]);
    spec.containers[0].probes.readiness = Some(probe());
    spec.containers[0].probes.liveness = Some(probe());
    let mut world = told_to_end(spec, 60);
    let status = world.status();
    assert_eq!((status.ready, status.terminating, status.serving), (false, true, true));
    world.pass_with(s(35), |_| bad());
    let log = world.log();
    let count = |kind: &str| log.iter().filter(|line| line.contains(kind)).count();
    assert_eq!((count("readiness"), count("liveness")), (3, 0), "{log:?}");
    assert!(!world.status().serving);
}

#[test]
fn a_pod_that_is_probed_from_elsewhere_or_may_take_longer_to_end_goes_on() {
    let mut spec = pod(&["a"]);
    spec.containers[0].probes.readiness = Some(probe());
    spec.probed_from = Some("one".to_owned());
    let mut world = World::new(spec.clone());
    world.pass(1);
    assert!(world.status().ready);
    spec.probed_from = Some("other".to_owned());
    world.add(spec.clone());
    assert!(world.status().ready, "what was found holds");
    assert_eq!(world.log().len(), 2);
    assert!(!spec.is_replaced_by(&spec.clone()));
    let mut changed = spec.clone();
    changed.termination_grace = s(1);
    assert!(!spec.is_replaced_by(&changed));
    world.add(changed.clone());
    assert!(world.status().ready && world.log().is_empty(), "it goes on");
    world.supervisor.remove(NS, None, world.now);
    world.pass(2);
    assert_eq!(
        world.log(),
        ["1 signal a 15", "2 signal a 9", "2 gone"],
        "and has as long as it now may take"
    );
    changed.containers[0].pre_stop = Some(PreStop::Sleep(s(1)));
    assert!(spec.is_replaced_by(&changed));
}
