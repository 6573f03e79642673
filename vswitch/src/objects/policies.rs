//! Policies, and the namespaces' labels that they select by.

use std::collections::BTreeMap;
use std::sync::Arc;

use manifest::{DefaultPolicy, Located, Object, PolicyMode};

use super::compile::Compiler;
use crate::policy::{ClusterPolicies, Defaults, PolicySpec};
use crate::service::Complaints;

impl Compiler<'_> {
    /// Reads all of them.
    pub(super) fn policies(&mut self) {
        let mut policies: BTreeMap<Arc<str>, Arc<PolicySpec>> = BTreeMap::new();
        let mut namespaces = BTreeMap::new();
        let mut defaults = Defaults::default();
        for at in self.store.iter() {
            let key = at.object.key();
            let mut complaints = Complaints::default();
            let spec = match &at.object {
                Object::NetworkPolicy(object) => {
                    Some(PolicySpec::read(object, &key.namespace, &key.name, &mut complaints))
                }
                Object::ClusterNetworkPolicy(object) => {
                    Some(PolicySpec::read_cluster(object, &key.name, &mut complaints))
                }
                Object::Namespace(object) => {
                    namespaces.insert(key.name, object.metadata.labels.clone().unwrap_or_default());
                    None
                }
                Object::Cluster(object) => {
                    let denies = object.spec.default_policy.unwrap_or_default() == DefaultPolicy::Deny;
                    let audits = object.spec.policy_mode.unwrap_or_default() == PolicyMode::Audit;
                    defaults = Defaults { denies, audits };
                    None
                }
                Object::Node(_)
                | Object::Pod(_)
                | Object::Deployment(_)
                | Object::Service(_)
                | Object::EndpointSlice(_)
                | Object::IPAddressPool(_)
                | Object::L2Advertisement(_) => None,
            };
            policies.extend(spec.map(|spec| (spec.title().into(), Arc::new(spec))));
            self.complain(at, complaints);
        }
        self.cluster.policies = Arc::new(ClusterPolicies { policies, namespaces, defaults });
    }

    fn complain(&mut self, at: &Located, complaints: Complaints) {
        complaints.faults.into_iter().for_each(|(path, message)| self.fault(at, &path, message));
        complaints.warnings.into_iter().for_each(|(path, message)| self.warn(at, &path, message));
    }
}
