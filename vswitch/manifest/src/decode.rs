//! Decoding a tree into a type, and a text of JSON into a tree.
//!
//! The types of Kubernetes are large, so that what reads them is made once, from trees alone; whatever is kept as JSON
//! becomes a tree first.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{Entry, Mark, Node, Value};

/// Why a tree is not of a type.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DecodeError(String);

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Node {
    fn is_nothing(&self) -> bool {
        match self.value {
            Value::Null => true,
            // JSON, in which the types are defined, has no word for it.
            Value::Float(value) => !value.is_finite(),
            Value::Bool(_) | Value::Integer(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => false,
        }
    }
}

fn fields(entries: &[Entry]) -> impl Iterator<Item = (&str, &Node)> {
    entries.iter().map(|entry| (entry.key.as_str(), &entry.value))
}

impl<'de> IntoDeserializer<'de, DecodeError> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            Value::Float(_) if self.is_nothing() => visitor.visit_unit(),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => {
                let mut items = SeqDeserializer::new(items.iter());
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Value::Map(entries) => {
                let mut fields = MapDeserializer::new(fields(entries));
                let value = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_nothing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(StrDeserializer::<DecodeError>::new(text)),
            Value::Map(entries) => {
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(fields(entries))))
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::List(_) => {
                Err(DecodeError::custom("should be one of several words"))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

/// A tree without places, from what knows none.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl AnyValue {
    fn node<E>(value: Value) -> Result<Node, E> {
        Ok(Node { mark: Mark::BEGIN, value })
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Self::node(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Self::node(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Self::node(Value::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        Self::node(Value::Integer(i64::try_from(value).map_err(E::custom)?))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Self::node(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Self::node(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Self::node(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            all.push(item);
        }
        Self::node(Value::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some((key, value)) = fields.next_entry()? {
            all.push(Entry { key, mark: Mark::BEGIN, value });
        }
        Self::node(Value::Map(all))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::cluster::Cluster;
    use super::*;

    /// What `serde_json` makes of the same text, a tree makes of it too: as any value and as a type.
    #[test]
    fn a_tree_is_decoded_as_json_is() {
        let any = json!({"a": null, "b": [true, 1, -2, 1.5, "x"], "c": {"d": {}}});
        let node: Node = serde_json::from_value(any.clone()).unwrap();
        assert_eq!(Json::deserialize(&node).unwrap(), any);
        let cluster = json!({
            "apiVersion": "vswitch/v1alpha1", "kind": "Cluster", "metadata": {"name": "lab", "labels": {"a": "b"}},
            "spec": {"mtu": 9000, "proxyMode": "userspace", "segments": [{"name": "rack", "cidrs": ["10.20.30.0/24"],
                "external": true}]},
        });
        let node: Node = serde_json::from_value(cluster.clone()).unwrap();
        let read = Cluster::deserialize(&node).unwrap();
        assert_eq!(read, serde_json::from_value::<Cluster>(cluster).unwrap());
        assert_eq!(read.spec.mtu, Some(9000));
    }

    #[test]
    fn what_is_not_of_a_type_says_so() {
        let wrong = |json: Json| {
            let node: Node = serde_json::from_value(json).unwrap();
            Cluster::deserialize(&node).unwrap_err().to_string()
        };
        assert!(wrong(json!({"spec": {"mtu": "x"}})).starts_with("invalid type: string \"x\""));
        assert!(wrong(json!({"spec": {"proxyMode": 5}})).contains("one of several words"));
        assert!(wrong(json!({"spec": {"proxyMode": "none"}})).starts_with("unknown variant"));
    }

    #[test]
    fn a_number_that_is_none_is_nothing() {
        let node = Node { mark: Mark::BEGIN, value: Value::Float(f64::NAN) };
        assert_eq!(Json::deserialize(&node).unwrap(), Json::Null);
        assert_eq!(Option::<f64>::deserialize(&node).unwrap(), None);
    }
}
