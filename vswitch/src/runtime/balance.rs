//! What each node's switch balances, and what it lets through.
//!
//! # Theory of operation
//! Services change more often than anything else of a cluster, so they reach a switch without its configuration being made
//! again: the snapshot that it has is taken with another registry in it. The lock here is held while snapshots are made and
//! installed, by changes of Services and by changes of the cluster alike: neither undoes what the other has just done.
//!
//! Policies come with the cluster: a snapshot that names a pod's port says what is let through to the pod, so that there is
//! no moment in between.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb::{Affinity, Registry};
use netstack::config::{ConfigErrors, ServicesConfig, Snapshot};
use netstack::switch::{ConnectionEntry, Switch};

use super::paths::by_thread;
use super::{Runtime, RuntimeError};
use crate::policy::Keeper;

/// Clients of one switch that are shown.
const AFFINITIES: usize = 1000;

/// Registries and snapshots by switch.
#[derive(Debug, Default)]
pub(super) struct Balance {
    registries: BTreeMap<String, Registry>,
    snapshots: BTreeMap<String, Arc<Snapshot>>,
    /// Who may talk to whom.
    pub(super) policies: Keeper,
}

impl Balance {
    /// A snapshot of this switch, with what the switch balances and lets through. It is taken to be installed next.
    pub(super) fn complete(
        &mut self,
        switch: &str,
        snapshot: Arc<Snapshot>,
    ) -> Result<Arc<Snapshot>, ConfigErrors> {
        let snapshot = match self.registries.get(switch) {
            Some(registry) => with_registry(&snapshot, registry.clone())?,
            None => snapshot,
        };
        let snapshot = match self.policies.of(switch) {
            Some(policies) => snapshot.with_policies(Some(Arc::clone(policies)))?,
            None if snapshot.policies().is_some() => snapshot.with_policies(None)?,
            None => snapshot,
        };
        self.snapshots.insert(switch.to_owned(), Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// The snapshot that a switch has.
    pub(super) fn snapshot(&self, switch: &str) -> Option<&Snapshot> {
        self.snapshots.get(switch).map(AsRef::as_ref)
    }

    /// Forgets switches that are gone.
    pub(super) fn retain(&mut self, stands: impl Fn(&str) -> bool) {
        self.registries.retain(|switch, _| stands(switch));
        self.snapshots.retain(|switch, _| stands(switch));
    }
}

/// The same with another registry; a switch that balances nothing stays as it is.
fn with_registry(snapshot: &Snapshot, registry: Registry) -> Result<Arc<Snapshot>, ConfigErrors> {
    let services =
        snapshot.services().map(|services| ServicesConfig { registry, ..services.config().clone() });
    snapshot.with_services(services)
}

impl Runtime {
    /// What backends are chosen by, besides who asks: the same on every node and every start.
    pub fn balancing_key(&self) -> [u8; 16] {
        self.fabric.read().cluster.balancing_key()
    }

    /// Has switches balance other services. A switch that does not stand yet does so from when it does.
    ///
    /// # Errors
    /// What a switch refuses, or that the data path has stopped.
    pub(crate) fn balance(&self, registries: Vec<(Arc<str>, Registry)>) -> Result<(), RuntimeError> {
        if registries.is_empty() {
            return Ok(());
        }
        let mut balance = self.balance.lock();
        let switches = self.switches();
        let mut installs = Vec::new();
        for (switch, registry) in registries {
            balance.registries.insert(switch.to_string(), registry.clone());
            let Some(snapshot) = balance.snapshots.get(&*switch) else { continue };
            let next = with_registry(snapshot, registry)
                .map_err(|source| RuntimeError::Config { switch: switch.to_string(), source })?;
            balance.snapshots.insert(switch.to_string(), Arc::clone(&next));
            installs.extend(switches.get(&*switch).map(|at| (at.thread, (at.id, next))));
        }
        for (thread, installs) in by_thread(installs) {
            let replaced = self.paths.call(thread, move |driver| {
                let install = |(id, snapshot)| driver.engine_mut::<Switch>(id).map(|s| s.install(snapshot));
                installs.into_iter().map(install).collect::<Vec<_>>()
            })?;
            // Here, and not on the data path.
            drop(replaced);
        }
        Ok(())
    }
}

/// Connections by service and backend.
type Counts = BTreeMap<(Arc<str>, (IpAddr, u16)), u64>;

/// What one switch has done for some services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Balanced {
    /// The switch.
    pub(crate) switch: String,
    /// Connections by service and backend.
    pub(crate) connections: Counts,
    /// The clients that come back to a backend, and for how long they are remembered.
    pub(crate) affinities: Vec<(Affinity, Duration)>,
}

impl Runtime {
    /// What each switch has done for the services of these names.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn balanced(&self, names: &[Arc<str>]) -> Result<Vec<Balanced>, RuntimeError> {
        let names: Arc<BTreeSet<Arc<str>>> = Arc::new(names.iter().cloned().collect());
        let mut all = Vec::new();
        for switch in self.switches().into_keys() {
            let (now, wanted) = (self.now(), Arc::clone(&names));
            let affinities =
                self.with_switch(&switch, move |switch: &mut Switch| affinities(switch, &wanted, now))?;
            let Some(affinities) = affinities.flatten() else { continue };
            let wanted = Arc::clone(&names);
            let count = move |counts: &mut Counts, switch: &Switch, entry: ConnectionEntry| {
                let services = switch.balancer().map(|balancer| balancer.registry());
                let service = entry.mark.and_then(|mark| services?.of(mark));
                if let Some(service) = service.filter(|service| wanted.contains(&service.name)) {
                    // Who answers.
                    let backend = entry.reply[0];
                    let key = (Arc::clone(&service.name), (backend.ip(), backend.port()));
                    *counts.entry(key).or_default() += 1;
                }
            };
            let connections = self.each_connection(&switch, count)?.unwrap_or_default();
            all.push(Balanced { switch, connections, affinities });
        }
        Ok(all)
    }

    /// Connections that each switch has given a backend since the beginning.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn balanced_counts(&self) -> Result<Vec<(String, u64)>, RuntimeError> {
        let mut all = Vec::new();
        for switch in self.switches().into_keys() {
            let count = |s: &mut Switch| s.balancer().map(|_| s.balanced());
            all.extend(self.with_switch(&switch, count)?.flatten().map(|count| (switch, count)));
        }
        Ok(all)
    }
}

fn affinities(
    switch: &Switch,
    names: &BTreeSet<Arc<str>>,
    now: Duration,
) -> Option<Vec<(Affinity, Duration)>> {
    let affinities = switch.balancer()?.affinities(now).filter(|affinity| names.contains(&affinity.service));
    let with_left = affinities.take(AFFINITIES).map(|affinity| {
        let left = affinity.until.saturating_sub(now);
        (affinity, left)
    });
    Some(with_left.collect())
}
