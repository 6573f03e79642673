//! UDP and echo.

use std::net::SocketAddr;
use std::time::Duration;

use netstack::driver::Engine as _;
use netstack::flow::FlowKey;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::host::{HostEvent, IcmpError, UdpHandle};
use netstack::parse::{self, Transport, protocol};
use netstack::seed::Seed;

use super::lab::{EDGE, Lab, OWN, POD, octets, packet};
use super::world::{Manner, World};
use crate::edge::link::Link;
use crate::edge::reassembly::Reassembly;
use crate::edge::{Edge, EdgeConfig, EdgeCounters, EdgeDrop, LINK, Messages, Refusal};

const V4: &str = "198.51.100.1:5000";
const V6: &str = "[2001:db8::1]:5000";

fn socket(lab: &mut Lab, to: &str) -> UdpHandle {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    lab.pod.udp_bind(any.parse().unwrap()).unwrap()
}

fn send(lab: &mut Lab, socket: UdpHandle, to: &str, octets: &[u8]) {
    lab.pod.udp_send_to(lab.now, socket, octets, to.parse().unwrap()).unwrap();
    lab.run_for(Duration::from_millis(2));
}

/// What has come: from where, and what.
fn heard(lab: &mut Lab, socket: UdpHandle) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut buffer = vec![0; 2000];
    let mut all = Vec::new();
    while let Ok(datagram) = lab.pod.udp_recv_from(socket, &mut buffer) {
        all.push((datagram.from, buffer[..datagram.len].to_vec()));
    }
    all
}

#[test]
fn answers_come_from_where_was_asked_and_none_are_joined_or_cut() {
    let mut lab = Lab::new(1);
    for (to, other) in [(V4, "198.51.100.1:5001"), (V6, "[2001:db8::2]:5000")] {
        lab.world().serve(to, Manner::Echo);
        lab.world().serve(other, Manner::Echo);
        let own = socket(&mut lab, to);
        for length in [0, 1, 2, 1000, 1452] {
            send(&mut lab, own, to, &octets(length, 7));
            send(&mut lab, own, other, b"other");
            let expected =
                [(to.parse().unwrap(), octets(length, 7)), (other.parse().unwrap(), b"other".to_vec())];
            assert_eq!(heard(&mut lab, own), expected);
        }
    }
    assert_eq!(lab.edge.carried(), (0, 4));
    assert_eq!(lab.edge.counters().messages, [20, 20]);
}

#[test]
fn datagrams_of_one_flow_that_follow_each_other_leave_together_and_as_they_came() {
    for joins in [false, true] {
        let own = OWN.iter().map(|address| address.parse().unwrap()).collect();
        let edge = EdgeConfig::new(EDGE, own, POD);
        let mut edge = Edge::new(edge, World::new(), FramePool::new(), &Seed::from_u64(1));
        let other = "198.51.100.1:5001";
        edge.outside().joins = joins;
        edge.outside().serve(V4, Manner::Deaf);
        edge.outside().serve(other, Manner::Deaf);
        let mut link = Link::new(&EdgeConfig::new(POD, Vec::new(), EDGE), FramePool::new(), 1);
        let said: Vec<(&str, Vec<u8>)> =
            [(V4, 100), (V4, 100), (V4, 40), (V4, 40), (other, 40), (V4, 0), (V4, 40)]
                .into_iter()
                .zip(0..)
                .map(|((to, length), seed)| (to, octets(length, seed)))
                .collect();
        let mut counters = EdgeCounters::default();
        for (to, datagram) in &said {
            let to: SocketAddr = to.parse().unwrap();
            let key = FlowKey {
                source: to.ip(),
                destination: "10.0.0.2".parse().unwrap(),
                protocol: protocol::UDP,
                source_port: to.port(),
                destination_port: 4000,
            };
            link.send_datagram(&key, datagram, &mut counters);
        }
        let mut batch = FrameBatch::new();
        assert!(link.drain_into(&mut batch));
        edge.handle_frames(Duration::from_secs(1), LINK, &mut batch);
        for to in [V4, other] {
            let sent: Vec<&Vec<u8>> = said.iter().filter(|(at, _)| *at == to).map(|(_, it)| it).collect();
            assert_eq!(edge.outside().peer(to).sent.iter().collect::<Vec<_>>(), sent);
        }
        // The first three; the others are alone, or of no octets.
        assert_eq!(edge.outside().joined, usize::from(joins));
        assert_eq!(edge.counters().messages[0], said.len() as u64);
    }
}

#[test]
fn flows_end_when_nobody_says_anything() {
    let mut lab = Lab::new(2);
    lab.world().serve(V4, Manner::Echo);
    lab.world().serve("198.51.100.1:53", Manner::Deaf);
    lab.world().serve("198.51.100.2:9", Manner::Deaf);
    let own = socket(&mut lab, V4);
    for to in [V4, "198.51.100.1:53", "198.51.100.2:9"] {
        send(&mut lab, own, to, b"x");
    }
    for (seconds, left) in [(9, 3), (2, 2), (20, 1), (140, 1), (20, 0)] {
        lab.wait(Duration::from_secs(seconds));
        assert_eq!(lab.edge.carried(), (0, left));
    }
    lab.assert_at_rest();
}

#[test]
fn an_error_is_told_to_whoever_asked_there() {
    let mut lab = Lab::new(3);
    for (to, code) in [(V4, 3), (V6, 4)] {
        lab.world().serve(to, Manner::Deaf);
        let own = socket(&mut lab, to);
        send(&mut lab, own, to, b"x");
        while lab.pod.poll_event().is_some() {}
        lab.world().say(to, Err(Refusal::Refused));
        lab.run_for(Duration::from_millis(2));
        let told: Vec<HostEvent> = std::iter::from_fn(|| lab.pod.poll_event()).collect();
        let is_it = |event: &HostEvent| matches!(event, HostEvent::IcmpError { error: IcmpError::Unreachable { code: told }, .. } if *told == code);
        assert!(told.iter().any(is_it), "{told:?}");
        // And the next one is tried again.
        send(&mut lab, own, to, b"y");
        assert_eq!(lab.world().peer(to).sent.len(), 2);
    }
}

#[test]
fn at_the_limit_whoever_was_never_answered_makes_room() {
    let mut lab = Lab::with(4, |config| config.limits.messages = 3);
    for port in 1..=5 {
        let manner = if port == 1 { Manner::Echo } else { Manner::Deaf };
        lab.world().serve(&format!("198.51.100.1:{port}"), manner);
    }
    let own = socket(&mut lab, V4);
    for port in 1..=5 {
        send(&mut lab, own, &format!("198.51.100.1:{port}"), b"x");
        lab.run_for(Duration::from_secs(1));
    }
    let left: Vec<u16> = lab.world().peers.values().map(|peer| peer.to.port()).collect();
    let mut left = left;
    left.sort_unstable();
    assert_eq!((left, lab.edge.counters().displaced), (vec![1, 4, 5], 2));
}

#[test]
fn where_no_sockets_are_left_one_is_given_up_and_without_any_it_is_counted() {
    let mut lab = Lab::new(5);
    lab.world().serve(V4, Manner::Deaf);
    lab.world().serve("198.51.100.2:9", Manner::Deaf);
    lab.world().sockets = 1;
    let own = socket(&mut lab, V4);
    send(&mut lab, own, V4, b"x");
    send(&mut lab, own, "198.51.100.2:9", b"x");
    assert_eq!((lab.edge.carried(), lab.edge.counters().displaced), ((0, 1), 1));
    lab.wait(Duration::from_secs(40));
    lab.world().sockets = 0;
    send(&mut lab, own, V4, b"x");
    assert_eq!(lab.edge.counters().dropped(EdgeDrop::NoSockets), 1);
    lab.assert_at_rest();
}

#[test]
fn a_ping_is_answered_by_whoever_was_pinged_or_not_at_all() {
    let mut lab = Lab::new(6);
    for (to, reply) in [("198.51.100.1", 0), ("2001:db8::1", 129)] {
        let at = SocketAddr::new(to.parse().unwrap(), 77).to_string();
        // Whoever carries it makes a reply of it, with an identifier of his own.
        lab.world().serve(&at, Manner::Deaf);
        lab.pod.ping(lab.now, to.parse().unwrap(), 77, 3, b"are you there").unwrap();
        lab.run_for(Duration::from_millis(5));
        assert!(
            std::iter::from_fn(|| lab.pod.poll_event()).all(|e| !matches!(e, HostEvent::EchoReply { .. }))
        );
        let peer = lab.world().peer(&at);
        assert_eq!(peer.messages, Some(Messages::Echo));
        let mut answer = peer.sent[0].clone();
        (answer[0], answer[4], answer[5]) = (reply, 0x12, 0x34);
        lab.world().say(&at, Ok(answer));
        lab.world().say(&at, Ok(vec![3, 1, 0, 0, 0, 0, 0, 0]));
        lab.run_for(Duration::from_millis(5));
        let replies: Vec<HostEvent> = std::iter::from_fn(|| lab.pod.poll_event())
            .filter(|event| matches!(event, HostEvent::EchoReply { .. }))
            .collect();
        let [HostEvent::EchoReply { from, id: 77, sequence: 3, payload, .. }] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert_eq!((from.to_string(), &payload[..]), (to.to_owned(), &b"are you there"[..]));
    }
    assert_eq!(lab.edge.counters().dropped(EdgeDrop::Stray), 2);
    // Where nobody may ping there is silence.
    lab.world().serve("198.51.100.7:5", Manner::No(Refusal::Unsupported, true));
    let before = lab.to_pod;
    lab.pod.ping(lab.now, "198.51.100.7".parse().unwrap(), 5, 1, b"").unwrap();
    lab.run_for(Duration::from_millis(5));
    assert_eq!((lab.to_pod, lab.edge.counters().dropped(EdgeDrop::Refused)), (before, 1));
}

#[test]
fn the_edge_answers_pings_to_its_own_addresses() {
    let mut lab = Lab::new(7);
    lab.meet();
    let replies = std::iter::from_fn(|| lab.pod.poll_event());
    assert_eq!(replies.filter(|event| matches!(event, HostEvent::EchoReply { .. })).count(), 2);
    assert_eq!(lab.edge.carried(), (0, 0));
}

#[test]
fn the_edge_is_a_hop_that_traceroute_shows() {
    let mut lab = Lab::new(8);
    lab.meet();
    lab.pod.set_hop_limit(1);
    for (to, own) in [("198.51.100.1", OWN[0]), ("2001:db8::1", OWN[1])] {
        while lab.pod.poll_event().is_some() {}
        lab.pod.ping(lab.now, to.parse().unwrap(), 1, 1, b"").unwrap();
        lab.run_for(Duration::from_millis(5));
        let told: Vec<HostEvent> = std::iter::from_fn(|| lab.pod.poll_event()).collect();
        let is_it = |event: &HostEvent| {
            matches!(event, HostEvent::IcmpError { from, error: IcmpError::TimeExceeded { code: 0 }, .. }
                if from.to_string() == own)
        };
        assert!(told.iter().any(is_it), "{told:?}");
    }
    assert_eq!(lab.edge.counters().dropped(EdgeDrop::HopLimit), 2);
}

/// Frames that a pod sends whose stack fragments.
struct Sender {
    link: Link,
    edge: Edge<World>,
}

impl Sender {
    fn new() -> Self {
        let own = OWN.iter().map(|address| address.parse().unwrap()).collect();
        let edge = EdgeConfig::new(EDGE, own, POD);
        let link = Link::new(&EdgeConfig::new(POD, Vec::new(), EDGE), FramePool::new(), 1);
        Self { link, edge: Edge::new(edge, World::new(), FramePool::new(), &Seed::from_u64(1)) }
    }

    /// Sends, and returns what comes back.
    fn exchange(&mut self, send: impl FnOnce(&mut Link)) -> Vec<Frame> {
        send(&mut self.link);
        let mut batch = FrameBatch::new();
        let now = Duration::from_secs(1);
        loop {
            let all = self.link.drain_into(&mut batch);
            self.edge.handle_frames(now, LINK, &mut batch);
            if all {
                break;
            }
        }
        self.edge.serve_outside(now);
        let mut frames = Vec::new();
        while self.edge.poll_transmit(&mut batch).is_some() {
            frames.extend(batch.drain());
        }
        frames
    }
}

fn key(remote: &str, protocol: u8) -> FlowKey {
    let remote: SocketAddr = remote.parse().unwrap();
    let pod = if remote.is_ipv4() { "10.0.0.2" } else { "fd00::2" };
    FlowKey {
        source: remote.ip(),
        destination: pod.parse().unwrap(),
        protocol,
        source_port: remote.port(),
        destination_port: 4000,
    }
}

/// The payload of what came in frames: one datagram, in fragments or not.
fn joined(frames: &[Frame]) -> Option<Vec<u8>> {
    let mut all = Reassembly::new(1, Duration::from_secs(1));
    let mut whole = None;
    for frame in frames {
        assert!(frame.len() <= 1514);
        let ip = packet(frame).unwrap();
        let octets = &frame.bytes()[ip.transport_offset..ip.end];
        assert!(whole.is_none());
        whole = match ip.fragment {
            None => Some(octets.to_vec()),
            Some(fragment) => all.take(Duration::ZERO, &ip, fragment, octets, &mut EdgeCounters::default()),
        };
    }
    whole
}

#[test]
fn datagrams_of_every_length_go_there_and_back() {
    for (to, most) in [(V4, 65_507), (V6, 65_527)] {
        let mut sender = Sender::new();
        sender.edge.outside().serve(to, Manner::Echo);
        for length in [0, 1, 1471, 1472, 1473, 1480, 2960, 9000, 65_000, most - 1, most] {
            let said = octets(length, length as u64);
            let frames = sender.exchange(|link| {
                link.send_datagram(&key(to, protocol::UDP), &said, &mut EdgeCounters::default());
            });
            assert_eq!(sender.edge.outside().peer(to).sent.last(), Some(&said), "{to} {length}");
            let back = joined(&frames).unwrap_or_else(|| panic!("{to} {length}: {} frames", frames.len()));
            assert!(back[8..] == said, "{to} {length}");
        }
        let counters = sender.edge.counters();
        assert_eq!(counters.messages, [11, 11]);
        assert!(EdgeDrop::ALL.iter().all(|reason| counters.dropped(*reason) == 0), "{counters:?}");
    }
}

#[test]
fn a_long_ping_goes_there_in_one_piece() {
    let mut sender = Sender::new();
    let at = "198.51.100.1:9";
    sender.edge.outside().serve(at, Manner::Deaf);
    let mut message = vec![8, 0, 0, 0, 0, 9, 0, 1];
    message.extend(octets(5000, 1));
    let sum = nat::checksum::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let frames = sender.exchange(|link| {
        link.send_icmp(&key(at, protocol::ICMP), &message, &mut EdgeCounters::default());
    });
    assert!(frames.is_empty());
    assert_eq!(sender.edge.outside().peer(at).sent, [message]);
}

#[test]
fn several_datagrams_in_one_frame_are_several() {
    use netstack::frame::{SegmentKind, Segmentation};
    let mut sender = Sender::new();
    sender.edge.outside().serve(V4, Manner::Deaf);
    let said = octets(2500, 3);
    let mut batch = FrameBatch::new();
    sender.link.mtu = 9000;
    sender.link.send_datagram(&key(V4, protocol::UDP), &said, &mut EdgeCounters::default());
    assert!(sender.link.drain_into(&mut batch));
    let segmentation = Segmentation { kind: SegmentKind::Udp, size: 1000, ecn: false };
    batch.offload_mut(0).unwrap().segmentation = Some(segmentation);
    sender.edge.handle_frames(Duration::ZERO, LINK, &mut batch);
    let sent = &sender.edge.outside().peer(V4).sent;
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    assert!(sent.concat() == said);
}

#[test]
fn what_is_wrong_is_counted_and_goes_no_further() {
    let mut sender = Sender::new();
    sender.edge.outside().serve(V4, Manner::Deaf);
    let mut batch = FrameBatch::new();
    let mut send = |sender: &mut Sender, change: &dyn Fn(&mut [u8])| {
        sender.link.send_datagram(&key(V4, protocol::UDP), b"octets", &mut EdgeCounters::default());
        sender.link.drain_into(&mut batch);
        batch.bytes_mut().for_each(change);
        *batch.offload_mut(0).unwrap() = netstack::frame::Offload::default();
        sender.edge.handle_frames(Duration::ZERO, LINK, &mut batch);
    };
    send(&mut sender, &|_| {});
    assert_eq!(sender.edge.counters().dropped(EdgeDrop::Checksum), 1, "it was left to the device");
    send(&mut sender, &|frame| frame[5] ^= 0xff);
    send(&mut sender, &|frame| frame[14] = 0);
    assert_eq!(sender.edge.counters().dropped(EdgeDrop::Malformed), 2);
    assert_eq!((sender.edge.carried(), sender.edge.counters().messages), ((0, 0), [0, 0]));
    let frames = sender.exchange(|link| {
        link.send_icmp(&key(V4, 132), &[0; 20], &mut EdgeCounters::default());
    });
    assert_eq!(sender.edge.counters().dropped(EdgeDrop::NotCarried), 1);
    let told = packet(&frames[0]).unwrap();
    assert!(matches!(told.transport, Transport::Icmp { kind: 3, code: 2, .. }), "{told:?}");
    assert!(parse::verify_transport_checksum(frames[0].bytes(), &told));
}
