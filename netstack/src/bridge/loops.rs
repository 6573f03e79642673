//! Loops: two ports of a switch patched together, or two switches joined twice.
//!
//! # Theory of operation
//! There is no spanning tree: ports forward from the first frame (BR-11), and a loop is found by what it does. From each
//! guarded port a *probe* leaves every two seconds, a group frame that bridges pass on like any other. If it comes back
//! by another port, the two are one loop; if it comes back by its own, that port is a loop by itself. A probe that comes
//! in on another segment than it left by only shows that the two are joined, and is flooded there like any other frame.
//! The second sign is a station that seems to jump from port to port. A few jumps have probes sent at once, to know for
//! sure; if something on the way swallows those, the two ports that it jumped between [`RETURNS_LIMIT`] times in a row
//! within one second, or between which it was after [`MOVES_LIMIT`] moves, are taken for a loop.
//!
//! Of the two ports the guarded one with the higher number is *blocked*: nothing goes in or out but probes. When its time
//! is over it is opened, unless a probe has come back a moment ago, in which case the time doubles and starts again. A
//! port that has to be blocked again soon after it was opened waits longer too, so that a loop that shows only by jumping
//! stations is let run for a moment at most every few minutes.
//!
//! A probe names its port and segment, and carries a token that only this switch can make for those two. Whoever hears one can play it
//! back where it was heard, and so block the port that he is behind himself, but no other.

use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::time::Duration;

use super::Restless;
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::event::LoopEvidence;
use crate::frame::{Frame, FramePool};
use crate::parse::Link;
use crate::seed::{Rng, Seed, TableHasher};

/// The EtherType of probes: local experimental 1 (IEEE 802-2014 clause 9.2.4).
pub const LOOP_PROBE: u16 = 0x88b5;

/// Where probes go: a group address of local administration, which every bridge floods.
pub const LOOP_GROUP: MacAddr = MacAddr([0x03, 0, 0, 0x88, 0xb5, 0x01]);
/// Between two probes of a port, before a jitter of a quarter in either direction.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// A probe that came back this lately says that the loop is still there: the last one at the latest.
const FRESH: Duration = Duration::from_secs(4);
/// How long a port is blocked at first, and at most.
const FIRST_BLOCK: Duration = Duration::from_secs(10);
const LONGEST_BLOCK: Duration = Duration::from_secs(320);
/// How often a station may go straight back between two ports within a second, and from port to port at all.
const RETURNS_LIMIT: u16 = 16;
const MOVES_LIMIT: u16 = 256;
/// Moves within a second after which probes are sent at once: they name the ports of a loop for sure.
const MOVES_SUSPECT: u16 = 8;
/// How soon after the last round of probes another may follow.
const SUSPECT_INTERVAL: Duration = Duration::from_millis(200);

/// Octets of a probe: Ethernet header, the switch's name, port, segment, token, and padding to the shortest frame.
const PROBE_LEN: usize = 60;
const HEADER: usize = 14;

/// The watch over one switch's ports.
#[derive(Debug)]
pub struct LoopGuard {
    /// The switch's name in its probes.
    id: u64,
    tokens: TableHasher,
    rng: Rng,
    /// By port number; none for ports that are not guarded.
    watches: Vec<Option<Watch>>,
    /// When the next round of probes leaves; none while no port is guarded.
    next_probe: Option<Duration>,
    last_probe: Duration,
    /// When the first blocked port is tried again; none while none is blocked.
    next_trial: Option<Duration>,
    round: usize,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    block: Option<Block>,
    /// For how long it is blocked the next time.
    time: Duration,
    /// When it was last opened.
    opened: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    until: Duration,
    /// When a probe last came back.
    seen: Option<Duration>,
}

/// A loop that was not known a moment ago: the port is blocked from here on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what was learned and queued at both ports is worth nothing now"]
pub struct LoopFound {
    /// The port that is blocked.
    pub port: PortId,
    /// The loop's other end.
    pub other: PortId,
    /// What showed it.
    pub evidence: LoopEvidence,
    /// For how long, before it is tried again.
    pub blocked_for: Duration,
}

/// What the passing of time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoopAction {
    /// Send a probe from this port. Its VLANs take turns by the number of the round.
    Probe {
        /// The port.
        port: PortId,
        /// Counts the rounds.
        round: usize,
    },
    /// The port is open again.
    Opened {
        /// The port.
        port: PortId,
    },
}

impl LoopGuard {
    /// A guard that watches nothing yet.
    pub fn new(seed: &Seed) -> Self {
        Self {
            id: seed.derive("loop probe"),
            tokens: seed.hasher("loop probe token"),
            rng: seed.rng("loop probe jitter"),
            watches: Vec::new(),
            next_probe: None,
            last_probe: Duration::ZERO,
            next_trial: None,
            round: 0,
        }
    }

    /// Watches these ports and no others. Of those that it has watched before it keeps what it knows. New ones send their
    /// first probe as soon as time is told.
    pub fn watch(&mut self, ports: impl Iterator<Item = PortId>) {
        let before = core::mem::take(&mut self.watches);
        let mut fresh = false;
        for port in ports {
            let at = usize::from(port.0);
            if at >= self.watches.len() {
                self.watches.resize(at + 1, None);
            }
            let old = before.get(at).copied().flatten();
            fresh |= old.is_none();
            self.watches[at] = Some(old.unwrap_or(Watch { block: None, time: FIRST_BLOCK, opened: None }));
        }
        if fresh {
            self.next_probe = Some(Duration::ZERO);
        } else if self.watches.is_empty() {
            self.next_probe = None;
        }
        self.note_next_trial();
    }

    /// Stops watching a port and opens it.
    pub fn forget(&mut self, port: PortId) {
        if let Some(watch) = self.watches.get_mut(usize::from(port.0)) {
            *watch = None;
            self.note_next_trial();
        }
    }

    /// Whether nothing but probes may pass the port.
    #[inline]
    pub fn is_blocked(&self, port: PortId) -> bool {
        self.next_trial.is_some() && self.block(port).is_some()
    }

    /// Until when the port is blocked, if it is.
    pub fn blocked_until(&self, port: PortId) -> Option<Duration> {
        self.block(port).map(|block| block.until)
    }

    /// The port and the segment that a frame left by, if it is a probe of this switch.
    #[inline]
    pub fn read(&self, link: &Link, frame: &[u8]) -> Option<(PortId, SegmentId)> {
        if link.ethertype != LOOP_PROBE {
            return None;
        }
        let &[i0, i1, i2, i3, i4, i5, i6, i7, p0, p1, s0, s1, ref token @ ..] =
            frame.get(link.payload..)?.first_chunk::<20>()?;
        let place = (PortId(u16::from_be_bytes([p0, p1])), SegmentId(u16::from_be_bytes([s0, s1])));
        let id = u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
        (id == self.id && *token == self.token(place)).then_some(place)
    }

    /// The probe of a port for a segment, untagged.
    pub fn probe(&self, pool: &mut FramePool, port: PortId, segment: SegmentId) -> Frame {
        let mut frame = pool.take(PROBE_LEN);
        let bytes = frame.bytes_mut();
        bytes.fill(0);
        bytes[..6].copy_from_slice(&LOOP_GROUP.0);
        bytes[6..12].copy_from_slice(&MacAddr::local(self.id).0);
        bytes[12..HEADER].copy_from_slice(&LOOP_PROBE.to_be_bytes());
        bytes[HEADER..HEADER + 8].copy_from_slice(&self.id.to_be_bytes());
        bytes[HEADER + 8..HEADER + 10].copy_from_slice(&port.0.to_be_bytes());
        bytes[HEADER + 10..HEADER + 12].copy_from_slice(&segment.0.to_be_bytes());
        bytes[HEADER + 12..HEADER + 20].copy_from_slice(&self.token((port, segment)));
        frame
    }

    /// A probe that left by one port came in by another, or by the same.
    pub fn returned(&mut self, now: Duration, sent_by: PortId, came_in_by: PortId) -> Option<LoopFound> {
        for port in [sent_by, came_in_by] {
            if let Some(block) = self.watch_mut(port).and_then(|w| w.block.as_mut()) {
                block.seen = Some(now);
            }
        }
        self.found(now, sent_by, came_in_by, LoopEvidence::Probe)
    }

    /// A station went from one port to another, and has moved like this within the second.
    pub fn jumped(
        &mut self,
        now: Duration,
        from: PortId,
        to: PortId,
        restless: Restless,
    ) -> Option<LoopFound> {
        if restless.moves >= MOVES_SUSPECT {
            let soon = self.last_probe.saturating_add(SUSPECT_INTERVAL).max(now);
            self.next_probe = self.next_probe.map(|at| at.min(soon));
        }
        if restless.returns < RETURNS_LIMIT && restless.moves < MOVES_LIMIT {
            return None;
        }
        self.found(now, from, to, LoopEvidence::Flapping)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration, out: &mut impl FnMut(LoopAction)) {
        if self.next_trial.is_some_and(|at| at <= now) {
            self.try_again(now, out);
        }
        if self.next_probe.is_some_and(|at| at <= now) {
            self.round = self.round.wrapping_add(1);
            let round = self.round;
            let ports = (0u16..).zip(&self.watches).filter(|(_, watch)| watch.is_some());
            ports.for_each(|(port, _)| out(LoopAction::Probe { port: PortId(port), round }));
            self.last_probe = now;
            self.next_probe = Some(now.saturating_add(self.jittered(PROBE_INTERVAL)));
        }
    }

    /// When [`LoopGuard::handle_timeout`] has something to do next.
    pub fn next_timeout(&self) -> Option<Duration> {
        [self.next_probe, self.next_trial].into_iter().flatten().min()
    }

    /// Opens the ports whose time is over, but for those whose probes still come back.
    fn try_again(&mut self, now: Duration, out: &mut impl FnMut(LoopAction)) {
        for at in 0..self.watches.len() {
            let Some(watch) = self.watches[at] else { continue };
            let Some(block) = watch.block.filter(|b| b.until <= now) else { continue };
            let still = block.seen.is_some_and(|seen| now.saturating_sub(seen) <= FRESH);
            let watch = if still {
                let until = now.saturating_add(self.jittered(watch.time));
                Watch { block: Some(Block { until, ..block }), time: longer(watch.time), ..watch }
            } else {
                Watch { block: None, opened: Some(now), ..watch }
            };
            self.watches[at] = Some(watch);
            if let (None, Ok(port)) = (watch.block, u16::try_from(at)) {
                out(LoopAction::Opened { port: PortId(port) });
            }
        }
        self.note_next_trial();
    }

    /// Two ports are one loop: blocks one of them, unless one is.
    fn found(&mut self, now: Duration, a: PortId, b: PortId, evidence: LoopEvidence) -> Option<LoopFound> {
        if self.is_blocked(a) || self.is_blocked(b) {
            return None;
        }
        let (low, high) = (a.min(b), a.max(b));
        let (port, other) = if self.watch_mut(high).is_some() { (high, low) } else { (low, high) };
        let watch = *self.watch_mut(port)?;
        // One that has been open for longer than it was blocked starts anew.
        let relapse = watch.opened.is_some_and(|opened| now.saturating_sub(opened) < watch.time);
        let time = if relapse { watch.time } else { FIRST_BLOCK };
        let blocked_for = self.jittered(time);
        let seen = (evidence == LoopEvidence::Probe).then_some(now);
        let block = Some(Block { until: now.saturating_add(blocked_for), seen });
        *self.watch_mut(port)? = Watch { block, time: longer(time), ..watch };
        self.note_next_trial();
        Some(LoopFound { port, other, evidence, blocked_for })
    }

    fn watch_mut(&mut self, port: PortId) -> Option<&mut Watch> {
        self.watches.get_mut(usize::from(port.0))?.as_mut()
    }

    fn block(&self, port: PortId) -> Option<&Block> {
        self.watches.get(usize::from(port.0))?.as_ref()?.block.as_ref()
    }

    fn note_next_trial(&mut self) {
        self.next_trial = self.watches.iter().flatten().filter_map(|w| Some(w.block?.until)).min();
    }

    fn token(&self, place: (PortId, SegmentId)) -> [u8; 8] {
        self.tokens.hash_one(place).to_be_bytes()
    }

    /// A time with up to a quarter added or taken away, so that two switches do not act in step.
    fn jittered(&mut self, time: Duration) -> Duration {
        const STEPS: u32 = 1024;
        let random = (time / 2).saturating_mul(self.rng.below(STEPS + 1)) / STEPS;
        (time - time / 4).saturating_add(random)
    }
}

fn longer(time: Duration) -> Duration {
    time.saturating_mul(2).min(LONGEST_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    const A: PortId = PortId(1);
    const B: PortId = PortId(2);

    fn guard(ports: &[PortId]) -> LoopGuard {
        let mut guard = LoopGuard::new(&Seed::from_u64(1));
        guard.watch(ports.iter().copied());
        guard
    }

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    const LAN: SegmentId = SegmentId(7);

    fn read(guard: &LoopGuard, bytes: &[u8]) -> Option<(PortId, SegmentId)> {
        guard.read(&parse::link(bytes).unwrap(), bytes)
    }

    #[test]
    fn only_its_own_unchanged_probes_are_recognised() {
        let (ours, theirs) = (guard(&[A, B]), LoopGuard::new(&Seed::from_u64(2)));
        let mut pool = FramePool::new();
        let frame = ours.probe(&mut pool, A, LAN);
        assert_eq!((frame.len(), read(&ours, frame.bytes())), (60, Some((A, LAN))));
        assert_eq!(read(&theirs, frame.bytes()), None);
        for at in 12..34 {
            let mut forged = frame.bytes().to_vec();
            forged[at] ^= 1;
            assert_eq!(read(&ours, &forged), None, "octet {at}");
        }
        // The token of one port is none for another.
        let mut forged = frame.bytes().to_vec();
        forged[22..24].copy_from_slice(&B.0.to_be_bytes());
        assert_eq!(read(&ours, &forged), None);
        for len in 14..34 {
            assert_eq!(read(&ours, &frame.bytes()[..len]), None);
        }
    }

    #[test]
    fn of_two_ports_the_higher_guarded_one_is_blocked() {
        for (watched, blocked) in [(&[A, B][..], B), (&[A], A), (&[B], B)] {
            for (from, to) in [(A, B), (B, A)] {
                let mut guard = guard(watched);
                assert_eq!(guard.returned(secs(1), from, to).unwrap().port, blocked);
                assert!(guard.is_blocked(blocked) && !guard.is_blocked(if blocked == A { B } else { A }));
                assert_eq!(guard.returned(secs(1), from, to), None, "known");
            }
        }
        let wild = Restless { moves: u16::MAX, returns: u16::MAX };
        assert_eq!(guard(&[]).jumped(secs(1), A, B, wild), None);
        assert_eq!(guard(&[A]).returned(secs(1), A, A).unwrap().other, A);
    }

    /// Runs a guard whose probes come back while `looped`, for so many seconds; gives the times at which the port opened.
    fn run(guard: &mut LoopGuard, from: u64, to: u64, looped: bool) -> Vec<Duration> {
        let mut opened = Vec::new();
        let mut now = secs(from);
        while let Some(at) = guard.next_timeout().filter(|&at| at < secs(to)) {
            now = now.max(at);
            let mut probes = Vec::new();
            guard.handle_timeout(now, &mut |action| match action {
                LoopAction::Probe { port, .. } => probes.push(port),
                LoopAction::Opened { .. } => opened.push(now),
            });
            if looped && probes.contains(&A) {
                let _ = guard.returned(now, A, B);
            }
            assert!(guard.next_timeout().is_none_or(|next| next > now));
        }
        opened
    }

    #[test]
    fn a_loop_that_stays_is_never_opened_and_one_that_goes_is() {
        let mut guard = guard(&[A, B]);
        assert_eq!(run(&mut guard, 10, 2000, true), []);
        assert!(guard.is_blocked(B));
        let opened = run(&mut guard, 2000, 3000, false);
        assert_eq!(opened.len(), 1);
        assert!(!guard.is_blocked(B));
        // Open for long, it starts anew.
        let found = guard.returned(secs(5000), A, B).unwrap();
        assert!(found.blocked_for <= FIRST_BLOCK + FIRST_BLOCK / 4);
    }

    #[test]
    fn a_relapse_waits_longer_up_to_a_limit() {
        let mut guard = guard(&[A, B]);
        let mut now = secs(100);
        let mut last = Duration::ZERO;
        for round in 0..12 {
            let found = guard.jumped(now, A, B, Restless { moves: 17, returns: RETURNS_LIMIT }).unwrap();
            assert!(round >= 6 || found.blocked_for > last, "{round}: {found:?}");
            assert!(found.blocked_for <= LONGEST_BLOCK + LONGEST_BLOCK / 4);
            last = found.blocked_for;
            now += found.blocked_for;
            let mut opened = 0;
            guard.handle_timeout(now, &mut |a| opened += usize::from(a == LoopAction::Opened { port: B }));
            assert_eq!(opened, 1);
        }
        assert!(last > LONGEST_BLOCK / 2);
    }

    #[test]
    fn a_restless_station_has_probes_sent_at_once_and_then_ports_blocked() {
        let mut guard = guard(&[A, B]);
        guard.handle_timeout(secs(10), &mut |_| ());
        let jump = |guard: &mut LoopGuard, moves, returns| {
            guard.jumped(secs(11), A, B, Restless { moves, returns }).is_some()
        };
        assert!(!jump(&mut guard, MOVES_SUSPECT - 1, 0));
        assert!(guard.next_timeout() > Some(secs(11)));
        assert!(!jump(&mut guard, MOVES_SUSPECT, 0));
        assert_eq!(guard.next_timeout(), Some(secs(11)));
        // Not sooner than a moment after the last round, however it jumps.
        guard.handle_timeout(secs(11), &mut |_| ());
        assert!(!jump(&mut guard, MOVES_LIMIT - 1, RETURNS_LIMIT - 1));
        assert_eq!(guard.next_timeout(), Some(secs(11) + SUSPECT_INTERVAL));
        // From port to port to port is a loop as well.
        assert!(jump(&mut guard, MOVES_LIMIT, 0));
    }

    #[test]
    fn a_port_that_is_forgotten_is_open() {
        let mut guard = guard(&[A, B]);
        assert!(guard.returned(secs(1), A, B).is_some());
        guard.watch([A, B].into_iter());
        assert!(guard.is_blocked(B), "what is known stays known");
        guard.forget(B);
        assert!(!guard.is_blocked(B));
        guard.watch([].into_iter());
        assert_eq!(guard.next_timeout(), None);
    }
}
