//! The name server under load: many questions, while what it knows changes.
//!
//! What is held here does not depend on the machine: that no question is lost. Times are for a quiet machine and an optimised
//! build, and only printed: `cargo test --release -p vswitch --test names_load -- --ignored --nocapture`
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
#![allow(clippy::disallowed_methods, reason = "figures of real programs take real time")]

#[path = "common/mod.rs"]
mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Background, Cluster, ManifestFile, both, ready, success, until};

const SERVER: &str = "10.96.0.10";
/// Services that stay, which are asked for.
const STAYING: u32 = 100;
/// Questions a second while things change.
const RATE: u32 = 1000;

/// A pod that asks, and one on the same node that another name server runs in.
const LAB: &str = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1}}
- {apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {nodeName: n1, containers: [{name: c, image: none}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: other}, spec: {nodeName: n1, containers: [{name: c, image: none}]}}
";

/// The address of a Service that stays.
fn address(number: u32) -> String {
    format!("10.96.100.{number}")
}

fn lab(label: &str) -> Cluster {
    let mut text = LAB.to_owned();
    text.push_str("---\napiVersion: vswitch/v1alpha1\nkind: Cluster\nspec: {dns: {resolvConf: /dev/null}}\n");
    for number in 0..STAYING {
        let address = address(number);
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n\
             spec: {{clusterIP: {address}, ports: [{{port: 80}}]}}"
        )
        .unwrap();
    }
    Cluster::of(label, &text, &[])
}

/// A Service and the pod behind it, that come and go.
fn passing(number: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, labels: {{app: p{number}}}}}\n\
         spec: {{nodeName: n1, containers: [{{name: c, image: none}}]}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: p{number}}}\n\
         spec: {{clusterIP: None, selector: {{app: p{number}}}, ports: [{{port: 80}}]}}\n---\n"
    )
}

/// Has so many pods and Services come and go, some at a time, until it is told to end; says how often.
fn changes(cluster: &Cluster, count: u32, at_once: u32, ended: &AtomicBool) -> u32 {
    let mut turns = 0;
    while !ended.load(Ordering::Relaxed) {
        for first in (0..count).step_by(at_once as usize) {
            let text: String = (first..count.min(first + at_once)).map(passing).collect();
            let file = ManifestFile::new("passing", &text);
            success("apply", &cluster.verb(&["apply", "-f", file.path()]));
            success("delete", &cluster.verb(&["delete", "-f", file.path()]));
            turns += at_once;
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    turns
}

/// What `dnsperf` reads: a name and a type in each line.
struct Questions(PathBuf);

impl Questions {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("vst-questions-{}", std::process::id()));
        let line = |number: u32| {
            let kind = if number.is_multiple_of(4) { "AAAA" } else { "A" };
            format!("s{number}.default.svc.cluster.local {kind}\n")
        };
        fs::write(&path, (0..STAYING).map(line).collect::<String>()).unwrap();
        Self(path)
    }

    /// A `dnsperf` in the client's pod.
    fn ask(&self, cluster: &Cluster, server: &str, seconds: u32, more: &[&str]) -> Output {
        let file = self.0.to_str().unwrap();
        let seconds = seconds.to_string();
        let words = ["exec", "client", "--", "dnsperf", "-s", server, "-d", file, "-l", &seconds];
        cluster.verb(&[&words[..], more].concat())
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A number that `dnsperf` has told of.
fn told(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
    let number =
        line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_else(|| panic!("{name}: {text}"));
    number.parse().unwrap_or_else(|_| panic!("{name}: {text}"))
}

#[test]
fn no_question_is_lost_while_pods_and_services_come_and_go() {
    if !ready(&["dnsperf"]) {
        return;
    }
    let (cluster, questions, ended) = (lab("passing"), Questions::new(), AtomicBool::new(false));
    let rate = RATE.to_string();
    let (text, turns) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| changes(&cluster, 20, 10, &ended));
        let output = questions.ask(&cluster, SERVER, 8, &["-Q", &rate]);
        ended.store(true, Ordering::Relaxed);
        (success("dnsperf", &output), changing.join().unwrap())
    });
    assert!(turns >= 10, "{turns} came and went");
    let asked = told(&text, "Queries sent:");
    assert!(asked >= 1000.0, "{text}");
    assert_eq!((told(&text, "Queries completed:"), told(&text, "Queries lost:")), (asked, 0.0), "{text}");
    assert!(text.contains(&format!("NOERROR {asked} (100.00%)")), "{text}");
    assert_eq!(cluster.unaccounted(), Ok(Vec::new()));
}

/// Asks from each of so many ports once, some at a time, and prints how many were answered and how long it took.
const FROM_MANY_PORTS: &str = r"
import select, socket, sys, time
server, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
name = b''.join(bytes([len(l)]) + l for l in b's7.default.svc.cluster.local'.split(b'.')) + b'\0'
begin, answered = time.monotonic(), 0
for some in range(first, first + count, 250):
    waiting = {}
    poll = select.poll()
    for port in range(some, min(some + 250, first + count)):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(('', port)); s.connect((server, 53))
        s.send(port.to_bytes(2, 'big') + b'\1\0\0\1\0\0\0\0\0\0' + name + b'\0\1\0\1')
        waiting[s.fileno()] = s
        poll.register(s, select.POLLIN)
    while waiting:
        ready = poll.poll(5000)
        if not ready: break
        for number, _ in ready:
            s = waiting.pop(number)
            poll.unregister(number)
            answer = s.recv(2000)
            own = s.getsockname()[1].to_bytes(2, 'big')
            answered += answer[:2] == own and answer[3] & 15 == 0 and answer[7] == 1
            s.close()
    for s in waiting.values(): s.close()
print(answered, time.monotonic() - begin)
";

/// KiB of memory that the running vswitch has.
fn memory(cluster: &Cluster) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Memory that may be taken for good, in KiB: nothing is kept of who asked.
const KEPT: u64 = 16 * 1024;

#[test]
fn fifty_thousand_ports_ask_and_are_answered_in_bounded_memory() {
    const PORTS: u32 = 50_000;
    if !ready(&["python3"]) {
        return;
    }
    let cluster = lab("ports");
    let ask = |first: u32, count: u32| {
        let (first, count) = (first.to_string(), count.to_string());
        cluster.must("client", &["python3", "-c", FROM_MANY_PORTS, SERVER, &first, &count])
    };
    // What it needs at all is there after some.
    ask(10_000, 1000);
    let before = memory(&cluster);
    let told = ask(10_000, PORTS);
    let (answered, seconds) = told.split_once(' ').unwrap();
    assert_eq!(answered, PORTS.to_string(), "{told}");
    let after = memory(&cluster);
    assert!(after <= before + KEPT, "{before} KiB before, {after} KiB after {seconds} s");
    assert_eq!(cluster.unaccounted(), Ok(Vec::new()));
}

/// `dnsmasq` in the other pod, which knows the same names.
fn dnsmasq(cluster: &Cluster) -> (Background, String) {
    let records =
        (0..STAYING).map(|n| format!("--host-record=s{n}.default.svc.cluster.local,{}", address(n)));
    let records: Vec<String> = records.collect();
    let fixed = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--pid-file=",
        "--local-ttl=5",
        "--local=/cluster.local/",
    ];
    let words: Vec<&str> = fixed.into_iter().chain(records.iter().map(String::as_str)).collect();
    let server = cluster.spawn("other", &words);
    let pods = cluster.get("pods");
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == "other").unwrap();
    let at = pod["status"]["podIP"].as_str().unwrap().to_owned();
    let asked = format!("@{at}");
    until("dnsmasq answers", || {
        let dig = ["dig", "+short", "+tries=1", "+time=1", &asked, "s7.default.svc.cluster.local"];
        both(&cluster.exec("client", &dig)).contains(&address(7))
    });
    (server, at)
}

/// Waits of single questions, in milliseconds: half of them, 99 of 100, and all are below.
fn waits(text: &str) -> [f64; 3] {
    let wait = |line: &str| line.strip_prefix("> ")?.rsplit(' ').next()?.parse::<f64>().ok();
    let mut all: Vec<f64> = text.lines().filter_map(wait).map(|seconds| seconds * 1e3).collect();
    all.sort_by(f64::total_cmp);
    assert!(!all.is_empty(), "{text}");
    [all[all.len() / 2], all[all.len() * 99 / 100], all[all.len() - 1]]
}

/// Prints figures beside `dnsmasq`'s, in turns.
#[test]
#[ignore = "takes five minutes, and is for a quiet machine"]
fn figures() {
    const SECONDS: u32 = 60;
    if !ready(&["dnsperf", "dnsmasq", "dig"]) {
        return;
    }
    let (cluster, questions) = (lab("figures"), Questions::new());
    let (_dnsmasq, other) = dnsmasq(&cluster);
    let rate = RATE.to_string();
    for (name, server) in [("vswitch", SERVER), ("dnsmasq", &other)] {
        let ended = AtomicBool::new(false);
        let (text, turns) = std::thread::scope(|scope| {
            let changing = scope.spawn(|| changes(&cluster, 100, 20, &ended));
            let output = questions.ask(&cluster, server, SECONDS, &["-v", "-Q", &rate]);
            ended.store(true, Ordering::Relaxed);
            (success("dnsperf", &output), changing.join().unwrap())
        });
        let [half, most, all] = waits(&text);
        println!(
            "{name}: {} asked, {} lost, {turns} pods and Services came and went; {half:.3} ms for half of them, {most:.3} for \
             99 of 100, {all:.3} at most",
            told(&text, "Queries sent:"),
            told(&text, "Queries lost:"),
        );
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (server, rates) in [SERVER, &other].into_iter().zip(&mut rates) {
            let text = success("dnsperf", &questions.ask(&cluster, server, 5, &["-c", "10", "-q", "200"]));
            rates.push((told(&text, "Queries per second:"), told(&text, "Queries lost:")));
        }
    }
    for (name, mut rates) in ["vswitch", "dnsmasq"].into_iter().zip(rates) {
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let lost: f64 = rates.iter().map(|(_, lost)| lost).sum();
        println!(
            "{name}: {:.0} answers a second ({:.0}-{:.0}), {lost} lost",
            rates[2].0, rates[0].0, rates[4].0
        );
    }
}
