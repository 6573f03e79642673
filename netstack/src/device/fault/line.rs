//! One direction of a link: frames go in at one end and come out at the other, later, maybe damaged, or not at all.
//!
//! # Theory of operation
//! [`Line::offer`] decides about a frame at once, by the profile and the next random numbers, and keeps those that will
//! arrive in a heap ordered by arrival, ties by the order of offering. [`Line::take`] gives out what has arrived. A line
//! knows no clock: time comes with each call, and [`Line::next_due`] says when there is something to take.
//!
//! *Order.* A frame never arrives before one that was offered earlier, unless it was chosen to be late or is a copy:
//! jitter alone does not reorder.
//!
//! *Limits.* At most [`MAX_IN_FLIGHT`] frames are under way, and at most [`LinkProfile::queue_bytes`] octets wait for an
//! interface with a rate; a frame more is refused and counted as overflowed.
//!
//! *Accounting.* [`Line::check`]: offered + duplicated = delivered + lost + overflowed + in flight, where the frames in
//! flight are those that are really there.

use alloc::collections::BinaryHeap;
use alloc::format;
use alloc::string::String;
use core::cmp::{Ordering, Reverse};
use core::time::Duration;

use super::profile::{LinkProfile, octets_in, time_on_wire, within};
use crate::frame::{Checksum, Frame, FramePool};
use crate::offload::complete_checksum;
use crate::seed::Rng;

/// Frames under way on one line.
pub const MAX_IN_FLIGHT: usize = 16_384;

/// What a line has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LineCounters {
    /// Frames put in.
    pub offered: u64,
    /// Octets of those.
    pub offered_bytes: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Frames with a wrong bit.
    pub corrupted: u64,
    /// Frames chosen to be late.
    pub late: u64,
    /// Frames lost by chance, or because the line was cut while they were on it.
    pub lost: u64,
    /// Frames refused because too much was waiting.
    pub overflowed: u64,
    /// Frames given out.
    pub delivered: u64,
    /// Octets of those.
    pub delivered_bytes: u64,
}

/// What became of a frame that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offered {
    /// It is under way.
    Carried {
        /// When it arrives.
        due: Duration,
        /// When its copy arrives, if there is one.
        copy_due: Option<Duration>,
        /// Whether a bit of it is wrong.
        corrupted: bool,
    },
    /// It is lost.
    Lost,
    /// It was refused.
    Overflowed,
}

#[derive(Debug)]
struct InFlight {
    due: Duration,
    order: u64,
    frame: Frame,
}

impl InFlight {
    fn key(&self) -> (Duration, u64) {
        (self.due, self.order)
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for InFlight {}

/// What chance has in store for one frame: drawn as a whole, so that a profile decides what is used of it, not how much
/// is drawn.
struct Dice {
    lost: bool,
    copied: bool,
    corrupted: bool,
    late: bool,
    late_by: Duration,
    jitter: Duration,
    copy_jitter: Duration,
    bit: u64,
}

impl Dice {
    fn roll(profile: &LinkProfile, rng: &mut Rng) -> Self {
        Self {
            lost: profile.loss.strikes(rng),
            copied: profile.duplication.strikes(rng),
            corrupted: profile.corruption.strikes(rng),
            late: profile.reordering.strikes(rng),
            late_by: within(profile.late_by, rng),
            jitter: within(profile.jitter, rng),
            copy_jitter: within(profile.jitter, rng),
            bit: rng.next_u64(),
        }
    }
}

/// One direction of a link: frames go in at one end and come out at the other, later, maybe damaged, or not at all. It
/// knows no clock: time comes with each call, and never goes back.
#[derive(Debug)]
pub struct Line {
    profile: LinkProfile,
    rng: Rng,
    air: BinaryHeap<Reverse<InFlight>>,
    order: u64,
    /// When the sender's interface will have put out all that it accepted.
    busy_until: Duration,
    /// When the last frame in order arrives.
    last_due: Duration,
    counters: LineCounters,
}

impl Line {
    /// An empty line.
    pub fn new(profile: LinkProfile, rng: Rng) -> Self {
        Self {
            profile,
            rng,
            air: BinaryHeap::new(),
            order: 0,
            busy_until: Duration::ZERO,
            last_due: Duration::ZERO,
            counters: LineCounters::default(),
        }
    }

    /// Puts a frame in. Copies come from `pool`, and what goes no further goes there.
    pub fn offer(&mut self, now: Duration, mut frame: Frame, pool: &mut FramePool) -> Offered {
        self.counters.offered += 1;
        self.counters.offered_bytes += frame.len() as u64;
        let dice = Dice::roll(&self.profile, &mut self.rng);
        let Some(sent) = self.transmit(now, frame.len()) else {
            self.counters.overflowed += 1;
            pool.recycle(frame);
            return Offered::Overflowed;
        };
        let corrupted = dice.corrupted && !dice.lost;
        if dice.lost || (corrupted && !flip(&mut frame, dice.bit)) {
            self.counters.lost += 1;
            pool.recycle(frame);
            return Offered::Lost;
        }
        self.counters.corrupted += u64::from(corrupted);
        let copy = (dice.copied && self.air.len() + 1 < MAX_IN_FLIGHT).then(|| pool.duplicate(&frame));
        let base = sent.saturating_add(self.profile.delay);
        let mut due = base.saturating_add(dice.jitter).max(self.last_due);
        if dice.late {
            self.counters.late += 1;
            due = due.saturating_add(dice.late_by);
        } else {
            self.last_due = due;
        }
        self.put(due, frame);
        let copy_due = copy.map(|copy| {
            self.counters.duplicated += 1;
            let due = base.saturating_add(dice.copy_jitter);
            self.put(due, copy);
            due
        });
        Offered::Carried { due, copy_due, corrupted }
    }

    /// When the interface has put out a frame of `len` octets; none if it does not take it.
    fn transmit(&mut self, now: Duration, len: usize) -> Option<Duration> {
        if self.air.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let rate = self.profile.rate;
        let waiting = self.busy_until.saturating_sub(now);
        let backlog = octets_in(waiting, rate);
        if backlog > 0 && backlog + len as u128 > self.profile.queue_bytes as u128 {
            return None;
        }
        self.busy_until = now.saturating_add(waiting).saturating_add(time_on_wire(len, rate));
        Some(self.busy_until)
    }

    fn put(&mut self, due: Duration, frame: Frame) {
        self.air.push(Reverse(InFlight { due, order: self.order, frame }));
        self.order += 1;
    }

    /// The next frame that has arrived by `now`.
    pub fn take(&mut self, now: Duration) -> Option<Frame> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(InFlight { frame, .. }) = self.air.pop()?;
        self.counters.delivered += 1;
        self.counters.delivered_bytes += frame.len() as u64;
        Some(frame)
    }

    /// When the next frame arrives.
    pub fn next_due(&self) -> Option<Duration> {
        self.air.peek().map(|Reverse(next)| next.due)
    }

    /// Loses all that is under way.
    pub fn cut(&mut self, pool: &mut FramePool) {
        for Reverse(InFlight { frame, .. }) in self.air.drain() {
            self.counters.lost += 1;
            pool.recycle(frame);
        }
    }

    /// Frames under way.
    pub fn in_flight(&self) -> usize {
        self.air.len()
    }

    /// What the line does to frames.
    pub fn profile(&self) -> &LinkProfile {
        &self.profile
    }

    /// Does something else to the frames offered from here on; those under way arrive as was decided.
    pub fn set_profile(&mut self, profile: LinkProfile) {
        self.profile = profile;
    }

    /// What the line has done so far.
    pub fn counters(&self) -> &LineCounters {
        &self.counters
    }

    /// Whether every frame is accounted for at this moment.
    ///
    /// # Errors
    /// What does not add up.
    pub fn check(&self) -> Result<(), String> {
        let c = &self.counters;
        let (came, gone) = (c.offered + c.duplicated, c.delivered + c.lost + c.overflowed);
        let in_flight = self.air.len() as u64;
        if came == gone + in_flight {
            return Ok(());
        }
        Err(format!(
            "offered + duplicated = delivered + lost + overflowed + in flight: {} + {} != {} + {} + {} + {in_flight}",
            c.offered, c.duplicated, c.delivered, c.lost, c.overflowed
        ))
    }

    /// Loses a frame that is under way and tells nobody: what [`Line::check`] is there to find.
    #[cfg(test)]
    pub(crate) fn lose_secretly(&mut self) -> Option<Frame> {
        self.air.pop().map(|Reverse(InFlight { frame, .. })| frame)
    }
}

/// Turns one bit over, chosen by `bit`. Returns false for a super-frame, which is not damaged but lost.
fn flip(frame: &mut Frame, bit: u64) -> bool {
    if frame.offload.segmentation.is_some() {
        return false;
    }
    // A state that does not fit the frame is the receiver's to find, and the frame is damaged as it is.
    let _ = complete_checksum(frame);
    if frame.offload.checksum == Checksum::Verified {
        frame.offload.checksum = Checksum::Complete;
    }
    let bits = frame.len() as u64 * 8;
    if bits > 0 {
        let at = bit % bits;
        if let Some(octet) = usize::try_from(at / 8).ok().and_then(|place| frame.bytes_mut().get_mut(place)) {
            *octet ^= 1 << (at % 8);
        }
    }
    true
}
