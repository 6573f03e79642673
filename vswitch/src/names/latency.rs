//! How long clients wait, in classes.

use std::time::Duration;

/// Up to how many microseconds a class reaches; one more holds the rest.
pub const BOUNDS: [u64; 12] =
    [50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000, 200_000, 1_000_000, 5_000_000];

/// Waits so far, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latencies {
    /// Waits of each class, the rest last.
    pub counts: [u64; BOUNDS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Latencies {
    /// Counts one.
    pub(super) fn note(&mut self, wait: Duration) {
        let class = BOUNDS.iter().position(|bound| wait <= Duration::from_micros(*bound));
        self.counts[class.unwrap_or(BOUNDS.len())] += 1;
        self.sum += wait;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_of_the_first_class_that_it_fits() {
        let mut latencies = Latencies::default();
        for micros in [0, 50, 51, 5_000_000, 5_000_001] {
            latencies.note(Duration::from_micros(micros));
        }
        assert_eq!((latencies.counts[0], latencies.counts[1]), (2, 1));
        assert_eq!((latencies.counts[11], latencies.counts[12]), (1, 1));
        assert_eq!((latencies.count(), latencies.sum), (5, Duration::from_micros(10_000_102)));
    }
}
