//! What goes to a pod: windows, time and loss.
//!
//! # Theory of operation
//! Numbers are those of RFC 9293: `una` is the oldest octet that is not acknowledged, `next` the one that is sent next, and
//! `max` the one that has never been sent. After a timeout `next` goes back to `una`, and what is between it and `max` is
//! sent again as if it were new. The octets themselves are not here: they stay with their socket until they are
//! acknowledged, and are read from there as often as they are sent.
//!
//! *Congestion* is RFC 5681's with RFC 6582's recovery, without selective acknowledgements: the way to a pod is a few
//! queues of this process, on which loss means that one of them was full. *Time* is RFC 6298's, one measurement at a time.

use std::time::Duration;

use super::segment::{before, distance};

/// What a pod takes that does not say (RFC 9293 MUST-15, RFC 8200 section 5 with RFC 9293 section 3.7.1).
const USUAL_SIZE: [u16; 2] = [536, 1220];
/// The smallest segments that are made, whatever a pod says.
const LEAST_SIZE: u16 = 88;
/// The most octets under way to a pod: the way is some queues of this process, which hold that much in a few frames, and
/// an acknowledgement takes a fraction of a millisecond.
const MOST_UNDER_WAY: u32 = 512 << 10;
/// Segments that are sent before anything is known of the way (RFC 6928).
const FIRST_SEGMENTS: u32 = 10;
/// Acknowledgements of the same octet that mean that the one behind it is lost (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;
/// Before anything was measured (RFC 6298 section 2.1), and bounds; the lower one is Linux's.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const LEAST_TIMEOUT: Duration = Duration::from_millis(200);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) una: u32,
    pub(super) next: u32,
    pub(super) max: u32,
    /// What the pod takes from `una` on.
    pub(super) window: u32,
    scale: u8,
    /// The segment that the window was told by: its place, and what it acknowledged.
    told: (u32, u32),
    /// Octets of a segment.
    pub(super) size: u16,
    congestion: u32,
    threshold: u32,
    /// Up to where everything must be acknowledged for a loss to be over, and for another to be one.
    recover: u32,
    recovering: bool,
    duplicates: u8,
    /// The oldest octets are to be sent again, whatever else is.
    pub(super) again: bool,
    smoothed: Option<(Duration, Duration)>,
    timeout: Duration,
    /// Timeouts in a row.
    pub(super) backoff: u8,
    /// The octet whose acknowledgement is waited for, and since when.
    measured: Option<(u32, Duration)>,
}

/// What an acknowledgement has told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// So many places were acknowledged, FIN and SYN included.
    New(u32),
    /// Nothing, or the window alone.
    Old,
    /// What was never sent.
    Nonsense,
}

impl Sending {
    /// Begins at `first`, the place of our SYN.
    pub(super) fn new(first: u32, v4: bool, mtu: usize) -> Self {
        let headers = if v4 { 40 } else { 60 };
        let most = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
        let mut sending = Self {
            una: first,
            next: first,
            max: first,
            window: 0,
            scale: 0,
            told: (0, 0),
            size: most,
            congestion: 0,
            threshold: u32::MAX,
            recover: first,
            recovering: false,
            duplicates: 0,
            again: false,
            smoothed: None,
            timeout: FIRST_TIMEOUT,
            backoff: 0,
            measured: None,
        };
        sending.agree(None, None, v4);
        // What the pod takes is known by its SYN.
        sending.size = most;
        sending
    }

    /// Takes note of what the pod's SYN offers.
    pub(super) fn agree(&mut self, size: Option<u16>, scale: Option<u8>, v4: bool) {
        let usual = if v4 { USUAL_SIZE[0] } else { USUAL_SIZE[1] };
        self.size = self.size.min(size.unwrap_or(usual).max(LEAST_SIZE));
        self.scale = scale.unwrap_or(0);
        self.congestion = FIRST_SEGMENTS * u32::from(self.size);
    }

    /// Takes note of a window that stands in a segment at `sequence`.
    pub(super) fn offer(&mut self, sequence: u32, acknowledgement: u32, window: u16, scaled: bool) {
        let (at, acknowledged) = self.told;
        let newer = before(at, sequence) || (at == sequence && !before(acknowledgement, acknowledged));
        if newer || self.window == 0 {
            self.window = u32::from(window) << if scaled { self.scale } else { 0 };
            self.told = (sequence, acknowledgement);
        }
    }

    /// Octets under way.
    pub(super) fn under_way(&self) -> u32 {
        distance(self.una, self.next)
    }

    /// Whether anything was sent that is not acknowledged.
    pub(super) fn is_owed(&self) -> bool {
        before(self.una, self.max)
    }

    /// How many octets may be sent now.
    pub(super) fn room(&self) -> u32 {
        let under_way = self.under_way();
        let room = self.window.min(self.congestion).saturating_sub(under_way);
        // A little at a time is not worth it while an acknowledgement is to come (RFC 9293 section 3.8.6.2.1).
        if room < u32::from(self.size) && under_way > 0 { 0 } else { room }
    }

    /// Whether the pod takes nothing more, and no acknowledgement is to come that could change that.
    pub(super) fn is_shut(&self) -> bool {
        self.window == 0 && !self.is_owed()
    }

    /// Takes note of so many places that were sent from `next` on.
    pub(super) fn sent(&mut self, now: Duration, places: u32) {
        let fresh = self.next == self.max;
        self.next = self.next.wrapping_add(places);
        if before(self.max, self.next) {
            self.max = self.next;
        }
        // What is sent twice is not measured (Karn).
        if fresh && self.measured.is_none() {
            self.measured = Some((self.next, now));
        }
    }

    /// Takes note of an acknowledgement; `bare` if its segment has nothing else to say.
    pub(super) fn acknowledged(&mut self, now: Duration, to: u32, bare: bool) -> Told {
        if before(self.max, to) {
            return Told::Nonsense;
        }
        if !before(self.una, to) {
            if to == self.una && bare && self.is_owed() {
                self.duplicate();
            }
            return Told::Old;
        }
        let places = distance(self.una, to);
        self.una = to;
        if before(self.next, to) {
            self.next = to;
        }
        (self.duplicates, self.backoff) = (0, 0);
        self.measure(now, to);
        if self.recovering {
            self.recovered(to, places);
        } else {
            self.grow(places);
        }
        Told::New(places)
    }

    fn measure(&mut self, now: Duration, to: u32) {
        let Some((place, since)) = self.measured.filter(|(place, _)| !before(to, *place)) else { return };
        debug_assert!(!before(to, place));
        self.measured = None;
        let sample = now.saturating_sub(since);
        let (smoothed, variation) = match self.smoothed {
            None => (sample, sample / 2),
            Some((smoothed, variation)) => {
                (smoothed * 7 / 8 + sample / 8, variation * 3 / 4 + smoothed.abs_diff(sample) / 4)
            }
        };
        self.smoothed = Some((smoothed, variation));
        self.timeout = (smoothed + variation * 4).clamp(LEAST_TIMEOUT, LONGEST_TIMEOUT);
    }

    fn grow(&mut self, places: u32) {
        let more = if self.congestion < self.threshold {
            places
        } else {
            let size = u32::from(self.size);
            (size.saturating_mul(size) / self.congestion.max(1)).max(1)
        };
        self.congestion = self.congestion.saturating_add(more).min(MOST_UNDER_WAY);
    }

    fn duplicate(&mut self) {
        self.duplicates = self.duplicates.saturating_add(1);
        let size = u32::from(self.size);
        if self.recovering {
            // Another segment has left the way.
            self.congestion = self.congestion.saturating_add(size).min(MOST_UNDER_WAY);
        } else if self.duplicates == DUPLICATES && !before(self.una, self.recover) {
            self.lose();
            self.congestion = self.threshold + u32::from(DUPLICATES) * size;
            (self.recover, self.recovering, self.again) = (self.max, true, true);
        }
    }

    fn recovered(&mut self, to: u32, places: u32) {
        if before(to, self.recover) {
            // The next hole: what is behind it has come, or will (RFC 6582 section 3.2 step 3).
            self.again = true;
            let size = u32::from(self.size);
            self.congestion = self.congestion.saturating_sub(places).saturating_add(size).max(size);
        } else {
            self.recovering = false;
            self.congestion = self
                .threshold
                .min(distance(self.una, self.max).max(u32::from(self.size)) + u32::from(self.size));
        }
    }

    fn lose(&mut self) {
        let under_way = distance(self.una, self.max);
        self.threshold = (under_way / 2).max(2 * u32::from(self.size));
        self.measured = None;
    }

    /// Nothing was acknowledged in time: everything is sent again, slowly at first.
    pub(super) fn timed_out(&mut self) {
        self.lose();
        self.congestion = u32::from(self.size);
        (self.next, self.recover) = (self.una, self.max);
        (self.recovering, self.duplicates) = (false, 0);
        // A window that was closed in the meantime keeps nobody from asking for what is owed.
        self.again = self.window == 0;
        self.backoff = self.backoff.saturating_add(1);
    }

    /// How long an acknowledgement is waited for.
    pub(super) fn patience(&self) -> Duration {
        let doubled = 1u32.checked_shl(u32::from(self.backoff)).unwrap_or(u32::MAX);
        self.timeout.saturating_mul(doubled).min(LONGEST_TIMEOUT)
    }

    /// How many octets may be sent again at once, after a loss.
    pub(super) fn resent(&self) -> u32 {
        self.threshold.max(u32::from(self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::on;
    use super::*;

    const START: u32 = u32::MAX - 5000;

    fn sending() -> Sending {
        let mut sending = Sending::new(START, true, 1500);
        sending.agree(Some(1460), Some(7), true);
        sending.offer(1, START, 1000, true);
        sending
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn windows_bound_what_is_under_way() {
        let mut sending = sending();
        assert_eq!((sending.size, sending.window, sending.room()), (1460, 128_000, 14_600));
        sending.sent(at(0), 14_600);
        assert_eq!((sending.under_way(), sending.room()), (14_600, 0));
        assert_eq!(sending.acknowledged(at(1), on(START, 14_600), true), Told::New(14_600));
        assert_eq!(sending.room(), 29_200, "slow start");
        assert_eq!(sending.acknowledged(at(1), on(START, 14_601), true), Told::Nonsense);
        assert_eq!(sending.acknowledged(at(1), START, true), Told::Old);
    }

    #[test]
    fn three_duplicates_are_a_loss_and_a_timeout_is_everything() {
        let mut sending = sending();
        sending.sent(at(0), 14_600);
        for _ in 0..3 {
            assert!(!sending.again);
            assert_eq!(sending.acknowledged(at(1), START, true), Told::Old);
        }
        assert!(sending.again && sending.recovering);
        sending.again = false;
        assert_eq!(sending.acknowledged(at(2), on(START, 1460), true), Told::New(1460));
        assert!(sending.again, "there is another hole");
        sending.again = false;
        assert_eq!(sending.acknowledged(at(3), on(START, 14_600), true), Told::New(13_140));
        assert!(!sending.again && !sending.recovering && sending.congestion >= 1460);
        sending.sent(at(4), 2920);
        sending.timed_out();
        assert_eq!((sending.under_way(), sending.room(), sending.backoff), (0, 1460, 1));
        assert!(sending.is_owed());
    }

    #[test]
    fn the_timeout_follows_what_is_measured_and_doubles() {
        let mut sending = sending();
        assert_eq!(sending.patience(), FIRST_TIMEOUT);
        sending.sent(at(0), 1460);
        sending.acknowledged(at(400), on(START, 1460), true);
        assert_eq!(sending.patience(), at(1200));
        sending.timed_out();
        assert_eq!(sending.patience(), at(2400));
        sending.backoff = 40;
        assert_eq!(sending.patience(), LONGEST_TIMEOUT);
    }

    #[test]
    fn an_old_window_does_not_replace_a_newer_one() {
        let mut sending = sending();
        sending.offer(100, on(START, 10), 500, true);
        sending.offer(99, on(START, 10), 7, true);
        sending.offer(100, on(START, 9), 7, true);
        assert_eq!(sending.window, 64_000);
        sending.offer(100, on(START, 10), 0, true);
        assert!(sending.is_shut() && sending.room() == 0);
    }
}
