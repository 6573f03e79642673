//! One probe of one container: when to ask, and what the answers mean.

use std::time::Duration;

use super::spec::Probe;

/// The answers of one probe since the container's last start.
#[derive(Debug)]
pub(super) struct Prober {
    probe: Probe,
    /// When to ask next; absent while an answer is awaited, and before the probe has begun.
    due: Option<Duration>,
    asked: Duration,
    successes: u32,
    failures: u32,
    verdict: Option<bool>,
    complaint: Option<String>,
}

impl Prober {
    pub(super) fn new(probe: &Probe) -> Self {
        Self {
            probe: probe.clone(),
            due: None,
            asked: Duration::ZERO,
            successes: 0,
            failures: 0,
            verdict: None,
            complaint: None,
        }
    }

    pub(super) fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Forgets everything and asks for the first time when the delay after `start` has passed.
    pub(super) fn begin(&mut self, start: Duration, now: Duration) {
        *self = Self::new(&self.probe);
        self.due = Some(start.saturating_add(self.probe.initial_delay).max(now));
    }

    /// Asks no more.
    pub(super) fn stop(&mut self) {
        self.due = None;
        self.verdict = None;
    }

    /// Asks no more, and keeps what is known.
    pub(super) fn quiet(&mut self) {
        self.due = None;
    }

    /// When to ask next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Whether to ask now; if so the answer is awaited from here on.
    pub(super) fn ask(&mut self, now: Duration) -> bool {
        let ask = self.due.is_some_and(|due| due <= now);
        if ask {
            self.due = None;
            self.asked = now;
        }
        ask
    }

    /// Takes an answer. Returns the verdict if it is news.
    pub(super) fn answer(&mut self, found: Result<(), String>, now: Duration) -> Option<bool> {
        let period = self.probe.period.max(Duration::from_secs(1));
        self.due = Some(self.asked.saturating_add(period).max(now));
        let verdict = match found {
            Ok(()) => {
                self.failures = 0;
                self.complaint = None;
                self.successes = self.successes.saturating_add(1);
                (self.successes >= self.probe.success_threshold.max(1)).then_some(true)
            }
            Err(why) => {
                self.successes = 0;
                self.complaint = Some(why);
                self.failures = self.failures.saturating_add(1);
                (self.failures >= self.probe.failure_threshold.max(1)).then_some(false)
            }
        };
        let news = verdict.filter(|_| verdict != self.verdict);
        self.verdict = verdict.or(self.verdict);
        news
    }

    /// What the answers amount to; `None` before there are enough.
    pub(super) fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// What was wrong in the last answer.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Check;
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn prober(success_threshold: u32, failure_threshold: u32) -> Prober {
        let check = Check::TcpSocket { host: None, port: 1 };
        let mut probe = Probe::new(check);
        (probe.success_threshold, probe.failure_threshold) = (success_threshold, failure_threshold);
        probe.initial_delay = S(5);
        Prober::new(&probe)
    }

    #[test]
    fn the_first_question_comes_after_the_delay_and_the_next_after_a_period() {
        let mut prober = prober(1, 3);
        assert_eq!(prober.due(), None);
        prober.begin(S(100), S(100));
        assert!(!prober.ask(S(104)));
        assert!(prober.ask(S(105)));
        assert_eq!(prober.due(), None, "one question at a time");
        assert!(!prober.ask(S(200)));
        assert_eq!(prober.answer(Ok(()), S(106)), Some(true));
        assert_eq!(prober.due(), Some(S(115)), "a period after the question, not after the answer");
        assert!(prober.ask(S(115)));
        prober.answer(Ok(()), S(130));
        assert_eq!(prober.due(), Some(S(130)), "but never before the answer");
        prober.begin(S(100), S(140));
        assert_eq!(prober.due(), Some(S(140)), "a delay that has passed is not waited for again");
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let mut prober = prober(2, 3);
        prober.begin(S(0), S(0));
        let bad = || Err("refused".to_owned());
        let answers = [
            (bad(), None, None),
            (bad(), None, None),
            (Ok(()), None, None),
            (bad(), None, None),
            (bad(), None, None),
            (bad(), Some(false), Some(false)),
            (bad(), None, Some(false)),
            (Ok(()), None, Some(false)),
            (Ok(()), Some(true), Some(true)),
            (Ok(()), None, Some(true)),
            (bad(), None, Some(true)),
        ];
        for (at, (answer, news, verdict)) in answers.into_iter().enumerate() {
            assert_eq!(prober.answer(answer, S(10)), news, "answer {at}");
            assert_eq!(prober.verdict(), verdict, "answer {at}");
        }
        assert_eq!(prober.complaint(), Some("refused"));
    }
}
