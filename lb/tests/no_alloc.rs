//! Once services are installed, choosing backends, remembering clients and asking how connections stand asks the allocator
//! for nothing.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use lb::{
    Ask, Backend, Balancer, Entrance, Frontend, Limits, Origin, Policy, Pool, Refusal, Registry, Service,
    Serving, Standing, Verdict, Way,
};

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

const PORTS: u16 = 16;

fn frontend(port: u16) -> Frontend {
    Frontend { address: Ipv4Addr::new(10, 96, 0, 1).into(), protocol: 6, port }
}

/// Every policy, with and without affinity, with equal weights and others.
fn service(port: u16) -> Service {
    let policy =
        [Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous][usize::from(port % 4)];
    let backend = |n| Backend {
        address: Ipv4Addr::new(10, 244, 0, n).into(),
        port: 8080,
        weight: 1 + u32::from(n) * u32::from(port / 8),
    };
    let pool = Arc::new(Pool::new((1..20).map(backend), policy, None, [7; 16]).unwrap());
    let way = Way { pool, masquerade: false, when_empty: Refusal::Reject };
    Service {
        name: format!("service-{port}").into(),
        entrances: vec![Entrance {
            frontend: frontend(port),
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            ways: [way.clone(), way.clone(), way],
        }],
        affinity: (port & 4 == 0).then_some(Duration::from_secs(60)),
        serving: Serving::default(),
        reset_gone: false,
    }
}

#[test]
fn connections_allocate_nothing() {
    let mut registry = Registry::new();
    for port in 0..PORTS {
        registry.set(service(port)).unwrap();
    }
    let mut balancer = Balancer::new([1; 16], Limits { affinities: 64 });
    balancer.install(registry);
    let before = ALLOCATIONS.with(Cell::get);
    let (mut chosen, mut sticky) = (0, 0);
    for n in 0..20_000u32 {
        let ask = Ask {
            frontend: frontend(u16::try_from(n % u32::from(PORTS + 1)).unwrap()),
            source: Ipv4Addr::from_bits(0x0a00_0000 + n / 100).into(),
            source_port: u16::try_from(n).unwrap(),
            origin: Origin::Outside,
        };
        let (now, draw) = (Duration::from_millis(n.into()), u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if let Verdict::Chosen(choice) = balancer.choose(now, &ask, draw) {
            balancer.commit(now, &ask, &choice);
            assert_eq!(balancer.standing(choice.mark, &ask.frontend, choice.backend), Standing::Current);
            chosen += 1;
            sticky += u32::from(choice.sticky);
        }
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert!(chosen == 20_000 - 20_000 / 17 && sticky > 1_000);
}
