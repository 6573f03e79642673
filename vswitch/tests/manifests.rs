//! A cluster is what its manifests say, and becomes what later ones say while it runs.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use common::{Cluster, ManifestFile, both, executable, ready, success, until};
use netstack::driver::Clock;
use serde_json::Value;

const PODS: &str = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: a}}
- {apiVersion: v1, kind: Node, metadata: {name: b}}
- {apiVersion: v1, kind: Pod, metadata: {name: one}, spec: {nodeName: a, containers: [{name: c, image: none}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: two}, spec: {nodeName: a, containers: [{name: c, image: none}]}}
";

fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: {node}, containers: [{{name: c, image: none}}]}}\n"
    )
}

fn with_file(cluster: &Cluster, verb: &str, manifest: &str) -> Output {
    let file = ManifestFile::new(verb, manifest);
    cluster.verb(&[verb, "-f", file.path()])
}

fn ping(cluster: &Cluster, from: &str, to: &str) {
    cluster.must(from, &["ping", "-n", "-c", "1", "-W", "5", to]);
}

#[test]
fn pods_come_and_go_and_others_do_not_notice() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::of("apply", PODS, &[]);
    // A conversation that goes on through everything that follows.
    let through = cluster.probe_server("two", 7007);
    let text = success(
        "apply",
        &with_file(&cluster, "apply", &format!("{}---\n{}", pod("three", "b"), pod("one", "a"))),
    );
    assert_eq!(text, "Pod default/three created\nPod default/one unchanged\n");
    for address in ["10.244.1.2", "fd00:10:244:1::2"] {
        ping(&cluster, "one", address);
        ping(&cluster, "three", "10.244.0.2");
    }
    let text = success("delete", &with_file(&cluster, "delete", &pod("one", "a")));
    assert_eq!(text, "Pod default/one deleted\n");
    assert!(!cluster.exec("one", &["true"]).status.success());
    let refused = with_file(&cluster, "delete", &pod("one", "a"));
    assert!(both(&refused).contains("Pod default/one: does not exist"), "{}", both(&refused));
    // Its address is free, its number is not somebody else's.
    success("apply", &with_file(&cluster, "apply", &pod("four", "a")));
    ping(&cluster, "four", "10.244.0.3");
    let ports = cluster.get("ports");
    let id =
        |name: &str| ports.iter().find(|p| p["port"] == format!("default/{name}")).unwrap()["id"].as_u64();
    assert!(id("four") > id("two"), "{ports:#?}");
    cluster.must("three", &[executable(), "__probe", "tcp", "10.244.0.3:7007", "1000000"]);
    drop(through);
}

#[test]
fn what_is_refused_changes_nothing() {
    if !ready(&[]) {
        return;
    }
    let cluster = Cluster::of("refuse", PODS, &[]);
    let before = (cluster.get("places"), cluster.get("ports").len());
    for (manifest, reason) in [
        (pod("x", "nowhere"), "there is no node \"nowhere\""),
        (pod("x", "a").replace("image", "imagee"), "did you mean `image`?"),
        (format!("{}---\n{}", pod("fine", "a"), pod("Bad", "a")), "metadata.name"),
        (
            "apiVersion: vswitch/v1alpha1\nkind: Cluster\nspec: {mtu: 9000}\n".to_owned(),
            "the MTU of a cluster cannot change",
        ),
    ] {
        let output = with_file(&cluster, "apply", &manifest);
        assert!(!output.status.success() && both(&output).contains(reason), "{}", both(&output));
        assert_eq!((cluster.get("places"), cluster.get("ports").len()), before, "{manifest}");
    }
}

fn with_address(pod: &str, address: &str) -> String {
    format!("{pod}status: {{podIP: {address}}}\n")
}

/// What must be the same of a pod that nobody touched.
fn identity(cluster: &Cluster, place: &str) -> (Value, Value, Value) {
    let mut places = cluster.get("places").into_iter();
    let place = places.find(|p| p["place"] == place).unwrap();
    (place["netns"].clone(), place["netns_inode"].clone(), place["pause_pid"].clone())
}

#[test]
fn a_change_that_fails_half_way_leaves_what_it_would_have_replaced() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::of("halfway", PODS, &[]);
    let through = cluster.probe_server("one", 7007);
    let before = identity(&cluster, "default/one");
    let everything = (cluster.get("places"), cluster.get("ports").len());
    // Another address makes a pod anew; the kernel alone can say that another cannot be made.
    let moved = with_address(&pod("one", "a"), "10.244.0.77");
    let impossible =
        pod("zero", "a").replace("{name: zero}", "{name: zero, annotations: {vswitch/netns: /no/such}}");
    for manifest in [format!("{moved}---\n{impossible}"), format!("{impossible}---\n{moved}")] {
        let refused = with_file(&cluster, "apply", &manifest);
        assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
        assert!(both(&refused).contains("/no/such"), "{}", both(&refused));
        assert_eq!((cluster.get("places"), cluster.get("ports").len()), everything);
        assert_eq!(identity(&cluster, "default/one"), before);
        ping(&cluster, "two", "10.244.0.2");
        cluster.must("two", &[executable(), "__probe", "tcp", "10.244.0.2:7007", "100000"]);
    }
    // Alone it is done: another namespace of the same name.
    success("apply", &with_file(&cluster, "apply", &moved));
    let after = identity(&cluster, "default/one");
    assert!(after.0 == before.0 && after.1 != before.1, "{before:?} {after:?}");
    ping(&cluster, "two", "10.244.0.77");
    ping(&cluster, "one", "10.244.0.3");
    let names = fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
    let names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    let ours = names.iter().filter(|name| name.starts_with(&format!("{}.", cluster.name))).count();
    assert_eq!(ours, cluster.get("places").len(), "{names:?}");
    drop(through);
}

/// A network namespace that somebody else made.
struct Foreign(String);

impl Foreign {
    fn new() -> Self {
        let foreign = Self(format!("vst-foreign-{}", std::process::id()));
        success("ip", &Command::new("ip").args(["netns", "add", &foreign.0]).output().unwrap());
        foreign
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn a_pod_in_a_namespace_of_somebody_else_gets_another_address_there() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let foreign = Foreign::new();
    let cluster = Cluster::of("foreign", PODS, &[]);
    let annotations = format!("{{name: guest, annotations: {{vswitch/netns: {}}}}}", foreign.0);
    let guest = pod("guest", "a").replace("{name: guest}", &annotations);
    for address in ["10.244.0.50", "10.244.0.51"] {
        let applied = with_file(&cluster, "apply", &with_address(&guest, address));
        success("apply", &applied);
        ping(&cluster, "two", address);
    }
    success("delete", &with_file(&cluster, "delete", &guest));
}

#[test]
fn what_is_there_can_be_asked_while_a_pod_takes_its_time_to_end() {
    if !ready(&[]) {
        return;
    }
    const GRACE: u64 = 8;
    let deaf = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: deaf}}\nspec:\n  terminationGracePeriodSeconds: {GRACE}\n\
         \x20 containers:\n  - {{name: c, command: [sh, -c, \"trap '' TERM; echo ready; while :; do sleep 1; done\"]}}\n"
    );
    let cluster = Cluster::of("deaf", &format!("{PODS}---\n{deaf}"), &[]);
    until("the trap is set", || both(&cluster.verb(&["logs", "deaf"])).contains("ready"));
    let file = ManifestFile::new("deaf", &deaf);
    let clock = Clock::start();
    let begin = clock.now();
    let mut delete = cluster.command(&["delete", "-f", file.path()]).spawn().unwrap();
    let deaf = || {
        let text = success("get", &cluster.verb(&["get", "pods"]));
        text.lines().find(|line| line.contains(" deaf ")).map(str::to_owned)
    };
    until("it is shown to go", || deaf().is_some_and(|line| line.contains("Terminating")));
    success("describe", &cluster.verb(&["describe", "pod", "two"]));
    let asked = clock.now() - begin;
    assert!(delete.try_wait().unwrap().is_none(), "it has ended already, after {asked:?}");
    assert!(asked < Duration::from_secs(GRACE) / 2, "it took {asked:?} to ask");
    assert!(delete.wait().unwrap().success());
    let took = clock.now() - begin;
    assert!(took >= Duration::from_secs(GRACE), "{took:?}");
    assert_eq!(deaf(), None);
    // Nobody waits for a second one when the cluster is to end.
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    until("the trap is set", || both(&cluster.verb(&["logs", "deaf"])).contains("ready"));
    let mut delete = cluster.command(&["delete", "-f", file.path()]).spawn().unwrap();
    until("it is shown to go", || deaf().is_some_and(|line| line.contains("Terminating")));
    success("down", &cluster.verb(&["down"]));
    assert!(!delete.wait().unwrap().success(), "it was not told that the cluster went");
    assert!(!cluster.state.join("desired.json").exists(), "what was wanted came back");
}

#[test]
fn check_needs_no_cluster() {
    let file = ManifestFile::new("check", PODS);
    let check = |path: &str| Command::new(executable()).args(["check", "-f", path]).output().unwrap();
    assert_eq!(success("check", &check(file.path())), "4 objects are sound: 2 nodes, 2 pods, 0 hosts\n");
    let wrong = ManifestFile::new("check", &pod("x", "a"));
    let output = check(wrong.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        both(&output).contains(":4:8: Pod default/x: spec.nodeName: there is no node \"a\""),
        "{}",
        both(&output)
    );
}
