//! TAPs under a driver, which has them read by themselves or through a ring.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use netstack::addr::{PortId, SegmentId};
use netstack::config::{Config, Limits, PortConfig, SegmentConfig, Snapshot, VlanMode};
use netstack::device::memory::{self, MemoryOptions};
use netstack::device::tap::{Mode, Tap};
use netstack::device::{Device, DeviceError};
use netstack::driver::{Clock, Driver, DriverEvent, Engine, EngineId, Latency, Reading};
use netstack::event::Event;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::seed::Seed;
use netstack::switch::Switch;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::device::{addressed_tap, open_again, static_neighbor, turn_around};
use super::{Killed, in_namespace, ip, namespace_of_a_child, skip};

const MS: Duration = Duration::from_millis(1);

/// Sends each frame back to who sent it.
struct Echo {
    pool: FramePool,
    out: VecDeque<(PortId, Frame)>,
}

impl Echo {
    fn boxed() -> Box<Self> {
        Box::new(Self { pool: FramePool::new(), out: VecDeque::new() })
    }
}

impl Engine for Echo {
    fn handle_frames(&mut self, _now: Duration, port: PortId, batch: &mut FrameBatch) {
        for mut frame in batch.drain() {
            if turn_around(&mut frame) {
                self.out.push_back((port, frame));
            } else {
                self.pool.recycle(frame);
            }
        }
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        let (port, frame) = self.out.pop_front()?;
        batch.push(frame).unwrap();
        Some(port)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

/// Runs `test` for each way to read and each kind of TAP.
fn each_reading(test: impl Fn(Reading, Mode) + Send + Copy + 'static) {
    for reading in [Reading::Direct, Reading::Ring, Reading::Automatic] {
        for mode in [Mode::Plain, Mode::Offload] {
            in_namespace(move || test(reading, mode));
        }
    }
}

fn driver(reading: Reading) -> (Driver, EngineId) {
    let mut driver = Driver::new(Clock::start()).unwrap();
    driver.set_reading(reading);
    let id = driver.add_engine(Echo::boxed());
    (driver, id)
}

/// A socket of the kernel behind the TAP, towards whoever echoes.
fn socket() -> UdpSocket {
    static_neighbor();
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.connect("192.0.2.2:7").unwrap();
    socket
}

/// Has `count` datagrams echoed, up to `window` at a time, in order and none lost.
fn converse(driver: &mut Driver, socket: &UdpSocket, count: u32, window: u32) {
    let begin = driver.clock().now();
    let (mut sent, mut received) = (0, 0);
    let mut buffer = [0; 64];
    while received < count {
        while sent < count && sent - received < window {
            socket.send(&u32::to_ne_bytes(sent)).unwrap();
            sent += 1;
        }
        driver.run_once(Some(MS)).unwrap();
        while let Ok(len) = socket.recv(&mut buffer) {
            assert_eq!(buffer[..len], u32::to_ne_bytes(received));
            received += 1;
        }
        assert!(driver.clock().now() - begin < 20_000 * MS, "{received} of {count}, {sent} sent");
    }
}

#[test]
fn all_that_the_kernel_sends_is_echoed_whoever_reads() {
    each_reading(|reading, mode| {
        let tap = addressed_tap(mode, 1500);
        let (mut driver, id) = driver(reading);
        driver.attach(id, PortId(3), Box::new(tap)).unwrap();
        let socket = socket();
        for window in [1, 2, 33, 100] {
            converse(&mut driver, &socket, 2000, window);
        }
        let counters = driver.device_counters(id, PortId(3)).unwrap();
        assert!(counters.rx_frames >= 8000);
        match reading {
            Reading::Direct => assert_eq!(counters.rx_by_ring, 0),
            Reading::Ring if driver.ring_refusal().is_none() => assert!(counters.rx_by_ring > 7000),
            Reading::Ring => skip(driver.ring_refusal().unwrap()),
            Reading::Automatic => assert!(driver.ring_refusal().is_some() || counters.rx_by_ring > 0),
            _ => unreachable!(),
        }
    });
}

/// Passes each frame on as it is told, by the port that it came in by.
struct Via(Echo, fn(&mut Echo, PortId, Frame));

impl Via {
    fn boxed(pass: fn(&mut Echo, PortId, Frame)) -> Box<Self> {
        Box::new(Self(*Echo::boxed(), pass))
    }
}

impl Engine for Via {
    fn handle_frames(&mut self, _now: Duration, port: PortId, batch: &mut FrameBatch) {
        for frame in batch.drain() {
            (self.1)(&mut self.0, port, frame);
        }
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.0.poll_transmit(batch)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.0.pool
    }
}

/// Between ports 0 and 1, and from all others back to where it came from.
fn relay(echo: &mut Echo, port: PortId, frame: Frame) {
    let to = match port {
        PortId(0) => PortId(1),
        PortId(1) => PortId(0),
        other => other,
    };
    echo.out.push_back((to, frame));
}

/// A look for input sees the ring tell of some that has been taken already; the sleep after it is ended by more all the same.
#[test]
fn who_has_looked_in_vain_is_woken_beside_a_ring() {
    for latency in [Latency::Low, Latency::Balanced, Latency::Idle] {
        in_namespace(move || {
            let tap = addressed_tap(Mode::Offload, 1500);
            let options = MemoryOptions::default();
            let (there, back) = memory::pair(8, options).unwrap();
            let (mut ours, theirs) = memory::pair(8, options).unwrap();
            let (handle, thread) = Driver::spawn(Clock::start(), "relay", move |driver| {
                driver.set_reading(Reading::Ring);
                driver.set_latency(latency);
                let relay = driver.add_engine(Via::boxed(relay));
                let echo = driver.add_engine(Echo::boxed());
                driver.attach(relay, PortId(0), Box::new(tap))?;
                driver.attach(relay, PortId(1), Box::new(there))?;
                driver.attach(relay, PortId(2), Box::new(theirs))?;
                driver.attach(echo, PortId(0), Box::new(back))
            })
            .unwrap();
            let socket = socket();
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(5000 * MS)).unwrap();
            let (mut pool, mut batch, mut buffer) = (FramePool::new(), FrameBatch::new(), [0; 64]);
            for round in 0..100u32 {
                // What crosses the link within the driver wakes who is awake.
                socket.send(&round.to_ne_bytes()).unwrap();
                assert_eq!(socket.recv(&mut buffer).unwrap(), 4, "{latency:?}, round {round}");
                thread::sleep(3 * MS);
                batch.push(pool.copy_of(&[7; 60])).unwrap();
                ours.send_batch(&mut pool, &mut batch).unwrap();
                let waited = (0..5000).find(|_| {
                    thread::sleep(MS);
                    ours.recv_batch(&mut pool, &mut batch).unwrap() > 0
                });
                assert!(waited.is_some(), "{latency:?}: nobody has woken up in round {round}");
                batch.drain().for_each(|frame| pool.recycle(frame));
            }
            handle.stop();
            thread.join().unwrap().unwrap();
        });
    }
}

#[test]
fn a_frame_of_any_size_comes_back_whole_whoever_reads() {
    each_reading(|reading, mode| {
        let tap = addressed_tap(mode, 65_000);
        let (mut driver, id) = driver(reading);
        driver.attach(id, PortId(0), Box::new(tap)).unwrap();
        let socket = socket();
        let mut buffer = vec![0; 65_536];
        // More of the long ones than there are buffers, around the border between small and large slabs.
        for size in [1, 1000, 1877, 1878, 1879, 1888, 1889, 9000, 64_000].repeat(20) {
            let payload: Vec<u8> = (0..size).map(|i| u8::try_from((i * 7 + size) % 251).unwrap()).collect();
            socket.send(&payload).unwrap();
            let echoed = (0..2000).find_map(|_| {
                driver.run_once(Some(MS)).unwrap();
                socket.recv(&mut buffer).ok()
            });
            assert_eq!(echoed, Some(size));
            assert!(buffer[..size] == payload, "{size} octets arrive as others");
        }
    });
}

#[test]
fn a_driver_without_a_ring_reads_directly_and_says_why() {
    in_namespace(|| {
        let tap = addressed_tap(Mode::Auto, 1500);
        refuse_rings();
        let (mut driver, id) = driver(Reading::Ring);
        driver.attach(id, PortId(0), Box::new(tap)).unwrap();
        converse(&mut driver, &socket(), 1000, 50);
        assert_eq!(driver.device_counters(id, PortId(0)).unwrap().rx_by_ring, 0);
        let refusal = driver.ring_refusal().unwrap();
        assert!(refusal.contains("not permitted"), "{refusal}");
    });
}

/// Has the kernel refuse io_uring_setup to this thread, as container runtimes do.
#[allow(unsafe_code, reason = "there is no safe call for a filter of system calls")]
fn refuse_rings() {
    let statement =
        |code: u32, k: u32, jt, jf| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let number = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let refusal = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, refusal, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program outlive the call, which copies them; it binds this thread alone.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// What the kernel had been asked to read must never land where its memory has gone to.
#[test]
fn taps_come_and_go_in_the_middle_of_traffic() {
    each_reading(|reading, mode| {
        let (mut driver, id) = driver(reading);
        let mut pool = FramePool::new();
        for round in 0..100u16 {
            let tap = addressed_tap(mode, 1500);
            driver.attach(id, PortId(round % 3), Box::new(tap)).unwrap();
            let socket = socket();
            converse(&mut driver, &socket, 50, 40);
            // Some wait in the interface, some have been read and some are being turned around.
            for _ in 0..20 {
                socket.send(b"late").unwrap();
            }
            driver.run_once(Some(Duration::ZERO)).unwrap();
            for _ in 0..20 {
                socket.send(b"later").unwrap();
            }
            let device = driver.detach(id, PortId(round % 3)).unwrap();
            let free: Vec<Frame> = (0..40)
                .map(|_| {
                    let mut frame = pool.take(60_000);
                    frame.bytes_mut().fill(0xee);
                    frame
                })
                .collect();
            for _ in 0..20 {
                let _ = socket.send(b"latest");
            }
            if round % 2 == 0 {
                // Nothing is lost: what was read already comes first.
                let mut device = device;
                assert!(device.recv_batch(&mut pool, &mut FrameBatch::new()).unwrap() > 0);
            } else {
                drop(device);
            }
            driver.run_once(Some(Duration::ZERO)).unwrap();
            for frame in free {
                assert!(frame.bytes().iter().all(|&byte| byte == 0xee), "written to after it was free");
                pool.recycle(frame);
            }
        }
        let tap = addressed_tap(mode, 1500);
        driver.attach(id, PortId(0), Box::new(tap)).unwrap();
        converse(&mut driver, &socket(), 50, 40);
        // Whoever has the interface open keeps it: its name is free once the driver is gone.
        drop(driver);
        drop(open_again(mode));
    });
}

#[test]
fn a_driver_that_changes_threads_goes_on_without_its_ring() {
    each_reading(|reading, mode| {
        let tap = addressed_tap(mode, 1500);
        let (mut driver, id) = driver(reading);
        driver.attach(id, PortId(0), Box::new(tap)).unwrap();
        let socket = socket();
        converse(&mut driver, &socket, 2000, 50);
        let had_ring = driver.device_counters(id, PortId(0)).unwrap().rx_by_ring > 0;
        thread::scope(|scope| {
            let elsewhere = scope.spawn(|| {
                converse(&mut driver, &socket, 2000, 50);
                assert_eq!(driver.ring_refusal().is_some(), had_ring);
                drop(driver);
            });
            elsewhere.join().unwrap();
        });
    });
}

#[test]
fn a_namespace_that_vanishes_is_reported_whoever_reads() {
    each_reading(|reading, mode| {
        let tap = addressed_tap(mode, 1500);
        let (mut driver, id) = driver(reading);
        driver.attach(id, PortId(0), Box::new(tap)).unwrap();
        converse(&mut driver, &socket(), 500, 50);
        let Some(child) = namespace_of_a_child() else { return };
        ip(&format!("link set tap0 netns {}", child.0.id()));
        drop::<Killed>(child);
        let gone = DriverEvent::DeviceGone { engine: id, port: PortId(0), error: DeviceError::Gone };
        let told = (0..5000).find_map(|_| {
            driver.run_once(Some(MS)).unwrap();
            driver.poll_event()
        });
        assert_eq!(told, Some(gone));
        assert!(driver.detach(id, PortId(0)).is_none());
    });
}

/// A driver with a bridge between a TAP here and one in another namespace, where `there` runs.
fn bridged(
    reading: Reading,
    modes: [Mode; 2],
    here: impl FnOnce() + Send,
    there: impl FnOnce() + Send + 'static,
) {
    let (give, take) = channel();
    let (ready, go) = channel::<()>();
    let other = thread::spawn(move || {
        in_namespace(move || {
            let tap = Tap::open("tap0", modes[1]).unwrap();
            ip("addr add 192.0.2.2/24 dev tap0");
            ip("link set tap0 up");
            give.send(tap).unwrap();
            go.recv().unwrap();
            there();
        });
    });
    let near = addressed_tap(modes[0], 1500);
    let Ok(far) = take.recv() else { return other.join().unwrap() };
    let lan = SegmentId(0);
    let port = |number, tap: &Tap| PortConfig {
        offload: tap.offload(),
        ..PortConfig::new(PortId(number), format!("port {number}"), VlanMode::Access(lan))
    };
    let ports = vec![port(0, &near), port(1, &far)];
    let config = Config { ports, segments: vec![SegmentConfig::new(lan, "lan")], ..Config::default() };
    let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
    switch.install(Snapshot::compile(config, None).unwrap());
    let (handle, thread) = Driver::spawn(Clock::start(), "bridge", |driver| {
        driver.set_reading(reading);
        let id = driver.add_engine(Box::new(switch));
        driver.attach(id, PortId(0), Box::new(near))?;
        driver.attach(id, PortId(1), Box::new(far))
    })
    .unwrap();
    ready.send(()).unwrap();
    here();
    other.join().unwrap();
    handle.stop();
    thread.join().unwrap().unwrap();
}

fn connect() -> TcpStream {
    (0..500)
        .find_map(|_| {
            thread::sleep(10 * MS);
            TcpStream::connect("192.0.2.2:80").ok()
        })
        .unwrap()
}

#[test]
fn a_stream_crosses_intact_whoever_reads() {
    const LEN: usize = 64 << 20;
    let octet = |at: usize| u8::try_from((at ^ (at >> 9)) % 253).unwrap();
    for modes in [[Mode::Offload; 2], [Mode::Plain, Mode::Offload], [Mode::Offload, Mode::Plain]] {
        for reading in [Reading::Direct, Reading::Ring, Reading::Automatic] {
            in_namespace(move || {
                let there = move || {
                    let (mut stream, _) = TcpListener::bind("192.0.2.2:80").unwrap().accept().unwrap();
                    let (mut at, mut buffer) = (0, vec![0; 1 << 18]);
                    loop {
                        let len = stream.read(&mut buffer).unwrap();
                        if len == 0 {
                            break;
                        }
                        assert!(buffer[..len].iter().enumerate().all(|(i, &b)| b == octet(at + i)));
                        at += len;
                    }
                    assert_eq!(at, LEN);
                };
                let here = move || {
                    let mut stream = connect();
                    let data: Vec<u8> = (0..LEN).map(octet).collect();
                    stream.write_all(&data).unwrap();
                };
                bridged(reading, modes, here, there);
            });
        }
    }
}

#[test]
fn udp_super_frames_arrive_as_datagrams() {
    for modes in [[Mode::Offload; 2], [Mode::Offload, Mode::Plain]] {
        for reading in [Reading::Direct, Reading::Ring] {
            in_namespace(move || {
                let there = || {
                    let socket = UdpSocket::bind("192.0.2.2:9").unwrap();
                    let mut buffer = [0; 2048];
                    for number in 0..500u32 {
                        let (len, from) = socket.recv_from(&mut buffer).unwrap();
                        assert_eq!((len, &buffer[..4]), (1200, &number.to_ne_bytes()[..]));
                        if number % 50 == 49 {
                            socket.send_to(b"next", from).unwrap();
                        }
                    }
                };
                let here = || {
                    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
                    setsockopt(&socket, sockopt::UdpGsoSegment, &1200).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    // Where a datagram has to wait for the neighbour, others behind it may not.
                    thread::sleep(100 * MS);
                    for batch in 0..10u32 {
                        let datagrams = batch * 50..batch * 50 + 50;
                        let payload: Vec<u8> = datagrams
                            .flat_map(|number| {
                                let mut datagram = vec![0; 1200];
                                datagram[..4].copy_from_slice(&number.to_ne_bytes());
                                datagram
                            })
                            .collect();
                        socket.send_to(&payload, "192.0.2.2:9").unwrap();
                        socket.recv(&mut [0; 16]).unwrap();
                    }
                };
                bridged(reading, modes, here, there);
            });
        }
    }
}

/// Copies what comes from port 0 to ports 1 and 2.
fn fork(echo: &mut Echo, port: PortId, frame: Frame) {
    if port != PortId(0) {
        echo.pool.recycle(frame);
        return;
    }
    let copy = echo.pool.duplicate(&frame);
    echo.out.push_back((PortId(1), copy));
    echo.out.push_back((PortId(2), frame));
}

#[test]
fn an_interface_that_refuses_everything_costs_the_others_nothing() {
    for reading in [Reading::Direct, Reading::Ring] {
        in_namespace(move || {
            let source = addressed_tap(Mode::Offload, 1500);
            static_neighbor();
            let down = Tap::open("down", Mode::Offload).unwrap();
            let mut sink = Tap::open("sink", Mode::Offload).unwrap();
            ip("link set sink up");
            let mut driver = Driver::new(Clock::start()).unwrap();
            driver.set_reading(reading);
            let id = driver.add_engine(Via::boxed(fork));
            sink.set_mtu(1500);
            for (port, tap) in (0..).zip([source, down, sink]) {
                driver.attach(id, PortId(port), Box::new(tap)).unwrap();
            }
            for _ in 0..20 {
                driver.run_once(Some(5 * MS)).unwrap();
            }
            let before = [0, 1, 2].map(|port| driver.device_counters(id, PortId(port)).unwrap());
            let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
            let begin = driver.clock().now();
            for sent in 1..=200 {
                for _ in 0..50 {
                    socket.send_to(b"everyone", "192.0.2.2:9").unwrap();
                }
                let wanted = before[0].rx_frames + 50 * sent;
                while driver.device_counters(id, PortId(0)).unwrap().rx_frames < wanted {
                    driver.run_once(Some(MS)).unwrap();
                    assert!(driver.clock().now() - begin < 20_000 * MS);
                }
            }
            let after = [0, 1, 2].map(|port| driver.device_counters(id, PortId(port)).unwrap());
            let frames = after[0].rx_frames - before[0].rx_frames;
            assert_eq!(after[2].tx_frames - before[2].tx_frames, frames);
            assert_eq!(after[2].tx_refused, 0);
            assert_eq!(after[1].tx_refused - before[1].tx_refused, frames);
            assert_eq!(after[1].tx_frames, 0);
        });
    }
}

/// Nanoseconds that the calling thread has run.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_driver_with_nothing_to_do_costs_nothing_whatever_it_pays_for_latency() {
    for latency in [Latency::Balanced, Latency::Low, Latency::Idle] {
        for reading in [Reading::Direct, Reading::Ring] {
            in_namespace(move || {
                let tap = addressed_tap(Mode::Offload, 1500);
                let (mut driver, id) = driver(reading);
                driver.set_latency(latency);
                driver.attach(id, PortId(0), Box::new(tap)).unwrap();
                let socket = socket();
                converse(&mut driver, &socket, 1000, 10);
                let (begin, before) = (driver.clock().now(), cpu_time());
                for said in 1..=4u32 {
                    // A frame now and then, as neighbours and probes send them.
                    socket.send(b"still here").unwrap();
                    while driver.clock().now() - begin < 500 * MS * said {
                        driver.run_once(Some(100 * MS)).unwrap();
                    }
                    assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 10);
                }
                let spent = cpu_time() - before;
                // Low stays awake for two milliseconds after each frame, and the kernel has a few of its own to send.
                assert!(spent < 40 * MS, "{latency:?}, {reading:?}: {spent:?} of 2 s");
            });
        }
    }
}
