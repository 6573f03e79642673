//! TCP segment by segment: what a host in its right mind does not send, or not in that order.

use std::time::Duration;

use netstack::driver::Engine as _;
use netstack::flow::FlowKey;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::parse::{Transport, protocol};
use netstack::seed::Seed;

use super::lab::{EDGE, OWN, POD, octets, packet};
use super::world::{Manner, World};
use crate::edge::link::{Link, TcpHeader};
use crate::edge::{Edge, EdgeConfig, EdgeDrop, LINK};

const TO: &str = "198.51.100.1:80";
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Where the pod's stream begins: it goes round soon.
const FIRST: u32 = u32::MAX - 100;

/// A segment as it came from the edge.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Heard {
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    window: u16,
    octets: Vec<u8>,
}

struct Wire {
    now: Duration,
    link: Link,
    edge: Edge<World>,
    key: FlowKey,
    /// The largest segment that the pod takes.
    size: u16,
}

impl Wire {
    fn new() -> Self {
        Self::of_mtu(1500)
    }

    fn of_mtu(mtu: u16) -> Self {
        let own = OWN.iter().map(|address| address.parse().unwrap()).collect();
        let edge = EdgeConfig { mtu, ..EdgeConfig::new(EDGE, own, POD) };
        let mut edge = Edge::new(edge, World::new(), FramePool::new(), &Seed::from_u64(1));
        edge.outside().serve(TO, Manner::Echo);
        Self {
            now: Duration::from_secs(1),
            link: Link::new(&EdgeConfig::new(POD, Vec::new(), EDGE), FramePool::new(), 1),
            edge,
            key: FlowKey {
                source: "198.51.100.1".parse().unwrap(),
                destination: "10.0.0.2".parse().unwrap(),
                protocol: protocol::TCP,
                source_port: 80,
                destination_port: 4000,
            },
            size: mtu - 40,
        }
    }

    fn say(&mut self, flags: u8, sequence: u32, acknowledgement: u32, octets: &[u8]) -> Vec<Heard> {
        let (mut frame, at) = self.link.segment_room(&self.key, octets.len());
        frame.bytes_mut()[at..].copy_from_slice(octets);
        // The size of the segments and the scale of windows.
        let [high, low] = self.size.to_be_bytes();
        let options: &[u8] = if flags & SYN > 0 { &[2, 4, high, low, 1, 3, 3, 2] } else { &[] };
        let header = TcpHeader { flags, sequence, acknowledgement, window: 0x4000, options };
        let frame = if options.is_empty() {
            self.link.finish_segment(frame, &self.key, &header, octets.len(), 1460)
        } else {
            self.link.bare_segment(&self.key, &header)
        };
        let mut batch = FrameBatch::new();
        batch.push(frame).unwrap();
        self.edge.handle_frames(self.now, LINK, &mut batch);
        self.hear()
    }

    fn hear(&mut self) -> Vec<Heard> {
        let (mut batch, mut heard) = (FrameBatch::new(), Vec::new());
        while self.edge.poll_transmit(&mut batch).is_some() {
            heard.extend(batch.drain().map(|frame| read(&frame)));
        }
        heard
    }

    fn outside(&mut self) -> Vec<Heard> {
        self.edge.outside().step();
        self.edge.serve_outside(self.now);
        self.hear()
    }

    fn wait(&mut self, time: Duration) -> Vec<Heard> {
        let until = self.now + time;
        let mut heard = Vec::new();
        while let Some(at) = self.edge.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.edge.handle_timeout(self.now);
            heard.extend(self.hear());
        }
        self.now = until;
        heard
    }

    /// A connection that stands; where the edge's octets begin.
    fn open(&mut self) -> u32 {
        assert_eq!(self.say(SYN, FIRST, 0, b""), [], "the outside is asked first");
        let answer = self.outside();
        let [Heard { flags, sequence, acknowledgement, window: u16::MAX, octets }] = &answer[..] else {
            panic!("{answer:?}")
        };
        assert_eq!((*flags, *acknowledgement, octets.len()), (SYN | ACK, FIRST.wrapping_add(1), 0));
        let first = sequence.wrapping_add(1);
        assert_eq!(self.say(ACK, FIRST.wrapping_add(1), first, b""), []);
        first
    }

    fn dropped(&self, reason: EdgeDrop) -> u64 {
        self.edge.counters().dropped(reason)
    }
}

fn read(frame: &Frame) -> Heard {
    let ip = packet(frame).unwrap();
    let Transport::Tcp { header_len, flags, .. } = ip.transport else { panic!("{ip:?}") };
    let segment = &frame.bytes()[ip.transport_offset..ip.end];
    let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
    Heard {
        flags,
        sequence: word(4),
        acknowledgement: word(8),
        window: u16::from_be_bytes([segment[14], segment[15]]),
        octets: segment[header_len..].to_vec(),
    }
}

#[test]
fn a_syn_that_comes_again_is_answered_again_and_asks_the_outside_once() {
    let mut wire = Wire::new();
    wire.say(SYN, FIRST, 0, b"");
    assert_eq!(wire.say(SYN, FIRST, 0, b""), []);
    let answer = wire.outside();
    assert_eq!(wire.say(SYN, FIRST, 0, b""), answer);
    assert_eq!(wire.edge.counters().asked, 1);
    // By itself it is said again after a second, then after two more, and so on; then it is given up.
    let again = wire.wait(Duration::from_secs(100));
    assert_eq!(again.iter().filter(|heard| heard.flags == SYN | ACK).count(), 5);
    assert_eq!(again.last().map(|heard| heard.flags), Some(RST | ACK));
    assert_eq!((wire.edge.carried(), wire.edge.counters().given_up), ((0, 0), 1));
}

#[test]
fn octets_that_come_early_are_asked_for_again_and_those_known_are_not_passed_on() {
    let mut wire = Wire::new();
    let first = wire.open();
    let at = |octets: u32| FIRST.wrapping_add(1).wrapping_add(octets);
    let early = wire.say(ACK, at(10), first, b"world");
    assert_eq!(early.iter().map(|heard| heard.acknowledgement).collect::<Vec<_>>(), [at(0)]);
    assert_eq!(wire.dropped(EdgeDrop::OutOfOrder), 1);
    wire.say(ACK, at(0), first, b"hello, ");
    let known = wire.say(ACK, at(0), first, b"hello, wor");
    assert_eq!(known[0].acknowledgement, at(10));
    wire.say(ACK, at(3), first, b"lo,");
    assert_eq!(wire.edge.outside().peer(TO).got, b"hello, wor");
}

#[test]
fn frames_hold_whole_segments_whatever_their_size() {
    for mtu in [1500, 9000, 33_000, 65_520, 65_535] {
        let mut wire = Wire::of_mtu(mtu);
        wire.edge.outside().serve(TO, Manner::Source(octets(200_000, 9)));
        let first = wire.open();
        let heard = wire.outside();
        let size = usize::from(wire.size);
        let (count, sequence) = (heard[0].octets.len(), heard[0].sequence);
        assert!(count >= size, "{count} octets in segments of {size}");
        // And again, once they are lost.
        let again = wire.wait(Duration::from_secs(2));
        assert_eq!((again[0].sequence, again[0].octets.len() >= size), (sequence, true));
        assert_eq!(sequence, first);
    }
}

#[test]
fn an_acknowledgement_goes_with_an_answer_that_comes_soon_and_else_by_itself() {
    let mut wire = Wire::new();
    let first = wire.open();
    let at = |octets: u32| FIRST.wrapping_add(1).wrapping_add(octets);
    let acknowledged = |heard: &[Heard]| heard.iter().map(|heard| heard.acknowledgement).collect::<Vec<_>>();
    let first_of = |octets: u32| first.wrapping_add(octets);
    assert_eq!(wire.say(ACK, at(0), first, b"question"), []);
    let answer = wire.outside();
    assert_eq!((acknowledged(&answer), &answer[0].octets[..]), (vec![at(8)], &b"question"[..]));
    // No answer for five milliseconds: then, and the next time at once.
    assert_eq!(wire.say(ACK, at(8), first_of(8), b"again"), []);
    assert_eq!(acknowledged(&wire.wait(Duration::from_millis(5))), [at(13)]);
    assert_eq!(acknowledged(&wire.say(ACK, at(13), first_of(8), b"third")), [at(18)]);
    // An answer at once: the next one waits again; whatever else is said, it does not wait longer.
    assert_eq!(wire.outside()[0].octets, b"againthird");
    assert_eq!(wire.say(ACK, at(18), first_of(18), b"x"), []);
    assert_eq!(acknowledged(&wire.say(ACK, at(19), first_of(18), b"y")), [at(20)]);
    assert_eq!(wire.wait(Duration::from_millis(50)), []);
}

#[test]
fn a_batch_is_acknowledged_once() {
    let mut wire = Wire::new();
    let first = wire.open();
    let mut batch = FrameBatch::new();
    for part in 0..10u32 {
        let (mut frame, at) = wire.link.segment_room(&wire.key, 1000);
        frame.bytes_mut()[at..].copy_from_slice(&octets(1000, part.into()));
        let sequence = FIRST.wrapping_add(1 + part * 1000);
        let header = TcpHeader { flags: ACK, sequence, acknowledgement: first, window: 100, options: &[] };
        batch.push(wire.link.finish_segment(frame, &wire.key, &header, 1000, 1460)).unwrap();
    }
    wire.edge.handle_frames(wire.now, LINK, &mut batch);
    let heard = wire.hear();
    assert_eq!(
        heard.iter().map(|heard| heard.acknowledgement).collect::<Vec<_>>(),
        [FIRST.wrapping_add(10_001)]
    );
}

#[test]
fn a_reset_is_believed_at_one_place_only() {
    let mut wire = Wire::new();
    let first = wire.open();
    assert_eq!(wire.say(RST, FIRST.wrapping_add(70_000), 0, b""), []);
    let challenged = wire.say(RST, FIRST.wrapping_add(100), 0, b"");
    assert_eq!((challenged.len(), challenged[0].flags, challenged[0].sequence), (1, ACK, first));
    let challenged = wire.say(SYN, FIRST.wrapping_add(50), 0, b"");
    assert_eq!((challenged.len(), challenged[0].flags), (1, ACK));
    assert_eq!(wire.edge.carried(), (1, 0));
    assert_eq!(wire.say(RST, FIRST.wrapping_add(1), 0, b""), []);
    assert_eq!(wire.edge.carried(), (0, 0));
}

#[test]
fn what_is_for_no_connection_is_reset_but_a_reset_is_not() {
    let mut wire = Wire::new();
    let answer = wire.say(ACK, 5, 9, b"x");
    assert_eq!((answer[0].flags & RST, answer[0].sequence), (RST, 9));
    assert_eq!(wire.say(RST, 5, 9, b""), []);
    assert_eq!(wire.dropped(EdgeDrop::NoConnection), 2);
}

#[test]
fn lost_octets_are_sent_again_from_where_they_are() {
    let mut wire = Wire::new();
    let first = wire.open();
    let said = octets(5000, 5);
    let next = FIRST.wrapping_add(5001);
    wire.say(ACK, FIRST.wrapping_add(1), first, &said);
    let heard = wire.outside();
    let echoed: Vec<u8> = heard.iter().flat_map(|heard| heard.octets.clone()).collect();
    assert!(echoed == said);
    // Three times the same acknowledgement.
    let mut again = Vec::new();
    for _ in 0..3 {
        again.extend(wire.say(ACK, next, first, b""));
    }
    assert_eq!((again.len(), again[0].sequence), (1, first));
    assert!(again[0].octets == said[..again[0].octets.len()]);
    // None at all.
    let again = wire.wait(Duration::from_secs(2));
    assert_eq!(again[0].sequence, first);
    assert_eq!(wire.say(ACK, next, first.wrapping_add(5000), b""), []);
    assert_eq!(wire.wait(Duration::from_secs(100)), []);
    assert_eq!(wire.edge.outside().peer(TO).incoming.len(), 0);
}

#[test]
fn a_pod_that_takes_nothing_is_asked_again_and_again() {
    let mut wire = Wire::new();
    wire.edge.outside().serve(TO, Manner::Source(octets(100_000, 6)));
    let first = wire.open();
    let heard = wire.outside();
    let sent: usize = heard.iter().map(|heard| heard.octets.len()).sum();
    let to = first.wrapping_add(u32::try_from(sent).unwrap());
    // It has all of it, and takes no more.
    let shut = |wire: &mut Wire| {
        let header = TcpHeader {
            flags: ACK,
            sequence: FIRST.wrapping_add(1),
            acknowledgement: to,
            window: 0,
            options: &[],
        };
        let mut batch = FrameBatch::new();
        batch.push(wire.link.bare_segment(&wire.key, &header)).unwrap();
        wire.edge.handle_frames(wire.now, LINK, &mut batch);
        wire.hear()
    };
    assert_eq!(shut(&mut wire), []);
    for _ in 0..50 {
        let asked = wire.wait(Duration::from_secs(61));
        assert!(
            asked.iter().all(|heard| heard.octets.is_empty() && heard.sequence == to.wrapping_sub(1)),
            "{asked:?}"
        );
        assert!(!asked.is_empty());
        assert_eq!(shut(&mut wire), []);
    }
    // It goes on at once.
    let more = wire.say(ACK, FIRST.wrapping_add(1), to, b"");
    assert_eq!(more[0].sequence, to);
    assert!(!more[0].octets.is_empty());
}

#[test]
fn the_last_end_is_acknowledged_again_and_a_new_connection_may_begin_at_once() {
    let mut wire = Wire::new();
    wire.edge.outside().serve(TO, Manner::Source(Vec::new()));
    let first = wire.open();
    let heard = wire.outside();
    assert_eq!(heard.last().map(|heard| heard.flags), Some(FIN | ACK));
    let last = wire.say(FIN | ACK, FIRST.wrapping_add(1), first.wrapping_add(1), b"");
    assert_eq!((last.len(), last[0].acknowledgement), (1, FIRST.wrapping_add(2)));
    assert!(wire.edge.outside().peers.is_empty());
    assert_eq!(wire.say(FIN | ACK, FIRST.wrapping_add(1), first.wrapping_add(1), b""), last);
    assert_eq!(wire.edge.carried(), (1, 0));
    assert_eq!(wire.say(SYN, FIRST.wrapping_add(1000), 0, b""), []);
    assert_eq!(wire.outside()[0].flags, SYN | ACK);
    assert_eq!(wire.edge.counters().established, 2);
}
