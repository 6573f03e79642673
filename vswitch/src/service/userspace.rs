//! The detour of `proxyMode: userspace`: what a node's switch and what its proxy balance instead.
//!
//! # Theory of operation
//! Every set of backends that clients of a Service can get has a port of the node's proxy. The switch sends who asks for
//! the Service to that port and keeps the client's address; the proxy, whose ports are the frontends of a registry of its
//! own, chooses among the backends. Nobody is masqueraded on the way to the proxy: it is on this node, and backends see
//! the node anyway. What a proxy cannot carry is translated.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Registry, Service, Serving, Way};
use netstack::parse::protocol;

use crate::proxy::{FIRST_PORT, LAST_PORT};

/// What is between the name of a Service's port and which of its sets it is.
const SET: char = '#';

/// One node's.
#[derive(Debug, Default)]
pub struct Detour {
    /// What it takes the place of.
    registry: Registry,
    /// The proxy's.
    addresses: Vec<IpAddr>,
    /// The proxy's port for a set of backends, by the Service's name and which of its sets it is.
    ports: BTreeMap<(Arc<str>, usize), u16>,
    taken: BTreeSet<u16>,
    /// The port that was given out last.
    last: u16,
    switch: Registry,
    proxy: Registry,
}

impl Detour {
    /// Takes the place of `registry`, for a proxy that has these addresses. What cannot have a port is translated. If what it
    /// took the place of before was a clone, this costs what has changed since.
    pub fn replace(&mut self, registry: &Registry, addresses: &[IpAddr]) {
        let before = std::mem::replace(&mut self.registry, registry.clone());
        for service in before.differing(registry).filter(|service| registry.get(&service.name).is_none()) {
            self.switch.remove(&service.name);
            self.keep_ports(&service.name, 0);
        }
        let mut changed: Vec<&Service> = match self.addresses == addresses {
            true => registry.differing(&before).collect(),
            false => registry.iter().collect(),
        };
        self.addresses = addresses.to_vec();
        changed.sort_by(|one, other| one.name.cmp(&other.name));
        let plans: Vec<(&Service, Vec<Arc<Pool>>)> =
            changed.into_iter().map(|service| (service, sets(service, addresses))).collect();
        for (service, sets) in &plans {
            self.keep_ports(&service.name, sets.len());
        }
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for (service, sets) in plans {
            (0..sets.len()).for_each(|which| self.take_port(&service.name, which));
            let (by_switch, by_proxy) = self.split(service, &sets);
            asked.push(by_switch);
            answered.extend(by_proxy);
        }
        // The frontends are those of a registry without conflicts, and ports that nobody else has.
        let _ = self.switch.set_all(asked);
        let _ = self.proxy.set_all(answered);
    }

    /// Takes back the ports of a Service for all but so many of its sets.
    fn keep_ports(&mut self, name: &Arc<str>, sets: usize) {
        let surplus = self.ports.range((Arc::clone(name), sets)..=(Arc::clone(name), usize::MAX));
        let surplus: Vec<(Arc<str>, usize)> = surplus.map(|(key, _)| key.clone()).collect();
        for key in surplus {
            self.proxy.remove(&proxied_name(&key.0, key.1));
            if let Some(port) = self.ports.remove(&key) {
                self.taken.remove(&port);
            }
        }
    }

    /// Gives a set of backends a port, if it has none and there is one.
    fn take_port(&mut self, name: &Arc<str>, which: usize) {
        let Entry::Vacant(place) = self.ports.entry((Arc::clone(name), which)) else { return };
        // On from the last one: those before it are likely to be taken, or were until a moment ago.
        let all = (self.last.max(FIRST_PORT)..=LAST_PORT).chain(FIRST_PORT..=LAST_PORT);
        let mut free = all.filter(|port| !self.taken.contains(port));
        if let Some(port) = free.next() {
            self.taken.insert(port);
            self.last = port;
            place.insert(port);
        }
    }

    /// What the switch balances.
    pub fn switch(&self) -> &Registry {
        &self.switch
    }

    /// The Service's port that one of [`Self::proxy`] stands for.
    pub fn service_of(proxied: &str) -> &str {
        proxied.rsplit_once(SET).map_or(proxied, |(service, _)| service)
    }

    /// What the proxy does.
    pub fn proxy(&self) -> &Registry {
        &self.proxy
    }

    /// A Service as the switch and as the proxy have it.
    fn split(&self, service: &Service, sets: &[Arc<Pool>]) -> (Service, Vec<Service>) {
        let mut asked = service.clone();
        let mut answered: BTreeMap<usize, Service> = BTreeMap::new();
        let mut ends: BTreeMap<(IpAddr, u16), Arc<Pool>> = BTreeMap::new();
        for entrance in &mut asked.entrances {
            let frontend = entrance.frontend;
            let own = self.addresses.iter().find(|own| own.is_ipv4() == frontend.address.is_ipv4());
            for way in &mut entrance.ways {
                let which = sets.iter().position(|set| Arc::ptr_eq(set, &way.pool));
                let port = which.and_then(|which| self.ports.get(&(Arc::clone(&service.name), which)));
                let (Some(&address), Some(which), Some(&port)) = (own, which, port) else { continue };
                let at = Frontend { address, port, ..frontend };
                answered.entry(which).or_insert_with(|| proxied(service, which, at, &way.pool));
                let end = ends.entry((address, port)).or_insert_with(|| alone(address, port));
                way.pool = Arc::clone(end);
                way.masquerade = false;
            }
        }
        if !ends.is_empty() {
            asked.serving = ends.into_keys().collect::<Serving>();
            asked.affinity = None;
        }
        (asked, answered.into_values().collect())
    }
}

/// The sets of backends that clients of a Service can get, as far as a proxy can carry them: each once, none without
/// backends.
fn sets(service: &Service, addresses: &[IpAddr]) -> Vec<Arc<Pool>> {
    let mut sets: Vec<Arc<Pool>> = Vec::new();
    let carried = |frontend: &Frontend| {
        matches!(frontend.protocol, protocol::TCP | protocol::UDP)
            && addresses.iter().any(|own| own.is_ipv4() == frontend.address.is_ipv4())
    };
    let entrances = service.entrances.iter().filter(|entrance| carried(&entrance.frontend));
    for way in entrances.flat_map(|entrance| &entrance.ways) {
        if !way.pool.backends().is_empty() && !sets.iter().any(|set| Arc::ptr_eq(set, &way.pool)) {
            sets.push(Arc::clone(&way.pool));
        }
    }
    sets
}

/// What the proxy's registry calls a set of backends of a Service.
fn proxied_name(service: &str, which: usize) -> String {
    format!("{service}{SET}{which}")
}

/// A Service's port of the proxy.
fn proxied(service: &Service, which: usize, frontend: Frontend, pool: &Arc<Pool>) -> Service {
    let way = || Way { pool: Arc::clone(pool), masquerade: false, when_empty: Refusal::Reject };
    Service {
        name: proxied_name(&service.name, which).into(),
        entrances: vec![Entrance { frontend, sources: Vec::new(), ways: std::array::from_fn(|_| way()) }],
        affinity: service.affinity,
        serving: service.serving.clone(),
        reset_gone: service.reset_gone,
    }
}

/// The proxy as the only backend.
fn alone(address: IpAddr, port: u16) -> Arc<Pool> {
    let backend = Backend { address, port, weight: 1 };
    // There is nothing to choose, so neither policy nor key matters.
    let pool = Pool::new([backend], Policy::Random, None, [0; 16]);
    Arc::new(pool.unwrap_or_else(|error| unreachable!("one backend is always a pool: {error}")))
}

#[cfg(test)]
mod tests {
    use lb::Origin;

    use super::*;

    const PROXY: [&str; 2] = ["10.244.0.254", "fd00::fe"];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn pool(backends: &[&str]) -> Arc<Pool> {
        let of = |text: &&str| Backend { address: ip(text), port: 80, weight: 1 };
        Arc::new(Pool::new(backends.iter().map(of), Policy::Maglev, None, [1; 16]).unwrap())
    }

    /// A Service at a cluster IP whose clients inside and outside get different backends.
    fn service(name: &str, address: &str, protocol: u8, pools: [&Arc<Pool>; 2]) -> Service {
        let way =
            |pool: &Arc<Pool>| Way { pool: Arc::clone(pool), masquerade: true, when_empty: Refusal::Drop };
        let frontend = Frontend { address: ip(address), protocol, port: 80 };
        let ways = [way(pools[0]), way(pools[0]), way(pools[1])];
        let backends = pools.iter().flat_map(|pool| pool.backends());
        Service {
            name: name.into(),
            entrances: vec![Entrance { frontend, sources: Vec::new(), ways }],
            affinity: Some(std::time::Duration::from_secs(60)),
            serving: backends.map(|backend| (backend.address, backend.port)).collect(),
            reset_gone: false,
        }
    }

    fn detour(services: Vec<Service>, into: &mut Detour) {
        let mut registry = Registry::new();
        for service in services {
            registry.set(service).unwrap();
        }
        into.replace(&registry, &PROXY.map(ip));
    }

    /// Where clients of an origin are sent, and who then answers.
    fn way(detour: &Detour, name: &str, origin: Origin) -> Option<(u16, Vec<IpAddr>)> {
        let way = detour.switch().get(name)?.entrances[0].way(origin).clone();
        assert!(!way.masquerade);
        let [proxy] = way.pool.backends() else { return None };
        let frontend = Frontend { address: proxy.address, protocol: protocol::TCP, port: proxy.port };
        let (_, entrance) = detour.proxy().find(&frontend)?;
        let backends = entrance.way(Origin::Inside).pool.backends();
        Some((proxy.port, backends.iter().map(|backend| backend.address).collect()))
    }

    #[test]
    fn each_set_of_backends_has_a_port_of_the_proxy_that_stays() {
        let (all, local) = (pool(&["10.244.0.1", "10.244.1.1"]), pool(&["10.244.0.1"]));
        let mut it = Detour::default();
        let web = service("web", "10.96.0.20", protocol::TCP, [&all, &local]);
        detour(vec![web.clone()], &mut it);
        let inside = way(&it, "web", Origin::Inside).unwrap();
        let outside = way(&it, "web", Origin::Outside).unwrap();
        assert_eq!((inside.1.len(), outside.1.len()), (2, 1));
        assert_ne!(inside.0, outside.0);
        assert_eq!(way(&it, "web", Origin::Node).unwrap(), inside);
        // The client's address is kept on the way to the proxy, whose affinity it is.
        let kept = it.switch().get("web").unwrap();
        assert_eq!((kept.affinity, it.proxy().get("web#0").unwrap().affinity), (None, web.affinity));
        assert!(kept.serving.contains((ip(PROXY[0]), inside.0)));
        // One that would come first by its name does not take the port.
        let six = pool(&["fd00::1"]);
        let first = service("a", "fd00:10:96::20", protocol::TCP, [&six, &six]);
        detour(vec![first, web.clone()], &mut it);
        assert_eq!(way(&it, "web", Origin::Inside).unwrap(), inside);
        assert_eq!(way(&it, "a", Origin::Inside).unwrap().1, [ip("fd00::1")]);
        detour(vec![web], &mut it);
        assert_eq!((it.proxy().len(), it.switch().len()), (2, 1));
    }

    /// Service by service it comes to the same as all at once, whatever comes, changes and goes, and only what changes is
    /// touched: the marks of all others stay.
    #[test]
    fn a_change_costs_what_changes_and_comes_to_the_same() {
        let address = |n: usize| format!("10.96.{}.{}", n / 200, n % 200 + 1);
        let backends = |n: usize| pool(&[&*format!("10.244.{}.{}", n / 200, n % 200 + 1)]);
        let of = |n: usize, at: usize, more: usize| {
            let (one, other) = (backends(n), backends(n + more));
            let other = if more == 0 { &one } else { &other };
            service(&format!("s{n}"), &address(at), protocol::TCP, [&one, other])
        };
        let mut registry = Registry::new();
        let mut it = Detour::default();
        let addresses = PROXY.map(ip);
        for n in 0..500 {
            registry.set(of(n, n, n % 2)).unwrap();
            it.replace(&registry, &addresses);
        }
        let before = (it.switch().clone(), it.proxy().clone());
        let web = way(&it, "s7", Origin::Outside).unwrap();
        // One goes, two change places, one has another set less.
        registry.remove("s3");
        registry.set_all([of(10, 11, 0), of(11, 10, 1), of(21, 21, 0)]).unwrap();
        it.replace(&registry, &addresses);
        assert_eq!(it.switch().differing(&before.0).count(), 3);
        assert!(it.proxy().differing(&before.1).count() <= 5);
        assert_eq!(way(&it, "s7", Origin::Outside).unwrap(), web);
        let mut anew = Detour::default();
        anew.replace(&registry, &addresses);
        assert_eq!((it.switch().len(), it.proxy().len()), (anew.switch().len(), anew.proxy().len()));
        for service in registry.iter() {
            for origin in [Origin::Inside, Origin::Outside] {
                let backends = |detour: &Detour| way(detour, &service.name, origin).unwrap().1;
                assert_eq!(backends(&it), backends(&anew), "{}", service.name);
            }
        }
        // A port that was taken back can be given out again.
        let ports: BTreeSet<u16> = it.ports.values().copied().collect();
        assert_eq!((ports.len(), &ports), (it.ports.len(), &it.taken));
        it.replace(&Registry::new(), &addresses);
        assert!(it.switch().is_empty() && it.proxy().is_empty() && it.taken.is_empty());
    }

    #[test]
    fn what_a_proxy_cannot_carry_is_translated_and_nobody_stays_nobody() {
        let (some, none) = (pool(&["10.244.0.1"]), pool(&[]));
        let mut it = Detour::default();
        let sctp = service("sctp", "10.96.0.20", protocol::SCTP, [&some, &some]);
        let empty = service("empty", "10.96.0.21", protocol::TCP, [&none, &none]);
        detour(vec![sctp.clone(), empty.clone()], &mut it);
        assert_eq!((it.switch().get("sctp"), it.switch().get("empty")), (Some(&sctp), Some(&empty)));
        assert!(it.proxy().is_empty());
    }
}
