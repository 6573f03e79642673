//! What has to listen in nodes' own namespaces for Services.
//!
//! What a node asks of its own addresses never reaches its switch, so its agent relays its ports to the same ports of the
//! address that the node has as its pods' router, which does: whoever asks there comes from the node itself. Load balancers
//! ask nodes whether they have endpoints of their own (`healthCheckNodePort`); endpoints that are about to go do not count,
//! though they are still asked when there is nobody else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Controller, Family, NodeFacts, PortEndpoints, ways};
use crate::agent::{HealthCheck, NodeDuties, Relay};
use crate::cluster::Protocol;

/// By node: what its agent is to do for Services, of which this is all that has changed since it was asked last. That is
/// nothing for those that are gone.
pub fn duties(controller: &mut Controller) -> BTreeMap<Arc<str>, Vec<(Arc<str>, NodeDuties)>> {
    let changed = controller.take_exposed();
    if changed.is_empty() {
        return BTreeMap::new();
    }
    let of_node = |node: &NodeFacts| {
        let of_service = |name: &Arc<str>| (Arc::clone(name), duties_of(controller, name, node));
        (Arc::clone(&node.name), changed.iter().map(of_service).collect())
    };
    controller.nodes().map(of_node).collect()
}

fn duties_of(controller: &Controller, service: &str, node: &NodeFacts) -> NodeDuties {
    let mut duties = NodeDuties::default();
    let Some((planned, ports)) = controller.service(service) else { return duties };
    for PortEndpoints { family, port, endpoints, .. } in &ports {
        // Agents relay no SCTP.
        if port.protocol == Protocol::Sctp {
            continue;
        }
        let Some(number) = planned.allocation.node_port(port.protocol, port.port) else { continue };
        let of_family = |addresses: &[IpAddr]| {
            let mut addresses = addresses.to_vec();
            addresses.retain(|address| Family::of(*address) == *family);
            addresses
        };
        let answered = endpoints.iter().any(|endpoint| endpoint.condition.is_usable());
        let to = of_family(&node.gateways).into_iter().filter(|_| answered);
        duties.relays.push(Relay {
            protocol: port.protocol,
            listen: [vec![loopback(*family)], of_family(&node.addresses)].concat(),
            port: number,
            to: to.map(|gateway| SocketAddr::new(gateway, number)).collect(),
        });
    }
    duties.health_checks.extend(planned.allocation.health_check_port.map(|port| {
        let count = ports.iter().map(|port| ways::healthy(port.endpoints, &node.name)).max().unwrap_or(0);
        HealthCheck {
            port,
            namespace: planned.spec.namespace.clone(),
            name: planned.spec.name.clone(),
            local_endpoints: u32::try_from(count).unwrap_or(u32::MAX),
        }
    }));
    duties
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
