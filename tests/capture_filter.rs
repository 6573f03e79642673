//! Capture filters against libpcap's: the same frames and the same expressions, once through `tcpdump -r`, once through
//! ours, and the same frames must be left.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

#[path = "filter_frames.rs"]
mod frames;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use netstack::device::Direction;
use netstack::device::pcap::PcapNg;
use netstack::filter::Filter;
use netstack::seed::{Rng, Seed};
use vswitch_tests::skip;

/// Every part of the language, and what is easily mistaken in it.
const EXPRESSIONS: &[&str] = &[
    "",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "vlan",
    "vlan 5",
    "vlan 0",
    "vlan and vlan",
    "vlan and vlan 7",
    "vlan 5 and ip",
    "vlan and tcp port 80",
    "vlan and host fd00::1",
    "ip or vlan",
    "vlan or ip",
    "ip6 and not vlan",
    "not (vlan or arp)",
    "host 10.0.0.1",
    "host fd00::1",
    "src 10.0.0.1",
    "dst host fd00::2",
    "src host 10.0.0.1 and dst host 10.0.0.2",
    "src and dst host 10.0.0.1",
    "dst or src host 10.0.0.2",
    "src or dst net fd00::/64",
    "ip host 10.0.0.1",
    "arp host 10.0.0.2",
    "arp src 10.0.0.1",
    "ip6 host fd00::1",
    "ip6 dst net fd00:1::/32",
    "host 10.0.0.1 or 10.1.0.3",
    "host 10.0.0.1 and not 10.0.0.2",
    "host (10.0.0.1 or fd00::1)",
    "not host 10.0.0.1 and 10.0.0.2",
    "src host 10.0.0.1 and dst host 10.0.0.2 or 10.1.0.3",
    "net 10.0.0.0/8",
    "net 10.1.0.0/16 or net fd00:1::/32",
    "src net 10.0.0.0/24",
    "net 0.0.0.0/0",
    "net ::/0",
    "net 10.0.0.2",
    "net fd00::2",
    "ip net 10.0.0.0/31",
    "arp net 10.0.0.0/30",
    "port 80",
    "port 0",
    "src port 53",
    "dst port 443",
    "src and dst port 53",
    "tcp port 80",
    "udp port 53",
    "sctp port 80",
    "tcp src port 80",
    "udp dst port 53",
    "port 80 or 443",
    "tcp port 80 and not 443",
    "port (53 or not 80)",
    "port 80 or (not 443)",
    "port 80 or (udp)",
    "port !80",
    "portrange 50-90",
    "portrange 443-80",
    "portrange 80",
    "tcp dst portrange 80-443",
    "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:02",
    "ether dst host ff:ff:ff:ff:ff:ff",
    "ether src or dst host 02:00:00:00:00:02",
    "ether host 02:00:00:00:00:01 and not 02:00:00:00:00:02",
    "vlan and ether host 02:00:00:00:00:01",
    "ip or ip6 and udp",
    "ip and udp or arp and host 10.0.0.2",
    "not not tcp",
    "!tcp&&!udp||icmp",
    "(ip or ip6) and (tcp or (udp and not port 53))",
    "tcp or sctp and port 80",
    "icmp and host 10.0.0.1 or icmp6 and host fd00::1",
];

const RANDOM_EXPRESSIONS: u64 = 400;

/// A capture of the frames, each with its number as the time.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = PcapNg::new(Vec::new()).unwrap();
    let interface = file.interface("any").unwrap();
    for (number, frame) in frames.iter().enumerate() {
        let time = Duration::from_secs(number.try_into().unwrap());
        file.packet(interface, time, Direction::Inbound, frame.len(), frame).unwrap();
    }
    file.into_inner()
}

/// The numbers of the frames that tcpdump finds, or what it has against the expression.
fn by_tcpdump(capture: &[u8], expression: &str) -> Result<BTreeSet<usize>, String> {
    let mut tcpdump = Command::new("tcpdump")
        .args(["-r", "-", "-w", "-", expression])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = tcpdump.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // It does not read on when it refuses the expression.
        scope.spawn(move || input.write_all(capture));
        tcpdump.wait_with_output().unwrap()
    });
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        // It sees that nothing can match, and has nothing else against it.
        let nothing = error.contains("expression rejects all packets");
        return if nothing { Ok(BTreeSet::new()) } else { Err(error.into_owned()) };
    }
    // The older format: 24 octets, then packets with 16 in front, of which the first word is the second.
    let mut found = BTreeSet::new();
    let mut rest = &output.stdout[24..];
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap()) as usize;
        found.insert(word(0));
        rest = &rest[16 + word(8)..];
    }
    Ok(found)
}

fn by_us(frames: &[Vec<u8>], expression: &str) -> BTreeSet<usize> {
    let filter: Filter = expression.parse().unwrap_or_else(|e| panic!("{expression}: {e}"));
    (0..frames.len()).filter(|&number| filter.matches(&frames[number])).collect()
}

/// How the two differ, if they do.
fn difference(frames: &[Vec<u8>], capture: &[u8], expression: &str) -> Option<String> {
    let ours = by_us(frames, expression);
    let theirs = match by_tcpdump(capture, expression) {
        Ok(theirs) => theirs,
        Err(error) => return Some(format!("{expression:?}: tcpdump refuses it: {error}")),
    };
    let number = *ours.symmetric_difference(&theirs).next()?;
    let who = if ours.contains(&number) { "only ours" } else { "only tcpdump's" };
    Some(format!("{expression:?}: frame {number} matches {who} filter: {:02x?}", frames[number]))
}

fn has_tcpdump() -> bool {
    let found = Command::new("tcpdump").arg("--version").output().is_ok();
    if !found {
        skip("capture_filter", "tcpdump is not installed");
    }
    found
}

#[test]
fn the_frames_that_tcpdump_finds() {
    if !has_tcpdump() {
        return;
    }
    let frames = frames::with_cut(&mut Seed::from_u64(1).rng("frames"));
    let file = capture(&frames);
    for expression in EXPRESSIONS {
        let found = by_us(&frames, expression).len();
        assert!(found > 0, "{expression:?} finds nothing, so it shows nothing");
        assert!(expression.is_empty() || found < frames.len(), "{expression:?} finds everything");
        let different = difference(&frames, &file, expression);
        assert!(different.is_none(), "{}", different.unwrap());
    }
}

#[test]
fn random_expressions_find_what_tcpdump_finds() {
    if !has_tcpdump() {
        return;
    }
    for seed in 0..RANDOM_EXPRESSIONS {
        let mut rng = Seed::from_u64(seed).rng("expression");
        // Which octets of a cut frame libpcap need not read depends on how far it could simplify the expression.
        let frames = frames::whole(&mut rng);
        let expression = expression(&mut rng, 4);
        let different = difference(&frames, &capture(&frames), &expression);
        assert!(different.is_none(), "seed {seed}: {}", different.unwrap());
    }
}

/// What both refuse. That ours is right to is seen where libpcap can say the same.
#[test]
fn what_tcpdump_refuses_is_refused() {
    if !has_tcpdump() {
        return;
    }
    let file = capture(&[]);
    for expression in [
        "tcp host 10.0.0.1",
        "tcp dst 10.0.0.1",
        "udp net 10.0.0.0/8",
        "ip6 port 80",
        "icmp port 80",
        "ip host fd00::1",
        "ip6 host 10.0.0.1",
        "arp host fd00::1",
        "ip 10.0.0.1",
        "10.0.0.1",
        "ether 02:00:00:00:00:01",
        "ether host 10.0.0.1",
        "ether net 10.0.0.0/8",
        "host 02:00:00:00:00:01",
        "host 10.0.0.0/8",
        "net 10.0.0.1/8",
        "net fd00::1/64",
        "net 10.0.0.0/33",
        "port 65536",
        "port 80-90",
        "port",
        "port and 80",
        "portrange 80-",
        "vlan 4096",
        "vlan 5 or 6",
        "tcp or 80",
        "(host 10.0.0.1) or 10.0.0.2",
        "(port 80 or 81) and 82",
        "not (port 80) or 81",
        "host 10.0.0.1 or port 80 or 10.0.0.2",
        "src src port 80",
        "tcp and",
        "and tcp",
        "not",
        "(tcp",
        "tcp)",
        "()",
        "port ()",
        "tcp udp",
        "tcp & udp",
    ] {
        let theirs = by_tcpdump(&file, expression);
        assert!(theirs.is_err(), "tcpdump takes {expression:?}");
        assert!(expression.parse::<Filter>().is_err(), "{expression:?}");
    }
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len().try_into().unwrap()) as usize]
}

fn expression(rng: &mut Rng, depth: u32) -> String {
    match rng.below(if depth == 0 { 3 } else { 8 }) {
        0..=2 => primitive(rng),
        3 => format!("not {}", term(rng, depth - 1)),
        4 | 5 => format!("{} and {}", expression(rng, depth - 1), term(rng, depth - 1)),
        _ => format!("{} or {}", expression(rng, depth - 1), term(rng, depth - 1)),
    }
}

fn term(rng: &mut Rng, depth: u32) -> String {
    if rng.below(2) == 0 { primitive(rng) } else { format!("({})", expression(rng, depth)) }
}

fn primitive(rng: &mut Rng) -> String {
    const DIRECTIONS: &[&str] = &["", "", "src ", "dst ", "src or dst ", "dst and src "];
    let direction = pick(rng, DIRECTIONS);
    match rng.below(8) {
        0 | 1 => pick(rng, &["ip", "ip6", "arp", "tcp", "udp", "sctp", "icmp", "icmp6"]).to_owned(),
        2 => pick(rng, &["vlan", "vlan 5", "vlan 7"]).to_owned(),
        3 => format!("ether {direction}host {}", pick(rng, frames::STATIONS)),
        4 => {
            let (protocol, hosts) = match rng.below(5) {
                0 => ("ip ", frames::V4),
                1 => ("arp ", frames::V4),
                2 => ("ip6 ", frames::V6),
                3 => ("", frames::V4),
                _ => ("", frames::V6),
            };
            let more = if rng.below(3) == 0 { format!(" or {}", pick(rng, hosts)) } else { String::new() };
            format!("{protocol}{direction}host {}{more}", pick(rng, hosts))
        }
        5 => {
            let nets = &["10.0.0.0/8", "10.0.0.0/30", "10.1.0.0/16", "fd00::/16", "fd00:1::/64", "::/0"];
            format!("{direction}net {}", pick(rng, nets))
        }
        kind => {
            let protocol = pick(rng, &["", "tcp ", "udp ", "sctp "]);
            if kind == 6 {
                let ports = pick(rng, &["50-90", "443-80", "0-65535", "53"]);
                return format!("{protocol}{direction}portrange {ports}");
            }
            let more = pick(rng, &["", "", " or 443", " and not 53", " or (53 and not 80)"]);
            format!("{protocol}{direction}port {}{more}", pick(rng, &["53", "80", "443"]))
        }
    }
}
