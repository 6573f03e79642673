//! The forwarding database: which port a MAC address was last seen on.
//!
//! # Theory of operation
//! One table for all segments, keyed by segment and address, filled from the source addresses of frames only. Its memory
//! is taken at construction.
//!
//! *Ageing* is lazy: an entry that has not been refreshed for the ageing time is no answer any more, and its slot comes
//! back when its address is seen again or when [`Fdb::sweep`] passes. A sighting refreshes an entry at most once in
//! [`REFRESH`], so a busy flow writes to the table once a second, and an entry may expire up to that much early.
//!
//! *Bounds*: no port holds more than its share, so one port cannot fill the table alone. At either bound the new address
//! is not learned and the refusal is counted; what is known stays known, and frames to the unlearned address are flooded,
//! which is always correct and only slower.
//!
//! *Validity by object*: every entry carries a generation from one counter of the table, drawn when the entry is made
//! and again when it moves. A slot together with a generation therefore names one address on one port, and a decision
//! that was kept under that pair holds as long as [`Fdb::generation`] gives the same number back.
//!
//! Static addresses (the switch's own, those of managed ports) belong to the configuration: the switch looks there
//! first and never offers them to [`Fdb::learn`].

use alloc::vec::Vec;
use core::time::Duration;

use crate::addr::{MacAddr, PortId, SegmentId};
use crate::config::Limits;
use crate::seed::Seed;
use crate::table::BoundedMap;

/// How long an address is believed after it was last seen (IEEE 802.1D-2004 table 7-5: recommended 300 s).
pub const AGEING: Duration = Duration::from_secs(300);
/// How often a sighting is written down, at most.
const REFRESH: u64 = nanos(Duration::from_secs(1));

type Key = (SegmentId, MacAddr);

#[derive(Clone, Copy, Debug)]
struct Entry {
    port: PortId,
    /// Where it was before it moved here; the same port if it has not moved.
    previous: PortId,
    /// When it was seen last, in nanoseconds.
    refreshed: u64,
    generation: u32,
    /// The second that the moves are counted in.
    second: u32,
    restless: Restless,
}

impl Entry {
    fn new(now: Duration, port: PortId, generation: u32) -> Self {
        Self {
            port,
            previous: port,
            refreshed: nanos(now),
            generation,
            second: 0,
            restless: Restless::default(),
        }
    }

    /// Puts it on another port, and says how it has moved within this second.
    fn relocate(&mut self, now: Duration, port: PortId, generation: u32) -> Restless {
        let second = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let before = if self.second == second { self.restless } else { Restless::default() };
        let returns = if self.previous == port { before.returns.saturating_add(1) } else { 0 };
        let restless = Restless { moves: before.moves.saturating_add(1), returns };
        *self = Self { port, previous: self.port, refreshed: nanos(now), generation, second, restless };
        restless
    }
}

/// How an address has moved within one second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restless {
    /// Moves from port to port.
    pub moves: u16,
    /// Those of them, in a row up to the last one, that went straight back to the port before.
    pub returns: u16,
}

/// What came of a sighting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// The address was unknown, or its entry had expired.
    New,
    /// The address is where it was; the table took note of the time.
    Refreshed,
    /// The address is where it was, and the last note is recent enough.
    Unchanged,
    /// The address was on another port, and is on this one from here on.
    Moved {
        /// The port it was on.
        from: PortId,
        /// How it has moved within this second, this time included.
        restless: Restless,
    },
    /// The address was not learned.
    Refused(Refusal),
}

/// Why an address was not learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The table holds as many addresses as it may.
    TableFull,
    /// The port holds as many addresses as it may. If the address was known on another port, that entry is gone: frames
    /// to it are flooded, so they reach it wherever it is.
    PortShareFull,
    /// A group address, or all zero: not an address a station can have.
    InvalidSource,
}

/// Where an address was found, and what to keep to notice when that changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbHit {
    /// The port it is on.
    pub port: PortId,
    /// The entry's slot; see [`Fdb::generation`].
    pub slot: u32,
    /// The entry's generation.
    pub generation: u32,
}

/// One entry, for listings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FdbEntry {
    /// Broadcast domain.
    pub segment: SegmentId,
    /// The address.
    pub mac: MacAddr,
    /// Where it was last seen.
    pub port: PortId,
    /// How long ago, to within a second.
    pub age: Duration,
}

/// What the table has done. `learned` = entries held + `aged` + `flushed` + `displaced`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FdbCounters {
    /// Entries made.
    pub learned: u64,
    /// Entries that went to another port.
    pub moved: u64,
    /// Addresses not learned because the table was full.
    pub refused_table: u64,
    /// Addresses not learned because the port's share was used up.
    pub refused_port: u64,
    /// Entries dropped for their age.
    pub aged: u64,
    /// Entries dropped with their port or segment.
    pub flushed: u64,
    /// Entries dropped because their address moved to a port whose share was used up.
    pub displaced: u64,
}

/// The table of learned addresses of one switch. Holds at most `Limits::fdb_entries`, and at most
/// `Limits::fdb_entries_per_port` of one port.
#[derive(Debug)]
pub struct Fdb {
    table: BoundedMap<Key, Entry>,
    /// Entries by port number; as long as the highest port that ever learned asks for.
    held: Vec<u32>,
    share: u32,
    /// In nanoseconds.
    ageing: u64,
    generations: u32,
    counters: FdbCounters,
}

impl Fdb {
    /// An empty table that believes addresses for [`AGEING`].
    pub fn new(limits: &Limits, seed: &Seed) -> Self {
        Self::with_ageing(limits, seed, AGEING)
    }

    /// An empty table with another ageing time (IEEE 802.1D-2004 table 7-5: 10 to 1,000,000 s; sensible values are well
    /// above the second that refreshing is coarse by).
    pub fn with_ageing(limits: &Limits, seed: &Seed, ageing: Duration) -> Self {
        Self {
            table: BoundedMap::new(limits.fdb_entries, seed.hasher("fdb")),
            held: Vec::new(),
            share: limits.fdb_entries_per_port,
            ageing: nanos(ageing),
            generations: 0,
            counters: FdbCounters::default(),
        }
    }

    /// Takes note that a frame from `mac` entered the segment through `port`.
    pub fn learn(&mut self, now: Duration, segment: SegmentId, mac: MacAddr, port: PortId) -> Learned {
        if !mac.is_valid_source() {
            return Learned::Refused(Refusal::InvalidSource);
        }
        let Some(slot) = self.table.slot(&(segment, mac)) else {
            return self.insert(now, (segment, mac), port);
        };
        let Some((_, entry)) = self.table.at_mut(slot) else {
            return self.insert(now, (segment, mac), port);
        };
        if expired(entry, now, self.ageing) {
            self.drop_slot(slot);
            self.counters.aged += 1;
            return self.insert(now, (segment, mac), port);
        }
        if entry.port != port {
            return self.relocate(now, slot, port);
        }
        if nanos(now).saturating_sub(entry.refreshed) < REFRESH {
            return Learned::Unchanged;
        }
        entry.refreshed = nanos(now);
        Learned::Refreshed
    }

    /// Takes note that a station was seen where it is known to be; false, and nothing noted, if that is not so.
    #[inline]
    pub fn refresh(&mut self, now: Duration, segment: SegmentId, mac: MacAddr, port: PortId) -> bool {
        let Some(slot) = self.table.slot(&(segment, mac)) else { return false };
        let there = |(_, entry): (&Key, &Entry)| (entry.port == port).then_some(entry.generation);
        let generation = self.table.at(slot).and_then(there);
        generation.is_some_and(|generation| self.hear(now, slot, generation))
    }

    /// The same of what a kept slot and generation stand for.
    #[inline]
    pub fn hear(&mut self, now: Duration, slot: u32, generation: u32) -> bool {
        let ageing = self.ageing;
        let Some((_, entry)) = self.table.at_mut(slot) else { return false };
        if entry.generation != generation || expired(entry, now, ageing) {
            return false;
        }
        let now = nanos(now);
        if now.saturating_sub(entry.refreshed) >= REFRESH {
            entry.refreshed = now;
        }
        true
    }

    /// Whether what a kept slot and generation stand for is still there, and recent enough to be believed.
    #[inline]
    pub fn believes(&self, now: Duration, slot: u32, generation: u32) -> bool {
        let found = self.table.at(slot);
        found.is_some_and(|(_, entry)| entry.generation == generation && !expired(entry, now, self.ageing))
    }

    /// The port that `mac` is on.
    pub fn lookup(&self, now: Duration, segment: SegmentId, mac: MacAddr) -> Option<PortId> {
        self.lookup_slot(now, segment, mac).map(|hit| hit.port)
    }

    /// As [`Fdb::lookup`], with what names the entry.
    pub fn lookup_slot(&self, now: Duration, segment: SegmentId, mac: MacAddr) -> Option<FdbHit> {
        let slot = self.table.slot(&(segment, mac))?;
        let (_, entry) = self.table.at(slot)?;
        (!expired(entry, now, self.ageing)).then_some(FdbHit {
            port: entry.port,
            slot,
            generation: entry.generation,
        })
    }

    /// The generation of what stands in a slot. As long as it equals the one of an [`FdbHit`], that hit's address is on
    /// that hit's port; an entry past its age counts until a sweep or a sighting drops it.
    pub fn generation(&self, slot: u32) -> Option<u32> {
        self.table.at(slot).map(|(_, entry)| entry.generation)
    }

    /// Looks at the next `count` slots and drops what is past its age; says how many entries went.
    pub fn sweep(&mut self, now: Duration, count: usize) -> usize {
        let (held, ageing) = (&mut self.held, self.ageing);
        let mut gone = 0;
        self.table.sweep(
            count,
            |_, entry| expired(entry, now, ageing),
            |_, entry| {
                release(held, entry.port);
                gone += 1;
            },
        );
        self.counters.aged += gone as u64;
        gone
    }

    /// Forgets what was learned on a port; says how many entries went. See [`Fdb::flush_ports`].
    pub fn flush_port(&mut self, port: PortId) -> usize {
        self.flush_ports(|other| other == port)
    }

    /// Forgets what was learned on some ports; says how many entries went. Walks the entries once, unless there is nothing
    /// of theirs among them: for the control plane.
    pub fn flush_ports(&mut self, chosen: impl Fn(PortId) -> bool) -> usize {
        let holds = |(port, held): (u16, &u32)| *held > 0 && chosen(PortId(port));
        if !(0..=u16::MAX).zip(&self.held).any(holds) {
            return 0;
        }
        self.flush(|_, entry| chosen(entry.port))
    }

    /// Forgets what was learned in a segment; says how many entries went. Walks the entries: for the control plane.
    pub fn flush_segment(&mut self, segment: SegmentId) -> usize {
        self.flush(|key, _| key.0 == segment)
    }

    /// The entries that are believed at `now`, in no order of meaning.
    pub fn iter(&self, now: Duration) -> impl Iterator<Item = FdbEntry> {
        self.table.iter().filter(move |(_, _, entry)| !expired(entry, now, self.ageing)).map(
            move |(_, &(segment, mac), entry)| FdbEntry {
                segment,
                mac,
                port: entry.port,
                age: Duration::from_nanos(nanos(now).saturating_sub(entry.refreshed)),
            },
        )
    }

    /// Entries held, those past their age but not yet swept included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Entries held that were learned on this port.
    pub fn port_len(&self, port: PortId) -> u32 {
        self.held.get(usize::from(port.0)).copied().unwrap_or(0)
    }

    /// What the table has done.
    pub fn counters(&self) -> FdbCounters {
        self.counters
    }

    fn insert(&mut self, now: Duration, key: Key, port: PortId) -> Learned {
        if self.port_len(port) >= self.share {
            self.counters.refused_port += 1;
            return Learned::Refused(Refusal::PortShareFull);
        }
        let entry = Entry::new(now, port, self.generations);
        if self.table.insert(key, entry).is_err() {
            self.counters.refused_table += 1;
            return Learned::Refused(Refusal::TableFull);
        }
        self.generations = self.generations.wrapping_add(1);
        self.hold(port);
        self.counters.learned += 1;
        Learned::New
    }

    /// A station has moved (BR-3: at once).
    fn relocate(&mut self, now: Duration, slot: u32, port: PortId) -> Learned {
        if self.port_len(port) >= self.share {
            // Keeping the entry would send the station's frames to a port it has left.
            self.drop_slot(slot);
            self.counters.displaced += 1;
            self.counters.refused_port += 1;
            return Learned::Refused(Refusal::PortShareFull);
        }
        let Some((_, entry)) = self.table.at_mut(slot) else {
            return Learned::Unchanged;
        };
        let from = entry.port;
        let restless = entry.relocate(now, port, self.generations);
        self.generations = self.generations.wrapping_add(1);
        release(&mut self.held, from);
        self.hold(port);
        self.counters.moved += 1;
        Learned::Moved { from, restless }
    }

    /// No further than the last entry there is; a switch that blocks a port does this among frames, so without memory.
    fn flush(&mut self, chosen: impl Fn(&Key, &Entry) -> bool) -> usize {
        let (mut left, mut gone) = (self.table.len(), 0);
        for slot in (0u32..).take(self.table.capacity()) {
            if left == 0 {
                break;
            }
            let Some((key, entry)) = self.table.at(slot) else { continue };
            left -= 1;
            if chosen(key, entry) {
                self.drop_slot(slot);
                gone += 1;
            }
        }
        self.counters.flushed += gone as u64;
        gone
    }

    fn drop_slot(&mut self, slot: u32) {
        if let Some((_, entry)) = self.table.remove_at(slot) {
            release(&mut self.held, entry.port);
        }
    }

    fn hold(&mut self, port: PortId) {
        let at = usize::from(port.0);
        if at >= self.held.len() {
            self.held.resize(at + 1, 0);
        }
        self.held[at] += 1;
    }
}

#[inline]
fn expired(entry: &Entry, now: Duration, ageing: u64) -> bool {
    nanos(now).saturating_sub(entry.refreshed) >= ageing
}

/// Five hundred years fit.
#[inline]
const fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos() as u64)
}

fn release(held: &mut [u32], port: PortId) {
    if let Some(count) = held.get_mut(usize::from(port.0)) {
        debug_assert!(*count > 0, "{port} gives back an entry it does not hold");
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
#[path = "fdb_tests.rs"]
mod tests;
