//! Once it is warm, a switch carries frames without asking the allocator for anything: bridged, routed, flooded, answered
//! for, refused, segmented and fragmented.
#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "in a test a panic is the report")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use netstack::addr::PortId;
use netstack::config::{Config, Limits, RouterAdvertisement, Snapshot, StormControl};
use netstack::counters::Counters;
use netstack::frame::{Checksum, FrameBatch, FramePool, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::policy::Policies;
use netstack::seed::Seed;
use netstack::switch::Switch;
use netstack::verdict::{DropReason, Fate, Origin};

#[path = "switch/lab.rs"]
#[expect(dead_code, reason = "the other test's laboratory; this one measures the switch bare")]
mod lab;
#[path = "switch/packets.rs"]
#[expect(dead_code, reason = "shared with the other test")]
mod packets;
#[path = "switch/rules.rs"]
#[expect(dead_code, reason = "shared with the other test")]
mod rules;
#[path = "switch/world.rs"]
#[expect(dead_code, reason = "shared with the other test")]
mod world;

use packets::{BROADCAST, announce, ask, ethernet};
use rules::{GROUP_A, UDP, accept, group, ingress, on, only};
use world::{FAR, FREE, Family, GUEST, NODE, OTHER, POD_A, POD_B, VIP, ip, node, service, services, with};

thread_local! {
    /// What this thread has asked the allocator for.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    ALLOCATIONS.with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting touches a thread-local
// cell without a destructor, which allocates nothing.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

const FRAMES: u64 = 10_000;
const BATCH: u64 = 32;

/// A switch and what a driver has beside it: one batch, and the switch's own pool.
struct Bare {
    switch: Switch,
    batch: FrameBatch,
    now: Duration,
}

impl Bare {
    fn new() -> Self {
        Self::of(with(|c| {
            c.ports[usize::from(POD_A.port)].offload = OffloadFeatures::ALL;
            c.segments[1].mtu = 1280;
        }))
    }

    fn of(config: Config) -> Self {
        let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
        switch.install(Snapshot::compile(config, None).unwrap());
        let mut bare = Self { switch, batch: FrameBatch::new(), now: Duration::from_secs(1000) };
        for host in [GUEST, FAR, OTHER] {
            for (family, router) in [
                (Family::V4, if host.port == FAR.port { "10.1.0.1" } else { "10.0.0.1" }),
                (Family::V6, if host.port == FAR.port { "fd00:1::1" } else { "fd00::1" }),
            ] {
                bare.turn(host.port, &ask(host.mac, host.ip(family), ip(router)), Offload::default(), 1);
            }
        }
        bare
    }

    /// Other policies in the place of those that there are.
    fn police(&mut self, policies: Policies) {
        let next = self.switch.snapshot().with_policies(Some(Arc::new(policies))).unwrap();
        self.switch.install(next);
        while self.switch.poll_event().is_some() {}
    }

    /// One turn of a driver: frames in, what is due, frames out.
    fn turn(&mut self, port: u16, frame: &[u8], offload: Offload, count: u64) {
        for _ in 0..count {
            let mut copy = self.switch.pool().copy_of(frame);
            copy.offload = offload;
            assert!(self.batch.push(copy).is_ok());
        }
        self.now += Duration::from_millis(1);
        self.switch.handle_frames(self.now, PortId(port), &mut self.batch);
        while self.switch.poll_timeout().is_some_and(|at| at <= self.now) {
            self.switch.handle_timeout(self.now);
        }
        while self.switch.poll_transmit(&mut self.batch).is_some() {
            while let Some(frame) = self.batch.pop() {
                self.switch.pool().recycle(frame);
            }
        }
        while self.switch.poll_event().is_some() {}
    }

    /// Warms up with a tenth of the frames, then carries them all and returns how the counters changed.
    fn carry(&mut self, name: &str, port: u16, frame: &[u8], offload: Offload, batch: u64) -> Counters {
        (0..FRAMES / 10 / batch).for_each(|_| self.turn(port, frame, offload, batch));
        let before = self.switch.counters();
        let slabs = self.switch.pool().counters();
        let count =
            allocations(|| (0..FRAMES.div_ceil(batch)).for_each(|_| self.turn(port, frame, offload, batch)));
        assert_eq!(count, 0, "{name}: allocations over {FRAMES} frames");
        assert_eq!(self.switch.pool().counters(), slabs, "{name}: slabs");
        self.switch.check().unwrap();
        let after = self.switch.counters();
        assert!(after.rx_frames - before.rx_frames >= FRAMES);
        let mut change = Counters::default();
        for (index, fate) in change.fates.iter_mut().enumerate() {
            *fate = after.fates[index] - before.fates[index];
        }
        for (index, origin) in change.origins.iter_mut().enumerate() {
            *origin = after.origins[index] - before.origins[index];
        }
        for (index, reason) in change.drops.iter_mut().enumerate() {
            *reason = after.drops[index] - before.drops[index];
        }
        change
    }
}

/// The measured number of frames, rounded up to whole batches.
fn all(batch: u64) -> u64 {
    FRAMES.div_ceil(batch) * batch
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(7u64)))), 1);
    assert_eq!(allocations(|| assert_eq!(std::hint::black_box(7u64), 7)), 0);
}

#[test]
fn carrying_allocates_nothing() {
    let plain = Offload::default();
    for family in [Family::V4, Family::V6] {
        let mut bare = Bare::new();
        let forwarded = [
            ("bridged", POD_A.port, POD_A.to(&POD_B, family).udp(1, 2, &[7; 64])),
            ("bridged to a learned station", POD_B.port, POD_B.to(&GUEST, family).udp(1, 2, &[7; 1400])),
            ("routed", POD_A.port, POD_A.via_router(FAR.ip(family)).udp(1, 2, &[7; 64])),
            ("routed back", FAR.port, FAR.via_router(POD_B.ip(family)).udp(1, 2, &[7; 1000])),
            (
                "routed by the default",
                POD_B.port,
                POD_B.via_router(ip(family.of("203.0.113.1", "2001:db8::1"))).tcp(1, 2, b"x"),
            ),
        ];
        for (name, port, frame) in forwarded {
            let change = bare.carry(name, port, &frame, plain, BATCH);
            assert_eq!(change.fate(Fate::Forwarded), all(BATCH), "{name}");
        }
        let question = ask(GUEST.mac, GUEST.ip(family), POD_A.ip(family));
        let change = bare.carry("answered for a pod", GUEST.port, &question, plain, BATCH);
        assert_eq!(change.origin(Origin::Originated), all(BATCH));
        let echo = POD_A.via_router(ip(family.of("10.0.0.1", "fd00::1"))).echo(1, 2, &[7; 56]);
        let change = bare.carry("echo", POD_A.port, &echo, plain, BATCH);
        assert_eq!(change.origin(Origin::Originated), all(BATCH));
        let mut dying = POD_A.via_router(FAR.ip(family));
        dying.hop_limit = 1;
        let change = bare.carry("out of hops", POD_A.port, &dying.udp(1, 2, &[7; 64]), plain, BATCH);
        assert_eq!(change.dropped(DropReason::TtlExceeded), all(BATCH));
        let mut spoofed = POD_A.to(&POD_B, family);
        spoofed.source = GUEST.ip(family);
        let change = bare.carry("spoofed", POD_A.port, &spoofed.udp(1, 2, &[7; 64]), plain, BATCH);
        assert_eq!(change.dropped(DropReason::SpoofedAddress), all(BATCH));
    }
}

#[test]
fn flooding_allocates_nothing() {
    let mut bare = Bare::new();
    let frame = ethernet(GUEST.mac, BROADCAST, 0x88b5, 100);
    let change = bare.carry("flooded", GUEST.port, &frame, Offload::default(), BATCH);
    assert_eq!(change.origin(Origin::FloodCopy), 3 * all(BATCH));
}

#[test]
fn segmenting_and_fragmenting_allocate_nothing() {
    for family in [Family::V4, Family::V6] {
        let mut bare = Bare::new();
        let kind = family.of(SegmentKind::TcpV4, SegmentKind::TcpV6);
        let offload = Offload {
            checksum: Checksum::Partial { start: family.of(34, 54), offset: 16 },
            segmentation: Some(Segmentation { kind, size: 1400, ecn: false }),
        };
        let frame = POD_A.to(&POD_B, family).tcp(1, 2, &vec![7; 5600]);
        let change = bare.carry("segmented", POD_A.port, &frame, offload, 8);
        assert_eq!(change.origin(Origin::Segment), 4 * all(8));
        let whole = Offload { segmentation: None, ..offload };
        let frame = POD_A.to(&POD_B, family).tcp(1, 2, &[7; 1000]);
        let change = bare.carry("checksum completed", POD_A.port, &frame, whole, BATCH);
        assert_eq!(change.fate(Fate::Forwarded), all(BATCH));
    }
    let mut bare = Bare::new();
    let mut packet = POD_A.via_router(FAR.ip(Family::V4));
    packet.dont_fragment = false;
    let change = bare.carry("fragmented", POD_A.port, &packet.udp(1, 2, &[7; 1400]), Offload::default(), 16);
    assert_eq!(change.origin(Origin::Fragment), 2 * all(16));
}

/// Storms, loops, isolation, conflicts, proxy answers, and all that is done by time.
#[test]
fn protecting_allocates_nothing() {
    let mut bare = Bare::of(with(|c| {
        c.segments[0].proxy_neighbors = true;
        let told = RouterAdvertisement { min_interval: 3, max_interval: 4, ..RouterAdvertisement::default() };
        c.segments[0].gateway.as_mut().unwrap().advertise = Some(told);
        for host in [GUEST, OTHER] {
            let port = &mut c.ports[usize::from(host.port)];
            (port.loop_guard, port.isolated) = (true, true);
            port.storm = Some(StormControl { rate: 1000, burst: 10 });
        }
    }));
    let plain = Offload::default();
    let broadcast = ethernet(GUEST.mac, BROADCAST, 0x88b5, 100);
    let change = bare.carry("storm", GUEST.port, &broadcast, plain, BATCH);
    assert!(change.dropped(DropReason::StormControl) > FRAMES / 2);
    assert!(change.fate(Fate::Flooded) > 100);
    let isolated = GUEST.to(&OTHER, Family::V4).udp(1, 2, b"x");
    let change = bare.carry("isolated", GUEST.port, &isolated, plain, BATCH);
    assert_eq!(change.dropped(DropReason::PortIsolated), all(BATCH));
    for family in [Family::V4, Family::V6] {
        let claim = announce(FAR.mac, ip(family.of("10.1.0.1", "fd00:1::1")));
        let change = bare.carry("conflict", FAR.port, &claim, plain, BATCH);
        assert_eq!(change.dropped(DropReason::ManagedAddressClaimed), all(BATCH));
        let question = ask(POD_A.mac, POD_A.ip(family), FAR.ip(family));
        let change = bare.carry("proxied", POD_A.port, &question, plain, BATCH);
        assert!(change.origin(Origin::Originated) >= all(BATCH));
    }
    // Probes for loops and advertisements, over minutes.
    let wait = |bare: &mut Bare| {
        bare.now += Duration::from_secs(1);
        bare.turn(POD_A.port, &POD_A.to(&POD_B, Family::V4).udp(1, 2, b"x"), plain, 1);
    };
    (0..10).for_each(|_| wait(&mut bare));
    let before = bare.switch.counters().origin(Origin::Originated);
    let frames = allocations(|| drop(POD_A.to(&POD_B, Family::V4).udp(1, 2, b"x")));
    assert_eq!(allocations(|| (0..200).for_each(|_| wait(&mut bare))), 200 * frames, "what is done by time");
    assert!(bare.switch.counters().origin(Origin::Originated) > before + 200);
    let jumping = GUEST.to(&POD_A, Family::V4).udp(1, 2, b"x");
    let turn = |bare: &mut Bare| {
        bare.turn(GUEST.port, &jumping, plain, 1);
        bare.turn(OTHER.port, &jumping, plain, 1);
    };
    (0..1000).for_each(|_| turn(&mut bare));
    assert!(bare.switch.counters().dropped(DropReason::LoopBlocked) > 0);
    assert_eq!(allocations(|| (0..20_000).for_each(|_| turn(&mut bare))), 0, "a loop");
    bare.switch.check().unwrap();
}

/// Frames that wait, their neighbour's silence, and the errors about it.
#[test]
fn waiting_allocates_nothing() {
    for family in [Family::V4, Family::V6] {
        let mut bare = Bare::new();
        let nobody = ip(family.of("10.1.0.77", "fd00:1::77"));
        let frame = POD_A.via_router(nobody).udp(1, 2, &[7; 64]);
        // Warm is who has lived through one silence.
        (0..4000).for_each(|_| bare.turn(POD_A.port, &frame, Offload::default(), 2));
        let change = bare.carry("waiting", POD_A.port, &frame, Offload::default(), 2);
        assert_eq!(change.fate(Fate::Parked) + change.dropped(DropReason::NeighborFailed), all(2));
        assert!(change.dropped(DropReason::NeighborFailed) > 0, "it is given up meanwhile");
    }
}

/// Connections that stand, that begin and end, and fragments that come in the wrong order.
#[test]
fn translating_allocates_nothing() {
    let plain = Offload::default();
    for family in [Family::V4, Family::V6] {
        let mut bare = Bare::of(node(|_| {}));
        let own = NODE.ip(family);
        let carried = [
            ("masqueraded", POD_A.port, POD_A.via_router(FAR.ip(family)).udp(4000, 53, &[7; 64])),
            ("answered", FAR.port, FAR.via_router(own).udp(53, 4000, &[7; 64])),
            ("published", FAR.port, FAR.via_router(own).udp(4001, 8080, &[7; 64])),
            ("bridged", POD_A.port, POD_A.to(&POD_B, family).udp(1, 2, &[7; 64])),
        ];
        for (name, port, frame) in carried {
            let change = bare.carry(name, port, &frame, plain, BATCH);
            assert_eq!(change.fate(Fate::Forwarded), all(BATCH), "{name}");
        }
        let stray = FAR.via_router(own).echo_reply(9, 1, &[7; 64]);
        let change = bare.carry("nobody's answer", FAR.port, &stray, plain, BATCH);
        assert_eq!(change.dropped(DropReason::IcmpUnrelated), all(BATCH));

        let question = POD_A.via_router(FAR.ip(family));
        let frames: Vec<Vec<u8>> =
            (0..4096).map(|l4_port| question.udp(10_000 + l4_port, 53, b"x")).collect();
        let hello = ask(FAR.mac, FAR.ip(family), own);
        let again = |bare: &mut Bare| {
            bare.turn(FAR.port, &hello, plain, 1);
            frames.iter().for_each(|frame| bare.turn(POD_A.port, frame, plain, 1));
            // Longer than they last, and than their ports wait.
            for _ in 0..500 {
                bare.now += Duration::from_secs(1);
                bare.turn(POD_A.port, &carried_by_bridge(family), plain, 0);
            }
        };
        let opened = |bare: &Bare| {
            let (v4, v6) = bare.switch.connections().unwrap();
            v4.counters().opened + v6.counters().opened
        };
        again(&mut bare);
        let before = opened(&bare);
        let made = allocations(|| (0..500).for_each(|_| drop(carried_by_bridge(family))));
        assert_eq!(allocations(|| again(&mut bare)), made, "connections that begin and end");
        assert_eq!(opened(&bare) - before, 4096);

        let packet = packets::Packet { dont_fragment: false, ..question };
        let mut pieces = packets::fragment(&packet.udp(4000, 53, &[7; 56]), 16);
        pieces.reverse();
        let pass = |bare: &mut Bare| pieces.iter().for_each(|piece| bare.turn(POD_A.port, piece, plain, 1));
        bare.turn(FAR.port, &hello, plain, 1);
        (0..100).for_each(|_| pass(&mut bare));
        let before = bare.switch.counters().fate(Fate::Forwarded);
        assert_eq!(allocations(|| (0..1000).for_each(|_| pass(&mut bare))), 0, "fragments");
        assert_eq!(bare.switch.counters().fate(Fate::Forwarded) - before, 4000);
    }
}

/// Connections through services: those that stand, those that begin, with affinity and without, and those refused.
#[test]
fn balancing_allocates_nothing() {
    let plain = Offload::default();
    for family in [Family::V4, Family::V6] {
        let [vip, free] = [VIP, FREE].map(|[v4, v6]| ip(family.of(v4, v6)));
        let backends: Vec<_> = (8001..=8004).map(|port| (POD_B.ip(family), port)).collect();
        let sticky = lb::Service {
            affinity: Some(Duration::from_secs(3600)),
            ..service("sticky", 17, &[(vip, 53)], &backends)
        };
        let of =
            [service("web", 17, &[(vip, 80)], &backends), sticky, service("empty", 17, &[(vip, 8)], &[])];
        let mut bare = Bare::of(Config { services: Some(services(of)), ..node(|_| {}) });
        let pod = |port| POD_A.via_router(vip).udp(4000, port, &[7; 64]);
        for (name, port, frame) in [
            ("balanced", POD_A.port, pod(80)),
            ("answered", POD_B.port, POD_B.to(&POD_A, family).udp(8001, 4000, &[7; 64])),
            ("masqueraded", NODE.port, NODE.via_router(vip).udp(4000, 80, &[7; 64])),
        ] {
            let change = bare.carry(name, port, &frame, plain, BATCH);
            assert_eq!(change.fate(Fate::Forwarded), all(BATCH), "{name}");
        }
        for (frame, reason) in [
            (pod(8), DropReason::ServiceNoBackend),
            (pod(9), DropReason::ServicePortClosed),
            (POD_A.via_router(free).udp(1, 2, b"x"), DropReason::ServiceAddressFree),
        ] {
            let change = bare.carry(reason.name(), POD_A.port, &frame, plain, BATCH);
            assert_eq!(change.dropped(reason), all(BATCH));
        }
        let frames: Vec<Vec<u8>> = (0..2048)
            .flat_map(|port| [80, 53].map(|to| POD_A.via_router(vip).udp(10_000 + port, to, b"x")))
            .collect();
        let again = |bare: &mut Bare| {
            frames.iter().for_each(|frame| bare.turn(POD_A.port, frame, plain, 1));
            // Longer than they last.
            (0..500).for_each(|_| {
                bare.now += Duration::from_secs(1);
                bare.turn(POD_A.port, &frames[0], plain, 0);
            });
        };
        again(&mut bare);
        let before = bare.switch.balanced();
        assert_eq!(allocations(|| again(&mut bare)), 0, "connections that begin and end");
        assert_eq!(bare.switch.balanced() - before, 4096);
    }
}

/// What policies let through, what they stop or would have stopped, and what stands when they are others.
#[test]
fn policing_allocates_nothing() {
    let plain = Offload::default();
    for (family, audits) in [(Family::V4, false), (Family::V6, false), (Family::V4, true), (Family::V6, true)]
    {
        let mut policies = on(&POD_B, &ingress(&[accept(group(GROUP_A), only(UDP, 53))]));
        policies.set_audit(audits);
        let mut bare = Bare::of(node(|_| {}));
        bare.police(policies.clone());
        let packet = POD_A.to(&POD_B, family);
        let open = packet.udp(4000, 53, &[7; 64]);
        let change = bare.carry("let through", POD_A.port, &open, plain, BATCH);
        assert_eq!(change.fate(Fate::Forwarded), all(BATCH));
        for (name, frame) in [
            ("stopped", packet.udp(4000, 54, &[7; 64])),
            ("stopped, as there is no connection", ethernet(POD_A.mac, POD_B.mac, 0x88b5, 60)),
        ] {
            let change = bare.carry(name, POD_A.port, &frame, plain, BATCH);
            let stopped = if audits { 0 } else { all(BATCH) };
            assert_eq!(change.dropped(DropReason::PolicyDenied), stopped, "{name}");
        }
        let everybody = ethernet(POD_A.mac, BROADCAST, 0x88b5, 60);
        let change = bare.carry("flooded past it", POD_A.port, &everybody, plain, BATCH);
        assert_eq!(change.fate(Fate::Flooded), all(BATCH));

        let frames: Vec<Vec<u8>> = (0..2048).map(|port| packet.udp(10_000 + port, 53, b"x")).collect();
        let pass = |bare: &mut Bare| frames.iter().for_each(|frame| bare.turn(POD_A.port, frame, plain, 1));
        let again = |bare: &mut Bare| {
            pass(bare);
            // Longer than they last.
            (0..500).for_each(|_| {
                bare.now += Duration::from_secs(1);
                bare.turn(POD_A.port, &frames[0], plain, 0);
            });
        };
        again(&mut bare);
        assert_eq!(allocations(|| again(&mut bare)), 0, "connections that begin and end");
        pass(&mut bare);
        for warm in [false, true] {
            bare.police(policies.clone());
            let count = allocations(|| pass(&mut bare));
            assert!(!warm || count == 0, "{count} allocations to judge anew");
        }
        bare.switch.check().unwrap();
    }
}

fn carried_by_bridge(family: Family) -> Vec<u8> {
    POD_A.to(&POD_B, family).udp(1, 2, b"x")
}
