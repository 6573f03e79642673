//! What a configuration changes of the one before it, where that is little: of everything else holds what was found out.
//!
//! # Theory of operation
//! What becomes of a packet follows from what is said about many, segments with their gateways and translation, and from what
//! is said about the very addresses that it has to do with: a route is met by an address within its prefix, and a managed
//! station by its MAC address or one of its addresses. So where nothing but routes and ports come, go and change, packets that
//! have to do with none of those go where they went. What was learned behind a port that changes is forgotten
//! ([`Switch::install`](crate::switch::Switch::install)), and whatever leads there with it.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Config, Port, RouteConfig, Snapshot, Station};
use crate::addr::{IpNet, MacAddr};

/// Names of each kind; what changes more is no small difference.
const MOST: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Difference {
    /// The configuration before. As long as this is held no other one has its address.
    from: Weak<Config>,
    prefixes: Vec<IpNet>,
    macs: Vec<MacAddr>,
}

impl Difference {
    /// Between two snapshots, of which `from` is the source of the first; none if it is not small. Services and policies are
    /// not looked at.
    pub(super) fn between(from: &Arc<Config>, old: &Snapshot, new: &Snapshot) -> Option<Self> {
        let same_translator = match (old.translator(), new.translator()) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        // Those that are equal are often the very same; whose stations changed are not.
        let same_segments = old.config().segments == new.config().segments;
        if !same_translator || !same_segments {
            return None;
        }
        let mut difference = Self { from: Arc::downgrade(from), prefixes: Vec::new(), macs: Vec::new() };
        for (here, there) in [(old, new), (new, old)] {
            let stays = |port: &&Port| there.port(port.id()).is_some_and(|other| core::ptr::eq(*port, other));
            here.ports().filter(|port| !stays(port)).for_each(|port| difference.add_station(port.station()));
        }
        difference.add_routes(&old.config().routes, &new.config().routes);
        (difference.prefixes.len() <= MOST && difference.macs.len() <= MOST).then_some(difference)
    }

    fn add_station(&mut self, station: &Station) {
        if let Station::Managed { mac, addresses } = station {
            self.macs.push(*mac);
            let link_local = IpAddr::V6(mac.link_local());
            self.prefixes.extend(addresses.iter().copied().chain([link_local]).map(IpNet::from));
        }
    }

    /// Takes note of routes that stand between the first and the last that are the same.
    fn add_routes(&mut self, old: &[RouteConfig], new: &[RouteConfig]) {
        let front = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let (old, new) = (&old[front..], &new[front..]);
        let back = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
        let changed = old[..old.len() - back].iter().chain(&new[..new.len() - back]);
        self.prefixes.extend(changed.map(|route| route.prefix).take(MOST + 1));
    }

    /// Whether it begins at a snapshot with this source.
    pub(super) fn is_from(&self, source: &Arc<Config>) -> bool {
        core::ptr::eq(self.from.as_ptr(), Arc::as_ptr(source))
    }

    /// Whether it may have to do with packets from or to `address`.
    pub fn names_address(&self, address: IpAddr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }

    /// Whether it may have to do with frames from or to `mac`.
    pub fn names_mac(&self, mac: MacAddr) -> bool {
        self.macs.contains(&mac)
    }
}
