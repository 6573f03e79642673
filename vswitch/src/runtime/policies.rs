//! What switches let through and stop.

use std::sync::Arc;

use netstack::switch::{PolicyCounters, Switch};

use super::{Runtime, RuntimeError};
use crate::cluster::{Pod, Protocol};
use crate::policy::Matrix;

/// A switch, the title of a policy, and what that has stopped there; none stands for what holds without a policy.
pub(crate) type PolicyCount = (String, Option<Arc<str>>, PolicyCounters);

impl Runtime {
    /// What each policy has stopped on each switch.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub(crate) fn policy_counts(&self) -> Result<Vec<PolicyCount>, RuntimeError> {
        let mut all = Vec::new();
        for switch in self.switches().into_keys() {
            let counts = self.with_switch(&switch, |switch: &mut Switch| {
                let policies = switch.snapshot().policies().cloned();
                let named = switch.policy_counters().filter_map(|(policy, counters)| {
                    let name = match policy {
                        Some(policy) => Some(Arc::clone(policies.as_ref()?.name(policy)?)),
                        None => None,
                    };
                    Some((name, counters))
                });
                named.collect::<Vec<_>>()
            })?;
            let counts = counts.unwrap_or_default().into_iter();
            all.extend(counts.map(|(policy, counters)| (switch.clone(), policy, counters)));
        }
        Ok(all)
    }

    /// The pods that a policy of this title is about.
    pub(crate) fn selected(&self, title: &str) -> Vec<String> {
        self.balance.lock().policies.selected(title).iter().map(ToString::to_string).collect()
    }

    /// Who can reach whom.
    pub(crate) fn matrix(&self, asked: &[(Protocol, u16)], wanted: impl Fn(&Pod) -> bool) -> Matrix {
        let cluster = self.cluster();
        Matrix::of(&cluster, &self.balance.lock().policies, asked, wanted)
    }
}
