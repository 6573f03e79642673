//! NAT-8: deterministic NAT.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::{PROTOCOLS, ask, config, lease};
use crate::ports::{Assignment, Deterministic, DeterministicError, Pool, PortRange, Refused};

/// The arithmetic once more, in whole numbers and by division: external offset, first port, last port.
fn recompute(inside_offset: u64, inside_count: u64, external_count: u64) -> (u64, u64, u64) {
    let ratio = inside_count / external_count;
    let ports = (65_536 - 1024) / ratio;
    let first = 1024 + (inside_offset % ratio) * ports;
    (inside_offset / ratio, first, first + ports - 1)
}

#[test]
fn nat_8_sharing_ratios_give_their_number_of_ports() {
    let table = [(16, 4032), (32, 2016), (64, 1008), (128, 504), (256, 252), (512, 126), (1024, 63)];
    for (ratio, ports) in table {
        let length = u8::try_from(32 - u32::ilog2(ratio)).unwrap();
        let relation =
            Deterministic::new((Ipv4Addr::new(10, 0, 0, 0), length), (Ipv4Addr::new(192, 0, 2, 1), 32))
                .unwrap();
        assert_eq!(relation.ports_per_subscriber(), ports, "ratio {ratio}");
    }
}

#[test]
fn nat_8_forward_and_reverse_agree_with_the_arithmetic() {
    let (inside, external) = (Ipv4Addr::new(10, 64, 0, 0), Ipv4Addr::new(198, 51, 100, 8));
    let relation = Deterministic::new((inside, 20), (external, 30)).unwrap();
    assert_eq!(relation.externals().count(), 4);
    let mut seen = Vec::new();
    for offset in 0..4096 {
        let address = Ipv4Addr::from_bits(inside.to_bits() + offset);
        let (out, range) = relation.external(address).unwrap();
        let expected = recompute(offset.into(), 4096, 4);
        assert_eq!(
            (u64::from(out.to_bits() - external.to_bits()), range.first.into(), range.last.into()),
            expected
        );
        for port in [range.first, range.last] {
            assert_eq!(relation.inside(out, port), Some(address), "{out}:{port}");
        }
        seen.push((out, range.first));
    }
    seen.dedup();
    assert_eq!(seen.len(), 4096);
    let outside = [Ipv4Addr::new(10, 64, 16, 0), Ipv4Addr::new(10, 63, 255, 255)];
    assert!(outside.iter().all(|&address| relation.external(address).is_none()));
    assert_eq!(relation.inside(external, 1023), None);
    // 64,512 is 63 * 1024: with this ratio no port is left over, with one of 2,048 there are 31 each and 1,024 left.
    assert!(relation.inside(external, 65_535).is_some());
    let wide = Deterministic::new((inside, 21), (external, 32)).unwrap();
    assert_eq!(wide.inside(external, 64_511), Some(Ipv4Addr::new(10, 64, 7, 255)));
    assert_eq!(wide.inside(external, 64_512), None);
    assert_eq!(relation.inside(Ipv4Addr::new(198, 51, 100, 12), 2000), None);
}

#[test]
fn nat_8_every_flow_falls_inside_its_range() {
    let relation =
        Deterministic::new((Ipv4Addr::new(10, 0, 0, 0), 24), (Ipv4Addr::new(192, 0, 2, 0), 31)).unwrap();
    let mut config = config();
    config.addresses = relation.externals().collect();
    config.assignment = Assignment::Deterministic(relation);
    let mut pool = Pool::new(config).unwrap();
    for protocol in PROTOCOLS {
        for host in [0, 1, 127, 128, 255] {
            let inside = Ipv4Addr::new(10, 0, 0, host);
            let (address, first, last) = recompute(host.into(), 256, 2);
            let mut owner = 0;
            let refused = loop {
                match lease(&mut pool, &ask(inside, protocol, 40_000), u64::from(owner), owner) {
                    Ok(lease) => {
                        assert_eq!(u64::from(lease.external.octets()[3]), address);
                        assert!((first..=last).contains(&lease.port.into()));
                        assert_eq!(relation.inside(lease.external, lease.port), Some(inside));
                    }
                    Err(refused) => break refused,
                }
                owner += 1;
            };
            assert_eq!((refused, owner), (Refused::Exhausted, 504));
        }
    }
    let stranger = ask(Ipv4Addr::new(10, 0, 1, 0), PROTOCOLS[0], 40_000);
    assert_eq!(pool.choose(&stranger, 1), Err(Refused::Unmapped));
    pool.remove(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(pool.choose(&ask(Ipv4Addr::new(10, 0, 0, 200), PROTOCOLS[0], 1), 1), Err(Refused::Unmapped));
}

#[test]
fn nat_8_is_the_same_for_ipv6() {
    let inside: Ipv6Addr = "fd00::".parse().unwrap();
    let external: Ipv6Addr = "2001:db8::".parse().unwrap();
    let relation = Deterministic::new((inside, 118), (external, 127)).unwrap();
    let host: Ipv6Addr = "fd00::205".parse().unwrap();
    let (offset, first, last) = recompute(0x205, 1024, 2);
    let (out, range) = relation.external(host).unwrap();
    assert_eq!(out.to_bits() - external.to_bits(), u128::from(offset));
    assert_eq!((u64::from(range.first), u64::from(range.last)), (first, last));
    assert_eq!(relation.inside(out, range.last), Some(host));
}

#[test]
fn a_ratio_of_one_leaves_every_port_and_the_whole_family_is_a_prefix() {
    let any = Ipv4Addr::UNSPECIFIED;
    let relation = Deterministic::new((any, 0), (any, 0)).unwrap();
    let address = Ipv4Addr::new(203, 0, 113, 9);
    assert_eq!(relation.external(address), Some((address, PortRange { first: 1024, last: 65_535 })));
    assert_eq!(relation.inside(address, 65_535), Some(address));
    let any = Ipv6Addr::UNSPECIFIED;
    let relation = Deterministic::new((any, 0), (any, 0)).unwrap();
    assert_eq!(relation.external(Ipv6Addr::LOCALHOST).map(|(address, _)| address), Some(Ipv6Addr::LOCALHOST));
    assert_eq!(relation.externals().take(3).count(), 3);
}

#[test]
fn wrong_prefixes_are_named() {
    let (inside, external) = (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(192, 0, 2, 0));
    let check = |a, b| Deterministic::new((inside, a), (external, b)).unwrap_err();
    assert_eq!(check(33, 24), DeterministicError::Length);
    assert_eq!(check(24, 22), DeterministicError::HostBits);
    assert_eq!(check(25, 24), DeterministicError::Sparse);
    assert_eq!(check(16, 32), DeterministicError::Ratio);
    assert!(Deterministic::new((inside, 17), (external, 32)).is_ok());
}
