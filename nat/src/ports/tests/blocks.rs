//! Port blocks: NAT-8, NAT-9, NAT-56.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use proptest::prelude::*;

use super::{NOW, PROTOCOLS, ask, config, external, host, lease};
use crate::ports::{
    Assignment, BlockEvent, BlockEventKind, Blocks, Lease, NotTaken, Pool, PortRange, PortSet, Protocol,
    Refused,
};

fn pool(size: u16, per_subscriber: u8, ports: PortSet) -> Pool<Ipv4Addr> {
    let mut config = config();
    config.addresses = Vec::from([external(1), external(2)]);
    config.ports = ports;
    config.assignment = Assignment::Blocks(Blocks { size, per_subscriber });
    Pool::new(config).unwrap()
}

fn one(event: Vec<BlockEvent<Ipv4Addr>>) -> BlockEvent<Ipv4Addr> {
    assert_eq!(event.len(), 1, "{event:?}");
    event[0]
}

#[test]
fn nat_9_a_subscriber_has_so_many_blocks_and_one_log_line_for_each() {
    let mut pool = pool(16, 2, PortSet::range(1024..=65_535));
    let mut leases = Vec::new();
    for owner in 0..32 {
        let protocol = PROTOCOLS[0];
        leases.push((lease(&mut pool, &ask(host(1), protocol, 40_000), owner.into(), owner).unwrap(), owner));
    }
    let events: Vec<_> = pool.block_events().collect();
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!((event.kind, event.inside, event.ports.len()), (BlockEventKind::Assigned, host(1), 16));
        assert_eq!(leases.iter().filter(|(lease, _)| event.ports.contains(lease.port)).count(), 16);
        assert_eq!(event.external, leases[0].0.external);
    }
    assert_eq!(pool.choose(&ask(host(1), Protocol::Tcp, 40_000), 1), Err(Refused::Quota));
    // The blocks are the subscriber's in all protocols.
    let udp = lease(&mut pool, &ask(host(1), Protocol::Udp, 40_000), 1, 100).unwrap();
    assert!(events.iter().any(|event| event.ports.contains(udp.port)));
    assert_eq!(pool.block_events().count(), 0);
    // Others have other blocks.
    let other = lease(&mut pool, &ask(host(2), Protocol::Udp, 40_000), 1, 101).unwrap();
    let event = one(pool.block_events().collect());
    assert_eq!(event.inside, host(2));
    assert!(event.ports.contains(other.port));
    assert!(events.iter().all(|e| (e.external, e.ports) != (event.external, event.ports)));
}

#[test]
fn nat_56_a_block_comes_back_when_its_last_port_has_waited() {
    let mut pool = pool(64, 1, PortSet::range(1024..=65_535));
    let one_lease = lease(&mut pool, &ask(host(1), Protocol::Udp, 40_000), 1, 1).unwrap();
    let two = lease(&mut pool, &ask(host(1), Protocol::Icmp, 40_000), 1, 2).unwrap();
    let assigned = one(pool.block_events().collect());
    assert!(pool.release(one_lease, 1, NOW, true) && pool.release(two, 2, NOW, false));
    assert_eq!((pool.block_events().count(), pool.subscribers()), (0, 1));
    pool.expire(NOW + Duration::from_secs(119));
    assert_eq!(pool.block_events().count(), 0);
    pool.expire(NOW + Duration::from_secs(120));
    let returned = one(pool.block_events().collect());
    assert_eq!(returned, BlockEvent { kind: BlockEventKind::Returned, ..assigned });
    assert_eq!(pool.subscribers(), 0);
}

#[test]
fn nat_56_a_block_comes_back_with_its_address_or_when_its_port_is_reserved() {
    let mut pool = pool(64, 1, PortSet::range(1024..=65_535));
    let waits = lease(&mut pool, &ask(host(1), Protocol::Udp, 40_000), 1, 1).unwrap();
    let first = one(pool.block_events().collect());
    assert!(pool.release(waits, 1, NOW, true));
    assert!(pool.reserve(waits.external, Protocol::Udp, waits.port));
    assert_eq!(one(pool.block_events().collect()), BlockEvent { kind: BlockEventKind::Returned, ..first });
    let held = lease(&mut pool, &ask(host(2), Protocol::Udp, 40_000), 1, 1).unwrap();
    let second = one(pool.block_events().collect());
    assert!(pool.remove(held.external));
    assert_eq!(one(pool.block_events().collect()), BlockEvent { kind: BlockEventKind::Returned, ..second });
    assert_eq!(pool.subscribers(), 0);
}

#[test]
fn two_choices_of_one_host_do_not_take_two_first_blocks() {
    let mut pool = pool(64, 8, PortSet::range(1024..=65_535));
    let request = ask(host(1), Protocol::Udp, 40_000);
    let (one, other) = (pool.choose(&request, 1).unwrap(), pool.choose(&request, 2).unwrap());
    pool.take(one, 1).unwrap();
    assert_eq!(pool.take(other, 2), Err(NotTaken::Gone));
    lease(&mut pool, &request, 3, 2).unwrap();
    assert_eq!(pool.block_events().count(), 1);
}

#[test]
fn a_choice_in_a_block_that_went_to_another_is_gone() {
    let mut pool = pool(64, 1, PortSet::range(1024..=1087));
    pool.remove(external(2));
    let first = lease(&mut pool, &ask(host(1), Protocol::Udp, 1030), 1, 1).unwrap();
    let stale = pool.choose(&ask(host(1), Protocol::Udp, 1040), 1).unwrap();
    assert!(pool.release(first, 1, NOW, false));
    lease(&mut pool, &ask(host(2), Protocol::Udp, 1050), 1, 2).unwrap();
    assert_eq!(pool.take(stale, 3), Err(NotTaken::Gone));
    assert_eq!(pool.leases_of(host(1)), 0);
}

#[test]
fn no_block_is_shared() {
    let mut pool = pool(64, 1, PortSet::range(1024..=1087));
    let request = ask(host(1), Protocol::Udp, 1024);
    let first = lease(&mut pool, &request, 1, 1).unwrap();
    assert_eq!(pool.choose_shared(&request, 1, |_, _| true), Err(Refused::Exhausted));
    // One block on each of two addresses: the third host finds none, as long as both are somebody's.
    lease(&mut pool, &ask(host(2), Protocol::Udp, 1024), 1, 2).unwrap();
    assert_eq!(pool.choose(&ask(host(3), Protocol::Udp, 1024), 1), Err(Refused::Exhausted));
    assert!(pool.release(first, 1, NOW, false));
    assert!(pool.choose(&ask(host(3), Protocol::Udp, 1024), 1).is_ok());
}

#[test]
fn every_port_of_every_block_is_given_out_around_reservations() {
    for size in [1, 7, 64, 1000, u16::MAX] {
        let mut pool = pool(size, 8, PortSet::range(1020..=1400).without(1100..=1110));
        for address in [external(1), external(2)] {
            for port in 1190..=1260 {
                assert!(pool.reserve(address, Protocol::Udp, port));
            }
        }
        let mut seen = BTreeSet::new();
        for number in 0..2000u32 {
            while let Ok(lease) = lease(&mut pool, &ask(host(number), Protocol::Udp, 1200), number.into(), 1)
            {
                assert!(seen.insert((lease.external, lease.port)));
            }
        }
        assert_eq!(seen.len(), 2 * (381 - 11 - 71), "size {size}");
    }
}

#[test]
fn events_that_nobody_drains_are_counted() {
    let mut config = config();
    config.assignment = Assignment::Blocks(Blocks { size: 64, per_subscriber: 1 });
    config.limits.block_events = 2;
    let mut pool = Pool::new(config).unwrap();
    for number in 0..3 {
        lease(&mut pool, &ask(host(number), Protocol::Udp, 1), 1, number).unwrap();
    }
    assert_eq!((pool.counters().block_events_lost, pool.block_events().count()), (1, 2));
}

/// Whose each block is, from the log alone.
#[derive(Default)]
struct Log(BTreeMap<(Ipv4Addr, u16), (Ipv4Addr, PortRange)>);

impl Log {
    fn replay(&mut self, pool: &mut Pool<Ipv4Addr>) {
        for BlockEvent { kind, inside, external, ports } in pool.block_events() {
            match kind {
                BlockEventKind::Assigned => {
                    let before = self.0.insert((external, ports.first), (inside, ports));
                    assert_eq!(before, None, "a block is given to two");
                }
                BlockEventKind::Returned => {
                    assert_eq!(self.0.remove(&(external, ports.first)), Some((inside, ports)));
                }
            }
        }
    }

    fn inside(&self, external: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
        let (_, (inside, ports)) = self.0.range((external, 0)..=(external, port)).next_back()?;
        ports.contains(port).then_some(*inside)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The log answers at any time who uses a port, or used it until it stopped waiting.
    #[test]
    fn nat_56_the_log_tells_who_used_a_port(
        steps in prop::collection::vec((0u8..10, 0u32..8, 0usize..2, any::<u64>()), 1..400),
        size in 1u16..20,
    ) {
        let mut pool = pool(size, 3, PortSet::range(1024..=1100));
        let (mut log, mut now) = (Log::default(), NOW);
        let mut held: Vec<(Lease<Ipv4Addr>, u32)> = Vec::new();
        let mut waits: Vec<(Lease<Ipv4Addr>, Duration)> = Vec::new();
        for (owner, (verb, number, protocol, random)) in (0..).zip(steps) {
            match verb {
                0..5 => {
                    if let Ok(lease) = lease(&mut pool, &ask(host(number), PROTOCOLS[protocol], 1050), random, owner) {
                        held.push((lease, owner));
                    }
                }
                5..9 if !held.is_empty() => {
                    let at = usize::try_from(random % held.len() as u64).unwrap();
                    let (lease, owner) = held.swap_remove(at);
                    prop_assert!(pool.release(lease, owner, now, verb < 8));
                    if verb < 8 {
                        waits.push((lease, now + Duration::from_secs(120)));
                    }
                }
                _ => now += Duration::from_secs(random % 60),
            }
            pool.expire(now);
            waits.retain(|(_, until)| *until > now);
            log.replay(&mut pool);
            for lease in held.iter().map(|(lease, _)| lease).chain(waits.iter().map(|(lease, _)| lease)) {
                prop_assert_eq!(log.inside(lease.external, lease.port), Some(lease.inside));
            }
        }
        for (lease, owner) in held {
            prop_assert!(pool.release(lease, owner, now, true));
        }
        pool.expire(now + Duration::from_secs(120));
        log.replay(&mut pool);
        prop_assert!(log.0.is_empty());
        prop_assert_eq!(pool.subscribers(), 0);
    }
}
