//! ICMP errors about translated packets.

use super::*;

/// "Port unreachable" from `from` to `to`, about the packet whose octets are quoted.
fn error<A: Address>(from: A, to: A, quote: &[u8]) -> Vec<u8> {
    error_of(if A::BITS == 32 { (3, 3) } else { (1, 4) }, from, to, quote)
}

fn error_of<A: Address>((type_u8, code_u8): (u8, u8), from: A, to: A, quote: &[u8]) -> Vec<u8> {
    let [from, to] = [from, to].map(|address| Endpoint { address, port: 0 });
    let mut bytes = Vec::new();
    if A::BITS == 32 {
        let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8: [0; 4] };
        start(from, to).icmpv4(kind).write(&mut bytes, quote).unwrap();
    } else {
        let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8: [0; 4] };
        start(from, to).icmpv6(kind).write(&mut bytes, quote).unwrap();
    }
    bytes
}

fn quoted(packet: &Packet, bytes: &[u8]) -> Vec<u8> {
    let Content::Error(error) = packet.content else { panic!("{:?}", packet.content) };
    bytes[error.quoted.header..packet.layout.end].to_vec()
}

fn addresses<A: Address>(bytes: &[u8]) -> [A; 2] {
    let layout = parse(bytes).unwrap().layout;
    [layout.source, layout.destination].map(|address| A::from_ip(address).unwrap())
}

in_both_families! {
    fn nat_35_an_error_from_outside_quotes_what_the_inside_has_sent<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        // The port is another outside.
        router.seen(inside(9, 4000), outside(1, 53));
        let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
        let original = udp(client, server);
        let sent = router.take(INSIDE, original.clone()).by(OUTSIDE);
        let hop = outside::<A>(77, 0).address;
        for from in [server.address, hop] {
            let told = router.take(OUTSIDE, error(from, external(0, 0).address, &sent)).by(INSIDE);
            assert_eq!(addresses::<A>(&told), [from, client.address]);
            assert_eq!(quoted(&parse(&told).unwrap(), &told), original);
        }
        let unrelated = error(hop, external(0, 0).address, &udp::<A>(external(0, 1), server));
        assert_eq!(router.take(OUTSIDE, unrelated), Fate::Invalid(Invalid::Unrelated));
        assert_eq!(router.nat.counters().unrelated, 1);
    }

    fn nat_35_an_error_from_inside_comes_from_the_external_address<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
        let seen = router.seen(client, server);
        let answer = udp(server, seen);
        let given = router.take(OUTSIDE, answer.clone()).by(INSIDE);
        // From the client, and from a router before it.
        for from in [client.address, inside::<A>(200, 0).address] {
            let told = router.take(INSIDE, error(from, server.address, &given)).by(OUTSIDE);
            assert_eq!(addresses::<A>(&told), [seen.address, server.address]);
            assert_eq!(quoted(&parse(&told).unwrap(), &told), answer);
        }
    }

    fn nat_12_errors_go_back_over_a_hairpin<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [one, two] = [inside::<A>(1, 4000), inside(2, 5000)];
        let seen = router.seen(two, outside(1, 53));
        let original = udp(one, seen);
        let given = router.take(INSIDE, original.clone()).by(INSIDE);
        let to = addresses::<A>(&given)[0];
        let told = router.take(INSIDE, error(two.address, to, &given)).by(INSIDE);
        assert_eq!(addresses::<A>(&told), [seen.address, one.address]);
        assert_eq!(quoted(&parse(&told).unwrap(), &told), original);
    }

    fn nat_20_an_error_neither_ends_nor_prolongs_a_mapping<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::linux());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
        let sent = router.take(INSIDE, udp(client, server)).by(OUTSIDE);
        let idle = Timeouts::rfc().udp;
        router.wait(idle - seconds(1));
        router.take(OUTSIDE, error(server.address, external(0, 0).address, &sent)).by(INSIDE);
        assert_eq!(router.nat.len(), 1);
        router.wait(seconds(2));
        assert!(router.nat.is_empty());
    }

    fn nat_38_every_kind_of_error_finds_its_way<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
        let sent = router.take(INSIDE, udp(client, server)).by(OUTSIDE);
        // Unreachable, source quench, time exceeded, parameter problem; and ICMPv6's four.
        let kinds: &[(u8, u8)] =
            if A::BITS == 32 { &[(3, 0), (3, 4), (3, 13), (4, 0), (11, 0), (12, 0)] } else { &[(1, 0), (2, 0), (3, 0), (4, 0)] };
        for &kind in kinds {
            let told = error_of(kind, server.address, external(0, 0).address, &sent);
            let told = router.take(OUTSIDE, told).by(INSIDE);
            let Content::Error(error) = parse(&told).unwrap().content else { panic!("{kind:?}") };
            assert_eq!((error.kind, error.code), kind);
        }
        assert_eq!(router.nat.len(), 1);
    }

    fn nat_36_an_error_with_a_wrong_checksum_is_dropped<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
        let sent = router.take(INSIDE, udp(client, server)).by(OUTSIDE);
        let mut wrong = error(server.address, external(0, 0).address, &sent);
        *wrong.last_mut().unwrap() ^= 1;
        assert!(matches!(router.take(OUTSIDE, wrong), Fate::Invalid(Invalid::Error(_))));
    }
}
