//! Label selectors, in a form in which those that select the same are mostly equal.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::cluster::Labels;
use crate::service::Complaints;

/// What labels must be like; all of it. Without demands it selects everything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Selector {
    /// Labels that must have a value.
    pub(super) equal: BTreeMap<String, String>,
    /// Everything else, in order, each once.
    pub(super) demands: Vec<Demand>,
}

/// What is demanded of one label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Demand {
    In(String, Vec<String>),
    /// Who does not have the label has none of these values either.
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// Reads a selector that stands at `path`. What is wrong with it is added to `complaints`.
    pub fn read(selector: &LabelSelector, path: &str, complaints: &mut Complaints) -> Self {
        let mut read = Self { equal: selector.match_labels.clone().unwrap_or_default(), demands: Vec::new() };
        for (index, one) in selector.match_expressions.iter().flatten().enumerate() {
            match demand(one) {
                // Two values that one label must have stay two demands: nobody meets both.
                Ok(Demand::In(key, values)) if values.len() == 1 && !read.equal.contains_key(&key) => {
                    read.equal.extend(values.into_iter().map(|value| (key.clone(), value)));
                }
                Ok(demand) => read.demands.push(demand),
                Err(fault) => complaints.fault(format!("{path}.matchExpressions[{index}]"), fault),
            }
        }
        read.demands.sort_unstable();
        read.demands.dedup();
        read
    }

    /// One that selects by values alone.
    pub fn of<const N: usize>(labels: [(&str, &str); N]) -> Self {
        let equal = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { equal, demands: Vec::new() }
    }

    /// Whether it selects something with these labels.
    pub fn selects(&self, labels: &Labels) -> bool {
        let among = |key, values: &[String]| labels.get(key).is_some_and(|value| values.contains(value));
        self.equal.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.demands.iter().all(|demand| match demand {
                Demand::In(key, values) => among(key, values),
                Demand::NotIn(key, values) => !among(key, values),
                Demand::Exists(key) => labels.contains_key(key),
                Demand::DoesNotExist(key) => !labels.contains_key(key),
            })
    }

    /// A label, with its value, that everything has that is selected; none if there is no such label.
    pub(super) fn label(&self) -> Option<(&str, &str)> {
        self.equal.iter().next().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn demand(one: &LabelSelectorRequirement) -> Result<Demand, String> {
    let LabelSelectorRequirement { key, operator, values } = one;
    let mut values = values.clone().unwrap_or_default();
    values.sort_unstable();
    values.dedup();
    let demand: fn(String, Vec<String>) -> Demand = match operator.as_str() {
        "In" => Demand::In,
        "NotIn" => Demand::NotIn,
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            return Err(format!("{operator} must have no values"));
        }
        "Exists" => |key, _| Demand::Exists(key),
        "DoesNotExist" => |key, _| Demand::DoesNotExist(key),
        other => return Err(format!("{other:?} must be In, NotIn, Exists or DoesNotExist")),
    };
    if values.is_empty() && matches!(operator.as_str(), "In" | "NotIn") {
        return Err(format!("{operator} needs one value at least"));
    }
    Ok(demand(key.clone(), values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: serde_json::Value) -> Result<Selector, Complaints> {
        let mut complaints = Complaints::default();
        let selector = serde_json::from_value(yaml).unwrap();
        let read = Selector::read(&selector, "s", &mut complaints);
        if complaints == Complaints::default() { Ok(read) } else { Err(complaints) }
    }

    fn labels(text: &str) -> Labels {
        let pairs = text.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        serde_json::json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn operators_are_those_of_kubernetes() {
        let all = read(serde_json::json!({})).unwrap();
        assert!(all.selects(&labels("")) && all.selects(&labels("a=b")));
        for (operator, values, selected, not) in [
            ("In", &["b", "c"][..], vec!["a=b", "a=c d=e"], vec!["", "a=d", "b=b"]),
            ("NotIn", &["b", "c"], vec!["", "a=d"], vec!["a=b", "a=c"]),
            ("Exists", &[], vec!["a=", "a=x"], vec!["", "b=a"]),
            ("DoesNotExist", &[], vec!["", "b=a"], vec!["a=", "a=x"]),
        ] {
            let selector = read(expression("a", operator, values)).unwrap();
            assert!(selected.iter().all(|text| selector.selects(&labels(text))), "{operator}");
            assert!(!not.iter().any(|text| selector.selects(&labels(text))), "{operator}");
        }
    }

    #[test]
    fn what_selects_the_same_is_equal() {
        let one = read(expression("a", "In", &["b"])).unwrap();
        assert_eq!(one, read(serde_json::json!({"matchLabels": {"a": "b"}})).unwrap());
        assert_eq!(one.label(), Some(("a", "b")));
        assert_eq!(
            read(expression("a", "In", &["b", "c"])).unwrap(),
            read(expression("a", "In", &["c", "b", "c"])).unwrap()
        );
        let both = read(serde_json::json!({
            "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["c"]}]
        }));
        assert!(!both.as_ref().unwrap().selects(&labels("a=b")) && !both.unwrap().selects(&labels("a=c")));
    }

    #[test]
    fn wrong_ones_are_told() {
        for wrong in [
            expression("a", "In", &[]),
            expression("a", "NotIn", &[]),
            expression("a", "Exists", &["b"]),
            expression("a", "DoesNotExist", &["b"]),
            expression("a", "Like", &["b"]),
        ] {
            assert_eq!(read(wrong).unwrap_err().faults[0].0, "s.matchExpressions[0]");
        }
    }
}
