//! The table of connections by itself, and what memory costs.

use std::hint::black_box;
use std::time::Duration;

use nat::connection::{ConnectionId, State, Status};
use nat::table::{Opening, Table};
use nat::timeouts::LONGEST;
use nat::tuple::{Address, Direction, Tuple, protocol};

use super::flows::{inside, outside, shuffled};
use super::{NOW, SEED, TURN, Work};

/// What memory costs: words at random places of as much memory as so many flows take, none of which depends on another. Two
/// of them are the least that finding one of many flows can cost.
pub(super) struct Memory {
    words: Vec<u64>,
    state: u64,
}

impl Memory {
    pub(super) fn of(flows: u32) -> Self {
        Self { words: (0..u64::from(flows) * 20).collect(), state: SEED }
    }
}

impl Work for Memory {
    fn turn(&mut self) {
        let mut sum = 0;
        for _ in 0..TURN {
            // A linear congruential generator, whose upper bits are the good ones.
            self.state = self.state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let place = (u128::from(self.state) * self.words.len() as u128) >> 64;
            sum ^= usize::try_from(place).map_or(0, |place| self.words[place]);
        }
        black_box(sum);
    }
}

fn opening<A>(original: Tuple<A>, reply: Tuple<A>, timeout: Duration) -> Opening<A> {
    Opening { original, reply, state: State::Other, timeout, status: Status::default(), marks: [0; 3] }
}

/// Finding connections by tuples of either direction, in no order, among many.
pub(super) struct Lookup<A> {
    table: Table<A>,
    asked: Vec<Tuple<A>>,
    at: usize,
    batch: bool,
    found: Vec<Option<(ConnectionId, Direction)>>,
}

impl<A: Address> Lookup<A> {
    pub(super) fn among(flows: u32, batch: bool) -> Self {
        let mut table = Table::new(flows as usize, SEED);
        for n in 0..flows {
            let original = inside(n, protocol::UDP);
            let reply = outside(n, protocol::UDP).inverse();
            let opening = opening(original, reply, LONGEST);
            table.insert(&opening, NOW).expect("there is room");
        }
        let asked =
            shuffled(flows).take(1 << 20).zip([false, true].into_iter().cycle()).map(|(flow, reply)| {
                if reply { outside(flow, protocol::UDP).inverse() } else { inside(flow, protocol::UDP) }
            });
        Self { table, asked: asked.collect(), at: 0, batch, found: vec![None; TURN as usize] }
    }
}

impl<A: Address> Work for Lookup<A> {
    fn turn(&mut self) {
        let turn = TURN as usize;
        if self.at + turn > self.asked.len() {
            self.at = 0;
        }
        let asked = &self.asked[self.at..self.at + turn];
        if self.batch {
            self.table.find_batch(asked, NOW, &mut self.found);
        } else {
            for (found, tuple) in self.found.iter_mut().zip(asked) {
                *found = self.table.find(tuple, NOW);
            }
        }
        self.at += turn;
    }

    fn reset(&mut self) {
        assert!(self.found.iter().all(Option::is_some), "all that is asked for is there");
    }
}

/// Looking through slots all of which are in use and none over.
pub(super) struct Sweep<A> {
    table: Table<A>,
    ids: Vec<ConnectionId>,
    now: Duration,
}

impl<A: Address> Sweep<A> {
    const SLOTS: u32 = 64 * TURN;

    pub(super) fn new() -> Self {
        let mut table = Table::new(Self::SLOTS as usize, SEED);
        let ids = (0..Self::SLOTS).map(|n| {
            let (original, reply) = (inside(n, protocol::UDP), outside(n, protocol::UDP).inverse());
            let opening = opening(original, reply, Duration::from_secs(10));
            table.insert(&opening, NOW).expect("there is room")
        });
        let ids = ids.collect();
        let mut sweep = Self { table, ids, now: NOW };
        sweep.reset();
        sweep
    }
}

impl<A: Address> Work for Sweep<A> {
    fn operations(&self) -> u32 {
        Self::SLOTS
    }

    fn turn(&mut self) {
        self.table.sweep(self.now, usize::MAX, &mut Vec::new());
    }

    /// All are due by what is known of them, and have been heard of since.
    fn reset(&mut self) {
        assert_eq!(self.table.len(), Self::SLOTS as usize);
        for &id in &self.ids {
            self.table.keep(id, self.now, Duration::from_secs(9));
            self.table.keep(id, self.now, Duration::from_secs(19));
        }
        self.now += Duration::from_secs(10);
    }
}
