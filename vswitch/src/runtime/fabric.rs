//! What stands now, and making it another cluster while it runs.
//!
//! # Theory of operation
//! A change is computed first: the wiring of the new cluster, with every port that stays keeping its number, against the
//! one that stands. Everything that can be refused is tried before anything is touched: configurations are compiled, new
//! namespaces made (and removed again if one cannot be). Then, in one visit to the data path, each switch gets its new
//! configuration and devices are plugged in, moved or taken out; whoever stays does not notice. Last, namespaces that
//! nobody wants any more are removed.
//!
//! An end station that only moved keeps its namespace, its TAP and so its connections. One whose addresses or links
//! changed is made anew, beside the one that stands, whose name it gets once that is gone. Only where both have their
//! interface in one namespace of somebody else must the old one go first; that the new one could not be made is then a
//! problem that is told, and the next change tries it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use netstack::addr::{IpNet, PortId};
use netstack::config::{Limits, Snapshot};
use netstack::device::Device;
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::driver::{Driver, EngineId};
use netstack::frame::{FramePool, OffloadFeatures};
use netstack::switch::Switch;

use super::balance::Balance;
use super::difference::Difference;
use super::making::{Made, Plug};
use super::proxies::Proxies;
use super::{LINK_BATCHES, Placed, Runtime, RuntimeError};
use crate::cluster::{Cluster, Endpoint, Place, PortNumbers, SwitchPlan, Wiring, wire};

/// A cluster that stands.
#[derive(Clone, Debug)]
pub(super) struct Fabric {
    pub(super) cluster: Arc<Cluster>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) switches: BTreeMap<String, EngineId>,
    pub(super) places: BTreeMap<Place, Arc<Placed>>,
    pub(super) proxies: Proxies,
    numbers: PortNumbers,
}

impl Fabric {
    /// A cluster of nothing, for [`Runtime::apply`] to change.
    pub(super) fn empty(name: &str) -> Self {
        let cluster = Cluster { name: name.to_owned(), ..Cluster::default() };
        Self {
            cluster: Arc::new(cluster),
            wiring: Arc::default(),
            switches: BTreeMap::new(),
            places: BTreeMap::new(),
            proxies: Proxies::default(),
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
type Link = [(String, PortId, MemoryDevice); 2];

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
        compile(&wiring.switches)?;
        let ended = self.log.lock().ended.clone();
        let difference = Difference::between(&now, &wiring, &ended);
        let mut made = self.make(&cluster, &difference)?;
        let ready = links(&now, &wiring).and_then(|links| {
            set_offloads(&mut wiring, &now, &made);
            let proxies = now.proxies.change(&cluster, &wiring.proxies, &self.seed)?;
            Ok((links, proxies, compile(&wiring.switches)?))
        });
        let (links, proxies, compiled) = ready.inspect_err(|_| self.unmake(&made))?;
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
        let (switches, places) = self.rewire(&now, compiled, links, &difference, made, &mut applied)?;
        let proxies = self.change_proxies(proxies, &switches, &mut applied)?;
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
            numbers,
        };
        Ok(applied)
    }

    /// The visit to the data path.
    fn rewire(
        &self,
        now: &Fabric,
        compiled: Vec<Compiled>,
        links: Vec<Link>,
        difference: &Difference,
        made: Vec<Made>,
        applied: &mut Applied,
    ) -> Result<Rewired, RuntimeError> {
        let depot = Arc::clone(&self.depot);
        let seed = self.seed;
        let mut switches = now.switches.clone();
        let mut places = now.places.clone();
        places.retain(|place, _| !difference.replaced.iter().any(|p| p.endpoint.place == *place));
        let gone: Vec<(String, EngineId)> = now
            .switches
            .iter()
            .filter(|(name, _)| !compiled.iter().any(|kept| kept.switch == **name))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        let moved = difference.moved.clone();
        let mut balance = self.balance.lock();
        let compiled = compiled.into_iter().map(|one| one.balancing(&mut balance));
        let compiled = compiled.collect::<Result<Vec<Compiled>, RuntimeError>>()?;
        let (switches, places, problems) = self.handle.call(move |driver| {
            let mut problems = Vec::new();
            for Compiled { switch: name, limits, snapshot } in compiled {
                let id = *switches.entry(name).or_insert_with(|| {
                    let pool = FramePool::with_depot(Arc::clone(&depot));
                    driver.add_engine(Box::new(Switch::new(limits, &seed, pool)))
                });
                if let Some(switch) = driver.engine_mut::<Switch>(id) {
                    drop(switch.install(snapshot));
                }
            }
            for end in links.into_iter().flatten() {
                let (switch, port, device) = end;
                attach(driver, switches[&switch], port, Box::new(device), &mut problems);
            }
            for endpoint in moved {
                move_station(driver, &switches, &mut places, endpoint, &mut problems);
            }
            for one in made {
                plug_in(driver, &switches, &mut places, one, &mut problems);
            }
            for (name, id) in gone {
                drop(driver.remove_engine(id));
                switches.remove(&name);
            }
            (switches, places, problems)
        })?;
        balance.retain(|switch| switches.contains_key(switch));
        applied.problems.extend(problems);
        let mut places = places;
        for placed in &difference.gone {
            places.remove(&placed.endpoint.place);
        }
        Ok((switches, places))
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
        let attached: Vec<(EngineId, PortId, Option<EngineId>)> = gone
            .iter()
            .filter(|p| p.endpoint.shares.is_none())
            .filter_map(|p| {
                let engine = now.switches.get(&p.endpoint.attachment.switch)?;
                Some((*engine, p.endpoint.attachment.port, p.station))
            })
            .collect();
        self.handle.call(move |driver| {
            for (engine, port, station) in attached {
                drop(driver.detach(engine, port));
                drop(station.and_then(|station| driver.remove_engine(station)));
            }
        })?;
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

/// Switches and places after a change.
type Rewired = (BTreeMap<String, EngineId>, BTreeMap<Place, Arc<Placed>>);

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
struct Compiled {
    switch: String,
    limits: Limits,
    snapshot: Arc<Snapshot>,
}

impl Compiled {
    /// With what the switch balances.
    fn balancing(mut self, balance: &mut Balance) -> Result<Self, RuntimeError> {
        let config = |source| RuntimeError::Config { switch: self.switch.clone(), source };
        self.snapshot = balance.complete(&self.switch, self.snapshot).map_err(config)?;
        Ok(self)
    }
}

fn compile(plans: &[SwitchPlan]) -> Result<Vec<Compiled>, RuntimeError> {
    let compiled = plans.iter().map(|plan| {
        let snapshot = Snapshot::compile(plan.config.clone(), None)
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

pub(super) fn attach(
    driver: &mut Driver,
    switch: EngineId,
    port: PortId,
    device: Box<dyn Device>,
    problems: &mut Vec<String>,
) {
    if let Err(error) = driver.attach(switch, port, device) {
        problems.push(format!("a device could not be plugged in: {error}"));
    }
}

fn move_station(
    driver: &mut Driver,
    switches: &BTreeMap<String, EngineId>,
    places: &mut BTreeMap<Place, Arc<Placed>>,
    endpoint: Endpoint,
    problems: &mut Vec<String>,
) {
    let Some(placed) = places.get(&endpoint.place) else { return };
    let old = &placed.endpoint.attachment;
    let device = switches.get(&old.switch).and_then(|switch| driver.detach(*switch, old.port));
    let Some(device) = device else { return };
    attach(driver, switches[&endpoint.attachment.switch], endpoint.attachment.port, device, problems);
    let moved =
        Placed { endpoint, namespace: placed.namespace.clone(), station: None, offload: placed.offload };
    places.insert(moved.endpoint.place.clone(), Arc::new(moved));
}

fn plug_in(
    driver: &mut Driver,
    switches: &BTreeMap<String, EngineId>,
    places: &mut BTreeMap<Place, Arc<Placed>>,
    made: Made,
    problems: &mut Vec<String>,
) {
    let Made { endpoint, namespace, plug } = made;
    let offload = plug.offload();
    let (device, station): (Option<Box<dyn Device>>, Option<EngineId>) = match plug {
        Plug::Shared => (None, None),
        Plug::Tap(tap) => (Some(Box::new(tap)), None),
        Plug::Station(station, near, far) => {
            let id = driver.add_engine(station);
            attach(driver, id, PortId(0), Box::new(far), problems);
            (Some(Box::new(near)), Some(id))
        }
    };
    if let Some(device) = device {
        attach(driver, switches[&endpoint.attachment.switch], endpoint.attachment.port, device, problems);
    }
    let place = endpoint.place.clone();
    places.insert(place, Arc::new(Placed { endpoint, namespace, station, offload }));
}
