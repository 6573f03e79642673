//! Policies for the switch that is fuzzed.

use std::net::IpAddr;
use std::sync::Arc;

use netstack::addr::IpNet;
use netstack::policy::{
    Action, Block, GroupId, Isolation, NamedPort, Peer, PeerMap, Peers, Policies, PolicyId, PortMatch,
    PortName, Ports, Rule, RuleTable, Ruleset, Subject,
};

/// The stations of the first segment, each in a group of its own.
const STATIONS: [(GroupId, [&str; 2]); 2] =
    [(GroupId(0), ["10.0.0.2", "fd00::2"]), (GroupId(1), ["10.0.0.3", "fd00::3"])];
const UDP: u8 = 17;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn rule(number: u32, action: Action, peers: Peers, ports: Vec<PortMatch>) -> Rule {
    Rule { policy: PolicyId(1), number, action, peers, ports: Ports::These(ports) }
}

fn table(rules: &[Rule]) -> Arc<RuleTable> {
    Arc::new(RuleTable::new(rules))
}

/// Both stations are isolated, and open to each other and to parts of the uplink at some ports; of the first tier, something
/// is accepted, denied and passed on.
pub(super) fn policies(audits: bool) -> Arc<Policies> {
    let each = |other: GroupId| Peers::These { groups: vec![other], blocks: Vec::new() };
    let except = || vec![net("10.1.0.128/25"), net("fd00:1::8000/113")];
    let uplink = ["10.1.0.0/24", "fd00:1::/64"].map(|text| Block { net: net(text), except: except() });
    let far = || Peers::These { groups: Vec::new(), blocks: uplink.to_vec() };
    let upper = || vec![PortMatch::Range { protocol: UDP, first: 32_768, last: u16::MAX }];
    let named = || vec![PortMatch::Named { protocol: UDP, name: PortName(0) }];
    let admin = table(&[
        rule(0, Action::Accept, far(), upper()),
        rule(1, Action::Pass, Peers::Everyone, vec![PortMatch::Protocol(UDP)]),
        rule(2, Action::Deny, Peers::Everyone, vec![PortMatch::Range { protocol: 6, first: 0, last: 1023 }]),
    ]);
    let mut peers = PeerMap::default();
    let mut policies = Policies::new();
    for (own, addresses) in STATIONS {
        let name = NamedPort { name: PortName(0), protocol: UDP, number: 53 };
        let peer = Arc::new(Peer::new([own], [name]));
        let other = each(GroupId(1 - own.0));
        let rules =
            table(&[rule(0, Action::Accept, other, named()), rule(1, Action::Accept, far(), named())]);
        let isolation = Some(Isolation { by: PolicyId(2), rules });
        let ruleset = Arc::new(Ruleset { admin: Some(Arc::clone(&admin)), isolation, ..Ruleset::default() });
        let subject = Arc::new(Subject { ingress: Arc::clone(&ruleset), egress: ruleset });
        for address in addresses.map(address) {
            peers.set(address, Some(Arc::clone(&peer)));
            policies.set_subject(address, Some(Arc::clone(&subject)));
        }
    }
    policies.set_peers(peers);
    policies.set_name(PolicyId(1), Some("first".into()));
    policies.set_name(PolicyId(2), Some("second".into()));
    policies.set_node(["10.0.0.1", "fd00::1"].map(address).into());
    policies.set_audit(audits);
    Arc::new(policies)
}
