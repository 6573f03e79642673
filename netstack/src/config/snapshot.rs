//! A checked and compiled [`Config`]: what the switch looks things up in.
//!
//! # Theory of operation
//! A snapshot is a tree of `Arc`s. [`Snapshot::compile`] takes the snapshot before it and keeps every part whose source
//! did not change, so that a rebuild costs what changed and two snapshots share the rest. [`Snapshot::with_services`] replaces
//! the services alone, at the same price however many ports and routes there are, and [`Snapshot::with_policies`] the policies.
//! Snapshots are immutable; the
//! switch swaps one for the next between batches and hands the old one back, to be dropped on another thread.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::port::Port;
use super::router::{Router, Target, node_local_stations};
use super::translator::Translator;
use super::{
    Config, ConfigErrors, Difference, PortConfig, ReversePath, RouteTarget, RouterAdvertisement,
    SegmentConfig, Services, ServicesConfig, Station as StationConfig, VlanMode, services, validate,
};
use crate::addr::{IpNet, MacAddr, PortId, SegmentId};
use crate::policy::Policies;
use crate::route::PrefixSet;

/// Keys come from the configuration, not from outside bytes, so a fixed fast hash serves.
pub(super) type Map<K, V> = HashMap<K, V, FixedState>;

/// One compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    generation: u64,
    /// Without the services, which change more often than everything else.
    config: Arc<Config>,
    ports: Arc<[Option<Arc<Port>>]>,
    segments: Arc<[Option<Arc<Segment>>]>,
    router: Arc<Router>,
    translator: Option<Arc<Translator>>,
    services: Option<Arc<Services>>,
    policies: Option<Arc<Policies>>,
    /// What it changes of the one that it was compiled from, services and policies aside, if that is little.
    difference: Option<Arc<Difference>>,
}

/// A compiled segment.
#[derive(Debug)]
pub struct Segment {
    config: SegmentConfig,
    /// All ports, and those with unknown stations behind them.
    members: Vec<PortId>,
    foreign: Vec<PortId>,
    stations: Vec<Station>,
    by_mac: Map<MacAddr, u32>,
    by_address: Map<IpAddr, u32>,
    gateway: Option<Gateway>,
}

/// The router's interface on a segment.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses with their on-link prefixes.
    pub addresses: Vec<IpNet>,
    /// Its IPv6 link-local address.
    pub link_local: Ipv6Addr,
    /// Reverse path filter.
    pub reverse_path: ReversePath,
    /// Whether the link leads to the machine that the switch is.
    pub node_local: bool,
    /// Whether its addresses are probed for duplicates before they are used.
    pub probe: bool,
    /// What it tells stations about itself.
    pub advertise: Option<RouterAdvertisement>,
    /// Destinations that stations of this link have no route to.
    pub no_route_to: PrefixSet,
    /// Whether the MSS of TCP connections is lowered to what fits the link.
    pub clamp_mss: bool,
}

/// A managed station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Station {
    /// The port it is behind.
    pub port: PortId,
    /// Its MAC address.
    pub mac: MacAddr,
}

impl Snapshot {
    /// Checks `config` and compiles it, sharing with `previous` what did not change. Policies are those of `previous`.
    ///
    /// # Errors
    /// All that is wrong with `config`.
    pub fn compile(mut config: Config, previous: Option<&Self>) -> Result<Arc<Self>, ConfigErrors> {
        validate::validate(&config)?;
        let services = config.services.take();
        let ports = index_by(
            &config.ports,
            |p| usize::from(p.id.0),
            |port| {
                let old = previous.and_then(|p| p.ports.get(usize::from(port.id.0))?.as_ref());
                match old {
                    Some(old) if old.config() == port => Arc::clone(old),
                    _ => Arc::new(Port::compile(port)),
                }
            },
        );
        let segments = index_by(
            &config.segments,
            |s| usize::from(s.id.0),
            |segment| {
                let new = Segment::compile(segment, &config.ports);
                let old = previous.and_then(|p| p.segments.get(usize::from(segment.id.0))?.as_ref());
                match old {
                    Some(old) if old.same(&new) => Arc::clone(old),
                    _ => Arc::new(new),
                }
            },
        );
        let router = match previous {
            Some(p) if p.routes_like(&config) => Arc::clone(&p.router),
            _ => Arc::new(Router::compile(&config)),
        };
        let before = previous.and_then(|p| p.translator.as_ref());
        let translator = config.nat.as_ref().map(|nat| Translator::compile(nat, before));
        let services = services.zip(translator.as_ref()).map(|(of, by)| Services::compile(of, by));
        let generation = previous.map_or(1, |p| p.generation + 1);
        let policies = previous.and_then(|p| p.policies.clone());
        validate::check_policies(policies.as_ref(), translator.as_ref())?;
        let (config, difference) = (Arc::new(config), None);
        let mut snapshot =
            Self { generation, config, ports, segments, router, translator, services, policies, difference };
        let difference = previous.and_then(|p| Difference::between(&p.config, p, &snapshot));
        snapshot.difference = difference.map(Arc::new);
        Ok(Arc::new(snapshot))
    }

    /// The same with other services, sharing everything else.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn with_services(&self, services: Option<ServicesConfig>) -> Result<Arc<Self>, ConfigErrors> {
        let mut errors = Vec::new();
        if let Some(services) = &services {
            services::check(services, self.config.nat.as_ref(), &mut errors);
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let services = services.zip(self.translator.as_ref());
        let services = services.map(|(services, translator)| Services::compile(services, translator));
        Ok(Arc::new(Self { services, ..self.next() }))
    }

    /// The same with other policies, sharing everything else.
    ///
    /// # Errors
    /// When connections are not tracked: without them nobody knows an answer from what nobody has asked for.
    pub fn with_policies(&self, policies: Option<Arc<Policies>>) -> Result<Arc<Self>, ConfigErrors> {
        validate::check_policies(policies.as_ref(), self.translator.as_ref())?;
        Ok(Arc::new(Self { policies, ..self.next() }))
    }

    /// The same as the next generation.
    fn next(&self) -> Self {
        Self {
            generation: self.generation + 1,
            config: Arc::clone(&self.config),
            ports: Arc::clone(&self.ports),
            segments: Arc::clone(&self.segments),
            router: Arc::clone(&self.router),
            translator: self.translator.clone(),
            services: self.services.clone(),
            policies: self.policies.clone(),
            difference: self.difference.clone(),
        }
    }

    /// What it changes of `old`, services and policies aside, if that is known and little.
    pub fn difference_from(&self, old: &Self) -> Option<&Arc<Difference>> {
        self.difference.as_ref().filter(|difference| difference.is_from(&old.config))
    }

    /// Whether everything but services and policies is the very same.
    pub fn differs_in_services_alone(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
            && Arc::ptr_eq(&self.ports, &other.ports)
            && Arc::ptr_eq(&self.segments, &other.segments)
            && Arc::ptr_eq(&self.router, &other.router)
    }

    /// Whether services are the same but for which there are, and who is behind them.
    pub fn has_services_like(&self, other: &Self) -> bool {
        match (&self.services, &other.services) {
            (Some(ours), Some(theirs)) => ours.is_like(theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The snapshot of a switch that has not been configured: it names no port, so none carries anything.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self {
            generation: 0,
            config: Arc::default(),
            ports: Arc::default(),
            segments: Arc::default(),
            router: Arc::new(Router::compile(&Config::default())),
            translator: None,
            services: None,
            policies: None,
            difference: None,
        })
    }

    /// Counts up with every compilation from a previous snapshot.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What was compiled; the services aside, see [`Self::services`].
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A port, if the configuration names it.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))?.as_deref()
    }

    /// A segment, if the configuration names it.
    #[inline]
    pub fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.get(usize::from(id.0))?.as_deref()
    }

    /// A route's target with the segments' names.
    pub fn describe(&self, target: &Target) -> String {
        let name = |id: SegmentId| self.segment(id).map_or_else(|| id.to_string(), |s| s.name().to_string());
        match target {
            Target::Connected(segment) => alloc::format!("on {}", name(*segment)),
            Target::Configured(RouteTarget::Via(hops)) => {
                let hops: Vec<String> = hops
                    .iter()
                    .map(|hop| match hop.gateway {
                        Some(gateway) => alloc::format!("via {gateway} on {}", name(hop.segment)),
                        None => alloc::format!("on {}", name(hop.segment)),
                    })
                    .collect();
                hops.join(", ")
            }
            Target::Configured(RouteTarget::Blackhole) => "blackhole".to_string(),
            Target::Configured(RouteTarget::Unreachable) => "unreachable".to_string(),
            Target::Configured(RouteTarget::Prohibit) => "prohibit".to_string(),
        }
    }

    /// Every port, in order of its number.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().flatten().map(|p| &**p)
    }

    /// Every segment, in order of its number.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().flatten().map(|s| &**s)
    }

    /// Routing.
    #[inline]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What tracks connections and translates, if anything does.
    #[inline]
    pub fn translator(&self) -> Option<&Arc<Translator>> {
        self.translator.as_ref()
    }

    /// Services, if it has any.
    #[inline]
    pub fn services(&self) -> Option<&Arc<Services>> {
        self.services.as_ref()
    }

    /// Who may talk to whom, if anybody is forbidden anything.
    #[inline]
    pub fn policies(&self) -> Option<&Arc<Policies>> {
        self.policies.as_ref()
    }

    /// Whether policies are the very same.
    pub fn has_policies_of(&self, other: &Self) -> bool {
        match (&self.policies, &other.policies) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    fn routes_like(&self, config: &Config) -> bool {
        let stations = |c: &Config| -> Vec<(SegmentId, Vec<IpAddr>)> { node_local_stations(c).collect() };
        self.config.routes == config.routes
            && self.config.segments == config.segments
            && stations(&self.config) == stations(config)
    }
}

fn index_by<T, U>(items: &[T], position: impl Fn(&T) -> usize, make: impl Fn(&T) -> U) -> Arc<[Option<U>]> {
    let len = items.iter().map(|i| position(i) + 1).max().unwrap_or(0);
    let mut out: Vec<Option<U>> = Vec::new();
    out.resize_with(len, || None);
    for item in items {
        out[position(item)] = Some(make(item));
    }
    out.into()
}

impl Segment {
    fn compile(config: &SegmentConfig, ports: &[PortConfig]) -> Self {
        let mut segment = Self {
            config: config.clone(),
            members: Vec::new(),
            foreign: Vec::new(),
            stations: Vec::new(),
            by_mac: Map::default(),
            by_address: Map::default(),
            gateway: config.gateway.as_ref().map(|g| Gateway {
                mac: g.mac,
                addresses: g.addresses.clone(),
                link_local: g.mac.link_local(),
                reverse_path: g.reverse_path,
                node_local: g.node_local,
                probe: g.probe,
                advertise: g.advertise.clone(),
                no_route_to: PrefixSet::new(&g.no_route_to),
                clamp_mss: g.clamp_mss,
            }),
        };
        for port in ports {
            let on = match &port.vlan {
                VlanMode::Access(s) => *s == config.id,
                VlanMode::Trunk { native, tagged } => {
                    *native == Some(config.id) || tagged.iter().any(|&(_, s)| s == config.id)
                }
            };
            if on {
                segment.add_member(port);
            }
        }
        segment
    }

    fn add_member(&mut self, port: &PortConfig) {
        self.members.push(port.id);
        match &port.station {
            StationConfig::Foreign => self.foreign.push(port.id),
            StationConfig::Managed { mac, addresses } => {
                let index = u32::try_from(self.stations.len()).unwrap_or(u32::MAX);
                self.stations.push(Station { port: port.id, mac: *mac });
                self.by_mac.insert(*mac, index);
                for &address in addresses {
                    self.by_address.insert(address, index);
                }
                self.by_address.insert(IpAddr::V6(mac.link_local()), index);
            }
        }
    }

    fn same(&self, other: &Self) -> bool {
        self.config == other.config
            && self.members == other.members
            && self.foreign == other.foreign
            && self.stations == other.stations
            && self.by_address == other.by_address
    }

    /// Its number.
    #[inline]
    pub fn id(&self) -> SegmentId {
        self.config.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The largest IP packet that fits.
    #[inline]
    pub fn mtu(&self) -> usize {
        usize::from(self.config.mtu)
    }

    /// Whether frames between its ports are bridged.
    #[inline]
    pub fn bridges(&self) -> bool {
        self.config.bridge
    }

    /// Whether its gateway answers for addresses that it routes to other segments.
    #[inline]
    pub fn proxies(&self) -> bool {
        self.config.proxy_neighbors
    }

    /// All its ports.
    #[inline]
    pub fn members(&self) -> &[PortId] {
        &self.members
    }

    /// Its ports with unknown stations behind them.
    #[inline]
    pub fn foreign(&self) -> &[PortId] {
        &self.foreign
    }

    /// The router's interface.
    #[inline]
    pub fn gateway(&self) -> Option<&Gateway> {
        self.gateway.as_ref()
    }

    /// The managed station with this MAC address.
    #[inline]
    pub fn station_by_mac(&self, mac: MacAddr) -> Option<Station> {
        self.by_mac.get(&mac).map(|&i| self.stations[i as usize])
    }

    /// Whether the configuration says who has this MAC address: the gateway or a managed station.
    #[inline]
    pub fn places(&self, mac: MacAddr) -> bool {
        self.gateway().is_some_and(|gateway| gateway.mac == mac) || self.station_by_mac(mac).is_some()
    }

    /// The managed station with this address, its link-local one included.
    #[inline]
    pub fn station_by_address(&self, address: IpAddr) -> Option<Station> {
        self.by_address.get(&address).map(|&i| self.stations[i as usize])
    }

    /// Addresses of managed stations, for listing.
    pub fn stations(&self) -> impl Iterator<Item = (IpAddr, Station)> {
        self.by_address.iter().map(|(&address, &i)| (address, self.stations[i as usize]))
    }
}

impl Gateway {
    /// Whether `address` is this interface's, its link-local one included.
    #[inline]
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|n| n.addr() == address) || address == IpAddr::V6(self.link_local)
    }

    /// Its addresses, the link-local one included.
    pub fn own(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr).chain([IpAddr::V6(self.link_local)])
    }

    /// The prefixes whose stations are on this link, in the order of their addresses; an address alone is no prefix.
    pub fn links(&self) -> Vec<IpNet> {
        self.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).copied().collect()
    }

    /// Whether `address` is on this link: within a prefix of the interface's, or link-local of IPv6.
    #[inline]
    pub fn is_on_link(&self, address: IpAddr) -> bool {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        link_local || self.addresses.iter().any(|n| n.contains(&address))
    }

    /// The address to speak with to a neighbour, out of those that are `usable`: the one whose prefix holds it, else any
    /// of its family, else, for IPv6, the link-local one.
    pub fn source_for(&self, neighbor: IpAddr, usable: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let link_local = Some(IpAddr::V6(self.link_local)).filter(|&a| neighbor.is_ipv6() && usable(a));
        if let IpAddr::V6(v6) = neighbor
            && v6.is_unicast_link_local()
        {
            return link_local;
        }
        let find = |fits: &dyn Fn(&IpNet) -> bool| {
            self.addresses.iter().filter(|n| fits(n)).map(IpNet::addr).find(|&a| usable(a))
        };
        find(&|n| n.contains(&neighbor))
            .or_else(|| find(&|n| n.addr().is_ipv4() == neighbor.is_ipv4()))
            .or(link_local)
    }
}
