//! Who says what, and the zone that follows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;
use rpds::HashTrieMapSync;

use crate::name::{DomainName, NameError, parent};
use crate::reverse;
use crate::zone::{Data, Entry, Node, Zone};

/// The version of the specification that is followed.
const VERSION: &str = "1.1.0";

/// Makes a zone out of what owners say, change by change. What a change costs is what its owner has, and no more.
#[derive(Debug)]
pub struct Registrar {
    zone: Zone,
    /// The names that each has records of.
    owners: HashMap<Arc<str>, BTreeSet<DomainName>>,
}

impl Registrar {
    /// Of a cluster of this domain, with zones for the names of all addresses of `prefixes`. `server` is what SOA and NS
    /// records call the server, labels beneath the domain.
    ///
    /// # Errors
    /// When a name would be too long.
    pub fn new(domain: DomainName, server: &[&str], prefixes: &[IpNet]) -> Result<Self, NameError> {
        let server = domain.beneath(server)?;
        let version = domain.beneath(&["dns-version"])?;
        let reverse = prefixes.iter().flat_map(|prefix| reverse::zones_of(*prefix));
        let apexes: HashSet<DomainName> = reverse.chain([domain.clone()]).collect();
        let mut nodes = HashTrieMapSync::new_sync();
        for apex in &apexes {
            nodes.insert_mut(apex.clone(), Node::default());
        }
        let zone = Zone { nodes, apexes: Arc::new(apexes), domain, server, serial: 1 };
        let mut registrar = Self { zone, owners: HashMap::new() };
        registrar.set(&Arc::from(""), vec![(version, Data::Txt(VERSION.into()))]);
        Ok(registrar)
    }

    /// What follows from all that was said.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Everybody who has said something.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<str>> {
        self.owners.keys()
    }

    /// Has the records of `owner` be these and no others; whether they were others.
    pub fn set(&mut self, owner: &Arc<str>, records: Vec<(DomainName, Data)>) -> bool {
        let mut wanted: BTreeMap<DomainName, BTreeSet<Data>> = BTreeMap::new();
        for (name, data) in records {
            wanted.entry(name).or_default().insert(data);
        }
        let before = self.owners.remove(owner).unwrap_or_default();
        let mut changed = false;
        for name in before.iter().filter(|name| !wanted.contains_key(*name)) {
            changed |= self.replace(name, owner, BTreeSet::new());
        }
        let names: BTreeSet<DomainName> = wanted.keys().cloned().collect();
        for (name, data) in wanted {
            changed |= self.replace(&name, owner, data);
        }
        if !names.is_empty() {
            self.owners.insert(Arc::clone(owner), names);
        }
        if changed {
            self.zone.serial = self.zone.serial.wrapping_add(1);
        }
        changed
    }

    /// Has what `owner` says of a name be this.
    fn replace(&mut self, name: &DomainName, owner: &Arc<str>, data: BTreeSet<Data>) -> bool {
        let known = self.zone.nodes.get(name).cloned();
        let exists = known.is_some();
        let Node { below, entries } = known.unwrap_or_default();
        let mine = entries.iter().filter(|entry| entry.owner == *owner).map(|entry| &entry.data);
        if mine.eq(&data) {
            return false;
        }
        let others = entries.iter().filter(|entry| entry.owner != *owner).cloned();
        let new = data.into_iter().map(|data| Entry { owner: Arc::clone(owner), data });
        let entries: Arc<[Entry]> = others.chain(new).collect();
        if entries.is_empty() && below == 0 && !self.zone.apexes.contains(name) {
            self.zone.nodes.remove_mut(name);
            self.leave(name);
        } else {
            self.zone.nodes.insert_mut(name.clone(), Node { below, entries });
            if !exists {
                self.enter(name);
            }
        }
        true
    }

    /// A name has come to be: so does what it is beneath.
    fn enter(&mut self, name: &DomainName) {
        let mut wire = name.wire();
        while let Some(above) = parent(wire) {
            let known = self.zone.nodes.get(above).cloned();
            let exists = known.is_some();
            let mut node = known.unwrap_or_default();
            node.below = node.below.saturating_add(1);
            self.zone.nodes.insert_mut(DomainName::of_wire(above), node);
            if exists {
                return;
            }
            wire = above;
        }
    }

    /// A name has ceased to be: so does what it was beneath, if nothing else keeps it.
    fn leave(&mut self, name: &DomainName) {
        let mut wire = name.wire();
        while let Some(above) = parent(wire) {
            let Some(mut node) = self.zone.nodes.get(above).cloned() else { return };
            node.below = node.below.saturating_sub(1);
            let stays = node.below > 0 || !node.entries.is_empty() || self.zone.apexes.contains(above);
            if stays {
                self.zone.nodes.insert_mut(DomainName::of_wire(above), node);
                return;
            }
            self.zone.nodes.remove_mut(above);
            wire = above;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn registrar() -> Registrar {
        let domain = DomainName::parse("cluster.local").unwrap();
        Registrar::new(domain, &["ns"], &["10.0.0.0/8".parse().unwrap()]).unwrap()
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn owners_share_names_and_take_back_their_own() {
        let mut registrar = registrar();
        let (empty, serial) = (registrar.zone().len(), registrar.zone().serial());
        let [first, second] = ["first", "second"].map(Arc::<str>::from);
        let at = name("a.b.cluster.local");
        let address = |last: u8| Data::A([10, 0, 0, last].into());
        assert!(registrar.set(&first, vec![(at.clone(), address(1)), (at.clone(), address(1))]));
        assert!(!registrar.set(&first, vec![(at.clone(), address(1))]), "the same again");
        assert!(registrar.set(&second, vec![(at.clone(), address(1)), (at.clone(), address(2))]));
        assert_eq!(registrar.zone().node(at.wire()).unwrap().entries.len(), 3);
        let kept = registrar.zone().clone();
        assert!(registrar.set(&first, Vec::new()) && registrar.set(&second, Vec::new()));
        assert!(!registrar.set(&second, Vec::new()));
        assert_eq!((registrar.zone().len(), registrar.zone().serial()), (empty, serial + 4));
        assert_eq!(registrar.owners().count(), 1, "the one that says the version");
        // Who has an older value does not notice.
        assert!(kept.node(name("b.cluster.local").wire()).is_some());
    }

    proptest! {
        /// After any changes a name exists if and only if it has records, has a name beneath it, or begins a zone.
        #[test]
        fn names_exist_as_long_as_something_is_there(
            changes in prop::collection::vec((0..4usize, prop::collection::vec((0..6usize, 0..3u8), 0..4)), 1..40),
        ) {
            let names = ["cluster.local", "a.cluster.local", "b.a.cluster.local", "c.b.a.cluster.local",
                "x.y.z.cluster.local", "else.example"].map(name);
            let owners = ["1", "2", "3", "4"].map(Arc::<str>::from);
            let mut registrar = registrar();
            let mut said: [BTreeSet<(usize, u8)>; 4] = Default::default();
            for (who, records) in changes {
                said[who] = records.iter().copied().collect();
                let records = records.iter().map(|(at, last)| (names[*at].clone(), Data::A([10, 0, 0, *last].into())));
                registrar.set(&owners[who], records.collect());
                let mut expected: BTreeSet<Vec<u8>> = BTreeSet::new();
                let version = name("dns-version.cluster.local");
                let held = said.iter().flatten().map(|(at, _)| &names[*at]).chain([&version]);
                for held in held.chain(registrar.zone().apexes.iter()) {
                    let is_apex = |wire: &[u8]| registrar.zone().apexes.contains(wire);
                    for above in crate::name::ancestors(held.wire()) {
                        expected.insert(above.to_vec());
                        if is_apex(above) { break; }
                    }
                }
                let found: BTreeSet<Vec<u8>> = registrar.zone().nodes.keys().map(|n| n.wire().to_vec()).collect();
                prop_assert_eq!(&found, &expected);
                let count = registrar.zone().nodes.values().map(|node| node.entries.len()).sum::<usize>();
                prop_assert_eq!(count, said.iter().map(BTreeSet::len).sum::<usize>() + 1);
            }
        }
    }
}
