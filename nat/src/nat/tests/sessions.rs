//! Mappings, filters and what a connection does to its packets.

use super::*;

in_both_families! {
    fn nat_1_a_mapping_does_not_depend_on_the_destination<A>() {
        for behaviour in [Behaviour::strict(), Behaviour::node(), Behaviour::linux()] {
            let mut router = Router::<A>::masquerade(behaviour);
            // Another host has the port already.
            router.seen(inside(9, 4000), outside(1, 53));
            let first = router.seen(inside(1, 4000), outside(1, 53));
            assert_eq!(first.address, external::<A>(0, 0).address);
            if behaviour != Behaviour::linux() {
                assert_ne!(first.port, 4000);
            }
            for to in [outside(1, 54), outside(2, 53), outside(2, 54)] {
                assert_eq!(router.seen(inside(1, 4000), to), first);
            }
        }
    }

    fn nat_2_who_may_use_a_mapping_is_what_is_configured<A>() {
        for (filtering, may) in [
            (Filtering::EndpointIndependent, [true, true, true]),
            (Filtering::AddressDependent, [true, true, false]),
            (Filtering::AddressAndPortDependent, [true, false, false]),
        ] {
            let mut router = Router::<A>::masquerade(Behaviour { filtering, ..Behaviour::strict() });
            let seen = router.seen(inside(1, 4000), outside(1, 53));
            let others = [outside(1, 53), outside(1, 54), outside(2, 53)];
            for (from, may) in others.into_iter().zip(may) {
                let fate = router.take(OUTSIDE, udp(from, seen));
                if may {
                    assert_eq!(ends::<A>(&fate.by(INSIDE)), [from, inside(1, 4000)], "{filtering:?}");
                } else {
                    assert_eq!(fate, Fate::Local, "{filtering:?}");
                }
            }
        }
    }

    fn nat_2_a_stranger_is_no_insider_whatever_the_rule_says_of_sources<A>() {
        let mut config = config::<A>(Behaviour::node(), 1, 100);
        config.rules.source[0].matches.sources.clear();
        let mut router = Router::new(config);
        let seen = router.seen(inside(1, 4000), outside(1, 53));
        assert_eq!(router.take(OUTSIDE, udp::<A>(outside(2, 53), seen)), Fate::Local);
        assert_eq!(ends::<A>(&router.take(INSIDE, udp::<A>(inside(2, 1), seen)).by(INSIDE))[1], inside(1, 4000));
    }

    fn nat_15_tenants_with_the_same_addresses_share_an_outside<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
        let seen = [1, 2].map(|zone| source::<A>(&router.take_from(zone, INSIDE, udp(client, server)).by(OUTSIDE)));
        assert_ne!(seen[0], seen[1]);
        for (zone, seen) in [1, 2].into_iter().zip(seen) {
            assert_eq!(ends::<A>(&router.take(OUTSIDE, udp(server, seen)).by(INSIDE)), [server, client]);
            let again = router.take_from(zone, INSIDE, udp(client, server)).by(OUTSIDE);
            assert_eq!(source::<A>(&again), seen);
        }
        let zones: std::collections::BTreeSet<u16> = router
            .nat
            .connections()
            .map(|(_, connection)| connection.tuple(crate::tuple::Direction::Original).zone)
            .collect();
        assert_eq!(zones.into_iter().collect::<Vec<_>>(), [1, 2]);
    }

    /// Addresses within a payload are the endpoints' affair, active FTP fails closed.
    fn nat_17_payloads_are_never_rewritten<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 21)];
        let seen = source::<A>(&router.take(INSIDE, tcp(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE));
        router.take(OUTSIDE, tcp(server, seen, flag::SYN | flag::ACK, (7000, 101), 0)).by(INSIDE);
        let mut request = Vec::new();
        let line = b"PORT 10,0,0,1,15,160\r\n";
        start(client, server).tcp(client.port, server.port, 101, 65_000).ack(7001).write(&mut request, line).unwrap();
        let sent = router.take(INSIDE, request).by(OUTSIDE);
        assert!(sent.ends_with(line));
        let data = tcp(Endpoint { port: 20, ..server }, external(0, 4000), flag::SYN, (1, 0), 0);
        assert_eq!(router.take(OUTSIDE, data), Fate::Local);
    }

    fn nat_19_a_reset_prolongs_nothing<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 80)];
        let seen = source::<A>(&router.take(INSIDE, tcp(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE));
        router.take(OUTSIDE, tcp(server, seen, flag::SYN | flag::ACK, (7000, 101), 0)).by(INSIDE);
        router.take(INSIDE, tcp(client, server, flag::ACK, (101, 7001), 0)).by(OUTSIDE);
        router.wait(Timeouts::rfc().tcp.established - seconds(10));
        router.take(INSIDE, tcp(client, server, flag::RST, (101, 0), 0)).by(OUTSIDE);
        assert_eq!(router.nat.len(), 1);
        router.wait(seconds(11));
        assert!(router.nat.is_empty());
    }

    fn nat_34_queries_with_one_identifier_are_told_apart<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        let server = outside::<A>(1, 0);
        let seen = [1, 2].map(|host| source::<A>(&router.take(INSIDE, echo(inside(host, 77), server, false)).by(OUTSIDE)));
        assert_ne!(seen[0].port, seen[1].port);
        for (host, seen) in [1, 2].into_iter().zip(seen) {
            let answer = router.take(OUTSIDE, echo(server, seen, true)).by(INSIDE);
            assert_eq!(ends::<A>(&answer)[1], inside(host, 77));
        }
    }

    fn nat_22_a_mapping_goes_on_with_the_connections_it_has_left<A>() {
        let open = Behaviour { filtering: Filtering::EndpointIndependent, ..Behaviour::strict() };
        let mut router = Router::<A>::masquerade(open);
        let client = inside(1, 4000);
        let seen = router.seen(client, outside(1, 53));
        let half = Timeouts::rfc().udp / 2;
        router.wait(half);
        assert_eq!(router.seen(client, outside(2, 53)), seen);
        router.wait(half);
        assert_eq!(router.nat.len(), 1);
        // The first connection has ended; who asks is still led to the inside, and the inside still keeps its port.
        assert_eq!(ends::<A>(&router.take(OUTSIDE, udp::<A>(outside(3, 99), seen)).by(INSIDE))[1], client);
        assert_eq!(router.seen(client, outside(4, 53)), seen);
        router.wait(half * 3);
        assert!(router.nat.is_empty());
    }

    /// Its time is up, and nobody has looked yet.
    fn nat_22_a_mapping_that_is_not_cleared_away_yet_goes_on<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        router.seen(inside(9, 4000), outside(1, 53));
        let client = inside(1, 4000);
        let seen = router.seen(client, outside(1, 53));
        for to in [outside(1, 53), outside(2, 53)] {
            router.now += Timeouts::rfc().udp + seconds(1);
            assert_eq!(router.seen(client, to), seen);
        }
        let pool = router.nat.pool(0).unwrap();
        assert_eq!((pool.waiting(), pool.leases_of(client.address)), (0, 1));
        router.wait(Timeouts::rfc().udp + seconds(1));
        assert!(router.nat.is_empty());
    }

    fn nat_24_a_reset_with_a_wrong_checksum_ends_nothing<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        let [client, server] = [inside::<A>(1, 4000), outside(1, 80)];
        let seen = source(&router.take(INSIDE, tcp::<A>(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE));
        let mut forged = tcp(server, seen, flag::RST | flag::ACK, (0, 101), 0);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(router.take(OUTSIDE, forged), Fate::Invalid(Invalid::Checksum));
        assert_eq!(router.nat.len(), 1);
    }

    fn nat_6_the_port_stays_if_it_is_free<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        assert_eq!(router.seen(inside(1, 4000), outside(1, 53)), external(0, 4000));
        assert_ne!(router.seen(inside(2, 4000), outside(1, 53)), external(0, 4000));
        assert_eq!(router.seen(inside(2, 4001), outside(1, 53)), external(0, 4001));
    }

    fn nat_12_whoever_is_inside_reaches_a_mapping_and_is_seen_with_its_own<A>() {
        for filtering in
            [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent]
        {
            let mut router = Router::<A>::masquerade(Behaviour { filtering, ..Behaviour::node() });
            let [one, two] = [inside(1, 4000), inside(2, 5000)];
            let seen = router.seen(two, outside(1, 53));
            let sent = router.take(INSIDE, udp(one, seen)).by(INSIDE);
            let [from, to] = ends(&sent);
            assert_eq!((from, to), (external(0, 4000), two));
            let back = router.take(INSIDE, udp(two, from)).by(INSIDE);
            assert_eq!(ends::<A>(&back), [seen, one]);
            // What the other has is the same mapping that it has towards the outside.
            assert_eq!(router.seen(one, outside(1, 53)), from);
        }
    }

    fn what_goes_out_and_comes_back_is_what_was_sent<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        router.seen(inside(9, 4000), outside(1, 53));
        let [one, server] = [inside(1, 4000), outside(1, 53)];
        for (there, back) in [
            (udp(one, server), udp as fn(_, _) -> Vec<u8>),
            (echo(one, server, false), |from, to| echo(from, to, true)),
        ] {
            let sent = router.take(INSIDE, there.clone()).by(OUTSIDE);
            // The type of a query is its destination's port.
            let [from, to] = ends::<A>(&sent);
            assert_eq!(from.address, external::<A>(0, 0).address);
            let answer = router.take(OUTSIDE, back(to, from)).by(INSIDE);
            let port = if parse(&there).unwrap().layout.protocol == protocol::UDP { server.port } else { to.port };
            assert_eq!(ends::<A>(&answer), [Endpoint { port, ..server }, one]);
            assert_eq!(&answer[answer.len() - 4..], &back(server, one)[answer.len() - 4..]);
        }
        assert_eq!(router.nat.len(), 3);
    }

    fn an_answer_to_no_question_opens_nothing<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let stray = router.take(OUTSIDE, echo::<A>(outside(1, 0), external(0, 77), true));
        assert_eq!(stray, Fate::Invalid(Invalid::Unasked));
        let middle = tcp::<A>(outside(1, 80), external(0, 77), flag::ACK | flag::SYN, (1, 2), 0);
        assert!(matches!(router.take(OUTSIDE, middle), Fate::Invalid(Invalid::Tcp(_))));
        assert!(router.nat.is_empty());
        assert_eq!(router.nat.counters().invalid, 2);
    }

    fn nat_43_a_wrong_checksum_opens_nothing_and_is_not_repaired<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let mut wrong = udp::<A>(inside(1, 4000), outside(1, 53));
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(router.take(INSIDE, wrong.clone()), Fate::Invalid(Invalid::Checksum));
        assert!(router.nat.is_empty());
        // On a connection that stands nobody looks; the error stays for the receiver to find.
        router.seen(inside(1, 4000), outside(1, 53));
        let Fate::Left(OUTSIDE, sent) = router.take(INSIDE, wrong) else { panic!("it was dropped") };
        assert!(!parse(&sent).unwrap().has_sound_checksum(&sent));
    }

    fn a_tcp_connection_opens_carries_and_closes<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        converse(&mut router, inside(1, 4000), outside(1, 80));
        assert_eq!(router.nat.len(), 1);
        let state = router.nat.connections().next().map(|(_, connection)| connection.state);
        assert!(matches!(state, Some(State::Tcp(tcp)) if tcp.state() == crate::tcp::State::TimeWait));
        router.wait(seconds(240));
        assert!(router.nat.is_empty());
    }

    /// A SYN that only a RST answers leaves nothing (as in Linux).
    fn nat_32_a_refused_connection_is_over_at_once<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        let [client, server] = [inside(1, 4000), outside(1, 80)];
        let seen = source(&router.take(INSIDE, tcp(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE));
        let refusal = tcp(server, seen, flag::RST | flag::ACK, (0, 101), 0);
        assert_eq!(ends::<A>(&router.take(OUTSIDE, refusal).by(INSIDE)), [server, client]);
        assert!(router.nat.is_empty());
        assert_eq!(router.nat.pool(0).unwrap().leases_of(client.address), 0);
    }

    fn nat_29_ports_are_used_again<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict());
        let [client, server] = [inside(1, 4000), outside(1, 80)];
        converse(&mut router, client, server);
        converse(&mut router, client, server);
        assert_eq!((router.nat.len(), router.nat.counters().opened), (1, 2));
    }

    fn nat_18_a_mapping_lasts_as_long_as_the_inside_says<A>() {
        let idle = Timeouts::rfc().udp;
        for (behaviour, by_inbound) in [(Behaviour::strict(), false), (Behaviour::linux(), true)] {
            let [client, server] = [inside::<A>(1, 4000), outside(1, 53)];
            for inbound in [false, true] {
                let mut router = Router::<A>::masquerade(behaviour);
                let seen = router.seen(client, server);
                router.take(OUTSIDE, udp(server, seen)).by(INSIDE);
                for _ in 0..10 {
                    router.wait(idle - seconds(1));
                    let (from, bytes) =
                        if inbound { (OUTSIDE, udp(server, seen)) } else { (INSIDE, udp(client, server)) };
                    router.take(from, bytes);
                }
                let lasts = !inbound || by_inbound;
                assert_eq!(router.nat.len(), usize::from(lasts), "{behaviour:?} {inbound}");
            }
        }
    }

    /// Each inside keeps its own mapping by what it sends, and the other's only where that is enough from outside.
    fn nat_18_over_a_hairpin_both_mappings_are_kept_by_who_has_them<A>() {
        let idle = Timeouts::rfc().udp;
        for (inbound_refreshes, by_one, by_two) in
            [(false, [true, false], [false, true]), (true, [true, true], [true, true])]
        {
            let behaviour = Behaviour { inbound_refreshes, ..Behaviour::strict() };
            for (two_speaks, kept) in [(false, by_one), (true, by_two)] {
                let mut router = Router::<A>::masquerade(behaviour);
                let [one, two] = [inside(1, 4000), inside(2, 5000)];
                let theirs = router.seen(two, outside(1, 53));
                let ours = source::<A>(&router.take(INSIDE, udp(one, theirs)).by(INSIDE));
                router.wait(idle / 2);
                let bytes = if two_speaks { udp(two, ours) } else { udp(one, theirs) };
                router.take(INSIDE, bytes).by(INSIDE);
                router.wait(idle * 3 / 4);
                let pool = router.nat.pool(0).unwrap();
                let held = [ours, theirs].map(|at| pool.owner(at.address, ports::Protocol::Udp, at.port).is_some());
                assert_eq!(held, kept, "{inbound_refreshes} {two_speaks}");
            }
        }
    }

    /// The mapping that a hairpin went to has ended, and its port is another's: that one's is not kept by it.
    fn nat_18_a_hairpin_keeps_no_strangers_mapping<A>() {
        let behaviour = Behaviour { filtering: Filtering::EndpointIndependent, ..Behaviour::linux() };
        let mut config = config::<A>(behaviour, 1, 100);
        config.pools[0].hold = Duration::ZERO;
        config.behaviour.inbound_refreshes = false;
        let idle = config.timeouts.udp;
        let mut router = Router::new(config);
        let [one, two, three] = [inside(1, 4000), inside(2, 5000), inside(3, 5000)];
        let theirs = router.seen(two, outside(1, 53));
        router.take(INSIDE, udp(one, theirs)).by(INSIDE);
        for _ in 0..3 {
            router.wait(idle / 2);
            router.take(INSIDE, udp(one, theirs)).by(INSIDE);
        }
        assert_eq!(router.seen(three, outside(1, 53)), theirs);
        let ours = external(0, one.port);
        for _ in 0..3 {
            router.wait(idle / 2);
            router.take(INSIDE, udp(one, theirs));
            router.take(INSIDE, udp(two, ours));
        }
        assert_eq!(router.nat.pool(0).unwrap().owner(theirs.address, ports::Protocol::Udp, theirs.port), None);
    }
}

/// A whole conversation, from SYN to the last ACK.
fn converse<A: Address>(router: &mut Router<A>, client: Endpoint<A>, server: Endpoint<A>) {
    let base = u32::try_from(router.nat.counters().opened).unwrap() * 1_000_000;
    let mut seen = server;
    for (from_client, flags, numbers, length) in [
        (true, flag::SYN, (base, 0), 0),
        (false, flag::SYN | flag::ACK, (base + 7000, base + 1), 0),
        (true, flag::ACK, (base + 1, base + 7001), 0),
        (true, flag::ACK, (base + 1, base + 7001), 100),
        (false, flag::ACK, (base + 7001, base + 101), 500),
        (true, flag::FIN | flag::ACK, (base + 101, base + 7501), 0),
        (false, flag::FIN | flag::ACK, (base + 7501, base + 102), 0),
        (true, flag::ACK, (base + 102, base + 7502), 0),
    ] {
        if from_client {
            seen = source(&router.take(INSIDE, tcp(client, server, flags, numbers, length)).by(OUTSIDE));
        } else {
            let bytes = router.take(OUTSIDE, tcp(server, seen, flags, numbers, length)).by(INSIDE);
            assert_eq!(ends::<A>(&bytes), [server, client]);
        }
    }
}
