//! What policies say, in words.

use std::fmt;

use netstack::parse::protocol;
use netstack::policy::{Action, Block};

use super::selector::{Demand, Selector};
use super::spec::{Namespaces, PeerSpec, PodSelector, PortSpec, RuleSpec};

impl fmt::Display for Selector {
    /// As `kubectl` writes selectors; nothing for one that selects everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equal = self.equal.iter().map(|(key, value)| format!("{key}={value}"));
        let demands = self.demands.iter().map(|demand| match demand {
            Demand::In(key, values) => format!("{key} in ({})", values.join(",")),
            Demand::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            Demand::Exists(key) => key.clone(),
            Demand::DoesNotExist(key) => format!("!{key}"),
        });
        f.write_str(&equal.chain(demands).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pods.to_string() {
            all if all.is_empty() => f.write_str("all pods")?,
            labels => write!(f, "pods {labels}")?,
        }
        match &self.namespaces {
            Namespaces::Named(name) => write!(f, " of {name}"),
            Namespaces::Labelled(selector) => match selector.to_string() {
                all if all.is_empty() => f.write_str(" of all namespaces"),
                labels => write!(f, " of namespaces {labels}"),
            },
        }
    }
}

impl fmt::Display for PeerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods(selector) => selector.fmt(f),
            Self::Nodes(selector) => match selector.to_string() {
                all if all.is_empty() => f.write_str("all nodes"),
                labels => write!(f, "nodes {labels}"),
            },
            Self::Block(Block { net, except }) => {
                write!(f, "{net}")?;
                let except: Vec<String> = except.iter().map(ToString::to_string).collect();
                if except.is_empty() { Ok(()) } else { write!(f, " without {}", except.join(", ")) }
            }
        }
    }
}

/// What a protocol is called.
pub fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(number) => f.write_str(&protocol_name(*number)),
            Self::Range { protocol, first, last } if first == last => {
                write!(f, "{} {first}", protocol_name(*protocol))
            }
            Self::Range { protocol, first, last } => write!(f, "{} {first}-{last}", protocol_name(*protocol)),
            Self::Named { protocol, name } => write!(f, "{} {name:?}", protocol_name(*protocol)),
        }
    }
}

impl RuleSpec {
    /// What it says, of what is opened to a policy's pods (`from`) or of what they open (`to`).
    pub fn describe(&self, preposition: &str) -> String {
        let action = match self.action {
            Action::Accept => "accept",
            Action::Deny => "deny",
            Action::Pass => "pass",
        };
        let join = |all: Vec<String>| if all.is_empty() { "nobody".to_owned() } else { all.join("; ") };
        let peers = self.peers.as_ref().map_or_else(
            || "anybody".to_owned(),
            |peers| join(peers.iter().map(ToString::to_string).collect()),
        );
        let ports = self.ports.as_ref().map_or_else(
            || "anything".to_owned(),
            |ports| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        );
        format!("{action} {preposition} {peers}: {ports}")
    }
}
