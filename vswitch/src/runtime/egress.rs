//! The way out of the cluster: an edge beside the switch between the nodes, on a memory link to it, or an interface of this
//! machine.

use std::collections::BTreeSet;

use netstack::addr::{IpNet, PortId};
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::device::tap::Tap;
use netstack::driver::{Driver, EngineId};
use netstack::frame::{FramePool, OffloadFeatures};
use netstack::parse::{self, Network};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::fabric::Applied;
use super::interface::{self, Route};
use super::paths::{EngineAt, Switches};
use super::rewiring::attach;
use super::{LINK_BATCHES, Runtime, RuntimeError};
use crate::cluster::{Carrier, EGRESS_PREFIXES, EgressPlan};
use crate::edge::{self, Bell, Door, Edge, EdgeConfig, EdgeCounters, Opening, Reach, Refusal, Sockets};

/// Doors that are opened between two looks at frames.
const DOORS_AT_ONCE: usize = 16;

/// The edge that runs, or the interface that stands in its place, whose device is the switch's alone.
#[derive(Clone, Debug)]
pub(super) struct Running {
    plan: EgressPlan,
    engine: Option<EngineAt>,
}

/// What is to be plugged in.
pub(super) struct New {
    plan: EgressPlan,
    plug: Plug,
}

enum Plug {
    Edge { engine: Box<Edge<Sockets>>, bell: Bell, near: MemoryDevice, far: MemoryDevice },
    Interface(Tap),
}

/// What is to be done.
pub(super) enum EgressChange {
    /// The same, or none as before.
    Stays(Option<Running>),
    /// The same for other destinations.
    Turns(Running, Carrier),
    /// Another, or one less.
    Replaced(Option<Running>, Option<Box<New>>),
}

/// What the edge has done so far, and does now.
#[derive(Clone, Debug)]
pub(crate) struct EgressCounts {
    /// So far.
    pub(crate) counters: EdgeCounters,
    /// TCP connections that are carried, and flows of messages.
    pub(crate) carried: (usize, usize),
    /// Octets that sockets have not taken yet.
    pub(crate) held: usize,
}

impl Runtime {
    /// How what runs becomes what is wanted; nothing is touched yet.
    pub(super) fn change_of_egress(
        &self,
        running: Option<&Running>,
        wanted: Option<&EgressPlan>,
    ) -> Result<EgressChange, RuntimeError> {
        let (Some(running), Some(wanted)) = (running, wanted) else {
            let new = wanted.map(|plan| self.make_egress(plan)).transpose()?;
            return Ok(match (running, new) {
                (None, None) => EgressChange::Stays(None),
                (running, new) => EgressChange::Replaced(running.cloned(), new.map(Box::new)),
            });
        };
        if running.plan == *wanted {
            return Ok(EgressChange::Stays(Some(running.clone())));
        }
        let (carrier, inside) = (running.plan.carrier.clone(), running.plan.inside.clone());
        let elsewhere = EgressPlan { carrier, inside, ..wanted.clone() };
        if running.plan == elsewhere && is_alike(&running.plan.carrier, &wanted.carrier) {
            let turned = Running { plan: wanted.clone(), ..running.clone() };
            return Ok(EgressChange::Turns(turned, running.plan.carrier.clone()));
        }
        let new = Box::new(self.make_egress(wanted)?);
        Ok(EgressChange::Replaced(Some(running.clone()), Some(new)))
    }

    fn make_egress(&self, plan: &EgressPlan) -> Result<New, RuntimeError> {
        let plug = match &plan.carrier {
            Carrier::Sockets(reach) => self.make_edge(plan, reach)?,
            Carrier::Interface { name, routes } => {
                let own = plan.addresses.iter().zip(EGRESS_PREFIXES);
                let own = own.filter_map(|(own, net)| IpNet::new(*own, net.prefix_len()).ok());
                let tap = interface::make(name, plan.mac, plan.mtu, &own.collect::<Vec<IpNet>>(), routes);
                Plug::Interface(tap.map_err(|reason| RuntimeError::Egress { reason })?)
            }
        };
        Ok(New { plan: plan.clone(), plug })
    }

    fn make_edge(&self, plan: &EgressPlan, reach: &Reach) -> Result<Plug, RuntimeError> {
        let mut config = EdgeConfig::new(plan.mac, plan.addresses.clone(), plan.router);
        (config.mtu, config.reach) = (plan.mtu, reach.clone());
        config.inside.clone_from(&plan.inside);
        raise_descriptors();
        let sockets = Sockets::new()?;
        let bell = sockets.bell()?;
        let pool = FramePool::with_depot(self.depot.clone());
        let engine = Box::new(Edge::new(config, sockets, pool, &self.seed));
        let options = MemoryOptions { mtu: usize::from(plan.mtu), offload: OffloadFeatures::ALL };
        let (near, far) = memory::pair(LINK_BATCHES, options)?;
        Ok(Plug::Edge { engine, bell, near, far })
    }

    /// Takes out what is not wanted any more, and plugs in what is new.
    pub(super) fn change_egress(
        &self,
        change: EgressChange,
        switches: &Switches,
        applied: &mut Applied,
    ) -> Result<Option<Running>, RuntimeError> {
        let (gone, new) = match change {
            EgressChange::Stays(running) => return Ok(running),
            EgressChange::Turns(running, before) => {
                self.turn_egress(&running, &before, applied)?;
                return Ok(Some(running));
            }
            EgressChange::Replaced(gone, new) => (gone, new),
        };
        if let Some(Running { plan, engine }) = gone {
            if let Some(switch) = switches.get(&plan.attachment.switch).copied() {
                self.paths.call(switch.thread, move |driver| {
                    drop(driver.detach(switch.id, plan.attachment.port));
                })?;
            }
            if let Some(engine) = engine {
                self.paths.call(engine.thread, move |driver| drop(driver.remove_engine(engine.id)))?;
            }
        }
        let Some(New { plan, plug }) = new.map(|new| *new) else { return Ok(None) };
        let EngineAt { thread, id: switch } = switches[&plan.attachment.switch];
        let port = plan.attachment.port;
        let (id, problems) = self.paths.call(thread, move |driver| plug.plug_in(driver, switch, port))?;
        applied.problems.extend(problems);
        Ok(Some(Running { plan, engine: id.map(|id| EngineAt { thread, id }) }))
    }

    /// Has what runs be for other destinations.
    fn turn_egress(
        &self,
        running: &Running,
        before: &Carrier,
        applied: &mut Applied,
    ) -> Result<(), RuntimeError> {
        match (&running.plan.carrier, before) {
            (Carrier::Sockets(reach), _) => {
                let Some(EngineAt { thread, id }) = running.engine else { return Ok(()) };
                let (reach, inside) = (reach.clone(), running.plan.inside.clone());
                self.paths.call(thread, move |driver| {
                    if let Some(edge) = driver.engine_mut::<Edge<Sockets>>(id) {
                        edge.set_reach(reach);
                        edge.set_inside(inside);
                    }
                })?;
            }
            (Carrier::Interface { name, routes }, Carrier::Interface { routes: before, .. }) => {
                let without = |some: &[Route], others: &[Route]| -> Vec<Route> {
                    some.iter().filter(|route| !others.contains(route)).copied().collect()
                };
                let (gone, new) = (without(before, routes), without(routes, before));
                applied.problems.extend(interface::reroute(name, &gone, &new).err());
            }
            (Carrier::Interface { .. }, Carrier::Sockets(_)) => {}
        }
        Ok(())
    }

    /// Has these doors be open, and no others; returns those that cannot be, and why. What goes from pod to pod goes on
    /// between some and the next.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn set_doors(&self, wanted: &BTreeSet<Door>) -> Result<Vec<(Door, Refusal)>, RuntimeError> {
        let Some(engine) = self.edge() else {
            return Ok(wanted.iter().map(|door| (*door, Refusal::Unsupported)).collect());
        };
        let stay = wanted.clone();
        let open = self.paths.call(engine.thread, move |driver| {
            let Some(edge) = driver.engine_mut::<Edge<Sockets>>(engine.id) else { return BTreeSet::new() };
            let open: BTreeSet<Door> = edge.doors().copied().collect();
            for door in open.difference(&stay) {
                edge.withdraw(door);
            }
            open
        })?;
        let new: Vec<Door> = wanted.difference(&open).copied().collect();
        let mut refused = Vec::new();
        for some in new.chunks(DOORS_AT_ONCE) {
            let some = some.to_vec();
            refused.extend(self.paths.call(engine.thread, move |driver| {
                let Some(edge) = driver.engine_mut::<Edge<Sockets>>(engine.id) else { return Vec::new() };
                some.into_iter().filter_map(|door| Some((door, edge.publish(door).err()?))).collect()
            })?);
        }
        Ok(refused)
    }

    fn edge(&self) -> Option<EngineAt> {
        self.fabric.read().egress.as_ref()?.engine
    }

    /// What the edge has done and does, if there is one.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn egress_counts(&self) -> Result<Option<EgressCounts>, RuntimeError> {
        let Some(engine) = self.edge() else { return Ok(None) };
        Ok(self.paths.ask(engine.thread, move |driver| {
            let edge = driver.engine_mut::<Edge<Sockets>>(engine.id)?;
            let (counters, carried, held) = (edge.counters().clone(), edge.carried(), edge.held());
            Some(EgressCounts { counters, carried, held })
        })?)
    }

    /// What becomes of a frame that a switch sends to the edge by this port, in a sentence, and whether it goes on; none
    /// if the edge is not there.
    pub(super) fn leaves_by(&self, switch: &str, port: PortId, frame: &[u8]) -> Option<(String, bool)> {
        let fabric = self.fabric.read();
        let plan = &fabric.egress.as_ref()?.plan;
        if plan.attachment.switch != switch || plan.attachment.port != port {
            return None;
        }
        let Ok(Network::Ip(ip)) = parse::network(frame, &parse::link(frame).ok()?) else { return None };
        let to = ip.destination;
        let reach = match &plan.carrier {
            Carrier::Sockets(reach) => reach,
            Carrier::Interface { name, .. } => {
                return Some((
                    format!("carried on by this machine's own stack, which has it from {name}"),
                    true,
                ));
            }
        };
        let (open, what) = if plan.addresses.contains(&to) {
            (reach.is_open(Opening::MachineLoopback), "the loopback of this machine".to_owned())
        } else {
            (reach.permits(to), to.to_string())
        };
        Some(if open {
            (format!("carried on to {what} by a socket of this machine"), true)
        } else {
            (
                format!(
                    "refused by egress: pods may not reach {what}; `spec.egressPolicy` says what they may"
                ),
                false,
            )
        })
    }
}

/// Each flow has a socket, so this process takes all the descriptors that it may have. Those that pods' programs may have
/// are the helper's to say, which has been started already.
fn raise_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where that is refused there are fewer.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Whether one can become the other while it runs.
fn is_alike(one: &Carrier, other: &Carrier) -> bool {
    match (one, other) {
        (Carrier::Sockets(_), Carrier::Sockets(_)) => true,
        (Carrier::Interface { name, .. }, Carrier::Interface { name: other, .. }) => name == other,
        (Carrier::Sockets(_), Carrier::Interface { .. })
        | (Carrier::Interface { .. }, Carrier::Sockets(_)) => false,
    }
}

impl Plug {
    /// Plugs it into a switch; what could not be done is a problem.
    fn plug_in(self, driver: &mut Driver, switch: EngineId, port: PortId) -> (Option<EngineId>, Vec<String>) {
        let mut problems = Vec::new();
        match self {
            Self::Edge { engine, bell, near, far } => {
                let id = driver.add_engine(engine);
                attach(driver, id, edge::LINK, Box::new(far), &mut problems);
                attach(driver, id, edge::BELL, Box::new(bell), &mut problems);
                attach(driver, switch, port, Box::new(near), &mut problems);
                (Some(id), problems)
            }
            Self::Interface(tap) => {
                attach(driver, switch, port, Box::new(tap), &mut problems);
                (None, problems)
            }
        }
    }
}
