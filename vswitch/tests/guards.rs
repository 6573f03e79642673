//! What guards a segment: storms are cut, isolated stations do not meet, loops are blocked. And what its router does when it
//! is told to.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::process::Command;

use common::{Cluster, ManifestFile, ready, success, until};
use serde_json::Value;

/// Broadcasts as fast as they go.
const STORM: &str = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for _ in range(5000):
    s.sendto(b'storm', ('10.244.0.255', 9))
";
const SENT: u64 = 5000;

/// Three pods, the last one on another node; `spec` is that of the Cluster.
fn pods(spec: &str) -> String {
    let mut text = format!("apiVersion: vswitch/v1alpha1\nkind: Cluster\nspec: {spec}\n");
    for node in ["a", "b"] {
        text += &format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n");
    }
    for (name, node) in [("one", "a"), ("two", "a"), ("three", "b")] {
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec: {{nodeName: {node}, containers: [{{name: c, image: none}}]}}\n"
        );
    }
    text
}

/// One segment with plain machines on it, whose addresses are 10.9.0.11 and so on; `fields` are more of the segment's.
fn hosts(names: &[&str], fields: &str) -> String {
    let hosts = (11..).zip(names).map(|(at, name)| format!("{{name: {name}, addresses: [10.9.0.{at}]}}"));
    format!(
        "apiVersion: vswitch/v1alpha1\nkind: Cluster\nspec:\n  \
         segments: [{{name: rack, cidrs: [10.9.0.0/24, 'fd00:9::/64']{fields}}}]\n  hosts: [{}]\n",
        hosts.collect::<Vec<_>>().join(", ")
    )
}

fn apply(cluster: &Cluster, manifest: &str) {
    let file = ManifestFile::new("guards", manifest);
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
}

fn reaches(cluster: &Cluster, from: &str, to: &str) -> bool {
    cluster.exec(from, &["ping", "-n", "-c", "1", "-W", "2", to]).status.success()
}

fn port(cluster: &Cluster, name: &str) -> Value {
    let ports = cluster.get("ports");
    ports.into_iter().find(|port| port["port"] == name).unwrap()
}

fn told(cluster: &Cluster, text: &str) -> bool {
    cluster.get("events").iter().any(|event| event["text"].as_str().unwrap().contains(text))
}

#[test]
fn a_storm_is_cut_at_its_port_and_others_go_on() {
    if !ready(&["ping", "python3"]) {
        return;
    }
    let cluster = Cluster::of("storm", &pods("{podSegments: {stormControl: {rate: 20}}}"), &[]);
    let storm = || cluster.must("one", &["python3", "-c", STORM]);
    let cut = || port(&cluster, "default/one")["storm_drops"].as_u64().unwrap();
    let heard = || port(&cluster, "default/two")["tx_frames"].as_u64().unwrap();
    let before = heard();
    storm();
    // At 20 a second even a minute of storm is cut by more than half.
    until("the storm is cut", || cut() > SENT / 2);
    assert!(heard() - before < SENT / 2, "{} of {SENT} came through", heard() - before);
    for to in ["10.244.0.1", "10.244.1.2", "fd00:10:244:1::2"] {
        cluster.must("two", &["ping", "-n", "-c", "3", "-i", "0.01", "-W", "5", to]);
    }
    until("it is told", || told(&cluster, "storm control drops what comes in too fast by default/one"));
    let drops = cluster.get("drops");
    let row = drops.iter().find(|d| d["port"] == "default/one" && d["reason"] == "storm_control").unwrap();
    assert_eq!(row["count"], cut());
    assert_eq!(port(&cluster, "default/two")["storm_drops"], 0);
    let wide = success("get", &cluster.verb(&["get", "ports", "-o", "wide"]));
    assert!(wide.lines().next().unwrap().contains("STORM-DROPS"), "{wide}");
    let described = success("describe", &cluster.verb(&["describe", "pod", "one"]));
    assert!(described.contains("storm_control"), "{described}");

    // Guards change while the cluster runs.
    apply(&cluster, &pods("{podSegments: {stormControl: {rate: 1000000}}}"));
    let (before, cut_before) = (heard(), cut());
    storm();
    until("the storm comes through", || heard() - before >= SENT);
    assert_eq!(cut(), cut_before);
}

#[test]
fn isolated_stations_reach_the_router_and_others_but_not_each_other() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::of("isolated", &pods("{podSegments: {isolated: true}}"), &[]);
    for reached in ["10.244.0.1", "fd00:10:244::1", "10.244.1.2", "fd00:10:244:1::2"] {
        assert!(reaches(&cluster, "one", reached), "{reached}");
    }
    for other in ["10.244.0.3", "fd00:10:244::3"] {
        assert!(!reaches(&cluster, "one", other), "{other}");
    }
    let drops = cluster.get("drops");
    assert!(drops.iter().any(|d| d["port"] == "default/one" && d["reason"] == "port_isolated"), "{drops:#?}");
    apply(&cluster, &pods("{}"));
    for other in ["10.244.0.3", "fd00:10:244::3"] {
        until(&format!("{other} is reached"), || reaches(&cluster, "one", other));
    }
    drop(cluster);

    let cluster = Cluster::of("isolated", &hosts(&["p", "q"], ", isolated: true"), &[]);
    // The router, and the only node.
    for reached in ["10.9.0.1", "10.9.0.2"] {
        assert!(reaches(&cluster, "host/p", reached), "{reached}");
    }
    assert!(!reaches(&cluster, "host/p", "10.9.0.12"));
    apply(&cluster, &hosts(&["p", "q"], ""));
    until("hosts reach each other", || reaches(&cluster, "host/p", "10.9.0.12"));
}

#[test]
fn a_host_makes_itself_an_address_and_a_route_of_what_the_router_advertises() {
    if !ready(&["ping", "ip"]) {
        return;
    }
    let cluster = Cluster::of("advertise", &hosts(&["plain"], ", routerAdvertisements: true"), &[]);
    // As any machine has it by default: what is asked for when the interface comes up.
    let accept = "cd /proc/sys/net/ipv6/conf/eth0 && echo 1 > accept_ra && echo 1 > autoconf && \
                  echo 3 > router_solicitations && ip link set eth0 down && ip link set eth0 up";
    cluster.must("host/plain", &["sh", "-c", accept]);
    let say = |words: &str| {
        let argv: Vec<&str> = words.split(' ').collect();
        cluster.must("host/plain", &argv)
    };
    until("there is a default route", || say("ip -6 route show default").contains("default via fe80::"));
    let routes = say("ip -6 route");
    assert!(routes.contains("fd00:9::/64 dev eth0"), "{routes}");
    let addresses = say("ip -6 address show dev eth0 scope global");
    assert!(addresses.contains("inet6 fd00:9::") && addresses.contains("dynamic"), "{addresses}");
    // The router, and what is behind it: the prefix of the node's pods.
    for to in ["fd00:9::1", "fd00:10:244::1"] {
        until(&format!("{to} answers"), || reaches(&cluster, "host/plain", to));
    }
}

fn ip(arguments: &str) -> String {
    success(arguments, &Command::new("ip").args(arguments.split_whitespace()).output().unwrap())
}

#[test]
fn a_loop_through_two_hosts_is_blocked_until_it_is_taken_away() {
    if !ready(&["ping", "ip"]) {
        return;
    }
    let cluster = Cluster::of("loop", &hosts(&["p", "q", "r"], ""), &[]);
    let (p, q) = (format!("{}.host.p", cluster.name), format!("{}.host.q", cluster.name));
    // A bridge in each, and a cable between the two.
    ip(&format!("-n {p} link add cable type veth peer name cable netns {q}"));
    for namespace in [&p, &q] {
        ip(&format!("-n {namespace} link add br0 up type bridge"));
        for device in ["eth0", "cable"] {
            ip(&format!("-n {namespace} link set {device} up master br0"));
        }
    }
    until("the loop is told", || {
        told(&cluster, "host/p and host/q are one loop") || told(&cluster, "host/q and host/p are one loop")
    });
    let blocked = || {
        let ports =
            ["host/p", "host/q"].map(|name| port(&cluster, name)["state"].as_str().unwrap().to_owned());
        ports.into_iter().filter(|state| state.starts_with("blocked: loop until ")).count()
    };
    until("one port is blocked", || blocked() == 1);
    let table = success("get", &cluster.verb(&["get", "ports"]));
    assert!(table.contains("blocked: loop until "), "{table}");
    assert!(reaches(&cluster, "host/r", "10.9.0.1"));
    ip(&format!("-n {p} link del cable"));
    // When its time is over it is tried; where that was while the loop still was, its time is twice as long.
    for _ in 0..2 {
        if !told(&cluster, " is open again") {
            std::thread::sleep(std::time::Duration::from_secs(5));
        }
    }
    until("the port is open again", || told(&cluster, " is open again") && blocked() == 0);
    assert!(reaches(&cluster, "host/r", "10.9.0.1"));
}

#[test]
fn a_router_that_probes_says_when_its_addresses_are_in_use() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::of("probe", &hosts(&["p"], ", duplicateAddressDetection: true"), &[]);
    for address in ["10.9.0.1", "fd00:9::1"] {
        until(&format!("{address} is in use"), || told(&cluster, &format!("{address} is free and in use")));
    }
    assert!(reaches(&cluster, "host/p", "10.9.0.1"));
}

#[test]
fn a_router_that_proxies_answers_who_takes_everything_for_his_own_link() {
    if !ready(&["ping", "ip"]) {
        return;
    }
    // The node is on the other segment.
    let manifest = |fields: &str| {
        hosts(&["p"], fields)
            .replace("segments: [", "segments: [{name: other, cidrs: [10.8.0.0/24, 'fd00:8::/64']}, ")
    };
    let cluster = Cluster::of("proxy", &manifest(", proxyNeighbors: true"), &[]);
    cluster.must("host/p", &["ip", "route", "replace", "10.8.0.0/24", "dev", "eth0"]);
    assert!(reaches(&cluster, "host/p", "10.8.0.2"));
    apply(&cluster, &manifest(""));
    cluster.must("host/p", &["ip", "neigh", "flush", "all"]);
    assert!(!reaches(&cluster, "host/p", "10.8.0.2"));
}
