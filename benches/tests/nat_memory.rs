//! What a connection takes, all in: the table, both indexes, deadlines, and the pool with the external port that it holds.
//! Measured where it counts, by what the process takes of the machine's memory.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "all of this file is tests, which show what they measured"
)]

use std::net::{Ipv4Addr, Ipv6Addr};

use nat::tuple::Address;
use vswitch_benches::nat::filled;

/// So many that what does not depend on their number hardly counts.
const CONNECTIONS: u32 = 500_000;

/// Octets of memory that the process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn octets_per_connection<A: Address>() -> usize {
    let before = resident();
    let nat = filled::<A>(CONNECTIONS);
    let after = resident();
    assert_eq!(nat.len(), CONNECTIONS as usize);
    (after - before).div_ceil(CONNECTIONS as usize)
}

#[test]
fn a_connection_takes_what_is_published() {
    // One after the other, for they share the process.
    for (family, measured, most) in [
        ("IPv4", octets_per_connection::<Ipv4Addr>(), 160),
        ("IPv6", octets_per_connection::<Ipv6Addr>(), 256),
    ] {
        eprintln!("{family}: {measured} octets for each of {CONNECTIONS} connections");
        assert!(measured <= most, "{family}: {measured} octets, and {most} are promised");
    }
}
