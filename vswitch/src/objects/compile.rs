//! From objects to a cluster.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use manifest::{Invalid, Located, Object, Problem};
use netstack::addr::IpNet;

use super::Store;
use super::allocations::{Allocations, Used, overlap};
use super::host_ports::Holders;
use crate::cluster::{Cluster, Egress, PortGuards};
use crate::service::{AddressPool, Complaints, Frame};

/// What follows from all objects.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The cluster.
    pub cluster: Cluster,
    /// What is given out in it.
    pub allocations: Allocations,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Problem>,
}

/// Computes the cluster that the objects of `store` describe. `name` is its name unless a Cluster object has one. What
/// `before` says was given out stays given, as far as its holders still want it.
///
/// # Errors
/// Every fault of every object.
pub fn compile(store: &Store, before: &Allocations, name: &str) -> Result<Compiled, Invalid> {
    let mut compiler = Compiler {
        store,
        before,
        cluster: Cluster {
            name: name.to_owned(),
            mtu: super::underlay::DEFAULT_MTU,
            segments: Vec::new(),
            kept_towards: Vec::new(),
            nodes: Vec::new(),
            pods: Vec::new(),
            pod_ports: PortGuards::default(),
            hosts: Vec::new(),
            images: BTreeMap::new(),
            services: Frame::default(),
            policies: Arc::default(),
            egress: Egress::None,
            publish_addresses: Vec::new(),
        },
        pod_cidrs: Vec::new(),
        allocations: Allocations::default(),
        used: Used::default(),
        holders: HashMap::new(),
        port_holders: Holders::default(),
        prefixes: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    compiler.keep_pools();
    compiler.policies();
    compiler.underlay();
    // What follows would only be confused by prefixes that are wrong.
    if compiler.problems.is_empty() {
        compiler.nodes();
    }
    if compiler.problems.is_empty() {
        compiler.pods();
    }
    if compiler.problems.is_empty() {
        let Compiler { cluster, allocations, warnings, .. } = compiler;
        Ok(Compiled { cluster, allocations, warnings })
    } else {
        Err(Invalid::new(compiler.problems))
    }
}

pub(super) struct Compiler<'a> {
    pub(super) store: &'a Store,
    pub(super) before: &'a Allocations,
    pub(super) cluster: Cluster,
    /// From which nodes get their prefixes.
    pub(super) pod_cidrs: Vec<IpNet>,
    pub(super) allocations: Allocations,
    pub(super) used: Used,
    /// Who asked for an address, to tell whoever wants it as well.
    pub(super) holders: HashMap<IpAddr, String>,
    pub(super) port_holders: Holders,
    /// Prefixes in use, and for what.
    pub(super) prefixes: Vec<(IpNet, String)>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    pub(super) fn fault(&mut self, at: &Located, path: &str, message: impl Into<String>) {
        self.problems.push(at.problem(path, message));
    }

    pub(super) fn warn(&mut self, at: &Located, path: &str, message: impl Into<String>) {
        self.warnings.push(at.problem(path, message));
    }

    /// Nobody gets by chance what is for load balancers. What is wrong with pools is told elsewhere.
    fn keep_pools(&mut self) {
        for at in self.store.iter() {
            if let Object::IPAddressPool(pool) = &at.object {
                self.used.keep(AddressPool::read(pool, &mut Complaints::default()).ranges);
            }
        }
    }

    /// Takes an address that `holder` asks for, or says who has it.
    pub(super) fn claim(&mut self, at: &Located, path: &str, address: IpAddr, holder: &str) {
        if let Some(router) = self.router_with(address) {
            return self.fault(at, path, format!("{address} is the router's own address on {router}"));
        }
        if self.used.take(address) {
            self.holders.insert(address, holder.to_owned());
        } else {
            let other = self.holders.get(&address).map_or("another object", String::as_str);
            self.fault(at, path, format!("{address} belongs to {other} already"));
        }
    }

    /// Takes a prefix, or says what it overlaps with.
    pub(super) fn claim_prefix(&mut self, at: &Located, path: &str, prefix: IpNet, what: String) {
        match self.prefixes.iter().find(|(other, _)| overlap(*other, prefix)) {
            Some((other, of)) => {
                let message = format!("{prefix} overlaps with {other} of {of}");
                self.fault(at, path, message);
            }
            None => self.prefixes.push((prefix, what)),
        }
    }

    /// Whether a prefix is written as one and of a usable size.
    pub(super) fn sound(&mut self, at: &Located, path: &str, prefix: IpNet) -> bool {
        let (least, most) = if prefix.addr().is_ipv4() { (8, 30) } else { (16, 126) };
        let message = if prefix.trunc() != prefix {
            format!("{prefix} has bits behind its length; did you mean {}?", prefix.trunc())
        } else if !(least..=most).contains(&prefix.prefix_len()) {
            format!("{prefix} is too large or too small: a length from {least} to {most} is needed")
        } else if !unicast(prefix.addr()) {
            format!("{prefix} is no prefix of addresses that machines can have")
        } else {
            return true;
        };
        self.fault(at, path, message);
        false
    }

    fn router_with(&self, address: IpAddr) -> Option<&str> {
        let of = |gateways: &[IpNet]| gateways.iter().any(|gateway| gateway.addr() == address);
        let segment = self.cluster.segments.iter().find(|s| of(&s.gateways)).map(|s| s.name.as_str());
        segment.or_else(|| self.cluster.nodes.iter().find(|n| of(&n.gateways)).map(|n| n.name.as_str()))
    }
}

fn unicast(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(a) => a.is_link_local() || a.octets()[0] == 0 || a.octets()[0] >= 240,
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_multicast() || address.is_loopback() || address.is_unspecified())
}

/// Whether a name is a DNS label (RFC 1123): what Kubernetes allows for most, and what a host name can be.
pub(crate) fn is_label(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(good) && !name.starts_with('-') && !name.ends_with('-')
}

/// The texts of a field that Kubernetes has twice, as a list and alone for what is first in it, each with its path.
pub(super) fn both_forms(
    listed: Vec<String>,
    path: impl Fn(usize) -> String,
    single: Option<String>,
    single_path: &str,
) -> Vec<(String, String)> {
    let single =
        single.filter(|text| listed.first() != Some(text)).map(|text| (single_path.to_owned(), text));
    listed.into_iter().enumerate().map(|(index, text)| (path(index), text)).chain(single).collect()
}

/// The rule of [`is_label`], for messages.
pub(crate) const LABEL: &str = "1 to 63 lower case letters, digits and `-`, and begin and end with none";
