//! The cluster that stands when nobody describes another: two nodes, three pods, one machine outside.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use netstack::addr::IpNet;

use super::{Cluster, Host, Labels, Node, Pod, UnderlaySegment};

/// Two nodes on one rack, two pods on the first and one on the second, and a plain machine behind the underlay's
/// router. Pod prefixes are those that `kind` uses.
pub fn builtin(name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        mtu: 1500,
        segments: vec![
            segment("rack-a", ["10.20.30.1/24", "fd00:20:30::1/64"]),
            segment("outside", ["192.168.10.1/24", "fd00:192:168:10::1/64"]),
        ],
        nodes: vec![
            node("node-1", ["10.20.30.11", "fd00:20:30::11"], ["10.244.0.1/24", "fd00:10:244::1/64"]),
            node("node-2", ["10.20.30.12", "fd00:20:30::12"], ["10.244.1.1/24", "fd00:10:244:1::1/64"]),
        ],
        pods: vec![
            pod("alpha", "node-1", ["10.244.0.2", "fd00:10:244::2"]),
            pod("beta", "node-1", ["10.244.0.3", "fd00:10:244::3"]),
            pod("gamma", "node-2", ["10.244.1.2", "fd00:10:244:1::2"]),
        ],
        hosts: vec![Host {
            name: "outside".into(),
            segment: "outside".into(),
            addresses: ["192.168.10.200", "fd00:192:168:10::200"].map(address).to_vec(),
        }],
        images: BTreeMap::new(),
    }
}

fn segment(name: &str, gateways: [&str; 2]) -> UnderlaySegment {
    UnderlaySegment { name: name.into(), gateways: gateways.map(net).to_vec(), external: false }
}

fn node(name: &str, addresses: [&str; 2], gateways: [&str; 2]) -> Node {
    Node {
        name: name.into(),
        segment: "rack-a".into(),
        addresses: addresses.map(address).to_vec(),
        gateways: gateways.map(net).to_vec(),
        labels: Labels::new(),
    }
}

fn pod(name: &str, node: &str, addresses: [&str; 2]) -> Pod {
    Pod {
        namespace: "default".into(),
        name: name.into(),
        node: node.into(),
        addresses: addresses.map(address).to_vec(),
        labels: Labels::new(),
        spec: Arc::default(),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("the built-in cluster is written with valid addresses")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("the built-in cluster is written with valid prefixes")
}
