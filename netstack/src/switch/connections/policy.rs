//! What policies say about connections: asked when one is opened, and again when the policies are others.
//!
//! # Theory of operation
//! A connection remembers under which policies it was let through, by a number that is another one with each set of policies
//! that is installed. A packet, whichever way it goes, compares it; where it is another, its connection is judged anew, and
//! remembers that if it is let through. So nothing is gone through when policies change, and what is now forbidden stops
//! with its next packet. The flow cache has forgotten every flow by then. A connection that is forbidden stays in the
//! table until its time is up: should the policies change again, it goes on.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;

use lb::Refusal;
use nat::Nat;
use nat::connection::{Connection, ConnectionId};
use nat::tuple::{Address, Direction, Tuple};

use super::Connections;
use super::packet::{Denial, Kind, What};
use crate::policy::{Judgement, Policies, PolicyId, Question};
use crate::switch::explain::{Recorder, Stage};
use crate::verdict::DropReason;

/// Where a connection's marks hold the number of the policies it was judged under.
const POLICIES: usize = 2;

/// What a policy has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyCounters {
    /// Packets that were dropped.
    pub dropped: u64,
    /// Connections, and packets of which no connection is kept, that would have been stopped if policies were not audited only.
    pub audited: u64,
}

/// The policies in use.
#[derive(Debug, Default)]
pub(in crate::switch) struct Policing {
    policies: Option<Arc<Policies>>,
    /// Another one for each set of policies; 0 before the first.
    number: u32,
    counters: BTreeMap<PolicyId, PolicyCounters>,
    /// The same where no policy has decided, but what holds without one.
    by_default: PolicyCounters,
}

/// How a packet stands to policies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finding {
    /// Nothing forbids it.
    Free,
    /// Nothing forbids its connection, which is to remember that.
    Renewed(ConnectionId),
    /// It is forbidden; its connection, if it has begun.
    Forbidden(Judgement, Option<ConnectionId>),
}

impl Policing {
    /// Takes up what a new configuration says.
    pub(super) fn configure(&mut self, new: Option<&Arc<Policies>>) {
        let same = match (&self.policies, new) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same {
            return;
        }
        self.policies = new.cloned();
        // 0 is none.
        self.number = self.number.wrapping_add(1).max(1);
        self.counters.retain(|policy, _| new.is_some_and(|new| new.name(*policy).is_some()));
    }

    /// The number of the policies in use.
    pub(in crate::switch) const fn number(&self) -> u32 {
        self.number
    }

    /// Whether what is forbidden is let through all the same.
    pub(super) fn audits(&self) -> bool {
        self.policies.as_ref().is_some_and(|policies| policies.audits())
    }

    /// What was stopped, by policy; without one, by what holds without a policy.
    pub(in crate::switch) fn counters(&self) -> impl Iterator<Item = (Option<PolicyId>, PolicyCounters)> {
        let named = self.counters.iter().map(|(policy, counters)| (Some(*policy), *counters));
        named.chain([(None, self.by_default)])
    }

    fn counters_mut(&mut self, judgement: &Judgement) -> &mut PolicyCounters {
        match judgement.by.policy() {
            Some(policy) => self.counters.entry(policy).or_default(),
            None => &mut self.by_default,
        }
    }

    /// Counts a packet that was dropped.
    pub(in crate::switch) fn count_dropped(&mut self, judgement: &Judgement) {
        self.counters_mut(judgement).dropped += 1;
    }

    /// Counts what would have been stopped.
    pub(in crate::switch) fn count_audited(&mut self, judgement: &Judgement) {
        self.counters_mut(judgement).audited += 1;
    }

    /// How a packet stands to the policies in use.
    pub(super) fn find<A: Kind>(&self, nat: &Nat<A>, what: &What<A>) -> Finding {
        let Some(policies) = &self.policies else { return Finding::Free };
        match what {
            What::Known { id, .. } | What::Related { id, .. } => match nat.get(*id) {
                Some(connection) if connection.marks[POLICIES] != self.number => {
                    match policies.judge(&question_of(connection)).refusal() {
                        None => Finding::Renewed(*id),
                        Some(judgement) => Finding::Forbidden(judgement, Some(*id)),
                    }
                }
                Some(_) | None => Finding::Free,
            },
            What::Opens { new, towards, .. } => {
                let destination = towards.destination.unwrap_or(new.tuple.destination);
                let question = question(&Tuple { destination, ..new.tuple });
                policies
                    .judge(&question)
                    .refusal()
                    .map_or(Finding::Free, |judgement| Finding::Forbidden(judgement, None))
            }
            // Fragments go the way of the first of their datagram; of what is not tracked see `switch::policy`.
            What::Denied(_) | What::Later(_) | What::Waits | What::Untracked => Finding::Free,
        }
    }
}

impl Connections {
    /// Puts into words what policies said of a packet that opens a connection or goes through one, unless they forbade it.
    pub(in crate::switch) fn record_verdict<A: Kind, R: Recorder>(&self, what: &What<A>, recorder: &mut R) {
        let Some(policies) = &self.policing.policies else { return };
        let question = match what {
            What::Opens { new, towards, .. } => {
                let destination = towards.destination.unwrap_or(new.tuple.destination);
                question(&Tuple { destination, ..new.tuple })
            }
            What::Known { id, .. } | What::Related { id, .. } => match A::of(self).nat.get(*id) {
                Some(connection) => question_of(connection),
                None => return,
            },
            What::Denied(_) | What::Later(_) | What::Waits | What::Untracked => return,
        };
        let verdict = policies.judge(&question);
        for judgement in [verdict.egress, verdict.ingress].into_iter().flatten() {
            let audited = if judgement.is_allowed { "" } else { ", but policies are only audited" };
            recorder.step(Stage::Policy, || format!("{}{audited}", policies.describe(&judgement)));
        }
    }
}

/// A packet that policies forbid.
pub(super) const fn forbidden<A>(judgement: Judgement) -> What<A> {
    let reason = DropReason::PolicyDenied;
    What::Denied(Denial { reason, how: Refusal::Drop, mark: None, judgement: Some(judgement) })
}

/// Remembers under which policies a connection was let through.
pub(super) fn renew<A>(connection: &mut Connection<A>, number: u32) {
    connection.marks[POLICIES] = number;
}

/// What is asked about a connection that has begun: from who opened it, as he was before anybody translated him, to who
/// answers.
pub(in crate::switch) fn question_of<A: Address>(connection: &Connection<A>) -> Question {
    let opened = connection.tuple(Direction::Original);
    question(&Tuple { destination: connection.tuple(Direction::Reply).source, ..opened })
}

/// What is asked about one that is opened, as its packets are when they arrive but for their destination.
pub(in crate::switch) fn question<A: Address>(tuple: &Tuple<A>) -> Question {
    let Tuple { source, destination, protocol, .. } = *tuple;
    Question {
        source: source.address.into(),
        destination: destination.address.into(),
        protocol,
        port: destination.port,
    }
}
