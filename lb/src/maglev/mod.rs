//! Maglev's table: from a hash to a backend in one load, with even shares and little change when backends come and go
//! (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! # Theory of operation
//! Each backend prefers the slots in an order of its own: it begins at `offset` and goes on by `skip`, modulo the table's
//! size. The size is a prime, so that every such walk visits every slot. The backends take turns, as often as their weights say, and
//! whose turn it is takes the next slot of its walk that is still free, until none is.
//!
//! Where the paper writes all walks down before (backends times slots numbers), here a walk is two numbers that step in
//! place, by an addition and a subtraction; and which slots are taken is a bit each, so that what the search touches
//! stays in the first or second cache. The slots are as large as a backend's number needs, 16 bits.
//!
//! Who removes a backend moves its slots, and a few of others': these took their places in another order.

#[cfg(test)]
mod golden_tests;
mod size;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

pub use size::{LARGEST, SIZES, size_for};

use crate::weights::Turns;

/// The order in which a backend prefers slots: it begins at `offset` and goes on by `skip`, modulo the table's size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Permutation {
    /// Where it begins: below the table's size.
    pub offset: u32,
    /// How far it goes each time: at least 1 and below the table's size.
    pub skip: u32,
}

impl Permutation {
    /// From two independent, well mixed numbers of the backend, for a table of `size` slots.
    pub fn new(first: u64, second: u64, size: u32) -> Self {
        let size = u64::from(size).max(2);
        // Both are below the size, which has 32 bits.
        let narrow = |n: u64| u32::try_from(n).unwrap_or(0);
        Self { offset: narrow(first % size), skip: narrow(second % (size - 1)) + 1 }
    }
}

/// Slots, each with the number of a backend.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    slots: Box<[u16]>,
}

impl Table {
    /// The most backends that a table can tell apart.
    pub const MOST_BACKENDS: usize = u16::MAX as usize;

    /// The table of `size` slots in which the n-th backend prefers slots in the n-th order, and has as many as its weight
    /// is worth: less than one slot more or less than `size * weight / sum of the weights`, so that with a weight of less
    /// than a slot's worth it may have none. With weight 0 it has none. Backends take turns in the order given.
    pub fn from_permutations(
        permutations: &[Permutation],
        weights: &[u32],
        size: u32,
    ) -> Result<Self, TableError> {
        check(permutations, weights, size)?;
        Ok(Self { slots: fill(permutations, size, Turns::new(weights, size)) })
    }

    /// The number of the backend for a hash, which must be well mixed, like [`crate::hash::FlowHash`]'s.
    pub fn lookup(&self, hash: u64) -> u16 {
        // The hash as a fraction of the table: as even as the remainder of a division, and far cheaper.
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        self.slots[usize::try_from(slot).unwrap_or(0)]
    }

    /// The number of the backend in each slot.
    pub fn slots(&self) -> &[u16] {
        &self.slots
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} slots)", self.slots.len())
    }
}

fn check(permutations: &[Permutation], weights: &[u32], size: u32) -> Result<(), TableError> {
    let backends = weights.iter().filter(|weight| **weight > 0).count();
    if permutations.len() != weights.len() {
        return Err(TableError::Lengths { permutations: permutations.len(), weights: weights.len() });
    }
    check_size(size)?;
    if permutations.len() > Table::MOST_BACKENDS {
        return Err(TableError::TooManyBackends { backends: permutations.len() });
    }
    if backends == 0 {
        return Err(TableError::NoBackend);
    }
    if backends > size as usize {
        return Err(TableError::TooSmall { size, backends });
    }
    match permutations.iter().position(|p| p.offset >= size || p.skip == 0 || p.skip >= size) {
        Some(backend) => Err(TableError::Permutation { backend, size }),
        None => Ok(()),
    }
}

/// Whether a table can have so many slots.
pub(crate) fn check_size(size: u32) -> Result<(), TableError> {
    match size {
        0 => Err(TableError::Zero),
        size if size > LARGEST => Err(TableError::TooLarge { size }),
        size if !size::is_prime(size) => Err(TableError::NotPrime { size, next: size::next_prime(size) }),
        _ => Ok(()),
    }
}

/// Lets whose turn it is take its next free slot. There are as many turns as slots.
fn fill(permutations: &[Permutation], size: u32, turns: impl Iterator<Item = u16>) -> Box<[u16]> {
    let mut slots = vec![0; size as usize].into_boxed_slice();
    let mut taken = vec![0u64; size as usize / 64 + 1];
    let mut walks: Vec<Permutation> = permutations.to_vec();
    turns.for_each(|turn| {
        let walk = &mut walks[usize::from(turn)];
        let (mut at, skip) = (walk.offset, walk.skip);
        // One of the two is below the size, the other wraps around or goes beyond: no branch to guess.
        let step = |at: u32| (at + skip).min((at + skip).wrapping_sub(size));
        let mut word = taken[(at / 64) as usize];
        while (word >> (at % 64)) & 1 != 0 {
            at = step(at);
            word = taken[(at / 64) as usize];
        }
        // Not a shift: the compiler would do it at every step, for the test above too.
        taken[(at / 64) as usize] = word | 1u64.rotate_left(at % 64);
        slots[at as usize] = turn;
        walk.offset = step(at);
    });
    slots
}

/// Why there is no such table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TableError {
    /// The size is 0.
    Zero,
    /// The size is not a prime.
    NotPrime {
        /// The size.
        size: u32,
        /// The first prime above.
        next: u32,
    },
    /// The size is more than [`LARGEST`].
    TooLarge {
        /// The size.
        size: u32,
    },
    /// There are fewer slots than backends.
    TooSmall {
        /// The size.
        size: u32,
        /// Backends with a weight above 0.
        backends: usize,
    },
    /// There are more backends than [`Table::MOST_BACKENDS`].
    TooManyBackends {
        /// How many.
        backends: usize,
    },
    /// No backend has a weight above 0.
    NoBackend,
    /// There are not as many weights as permutations.
    Lengths {
        /// How many permutations.
        permutations: usize,
        /// How many weights.
        weights: usize,
    },
    /// A permutation is not one of the table's slots.
    Permutation {
        /// Whose.
        backend: usize,
        /// The table's size.
        size: u32,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => write!(f, "a table of 0 slots holds no backend: take a prime such as 16381"),
            Self::NotPrime { size, next } => {
                write!(f, "table size {size} is not a prime: the next prime is {next}")
            }
            Self::TooLarge { size } => write!(f, "table size {size} is too large: at most {LARGEST}"),
            Self::TooSmall { size, backends } => {
                let wanted = size_for(*backends);
                write!(
                    f,
                    "table size {size} is too small for {backends} backends: {wanted} keeps their shares even"
                )
            }
            Self::TooManyBackends { backends } => {
                write!(f, "{backends} backends are too many for one table: at most {}", Table::MOST_BACKENDS)
            }
            Self::NoBackend => write!(f, "no backend has a weight above 0"),
            Self::Lengths { permutations, weights } => {
                write!(f, "{permutations} permutations and {weights} weights: each backend needs one of each")
            }
            Self::Permutation { backend, size } => write!(
                f,
                "backend {backend}: its offset must be below {size}, and its skip at least 1 and below {size}"
            ),
        }
    }
}

impl core::error::Error for TableError {}
