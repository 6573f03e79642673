//! The slow path: one decision per frame, read top to bottom. It borrows the switch immutably and holds nothing: a
//! frame that is dropped half-way has left nothing behind. What it decides is carried out by `commit`.

use core::net::IpAddr;

use super::Switch;
use super::admit::Arrival;
use super::connections::{Passage, Tracked};
use super::discovery;
use super::explain::Recorder;
use super::layer3::Layer3;
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::bridge;
use crate::config::{Snapshot, Station, Target};
use crate::emit::IcmpError;
use crate::flow::Plan;
use crate::frame::Frame;
use crate::neighbor::Hearing;
use crate::verdict::DropReason;

/// What to do with a frame.
pub(super) enum Decision {
    Drop {
        reason: DropReason,
        answer: Option<Answer>,
    },
    Bridge(PortId),
    Flood(Scope),
    Route(Route),
    Consume(Option<Answer>),
    /// Our own probe for loops, which left by this port.
    LoopProbe {
        sent_by: PortId,
    },
}

/// Which ports of a segment a flood goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    All,
    /// Those with unknown stations behind them.
    Foreign,
}

/// A frame of our own in answer to one that came in; it leaves by the port that one came in by.
pub(super) enum Answer {
    /// ARP reply or neighbour advertisement: `target` is at `mac`. `asker` is `None` for a probe.
    Discovery {
        target: IpAddr,
        mac: MacAddr,
        router: bool,
        override_: bool,
        asker: Option<IpAddr>,
        asker_mac: MacAddr,
    },
    Echo,
    Icmp {
        error: IcmpError,
        source: IpAddr,
    },
    Reset,
}

/// A routed frame's way.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) egress: SegmentId,
    pub(super) next_hop: IpAddr,
    pub(super) adjacency: Adjacent,
    /// The rewrite; its destination is filled in once the neighbour is known.
    pub(super) plan: Plan,
    /// Cut into fragments of this MTU.
    pub(super) fragment: Option<u16>,
}

#[derive(Clone, Copy)]
pub(super) enum Adjacent {
    /// A managed station, known from the configuration.
    Station { port: PortId },
    /// A neighbour that answered.
    Learned { slot: u32 },
    /// A neighbour to be asked, or being asked.
    Unresolved,
}

/// Something a frame said about a neighbour, whatever became of the frame.
pub(super) struct Hearsay {
    pub(super) address: IpAddr,
    pub(super) mac: Option<MacAddr>,
    pub(super) hearing: Hearing,
}

/// Something else that a frame said, whatever became of the frame.
pub(super) enum Aside {
    /// Someone claims an address of ours.
    Conflict(Conflict),
    /// Someone asks for a router's advertisement.
    RouterSolicited,
}

/// A claim to an address of ours.
pub(super) struct Conflict {
    pub(super) address: IpAddr,
    /// The MAC address that it belongs to; none while it is being probed.
    pub(super) owner: Option<MacAddr>,
    /// Whether the owner is to be announced, because nothing else answers the claim.
    pub(super) announce: bool,
}

pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) hearsay: Option<Hearsay>,
    pub(super) aside: Option<Aside>,
}

impl Decision {
    pub(super) fn dropped(reason: DropReason) -> Decided {
        Self::Drop { reason, answer: None }.into()
    }
}

impl From<Decision> for Decided {
    fn from(decision: Decision) -> Self {
        Self { decision, hearsay: None, aside: None }
    }
}

impl Switch {
    /// Decides about a frame that was let in. What translation makes of it goes into `passage`, which is large and is not moved
    /// about.
    #[expect(clippy::too_many_arguments, reason = "what a decision is made of, and where it goes")]
    pub(super) fn decide<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        frame: &Frame,
        recorder: &mut R,
        passage: &mut Passage,
    ) -> Decided {
        if bridge::is_reserved(arrival.link.destination) {
            return Decision::dropped(DropReason::ReservedMulticast);
        }
        let (decided, aside) = discovery::decide(self, snapshot, arrival, recorder);
        match decided {
            Some(decided) => Decided { aside, ..decided },
            None => {
                let decision = self.decide_packet(snapshot, now, arrival, tracked, frame, recorder, passage);
                Decided { decision, hearsay: None, aside }
            }
        }
    }

    /// Decides about what is no discovery: routed or bridged.
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn decide_packet<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        frame: &Frame,
        recorder: &mut R,
        passage: &mut Passage,
    ) -> Decision {
        let (ip, destination) = (arrival.ip(), tracked.destination());
        if let Some(forbidden) = self.forbid(snapshot, arrival, tracked, recorder) {
            return forbidden;
        }
        // What goes elsewhere than it says is routed there, whoever's MAC address it was sent to.
        let redirected = destination.is_some() && destination != ip.map(|ip| ip.destination);
        let denial = ip.and_then(|ip| self.denial(snapshot, arrival, tracked, ip.destination, redirected));
        if !arrival.to_gateway() && !redirected && denial.is_none() {
            let decision = self.bridge(snapshot, now, arrival, recorder);
            return match self.translate_bridged(snapshot, now, arrival, tracked, &decision, passage) {
                Ok(()) => {
                    passage.record(recorder);
                    decision
                }
                Err(reason) => Decision::Drop { reason, answer: None },
            };
        }
        let Some(ip) = ip else {
            return Decision::Drop { reason: DropReason::NotForUs, answer: None };
        };
        let destination = destination.unwrap_or(ip.destination);
        let layer3 = Layer3 { switch: self, snapshot, now, arrival, tracked, frame, ip, destination };
        layer3.decide(denial, recorder, passage)
    }

    /// Says what translation makes of a bridged frame.
    fn translate_bridged(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        decision: &Decision,
        passage: &mut Passage,
    ) -> Result<(), DropReason> {
        let segment = arrival.segment.id();
        let is_managed = |port: PortId| {
            snapshot.port(port).is_some_and(|port| matches!(port.station(), Station::Managed { .. }))
        };
        let to = match decision {
            Decision::Bridge(port) => Some(*port),
            Decision::Flood(_) => None,
            Decision::Drop { .. }
            | Decision::Route(_)
            | Decision::Consume(_)
            | Decision::LoopProbe { .. } => {
                return Ok(());
            }
        };
        // What two foreign stations begin is theirs; and what only crosses the bridge on its way elsewhere begins where it is
        // routed.
        let remembered =
            (arrival.is_managed() || to.is_some_and(is_managed)) && is_between_stations(snapshot, arrival);
        match self.passage(now, tracked, segment, segment, passage) {
            Ok(()) if passage.opens() && !remembered && passage.translation().is_none() => {
                *passage = Passage::Plain;
            }
            Ok(()) => {}
            Err(reason) if remembered || arrival.is_managed() => return Err(reason),
            Err(_) => *passage = Passage::Plain,
        }
        Ok(())
    }

    /// What translation makes of a packet that leaves for `egress`.
    pub(super) fn passage(
        &self,
        now: core::time::Duration,
        tracked: &Tracked,
        ingress: SegmentId,
        egress: SegmentId,
        passage: &mut Passage,
    ) -> Result<(), DropReason> {
        match &self.connections {
            Some(connections) => connections.passage(now, tracked, ingress, egress, passage),
            None => Ok(()),
        }
    }

    /// What to tell the sender of a packet whose next hop did not answer.
    pub(super) fn host_unreachable(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
    ) -> Option<Answer> {
        let ip = arrival.ip()?;
        let (tracked, destination) = (&Tracked::Not, ip.destination);
        Layer3 { switch: self, snapshot, now, arrival, tracked, frame, ip, destination }
            .error(IcmpError::AddressUnreachable)
    }
}

/// Whether a bridged packet goes from a station of its segment to another, as far as addresses tell.
fn is_between_stations(snapshot: &Snapshot, arrival: &Arrival<'_>) -> bool {
    let segment = arrival.segment;
    let is_here = |address| matches!(snapshot.router().lookup(address), Some(Target::Connected(id)) if *id == segment.id());
    // A managed station's packets come from its own port, and nowhere else.
    let honest = |source| arrival.is_managed() || segment.station_by_address(source).is_none();
    arrival.ip().is_some_and(|ip| is_here(ip.source) && is_here(ip.destination) && honest(ip.source))
}
