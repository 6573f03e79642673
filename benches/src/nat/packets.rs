//! Reading packets and writing them.

use std::hint::black_box;

use nat::packet::{self, Packet};
use nat::tcp::flag::ACK;
use nat::translate::{ChecksumState, Rewrite};
use nat::tuple::{Address, protocol};

use super::flows::{Arrived, inside, outside, packet};
use super::{TURN, Work};

/// Reading packets: what is needed of each before all else.
pub(super) struct Parse(Vec<Arrived>);

impl Parse {
    pub(super) fn new<A: Address>() -> Self {
        Self((0..TURN).map(|n| packet::<A>(&inside(n, protocol::TCP), ACK, 1, 1, 64)).collect())
    }
}

impl Work for Parse {
    fn turn(&mut self) {
        for came in &self.0 {
            let read = packet::parse(black_box(&came.bytes));
            assert!(black_box(read).is_ok());
        }
    }
}

/// A packet translated there and back.
pub(super) struct Apply<A> {
    bytes: Vec<u8>,
    ways: [(Rewrite<A>, Packet); 2],
}

impl<A: Address> Apply<A> {
    pub(super) fn of(protocol: u8) -> Self {
        let (inside, outside) = (inside(7, protocol), outside(7, protocol));
        let [before, after] = [inside, outside].map(|tuple| packet::<A>(&tuple, ACK, 1, 1, 64));
        let there = (Rewrite::new(&inside, &outside), before.packet);
        let back = (Rewrite::new(&outside, &inside), after.packet);
        Self { bytes: before.bytes, ways: [there, back] }
    }
}

impl<A: Address> Work for Apply<A> {
    fn turn(&mut self) {
        for _ in 0..TURN / 2 {
            for (rewrite, packet) in &self.ways {
                rewrite.apply(black_box(&mut self.bytes), packet, ChecksumState::Complete).expect("it fits");
            }
        }
    }
}
