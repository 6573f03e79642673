//! Addresses for load balancers, as MetalLB gives them out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use manifest::IPAddressPool;

use super::Complaints;
use super::spec::Spec;
use super::words::{Family, Stack};
use crate::cluster::Labels;

/// Addresses of one pool that are looked at for one that is free.
const MOST_TRIED: usize = 65_536;

/// Addresses to give out.
#[derive(Clone, PartialEq, Debug)]
pub struct AddressPool {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// First and last addresses.
    pub ranges: Vec<(IpAddr, IpAddr)>,
    auto: bool,
    avoids_ends: bool,
    /// Whether only some Services may have its addresses, and which pool of those comes first.
    pinned: Option<u32>,
    namespaces: Vec<String>,
    namespace_selectors: Vec<LabelSelector>,
    service_selectors: Vec<LabelSelector>,
}

/// All pools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pools {
    /// In order of name.
    pub pools: Vec<AddressPool>,
    /// Labels of namespaces.
    pub namespaces: BTreeMap<String, Labels>,
}

impl AddressPool {
    /// Reads an object. What is wrong with it is added to `complaints`.
    pub fn read(object: &IPAddressPool, complaints: &mut Complaints) -> Self {
        let spec = &object.spec;
        let only = spec.service_allocation.clone();
        let priority = |n: i32| u32::try_from(n).ok().filter(|n| *n > 0).unwrap_or(u32::MAX);
        let pinned = only.as_ref().map(|only| only.priority.map_or(u32::MAX, priority));
        let only = only.unwrap_or_default();
        if spec.addresses.is_empty() {
            complaints.fault("spec.addresses", "one prefix or range at least is needed");
        }
        let mut ranges = Vec::new();
        for (index, text) in spec.addresses.iter().enumerate() {
            let path = format!("spec.addresses[{index}]");
            match range(text) {
                Ok(range) => ranges.push(range),
                Err(message) => complaints.fault(path, message),
            }
        }
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            ranges,
            auto: spec.auto_assign.unwrap_or(true),
            avoids_ends: spec.avoid_buggy_ips.unwrap_or(false),
            pinned,
            namespaces: only.namespaces,
            namespace_selectors: only.namespace_selectors,
            service_selectors: only.service_selectors,
        }
    }

    /// Whether an address is one of its own.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges
            .iter()
            .any(|(first, last)| first.is_ipv4() == address.is_ipv4() && (*first..=*last).contains(&address))
    }

    fn lowest(&self, family: Family, free: &dyn Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let ends = |address: &IpAddr| match address {
            IpAddr::V4(address) => matches!(address.octets()[3], 0 | 255),
            IpAddr::V6(_) => false,
        };
        let of_family = self.ranges.iter().filter(|(first, _)| Family::of(*first) == family);
        let all = of_family.flat_map(|(first, last)| {
            std::iter::successors(Some(*first), |address| next(*address)).take_while(move |a| a <= last)
        });
        all.filter(|address| !(self.avoids_ends && ends(address)))
            .take(MOST_TRIED)
            .find(|address| free(*address))
    }

    /// Whether a Service may have its addresses.
    fn admits(&self, spec: &Spec, namespaces: &BTreeMap<String, Labels>) -> bool {
        let none = Labels::new();
        let labels = namespaces.get(&spec.namespace).unwrap_or(&none);
        let by_namespace = self.namespaces.is_empty() && self.namespace_selectors.is_empty()
            || self.namespaces.contains(&spec.namespace)
            || self.namespace_selectors.iter().any(|selector| selects(selector, labels));
        let by_label = self.service_selectors.is_empty()
            || self.service_selectors.iter().any(|selector| selects(selector, &spec.labels));
        by_namespace && by_label
    }
}

type Refused = (String, String);

impl Pools {
    /// The pool that an address is of.
    pub fn of(&self, address: IpAddr) -> Option<&AddressPool> {
        self.pools.iter().find(|pool| pool.contains(address))
    }

    /// Addresses for a Service of these families which had others `before`; `free` says why it cannot have one.
    ///
    /// # Errors
    /// Why it gets none.
    pub(super) fn assign(
        &self,
        spec: &Spec,
        families: &[Family],
        before: &[IpAddr],
        free: &dyn Fn(IpAddr) -> Result<(), String>,
    ) -> Result<Vec<IpAddr>, Refused> {
        let asked: Vec<IpAddr> = match spec.wanted_addresses.as_slice() {
            // Addresses of a pool that stand in its status are asked for as well.
            [] => spec.ingress.iter().map(|one| one.address).filter(|a| self.of(*a).is_some()).collect(),
            wanted => wanted.to_vec(),
        };
        if !asked.is_empty() {
            return self.check(spec, families, &asked, free);
        }
        if !spec.ingress.is_empty() {
            return Ok(Vec::new());
        }
        let kept = self.check(spec, families, before, free);
        if let Ok(kept) = kept
            && !before.is_empty()
            && (kept.len() == families.len() || spec.stack != Some(Stack::RequireDual))
            && spec.wanted_pool.as_ref().is_none_or(|name| kept.iter().all(|a| self.is_of(*a, name)))
        {
            return Ok(kept);
        }
        self.choose(spec, families, free)
    }

    fn is_of(&self, address: IpAddr, name: &str) -> bool {
        self.of(address).is_some_and(|pool| pool.name == name)
    }

    fn check(
        &self,
        spec: &Spec,
        families: &[Family],
        asked: &[IpAddr],
        free: &dyn Fn(IpAddr) -> Result<(), String>,
    ) -> Result<Vec<IpAddr>, Refused> {
        let path = "spec.loadBalancerIP".to_owned();
        for address in asked {
            let Some(pool) = self.of(*address) else {
                return Err((path, format!("{address} is in no IPAddressPool: it stays without one")));
            };
            if !pool.admits(spec, &self.namespaces) {
                let message =
                    format!("{address} is of the pool {}, which is not for this Service", pool.name);
                return Err((path, message));
            }
            if !families.contains(&Family::of(*address)) {
                let message = format!("{address} is of a family that the Service does not have");
                return Err((path, message));
            }
            free(*address).map_err(|why| (path.clone(), format!("{address} {why}")))?;
        }
        Ok(asked.to_vec())
    }

    fn choose(
        &self,
        spec: &Spec,
        families: &[Family],
        free: &dyn Fn(IpAddr) -> Result<(), String>,
    ) -> Result<Vec<IpAddr>, Refused> {
        let admitted = self.pools.iter().filter(|pool| pool.admits(spec, &self.namespaces));
        let mut candidates: Vec<&AddressPool> = match &spec.wanted_pool {
            Some(name) => admitted.filter(|pool| pool.name == *name).collect(),
            None => admitted.filter(|pool| pool.auto).collect(),
        };
        candidates.sort_by_key(|pool| (pool.pinned.is_none(), pool.pinned));
        let all = families.len();
        let least = if spec.stack == Some(Stack::RequireDual) { all } else { 1 };
        let is_free = |address| free(address).is_ok();
        let of_pool = |pool: &&AddressPool| -> Vec<IpAddr> {
            families.iter().filter_map(|family| pool.lowest(*family, &is_free)).collect()
        };
        let found: Vec<Vec<IpAddr>> = candidates.iter().map(of_pool).collect();
        let whole = found.iter().find(|found| found.len() == all);
        if let Some(found) = whole.or_else(|| found.iter().find(|found| found.len() >= least)) {
            return Ok(found.clone());
        }
        let message = match (&spec.wanted_pool, candidates.is_empty()) {
            (Some(name), true) => {
                format!("there is no IPAddressPool {name:?} for this Service: it stays without an address")
            }
            (None, true) => "no IPAddressPool is for this Service: it stays without an address".to_owned(),
            (_, false) => "no address is left in the IPAddressPools for this Service".to_owned(),
        };
        Err(("spec.type".to_owned(), message))
    }
}

/// Reads `192.0.2.0/24` or `192.0.2.10-192.0.2.20`.
fn range(text: &str) -> Result<(IpAddr, IpAddr), String> {
    let wrong = || format!("{text:?} is neither a prefix nor a range as 192.0.2.10-192.0.2.20");
    match text.split_once('-') {
        None => {
            let net: IpNet = text.trim().parse().map_err(|_| wrong())?;
            Ok((net.network(), net.broadcast()))
        }
        Some((first, last)) => {
            let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
            let (first, last) = (address(first)?, address(last)?);
            match first.is_ipv4() == last.is_ipv4() && first <= last {
                true => Ok((first, last)),
                false => Err(format!("{first} is not before {last}")),
            }
        }
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(address) => u128::from(address).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}

/// Whether a selector of labels selects something with these labels.
pub(super) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|expression| {
            let value = labels.get(&expression.key);
            let among = value.is_some_and(|value| expression.values.iter().flatten().any(|v| v == value));
            match expression.operator.as_str() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
