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
    /// The largest IP packet on every link, in octets. Default 1500.
    pub mtu: Option<u16>,
    /// The underlay: L3 segments joined by one router. Default one segment, `underlay`, with 192.168.10.0/24 and
    /// fd00:192:168:10::/64.
    pub segments: Option<Vec<SegmentSpec>>,
    /// Plain machines.
    pub hosts: Option<Vec<HostSpec>>,
    /// Which command runs for an image.
    pub images: Option<BTreeMap<String, Vec<String>>>,
}

/// An L3 segment of the underlay.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SegmentSpec {
    /// Its name.
    pub name: String,
    /// Its prefixes; the router has the first address of each.
    #[schemars(with = "Vec<Prefix>")]
    pub cidrs: Vec<IpNet>,
    /// Whether it has no routes to pods.
    #[serde(default)]
    pub external: bool,
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
