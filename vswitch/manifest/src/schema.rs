//! Holding a tree against a JSON schema: unknown fields, values of another type, fields that must be there.
//!
//! The schemas are those of Kubernetes' own types and of our `Cluster`, so only what they use is understood: `$ref`,
//! `properties`, `required`, `additionalProperties`, `items`, `type` (also a list of types), `format`, `enum` of texts,
//! `anyOf` with null, and `x-kubernetes-int-or-string`. A null counts as a field that is not there, as in Kubernetes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value as Json;

use super::tree::{Entry, Mark, Node, Value};

/// Formats of texts in our own schema.
pub(super) const PREFIX: &str = "prefix";
/// See [`PREFIX`].
pub(super) const ADDRESS: &str = "address";

/// A fault in a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FieldFault {
    pub(super) mark: Mark,
    /// The field, from the object's root: `spec.containers[0].image`.
    pub(super) path: String,
    pub(super) message: String,
    /// Whether the field is one that the schema does not know.
    pub(super) unknown: bool,
}

/// All faults of `node`, an object of the kind `kind`, under `root`, in the order of the text.
pub(super) fn check<'a>(node: &'a Node, root: &'a Json, kind: &'a str) -> Vec<FieldFault> {
    let mut checker = Checker { root, kind, path: Vec::new(), faults: Vec::new() };
    checker.value(node, root);
    checker.faults
}

/// The name out of `names` that `wrong` was probably meant to be.
pub(super) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&lower, &name.to_lowercase());
    let (least, name) = names.into_iter().map(|name| (distance(name), name)).min()?;
    (least <= (wrong.chars().count() / 3).clamp(1, 3)).then_some(name)
}

/// A step from a value to one inside.
#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

fn is_of_type(schema: &Json, name: &str) -> bool {
    schema.get("type").and_then(Json::as_str) == Some(name)
}

struct Checker<'a> {
    root: &'a Json,
    kind: &'a str,
    path: Vec<Step<'a>>,
    faults: Vec<FieldFault>,
}

impl<'a> Checker<'a> {
    fn fault(&mut self, mark: Mark, message: String, unknown: bool) {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path += name,
                Step::Field(name) => path.extend([".", name]),
                Step::Item(index) => path += &format!("[{index}]"),
            }
        }
        self.faults.push(FieldFault { mark, path, message, unknown });
    }

    fn definition(&self, reference: &str) -> Option<&'a Json> {
        // Most are found without a look for escapes and steps.
        let plain = reference.strip_prefix("#/$defs/").and_then(|name| self.root.get("$defs")?.get(name));
        plain.or_else(|| self.root.pointer(reference.strip_prefix('#')?))
    }

    /// Follows references and the one alternative that is not null; says the name of the last reference as well.
    fn resolve(&self, mut schema: &'a Json) -> (&'a Json, Option<&'a str>) {
        let mut name = self.path.is_empty().then_some(self.kind);
        loop {
            if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
                let Some(target) = self.definition(reference) else { return (schema, name) };
                name = reference.rsplit(['/', '.']).next();
                schema = target;
            } else if let Some(Json::Array(choices)) = schema.get("anyOf")
                && let Some(choice) = choices.iter().find(|choice| !is_of_type(choice, "null"))
            {
                schema = choice;
            } else {
                return (schema, name);
            }
        }
    }

    fn value(&mut self, node: &'a Node, schema: &'a Json) {
        let (schema, name) = self.resolve(schema);
        if schema.get("x-kubernetes-int-or-string") == Some(&Json::Bool(true)) {
            return match node.value {
                Value::Null | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
                Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                    self.mismatch(node, "a number or a string");
                }
            };
        }
        let kind = match schema.get("type") {
            Some(Json::String(kind)) => kind.as_str(),
            Some(Json::Array(kinds)) => {
                kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null").unwrap_or_default()
            }
            // A schema that says nothing allows everything.
            _ => return,
        };
        match (kind, &node.value) {
            (_, Value::Null) => {}
            ("object", Value::Map(entries)) => self.object(node.mark, entries, schema, name),
            ("array", Value::List(items)) => {
                let Some(schema) = schema.get("items") else { return };
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Step::Item(index));
                    self.value(item, schema);
                    self.path.pop();
                }
            }
            ("string", Value::Text(text)) => self.choice(node.mark, text, schema),
            ("integer", Value::Integer(value)) => self.range(node.mark, *value, schema),
            ("boolean", Value::Bool(_)) | ("number", Value::Integer(_) | Value::Float(_)) => {}
            ("object", _) => self.mismatch(node, "a mapping"),
            ("array", _) => self.mismatch(node, "a list"),
            ("string", Value::Integer(_) | Value::Float(_) | Value::Bool(_)) => {
                self.mismatch(node, "a string (put it into quotes)");
            }
            ("string", _) => self.mismatch(node, "a string"),
            ("integer", _) => self.mismatch(node, "an integer"),
            ("number", _) => self.mismatch(node, "a number"),
            ("boolean", _) => self.mismatch(node, "true or false"),
            _ => {}
        }
    }

    fn object(&mut self, mark: Mark, entries: &'a [Entry], schema: &'a Json, name: Option<&str>) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        for entry in entries {
            self.path.push(Step::Field(&entry.key));
            match (properties.and_then(|p| p.get(&entry.key)), others) {
                (Some(schema), _) => self.value(&entry.value, schema),
                (None, Some(Json::Object(_))) => self.value(&entry.value, others.unwrap_or(&Json::Null)),
                // A mapping without named fields takes any.
                (None, None | Some(Json::Bool(true))) if properties.is_none() => {}
                (None, _) => {
                    let names = properties.into_iter().flatten().map(|(name, _)| name.as_str());
                    let hint = nearest(&entry.key, names).map(|near| format!("; did you mean `{near}`?"));
                    let of = name.map(|name| format!(" in {name}")).unwrap_or_default();
                    self.fault(entry.mark, format!("no such field{of}{}", hint.unwrap_or_default()), true);
                }
            }
            self.path.pop();
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for field in required.filter_map(Json::as_str) {
            let given = entries.iter().find(|entry| entry.key == field);
            if given.is_none_or(|entry| entry.value.value == Value::Null) {
                self.fault(mark, format!("`{field}` is missing"), false);
            }
        }
    }

    fn choice(&mut self, mark: Mark, text: &str, schema: &Json) {
        let expected = match schema.get("format").and_then(Json::as_str) {
            Some(PREFIX) if text.parse::<IpNet>().is_err() => {
                Some("a prefix, as 10.244.0.0/16 or fd00:10:244::/56")
            }
            Some(ADDRESS) if text.parse::<IpAddr>().is_err() => Some("an address"),
            _ => None,
        };
        if let Some(expected) = expected {
            self.fault(mark, format!("should be {expected}, is {text:?}"), false);
        }
        let Some(Json::Array(choices)) = schema.get("enum") else { return };
        let choices: Vec<&str> = choices.iter().filter_map(Json::as_str).collect();
        if !choices.contains(&text) {
            self.fault(mark, format!("{text:?} is none of {}", choices.join(", ")), false);
        }
    }

    fn range(&mut self, mark: Mark, value: i64, schema: &Json) {
        let bounds = match schema.get("format").and_then(Json::as_str) {
            Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Some("uint16") => (0, i64::from(u16::MAX)),
            Some("uint32") => (0, i64::from(u32::MAX)),
            _ => return,
        };
        if value < bounds.0 || value > bounds.1 {
            self.fault(mark, format!("{value} is not between {} and {}", bounds.0, bounds.1), false);
        }
    }

    fn mismatch(&mut self, node: &Node, expected: &str) {
        let found = match &node.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("{value}"),
            Value::Integer(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) if text.chars().count() > 40 => "a long string".to_owned(),
            Value::Text(text) => format!("the string {text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        };
        self.fault(node.mark, format!("should be {expected}, is {found}"), false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let root = serde_json::json!({
            "$defs": {"x.Port": {
                "type": "object",
                "properties": {
                    "number": {"type": "integer", "format": "int32"},
                    "name": {"type": ["string", "null"]},
                    "target": {"x-kubernetes-int-or-string": true},
                    "protocol": {"type": "string", "enum": ["TCP", "UDP"]},
                },
                "required": ["number"],
            }},
            "type": "object",
            "properties": {
                "ports": {"type": "array", "items": {"$ref": "#/$defs/x.Port"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "on": {"type": "boolean"},
                "maybe": {"anyOf": [{"$ref": "#/$defs/x.Port"}, {"type": "null"}]},
            },
        });
        let node = &tree::read_all(text).unwrap()[0];
        let show = |f: FieldFault| format!("{}:{} {}: {}", f.mark.line, f.mark.column, f.path, f.message);
        check(node, &root, "Thing").into_iter().map(show).collect()
    }

    #[test]
    fn what_the_schema_allows_passes() {
        let text = "ports:\n- {number: 80, name: web, target: http, protocol: TCP}\n- {number: 1, target: 2, name: null}\n\
                    labels: {a: b}\non: false\nmaybe: null\n";
        assert_eq!(faults(text), [""; 0]);
    }

    #[test]
    fn each_fault_is_named_where_it_stands() {
        let text = "ports:\n- {numbr: 80}\n- {number: \"80\", protocol: SCTP, target: []}\n- {number: 5000000000}\n\
                    labels: {a: 1}\non: yes\nmaybe: {}\nzzz: 1\n";
        let expected = [
            "2:4 ports[0].numbr: no such field in Port; did you mean `number`?",
            "2:3 ports[0]: `number` is missing",
            "3:12 ports[1].number: should be an integer, is the string \"80\"",
            "3:28 ports[1].protocol: \"SCTP\" is none of TCP, UDP",
            "3:42 ports[1].target: should be a number or a string, is a list",
            "4:12 ports[2].number: 5000000000 is not between -2147483648 and 2147483647",
            "5:13 labels.a: should be a string (put it into quotes), is the number 1",
            "6:5 on: should be true or false, is the string \"yes\"",
            "7:8 maybe: `number` is missing",
            "8:1 zzz: no such field in Thing",
        ];
        assert_eq!(faults(text), expected);
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["containers", "nodeName", "hostname"];
        assert_eq!(nearest("container", names), Some("containers"));
        assert_eq!(nearest("nodename", names), Some("nodeName"));
        assert_eq!(nearest("volumes", names), None);
    }
}
