//! How the end stations that are wanted differ from those that stand.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Placed;
use super::fabric::Fabric;
use crate::cluster::{Endpoint, Place, Wiring};

/// How the end stations of two wirings differ.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) new: Vec<Endpoint>,
    pub(super) moved: Vec<Endpoint>,
    /// Those that are made anew: in `new` as well.
    pub(super) replaced: Vec<Arc<Placed>>,
    pub(super) gone: Vec<Arc<Placed>>,
}

impl Difference {
    pub(super) fn between(now: &Fabric, wiring: &Wiring, ended: &BTreeSet<Place>) -> Self {
        let mut difference = Self::default();
        let mut stay = BTreeSet::new();
        for endpoint in &wiring.endpoints {
            let standing = now.places.get(&endpoint.place);
            // Whoever shares a namespace goes with it; its owner comes first.
            let uprooted = endpoint.shares.as_ref().is_some_and(|host| difference.is_new(host));
            let stays = |p: &&Arc<Placed>| p.keeps(endpoint) && !ended.contains(&endpoint.place) && !uprooted;
            let kept = standing.filter(stays);
            match kept {
                None => difference.new.push(endpoint.clone()),
                Some(placed) => {
                    stay.insert(&endpoint.place);
                    if placed.endpoint.attachment != endpoint.attachment {
                        difference.moved.push(endpoint.clone());
                    }
                }
            }
        }
        let leaving = now.places.iter().filter(|(place, _)| !stay.contains(place));
        let leaving = leaving.map(|(_, placed)| Arc::clone(placed));
        (difference.replaced, difference.gone) = leaving.partition(|p| difference.is_new(&p.endpoint.place));
        difference
    }

    fn is_new(&self, place: &Place) -> bool {
        self.new.iter().any(|endpoint| endpoint.place == *place)
    }

    /// What stands in the place of a new end station.
    pub(super) fn replaced(&self, endpoint: &Endpoint) -> Option<&Placed> {
        self.replaced.iter().find(|p| p.endpoint.place == endpoint.place).map(AsRef::as_ref)
    }

    /// Whether a new end station cannot stand beside the one that it replaces: both have their interface in one namespace
    /// of somebody else.
    pub(super) fn excludes(&self, endpoint: &Endpoint) -> bool {
        let replaced = self.replaced(endpoint);
        endpoint.existing.is_some() && replaced.is_some_and(|p| p.endpoint.existing == endpoint.existing)
    }
}

impl Placed {
    /// Whether a station like this serves as `wanted`, perhaps in another place.
    fn keeps(&self, wanted: &Endpoint) -> bool {
        let moved = self.endpoint.attachment != wanted.attachment;
        // An in-process station has its link inside; it is made anew where it moves.
        !(moved && self.station.is_some())
            && Endpoint { attachment: wanted.attachment.clone(), ..self.endpoint.clone() } == *wanted
    }
}
