//! Truth tables: each policy by itself, all pods with each other at every port, through switches.

use std::net::IpAddr;

use serde_json::{Value, json};
use vswitch::objects::Allocations;

use super::evaluator::{Ask, End, World};
use super::fabric::{Fabric, cluster, place};

/// Protocols and ports.
pub(crate) const ASKS: [Ask; 6] = [
    Ask { protocol: "TCP", port: 80 },
    Ask { protocol: "TCP", port: 81 },
    Ask { protocol: "UDP", port: 80 },
    Ask { protocol: "UDP", port: 81 },
    Ask { protocol: "SCTP", port: 80 },
    Ask { protocol: "SCTP", port: 81 },
];

/// Three namespaces with three pods each, on two nodes. Pods differ in what they call their ports.
pub(crate) fn world() -> World {
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"disk": "fast"}}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-2"}}),
    ];
    for (at, namespace) in ["x", "y", "z"].into_iter().enumerate() {
        // z has no object: it has its name as a label all the same.
        if namespace != "z" {
            let labels = json!({"ns": namespace, "team": if at == 0 { "blue" } else { "red" }});
            objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}));
        }
        for (number, pod) in ["a", "b", "c"].into_iter().enumerate() {
            let mut labels = json!({"pod": pod, "tier": if pod == "a" { "front" } else { "back" }});
            if pod == "c" {
                labels["canary"] = "yes".into();
            }
            let serve = if pod == "b" { 81 } else { 80 };
            let ports = json!([
                {"name": "serve", "containerPort": serve},
                {"name": "query", "containerPort": 80, "protocol": "UDP"},
                {"name": "signal", "containerPort": 81, "protocol": "SCTP"},
            ]);
            objects.push(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod, "namespace": namespace, "labels": labels},
                "spec": {
                    "nodeName": if (at + number) % 2 == 0 { "node-1" } else { "node-2" },
                    "containers": [{"name": "c", "image": "none", "ports": ports}],
                },
            }));
        }
    }
    World { objects, denies: false }
}

/// Pods that policies are about.
fn subjects() -> Vec<Value> {
    vec![
        json!({}),
        json!({"matchLabels": {"pod": "a"}}),
        json!({"matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}]}),
        json!({"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b", "c"]}, {"key": "tier", "operator": "Exists"}]}),
    ]
}

/// Lists of peers; one that is null is left out. The prefixes are those that pods get theirs from.
fn peers() -> Vec<Value> {
    let team = json!({"matchLabels": {"team": "red"}});
    let not_blue = json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["blue"]}]});
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "z"}});
    vec![
        Value::Null,
        json!([]),
        json!([{"podSelector": {}}]),
        json!([{"podSelector": {"matchLabels": {"pod": "b"}}}]),
        json!([{"namespaceSelector": {}}]),
        json!([{"namespaceSelector": named}]),
        json!([{"namespaceSelector": not_blue, "podSelector": {"matchLabels": {"tier": "back"}}}]),
        json!([{"namespaceSelector": team}, {"podSelector": {"matchLabels": {"pod": "a"}}}]),
        json!([{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.0.0/24"]}}]),
        json!([{"ipBlock": {"cidr": "fd00:10:244::/56"}}, {"ipBlock": {"cidr": "10.244.1.2/32"}}]),
        json!([{"podSelector": {"matchLabels": {"pod": "nobody"}}}]),
    ]
}

fn ports() -> Vec<Value> {
    vec![
        Value::Null,
        json!([]),
        json!([{"port": 80}]),
        json!([{"port": "serve"}]),
        json!([{"port": 80, "endPort": 81, "protocol": "UDP"}, {"protocol": "SCTP"}]),
        json!([{"port": "signal", "protocol": "SCTP"}, {"port": "query", "protocol": "UDP"}, {"port": "none"}]),
    ]
}

fn rule(peers: &Value, ports: &Value, direction: &str) -> Value {
    let mut rule = json!({});
    if !peers.is_null() {
        rule[if direction == "ingress" { "from" } else { "to" }] = peers.clone();
    }
    if !ports.is_null() {
        rule["ports"] = ports.clone();
    }
    rule
}

fn policy(name: &str, namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// Every kind of subject with every kind of peers and of ports, and what is left out of a policy or left empty.
pub(crate) fn policies() -> Vec<Value> {
    let mut all = Vec::new();
    let (subjects, peers, ports) = (subjects(), peers(), ports());
    for (number, (peer, port)) in
        peers.iter().flat_map(|peer| ports.iter().map(move |port| (peer, port))).enumerate()
    {
        for direction in ["ingress", "egress"] {
            for step in [0, 1] {
                let at = number + usize::from(direction == "egress") + 2 * step;
                let subject = &subjects[at % subjects.len()];
                let mut spec = json!({"podSelector": subject});
                spec[direction] = json!([rule(peer, port, direction)]);
                if step == 1 && direction == "egress" {
                    spec["policyTypes"] = json!(["Egress"]);
                }
                let namespace = ["x", "y", "z"][at % 3];
                all.push(policy(&format!("{direction}-{number}-{step}"), namespace, &spec));
            }
        }
    }
    for (name, spec) in [
        ("closed", json!({"podSelector": {}})),
        ("closed-empty", json!({"podSelector": {}, "ingress": []})),
        ("closed-both", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        ("silent", json!({"podSelector": {}, "policyTypes": ["Egress"]})),
        ("egress-empty", json!({"podSelector": {}, "egress": []})),
        ("egress-empty-said", json!({"podSelector": {}, "egress": [], "policyTypes": ["Egress"]})),
        ("open", json!({"podSelector": {}, "ingress": [{}], "egress": [{}]})),
        ("untyped", json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Egress"]})),
        (
            "two",
            json!({"podSelector": {}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"pod": "a"}}}], "ports": [{"port": 80}]},
                {"from": [{"namespaceSelector": {}}], "ports": [{"port": 81, "protocol": "UDP"}]},
            ]}),
        ),
    ] {
        all.push(policy(name, "x", &spec));
    }
    all
}

/// The address of a pod of one family.
fn address(fabric: &Fabric, pod: &Value, v6: bool) -> IpAddr {
    let all = &fabric.endpoint(&place(pod)).addresses;
    all.iter().map(ipnet::IpNet::addr).find(|address| address.is_ipv6() == v6).unwrap()
}

/// Everybody asks everybody for everything, by both families. Each answer must be the evaluator's.
#[track_caller]
pub(crate) fn probe(fabric: &mut Fabric, world: &World, source_port: u16, what: &str) -> (u32, u32) {
    let (mut allowed, mut denied) = (0, 0);
    let pods = world.pods();
    for from in &pods {
        for to in pods.iter().filter(|to| !std::ptr::eq(**to, *from)) {
            for (ask, v6) in ASKS.into_iter().flat_map(|ask| [(ask, false), (ask, true)]) {
                let ends = [from, to].map(|pod| address(fabric, pod, v6));
                let expected = world.allows(End::Pod(from, ends[0]), End::Pod(to, ends[1]), ask);
                let frame = fabric.frame(&place(from), ends[1], source_port, ask);
                let reached = fabric.send(&place(from), &frame);
                let wanted = if expected { vec![place(to)] } else { Vec::new() };
                assert_eq!(reached, wanted, "{} to {}, {ask:?}, v6 {v6}: {what}", place(from), place(to));
                if expected { allowed += 1 } else { denied += 1 }
            }
        }
    }
    (allowed, denied)
}

#[test]
fn each_of_two_hundred_policies_has_its_truth_table() {
    let mut world = world();
    let all = policies();
    assert!(all.len() >= 200, "{}", all.len());
    let (first, mut given) = cluster(&world, &Allocations::default());
    let mut fabric = Fabric::new(&first);
    let open = probe(&mut fabric, &world, 40_000, "none");
    assert_eq!(open.1, 0);
    let (mut closing, place) = (0, world.objects.len());
    for (number, policy) in all.into_iter().enumerate() {
        let what = policy.to_string();
        world.objects.truncate(place);
        world.objects.push(policy);
        let (next, allocations) = cluster(&world, &given);
        given = allocations;
        fabric.install(&next);
        // Some of what is asked was asked before, and is judged anew.
        let (_, denied) = probe(&mut fabric, &world, 40_000 + number as u16 % 2, &what);
        closing += u32::from(denied > 0);
    }
    assert!(closing > 150, "{closing}");
}

#[test]
fn what_is_denied_without_a_policy_is_denied() {
    let world = World { denies: true, ..world() };
    let (cluster, _) = cluster(&world, &Allocations::default());
    let mut fabric = Fabric::new(&cluster);
    assert_eq!(probe(&mut fabric, &world, 40_000, "none").0, 0);
}
