//! The labs of `examples`, as their READMEs walk through them: every command run in order, its output held against what
//! stands there. `…` in a README stands for anything; `UPDATE_LABS=1` writes what was seen into it.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Cluster, executable, ready};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A README as lines, those of console blocks as commands with what they print.
enum Part {
    Text(String),
    Command { command: String, output: Vec<String> },
}

fn parse(readme: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut console = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            console = line == "```console";
            parts.push(Part::Text(line.to_owned()));
        } else if let (true, Some(command)) = (console, line.strip_prefix("$ ")) {
            parts.push(Part::Command { command: command.to_owned(), output: Vec::new() });
        } else if let (true, Some(Part::Command { output, .. })) = (console, parts.last_mut()) {
            output.push(line.to_owned());
        } else {
            parts.push(Part::Text(line.to_owned()));
        }
    }
    parts
}

/// Whether `line` is `pattern`, in which `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// States of a neighbour, which change with time.
const STATES: [&str; 4] = ["reachable", "stale", "delay", "probe"];

/// What differs from run to run, as `…`.
fn mask(line: &str) -> String {
    // What a connection and a translation are seen with is left to chance, and time passes.
    let chance = ["ASSURED", "UNREPLIED", "translate ", " octets"].iter().any(|mark| line.contains(mark));
    let word = |word| if chance { mask_port(word) } else { mask_word(word) };
    let words: Vec<String> = line.split(' ').map(word).collect();
    let line = words.join(" ");
    match line.split_once("peer address ") {
        Some((before, peer)) => format!("{before}peer address {}:…", peer.rsplit_once(':').unwrap().0),
        None => line,
    }
}

fn mask_port(word: &str) -> String {
    // Those that the READMEs name themselves.
    let named = |port: u16| port < 1024 || port == 8080 || (40_001..40_010).contains(&port);
    let chosen = |port: &str| port.parse::<u16>().is_ok_and(|port| !named(port));
    if let Some((address, _)) = word.rsplit_once(':').filter(|(_, port)| chosen(port)) {
        return format!("{address}:…");
    }
    let seconds = |text: &&str| text.parse::<u64>().is_ok();
    word.strip_suffix('s').filter(seconds).map_or_else(|| word.to_owned(), |_| "…s".to_owned())
}

fn mask_word(word: &str) -> String {
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || "./".contains(c));
    if let Some(time) = word.strip_prefix("time=").filter(|time| number(time.trim_end_matches("ms"))) {
        return format!("time=…{}", if time.ends_with("ms") { "ms" } else { "" });
    }
    let decimal = word.contains('.') && word.parse::<f64>().is_ok();
    let summary = number(word) && word.matches('/').count() == 3;
    if decimal || summary || STATES.contains(&word) { "…" } else { word }.to_owned()
}

#[test]
fn dots_stand_for_anything() {
    assert!(matches("a … c", "a b c") && matches("…", "") && matches("time=… ms", "time=0.1 ms"));
    assert!(!matches("a … c", "a b d") && !matches("a", "ab") && !matches("a…b…c", "acb"));
    assert_eq!(mask("64 bytes: ttl=64 time=0.042 ms"), "64 bytes: ttl=64 time=… ms");
    assert_eq!(
        mask("n  tcp  TIME_WAIT  [fd00::1]:40000  10.0.0.1:80  ASSURED  119s  10.0.0.1:80  10.0.0.2:1024"),
        "n  tcp  TIME_WAIT  [fd00::1]:…  10.0.0.1:80  ASSURED  …s  10.0.0.1:80  10.0.0.2:…"
    );
    assert_eq!(mask("rtt min/avg/max/mdev = 0.1/0.2/0.3/0.000 ms"), "rtt min/avg/max/mdev = … ms");
}

fn walk(lab: &str, tools: &[&str]) {
    if !ready(tools) {
        return;
    }
    let directory = top().join("examples").join(lab);
    let cluster = Cluster::up(lab, &["-f", directory.to_str().unwrap()]);
    common::until("the pods are ready", || cluster.serves());
    let path =
        format!("{}:{}", Path::new(executable()).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let file = directory.join("README.md");
    let readme = fs::read_to_string(&file).unwrap();
    let (mut seen, mut wrong, mut commands) = (String::new(), Vec::new(), 0);
    for part in parse(&readme) {
        let (command, expected) = match part {
            Part::Text(line) => {
                seen.push_str(&line);
                seen.push('\n');
                continue;
            }
            Part::Command { command, output } => (command, output),
        };
        commands += 1;
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(top())
            .env("PATH", &path)
            .env("VSWITCH_STATE_DIR", &cluster.state)
            .output()
            .unwrap();
        let text = common::both(&output);
        seen.push_str(&format!("$ {command}\n"));
        text.lines().for_each(|line| seen.push_str(&format!("{}\n", mask(line.trim_end()))));
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let same = lines.len() == expected.len() && expected.iter().zip(&lines).all(|(e, l)| matches(e, l));
        if !output.status.success() || !same {
            wrong.push(format!("$ {command}\n{text}\nstands there as:\n{}", expected.join("\n")));
        }
    }
    if std::env::var_os("UPDATE_LABS").is_some() {
        fs::write(&file, seen).unwrap();
        return;
    }
    assert!(commands >= 5 && wrong.is_empty(), "{}: {}", file.display(), wrong.join("\n\n"));
}

#[test]
fn docker0_is_as_its_readme_says() {
    walk("docker0", &["ping", "curl"]);
}

#[test]
fn masquerade_is_as_its_readme_says() {
    walk("masquerade", &["ping", "curl", "traceroute"]);
}

#[test]
fn the_lab_is_as_its_readme_says() {
    walk("lab", &["ping", "curl", "traceroute", "ip"]);
}

/// The lab under a name of its own, all pods ready.
fn lab_named(name: &str) -> Cluster {
    let read = |file: &str| fs::read_to_string(top().join("examples/lab").join(file)).unwrap();
    let files = ["cluster.yaml", "pods.yaml", "service.yaml"].map(read);
    let manifest = files.join("---\n");
    let own = format!("{{name: {name}{}}}", std::process::id());
    let cluster = Cluster::of(name, &manifest.replace("{name: lab}", &own), &[]);
    common::until("the pods are ready", || cluster.serves());
    cluster
}

/// Name, addresses, and where it is: the node of a pod, the rack of what is plugged into one.
struct Someone {
    place: String,
    addresses: Vec<String>,
    node: String,
    rack: char,
}

fn everybody(cluster: &Cluster) -> Vec<Someone> {
    let view = |place: &serde_json::Value| {
        let text = |field: &str| place[field].as_str().unwrap().to_owned();
        let addresses = place["addresses"].as_array().unwrap().iter();
        let node = text("switch");
        Someone {
            place: text("place"),
            addresses: addresses.map(|a| a.as_str().unwrap().to_owned()).collect(),
            rack: if matches!(node.as_str(), "node-1" | "node-2") { 'a' } else { 'b' },
            node,
        }
    };
    cluster.get("places").iter().map(view).collect()
}

/// Routers between two of them, and the last hop, which answers for itself.
fn hops(one: &Someone, other: &Someone) -> usize {
    let pod = |someone: &Someone| someone.place.starts_with("default/");
    if one.node == other.node {
        // Between pods of one node there is the bridge alone, and a node is no hop to its own pods.
        return 1;
    }
    // Nodes know each other's pods; the machine outside knows its rack's router alone.
    let outside = one.place.starts_with("host/") && pod(other);
    let router = one.rack != other.rack || outside;
    usize::from(pod(one)) + usize::from(router) + usize::from(pod(other)) + 1
}

/// A Maglev table gives each of four backends a quarter of its slots, so that of 200 connections each gets 50 on average, with
/// a standard deviation of 6.
#[test]
fn two_hundred_requests_reach_all_four_web_pods_evenly() {
    if !ready(&["curl"]) {
        return;
    }
    let cluster = lab_named("even");
    for address in ["10.100.87.105", "[fd00:10:96::105]"] {
        let ask = format!("for n in $(seq 200); do curl -sS --noproxy '*' -m 10 http://{address}/; done");
        let text = cluster.must("front", &["sh", "-c", &ask]);
        let of = |pod: usize| text.lines().filter(|line| *line == format!("host web-{pod}")).count();
        let counts: Vec<usize> = (0..4).map(of).collect();
        assert_eq!(counts.iter().sum::<usize>(), 200, "{address}: {counts:?}");
        assert!(counts.iter().all(|count| (20..=80).contains(count)), "{address}: {counts:?}");
    }
}

#[test]
fn everyone_in_the_lab_reaches_everyone_over_the_hops_there_are() {
    if !ready(&["ping", "curl", "traceroute"]) {
        return;
    }
    let cluster = lab_named("matrix");
    let everybody = everybody(&cluster);
    assert_eq!(everybody.len(), 10);
    for from in &everybody {
        for to in everybody.iter().filter(|to| to.place != from.place) {
            for address in &to.addresses {
                let what = format!("{} to {} ({address})", from.place, to.place);
                let text = cluster.must(&from.place, &["ping", "-n", "-c", "1", "-W", "5", address]);
                assert!(text.contains(" 0% packet loss"), "{what}: {text}");
                if to.place.starts_with("default/") {
                    let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
                    let url = format!("http://{host}:8080/");
                    let text =
                        cluster.must(&from.place, &["curl", "-sS", "--noproxy", "*", "-m", "10", &url]);
                    let expected = format!("host {}\n", to.place.trim_start_matches("default/"));
                    assert!(text.starts_with(&expected), "{what}: {text}");
                }
                let trace = ["traceroute", "-n", "-q", "1", "-w", "5", "-m", "8", address];
                let mut text = cluster.must(&from.place, &trace);
                for _ in 0..20 {
                    // Routers send few errors to one destination in a short time (RFC 1812 section 4.3.2.8).
                    if !text.contains('*') {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(250));
                    text = cluster.must(&from.place, &trace);
                }
                let ways: Vec<&str> = text.lines().skip(1).collect();
                let arrived = ways.last().is_some_and(|last| last.split_whitespace().nth(1) == Some(address));
                assert!(arrived && !text.contains('*'), "{what}: {text}");
                assert_eq!(ways.len(), hops(from, to), "{what}: {text}");
            }
        }
    }
}
