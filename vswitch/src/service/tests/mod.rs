//! Objects, what they are given, and what nodes balance for them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb::{Frontend, Origin, Registry};
use manifest::{Key, Source, Strictness, load};
use proptest::prelude::*;

use super::*;
use crate::cluster::Cluster;
use crate::objects::{Allocations, Plan, Planning, Store, compile};

/// Objects, and what follows from them.
#[derive(Clone, Debug, Default)]
struct World {
    store: Store,
    plan: Plan,
    cluster: Cluster,
    warnings: Vec<String>,
}

impl World {
    fn new(text: &str) -> Self {
        Self::default().with(text)
    }

    fn keys(&mut self, text: &str) -> Vec<Key> {
        let read = load(&[Source { name: "x.yaml".into(), text: text.to_owned() }], Strictness::Strict);
        let changes = self.store.apply(read.unwrap_or_else(|invalid| panic!("{invalid}")));
        changes.into_iter().map(|(key, _)| key).collect()
    }

    fn change(mut self, keys: Option<&[Key]>) -> Result<(Self, Planning), manifest::Invalid> {
        self.cluster =
            compile(&self.store, &Allocations::default(), "lab").unwrap_or_else(|i| panic!("{i}")).cluster;
        let planning = self.plan.change(&self.store, keys, &self.cluster, &BTreeMap::new())?;
        self.plan = planning.plan.clone();
        self.warnings = planning.warnings.iter().map(ToString::to_string).collect();
        Ok((self, planning))
    }

    /// With more objects.
    fn with(mut self, text: &str) -> Self {
        let keys = self.keys(text);
        self.change(Some(&keys)).unwrap_or_else(|invalid| panic!("{invalid}")).0
    }

    fn without(mut self, text: &str) -> Self {
        let read =
            load(&[Source { name: "x.yaml".into(), text: text.to_owned() }], Strictness::Strict).unwrap();
        let keys: Vec<Key> = self.store.delete(&read).unwrap().into_iter().map(|(key, _)| key).collect();
        self.change(Some(&keys)).unwrap().0
    }

    /// What is wrong with more objects, without where.
    fn faults(&self, text: &str) -> Vec<String> {
        let mut next = self.clone();
        let keys = next.keys(text);
        match next.change(Some(&keys)) {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                invalid.problems.iter().map(|p| format!("{}: {}", p.subject, p.message)).collect()
            }
        }
    }

    fn of(&self, name: &str) -> &Allocation {
        &self.plan.services.get(format!("default/{name}").as_str()).unwrap().allocation
    }

    fn ips(&self, name: &str) -> Vec<String> {
        self.of(name).cluster_ips.iter().map(ToString::to_string).collect()
    }
}

fn cluster(spec: &str) -> String {
    format!("---\napiVersion: vswitch/v1alpha1\nkind: Cluster\nspec: {{{spec}}}\n")
}

fn service(name: &str, spec: &str) -> String {
    annotated(name, "", spec)
}

fn annotated(name: &str, annotations: &str, spec: &str) -> String {
    let ports = if spec.contains("ports:") { "" } else { "ports: [{port: 80}], " };
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {{{ports}{spec}}}\n"
    )
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn cluster_ips_come_from_the_upper_band_and_stay() {
    let small = cluster("serviceCIDRs: [10.0.0.0/26, 'fd00::/122']");
    // 62 addresses, of which the lower 16 are kept for those who ask.
    let mut world = World::new(&small);
    for n in 0..46 {
        world = world.with(&service(&format!("s{n}"), ""));
    }
    let mut given: Vec<IpAddr> = (0..46).map(|n| world.of(&format!("s{n}")).cluster_ips[0]).collect();
    given.sort();
    assert_eq!(given, (17..=62).map(|n| IpAddr::from([10, 0, 0, n])).collect::<Vec<_>>());
    // Then the lower band is used too, but for the two that are kept.
    for n in 46..60 {
        world = world.with(&service(&format!("s{n}"), ""));
    }
    let last = world.faults(&service("s60", ""));
    let why = "no address of 10.0.0.0/26 is left; enlarge the Cluster's serviceCIDRs";
    assert_eq!(last, [format!("Service default/s60: {why}")]);
    let low: Vec<IpAddr> = (46..60).map(|n| world.of(&format!("s{n}")).cluster_ips[0]).collect();
    assert!(!low.contains(&ip("10.0.0.1")) && !low.contains(&ip("10.0.0.10")), "{low:?}");
    // What is given back is given out again, and whoever changes keeps what he has.
    let had = world.ips("s7");
    let world = world.with(&service("s7", "sessionAffinity: ClientIP")).without(&service("s8", ""));
    assert_eq!(world.ips("s7"), had);
    assert_eq!(world.faults(&service("s60", "")), [""; 0]);
}

#[test]
fn the_same_name_has_the_same_address_in_every_cluster_and_order() {
    let one = World::new(&cluster("")).with(&service("a", "")).with(&service("b", ""));
    let other = World::new(&cluster("")).with(&service("b", "")).with(&service("a", ""));
    assert_eq!((one.ips("a"), one.ips("b")), (other.ips("a"), other.ips("b")));
    assert_eq!(one.ips("a").len(), 1);
    assert_ne!(one.ips("a"), one.ips("b"));
}

#[test]
fn kubernetes_and_its_dns_have_the_addresses_that_they_always_have() {
    let text = [
        service("kubernetes", ""),
        service("kube-dns", "").replace("name: kube-dns", "name: kube-dns, namespace: kube-system"),
    ];
    let world = World::new(&cluster("dns: {addresses: []}")).with(&text.concat());
    assert_eq!(world.ips("kubernetes"), ["10.96.0.1"]);
    let dns = world.plan.services.get("kube-system/kube-dns").unwrap();
    assert_eq!(dns.allocation.cluster_ips, [ip("10.96.0.10")]);
    let told = world.faults(&service("a", "clusterIP: 10.96.0.1"));
    assert_eq!(
        told,
        ["Service default/a: spec.clusterIP: 10.96.0.1 is kept for the Service default/kubernetes"]
    );
    // Where each node has a name server, that is who it is.
    let world = World::new(&cluster(""));
    let own = "is the cluster's own name server; `dns: {addresses: []}` in the Cluster has none";
    assert_eq!(world.faults(&text[1]), [format!("Service kube-system/kube-dns: metadata.name: {own}")]);
    let taken = "10.96.0.10 belongs to the cluster's name server; give it others, or none, by `dns.addresses` of the Cluster";
    let told = world.faults(&service("a", "clusterIP: 10.96.0.10"));
    assert_eq!(told, [format!("Service default/a: spec.clusterIP: {taken}")]);
}

#[test]
fn asked_addresses_go_before_those_of_chance() {
    // One manifest, and the one who asks comes last.
    let free = World::new(&cluster("")).with(&service("a", "")).ips("a");
    let text = [service("a", ""), service("z", &format!("clusterIP: {}", free[0]))].concat();
    let world = World::new(&cluster("")).with(&text);
    assert_eq!(world.ips("z"), free);
    assert_ne!(world.ips("a"), free);
}

#[test]
fn families_follow_policy_and_addresses() {
    let world = World::new(&cluster(""));
    let families = |spec: &str| {
        let given = world.clone().with(&service("s", spec)).of("s").cluster_ips.clone();
        given.iter().map(|a| if a.is_ipv4() { "4" } else { "6" }).collect::<String>()
    };
    assert_eq!(families(""), "4");
    assert_eq!(families("ipFamilies: [IPv6]"), "6");
    assert_eq!(families("ipFamilyPolicy: PreferDualStack"), "46");
    assert_eq!(families("ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6]"), "64");
    assert_eq!(families("ipFamilies: [IPv6, IPv4]"), "64");
    assert_eq!(families("clusterIPs: ['fd00:10:96::5', 10.100.0.7]"), "64");
    assert_eq!(families("clusterIP: None, ipFamilyPolicy: PreferDualStack"), "");
    let single = World::new(&cluster("serviceCIDRs: ['fd00:10:96::/112']"));
    let given = single.clone().with(&service("s", "ipFamilyPolicy: PreferDualStack"));
    assert_eq!(given.of("s").cluster_ips.len(), 1);
    let told = single.faults(&service("s", "ipFamilyPolicy: RequireDualStack"));
    assert!(told.len() == 1 && told[0].contains("one family only; add a prefix to serviceCIDRs"), "{told:?}");
    let told = single.faults(&service("s", "ipFamilies: [IPv4]"));
    assert!(told.len() == 1 && told[0].contains("the cluster has no IPv4 Services"), "{told:?}");
    let told = world.faults(&service("s", "ipFamilyPolicy: SingleStack, ipFamilies: [IPv4, IPv6]"));
    assert!(told.len() == 1 && told[0].contains("SingleStack goes with one family"), "{told:?}");
}

#[test]
fn node_ports_are_given_asked_for_and_shared_by_protocols() {
    let both = "type: NodePort, ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}, {name: c, port: 80}]";
    let world = World::new(&cluster("nodePortRange: 30000-30099")).with(&service("s", both));
    let given = world.of("s").clone();
    let port = |n: usize| given.node_ports[n].node_port;
    assert_eq!(given.node_ports.len(), 3);
    assert_eq!(port(0), port(1));
    assert_ne!(port(0), port(2));
    // The lower 16 are kept for those who ask.
    assert!(given.node_ports.iter().all(|p| (30_016..=30_099).contains(&p.node_port)), "{given:?}");
    assert_eq!(*world.clone().with(&service("s", both)).of("s"), given);
    for (spec, why) in [
        (
            format!("type: NodePort, ports: [{{port: 1, nodePort: {}}}]", port(2)),
            "belongs to the Service default/s already",
        ),
        (
            "type: NodePort, ports: [{port: 1, nodePort: 80}]".into(),
            "80 is not in 30000-30099, the ports of nodes",
        ),
        ("ports: [{port: 1, nodePort: 30001}]".into(), "may not be set for a Service of the type ClusterIP"),
    ] {
        let told = world.faults(&service("t", &spec));
        assert!(told.len() == 1 && told[0].contains(why), "{spec} {told:?}");
    }
    let none = world.clone().with(&service("t", "type: LoadBalancer, allocateLoadBalancerNodePorts: false"));
    assert_eq!(none.of("t").node_ports, []);
    let checked = world.with(&service("t", "type: LoadBalancer, externalTrafficPolicy: Local"));
    let health = checked.of("t").health_check_port.unwrap();
    assert!((30_000..=30_099).contains(&health) && health != checked.of("t").node_ports[0].node_port);
}

#[test]
fn what_the_api_server_refuses_is_refused_with_its_field() {
    let world =
        World::new(&cluster("")).with(&service("old", "clusterIP: 10.96.9.9, externalIPs: [192.0.2.1]"));
    let cases = [
        ("ports: []", "spec.ports: one port at least is needed"),
        (
            "ports: [{port: 1}, {port: 2, name: b}]",
            "spec.ports[0].name: is needed where there are several ports",
        ),
        (
            "ports: [{port: 1, name: a}, {port: 2, name: a}]",
            "spec.ports[1].name: there is a port \"a\" already",
        ),
        ("ports: [{port: 1, name: a}, {port: 1, name: b}]", "spec.ports[1]: there is a port 1/TCP already"),
        ("ports: [{port: 70000}]", "spec.ports[0].port: 70000 is not between 1 and 65535"),
        ("ports: [{port: 1, protocol: ICMP}]", "spec.ports[0].protocol: \"ICMP\" is none of TCP, UDP, SCTP"),
        ("ports: [{port: 1, targetPort: A_b}]", "spec.ports[0].targetPort: \"A_b\" must be 1 to 15 lower"),
        ("clusterIP: 10.0.0.1", "spec.clusterIP: 10.0.0.1 is not in 10.96.0.0/12 or fd00:10:96::/112, where"),
        ("clusterIP: 10.96.9.9", "spec.clusterIP: 10.96.9.9 belongs to the Service default/old already"),
        ("clusterIP: 10.96.0.0", "spec.clusterIP: 10.96.0.0 is the first or last of 10.96.0.0/12"),
        ("clusterIP: x", "spec.clusterIP: \"x\" is no address"),
        ("clusterIPs: [None, 10.96.0.5]", "spec.clusterIPs: `None` must stand alone"),
        (
            "type: NodePort, clusterIP: None",
            "spec.clusterIP: may not be `None` for a Service of the type NodePort",
        ),
        (
            "type: Nodeport",
            "spec.type: \"Nodeport\" is none of ClusterIP, NodePort, LoadBalancer, ExternalName",
        ),
        ("type: ExternalName", "spec.externalName: \"\" must be a name of the resolver"),
        (
            "type: ExternalName, externalName: a.b, clusterIP: 10.96.0.9",
            "spec.clusterIP: may not be set for a Service of the type ExternalName",
        ),
        ("sessionAffinity: Client", "spec.sessionAffinity: \"Client\" is none of None, ClientIP"),
        (
            "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}",
            "timeoutSeconds: 86401 is not between 1 and 86400",
        ),
        (
            "sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}",
            "must not be set while sessionAffinity is None",
        ),
        (
            "externalTrafficPolicy: Local",
            "spec.externalTrafficPolicy: may only be set for Services that are asked from",
        ),
        (
            "type: NodePort, healthCheckNodePort: 30000",
            "spec.healthCheckNodePort: may only be set for Services of",
        ),
        (
            "loadBalancerSourceRanges: [10.0.0.0/8]",
            "spec.loadBalancerSourceRanges: may only be set for Services of",
        ),
        (
            "type: LoadBalancer, loadBalancerSourceRanges: [x]",
            "spec.loadBalancerSourceRanges[0]: \"x\" is no prefix",
        ),
        (
            "externalIPs: [127.0.0.1]",
            "spec.externalIPs[0]: 127.0.0.1 is no address that clients outside could ask",
        ),
        (
            "externalIPs: [192.0.2.1]",
            "spec.externalIPs: port 80/TCP of 192.0.2.1 belongs to the Service default/old",
        ),
        (
            "trafficDistribution: Near",
            "spec.trafficDistribution: \"Near\" is none of PreferClose, PreferSameZone",
        ),
        ("internalTrafficPolicy: No", "spec.internalTrafficPolicy: \"No\" is none of Cluster, Local"),
    ];
    for (spec, expected) in cases {
        let told = world.faults(&service("new", spec));
        assert!(told.len() == 1 && told[0].contains(expected), "{spec}: {told:#?}");
        assert!(told[0].starts_with("Service default/new: "), "{told:?}");
    }
    let told = world.faults(&service("1st", ""));
    assert!(told.len() == 1 && told[0].contains("metadata.name: \"1st\" must be"), "{told:?}");
    let told = world.faults(&service("old", "clusterIP: 10.96.9.8"));
    assert!(
        told[0].contains("spec.clusterIP: is 10.96.9.9 and cannot change; delete the Service first"),
        "{told:?}"
    );
    let told = world.faults(&annotated("a", "vswitch/lb-polcy: maglev", ""));
    assert!(told[0].contains("there is no such annotation; there are vswitch/lb-policy,"), "{told:?}");
    let told = world.faults(&annotated("a", "vswitch/table-size: \"1000\"", ""));
    assert!(told.len() == 1 && told[0].contains("metadata.annotations.vswitch/table-size"), "{told:?}");
    // A port that differs, or another protocol, is another's to have.
    assert_eq!(world.faults(&service("b", "externalIPs: [192.0.2.1], ports: [{port: 81}]")), [""; 0]);
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let world = World::new(&cluster(""));
    let label = service("a", "")
        .replace("metadata: {", "metadata: {labels: {service.kubernetes.io/service-proxy-name: x}, ");
    let told = world.clone().with(&label).warnings;
    assert!(told.len() == 1 && told[0].contains("a label leaves this Service to another proxy"), "{told:?}");
    let told = world.clone().with(&service("a", "type: LoadBalancer")).warnings;
    assert!(told.len() == 1 && told[0].contains("no IPAddressPool is for this Service"), "{told:?}");
    for accepted in ["type: ExternalName, externalName: www.example.com", "clusterIP: None, ports: []"] {
        assert_eq!(world.clone().with(&service("a", accepted)).warnings, [""; 0], "{accepted}");
    }
}

#[test]
fn pools_give_load_balancers_their_addresses() {
    let pools = [
        pool("a", "addresses: [192.0.2.255/32, 192.0.2.10-192.0.2.11], avoidBuggyIPs: true"),
        pool("b", "addresses: [203.0.113.0/30, '2001:db8::/126'], autoAssign: false"),
    ];
    let world = World::new(&cluster("")).with(&pools.concat());
    let lb = |name: &str, annotations: &str, spec: &str| {
        annotated(name, annotations, &format!("type: LoadBalancer, {spec}"))
    };
    let world = world.with(&lb("x", "", "")).with(&lb("y", "", ""));
    assert_eq!(world.of("x").load_balancer, [ip("192.0.2.10")]);
    assert_eq!(world.of("y").load_balancer, [ip("192.0.2.11")]);
    let full = world.clone().with(&lb("z", "", ""));
    assert_eq!(full.of("z").load_balancer, [""; 0].map(ip));
    assert!(full.warnings[0].contains("no address is left"), "{:?}", full.warnings);
    let named = world.clone().with(&lb("z", "metallb.io/address-pool: b", "ipFamilyPolicy: PreferDualStack"));
    assert_eq!(named.of("z").load_balancer, [ip("203.0.113.0"), ip("2001:db8::")]);
    let asked = world.clone().with(&lb("z", "", "loadBalancerIP: 203.0.113.2"));
    assert_eq!(asked.of("z").load_balancer, [ip("203.0.113.2")]);
    let taken = world.clone().with(&lb("z", "metallb.io/loadBalancerIPs: 192.0.2.10", ""));
    assert!(
        taken.warnings[0].contains("192.0.2.10 belongs to the Service default/x"),
        "{:?}",
        taken.warnings
    );
    // What others do not want any more is free; who stays, stays.
    let world = world
        .without(&lb("x", "", ""))
        .with(&lb("y", "", "sessionAffinity: ClientIP"))
        .with(&lb("z", "", ""));
    assert_eq!(world.of("y").load_balancer, [ip("192.0.2.11")]);
    assert_eq!(world.of("z").load_balancer, [ip("192.0.2.10")]);
    // The pool is gone, and so are the addresses.
    let world = world.without(&pools[0]);
    assert_eq!(world.of("y").load_balancer, [""; 0].map(ip));
}

#[test]
fn an_address_is_shared_by_those_who_agree() {
    let world = World::new(&cluster("")).with(&pool("a", "addresses: [192.0.2.10/32]"));
    let lb = |name: &str, key: &str, port: u16, more: &str| {
        let spec = format!("type: LoadBalancer, ports: [{{port: {port}}}]{more}");
        annotated(name, &format!("metallb.io/allow-shared-ip: {key}"), &spec)
    };
    let world = world.with(&lb("x", "k", 80, ""));
    let given = |text: &str| world.clone().with(text).of("y").load_balancer.len();
    assert_eq!(given(&lb("y", "k", 81, "")), 1);
    assert_eq!(given(&lb("y", "l", 81, "")), 0, "another key");
    assert_eq!(given(&lb("y", "k", 80, "")), 0, "the same port");
    assert_eq!(given(&lb("y", "k", 81, ", externalTrafficPolicy: Local")), 0, "another policy");
}

#[test]
fn pools_are_for_whom_they_say() {
    let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {tier: gold}}\n";
    let pools = [
        pool("a", "addresses: [192.0.2.1/32], serviceAllocation: {namespaces: [shop]}"),
        pool(
            "b",
            "addresses: [192.0.2.2/32], serviceAllocation: {priority: 20, namespaceSelectors: [{matchLabels: {tier: gold}}]}",
        ),
        pool(
            "c",
            "addresses: [192.0.2.3/32], serviceAllocation: {priority: 10, serviceSelectors: [{matchLabels: {app: web}}]}",
        ),
        pool("d", "addresses: [192.0.2.4/32]"),
    ];
    let world = World::new(&cluster("")).with(namespace).with(&pools.concat());
    let lb = service("x", "type: LoadBalancer");
    assert_eq!(world.clone().with(&lb).of("x").load_balancer, [ip("192.0.2.2")]);
    let web = lb.replace("metadata: {", "metadata: {labels: {app: web}, ");
    assert_eq!(world.with(&web).of("x").load_balancer, [ip("192.0.2.3")]);
    let overlap =
        World::new(&pool("a", "addresses: [192.0.2.0/30]")).faults(&pool("b", "addresses: [192.0.2.3/32]"));
    assert!(overlap[0].contains("overlap with those of the IPAddressPool a"), "{overlap:?}");
}

mod controlled;
