//! The host's neighbours: who has which MAC address, and what waits to learn it.
//!
//! # Theory of operation
//! One table for ARP and ND words alike. An entry without a MAC address is *incomplete*: it is asked for by broadcast
//! (ARP) or to the solicited-node group (ND) up to three times, a second apart (RFC 4861 section 10, MAX_MULTICAST_SOLICIT
//! and RETRANS_TIMER; RFC 1122 section 2.3.2.1 for ARP), while packets for it wait, bounded per neighbour and in all. An
//! entry with one is used as it is; 30 s after its last confirmation (REACHABLE_TIME) the next use asks again, by
//! unicast, and three unanswered questions remove it. The owner draws questions with [`Neighbors::poll_probe`] and
//! failures with [`Neighbors::poll_failed`].

use alloc::collections::VecDeque;
use core::net::IpAddr;
use core::time::Duration;

use super::config::{HostCounters, HostLimits};
use crate::addr::MacAddr;
use crate::frame::Frame;
use crate::seed::Seed;
use crate::table::BoundedMap;

/// Questions before a neighbour counts as absent (RFC 4861 section 10, MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT).
const PROBES: u8 = 3;
/// Between two questions (RFC 4861 section 10, RETRANS_TIMER; RFC 1122 section 2.3.2.1 for ARP).
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// How long an answer is trusted without asking (RFC 4861 section 10, REACHABLE_TIME).
const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// How long an entry is kept unused when others need its place.
const UNUSED: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Probe {
    sent: u8,
    next: Duration,
}

#[derive(Debug)]
struct Entry {
    mac: Option<MacAddr>,
    confirmed: Duration,
    used: Duration,
    probe: Option<Probe>,
    parked: usize,
}

/// What becomes of a packet to a neighbour.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Send it there.
    Known(MacAddr, Frame),
    /// It waits.
    Parked,
    /// It is dropped and counted; an older one may be dropped for it.
    Dropped(Frame),
}

/// A question to be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Question {
    pub(super) target: IpAddr,
    /// Whom to ask; everybody if unset.
    pub(super) unicast: Option<MacAddr>,
}

#[derive(Debug)]
pub(super) struct Neighbors {
    table: BoundedMap<IpAddr, Entry>,
    parked: VecDeque<(IpAddr, Frame)>,
    parked_limit: usize,
    per_neighbor: usize,
    /// No probe is due before this; `None` when none is under way.
    next: Option<Duration>,
    failed: VecDeque<IpAddr>,
}

impl Neighbors {
    pub(super) fn new(limits: &HostLimits, seed: &Seed) -> Self {
        Self {
            table: BoundedMap::new(limits.neighbors, seed.hasher("host neighbors")),
            parked: VecDeque::with_capacity(limits.parked),
            parked_limit: limits.parked,
            per_neighbor: limits.parked_per_neighbor,
            next: None,
            failed: VecDeque::new(),
        }
    }

    /// Finds the MAC address for a packet, or parks the packet and begins to ask.
    pub(super) fn resolve(
        &mut self,
        now: Duration,
        target: IpAddr,
        frame: Frame,
        counters: &mut HostCounters,
    ) -> Lookup {
        let Some(entry) = self.table.get_mut(&target) else {
            return self.begin(now, target, frame, counters);
        };
        entry.used = now;
        if let Some(mac) = entry.mac {
            if entry.probe.is_none() && now.saturating_sub(entry.confirmed) >= REACHABLE_TIME {
                entry.probe = Some(Probe { sent: 0, next: now });
                self.wake(now);
            }
            return Lookup::Known(mac, frame);
        }
        self.park(target, frame, counters)
    }

    fn begin(&mut self, now: Duration, target: IpAddr, frame: Frame, counters: &mut HostCounters) -> Lookup {
        if !self.make_room(now) {
            counters.neighbors_full += 1;
            return Lookup::Dropped(frame);
        }
        let probe = Some(Probe { sent: 0, next: now });
        let entry = Entry { mac: None, confirmed: now, used: now, probe, parked: 0 };
        if self.table.insert(target, entry).is_err() {
            counters.neighbors_full += 1;
            return Lookup::Dropped(frame);
        }
        self.wake(now);
        self.park(target, frame, counters)
    }

    /// Makes sure that one more entry fits; what it removes has been idle for a minute.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.table.len() == self.table.capacity() {
            self.table.sweep(
                16,
                |_, entry| entry.probe.is_none() && now.saturating_sub(entry.used) >= UNUSED,
                |_, _| (),
            );
        }
        self.table.len() < self.table.capacity()
    }

    fn park(&mut self, target: IpAddr, frame: Frame, counters: &mut HostCounters) -> Lookup {
        let Some(entry) = self.table.get_mut(&target) else {
            return Lookup::Dropped(frame);
        };
        if entry.parked >= self.per_neighbor {
            // The latest packet is the one to keep (RFC 1122 section 2.3.2.2).
            counters.parked_full += 1;
            let oldest = self.parked.iter().position(|(waiting_for, _)| *waiting_for == target);
            let Some((_, oldest)) = oldest.and_then(|place| self.parked.remove(place)) else {
                return Lookup::Dropped(frame);
            };
            self.parked.push_back((target, frame));
            return Lookup::Dropped(oldest);
        }
        if self.parked.len() >= self.parked_limit {
            counters.parked_full += 1;
            return Lookup::Dropped(frame);
        }
        entry.parked += 1;
        self.parked.push_back((target, frame));
        Lookup::Parked
    }

    /// Takes in what a neighbour said of itself. `ours` says whether it spoke to us, without which no new entry is made
    /// (RFC 826). Hands out the packets that waited for it.
    pub(super) fn learn(
        &mut self,
        now: Duration,
        address: IpAddr,
        mac: MacAddr,
        ours: bool,
        mut unpark: impl FnMut(MacAddr, Frame),
    ) {
        if !mac.is_valid_source() {
            return;
        }
        if let Some(entry) = self.table.get_mut(&address) {
            entry.mac = Some(mac);
            entry.confirmed = now;
            entry.probe = None;
            if core::mem::take(&mut entry.parked) > 0 {
                self.drain_parked(address, |frame| unpark(mac, frame));
            }
        } else if ours && self.make_room(now) {
            let entry = Entry { mac: Some(mac), confirmed: now, used: now, probe: None, parked: 0 };
            // A full table learns nobody new: the neighbour will be asked when there is something to send.
            let _ = self.table.insert(address, entry);
        }
    }

    fn drain_parked(&mut self, address: IpAddr, mut out: impl FnMut(Frame)) {
        for _ in 0..self.parked.len() {
            match self.parked.pop_front() {
                Some((waiting_for, frame)) if waiting_for == address => out(frame),
                Some(other) => self.parked.push_back(other),
                None => return,
            }
        }
    }

    fn wake(&mut self, at: Duration) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// When [`Neighbors::poll_probe`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// The next question that is due. Work is bounded by the size of the table, and there is none until a probe is due.
    /// Packets to a neighbour that did not answer go to `drop`.
    pub(super) fn poll_probe(&mut self, now: Duration, mut drop: impl FnMut(Frame)) -> Option<Question> {
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let mut due = None;
        let mut earliest: Option<Duration> = None;
        for (slot, _, entry) in self.table.iter() {
            match entry.probe {
                Some(probe) if probe.next <= now && due.is_none() => due = Some(slot),
                Some(probe) => earliest = Some(earliest.map_or(probe.next, |e| e.min(probe.next))),
                None => {}
            }
        }
        self.next = earliest;
        let (&target, entry) = self.table.at_mut(due?)?;
        let sent = entry.probe.map_or(0, |probe| probe.sent);
        if sent == PROBES {
            self.table.remove(&target);
            self.drain_parked(target, &mut drop);
            self.failed.push_back(target);
            return self.poll_probe(now, drop);
        }
        entry.probe = Some(Probe { sent: sent + 1, next: now + RETRANS_TIMER });
        let unicast = entry.mac;
        self.wake(now + RETRANS_TIMER);
        Some(Question { target, unicast })
    }

    /// A neighbour that did not answer.
    pub(super) fn poll_failed(&mut self) -> Option<IpAddr> {
        self.failed.pop_front()
    }
}
