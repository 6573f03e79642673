//! Real namespaces, holders and TAPs: what is asked for is there, and nothing stays behind.
//!
//! Everything runs as root, and again as an ordinary user. The parts that need a process of their own (a parent to
//! kill, another user) are the ignored tests named `role_*`, which this file starts by name.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "all of this file is tests"
)]

mod lab;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::*;
use netstack::addr::MacAddr;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;
use vswitch::helper::exec::Enter;
use vswitch::helper::{FailureKind, Helper, HelperError, Namespace, Offload, PodFile};

/// Waits until a frame can be read and reads it.
fn read_frame(tap: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut frame = vec![0; 70_000];
    for _ in 0..1000 {
        match nix::unistd::read(tap, &mut frame) {
            Ok(length) => {
                frame.truncate(length);
                return Ok(frame);
            }
            Err(Errno::EAGAIN) => {
                let mut wait = [PollFd::new(tap.as_fd(), PollFlags::POLLIN)];
                poll(&mut wait, PollTimeout::from(100_u8)).unwrap();
            }
            Err(errno) => return Err(errno),
        }
    }
    panic!("no frame came");
}

// ---- what is the same as root and as an ordinary user ----------------------------------------------------------

fn pods_are_as_asked(lab: &Lab) {
    let mut helper = lab.start();
    assert_eq!(helper.info().user_namespace, !geteuid().is_root());
    let mut spec = lab.spec("a", 2);
    spec.hostname = Some("pod-a".to_owned());
    spec.mtu = 9000;
    spec.files.push(PodFile { path: "/etc/hosts".into(), content: "10.1.2.3 found.test\n".to_owned() });
    let one = helper.create(&spec).unwrap();
    let mut spec = lab.spec("b", 3);
    spec.offload = Offload::Off;
    let two = helper.create(&spec).unwrap();
    assert_eq!(one.namespace.warnings, Vec::<String>::new());
    assert!(one.namespace.vnet_hdr && !two.namespace.vnet_hdr);

    let link = &ip(&one.namespace, "-d link show dev eth0")[0];
    assert_eq!(link["mtu"], 9000);
    assert_eq!(link["address"], MacAddr::local(2).to_string());
    assert_eq!(link["txqlen"], 10_000);
    assert!(link["flags"].as_array().unwrap().contains(&"UP".into()), "{link}");
    assert_eq!(link["linkinfo"]["info_data"]["type"], "tap");
    assert_eq!(link["linkinfo"]["info_data"]["vnet_hdr"], true);
    let link = &ip(&two.namespace, "-d link show dev eth0")[0];
    assert_eq!(link["mtu"], 1500);
    assert_eq!(link["linkinfo"]["info_data"]["vnet_hdr"], false);
    let loopback = &ip(&one.namespace, "addr show dev lo")[0];
    assert!(loopback["flags"].as_array().unwrap().contains(&"UP".into()));
    assert_eq!(ip(&one.namespace, "link").as_array().unwrap().len(), 2);
    for outside in fs::read_dir("/run").unwrap().flatten() {
        let name = outside.path().display().to_string();
        success(&output(&enter(&one.namespace, &format!("test -e {name} -o -L {name}"))));
    }

    let addresses = &ip(&one.namespace, "addr show dev eth0")[0]["addr_info"];
    let find = |local: &str| {
        let found = addresses.as_array().unwrap().iter().find(|address| address["local"] == local);
        found.unwrap_or_else(|| panic!("{local} in {addresses}")).clone()
    };
    assert_eq!(find("10.244.0.2")["prefixlen"], 24);
    let v6 = find("fd00:10:244::2");
    assert_eq!(v6["prefixlen"], 64);
    assert_eq!(v6["nodad"], true);
    for address in [v6, find(&MacAddr::local(2).link_local().to_string())] {
        assert!(address.get("tentative").is_none() && address.get("dadfailed").is_none(), "{address}");
    }
    assert_eq!(route(&one.namespace, "-4", "default")["gateway"], "10.244.0.1");
    assert_eq!(route(&one.namespace, "-6", "default")["gateway"], "fd00:10:244::1");
    assert_eq!(ip(&one.namespace, "-4 route").as_array().unwrap().len(), 2);

    let options = "cat /proc/sys/net/ipv6/conf/eth0/accept_ra /proc/sys/net/ipv6/conf/eth0/disable_ipv6 \
                   /proc/sys/net/ipv4/ping_group_range";
    let group = if geteuid().is_root() { "0\t2147483647" } else { "0\t0" };
    assert_eq!(success(&output(&shell(&one.namespace, options))), format!("0\n0\n{group}\n"));
    assert_eq!(success(&output(&enter(&one.namespace, "hostname"))), "pod-a\n");
    assert_eq!(success(&output(&enter(&one.namespace, "cat /etc/hosts"))), "10.1.2.3 found.test\n");
    assert_ne!(success(&output(&enter(&two.namespace, "cat /etc/hosts"))), "10.1.2.3 found.test\n");
    assert_eq!(
        success(&output(&shell(&one.namespace, "echo /sys/class/net/*"))),
        "/sys/class/net/eth0 /sys/class/net/lo\n"
    );

    // A frame comes out of each TAP, with and without the header of ten octets.
    for (created, header) in [(&one, 10), (&two, 0)] {
        output(&shell(&created.namespace, "echo x | timeout 1 bash -c 'cat > /dev/udp/10.244.0.1/9'"));
        until("an ARP request for the gateway comes", || {
            let frame = read_frame(&created.tap).unwrap();
            frame.get(header + 12..header + 14) == Some(&[0x08, 0x06])
                && frame.get(header + 38..header + 42) == Some(&[10, 244, 0, 1])
        });
    }
    assert_eq!(
        helper.list().unwrap(),
        [one.namespace.clone(), two.namespace.clone()],
        "what is listed is what was returned"
    );
    let again = helper.tap(&one.namespace.name).unwrap();
    nix::unistd::write(&again, &[0; 10 + 60]).unwrap();

    assert_eq!(helper.delete(&one.namespace.name).unwrap(), Vec::<String>::new());
    until("the pod's processes are gone", || processes_with(&one.namespace.name).is_empty());
    assert_eq!(failure(helper.delete(&one.namespace.name).unwrap_err()).kind, FailureKind::NotFound);
    assert_eq!(failure(helper.tap(&one.namespace.name).unwrap_err()).kind, FailureKind::NotFound);
    assert_eq!(helper.list().unwrap(), [two.namespace]);
    assert_eq!(helper.shutdown().unwrap(), Vec::<String>::new());
    lab.assert_clean();
}

fn a_node_local_port_reaches_its_gateway_by_a_host_route(lab: &Lab) {
    let mut helper = lab.start();
    let mut spec = lab.spec("node", 4);
    spec.addresses = vec!["10.20.30.4/32".parse().unwrap(), "fd00:20::4/128".parse().unwrap()];
    spec.gateway_v4 = Some(Ipv4Addr::new(169, 254, 1, 1));
    spec.gateway_v6 = Some("fe80::1".parse().unwrap());
    let link_local = helper.create(&spec).unwrap().namespace;
    assert_eq!(route(&link_local, "-4", "169.254.1.1")["scope"], "link");
    assert_eq!(route(&link_local, "-4", "default")["gateway"], "169.254.1.1");
    assert_eq!(route(&link_local, "-6", "default")["gateway"], "fe80::1");
    spec.name = lab.name("node6");
    spec.gateway_v6 = Some("fd00:20::1".parse().unwrap());
    spec.interface = "uplink0".to_owned();
    let global = helper.create(&spec).unwrap().namespace;
    assert_eq!(route(&global, "-6", "fd00:20::1")["dev"], "uplink0");
    assert_eq!(route(&global, "-6", "default")["gateway"], "fd00:20::1");
    // MTU 576 leaves no IPv6; 65520 is what the largest TAP takes.
    for (mtu, id) in [(576, 5), (65520, 6)] {
        let mut spec = lab.spec(&format!("mtu{mtu}"), id);
        spec.mtu = mtu;
        if mtu < 1280 {
            assert_eq!(failure(helper.create(&spec).unwrap_err()).kind, FailureKind::Invalid);
            spec.addresses.truncate(1);
            spec.gateway_v6 = None;
        }
        let namespace = helper.create(&spec).unwrap().namespace;
        assert_eq!(ip(&namespace, "link show dev eth0")[0]["mtu"], mtu);
    }
    helper.shutdown().unwrap();
    lab.assert_clean();
}

fn a_failure_at_the_last_step_undoes_all_steps(lab: &Lab) {
    let mut helper = lab.start();
    let mut spec = lab.spec("broken", 5);
    spec.files.push(PodFile { path: "/etc/hosts".into(), content: String::new() });
    // The kernel refuses a broadcast address as gateway, and the default route comes last.
    spec.gateway_v4 = Some(Ipv4Addr::new(10, 244, 0, 255));
    let error = failure(helper.create(&spec).unwrap_err());
    assert_eq!(error.kind, FailureKind::System);
    assert!(error.message.contains("default route via 10.244.0.255"), "{error}");
    assert_eq!(error.left_behind, Vec::<String>::new());
    assert_eq!(helper.list().unwrap(), []);
    until("the holder is gone", || processes_with(&spec.name).is_empty());
    assert_eq!(lab.names(), Vec::<String>::new());
    assert!(walk(&lab.options.state.namespaces()).is_empty());
    // The same name works once the fault is gone, and then is taken.
    spec.gateway_v4 = None;
    helper.create(&spec).unwrap();
    assert_eq!(failure(helper.create(&spec).unwrap_err()).kind, FailureKind::Exists);
    assert_eq!(helper.list().unwrap().len(), 1);
    helper.shutdown().unwrap();
    lab.assert_clean();
}

fn programs_run_in_pods_and_end_with_them(lab: &Lab) {
    let mut helper = lab.start();
    let pod = helper.create(&lab.spec("run", 7)).unwrap();
    let namespace = &pod.namespace;
    assert_eq!(enter(namespace, "true").run().unwrap().code(), Some(0));
    assert_eq!(shell(namespace, "exit 7").run().unwrap().code(), Some(7));
    assert_eq!(shell(namespace, "kill -TERM $$").run().unwrap().code(), Some(128 + 15));
    assert_eq!(shell(namespace, "kill -KILL $$").run().unwrap().code(), Some(128 + 9));
    let absent = output(&enter(namespace, "no-such-program"));
    assert_eq!(absent.status.code(), Some(127), "{absent:?}");
    assert!(String::from_utf8_lossy(&absent.stderr).contains("no-such-program"));
    assert_eq!(output(&enter(namespace, "/etc/passwd")).status.code(), Some(126));
    assert_eq!(output(&enter(namespace, "true").directory("/no/such")).status.code(), Some(125));
    let mut other = namespace.clone();
    other.netns_inode += 1;
    assert_eq!(output(&enter(&other, "true")).status.code(), Some(125), "another namespace is not entered");

    assert_eq!(success(&output(&enter(namespace, "pwd").directory("/proc"))), "/proc\n");
    let mut command = shell(namespace, "echo $MARK; cat").command();
    command.env("MARK", "from outside").stdin(fs::File::open("/dev/null").unwrap());
    assert_eq!(success(&command.output().unwrap()), "from outside\n");
    // The first process is the holder, the program has a small number, and the host's are not to be seen.
    let numbers = success(&output(&shell(namespace, "cat /proc/1/cmdline | tr '\\0' ' '; echo; echo $$")));
    assert!(numbers.starts_with("vswitch __pause "), "{numbers}");
    assert!(numbers.lines().nth(1).unwrap().parse::<u32>().unwrap() < 100, "{numbers}");
    let seen = success(&output(&shell(namespace, "echo /proc/[0-9]*")));
    assert_eq!(seen.split_whitespace().count(), 2, "the holder and the shell: {seen}");
    let blocked = success(&output(&enter(namespace, "grep SigBlk /proc/self/status")));
    assert_eq!(blocked, "SigBlk:\t0000000000000000\n", "programs start with no signal blocked");
    let status = enter(namespace, "grep NoNewPrivs /proc/self/status").no_new_privileges();
    assert_eq!(success(&output(&status)), "NoNewPrivs:\t1\n");
    if geteuid().is_root() {
        assert_eq!(success(&output(&shell(namespace, "id -u; id -G").user(1234, 99))), "1234\n99\n");
    } else {
        assert_eq!(success(&output(&enter(namespace, "id -u").user(0, 0))), "0\n");
        assert_eq!(output(&enter(namespace, "true").user(1234, 99)).status.code(), Some(125));
    }

    signals_reach_the_program(lab, namespace);
    orphans_are_collected(namespace);

    let mark = format!("{}-sleeper", lab.mark);
    let script =
        format!("sh -c 'sleep 1000 # {mark}; :' & sh -c 'trap \"\" TERM; sleep 1000 # {mark}; :' & wait");
    let mut child = spawn(&shell(namespace, &script));
    // The process that waits, the shell, and its two shells.
    until("the sleepers run", || processes_with(&mark).len() >= 4);
    helper.delete(&namespace.name).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    until("the sleepers are gone", || processes_with(&mark).is_empty());
    assert_eq!(
        output(&enter(namespace, "true")).status.code(),
        Some(125),
        "a pod that is gone is not entered"
    );
    helper.shutdown().unwrap();
    lab.assert_clean();
}

fn spawn(enter: &Enter) -> Child {
    enter.command().stdin(Stdio::null()).spawn().unwrap()
}

fn signals_reach_the_program(lab: &Lab, namespace: &Namespace) {
    let mark = format!("{}-trap", lab.mark);
    let mut child = enter_piped(&shell(
        namespace,
        &format!("trap 'exit 9' TERM; echo {mark}; while :; do sleep 0.02; done"),
    ));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    kill(pid_of(child.id()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    // Killing the process that waits kills the program.
    let mut child = spawn(&shell(namespace, &format!("exec sleep 1000 # {mark}")));
    until("the program runs", || children_of(child.id()).len() == 1);
    let [program] = children_of(child.id())[..] else { panic!() };
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    until("the program is gone", || !lives(program));
}

fn enter_piped(enter: &Enter) -> Child {
    enter.command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

fn orphans_are_collected(namespace: &Namespace) {
    success(&output(&shell(namespace, "for i in 1 2 3 4 5 6 7 8; do (sleep 0.05 &) ; done")));
    until("no orphan and no zombie is left in the pod", || children_of(namespace.pause_pid).is_empty());
}

fn a_helper_of_a_parent_that_was_killed(lab: &mut Lab, test_executable: &Path) {
    // The role takes the state directory for itself.
    lab.state = None;
    // Left alone: everything is gone after the grace.
    let (mut parent, namespace) = start_parent(lab, test_executable, 1000);
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(lives(namespace.pause_pid), "the pod outlives its owner");
    lab.assert_clean();

    // Adopted: the pod and its TAP go on.
    let (mut parent, namespace) = start_parent(lab, test_executable, 60_000);
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert_eq!(failure(Helper::start(&lab.options).unwrap_err()).kind, FailureKind::Exists);
    let mut helper = Helper::adopt(&lab.options).unwrap().unwrap();
    assert_eq!(helper.list().unwrap(), [Namespace { warnings: Vec::new(), ..namespace.clone() }]);
    let tap = helper.tap(&namespace.name).unwrap();
    output(&shell(&namespace, "echo x | timeout 1 bash -c 'cat > /dev/udp/10.244.0.1/9'"));
    read_frame(&tap).unwrap();
    drop(helper);
    // The grace is the adopter's, one second.
    lab.assert_clean();

    // Reclaimed: everything is gone at once, and doing it again changes nothing.
    let (mut parent, namespace) = start_parent(lab, test_executable, 60_000);
    parent.kill().unwrap();
    parent.wait().unwrap();
    let reclaimed = Helper::reclaim(&lab.options.state).unwrap();
    assert!(reclaimed.helper.is_some() && reclaimed.problems.is_empty(), "{reclaimed:?}");
    assert!(!lives(namespace.pause_pid));
    lab.assert_clean();
    assert_eq!(Helper::reclaim(&lab.options.state).unwrap(), Default::default());
    assert!(Helper::adopt(&lab.options).unwrap().is_none());
}

fn start_parent(lab: &Lab, test_executable: &Path, grace_ms: u64) -> (Child, Namespace) {
    let mut child = Command::new(test_executable)
        .args(["--ignored", "--exact", "role_parent", "--nocapture"])
        .env("VSWITCH_TEST_EXECUTABLE", executable())
        .env("VSWITCH_TEST_STATE", lab.options.state.root())
        .env("VSWITCH_TEST_MARK", &lab.mark)
        .env("VSWITCH_TEST_GRACE", grace_ms.to_string())
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
    lab.options.grace = Duration::from_millis(std::env::var("VSWITCH_TEST_GRACE").unwrap().parse().unwrap());
    let mut helper = lab.start();
    let created = helper.create(&lab.spec("orphan", 8)).unwrap();
    println!("\nPOD {}", serde_json::to_string(&created.namespace).unwrap());
    loop {
        std::thread::park();
    }
}

// ---- as root ---------------------------------------------------------------------------------------------------

#[test]
fn root_pods_are_as_asked() {
    as_root("asked", |lab| {
        let links =
            || success(&Command::new("ip").args(["-o", "link"]).output().unwrap()).contains("uplink0");
        let before = links();
        pods_are_as_asked(lab);
        a_node_local_port_reaches_its_gateway_by_a_host_route(&Lab::new("node"));
        assert_eq!(before, links(), "no interface of a pod is ever the host's");
    });
}

#[test]
fn root_a_failure_at_the_last_step_undoes_all_steps() {
    as_root("undo", |lab| a_failure_at_the_last_step_undoes_all_steps(lab));
}

#[test]
fn root_programs_run_in_pods_and_end_with_them() {
    as_root("exec", |lab| programs_run_in_pods_and_end_with_them(lab));
}

#[test]
fn root_a_helper_of_a_parent_that_was_killed() {
    let test = std::env::current_exe().unwrap();
    as_root("orphan", |lab| a_helper_of_a_parent_that_was_killed(lab, &test));
}

#[test]
fn root_a_name_that_somebody_else_made_is_left_alone() {
    let _alone = alone();
    if !root() {
        return;
    }
    let lab = Lab::new("foreign");
    let mut helper = lab.start();
    let name = lab.name("x");
    success(&Command::new("ip").args(["netns", "add", &name]).output().unwrap());
    let error = failure(helper.create(&lab.spec("x", 2)).unwrap_err());
    assert_eq!(error.kind, FailureKind::Exists);
    assert!(walk(&lab.options.state.namespaces()).is_empty());
    helper.shutdown().unwrap();
    Helper::reclaim(&lab.options.state).unwrap();
    assert_eq!(lab.names(), std::slice::from_ref(&name));
    // `ip` can end a pod's name as well, and then the pod can be deleted all the same.
    success(&Command::new("ip").args(["netns", "del", &name]).output().unwrap());
    let mut helper = lab.start();
    helper.create(&lab.spec("x", 2)).unwrap();
    success(&Command::new("ip").args(["netns", "del", &name]).output().unwrap());
    assert_eq!(helper.delete(&name).unwrap(), Vec::<String>::new());
    helper.shutdown().unwrap();
    lab.assert_clean();
}

#[test]
fn root_a_helper_that_was_killed_takes_its_pods_along_and_its_names_are_reclaimed() {
    let _alone = alone();
    if !root() {
        return;
    }
    let lab = Lab::new("killed");
    let mut helper = lab.start();
    let one = helper.create(&lab.spec("a", 2)).unwrap();
    let two = helper.create(&lab.spec("b", 3)).unwrap();
    let mark = format!("{}-sleeper", lab.mark);
    let mut child = spawn(&shell(&one.namespace, &format!("sleep 1000 # {mark}; :")));
    until("the sleeper runs", || children_of(child.id()).iter().any(|shell| !children_of(*shell).is_empty()));
    kill(pid_of(helper.info().pid), Signal::SIGKILL).unwrap();
    until("the holders are gone", || !lives(one.namespace.pause_pid) && !lives(two.namespace.pause_pid));
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    assert!(matches!(helper.list(), Err(HelperError::Gone)));
    assert_eq!(lab.names().len(), 2);
    // One of the names is somebody else's by now.
    success(&Command::new("ip").args(["netns", "del", &two.namespace.name]).output().unwrap());
    success(&Command::new("ip").args(["netns", "add", &two.namespace.name]).output().unwrap());
    drop(helper);
    let reclaimed = Helper::reclaim(&lab.options.state).unwrap();
    assert_eq!(reclaimed.namespaces, [one.namespace.name]);
    assert_eq!((reclaimed.helper, reclaimed.problems.len()), (None, 0));
    assert_eq!(lab.names(), std::slice::from_ref(&two.namespace.name));
    success(&Command::new("ip").args(["netns", "del", &two.namespace.name]).output().unwrap());
    assert_eq!(Helper::reclaim(&lab.options.state).unwrap(), Default::default());
    lab.assert_clean();
}

#[test]
fn root_a_namespace_that_vanishes_underneath_is_seen_on_the_descriptor() {
    let _alone = alone();
    if !root() {
        return;
    }
    let lab = Lab::new("vanish");
    let mut helper = lab.start();
    let pod = helper.create(&lab.spec("a", 2)).unwrap();
    kill(pid_of(pod.namespace.pause_pid), Signal::SIGKILL).unwrap();
    until("the helper has noticed", || !helper.list().unwrap()[0].alive);
    // The name alone keeps the namespace and its interface.
    assert_eq!(ip(&pod.namespace, "link show dev eth0")[0]["mtu"], 1500);
    success(&Command::new("ip").args(["netns", "del", &pod.namespace.name]).output().unwrap());
    let mut last = None;
    until("the descriptor reports the end", || {
        let mut frame = [0; 2048];
        last = nix::unistd::read(&pod.tap, &mut frame).err();
        last == Some(Errno::EBADFD)
    });
    let mut wait = [PollFd::new(pod.tap.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut wait, PollTimeout::ZERO).unwrap(), 1, "poll wakes for it");
    assert_eq!(helper.delete(&pod.namespace.name).unwrap(), Vec::<String>::new());
    helper.shutdown().unwrap();
    lab.assert_clean();
}

#[test]
fn root_a_hundred_pods_come_and_go() {
    let _alone = alone();
    if !root() {
        return;
    }
    let lab = Lab::new("many");
    let mut helper = lab.start();
    let pods: Vec<_> =
        (0..100_u8).map(|id| helper.create(&lab.spec(&format!("{id:03}"), id + 2)).unwrap()).collect();
    // More than one page.
    let listed = helper.list().unwrap();
    assert_eq!(listed, pods.iter().map(|pod| pod.namespace.clone()).collect::<Vec<_>>());
    drop(pods);
    assert_eq!(helper.shutdown().unwrap(), Vec::<String>::new());
    lab.assert_clean();
}

// ---- as an ordinary user ---------------------------------------------------------------------------------------

#[test]
fn an_ordinary_user_has_the_same_in_a_user_namespace() {
    as_user(all_as_user, || {
        let before = success(&Command::new("ip").args(["netns", "list"]).output().unwrap()).contains("vst-");
        let user = OrdinaryUser::new("user");
        let usual = user.run(&[]);
        // Where nobody has ever used `ip netns`, an ordinary user cannot make the directory for the names.
        let script = "mount -t tmpfs none /run && mkdir /run/kept && ln -s kept /run/link && exec \"$@\"";
        let bare = user.run(&["sh", "-c", script, "sh"]);
        drop(user);
        assert!(success(&usual).contains("1 passed"));
        assert!(success(&bare).contains("1 passed"));
        let after = success(&Command::new("ip").args(["netns", "list"]).output().unwrap()).contains("vst-");
        assert_eq!(before, after, "the host never sees the names of an ordinary user");
    });
}

#[test]
#[ignore = "a role that other tests start"]
fn role_user() {
    in_role_of_user(all_as_user);
}

fn all_as_user(test: &Path) {
    assert!(!geteuid().is_root());
    pods_are_as_asked(&Lab::new("u-asked"));
    a_node_local_port_reaches_its_gateway_by_a_host_route(&Lab::new("u-node"));
    a_failure_at_the_last_step_undoes_all_steps(&Lab::new("u-undo"));
    programs_run_in_pods_and_end_with_them(&Lab::new("u-exec"));
    a_helper_of_a_parent_that_was_killed(&mut Lab::new("u-orphan"), test);
    let doctor = Command::new(executable()).arg("doctor").output().unwrap();
    assert!(success(&doctor).contains("made and removed one in a user namespace"));
}

// ---- the command -----------------------------------------------------------------------------------------------

#[test]
fn the_doctor_has_tried_to_make_a_pod() {
    let _alone = alone();
    if root() {
        let text = success(&Command::new(executable()).arg("doctor").output().unwrap());
        assert!(text.contains("made and removed one as root, with offload"), "{text}");
        assert!(text.contains("io_uring"), "{text}");
        assert!(processes_with("vswitch-doctor-").is_empty());
        let stale = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        assert!(
            !stale
                .map(|e| e.file_name().into_string().unwrap())
                .any(|name| name.starts_with("vswitch-doctor"))
        );
    }
}

#[test]
fn the_inner_roles_refuse_to_be_started_by_hand() {
    for role in ["__helper", "__pause", "__enter"] {
        let output = Command::new(executable()).arg(role).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{role}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("vswitch: "), "{role}: {output:?}");
    }
}
