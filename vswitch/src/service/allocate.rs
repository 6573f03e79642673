//! What Services are given: cluster IPs, ports of nodes, load balancer addresses.
//!
//! # Theory of operation
//! Addresses and ports are given out as the API server does: the lower part of each range is left to those who ask for a
//! certain one, others get theirs of the upper part as long as that lasts. Where the search begins, a hash of the name
//! says: a Service is likely to have the same address in every cluster, and the search is short however many there are.
//! Several Services at once are served in three rounds: what they ask for, what they had, what they still need. So nobody
//! gets by chance what somebody else asks for in the same manifest.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rpds::HashTrieMapSync as Map;

use super::given::{Allocation, Frame, Names, NodePort, Planned};
use super::pool::Pools;
use super::spec::Spec;
use super::words::{Family, Kind, Stack};
use super::{Complaints, search};
use crate::cluster::Protocol;
use crate::objects::nth;

/// Who shares a load balancer's address, and on what terms.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Sharer {
    pub(super) holder: Arc<str>,
    pub(super) spec: Arc<Spec>,
}

/// Everything that was given out. A clone costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Book {
    cluster_ips: Map<IpAddr, Arc<str>>,
    node_ports: Map<u16, Arc<str>>,
    balanced: Map<IpAddr, Arc<[Sharer]>>,
    frontends: Map<(IpAddr, Protocol, u16), Arc<str>>,
}

/// A Service that is being planned.
#[derive(Debug)]
pub struct Draft {
    spec: Arc<Spec>,
    name: Arc<str>,
    /// What it had, now or in an earlier life.
    before: Allocation,
    /// As it stands in the cluster.
    standing: Option<Arc<Planned>>,
    families: Vec<Family>,
    given: Allocation,
    /// What is wrong with it.
    pub complaints: Complaints,
}

/// What else allocation looks at.
pub struct Surroundings<'a> {
    /// What Services have in common.
    pub frame: &'a Frame,
    /// Where load balancer addresses come from.
    pub pools: &'a Pools,
    /// Whether an address is a node's, a pod's, a host's or a router's.
    pub in_use: &'a dyn Fn(IpAddr) -> bool,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("frame", self.frame).finish_non_exhaustive()
    }
}

impl Draft {
    /// Of a Service that is `standing` now, or had `before` in an earlier life.
    pub fn new(
        spec: Spec,
        standing: Option<Arc<Planned>>,
        before: Option<&Allocation>,
        complaints: Complaints,
    ) -> Self {
        let had = standing.as_ref().map(|planned| &planned.allocation).or(before);
        Self {
            name: spec.full_name().into(),
            spec: Arc::new(spec),
            before: had.cloned().unwrap_or_default(),
            standing,
            families: Vec::new(),
            given: Allocation::default(),
            complaints,
        }
    }
}

impl Book {
    /// Takes back what a Service had.
    pub fn release(&mut self, planned: &Planned) {
        let Planned { spec, allocation, .. } = planned;
        let name = spec.full_name();
        for address in &allocation.cluster_ips {
            self.cluster_ips.remove_mut(address);
        }
        for port in node_ports(allocation) {
            self.node_ports.remove_mut(&port);
        }
        for address in &allocation.load_balancer {
            let left = self.balanced.get(address).into_iter().flat_map(|all| all.iter());
            let left: Arc<[Sharer]> = left.filter(|sharer| *sharer.holder != *name).cloned().collect();
            match left.is_empty() {
                true => self.balanced.remove_mut(address),
                false => {
                    self.balanced.insert_mut(*address, left);
                    true
                }
            };
        }
        for frontend in frontends(spec, allocation) {
            if self.frontends.get(&frontend).is_some_and(|holder| **holder == *name) {
                self.frontends.remove_mut(&frontend);
            }
        }
    }

    /// Gives all of them what they need, after what they have was taken back. Each that has faults is to be refused.
    pub fn plan(&mut self, drafts: &mut [Draft], around: &Surroundings<'_>) {
        for draft in drafts.iter_mut() {
            self.families(draft, around.frame);
            self.claim(draft, around.frame);
        }
        for draft in drafts.iter_mut() {
            self.remember(draft, around.frame);
        }
        for draft in drafts.iter_mut() {
            self.settle(draft, around.frame);
        }
        // Whoever asks for a certain address before those who take any.
        for asks in [true, false] {
            let of_turn = drafts.iter_mut().filter(|draft| draft.spec.wanted_addresses.is_empty() != asks);
            for draft in of_turn {
                self.balance(draft, around);
            }
        }
        for draft in drafts.iter_mut() {
            self.take_frontends(draft);
        }
    }

    /// The families that a Service has.
    fn families(&self, draft: &mut Draft, frame: &Frame) {
        let Draft { spec, complaints, .. } = draft;
        if spec.kind == Kind::ExternalName {
            return;
        }
        let configured: Vec<Family> = frame.cidrs.iter().map(|cidr| Family::of(cidr.addr())).collect();
        let asked = spec.families.iter().copied().chain(spec.cluster_ips.iter().map(|a| Family::of(*a)));
        let mut families: Vec<Family> = Vec::new();
        asked.for_each(|family| push_new(&mut families, family));
        for (address, family) in spec.cluster_ips.iter().zip(&spec.families) {
            if Family::of(*address) != *family {
                let message = format!("{address} is in the place of an {} address", family.name());
                complaints.fault("spec.clusterIPs", message);
            }
        }
        if let Some(family) = families.iter().find(|family| !configured.contains(family)) {
            let message =
                format!("the cluster has no {} Services; add a prefix to serviceCIDRs", family.name());
            complaints.fault("spec.ipFamilies", message);
        }
        let before = draft.before.cluster_ips.first().map(|address| Family::of(*address));
        let first = families.first().copied().or(before.filter(|family| configured.contains(family)));
        let Some(first) = first.or(configured.first().copied()) else {
            return complaints.fault("spec", "the cluster has no Services: its serviceCIDRs are empty");
        };
        push_new(&mut families, first);
        let dual = match spec.stack {
            Some(Stack::Single) if families.len() > 1 => {
                complaints
                    .fault("spec.ipFamilyPolicy", "SingleStack goes with one family; two are asked for");
                false
            }
            Some(Stack::RequireDual) if configured.len() < 2 => {
                let message = "the cluster has Services of one family only; add a prefix to serviceCIDRs";
                complaints.fault("spec.ipFamilyPolicy", message);
                false
            }
            Some(Stack::PreferDual | Stack::RequireDual) => true,
            Some(Stack::Single) | None => false,
        };
        if dual {
            configured.into_iter().for_each(|family| push_new(&mut families, family));
        }
        draft.families = families;
    }

    /// Takes what a Service asks for.
    fn claim(&mut self, draft: &mut Draft, frame: &Frame) {
        if *draft.name == *search::NAME_SERVER && !frame.names.servers.is_empty() {
            let message = "is the cluster's own name server; `dns: {addresses: []}` in the Cluster has none";
            draft.complaints.fault("metadata.name", message);
        }
        let standing = draft.standing.as_ref().filter(|planned| planned.spec.kind != Kind::ExternalName);
        if let Some(standing) = standing.filter(|_| draft.spec.kind != Kind::ExternalName) {
            let was = standing.allocation.cluster_ips.first();
            let is = draft.spec.cluster_ips.first();
            let changed = is.is_some_and(|is| Some(is) != was) || (draft.spec.headless && was.is_some());
            if changed {
                let was = was.map_or_else(|| "None".to_owned(), ToString::to_string);
                let message = format!("is {was} and cannot change; delete the Service first");
                draft.complaints.fault("spec.clusterIP", message);
            }
        }
        for address in draft.spec.cluster_ips.clone() {
            if let Err(message) = self.claim_address(draft, address, frame) {
                draft.complaints.fault("spec.clusterIP", message);
            }
        }
        for index in 0..draft.spec.ports.len() {
            let port = &draft.spec.ports[index];
            let Some(number) = port.node_port else { continue };
            let (protocol, own) = (port.protocol.number(), port.port);
            match self.claim_node_port(draft, number, frame) {
                Ok(()) => {
                    draft.given.node_ports.push(NodePort { protocol, port: own, node_port: number });
                }
                Err(message) => draft.complaints.fault(format!("spec.ports[{index}].nodePort"), message),
            }
        }
        if let Some(number) = draft.spec.health_check_port {
            match self.claim_node_port(draft, number, frame) {
                Ok(()) => draft.given.health_check_port = Some(number),
                Err(message) => draft.complaints.fault("spec.healthCheckNodePort", message),
            }
        }
    }

    fn claim_address(&mut self, draft: &mut Draft, address: IpAddr, frame: &Frame) -> Result<(), String> {
        let Some(cidr) = frame.cidrs.iter().find(|cidr| cidr.contains(&address)) else {
            let all: Vec<String> = frame.cidrs.iter().map(ToString::to_string).collect();
            return Err(format!("{address} is not in {}, where Services are", all.join(" or ")));
        };
        if !search::is_usable(*cidr, address) {
            return Err(format!("{address} is the first or last of {cidr}, which nobody can have"));
        }
        let (first, holder) = search::RESERVED[0];
        if nth(*cidr, first) == Some(address) && *draft.name != *holder {
            return Err(format!("{address} is kept for the Service {holder}"));
        }
        if frame.names.servers.contains(&address) {
            let other = "give it others, or none, by `dns.addresses` of the Cluster";
            return Err(format!("{address} belongs to the cluster's name server; {other}"));
        }
        if let Some(holder) = self.cluster_ips.get(&address) {
            return Err(format!("{address} belongs to the Service {holder} already"));
        }
        self.cluster_ips.insert_mut(address, Arc::clone(&draft.name));
        draft.given.cluster_ips.push(address);
        Ok(())
    }

    /// One Service may have a port several times, with several protocols.
    fn claim_node_port(&mut self, draft: &Draft, number: u16, frame: &Frame) -> Result<(), String> {
        if !(frame.node_ports.first..=frame.node_ports.last).contains(&number) {
            return Err(format!("{number} is not in {}, the ports of nodes", frame.node_ports));
        }
        match self.node_ports.get(&number) {
            Some(holder) if *holder != draft.name => {
                Err(format!("{number} belongs to the Service {holder} already"))
            }
            Some(_) | None => {
                self.node_ports.insert_mut(number, Arc::clone(&draft.name));
                Ok(())
            }
        }
    }

    /// Takes back what a Service had, as far as it still wants it and it is free.
    fn remember(&mut self, draft: &mut Draft, frame: &Frame) {
        for address in draft.before.cluster_ips.clone() {
            if wants_address(draft, Family::of(address)) {
                let _ = self.claim_address(draft, address, frame);
            }
        }
        let wants = draft.spec.wants_node_ports();
        let before = draft.before.node_ports.clone();
        for one in before.into_iter().filter(|_| wants) {
            let wanted = |port: &super::Port| (port.protocol.number(), port.port) == (one.protocol, one.port);
            let has = draft.given.node_ports.iter().any(|o| (o.protocol, o.port) == (one.protocol, one.port));
            if draft.spec.ports.iter().any(wanted)
                && !has
                && self.claim_node_port(draft, one.node_port, frame).is_ok()
            {
                draft.given.node_ports.push(one);
            }
        }
        if let Some(port) = draft.before.health_check_port
            && draft.spec.wants_health_check()
            && draft.given.health_check_port.is_none()
            && self.claim_node_port(draft, port, frame).is_ok()
        {
            draft.given.health_check_port = Some(port);
        }
    }

    /// Gives a Service what it has not yet.
    fn settle(&mut self, draft: &mut Draft, frame: &Frame) {
        for family in draft.families.clone() {
            if !wants_address(draft, family) {
                continue;
            }
            let cidr = frame.cidrs.iter().find(|cidr| Family::of(cidr.addr()) == family);
            let free = cidr.and_then(|cidr| self.free_address(*cidr, &draft.name, &frame.names));
            match (free, cidr) {
                (Some(address), _) => {
                    self.cluster_ips.insert_mut(address, Arc::clone(&draft.name));
                    draft.given.cluster_ips.push(address);
                }
                (None, Some(cidr)) => {
                    let message = format!("no address of {cidr} is left; enlarge the Cluster's serviceCIDRs");
                    draft.complaints.fault("", message);
                }
                // Told already.
                (None, None) => {}
            }
        }
        let order = draft.families.clone();
        let place = |address: &IpAddr| order.iter().position(|family| *family == Family::of(*address));
        draft.given.cluster_ips.sort_by_key(place);
        if draft.spec.wants_node_ports() {
            for index in 0..draft.spec.ports.len() {
                self.settle_node_port(draft, index, frame);
            }
        }
        if draft.spec.wants_health_check() && draft.given.health_check_port.is_none() {
            draft.given.health_check_port = self.free_node_port(draft, "health check", frame);
        }
    }

    fn settle_node_port(&mut self, draft: &mut Draft, index: usize, frame: &Frame) {
        let port = &draft.spec.ports[index];
        let (protocol, number) = (port.protocol.number(), port.port);
        if draft.given.node_port(port.protocol, number).is_some() {
            return;
        }
        // The same port with another protocol has the same port of the nodes.
        let twin = draft.given.node_ports.iter().find(|other| other.port == number).map(|o| o.node_port);
        let free = twin.or_else(|| self.free_node_port(draft, &number.to_string(), frame));
        draft.given.node_ports.extend(free.map(|node_port| NodePort { protocol, port: number, node_port }));
    }

    fn free_address(&self, cidr: IpNet, name: &str, names: &Names) -> Option<IpAddr> {
        let free =
            |address: &IpAddr| !self.cluster_ips.contains_key(address) && !names.servers.contains(address);
        search::addresses(cidr, name, self.cluster_ips.size()).find(free)
    }

    fn free_node_port(&mut self, draft: &mut Draft, what: &str, frame: &Frame) -> Option<u16> {
        let free = |port: &u16| !self.node_ports.contains_key(port);
        let found = search::ports(frame.node_ports, &draft.name, what).find(free);
        match found {
            Some(port) => {
                self.node_ports.insert_mut(port, Arc::clone(&draft.name));
            }
            None => {
                let message =
                    format!("no port of {} is left; enlarge the Cluster's nodePortRange", frame.node_ports);
                draft.complaints.fault("", message);
            }
        }
        found
    }

    /// Gives a load balancer its addresses.
    fn balance(&mut self, draft: &mut Draft, around: &Surroundings<'_>) {
        if draft.spec.kind != Kind::LoadBalancer || draft.spec.class.is_some() || draft.spec.not_ours {
            return;
        }
        let balanced = &self.balanced;
        let (spec, name) = (&draft.spec, &draft.name);
        let free = |address: IpAddr| match balanced.get(&address) {
            Some(sharers) => sharers.iter().try_for_each(|sharer| may_share(spec, sharer)),
            None if (around.in_use)(address) => {
                Err("belongs to a node, a pod, a host or a router".to_owned())
            }
            None => Ok(()),
        };
        match around.pools.assign(spec, &draft.families, &draft.before.load_balancer, &free) {
            Ok(addresses) => {
                for address in &addresses {
                    let others = self.balanced.get(address).into_iter().flat_map(|all| all.iter()).cloned();
                    let sharer = Sharer { holder: Arc::clone(name), spec: Arc::clone(spec) };
                    let all: Arc<[Sharer]> = others.chain([sharer]).collect();
                    self.balanced.insert_mut(*address, all);
                }
                draft.given.load_balancer = addresses;
            }
            Err((path, message)) => draft.complaints.warn(path, message),
        }
    }

    /// No two Services have the same port of the same address.
    fn take_frontends(&mut self, draft: &mut Draft) {
        if !draft.spec.is_proxied() {
            return;
        }
        for frontend in frontends(&draft.spec, &draft.given) {
            match self.frontends.get(&frontend) {
                Some(holder) if *holder != draft.name => {
                    let (address, protocol, port) = frontend;
                    let path = if draft.spec.external_ips.contains(&address) {
                        "spec.externalIPs"
                    } else {
                        "status.loadBalancer.ingress"
                    };
                    let message = format!(
                        "port {port}/{} of {address} belongs to the Service {holder} already",
                        protocol.name()
                    );
                    draft.complaints.fault(path, message);
                }
                Some(_) | None => {
                    self.frontends.insert_mut(frontend, Arc::clone(&draft.name));
                }
            }
        }
    }
}

impl From<Draft> for Planned {
    fn from(draft: Draft) -> Self {
        let spec = Arc::unwrap_or_clone(draft.spec);
        Self { spec, families: draft.families, allocation: draft.given }
    }
}

fn wants_address(draft: &Draft, family: Family) -> bool {
    draft.spec.kind != Kind::ExternalName
        && !draft.spec.headless
        && draft.families.contains(&family)
        && !draft.given.cluster_ips.iter().any(|address| Family::of(*address) == family)
}

fn push_new(families: &mut Vec<Family>, family: Family) {
    if !families.contains(&family) {
        families.push(family);
    }
}

fn node_ports(allocation: &Allocation) -> impl Iterator<Item = u16> + '_ {
    allocation.node_ports.iter().map(|one| one.node_port).chain(allocation.health_check_port)
}

/// Every port of every address of a Service, those of nodes aside.
fn frontends<'a>(
    spec: &'a Spec,
    allocation: &'a Allocation,
) -> impl Iterator<Item = (IpAddr, Protocol, u16)> + 'a {
    let foreign = spec.ingress.iter().filter(|one| !one.proxied).map(|one| one.address);
    let mut addresses: Vec<IpAddr> = allocation.cluster_ips.clone();
    addresses.extend(
        allocation.load_balancer.iter().copied().chain(foreign).chain(spec.external_ips.iter().copied()),
    );
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().flat_map(|address| spec.ports.iter().map(move |p| (address, p.protocol, p.port)))
}

/// Whether a Service may have an address that another has, or why not.
fn may_share(spec: &Spec, sharer: &Sharer) -> Result<(), String> {
    let other = &sharer.spec;
    let clash = spec.ports.iter().find(|port| {
        other.ports.iter().any(|theirs| (theirs.protocol, theirs.port) == (port.protocol, port.port))
    });
    let holder = &sharer.holder;
    if spec.sharing.is_none() || spec.sharing != other.sharing {
        Err(format!(
            "belongs to the Service {holder}; give both the same annotation metallb.io/allow-shared-ip"
        ))
    } else if let Some(port) = clash {
        Err(format!("has its port {}/{} with the Service {holder}", port.port, port.protocol.name()))
    } else if spec.external_local != other.external_local
        || (spec.external_local && spec.selector != other.selector)
    {
        Err(format!(
            "is shared with the Service {holder}, whose externalTrafficPolicy does not go with this one's"
        ))
    } else {
        Ok(())
    }
}
