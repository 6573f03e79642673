//! What tables answer is held against what trying one rule after the other answers.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::addr::IpNet;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Few of everything, so that things meet.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (0u32..16, 28u8..=32).prop_map(|(low, len)| IpNet::new(v4(low), len).unwrap().trunc());
    let v6 = (0u128..16, 124u8..=128).prop_map(|(low, len)| IpNet::new(v6(low), len).unwrap().trunc());
    prop_oneof![3 => v4, 1 => v6, 1 => Just("0.0.0.0/0".parse().unwrap()), 1 => Just("::/0".parse().unwrap())]
}

fn v4(low: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xffff_fff0 | low).into()
}

fn v6(low: u128) -> IpAddr {
    Ipv6Addr::from_bits(u128::MAX << 4 | low).into()
}

fn block() -> impl Strategy<Value = Block> {
    (net(), prop::collection::vec(net(), 0..4)).prop_map(|(net, except)| Block { net, except })
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(TCP), Just(UDP), Just(SCTP), Just(1), Just(255)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..6, Just(u16::MAX - 1), Just(u16::MAX)]
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let range = (protocol(), port(), port());
    prop_oneof![
        protocol().prop_map(PortMatch::Protocol),
        range.prop_map(|(protocol, first, last)| PortMatch::Range { protocol, first, last }),
        (protocol(), 0u32..3)
            .prop_map(|(protocol, name)| PortMatch::Named { protocol, name: PortName(name) }),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let these =
        (prop::collection::vec((0u32..6).prop_map(GroupId), 0..4), prop::collection::vec(block(), 0..3));
    let peers = prop_oneof![
        1 => Just(Peers::Everyone),
        4 => these.prop_map(|(groups, blocks)| Peers::These { groups, blocks }),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::All),
        4 => prop::collection::vec(port_match(), 0..4).prop_map(Ports::These),
    ];
    let action = prop_oneof![Just(Action::Accept), Just(Action::Deny), Just(Action::Pass)];
    (0u32..4, 0u32..4, action, peers, ports).prop_map(|(policy, number, action, peers, ports)| Rule {
        policy: PolicyId(policy),
        number,
        action,
        peers,
        ports,
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let named = (0u32..3, protocol(), port());
    let named =
        named.prop_map(|(name, protocol, number)| NamedPort { name: PortName(name), protocol, number });
    (prop::collection::vec((0u32..6).prop_map(GroupId), 0..6), prop::collection::vec(named, 0..4))
        .prop_map(|(groups, ports)| Peer::new(groups, ports))
}

/// Whether a rule matches, as its text says.
fn matches(
    rule: &Rule,
    address: IpAddr,
    peer: Option<&Peer>,
    question: (u8, u16),
    asked: Option<&Peer>,
) -> bool {
    let is_peer = match &rule.peers {
        Peers::Everyone => true,
        Peers::These { groups, blocks } => {
            let is_in = |block: &Block| {
                block.net.contains(&address)
                    && !block.except.iter().any(|hole| block.net.contains(hole) && hole.contains(&address))
            };
            groups.iter().any(|group| peer.is_some_and(|peer| peer.groups.contains(group)))
                || blocks.iter().any(is_in)
        }
    };
    let (protocol, port) = question;
    let is_port = |wanted: &PortMatch| match *wanted {
        PortMatch::Protocol(of) => of == protocol,
        PortMatch::Range { protocol: of, first, last } => of == protocol && (first..=last).contains(&port),
        PortMatch::Named { protocol: of, name } => {
            let wanted = NamedPort { name, protocol: of, number: port };
            of == protocol && asked.is_some_and(|asked| asked.ports.contains(&wanted))
        }
    };
    is_peer
        && match &rule.ports {
            Ports::All => true,
            Ports::These(ports) => ports.iter().any(is_port),
        }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..16).prop_map(v4),
        (0u128..16).prop_map(v6),
        Just(IpAddr::from([10, 0, 0, 1])),
        Just(IpAddr::from([0, 0, 0, 0])),
        Just(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 3000 }))]

    #[test]
    fn a_table_finds_the_rule_that_a_scan_finds(
        rules in prop::collection::vec(rule(), 0..12),
        asks in prop::collection::vec((address(), prop::option::of(peer()), protocol(), port(), prop::option::of(peer())), 1..12),
    ) {
        let table = RuleTable::new(&rules);
        prop_assert_eq!(table.len(), rules.len());
        for (address, peer, protocol, port, asked) in &asks {
            let scanned = rules.iter().find(|rule| matches(rule, *address, peer.as_ref(), (*protocol, *port), asked.as_ref()));
            let ask = Asked { protocol: *protocol, port: *port, of: asked.as_ref() };
            let found = table.first(*address, peer.as_ref(), &ask);
            prop_assert_eq!(
                found.map(|it| (it.policy, it.number, it.action)),
                scanned.map(|it| (it.policy, it.number, it.action)),
                "{:?} {:?}", address, ask
            );
        }
    }
}

fn accept(policy: u32, peers: Peers, ports: Ports) -> Rule {
    Rule { policy: PolicyId(policy), number: 0, action: Action::Accept, peers, ports }
}

fn table(rules: &[Rule]) -> Option<Arc<RuleTable>> {
    Some(Arc::new(RuleTable::new(rules)))
}

fn group(group: u32) -> Peers {
    Peers::These { groups: vec![GroupId(group)], blocks: vec![] }
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn ask(source: [u8; 4], destination: [u8; 4]) -> Question {
    Question { source: source.into(), destination: destination.into(), protocol: TCP, port: 80 }
}

/// A and B, in groups 1 and 2, with rules on B's ingress.
fn two(ingress: Ruleset) -> Policies {
    let mut peers = PeerMap::default();
    peers.set(A.into(), Some(Arc::new(Peer::new([GroupId(1)], []))));
    peers.set(B.into(), Some(Arc::new(Peer::new([GroupId(2)], []))));
    let mut policies = Policies::new();
    policies.set_peers(peers);
    policies
        .set_subject(B.into(), Some(Arc::new(Subject { ingress: Arc::new(ingress), ..Subject::default() })));
    policies
}

/// Each overlaps all others: what is kept must not grow as all of them at each end of one.
#[test]
fn of_blocks_that_overlap_the_first_is_kept() {
    let count = if cfg!(miri) { 20 } else { 20_000 };
    let hole = |n: u32| IpNet::from(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + 2 * n)));
    let everywhere: IpNet = "0.0.0.0/0".parse().unwrap();
    let rule = |n: u32| {
        let block = Block { net: everywhere, except: vec![hole(n)] };
        let peers = Peers::These { groups: vec![], blocks: vec![block] };
        Rule { number: n, ..accept(1, peers, Ports::All) }
    };
    let table = RuleTable::new(&(0..count).map(rule).collect::<Vec<Rule>>());
    let asked = Asked { protocol: TCP, port: 80, of: None };
    let found = |address: IpAddr| table.first(address, None, &asked).map(|it| it.number);
    assert_eq!(found([192, 0, 2, 1].into()), Some(0));
    assert_eq!(found(hole(0).addr()), Some(1));
    assert_eq!(found(hole(7).addr()), Some(0));
    assert_eq!(found(IpAddr::V6(Ipv6Addr::LOCALHOST)), None);
}

#[test]
fn tiers_are_asked_one_after_the_other() {
    let isolation = |rules: &[Rule]| Some(Isolation { by: PolicyId(7), rules: table(rules).unwrap() });
    let act = |action| Rule { action, ..accept(1, group(1), Ports::All) };
    let judged = |ruleset| two(ruleset).judge(&ask(A, B)).ingress.map(|it| (it.is_allowed, it.by));
    let admin = |action, rest: Ruleset| judged(Ruleset { admin: table(&[act(action)]), ..rest });
    let (policy, rule) = (PolicyId(1), 0);
    let none = || Ruleset { isolation: isolation(&[]), ..Ruleset::default() };
    assert_eq!(admin(Action::Accept, none()), Some((true, By::Admin { policy, rule })));
    assert_eq!(admin(Action::Deny, Ruleset::default()), Some((false, By::Admin { policy, rule })));
    assert_eq!(admin(Action::Pass, none()), Some((false, By::Isolation { policy: PolicyId(7) })));
    assert_eq!(admin(Action::Pass, Ruleset::default()), Some((true, By::Default)));
    // Who is isolated never gets to the baseline.
    let baseline = table(&[act(Action::Deny)]);
    let allowed = Ruleset {
        isolation: isolation(&[act(Action::Accept)]),
        baseline: baseline.clone(),
        ..Ruleset::default()
    };
    assert_eq!(judged(allowed), Some((true, By::Policy { policy, rule })));
    let open = Ruleset { baseline, ..Ruleset::default() };
    assert_eq!(judged(open), Some((false, By::Baseline { policy, rule })));
    assert_eq!(judged(Ruleset { denies: true, ..Ruleset::default() }), Some((false, By::Default)));
    assert!(Ruleset::default().is_open() && !none().is_open());
}

#[test]
fn nobody_is_kept_from_himself_nor_from_the_node() {
    let closed = Ruleset { denies: true, ..Ruleset::default() };
    let mut policies = two(closed);
    assert!(!policies.judge(&ask(A, B)).is_allowed());
    assert!(policies.judge(&ask(B, B)).is_allowed());
    assert!(policies.judge(&ask(B, A)).is_allowed(), "nothing is on what B opens");
    let clone = policies.clone();
    policies.set_node(Arc::new([A.into()]));
    assert!(policies.judge(&ask(A, B)).is_allowed());
    assert!(!clone.judge(&ask(A, B)).is_allowed(), "a clone stays as it was");
    policies.set_subject(B.into(), None);
    policies.set_node(Arc::new([]));
    assert_eq!(policies.judge(&ask(A, B)), Verdict::default());
}

#[test]
fn a_station_that_comes_changes_nothing_but_what_is_behind_its_addresses() {
    let rules = table(&[accept(1, group(3), Ports::All)]).unwrap();
    let mut policies =
        two(Ruleset { isolation: Some(Isolation { by: PolicyId(1), rules }), ..Ruleset::default() });
    assert!(!policies.judge(&ask([10, 0, 0, 3], B)).is_allowed());
    let mut peers = policies.peers.clone();
    peers.set([10, 0, 0, 3].into(), Some(Arc::new(Peer::new([GroupId(3), GroupId(3)], []))));
    policies.set_peers(peers);
    assert!(policies.judge(&ask([10, 0, 0, 3], B)).is_allowed());
    assert!(!policies.judge(&ask(A, B)).is_allowed());
}

#[test]
fn judgements_name_the_policy_and_the_rule() {
    let rules = table(&[accept(1, group(1), Ports::All)]).unwrap();
    let mut policies =
        two(Ruleset { isolation: Some(Isolation { by: PolicyId(2), rules }), ..Ruleset::default() });
    policies.set_name(PolicyId(1), Some("let in".into()));
    policies.set_name(PolicyId(2), Some("close".into()));
    let said = |source| policies.describe(&policies.judge(&ask(source, B)).ingress.unwrap());
    assert_eq!(said(A), "ingress allowed by let in, ingress[0]");
    assert_eq!(said([9, 9, 9, 9]), "ingress denied: close isolates the pod, and no rule allows it");
    assert_eq!(Vec::from_iter(policies.names.values()).len(), 2);
}
