//! Neighbour resolution between two hosts.

use super::*;
use crate::emit::{self, ALL_NODES};

fn is_question(frame: &Frame) -> bool {
    let bytes = frame.bytes();
    (bytes[12..14] == [0x08, 0x06] && bytes[21] == 1)
        || (bytes[12..14] == [0x86, 0xdd] && bytes[20] == 58 && bytes[54] == 135)
}

#[test]
fn an_unanswered_question_is_asked_three_times_a_second_apart() {
    for family in BOTH {
        let mut lab = Lab::new();
        let asked = alloc::rc::Rc::new(core::cell::RefCell::new(0));
        let count = asked.clone();
        lab.filter = Box::new(move |_, frame| {
            assert!(is_question(frame), "{:?}", frame.bytes());
            *count.borrow_mut() += 1;
            false
        });
        let since = lab.now;
        let client = lab.hosts[0].tcp_connect(lab.now, SocketAddr::new(address(9, family), 80)).unwrap();
        lab.drive(100, |lab| lab.hosts[0].tcp_error(client).is_some());
        assert_eq!(lab.hosts[0].tcp_error(client), Some(TcpError::Unreachable));
        assert_eq!(lab.now - since, Duration::from_secs(3));
        assert_eq!(*asked.borrow(), 3);
        let events = lab.events(0);
        assert!(events.contains(&HostEvent::NeighborFailed { address: address(9, family) }), "{events:?}");
        assert!(lab.hosts[0].counters().neighbor_failed > 0);
        assert_eq!(lab.hosts[0].poll_timeout(), None);
    }
}

#[test]
fn a_lost_question_is_repeated_and_what_waited_goes_out_in_order() {
    for family in BOTH {
        let mut lab = Lab::new();
        let mut lost = false;
        lab.filter = Box::new(move |_, _| core::mem::replace(&mut lost, true));
        let (from, sink, to) = lab.datagram_sockets(family);
        for i in 0..20u8 {
            lab.hosts[0].udp_send_to(lab.now, from, &[i], to).unwrap();
        }
        let since = lab.now;
        lab.run_until(lab.now + Duration::from_secs(2));
        let mut got = Vec::new();
        let mut buffer = [0; 1];
        while lab.hosts[1].udp_recv_from(sink, &mut buffer).is_ok() {
            got.push(buffer[0]);
        }
        assert_eq!(got, (4..20).collect::<Vec<u8>>(), "the latest sixteen");
        assert_eq!(lab.hosts[0].counters().parked_full, 4);
        assert!(lab.now > since);
        lab.check();
    }
}

#[test]
fn a_neighbour_is_confirmed_by_unicast_and_dropped_when_it_is_gone() {
    for family in BOTH {
        let mut lab = Lab::new();
        lab.hosts[0].ping(lab.now, address(2, family), 1, 1, b"").unwrap();
        lab.run_until(lab.now + Duration::from_secs(31));
        let unicast = alloc::rc::Rc::new(core::cell::RefCell::new((0, 0)));
        let count = unicast.clone();
        lab.filter = Box::new(move |side, frame| {
            if side == 0 && is_question(frame) {
                let to_all = frame.bytes()[0] & 1 != 0;
                let mut count = count.borrow_mut();
                *(if to_all { &mut count.1 } else { &mut count.0 }) += 1;
            }
            true
        });
        lab.hosts[0].ping(lab.now, address(2, family), 1, 2, b"").unwrap();
        lab.run_until(lab.now + Duration::from_secs(5));
        assert_eq!(*unicast.borrow(), (1, 0));
        let replies =
            lab.events(0).iter().filter(|event| matches!(event, HostEvent::EchoReply { .. })).count();
        assert_eq!(replies, 2);

        lab.run_until(lab.now + Duration::from_secs(31));
        lab.filter = Box::new(|_, _| false);
        lab.hosts[0].ping(lab.now, address(2, family), 1, 3, b"").unwrap();
        lab.run_until(lab.now + Duration::from_secs(5));
        assert_eq!(lab.events(0), [HostEvent::NeighborFailed { address: address(2, family) }]);
    }
}

#[test]
fn a_full_table_of_neighbours_drops_and_counts() {
    let mut first = config(1);
    first.limits.neighbors = 4;
    let mut lab = Lab::with(first, config(2));
    lab.filter = Box::new(|_, _| false);
    for host in 10..20 {
        lab.hosts[0].ping(lab.now, address(host, Family::V4), 1, 1, b"").unwrap();
    }
    assert_eq!(lab.hosts[0].counters().neighbors_full, 6);
    lab.run_until(lab.now + Duration::from_secs(4));
    lab.hosts[0].ping(lab.now, address(2, Family::V4), 1, 1, b"").unwrap();
    lab.filter = Box::new(|_, _| true);
    lab.run_until(lab.now + Duration::from_secs(1));
    assert!(lab.events(0).iter().any(|event| matches!(event, HostEvent::EchoReply { .. })));
}

#[test]
fn a_stranger_does_not_fill_the_table() {
    let mut lab = Lab::new();
    // Host 1 asks for somebody else, again and again, as seen by host 2.
    for host in 3..200 {
        let _ = lab.hosts[0].ping(lab.now, address(host, Family::V4), 1, 1, b"");
        lab.exchange();
    }
    assert!(lab.hosts[1].link.neighbors.is_empty());
}

#[test]
fn a_probe_is_answered_and_teaches_nothing() {
    for family in BOTH {
        let mut lab = Lab::new();
        let host = &mut lab.hosts[1];
        let (prober, target) = (MacAddr::local(9), address(2, family));
        let question = emit::neighbor_question(&mut host.link.pool, prober, any(family), target, None);
        let mut batch = FrameBatch::new();
        batch.push(question.unwrap()).unwrap();
        host.handle_frames(lab.now, &mut batch);
        assert!(host.poll_transmit(&mut batch));
        let all = MacAddr::for_multicast(IpAddr::V6(ALL_NODES));
        let to = if family == Family::V4 { prober } else { all };
        assert_eq!(batch.pop().unwrap().bytes()[..6], to.0);
        assert!(batch.is_empty() && host.link.neighbors.is_empty());
    }
}
