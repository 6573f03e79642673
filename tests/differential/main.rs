//! The same packets through a Linux router and bridge, and through ours: equal octets, or a reason.
//!
//! `linux.py` plays the cases of `cases.py` to the kernel in namespaces of its own; here they are played to a switch in
//! memory that is configured alike. Masked before comparing, because neither side prescribes them:
//! - the IPv4 identification of packets the router makes itself (RFC 6864 leaves the choice open), and with it the header
//!   checksum; forwarded packets and fragments keep theirs and are compared whole;
//! - the IPv6 flow label of packets the router makes itself (RFC 6437 section 3);
//! - the TOS octet of ICMP errors (RFC 1812 section 4.3.2.5 allows 0, 6 or 7 as precedence, or the packet's own).

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

mod exceptions;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use exceptions::{EXCEPTIONS, Ours};
use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, GatewayConfig, Limits, NextHop, PortConfig, RouteConfig, RouteTarget, SegmentConfig, Snapshot,
    VlanMode,
};
use netstack::emit;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::parse::{self, NeighborDiscovery, Network};
use netstack::seed::Seed;
use netstack::switch::Switch;
use serde_json::Value;
use vswitch_tests::{skip, top};

/// Cases that the differential test must have at least.
const LEAST_CASES: usize = 60;

struct Case {
    name: String,
    side: String,
    sent: Vec<u8>,
    linux: Vec<(String, Vec<u8>)>,
}

#[test]
fn the_same_packets_through_linux_and_through_us() {
    if !nix::unistd::geteuid().is_root() {
        return skip("differential", "making a Linux router needs root");
    }
    if Command::new("/usr/bin/python3")
        .args(["-c", "import scapy"])
        .output()
        .is_ok_and(|o| !o.status.success())
    {
        return skip("differential", "python3-scapy is not installed");
    }
    let output = Command::new("/usr/bin/python3")
        .arg("-B")
        .arg(top().join("tests/differential/linux.py"))
        .output()
        .expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
    let (routed, bridged) = (cases(&results["routed"]), cases(&results["bridged"]));
    assert!(routed.len() >= LEAST_CASES, "{} cases", routed.len());

    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (cases, mut ours) in [(routed, Switched::router()), (bridged, Switched::bridge())] {
        for case in &cases {
            let frames = ours.play(case);
            compare(case, &frames, &mut used, &mut wrong);
        }
        ours.switch.check().unwrap();
    }
    for (name, _, _) in EXCEPTIONS {
        if !used.contains(name) {
            wrong.push(format!("exception {name:?} is not needed: the outputs are equal"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences from Linux {}:\n{}",
        wrong.len(),
        results["kernel"],
        wrong.join("\n")
    );
}

fn cases(list: &Value) -> Vec<Case> {
    let text = |v: &Value| v.as_str().expect("a string").to_owned();
    let octets = |v: &Value| decode(v.as_str().expect("a string"));
    list.as_array()
        .expect("a list")
        .iter()
        .map(|case| Case {
            name: text(&case["name"]),
            side: text(&case["side"]),
            sent: octets(&case["sent"]),
            linux: case["received"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|frame| (text(&frame[0]), octets(&frame[1])))
                .collect(),
        })
        .collect()
}

fn decode(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal")).collect()
}

fn encode(octets: &[u8]) -> String {
    octets.iter().map(|o| format!("{o:02x}")).collect()
}

fn compare(case: &Case, ours: &[(String, Vec<u8>)], used: &mut BTreeSet<&str>, wrong: &mut Vec<String>) {
    let masked = |frames: &[(String, Vec<u8>)]| {
        let mut frames: Vec<(String, Vec<u8>)> =
            frames.iter().map(|(port, frame)| (port.clone(), mask(frame, &case.sent))).collect();
        // Copies of a flood have no order among ports; frames of one port keep theirs.
        frames.sort_by(|a, b| a.0.cmp(&b.0));
        frames
    };
    let (linux, ours) = (masked(&case.linux), masked(ours));
    let exception = EXCEPTIONS.iter().find(|(name, _, _)| *name == case.name);
    if linux == ours {
        return;
    }
    let expected = exception.is_some_and(|(_, behaviour, _)| match behaviour {
        Ours::Nothing => ours.is_empty(),
        Ours::Different => ours.len() == linux.len(),
        Ours::Frames(count) => ours.len() == *count,
    });
    if expected {
        used.extend(exception.map(|(name, _, _)| *name));
        return;
    }
    let list = |frames: &[(String, Vec<u8>)]| -> String {
        frames.iter().map(|(port, f)| format!("\n      {port}: {}", encode(&f[..f.len().min(120)]))).collect()
    };
    wrong.push(format!("{}\n    linux:{}\n    ours:{}", case.name, list(&linux), list(&ours)));
}

/// Zeroes what the router chose itself in a packet that it made itself.
fn mask(frame: &[u8], sent: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let originated = !shares_payload(&frame, sent);
    if frame.len() < 34 || !originated {
        return frame;
    }
    match (frame[12], frame[13]) {
        (0x08, 0x00) => {
            let error = frame[23] == 1 && matches!(frame[34..], [3 | 11 | 12, ..]);
            if error {
                frame[15] = 0;
            }
            // Identification, and the checksum over it.
            frame[18..20].fill(0);
            frame[24..26].fill(0);
        }
        (0x86, 0xdd) => {
            frame[14] &= 0xf0;
            frame[15..18].fill(0);
        }
        _ => {}
    }
    frame
}

/// A forwarded packet keeps addresses; one that the router made goes back to where the first came from.
fn shares_payload(frame: &[u8], sent: &[u8]) -> bool {
    let addresses = |f: &[u8]| match f.get(12..14) {
        Some([0x08, 0x00]) => f.get(26..34).map(<[u8]>::to_vec),
        Some([0x86, 0xdd]) => f.get(22..54).map(<[u8]>::to_vec),
        _ => None,
    };
    addresses(frame) == addresses(sent)
}

/// The hosts' answers when the router verifies that they are still there. (Linux's entries are permanent.)
fn answer(pool: &mut FramePool, frame: &[u8]) -> Option<Frame> {
    let hosts = [
        ("10.1.0.2", "02:00:00:00:0a:02"),
        ("fd00:1::2", "02:00:00:00:0a:02"),
        ("fe80::2", "02:00:00:00:0a:02"),
        ("10.2.0.2", "02:00:00:00:0b:02"),
        ("fd00:2::2", "02:00:00:00:0b:02"),
    ];
    let mac_of = |address: IpAddr| -> Option<MacAddr> {
        hosts.iter().find(|(a, _)| a.parse() == Ok(address)).map(|(_, mac)| mac.parse().unwrap())
    };
    let link = parse::link(frame).ok()?;
    match parse::network(frame, &link).ok()? {
        Network::Arp(arp) if arp.operation == 1 => {
            let mac = mac_of(IpAddr::V4(arp.target))?;
            Some(emit::arp_reply(pool, mac, arp.target, arp.sender_mac, arp.sender))
        }
        Network::Ip(ip) => match (parse::neighbor_discovery(frame, &ip).ok()??, ip.source) {
            (NeighborDiscovery::Solicit { target, .. }, IpAddr::V6(source)) => {
                let mac = mac_of(IpAddr::V6(target))?;
                Some(emit::neighbor_advertisement(
                    pool,
                    target,
                    mac,
                    Some((link.source, source)),
                    false,
                    true,
                ))
            }
            _ => None,
        },
        Network::Arp(_) | Network::Other => None,
    }
}

/// Our switch, set up as `linux.py` sets up the kernel.
struct Switched {
    switch: Switch,
    ports: Vec<&'static str>,
    pool: FramePool,
    now: Duration,
}

impl Switched {
    fn new(config: Config, ports: Vec<&'static str>) -> Self {
        let limits = Limits { icmp_errors_per_second: 1_000_000, ..Limits::default() };
        let mut switch = Switch::new(limits, &Seed::from_u64(1), FramePool::new());
        switch.install(Snapshot::compile(config, None).unwrap());
        Self { switch, ports, pool: FramePool::new(), now: Duration::from_secs(1) }
    }

    fn bridge() -> Self {
        let port = |id: u16, name: &str| PortConfig::new(PortId(id), name, VlanMode::Access(SegmentId(0)));
        let segment = SegmentConfig::new(SegmentId(0), "br0");
        let names = vec!["p0", "p1", "p2"];
        let ports = (0..).zip(&names).map(|(id, name)| port(id, name)).collect();
        Self::new(Config { ports, segments: vec![segment], ..Config::default() }, names)
    }

    fn router() -> Self {
        let side = |id: u16, name: &str, mac: &str, mtu: u16, addresses: [&str; 2]| {
            let port = PortConfig::new(PortId(id), name, VlanMode::Access(SegmentId(id)));
            let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
            let gateway = Some(GatewayConfig::new(mac.parse().unwrap(), addresses));
            (port, SegmentConfig { mtu, gateway, ..SegmentConfig::new(SegmentId(id), name) })
        };
        let (port_a, a) = side(0, "a", "02:00:00:00:0a:01", 1500, ["10.1.0.1/24", "fd00:1::1/64"]);
        let (port_b, b) = side(1, "b", "02:00:00:00:0b:01", 1280, ["10.2.0.1/24", "fd00:2::1/64"]);
        let mut routes = Vec::new();
        for (net, via) in [("10.#.0.0/16", "10.2.0.2"), ("fd00:#::/32", "fd00:2::2")] {
            let hop = NextHop { segment: SegmentId(1), gateway: Some(via.parse().unwrap()) };
            for (number, target) in [
                ("3", RouteTarget::Via(vec![hop])),
                ("4", RouteTarget::Blackhole),
                ("5", RouteTarget::Unreachable),
                ("6", RouteTarget::Prohibit),
            ] {
                routes.push(RouteConfig { prefix: net.replace('#', number).parse().unwrap(), target });
            }
        }
        let config = Config { ports: vec![port_a, port_b], segments: vec![a, b], routes };
        let mut ours = Self::new(config, vec!["a", "b"]);
        ours.introduce("a", "10.1.0.2", "fd00:1::2", "02:00:00:00:0a:02", ("10.1.0.1", "fd00:1::1"));
        ours.introduce("a", "10.1.0.2", "fe80::2", "02:00:00:00:0a:02", ("10.1.0.1", "fd00:1::1"));
        ours.introduce("b", "10.2.0.2", "fd00:2::2", "02:00:00:00:0b:02", ("10.2.0.1", "fd00:2::1"));
        ours
    }

    /// A host asks for the router in both families, from which the router learns where the host is. (Linux is told by
    /// permanent neighbour entries.)
    fn introduce(&mut self, side: &str, v4: &str, v6: &str, mac: &str, router: (&str, &str)) {
        let mac: MacAddr = mac.parse().unwrap();
        let mut pool = FramePool::new();
        let arp = emit::arp_request(
            &mut pool,
            mac,
            v4.parse().unwrap(),
            router.0.parse().unwrap(),
            MacAddr::BROADCAST,
        );
        let nd =
            emit::neighbor_solicitation(&mut pool, mac, v6.parse().unwrap(), router.1.parse().unwrap(), None);
        for frame in [arp, nd] {
            let name = format!("introduction of {mac}");
            let case = Case { name, side: side.into(), sent: frame.bytes().to_vec(), linux: Vec::new() };
            assert_eq!(self.play(&case).len(), 1, "the router answers");
        }
    }

    /// Plays one case and four seconds of what follows from it.
    fn play(&mut self, case: &Case) -> Vec<(String, Vec<u8>)> {
        let port = self.ports.iter().position(|p| *p == case.side).expect("a known port");
        let mut batch = FrameBatch::new();
        batch.push(self.pool.copy_of(&case.sent)).unwrap();
        self.switch.handle_frames(self.now, PortId(u16::try_from(port).unwrap()), &mut batch);
        let (mut out, mut replies) = (Vec::new(), Vec::new());
        let end = self.now + Duration::from_secs(4);
        loop {
            while let Some(port) = self.switch.poll_transmit(&mut batch) {
                for frame in batch.drain() {
                    match answer(&mut self.pool, frame.bytes()) {
                        Some(reply) => replies.push((port, reply)),
                        None => {
                            out.push((self.ports[usize::from(port.0)].to_owned(), frame.bytes().to_vec()))
                        }
                    }
                    self.pool.recycle(frame);
                }
            }
            for (port, reply) in replies.drain(..) {
                batch.push(reply).unwrap();
                self.switch.handle_frames(self.now, port, &mut batch);
            }
            self.switch.check().unwrap();
            match self.switch.poll_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.switch.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        out
    }
}

#[test]
fn the_comparison_catches_planted_bugs() {
    let sent = decode(
        "020000000a01020000000a02080045000024123400004011548f0a0100020a0200029c40138800107eae7061796c6f616421",
    );
    let good = decode(
        "020000000b02020000000b01080045000024123400003f11558f0a0100020a0200029c40138800107eae7061796c6f616421",
    );
    let case =
        Case { name: "planted".into(), side: "a".into(), sent, linux: vec![("b".into(), good.clone())] };
    let differences = |ours: &[(String, Vec<u8>)]| {
        let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
        compare(&case, ours, &mut used, &mut wrong);
        wrong.len()
    };
    assert_eq!(differences(&[("b".into(), good.clone())]), 0);
    // Every single octet counts: of a forwarded packet nothing is masked.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(differences(&[("b".into(), bad)]), 1, "octet {at}");
    }
    assert_eq!(differences(&[]), 1, "a lost packet");
    assert_eq!(differences(&[("a".into(), good.clone())]), 1, "the wrong port");
    assert_eq!(differences(&[("b".into(), good.clone()), ("b".into(), good)]), 1, "a duplicate");
}
