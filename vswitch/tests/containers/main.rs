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

mod lab;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use vswitch::container::{
    Check, Container, ContainerState, Phase, PodSpec, PodStatus, Probe, Program, Runner, log_path,
};
use vswitch::helper::{
    ContainerInfo, ContainerSpec, Containers, Existing, FailureKind, Helper, HelperError, MAX_LOG, Namespace,
    RunState,
};

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

/// A container that runs a script.
fn script(lab: &Lab, name: &str, text: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        argv: words(&["/bin/sh", "-c", text]),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())],
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

// ---- the mechanism ---------------------------------------------------------------------------------------------

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

fn the_end_of_a_container_is_the_end_of_all_its_processes(lab: &Lab) {
    let mut helper = lab.start();
    let pod = helper.create(&lab.spec("ends", 3)).unwrap().namespace;
    let mut containers = containers(lab);
    let watch = containers.watch().unwrap();
    assert!(!readable(&watch));
    for (name, text, expected) in
        [("seven", "exit 7", 7), ("killed", "kill -KILL $$", 137), ("ended", "kill -TERM $$", 143)]
    {
        assert_eq!(run(&mut containers, &pod, &script(lab, name, text)).0, expected, "{name}");
    }
    assert!(readable(&watch), "whoever asked is woken");
    let mut absent = script(lab, "absent", "");
    absent.argv = words(&["no-such-program"]);
    let (code, said) = run(&mut containers, &pod, &absent);
    assert_eq!((code, said.as_str()), (127, "vswitch: cannot find no-such-program\n"));
    let mut nowhere = script(lab, "nowhere", "true");
    nowhere.working_dir = Some("/no/such".into());
    let (code, said) = run(&mut containers, &pod, &nowhere);
    assert!(code == 125 && said.contains("/no/such"), "{code} {said}");

    // What it leaves behind goes with it, even in another session.
    let mark = format!("{}-left", lab.mark);
    let left = format!("(setsid sh -c 'sleep 1000 # {mark}\n:' &) ; sleep 0.2; exit 5");
    assert_eq!(run(&mut containers, &pod, &script(lab, "left", &left)).0, 5);
    assert_eq!(processes_with(&mark), Vec::<u32>::new(), "they are gone when the end is known");

    // Signals reach the program; SIGKILL ends all there is.
    let mark = format!("{}-trap", lab.mark);
    let trap = format!("trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.02; done # {mark}");
    let trap = script(lab, "trap", &trap);
    containers.run(&pod.name, &trap).unwrap();
    until("the trap is set", || log(&trap).contains("ready"));
    assert_eq!(kind(containers.run(&pod.name, &trap).unwrap_err()), FailureKind::Exists);
    containers.signal(&pod.name, "trap", SIGTERM).unwrap();
    assert_eq!(ended(&mut containers, &pod.name, "trap"), 9);
    assert!(log(&trap).ends_with("caught\n"));
    let stubborn = format!("trap '' TERM; (trap '' TERM; sleep 1000 # {mark}\n:) & echo ready; wait; wait");
    let stubborn = script(lab, "stubborn", &stubborn);
    let pid = containers.run(&pod.name, &stubborn).unwrap();
    until("the trap is set", || log(&stubborn).contains("ready"));
    assert_eq!(info(&mut containers, &pod.name, "stubborn").pid, pid);
    containers.signal(&pod.name, "stubborn", SIGTERM).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(info(&mut containers, &pod.name, "stubborn").state, RunState::Running);
    containers.signal(&pod.name, "stubborn", SIGKILL).unwrap();
    assert_eq!(ended(&mut containers, &pod.name, "stubborn"), 137);
    assert_eq!(processes_with(&mark), Vec::<u32>::new());
    assert_eq!(kind(containers.signal(&pod.name, "stubborn", SIGKILL).unwrap_err()), FailureKind::NotFound);
    // A container is no danger to the helper and its like: it can signal all it sees.
    let (code, _) = run(&mut containers, &pod, &script(lab, "wild", "kill -KILL -1; kill 0"));
    assert!(code > 128, "{code}");
    assert!(lives(helper.info().pid));
    clean(lab, helper);
}

fn containers_end_with_their_pod_and_are_forgotten(lab: &Lab) {
    let mut helper = lab.start();
    let pods: Vec<Namespace> =
        (0..3).map(|id| helper.create(&lab.spec(&format!("p{id}"), id + 4)).unwrap().namespace).collect();
    let mut containers = containers(lab);
    let mark = format!("{}-sleeper", lab.mark);
    // More than one page.
    for pod in &pods {
        for at in 0..30 {
            let text = if at == 0 { format!("sleep 1000 # {mark}\n:") } else { "true".to_owned() };
            containers.run(&pod.name, &script(lab, &format!("c{at:02}"), &text)).unwrap();
        }
    }
    let all = containers.list().unwrap();
    let names: Vec<(String, String)> = all.iter().map(|c| (c.namespace.clone(), c.name.clone())).collect();
    assert_eq!(names.len(), 90);
    assert!(names.is_sorted());
    until("the short ones have ended", || {
        let all = containers.list().unwrap();
        all.iter().filter(|c| c.state == RunState::Running).count() == 3
    });
    let watch = containers.watch().unwrap();
    helper.delete(&pods[0].name).unwrap();
    assert_eq!(containers.list().unwrap().len(), 60);
    assert_eq!(
        kind(containers.run(&pods[0].name, &script(lab, "x", "")).unwrap_err()),
        FailureKind::NotFound
    );
    // A pod that is killed from outside ends its containers as well, and that is told.
    nix::sys::signal::kill(pid_of(pods[1].pause_pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(ended(&mut containers, &pods[1].name, "c00"), 137);
    assert!(readable(&watch));
    let error = failure(containers.run(&pods[1].name, &script(lab, "x", "")).unwrap_err());
    assert!(error.kind == FailureKind::NotFound && error.message.contains("has ended"), "{error}");

    let name = &pods[2].name;
    let mut spec = script(lab, "long", &"x".repeat(70_000));
    let error = failure(containers.run(name, &spec).unwrap_err());
    assert!(error.kind == FailureKind::Invalid && error.message.contains("65536 are allowed"), "{error}");
    spec = script(lab, "a/b", "true");
    assert_eq!(kind(containers.run(name, &spec).unwrap_err()), FailureKind::Invalid);
    assert_eq!(kind(containers.signal(name, "c00", 19).unwrap_err()), FailureKind::Invalid);
    assert_eq!(kind(containers.signal(name, "none", SIGTERM).unwrap_err()), FailureKind::NotFound);
    spec = script(lab, "nolog", "true");
    spec.log = PathBuf::from("/proc/no/such/log");
    assert_ne!(kind(containers.run(name, &spec).unwrap_err()), FailureKind::Invalid);
    clean(lab, helper);
    let mut octets = [0; 100];
    while nix::unistd::read(&watch, &mut octets).unwrap() > 0 {}
    assert!(matches!(containers.list(), Err(HelperError::Gone)), "the pipe ends with the helper");
}

// ---- the rules -------------------------------------------------------------------------------------------------

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

fn two_containers_share_localhost_and_collide(lab: &Lab) {
    let mut helper = lab.start();
    let namespace = helper.create(&lab.spec("shared", 9)).unwrap().namespace;
    let runner = Runner::start(&lab.options).unwrap();
    let mut pod = PodSpec::new(&namespace.name);
    pod.log_prefix = "default_shared".to_owned();
    pod.containers = vec![
        builtin("web", &["http"]),
        builtin("other", &["http", "--port", "8080"]),
        builtin("echo", &["echo"]),
    ];
    for (at, port) in [(0, 80), (1, 8080), (2, 7777)] {
        pod.containers[at].probes.readiness = Some(probe(Check::TcpSocket { host: None, port }));
    }
    runner.add(pod.clone());
    until_ready(&runner, &pod);
    let fetch = |host: &str, port: u16, path: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf 'GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; \
             timeout 5 cat <&3"
        );
        success(&output(&enter(&namespace, "bash -c").arguments([script])))
    };
    let answer = fetch("127.0.0.1", 80, "/some/path?x=1");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\npath /some/path\n"), "{answer}");
    assert!(answer.contains("\nown address 127.0.0.1:80\npeer address 127.0.0.1:"), "{answer}");
    assert!(fetch("10.244.0.9", 8080, "/").contains("own address 10.244.0.9:8080"));
    assert!(fetch("::1", 8080, "/").contains("own address [::1]:8080"));
    assert!(fetch("fd00:10:244::9", 80, "/healthz").ends_with("\r\n\r\nok\n"));
    for host in ["127.0.0.1", "fd00:10:244::9"] {
        for protocol in ["tcp", "udp"] {
            let script =
                format!("exec 3<>/dev/{protocol}/{host}/7777; echo hello >&3; timeout 5 head -n 1 <&3");
            let echo = success(&output(&enter(&namespace, "bash -c").arguments([script])));
            assert_eq!(echo, "hello\n", "{protocol} {host}");
        }
    }
    // A second one on the same port, exactly as on a host.
    pod.containers.push(builtin("late", &["http", "--port=8080"]));
    runner.add(pod.clone());
    let late = until_status(&runner, &pod, "the late one gives up", |status| {
        status.containers.get(3).is_some_and(|late| late.restarts > 0 && late.last.is_some())
    });
    assert_eq!(late.containers[3].last.as_ref().unwrap().code, 1);
    assert!(late.containers[..3].iter().all(|container| container.restarts == 0));
    let line = "vswitch/http: cannot listen on port 8080: address already in use (another container of this pod has \
                it)\n";
    assert!(pod_log(lab, &pod, "late").starts_with(line), "{}", pod_log(lab, &pod, "late"));
    // Servers end at once when they are told to.
    remove(&runner, &pod);
    assert!(fs::read_dir(lab.options.state.logs()).unwrap().next().is_none(), "logs go with their pod");
    drop(runner);
    clean(lab, helper);
}

fn containers_are_started_again(lab: &Lab) {
    let mut helper = lab.start();
    let name = helper.create(&lab.spec("again", 10)).unwrap().namespace.name;
    let runner = Runner::start(&lab.options).unwrap();
    let mut pod = PodSpec::new(&name);
    pod.init_containers = vec![command("first", "echo first; sleep 0.1"), command("second", "echo second")];
    pod.containers = vec![
        command("loop", "echo run; exit 3"),
        command("env", "echo value=$(VALUE); exec sleep 1000"),
        Container::new("image", "nginx", Program::None("there is no nginx here".to_owned())),
    ];
    pod.containers[1].env = vec![("VALUE".to_owned(), "42".to_owned())];
    let begin = std::time::Instant::now();
    runner.add(pod.clone());
    let version = runner.wait_change(0, Duration::from_secs(10));
    assert!(version > 0);
    let looping = until_status(&runner, &pod, "it is started again at once", |status| {
        status.containers[0].restarts == 1
            && matches!(
                status.containers[0].state,
                ContainerState::Waiting { reason: "CrashLoopBackOff", .. }
            )
    });
    assert!(begin.elapsed() < Duration::from_secs(8), "the first time there is no back-off");
    assert_eq!(looping.containers[0].last.as_ref().unwrap().code, 3);
    assert!(looping.init_containers.iter().all(|container| container.ready));
    assert!(matches!(
        looping.containers[2].state,
        ContainerState::Waiting { reason: "ImageNotRunnable", .. }
    ));
    assert_eq!((looping.phase, looping.ready), (Phase::Running, false));
    until("the other one has said its line", || pod_log(lab, &pod, "env") == "value=42\n");
    assert_eq!(pod_log(lab, &pod, "loop"), "run\nrun\n");
    until_status(&runner, &pod, "it is started after ten seconds", |status| {
        status.containers[0].restarts == 2
    });
    assert!(begin.elapsed() >= Duration::from_secs(10));
    remove(&runner, &pod);
    drop(runner);
    clean(lab, helper);
}

fn probes_are_asked_in_the_pod(lab: &Lab) {
    let mut helper = lab.start();
    let mut spec = lab.spec("probes", 11);
    spec.hostname = Some("probed".to_owned());
    let name = helper.create(&spec).unwrap().namespace.name;
    let runner = Runner::start(&lab.options).unwrap();
    let mut pod = PodSpec::new(&name);
    pod.address = Some("10.244.0.11".parse().unwrap());
    let flag = lab.options.state.root().join("flag");
    fs::write(&flag, "").unwrap();
    let path = flag.display();
    let get = |host: Option<&str>, port, path: &str| Check::HttpGet {
        host: host.map(str::to_owned),
        port,
        path: path.to_owned(),
        headers: vec![("X-A".to_owned(), "b".to_owned())],
    };
    let mut web = builtin("web", &["http"]);
    web.probes.startup = Some(probe(get(Some("localhost"), 80, "/healthz")));
    web.probes.readiness = Some(probe(Check::TcpSocket { host: None, port: 80 }));
    let mut alive =
        probe(Check::Exec(words(&["sh", "-c", &format!("echo checked $HOSTNAME $A; test -e {path}")])));
    alive.failure_threshold = 2;
    web.env = vec![("A".to_owned(), "a".to_owned())];
    web.probes.liveness = Some(alive);
    let mut bad = command("bad", "exec sleep 1000");
    bad.probes.readiness = Some(probe(get(None, 80, "/")));
    let mut slow = command("slow", "exec sleep 1000");
    let mark = format!("{}-slow", lab.mark);
    let asleep = words(&["sh", "-c", &format!("sh -c 'sleep 1000 # {mark}\n:' & wait")]);
    slow.probes.readiness = Some(probe(Check::Exec(asleep)));
    pod.containers = vec![web, bad, slow];
    runner.add(pod.clone());
    let seen = until_status(&runner, &pod, "the probes have found what they can", |status| {
        status.containers[0].ready
            && status.containers[1].ready
            && status.containers[2].complaint.as_deref() == Some("no answer within 1 s")
    });
    assert!(seen.containers[0].started && !seen.ready);
    // The server's own command is not what is asked; its neighbour's port is, and that can close.
    fs::remove_file(&flag).unwrap();
    let restarted = until_status(&runner, &pod, "the server is ended and started again", |status| {
        status.containers[0].restarts == 1
    });
    let last = restarted.containers[0].last.clone().unwrap();
    assert_eq!(last.code, 0, "it ends in order on SIGTERM");
    let message = last.message.unwrap();
    assert!(message.starts_with("liveness probe failed: checked") && message.ends_with(" a"), "{message}");
    fs::write(&flag, "").unwrap();
    until_status(&runner, &pod, "the server is well again", |status| status.containers[0].ready);
    remove(&runner, &pod);
    drop(runner);
    until("what the slow probe started is gone", || processes_with(&mark).is_empty());
    fs::remove_file(&flag).unwrap();
    clean(lab, helper);
}

fn containers_outlive_their_parent_and_are_adopted(lab: &mut Lab, test_executable: &Path) {
    // The role takes the state directory for itself.
    lab.state = None;
    let (mut parent, namespace) = start_parent(lab, test_executable);
    let mut connection = containers(lab);
    let pod = parents_pod(&namespace.name);
    until("the containers run", || pod_log(lab, &pod, "tick").lines().count() > 2);
    let before = info(&mut connection, &namespace.name, "tick");
    parent.kill().unwrap();
    parent.wait().unwrap();
    let lines = pod_log(lab, &pod, "tick").lines().count();
    until("it goes on without a parent", || pod_log(lab, &pod, "tick").lines().count() > lines + 2);
    assert!(Runner::start(&lab.options).unwrap().ended().is_none());
    let helper = Helper::adopt(&lab.options).unwrap().unwrap();
    let runner = Runner::start(&lab.options).unwrap();
    runner.add(pod.clone());
    let adopted = until_status(&runner, &pod, "the container is known to run", |status| {
        matches!(status.containers[0].state, ContainerState::Running { .. })
    });
    let ContainerState::Running { since } = adopted.containers[0].state else { panic!() };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(since + Duration::from_millis(50) < now, "it runs since before the adoption");
    assert!(adopted.init_containers[0].ready);
    assert_eq!(adopted.containers[0].restarts, 0);
    assert!(adopted.containers[1].restarts >= 1, "what ended before is remembered");
    let after = info(&mut connection, &namespace.name, "tick");
    assert_eq!((after.pid, after.starts), (before.pid, 1));
    assert_eq!(pod_log(lab, &pod, "init"), "once\n", "what was done is not done again");
    // It ends under its new supervisor, and is started again by it.
    connection.signal(&namespace.name, "tick", SIGKILL).unwrap();
    until_status(&runner, &pod, "it is started again", |status| status.containers[0].restarts == 1);
    // Without a runner containers go on; without a helper they do not.
    drop(runner);
    let runner = Runner::start(&lab.options).unwrap();
    runner.add(pod.clone());
    until_status(&runner, &pod, "the container is known to run", |status| {
        matches!(status.containers[0].state, ContainerState::Running { .. })
    });
    helper.shutdown().unwrap();
    until("the runner knows", || runner.ended().is_some());
    assert!(runner.ended().unwrap().contains("has ended"));
    assert!(runner.wait_removed(&namespace.name, Duration::from_secs(1)), "nobody is waited for any more");
    drop(runner);
    remove_logs(lab);
    lab.assert_clean();
}

fn parents_pod(namespace: &str) -> PodSpec {
    let mut pod = PodSpec::new(namespace);
    pod.init_containers = vec![command("init", "echo once")];
    pod.containers =
        vec![command("tick", "while :; do echo tick; sleep 0.05; done"), command("crash", "exit 1")];
    pod
}

fn start_parent(lab: &Lab, test_executable: &Path) -> (Child, Namespace) {
    let mut child = Command::new(test_executable)
        .args(["--ignored", "--exact", "role_parent", "--nocapture"])
        .env("VSWITCH_TEST_EXECUTABLE", executable())
        .env("VSWITCH_TEST_STATE", lab.options.state.root())
        .env("VSWITCH_TEST_MARK", &lab.mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("POD ").map(str::to_owned));
    (child, serde_json::from_str(&line.unwrap()).unwrap())
}

#[test]
#[ignore = "a role that other tests start"]
fn role_parent() {
    let Some(state) = std::env::var_os("VSWITCH_TEST_STATE") else { return };
    let mut lab = Lab::at(state.into(), std::env::var("VSWITCH_TEST_MARK").unwrap());
    lab.options.grace = Duration::from_secs(60);
    let mut helper = lab.start();
    let created = helper.create(&lab.spec("orphan", 12)).unwrap();
    let runner = Runner::start(&lab.options).unwrap();
    let pod = parents_pod(&created.namespace.name);
    runner.add(pod.clone());
    until_status(&runner, &pod, "the crash has been seen twice", |status| {
        status.containers[1].restarts == 1 && status.containers[1].last.is_some()
    });
    println!("\nPOD {}", serde_json::to_string(&created.namespace).unwrap());
    loop {
        std::thread::park();
    }
}

// ---- namespaces of others --------------------------------------------------------------------------------------

/// Uses somebody else's namespace for a pod, from its making to its end. `look` runs `ip -j` there.
fn uses_a_foreign_namespace(
    lab: &Lab,
    helper: &mut Helper,
    existing: Existing,
    look: impl Fn(&str) -> serde_json::Value,
) {
    let before = look("link").as_array().unwrap().len();
    let mut spec = lab.spec("guest", 13);
    spec.interface = "guest0".to_owned();
    spec.hostname = Some("guest".to_owned());
    (spec.gateway_v4, spec.gateway_v6) = (None, None);
    spec.existing = Some(existing);
    let names = lab.names();
    let created = helper.create(&spec).unwrap();
    assert_eq!(lab.names(), names, "it gets no further name");
    let links = look("addr");
    let find = |name: &str| {
        let found = links.as_array().unwrap().iter().find(|link| link["ifname"] == name);
        found.unwrap_or_else(|| panic!("{name} in {links}")).clone()
    };
    assert!(find("guest0")["addr_info"].to_string().contains("10.244.0.13"), "{links}");
    assert_eq!(links.as_array().unwrap().len(), before + 1);
    let lo_is_up = find("lo")["flags"].to_string().contains("UP");
    assert_eq!(created.namespace.warnings.is_empty(), lo_is_up, "{:?}", created.namespace.warnings);

    let mut containers = containers(lab);
    let inside = script(lab, "inside", "hostname; echo /sys/class/net/*");
    let (code, seen) = run(&mut containers, &created.namespace, &inside);
    assert!(code == 0 && seen.starts_with("guest\n") && seen.contains("/sys/class/net/guest0"), "{seen}");
    // The same name twice is the kernel's to refuse, and nothing is left of the second.
    let mut twice = spec.clone();
    twice.name = lab.name("twice");
    twice.mac = netstack::addr::MacAddr::local(14);
    let error = failure(helper.create(&twice).unwrap_err());
    assert!(error.message.contains("guest0") && error.left_behind.is_empty(), "{error}");
    assert_eq!(look("link").as_array().unwrap().len(), before + 1);

    // The queue is still open here, and yet the interface goes.
    let tap = created.tap;
    assert_eq!(helper.delete(&spec.name).unwrap(), Vec::<String>::new());
    assert_eq!(look("link").as_array().unwrap().len(), before);
    drop(tap);
    until("the pod's processes are gone", || processes_with(&spec.name).is_empty());
}

fn what_is_no_namespace_is_refused(lab: &Lab, helper: &mut Helper) {
    for (existing, expected) in [
        (Existing::Name(lab.name("absent")), FailureKind::NotFound),
        (Existing::Path("/no/such/path".into()), FailureKind::NotFound),
        (Existing::Pid(u32::MAX >> 2), FailureKind::NotFound),
        (Existing::Path("/etc/passwd".into()), FailureKind::Invalid),
        (Existing::Path("/proc/self/ns/uts".into()), FailureKind::System),
        (Existing::Path("relative".into()), FailureKind::Invalid),
    ] {
        let mut spec = lab.spec("wrong", 15);
        spec.existing = Some(existing.clone());
        let error = failure(helper.create(&spec).unwrap_err());
        assert_eq!((error.kind, error.left_behind.len()), (expected, 0), "{existing:?}: {error}");
    }
    until("nothing is left of them", || processes_with(&lab.name("wrong")).is_empty());
    assert!(!lab.options.state.namespaces().join(format!("{}.json", lab.name("wrong"))).exists());
}

#[test]
fn root_a_namespace_of_somebody_else_is_used_and_left_as_it_was() {
    let _alone = alone();
    if !root() {
        return;
    }
    let lab = Lab::new("c-exist");
    let mut helper = lab.start();
    what_is_no_namespace_is_refused(&lab, &mut helper);
    let name = lab.name("foreign");
    let ip = |arguments: &[&str]| success(&Command::new("ip").args(arguments).output().unwrap());
    ip(&["netns", "add", &name]);
    let mut resident = Command::new("ip").args(["netns", "exec", &name, "sleep", "1000"]).spawn().unwrap();
    let path = Path::new("/run/netns").join(&name);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    let of_resident = format!("/proc/{}/ns/net", resident.id());
    until("the resident has moved in", || fs::read_link(&of_resident).is_ok_and(|theirs| theirs != own));
    let look = |words: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name, "ip", "-j"]).args(words.split_whitespace());
        serde_json::from_str(&success(&command.output().unwrap())).unwrap()
    };
    // As `ip netns add` leaves it, and as most have it.
    uses_a_foreign_namespace(&lab, &mut helper, Existing::Name(name.clone()), look);
    ip(&["-n", &name, "link", "set", "lo", "up"]);
    for existing in [Existing::Path(path), Existing::Pid(resident.id()), Existing::Name(name.clone())] {
        uses_a_foreign_namespace(&lab, &mut helper, existing, look);
    }
    assert!(lives(resident.id()), "nobody's process is touched");
    resident.kill().unwrap();
    resident.wait().unwrap();
    assert_eq!(lab.names(), std::slice::from_ref(&name));
    ip(&["netns", "del", &name]);
    clean(&lab, helper);
}

// ---- as root ---------------------------------------------------------------------------------------------------

#[test]
fn root_containers_see_what_they_were_given() {
    let _alone = alone();
    if root() {
        containers_see_what_they_were_given(&Lab::new("c-seen"));
    }
}

#[test]
fn root_the_end_of_a_container_is_the_end_of_all_its_processes() {
    let _alone = alone();
    if root() {
        the_end_of_a_container_is_the_end_of_all_its_processes(&Lab::new("c-ends"));
    }
}

#[test]
fn root_containers_end_with_their_pod_and_are_forgotten() {
    let _alone = alone();
    if root() {
        containers_end_with_their_pod_and_are_forgotten(&Lab::new("c-pods"));
    }
}

#[test]
fn root_two_containers_share_localhost_and_collide() {
    let _alone = alone();
    if root() {
        two_containers_share_localhost_and_collide(&Lab::new("c-share"));
    }
}

#[test]
fn root_containers_are_started_again() {
    let _alone = alone();
    if root() {
        containers_are_started_again(&Lab::new("c-again"));
    }
}

#[test]
fn root_probes_are_asked_in_the_pod() {
    let _alone = alone();
    if root() {
        probes_are_asked_in_the_pod(&Lab::new("c-probe"));
    }
}

#[test]
fn root_containers_outlive_their_parent_and_are_adopted() {
    let _alone = alone();
    if root() {
        let test = std::env::current_exe().unwrap();
        containers_outlive_their_parent_and_are_adopted(&mut Lab::new("c-adopt"), &test);
    }
}

// ---- as an ordinary user ---------------------------------------------------------------------------------------

#[test]
fn an_ordinary_user_has_the_same_in_a_user_namespace() {
    let _alone = alone();
    if !geteuid().is_root() {
        if fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err() {
            return skip("/dev/net/tun cannot be opened");
        }
        return all_as_user(&std::env::current_exe().unwrap());
    }
    let ran = OrdinaryUser::new("c-user").run(&[]);
    assert!(success(&ran).contains("1 passed"));
}

#[test]
#[ignore = "a role that other tests start"]
fn role_user() {
    if let Some(test) = std::env::var_os("VSWITCH_TEST_USER") {
        all_as_user(Path::new(&test));
    }
}

fn all_as_user(test: &Path) {
    assert!(!geteuid().is_root());
    containers_see_what_they_were_given(&Lab::new("cu-seen"));
    the_end_of_a_container_is_the_end_of_all_its_processes(&Lab::new("cu-ends"));
    containers_end_with_their_pod_and_are_forgotten(&Lab::new("cu-pods"));
    two_containers_share_localhost_and_collide(&Lab::new("cu-share"));
    containers_are_started_again(&Lab::new("cu-again"));
    probes_are_asked_in_the_pod(&Lab::new("cu-probe"));
    containers_outlive_their_parent_and_are_adopted(&mut Lab::new("cu-adopt"), test);
    // Of namespaces that it did not make an ordinary user's helper can join those of its own pods only.
    let lab = Lab::new("cu-exist");
    let mut helper = lab.start();
    what_is_no_namespace_is_refused(&lab, &mut helper);
    let host = helper.create(&lab.spec("host", 16)).unwrap().namespace;
    let look = |words: &str| ip(&host, words);
    for existing in [Existing::Pid(host.pause_pid), Existing::Name(host.name.clone())] {
        uses_a_foreign_namespace(&lab, &mut helper, existing, look);
    }
    let mut spec = lab.spec("hosts", 17);
    spec.existing = Some(Existing::Pid(std::process::id()));
    let error = failure(helper.create(&spec).unwrap_err());
    assert_eq!(error.kind, FailureKind::NotPermitted);
    assert!(error.message.contains("only root"), "{error}");
    clean(&lab, helper);
}
