use super::*;
use crate::seed::{Rng, Seed};
use alloc::collections::BTreeMap;
use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

type Routes = Vec<(IpNet, u32)>;

/// The rule itself: the longest of all that hold the address; of equals the last.
fn scan(routes: &Routes, address: IpAddr) -> Option<(IpNet, u32)> {
    let held = routes.iter().filter(|(prefix, _)| prefix.contains(&address));
    held.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|&(prefix, target)| (prefix.trunc(), target))
}

fn agree(routes: &Routes, addresses: impl IntoIterator<Item = IpAddr>) {
    let table = RouteTable::build(routes.iter().copied());
    for address in addresses {
        let expected = scan(routes, address);
        assert_eq!(table.lookup_prefix(address), expected, "{address} in {routes:?}");
        assert_eq!(table.lookup(address), expected.map(|(_, target)| target));
    }
}

/// First and last address of a prefix and those next to it outside.
fn edges(prefix: IpNet) -> [IpAddr; 4] {
    match prefix {
        IpNet::V4(p) => {
            let (first, last) = (p.network().to_bits(), p.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|bits| IpAddr::V4(bits.into()))
        }
        IpNet::V6(p) => {
            let (first, last) = (p.network().to_bits(), p.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|bits| IpAddr::V6(bits.into()))
        }
    }
}

fn nets(texts: &[&str]) -> Routes {
    (1..).zip(texts).map(|(target, text)| (text.parse().unwrap(), target)).collect()
}

/// Prefixes that nest: few distinct bits, every length.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4_bits = prop_oneof![any::<u32>(), any::<u8>().prop_map(|b| u32::from(b) * 0x0101_0101)];
    let v6_bits = prop_oneof![any::<u128>(), any::<u8>().prop_map(|b| u128::from(b) * (u128::MAX / 255))];
    prop_oneof![
        (v4_bits, 0u8..=32).prop_map(|(bits, len)| Ipv4Net::new(bits.into(), len).unwrap().into()),
        (v6_bits, 0u8..=128).prop_map(|(bits, len)| Ipv6Net::new(bits.into(), len).unwrap().into()),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_linear_scan(
        routes in proptest::collection::vec((prefix(), any::<u32>()), 0..60),
        addresses in proptest::collection::vec(any::<IpAddr>(), 20),
    ) {
        let near = routes.iter().flat_map(|(p, _)| edges(*p)).collect::<Vec<_>>();
        agree(&routes, addresses.into_iter().chain(near));
    }

    #[test]
    fn lists_each_prefix_once_with_its_last_target(
        routes in proptest::collection::vec((prefix(), any::<u32>()), 0..60),
    ) {
        let table = RouteTable::build(routes.iter().copied());
        let expected: BTreeMap<_, _> = routes.iter().map(|(p, t)| (p.trunc(), *t)).collect();
        prop_assert_eq!(table.len(), expected.len());
        prop_assert_eq!(table.iter().collect::<BTreeMap<_, _>>(), expected);
    }

    #[cfg(feature = "std")]
    #[test]
    fn agrees_with_the_table_of_record_through_its_changes(
        steps in proptest::collection::vec((prefix(), any::<u32>(), any::<bool>()), 0..80),
    ) {
        let mut rib = Rib::new();
        let mut model = BTreeMap::new();
        for &(prefix, target, remove) in &steps {
            if remove {
                prop_assert_eq!(rib.remove(prefix), model.remove(&prefix.trunc()));
            } else {
                prop_assert_eq!(rib.insert(prefix, target), model.insert(prefix.trunc(), target));
            }
        }
        prop_assert_eq!(rib.len(), model.len());
        let table = rib.compile();
        prop_assert!(table.iter().eq(rib.iter()));
        for (prefix, ..) in steps {
            prop_assert_eq!(rib.get(prefix), model.get(&prefix.trunc()).copied());
            for address in edges(prefix) {
                prop_assert_eq!(table.lookup_prefix(address), rib.lookup(address));
            }
        }
    }
}

#[test]
fn an_empty_table_has_no_route() {
    agree(&Vec::new(), ["0.0.0.0", "255.255.255.255", "::", "fd00::1"].map(|a| a.parse().unwrap()));
    assert!(RouteTable::default().is_empty());
    assert_eq!(RouteTable::default().lookup([10, 0, 0, 1].into()), None);
}

#[test]
fn a_default_route_holds_everything_of_its_family_alone() {
    let table = RouteTable::build(nets(&["0.0.0.0/0"]).into_iter());
    assert_eq!(table.lookup([255, 255, 255, 255].into()), Some(1));
    assert_eq!(table.lookup("::".parse().unwrap()), None);
    let table = RouteTable::build(nets(&["::/0"]).into_iter());
    assert_eq!(table.lookup("ffff::".parse().unwrap()), Some(1));
    assert_eq!(table.lookup([0, 0, 0, 0].into()), None);
}

#[test]
fn the_longest_of_nested_prefixes_wins_down_to_one_address() {
    let v4: Routes =
        (0..=32).map(|n| (Ipv4Net::new([10, 1, 2, 3].into(), n).unwrap().into(), n.into())).collect();
    let v6 = (0..=128).map(|n| (Ipv6Net::new("fd00:1:2:3::9".parse().unwrap(), n).unwrap().into(), n.into()));
    let routes: Routes = v4.into_iter().chain(v6).rev().collect();
    agree(&routes, routes.iter().flat_map(|(p, _)| edges(*p)));
    let table = RouteTable::build(routes.into_iter());
    assert_eq!(table.lookup([10, 1, 2, 3].into()), Some(32));
    assert_eq!(table.lookup("fd00:1:2:3::9".parse().unwrap()), Some(128));
}

#[test]
fn every_slot_of_a_node_may_have_its_own_leaf_or_child() {
    let full: Routes =
        (0..64).map(|n| (Ipv4Net::new(((n << 26) as u32).into(), 6).unwrap().into(), n as u32)).collect();
    agree(&full, full.iter().flat_map(|(p, _)| edges(*p)));
    let deeper: Routes = (0..64)
        .map(|n| (Ipv4Net::new((((n << 26) | 5) as u32).into(), 32).unwrap().into(), n as u32))
        .collect();
    agree(&deeper, deeper.iter().flat_map(|(p, _)| edges(*p)));
}

#[test]
fn host_bits_are_ignored_and_the_last_of_equal_prefixes_counts() {
    let routes = nets(&["10.0.0.7/24", "10.0.0.0/24", "fd00::7/64", "fd00::/64"]);
    let table = RouteTable::build(routes.into_iter());
    assert_eq!(table.len(), 2);
    assert_eq!(table.lookup_prefix([10, 0, 0, 9].into()), Some(("10.0.0.0/24".parse().unwrap(), 2)));
    assert_eq!(table.lookup("fd00::9".parse().unwrap()), Some(4));
}

/// Lengths as in a full table: most around /24 and /48, all of them somewhere.
fn random_prefix(rng: &mut Rng) -> IpNet {
    let spread = |rng: &mut Rng, middle: u8, most: u8| match rng.below(4) {
        0 => u8::try_from(rng.below(u32::from(most) + 1)).unwrap(),
        _ => middle - 4 + u8::try_from(rng.below(8)).unwrap(),
    };
    if rng.below(2) == 0 {
        let len = spread(rng, 22, 32);
        Ipv4Net::new(u32::try_from(rng.next_u64() >> 32).unwrap().into(), len).unwrap().trunc().into()
    } else {
        // One eighth of the address space, as in the Internet.
        let bits = (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())) >> 3 | 1 << 125;
        let len = spread(rng, 46, 128);
        Ipv6Net::new(bits.into(), len).unwrap().trunc().into()
    }
}

/// The longest prefix by asking a map of exact prefixes for every length.
fn by_length(routes: &BTreeMap<IpNet, u32>, address: IpAddr) -> Option<(IpNet, u32)> {
    let most = if address.is_ipv4() { 32 } else { 128 };
    (0..=most).rev().find_map(|len| {
        let prefix = IpNet::new(address, len).unwrap().trunc();
        routes.get(&prefix).map(|&target| (prefix, target))
    })
}

#[test]
fn a_hundred_thousand_random_routes() {
    let mut rng = Seed::from_u64(11).rng("routes");
    let routes: BTreeMap<IpNet, u32> = (0..100_000).map(|target| (random_prefix(&mut rng), target)).collect();
    let table = RouteTable::build(routes.iter().map(|(&p, &t)| (p, t)));
    assert_eq!(table.len(), routes.len());
    for &prefix in routes.keys().step_by(5) {
        for address in edges(prefix) {
            assert_eq!(table.lookup_prefix(address), by_length(&routes, address), "{address}");
        }
    }
    #[cfg(feature = "std")]
    {
        let mut rib = Rib::new();
        routes.iter().for_each(|(&p, &t)| assert_eq!(rib.insert(p, t), None));
        for _ in 0..100_000 {
            let address = random_prefix(&mut rng).addr();
            assert_eq!(table.lookup_prefix(address), rib.lookup(address), "{address}");
        }
    }
}
