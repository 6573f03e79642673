//! What a node tracks and translates.
//!
//! Pods are seen with their own addresses wherever there are routes to them, and behind their node's address elsewhere. A
//! port of the node that a pod asks for (`hostPort`) leads to it, whoever asks.

use std::net::IpAddr;
use std::time::Duration;

use lb::Registry;
use netstack::addr::IpNet;
use netstack::config::ServicesConfig;
use netstack::config::nat::{
    Behaviour, DestinationNat, DestinationRule, NatConfig, NatMatch, PoolConfig, PortRange, SourceNat,
    SourceRule, Timeouts,
};

use super::wire::{PODS, UPLINK};
use super::{Cluster, Node, Pod, name_server, service_proxy};
use crate::service::Range;

/// The pool with the node's own addresses.
pub(super) const POOL: &str = "node";
/// Ports that pods are seen with, but for those of Services on nodes: not those that the machine's own programs get, which
/// are the 32768 to 60999 of Linux.
const PORTS: [PortRange; 2] =
    [PortRange { first: 1024, last: 32_767 }, PortRange { first: 61_000, last: 65_535 }];

/// [`PORTS`] without those of Services on nodes.
fn ports(taken: Range) -> Vec<PortRange> {
    let parts = PORTS.iter().flat_map(|whole| {
        let below = PortRange { first: whole.first, last: whole.last.min(taken.first.saturating_sub(1)) };
        let above = PortRange { first: whole.first.max(taken.last.saturating_add(1)), last: whole.last };
        [below, above]
    });
    let parts =
        parts.filter(|part| part.first <= part.last && !(taken.first..=taken.last).contains(&part.first));
    parts.collect()
}

/// What the switch of `node` knows of Services; which there are it is told later.
pub(super) fn services(cluster: &Cluster, node: &Node, pods: &[&Pod]) -> ServicesConfig {
    let homes: Vec<IpNet> = node.gateways.iter().map(IpNet::trunc).collect();
    // Those that have moved here. A pod of another node is outside, or its answers would not come by here.
    let guests = pods.iter().flat_map(|pod| &pod.addresses).copied();
    let guests = guests.filter(|address| !homes.iter().any(|home| home.contains(address))).map(IpNet::from);
    ServicesConfig {
        registry: Registry::new(),
        inside: homes.iter().copied().chain(guests).collect(),
        ranges: name_server::without(&cluster.services.cidrs, &cluster.services.names.servers),
        masquerade: Some(POOL.to_owned()),
        key: cluster.balancing_key(),
    }
}

/// Destinations towards which pods keep their own addresses: all that is inside the cluster, and what the user names.
pub(super) fn inside(cluster: &Cluster) -> Vec<IpNet> {
    let pods = cluster.nodes.iter().flat_map(|node| &node.gateways);
    let segments = cluster.segments.iter().filter(|s| !s.external).flat_map(|s| &s.gateways);
    let nodes = cluster.nodes.iter().flat_map(|node| &node.addresses).map(|&address| IpNet::from(address));
    let named = cluster.kept_towards.iter().copied();
    let mut inside: Vec<IpNet> = Vec::new();
    for net in named.chain(segments.chain(pods).map(IpNet::trunc)).chain(nodes) {
        if !inside.iter().any(|wider| wider.contains(&net)) {
            inside.push(net);
        }
    }
    inside
}

/// The translation of `node`, on which `pods` are.
pub(super) fn of_node(cluster: &Cluster, node: &Node, pods: &[&Pod], inside: &[IpNet]) -> NatConfig {
    // Whoever was not asked is let in by no mapping, so a port need not wait before it is given out again (RFC 6888 REQ-8 c).
    let hold = Duration::ZERO;
    let pool = PoolConfig {
        ports: ports(cluster.services.node_ports),
        hold,
        ..PoolConfig::new(POOL, node.addresses.clone())
    };
    let mut nat = NatConfig {
        behaviour: Behaviour::node(),
        timeouts: timeouts(),
        pools: vec![pool],
        source: service_proxy::source_rule(node).into_iter().collect(),
        destination: Vec::new(),
        untracked: name_server::untracked(cluster),
    };
    for pod in pods.iter().filter(|pod| !pod.host_ports.is_empty()) {
        nat.source.push(hairpin(pod));
        nat.destination.extend(host_ports(node, pod));
    }
    let matches = NatMatch { destinations: inside.to_vec(), ..NatMatch::default() };
    nat.source.push(SourceRule { matches, action: SourceNat::Keep });
    let matches = NatMatch { ingress: Some(PODS), egress: Some(UPLINK), ..NatMatch::default() };
    nat.source.push(SourceRule { matches, action: SourceNat::Pool(POOL.to_owned()) });
    nat
}

/// Linux's times, and the two that kube-proxy sets on a node.
fn timeouts() -> Timeouts {
    let mut timeouts = Timeouts::linux();
    timeouts.tcp.established = Duration::from_hours(24);
    timeouts.tcp.close_wait = Duration::from_hours(1);
    timeouts
}

/// A pod that reaches itself through its own port of the node is seen with the node's address: it would not accept a packet
/// from itself.
fn hairpin(pod: &Pod) -> SourceRule {
    let own: Vec<IpNet> = pod.addresses.iter().map(|&address| IpNet::from(address)).collect();
    let matches =
        NatMatch { ingress: Some(PODS), sources: own.clone(), destinations: own, ..NatMatch::default() };
    SourceRule { matches, action: SourceNat::Pool(POOL.to_owned()) }
}

fn host_ports(node: &Node, pod: &Pod) -> impl Iterator<Item = DestinationRule> {
    pod.host_ports.iter().flat_map(move |port| {
        let at = node.addresses.iter().copied().filter(|&address| port.is_at(address));
        at.filter_map(move |address: IpAddr| {
            let to = *pod.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4())?;
            let only = |port: u16| Some(PortRange { first: port, last: port });
            let matches = NatMatch {
                destinations: vec![IpNet::from(address)],
                protocol: Some(port.protocol.number()),
                destination_ports: only(port.port),
                ..NatMatch::default()
            };
            let action = DestinationNat::To { address: Some(to), ports: only(port.container_port) };
            Some(DestinationRule { matches, action })
        })
    })
}

#[cfg(test)]
mod tests {
    use netstack::config::Snapshot;

    use super::super::{HostPort, PortNumbers, Protocol, wire};
    use super::*;
    use crate::objects::builtin;

    /// The rules of the first node, in words.
    fn rules(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
        let plan = &wire(cluster, &mut PortNumbers::default()).switches[0];
        Snapshot::compile(plan.config.clone(), None).unwrap();
        let nat = plan.config.nat.as_ref().unwrap();
        let nets = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ");
        let source = nat.source.iter().map(|SourceRule { matches, action }| {
            let NatMatch { ingress, egress, sources, destinations, .. } = matches;
            let way = format!("{:?} {:?}", ingress.map(|s| s.0), egress.map(|s| s.0));
            format!("{way}: {} > {}: {action:?}", nets(sources), nets(destinations))
        });
        let destination = nat.destination.iter().map(|DestinationRule { matches, action }| {
            let ports = matches.destination_ports.unwrap();
            assert_eq!(ports.first, ports.last);
            let DestinationNat::To { address, ports: Some(to) } = action else { panic!("{action:?}") };
            let from =
                format!("{:?} {} {}", matches.protocol.unwrap(), nets(&matches.destinations), ports.first);
            format!("{from} > {} {}", address.unwrap(), to.first)
        });
        (source.collect(), destination.collect())
    }

    #[test]
    fn what_is_inside_keeps_its_source_and_all_else_leaves_by_the_pool() {
        let mut cluster = builtin("lab");
        cluster.segments[1].external = true;
        cluster.kept_towards = ["10.244.0.0/16", "10.96.0.0/12"].map(|net| net.parse().unwrap()).to_vec();
        let (source, destination) = rules(&cluster);
        let inside =
            "10.244.0.0/16 10.96.0.0/12 10.20.30.0/24 fd00:20:30::/64 fd00:10:244::/64 fd00:10:244:1::/64";
        let keep = format!("None None:  > {inside}: Keep");
        assert_eq!(source, [keep.as_str(), "Some(2) Some(0):  > : Pool(\"node\")"]);
        assert_eq!(destination, [""; 0]);
        // The switch between the nodes tracks nothing.
        let wiring = wire(&cluster, &mut PortNumbers::default());
        assert!(wiring.switches.last().unwrap().config.nat.is_none());
    }

    #[test]
    fn ports_of_nodes_are_nobodys_own() {
        let kept = |first, last| {
            let all = ports(Range { first, last }).into_iter().map(|range| (range.first, range.last));
            all.collect::<Vec<_>>()
        };
        assert_eq!(kept(30_000, 32_767), [(1024, 29_999), (61_000, 65_535)]);
        assert_eq!(kept(20_000, 20_099), [(1024, 19_999), (20_100, 32_767), (61_000, 65_535)]);
        assert_eq!(kept(1, 2000), [(2001, 32_767), (61_000, 65_535)]);
        assert_eq!(kept(32_000, 62_000), [(1024, 31_999), (62_001, 65_535)]);
        assert_eq!(kept(1, 65_535), []);
    }

    #[test]
    fn a_host_port_leads_to_its_pod_in_its_family_and_a_pod_does_not_meet_itself() {
        let mut cluster = builtin("lab");
        let port = |protocol, port, address: Option<&str>| HostPort {
            protocol,
            port,
            address: address.map(|a| a.parse().unwrap()),
            container_port: 8080,
        };
        cluster.pods[0].host_ports = vec![
            port(Protocol::Sctp, 80, None),
            port(Protocol::Udp, 81, Some("0.0.0.0")),
            port(Protocol::Tcp, 82, Some("fd00:20:30::11")),
            port(Protocol::Tcp, 83, Some("127.0.0.1")),
        ];
        let (source, destination) = rules(&cluster);
        let own = "10.244.0.2/32 fd00:10:244::2/128";
        assert_eq!(source[0], format!("Some(2) None: {own} > {own}: Pool(\"node\")"));
        assert_eq!(source.len(), 3);
        let expected = [
            "132 10.20.30.11/32 80 > 10.244.0.2 8080",
            "132 fd00:20:30::11/128 80 > fd00:10:244::2 8080",
            "17 10.20.30.11/32 81 > 10.244.0.2 8080",
            "6 fd00:20:30::11/128 82 > fd00:10:244::2 8080",
        ];
        assert_eq!(destination, expected);
        // They are its node's alone, and go where it goes.
        cluster.pods[0].node = "node-2".into();
        assert_eq!(rules(&cluster).1, [""; 0]);
    }
}
