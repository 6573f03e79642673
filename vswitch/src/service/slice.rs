//! EndpointSlices that the user gives: taken as they are.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint as Given, EndpointSlice};

use super::Complaints;
use super::endpoint::{Condition, Endpoint, Hints};
use super::port::{self, Port, Target};
use super::spec::word;
use super::words::Family;
use crate::cluster::Protocol;

/// The label that names the Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Annotation with the weight of every endpoint of a slice, or of a pod.
pub(crate) const WEIGHT: &str = "vswitch/weight";
/// Endpoints of one slice, as in the API server.
const MOST_ENDPOINTS: usize = 1000;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The Service, `NAMESPACE/NAME`; none if no label names one.
    pub service: Option<String>,
    /// The family of its addresses.
    pub family: Option<Family>,
    ports: Vec<SlicePort>,
    /// Its endpoints, whose port is still to be filled in.
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct SlicePort {
    name: String,
    protocol: Protocol,
    /// None means every port.
    port: Option<u16>,
}

/// The weight that annotations give; 1 if none does.
pub(crate) fn weight(annotations: Option<&crate::cluster::Labels>) -> Result<u32, (String, String)> {
    let Some(text) = annotations.and_then(|all| all.get(WEIGHT)) else { return Ok(1) };
    let wrong = || format!("{text:?} is no number from 0 to {}", u32::MAX);
    text.parse().map_err(|_| (format!("metadata.annotations.{WEIGHT}"), wrong()))
}

impl Slice {
    /// Reads an object of this namespace. What is wrong with it is added to `complaints`.
    pub fn read(object: &EndpointSlice, namespace: &str, complaints: &mut Complaints) -> Self {
        let labels = object.metadata.labels.as_ref();
        let service = labels.and_then(|labels| labels.get(SERVICE_NAME));
        if service.is_none() {
            let message = format!("without the label {SERVICE_NAME} it belongs to no Service");
            complaints.warn("metadata.labels", message);
        }
        let weight = weight(object.metadata.annotations.as_ref()).unwrap_or_else(|(path, message)| {
            complaints.fault(path, message);
            1
        });
        const TYPES: [(&str, Option<Family>); 3] =
            [("IPv4", Some(Family::V4)), ("IPv6", Some(Family::V6)), ("FQDN", None)];
        let family = word(&object.address_type, &TYPES, "addressType", complaints).flatten();
        if object.address_type == "FQDN" {
            complaints.warn("addressType", "names are for a resolver: nothing is translated to them");
        }
        let endpoints = object.endpoints.as_deref().unwrap_or_default();
        let mut slice = Self {
            service: service.map(|name| format!("{namespace}/{name}")),
            family,
            ports: ports(object, complaints),
            endpoints: Vec::with_capacity(endpoints.len()),
        };
        if endpoints.len() > MOST_ENDPOINTS {
            complaints
                .fault("endpoints", format!("are more than {MOST_ENDPOINTS}; make several slices of them"));
        }
        for (index, given) in endpoints.iter().enumerate() {
            slice.endpoints.extend(endpoint(given, index, family, weight, complaints));
        }
        slice
    }

    /// Its endpoints without a port.
    pub(super) fn portless(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Its endpoints for a port of its Service.
    pub(super) fn endpoints(&self, port: &Port) -> impl Iterator<Item = Endpoint> {
        let named = self.ports.iter().filter(|own| own.name == port.name && own.protocol == port.protocol);
        named.flat_map(|own| {
            let number = own.port.unwrap_or(match port.target {
                Target::Number(number) => number,
                Target::Name(_) => port.port,
            });
            self.endpoints.iter().map(move |endpoint| Endpoint { port: number, ..endpoint.clone() })
        })
    }
}

fn ports(object: &EndpointSlice, complaints: &mut Complaints) -> Vec<SlicePort> {
    let mut ports: Vec<SlicePort> = Vec::new();
    for (index, given) in object.ports.iter().flatten().enumerate() {
        let path = format!("ports[{index}]");
        let protocol = given.protocol.as_deref().unwrap_or("TCP");
        let Some(protocol) = Protocol::by_name(protocol) else {
            complaints.fault(format!("{path}.protocol"), format!("{protocol:?} is none of TCP, UDP, SCTP"));
            continue;
        };
        let number = given.port.and_then(|number| port::number(&format!("{path}.port"), number, complaints));
        let name = given.name.clone().unwrap_or_default();
        if ports.iter().any(|other| other.name == name) {
            complaints.fault(format!("{path}.name"), format!("there is a port {name:?} already"));
        }
        ports.push(SlicePort { name, protocol, port: number });
    }
    ports
}

fn endpoint(
    given: &Given,
    index: usize,
    family: Option<Family>,
    weight: u32,
    complaints: &mut Complaints,
) -> Option<Endpoint> {
    let mut first = None;
    for (at, text) in given.addresses.iter().enumerate() {
        let path = || format!("endpoints[{index}].addresses[{at}]");
        let Some(wanted) = family else { continue };
        match text.parse::<IpAddr>() {
            Ok(address) if Family::of(address) != wanted => {
                complaints.fault(path(), format!("{address} is no {} address", wanted.name()));
            }
            Ok(address) if address.is_loopback() || address.is_unspecified() || address.is_multicast() => {
                complaints.fault(path(), format!("{address} is no address that other machines reach"));
            }
            Ok(address) => first = first.or(Some(address)),
            Err(_) => complaints.fault(path(), format!("{text:?} is no address")),
        }
    }
    if given.addresses.is_empty() {
        complaints.fault(format!("endpoints[{index}].addresses"), "one address is needed");
    }
    let conditions = given.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let condition = Condition {
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    };
    let shared = |text: &String| Arc::<str>::from(text.as_str());
    let hints = given.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
    Some(Endpoint {
        address: first?,
        port: 0,
        weight,
        condition,
        node: given.node_name.as_ref().map(shared),
        zone: given.zone.as_ref().map(shared),
        hints: Hints {
            zones: zones.map(|zone| shared(&zone.name)).collect(),
            nodes: nodes.map(|node| shared(&node.name)).collect(),
        },
        hostname: given.hostname.as_ref().map(|name| name.to_lowercase().into()),
        pod: given.target_ref.as_ref().and_then(|target| {
            let (namespace, name) = (target.namespace.as_ref()?, target.name.as_ref()?);
            Some(format!("{namespace}/{name}").into())
        }),
    })
}
