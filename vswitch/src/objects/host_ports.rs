//! Ports of containers, and those of nodes that pods ask for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};
use manifest::Located;

use super::compile::Compiler;
use crate::cluster::{HostPort, Node, Protocol};

/// Who has which ports of nodes.
#[derive(Debug, Default)]
pub(super) struct Holders(BTreeMap<(String, IpAddr, Protocol, u16), String>);

impl Holders {
    /// The first port of `wanted` that is somebody else's on this node, and whose.
    pub(super) fn taken<'w>(
        &self,
        node: &Node,
        wanted: &'w [(String, HostPort)],
    ) -> Option<(&'w (String, HostPort), &str)> {
        wanted.iter().find_map(|one| {
            let holder = keys(node, &one.1).find_map(|key| self.0.get(&key))?;
            Some((one, holder.as_str()))
        })
    }

    /// Gives `holder` all that is `wanted`.
    pub(super) fn take(&mut self, node: &Node, wanted: &[(String, HostPort)], holder: &str) {
        let keys = wanted.iter().flat_map(|(_, port)| keys(node, port));
        self.0.extend(keys.map(|key| (key, holder.to_owned())));
    }
}

fn keys(node: &Node, port: &HostPort) -> impl Iterator<Item = (String, IpAddr, Protocol, u16)> {
    let at = node.addresses.iter().copied().filter(|&address| port.is_at(address));
    at.map(|address| (node.name.clone(), address, port.protocol, port.port))
}

/// Whether the pod shares its node's namespace: then every port that it names is one of the node's.
pub(super) fn on_host(spec: &PodSpec) -> bool {
    spec.host_network == Some(true)
}

/// The ports of its node that a pod asks for, each with its place in the pod.
pub(super) fn wanted(spec: &PodSpec) -> Vec<(String, HostPort)> {
    let containers = spec.containers.iter().enumerate();
    let ports = containers.flat_map(|(at, container)| {
        let ports = container.ports.iter().flatten().enumerate();
        ports.map(move |(index, port)| (format!("spec.containers[{at}].ports[{index}]"), port))
    });
    ports.filter_map(|(path, port)| Some((path, host_port(port, on_host(spec))?))).collect()
}

/// None if it asks for none, or for one that there is not.
fn host_port(port: &ContainerPort, on_host: bool) -> Option<HostPort> {
    let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
    let address = match host_ip(port) {
        Some(text) => Some(text.parse().ok()?),
        None => None,
    };
    Some(HostPort {
        protocol: Protocol::by_name(port.protocol.as_deref().unwrap_or("TCP"))?,
        port: number(port.host_port.unwrap_or(if on_host { port.container_port } else { 0 }))?,
        address,
        container_port: number(port.container_port)?,
    })
}

fn host_ip(port: &ContainerPort) -> Option<&str> {
    port.host_ip.as_deref().filter(|text| !text.is_empty())
}

impl Compiler<'_> {
    /// What is wrong with a container's ports; `ports` are those of the pod, and whose they are.
    pub(super) fn check_ports<'c>(
        &mut self,
        at: &Located,
        path: &str,
        container: &'c Container,
        ports: &mut BTreeMap<(String, i32), &'c str>,
    ) {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let path = format!("{path}.ports[{index}]");
            let number = port.container_port;
            if !(1..=65535).contains(&number) {
                self.fault(
                    at,
                    &format!("{path}.containerPort"),
                    format!("{number} is not between 1 and 65535"),
                );
            }
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            if !["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) {
                self.fault(
                    at,
                    &format!("{path}.protocol"),
                    format!("{protocol:?} is none of TCP, UDP, SCTP"),
                );
            }
            let other = ports.insert((protocol.clone(), number), &container.name);
            if let Some(other) = other.filter(|other| *other != container.name) {
                let message = format!(
                    "the container {other} has {protocol} port {number} too, and both are on one address: the second to \
                     listen will fail"
                );
                self.warn(at, &path, message);
            }
        }
    }

    /// What can be said of them whichever node the pod is on.
    pub(super) fn check_host_ports(&mut self, at: &Located, base: &str, spec: &PodSpec) {
        for (container, containers) in spec.containers.iter().enumerate() {
            for (index, port) in containers.ports.iter().flatten().enumerate() {
                let path = format!("{base}spec.containers[{container}].ports[{index}]");
                let number = port.host_port.unwrap_or(0);
                if !(0..=65535).contains(&number) {
                    self.fault(
                        at,
                        &format!("{path}.hostPort"),
                        format!("{number} is not between 1 and 65535"),
                    );
                }
                if on_host(spec) && ![0, port.container_port].contains(&number) {
                    let message = format!(
                        "{number} must be the containerPort, {}, with hostNetwork: the container listens on the node itself",
                        port.container_port
                    );
                    self.fault(at, &format!("{path}.hostPort"), message);
                }
                if let Some(text) = host_ip(port).filter(|text| text.parse::<IpAddr>().is_err()) {
                    self.fault(at, &format!("{path}.hostIP"), format!("{text:?} is no address"));
                }
            }
        }
        let wanted = wanted(spec);
        for (index, (path, port)) in wanted.iter().enumerate() {
            if wanted[..index].iter().any(|(_, other)| other.clashes(port)) {
                let message = format!("the pod asks for port {port} of its node twice");
                self.fault(at, &format!("{base}{path}.hostPort"), message);
            }
        }
        let before = spec.init_containers.iter().flatten().enumerate();
        for (container, _) in before.filter(|(_, c)| c.ports.iter().flatten().any(|p| p.host_port.is_some()))
        {
            let message = "hostPort has no effect in an init container";
            self.warn(at, &format!("{base}spec.initContainers[{container}].ports"), message);
        }
    }

    /// Says of ports that are at none of the node's addresses that nobody reaches them.
    pub(super) fn warn_of_unreached(
        &mut self,
        at: &Located,
        base: &str,
        node: &Node,
        wanted: &[(String, HostPort)],
    ) {
        let unreached = wanted.iter().filter(|(_, port)| !node.addresses.iter().any(|&a| port.is_at(a)));
        let warnings: Vec<(String, String)> = unreached
            .map(|(path, port)| {
                let address = port.address.map(|a| a.to_string()).unwrap_or_default();
                let message = format!("{address} is no address of {}: nobody reaches port {port}", node.name);
                (format!("{base}{path}.hostIP"), message)
            })
            .collect();
        for (path, message) in warnings {
            self.warn(at, &path, message);
        }
    }
}
