//! What stands now, and making it another cluster while it runs.
//!
//! # Theory of operation
//! A change is computed first: the wiring of the new cluster, with every port that stays keeping its number, against the
//! one that stands. Everything that can be refused is tried before anything is touched: configurations are compiled, new
//! namespaces made (and removed again if one cannot be). Then the data path is visited: each switch gets its new
//! configuration and devices are plugged in, moved or taken out; whoever stays does not notice. Last, namespaces that
//! nobody wants any more are removed.
//!
//! On one thread no frame passes during that visit. Several threads are visited one after the other, and frames pass on the
//! others meanwhile: for as long as the visits take a switch of one may know a route, a pod or a node that a switch of
//! another does not. Such frames are dropped and counted, or go in a circle until their TTL ends them, as in any network whose
//! routers learn one by one; they concern only who is new, moves or goes. An end station that moves from thread to
//! thread is plugged in nowhere for a moment: what it sends waits in its device, what is sent to it is lost.
//!
//! An end station that only moved keeps its namespace, its TAP and so its connections. One whose addresses or links
//! changed is made anew, beside the one that stands, whose name it gets once that is gone. Only where both have their
//! interface in one namespace of somebody else must the old one go first; that the new one could not be made is then a
//! problem that is told, and the next change tries it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use netstack::addr::{IpNet, PortId};
use netstack::config::{Limits, Snapshot};
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::frame::OffloadFeatures;

use super::balance::Balance;
use super::difference::Difference;
use super::egress;
use super::making::Made;
use super::name_servers::NameServers;
use super::paths::{Switches, by_thread};
use super::proxies::Proxies;
use super::{LINK_BATCHES, Placed, Runtime, RuntimeError};
use crate::cluster::{Cluster, Endpoint, Place, PortNumbers, SwitchPlan, Wiring, wire};

/// A cluster that stands.
#[derive(Clone, Debug)]
pub(super) struct Fabric {
    pub(super) cluster: Arc<Cluster>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) switches: Switches,
    pub(super) places: BTreeMap<Place, Arc<Placed>>,
    pub(super) proxies: Proxies,
    pub(super) name_servers: NameServers,
    pub(super) egress: Option<egress::Running>,
    numbers: PortNumbers,
}

impl Fabric {
    /// A cluster of nothing, for [`Runtime::apply`] to change.
    pub(super) fn empty(name: &str) -> Self {
        let cluster = Cluster { name: name.to_owned(), ..Cluster::default() };
        Self {
            cluster: Arc::new(cluster),
            wiring: Arc::default(),
            switches: Switches::new(),
            places: BTreeMap::new(),
            proxies: Proxies::default(),
            name_servers: NameServers::default(),
            egress: None,
            numbers: PortNumbers::default(),
        }
    }
}

/// What a change did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// End stations that are new, or were made anew.
    pub made: Vec<Place>,
    /// End stations that went to another switch with all they have.
    pub moved: Vec<Place>,
    /// End stations that are gone, or were made anew.
    pub removed: Vec<Place>,
    /// What could not be done or undone, in sentences.
    pub problems: Vec<String>,
}

/// One link between switches: each end's switch, port and device.
pub(super) type Link = [(String, PortId, MemoryDevice); 2];

impl Runtime {
    /// Makes the running cluster `cluster`. Name, MTU and the underlay's segments of a cluster that stands cannot change.
    /// `farewell` is called with the end stations that are about to go, while they are all still there.
    ///
    /// # Errors
    /// What was refused; nothing has changed then.
    pub fn apply(&self, cluster: Cluster, farewell: impl Fn(&[Place])) -> Result<Applied, RuntimeError> {
        let _one_at_a_time = self.changing.lock();
        let now = self.fabric.read().clone();
        check_frame(&now.cluster, &cluster)?;
        let mut numbers = now.numbers.clone();
        let mut wiring = wire(&cluster, &mut numbers);
        compile(&wiring.switches, |_| None)?;
        let ended = self.log.lock().ended.clone();
        let difference = Difference::between(&now, &wiring, &ended);
        let mut made = self.make(&cluster, &difference)?;
        let ready = links(&now, &wiring).and_then(|links| {
            set_offloads(&mut wiring, &now, &made);
            let proxies = now.proxies.change(&cluster, &wiring.proxies, &self.seed)?;
            let servers = now.name_servers.change(&wiring.name_servers, &self.seed)?;
            let egress = self.change_of_egress(now.egress.as_ref(), wiring.egress.as_ref())?;
            let balance = self.balance.lock();
            let compiled = compile(&wiring.switches, |switch| balance.snapshot(switch))?;
            Ok((links, (proxies, servers, egress), compiled))
        });
        let (links, (proxies, servers, egress), compiled) = ready.inspect_err(|_| self.unmake(&made))?;
        let leaving = difference.replaced.iter().chain(&difference.gone);
        let leaving: Vec<Place> = leaving.map(|p| p.endpoint.place.clone()).collect();
        if !leaving.is_empty() {
            farewell(&leaving);
        }
        let mut applied = Applied::default();
        self.take_out(&now, &difference.replaced, &mut applied).inspect_err(|_| self.unmake(&made))?;
        self.succeed(&cluster, &difference, &mut made, &mut applied);
        applied.made = made.iter().map(|one| one.endpoint.place.clone()).collect();
        applied.moved = difference.moved.iter().map(|e| e.place.clone()).collect();
        self.balance.lock().policies.update(&cluster);
        let (switches, places) = self.rewire(&now, compiled, links, &difference, made, &mut applied)?;
        let proxies = self.change_proxies(proxies, &switches, &mut applied)?;
        let name_servers = self.change_name_servers(servers, &switches, &mut applied)?;
        let egress = self.change_egress(egress, &switches, &mut applied)?;
        self.take_out(&now, &difference.gone, &mut applied)?;
        self.wake_moved(&difference.moved, &places, &mut applied);
        {
            let mut log = self.log.lock();
            for place in &applied.made {
                log.ended.remove(place);
            }
            let stands = |(switch, port): &(String, PortId)| {
                wiring.endpoints.iter().any(|e| e.attachment.switch == *switch && e.attachment.port == *port)
            };
            log.gone.retain(|key| stands(key) && !applied.made.iter().any(|place| at(&places, place, key)));
        }
        *self.fabric.write() = Fabric {
            cluster: Arc::new(cluster),
            wiring: Arc::new(wiring),
            switches,
            places,
            proxies,
            name_servers,
            egress,
            numbers,
        };
        self.renew_zone()?;
        Ok(applied)
    }

    /// End stations that moved find none of their neighbours where they were.
    fn wake_moved(&self, moved: &[Endpoint], places: &BTreeMap<Place, Arc<Placed>>, applied: &mut Applied) {
        let mut helper = self.helper.lock();
        for placed in moved.iter().filter_map(|endpoint| places.get(&endpoint.place)) {
            let (Some(helper), Some(namespace)) = (helper.as_mut(), &placed.namespace) else { continue };
            if let Err(error) = helper.forget_neighbors(&namespace.name) {
                applied.problems.push(format!("{}: {error}", placed.endpoint.place));
            }
        }
    }

    /// Takes end stations out: their device first, then their namespace.
    fn take_out(
        &self,
        now: &Fabric,
        gone: &[Arc<Placed>],
        applied: &mut Applied,
    ) -> Result<(), RuntimeError> {
        if gone.is_empty() {
            return Ok(());
        }
        let attached = gone.iter().filter(|p| p.endpoint.shares.is_none()).filter_map(|p| {
            let switch = now.switches.get(&p.endpoint.attachment.switch)?;
            Some((switch.thread, (switch.id, p.endpoint.attachment.port, p.station.map(|at| at.id))))
        });
        for (thread, attached) in by_thread(attached) {
            self.paths.call(thread, move |driver| {
                for (engine, port, station) in attached {
                    drop(driver.detach(engine, port));
                    drop(station.and_then(|station| driver.remove_engine(station)));
                }
            })?;
        }
        let mut helper = self.helper.lock();
        for placed in gone {
            applied.removed.push(placed.endpoint.place.clone());
            let (Some(helper), Some(namespace)) = (helper.as_mut(), &placed.namespace) else { continue };
            if self.log.lock().ended.contains(&placed.endpoint.place) {
                continue;
            }
            match helper.delete(&namespace.name) {
                Ok(problems) => applied.problems.extend(problems),
                Err(error) => applied.problems.push(format!("{}: {error}", placed.endpoint.place)),
            }
        }
        Ok(())
    }
}

/// Whether `place` is at this port.
fn at(places: &BTreeMap<Place, Arc<Placed>>, place: &Place, (switch, port): &(String, PortId)) -> bool {
    places
        .get(place)
        .is_some_and(|p| p.endpoint.attachment.switch == *switch && p.endpoint.attachment.port == *port)
}

/// What of the segments cannot change while a cluster stands: all but guards and services.
fn fixed(cluster: &Cluster) -> impl Iterator<Item = (&str, &[IpNet], bool)> {
    cluster.segments.iter().map(|s| (s.name.as_str(), &s.gateways[..], s.external))
}

/// What cannot change while a cluster stands.
fn check_frame(now: &Cluster, wanted: &Cluster) -> Result<(), RuntimeError> {
    if now.nodes.is_empty() {
        return Ok(());
    }
    let what = if now.name != wanted.name {
        "name"
    } else if now.mtu != wanted.mtu {
        "MTU"
    } else if !fixed(now).eq(fixed(wanted)) {
        "segments"
    } else {
        return Ok(());
    };
    Err(RuntimeError::Frame(what))
}

/// A switch that is wanted.
pub(super) struct Compiled {
    pub(super) switch: String,
    pub(super) limits: Limits,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Compiled {
    /// With what the switch balances.
    pub(super) fn balancing(mut self, balance: &mut Balance) -> Result<Self, RuntimeError> {
        let config = |source| RuntimeError::Config { switch: self.switch.clone(), source };
        self.snapshot = balance.complete(&self.switch, self.snapshot).map_err(config)?;
        Ok(self)
    }
}

/// Snapshots that share with those before them what has not changed: what a switch has learned there it keeps.
fn compile<'a>(
    plans: &[SwitchPlan],
    before: impl Fn(&str) -> Option<&'a Snapshot>,
) -> Result<Vec<Compiled>, RuntimeError> {
    let compiled = plans.iter().map(|plan| {
        let snapshot = Snapshot::compile(plan.config.clone(), before(&plan.name))
            .map_err(|source| RuntimeError::Config { switch: plan.name.clone(), source })?;
        Ok(Compiled { switch: plan.name.clone(), limits: plan.limits, snapshot })
    });
    compiled.collect()
}

/// Links of switches that are new.
fn links(now: &Fabric, wiring: &Wiring) -> Result<Vec<Link>, RuntimeError> {
    let mtu = wiring.endpoints.first().map_or(1500, |e| usize::from(e.mtu));
    let mut links = Vec::new();
    for plan in wiring.switches.iter().filter(|plan| !now.switches.contains_key(&plan.name)) {
        for (own, other, theirs) in &plan.links {
            let (near, far) =
                memory::pair(LINK_BATCHES, MemoryOptions { mtu, offload: OffloadFeatures::ALL })?;
            links.push([(plan.name.clone(), *own, near), (other.clone(), *theirs, far)]);
        }
    }
    Ok(links)
}

/// Tells each port what its device takes over.
fn set_offloads(wiring: &mut Wiring, now: &Fabric, made: &[Made]) {
    let new = made.iter().map(|one| (one.endpoint.place.clone(), one.plug.offload()));
    let mut features: BTreeMap<Place, OffloadFeatures> =
        now.places.iter().map(|(place, placed)| (place.clone(), placed.offload)).collect();
    features.extend(new);
    let by_port: BTreeMap<(&str, PortId), OffloadFeatures> = wiring
        .endpoints
        .iter()
        .filter(|e| e.shares.is_none())
        .filter_map(|e| Some(((e.attachment.switch.as_str(), e.attachment.port), *features.get(&e.place)?)))
        .collect();
    for plan in &mut wiring.switches {
        for port in &mut plan.config.ports {
            if let Some(features) = by_port.get(&(plan.name.as_str(), port.id)) {
                port.offload = *features;
            }
        }
    }
}
