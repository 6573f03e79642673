//! When to look for connections whose time is up.
//!
//! # Theory of operation
//! A connection's deadline moves with every packet, so a queue of deadlines would be rewritten as often. Instead slots are
//! taken together in groups of [`GROUP`], and for each group a moment is kept before which none of its deadlines passes. A
//! deadline that moves on leaves it as it is: too early, never too late. When the moment comes the group is looked through,
//! what is over ends, and the moment is set anew. So a packet costs nothing here, a connection is looked at about once in
//! each of its own timeouts, and who waits knows how long nothing needs doing.

use alloc::vec::Vec;

use crate::ticks::Ticks;

/// Slots that share a moment.
pub(super) const GROUP: usize = 64;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines {
    /// For each group the moment before which it needs no look; `None` for a group without connections.
    groups: Vec<Option<Ticks>>,
    /// The same for all of them.
    earliest: Option<Ticks>,
}

impl Deadlines {
    pub(super) fn new(slots: usize) -> Self {
        Self { groups: Vec::with_capacity(slots.div_ceil(GROUP)), earliest: None }
    }

    /// Octets that it takes.
    pub(super) fn size(&self) -> usize {
        self.groups.capacity() * size_of::<Option<Ticks>>()
    }

    /// A connection in `slot` may end at `deadline`, earlier than was known.
    #[inline]
    pub(super) fn note(&mut self, slot: usize, deadline: Ticks) {
        let group = slot / GROUP;
        if group >= self.groups.len() {
            self.groups.resize(group + 1, None);
        }
        let moment = &mut self.groups[group];
        *moment = Some(moment.map_or(deadline, |moment| moment.earlier(deadline)));
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.earlier(deadline)));
    }

    /// A group was looked through: nothing in it ends before `moment`.
    pub(super) fn looked(&mut self, group: usize, moment: Option<Ticks>) {
        self.groups[group] = moment;
    }

    /// The first group at or after `from` that is due.
    pub(super) fn due(&self, from: usize, now: Ticks) -> Option<usize> {
        let is_due = |moment: &Option<Ticks>| moment.is_some_and(|moment| moment.has_come(now));
        self.groups.get(from..)?.iter().position(is_due).map(|offset| from + offset)
    }

    /// No group is due any more.
    pub(super) fn settle(&mut self) {
        self.earliest = self.groups.iter().flatten().copied().reduce(Ticks::earlier);
    }

    /// The earliest moment at which a look is needed.
    pub(super) fn next(&self) -> Option<Ticks> {
        self.earliest
    }
}
