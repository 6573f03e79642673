//! Ports of a node that lead to a pod on it.

use std::fmt;
use std::net::IpAddr;

use netstack::parse::protocol;
use serde::{Deserialize, Serialize};

/// What of a node leads to which port of the pod: `hostPort`, `hostIP` and `containerPort` of a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// What is carried.
    pub protocol: Protocol,
    /// The node's port.
    pub port: u16,
    /// At which of the node's addresses: all if none, all of its family if it is unspecified.
    pub address: Option<IpAddr>,
    /// The pod's port.
    pub container_port: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// By its name in manifests.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Its name in manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

impl HostPort {
    /// Whether it is at this address of its node.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.address
            .is_none_or(|own| own == address || own.is_unspecified() && own.is_ipv4() == address.is_ipv4())
    }

    /// Whether one node cannot have both, whatever its addresses.
    pub fn clashes(&self, other: &Self) -> bool {
        let both = |one: Option<IpAddr>, other: &Self| one.is_none_or(|address| other.is_at(address));
        let overlap = both(self.address, other) || both(other.address, self);
        (self.protocol, self.port) == (other.protocol, other.port) && overlap
    }
}

/// As `80/TCP`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_restricts_and_an_unspecified_one_means_a_family() {
        let at = |address: Option<&str>| HostPort {
            protocol: Protocol::Tcp,
            port: 80,
            address: address.map(|a| a.parse().unwrap()),
            container_port: 8080,
        };
        let all = [None, Some("0.0.0.0"), Some("::"), Some("10.0.0.1"), Some("fd00::1")];
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert_eq!(all.map(|a| at(a).is_at(v4)), [true, true, false, true, false]);
        assert_eq!(all.map(|a| at(a).is_at(v6)), [true, false, true, false, true]);
        let clashes = |one, other| at(one).clashes(&at(other)) && at(other).clashes(&at(one));
        for address in all {
            assert!(clashes(None, address) && clashes(address, address), "{address:?}");
        }
        assert!(clashes(Some("0.0.0.0"), Some("10.0.0.1")) && clashes(Some("::"), Some("fd00::1")));
        for (one, other) in [("0.0.0.0", "::"), ("10.0.0.1", "10.0.0.2"), ("::", "10.0.0.1")] {
            assert!(!at(Some(one)).clashes(&at(Some(other))), "{one} {other}");
        }
        assert!(!at(None).clashes(&HostPort { protocol: Protocol::Udp, ..at(None) }));
    }
}
