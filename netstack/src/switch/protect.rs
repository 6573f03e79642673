//! Protection of the bridge: storm control, loops, isolated ports, stations that move.

use core::time::Duration;

use super::Switch;
use super::admit::Arrival;
use super::explain::{Recorder, Stage};
use super::policy::Audience;
use super::slow::{Decided, Decision, Scope};
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::bridge::{LoopAction, LoopFound, Restless};
use crate::config::{Port, Snapshot};
use crate::event::Event;
use crate::frame::Frame;
use crate::rate::{Bucket, Pace};
use crate::verdict::{DropReason, EgressDrop, Origin};

/// Moves of MAC addresses that are told: ten a second, after a burst of ten.
const MOVES_TOLD: Pace = Pace::every(Duration::from_millis(100), 10);
/// How long moves that were not told are counted before their number is.
const UNTOLD_FOR: Duration = Duration::from_secs(1);

/// What is told of stations that move, so that a loop does not flush the events.
#[derive(Debug, Default)]
pub(super) struct Moves {
    bucket: Bucket,
    untold: u64,
    tell_at: Option<Duration>,
}

impl Moves {
    pub(super) fn next_timeout(&self) -> Option<Duration> {
        self.tell_at
    }

    /// Whether to tell of a move; otherwise it is counted.
    fn tell(&mut self, now: Duration) -> bool {
        let tell = self.bucket.take(now, MOVES_TOLD);
        if !tell {
            self.untold += 1;
            self.tell_at.get_or_insert(now.saturating_add(UNTOLD_FOR));
        }
        tell
    }

    /// How many were not told, when it is time to say so.
    fn untold(&mut self, now: Duration) -> Option<u64> {
        self.tell_at.filter(|&at| at <= now)?;
        self.tell_at = None;
        Some(core::mem::take(&mut self.untold))
    }
}

/// The ports that a flood goes to: never the one that it came from, from an isolated port to none that is isolated, and to
/// nobody whom a policy keeps from it.
pub(super) fn flood_targets<'a>(
    snapshot: &'a Snapshot,
    arrival: &Arrival<'a>,
    scope: Scope,
) -> impl Iterator<Item = PortId> + use<'a> {
    let (ingress, port, audience) = (arrival.port.id(), arrival.port, Audience::of(snapshot, arrival));
    let others = members(arrival, scope).iter().copied();
    others.filter(move |&p| p != ingress && !isolates(snapshot, port, p) && audience.has(snapshot, p))
}

/// Why a flood without targets goes nowhere.
pub(super) fn without_targets(snapshot: &Snapshot, arrival: &Arrival<'_>, scope: Scope) -> DropReason {
    let mut others = members(arrival, scope).iter().filter(|&&p| p != arrival.port.id()).peekable();
    if others.peek().is_none() {
        DropReason::NoOtherPort
    } else if others.all(|&p| isolates(snapshot, arrival.port, p)) {
        DropReason::PortIsolated
    } else {
        DropReason::PolicyDenied
    }
}

fn members<'a>(arrival: &Arrival<'a>, scope: Scope) -> &'a [PortId] {
    match scope {
        Scope::All => arrival.segment.members(),
        Scope::Foreign => arrival.segment.foreign(),
    }
}

/// Whether nothing is bridged between two ports: both are isolated.
pub(super) fn isolates(snapshot: &Snapshot, from: &Port, to: PortId) -> bool {
    from.is_isolated() && snapshot.port(to).is_some_and(Port::is_isolated)
}

impl Switch {
    /// Stops a frame that was let in, before anything is learned from it: probes for loops, ports that are blocked, too
    /// many frames to groups.
    pub(super) fn gate<R: Recorder>(
        &self,
        now: Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
        recorder: &mut R,
    ) -> Option<Decided> {
        let port = arrival.port.id();
        if let Some((sent_by, segment)) = self.loops.read(&arrival.link, frame.bytes())
            && segment == arrival.segment.id()
        {
            recorder.step(Stage::Protection, || {
                alloc::format!("this switch's own probe for loops, which left by {sent_by}")
            });
            return Some(Decision::LoopProbe { sent_by }.into());
        }
        if self.loops.is_blocked(port) {
            recorder.step(Stage::Protection, || {
                alloc::format!("{} is blocked: it is part of a loop", arrival.port.name())
            });
            return Some(Decision::dropped(DropReason::LoopBlocked));
        }
        let group = arrival.link.destination.is_multicast();
        (group && self.storms(now, arrival.port, recorder))
            .then(|| Decision::dropped(DropReason::StormControl))
    }

    /// Whether a port's storm control lets no further frame through at this moment.
    pub(super) fn storms<R: Recorder>(&self, now: Duration, port: &Port, recorder: &mut R) -> bool {
        let Some(pace) = port.storm() else { return false };
        let bucket = self.ports.get(usize::from(port.id().0)).map(|p| p.storm).unwrap_or_default();
        let storms = !bucket.allows(now, pace);
        recorder.step(Stage::Protection, || {
            let verb = if storms { "is used up" } else { "lets it through" };
            alloc::format!("storm control of {} {verb}", port.name())
        });
        storms
    }

    /// Counts a frame against its port's storm control, if it is of those.
    pub(super) fn charge(&mut self, now: Duration, arrival: &Arrival<'_>, decision: &Decision) {
        let Some(pace) = arrival.port.storm() else { return };
        // An unknown unicast that found the bucket empty has been dropped for it.
        let counts = arrival.link.destination.is_multicast() || matches!(decision, Decision::Flood(..));
        if counts {
            self.port_mut(arrival.port.id()).storm.take(now, pace);
        }
    }

    /// A learned address has appeared on another port.
    pub(super) fn moved(
        &mut self,
        now: Duration,
        (segment, mac): (SegmentId, MacAddr),
        (from, to): (PortId, PortId),
        restless: Restless,
    ) {
        if self.moves.tell(now) {
            self.event(Event::MacMoved { segment, mac, from, to });
        }
        if let Some(found) = self.loops.jumped(now, from, to, restless) {
            self.block(found);
        }
    }

    /// An own probe has come in.
    pub(super) fn probe_returned(&mut self, now: Duration, sent_by: PortId, came_in_by: PortId) {
        if let Some(found) = self.loops.returned(now, sent_by, came_in_by) {
            self.block(found);
        }
    }

    /// What was learned while the loop ran is worth nothing, and what waits to go out would go round.
    fn block(&mut self, found: LoopFound) {
        let LoopFound { port, other, evidence, blocked_for } = found;
        self.fdb.flush_port(port);
        self.fdb.flush_port(other);
        self.flows.forget();
        self.purge(port, EgressDrop::LoopBlocked);
        self.event(Event::LoopDetected { port, other, evidence, blocked_for });
    }

    /// Sends probes, opens ports, tells how many moves were not told.
    pub(super) fn protection_timeouts(&mut self, snapshot: &Snapshot, now: Duration) {
        if let Some(count) = self.moves.untold(now) {
            self.event(Event::MacMovesUntold { count });
        }
        let mut actions = core::mem::take(&mut self.loop_actions);
        self.loops.handle_timeout(now, &mut |action| actions.push(action));
        for action in actions.drain(..) {
            match action {
                LoopAction::Probe { port, round } => self.send_probe(snapshot, port, round),
                LoopAction::Opened { port } => self.event(Event::LoopCleared { port }),
            }
        }
        self.loop_actions = actions;
    }

    /// Sends a port's probe on one of its segments, whether the port is blocked or not.
    fn send_probe(&mut self, snapshot: &Snapshot, id: PortId, round: usize) {
        let Some(port) = snapshot.port(id) else { return };
        let tags = port.tags();
        let Some(&(segment, tag)) = round.checked_rem(tags.len()).and_then(|at| tags.get(at)) else { return };
        let probe = self.loops.probe(&mut self.pool, id, segment);
        self.tag_and_queue(port, tag, probe, Origin::Originated);
    }
}
