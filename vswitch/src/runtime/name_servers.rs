//! The name servers of nodes: engines beside the switches, each on a memory link to its node's.

use std::collections::BTreeMap;
use std::sync::Arc;

use dns::Zone;
use netstack::addr::PortId;
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::driver::{Driver, EngineId};
use netstack::frame::OffloadFeatures;
use netstack::seed::Seed;

use super::fabric::Applied;
use super::paths::{EngineAt, Switches, by_thread};
use super::rewiring::attach;
use super::{LINK_BATCHES, Runtime, RuntimeError};
use crate::cluster::{Attachment, NameServerPlan};
use crate::names::{Forwarding, NameServer, NameServerCounters, Sources};

/// A name server that runs.
#[derive(Clone, Debug)]
struct Running {
    plan: NameServerPlan,
    engine: EngineAt,
}

/// Those that run, by node.
#[derive(Clone, Debug, Default)]
pub(super) struct NameServers(BTreeMap<String, Running>);

/// A name server that is to be plugged in.
struct New {
    plan: NameServerPlan,
    engine: Box<NameServer>,
    near: MemoryDevice,
    far: MemoryDevice,
}

/// What is to be done.
pub(super) struct NameServerChange {
    stay: NameServers,
    gone: Vec<Running>,
    new: Vec<New>,
}

impl NameServers {
    /// How those that run become those that are wanted; nothing is touched yet.
    pub(super) fn change(
        &self,
        wanted: &[NameServerPlan],
        seed: &Seed,
    ) -> Result<NameServerChange, RuntimeError> {
        let is_wanted = |running: &Running| wanted.contains(&running.plan);
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.0.clone().into_iter().partition(|(_, running)| is_wanted(running));
        let stays = |plan: &&NameServerPlan| stay.values().any(|running: &Running| running.plan == **plan);
        let new = wanted.iter().filter(|plan| !stays(plan)).map(|plan| make(plan, seed));
        let new = new.collect::<Result<_, _>>()?;
        Ok(NameServerChange { stay: Self(stay), gone: gone.into_values().collect(), new })
    }
}

fn make(plan: &NameServerPlan, seed: &Seed) -> Result<New, RuntimeError> {
    let node = &plan.attachment.switch;
    let mut own = *seed;
    own.0[..8].copy_from_slice(&seed.derive(&format!("name server {node}")).to_le_bytes());
    let engine = NameServer::new(plan.mac, &plan.addresses, &plan.gateways, plan.mtu, own)
        .map_err(|error| RuntimeError::NameServer { node: node.clone(), reason: error.to_string() })?;
    let options = MemoryOptions { mtu: usize::from(plan.mtu), offload: OffloadFeatures::NONE };
    let (near, far) = memory::pair(LINK_BATCHES, options)?;
    Ok(New { plan: plan.clone(), engine: Box::new(engine), near, far })
}

impl New {
    /// Plugs it into a switch; what could not be done is a problem.
    fn plug_in(
        mut self,
        driver: &mut Driver,
        switch: EngineId,
        zone: Option<Zone>,
        forward_by: impl FnOnce(EngineId) -> Forwarding,
    ) -> (EngineId, Vec<String>) {
        if let Some(zone) = zone {
            self.engine.install(zone);
        }
        let (id, mut problems) = (driver.add_engine(self.engine), Vec::new());
        if let Some(server) = driver.engine_mut::<NameServer>(id) {
            server.forward_by(forward_by(id));
        }
        attach(driver, id, PortId(0), Box::new(self.far), &mut problems);
        attach(driver, switch, self.plan.attachment.port, Box::new(self.near), &mut problems);
        (id, problems)
    }
}

/// What a name server has done so far, and does now.
#[derive(Clone, Debug)]
pub(crate) struct NameServerCounts {
    /// Its node.
    pub(crate) node: String,
    /// So far.
    pub(crate) counters: NameServerCounters,
    /// Clients that are connected.
    pub(crate) connected: usize,
}

impl Runtime {
    /// Takes out the name servers that are not wanted any more, and plugs in new ones.
    pub(super) fn change_name_servers(
        &self,
        change: NameServerChange,
        switches: &Switches,
        applied: &mut Applied,
    ) -> Result<NameServers, RuntimeError> {
        let NameServerChange { stay: mut servers, gone, new } = change;
        let taken = |Running { plan, engine }: Running| {
            let Attachment { switch, port } = plan.attachment;
            (engine.thread, (switches.get(&switch).map(|switch| switch.id), port, engine.id))
        };
        for (thread, gone) in by_thread(gone.into_iter().map(taken)) {
            self.paths.call(thread, move |driver| {
                for (switch, port, engine) in gone {
                    drop(switch.and_then(|switch| driver.detach(switch, port)));
                    drop(driver.remove_engine(engine));
                }
            })?;
        }
        for new in new {
            let EngineAt { thread, id: switch } = switches[&new.plan.attachment.switch];
            let (plan, node) = (new.plan.clone(), new.plan.attachment.switch.clone());
            let zone = self.zone.lock().clone();
            let forwarder = Arc::clone(&self.forwarder);
            let forward_by = move |id| forwarder.of((thread, id));
            let plug_in = move |driver: &mut Driver| new.plug_in(driver, switch, zone, forward_by);
            let (id, problems) = self.paths.call(thread, plug_in)?;
            applied.problems.extend(problems);
            servers.0.insert(node, Running { plan, engine: EngineAt { thread, id } });
        }
        Ok(servers)
    }

    /// Gives every name server another zone, at once or when it stands.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn set_zone(&self, zone: &Zone) -> Result<(), RuntimeError> {
        let mut known = self.zone.lock();
        *known = Some(zone.clone());
        self.install_zone(known.as_ref())
    }

    /// Has name servers ask these others from now on.
    pub(crate) fn ask_others(&self, sources: Sources) {
        self.forwarder.follow(sources);
    }

    /// Gives every name server the zone that is known by now: one that was plugged in may have missed it.
    pub(super) fn renew_zone(&self) -> Result<(), RuntimeError> {
        let known = self.zone.lock();
        self.install_zone(known.as_ref())
    }

    /// The zone is locked meanwhile, so that no older one comes after it.
    fn install_zone(&self, zone: Option<&Zone>) -> Result<(), RuntimeError> {
        let Some(zone) = zone else { return Ok(()) };
        for (thread, engines) in by_thread(self.name_servers().map(|engine| (engine.thread, engine.id))) {
            let zone = zone.clone();
            self.paths.call(thread, move |driver| {
                for id in engines {
                    if let Some(server) = driver.engine_mut::<NameServer>(id) {
                        server.install(zone.clone());
                    }
                }
            })?;
        }
        Ok(())
    }

    /// What each name server has done and does.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn name_server_counts(&self) -> Result<Vec<NameServerCounts>, RuntimeError> {
        let engines = self.fabric.read().name_servers.0.clone();
        let mut counts = Vec::with_capacity(engines.len());
        for (node, Running { engine, .. }) in engines {
            let counted = self.paths.ask(engine.thread, move |driver| {
                let server = driver.engine_mut::<NameServer>(engine.id)?;
                Some(NameServerCounts { node, counters: server.counters(), connected: server.connected() })
            })?;
            counts.extend(counted);
        }
        Ok(counts)
    }

    /// Whether a frame that leaves a node's switch by this port goes to its name server.
    pub(super) fn is_named_on(&self, node: &str, port: PortId) -> bool {
        let fabric = self.fabric.read();
        fabric.name_servers.0.get(node).is_some_and(|running| running.plan.attachment.port == port)
    }

    fn name_servers(&self) -> impl Iterator<Item = EngineAt> {
        let engines: Vec<EngineAt> =
            self.fabric.read().name_servers.0.values().map(|running| running.engine).collect();
        engines.into_iter()
    }
}
