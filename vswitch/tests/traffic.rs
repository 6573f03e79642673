//! Real programs in real pods talk to each other: ping, curl, iperf3, traceroute, and payloads compared by hash.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::time::Duration;

use common::{Background, Cluster, both, ready, three_pings, with_idle_pods};
use serde_json::Value;

/// A conversation: who asks, whom, and at which IPv4 and IPv6 address.
type Pair = (&'static str, &'static str, [&'static str; 2]);

const BETA: [&str; 2] = ["10.244.0.3", "fd00:10:244::3"];
const ALPHA: [&str; 2] = ["10.244.0.2", "fd00:10:244::2"];
const GAMMA: [&str; 2] = ["10.244.1.2", "fd00:10:244:1::2"];
const NODE_1: [&str; 2] = ["10.20.30.11", "fd00:20:30::11"];
const NODE_2: [&str; 2] = ["10.20.30.12", "fd00:20:30::12"];
const OUTSIDE: [&str; 2] = ["192.168.10.200", "fd00:192:168:10::200"];

/// Two pods on one node and across nodes, a pod to its own node and to another one, a node to a pod of its own and to one
/// elsewhere, a pod to a machine outside and back.
const PAIRS: [Pair; 8] = [
    ("alpha", "beta", BETA),
    ("alpha", "gamma", GAMMA),
    ("alpha", "node/node-1", NODE_1),
    ("beta", "node/node-2", NODE_2),
    ("node/node-1", "beta", BETA),
    ("node/node-2", "alpha", ALPHA),
    ("gamma", "host/outside", OUTSIDE),
    ("host/outside", "alpha", ALPHA),
];

const EVERYONE: [&str; 6] = ["alpha", "beta", "gamma", "node/node-1", "node/node-2", "host/outside"];

#[test]
fn pings_come_back() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("ping", &[]);
    for (from, _, addresses) in PAIRS {
        for address in addresses {
            for size in ["56", "1400", "30000"] {
                let text = cluster.must(from, &three_pings(size, address));
                assert!(
                    text.contains(" 3 received, 0% packet loss"),
                    "{from} to {address}:\n{text}\n{}",
                    both(&cluster.verb(&["get", "drops"]))
                );
            }
        }
    }
}

/// Our own addresses answer as well: the pods' gateway and the router of the underlay.
#[test]
fn switches_answer_pings_to_their_own_addresses() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("own", &[]);
    for address in ["10.244.0.1", "fd00:10:244::1", "10.20.30.1", "fd00:20:30::1", "192.168.10.1"] {
        cluster.must("alpha", &["ping", "-n", "-c", "2", "-i", "0.01", "-W", "5", address]);
    }
}

#[test]
fn curl_fetches_the_same_file() {
    if !ready(&["curl", "python3"]) {
        return;
    }
    let cluster = Cluster::up("curl", &[]);
    let directory = cluster.state.join("served");
    std::fs::create_dir(&directory).unwrap();
    let content: Vec<u8> =
        (0..300_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    std::fs::write(directory.join("file"), &content).unwrap();
    let path = directory.to_str().unwrap();
    let _servers: Vec<Background> = EVERYONE
        .iter()
        .map(|place| {
            cluster.serve(place, 8080, &["python3", "-m", "http.server", "-b", "::", "-d", path, "8080"])
        })
        .collect();
    for (from, to, [v4, v6]) in PAIRS {
        for url in [format!("http://{v4}:8080/file"), format!("http://[{v6}]:8080/file")] {
            let output = cluster.exec(from, &["curl", "-sS", "--fail", "--noproxy", "*", &url]);
            assert!(output.status.success(), "{from} to {to}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == content, "{from} to {to}: {url} differs");
        }
    }
    // Nobody listens there: the connection is refused rather than lost.
    for url in ["http://10.244.1.2:9/", "http://10.244.0.1:9/", "http://[fd00:10:244:1::2]:9/"] {
        let output = cluster.exec("alpha", &["curl", "-sS", "--noproxy", "*", "-m", "5", url]);
        assert_eq!(output.status.code(), Some(7), "{url}: {}", both(&output));
    }
}

#[test]
fn iperf3_reports_no_errors_and_no_loss() {
    if !ready(&["iperf3", "nstat"]) {
        return;
    }
    let cluster = Cluster::up("iperf", &[]);
    let _servers: Vec<Background> =
        EVERYONE.iter().map(|place| cluster.serve(place, 5201, &["iperf3", "-s"])).collect();
    for (from, to, addresses) in PAIRS {
        for address in addresses {
            for (reverse, receiver) in [(&[][..], to), (&["-R"], from)] {
                let tcp = iperf(&cluster, from, &[&["-n", "32M", "-c", address], reverse].concat());
                let received = number(&tcp, "/end/sum_received/bytes");
                let sent = number(&tcp, "/end/sum_sent/bytes");
                assert!(received > 20e6 && received <= sent, "{from}: TCP {address} {reverse:?}: {tcp:#}");
                let before = socket_overflows(&cluster, receiver);
                let udp = iperf(
                    &cluster,
                    from,
                    &[&["-u", "-b", "50M", "-n", "1M", "-l", "1200", "-c", address], reverse].concat(),
                );
                let overflows = socket_overflows(&cluster, receiver) - before;
                let packets = number(&udp, "/end/sum/packets");
                let lost = number(&udp, "/end/sum/lost_packets");
                assert!(packets > 800.0, "{from}: UDP {address} {reverse:?}: {udp:#}");
                assert!(
                    lost <= overflows,
                    "{from}: UDP {address} {reverse:?}: {lost} of {packets}, {overflows} of them in {receiver}'s socket"
                );
            }
        }
    }
}

#[track_caller]
fn iperf(cluster: &Cluster, from: &str, arguments: &[&str]) -> Value {
    let text = cluster.must(from, &[&["iperf3", "-J"], arguments].concat());
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report.get("error"), None, "{from}: {arguments:?}: {text}");
    report
}

/// Datagrams that arrived in this place while their socket's buffer was full: on a busy machine iperf3 may not get to read
/// in time, which no switch can help.
#[track_caller]
fn socket_overflows(cluster: &Cluster, place: &str) -> f64 {
    let text = cluster.must(place, &["nstat", "-asz", "UdpRcvbufErrors", "Udp6RcvbufErrors"]);
    let counts: Vec<f64> = text
        .lines()
        .filter(|line| line.contains("RcvbufErrors"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
        .collect();
    assert_eq!(counts.len(), 2, "{text}");
    counts.iter().sum()
}

#[track_caller]
fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

/// Every router on the way shows the address by which the packet reached it, or that of the node it stands for.
#[test]
fn traceroute_sees_the_true_hops() {
    if !ready(&["traceroute"]) {
        return;
    }
    let cluster = Cluster::up("hops", &[]);
    let ways: [(&str, &[[&str; 2]]); 8] = [
        ("alpha", &[BETA]),
        ("alpha", &[["10.244.0.1", "fd00:10:244::1"], NODE_2, GAMMA]),
        ("beta", &[NODE_1]),
        ("beta", &[["10.244.0.1", "fd00:10:244::1"], NODE_2]),
        ("node/node-1", &[NODE_2, GAMMA]),
        ("node/node-2", &[["10.20.30.1", "fd00:20:30::1"], OUTSIDE]),
        ("gamma", &[["10.244.1.1", "fd00:10:244:1::1"], ["10.20.30.1", "fd00:20:30::1"], OUTSIDE]),
        ("host/outside", &[["192.168.10.1", "fd00:192:168:10::1"], NODE_1, ALPHA]),
    ];
    for (from, way) in ways {
        for family in 0..2 {
            let expected: Vec<&str> = way.iter().map(|hop| hop[family]).collect();
            for method in [&[][..], &["-I"], &["-T", "-p", "81"]] {
                let seen = hops(&cluster, from, method, expected.last().unwrap());
                assert_eq!(seen, expected, "{from}, {method:?}");
            }
        }
    }
}

/// One probe per hop and one at a time: routers limit their errors to one a second after a burst of six, so a silent hop is
/// asked again later.
fn hops(cluster: &Cluster, from: &str, method: &[&str], to: &str) -> Vec<String> {
    let arguments =
        [&["traceroute", "-n", "-q", "1", "-N", "1", "-w", "1", "-m", "6"], method, &[to]].concat();
    let mut hops = Vec::new();
    for _ in 0..4 {
        let text = cluster.must(from, &arguments);
        hops = text.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).map(str::to_owned).collect();
        if !hops.iter().any(|hop| hop == "*") {
            break;
        }
        std::thread::sleep(Duration::from_secs(2));
    }
    hops
}

const TEN_MIB: &str = "10485760";

fn intact_at(mtu: &str) {
    if !ready(&[]) {
        return;
    }
    // Of every kind one end finishes its own frames and one does not.
    let plain = ["alpha", "idle-0", "gamma"];
    let mut arguments = vec!["--mtu", mtu];
    arguments.extend(plain.iter().flat_map(|place| ["--no-offload-for", place]));
    let cluster = Cluster::of(&format!("mtu{mtu}"), &with_idle_pods(2), &arguments);
    for port in cluster.get("ports") {
        let name = port["port"].as_str().unwrap();
        if name == "name server" {
            // Its datagrams are short, and it finishes them itself.
            continue;
        }
        let offloads = !port["offload"].as_array().unwrap().is_empty();
        assert_eq!(offloads, !plain.iter().any(|p| name == format!("default/{p}")), "{name}");
    }
    let ends: [Pair; 10] = [
        ("alpha", "idle-0", ["10.244.0.4", "fd00:10:244::4"]),
        ("alpha", "beta", BETA),
        ("beta", "alpha", ALPHA),
        ("beta", "idle-1", ["10.244.0.5", "fd00:10:244::5"]),
        ("alpha", "gamma", GAMMA),
        ("alpha", "node/node-2", NODE_2),
        ("beta", "gamma", GAMMA),
        ("beta", "node/node-2", NODE_2),
        ("gamma", "host/outside", OUTSIDE),
        ("host/outside", "beta", BETA),
    ];
    let servers = ["alpha", "beta", "gamma", "idle-0", "idle-1", "node/node-2", "host/outside"];
    let _servers: Vec<Background> = servers.iter().map(|place| cluster.probe_server(place, 7007)).collect();
    for (from, to, [v4, v6]) in ends {
        let mut targets = vec![format!("{v4}:7007")];
        if mtu != "576" {
            targets.push(format!("[{v6}]:7007"));
        }
        for target in targets {
            // The probe itself fails when the two ends' SHA-256 differ.
            let text = cluster.must(from, &[common::executable(), "__probe", "tcp", &target, TEN_MIB]);
            let report: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(report["bytes"], 2 * 10_485_760, "{from} to {to} ({target}) at {mtu}");
        }
    }
}

#[test]
fn ten_mebibytes_are_intact_at_mtu_576() {
    intact_at("576");
}

#[test]
fn ten_mebibytes_are_intact_at_mtu_1280() {
    intact_at("1280");
}

#[test]
fn ten_mebibytes_are_intact_at_mtu_1500() {
    intact_at("1500");
}

#[test]
fn ten_mebibytes_are_intact_at_mtu_9000() {
    intact_at("9000");
}

#[test]
fn ten_mebibytes_are_intact_at_mtu_65520() {
    intact_at("65520");
}

/// All links have one MTU, so what is too large is known at the sender: DF fails there, and without DF the sender's
/// fragments cross the switches.
#[test]
fn what_exceeds_the_mtu_fails_at_the_sender_or_arrives_in_fragments() {
    if !ready(&["ping", "tshark"]) {
        return;
    }
    for arguments in [&[][..], &["--no-offload"]] {
        let cluster = Cluster::up("pmtu", arguments);
        for (fits, exceeds, address) in [("1472", "1473", OUTSIDE[0]), ("1452", "1453", OUTSIDE[1])] {
            let ping =
                |size| cluster.exec("alpha", &["ping", "-n", "-c", "1", "-M", "do", "-s", size, address]);
            common::success(fits, &ping(fits));
            let refused = ping(exceeds);
            assert!(!refused.status.success() && both(&refused).contains("mtu"), "{refused:?}");
        }
        let _servers = ["beta", "gamma", "host/outside"].map(|place| cluster.probe_server(place, 7007));
        let file = cluster.state.join("fragments.pcapng");
        let file = file.to_str().unwrap();
        let capture = cluster.capture("default/alpha", file, 400);
        for [v4, v6] in [BETA, GAMMA, OUTSIDE] {
            for target in [format!("{v4}:7007"), format!("[{v6}]:7007")] {
                let argv = [common::executable(), "__probe", "udp", &target, "5", "20000"];
                let report: Value = serde_json::from_str(&cluster.must("alpha", &argv)).unwrap();
                assert_eq!((&report["sent"], &report["received"]), (&5.into(), &5.into()), "{target}");
            }
        }
        capture.finish();
        for fragments in ["ip.flags.mf == 1", "ipv6.fraghdr.more == 1"] {
            assert!(!common::tshark(file, fragments).is_empty(), "{fragments}");
        }
        assert_eq!(common::tshark(file, "ip.len > 1500 || ipv6.plen > 1460"), "");
    }
}

/// What all threads of a process have run so far.
fn cpu_time(pid: nix::unistd::Pid) -> Duration {
    let nanoseconds = |path: std::path::PathBuf| -> u64 {
        // A thread may have ended since it was listed.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    Duration::from_nanos(tasks.map(|task| nanoseconds(task.unwrap().path().join("schedstat"))).sum())
}

#[test]
fn an_idle_cluster_uses_under_a_hundredth_of_a_core_whatever_it_pays_for_latency() {
    if !ready(&["ping"]) {
        return;
    }
    for latency in ["balanced", "low", "idle"] {
        let cluster = Cluster::up("idle", &["--latency", latency]);
        cluster.must("alpha", &["ping", "-n", "-q", "-c", "50", "-i", "0.01", BETA[0]]);
        // Neighbours are still being asked for at first: one second in two has to be quiet.
        let mut seconds: Vec<Duration> = (0..9)
            .map(|_| {
                let before = cpu_time(cluster.pid());
                std::thread::sleep(Duration::from_secs(1));
                cpu_time(cluster.pid()) - before
            })
            .collect();
        seconds.sort();
        assert!(seconds[4] < Duration::from_millis(10), "{latency}: {seconds:?}");
    }
}
