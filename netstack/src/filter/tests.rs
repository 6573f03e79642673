//! What is no expression and how that is told; that nothing read or matched panics. What expressions match is held
//! against libpcap in the workspace's `tests/capture_filter.rs`.

use alloc::format;
use alloc::string::{String, ToString as _};

use proptest::prelude::*;

use super::{Filter, MAX_EXPRESSION, MAX_WORDS};

fn told(text: &str) -> String {
    text.parse::<Filter>().expect_err(text).to_string()
}

#[test]
fn errors_name_the_word_the_column_and_what_could_stand_there() {
    for (text, expected) in [
        ("foo", r#"filter, "foo" at column 1: expected not, (, host, net, port"#),
        ("tcp and foo", r#""foo" at column 9: expected not, ("#),
        ("tcp  foo", r#""foo" at column 6: expected and, or, or the end"#),
        ("tcp and", "filter, at its end: expected not, ("),
        ("host", "at its end: expected an IPv4 or IPv6 address"),
        (
            "host alpha",
            r#""alpha" at column 6: expected an IPv4 or IPv6 address in full; names are not looked up"#,
        ),
        ("host 10.1", r#""10.1" at column 6: expected an IPv4"#),
        ("host 02:00:00:00:00:01", "a MAC address stands behind ether host"),
        ("net 10.0.0.1/8", "did you mean 10.0.0.0/8?"),
        ("net 10", "expected a prefix such as 10.244.0.0/16"),
        ("port http", "expected a port number, 0 to 65535; names are not looked up"),
        ("port 080", "expected a port number"),
        ("port +80", "cannot be compared"),
        ("portrange 1-", "expected two port numbers such as 8000-8080"),
        ("vlan 4096", r#""4096" at column 6: expected a VLAN identifier, 0 to 4095"#),
        (
            "ether 02:00:00:00:00:01",
            r#""02:00:00:00:00:01" at column 7: expected src, dst or host behind ether"#,
        ),
        ("ether host 10.0.0.1", "not a MAC address: expected six hexadecimal octets"),
        ("ether net 10.0.0.0/8", r#""ether" at column 1: expected ether host"#),
        ("tcp host 10.0.0.1", r#""tcp" at column 1: a host or net has no tcp; write tcp and host"#),
        ("ip6 port 80", r#""ip6" at column 1: expected tcp, udp, sctp or nothing"#),
        ("ip6 host 10.0.0.1", r#""10.0.0.1" at column 10: ip6 has no addresses of this family"#),
        ("(tcp or udp", "at its end: expected and, or, or the ) of the ( at column 1"),
        ("tcp)", r#"")" at column 4: no ( is open"#),
        ("port (80 or 81", "or the ) of the ( at column 6"),
        ("é or tcp", r#""é" at column 1"#),
        ("ip or é", r#""é" at column 7"#),
    ] {
        let told = told(text);
        assert!(told.contains(expected) && !told.contains("not supported"), "{text:?}: {told}");
    }
}

#[test]
fn words_of_the_language_that_are_not_supported_are_told() {
    for text in [
        "broadcast",
        "ip broadcast",
        "ether multicast",
        "ip proto 6",
        "ether proto 0x800",
        "less 100",
        "inbound",
        "tcp and gateway",
        "net 10.0.0.0 mask 255.0.0.0",
        "(igmp)",
        "(tcp mask)",
        "mpls 5",
    ] {
        let told = told(text);
        assert!(told.contains("is not supported here") && told.contains("column"), "{text:?}: {told}");
    }
    for text in
        ["tcp[13] = 2", "tcp[tcpflags] & tcp-syn != 0", "ip[6:2] & 0x1fff = 0", "len > 5", "tcp & udp"]
    {
        assert!(told(text).contains("octets of a frame cannot be compared"), "{text:?}");
    }
}

#[test]
fn an_expression_is_bounded() {
    let deep = |count: usize| format!("{}ip{}", "(".repeat(count), ")".repeat(count));
    assert!(deep(MAX_WORDS / 2 - 1).parse::<Filter>().is_ok());
    assert!(told(&deep(MAX_WORDS / 2)).contains("words; at most"));
    assert!(format!("{}ip", "not ".repeat(MAX_WORDS - 1)).parse::<Filter>().is_ok());
    assert!(told(&"x".repeat(MAX_EXPRESSION + 1)).contains("octets; at most"));
}

#[test]
fn no_words_want_every_frame() {
    for text in ["", "  \t\n"] {
        let filter: Filter = text.parse().unwrap();
        assert_eq!(filter, Filter::default());
        assert!(filter.matches(&[]));
    }
}

#[test]
fn a_frame_that_ends_too_early_matches_not_even_the_opposite() {
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 27]].concat();
    for (text, needed) in [("arp", 14), ("not ip", 14), ("not arp host 10.0.0.1", 42), ("not vlan", 14)] {
        let filter: Filter = text.parse().unwrap();
        for len in 0..=arp.len() {
            assert_eq!(filter.matches(&arp[..len]), len >= needed, "{text:?} on {len} octets");
        }
    }
}

/// Texts that get far: words of the language in any order.
fn wordy() -> impl Strategy<Value = String> {
    let word = prop::sample::select(alloc::vec![
        "host",
        "net",
        "port",
        "portrange",
        "src",
        "dst",
        "ether",
        "ip",
        "ip6",
        "arp",
        "tcp",
        "udp",
        "vlan",
        "and",
        "or",
        "not",
        "(",
        ")",
        "!",
        "&&",
        "||",
        "&",
        "10.0.0.1",
        "fd00::1",
        "10.0.0.0/8",
        "80",
        "80-90",
        "7",
        "02:00:00:00:00:01",
        "proto",
        "é",
    ]);
    prop::collection::vec(word, 0..20).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_and_no_frame_panics(
        text in prop_oneof![wordy(), any::<String>()],
        frame in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        match text.parse::<Filter>() {
            Ok(filter) => {
                filter.matches(&frame);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
