//! The part of a compiled configuration that routing looks things up in.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::snapshot::Map;
use super::{Config, NextHop, RouteTarget, Station as StationConfig, VlanMode};
use crate::addr::{IpNet, SegmentId, scope};
use crate::route::RouteTable;

/// What routing needs of all segments together.
#[derive(Debug)]
pub struct Router {
    routes: RouteTable,
    targets: Vec<Target>,
    /// The router's own addresses and the segment each is on; link-local ones are each segment's own.
    own: Map<IpAddr, SegmentId>,
    /// IPv4 broadcast addresses of on-link prefixes.
    broadcasts: Map<IpAddr, SegmentId>,
    /// Own addresses that a station behind a node-local link shares.
    delegated: Map<IpAddr, SegmentId>,
    /// Link-local IPv4 addresses with routes of their own.
    led_on: Vec<IpAddr>,
}

/// What a route leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The destination is on this segment itself.
    Connected(SegmentId),
    /// As configured.
    Configured(RouteTarget),
}

/// Addresses of managed stations behind node-local links, by segment.
pub(super) fn node_local_stations(config: &Config) -> impl Iterator<Item = (SegmentId, Vec<IpAddr>)> {
    config.ports.iter().filter_map(|port| {
        let (VlanMode::Access(id), StationConfig::Managed { addresses, .. }) = (&port.vlan, &port.station)
        else {
            return None;
        };
        let segment = config.segments.iter().find(|s| s.id == *id)?;
        segment.gateway.as_ref()?.node_local.then(|| (*id, addresses.clone()))
    })
}

impl Router {
    pub(super) fn compile(config: &Config) -> Self {
        let mut targets = Vec::new();
        let mut entries: Vec<(IpNet, u32)> = Vec::new();
        let mut own = Map::default();
        let mut broadcasts = Map::default();
        let mut add = |prefix: IpNet, target: Target| {
            let at = targets.iter().position(|t| *t == target).unwrap_or_else(|| {
                targets.push(target);
                targets.len() - 1
            });
            entries.push((prefix, u32::try_from(at).unwrap_or(u32::MAX)));
        };
        for segment in &config.segments {
            for net in segment.gateway.iter().flat_map(|g| &g.addresses) {
                own.insert(net.addr(), segment.id);
                add(net.trunc(), Target::Connected(segment.id));
                if net.addr().is_ipv4() && net.prefix_len() < 31 {
                    broadcasts.insert(net.broadcast(), segment.id);
                    broadcasts.insert(net.network(), segment.id);
                }
            }
        }
        let mut delegated = Map::default();
        for (segment, addresses) in node_local_stations(config) {
            for address in addresses {
                // The station's address is usually one of our own on another segment; where it is not, it is a host
                // route to the link.
                if own.contains_key(&address) {
                    delegated.insert(address, segment);
                } else {
                    add(IpNet::from(address), Target::Connected(segment));
                }
            }
        }
        for route in &config.routes {
            add(route.prefix, Target::Configured(route.target.clone()));
        }
        let led_on = config.routes.iter().filter_map(|route| match route.prefix {
            IpNet::V4(net) if net.prefix_len() == 32 && net.addr().is_link_local() => Some(net.addr().into()),
            IpNet::V4(_) | IpNet::V6(_) => None,
        });
        let led_on = led_on.collect();
        Self { routes: RouteTable::build(entries.into_iter()), targets, own, broadcasts, delegated, led_on }
    }

    /// Where packets to `destination` go.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> Option<&Target> {
        self.targets.get(self.routes.lookup(destination)? as usize)
    }

    /// Where packets to `destination` go, and by which prefix.
    pub fn lookup_prefix(&self, destination: IpAddr) -> Option<(IpNet, &Target)> {
        let (prefix, target) = self.routes.lookup_prefix(destination)?;
        Some((prefix, self.targets.get(target as usize)?))
    }

    /// Every route with its target, for listing.
    pub fn routes(&self) -> impl Iterator<Item = (IpNet, &Target)> {
        self.routes.iter().filter_map(|(prefix, target)| Some((prefix, self.targets.get(target as usize)?)))
    }

    /// The segment that an address of the router's own is on; link-local addresses are not listed here.
    #[inline]
    pub fn own(&self, address: IpAddr) -> Option<SegmentId> {
        self.own.get(&address).copied()
    }

    /// Any address of the router's own in this family, the smallest that is `usable`, for packets from an interface
    /// without one.
    pub fn any_own(&self, v4: bool, usable: impl Fn(SegmentId, IpAddr) -> bool) -> Option<IpAddr> {
        self.own
            .iter()
            .filter(|&(address, segment)| address.is_ipv4() == v4 && usable(*segment, *address))
            .map(|(address, _)| *address)
            .min()
    }

    /// Whether `address` is the broadcast address, or the obsolete all-zeros one, of an on-link prefix.
    #[inline]
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        self.broadcasts.contains_key(&address)
    }

    /// Whether packets from or to `address` stay on their link, as its meaning reaches no further. A link-local IPv4 address with
    /// a host route goes where that leads: clouds have services at such addresses that are on no link (RFC 3927 section 7 asks
    /// routers not to do so by themselves).
    #[inline]
    pub fn keeps_on_link(&self, address: IpAddr) -> bool {
        scope::is_link_scoped(address) && !self.led_on.contains(&address)
    }

    /// The node-local segment whose station shares this own address.
    #[inline]
    pub fn delegated(&self, address: IpAddr) -> Option<SegmentId> {
        self.delegated.get(&address).copied()
    }
}

impl Target {
    /// The segments that packets may leave through.
    pub fn segments(&self) -> impl Iterator<Item = SegmentId> {
        let (connected, hops): (Option<SegmentId>, &[NextHop]) = match self {
            Self::Connected(segment) => (Some(*segment), &[]),
            Self::Configured(RouteTarget::Via(hops)) => (None, hops),
            Self::Configured(RouteTarget::Blackhole | RouteTarget::Unreachable | RouteTarget::Prohibit) => {
                (None, &[])
            }
        };
        connected.into_iter().chain(hops.iter().map(|h| h.segment))
    }
}
