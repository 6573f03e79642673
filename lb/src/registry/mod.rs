//! The services that there are, found by frontend.
//!
//! # Theory of operation
//! Each service has a slot, a small number that is its own for as long as it has its name; then the slot is given to
//! another. Five maps ([`map`]) hold the service of each slot and what is behind each frontend, lead to slots by name, say
//! how many frontends an address has, and are the stack of free slots. All are shared with clones, so that one who keeps the
//! registry up to date changes a clone and hands it on, at a price that does not depend on how many services there are.
//! Who looks for a frontend finds there all that choosing a backend needs: among thousands of services each step on the way
//! is a wait for memory.
//!
//! Whatever is changed gets the registry's next version. A connection remembers its service's slot and the version under
//! which it was last looked at ([`Mark`]): while the registry has that version, nothing at all has changed, which is seen
//! without a look at the service. Once it has another, a service that has been in the slot since before that version is the
//! same one, changed or not; any other took the slot later. Versions are compared as serial numbers (RFC 1982), so that
//! they may wrap around.
//!
//! Marks mean something only along one line of changes. Clones share a token; a registry with another token has other
//! slots and versions, and [`Registry::adopt`] brings its services into the line, which goes on with a token of its own.

mod map;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use crate::service::{Entrance, Frontend, Service};
use map::Packed;
pub use map::{AT_ONCE, Key, Map};

/// What a connection remembers of the service that it was opened through; what a service is, the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    /// The service's slot.
    pub slot: u32,
    /// The registry's version when the connection was last looked at, or the service last changed; never 0.
    pub version: u32,
}

impl Mark {
    /// Whether `version` is this one's or was there before it.
    pub(crate) const fn is_since(self, version: u32) -> bool {
        self.version.wrapping_sub(version) < 1 << 31
    }
}

/// A service in its slot.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) service: Service,
    pub(crate) mark: Mark,
    /// The version with which a service of this name came into this slot.
    pub(crate) since: u32,
}

/// What is behind a frontend.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) entrance: Entrance,
    /// As the service's own.
    pub(crate) slot: u32,
    /// As the service's own.
    pub(crate) since: u32,
    /// As the service's own.
    pub(crate) affinity: Option<Duration>,
}

impl Door {
    /// Reads something of each part that a choice looks at.
    pub(crate) fn touch(&self) -> u32 {
        let Entrance { frontend, sources, ways: [first, .., last] } = &self.entrance;
        let parts = [self.affinity.is_some(), sources.is_empty(), first.masquerade, last.masquerade];
        parts.into_iter().fold(self.slot ^ u32::from(frontend.port), |all, part| all ^ u32::from(part))
    }
}

/// Services by name and by frontend. A clone costs next to nothing, and a change what it changes.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    slots: Map<u32, Arc<Placed>>,
    names: Map<Arc<str>, u32>,
    frontends: Map<Packed, Door>,
    /// How many frontends each address has.
    addresses: Map<IpAddr, u32>,
    /// Slots to be given away again, by their place in the stack.
    free: Map<u32, u32>,
    free_len: u32,
    /// All slots ever given away are below.
    bound: u32,
    len: usize,
    /// How many services have affinity.
    sticky: usize,
    version: u32,
    /// The same in all clones.
    line: Arc<()>,
}

impl Registry {
    /// Without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service, or puts it in the place of the one with its name. Setting what is there already changes nothing.
    pub fn set(&mut self, service: Service) -> Result<Mark, Conflict> {
        let slot = self.names.get(&service.name).copied();
        self.check(&service, slot)?;
        let old = slot.and_then(|slot| self.slots.get(&slot)).cloned();
        if let Some(old) = old.as_deref().filter(|old| old.service == service) {
            return Ok(old.mark);
        }
        let version = self.next_version();
        let slot = slot.unwrap_or_else(|| self.take_slot());
        let since = old.as_ref().map_or(version, |old| old.since);
        let mark = Mark { slot, version };
        let before = old.as_ref().map_or(&[][..], |old| &old.service.entrances);
        self.close(before, &service.entrances);
        self.open(&service, slot, since);
        if old.is_none() {
            self.names.insert(Arc::clone(&service.name), slot);
            self.len += 1;
        }
        self.sticky -= usize::from(old.is_some_and(|old| old.service.affinity.is_some()));
        self.sticky += usize::from(service.affinity.is_some());
        self.slots.insert(slot, Arc::new(Placed { service, mark, since }));
        Ok(mark)
    }

    /// Takes a service away; whether there was one of this name.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(slot) = self.names.remove(name) else { return false };
        if let Some(old) = self.slots.remove(&slot) {
            self.close(&old.service.entrances, &[]);
            self.sticky -= usize::from(old.service.affinity.is_some());
        }
        self.next_version();
        self.free.insert(self.free_len, slot);
        self.free_len += 1;
        self.len -= 1;
        true
    }

    /// The service of a name.
    pub fn get(&self, name: &str) -> Option<&Service> {
        let slot = self.names.get(name)?;
        self.slots.get(slot).map(|placed| &placed.service)
    }

    /// The service that a mark is of, if that is still there.
    pub fn of(&self, mark: Mark) -> Option<&Service> {
        self.slots.get(&mark.slot).filter(|placed| mark.is_since(placed.since)).map(|placed| &placed.service)
    }

    /// All services, in an order that means nothing.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.slots.values().map(|placed| &placed.service)
    }

    /// A number that is another one after every change, along one line of them; 0 before the first.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The services that another does not have, or has otherwise. If the two come from one clone, that costs what differs.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Service> {
        let apart = self.slots.values_not_shared(&other.slots).map(|placed| &placed.service);
        apart.filter(|service| other.get(&service.name) != Some(*service))
    }

    /// How many services there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The service that is asked for at a frontend, and the frontend's entrance.
    pub fn find(&self, frontend: &Frontend) -> Option<(&Service, &Entrance)> {
        let door = self.door(frontend)?;
        Some((&self.at(door.slot)?.service, &door.entrance))
    }

    /// Whether any service has a frontend with this address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some()
    }

    /// This registry with the services of another in the place of its own: what both have keeps its slot and version.
    pub fn adopt(&self, other: &Self) -> Self {
        self.follow(self, other)
    }

    /// This registry, which has the services of `before`, with those of `after` in their place. If these two come from one
    /// clone, that costs what differs.
    pub(crate) fn follow(&self, before: &Self, after: &Self) -> Self {
        // Whoever goes on from an earlier clone counts the same versions for other changes: from here on, that is another line.
        let mut adopted = Self { line: Arc::default(), ..self.clone() };
        for service in before.differing(after).filter(|service| after.get(&service.name).is_none()) {
            adopted.remove(&service.name);
        }
        // Those that come are at peace with each other, so there is no conflict.
        let _ = adopted.set_all(after.differing(before).cloned());
        adopted
    }

    /// Sets several services at once: whatever frontends go from one of them to another, each keeps its slot. With a conflict
    /// those before the one that has it are set.
    pub fn set_all(&mut self, services: impl IntoIterator<Item = Service>) -> Result<(), Conflict> {
        let services: Vec<Service> = services.into_iter().collect();
        let changes =
            services.iter().filter(|service| self.get(&service.name).is_some_and(|old| old != *service));
        let changing: BTreeSet<Arc<str>> = changes.map(|service| Arc::clone(&service.name)).collect();
        for service in &services {
            let slot = self.names.get(&service.name).copied();
            while let Err(Conflict { holder, .. }) = self.check(service, slot)
                && holder != service.name
                && changing.contains(&holder)
            {
                self.shut(&holder);
            }
        }
        services.into_iter().try_for_each(|service| self.set(service).map(|_| ()))
    }

    /// Whether the other is an earlier or later state of this one, so that the marks of one mean something to the other.
    pub(crate) fn is_in_line_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }

    /// Whether nothing was ever set, so that there are no marks.
    pub(crate) const fn is_unused(&self) -> bool {
        self.version == 0
    }

    pub(crate) fn door(&self, frontend: &Frontend) -> Option<&Door> {
        self.frontends.get(&Packed::from(frontend))
    }

    /// What is behind each of several frontends, as far as there is room in `doors`.
    pub(crate) fn doors<'a>(
        &'a self,
        frontends: impl Iterator<Item = Frontend>,
        doors: &mut [Option<&'a Door>; AT_ONCE],
    ) {
        self.frontends.get_each(frontends.map(|frontend| Packed::from(&frontend)), doors);
    }

    pub(crate) fn at(&self, slot: u32) -> Option<&Placed> {
        self.slots.get(&slot).map(|placed| &**placed)
    }

    /// All slots are below.
    pub(crate) const fn bound(&self) -> u32 {
        self.bound
    }

    /// Whether any service has affinity.
    pub(crate) const fn is_sticky(&self) -> bool {
        self.sticky > 0
    }

    /// Whether every frontend of a service is its own, or nobody's.
    fn check(&self, service: &Service, slot: Option<u32>) -> Result<(), Conflict> {
        let mut frontends: Vec<Frontend> =
            service.entrances.iter().map(|entrance| entrance.frontend).collect();
        frontends.sort_unstable();
        if let Some(twice) = frontends.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Conflict { frontend: twice[0], holder: Arc::clone(&service.name) });
        }
        for frontend in frontends {
            let other = self.door(&frontend).filter(|door| Some(door.slot) != slot);
            if let Some(placed) = other.and_then(|door| self.at(door.slot)) {
                return Err(Conflict { frontend, holder: Arc::clone(&placed.service.name) });
            }
        }
        Ok(())
    }

    /// Leaves a service in its slot, without frontends.
    fn shut(&mut self, name: &str) {
        if let Some(service) = self.get(name) {
            let shut = Service { entrances: Vec::new(), ..service.clone() };
            let _ = self.set(shut);
        }
    }

    /// Takes away the frontends of `before`, and counts those of `after` in their place. Those that both begin with stay.
    fn close(&mut self, before: &[Entrance], after: &[Entrance]) {
        let kept = before.iter().zip(after).take_while(|(b, a)| b.frontend == a.frontend).count();
        for entrance in &before[kept..] {
            self.frontends.remove(&Packed::from(&entrance.frontend));
            let address = entrance.frontend.address;
            match self.addresses.get(&address) {
                Some(1) | None => {
                    self.addresses.remove(&address);
                }
                Some(&count) => self.addresses.insert(address, count - 1),
            }
        }
        for entrance in &after[kept..] {
            let address = entrance.frontend.address;
            let count = self.addresses.get(&address).copied().unwrap_or(0);
            self.addresses.insert(address, count + 1);
        }
    }

    /// Puts behind each frontend of a service what it now leads to.
    fn open(&mut self, service: &Service, slot: u32, since: u32) {
        for entrance in &service.entrances {
            let door = Door { entrance: entrance.clone(), slot, since, affinity: service.affinity };
            self.frontends.insert(Packed::from(&entrance.frontend), door);
        }
    }

    fn take_slot(&mut self) -> u32 {
        let reused = self.free_len.checked_sub(1).and_then(|top| self.free.remove(&top));
        match reused {
            Some(slot) => {
                self.free_len -= 1;
                slot
            }
            None => {
                self.bound += 1;
                self.bound - 1
            }
        }
    }

    fn next_version(&mut self) -> u32 {
        // 0 is none.
        self.version = self.version.wrapping_add(1).max(1);
        self.version
    }
}

/// Registries with the same services are equal, whatever their slots and versions.
impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        // Names are unique, so of two registries of one length each holds the other if one does.
        self.len == other.len && self.differing(other).next().is_none()
    }
}

impl Eq for Registry {}

#[cfg(feature = "serde")]
impl serde::Serialize for Registry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut services: Vec<&Service> = self.iter().collect();
        services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        serializer.collect_seq(services)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Registry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut registry = Self::new();
        for service in Vec::<Service>::deserialize(deserializer)? {
            registry.set(service).map_err(serde::de::Error::custom)?;
        }
        Ok(registry)
    }
}

/// A frontend that is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The frontend.
    pub frontend: Frontend,
    /// The name of the service that has it: its own if it is there twice.
    pub holder: Arc<str>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frontend: Frontend { address, protocol, port }, holder } = self;
        write!(f, "{address} port {port} of protocol {protocol} belongs to service {holder}")
    }
}

impl core::error::Error for Conflict {}
