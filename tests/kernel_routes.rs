//! Longest prefix match against the kernel's: random tables of both families into a namespace, `ip route get` for random
//! addresses, the same answer from ours and from a linear scan.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use netstack::addr::IpNet;
use netstack::route::RouteTable;
use netstack::seed::{Rng, Seed};
use vswitch_tests::{run, skip};

const TABLES: u64 = 4;
const ROUTES: u32 = 300;
const LOOKUPS: u32 = 1500;

/// A namespace that goes when the test ends, however it ends.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn longest_prefix_as_ip_route_get_finds_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("kernel_routes", "filling a kernel's routing table needs root");
    }
    let namespace = Namespace(format!("lpm-{}", std::process::id()));
    run("ip", &["netns", "add", &namespace.0]);
    let ip = |args: &[&str]| run("ip", &[&["-n", namespace.0.as_str()], args].concat());
    ip(&["link", "add", "d0", "type", "veth", "peer", "name", "d1"]);
    for device in ["d0", "d1"] {
        ip(&["link", "set", device, "up"]);
    }
    ip(&["address", "add", "10.255.0.1/16", "dev", "d0"]);
    ip(&["address", "add", "fd00:ffff::1/64", "dev", "d0", "nodad"]);
    for seed in 0..TABLES {
        for v4 in [true, false] {
            compare(&namespace.0, v4, &mut Seed::from_u64(seed).rng("routes"));
        }
    }
}

fn compare(namespace: &str, v4: bool, rng: &mut Rng) {
    let mut routes: Vec<(IpNet, u32)> = (1..ROUTES).map(|target| (random_prefix(v4, rng), target)).collect();
    let everything = if v4 { "0.0.0.0/0" } else { "::/0" };
    routes.push((everything.parse().unwrap(), 0));
    let mut batch = String::new();
    for (prefix, target) in &routes {
        // `replace`, so that of two routes with one prefix the later one wins, as in ours.
        writeln!(batch, "route replace {prefix} via {} dev d0 proto 77", gateway(v4, *target)).unwrap();
    }
    let family = if v4 { "-4" } else { "-6" };
    batched(namespace, family, &batch);
    let table = RouteTable::build(routes.iter().copied());
    let addresses: Vec<IpAddr> = (0..LOOKUPS).map(|i| random_address(v4, &routes, i, rng)).collect();
    let questions: String = addresses.iter().fold(String::new(), |mut text, address| {
        writeln!(text, "route get fibmatch {address}").unwrap();
        text
    });
    let answers = batched(namespace, family, &questions);
    let answers: Vec<&str> = answers.lines().filter(|l| !l.trim().is_empty()).collect();
    assert_eq!(answers.len(), addresses.len(), "every address has a route: there is a default");
    for (address, answer) in addresses.iter().zip(answers) {
        let kernel = answer.split("via ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let ours = table.lookup(*address).map(|target| gateway(v4, target).to_string());
        assert_eq!(ours.as_deref(), kernel, "{address}: the kernel says {answer:?}");
        assert_eq!(table.lookup(*address), scan(&routes, *address), "{address}: a linear scan disagrees");
    }
    let undo = batch.lines().fold(String::new(), |mut text, line| {
        let prefix = line.split_whitespace().nth(2).unwrap();
        if !text.contains(&format!(" {prefix}\n")) {
            writeln!(text, "route del {prefix}").unwrap();
        }
        text
    });
    batched(namespace, family, &undo);
}

/// Longest prefix, of equal ones the last.
fn scan(routes: &[(IpNet, u32)], address: IpAddr) -> Option<u32> {
    let matching = routes.iter().filter(|(prefix, _)| prefix.contains(&address));
    matching.max_by_key(|(prefix, target)| (prefix.prefix_len(), *target)).map(|(_, target)| *target)
}

fn gateway(v4: bool, target: u32) -> IpAddr {
    match v4 {
        true => IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 255, 1, 0)) + target)),
        false => IpAddr::V6(Ipv6Addr::from(
            u128::from("fd00:ffff::1:0".parse::<Ipv6Addr>().unwrap()) + u128::from(target),
        )),
    }
}

/// Prefixes that nest: a few leading bits are shared.
fn random_prefix(v4: bool, rng: &mut Rng) -> IpNet {
    let (bits, high) = if v4 { (32, 0x14) } else { (128, 0x20) };
    let len = u8::try_from(rng.below(bits - 4) + 5).unwrap();
    let address = address_from(v4, high, rng);
    IpNet::new(address, len).unwrap().trunc()
}

fn address_from(v4: bool, high: u8, rng: &mut Rng) -> IpAddr {
    let mut octets = [0u8; 16];
    octets[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
    octets[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
    // Few values in front, so that prefixes meet; unicast in both families.
    octets[0] = high;
    octets[1] &= 3;
    octets[2] &= 3;
    match v4 {
        true => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        false => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

/// Inside a random route, or anywhere near.
fn random_address(v4: bool, routes: &[(IpNet, u32)], number: u32, rng: &mut Rng) -> IpAddr {
    if number.is_multiple_of(3) {
        return address_from(v4, if v4 { 0x14 } else { 0x20 }, rng);
    }
    let (prefix, _) = routes[rng.below(ROUTES) as usize];
    match (prefix, address_from(v4, 0, rng)) {
        (IpNet::V4(net), IpAddr::V4(any)) => {
            let host = u32::from(any) & u32::from(net.hostmask());
            IpAddr::V4(Ipv4Addr::from(u32::from(net.network()) | host))
        }
        (IpNet::V6(net), IpAddr::V6(any)) => {
            let host = u128::from(any) & u128::from(net.hostmask());
            IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | host))
        }
        _ => unreachable!("prefix and address are of one family"),
    }
}

/// Feeds commands to one `ip` process and returns what it printed.
fn batched(namespace: &str, family: &str, commands: &str) -> String {
    let mut child = Command::new("ip")
        .args(["-n", namespace, family, "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ip runs");
    let mut input = child.stdin.take().unwrap();
    let commands = commands.to_owned();
    let writer = std::thread::spawn(move || input.write_all(commands.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "ip -batch failed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
