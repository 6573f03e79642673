//! Manifests: ordinary Kubernetes objects, read strictly.
//!
//! # Theory of operation
//! A text becomes a tree with places, each of its documents an object of a known kind, and the tree is
//! held against the kind's JSON schema before it is decoded into the type: the types alone would read past a field that
//! does not exist. So every fault is told with file, line, column and field, all of them at once, and a name that was
//! probably meant. What exists in Kubernetes and has no effect here is a warning.
//!
//! Nothing in here knows what objects mean to each other; that is the business of the cluster's model.

mod cluster;
mod decode;
mod effect;
mod kind;
mod load;
mod metallb;
pub mod parallel;
mod policy;
mod schema;
mod tree;

use std::fmt;
use std::sync::Arc;

pub use cluster::{
    API_VERSION, Cluster, ClusterSpec, DefaultPolicy, DnsSpec, EgressMode, EgressOpening, EgressPolicySpec,
    HostSpec, PolicyMode, PortsSpec, ProxyMode, RecordSpec, SegmentSpec, StormControlSpec,
};
pub use effect::EFFECTS;
pub use kind::{Key, Object, pod_spec_json};
pub use load::load;
pub use metallb::{AdvertisementSpec, IPAddressPool, L2Advertisement, PoolSpec, ServiceAllocationSpec};
pub use policy::{
    ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, ClusterPolicySpec, NamespacedPods,
    PolicyAction, PolicyDestination, PolicyPort, PolicyPortRange, PolicyPorts, PolicyProtocol, PolicySubject,
    PolicyTier,
};
pub use tree::{MAX_DEPTH, MAX_NODES, MAX_TEXT, Mark};

use self::kind::Known;
use self::tree::{Node, Value};

/// Problems told of one load; more are only counted.
const MAX_PROBLEMS: usize = 50;

/// A text and the name to call it by in messages.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file's name, or `<stdin>`.
    pub name: Arc<str>,
    /// What is in it.
    pub text: String,
}

/// Something to tell about a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where: file, line and column.
    pub file: Arc<str>,
    /// See `file`.
    pub mark: Mark,
    /// What it is about: an object and the field in it, as far as known.
    pub subject: String,
    /// What is wrong and, where that is not plain, what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.mark.line, self.mark.column)?;
        if !self.subject.is_empty() {
            write!(f, "{}: ", self.subject)?;
        }
        f.write_str(&self.message)
    }
}

/// An object and where it came from.
#[derive(Clone, Debug)]
pub struct Located {
    /// The object.
    pub object: Object,
    file: Arc<str>,
    tree: Arc<Node>,
}

impl Located {
    /// Objects that were kept as texts of JSON, in the file that messages call `file`.
    ///
    /// # Errors
    /// What is wrong with one of them, which only another hand can have done.
    pub fn kept(texts: &[&str], file: &Arc<str>) -> Result<Vec<Self>, String> {
        parallel::each(texts, |text| Self::kept_one(text, file)).into_iter().collect()
    }

    fn kept_one(text: &str, file: &Arc<str>) -> Result<Self, String> {
        let node: Node = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let word = |field| node.get(field).and_then(Node::text).unwrap_or_default();
        let kind = match kind::find(word("apiVersion"), word("kind")) {
            Known::Kind(kind) => kind,
            Known::WithoutEffect => return Err(format!("there is an object of the kind {}", word("kind"))),
            Known::Unknown(message) => return Err(message),
        };
        let object = (kind.decode)(&node).map_err(|error| error.to_string())?;
        let tree = Arc::new(Node { mark: Mark::BEGIN, value: Value::Null });
        Ok(Self { object, file: Arc::clone(file), tree })
    }

    /// Forgets where its fields stand, which takes several times the room of the object itself: from here on every problem
    /// stands where the object begins.
    pub fn forget_fields(&mut self) {
        self.tree = Arc::new(Node { mark: self.tree.mark, value: Value::Null });
    }

    /// Something to tell about a field of this object, `spec.containers[0].name`; the place is that of the field, or of
    /// what is nearest above it in the text.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let subject = match path {
            "" => self.object.to_string(),
            path => format!("{}: {path}", self.object),
        };
        Problem { file: self.file.clone(), mark: self.tree.mark_at(path), subject, message: message.into() }
    }

    /// Where it begins: file, line and column.
    pub fn place(&self) -> String {
        format!("{}:{}:{}", self.file, self.tree.mark.line, self.tree.mark.column)
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// The objects, in the order of the texts.
    pub objects: Vec<Located>,
    /// What has no effect.
    pub warnings: Vec<Problem>,
}

/// Why nothing was read: one problem at least.
#[derive(Clone, Debug, Default, thiserror::Error)]
pub struct Invalid {
    /// The problems, in the order of the texts, as far as there is room.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more: usize,
}

impl Invalid {
    /// Of all these the first ones, and how many more there are.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
        Self { problems, more }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n(and {more} more)"),
        }
    }
}

/// How strictly fields are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strictness {
    /// A field that does not exist is an error.
    #[default]
    Strict,
    /// A field that does not exist is a warning.
    Lenient,
}

impl Strictness {
    /// Lenient for whoever asks for it.
    pub const fn lenient_if(lenient: bool) -> Self {
        if lenient { Self::Lenient } else { Self::Strict }
    }
}

#[cfg(test)]
mod tests;
