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
mod effect;
mod kind;
mod metallb;
mod schema;
mod tree;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub use cluster::{
    API_VERSION, Cluster, ClusterSpec, HostSpec, PortsSpec, ProxyMode, SegmentSpec, StormControlSpec,
};
pub use effect::EFFECTS;
pub use kind::{Key, Object, pod_spec_json};
pub use metallb::{AdvertisementSpec, IPAddressPool, L2Advertisement, PoolSpec, ServiceAllocationSpec};
pub use tree::{MAX_DEPTH, MAX_NODES, MAX_TEXT, Mark};

use self::kind::{Kind, Known};
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
    /// An object that was kept as JSON, in the file that messages call `file`.
    ///
    /// # Errors
    /// What is wrong with it, which only another hand can have done.
    pub fn kept(json: serde_json::Value, file: &Arc<str>) -> Result<Self, String> {
        let text = |field| json.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        let kind = match kind::find(text("apiVersion"), text("kind")) {
            Known::Kind(kind) => kind,
            Known::WithoutEffect => return Err(format!("there is an object of the kind {}", text("kind"))),
            Known::Unknown(message) => return Err(message),
        };
        let object = (kind.decode)(json).map_err(|error| error.to_string())?;
        let tree = Arc::new(Node { mark: Mark { line: 1, column: 1 }, value: Value::Null });
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

/// Reads all objects of all texts.
///
/// # Errors
/// Every fault of every text.
pub fn load(sources: &[Source], strictness: Strictness) -> Result<Manifests, Invalid> {
    let mut loader = Loader {
        strictness,
        read: Manifests::default(),
        faults: Vec::new(),
        seen: HashMap::new(),
        standings: effect::Standings::default(),
    };
    for source in sources {
        match tree::read(&source.text) {
            Ok(documents) => {
                documents.into_iter().for_each(|document| loader.document(&source.name, document));
            }
            Err(fault) => loader.fault(&source.name, fault.mark, String::new(), fault.message),
        }
    }
    if loader.faults.is_empty() { Ok(loader.read) } else { Err(Invalid::new(loader.faults)) }
}

struct Loader {
    strictness: Strictness,
    read: Manifests,
    faults: Vec<Problem>,
    /// Objects by name, and where each stands.
    seen: HashMap<Key, (Arc<str>, Mark)>,
    standings: effect::Standings,
}

impl Loader {
    fn fault(&mut self, file: &Arc<str>, mark: Mark, subject: String, message: String) {
        self.faults.push(Problem { file: file.clone(), mark, subject, message });
    }

    fn warn(&mut self, file: &Arc<str>, mark: Mark, subject: String, message: String) {
        self.read.warnings.push(Problem { file: file.clone(), mark, subject, message });
    }

    fn document(&mut self, file: &Arc<str>, node: Node) {
        if !matches!(node.value, Value::Map(_)) {
            let message = "should be an object with apiVersion and kind".to_owned();
            return self.fault(file, node.mark, String::new(), message);
        }
        let text = |field| node.get(field).and_then(Node::text);
        let (Some(api_version), Some(name)) = (text("apiVersion"), text("kind")) else {
            let missing = if text("kind").is_some() { "apiVersion" } else { "kind" };
            return self.fault(
                file,
                node.mark,
                String::new(),
                format!("`{missing}` is missing or no string"),
            );
        };
        if (api_version, name) == ("v1", "List") {
            return self.list(file, node);
        }
        match kind::find(api_version, name) {
            Known::Kind(kind) => self.object(file, node, kind),
            Known::WithoutEffect => {
                self.warn(
                    file,
                    node.mark,
                    subject(name, &node),
                    "objects of this kind have no effect here".into(),
                );
            }
            Known::Unknown(message) => {
                let mark = node.get("kind").map_or(node.mark, |kind| kind.mark);
                self.fault(file, mark, String::new(), message);
            }
        }
    }

    fn list(&mut self, file: &Arc<str>, node: Node) {
        let mark = node.mark;
        let Value::Map(entries) = node.value else { return };
        let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.value);
        match items {
            Some(Value::List(items)) => items.into_iter().for_each(|item| self.document(file, item)),
            _ => self.fault(file, mark, "List".into(), "`items` is missing or no list".into()),
        }
    }

    fn object(&mut self, file: &Arc<str>, node: Node, kind: &'static Kind) {
        let before = (self.faults.len(), self.read.warnings.len());
        let who = subject(kind.name, &node);
        for fault in schema::check(&node, kind.schema, kind.name) {
            let subject = format!("{who}: {}", fault.path).trim_end_matches([':', ' ']).to_owned();
            if fault.unknown && self.strictness == Strictness::Lenient {
                self.warn(file, fault.mark, subject, fault.message);
            } else {
                self.fault(file, fault.mark, subject, fault.message);
            }
        }
        if self.faults.len() > before.0 {
            return;
        }
        let object = match (kind.decode)(node.to_json()) {
            Ok(object) => object,
            Err(error) => return self.fault(file, node.mark, who, error.to_string()),
        };
        if object.metadata().name.as_deref().unwrap_or_default().is_empty() && kind.name != "Cluster" {
            return self.fault(file, node.mark, kind.name.into(), "`metadata.name` is missing".into());
        }
        let key = object.key();
        if let Some((other, first)) = self.seen.get(&key) {
            let first = format!("{other}:{}:{}", first.line, first.column);
            return self.fault(file, node.mark, who, format!("is defined twice; first at {first}"));
        }
        self.seen.insert(key, (file.clone(), node.mark));
        // Fields that do not exist have no effect either, and have been told.
        if self.read.warnings.len() == before.1
            && let Some(message) = self.standings.without(kind.name, &node)
        {
            self.warn(file, node.mark, who, message);
        }
        self.read.objects.push(Located { object, file: file.clone(), tree: Arc::new(node) });
    }
}

/// How messages call an object.
fn subject(kind: &str, node: &Node) -> String {
    let field = |name| node.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Node::text);
    match (field("namespace"), field("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests;
