//! What rules make of connections.

use super::*;

fn rule<A, T>(matches: Match<A>, action: T) -> Rule<A, T> {
    Rule { matches, action }
}

/// Two services in front of one server.
fn services<A: Address>(number: u8) -> Router<A> {
    let mut config = Config::<A>::new(2000, Behaviour::strict(), Timeouts::rfc(), 1);
    let length = u8::try_from(A::BITS).unwrap();
    // Queries have no port that could be another.
    let ports = Some(PortRange { first: 80, last: 80 });
    let ports = ports.filter(|_| matches!(number, protocol::UDP | protocol::TCP));
    for service in [8, 9] {
        let destinations = vec![Prefix { address: outside::<A>(service, 0).address, length }];
        let server = DestinationAction::To { address: Some(inside::<A>(1, 0).address), ports };
        config.rules.destination.push(rule(Match { destinations, ..Match::default() }, server));
    }
    Router::new(config)
}

/// What opens a connection.
fn question<A: Address>(number: u8, from: Endpoint<A>, to: Endpoint<A>) -> Vec<u8> {
    match number {
        protocol::UDP => udp(from, to),
        protocol::TCP => tcp(from, to, flag::SYN, (100, 0), 0),
        _ => echo(from, to, false),
    }
}

/// What the other side says to it.
fn answer<A: Address>(number: u8, from: Endpoint<A>, to: Endpoint<A>) -> Vec<u8> {
    match number {
        protocol::UDP => udp(from, to),
        protocol::TCP => tcp(from, to, flag::SYN | flag::ACK, (7000, 101), 0),
        _ => echo(from, to, true),
    }
}

in_both_families! {
    fn nat_10_an_exception_is_not_translated<A>() {
        let mut config = config::<A>(Behaviour::node(), 1, 100);
        let only = Prefix { address: outside::<A>(5, 0).address, length: u8::try_from(A::BITS).unwrap() };
        config.rules.source.insert(0, rule(Match { destinations: vec![only], ..Match::default() }, SourceAction::Keep));
        let mut router = Router::new(config);
        assert_eq!(router.seen(inside(1, 4000), outside(5, 53)), inside(1, 4000));
        assert_eq!(router.seen(inside(1, 4000), outside(6, 53)), external(0, 4000));
    }

    fn nat_16_ports_are_published_one_by_one_and_in_ranges<A>() {
        let mut config = config::<A>(Behaviour::node(), 1, 100);
        let to = external::<A>(0, 0).address;
        let published = |ports: PortRange| Match {
            destinations: vec![Prefix { address: to, length: u8::try_from(A::BITS).unwrap() }],
            protocol: Some(protocol::UDP),
            destination_ports: Some(ports),
            ..Match::default()
        };
        let [one, two] = [inside::<A>(1, 0).address, inside::<A>(2, 0).address];
        config.rules.destination = vec![
            rule(
                published(PortRange { first: 8080, last: 8080 }),
                DestinationAction::To { address: Some(one), ports: Some(PortRange { first: 80, last: 80 }) },
            ),
            rule(
                published(PortRange { first: 9000, last: 9009 }),
                DestinationAction::To { address: Some(two), ports: Some(PortRange { first: 100, last: 109 }) },
            ),
            rule(published(PortRange { first: 9100, last: 9109 }), DestinationAction::To { address: Some(two), ports: None }),
        ];
        let mut router = Router::new(config);
        let client = outside::<A>(1, 4000);
        for (asked, port, wanted) in [
            (8080, 0, Some(inside(1, 80))),
            (8081, 1, None),
            (9000, 2, Some(inside(2, 100))),
            (9009, 3, Some(inside(2, 109))),
            (9105, 4, Some(inside(2, 9105))),
        ] {
            let client = Endpoint { port: client.port + port, ..client };
            let fate = router.take(OUTSIDE, udp(client, external(0, asked)));
            let Some(wanted) = wanted else {
                assert_eq!(fate, Fate::Local);
                continue;
            };
            assert_eq!(ends::<A>(&fate.by(INSIDE)), [client, wanted]);
            let answer = router.take(INSIDE, udp(wanted, client)).by(OUTSIDE);
            assert_eq!(ends::<A>(&answer), [external(0, asked), client]);
        }
    }

    fn addresses_are_translated_one_to_one<A>() {
        let mut config = Config::<A>::new(100, Behaviour::strict(), Timeouts::rfc(), 1);
        let length = u8::try_from(A::BITS - 8).unwrap();
        let [from, to] = [inside(0, 0), external(0, 0)].map(|at: Endpoint<A>| Prefix { address: at.address, length });
        config.rules.source.push(rule(Match { sources: vec![from], ..Match::default() }, SourceAction::Prefix { from, to }));
        config
            .rules
            .destination
            .push(rule(Match { destinations: vec![to], ..Match::default() }, DestinationAction::Prefix { from: to, to: from }));
        let mut router = Router::new(config);
        assert_eq!(router.seen(inside(7, 4000), outside(1, 53)), external(7, 4000));
        let called = router.take(OUTSIDE, udp::<A>(outside(2, 99), external(8, 80))).by(INSIDE);
        assert_eq!(ends::<A>(&called), [outside(2, 99), inside(8, 80)]);
        let answer = router.take(INSIDE, udp::<A>(inside(8, 80), outside(2, 99))).by(OUTSIDE);
        assert_eq!(ends::<A>(&answer), [external(8, 80), outside(2, 99)]);
    }

    /// Whoever is not in its prefix goes on to the next rule, and not away with the source it has.
    fn nat_10_a_rule_for_a_prefix_is_for_no_others<A>() {
        let mut config = config::<A>(Behaviour::node(), 1, 100);
        let length = u8::try_from(A::BITS).unwrap();
        let alone = |at: Endpoint<A>| Prefix { address: at.address, length };
        let (from, to) = (alone(inside(1, 0)), alone(external(9, 0)));
        config.rules.source.insert(0, rule(Match::default(), SourceAction::Prefix { from, to }));
        let mut router = Router::new(config);
        assert_eq!(router.seen(inside(1, 4000), outside(1, 53)), external(9, 4000));
        assert_eq!(router.seen(inside(2, 4000), outside(1, 53)), external(0, 4000));
    }

    /// Two services in front of one server, asked from one port: only another source port tells the answers apart.
    fn nat_16_services_of_one_server_are_asked_from_one_port<A>() {
        let icmp = if A::BITS == 32 { protocol::ICMP } else { protocol::ICMPV6 };
        for number in [protocol::UDP, protocol::TCP, icmp] {
            let mut router = services::<A>(number);
            let (client, server) = (outside(1, 4000), inside(1, if number == icmp { 0 } else { 80 }));
            let mut seen = std::collections::BTreeSet::new();
            let mut opened = Vec::new();
            for service in [outside::<A>(9, 81), outside(8, 81), server] {
                let asked = router.take(OUTSIDE, question(number, client, service)).by(INSIDE);
                let [from, to] = ends::<A>(&asked);
                assert_eq!((from.address, to.address), (client.address, server.address));
                assert!(seen.insert(from), "{from:?} twice");
                opened.push((service, from));
            }
            assert_eq!(opened[0].1, client, "the first needs no other");
            for (service, from) in opened {
                let told = router.take(INSIDE, answer(number, server, from)).by(OUTSIDE);
                let [source, destination] = ends::<A>(&told);
                assert_eq!((source.address, destination), (service.address, client));
                // And again, each way.
                let again = router.take(OUTSIDE, question(number, client, service)).by(INSIDE);
                assert_eq!(ends::<A>(&again)[0], from);
            }
            assert_eq!((router.nat.len(), router.nat.counters().refused_clash), (3, 0));
        }
    }

    /// Only of its own class does a port get another: 1023 ports, all taken.
    fn nat_16_when_no_other_port_is_free_it_is_refused<A>() {
        let mut router = services::<A>(protocol::UDP);
        for port in 1..1024 {
            router.take(OUTSIDE, udp::<A>(outside(1, port), outside(9, 81))).by(INSIDE);
        }
        let second = router.take(OUTSIDE, udp::<A>(outside(1, 5), outside(8, 81)));
        assert_eq!(second, Fate::Refused(Refusal::Clash));
        assert_eq!((router.nat.len(), router.nat.counters().refused_clash), (1023, 1));
        let upper = router.take(OUTSIDE, udp::<A>(outside(1, 1024), outside(8, 81))).by(INSIDE);
        assert_eq!(source::<A>(&upper), outside(1, 1024));
        router.wait(Timeouts::rfc().udp + seconds(1));
        assert!(router.nat.is_empty());
    }

    /// It is the server that is inside, whatever became of the client's port.
    fn nat_18_a_service_lasts_as_long_as_the_server_speaks<A>() {
        for (by_server, lasts) in [(true, true), (false, false)] {
            let mut router = services::<A>(protocol::UDP);
            let client = outside(1, 4000);
            let [_, from] = [outside::<A>(9, 81), outside(8, 81)]
                .map(|service| source::<A>(&router.take(OUTSIDE, udp(client, service)).by(INSIDE)));
            assert_ne!(from, client);
            for _ in 0..3 {
                router.wait(Timeouts::rfc().udp - seconds(1));
                if by_server {
                    router.take(INSIDE, udp::<A>(inside(1, 80), from));
                } else {
                    router.take(OUTSIDE, udp::<A>(client, outside(8, 81)));
                }
            }
            // Whoever was forgotten begins anew.
            assert_eq!(router.nat.counters().opened == 2, lasts);
        }
    }

    /// A port that is published, and so never leased, does not stand in the way of who has the same one inside.
    fn nat_16_a_published_port_in_use_makes_another_be_leased<A>() {
        let mut config = config::<A>(Behaviour::node(), 1, 100);
        let ports = Some(PortRange { first: 8080, last: 8080 });
        let to = DestinationAction::To { address: Some(inside::<A>(1, 0).address), ports };
        let destinations = vec![Prefix { address: external::<A>(0, 0).address, length: u8::try_from(A::BITS).unwrap() }];
        config.rules.destination.push(rule(Match { destinations, destination_ports: ports, ..Match::default() }, to));
        let mut router = Router::new(config);
        let peer = outside(1, 9000);
        router.take(OUTSIDE, udp::<A>(peer, external(0, 8080))).by(INSIDE);
        let seen = router.seen(inside(2, 8080), peer);
        assert_ne!(seen, external(0, 8080));
        assert_eq!(ends::<A>(&router.take(OUTSIDE, udp(peer, seen)).by(INSIDE))[1], inside(2, 8080));
        assert_eq!(ends::<A>(&router.take(OUTSIDE, udp(peer, external(0, 8080))).by(INSIDE))[1], inside(1, 8080));
    }

    /// The machine's own connection has no lease, and is in nobody's way.
    fn a_port_in_use_without_a_lease_is_passed_over<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        assert_eq!(router.seen(external(0, 4000), outside(1, 53)), external(0, 4000));
        let other = router.seen(inside(1, 4000), outside(1, 53));
        assert!(other.address == external::<A>(0, 0).address && other.port != 4000, "{other:?}");
        assert_eq!(router.seen(inside(1, 4000), outside(2, 53)), other);
    }

    fn nat_53_rules_change_and_connections_stay<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let seen = router.seen(inside(1, 4000), outside(1, 53));
        router.nat.set_rules(Default::default());
        assert_eq!(router.seen(inside(1, 4000), outside(1, 53)), seen);
        assert_eq!(router.seen(inside(2, 4000), outside(1, 53)), inside(2, 4000));
    }

    fn nat_53_a_removed_address_takes_exactly_its_connections_along<A>() {
        let mut router = Router::<A>::new(config(Behaviour::node(), 4, 10_000));
        let mut per_address = std::collections::BTreeMap::new();
        for host in 0..100 {
            for port in 0..3 {
                *per_address.entry(router.seen(inside(host, 4000 + port), outside(1, 53)).address).or_insert(0) += 1;
            }
        }
        assert_eq!(per_address.len(), 4);
        let (&gone, &count) = per_address.first_key_value().unwrap();
        assert_eq!(router.nat.remove_address(0, gone, router.now), count);
        assert_eq!(router.nat.len(), 300 - count);
        assert!(router.nat.connections().all(|(_, connection)| connection.external() != Some(gone)));
        // Who was there comes to another.
        for host in 0..100 {
            assert_ne!(router.seen(inside(host, 4000), outside(1, 53)).address, gone);
        }
    }
}
