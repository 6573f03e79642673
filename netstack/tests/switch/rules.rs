//! Policies for the networks that the tests stand on.

use std::sync::Arc;

use netstack::policy::{
    Action, Block, GroupId, Isolation, NamedPort, Peer, PeerMap, Peers, Policies, PolicyId, PortMatch,
    PortName, Ports, Rule, RuleTable, Ruleset, Subject,
};

use crate::world::{FAMILIES, Host, NODE, POD_A, POD_B, ip, net};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// The groups of the two pods, the policy that isolates, and the one whose rules accept.
pub(crate) const GROUP_A: GroupId = GroupId(1);
pub(crate) const GROUP_B: GroupId = GroupId(2);
pub(crate) const CLOSE: PolicyId = PolicyId(1);
pub(crate) const OPEN: PolicyId = PolicyId(2);

pub(crate) fn addresses(host: &Host) -> [std::net::IpAddr; 2] {
    FAMILIES.map(|family| host.ip(family))
}

pub(crate) fn accept(peers: Peers, ports: Ports) -> Rule {
    Rule { policy: OPEN, number: 0, action: Action::Accept, peers, ports }
}

pub(crate) fn group(group: GroupId) -> Peers {
    Peers::These { groups: vec![group], blocks: Vec::new() }
}

pub(crate) fn blocks(nets: &[&str]) -> Peers {
    let blocks = nets.iter().map(|text| Block { net: net(text), except: Vec::new() }).collect();
    Peers::These { groups: Vec::new(), blocks }
}

pub(crate) fn only(protocol: u8, port: u16) -> Ports {
    Ports::These(vec![PortMatch::Range { protocol, first: port, last: port }])
}

/// Isolated, but for what these rules accept.
pub(crate) fn isolated(rules: &[Rule]) -> Arc<Ruleset> {
    let isolation = Isolation { by: CLOSE, rules: Arc::new(RuleTable::new(rules)) };
    Arc::new(Ruleset { isolation: Some(isolation), ..Ruleset::default() })
}

/// What is known of the pods, and nobody is a subject yet.
pub(crate) fn policies() -> Policies {
    let mut peers = PeerMap::default();
    let web = NamedPort { name: PortName(1), protocol: TCP, number: 80 };
    for (host, group) in [(POD_A, GROUP_A), (POD_B, GROUP_B)] {
        let peer = Arc::new(Peer::new([group], [web]));
        addresses(&host).into_iter().for_each(|address| peers.set(address, Some(Arc::clone(&peer))));
    }
    let mut policies = Policies::new();
    policies.set_peers(peers);
    policies.set_name(CLOSE, Some("close".into()));
    policies.set_name(OPEN, Some("open".into()));
    let gateways = ["10.0.0.1", "fd00::1"].map(ip);
    policies.set_node(addresses(&NODE).into_iter().chain(gateways).collect());
    policies
}

pub(crate) fn put(policies: &mut Policies, host: &Host, subject: &Subject) {
    for address in addresses(host) {
        policies.set_subject(address, Some(Arc::new(subject.clone())));
    }
}

pub(crate) fn ingress(rules: &[Rule]) -> Subject {
    Subject { ingress: isolated(rules), ..Subject::default() }
}

pub(crate) fn egress(rules: &[Rule]) -> Subject {
    Subject { egress: isolated(rules), ..Subject::default() }
}

/// One subject.
pub(crate) fn on(host: &Host, subject: &Subject) -> Policies {
    let mut policies = policies();
    put(&mut policies, host, subject);
    policies
}

/// Any of some policies, one for each of the lower six bits: what is opened to B and to A, what A opens, a rule of the first
/// tier, that nothing is let through in the end, and that policies are only audited.
pub(crate) fn some_policies(which: u8) -> Policies {
    let has = |bit: u8| which & bit != 0;
    let table = |rules: &[Rule]| Arc::new(RuleTable::new(rules));
    let isolation = |bit: u8, rules: &[Rule]| has(bit).then(|| Isolation { by: CLOSE, rules: table(rules) });
    let ruleset = |isolation: Option<Isolation>, admin: Option<Arc<RuleTable>>| {
        Arc::new(Ruleset { admin, isolation, baseline: None, denies: has(16) })
    };
    let far = || blocks(&["10.1.0.0/24", "fd00:1::/64"]);
    let udp = || Ports::These(vec![PortMatch::Protocol(UDP)]);
    let asked_of_b = [accept(group(GROUP_A), only(UDP, 53)), accept(far(), only(TCP, 2))];
    let asked_of_a = [accept(Peers::Everyone, udp())];
    let asked_by_a = [accept(far(), Ports::All), accept(group(GROUP_B), only(UDP, 2))];
    let denied = Rule { action: Action::Deny, ..accept(group(GROUP_A), only(TCP, 2)) };
    let mut policies = policies();
    let a = Subject {
        ingress: ruleset(isolation(2, &asked_of_a), None),
        egress: ruleset(isolation(4, &asked_by_a), None),
    };
    put(&mut policies, &POD_A, &a);
    let admin = has(8).then(|| table(&[denied]));
    let b = Subject { ingress: ruleset(isolation(1, &asked_of_b), admin), egress: ruleset(None, None) };
    put(&mut policies, &POD_B, &b);
    policies.set_audit(has(32));
    policies
}
