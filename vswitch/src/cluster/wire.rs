//! From the model to one configuration per switch, and what is to be plugged in where.
//!
//! A node is a switch with a pod bridge, an uplink and a node-local port; the underlay is one more switch, with a
//! segment per rack and a port per node and plain machine. Routes are the same everywhere: a pod's address is reached
//! through the node that it lives on. A pod that lives on another node than the one whose prefix
//! its address is of has a route of its own everywhere. The pods' gateway has one MAC address on all nodes, so that a pod
//! that moves finds it where it knew it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, GatewayConfig, Limits, NextHop, PortConfig, RouteConfig, RouteTarget, RouterAdvertisement,
    SegmentConfig, Station, VlanMode,
};
use netstack::offload::OffloadFeatures;

use super::{
    Cluster, EgressPlan, NameServerPlan, Node, Place, Pod, PortGuards, PortNumbers, ProxyPlan,
    UnderlaySegment,
};
use super::{egress, name_server, service_proxy, translation};
use crate::helper::Existing;

/// The name of the switch between the nodes.
pub const UNDERLAY: &str = "underlay";

/// Addresses by which a node's own namespace reaches its switch: on no network, so they clash with none.
const LOCAL_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

pub(super) const UPLINK: SegmentId = SegmentId(0);
const LOCAL: SegmentId = SegmentId(1);
pub(super) const PODS: SegmentId = SegmentId(2);

/// Connections that a node tracks in each family: four pods that each use every port they have towards the outside.
const CONNECTIONS: u32 = 131_072;

/// Everything that has to be set up.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Wiring {
    /// One switch per node, the underlay last.
    pub switches: Vec<SwitchPlan>,
    /// Namespaces (or in-process hosts) and where they are plugged in.
    pub endpoints: Vec<Endpoint>,
    /// The proxies of nodes whose Services are carried by one.
    pub proxies: Vec<ProxyPlan>,
    /// The name servers of nodes.
    pub name_servers: Vec<NameServerPlan>,
    /// The way out, if there is one.
    pub egress: Option<EgressPlan>,
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPlan {
    /// The node's name, or [`UNDERLAY`].
    pub name: String,
    /// Its configuration. Ports of endpoints say `OffloadFeatures::NONE` until their device is known.
    pub config: Config,
    /// How much it may hold.
    pub limits: Limits,
    /// Links to other switches: own port, the other switch's name, its port.
    pub links: Vec<(PortId, String, PortId)>,
}

/// One end station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who it is.
    pub place: Place,
    /// What it calls itself.
    pub hostname: String,
    /// The network namespace that it is, if that exists already.
    pub existing: Option<Existing>,
    /// Whose network namespace, link and addresses it shares, if it has none of its own.
    pub shares: Option<Place>,
    /// Where it is plugged in.
    pub attachment: Attachment,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses with the prefixes on its link.
    pub addresses: Vec<IpNet>,
    /// Its default routers.
    pub gateway_v4: Option<Ipv4Addr>,
    /// Its default routers.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The largest IP packet on its link.
    pub mtu: u16,
}

/// A port of a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The switch's name.
    pub switch: String,
    /// The port.
    pub port: PortId,
}

/// Computes the wiring of `cluster`. Ports keep the numbers they have in `numbers`.
pub fn wire(cluster: &Cluster, numbers: &mut PortNumbers) -> Wiring {
    let mut wiring = Wiring::default();
    let mut underlay = underlay(cluster);
    let homes = Homes::of(cluster);
    let inside = translation::inside(cluster);
    let mut pods: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in &cluster.pods {
        pods.entry(&pod.node).or_default().push(pod);
    }
    for node in &cluster.nodes {
        let link = numbers.number(UNDERLAY, &node.name);
        let uplink = numbers.number(&node.name, "uplink");
        let mut plan = node_switch(cluster, node, &homes, (uplink, link));
        let id = segment_id(cluster, &node.segment);
        underlay.config.ports.push(foreign_port(link, &node.name, id, OffloadFeatures::ALL));
        let local = node_local(cluster, node, numbers, &mut plan);
        wiring.endpoints.push(local.clone());
        if let Some((proxy, port)) = service_proxy::plan(cluster, node, numbers) {
            plan.config.ports.push(port);
            wiring.proxies.push(proxy);
        }
        wiring.name_servers.extend(name_server::plan(cluster, node, numbers, &mut plan));
        let pods = pods.get(node.name.as_str()).map_or(&[][..], Vec::as_slice);
        plan.config.nat = Some(translation::of_node(cluster, node, pods, &inside));
        plan.config.services = Some(translation::services(cluster, node, pods));
        for pod in pods {
            wiring.endpoints.push(if pod.host_network {
                guest(pod, &local)
            } else {
                pod_endpoint(cluster, pod, &homes, numbers, &mut plan)
            });
        }
        wiring.switches.push(plan);
    }
    for host in &cluster.hosts {
        let place = Place::Host(host.name.clone());
        let port = numbers.number(UNDERLAY, &place.to_string());
        let id = segment_id(cluster, &host.segment);
        let rack = cluster.segments.iter().find(|s| s.name == host.segment);
        let plain = foreign_port(port, &place.to_string(), id, OffloadFeatures::NONE);
        underlay.config.ports.push(match rack {
            Some(rack) => PortConfig { loop_guard: rack.loop_guard, ..guarded(plain, rack.ports) },
            None => plain,
        });
        let gateways = rack.map_or(&[][..], |s| &s.gateways);
        let attachment = Attachment { switch: UNDERLAY.into(), port };
        wiring.endpoints.push(endpoint(cluster, place, attachment, &host.addresses, gateways));
    }
    underlay.config.routes.extend(homes.moved.iter().filter_map(|moved| moved.route(cluster, None)));
    wiring.egress = egress::plan(cluster, numbers, &mut underlay);
    wiring.switches.push(underlay);
    numbers.sweep();
    wiring
}

/// Which node's prefixes addresses come from, and which pods are elsewhere.
struct Homes<'a> {
    /// Every prefix of every node: first address, the router's address, node.
    prefixes: BTreeMap<IpAddr, (IpNet, &'a Node)>,
    moved: Vec<Moved<'a>>,
}

/// An address that is not on the node whose prefix it is of.
struct Moved<'a> {
    address: IpAddr,
    node: &'a Node,
    home: &'a Node,
}

impl<'a> Homes<'a> {
    fn of(cluster: &'a Cluster) -> Self {
        let nodes = || cluster.nodes.iter();
        let prefixes = nodes().flat_map(|n| n.gateways.iter().map(move |g| (g.network(), (*g, n)))).collect();
        let mut homes = Self { prefixes, moved: Vec::new() };
        let by_name: BTreeMap<&str, &Node> = nodes().map(|n| (n.name.as_str(), n)).collect();
        for pod in cluster.pods.iter().filter(|pod| !pod.host_network) {
            let Some(&node) = by_name.get(pod.node.as_str()) else { continue };
            let away = |&address: &IpAddr| {
                let (_, home) = homes.home(address)?;
                (home.name != node.name).then_some(Moved { address, node, home })
            };
            let moved: Vec<Moved<'a>> = pod.addresses.iter().filter_map(away).collect();
            homes.moved.extend(moved);
        }
        homes
    }

    fn home(&self, address: IpAddr) -> Option<(IpNet, &'a Node)> {
        let (_, &(gateway, node)) = self.prefixes.range(..=address).next_back()?;
        gateway.contains(&address).then_some((gateway, node))
    }
}

impl Moved<'_> {
    /// The route to it on the underlay, or on `other`, another node: directly where both are on one rack, else by the
    /// rack's router, which only those on the rack of its home need to be told of. So no packet passes its home on the way,
    /// which would see one direction of its connections alone.
    fn route(&self, cluster: &Cluster, other: Option<&Node>) -> Option<RouteConfig> {
        let of_family = |a: &IpAddr| a.is_ipv4() == self.address.is_ipv4();
        let (segment, hop) = match other {
            Some(other) if other.segment != self.node.segment => {
                let near = other.segment == self.home.segment;
                let rack = cluster.segments.iter().find(|s| near && s.name == other.segment)?;
                (UPLINK, rack.gateways.iter().map(IpNet::addr).find(of_family)?)
            }
            Some(_) => (UPLINK, *self.node.addresses.iter().find(|a| of_family(a))?),
            None => {
                let hop = *self.node.addresses.iter().find(|a| of_family(a))?;
                (segment_id(cluster, &self.node.segment), hop)
            }
        };
        Some(via(IpNet::from(self.address), segment, hop))
    }
}

fn segment_id(cluster: &Cluster, name: &str) -> SegmentId {
    let at = cluster.segments.iter().position(|s| s.name == name).unwrap_or(usize::from(u16::MAX));
    SegmentId(u16::try_from(at).unwrap_or(u16::MAX))
}

fn foreign_port(id: PortId, name: &str, segment: SegmentId, offload: OffloadFeatures) -> PortConfig {
    PortConfig { offload, ..PortConfig::new(id, name, VlanMode::Access(segment)) }
}

fn guarded(port: PortConfig, guards: PortGuards) -> PortConfig {
    PortConfig { storm: Some(guards.storm), isolated: guards.isolated, ..port }
}

fn gateway(mac: MacAddr, addresses: &[IpNet]) -> GatewayConfig {
    GatewayConfig::new(mac, addresses.to_vec())
}

fn segment(id: SegmentId, name: &str, mtu: u16, gateway: GatewayConfig, bridge: bool) -> SegmentConfig {
    SegmentConfig { mtu, gateway: Some(gateway), bridge, ..SegmentConfig::new(id, name) }
}

fn via(prefix: IpNet, segment: SegmentId, gateway: IpAddr) -> RouteConfig {
    RouteConfig { prefix, target: RouteTarget::Via(vec![NextHop { segment, gateway: Some(gateway) }]) }
}

/// The underlay: a segment per rack, the router's address in each, and a route to each node's pods.
fn underlay(cluster: &Cluster) -> SwitchPlan {
    let mut config = Config::default();
    let pods: Vec<IpNet> = cluster.nodes.iter().flat_map(|n| n.gateways.iter().map(IpNet::trunc)).collect();
    for (at, s) in cluster.segments.iter().enumerate() {
        let id = SegmentId(u16::try_from(at).unwrap_or(u16::MAX));
        let mac = cluster.mac(&format!("router {}", s.name));
        let mut router = gateway(mac, &s.gateways);
        if s.external {
            router.no_route_to = pods.clone();
        }
        router.probe = s.services.probes;
        let prefixes: Vec<IpNet> =
            s.gateways.iter().filter(|g| g.addr().is_ipv6()).map(IpNet::trunc).collect();
        let advertises = s.services.advertises && !prefixes.is_empty();
        router.advertise = advertises.then(|| RouterAdvertisement::for_prefixes(prefixes));
        config.segments.push(SegmentConfig {
            proxy_neighbors: s.services.proxies,
            ..segment(id, &s.name, cluster.mtu, router, true)
        });
    }
    for node in &cluster.nodes {
        config.routes.extend(pod_routes(node, segment_id(cluster, &node.segment)));
        config.routes.extend(announced_routes(cluster, node));
    }
    SwitchPlan { name: UNDERLAY.into(), config, limits: Limits::default(), links: Vec::new() }
}

/// Routes to the pods of `node` through its own addresses.
fn pod_routes(node: &Node, segment: SegmentId) -> impl Iterator<Item = RouteConfig> {
    node.gateways.iter().filter_map(move |pods| {
        let hop = node.addresses.iter().find(|a| a.is_ipv4() == pods.addr().is_ipv4())?;
        Some(via(pods.trunc(), segment, *hop))
    })
}

/// Routes to load balancer addresses of `node` that are on no segment.
fn announced_routes(cluster: &Cluster, node: &Node) -> impl Iterator<Item = RouteConfig> {
    let segment = segment_id(cluster, &node.segment);
    let on_link = |address: &IpAddr| {
        cluster.segments.iter().flat_map(|segment| &segment.gateways).any(|net| net.contains(address))
    };
    node.announces.iter().filter(move |address| !on_link(address)).filter_map(move |address| {
        let hop = node.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4())?;
        Some(via(IpNet::from(*address), segment, *hop))
    })
}

/// A node: uplink, node-local link and pod bridge, routes to the other nodes' pods, everything else to the rack's router.
fn node_switch(
    cluster: &Cluster,
    node: &Node,
    homes: &Homes<'_>,
    (uplink, underlay_port): (PortId, PortId),
) -> SwitchPlan {
    let rack = cluster.segments.iter().find(|s| s.name == node.segment);
    let uplink_addresses: Vec<IpNet> = node
        .addresses
        .iter()
        .map(|&a| {
            let len = rack.and_then(|r| prefix_len(r, a));
            len.and_then(|len| IpNet::new(a, len).ok()).unwrap_or_else(|| IpNet::from(a))
        })
        .chain(node.announces.iter().copied().map(IpNet::from))
        .collect();
    let mac = |what: &str| cluster.mac(&format!("node {} {what}", node.name));
    let addresses = vec![IpNet::from(IpAddr::V4(LOCAL_GATEWAY))];
    let local = GatewayConfig { node_local: true, ..GatewayConfig::new(mac("local gateway"), addresses) };
    let mut config = Config {
        ports: vec![foreign_port(uplink, "uplink", UPLINK, OffloadFeatures::ALL)],
        segments: vec![
            segment(UPLINK, "uplink", cluster.mtu, gateway(mac("uplink"), &uplink_addresses), false),
            segment(LOCAL, "local", cluster.mtu, local, false),
            SegmentConfig {
                // For neighbours of pods that have moved away, and for pods that have moved here.
                proxy_neighbors: true,
                ..segment(
                    PODS,
                    "pods",
                    cluster.mtu,
                    gateway(cluster.mac("pod gateway"), &node.gateways),
                    true,
                )
            },
        ],
        ..Config::default()
    };
    for other in cluster.nodes.iter().filter(|o| o.name != node.name && o.segment == node.segment) {
        config.routes.extend(pod_routes(other, UPLINK));
    }
    for moved in &homes.moved {
        config.routes.extend(if moved.node.name == node.name {
            let target = RouteTarget::Via(vec![NextHop { segment: PODS, gateway: None }]);
            Some(RouteConfig { prefix: IpNet::from(moved.address), target })
        } else {
            moved.route(cluster, Some(node))
        });
    }
    for router in rack.map_or(&[][..], |r| &r.gateways) {
        let everything = match router {
            IpNet::V4(_) => IpNet::from(ipnet::Ipv4Net::default()),
            IpNet::V6(_) => IpNet::from(ipnet::Ipv6Net::default()),
        };
        config.routes.push(via(everything, UPLINK, router.addr()));
        let beyond =
            cluster.egress.beyond_links().filter(|net| net.addr().is_ipv4() == router.addr().is_ipv4());
        config.routes.extend(beyond.map(|net| via(net, UPLINK, router.addr())));
    }
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let links = vec![(uplink, UNDERLAY.into(), underlay_port)];
    SwitchPlan { name: node.name.clone(), config, limits, links }
}

fn prefix_len(segment: &UnderlaySegment, address: IpAddr) -> Option<u8> {
    segment.gateways.iter().find(|g| g.contains(&address)).map(IpNet::prefix_len)
}

/// The node's own namespace: it shares the node's addresses, as host routes behind the switch.
fn node_local(cluster: &Cluster, node: &Node, numbers: &mut PortNumbers, plan: &mut SwitchPlan) -> Endpoint {
    let place = Place::Node(node.name.clone());
    let port = numbers.number(&node.name, &place.to_string());
    let attachment = Attachment { switch: node.name.clone(), port };
    let local = cluster.mac(&format!("node {} local gateway", node.name));
    let mac = cluster.mac(&place.to_string());
    plan.config.ports.push(managed_port(attachment.port, &place, LOCAL, mac, &node.addresses));
    Endpoint {
        hostname: node.name.clone(),
        existing: None,
        shares: None,
        place,
        attachment,
        mac,
        addresses: node.addresses.iter().map(|&a| IpNet::from(a)).collect(),
        gateway_v4: Some(LOCAL_GATEWAY),
        gateway_v6: node.addresses.iter().any(IpAddr::is_ipv6).then(|| local.link_local()),
        mtu: cluster.mtu,
    }
}

/// A pod with all that its node's own namespace has, the host name included.
fn guest(pod: &Pod, local: &Endpoint) -> Endpoint {
    Endpoint { place: pod.place(), shares: Some(local.place.clone()), ..local.clone() }
}

/// A pod. It sees the prefixes its addresses are of, and their routers, wherever it is.
fn pod_endpoint(
    cluster: &Cluster,
    pod: &Pod,
    homes: &Homes<'_>,
    numbers: &mut PortNumbers,
    plan: &mut SwitchPlan,
) -> Endpoint {
    let place = pod.place();
    let port = numbers.number(&pod.node, &place.to_string());
    let attachment = Attachment { switch: pod.node.clone(), port };
    let gateways: Vec<IpNet> = pod.addresses.iter().filter_map(|&a| homes.home(a)).map(|(g, _)| g).collect();
    let mut endpoint = endpoint(cluster, place, attachment, &pod.addresses, &gateways);
    if let Some(hostname) = &pod.spec.hostname {
        endpoint.hostname.clone_from(hostname);
    }
    endpoint.existing.clone_from(&pod.netns);
    let port = managed_port(port, &endpoint.place, PODS, endpoint.mac, &pod.addresses);
    plan.config.ports.push(guarded(port, cluster.pod_ports));
    endpoint
}

/// An end station on a segment whose router has the addresses `gateways`.
fn endpoint(
    cluster: &Cluster,
    place: Place,
    attachment: Attachment,
    addresses: &[IpAddr],
    gateways: &[IpNet],
) -> Endpoint {
    let on_link = |a: IpAddr| gateways.iter().find(|g| g.contains(&a));
    Endpoint {
        mac: cluster.mac(&place.to_string()),
        hostname: place.name().to_owned(),
        existing: None,
        shares: None,
        place,
        attachment,
        addresses: addresses
            .iter()
            .map(|&a| {
                on_link(a).and_then(|g| IpNet::new(a, g.prefix_len()).ok()).unwrap_or_else(|| IpNet::from(a))
            })
            .collect(),
        // A station speaks to routers of those families alone in which it has an address.
        gateway_v4: gateways.iter().find_map(|g| match g.addr() {
            IpAddr::V4(a) => addresses.iter().any(IpAddr::is_ipv4).then_some(a),
            IpAddr::V6(_) => None,
        }),
        gateway_v6: gateways.iter().find_map(|g| match g.addr() {
            IpAddr::V6(a) => addresses.iter().any(IpAddr::is_ipv6).then_some(a),
            IpAddr::V4(_) => None,
        }),
        mtu: cluster.mtu,
    }
}

fn managed_port(
    id: PortId,
    place: &Place,
    segment: SegmentId,
    mac: MacAddr,
    addresses: &[IpAddr],
) -> PortConfig {
    let station = Station::Managed { mac, addresses: addresses.to_vec() };
    PortConfig { station, ..PortConfig::new(id, place.to_string(), VlanMode::Access(segment)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::builtin;
    use netstack::config::Snapshot;

    #[test]
    fn the_builtin_cluster_compiles() {
        let wiring = wire(&builtin("lab"), &mut PortNumbers::default());
        assert_eq!(wiring.switches.len(), 3);
        assert_eq!(wiring.endpoints.len(), 6);
        for plan in &wiring.switches {
            Snapshot::compile(plan.config.clone(), None).unwrap_or_else(|e| panic!("{}: {e}", plan.name));
        }
    }

    #[test]
    fn every_link_has_two_ends_of_the_same_segment() {
        let wiring = wire(&builtin("lab"), &mut PortNumbers::default());
        let by_name = |name: &str| wiring.switches.iter().find(|s| s.name == name).unwrap();
        for plan in &wiring.switches {
            for (own, other, theirs) in &plan.links {
                assert!(plan.config.ports.iter().any(|p| p.id == *own));
                assert!(by_name(other).config.ports.iter().any(|p| p.id == *theirs && p.name == plan.name));
            }
        }
    }

    #[test]
    fn a_host_without_addresses_of_a_family_has_no_router_of_it() {
        let mut cluster = builtin("lab");
        cluster.hosts[0].addresses.truncate(1);
        let wiring = wire(&cluster, &mut PortNumbers::default());
        let host = wiring.endpoints.iter().find(|e| e.place == Place::Host("outside".into())).unwrap();
        assert_eq!((host.gateway_v4.is_some(), host.gateway_v6), (true, None));
    }

    #[test]
    fn routes_name_the_node_a_pod_lives_on() {
        let wiring = wire(&builtin("lab"), &mut PortNumbers::default());
        let snapshot = Snapshot::compile(wiring.switches[0].config.clone(), None).unwrap();
        let (prefix, target) = snapshot.router().lookup_prefix("10.244.1.2".parse().unwrap()).unwrap();
        assert_eq!(
            (prefix.to_string(), snapshot.describe(target)),
            ("10.244.1.0/24".into(), "via 10.20.30.12 on uplink".into())
        );
        let (prefix, _) = snapshot.router().lookup_prefix("fd00:192:168:10::200".parse().unwrap()).unwrap();
        assert_eq!(prefix.to_string(), "::/0");
    }
}
