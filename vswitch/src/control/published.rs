//! Ports of this machine that lead to pods and Services, as the user asks for them while the cluster runs.
//!
//! # Theory of operation
//! What was asked for is kept as it was written, and held against the cluster whenever that has changed: a pod that comes
//! back with another address is where its port leads from then on, and one that is gone is a problem that is told. Nothing
//! of it outlives this process.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use super::api::{DoorView, PublishedView};
use super::plane::Plane;
use crate::cluster::{Cluster, Place, Protocol};
use crate::edge::{Carried, Door};
use crate::runtime::RuntimeError;
use crate::service::Planned;

/// Where ports are unless the user says otherwise: nobody else on the network sees them.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// The most ports of one range.
const MOST: u16 = 1024;

/// What a port leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Target {
    Pod(Place),
    /// `NAMESPACE/NAME`.
    Service(String),
}

/// `[IP:]PORT[-PORT]:POD|svc/SERVICE:PORT[/tcp|tcp4|tcp6|udp|udp4|udp6]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Publication {
    at: Option<IpAddr>,
    first: u16,
    last: u16,
    target: Target,
    to: u16,
    carried: Carried,
    /// Whether one family alone: IPv4, or IPv6.
    v4: Option<bool>,
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
                Ok(place @ Place::Pod { .. }) => Target::Pod(place),
                Ok(Place::Node(_) | Place::Host(_)) | Err(_) => return Err(error("that names no pod")),
            },
        };
        Ok(Self { at, first, last, target, to, carried, v4 })
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

impl Publication {
    /// The doors that it is in a cluster as it stands.
    ///
    /// # Errors
    /// Why it leads nowhere, in a sentence.
    fn doors(
        &self,
        cluster: &Cluster,
        service: impl Fn(&str) -> Option<Arc<Planned>>,
    ) -> Result<Vec<Door>, String> {
        let own = self.at.map_or_else(|| LOOPBACK.to_vec(), |at| vec![at]);
        let own = own.into_iter().filter(|at| self.v4.is_none_or(|v4| at.is_ipv4() == v4));
        let own: Vec<IpAddr> = own.collect();
        let mut doors = Vec::new();
        for step in 0..=self.last - self.first {
            let (addresses, port) = self.leads_to(cluster, &service, self.to + step)?;
            for &at in &own {
                let same = addresses.iter().find(|to| to.is_ipv4() == at.is_ipv4());
                let Some(&to) = same.or_else(|| addresses.first()) else {
                    return Err("it has no address".to_owned());
                };
                let at = SocketAddr::new(at, self.first + step);
                doors.push(Door { carried: self.carried, at, to: SocketAddr::new(to, port) });
            }
        }
        Ok(doors)
    }

    fn leads_to(
        &self,
        cluster: &Cluster,
        service: &impl Fn(&str) -> Option<Arc<Planned>>,
        port: u16,
    ) -> Result<(Vec<IpAddr>, u16), String> {
        match &self.target {
            Target::Pod(place) => {
                let addresses = cluster.addresses(place);
                let addresses = addresses.ok_or_else(|| format!("there is no pod {place}"))?;
                Ok((addresses.to_vec(), port))
            }
            Target::Service(name) => {
                let planned = service(name).ok_or_else(|| format!("there is no Service {name}"))?;
                let protocol = match self.carried {
                    Carried::Tcp => Protocol::Tcp,
                    Carried::Udp => Protocol::Udp,
                };
                let of_nodes = planned.allocation.node_port(protocol, port).ok_or_else(|| {
                    format!("the Service {name} has no port of nodes for {port}; make its type NodePort")
                })?;
                let nodes = cluster.nodes.first().map(|node| node.addresses.clone());
                Ok((nodes.unwrap_or_default(), of_nodes))
            }
        }
    }
}

/// What was asked for, and what of it cannot be.
#[derive(Debug, Default)]
pub(super) struct Published {
    wanted: BTreeMap<String, Publication>,
    problems: BTreeMap<String, String>,
    doors: BTreeMap<String, Vec<Door>>,
}

impl Plane {
    /// Publishes more ports. None of them is if one cannot be.
    ///
    /// # Errors
    /// Why, in sentences.
    pub fn publish_ports(&self, texts: &[String]) -> Result<Vec<PublishedView>, String> {
        let mut published = self.published.lock();
        let mut new = Vec::new();
        for text in texts {
            let publication: Publication =
                text.parse().map_err(|error: PublicationError| error.to_string())?;
            if published.wanted.contains_key(text) {
                return Err(format!("{text} is published already"));
            }
            new.push((text.clone(), publication));
        }
        published.wanted.extend(new.iter().cloned());
        let opened = self.open_doors(&mut published).map_err(|error| error.to_string());
        let problems = new
            .iter()
            .filter_map(|(text, _)| published.problems.get(text).map(|problem| format!("{text}: {problem}")));
        let problems: Vec<String> = problems.chain(opened.err()).collect();
        if problems.is_empty() {
            return Ok(views(&published));
        }
        for (text, _) in &new {
            published.wanted.remove(text);
        }
        // What stood before stands as it was.
        let _ = self.open_doors(&mut published);
        Err(problems.join("\n"))
    }

    /// Withdraws ports that were published, by what they were published with.
    ///
    /// # Errors
    /// When there is none of that name, or the data path has stopped.
    pub fn withdraw_ports(&self, texts: &[String]) -> Result<Vec<PublishedView>, String> {
        let mut published = self.published.lock();
        if let Some(text) = texts.iter().find(|text| !published.wanted.contains_key(*text)) {
            return Err(format!("{text} is not published; `vswitch get published` lists what is"));
        }
        for text in texts {
            published.wanted.remove(text);
        }
        self.open_doors(&mut published).map_err(|error| error.to_string())?;
        Ok(views(&published))
    }

    /// What is published.
    pub fn published(&self) -> Vec<PublishedView> {
        views(&self.published.lock())
    }

    /// Has doors follow a cluster that has changed.
    pub(super) fn move_doors(&self) -> Result<(), RuntimeError> {
        let mut published = self.published.lock();
        if published.wanted.is_empty() { Ok(()) } else { self.open_doors(&mut published) }
    }

    fn open_doors(&self, published: &mut Published) -> Result<(), RuntimeError> {
        let (cluster, plan) = (self.runtime().cluster(), self.desired().plan);
        published.problems.clear();
        published.doors.clear();
        for (text, publication) in &published.wanted {
            match publication.doors(&cluster, |name| plan.services.get(name).cloned()) {
                Ok(doors) => drop(published.doors.insert(text.clone(), doors)),
                Err(problem) => drop(published.problems.insert(text.clone(), problem)),
            }
        }
        let all = published.doors.values().flatten().copied().collect();
        for (door, refusal) in self.runtime().set_doors(all)? {
            let of = published.doors.iter().filter(|(_, doors)| doors.contains(&door));
            for text in of.map(|(text, _)| text.clone()).collect::<Vec<String>>() {
                published.problems.insert(text, format!("{}: {refusal}", door.at));
            }
        }
        Ok(())
    }
}

fn views(published: &Published) -> Vec<PublishedView> {
    let view = |text: &String| PublishedView {
        name: text.clone(),
        doors: published.doors.get(text).into_iter().flatten().map(door_view).collect(),
        problem: published.problems.get(text).cloned(),
    };
    published.wanted.keys().map(view).collect()
}

fn door_view(door: &Door) -> DoorView {
    let protocol = match door.carried {
        Carried::Tcp => "TCP",
        Carried::Udp => "UDP",
    };
    DoorView { protocol: protocol.to_owned(), at: door.at.to_string(), to: door.to.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::builtin;

    fn doors(text: &str) -> Result<Vec<String>, String> {
        let publication: Publication = text.parse().map_err(|error: PublicationError| error.to_string())?;
        let doors = publication.doors(&builtin("lab"), |_| None)?;
        Ok(doors.iter().map(|door| format!("{:?} {} > {}", door.carried, door.at, door.to)).collect())
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
