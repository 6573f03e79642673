//! What Services have in common, and what each has.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::spec::Spec;
use super::words::Family;
use crate::cluster::Protocol;

/// Ports from one to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Default for Range {
    fn default() -> Self {
        Self { first: 30_000, last: 32_767 }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What Services of a cluster have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Frame {
    /// Prefixes of cluster IPs, the first one that of Services which do not care.
    pub cidrs: Vec<IpNet>,
    /// Ports of nodes.
    pub node_ports: Range,
    /// Whether pods, too, are seen with their node's address behind a cluster IP.
    pub masquerade_all: bool,
    /// How connections are made.
    pub mode: manifest::ProxyMode,
    /// What Services' names are.
    pub names: Names,
}

/// What the names of Services and pods have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// What they are beneath.
    pub domain: String,
    /// Where each node's name server is asked. Nobody else has these addresses.
    pub servers: Vec<IpAddr>,
    /// Prefixes whose addresses have no names but those of the cluster.
    pub prefixes: Vec<IpNet>,
    /// The file that names whom name servers ask for names that are not the cluster's.
    pub resolv_conf: String,
    /// Domains that they ask others for, and whom.
    pub stubs: Vec<(String, Vec<IpAddr>)>,
    /// Further names, and what they stand for.
    pub records: Vec<(String, Vec<Meaning>)>,
    /// Whether what they are asked is logged.
    pub log_queries: bool,
}

/// What a name that the user gives stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    /// An address.
    Address(IpAddr),
    /// Another name.
    Name(String),
}

/// A port of the nodes that leads to a Service's port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePort {
    /// The number of the IP protocol.
    pub protocol: u8,
    /// The Service's port.
    pub port: u16,
    /// The nodes'.
    pub node_port: u16,
}

/// What one Service has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allocation {
    /// Its cluster IPs, that of its first family first.
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "clusterIPs")]
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports of nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_ports: Vec<NodePort>,
    /// The port that its health is asked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_port: Option<u16>,
    /// Its addresses of pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer: Vec<IpAddr>,
}

impl Allocation {
    /// Whether it is asked for at nodes themselves.
    pub fn is_exposed(&self) -> bool {
        !self.node_ports.is_empty() || self.health_check_port.is_some()
    }

    /// The port of nodes that leads to a port.
    pub fn node_port(&self, protocol: Protocol, port: u16) -> Option<u16> {
        let same = |one: &&NodePort| (one.protocol, one.port) == (protocol.number(), port);
        self.node_ports.iter().find(same).map(|one| one.node_port)
    }
}

/// A Service and what it has.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Planned {
    /// What it is meant to be.
    pub spec: Spec,
    /// Its families, the first one first.
    pub families: Vec<Family>,
    /// What it was given.
    pub allocation: Allocation,
}
