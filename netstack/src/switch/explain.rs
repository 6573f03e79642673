//! Why a frame goes where it goes: the slow path's own reasons, written down.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use nat::tuple::{Address, Direction, Tuple};

use super::Switch;
use super::admit;
use super::connections::{Connections, Denial, Kind, Passage, Tracked, What};
use super::protect;
use super::slow::{Adjacent, Answer, Aside, Conflict, Decision, Route};
use crate::addr::{PortId, SegmentId};
use crate::bridge;
use crate::frame::{Frame, FramePool, MAX_FRAME};
use crate::parse::protocol;
use crate::verdict::{DropReason, EgressDrop};

/// A stage of the slow path, in the order in which a frame meets them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Stage {
    /// Port and VLAN to segment, lengths and headers.
    Parse,
    /// A managed port's source addresses.
    Guard,
    /// Loops, storm control, isolated ports.
    Protection,
    /// What the packet is to the connections there are.
    Track,
    /// Which service is asked for, and who answers for it.
    Service,
    /// Which policy lets it through, or does not.
    Policy,
    /// ARP and neighbour discovery.
    Discovery,
    /// To the switch, bridged, or routed.
    Classify,
    /// Longest prefix.
    Route,
    /// Size against the next link.
    Mtu,
    /// How it leaves.
    Translate,
    /// The next hop's MAC address.
    Neighbor,
    /// Ports the frame leaves by.
    Output,
}

/// One decision and its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Step {
    /// Where it was taken.
    pub stage: Stage,
    /// What was decided, and by which table entry.
    pub text: String,
}

/// The whole way of one frame through a switch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Trace {
    /// Each decision, in order.
    pub steps: Vec<Step>,
    /// What becomes of the frame, in a sentence.
    pub outcome: String,
    /// The neighbour it would wait for; [`Switch::ask_for`] asks.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub waits_for: Option<(SegmentId, IpAddr)>,
    /// The ports it leaves by, with their numbers.
    pub ports: Vec<PortId>,
    /// The frame as it leaves, when it leaves by exactly one way.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub frame: Option<Vec<u8>>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            let stage = alloc::format!("{:?}", step.stage).to_lowercase();
            writeln!(f, "{stage:<10} {}", step.text)?;
        }
        write!(f, "{:<10} {}", "outcome", self.outcome)
    }
}

/// Takes the slow path's reasons, or throws them away before they are put into words.
pub(super) trait Recorder {
    fn step(&mut self, stage: Stage, text: impl FnOnce() -> String);
}

/// The data path's recorder: compiles to nothing.
pub(super) struct Silent;

impl Recorder for Silent {
    #[inline(always)]
    fn step(&mut self, _stage: Stage, _text: impl FnOnce() -> String) {}
}

impl Recorder for Trace {
    fn step(&mut self, stage: Stage, text: impl FnOnce() -> String) {
        self.steps.push(Step { stage, text: text() });
    }
}

/// Runs a frame through admission and decision, and puts into words what would be done.
pub(super) fn explain(switch: &Switch, now: Duration, port: PortId, bytes: &[u8]) -> Trace {
    let mut trace = Trace::default();
    if bytes.len() > MAX_FRAME {
        trace.outcome = dropped(DropReason::FrameTooLong);
        return trace;
    }
    let snapshot = switch.snapshot();
    let mut frame = FramePool::new().copy_of(bytes);
    let arrival = match admit::admit(snapshot, port, &mut frame, &mut trace) {
        Ok(arrival) => arrival,
        Err(reason) => {
            trace.outcome = dropped(reason);
            return trace;
        }
    };
    let (mut tracked, mut passage) = (Tracked::Not, Passage::Plain);
    let decided = match switch.gate(now, &arrival, &frame, &mut trace) {
        Some(stopped) => stopped,
        None => match switch.look(snapshot, now, &arrival, &frame, &mut trace) {
            Ok(seen) if seen.waits() => {
                trace.outcome = "held until the first fragment of its datagram has come".into();
                return trace;
            }
            Ok(seen) => {
                tracked = seen;
                switch.decide(snapshot, now, &arrival, &tracked, &frame, &mut trace, &mut passage)
            }
            Err(reason) => Decision::dropped(reason),
        },
    };
    match decided.decision {
        Decision::Drop { reason, answer } => {
            trace.outcome = dropped(reason);
            if let Some(answer) = answer {
                trace.outcome.push_str(&answered(&answer));
            }
        }
        Decision::Consume(answer) => {
            trace.outcome = "consumed by the switch".into();
            if let Some(answer) = answer {
                trace.outcome.push_str(&answered(&answer));
            }
        }
        Decision::LoopProbe { sent_by } => {
            trace.outcome = alloc::format!("consumed by the switch: {sent_by} and {port} are one loop");
        }
        Decision::Bridge(to) => {
            let frame = translated(&tracked, &passage, frame);
            leave(&mut trace, switch, "bridged", &[to], arrival.segment.id(), Some(frame))
        }
        Decision::Flood(scope) => {
            let ports: Vec<PortId> = protect::flood_targets(snapshot, &arrival, scope).collect();
            if ports.is_empty() {
                trace.outcome = dropped(protect::without_targets(snapshot, &arrival, scope));
                return trace;
            }
            let frame = translated(&tracked, &passage, frame);
            leave(&mut trace, switch, "flooded", &ports, arrival.segment.id(), Some(frame));
        }
        Decision::Route(route) => {
            let frame = translated(&tracked, &passage, frame);
            routed(switch, now, &mut trace, &route, frame);
        }
    }
    if let Some(Aside::Conflict(conflict)) = &decided.aside {
        trace.outcome.push_str(&conflicting(switch, now, arrival.segment.id(), conflict));
    }
    trace
}

fn routed(switch: &Switch, now: Duration, trace: &mut Trace, route: &Route, mut frame: Frame) {
    let snapshot = switch.snapshot();
    let Some(egress) = snapshot.segment(route.egress) else { return };
    let ports = match route.adjacency {
        Adjacent::Station { port } => alloc::vec![port],
        Adjacent::Learned { .. } => match switch.port_of(now, egress, route.plan.destination) {
            Some(port) => alloc::vec![port],
            None => egress.foreign().to_vec(),
        },
        Adjacent::Unresolved => {
            trace.outcome = alloc::format!("parked until {} answers", route.next_hop);
            trace.waits_for = Some((route.egress, route.next_hop));
            return;
        }
    };
    if route.fragment.is_some() {
        return leave(trace, switch, "routed in fragments", &ports, egress.id(), None);
    }
    route.plan.apply(&mut frame);
    leave(trace, switch, "routed", &ports, egress.id(), Some(frame));
}

/// The frame with its endpoints as they leave.
fn translated(tracked: &Tracked, passage: &Passage, mut frame: Frame) -> Frame {
    if let Some((packet, translation)) = tracked.packet().zip(passage.translation()) {
        // What cannot be translated is dropped when it comes; here it is shown as it is.
        let _ = translation.apply(&mut frame, packet);
    }
    frame
}

/// What a packet is to the connections there are, in words.
pub(super) fn tracked_text<A: Kind>(connections: &Connections, now: Duration, what: &What<A>) -> String {
    match *what {
        What::Known { id, direction, .. } => {
            let side = match direction {
                Direction::Original => "from who opened it",
                Direction::Reply => "in answer",
            };
            alloc::format!("of the connection {}, {side}", connections.describe::<A>(now, id))
        }
        What::Related { id, .. } => {
            alloc::format!("an error about a packet of the connection {}", connections.describe::<A>(now, id))
        }
        What::Opens { new, towards, .. } => {
            let what = alloc::format!("opens a connection, {}", tuple(&new.tuple));
            match towards.destination {
                None => what,
                Some(endpoint) => alloc::format!("{what}, which goes to {}", endpoint.to_socket()),
            }
        }
        What::Denied(Denial { reason: DropReason::ServiceBackendGone, .. }) => {
            "of a connection whose backend is gone".into()
        }
        What::Denied(Denial { reason: DropReason::PolicyDenied, .. }) => {
            "of a connection, or opens one, that a policy forbids".into()
        }
        What::Denied(_) => "opens a connection to a service".into(),
        What::Later(_) => "a fragment, which goes the way of the first of its datagram".into(),
        What::Waits => "a fragment, which waits for the first of its datagram".into(),
        What::Untracked => "of no connection".into(),
    }
}

/// Who talks to whom.
pub(super) fn tuple<A: Address>(tuple: &Tuple<A>) -> String {
    let name = match tuple.protocol {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        protocol::SCTP => "sctp",
        protocol::ICMP | protocol::ICMPV6 => {
            let (source, destination) = (tuple.source, tuple.destination.address);
            return alloc::format!("icmp {:?} > {destination:?} id {}", source.address, source.port);
        }
        other => {
            let (source, destination) = (tuple.source.address, tuple.destination.address);
            return alloc::format!("protocol {other} {source:?} > {destination:?}");
        }
    };
    alloc::format!("{name} {} > {}", tuple.source.to_socket(), tuple.destination.to_socket())
}

/// `frame` is none when it leaves in pieces.
fn leave(
    trace: &mut Trace,
    switch: &Switch,
    verb: &str,
    ports: &[PortId],
    segment: SegmentId,
    frame: Option<Frame>,
) {
    if ports.is_empty() {
        trace.outcome = dropped(DropReason::NoOtherPort);
        return;
    }
    let snapshot = switch.snapshot();
    let (blocked, ports): (Vec<PortId>, Vec<PortId>) =
        ports.iter().partition(|&&p| switch.blocked_until(p).is_some());
    for port in blocked {
        trace.step(Stage::Protection, || alloc::format!("{port} is blocked: it is part of a loop"));
    }
    if ports.is_empty() {
        let reason = EgressDrop::LoopBlocked;
        trace.outcome = alloc::format!("dropped: {} ({})", reason.name(), reason.describe().trim());
        return;
    }
    let names: Vec<&str> =
        ports.iter().map(|&p| snapshot.port(p).map_or("a closed port", |p| p.name())).collect();
    trace.step(Stage::Output, || alloc::format!("leaves by {}", names.join(", ")));
    trace.outcome = alloc::format!("{verb} to {}", names.join(", "));
    if let (&[port], Some(mut frame)) = (&ports[..], frame) {
        let tag = snapshot.port(port).and_then(|p| p.tag_for(segment)).flatten();
        let fits = tag.is_none_or(|vlan| bridge::push_tag(&mut frame, vlan));
        trace.frame = fits.then(|| frame.bytes().to_vec());
    }
    trace.ports = ports;
}

fn dropped(reason: DropReason) -> String {
    alloc::format!("dropped: {} ({})", reason.name(), reason.describe().trim())
}

fn conflicting(switch: &Switch, now: Duration, segment: SegmentId, conflict: &Conflict) -> String {
    let address = conflict.address;
    match conflict.owner {
        None => alloc::format!("; {address} is taken, so it stays unused here"),
        Some(owner) if conflict.announce && switch.defence.is_due(now, segment, address) => {
            alloc::format!("; answers by announcing that {address} is at {owner}")
        }
        Some(_) => String::new(),
    }
}

fn answered(answer: &Answer) -> String {
    match answer {
        Answer::Discovery { target, mac, .. } => alloc::format!("; answers that {target} is at {mac}"),
        Answer::Echo => "; answers with an echo reply".into(),
        Answer::Icmp { error, source } => alloc::format!("; answers from {source} with ICMP {error:?}"),
        Answer::Reset => "; answers with a TCP reset".into(),
    }
}
