//! Ports of this machine that lead inside because manifests ask for ports of nodes.
//!
//! # Theory of operation
//! The nodes are nowhere but on this machine, so whoever sits at it looks for their ports at his own addresses: those of
//! NodePort Services, of load balancers, and `hostPort`s. They are published as the user would publish them, and called
//! so: `30080:svc/default/web:80/tcp`. `spec.publishAddresses` of the Cluster says where, and whether at all.
//!
//! What is published so never fails a change: that a port is somebody else's is told as an event and by
//! `get published`, and tried again with the next change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::publication::{Publication, Target};
use crate::cluster::{Cluster, Egress, HostPort, Place, Pod, Protocol};
use crate::edge::Carried;
use crate::objects::Plan;
use crate::service::Planned;

/// The most ports that are published so: each is a descriptor at each address.
const MOST: usize = 1024;

/// Who wants a port of this machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    /// The user, by `publish`.
    Asked,
    /// A `hostPort`.
    HostPort,
    /// A Service's port of nodes.
    NodePort,
    /// A load balancer's port.
    LoadBalancer,
}

impl Source {
    /// As it is shown.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Asked => "publish",
            Self::HostPort => "hostPort",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// What is published so, by name, and how many further ports are not because there are too many.
pub(super) fn standing(cluster: &Cluster, plan: &Plan) -> (BTreeMap<String, (Source, Publication)>, usize) {
    let at = &cluster.publish_addresses;
    if !matches!(cluster.egress, Egress::User(_)) || at.is_empty() {
        return (BTreeMap::new(), 0);
    }
    let of_pods = cluster.pods.iter().flat_map(|pod| pod.host_ports.iter().map(move |port| (pod, port)));
    let of_pods = of_pods.filter_map(|(pod, port)| of_pod(at, pod, port));
    let services = plan.services.iter();
    let of_services = services.flat_map(|(name, planned)| of_service(at, name, planned));
    let mut all: BTreeMap<String, (Source, Publication)> = of_pods.chain(of_services).collect();
    let surplus = all.len().saturating_sub(MOST);
    for _ in 0..surplus {
        all.pop_last();
    }
    (all, surplus)
}

fn of_service(at: &[IpAddr], name: &str, planned: &Planned) -> Vec<(String, (Source, Publication))> {
    let allocation = &planned.allocation;
    if !allocation.is_exposed() && allocation.load_balancer.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for port in &planned.spec.ports {
        let Some(carried) = carried(port.protocol) else { continue };
        let mut add = |source, first: u16, target| {
            let name = format!("{first}:svc/{name}:{}/{}", port.port, word(carried));
            let at = at.to_vec();
            all.push((
                name,
                (source, Publication { at, first, last: first, target, to: port.port, carried }),
            ));
        };
        if let Some(number) = allocation.node_port(port.protocol, port.port) {
            add(Source::NodePort, number, Target::Service(name.to_owned()));
        }
        if !allocation.load_balancer.is_empty() {
            add(Source::LoadBalancer, port.port, Target::Balancer(name.to_owned()));
        }
    }
    all
}

fn of_pod(at: &[IpAddr], pod: &Pod, port: &HostPort) -> Option<(String, (Source, Publication))> {
    let carried = carried(port.protocol)?;
    // A `hostIP` of loopback means just that; any other is an address of the node, which this machine does not have.
    let (at, front) = match port.address {
        Some(own) if own.is_loopback() && own.is_ipv4() => (vec![own], format!("{own}:")),
        Some(own) if own.is_loopback() => (vec![own], format!("[{own}]:")),
        Some(own) => (at.iter().copied().filter(|at| at.is_ipv4() == own.is_ipv4()).collect(), String::new()),
        None => (at.to_vec(), String::new()),
    };
    let (place, number) = (pod.place(), port.port);
    let name = format!("{front}{number}:{place}:{}/{}", port.container_port, word(carried));
    let target = Target::Place(if pod.host_network { Place::Node(pod.node.clone()) } else { place });
    let publication =
        Publication { at, first: number, last: number, target, to: port.container_port, carried };
    Some((name, (Source::HostPort, publication)))
}

const fn carried(protocol: Protocol) -> Option<Carried> {
    match protocol {
        Protocol::Tcp => Some(Carried::Tcp),
        Protocol::Udp => Some(Carried::Udp),
        Protocol::Sctp => None,
    }
}

pub(super) const fn word(carried: Carried) -> &'static str {
    match carried {
        Carried::Tcp => "tcp",
        Carried::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::publication::LOOPBACK;
    use super::*;
    use crate::objects::builtin;
    use crate::service::{Allocation, NodePort, Port};

    fn names(cluster: &Cluster, plan: &Plan) -> Vec<String> {
        let (all, surplus) = standing(cluster, plan);
        assert_eq!(surplus, 0);
        all.iter().map(|(name, (source, _))| format!("{} {name}", source.name())).collect()
    }

    fn service(node_ports: Vec<NodePort>, load_balancer: Vec<IpAddr>) -> Plan {
        let port = |protocol, port| Port {
            name: String::new(),
            protocol,
            port,
            target: crate::service::Target::Number(port),
            node_port: None,
        };
        let mut planned = Planned::default();
        planned.spec.ports = vec![port(Protocol::Tcp, 80), port(Protocol::Sctp, 81)];
        planned.allocation = Allocation { node_ports, load_balancer, ..Allocation::default() };
        let mut plan = Plan::default();
        plan.services.insert_mut("default/web".into(), Arc::new(planned));
        plan
    }

    #[test]
    fn ports_of_nodes_are_ports_of_this_machine_unless_nobody_wants_that() {
        let mut cluster = builtin("lab");
        assert_eq!(names(&cluster, &service(Vec::new(), Vec::new())), [""; 0]);
        let ports = [(Protocol::Tcp, 80, 30080), (Protocol::Sctp, 81, 30081)];
        let ports = ports.map(|(protocol, port, node_port)| NodePort {
            protocol: protocol.number(),
            port,
            node_port,
        });
        let plan = service(ports.to_vec(), vec!["192.168.10.240".parse().unwrap()]);
        let wanted = ["NodePort 30080:svc/default/web:80/tcp", "LoadBalancer 80:svc/default/web:80/tcp"];
        assert_eq!(names(&cluster, &plan), wanted);
        for (name, (_, publication)) in standing(&cluster, &plan).0 {
            let parsed: Publication = name.parse().unwrap();
            assert_eq!(
                (parsed.at, parsed.first, parsed.to),
                (publication.at, publication.first, 80),
                "{name}"
            );
        }
        cluster.publish_addresses.clear();
        assert_eq!(names(&cluster, &plan), [""; 0]);
        cluster.publish_addresses = LOOPBACK.to_vec();
        cluster.egress = Egress::None;
        assert_eq!(names(&cluster, &plan), [""; 0]);
    }

    #[test]
    fn a_host_port_of_loopback_is_this_machine_s_loopback() {
        let mut cluster = builtin("lab");
        cluster.publish_addresses = vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()];
        let port = |port, address: Option<&str>| HostPort {
            protocol: Protocol::Tcp,
            port,
            address: address.map(|text| text.parse().unwrap()),
            container_port: 80,
        };
        cluster.pods[0].host_ports =
            vec![port(8080, None), port(8081, Some("127.0.0.1")), port(8082, Some("::"))];
        let (all, _) = standing(&cluster, &Plan::default());
        let at: Vec<(&str, Vec<String>)> = all
            .iter()
            .map(|(name, (_, one))| (&name[..], one.at.iter().map(ToString::to_string).collect()))
            .collect();
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        assert_eq!(
            at,
            [
                ("127.0.0.1:8081:default/alpha:80/tcp", all(&["127.0.0.1"])),
                ("8080:default/alpha:80/tcp", all(&["0.0.0.0", "::"])),
                ("8082:default/alpha:80/tcp", all(&["::"])),
            ]
        );
    }
}
