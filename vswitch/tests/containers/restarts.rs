//! Who starts containers again, and who takes them over.

use std::io::{BufRead as _, BufReader};

use super::*;

pub(crate) fn containers_are_started_again(lab: &Lab) {
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

pub(crate) fn containers_outlive_their_parent_and_are_adopted(lab: &mut Lab, test_executable: &Path) {
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
        .args(["--ignored", "--exact", "restarts::role_parent", "--nocapture"])
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

#[test]
fn root_containers_are_started_again() {
    as_root("c-again", |lab| containers_are_started_again(lab));
}

#[test]
fn root_containers_outlive_their_parent_and_are_adopted() {
    let test = std::env::current_exe().unwrap();
    as_root("c-adopt", |lab| containers_outlive_their_parent_and_are_adopted(lab, &test));
}
