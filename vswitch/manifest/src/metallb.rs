//! Kinds of MetalLB: which addresses Services of the type LoadBalancer get, and which nodes announce them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `apiVersion` of these kinds.
pub(super) const API_VERSION: &str = "metallb.io/v1beta1";

/// Addresses to give out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPAddressPool {
    /// `metallb.io/v1beta1`.
    pub api_version: String,
    /// `IPAddressPool`.
    pub kind: String,
    /// Its name and labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The rest.
    pub spec: PoolSpec,
    /// What a cluster reports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, serde_json::Value>,
}

/// What can be said of a pool.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Prefixes, and ranges as 192.0.2.10-192.0.2.20.
    pub addresses: Vec<String>,
    /// Whether Services get addresses of it that do not name it. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_assign: Option<bool>,
    /// Whether IPv4 addresses that end in .0 and .255 are left out.
    #[serde(default, rename = "avoidBuggyIPs", skip_serializing_if = "Option::is_none")]
    pub avoid_buggy_ips: Option<bool>,
    /// Which Services may have its addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_allocation: Option<ServiceAllocationSpec>,
}

/// Which Services may have addresses of a pool. Lists that are empty allow all.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceAllocationSpec {
    /// Of several pools the one with the lowest number is taken; 0 and unset come last.
    pub priority: Option<i32>,
    /// Namespaces by name.
    pub namespaces: Vec<String>,
    /// Namespaces by label.
    pub namespace_selectors: Vec<LabelSelector>,
    /// Services by label.
    pub service_selectors: Vec<LabelSelector>,
}

/// That addresses of pools are announced by ARP and neighbour discovery.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct L2Advertisement {
    /// `metallb.io/v1beta1`.
    pub api_version: String,
    /// `L2Advertisement`.
    pub kind: String,
    /// Its name.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The rest.
    #[serde(default)]
    pub spec: AdvertisementSpec,
    /// What a cluster reports.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, serde_json::Value>,
}

/// What can be said of an advertisement. Lists that are empty mean all.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdvertisementSpec {
    /// Pools by name.
    #[serde(rename = "ipAddressPools")]
    pub ip_address_pools: Vec<String>,
    /// Pools by label.
    #[serde(rename = "ipAddressPoolSelectors")]
    pub ip_address_pool_selectors: Vec<LabelSelector>,
    /// Nodes by label.
    pub node_selectors: Vec<LabelSelector>,
    /// Interfaces; has no effect, as nodes have one.
    pub interfaces: Vec<String>,
}
