//! A pod that is a network namespace which somebody else made: it gets our interface, and keeps everything else.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::fs;
use std::process::{Child, Command, Output};

use common::{Cluster, ManifestFile, both, ready, success, until};
use serde_json::Value;

const PEER: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: peer}\nspec: {containers: [{name: c, image: none}]}\n";

/// A namespace of the test's own, with a process in it; both go with it.
struct Namespace {
    name: String,
    resident: Child,
}

impl Namespace {
    fn new(label: &str) -> Self {
        let name = format!("existing-{label}-{}", std::process::id());
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        let resident = Command::new("ip").args(["netns", "exec", &name, "sleep", "1000"]).spawn().unwrap();
        let inode = |path: &str| {
            fs::metadata(path).ok().map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata))
        };
        let (named, lived_in) = (format!("/run/netns/{name}"), format!("/proc/{}/ns/net", resident.id()));
        until("the process is in it", || inode(&named) == inode(&lived_in));
        Self { name, resident }
    }

    fn run(&self, argv: &[&str]) -> Output {
        Command::new("ip").args(["netns", "exec", &self.name]).args(argv).output().unwrap()
    }

    fn interfaces(&self) -> Vec<String> {
        let links: Vec<Value> = serde_json::from_str(&ip(&["-n", &self.name, "-j", "link"])).unwrap();
        links.iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
    }

    fn is_lived_in(&mut self) -> bool {
        self.resident.try_wait().unwrap().is_none()
    }

    fn empty(&mut self) {
        let _ = self.resident.kill();
        let _ = self.resident.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.empty();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn ip(arguments: &[&str]) -> String {
    success("ip", &Command::new("ip").args(arguments).output().unwrap())
}

fn pod(name: &str, netns: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{vswitch/netns: \"{netns}\"}}}}\n\
         spec: {{containers: [{{name: c, image: none}}]}}\n"
    )
}

fn with_file(cluster: &Cluster, verb: &str, manifest: &str) -> Output {
    let file = ManifestFile::new("existing", manifest);
    cluster.verb(&[verb, "-f", file.path()])
}

#[test]
fn a_namespace_by_name_path_and_process_becomes_a_pod_and_outlives_it() {
    if !ready(&["ip", "ping"]) {
        return;
    }
    let mut namespaces = ["name", "path", "process"].map(Namespace::new);
    let said = [
        namespaces[0].name.clone(),
        format!("/run/netns/{}", namespaces[1].name),
        format!("pid:{}", namespaces[2].resident.id()),
    ];
    let manifest = format!("{PEER}---\n{}---\n{}", pod("guest-0", &said[0]), pod("guest-1", &said[1]));
    let cluster = Cluster::of("existing", &manifest, &[]);
    success("apply", &with_file(&cluster, "apply", &pod("guest-2", &said[2])));
    let places = cluster.get("places");
    for (at, namespace) in namespaces.iter().enumerate() {
        assert_eq!(namespace.interfaces(), ["lo", "eth0"]);
        let name = format!("default/guest-{at}");
        let place = places.iter().find(|place| place["place"] == *name).unwrap();
        for address in place["addresses"].as_array().unwrap() {
            let address = address.as_str().unwrap();
            cluster.must("peer", &["ping", "-n", "-c", "1", "-W", "5", address]);
        }
        for address in ["10.244.0.1", "10.244.0.2", "fd00:10:244::2"] {
            let ping = namespace.run(&["ping", "-n", "-c", "1", "-W", "5", address]);
            success(&format!("{name} to {address}"), &ping);
        }
    }

    // A pod that goes takes its interface along and nothing else.
    success("delete", &with_file(&cluster, "delete", &pod("guest-0", &said[0])));
    assert_eq!(namespaces[0].interfaces(), ["lo"]);
    success("down", &cluster.verb(&["down"]));
    for namespace in &mut namespaces {
        until("the interface is gone", || namespace.interfaces() == ["lo"]);
        assert!(namespace.is_lived_in(), "{}", namespace.name);
        // Processes in a pod's namespace would count as left behind.
        namespace.empty();
    }
    drop(cluster);
    for namespace in &namespaces {
        success("it lives on", &namespace.run(&["true"]));
    }
}

#[test]
fn a_wrong_namespace_is_one_error_that_changes_nothing() {
    if !ready(&["ip"]) {
        return;
    }
    let namespace = Namespace::new("wrong");
    let manifest = format!("{PEER}---\n{}", pod("guest", &namespace.name));
    let cluster = Cluster::of("wrong", &manifest, &[]);
    let before = cluster.get("places");
    for (netns, says) in [
        ("nobody-made-this", "the network namespace named \"nobody-made-this\": /run/netns/nobody-made-this"),
        ("/run/nothing-here", "cannot open the existing network namespace: /run/nothing-here"),
        ("/etc/passwd", "/etc/passwd is not a namespace"),
        ("pid:4194304", "the network namespace of process 4194304"),
        ("pid:x", "is neither /PATH nor pid:NUMBER nor a name"),
        // One namespace cannot be two pods.
        (&namespace.name, "does it have an interface eth0 already?"),
    ] {
        let output = with_file(&cluster, "apply", &pod("other", netns));
        let said = both(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{netns}: {said}");
        assert!(said.starts_with("vswitch: ") && said.contains(says), "{netns}: {said}");
        assert_eq!(cluster.get("places"), before, "{netns}");
        assert_eq!(namespace.interfaces(), ["lo", "eth0"], "{netns}");
    }
    success("down", &cluster.verb(&["down"]));
    let mut namespace = namespace;
    namespace.empty();
}
