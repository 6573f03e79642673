//! Policies, and the namespaces' labels that they select by.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifest::{DefaultPolicy, Key, Located, Object, PolicyMode};
use parking_lot::Mutex;

use super::compile::Compiler;
use super::store::Store;
use crate::cluster::Labels;
use crate::policy::{ClusterPolicies, Defaults, PolicySpec};
use crate::service::Complaints;

/// What policies were read to say. An object that is the very same is not read again: of thousands, a change is of one.
#[derive(Debug, Default)]
pub(super) struct ReadPolicies(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    policies: BTreeMap<Key, ReadPolicy>,
    /// What followed from all of them.
    all: Arc<ClusterPolicies>,
}

/// A policy, and the object that it was read from.
#[derive(Debug)]
struct ReadPolicy {
    object: Arc<Located>,
    title: Arc<str>,
    spec: Arc<PolicySpec>,
    complaints: Complaints,
}

impl ReadPolicy {
    /// Reads an object; none if it is no policy.
    fn of(key: &Key, object: &Arc<Located>) -> Option<Self> {
        let mut complaints = Complaints::default();
        let spec = if let Object::NetworkPolicy(policy) = &object.object {
            PolicySpec::read(policy, &key.namespace, &key.name, &mut complaints)
        } else if let Object::ClusterNetworkPolicy(policy) = &object.object {
            PolicySpec::read_cluster(policy, &key.name, &mut complaints)
        } else {
            return None;
        };
        let (title, spec) = (spec.title().into(), Arc::new(spec));
        Some(Self { object: Arc::clone(object), title, spec, complaints })
    }
}

impl Compiler<'_> {
    /// Reads all of them.
    pub(super) fn policies(&mut self) {
        let store = self.store;
        let mut known = store.read.0.lock();
        let mut before = std::mem::take(&mut known.policies);
        let kinds = ["ClusterNetworkPolicy", "NetworkPolicy"].into_iter();
        for (key, object) in kinds.flat_map(|kind| store.shared(kind)) {
            let same = before.remove(key).filter(|policy| Arc::ptr_eq(&policy.object, object));
            let Some(policy) = same.or_else(|| ReadPolicy::of(key, object)) else { continue };
            self.complain(object, &policy.complaints);
            known.policies.insert(key.clone(), policy);
        }
        let titled = |policy: &ReadPolicy| (Arc::clone(&policy.title), Arc::clone(&policy.spec));
        let policies = known.policies.values().map(titled).collect();
        let all = ClusterPolicies { policies, namespaces: namespaces(store), defaults: defaults(store) };
        // Whoever is told the same once more has nothing to do.
        if *known.all != all {
            known.all = Arc::new(all);
        }
        self.cluster.policies = Arc::clone(&known.all);
    }

    fn complain(&mut self, at: &Located, complaints: &Complaints) {
        complaints.faults.iter().for_each(|(path, message)| self.fault(at, path, message));
        complaints.warnings.iter().for_each(|(path, message)| self.warn(at, path, message));
    }
}

fn namespaces(store: &Store) -> BTreeMap<String, Labels> {
    let objects = store.shared("Namespace").filter_map(|(key, at)| {
        let Object::Namespace(object) = &at.object else { return None };
        Some((key.name.clone(), object.metadata.labels.clone().unwrap_or_default()))
    });
    objects.collect()
}

fn defaults(store: &Store) -> Defaults {
    let said = store.of_kind("Cluster").find_map(|at| {
        let Object::Cluster(object) = &at.object else { return None };
        let denies = object.spec.default_policy.unwrap_or_default() == DefaultPolicy::Deny;
        let audits = object.spec.policy_mode.unwrap_or_default() == PolicyMode::Audit;
        Some(Defaults { denies, audits })
    });
    said.unwrap_or_default()
}
