//! [`NatConfig`], checked and taken apart by family.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::nat::ports::{self, Assignment, Blocks, PortSet};
use ::nat::rule::{DestinationAction, Match, Prefix, Rule, Rules, SourceAction, Way};
use ::nat::tuple::Address;
use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::nat::{
    Behaviour, DestinationNat, NatConfig, NatMatch, PoolConfig, PortRange, SourceNat, Timeouts,
};
use super::validate::ConfigError;
use crate::addr::{IpNet, SegmentId};
use crate::route::PrefixSet;

/// What tracks and translates, compiled.
#[derive(Debug)]
pub struct Translator {
    config: NatConfig,
    /// By number. A pool keeps its number as long as it has its name, so that connections stay with their pool whichever
    /// others come and go.
    pools: Vec<Option<PoolConfig>>,
    externals: HashSet<IpAddr, FixedState>,
    untracked: PrefixSet,
    v4: Arc<Rules<Ipv4Addr>>,
    v6: Arc<Rules<Ipv6Addr>>,
}

impl Translator {
    /// Compiles what was found without errors.
    pub(super) fn compile(config: &NatConfig, previous: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(previous) = previous
            && previous.config == *config
        {
            return Arc::clone(previous);
        }
        let pools = number(&config.pools, previous.map(|previous| &*previous.pools).unwrap_or_default());
        Arc::new(Self {
            v4: Arc::new(rules(config, &pools)),
            v6: Arc::new(rules(config, &pools)),
            untracked: PrefixSet::new(&config.untracked),
            externals: config.pools.iter().flat_map(|pool| &pool.addresses).copied().collect(),
            pools,
            config: config.clone(),
        })
    }

    /// How to act where the field disagrees.
    pub fn behaviour(&self) -> Behaviour {
        self.config.behaviour
    }

    /// How long silent connections are kept.
    pub fn timeouts(&self) -> Timeouts {
        self.config.timeouts
    }

    /// Pools by number; none where there is no more.
    pub fn pools(&self) -> &[Option<PoolConfig>] {
        &self.pools
    }

    /// Whether it is an address of a pool.
    #[inline]
    pub fn is_external(&self, address: IpAddr) -> bool {
        self.externals.contains(&address)
    }

    /// Whether nothing is to be remembered of packets from this address and to it.
    #[inline]
    pub fn is_untracked(&self, address: IpAddr) -> bool {
        self.untracked.contains(address)
    }

    /// The rules for IPv4.
    pub fn v4(&self) -> &Arc<Rules<Ipv4Addr>> {
        &self.v4
    }

    /// The rules for IPv6.
    pub fn v6(&self) -> &Arc<Rules<Ipv6Addr>> {
        &self.v6
    }

    /// What a translator of one family is made from that stands alone, without a switch.
    pub fn alone<A: Address>(&self, capacity: usize, seed: u64) -> ::nat::Config<A> {
        let nothing = PoolConfig::new(String::new(), Vec::new());
        let pools = self.pools.iter().map(|config| pool(config.as_ref().unwrap_or(&nothing), seed));
        ::nat::Config {
            pools: pools.collect(),
            rules: rules(&self.config, &self.pools),
            ..::nat::Config::new(capacity, self.behaviour(), self.timeouts(), seed)
        }
    }
}

/// Where a packet passes through, in the translator's words.
pub(crate) fn way(ingress: SegmentId, egress: Option<SegmentId>) -> Way {
    Way { ingress: ingress.0.into(), egress: egress.map(|segment| segment.0.into()), zone: 0 }
}

/// A pool of one family, for the translator's use.
pub(crate) fn pool<A: Address>(config: &PoolConfig, seed: u64) -> ports::Config<A> {
    let addresses = config.addresses.iter().filter_map(|&address| A::from_ip(address)).collect();
    let mut pool = ports::Config::new(addresses, seed);
    if !config.ports.is_empty() {
        pool.ports = config.ports.iter().fold(PortSet::new(), |set, range| set.with(*range));
    }
    pool.hold = config.hold;
    pool.limits.subscribers = config.hosts;
    pool.limits.leases_per_subscriber = config.ports_per_host.unwrap_or(u32::MAX);
    if let Some(size) = config.block_size {
        pool.assignment = Assignment::Blocks(Blocks { size, per_subscriber: BLOCKS_PER_HOST });
    }
    pool
}

/// Blocks that one inside address may have.
const BLOCKS_PER_HOST: u8 = 8;

/// Gives pools the numbers they had, and new ones those that are free.
fn number(pools: &[PoolConfig], before: &[Option<PoolConfig>]) -> Vec<Option<PoolConfig>> {
    let named = |name: &str| pools.iter().find(|pool| pool.name == name);
    let kept = |old: &Option<PoolConfig>| named(&old.as_ref()?.name).cloned();
    let mut numbered: Vec<Option<PoolConfig>> = before.iter().map(kept).collect();
    let is_new = |pool: &&PoolConfig| !before.iter().flatten().any(|old| old.name == pool.name);
    for pool in pools.iter().filter(is_new) {
        match numbered.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(pool.clone()),
            None => numbered.push(Some(pool.clone())),
        }
    }
    numbered
}

fn rules<A: Address>(config: &NatConfig, pools: &[Option<PoolConfig>]) -> Rules<A> {
    let number = |name: &str| pools.iter().position(|pool| pool.as_ref().is_some_and(|p| p.name == name));
    let source = config.source.iter().filter_map(|rule| {
        let action = match &rule.action {
            SourceNat::Keep => SourceAction::Keep,
            SourceNat::Pool(name) => SourceAction::Pool(number(name)?),
            SourceNat::Prefix { from, to } => SourceAction::Prefix { from: prefix(from)?, to: prefix(to)? },
        };
        Some(Rule { matches: matches(&rule.matches)?, action })
    });
    let destination = config.destination.iter().filter_map(|rule| {
        let action = match &rule.action {
            DestinationNat::Keep => DestinationAction::Keep,
            DestinationNat::To { address: None, ports } => {
                DestinationAction::To { address: None, ports: *ports }
            }
            DestinationNat::To { address: Some(address), ports } => {
                DestinationAction::To { address: Some(A::from_ip(*address)?), ports: *ports }
            }
            DestinationNat::Prefix { from, to } => {
                DestinationAction::Prefix { from: prefix(from)?, to: prefix(to)? }
            }
        };
        Some(Rule { matches: matches(&rule.matches)?, action })
    });
    Rules { source: source.collect(), destination: destination.collect() }
}

fn prefix<A: Address>(net: &IpNet) -> Option<Prefix<A>> {
    Some(Prefix { address: A::from_ip(net.addr())?, length: net.prefix_len() })
}

/// A family's part of a match; `None` if it is of the other family alone.
fn matches<A: Address>(matches: &NatMatch) -> Option<Match<A>> {
    let of = |nets: &[IpNet]| -> Option<Vec<Prefix<A>>> {
        let mine: Vec<Prefix<A>> = nets.iter().filter_map(prefix).collect();
        (nets.is_empty() || !mine.is_empty()).then_some(mine)
    };
    Some(Match {
        ingress: matches.ingress.map(|segment| segment.0.into()),
        egress: matches.egress.map(|segment| segment.0.into()),
        sources: of(&matches.sources)?,
        destinations: of(&matches.destinations)?,
        protocol: matches.protocol,
        source_ports: matches.source_ports,
        destination_ports: matches.destination_ports,
    })
}

/// Everything that is wrong with `config`; `segments` are those that exist.
pub(super) fn check(config: &NatConfig, exists: impl Fn(SegmentId) -> bool, errors: &mut Vec<ConfigError>) {
    let mut problem = |place: String, problem: String| errors.push(ConfigError::Nat { place, problem });
    for (at, pool) in config.pools.iter().enumerate() {
        let place = || alloc::format!("pool {:?}", pool.name);
        if config.pools[..at].iter().any(|other| other.name == pool.name) {
            problem(place(), "is defined twice; give one of them another name".into());
        }
        for (at, address) in pool.addresses.iter().enumerate() {
            let in_others = config.pools.iter().take_while(|other| !core::ptr::eq(*other, pool));
            if pool.addresses[..at].contains(address)
                || in_others.flat_map(|p| &p.addresses).any(|a| a == address)
            {
                problem(place(), alloc::format!("{address} is in a pool already; one address has one pool"));
            }
        }
        if let Some(fault) = pool.ports.iter().find_map(|range| none_of(*range)) {
            problem(place(), fault);
        }
        for family in [pool_fault::<Ipv4Addr>(pool), pool_fault::<Ipv6Addr>(pool)].into_iter().flatten() {
            problem(place(), family);
        }
    }
    for net in config.untracked.iter().filter(|net| **net != net.trunc()) {
        let network = net.trunc();
        problem("untracked".into(), alloc::format!("{net} has bits set behind its length; write {network}"));
    }
    for (at, rule) in config.source.iter().enumerate() {
        let place = || alloc::format!("source rule {}", at + 1);
        if let SourceNat::Pool(name) = &rule.action
            && !config.pools.iter().any(|pool| pool.name == *name)
        {
            problem(place(), alloc::format!("there is no pool {name:?}"));
        }
        if let SourceNat::Prefix { from, to } = &rule.action
            && let Some(fault) = unlike(from, to)
        {
            problem(place(), fault);
        }
        check_match(&rule.matches, &exists, &mut |fault| problem(place(), fault));
    }
    for (at, rule) in config.destination.iter().enumerate() {
        let place = || alloc::format!("destination rule {}", at + 1);
        if let DestinationNat::Prefix { from, to } = &rule.action
            && let Some(fault) = unlike(from, to)
        {
            problem(place(), fault);
        }
        if rule.matches.egress.is_some() {
            let fault = "the egress is not known yet when destinations are chosen; leave it out";
            problem(place(), fault.into());
        }
        check_match(&rule.matches, &exists, &mut |fault| problem(place(), fault));
    }
}

fn pool_fault<A: Address>(config: &PoolConfig) -> Option<String> {
    use alloc::string::ToString;
    let few = ports::Limits { subscribers: 0, waiting: 0, block_events: 0, ..ports::Limits::default() };
    let config = ports::Config { limits: few, ..pool::<A>(config, 0) };
    ports::Pool::new(config).err().map(|fault| fault.to_string())
}

fn none_of(range: PortRange) -> Option<String> {
    let PortRange { first, last } = range;
    range.is_empty().then(|| alloc::format!("ports {first} to {last} are none; write the lower one first"))
}

fn unlike(from: &IpNet, to: &IpNet) -> Option<String> {
    let alike = from.prefix_len() == to.prefix_len() && from.addr().is_ipv4() == to.addr().is_ipv4();
    (!alike).then(|| alloc::format!("{from} and {to} differ in size or family; take prefixes of one length"))
}

fn check_match(matches: &NatMatch, exists: &impl Fn(SegmentId) -> bool, fault: &mut impl FnMut(String)) {
    for segment in [matches.ingress, matches.egress].into_iter().flatten() {
        if !exists(segment) {
            fault(alloc::format!("{segment} is not defined"));
        }
    }
    for net in matches.sources.iter().chain(&matches.destinations) {
        if *net != net.trunc() {
            let network = net.trunc();
            fault(alloc::format!("{net} has bits set behind its length; write {network}"));
        }
    }
    for range in [matches.source_ports, matches.destination_ports].into_iter().flatten() {
        none_of(range).into_iter().for_each(&mut *fault);
    }
    if family(&matches.sources).zip(family(&matches.destinations)).is_some_and(|(a, b)| a != b) {
        fault("sources and destinations are of different families, so nothing matches".into());
    }
}

/// The family of prefixes that are all of one.
fn family(nets: &[IpNet]) -> Option<bool> {
    let first = nets.first()?.addr().is_ipv4();
    nets.iter().all(|net| net.addr().is_ipv4() == first).then_some(first)
}
