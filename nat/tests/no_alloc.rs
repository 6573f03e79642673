//! Once a pool's spaces exist, leasing and releasing ports asks the allocator for nothing, hosts coming and going included; nor
//! does a translator that is flooded.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, PacketBuilder};
use nat::behaviour::Behaviour;
use nat::packet::parse;
use nat::ports::{Assignment, Blocks, Config, Keep, Pool, Protocol, Request};
use nat::rule::{Match, Rule, SourceAction, Way};
use nat::timeouts::Timeouts;
use nat::translate::ChecksumState;
use nat::tuple::Address;
use nat::{Nat, Tracked};

thread_local! {
    /// What this thread has asked the allocator for.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting touches a thread-local cell
// without a destructor, which allocates nothing. Zeroed and growing allocations come through `alloc` by default.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Leases and releases for `hosts` hosts, 3,000 ports at a time; what that allocated.
fn allocations(assignment: Assignment<Ipv4Addr>, hosts: u32) -> u64 {
    let mut config = Config::new((1..=3).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect(), 7);
    config.assignment = assignment;
    config.limits.waiting = 10_000;
    config.limits.subscribers = hosts;
    let mut pool = Pool::new(config).unwrap();
    for port in (0..=u16::MAX).step_by(512) {
        for address in pool.addresses().collect::<Vec<_>>() {
            assert!(
                pool.reserve(address, Protocol::Udp, port) && pool.unreserve(address, Protocol::Udp, port)
            );
        }
    }
    let mut held = VecDeque::with_capacity(4_096);
    let before = ALLOCATIONS.with(Cell::get);
    for owner in 0..100_000u32 {
        let now = Duration::from_millis(owner.into());
        pool.expire(now);
        let inside = Ipv4Addr::from_bits(0x0a00_0000 + (owner / 7) % (hosts * 2));
        let request = Request { inside, protocol: Protocol::Udp, port: 5_000, keep: Keep::default() };
        match pool.choose(&request, u64::from(owner).wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            Ok(choice) => held.push_back((pool.take(choice, owner).unwrap(), owner)),
            Err(refused) => pool.count_refusal(refused),
        }
        if held.len() > 3_000 {
            let (lease, owner) = held.pop_front().unwrap();
            assert!(pool.release(lease, owner, now, owner % 3 != 0));
        }
        pool.block_events().for_each(drop);
    }
    assert!(pool.counters().taken > 50_000, "{:?}", pool.counters());
    assert!(pool.counters().released > 40_000, "{:?}", pool.counters());
    ALLOCATIONS.with(Cell::get) - before
}

#[test]
fn leases_of_any_port_allocate_nothing() {
    assert_eq!(allocations(Assignment::Any, 1_000), 0);
}

#[test]
fn leases_in_blocks_allocate_nothing() {
    let blocks = Blocks { size: 64, per_subscriber: 4 };
    assert_eq!(allocations(Assignment::Blocks(blocks), 1_000), 0);
}

/// One packet of a flow that nobody answers.
fn stray(kind: u32, from: (IpAddr, u16), to: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    let echo = IcmpEchoHeader { id: from.1, seq: 1 };
    let ip = match (from.0, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!(),
    };
    match (kind % 3, to) {
        (0, _) => ip.udp(from.1, 53).write(&mut bytes, b"stray"),
        (1, _) => ip.tcp(from.1, 80, 1, 65_000).syn().write(&mut bytes, b""),
        (_, IpAddr::V4(_)) => ip.icmpv4(Icmpv4Type::EchoRequest(echo)).write(&mut bytes, b"stray"),
        (_, IpAddr::V6(_)) => ip.icmpv6(Icmpv6Type::EchoRequest(echo)).write(&mut bytes, b"stray"),
    }
    .unwrap();
    bytes
}

/// Floods a translator of room for 4,000 connections with ten times as many; what that allocated once all of its room, and of
/// its pool's, was used.
fn flood<A: Address>(inside: [A; 16], external: [A; 4], to: A) -> u64 {
    const CAPACITY: u32 = 4000;
    let mut config = nat::Config::new(CAPACITY as usize, Behaviour::node(), Timeouts::rfc(), 42);
    config.pools.push(Config::new(external.into(), 43));
    config.rules.source.push(Rule { matches: Match::default(), action: SourceAction::Pool(0) });
    let mut nat = Nat::new(config).unwrap();
    let way = Way { ingress: 1, egress: Some(2), zone: 0 };
    let pool = nat.pool_mut(0).unwrap();
    for port in (0..=u16::MAX).step_by(512) {
        for (address, protocol) in
            external.into_iter().flat_map(|a| [Protocol::Udp, Protocol::Tcp, Protocol::Icmp].map(|p| (a, p)))
        {
            assert!(pool.reserve(address, protocol, port) && pool.unreserve(address, protocol, port));
        }
    }
    let mut allocated = 0;
    for n in 0..11 * CAPACITY {
        let now = Duration::from_millis(n.into());
        let from = inside[n as usize % inside.len()];
        let port = u16::try_from(n / 3 % 60_000).unwrap() + 1024;
        let bytes = stray(n, (from.into(), port), to.into());
        let before = ALLOCATIONS.with(Cell::get);
        let packet = parse(&bytes).unwrap();
        nat.expire(now);
        if let Tracked::New(new) = nat.track(now, 0, &packet, &bytes, ChecksumState::Complete) {
            let begun =
                nat.prepare(now, &new, None.into(), way).and_then(|prepared| nat.commit(now, &prepared));
            if let Err(refusal) = begun {
                nat.count_refusal(refusal);
            }
        }
        if n >= CAPACITY {
            allocated += ALLOCATIONS.with(Cell::get) - before;
        }
        assert!(nat.len() <= CAPACITY as usize);
    }
    let counters = nat.counters();
    assert!(counters.displaced > 30_000, "{counters:?}");
    allocated
}

#[test]
fn a_flood_allocates_nothing() {
    let v4 = |net: u32, host: u32| Ipv4Addr::from_bits(net + host);
    let v6 = |net: u128, host: u128| Ipv6Addr::from_bits(net << 112 | host);
    let hosts = core::array::from_fn::<u8, 16, _>(|n| u8::try_from(n).unwrap());
    let four = [1, 2, 3, 4];
    let inside = hosts.map(|n| v4(0x0a00_0000, n.into()));
    assert_eq!(flood(inside, four.map(|n| v4(0xc000_0200, n)), v4(0xcb00_7100, 1)), 0);
    let inside = hosts.map(|n| v6(0xfd00, n.into()));
    assert_eq!(flood(inside, four.map(|n| v6(0x2001, n.into())), v6(0x2002, 1)), 0);
}

#[test]
fn the_count_counts() {
    let before = ALLOCATIONS.with(Cell::get);
    drop(Box::new(1));
    assert_eq!(ALLOCATIONS.with(Cell::get), before + 1);
}
