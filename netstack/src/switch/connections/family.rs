//! One family's connections and fragments.

use alloc::vec::Vec;
use core::time::Duration;

use nat::fragment::{self, Part};
use nat::packet::Packet;
use nat::rule::Way;
use nat::translate::Rewrite;
use nat::tuple::Address;
use nat::{Nat, New};

use super::packet::{Going, Held, Kind, Opening, Passage, Verdict, What};
use super::reason::{fragment_reason, misfit_reason, refusal_reason};
use crate::addr::SegmentId;
use crate::config::nat::{PoolConfig, Timeouts};
use crate::config::{Limits, Translator, translator};
use crate::flow::Change;
use crate::frame::Frame;
use crate::verdict::DropReason;

/// Datagrams of fragments that are forgotten in one call.
const FORGOTTEN: usize = 64;
/// Fragments of one datagram: 65,535 octets in links of 576, and some to spare.
const FRAGMENTS: u16 = 128;

/// One family's.
#[derive(Debug)]
pub(in crate::switch) struct Family<A> {
    pub(super) nat: Nat<A>,
    pub(super) fragments: fragment::Table<A, Verdict<A>, Held>,
    /// What the pools were made from, by number.
    pools: Vec<Option<PoolConfig>>,
    seed: u64,
}

impl<A: Kind> Family<A> {
    pub(super) fn new(limits: &Limits, translator: &Translator, seed: u64) -> Self {
        let (behaviour, timeouts) = (translator.behaviour(), translator.timeouts());
        let connections = usize::try_from(limits.connections).unwrap_or(usize::MAX);
        let fragments =
            fragment::Limits { fragments: FRAGMENTS, ..fragment::Limits::new(reassembly::<A>(&timeouts)) };
        Self {
            nat: Nat::without_pools(connections, behaviour, timeouts, seed),
            fragments: fragment::Table::new(fragments, seed),
            pools: Vec::new(),
            seed,
        }
    }

    pub(super) fn configure(&mut self, translator: &Translator, now: Duration) {
        self.nat.set_behaviour(translator.behaviour(), translator.timeouts());
        self.fragments.set_timeout(reassembly::<A>(&translator.timeouts()));
        let pools = translator.pools();
        for number in 0..pools.len().max(self.pools.len()) {
            let new = pools.get(number).and_then(Option::as_ref);
            let old = self.pools.get(number).and_then(Option::as_ref);
            if new != old {
                self.replace_pool(number, old.cloned().as_ref(), new, now);
            }
        }
        self.pools = pools.to_vec();
    }

    fn replace_pool(
        &mut self,
        number: usize,
        old: Option<&PoolConfig>,
        new: Option<&PoolConfig>,
        now: Duration,
    ) {
        let mine = |config: &PoolConfig| -> Vec<A> {
            config.addresses.iter().filter_map(|&address| A::from_ip(address)).collect()
        };
        if let (Some(old), Some(new)) = (old, new)
            && (&old.name, old.block_size) == (&new.name, new.block_size)
            && (new.block_size.is_none()
                || *old == (PoolConfig { addresses: old.addresses.clone(), ..new.clone() }))
        {
            let (before, after) = (mine(old), mine(new));
            let gone: Vec<A> = before.iter().copied().filter(|address| !after.contains(address)).collect();
            self.nat.remove_addresses(number, &gone, now);
            if let Some(pool) = self.nat.pool_mut(number) {
                let config = translator::pool::<A>(new, self.seed);
                pool.reconfigure(config.ports, config.hold, config.limits);
                for come in after.iter().filter(|address| !before.contains(address)) {
                    // There is room: a configuration with too many was refused.
                    let _ = pool.add(*come);
                }
            }
            return;
        }
        let none = PoolConfig::new("", Vec::new());
        let config = translator::pool(new.unwrap_or(&none), self.seed);
        // It was made once already, when the configuration was checked.
        let made = self.nat.set_pool(number, config, now);
        debug_assert!(made.is_ok());
    }

    pub(super) fn expire(&mut self, now: Duration, lost: &mut Vec<(Held, DropReason)>) {
        self.nat.expire(now);
        self.fragments
            .expire(now, FORGOTTEN, &mut |held, refusal| lost.push((held, fragment_reason(refusal))));
    }

    /// Forgets the fragments that wait.
    pub(super) fn close(&mut self, lost: &mut Vec<(Held, DropReason)>) {
        let mut lose = |held, _| lost.push((held, DropReason::FragmentOrphaned));
        self.fragments.expire(Duration::MAX, usize::MAX, &mut lose);
    }

    pub(super) fn next_timeout(&self, now: Duration) -> Option<Duration> {
        let nat = self.nat.next_expiry(now).map(|wait| now + wait);
        nat.into_iter().chain(self.fragments.next_deadline()).min()
    }

    pub(super) fn reject(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: SegmentId,
        lost: &mut Vec<(Held, DropReason)>,
    ) {
        let Some(part) = Part::<A>::of(frame.bytes(), packet, ingress.0).filter(Part::is_first) else {
            return;
        };
        self.fragments
            .reject(&part.key, now, &mut |held, refusal| lost.push((held, fragment_reason(refusal))));
    }

    /// Puts into `passage` how a packet leaves, if that is not as it came.
    pub(super) fn passage(
        &self,
        now: Duration,
        what: &What<A>,
        way: Way,
        passage: &mut Passage,
    ) -> Result<(), DropReason> {
        let translated = |rewrite: Option<Rewrite<A>>| rewrite.map(Change::of);
        let change = match *what {
            What::Known { rewrite, .. } => translated(rewrite),
            What::Related { rewrite, source, .. } => {
                translated(rewrite).map(|change| Change { error_from: Some(source), ..change })
            }
            What::Later(verdict) => translated(verdict.rewrite)
                .map(|change| Change { identification: verdict.identification, ..change }),
            // What has no connections belongs to its link (discovery, group membership), or to nobody.
            What::Untracked if way.egress.is_some_and(|egress| egress != way.ingress) => {
                return Err(DropReason::ConnectionInvalid);
            }
            What::Waits | What::Untracked => None,
            What::Denied(denial) => return Err(denial.reason),
            What::Opens { new, towards, judged } => {
                let prepared = self.nat.prepare(now, &new, towards, way).map_err(refusal_reason)?;
                let prepared = prepared.marked(judged.marks());
                *passage = A::passage(Going::Opens(Opening { towards, judged, way, prepared }));
                return Ok(());
            }
        };
        if let Some(change) = change {
            *passage = A::passage(Going::Translated(change));
        }
        Ok(())
    }
}

/// How long a datagram of the family may take to come.
fn reassembly<A: Address>(timeouts: &Timeouts) -> Duration {
    let [v4, v6] = timeouts.reassembly;
    if A::BITS == 32 { v4 } else { v6 }
}

/// What was found, and what `opens` makes of a packet that opens a connection.
pub(super) fn found<A: Address>(
    tracked: nat::Tracked<A>,
    opens: impl FnOnce(New<A>) -> What<A>,
) -> Result<What<A>, DropReason> {
    match tracked {
        nat::Tracked::Known { id, direction, rewrite } => Ok(What::Known { id, direction, rewrite }),
        nat::Tracked::Related { id, rewrite, source, .. } => Ok(What::Related { id, rewrite, source }),
        nat::Tracked::New(new) => Ok(opens(new)),
        nat::Tracked::Untracked => Ok(What::Untracked),
        nat::Tracked::Invalid(invalid) => Err(misfit_reason(invalid)),
    }
}
