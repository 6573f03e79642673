//! A lab for tests of what is translated: two nodes, machines beside and outside, and HTTP that says who asked whom.

use std::process::Output;

use super::{Cluster, success};

/// Two nodes with a pod each and a machine on a rack, and two networks outside, towards one of which pods keep their
/// addresses. Load balancers get addresses of the rack.
pub(crate) const LAB: &str = r#"apiVersion: vswitch/v1alpha1
kind: Cluster
spec:
  nonMasqueradeCIDRs: [203.0.113.0/24, "fd00:203::/64"]
  segments:
    - {name: rack, cidrs: [10.20.30.0/24, "fd00:20:30::/64"]}
    - {name: internet, cidrs: [198.51.100.0/24, "fd00:198::/64"], external: true}
    - {name: partner, cidrs: [203.0.113.0/24, "fd00:203::/64"], external: true}
  hosts:
    - {name: inside, addresses: [10.20.30.200, "fd00:20:30::200"]}
    - {name: outside, addresses: [198.51.100.7, "fd00:198::7"]}
    - {name: partner, addresses: [203.0.113.7, "fd00:203::7"]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: rack}
spec: {addresses: [10.20.30.100-10.20.30.110, "fd00:20:30::100-fd00:20:30::110"]}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: alpha}, spec: {nodeName: node-1, containers: [{name: c, image: none}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gamma}, spec: {nodeName: node-2, containers: [{name: c, image: none}]}}
"#;

pub(crate) fn url(address: &str, port: u16) -> String {
    match address.contains(':') {
        true => format!("http://[{address}]:{port}/"),
        false => format!("http://{address}:{port}/"),
    }
}

pub(crate) fn curl(cluster: &Cluster, from: &str, address: &str, port: u16) -> Output {
    cluster.exec(from, &["curl", "-sS", "--noproxy", "*", "-m", "10", &url(address, port)])
}

/// Who answers, and with which address it sees the asker.
#[track_caller]
pub(crate) fn seen(cluster: &Cluster, from: &str, address: &str, port: u16) -> (String, String) {
    let text = success(&format!("{from} asks {address}"), &curl(cluster, from, address, port));
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let peer = of("peer address ");
    let peer = peer.rsplit_once(':').unwrap().0.trim_matches(['[', ']']).to_owned();
    (of("host "), peer)
}
