//! Maglev's table by itself.

use std::hint::black_box;

use lb::maglev::{Permutation, Table};

use super::{BACKENDS, Work, plain};
use crate::work::TURN;

/// Numbers without an order.
pub(super) fn mixed(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn walks(size: u32) -> Vec<Permutation> {
    let walk = |n| Permutation::new(mixed(2 * n), mixed(2 * n + 1), size);
    (0..u64::from(BACKENDS)).map(walk).collect()
}

/// How a table is built.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// As this project does.
    InPlace,
    /// As the paper writes it, but what a backend prefers is computed when it is asked for.
    Modulo,
    /// As the paper writes it: what all backends prefer is written down, then the table is filled.
    Matrix,
}

/// Building a table of equal backends.
pub(super) struct Build {
    size: u32,
    how: How,
    walks: Vec<Permutation>,
    slots: Vec<u16>,
}

impl Build {
    pub(super) fn new(size: u32, how: How) -> Self {
        Self { size, how, walks: walks(size), slots: Vec::new() }
    }

    fn narrow(entry: Vec<i32>) -> Vec<u16> {
        entry.into_iter().map(|backend| u16::try_from(backend).expect("no entry is left out")).collect()
    }
}

impl Work for Build {
    fn operations(&self) -> u32 {
        1
    }

    fn turn(&mut self) {
        let (backends, size, walks) = (self.walks.len(), self.size, &self.walks);
        self.slots = match self.how {
            How::InPlace => {
                let weights = vec![1; backends];
                let table = Table::from_permutations(walks, &weights, size).expect("a table");
                table.slots().to_vec()
            }
            How::Modulo => {
                let m = size as usize;
                let preferred = |i: usize, j: usize| {
                    let walk = walks[i];
                    (walk.offset as usize + j * walk.skip as usize) % m
                };
                Self::narrow(plain::populate(backends, size, preferred))
            }
            How::Matrix => {
                let matrix = plain::permutation(walks, size);
                let m = size as usize;
                Self::narrow(plain::populate(backends, size, |i, j| matrix[i * m + j] as usize))
            }
        };
    }

    fn reset(&mut self) {
        // However it is built, it is the same table.
        let table =
            Table::from_permutations(&self.walks, &vec![1; self.walks.len()], self.size).expect("a table");
        assert!(table.slots() == self.slots);
    }
}

/// Selecting from a table, by hashes in no order.
pub(super) struct Lookup {
    table: Table,
    next: u64,
}

impl Lookup {
    pub(super) fn new(size: u32) -> Self {
        let weights = vec![1; BACKENDS as usize];
        Self { table: Table::from_permutations(&walks(size), &weights, size).expect("a table"), next: 0 }
    }
}

impl Work for Lookup {
    fn turn(&mut self) {
        let mut sum = 0u64;
        for _ in 0..TURN {
            // The upper bits of a product are as mixed as a lookup needs, and cost next to nothing.
            self.next = self.next.wrapping_add(0x9e37_79b9_7f4a_7c15);
            sum += u64::from(self.table.lookup(self.next));
        }
        black_box(sum);
    }
}
