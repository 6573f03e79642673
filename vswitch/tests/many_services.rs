//! Thousands of Services: loaded at once, one more, and kept over a vswitch that is killed.
//!
//! What is held here does not depend on the machine: that everything works, and that one more costs no more among
//! thousands than among a few. Times are for a quiet machine and an optimised build, and only printed:
//! `cargo test --release -p vswitch --test many_services -- --ignored --nocapture`
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
#![allow(clippy::disallowed_methods, reason = "figures of real programs take real time")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, ManifestFile, both, executable, ready, success, until};

/// Services of the test, and of the figures.
const SOME: u32 = 2000;
const MANY: u32 = 10_000;
/// How often a change is made whose cost is held against another's.
const TIMES: u32 = 20;

/// Two nodes with an echo server each, and a client.
const LAB: &str = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1}}
- {apiVersion: v1, kind: Node, metadata: {name: n2}}
- {apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {nodeName: n1, containers: [{name: c, image: none}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: e1, labels: {app: echo}}, spec: {nodeName: n1, containers: [{name: c, image: vswitch/echo}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: e2, labels: {app: echo}}, spec: {nodeName: n2, containers: [{name: c, image: vswitch/echo}]}}
";

/// A Service without a selector and its slice of ten endpoints, which nobody is.
fn given(number: u32) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, labels: {{app: s{number}}}}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{number}-1\n  \
         labels: {{kubernetes.io/service-name: s{number}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}]\nendpoints:\n"
    );
    for endpoint in 0..10 {
        let address = Ipv4Addr::from_bits(0x0a80_0000 + number * 10 + endpoint + 1);
        writeln!(text, "- {{addresses: [{address}], conditions: {{ready: true}}}}").unwrap();
    }
    text
}

/// A Service of the echo servers, with a cluster IP of those that nobody gets who does not ask for it; the tenth is kept for
/// the cluster's resolver.
fn echo(number: u32) -> (String, String) {
    let address = Ipv4Addr::from_bits(0x0a60_0000 + number).to_string();
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: echo-{number}}}\nspec:\n  clusterIP: {address}\n  \
         selector: {{app: echo}}\n  ports: [{{port: 7, targetPort: 7777, protocol: UDP}}]\n"
    );
    (text, address)
}

fn apply(cluster: &Cluster, text: &str) -> String {
    let file = ManifestFile::new("many", text);
    success("apply", &cluster.verb(&["apply", "-f", file.path()]))
}

/// One datagram is sent, and one comes back.
#[track_caller]
fn answers(cluster: &Cluster, address: &str) {
    const ASK: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
s.sendto(b'hello', (sys.argv[1], 7)); assert s.recvfrom(99) == (b'hello', (sys.argv[1], 7))
";
    cluster.must("client", &["python3", "-c", ASK, address]);
}

/// The endpoint that a Service leads to is one of its ten.
#[track_caller]
fn leads_to_its_own(cluster: &Cluster, number: u32) {
    let services = cluster.get("services");
    let name = format!("s{number}");
    let service = services.iter().find(|service| service["metadata"]["name"] == *name).unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    // Nobody is there, but it is said on the way who it is.
    let told = both(&cluster.verb(&["trace", "client", &format!("tcp {address}:80")]));
    let own = |endpoint: u32| {
        let address = Ipv4Addr::from_bits(0x0a80_0000 + number * 10 + endpoint + 1);
        told.contains(&format!("{address}:8080"))
    };
    assert!((0..10).any(own), "{name}: {told}");
}

/// Processor time that the running vswitch has taken.
fn spent(cluster: &Cluster) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", cluster.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Of the user and of the system (proc(5)), in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// What so many Services more cost, one after the other. Each answers as soon as it is applied.
fn one_by_one(cluster: &Cluster, first: u32) -> Duration {
    let mut addresses = Vec::new();
    let before = spent(cluster);
    for number in first..first + TIMES {
        let (text, address) = echo(number);
        apply(cluster, &text);
        addresses.push(address);
    }
    let cost = spent(cluster) - before;
    answers(cluster, addresses.last().unwrap());
    cost
}

#[test]
fn thousands_are_loaded_changed_and_kept_over_a_kill() {
    if !ready(&["python3"]) {
        return;
    }
    let cluster = Cluster::of("many", LAB, &[]);
    until("both servers are ready", || servers_are_ready(&cluster));
    let few = one_by_one(&cluster, 20);
    let text: String = (0..SOME).map(given).collect();
    let told = apply(&cluster, &text);
    assert_eq!(told.lines().filter(|line| line.ends_with(" created")).count(), 2 * SOME as usize);
    let more = one_by_one(&cluster, 100);
    let slack = Duration::from_millis(100);
    assert!(more <= 3 * few + slack, "{TIMES} more cost {more:?} among {SOME}, {few:?} among none");
    // The same once more changes nothing.
    let told = apply(&cluster, &text);
    assert_eq!(told.lines().filter(|line| line.ends_with(" unchanged")).count(), 2 * SOME as usize);
    leads_to_its_own(&cluster, SOME / 2);
    let name = cluster.name.clone();
    let killed = cluster.kill();
    let cluster = Cluster::up_as(&name, &[]);
    answers(&cluster, "10.96.0.100");
    leads_to_its_own(&cluster, SOME / 2);
    // And the name server's.
    assert_eq!(cluster.get("services").len(), (SOME + 2 * TIMES) as usize + 1);
    let kept = one_by_one(&cluster, 200);
    assert!(kept <= 3 * few + slack, "{TIMES} more cost {kept:?} after a restart, {few:?} among none");
    drop(cluster);
    drop(killed);
}

fn servers_are_ready(cluster: &Cluster) -> bool {
    let pods = cluster.get("pods");
    pods.iter().filter(|pod| pod["status"]["conditions"][0]["status"] == "True").count() >= 2
}

/// Asks over and over, each time from another port, and says when the first answer came.
const ASK_UNTIL_ANSWERED: &str = "
import socket, sys, time
print('asking', flush=True)
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(0.001)
        try:
            s.sendto(b'x', (sys.argv[1], 7)); s.recv(9)
            break
        except OSError: pass
print(time.monotonic(), flush=True)
";

/// Runs a command, and says when it began and ended.
const RUN: &str = "
import subprocess, sys, time
begin = time.monotonic()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(begin, time.monotonic())
";

/// Milliseconds from the start of `apply` to the first answer, and to the end of `apply`.
fn first_answer(cluster: &Cluster, number: u32) -> (f64, f64) {
    let (text, address) = echo(number);
    let mut client =
        cluster.command(&["exec", "client", "--", "python3", "-c", ASK_UNTIL_ANSWERED, &address]);
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "asking");
    let file = ManifestFile::new("first", &text);
    let state = cluster.state.to_str().unwrap();
    let run = ["-c", RUN, executable(), "--state-dir", state, "apply", "-f", file.path()];
    let told = success("apply", &Command::new("python3").args(run).output().unwrap());
    let times: Vec<f64> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let answered: f64 = lines.next().unwrap().unwrap().parse().unwrap();
    client.wait().unwrap();
    ((answered - times[0]) * 1e3, (times[1] - times[0]) * 1e3)
}

/// Median and maximum of ten first answers and of the changes behind them, in milliseconds.
fn ten_first_answers(cluster: &Cluster, first: u32) -> String {
    let (mut answers, mut ends): (Vec<f64>, Vec<f64>) =
        (first..first + 10).map(|number| first_answer(cluster, number)).unzip();
    answers.sort_by(f64::total_cmp);
    ends.sort_by(f64::total_cmp);
    format!(
        "first answer after {:.1} ms (worst {:.1}), apply ends after {:.1} ms (worst {:.1})",
        answers[5], answers[9], ends[5], ends[9]
    )
}

fn memory(cluster: &Cluster) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let mib = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    };
    format!("{} MiB, {} at most", mib("VmRSS:"), mib("VmHWM:"))
}

#[test]
#[ignore = "prints figures, which mean something on a quiet machine only"]
fn figures_of_ten_thousand() {
    if !ready(&["python3"]) {
        return;
    }
    let tell = |line: &str| {
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    let cluster = Cluster::of("figures", LAB, &[]);
    until("both servers are ready", || servers_are_ready(&cluster));
    tell(&format!("one more among a few: {}", ten_first_answers(&cluster, 20)));
    let text: String = (0..MANY).map(given).collect();
    let (begin, before) = (Instant::now(), spent(&cluster));
    apply(&cluster, &text);
    let (took, cost) = (begin.elapsed(), spent(&cluster) - before);
    tell(&format!("{MANY} Services with ten endpoints each: {took:.2?}, processor {cost:.2?}"));
    std::thread::sleep(Duration::from_secs(1));
    tell(&format!("memory: {}", memory(&cluster)));
    tell(&format!("one more among {MANY}: {}", ten_first_answers(&cluster, 40)));
    let name = cluster.name.clone();
    let killed = cluster.kill();
    let begin = Instant::now();
    let cluster = Cluster::up_as(&name, &[]);
    let up = begin.elapsed();
    answers(&cluster, "10.96.0.40");
    tell(&format!(
        "killed and started: up after {up:.2?}, answers after {:.2?}, processor {:.2?}, memory: {}",
        begin.elapsed(),
        spent(&cluster),
        memory(&cluster)
    ));
    tell(&format!("one more then: {}", ten_first_answers(&cluster, 60)));
    leads_to_its_own(&cluster, MANY / 2);
    drop(cluster);
    drop(killed);
}
