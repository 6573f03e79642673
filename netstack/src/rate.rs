//! How often something may happen: buckets without a timer.
//!
//! # Theory of operation
//! A bucket is not a level but a time: the one at which it will be full again (the generic cell rate algorithm, ITU-T
//! I.371). An occasion moves that time by one interval and is refused if it would come to lie more than a burst ahead.
//! Nothing has to be refilled, and nothing is a fraction.

use core::time::Duration;

/// A rate and a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Time per occasion.
    interval: Duration,
    /// How far ahead of now a bucket may come to be full.
    depth: Duration,
}

impl Pace {
    /// `per_second` occasions a second (0 for none ever), and `burst` at once when there was none for long.
    pub fn new(per_second: u32, burst: u32) -> Self {
        match Duration::from_secs(1).checked_div(per_second) {
            Some(interval) => Self::every(interval, burst),
            None => Self { interval: Duration::MAX, depth: Duration::ZERO },
        }
    }

    /// One occasion per `interval`, and `burst` at once when there was none for long.
    pub const fn every(interval: Duration, burst: u32) -> Self {
        Self { interval, depth: interval.saturating_mul(burst) }
    }
}

/// The time at which a bucket will be full again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// The bucket after one more occasion, or none if the burst is used up.
    #[inline]
    pub fn after_one(self, now: Duration, pace: Pace) -> Option<Self> {
        if pace.depth.is_zero() {
            return None;
        }
        let full_at = self.full_at.max(now).saturating_add(pace.interval);
        (full_at <= now.saturating_add(pace.depth)).then_some(Self { full_at })
    }

    /// Whether there may be one more occasion now.
    #[inline]
    pub fn allows(self, now: Duration, pace: Pace) -> bool {
        self.after_one(now, pace).is_some()
    }

    /// Takes note of one more occasion, if there may be one now.
    #[inline]
    pub fn take(&mut self, now: Duration, pace: Pace) -> bool {
        let after = self.after_one(now, pace);
        if let Some(after) = after {
            *self = after;
        }
        after.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In no stretch of time is more let through than the burst and what the rate gives.
        #[test]
        fn no_more_than_burst_and_rate(
            rate in 1u32..2000,
            burst in 1u32..50,
            gaps in proptest::collection::vec(0u64..20_000, 1..300),
        ) {
            let pace = Pace::new(rate, burst);
            let mut bucket = Bucket::default();
            let mut now = Duration::from_secs(100);
            let start = now;
            let mut passed = 0u128;
            for gap in gaps {
                now += Duration::from_micros(gap);
                let allowed = bucket.allows(now, pace);
                prop_assert_eq!(bucket.take(now, pace), allowed);
                passed += u128::from(allowed);
                let earned = (now - start).as_nanos() * u128::from(rate) / 1_000_000_000;
                prop_assert!(passed <= u128::from(burst) + earned + 1);
            }
        }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let pace = Pace::new(10, 3);
        let mut bucket = Bucket::default();
        let mut at = |ms: u64| bucket.take(Duration::from_millis(ms), pace);
        assert_eq!([at(1000), at(1000), at(1000), at(1000)], [true, true, true, false]);
        assert_eq!([at(1099), at(1100), at(1100)], [false, true, false]);
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_through() {
        assert!(!Bucket::default().allows(Duration::from_secs(1), Pace::new(0, 9)));
        assert!(!Bucket::default().allows(Duration::from_secs(1), Pace::new(9, 0)));
    }
}
