//! Who can reach whom on which port: computed from what switches enforce, without a packet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use netstack::policy::{Policies, Question, Verdict};

use super::cluster::Keeper;
use super::spec::PortSpec;
use super::words::protocol_name;
use crate::cluster::{Cluster, Pod, Protocol};

/// A protocol that no rule names: what is let through then is what rules let through that name no ports.
const ANYTHING: u8 = 255;
/// Ports that rules name, for pods that do not say what they listen at; more make nobody wiser.
const MOST_NAMED: usize = 32;

/// One end: a pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// `NAMESPACE/NAME`.
    pub name: String,
    /// The ports that it is asked for: protocol and number, and what they are called.
    pub ports: Vec<(u8, u16, String)>,
}

/// What one pod can open to another, at one port, in one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Who opens it, by its place among the ends.
    pub from: usize,
    /// Whom it is opened to.
    pub to: usize,
    /// The port, by its place among those of the latter.
    pub port: usize,
    /// Whether the addresses are of IPv6.
    pub v6: bool,
    /// Whether it is let through.
    pub allowed: bool,
    /// Why, in words.
    pub why: String,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Matrix {
    /// The pods, in order.
    pub ends: Vec<End>,
    /// By who opens, to whom, at which port.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// Of the pods that are wanted. Each is asked for the ports that its containers name, or for `asked` if there are any;
    /// one that names none for those that rules name, and for anything else.
    pub fn of(
        cluster: &Cluster,
        keeper: &Keeper,
        asked: &[(Protocol, u16)],
        wanted: impl Fn(&Pod) -> bool,
    ) -> Self {
        let mut pods: Vec<&Pod> =
            cluster.pods.iter().filter(|pod| !pod.host_network && wanted(pod)).collect();
        pods.sort_by_key(|pod| (&pod.namespace, &pod.name));
        let policies: BTreeMap<&str, &Arc<Policies>> = cluster
            .nodes
            .iter()
            .filter_map(|node| Some((node.name.as_str(), keeper.of(&node.name)?)))
            .collect();
        let named = named_by_rules(cluster);
        let ends: Vec<End> = pods.iter().map(|pod| end(pod, asked, &named)).collect();
        let mut cells = Vec::new();
        for (from, source) in pods.iter().enumerate() {
            for (to, destination) in pods.iter().enumerate() {
                for (port, (protocol, number, _)) in ends[to].ports.iter().enumerate() {
                    for v6 in [false, true] {
                        let of =
                            |pod: &Pod| pod.addresses.iter().copied().find(|address| address.is_ipv6() == v6);
                        let Some(ends) = of(source).zip(of(destination)) else { continue };
                        let nodes = [source, destination].map(|pod| policies.get(pod.node.as_str()).copied());
                        let (allowed, why) = judge(nodes, ends, *protocol, *number);
                        cells.push(Cell { from, to, port, v6, allowed, why });
                    }
                }
            }
        }
        Self { ends, cells }
    }

    /// The ports that one pod can reach of another, in words: all of them, none, or which.
    pub fn between(&self, from: usize, to: usize) -> String {
        let begin = self.cells.partition_point(|cell| (cell.from, cell.to) < (from, to));
        let cells = self.cells[begin..].iter().take_while(|cell| (cell.from, cell.to) == (from, to));
        let mut ports: BTreeMap<usize, [Option<bool>; 2]> = BTreeMap::new();
        for cell in cells {
            ports.entry(cell.port).or_default()[usize::from(cell.v6)] = Some(cell.allowed);
        }
        let reached = ports.iter().filter_map(|(port, families)| {
            let name = self.ends.get(to)?.ports.get(*port)?.2.clone();
            match families {
                [Some(true) | None, Some(true) | None] => Some(name),
                [Some(true), Some(false)] => Some(format!("{name} (IPv4)")),
                [Some(false), Some(true)] => Some(format!("{name} (IPv6)")),
                [Some(false), Some(false) | None] | [None, Some(false)] => None,
            }
        });
        let reached: Vec<String> = reached.collect();
        let wholly = ports.values().all(|families| !families.contains(&Some(false)));
        let anything = self.ends.get(to).is_some_and(|end| end.ports.iter().any(|port| port.0 == ANYTHING));
        match reached.is_empty() {
            true => "-".to_owned(),
            false if wholly && anything => "all".to_owned(),
            false => reached.join(","),
        }
    }
}

/// Protocols and ports that some rule names; of a range its ends, of a protocol port 0.
fn named_by_rules(cluster: &Cluster) -> Vec<(u8, u16)> {
    let policies = cluster.policies.policies.values();
    let rules = policies.flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
    let ports = rules.flat_map(|rule| rule.ports.iter().flatten());
    let mut named: Vec<(u8, u16)> = ports
        .flat_map(|port| match port {
            PortSpec::Protocol(protocol) => vec![(*protocol, 0)],
            PortSpec::Range { protocol, first, last } => vec![(*protocol, *first), (*protocol, *last)],
            // A pod that names no port has none of that name.
            PortSpec::Named { .. } => Vec::new(),
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    named.truncate(MOST_NAMED);
    named
}

fn end(pod: &Pod, asked: &[(Protocol, u16)], named: &[(u8, u16)]) -> End {
    let containers = pod.spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let own = containers.filter_map(|port| {
        let protocol = Protocol::by_name(port.protocol.as_deref().unwrap_or("TCP"))?;
        Some((protocol, u16::try_from(port.container_port).ok()?))
    });
    let mut wanted: Vec<(Protocol, u16)> = if asked.is_empty() { own.collect() } else { asked.to_vec() };
    wanted.sort_unstable();
    wanted.dedup();
    let known = !wanted.is_empty();
    let own: Vec<(u8, u16)> = wanted.into_iter().map(|(protocol, port)| (protocol.number(), port)).collect();
    let shown = |(protocol, port): &(u8, u16)| match port {
        0 => (*protocol, 0, protocol_name(*protocol)),
        _ => (*protocol, *port, format!("{}/{port}", protocol_name(*protocol))),
    };
    let mut ports: Vec<(u8, u16, String)> = if known { &own[..] } else { named }.iter().map(shown).collect();
    if !known {
        ports.push((ANYTHING, 0, "other".to_owned()));
    }
    End { name: format!("{}/{}", pod.namespace, pod.name), ports }
}

/// What the nodes of both ends say: each judges its own pod.
fn judge(
    [sender, receiver]: [Option<&Arc<Policies>>; 2],
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    port: u16,
) -> (bool, String) {
    let question = Question { source, destination, protocol, port };
    let egress = sender.and_then(|policies| Some((policies, policies.judge(&question).egress?)));
    let ingress = receiver.and_then(|policies| Some((policies, policies.judge_ingress(&question)?)));
    let verdict = Verdict {
        egress: egress.map(|(_, judgement)| judgement),
        ingress: ingress.map(|(_, judgement)| judgement),
    };
    let audited = [sender, receiver].into_iter().flatten().any(|policies| policies.audits());
    let said: Vec<String> = [egress, ingress]
        .into_iter()
        .flatten()
        .map(|(policies, judgement)| policies.describe(&judgement))
        .collect();
    let why = if said.is_empty() { "no policy is about either".to_owned() } else { said.join("; ") };
    (verdict.is_allowed() || audited, why)
}
