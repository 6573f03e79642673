//! What a frame is to the connections there are, asked before anything is decided about it: on routed frames and on bridged
//! ones, because an answer may go straight to its asker's MAC address and still need its translation undone.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use nat::packet::{Malformed, Packet};

use super::Switch;
use super::admit::Arrival;
use super::commit::is_news;
use super::connections::{Connections, Held, Judged, Kind, Passage, Seen, Tracked, What, read};
use super::explain::{Recorder, Silent, Stage};
use super::slow::{Decision, Route};
use crate::addr::{PortId, SegmentId, scope};
use crate::bridge;
use crate::config::Snapshot;
use crate::event::Event;
use crate::frame::Frame;
use crate::parse::{Ip, Network};
use crate::verdict::DropReason;

impl Switch {
    /// Tracks a frame that was let in, and sends it on its way.
    pub(super) fn pass(&mut self, snapshot: &Snapshot, now: Duration, arrival: &Arrival<'_>, frame: Frame) {
        match trackable(snapshot, arrival) {
            Some(ip) if ip.source.is_ipv4() => {
                self.pass_packet::<Ipv4Addr>(snapshot, now, arrival, &ip, frame)
            }
            Some(ip) => self.pass_packet::<Ipv6Addr>(snapshot, now, arrival, &ip, frame),
            None => self.proceed(snapshot, now, arrival, &Tracked::Not, frame),
        }
    }

    fn pass_packet<A: Kind>(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        ip: &Ip,
        frame: Frame,
    ) {
        let (port, segment, routed) = (arrival.port.id(), arrival.segment.id(), arrival.to_gateway());
        if routed && let Some(reason) = self.refuses_source(snapshot, arrival, ip.source) {
            return self.drop_frame(port, frame, reason);
        }
        let packet = match ip.layout().read(frame.bytes()) {
            Ok(packet) => packet,
            Err(fault) if routed => return self.drop_frame(port, frame, malformed(fault)),
            Err(_) => return self.proceed(snapshot, now, arrival, &Tracked::Not, frame),
        };
        let Some(connections) = &mut self.connections else {
            return self.proceed(snapshot, now, arrival, &Tracked::Not, frame);
        };
        if packet.layout.fragment.is_none() {
            let what = connections.judge::<A>(now, &packet, &frame, arrival);
            return self.pass_on(snapshot, now, arrival, packet, what, frame);
        }
        // Between two foreign stations only fragments of what is translated are put in order, and those to a station that
        // policies may be about: what a fragment is of, its first says alone.
        let guarded = snapshot.policies().is_some()
            && arrival.segment.station_by_mac(arrival.link.destination).is_some();
        let judged = routed || guarded || arrival.is_managed();
        if !judged && !connections.concerns::<A>(now, &packet, &frame, segment) {
            return self.proceed(snapshot, now, arrival, &Tracked::Not, frame);
        }
        let (frame, what) = match connections.take::<A>(now, &packet, Held { frame, port, segment }) {
            None => return self.drop_lost(),
            Some((held, Err(reason))) => (held.frame, Err(reason)),
            Some((held, Ok(Some(verdict)))) => (held.frame, Ok(What::Later(verdict))),
            Some((held, Ok(None))) => {
                let what = connections.judge::<A>(now, &packet, &held.frame, arrival);
                (held.frame, what)
            }
        };
        self.drop_lost();
        self.pass_on(snapshot, now, arrival, packet, what, frame);
    }

    /// Goes on with a packet that was tracked.
    fn pass_on<A: Kind>(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        packet: Packet,
        what: Result<What<A>, DropReason>,
        frame: Frame,
    ) {
        match what {
            Ok(what) => self.proceed(snapshot, now, arrival, &A::tracked(Seen { packet, what }), frame),
            Err(reason) => {
                let tracked = A::tracked(Seen { packet, what: What::Untracked });
                self.drop_tracked(arrival, &tracked, frame, reason);
            }
        }
    }

    /// Decides about a frame and does it.
    fn proceed(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        frame: Frame,
    ) {
        let mut passage = Passage::Plain;
        let decided = self.decide(snapshot, now, arrival, tracked, &frame, &mut Silent, &mut passage);
        self.charge(now, arrival, &decided.decision);
        self.count_forbidden(snapshot, arrival, tracked, &decided.decision);
        if let Decision::Drop { reason, .. } = &decided.decision
            && let Some(connections) = &mut self.connections
        {
            if connections.count_refusal(tracked, *reason)
                && let Some(ip) = arrival.ip()
                && is_news(now, &mut self.refusals_told)
            {
                self.event(Event::ConnectionRefused { reason: *reason, source: ip.source });
            }
            self.tell_denial(now, arrival, *reason);
            self.reject_later_fragments(arrival.segment.id(), tracked.packet(), &frame);
        }
        self.commit(snapshot, now, arrival, tracked, decided, &passage, frame);
        self.proceed_fragments(snapshot, now);
    }

    /// Drops a frame that was tracked, and if it is a first fragment those that wait for it.
    pub(super) fn drop_tracked(
        &mut self,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        frame: Frame,
        reason: DropReason,
    ) {
        self.reject_later_fragments(arrival.segment.id(), tracked.packet(), &frame);
        self.drop_frame(arrival.port.id(), frame, reason);
    }

    /// Drops the fragments that wait for a first one which goes no further.
    fn reject_later_fragments(&mut self, ingress: SegmentId, packet: Option<&Packet>, frame: &Frame) {
        let Some(connections) = &mut self.connections else { return };
        if let Some(packet) = packet.filter(|packet| packet.layout.fragment.is_some()) {
            connections.reject(self.seen, packet, frame, ingress);
            self.drop_lost();
        }
    }

    /// The same for a first one that has waited itself.
    pub(super) fn reject_after_waiting(&mut self, ingress: SegmentId, frame: &Frame) {
        if self.connections.is_some() {
            self.reject_later_fragments(ingress, read(frame).as_ref(), frame);
        }
    }

    /// Sends on the fragments that have waited for the first of their datagram.
    pub(super) fn proceed_fragments(&mut self, snapshot: &Snapshot, now: Duration) {
        let Some(connections) = &mut self.connections else { return };
        let mut released = connections.take_released();
        for (Held { frame, port, segment }, tracked) in released.drain(..) {
            match Arrival::again(snapshot, port, segment, &frame) {
                Some(arrival) => self.proceed(snapshot, now, &arrival, &tracked, frame),
                None => self.drop_frame(port, frame, DropReason::PortClosed),
            }
        }
        if let Some(connections) = &mut self.connections {
            connections.put_back(released);
        }
    }

    /// Counts the fragments that go no further.
    pub(super) fn drop_lost(&mut self) {
        while let Some((held, reason)) =
            self.connections.as_mut().and_then(|connections| connections.take_lost())
        {
            self.drop_frame(held.port, held.frame, reason);
        }
    }

    /// What a frame would be if it came now, and why.
    pub(super) fn look<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
        recorder: &mut R,
    ) -> Result<Tracked, DropReason> {
        match trackable(snapshot, arrival) {
            Some(ip) if ip.source.is_ipv4() => {
                self.look_at::<Ipv4Addr, R>(snapshot, now, arrival, &ip, frame, recorder)
            }
            Some(ip) => self.look_at::<Ipv6Addr, R>(snapshot, now, arrival, &ip, frame, recorder),
            None => Ok(Tracked::Not),
        }
    }

    fn look_at<A: Kind, R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        ip: &Ip,
        frame: &Frame,
        recorder: &mut R,
    ) -> Result<Tracked, DropReason> {
        let Some(connections) = &self.connections else { return Ok(Tracked::Not) };
        if arrival.to_gateway()
            && let Some(reason) = self.refuses_source(snapshot, arrival, ip.source)
        {
            return Err(reason);
        }
        let packet = match ip.layout().read(frame.bytes()) {
            Ok(packet) => packet,
            Err(fault) if arrival.to_gateway() => return Err(malformed(fault)),
            Err(_) => return Ok(Tracked::Not),
        };
        let what = match connections.look::<A>(now, &packet, frame, arrival.segment) {
            Ok(what) => what,
            Err(_) if !arrival.to_gateway() && !connections.translates::<A>(now, &packet) => What::Untracked,
            Err(reason) => return Err(reason),
        };
        recorder.step(Stage::Track, || super::explain::tracked_text(connections, now, &what));
        if let What::Opens { new, towards, judged: Judged { selected: Some(selected), .. } } = &what {
            let balancing = connections.balancing();
            recorder.step(Stage::Service, || balancing.describe(selected, &new.tuple, towards));
        }
        connections.record_verdict(&what, recorder);
        Ok(A::tracked(Seen { packet, what }))
    }

    /// Translates a frame that leaves, and begins the connection that it opens. What cannot leave is dropped.
    pub(super) fn translate(
        &mut self,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        passage: &Passage,
        frame: Frame,
    ) -> Option<Frame> {
        let Some(packet) = tracked.packet() else { return Some(frame) };
        match self.finish(now, arrival.segment.id(), packet, passage, frame) {
            Ok(frame) => Some(frame),
            Err((frame, reason)) => {
                self.drop_tracked(arrival, tracked, frame, reason);
                None
            }
        }
    }

    /// The same for a frame that has waited, whose connection may have begun or ended meanwhile.
    ///
    /// # Errors
    /// The frame as it came, and why it goes no further; without a reason it is to be decided about again.
    pub(super) fn translate_late(
        &mut self,
        now: Duration,
        ingress: SegmentId,
        passage: &Passage,
        frame: Frame,
    ) -> Result<Frame, (Frame, Option<DropReason>)> {
        let Some(connections) = &mut self.connections else {
            // Nothing is translated any more, and what was to be must not leave as it is.
            let plain = matches!(passage, Passage::Plain);
            return if plain { Ok(frame) } else { Err((frame, Some(DropReason::ConnectionInvalid))) };
        };
        let Some(packet) = read(&frame) else { return Ok(frame) };
        let finished = match connections.resume(now, &packet, &frame, passage) {
            Ok(Some(passage)) => self.finish(now, ingress, &packet, &passage, frame),
            Ok(None) => return Err((frame, None)),
            Err(reason) => Err((frame, reason)),
        };
        finished.map_err(|(frame, reason)| (frame, Some(reason)))
    }

    /// The way of a frame that has waited, as things are now.
    ///
    /// # Errors
    /// Why it has none.
    pub(super) fn route_again(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        (port, segment): (PortId, SegmentId),
        frame: &Frame,
        passage: &mut Passage,
    ) -> Result<Route, DropReason> {
        let arrival = Arrival::again(snapshot, port, segment, frame).ok_or(DropReason::PortClosed)?;
        let (Some(connections), Some(packet)) = (&mut self.connections, read(frame)) else {
            return Err(DropReason::ConnectionInvalid);
        };
        let tracked = if packet.layout.source.is_ipv4() {
            let what = connections.track::<Ipv4Addr>(now, &packet, frame, arrival.segment)?;
            Tracked::V4(Seen { packet, what })
        } else {
            let what = connections.track::<Ipv6Addr>(now, &packet, frame, arrival.segment)?;
            Tracked::V6(Seen { packet, what })
        };
        let decided = self.decide(snapshot, now, &arrival, &tracked, frame, &mut Silent, passage);
        match decided.decision {
            Decision::Route(route) => Ok(route),
            Decision::Drop { reason, .. } => {
                self.count_forbidden(snapshot, &arrival, &tracked, &decided.decision);
                Err(reason)
            }
            Decision::Bridge(..)
            | Decision::Flood(..)
            | Decision::Consume(_)
            | Decision::LoopProbe { .. } => Err(DropReason::ConnectionClash),
        }
    }

    fn finish(
        &mut self,
        now: Duration,
        ingress: SegmentId,
        packet: &Packet,
        passage: &Passage,
        mut frame: Frame,
    ) -> Result<Frame, (Frame, DropReason)> {
        let Some(connections) = &mut self.connections else { return Ok(frame) };
        let translation = match connections.begin(now, packet, &frame, passage) {
            Ok(translation) => translation,
            Err(reason) => return Err((frame, reason)),
        };
        if let Some(translation) = &translation
            && translation.apply(&mut frame, packet).is_err()
        {
            return Err((frame, DropReason::TranslationUnfit));
        }
        connections.settle(now, packet, &frame, ingress, translation);
        Ok(frame)
    }
}

impl Connections {
    /// Tracks a packet. On the bridge only what is translated is stopped where it fits no connection: the rest is its stations'.
    fn judge<A: Kind>(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        arrival: &Arrival<'_>,
    ) -> Result<What<A>, DropReason> {
        match self.track::<A>(now, packet, frame, arrival.segment) {
            Err(_) if !arrival.to_gateway() && !self.translates::<A>(now, packet) => Ok(What::Untracked),
            what => what,
        }
    }
}

/// The packet, if it is of a kind that is tracked: from one station to another, with addresses that mean the same
/// everywhere.
fn trackable(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Option<Ip> {
    // Addresses mean the same on all segments that the router is on.
    let (translator, _) = snapshot.translator().zip(arrival.segment.gateway())?;
    let Some(Network::Ip(ip)) = arrival.network else { return None };
    let is_local = |address: IpAddr| {
        let router = snapshot.router();
        router.keeps_on_link(address) || scope::is_group(address) || address.is_unspecified()
    };
    let tracked = !arrival.link.destination.is_multicast()
        && !bridge::is_reserved(arrival.link.destination)
        && !is_local(ip.source)
        && !is_local(ip.destination)
        && !translator.is_untracked(ip.source)
        && !translator.is_untracked(ip.destination)
        && !snapshot.router().is_broadcast(ip.destination);
    tracked.then_some(ip)
}

const fn malformed(fault: Malformed) -> DropReason {
    match fault {
        Malformed::Quote => DropReason::IcmpQuoteInvalid,
        Malformed::Version
        | Malformed::Header
        | Malformed::HeaderChecksum
        | Malformed::Extensions
        | Malformed::Upper => DropReason::ConnectionInvalid,
    }
}
