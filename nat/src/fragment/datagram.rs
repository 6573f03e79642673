//! What is known of one datagram.

use core::time::Duration;

use super::Refusal;
use super::part::{Key, Part};
use super::slab::NONE;

/// Octets that have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Range {
    start: u16,
    end: u16,
}

/// What its fragments are told.
#[derive(Clone, Copy, Debug)]
pub(super) enum State<V> {
    /// The first fragment has not come, or is being looked at.
    Waiting,
    Known(V),
    Refused(Refusal),
}

#[derive(Debug)]
pub(super) struct Datagram<A, V> {
    pub(super) key: Key<A>,
    pub(super) state: State<V>,
    pub(super) deadline: Duration,
    /// The next datagram of the same bucket.
    pub(super) chain: u32,
    /// The datagrams before and after it, by deadline.
    pub(super) older: u32,
    pub(super) newer: u32,
    /// First and last of its parked fragments.
    pub(super) parked: [u32; 2],
    /// How many ranges there are, and octets in them.
    count: u16,
    received: u16,
    /// Where it ends, once the last fragment has come.
    total: Option<u16>,
}

impl<A, V> Datagram<A, V> {
    pub(super) fn new(key: Key<A>, deadline: Duration) -> Self {
        Self {
            key,
            state: State::Waiting,
            deadline,
            chain: NONE,
            older: NONE,
            newer: NONE,
            parked: [NONE; 2],
            count: 0,
            received: 0,
            total: None,
        }
    }

    /// Whether all of it has come.
    pub(super) fn is_complete(&self) -> bool {
        // Ranges do not overlap, so counting is enough.
        self.total == Some(self.received)
    }

    /// Records a fragment among the `ranges` of this datagram. Of a refused one nothing is recorded.
    pub(super) fn record(&mut self, part: &Part<A>, ranges: &mut [Range]) -> Result<(), Refusal> {
        let new = Range { start: part.start, end: part.end? };
        let seen = &ranges[..usize::from(self.count)];
        let is_contradicted = match (part.more, self.total) {
            (true, total) => total.is_some_and(|total| new.end >= total),
            (false, Some(total)) => new.end != total,
            (false, None) => seen.iter().any(|range| range.end >= new.end),
        };
        if is_contradicted {
            return Err(Refusal::Length);
        }
        if seen.contains(&new) {
            return Err(Refusal::Duplicate);
        }
        if seen.iter().any(|range| range.start < new.end && new.start < range.end) {
            return Err(Refusal::Overlap);
        }
        *ranges.get_mut(usize::from(self.count)).ok_or(Refusal::Count)? = new;
        self.count += 1;
        self.received += new.end - new.start;
        if !part.more {
            self.total = Some(new.end);
        }
        Ok(())
    }
}
