//! What Services and pods are called: the Kubernetes DNS specification 1.1.0, and the names of pods that Kubernetes documents
//! beside it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::{DomainName, first_label, parent};
use crate::reverse;
use crate::zone::{Data, Srv};

/// The label that all Services are beneath.
const SERVICES: &str = "svc";
/// The label that all pods are beneath.
const PODS: &str = "pod";
/// What SRV records say of a port, as in the examples of the specification.
const PRIORITY: u16 = 10;
const WEIGHT: u16 = 100;

/// Somebody who answers for a Service, and is ready.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The name that it asks for.
    pub hostname: Option<Arc<str>>,
}

impl Endpoint {
    /// Its label beneath its Service: the name it asks for, else its address.
    pub fn label(&self) -> String {
        self.hostname.as_deref().map_or_else(|| dashed(self.address), str::to_owned)
    }
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name; empty if it has none, and then it has no records of its own.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Its number at the Service's addresses.
    pub number: u16,
    /// Who answers, each at a port of its own: what clients of a headless Service ask.
    pub endpoints: Vec<(Endpoint, u16)>,
}

/// What a Service's name stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Addresses of its own.
    Addresses(Vec<IpAddr>),
    /// Its endpoints (`clusterIP: None`).
    Headless,
    /// Another name (`type: ExternalName`).
    External(DomainName),
}

/// A Service, as far as its names go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub shape: Shape,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Everybody who answers for it, also where it has no ports.
    pub endpoints: Vec<Endpoint>,
}

impl Service {
    /// Its records in a cluster of this domain. What would be longer than a name can be is left out.
    pub fn records(&self, domain: &DomainName) -> Vec<(DomainName, Data)> {
        let mut records = Vec::new();
        let Ok(own) = domain.beneath(&[&self.name, &self.namespace, SERVICES]) else { return records };
        match &self.shape {
            Shape::External(target) => records.push((own, Data::Cname(target.clone()))),
            Shape::Addresses(addresses) => {
                for &address in addresses {
                    records.push((own.clone(), address.into()));
                    records.push((reverse::name_of(address), Data::Ptr(own.clone())));
                }
                for port in &self.ports {
                    records.extend(srv(&own, port, port.number, own.clone()));
                }
                for endpoint in &self.endpoints {
                    let name = own.beneath(&[&endpoint.label()]);
                    records.extend(name.ok().map(|name| (name, endpoint.address.into())));
                }
            }
            Shape::Headless => self.headless(&own, &mut records),
        }
        records
    }

    fn headless(&self, own: &DomainName, records: &mut Vec<(DomainName, Data)>) {
        for endpoint in &self.endpoints {
            let Ok(name) = own.beneath(&[&endpoint.label()]) else { continue };
            records.push((own.clone(), endpoint.address.into()));
            records.push((reverse::name_of(endpoint.address), Data::Ptr(name.clone())));
            records.push((name, endpoint.address.into()));
        }
        for port in &self.ports {
            for (endpoint, number) in &port.endpoints {
                let Ok(name) = own.beneath(&[&endpoint.label()]) else { continue };
                records.extend(srv(own, port, *number, name));
            }
        }
    }
}

/// Where a port is, if it has a name.
fn srv(service: &DomainName, port: &Port, number: u16, target: DomainName) -> Option<(DomainName, Data)> {
    if port.name.is_empty() {
        return None;
    }
    let name = service.beneath(&[&format!("_{}", port.name), &format!("_{}", port.protocol)]).ok()?;
    Some((name, Data::Srv(Srv { priority: PRIORITY, weight: WEIGHT, port: number, target })))
}

/// The records of a pod: each of its addresses is a name in its namespace.
pub fn pod_records(namespace: &str, addresses: &[IpAddr], domain: &DomainName) -> Vec<(DomainName, Data)> {
    let record = |address: &IpAddr| {
        let name = domain.beneath(&[&dashed(*address), namespace, PODS]).ok()?;
        Some((name, Data::from(*address)))
    };
    addresses.iter().filter_map(record).collect()
}

/// An address as a label: `10-244-1-5`, `fd00-10-244--5`.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The name under which a pod is known that is asked for by another form of its IPv6 address: with zeros that need not be
/// written.
pub(crate) fn usual_pod_name(wire: &[u8], domain: &DomainName) -> Option<DomainName> {
    let label = std::str::from_utf8(first_label(wire)?).ok()?;
    let namespace = parent(wire)?;
    let kind = parent(namespace)?;
    if first_label(kind)? != PODS.as_bytes() || parent(kind)? != domain.wire() {
        return None;
    }
    let address: std::net::Ipv6Addr = label.replace('-', ":").parse().ok()?;
    let usual = dashed(address.into());
    let namespace = std::str::from_utf8(first_label(namespace)?).ok()?;
    (usual != label).then(|| domain.beneath(&[&usual, namespace, PODS]).ok()).flatten()
}
