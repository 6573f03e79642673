//! What a line does to frames, as plain data.

use core::time::Duration;

use crate::seed::Rng;

/// How likely something is, in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Probability(u32);

impl Probability {
    /// Impossible.
    pub const NEVER: Self = Self(0);
    /// Certain.
    pub const ALWAYS: Self = Self(1_000_000);

    /// This many parts in a million; more than a million is certain.
    pub const fn per_million(parts: u32) -> Self {
        if parts > Self::ALWAYS.0 { Self::ALWAYS } else { Self(parts) }
    }

    /// This many parts in a hundred; more than a hundred is certain.
    pub const fn percent(parts: u32) -> Self {
        Self::per_million(parts.saturating_mul(10_000))
    }

    /// Whether it happens this time. Draws one number, whatever the odds.
    pub(super) fn strikes(self, rng: &mut Rng) -> bool {
        rng.below(Self::ALWAYS.0) < self.0
    }
}

/// What one direction of a link does to the frames on it. The default does nothing: it carries every frame at once.
///
/// A frame is refused, lost, damaged, copied and delayed in this order, and each frame draws the same number of random
/// numbers whatever the profile: to change one figure does not reshuffle what the others do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkProfile {
    /// How likely a frame is lost.
    pub loss: Probability,
    /// How likely a frame arrives twice.
    pub duplication: Probability,
    /// How likely one bit of a frame arrives wrong. Any bit may; the L4 checksum is finished first, because hardware
    /// never leaves it to a damaged frame's receiver. A super-frame stands for many frames of which one would be
    /// discarded: it is lost instead.
    ///
    /// Checksums of 16 bits find every single wrong bit. They need not find two in one packet, so a path over several
    /// links that damage frames may now and then deliver wrong data, as a real one would.
    pub corruption: Probability,
    /// How likely a frame is late, so that others overtake it.
    pub reordering: Probability,
    /// By how much a late frame is late at most, on top of its delay; how much is even over this span.
    pub late_by: Duration,
    /// How long every frame is on its way.
    pub delay: Duration,
    /// How much longer at most; how much is even over this span. Jitter alone keeps the order of frames.
    pub jitter: Duration,
    /// Octets a second that the sender's interface puts on the wire, without preamble and FCS; 0 means that it takes no
    /// time.
    pub rate: u64,
    /// Octets that wait for the sender's interface at most, when there is a rate. A frame that finds it idle is always
    /// accepted; one that does not fit is refused.
    pub queue_bytes: usize,
}

impl Default for LinkProfile {
    fn default() -> Self {
        Self::PERFECT
    }
}

impl LinkProfile {
    /// Carries every frame at once and whole.
    pub const PERFECT: Self = Self {
        loss: Probability::NEVER,
        duplication: Probability::NEVER,
        corruption: Probability::NEVER,
        reordering: Probability::NEVER,
        late_by: Duration::from_millis(1),
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        rate: 0,
        queue_bytes: 256 * 1024,
    };

    /// Carries every frame whole after `delay`.
    pub const fn delayed(delay: Duration) -> Self {
        Self { delay, ..Self::PERFECT }
    }

    /// Carries nothing: a cut cable that both ends believe in.
    pub const DEAD: Self = Self { loss: Probability::ALWAYS, ..Self::PERFECT };
}

/// A time in `0..=span`, even. Draws one number, whatever the span; a span of over 18 s is drawn in steps of 4 ns and more.
pub(super) fn within(span: Duration, rng: &mut Rng) -> Duration {
    let nanos = span.as_nanos();
    let part = u128::from(rng.next_u64() >> 32);
    Duration::from_nanos(u64::try_from((nanos * part) >> 32).unwrap_or(u64::MAX))
}

/// How long `len` octets take at `rate` octets a second; no time at a rate of 0.
pub(super) fn time_on_wire(len: usize, rate: u64) -> Duration {
    match u128::from(rate) {
        0 => Duration::ZERO,
        rate => {
            let nanos = (len as u128 * 1_000_000_000).div_ceil(rate);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
    }
}

/// How many octets are left to send for `time` at `rate` octets a second.
pub(super) fn octets_in(time: Duration, rate: u64) -> u128 {
    time.as_nanos().saturating_mul(u128::from(rate)) / 1_000_000_000
}
