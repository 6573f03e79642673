//! Moments in 32 bits: milliseconds that wrap around after 49 days. Two moments compare by the shorter way around, which is
//! right while they are less than 24 days apart; see [`crate::timeouts::LONGEST`].

use core::time::Duration;

use crate::timeouts::LONGEST;

/// A moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticks(u32);

impl Ticks {
    /// The moment at `now` since the caller's epoch.
    #[inline]
    pub fn at(now: Duration) -> Self {
        Self(wrapped(now))
    }

    /// That much later; [`LONGEST`] at most.
    #[inline]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.wrapping_add(wrapped(span.min(LONGEST))))
    }

    /// Whether it is `now`, or was before.
    #[inline]
    pub fn has_come(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) <= u32::MAX / 2
    }

    /// The earlier one.
    #[inline]
    pub fn earlier(self, other: Self) -> Self {
        if self.has_come(other) { self } else { other }
    }

    /// How long it is until then; zero if it has come.
    #[inline]
    pub fn from(self, now: Self) -> Duration {
        if self.has_come(now) {
            return Duration::ZERO;
        }
        Duration::from_millis(u64::from(self.0.wrapping_sub(now.0)))
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "moments wrap around")]
fn wrapped(time: Duration) -> u32 {
    (time.as_secs().wrapping_mul(1000)).wrapping_add(u64::from(time.subsec_millis())) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_compare_across_the_wrap() {
        for start in [0, 1, 1 << 31, (1 << 32) - 1, 1 << 40] {
            let now = Ticks::at(Duration::from_millis(start));
            for span in [1, 1000, 432_000_000, (1 << 31) - 1] {
                let then = now.after(Duration::from_millis(span));
                assert!(!then.has_come(now), "{start} {span}");
                assert!(now.has_come(then), "{start} {span}");
                assert_eq!(then.from(now), Duration::from_millis(span));
                assert_eq!(now.from(then), Duration::ZERO);
                assert_eq!((now.earlier(then), then.earlier(now)), (now, now));
            }
        }
    }
}
