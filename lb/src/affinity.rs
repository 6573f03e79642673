//! Which backend a client had last.
//!
//! # Theory of operation
//! Entries stand in sets of eight. In which set, a keyed hash of client and service says; in it they are searched one by
//! one. A full set gives up the entry that was not used for longest: a client may then come to another backend, and no
//! other harm is done. All memory is there from the first, and nothing is ever swept: an entry that is too old, whose
//! service is another or whose backend takes no new connections is not used, and in time written over.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

const WAYS: usize = 8;

/// One client of one service, and the backend that it comes back to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Affinity {
    /// The service's name.
    pub service: Arc<str>,
    /// The client's address.
    pub client: IpAddr,
    /// The backend's address and L4 port.
    pub backend: (IpAddr, u16),
    /// When it ends, unless the client opens another connection.
    pub until: Duration,
}

/// A service's slot, and the version with which it came there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Which {
    pub(crate) slot: u32,
    pub(crate) since: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) which: Which,
    pub(crate) client: IpAddr,
    pub(crate) backend: (IpAddr, u16),
    pub(crate) used: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Affinities {
    sets: Vec<[Option<Entry>; WAYS]>,
}

impl Affinities {
    /// Makes room for so many entries, rounded up to whole sets, if there is none.
    pub(crate) fn prepare(&mut self, entries: u32) {
        if self.sets.is_empty() {
            self.sets = vec![[None; WAYS]; (entries as usize).div_ceil(WAYS)];
        }
    }

    /// The entry of a client of a service. The hash has to be that of both.
    pub(crate) fn find(&self, hash: u64, which: Which, client: IpAddr) -> Option<&Entry> {
        let set = self.sets.get(self.set(hash))?;
        set.iter().flatten().find(|entry| entry.which == which && entry.client == client)
    }

    /// Keeps an entry.
    pub(crate) fn remember(&mut self, hash: u64, entry: Entry) {
        let at = self.set(hash);
        let Some(set) = self.sets.get_mut(at) else { return };
        let same = |old: &Entry| old.which == entry.which && old.client == entry.client;
        let place = match set.iter().position(|old| old.as_ref().is_some_and(same)) {
            Some(place) => Some(&mut set[place]),
            // Nothing is less than something: an empty place is the oldest.
            None => set.iter_mut().min_by_key(|old| old.map(|old| old.used)),
        };
        if let Some(place) = place {
            *place = Some(entry);
        }
    }

    /// All entries, those that are not to be used too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.sets.iter().flatten().flatten()
    }

    fn set(&self, hash: u64) -> usize {
        let set = (u128::from(hash) * self.sets.len() as u128) >> 64;
        usize::try_from(set).unwrap_or(0)
    }
}
