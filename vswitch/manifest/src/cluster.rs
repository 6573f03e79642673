//! `kind: Cluster`: what Kubernetes leaves to its installer. All of it is optional.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is a prefix, for the schema.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct Prefix(#[schemars(extend("format" = super::schema::PREFIX))] String);

/// A text that is an address, for the schema.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct Address(#[schemars(extend("format" = super::schema::ADDRESS))] String);

/// The `apiVersion` of our own kind.
pub const API_VERSION: &str = "vswitch/v1alpha1";

/// A cluster's frame: prefixes, underlay, and what else is not a Kubernetes object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// [`API_VERSION`].
    pub api_version: String,
    /// `Cluster`.
    pub kind: String,
    /// Its name begins the names of its network namespaces.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The rest.
    #[serde(default)]
    pub spec: ClusterSpec,
}

/// What can be said of a cluster.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterSpec {
    /// Prefixes that nodes get a part of for their pods, one of each family at most. Default 10.244.0.0/16 and
    /// fd00:10:244::/56.
    #[serde(rename = "podCIDRs")]
    #[schemars(with = "Option<Vec<Prefix>>")]
    pub pod_cidrs: Option<Vec<IpNet>>,
    /// Prefixes of Services' addresses, one of each family at most. Default 10.96.0.0/12 and fd00:10:96::/112.
    #[serde(rename = "serviceCIDRs")]
    #[schemars(with = "Option<Vec<Prefix>>")]
    pub service_cidrs: Option<Vec<IpNet>>,
    /// Prefixes of destinations outside towards which pods keep their own addresses.
    #[serde(rename = "nonMasqueradeCIDRs")]
    #[schemars(with = "Option<Vec<Prefix>>")]
    pub non_masquerade_cidrs: Option<Vec<IpNet>>,
    /// How connections to Services are made. Default `maglev`.
    pub proxy_mode: Option<ProxyMode>,
    /// Ports of nodes that lead to Services, `FIRST-LAST`. Default 30000-32767.
    pub node_port_range: Option<String>,
    /// Whether pods, too, are seen with their node's address by Services that they reach at a cluster IP.
    pub masquerade_all: bool,
    /// The domain that the names of Services and pods are beneath. Default `cluster.local`.
    pub dns_domain: Option<String>,
    /// The cluster's name server.
    pub dns: DnsSpec,
    /// What holds for connections that no policy says anything about. Default `allow`.
    pub default_policy: Option<DefaultPolicy>,
    /// What becomes of what is denied. Default `enforce`.
    pub policy_mode: Option<PolicyMode>,
    /// The largest IP packet on every link, in octets. Default 1500.
    pub mtu: Option<u16>,
    /// The underlay: L3 segments joined by one router. Default one segment, `underlay`, with 192.168.10.0/24 and
    /// fd00:192:168:10::/64.
    pub segments: Option<Vec<SegmentSpec>>,
    /// The segment that each node has its pods on.
    pub pod_segments: PortsSpec,
    /// Plain machines.
    pub hosts: Option<Vec<HostSpec>>,
    /// How pods reach what is outside the cluster. Default `user`.
    pub egress: Option<EgressMode>,
    /// What they may reach there.
    pub egress_policy: EgressPolicySpec,
    /// Addresses of this machine at which ports of nodes appear: those of NodePort and LoadBalancer Services, and
    /// hostPorts. Default 127.0.0.1 and ::1; without any none of them does.
    #[schemars(with = "Option<Vec<Address>>")]
    pub publish_addresses: Option<Vec<IpAddr>>,
    /// Which command runs for an image.
    pub images: Option<BTreeMap<String, Vec<String>>>,
}

/// How pods reach what is outside the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EgressMode {
    /// By sockets of whoever runs vswitch.
    #[default]
    User,
    /// By an interface of this machine, whose own stack carries it on. Needs root.
    Kernel,
    /// Not at all.
    None,
}

/// What pods may reach outside the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EgressPolicySpec {
    /// What is closed unless it is named here.
    pub open: Vec<EgressOpening>,
    /// Prefixes. If there are any, nothing else is open.
    #[schemars(with = "Vec<Prefix>")]
    pub allow: Vec<IpNet>,
    /// Prefixes that are closed. Of two that an address is in the longer decides.
    #[schemars(with = "Vec<Prefix>")]
    pub deny: Vec<IpNet>,
}

/// What pods reach only if the user says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum EgressOpening {
    /// The machine's own loopback, which pods see at 192.0.0.2 and fd00:192::2.
    MachineLoopback,
    /// The metadata services of clouds.
    Metadata,
}

/// The cluster's name server, which each node has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsSpec {
    /// Its addresses, of `serviceCIDRs`, one of each family at most. Default the tenth of each; without any there is no
    /// such server.
    #[schemars(with = "Option<Vec<Address>>")]
    pub addresses: Option<Vec<IpAddr>>,
    /// The file of this machine that names whom it asks for names that are not the cluster's. Default `/etc/resolv.conf`.
    pub resolv_conf: Option<String>,
    /// Domains that others than these are asked for, and who they are.
    #[schemars(with = "BTreeMap<String, Vec<Address>>")]
    pub stub_domains: BTreeMap<String, Vec<IpAddr>>,
    /// Further names.
    pub records: Vec<RecordSpec>,
    /// Whether each query is written to the log of the pod `kube-system/kube-dns`.
    pub log_queries: bool,
}

/// A name that is known besides those of Services and pods.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RecordSpec {
    /// The name, to its end.
    pub name: String,
    /// What it stands for.
    #[serde(default)]
    #[schemars(with = "Vec<Address>")]
    pub addresses: Vec<IpAddr>,
    /// Another name that it stands for instead.
    #[serde(default)]
    pub target: Option<String>,
}

/// How connections to Services are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProxyMode {
    /// Packets are sent on to the endpoint that a table selects, which sees the client's own address.
    #[default]
    Maglev,
    /// A program ends each TCP connection and opens one of its own to an endpoint.
    Userspace,
}

/// What holds for connections that no policy says anything about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum DefaultPolicy {
    /// They are let through, as Kubernetes has it.
    #[default]
    Allow,
    /// They are not, to pods and from them.
    Deny,
}

/// What becomes of what policies deny.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyMode {
    /// It is dropped, and counted.
    #[default]
    Enforce,
    /// It is counted, and let through.
    Audit,
}

/// How the ports of a segment are kept from harming each other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortsSpec {
    /// How many frames to everybody each port lets in.
    pub storm_control: Option<StormControlSpec>,
    /// Whether ports reach the router and what is behind it, but not each other.
    pub isolated: bool,
}

/// How many broadcast, multicast and unknown unicast frames a port lets in.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StormControlSpec {
    /// Frames a second. Default 1000.
    pub rate: u32,
    /// Frames at once when there were none for long. Default as many as in a second.
    #[serde(default)]
    pub burst: Option<u32>,
}

/// An L3 segment of the underlay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SegmentSpec {
    /// Its name.
    pub name: String,
    /// Its prefixes; the router has the first address of each.
    #[schemars(with = "Vec<Prefix>")]
    pub cidrs: Vec<IpNet>,
    /// Whether it has no routes to pods.
    #[serde(default)]
    pub external: bool,
    /// The ports of its hosts. Nodes are trusted.
    #[serde(flatten)]
    pub ports: PortsSpec,
    /// Whether loops are looked for behind its hosts, and a port that is part of one is blocked. Default true.
    #[serde(default)]
    pub loop_guard: Option<bool>,
    /// Whether the router advertises itself and the IPv6 prefixes (RFC 4861 section 6.2).
    #[serde(default)]
    pub router_advertisements: bool,
    /// Whether the router answers ARP and neighbour discovery for what it routes to other segments (RFC 1027, RFC 4861
    /// section 7.2.8).
    #[serde(default)]
    pub proxy_neighbors: bool,
    /// Whether the router uses its addresses only once nobody else turns out to have them (RFC 5227, RFC 4862 section 5.4),
    /// which takes it some seconds.
    #[serde(default)]
    pub duplicate_address_detection: bool,
}

/// A plain machine on a segment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HostSpec {
    /// Its name.
    pub name: String,
    /// The segment it is on; the one that its addresses belong to if unset.
    #[serde(default)]
    pub segment: Option<String>,
    /// Its addresses.
    #[schemars(with = "Vec<Address>")]
    pub addresses: Vec<IpAddr>,
}
