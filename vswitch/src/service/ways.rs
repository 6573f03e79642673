//! What clients get: which endpoints, whether their own address is seen, and what becomes of them if nobody is there.
//!
//! Everything in here is a pure function, and follows kube-proxy:
//!
//! | asked at | policy | by | endpoints | source | if there is none |
//! |---|---|---|---|---|---|
//! | cluster IP | Cluster | pods | all | kept | rejected |
//! | cluster IP | Cluster | the node, outside | all | node's | rejected |
//! | cluster IP | Local | anybody | the node's | as above | dropped, rejected if there are none elsewhere either |
//! | anything else | Cluster | anybody | all | node's | rejected |
//! | anything else | Local | outside | the node's | kept | dropped, rejected if there are none elsewhere either |
//! | anything else | Local | pods | all | kept | rejected |
//! | anything else | Local | the node | all | node's | rejected |
//!
//! *All* is those that are meant for the node or its zone, if there are any. Who is about to go is asked only if nobody
//! within those endpoints is ready. A pod that comes to itself is seen with the node's address in any case.

use lb::{Origin, Refusal};

use super::endpoint::Endpoint;

/// Where clients ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// A cluster IP.
    ClusterIp,
    /// A node's own address, towards other nodes or towards its pods.
    NodePort,
    /// An address of `externalIPs`.
    ExternalIp,
    /// A load balancer's address that nodes take for their own.
    LoadBalancer,
    /// A load balancer's address that belongs to a load balancer alone (`ipMode: Proxy`): who comes here came from it.
    ProxiedLoadBalancer,
}

/// Which endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Those of all nodes.
    Cluster,
    /// Those of this node.
    Local,
}

/// What of a Service and a cluster decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policies {
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Whether pods are seen with their node's address as well.
    pub masquerade_all: bool,
}

/// What clients of one origin get at one door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lead {
    /// Which endpoints.
    pub scope: Scope,
    /// Whether endpoints see the node's address in place of the client's.
    pub masquerade: bool,
}

/// The origins in the order in which a frontend has its ways.
pub const ORIGINS: [Origin; 3] = [Origin::Inside, Origin::Node, Origin::Outside];

/// What clients of this origin get at this door.
pub fn lead(door: Door, origin: Origin, policies: Policies) -> Lead {
    let scope = |local: bool| if local { Scope::Local } else { Scope::Cluster };
    let external = |origin: Origin| match (policies.external_local, origin) {
        (false, _) => Lead { scope: Scope::Cluster, masquerade: true },
        (true, Origin::Outside) => Lead { scope: Scope::Local, masquerade: false },
        (true, Origin::Inside) => Lead { scope: Scope::Cluster, masquerade: false },
        (true, Origin::Node) => Lead { scope: Scope::Cluster, masquerade: true },
    };
    match door {
        Door::ClusterIp => Lead {
            scope: scope(policies.internal_local),
            masquerade: policies.masquerade_all || origin != Origin::Inside,
        },
        Door::NodePort | Door::ExternalIp | Door::LoadBalancer => external(origin),
        Door::ProxiedLoadBalancer => external(Origin::Outside),
    }
}

/// What becomes of clients that find nobody within `scope`.
pub fn refusal(scope: Scope, endpoints: &[Endpoint]) -> Refusal {
    match scope {
        Scope::Local if endpoints.iter().any(|endpoint| endpoint.condition.is_usable()) => Refusal::Drop,
        Scope::Local | Scope::Cluster => Refusal::Reject,
    }
}

/// The endpoints that clients get which are translated on this node.
pub fn chosen<'a>(
    endpoints: &'a [Endpoint],
    scope: Scope,
    node: &str,
    zone: Option<&str>,
) -> Vec<&'a Endpoint> {
    let near: &dyn Fn(&Endpoint) -> bool = match scope {
        Scope::Cluster => &|_| true,
        Scope::Local => &|endpoint| endpoint.node.as_deref() == Some(node),
    };
    let within = || endpoints.iter().filter(|endpoint| near(endpoint));
    let ready: Vec<&Endpoint> = within().filter(|endpoint| endpoint.condition.ready).collect();
    if ready.is_empty() {
        return within().filter(|endpoint| endpoint.condition.is_last_resort()).collect();
    }
    match scope {
        Scope::Cluster => preferred(ready, node, zone),
        Scope::Local => ready,
    }
}

/// Those that are meant for this node, else for its zone, else all. Hints count only if every endpoint has them.
fn preferred<'a>(ready: Vec<&'a Endpoint>, node: &str, zone: Option<&str>) -> Vec<&'a Endpoint> {
    let of_node = |endpoint: &Endpoint| endpoint.hints.nodes.iter().any(|name| **name == *node);
    let of_zone = |endpoint: &Endpoint| endpoint.hints.zones.iter().any(|name| Some(&**name) == zone);
    if ready.iter().all(|endpoint| !endpoint.hints.nodes.is_empty())
        && ready.iter().any(|endpoint| of_node(endpoint))
    {
        return ready.into_iter().filter(|endpoint| of_node(endpoint)).collect();
    }
    if ready.iter().all(|endpoint| !endpoint.hints.zones.is_empty())
        && ready.iter().any(|endpoint| of_zone(endpoint))
    {
        return ready.into_iter().filter(|endpoint| of_zone(endpoint)).collect();
    }
    ready
}

/// How many endpoints of this node take new connections: a node whose health is asked answers 200 if there are any, else
/// 503, also while some that are about to go still get what comes.
pub fn healthy(endpoints: &[Endpoint], node: &str) -> usize {
    let local = endpoints.iter().filter(|endpoint| endpoint.node.as_deref() == Some(node));
    local.filter(|endpoint| endpoint.condition.ready).count()
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::{Condition, Hints};
    use super::*;

    const READY: Condition = Condition { ready: true, serving: true, terminating: false };
    const UNREADY: Condition = Condition { ready: false, serving: false, terminating: false };
    const DRAINING: Condition = Condition { ready: false, serving: true, terminating: true };
    const GOING: Condition = Condition { ready: false, serving: false, terminating: true };

    const CLUSTER: Policies =
        Policies { internal_local: false, external_local: false, masquerade_all: false };
    const EXTERNAL_LOCAL: Policies = Policies { external_local: true, ..CLUSTER };
    const INTERNAL_LOCAL: Policies = Policies { internal_local: true, ..CLUSTER };
    const EXTERNAL: [Door; 3] = [Door::NodePort, Door::ExternalIp, Door::LoadBalancer];

    /// An endpoint of a node; the node's name ends in its zone.
    fn at(last: u8, node: &str, condition: Condition) -> Endpoint {
        Endpoint {
            hostname: None,
            address: [10, 0, 0, last].into(),
            port: 80,
            weight: 1,
            condition,
            node: Some(node.into()),
            zone: node.get(1..).map(Into::into),
            hints: Hints::default(),
            pod: None,
        }
    }

    fn hinted(mut endpoint: Endpoint, zones: &[&str], nodes: &[&str]) -> Endpoint {
        let shared = |all: &[&str]| all.iter().map(|one| (*one).into()).collect();
        endpoint.hints = Hints { zones: shared(zones), nodes: shared(nodes) };
        endpoint
    }

    /// The last octets of whom clients get.
    fn get(endpoints: &[Endpoint], scope: Scope, node: &str) -> Vec<u8> {
        let zone = node.get(1..).filter(|zone| !zone.is_empty());
        let octet = |endpoint: &&Endpoint| match endpoint.address {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        chosen(endpoints, scope, node, zone).iter().map(octet).collect()
    }

    fn all(scope: Scope, masquerade: bool) -> Lead {
        Lead { scope, masquerade }
    }

    #[test]
    fn endpoint_set_ready_first_then_serving_terminating_never_the_others() {
        let mut endpoints =
            vec![at(1, "a", READY), at(2, "a", UNREADY), at(3, "b", DRAINING), at(4, "b", GOING)];
        assert_eq!(get(&endpoints, Scope::Cluster, "a"), [1]);
        endpoints.remove(0);
        assert_eq!(get(&endpoints, Scope::Cluster, "a"), [3]);
        endpoints.remove(1);
        assert_eq!(get(&endpoints, Scope::Cluster, "a"), [0u8; 0]);
        assert_eq!(refusal(Scope::Cluster, &endpoints), Refusal::Reject);
    }

    #[test]
    fn endpoint_set_fallback_stays_inside_local() {
        let endpoints = [at(1, "a", READY), at(2, "b", DRAINING), at(3, "b", UNREADY), at(4, "c", GOING)];
        assert_eq!(get(&endpoints, Scope::Local, "a"), [1]);
        assert_eq!(get(&endpoints, Scope::Local, "b"), [2], "not the one that is ready elsewhere");
        assert_eq!(get(&endpoints, Scope::Local, "c"), [0u8; 0]);
    }

    #[test]
    fn health_check_fails_when_only_terminating_endpoints_are_left() {
        let endpoints = [at(1, "a", READY), at(2, "a", READY), at(3, "b", DRAINING)];
        assert_eq!((healthy(&endpoints, "a"), healthy(&endpoints, "b")), (2, 0));
        assert_eq!(get(&endpoints, Scope::Local, "b"), [3], "and it still gets what comes");
    }

    #[test]
    fn external_policy_local_without_local_endpoint_drops_outside_and_short_circuits_the_cluster() {
        let elsewhere = [at(1, "b", READY)];
        for door in EXTERNAL {
            let outside = lead(door, Origin::Outside, EXTERNAL_LOCAL);
            assert_eq!(outside, all(Scope::Local, false), "{door:?}");
            assert_eq!(get(&elsewhere, outside.scope, "a"), [0u8; 0]);
            assert_eq!(refusal(outside.scope, &elsewhere), Refusal::Drop);
            // Pods keep their address, the node does not.
            assert_eq!(lead(door, Origin::Inside, EXTERNAL_LOCAL), all(Scope::Cluster, false), "{door:?}");
            assert_eq!(lead(door, Origin::Node, EXTERNAL_LOCAL), all(Scope::Cluster, true), "{door:?}");
            assert_eq!(get(&elsewhere, Scope::Cluster, "a"), [1]);
        }
    }

    #[test]
    fn internal_policy_local_without_local_endpoint_drops_and_concerns_cluster_ips_only() {
        let elsewhere = [at(1, "b", READY)];
        for origin in ORIGINS {
            let lead_in = lead(Door::ClusterIp, origin, INTERNAL_LOCAL);
            assert_eq!(lead_in.scope, Scope::Local);
            assert_eq!(get(&elsewhere, lead_in.scope, "a"), [0u8; 0]);
            assert_eq!(refusal(lead_in.scope, &elsewhere), Refusal::Drop);
            for door in EXTERNAL {
                assert_eq!(lead(door, origin, INTERNAL_LOCAL), lead(door, origin, CLUSTER));
            }
            assert_eq!(lead(Door::ClusterIp, origin, EXTERNAL_LOCAL), lead(Door::ClusterIp, origin, CLUSTER));
        }
    }

    #[test]
    fn masquerade_matrix() {
        let masquerade = |door, origin, policies| lead(door, origin, policies).masquerade;
        assert!(!masquerade(Door::ClusterIp, Origin::Inside, CLUSTER), "pod to cluster IP");
        assert!(masquerade(Door::ClusterIp, Origin::Node, CLUSTER), "node to cluster IP");
        assert!(masquerade(Door::ClusterIp, Origin::Outside, CLUSTER), "outside to cluster IP");
        for door in EXTERNAL {
            for origin in ORIGINS {
                assert!(masquerade(door, origin, CLUSTER), "{door:?} {origin:?}");
            }
            assert!(!masquerade(door, Origin::Outside, EXTERNAL_LOCAL), "{door:?}");
        }
        let all = Policies { masquerade_all: true, ..CLUSTER };
        assert!(ORIGINS.iter().all(|origin| masquerade(Door::ClusterIp, *origin, all)));
        let local = Policies { masquerade_all: true, ..EXTERNAL_LOCAL };
        assert!(!masquerade(Door::LoadBalancer, Origin::Outside, local), "it concerns cluster IPs only");
    }

    #[test]
    fn no_endpoints_are_rejected_at_every_door_by_every_policy() {
        for (endpoints, name) in
            [(vec![], "none"), (vec![at(1, "b", UNREADY), at(2, "b", GOING)], "unusable")]
        {
            for policies in [CLUSTER, EXTERNAL_LOCAL, INTERNAL_LOCAL] {
                for door in EXTERNAL.into_iter().chain([Door::ClusterIp, Door::ProxiedLoadBalancer]) {
                    for origin in ORIGINS {
                        let scope = lead(door, origin, policies).scope;
                        assert!(chosen(&endpoints, scope, "a", None).is_empty());
                        assert_eq!(refusal(scope, &endpoints), Refusal::Reject, "{name} {door:?} {origin:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ip_mode_proxy_is_not_short_circuited() {
        for origin in ORIGINS {
            let through = lead(Door::ProxiedLoadBalancer, origin, EXTERNAL_LOCAL);
            assert_eq!(through, lead(Door::LoadBalancer, Origin::Outside, EXTERNAL_LOCAL), "{origin:?}");
        }
    }

    #[test]
    fn topology_hints_are_followed_if_all_ready_endpoints_have_them_and_one_fits() {
        let mut endpoints = vec![
            hinted(at(1, "1x", READY), &["x"], &[]),
            hinted(at(2, "2y", READY), &["y"], &[]),
            hinted(at(3, "3x", READY), &["x", "z"], &[]),
            at(4, "4x", UNREADY),
        ];
        assert_eq!(get(&endpoints, Scope::Cluster, "9x"), [1, 3]);
        assert_eq!(get(&endpoints, Scope::Cluster, "9z"), [3]);
        assert_eq!(get(&endpoints, Scope::Cluster, "9w"), [1, 2, 3], "no endpoint is meant for this zone");
        assert_eq!(get(&endpoints, Scope::Cluster, "9"), [1, 2, 3], "the node has no zone");
        assert_eq!(get(&endpoints, Scope::Local, "2y"), [2], "policies go before hints");
        endpoints[3].condition = READY;
        assert_eq!(get(&endpoints, Scope::Cluster, "9x"), [1, 2, 3, 4], "one has no hint");
    }

    #[test]
    fn prefer_same_node_falls_back_to_the_zone_and_then_to_all() {
        let endpoints = [
            hinted(at(1, "1x", READY), &["x"], &["1x"]),
            hinted(at(2, "2x", READY), &["x"], &["2x"]),
            hinted(at(3, "3y", READY), &["y"], &["3y"]),
        ];
        assert_eq!(get(&endpoints, Scope::Cluster, "2x"), [2]);
        assert_eq!(get(&endpoints, Scope::Cluster, "9x"), [1, 2]);
        assert_eq!(get(&endpoints, Scope::Cluster, "9z"), [1, 2, 3]);
    }
}
