//! Random policies by the thousand, asked without packets: what nodes enforce must be what the evaluator says, however the
//! cluster came to be what it is.

use std::net::IpAddr;

use netstack::policy::Question;
use netstack::seed::{Rng, Seed};
use serde_json::{Value, json};
use vswitch::cluster::Cluster;
use vswitch::objects::Allocations;
use vswitch::policy::Keeper;

use super::evaluator::{Ask, End, World, namespace};
use super::fabric::{Fabric, cluster};
use super::table;

/// Clusters, and policies in each.
const WORLDS: u32 = 400;
const POLICIES: u32 = 8;
/// Of these so many are asked by packets too.
const THROUGH_SWITCHES: u32 = 12;

struct Chance(Rng);

impl Chance {
    fn below(&mut self, bound: u32) -> u32 {
        self.0.below(bound)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u32) as usize]
    }

    fn some(&mut self, most: u32, mut make: impl FnMut(&mut Self) -> Value) -> Vec<Value> {
        (0..self.below(most + 1)).map(|_| make(self)).collect()
    }

    fn selector(&mut self, keys: &[&str], values: &[&str]) -> Value {
        let mut selector = json!({});
        if self.one_in(3) {
            return selector;
        }
        if self.one_in(2) {
            selector["matchLabels"] = json!({(self.of(keys)): self.of(values)});
        }
        if self.one_in(2) {
            let key = self.of(keys);
            let values = [self.of(values), self.of(values)];
            selector["matchExpressions"] = match self.below(4) {
                0 => json!([{"key": key, "operator": "In", "values": values}]),
                1 => json!([{"key": key, "operator": "NotIn", "values": values}]),
                2 => json!([{"key": key, "operator": "Exists"}]),
                _ => json!([{"key": key, "operator": "DoesNotExist"}]),
            };
        }
        selector
    }

    fn pods(&mut self) -> Value {
        self.selector(&["pod", "tier", "canary"], &["a", "b", "c", "front", "back", "yes"])
    }

    fn namespaces(&mut self) -> Value {
        self.selector(&["ns", "team", "kubernetes.io/metadata.name"], &["x", "y", "z", "blue", "red"])
    }

    fn block(&mut self) -> Value {
        match self.below(5) {
            0 => json!({"cidr": "0.0.0.0/0", "except": ["10.244.0.0/24", "10.244.1.0/30", "192.0.2.0/24"]}),
            1 => json!({"cidr": "10.244.0.0/23", "except": ["10.244.0.2/32", "10.244.1.0/24"]}),
            2 => json!({"cidr": "192.0.2.0/25"}),
            3 => json!({"cidr": "fd00:10:244::/56", "except": ["fd00:10:244:1::/64"]}),
            _ => json!({"cidr": "::/0"}),
        }
    }

    fn peer(&mut self) -> Value {
        match self.below(4) {
            0 => json!({"podSelector": self.pods()}),
            1 => json!({"namespaceSelector": self.namespaces()}),
            2 => json!({"namespaceSelector": self.namespaces(), "podSelector": self.pods()}),
            _ => json!({"ipBlock": self.block()}),
        }
    }

    fn port(&mut self) -> Value {
        let protocol = self.of(&["TCP", "UDP", "SCTP"]);
        match self.below(5) {
            0 => json!({"protocol": protocol}),
            1 => json!({"protocol": protocol, "port": 80 + self.below(2)}),
            2 => json!({"port": 79 + self.below(2), "endPort": 80 + self.below(3)}),
            3 => json!({"protocol": protocol, "port": self.of(&["serve", "query", "signal"])}),
            _ => json!({}),
        }
    }

    fn rule(&mut self, peers: &str) -> Value {
        let mut rule = json!({});
        if !self.one_in(5) {
            rule[peers] = self.some(3, Self::peer).into();
        }
        if !self.one_in(3) {
            rule["ports"] = self.some(3, Self::port).into();
        }
        rule
    }

    fn policy(&mut self, name: &str) -> Value {
        let mut spec = json!({"podSelector": self.pods()});
        if self.one_in(2) {
            let types = [&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]];
            spec["policyTypes"] = json!(types[self.below(3) as usize]);
        }
        if !self.one_in(4) {
            spec["ingress"] = self.some(3, |chance| chance.rule("from")).into();
        }
        if !self.one_in(3) {
            spec["egress"] = self.some(3, |chance| chance.rule("to")).into();
        }
        let namespace = self.of(&["x", "y", "z"]);
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace}, "spec": spec})
    }

    fn subject(&mut self) -> Value {
        match self.one_in(2) {
            true => json!({"namespaces": self.namespaces()}),
            false => json!({"pods": {"namespaceSelector": self.namespaces(), "podSelector": self.pods()}}),
        }
    }

    fn cluster_rule(&mut self, egress: bool) -> Value {
        let mut peers = vec![self.subject()];
        if egress && self.one_in(2) {
            peers.push(json!({"networks": ["10.244.0.0/24", "fd00:10:244:1::/64"]}));
        }
        let protocols = self.some(2, |chance| {
            let protocol = chance.of(&["tcp", "udp", "sctp"]);
            match chance.below(4) {
                0 => json!({protocol: {}}),
                1 => json!({protocol: {"destinationPort": {"number": 80 + chance.below(2)}}}),
                2 => json!({protocol: {"destinationPort": {"range": {"start": 80, "end": 81}}}}),
                _ => json!({"destinationNamedPort": chance.of(&["serve", "query", "signal"])}),
            }
        });
        let mut rule = json!({"action": self.of(&["Accept", "Deny", "Pass"])});
        rule[if egress { "to" } else { "from" }] = peers.into();
        if !protocols.is_empty() {
            rule["protocols"] = protocols.into();
        }
        rule
    }

    fn cluster_policy(&mut self, name: &str) -> Value {
        let spec = json!({
            "tier": self.of(&["Admin", "Baseline"]),
            "priority": self.below(4),
            "subject": self.subject(),
            "ingress": self.some(3, |chance| chance.cluster_rule(false)),
            "egress": self.some(3, |chance| chance.cluster_rule(true)),
        });
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": name}, "spec": spec})
    }

    /// Changes a cluster: policies come, go and change, pods and namespaces get other labels, pods come and go.
    fn change(&mut self, world: &mut World, all: &World) {
        world.denies = self.one_in(6);
        let is_policy = |object: &Value| object["kind"].as_str().unwrap().ends_with("NetworkPolicy");
        let mut kept: Vec<Value> = world.objects.iter().filter(|object| is_policy(object)).cloned().collect();
        kept.retain(|_| !self.one_in(3));
        world.objects.clone_from(&all.objects);
        for object in &mut world.objects {
            if object["kind"] == "Pod" && self.one_in(5) {
                let label = self.of(&["a", "b", "front", "back"]);
                object["metadata"]["labels"][self.of(&["pod", "tier"])] = label.into();
            }
            if object["kind"] == "Namespace" && self.one_in(5) {
                object["metadata"]["labels"]["team"] = self.of(&["blue", "red"]).into();
            }
        }
        world.objects.retain(|object| object["kind"] == "Node" || !self.one_in(8));
        for number in 0..POLICIES {
            let name = format!("p{}", self.below(2 * POLICIES));
            let policy = if self.one_in(3) { self.cluster_policy(&name) } else { self.policy(&name) };
            let same = |other: &Value| {
                (&other["kind"], namespace(other), &other["metadata"]["name"])
                    == (&policy["kind"], namespace(&policy), &policy["metadata"]["name"])
            };
            kept.retain(|other| !same(other));
            kept.push(policy);
            if number > self.below(POLICIES) {
                break;
            }
        }
        world.objects.extend(kept);
    }
}

/// What the nodes of both ends say.
fn enforced(keeper: &Keeper, nodes: [Option<&str>; 2], question: &Question) -> bool {
    let [sender, receiver] = nodes.map(|node| node.and_then(|node| keeper.of(node)));
    let egress = sender.and_then(|policies| policies.judge(question).egress);
    let ingress = receiver.and_then(|policies| policies.judge_ingress(question));
    [egress, ingress].into_iter().flatten().all(|judgement| judgement.is_allowed)
}

/// Holds what nodes enforce against the evaluator; says how much was denied.
#[track_caller]
fn hold(world: &World, cluster: &Cluster, keepers: &[&Keeper], what: &str) -> u32 {
    let pods = world.pods();
    let known = |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let found = cluster.pods.iter().find(|known| known.name == name && known.namespace == namespace(pod));
        found.unwrap()
    };
    let mut denied = 0;
    let strangers: [IpAddr; 2] = ["192.0.2.77".parse().unwrap(), "2001:db8::77".parse().unwrap()];
    for v6 in [false, true] {
        let address =
            |pod: &Value| *known(pod).addresses.iter().find(|address| address.is_ipv6() == v6).unwrap();
        let stranger = strangers[usize::from(v6)];
        let mut ends: Vec<(End<'_>, IpAddr, Option<&str>)> = pods
            .iter()
            .map(|pod| (End::Pod(pod, address(pod)), address(pod), Some(known(pod).node.as_str())))
            .collect();
        ends.push((End::Outside(stranger), stranger, None));
        for (from, source, sender) in &ends {
            for (to, destination, receiver) in &ends {
                for Ask { protocol, port } in table::ASKS {
                    let number = match protocol {
                        "TCP" => 6,
                        "UDP" => 17,
                        _ => 132,
                    };
                    let question =
                        Question { source: *source, destination: *destination, protocol: number, port };
                    let expected = world.allows(*from, *to, Ask { protocol, port });
                    for keeper in keepers {
                        let found = enforced(keeper, [*sender, *receiver], &question);
                        assert_eq!(found, expected, "{source} to {destination} {protocol} {port}: {what}");
                    }
                    denied += u32::from(!expected);
                }
            }
        }
    }
    denied
}

#[test]
fn random_policies_are_enforced_as_they_are_written() {
    let all = table::world();
    let (mut denied, mut policies) = (0, 0);
    for seed in 0..WORLDS / 8 {
        let mut chance = Chance(Seed::from_u64(u64::from(seed)).rng("policies"));
        let mut world = table::world();
        let (mut changed, mut given) = (Keeper::default(), Allocations::default());
        for step in 0..8 {
            chance.change(&mut world, &all);
            let (cluster, allocations) = cluster(&world, &given);
            given = allocations;
            // One that has seen all that was before, and one that has seen nothing.
            changed.update(&cluster);
            let mut fresh = Keeper::default();
            fresh.update(&cluster);
            policies += cluster.policies.policies.len();
            denied += hold(
                &world,
                &cluster,
                &[&changed, &fresh],
                &format!("seed {seed}, step {step}\n{:#?}", world.objects),
            );
        }
    }
    assert!(policies > 1000, "{policies}");
    assert!(denied > 10_000, "{denied}");
    println!("{policies} policies in {WORLDS} clusters, {denied} questions denied");
}

#[test]
fn random_policies_hold_for_packets() {
    let all = table::world();
    let mut chance = Chance(Seed::from_u64(77).rng("policies"));
    let mut world = table::world();
    let (first, mut given) = cluster(&world, &Allocations::default());
    let mut fabric = Fabric::new(&first);
    let mut denied = 0;
    for step in 0..THROUGH_SWITCHES {
        chance.change(&mut world, &all);
        let (next, allocations) = cluster(&world, &given);
        given = allocations;
        fabric.install(&next);
        let what = format!("step {step}\n{:#?}", world.objects);
        denied += table::probe(&mut fabric, &world, 41_000 + step as u16 % 2, &what).1;
    }
    assert!(denied > 100, "{denied}");
}
