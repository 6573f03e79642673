//! Sets of ports against `BTreeSet`.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::ports::draws::Draws;
use crate::ports::set::{Parity, PortRange, PortSet};

const PARITIES: [Parity; 3] = [Parity::Any, Parity::Even, Parity::Odd];

/// Ports that lie at the edges of words and groups more often than chance has it.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![
        any::<u16>(),
        (0u16..1024, -1i16..=1).prop_map(|(word, by)| (word * 64).wrapping_add_signed(by))
    ]
}

fn naive_first(model: &BTreeSet<u16>, range: PortRange, parity: Parity) -> Option<u16> {
    model.iter().copied().find(|&p| {
        range.first <= p
            && p <= range.last
            && match parity {
                Parity::Any => true,
                Parity::Even => p % 2 == 0,
                Parity::Odd => p % 2 == 1,
            }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Words at a time come out as ports one by one.
    #[test]
    fn ranges_are_their_ports(changes in proptest::collection::vec((port(), port(), any::<bool>()), 1..6)) {
        let (mut set, mut ports) = (PortSet::new(), PortSet::new());
        for (first, last, with) in changes {
            let range = PortRange { first, last };
            set = if with { set.with(range) } else { set.without(range) };
            for port in first..=last {
                if with { ports.insert(port) } else { ports.remove(port) };
            }
            prop_assert!(set == ports);
        }
    }

    #[test]
    fn a_set_is_a_set(
        changes in prop::collection::vec((any::<bool>(), port()), 0..300),
        queries in prop::collection::vec((port(), port(), port(), any::<u64>()), 1..50),
    ) {
        let (mut set, mut model) = (PortSet::new(), BTreeSet::new());
        for (insert, port) in changes {
            if insert {
                prop_assert_eq!(set.insert(port), model.insert(port));
            } else {
                prop_assert_eq!(set.remove(port), model.remove(&port));
            }
        }
        prop_assert_eq!(set.len() as usize, model.len());
        prop_assert_eq!(set.is_empty(), model.is_empty());
        if let (Some(&first), Some(&last)) = (model.first(), model.last()) {
            prop_assert_eq!(set.span(), PortRange { first, last });
        } else {
            prop_assert!(set.span().is_empty());
        }
        for (start, first, last, random) in queries {
            let range = PortRange { first, last };
            prop_assert_eq!(set.contains(start), model.contains(&start));
            for parity in PARITIES {
                prop_assert_eq!(set.first(range, parity), naive_first(&model, range, parity));
                let from = PortRange { first: start.max(first), last };
                let next = naive_first(&model, from, parity).or_else(|| naive_first(&model, range, parity));
                prop_assert_eq!(set.first_from(start, range, parity), next);
                let picked = set.pick(range, parity, &mut Draws(random));
                prop_assert_eq!(picked.is_some(), next.is_some());
                if let Some(port) = picked {
                    let only = PortRange { first: port, last: port };
                    prop_assert!(range.contains(port));
                    prop_assert_eq!(naive_first(&model, only, parity), Some(port));
                }
            }
        }
    }
}

#[test]
fn the_only_member_is_found_wherever_it_is() {
    for port in 0..=u16::MAX {
        let set = PortSet::range(port..=port);
        assert_eq!(set.first(PortRange::ALL, Parity::Any), Some(port));
        assert_eq!(set.first(PortRange::ALL, Parity::of(port)), Some(port));
        assert_eq!(set.pick(PortRange::ALL, Parity::Any, &mut Draws(u64::from(port))), Some(port));
    }
}

#[test]
fn ranges_are_added_and_taken_away() {
    let set = PortSet::range(1024..=65_535).without(30_000..=32_767).with(7..=7);
    assert_eq!(set.len(), 64_512 - 2_768 + 1);
    let members: Vec<bool> =
        [7, 1023, 1024, 29_999, 30_000, 32_767, 32_768, 65_535].map(|p| set.contains(p)).into();
    assert_eq!(members, [true, false, true, true, false, false, true, true]);
    assert_eq!(PortSet::range(PortRange { first: 9, last: 8 }), PortSet::new());
}
