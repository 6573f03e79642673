//! How pods reach what is outside, and what of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use manifest::{ClusterSpec, EgressMode, EgressOpening, EgressPolicySpec, Located};
use netstack::addr::IpNet;

use super::allocations::overlap;
use super::compile::Compiler;
use crate::cluster::{EGRESS_PREFIXES, Egress};
use crate::edge::{Opening, Reach};

impl Compiler<'_> {
    /// Reads how the cluster is left, or the default. Prefixes of Services are known by now.
    pub(super) fn egress(&mut self, described: Option<(&Located, &ClusterSpec)>) {
        let mode = described.and_then(|(_, spec)| spec.egress).unwrap_or_default();
        let policy = described.map(|(at, spec)| (at, &spec.egress_policy));
        self.publish_at(described, mode);
        let reach = policy.map(|(at, policy)| self.reach(at, policy)).unwrap_or_default();
        let idle = policy.filter(|_| reach != Reach::default());
        match mode {
            EgressMode::None => {
                if let Some((at, _)) = idle {
                    self.warn(at, "spec.egressPolicy", "nothing is open where `egress` is `none`");
                }
            }
            EgressMode::Kernel => {
                if let Some((at, _)) = idle {
                    let message = "the machine's own stack says what is open where `egress` is `kernel`";
                    self.warn(at, "spec.egressPolicy", message);
                }
                self.keep_for_egress(described);
                self.cluster.egress = Egress::Kernel;
            }
            EgressMode::User => {
                self.keep_for_egress(described);
                self.cluster.egress = Egress::User(reach);
            }
        }
    }

    /// Keeps the prefixes of the way out for it.
    fn keep_for_egress(&mut self, described: Option<(&Located, &ClusterSpec)>) {
        let own = EGRESS_PREFIXES.into_iter().filter(|net| self.carried(*net)).collect::<Vec<IpNet>>();
        let services = self.cluster.services.cidrs.clone();
        for (services, own) in services.iter().flat_map(|s| own.iter().map(move |own| (s, own))) {
            if let Some((at, _)) = described.filter(|_| overlap(*services, *own)) {
                let message = format!("{services} overlaps with {own} of egress; choose another prefix");
                self.fault(at, "spec.serviceCIDRs", message);
            }
        }
        self.prefixes.extend(own.into_iter().map(|net| (net, "egress".to_owned())));
    }

    /// Where ports of nodes appear on this machine.
    fn publish_at(&mut self, described: Option<(&Located, &ClusterSpec)>, mode: EgressMode) {
        const FIELD: &str = "spec.publishAddresses";
        let named = described.and_then(|(at, spec)| Some((at, spec.publish_addresses.as_ref()?)));
        let Some((at, addresses)) = named else {
            self.cluster.publish_addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return;
        };
        for (index, address) in addresses.iter().enumerate() {
            let field = format!("{FIELD}[{index}]");
            if address.is_multicast() {
                self.fault(
                    at,
                    &field,
                    format!("{address} is a group's, and no machine's; nobody can connect to it"),
                );
            }
            if addresses[..index].contains(address) {
                self.fault(at, &field, format!("{address} is there twice; take one of them out"));
            }
        }
        if mode != EgressMode::User && !addresses.is_empty() {
            self.warn(at, FIELD, "nothing is published where `egress` is not `user`");
        }
        self.cluster.publish_addresses.clone_from(addresses);
    }

    fn reach(&mut self, at: &Located, policy: &EgressPolicySpec) -> Reach {
        for (list, nets) in [("allow", &policy.allow), ("deny", &policy.deny)] {
            for (index, net) in nets.iter().enumerate().filter(|(_, net)| net.trunc() != **net) {
                let message = format!("{net} has bits behind its length; did you mean {}?", net.trunc());
                self.fault(at, &format!("spec.egressPolicy.{list}[{index}]"), message);
            }
        }
        for (index, net) in policy.allow.iter().enumerate().filter(|(_, net)| policy.deny.contains(net)) {
            let message = format!("{net} is denied as well; take it out of one of the lists");
            self.fault(at, &format!("spec.egressPolicy.allow[{index}]"), message);
        }
        let openings = policy.open.iter().map(|opening| match opening {
            EgressOpening::MachineLoopback => Opening::MachineLoopback,
            EgressOpening::Metadata => Opening::Metadata,
        });
        Reach { openings: openings.collect(), allow: policy.allow.clone(), deny: policy.deny.clone() }
    }
}
