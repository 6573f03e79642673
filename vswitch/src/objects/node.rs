//! Nodes: their prefixes and their place on the underlay.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node as NodeObject;
use manifest::{Located, Object, ProxyMode};
use netstack::addr::IpNet;

use super::allocations::{Allocation, free_part, gateway, overlap, same_family};
use super::compile::{Compiler, LABEL, both_forms, is_label};
use crate::cluster::{Labels, Node, UNDERLAY, proxy_address};

/// The node that there is when no object describes one.
const ONLY_NODE: &str = "node-1";
/// Lengths of the part that a node gets of the cluster's prefixes, as in `kind`.
const NODE_LENGTHS: (u8, u8) = (24, 64);

/// A node as far as its object says.
struct Draft<'a> {
    at: Option<&'a Located>,
    name: String,
    labels: Labels,
    pod_cidrs: Vec<IpNet>,
    segment: Option<String>,
    addresses: Vec<IpAddr>,
}

impl<'a> Compiler<'a> {
    /// Reads all nodes: first what they ask for, then what they had, then what they still need.
    pub(super) fn nodes(&mut self) {
        let objects =
            self.store.of(|object| if let Object::Node(node) = object { Some(&**node) } else { None });
        let objects: Vec<(&'a Located, &'a NodeObject)> = objects.collect();
        let mut drafts: Vec<Draft<'a>> =
            objects.into_iter().map(|(at, node)| self.node_draft(at, node)).collect();
        if drafts.is_empty() {
            let (name, labels) = (ONLY_NODE.to_owned(), Labels::new());
            drafts.push(Draft {
                at: None,
                name,
                labels,
                pod_cidrs: Vec::new(),
                segment: None,
                addresses: Vec::new(),
            });
        }
        for draft in &mut drafts {
            self.remember(draft);
        }
        for draft in drafts {
            self.settle(draft);
        }
    }

    fn node_draft(&mut self, at: &'a Located, node: &NodeObject) -> Draft<'a> {
        let name = node.metadata.name.clone().unwrap_or_default();
        if !is_label(&name) {
            self.fault(at, "metadata.name", format!("a node's name must be {LABEL}"));
        }
        if name == UNDERLAY {
            let message = format!("`{UNDERLAY}` is the name of the switch between the nodes; take another");
            self.fault(at, "metadata.name", message);
        }
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let mut draft =
            Draft { at: Some(at), name, labels, pod_cidrs: Vec::new(), segment: None, addresses: Vec::new() };
        let spec = node.spec.clone().unwrap_or_default();
        let listed = spec.pod_cidrs.unwrap_or_default();
        let all = both_forms(listed, |n| format!("spec.podCIDRs[{n}]"), spec.pod_cidr, "spec.podCIDR");
        for (path, text) in all {
            self.pod_cidr(at, &path, &text, &mut draft);
        }
        let status = node.status.as_ref().and_then(|status| status.addresses.as_ref());
        for (index, address) in status.into_iter().flatten().enumerate() {
            if address.type_ == "InternalIP" {
                let path = format!("status.addresses[{index}].address");
                self.internal_ip(at, &path, &address.address, &mut draft);
            }
        }
        draft
    }

    fn pod_cidr(&mut self, at: &Located, path: &str, text: &str, draft: &mut Draft<'_>) {
        let Ok(cidr) = text.parse::<IpNet>() else {
            return self.fault(
                at,
                path,
                format!("{text:?} is no prefix; write it as 10.244.0.0/24 or fd00:10:244::/64"),
            );
        };
        if !self.sound(at, path, cidr) {
            return;
        }
        if draft.pod_cidrs.iter().any(|other| same_family(other.addr(), cidr.addr())) {
            return self.fault(at, path, "there is one of this family already");
        }
        self.claim_prefix(at, path, cidr, format!("the node {}", draft.name));
        draft.pod_cidrs.push(cidr);
    }

    fn internal_ip(&mut self, at: &Located, path: &str, text: &str, draft: &mut Draft<'_>) {
        let Ok(address) = text.parse::<IpAddr>() else {
            return self.fault(at, path, format!("{text:?} is no address"));
        };
        if draft.addresses.iter().any(|other| same_family(*other, address)) {
            return self.fault(at, path, "there is one of this family already");
        }
        self.on_segment(at, path, address, &mut draft.segment);
        self.claim(at, path, address, &format!("the node {}", draft.name));
        draft.addresses.push(address);
    }

    /// Takes back what the node had before, where that is still free and it asks for nothing else.
    fn remember(&mut self, draft: &mut Draft<'_>) {
        let Some(before) = self.before.nodes.get(&draft.name) else { return };
        for &cidr in &before.pod_cidrs {
            let inside = self.pod_cidrs.iter().any(|whole| whole.contains(&cidr));
            let asked = draft.pod_cidrs.iter().any(|c| same_family(c.addr(), cidr.addr()));
            if inside && !asked && !self.prefixes.iter().any(|(other, _)| overlap(*other, cidr)) {
                self.prefixes.push((cidr, format!("the node {}", draft.name)));
                draft.pod_cidrs.push(cidr);
            }
        }
        for &address in &before.addresses {
            let segment =
                self.cluster.segments.iter().find(|s| s.gateways.iter().any(|g| g.contains(&address)));
            let Some(segment) = segment.map(|s| s.name.clone()) else { continue };
            let fits = draft.segment.as_ref().is_none_or(|wanted| *wanted == segment);
            let asked = draft.addresses.iter().any(|a| same_family(*a, address));
            if fits && !asked && self.used.take(address) {
                draft.segment = Some(segment);
                draft.addresses.push(address);
            }
        }
    }

    /// Gives the node what it has not yet.
    fn settle(&mut self, mut draft: Draft<'a>) {
        let wholes = self.pod_cidrs.clone();
        for whole in wholes {
            if draft.pod_cidrs.iter().any(|cidr| same_family(cidr.addr(), whole.addr())) {
                continue;
            }
            let length =
                if whole.addr().is_ipv4() { NODE_LENGTHS.0 } else { NODE_LENGTHS.1 }.max(whole.prefix_len());
            let taken: Vec<IpNet> = self.prefixes.iter().map(|(net, _)| *net).collect();
            let Some(cidr) = free_part(whole, length, &taken) else {
                self.exhausted(
                    &draft,
                    format!("no /{length} of {whole} is left for its pods; enlarge the Cluster's podCIDRs"),
                );
                continue;
            };
            self.prefixes.push((cidr, format!("the node {}", draft.name)));
            draft.pod_cidrs.push(cidr);
        }
        let inner = |s: &&crate::cluster::UnderlaySegment| !s.external;
        let default = self.cluster.segments.iter().find(inner).map(|s| s.name.clone());
        let Some(segment) = draft.segment.clone().or(default) else {
            return self.exhausted(&draft, "every segment is external: none can have nodes".to_owned());
        };
        let gateways: Vec<IpNet> = self
            .cluster
            .segments
            .iter()
            .filter(|s| s.name == segment)
            .flat_map(|s| s.gateways.clone())
            .collect();
        for prefix in gateways {
            if draft.addresses.iter().any(|a| same_family(*a, prefix.addr())) {
                continue;
            }
            match self.used.lowest(prefix.trunc()) {
                Some(address) => draft.addresses.push(address),
                None => {
                    return self
                        .exhausted(&draft, format!("no address of {} is left for it", prefix.trunc()));
                }
            }
        }
        // Its pods would not be reached in a family in which it has no address itself.
        let unreachable = |cidr: &&IpNet| draft.addresses.iter().all(|a| !same_family(*a, cidr.addr()));
        if let Some(cidr) = draft.pod_cidrs.iter().find(unreachable).copied() {
            let message = format!(
                "{cidr} could not be reached: the segment {segment} has no prefix of that family; add one to it"
            );
            self.exhausted(&draft, message);
        }
        let Draft { name, labels, addresses, pod_cidrs, .. } = draft;
        let given =
            Allocation { node: String::new(), pod_cidrs: pod_cidrs.clone(), addresses: addresses.clone() };
        self.allocations.nodes.insert(name.clone(), given);
        let gateways: Vec<IpNet> = pod_cidrs.into_iter().filter_map(gateway).collect();
        let proxy = self.proxy(&name, &gateways);
        let announces = Vec::new();
        self.cluster.nodes.push(Node { name, segment, addresses, gateways, proxy, labels, announces });
    }

    /// The addresses of a node's userspace proxy, if it is to have one. Nobody else gets them.
    fn proxy(&mut self, name: &str, gateways: &[IpNet]) -> Vec<IpAddr> {
        if self.cluster.services.mode == ProxyMode::Maglev {
            return Vec::new();
        }
        let addresses: Vec<IpAddr> = gateways.iter().filter_map(|gateway| proxy_address(*gateway)).collect();
        for &address in &addresses {
            if self.used.take(address) {
                self.holders.insert(address, format!("the service proxy of {name}"));
            }
        }
        addresses
    }

    fn exhausted(&mut self, draft: &Draft<'a>, message: String) {
        let at = draft.at.or_else(|| self.store.iter().next());
        match at {
            Some(at) => self.fault(at, "", message),
            None => unreachable!("defaults leave room for one node"),
        }
    }
}
