//! How containers end: by themselves, with their pod, and when they are told to.

use super::*;

pub(crate) fn the_end_of_a_container_is_the_end_of_all_its_processes(lab: &Lab) {
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

pub(crate) fn containers_end_with_their_pod_and_are_forgotten(lab: &Lab) {
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
    // More than a packet to the helper holds, than a program may be given, and than a message may be.
    let of_octets = |length| script(lab, "long", &format!(": {}", "x".repeat(length)));
    containers.run(name, &of_octets(70_000)).unwrap();
    assert_eq!(ended(&mut containers, name, "long"), 0);
    let error = failure(containers.run(name, &of_octets(200_000)).unwrap_err());
    assert!(error.kind == FailureKind::System && error.message.contains("list too long"), "{error}");
    let error = failure(containers.run(name, &of_octets(9 << 20)).unwrap_err());
    assert!(error.kind == FailureKind::Invalid && error.message.contains("8388608 are allowed"), "{error}");
    let mut spec = script(lab, "a/b", "true");
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

pub(crate) fn guests_share_a_network_and_nothing_else(lab: &Lab) {
    let mut helper = lab.start();
    let host = helper.create(&lab.spec("host", 20)).unwrap().namespace;
    let mut spec = lab.spec("guest", 20);
    let error = failure(helper.join(&spec, &lab.name("none")).unwrap_err());
    assert_eq!(error.kind, FailureKind::NotFound);
    let names = lab.names();
    spec.hostname = Some("visitor".to_owned());
    let guest = helper.join(&spec, &host.name).unwrap();
    spec.name = lab.name("other");
    let other = helper.join(&spec, &host.name).unwrap();
    assert_eq!(lab.names(), names, "they get no further names");
    assert_eq!((guest.netns_inode, other.netns_inode), (host.netns_inode, host.netns_inode));
    assert_eq!(kind(helper.tap(&guest.name).unwrap_err()), FailureKind::NotFound);
    let look = "hostname; cat /sys/class/net/eth0/address; echo /proc/[0-9]*";
    let see = |target: &Namespace| success(&output(&enter(target, "sh -c").arguments([look])));
    let (seen, hosts) = (see(&guest), see(&host));
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[1]), ("visitor", hosts.lines().nth(1).unwrap()));
    // Each is a kill domain of its own.
    let mut containers = containers(lab);
    let sleeps = |name: &str| script(lab, name, "exec sleep 1000");
    for (target, name) in [(&host, "h"), (&guest, "g"), (&other, "o")] {
        containers.run(&target.name, &sleeps(name)).unwrap();
    }
    assert_eq!(helper.delete(&guest.name).unwrap(), Vec::<String>::new());
    for (target, name) in [(&host, "h"), (&other, "o")] {
        assert_eq!(info(&mut containers, &target.name, name).state, RunState::Running);
    }
    // What has ended is forgotten when that is asked for, and nothing else.
    let (code, _) = run(&mut containers, &other, &script(lab, "done", "true"));
    containers.forget(&other.name).unwrap();
    let left: Vec<String> = containers.list().unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!((code, left), (0, words(&["h", "o"])));
    // They do not outlive their host.
    nix::sys::signal::kill(pid_of(host.pause_pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    until("the guest has ended", || !containers.namespace(&other.name).unwrap().alive);
    assert_eq!(ended(&mut containers, &other.name, "o"), 137);
    clean(lab, helper);
}

/// A server in a pod of its own, the connection to it, and how to end it.
pub(crate) fn servers_end_when_nobody_is_connected(lab: &Lab) {
    let mut helper = lab.start();
    let namespace = helper.create(&lab.spec("drain", 21)).unwrap().namespace;
    let runner = Runner::start(&lab.options).unwrap();
    let mut pod = PodSpec::new(&namespace.name);
    let mut web = builtin("web", &["http", "--port", "8080"]);
    web.probes.readiness = Some(probe(Check::TcpSocket { host: None, port: 8080 }));
    let flag = lab.options.state.root().join("hooked");
    let touch = words(&["sh", "-c", &format!("echo $NAME > {}; sleep 0.5", flag.display())]);
    web.env = vec![("NAME".to_owned(), "web".to_owned())];
    web.pre_stop = Some(PreStop::Ask(Check::Exec(touch)));
    pod.containers = vec![web, builtin("echo", &["echo"])];
    pod.containers[1].probes.readiness = Some(probe(Check::TcpSocket { host: None, port: 7777 }));
    runner.add(pod.clone());
    until_ready(&runner, &pod);
    // One connection asks before and after the server is told, another speaks to the echo and then goes.
    let script = "exec 3<>/dev/tcp/127.0.0.1/8080 4<>/dev/tcp/127.0.0.1/7777\n\
                  ask() { printf 'GET /%s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' $1 >&3; \
                  while read -r line <&3; do echo \"$line\"; case $line in path*) break;; esac; done; }\n\
                  ask one; read go; echo hello >&4; read -r line <&4; echo echo $line; exec 4>&-\n\
                  ask two; cat <&3; echo closed";
    let mut command = enter(&namespace, "bash -c").arguments([script]).command();
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    runner.remove(&pod.namespace, Some(Duration::from_secs(30)));
    until("the hook has run", || fs::read_to_string(&flag).is_ok_and(|text| text == "web\n"));
    std::thread::sleep(Duration::from_secs(1));
    let waiting = status(&runner, &pod);
    assert!(waiting.terminating && waiting.serving, "both wait for their clients: {waiting:?}");
    use std::io::Write as _;
    client.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let said = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let (before, after) = said.split_once("echo hello\n").unwrap_or_else(|| panic!("{said}"));
    assert!(before.contains("path /one") && !before.contains("connection: close"), "{said}");
    assert!(after.contains("connection: close") && after.ends_with("path /two\nclosed\n"), "{said}");
    assert!(runner.wait_removed(&pod.namespace, Duration::from_secs(10)), "long before its time is over");
    drop(runner);
    fs::remove_file(&flag).unwrap();
    clean(lab, helper);
}

#[test]
fn root_guests_share_a_network_and_nothing_else() {
    as_root("c-guest", |lab| guests_share_a_network_and_nothing_else(lab));
}

#[test]
fn root_servers_end_when_nobody_is_connected() {
    as_root("c-drain", |lab| servers_end_when_nobody_is_connected(lab));
}

#[test]
fn root_the_end_of_a_container_is_the_end_of_all_its_processes() {
    as_root("c-ends", |lab| the_end_of_a_container_is_the_end_of_all_its_processes(lab));
}

#[test]
fn root_containers_end_with_their_pod_and_are_forgotten() {
    as_root("c-pods", |lab| containers_end_with_their_pod_and_are_forgotten(lab));
}
