//! When a router advertises itself (RFC 4861 section 6.2).
//!
//! # Theory of operation
//! Each advertising segment has one deadline, for its next advertisement to all nodes. The first three follow each other
//! at 16 seconds at most, the others at a random time between the two intervals that the configuration names. A
//! solicitation moves the deadline nearer, to a random moment within half a second, but never closer than three seconds
//! to the last advertisement: whatever the number of solicitations, they cost one advertisement in three seconds.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::addr::SegmentId;
use crate::seed::{Rng, Seed};

/// RFC 4861 section 10: router constants.
const MAX_INITIAL_INTERVAL: Duration = Duration::from_secs(16);
const MAX_INITIAL_ADVERTISEMENTS: u8 = 3;
const MIN_DELAY_BETWEEN: Duration = Duration::from_secs(3);
const MAX_RA_DELAY: Duration = Duration::from_millis(500);

/// The segments that are advertised on.
#[derive(Debug)]
pub struct Advertiser {
    segments: BTreeMap<SegmentId, Schedule>,
    next: Option<Duration>,
    rng: Rng,
}

#[derive(Clone, Copy, Debug)]
struct Schedule {
    min: Duration,
    max: Duration,
    next: Duration,
    last: Option<Duration>,
    /// Advertisements sent, up to those that count as initial.
    sent: u8,
}

impl Advertiser {
    /// Advertises nowhere.
    pub fn new(seed: &Seed) -> Self {
        Self { segments: BTreeMap::new(), next: None, rng: seed.rng("router advertisements") }
    }

    /// Starts over on a segment, with these intervals in seconds; the first advertisement is due as soon as time is told.
    pub fn begin(&mut self, segment: SegmentId, min: u16, max: u16) {
        let [min, max] = [min, max].map(|s| Duration::from_secs(s.into()));
        let last = self.segments.get(&segment).and_then(|s| s.last);
        // Not sooner than the last one allows, if there was one.
        let next = last.map_or(Duration::ZERO, |last| last.saturating_add(MIN_DELAY_BETWEEN));
        self.segments.insert(segment, Schedule { min, max, next, last, sent: 0 });
        self.note_next();
    }

    /// Stops on a segment; says whether anything had been advertised there.
    pub fn end(&mut self, segment: SegmentId) -> bool {
        let told = self.segments.remove(&segment).is_some_and(|s| s.last.is_some());
        self.note_next();
        told
    }

    /// A router solicitation was heard on a segment.
    pub fn solicited(&mut self, now: Duration, segment: SegmentId) {
        let delay = MAX_RA_DELAY * self.rng.below(1025) / 1024;
        let Some(schedule) = self.segments.get_mut(&segment) else { return };
        let allowed = schedule.last.map_or(now, |last| now.max(last.saturating_add(MIN_DELAY_BETWEEN)));
        schedule.next = schedule.next.min(allowed.saturating_add(delay));
        self.note_next();
    }

    /// Names the segments on which an advertisement is due.
    pub fn handle_timeout(&mut self, now: Duration, out: &mut impl FnMut(SegmentId)) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        for (&segment, schedule) in &mut self.segments {
            if schedule.next > now {
                continue;
            }
            out(segment);
            let span = schedule.max.saturating_sub(schedule.min);
            let interval = schedule.min + span * self.rng.below(1025) / 1024;
            schedule.sent = schedule.sent.saturating_add(1);
            let initial = schedule.sent < MAX_INITIAL_ADVERTISEMENTS;
            let interval = if initial { interval.min(MAX_INITIAL_INTERVAL) } else { interval };
            schedule.last = Some(now);
            schedule.next = now.saturating_add(interval);
        }
        self.note_next();
    }

    /// When [`Advertiser::handle_timeout`] has something to do next.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.next
    }

    fn note_next(&mut self) {
        self.next = self.segments.values().map(|s| s.next).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const LAN: SegmentId = SegmentId(1);

    fn advertised(advertiser: &mut Advertiser, from: Duration, to: Duration) -> Vec<Duration> {
        let (mut now, mut sent) = (from, Vec::new());
        while let Some(at) = advertiser.next_timeout().filter(|&at| at <= to) {
            now = now.max(at);
            advertiser.handle_timeout(now, &mut |_| sent.push(now));
            assert!(advertiser.next_timeout().is_none_or(|next| next > now));
        }
        sent
    }

    #[test]
    fn ip6_4_three_soon_then_at_random_between_the_intervals() {
        let mut advertiser = Advertiser::new(&Seed::from_u64(1));
        advertiser.begin(LAN, 200, 600);
        let start = Duration::from_secs(1000);
        let sent = advertised(&mut advertiser, start, start + Duration::from_secs(100_000));
        assert_eq!(sent[0], start);
        let gaps: Vec<Duration> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..2], [MAX_INITIAL_INTERVAL; 2]);
        let [min, max] = [200, 600].map(Duration::from_secs);
        assert!(gaps[2..].iter().all(|gap| (min..=max).contains(gap)));
        assert!(gaps[2..].iter().any(|gap| *gap < min + (max - min) / 8));
        assert!(gaps[2..].iter().any(|gap| *gap > max - (max - min) / 8));
        assert!(advertiser.end(LAN) && !advertiser.end(LAN));
        assert_eq!(advertiser.next_timeout(), None);
    }

    proptest! {
        /// Solicitations are answered within half a second, or three seconds after the last advertisement.
        #[test]
        fn ip6_4_solicitations_are_answered_soon_and_never_too_often(
            gaps in proptest::collection::vec(0u64..5_000, 1..100),
            seed: u64,
        ) {
            let mut advertiser = Advertiser::new(&Seed::from_u64(seed));
            advertiser.begin(LAN, 200, 600);
            let mut now = Duration::from_secs(1000);
            let mut sent = advertised(&mut advertiser, now, now);
            for gap in gaps {
                let next = now + Duration::from_millis(gap);
                sent.extend(advertised(&mut advertiser, now, next));
                now = next;
                advertiser.solicited(now, LAN);
                let promised = advertiser.next_timeout().unwrap();
                let allowed = now.max(*sent.last().unwrap() + MIN_DELAY_BETWEEN);
                prop_assert!(promised <= allowed + MAX_RA_DELAY, "{promised:?} for one at {now:?}");
            }
            prop_assert!(sent.windows(2).all(|pair| pair[1] - pair[0] >= MIN_DELAY_BETWEEN));
        }
    }
}
