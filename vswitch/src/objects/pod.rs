//! Pods, those of Deployments included: their node and their addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod as PodObject, PodSpec};
use manifest::{Located, Object};
use netstack::addr::IpNet;

use super::allocations::{Allocation, same_family};
use super::compile::{Compiler, LABEL, both_forms, is_label};
use super::containers::workload;
use super::host_ports;
use crate::cluster::{HostPort, Labels, Node, Place, Pod, Replacement};
use crate::helper::Existing;
use crate::service::{WEIGHT, weight};

/// Annotation that moves a pod: the node it is to be on, whatever `spec.nodeName` says.
pub(super) const NODE_ANNOTATION: &str = "vswitch/node";
/// Annotation that makes a pod of a network namespace that exists: `/PATH`, `pid:NUMBER` or a name as `ip netns` has it.
const NETNS_ANNOTATION: &str = "vswitch/netns";
/// Annotations that are understood; others with this prefix are faults.
const ANNOTATIONS: [&str; 3] = [NODE_ANNOTATION, NETNS_ANNOTATION, WEIGHT];
/// Pods of one Deployment.
const MAX_REPLICAS: i32 = 10_000;
/// Longest name of a network namespace, with room for what it is called while the one that it replaces still stands.
const MAX_NETNS: usize = 196;

/// A pod as far as its object says.
struct Draft<'a> {
    at: &'a Located,
    /// Where its spec stands in the object: empty, or `spec.template.`.
    base: &'static str,
    namespace: String,
    name: String,
    labels: Labels,
    annotations: BTreeMap<String, String>,
    spec: Arc<PodSpec>,
    /// The ports of its node that it asks for, with their places in its spec.
    host_ports: Arc<Vec<(String, HostPort)>>,
    node: Option<String>,
    addresses: Vec<IpAddr>,
    replacement: Option<Arc<Replacement>>,
}

impl Draft<'_> {
    fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn on_host(&self) -> bool {
        host_ports::on_host(&self.spec)
    }
}

impl<'a> Compiler<'a> {
    /// Reads all pods: first what they ask for, then what they had, then what they still need.
    pub(super) fn pods(&mut self) {
        let mut drafts = Vec::new();
        let objects: Vec<&'a Located> = self.store.iter().collect();
        for at in &objects {
            if let Object::Pod(pod) = &at.object {
                drafts.push(self.pod_draft(at, pod));
            }
        }
        for at in &objects {
            if let Object::Deployment(deployment) = &at.object {
                self.replicas(at, deployment, &mut drafts);
            }
        }
        self.no_two_of_a_name(&drafts);
        for draft in &mut drafts {
            self.placed(draft);
        }
        // Who was there before somebody else keeps its ports.
        for settled in [true, false] {
            for draft in &drafts {
                if self.was_there(draft) == settled {
                    self.claim_ports(draft);
                }
            }
        }
        for draft in &mut drafts {
            self.remember_pod(draft);
        }
        let mut load: BTreeMap<String, usize> =
            self.cluster.nodes.iter().map(|node| (node.name.clone(), 0)).collect();
        for node in drafts.iter().filter_map(|draft| draft.node.as_ref()) {
            *load.entry(node.clone()).or_default() += 1;
        }
        for draft in drafts {
            self.settle_pod(draft, &mut load);
        }
    }

    fn pod_draft(&mut self, at: &'a Located, pod: &PodObject) -> Draft<'a> {
        let key = at.object.key();
        let spec = pod.spec.clone().unwrap_or_default();
        self.check_names(at, &key.namespace, &key.name);
        self.check_spec(at, "", &spec);
        let mut draft = Draft {
            at,
            base: "",
            namespace: key.namespace,
            name: key.name,
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            annotations: pod.metadata.annotations.clone().unwrap_or_default(),
            host_ports: Arc::new(host_ports::wanted(&spec)),
            spec: Arc::new(spec),
            node: None,
            addresses: Vec::new(),
            replacement: None,
        };
        let status = pod.status.clone().unwrap_or_default();
        let listed: Vec<String> = status.pod_ips.unwrap_or_default().into_iter().map(|ip| ip.ip).collect();
        let all = both_forms(listed, |n| format!("status.podIPs[{n}].ip"), status.pod_ip, "status.podIP");
        for (path, text) in all {
            // Those of a pod on its node's own network are the node's, whatever a manifest remembers.
            if !draft.on_host() {
                self.asked_address(&path, &text, &mut draft);
            }
        }
        draft
    }

    fn asked_address(&mut self, path: &str, text: &str, draft: &mut Draft<'a>) {
        let Ok(address) = text.parse::<IpAddr>() else {
            return self.fault(draft.at, path, format!("{text:?} is no address"));
        };
        if draft.addresses.iter().any(|other| same_family(*other, address)) {
            return self.fault(draft.at, path, "there is one of this family already");
        }
        if self.home(address).is_none() {
            return self.fault(draft.at, path, format!("{address} belongs to no node's podCIDRs"));
        }
        self.claim(draft.at, path, address, &format!("the pod {}", draft.full_name()));
        draft.addresses.push(address);
    }

    fn replicas(&mut self, at: &'a Located, deployment: &Deployment, drafts: &mut Vec<Draft<'a>>) {
        let key = at.object.key();
        let spec = &deployment.spec;
        let template = spec.template.metadata.clone().unwrap_or_default();
        let labels = template.labels.unwrap_or_default();
        let selector = spec.selector.match_labels.clone().unwrap_or_default();
        if selector.iter().any(|(name, value)| labels.get(name) != Some(value)) {
            self.fault(at, "spec.selector", "does not select the labels of the template");
        }
        let replicas = spec.replicas.unwrap_or(1);
        if !(0..=MAX_REPLICAS).contains(&replicas) {
            return self.fault(
                at,
                "spec.replicas",
                format!("{replicas} is not between 0 and {MAX_REPLICAS}"),
            );
        }
        let last = replicas.saturating_sub(1);
        self.check_names(at, &key.namespace, &format!("{}-{last}", key.name));
        let pod = Arc::new(spec.template.spec.clone().unwrap_or_default());
        self.check_spec(at, "spec.template.", &pod);
        let host_ports = Arc::new(host_ports::wanted(&pod));
        let replacement = self.replacement(at, deployment);
        drafts.extend((0..replicas).map(|index| Draft {
            at,
            base: "spec.template.",
            namespace: key.namespace.clone(),
            name: format!("{}-{index}", key.name),
            labels: labels.clone(),
            annotations: template.annotations.clone().unwrap_or_default(),
            spec: Arc::clone(&pod),
            host_ports: Arc::clone(&host_ports),
            node: None,
            addresses: Vec::new(),
            replacement: Some(Arc::clone(&replacement)),
        }));
    }

    fn check_names(&mut self, at: &Located, namespace: &str, name: &str) {
        for (path, text) in [("metadata.name", name), ("metadata.namespace", namespace)] {
            if !is_label(text) {
                self.fault(at, path, format!("{text:?} must be {LABEL}"));
            }
        }
        let length = self.cluster.name.len() + namespace.len() + name.len() + 2;
        if length > MAX_NETNS {
            self.fault(
                at,
                "metadata.name",
                format!("with cluster and namespace it has {length} letters; {MAX_NETNS} are the most"),
            );
        }
    }

    fn check_spec(&mut self, at: &Located, base: &str, spec: &PodSpec) {
        if host_ports::on_host(spec) && spec.hostname.is_some() {
            let message = "has no effect with hostNetwork: the pod has the node's host name";
            self.warn(at, &format!("{base}spec.hostname"), message);
        }
        if let Some(policy) = &spec.restart_policy
            && !["Always", "OnFailure", "Never"].contains(&policy.as_str())
        {
            let message = format!("{policy:?} is none of Always, OnFailure, Never");
            self.fault(at, &format!("{base}spec.restartPolicy"), message);
        }
        if let Some(hostname) = spec.hostname.as_ref().filter(|name| !is_label(name)) {
            self.fault(at, &format!("{base}spec.hostname"), format!("{hostname:?} must be {LABEL}"));
        }
        for (path, message) in crate::names::check(spec) {
            self.fault(at, &format!("{base}{path}"), message);
        }
        if spec.containers.is_empty() {
            self.fault(at, &format!("{base}spec.containers"), "one container at least is needed");
        }
        let mut names = HashSet::new();
        let mut ports: BTreeMap<(String, i32), &str> = BTreeMap::new();
        let lists = [
            ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
            ("containers", &spec.containers),
        ];
        for (field, containers) in lists {
            for (index, container) in containers.iter().enumerate() {
                let path = format!("{base}spec.{field}[{index}]");
                if !is_label(&container.name) {
                    self.fault(at, &format!("{path}.name"), format!("a container's name must be {LABEL}"));
                }
                if !names.insert(&container.name) {
                    self.fault(
                        at,
                        &format!("{path}.name"),
                        format!("there is a container {} already", container.name),
                    );
                }
                self.check_ports(at, &path, container, &mut ports);
            }
        }
        self.check_host_ports(at, base, spec);
    }

    fn no_two_of_a_name(&mut self, drafts: &[Draft<'a>]) {
        let mut first: BTreeMap<(&str, &str), &Located> = BTreeMap::new();
        for draft in drafts {
            if let Some(other) = first.insert((&draft.namespace, &draft.name), draft.at) {
                let message = format!(
                    "its pod {} exists already: see {other} at {}",
                    draft.full_name(),
                    other.place(),
                    other = other.object
                );
                self.fault(draft.at, "", message);
            }
        }
    }

    /// The node that the manifest names.
    fn placed(&mut self, draft: &mut Draft<'a>) {
        for annotation in draft.annotations.keys().filter(|a| a.starts_with("vswitch/")) {
            if !ANNOTATIONS.contains(&annotation.as_str()) {
                let message = format!("there is no such annotation; there are {}", ANNOTATIONS.join(", "));
                self.fault(draft.at, &format!("{}metadata.annotations.{annotation}", draft.base), message);
            }
        }
        let annotated = draft.annotations.get(NODE_ANNOTATION).cloned();
        let path = match annotated {
            Some(_) => format!("{}metadata.annotations", draft.base),
            None => format!("{}spec.nodeName", draft.base),
        };
        let Some(node) = annotated.or_else(|| draft.spec.node_name.clone()).filter(|node| !node.is_empty())
        else {
            return;
        };
        if self.cluster.nodes.iter().any(|n| n.name == node) {
            draft.node = Some(node);
            return;
        }
        let known: Vec<&str> = self.cluster.nodes.iter().map(|n| n.name.as_str()).take(10).collect();
        let message = format!(
            "there is no node {node:?}; there are {}; add a Node object for others",
            known.join(", ")
        );
        self.fault(draft.at, &path, message);
    }

    /// Whether the pod was where it is to be now.
    fn was_there(&self, draft: &Draft<'_>) -> bool {
        let before = self.before.pods.get(&draft.full_name());
        before.is_some_and(|before| draft.node.as_ref() == Some(&before.node))
    }

    /// Takes the ports of the node that a pod is told to be on.
    fn claim_ports(&mut self, draft: &Draft<'a>) {
        let Some(node) = self.cluster.nodes.iter().find(|node| Some(&node.name) == draft.node.as_ref())
        else {
            return;
        };
        match self.port_holders.taken(node, &draft.host_ports) {
            Some(((path, port), holder)) => {
                let message = format!(
                    "port {port} of {} belongs to the pod {holder} already; take another port or another node",
                    node.name
                );
                self.fault(draft.at, &format!("{}{path}.hostPort", draft.base), message);
            }
            None => self.port_holders.take(node, &draft.host_ports, &draft.full_name()),
        }
    }

    /// Takes back what the pod had before, where that is still there and it asks for nothing else.
    fn remember_pod(&mut self, draft: &mut Draft<'a>) {
        let Some(before) = self.before.pods.get(&draft.full_name()) else { return };
        let there = self.cluster.nodes.iter().find(|node| node.name == before.node);
        if let Some(node) = there
            && draft.node.is_none()
            && selects(&draft.spec, &node.labels)
            && self.port_holders.taken(node, &draft.host_ports).is_none()
        {
            self.port_holders.take(node, &draft.host_ports, &draft.full_name());
            draft.node = Some(node.name.clone());
        }
        let addresses = if draft.on_host() { &[][..] } else { &before.addresses };
        for &address in addresses {
            let asked = draft.addresses.iter().any(|a| same_family(*a, address));
            if !asked && self.home(address).is_some() && self.used.take(address) {
                draft.addresses.push(address);
            }
        }
    }

    /// The node and its prefix that an address comes from.
    fn home(&self, address: IpAddr) -> Option<(&str, IpNet)> {
        self.cluster.nodes.iter().find_map(|node| {
            let gateway = node.gateways.iter().find(|gateway| gateway.contains(&address))?;
            Some((node.name.as_str(), gateway.trunc()))
        })
    }

    /// Gives the pod what it has not yet.
    fn settle_pod(&mut self, mut draft: Draft<'a>, load: &mut BTreeMap<String, usize>) {
        let node = match &draft.node {
            Some(node) => node.clone(),
            None => match self.emptiest(&draft, load) {
                Ok(node) => {
                    *load.entry(node.clone()).or_default() += 1;
                    node
                }
                Err((path, message)) => {
                    return self.fault(draft.at, &format!("{}{path}", draft.base), message);
                }
            },
        };
        let own = self.own_addresses(&mut draft, &node);
        let allocation = Allocation { node: node.clone(), pod_cidrs: Vec::new(), addresses: own };
        self.allocations.pods.insert(draft.full_name(), allocation);
        let place = Place::Pod { namespace: draft.namespace.clone(), name: draft.name.clone() };
        let mut faults = Vec::new();
        let mut workload = workload(
            place.netns(&self.cluster.name),
            format!("{}_{}", draft.namespace, draft.name),
            &draft.addresses,
            &draft.spec,
            &self.cluster.images,
            &mut faults,
        );
        workload.links = (draft.spec.enable_service_links != Some(false)).then(|| draft.namespace.clone());
        workload.probed_from = Some(Place::Node(node.clone()).netns(&self.cluster.name));
        for (path, message) in faults {
            self.fault(draft.at, &format!("{}{path}", draft.base), message);
        }
        let netns = draft.annotations.get(NETNS_ANNOTATION).map(|text| existing(text));
        if let Some(Err(message)) = &netns {
            self.fault(draft.at, &format!("{}metadata.annotations", draft.base), message.clone());
        }
        let weight = weight(Some(&draft.annotations)).unwrap_or_else(|(path, message)| {
            self.fault(draft.at, &format!("{}{path}", draft.base), message);
            1
        });
        if draft.on_host() && netns.is_some() {
            let message = format!(
                "{NETNS_ANNOTATION}: with hostNetwork the namespace is the node's; leave one of them out"
            );
            self.fault(draft.at, &format!("{}metadata.annotations", draft.base), message);
        }
        let on_host = draft.on_host();
        // Its ports are the node's already: nothing leads to them.
        let led_to = draft.host_ports.iter().filter(|_| !on_host);
        self.cluster.pods.push(Pod {
            weight,
            host_network: on_host,
            host_ports: led_to.map(|(_, port)| *port).collect(),
            netns: netns.and_then(Result::ok),
            workload: Arc::new(workload),
            replacement: draft.replacement,
            namespace: draft.namespace,
            name: draft.name,
            node,
            addresses: draft.addresses,
            labels: draft.labels,
            spec: draft.spec,
        });
    }

    /// Completes the pod's addresses, and returns those that are its own to keep.
    fn own_addresses(&mut self, draft: &mut Draft<'a>, node: &str) -> Vec<IpAddr> {
        let Some(node) = self.cluster.nodes.iter().find(|n| n.name == node).cloned() else {
            return Vec::new();
        };
        if draft.on_host() {
            draft.addresses = node.addresses;
            draft.addresses.sort_by_key(IpAddr::is_ipv6);
            return Vec::new();
        }
        self.warn_of_unreached(draft.at, draft.base, &node, &draft.host_ports);
        for prefix in node.gateways.iter().map(IpNet::trunc) {
            if draft.addresses.iter().any(|a| same_family(*a, prefix.addr())) {
                continue;
            }
            match self.used.lowest(prefix) {
                Some(address) => draft.addresses.push(address),
                None => {
                    let (name, node) = (draft.full_name(), &node.name);
                    let message = format!("no address of {prefix} is left for the pod {name} on {node}");
                    self.fault(draft.at, "", message);
                }
            }
        }
        // IPv4 first, whatever order it was asked in.
        draft.addresses.sort_by_key(IpAddr::is_ipv6);
        draft.addresses.clone()
    }

    /// The node with the fewest pods of those that the pod may be on, the first of several, or why there is none.
    fn emptiest(
        &mut self,
        draft: &Draft<'_>,
        load: &BTreeMap<String, usize>,
    ) -> Result<String, (String, String)> {
        let fit = || self.cluster.nodes.iter().filter(|node| selects(&draft.spec, &node.labels));
        let taken = |node: &&Node| self.port_holders.taken(node, &draft.host_ports);
        let free = fit().filter(|node| taken(node).is_none());
        if let Some(node) = free.min_by_key(|node| load.get(&node.name).copied().unwrap_or(0)) {
            self.port_holders.take(node, &draft.host_ports, &draft.full_name());
            return Ok(node.name.clone());
        }
        Err(match fit().find_map(|node| Some((node, taken(&node)?))) {
            Some((node, ((path, port), holder))) => {
                let message = format!(
                    "no node that the pod {} may be on has port {port} free: on {} it belongs to the pod {holder}",
                    draft.full_name(),
                    node.name
                );
                (format!("{path}.hostPort"), message)
            }
            None => ("spec.nodeSelector".to_owned(), "no node has the labels that it selects".to_owned()),
        })
    }
}

/// Whether a pod may be on a node with these labels.
fn selects(spec: &PodSpec, labels: &Labels) -> bool {
    spec.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value))
}

/// Reads the annotation [`NETNS_ANNOTATION`].
fn existing(text: &str) -> Result<Existing, String> {
    let wrong = || {
        format!(
            "{NETNS_ANNOTATION}: {text:?} is neither /PATH nor pid:NUMBER nor a name as `ip netns` has it"
        )
    };
    let existing = match text.strip_prefix("pid:") {
        Some(pid) => Existing::Pid(pid.parse().map_err(|_| wrong())?),
        None if text.starts_with('/') => Existing::Path(text.into()),
        None => Existing::Name(text.to_owned()),
    };
    existing.validate().map_err(|_| wrong())?;
    Ok(existing)
}
