//! Real containers: programs that run in pods, what they see, how they end, and who starts them again.
//!
//! Everything runs as root, and again as an ordinary user. The parts that need a process of their own are the ignored
//! tests named `role_*`, which this file starts by name.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "all of this file is tests, some of which measure how long something takes"
)]

mod agents;
mod ends;
mod foreign;
#[path = "../lab/mod.rs"]
mod lab;
mod probes;
mod restarts;

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use vswitch::container::{
    Check, Container, ContainerState, Phase, PodSpec, PodStatus, PreStop, Probe, Program, Runner, log_path,
};
use vswitch::helper::{
    ContainerInfo, ContainerSpec, Containers, Existing, FailureKind, Helper, HelperError, MAX_LOG, Namespace,
    RunState,
};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

// ---- asking the helper -----------------------------------------------------------------------------------------

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

/// A container that runs a script.
fn script(lab: &Lab, name: &str, text: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        argv: words(&["/bin/sh", "-c", text]),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())],
        links: Vec::new(),
        working_dir: None,
        user: None,
        no_new_privs: false,
        log: lab.options.state.logs().join(format!("{name}.log")),
    }
}

fn log(spec: &ContainerSpec) -> String {
    fs::read_to_string(&spec.log).unwrap()
}

fn containers(lab: &Lab) -> Containers {
    Containers::connect(&lab.options.state).unwrap().unwrap()
}

fn info(containers: &mut Containers, namespace: &str, name: &str) -> ContainerInfo {
    let all = containers.list().unwrap();
    let found = all.into_iter().find(|info| info.namespace == namespace && info.name == name);
    found.unwrap_or_else(|| panic!("{name} in {namespace}"))
}

/// Runs a container to its end and returns its status and log.
fn run(containers: &mut Containers, namespace: &Namespace, spec: &ContainerSpec) -> (u8, String) {
    containers.run(&namespace.name, spec).unwrap();
    (ended(containers, &namespace.name, &spec.name), log(spec))
}

/// Waits for the end of a container and returns its status.
fn ended(containers: &mut Containers, namespace: &str, name: &str) -> u8 {
    let mut code = 0;
    until(&format!("container {name} ends"), || match info(containers, namespace, name).state {
        RunState::Running => false,
        RunState::Exited { code: status } => {
            code = status;
            true
        }
    });
    code
}

fn readable(pipe: &OwnedFd) -> bool {
    let mut wait = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut wait, PollTimeout::ZERO).unwrap() > 0
}

fn kind(error: HelperError) -> FailureKind {
    failure(error).kind
}

fn remove_logs(lab: &Lab) {
    let _ = fs::remove_dir_all(lab.options.state.logs());
}

fn clean(lab: &Lab, helper: Helper) {
    assert_eq!(helper.shutdown().unwrap(), Vec::<String>::new());
    remove_logs(lab);
    lab.assert_clean();
}

// ---- asking the runner -----------------------------------------------------------------------------------------

fn command(name: &str, text: &str) -> Container {
    Container::new(name, "x", Program::Command(words(&["/bin/sh", "-c", text])))
}

fn builtin(name: &str, argv: &[&str]) -> Container {
    Container::new(name, "x", Program::Builtin(words(argv)))
}

fn probe(check: Check) -> Probe {
    let mut probe = Probe::new(check);
    probe.period = Duration::from_secs(1);
    probe
}

fn pod_log(lab: &Lab, pod: &PodSpec, container: &str) -> String {
    fs::read_to_string(log_path(&lab.options.state, &pod.log_prefix, container)).unwrap_or_default()
}

fn status(runner: &Runner, pod: &PodSpec) -> PodStatus {
    let mut found = None;
    until("the pod is known", || {
        found = runner.status(&pod.namespace);
        found.is_some()
    });
    found.unwrap()
}

fn until_status(runner: &Runner, pod: &PodSpec, what: &str, good: impl Fn(&PodStatus) -> bool) -> PodStatus {
    let mut last = status(runner, pod);
    for _ in 0..2000 {
        last = status(runner, pod);
        if good(&last) {
            return last;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen that {what}: {last:#?}");
}

fn until_ready(runner: &Runner, pod: &PodSpec) -> PodStatus {
    until_status(runner, pod, "the pod is ready", |status| status.ready)
}

fn remove(runner: &Runner, pod: &PodSpec) {
    runner.remove(&pod.namespace, Some(Duration::from_secs(5)));
    assert!(runner.wait_removed(&pod.namespace, Duration::from_secs(20)));
}

// ---- what they see ---------------------------------------------------------------------------------------------

fn containers_see_what_they_were_given(lab: &Lab) {
    let mut helper = lab.start();
    let pod = helper.create(&lab.spec("seen", 2)).unwrap().namespace;
    let mut containers = containers(lab);
    assert_eq!(containers.namespace(&pod.name).unwrap(), pod);
    assert_eq!(containers.list().unwrap(), []);
    let look = "env; pwd; id -u; id -g; grep -E 'NoNewPrivs|SigBlk' /proc/self/status; echo pids /proc/[0-9]*; \
                echo session $(cut -d' ' -f6 /proc/self/stat); readlink /proc/self/fd/0; cat /proc/1/cmdline | tr '\\0' ' '";
    let mut spec = script(lab, "look", look);
    spec.env.push(("MARK".to_owned(), "a b=c\nd".to_owned()));
    spec.working_dir = Some("/usr".into());
    spec.no_new_privs = true;
    if geteuid().is_root() {
        spec.user = Some((1234, 99));
    }
    let (code, seen) = run(&mut containers, &pod, &spec);
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("MARK=a b=c\nd\n") && !seen.contains("CARGO"), "{seen}");
    let ids = if geteuid().is_root() { "\n/usr\n1234\n99\n" } else { "\n/usr\n0\n0\n" };
    assert!(seen.contains(ids), "{seen}");
    assert!(seen.contains("NoNewPrivs:\t1\n") && seen.contains("SigBlk:\t0000000000000000\n"), "{seen}");
    let pids = seen.lines().find(|line| line.starts_with("pids")).unwrap();
    assert_eq!(pids.split_whitespace().count(), 3, "the first process and the shell: {pids}");
    assert!(seen.contains("/dev/null\n") && seen.contains("vswitch __enter "), "{seen}");
    assert!(!seen.contains("session 0\n"), "a session of its own: {seen}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&spec.log).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(lab.options.state.logs()).unwrap().permissions().mode() & 0o777, 0o700);

    // Whoever it runs as, a program can open what it writes to.
    let mut spec = script(lab, "streams", "echo one > /dev/stdout; echo two > /dev/stderr; echo three >&2");
    spec.user = geteuid().is_root().then_some((1234, 99));
    assert_eq!(run(&mut containers, &pod, &spec), (0, "one\ntwo\nthree\n".to_owned()));
    // Its log is kept when it is started again.
    assert_eq!(run(&mut containers, &pod, &spec).1.len(), 2 * "one\ntwo\nthree\n".len());
    assert_eq!(info(&mut containers, &pod.name, "streams").starts, 2);

    let spec = script(lab, "much", "head -c 26214400 /dev/zero | tr '\\0' x; echo; echo last");
    let (code, seen) = run(&mut containers, &pod, &spec);
    assert!(code == 0 && seen.ends_with("x\nlast\n"));
    let old = fs::metadata(spec.log.with_added_extension("1")).unwrap().len();
    assert!(seen.len() as u64 + old > MAX_LOG && old <= MAX_LOG && seen.len() as u64 <= MAX_LOG);
    if !geteuid().is_root() {
        let mut spec = script(lab, "other", "true");
        spec.user = Some((1234, 99));
        let error = failure(containers.run(&pod.name, &spec).unwrap_err());
        assert_eq!(error.kind, FailureKind::NotPermitted);
        assert!(error.message.contains("without root"), "{error}");
    }
    clean(lab, helper);
}

#[test]
fn root_containers_see_what_they_were_given() {
    as_root("c-seen", |lab| containers_see_what_they_were_given(lab));
}

// ---- as an ordinary user ---------------------------------------------------------------------------------------

#[test]
fn an_ordinary_user_has_the_same_in_a_user_namespace() {
    as_user(all_as_user, || {
        let ran = OrdinaryUser::new("c-user").run(&[]);
        assert!(success(&ran).contains("1 passed"));
    });
}

#[test]
#[ignore = "a role that other tests start"]
fn role_user() {
    in_role_of_user(all_as_user);
}

fn all_as_user(test: &Path) {
    assert!(!geteuid().is_root());
    containers_see_what_they_were_given(&Lab::new("cu-seen"));
    ends::the_end_of_a_container_is_the_end_of_all_its_processes(&Lab::new("cu-ends"));
    ends::containers_end_with_their_pod_and_are_forgotten(&Lab::new("cu-pods"));
    probes::two_containers_share_localhost_and_collide(&Lab::new("cu-share"));
    restarts::containers_are_started_again(&Lab::new("cu-again"));
    ends::guests_share_a_network_and_nothing_else(&Lab::new("cu-guest"));
    ends::servers_end_when_nobody_is_connected(&Lab::new("cu-drain"));
    agents::an_agent_listens_for_its_node(&Lab::new("cu-agent"));
    probes::probes_are_asked_in_the_pod(&Lab::new("cu-probe"));
    restarts::containers_outlive_their_parent_and_are_adopted(&mut Lab::new("cu-adopt"), test);
    foreign::an_ordinary_user_joins_its_own(&Lab::new("cu-exist"));
}
