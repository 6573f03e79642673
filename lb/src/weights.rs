//! Turns in proportion to weights.
//!
//! # Theory of operation
//! A total of turns is to be divided among items so that each gets what its weight is worth, whatever the weights are to
//! each other, and so that the turns of one are spread over the whole. These are two questions, and the usual answer to
//! the second (an item takes its next turn when its weight has added up to enough) fails the first: with one heavy item
//! and a thousand light ones, what the light ones' parts are rounded up by is all taken from the heavy one.
//!
//! So how many turns each has is settled first, by largest remainders (Hamilton's method): the whole part of
//! `total * weight / sum`, and one more for those with the largest rests until all is given away. Nobody is ever a whole
//! turn away from its worth, and the sum is exact.
//!
//! When they come is settled by a virtual time in which the heaviest has one turn a round: the k-th turn (from 0) of an
//! item is in round `(2k + 1) * heaviest / (2 * weight)`, the middle of its interval. It does not depend on the other
//! items but for the unit, so that most turns stay in their order when an item comes or goes. Items of equal weight have
//! their turns in the same rounds and are kept as one class: with equal weights there is one class, and this is plain
//! turn-taking. Within a round heavier classes come first, and within a class the items' own order counts.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

/// How many of `total` turns each item has: less than one away from `total * weight / sum`. Of equal rests the first item's
/// counts more. All are 0 if all weights are.
pub(crate) fn quotas(weights: &[u32], total: u32) -> Vec<u32> {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let worth = |weight: u32| u64::from(total) * u64::from(weight);
    let whole = |weight: u32| u32::try_from(worth(weight) / sum).unwrap_or(total);
    let mut quotas: Vec<u32> = weights.iter().map(|&weight| whole(weight)).collect();
    let given: u32 = quotas.iter().sum();
    let mut by_rest: Vec<(Reverse<u64>, usize)> =
        weights.iter().enumerate().map(|(at, &weight)| (Reverse(worth(weight) % sum), at)).collect();
    by_rest.sort_unstable();
    for (_, at) in by_rest.into_iter().take((total - given) as usize) {
        quotas[at] += 1;
    }
    quotas
}

/// Items of one weight.
struct Class {
    weight: u32,
    /// Where they stand in `Turns::members`.
    start: usize,
    end: usize,
    /// How many turns each has had.
    had: u64,
}

/// The positions of items in the order of their turns, as many as there are in total.
pub(crate) struct Turns {
    /// Positions of the items with any turn, heaviest first.
    members: Vec<u16>,
    classes: Vec<Class>,
    heaviest: u64,
    /// Turns that each item still has.
    left: Vec<u32>,
    /// The next round of each class that has turns left.
    rounds: BinaryHeap<Reverse<(u64, usize)>>,
    /// What of `members` has its turn in this round.
    now: core::ops::Range<usize>,
}

impl Turns {
    /// `total` turns of at most 65,536 items. There are none if all weights are 0.
    pub(crate) fn new(weights: &[u32], total: u32) -> Self {
        let left = quotas(weights, total);
        let weight = |member: &u16| weights[usize::from(*member)];
        let mut members: Vec<u16> =
            (0..=u16::MAX).zip(weights).filter(|(_, w)| **w > 0).map(|(at, _)| at).collect();
        members.sort_by_key(|member| Reverse(weight(member)));
        let mut classes = Vec::new();
        for same in members.chunk_by(|a, b| weight(a) == weight(b)) {
            let start = classes.last().map_or(0, |class: &Class| class.end);
            classes.push(Class { weight: weight(&same[0]), start, end: start + same.len(), had: 0 });
        }
        let heaviest = classes.first().map_or(0, |class| u64::from(class.weight));
        let mut turns = Self { members, classes, heaviest, left, rounds: BinaryHeap::new(), now: 0..0 };
        for class in 0..turns.classes.len() {
            turns.enqueue(class);
        }
        turns
    }

    /// Puts a class in for its next round.
    fn enqueue(&mut self, at: usize) {
        let class = &self.classes[at];
        let round = (2 * class.had + 1) * self.heaviest / (2 * u64::from(class.weight));
        self.rounds.push(Reverse((round, at)));
    }
}

impl Turns {
    /// Goes on to the next round of a class; whether there is one.
    fn round(&mut self) -> bool {
        let Some(Reverse((_, at))) = self.rounds.pop() else { return false };
        let class = &mut self.classes[at];
        class.had += 1;
        self.now = class.start..class.end;
        // Of a class the first have the larger rests, so nobody has turns left when the first has none.
        if self.left[usize::from(self.members[class.start])] > 1 {
            self.enqueue(at);
        }
        true
    }

    /// Takes a turn of a member's, if it has one left.
    fn take(left: &mut [u32], member: u16) -> bool {
        let left = &mut left[usize::from(member)];
        let any = *left > 0;
        *left -= u32::from(any);
        any
    }
}

impl Iterator for Turns {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        loop {
            for at in self.now.by_ref() {
                let member = self.members[at];
                if Self::take(&mut self.left, member) {
                    return Some(member);
                }
            }
            if !self.round() {
                return None;
            }
        }
    }

    /// What large tables are filled by: a round is a loop of its own.
    fn fold<B, F: FnMut(B, u16) -> B>(mut self, first: B, mut f: F) -> B {
        let mut last = first;
        loop {
            for &member in &self.members[self.now.clone()] {
                if Self::take(&mut self.left, member) {
                    last = f(last, member);
                }
            }
            if !self.round() {
                return last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_weights_take_plain_turns() {
        let turns: Vec<u16> = Turns::new(&[3, 0, 3, 3], 8).collect();
        assert_eq!(turns, [0, 2, 3, 0, 2, 3, 0, 2]);
        assert_eq!(
            Turns::new(&[0, 0], 8).count() + Turns::new(&[], 8).count() + Turns::new(&[1], 0).count(),
            0
        );
    }

    #[test]
    fn turns_are_spread() {
        let turns: Vec<u16> = Turns::new(&[1, 4, 1], 12).collect();
        assert_eq!(turns, [1, 1, 1, 0, 2, 1, 1, 1, 1, 0, 2, 1]);
    }

    proptest! {
        /// Whatever the ratios, nobody is a whole turn away from its worth.
        #[test]
        fn everybody_gets_a_quota(
            weights in proptest::collection::vec(prop_oneof![0u32..10, any::<u32>(), Just(1_000_000)], 1..50),
            total in 1u32..5000,
        ) {
            let sum: u64 = weights.iter().copied().map(u64::from).sum();
            prop_assume!(sum > 0);
            let quotas = quotas(&weights, total);
            prop_assert_eq!(quotas.iter().sum::<u32>(), total);
            // One by one or all at once, they are the same.
            let mut turns = Turns::new(&weights, total);
            let one_by_one: Vec<u16> = core::iter::from_fn(|| turns.next()).collect();
            let all_at_once = Turns::new(&weights, total).fold(vec![], |mut all, turn| { all.push(turn); all });
            prop_assert_eq!(one_by_one, all_at_once);
            let mut had = vec![0u32; weights.len()];
            Turns::new(&weights, total).for_each(|turn| had[usize::from(turn)] += 1);
            prop_assert_eq!(&had, &quotas);
            for (had, weight) in had.into_iter().zip(weights) {
                prop_assert!((u64::from(had) * sum).abs_diff(u64::from(total) * u64::from(weight)) < sum);
            }
        }
    }
}
