//! Flows that are known: whatever comes, and however little room there is for them, all is as without them.

use netstack::config::{Config, Limits};
use netstack::offload::Offload;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::random::{self, Run, SMALL, Step};
use crate::world::{FAMILIES, FAR, GUEST, Host, NODE, OTHER, POD_A, POD_B, VIP, ip};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH_ACK: u8 = 0x18;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;

/// One end of a conversation says something; who it says it to answers by [`Step::Answer`].
fn said() -> impl Strategy<Value = Step> {
    let asker = prop::sample::select(vec![POD_A, POD_B, GUEST, OTHER, FAR, NODE]);
    let kind =
        prop_oneof![6 => Just(0u8), 1 => Just(1), 2 => Just(2), 6 => Just(3), 1 => Just(4), 1 => Just(5)];
    (asker, 0usize..6, prop::sample::select(FAMILIES.to_vec()), 1u16..4, kind, any::<bool>()).prop_map(
        |(from, to, family, port, kind, small)| {
            let mut packet = match to {
                0 => from.via_router(ip(family.of(VIP[0], VIP[1]))),
                1 => from.via_router(FAR.ip(family)),
                2 => from.via_router(POD_B.ip(family)),
                3 => from.to(&neighbour(from), family),
                4 => from.via_router(POD_A.ip(family)),
                _ => from.via_router(NODE.ip(family)),
            };
            packet.dont_fragment = !small;
            let (l4, server) = (4000 + port, [2, 53][usize::from(port % 2)]);
            let bytes = match kind {
                0 => packet.udp(l4, server, b"said"),
                1 => packet.tcp_segment(l4, 2, SYN, (1000, 0)),
                2 => packet.tcp_segment(l4, 2, ACK, (1001, 9001)),
                3 => packet.tcp_segment(l4, 2, PSH_ACK, (1001, 9001)),
                4 => packet.tcp_segment(l4, 2, FIN_ACK, (1001, 9001)),
                _ => packet.tcp_segment(l4, 2, RST, (1001, 0)),
            };
            Step::Frame { port: from.port, bytes, offload: Offload::default() }
        },
    )
}

/// Who is on the same segment.
fn neighbour(of: Host) -> Host {
    match of.port {
        0 => POD_B,
        1 => GUEST,
        2 => OTHER,
        5 => GUEST,
        _ => FAR,
    }
}

/// Several frames in one batch, and now and then something else.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        100 => said(),
        60 => Just(Step::Answer),
        10 => random::step(),
        10 => (0u64..400).prop_map(Step::Wait),
        3 => random::policies(),
    ]
}

/// Each, and how many flows of a long conversation are known at least: where policies come and go, few live long.
const CONFIGS: [(fn() -> Config, u64); 5] = [
    (random::everything, 200),
    (random::protected, 200),
    (random::translating, 200),
    (random::balanced, 200),
    (random::policed, 50),
];

/// More room for connections, so that they live long enough to be followed.
const ROOM: Limits = Limits { connections: 64, neighbors: 16, ..SMALL };

/// What comes out, and what is remembered, step by step.
fn together(config: fn() -> Config, seed: u64, limits: Limits, steps: &[Step]) -> u64 {
    let mut with = Run::new(config, seed, limits);
    let mut without = Run::new(config, seed, Limits { flows: 0, ..limits });
    for step in steps {
        with.step(step);
        without.step(step);
        assert_eq!(with.record, without.record, "{step:?}");
        assert_eq!(with.state(), without.state(), "{step:?}");
        with.record.clear();
        without.record.clear();
    }
    assert_eq!(without.switch.known(), 0);
    let known = with.switch.known();
    assert_eq!(with.finish(), without.finish());
    known
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn all_is_as_without_them(seed: u64, steps in proptest::collection::vec(step(), 1..150)) {
        for (config, _) in CONFIGS {
            together(config, seed, SMALL, &steps);
            together(config, seed, ROOM, &steps);
        }
    }
}

#[test]
fn the_generator_meets_known_flows() {
    let mut runner = TestRunner::deterministic();
    let steps: Vec<Step> = (0..4000).map(|_| step().new_tree(&mut runner).unwrap().current()).collect();
    for (config, least) in CONFIGS {
        let known = together(config, 1, ROOM, &steps);
        assert!(known > least, "{known}");
    }
}
