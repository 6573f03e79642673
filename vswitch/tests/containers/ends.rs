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

#[test]
fn root_the_end_of_a_container_is_the_end_of_all_its_processes() {
    as_root("c-ends", |lab| the_end_of_a_container_is_the_end_of_all_its_processes(lab));
}

#[test]
fn root_containers_end_with_their_pod_and_are_forgotten() {
    as_root("c-pods", |lab| containers_end_with_their_pod_and_are_forgotten(lab));
}
