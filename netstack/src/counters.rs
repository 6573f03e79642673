//! Counting: every frame in has one fate, every frame out has one origin, and the sums must agree.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use crate::verdict::{DropReason, EgressDrop, Fate, Origin};

const REASONS: usize = DropReason::ALL.len();
const FATES: usize = Fate::ALL.len();
const ORIGINS: usize = Origin::ALL.len();
const EGRESS: usize = EgressDrop::ALL.len();

/// Counters of one switch or of one port of it. Frames and octets; octets without preamble and FCS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Frames that entered.
    pub rx_frames: u64,
    /// Octets that entered.
    pub rx_bytes: u64,
    /// Frames handed to a device.
    pub tx_frames: u64,
    /// Octets handed to a device.
    pub tx_bytes: u64,
    /// Frames that entered, by fate.
    pub fates: [u64; FATES],
    /// Frames that entered and were dropped, by reason.
    pub drops: [u64; REASONS],
    /// Frames on their way out, by origin, queued or not.
    pub origins: [u64; ORIGINS],
    /// Frames on their way out that were not queued, by reason and origin.
    pub egress_drops: [[u64; ORIGINS]; EGRESS],
    /// Frames that did not leave themselves because they were cut into segments or fragments, by their own origin.
    pub replaced: [u64; ORIGINS],
    /// Parked frames that were dropped after all, by reason. Their fate stays [`Fate::Parked`].
    pub parked_drops: [u64; REASONS],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            rx_frames: 0,
            rx_bytes: 0,
            tx_frames: 0,
            tx_bytes: 0,
            fates: [0; FATES],
            drops: [0; REASONS],
            origins: [0; ORIGINS],
            egress_drops: [[0; ORIGINS]; EGRESS],
            replaced: [0; ORIGINS],
            parked_drops: [0; REASONS],
        }
    }
}

impl Counters {
    /// Frames that met this fate.
    pub fn fate(&self, fate: Fate) -> u64 {
        self.fates[fate.index()]
    }

    /// Frames dropped on entry for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// Frames on their way out with this origin.
    pub fn origin(&self, origin: Origin) -> u64 {
        self.origins[origin.index()]
    }

    /// Frames on their way out that were dropped for this reason, whatever their origin.
    pub fn egress_dropped(&self, reason: EgressDrop) -> u64 {
        self.egress_drops[reason.index()].iter().sum()
    }

    /// All drops by name, largest first, zeros left out: entry, parked and egress.
    pub fn drops_by_name(&self) -> Vec<(&'static str, u64)> {
        let mut rows: Vec<(&'static str, u64)> = DropReason::ALL
            .iter()
            .map(|&r| (r.name(), self.drops[r.index()] + self.parked_drops[r.index()]))
            .chain(EgressDrop::ALL.iter().map(|&r| (egress_name(r), self.egress_dropped(r))))
            .filter(|&(_, count)| count > 0)
            .collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        rows
    }

    /// Adds another port's counters to these.
    pub fn add(&mut self, other: &Self) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        add_each(&mut self.fates, &other.fates);
        add_each(&mut self.drops, &other.drops);
        add_each(&mut self.origins, &other.origins);
        add_each(&mut self.replaced, &other.replaced);
        add_each(&mut self.parked_drops, &other.parked_drops);
        for (mine, theirs) in self.egress_drops.iter_mut().zip(&other.egress_drops) {
            add_each(mine, theirs);
        }
    }

    /// Checks the two equations of conservation over a whole switch: `queued`, `parked` and `held` are the frames that sit
    /// in its output queues, wait for neighbours, and wait for the first fragment of their datagram; these have no fate
    /// yet. Says what does not add up.
    pub fn check(&self, queued: u64, parked: u64, held: u64) -> Result<(), String> {
        let mut text = String::new();
        let mut equal = |what: &str, left: u64, right: u64| {
            if left != right {
                let _ = writeln!(text, "{what}: {left} != {right}");
            }
        };
        equal("frames in = fates + held", self.rx_frames, self.fates.iter().sum::<u64>() + held);
        equal("fate dropped = drops", self.fate(Fate::Dropped), self.drops.iter().sum());
        equal(
            "frames by origin = out + egress drops + queued",
            self.origins.iter().sum(),
            self.tx_frames + self.egress_drops.iter().flatten().sum::<u64>() + queued,
        );
        equal(
            "fate parked = unparked + dropped while parked + parked",
            self.fate(Fate::Parked),
            self.origin(Origin::Unparked)
                + self.replaced[Origin::Unparked.index()]
                + self.parked_drops.iter().sum::<u64>()
                + parked,
        );
        equal(
            "fate forwarded = origin forwarded + replaced",
            self.fate(Fate::Forwarded),
            self.origin(Origin::Forwarded) + self.replaced[Origin::Forwarded.index()],
        );
        if text.is_empty() { Ok(()) } else { Err(text) }
    }
}

fn add_each(mine: &mut [u64], theirs: &[u64]) {
    for (a, b) in mine.iter_mut().zip(theirs) {
        *a += b;
    }
}

/// Egress drops share names with entry drops; commands show them apart.
const fn egress_name(reason: EgressDrop) -> &'static str {
    match reason {
        EgressDrop::QueueFull => "egress_queue_full",
        EgressDrop::TooBig => "egress_too_big",
        EgressDrop::PortClosed => "egress_port_closed",
        EgressDrop::OffloadInvalid => "egress_offload_invalid",
        EgressDrop::LoopBlocked => "egress_loop_blocked",
    }
}
