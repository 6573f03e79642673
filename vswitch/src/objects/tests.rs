use std::collections::BTreeMap;
use std::sync::Arc;

use manifest::{Source, Strictness, load};

use super::*;

fn store(text: &str) -> Store {
    let read = load(&[Source { name: "lab.yaml".into(), text: text.into() }], Strictness::Strict);
    let mut store = Store::default();
    store.apply(read.unwrap_or_else(|invalid| panic!("{invalid}")));
    store
}

fn compiled(text: &str) -> Compiled {
    compile(&store(text), &Allocations::default(), "lab").unwrap_or_else(|invalid| panic!("{invalid}"))
}

fn faults(text: &str) -> Vec<String> {
    let invalid = compile(&store(text), &Allocations::default(), "lab").unwrap_err();
    invalid.problems.iter().map(ToString::to_string).collect()
}

fn pod(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c}}]{more}}}\n"
    )
}

fn node(name: &str, more: &str) -> String {
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n{more}\n")
}

#[test]
fn one_pod_alone_is_a_cluster() {
    let Compiled { cluster, allocations, warnings } = compiled(&pod("web", ""));
    assert_eq!((cluster.name.as_str(), cluster.mtu, warnings.len()), ("lab", 1500, 0));
    let addresses = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(addresses(&cluster.pods[0].addresses), ["10.244.0.2", "fd00:10:244::2"]);
    assert_eq!(addresses(&cluster.nodes[0].addresses), ["192.168.10.2", "fd00:192:168:10::2"]);
    assert_eq!(cluster.nodes[0].gateways[1].to_string(), "fd00:10:244::1/64");
    assert_eq!(allocations.pods["default/web"].node, "node-1");
    assert_eq!(cluster.services.cidrs.len(), 2);
    for plan in &crate::cluster::wire(&cluster, &mut crate::cluster::PortNumbers::default()).switches {
        netstack::config::Snapshot::compile(plan.config.clone(), None).unwrap();
    }
}

#[test]
fn of_policies_those_alone_that_change_are_read_again() {
    let policy = |name: &str, kind: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\n\
             spec: {{podSelector: {{}}, policyTypes: [{kind}]}}\n"
        )
    };
    let mut objects = store(&[policy("a", "Ingress"), policy("b", "Ingress")].concat());
    let change = |objects: &mut Store, text: String| {
        let read = load(&[Source { name: "change.yaml".into(), text }], Strictness::Strict).unwrap();
        objects.apply(read);
    };
    let policies =
        |objects: &Store| compile(objects, &Allocations::default(), "lab").unwrap().cluster.policies;
    let first = policies(&objects);
    assert!(Arc::ptr_eq(&first, &policies(&objects)));
    change(&mut objects, policy("b", "Egress"));
    let second = policies(&objects);
    let [a, b] = ["NetworkPolicy default/a", "NetworkPolicy default/b"];
    assert!(Arc::ptr_eq(&first.policies[a], &second.policies[a]));
    assert_ne!(first.policies[b], second.policies[b]);
    change(&mut objects, policy("a", "Ingress"));
    assert!(Arc::ptr_eq(&second, &policies(&objects)), "it says the same");
    change(&mut objects, pod("web", ""));
    assert!(Arc::ptr_eq(&second, &policies(&objects)));
}

#[test]
fn pods_are_spread_and_keep_what_they_had() {
    let text = [
        node("a", ""),
        node("b", ""),
        pod("p1", ""),
        pod("p2", ""),
        pod("p3", ""),
        pod("p4", ", nodeName: b"),
    ]
    .concat();
    let first = compiled(&text);
    let nodes = |c: &Compiled| c.cluster.pods.iter().map(|p| p.node.clone()).collect::<Vec<_>>();
    assert_eq!(nodes(&first), ["a", "a", "b", "b"], "p4 counts on b before the others are placed");
    // Without p1 everybody stays where it was, and another pod gets the place and the address.
    let later = [
        node("a", ""),
        node("b", ""),
        pod("p2", ""),
        pod("p3", ""),
        pod("p4", ", nodeName: b"),
        pod("p5", ""),
    ]
    .concat();
    let second = compile(&store(&later), &first.allocations, "lab").unwrap();
    assert_eq!(nodes(&second), ["a", "b", "b", "a"]);
    for (name, before) in first.allocations.pods.iter().filter(|(name, _)| *name != "default/p1") {
        assert_eq!(&second.allocations.pods[name], before, "{name}");
    }
    assert_eq!(
        second.allocations.pods["default/p5"].addresses,
        first.allocations.pods["default/p1"].addresses
    );
    // Moved by name or by annotation, a pod keeps its addresses.
    for moved in [
        pod("p2", ", nodeName: b"),
        pod("p2", "").replace("name: p2", "name: p2, annotations: {vswitch/node: b}"),
    ] {
        let third =
            compile(&store(&[node("a", ""), node("b", ""), moved].concat()), &first.allocations, "lab")
                .unwrap();
        let (was, is) = (&first.allocations.pods["default/p2"], &third.allocations.pods["default/p2"]);
        assert_eq!((is.node.as_str(), &is.addresses), ("b", &was.addresses));
    }
}

#[test]
fn deployments_become_pods_with_ordinals() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  replicas: 3\n\
                \x20 selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c}]}\n";
    let places: Vec<String> = compiled(text).cluster.pods.iter().map(|p| p.place().to_string()).collect();
    assert_eq!(places, ["shop/web-0", "shop/web-1", "shop/web-2"]);
    let other = text.replace("labels: {app", "labels: {ap");
    assert_eq!(
        faults(&other),
        ["lab.yaml:6:3: Deployment shop/web: spec.selector: does not select the labels of the template"]
    );
}

#[test]
fn what_contradicts_itself_is_told_with_its_place() {
    let cluster = |spec: &str| format!("---\napiVersion: vswitch/v1alpha1\nkind: Cluster\nspec:\n  {spec}\n");
    let cases = [
        (cluster("mtu: 100"), "5:3: Cluster: spec.mtu: 100 is not between 576 and 65520"),
        (
            cluster("podCIDRs: [10.1.2.3/16]"),
            "5:14: Cluster: spec.podCIDRs[0]: 10.1.2.3/16 has bits behind its length; did you mean 10.1.0.0/16?",
        ),
        (
            cluster("podCIDRs: [10.1.0.0/16, 10.2.0.0/16]"),
            "5:27: Cluster: spec.podCIDRs[1]: there is one of this family already",
        ),
        (
            cluster("segments: [{name: a, cidrs: [10.0.0.0/8]}, {name: b, cidrs: [10.1.0.0/16]}]"),
            "5:64: Cluster: spec.segments[1].cidrs[0]: 10.1.0.0/16 overlaps with 10.0.0.0/8 of the segment a",
        ),
        (
            cluster(
                "segments: [{name: a, cidrs: [10.1.0.0/24]}]\n  hosts: [{name: h, addresses: [10.1.0.1]}]",
            ),
            "6:33: Cluster: spec.hosts[0].addresses[0]: 10.1.0.1 is the router's own address on a",
        ),
        (
            cluster("hosts: [{name: h, segment: x, addresses: [10.1.0.1]}]"),
            "5:21: Cluster: spec.hosts[0].segment: there is no segment \"x\"; there are underlay",
        ),
        (
            node("a", "spec: {podCIDR: 10.0.0.0}"),
            "5:8: Node a: spec.podCIDR: \"10.0.0.0\" is no prefix; write it as 10.244.0.0/24 or fd00:10:244::/64",
        ),
        (
            node("a", "status: {addresses: [{type: InternalIP, address: 10.9.9.9}]}"),
            "5:41: Node a: status.addresses[0].address: 10.9.9.9 belongs to no segment of the underlay",
        ),
        (
            [node("a", "spec: {podCIDR: 10.0.0.0/24}"), node("b", "spec: {podCIDR: 10.0.0.128/25}")].concat(),
            "10:8: Node b: spec.podCIDR: 10.0.0.128/25 overlaps with 10.0.0.0/24 of the node a",
        ),
        (
            pod("p", ", nodeName: x"),
            "5:33: Pod default/p: spec.nodeName: there is no node \"x\"; there are node-1; add a Node object for others",
        ),
        (
            pod("P_1", ""),
            "4:12: Pod default/P_1: metadata.name: \"P_1\" must be 1 to 63 lower case letters, digits and `-`, and begin and end with none",
        ),
        (
            pod("p", "").replace("name: c}", "name: c, ports: [{containerPort: 70000}]}"),
            "5:40: Pod default/p: spec.containers[0].ports[0].containerPort: 70000 is not between 1 and 65535",
        ),
        (
            pod("p", "") + "status: {podIP: 10.244.0.1}\n",
            "6:10: Pod default/p: status.podIP: 10.244.0.1 is the router's own address on node-1",
        ),
        (
            [pod("p", "") + "status: {podIP: 10.244.0.9}\n", pod("q", "") + "status: {podIP: 10.244.0.9}\n"]
                .concat(),
            "12:10: Pod default/q: status.podIP: 10.244.0.9 belongs to the pod default/p already",
        ),
        (
            pod("p", ", nodeSelector: {disk: ssd}"),
            "5:33: Pod default/p: spec.nodeSelector: no node has the labels that it selects",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(faults(&text), [format!("lab.yaml:{expected}")], "{text}");
    }
}

#[test]
fn pools_run_dry_with_a_word() {
    let text = format!(
        "---\napiVersion: vswitch/v1alpha1\nkind: Cluster\nspec: {{podCIDRs: [10.0.0.0/24]}}\n{}{}",
        node("a", ""),
        node("b", "")
    );
    assert_eq!(
        faults(&text),
        ["lab.yaml:11:1: Node b: no /24 of 10.0.0.0/24 is left for its pods; enlarge the Cluster's podCIDRs"]
    );
    let pods: String = (0..6).map(|n| pod(&format!("p{n}"), "")).collect();
    let text = format!("{}{pods}", node("a", "spec: {podCIDRs: [10.0.0.0/29]}"));
    let faults = faults(&text);
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].ends_with("Pod default/p5: no address of 10.0.0.0/29 is left for the pod default/p5 on a"),
        "{faults:?}"
    );
}

#[test]
fn the_builtin_cluster_is_sound() {
    let cluster = builtin("lab");
    assert_eq!((cluster.nodes.len(), cluster.pods.len(), cluster.hosts.len()), (2, 3, 1));
}

/// A pod with this port of its node.
fn with_port(name: &str, port: &str, more: &str) -> String {
    pod(name, more).replace("{name: c}", &format!("{{name: c, ports: [{{containerPort: 80, {port}}}]}}"))
}

#[test]
fn a_port_of_a_node_has_one_pod() {
    let nodes = [node("a", ""), node("b", "")].concat();
    let on = |compiled: &Compiled| compiled.cluster.pods.iter().map(|p| p.node.clone()).collect::<Vec<_>>();
    // Whoever may choose goes where it is free, even before those who are told where to be.
    let text = [
        nodes.clone(),
        with_port("p1", "hostPort: 80", ""),
        with_port("p2", "hostPort: 80, hostIP: 0.0.0.0", ", nodeName: a"),
        with_port("p3", "hostPort: 80, protocol: UDP", ", nodeName: a"),
        with_port("p4", "hostPort: 80, hostIP: 127.0.0.1", ", nodeName: a"),
    ];
    let first = compiled(&text.concat());
    assert_eq!(on(&first), ["b", "a", "a", "a"]);
    assert_eq!(first.cluster.pods[1].host_ports.len(), 1);
    let warned: Vec<String> = first.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warned.len() == 1 && warned[0].ends_with("127.0.0.1 is no address of a: nobody reaches port 80/TCP"),
        "{warned:?}"
    );
    let full = [&text.concat()[..], &with_port("p5", "hostPort: 80", "")].concat();
    let told = faults(&full);
    let why = "no node that the pod default/p5 may be on has port 80/TCP free: on a it belongs to the pod default/p2";
    assert!(told.len() == 1 && told[0].ends_with(why), "{told:?}");
    // The newcomer is told, whatever its name.
    let first_come = compiled(&[nodes.clone(), with_port("z", "hostPort: 80", ", nodeName: a")].concat());
    let both = [
        nodes.clone(),
        with_port("z", "hostPort: 80", ", nodeName: a"),
        with_port("y", "hostPort: 80", ", nodeName: a"),
    ];
    let refused = compile(&store(&both.concat()), &first_come.allocations, "lab").unwrap_err();
    let told: Vec<String> = refused.problems.iter().map(ToString::to_string).collect();
    assert!(
        told.len() == 1 && told[0].contains("Pod default/y: ") && told[0].contains("the pod default/z"),
        "{told:?}"
    );
    // Who was on a node keeps it, unless somebody who has no choice needs its port.
    let later =
        [nodes.clone(), with_port("p1", "hostPort: 80", ""), with_port("p0", "hostPort: 80", "")].concat();
    let kept = compile(&store(&later), &first.allocations, "lab").unwrap();
    assert_eq!(on(&kept), ["a", "b"], "p0, then p1");
    let later =
        [nodes, with_port("p1", "hostPort: 80", ""), with_port("p0", "hostPort: 80", ", nodeName: b")]
            .concat();
    let moved = compile(&store(&later), &first.allocations, "lab").unwrap();
    assert_eq!(on(&moved), ["b", "a"]);
}

#[test]
fn a_pod_on_its_nodes_network_has_the_nodes_addresses_and_ports() {
    let nodes = [node("a", ""), node("b", "")].concat();
    let port =
        |name: &str, more: &str| with_port(name, "protocol: TCP", &format!(", hostNetwork: true{more}"));
    // Each goes where its port is free, whoever has it there, and a manifest may remember another address.
    let remembered = port("p3", ", nodeName: b") + "status: {podIP: 172.18.0.2}\n";
    let others = with_port("p2", "hostPort: 81, hostIP: 0.0.0.0", ", nodeName: a");
    let first = compiled(&[nodes.clone(), port("p1", ""), others, remembered].concat());
    let pods = &first.cluster.pods;
    let seen: Vec<(&str, bool, usize)> =
        pods.iter().map(|p| (p.node.as_str(), p.host_network, p.host_ports.len())).collect();
    assert_eq!(seen, [("a", true, 0), ("a", false, 1), ("b", true, 0)]);
    assert_eq!(pods[0].addresses, first.cluster.nodes[0].addresses);
    assert!(first.allocations.pods["default/p1"].addresses.is_empty(), "they are not its own to keep");
    assert_eq!(pods[0].workload.probed_from.as_deref(), Some("lab.node.a"));
    // It becomes a pod like others, and the other way round.
    let plain = compile(&store(&[nodes.clone(), pod("p1", "")].concat()), &first.allocations, "lab").unwrap();
    assert_eq!(plain.cluster.pods[0].addresses[0].to_string(), "10.244.0.2");
    let again =
        compile(&store(&[nodes.clone(), port("p1", "")].concat()), &plain.allocations, "lab").unwrap();
    assert_eq!(again.cluster.pods[0].addresses, pods[0].addresses);
    let told = faults(&[nodes, port("p1", ", nodeName: a"), port("p2", ", nodeName: a")].concat());
    assert!(
        told.len() == 1 && told[0].contains("port 80/TCP of a belongs to the pod default/p1"),
        "{told:?}"
    );
}

#[test]
fn the_documented_manifests_are_sound() {
    let text = include_str!("../../MANIFESTS.md");
    let examples: Vec<&str> =
        text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 2);
    for example in examples {
        let Compiled { cluster, warnings, .. } = compiled(example);
        assert_eq!(warnings.len(), 0, "{example}");
        let planning = Plan::default().change(&store(example), None, &cluster, &BTreeMap::new());
        let planning = planning.unwrap_or_else(|invalid| panic!("{invalid}"));
        assert_eq!(planning.warnings.len(), 0, "{example}");
    }
}
