//! Pods that live in their node's own namespace, and where probes come from.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::process::{Command, Output};

use common::{Cluster, ManifestFile, both, executable, ready, success, until};

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n---\n")
}

fn web(name: &str, node: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{nodeName: {node}{more}, containers: [{{name: c, image: \
         vswitch/http, args: [--port, \"{port}\"], ports: [{{containerPort: {port}}}], readinessProbe: {{periodSeconds: 1, \
         httpGet: {{port: {port}}}}}}}]}}\n---\n"
    )
}

const HOST: &str = ", hostNetwork: true";

fn manifest() -> String {
    let nodes = [node("a"), node("b")].concat();
    let pods = [web("one", "a", 8080, HOST), web("two", "a", 8081, HOST), web("plain", "b", 80, "")].concat();
    nodes + &pods
}

fn apply(cluster: &Cluster, manifest: &str) -> Output {
    let file = ManifestFile::new("apply", manifest);
    cluster.verb(&["apply", "-f", file.path()])
}

fn is_ready(cluster: &Cluster, name: &str) -> bool {
    let pods = cluster.get("pods");
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name).unwrap();
    pod["status"]["conditions"][0]["status"] == "True"
}

fn all_ready(cluster: &Cluster) {
    for name in ["one", "two", "plain"] {
        until(&format!("{name} is ready"), || is_ready(cluster, name));
    }
}

/// What a server says to one of the pods.
fn fetch(cluster: &Cluster, from: &str, address: &str) -> String {
    both(&cluster.exec(from, &["curl", "-sS", "-g", "-m", "5", &format!("http://{address}/")]))
}

#[test]
fn pods_share_their_nodes_network_and_nothing_else() {
    if !ready(&["curl", "ss"]) {
        return;
    }
    let cluster = Cluster::of("hostnet", &manifest(), &[]);
    all_ready(&cluster);
    // Both are reached at the node's addresses, from everywhere, and nobody translates anything.
    for from in ["plain", "node/a", "node/b", "one"] {
        for (address, port) in
            [("192.168.10.2", 8080), ("192.168.10.2", 8081), ("[fd00:192:168:10::2]", 8080)]
        {
            let at = format!("{address}:{port}");
            let said = fetch(&cluster, from, &at);
            assert!(said.starts_with(&format!("host a\nown address {at}\n")), "{from}: {said}");
        }
    }
    assert!(fetch(&cluster, "plain", "192.168.10.2:8080").contains("peer address 10.244.1.2:"));
    for address in ["10.244.1.2", "[fd00:10:244:1::2]"] {
        let own = if address.starts_with('[') { "[fd00:192:168:10::2]" } else { "192.168.10.2" };
        assert!(fetch(&cluster, "one", address).contains(&format!("peer address {own}:")));
    }
    let places = cluster.get("places");
    let place = |name: &str| places.iter().find(|p| p["place"] == name).unwrap();
    let (one, two, host) = (place("default/one"), place("default/two"), place("node/a"));
    for field in ["addresses", "switch", "netns_inode"] {
        assert!(one[field] == host[field] && two[field] == host[field], "{field}");
    }
    assert_ne!(one["pause_pid"], two["pause_pid"]);
    let listens = cluster.must("one", &["ss", "-Hltn"]);
    assert!(listens.contains(":8080") && listens.contains(":8081"), "{listens}");
    let processes = cluster.must("one", &["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(processes.contains("--port 8080") && !processes.contains("8081"), "{processes}");
    let pods = cluster.get("pods");
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == "one").unwrap();
    assert_eq!(
        (&pod["status"]["podIP"], &pod["status"]["hostIP"]),
        (&"192.168.10.2".into(), &"192.168.10.2".into())
    );
    let traced = success("trace", &cluster.verb(&["trace", "plain", "tcp 192.168.10.2:8080"]));
    assert!(traced.contains("delivered to node/a"), "{traced}");
    let traced = success("trace", &cluster.verb(&["trace", "one", "tcp 10.244.1.2:80"]));
    assert!(traced.contains("delivered to default/plain"), "{traced}");
    // Its port is its node's: there is no other.
    let ports: Vec<String> =
        cluster.get("ports").iter().map(|p| p["port"].as_str().unwrap().to_owned()).collect();
    assert!(ports.contains(&"node/a".to_owned()) && !ports.contains(&"default/one".to_owned()), "{ports:?}");
}

#[test]
fn one_goes_and_moves_and_the_others_stay() {
    if !ready(&["curl"]) {
        return;
    }
    let cluster = Cluster::of("hostmove", &manifest(), &[]);
    all_ready(&cluster);
    let pause = |cluster: &Cluster, place: &str| {
        let places = cluster.get("places");
        places.iter().find(|p| p["place"] == place).map(|p| p["pause_pid"].as_u64().unwrap())
    };
    let stays = ["node/a", "default/two", "default/plain"];
    let before = stays.map(|place| pause(&cluster, place).unwrap());
    // Its port cannot be where another has it, in whatever way that one asks for it.
    let taken = apply(&cluster, &web("three", "a", 8081, HOST));
    assert!(
        both(&taken).contains("port 8081/TCP of a belongs to the pod default/two already"),
        "{}",
        both(&taken)
    );
    let moved = web("one", "b", 8080, HOST);
    success("apply", &apply(&cluster, &moved));
    until("it is ready", || is_ready(&cluster, "one"));
    assert!(fetch(&cluster, "plain", "192.168.10.3:8080").starts_with("host b\n"));
    assert!(fetch(&cluster, "plain", "192.168.10.2:8080").contains("curl: (7)"));
    // It becomes a pod like others, and one on the node once more.
    success("apply", &apply(&cluster, &web("one", "b", 8080, "")));
    until("it is ready", || is_ready(&cluster, "one"));
    assert!(fetch(&cluster, "two", "10.244.1.3:8080").starts_with("host one\n"));
    success("apply", &apply(&cluster, &moved));
    until("it is ready", || is_ready(&cluster, "one"));
    // A vswitch that is killed is taken over with all of them.
    let one = pause(&cluster, "default/one");
    let killed = cluster.kill();
    let cluster = Cluster::up_as(&killed.name, &[]);
    assert_eq!(
        (stays.map(|place| pause(&cluster, place).unwrap()), pause(&cluster, "default/one")),
        (before, one)
    );
    all_ready(&cluster);
    let file = ManifestFile::new("delete", &moved);
    success("delete", &cluster.verb(&["delete", "-f", file.path()]));
    assert_eq!(pause(&cluster, "default/one"), None);
    assert_eq!(stays.map(|place| pause(&cluster, place).unwrap()), before);
    assert!(fetch(&cluster, "plain", "192.168.10.3:8080").contains("curl: (7)"));
    assert!(fetch(&cluster, "plain", "192.168.10.2:8081").starts_with("host a\n"));
}

#[test]
fn probes_come_from_the_node() {
    if !ready(&["curl"]) {
        return;
    }
    // A server that says nothing but whom it saw.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: seen}\nspec:\n  containers:\n  - name: c\n    image: python\n    \
               command: [python3, -u, -m, http.server, \"8000\", --bind, \"::\"]\n    \
               readinessProbe: {periodSeconds: 1, httpGet: {port: 8000, path: /etc/hostname}}\n";
    let cluster = Cluster::of("probed", pod, &[]);
    until("it is ready", || is_ready(&cluster, "seen"));
    let log = success("logs", &cluster.verb(&["logs", "seen"]));
    assert!(log.contains("192.168.10.2 - - ") && !log.contains("10.244.0.2 - - "), "{log}");
}

#[test]
fn without_namespaces_it_is_said_that_there_is_nothing_of_it() {
    let state = std::env::temp_dir().join(format!("vst-hostmem-{}", std::process::id()));
    let file = ManifestFile::new("hostmem", &manifest());
    let mut up = Command::new(executable());
    up.args(["up", "--require", "memory", "-f", file.path(), "--state-dir"]).arg(&state);
    let up = up.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let verb = |words: &[&str]| {
        Command::new(executable()).env("VSWITCH_STATE_DIR", &state).args(words).output().unwrap()
    };
    until("it is up", || verb(&["get", "pods"]).status.success());
    let traced = success("trace", &verb(&["trace", "plain", "tcp 192.168.10.2:8080"]));
    assert!(traced.contains("delivered to node/a"), "{traced}");
    assert!(both(&verb(&["exec", "one", "--", "true"])).contains("no namespace to enter"));
    success("down", &verb(&["down"]));
    let said = both(&up.wait_with_output().unwrap());
    let why = "default/one and 1 more: hostNetwork is not supported on memory links";
    assert!(said.contains(why), "{said}");
    std::fs::remove_dir_all(&state).unwrap();
}
