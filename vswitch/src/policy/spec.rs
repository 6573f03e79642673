//! A policy, whichever kind of object says it.

use netstack::policy::{Action, Block};

use super::selector::Selector;
use crate::cluster::Labels;

/// What a namespace is called by a label that each has.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// When a policy is asked. In this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Tier {
    /// Before all others.
    Admin,
    /// `NetworkPolicy`.
    Policy,
    /// Where no `NetworkPolicy` isolates.
    Baseline,
}

impl Tier {
    /// Its name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Policy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        }
    }
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicySpec {
    /// Its namespace, if it is in one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// When it is asked.
    pub tier: Tier,
    /// Within its tier; lower ones first.
    pub priority: i32,
    /// The pods it is about.
    pub subject: PodSelector,
    /// What may be opened to them; none if it says nothing of that.
    pub ingress: Option<Vec<RuleSpec>>,
    /// What they may open.
    pub egress: Option<Vec<RuleSpec>>,
}

impl PolicySpec {
    /// What it is called in messages: `NetworkPolicy NAMESPACE/NAME`, `ClusterNetworkPolicy NAME`.
    pub fn title(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("NetworkPolicy {namespace}/{}", self.name),
            None => format!("ClusterNetworkPolicy {}", self.name),
        }
    }
}

/// Pods by their namespace and their labels.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PodSelector {
    /// Which namespaces.
    pub namespaces: Namespaces,
    /// Which of the pods there.
    pub pods: Selector,
}

/// Namespaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Namespaces {
    /// The one of this name.
    Named(String),
    /// Those with such labels.
    Labelled(Selector),
}

impl PodSelector {
    /// Whether it selects a pod with these labels in a namespace of this name with those.
    pub fn selects(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> bool {
        let inside = match &self.namespaces {
            Namespaces::Named(name) => name == namespace,
            Namespaces::Labelled(selector) => selector.selects(of_namespace),
        };
        inside && self.pods.selects(labels)
    }
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleSpec {
    /// What becomes of what it matches.
    pub action: Action,
    /// Who is at the other end; everybody if none.
    pub peers: Option<Vec<PeerSpec>>,
    /// What is asked for; anything if none.
    pub ports: Option<Vec<PortSpec>>,
}

/// Somebody at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerSpec {
    /// Pods.
    Pods(PodSelector),
    /// Nodes.
    Nodes(Selector),
    /// Addresses.
    Block(Block),
}

/// Ports of a protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortSpec {
    /// All of them.
    Protocol(u8),
    /// From the first to the last.
    Range {
        /// IP protocol number.
        protocol: u8,
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// Whatever the pod that is asked calls so.
    Named {
        /// IP protocol number.
        protocol: u8,
        /// The name.
        name: String,
    },
}

/// What holds where no policy says anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Defaults {
    /// Whether nothing is let through.
    pub denies: bool,
    /// Whether what is denied is only counted.
    pub audits: bool,
}

/// The labels of a namespace: its own, and its name.
pub fn with_name(namespace: &str, labels: Option<&Labels>) -> Labels {
    let mut labels = labels.cloned().unwrap_or_default();
    labels.insert(NAMESPACE_NAME.to_owned(), namespace.to_owned());
    labels
}
