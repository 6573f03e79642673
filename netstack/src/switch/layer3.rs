//! Layer 3's share of the slow path: what becomes of a packet for the router.

use core::net::IpAddr;

use nat::translate::mss;

use super::Switch;
use super::admit::Arrival;
use super::connections::{Denial, Passage, Tracked};
use super::explain::{Recorder, Stage};
use super::slow::{Adjacent, Answer, Decision, Route};
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::config::nat::OnRefusal;
use crate::config::{Gateway, NextHop, ReversePath, RouteTarget, Segment, Snapshot, Target};
use crate::emit::IcmpError;
use crate::flow::Plan;
use crate::frame::Frame;
use crate::icmp::{self, Occasion};
use crate::neighbor::{Adjacency, Standing};
use crate::offload;
use crate::parse::{self, Ip, Transport, protocol};
use crate::route;
use crate::verdict::DropReason;

impl Switch {
    /// Why a packet for the router may not come from where it says, if it may not.
    pub(super) fn refuses_source(
        &self,
        snapshot: &Snapshot,
        arrival: &Arrival<'_>,
        source: IpAddr,
    ) -> Option<DropReason> {
        let gateway = arrival.segment.gateway()?;
        let ours = self.own(snapshot, arrival.segment, gateway, source) == Some(Standing::Usable);
        if route::martian_source(source) || (ours && !gateway.node_local) {
            return Some(DropReason::MartianSource);
        }
        let reached = reverse_path(snapshot, arrival.segment.id(), gateway, source);
        (!reached).then_some(DropReason::ReversePath)
    }
}

/// RFC 3704: whether the source would be reached through the segment the packet came from. Two kinds of source are there
/// whatever the routes say: link-local ones, and what a station behind a node-local link shares with us.
fn reverse_path(snapshot: &Snapshot, segment: SegmentId, gateway: &Gateway, source: IpAddr) -> bool {
    let router = snapshot.router();
    let on_this_link = matches!(source, IpAddr::V6(a) if a.is_unicast_link_local())
        || router.delegated(source) == Some(segment);
    if on_this_link {
        return true;
    }
    let reached = || router.lookup(source);
    match gateway.reverse_path {
        ReversePath::Off => true,
        ReversePath::Loose => reached().is_some_and(|t| t.segments().next().is_some()),
        ReversePath::Strict => reached().is_some_and(|t| t.segments().any(|s| s == segment)),
    }
}

/// A packet for the router, and all that deciding about it needs.
pub(super) struct Layer3<'a> {
    pub(super) switch: &'a Switch,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: core::time::Duration,
    pub(super) arrival: &'a Arrival<'a>,
    pub(super) tracked: &'a Tracked,
    pub(super) frame: &'a Frame,
    /// As it came: sources and answers are about that.
    pub(super) ip: Ip,
    /// Where it goes, which translation may have changed.
    pub(super) destination: IpAddr,
}

impl Layer3<'_> {
    /// What becomes of it, which a service may have denied.
    pub(super) fn decide<R: Recorder>(
        &self,
        denial: Option<Denial>,
        recorder: &mut R,
        passage: &mut Passage,
    ) -> Decision {
        let Some(gateway) = self.arrival.segment.gateway() else {
            return self.drop(DropReason::NotForUs, None);
        };
        let (source, destination) = (self.ip.source, self.destination);
        // Of what is tracked, the source was judged before its connection took note of it.
        let judged = self.arrival.to_gateway() && !matches!(self.tracked, Tracked::Not);
        if !judged && let Some(reason) = self.switch.refuses_source(self.snapshot, self.arrival, source) {
            return self.drop(reason, None);
        }
        if let Some(denial) = denial {
            return self.deny(&denial, recorder);
        }
        if let Some(pointer) = self.ip.option_problem {
            let error = IcmpError::ParameterProblem { pointer: pointer.into() };
            return self.drop(DropReason::Ipv4Options, self.error(error));
        }
        match self.own(gateway, destination) {
            Some(Standing::Usable) => {
                recorder
                    .step(Stage::Classify, || alloc::format!("{destination} is the router's own address"));
                return self.local(gateway, recorder, passage);
            }
            Some(Standing::Tentative) => return self.drop(DropReason::AddressTentative, None),
            Some(Standing::Lost) | None => {}
        }
        if destination.is_multicast() {
            return self.drop(DropReason::MulticastNotRouted, None);
        }
        let router = self.snapshot.router();
        if router.keeps_on_link(source) || router.keeps_on_link(destination) {
            // RFC 4443 section 3.1 has a code for it; RFC 3927 section 7 asks for none.
            let error = source.is_ipv6().then(|| self.error(IcmpError::BeyondScope)).flatten();
            return self.drop(DropReason::BeyondScope, error);
        }
        if route::martian_destination(destination) || self.snapshot.router().is_broadcast(destination) {
            return self.drop(DropReason::MartianDestination, None);
        }
        if self.ip.source_route {
            // RFC 7126 sections 4.3 and 4.4: dropped by default, and silently, as hosts have done for decades.
            return self.drop(DropReason::SourceRoute, None);
        }
        self.route(gateway, recorder, passage)
    }

    /// A packet for an address of ours: the machine behind the node-local link gets all but echo requests. What it sends to
    /// itself does not come here, unless it has asked a service and is itself the backend.
    fn local<R: Recorder>(&self, gateway: &Gateway, recorder: &mut R, passage: &mut Passage) -> Decision {
        if self.is_echo_request() {
            return match self.is_intact() {
                true => Decision::Consume(Some(Answer::Echo)),
                false => self.drop(DropReason::TransportChecksum, None),
            };
        }
        if let Some(segment) = self.snapshot.router().delegated(self.destination)
            && (segment != self.arrival.segment.id() || self.destination != self.ip.destination)
            && let Some(segment) = self.snapshot.segment(segment)
        {
            recorder.step(Stage::Classify, || {
                alloc::format!("handed to the machine itself on {:?}", segment.name())
            });
            return self.forward(gateway, segment, self.destination, recorder, passage);
        }
        if self.is_external() {
            // Whoever calls without having been asked is not answered (RFC 5382 REQ-4).
            return self.drop(DropReason::NoMapping, None);
        }
        if !self.is_intact() {
            return self.drop(DropReason::TransportChecksum, None);
        }
        let answer = match self.ip.transport {
            Transport::Udp { .. } => self.error(IcmpError::PortUnreachable),
            Transport::Tcp { .. } => self.may_answer(Occasion::Other).then_some(Answer::Reset),
            Transport::Icmp { .. } => None,
            Transport::Sctp { .. } | Transport::Opaque if self.ip.fragment.is_some() => None,
            Transport::Sctp { .. } | Transport::Opaque => self.error(IcmpError::ProtocolUnreachable),
        };
        self.drop(DropReason::NoListener, answer)
    }

    /// Whether it goes to an address that others are seen with, after all that translation has to say.
    fn is_external(&self) -> bool {
        self.snapshot.translator().is_some_and(|translator| translator.is_external(self.destination))
    }

    pub(super) fn is_intact(&self) -> bool {
        self.frame.offload.is_trusted() || parse::verify_transport_checksum(self.frame.bytes(), &self.ip)
    }

    fn is_echo_request(&self) -> bool {
        const ECHO_REQUEST: u8 = 8;
        const ECHO_REQUEST_V6: u8 = 128;
        let request = match self.ip.protocol {
            protocol::ICMP => ECHO_REQUEST,
            protocol::ICMPV6 => ECHO_REQUEST_V6,
            _ => return false,
        };
        matches!(self.ip.transport, Transport::Icmp { kind, code: 0, .. } if kind == request)
            && self.ip.fragment.is_none()
    }

    fn route<R: Recorder>(&self, gateway: &Gateway, recorder: &mut R, passage: &mut Passage) -> Decision {
        let destination = self.destination;
        // That is about what stations of the link say, not about what becomes of it.
        if gateway.no_route_to.contains(self.ip.destination) {
            recorder.step(Stage::Route, || alloc::format!("no route to {destination} from this segment"));
            return self.drop(DropReason::NoRoute, self.error(IcmpError::NoRoute));
        }
        if self.is_external() {
            // It would only come back.
            return self.drop(DropReason::NoMapping, None);
        }
        let target = self.snapshot.router().lookup(destination);
        recorder.step(Stage::Route, || match self.snapshot.router().lookup_prefix(destination) {
            Some((prefix, target)) => {
                alloc::format!("{destination} matches {prefix}: {}", self.snapshot.describe(target))
            }
            None => alloc::format!("no route to {destination}"),
        });
        let (segment, next_hop) = match target {
            None => return self.drop(DropReason::NoRoute, self.error(IcmpError::NoRoute)),
            Some(Target::Connected(segment)) => (*segment, destination),
            Some(Target::Configured(RouteTarget::Via(hops))) => {
                let hop = self.choose(hops);
                (hop.segment, hop.gateway.unwrap_or(destination))
            }
            Some(Target::Configured(RouteTarget::Blackhole)) => {
                return self.drop(DropReason::RouteBlackhole, None);
            }
            Some(Target::Configured(RouteTarget::Unreachable)) => {
                return self.drop(DropReason::RouteUnreachable, self.error(IcmpError::RouteUnreachable));
            }
            Some(Target::Configured(RouteTarget::Prohibit)) => {
                return self.drop(DropReason::RouteProhibit, self.error(IcmpError::AdminProhibited));
            }
        };
        match self.snapshot.segment(segment) {
            Some(segment) => self.forward(gateway, segment, next_hop, recorder, passage),
            None => self.drop(DropReason::NoRoute, self.error(IcmpError::NoRoute)),
        }
    }

    /// One of several next hops, the same for every packet of a flow.
    fn choose(&self, hops: &[NextHop]) -> NextHop {
        let [only] = hops else {
            let key = self.ip.flow_key();
            let hash = self.switch.flow_hash.hash(
                key.source,
                key.destination,
                key.protocol,
                key.source_port,
                key.destination_port,
            );
            return hops[route::select_next_hop(hash, hops)];
        };
        *only
    }

    fn forward<R: Recorder>(
        &self,
        gateway: &Gateway,
        egress: &Segment,
        next_hop: IpAddr,
        recorder: &mut R,
        passage: &mut Passage,
    ) -> Decision {
        let Some(out) = egress.gateway() else {
            return self.drop(DropReason::NoRoute, self.error(IcmpError::NoRoute));
        };
        let decrement = !gateway.node_local && !out.node_local;
        if decrement && self.ip.hop_limit <= 1 {
            return self.drop(DropReason::TtlExceeded, self.error(IcmpError::TtlExceeded));
        }
        let mut fragment = None;
        if offload::packet_size_on_wire(self.frame, &self.ip) > egress.mtu() {
            let mtu = u16::try_from(egress.mtu()).unwrap_or(u16::MAX);
            if self.ip.dont_fragment {
                let error = if self.may_answer(Occasion::PacketTooBig) {
                    self.unchecked_error(IcmpError::PacketTooBig { mtu })
                } else {
                    None
                };
                return self.drop(DropReason::PacketTooBig, error);
            }
            recorder.step(Stage::Mtu, || alloc::format!("longer than {mtu} octets, will be fragmented"));
            fragment = Some(mtu);
        }
        let ingress = self.arrival.segment.id();
        match self.switch.passage(self.now, self.tracked, ingress, egress.id(), passage) {
            Ok(()) => {}
            Err(reason @ DropReason::ConnectionInvalid) => return self.drop(reason, None),
            Err(reason) => return self.drop(reason, self.refusal()),
        }
        passage.record(recorder);
        let mss = self.largest_mss(gateway, out, egress);
        let plan = Plan { destination: MacAddr::ZERO, source: out.mac, decrement, mss };
        let adjacency = Adjacent::Unresolved;
        let mut route = Route { egress: egress.id(), next_hop, adjacency, plan, fragment };
        match self.adjacency(egress, next_hop) {
            Found::Station(mac, port) => {
                route.plan.destination = mac;
                route.adjacency = Adjacent::Station { port };
            }
            Found::Learned(mac, slot) => {
                route.plan.destination = mac;
                route.adjacency = Adjacent::Learned { slot };
            }
            Found::Unknown => {}
            Found::Failed => {
                return self.drop(DropReason::NeighborFailed, self.error(IcmpError::AddressUnreachable));
            }
        }
        recorder.step(Stage::Neighbor, || match route.adjacency {
            Adjacent::Station { port } => {
                alloc::format!("{next_hop} is the managed station {} behind {port}", route.plan.destination)
            }
            Adjacent::Learned { .. } => alloc::format!("{next_hop} is at {}", route.plan.destination),
            Adjacent::Unresolved => {
                alloc::format!("{next_hop} is not known, the frame waits while it is asked for")
            }
        });
        Decision::Route(route)
    }

    /// What a SYN may announce where one of its links wants that.
    fn largest_mss(&self, ingress: &Gateway, out: &Gateway, egress: &Segment) -> Option<u16> {
        const SYN: u8 = 1 << 1;
        let Transport::Tcp { flags, .. } = self.ip.transport else { return None };
        if !(ingress.clamp_mss || out.clamp_mss) || flags & SYN == 0 {
            return None;
        }
        let mtu = u16::try_from(egress.mtu().min(self.arrival.segment.mtu())).unwrap_or(u16::MAX);
        Some(mss::of_mtu(mtu, self.ip.source.is_ipv6()))
    }

    /// What the sender is told whose connection cannot begin (RFC 5508 REQ-8, RFC 6888 REQ-11).
    fn refusal(&self) -> Option<Answer> {
        match self.switch.connections.as_ref()?.on_refusal() {
            OnRefusal::Prohibited => self.error(IcmpError::AdminProhibited),
            OnRefusal::HostUnreachable => self.error(IcmpError::AddressUnreachable),
            OnRefusal::Silence => None,
        }
    }

    fn adjacency(&self, egress: &Segment, next_hop: IpAddr) -> Found {
        if let Some(station) = egress.station_by_address(next_hop) {
            return Found::Station(station.mac, station.port);
        }
        match self.switch.neighbors.lookup(self.now, egress.id(), next_hop) {
            Adjacency::Known { mac, slot, .. } => Found::Learned(mac, slot),
            Adjacency::Pending { .. } | Adjacency::Unknown => Found::Unknown,
            Adjacency::Failed => Found::Failed,
        }
    }

    fn own(&self, gateway: &Gateway, address: IpAddr) -> Option<Standing> {
        self.switch.own(self.snapshot, self.arrival.segment, gateway, address)
    }

    pub(super) fn may_answer(&self, occasion: Occasion) -> bool {
        let router = self.snapshot.router();
        let broadcast = router.is_broadcast(self.ip.destination) || router.is_broadcast(self.ip.source);
        icmp::may_answer(&self.arrival.link, &self.ip, occasion, broadcast)
    }

    /// An ICMP error about this packet, where one is allowed.
    pub(super) fn error(&self, error: IcmpError) -> Option<Answer> {
        if self.may_answer(Occasion::Other) { self.unchecked_error(error) } else { None }
    }

    /// The source is the router's address on the link the packet came from, so that a traceroute shows the way there.
    fn unchecked_error(&self, error: IcmpError) -> Option<Answer> {
        let gateway = self.arrival.segment.gateway()?;
        let router = self.snapshot.router();
        // To a link-local source from a link-local address (RFC 6724 rule 2), else from one that is valid everywhere.
        // Not from one that the station behind a node-local link has itself: it would not believe that.
        let fits = |a: &IpAddr| {
            route::is_link_scoped(*a) == route::is_link_scoped(self.ip.source)
                && router.delegated(*a) != Some(self.arrival.segment.id())
        };
        let on_link = self.switch.source_for(self.arrival.segment, gateway, self.ip.source);
        let source = on_link
            .filter(fits)
            .or_else(|| self.switch.any_source(self.snapshot, self.ip.source.is_ipv4()).filter(fits))
            .or(on_link)?;
        Some(Answer::Icmp { error, source })
    }

    #[expect(clippy::unused_self, reason = "reads as a verdict about this packet")]
    pub(super) fn drop(&self, reason: DropReason, answer: Option<Answer>) -> Decision {
        Decision::Drop { reason, answer }
    }
}

enum Found {
    Station(MacAddr, PortId),
    Learned(MacAddr, u32),
    Unknown,
    Failed,
}
