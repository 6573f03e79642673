//! What a translator is made from, and what it counts.

use alloc::vec::Vec;

use crate::behaviour::Behaviour;
use crate::ports;
use crate::rule::Rules;
use crate::timeouts::Timeouts;

/// A translator's configuration.
#[derive(Clone, Debug)]
pub struct Config<A> {
    /// How many connections there may be; memory for all of them is taken at once. With one more, one that is over or not
    /// assured makes room, or the new one is refused.
    pub capacity: usize,
    /// External addresses, in pools that source rules name by number.
    pub pools: Vec<ports::Config<A>>,
    /// What is translated.
    pub rules: Rules<A>,
    /// How to act where the field disagrees.
    pub behaviour: Behaviour,
    /// How long silent connections are kept.
    pub timeouts: Timeouts,
    /// What decides where things lie and what is left to chance. Whoever knows it can crowd the table.
    pub seed: u64,
}

impl<A> Config<A> {
    /// A tracker that translates nothing.
    pub fn new(capacity: usize, behaviour: Behaviour, timeouts: Timeouts, seed: u64) -> Self {
        Self { capacity, pools: Vec::new(), rules: Rules::default(), behaviour, timeouts, seed }
    }
}

/// What was counted since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Connections that began.
    pub opened: u64,
    /// Those that ended because they were silent.
    pub expired: u64,
    /// Those that made room for another.
    pub displaced: u64,
    /// Those that were over at once: reset before an answer, or their ports opened again.
    pub cut_short: u64,
    /// Packets that belong to no connection and may open none.
    pub invalid: u64,
    /// Errors about packets of no connection.
    pub unrelated: u64,
    /// Packets that would have opened a connection, and the table is full of assured ones.
    pub refused_full: u64,
    /// The same, and there is no port.
    pub refused_ports: u64,
    /// The same, and the tuple of the answers belongs to another connection.
    pub refused_clash: u64,
}
