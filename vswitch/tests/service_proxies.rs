//! Userspace proxies of nodes, as the control plane tells of them; on memory links.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

#[path = "common/in_memory.rs"]
mod in_memory;

use std::fmt::Write as _;

use in_memory::InMemory;
use vswitch::cluster::Place;
use vswitch::runtime::PacketSpec;

const LAB: &str = "apiVersion: vswitch/v1alpha1\nkind: Cluster\nspec: {proxyMode: userspace}\n---\napiVersion: v1\n\
                   kind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec: {containers: [{name: c, image: none}]}\n";

/// A Service with so many ports, the first of which has this number.
fn many(name: &str, first: u16, count: u16) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{vswitch/lb-policy: random}}}}\n\
         spec:\n  selector: {{app: web}}\n  ports:\n"
    );
    for port in first..first + count {
        writeln!(text, "  - {{name: p{port}, port: {port}}}").unwrap();
    }
    text
}

#[test]
fn a_change_tells_what_a_proxy_cannot_listen_for() {
    let lab = InMemory::start("unheard", LAB);
    let full: String = (0..16).map(|n| many(&format!("s{n}"), 1000, 1024)).collect();
    let view = lab.apply(&full);
    assert_eq!(view.problems, [""; 0]);
    let view = lab.apply(&many("t", 1, 7));
    let why = "node-1: its service proxy cannot listen for it: there are as many sockets of this kind as the limits allow";
    let first = (1..=5).map(|n| format!("default/t:p{n}/IPv4: {why}"));
    let rest = "the same holds for 2 more ports of Services".to_owned();
    assert_eq!(view.problems, first.chain([rest]).collect::<Vec<_>>());
    let events: Vec<String> = lab.plane.runtime().events().into_iter().map(|event| event.text).collect();
    assert!(events.iter().any(|text| text.contains("nor for 6 other ports")), "{events:?}");
    // It has been told, and nothing else goes wrong.
    let view = lab.apply(&many("u", 1, 0).replace("ports:", "clusterIP: None"));
    assert_eq!(view.problems, [""; 0]);
    lab.stop();
}

#[test]
fn a_trace_says_where_the_proxy_goes_on() {
    let lab = InMemory::start("traced", LAB);
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.1.1, selector: {app: web}, \
                ports: [{name: http, port: 80, targetPort: 8080}]}\n";
    lab.apply(text);
    let from = Place::Pod { namespace: "default".into(), name: "web".into() };
    let packet: PacketSpec = "tcp 10.96.1.1:80".parse().unwrap();
    let view = lab.plane.runtime().trace(&from, &packet).unwrap();
    assert!(view.delivered, "{view:?}");
    assert_eq!(
        view.outcome,
        "taken by the service proxy of node-1 at port 1024, which carries default/web:http/IPv4 on to one of 10.244.0.2:8080"
    );
    lab.stop();
}
