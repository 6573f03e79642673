//! The name server of a node: a host with the cluster's DNS address, behind a port of the node's switch, like a pod whose
//! address is of no prefix here.

use std::net::IpAddr;

use netstack::addr::{IpNet, MacAddr, PortId};
use netstack::config::{NextHop, PortConfig, RouteConfig, RouteTarget, Station, VlanMode};

use super::wire::PODS;
use super::{Attachment, Cluster, Node, PortNumbers, SwitchPlan};

/// What the port is called, and whose it is in messages.
const NAME: &str = "name server";

/// A name server and where it is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServerPlan {
    /// Where.
    pub attachment: Attachment,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its routers.
    pub gateways: Vec<IpAddr>,
    /// The largest IP packet on its link.
    pub mtu: u16,
}

/// Plans the name server of `node`, if there is one, its port and the routes to it. It has an address in the families
/// alone in which its pods have one.
pub(super) fn plan(
    cluster: &Cluster,
    node: &Node,
    numbers: &mut PortNumbers,
    switch: &mut SwitchPlan,
) -> Option<NameServerPlan> {
    let addresses: Vec<IpAddr> = of_node(cluster, node).collect();
    if addresses.is_empty() {
        return None;
    }
    let port: PortId = numbers.number(&node.name, NAME);
    let mac = cluster.mac(&format!("node {} {NAME}", node.name));
    let station = Station::Managed { mac, addresses: addresses.clone() };
    switch.config.ports.push(PortConfig { station, ..PortConfig::new(port, NAME, VlanMode::Access(PODS)) });
    switch.config.routes.extend(addresses.iter().map(|address| RouteConfig {
        prefix: IpNet::from(*address),
        target: RouteTarget::Via(vec![NextHop { segment: PODS, gateway: None }]),
    }));
    Some(NameServerPlan {
        attachment: Attachment { switch: node.name.clone(), port },
        mac,
        addresses,
        gateways: node.gateways.iter().map(IpNet::addr).collect(),
        mtu: cluster.mtu,
    })
}

/// The addresses of a node's name server.
fn of_node(cluster: &Cluster, node: &Node) -> impl Iterator<Item = IpAddr> {
    let has_family = |address: &IpAddr| node.gateways.iter().any(|g| g.addr().is_ipv4() == address.is_ipv4());
    cluster.services.names.servers.iter().copied().filter(has_family)
}

/// Who asks is not remembered, nor is anything translated: there are many who ask one short question each.
pub(super) fn untracked(cluster: &Cluster) -> Vec<IpNet> {
    cluster.services.names.servers.iter().copied().map(IpNet::from).collect()
}

/// Prefixes without addresses that have a station of their own: what is asked for there is routed, and not held to be for a
/// Service that there is not.
pub(super) fn without(prefixes: &[IpNet], addresses: &[IpAddr]) -> Vec<IpNet> {
    let mut left = prefixes.to_vec();
    for &address in addresses {
        let (around, others): (Vec<IpNet>, Vec<IpNet>) =
            left.into_iter().partition(|net| net.contains(&address));
        left = others;
        for whole in around {
            // The other half of each half that the address is in.
            let longer = whole.prefix_len() + 1..=whole.max_prefix_len();
            left.extend(longer.filter_map(|length| sibling(address, length)));
        }
    }
    left
}

/// The prefix of this length that differs in its last bit alone from the one that an address is in.
fn sibling(address: IpAddr, length: u8) -> Option<IpNet> {
    let own = IpNet::new(address, length).ok()?.trunc();
    let both = IpNet::new(address, length.checked_sub(1)?).ok()?;
    both.subnets(length).ok()?.find(|half| *half != own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wire;
    use crate::objects::builtin;
    use netstack::config::Snapshot;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_prefix_without_an_address_is_all_others() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let left = without(&nets(&["10.0.0.0/29", "fd00::/126"]), &[address("10.0.0.5"), address("fd00::2")]);
        let mut left: Vec<String> = left.iter().map(ToString::to_string).collect();
        left.sort();
        assert_eq!(left, ["10.0.0.0/30", "10.0.0.4/32", "10.0.0.6/31", "fd00::/127", "fd00::3/128"]);
        let whole = nets(&["10.96.0.0/12"]);
        assert_eq!(without(&whole, &[address("10.96.0.10")]).len(), 20);
        assert_eq!(without(&whole, &[address("192.0.2.1")]), whole);
        assert_eq!(without(&nets(&["10.0.0.1/32"]), &[address("10.0.0.1")]), []);
    }

    #[test]
    fn each_node_routes_to_a_name_server_of_its_own() {
        let wiring = wire(&builtin("lab"), &mut PortNumbers::default());
        assert_eq!(wiring.name_servers.len(), 2);
        for (plan, switch) in wiring.name_servers.iter().zip(&wiring.switches) {
            assert_eq!(plan.attachment.switch, switch.name);
            let snapshot = Snapshot::compile(switch.config.clone(), None).unwrap();
            for address in ["10.96.0.10", "fd00:10:96::a"].map(|text| text.parse().unwrap()) {
                assert!(plan.addresses.contains(&address));
                let (prefix, target) = snapshot.router().lookup_prefix(address).unwrap();
                assert_eq!(prefix, IpNet::from(address));
                assert_eq!(snapshot.describe(target), "on pods");
                assert!(!snapshot.services().unwrap().is_reserved(address));
                assert!(snapshot.translator().unwrap().is_untracked(address));
            }
            assert!(snapshot.services().unwrap().is_reserved("10.96.0.11".parse().unwrap()));
        }
        assert_ne!(wiring.name_servers[0].mac, wiring.name_servers[1].mac);
        let mut without = builtin("lab");
        without.services.names.servers.clear();
        assert_eq!(wire(&without, &mut PortNumbers::default()).name_servers, []);
    }
}
