//! What can go wrong in a laboratory.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::host::HostConfigError;
use crate::seed::Seed;

/// A run could not go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A frame is not accounted for, or is not fit for where it goes.
    #[error(transparent)]
    Violation(Box<Violation>),
    /// There is still something to do after as many steps as were allowed.
    #[error("not idle after {steps} steps, at {at:?}: {in_flight} frames under way, {timers} timers set")]
    NotIdle {
        /// Steps taken.
        steps: u64,
        /// The time reached.
        at: Duration,
        /// Frames on links.
        in_flight: usize,
        /// Switches and hosts that have a timer set.
        timers: usize,
    },
    /// So many steps were taken without time passing that it never will.
    #[error("time stands still at {at:?}: {steps} steps without an end; the last one was at {culprit}")]
    Stuck {
        /// The time reached.
        at: Duration,
        /// Steps taken there.
        steps: u64,
        /// The switch or host that was turned last.
        culprit: String,
    },
}

/// An invariant that does not hold: which, of whom, when, and how to get there again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The switch, host or link.
    pub culprit: String,
    /// What does not hold.
    pub what: String,
    /// After which step.
    pub step: u64,
    /// At what time.
    pub at: Duration,
    /// The seed of the laboratory.
    pub seed: Seed,
}

impl core::error::Error for Violation {}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at step {}, {:?}, seed ", self.culprit, self.step, self.at)?;
        write_seed(f, &self.seed)?;
        write!(f, ": {}", self.what)
    }
}

/// A laboratory's seed guards nothing, so it is shown: as the number it was made from if it was made from one.
pub(super) fn write_seed(f: &mut impl fmt::Write, seed: &Seed) -> fmt::Result {
    let (number, rest) = seed.0.split_at(8);
    if rest.iter().all(|&octet| octet == 0) {
        let mut octets = [0; 8];
        octets.copy_from_slice(number);
        return write!(f, "{}", u64::from_le_bytes(octets));
    }
    seed.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

/// A switch or host was not added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Another one has the name, by which each draws from the seed and is told from others.
    #[error("there is a switch or host named {0:?} already; give this one another name")]
    NameTaken(String),
    /// The host's configuration is wrong.
    #[error(transparent)]
    Host(#[from] HostConfigError),
}

/// A link was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is a link at this end already.
    #[error("a link is plugged in there already")]
    Occupied(super::End),
    /// Both ends are the same.
    #[error("a link needs two different ends")]
    SameEnd,
}
