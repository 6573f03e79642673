mod answers;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::device::fault::{Fault, LinkProfile};
use crate::device::memory::{MemoryDevice, MemoryOptions, pair};
use crate::device::{DeviceError, Direction, Sent};
use crate::event::Event;
use crate::frame::{Depot, Frame, FramePool};
use crate::offload::OffloadFeatures;
use crate::publish::Publisher;

const MS: Duration = Duration::from_millis(1);

/// What a toy does with a frame it receives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// Sends it back to where it came from.
    Reflect,
    /// Keeps `window` numbered frames in flight on port 0 until `total` have come back in order.
    Count { window: u64, total: u64 },
    /// Sends it to this port and a copy to that one.
    Copy(PortId, PortId),
}

struct Toy {
    habit: Habit,
    pool: FramePool,
    out: VecDeque<(PortId, Frame)>,
    sent: u64,
    received: u64,
    disorder: u64,
    deadline: Option<Duration>,
    fired: Vec<Duration>,
}

impl Toy {
    fn new(habit: Habit, depot: &Arc<Depot>) -> Self {
        let deadline = matches!(habit, Habit::Count { .. }).then_some(Duration::ZERO);
        let pool = FramePool::with_depot(depot.clone());
        let (out, fired) = (VecDeque::new(), Vec::new());
        Self { habit, pool, out, sent: 0, received: 0, disorder: 0, deadline, fired }
    }

    fn boxed(habit: Habit) -> Box<Self> {
        Box::new(Self::new(habit, &Depot::new()))
    }

    fn fill(&mut self) {
        if let Habit::Count { window, total } = self.habit {
            while self.sent < total && self.sent - self.received < window {
                let frame = self.pool.copy_of(&self.sent.to_le_bytes());
                self.out.push_back((PortId(0), frame));
                self.sent += 1;
            }
        }
    }
}

impl Engine for Toy {
    fn handle_frames(&mut self, _now: Duration, port: PortId, batch: &mut FrameBatch) {
        for frame in batch.drain() {
            match self.habit {
                Habit::Reflect => self.out.push_back((port, frame)),
                Habit::Count { .. } => {
                    self.disorder += u64::from(frame.bytes() != self.received.to_le_bytes());
                    self.pool.recycle(frame);
                }
                Habit::Copy(first, second) => {
                    let copy = self.pool.duplicate(&frame);
                    self.out.push_back((second, copy));
                    self.out.push_back((first, frame));
                }
            }
            self.received += 1;
        }
        self.fill();
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.deadline = None;
        self.fired.push(now);
        self.fill();
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        let port = self.out.front()?.0;
        while self.out.front().is_some_and(|next| next.0 == port) && !batch.is_full() {
            let (_, frame) = self.out.pop_front()?;
            batch.push(frame).unwrap();
        }
        Some(port)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.deadline
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

/// Has frames without end, and refuses all.
struct Endless(u64);

impl Device for Endless {
    fn mtu(&self) -> usize {
        1500
    }

    fn offload(&self) -> OffloadFeatures {
        OffloadFeatures::NONE
    }

    fn recv_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        let before = batch.len();
        while batch.push(pool.take(60)).is_ok() {}
        self.0 += 1;
        Ok(batch.len() - before)
    }

    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let refused = batch.len() as u64;
        batch.drain().for_each(|frame| pool.recycle(frame));
        Ok(Sent { refused, ..Sent::default() })
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

fn link(capacity: usize) -> (Box<MemoryDevice>, Box<MemoryDevice>) {
    let (left, right) = pair(capacity, MemoryOptions::default()).unwrap();
    (Box::new(left), Box::new(right))
}

fn put(device: &mut MemoryDevice, pool: &mut FramePool, octets: &[u8]) {
    let mut batch = FrameBatch::new();
    batch.push(pool.copy_of(octets)).unwrap();
    assert_eq!(device.send_batch(pool, &mut batch).unwrap().frames, 1);
}

fn take(device: &mut MemoryDevice, pool: &mut FramePool) -> usize {
    let mut batch = FrameBatch::new();
    let count = device.recv_batch(pool, &mut batch).unwrap();
    batch.drain().for_each(|frame| pool.recycle(frame));
    count
}

#[test]
fn two_threads_exchange_a_million_frames_without_loss_and_then_sleep() {
    const TOTAL: u64 = 1_000_000;
    const WINDOW: u64 = 1024;
    let (clock, depot) = (Clock::start(), Depot::new());
    let (near, far) = link(1024);
    let counting = Toy::new(Habit::Count { window: WINDOW, total: TOTAL }, &depot);
    let reflecting = Toy::new(Habit::Reflect, &depot);
    let mut id = EngineId(0);
    let (counter, counter_thread) = Driver::spawn(clock, "counter", |driver| {
        id = driver.add_engine(Box::new(counting));
        driver.attach(id, PortId(0), near)
    })
    .unwrap();
    let (reflector, reflector_thread) = Driver::spawn(clock, "reflector", |driver| {
        let id = driver.add_engine(Box::new(reflecting));
        driver.attach(id, PortId(7), far)
    })
    .unwrap();

    let received = |handle: &DriverHandle| {
        let look =
            move |driver: &mut Driver| driver.engine_mut::<Toy>(id).map(|toy| (toy.received, toy.disorder));
        handle.call(look).unwrap().unwrap()
    };
    while received(&counter).0 < TOTAL {
        thread::sleep(MS);
    }
    assert_eq!(received(&counter), (TOTAL, 0));
    let counters = counter.call(move |driver| driver.device_counters(id, PortId(0))).unwrap().unwrap();
    let (frames, bytes) = (TOTAL, TOTAL * 8);
    let all = DeviceCounters {
        rx_frames: frames,
        rx_bytes: bytes,
        rx_by_ring: 0,
        tx_frames: frames,
        tx_bytes: bytes,
        tx_refused: 0,
    };
    assert_eq!(counters, all);
    let allocated =
        counter.call(move |driver| driver.engine_mut::<Toy>(id).map(|toy| toy.pool.counters().allocated));
    assert!(allocated.unwrap().unwrap() < 10 * WINDOW, "slabs come back");

    // Nothing to do: each look costs a turn or two, and time costs none.
    thread::sleep(10 * MS);
    for handle in [&counter, &reflector] {
        let before = handle.call(|driver| driver.turns()).unwrap();
        thread::sleep(100 * MS);
        let after = handle.call(|driver| driver.turns()).unwrap();
        assert!(after - before <= 4, "an idle driver turned {} times", after - before);
    }
    for (handle, thread) in [(counter, counter_thread), (reflector, reflector_thread)] {
        handle.stop();
        thread.join().unwrap().unwrap();
        assert_eq!(handle.call(|_| ()), Err(Stopped));
    }
}

#[test]
fn engines_of_one_thread_exchange_batches_within_a_turn() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let (near, far) = link(64);
    let counter = driver.add_engine(Toy::boxed(Habit::Count { window: 1, total: 1000 }));
    let reflector = driver.add_engine(Toy::boxed(Habit::Reflect));
    driver.attach(counter, PortId(0), near).unwrap();
    driver.attach(reflector, PortId(0), far).unwrap();
    let mut turns = 0;
    while driver.engine_mut::<Toy>(counter).unwrap().received < 1000 {
        driver.run_once(Some(Duration::ZERO)).unwrap();
        turns += 1;
    }
    assert!(turns <= 1000 / (ROUNDS / 2) + 2, "{turns} turns for 1000 round trips");
    assert_eq!(driver.engine_mut::<Toy>(counter).unwrap().disorder, 0);
}

#[test]
fn a_busy_device_does_not_starve_another() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let mut pool = FramePool::new();
    let id = driver.add_engine(Toy::boxed(Habit::Reflect));
    driver.attach(id, PortId(0), Box::new(Endless(0))).unwrap();
    let (mut near, far) = link(8);
    driver.attach(id, PortId(1), far).unwrap();
    for _ in 0..10 {
        put(&mut near, &mut pool, b"ping");
        let turn = driver.run_once(None).unwrap();
        assert_eq!(take(&mut near, &mut pool), 1, "answered within the turn");
        assert_eq!(turn.batches, ROUNDS + 1);
        assert!(turn.more);
    }
}

#[test]
fn a_stuck_device_does_not_slow_others() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let mut pool = FramePool::new();
    let id = driver.add_engine(Toy::boxed(Habit::Copy(PortId(1), PortId(2))));
    let (mut source, port) = link(8);
    driver.attach(id, PortId(0), port).unwrap();
    let (_nobody_reads, port) = link(1);
    driver.attach(id, PortId(1), port).unwrap();
    let (mut sink, port) = link(8);
    driver.attach(id, PortId(2), port).unwrap();
    for _ in 0..1000 {
        put(&mut source, &mut pool, b"frame");
        driver.run_once(None).unwrap();
        assert_eq!(take(&mut sink, &mut pool), 1);
    }
    let stuck = driver.device_counters(id, PortId(1)).unwrap();
    assert_eq!((stuck.tx_frames, stuck.tx_refused), (1, 999));
    assert_eq!(driver.device_counters(id, PortId(2)).unwrap().tx_refused, 0);
}

#[test]
fn a_device_that_is_gone_is_emptied_reported_and_detached() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let mut pool = FramePool::new();
    let id = driver.add_engine(Toy::boxed(Habit::Copy(PortId(0), PortId(9))));
    let (mut near, far) = link(8);
    driver.attach(id, PortId(0), far).unwrap();
    for _ in 0..3 {
        put(&mut near, &mut pool, &[0; 60]);
    }
    drop(near);
    for _ in 0..3 {
        driver.run_once(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(driver.engine_mut::<Toy>(id).unwrap().received, 3);
    let gone = DriverEvent::DeviceGone { engine: id, port: PortId(0), error: DeviceError::Gone };
    assert_eq!(driver.poll_event(), Some(gone));
    assert_eq!(driver.poll_event(), None);
    assert!(driver.detach(id, PortId(0)).is_none());
    assert_eq!(driver.unattached(id), Some(3), "copies for a port that never had a device");
    assert!(!driver.run_once(Some(Duration::ZERO)).unwrap().more);
    assert!(!driver.run_once(Some(Duration::ZERO)).unwrap().more, "nothing is left to spin on");
}

#[test]
fn deadlines_end_the_sleep_and_never_early() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let id = driver.add_engine(Toy::boxed(Habit::Reflect));
    driver.run_once(Some(Duration::ZERO)).unwrap();
    let deadline = driver.clock().now() + 20 * MS;
    driver.engine_mut::<Toy>(id).unwrap().deadline = Some(deadline);
    let before = driver.turns();
    while driver.engine_mut::<Toy>(id).unwrap().fired.is_empty() {
        driver.more = false;
        driver.run_once(None).unwrap();
    }
    assert!(driver.engine_mut::<Toy>(id).unwrap().fired[0] >= deadline);
    assert!(driver.turns() - before <= 2);
}

#[test]
fn a_sleeper_is_woken_by_a_frame_from_another_thread() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let id = driver.add_engine(Toy::boxed(Habit::Reflect));
    let (mut near, far) = link(8);
    driver.attach(id, PortId(0), far).unwrap();
    while driver.run_once(Some(Duration::ZERO)).unwrap().more {}
    let sender = thread::spawn(move || {
        let mut pool = FramePool::new();
        for _ in 0..20 {
            thread::sleep(MS);
            put(&mut near, &mut pool, b"knock");
        }
        near
    });
    while driver.device_counters(id, PortId(0)).unwrap().rx_frames < 20 {
        driver.run_once(None).unwrap();
    }
    assert!(driver.turns() < 100, "{} turns for 20 frames", driver.turns());
    drop(sender.join().unwrap());
}

#[test]
fn observers_see_both_directions_while_they_are_set() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let mut pool = FramePool::new();
    let id = driver.add_engine(Toy::boxed(Habit::Reflect));
    let (mut near, far) = link(8);
    assert!(!driver.set_observer(id, PortId(0), None));
    driver.attach(id, PortId(0), far).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let observer = move |now: Duration, direction, frame: &Frame| {
        assert!(now > Duration::ZERO);
        log.lock().unwrap().push((direction, frame.bytes().to_vec()));
    };
    assert!(driver.set_observer(id, PortId(0), Some(Box::new(observer))));
    put(&mut near, &mut pool, b"seen");
    driver.run_once(None).unwrap();
    assert!(driver.set_observer(id, PortId(0), None));
    put(&mut near, &mut pool, b"unseen");
    driver.run_once(None).unwrap();
    let want = [Direction::Inbound, Direction::Outbound].map(|direction| (direction, b"seen".to_vec()));
    assert_eq!(*seen.lock().unwrap(), want);
}

#[test]
fn a_published_snapshot_is_installed_by_the_driver() {
    let mut publisher = Publisher::new();
    let subscriber = publisher.subscribe();
    let mut id = EngineId(0);
    let (handle, thread) = Driver::spawn(Clock::start(), "follower", |driver| {
        id = driver.add_engine(Toy::boxed(Habit::Reflect));
        driver.follow(id, subscriber, |toy: &mut Toy, snapshot: Arc<u64>| toy.sent = *snapshot);
        Ok(())
    })
    .unwrap();
    for generation in 1..=3 {
        assert_eq!(publisher.publish(Arc::new(generation)), generation);
        handle.wake();
        let installed = move |driver: &mut Driver| driver.engine_mut::<Toy>(id).map(|toy| toy.sent);
        while handle.call(installed).unwrap() != Some(generation) {}
    }
    handle.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn engines_and_devices_come_and_go() {
    let mut driver = Driver::new(Clock::start()).unwrap();
    let id = driver.add_engine(Toy::boxed(Habit::Reflect));
    let (near, far) = link(1);
    driver.attach(id, PortId(3), far).unwrap();
    let (other, far) = link(1);
    driver.attach(id, PortId(3), far).unwrap();
    assert!(near.prepare_sleep_is_refused(), "the first device was dropped");
    assert!(driver.detach(id, PortId(3)).is_some());
    assert!(driver.detach(id, PortId(3)).is_none());
    drop(other);
    assert!(driver.remove_engine(id).is_some());
    assert!(driver.remove_engine(id).is_none());
    assert!(driver.engine_mut::<Toy>(id).is_none());
    let (_near, far) = link(1);
    assert_eq!(driver.attach(id, PortId(0), far).unwrap_err().kind(), io::ErrorKind::NotFound);
}

trait Refusal {
    fn prepare_sleep_is_refused(self) -> bool;
}

impl Refusal for Box<MemoryDevice> {
    fn prepare_sleep_is_refused(mut self) -> bool {
        !self.prepare_sleep()
    }
}

#[test]
fn frames_that_a_device_holds_back_leave_in_time_and_nobody_spins_for_them() {
    let depot = Depot::new();
    let clock = Clock::start();
    let mut driver = Driver::new(clock).unwrap();
    let (near, far) = link(16);
    let slow = LinkProfile::delayed(5 * MS);
    let near = Fault::new(*near, slow, slow, &crate::seed::Seed::from_u64(1), move || clock.now());
    let counter = driver.add_engine(Box::new(Toy::new(Habit::Count { window: 4, total: 40 }, &depot)));
    let mirror = driver.add_engine(Box::new(Toy::new(Habit::Reflect, &depot)));
    driver.attach(counter, PortId(0), Box::new(near)).unwrap();
    driver.attach(mirror, PortId(0), far).unwrap();
    let begin = clock.now();
    // Nothing but the device itself ends these waits.
    while driver.device_counters(counter, PortId(0)).unwrap().rx_frames < 40 {
        assert!(clock.now() - begin < 2000 * MS, "the driver slept through what was due");
        driver.run_once(Some(5000 * MS)).unwrap();
    }
    let toy = driver.engine_mut::<Toy>(counter).unwrap();
    assert_eq!((toy.disorder, toy.sent), (0, 40));
    assert!(clock.now() - begin >= 100 * MS, "ten windows, each there and back");
    assert!(driver.turns() < 400, "{} turns", driver.turns());
}

/// Whatever was queued when the driver ended, and whatever comes afterwards, is answered by that.
#[test]
fn whoever_waits_for_a_driver_that_ends_is_told() {
    let driver = Driver::new(Clock::start()).unwrap();
    let callers: Vec<_> = (0..80)
        .map(|_| {
            let handle = driver.handle();
            thread::spawn(move || handle.call(|driver| driver.turns()))
        })
        .collect();
    // Some are queued, and those beyond what the queue holds wait for a place in it.
    while !driver.inbox.commands.is_full() {
        thread::yield_now();
    }
    let late = driver.handle();
    drop(driver);
    for caller in callers {
        assert_eq!(caller.join().unwrap(), Err(Stopped));
    }
    assert_eq!(late.call(|driver| driver.turns()), Err(Stopped));
    late.stop();
}
