//! Nothing of it needs a right: all again as a user who owns nothing.

use super::*;
use crate::common::{USER, ready};

/// Whether that user can run the command under test at all; he cannot look into everybody's home.
fn reaches_the_command() -> bool {
    let line = [&USER[..], &["test", "-x", executable()]].concat();
    let reaches = Command::new(line[0]).args(&line[1..]).status().unwrap().success();
    assert!(
        reaches || std::env::var_os("CI").is_none_or(|v| v.is_empty()),
        "{} is not for all",
        executable()
    );
    reaches
}

#[test]
fn an_ordinary_user_s_pods_reach_the_outside_and_are_reached() {
    if !ready(&["ip", "nsenter", "setpriv", "ss", "curl", "python3", "ping", "sysctl"])
        || !reaches_the_command()
    {
        return;
    }
    let net = Net::new();
    let _probes = net.probes(&net.internet);
    let builtin = include_str!("../../src/objects/builtin.yaml");
    let service = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\n\
                   spec: {nodeName: node-2, containers: [{name: web, image: vswitch/http}]}\n---\n\
                   apiVersion: v1\nkind: Service\nmetadata: {name: web}\n\
                   spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}\n";
    let cluster = Cluster::of_user("user", &net.inside(&net.machine), &format!("{builtin}{service}"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(
        (line("Uid:").split_whitespace().next(), line("CapEff:").as_str()),
        (Some("65534"), "0000000000000000")
    );
    for address in INTERNET {
        let to =
            if address.contains(':') { format!("[{address}]:{PROBE}") } else { format!("{address}:{PROBE}") };
        let octets = (10u64 << 20).to_string();
        let text = cluster.must("alpha", &[executable(), "__probe", "tcp", &to, &octets]);
        assert!(text.contains(&format!("\"bytes\":{}", 20u64 << 20)), "{text}");
        all_come_back(&to, || cluster.must("gamma", &[executable(), "__probe", "udp", &to, "50", "1200"]));
        cluster.must("beta", &["ping", "-n", "-c", "1", "-W", "5", address]);
    }
    let mut line = net.inside(&net.machine).to_vec();
    line.extend(["curl", "-sS", "--noproxy", "*", "-m", "5", "http://127.0.0.1:30080/"]);
    until("the machine reaches a Service's port of nodes", || {
        let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("host web")
    });
    at_rest(&cluster);
}

#[test]
fn the_demo_runs_for_an_ordinary_user() {
    if !ready(&["ip", "nsenter", "setpriv", "sysctl"]) || !reaches_the_command() {
        return;
    }
    let net = Net::new();
    let demo = [executable(), "demo", "--require", "tap", "--mib", "1"];
    let text = run(&[&net.inside(&net.machine)[..], &USER, &demo].concat());
    assert!(text.contains("All conversations were intact."), "{text}");
}

/// Threads that read what strangers send have given up the rest, whoever started them.
#[test]
fn the_data_path_is_confined() {
    if !ready(&["ip", "nsenter", "sysctl", "curl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("confined", "");
    // CAP_NET_BIND_SERVICE and CAP_IPC_LOCK.
    const LEFT: &str = "0000000000004400";
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let fields = ["Seccomp:", "NoNewPrivs:", "CapPrm:", "CapEff:"];
    let mut confined = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", cluster.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let name = field(&status, "Name:");
        let has = fields.map(|name| field(&status, name));
        let expected = match &name[..] {
            "names" => ["2", "1", "0000000000000000", "0000000000000000"].map(str::to_owned),
            name if name.starts_with("data path") => ["2", "1", LEFT, LEFT].map(str::to_owned),
            _ => fields.map(|name| field(&own, name)),
        };
        assert_eq!(has, expected, "{name}");
        confined += usize::from(has[0] == "2");
    }
    assert!(confined >= 2, "{confined}");
    let told = success("events", &cluster.verb(&["get", "events"]));
    assert!(!told.contains("more rights than it needs"), "{told}");
    // What pods run is not.
    let status = cluster.must("alpha", &["cat", "/proc/self/status"]);
    assert_eq!(fields.map(|name| field(&status, name)), fields.map(|name| field(&own, name)));
}
