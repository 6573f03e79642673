//! Datagrams of pods that come in fragments.
//!
//! # Theory of operation
//! Sockets take whole datagrams, so what pods have cut is put together here. A datagram whose fragments overlap is given up
//! (RFC 5722 section 4; no honest sender makes such), but one that comes twice is taken once. So many datagrams may be
//! unfinished at a time, each for so long; the oldest makes room.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use netstack::parse::{Fragment, Ip};

use super::config::{EdgeCounters, EdgeDrop};

/// The longest that an upper layer can be.
const LONGEST: usize = 65_535;

/// What fragments of one datagram have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Name {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

#[derive(Debug)]
struct Partial {
    name: Name,
    until: Duration,
    octets: Vec<u8>,
    /// What of `octets` has come, in no order: from, to.
    come: Vec<(usize, usize)>,
    /// How long it is, once the last fragment has come.
    length: Option<usize>,
    /// It has come twice, and not the same: whatever else comes is let fall with it.
    spoilt: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reassembly {
    /// The oldest first.
    partial: VecDeque<Partial>,
    most: usize,
    patience: Duration,
}

impl Reassembly {
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        Self { partial: VecDeque::new(), most: most.max(1), patience }
    }

    /// When the oldest is given up.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.partial.front().map(|partial| partial.until)
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, now: Duration, counters: &mut EdgeCounters) {
        while self.partial.front().is_some_and(|partial| partial.until <= now) {
            self.partial.pop_front();
            counters.drop(EdgeDrop::Fragments);
        }
    }

    /// Takes in a fragment, and hands out the upper layer's octets if it was the last that was missing.
    pub(super) fn take(
        &mut self,
        now: Duration,
        ip: &Ip,
        fragment: Fragment,
        octets: &[u8],
        counters: &mut EdgeCounters,
    ) -> Option<Vec<u8>> {
        let name =
            Name { source: ip.source, destination: ip.destination, protocol: ip.protocol, id: fragment.id };
        let at = self.partial.iter().position(|partial| partial.name == name).unwrap_or_else(|| {
            if self.partial.len() >= self.most {
                self.partial.pop_front();
                counters.drop(EdgeDrop::Fragments);
            }
            let until = now + self.patience;
            let (octets, come) = (Vec::new(), Vec::new());
            self.partial.push_back(Partial { name, until, octets, come, length: None, spoilt: false });
            self.partial.len() - 1
        });
        let partial = self.partial.get_mut(at)?;
        partial.add(usize::from(fragment.offset), octets, fragment.more);
        if !partial.is_whole() {
            return None;
        }
        self.partial.remove(at).map(|partial| partial.octets)
    }
}

impl Partial {
    fn add(&mut self, from: usize, octets: &[u8], more: bool) {
        let to = from + octets.len();
        if self.spoilt || self.come.contains(&(from, to)) {
            return;
        }
        let overlaps = self.come.iter().any(|&(other_from, other_to)| from < other_to && other_from < to);
        let beyond = to > LONGEST || self.length.is_some_and(|length| to > length || !more);
        let short_of = !more && self.come.iter().any(|&(_, other_to)| other_to > to);
        // All but the last are a multiple of eight octets long, or the next would have no place.
        if overlaps || beyond || short_of || (more && !octets.len().is_multiple_of(8)) || octets.is_empty() {
            self.spoilt = true;
            (self.octets, self.come) = (Vec::new(), Vec::new());
            return;
        }
        if self.octets.len() < to {
            self.octets.resize(to, 0);
        }
        self.octets[from..to].copy_from_slice(octets);
        self.come.push((from, to));
        if !more {
            self.length = Some(to);
        }
    }

    fn is_whole(&self) -> bool {
        let come: usize = self.come.iter().map(|(from, to)| to - from).sum();
        !self.spoilt && self.length == Some(come)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netstack::parse::Transport;
    use proptest::prelude::*;

    fn ip() -> Ip {
        Ip {
            source: "10.0.0.1".parse().unwrap(),
            destination: "198.51.100.1".parse().unwrap(),
            offset: 14,
            transport_offset: 34,
            end: 34,
            hop_limit: 64,
            protocol: 17,
            dont_fragment: false,
            fragment: None,
            source_route: false,
            option_problem: None,
            transport: Transport::Opaque,
        }
    }

    /// The fragments of `octets`, each with its offset and whether more follow.
    fn cut(octets: &[u8], size: usize) -> Vec<(u16, bool, Vec<u8>)> {
        let pieces = octets.chunks(size).enumerate();
        pieces
            .map(|(at, piece)| {
                (u16::try_from(at * size).unwrap(), (at + 1) * size < octets.len(), piece.to_vec())
            })
            .collect()
    }

    fn take(all: &mut Reassembly, now: u64, id: u32, piece: &(u16, bool, Vec<u8>)) -> Option<Vec<u8>> {
        let fragment = Fragment { offset: piece.0, more: piece.1, id };
        all.take(Duration::from_secs(now), &ip(), fragment, &piece.2, &mut EdgeCounters::default())
    }

    proptest! {
        #[test]
        fn whatever_order_fragments_come_in_the_datagram_is_what_was_cut(
            length in 1..65_507usize,
            units in 1..190usize,
            order in any::<u64>(),
            twice in any::<bool>(),
        ) {
            let octets: Vec<u8> = (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
            let mut pieces = cut(&octets, units * 8);
            let mut rng = netstack::seed::Seed::from_u64(order).rng("order");
            for at in (1..pieces.len()).rev() {
                pieces.swap(at, rng.below(u32::try_from(at + 1).unwrap()) as usize);
            }
            let mut all = Reassembly::new(4, Duration::from_secs(30));
            let (last, before) = pieces.split_last().unwrap();
            for piece in before {
                prop_assert_eq!(take(&mut all, 0, 7, piece), None);
                if twice {
                    prop_assert_eq!(take(&mut all, 0, 7, piece), None);
                }
            }
            prop_assert_eq!(take(&mut all, 0, 7, last), Some(octets));
            prop_assert_eq!(all.next_due(), None);
        }
    }

    #[test]
    fn fragments_that_overlap_spoil_the_datagram() {
        let mut all = Reassembly::new(4, Duration::from_secs(30));
        assert_eq!(take(&mut all, 0, 1, &(0, true, vec![1; 16])), None);
        assert_eq!(take(&mut all, 0, 1, &(8, false, vec![2; 16])), None);
        assert_eq!(take(&mut all, 0, 1, &(16, false, vec![3; 8])), None);
        // Behind the end there is nothing.
        assert_eq!(take(&mut all, 0, 2, &(8, false, vec![2; 8])), None);
        assert_eq!(take(&mut all, 0, 2, &(16, true, vec![2; 8])), None);
        assert_eq!(take(&mut all, 0, 2, &(0, true, vec![2; 8])), None);
    }

    #[test]
    fn the_oldest_makes_room_and_none_waits_for_ever() {
        let mut counters = EdgeCounters::default();
        let mut all = Reassembly::new(2, Duration::from_secs(30));
        for id in 0..3 {
            assert_eq!(take(&mut all, u64::from(id), id, &(0, true, vec![1; 8])), None);
        }
        assert_eq!(take(&mut all, 3, 0, &(8, false, vec![1; 8])), None, "it made room");
        assert_eq!(take(&mut all, 3, 2, &(8, false, vec![1; 8])), Some(vec![1; 16]));
        assert_eq!(all.next_due(), Some(Duration::from_secs(33)));
        all.expire(Duration::from_secs(33), &mut counters);
        assert_eq!((all.next_due(), counters.dropped(EdgeDrop::Fragments)), (None, 1));
    }
}
