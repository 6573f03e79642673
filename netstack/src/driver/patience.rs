//! How long to look for input before a sleep.

use std::time::Duration;

/// What a driver pays for a short way from frame to frame. A sleep and the wake-up that ends it take longer than a batch,
/// on some machines tens of microseconds; looking for input instead takes a core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Latency {
    /// Looks for input as long as the recent past says that it pays and nobody else wants the core, and in vain for at most a
    /// twentieth of one.
    #[default]
    Balanced,
    /// Looks for input until there has been no frame for [`LINGER`].
    Low,
    /// Sleeps whenever there is nothing to do.
    Idle,
}

/// How long [`Latency::Low`] keeps a driver awake after a frame.
pub const LINGER: Duration = Duration::from_millis(2);
/// How long [`Latency::Balanced`] looks for input before one sleep, at most and at least, if it does at all.
pub const LONGEST_LOOK: Duration = Duration::from_micros(50);
const SHORTEST_LOOK: Duration = Duration::from_micros(10);
/// A sleep that ended within this time would have been better spent looking.
pub const SHORT_SLEEP: Duration = Duration::from_micros(100);
/// Of so much time one part may be spent on looking in vain.
const SHARE: u32 = 20;
/// A core that was offered and comes back only after this time is wanted by others: perhaps by those who are to send what
/// would be looked for.
const WANTED: Duration = Duration::from_micros(3);
/// How long nothing is looked for then.
const DEFERENCE: Duration = Duration::from_millis(10);
/// How much of what may be spent in vain may be saved up.
pub const MOST_CREDIT: Duration = Duration::from_millis(1);

/// Learns from one sleep how to begin the next.
#[derive(Debug, Default)]
pub(super) struct Patience {
    pub(super) latency: Latency,
    /// When frames last moved.
    moved: Duration,
    /// How long to look, as the last sleeps have it.
    window: Duration,
    /// What may still be spent on looking in vain, and until when that was reckoned.
    credit: Duration,
    reckoned: Duration,
    /// Until when others come first.
    deference: Duration,
}

impl Patience {
    /// Frames have moved.
    pub(super) fn moved(&mut self, now: Duration) {
        self.moved = now;
    }

    /// How long to look for input from `now` on.
    pub(super) fn look_for(&mut self, now: Duration) -> Duration {
        match self.latency {
            Latency::Idle => Duration::ZERO,
            Latency::Low => (self.moved + LINGER).saturating_sub(now),
            Latency::Balanced => {
                let earned = now.saturating_sub(self.reckoned) / SHARE;
                self.credit = (self.credit + earned).min(MOST_CREDIT);
                self.reckoned = now;
                // A look that is cut short finds nothing and costs all the same.
                let may = self.credit >= self.window && now >= self.deference;
                if may { self.window } else { Duration::ZERO }
            }
        }
    }

    /// Whether the core is to be offered to others before a look.
    pub(super) fn is_polite(&self) -> bool {
        self.latency == Latency::Balanced
    }

    /// The core was offered at `now` and came back so much later. Whether to go on looking.
    pub(super) fn offered(&mut self, now: Duration, away: Duration) -> bool {
        let wanted = away > WANTED;
        if wanted {
            self.deference = now + DEFERENCE;
        }
        !wanted
    }

    /// A look for so long has found nothing.
    pub(super) fn looked_in_vain(&mut self, spent: Duration) {
        self.credit = self.credit.saturating_sub(spent);
    }

    /// A sleep has ended with input, or without.
    pub(super) fn slept(&mut self, slept: Duration, input: bool) {
        self.window = if input && slept <= SHORT_SLEEP {
            (self.window * 2).clamp(SHORTEST_LOOK, LONGEST_LOOK)
        } else if self.window > SHORTEST_LOOK {
            self.window / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Drives `patience` through gaps between frames, without a clock; returns the time spent looking, in vain and not.
    fn spend(patience: &mut Patience, gaps: impl IntoIterator<Item = Duration>) -> (Duration, Duration) {
        let (mut now, mut vain, mut useful) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for gap in gaps {
            patience.moved(now);
            let look = patience.look_for(now);
            if look >= gap {
                useful += gap;
            } else {
                patience.looked_in_vain(look);
                vain += look;
                patience.slept(gap - look, true);
            }
            now += gap;
        }
        (vain, useful)
    }

    #[test]
    fn who_may_not_look_sleeps() {
        let mut patience = Patience { latency: Latency::Idle, ..Patience::default() };
        assert_eq!(spend(&mut patience, vec![US; 1000]), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn low_looks_until_it_has_been_quiet_for_long() {
        let mut patience = Patience { latency: Latency::Low, ..Patience::default() };
        patience.moved(10 * US);
        assert_eq!(patience.look_for(10 * US), LINGER);
        assert_eq!(patience.look_for(LINGER), 10 * US);
        assert_eq!(patience.look_for(LINGER + 10 * US), Duration::ZERO);
    }

    #[test]
    fn balanced_learns_to_look_where_it_pays() {
        let mut patience = Patience::default();
        let gaps = vec![20 * US; 10_000];
        let (vain, useful) = spend(&mut patience, gaps);
        assert!(useful > 190 * 1000 * US, "{useful:?} of 200 ms");
        assert!(vain < 1000 * US, "{vain:?}");
    }

    #[test]
    fn balanced_spends_a_small_part_of_a_core_where_it_does_not() {
        // Frames that come just after one has ceased to look for them, and some at random.
        for period in [60u32, 90, 130, 1000, 10_000] {
            let gaps = (0..10_000u32).map(|i| (period + i * 7919 % 37) * US);
            let all: Duration = gaps.clone().sum();
            let (vain, _) = spend(&mut Patience::default(), gaps);
            assert!(vain <= all / SHARE + MOST_CREDIT, "{vain:?} of {all:?} at {period}");
        }
    }

    #[test]
    fn balanced_does_not_hold_a_core_that_others_want() {
        let mut patience = Patience::default();
        spend(&mut patience, vec![20 * US; 1000]);
        let now = 20_000 * US;
        assert!(patience.is_polite() && patience.offered(now, US));
        assert!(patience.look_for(now) > Duration::ZERO);
        assert!(!patience.offered(now, 1000 * US));
        for later in [0, 1, 5000, 9999] {
            assert_eq!(patience.look_for(now + later * US), Duration::ZERO);
            patience.slept(20 * US, true);
        }
        assert!(patience.look_for(now + DEFERENCE) > Duration::ZERO);
        assert!(!Patience { latency: Latency::Low, ..Patience::default() }.is_polite());
    }

    #[test]
    fn balanced_ceases_when_traffic_becomes_sparse() {
        let mut patience = Patience::default();
        spend(&mut patience, vec![20 * US; 1000]);
        let (vain, _) = spend(&mut patience, vec![5000 * US; 100]);
        assert!(vain < 200 * US, "{vain:?}");
        assert_eq!(patience.window, Duration::ZERO);
    }
}
