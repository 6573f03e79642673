//! The way out of the cluster: an edge beside the switch between the nodes, on a memory link to it.

use std::collections::BTreeSet;

use netstack::addr::PortId;
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::driver::{Driver, EngineId};
use netstack::frame::{FramePool, OffloadFeatures};
use netstack::parse::{self, Network};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::fabric::Applied;
use super::paths::{EngineAt, Switches};
use super::rewiring::attach;
use super::{LINK_BATCHES, Runtime, RuntimeError};
use crate::cluster::EgressPlan;
use crate::edge::{self, Bell, Door, Edge, EdgeConfig, EdgeCounters, Opening, Reach, Refusal, Sockets};

/// Doors that are opened between two looks at frames.
const DOORS_AT_ONCE: usize = 16;

/// The edge that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    plan: EgressPlan,
    engine: EngineAt,
}

/// An edge that is to be plugged in.
pub(super) struct New {
    plan: EgressPlan,
    engine: Box<Edge<Sockets>>,
    bell: Bell,
    near: MemoryDevice,
    far: MemoryDevice,
}

/// What is to be done.
pub(super) enum EgressChange {
    /// The same, or none as before; with another reach, if there is one.
    Stays(Option<Running>, Option<Reach>),
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
    /// How the edge that runs becomes the one that is wanted; nothing is touched yet.
    pub(super) fn change_of_egress(
        &self,
        running: Option<&Running>,
        wanted: Option<&EgressPlan>,
    ) -> Result<EgressChange, RuntimeError> {
        let same = match (running, wanted) {
            (Some(running), Some(wanted)) => {
                running.plan == EgressPlan { reach: running.plan.reach.clone(), ..wanted.clone() }
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            let new = wanted.map(|plan| self.make_edge(plan)).transpose()?;
            return Ok(EgressChange::Replaced(running.cloned(), new.map(Box::new)));
        }
        let mut stays = running.cloned();
        let mut other = None;
        if let (Some(stays), Some(wanted)) = (&mut stays, wanted)
            && stays.plan.reach != wanted.reach
        {
            stays.plan.reach = wanted.reach.clone();
            other = Some(wanted.reach.clone());
        }
        Ok(EgressChange::Stays(stays, other))
    }

    fn make_edge(&self, plan: &EgressPlan) -> Result<New, RuntimeError> {
        let mut config = EdgeConfig::new(plan.mac, plan.addresses.clone(), plan.router);
        (config.mtu, config.reach) = (plan.mtu, plan.reach.clone());
        config.inside.clone_from(&plan.inside);
        raise_descriptors();
        let sockets = Sockets::new()?;
        let bell = sockets.bell()?;
        let pool = FramePool::with_depot(self.depot.clone());
        let engine = Box::new(Edge::new(config, sockets, pool, &self.seed));
        let options = MemoryOptions { mtu: usize::from(plan.mtu), offload: OffloadFeatures::ALL };
        let (near, far) = memory::pair(LINK_BATCHES, options)?;
        Ok(New { plan: plan.clone(), engine, bell, near, far })
    }

    /// Takes out the edge that is not wanted any more, and plugs in the new one.
    pub(super) fn change_egress(
        &self,
        change: EgressChange,
        switches: &Switches,
        applied: &mut Applied,
    ) -> Result<Option<Running>, RuntimeError> {
        let (gone, new) = match change {
            EgressChange::Stays(running, None) => return Ok(running),
            EgressChange::Stays(running, Some(reach)) => {
                if let Some(Running { engine: EngineAt { thread, id }, .. }) = running {
                    self.paths.call(thread, move |driver| {
                        driver.engine_mut::<Edge<Sockets>>(id).map(|edge| edge.set_reach(reach))
                    })?;
                }
                return Ok(running);
            }
            EgressChange::Replaced(gone, new) => (gone, new),
        };
        if let Some(Running { plan, engine }) = gone {
            let switch = switches.get(&plan.attachment.switch).map(|switch| switch.id);
            self.paths.call(engine.thread, move |driver| {
                drop(switch.and_then(|switch| driver.detach(switch, plan.attachment.port)));
                drop(driver.remove_engine(engine.id));
            })?;
        }
        let Some(new) = new else { return Ok(None) };
        let EngineAt { thread, id: switch } = switches[&new.plan.attachment.switch];
        let plan = new.plan.clone();
        let (id, problems) = self.paths.call(thread, move |driver| new.plug_in(driver, switch))?;
        applied.problems.extend(problems);
        Ok(Some(Running { plan, engine: EngineAt { thread, id } }))
    }

    /// Has these doors be open, and no others; returns those that cannot be, and why. What goes from pod to pod goes on
    /// between some and the next.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn set_doors(&self, wanted: &BTreeSet<Door>) -> Result<Vec<(Door, Refusal)>, RuntimeError> {
        let Some(Running { engine, .. }) = self.fabric.read().egress.clone() else {
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

    /// What the edge has done and does, if there is one.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn egress_counts(&self) -> Result<Option<EgressCounts>, RuntimeError> {
        let Some(Running { engine, .. }) = self.fabric.read().egress.clone() else { return Ok(None) };
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
        let (open, what) = if plan.addresses.contains(&to) {
            (plan.reach.is_open(Opening::MachineLoopback), "the loopback of this machine".to_owned())
        } else {
            (plan.reach.permits(to), to.to_string())
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

impl New {
    /// Plugs it into a switch; what could not be done is a problem.
    fn plug_in(self, driver: &mut Driver, switch: EngineId) -> (EngineId, Vec<String>) {
        let (id, mut problems) = (driver.add_engine(self.engine), Vec::new());
        attach(driver, id, edge::LINK, Box::new(self.far), &mut problems);
        attach(driver, id, edge::BELL, Box::new(self.bell), &mut problems);
        attach(driver, switch, self.plan.attachment.port, Box::new(self.near), &mut problems);
        (id, problems)
    }
}
