//! What objects say once all that is left out is filled in, and what is wrong with them.

use manifest::ClusterNetworkPolicy;
use netstack::policy::Action;
use serde_json::{Value, json};

use super::*;
use crate::service::Complaints;

fn read(spec: Value) -> (PolicySpec, Complaints) {
    let object =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {}, "spec": spec});
    let mut complaints = Complaints::default();
    let read = PolicySpec::read(&serde_json::from_value(object).unwrap(), "shop", "p", &mut complaints);
    (read, complaints)
}

#[track_caller]
fn sound(spec: Value) -> PolicySpec {
    let (read, complaints) = read(spec);
    assert_eq!(complaints, Complaints::default());
    read
}

fn cluster(spec: Value) -> (PolicySpec, Complaints) {
    let object = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"}, "spec": spec,
    });
    let object: ClusterNetworkPolicy = serde_json::from_value(object).unwrap();
    let mut complaints = Complaints::default();
    let read = PolicySpec::read_cluster(&object, "p", &mut complaints);
    (read, complaints)
}

fn directions(spec: Value) -> [Option<usize>; 2] {
    let (policy, _) = read(spec);
    [policy.ingress, policy.egress].map(|rules| rules.map(|rules| rules.len()))
}

#[test]
fn types_are_filled_in_as_kubernetes_does() {
    assert_eq!(directions(json!({"podSelector": {}})), [Some(0), None]);
    assert_eq!(directions(json!({"podSelector": {}, "policyTypes": []})), [Some(0), None]);
    assert_eq!(directions(json!({"podSelector": {}, "egress": []})), [Some(0), None]);
    assert_eq!(directions(json!({"podSelector": {}, "egress": [{}]})), [Some(0), Some(1)]);
    assert_eq!(directions(json!({"podSelector": {}, "ingress": [{}]})), [Some(1), None]);
    assert_eq!(directions(json!({"podSelector": {}, "policyTypes": ["Egress"]})), [None, Some(0)]);
    assert_eq!(
        directions(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        [Some(0), Some(0)]
    );
    let (_, complaints) = read(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}));
    assert_eq!(complaints.warnings[0].0, "spec.ingress");
    let (_, complaints) = read(json!({"podSelector": {}, "policyTypes": ["ingress"]}));
    assert_eq!(complaints.faults[0].0, "spec.policyTypes[0]");
}

#[test]
fn a_list_that_is_empty_is_as_one_that_is_missing() {
    for rule in [json!({}), json!({"from": [], "ports": []}), json!({"from": null, "ports": null})] {
        let policy = sound(json!({"podSelector": {}, "ingress": [rule]}));
        let rules = policy.ingress.unwrap();
        assert_eq!((&rules[0].peers, &rules[0].ports), (&None, &None));
    }
}

#[test]
fn peers_are_of_the_policys_namespace_unless_they_name_others() {
    let policy = sound(json!({"ingress": [{"from": [
        {"podSelector": {}},
        {"namespaceSelector": {}},
        {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {"matchLabels": {"c": "d"}}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
    ]}]}));
    let words: Vec<String> =
        policy.ingress.unwrap()[0].peers.as_ref().unwrap().iter().map(ToString::to_string).collect();
    let expected = [
        "all pods of shop",
        "all pods of all namespaces",
        "pods c=d of namespaces a=b",
        "10.0.0.0/8 without 10.1.0.0/16",
    ];
    assert_eq!(words, expected);
}

#[test]
fn ports_are_numbers_names_ranges_and_whole_protocols() {
    let policy = sound(json!({"ingress": [{"ports": [
        {}, {"protocol": "UDP"}, {"port": 80}, {"port": "web"}, {"protocol": "SCTP", "port": 1, "endPort": 65535},
    ]}]}));
    let rules = policy.ingress.unwrap();
    assert_eq!(rules[0].describe("from"), "accept from anybody: TCP, UDP, TCP 80, TCP \"web\", SCTP 1-65535");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let peer = |peer: Value| json!({"ingress": [{"from": [peer]}]});
    let port = |port: Value| json!({"egress": [{"ports": [port]}]});
    for (spec, place) in [
        (peer(json!({})), "spec.ingress[0].from[0]"),
        (peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})), "spec.ingress[0].from[0]"),
        (peer(json!({"ipBlock": {"cidr": "10.0.0.1"}})), "spec.ingress[0].from[0].ipBlock.cidr"),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        (
            peer(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]",
        ),
        (port(json!({"protocol": "ICMP"})), "spec.egress[0].ports[0].protocol"),
        (port(json!({"port": 0})), "spec.egress[0].ports[0].port"),
        (port(json!({"port": 65536})), "spec.egress[0].ports[0].port"),
        (port(json!({"endPort": 80})), "spec.egress[0].ports[0].endPort"),
        (port(json!({"port": "web", "endPort": 80})), "spec.egress[0].ports[0].endPort"),
        (port(json!({"port": 80, "endPort": 79})), "spec.egress[0].ports[0].endPort"),
    ] {
        let (_, complaints) = read(spec.clone());
        let places: Vec<&str> = complaints.faults.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [place], "{spec}: {complaints:?}");
    }
    let (_, complaints) = read(json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}]}));
    assert_eq!((complaints.faults.len(), complaints.warnings.len()), (0, 1));
}

#[test]
fn a_cluster_policy_is_read_in_order() {
    let (policy, complaints) = cluster(json!({
        "tier": "Admin", "priority": 7, "subject": {"namespaces": {}},
        "ingress": [
            {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"a": "b"}}}],
             "protocols": [{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {}}]},
            {"action": "Pass", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}]},
        ],
        "egress": [{"action": "Accept", "to": [{"nodes": {}}, {"networks": ["10.0.0.0/8", "fd00::/8"]}],
            "protocols": [{"destinationNamedPort": "web"}, {"sctp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}]}],
    }));
    assert_eq!(complaints, Complaints::default());
    assert_eq!(
        (policy.tier, policy.priority, policy.title()),
        (Tier::Admin, 7, "ClusterNetworkPolicy p".to_owned())
    );
    let ingress = policy.ingress.unwrap();
    assert_eq!(ingress[0].describe("from"), "deny from all pods of namespaces a=b: TCP 80, UDP");
    assert_eq!((ingress[1].action, &ingress[1].ports), (Action::Pass, &None));
    assert_eq!(
        policy.egress.unwrap()[0].describe("to"),
        "accept to all nodes; 10.0.0.0/8; fd00::/8: TCP \"web\", UDP \"web\", SCTP \"web\", SCTP 1-9"
    );
    let (policy, _) = cluster(json!({"tier": "Baseline", "priority": 0, "subject": {"namespaces": {}}}));
    assert_eq!((policy.tier, policy.ingress, policy.egress), (Tier::Baseline, None, None));
}

#[test]
fn cluster_policies_that_are_wrong_are_refused() {
    let with = |field: &str, value: Value| {
        let mut spec = json!({"tier": "Admin", "priority": 0, "subject": {"namespaces": {}}});
        spec[field] = value;
        spec
    };
    let egress = |peer: Value| with("egress", json!([{"action": "Deny", "to": [peer]}]));
    let protocol = |protocol: Value| {
        with("ingress", json!([{"action": "Deny", "from": [{"namespaces": {}}], "protocols": [protocol]}]))
    };
    let pods = json!({"namespaceSelector": {}, "podSelector": {}});
    for (spec, place) in [
        (with("priority", json!(1001)), "spec.priority"),
        (with("priority", json!(-1)), "spec.priority"),
        (with("subject", json!({})), "spec.subject"),
        (with("subject", json!({"namespaces": {}, "pods": pods})), "spec.subject"),
        (with("ingress", json!([{"action": "Deny", "from": []}])), "spec.ingress[0].from"),
        (egress(json!({})), "spec.egress[0].to[0]"),
        (egress(json!({"domainNames": ["example.org"]})), "spec.egress[0].to[0].domainNames"),
        (egress(json!({"networks": ["10.0.0.0"]})), "spec.egress[0].to[0].networks[0]"),
        (protocol(json!({})), "spec.ingress[0].protocols[0]"),
        (protocol(json!({"tcp": {}, "udp": {}})), "spec.ingress[0].protocols[0]"),
        (
            protocol(json!({"tcp": {"destinationPort": {}}})),
            "spec.ingress[0].protocols[0].tcp.destinationPort",
        ),
        (
            protocol(json!({"tcp": {"destinationPort": {"range": {"start": 9, "end": 8}}}})),
            "spec.ingress[0].protocols[0].tcp.destinationPort",
        ),
    ] {
        let (_, complaints) = cluster(spec.clone());
        let places: Vec<&str> = complaints.faults.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [place], "{spec}: {complaints:?}");
    }
}
