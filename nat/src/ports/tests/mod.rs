//! Tests of the port pools: sets and arithmetic, the numbered rules, and random histories against a plain model.

#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod blocks;
mod deterministic;
mod model;
mod rules;
mod sets;

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::{Config, Keep, Lease, Pool, Protocol, Refused, Request};

const NOW: Duration = Duration::from_secs(1_000);
const PROTOCOLS: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp, Protocol::Sctp];

/// SplitMix64, of the tests' own.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, usize::try_from(self.next() % (last as u64 + 1)).unwrap());
        }
    }
}

fn external(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, last)
}

fn host(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 0, 0]) + number)
}

fn config() -> Config<Ipv4Addr> {
    Config::new(Vec::from([external(1)]), 7)
}

fn pool() -> Pool<Ipv4Addr> {
    Pool::new(config()).unwrap()
}

fn ask(inside: Ipv4Addr, protocol: Protocol, port: u16) -> Request<Ipv4Addr> {
    Request { inside, protocol, port, keep: Keep::default() }
}

fn lease(
    pool: &mut Pool<Ipv4Addr>,
    request: &Request<Ipv4Addr>,
    random: u64,
    owner: u32,
) -> Result<Lease<Ipv4Addr>, Refused> {
    let choice = pool.choose(request, random)?;
    let lease = pool.take(choice, owner).unwrap();
    assert_eq!(lease, choice.lease());
    Ok(lease)
}
