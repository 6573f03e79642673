//! A compressed multiway trie for longest-prefix match: Asai and Ohara, "Poptrie: A Compressed Trie with Population
//! Count for Fast and Scalable Software IP Routing Table Lookup" (SIGCOMM 2015), with a stride of six bits and leaf
//! compression (sections 3.1 to 3.3 there; without direct pointing, as our tables are small and a flow cache stands in
//! front).
//!
//! A node stands for six bits of the key, so it has 64 slots. A slot leads to another node (its bit in `inner` is set)
//! or ends in a leaf. Nodes under one parent stand next to each other in one array, so a child is found by counting
//! the inner slots up to its own. Leaves are pushed down: each slot that is not inner holds the longest prefix that
//! covers it. A run of slots with the same leaf is stored once: `starts` has a bit where a run begins, and a slot's
//! leaf is found by counting those.

use alloc::vec::Vec;

/// Bits of the key per node.
const STRIDE: u32 = 6;
/// The leaf of slots that no prefix covers.
const NOTHING: u32 = u32::MAX;

/// One node.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Slots with a child.
    inner: u64,
    /// Slots without a child where another leaf begins than that of the slot without a child before.
    starts: u64,
    /// Position of the first child.
    children: u32,
    /// Position of the first leaf.
    leaves: u32,
}

/// Maps a 128-bit key, left-aligned, to the position of the longest prefix that covers it. Immutable.
#[derive(Clone, Debug)]
pub(super) struct Poptrie {
    nodes: Vec<Node>,
    leaves: Vec<u32>,
}

impl Default for Poptrie {
    fn default() -> Self {
        Self::build(&[])
    }
}

impl Poptrie {
    /// Builds from prefixes: bits from the left (the rest zero) and length. They must be sorted, so that a prefix
    /// stands before those inside it, and distinct.
    pub(super) fn build(prefixes: &[(u128, u8)]) -> Self {
        debug_assert!(prefixes.is_sorted_by(|a, b| a < b));
        let mut trie = Self { nodes: Vec::new(), leaves: Vec::new() };
        trie.nodes.push(Node::default());
        trie.fill(0, 0, NOTHING, prefixes, 0);
        trie.nodes.shrink_to_fit();
        trie.leaves.shrink_to_fit();
        trie
    }

    /// The position, in the list that the trie was built from, of the longest prefix that covers `key`.
    pub(super) fn lookup(&self, key: u128) -> Option<usize> {
        let mut node = self.nodes.first()?;
        let mut rest = key;
        loop {
            let slot = first_slot(rest);
            // The bits up to and with the slot's own.
            let upto = u64::MAX >> (63 - slot);
            if node.inner & (1 << slot) == 0 {
                let rank = (node.starts & upto).count_ones();
                let leaf = *self.leaves.get((node.leaves + rank) as usize - 1)?;
                return (leaf != NOTHING).then_some(leaf as usize);
            }
            let rank = (node.inner & upto).count_ones();
            node = self.nodes.get((node.children + rank) as usize - 1)?;
            rest <<= STRIDE;
        }
    }

    /// Octets of both arrays.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.nodes) + size_of_val(&*self.leaves)
    }

    /// Fills the node at `at`, which stands for the bits from `depth` on. `inherited` is the leaf of what no prefix in
    /// the node covers; `prefixes` are those longer than `depth` (at the root, all) under the node, the first of them
    /// at `first` in the whole list. The depth of recursion is at most 22, for 128 bits.
    fn fill(&mut self, at: usize, depth: u32, inherited: u32, prefixes: &[(u128, u8)], first: u32) {
        let mut slots = [inherited; 64];
        let mut inner = 0u64;
        // Of the prefixes that reach below the node: where each slot's begin and end. A slot's are consecutive, since
        // whatever begins at the slot but ends in the node sorts before them.
        let mut below = [(0usize, 0usize); 64];
        for (position, (index, &(bits, length))) in (first..).zip(prefixes).enumerate() {
            let slot = first_slot(bits << depth) as usize;
            let length = u32::from(length);
            if length <= depth + STRIDE {
                // Sorted order paints the longer prefix over the shorter one around it.
                let width = 1usize << (depth + STRIDE - length);
                slots[slot..slot + width].fill(index);
            } else {
                if inner & (1 << slot) == 0 {
                    inner |= 1 << slot;
                    below[slot].0 = position;
                }
                below[slot].1 = position + 1;
            }
        }
        let (starts, leaves) = self.push_leaves(&slots, inner);
        let children = self.push_children(inner);
        self.nodes[at] = Node { inner, starts, children, leaves };
        let inner_slots = (0..64).filter(|slot| inner & (1 << slot) != 0);
        for (child, slot) in (children as usize..).zip(inner_slots) {
            let (begin, end) = below[slot];
            self.fill(child, depth + STRIDE, slots[slot], &prefixes[begin..end], first + count(begin));
        }
    }

    /// Stores the leaves of the slots that are not inner, equal neighbours once. Says where they begin, as a bitmap and
    /// as a position.
    fn push_leaves(&mut self, slots: &[u32; 64], inner: u64) -> (u64, u32) {
        let base = count(self.leaves.len());
        let mut starts = 0u64;
        let mut previous = None;
        for (slot, &leaf) in slots.iter().enumerate() {
            if inner & (1 << slot) == 0 && previous != Some(leaf) {
                starts |= 1 << slot;
                self.leaves.push(leaf);
                previous = Some(leaf);
            }
        }
        (starts, base)
    }

    /// Makes room for one child per inner slot and says where the first is.
    fn push_children(&mut self, inner: u64) -> u32 {
        let base = self.nodes.len();
        self.nodes.resize(base + inner.count_ones() as usize, Node::default());
        count(base)
    }
}

/// The key's first six bits.
const fn first_slot(key: u128) -> u32 {
    (key >> (128 - STRIDE)) as u32
}

/// A position as it is stored. Saturates: four thousand million entries do not fit in memory, and a lookup that misses
/// the arrays finds nothing.
fn count(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(NOTHING)
}
