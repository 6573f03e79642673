//! YAML (and so JSON) as a tree that knows where everything stands.
//!
//! # Theory of operation
//! The parser's events are put together here, and not by a ready-made loader, because what is read may be hostile: depth,
//! nodes and what aliases unfold to are bounded while reading, and the first breach ends it. Every node keeps the line and
//! column it began at, so that whoever finds a fault later can say where.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use saphyr::{Marker, Scalar};
use saphyr_parser::{Event, Parser};

/// Octets in one file.
pub const MAX_TEXT: usize = 16 << 20;
/// Nodes in one file, with everything that aliases repeat.
pub const MAX_NODES: usize = 1 << 20;
/// Lists and mappings inside one another.
pub const MAX_DEPTH: usize = 64;

/// A place in a file; both count from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

impl Mark {
    /// Where a text begins.
    pub(super) const BEGIN: Self = Self { line: 1, column: 1 };

    /// Where a marker stands in a part with so many lines before it. No text is so long that it could not be said.
    fn of(marker: &Marker, lines: usize) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: number(lines + marker.line()), column: number(marker.col() + 1) }
    }
}

/// Something is wrong at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) mark: Mark,
    pub(super) message: String,
}

/// A value and where it begins.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) value: Value,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a mapping.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) mark: Mark,
    pub(super) value: Node,
}

impl Node {
    /// The value of a field, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Map(_) => None,
        }
    }

    /// Where the field at `path` stands, `a.b[0].c`, or what is nearest above it.
    pub(super) fn mark_at(&self, path: &str) -> Mark {
        let (mut node, mut mark) = (self, self.mark);
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let found = match &node.value {
                Value::List(items) => {
                    let index: Option<usize> = step.trim_end_matches(']').parse().ok();
                    index.and_then(|index| items.get(index)).map(|item| (item, item.mark))
                }
                Value::Map(entries) => {
                    entries.iter().find(|entry| entry.key == step).map(|entry| (&entry.value, entry.mark))
                }
                Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => None,
            };
            let Some((next, there)) = found else { return mark };
            (node, mark) = (next, there);
        }
        mark
    }
}

/// Nodes of a part that are counted together.
const SOME_NODES: usize = 256;
/// Octets of a part from which on it ends with the document that they are in.
const PART: usize = 128 << 10;

/// Whole documents of a text.
#[derive(Debug)]
pub(super) struct Part<'a> {
    text: &'a str,
    /// Lines of the text before it.
    lines: usize,
    /// Nodes in all parts of the text.
    nodes: Arc<AtomicUsize>,
}

/// The parts that a text can be read in, each by itself. One that is too long is not divided.
pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let nodes = Arc::new(AtomicUsize::new(0));
    let mut parts = Vec::new();
    let (mut rest, mut lines) = (text, 0);
    // Directives are of the document behind them, and lines may end in other ways: such texts are read as a whole.
    let divisible = text.len() <= MAX_TEXT
        && !(text.starts_with('%') || text.contains("\n%") || text.contains("\n...") || text.contains('\r'));
    while let Some(end) = divisible.then(|| document_after(rest, PART)).flatten() {
        let (part, behind) = rest.split_at(end);
        parts.push(Part { text: part, lines, nodes: Arc::clone(&nodes) });
        lines += part.bytes().filter(|octet| *octet == b'\n').count();
        rest = behind;
    }
    parts.push(Part { text: rest, lines, nodes });
    parts
}

/// Where the first document begins behind so many octets: no line of a document looks as the one that begins it (YAML
/// 1.2.2, section 9.1.2).
fn document_after(text: &str, octets: usize) -> Option<usize> {
    const BEGIN: &str = "\n---";
    let mut from = text.floor_char_boundary(octets);
    loop {
        let at = from + text[from..].find(BEGIN)?;
        from = at + BEGIN.len();
        if text[from..].starts_with([' ', '\t', '\n']) {
            return Some(at + 1);
        }
    }
}

/// Reads all documents of a part; an empty one is left out.
///
/// # Errors
/// The first thing that is no YAML, that JSON could not say, or that is over a bound.
pub(super) fn read(part: &Part<'_>) -> Result<Vec<Node>, Fault> {
    if part.text.len() > MAX_TEXT {
        let size = part.text.len() >> 20;
        let message = format!("the file has {size} MiB; at most {} are read", MAX_TEXT >> 20);
        return Err(Fault { mark: Mark::BEGIN, message });
    }
    let place = |marker: &Marker| Mark::of(marker, part.lines);
    let mut builder = Builder::new(&part.nodes);
    let mut last = Mark::BEGIN;
    for event in Parser::new_from_str(part.text) {
        let (event, span) =
            event.map_err(|error| Fault { mark: place(error.marker()), message: error.info().to_owned() })?;
        last = place(&span.start);
        builder.take(event, last)?;
    }
    builder.count_all(last)?;
    Ok(builder.documents)
}

/// A list or a mapping whose end has not come yet.
#[derive(Debug)]
struct Open {
    mark: Mark,
    anchor: usize,
    /// How many items, or fields, those around it have so far.
    around: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    List,
    Map(Names),
}

/// Fields of a mapping from which on their names are found by a table: most mappings have fewer.
const MANY_FIELDS: usize = 16;

/// The names of a mapping's fields: once they are many the lines of each, and the name of the next one.
#[derive(Debug, Default)]
struct Names {
    lines: HashMap<String, u32>,
    next: Option<(String, Mark)>,
}

impl Names {
    /// The line of a name that one of `fields` has.
    fn line_of(&mut self, key: &str, fields: &[Entry]) -> Option<u32> {
        if fields.len() < MANY_FIELDS {
            return fields.iter().find(|entry| entry.key == key).map(|entry| entry.mark.line);
        }
        if self.lines.len() < fields.len() {
            let missing = &fields[self.lines.len()..];
            self.lines.extend(missing.iter().map(|entry| (entry.key.clone(), entry.mark.line)));
        }
        self.lines.get(key).copied()
    }
}

#[derive(Debug)]
struct Builder<'a> {
    documents: Vec<Node>,
    open: Vec<Open>,
    /// Items of all lists that are open, those of inner ones last; and so fields. Each list and mapping is made when it ends,
    /// with room for what it has and no more.
    items: Vec<Node>,
    fields: Vec<Entry>,
    /// What aliases stand for, with the number of nodes in it.
    anchors: HashMap<usize, (Node, usize)>,
    /// Nodes in all parts, and those here that are not yet among them.
    nodes: &'a AtomicUsize,
    uncounted: usize,
}

impl<'a> Builder<'a> {
    fn new(nodes: &'a AtomicUsize) -> Self {
        Self {
            documents: Vec::new(),
            open: Vec::new(),
            items: Vec::new(),
            fields: Vec::new(),
            anchors: HashMap::new(),
            nodes,
            uncounted: 0,
        }
    }

    fn take(&mut self, event: Event<'_>, mark: Mark) -> Result<(), Fault> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.expects_key() {
                    return self.name_field(text.into_owned(), mark);
                }
                let shown = text.clone();
                let scalar = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref());
                let value = match scalar {
                    Some(Scalar::Null) => Value::Null,
                    Some(Scalar::Boolean(value)) => Value::Bool(value),
                    Some(Scalar::Integer(value)) => Value::Integer(value),
                    Some(Scalar::FloatingPoint(value)) => Value::Float(value.into_inner()),
                    Some(Scalar::String(value)) => Value::Text(value.into_owned()),
                    None => return fault(mark, format!("{shown:?} is not what its tag says")),
                };
                self.add(Node { mark, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(mark, anchor, Content::List),
            Event::MappingStart(anchor, _) => self.begin(mark, anchor, Content::Map(Names::default())),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(id) => {
                if self.expects_key() {
                    return fault(mark, "an alias cannot name a field".to_owned());
                }
                let Some((node, size)) = self.anchors.get(&id).cloned() else {
                    return fault(mark, "the alias stands for itself".to_owned());
                };
                self.count(mark, size)?;
                self.add(node, 0)
            }
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map(Names { next: None, .. }), .. }))
    }

    fn name_field(&mut self, key: String, mark: Mark) -> Result<(), Fault> {
        let Some(Open { around, content: Content::Map(names), .. }) = self.open.last_mut() else {
            return Ok(());
        };
        if key == "<<" {
            return fault(mark, "merge keys are not supported; write the fields out".to_owned());
        }
        if let Some(first) = names.line_of(&key, &self.fields[*around..]) {
            return fault(mark, format!("`{key}` is given twice; first on line {first}"));
        }
        names.next = Some((key, mark));
        Ok(())
    }

    fn begin(&mut self, mark: Mark, anchor: usize, content: Content) -> Result<(), Fault> {
        if self.expects_key() {
            return fault(mark, "the name of a field is a list or a mapping".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return fault(mark, format!("more than {MAX_DEPTH} lists and mappings inside one another"));
        }
        let around = match content {
            Content::List => self.items.len(),
            Content::Map(_) => self.fields.len(),
        };
        self.open.push(Open { mark, anchor, around, content });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(Open { mark, anchor, around, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::List => Value::List(self.items.drain(around..).collect()),
            Content::Map(_) => Value::Map(self.fields.drain(around..).collect()),
        };
        self.add(Node { mark, value }, anchor)
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.count(node.mark, 1)?;
        if anchor > 0 {
            let size = size(&node);
            self.count(node.mark, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
            Some(Content::List) => self.items.push(node),
            Some(Content::Map(names)) => {
                if let Some((key, mark)) = names.next.take() {
                    self.fields.push(Entry { key, mark, value: node });
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, mark: Mark, nodes: usize) -> Result<(), Fault> {
        self.uncounted += nodes;
        // Who reads another part counts at the same place.
        if self.uncounted < SOME_NODES { Ok(()) } else { self.count_all(mark) }
    }

    fn count_all(&mut self, mark: Mark) -> Result<(), Fault> {
        let nodes = std::mem::take(&mut self.uncounted);
        if self.nodes.fetch_add(nodes, Ordering::Relaxed) + nodes > MAX_NODES {
            return fault(mark, format!("more than {MAX_NODES} values, with everything that aliases repeat"));
        }
        Ok(())
    }
}

fn fault(mark: Mark, message: String) -> Result<(), Fault> {
    Err(Fault { mark, message })
}

/// Nodes in a tree.
fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| size(&entry.value)).sum::<usize>(),
    }
}

/// All documents of a text, one part after the other.
#[cfg(test)]
pub(super) fn read_all(text: &str) -> Result<Vec<Node>, Fault> {
    let all: Result<Vec<Vec<Node>>, Fault> = parts(text).iter().map(read).collect();
    all.map(|all| all.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use super::*;

    fn json(node: &Node) -> serde_json::Value {
        serde_json::Value::deserialize(node).unwrap()
    }

    fn message(text: &str) -> String {
        let Fault { mark, message } = read_all(text).unwrap_err();
        format!("{}:{}: {message}", mark.line, mark.column)
    }

    #[test]
    fn every_value_knows_its_place() {
        let documents =
            read_all("a: 1\nb:\n  - x\n  - {c: true}\n---\n---\n# nothing\n---\n\"d\"\n").unwrap();
        assert_eq!(documents.len(), 2);
        let expected = serde_json::json!({"a": 1, "b": ["x", {"c": true}]});
        assert_eq!(json(&documents[0]), expected);
        let Value::List(items) = &documents[0].get("b").unwrap().value else { panic!("no list") };
        assert_eq!(items[1].mark, Mark { line: 4, column: 5 });
        let Value::Map(entries) = &documents[0].value else { panic!("no mapping") };
        assert_eq!(entries[1].mark, Mark { line: 2, column: 1 });
        assert_eq!(documents[1].text(), Some("d"));
        let at = |path| (documents[0].mark_at(path).line, documents[0].mark_at(path).column);
        assert_eq!(
            [at(""), at("a"), at("b[0]"), at("b[1].c"), at("b[7].x"), at("zz")],
            [(1, 1), (1, 1), (3, 5), (4, 6), (2, 1), (1, 1)]
        );
    }

    #[test]
    fn json_is_read_as_well() {
        let text = r#"{"kind": "List", "items": [null, 1.5, -3, "yes", false]}"#;
        let expected: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(json(&read_all(text).unwrap()[0]), expected);
    }

    #[test]
    fn what_is_no_tree_is_refused_with_its_place() {
        assert_eq!(message("a: 1\nb: 2\na: 3\n"), "3:1: `a` is given twice; first on line 1");
        assert_eq!(message("<<: {a: 1}\n"), "1:1: merge keys are not supported; write the fields out");
        assert!(message("? [a]\n: 1\n").contains("the name of a field is a list"));
        assert!(message("a: [1, 2\n").starts_with("2:"), "{}", message("a: [1, 2\n"));
        assert!(message(&"[".repeat(10_000)).ends_with("recursion limit exceeded"));
        assert!(message(&"- ".repeat(100)).contains("inside one another"));
        assert!(message("a: &x [*x]\n").contains("alias"));
    }

    #[test]
    fn aliases_repeat_and_are_bounded() {
        let shared = read_all("a: &x {k: v}\nb: *x\n").unwrap();
        assert_eq!(json(&shared[0]), serde_json::json!({"a": {"k": "v"}, "b": {"k": "v"}}));
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let one = format!("*l{}", level - 1);
            bomb += &format!("l{level}: &l{level} [{}]\n", [one.as_str(); 10].join(", "));
        }
        assert!(message(&bomb).contains("aliases"));
        let many = format!("a: &a {}\nb: [{}]\n", "x".repeat(1000), "*a, ".repeat(2_000_000));
        assert!(message(&many).contains("aliases"));
    }

    /// In any size of parts a text is what it is as a whole, with every place.
    #[test]
    fn parts_are_together_the_whole() {
        let documents = [
            "a: 1\n",
            "b: |\n  ---\n  x\n",
            "# ---\n[1, 2]\n",
            "",
            "--- x",
            "c: \"---\n  \u{e9}\"\n",
            "d:\n- ---y\n",
        ];
        let text: String = documents.iter().cycle().take(100).map(|text| format!("---\n{text}\n")).collect();
        let whole = read(&Part { text: &text, lines: 0, nodes: Arc::default() }).unwrap();
        assert!(whole.len() > 80);
        for octets in [0, 1, 10, 100, 500, text.len()] {
            let (mut rest, mut lines, mut all) = (text.as_str(), 0, Vec::new());
            while let Some(end) = document_after(rest, octets.min(rest.len())) {
                all.extend(read(&Part { text: &rest[..end], lines, nodes: Arc::default() }).unwrap());
                lines += rest[..end].matches('\n').count();
                rest = &rest[end..];
            }
            all.extend(read(&Part { text: rest, lines, nodes: Arc::default() }).unwrap());
            assert_eq!(all, whole, "{octets}");
        }
    }

    #[test]
    fn a_large_text_is_read_in_parts_unless_something_in_it_concerns_them_all() {
        let text = "---\nname: some words that fill a line\n".repeat(10_000);
        let counted = parts(&text);
        assert!(counted.len() > 2);
        assert_eq!(counted.iter().map(|part| part.text.len()).sum::<usize>(), text.len());
        assert_eq!(read_all(&text).unwrap()[9_999].mark, Mark { line: 20_000, column: 1 });
        for undivided in
            [format!("%YAML 1.2\n{text}"), format!("{text}...\n{text}"), text.replace('\n', "\r\n")]
        {
            assert_eq!(parts(&undivided).len(), 1);
            assert!(read_all(&undivided).unwrap().len() >= 10_000);
        }
        // The bound is that of the text, not of a part.
        let many = format!("---\n[{}]\n", "1,".repeat(300_000)).repeat(4);
        assert!(parts(&many).len() > 2);
        assert!(message(&many).contains("more than 1048576 values"), "{}", message(&many));
    }
}
