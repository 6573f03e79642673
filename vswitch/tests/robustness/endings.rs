//! What vanishes, what is killed, and clients that hang.

use super::*;

#[test]
fn a_pod_that_vanishes_is_noticed_and_the_others_go_on() {
    let _alone = alone();
    if !ready(&["ping", "ip"]) {
        return;
    }
    let cluster = Cluster::up("vanish", &[]);
    let sleeper = cluster.spawn("gamma", &["sleep", "1000"]);
    let inner = inside(&sleeper);
    let ping = Pinging::start(&cluster, "alpha", "10.244.0.3", 60);
    // Its first process only: the name would keep the namespace.
    kill(pause_of(&cluster, "default/gamma"), Signal::SIGKILL).unwrap();
    until("the port is gone", || state(&cluster, "default/gamma") == "gone");
    let told = |what: &str| events(&cluster).iter().filter(|text| text.contains(what)).count();
    until("it is told", || told("default/gamma has ended") == 1);
    until("its processes are gone", || inner.iter().all(|pid| kill(*pid, None).is_err()));
    let netns = format!("/run/netns/{}.default.gamma", cluster.name);
    until("its name is gone", || !Path::new(&netns).exists());
    // The namespace first, and then the process.
    let netns = format!("{}.host.outside", cluster.name);
    success("ip netns del", &Command::new("ip").args(["netns", "del", &netns]).output().unwrap());
    kill(pause_of(&cluster, "host/outside"), Signal::SIGKILL).unwrap();
    until("the port is gone", || state(&cluster, "host/outside") == "gone");
    until("it is told", || told("host/outside") > 0);
    ping.lost_nothing();
    assert_eq!(state(&cluster, "default/alpha"), "up");
    assert_eq!((told("default/gamma"), told("host/outside")), (1, 1), "{:?}", events(&cluster));
    let refused = cluster.exec("gamma", &["true"]);
    assert_eq!(refused.status.code(), Some(125), "{}", both(&refused));
    assert!(both(&refused).contains("it is gone"), "{}", both(&refused));
    // Nobody answers for it any more.
    assert!(!cluster.exec("alpha", &["ping", "-c", "1", "-W", "1", "10.244.1.2"]).status.success());
    check(&cluster);
}

#[test]
fn a_capture_at_a_port_that_vanishes_ends_with_its_reader() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("capture", &[]);
    let file = cluster.state.join("capture.pcapng");
    let mut command = cluster.command(&["capture", "gamma", "-w", file.to_str().unwrap()]);
    let mut capture = Running::start(&mut command);
    until("the capture has begun", || fs::metadata(&file).is_ok_and(|m| m.len() > 0));
    cluster.must("alpha", &["ping", "-c", "2", "10.244.1.2"]);
    kill(pause_of(&cluster, "default/gamma"), Signal::SIGKILL).unwrap();
    until("the port is gone", || state(&cluster, "default/gamma") == "gone");
    assert!(capture.status().success());
    assert!(fs::metadata(&file).unwrap().len() > 400);
    let again = cluster.verb(&["capture", "gamma", "-c", "1", "-w", "/dev/null"]);
    assert!(!again.status.success() && both(&again).contains("gone"), "{}", both(&again));
}

#[test]
fn captures_of_one_port_do_not_disturb_each_other() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("captures", &[]);
    let size = |file: &Path| fs::metadata(file).map_or(0, |m| m.len());
    let [long, short] = ["long", "short"].map(|name| cluster.state.join(format!("{name}.pcapng")));
    let begin = |port: &str, file: &Path, more: &[&str]| {
        let capture = Running::start(cluster.command(&["capture", port, "-w"]).arg(file).args(more));
        until("the capture has begun", || size(file) > 0);
        capture
    };
    let mut all = begin("any", &long, &[]);
    let mut few = begin("alpha", &short, &["-c", "2"]);
    let echo = || cluster.must("alpha", &["ping", "-c", "2", "-i", "0.2", "-W", "10", "10.244.0.3"]);
    echo();
    assert!(few.status().success());
    // The shorter one is over; the longer one goes on at the same port.
    sleep(600);
    let before = size(&long);
    echo();
    until("the longer capture grows", || size(&long) > before);
    assert!(all.0.try_wait().unwrap().is_none());
    kill(all.pid(), Signal::SIGTERM).unwrap();
    all.status();
}

#[test]
fn down_and_signals_leave_nothing_and_a_second_up_is_told_who_holds_the_directory() {
    let _alone = alone();
    if !ready(&["ip"]) {
        return;
    }
    let interfaces = || success("ip", &Command::new("ip").args(["-o", "link"]).output().unwrap());
    let before = interfaces().lines().count();
    let cluster = Cluster::up("down", &[]);
    assert_eq!(interfaces().lines().count(), before, "no interface of a pod is ever the host's");
    let second = cluster.verb(&["up", "--name", "vst-never"]);
    assert!(!second.status.success());
    let holder = format!("process {} is already running a cluster in", cluster.pid());
    assert!(both(&second).contains(&holder), "{}", both(&second));
    let absent = cluster.exec("alpha", &["no-such-program"]);
    assert_eq!(
        cluster.verb(&["exec", "alpha", "--", "no-such-program"]).status.code(),
        Some(127),
        "{absent:?}"
    );
    let (name, state) = (cluster.name.clone(), cluster.state.clone());
    let mut program = cluster.spawn("alpha", &["sleep", "1000"]);
    let text = success("down", &cluster.verb(&["down"]));
    assert_eq!(text, format!("cluster {name} is down\n"));
    assert_nothing_left(&name, &state);
    assert!(!program.runs());
    assert_eq!(success("down", &cluster.verb(&["down"])), "nothing runs here\n");
    drop(cluster);
    assert_eq!(interfaces().lines().count(), before);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let cluster = Cluster::up("signal", &[]);
        let _program = cluster.spawn("alpha", &["sleep", "1000"]);
        kill(cluster.pid(), signal).unwrap();
        assert_only_allocations_left(&cluster.name, &cluster.state);
        // Dropping it looks at the status of `up`.
    }
    // In the middle of being made.
    for delay in [0, 30, 100] {
        let name = format!("vst-early-{}-{delay}", std::process::id());
        let state = std::env::temp_dir().join(&name);
        let mut up = Command::new(executable());
        up.args(["up", "--name", &name, "--grace-ms", "0", "--state-dir"]).arg(&state).stdout(Stdio::null());
        let mut up = Running::start(&mut up);
        sleep(delay);
        // Not SIGINT, which programs in a shell's background ignore until they say otherwise.
        kill(up.pid(), Signal::SIGTERM).unwrap();
        up.status();
        assert_only_allocations_left(&name, &state);
        let _ = fs::remove_dir_all(&state);
    }
}

/// A vswitch that is stopped and not brought down remembers who had which addresses.
fn assert_only_allocations_left(name: &str, state: &Path) {
    until("the process has ended", || left_of(name).is_empty() && !state.join("control.sock").exists());
    let _ = fs::remove_file(state.join("desired.json"));
    assert_nothing_left(name, state);
}

#[test]
fn what_a_killed_vswitch_left_is_reclaimed_by_up_by_down_and_by_time() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("killed", &[]);
    let name = cluster.name.clone();
    let inodes = |cluster: &Cluster| -> Vec<(String, u64)> {
        let places = cluster.get("places").into_iter();
        places.map(|p| (p["place"].to_string(), p["netns_inode"].as_u64().unwrap())).collect()
    };
    let before = inodes(&cluster);
    let killed = cluster.kill();
    assert!(!left_of(&name).is_empty(), "pods outlive vswitch, to be adopted or reclaimed");
    let cluster = Cluster::up_as(&name, &[]);
    assert_eq!(inodes(&cluster), before, "they are taken over as they are");
    cluster.must("alpha", &["ping", "-c", "1", "-W", "10", "10.244.1.2"]);
    drop(cluster);
    drop(killed);

    let killed = Cluster::up("left", &[]).kill();
    let mut down = Command::new(executable());
    let text = success("down", &down.args(["down", "--state-dir"]).arg(&killed.state).output().unwrap());
    assert!(text.contains("ended the helper") && text.contains("nothing runs here"), "{text}");
    assert_nothing_left(&killed.name, &killed.state);
    drop(killed);

    let killed = Cluster::up("grace", &["--grace-ms", "500"]).kill();
    until("all processes and namespaces are gone", || left_of(&killed.name).is_empty());
    // What was wanted is still known, should it be started again; `down` says that it will not.
    assert!(killed.state.join("desired.json").exists());
    let mut down = Command::new(executable());
    success("down", &down.args(["down", "--state-dir"]).arg(&killed.state).output().unwrap());
    assert_nothing_left(&killed.name, &killed.state);
}

#[test]
fn a_killed_helper_is_noticed_and_nothing_of_it_stays() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("helper", &[]);
    kill(helper_of(&cluster), Signal::SIGKILL).unwrap();
    until("it is told", || events(&cluster).iter().any(|text| text.starts_with("the helper has ended")));
    let ports: Vec<PortView> = client(&cluster).get("/v1/ports").unwrap();
    let pods = ports.iter().filter(|p| p.port.contains('/'));
    assert!(pods.clone().count() > 5 && pods.clone().all(|p| p.state == "gone"), "{ports:?}");
    let namespaces = || left_of(&cluster.name).iter().any(|left| left.starts_with("namespace"));
    until("the names are gone", || !namespaces());
    assert!(both(&cluster.exec("alpha", &["true"])).contains("it is gone"));
    assert_eq!(success("down", &cluster.verb(&["down"])), format!("cluster {} is down\n", cluster.name));
    assert_nothing_left(&cluster.name, &cluster.state);
    drop(cluster);

    // Both at once, so that nobody notices anything.
    let cluster = Cluster::up("both", &[]);
    let helper = helper_of(&cluster);
    kill(cluster.pid(), Signal::SIGSTOP).unwrap();
    kill(helper, Signal::SIGKILL).unwrap();
    let killed = cluster.kill();
    let mut down = Command::new(executable());
    let text = success("down", &down.args(["down", "--state-dir"]).arg(&killed.state).output().unwrap());
    assert!(text.contains(&format!("removed the namespace {}.default.alpha", killed.name)), "{text}");
    assert_nothing_left(&killed.name, &killed.state);
}

#[test]
fn clients_that_hang_stop_nothing() {
    let _alone = alone();
    if !ready(&["iperf3", "ss", "ping"]) {
        return;
    }
    let cluster = Cluster::up("hang", &[]);
    let _server = iperf_server(&cluster, "beta");
    let socket = cluster.state.join("control.sock");
    let half: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"GET /v1/ports HTTP/1.1\r\nHost: vsw").unwrap();
            stream
        })
        .collect();
    // A capture of everything that nobody reads.
    let mut unread = UnixStream::connect(&socket).unwrap();
    unread.write_all(b"GET /v1/capture?port=any HTTP/1.1\r\nHost: vswitch\r\n\r\n").unwrap();
    let mut first = [0; 12];
    unread.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let _stream = cluster.spawn("alpha", &["iperf3", "-t", "60", "-c", "10.244.0.3"]);
    until("the stream flows", || rates(&cluster, "node-1", "default/beta", 1, 100)[0] > 1e6);
    sleep(1500);
    let before = resident_kib(cluster.pid());
    let during = rates(&cluster, "node-1", "default/beta", 6, 300);
    assert!(during.iter().all(|rate| *rate > 1e6), "{during:?}");
    cluster.must("alpha", &["ping", "-q", "-c", "10", "-i", "0.05", "-W", "10", "10.244.1.2"]);
    let grown = resident_kib(cluster.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "the switch grew by {grown} KiB");
    assert!(before < 256 * 1024, "the switch has {before} KiB");
    assert_eq!(cluster.get("places").len(), 6);
    assert!(cluster.verb(&["trace", "alpha", "icmp 10.244.1.2"]).status.success());
    // And they do not keep it from coming down.
    success("down", &cluster.verb(&["down"]));
    assert_nothing_left(&cluster.name, &cluster.state);
    drop((half, unread));
}
