#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

extern crate std;

use std::collections::BTreeMap;
use std::format;
use std::net::Ipv4Addr;
use std::string::{String, ToString as _};
use std::time::Duration;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::pool::{Backend, Policy, Pool};
use crate::service::{Origin, Refusal, Serving, Way};

fn frontend(address: u32, port: u16) -> Frontend {
    Frontend { address: Ipv4Addr::from_bits(address).into(), protocol: 6, port }
}

fn way(backends: u32) -> Way {
    let backend = |n| Backend { address: Ipv4Addr::from_bits(n).into(), port: 80, weight: 1 };
    let pool = Pool::new((0..backends).map(backend), Policy::Random, None, [0; 16]).unwrap();
    Way { pool: Arc::new(pool), masquerade: false, when_empty: Refusal::Reject }
}

fn service(name: &str, frontends: &[Frontend], backends: u32) -> Service {
    let way = way(backends);
    let entrance = |&frontend: &Frontend| Entrance {
        frontend,
        sources: vec![],
        ways: [way.clone(), way.clone(), way.clone()],
    };
    Service {
        name: name.into(),
        entrances: frontends.iter().map(entrance).collect(),
        affinity: None,
        serving: Serving::default(),
        reset_gone: false,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set { name: u8, frontends: Vec<(u32, u16)>, backends: u32, affinity: bool },
    Remove(u8),
}

fn a_step() -> impl Strategy<Value = Step> {
    let frontends = proptest::collection::vec((0u32..4, 0u16..4), 0..4);
    prop_oneof![
        3 => (0u8..6, frontends, 0u32..3, any::<bool>())
            .prop_map(|(name, frontends, backends, affinity)| Step::Set { name, frontends, backends, affinity }),
        1 => (0u8..6).prop_map(Step::Remove),
    ]
}

/// What a registry is, the slow way: the services, and the version with which each came and was last changed.
#[derive(Clone, Default)]
struct Model(BTreeMap<String, (Service, Mark, u32)>);

impl Model {
    fn holder(&self, frontend: &Frontend) -> Option<&Service> {
        let has =
            |service: &&Service| service.entrances.iter().any(|entrance| entrance.frontend == *frontend);
        self.0.values().map(|(service, _, _)| service).find(has)
    }

    fn check(&self, registry: &Registry) {
        assert_eq!((registry.len(), registry.is_empty()), (self.0.len(), self.0.is_empty()));
        let mut services: Vec<&Service> = registry.iter().collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(services.into_iter().eq(self.0.values().map(|(service, _, _)| service)));
        for name in (0..6).map(|n: u8| n.to_string()) {
            assert_eq!(registry.get(&name), self.0.get(&name).map(|(service, _, _)| service));
        }
        for address in 0..4 {
            let mut any = false;
            for frontend in (0..4).map(|port| frontend(address, port)) {
                let (found, holder) = (registry.find(&frontend), self.holder(&frontend));
                assert_eq!(found.map(|(service, _)| service), holder);
                assert!(found.is_none_or(|(_, entrance)| entrance.frontend == frontend));
                any |= holder.is_some();
            }
            assert_eq!(registry.has_address(Ipv4Addr::from_bits(address).into()), any);
        }
        let sticky = self.0.values().any(|(service, _, _)| service.affinity.is_some());
        assert_eq!(registry.is_sticky(), sticky);
        for (service, mark, since) in self.0.values() {
            let placed = registry.at(mark.slot).unwrap();
            assert_eq!((&placed.service, placed.mark, placed.since), (service, *mark, *since));
            assert!(mark.slot < registry.bound() && registry.of(*mark) == Some(service));
        }
    }

    fn set(&mut self, registry: &mut Registry, service: Service) {
        let name = String::from(&*service.name);
        let mut seen = vec![];
        let clash = service.entrances.iter().any(|entrance| {
            let twice = seen.contains(&entrance.frontend);
            seen.push(entrance.frontend);
            twice || self.holder(&entrance.frontend).is_some_and(|holder| holder.name != service.name)
        });
        let old = self.0.get(&name).cloned();
        match registry.set(service.clone()) {
            Ok(mark) => {
                assert!(!clash);
                let (slots, newest) = (self.0.values().map(|(_, mark, _)| mark.slot), self.newest());
                match old {
                    Some((old, was, _)) if old == service => assert_eq!(mark, was),
                    Some((_, was, since)) => {
                        assert!(mark.slot == was.slot && mark.version > newest);
                        self.0.insert(name, (service, mark, since));
                    }
                    None => {
                        assert!(mark.version > newest && slots.into_iter().all(|slot| slot != mark.slot));
                        self.0.insert(name, (service, mark, mark.version));
                    }
                }
            }
            Err(Conflict { frontend, holder }) => {
                assert!(clash);
                let twice = holder == service.name;
                let count = service.entrances.iter().filter(|entrance| entrance.frontend == frontend).count();
                assert!(count > usize::from(twice));
                assert!(twice || self.holder(&frontend).unwrap().name == holder);
            }
        }
    }

    fn newest(&self) -> u32 {
        self.0.values().map(|(_, mark, _)| mark.version).max().unwrap_or(0)
    }
}

proptest! {
    #[test]
    fn it_is_a_map_of_services_and_its_clones_stay_as_they_were(steps in proptest::collection::vec(a_step(), 1..60)) {
        let (mut registry, mut model) = (Registry::new(), Model::default());
        let mut kept = vec![];
        for step in steps {
            kept.push((registry.clone(), model.clone()));
            match step {
                Step::Set { name, frontends, backends, affinity } => {
                    let frontends: Vec<Frontend> = frontends.iter().map(|&(a, p)| frontend(a, p)).collect();
                    let mut service = service(&name.to_string(), &frontends, backends);
                    service.affinity = affinity.then_some(Duration::from_secs(1));
                    model.set(&mut registry, service);
                }
                Step::Remove(name) => {
                    let name = name.to_string();
                    prop_assert_eq!(registry.remove(&name), model.0.remove(&name).is_some());
                }
            }
            model.check(&registry);
        }
        // Slots are used again: there are never more than there were services at once.
        prop_assert!(registry.bound() <= 6);
        for (registry, model) in &kept {
            model.check(registry);
        }
        for pair in kept.windows(2) {
            let same = pair[0].1.0.values().map(|(service, _, _)| service)
                .eq(pair[1].1.0.values().map(|(service, _, _)| service));
            prop_assert_eq!(pair[0].0 == pair[1].0, same);
        }
    }

    /// Another registry's services come in, and what both have stays what it is.
    #[test]
    fn a_registry_of_another_line_is_adopted(
        ours in proptest::collection::vec(a_step(), 0..20), theirs in proptest::collection::vec(a_step(), 0..20),
    ) {
        let build = |steps: &[Step]| {
            let mut registry = Registry::new();
            for step in steps {
                match step {
                    Step::Set { name, frontends, backends, .. } => {
                        let frontends: Vec<Frontend> = frontends.iter().map(|&(a, p)| frontend(a, p)).collect();
                        let _ = registry.set(service(&name.to_string(), &frontends, *backends));
                    }
                    Step::Remove(name) => { registry.remove(&name.to_string()); }
                }
            }
            registry
        };
        let (ours, theirs) = (build(&ours), build(&theirs));
        let differ = |ours: &Registry, theirs: &Registry| {
            let mut names: Vec<String> = ours.differing(theirs).map(|service| service.name.to_string()).collect();
            names.sort_unstable();
            let plainly = ours.iter().filter(|service| theirs.get(&service.name) != Some(*service));
            let mut plainly: Vec<String> = plainly.map(|service| service.name.to_string()).collect();
            plainly.sort_unstable();
            (names, plainly)
        };
        let (names, plainly) = differ(&ours, &theirs);
        prop_assert_eq!(names, plainly);
        let adopted = ours.adopt(&theirs);
        let (names, plainly) = differ(&ours, &adopted);
        prop_assert_eq!(names, plainly);
        prop_assert!(adopted == theirs && !adopted.is_in_line_with(&theirs) && !adopted.is_in_line_with(&ours));
        for old in ours.iter() {
            let slot = |registry: &Registry| *registry.names.get(&*old.name).unwrap();
            let mark = ours.at(slot(&ours)).unwrap().mark;
            match theirs.get(&old.name) {
                Some(new) => {
                    prop_assert_eq!(adopted.of(mark), Some(new));
                    prop_assert_eq!(adopted.at(mark.slot).unwrap().mark == mark, new == old);
                }
                None => prop_assert_eq!(adopted.of(mark), None),
            }
        }
    }
}

/// What one more service costs in allocations that are not shared, counted as the parts of the maps that differ.
#[test]
fn one_more_service_copies_the_same_whatever_there_is() {
    let unshared = |services: u32| {
        let mut registry = Registry::new();
        for n in 0..services {
            registry.set(service(&format!("web-{n}"), &[frontend(n, 80), frontend(n, 443)], 2)).unwrap();
        }
        let before = registry.clone();
        registry.set(service("one more", &[frontend(u32::MAX, 80), frontend(u32::MAX, 443)], 2)).unwrap();
        let others = registry.slots.values_not_shared(&before.slots).count();
        // All others are the very same, at the same place.
        let same = registry.iter().filter(|service| {
            before.get(&service.name).is_some_and(|before| core::ptr::eq(*service, before))
        });
        assert_eq!(same.count(), services as usize);
        others
    };
    assert_eq!([1, 10, 100, 10_000].map(unshared), [1; 4]);
}

#[test]
fn a_taken_frontend_is_named_with_its_holder() {
    let mut registry = Registry::new();
    registry.set(service("default/web:http", &[frontend(0x0a60_0001, 80)], 1)).unwrap();
    let before = registry.clone();
    let conflict =
        registry.set(service("other", &[frontend(1, 80), frontend(0x0a60_0001, 80)], 1)).unwrap_err();
    assert_eq!(conflict.to_string(), "10.96.0.1 port 80 of protocol 6 belongs to service default/web:http");
    // Nothing of it is left behind.
    assert!(registry == before && !registry.has_address(Ipv4Addr::from_bits(1).into()));
    let twice = registry.set(service("other", &[frontend(1, 80), frontend(1, 80)], 1)).unwrap_err();
    assert_eq!(twice, Conflict { frontend: frontend(1, 80), holder: "other".into() });
    // A frontend may go to another as soon as it is free.
    registry.set(service("default/web:http", &[], 1)).unwrap();
    assert!(registry.set(service("other", &[frontend(0x0a60_0001, 80)], 1)).is_ok());
}

#[test]
fn a_mark_is_of_one_life_of_a_name() {
    let mut registry = Registry::new();
    let first = registry.set(service("a", &[frontend(1, 80)], 1)).unwrap();
    let changed = registry.set(service("a", &[frontend(1, 80)], 2)).unwrap();
    assert!(first.slot == changed.slot && first != changed);
    assert_eq!(registry.of(first), registry.of(changed));
    registry.remove("a");
    assert_eq!(registry.of(changed), None);
    // The slot goes to the next, and means something else.
    let other = registry.set(service("b", &[], 1)).unwrap();
    assert_eq!((other.slot, registry.of(changed)), (changed.slot, None));
    let again = registry.set(service("a", &[frontend(1, 80)], 1)).unwrap();
    assert!(again.slot != other.slot && registry.of(changed).is_none());
}

#[test]
fn versions_wrap_around() {
    let mut registry = Registry::new();
    registry.version = u32::MAX - 1;
    let before = registry.set(service("a", &[frontend(1, 80)], 1)).unwrap();
    let behind = registry.set(service("a", &[frontend(1, 80)], 2)).unwrap();
    assert_eq!((before.version, behind.version), (u32::MAX, 1));
    assert!(registry.of(before).is_some() && registry.of(behind).is_some());
    let late = registry.set(service("b", &[], 1)).unwrap();
    assert_eq!(registry.of(Mark { slot: late.slot, ..before }), None);
}

#[test]
fn ways_go_by_origin() {
    let mut service = service("a", &[frontend(1, 80)], 0);
    service.entrances[0].ways = [way(1), way(2), way(3)];
    let of = |origin| service.entrances[0].way(origin).pool.backends().len();
    assert_eq!([Origin::Inside, Origin::Node, Origin::Outside].map(of), [1, 2, 3]);
}

#[cfg(feature = "serde")]
#[test]
fn a_registry_is_written_and_read_as_a_list() {
    let mut registry = Registry::new();
    let mut web = service("web", &[frontend(1, 80)], 2);
    web.affinity = Some(Duration::from_secs(10_800));
    web.serving = way(3).pool.backends().iter().map(|backend| (backend.address, backend.port)).collect();
    web.entrances[0].sources = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    registry.set(web).unwrap();
    registry.set(service("dns", &[frontend(1, 53)], 1)).unwrap();
    let text = serde_json::to_string(&registry).unwrap();
    assert!(text.starts_with(r#"[{"name":"dns""#));
    assert!(serde_json::from_str::<Registry>(&text).unwrap() == registry);
    let twice =
        serde_json::to_string(&[service("a", &[frontend(1, 1)], 0), service("b", &[frontend(1, 1)], 0)]);
    let error = serde_json::from_str::<Registry>(&twice.unwrap()).unwrap_err().to_string();
    assert!(error.contains("0.0.0.1 port 1 of protocol 6 belongs to service a"), "{error}");
}

#[test]
fn several_set_at_once_pass_frontends_to_each_other_and_keep_their_slots() {
    let (a, b) = (frontend(1, 80), frontend(2, 80));
    let mut registry = Registry::new();
    let marks = ["one", "two"].map(|name| {
        let own = if name == "one" { a } else { b };
        registry.set(service(name, &[own], 1)).unwrap()
    });
    let before = registry.clone();
    assert!(registry.set(service("one", &[b], 1)).is_err(), "one alone cannot take it");
    registry.set_all([service("one", &[b], 1), service("two", &[a], 1), service("three", &[], 1)]).unwrap();
    assert_eq!(&*registry.find(&b).unwrap().0.name, "one");
    assert_eq!(&*registry.find(&a).unwrap().0.name, "two");
    assert_eq!(marks.map(|mark| registry.of(mark).is_some()), [true, true]);
    assert_eq!((registry.differing(&before).count(), before.differing(&registry).count()), (3, 2));
    let taken = registry.set_all([service("four", &[], 1), service("five", &[a], 1)]);
    assert_eq!(&*taken.unwrap_err().holder, "two");
    assert!(registry.get("four").is_some() && registry.get("five").is_none());
}
