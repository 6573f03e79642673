//! Who comes in by a port of the machine.

use std::net::SocketAddr;
use std::time::Duration;

use netstack::host::{TcpHandle, TcpListener};

use super::lab::{Lab, octets};
use super::world::Manner;
use crate::edge::{Carried, Door, Farewell, Refusal};

const AT: &str = "127.0.0.1:8080";
const POD: [&str; 2] = ["10.0.0.2:80", "[fd00::2]:80"];

fn door(carried: Carried, to: &str) -> Door {
    Door { carried, at: AT.parse().unwrap(), to: to.parse().unwrap() }
}

fn lab(seed: u64, to: &str) -> (Lab, TcpListener) {
    let mut lab = Lab::with(seed, |config| {
        config.inside = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    });
    lab.edge.publish(door(Carried::Tcp, to)).unwrap();
    let listener = lab.pod.tcp_listen(to.parse().unwrap()).unwrap();
    (lab, listener)
}

fn accepted(lab: &mut Lab, listener: TcpListener) -> (TcpHandle, SocketAddr) {
    lab.run_for(Duration::from_millis(20));
    let connection = lab.pod.tcp_accept(listener).unwrap();
    (connection, lab.pod.tcp_endpoints(connection).unwrap().1)
}

#[test]
fn a_client_is_seen_as_who_he_is_where_an_answer_to_him_comes_back() {
    let seen = [
        (POD[0], "203.0.113.9:5000", "203.0.113.9:5000"),
        (POD[0], "127.0.0.1:5000", "192.0.0.2:5000"),
        (POD[0], "10.9.9.9:5000", "192.0.0.2:5000"),
        (POD[0], "[2001:db8::9]:5000", "192.0.0.2:5000"),
        (POD[1], "[2001:db8::9]:5000", "[2001:db8::9]:5000"),
        (POD[1], "[::1]:5000", "[fd00:192::2]:5000"),
        (POD[1], "127.0.0.1:5000", "[fd00:192::2]:5000"),
    ];
    for (to, from, shown) in seen {
        let (mut lab, listener) = lab(1, to);
        lab.world().come(AT, from, Manner::Source(b"hello".to_vec()));
        let (connection, peer) = accepted(&mut lab, listener);
        assert_eq!(peer, shown.parse().unwrap(), "{from}");
        assert_eq!(lab.talk(connection, b"good day", false), Ok(b"hello".to_vec()));
        lab.wait(Duration::from_secs(130));
        lab.assert_at_rest();
        assert_eq!(lab.world().closed[0].1, b"good day");
    }
}

#[test]
fn two_clients_with_one_port_are_told_apart() {
    let (mut lab, listener) = lab(2, POD[0]);
    lab.world().come(AT, "127.0.0.1:5000", Manner::Echo);
    lab.world().come(AT, "127.0.0.2:5000", Manner::Echo);
    let (_, one) = accepted(&mut lab, listener);
    let (_, other) = accepted(&mut lab, listener);
    assert_eq!(one.ip(), other.ip());
    assert_ne!(one.port(), other.port());
}

#[test]
fn megabytes_go_both_ways() {
    for to in POD {
        let (mut lab, listener) = lab(3, to);
        let said = octets(2_000_000, 3);
        lab.world().come(AT, "203.0.113.9:5000", Manner::Echo);
        let (connection, _) = accepted(&mut lab, listener);
        assert!(lab.talk(connection, &said, true) == Ok(said));
        lab.wait(Duration::from_secs(130));
        lab.assert_at_rest();
    }
}

#[test]
fn a_pod_that_refuses_or_is_not_there_is_a_reset_to_the_client() {
    let (mut lab, listener) = lab(4, POD[0]);
    lab.pod.tcp_unlisten(lab.now, listener);
    lab.world().come(AT, "203.0.113.9:5000", Manner::Echo);
    lab.run_for(Duration::from_millis(20));
    lab.assert_at_rest();
    assert_eq!(lab.world().closed[0].3, Farewell::Abrupt);
    assert_eq!(lab.edge.counters().refused, 1);
    lab.way.lost = 1000;
    lab.world().come(AT, "203.0.113.9:5000", Manner::Echo);
    lab.run_for(Duration::from_millis(20));
    lab.wait(Duration::from_secs(70));
    lab.assert_at_rest();
    assert_eq!(lab.world().closed[1].3, Farewell::Abrupt);
}

#[test]
fn a_door_is_one_s_own_and_closes_behind_nobody() {
    let (mut lab, listener) = lab(5, POD[0]);
    assert_eq!(lab.edge.publish(door(Carried::Tcp, POD[0])), Ok(()), "it is there");
    assert_eq!(lab.edge.publish(door(Carried::Tcp, POD[1])), Err(Refusal::InUse));
    lab.world().come(AT, "203.0.113.9:5000", Manner::Echo);
    let (connection, _) = accepted(&mut lab, listener);
    assert_eq!(lab.edge.doors().count(), 1);
    assert!(lab.edge.withdraw(&door(Carried::Tcp, POD[0])));
    assert!(!lab.edge.withdraw(&door(Carried::Tcp, POD[0])));
    assert_eq!(lab.edge.doors().count(), 0);
    assert_eq!(lab.talk(connection, b"still here", true), Ok(b"still here".to_vec()));
}

#[test]
fn clients_wait_for_descriptors() {
    let (mut lab, listener) = lab(6, POD[0]);
    lab.world().sockets = 1;
    lab.world().come(AT, "203.0.113.9:5000", Manner::Source(Vec::new()));
    lab.world().come(AT, "203.0.113.9:5001", Manner::Source(Vec::new()));
    let (connection, _) = accepted(&mut lab, listener);
    assert!(lab.pod.tcp_accept(listener).is_none());
    assert_eq!(lab.talk(connection, b"", true), Ok(Vec::new()));
    lab.run_for(Duration::from_millis(300));
    let (_, from) = accepted(&mut lab, listener);
    assert_eq!(from.port(), 5001);
}

#[test]
fn datagrams_find_their_way_back() {
    let mut lab = Lab::new(7);
    lab.meet();
    lab.edge.publish(door(Carried::Udp, POD[0])).unwrap();
    let socket = lab.pod.udp_bind(POD[0].parse().unwrap()).unwrap();
    for (from, shown) in [("203.0.113.9:5000", "203.0.113.9:5000"), ("127.0.0.1:5000", "192.0.0.2:5000")] {
        for length in [0, 1, 1400] {
            lab.world().send_in(AT, from, "198.51.100.2", &octets(length, 7));
            lab.run_for(Duration::from_millis(5));
            let mut buffer = [0; 2000];
            let datagram = lab.pod.udp_recv_from(socket, &mut buffer).unwrap();
            assert_eq!((datagram.from, datagram.len), (shown.parse().unwrap(), length));
            lab.pod.udp_send_to(lab.now, socket, &buffer[..length], datagram.from).unwrap();
            lab.run_for(Duration::from_millis(5));
            let back = lab.world().going.pop().unwrap();
            let at = "198.51.100.2".parse().unwrap();
            assert_eq!(back, (from.parse().unwrap(), at, octets(length, 7)));
        }
    }
    assert_eq!(lab.edge.carried(), (0, 2));
    assert!(lab.edge.withdraw(&door(Carried::Udp, POD[0])));
    assert_eq!(lab.edge.carried(), (0, 0));
}
