//! Random histories on a virtual clock, against a plain model.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use proptest::prelude::*;

use super::{NOW, PROTOCOLS, external, host};
use crate::ports::{Choice, Config, Keep, Lease, Pool, PortSet, Protocol, Refused, Request};

const HOLD: Duration = Duration::from_secs(120);
const WAITING: usize = 6;
const QUOTA: usize = 14;
const SUBSCRIBERS: usize = 4;

type Key = (Ipv4Addr, Protocol, u16);

#[derive(Clone, Copy, Debug)]
struct Holder {
    owner: u32,
    inside: Ipv4Addr,
    destination: u8,
}

/// Lists and walks, nothing else.
struct Model {
    addresses: BTreeSet<Ipv4Addr>,
    held: BTreeMap<Key, Vec<Holder>>,
    waiting: Vec<(Duration, Key)>,
    reserved: BTreeSet<Key>,
}

fn permitted(protocol: Protocol, port: u16) -> bool {
    protocol == Protocol::Icmp || ((1020..=1035).contains(&port) && !(1028..=1029).contains(&port))
}

/// Every port that a history touches; an ICMP history would need all 65,536.
const PORTS: core::ops::RangeInclusive<u16> = 1018..=1037;

fn will_do(request: &Request<Ipv4Addr>, port: u16) -> bool {
    let parity = !request.keep.parity || request.port % 2 == port % 2;
    let class = !request.keep.class || (request.port < 1024) == (port < 1024);
    parity && class && permitted(request.protocol, port)
}

impl Model {
    fn holders(&self) -> impl Iterator<Item = (Key, Holder)> {
        self.held.iter().flat_map(|(key, holders)| holders.iter().map(|holder| (*key, *holder)))
    }

    fn leases_of(&self, inside: Ipv4Addr) -> usize {
        self.holders().filter(|(_, holder)| holder.inside == inside).count()
    }

    fn insides(&self) -> BTreeSet<Ipv4Addr> {
        self.holders().map(|(_, holder)| holder.inside).collect()
    }

    fn paired(&self, inside: Ipv4Addr) -> Option<Ipv4Addr> {
        self.holders().find(|(_, holder)| holder.inside == inside).map(|(key, _)| key.0)
    }

    fn refusal(&self, inside: Ipv4Addr) -> Option<Refused> {
        if self.leases_of(inside) >= QUOTA {
            Some(Refused::Quota)
        } else if !self.insides().contains(&inside) && self.insides().len() >= SUBSCRIBERS {
            Some(Refused::Subscribers)
        } else {
            None
        }
    }

    fn may_use(&self, inside: Ipv4Addr, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address) && self.paired(inside).is_none_or(|paired| paired == address)
    }

    fn is_free(&self, key: Key) -> bool {
        permitted(key.1, key.2)
            && self.addresses.contains(&key.0)
            && !self.held.contains_key(&key)
            && !self.reserved.contains(&key)
            && self.waiting.iter().all(|(_, waits)| *waits != key)
    }

    fn is_shareable(&self, key: Key, destination: u8) -> bool {
        self.held
            .get(&key)
            .is_some_and(|holders| holders.iter().all(|holder| holder.destination != destination))
    }

    /// What a request may be answered, among ports for which `usable`.
    fn candidates(&self, request: &Request<Ipv4Addr>, usable: impl Fn(Key) -> bool) -> Vec<Key> {
        self.addresses
            .iter()
            .filter(|&&address| self.may_use(request.inside, address))
            .flat_map(|&address| PORTS.map(move |port| (address, request.protocol, port)))
            .filter(|&key| will_do(request, key.2) && usable(key))
            .collect()
    }

    fn release(&mut self, lease: Lease<Ipv4Addr>, owner: u32, now: Duration, hold: bool) -> bool {
        let key = (lease.external, lease.protocol, lease.port);
        let Some(holders) = self.held.get_mut(&key) else { return false };
        let Some(at) = holders.iter().position(|holder| holder.owner == owner) else { return false };
        holders.remove(at);
        if holders.is_empty() {
            self.held.remove(&key);
            if hold {
                self.waiting.push((now + HOLD, key));
                if self.waiting.len() > WAITING {
                    self.waiting.remove(0);
                }
            }
        }
        true
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Choose, and take it at once or later.
    Lease {
        inside: u32,
        protocol: usize,
        port: u16,
        keep: u8,
        random: u64,
        destination: u8,
        now: bool,
    },
    Share {
        inside: u32,
        protocol: usize,
        port: u16,
        keep: u8,
        random: u64,
        destination: u8,
        now: bool,
    },
    /// Take what was chosen earlier.
    Take(usize),
    Release {
        at: usize,
        hold: bool,
    },
    /// Release what was released before.
    ReleaseAgain(usize),
    SetOwner(usize),
    Wait(u64),
    Reserve {
        address: u8,
        protocol: usize,
        port: u16,
    },
    Unreserve {
        address: u8,
        protocol: usize,
        port: u16,
    },
    Remove(u8),
    Add(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let flow = || (0u32..6, 0usize..2, PORTS, 0u8..8, any::<u64>(), 0u8..4, prop::bool::weighted(0.8));
    let place = || (1u8..=2, 0usize..2, PORTS);
    prop_oneof![
        40 => flow().prop_map(|(inside, protocol, port, keep, random, destination, now)| {
            Step::Lease { inside, protocol, port, keep, random, destination, now }
        }),
        15 => flow().prop_map(|(inside, protocol, port, keep, random, destination, now)| {
            Step::Share { inside, protocol, port, keep, random, destination, now }
        }),
        8 => any::<usize>().prop_map(Step::Take),
        25 => (any::<usize>(), any::<bool>()).prop_map(|(at, hold)| Step::Release { at, hold }),
        5 => any::<usize>().prop_map(Step::ReleaseAgain),
        4 => any::<usize>().prop_map(Step::SetOwner),
        8 => (0u64..100).prop_map(Step::Wait),
        6 => place().prop_map(|(address, protocol, port)| Step::Reserve { address, protocol, port }),
        6 => place().prop_map(|(address, protocol, port)| Step::Unreserve { address, protocol, port }),
        1 => (1u8..=2).prop_map(Step::Remove),
        2 => (1u8..=2).prop_map(Step::Add),
    ]
}

fn pool() -> Pool<Ipv4Addr> {
    let mut config = Config::new(Vec::from([external(1), external(2)]), 9);
    config.ports = PortSet::range(1020..=1035).without(1028..=1029);
    config.hold = HOLD;
    config.limits.waiting = u32::try_from(WAITING).unwrap();
    config.limits.leases_per_subscriber = u32::try_from(QUOTA).unwrap();
    config.limits.subscribers = u32::try_from(SUBSCRIBERS).unwrap();
    Pool::new(config).unwrap()
}

struct Run {
    pool: Pool<Ipv4Addr>,
    model: Model,
    now: Duration,
    owners: u32,
    leases: Vec<(Lease<Ipv4Addr>, u32)>,
    released: Vec<(Lease<Ipv4Addr>, u32)>,
    /// Chosen and not taken yet, whether shared, and for which destination.
    chosen: Vec<(Choice<Ipv4Addr>, bool, u8)>,
    trace: Vec<Result<Lease<Ipv4Addr>, Refused>>,
}

impl Run {
    fn new() -> Self {
        let model = Model {
            addresses: [external(1), external(2)].into(),
            held: BTreeMap::new(),
            waiting: Vec::new(),
            reserved: BTreeSet::new(),
        };
        Self {
            pool: pool(),
            model,
            now: NOW,
            owners: 0,
            leases: Vec::new(),
            released: Vec::new(),
            chosen: Vec::new(),
            trace: Vec::new(),
        }
    }

    /// Chooses and compares with what the model allows.
    fn choose(&mut self, request: &Request<Ipv4Addr>, random: u64, shared: bool, destination: u8) -> bool {
        let model = &self.model;
        let usable = |key| if shared { model.is_shareable(key, destination) } else { model.is_free(key) };
        let answer = if shared {
            self.pool
                .choose_shared(request, random, |address, port| usable((address, request.protocol, port)))
        } else {
            self.pool.choose(request, random)
        };
        self.trace.push(answer.map(|choice| choice.lease()));
        let candidates = model.candidates(request, usable);
        let refusal = model.refusal(request.inside).or(candidates.is_empty().then_some(Refused::Exhausted));
        match answer {
            Err(refused) => assert_eq!(Some(refused), refusal),
            Ok(choice) => {
                let Lease { inside, external, protocol, port } = choice.lease();
                assert_eq!((inside, protocol, refusal), (request.inside, request.protocol, None));
                assert!(candidates.contains(&(external, protocol, port)), "{choice:?} of {candidates:?}");
                let kept = candidates.contains(&(external, protocol, request.port)) && request.keep.port;
                assert!(!kept || port == request.port, "the inside port was to be had");
                self.chosen.push((choice, shared, destination));
            }
        }
        answer.is_ok()
    }

    /// Takes, and compares with whether the model would.
    fn take(&mut self, at: usize) {
        let (choice, shared, destination) = self.chosen.swap_remove(at);
        let lease = choice.lease();
        let key = (lease.external, lease.protocol, lease.port);
        if shared && self.model.held.contains_key(&key) && !self.model.is_shareable(key, destination) {
            return; // Somebody has come to the destination meanwhile: the caller would know.
        }
        let fits = if shared { self.model.held.contains_key(&key) } else { self.model.is_free(key) };
        let stands = fits
            && self.model.refusal(lease.inside).is_none()
            && self.model.may_use(lease.inside, lease.external);
        let owner = self.owners;
        self.owners += 1;
        assert_eq!(self.pool.take(choice, owner).is_ok(), stands, "{choice:?}");
        if stands {
            let holder = Holder { owner, inside: lease.inside, destination };
            self.model.held.entry(key).or_default().push(holder);
            self.leases.push((lease, owner));
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Lease { inside, protocol, port, keep, random, destination, now } => {
                self.ask(inside, protocol, port, keep, random, false, destination, now);
            }
            Step::Share { inside, protocol, port, keep, random, destination, now } => {
                self.ask(inside, protocol, port, keep, random, true, destination, now);
            }
            Step::Take(at) if !self.chosen.is_empty() => self.take(at % self.chosen.len()),
            Step::Release { at, hold } if !self.leases.is_empty() => {
                let (lease, owner) = self.leases.swap_remove(at % self.leases.len());
                let expected = self.model.release(lease, owner, self.now, hold);
                assert_eq!(self.pool.release(lease, owner, self.now, hold), expected);
                self.released.push((lease, owner));
            }
            Step::ReleaseAgain(at) if !self.released.is_empty() => {
                let (lease, owner) = self.released[at % self.released.len()];
                assert!(!self.pool.release(lease, owner, self.now, true));
            }
            Step::SetOwner(at) if !self.leases.is_empty() => self.set_owner(at % self.leases.len()),
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Step::Reserve { address, protocol, port } => {
                let key = (external(address), PROTOCOLS[protocol], port);
                let held = self.model.held.contains_key(&key) || !self.model.addresses.contains(&key.0);
                let expected = !held && self.model.reserved.insert(key);
                if expected {
                    self.model.waiting.retain(|(_, waits)| *waits != key);
                }
                assert_eq!(self.pool.reserve(key.0, key.1, key.2), expected);
            }
            Step::Unreserve { address, protocol, port } => {
                let key = (external(address), PROTOCOLS[protocol], port);
                assert_eq!(self.pool.unreserve(key.0, key.1, key.2), self.model.reserved.remove(&key));
            }
            Step::Remove(last) => {
                let gone = external(last);
                assert_eq!(self.pool.remove(gone), self.model.addresses.remove(&gone));
                self.model.held.retain(|key, _| key.0 != gone);
                self.model.reserved.retain(|key| key.0 != gone);
                self.model.waiting.retain(|(_, key)| key.0 != gone);
            }
            Step::Add(last) => {
                self.pool.add(external(last)).unwrap();
                self.model.addresses.insert(external(last));
            }
            Step::Take(_) | Step::Release { .. } | Step::ReleaseAgain(_) | Step::SetOwner(_) => {}
        }
        self.pool.expire(self.now);
        self.model.waiting.retain(|(until, _)| *until > self.now);
    }

    #[expect(clippy::too_many_arguments, reason = "a step has so many fields")]
    fn ask(
        &mut self,
        inside: u32,
        protocol: usize,
        port: u16,
        keep: u8,
        random: u64,
        shared: bool,
        destination: u8,
        now: bool,
    ) {
        let keep = Keep { port: keep & 1 == 0, parity: keep & 2 != 0, class: keep & 4 != 0 };
        let request = Request { inside: host(inside), protocol: PROTOCOLS[protocol], port, keep };
        if self.choose(&request, random, shared, destination) && now {
            self.take(self.chosen.len() - 1);
        }
    }

    fn set_owner(&mut self, at: usize) {
        let (lease, from) = self.leases[at];
        let to = self.owners;
        self.owners += 1;
        let key = (lease.external, lease.protocol, lease.port);
        let holders = self.model.held.get_mut(&key);
        let holder = holders.and_then(|holders| holders.iter_mut().find(|holder| holder.owner == from));
        assert_eq!(self.pool.set_owner(lease, from, to), holder.is_some());
        if let Some(holder) = holder {
            holder.owner = to;
            self.leases[at].1 = to;
        }
    }

    /// Everything that can be asked.
    fn compare(&self) {
        for address in [external(1), external(2)] {
            for protocol in [PROTOCOLS[0], PROTOCOLS[1]] {
                let mut free = 0;
                for port in PORTS {
                    let key = (address, protocol, port);
                    free += u32::from(self.model.is_free(key));
                    let owner = self.pool.owner(address, protocol, port);
                    let holders = self.model.held.get(&key).map_or(&[][..], Vec::as_slice);
                    assert_eq!(owner.is_some(), !holders.is_empty(), "{key:?}");
                    assert!(owner.is_none_or(|owner| holders.iter().any(|holder| holder.owner == owner)));
                    assert_eq!(self.pool.is_shared(address, protocol, port), holders.len() > 1);
                }
                assert_eq!(self.pool.free(address, protocol), free);
            }
        }
        assert_eq!(self.pool.waiting(), self.model.waiting.len());
        assert_eq!(self.pool.next_expiry(), self.model.waiting.first().map(|(until, _)| *until));
        assert_eq!(self.pool.subscribers(), self.model.insides().len());
        for inside in (0..6).map(host) {
            assert_eq!(self.pool.leases_of(inside) as usize, self.model.leases_of(inside));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Each port is taken and returned once, has one owner, and a request is refused when nothing would do and only then.
    #[test]
    fn a_pool_does_what_lists_and_walks_do(steps in prop::collection::vec(step(), 1..250)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.compare();
        }
        let counters = run.pool.counters();
        for (lease, owner) in core::mem::take(&mut run.leases) {
            let expected = run.model.release(lease, owner, run.now, true);
            prop_assert_eq!(run.pool.release(lease, owner, run.now, true), expected);
        }
        run.step(Step::Wait(120));
        run.compare();
        prop_assert_eq!(run.pool.subscribers(), 0);
        prop_assert_eq!(run.pool.waiting(), 0);
        prop_assert!(counters.released + counters.shared <= 2 * counters.taken);
    }

    #[test]
    fn equal_numbers_give_equal_histories(steps in prop::collection::vec(step(), 1..150)) {
        let traces = [(), ()].map(|()| {
            let mut run = Run::new();
            steps.iter().cloned().for_each(|step| run.step(step));
            run.trace
        });
        prop_assert_eq!(&traces[0], &traces[1]);
    }
}
