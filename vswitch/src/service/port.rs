//! Ports of a Service.

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Complaints;
use super::spec::{Spec, word};
use super::words::Kind;
use crate::cluster::Protocol;

/// A port of pods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By the name that containers give it, each pod its own.
    Name(String),
}

/// A port that clients ask, and where it leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name; empty if it is the only one.
    pub name: String,
    /// What is carried.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// The port of the pods.
    pub target: Target,
    /// The port of the nodes that it asks for.
    pub node_port: Option<u16>,
}

/// A number that is a port, or a complaint.
pub(super) fn number(path: &str, number: i32, complaints: &mut Complaints) -> Option<u16> {
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        complaints.fault(path, format!("{number} is not between 1 and 65535"));
    }
    port
}

/// The ports of a Service whose type is known.
pub(super) fn read(given: &ServiceSpec, spec: &Spec, complaints: &mut Complaints) -> Vec<Port> {
    let all = given.ports.as_deref().unwrap_or_default();
    if all.is_empty() && !spec.headless && spec.kind != Kind::ExternalName {
        complaints.fault("spec.ports", "one port at least is needed");
    }
    let mut ports: Vec<Port> = Vec::with_capacity(all.len());
    for (index, given) in all.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let Some(port) = one(given, &path, all.len(), spec, complaints) else { continue };
        if ports.iter().any(|other| other.name == port.name && !port.name.is_empty()) {
            complaints.fault(format!("{path}.name"), format!("there is a port {:?} already", port.name));
        }
        if ports.iter().any(|other| (other.protocol, other.port) == (port.protocol, port.port)) {
            let message = format!("there is a port {}/{} already", port.port, port.protocol.name());
            complaints.fault(&path, message);
        }
        let same = |other: &&Port| (other.protocol, other.node_port) == (port.protocol, port.node_port);
        if let (Some(number), Some(_)) = (port.node_port, ports.iter().find(same)) {
            let message = format!("{number}/{} leads to another port of this Service", port.protocol.name());
            complaints.fault(format!("{path}.nodePort"), message);
        }
        ports.push(port);
    }
    ports
}

fn one(given: &ServicePort, path: &str, of: usize, spec: &Spec, complaints: &mut Complaints) -> Option<Port> {
    let name = given.name.clone().unwrap_or_default();
    if name.is_empty() && of > 1 {
        complaints.fault(format!("{path}.name"), "is needed where there are several ports");
    } else if !name.is_empty() && !crate::objects::is_label(&name) {
        complaints.fault(format!("{path}.name"), format!("{name:?} must be {}", crate::objects::LABEL));
    }
    const PROTOCOLS: [(&str, Protocol); 3] =
        [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
    let text = given.protocol.as_deref().unwrap_or("TCP");
    let protocol = word(text, &PROTOCOLS, &format!("{path}.protocol"), complaints);
    let port = number(&format!("{path}.port"), given.port, complaints);
    let target = match &given.target_port {
        None => port.map(Target::Number),
        // An unset number is written as 0 by some.
        Some(IntOrString::Int(0)) => port.map(Target::Number),
        Some(IntOrString::Int(target)) => {
            number(&format!("{path}.targetPort"), *target, complaints).map(Target::Number)
        }
        Some(IntOrString::String(name)) => match is_port_name(name) {
            true => Some(Target::Name(name.clone())),
            false => {
                let rule = "1 to 15 lower case letters, digits and `-`, with a letter among them, without `--` and `-` \
                            at either end";
                complaints.fault(format!("{path}.targetPort"), format!("{name:?} must be {rule}"));
                None
            }
        },
    };
    let node_port = given.node_port.filter(|port| *port != 0);
    let exposed = matches!(spec.kind, Kind::NodePort | Kind::LoadBalancer);
    if node_port.is_some() && !exposed {
        let message = format!(
            "may not be set for a Service of the type {}; make it NodePort or LoadBalancer",
            spec.kind.name()
        );
        complaints.fault(format!("{path}.nodePort"), message);
    }
    let node_port = node_port.and_then(|port| number(&format!("{path}.nodePort"), port, complaints));
    Some(Port { name, protocol: protocol?, port: port?, target: target?, node_port })
}

/// The rule for names of ports (RFC 6335 section 5.1, in lower case).
fn is_port_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(good)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-')
}
