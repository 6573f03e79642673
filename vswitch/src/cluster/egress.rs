//! The way out: a segment of the underlay that nobody is on but its router and the edge, to which everything goes that is
//! nowhere else.
//!
//! Nodes masquerade towards it as towards any segment that is not the cluster's, so the edge sees nodes and plain hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::{
    GatewayConfig, NextHop, PortConfig, RouteConfig, RouteTarget, SegmentConfig, VlanMode,
};
use netstack::offload::OffloadFeatures;

use super::{Attachment, Cluster, PortNumbers, SwitchPlan, UNDERLAY};
use crate::edge::{LINK_LOCAL_METADATA, Opening, Reach};
use crate::helper::MIN_IPV6_MTU;

impl Egress {
    /// Link-local addresses that pods may reach outside, to which nodes need routes of their own.
    pub(super) fn beyond_links(&self) -> Option<IpNet> {
        match self {
            Self::User(reach) => reach.is_open(Opening::Metadata).then(|| LINK_LOCAL_METADATA.into()),
            Self::None | Self::Kernel => None,
        }
    }
}

/// What the port and the segment are called.
const NAME: &str = "egress";
/// The edge's segment. The IPv4 one is that of RFC 7335, which is for such hops inside a machine and never on a network.
pub const EGRESS_PREFIXES: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 29)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, 0), 64)),
];
/// The router's addresses there, and the edge's.
const ROUTER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, 1))];
const EDGE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, 2))];

/// How everyone reaches what is outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Egress {
    /// Not at all.
    #[default]
    None,
    /// By sockets of this process, as far as this allows.
    User(Reach),
    /// By the machine's own stack.
    Kernel,
}

/// Who carries what leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// An edge with sockets, that may reach so much.
    Sockets(Reach),
    /// An interface of this machine.
    Interface {
        /// Its name.
        name: String,
        /// What the machine reaches by it, and the next hop there.
        routes: Vec<(IpNet, IpAddr)>,
    },
}

/// The edge, or the interface that is there in its place, and where it is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPlan {
    /// Where.
    pub attachment: Attachment,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its router's.
    pub router: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The largest IP packet on its link.
    pub mtu: u16,
    /// Who is there.
    pub carrier: Carrier,
    /// Prefixes that are inside: nobody outside is seen there with an address of theirs.
    pub inside: Vec<IpNet>,
}

/// Plans the edge, if there is to be one, its port, its segment, and the routes to it.
pub(super) fn plan(
    cluster: &Cluster,
    numbers: &mut PortNumbers,
    underlay: &mut SwitchPlan,
) -> Option<EgressPlan> {
    let carrier = match &cluster.egress {
        Egress::None => return None,
        Egress::User(reach) => Carrier::Sockets(reach.clone()),
        Egress::Kernel => Carrier::Interface { name: interface(&cluster.name), routes: routes(cluster) },
    };
    let segments = cluster.segments.iter().flat_map(|segment| &segment.gateways).map(IpNet::trunc);
    let named = cluster.kept_towards.iter().copied().filter(|net| net.prefix_len() > 0);
    let inside = segments.chain(named).chain(EGRESS_PREFIXES).collect();
    let port: PortId = numbers.number(UNDERLAY, NAME);
    let id = SegmentId(u16::try_from(underlay.config.segments.len()).unwrap_or(u16::MAX));
    let router = cluster.mac("router egress");
    let families = if cluster.mtu >= MIN_IPV6_MTU { 2 } else { 1 };
    let nets = EGRESS_PREFIXES.iter().zip(ROUTER).take(families);
    let gateways = nets.filter_map(|(net, own)| IpNet::new(own, net.prefix_len()).ok()).collect();
    underlay.config.segments.push(SegmentConfig {
        mtu: cluster.mtu,
        gateway: Some(GatewayConfig::new(router, gateways)),
        bridge: false,
        ..SegmentConfig::new(id, NAME)
    });
    let offload = match &carrier {
        Carrier::Sockets(_) => OffloadFeatures::ALL,
        // Kernels before 6.2 do not take super-frames of UDP.
        Carrier::Interface { .. } => OffloadFeatures { uso: false, ..OffloadFeatures::ALL },
    };
    underlay.config.ports.push(PortConfig { offload, ..PortConfig::new(port, NAME, VlanMode::Access(id)) });
    let everything = [IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())];
    underlay.config.routes.extend(everything.into_iter().zip(EDGE).take(families).map(|(prefix, edge)| {
        let hop = NextHop { segment: id, gateway: Some(edge) };
        RouteConfig { prefix, target: RouteTarget::Via(vec![hop]) }
    }));
    underlay.config.routes.extend(cluster.egress.beyond_links().map(|prefix| {
        let hop = NextHop { segment: id, gateway: Some(EDGE[0]) };
        RouteConfig { prefix, target: RouteTarget::Via(vec![hop]) }
    }));
    Some(EgressPlan {
        attachment: Attachment { switch: UNDERLAY.to_owned(), port },
        mac: cluster.mac("egress"),
        router,
        addresses: EDGE[..families].to_vec(),
        mtu: cluster.mtu,
        carrier,
        inside,
    })
}

/// What an interface of this machine is called. The kernel has fifteen octets for it.
fn interface(cluster: &str) -> String {
    const ROOM: usize = 15;
    let name = format!("vs-{cluster}");
    if name.len() <= ROOM {
        return name;
    }
    let number = netstack::seed::Seed([0x6d; 32]).derive(&format!("{cluster}/interface"));
    format!("vs-{:012x}", number >> 16)
}

/// What the machine reaches by its interface: segments, and pods.
fn routes(cluster: &Cluster) -> Vec<(IpNet, IpAddr)> {
    let segments = cluster.segments.iter().flat_map(|segment| &segment.gateways);
    let nets = segments.chain(cluster.nodes.iter().flat_map(|node| &node.gateways));
    let hop = |net: &IpNet| if net.addr().is_ipv4() { ROUTER[0] } else { ROUTER[1] };
    let mut routes: Vec<(IpNet, IpAddr)> = nets.map(|net| (net.trunc(), hop(net))).collect();
    routes.sort_unstable();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire;
    use crate::objects::builtin;
    use netstack::config::Snapshot;

    #[test]
    fn everything_that_is_nowhere_else_goes_to_the_edge() {
        let mut cluster = builtin("lab");
        let wiring = wire(&cluster, &mut PortNumbers::default());
        let plan = wiring.egress.unwrap();
        let underlay = wiring.switches.last().unwrap();
        let snapshot = Snapshot::compile(underlay.config.clone(), None).unwrap();
        for (to, hop) in [("198.51.100.1", "192.0.0.2"), ("2001:db8::1", "fd00:192::2")] {
            let (prefix, target) = snapshot.router().lookup_prefix(to.parse().unwrap()).unwrap();
            assert_eq!(prefix.prefix_len(), 0);
            assert_eq!(snapshot.describe(target), format!("via {hop} on egress"));
            assert!(plan.addresses.contains(&hop.parse().unwrap()));
        }
        cluster.set_mtu(1000);
        let wiring = wire(&cluster, &mut PortNumbers::default());
        Snapshot::compile(wiring.switches.last().unwrap().config.clone(), None).unwrap();
        assert_eq!(wiring.egress.unwrap().addresses, EDGE[..1]);
        cluster.egress = Egress::Kernel;
        let wiring = wire(&cluster, &mut PortNumbers::default());
        let Carrier::Interface { name, routes } = wiring.egress.unwrap().carrier else {
            panic!("no interface")
        };
        assert_eq!(name, "vs-lab");
        let to: Vec<String> = routes.iter().map(|(net, hop)| format!("{net} by {hop}")).collect();
        let pods = ["10.244.0.0/24 by 192.0.0.1", "10.244.1.0/24 by 192.0.0.1"].map(str::to_owned);
        assert!(pods.iter().all(|route| to.contains(route)) && to.len() == 4, "{to:?}");
        assert_eq!(interface("a-name-that-is-long").len(), 15);
        cluster.egress = Egress::None;
        let wiring = wire(&cluster, &mut PortNumbers::default());
        assert_eq!(wiring.egress, None);
        let underlay = wiring.switches.last().unwrap();
        let snapshot = Snapshot::compile(underlay.config.clone(), None).unwrap();
        assert!(snapshot.router().lookup_prefix("198.51.100.1".parse().unwrap()).is_none());
    }
}
