//! The cluster as a model: nodes, pods, plain hosts and the segments that join them. Nothing here touches the system.

mod egress;
mod host_port;
mod name_server;
mod numbers;
mod service_proxy;
mod simulate;
mod translation;
mod wire;

pub use egress::{Carrier, EGRESS_PREFIXES, Egress, EgressPlan};
pub use host_port::{HostPort, Protocol};
pub use name_server::NameServerPlan;
pub use numbers::PortNumbers;
pub use service_proxy::{ProxyPlan, proxy_address};
pub use simulate::{Reachability, simulate};
pub use wire::{Attachment, Endpoint, SwitchPlan, UNDERLAY, Wiring, wire};

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as k8s;
use netstack::addr::{IpNet, MacAddr};
use netstack::config::StormControl;

use crate::container::{Images, PodSpec};
use crate::helper::{Existing, MIN_IPV6_MTU};
use crate::policy::ClusterPolicies;
use crate::service::Frame;

/// A whole cluster.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Cluster {
    /// Prefix of every namespace's name.
    pub name: String,
    /// The largest IP packet on every link.
    pub mtu: u16,
    /// The underlay: L3 segments joined by one router.
    pub segments: Vec<UnderlaySegment>,
    /// Destinations towards which pods keep their own addresses, beside nodes, their pods, and segments that are not
    /// external: prefixes of pods that no node has yet, of Services, and those that the user names.
    pub kept_towards: Vec<IpNet>,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// What guards pods from each other.
    pub pod_ports: PortGuards,
    /// Plain machines on the underlay.
    pub hosts: Vec<Host>,
    /// Which command runs for an image.
    pub images: Images,
    /// What Services have in common.
    pub services: Frame,
    /// Who may talk to whom.
    pub policies: Arc<ClusterPolicies>,
    /// How everyone reaches what is outside.
    pub egress: Egress,
    /// The addresses of this machine at which ports of nodes appear.
    pub publish_addresses: Vec<IpAddr>,
}

/// An L3 segment of the underlay. The router has the first address of each prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlaySegment {
    /// Its name.
    pub name: String,
    /// Its prefixes, with the router's address in each.
    pub gateways: Vec<IpNet>,
    /// Whether it has no routes to pods.
    pub external: bool,
    /// What guards its hosts from each other.
    pub ports: PortGuards,
    /// Whether loops behind hosts are looked for.
    pub loop_guard: bool,
    /// What else its router does.
    pub services: RouterServices,
}

/// What guards end stations of a segment from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortGuards {
    /// How many frames to everybody a port lets in.
    pub storm: StormControl,
    /// Whether nothing is bridged between end stations.
    pub isolated: bool,
}

/// Enough for whoever resolves a thousand neighbours, and far from what a loop makes.
impl Default for PortGuards {
    fn default() -> Self {
        Self { storm: StormControl { rate: 1000, burst: 1000 }, isolated: false }
    }
}

/// What a segment's router does when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RouterServices {
    /// Advertises itself and its IPv6 prefixes.
    pub advertises: bool,
    /// Answers ARP and neighbour discovery for what it routes to other segments.
    pub proxies: bool,
    /// Uses its addresses only once nobody else turns out to have them.
    pub probes: bool,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The underlay segment it is on.
    pub segment: String,
    /// Its own addresses there.
    pub addresses: Vec<IpAddr>,
    /// The prefixes its pods' addresses come from, with the node's own address in each.
    pub gateways: Vec<IpNet>,
    /// The addresses of its userspace proxy; none where Services are translated.
    pub proxy: Vec<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Load balancer addresses that it has on its segment, or that are routed to it.
    pub announces: Vec<IpAddr>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// Whether it lives in its node's own namespace, with the node's addresses.
    pub host_network: bool,
    /// Its addresses, of the prefixes of its node, or of another node that it has moved away from.
    pub addresses: Vec<IpAddr>,
    /// The ports of its node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// Its labels.
    pub labels: Labels,
    /// Its part of a Service's new connections, as against other pods'.
    pub weight: u32,
    /// What the manifest says of it.
    pub spec: Arc<k8s::PodSpec>,
    /// The network namespace that it is, if that exists already.
    pub netns: Option<Existing>,
    /// What runs in it.
    pub workload: Arc<PodSpec>,
    /// How it is replaced by one that runs something else, if it is a Deployment's.
    pub replacement: Option<Arc<Replacement>>,
}

/// How the pods of a Deployment are replaced when its template changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// `NAMESPACE/NAME` of the Deployment.
    pub deployment: String,
    /// How many of its pods may be missing at a time; all if none.
    pub max_unavailable: Option<usize>,
    /// How long those that replace others may take to be ready.
    pub deadline: Duration,
}

/// What selectors select by.
pub type Labels = BTreeMap<String, String>;

/// A plain machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The underlay segment it is on.
    pub segment: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Whom a command means: `NAME` or `NAMESPACE/NAME` for a pod, `node/NAME`, `host/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A pod.
    Pod {
        /// Its Kubernetes namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A node's own namespace.
    Node(String),
    /// A plain machine.
    Host(String),
}

impl Place {
    /// The name of its network namespace in cluster `cluster`, as `ip netns` shows it.
    pub fn netns(&self, cluster: &str) -> String {
        match self {
            Self::Pod { namespace, name } => format!("{cluster}.{namespace}.{name}"),
            Self::Node(name) => format!("{cluster}.node.{name}"),
            Self::Host(name) => format!("{cluster}.host.{name}"),
        }
    }

    /// The name behind the last slash.
    pub fn name(&self) -> &str {
        match self {
            Self::Pod { name, .. } | Self::Node(name) | Self::Host(name) => name,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Host(name) => write!(f, "host/{name}"),
        }
    }
}

/// The text names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no place; write POD, NAMESPACE/POD, node/NAME or host/NAME")]
pub struct PlaceError(String);

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let good = |s: &str| !s.is_empty() && !s.contains('/') && !s.contains(char::is_whitespace);
        let error = || PlaceError(text.to_owned());
        match text.split_once('/') {
            None if good(text) => Ok(Self::Pod { namespace: "default".into(), name: text.into() }),
            Some(("node", name)) if good(name) => Ok(Self::Node(name.into())),
            Some(("host", name)) if good(name) => Ok(Self::Host(name.into())),
            Some((namespace, name)) if good(namespace) && good(name) => {
                Ok(Self::Pod { namespace: namespace.into(), name: name.into() })
            }
            None | Some(_) => Err(error()),
        }
    }
}

impl Pod {
    /// How commands name it.
    pub fn place(&self) -> Place {
        Place::Pod { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl Cluster {
    /// Gives every link this MTU. On links that are too small for IPv6 (RFC 8200 section 5) the cluster has IPv4 only.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
        if mtu >= MIN_IPV6_MTU {
            return;
        }
        let nets = self.segments.iter_mut().map(|s| &mut s.gateways);
        for nets in nets.chain(self.nodes.iter_mut().map(|n| &mut n.gateways)) {
            nets.retain(|net| net.addr().is_ipv4());
        }
        self.nodes.iter_mut().for_each(|node| node.proxy.retain(IpAddr::is_ipv4));
        self.services.names.servers.retain(IpAddr::is_ipv4);
        let addresses = self.pods.iter_mut().map(|p| &mut p.addresses);
        let addresses = addresses.chain(self.nodes.iter_mut().map(|n| &mut n.addresses));
        for addresses in addresses.chain(self.hosts.iter_mut().map(|h| &mut h.addresses)) {
            addresses.retain(IpAddr::is_ipv4);
        }
    }

    /// Everyone who has a namespace, pods first.
    pub fn places(&self) -> Vec<Place> {
        self.pods
            .iter()
            .map(Pod::place)
            .chain(self.nodes.iter().map(|n| Place::Node(n.name.clone())))
            .chain(self.hosts.iter().map(|h| Place::Host(h.name.clone())))
            .collect()
    }

    /// The addresses of a place.
    pub fn addresses(&self, place: &Place) -> Option<&[IpAddr]> {
        match place {
            Place::Pod { namespace, name } => self
                .pods
                .iter()
                .find(|p| p.namespace == *namespace && p.name == *name)
                .map(|p| &p.addresses[..]),
            Place::Node(name) => self.nodes.iter().find(|n| n.name == *name).map(|n| &n.addresses[..]),
            Place::Host(name) => self.hosts.iter().find(|h| h.name == *name).map(|h| &h.addresses[..]),
        }
    }

    /// What backends are chosen by, besides who asks: the same on every node and every start.
    pub(crate) fn balancing_key(&self) -> [u8; 16] {
        let seed = netstack::seed::Seed([0x6d; 32]);
        let half = |which: &str| seed.derive(&format!("{}/{which} half of the balancing key", self.name));
        let [first, second] = ["first", "second"].map(|which| half(which).to_be_bytes());
        std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
    }

    /// A locally administered MAC address that belongs to `what` alone and is the same on every start.
    pub(crate) fn mac(&self, what: &str) -> MacAddr {
        MacAddr::local(netstack::seed::Seed([0x6d; 32]).derive(&format!("{}/{what}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::builtin;

    #[test]
    fn places_read_as_they_print() {
        for (text, full) in [
            ("alpha", "default/alpha"),
            ("web/front", "web/front"),
            ("node/node-1", "node/node-1"),
            ("host/outside", "host/outside"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), full);
            assert_eq!(full.parse::<Place>().unwrap(), place);
        }
        for bad in ["", "a/b/c", "/a", "a/", "a b"] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn links_too_small_for_ipv6_carry_ipv4_only() {
        let mut cluster = builtin("lab");
        cluster.set_mtu(1280);
        assert_eq!((cluster.mtu, &cluster.pods), (1280, &builtin("lab").pods));
        cluster.set_mtu(576);
        let wiring = wire(&cluster, &mut PortNumbers::default());
        assert_eq!(wiring.endpoints.len(), 6);
        for endpoint in &wiring.endpoints {
            assert_eq!((endpoint.mtu, endpoint.gateway_v6), (576, None), "{}", endpoint.place);
            assert!(endpoint.gateway_v4.is_some());
            assert!(endpoint.addresses.iter().all(|a| a.addr().is_ipv4()));
        }
        for plan in &wiring.switches {
            netstack::config::Snapshot::compile(plan.config.clone(), None).unwrap();
        }
    }

    #[test]
    fn mac_addresses_differ_and_stay() {
        let cluster = builtin("lab");
        assert_eq!(cluster.mac("pod default/alpha"), cluster.mac("pod default/alpha"));
        assert_ne!(cluster.mac("pod default/alpha"), cluster.mac("pod default/beta"));
        assert!(cluster.mac("x").is_valid_source());
    }
}
