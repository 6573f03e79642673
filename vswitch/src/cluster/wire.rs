//! From the model to one configuration per switch, and what is to be plugged in where.
//!
//! A node is a switch with a pod bridge, an uplink and a node-local port; the underlay is one more switch, with a
//! segment per rack and a port per node and plain machine. Routes are the same everywhere: a pod's address is reached
//! through the node that it lives on, and is never translated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, GatewayConfig, NextHop, PortConfig, RouteConfig, RouteTarget, SegmentConfig, Station, VlanMode,
};
use netstack::offload::OffloadFeatures;

use super::{Cluster, Node, Place, UnderlaySegment};

/// The name of the switch between the nodes.
pub const UNDERLAY: &str = "underlay";

/// Addresses by which a node's own namespace reaches its switch: on no network, so they clash with none.
const LOCAL_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

const UPLINK: SegmentId = SegmentId(0);
const LOCAL: SegmentId = SegmentId(1);
const PODS: SegmentId = SegmentId(2);

/// Everything that has to be set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// One switch per node, the underlay last.
    pub switches: Vec<SwitchPlan>,
    /// Namespaces (or in-process hosts) and where they are plugged in.
    pub endpoints: Vec<Endpoint>,
}

/// One switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchPlan {
    /// The node's name, or [`UNDERLAY`].
    pub name: String,
    /// Its configuration. Ports of endpoints say `OffloadFeatures::NONE` until their device is known.
    pub config: Config,
    /// Links to other switches: own port, the other switch's name, its port.
    pub links: Vec<(PortId, String, PortId)>,
}

/// One end station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who it is.
    pub place: Place,
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

/// Computes the wiring of `cluster`.
pub fn wire(cluster: &Cluster) -> Wiring {
    let mut wiring = Wiring { switches: Vec::new(), endpoints: Vec::new() };
    let mut underlay = underlay(cluster);
    for node in &cluster.nodes {
        let uplink = PortId(u16::try_from(underlay.config.ports.len()).unwrap_or(u16::MAX));
        let mut plan = node_switch(cluster, node, uplink);
        underlay.config.ports.push(foreign_port(
            uplink,
            &node.name,
            segment_id(cluster, &node.segment),
            OffloadFeatures::ALL,
        ));
        wiring.endpoints.push(node_local(cluster, node, &mut plan));
        for pod in cluster.pods.iter().filter(|p| p.node == node.name) {
            wiring.endpoints.push(pod_endpoint(cluster, node, &pod.place(), &pod.addresses, &mut plan));
        }
        wiring.switches.push(plan);
    }
    for host in &cluster.hosts {
        let port = PortId(u16::try_from(underlay.config.ports.len()).unwrap_or(u16::MAX));
        let place = Place::Host(host.name.clone());
        let id = segment_id(cluster, &host.segment);
        underlay.config.ports.push(foreign_port(port, &place.to_string(), id, OffloadFeatures::NONE));
        let gateways =
            cluster.segments.iter().find(|s| s.name == host.segment).map_or(&[][..], |s| &s.gateways);
        let attachment = Attachment { switch: UNDERLAY.into(), port };
        wiring.endpoints.push(endpoint(cluster, place, attachment, &host.addresses, gateways));
    }
    wiring.switches.push(underlay);
    wiring
}

fn segment_id(cluster: &Cluster, name: &str) -> SegmentId {
    let at = cluster.segments.iter().position(|s| s.name == name).unwrap_or(usize::from(u16::MAX));
    SegmentId(u16::try_from(at).unwrap_or(u16::MAX))
}

fn foreign_port(id: PortId, name: &str, segment: SegmentId, offload: OffloadFeatures) -> PortConfig {
    PortConfig { offload, ..PortConfig::new(id, name, VlanMode::Access(segment)) }
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
    for (at, s) in cluster.segments.iter().enumerate() {
        let id = SegmentId(u16::try_from(at).unwrap_or(u16::MAX));
        let mac = cluster.mac(&format!("router {}", s.name));
        config.segments.push(segment(id, &s.name, cluster.mtu, gateway(mac, &s.gateways), true));
    }
    for node in &cluster.nodes {
        config.routes.extend(pod_routes(node, segment_id(cluster, &node.segment)));
    }
    SwitchPlan { name: UNDERLAY.into(), config, links: Vec::new() }
}

/// Routes to the pods of `node` through its own addresses.
fn pod_routes(node: &Node, segment: SegmentId) -> impl Iterator<Item = RouteConfig> {
    node.gateways.iter().filter_map(move |pods| {
        let hop = node.addresses.iter().find(|a| a.is_ipv4() == pods.addr().is_ipv4())?;
        Some(via(pods.trunc(), segment, *hop))
    })
}

/// A node: uplink, node-local link and pod bridge, routes to the other nodes' pods, everything else to the rack's router.
fn node_switch(cluster: &Cluster, node: &Node, underlay_port: PortId) -> SwitchPlan {
    let rack = cluster.segments.iter().find(|s| s.name == node.segment);
    let uplink_addresses: Vec<IpNet> = node
        .addresses
        .iter()
        .map(|&a| {
            let len = rack.and_then(|r| prefix_len(r, a));
            len.and_then(|len| IpNet::new(a, len).ok()).unwrap_or_else(|| IpNet::from(a))
        })
        .collect();
    let mac = |what: &str| cluster.mac(&format!("node {} {what}", node.name));
    let addresses = vec![IpNet::from(IpAddr::V4(LOCAL_GATEWAY))];
    let local = GatewayConfig { node_local: true, ..GatewayConfig::new(mac("local gateway"), addresses) };
    let mut config = Config {
        ports: vec![foreign_port(PortId(0), "uplink", UPLINK, OffloadFeatures::ALL)],
        segments: vec![
            segment(UPLINK, "uplink", cluster.mtu, gateway(mac("uplink"), &uplink_addresses), false),
            segment(LOCAL, "local", cluster.mtu, local, false),
            segment(PODS, "pods", cluster.mtu, gateway(mac("pod gateway"), &node.gateways), true),
        ],
        routes: Vec::new(),
    };
    for other in cluster.nodes.iter().filter(|o| o.name != node.name && o.segment == node.segment) {
        config.routes.extend(pod_routes(other, UPLINK));
    }
    for router in rack.map_or(&[][..], |r| &r.gateways) {
        let everything = match router {
            IpNet::V4(_) => IpNet::from(ipnet::Ipv4Net::default()),
            IpNet::V6(_) => IpNet::from(ipnet::Ipv6Net::default()),
        };
        config.routes.push(via(everything, UPLINK, router.addr()));
    }
    SwitchPlan { name: node.name.clone(), config, links: vec![(PortId(0), UNDERLAY.into(), underlay_port)] }
}

fn prefix_len(segment: &UnderlaySegment, address: IpAddr) -> Option<u8> {
    segment.gateways.iter().find(|g| g.contains(&address)).map(IpNet::prefix_len)
}

/// The node's own namespace: it shares the node's addresses, as host routes behind the switch.
fn node_local(cluster: &Cluster, node: &Node, plan: &mut SwitchPlan) -> Endpoint {
    let place = Place::Node(node.name.clone());
    let attachment = Attachment { switch: node.name.clone(), port: next_port(plan) };
    let local = cluster.mac(&format!("node {} local gateway", node.name));
    let mac = cluster.mac(&place.to_string());
    plan.config.ports.push(managed_port(attachment.port, &place, LOCAL, mac, &node.addresses));
    Endpoint {
        place,
        attachment,
        mac,
        addresses: node.addresses.iter().map(|&a| IpNet::from(a)).collect(),
        gateway_v4: Some(LOCAL_GATEWAY),
        gateway_v6: node.addresses.iter().any(IpAddr::is_ipv6).then(|| local.link_local()),
        mtu: cluster.mtu,
    }
}

fn pod_endpoint(
    cluster: &Cluster,
    node: &Node,
    place: &Place,
    addresses: &[IpAddr],
    plan: &mut SwitchPlan,
) -> Endpoint {
    let attachment = Attachment { switch: node.name.clone(), port: next_port(plan) };
    let endpoint = endpoint(cluster, place.clone(), attachment, addresses, &node.gateways);
    plan.config.ports.push(managed_port(endpoint.attachment.port, place, PODS, endpoint.mac, addresses));
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
        place,
        attachment,
        addresses: addresses
            .iter()
            .map(|&a| {
                on_link(a).and_then(|g| IpNet::new(a, g.prefix_len()).ok()).unwrap_or_else(|| IpNet::from(a))
            })
            .collect(),
        gateway_v4: gateways.iter().find_map(|g| match g.addr() {
            IpAddr::V4(a) => Some(a),
            IpAddr::V6(_) => None,
        }),
        gateway_v6: gateways.iter().find_map(|g| match g.addr() {
            IpAddr::V6(a) => Some(a),
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

fn next_port(plan: &SwitchPlan) -> PortId {
    PortId(u16::try_from(plan.config.ports.len()).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::builtin;
    use super::*;
    use netstack::config::Snapshot;

    #[test]
    fn the_builtin_cluster_compiles() {
        let wiring = wire(&builtin("lab"));
        assert_eq!(wiring.switches.len(), 3);
        assert_eq!(wiring.endpoints.len(), 6);
        for plan in &wiring.switches {
            Snapshot::compile(plan.config.clone(), None).unwrap_or_else(|e| panic!("{}: {e}", plan.name));
        }
    }

    #[test]
    fn every_link_has_two_ends_of_the_same_segment() {
        let wiring = wire(&builtin("lab"));
        let by_name = |name: &str| wiring.switches.iter().find(|s| s.name == name).unwrap();
        for plan in &wiring.switches {
            for (own, other, theirs) in &plan.links {
                assert!(plan.config.ports.iter().any(|p| p.id == *own));
                assert!(by_name(other).config.ports.iter().any(|p| p.id == *theirs && p.name == plan.name));
            }
        }
    }

    #[test]
    fn routes_name_the_node_a_pod_lives_on() {
        let wiring = wire(&builtin("lab"));
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
