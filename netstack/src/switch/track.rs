//! What a frame is to the connections there are, asked before anything is decided about it: on routed frames and on bridged
//! ones, because an answer may go straight to its asker's MAC address and still need its translation undone.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use nat::packet::{Malformed, Packet};

use super::Switch;
use super::admit::Arrival;
use super::commit::is_news;
use super::connections::{Held, Kind, Passage, Seen, Tracked, What, read};
use super::explain::{Recorder, Silent, Stage};
use super::slow::Decision;
use crate::addr::scope;
use crate::bridge;
use crate::config::Snapshot;
use crate::event::Event;
use crate::flow::Translation;
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
        let (port, segment) = (arrival.port.id(), arrival.segment.id());
        let packet = match ip.layout().read(frame.bytes()) {
            Ok(packet) => packet,
            Err(fault) if arrival.to_gateway() => return self.drop_frame(port, frame, malformed(fault)),
            Err(_) => return self.proceed(snapshot, now, arrival, &Tracked::Not, frame),
        };
        let Some(connections) = &mut self.connections else {
            return self.proceed(snapshot, now, arrival, &Tracked::Not, frame);
        };
        let taken = connections.take::<A>(now, &packet, Held { frame, port, segment });
        let tracked = match taken {
            None => None,
            Some((held, Err(reason))) => Some((held.frame, Err(reason))),
            Some((held, Ok(Some(verdict)))) => Some((held.frame, Ok(What::Later(verdict)))),
            Some((held, Ok(None))) => {
                let what = connections.track::<A>(now, &packet, &held.frame, segment);
                // On the bridge only what is translated is stopped where it fits no connection: the rest is its stations'.
                let what = match what {
                    Err(_) if !arrival.to_gateway() && !connections.knows::<A>(now, &packet, &held.frame) => {
                        Ok(What::Untracked)
                    }
                    what => what,
                };
                Some((held.frame, what))
            }
        };
        self.drop_lost();
        match tracked {
            None => {}
            Some((frame, Ok(what))) => {
                self.proceed(snapshot, now, arrival, &A::tracked(Seen { packet, what }), frame);
            }
            Some((frame, Err(reason))) => self.drop_frame(port, frame, reason),
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
        let decided = self.decide(snapshot, now, arrival, tracked, &frame, &mut Silent);
        self.charge(now, arrival, &decided.decision);
        if let Decision::Drop { reason, .. } = &decided.decision
            && let Some(connections) = &mut self.connections
        {
            connections.reject(now, tracked, frame.bytes());
            if connections.count_refusal(tracked, *reason)
                && let Some(ip) = arrival.ip()
                && is_news(now, &mut self.refusals_told)
            {
                self.event(Event::ConnectionRefused { reason: *reason, source: ip.source });
            }
            self.drop_lost();
        }
        self.commit(snapshot, now, arrival, tracked, decided, frame);
        self.proceed_fragments(snapshot, now);
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
                self.look_at::<Ipv4Addr, R>(now, arrival, &ip, frame, recorder)
            }
            Some(ip) => self.look_at::<Ipv6Addr, R>(now, arrival, &ip, frame, recorder),
            None => Ok(Tracked::Not),
        }
    }

    fn look_at<A: Kind, R: Recorder>(
        &self,
        now: Duration,
        arrival: &Arrival<'_>,
        ip: &Ip,
        frame: &Frame,
        recorder: &mut R,
    ) -> Result<Tracked, DropReason> {
        let Some(connections) = &self.connections else { return Ok(Tracked::Not) };
        let packet = match ip.layout().read(frame.bytes()) {
            Ok(packet) => packet,
            Err(fault) if arrival.to_gateway() => return Err(malformed(fault)),
            Err(_) => return Ok(Tracked::Not),
        };
        let what = match connections.look::<A>(now, &packet, frame, arrival.segment.id()) {
            Ok(what) => what,
            Err(_) if !arrival.to_gateway() => What::Untracked,
            Err(reason) => return Err(reason),
        };
        recorder.step(Stage::Track, || super::explain::tracked_text(connections, now, &what));
        Ok(A::tracked(Seen { packet, what }))
    }

    /// Translates a frame that leaves, and begins the connection that it opens.
    ///
    /// # Errors
    /// The frame as it came, and why it goes no further.
    pub(super) fn translate(
        &mut self,
        now: Duration,
        packet: Option<&Packet>,
        passage: &Passage,
        mut frame: Frame,
    ) -> Result<Frame, (Frame, DropReason)> {
        let (Some(packet), Some(connections)) = (packet, &mut self.connections) else { return Ok(frame) };
        match connections.finish(now, packet, &frame, passage) {
            Ok(None) => Ok(frame),
            Ok(Some(translation)) => match apply(&translation, &mut frame, packet) {
                Ok(()) => Ok(frame),
                Err(reason) => Err((frame, reason)),
            },
            Err(reason) => Err((frame, reason)),
        }
    }

    /// The same for a frame that has waited, whose connection may have begun meanwhile.
    pub(super) fn translate_late(
        &mut self,
        now: Duration,
        passage: &Passage,
        frame: Frame,
    ) -> Result<Frame, (Frame, DropReason)> {
        let Some(connections) = &mut self.connections else { return Ok(frame) };
        let Some(packet) = read(&frame) else { return Ok(frame) };
        match connections.resume(now, &packet, &frame, passage) {
            Ok(passage) => self.translate(now, Some(&packet), &passage, frame),
            Err(reason) => Err((frame, reason)),
        }
    }
}

fn apply(translation: &Translation, frame: &mut Frame, packet: &Packet) -> Result<(), DropReason> {
    translation.apply(frame, packet).map_err(|_| DropReason::TranslationUnfit)
}

/// The packet, if it is of a kind that is tracked: from one station to another, with addresses that mean the same
/// everywhere.
fn trackable(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Option<Ip> {
    snapshot.translator()?;
    let Some(Network::Ip(ip)) = arrival.network else { return None };
    let is_local = |address: IpAddr| {
        scope::is_link_scoped(address) || scope::is_group(address) || address.is_unspecified()
    };
    let tracked = !arrival.link.destination.is_multicast()
        && !bridge::is_reserved(arrival.link.destination)
        && !is_local(ip.source)
        && !is_local(ip.destination)
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
