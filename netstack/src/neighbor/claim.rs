//! Own addresses that are probed for duplicates before they are used, and the defence of those in use.
//!
//! # Theory of operation
//! [`Claims`] holds an address from the moment that it is configured until it has been announced; one that is not held is
//! in use. IPv4 and IPv6 go through the same steps with different numbers:
//!
//! | step | IPv4 (RFC 5227 sections 1.1, 2.1, 2.3) | IPv6 (RFC 4862 sections 5.1, 5.4; RFC 4861 section 10) |
//! |---|---|---|
//! | wait | 0 to 1 s (PROBE_WAIT) | 0 to 1 s (MAX_RTR_SOLICITATION_DELAY) |
//! | probe | 3 (PROBE_NUM), 1 to 2 s apart (PROBE_MIN, PROBE_MAX) | 1 (DupAddrDetectTransmits) |
//! | wait | 2 s (ANNOUNCE_WAIT) | 1 s (RETRANS_TIMER) |
//! | use and announce | 2 (ANNOUNCE_NUM), 2 s apart (ANNOUNCE_INTERVAL) | the same, as unsolicited advertisements |
//!
//! An address that an interface in use gets in addition, without probing, has most likely been another's: it is announced
//! [`TAKEOVER_NUM`] times, a second apart (RFC 4861 section 7.2.6, and so for IPv4), so that whoever knows it at another MAC
//! address learns better even if some of that is lost.
//!
//! Whoever else shows that he has or wants the address before it is used has won: it is given up and stays unused until
//! it is configured anew.
//!
//! [`Defence`] is for addresses in use: whoever claims one is answered by an announcement, at most once in
//! [`DEFEND_INTERVAL`] per address and whatever the number of claims (RFC 5227 section 2.4 b), so that two stations that
//! both believe to be right do not shout at each other. It remembers a bounded number of addresses; an address that finds
//! no room is not announced then, and the claim is counted as any other.

use alloc::collections::BTreeMap;
use core::net::IpAddr;
use core::time::Duration;

use crate::addr::SegmentId;
use crate::seed::{Rng, Seed};
use crate::table::BoundedMap;

/// Between two announcements in defence of one address (RFC 5227 section 1.1).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// The longest wait before the first probe, so that machines switched on together do not all probe at once.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u8 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_NUM: u8 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// RFC 4861 section 10: MAX_NEIGHBOR_ADVERTISEMENT, which IPv4 has no reason to differ from.
const TAKEOVER_NUM: u8 = 3;
const TAKEOVER_INTERVAL: Duration = RETRANS_TIMER;
/// RFC 4862 section 5.1: DupAddrDetectTransmits, and RFC 4861 section 10: RETRANS_TIMER.
const DAD_TRANSMITS: u8 = 1;
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// Addresses whose last defence is remembered.
const DEFENDED: u32 = 256;
/// Slots looked at for one that may be forgotten.
const DEFENCE_SCAN: usize = 16;

type Key = (SegmentId, IpAddr);

/// Whether an address that is configured as our own may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is used.
    Usable,
    /// It is being probed: it is neither used nor answered for.
    Tentative,
    /// Somebody else has it: here it is an address like any other.
    Lost,
}

#[derive(Clone, Copy, Debug)]
enum Claim {
    /// Probes sent.
    Probing(u8),
    /// Announcements sent. In use.
    Announcing(u8),
    /// Announcements sent of an address that was not probed. In use.
    TakingOver(u8),
    Lost,
}

/// What the passing of time asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimAction {
    /// Ask whether anybody has the address, without saying who asks.
    Probe {
        /// Where.
        segment: SegmentId,
        /// For which.
        address: IpAddr,
    },
    /// Tell everybody who has it.
    Announce {
        /// Where.
        segment: SegmentId,
        /// Which.
        address: IpAddr,
        /// Whether it is in use only from now on.
        first: bool,
    },
}

/// Own addresses on their way into use, and those that were lost.
#[derive(Debug)]
pub struct Claims {
    held: BTreeMap<Key, (Claim, Option<Duration>)>,
    next: Option<Duration>,
    rng: Rng,
}

impl Claims {
    /// None.
    pub fn new(seed: &Seed) -> Self {
        Self { held: BTreeMap::new(), next: None, rng: seed.rng("address probes") }
    }

    /// Starts over with an address; probing begins as soon as time is told.
    pub fn begin(&mut self, segment: SegmentId, address: IpAddr) {
        self.held.insert((segment, address), (Claim::Probing(0), Some(Duration::ZERO)));
        self.next = Some(Duration::ZERO);
    }

    /// Announces an address that is in use from now on, as soon as time is told.
    pub fn take_over(&mut self, segment: SegmentId, address: IpAddr) {
        self.held.insert((segment, address), (Claim::TakingOver(0), Some(Duration::ZERO)));
        self.next = Some(Duration::ZERO);
    }

    /// Forgets those addresses that are to be forgotten.
    pub fn retain(&mut self, mut keep: impl FnMut(SegmentId, IpAddr) -> bool) {
        self.held.retain(|&(segment, address), _| keep(segment, address));
        self.note_next();
    }

    /// Whether every configured address is used and known.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether an address of ours may be used.
    #[inline]
    pub fn standing(&self, segment: SegmentId, address: IpAddr) -> Standing {
        if self.held.is_empty() {
            return Standing::Usable;
        }
        match self.held.get(&(segment, address)) {
            None | Some((Claim::Announcing(_) | Claim::TakingOver(_), _)) => Standing::Usable,
            Some((Claim::Probing(_), _)) => Standing::Tentative,
            Some((Claim::Lost, _)) => Standing::Lost,
        }
    }

    /// Somebody else has or wants the address; says whether it was being probed, and so is lost just now.
    pub fn lose(&mut self, segment: SegmentId, address: IpAddr) -> bool {
        let Some(held @ (Claim::Probing(_), _)) = self.held.get_mut(&(segment, address)) else {
            return false;
        };
        *held = (Claim::Lost, None);
        self.note_next();
        true
    }

    /// Does what is due: at most one step per address.
    pub fn handle_timeout(&mut self, now: Duration, out: &mut impl FnMut(ClaimAction)) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let rng = &mut self.rng;
        self.held.retain(|&(segment, address), (claim, due)| {
            if due.is_none_or(|at| at > now) {
                return true;
            }
            let Some((next, after)) = step(*claim, *due, address, rng, |what| {
                out(match what {
                    Step::Probe => ClaimAction::Probe { segment, address },
                    Step::Announce { first } => ClaimAction::Announce { segment, address, first },
                });
            }) else {
                return false;
            };
            (*claim, *due) = (next, Some(now.saturating_add(after)));
            true
        });
        self.note_next();
    }

    /// When [`Claims::handle_timeout`] has something to do next.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.next
    }

    fn note_next(&mut self) {
        self.next = self.held.values().filter_map(|(_, due)| *due).min();
    }
}

enum Step {
    Probe,
    Announce { first: bool },
}

/// What is done now, what the claim is from here on, and after which time it goes on; none when it is done with.
fn step(
    claim: Claim,
    due: Option<Duration>,
    address: IpAddr,
    rng: &mut Rng,
    mut act: impl FnMut(Step),
) -> Option<(Claim, Duration)> {
    let (probes, settle) = match address {
        IpAddr::V4(_) => (PROBE_NUM, ANNOUNCE_WAIT),
        IpAddr::V6(_) => (DAD_TRANSMITS, RETRANS_TIMER),
    };
    match claim {
        // The clock has just been told for the first time.
        Claim::Probing(0) if due == Some(Duration::ZERO) => {
            Some((claim, between(rng, Duration::from_millis(1), PROBE_WAIT)))
        }
        Claim::Probing(sent) if sent < probes => {
            act(Step::Probe);
            let last = sent + 1 == probes;
            Some((Claim::Probing(sent + 1), if last { settle } else { between(rng, PROBE_MIN, PROBE_MAX) }))
        }
        Claim::Probing(_) => {
            act(Step::Announce { first: true });
            Some((Claim::Announcing(1), ANNOUNCE_INTERVAL))
        }
        Claim::Announcing(sent) if sent < ANNOUNCE_NUM => {
            act(Step::Announce { first: false });
            (sent + 1 < ANNOUNCE_NUM).then_some((Claim::Announcing(sent + 1), ANNOUNCE_INTERVAL))
        }
        Claim::TakingOver(sent) => {
            act(Step::Announce { first: false });
            (sent + 1 < TAKEOVER_NUM).then_some((Claim::TakingOver(sent + 1), TAKEOVER_INTERVAL))
        }
        Claim::Announcing(_) | Claim::Lost => None,
    }
}

fn between(rng: &mut Rng, least: Duration, most: Duration) -> Duration {
    const STEPS: u32 = 1024;
    least + most.saturating_sub(least) * rng.below(STEPS + 1) / STEPS
}

/// What became of claims to addresses in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConflictCounters {
    /// Messages by which somebody else claimed an address in use here.
    pub claims: u64,
    /// Those that were told and, where they were not answered anyway, met by an announcement.
    pub defended: u64,
}

/// When which address was defended last.
#[derive(Debug)]
pub struct Defence {
    last: BoundedMap<Key, Duration>,
    counters: ConflictCounters,
}

impl Defence {
    /// Nothing was defended so far; takes its memory at once.
    pub fn new(seed: &Seed) -> Self {
        Self {
            last: BoundedMap::new(DEFENDED, seed.hasher("address defence")),
            counters: ConflictCounters::default(),
        }
    }

    /// Takes note of a claim to an address in use, and says whether it is to be defended now.
    pub fn claimed(&mut self, now: Duration, segment: SegmentId, address: IpAddr) -> bool {
        self.counters.claims += 1;
        if !self.is_due(now, segment, address) {
            return false;
        }
        if self.last.len() == self.last.capacity() {
            let old = |last: &Duration| now.saturating_sub(*last) >= DEFEND_INTERVAL;
            self.last.sweep(DEFENCE_SCAN, |_, last| old(last), |_, _| ());
        }
        let defended = self.last.insert((segment, address), now).is_ok();
        self.counters.defended += u64::from(defended);
        defended
    }

    /// Whether a claim to an address in use would be met by an announcement.
    pub fn is_due(&self, now: Duration, segment: SegmentId, address: IpAddr) -> bool {
        self.last.get(&(segment, address)).is_none_or(|last| now.saturating_sub(*last) >= DEFEND_INTERVAL)
    }

    /// What became of claims so far.
    pub fn counters(&self) -> ConflictCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const LAN: SegmentId = SegmentId(1);

    fn v4() -> IpAddr {
        "10.0.0.1".parse().unwrap()
    }

    fn v6() -> IpAddr {
        "fd00::1".parse().unwrap()
    }

    /// What happens from `from` on, and when.
    fn run(claims: &mut Claims, from: Duration) -> Vec<(Duration, ClaimAction)> {
        let (mut now, mut done) = (from, Vec::new());
        while let Some(at) = claims.next_timeout() {
            now = now.max(at);
            claims.handle_timeout(now, &mut |action| done.push((now, action)));
            assert!(claims.next_timeout().is_none_or(|next| next > now));
        }
        done
    }

    #[test]
    fn arp_5_three_probes_then_use_then_two_announcements() {
        for seed in 0..50 {
            let mut claims = Claims::new(&Seed::from_u64(seed));
            claims.begin(LAN, v4());
            assert_eq!(claims.standing(LAN, v4()), Standing::Tentative);
            let start = Duration::from_secs(100);
            let done = run(&mut claims, start);
            let probe = ClaimAction::Probe { segment: LAN, address: v4() };
            let announce = |first| ClaimAction::Announce { segment: LAN, address: v4(), first };
            let actions: Vec<ClaimAction> = done.iter().map(|d| d.1).collect();
            assert_eq!(actions, [probe, probe, probe, announce(true), announce(false)]);
            assert!(done[0].0 - start <= PROBE_WAIT);
            for pair in done[..3].windows(2) {
                assert!((PROBE_MIN..=PROBE_MAX).contains(&(pair[1].0 - pair[0].0)));
            }
            assert_eq!(done[3].0 - done[2].0, ANNOUNCE_WAIT);
            assert_eq!(done[4].0 - done[3].0, ANNOUNCE_INTERVAL);
            assert!(claims.is_empty());
            assert_eq!(claims.standing(LAN, v4()), Standing::Usable);
        }
    }

    #[test]
    fn ip6_3_one_probe_a_second_then_use() {
        let mut claims = Claims::new(&Seed::from_u64(1));
        claims.begin(LAN, v6());
        let done = run(&mut claims, Duration::from_secs(100));
        assert_eq!(done[0].1, ClaimAction::Probe { segment: LAN, address: v6() });
        assert_eq!(done[1].1, ClaimAction::Announce { segment: LAN, address: v6(), first: true });
        assert_eq!((done[1].0 - done[0].0, done.len()), (RETRANS_TIMER, 3));
    }

    #[test]
    fn arp_5_what_is_taken_over_is_used_at_once_and_announced_three_times_a_second_apart() {
        for address in [v4(), v6()] {
            let mut claims = Claims::new(&Seed::from_u64(1));
            claims.take_over(LAN, address);
            assert_eq!(claims.standing(LAN, address), Standing::Usable);
            let start = Duration::from_secs(100);
            let done = run(&mut claims, start);
            let announce = ClaimAction::Announce { segment: LAN, address, first: false };
            let second = Duration::from_secs(1);
            assert_eq!(done, [0, 1, 2].map(|n| (start + n * second, announce)));
            claims.take_over(LAN, address);
            assert!(!claims.lose(LAN, address), "it is in use");
        }
    }

    #[test]
    fn arp_5_what_is_lost_stays_lost_and_what_is_used_is_not_lost() {
        let mut claims = Claims::new(&Seed::from_u64(1));
        claims.begin(LAN, v4());
        assert!(!claims.lose(LAN, v6()) && claims.lose(LAN, v4()) && !claims.lose(LAN, v4()));
        assert_eq!((claims.next_timeout(), claims.standing(LAN, v4())), (None, Standing::Lost));
        claims.begin(LAN, v6());
        let mut now = Duration::from_secs(1);
        while claims.standing(LAN, v6()) == Standing::Tentative {
            now = now.max(claims.next_timeout().unwrap());
            claims.handle_timeout(now, &mut |_| ());
        }
        assert!(!claims.lose(LAN, v6()), "it is being announced");
        claims.retain(|_, address| address == v6());
        assert_eq!(claims.standing(LAN, v4()), Standing::Usable);
    }

    #[test]
    fn arp_5_an_address_is_defended_once_in_ten_seconds() {
        let mut defence = Defence::new(&Seed::from_u64(1));
        let defended: Vec<u64> =
            (0..30_000).filter(|&ms| defence.claimed(Duration::from_millis(ms), LAN, v4())).collect();
        assert_eq!(defended, [0, 10_000, 20_000]);
        assert!(defence.claimed(Duration::from_millis(20_001), LAN, v6()), "each for itself");
        assert_eq!(defence.counters(), ConflictCounters { claims: 30_001, defended: 4 });
    }

    #[test]
    fn the_memory_of_defences_is_bounded_and_comes_back() {
        let mut defence = Defence::new(&Seed::from_u64(1));
        let address = |n: u32| IpAddr::V4((0x0a00_0000 + n).into());
        let first = (0..10_000).filter(|&n| defence.claimed(Duration::from_secs(1), LAN, address(n))).count();
        assert_eq!(first, 256);
        let later =
            (0..10_000).filter(|&n| defence.claimed(Duration::from_secs(30), LAN, address(n))).count();
        assert_eq!(later, 256);
    }
}
