//! What rules make of connections.

use super::*;

fn rule<A, T>(matches: Match<A>, action: T) -> Rule<A, T> {
    Rule { matches, action }
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

    /// Two services in front of one server, asked from one port: the answers could not be told apart.
    fn what_would_be_confused_is_refused<A>() {
        let mut config = Config::<A>::new(100, Behaviour::node(), Timeouts::rfc(), 1);
        for port in [81, 82] {
            let ports = Some(PortRange { first: port, last: port });
            let server = DestinationAction::To { address: Some(inside::<A>(1, 0).address), ports: Some(PortRange { first: 80, last: 80 }) };
            config.rules.destination.push(rule(Match { destination_ports: ports, ..Match::default() }, server));
        }
        let mut router = Router::new(config);
        router.take(OUTSIDE, udp::<A>(outside(1, 4000), outside(9, 81))).by(INSIDE);
        let second = router.take(OUTSIDE, udp::<A>(outside(1, 4000), outside(9, 82)));
        assert_eq!(second, Fate::Refused(Refusal::Clash));
        assert_eq!((router.nat.len(), router.nat.counters().refused_clash), (1, 1));
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
