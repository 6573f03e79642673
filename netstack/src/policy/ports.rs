//! Which of some rules is the first to name what is asked for.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::rule::{PortMatch, PortName, Ports};
use super::{NamedPort, Peer};

/// The last number that [`Asked::key`] can be.
const LAST: u32 = 0x00ff_ffff;

/// What a connection asks for, and the station that is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) protocol: u8,
    pub(super) port: u16,
    /// It knows the names of its ports; none if it is not known.
    pub(super) of: Option<&'a Peer>,
}

impl Asked<'_> {
    const fn key(&self) -> u32 {
        key(self.protocol, self.port)
    }

    /// What the station calls the port.
    fn names(&self) -> impl Iterator<Item = PortName> {
        let here = |named: &&NamedPort| (named.protocol, named.number) == (self.protocol, self.port);
        self.of.iter().flat_map(|peer| peer.ports.iter()).filter(here).map(|named| named.name)
    }
}

const fn key(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// Ports that one rule is the first to name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    first: u32,
    last: u32,
    rank: u32,
}

/// See the module. A rule is its rank: the first is 0.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct PortTable {
    /// In order, none overlapping another.
    spans: Box<[Span]>,
    named: Box<[((u8, PortName), u32)]>,
}

impl PortTable {
    pub(super) fn build<'a>(rules: impl Iterator<Item = (u32, &'a Ports)>) -> Self {
        let (mut wanted, mut named) = (Vec::new(), BTreeMap::new());
        for (rank, ports) in rules {
            let Ports::These(ports) = ports else {
                wanted.push(Span { first: 0, last: LAST, rank });
                continue;
            };
            for port in ports {
                match *port {
                    PortMatch::Protocol(protocol) => {
                        let (first, last) = (key(protocol, 0), key(protocol, u16::MAX));
                        wanted.push(Span { first, last, rank });
                    }
                    PortMatch::Range { protocol, first, last } if first <= last => {
                        let (first, last) = (key(protocol, first), key(protocol, last));
                        wanted.push(Span { first, last, rank });
                    }
                    PortMatch::Range { .. } => {}
                    PortMatch::Named { protocol, name } => {
                        let first = named.entry((protocol, name)).or_insert(rank);
                        *first = rank.min(*first);
                    }
                }
            }
        }
        Self { spans: apart(wanted), named: named.into_iter().collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.named.is_empty()
    }

    /// The rank of the first rule that names what is asked for.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<u32> {
        let key = asked.key();
        let at = self.spans.partition_point(|span| span.last < key);
        let numbered = self.spans.get(at).filter(|span| span.first <= key).map(|span| span.rank);
        if self.named.is_empty() {
            return numbered;
        }
        let named = asked.names().filter_map(|name| {
            let at = self.named.binary_search_by_key(&(asked.protocol, name), |(key, _)| *key).ok()?;
            Some(self.named.get(at)?.1)
        });
        named.chain(numbered).min()
    }
}

/// Cuts spans where they overlap, so that of each port the first rule alone is left.
fn apart(mut wanted: Vec<Span>) -> Box<[Span]> {
    wanted.sort_unstable_by_key(|span| span.first);
    let ends = wanted.iter().flat_map(|span| [span.first, span.last + 1]);
    let points: BTreeSet<u32> = ends.collect();
    let mut spans: Vec<Span> = Vec::new();
    let (mut open, mut coming) = (BTreeSet::new(), wanted.iter().peekable());
    for (&first, &end) in points.iter().zip(points.iter().skip(1)) {
        while let Some(span) = coming.next_if(|span| span.first <= first) {
            open.insert((span.rank, span.last));
        }
        while open.first().is_some_and(|&(_, last)| last < first) {
            open.pop_first();
        }
        let Some(&(rank, _)) = open.first() else { continue };
        match spans.last_mut() {
            Some(before) if before.rank == rank && before.last + 1 == first => before.last = end - 1,
            Some(_) | None => spans.push(Span { first, last: end - 1, rank }),
        }
    }
    spans.into_boxed_slice()
}
