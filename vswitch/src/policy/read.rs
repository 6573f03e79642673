//! From a `NetworkPolicy` to what it says.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::addr::IpNet;
use netstack::policy::{Action, Block};

use super::selector::Selector;
use super::spec::{Namespaces, PeerSpec, PodSelector, PolicySpec, PortSpec, RuleSpec, Tier};
use crate::cluster::Protocol;
use crate::service::Complaints;

impl PolicySpec {
    /// Reads an object of this namespace and name. What is wrong with it is added to `complaints`.
    pub fn read(object: &NetworkPolicy, namespace: &str, name: &str, complaints: &mut Complaints) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let selector = spec.pod_selector.unwrap_or_default();
        let subject = PodSelector {
            namespaces: Namespaces::Named(namespace.to_owned()),
            pods: Selector::read(&selector, "spec.podSelector", complaints),
        };
        let (ingress, egress) = (spec.ingress.unwrap_or_default(), spec.egress.unwrap_or_default());
        let [with_ingress, with_egress] = types(spec.policy_types.as_deref(), !egress.is_empty(), complaints);
        for (rules, with, field, kind) in [
            (ingress.len(), with_ingress, "spec.ingress", "Ingress"),
            (egress.len(), with_egress, "spec.egress", "Egress"),
        ] {
            if rules > 0 && !with {
                complaints.warn(field, format!("has no effect: policyTypes does not name {kind}"));
            }
        }
        let mut reader = Reader { namespace, complaints };
        let ingress: Vec<RuleSpec> =
            ingress.iter().enumerate().map(|(at, rule)| reader.ingress(at, rule)).collect();
        let egress: Vec<RuleSpec> =
            egress.iter().enumerate().map(|(at, rule)| reader.egress(at, rule)).collect();
        Self {
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            tier: Tier::Policy,
            priority: 0,
            subject,
            ingress: with_ingress.then_some(ingress),
            egress: with_egress.then_some(egress),
        }
    }
}

/// Whether a policy is about what is opened to its pods, and about what they open. Unless it says so itself, it is about
/// the former in any case, and about the latter if it has a rule for it.
fn types(listed: Option<&[String]>, has_egress: bool, complaints: &mut Complaints) -> [bool; 2] {
    let listed = listed.unwrap_or_default();
    if listed.is_empty() {
        return [true, has_egress];
    }
    for (index, text) in
        listed.iter().enumerate().filter(|(_, text)| !["Ingress", "Egress"].contains(&text.as_str()))
    {
        complaints.fault(format!("spec.policyTypes[{index}]"), format!("{text:?} must be Ingress or Egress"));
    }
    ["Ingress", "Egress"].map(|kind| listed.iter().any(|text| text == kind))
}

struct Reader<'a> {
    namespace: &'a str,
    complaints: &'a mut Complaints,
}

impl Reader<'_> {
    fn ingress(&mut self, at: usize, rule: &NetworkPolicyIngressRule) -> RuleSpec {
        let path = format!("spec.ingress[{at}]");
        self.rule(&path, "from", rule.from.as_deref(), rule.ports.as_deref())
    }

    fn egress(&mut self, at: usize, rule: &NetworkPolicyEgressRule) -> RuleSpec {
        let path = format!("spec.egress[{at}]");
        self.rule(&path, "to", rule.to.as_deref(), rule.ports.as_deref())
    }

    /// A list that is empty is as one that is missing.
    fn rule(
        &mut self,
        path: &str,
        field: &str,
        peers: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
    ) -> RuleSpec {
        let peers = peers.filter(|peers| !peers.is_empty()).map(|peers| {
            let each = peers.iter().enumerate();
            each.filter_map(|(at, peer)| self.peer(&format!("{path}.{field}[{at}]"), peer)).collect()
        });
        let ports = ports.filter(|ports| !ports.is_empty()).map(|ports| {
            let each = ports.iter().enumerate();
            each.filter_map(|(at, given)| port(&format!("{path}.ports[{at}]"), given, self.complaints))
                .collect()
        });
        RuleSpec { action: Action::Accept, peers, ports }
    }

    fn peer(&mut self, path: &str, peer: &NetworkPolicyPeer) -> Option<PeerSpec> {
        let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
        if let Some(given) = ip_block {
            if namespace_selector.is_some() || pod_selector.is_some() {
                self.complaints.fault(path, "must not have selectors beside ipBlock; write two peers");
            }
            return block(&format!("{path}.ipBlock"), given, self.complaints).map(PeerSpec::Block);
        }
        if namespace_selector.is_none() && pod_selector.is_none() {
            self.complaints.fault(path, "must have podSelector, namespaceSelector or ipBlock");
            return None;
        }
        let namespaces = match namespace_selector {
            Some(selector) => {
                let path = format!("{path}.namespaceSelector");
                Namespaces::Labelled(Selector::read(selector, &path, self.complaints))
            }
            None => Namespaces::Named(self.namespace.to_owned()),
        };
        let pods = pod_selector.clone().unwrap_or_default();
        let pods = Selector::read(&pods, &format!("{path}.podSelector"), self.complaints);
        Some(PeerSpec::Pods(PodSelector { namespaces, pods }))
    }
}

fn port(path: &str, given: &NetworkPolicyPort, complaints: &mut Complaints) -> Option<PortSpec> {
    let text = given.protocol.as_deref().unwrap_or("TCP");
    let Some(protocol) = Protocol::by_name(text).map(Protocol::number) else {
        complaints.fault(format!("{path}.protocol"), format!("{text:?} must be TCP, UDP or SCTP"));
        return None;
    };
    let number = |field: &str, number: i32, complaints: &mut Complaints| {
        let valid = u16::try_from(number).ok().filter(|number| *number > 0);
        if valid.is_none() {
            complaints.fault(format!("{path}.{field}"), format!("{number} is not between 1 and 65535"));
        }
        valid
    };
    let end = given.end_port;
    match &given.port {
        None if end.is_some() => {
            complaints.fault(format!("{path}.endPort"), "needs a port that it is the end from");
            None
        }
        None => Some(PortSpec::Protocol(protocol)),
        Some(IntOrString::String(_)) if end.is_some() => {
            complaints.fault(format!("{path}.endPort"), "needs a port that is a number, not a name");
            None
        }
        Some(IntOrString::String(name)) => Some(PortSpec::Named { protocol, name: name.clone() }),
        Some(IntOrString::Int(first)) => {
            let first = number("port", *first, complaints)?;
            let last = end.map_or(Some(first), |end| number("endPort", end, complaints))?;
            if last < first {
                complaints
                    .fault(format!("{path}.endPort"), format!("{last} is below port, which is {first}"));
            }
            Some(PortSpec::Range { protocol, first, last })
        }
    }
}

fn block(path: &str, given: &IPBlock, complaints: &mut Complaints) -> Option<Block> {
    let whole = net(&format!("{path}.cidr"), &given.cidr, complaints)?;
    let mut except = Vec::new();
    for (at, text) in given.except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{at}]");
        let Some(hole) = net(&path, text, complaints) else { continue };
        if !whole.contains(&hole) || hole == whole {
            complaints.fault(path, format!("{hole} must be a part of {whole}, and not all of it"));
        }
        except.push(hole);
    }
    Some(Block { net: whole, except })
}

/// A prefix, whose bits behind its length say nothing.
pub(super) fn net(path: &str, text: &str, complaints: &mut Complaints) -> Option<IpNet> {
    let Ok(net) = text.parse::<IpNet>() else {
        let message = match text.parse::<IpAddr>() {
            Ok(address) => format!("{address} needs a length; write {}", IpNet::from(address)),
            Err(_) => format!("{text:?} is no prefix, as 192.0.2.0/24"),
        };
        complaints.fault(path, message);
        return None;
    };
    if net != net.trunc() {
        complaints.warn(path, format!("{net} has bits behind its length; it is taken for {}", net.trunc()));
    }
    Some(net.trunc())
}
