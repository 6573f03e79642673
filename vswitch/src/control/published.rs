//! Ports of this machine that lead to pods and Services, as the user asks for them while the cluster runs, or as manifests
//! do.
//!
//! # Theory of operation
//! What was asked for is kept as it was written, and held against the cluster whenever that has changed: a pod that comes
//! back with another address is where its port leads from then on, and one that is gone is a problem that is told. Where two
//! want one port the user comes before manifests, and of those the first by name. Nothing of it outlives this process.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::api::{DoorView, PublishedView};
use super::plane::Plane;
use super::publication::{Known, Publication, PublicationError, Ready};
use super::standing::{Source, standing, word};
use crate::cluster::{Cluster, Protocol, UNDERLAY};
use crate::edge::{Carried, Door, Refusal};
use crate::runtime::RuntimeError;

/// What was asked for, and what of it cannot be.
#[derive(Debug, Default)]
pub(super) struct Published {
    wanted: BTreeMap<String, Publication>,
    /// What manifests ask for.
    standing: BTreeMap<String, (Source, Publication)>,
    /// The cluster that they are of, unless something else has changed since.
    of: Option<Arc<Cluster>>,
    problems: BTreeMap<String, String>,
    doors: BTreeMap<String, Vec<Door>>,
    /// Those that were asked for last, in which cluster.
    open: Option<(Arc<Cluster>, BTreeSet<Door>)>,
    /// Those of them that this machine does not let be opened.
    refused: BTreeSet<Door>,
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
            return Err(match published.standing.contains_key(text) {
                true => format!(
                    "{text} is published because a manifest asks for it; `spec.publishAddresses: []` of the Cluster has no \
                     such ports"
                ),
                false => format!("{text} is not published; `vswitch get published` lists what is"),
            });
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

    /// Has doors follow Services that may have changed.
    pub(super) fn turn_doors(&self) -> Result<(), RuntimeError> {
        self.published.lock().of = None;
        self.move_doors()
    }

    /// Has doors follow a cluster that may have changed, and endpoints.
    pub(super) fn move_doors(&self) -> Result<(), RuntimeError> {
        let mut published = self.published.lock();
        let published = &mut *published;
        let cluster = self.runtime().cluster();
        let stands = published.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &cluster));
        if !stands {
            let (new, surplus) = standing(&cluster, &self.desired().plan);
            if surplus > 0 && new.keys().ne(published.standing.keys()) {
                let text =
                    format!("{surplus} ports of nodes are not published on this machine: they are too many");
                self.runtime().tell(UNDERLAY, text);
            }
            published.standing = new;
            published.of = Some(cluster);
        }
        if published.wanted.is_empty() && published.standing.is_empty() && published.doors.is_empty() {
            return Ok(());
        }
        self.open_doors(published)
    }

    fn open_doors(&self, published: &mut Published) -> Result<(), RuntimeError> {
        let (cluster, plan) = (self.runtime().cluster(), self.desired().plan);
        let known = Known {
            cluster: &cluster,
            service: &|name| plan.services.get(name).cloned(),
            ready: &|name, protocol, port| self.ready(name, protocol, port),
        };
        published.problems.clear();
        published.doors.clear();
        let mut claimed: BTreeMap<(Carried, SocketAddr), (Door, &str)> = BTreeMap::new();
        let asked = published.wanted.iter();
        let of_manifests = published.standing.iter().map(|(name, (_, publication))| (name, publication));
        let of_manifests = of_manifests.filter(|(name, _)| !published.wanted.contains_key(*name));
        for (name, publication) in asked.chain(of_manifests) {
            let doors = match publication.doors(&known) {
                Ok(doors) => doors,
                Err(problem) => {
                    published.problems.insert(name.clone(), problem);
                    continue;
                }
            };
            for door in doors {
                let (first, by) = claimed.entry((door.carried, door.at)).or_insert((door, name.as_str()));
                if *first == door {
                    published.doors.entry(name.clone()).or_default().push(door);
                } else {
                    let problem = format!("{} is in use: {by} leads to {}", door.at, first.to);
                    published.problems.insert(name.clone(), problem);
                }
            }
        }
        let all: BTreeSet<Door> = published.doors.values().flatten().copied().collect();
        let stands =
            published.open.as_ref().is_some_and(|(of, open)| Arc::ptr_eq(of, &cluster) && *open == all);
        // Those that were refused are tried again.
        if stands && published.refused.is_empty() {
            return Ok(());
        }
        let refused = self.runtime().set_doors(&all)?;
        published.open = Some((cluster, all));
        let asked = published.doors.clone();
        for doors in published.doors.values_mut() {
            doors.retain(|door| !refused.iter().any(|(other, _)| other == door));
        }
        let missed: Vec<(Door, Refusal)> =
            refused.into_iter().filter(|refused| !is_spared(published, refused)).collect();
        self.tell_refused(published, &asked, &missed);
        published.refused = missed.into_iter().map(|(door, _)| door).collect();
        Ok(())
    }

    /// Has it known which doors cannot be opened: by whom they are wanted, and, of those that manifests want, as an event.
    fn tell_refused(
        &self,
        published: &mut Published,
        asked: &BTreeMap<String, Vec<Door>>,
        refused: &[(Door, Refusal)],
    ) {
        for (door, refusal) in refused {
            let of = asked.iter().filter(|(_, doors)| doors.contains(door));
            for (name, _) in of {
                let problem = format!("{}: {}", door.at, why(door, *refusal));
                if !published.wanted.contains_key(name) && !published.refused.contains(door) {
                    self.runtime().tell(UNDERLAY, format!("{name} is not published at {problem}"));
                }
                published.problems.insert(name.clone(), problem);
            }
        }
    }

    /// The endpoints of a Service's port that take connections.
    fn ready(&self, name: &str, protocol: Protocol, port: u16) -> Vec<Ready> {
        self.services(|controller| {
            let Some((_, served)) = controller.service(name) else { return Vec::new() };
            let served = served.iter().filter(|one| (one.port.protocol, one.port.port) == (protocol, port));
            let ready = served.flat_map(|one| one.endpoints).filter(|endpoint| endpoint.condition.ready);
            ready.map(|one| (SocketAddr::new(one.address, one.port), one.node.clone())).collect()
        })
    }
}

/// Whether nobody misses a door: the loopback of a family that this machine has not, where the other family's is open.
fn is_spared(published: &Published, (door, refusal): &(Door, Refusal)) -> bool {
    let stands_in = |other: &Door| {
        let other_family = other.at.is_ipv4() != door.at.is_ipv4() && other.at.ip().is_loopback();
        other_family && (other.carried, other.at.port()) == (door.carried, door.at.port())
    };
    let none = *refusal == Refusal::NoRoute && door.at.ip().is_loopback();
    none && published.doors.values().flatten().any(stands_in)
}

/// Why a door cannot be opened, and what helps.
fn why(door: &Door, refusal: Refusal) -> String {
    match refusal {
        Refusal::Prohibited if door.at.port() < 1024 => format!(
            "{refusal}: ports below 1024 are for root, unless the machine's net.ipv4.ip_unprivileged_port_start is lower"
        ),
        Refusal::Prohibited
        | Refusal::Refused
        | Refusal::Reset
        | Refusal::TimedOut
        | Refusal::NoRoute
        | Refusal::Unreachable
        | Refusal::TooLong
        | Refusal::NoSockets
        | Refusal::InUse
        | Refusal::Unsupported => refusal.to_string(),
    }
}

fn views(published: &Published) -> Vec<PublishedView> {
    let view = |(name, source): (&String, Source)| PublishedView {
        name: name.clone(),
        by: source.name().to_owned(),
        doors: published.doors.get(name).into_iter().flatten().map(door_view).collect(),
        problem: published.problems.get(name).cloned(),
    };
    let asked = published.wanted.keys().map(|name| (name, Source::Asked));
    let of_manifests = published.standing.iter().map(|(name, (source, _))| (name, *source));
    asked.chain(of_manifests.filter(|(name, _)| !published.wanted.contains_key(*name))).map(view).collect()
}

fn door_view(door: &Door) -> DoorView {
    DoorView { protocol: word(door.carried).to_uppercase(), at: door.at.to_string(), to: door.to.to_string() }
}
