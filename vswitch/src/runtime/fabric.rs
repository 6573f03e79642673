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
//! changed is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netstack::addr::{IpNet, PortId};
use netstack::config::{Limits, Snapshot};
use netstack::device::Device;
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::device::tap::{self, Tap};
use netstack::driver::{Driver, EngineId};
use netstack::frame::{FramePool, OffloadFeatures};
use netstack::switch::Switch;
use sha2::{Digest as _, Sha256};

use super::station::Station;
use super::{LINK_BATCHES, Placed, Runtime, RuntimeError};
use crate::cluster::{Cluster, Endpoint, Place, PortNumbers, SwitchPlan, Wiring, wire};
use crate::helper::{Created, Helper, Namespace, NamespaceSpec, Offload};

/// A cluster that stands.
#[derive(Clone, Debug)]
pub(super) struct Fabric {
    pub(super) cluster: Arc<Cluster>,
    pub(super) wiring: Arc<Wiring>,
    pub(super) switches: BTreeMap<String, EngineId>,
    pub(super) places: BTreeMap<Place, Arc<Placed>>,
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

/// How the end stations of two wirings differ.
#[derive(Debug, Default)]
struct Difference {
    new: Vec<Endpoint>,
    moved: Vec<Endpoint>,
    gone: Vec<Arc<Placed>>,
}

impl Difference {
    fn between(now: &Fabric, wiring: &Wiring, ended: &BTreeSet<Place>) -> Self {
        let mut difference = Self::default();
        let mut stay = BTreeSet::new();
        for endpoint in &wiring.endpoints {
            let standing = now.places.get(&endpoint.place);
            let kept = standing.filter(|p| p.keeps(endpoint) && !ended.contains(&endpoint.place));
            match kept {
                None => difference.new.push(endpoint.clone()),
                Some(placed) => {
                    stay.insert(&endpoint.place);
                    if placed.endpoint.attachment != endpoint.attachment {
                        difference.moved.push(endpoint.clone());
                    }
                }
            }
        }
        let gone = now.places.iter().filter(|(place, _)| !stay.contains(place));
        difference.gone = gone.map(|(_, placed)| Arc::clone(placed)).collect();
        difference
    }
}

impl Placed {
    /// Whether a station like this serves as `wanted`, perhaps in another place.
    fn keeps(&self, wanted: &Endpoint) -> bool {
        let moved = self.endpoint.attachment != wanted.attachment;
        // An in-process station has its link inside; it is made anew where it moves.
        !(moved && self.station.is_some())
            && Endpoint { attachment: wanted.attachment.clone(), ..self.endpoint.clone() } == *wanted
    }
}

/// An end station that has been made and is to be plugged in.
struct Made {
    endpoint: Endpoint,
    namespace: Option<Namespace>,
    plug: Plug,
}

enum Plug {
    Tap(Tap),
    Station(Box<Station>, MemoryDevice, MemoryDevice),
}

impl Plug {
    fn offload(&self) -> OffloadFeatures {
        match self {
            Self::Tap(tap) => tap.offload(),
            Self::Station(..) => OffloadFeatures::NONE,
        }
    }
}

/// One link between switches: each end's switch, port and device.
type Link = [(String, PortId, MemoryDevice); 2];

impl Runtime {
    /// Makes the running cluster `cluster`. Name, MTU and the underlay's segments of a cluster that stands cannot change.
    /// `farewell` is called with the end stations that are about to go, while they are all still there.
    ///
    /// # Errors
    /// What was refused; nothing has changed then, but for end stations that were to be made anew: they may be gone
    /// already, because the new ones have their names. The next change makes them.
    pub fn apply(&self, cluster: Cluster, farewell: impl Fn(&[Place])) -> Result<Applied, RuntimeError> {
        let _one_at_a_time = self.changing.lock();
        let now = self.fabric.read().clone();
        check_frame(&now.cluster, &cluster)?;
        let mut numbers = now.numbers.clone();
        let mut wiring = wire(&cluster, &mut numbers);
        compile(&wiring.switches)?;
        let ended = self.log.lock().ended.clone();
        let mut difference = Difference::between(&now, &wiring, &ended);
        let mut applied = Applied::default();
        // A station made anew has the names of the old one, so that one goes first. It has ended, or its addresses are
        // taken away: nothing of it would have stayed.
        let (replaced, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut difference.gone)
            .into_iter()
            .partition(|p| difference.new.iter().any(|e| e.place == p.endpoint.place));
        difference.gone = gone;
        let leaving = replaced.iter().chain(&difference.gone);
        let leaving: Vec<Place> = leaving.map(|p| p.endpoint.place.clone()).collect();
        if !leaving.is_empty() {
            farewell(&leaving);
        }
        self.take_out(&now, &replaced, &mut applied)?;
        let made = self.make(&cluster, &difference.new)?;
        let links = links(&now, &wiring)?;
        set_offloads(&mut wiring, &now, &made);
        let snapshots = compile(&wiring.switches)?;
        applied.made = difference.new.iter().map(|e| e.place.clone()).collect();
        applied.moved = difference.moved.iter().map(|e| e.place.clone()).collect();
        let (switches, places) = self.rewire(&now, snapshots, links, &difference, made, &mut applied)?;
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
        *self.fabric.write() =
            Fabric { cluster: Arc::new(cluster), wiring: Arc::new(wiring), switches, places, numbers };
        Ok(applied)
    }

    /// Makes end stations; if one cannot be made, none is left.
    fn make(&self, cluster: &Cluster, endpoints: &[Endpoint]) -> Result<Vec<Made>, RuntimeError> {
        let mut made = Vec::with_capacity(endpoints.len());
        let mut helper = self.helper.lock();
        for endpoint in endpoints {
            let result = match helper.as_mut() {
                Some(helper) if self.in_namespaces => self.make_namespace(helper, cluster, endpoint),
                None if self.in_namespaces => Err(RuntimeError::Helper(crate::helper::HelperError::Gone)),
                _ => self.make_station(endpoint),
            };
            match result {
                Ok(one) => made.push(one),
                Err(error) => {
                    for namespace in made.into_iter().filter_map(|one: Made| one.namespace) {
                        // The first error is what the user needs to see; what could not be undone is in the helper's log.
                        let _ = helper.as_mut().map(|helper| helper.delete(&namespace.name));
                    }
                    return Err(error);
                }
            }
        }
        Ok(made)
    }

    fn make_namespace(
        &self,
        helper: &mut Helper,
        cluster: &Cluster,
        endpoint: &Endpoint,
    ) -> Result<Made, RuntimeError> {
        let offload = self.offload && !self.plain.contains(&endpoint.place);
        let spec = spec(cluster, endpoint, offload);
        let created = match self.found.lock().remove(&spec.name) {
            Some(namespace) if namespace.alive && namespace.tag == spec.tag => {
                Created { tap: helper.tap(&spec.name)?, namespace }
            }
            Some(_) => {
                helper.delete(&spec.name)?;
                helper.create(&spec)?
            }
            None => helper.create(&spec)?,
        };
        let mode = if created.namespace.vnet_hdr { tap::Mode::Offload } else { tap::Mode::Plain };
        let tap = Tap::from_fd(created.tap, mode, usize::from(endpoint.mtu))
            .map_err(|source| RuntimeError::Tap { place: endpoint.place.clone(), source })?;
        Ok(Made { endpoint: endpoint.clone(), namespace: Some(created.namespace), plug: Plug::Tap(tap) })
    }

    fn make_station(&self, endpoint: &Endpoint) -> Result<Made, RuntimeError> {
        let options = MemoryOptions { mtu: usize::from(endpoint.mtu), offload: OffloadFeatures::NONE };
        let (near, far) = memory::pair(LINK_BATCHES, options)?;
        let station = Station::new(endpoint, &self.seed)
            .map_err(|reason| RuntimeError::Station { place: endpoint.place.clone(), reason })?;
        let plug = Plug::Station(Box::new(station), near, far);
        Ok(Made { endpoint: endpoint.clone(), namespace: None, plug })
    }

    /// The visit to the data path.
    fn rewire(
        &self,
        now: &Fabric,
        snapshots: Vec<(String, Arc<Snapshot>)>,
        links: Vec<Link>,
        difference: &Difference,
        made: Vec<Made>,
        applied: &mut Applied,
    ) -> Result<Rewired, RuntimeError> {
        let depot = Arc::clone(&self.depot);
        let seed = self.seed;
        let mut switches = now.switches.clone();
        let mut places = now.places.clone();
        let new: Vec<String> =
            snapshots.iter().map(|(n, _)| n.clone()).filter(|n| !switches.contains_key(n)).collect();
        let gone: Vec<(String, EngineId)> = now
            .switches
            .iter()
            .filter(|(name, _)| !snapshots.iter().any(|(kept, _)| kept == *name))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        let moved = difference.moved.clone();
        let (switches, places, problems) = self.handle.call(move |driver| {
            let mut problems = Vec::new();
            for name in new {
                let switch = Switch::new(Limits::default(), &seed, FramePool::with_depot(Arc::clone(&depot)));
                switches.insert(name, driver.add_engine(Box::new(switch)));
            }
            for (name, snapshot) in snapshots {
                if let Some(switch) = driver.engine_mut::<Switch>(switches[&name]) {
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

fn compile(plans: &[SwitchPlan]) -> Result<Vec<(String, Arc<Snapshot>)>, RuntimeError> {
    let compiled = plans.iter().map(|plan| {
        let snapshot = Snapshot::compile(plan.config.clone(), None)
            .map_err(|source| RuntimeError::Config { switch: plan.name.clone(), source })?;
        Ok((plan.name.clone(), snapshot))
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

fn attach(
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
    let (device, station): (Box<dyn Device>, Option<EngineId>) = match plug {
        Plug::Tap(tap) => (Box::new(tap), None),
        Plug::Station(station, near, far) => {
            let id = driver.add_engine(station);
            attach(driver, id, PortId(0), Box::new(far), problems);
            (Box::new(near), Some(id))
        }
    };
    attach(driver, switches[&endpoint.attachment.switch], endpoint.attachment.port, device, problems);
    let place = endpoint.place.clone();
    places.insert(place, Arc::new(Placed { endpoint, namespace, station, offload }));
}

fn spec(cluster: &Cluster, endpoint: &Endpoint, offload: bool) -> NamespaceSpec {
    let mut spec = NamespaceSpec::new(endpoint.place.netns(&cluster.name), endpoint.mac);
    spec.hostname = Some(endpoint.hostname.clone());
    spec.addresses.clone_from(&endpoint.addresses);
    spec.gateway_v4 = endpoint.gateway_v4;
    spec.gateway_v6 = endpoint.gateway_v6;
    spec.mtu = endpoint.mtu;
    spec.offload = if offload { Offload::Auto } else { Offload::Off };
    spec.existing.clone_from(&endpoint.existing);
    // By what it was made of a namespace is known again.
    let made_of = serde_json::to_vec(&spec).unwrap_or_default();
    spec.tag = Sha256::digest(made_of).iter().take(16).map(|octet| format!("{octet:02x}")).collect();
    spec
}
