//! The userspace proxy of a node: a host on the pods' segment, behind a port of the node's switch, which calls backends
//! with the node's address.

use std::net::IpAddr;

use netstack::addr::{IpNet, MacAddr, PortId};
use netstack::config::nat::{NatMatch, SourceNat, SourceRule};
use netstack::config::{PortConfig, Station, VlanMode};

use super::translation::POOL;
use super::wire::PODS;
use super::{Attachment, Cluster, Node, PortNumbers};

/// What the port is called, and whose it is in messages.
const NAME: &str = "service proxy";

/// A proxy and where it is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyPlan {
    /// Where.
    pub attachment: Attachment,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its addresses with the prefixes on its link.
    pub addresses: Vec<IpNet>,
    /// Its routers.
    pub gateways: Vec<IpAddr>,
    /// The largest IP packet on its link.
    pub mtu: u16,
}

/// The address that a node's proxy has in a prefix of its pods: the last, after all that pods are given. None if there is
/// no room for both.
pub fn proxy_address(prefix: IpNet) -> Option<IpAddr> {
    let last = prefix.hosts().last()?;
    (last != prefix.addr() && prefix.prefix_len() + 2 < prefix.max_prefix_len()).then_some(last)
}

/// Plans the proxy of `node`, if its Services are carried by one, and its port.
pub(super) fn plan(
    cluster: &Cluster,
    node: &Node,
    numbers: &mut PortNumbers,
) -> Option<(ProxyPlan, PortConfig)> {
    if node.proxy.is_empty() {
        return None;
    }
    let port: PortId = numbers.number(&node.name, NAME);
    let mac = cluster.mac(&format!("node {} {NAME}", node.name));
    let station = Station::Managed { mac, addresses: node.proxy.clone() };
    let config = PortConfig { station, ..PortConfig::new(port, NAME, VlanMode::Access(PODS)) };
    let on_link = |&address: &IpAddr| {
        let gateway = node.gateways.iter().find(|gateway| gateway.contains(&address))?;
        IpNet::new(address, gateway.prefix_len()).ok()
    };
    let plan = ProxyPlan {
        attachment: Attachment { switch: node.name.clone(), port },
        mac,
        addresses: node.proxy.iter().filter_map(on_link).collect(),
        gateways: node.gateways.iter().map(IpNet::addr).collect(),
        mtu: cluster.mtu,
    };
    Some((plan, config))
}

/// Backends see the node: that is who calls them.
pub(super) fn source_rule(node: &Node) -> Option<SourceRule> {
    let sources: Vec<IpNet> = node.proxy.iter().map(|&address| IpNet::from(address)).collect();
    if sources.is_empty() {
        return None;
    }
    let matches = NatMatch { ingress: Some(PODS), sources, ..NatMatch::default() };
    Some(SourceRule { matches, action: SourceNat::Pool(POOL.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_has_the_last_address_of_a_prefix() {
        let of = |prefix: &str| proxy_address(prefix.parse().unwrap()).map(|address| address.to_string());
        assert_eq!(of("10.244.3.1/24").as_deref(), Some("10.244.3.254"));
        assert_eq!(of("fd00:10:244:1::1/64").as_deref(), Some("fd00:10:244:1:ffff:ffff:ffff:ffff"));
        assert_eq!(of("10.244.3.1/29").as_deref(), Some("10.244.3.6"));
        // A router and one pod, and no more.
        assert_eq!(of("10.244.3.1/30"), None);
    }
}
