//! TCP.

use std::time::Duration;

use netstack::host::{TcpError, TcpState};
use proptest::prelude::*;

use super::lab::{Lab, Way, octets};
use super::world::Manner;
use crate::edge::{EdgeDrop, Farewell, Refusal};

const V4: &str = "198.51.100.1:80";
const V6: &str = "[2001:db8::1]:80";

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_octet_arrives_whatever_the_way_does(
        seed in any::<u64>(),
        v6 in any::<bool>(),
        length in 0..200_000usize,
        lost in 0..40u32,
        twice in 0..40u32,
        late in 0..400u32,
        cuts in any::<bool>(),
        pace in prop_oneof![Just(usize::MAX), 500..20_000usize],
    ) {
        let mut lab = Lab::new(seed);
        lab.meet();
        lab.way = Way { lost, twice, late, cuts };
        lab.world().pace = pace;
        let to = if v6 { V6 } else { V4 };
        lab.world().serve(to, Manner::Echo);
        let said = octets(length, seed);
        let heard = lab.exchange(to, &said, true);
        prop_assert_eq!(heard.as_ref().map(Vec::len), Ok(said.len()));
        prop_assert!(heard == Ok(said.clone()), "other octets");
        lab.wait(Duration::from_secs(200));
        lab.assert_at_rest();
        let closed = lab.world().closed.clone();
        prop_assert!(closed.len() == 1 && closed[0].1 == said && closed[0].2, "what the server got");
        let counters = lab.edge.counters();
        prop_assert_eq!(counters.octets, [length as u64; 2]);
        prop_assert_eq!((counters.asked, counters.established, counters.refused), (1, 1, 0));
    }
}

#[test]
fn a_download_leaves_in_super_frames_and_an_upload_is_acknowledged_in_few() {
    let mut lab = Lab::new(1);
    let said = octets(4_000_000, 1);
    lab.world().serve(V4, Manner::Source(said.clone()));
    assert!(lab.exchange(V4, b"", false) == Ok(said));
    assert!(lab.to_pod < 400, "{} frames", lab.to_pod);
    lab.wait(Duration::from_secs(130));
    lab.assert_at_rest();
}

#[test]
fn either_side_may_end_first_and_hear_the_other_to_its_end() {
    for to in [V4, V6] {
        let mut lab = Lab::new(2);
        let answer = octets(1_000_000, 2);
        lab.world().serve(to, Manner::Answer(answer.clone()));
        assert!(lab.exchange(to, b"a question", true) == Ok(answer));
        lab.wait(Duration::from_secs(130));
        lab.assert_at_rest();
        assert_eq!(lab.world().closed[0].1, b"a question");
        // The server ends at once; the pod goes on for long.
        let mut lab = Lab::new(3);
        lab.world().serve(to, Manner::Source(b"hello".to_vec()));
        let connection = lab.connect(to);
        lab.run_for(Duration::from_millis(50));
        assert_eq!(lab.pod.tcp_state(connection), TcpState::CloseWait);
        lab.wait(Duration::from_secs(1000));
        assert_eq!(lab.edge.carried(), (1, 0), "a connection that is half closed is no corpse");
        assert_eq!(lab.talk(connection, &octets(300_000, 3), false), Ok(b"hello".to_vec()));
        lab.wait(Duration::from_secs(130));
        lab.assert_at_rest();
    }
}

#[test]
fn what_the_outside_refuses_is_refused() {
    let told = [
        (Refusal::Refused, TcpError::Refused),
        (Refusal::NoSockets, TcpError::Refused),
        (Refusal::Unreachable, TcpError::Unreachable),
        (Refusal::NoRoute, TcpError::Unreachable),
        (Refusal::TimedOut, TcpError::Unreachable),
    ];
    for (refusal, error) in told {
        for at_once in [false, true] {
            for to in [V4, V6] {
                let mut lab = Lab::new(4);
                lab.world().serve(to, Manner::No(refusal, at_once));
                let begun = lab.now;
                assert_eq!(lab.exchange(to, b"", true), Err(error), "{refusal} {to}");
                assert!(lab.now - begun < Duration::from_millis(50), "it takes no timeout");
                lab.wait(Duration::from_secs(10));
                lab.assert_at_rest();
                assert_eq!(lab.edge.counters().refused, 1);
                let none_left = u64::from(refusal == Refusal::NoSockets);
                assert_eq!(lab.edge.counters().dropped(EdgeDrop::NoSockets), none_left);
            }
        }
    }
}

#[test]
fn what_pods_may_not_reach_is_prohibited() {
    for to in ["169.254.169.254:80", "[fd00:ec2::254]:80", "192.0.0.2:22", "[fd00:192::2]:22"] {
        let mut lab = Lab::new(5);
        lab.world().serve(to, Manner::Echo);
        assert_eq!(lab.exchange(to, b"", true), Err(TcpError::Unreachable), "{to}");
        assert!(lab.edge.counters().dropped(EdgeDrop::Prohibited) >= 1);
        assert_eq!(lab.edge.counters().asked, 0);
        lab.assert_at_rest();
    }
}

#[test]
fn the_machine_s_loopback_is_at_the_edge_s_address_once_it_is_opened() {
    for (to, at) in [("192.0.0.2:22", "127.0.0.1:22"), ("[fd00:192::2]:22", "[::1]:22")] {
        let mut lab =
            Lab::with(6, |config| config.reach.openings.push(crate::edge::Opening::MachineLoopback));
        lab.world().serve(at, Manner::Echo);
        assert_eq!(lab.exchange(to, b"hello", true), Ok(b"hello".to_vec()));
    }
}

#[test]
fn those_who_wait_for_nobody_hold_up_none() {
    let mut lab = Lab::new(7);
    lab.meet();
    lab.world().serve("198.51.100.9:80", Manner::Silent);
    lab.world().serve(V4, Manner::Echo);
    let waiting: Vec<_> = (0..200).map(|_| lab.connect("198.51.100.9:80")).collect();
    lab.run_for(Duration::from_millis(10));
    let begun = lab.now;
    assert_eq!(lab.exchange(V4, b"good", true), Ok(b"good".to_vec()));
    assert!(lab.now - begun < Duration::from_millis(100));
    assert_eq!(lab.edge.carried().0, 201, "the good one is remembered for a moment");
    for connection in waiting {
        assert_eq!(lab.pod.tcp_state(connection), TcpState::SynSent);
    }
    // The pod gives up after a minute, the edge when the machine would.
    lab.wait(Duration::from_secs(200));
    lab.assert_at_rest();
    assert_eq!(lab.edge.counters().refused, 200);
}

#[test]
fn a_reset_goes_through_both_ways() {
    for to in [V4, V6] {
        let mut lab = Lab::new(8);
        lab.world().serve(to, Manner::Echo);
        let connection = lab.connect(to);
        lab.run_for(Duration::from_millis(10));
        lab.world().break_off(to);
        lab.run_for(Duration::from_millis(10));
        assert_eq!(lab.pod.tcp_error(connection), Some(TcpError::Reset));
        lab.assert_at_rest();
        assert_eq!(lab.edge.counters().reset_by_outside, 1);
        let connection = lab.connect(to);
        lab.run_for(Duration::from_millis(10));
        lab.pod.tcp_abort(lab.now, connection);
        lab.run_for(Duration::from_millis(10));
        lab.assert_at_rest();
        assert_eq!(lab.edge.counters().reset_by_pods, 1);
        assert_eq!(lab.world().closed.last().map(|closed| closed.3), Some(Farewell::Abrupt));
    }
}

#[test]
fn a_pod_that_stops_reading_stops_its_server_and_nothing_is_stored() {
    let mut lab = Lab::new(9);
    let said = octets(3_000_000, 9);
    lab.world().serve(V4, Manner::Source(said.clone()));
    let connection = lab.connect(V4);
    lab.run_for(Duration::from_secs(5));
    let waiting = lab.world().peer(V4).incoming.len();
    assert_eq!(waiting, 1 << 20, "what the pod has not taken is where it was");
    assert!(lab.pod.tcp_readable(connection) >= 65_000);
    // It is asked now and then, and lives.
    lab.wait(Duration::from_secs(3600));
    assert_eq!((lab.edge.carried(), lab.edge.counters().given_up), ((1, 0), 0));
    assert!(lab.talk(connection, b"", false) == Ok(said));
    lab.wait(Duration::from_secs(130));
    lab.assert_at_rest();
}

#[test]
fn a_server_that_stops_reading_stops_its_pod_and_little_is_held() {
    let mut lab = Lab::new(10);
    lab.world().serve(V4, Manner::Deaf);
    let connection = lab.connect(V4);
    let said = octets(1_000_000, 10);
    let mut sent = 0;
    for _ in 0..4000 {
        lab.step(lab.now + Duration::from_millis(1));
        if let Ok(count) = lab.pod.tcp_send(lab.now, connection, &said[sent..]) {
            sent += count;
        }
    }
    assert!(lab.edge.held() <= 256 * 1024, "{}", lab.edge.held());
    assert!(sent < 400_000, "{sent}");
    // It goes on with nothing lost when its server does.
    lab.world().peer(V4).manner = Manner::Answer(b"all of it".to_vec());
    let heard = lab.talk(connection, &said[sent..], true);
    assert_eq!(heard, Ok(b"all of it".to_vec()));
    lab.wait(Duration::from_secs(130));
    lab.assert_at_rest();
    assert!(lab.world().closed[0].1 == said);
}

#[test]
fn what_is_held_for_all_is_bounded_and_nothing_is_lost_for_it() {
    let mut lab = Lab::with(11, |config| config.limits.held = 10_000);
    lab.world().pace = 3000;
    lab.world().serve(V4, Manner::Answer(b"thanks".to_vec()));
    let said = octets(400_000, 11);
    let connection = lab.connect(V4);
    assert_eq!(lab.talk(connection, &said, true), Ok(b"thanks".to_vec()));
    lab.wait(Duration::from_secs(130));
    lab.assert_at_rest();
    assert!(lab.world().closed[0].1 == said);
}

#[test]
fn a_pod_that_is_gone_is_found_out() {
    let mut lab = Lab::new(12);
    lab.world().serve(V4, Manner::Echo);
    lab.connect(V4);
    lab.run_for(Duration::from_millis(10));
    lab.wait(Duration::from_secs(5 * 3600));
    assert_eq!(lab.edge.carried(), (1, 0), "it only says nothing");
    lab.way.lost = 1000;
    lab.wait(Duration::from_secs(3 * 3600));
    lab.assert_at_rest();
    assert_eq!(lab.edge.counters().given_up, 1);
}

#[test]
fn at_the_limit_a_new_connection_is_reset_and_those_that_stand_stay() {
    let mut lab = Lab::with(13, |config| config.limits.connections = 3);
    lab.world().serve(V4, Manner::Echo);
    let standing: Vec<_> = (0..3).map(|_| lab.connect(V4)).collect();
    lab.run_for(Duration::from_millis(10));
    assert_eq!(lab.exchange(V4, b"", true), Err(TcpError::Refused));
    assert_eq!(lab.edge.counters().dropped(EdgeDrop::TooManyConnections), 1);
    for connection in standing {
        assert_eq!(lab.talk(connection, b"still here", true), Ok(b"still here".to_vec()));
    }
    lab.wait(Duration::from_secs(130));
    lab.assert_at_rest();
}

#[test]
fn a_thousand_connections_at_once_all_come_to_stand() {
    let mut lab = Lab::new(14);
    lab.meet();
    lab.world().serve(V4, Manner::Echo);
    let all: Vec<_> = (0..1000).map(|_| lab.connect(V4)).collect();
    lab.run_for(Duration::from_millis(100));
    for connection in &all {
        assert_eq!(lab.pod.tcp_state(*connection), TcpState::Established);
    }
    assert_eq!(lab.edge.counters().established, 1000);
    for connection in all {
        lab.pod.tcp_release(lab.now, connection);
    }
    lab.run_for(Duration::from_secs(1));
    lab.wait(Duration::from_secs(130));
    lab.assert_at_rest();
}

#[test]
fn a_connection_that_rests_is_small() {
    assert!(size_of::<crate::edge::tcp::Tcp>() <= 320, "{}", size_of::<crate::edge::tcp::Tcp>());
}
