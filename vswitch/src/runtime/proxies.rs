//! The userspace proxies of nodes: engines beside the switches, each on a memory link to its node's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lb::{Frontend, Registry};
use netstack::addr::PortId;
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::driver::{Driver, EngineId};
use netstack::frame::OffloadFeatures;
use netstack::host::BindError;
use netstack::parse::{self, Network};
use netstack::seed::Seed;

use super::fabric::Applied;
use super::paths::{EngineAt, Switches, by_thread};
use super::rewiring::attach;
use super::{LINK_BATCHES, Runtime, RuntimeError};
use crate::cluster::{Attachment, Cluster, ProxyPlan};
use crate::proxy::{ProxyCounters, ServiceProxy};
use crate::service::Detour;

/// So many backends are shown.
const SHOWN: usize = 5;

/// A proxy that runs.
#[derive(Clone, Debug)]
struct Running {
    plan: ProxyPlan,
    engine: EngineAt,
}

/// Those that run, by node.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies(BTreeMap<String, Running>);

/// What each proxy carries, or is to carry once it stands.
pub(super) type Proxied = BTreeMap<String, Registry>;

/// A proxy that is to be plugged in.
struct New {
    plan: ProxyPlan,
    engine: Box<ServiceProxy>,
    near: MemoryDevice,
    far: MemoryDevice,
}

/// What is to be done.
pub(super) struct ProxyChange {
    stay: Proxies,
    gone: Vec<Running>,
    new: Vec<New>,
}

impl Proxies {
    /// How those that run become those that are wanted; nothing is touched yet.
    pub(super) fn change(
        &self,
        cluster: &Cluster,
        wanted: &[ProxyPlan],
        seed: &Seed,
    ) -> Result<ProxyChange, RuntimeError> {
        let is_wanted = |running: &Running| wanted.contains(&running.plan);
        let (stay, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.0.clone().into_iter().partition(|(_, running)| is_wanted(running));
        let stays = |plan: &&ProxyPlan| stay.values().any(|running: &Running| running.plan == **plan);
        let new = wanted.iter().filter(|plan| !stays(plan)).map(|plan| make(cluster, plan, seed));
        let new = new.collect::<Result<_, _>>()?;
        Ok(ProxyChange { stay: Self(stay), gone: gone.into_values().collect(), new })
    }
}

fn make(cluster: &Cluster, plan: &ProxyPlan, seed: &Seed) -> Result<New, RuntimeError> {
    let node = &plan.attachment.switch;
    let mut own = *seed;
    own.0[..8].copy_from_slice(&seed.derive(&format!("service proxy {node}")).to_le_bytes());
    let engine = ServiceProxy::new(
        plan.mac,
        plan.addresses.clone(),
        &plan.gateways,
        plan.mtu,
        cluster.balancing_key(),
        own,
    )
    .map_err(|error| RuntimeError::Proxy { node: node.clone(), reason: error.to_string() })?;
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
        registry: Option<Registry>,
    ) -> (EngineId, Vec<String>) {
        if let Some(registry) = registry {
            // What cannot be opened is told by whoever gives it other Services.
            let _ = self.engine.install(driver.clock().now(), registry);
        }
        let (id, mut problems) = (driver.add_engine(self.engine), Vec::new());
        attach(driver, id, PortId(0), Box::new(self.far), &mut problems);
        attach(driver, switch, self.plan.attachment.port, Box::new(self.near), &mut problems);
        (id, problems)
    }
}

/// What a proxy has done so far, and does now.
#[derive(Clone, Debug)]
pub(crate) struct ProxyCounts {
    /// Its node.
    pub(crate) node: String,
    /// So far.
    pub(crate) counters: ProxyCounters,
    /// TCP connections that are carried, and clients of UDP.
    pub(crate) carried: (usize, usize),
}

impl Runtime {
    /// Takes out the proxies that are not wanted any more, and plugs in new ones.
    pub(super) fn change_proxies(
        &self,
        change: ProxyChange,
        switches: &Switches,
        applied: &mut Applied,
    ) -> Result<Proxies, RuntimeError> {
        let ProxyChange { stay, gone, new } = change;
        if gone.is_empty() && new.is_empty() {
            return Ok(stay);
        }
        let mut proxies = stay;
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
            let registry = self.proxied.lock().get(&node).cloned();
            let plug_in = move |driver: &mut Driver| new.plug_in(driver, switch, registry);
            let (id, problems) = self.paths.call(thread, plug_in)?;
            applied.problems.extend(problems);
            proxies.0.insert(node, Running { plan, engine: EngineAt { thread, id } });
        }
        Ok(proxies)
    }

    /// Gives a node's proxy other Services, at once or when it stands; returns those that it cannot listen for, by the names
    /// that they have in `registry`, and why.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub fn set_proxied(
        &self,
        node: &str,
        registry: Registry,
    ) -> Result<Vec<(Arc<str>, BindError)>, RuntimeError> {
        self.proxied.lock().insert(node.to_owned(), registry.clone());
        let Some(engine) = self.proxy_of(node) else { return Ok(Vec::new()) };
        let given = registry.clone();
        let failed = self.paths.call(engine.thread, move |driver| {
            let now = driver.clock().now();
            driver.engine_mut::<ServiceProxy>(engine.id).map(|proxy| proxy.install(now, given))
        })?;
        let named = |(frontend, error)| Some((Arc::clone(&registry.find(&frontend)?.0.name), error));
        Ok(failed.into_iter().flatten().filter_map(named).collect())
    }

    /// What each proxy has done and does.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn proxy_counts(&self) -> Result<Vec<ProxyCounts>, RuntimeError> {
        let engines = self.fabric.read().proxies.0.clone();
        let mut counts = Vec::with_capacity(engines.len());
        for (node, Running { engine, .. }) in engines {
            let counted = self.paths.ask(engine.thread, move |driver| {
                let proxy = driver.engine_mut::<ServiceProxy>(engine.id)?;
                Some(ProxyCounts { node, counters: proxy.counters(), carried: proxy.carried() })
            })?;
            counts.extend(counted);
        }
        Ok(counts)
    }

    /// What becomes of a frame that a switch sends to its node's proxy by this port, in a sentence; none if there is no proxy.
    pub(super) fn proxied_on(&self, node: &str, port: PortId, frame: &[u8]) -> Option<String> {
        self.fabric.read().proxies.0.get(node).filter(|running| running.plan.attachment.port == port)?;
        let Ok(Network::Ip(ip)) = parse::network(frame, &parse::link(frame).ok()?) else { return None };
        let key = ip.flow_key();
        let frontend =
            Frontend { address: key.destination, protocol: key.protocol, port: key.destination_port };
        let proxied = self.proxied.lock();
        let (service, entrance) = proxied.get(node)?.find(&frontend)?;
        let backends = entrance.ways[0].pool.backends();
        let shown = backends.iter().take(SHOWN).map(|b| SocketAddr::new(b.address, b.port).to_string());
        let more = backends.len().checked_sub(SHOWN).filter(|more| *more > 0);
        let shown: Vec<String> = shown.chain(more.map(|more| format!("{more} more"))).collect();
        Some(format!(
            "taken by the service proxy of {node} at port {}, which carries {} on to one of {}",
            frontend.port,
            Detour::service_of(&service.name),
            shown.join(", ")
        ))
    }

    fn proxy_of(&self, node: &str) -> Option<EngineAt> {
        self.fabric.read().proxies.0.get(node).map(|running| running.engine)
    }
}
