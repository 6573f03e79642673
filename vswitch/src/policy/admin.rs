//! From a `ClusterNetworkPolicy` to what it says.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use manifest::{
    ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, NamespacedPods, PolicyAction,
    PolicyDestination, PolicyPort, PolicyPortRange, PolicyPorts, PolicyProtocol, PolicySubject, PolicyTier,
};
use netstack::policy::{Action, Block};

use super::read::net;
use super::selector::Selector;
use super::spec::{Namespaces, PeerSpec, PodSelector, PolicySpec, PortSpec, RuleSpec, Tier};
use crate::cluster::Protocol;
use crate::service::Complaints;

/// What a priority may be.
const PRIORITIES: std::ops::RangeInclusive<i32> = 0..=1000;
/// The most rules in a direction, and the most peers, prefixes and protocols in a rule.
const MOST: usize = 25;

impl PolicySpec {
    /// Reads such an object of this name. What is wrong with it is added to `complaints`.
    pub fn read_cluster(object: &ClusterNetworkPolicy, name: &str, complaints: &mut Complaints) -> Self {
        let spec = &object.spec;
        if !PRIORITIES.contains(&spec.priority) {
            complaints.fault("spec.priority", format!("{} is not between 0 and 1000", spec.priority));
        }
        let mut reader = Reader { complaints };
        let subject = reader.subject("spec.subject", &spec.subject);
        reader.count("spec.ingress", spec.ingress.len(), 0);
        reader.count("spec.egress", spec.egress.len(), 0);
        let ingress: Vec<RuleSpec> =
            spec.ingress.iter().enumerate().map(|(at, rule)| reader.ingress(at, rule)).collect();
        let egress: Vec<RuleSpec> =
            spec.egress.iter().enumerate().map(|(at, rule)| reader.egress(at, rule)).collect();
        Self {
            namespace: None,
            name: name.to_owned(),
            tier: match spec.tier {
                PolicyTier::Admin => Tier::Admin,
                PolicyTier::Baseline => Tier::Baseline,
            },
            priority: spec.priority,
            // Only of one that is wrong, and so refused.
            subject: subject.unwrap_or_else(|| all_of(Selector::default())),
            ingress: (!ingress.is_empty()).then_some(ingress),
            egress: (!egress.is_empty()).then_some(egress),
        }
    }
}

fn all_of(namespaces: Selector) -> PodSelector {
    PodSelector { namespaces: Namespaces::Labelled(namespaces), pods: Selector::default() }
}

struct Reader<'a> {
    complaints: &'a mut Complaints,
}

impl Reader<'_> {
    fn count(&mut self, path: &str, count: usize, least: usize) {
        if count > MOST || count < least {
            self.complaints.fault(path, format!("has {count}; from {least} to {MOST} are allowed"));
        }
    }

    /// Whether exactly one of some fields is there.
    fn one(&mut self, path: &str, there: &[bool], fields: &str) -> bool {
        let one = there.iter().filter(|there| **there).count() == 1;
        if !one {
            self.complaints.fault(path, format!("must have exactly one of {fields}"));
        }
        one
    }

    fn selector(&mut self, path: &str, selector: &LabelSelector) -> Selector {
        Selector::read(selector, path, self.complaints)
    }

    fn pods(&mut self, path: &str, pods: &NamespacedPods) -> PodSelector {
        let namespaces = self.selector(&format!("{path}.namespaceSelector"), &pods.namespace_selector);
        let pods = self.selector(&format!("{path}.podSelector"), &pods.pod_selector);
        PodSelector { namespaces: Namespaces::Labelled(namespaces), pods }
    }

    fn subject(&mut self, path: &str, subject: &PolicySubject) -> Option<PodSelector> {
        let PolicySubject { namespaces, pods } = subject;
        if !self.one(path, &[namespaces.is_some(), pods.is_some()], "namespaces and pods") {
            return None;
        }
        let of_namespaces = namespaces
            .as_ref()
            .map(|selector| all_of(self.selector(&format!("{path}.namespaces"), selector)));
        of_namespaces.or_else(|| Some(self.pods(&format!("{path}.pods"), pods.as_ref()?)))
    }

    fn ingress(&mut self, at: usize, rule: &ClusterIngressRule) -> RuleSpec {
        let path = format!("spec.ingress[{at}]");
        self.count(&format!("{path}.from"), rule.from.len(), 1);
        let each = rule.from.iter().enumerate();
        let peers = each.filter_map(|(at, peer)| self.subject(&format!("{path}.from[{at}]"), peer));
        let peers: Vec<PeerSpec> = peers.map(PeerSpec::Pods).collect();
        let ports = self.ports(&path, &rule.protocols);
        RuleSpec { action: action(rule.action), peers: Some(peers), ports }
    }

    fn egress(&mut self, at: usize, rule: &ClusterEgressRule) -> RuleSpec {
        let path = format!("spec.egress[{at}]");
        self.count(&format!("{path}.to"), rule.to.len(), 1);
        let each = rule.to.iter().enumerate();
        let peers: Vec<PeerSpec> =
            each.flat_map(|(at, peer)| self.destination(&format!("{path}.to[{at}]"), peer)).collect();
        let ports = self.ports(&path, &rule.protocols);
        RuleSpec { action: action(rule.action), peers: Some(peers), ports }
    }

    fn destination(&mut self, path: &str, peer: &PolicyDestination) -> Vec<PeerSpec> {
        let PolicyDestination { namespaces, pods, nodes, networks, domain_names } = peer;
        let there = [
            namespaces.is_some(),
            pods.is_some(),
            nodes.is_some(),
            networks.is_some(),
            domain_names.is_some(),
        ];
        if !self.one(path, &there, "namespaces, pods, nodes, networks and domainNames") {
            return Vec::new();
        }
        if domain_names.is_some() {
            // Whoever reads past it would let less or more through than is written.
            self.complaints.fault(format!("{path}.domainNames"), "is not supported: name the networks");
        }
        if let Some(selector) = nodes {
            return vec![PeerSpec::Nodes(self.selector(&format!("{path}.nodes"), selector))];
        }
        if let Some(networks) = networks {
            self.count(&format!("{path}.networks"), networks.len(), 1);
            let each = networks.iter().enumerate();
            let nets =
                each.filter_map(|(at, text)| net(&format!("{path}.networks[{at}]"), text, self.complaints));
            return nets.map(|net| PeerSpec::Block(Block { net, except: Vec::new() })).collect();
        }
        let subject = PolicySubject { namespaces: namespaces.clone(), pods: pods.clone() };
        let is_pods = subject != PolicySubject::default();
        let pods = if is_pods { self.subject(path, &subject) } else { None };
        pods.map(PeerSpec::Pods).into_iter().collect()
    }

    fn ports(&mut self, path: &str, protocols: &[PolicyProtocol]) -> Option<Vec<PortSpec>> {
        self.count(&format!("{path}.protocols"), protocols.len(), 0);
        let each = protocols.iter().enumerate();
        let ports: Vec<PortSpec> =
            each.flat_map(|(at, given)| self.protocol(&format!("{path}.protocols[{at}]"), given)).collect();
        (!protocols.is_empty()).then_some(ports)
    }

    fn protocol(&mut self, path: &str, given: &PolicyProtocol) -> Vec<PortSpec> {
        let PolicyProtocol { tcp, udp, sctp, destination_named_port } = given;
        let there = [tcp.is_some(), udp.is_some(), sctp.is_some(), destination_named_port.is_some()];
        if !self.one(path, &there, "tcp, udp, sctp and destinationNamedPort") {
            return Vec::new();
        }
        let all = [(Protocol::Tcp, "tcp", tcp), (Protocol::Udp, "udp", udp), (Protocol::Sctp, "sctp", sctp)];
        if let Some(name) = destination_named_port {
            let named = |(protocol, ..): (Protocol, _, _)| PortSpec::Named {
                protocol: protocol.number(),
                name: name.clone(),
            };
            return all.map(named).into();
        }
        let given =
            all.into_iter().filter_map(|(protocol, field, ports)| Some((protocol, field, ports.as_ref()?)));
        given
            .filter_map(|(protocol, field, ports)| {
                self.numbers(&format!("{path}.{field}"), protocol.number(), ports)
            })
            .collect()
    }

    fn numbers(&mut self, path: &str, protocol: u8, ports: &PolicyPorts) -> Option<PortSpec> {
        let Some(PolicyPort { number, range }) = &ports.destination_port else {
            return Some(PortSpec::Protocol(protocol));
        };
        let path = format!("{path}.destinationPort");
        if !self.one(&path, &[number.is_some(), range.is_some()], "number and range") {
            return None;
        }
        let (start, end) = match (number, range) {
            (Some(number), _) => (*number, *number),
            (None, Some(PolicyPortRange { start, end })) => (*start, *end),
            (None, None) => return None,
        };
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(first), Ok(last)) if first > 0 && first <= last => {
                Some(PortSpec::Range { protocol, first, last })
            }
            (Ok(_) | Err(_), Ok(_) | Err(_)) => {
                self.complaints.fault(path, "must be between 1 and 65535, and the end not below the start");
                None
            }
        }
    }
}

const fn action(action: PolicyAction) -> Action {
    match action {
        PolicyAction::Accept => Action::Accept,
        PolicyAction::Deny => Action::Deny,
        PolicyAction::Pass => Action::Pass,
    }
}
