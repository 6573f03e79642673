//! The numbered rules, each by itself.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::{NOW, Numbers, PROTOCOLS, ask, config, external, host, lease, pool};
use crate::ports::{
    Assignment, Blocks, Config, ConfigError, Keep, Lease, MOST_ADDRESSES, NotTaken, OWNERS, Pool, PortSet,
    Protocol, Refused, Request,
};

/// Every port of `protocol`, leased in turn.
fn fill(pool: &mut Pool<Ipv4Addr>, protocol: Protocol, numbers: &mut Numbers) -> Vec<(Lease<Ipv4Addr>, u32)> {
    let mut leases = Vec::new();
    for owner in 0.. {
        match lease(pool, &ask(host(owner % 100), protocol, 40_000), numbers.next(), owner) {
            Ok(lease) => leases.push((lease, owner)),
            Err(refused) => {
                assert_eq!(refused, Refused::Exhausted);
                break;
            }
        }
    }
    leases
}

#[test]
fn nat_3_an_inside_host_keeps_its_external_address_in_all_protocols() {
    let mut pool = Pool::new(Config::new((1..=4).map(external).collect(), 7)).unwrap();
    let mut numbers = Numbers(3);
    let mut seen = BTreeSet::new();
    for flow in 0..500u16 {
        let request = ask(host(1), PROTOCOLS[usize::from(flow % 4)], 20_000 + flow);
        seen.insert(lease(&mut pool, &request, numbers.next(), flow.into()).unwrap().external);
    }
    assert_eq!(seen.len(), 1);
    // With its address full, it is refused where others would still be served.
    let full = *seen.first().unwrap();
    while pool.choose(&ask(host(1), Protocol::Udp, 1), numbers.next()).is_ok() {
        lease(&mut pool, &ask(host(1), Protocol::Udp, 1), numbers.next(), 1).unwrap();
    }
    let other = pool.choose(&ask(host(2), Protocol::Udp, 1), numbers.next()).unwrap();
    assert_ne!(other.lease().external, full);
}

#[test]
fn nat_3_hosts_spread_over_the_pool_by_load() {
    let mut pool = Pool::new(Config::new((1..=4).map(external).collect(), 7)).unwrap();
    let mut numbers = Numbers(4);
    let mut hosts = BTreeMap::new();
    for number in 0..64 {
        let lease =
            lease(&mut pool, &ask(host(number), Protocol::Tcp, 50_000), numbers.next(), number).unwrap();
        *hosts.entry(lease.external).or_insert(0) += 1;
    }
    assert_eq!(hosts.len(), 4);
    assert!(hosts.values().all(|&n| (12..=20).contains(&n)), "{hosts:?}");
    // One heavy host keeps newcomers away from its address.
    let heavy = ask(host(100), Protocol::Tcp, 50_000);
    let address = (0..1000).map(|n| lease(&mut pool, &heavy, n, 1).unwrap().external).last().unwrap();
    let newcomers = (0..400)
        .filter(|&n| pool.choose(&ask(host(200), Protocol::Tcp, 1), n).unwrap().lease().external == address);
    // Only when both draws fall on it, 1 in 16.
    assert!(newcomers.count() < 50);
}

#[test]
fn nat_3_a_host_without_leases_is_forgotten() {
    let mut pool = Pool::new(Config::new((1..=4).map(external).collect(), 7)).unwrap();
    let first = lease(&mut pool, &ask(host(1), Protocol::Tcp, 5000), 1, 1).unwrap();
    let second = lease(&mut pool, &ask(host(1), Protocol::Icmp, 5), 2, 2).unwrap();
    assert!(pool.release(first, 1, NOW, true));
    assert_eq!((pool.subscribers(), pool.leases_of(host(1))), (1, 1));
    assert!(pool.release(second, 2, NOW, true));
    assert_eq!((pool.subscribers(), pool.leases_of(host(1))), (0, 0));
}

#[test]
fn nat_4_two_hosts_with_the_same_port_get_different_ones() {
    let mut pool = pool();
    for protocol in PROTOCOLS {
        let one = lease(&mut pool, &ask(host(1), protocol, 40_000), 1, 1).unwrap();
        let two = lease(&mut pool, &ask(host(2), protocol, 40_000), 1, 2).unwrap();
        assert_eq!(one.port, 40_000);
        assert_ne!(two.port, 40_000);
        assert_eq!(pool.owner(external(1), protocol, one.port), Some(1));
        assert_eq!(pool.owner(external(1), protocol, two.port), Some(2));
    }
}

#[test]
fn nat_5_the_class_of_a_port_is_kept() {
    let mut config = config();
    config.ports = PortSet::range(512..=2047);
    let mut pool = Pool::new(config).unwrap();
    let request =
        |port| Request { keep: Keep { class: true, ..Keep::default() }, ..ask(host(1), Protocol::Udp, port) };
    // Once each to take the port itself; then the class, to its last port, and not one of the other class.
    for (port, class) in [(700, 512..=1023), (1500, 1024..=2047)] {
        let ports: BTreeSet<u16> =
            class.clone().map(|n| lease(&mut pool, &request(port), u64::from(n), 1).unwrap().port).collect();
        assert!(ports.iter().copied().eq(class));
        assert_eq!(pool.choose(&request(port), 1), Err(Refused::Exhausted));
    }
    // Where no low port is permitted there is no class to keep.
    let pool = super::pool();
    assert!(pool.choose(&request(700), 1).unwrap().lease().port >= 1024);
    // An identifier of ICMP has no class.
    let low = Request { protocol: Protocol::Icmp, ..request(700) };
    assert_eq!(pool.choose(&low, 1).unwrap().lease().port, 700);
}

#[test]
fn nat_6_the_port_is_kept_while_it_is_free() {
    let mut pool = pool();
    let request = ask(host(1), Protocol::Tcp, 40_000);
    let kept = lease(&mut pool, &request, 1, 1).unwrap();
    assert_eq!(kept.port, 40_000);
    assert!(pool.release(kept, 1, NOW, false));
    let random = Request { keep: Keep { port: false, ..Keep::default() }, ..request };
    assert_ne!(pool.choose(&random, 1).unwrap().lease().port, 40_000);
    assert_eq!(pool.choose(&request, 1).unwrap().lease().port, 40_000);
}

/// Pearson's statistic of `ports` over 64 equal parts of `first..=65_535`.
fn chi_square(ports: &[u16], first: u32) -> f64 {
    let mut parts = [0u32; 64];
    for &port in ports {
        parts[((u32::from(port) - first) * 64 / (65_536 - first)) as usize] += 1;
    }
    let expected = f64::from(u32::try_from(ports.len()).unwrap()) / 64.0;
    parts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum()
}

/// With 63 degrees of freedom, exceeded by chance once in a hundred thousand.
const UNLIKELY: f64 = 123.0;

fn collide(pool: &mut Pool<Ipv4Addr>, parity: bool) -> Vec<u16> {
    let mut numbers = Numbers(6);
    let taken = lease(pool, &ask(host(1), Protocol::Udp, 40_001), 0, 0).unwrap();
    assert_eq!(taken.port, 40_001);
    let request = Request { keep: Keep { parity, ..Keep::default() }, ..ask(host(2), Protocol::Udp, 40_001) };
    (0..6400)
        .map(|_| {
            let other = lease(pool, &request, numbers.next(), 1).unwrap();
            assert!(pool.release(other, 1, NOW, false));
            other.port
        })
        .collect()
}

#[test]
fn nat_6_after_a_collision_the_port_is_uniform() {
    let statistic = chi_square(&collide(&mut pool(), false), 1024);
    assert!(statistic < UNLIKELY, "{statistic}");
}

#[test]
fn nat_6_and_7_it_is_uniform_among_ports_of_equal_parity() {
    let ports = collide(&mut pool(), true);
    assert!(ports.iter().all(|port| port % 2 == 1));
    let statistic = chi_square(&ports, 1024);
    assert!(statistic < UNLIKELY, "{statistic}");
}

#[test]
fn nat_6_it_is_uniform_beside_a_long_run_of_taken_ports() {
    let mut pool = pool();
    for port in 1024..=32_767 {
        lease(&mut pool, &ask(host(1), Protocol::Udp, port), 0, port.into()).unwrap();
    }
    let ports = collide(&mut pool, false);
    let statistic = chi_square(&ports, 32_768);
    assert!(statistic < UNLIKELY, "{statistic}");
    // The statistic would tell: the next port after a single draw is the first free one half of the time.
    let mut numbers = Numbers(6);
    let next_after_draw: Vec<u16> =
        (0..6400).map(|_| u16::try_from((1024 + numbers.next() % 64_512).max(32_768)).unwrap()).collect();
    assert!(chi_square(&next_after_draw, 32_768) > 10.0 * UNLIKELY);
}

#[test]
fn nat_7_parity_is_kept_to_the_last_port() {
    let mut config = config();
    config.ports = PortSet::range(2000..=2099);
    let mut pool = Pool::new(config).unwrap();
    for port in [2000, 2001] {
        let request =
            Request { keep: Keep { parity: true, ..Keep::default() }, ..ask(host(1), Protocol::Udp, port) };
        let ports: BTreeSet<u16> = (0..50).map(|n| lease(&mut pool, &request, n, 1).unwrap().port).collect();
        assert!(ports.len() == 50 && ports.iter().all(|other| other % 2 == port % 2));
        assert_eq!(pool.choose(&request, 1), Err(Refused::Exhausted));
    }
}

#[test]
fn nat_9_and_51_a_quota_holds_for_one_host_alone() {
    let mut config = config();
    config.limits.leases_per_subscriber = 100;
    let mut pool = Pool::new(config).unwrap();
    let greedy = ask(host(1), Protocol::Udp, 40_000);
    let leases: Vec<_> = (0..100).map(|n| lease(&mut pool, &greedy, n.into(), n).unwrap()).collect();
    for protocol in PROTOCOLS {
        let refused = pool.choose(&Request { protocol, ..greedy }, 1).unwrap_err();
        assert_eq!(refused, Refused::Quota);
        pool.count_refusal(refused);
    }
    assert_eq!(pool.choose_shared(&greedy, 1, |_, _| true), Err(Refused::Quota));
    assert_eq!((pool.counters().quota, pool.counters().exhausted), (4, 0));
    assert!(lease(&mut pool, &ask(host(2), Protocol::Udp, 40_000), 1, 200).is_ok());
    // The lease counts, not the port: one that is held down does not.
    assert!(pool.release(leases[17], 17, NOW, true));
    assert!(lease(&mut pool, &greedy, 1, 17).is_ok());
    assert_eq!(pool.choose(&greedy, 1), Err(Refused::Quota));
}

#[test]
fn nat_9_the_number_of_hosts_is_limited_too() {
    let mut config = config();
    config.limits.subscribers = 3;
    let mut pool = Pool::new(config).unwrap();
    let leases: Vec<_> =
        (0..3).map(|n| lease(&mut pool, &ask(host(n), Protocol::Tcp, 9999), 1, n).unwrap()).collect();
    let fourth = ask(host(3), Protocol::Tcp, 9999);
    assert_eq!(pool.choose(&fourth, 1), Err(Refused::Subscribers));
    assert!(pool.choose(&ask(host(2), Protocol::Tcp, 9999), 1).is_ok());
    assert!(pool.release(leases[0], 0, NOW, false));
    assert!(pool.choose(&fourth, 1).is_ok());
}

#[test]
fn nat_11_a_released_port_waits_120_seconds() {
    let mut pool = pool();
    let request = ask(host(1), Protocol::Udp, 40_000);
    let closed = lease(&mut pool, &request, 1, 1).unwrap();
    assert!(pool.release(closed, 1, NOW, true));
    assert_eq!(pool.owner(closed.external, Protocol::Udp, 40_000), None);
    assert_eq!(pool.next_expiry(), Some(NOW + Duration::from_secs(120)));
    pool.expire(NOW + Duration::from_secs(119));
    assert_ne!(pool.choose(&request, 1).unwrap().lease().port, 40_000);
    assert_eq!((pool.waiting(), pool.free(external(1), Protocol::Udp)), (1, 64_511));
    pool.expire(NOW + Duration::from_secs(121));
    assert_eq!(pool.choose(&request, 1).unwrap().lease().port, 40_000);
    assert_eq!((pool.waiting(), pool.next_expiry()), (0, None));
}

#[test]
fn nat_11_a_port_need_not_wait_where_the_caller_says_so() {
    let mut pool = pool();
    let request = ask(host(1), Protocol::Tcp, 40_000);
    let closed = lease(&mut pool, &request, 1, 1).unwrap();
    assert!(pool.release(closed, 1, NOW, false));
    assert_eq!(pool.choose(&request, 1).unwrap().lease().port, 40_000);
}

#[test]
fn nat_11_time_and_number_of_waiting_ports_are_settable() {
    let mut config = config();
    config.hold = Duration::from_secs(5);
    config.limits.waiting = 2;
    let mut pool = Pool::new(config).unwrap();
    let leases: Vec<_> = (0..3)
        .map(|n| lease(&mut pool, &ask(host(1), Protocol::Udp, 7000 + n), 1, n.into()).unwrap())
        .collect();
    for (lease, owner) in leases.iter().zip(0..) {
        assert!(pool.release(*lease, owner, NOW, true));
    }
    let kept = |pool: &Pool<_>, port| {
        pool.choose(&ask(host(1), Protocol::Udp, port), 1).unwrap().lease().port == port
    };
    assert_eq!([7000, 7001, 7002].map(|port| kept(&pool, port)), [true, false, false]);
    assert_eq!(pool.counters().hold_cut_short, 1);
    pool.expire(NOW + Duration::from_secs(5));
    assert_eq!([7000, 7001, 7002].map(|port| kept(&pool, port)), [true, true, true]);
}

#[test]
fn nat_13_behaviour_is_the_same_at_every_degree_of_use() {
    let mut config = config();
    config.ports = PortSet::range(10_000..=10_999);
    for percent in [0, 50, 95, 99] {
        let mut pool = Pool::new(config.clone()).unwrap();
        let mut numbers = Numbers(percent);
        for n in 0..percent * 10 {
            let request = Request {
                keep: Keep { port: false, ..Keep::default() },
                ..ask(host(1), Protocol::Udp, 10_000)
            };
            lease(&mut pool, &request, numbers.next(), u32::try_from(n).unwrap()).unwrap();
        }
        let parity = Keep { parity: true, ..Keep::default() };
        for port in 10_000..=10_999 {
            let request = Request { keep: parity, ..ask(host(2), Protocol::Udp, port) };
            let chosen = pool.choose(&request, numbers.next()).map(|choice| choice.lease().port);
            if pool.owner(external(1), Protocol::Udp, port).is_none() {
                assert_eq!(chosen, Ok(port), "at {percent} %");
            } else if let Ok(chosen) = chosen {
                assert_eq!(chosen % 2, port % 2, "at {percent} %");
            }
        }
    }
}

#[test]
fn nat_14_a_pool_may_have_gaps() {
    let addresses: BTreeSet<Ipv4Addr> =
        ["192.0.2.1", "192.0.2.7", "198.51.100.0", "198.51.100.1", "198.51.100.2", "198.51.100.3"]
            .map(|address| address.parse().unwrap())
            .into();
    let pool = Pool::new(Config::new(addresses.iter().rev().copied().collect(), 1)).unwrap();
    assert!(pool.addresses().eq(addresses.iter().copied()));
    let seen: BTreeSet<Ipv4Addr> = (0..200)
        .map(|n| pool.choose(&ask(host(n), Protocol::Tcp, 1), n.into()).unwrap().lease().external)
        .collect();
    assert_eq!(seen, addresses);
}

#[test]
fn nat_45_every_port_is_given_out_before_a_refusal_and_freeing_one_admits_one() {
    for (protocol, count) in PROTOCOLS.into_iter().zip([64_512, 64_512, 65_536, 64_512]) {
        let mut pool = pool();
        let mut numbers = Numbers(45);
        let mut leases = fill(&mut pool, protocol, &mut numbers);
        let ports: BTreeSet<u16> = leases.iter().map(|(lease, _)| lease.port).collect();
        assert_eq!((leases.len(), ports.len()), (count, count));
        assert!(protocol == Protocol::Icmp || ports.first() == Some(&1024));
        // A refusal takes nothing from anybody.
        assert!(leases.iter().all(|(l, owner)| pool.owner(l.external, protocol, l.port) == Some(*owner)));
        // Freeing one admits exactly one, whichever it is.
        numbers.shuffle(&mut leases);
        for (lease, owner) in leases.iter_mut().take(2000) {
            assert!(pool.release(*lease, *owner, NOW, false));
            let choice = pool.choose(&ask(host(9), protocol, 40_000), numbers.next()).unwrap();
            assert_eq!(choice.lease().port, lease.port);
            *lease = pool.take(choice, *owner).unwrap();
            assert_eq!(pool.choose(&ask(host(9), protocol, 40_000), 1), Err(Refused::Exhausted));
        }
        // With hold-down, when it is over and not before.
        let (held, owner) = leases[0];
        assert!(pool.release(held, owner, NOW, true));
        pool.expire(NOW + Duration::from_secs(119));
        assert_eq!(pool.choose(&ask(host(9), protocol, 40_000), 1), Err(Refused::Exhausted));
        pool.expire(NOW + Duration::from_secs(120));
        leases[0].0 = lease(&mut pool, &ask(host(9), protocol, 40_000), 1, owner).unwrap();
        assert_eq!(pool.choose(&ask(host(9), protocol, 40_000), 1), Err(Refused::Exhausted));
        // All of them back, in random order, and each only once.
        numbers.shuffle(&mut leases);
        for (lease, owner) in &leases {
            assert!(pool.release(*lease, *owner, NOW, false));
            assert!(!pool.release(*lease, *owner, NOW, false));
        }
        assert_eq!(pool.free(external(1), protocol) as usize, count);
        assert_eq!(pool.subscribers(), 0);
    }
}

#[test]
fn nat_53_an_address_that_goes_takes_its_leases_and_no_others() {
    let mut pool = Pool::new(Config::new((1..=2).map(external).collect(), 7)).unwrap();
    let mut numbers = Numbers(53);
    let leases: Vec<_> = (0..40)
        .map(|n| lease(&mut pool, &ask(host(n % 20), Protocol::Udp, 5000), numbers.next(), n).unwrap())
        .collect();
    let (gone, kept): (Vec<_>, Vec<_>) = leases.iter().zip(0..).partition(|(l, _)| l.external == external(1));
    assert!(!gone.is_empty() && !kept.is_empty());
    let (waits, owner) = gone[0];
    assert!(pool.release(*waits, owner, NOW, true));
    assert!(pool.remove(external(1)) && !pool.remove(external(1)));
    assert_eq!(pool.waiting(), 0);
    // Back again, it is empty, and what comes late does not disturb it.
    pool.add(external(1)).unwrap();
    assert_eq!(pool.free(external(1), Protocol::Udp), 64_512);
    assert!(gone.iter().all(|(lease, owner)| !pool.release(**lease, *owner, NOW, true)));
    assert!(gone.iter().all(|(lease, _)| pool.leases_of(lease.inside) == 0));
    assert!(kept.iter().all(|(lease, owner)| pool.release(**lease, *owner, NOW, true)));
    assert_eq!(pool.subscribers(), 0);
}

#[test]
fn reserved_and_excluded_ports_are_not_leased() {
    let mut config = config();
    config.ports = PortSet::range(2000..=2009).without(2003..=2004);
    let mut pool = Pool::new(config).unwrap();
    let address = external(1);
    assert!(pool.reserve(address, Protocol::Tcp, 2000) && !pool.reserve(address, Protocol::Tcp, 2000));
    assert!(pool.reserve(address, Protocol::Tcp, 80) && pool.reserve(address, Protocol::Tcp, 2003));
    let mut ports: Vec<u16> = (0..7)
        .map(|n| lease(&mut pool, &ask(host(1), Protocol::Tcp, 2000 + n), 1, n.into()).unwrap().port)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [2001, 2002, 2005, 2006, 2007, 2008, 2009]);
    assert_eq!(pool.choose(&ask(host(1), Protocol::Tcp, 2000), 1), Err(Refused::Exhausted));
    assert!(!pool.reserve(address, Protocol::Tcp, 2001), "a leased port cannot be reserved");
    assert!(!pool.reserve(external(9), Protocol::Tcp, 2001));
    // What is given back is free if it was permitted, and only then.
    for port in [80, 2003, 2000] {
        assert!(pool.unreserve(address, Protocol::Tcp, port));
        assert!(!pool.unreserve(address, Protocol::Tcp, port));
    }
    assert_eq!(pool.free(address, Protocol::Tcp), 1);
    assert_eq!(pool.choose(&ask(host(1), Protocol::Tcp, 1), 1).unwrap().lease().port, 2000);
    // Other protocols have ports of their own.
    assert_eq!(pool.free(address, Protocol::Udp), 8);
}

#[test]
fn a_reservation_ends_a_wait_for_good() {
    let mut pool = pool();
    let request = ask(host(1), Protocol::Udp, 4000);
    let old = lease(&mut pool, &request, 1, 1).unwrap();
    assert!(pool.release(old, 1, NOW, true));
    assert!(pool.reserve(old.external, Protocol::Udp, 4000));
    assert_eq!(pool.waiting(), 0);
    assert!(pool.unreserve(old.external, Protocol::Udp, 4000));
    let new = lease(&mut pool, &request, 1, 2).unwrap();
    assert_eq!(new.port, 4000);
    assert!(pool.release(new, 2, NOW + Duration::from_secs(100), true));
    // The first wait would be over.
    pool.expire(NOW + Duration::from_secs(150));
    assert_ne!(pool.choose(&request, 1).unwrap().lease().port, 4000);
}

#[test]
fn an_exhausted_address_shares_ports_towards_other_destinations() {
    let mut config = config();
    config.ports = PortSet::range(2000..=2003);
    let mut pool = Pool::new(config).unwrap();
    let request = ask(host(1), Protocol::Udp, 2002);
    let first: Vec<_> = (0..4).map(|n| lease(&mut pool, &request, n.into(), n).unwrap()).collect();
    assert_eq!(pool.choose(&request, 1), Err(Refused::Exhausted));
    // The inside port comes first, then every other, each once, until one is free.
    let mut asked = Vec::new();
    let nothing = pool.choose_shared(&request, 1, |_, port| {
        asked.push(port);
        false
    });
    assert_eq!((nothing, asked[0], asked.len()), (Err(Refused::Exhausted), 2002, 4));
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 4);
    let choice = pool.choose_shared(&request, 1, |_, port| port == 2001).unwrap();
    let owner = pool.owner(external(1), Protocol::Udp, 2001).unwrap();
    assert_eq!(pool.take(choice, owner), Err(NotTaken::Gone), "nobody shares with himself");
    let shared = pool.take(choice, 10).unwrap();
    assert_eq!(shared.port, 2001);
    assert!(pool.is_shared(external(1), Protocol::Udp, 2001));
    assert_eq!(pool.take(choice, 10), Err(NotTaken::Gone), "nobody shares with himself");
    // The port has an owner until the last has let go.
    let (owner, sole) = first.iter().zip(0..).find(|(l, _)| l.port == 2001).map(|(l, n)| (n, *l)).unwrap();
    assert_eq!(pool.owner(external(1), Protocol::Udp, 2001), Some(owner));
    assert!(pool.release(sole, owner, NOW, true));
    assert!(!pool.release(sole, owner, NOW, true));
    assert_eq!(pool.owner(external(1), Protocol::Udp, 2001), Some(10));
    assert!(!pool.is_shared(external(1), Protocol::Udp, 2001));
    assert_eq!((pool.waiting(), pool.free(external(1), Protocol::Udp)), (0, 0));
    assert!(pool.release(shared, 10, NOW, true));
    assert_eq!((pool.waiting(), pool.owner(external(1), Protocol::Udp, 2001)), (1, None));
    assert_eq!(pool.take(choice, 11), Err(NotTaken::Gone), "who is gone shares no more");
    let counters = pool.counters();
    assert_eq!((counters.taken, counters.shared, counters.released), (5, 1, 2));
}

#[test]
fn a_search_for_a_port_to_share_is_bounded() {
    let mut pool = pool();
    fill(&mut pool, Protocol::Tcp, &mut Numbers(1));
    let mut asked = BTreeSet::new();
    let nothing = pool.choose_shared(&ask(host(1), Protocol::Tcp, 40_000), 5, |_, port| !asked.insert(port));
    assert_eq!((nothing, asked.len()), (Err(Refused::Exhausted), crate::ports::MOST_PROBES as usize));
}

#[test]
fn a_choice_that_no_longer_stands_takes_nothing() {
    let mut pool = Pool::new(Config::new((1..=2).map(external).collect(), 7)).unwrap();
    let before = pool.choose(&ask(host(1), Protocol::Tcp, 40_000), 1).unwrap();
    let address = before.lease().external;
    assert_eq!(pool.take(before, OWNERS), Err(NotTaken::Owner));
    assert_eq!(pool.memory(), 0, "choosing and failing leave nothing behind");
    // Taken by another.
    let same = (0..).find_map(|n| {
        let choice = pool.choose(&ask(host(2), Protocol::Tcp, 40_000), n).unwrap();
        (choice.lease().external == address).then_some(choice)
    });
    pool.take(same.unwrap(), 2).unwrap();
    assert_eq!(pool.take(before, 1), Err(NotTaken::Gone));
    // The host was paired with another address in the meantime.
    let elsewhere = (0..).find_map(|n| {
        let choice = pool.choose(&ask(host(1), Protocol::Tcp, 40_000), n).unwrap();
        (choice.lease().external != address).then_some(choice)
    });
    let again = (0..).find_map(|n| {
        let choice = pool.choose(&ask(host(1), Protocol::Tcp, 50_000), n).unwrap();
        (choice.lease().external == address).then_some(choice)
    });
    pool.take(elsewhere.unwrap(), 1).unwrap();
    assert_eq!(pool.take(again.unwrap(), 3), Err(NotTaken::Gone));
    // The address went.
    let last = pool.choose(&ask(host(1), Protocol::Tcp, 60_000), 1).unwrap();
    pool.remove(last.lease().external);
    assert_eq!(pool.take(last, 4), Err(NotTaken::Gone));
    assert_eq!(pool.leases_of(host(1)), 0);
}

#[test]
fn a_lease_changes_hands() {
    let mut pool = pool();
    let mine = lease(&mut pool, &ask(host(1), Protocol::Sctp, 40_000), 1, 1).unwrap();
    assert!(!pool.set_owner(mine, 2, 3) && !pool.set_owner(mine, 1, 1) && !pool.set_owner(mine, 1, OWNERS));
    let shared = pool.choose_shared(&ask(host(2), Protocol::Sctp, 40_000), 1, |_, _| true).unwrap();
    let shared = pool.take(shared, 5).unwrap();
    assert!(!pool.set_owner(mine, 1, 5));
    assert!(pool.set_owner(mine, 1, 7) && pool.set_owner(shared, 5, 6));
    assert_eq!(pool.owner(external(1), Protocol::Sctp, 40_000), Some(7));
    assert!(!pool.release(mine, 1, NOW, false) && !pool.release(shared, 5, NOW, false));
    assert!(pool.release(mine, 7, NOW, false));
    assert_eq!(pool.owner(external(1), Protocol::Sctp, 40_000), Some(6));
}

#[test]
fn a_space_takes_the_memory_that_is_documented() {
    let mut pool = pool();
    assert_eq!(pool.memory(), 0);
    lease(&mut pool, &ask(host(1), Protocol::Icmp, 40_000), 1, 1).unwrap();
    assert!((11_500..11_700).contains(&pool.memory()), "{}", pool.memory());
    fill(&mut pool, Protocol::Icmp, &mut Numbers(1));
    let dense = pool.memory();
    assert!((271_000..272_000).contains(&dense), "{dense}");
    lease(&mut pool, &ask(host(1), Protocol::Udp, 40_000), 1, 1).unwrap();
    assert!(pool.memory() < dense + 12_000);
}

#[test]
fn ipv6_is_leased_by_the_same_code() {
    let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let mut pool = Pool::new(Config::new(Vec::from([address]), 1)).unwrap();
    let inside: Ipv6Addr = "fd00::5".parse().unwrap();
    let request = Request { inside, protocol: Protocol::Tcp, port: 40_000, keep: Keep::default() };
    let lease = pool.take(pool.choose(&request, 1).unwrap(), 3).unwrap();
    assert_eq!((lease.external, lease.port), (address, 40_000));
    assert_eq!(pool.owner(address, Protocol::Tcp, 40_000), Some(3));
}

#[test]
fn a_pool_without_addresses_refuses() {
    let mut pool = Pool::new(Config::new(Vec::new(), 1)).unwrap();
    let request = ask(host(1), Protocol::Tcp, 40_000);
    assert_eq!(pool.choose(&request, 1), Err(Refused::Exhausted));
    assert_eq!(pool.choose_shared(&request, 1, |_, _| true), Err(Refused::Exhausted));
    pool.add(external(1)).unwrap();
    assert!(pool.choose(&request, 1).is_ok());
}

#[test]
fn wrong_configurations_are_named() {
    let blocks = |size, per_subscriber| {
        let mut config = config();
        config.assignment = Assignment::Blocks(Blocks { size, per_subscriber });
        Pool::new(config).map(|_| ())
    };
    assert_eq!(blocks(0, 1), Err(ConfigError::BlockSize));
    assert_eq!(blocks(64, 0), Err(ConfigError::BlocksPerSubscriber));
    assert_eq!(blocks(64, 9), Err(ConfigError::BlocksPerSubscriber));
    assert_eq!(blocks(u16::MAX, 8), Ok(()));
    let many = (0..=u32::try_from(MOST_ADDRESSES).unwrap()).map(host).collect();
    assert_eq!(Pool::new(Config::new(many, 1)).map(|_| ()), Err(ConfigError::Addresses));
    for protocol in [6u8, 17, 1, 58, 132] {
        assert!(Protocol::from_number(protocol).is_some());
    }
    assert_eq!(Protocol::from_number(47), None);
}
