//! ICMP errors.

use super::*;

/// An error of type and code about the octets of a packet; from and to the addresses of `ends`.
fn error(ends: Ends, kind: (u8, u8), quote: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if ends.source.0.is_ipv4() {
        let kind = Icmpv4Type::Unknown { type_u8: kind.0, code_u8: kind.1, bytes5to8: [0, 0, 5, 0x14] };
        ip(ends).icmpv4(kind).write(&mut bytes, quote).unwrap();
    } else {
        let kind = Icmpv6Type::Unknown { type_u8: kind.0, code_u8: kind.1, bytes5to8: [0, 0, 5, 0x14] };
        ip(ends).icmpv6(kind).write(&mut bytes, quote).unwrap();
    }
    bytes
}

/// Translates an error about a packet that left as `out` and was `inside` before.
fn apply_error(inside: Ends, out: Ends, kind: Kind, bytes: &mut [u8], source: IpAddr) -> Result<(), Unfit> {
    let packet = parse(bytes).unwrap();
    // The error goes the way of answers.
    let (from, to) = (out, inside);
    match source {
        IpAddr::V4(source) => {
            Rewrite::<Ipv4Addr>::new(&from.tuple(kind).inverse(), &to.tuple(kind).inverse())
                .apply_error(bytes, &packet, source)
        }
        IpAddr::V6(source) => {
            Rewrite::<Ipv6Addr>::new(&from.tuple(kind).inverse(), &to.tuple(kind).inverse())
                .apply_error(bytes, &packet, source)
        }
    }
}

/// The quoted beginning of a packet; with options in an IPv4 header if asked for.
fn quote(mut bytes: Vec<u8>, octets: usize, options: bool) -> Vec<u8> {
    let mut header = if bytes[0] >> 4 == 4 { 20 } else { 40 };
    if options && header == 20 {
        bytes.splice(20..20, [1, 1, 1, 1, 1, 1, 1, 0]);
        header = 28;
        bytes[0] = 0x47;
        let length = u16::try_from(bytes.len()).unwrap();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[10..12].fill(0);
        let sum = naive(&bytes[..28]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    bytes.truncate(header + octets);
    bytes
}

proptest! {
    #[test]
    fn nat_35_and_37_an_error_is_about_the_packet_that_was_sent(
        (inside, out) in before_and_after(), router in any::<[u8; 16]>(), hidden in any::<[u8; 16]>(),
        payload in proptest::collection::vec(any::<u8>(), 560), which in 0..KINDS.len(), size in 0..5usize,
        options: bool, keep: bool, types in 0..4usize,
    ) {
        let kind = KINDS[which];
        let v4 = inside.source.0.is_ipv4();
        let octets = [8, 16, 18, 28, 548][size];
        let address = |octets: [u8; 16]| {
            if v4 { IpAddr::from([octets[0], octets[1], octets[2], octets[3]]) } else { IpAddr::from(octets) }
        };
        let router = address(router);
        let shown = if keep { router } else { address(hidden) };
        let types = if v4 { [(3, 4), (11, 0), (12, 0), (4, 0)][types] } else { [(1, 4), (2, 0), (3, 0), (4, 1)][types] };
        let message = |source: IpAddr, ends: Ends| {
            let mut quoted = quote(build(kind, ends, &payload), octets, options);
            if kind == Kind::Sctp && octets >= 12 {
                // Nobody can check it, and it stays.
                let upper = quoted.len() - octets;
                quoted[upper + 8..][..4].fill(0x55);
            }
            error(Ends { source: (source, 0), destination: ends.source }, types, &quoted)
        };
        let mut bytes = message(router, out);
        prop_assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Ok(()));
        apply_error(inside, out, kind, &mut bytes, shown).unwrap();
        let wanted = message(shown, inside);
        prop_assert_eq!(&bytes, &wanted);
        prop_assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Ok(()));
        // And back.
        apply_error(out, inside, kind, &mut bytes, router).unwrap();
        prop_assert_eq!(bytes, message(router, out));
    }

    #[test]
    fn nat_36_a_bad_checksum_of_the_message_is_found_and_stays_as_bad(which in 0..2usize, bad in 1..0xffffu16) {
        let [inside, out] = examples()[which];
        let at = upper(inside.source.0.is_ipv4()) + 2;
        let router = out.destination.0;
        let message = |ends: Ends| {
            let quoted = quote(build(Kind::Udp, ends, &[1; 40]), 28, false);
            error(Ends { source: (router, 0), destination: ends.source }, (3, 3), &quoted)
        };
        let field = |bytes: &[u8]| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let mut bytes = message(out);
        let good = field(&bytes);
        prop_assume!(good % 0xffff != u32::from(bad) % 0xffff);
        bytes[at..at + 2].copy_from_slice(&bad.to_be_bytes());
        prop_assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Err(ErrorFault::Checksum));
        apply_error(inside, out, Kind::Udp, &mut bytes, router).unwrap();
        prop_assert_eq!((field(&bytes) + good) % 0xffff, (u32::from(bad) + field(&message(inside))) % 0xffff);
        prop_assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Err(ErrorFault::Checksum));
    }
}

#[test]
fn nat_36_the_quoted_header_is_judged_and_the_quoted_upper_layer_is_not() {
    for [_, out] in examples() {
        let v4 = out.source.0.is_ipv4();
        let to_sender = Ends { source: out.destination, destination: out.source };
        let mut quoted = quote(build(Kind::Tcp, out, &[1; 40]), 28, false);
        let at = upper(v4) + 16;
        quoted[at] ^= 0x40;
        let bytes = error(to_sender, (3, 3), &quoted);
        assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Ok(()));
        // The hop limit is under a checksum in IPv4 alone.
        quoted[if v4 { 8 } else { 7 }] ^= 1;
        let bytes = error(to_sender, (3, 3), &quoted);
        let wanted = if v4 { Err(ErrorFault::QuotedHeader) } else { Ok(()) };
        assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), wanted);
    }
}

#[test]
fn nat_36_extensions_stay_and_are_under_the_checksum() {
    let [[inside, out], _] = examples();
    let router = out.destination.0;
    let message = |ends: Ends| {
        // 128 octets of the packet, filled up with zeros, then an extension (RFC 4884 section 5.1).
        let mut quoted = build(Kind::Udp, ends, &[7; 31]);
        quoted.resize(128, 0);
        quoted.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0xde, 0xad, 0xbe, 0xef]);
        error(Ends { source: (router, 0), destination: ends.source }, (11, 0), &quoted)
    };
    let mut bytes = message(out);
    apply_error(inside, out, Kind::Udp, &mut bytes, router).unwrap();
    assert_eq!(bytes, message(inside));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Err(ErrorFault::Checksum));
}

#[test]
fn a_fragment_of_an_error_cannot_be_judged() {
    let [[_, out], _] = examples();
    let to_sender = Ends { source: out.destination, destination: out.source };
    let bytes = error(to_sender, (3, 3), &build(Kind::Udp, out, &[7; 80]));
    let first = packets::cut(&bytes, &[64]).remove(0);
    let packet = parse(&first).unwrap();
    assert!(matches!(packet.content, Content::Error(_)));
    assert_eq!(check_error(&first, &packet), Err(ErrorFault::Fragment));
}

#[test]
fn what_is_no_error_is_left_alone() {
    for [inside, out] in examples() {
        let original = build(Kind::Tcp, out, b"x");
        let mut bytes = original.clone();
        assert_eq!(check_error(&bytes, &parse(&bytes).unwrap()), Ok(()));
        let refused = apply_error(inside, out, Kind::Tcp, &mut bytes, out.destination.0);
        assert_eq!((refused, bytes), (Err(Unfit::Content), original));
    }
}

#[test]
fn routing_headers_outside_and_inside_an_error_keep_their_last_destination_under_the_checksum() {
    let [_, [inside, out]] = examples();
    let inside = Ends { destination: (IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, 9]), 8443), ..inside };
    let last = Ipv6Addr::from([0x2001, 0xdb8, 5, 5, 5, 5, 5, 5]);
    // Destinations of the error and of the quoted packet by the way, and both last ones the same.
    for (outer, inner) in [(1, 0), (0, 1), (1, 1)] {
        for kind in [Kind::Tcp, Kind::Udp, Kind::Question] {
            let through = |bytes: Vec<u8>, by: IpAddr, left| packets::routed(bytes, by, last, left);
            let message = |ends: Ends| {
                let end = |port| (IpAddr::V6(last), port);
                let sent =
                    if inner == 1 { Ends { destination: end(ends.destination.1), ..ends } } else { ends };
                let quoted = through(build(kind, sent, &[1; 40]), ends.destination.0, inner);
                let to = if outer == 1 { end(0) } else { ends.source };
                let around = Ends { source: out.destination, destination: to };
                through(error(around, (1, 4), &quoted), ends.source.0, outer)
            };
            let mut bytes = message(out);
            apply_error(inside, out, kind, &mut bytes, out.destination.0).unwrap();
            assert_eq!(bytes, message(inside), "{kind:?} {outer} {inner}");
        }
    }
}
