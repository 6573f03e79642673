//! Words of a Service.

use std::net::IpAddr;

/// The type of a Service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Kind {
    /// An address inside the cluster.
    #[default]
    ClusterIp,
    /// And a port of every node.
    NodePort,
    /// And an address outside.
    LoadBalancer,
    /// A name, nothing else.
    ExternalName,
}

impl Kind {
    pub(super) const NAMES: [(&'static str, Self); 4] = [
        ("ClusterIP", Self::ClusterIp),
        ("NodePort", Self::NodePort),
        ("LoadBalancer", Self::LoadBalancer),
        ("ExternalName", Self::ExternalName),
    ];

    /// Its name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
            Self::ExternalName => "ExternalName",
        }
    }
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Its name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// In how many families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// One.
    Single,
    /// Both, if the cluster has both.
    PreferDual,
    /// Both.
    RequireDual,
}

/// Which endpoints are preferred.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Distribution {
    /// All the same.
    #[default]
    Even,
    /// Those of the node's zone.
    SameZone,
    /// Those of the node, else those of its zone.
    SameNode,
}

/// An address that somebody else gave a Service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingress {
    /// The address.
    pub address: IpAddr,
    /// Whether nodes leave packets to it to whoever has it (`ipMode: Proxy`).
    pub proxied: bool,
}
