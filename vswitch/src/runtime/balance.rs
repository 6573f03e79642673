//! What each node's switch balances.
//!
//! # Theory of operation
//! Services change more often than anything else of a cluster, so they reach a switch without its configuration being made
//! again: the snapshot that it has is taken with another registry in it. The lock here is held while snapshots are made and
//! installed, by changes of Services and by changes of the cluster alike: neither undoes what the other has just done.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb::Registry;
use netstack::config::{ConfigErrors, ServicesConfig, Snapshot};
use netstack::switch::Switch;

use super::{Runtime, RuntimeError};

/// Registries and snapshots by switch.
#[derive(Debug, Default)]
pub(super) struct Balance {
    registries: BTreeMap<String, Registry>,
    snapshots: BTreeMap<String, Arc<Snapshot>>,
}

impl Balance {
    /// A snapshot of this switch, with what the switch balances. It is taken to be installed next.
    pub(super) fn complete(
        &mut self,
        switch: &str,
        snapshot: Arc<Snapshot>,
    ) -> Result<Arc<Snapshot>, ConfigErrors> {
        let snapshot = match self.registries.get(switch) {
            Some(registry) => with_registry(&snapshot, registry.clone())?,
            None => snapshot,
        };
        self.snapshots.insert(switch.to_owned(), Arc::clone(&snapshot));
        Ok(snapshot)
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
            installs.extend(switches.get(&*switch).map(|id| (*id, next)));
        }
        let replaced = self.handle.call(move |driver| {
            let install = |(id, snapshot)| driver.engine_mut::<Switch>(id).map(|s| s.install(snapshot));
            installs.into_iter().map(install).collect::<Vec<_>>()
        })?;
        // Here, and not on the data path.
        drop(replaced);
        Ok(())
    }
}
