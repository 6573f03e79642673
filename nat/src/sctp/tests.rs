//! Packets are written here octet by octet, as RFC 9260 draws them.

extern crate std;

use super::*;
use Direction::{Original, Reply};
use proptest::prelude::*;
use std::vec::Vec;

/// Tags that the two sides ask for.
const A: u32 = 0xaaaa_0001;
const B: u32 = 0xbbbb_0002;

const SACK: u8 = 3;

/// One packet of chunks: type, flags, value.
fn packet(tag: u32, chunks: &[(u8, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = std::vec![0x9c, 0x40, 0, 80];
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    for (kind, flags, value) in chunks {
        bytes.extend([*kind, *flags]);
        bytes.extend(u16::try_from(value.len() + 4).unwrap().to_be_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// What INIT and INIT ACK hold: a tag, a window, streams, a first sequence number.
fn init(tag: u32) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 10, 0, 10, 1, 2, 3, 4]].concat()
}

fn accepted(refresh: bool, changed: bool) -> Result<Accepted, Invalid> {
    Ok(Accepted { refresh, changed })
}

fn open(bytes: &[u8]) -> Result<Sctp, Invalid> {
    Sctp::open(Packet::read(bytes)?)
}

fn give(sctp: &mut Sctp, direction: Direction, bytes: &[u8]) -> Result<Accepted, Invalid> {
    let before = *sctp;
    let result = sctp.update(direction, Packet::read(bytes)?);
    if result.is_err() {
        assert_eq!(*sctp, before, "what is invalid changes nothing");
    }
    result
}

/// A packet of one chunk with the tag that goes with the direction.
fn say(sctp: &mut Sctp, direction: Direction, kind: u8) -> Result<Accepted, Invalid> {
    let (tag, asked) = match direction {
        Original => (B, A),
        Reply => (A, B),
    };
    let value = if matches!(kind, chunk::INIT | chunk::INIT_ACK) { init(asked) } else { Vec::new() };
    let tag = if kind == chunk::INIT { 0 } else { tag };
    give(sctp, direction, &packet(tag, &[(kind, 0, &value)]))
}

fn opened() -> Sctp {
    open(&packet(0, &[(chunk::INIT, 0, &init(A))])).unwrap()
}

fn established() -> Sctp {
    let mut sctp = opened();
    assert_eq!(say(&mut sctp, Reply, chunk::INIT_ACK), accepted(true, true));
    assert_eq!(say(&mut sctp, Original, chunk::COOKIE_ECHO), accepted(true, true));
    assert_eq!(say(&mut sctp, Reply, chunk::COOKIE_ACK), accepted(true, true));
    sctp
}

#[test]
fn an_association_from_its_beginning_to_its_end() {
    let times = SctpTimeouts {
        cookie_wait: Duration::from_secs(1),
        cookie_echoed: Duration::from_secs(2),
        established: Duration::from_secs(3),
        shutdown_sent: Duration::from_secs(4),
        shutdown_received: Duration::from_secs(5),
        shutdown_ack_sent: Duration::from_secs(6),
        closed: Duration::from_secs(7),
        heartbeat_sent: Duration::from_secs(8),
    };
    let mut sctp = opened();
    assert_eq!((sctp.state(), sctp.has_reply()), (State::Closed, false));
    assert_eq!(sctp.timeout(&times), times.closed);
    for (direction, kind, state, time) in [
        (Reply, chunk::INIT_ACK, State::CookieWait, times.cookie_wait),
        (Original, chunk::COOKIE_ECHO, State::CookieEchoed, times.cookie_echoed),
        (Reply, chunk::COOKIE_ACK, State::Established, times.established),
        (Original, chunk::DATA, State::Established, times.established),
        (Reply, SACK, State::Established, times.established),
        (Original, chunk::SHUTDOWN, State::ShutdownSent, times.shutdown_sent),
        (Reply, chunk::SHUTDOWN_ACK, State::ShutdownAckSent, times.shutdown_ack_sent),
        (Original, chunk::SHUTDOWN_COMPLETE, State::Closed, times.closed),
    ] {
        let before = sctp.state();
        assert_eq!(say(&mut sctp, direction, kind), accepted(true, before != state), "{kind}");
        assert_eq!((sctp.state(), sctp.timeout(&times)), (state, time), "{kind}");
        assert!(sctp.has_reply());
        assert_eq!(sctp.is_assured(), state == State::Established || before >= State::Established, "{kind}");
        let closing = matches!(state, State::ShutdownSent | State::ShutdownAckSent);
        assert_eq!(sctp.is_closing(), closing, "{kind}");
    }
    let mut other = established();
    assert_eq!(say(&mut other, Reply, chunk::SHUTDOWN), accepted(true, true));
    assert_eq!(other.timeout(&times), times.shutdown_received);
}

#[test]
fn an_init_that_comes_again_does_not_extend_the_time() {
    let mut sctp = opened();
    for _ in 0..5 {
        assert_eq!(say(&mut sctp, Original, chunk::INIT), accepted(false, false));
    }
    assert_eq!(say(&mut sctp, Reply, chunk::INIT_ACK), accepted(true, true));
}

#[test]
fn packets_carry_the_tag_of_whom_they_go_to() {
    for kind in [
        chunk::DATA,
        SACK,
        chunk::SHUTDOWN,
        chunk::ERROR,
        chunk::COOKIE_ECHO,
        chunk::COOKIE_ACK,
        chunk::INIT_ACK,
        chunk::ABORT,
        chunk::SHUTDOWN_COMPLETE,
    ] {
        for (direction, right, wrong) in [(Original, B, [A, 0, 1]), (Reply, A, [B, 0, 1])] {
            let asked = if direction == Original { A } else { B };
            let probe = |tag| packet(tag, &[(kind, 0, &init(asked))]);
            for tag in wrong {
                assert_eq!(give(&mut established(), direction, &probe(tag)), Err(Invalid::Tag), "{kind}");
            }
            assert!(give(&mut established(), direction, &probe(right)).is_ok(), "{kind} {direction:?}");
        }
    }
    let tagged = packet(B, &[(chunk::INIT, 0, &init(A))]);
    assert_eq!(give(&mut established(), Original, &tagged), Err(Invalid::Tag), "that of an INIT is 0");
}

#[test]
fn an_abort_may_reflect_the_tag_of_its_sender() {
    for kind in [chunk::ABORT, chunk::SHUTDOWN_COMPLETE] {
        let reflected = |tag| packet(tag, &[(kind, REFLECTED, &[])]);
        assert!(give(&mut established(), Reply, &reflected(B)).is_ok());
        assert_eq!(give(&mut established(), Reply, &reflected(A)), Err(Invalid::Tag));
    }
    let mut sctp = established();
    assert_eq!(give(&mut sctp, Reply, &packet(B, &[(chunk::ABORT, REFLECTED, &[])])), accepted(true, true));
    assert_eq!(sctp.state(), State::Closed);
}

#[test]
fn an_init_ack_does_not_replace_a_tag_that_is_known() {
    let mut sctp = established();
    let forged = packet(A, &[(chunk::INIT_ACK, 0, &init(0x666))]);
    // Its INIT is long answered.
    assert_eq!(give(&mut sctp, Reply, &forged), Err(Invalid::Tag));
    assert_eq!(say(&mut sctp, Reply, chunk::INIT_ACK), accepted(true, false), "the same again is harmless");
}

#[test]
fn both_sides_may_begin() {
    // RFC 9260 section 5.2.1: each answers the other's INIT with the tag of its own.
    let mut sctp = opened();
    assert_eq!(say(&mut sctp, Reply, chunk::INIT), accepted(false, false));
    let stranger = packet(A, &[(chunk::INIT_ACK, 0, &init(0x666))]);
    assert_eq!(give(&mut sctp, Reply, &stranger), Err(Invalid::Tag));
    for (direction, kind) in [
        (Original, chunk::INIT_ACK),
        (Reply, chunk::INIT_ACK),
        (Original, chunk::COOKIE_ECHO),
        (Reply, chunk::COOKIE_ECHO),
        (Original, chunk::COOKIE_ACK),
        (Reply, chunk::COOKIE_ACK),
    ] {
        assert!(say(&mut sctp, direction, kind).is_ok(), "{direction:?} {kind}");
    }
    assert_eq!(sctp.state(), State::Established);
}

#[test]
fn who_begins_again_may_get_another_tag() {
    let mut sctp = opened();
    assert!(say(&mut sctp, Reply, chunk::INIT).is_ok());
    let other = packet(A, &[(chunk::INIT_ACK, 0, &init(0x777))]);
    assert_eq!(give(&mut { sctp }, Reply, &other), Err(Invalid::Tag));
    assert!(say(&mut sctp, Original, chunk::INIT).is_ok());
    assert_eq!(give(&mut sctp, Reply, &other), accepted(true, true));
    let echo = packet(0x777, &[(chunk::COOKIE_ECHO, 0, &[])]);
    assert_eq!(give(&mut sctp, Original, &echo), accepted(true, true));
}

#[test]
fn a_second_path_is_known_by_its_heartbeats() {
    let beat = packet(B, &[(chunk::HEARTBEAT, 0, &[0; 8])]);
    let mut sctp = open(&beat).unwrap();
    assert_eq!(sctp.state(), State::HeartbeatSent);
    assert_eq!(give(&mut sctp, Original, &beat), accepted(true, false));
    let answer = packet(A, &[(chunk::HEARTBEAT_ACK, 0, &[0; 8])]);
    assert_eq!(give(&mut sctp, Reply, &answer), accepted(true, true));
    assert!(sctp.is_assured() && sctp.state() == State::Established);
    assert_eq!(say(&mut sctp, Original, chunk::DATA), accepted(true, false));
    assert_eq!(say(&mut sctp, Reply, chunk::DATA), accepted(true, false));
    let stranger = packet(0x666, &[(chunk::DATA, 0, &[0; 16])]);
    assert_eq!(give(&mut sctp, Reply, &stranger), Err(Invalid::Tag));
}

#[test]
fn an_answered_heartbeat_replaces_the_tags_and_one_alone_does_not() {
    const NEW: [u32; 2] = [0x1111, 0x2222];
    let beat = packet(NEW[0], &[(chunk::HEARTBEAT, 0, &[0; 8])]);
    let answer = packet(NEW[1], &[(chunk::HEARTBEAT_ACK, 0, &[0; 8])]);
    let mut sctp = established();
    assert_eq!(give(&mut sctp, Reply, &answer), Err(Invalid::Tag), "nobody asked");
    assert_eq!(give(&mut sctp, Original, &beat), accepted(false, false));
    assert_eq!(give(&mut sctp, Original, &answer), Err(Invalid::Tag), "nobody answers himself");
    assert_eq!(say(&mut sctp, Original, chunk::DATA), accepted(true, false), "nothing is proven");
    let mut still = sctp;
    assert_eq!(say(&mut still, Original, chunk::HEARTBEAT), accepted(true, false), "the old tag is alive");
    assert_eq!(give(&mut still, Reply, &answer), Err(Invalid::Tag));
    assert_eq!(give(&mut sctp, Reply, &answer), accepted(true, false));
    assert_eq!(say(&mut sctp, Reply, chunk::DATA), Err(Invalid::Tag));
    assert!(give(&mut sctp, Reply, &packet(NEW[1], &[(chunk::DATA, 0, &[])])).is_ok());
    assert_eq!(
        give(&mut sctp, Original, &beat),
        accepted(true, false),
        "the other tag is free to be learned"
    );
    let with_data = packet(7, &[(chunk::HEARTBEAT, 0, &[0; 8]), (chunk::DATA, 0, &[])]);
    assert_eq!(give(&mut sctp, Original, &with_data), Err(Invalid::Tag));
}

#[test]
fn only_what_may_begin_something_opens() {
    for (kind, expected) in [
        (chunk::DATA, Err(Invalid::State)),
        (SACK, Err(Invalid::State)),
        (200, Err(Invalid::State)),
        (chunk::INIT, Ok(State::Closed)),
        (chunk::INIT_ACK, Err(Invalid::Tag)),
        (chunk::ABORT, Err(Invalid::State)),
        (chunk::SHUTDOWN, Err(Invalid::Tag)),
        (chunk::SHUTDOWN_ACK, Ok(State::ShutdownAckSent)),
        (chunk::ERROR, Err(Invalid::Tag)),
        (chunk::COOKIE_ECHO, Err(Invalid::Tag)),
        (chunk::COOKIE_ACK, Err(Invalid::State)),
        (chunk::SHUTDOWN_COMPLETE, Err(Invalid::State)),
        (chunk::HEARTBEAT, Ok(State::HeartbeatSent)),
        (chunk::HEARTBEAT_ACK, Ok(State::Closed)),
    ] {
        let tag = if kind == chunk::INIT { 0 } else { B };
        let bytes = packet(tag, &[(kind, 0, &init(A))]);
        assert_eq!(open(&bytes).map(|sctp| sctp.state()), expected, "{kind}");
    }
    assert_eq!(open(&packet(B, &[(chunk::INIT, 0, &init(A))])), Err(Invalid::Tag));
}

#[test]
fn a_packet_out_of_the_blue_is_answered_with_its_own_tag() {
    // RFC 9260 section 8.4 (5): SHUTDOWN COMPLETE with the tag of the SHUTDOWN ACK, and the T bit.
    let mut sctp = open(&packet(B, &[(chunk::SHUTDOWN_ACK, 0, &[])])).unwrap();
    let complete = packet(B, &[(chunk::SHUTDOWN_COMPLETE, 0, &[])]);
    assert_eq!(give(&mut sctp, Reply, &complete), accepted(true, true));
    assert_eq!(sctp.state(), State::Closed);
}

#[test]
fn chunks_that_have_to_be_first_or_alone_are() {
    let value = init(A);
    let (init, ack) = ((chunk::INIT, 0, &value[..]), (chunk::INIT_ACK, 0, &value[..]));
    let data: (u8, u8, &[u8]) = (chunk::DATA, 0, &[0; 13]);
    let echo: (u8, u8, &[u8]) = (chunk::COOKIE_ECHO, 0, &[0; 5]);
    let answer: (u8, u8, &[u8]) = (chunk::COOKIE_ACK, 0, &[]);
    let complete: (u8, u8, &[u8]) = (chunk::SHUTDOWN_COMPLETE, 0, &[]);
    for wrong in [
        &[init, data][..],
        &[data, init],
        &[ack, data],
        &[data, ack],
        &[complete, data],
        &[data, complete],
        &[data, echo],
        &[data, answer],
        &[echo, answer],
    ] {
        assert_eq!(Packet::read(&packet(B, wrong)).map(|_| ()), Err(Invalid::Bundle));
    }
    for right in [&[init][..], &[ack], &[complete], &[echo, data, data], &[answer, data], &[data, data]] {
        assert!(Packet::read(&packet(B, right)).is_ok());
    }
}

#[test]
fn a_packet_that_is_cut_is_invalid_wherever_it_is_cut() {
    let value = [1; 5];
    let whole = packet(B, &[(chunk::DATA, 0, &value), (chunk::DATA, 0, &value)]);
    assert_eq!(whole.len(), 12 + 24);
    for length in 0..whole.len() {
        let expected = match length {
            0..=12 => Err(Invalid::Truncated),
            // Whole chunks, and the padding that may be missing at the end.
            21..=24 | 33.. => Ok(()),
            _ => Err(Invalid::ChunkLength),
        };
        assert_eq!(Packet::read(&whole[..length]).map(|_| ()), expected, "{length}");
    }
    for length in 0..4 {
        let bytes = [&packet(B, &[])[..], &[0, 0, 0, length]].concat();
        assert_eq!(Packet::read(&bytes).map(|_| ()), Err(Invalid::ChunkLength));
    }
    let short = packet(0, &[(chunk::INIT, 0, &init(A)[..15])]);
    assert_eq!(open(&short), Err(Invalid::ChunkLength));
}

/// Columns: NONE CLOSED COOKIE_WAIT COOKIE_ECHOED ESTABLISHED SHUTDOWN_SENT SHUTDOWN_RECD SHUTDOWN_ACK_SENT HEARTBEAT_SENT.
const TRANSITIONS: [&str; 2] = [
    "1 CL CL CW CE ES CL CL SA CW
     2 CL CL CW CE ES SS SR SA CL
     6 CL CL CL CL CL CL CL CL CL
     7 CL CL CW CE SS SS SR SA CL
     8 SA CL CW CE ES SA SA SA SA
     9 CL CL CW CE ES SS SR SA CL
     10 CL CL CE CE ES SS SR SA CL
     11 CL CL CW ES ES SS SR SA CL
     14 CL CL CW CE ES SS SR CL CL
     4 HS CL CW CE ES SS SR SA HS
     5 CL CL CW CE ES SS SR SA HS
     0 NO CL CW CE ES SS SR SA HS",
    "1 IV CL CW CE ES SS SR SA IV
     2 IV CW CW CE ES SS SR SA IV
     6 IV CL CL CL CL CL CL CL IV
     7 IV CL CW CE SR SS SR SA IV
     8 IV CL CW CE ES SA SA SA IV
     9 IV CL CW CL ES SS SR SA IV
     10 IV CL CE CE ES SS SR SA IV
     11 IV CL CW ES ES SS SR SA IV
     14 IV CL CW CE ES SS SR CL IV
     4 IV CL CW CE ES SS SR SA HS
     5 IV CL CW CE ES SS SR SA ES
     0 NO CL CW CE ES SS SR SA HS",
];

#[test]
fn all_198_cells() {
    const STATES: [(&str, State); 9] = [
        ("NO", State::None),
        ("CL", State::Closed),
        ("CW", State::CookieWait),
        ("CE", State::CookieEchoed),
        ("ES", State::Established),
        ("SS", State::ShutdownSent),
        ("SR", State::ShutdownReceived),
        ("SA", State::ShutdownAckSent),
        ("HS", State::HeartbeatSent),
    ];
    let mut cells = 0;
    for (direction, text) in [Original, Reply].into_iter().zip(TRANSITIONS) {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let kind: u8 = words[0].parse().unwrap();
            assert_eq!(words.len(), 10);
            for (&(_, from), name) in STATES.iter().zip(&words[1..]) {
                let expected = STATES.iter().find(|(n, _)| n == name).map(|&(_, state)| state);
                assert_eq!(next(direction, kind, from), expected, "{direction:?} {kind} {from}");
                if from != State::None {
                    let mut sctp = Sctp { tags: [B, A], state: from, bits: 0 };
                    let result = say(&mut sctp, direction, kind);
                    match expected {
                        Some(state) => assert_eq!(sctp.state(), state, "{direction:?} {kind} {from}"),
                        None => assert_eq!(result, Err(Invalid::State), "{direction:?} {kind} {from}"),
                    }
                }
                cells += usize::from(kind != chunk::DATA);
            }
        }
    }
    assert_eq!(cells, 2 * 11 * 9);
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![Just(A), Just(B), Just(0), any::<u32>()];
    let value = prop_oneof![
        Just(init(A)),
        Just(init(B)),
        any::<u32>().prop_map(init),
        proptest::collection::vec(any::<u8>(), 0..20)
    ];
    let chunk = (prop_oneof![0..16_u8, any::<u8>()], any::<u8>(), value);
    (tag, proptest::collection::vec(chunk, 1..4), proptest::option::of((any::<usize>(), any::<u8>())))
        .prop_map(|(tag, chunks, broken)| {
            let chunks: Vec<_> = chunks.iter().map(|(k, f, v)| (*k, *f, &v[..])).collect();
            let mut bytes = packet(tag, &chunks);
            if let Some((place, octet)) = broken {
                let length = bytes.len();
                bytes[place % length] = octet;
            }
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_packets_make_the_tracker_panic_or_forget(
        packets in proptest::collection::vec((any::<bool>(), any_packet()), 1..40),
    ) {
        let mut sctp = established();
        for (reply, bytes) in packets {
            let before = sctp;
            // `give` sees to it that what is invalid changes nothing.
            let result = give(&mut sctp, if reply { Reply } else { Original }, &bytes);
            prop_assert_ne!(sctp.state(), State::None);
            prop_assert!(sctp.is_assured() && sctp.has_reply());
            if let Ok(accepted) = result {
                prop_assert_eq!(accepted.changed, sctp.state() != before.state());
            }
        }
    }

    #[test]
    fn no_octets_make_reading_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(packet) = Packet::read(&octets) {
            let octets_of_chunks: usize = packet.chunks().map(|chunk| chunk.value.len() + 4).sum();
            prop_assert!(octets_of_chunks + 12 <= octets.len());
            let _ = Sctp::open(packet);
        }
    }
}
