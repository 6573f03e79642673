//! A registry and the balancer that uses it, in a history of changes, beside a model that remembers every service by name.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use lb::{
    Ask, Backend, Balancer, Chosen, Entrance, Frontend, Limits, Mark, Origin, Policy, Pool, Refusal,
    Registry, Service, Standing, Verdict, Way,
};

use super::Input;

const NAMES: u8 = 5;
const FRONTENDS: u8 = 6;
const ORIGINS: [Origin; 3] = [Origin::Inside, Origin::Node, Origin::Outside];
const POLICIES: [Policy; 4] = [Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous];
const AFFINITY: Duration = Duration::from_secs(60);
/// More clients than fit would make what is remembered a matter of luck.
const CLIENTS: u8 = 8;

/// A history: steps, each an octet that says what, and its operands. Services are set and removed in a registry, which is
/// put to use now and then, as it is or made anew; connections are asked for, some of which begin later; time goes by.
pub fn balancer(data: &[u8]) {
    let mut input = Input(data);
    let mut history = History::default();
    while let Some(step) = input.octet() {
        match step >> 5 {
            0 | 1 => history.set(step & 31, &mut input),
            2 => history.remove(step % NAMES),
            3 => history.install(step & 31 == 0),
            4 => history.now += Duration::from_secs(u64::from(step & 31) * 4),
            5 => history.late(),
            _ => history.ask(step & 63, &mut input),
        }
        history.check();
    }
}

/// A service, and the number of times that services came until it did.
#[derive(Clone, Debug)]
struct Known {
    service: Service,
    came: u32,
}

/// A connection, and the service through which it was opened.
#[derive(Clone, Debug)]
struct Opened {
    name: Arc<str>,
    came: u32,
    mark: Mark,
    frontend: Frontend,
    backend: (IpAddr, u16),
}

type Last = ((IpAddr, u16), Duration);

struct History {
    now: Duration,
    /// What is to be used next, and how often anything was set in it.
    registry: Registry,
    sets: usize,
    /// Whether the balancer's is an earlier state of it, and whether that was ever more than empty.
    in_line: bool,
    touched: bool,
    wanted: BTreeMap<Arc<str>, Known>,
    came: u32,
    balancer: Balancer,
    used: BTreeMap<Arc<str>, Known>,
    opened: Vec<Opened>,
    waiting: Vec<(Ask, Chosen, Opened)>,
    /// The backend that a client of a service had last, and when.
    clients: BTreeMap<(Arc<str>, u32, IpAddr), Last>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            now: Duration::from_secs(1000),
            registry: Registry::new(),
            sets: 0,
            in_line: true,
            touched: false,
            wanted: BTreeMap::new(),
            came: 0,
            balancer: Balancer::new([7; 16], Limits { affinities: 4096 }),
            used: BTreeMap::new(),
            opened: Vec::new(),
            waiting: Vec::new(),
            clients: BTreeMap::new(),
        }
    }
}

fn name(number: u8) -> Arc<str> {
    format!("service-{number}").into()
}

fn address(number: u8, v6: bool) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(10, 0, 0, number).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

fn frontend(number: u8) -> Frontend {
    Frontend { address: address(number / 2, number % 2 == 1), protocol: 6, port: 80 }
}

/// A service with the frontends, backends and properties that some octets say.
fn service(number: u8, [frontends, backends, more, how]: [u8; 4]) -> Service {
    let some = |bits: u8| (0..8).filter(move |n| bits & (1 << n) != 0);
    let backend =
        |n: u8, v6| Backend { address: address(100 + n, v6), port: 8080, weight: 1 + u32::from(n & 1) };
    let policy = POLICIES[usize::from(how & 3)];
    let entrance = |n: u8| {
        let v6 = n % 2 == 1;
        let way = |bits: u8| {
            let pool = Pool::new(some(bits).map(|n| backend(n, v6)), policy, None, [1; 16]);
            let pool = Arc::new(pool.expect("backends that differ"));
            Way { pool, masquerade: how & 4 != 0, when_empty: Refusal::Reject }
        };
        let sources = if how & 8 == 0 { Vec::new() } else { vec!["10.0.0.0/29".parse().expect("a prefix")] };
        Entrance {
            frontend: frontend(n),
            sources,
            ways: [way(backends), way(backends), way(backends & more)],
        }
    };
    let serving = some(backends | more).flat_map(|n| [false, true].map(|v6| (address(100 + n, v6), 8080)));
    Service {
        name: name(number),
        entrances: some(frontends).filter(|n| *n < FRONTENDS).map(entrance).collect(),
        affinity: (how & 16 != 0).then_some(AFFINITY),
        serving: serving.collect(),
        reset_gone: how & 32 != 0,
    }
}

impl History {
    fn set(&mut self, number: u8, input: &mut Input<'_>) {
        let service = service(number % NAMES, [(); 4].map(|()| input.octet().unwrap_or(0)));
        let others = self.wanted.values().filter(|known| known.service.name != service.name);
        let taken: Vec<Frontend> =
            others.flat_map(|known| &known.service.entrances).map(|e| e.frontend).collect();
        let clashes = service.entrances.iter().any(|entrance| taken.contains(&entrance.frontend));
        assert_eq!(self.registry.set(service.clone()).is_err(), clashes);
        if clashes {
            return;
        }
        self.came += 1;
        self.sets += 1;
        let came = self.wanted.get(&service.name).map_or(self.came, |known| known.came);
        self.wanted.insert(Arc::clone(&service.name), Known { service, came });
    }

    fn remove(&mut self, number: u8) {
        let name = name(number);
        assert_eq!(self.registry.remove(&name), self.wanted.remove(&name).is_some());
    }

    /// Puts the registry to use. Of one that was made anew, a service that was there and still is has not gone meanwhile.
    fn install(&mut self, anew: bool) {
        if anew {
            self.registry = Registry::new();
            for known in self.wanted.values() {
                self.registry.set(known.service.clone()).expect("there was no clash before");
            }
            (self.sets, self.in_line) = (self.wanted.len(), !self.touched);
        }
        for (name, known) in self.wanted.iter_mut().filter(|_| !self.in_line) {
            known.came = self.used.get(name).map_or(known.came, |before| before.came);
        }
        self.touched |= self.sets > 0;
        self.balancer.install(self.registry.clone());
        self.used.clone_from(&self.wanted);
    }

    fn ask(&mut self, how: u8, input: &mut Input<'_>) {
        let (number, port) = (input.octet().unwrap_or(0), input.word());
        let frontend = frontend(how % FRONTENDS);
        let source = address(number % CLIENTS, frontend.address.is_ipv6());
        let origin = ORIGINS[usize::from(number >> 4) % 3];
        let ask = Ask { frontend, source, source_port: port, origin };
        let holds = |known: &&Known| known.service.entrances.iter().any(|e| e.frontend == frontend);
        let known = self.used.values().find(holds);
        let entrance =
            known.and_then(|known| known.service.entrances.iter().find(|e| e.frontend == frontend));
        let verdict =
            self.balancer.choose(self.now, &ask, u64::from(port).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (Some(known), Some(entrance)) = (known, entrance) else {
            return assert_eq!(verdict, Verdict::NotAService);
        };
        let pool = &entrance.way(origin).pool;
        let Verdict::Chosen(chosen) = verdict else {
            assert!(matches!(verdict, Verdict::Refused { .. }));
            return assert!(pool.backends().is_empty() || !entrance.admits(source, origin));
        };
        assert!(entrance.admits(source, origin));
        assert!(pool.backends().iter().any(|b| (b.address, b.port) == chosen.backend), "not one of the pool");
        let client = (Arc::clone(&known.service.name), known.came, source);
        let valid = |(backend, used): &&Last| {
            self.now < *used + AFFINITY && pool.backends().iter().any(|b| (b.address, b.port) == *backend)
        };
        let affinity = known.service.affinity;
        let before = self.clients.get(&client).filter(|_| affinity.is_some()).filter(valid);
        assert_eq!(chosen.sticky, before.is_some());
        assert!(before.is_none_or(|(backend, _)| *backend == chosen.backend));
        let Known { service, came } = known;
        let (name, mark, backend) = (Arc::clone(&service.name), chosen.mark, chosen.backend);
        self.waiting.push((ask, chosen, Opened { name, came: *came, mark, frontend, backend }));
        if how & 32 != 0 {
            self.late();
        }
    }

    /// The connection that was asked for last begins, whatever has happened since.
    fn late(&mut self) {
        let Some((ask, chosen, opened)) = self.waiting.pop() else { return };
        self.balancer.commit(self.now, &ask, &chosen);
        let same = self.used.get(&opened.name).filter(|known| known.came == opened.came);
        if same.is_some_and(|known| known.service.affinity.is_some()) {
            let client = (Arc::clone(&opened.name), opened.came, ask.source);
            self.clients.insert(client, (chosen.backend, self.now));
        }
        self.opened.push(opened);
        if self.opened.len() > 32 {
            self.opened.remove(0);
        }
    }

    /// How each connection stands to its service, which is judged by its name and when it came.
    fn check(&mut self) {
        assert_eq!(self.balancer.registry().len(), self.used.len());
        for opened in &mut self.opened {
            let same = self.used.get(&opened.name).filter(|known| known.came == opened.came);
            let serves = same.is_some_and(|Known { service, .. }| {
                let asked = service.entrances.iter().any(|entrance| entrance.frontend == opened.frontend);
                asked && service.serving.contains(opened.backend)
            });
            let standing = |mark| self.balancer.standing(mark, &opened.frontend, opened.backend);
            match standing(opened.mark) {
                Standing::Current => assert!(serves, "{opened:?} is gone"),
                Standing::Renewed(mark) => {
                    assert!(serves, "{opened:?} is gone");
                    assert_eq!(standing(mark), Standing::Current);
                    opened.mark = mark;
                }
                Standing::Gone { reset } => {
                    assert!(!serves, "{opened:?} is there");
                    assert_eq!(reset, same.is_some_and(|known| known.service.reset_gone));
                }
            }
        }
    }
}
