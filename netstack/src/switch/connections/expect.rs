//! What packets of flows that are not known will be looked up in, fetched for all of a batch at once, so that they wait for
//! memory together; and which backends those will get that ask for services. It decides nothing: what a packet is, is found
//! out when its turn comes.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lb::{AT_ONCE, Ask, Verdict};
use nat::tuple::Tuple;

use super::service::{Balancing, ask};
use super::{Connections, Kind};
use crate::config::Segment;

/// What services will say to packets of this batch, in their order.
#[derive(Debug, Default)]
pub(super) struct Foreseen {
    said: Vec<(Ask, Verdict)>,
    /// How many have been asked for. Atomic so that several threads may look at one switch, who then find nothing foreseen;
    /// while packets are handled there is one.
    at: AtomicUsize,
}

impl Foreseen {
    /// What was foreseen for a packet, if anything was.
    #[inline]
    pub(super) fn take(&self, ask: &Ask) -> Option<Verdict> {
        let at = self.at.load(Relaxed);
        let rest = self.said.get(at..)?;
        let found = rest.iter().position(|(foreseen, _)| foreseen == ask)?;
        self.at.store(at + found + 1, Relaxed);
        Some(rest[found].1)
    }

    fn clear(&mut self) {
        self.said.clear();
        self.at.store(0, Relaxed);
    }
}

impl Connections {
    /// Has the memory fetch where packets with these tuples, [`AT_ONCE`] at most, will be looked for.
    pub(in crate::switch) fn expect<A: Kind>(&mut self, tuples: &[Tuple<A>], ingress: &Segment) {
        let (family, balancing) = A::parts(self);
        family.nat.expect(tuples);
        balancing.foresee(tuples, ingress);
    }

    /// The batch is over.
    pub(in crate::switch) fn forget_foreseen(&mut self) {
        self.balancing.foreseen.clear();
    }
}

impl Balancing {
    fn foresee<A: Kind>(&mut self, tuples: &[Tuple<A>], ingress: &Segment) {
        let Some(balancer) = self.in_use() else { return };
        let mut asked = tuples.iter().filter_map(|tuple| Some(ask(tuple, self.origin(tuple, ingress)?)));
        let Some(first) = asked.next() else { return };
        let (mut asks, mut count) = ([first; AT_ONCE], 1);
        for (place, ask) in asks[1..].iter_mut().zip(asked) {
            *place = ask;
            count += 1;
        }
        let mut verdicts = [None; AT_ONCE];
        balancer.foresee(&asks[..count], &mut verdicts);
        let said = asks.into_iter().zip(verdicts).filter_map(|(ask, verdict)| Some((ask, verdict?)));
        self.foreseen.said.extend(said);
    }
}
