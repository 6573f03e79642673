//! A TAP by itself.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, GatewayConfig, Limits, PortConfig, RouterAdvertisement, SegmentConfig, Snapshot, VlanMode,
};
use netstack::device::tap::{Kind, Mode, Tap, TapError};
use netstack::device::{Device, DeviceError, Sent};
use netstack::event::Event;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::offload::{Checksum, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::seed::Seed;
use netstack::switch::Switch;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Killed, each_mode, in_namespace, ip, namespace_of_a_child, skip};

const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Opens tap0, which may just have been closed: a process that another test is starting at this moment holds what this one
/// has open, until it runs its program.
pub(crate) fn open_again(mode: Mode) -> Tap {
    for _ in 0..2000 {
        match Tap::open("tap0", mode) {
            Err(TapError::Busy { .. }) => thread::sleep(Duration::from_millis(1)),
            opened => return opened.unwrap(),
        }
    }
    panic!("tap0 is still open");
}

/// A TAP that is up, with 192.0.2.1/24 and a static neighbour 192.0.2.2 behind it.
pub(crate) fn addressed_tap(mode: Mode, mtu: usize) -> Tap {
    let mut tap = open_again(mode);
    ip("link set tap0 address 02:00:00:00:00:01");
    ip(&format!("link set tap0 mtu {mtu}"));
    ip("addr add 192.0.2.1/24 dev tap0");
    ip("link set tap0 up");
    tap.set_mtu(mtu);
    tap
}

pub(crate) fn static_neighbor() {
    ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0 nud permanent");
}

/// Receives for up to five seconds until `wanted` frames have passed `filter`.
fn receive(
    tap: &mut Tap,
    pool: &mut FramePool,
    wanted: usize,
    filter: impl Fn(&Frame) -> bool,
) -> Result<Vec<Frame>, DeviceError> {
    let mut got = Vec::new();
    let mut batch = FrameBatch::new();
    for _ in 0..5000 {
        tap.recv_batch(pool, &mut batch)?;
        got.extend(batch.drain().filter(&filter));
        if got.len() >= wanted {
            return Ok(got);
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{} of {wanted} frames arrived", got.len());
}

fn send(tap: &mut Tap, pool: &mut FramePool, frame: Frame) -> Result<Sent, DeviceError> {
    let mut batch = FrameBatch::new();
    batch.push(frame).unwrap();
    tap.send_batch(pool, &mut batch)
}

fn is_udp(frame: &Frame) -> bool {
    let packet = SlicedPacket::from_ethernet(frame.bytes()).unwrap();
    matches!(packet.net, Some(NetSlice::Ipv4(_))) && matches!(packet.transport, Some(TransportSlice::Udp(_)))
}

/// Ones' complement sum of `bytes` behind `sum`, folded.
fn sum(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = bytes.chunks(2).fold(sum, |acc, pair| {
        acc + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// The pseudo-header's sum of an IPv4 frame without options.
fn pseudo_sum(frame: &[u8]) -> u16 {
    let l4_len = u32::try_from(frame.len() - 34).unwrap();
    sum(&frame[26..34], u32::from(frame[23]) + l4_len)
}

/// Makes the answer to an ARP request, an echo request or a UDP datagram in place: addresses and ports change sides,
/// which leaves every sum, full or partial, as it is. Says whether there is an answer.
pub(crate) fn turn_around(frame: &mut Frame) -> bool {
    let bytes = frame.bytes_mut();
    match (&bytes[12..14], bytes.len() > 23 && bytes[23] == 1) {
        ([0x08, 0x06], _) if bytes[38..42] == [192, 0, 2, 2] => {
            let asker: [u8; 10] = bytes[22..32].try_into().unwrap();
            bytes[21] = 2;
            bytes[22..28].copy_from_slice(&FAR_MAC);
            bytes[28..32].copy_from_slice(&[192, 0, 2, 2]);
            bytes[32..42].copy_from_slice(&asker);
        }
        ([0x08, 0x00], icmp) => {
            for at in 26..30 {
                bytes.swap(at, at + 4);
            }
            if icmp {
                assert_eq!(bytes[34], 8);
                bytes[34] = 0;
                let checksum = sum(&bytes[36..38], 0x0800);
                bytes[36..38].copy_from_slice(&checksum.to_be_bytes());
            } else {
                bytes.swap(34, 36);
                bytes.swap(35, 37);
            }
        }
        _ => return false,
    }
    bytes.copy_within(6..12, 0);
    bytes[6..12].copy_from_slice(&FAR_MAC);
    true
}

/// Answers what the kernel asks until `done`.
fn serve(tap: &mut Tap, mut done: impl FnMut() -> bool) {
    let mut pool = FramePool::new();
    let (mut batch, mut answers) = (FrameBatch::new(), FrameBatch::new());
    for _ in 0..5000 {
        tap.recv_batch(&mut pool, &mut batch).unwrap();
        for mut frame in batch.drain() {
            if turn_around(&mut frame) {
                answers.push(frame).unwrap();
            }
        }
        let sent = tap.send_batch(&mut pool, &mut answers).unwrap();
        assert_eq!(sent.refused, 0);
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the kernel did not get its answers");
}

#[test]
fn the_kernel_talks_to_hand_made_answers() {
    each_mode(|mode| {
        let mut tap = addressed_tap(mode, 1500);
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect("192.0.2.2:7").unwrap();
        socket.send(b"hello").unwrap();
        let mut answer = [0; 100];
        serve(&mut tap, || socket.recv(&mut answer).is_ok_and(|len| answer[..len] == *b"hello"));

        let ping =
            Command::new("ping").args("-c 2 -i 0.2 -W 2 192.0.2.2".split(' ')).stdout(Stdio::null()).spawn();
        match ping {
            Ok(mut child) => serve(&mut tap, || match child.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success(), "{mode:?}");
                    true
                }
                None => false,
            }),
            Err(error) => skip(&format!("ping does not start: {error}")),
        }
    });
}

#[test]
fn a_read_is_one_whole_frame_of_any_size() {
    each_mode(|mode| {
        let mut tap = addressed_tap(mode, 65_000);
        static_neighbor();
        let mut pool = FramePool::new();
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        // Around the border between the small and the large slab, and near the largest.
        let sizes = [1, 1000, 1877, 1878, 1879, 9000, 64_000, 100];
        for (tag, &size) in (0u8..).zip(&sizes) {
            let payload: Vec<u8> = (0..size).map(|i| tag ^ u8::try_from(i % 251).unwrap()).collect();
            socket.send_to(&payload, "192.0.2.2:9").unwrap();
        }
        let frames = receive(&mut tap, &mut pool, sizes.len(), is_udp).unwrap();
        for ((tag, &size), frame) in (0u8..).zip(&sizes).zip(&frames) {
            assert_eq!(frame.len(), 42 + size);
            assert_eq!(frame.is_large(), frame.len() > 1920);
            assert!(
                frame.bytes()[42..]
                    .iter()
                    .enumerate()
                    .all(|(i, &b)| b == tag ^ u8::try_from(i % 251).unwrap())
            );
        }
    });
}

#[test]
fn checksums_are_partial_with_offload_and_complete_without() {
    each_mode(|mode| {
        let mut tap = addressed_tap(mode, 1500);
        static_neighbor();
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.send_to(b"sum me up", "192.0.2.2:9").unwrap();
        let frames = receive(&mut tap, &mut FramePool::new(), 1, is_udp).unwrap();
        let bytes = frames[0].bytes();
        let field = u16::from_be_bytes([bytes[40], bytes[41]]);
        if mode == Mode::Offload {
            assert_eq!(tap.mode(), Kind::Offload);
            let checksum = Checksum::Partial { start: 34, offset: 6 };
            assert_eq!(frames[0].offload, Offload { checksum, segmentation: None });
            assert_eq!(field, pseudo_sum(bytes));
        } else {
            assert_eq!(tap.mode(), Kind::Plain);
            assert_eq!(tap.offload(), OffloadFeatures::NONE);
            assert_eq!(frames[0].offload, Offload::default());
            assert_eq!(sum(&bytes[34..], pseudo_sum(bytes).into()), 0xffff);
        }
    });
}

#[test]
fn a_udp_super_frame_arrives_whole_where_the_kernel_has_uso() {
    each_mode(|mode| {
        let mut tap = addressed_tap(mode, 1500);
        static_neighbor();
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
        socket.send_to(&[7; 4500], "192.0.2.2:9").unwrap();
        if tap.offload().uso {
            let frames = receive(&mut tap, &mut FramePool::new(), 1, is_udp).unwrap();
            let segmentation = Segmentation { kind: SegmentKind::Udp, size: 1000, ecn: false };
            assert_eq!(frames[0].offload.segmentation, Some(segmentation));
            assert_eq!(frames[0].len(), 42 + 4500);
        } else {
            let frames = receive(&mut tap, &mut FramePool::new(), 5, is_udp).unwrap();
            assert!(frames.iter().all(|frame| frame.offload == Offload::default()));
            assert_eq!(
                frames.iter().map(|frame| frame.len() - 42).collect::<Vec<_>>(),
                [1000, 1000, 1000, 1000, 500]
            );
        }
    });
}

/// A TCP segment with `payload` octets from 10.0.0.1 to 10.0.0.2, its checksum partial.
fn tcp_super_frame(pool: &mut FramePool, payload: usize) -> Frame {
    let mut bytes = vec![0; 54 + payload];
    bytes[..6].copy_from_slice(&FAR_MAC);
    bytes[6..12].copy_from_slice(&NEAR_MAC);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&u16::try_from(40 + payload).unwrap().to_be_bytes());
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let header_sum = !sum(&bytes[14..34], 0);
    bytes[24..26].copy_from_slice(&header_sum.to_be_bytes());
    bytes[34..38].copy_from_slice(&[0x30, 0x39, 0, 80]);
    bytes[46..48].copy_from_slice(&[5 << 4, 0x10]);
    for (i, byte) in bytes[54..].iter_mut().enumerate() {
        *byte = u8::try_from(i % 251).unwrap();
    }
    let partial = pseudo_sum(&bytes);
    bytes[50..52].copy_from_slice(&partial.to_be_bytes());
    let mut frame = pool.copy_of(&bytes);
    frame.offload = Offload {
        checksum: Checksum::Partial { start: 34, offset: 16 },
        segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false }),
    };
    frame
}

/// The kernel's own bridge takes our header and cuts what a plain TAP cannot take.
#[test]
fn a_super_frame_passes_whole_to_offload_and_cut_to_plain() {
    in_namespace(|| {
        let mut pool = FramePool::new();
        let mut from = Tap::open("from", Mode::Offload).unwrap();
        let mut whole = Tap::open("whole", Mode::Offload).unwrap();
        let mut cut = Tap::open("cut", Mode::Plain).unwrap();
        ip("link add br0 type bridge");
        for port in ["from", "whole", "cut"] {
            ip(&format!("link set {port} master br0 up"));
        }
        ip("link set br0 up");
        let ours = |frame: &Frame| frame.bytes()[..6] == FAR_MAC;

        let frame = tcp_super_frame(&mut pool, 4500);
        let (bytes, offload) = (frame.bytes().to_vec(), frame.offload);
        let sent = send(&mut from, &mut pool, frame).unwrap();
        assert_eq!(sent, Sent { frames: 1, bytes: 4554, refused: 0 });

        let frames = receive(&mut whole, &mut pool, 1, ours).unwrap();
        assert_eq!(frames[0].bytes(), bytes);
        assert_eq!(frames[0].offload, offload);

        let frames = receive(&mut cut, &mut pool, 5, ours).unwrap();
        let mut payload = Vec::new();
        for frame in &frames {
            assert_eq!(frame.offload, Offload::default());
            assert_eq!(sum(&frame.bytes()[34..], pseudo_sum(frame.bytes()).into()), 0xffff);
            payload.extend_from_slice(&frame.bytes()[54..]);
        }
        assert_eq!(
            frames.iter().map(|frame| frame.len() - 54).collect::<Vec<_>>(),
            [1000, 1000, 1000, 1000, 500]
        );
        assert_eq!(payload, bytes[54..]);

        let frame = tcp_super_frame(&mut pool, 4500);
        let sent = send(&mut cut, &mut pool, frame).unwrap();
        assert_eq!(sent, Sent { frames: 0, bytes: 0, refused: 1 }, "a plain TAP cannot express it");
    });
}

/// The kernel cuts apart for a socket what was written as one, and gets everything else as it is.
#[test]
fn datagrams_in_a_row_are_written_as_one() {
    each_mode(|mode| {
        let mut tap = addressed_tap(mode, 1500);
        static_neighbor();
        // What the kernel has sent is turned around: its own frames, with its own checksum state.
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut pool = FramePool::new();
        let lengths = [100; 20].into_iter().chain([40]).chain([100; 3]);
        let payloads: Vec<Vec<u8>> = (0u8..).zip(lengths).map(|(at, length)| vec![at; length]).collect();
        for payload in &payloads {
            socket.send_to(payload, "192.0.2.2:9").unwrap();
        }
        let mut batch = FrameBatch::new();
        for mut frame in receive(&mut tap, &mut pool, payloads.len(), is_udp).unwrap() {
            assert!(turn_around(&mut frame));
            batch.push(frame).unwrap();
        }
        let before = packets_received();
        let sent = tap.send_batch(&mut pool, &mut batch).unwrap();
        assert_eq!((sent.frames, sent.refused), (24, 0));
        let writes = packets_received() - before;
        assert_eq!(writes, if tap.offload().uso { 2 } else { 24 });
        let mut buffer = [0; 2000];
        for payload in &payloads {
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], payload);
        }
    });
}

/// Packets that the kernel has had from the TAP, super-frames as one.
fn packets_received() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let counters = devices.lines().find_map(|line| line.trim().strip_prefix("tap0:")).unwrap();
    counters.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_interface_that_is_down_refuses_and_recovers() {
    each_mode(|mode| {
        let mut tap = Tap::open("tap0", mode).unwrap();
        let mut pool = FramePool::new();
        let frame = pool.take(60);
        assert_eq!(send(&mut tap, &mut pool, frame), Ok(Sent { frames: 0, bytes: 0, refused: 1 }));
        assert_eq!(tap.recv_batch(&mut pool, &mut FrameBatch::new()), Ok(0));
        ip("link set tap0 up");
        let frame = pool.take(60);
        assert_eq!(send(&mut tap, &mut pool, frame), Ok(Sent { frames: 1, bytes: 60, refused: 0 }));
    });
}

#[test]
fn a_tap_whose_namespace_vanishes_is_gone() {
    each_mode(|mode| {
        let mut tap = Tap::open("tap0", mode).unwrap();
        let mut pool = FramePool::new();
        let Some(child) = namespace_of_a_child() else { return };
        ip(&format!("link set tap0 netns {}", child.0.id()));
        assert_eq!(tap.recv_batch(&mut pool, &mut FrameBatch::new()), Ok(0), "moved, and still usable");
        drop(child);

        assert_eq!(receive(&mut tap, &mut pool, 1, |_| true).err(), Some(DeviceError::Gone));
        let frame = pool.take(60);
        assert_eq!(send(&mut tap, &mut pool, frame), Err(DeviceError::Gone));
    });
}

#[test]
fn errors_tell_what_is_wrong() {
    in_namespace(|| {
        let tap = Tap::open("tap0", Mode::Auto).unwrap();
        assert_eq!(tap.name(), "tap0");
        assert!(matches!(Tap::open("tap0", Mode::Auto), Err(TapError::Busy { .. })));
        assert!(matches!(Tap::open("tap0", Mode::Plain), Err(TapError::Busy { .. })));
        assert!(matches!(Tap::open("lo", Mode::Plain), Err(TapError::Taken { .. })));
        assert!(matches!(Tap::open("lo", Mode::Auto), Err(TapError::Taken { .. })));
        drop(tap);
        Tap::open("tap0", Mode::Plain).unwrap();
    });
}

#[test]
fn a_descriptor_that_was_passed_on_says_what_it_is() {
    each_mode(|mode| {
        let tap = Tap::open("tap0", mode).unwrap();
        let (kind, features) = (tap.mode(), tap.offload());
        let again = Tap::from_fd(OwnedFd::from(tap), Mode::Auto, 9000).unwrap();
        assert_eq!((again.name(), again.mode(), again.offload()), ("tap0", kind, features));
        assert_eq!(again.mtu(), 9000);
        let plain = Tap::from_fd(OwnedFd::from(again), Mode::Plain, 1500).unwrap();
        assert_eq!((plain.mode(), plain.offload()), (Kind::Plain, OffloadFeatures::NONE));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Tap::from_fd(null.into(), Mode::Auto, 1500), Err(TapError::NotATap)));
    });
}

/// A switch with the kernel behind its only port.
struct Peer {
    tap: Tap,
    switch: Switch,
    batch: FrameBatch,
    now: Duration,
}

const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0xee, 1]);

impl Peer {
    fn new(mode: Mode, addresses: &[&str], change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let tap = Tap::open("tap0", mode).unwrap();
        let switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
        let mut peer = Self { tap, switch, batch: FrameBatch::new(), now: Duration::from_secs(1) };
        peer.install(addresses, change);
        peer
    }

    fn install(&mut self, addresses: &[&str], change: impl FnOnce(&mut GatewayConfig)) {
        let mut gateway = GatewayConfig::new(ROUTER, addresses.iter().map(|a| a.parse().unwrap()).collect());
        change(&mut gateway);
        let lan = SegmentId(0);
        let port = PortConfig {
            offload: self.tap.offload(),
            ..PortConfig::new(PortId(0), "kernel", VlanMode::Access(lan))
        };
        let segment = SegmentConfig { mtu: 1420, gateway: Some(gateway), ..SegmentConfig::new(lan, "lan") };
        let config = Config { ports: vec![port], segments: vec![segment], ..Config::default() };
        self.switch.install(Snapshot::compile(config, Some(self.switch.snapshot())).unwrap());
    }

    /// Carries frames and tells the time until `done`, for 20 seconds at most.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for turn in 0..20_000 {
            self.tap.recv_batch(self.switch.pool(), &mut self.batch).unwrap();
            self.switch.handle_frames(self.now, PortId(0), &mut self.batch);
            if self.switch.poll_timeout().is_some_and(|at| at <= self.now) {
                self.switch.handle_timeout(self.now);
            }
            while self.switch.poll_transmit(&mut self.batch).is_some() {
                self.tap.send_batch(self.switch.pool(), &mut self.batch).unwrap();
            }
            if turn % 50 == 0 && done(self) {
                return;
            }
            self.now += Duration::from_millis(1);
            thread::sleep(Duration::from_millis(1));
        }
        panic!("the kernel did not come to: {what}");
    }
}

/// What `ip` says.
fn told(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ip6_4_the_kernel_believes_our_advertisements() {
    each_mode(|mode| {
        let prefix: IpNet = "fd00:abcd::/64".parse().unwrap();
        let addresses = ["fd00:abcd::1/64"];
        let mut peer = Peer::new(mode, &addresses, |gateway| {
            gateway.advertise = Some(RouterAdvertisement::for_prefixes([prefix]));
        });
        ip("link set tap0 address 02:00:00:00:00:01");
        ip("link set tap0 up");
        peer.until("an address of the prefix", |_| {
            let addresses = told("-6 addr show dev tap0");
            addresses.contains("fd00:abcd::ff:fe00:1/64") && !addresses.contains("tentative")
        });
        let routes = told("-6 route show default");
        let router = format!("default via {} dev tap0 proto ra", ROUTER.link_local());
        assert!(routes.contains(&router), "{routes}");
        let mtu = std::fs::read_to_string("/proc/sys/net/ipv6/conf/tap0/mtu").unwrap();
        assert_eq!(mtu.trim(), "1420");
        assert!(told("-6 route show").contains("fd00:abcd::/64 dev tap0 proto kernel"), "on link");
        let mut ping =
            match Command::new("ping").args(["-c1", "-W5", "fd00:abcd::1"]).stdout(Stdio::null()).spawn() {
                Ok(child) => Killed(child),
                Err(error) => return skip(&format!("ping does not start: {error}")),
            };
        let mut status = None;
        peer.until("an echo reply", |_| {
            status = ping.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
        // Ceasing to advertise takes the default route away.
        peer.install(&addresses, |_| ());
        peer.until("no default route", |_| told("-6 route show default").is_empty());
    });
}

#[test]
fn arp_5_ip6_3_the_kernel_defends_its_addresses_and_so_do_we() {
    in_namespace(|| {
        let addresses = ["192.0.2.1/24", "192.0.2.9/24", "fd00:abcd::1/64", "fd00:abcd::9/64"];
        let mut peer = Peer::new(Mode::Plain, &addresses, |gateway| gateway.probe = true);
        ip("link set tap0 address 02:00:00:00:00:01");
        ip("link set tap0 up");
        ip("addr add 192.0.2.1/24 dev tap0");
        ip("addr add fd00:abcd::1/64 dev tap0 nodad");
        // The two that the kernel has are lost, the others are free.
        let mut settled = Vec::new();
        peer.until("four answers", |peer| {
            while let Some(event) = peer.switch.poll_event() {
                if let Event::DuplicateAddress { address, .. } = event {
                    settled.push((address.to_string(), false));
                }
                if let Event::AddressReady { address, .. } = event {
                    settled.push((address.to_string(), true));
                }
            }
            settled.len() == 5
        });
        settled.sort();
        let link_local = ROUTER.link_local().to_string();
        let expected =
            [("192.0.2.1", false), ("192.0.2.9", true), ("fd00:abcd::1", false), ("fd00:abcd::9", true)];
        let mut expected: Vec<(String, bool)> = expected.map(|(a, free)| (a.to_owned(), free)).to_vec();
        expected.push((link_local, true));
        expected.sort();
        assert_eq!(settled, expected);
        // The kernel's own duplicate address detection finds that one of them is ours.
        ip("addr add fd00:abcd::9/64 dev tap0");
        peer.until("a duplicate", |_| {
            told("-6 addr show dev tap0").contains("fd00:abcd::9/64 scope global dadfailed")
        });
        assert!(peer.switch.conflicts().claims > 0);
    });
}
