//! What policies say about frames of which no connection is kept.
//!
//! # Theory of operation
//! Of a connection policies are asked once, by whom it is tracked (`connections::policy`), and answers pass because they are
//! answers. What is not tracked has no answers: each frame is judged by itself, as if it opened something. That is
//!
//! - what fits no connection, between stations of a segment;
//! - packets with link-local addresses. They are held to be of the pod that has them, so that nobody gets past what is said
//!   about his other addresses;
//! - packets to groups and to everybody: the sender's egress with the group's address, and each receiver's ingress;
//! - what is no IP packet: those alone let it through who let everything through;
//! - packets of stations that [`NatConfig::untracked`](crate::config::NatConfig::untracked) names. There it cannot be told
//!   whether such a station asks or answers, so it is held to answer: what it sends passes if it could have been asked for.
//!
//! A frame goes to whoever has its MAC address, whatever its packet says: where that is somebody else than the packet is for,
//! he is asked as well.
//!
//! ARP, neighbour discovery and reports of group membership always pass: without them nobody has a network.

use core::net::{IpAddr, Ipv4Addr};

use super::Switch;
use super::admit::Arrival;
use super::connections::{Policing, PolicyCounters, Tracked};
use super::explain::{Recorder, Stage};
use super::flows::Flow;
use super::slow::Decision;
use crate::addr::{PortId, scope};
use crate::config::{Snapshot, Station};
use crate::parse::{Ip, Network, Transport, protocol};
use crate::policy::{Judgement, PolicyId, Question};
use crate::verdict::DropReason;

/// The protocol of what has none: reserved (RFC 5237), so no rule names it alone.
const NO_PROTOCOL: u8 = 255;
/// Internet Group Management Protocol.
const IGMP: u8 = 2;

impl Switch {
    /// What policies have stopped, by policy; without one, what was stopped because the default is to.
    pub fn policy_counters(&self) -> impl Iterator<Item = (Option<PolicyId>, PolicyCounters)> {
        self.connections.iter().flat_map(|connections| connections.policing().counters())
    }

    /// The number of the policies in use, which is another one for each set of them.
    pub(super) fn policy_number(&self) -> u32 {
        self.connections.as_ref().map_or(0, |connections| connections.policing().number())
    }

    /// Drops a frame of which no connection is kept, if a policy forbids it.
    pub(super) fn forbid<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        recorder: &mut R,
    ) -> Option<Decision> {
        let judgement = forbidden(snapshot, arrival, tracked)?;
        let policies = snapshot.policies()?;
        recorder.step(Stage::Policy, || policies.describe(&judgement));
        (!policies.audits()).then_some(Decision::Drop { reason: DropReason::PolicyDenied, answer: None })
    }

    /// Counts a frame that policies have stopped, or would have.
    pub(super) fn count_forbidden(
        &mut self,
        snapshot: &Snapshot,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        decision: &Decision,
    ) {
        let Some(policies) = snapshot.policies() else { return };
        let dropped = matches!(decision, Decision::Drop { reason: DropReason::PolicyDenied, .. });
        if !dropped && (!policies.audits() || tracked.is_judged()) {
            return;
        }
        let told = tracked.denial().and_then(|denial| denial.judgement);
        let Some(judgement) = told.or_else(|| forbidden(snapshot, arrival, tracked)) else { return };
        let Some(connections) = &mut self.connections else { return };
        let count = if dropped { Policing::count_dropped } else { Policing::count_audited };
        count(connections.policing_mut(), &judgement);
        if !dropped {
            // The next one is to be counted, too, and so to be decided about.
            self.flows.current = Flow::Other;
        }
    }
}

/// Who forbids a frame of which no connection is kept, if anybody does.
fn forbidden(snapshot: &Snapshot, arrival: &Arrival<'_>, tracked: &Tracked) -> Option<Judgement> {
    let policies = snapshot.policies()?;
    let refused = |question: Question| policies.judge(&question).refusal();
    let Some(ip) = arrival.ip() else {
        return if is_housekeeping(arrival) { None } else { refused(question(snapshot, arrival)?) };
    };
    if tracked.is_judged() {
        return refused(misled(snapshot, arrival, tracked, &ip)?);
    }
    if is_housekeeping(arrival) {
        return None;
    }
    let to_many = scope::is_group(ip.destination) || snapshot.router().is_broadcast(ip.destination);
    let refusal = question(snapshot, arrival).and_then(refused).or_else(|| {
        let led = misled(snapshot, arrival, tracked, &ip)?;
        // Of what is for many the sender was asked with the group's address.
        if to_many { policies.judge_ingress(&led).filter(|said| !said.is_allowed) } else { refused(led) }
    })?;
    (!is_answer(snapshot, &ip)).then_some(refusal)
}

/// What is asked about a packet that goes by its MAC address to a station that has not the address it is for: policies were
/// asked about whoever has that.
fn misled(snapshot: &Snapshot, arrival: &Arrival<'_>, tracked: &Tracked, ip: &Ip) -> Option<Question> {
    let port = arrival.segment.station_by_mac(arrival.link.destination)?.port;
    let goes_elsewhere = tracked.destination().is_some_and(|destination| destination != ip.destination);
    let has =
        |address| arrival.segment.station_by_address(address).is_some_and(|station| station.port == port);
    if goes_elsewhere || has(ip.destination) {
        return None;
    }
    let destination = owner(snapshot, port, Some(ip.destination))?;
    Some(Question { destination, ..question(snapshot, arrival)? })
}

/// What is asked about a frame; none for one to the router itself, which is the node.
fn question(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Option<Question> {
    let (segment, port) = (arrival.segment, arrival.port.id());
    let Some(ip) = arrival.ip() else {
        let station = segment.station_by_mac(arrival.link.destination);
        let destination = station.and_then(|station| owner(snapshot, station.port, None));
        return Some(Question {
            source: owner(snapshot, port, None).unwrap_or(NOBODY),
            destination: destination.unwrap_or(NOBODY),
            protocol: NO_PROTOCOL,
            port: 0,
        });
    };
    if arrival.to_gateway() && segment.gateway().is_some_and(|gateway| gateway.has(ip.destination)) {
        return None;
    }
    let known_as = |address: IpAddr, port: Option<PortId>| {
        let port = port.filter(|_| scope::is_link_scoped(address) && !scope::is_group(address));
        port.and_then(|port| owner(snapshot, port, Some(address))).unwrap_or(address)
    };
    let station = segment.station_by_address(ip.destination);
    Some(Question {
        source: known_as(ip.source, Some(port)),
        destination: known_as(ip.destination, station.map(|station| station.port)),
        protocol: ip.protocol,
        port: ports(&ip).map_or(0, |(_, destination)| destination),
    })
}

/// Stands for whoever is not known.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The ports a packet may be flooded to, as far as policies let their stations have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audience(Option<Question>);

impl Audience {
    /// For a frame that is flooded.
    pub(super) fn of(snapshot: &Snapshot, arrival: &Arrival<'_>) -> Self {
        let enforced = snapshot.policies().is_some_and(|policies| !policies.audits());
        Self((enforced && !is_housekeeping(arrival)).then(|| question(snapshot, arrival)).flatten())
    }

    /// Whether whoever is behind a port may have it. The sender's own rules were asked about the group.
    pub(super) fn has(&self, snapshot: &Snapshot, port: PortId) -> bool {
        let (Some(question), Some(policies)) = (self.0, snapshot.policies()) else { return true };
        let Some(destination) = owner(snapshot, port, Some(question.destination)) else { return true };
        let judgement = policies.judge_ingress(&Question { destination, ..question });
        judgement.is_none_or(|judgement| judgement.is_allowed)
    }
}

/// What keeps a network going, whoever may talk to whom.
fn is_housekeeping(arrival: &Arrival<'_>) -> bool {
    const REPORTS: [u8; 4] = [130, 131, 132, 143];
    match &arrival.network {
        Some(Network::Arp(_)) => true,
        Some(Network::Ip(ip)) => {
            let report = |kind: u8| ip.protocol == protocol::ICMPV6 && REPORTS.contains(&kind);
            let reports =
                ip.protocol == IGMP || matches!(ip.transport, Transport::Icmp { kind, .. } if report(kind));
            // Reports are for groups (RFC 3376 section 4.2.14, RFC 3810 section 5.2.14), by their MAC addresses.
            let to_group = ip.destination.is_multicast() && arrival.link.destination.is_multicast();
            arrival.discovery.is_some() || (reports && to_group)
        }
        Some(Network::Other) | None => false,
    }
}

/// Whether the packet may be an answer that nobody remembers the question of: it comes from a station of which nothing is
/// remembered, and would be let through if it went the other way. The later fragments of a datagram do not say what they are;
/// without the first they are nothing.
fn is_answer(snapshot: &Snapshot, ip: &Ip) -> bool {
    if !snapshot.translator().is_some_and(|translator| translator.is_untracked(ip.source)) {
        return false;
    }
    if ip.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return true;
    }
    let port = ports(ip).map_or(0, |(source, _)| source);
    let (source, destination, protocol) = (ip.destination, ip.source, ip.protocol);
    let question = Question { source, destination, protocol, port };
    snapshot.policies().is_none_or(|policies| policies.judge(&question).is_allowed())
}

const fn ports(ip: &Ip) -> Option<(u16, u16)> {
    match ip.transport {
        Transport::Tcp { source_port, destination_port, .. }
        | Transport::Udp { source_port, destination_port }
        | Transport::Sctp { source_port, destination_port } => Some((source_port, destination_port)),
        Transport::Icmp { .. } | Transport::Opaque => None,
    }
}

/// The address of the station behind a port that policies know it by, of the same family as another if it has one.
fn owner(snapshot: &Snapshot, port: PortId, like: Option<IpAddr>) -> Option<IpAddr> {
    let Station::Managed { addresses, .. } = snapshot.port(port)?.station() else { return None };
    let alike = like.and_then(|like| addresses.iter().find(|address| address.is_ipv4() == like.is_ipv4()));
    alike.or_else(|| addresses.first()).copied()
}
