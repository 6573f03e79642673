//! Highest-random-weight selection: one of a few items for each flow, without a table.
//!
//! Every item draws a number from the flow's hash and its own id, and the highest wins (Thaler and Ravishankar, "Using
//! Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking 6(1), 1998; RFC 2991 for next
//! hops). Removing an item moves the flows it had and no others; adding one takes an even share from each. The cost
//! grows with the number of items, which suits next hops; many backends want a table.

/// The position of the item that `hash` selects, or none if there is no item.
///
/// `hash` must be well mixed, like [`crate::hash::FlowHash`]'s. `ids` may be any distinct numbers, small and in
/// sequence too, but an item must keep its id for as long as it is to keep its flows. The items' order does not matter. Of items
/// with the same id the first is selected.
pub fn select(hash: u64, ids: impl Iterator<Item = u64>) -> Option<usize> {
    let mut best: Option<(usize, u64)> = None;
    for (position, id) in ids.enumerate() {
        let weight = weight(hash, id);
        if best.is_none_or(|(_, highest)| weight > highest) {
            best = Some((position, weight));
        }
    }
    best.map(|(position, _)| position)
}

/// The same, of items given as id and weight: each is selected as often as its weight says, as against the others'. With
/// weight 0 it never is, and if that is all there is, there is none.
///
/// Each item's draw is read as a moment of a process that happens as often as its weight says, and the first to happen
/// wins (the logarithmic method of Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005). The
/// logarithm is one of whole numbers, so that every platform selects the same.
pub fn select_weighted(hash: u64, items: impl Iterator<Item = (u64, u32)>) -> Option<usize> {
    let mut best: Option<(usize, u128, u128)> = None;
    for (position, (id, its_weight)) in items.enumerate().filter(|(_, (_, weight))| *weight > 0) {
        let (wait, its_weight) = (u128::from(halvings(weight(hash, id))), u128::from(its_weight));
        // wait / weight is less than the best's: 46 bits by 32.
        if best.is_none_or(|(_, least, whose)| wait * whose < least * its_weight) {
            best = Some((position, wait, its_weight));
        }
    }
    best.map(|(position, _, _)| position)
}

/// How often 2^64 is to be halved to become `draw`: 64 less its binary logarithm, with 40 bits behind the point. That is
/// at least one step for the highest draw, and 64 for the lowest.
fn halvings(draw: u64) -> u64 {
    const BITS: u32 = 40;
    let draw = draw.max(1);
    // The mantissa, with 63 bits behind the point: from 1 to below 2. Squaring it doubles its logarithm, the next bit of
    // which is whether it became 2 or more.
    let mut mantissa = u128::from(draw << draw.leading_zeros());
    let mut fraction = 0;
    for _ in 0..BITS {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >> 64 != 0 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (u64::from(draw.leading_zeros() + 1) << BITS) - fraction
}

/// What the item `id` draws for `hash`. For one hash this is a permutation of the ids, so distinct ids never draw the
/// same number and there is no tie to break.
const fn weight(hash: u64, id: u64) -> u64 {
    // The constant keeps id 0 from being the fixed point of the mixer.
    mix(hash ^ mix(id.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection in which each bit of input changes
/// each bit of output with probability one half.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    fn of(hash: u64, ids: &[u64]) -> Option<u64> {
        select(hash, ids.iter().copied()).map(|position| ids[position])
    }

    /// Hashes for tests, evenly spread.
    fn hashes(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|n| mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    #[test]
    fn nothing_is_selected_from_nothing() {
        assert_eq!(of(1, &[]), None);
        assert_eq!(of(1, &[7]), Some(7));
        assert_eq!(select(1, [7, 7].into_iter()), Some(0));
    }

    /// Computed by another implementation.
    #[test]
    fn selection_is_the_same_everywhere_and_forever() {
        let got: Vec<usize> = hashes(16).filter_map(|h| select(h, 1..=5)).collect();
        assert_eq!(got, [1, 1, 1, 1, 1, 2, 4, 0, 1, 4, 2, 1, 4, 3, 3, 1]);
    }

    /// Pearson's statistic over `n` items has n - 1 degrees of freedom: mean n - 1, standard deviation sqrt(2(n - 1)).
    /// Six deviations above the mean do not happen by chance; a skew of a few per cent over 20,000 flows per item is
    /// far beyond.
    #[test]
    fn shares_are_even() {
        for (name, ids) in [
            ("two", vec![0, 1]),
            ("sequence", (0..16).collect()),
            ("high bits", (0..16).map(|n| n << 60).collect()),
            ("addresses", (0..31).map(|n| 0x0a00_0001 + (n << 8)).collect::<Vec<u64>>()),
        ] {
            let flows = 20_000 * ids.len() as u64;
            let mut counts = vec![0u32; ids.len()];
            for hash in hashes(flows) {
                counts[select(hash, ids.iter().copied()).unwrap()] += 1;
            }
            let statistic: f64 = counts.iter().map(|&c| (f64::from(c) - 20_000.0).powi(2) / 20_000.0).sum();
            let freedom = (ids.len() - 1) as f64;
            assert!(statistic < freedom + 6.0 * (2.0 * freedom).sqrt(), "{name}: {statistic} {counts:?}");
        }
    }

    proptest! {
        #[test]
        fn removing_an_item_moves_its_flows_only(
            ids in proptest::collection::btree_set(any::<u64>(), 2..20), gone: prop::sample::Index, salt: u64,
        ) {
            let all: Vec<u64> = ids.into_iter().collect();
            let gone = all[gone.index(all.len())];
            let left: Vec<u64> = all.iter().copied().filter(|&id| id != gone).collect();
            let mut heirs = BTreeSet::new();
            for hash in hashes(2000).map(|h| h ^ salt) {
                let before = of(hash, &all);
                let after = of(hash, &left);
                if before == Some(gone) { heirs.insert(after); } else { prop_assert_eq!(before, after); }
            }
            // With some 100 flows or more to inherit, no single item gets them all.
            prop_assert!(left.len() < 2 || heirs.len() > 1);
        }

        #[test]
        fn order_does_not_matter(
            ids in proptest::collection::btree_set(any::<u64>(), 1..20), hash: u64, turn in 0usize..20,
        ) {
            let ids: Vec<u64> = ids.into_iter().collect();
            let mut other = ids.clone();
            other.reverse();
            let turn = turn % other.len();
            other.rotate_left(turn);
            prop_assert_eq!(of(hash, &ids), of(hash, &other));
        }
    }
}
