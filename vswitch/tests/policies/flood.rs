//! Pods come while a neighbour floods them, and a policy closes them all: not one packet may get through.

use serde_json::{Value, json};
use vswitch::cluster::{Place, PortNumbers, wire};
use vswitch::objects::Allocations;

use super::evaluator::{Ask, World};
use super::fabric::{Fabric, cluster, packet, place};

const PODS: u32 = 1000;
/// So many come at once.
const AT_ONCE: u32 = 50;

fn pod(name: &str, node: &str) -> Value {
    let metadata = json!({"name": name, "namespace": "target", "labels": {"app": "target"}});
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "none"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

#[test]
fn not_one_packet_gets_through_while_a_thousand_pods_come() {
    let attacker = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attacker"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]}});
    let mut objects: Vec<Value> = ["n1", "n2"]
        .map(|name| {
            let cidrs = if name == "n1" { ["10.244.0.0/20", "fd00:10:244::/64"] } else { ["10.244.16.0/20", "fd00:10:244:1::/64"] };
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": cidrs}})
        })
        .into();
    objects.push(attacker.clone());
    objects.push(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "target"}, "spec": {"podSelector": {}}}));
    let mut world = World { objects, denies: false };
    let (first, mut given) = cluster(&world, &Allocations::default());
    let mut fabric = Fabric::new(&first);
    let (attacker, mut sent) = (place(&attacker), 0u32);
    for round in 0..PODS / AT_ONCE {
        let names: Vec<String> =
            (round * AT_ONCE..(round + 1) * AT_ONCE).map(|number| format!("t{number}")).collect();
        let node = |at: usize| if at.is_multiple_of(2) { "n1" } else { "n2" };
        world.objects.extend(names.iter().enumerate().map(|(at, name)| pod(name, node(at))));
        let (next, allocations) = cluster(&world, &given);
        given = allocations;
        let coming: Vec<_> = next.pods.iter().filter(|pod| names.contains(&pod.name)).collect();
        assert_eq!(coming.len(), names.len());
        let wiring = wire(&next, &mut PortNumbers::default());
        // Before, at once afterwards, and once more: by the address of the pod and by its MAC address.
        for moment in 0..3u16 {
            if moment == 1 {
                fabric.install(&next);
            }
            for target in &coming {
                let target_place =
                    Place::Pod { namespace: target.namespace.clone(), name: target.name.clone() };
                for address in &target.addresses {
                    for (protocol, port) in [("TCP", 80), ("UDP", 53), ("SCTP", 9)] {
                        let ask = Ask { protocol, port };
                        let routed = fabric.frame(&attacker, *address, 40_000 + moment, ask);
                        let own = fabric.endpoint(&attacker);
                        let source = own
                            .addresses
                            .iter()
                            .find(|net| net.addr().is_ipv4() == address.is_ipv4())
                            .unwrap()
                            .addr();
                        let theirs = wiring.endpoints.iter().find(|it| it.place == target_place).unwrap();
                        let straight = packet((own.mac, theirs.mac), (source, *address), 40_000, ask);
                        for frame in [routed, straight] {
                            let reached = fabric.send(&attacker, &frame);
                            assert!(!reached.contains(&target_place), "{target_place} {protocol} {address}");
                            sent += 1;
                        }
                    }
                }
            }
        }
    }
    let denied: u64 = ["n1", "n2"]
        .map(|node| fabric.switch(node).counters().dropped(netstack::verdict::DropReason::PolicyDenied))
        .iter()
        .sum();
    assert!(denied > u64::from(PODS), "{denied} of {sent}");
}
