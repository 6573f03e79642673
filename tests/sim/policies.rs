//! Policies that hold for a while: some hosts may be asked by few, or may ask few; or everybody is only watched.

use std::sync::Arc;

use netstack::policy::{
    Action, GroupId, Isolation, Peer, PeerMap, Peers, Policies, PolicyId, PortMatch, Ports, Rule, RuleTable,
    Ruleset, Subject,
};
use netstack::seed::Rng;

use crate::world::{Member, chance};

/// Groups of hosts.
const GROUPS: u32 = 3;
const UDP: u8 = 17;
const POLICY: PolicyId = PolicyId(1);

/// About some of the hosts, wherever they are.
pub(crate) fn some(members: &[Member], rng: &mut Rng) -> Policies {
    let (mut policies, mut peers) = (Policies::new(), PeerMap::default());
    for (member, group) in members.iter().zip((0..GROUPS).cycle()) {
        let peer = Arc::new(Peer::new([GroupId(group)], []));
        let subject = Arc::new(Subject { ingress: ruleset(rng), egress: ruleset(rng) });
        let subject = chance(rng, 60).then_some(subject);
        for address in [member.v4, member.v6] {
            peers.set(address, Some(Arc::clone(&peer)));
            policies.set_subject(address, subject.clone());
        }
    }
    policies.set_peers(peers);
    policies.set_name(POLICY, Some("policy".into()));
    policies.set_audit(chance(rng, 30));
    policies
}

/// Whoever is isolated talks with one group, about everything or in UDP alone.
fn ruleset(rng: &mut Rng) -> Arc<Ruleset> {
    let peers = Peers::These { groups: vec![GroupId(rng.below(GROUPS))], blocks: Vec::new() };
    let ports = if chance(rng, 50) { Ports::All } else { Ports::These(vec![PortMatch::Protocol(UDP)]) };
    let rule = Rule { policy: POLICY, number: 0, action: Action::Accept, peers, ports };
    let isolation = Isolation { by: POLICY, rules: Arc::new(RuleTable::new(&[rule])) };
    let isolation = chance(rng, 60).then_some(isolation);
    Arc::new(Ruleset { isolation, denies: chance(rng, 10), ..Ruleset::default() })
}
