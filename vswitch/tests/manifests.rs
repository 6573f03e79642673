//! A cluster is what its manifests say, and becomes what later ones say while it runs.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::process::{Command, Output};

use common::{Cluster, ManifestFile, both, executable, ready, success};

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
