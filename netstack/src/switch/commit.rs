//! Carrying decisions out: the only part of the slow path that changes the switch.

use core::net::IpAddr;
use core::time::Duration;

use super::Switch;
use super::admit::Arrival;
use super::connections::{Passage, Tracked};
use super::protect;
use super::slow::{Adjacent, Answer, Aside, Decided, Decision, Hearsay, Route, Scope};
use super::waiting::Waiting;
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::bridge::Learned;
use crate::config::{Segment, Snapshot};
use crate::emit;
use crate::event::Event;
use crate::flow::Plan;
use crate::frame::Frame;
use crate::neighbor::{Heard, NeighborAction, Parking, Resolving};
use crate::offload;
use crate::parse::{self, Network};
use crate::verdict::{DropReason, Fate, Origin};

/// A table that is full is told of this often at most: whoever fills it sends a frame every microsecond.
const FULL_INTERVAL: Duration = Duration::from_secs(60);

/// Whether it was not told for an interval, in which case it now is.
pub(super) fn is_news(now: Duration, told: &mut Option<Duration>) -> bool {
    let news = told.is_none_or(|told| now.saturating_sub(told) >= FULL_INTERVAL);
    if news {
        *told = Some(now);
    }
    news
}

impl Switch {
    pub(super) fn learn(&mut self, now: Duration, arrival: &Arrival<'_>) {
        let (segment, mac, port) = (arrival.segment.id(), arrival.link.source, arrival.port.id());
        // What the configuration says of an address holds, wherever it is seen.
        if arrival.is_managed() || arrival.segment.places(mac) {
            return;
        }
        match self.fdb.learn(now, segment, mac, port) {
            Learned::Moved { from, restless } => self.moved(now, (segment, mac), (from, port), restless),
            Learned::Refused(_) => {
                if is_news(now, &mut self.port_mut(port).fdb_full_told) {
                    self.event(Event::FdbFull { port });
                }
            }
            Learned::New | Learned::Refreshed | Learned::Unchanged => {}
        }
    }

    /// Does what was decided about a frame and counts its fate.
    #[expect(clippy::too_many_arguments, reason = "a decision's parts, of which one is large")]
    pub(super) fn commit(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        decided: Decided,
        passage: &Passage,
        frame: Frame,
    ) {
        let port = arrival.port.id();
        if let Some(hearsay) = decided.hearsay {
            self.hear(snapshot, now, arrival.segment.id(), &hearsay);
        }
        match decided.aside {
            Some(Aside::Conflict(conflict)) => self.contest(snapshot, now, arrival, &conflict),
            Some(Aside::RouterSolicited) => self.router_solicited(now, arrival.segment.id()),
            None => {}
        }
        match decided.decision {
            Decision::Drop { reason, answer } => {
                if let Some(answer) = answer {
                    self.answer(snapshot, now, arrival, &frame, &answer);
                }
                if reason == DropReason::StormControl && is_news(now, &mut self.port_mut(port).storm_told) {
                    self.event(Event::Storm { port });
                }
                self.drop_frame(port, frame, reason);
            }
            Decision::Consume(answer) => {
                if let Some(answer) = answer {
                    self.answer(snapshot, now, arrival, &frame, &answer);
                }
                self.count_fate(port, Fate::Consumed);
                self.pool.recycle(frame);
            }
            Decision::LoopProbe { sent_by } => {
                self.count_fate(port, Fate::Consumed);
                self.pool.recycle(frame);
                self.probe_returned(now, sent_by, port);
            }
            Decision::Bridge(to) => {
                let Some(frame) = self.translate(now, arrival, tracked, passage, frame) else { return };
                self.count_fate(port, Fate::Forwarded);
                self.remember(snapshot, now, arrival, tracked, (to, arrival.segment), None);
                self.send(snapshot, to, arrival.segment, frame, Origin::Forwarded);
            }
            Decision::Flood(scope) => {
                self.flood(snapshot, now, arrival, tracked, (scope, passage), frame);
            }
            Decision::Route(route) => self.route(snapshot, now, arrival, tracked, (&route, passage), frame),
        }
    }

    fn flood(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        (scope, passage): (Scope, &Passage),
        frame: Frame,
    ) {
        let ingress = arrival.port.id();
        let mut targets = protect::flood_targets(snapshot, arrival, scope).peekable();
        if targets.peek().is_none() {
            return self.drop_tracked(
                arrival,
                tracked,
                frame,
                protect::without_targets(snapshot, arrival, scope),
            );
        }
        let Some(frame) = self.translate(now, arrival, tracked, passage, frame) else { return };
        self.count_fate(ingress, Fate::Flooded);
        self.copy_to(snapshot, arrival.segment, targets, frame, Origin::FloodCopy);
    }

    /// Sends a frame to each port as it is.
    pub(super) fn copy_to(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        targets: impl Iterator<Item = PortId>,
        frame: Frame,
        origin: Origin,
    ) {
        self.distribute(targets, frame, |switch, port, frame, _| {
            switch.send(snapshot, port, segment, frame, origin);
        });
    }

    /// Gives `send` a frame for each port, and whether it is the last one: copies, and then the original.
    fn distribute(
        &mut self,
        targets: impl Iterator<Item = PortId>,
        frame: Frame,
        mut send: impl FnMut(&mut Self, PortId, Frame, bool),
    ) {
        let mut targets = targets.peekable();
        while let Some(port) = targets.next() {
            if targets.peek().is_none() {
                return send(self, port, frame, true);
            }
            let copy = self.pool.duplicate(&frame);
            send(self, port, copy, false);
        }
        self.pool.recycle(frame);
    }

    fn route(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        (route, passage): (&Route, &Passage),
        frame: Frame,
    ) {
        let ingress = arrival.port.id();
        let Some(egress) = snapshot.segment(route.egress) else {
            return self.drop_tracked(arrival, tracked, frame, DropReason::NoRoute);
        };
        let port = match route.adjacency {
            Adjacent::Unresolved => {
                return self.park(snapshot, now, arrival, tracked, (route, passage), frame);
            }
            Adjacent::Station { port } => Some(port),
            Adjacent::Learned { slot } => {
                self.neighbors.use_entry(now, slot);
                self.port_of(now, egress, route.plan.destination)
            }
        };
        // A neighbour whose MAC address has aged out of the bridge's table: as for any unknown unicast, the frame goes
        // to every foreign port of the segment.
        let (ports, fate, origin) = match &port {
            Some(port) => (core::slice::from_ref(port), Fate::Forwarded, Origin::Forwarded),
            None => (egress.foreign(), Fate::Flooded, Origin::FloodCopy),
        };
        if ports.is_empty() {
            return self.drop_tracked(arrival, tracked, frame, DropReason::NoOtherPort);
        }
        let Some(frame) = self.translate(now, arrival, tracked, passage, frame) else { return };
        self.count_fate(ingress, fate);
        if let (Some(port), None) = (port, route.fragment) {
            self.remember(snapshot, now, arrival, tracked, (port, egress), Some(route));
        }
        self.distribute(ports.iter().copied(), frame, |switch, port, frame, _| {
            switch.transmit(snapshot, port, egress, &route.plan, route.fragment, frame, origin);
        });
    }

    fn park(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        (route, passage): (&Route, &Passage),
        frame: Frame,
    ) {
        let ingress = arrival.port.id();
        let from = (ingress, arrival.segment.id());
        let waiting = Waiting::new(from, route, passage, self.policy_number());
        match self.wait(snapshot, now, route.next_hop, waiting, frame) {
            Ok(()) => self.count_fate(ingress, Fate::Parked),
            Err((frame, reason)) => self.drop_tracked(arrival, tracked, frame, reason),
        }
    }

    /// Has a frame wait for its next hop, which is asked for if nobody has.
    fn wait(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        next_hop: IpAddr,
        waiting: Waiting,
        frame: Frame,
    ) -> Result<(), (Frame, DropReason)> {
        let egress = waiting.egress;
        let Ok(Resolving { slot, solicit }) = self.neighbors.resolve(now, egress, next_hop) else {
            if is_news(now, &mut self.neighbors_full_told) {
                self.event(Event::NeighborTableFull { segment: egress });
            }
            return Err((frame, DropReason::NeighborTableFull));
        };
        let parked = match self.parked.park(slot, frame, waiting) {
            Parking::Parked => Ok(()),
            Parking::ParkedDroppingOldest(oldest, context) => {
                self.drop_parked(oldest, &context, DropReason::NeighborQueueFull);
                Ok(())
            }
            Parking::Refused(frame, _) => Err((frame, DropReason::NeighborQueueFull)),
        };
        if solicit {
            self.solicit(snapshot, now, egress, next_hop, None);
        }
        parked
    }

    fn drop_parked(&mut self, frame: Frame, context: &Waiting, reason: DropReason) {
        self.counters_mut(context.ingress).parked_drops[reason.index()] += 1;
        self.reject_after_waiting(context.ingress_segment, &frame);
        self.pool.recycle(frame);
    }

    /// Takes in what a frame said about a neighbour, and sends on what waited for it.
    fn hear(&mut self, snapshot: &Snapshot, now: Duration, segment: SegmentId, hearsay: &Hearsay) {
        let heard = self.neighbors.heard(now, segment, hearsay.address, hearsay.mac, hearsay.hearing);
        let (Some(mac), Heard::Resolved { slot } | Heard::Moved { slot, .. }) = (hearsay.mac, heard) else {
            return;
        };
        if let Heard::Moved { .. } = heard {
            self.event(Event::NeighborChanged { segment, address: hearsay.address, mac });
        }
        self.release(snapshot, now, slot, mac);
    }

    fn release(&mut self, snapshot: &Snapshot, now: Duration, slot: u32, mac: MacAddr) {
        while let Some((frame, context)) = self.parked.take_oldest(slot) {
            match self.go_on(snapshot, now, mac, &context, frame) {
                Ok(()) => self.proceed_fragments(snapshot, now),
                Err((frame, Some(reason))) => self.drop_parked(frame, &context, reason),
                Err((frame, None)) => self.go_elsewhere(snapshot, now, &context, frame),
            }
        }
    }

    /// Sends on a frame that has waited for a neighbour, which is at `mac`.
    ///
    /// # Errors
    /// The frame as it came, and why it goes no further; without a reason it is to be decided about again.
    fn go_on(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        mac: MacAddr,
        context: &Waiting,
        frame: Frame,
    ) -> Result<(), (Frame, Option<DropReason>)> {
        if context.policies != self.policy_number() {
            return Err((frame, None));
        }
        // The configuration may be another than the one it was routed by.
        let egress = snapshot.segment(context.egress).and_then(|s| Some((s, s.gateway()?)));
        let Some((egress, gateway)) = egress else { return Err((frame, Some(DropReason::NoRoute))) };
        if !fits(&frame, egress, context.fragment) {
            return Err((frame, Some(DropReason::PacketTooBig)));
        }
        let plan = Plan { source: gateway.mac, destination: mac, ..context.plan };
        // Where the bridge has no room for the next hop's place, the frame goes to every foreign port.
        let port = self.port_of(now, egress, mac);
        let ports = port.as_ref().map_or(egress.foreign(), core::slice::from_ref);
        if ports.is_empty() {
            return Err((frame, Some(DropReason::NoOtherPort)));
        }
        let frame = self.translate_late(now, context.ingress_segment, &context.passage, frame)?;
        self.distribute(ports.iter().copied(), frame, |switch, port, frame, last| {
            let origin = if last { Origin::Unparked } else { Origin::FloodCopy };
            switch.transmit(snapshot, port, egress, &plan, context.fragment, frame, origin);
        });
        Ok(())
    }

    /// Decides again about a frame that has waited for a neighbour while its connection began with another.
    fn go_elsewhere(&mut self, snapshot: &Snapshot, now: Duration, context: &Waiting, frame: Frame) {
        let (ingress, segment) = (context.ingress, context.ingress_segment);
        let mut passage = Passage::Plain;
        let route = match self.route_again(snapshot, now, (ingress, segment), &frame, &mut passage) {
            Ok(route) => route,
            Err(reason) => return self.drop_parked(frame, context, reason),
        };
        let waiting = Waiting::new((ingress, segment), &route, &passage, self.policy_number());
        let gone = match route.adjacency {
            Adjacent::Unresolved => self.wait(snapshot, now, route.next_hop, waiting, frame),
            Adjacent::Station { .. } | Adjacent::Learned { .. } => {
                let sent = self.go_on(snapshot, now, route.plan.destination, &waiting, frame);
                // What was decided just now needs not be decided again.
                sent.map_err(|(frame, reason)| (frame, reason.unwrap_or(DropReason::ConnectionClash)))
            }
        };
        if let Err((frame, reason)) = gone {
            self.drop_parked(frame, context, reason);
        }
    }

    /// Drops what waits under a slot whose neighbour has been forgotten.
    pub(super) fn abandon(&mut self, slot: u32) {
        while let Some((frame, context)) = self.parked.take_oldest(slot) {
            self.drop_parked(frame, &context, DropReason::NeighborFailed);
        }
    }

    /// Asks for a neighbour on the segment's foreign ports; managed stations never need to be asked. One whose place is
    /// known is asked there alone.
    fn solicit(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        segment: SegmentId,
        target: IpAddr,
        unicast: Option<MacAddr>,
    ) {
        let Some(segment) = snapshot.segment(segment) else { return };
        let Some(gateway) = segment.gateway() else { return };
        let source =
            self.source_for(segment, gateway, target).or_else(|| self.any_source(snapshot, target.is_ipv4()));
        let Some(source) = source else { return };
        let question = emit::neighbor_question(&mut self.pool, gateway.mac, source, target, unicast);
        let Some(frame) = question else { return };
        let port = unicast.and_then(|mac| self.port_of(now, segment, mac));
        let ports = port.as_ref().map_or(segment.foreign(), core::slice::from_ref);
        self.copy_to(snapshot, segment, ports.iter().copied(), frame, Origin::Originated);
    }

    /// Asks for a neighbour as a frame for it would, so that a trace can go on where a frame would wait.
    pub fn ask_for(&mut self, now: Duration, segment: SegmentId, neighbor: IpAddr) {
        let snapshot = alloc::sync::Arc::clone(self.snapshot());
        if snapshot.segment(segment).is_none() {
            return;
        }
        if let Ok(Resolving { solicit: true, .. }) = self.neighbors.resolve(now, segment, neighbor) {
            self.solicit(&snapshot, now, segment, neighbor, None);
        }
    }

    /// Timers of neighbours: asks again, or gives up and tells the senders of what waited.
    pub(super) fn neighbor_timeouts(&mut self, snapshot: &Snapshot, now: Duration) {
        let mut actions = core::mem::take(&mut self.actions);
        self.neighbors.handle_timeout(now, super::TIMEOUT_BUDGET, &mut |action| actions.push(action));
        for action in actions.drain(..) {
            match action {
                NeighborAction::Solicit { segment, ip, unicast_to } => {
                    self.solicit(snapshot, now, segment, ip, unicast_to)
                }
                NeighborAction::Failed { segment, ip, slot } => {
                    self.event(Event::NeighborFailed { segment, address: ip });
                    while let Some((frame, context)) = self.parked.take_oldest(slot) {
                        self.unreachable(snapshot, now, &frame, &context);
                        self.drop_parked(frame, &context, DropReason::NeighborFailed);
                    }
                }
            }
        }
        self.actions = actions;
    }

    /// Tells a parked frame's sender that its next hop did not answer.
    fn unreachable(&mut self, snapshot: &Snapshot, now: Duration, frame: &Frame, context: &Waiting) {
        let arrival = Arrival::again(snapshot, context.ingress, context.ingress_segment, frame);
        let Some(arrival) = arrival else { return };
        if let Some(answer) = self.host_unreachable(snapshot, now, &arrival, frame) {
            self.answer(snapshot, now, &arrival, frame, &answer);
        }
    }

    /// Sends our own frame back by the port and to the station that a frame came from.
    fn answer(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
        answer: &Answer,
    ) {
        let Some(gateway) = arrival.segment.gateway() else {
            // A purely bridged segment still answers discovery on behalf of its managed stations.
            if let Some(reply) = self.discovery_answer(answer) {
                self.originate(snapshot, arrival, reply);
            }
            return;
        };
        let (own, peer, link) = (gateway.mac, arrival.link.source, &arrival.link);
        let reply = match (answer, &arrival.network) {
            (Answer::Discovery { .. }, _) => self.discovery_answer(answer),
            (Answer::Echo, Some(Network::Ip(ip))) => {
                emit::echo_reply(&mut self.pool, frame.bytes(), link, ip)
            }
            // Not limited: a refused connection must be refused at once, and one short answer per segment amplifies
            // nothing.
            (Answer::Reset, Some(Network::Ip(ip))) => {
                emit::tcp_reset(&mut self.pool, frame.bytes(), link, ip)
            }
            (Answer::Icmp { error, source }, Some(Network::Ip(ip))) if self.limiter.allow(now, ip.source) => {
                // The quote is what a wire would have carried: with the checksum that the sender left to its device.
                let mut finished = self.pool.duplicate(frame);
                // One that cannot be finished is quoted as it came.
                let _ = offload::complete_checksum(&mut finished);
                let error =
                    emit::icmp_error(&mut self.pool, *error, finished.bytes(), ip, *source, own, peer);
                self.pool.recycle(finished);
                error
            }
            (Answer::Echo | Answer::Reset | Answer::Icmp { .. }, _) => None,
        };
        if let Some(reply) = reply {
            self.originate(snapshot, arrival, reply);
        }
    }

    fn discovery_answer(&mut self, answer: &Answer) -> Option<Frame> {
        let Answer::Discovery { target, mac, router, override_, asker, asker_mac } = *answer else {
            return None;
        };
        emit::neighbor_answer(&mut self.pool, target, mac, (asker_mac, asker), router, override_)
    }

    fn originate(&mut self, snapshot: &Snapshot, arrival: &Arrival<'_>, reply: Frame) {
        self.send(snapshot, arrival.port.id(), arrival.segment, reply, Origin::Originated);
    }
}

/// Whether a frame that has waited fits its next link, whole or in the fragments that were decided on.
fn fits(frame: &Frame, egress: &Segment, fragment: Option<u16>) -> bool {
    if let Some(mtu) = fragment {
        return usize::from(mtu) <= egress.mtu();
    }
    let network = parse::link(frame.bytes()).and_then(|link| parse::network(frame.bytes(), &link));
    matches!(network, Ok(Network::Ip(ip)) if offload::packet_size_on_wire(frame, &ip) <= egress.mtu())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_news_once_a_minute() {
        let mut told = None;
        let tell = |seconds: u64, told: &mut Option<Duration>| is_news(Duration::from_secs(seconds), told);
        assert!(tell(5, &mut told));
        assert!(!(5..65).any(|second| tell(second, &mut told)));
        assert!(tell(65, &mut told) && !tell(66, &mut told));
        assert!(!tell(0, &mut told), "a clock that runs backwards is no news");
    }
}
