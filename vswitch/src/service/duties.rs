//! What has to listen in nodes' own namespaces for Services.
//!
//! What a node asks of its own addresses never reaches its switch, so its agent relays its ports to the Service's cluster
//! IP, which does. Load balancers ask nodes whether they have endpoints of their own (`healthCheckNodePort`); endpoints
//! that are about to go do not count, though they are still asked when there is nobody else.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::{Controller, Family, Planned, PortEndpoints, ways};
use crate::agent::{HealthCheck, NodeDuties, Relay};
use crate::cluster::Protocol;

/// Services that are asked for at nodes themselves: those that agents have to do with.
#[derive(Debug, Default)]
pub struct Exposed {
    names: BTreeSet<Arc<str>>,
    version: u64,
}

impl Exposed {
    /// `NAMESPACE/NAME` each.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// Another one as soon as there may be something else to do.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// A Service is another now, or gone.
    pub(super) fn set(&mut self, name: &Arc<str>, planned: Option<&Planned>) {
        let given = planned.map(|planned| &planned.allocation);
        if given.is_some_and(|given| !given.node_ports.is_empty() || given.health_check_port.is_some()) {
            self.names.insert(Arc::clone(name));
        } else if self.names.remove(name) {
            self.version += 1;
        }
    }

    /// Its endpoints may be others now.
    pub(super) fn touch(&mut self, name: &str) {
        self.version += u64::from(self.names.contains(name));
    }
}

/// What each node's agent is to do.
pub fn duties(controller: &Controller) -> Vec<(Arc<str>, NodeDuties)> {
    let mut all: Vec<(Arc<str>, Vec<IpAddr>, NodeDuties)> = controller
        .nodes()
        .map(|node| (Arc::clone(&node.name), node.addresses.clone(), NodeDuties::default()))
        .collect();
    for name in controller.exposed().names() {
        let Some((planned, ports)) = controller.service(name) else { continue };
        for PortEndpoints { family, port, endpoints, .. } in &ports {
            let family = *family;
            // Agents relay no SCTP.
            if port.protocol == Protocol::Sctp {
                continue;
            }
            let Some(node_port) = planned.allocation.node_port(port.protocol, port.port) else { continue };
            let answered = endpoints.iter().any(|endpoint| endpoint.condition.is_usable());
            let to = cluster_ip(planned, family).filter(|_| answered);
            let to: Vec<SocketAddr> =
                to.map(|address| SocketAddr::new(address, port.port)).into_iter().collect();
            for (_, addresses, duties) in &mut all {
                let own = addresses.iter().copied().filter(|address| Family::of(*address) == family);
                let listen = std::iter::once(loopback(family)).chain(own).collect();
                let to = to.clone();
                duties.relays.push(Relay { protocol: port.protocol, listen, port: node_port, to });
            }
        }
        let Some(port) = planned.allocation.health_check_port else { continue };
        for (node, _, duties) in &mut all {
            let count = ports.iter().map(|port| ways::healthy(port.endpoints, node)).max().unwrap_or(0);
            duties.health_checks.push(HealthCheck {
                port,
                namespace: planned.spec.namespace.clone(),
                name: planned.spec.name.clone(),
                local_endpoints: u32::try_from(count).unwrap_or(u32::MAX),
            });
        }
    }
    all.into_iter().map(|(node, _, duties)| (node, duties)).collect()
}

fn cluster_ip(planned: &Planned, family: Family) -> Option<IpAddr> {
    planned.allocation.cluster_ips.iter().copied().find(|address| Family::of(*address) == family)
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
