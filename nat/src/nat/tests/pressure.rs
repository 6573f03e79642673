//! When there is not enough of something.

use super::*;

in_both_families! {
    fn every_port_is_given_out_before_a_connection_is_refused<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::strict_about_nothing());
        let all = 65_536 - 1024;
        let client = |n: u32| inside::<A>(u16::try_from(n / 1000).unwrap(), u16::try_from(n % 1000).unwrap());
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..all {
            assert!(seen.insert(router.seen(client(n), outside(1, 53))));
        }
        let late = |router: &mut Router<A>| router.take(INSIDE, udp(client(all), outside(1, 53)));
        assert_eq!(late(&mut router), Fate::Refused(Refusal::Ports(Refused::Exhausted)));
        assert_eq!(router.nat.counters().refused_ports, 1);
        assert_eq!(router.nat.on_refusal(), OnRefusal::Prohibited);
        // All but one go on; that one's port comes back when its mapping has ended and the port has waited.
        let timeouts = Timeouts::rfc();
        let half = timeouts.udp / 2;
        router.wait(half);
        for n in 1..all {
            router.seen(client(n), outside(1, 53));
        }
        router.wait(half + Duration::from_millis(200));
        assert_eq!(router.nat.len(), 64_511);
        assert!(matches!(late(&mut router), Fate::Refused(_)), "the port has not waited yet");
        for n in 1..all {
            router.seen(client(n), outside(1, 53));
        }
        router.wait(seconds(120));
        late(&mut router).by(OUTSIDE);
        let next = router.take(INSIDE, udp(client(all + 1), outside(1, 53)));
        assert_eq!(next, Fate::Refused(Refusal::Ports(Refused::Exhausted)));
    }

    fn nat_49_a_flood_does_not_harm_what_stands<A>() {
        let capacity = 4000;
        let mut router = Router::<A>::new(config(Behaviour::node(), 4, capacity));
        let pair = |n: u16| (inside::<A>(n, 4000), outside::<A>(1, 80));
        let mut seen = Vec::new();
        for n in 0..1000 {
            let (client, server) = pair(n);
            let sent = router.take(INSIDE, tcp(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE);
            seen.push(source(&sent));
            router.take(OUTSIDE, tcp(server, seen[usize::from(n)], flag::SYN | flag::ACK, (7000, 101), 0)).by(INSIDE);
            router.take(INSIDE, tcp(client, server, flag::ACK, (101, 7001), 0)).by(OUTSIDE);
        }
        for n in 0..u16::try_from(10 * capacity).unwrap() {
            router.take(INSIDE, udp::<A>(inside(2000 + n % 16, n), outside(1, 53)));
            assert!(router.nat.len() <= capacity);
        }
        for n in 0..1000 {
            let (client, server) = pair(n);
            let data = router.take(OUTSIDE, tcp(server, seen[usize::from(n)], flag::ACK, (7001, 101), 10)).by(INSIDE);
            assert_eq!(ends::<A>(&data), [server, client]);
        }
        let counters = router.nat.counters();
        let opened = 1000 + u64::try_from(10 * capacity).unwrap() - counters.refused_full - counters.refused_ports;
        assert_eq!(counters.opened, opened);
        assert!(counters.displaced > 30_000);
        let now = u64::try_from(router.nat.len()).unwrap();
        assert_eq!(counters.opened - counters.displaced - counters.expired - counters.cut_short, now);
    }

    fn shared_ports_serve_more_flows_than_there_are_ports<A>() {
        // As few ports as make it a quick test: three clients use each of them towards another destination.
        for (sharing, refused) in [(Sharing::Exhausted, 0), (Sharing::Never, 2000)] {
            let mut config = config::<A>(Behaviour { sharing, ..Behaviour::node() }, 1, 10_000);
            config.pools[0].ports = PortSet::range(2000..=2999);
            let mut router = Router::new(config);
            let mut flows = Vec::new();
            for client in 1..=3u16 {
                for port in 0..1000 {
                    let (from, to) = (inside::<A>(client, 2000 + port), outside(port % 7 + 10 * client, 53));
                    if let Fate::Left(_, bytes) = router.take(INSIDE, udp(from, to)) {
                        flows.push((from, to, source(&bytes)));
                    }
                }
            }
            assert_eq!(router.nat.counters().refused_ports, refused);
            for (from, to, seen) in flows {
                assert_eq!(ends::<A>(&router.take(OUTSIDE, udp(to, seen)).by(INSIDE)), [to, from]);
            }
            router.wait(seconds(1000));
            assert!(router.nat.is_empty());
            assert_eq!(router.nat.pool(0).unwrap().free(external::<A>(0, 0).address, ports::Protocol::Udp), 1000);
        }
    }

    fn ten_thousand_ends_leave_nothing<A>() {
        let mut router = Router::<A>::new(config(Behaviour::strict(), 1, 20_000));
        for n in 0..10_000u16 {
            let (client, server) = (inside::<A>(n % 100, 1024 + n / 100), outside(1, 80));
            let sent = router.take(INSIDE, tcp(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE);
            let seen = source(&sent);
            router.take(OUTSIDE, tcp(server, seen, flag::SYN | flag::ACK, (7000, 101), 0)).by(INSIDE);
            router.take(INSIDE, tcp(client, server, flag::ACK, (101, 7001), 0)).by(OUTSIDE);
            // Closed by both, by one, or reset.
            let last = if n % 3 == 2 { flag::RST } else { flag::FIN | flag::ACK };
            router.take(INSIDE, tcp(client, server, last, (101, 7001), 0)).by(OUTSIDE);
            if n % 3 == 0 {
                router.take(OUTSIDE, tcp(server, seen, flag::FIN | flag::ACK, (7001, 102), 0)).by(INSIDE);
                router.take(INSIDE, tcp(client, server, flag::ACK, (102, 7002), 0)).by(OUTSIDE);
            }
        }
        assert_eq!(router.nat.len(), 10_000);
        router.wait(seconds(241));
        assert!(router.nat.is_empty());
        router.wait(seconds(121));
        let pool = router.nat.pool(0).unwrap();
        assert_eq!((pool.free(external::<A>(0, 0).address, ports::Protocol::Tcp), pool.waiting()), (64_512, 0));
        assert_eq!(router.nat.next_expiry(router.now), None);
    }
}

impl Behaviour {
    /// Any port for any other.
    fn strict_about_nothing() -> Self {
        Self { keep: Keep { port: true, parity: false, class: false }, ..Self::strict() }
    }
}
