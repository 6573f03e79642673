//! A cluster without a kernel: its switches and stations in a laboratory, everyone asking everyone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netstack::config::Snapshot;
use netstack::host::{HostConfig, HostEvent};
use netstack::parse::protocol;
use netstack::policy::Question;
use netstack::seed::Seed;
use netstack::sim::{HostId, Lab, LinkProfile};

use super::{Cluster, Endpoint, Place, PortNumbers, wire};
use crate::policy::Keeper;

/// Up to so many end stations everyone asks everyone; beyond, each asks so many others.
const EVERYONE: usize = 64;
const SOME: usize = 16;
/// Virtual time in which an answer comes, neighbours' resolution included.
const PATIENCE: Duration = Duration::from_secs(5);
/// By when routers have found out that nobody else has their addresses, if they are to (RFC 5227 section 1.1).
const PROBING: Duration = Duration::from_secs(10);
/// What a link takes.
const DELAY: Duration = Duration::from_micros(50);

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reachability {
    /// Questions asked.
    pub asked: usize,
    /// What is not as it should be, in sentences.
    pub wrong: Vec<String>,
}

/// Builds the cluster on memory links and virtual time, and lets its end stations ping each other: pods, nodes and hosts
/// must reach each other by every address; but hosts of external segments, who have no routes to pods, do not reach those, nor
/// do pods reach them with addresses of their own. Whom policies keep from each other must not reach each other.
///
/// # Errors
/// In a sentence, when the laboratory cannot be built or an invariant of the switches does not hold.
pub fn simulate(cluster: &Cluster, seed: u64) -> Result<Reachability, String> {
    let mut trial = Trial::build(cluster, seed)?;
    let mut found = Reachability::default();
    let count = trial.endpoints.len();
    for from in 0..count {
        let targets: Vec<usize> = if count <= EVERYONE {
            (0..count).filter(|to| *to != from).collect()
        } else {
            // Near and far, and for everyone others.
            (0..SOME)
                .map(|step| (from + 1 + step * step * count / (SOME * SOME)) % count)
                .filter(|to| *to != from)
                .collect()
        };
        trial.ask(cluster, from, &targets, &mut found)?;
    }
    Ok(found)
}

struct Trial {
    lab: Lab,
    endpoints: Vec<(Endpoint, HostId)>,
    policies: Keeper,
}

impl Trial {
    fn build(cluster: &Cluster, seed: u64) -> Result<Self, String> {
        let wiring = wire(cluster, &mut PortNumbers::default());
        let mut lab = Lab::new(Seed::from_u64(seed));
        let cable = LinkProfile::delayed(DELAY);
        let mut switches = BTreeMap::new();
        let mut policies = Keeper::default();
        policies.update(cluster);
        for plan in &wiring.switches {
            let snapshot = Snapshot::compile(plan.config.clone(), None);
            let snapshot = snapshot.and_then(|snapshot| match policies.of(&plan.name) {
                Some(enforced) => snapshot.with_policies(Some(Arc::clone(enforced))),
                None => Ok(snapshot),
            });
            let snapshot = snapshot.map_err(|e| format!("{}: {e}", plan.name))?;
            let switch = lab.add_switch(&plan.name, snapshot, plan.limits);
            switches.insert(plan.name.as_str(), switch.map_err(|e| e.to_string())?);
        }
        for plan in &wiring.switches {
            for (own, other, theirs) in &plan.links {
                let ends = ((switches[plan.name.as_str()], *own), (switches[other.as_str()], *theirs));
                lab.connect(ends.0, ends.1, cable).map_err(|e| e.to_string())?;
            }
        }
        let mut endpoints = Vec::new();
        // Whoever shares a link is reached when its owner is.
        for endpoint in wiring.endpoints.iter().filter(|endpoint| endpoint.shares.is_none()) {
            let mut config = HostConfig::new(endpoint.mac, endpoint.addresses.clone());
            config.gateway_v4 = endpoint.gateway_v4;
            config.gateway_v6 = endpoint.gateway_v6;
            config.mtu = usize::from(endpoint.mtu);
            let name = endpoint.place.to_string();
            let host = lab.add_host(&name, config).map_err(|e| format!("{name}: {e}"))?;
            let port = (switches[endpoint.attachment.switch.as_str()], endpoint.attachment.port);
            lab.connect(host, port, cable).map_err(|e| e.to_string())?;
            endpoints.push((endpoint.clone(), host));
        }
        lab.run_for(PROBING).map_err(|error| error.to_string())?;
        Ok(Self { lab, endpoints, policies })
    }

    /// Lets one station ask all addresses of others, and notes whom it should have reached and did not, or the other way
    /// round.
    fn ask(
        &mut self,
        cluster: &Cluster,
        from: usize,
        targets: &[usize],
        found: &mut Reachability,
    ) -> Result<(), String> {
        let (asker, host) = &self.endpoints[from];
        let mut expected = BTreeSet::new();
        let mut unexpected = BTreeMap::new();
        let begin = self.lab.now();
        for (sequence, (endpoint, address)) in (0..).zip(
            targets
                .iter()
                .map(|to| &self.endpoints[*to].0)
                .flat_map(|e| e.addresses.iter().map(move |a| (e, a.addr())))
                .filter(|(_, address)| {
                    asker.addresses.iter().any(|own| own.addr().is_ipv4() == address.is_ipv4())
                }),
        ) {
            found.asked += 1;
            if should_reach(cluster, asker, endpoint, address)
                && is_let(&self.policies, asker, endpoint, address)
            {
                expected.insert(address);
            } else {
                unexpected.insert(address, &endpoint.place);
            }
            // Who has no way to send does not reach anybody.
            let _ = self.lab.host_mut(*host).ping(begin, address, 1, sequence, b"are you there");
        }
        let mut answered: BTreeSet<IpAddr> = BTreeSet::new();
        let all = |answered: &BTreeSet<IpAddr>| expected.is_subset(answered) && unexpected.is_empty();
        self.lab
            .run_until(begin + PATIENCE, |lab| {
                while let Some(event) = lab.host_mut(*host).poll_event() {
                    if let HostEvent::EchoReply { from, .. } = event {
                        answered.insert(from);
                    }
                }
                all(&answered)
            })
            .map_err(|error| error.to_string())?;
        for address in expected.difference(&answered) {
            let whose = self.endpoints.iter().find(|(e, _)| e.addresses.iter().any(|a| a.addr() == *address));
            let whose = whose.map_or_else(String::new, |(e, _)| e.place.to_string());
            found.wrong.push(format!("{} does not reach {whose} by {address}", asker.place));
        }
        for (address, place) in unexpected.iter().filter(|(address, _)| answered.contains(address)) {
            found.wrong.push(format!("{} reaches {place} by {address}, and should not", asker.place));
        }
        Ok(())
    }
}

/// Whether one station has a route to another and back, and is not isolated from it on one link.
fn should_reach(cluster: &Cluster, from: &Endpoint, to: &Endpoint, address: IpAddr) -> bool {
    let (one, other) = (&from.place, &to.place);
    if from.attachment.switch == to.attachment.switch
        && isolated(cluster, one)
        && isolated(cluster, other)
        && from.addresses.iter().any(|own| own.contains(&address))
    {
        return false;
    }
    let external = |place: &Place| match place {
        Place::Host(name) => {
            let host = cluster.hosts.iter().find(|host| host.name == *name);
            let segment = host.and_then(|host| cluster.segments.iter().find(|s| s.name == host.segment));
            segment.is_some_and(|segment| segment.external)
        }
        Place::Pod { .. } | Place::Node(_) => false,
    };
    let pod = |place: &Place| matches!(place, Place::Pod { .. });
    // Where its own address is kept although there is no route to it, nothing comes back to a pod.
    let kept = || cluster.kept_towards.iter().any(|net| net.contains(&address));
    !(external(one) && pod(other) || external(other) && pod(one) && kept())
}

/// Whether policies let one station ping another: each end's node judges its own pods.
fn is_let(policies: &Keeper, from: &Endpoint, to: &Endpoint, address: IpAddr) -> bool {
    const ECHO_REQUEST: [(u8, u16); 2] = [(protocol::ICMP, 8), (protocol::ICMPV6, 128)];
    let own = from.addresses.iter().map(|net| net.addr()).find(|own| own.is_ipv4() == address.is_ipv4());
    let Some(source) = own else { return true };
    let (protocol, port) = ECHO_REQUEST[usize::from(address.is_ipv6())];
    let question = Question { source, destination: address, protocol, port };
    let egress = policies.of(&from.attachment.switch).and_then(|policies| policies.judge(&question).egress);
    let ingress = policies.of(&to.attachment.switch).and_then(|policies| policies.judge_ingress(&question));
    [egress, ingress].into_iter().flatten().all(|judgement| judgement.is_allowed || policies.audits())
}

/// Whether nothing is bridged between a station and others of its kind.
fn isolated(cluster: &Cluster, place: &Place) -> bool {
    match place {
        Place::Pod { .. } => cluster.pod_ports.isolated,
        Place::Node(_) => false,
        Place::Host(name) => {
            let host = cluster.hosts.iter().find(|host| host.name == *name);
            let segment = host.and_then(|host| cluster.segments.iter().find(|s| s.name == host.segment));
            segment.is_some_and(|segment| segment.ports.isolated)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Host, RouterServices};
    use crate::objects::builtin;
    use crate::policy::{ClusterPolicies, Defaults};

    #[test]
    fn everyone_of_the_builtin_cluster_reaches_everyone() {
        let found = simulate(&builtin("lab"), 1).unwrap();
        assert_eq!((found.asked, found.wrong), (6 * 5 * 2, Vec::new()));
    }

    #[test]
    fn pods_reach_external_segments_and_not_the_other_way_round_and_moved_pods_are_found() {
        let mut cluster = builtin("lab");
        cluster.segments[1].external = true;
        cluster.pods[1].node = "node-2".into();
        assert_eq!(simulate(&cluster, 2).unwrap().wrong, [""; 0]);
    }

    #[test]
    fn guards_and_services_harm_nobody_and_isolated_stations_do_not_reach_each_other() {
        let mut cluster = builtin("lab");
        let second = Host {
            name: "second".into(),
            segment: "outside".into(),
            addresses: vec!["192.168.10.201".parse().unwrap()],
        };
        cluster.hosts.push(second);
        for segment in &mut cluster.segments {
            segment.services = RouterServices { advertises: true, proxies: true, probes: true };
        }
        let reached = simulate(&cluster, 4).unwrap();
        assert_eq!(reached.wrong, [""; 0]);
        cluster.pod_ports.isolated = true;
        cluster.segments[1].ports.isolated = true;
        assert_eq!(simulate(&cluster, 5).unwrap(), reached);
        // The pod that has moved is reached through the gateway, wherever it is.
        cluster.pods[1].node = "node-2".into();
        assert_eq!(simulate(&cluster, 6).unwrap(), reached);
    }

    #[test]
    fn whom_policies_keep_apart_do_not_reach_each_other() {
        let mut cluster = builtin("lab");
        let closed = Defaults { denies: true, audits: false };
        cluster.policies = Arc::new(ClusterPolicies { defaults: closed, ..ClusterPolicies::default() });
        let found = simulate(&cluster, 7).unwrap();
        assert_eq!((found.asked, found.wrong), (6 * 5 * 2, Vec::new()));
    }

    #[test]
    fn a_missing_way_is_told() {
        let mut cluster = builtin("lab");
        // Nobody else is told that this node's prefix is longer than it is.
        cluster.pods[2].addresses.truncate(1);
        cluster.pods[2].addresses[0] = "10.244.7.7".parse().unwrap();
        let wrong = simulate(&cluster, 3).unwrap().wrong;
        assert!(
            wrong.contains(&"default/alpha does not reach default/gamma by 10.244.7.7".to_owned()),
            "{wrong:?}"
        );
    }
}
