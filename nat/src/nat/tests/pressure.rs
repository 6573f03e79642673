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
        let seen: Vec<Endpoint<A>> = (0..1000)
            .map(|n| {
                let (client, server) = pair(n);
                handshake(&mut router, client, server)
            })
            .collect();
        for flood in [protocol::UDP, protocol::TCP, protocol::ICMP] {
            for n in 0..u16::try_from(10 * capacity).unwrap() {
                let (from, to) = (inside::<A>(2000 + n % 16, n), outside(1, 53));
                let bytes = match flood {
                    protocol::UDP => udp(from, to),
                    protocol::TCP => tcp(from, to, flag::SYN, (100, 0), 0),
                    _ => echo(from, to, false),
                };
                router.take(INSIDE, bytes);
                assert!(router.nat.len() <= capacity);
            }
        }
        for n in 0..1000 {
            let (client, server) = pair(n);
            let data = tcp(server, seen[usize::from(n)], flag::ACK, (7001, 101), 10);
            assert_eq!(ends::<A>(&router.take(OUTSIDE, data).by(INSIDE)), [server, client]);
        }
        let counters = router.nat.counters();
        let asked = 1000 + u64::try_from(30 * capacity).unwrap();
        assert_eq!(counters.opened, asked - counters.refused_full - counters.refused_ports);
        assert!(counters.displaced > 90_000);
        let now = u64::try_from(router.nat.len()).unwrap();
        assert_eq!(counters.opened - counters.displaced - counters.expired - counters.cut_short, now);
    }

    /// Three pods that use all of Linux's ephemeral ports, behind a node that has fewer ports to give than one of them uses
    /// and a half.
    fn three_pods_do_not_exhaust_a_node<A>() {
        const EPHEMERAL: core::ops::RangeInclusive<u16> = 32_768..=60_999;
        let ports = PortSet::range(1024..=29_999).with(61_000..=65_535);
        let too_many = 3 * u32::try_from(EPHEMERAL.len()).unwrap() - ports.len();
        for (sharing, refused) in [(Sharing::Exhausted, 0), (Sharing::Never, too_many)] {
            let mut config = config::<A>(Behaviour { sharing, ..Behaviour::node() }, 1, 1 << 17);
            config.pools[0].ports = ports.clone();
            let mut router = Router::new(config);
            let mut flows = Vec::new();
            for pod in 1..=3 {
                for port in EPHEMERAL {
                    let (from, to) = (inside::<A>(pod, port), outside(port % 7 + 10 * pod, 53));
                    if let Fate::Left(_, bytes) = router.take(INSIDE, udp(from, to)) {
                        flows.push((from, to, source(&bytes)));
                    }
                }
            }
            assert_eq!(router.nat.counters().refused_ports, u64::from(refused));
            for (from, to, seen) in flows {
                assert_eq!(ends::<A>(&router.take(OUTSIDE, udp(to, seen)).by(INSIDE)), [to, from]);
            }
            router.wait(seconds(1000));
            assert!(router.nat.is_empty());
            let pool = router.nat.pool(0).unwrap();
            assert_eq!(pool.free(external::<A>(0, 0).address, ports::Protocol::Udp), ports.len());
        }
    }

    fn ten_thousand_ends_of_each_kind_leave_nothing<A>() {
        let mut router = Router::<A>::new(config(Behaviour::strict(), 1, 20_000));
        let timers = Timeouts::rfc().tcp;
        // Closed by both, by one, and reset.
        for (kind, timer) in [(0, timers.time_wait), (1, timers.fin_wait), (2, timers.close)] {
            for n in 0..10_000u16 {
                let (client, server) = (inside::<A>(n % 100, 1024 + n / 100), outside(1, 80));
                let seen = handshake(&mut router, client, server);
                let last = if kind == 2 { flag::RST } else { flag::FIN | flag::ACK };
                router.take(INSIDE, tcp(client, server, last, (101, 7001), 0)).by(OUTSIDE);
                if kind == 0 {
                    router.take(OUTSIDE, tcp(server, seen, flag::FIN | flag::ACK, (7001, 102), 0)).by(INSIDE);
                    router.take(INSIDE, tcp(client, server, flag::ACK, (102, 7002), 0)).by(OUTSIDE);
                }
            }
            assert_eq!(router.nat.len(), 10_000);
            router.wait(timer + seconds(1));
            assert!(router.nat.is_empty(), "{kind}");
            router.wait(seconds(121));
            let pool = router.nat.pool(0).unwrap();
            assert_eq!((pool.free(external::<A>(0, 0).address, ports::Protocol::Tcp), pool.waiting()), (64_512, 0));
            assert_eq!(router.nat.next_expiry(router.now), None);
        }
    }

    /// Two datagrams of a new flow are held up, say until a neighbour is known, and each was prepared by then.
    fn a_burst_makes_one_mapping<A>() {
        let mut router = Router::<A>::new(config(Behaviour::node(), 2, 1 << 17));
        let way = Way { ingress: INSIDE, egress: Some(OUTSIDE), zone: 0 };
        for n in 0..100_000u32 {
            let client = inside(u16::try_from(n / 1000).unwrap(), u16::try_from(5000 + n % 1000).unwrap());
            let bytes = udp::<A>(client, outside(1, 53));
            let packet = parse(&bytes).unwrap();
            let track = |nat: &mut Nat<A>| nat.track(router.now, 0, &packet, &bytes, ChecksumState::Complete);
            let [first, second] = [(); 2].map(|()| {
                let Tracked::New(new) = track(&mut router.nat) else { panic!("it is the first") };
                router.nat.prepare(router.now, &new, None.into(), way).unwrap()
            });
            assert_eq!(first.rewrite(), second.rewrite());
            router.nat.commit(router.now, &first).unwrap();
            assert_eq!(router.nat.commit(router.now, &second), Err(Refusal::Clash));
            let Tracked::Known { rewrite, .. } = track(&mut router.nat) else { panic!("it has begun") };
            assert_eq!(rewrite, first.rewrite());
        }
        let pool = router.nat.pool(0).unwrap();
        assert_eq!((router.nat.len(), pool.counters().taken), (100_000, 100_000));
        router.wait(Timeouts::rfc().udp + seconds(1));
        let pool = router.nat.pool(0).unwrap();
        assert_eq!((router.nat.len(), pool.counters().released), (0, 100_000));
    }

    fn what_is_dropped_late_has_taken_nothing<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let way = Way { ingress: INSIDE, egress: Some(OUTSIDE), zone: 0 };
        let external = external::<A>(0, 0).address;
        for n in 0..1000 {
            let bytes = udp::<A>(inside(n % 10, 5000 + n), outside(1, 53));
            let packet = parse(&bytes).unwrap();
            let tracked = router.nat.track(router.now, 0, &packet, &bytes, ChecksumState::Complete);
            let Tracked::New(new) = tracked else { panic!("{tracked:?}") };
            let prepared = router.nat.prepare(router.now, &new, None.into(), way).unwrap();
            if n % 2 == 0 {
                router.nat.commit(router.now, &prepared).unwrap();
            }
            let pool = router.nat.pool(0).unwrap();
            let taken = u32::from(n / 2 + 1);
            assert_eq!(pool.free(external, ports::Protocol::Udp), 64_512 - taken);
            assert_eq!(pool.counters().taken, u64::from(taken));
        }
        router.wait(Timeouts::rfc().udp + seconds(121));
        let pool = router.nat.pool(0).unwrap();
        assert_eq!(pool.free(external, ports::Protocol::Udp), 64_512);
        assert_eq!(pool.counters().released, 500);
    }
}

/// Opens a TCP connection; what its client is seen as.
fn handshake<A: Address>(router: &mut Router<A>, client: Endpoint<A>, server: Endpoint<A>) -> Endpoint<A> {
    let seen = source(&router.take(INSIDE, tcp(client, server, flag::SYN, (100, 0), 0)).by(OUTSIDE));
    router.take(OUTSIDE, tcp(server, seen, flag::SYN | flag::ACK, (7000, 101), 0)).by(INSIDE);
    router.take(INSIDE, tcp(client, server, flag::ACK, (101, 7001), 0)).by(OUTSIDE);
    seen
}

impl Behaviour {
    /// Any port for any other.
    fn strict_about_nothing() -> Self {
        Self { keep: Keep { port: true, parity: false, class: false }, ..Self::strict() }
    }
}
