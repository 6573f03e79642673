//! Which of some rules is the first to name an address by its prefix.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::ports::{Asked, PortTable};
use super::rule::{Block, Ports};

/// From an address on, as a number, up to the next: what rules say, if any says something.
type Step = (u128, Option<u32>);

/// See the module. Addresses of a family lie on a line, which prefixes cut into pieces: all addresses of a piece are in the
/// same blocks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct BlockTable {
    v4: Box<[Step]>,
    v6: Box<[Step]>,
    tables: Box<[PortTable]>,
}

/// Addresses of a block that nothing cuts, and the block's number.
struct Piece {
    first: u128,
    /// None for the last address there is.
    end: Option<u128>,
    block: usize,
}

impl BlockTable {
    /// Of blocks with the rank of their rule and the ports that it names.
    pub(super) fn build(blocks: &[(u32, &Ports, &Block)]) -> Self {
        let kinds = kinds(blocks);
        let (mut tables, mut numbers) = (Vec::new(), BTreeMap::new());
        let mut number = |first: Vec<usize>| {
            if first.is_empty() {
                return None;
            }
            let number = numbers.entry(first).or_insert_with_key(|first| {
                let rules =
                    first.iter().filter_map(|&at| blocks.get(at)).map(|&(rank, ports, _)| (rank, ports));
                tables.push(PortTable::build(rules));
                u32::try_from(tables.len() - 1).unwrap_or(u32::MAX)
            });
            Some(*number)
        };
        let mut steps = |v4: bool| {
            let mine =
                blocks.iter().enumerate().filter(|(_, (_, _, block))| block.net.addr().is_ipv4() == v4);
            line(mine.flat_map(|(at, (_, _, block))| pieces(at, block)).collect(), &kinds, &mut number)
        };
        let (v4, v6) = (steps(true), steps(false));
        Self { v4, v6, tables: tables.into() }
    }

    /// The rank of the first rule that names the address and what is asked for.
    pub(super) fn find(&self, address: IpAddr, asked: &Asked<'_>) -> Option<u32> {
        let steps = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let key = key(address);
        let at = steps.partition_point(|(first, _)| *first <= key).checked_sub(1)?;
        let table = steps.get(at)?.1?;
        self.tables.get(usize::try_from(table).ok()?)?.find(asked)
    }
}

/// Blocks of one kind name the same ports, so that of those that an address is in the first alone says something.
fn kinds(blocks: &[(u32, &Ports, &Block)]) -> Vec<usize> {
    let mut known: HashMap<&Ports, usize, FixedState> = HashMap::default();
    let mut kind = |ports| {
        let next = known.len();
        *known.entry(ports).or_insert(next)
    };
    blocks.iter().map(|&(_, ports, _)| kind(ports)).collect()
}

/// The steps of a line that these pieces lie on.
fn line(
    mut pieces: Vec<Piece>,
    kinds: &[usize],
    number: &mut impl FnMut(Vec<usize>) -> Option<u32>,
) -> Box<[Step]> {
    let kind = |block: usize| kinds.get(block).copied().unwrap_or_default();
    pieces.sort_unstable_by_key(|piece| piece.first);
    let points: BTreeSet<u128> =
        pieces.iter().flat_map(|piece| [Some(piece.first), piece.end]).flatten().collect();
    let mut ends: BTreeMap<u128, Vec<usize>> = BTreeMap::new();
    for piece in &pieces {
        if let Some(end) = piece.end {
            ends.entry(end).or_default().push(piece.block);
        }
    }
    let mut open: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    let mut coming = pieces.iter().peekable();
    let mut steps: Vec<Step> = Vec::new();
    for point in points {
        for block in ends.get(&point).into_iter().flatten() {
            let of = kind(*block);
            if let Some(alike) = open.get_mut(&of) {
                alike.remove(block);
                if alike.is_empty() {
                    open.remove(&of);
                }
            }
        }
        while let Some(piece) = coming.next_if(|piece| piece.first == point) {
            open.entry(kind(piece.block)).or_default().insert(piece.block);
        }
        // Blocks are in the order of their rules.
        let said = number(open.values().filter_map(|alike| alike.first().copied()).collect());
        if steps.last().is_none_or(|(_, before)| *before != said) {
            steps.push((point, said));
        }
    }
    steps.into()
}

/// What is left of a block without its exceptions.
fn pieces(block: usize, Block { net, except }: &Block) -> Vec<Piece> {
    let last = key(net.broadcast());
    let mut holes: Vec<(u128, u128)> = except
        .iter()
        .filter(|hole| net.contains(*hole))
        .map(|hole| (key(hole.network()), key(hole.broadcast())))
        .collect();
    holes.sort_unstable();
    let (mut pieces, mut next) = (Vec::new(), Some(key(net.network())));
    for (from, to) in holes {
        let Some(first) = next else { break };
        if first < from {
            pieces.push(Piece { first, end: Some(from), block });
        }
        next = to.max(first.saturating_sub(1)).checked_add(1);
    }
    if let Some(first) = next.filter(|first| *first <= last) {
        pieces.push(Piece { first, end: last.checked_add(1), block });
    }
    pieces
}

fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
