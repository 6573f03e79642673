//! What of a cluster policies are concerned with, and keeping a compiler in step with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use netstack::policy::Policies;

use super::compiler::Compiler;
use super::spec::{Defaults, PolicySpec};
use super::stations::{NodeFacts, PodFacts};
use crate::cluster::{Cluster, Labels, Node, Pod, Protocol};
use crate::names;

/// What the name server's ports are called, as those of the server of `kubeadm` and `kind`. Policies know it by its namespace
/// and its label.
const NAME_SERVER_PORTS: [(&str, Protocol); 2] = [("dns", Protocol::Udp), ("dns-tcp", Protocol::Tcp)];
/// The label that it has.
const NAME_SERVER_LABEL: &str = "k8s-app";
/// What the compiler calls it; no pod's name has two slashes.
const NAME_SERVER: &str = "kube-system/kube-dns/";

/// The policies of a cluster, and the labels that they select namespaces by.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClusterPolicies {
    /// By title.
    pub policies: BTreeMap<Arc<str>, Arc<PolicySpec>>,
    /// Namespaces that there are objects of.
    pub namespaces: BTreeMap<String, Labels>,
    /// What holds where no policy says anything.
    pub defaults: Defaults,
}

/// A compiler, and what it was told.
#[derive(Debug, Default)]
pub struct Keeper {
    compiler: Compiler,
    told: Arc<ClusterPolicies>,
    pods: BTreeSet<Arc<str>>,
    nodes: BTreeSet<Arc<str>>,
    /// What each node enforces.
    enforced: BTreeMap<Arc<str>, Arc<Policies>>,
}

impl Keeper {
    /// Takes in another cluster, or another state of it.
    pub fn update(&mut self, cluster: &Cluster) {
        self.objects(&cluster.policies);
        let mut left = std::mem::take(&mut self.nodes);
        for node in &cluster.nodes {
            let name: Arc<str> = left.take(node.name.as_str()).unwrap_or_else(|| node.name.as_str().into());
            self.compiler.set_node(&name, Some(node_facts(node)));
            self.nodes.insert(name);
        }
        for name in left {
            self.compiler.set_node(&name, None);
            self.enforced.remove(&name);
        }
        let mut left = std::mem::take(&mut self.pods);
        // Who is gone first: his address may be another's now.
        let mut told = Vec::new();
        for pod in cluster.pods.iter().filter(|pod| !pod.host_network) {
            let name = format!("{}/{}", pod.namespace, pod.name);
            let name: Arc<str> = left.take(name.as_str()).unwrap_or_else(|| name.into());
            told.push((name, pod_facts(pod)));
        }
        let servers = &cluster.services.names.servers;
        if !servers.is_empty() {
            let name = left.take(NAME_SERVER).unwrap_or_else(|| NAME_SERVER.into());
            told.push((name, name_server(servers)));
        }
        left.into_iter().for_each(|name| self.compiler.set_pod(&name, None));
        for (name, facts) in told {
            self.compiler.set_pod(&name, Some(facts));
            self.pods.insert(name);
        }
        for (node, policies) in self.compiler.publish() {
            match policies {
                Some(policies) => self.enforced.insert(node, policies),
                None => self.enforced.remove(&node),
            };
        }
    }

    fn objects(&mut self, policies: &Arc<ClusterPolicies>) {
        let before = std::mem::replace(&mut self.told, Arc::clone(policies));
        if Arc::ptr_eq(&before, policies) {
            return;
        }
        self.compiler.set_defaults(policies.defaults);
        for name in before.namespaces.keys().chain(policies.namespaces.keys()) {
            self.compiler.set_namespace(name, policies.namespaces.get(name));
        }
        for title in before.policies.keys().filter(|title| !policies.policies.contains_key(*title)) {
            self.compiler.set_policy(title, None);
        }
        for (title, spec) in &policies.policies {
            self.compiler.set_policy(title, Some(Arc::clone(spec)));
        }
    }

    /// The pods that a policy of this title is about.
    pub fn selected(&self, title: &str) -> Vec<Arc<str>> {
        self.compiler.selected(title)
    }

    /// Whether what is denied is let through all the same.
    pub fn audits(&self) -> bool {
        self.told.defaults.audits
    }

    /// What the switch of this node is to enforce, if anything.
    pub fn of(&self, node: &str) -> Option<&Arc<Policies>> {
        self.enforced.get(node)
    }
}

fn node_facts(node: &Node) -> NodeFacts {
    // Not its proxy: what comes from there is others'.
    let inside = node.gateways.iter().map(ipnet::IpNet::addr);
    NodeFacts { labels: node.labels.clone(), addresses: node.addresses.clone(), inside: inside.collect() }
}

fn pod_facts(pod: &Pod) -> PodFacts {
    let ports = pod.spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let protocol = Protocol::by_name(port.protocol.as_deref().unwrap_or("TCP"))?;
        let number = u16::try_from(port.container_port).ok()?;
        Some((port.name.clone()?, protocol.number(), number))
    });
    PodFacts {
        namespace: pod.namespace.clone(),
        labels: pod.labels.clone(),
        addresses: pod.addresses.clone(),
        node: Some(pod.node.as_str().into()),
        ports: named.collect(),
    }
}

fn name_server(servers: &[IpAddr]) -> PodFacts {
    let ports = NAME_SERVER_PORTS.map(|(name, protocol)| (name.to_owned(), protocol.number(), names::PORT));
    PodFacts {
        namespace: names::NAMESPACE.to_owned(),
        labels: [(NAME_SERVER_LABEL.to_owned(), names::NAME.to_owned())].into(),
        addresses: servers.to_vec(),
        node: None,
        ports: ports.into(),
    }
}
