//! What follows from what is known, found by looking alone: on all processors at once where much has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::endpoint::{Condition, Endpoint, Hints, merge};
use super::super::entrances::{Pooling, Served, entrances, serving};
use super::super::facts::{PodFacts, PodPort, label, selects};
use super::super::given::Planned;
use super::super::port::{Port, Target};
use super::super::spec::Spec;
use super::super::words::Family;
use super::Controller;

/// One port of a Service, as nodes are to have it.
pub(super) struct Made {
    pub(super) services: Vec<lb::Service>,
    /// The pools in them.
    pub(super) pools: Vec<Arc<lb::Pool>>,
}

impl Controller {
    /// Each port of a Service in each family, and the names of those that it has no more.
    pub(super) fn serve(&self, name: &str, planned: &Planned) -> (Vec<Served>, Vec<Arc<str>>) {
        let mut before: Vec<&Served> =
            self.services.get(name).into_iter().flat_map(|entry| &entry.served).collect();
        let mut all = Vec::new();
        for (family, port) in self.wanted(planned) {
            let known = name_of(&planned.spec, port, family);
            let old =
                before.iter().position(|served| *served.name == *known).map(|at| before.swap_remove(at));
            let endpoints = self.endpoints(&planned.spec, port, family);
            let (name, pools) = old
                .map_or_else(|| (known.into(), Vec::new()), |old| (Arc::clone(&old.name), old.pools.clone()));
            all.push(Served { name, family, port, endpoints, pools });
        }
        (all, before.into_iter().map(|served| Arc::clone(&served.name)).collect())
    }

    /// Every port in every family.
    fn wanted(&self, planned: &Planned) -> Vec<(Family, usize)> {
        let Planned { spec, families, allocation } = planned;
        // A headless Service has endpoints to look at, and no address.
        let shown = spec.is_proxied() || spec.headless;
        let foreign = spec.ingress.iter().map(|one| one.address).chain(spec.external_ips.iter().copied());
        let all = allocation.cluster_ips.iter().copied().chain(foreign).map(Family::of);
        let mut all: Vec<Family> = families.iter().copied().chain(all).filter(|_| shown).collect();
        let mut seen = BTreeSet::new();
        all.retain(|family| seen.insert(*family));
        all.into_iter().flat_map(|family| (0..spec.ports.len()).map(move |port| (family, port))).collect()
    }

    fn endpoints(&self, spec: &Spec, port: usize, family: Family) -> Vec<Endpoint> {
        let port = &spec.ports[port];
        let mut all: Vec<Endpoint> = Vec::new();
        let pods = self.selected(spec).filter_map(|(name, pod)| self.of_pod(spec, port, family, name, pod));
        all.extend(pods);
        let slices = self.slices_of.get(&spec.full_name()).into_iter().flatten();
        let slices = slices.filter_map(|name| self.slices.get(name));
        for slice in slices.filter(|slice| slice.family == Some(family)) {
            all.extend(slice.endpoints(port));
        }
        merge(all)
    }

    /// The pods that a Service selects.
    fn selected<'a>(&'a self, spec: &'a Spec) -> impl Iterator<Item = (&'a Arc<str>, &'a PodFacts)> {
        // Of its labels the one that the fewest pods have.
        let labels = spec.selector.iter().map(|(key, value)| label(&spec.namespace, key, value));
        let least =
            labels.map(|label| self.by_label.get(&label)).min_by_key(|all| all.map_or(0, BTreeSet::len));
        let names = least.flatten().into_iter().flatten();
        let pods = names.filter_map(|name| self.pods.get_key_value(name));
        pods.filter(|(_, pod)| selects(spec, pod))
    }

    /// Everybody who answers for a Service, at whichever port: what the name of one that has no ports stands for.
    pub fn portless(&self, spec: &Spec, family: Family) -> Vec<Endpoint> {
        let pods = self.selected(spec).filter_map(|(name, pod)| self.at_port(spec, 0, family, name, pod));
        let slices = self.slices_of.get(&spec.full_name()).into_iter().flatten();
        let slices = slices.filter_map(|name| self.slices.get(name));
        let slices = slices.filter(|slice| slice.family == Some(family));
        merge(pods.chain(slices.flat_map(|slice| slice.portless().iter().cloned())).collect())
    }

    fn of_pod(
        &self,
        spec: &Spec,
        port: &Port,
        family: Family,
        name: &Arc<str>,
        pod: &PodFacts,
    ) -> Option<Endpoint> {
        let number = match &port.target {
            Target::Number(number) => *number,
            Target::Name(name) => {
                let named = |own: &&PodPort| own.name == *name && own.protocol == port.protocol;
                pod.ports.iter().find(named)?.port
            }
        };
        self.at_port(spec, number, family, name, pod)
    }

    fn at_port(
        &self,
        spec: &Spec,
        number: u16,
        family: Family,
        name: &Arc<str>,
        pod: &PodFacts,
    ) -> Option<Endpoint> {
        let address = *pod.addresses.iter().find(|address| Family::of(**address) == family)?;
        let node = self.nodes.iter().find(|node| node.facts.name == pod.node);
        let zone = node.and_then(|node| node.facts.zone.as_ref());
        (!pod.ended).then(|| Endpoint {
            address,
            port: number,
            weight: pod.weight,
            condition: Condition::of_pod(pod.ready, pod.terminating, spec.not_ready_too),
            node: Some(Arc::clone(&pod.node)),
            zone: zone.cloned(),
            hints: Hints::of_pod(spec.distribution, &pod.node, zone),
            pod: Some(Arc::clone(name)),
            hostname: pod
                .hostname
                .as_ref()
                .filter(|(_, of)| **of == *spec.name)
                .map(|(own, _)| Arc::clone(own)),
        })
    }

    /// What one port of a Service is on each node, in their order.
    pub(super) fn make(&self, planned: &Planned, served: &Served) -> Made {
        let mut pools = Pooling { planned, key: self.key, before: &served.pools, made: Vec::new() };
        let spec = &planned.spec;
        let everywhere = !(spec.internal_local
            || spec.external_local
            || !planned.allocation.node_ports.is_empty()
            || spec.ingress.iter().any(|one| one.proxied)
            || served.endpoints.iter().any(|e| e.hints != Hints::default()));
        let mut services: Vec<lb::Service> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            if let Some(same) = services.first().filter(|_| everywhere).cloned() {
                services.push(same);
                continue;
            }
            let (owners, masquerade_all) = (&self.owners, self.masquerade_all);
            services.push(lb::Service {
                name: Arc::clone(&served.name),
                entrances: entrances(owners, planned, served, &node.facts, masquerade_all, &mut pools),
                affinity: spec.affinity,
                serving: serving(spec.ports[served.port].protocol, &served.endpoints),
                reset_gone: spec.reset_gone,
            });
        }
        Made { services, pools: pools.made }
    }
}

/// What registries call a port of a Service in one family.
fn name_of(spec: &Spec, port: usize, family: Family) -> String {
    let port = &spec.ports[port];
    let number = port.port.to_string();
    let name = if port.name.is_empty() { &number } else { &port.name };
    format!("{}:{name}/{}", spec.full_name(), family.name())
}
