//! The one place where time enters.

use std::time::{Duration, Instant, SystemTime};

/// Real time as everything below the driver sees it: a duration since the clock was started, never going back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    wall_offset: Duration,
}

impl Clock {
    /// A clock at zero. Drivers of one process share one, so that their times can be compared.
    #[expect(clippy::disallowed_methods, reason = "time enters here and nowhere else")]
    pub fn start() -> Self {
        let wall_offset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { epoch: Instant::now(), wall_offset }
    }

    /// Time since the start.
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// What to add to [`Clock::now`] for a time since the UNIX epoch, as captures want it. Fixed at the start: a wall
    /// clock that is set later does not bend a capture.
    pub fn wall_offset(&self) -> Duration {
        self.wall_offset
    }
}
