//! Switches on several threads: what crosses from one to another arrives, and a cluster changes while it does.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use common::{Cluster, ManifestFile, both, executable, ready, success, until};

const VIPS: [&str; 2] = ["10.96.7.7", "[fd00:10:96::77]"];
/// Octets of a conversation, each way.
const OCTETS: &str = "100000000";

/// The built-in cluster with a Service of gamma, which is on node-2.
fn manifest() -> String {
    let builtin = include_str!("../src/objects/builtin.yaml");
    let labelled = builtin.replace("metadata: {name: gamma}", "metadata: {name: gamma, labels: {app: web}}");
    format!(
        "{labelled}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ipFamilyPolicy: RequireDualStack, \
         clusterIPs: [10.96.7.7, 'fd00:10:96::77'], selector: {{app: web}}, ports: [{{port: 80}}]}}\n"
    )
}

/// The pod of the built-in cluster whose way this is, on a node.
fn beta(node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: beta}}\nspec: {{nodeName: {node}, containers: [{{name: web, image: \
         vswitch/http}}]}}\n"
    )
}

const MORE: &str = "apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: node-3}}
- {apiVersion: v1, kind: Pod, metadata: {name: delta}, spec: {nodeName: node-3, containers: [{name: web, image: vswitch/http}]}}
";

fn up(label: &str, manifest: &str) -> Cluster {
    let cluster = Cluster::of(label, manifest, &["--threads", "2"]);
    until("the pods are ready", || cluster.serves());
    cluster
}

#[track_caller]
fn change(cluster: &Cluster, verb: &str, text: &str) {
    let file = ManifestFile::new(verb, text);
    success(verb, &cluster.verb(&[verb, "-f", file.path()]));
}

/// The thread of each switch.
fn threads(cluster: &Cluster) -> BTreeMap<String, u64> {
    let ports = cluster.get("ports").into_iter();
    ports
        .map(|port| (port["switch"].as_str().unwrap().to_owned(), port["thread"].as_u64().unwrap()))
        .collect()
}

fn homes(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().map(|(switch, thread)| ((*switch).to_owned(), *thread)).collect()
}

/// Who answers a client of the Service.
#[track_caller]
fn answers(cluster: &Cluster, from: &str, address: &str) -> String {
    let url = format!("http://{address}/");
    let text = cluster.must(from, &["curl", "-sS", "--noproxy", "*", "-m", "10", &url]);
    text.lines().next().unwrap_or_default().to_owned()
}

/// Slowly, because ping waits no longer than its interval for the last answer, and other tests keep the cores busy.
#[track_caller]
fn ping(cluster: &Cluster, from: &str, to: &str) {
    let text = cluster.must(from, &["ping", "-n", "-c", "3", "-i", "0.2", "-W", "5", to]);
    assert!(text.contains(" 3 received, 0% packet loss"), "{from} to {to}: {text}");
}

#[test]
fn nodes_on_two_threads_reach_each_other_and_come_and_go() {
    if !ready(&["ping", "curl"]) {
        return;
    }
    let cluster = up("threads", &manifest());
    let two = homes(&[("node-1", 0), ("node-2", 1), ("underlay", 0)]);
    assert_eq!(threads(&cluster), two);
    for (from, to) in [
        ("alpha", "10.244.1.2"),
        ("alpha", "fd00:10:244:1::2"),
        ("gamma", "192.168.10.200"),
        ("host/outside", "fd00:10:244:1::2"),
        ("node/node-2", "10.244.0.3"),
        ("node/node-1", "10.20.30.12"),
    ] {
        ping(&cluster, from, to);
    }
    for vip in VIPS {
        for from in ["alpha", "gamma", "node/node-1"] {
            assert_eq!(answers(&cluster, from, vip), "host gamma", "{from} {vip}");
        }
    }
    let traced = success("trace", &cluster.verb(&["trace", "alpha", "tcp 10.244.1.2:80"]));
    assert!(traced.contains("delivered to default/gamma"), "{traced}");
    assert_eq!(cluster.get("events"), Vec::<serde_json::Value>::new());

    change(&cluster, "apply", MORE);
    let mut three = two.clone();
    three.insert("node-3".to_owned(), 1);
    assert_eq!(threads(&cluster), three);
    ping(&cluster, "alpha", "10.244.2.2");
    ping(&cluster, "delta", "fd00:10:244::2");
    change(&cluster, "delete", MORE);
    assert_eq!(threads(&cluster), two);
    ping(&cluster, "alpha", "10.244.1.2");
}

#[test]
fn one_capture_sees_all_threads() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = up("capture", &manifest());
    let mut command = cluster.command(&["capture", "any", "--text", "-c", "60", "icmp"]);
    let mut capture = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("it has its frames", || {
        ping(&cluster, "alpha", "10.244.1.2");
        capture.try_wait().unwrap().is_some()
    });
    let told = success("capture", &capture.wait_with_output().unwrap());
    for port in ["node-1:default/alpha", "node-1:uplink", "underlay:node-2", "node-2:default/gamma"] {
        assert!(told.contains(port), "{port}: {told}");
    }
}

#[test]
fn a_pod_moves_from_thread_to_thread_in_the_middle_of_conversations() {
    if !ready(&[]) {
        return;
    }
    let cluster = up("moves", &manifest());
    let _server = cluster.probe_server("beta", 7007);
    let talks = || cluster.must("alpha", &[executable(), "__probe", "tcp", "10.244.0.3:7007", OCTETS]);
    std::thread::scope(|scope| {
        let moves = scope.spawn(|| {
            for node in ["node-2", "node-1"].into_iter().cycle().take(10) {
                change(&cluster, "apply", &beta(node));
            }
        });
        while !moves.is_finished() {
            talks();
        }
    });
    talks();
    let port = cluster.get("ports").into_iter().find(|port| port["port"] == "default/beta").unwrap();
    assert_eq!(port["state"], "up", "{port}");
}

#[test]
fn userspace_proxies_live_with_their_nodes() {
    if !ready(&["curl"]) {
        return;
    }
    let cluster = up("proxies", &manifest());
    let proxied = |mode: &str| manifest().replacen("spec:\n", &format!("spec:\n  proxyMode: {mode}\n"), 1);
    for mode in ["userspace", "maglev"] {
        change(&cluster, "apply", &proxied(mode));
        for (from, vip) in [("alpha", VIPS[0]), ("alpha", VIPS[1]), ("gamma", VIPS[0])] {
            assert_eq!(answers(&cluster, from, vip), "host gamma", "{mode}: {from} {vip}");
        }
    }
}

#[test]
fn the_demo_runs_with_a_thread_for_each_switch() {
    let arguments = ["demo", "--threads", "3", "--require", "memory", "--mib", "4"];
    let told = success("demo", &Command::new(executable()).args(arguments).output().unwrap());
    assert!(told.contains("are accounted for.") && told.contains("All conversations were intact."), "{told}");
}

#[test]
fn no_thread_at_all_is_refused() {
    for verb in ["up", "demo"] {
        let refused = Command::new(executable()).args([verb, "--threads", "0"]).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        assert!(both(&refused).contains("'--threads <N>'"), "{}", both(&refused));
    }
}
