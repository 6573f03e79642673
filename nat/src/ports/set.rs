//! Sets of ports, in which the next member is found by a few word operations however many are missing.
//!
//! # Theory of operation
//! A bit for each of the 65,536 ports, in 1,024 words; above them one bit for each word, kept twice: for words with an even
//! member and for words with an odd one. So "the first odd member at or after 40,000" looks at one word, at no more than 16
//! words of the upper level, and at one word again. A member at random is drawn among all of a range a few times over, which
//! is uniform; only if all those miss, in a set that is nearly empty there, the next member after the last draw is taken.

use alloc::boxed::Box;
use core::fmt;
use core::ops::RangeInclusive;

use super::draws::Draws;

/// Draws before the next member is taken instead. A set that holds half of a range is missed by all of them once in 65,536
/// times, one that holds a tenth, once in five.
const DRAWS: u32 = 16;

const WORDS: u16 = 1024;
const GROUPS: u16 = WORDS / 64;

/// Consecutive ports, empty if `first` is above `last`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// What lies in both.
    #[inline]
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// Whether `port` lies in it.
    #[inline]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports it has.
    #[inline]
    #[must_use]
    pub const fn len(self) -> u32 {
        if self.is_empty() { 0 } else { (self.last - self.first) as u32 + 1 }
    }

    /// Whether it has none.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.first > self.last
    }
}

impl From<RangeInclusive<u16>> for PortRange {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }
}

/// Which ports count: all, or every other one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Parity {
    Any,
    Even,
    Odd,
}

impl Parity {
    pub(super) const fn of(port: u16) -> Self {
        if port.is_multiple_of(2) { Self::Even } else { Self::Odd }
    }

    pub(super) fn admits(self, port: u16) -> bool {
        self == Self::Any || self == Self::of(port)
    }

    const fn mask(self) -> u64 {
        match self {
            Self::Any => u64::MAX,
            Self::Even => 0x5555_5555_5555_5555,
            Self::Odd => 0xaaaa_aaaa_aaaa_aaaa,
        }
    }
}

/// A set of ports; 8.3 KiB, whatever it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct PortSet {
    words: Box<[u64; WORDS as usize]>,
    /// Words with an even member, words with an odd one.
    groups: Box<[[u64; GROUPS as usize]; 2]>,
    len: u32,
}

impl PortSet {
    /// Bytes allocated.
    pub(super) const MEMORY: usize = (WORDS as usize + 2 * GROUPS as usize) * size_of::<u64>();

    /// No port.
    pub fn new() -> Self {
        Self { words: Box::new([0; WORDS as usize]), groups: Box::default(), len: 0 }
    }

    /// All ports of `range`.
    pub fn range(range: impl Into<PortRange>) -> Self {
        let mut set = Self::new();
        set.insert_range(range);
        set
    }

    /// The same set with the ports of `range`.
    #[must_use]
    pub fn with(mut self, range: impl Into<PortRange>) -> Self {
        self.insert_range(range);
        self
    }

    /// The same set but for the ports of `range`: node ports, or what local sockets use.
    #[must_use]
    pub fn without(mut self, range: impl Into<PortRange>) -> Self {
        self.change(range.into(), |word, mask| word & !mask);
        self
    }

    fn insert_range(&mut self, range: impl Into<PortRange>) {
        self.change(range.into(), |word, mask| word | mask);
    }

    /// Changes the members of a range, a word at a time: a pool is made from 65,536 of them.
    fn change(&mut self, range: PortRange, change: impl Fn(u64, u64) -> u64) {
        if range.is_empty() {
            return;
        }
        for word in range.first / 64..=range.last / 64 {
            let within = range.intersection(PortRange { first: word * 64, last: word * 64 + 63 });
            let mask = u64::MAX >> (64 - within.len()) << (within.first % 64);
            let members = &mut self.words[usize::from(word)];
            self.len -= members.count_ones();
            *members = change(*members, mask);
            self.len += members.count_ones();
            for (group, parity) in self.groups.iter_mut().zip([Parity::Even, Parity::Odd]) {
                let bit = 1 << (word % 64);
                let group = &mut group[usize::from(word / 64)];
                *group = if *members & parity.mask() == 0 { *group & !bit } else { *group | bit };
            }
        }
    }

    /// How many ports it holds.
    #[inline]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds `port`.
    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port / 64)] & (1 << (port % 64)) != 0
    }

    /// Adds a port; false if it was there.
    pub fn insert(&mut self, port: u16) -> bool {
        if self.contains(port) {
            return false;
        }
        let word = port / 64;
        self.words[usize::from(word)] |= 1 << (port % 64);
        self.groups[usize::from(port % 2)][usize::from(word / 64)] |= 1 << (word % 64);
        self.len += 1;
        true
    }

    /// Removes a port; false if it was not there.
    pub fn remove(&mut self, port: u16) -> bool {
        if !self.contains(port) {
            return false;
        }
        let word = port / 64;
        self.words[usize::from(word)] &= !(1 << (port % 64));
        if self.words[usize::from(word)] & Parity::of(port).mask() == 0 {
            self.groups[usize::from(port % 2)][usize::from(word / 64)] &= !(1 << (word % 64));
        }
        self.len -= 1;
        true
    }

    /// The lowest member in `range`.
    pub(super) fn first(&self, range: PortRange, parity: Parity) -> Option<u16> {
        if range.is_empty() {
            return None;
        }
        let word = range.first / 64;
        let rest = self.words[usize::from(word)] & parity.mask() & (u64::MAX << (range.first % 64));
        let port = if rest == 0 {
            let word = self.next_word(word + 1, parity)?;
            word * 64 + lowest_bit(self.words[usize::from(word)] & parity.mask())
        } else {
            word * 64 + lowest_bit(rest)
        };
        (port <= range.last).then_some(port)
    }

    /// From the lowest member to the highest.
    pub(super) fn span(&self) -> PortRange {
        let word = (0..WORDS).rev().find(|&word| self.words[usize::from(word)] != 0).unwrap_or(0);
        let last = (word * 64..=word * 64 + 63).rev().find(|&port| self.contains(port));
        let ends = self.first(PortRange::ALL, Parity::Any).zip(last);
        ends.map_or(PortRange { first: 1, last: 0 }, |(first, last)| PortRange { first, last })
    }

    /// The lowest member of `range` at or after `start`, else the lowest of all.
    pub(super) fn first_from(&self, start: u16, range: PortRange, parity: Parity) -> Option<u16> {
        self.first(PortRange { first: start.max(range.first), last: range.last }, parity)
            .or_else(|| self.first(range, parity))
    }

    /// A member of `range` at random.
    pub(super) fn pick(&self, range: PortRange, parity: Parity, draws: &mut Draws) -> Option<u16> {
        let (first, step) = match parity {
            Parity::Any => (u32::from(range.first), 1),
            Parity::Even => (u32::from(range.first).next_multiple_of(2), 2),
            Parity::Odd => (u32::from(range.first) | 1, 2),
        };
        let count = (u32::from(range.last) + step).checked_sub(first)? / step;
        if count == 0 || self.is_empty() {
            return None;
        }
        let mut start = range.first;
        for _ in 0..DRAWS {
            start = u16::try_from(first + step * draws.below(count)).unwrap_or(range.last);
            if self.contains(start) {
                return Some(start);
            }
        }
        self.first_from(start, range, parity)
    }

    /// The first word at or after `start` with a member.
    fn next_word(&self, start: u16, parity: Parity) -> Option<u16> {
        let [even, odd] = &*self.groups;
        let mut mask = u64::MAX << (start % 64);
        for group in start / 64..GROUPS {
            let (even, odd) = (even[usize::from(group)], odd[usize::from(group)]);
            let words = mask
                & match parity {
                    Parity::Any => even | odd,
                    Parity::Even => even,
                    Parity::Odd => odd,
                };
            if words != 0 {
                return Some(group * 64 + lowest_bit(words));
            }
            mask = u64::MAX;
        }
        None
    }
}

/// Of a word that is not 0.
const fn lowest_bit(word: u64) -> u16 {
    (word.trailing_zeros() & 63) as u16
}

impl Default for PortSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortSet").field("len", &self.len).finish_non_exhaustive()
    }
}
