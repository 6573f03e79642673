//! The last things that happened, for whoever looks into a failing seed.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::device::fault::Offered;
use crate::parse::Summary;

/// Entries kept unless told otherwise.
pub(super) const DEFAULT_CAPACITY: usize = 256;

/// One thing that happened. Names are looked up when it is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Incident {
    /// A node put a frame on a link.
    Sent { from: usize, to: usize, frame: Summary, became: Offered },
    /// A frame reached a node.
    Arrived { at: usize, frame: Summary },
    /// A frame was put in by hand.
    Injected { at: usize, frame: Summary },
    /// A frame left a port that nothing is plugged into.
    Unplugged { from: usize, frame: Summary },
    /// A node did what was due.
    Timeout { at: usize },
    /// A switch got another configuration.
    Installed { at: usize, generation: u64 },
}

#[derive(Debug)]
pub(super) struct Log {
    entries: VecDeque<(u64, Duration, Incident)>,
    capacity: usize,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), capacity: DEFAULT_CAPACITY }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        while self.entries.len() > capacity {
            self.entries.pop_front();
        }
    }

    /// Whether anything is noted at all.
    pub(super) fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// Notes what `incident` gives, if anything is noted at all.
    pub(super) fn note(&mut self, step: u64, at: Duration, incident: impl FnOnce() -> Incident) {
        if !self.is_on() {
            return;
        }
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back((step, at, incident()));
    }

    /// A line per entry, oldest first.
    pub(super) fn lines(&self, name: impl Fn(usize) -> String) -> impl Iterator<Item = String> {
        self.entries.iter().map(move |(step, at, incident)| {
            let what = match *incident {
                Incident::Sent { from, to, frame, became } => {
                    format!("{} > {}: {frame:#}{}", name(from), name(to), Became(became, *at))
                }
                Incident::Arrived { at, frame } => format!("{} receives {frame:#}", name(at)),
                Incident::Injected { at, frame } => format!("{} is given {frame:#}", name(at)),
                Incident::Unplugged { from, frame } => format!("{} > nowhere: {frame:#}", name(from)),
                Incident::Timeout { at } => format!("{} does what is due", name(at)),
                Incident::Installed { at, generation } => {
                    format!("{} gets generation {generation}", name(at))
                }
            };
            format!("#{step} {:.6} {what}", at.as_secs_f64())
        })
    }
}

/// What became of a frame that was sent at a time.
struct Became(Offered, Duration);

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Offered::Lost => f.write_str(" [lost]"),
            Offered::Overflowed => f.write_str(" [refused]"),
            Offered::Carried { due, copy_due, corrupted } => {
                write!(f, " [{:?}", due.saturating_sub(self.1))?;
                if let Some(copy) = copy_due {
                    write!(f, ", again {:?}", copy.saturating_sub(self.1))?;
                }
                f.write_str(if corrupted { ", damaged]" } else { "]" })
            }
        }
    }
}
