//! ARP and neighbour discovery as one conversation: who asks for whom, who tells where it is.

use core::net::IpAddr;

use super::Switch;
use super::admit::Arrival;
use super::explain::{Recorder, Stage};
use super::own;
use super::protect;
use super::slow::{Answer, Aside, Conflict, Decided, Decision, Hearsay, Scope};
use crate::addr::MacAddr;
use crate::config::{Gateway, Segment, Snapshot};
use crate::neighbor::{Discovery, Hearing, Standing};
use crate::parse::{NeighborDiscovery, Network};
use crate::route;
use crate::verdict::DropReason;

/// Reads a frame as discovery, if it is.
fn read(arrival: &Arrival<'_>) -> Option<Discovery> {
    match (&arrival.network, &arrival.discovery) {
        (Some(Network::Arp(arp)), _) => Discovery::from_arp(arp, arrival.link.destination),
        (Some(Network::Ip(ip)), Some(message)) => Discovery::from_ndisc(ip.source, message),
        _ => None,
    }
}

/// Decides about a discovery message, and says what else follows from it; no decision when the frame is not one, or is
/// one between other stations.
pub(super) fn decide<R: Recorder>(
    switch: &Switch,
    snapshot: &Snapshot,
    arrival: &Arrival<'_>,
    recorder: &mut R,
) -> (Option<Decided>, Option<Aside>) {
    if arrival.discovery == Some(NeighborDiscovery::RouterSolicit) {
        return router_solicitation(snapshot, arrival, recorder);
    }
    let Some(message) = read(arrival) else { return (None, None) };
    let talk = Talk { switch, snapshot, arrival };
    let (claimed, conflict) = talk.judge(&message);
    let aside = conflict.map(Aside::Conflict);
    if let Some(address) = claimed {
        recorder.step(Stage::Discovery, || {
            alloc::format!("{address} is claimed by {}, but it is ours", arrival.link.source)
        });
        return (Some(Decision::dropped(DropReason::ManagedAddressClaimed)), aside);
    }
    let decided = match message {
        Discovery::Ask { target, sender, mac } => talk.ask(target, sender, mac, recorder),
        Discovery::Tell { address, mac, hearing } => talk.tell(address, mac, hearing),
    };
    (decided, aside)
}

/// Other routers of the segment hear it as well.
fn router_solicitation<R: Recorder>(
    snapshot: &Snapshot,
    arrival: &Arrival<'_>,
    recorder: &mut R,
) -> (Option<Decided>, Option<Aside>) {
    if own::advertising(snapshot, arrival.segment.id()).is_none() {
        return (None, None);
    }
    recorder.step(Stage::Discovery, || "a router solicitation, answered by an advertisement to all".into());
    let others = arrival.segment.bridges()
        && arrival.link.destination.is_multicast()
        && protect::flood_targets(snapshot, arrival, Scope::Foreign).next().is_some();
    let decision = if others { Decision::Flood(Scope::Foreign) } else { Decision::Consume(None) };
    (Some(decision.into()), Some(Aside::RouterSolicited))
}

/// Whose an address of ours is.
enum Owner {
    /// In use, by whoever has this MAC address: the gateway or a managed station.
    InUse(MacAddr),
    /// The gateway's, which probes it.
    Tentative(MacAddr),
    /// Not ours.
    Nobody,
}

/// Whether the router answers for an address that is not its own and not on this segment: the way there leaves by another
/// one (RFC 1027 section 2.3). The longest prefix decides, so an address of the segment's own prefix whose host route
/// leads elsewhere is answered for. Who only probes is answered only where there is a host route: everything else that he
/// probes for is free.
pub(super) fn is_proxied(
    snapshot: &Snapshot,
    segment: &Segment,
    target: IpAddr,
    asker: Option<IpAddr>,
) -> bool {
    let router = snapshot.router();
    let unicast = !target.is_multicast()
        && !route::is_link_scoped(target)
        && !route::martian_destination(target)
        && !router.is_broadcast(target);
    if !segment.proxies() || !unicast {
        return false;
    }
    let Some((prefix, way)) = router.lookup_prefix(target) else { return false };
    let mut segments = way.segments().peekable();
    let elsewhere = segments.peek().is_some() && segments.all(|id| id != segment.id());
    elsewhere && (asker.is_some() || prefix.prefix_len() == prefix.max_prefix_len())
}

/// One message and what is needed to judge it.
struct Talk<'a> {
    switch: &'a Switch,
    snapshot: &'a Snapshot,
    arrival: &'a Arrival<'a>,
}

impl Talk<'_> {
    fn owner(&self, address: IpAddr) -> Owner {
        let segment = self.arrival.segment;
        if let Some(gateway) = segment.gateway().filter(|g| g.has(address)) {
            match self.switch.own(self.snapshot, segment, gateway, address) {
                Some(Standing::Usable) => return Owner::InUse(gateway.mac),
                Some(Standing::Tentative) => return Owner::Tentative(gateway.mac),
                Some(Standing::Lost) | None => {}
            }
        }
        segment.station_by_address(address).map_or(Owner::Nobody, |station| Owner::InUse(station.mac))
    }

    /// Whether someone outside says that he has an address of ours, in which case the message goes no further; and
    /// whether that, or his probing for one, is a conflict. What we have said ourselves and comes back is none.
    fn judge(&self, message: &Discovery) -> (Option<IpAddr>, Option<Conflict>) {
        let (address, mac, probes) = match *message {
            Discovery::Ask { sender: Some(address), mac, .. } | Discovery::Tell { address, mac, .. } => {
                (address, mac, false)
            }
            Discovery::Ask { sender: None, target, mac } => (target, mac, true),
        };
        let mac = mac.unwrap_or(self.arrival.link.source);
        match self.owner(address) {
            Owner::InUse(_) if self.arrival.is_managed() => (None, None),
            Owner::InUse(owner) => {
                let conflict =
                    (mac != owner).then_some(Conflict { address, owner: Some(owner), announce: !probes });
                ((!probes).then_some(address), conflict)
            }
            Owner::Tentative(owner) => {
                let conflict = (mac != owner).then_some(Conflict { address, owner: None, announce: false });
                (None, conflict)
            }
            Owner::Nobody => (None, None),
        }
    }

    fn ask<R: Recorder>(
        &self,
        target: IpAddr,
        sender: Option<IpAddr>,
        mac: Option<MacAddr>,
        recorder: &mut R,
    ) -> Option<Decided> {
        let (arrival, segment) = (self.arrival, self.arrival.segment);
        let asker_mac = mac.unwrap_or(arrival.link.source);
        // Nobody is at a group address or at zero, so nobody is answered there; answered by broadcast, all would hear it.
        let answered = asker_mac.is_valid_source();
        let answer = |mac, router, override_| {
            answered.then_some(Answer::Discovery { target, mac, router, override_, asker: sender, asker_mac })
        };
        let hearsay = |hearing| match (sender, mac) {
            (Some(address), Some(_)) if !arrival.is_managed() => Some(Hearsay { address, mac, hearing }),
            _ => None,
        };
        // Only who can be a neighbour is worth an entry.
        let asks_us = |gateway: &Gateway| {
            let on_link = sender.is_some_and(|s| gateway.is_on_link(s));
            hearsay(if on_link { Hearing::Solicitation } else { Hearing::Overheard })
        };
        let consume = |answer, hearsay| Some(Decided { hearsay, ..Decision::Consume(answer).into() });
        if let Some(gateway) = segment.gateway().filter(|g| g.has(target))
            && let Owner::InUse(_) = self.owner(target)
        {
            recorder.step(Stage::Discovery, || alloc::format!("{target} is the gateway, at {}", gateway.mac));
            return consume(answer(gateway.mac, true, true), asks_us(gateway));
        }
        if let Some(station) = segment.station_by_address(target) {
            if protect::isolates(self.snapshot, arrival.port, station.port)
                && station.port != arrival.port.id()
            {
                recorder.step(Stage::Protection, || alloc::format!("{target} is isolated like this port"));
                return Some(Decision::dropped(DropReason::PortIsolated));
            }
            recorder.step(Stage::Discovery, || alloc::format!("{target} is managed, at {}", station.mac));
            // A station that asks for its own address (duplicate address detection) must not be told that it is taken.
            let other = station.port != arrival.port.id();
            let answer = answer(station.mac, false, true).filter(|_| other);
            return consume(answer, hearsay(Hearing::Overheard));
        }
        if let Some(gateway) = segment.gateway()
            && is_proxied(self.snapshot, segment, target, sender)
        {
            recorder.step(Stage::Discovery, || {
                alloc::format!("{target} is reached by another segment, the router answers for it")
            });
            return consume(answer(gateway.mac, false, false), asks_us(gateway));
        }
        if !arrival.link.destination.is_multicast() {
            return None;
        }
        // Managed stations have answered already: only a foreign station can know more.
        recorder.step(Stage::Discovery, || {
            alloc::format!("{target} is not known here, the foreign ports are asked")
        });
        let decision = flood(segment, Scope::Foreign);
        Some(Decided { hearsay: hearsay(Hearing::Overheard), ..decision.into() })
    }

    fn tell(&self, address: IpAddr, mac: Option<MacAddr>, hearing: Hearing) -> Option<Decided> {
        let arrival = self.arrival;
        let hearsay = (!arrival.is_managed()).then_some(Hearsay { address, mac, hearing });
        if arrival.to_gateway() {
            return Some(Decided { hearsay, ..Decision::Consume(None).into() });
        }
        if arrival.link.destination.is_multicast() {
            return Some(Decided { hearsay, ..flood(arrival.segment, Scope::All).into() });
        }
        None
    }
}

/// Passes a message on to other stations, where there are such.
fn flood(segment: &Segment, scope: Scope) -> Decision {
    match segment.bridges() {
        true => Decision::Flood(scope),
        false => Decision::Drop { reason: DropReason::MulticastNotRouted, answer: None },
    }
}
