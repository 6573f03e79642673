//! Flows by what identifies them, by number, and by when they must be looked at.
//!
//! # Theory of operation
//! A flow has a slot from its beginning to its end, and its socket the slot's number. Slots are taken when they are needed
//! and given again, the last one first, so memory is what the most flows at a time have taken.
//!
//! *Deadlines* are kept sorted, but a flow does not tell of each change: it is looked at when it once said, says then
//! whether its time has come, and if not, for when to come back. So a packet that puts a deadline off, as nearly all do,
//! costs nothing here.
//!
//! *Making room*: the flow of messages with the earliest deadline goes, which is one that was never answered before one
//! that was, and of two alike the one that was silent longer.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use netstack::flow::FlowKey;
use netstack::seed::TableHasher;

use super::messages::MessageFlow;
use super::tcp::Tcp;

/// A flow, as pods see it: their end is the source.
#[derive(Debug)]
pub(super) enum Flow {
    Tcp(Box<Tcp>),
    Messages(MessageFlow),
}

#[derive(Debug)]
struct Entry {
    key: FlowKey,
    flow: Flow,
    /// When it is looked at.
    armed: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Flows {
    by_key: HashMap<FlowKey, u32, TableHasher>,
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    /// Of connections, and of messages.
    due: [BTreeSet<(Duration, u32)>; 2],
    counts: [usize; 2],
}

const CONNECTIONS: usize = 0;
const MESSAGES: usize = 1;

impl Flow {
    const fn kind(&self) -> usize {
        match self {
            Self::Tcp(_) => CONNECTIONS,
            Self::Messages(_) => MESSAGES,
        }
    }
}

impl Flows {
    pub(super) fn new(hasher: TableHasher) -> Self {
        Self {
            by_key: HashMap::with_hasher(hasher),
            slots: Vec::new(),
            free: Vec::new(),
            due: Default::default(),
            counts: [0; 2],
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.counts[CONNECTIONS]
    }

    pub(super) fn messages(&self) -> usize {
        self.counts[MESSAGES]
    }

    pub(super) fn slot_of(&self, key: &FlowKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<(FlowKey, &mut Flow)> {
        let entry = self.slots.get_mut(slot as usize)?.as_mut()?;
        Some((entry.key, &mut entry.flow))
    }

    /// The slot that the next flow will get.
    pub(super) fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX))
    }

    /// Puts a flow into [`Flows::next_slot`]. There is none with its key.
    pub(super) fn insert(&mut self, key: FlowKey, flow: Flow) -> u32 {
        let slot = self.next_slot();
        self.counts[flow.kind()] += 1;
        let entry = Some(Entry { key, flow, armed: None });
        if self.free.pop().is_some() {
            self.slots[slot as usize] = entry;
        } else {
            self.slots.push(entry);
        }
        self.by_key.insert(key, slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Flow> {
        let Entry { key, flow, armed } = self.slots.get_mut(slot as usize)?.take()?;
        self.by_key.remove(&key);
        self.free.push(slot);
        self.counts[flow.kind()] -= 1;
        if let Some(at) = armed {
            self.due[flow.kind()].remove(&(at, slot));
        }
        Some(flow)
    }

    /// Has a flow looked at then, or before.
    pub(super) fn arm(&mut self, slot: u32, at: Duration) {
        let Some(Some(entry)) = self.slots.get_mut(slot as usize) else { return };
        if entry.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        let due = &mut self.due[entry.flow.kind()];
        if let Some(armed) = entry.armed.replace(at) {
            due.remove(&(armed, slot));
        }
        due.insert((at, slot));
    }

    /// When the next flow must be looked at.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.iter().filter_map(|due| due.first().map(|(at, _)| *at)).min()
    }

    /// A flow that must be looked at by now. It is not looked at again before it was armed again.
    pub(super) fn poll_due(&mut self, now: Duration) -> Option<u32> {
        (0..self.due.len()).find_map(|kind| self.pop_due(kind, now))
    }

    fn pop_due(&mut self, kind: usize, now: Duration) -> Option<u32> {
        let &(at, slot) = self.due[kind].first().filter(|(at, _)| *at <= now)?;
        self.due[kind].remove(&(at, slot));
        if let Some(Some(entry)) = self.slots.get_mut(slot as usize) {
            entry.armed = None;
        }
        Some(slot)
    }

    /// The flow of messages that is to make room for another.
    pub(super) fn least(&mut self) -> Option<u32> {
        /// Deadlines that are set right on the way, so that the work is bounded.
        const LOOKS: usize = 32;
        for _ in 0..LOOKS {
            let slot = self.pop_due(MESSAGES, Duration::MAX)?;
            let Some((_, Flow::Messages(flow))) = self.get_mut(slot) else { continue };
            let deadline = flow.deadline();
            self.arm(slot, deadline);
            if self.due[MESSAGES].first() == Some(&(deadline, slot)) {
                return Some(slot);
            }
        }
        self.due[MESSAGES].first().map(|(_, slot)| *slot)
    }
}
