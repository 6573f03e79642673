//! Everything that can be wrong with a [`Config`], found at once.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use super::{
    Config, GatewayConfig, NextHop, PortConfig, RouteConfig, RouteTarget, RouterAdvertisement, SegmentConfig,
    Station, Translator, VlanMode, services, translator,
};
use crate::addr::{IpNet, MacAddr, PortId, SegmentId};
use crate::policy::Policies;

/// One thing that is wrong, naming what and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Two ports with one number.
    #[error("{port} is defined twice; give one of them another id")]
    DuplicatePort {
        /// The number.
        port: PortId,
    },
    /// Two segments with one number.
    #[error("{segment} is defined twice; give one of them another id")]
    DuplicateSegment {
        /// The number.
        segment: SegmentId,
    },
    /// A segment that is named but not defined.
    #[error("{place} names {segment}, which is not defined")]
    UnknownSegment {
        /// Where it is named.
        place: String,
        /// The number.
        segment: SegmentId,
    },
    /// A VLAN identifier out of range, or twice on one port.
    #[error("port {port:?}: VLAN {vlan} is {problem}; use each of 1 to 4094 at most once")]
    Vlan {
        /// The port's name.
        port: String,
        /// The identifier.
        vlan: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A segment that a port would carry twice.
    #[error("port {port:?} carries {segment} under two tags; one segment has one tag on a port")]
    SegmentTwice {
        /// The port's name.
        port: String,
        /// The segment.
        segment: SegmentId,
    },
    /// An MTU too small for what the segment carries.
    #[error("segment {segment:?}: MTU {mtu} is below {least}, the least that {family} may use")]
    Mtu {
        /// The segment's name.
        segment: String,
        /// The MTU.
        mtu: u16,
        /// The least possible.
        least: u16,
        /// IPv4 or IPv6.
        family: &'static str,
    },
    /// A MAC address that is no station's.
    #[error("{place}: MAC address {mac} is a group address or zero; a station needs a unicast address")]
    MacInvalid {
        /// Where.
        place: String,
        /// The address.
        mac: MacAddr,
    },
    /// One MAC address for two stations of a segment.
    #[error("MAC address {mac} belongs to two stations of {segment}: {first} and {second}")]
    DuplicateMac {
        /// The segment.
        segment: SegmentId,
        /// The address.
        mac: MacAddr,
        /// Who had it first.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// One address for two stations of a segment.
    #[error("address {address} belongs to two stations of {segment}: {first} and {second}")]
    DuplicateAddress {
        /// The segment.
        segment: SegmentId,
        /// The address.
        address: IpAddr,
        /// Who had it first.
        first: String,
        /// Who wants it too.
        second: String,
    },
    /// An address that no station can have.
    #[error("{place}: {address} cannot be a station's address")]
    AddressInvalid {
        /// Where.
        place: String,
        /// The address.
        address: IpAddr,
    },
    /// A managed station on more than one segment.
    #[error("port {port:?} is managed, so it must be an access port: one station has one segment")]
    ManagedTrunk {
        /// The port's name.
        port: String,
    },
    /// Storm control that lets nothing through.
    #[error("port {port:?}: storm control with a rate or burst of 0 drops every broadcast; use at least 1")]
    StormControl {
        /// The port's name.
        port: String,
    },
    /// A router advertisement that may not be sent.
    #[error("segment {segment:?}, router advertisement: {problem}")]
    Advertisement {
        /// The segment's name.
        segment: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Policies where connections are not tracked.
    #[error("policies need connections: add `nat`, with its defaults if nothing is translated")]
    PoliciesWithoutConnections,
    /// A route without a next hop.
    #[error("route {prefix}: no next hop; name at least one, or use blackhole, unreachable or prohibit")]
    NoNextHop {
        /// The route's prefix.
        prefix: IpNet,
    },
    /// A next hop of the other family.
    #[error("route {prefix}: gateway {gateway} is of the other address family")]
    GatewayFamily {
        /// The route's prefix.
        prefix: IpNet,
        /// The gateway.
        gateway: IpAddr,
    },
    /// A next hop through a segment on which the router has no interface.
    #[error("route {prefix}: {segment} has no gateway, so the router is not on it")]
    NotRouted {
        /// The route's prefix.
        prefix: IpNet,
        /// The segment.
        segment: SegmentId,
    },
    /// A next hop that is the router itself.
    #[error("route {prefix}: gateway {gateway} is the router's own address")]
    GatewayIsSelf {
        /// The route's prefix.
        prefix: IpNet,
        /// The gateway.
        gateway: IpAddr,
    },
    /// Two routes for one prefix.
    #[error(
        "route {prefix} is defined twice, or is already a segment's own; several next hops go into one route"
    )]
    DuplicateRoute {
        /// The prefix.
        prefix: IpNet,
    },
    /// A pool or a rule of translation.
    #[error("nat, {place}: {problem}")]
    Nat {
        /// Which one.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Services.
    #[error("services: {problem}")]
    Services {
        /// What is wrong with them.
        problem: String,
    },
    /// A prefix with host bits.
    #[error("{place}: {prefix} has bits set behind its length; write {network}")]
    HostBits {
        /// Where.
        place: String,
        /// As written.
        prefix: IpNet,
        /// As meant.
        network: IpNet,
    },
}

/// All that is wrong with a configuration; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl core::error::Error for ConfigErrors {}

/// Finds every error in `config`.
pub(super) fn validate(config: &Config) -> Result<(), ConfigErrors> {
    let mut check = Check { config, segments: BTreeMap::new(), errors: Vec::new() };
    check.segments();
    check.ports();
    check.stations();
    check.routes();
    if let Some(nat) = &config.nat {
        let Check { segments, errors, .. } = &mut check;
        translator::check(nat, |segment| segments.contains_key(&segment), errors);
    }
    if let Some(of) = &config.services {
        services::check(of, config.nat.as_ref(), &mut check.errors);
    }
    if check.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(check.errors)) }
}

struct Check<'a> {
    config: &'a Config,
    segments: BTreeMap<SegmentId, &'a SegmentConfig>,
    errors: Vec<ConfigError>,
}

impl<'a> Check<'a> {
    fn error(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    fn segments(&mut self) {
        for segment in &self.config.segments {
            // The first one stays what others mean, so that one mistake is one error.
            // The first one stands, so that a duplicate is one error and not several.
            let first = *self.segments.entry(segment.id).or_insert(segment);
            if !core::ptr::eq(first, segment) {
                self.error(ConfigError::DuplicateSegment { segment: segment.id });
            }
            let v6 = self.carries_ipv6(segment);
            let (least, family) = if v6 { (1280, "IPv6") } else { (68, "IPv4") };
            if segment.mtu < least {
                self.error(ConfigError::Mtu {
                    segment: segment.name.clone(),
                    mtu: segment.mtu,
                    least,
                    family,
                });
            }
            if let Some(gateway) = &segment.gateway {
                self.gateway(segment, gateway);
            }
        }
    }

    /// Whether IPv6 packets have reason to be on this segment: an address of the router's or of a managed station's, a
    /// route, or router advertisements.
    fn carries_ipv6(&self, segment: &SegmentConfig) -> bool {
        let advertises = segment.gateway.as_ref().is_some_and(|g| g.advertise.is_some());
        let own = segment.gateway.iter().flat_map(|g| &g.addresses).any(|a| a.addr().is_ipv6());
        let station = self.config.ports.iter().any(|port| match (&port.vlan, &port.station) {
            (VlanMode::Access(id), Station::Managed { addresses, .. }) => {
                *id == segment.id && addresses.iter().any(IpAddr::is_ipv6)
            }
            (VlanMode::Access(_) | VlanMode::Trunk { .. }, _) => false,
        });
        let routed = self.config.routes.iter().any(|route| match &route.target {
            RouteTarget::Via(hops) => {
                route.prefix.addr().is_ipv6() && hops.iter().any(|hop| hop.segment == segment.id)
            }
            RouteTarget::Blackhole | RouteTarget::Unreachable | RouteTarget::Prohibit => false,
        });
        own || station || routed || advertises
    }

    fn gateway(&mut self, segment: &SegmentConfig, gateway: &GatewayConfig) {
        let place = || alloc::format!("segment {:?}, gateway", segment.name);
        if !gateway.mac.is_valid_source() {
            self.error(ConfigError::MacInvalid { place: place(), mac: gateway.mac });
        }
        if let Some(problem) = gateway.advertise.as_ref().and_then(RouterAdvertisement::problem) {
            self.error(ConfigError::Advertisement { segment: segment.name.clone(), problem });
        }
        for net in &gateway.addresses {
            let address = net.addr();
            let is_network = net.prefix_len() < net.max_prefix_len() - 1
                && address.is_ipv4()
                && (address == net.network() || address == net.broadcast());
            if !is_station_address(address) || is_network {
                self.error(ConfigError::AddressInvalid { place: place(), address });
            }
        }
    }

    fn ports(&mut self) {
        let mut seen = BTreeSet::new();
        for port in &self.config.ports {
            if !seen.insert(port.id) {
                self.error(ConfigError::DuplicatePort { port: port.id });
            }
            if port.storm.is_some_and(|s| s.rate == 0 || s.burst == 0) {
                self.error(ConfigError::StormControl { port: port.name.clone() });
            }
            match &port.vlan {
                VlanMode::Access(segment) => self.segment_named(port, *segment),
                VlanMode::Trunk { native, tagged } => self.trunk(port, *native, tagged),
            }
        }
    }

    fn trunk(&mut self, port: &PortConfig, native: Option<SegmentId>, tagged: &[(u16, SegmentId)]) {
        if matches!(port.station, Station::Managed { .. }) {
            self.error(ConfigError::ManagedTrunk { port: port.name.clone() });
        }
        let mut vlans = BTreeSet::new();
        let mut carried: BTreeSet<SegmentId> = native.into_iter().collect();
        if let Some(native) = native {
            self.segment_named(port, native);
        }
        for &(vlan, segment) in tagged {
            self.segment_named(port, segment);
            if vlan == 0 || vlan > 4094 {
                self.error(ConfigError::Vlan { port: port.name.clone(), vlan, problem: "out of range" });
            } else if !vlans.insert(vlan) {
                self.error(ConfigError::Vlan { port: port.name.clone(), vlan, problem: "used twice" });
            }
            if !carried.insert(segment) {
                self.error(ConfigError::SegmentTwice { port: port.name.clone(), segment });
            }
        }
    }

    fn segment_named(&mut self, port: &PortConfig, segment: SegmentId) {
        if !self.segments.contains_key(&segment) {
            self.error(ConfigError::UnknownSegment {
                place: alloc::format!("port {:?}", port.name),
                segment,
            });
        }
    }

    /// Managed stations and gateways of one segment share neither MAC address nor address.
    fn stations(&mut self) {
        let mut holders = Holders::default();
        for segment in &self.config.segments {
            let Some(gateway) = &segment.gateway else { continue };
            let name = "its gateway";
            holders.macs.insert((segment.id, gateway.mac), name.to_string());
            let own = || gateway.addresses.iter().map(IpNet::addr);
            let implied = Some(IpAddr::V6(gateway.mac.link_local())).filter(|l| own().all(|a| a != *l));
            for address in own().chain(implied) {
                self.hold(&mut holders, segment.id, address, name);
            }
        }
        for port in &self.config.ports {
            let (VlanMode::Access(segment), Station::Managed { mac, addresses }) =
                (&port.vlan, &port.station)
            else {
                continue;
            };
            self.station(&mut holders, port, *segment, *mac, addresses);
        }
    }

    fn station(
        &mut self,
        holders: &mut Holders,
        port: &PortConfig,
        segment: SegmentId,
        mac: MacAddr,
        own: &[IpAddr],
    ) {
        let name = alloc::format!("port {:?}", port.name);
        if !mac.is_valid_source() {
            self.error(ConfigError::MacInvalid { place: name.clone(), mac });
        }
        let shared = holders.macs.insert((segment, mac), name.clone());
        // The link-local address that a MAC address gives is shared with it, and may be written out.
        let link_local = IpAddr::V6(mac.link_local());
        let implied = (shared.is_none() && !own.contains(&link_local)).then_some(link_local);
        if let Some(first) = shared {
            self.error(ConfigError::DuplicateMac { segment, mac, first, second: name.clone() });
        }
        for &address in own.iter().chain(&implied) {
            if !is_station_address(address) {
                self.error(ConfigError::AddressInvalid { place: name.clone(), address });
            }
            self.hold(holders, segment, address, &name);
        }
    }

    /// Takes note of who has an address.
    fn hold(&mut self, holders: &mut Holders, segment: SegmentId, address: IpAddr, name: &str) {
        if let Some(first) = holders.addresses.insert((segment, address), name.to_string()) {
            let second = name.to_string();
            self.error(ConfigError::DuplicateAddress { segment, address, first, second });
        }
    }

    fn routes(&mut self) {
        let mut seen: BTreeSet<IpNet> = BTreeSet::new();
        for segment in &self.config.segments {
            for net in segment.gateway.iter().flat_map(|g| &g.addresses) {
                // Two interfaces may share a prefix only if they are the same segment.
                if !seen.insert(net.trunc()) && !has_twice(segment, net.trunc()) {
                    self.error(ConfigError::DuplicateRoute { prefix: net.trunc() });
                }
            }
        }
        for route in &self.config.routes {
            if route.prefix != route.prefix.trunc() {
                self.error(ConfigError::HostBits {
                    place: "route".to_string(),
                    prefix: route.prefix,
                    network: route.prefix.trunc(),
                });
            }
            if !seen.insert(route.prefix.trunc()) {
                self.error(ConfigError::DuplicateRoute { prefix: route.prefix });
            }
            if let RouteTarget::Via(hops) = &route.target {
                if hops.is_empty() {
                    self.error(ConfigError::NoNextHop { prefix: route.prefix });
                }
                for hop in hops {
                    self.next_hop(route, *hop);
                }
            }
        }
    }

    fn next_hop(&mut self, route: &RouteConfig, hop: NextHop) {
        let prefix = route.prefix;
        match self.segments.get(&hop.segment) {
            None => {
                let place = alloc::format!("route {prefix}");
                self.error(ConfigError::UnknownSegment { place, segment: hop.segment });
            }
            Some(segment) if segment.gateway.is_none() => {
                self.error(ConfigError::NotRouted { prefix, segment: hop.segment });
            }
            Some(segment) => {
                let own =
                    segment.gateway.iter().flat_map(|g| &g.addresses).any(|n| Some(n.addr()) == hop.gateway);
                if let (true, Some(gateway)) = (own, hop.gateway) {
                    self.error(ConfigError::GatewayIsSelf { prefix, gateway });
                }
            }
        }
        if let Some(gateway) = hop.gateway
            && gateway.is_ipv4() != prefix.addr().is_ipv4()
        {
            self.error(ConfigError::GatewayFamily { prefix, gateway });
        }
    }
}

/// Who has which address, by segment.
#[derive(Default)]
struct Holders {
    macs: BTreeMap<(SegmentId, MacAddr), String>,
    addresses: BTreeMap<(SegmentId, IpAddr), String>,
}

fn has_twice(segment: &SegmentConfig, net: IpNet) -> bool {
    segment.gateway.iter().flat_map(|g| &g.addresses).filter(|n| n.trunc() == net).count() > 1
}

fn is_station_address(address: IpAddr) -> bool {
    !address.is_multicast()
        && !address.is_unspecified()
        && !address.is_loopback()
        && address != IpAddr::V4(core::net::Ipv4Addr::BROADCAST)
}

/// Policies are about connections, which somebody has to know.
pub(super) fn check_policies(
    policies: Option<&Arc<Policies>>,
    translator: Option<&Arc<Translator>>,
) -> Result<(), ConfigErrors> {
    match (policies, translator) {
        (Some(_), None) => Err(ConfigErrors(alloc::vec![ConfigError::PoliciesWithoutConnections])),
        (Some(_), Some(_)) | (None, _) => Ok(()),
    }
}
