//! Texts into objects.
//!
//! # Theory of operation
//! A large text is read in parts of some documents each, by as many threads as there are processors. What is found is put
//! together in the order of the texts, so that it cannot be seen how many there were.

use std::collections::HashMap;
use std::sync::Arc;

use super::kind::{self, Key, Kind, Known};
use super::tree::{self, Fault, Mark, Node, Part, Value};
use super::{Invalid, Located, Manifests, Problem, Source, Strictness, effect, parallel, schema};

/// Reads all objects of all texts.
///
/// # Errors
/// Every fault of every text.
pub fn load(sources: &[Source], strictness: Strictness) -> Result<Manifests, Invalid> {
    let mut parts: Vec<(&Source, Part<'_>)> = Vec::new();
    for source in sources {
        parts.extend(tree::parts(&source.text).into_iter().map(|part| (source, part)));
    }
    let read = parallel::each(&parts, |(source, part)| {
        let mut reader = Reader {
            file: &source.name,
            strictness,
            found: Vec::new(),
            standings: effect::Standings::default(),
        };
        tree::read(part).map(|documents| {
            documents.into_iter().for_each(|document| reader.document(document));
            reader.found
        })
    });
    let mut merger = Merger::default();
    let mut all = parts.iter().map(|(source, _)| *source).zip(read).peekable();
    while let Some((source, first)) = all.next() {
        let mut of_source = vec![first];
        while let Some((_, more)) = all.next_if(|(other, _)| std::ptr::eq(*other, source)) {
            of_source.push(more);
        }
        merger.source(&source.name, of_source);
    }
    if merger.faults.is_empty() { Ok(merger.read) } else { Err(Invalid::new(merger.faults)) }
}

fn problem(file: &Arc<str>, mark: Mark, subject: String, message: String) -> Problem {
    Problem { file: Arc::clone(file), mark, subject, message }
}

/// Something in a part.
enum Found {
    Fault(Problem),
    Warning(Problem),
    /// With the warning that some of its fields have no effect.
    Object(Located, Option<Problem>),
}

/// Puts together what is in parts.
#[derive(Default)]
struct Merger {
    read: Manifests,
    faults: Vec<Problem>,
    /// Objects by name, and which of those read it is.
    seen: HashMap<Key, usize>,
}

impl Merger {
    fn source(&mut self, file: &Arc<str>, parts: Vec<Result<Vec<Found>, Fault>>) {
        // What is no YAML says nothing.
        match parts.into_iter().collect::<Result<Vec<_>, Fault>>() {
            Ok(parts) => parts.into_iter().flatten().for_each(|found| self.found(found)),
            Err(fault) => self.faults.push(problem(file, fault.mark, String::new(), fault.message)),
        }
    }

    fn found(&mut self, found: Found) {
        match found {
            Found::Fault(fault) => self.faults.push(fault),
            Found::Warning(warning) => self.read.warnings.push(warning),
            Found::Object(located, warning) => {
                let key = located.object.key();
                if let Some(first) = self.seen.get(&key).and_then(|at| self.read.objects.get(*at)) {
                    let message = format!("is defined twice; first at {}", first.place());
                    let who = subject(key.kind, &located.tree);
                    return self.faults.push(problem(&located.file, located.tree.mark, who, message));
                }
                self.seen.insert(key, self.read.objects.len());
                self.read.objects.push(located);
                self.read.warnings.extend(warning);
            }
        }
    }
}

/// Reads the documents of one part.
struct Reader<'a> {
    file: &'a Arc<str>,
    strictness: Strictness,
    found: Vec<Found>,
    standings: effect::Standings,
}

impl Reader<'_> {
    fn fault(&mut self, mark: Mark, subject: String, message: String) {
        self.found.push(Found::Fault(problem(self.file, mark, subject, message)));
    }

    fn warn(&mut self, mark: Mark, subject: String, message: String) {
        self.found.push(Found::Warning(problem(self.file, mark, subject, message)));
    }

    fn document(&mut self, node: Node) {
        if !matches!(node.value, Value::Map(_)) {
            let message = "should be an object with apiVersion and kind".to_owned();
            return self.fault(node.mark, String::new(), message);
        }
        let text = |field| node.get(field).and_then(Node::text);
        let (Some(api_version), Some(name)) = (text("apiVersion"), text("kind")) else {
            let missing = if text("kind").is_some() { "apiVersion" } else { "kind" };
            return self.fault(node.mark, String::new(), format!("`{missing}` is missing or no string"));
        };
        if (api_version, name) == ("v1", "List") {
            return self.list(node);
        }
        match kind::find(api_version, name) {
            Known::Kind(kind) => self.object(node, kind),
            Known::WithoutEffect => {
                self.warn(node.mark, subject(name, &node), "objects of this kind have no effect here".into());
            }
            Known::Unknown(message) => {
                let mark = node.get("kind").map_or(node.mark, |kind| kind.mark);
                self.fault(mark, String::new(), message);
            }
        }
    }

    fn list(&mut self, node: Node) {
        let mark = node.mark;
        let Value::Map(entries) = node.value else { return };
        let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.value);
        match items {
            Some(Value::List(items)) => items.into_iter().for_each(|item| self.document(item)),
            _ => self.fault(mark, "List".into(), "`items` is missing or no list".into()),
        }
    }

    fn object(&mut self, node: Node, kind: &'static Kind) {
        let who = || subject(kind.name, &node);
        let mut sound = true;
        let faults = schema::check(&node, kind.schema, kind.name);
        let knows_all = faults.is_empty();
        for fault in faults {
            let subject = format!("{}: {}", who(), fault.path).trim_end_matches([':', ' ']).to_owned();
            if fault.unknown && self.strictness == Strictness::Lenient {
                self.warn(fault.mark, subject, fault.message);
            } else {
                sound = false;
                self.fault(fault.mark, subject, fault.message);
            }
        }
        if !sound {
            return;
        }
        let object = match (kind.decode)(&node) {
            Ok(object) => object,
            Err(error) => return self.fault(node.mark, who(), error.to_string()),
        };
        if object.metadata().name.as_deref().unwrap_or_default().is_empty() && kind.name != "Cluster" {
            return self.fault(node.mark, kind.name.into(), "`metadata.name` is missing".into());
        }
        // Fields that do not exist have no effect either, and have been told.
        let idle = if knows_all { self.standings.without(kind.name, &node) } else { None };
        let warning = idle.map(|message| problem(self.file, node.mark, who(), message));
        let located = Located { object, file: Arc::clone(self.file), tree: Arc::new(node) };
        self.found.push(Found::Object(located, warning));
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
