//! The detour of `proxyMode: userspace`: what a node's switch and what its proxy balance instead.
//!
//! # Theory of operation
//! Every set of backends that clients of a Service can get has a port of the node's proxy. The switch sends who asks for
//! the Service to that port and keeps the client's address; the proxy, whose ports are the frontends of a registry of its
//! own, chooses among the backends. Nobody is masqueraded on the way to the proxy: it is on this node, and backends see
//! the node anyway. What a proxy cannot carry is translated.

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
    /// The proxy's port for a set of backends, by the Service's name and which of its sets it is.
    ports: BTreeMap<(Arc<str>, usize), u16>,
    switch: Registry,
    proxy: Registry,
}

impl Detour {
    /// Takes the place of `registry`, for a proxy that has these addresses. What cannot have a port is translated.
    pub fn replace(&mut self, registry: &Registry, addresses: &[IpAddr]) {
        let mut wanted: Vec<&Service> = registry.iter().collect();
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        let plans: Vec<(&Service, Vec<Arc<Pool>>)> =
            wanted.iter().map(|service| (*service, sets(service, addresses))).collect();
        let keys = plans
            .iter()
            .flat_map(|(service, sets)| (0..sets.len()).map(|which| (Arc::clone(&service.name), which)));
        let keys: BTreeSet<(Arc<str>, usize)> = keys.collect();
        self.ports.retain(|key, _| keys.contains(key));
        let taken: BTreeSet<u16> = self.ports.values().copied().collect();
        let mut free = (FIRST_PORT..=LAST_PORT).filter(|port| !taken.contains(port));
        for key in keys {
            if !self.ports.contains_key(&key)
                && let Some(port) = free.next()
            {
                self.ports.insert(key, port);
            }
        }
        let (mut switch, mut proxy) = (Registry::new(), Registry::new());
        for (service, sets) in plans {
            let (asked, answered) = self.split(service, &sets, addresses);
            // The frontends are those of a registry without conflicts, and ports that nobody else has.
            let _ = switch.set(asked);
            for one in answered {
                let _ = proxy.set(one);
            }
        }
        self.switch = self.switch.adopt(&switch);
        self.proxy = self.proxy.adopt(&proxy);
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
    fn split(&self, service: &Service, sets: &[Arc<Pool>], addresses: &[IpAddr]) -> (Service, Vec<Service>) {
        let mut asked = service.clone();
        let mut answered: BTreeMap<usize, Service> = BTreeMap::new();
        let mut ends: BTreeSet<(IpAddr, u16)> = BTreeSet::new();
        for entrance in &mut asked.entrances {
            let frontend = entrance.frontend;
            let own = addresses.iter().find(|own| own.is_ipv4() == frontend.address.is_ipv4());
            for way in &mut entrance.ways {
                let which = sets.iter().position(|set| Arc::ptr_eq(set, &way.pool));
                let port = which.and_then(|which| self.ports.get(&(Arc::clone(&service.name), which)));
                let (Some(&address), Some(which), Some(&port)) = (own, which, port) else { continue };
                let at = Frontend { address, port, ..frontend };
                answered.entry(which).or_insert_with(|| proxied(service, which, at, &way.pool));
                ends.insert((address, port));
                way.pool = alone(address, port);
                way.masquerade = false;
            }
        }
        if !ends.is_empty() {
            asked.serving = ends.into_iter().collect::<Serving>();
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

/// A Service's port of the proxy.
fn proxied(service: &Service, which: usize, frontend: Frontend, pool: &Arc<Pool>) -> Service {
    let way = || Way { pool: Arc::clone(pool), masquerade: false, when_empty: Refusal::Reject };
    Service {
        name: format!("{}{SET}{which}", service.name).into(),
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
