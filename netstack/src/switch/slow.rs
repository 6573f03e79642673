//! The slow path: one decision per frame, read top to bottom. It borrows the switch immutably and holds nothing: a
//! frame that is dropped half-way has left nothing behind. What it decides is carried out by `commit`.

use core::net::IpAddr;

use super::Switch;
use super::admit::Arrival;
use super::discovery;
use super::explain::{Recorder, Stage};
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::bridge;
use crate::config::{Gateway, NextHop, ReversePath, RouteTarget, Segment, Snapshot, Target};
use crate::emit::IcmpError;
use crate::flow::Plan;
use crate::frame::Frame;
use crate::icmp::{self, Occasion};
use crate::neighbor::{Adjacency, Hearing, Standing};
use crate::offload;
use crate::parse::{self, Ip, Network, Transport, protocol};
use crate::route;
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
    /// Decides about a frame that was let in.
    pub(super) fn decide<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
        recorder: &mut R,
    ) -> Decided {
        if bridge::is_reserved(arrival.link.destination) {
            return Decision::dropped(DropReason::ReservedMulticast);
        }
        let (decided, aside) = discovery::decide(self, snapshot, arrival, recorder);
        let decided = decided.unwrap_or_else(|| self.decide_packet(snapshot, now, arrival, frame, recorder));
        Decided { aside, ..decided }
    }

    /// Decides about what is no discovery: routed or bridged.
    fn decide_packet<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
        recorder: &mut R,
    ) -> Decided {
        if arrival.to_gateway() {
            let Some(Network::Ip(ip)) = arrival.network else {
                return Decision::dropped(DropReason::NotForUs);
            };
            let layer3 = Layer3 { switch: self, snapshot, now, arrival, frame, ip };
            return layer3.decide(recorder).into();
        }
        self.bridge(snapshot, now, arrival, recorder).into()
    }

    /// What to tell the sender of a packet whose next hop did not answer.
    pub(super) fn host_unreachable(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        frame: &Frame,
    ) -> Option<Answer> {
        let Some(Network::Ip(ip)) = arrival.network else { return None };
        Layer3 { switch: self, snapshot, now, arrival, frame, ip }.error(IcmpError::AddressUnreachable)
    }
}

/// A packet for the router, and all that deciding about it needs.
struct Layer3<'a> {
    switch: &'a Switch,
    snapshot: &'a Snapshot,
    now: core::time::Duration,
    arrival: &'a Arrival<'a>,
    frame: &'a Frame,
    ip: Ip,
}

impl Layer3<'_> {
    fn decide<R: Recorder>(&self, recorder: &mut R) -> Decision {
        let Some(gateway) = self.arrival.segment.gateway() else {
            return self.drop(DropReason::NotForUs, None);
        };
        let (source, destination) = (self.ip.source, self.ip.destination);
        let is_ours = |address| self.own(gateway, address) == Some(Standing::Usable);
        if route::martian_source(source) || (is_ours(source) && !gateway.node_local) {
            return self.drop(DropReason::MartianSource, None);
        }
        if !self.reverse_path(gateway) {
            return self.drop(DropReason::ReversePath, None);
        }
        if let Some(pointer) = self.ip.option_problem {
            let error = IcmpError::ParameterProblem { pointer: pointer.into() };
            return self.drop(DropReason::Ipv4Options, self.error(error));
        }
        match self.own(gateway, destination) {
            Some(Standing::Usable) => {
                recorder
                    .step(Stage::Classify, || alloc::format!("{destination} is the router's own address"));
                return self.local(gateway, recorder);
            }
            Some(Standing::Tentative) => return self.drop(DropReason::AddressTentative, None),
            Some(Standing::Lost) | None => {}
        }
        if destination.is_multicast() {
            return self.drop(DropReason::MulticastNotRouted, None);
        }
        if route::is_link_scoped(source) || route::is_link_scoped(destination) {
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
        self.route(gateway, recorder)
    }

    /// A packet for an address of ours: the machine behind the node-local link gets all but echo requests.
    fn local<R: Recorder>(&self, gateway: &Gateway, recorder: &mut R) -> Decision {
        if self.is_echo_request() {
            return match self.is_intact() {
                true => Decision::Consume(Some(Answer::Echo)),
                false => self.drop(DropReason::TransportChecksum, None),
            };
        }
        if let Some(segment) = self.snapshot.router().delegated(self.ip.destination)
            && segment != self.arrival.segment.id()
            && let Some(segment) = self.snapshot.segment(segment)
        {
            recorder.step(Stage::Classify, || {
                alloc::format!("handed to the machine itself on {:?}", segment.name())
            });
            return self.forward(gateway, segment, self.ip.destination, recorder);
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

    fn is_intact(&self) -> bool {
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

    fn route<R: Recorder>(&self, gateway: &Gateway, recorder: &mut R) -> Decision {
        let destination = self.ip.destination;
        if gateway.no_route_to.contains(destination) {
            recorder.step(Stage::Route, || alloc::format!("no route to {destination} from this segment"));
            return self.drop(DropReason::NoRoute, self.error(IcmpError::NoRoute));
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
            Some(segment) => self.forward(gateway, segment, next_hop, recorder),
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
        let plan = Plan { destination: MacAddr::ZERO, source: out.mac, decrement };
        let mut route =
            Route { egress: egress.id(), next_hop, adjacency: Adjacent::Unresolved, plan, fragment };
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

    /// RFC 3704: whether the source would be reached through the segment the packet came from. Two kinds of source are
    /// there whatever the routes say: link-local ones, and what a station behind a node-local link shares with us.
    fn reverse_path(&self, gateway: &Gateway) -> bool {
        let (router, segment) = (self.snapshot.router(), self.arrival.segment.id());
        let on_this_link = matches!(self.ip.source, IpAddr::V6(a) if a.is_unicast_link_local())
            || router.delegated(self.ip.source) == Some(segment);
        if on_this_link {
            return true;
        }
        let reached = || router.lookup(self.ip.source);
        match gateway.reverse_path {
            ReversePath::Off => true,
            ReversePath::Loose => reached().is_some_and(|t| t.segments().next().is_some()),
            ReversePath::Strict => reached().is_some_and(|t| t.segments().any(|s| s == segment)),
        }
    }

    fn own(&self, gateway: &Gateway, address: IpAddr) -> Option<Standing> {
        self.switch.own(self.snapshot, self.arrival.segment, gateway, address)
    }

    fn may_answer(&self, occasion: Occasion) -> bool {
        let router = self.snapshot.router();
        let broadcast = router.is_broadcast(self.ip.destination) || router.is_broadcast(self.ip.source);
        icmp::may_answer(&self.arrival.link, &self.ip, occasion, broadcast)
    }

    /// An ICMP error about this packet, where one is allowed.
    fn error(&self, error: IcmpError) -> Option<Answer> {
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
    fn drop(&self, reason: DropReason, answer: Option<Answer>) -> Decision {
        Decision::Drop { reason, answer }
    }
}

enum Found {
    Station(MacAddr, PortId),
    Learned(MacAddr, u32),
    Unknown,
    Failed,
}
