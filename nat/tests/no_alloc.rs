//! Once a pool's spaces exist, leasing and releasing ports asks the allocator for nothing, hosts coming and going included.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use nat::ports::{Assignment, Blocks, Config, Keep, Pool, Protocol, Request};

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

#[test]
fn the_count_counts() {
    let before = ALLOCATIONS.with(Cell::get);
    drop(Box::new(1));
    assert_eq!(ALLOCATIONS.with(Cell::get), before + 1);
}
