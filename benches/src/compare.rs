//! Taking the time of pieces of work in turns, so that whatever slows the machine down slows them all down.

use std::time::Duration;

use crate::work::Work;

/// What a piece of work took, in nanoseconds for an operation, round by round.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// The time that this part of the rounds stayed below.
    ///
    /// # Panics
    /// If there was no round.
    pub fn quantile(&self, part: usize, of: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * part / of]
    }

    /// What this took for each nanosecond that `first` took in the same round.
    #[must_use]
    pub fn beside(&self, first: &Self) -> Self {
        Self(self.0.iter().zip(&first.0).map(|(this, first)| this / first).collect())
    }
}

/// Has all of them done once in each round, and takes the time.
pub fn take_turns(works: &mut [Box<dyn Work>], rounds: impl IntoIterator) -> Vec<Times> {
    let mut times = vec![Times::default(); works.len()];
    for _ in rounds {
        for (work, times) in works.iter_mut().zip(&mut times) {
            // The first turn brings back what the others have driven out of the caches.
            time(&mut **work);
            work.reset();
            times.0.push(time(&mut **work).as_secs_f64() * 1e9 / f64::from(work.operations()));
            work.reset();
        }
    }
    times
}

#[expect(clippy::disallowed_methods, reason = "time enters at the measurement")]
fn time(work: &mut dyn Work) -> Duration {
    let start = std::time::Instant::now();
    work.turn();
    start.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let times = Times((0..=10).rev().map(f64::from).collect());
        assert_eq!([times.quantile(0, 1), times.quantile(1, 10), times.quantile(1, 2)], [0.0, 1.0, 5.0]);
        assert_eq!(Times(vec![3.0]).quantile(1, 10), 3.0);
    }

    #[test]
    fn rounds_are_compared_one_by_one() {
        let (this, first) = (Times(vec![2.0, 90.0]), Times(vec![1.0, 30.0]));
        assert_eq!(this.beside(&first).0, [2.0, 3.0]);
    }

    #[test]
    fn each_is_measured_in_each_round() {
        let mut works: Vec<Box<dyn Work>> =
            ["flows/l2/1", "flows/null/1"].map(|name| (crate::work::case(name).unwrap().begin)()).into();
        let times = take_turns(&mut works, 0..3);
        assert_eq!(times.iter().map(|times| times.0.len()).collect::<Vec<_>>(), [3, 3]);
        assert!(times.iter().all(|times| times.quantile(0, 1) > 0.0));
    }
}
