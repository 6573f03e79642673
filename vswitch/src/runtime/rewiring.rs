//! The visits to the data path that make one wiring another.
//!
//! # Theory of operation
//! Each thread is visited between two batches: its switches get their new configurations, links between them are plugged in,
//! and end stations that move go from port to port. What has to wait for other threads is done in a second visit: who is new,
//! or comes from another thread, is plugged in, since by then all switches know who he is and who may talk to him; and
//! switches that nobody wants any more are removed, since none that stays has a port to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use netstack::addr::PortId;
use netstack::device::Device;
use netstack::device::memory::MemoryDevice;
use netstack::driver::{Driver, EngineId};
use netstack::frame::{Depot, FramePool};
use netstack::seed::Seed;
use netstack::switch::Switch;

use super::difference::Difference;
use super::fabric::{Applied, Compiled, Fabric, Link};
use super::making::{Made, Plug};
use super::paths::{EngineAt, Switches, spread};
use super::{Placed, Runtime, RuntimeError};
use crate::cluster::{Endpoint, Place};

/// Switches and places after a change.
pub(super) type Rewired = (Switches, BTreeMap<Place, Arc<Placed>>);

/// What is to be done on one thread.
struct Visit {
    depot: Arc<Depot>,
    seed: Seed,
    /// Those that are there, and once it is done the new ones as well.
    switches: BTreeMap<String, EngineId>,
    compiled: Vec<Compiled>,
    links: Vec<(String, PortId, MemoryDevice)>,
    moved: Vec<Move>,
    /// Who is plugged in in the second visit.
    made: Vec<Made>,
    /// Who has moved here.
    placed: Vec<Placed>,
    /// Who left for a switch on another thread.
    away: Vec<(Placed, Box<dyn Device>)>,
    problems: Vec<String>,
}

/// An end station that goes elsewhere with all it has.
struct Move {
    from: (EngineId, PortId),
    to: Placed,
}

/// What is to be done on one thread after all others have been visited.
#[derive(Default)]
struct Return {
    thread: usize,
    arriving: Vec<(EngineId, PortId, Box<dyn Device>)>,
    made: Vec<(EngineId, Made)>,
    gone: Vec<EngineId>,
    /// Who is plugged in when it is done.
    placed: Vec<Placed>,
    problems: Vec<String>,
}

impl Runtime {
    /// Visits the data path; what cannot be done is among the problems.
    pub(super) fn rewire(
        &self,
        now: &Fabric,
        compiled: Vec<Compiled>,
        links: Vec<Link>,
        difference: &Difference,
        made: Vec<Made>,
        applied: &mut Applied,
    ) -> Result<Rewired, RuntimeError> {
        let mut places = now.places.clone();
        let leaving = difference.replaced.iter().chain(&difference.gone);
        leaving.for_each(|placed| drop(places.remove(&placed.endpoint.place)));
        let mut balance = self.balance.lock();
        let compiled = compiled.into_iter().map(|one| one.balancing(&mut balance));
        let compiled = compiled.collect::<Result<Vec<Compiled>, RuntimeError>>()?;
        let visits = self.plan(now, compiled, links, &difference.moved, made);
        let (mut switches, mut away, mut made) = (Switches::new(), Vec::new(), Vec::new());
        for (thread, visit) in visits.into_iter().enumerate() {
            let visit = self.paths.call(thread, move |driver| visit.run(driver))?;
            switches.extend(visit.switches.into_iter().map(|(name, id)| (name, EngineAt { thread, id })));
            places.extend(visit.placed.into_iter().map(|p| (p.endpoint.place.clone(), Arc::new(p))));
            applied.problems.extend(visit.problems);
            away.extend(visit.away);
            made.extend(visit.made);
        }
        let mut returns: BTreeMap<usize, Return> = BTreeMap::new();
        for one in made {
            let home = switches[&one.endpoint.attachment.switch];
            returns.entry(home.thread).or_default().made.push((home.id, one));
        }
        for (placed, device) in away {
            let Some(home) = switches.get(&placed.endpoint.attachment.switch) else { continue };
            let port = placed.endpoint.attachment.port;
            returns.entry(home.thread).or_default().arriving.push((home.id, port, device));
            places.insert(placed.endpoint.place.clone(), Arc::new(placed));
        }
        for gone in now.switches.iter().filter(|(name, _)| !switches.contains_key(*name)).map(|(_, at)| at) {
            returns.entry(gone.thread).or_default().gone.push(gone.id);
        }
        for (thread, rest) in returns {
            let rest = Return { thread, ..rest };
            let rest = self.paths.call(thread, move |driver| rest.run(driver))?;
            places.extend(rest.placed.into_iter().map(|p| (p.endpoint.place.clone(), Arc::new(p))));
            applied.problems.extend(rest.problems);
        }
        balance.retain(|switch| switches.contains_key(switch));
        Ok((switches, places))
    }

    /// What there is to do, by thread.
    fn plan(
        &self,
        now: &Fabric,
        compiled: Vec<Compiled>,
        links: Vec<Link>,
        moved: &[Endpoint],
        made: Vec<Made>,
    ) -> Vec<Visit> {
        let wanted: Vec<String> = compiled.iter().map(|one| one.switch.clone()).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let homes = spread(&wanted, |name| now.switches.get(name).map(|at| at.thread), self.paths.count());
        let standing = |thread| {
            let stays =
                |(name, at): &(&String, &EngineAt)| at.thread == thread && homes.contains_key(name.as_str());
            now.switches.iter().filter(stays).map(|(name, at)| (name.clone(), at.id)).collect()
        };
        let visit = |thread| Visit {
            depot: Arc::clone(&self.depot),
            seed: self.seed,
            switches: standing(thread),
            compiled: Vec::new(),
            links: Vec::new(),
            moved: Vec::new(),
            made: Vec::new(),
            placed: Vec::new(),
            away: Vec::new(),
            problems: Vec::new(),
        };
        let mut visits: Vec<Visit> = (0..self.paths.count()).map(visit).collect();
        for one in compiled {
            visits[homes[&*one.switch]].compiled.push(one);
        }
        for end in links.into_iter().flatten() {
            visits[homes[&*end.0]].links.push(end);
        }
        for endpoint in moved {
            let Some(placed) = now.places.get(&endpoint.place) else { continue };
            let old = &placed.endpoint.attachment;
            let Some(at) = now.switches.get(&old.switch) else { continue };
            let (namespace, offload) = (placed.namespace.clone(), placed.offload);
            let to = Placed { endpoint: endpoint.clone(), namespace, station: None, offload };
            visits[at.thread].moved.push(Move { from: (at.id, old.port), to });
        }
        for one in made {
            visits[homes[&*one.endpoint.attachment.switch]].made.push(one);
        }
        visits
    }
}

impl Visit {
    /// Does it.
    fn run(mut self, driver: &mut Driver) -> Self {
        for Compiled { switch, limits, snapshot } in std::mem::take(&mut self.compiled) {
            let id = *self.switches.entry(switch).or_insert_with(|| {
                let pool = FramePool::with_depot(Arc::clone(&self.depot));
                driver.add_engine(Box::new(Switch::new(limits, &self.seed, pool)))
            });
            if let Some(switch) = driver.engine_mut::<Switch>(id) {
                drop(switch.install(snapshot));
            }
        }
        for (switch, port, device) in std::mem::take(&mut self.links) {
            attach(driver, self.switches[&switch], port, Box::new(device), &mut self.problems);
        }
        for Move { from: (switch, port), to } in std::mem::take(&mut self.moved) {
            let Some(device) = driver.detach(switch, port) else { continue };
            match self.switches.get(&to.endpoint.attachment.switch) {
                Some(switch) => {
                    attach(driver, *switch, to.endpoint.attachment.port, device, &mut self.problems);
                    self.placed.push(to);
                }
                None => self.away.push((to, device)),
            }
        }
        self
    }
}

impl Return {
    fn run(mut self, driver: &mut Driver) -> Self {
        for (switch, port, device) in std::mem::take(&mut self.arriving) {
            attach(driver, switch, port, device, &mut self.problems);
        }
        for (switch, one) in std::mem::take(&mut self.made) {
            self.plug_in(driver, switch, one);
        }
        for switch in std::mem::take(&mut self.gone) {
            drop(driver.remove_engine(switch));
        }
        self
    }

    fn plug_in(&mut self, driver: &mut Driver, switch: EngineId, made: Made) {
        let Made { endpoint, namespace, plug } = made;
        let offload = plug.offload();
        let (device, station): (Option<Box<dyn Device>>, Option<EngineAt>) = match plug {
            Plug::Shared => (None, None),
            Plug::Tap(tap) => (Some(Box::new(tap)), None),
            Plug::Station(station, near, far) => {
                let id = driver.add_engine(station);
                attach(driver, id, PortId(0), Box::new(far), &mut self.problems);
                (Some(Box::new(near)), Some(EngineAt { thread: self.thread, id }))
            }
        };
        if let Some(device) = device {
            attach(driver, switch, endpoint.attachment.port, device, &mut self.problems);
        }
        self.placed.push(Placed { endpoint, namespace, station, offload });
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
