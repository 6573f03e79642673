//! Pods by name, with or without their namespace.

use std::str::FromStr;

use clap::Args;

use super::Failure;
use crate::cluster::{Place, PlaceError};

/// A place as the command line names it.
#[derive(Clone, Debug)]
pub(super) struct PlaceName {
    place: Place,
    /// Whether the name says more than POD.
    full: bool,
}

impl FromStr for PlaceName {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        Ok(Self { place: text.parse()?, full: text.contains('/') })
    }
}

/// The namespace that a verb works in.
#[derive(Debug, Args)]
pub(super) struct Namespace {
    /// The namespace of a POD without one [default: default]
    #[arg(short, long)]
    pub(super) namespace: Option<String>,
}

impl Namespace {
    /// The place that is meant. Nodes and hosts are in no namespace, so that it does not matter to them.
    pub(super) fn of(&self, named: &PlaceName) -> Result<Place, Failure> {
        match (&self.namespace, &named.place) {
            (Some(wanted), Place::Pod { name, .. }) if !named.full => {
                Ok(Place::Pod { namespace: wanted.clone(), name: name.clone() })
            }
            (Some(wanted), Place::Pod { namespace, name }) if wanted != namespace => {
                Err(format!("{namespace}/{name} is not in the namespace {wanted}: leave one of them out")
                    .into())
            }
            (_, place) => Ok(place.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_completes_a_name_and_contradicts_none() {
        let of = |namespace: Option<&str>, text: &str| {
            let namespace = Namespace { namespace: namespace.map(str::to_owned) };
            namespace.of(&text.parse().unwrap()).map(|place| place.to_string()).map_err(|e| e.to_string())
        };
        for (namespace, text, expected) in [
            (None, "alpha", "default/alpha"),
            (None, "shop/alpha", "shop/alpha"),
            (Some("shop"), "alpha", "shop/alpha"),
            (Some("shop"), "shop/alpha", "shop/alpha"),
            (Some("shop"), "node/node-1", "node/node-1"),
            (Some("shop"), "host/outside", "host/outside"),
        ] {
            assert_eq!(of(namespace, text).unwrap(), expected, "-n {namespace:?} {text}");
        }
        assert!(of(Some("shop"), "default/alpha").unwrap_err().contains("not in the namespace shop"));
    }
}
