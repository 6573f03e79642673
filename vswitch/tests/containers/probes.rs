//! What is asked of containers, by probes and by each other.

use super::*;

pub(crate) fn two_containers_share_localhost_and_collide(lab: &Lab) {
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

pub(crate) fn probes_are_asked_in_the_pod(lab: &Lab) {
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

#[test]
fn root_two_containers_share_localhost_and_collide() {
    as_root("c-share", |lab| two_containers_share_localhost_and_collide(lab));
}

#[test]
fn root_probes_are_asked_in_the_pod() {
    as_root("c-probe", |lab| probes_are_asked_in_the_pod(lab));
}
