//! Services, asked by real programs in both families.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

#[path = "../common/mod.rs"]
mod common;
mod crowds;
mod datagrams;
mod doors;
mod load_balancer;
mod oracles;
mod rolling;
mod sctp;
mod userspace;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use common::two_nodes::{LAB, curl, seen};
use common::{Background, Cluster, ManifestFile, executable, ready, success, until};
use serde_json::Value;

const NODES: [&str; 2] = ["10.20.30.2", "10.20.30.3"];
const CLIENTS: [&str; 5] = ["alpha", "gamma", "node/node-1", "node/node-2", "host/inside"];

/// Holds a pod back until something listens on 8080: without it a pod is ready as soon as its containers run.
const LISTENS: &str = "startupProbe: {periodSeconds: 1, failureThreshold: 60, exec: {command: [sh, -c, 'ss -Hltn sport = :8080 | grep -q .']}}";

/// A pod that serves HTTP on 8080, a port by the name of web.
fn web(name: &str, node: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 2\n  containers:\n  - {{name: c, image: vswitch/http, args: [--port, '8080'], \
         ports: [{{name: web, containerPort: 8080}}], {LISTENS}{more}}}\n"
    )
}

fn service(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

const DUAL: &str =
    "ipFamilyPolicy: RequireDualStack, clusterIPs: [10.96.7.7, 'fd00:10:96::77'], selector: {app: web}";
const VIPS: [&str; 2] = ["10.96.7.7", "fd00:10:96::77"];

fn lab(label: &str, more: &[String]) -> Cluster {
    let pods = [web("w1", "node-1", ""), web("w2", "node-2", "")].concat();
    let cluster = Cluster::of(label, &format!("{LAB}{pods}{}", more.concat()), &[]);
    until("both servers are ready", || {
        let pods = cluster.get("pods");
        let ready = |name: &str| {
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
            pod.is_some_and(|pod| pod["status"]["conditions"][0]["status"] == "True")
        };
        ready("w1") && ready("w2")
    });
    cluster
}

fn apply(cluster: &Cluster, verb: &str, text: &str) {
    let file = ManifestFile::new("services", text);
    success(verb, &cluster.verb(&[verb, "-f", file.path()]));
}

/// How often each server answers, each time by a connection of its own.
#[track_caller]
fn answers(cluster: &Cluster, from: &str, address: &str, port: u16, times: usize) -> BTreeMap<String, usize> {
    let host = if address.contains(':') { format!("\\[{address}\\]") } else { address.to_owned() };
    let url = format!("http://{host}:{port}/[1-{times}]");
    let ask = ["curl", "-sS", "--noproxy", "*", "-m", "20", "--fail-early", "-H", "Connection: close", &url];
    let told = success(&format!("{from} asks {url}"), &cluster.exec(from, &ask));
    let mut counts = BTreeMap::new();
    for name in told.lines().filter_map(|line| line.strip_prefix("host ")) {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    assert_eq!(counts.values().sum::<usize>(), times, "{from} {url}: {told}");
    counts
}

/// Connects or sends, and prints the error that comes within three seconds, or that none came.
const REFUSED: &str = "import socket, sys, time
to = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]))[0]
begin = time.monotonic()
s = socket.socket(to[0], socket.SOCK_STREAM if sys.argv[3] == 'tcp' else socket.SOCK_DGRAM)
s.settimeout(3)
try:
    s.connect(to[4])
    s.send(b'x')
    s.recv(1)
    print('answered')
except OSError as error: print(type(error).__name__)
";

fn refused(cluster: &Cluster, from: &str, address: &str, port: u16, protocol: &str) -> String {
    let port = port.to_string();
    cluster.must(from, &["python3", "-c", REFUSED, address, &port, protocol]).trim().to_owned()
}

fn uplinks_with(cluster: &Cluster, address: &str) -> Vec<String> {
    let rows = cluster.get("routes");
    let with = rows.iter().filter(|row| row["prefix"].as_str().unwrap().split('/').next() == Some(address));
    let switches =
        with.map(|row| row["switch"].as_str().unwrap().to_owned()).filter(|name| name != "underlay");
    let mut switches: Vec<String> = switches.collect();
    switches.dedup();
    switches
}

#[test]
fn a_cluster_ip_leads_to_every_pod_by_number_and_by_name_in_both_families() {
    if !ready(&["curl", "python3"]) {
        return;
    }
    let ports = "ports: [{name: one, port: 80, targetPort: web}, {name: two, port: 81, targetPort: 8080}]";
    let cluster = lab("cip", &[service("s", &format!("{DUAL}, {ports}"))]);
    for vip in VIPS {
        for from in CLIENTS.iter().take(4) {
            let counts = answers(&cluster, from, vip, 80, 24);
            assert_eq!(counts.len(), 2, "{from} {vip}: {counts:?}");
        }
        assert_eq!(answers(&cluster, "alpha", vip, 81, 24).len(), 2);
        // Pods keep their own address; the node is seen with its own too.
        let own = if vip.contains(':') { "fd00:10:244::2" } else { "10.244.0.2" };
        assert_eq!(seen(&cluster, "alpha", vip, 80).1, own);
        // A port that it does not have is refused at once; an address that nobody has is not answered at all.
        assert_eq!(refused(&cluster, "alpha", vip, 99, "tcp"), "ConnectionRefusedError");
    }
    let free = refused(&cluster, "alpha", "10.96.7.8", 80, "tcp");
    assert!(["TimeoutError", "timeout"].contains(&free.as_str()), "{free}");
}

#[test]
fn a_service_without_endpoints_is_refused_at_once() {
    if !ready(&["python3"]) {
        return;
    }
    let ports = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]";
    let spec = format!("{}, {ports}", DUAL.replace("app: web", "app: nobody"));
    let cluster = lab("none", &[service("s", &spec)]);
    for vip in VIPS {
        for from in ["alpha", "node/node-2"] {
            for protocol in ["tcp", "udp"] {
                let told = refused(&cluster, from, vip, 80, protocol);
                assert_eq!(told, "ConnectionRefusedError", "{from} {vip} {protocol}");
            }
        }
    }
}

#[test]
fn nodes_and_a_load_balancer_lead_there_from_outside_and_one_node_announces() {
    if !ready(&["curl"]) {
        return;
    }
    let ports = "ports: [{port: 80, targetPort: web, nodePort: 30080}]";
    let cluster = lab("lb", &[service("s", &format!("type: LoadBalancer, {DUAL}, {ports}"))]);
    for node in [NODES[0], NODES[1], "fd00:20:30::2", "fd00:20:30::3"] {
        let counts = answers(&cluster, "host/inside", node, 30_080, 16);
        assert_eq!(counts.len(), 2, "{node} {counts:?}");
        // It has to come back the way it went.
        assert_eq!(seen(&cluster, "host/inside", node, 30_080).1, node);
    }
    for address in ["10.20.30.100", "fd00:20:30::100"] {
        assert_eq!(answers(&cluster, "host/inside", address, 80, 16).len(), 2, "{address}");
        assert_eq!(answers(&cluster, "host/outside", address, 80, 16).len(), 2, "{address}");
        assert_eq!(answers(&cluster, "alpha", address, 80, 16).len(), 2, "{address}");
        assert_eq!(uplinks_with(&cluster, address).len(), 1, "{address}");
    }
    // With policy Local the client is seen, and a pod of the node that announces answers.
    let local = format!("type: LoadBalancer, externalTrafficPolicy: Local, {DUAL}, {ports}");
    apply(&cluster, "apply", &service("s", &local));
    let (name, peer) = seen(&cluster, "host/inside", NODES[0], 30_080);
    assert_eq!((name.as_str(), peer.as_str()), ("w1", "10.20.30.200"));
    apply(&cluster, "delete", &web("w1", "node-1", ""));
    until("the other node announces", || uplinks_with(&cluster, "10.20.30.100") == ["node-2"]);
    until("and answers", || curl(&cluster, "host/inside", "10.20.30.100", 80).status.success());
    assert_eq!(
        seen(&cluster, "host/inside", "10.20.30.100", 80),
        ("w2".to_owned(), "10.20.30.200".to_owned())
    );
    let shown = success("get", &cluster.verb(&["get", "services"]));
    assert!(shown.contains("10.20.30.100") && shown.contains("80:30080/TCP"), "{shown}");
}

#[test]
fn a_client_comes_back_and_a_pod_meets_itself_with_its_nodes_address() {
    if !ready(&["curl"]) {
        return;
    }
    let ports = "ports: [{port: 80, targetPort: web}]";
    let cluster = lab("affine", &[service("s", &format!("{DUAL}, sessionAffinity: ClientIP, {ports}"))]);
    for vip in VIPS {
        assert_eq!(answers(&cluster, "alpha", vip, 80, 16).len(), 1, "{vip}");
    }
    let described = success("describe", &cluster.verb(&["describe", "service", "s"]));
    let own = cluster.get("pods").iter().find(|p| p["metadata"]["name"] == "w1").unwrap()["status"]["podIPs"]
        .clone();
    assert!(
        described.contains("clients come back for 10800 s") && described.contains("10.244.0.2"),
        "{described}"
    );
    assert!(
        described.contains("TABLE") && described.contains("50.") && described.contains("ready"),
        "{described}"
    );
    // Its own service from the inside, where only it is left.
    apply(&cluster, "delete", &web("w2", "node-2", ""));
    for (vip, own) in VIPS.iter().zip(own.as_array().unwrap()) {
        let (name, peer) = seen(&cluster, "w1", vip, 80);
        assert_eq!(name, "w1");
        assert_ne!(peer, own["ip"].as_str().unwrap(), "{vip}");
    }
}

#[test]
fn readiness_and_given_slices_decide_who_answers() {
    if !ready(&["curl"]) {
        return;
    }
    let flag = std::env::temp_dir().join(format!("vst-flag-{}", std::process::id()));
    fs::write(&flag, "").unwrap();
    let probe = format!(
        ", readinessProbe: {{periodSeconds: 1, failureThreshold: 1, exec: {{command: [test, -e, {}]}}}}",
        flag.display()
    );
    let ports = "ports: [{port: 80, targetPort: web}]";
    let text = [service("s", &format!("{DUAL}, {ports}")), web("w3", "node-1", &probe)];
    let cluster = lab("ready", &text);
    let names = |vip: &str| answers(&cluster, "alpha", vip, 80, 30).into_keys().collect::<Vec<_>>();
    until("all three answer", || names(VIPS[0]).len() == 3);
    fs::remove_file(&flag).unwrap();
    until("the one that is not ready is left out", || names(VIPS[0]) == ["w1", "w2"]);
    assert_eq!(names(VIPS[1]), ["w1", "w2"]);
    fs::write(&flag, "").unwrap();
    until("it is back", || names(VIPS[1]).len() == 3);
    fs::remove_file(&flag).unwrap();
    // A Service without a selector, and the machine outside behind it.
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: \
                 {kubernetes.io/service-name: x}}\naddressType: IPv4\nports: [{port: 8080}]\nendpoints: [{addresses: [ADDRESS]}]\n";
    let x = service("x", "clusterIP: 10.96.9.9, ports: [{port: 80}]");
    let _server: Background =
        cluster.serve("host/inside", 8080, &[executable(), "__image", "http", "--port", "8080"]);
    apply(&cluster, "apply", &[x, slice.replace("ADDRESS", "10.20.30.200")].concat());
    assert_eq!(seen(&cluster, "alpha", "10.96.9.9", 80).0, "inside");
    let w2 = cluster.get("pods").iter().find(|p| p["metadata"]["name"] == "w2").unwrap()["status"]["podIP"]
        .clone();
    apply(&cluster, "apply", &slice.replace("ADDRESS", w2.as_str().unwrap()));
    assert_eq!(seen(&cluster, "alpha", "10.96.9.9", 80).0, "w2");
    apply(&cluster, "delete", slice);
    assert_eq!(refused(&cluster, "alpha", "10.96.9.9", 80, "tcp"), "ConnectionRefusedError");
}

#[test]
fn what_is_not_translated_is_accepted_and_shown() {
    if !ready(&["curl"]) {
        return;
    }
    let text = [
        service("plain", "ports: [{port: 80}]"),
        service("headless", "clusterIP: None, selector: {app: web}, ports: [{port: 80, targetPort: web}]"),
        service("named", "type: ExternalName, externalName: www.example.com"),
    ];
    let cluster = lab("shown", &text);
    let shown = success("get", &cluster.verb(&["get", "services"]));
    assert!(shown.contains("www.example.com") && shown.contains("None"), "{shown}");
    let endpoints = success("get", &cluster.verb(&["get", "endpoints", "headless"]));
    assert!(endpoints.matches(":8080").count() >= 2, "{endpoints}");
    let slices: Vec<Value> = cluster.get("endpointslices");
    assert_eq!(slices.len(), 1, "{slices:?}");
    assert_eq!(slices[0]["endpoints"].as_array().unwrap().len(), 2);
    // What was given stays over a change of everything else.
    let given = |cluster: &Cluster| cluster.get("services")[2]["spec"]["clusterIP"].clone();
    let before = given(&cluster);
    assert!(before.as_str().unwrap().starts_with("10."), "{before}");
    apply(&cluster, "apply", &service("more", "ports: [{port: 80}]"));
    let all = cluster.get("services");
    let plain = all.iter().find(|service| service["metadata"]["name"] == "plain").unwrap();
    assert_eq!(plain["spec"]["clusterIP"], before);
}

/// Sends a datagram and prints what comes back.
const DATAGRAM: &str = "import socket, sys
to = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
s = socket.socket(to[0], socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(to[4])
s.send(b'marco')
print(s.recv(100).decode())
";

#[test]
fn datagrams_and_connections_share_a_port_and_each_client_gets_its_answer() {
    if !ready(&["python3"]) {
        return;
    }
    let echo = |name: &str, node: &str| {
        web(name, node, "").replace("app: web", "app: echo").replace("vswitch/http", "vswitch/echo")
    };
    let ports = "ports: [{name: t, port: 7, targetPort: 8080}, {name: u, port: 7, targetPort: 8080, protocol: UDP, nodePort: 30007}]";
    let spec = format!("type: NodePort, {}, {ports}", DUAL.replace("app: web", "app: echo"));
    let cluster = lab("udp", &[service("s", &spec), echo("e1", "node-1"), echo("e2", "node-2")]);
    let asked = |from: &str, address: &str, port: &str| {
        let output = cluster.exec(from, &["python3", "-c", DATAGRAM, address, port]);
        String::from_utf8_lossy(&output.stdout).trim() == "marco"
    };
    until("both are ready", || {
        let endpoints = success("get", &cluster.verb(&["get", "endpoints", "s", "-o", "wide"]));
        endpoints.matches("10.244.").count() >= 4
    });
    for vip in VIPS {
        for from in ["alpha", "gamma", "node/node-1"] {
            assert!((0..4).all(|_| asked(from, vip, "7")), "{from} {vip}");
        }
    }
    for node in ["10.20.30.2", "fd00:20:30::3"] {
        assert!((0..4).all(|_| asked("host/inside", node, "30007")), "{node}");
    }
}
