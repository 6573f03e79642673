//! The cluster's domain, and where its name server is asked.

use std::net::IpAddr;

use dns::DomainName;
use manifest::{ClusterSpec, Located};
use netstack::addr::IpNet;

use super::allocations::{nth, same_family};
use super::compile::{Compiler, is_label};
use crate::service::{Meaning, Names};

/// The domain when nobody names another.
const DOMAIN: &str = "cluster.local";
/// Whom the machine itself asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The most letters of a domain, so that what is beneath it still can be a name.
const MAX_DOMAIN: usize = 100;
/// Which address of a prefix the name server has when nobody says, as `kubeadm` has it.
const USUAL: u128 = 10;

impl Compiler<'_> {
    /// What names have in common. Prefixes of pods and Services are known by now.
    pub(super) fn names(&mut self, described: Option<(&Located, &ClusterSpec)>) {
        let cidrs = self.cluster.services.cidrs.clone();
        let usual = || cidrs.iter().filter_map(|cidr| usual(*cidr)).collect();
        let asked = described.and_then(|(at, spec)| Some((at, spec.dns.addresses.as_ref()?)));
        let servers = match asked {
            Some((at, addresses)) => self.servers(at, addresses, &cidrs),
            None => usual(),
        };
        let domain = described.and_then(|(at, spec)| Some((at, spec.dns_domain.as_ref()?)));
        if let Some((at, domain)) = domain
            && (domain.len() > MAX_DOMAIN || !domain.split('.').all(is_label))
        {
            let message =
                format!("{domain:?} must be a name as cluster.local, of {MAX_DOMAIN} letters at the most");
            self.fault(at, "spec.dnsDomain", message);
        }
        let domain = domain.map_or_else(|| DOMAIN.to_owned(), |(_, domain)| domain.clone());
        let prefixes = self.pod_cidrs.iter().copied().chain(cidrs).collect();
        let file = described.and_then(|(at, spec)| Some((at, spec.dns.resolv_conf.as_ref()?)));
        if let Some((at, file)) = file.filter(|(_, file)| !file.starts_with('/')) {
            self.fault(
                at,
                "spec.dns.resolvConf",
                format!("{file:?} must be a path that begins with a slash"),
            );
        }
        let resolv_conf = file.map_or_else(|| RESOLV_CONF.to_owned(), |(_, file)| file.clone());
        self.cluster.services.names = Names {
            domain,
            servers,
            prefixes,
            resolv_conf,
            stubs: described.map(|(at, spec)| self.stubs(at, spec)).unwrap_or_default(),
            records: described.map(|(at, spec)| self.records(at, spec)).unwrap_or_default(),
            log_queries: described.is_some_and(|(_, spec)| spec.dns.log_queries),
        };
    }

    /// Domains that others are asked for.
    fn stubs(&mut self, at: &Located, spec: &ClusterSpec) -> Vec<(String, Vec<IpAddr>)> {
        for (domain, servers) in &spec.dns.stub_domains {
            let path = format!("spec.dns.stubDomains.{domain}");
            if DomainName::parse(domain).is_err() {
                self.fault(at, &path, format!("{domain:?} is no domain"));
            }
            if servers.is_empty() {
                self.fault(at, &path, "one address at least is needed");
            }
        }
        spec.dns.stub_domains.clone().into_iter().collect()
    }

    /// Names that the user gives.
    fn records(&mut self, at: &Located, spec: &ClusterSpec) -> Vec<(String, Vec<Meaning>)> {
        let mut all: Vec<(String, Vec<Meaning>)> = Vec::new();
        for (index, record) in spec.dns.records.iter().enumerate() {
            let path = format!("spec.dns.records[{index}]");
            for name in [&record.name].into_iter().chain(&record.target) {
                if name.is_empty() || DomainName::parse(name).is_err() {
                    self.fault(at, &path, format!("{name:?} is no name"));
                }
            }
            if all.iter().any(|(name, _)| *name == record.name) {
                self.fault(
                    at,
                    &format!("{path}.name"),
                    "is there already; give one record all of its addresses",
                );
            }
            let addresses = record.addresses.iter().copied().map(Meaning::Address);
            let meanings: Vec<Meaning> = addresses.chain(record.target.clone().map(Meaning::Name)).collect();
            // A name that is another's is nothing else (RFC 1034 section 3.6.2).
            if meanings.is_empty() || (record.target.is_some() && meanings.len() > 1) {
                self.fault(at, &path, "needs addresses or a target, and not both");
            }
            all.push((record.name.clone(), meanings));
        }
        all
    }

    fn servers(&mut self, at: &Located, addresses: &[IpAddr], cidrs: &[IpNet]) -> Vec<IpAddr> {
        let mut servers: Vec<IpAddr> = Vec::new();
        for (index, &address) in addresses.iter().enumerate() {
            let path = format!("spec.dns.addresses[{index}]");
            if servers.iter().any(|other| same_family(*other, address)) {
                self.fault(at, &path, "there is one of this family already");
            } else if cidrs.iter().any(|cidr| is_inside(*cidr, address)) {
                servers.push(address);
            } else {
                let all: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
                let message = format!("{address} is not in {}, where Services are", all.join(" or "));
                self.fault(at, &path, message);
            }
        }
        servers
    }
}

/// The address in a prefix that is large enough.
fn usual(cidr: IpNet) -> Option<IpAddr> {
    nth(cidr, USUAL).filter(|address| is_inside(cidr, *address))
}

/// Whether an address is one that somebody in the prefix can have.
fn is_inside(cidr: IpNet, address: IpAddr) -> bool {
    cidr.contains(&address) && address != cidr.network() && (address.is_ipv6() || address != cidr.broadcast())
}
