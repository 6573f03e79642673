//! What a switch is to be: plain data, written by people and by the control plane, compiled by `Snapshot::compile`.

mod advertise;
mod difference;
pub mod nat;
mod port;
mod router;
mod services;
mod snapshot;
pub(crate) mod translator;
mod validate;

pub use advertise::{AdvertisedPrefix, RouterAdvertisement};
pub use difference::Difference;
pub use nat::NatConfig;
pub use port::Port;
pub use router::{Router, Target};
pub use services::{Services, ServicesConfig};
pub use snapshot::{Gateway, Segment, Snapshot, Station as StationEntry};
pub use translator::Translator;
pub use validate::{ConfigError, ConfigErrors};

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::addr::{IpNet, MacAddr, PortId, SegmentId};
use crate::frame::OffloadFeatures;

/// The whole configuration of one switch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct Config {
    /// Ports. A port that is not named here carries nothing.
    pub ports: Vec<PortConfig>,
    /// Broadcast domains.
    pub segments: Vec<SegmentConfig>,
    /// Routes beside those to the segments' own prefixes.
    pub routes: Vec<RouteConfig>,
    /// Tracking of connections and translation of addresses; none for a switch that does neither.
    pub nat: Option<NatConfig>,
    /// Services, which need connections; none for a switch that has none.
    pub services: Option<ServicesConfig>,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct PortConfig {
    /// Its number.
    pub id: PortId,
    /// What commands call it.
    pub name: String,
    /// What the device behind it takes over from software.
    #[cfg_attr(feature = "serde", serde(default))]
    pub offload: OffloadFeatures,
    /// Which segments it belongs to.
    pub vlan: VlanMode,
    /// Who is behind it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub station: Station,
    /// How many broadcast, multicast and unknown unicast frames it lets in; none for all.
    #[cfg_attr(feature = "serde", serde(default))]
    pub storm: Option<StormControl>,
    /// Whether loops are looked for behind it: it sends probes, and is blocked for a while when one comes back or when
    /// stations seem to jump between it and another port. Whoever is behind such a port can make it be blocked. Means
    /// nothing on a managed port, which no loop can pass.
    #[cfg_attr(feature = "serde", serde(default))]
    pub loop_guard: bool,
    /// Whether it is isolated: nothing is bridged between two isolated ports (Linux `isolated on`).
    #[cfg_attr(feature = "serde", serde(default))]
    pub isolated: bool,
}

impl PortConfig {
    /// A port with anyone behind it, a device without offload, and no protection.
    pub fn new(id: PortId, name: impl Into<String>, vlan: VlanMode) -> Self {
        Self {
            id,
            name: name.into(),
            offload: OffloadFeatures::NONE,
            vlan,
            station: Station::Foreign,
            storm: None,
            loop_guard: false,
            isolated: false,
        }
    }
}

/// How many broadcast, multicast and unknown unicast frames a port lets in. What is more is dropped before anything is
/// learned from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct StormControl {
    /// Frames per second.
    pub rate: u32,
    /// Frames at once when there were none for long; at least 1.
    pub burst: u32,
}

/// How a port's frames map to segments (IEEE 802.1Q).
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum VlanMode {
    /// Untagged and priority-tagged frames belong to one segment; tagged ones are dropped; frames leave untagged.
    Access(SegmentId),
    /// Tagged frames belong to the segment of their VLAN; untagged and priority-tagged ones to `native`, if there is
    /// one. Frames leave as they would have to come in.
    Trunk {
        /// Where untagged frames belong.
        native: Option<SegmentId>,
        /// VLAN identifier (1 to 4094) to segment.
        tagged: Vec<(u16, SegmentId)>,
    },
}

/// Who is behind a port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Station {
    /// Anyone: addresses are learned, unknown destinations are flooded to it.
    #[default]
    Foreign,
    /// Exactly one station, known beforehand: its addresses are static, the switch answers ARP and neighbour
    /// discovery for it, nothing unknown is flooded to it, and frames with another source are dropped.
    Managed {
        /// Its MAC address.
        mac: MacAddr,
        /// Its addresses, beside the IPv6 link-local one that the MAC address gives.
        addresses: Vec<IpAddr>,
    },
}

/// One broadcast domain, and the router's interface on it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct SegmentConfig {
    /// Its number.
    pub id: SegmentId,
    /// What commands call it.
    pub name: String,
    /// The largest IP packet that fits, in octets: 68 (RFC 791) to 65535, from 1280 when it carries IPv6 (RFC 8200).
    pub mtu: u16,
    /// The router's interface; none for a segment that is only bridged.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gateway: Option<GatewayConfig>,
    /// Whether frames between two ports are bridged. Without it every frame not addressed to the gateway is dropped.
    #[cfg_attr(feature = "serde", serde(default = "yes"))]
    pub bridge: bool,
    /// Whether the gateway answers ARP and neighbour discovery for addresses that it routes to other segments (RFC 1027,
    /// RFC 4861 section 7.2.8).
    #[cfg_attr(feature = "serde", serde(default))]
    pub proxy_neighbors: bool,
}

impl SegmentConfig {
    /// A bridged segment without a router, for packets of 1500 octets.
    pub fn new(id: SegmentId, name: impl Into<String>) -> Self {
        Self { id, name: name.into(), mtu: 1500, gateway: None, bridge: true, proxy_neighbors: false }
    }
}

#[cfg(feature = "serde")]
const fn yes() -> bool {
    true
}

/// The router's interface on a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct GatewayConfig {
    /// Its MAC address. The IPv6 link-local address follows from it.
    pub mac: MacAddr,
    /// Its addresses with the prefixes that are on this link.
    pub addresses: Vec<IpNet>,
    /// Reverse path filter (RFC 3704).
    #[cfg_attr(feature = "serde", serde(default))]
    pub reverse_path: ReversePath,
    /// Whether this link leads to the machine that the switch *is*: a station there shares the switch's own addresses,
    /// gets what is addressed to those and not answered by the switch itself, and is no hop away (TTL unchanged).
    #[cfg_attr(feature = "serde", serde(default))]
    pub node_local: bool,
    /// Whether its addresses are used only after probing has shown that nobody else has them (RFC 5227 section 2.1, RFC
    /// 4862 section 5.4), and are announced then. Without it they are used from the first frame.
    #[cfg_attr(feature = "serde", serde(default))]
    pub probe: bool,
    /// What it tells stations about itself by itself; none for silence.
    #[cfg_attr(feature = "serde", serde(default))]
    pub advertise: Option<RouterAdvertisement>,
    /// Destinations that stations of this link have no route to, whatever the routes say: what a router of the outside
    /// knows nothing of.
    #[cfg_attr(feature = "serde", serde(default))]
    pub no_route_to: Vec<IpNet>,
    /// Whether TCP connections that pass this link are told what fits it: the MSS that their SYNs announce is lowered to
    /// the smaller MTU of the two links (RFC 4459 section 3.2), for paths on which ICMP errors get lost.
    #[cfg_attr(feature = "serde", serde(default))]
    pub clamp_mss: bool,
}

impl GatewayConfig {
    /// An interface that filters nothing, leads to other machines, and neither probes nor advertises.
    pub fn new(mac: MacAddr, addresses: Vec<IpNet>) -> Self {
        Self {
            mac,
            addresses,
            reverse_path: ReversePath::Off,
            node_local: false,
            probe: false,
            advertise: None,
            no_route_to: Vec::new(),
            clamp_mss: false,
        }
    }
}

/// Which source addresses an interface accepts (RFC 3704 sections 2.2 and 2.4; Linux `rp_filter`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ReversePath {
    /// Any.
    #[default]
    Off,
    /// Those that are reached through the same interface.
    Strict,
    /// Those that are reached at all.
    Loose,
}

/// One route.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct RouteConfig {
    /// Destinations.
    pub prefix: IpNet,
    /// What happens to packets for them.
    pub target: RouteTarget,
}

/// What a route does.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum RouteTarget {
    /// Sends to one of several next hops, by a stable hash of the flow (ECMP).
    Via(Vec<NextHop>),
    /// Drops silently.
    Blackhole,
    /// Drops and says host unreachable (IPv4) or no route (IPv6).
    Unreachable,
    /// Drops and says administratively prohibited.
    Prohibit,
}

/// One next hop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct NextHop {
    /// The segment it is on.
    pub segment: SegmentId,
    /// Its address; none when the destination itself is on the segment.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gateway: Option<IpAddr>,
}

/// How much a switch may hold. Every bound has a counter or an event for when it is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Learned MAC addresses. At the limit nothing is learned, frames to unlearned addresses are flooded.
    pub fdb_entries: u32,
    /// Learned MAC addresses per port, so that one port cannot fill the table.
    pub fdb_entries_per_port: u32,
    /// Neighbours being resolved or resolved. At the limit stale ones are evicted, then new ones refused.
    pub neighbors: u32,
    /// Frames waiting for one neighbour; at the limit the oldest is dropped (RFC 1122 section 2.3.2.2 wants the latest
    /// kept).
    pub parked_per_neighbor: u32,
    /// Frames waiting for all neighbours.
    pub parked: u32,
    /// Octets waiting for all neighbours.
    pub parked_bytes: usize,
    /// Frames in one port's output queue.
    pub queue_frames: u32,
    /// Octets in one port's output queue.
    pub queue_bytes: usize,
    /// Events kept until polled.
    pub events: u32,
    /// ICMP errors per second over all destinations.
    pub icmp_errors_per_second: u32,
    /// Connections tracked, in each family. At the limit one that nobody has answered makes room, else new ones are
    /// refused.
    pub connections: u32,
    /// Clients whose backend is remembered, of services that want it. At the limit one that has been away for long is
    /// forgotten.
    pub affinities: u32,
    /// Flows whose next frames need no decision: of IPv4, of IPv6 and between stations so many each, rounded up to a power of
    /// two. At the limit new ones are kept now and then, and frames of the others are decided about one by one. With 0 all
    /// are. Memory is taken as flows come.
    pub flows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fdb_entries: 16_384,
            fdb_entries_per_port: 4_096,
            neighbors: 4_096,
            parked_per_neighbor: 64,
            parked: 1_024,
            parked_bytes: 4 << 20,
            queue_frames: 1_024,
            queue_bytes: 8 << 20,
            events: 1_024,
            icmp_errors_per_second: 1_000,
            connections: 65_536,
            affinities: 65_536,
            flows: 65_536,
        }
    }
}
