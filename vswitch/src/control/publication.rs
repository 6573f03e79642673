//! One publication: what the user, or a manifest, wants a port of this machine to lead to, and the doors that it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use crate::cluster::{Cluster, Egress, Node, Place, Protocol};
use crate::edge::{Carried, Door};
use crate::service::Planned;

/// Where ports are unless the user says otherwise: nobody else on the network sees them.
pub(super) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// The most ports of one range.
const MOST: u16 = 1024;

/// What a port leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// A pod, or a node for a pod that has the node's addresses.
    Place(Place),
    /// The Service `NAMESPACE/NAME`, wherever it can be asked.
    Service(String),
    /// The same at the addresses of its load balancer.
    Balancer(String),
}

/// `[IP:]PORT[-PORT]:POD|svc/SERVICE:PORT[/tcp|tcp4|tcp6|udp|udp4|udp6]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Publication {
    /// The addresses of this machine.
    pub(super) at: Vec<IpAddr>,
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) target: Target,
    pub(super) to: u16,
    pub(super) carried: Carried,
}

/// The text says nothing that could be published.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?}: {why}; write [IP:]PORT[-PORT]:POD:PORT or [IP:]PORT[-PORT]:svc/SERVICE:PORT, and /udp, /tcp4 and so on behind it"
)]
pub(super) struct PublicationError {
    text: String,
    why: &'static str,
}

impl FromStr for Publication {
    type Err = PublicationError;

    fn from_str(text: &str) -> Result<Self, PublicationError> {
        let error = |why| PublicationError { text: text.to_owned(), why };
        let (rest, (carried, v4)) = match text.rsplit_once('/') {
            Some((rest, name)) if !name.contains(':') => {
                (rest, protocol(name).ok_or_else(|| error("there is no such protocol"))?)
            }
            Some(_) | None => (text, (Carried::Tcp, None)),
        };
        let (rest, to) = rest.rsplit_once(':').ok_or_else(|| error("where it leads is missing"))?;
        let (front, target) = rest.rsplit_once(':').ok_or_else(|| error("a part is missing"))?;
        let (at, ports) = match front.rsplit_once(':') {
            Some((at, ports)) => {
                let at = at.strip_prefix('[').and_then(|at| at.strip_suffix(']')).unwrap_or(at);
                (Some(at.parse::<IpAddr>().map_err(|_| error("that is no IP address"))?), ports)
            }
            None => (None, front),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| {
            let number = text.parse::<u16>().ok().filter(|number| *number > 0);
            number.ok_or_else(|| error("a port is a number from 1 to 65535"))
        };
        let (first, last, to) = (number(first)?, number(last)?, number(to)?);
        if first > last || last - first >= MOST || to.checked_add(last - first).is_none() {
            return Err(error("that is no range of ports, of 1024 at the most"));
        }
        if at.zip(v4).is_some_and(|(at, v4)| at.is_ipv4() != v4) {
            return Err(error("address and protocol are of different families"));
        }
        let target = match target.strip_prefix("svc/") {
            Some(name) if name.contains('/') => Target::Service(name.to_owned()),
            Some(name) => Target::Service(format!("default/{name}")),
            None => match target.parse::<Place>() {
                Ok(place @ Place::Pod { .. }) => Target::Place(place),
                Ok(Place::Node(_) | Place::Host(_)) | Err(_) => return Err(error("that names no pod")),
            },
        };
        let mut at = at.map_or_else(|| LOOPBACK.to_vec(), |at| vec![at]);
        at.retain(|at| v4.is_none_or(|v4| at.is_ipv4() == v4));
        Ok(Self { at, first, last, target, to, carried })
    }
}

fn protocol(name: &str) -> Option<(Carried, Option<bool>)> {
    Some(match name {
        "tcp" => (Carried::Tcp, None),
        "tcp4" => (Carried::Tcp, Some(true)),
        "tcp6" => (Carried::Tcp, Some(false)),
        "udp" => (Carried::Udp, None),
        "udp4" => (Carried::Udp, Some(true)),
        "udp6" => (Carried::Udp, Some(false)),
        _ => return None,
    })
}

/// An endpoint of a Service that takes connections: where, and on which node.
pub(super) type Ready = (SocketAddr, Option<Arc<str>>);

/// What a publication is held against.
pub(super) struct Known<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) service: &'a dyn Fn(&str) -> Option<Arc<Planned>>,
    /// The endpoints of a Service's port that take connections.
    pub(super) ready: &'a dyn Fn(&str, Protocol, u16) -> Vec<Ready>,
}

impl Publication {
    /// The doors that it is in a cluster as it stands.
    ///
    /// # Errors
    /// Why it leads nowhere, in a sentence.
    pub(super) fn doors(&self, known: &Known<'_>) -> Result<Vec<Door>, String> {
        match &known.cluster.egress {
            Egress::User(_) => {}
            Egress::None => {
                let why = "`spec.egress` of the Cluster is `none`, so nothing of this machine leads inside";
                return Err(why.to_owned());
            }
            Egress::Kernel => {
                let why = "`spec.egress` of the Cluster is `kernel`: the machine reaches pods at their own addresses";
                return Err(why.to_owned());
            }
        }
        let mut doors = Vec::new();
        for step in 0..=self.last - self.first {
            let leads_to = self.leads_to(known, self.to + step)?;
            for &at in &self.at {
                let same = leads_to.iter().find(|to| to.is_ipv4() == at.is_ipv4());
                let Some(&to) = same.or_else(|| leads_to.first()) else {
                    return Err("it has no address".to_owned());
                };
                doors.push(Door { carried: self.carried, at: SocketAddr::new(at, self.first + step), to });
            }
        }
        Ok(doors)
    }

    fn leads_to(&self, known: &Known<'_>, port: u16) -> Result<Vec<SocketAddr>, String> {
        let with = |addresses: &[IpAddr], port: u16| -> Vec<SocketAddr> {
            addresses.iter().map(|at| SocketAddr::new(*at, port)).collect()
        };
        let service = |name: &str| (known.service)(name).ok_or_else(|| format!("there is no Service {name}"));
        match &self.target {
            Target::Place(place) => {
                let addresses = known.cluster.addresses(place);
                let addresses = addresses.ok_or_else(|| format!("there is no pod {place}"))?;
                Ok(with(addresses, port))
            }
            Target::Balancer(name) => Ok(with(&service(name)?.allocation.load_balancer, port)),
            Target::Service(name) => {
                let planned = service(name)?;
                let protocol = self.protocol();
                let ready = (known.ready)(name, protocol, port);
                if let Some(of_nodes) = planned.allocation.node_port(protocol, port) {
                    let node = node(&known.cluster.nodes, planned.spec.external_local, &ready);
                    return Ok(node.map(|node| with(&node.addresses, of_nodes)).unwrap_or_default());
                }
                // Like kubectl's port-forward: one of its pods, and another when that one is not ready any more.
                if ready.is_empty() {
                    return Err(match planned.spec.ports.iter().any(|one| one.port == port) {
                        true => format!("no endpoint of the Service {name} is ready"),
                        false => format!("the Service {name} has no port {port}"),
                    });
                }
                Ok(ready.into_iter().map(|(at, _)| at).collect())
            }
        }
    }

    const fn protocol(&self) -> Protocol {
        match self.carried {
            Carried::Tcp => Protocol::Tcp,
            Carried::Udp => Protocol::Udp,
        }
    }
}

/// The node that is asked for a Service: any, or one that has an endpoint if nodes send nobody on to others.
fn node<'a>(nodes: &'a [Node], is_local: bool, ready: &[Ready]) -> Option<&'a Node> {
    let has = |node: &&Node| ready.iter().any(|(_, on)| on.as_deref() == Some(&*node.name));
    nodes.iter().find(|node| is_local && has(node)).or_else(|| nodes.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::builtin;
    use crate::service::{Allocation, NodePort, Spec};

    fn doors_with(
        text: &str,
        planned: Option<&Arc<Planned>>,
        ready: &[(&str, &str)],
    ) -> Result<Vec<String>, String> {
        let publication: Publication = text.parse().map_err(|error: PublicationError| error.to_string())?;
        let ready: Vec<Ready> =
            ready.iter().map(|(at, node)| (at.parse().unwrap(), Some((*node).into()))).collect();
        let known = Known {
            cluster: &builtin("lab"),
            service: &|name| planned.filter(|_| name == "default/web").cloned(),
            ready: &|_, _, _| ready.clone(),
        };
        let doors = publication.doors(&known)?;
        Ok(doors.iter().map(|door| format!("{:?} {} > {}", door.carried, door.at, door.to)).collect())
    }

    fn doors(text: &str) -> Result<Vec<String>, String> {
        doors_with(text, None, &[])
    }

    #[test]
    fn a_pod_is_published_at_loopback_unless_it_is_said_where() {
        assert_eq!(
            doors("8080:alpha:80").unwrap(),
            ["Tcp 127.0.0.1:8080 > 10.244.0.2:80", "Tcp [::1]:8080 > [fd00:10:244::2]:80"]
        );
        assert_eq!(
            doors("0.0.0.0:53-54:default/beta:153/udp").unwrap(),
            ["Udp 0.0.0.0:53 > 10.244.0.3:153", "Udp 0.0.0.0:54 > 10.244.0.3:154"]
        );
        assert_eq!(doors("[::1]:8080:gamma:80").unwrap(), ["Tcp [::1]:8080 > [fd00:10:244:1::2]:80"]);
        assert_eq!(doors("8080:alpha:80/tcp4").unwrap(), ["Tcp 127.0.0.1:8080 > 10.244.0.2:80"]);
    }

    #[test]
    fn a_service_is_asked_at_a_node_that_answers_for_it_or_at_an_endpoint() {
        let mut planned = Planned::default();
        let ready = [("10.244.1.2:8080", "node-2"), ("[fd00:10:244:1::2]:8080", "node-2")];
        let ask = |planned: &Planned| doors_with("80:svc/web:80", Some(&Arc::new(planned.clone())), &ready);
        let endpoints = ["Tcp 127.0.0.1:80 > 10.244.1.2:8080", "Tcp [::1]:80 > [fd00:10:244:1::2]:8080"];
        assert_eq!(ask(&planned).unwrap(), endpoints);
        let none = doors_with("80:svc/web:80", Some(&Arc::new(planned.clone())), &[]);
        assert!(none.unwrap_err().contains("has no port 80"));
        let port = NodePort { protocol: Protocol::Tcp.number(), port: 80, node_port: 30080 };
        planned.allocation = Allocation { node_ports: vec![port], ..Allocation::default() };
        let cluster = builtin("lab");
        for (external_local, node) in [(false, 0), (true, 1)] {
            planned.spec = Spec { external_local, ..Spec::default() };
            let to = SocketAddr::new(cluster.nodes[node].addresses[0], 30080);
            assert_eq!(ask(&planned).unwrap()[0], format!("Tcp 127.0.0.1:80 > {to}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, why) in [
            ("8080", "where it leads"),
            ("8080:alpha", "missing"),
            ("0:alpha:80", "1 to 65535"),
            ("90-80:alpha:80", "range"),
            ("1-60000:alpha:80", "range"),
            ("8080-8090:alpha:65530", "range"),
            ("8080:alpha:80/sctp", "protocol"),
            ("nowhere:8080:alpha:80", "IP address"),
            ("127.0.0.1:8080:alpha:80/tcp6", "families"),
            ("8080:node/node-1:80", "no pod"),
            ("8080:nobody:80", "no pod default/nobody"),
            ("8080:svc/web:80", "no Service default/web"),
        ] {
            let told = doors(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
