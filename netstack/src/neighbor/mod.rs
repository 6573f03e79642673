//! Neighbours: ARP and neighbour discovery as one machine, and the frames that wait for it.
//!
//! # Theory of operation
//! A neighbour is a segment and an IP address of either family. [`Neighbors`] holds what is known of its MAC address, in
//! the six states of [`NeighborState`]; [`Discovery`] says what a parsed message means, messages come in as a
//! [`Hearing`], and what is to be sent comes out as a [`NeighborAction`], so that nothing in here reads or writes a
//! packet. [`Parked`] holds the frames that wait. Our own addresses are next door: [`Claims`] probes them, [`Defence`]
//! answers those who claim them, [`Advertiser`] says when a router tells about itself.
//!
//! *Two steps.* [`Neighbors::lookup`] only looks. Whoever really sends then tells [`Neighbors::use_entry`], which starts
//! the verification of a stale address, or [`Neighbors::resolve`], which starts asking for an unknown one. A frame that
//! is dropped between the two leaves nothing behind.
//!
//! *Time.* INCOMPLETE, DELAY and PROBE have exactly one deadline each and the other states have none: REACHABLE turns
//! STALE, and FAILED may be asked again, when somebody looks at them late enough. Deadlines sit in a heap that names each
//! slot at most once, so neither idle neighbours nor hostile messages make it grow. No neighbour is asked more than once
//! in [`NeighborTimers::retransmit`] (RFC 1122 section 2.3.2.1), whatever its history, because an entry that was asked
//! so lately is not evicted. Only [`Neighbors::remove`] and [`Neighbors::flush_segment`], which people ask for, forget
//! that as well.
//!
//! *Bounds.* The table takes its memory at construction. When it is full, a new neighbour looks at the next
//! [`EVICTION_SCAN`] slots and takes the place of a FAILED entry or of the oldest STALE one. A neighbour that merely
//! asked for us takes only a STALE place that has been so for [`NeighborTimers::gc_stale`], so that a flood of made-up
//! askers does not push out what is in use; one that traffic wants takes any. Failing that the newcomer is refused and
//! counted. Entries in any other state are never evicted.
//!
//! *Validity by object.* An address that comes on record gets a generation from one counter of the table. A slot with a
//! generation names that address of that neighbour; [`Neighbors::resolved`] gives it as long as it holds.

mod advertiser;
mod claim;
mod deadlines;
mod discovery;
mod parked;
mod report;
mod state;

pub use advertiser::Advertiser;
pub use claim::{ClaimAction, Claims, ConflictCounters, DEFEND_INTERVAL, Defence, Standing};
pub use discovery::Discovery;
pub use parked::{Parked, Parking};
pub use report::{Adjacency, Heard, NeighborAction, NeighborCounters, NeighborEntry, Resolving};
pub use state::{Hearing, NeighborState, NeighborTimers};

use core::net::IpAddr;
use core::time::Duration;

use crate::addr::{MacAddr, SegmentId};
use crate::config::Limits;
use crate::seed::{Rng, Seed};
use crate::table::{BoundedMap, TableFull};
use deadlines::Deadlines;
use state::{Change, Entry};

/// Slots that a newcomer to a full table looks at for one to evict.
pub const EVICTION_SCAN: usize = 16;

type Key = (SegmentId, IpAddr);

/// The neighbours of one switch; holds at most `Limits::neighbors`.
#[derive(Debug)]
pub struct Neighbors {
    table: BoundedMap<Key, Entry>,
    deadlines: Deadlines,
    timers: NeighborTimers,
    rng: Rng,
    generations: u32,
    /// Where the search for a slot to evict goes on.
    eviction_cursor: u32,
    counters: NeighborCounters,
}

impl Neighbors {
    /// An empty table; takes all its memory at once.
    pub fn new(limits: &Limits, seed: &Seed, timers: NeighborTimers) -> Self {
        Self {
            table: BoundedMap::new(limits.neighbors, seed.hasher("neighbor")),
            deadlines: Deadlines::new(limits.neighbors),
            timers,
            rng: seed.rng("neighbor reachable time"),
            generations: 0,
            eviction_cursor: 0,
            counters: NeighborCounters::default(),
        }
    }

    /// What is known about a neighbour.
    pub fn lookup(&self, now: Duration, segment: SegmentId, ip: IpAddr) -> Adjacency {
        let Some(slot) = self.table.slot(&(segment, ip)) else {
            return Adjacency::Unknown;
        };
        let Some((_, entry)) = self.table.at(slot) else {
            return Adjacency::Unknown;
        };
        match entry.state(now) {
            NeighborState::Incomplete => Adjacency::Pending { slot },
            NeighborState::Failed if entry.is_held(now) => Adjacency::Failed,
            NeighborState::Failed => Adjacency::Unknown,
            NeighborState::Reachable | NeighborState::Stale | NeighborState::Delay | NeighborState::Probe => {
                Adjacency::Known { mac: entry.mac, slot, generation: entry.generation }
            }
        }
    }

    /// The MAC address that a kept slot and generation stand for, as long as it holds.
    pub fn resolved(&self, slot: u32, generation: u32) -> Option<MacAddr> {
        let (_, entry) = self.table.at(slot)?;
        (entry.is_usable() && entry.generation == generation).then_some(entry.mac)
    }

    /// Whom a slot is about.
    pub fn address(&self, slot: u32) -> Option<IpAddr> {
        self.table.at(slot).map(|((_, address), _)| *address)
    }

    /// The generation of what stands in a slot.
    pub fn generation(&self, slot: u32) -> Option<u32> {
        self.table.at(slot).map(|(_, entry)| entry.generation)
    }

    /// Takes note that a frame goes to a known neighbour. The first one to a stale neighbour starts its verification.
    pub fn use_entry(&mut self, now: Duration, slot: u32) {
        if let Some((_, entry)) = self.table.at_mut(slot)
            && entry.state(now) == NeighborState::Stale
        {
            entry.enter(now, NeighborState::Delay);
            self.deadlines.set(slot, now.saturating_add(self.timers.delay_first_probe));
        }
    }

    /// Starts asking for a neighbour that is unknown or has failed; one that is already asked for or known is left alone.
    pub fn resolve(&mut self, now: Duration, segment: SegmentId, ip: IpAddr) -> Result<Resolving, TableFull> {
        let entry = Entry::new(now, NeighborState::Incomplete, MacAddr::ZERO, 0);
        let slot = match self.table.slot(&(segment, ip)) {
            Some(slot) => {
                let Some((_, entry)) = self.table.at_mut(slot) else {
                    return Err(TableFull);
                };
                if entry.state(now) != NeighborState::Failed {
                    return Ok(Resolving { slot, solicit: false });
                }
                entry.enter(now, NeighborState::Incomplete);
                slot
            }
            None => self.create(now, (segment, ip), entry, Need::Traffic)?,
        };
        let solicit = self.ask_when_allowed(now, slot);
        Ok(Resolving { slot, solicit })
    }

    /// Takes note of a message that names `ip` and, if it holds one, its MAC address. See [`Hearing`].
    pub fn heard(
        &mut self,
        now: Duration,
        segment: SegmentId,
        ip: IpAddr,
        mac: Option<MacAddr>,
        hearing: Hearing,
    ) -> Heard {
        if !is_station(ip) || mac.is_some_and(|mac| !mac.is_valid_source()) {
            return Heard::Ignored;
        }
        let believed = self.draw_reachable_time();
        let Some(slot) = self.table.slot(&(segment, ip)) else {
            return self.introduce(now, (segment, ip), mac, hearing);
        };
        let Some((_, entry)) = self.table.at_mut(slot) else {
            return Heard::Ignored;
        };
        if entry.state(now) == NeighborState::Failed {
            return self.revive(now, slot, mac, hearing);
        }
        let change = entry.hear(now, ip, mac, hearing, believed, &self.timers);
        if change != Change::None {
            entry.generation = self.generations;
            self.generations = self.generations.wrapping_add(1);
        }
        match entry.state(now) {
            NeighborState::Reachable | NeighborState::Stale => self.deadlines.clear(slot),
            NeighborState::Incomplete
            | NeighborState::Delay
            | NeighborState::Probe
            | NeighborState::Failed => {}
        }
        match change {
            Change::None => Heard::Noted { slot },
            Change::Resolved => {
                self.counters.resolved += 1;
                Heard::Resolved { slot }
            }
            Change::Moved { from } => {
                self.counters.moved += 1;
                Heard::Moved { slot, from }
            }
        }
    }

    /// Handles at most `budget` deadlines that have come. Whether more are due, [`Neighbors::next_timeout`] tells.
    pub fn handle_timeout(&mut self, now: Duration, budget: usize, out: &mut impl FnMut(NeighborAction)) {
        for _ in 0..budget {
            match self.deadlines.first() {
                Some((at, slot)) if at <= now => self.expire(now, slot, out),
                Some(_) | None => return,
            }
        }
    }

    /// When [`Neighbors::handle_timeout`] has something to do next.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| at)
    }

    /// Forgets a neighbour and names its slot, so that the caller can empty what is parked there.
    #[must_use = "frames may be parked under the slot"]
    pub fn remove(&mut self, segment: SegmentId, ip: IpAddr) -> Option<u32> {
        let slot = self.table.slot(&(segment, ip))?;
        self.drop_slot(slot);
        self.counters.removed += 1;
        Some(slot)
    }

    /// Forgets the neighbours in a segment and names their slots, so that the caller can empty what is parked there.
    /// Walks the table: for the control plane.
    pub fn flush_segment(&mut self, segment: SegmentId, removed: &mut impl FnMut(u32)) {
        for slot in (0u32..).take(self.table.capacity()) {
            if self.table.at(slot).is_some_and(|(key, _)| key.0 == segment) {
                self.drop_slot(slot);
                self.counters.removed += 1;
                removed(slot);
            }
        }
    }

    /// All entries as they are at `now`, in no order of meaning.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = NeighborEntry> {
        self.table.iter().map(move |(_, &(segment, ip), entry)| {
            let state = entry.state(now);
            NeighborEntry {
                segment,
                ip,
                state,
                mac: state.is_usable().then_some(entry.mac),
                age: now.saturating_sub(entry.since(now)),
            }
        })
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// What the table has done.
    pub fn counters(&self) -> NeighborCounters {
        self.counters
    }

    /// A message from a neighbour that is not on record.
    fn introduce(&mut self, now: Duration, key: Key, mac: Option<MacAddr>, hearing: Hearing) -> Heard {
        let (Hearing::Solicitation, Some(mac)) = (hearing, mac) else {
            return Heard::Ignored;
        };
        let entry = Entry::new(now, NeighborState::Stale, mac, self.generations);
        let Ok(slot) = self.create(now, key, entry, Need::Courtesy) else {
            return Heard::Ignored;
        };
        self.generations = self.generations.wrapping_add(1);
        Heard::Created { slot }
    }

    /// A message from a neighbour that has failed, which by the rules is one that is not on record.
    fn revive(&mut self, now: Duration, slot: u32, mac: Option<MacAddr>, hearing: Hearing) -> Heard {
        let (Hearing::Solicitation, Some(mac), Some((_, entry))) = (hearing, mac, self.table.at_mut(slot))
        else {
            return Heard::Ignored;
        };
        entry.enter(now, NeighborState::Stale);
        entry.mac = mac;
        entry.generation = self.generations;
        self.generations = self.generations.wrapping_add(1);
        Heard::Created { slot }
    }

    /// A deadline has come.
    fn expire(&mut self, now: Duration, slot: u32, out: &mut impl FnMut(NeighborAction)) {
        let Some((&(segment, ip), entry)) = self.table.at_mut(slot) else {
            self.deadlines.clear(slot);
            return;
        };
        if entry.state(now) == NeighborState::Delay {
            entry.enter(now, NeighborState::Probe);
        }
        let (unicast_to, limit, hold) = match entry.state(now) {
            NeighborState::Incomplete => (None, self.timers.max_multicast_solicit, self.timers.failed_hold),
            // RFC 4861 section 7.3.3: "Subsequent traffic to that neighbor will recreate the entry and perform
            // address resolution again", without a pause, because the neighbour may be there with another address.
            NeighborState::Probe => (Some(entry.mac), self.timers.max_unicast_solicit, Duration::ZERO),
            NeighborState::Reachable
            | NeighborState::Stale
            | NeighborState::Delay
            | NeighborState::Failed => {
                self.deadlines.clear(slot);
                return;
            }
        };
        if entry.solicits >= limit.max(1) {
            entry.fail(now, hold);
            self.deadlines.clear(slot);
            self.counters.failed += 1;
            out(NeighborAction::Failed { segment, ip, slot });
        } else if self.ask_when_allowed(now, slot) {
            out(NeighborAction::Solicit { segment, ip, unicast_to });
        }
    }

    /// Counts a solicitation and sets the deadline for its answer, or puts it off when the last one is too recent. Says
    /// whether it is to be sent now.
    fn ask_when_allowed(&mut self, now: Duration, slot: u32) -> bool {
        let Some((_, entry)) = self.table.at_mut(slot) else {
            return false;
        };
        let allowed = entry.may_ask(now, &self.timers);
        if allowed > now {
            self.deadlines.set(slot, allowed);
            return false;
        }
        entry.solicits = entry.solicits.saturating_add(1);
        entry.asked = Some(now);
        self.deadlines.set(slot, now.saturating_add(self.timers.retransmit));
        self.counters.solicitations += 1;
        true
    }

    fn create(&mut self, now: Duration, key: Key, entry: Entry, need: Need) -> Result<u32, TableFull> {
        if self.table.len() >= self.table.capacity() {
            let Some(slot) = self.slot_to_evict(now, need) else {
                self.counters.refused += 1;
                return Err(TableFull);
            };
            self.drop_slot(slot);
            self.counters.evicted += 1;
        }
        let slot = self.table.insert(key, entry)?;
        self.counters.created += 1;
        Ok(slot)
    }

    /// The best slot to give up among the next few: a failed neighbour's, or that of the one stale for longest.
    fn slot_to_evict(&mut self, now: Duration, need: Need) -> Option<u32> {
        let capacity = u32::try_from(self.table.capacity()).unwrap_or(u32::MAX);
        let mut best = None;
        for _ in 0..EVICTION_SCAN.min(self.table.capacity()) {
            let slot = self.eviction_cursor;
            self.eviction_cursor = (slot + 1) % capacity;
            let Some((_, entry)) = self.table.at(slot) else {
                continue;
            };
            let since = entry.since(now);
            let (evictable, stale) = match entry.state(now) {
                NeighborState::Failed => (true, false),
                NeighborState::Stale => {
                    (need == Need::Traffic || now.saturating_sub(since) >= self.timers.gc_stale, true)
                }
                NeighborState::Incomplete
                | NeighborState::Reachable
                | NeighborState::Delay
                | NeighborState::Probe => (false, false),
            };
            // An entry that was asked a moment ago remembers that for the sake of the rate.
            if evictable && entry.may_ask(now, &self.timers) <= now {
                let candidate = (stale, since, slot);
                best = Some(best.map_or(candidate, |b| candidate.min(b)));
            }
        }
        best.map(|(_, _, slot)| slot)
    }

    fn drop_slot(&mut self, slot: u32) {
        self.deadlines.clear(slot);
        self.table.remove_at(slot);
    }

    /// [`NeighborTimers::reachable`] times a factor between 0.5 and 1.5.
    fn draw_reachable_time(&mut self) -> Duration {
        const STEPS: u32 = 1024;
        let base = self.timers.reachable;
        let random = base.saturating_mul(self.rng.below(STEPS + 1)) / STEPS;
        (base / 2).saturating_add(random)
    }
}

/// What a new entry is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// A frame is to be sent there.
    Traffic,
    /// It asked for us, so we might send there soon.
    Courtesy,
}

/// Whether an address can be a neighbour's (ARP-2: an address probe, with sender 0, teaches nothing).
fn is_station(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast)
}

#[cfg(test)]
mod tests;
