//! ARP and neighbour discovery as one conversation: who asks for whom, who tells where it is.

use core::net::IpAddr;

use super::admit::Arrival;
use super::explain::{Recorder, Stage};
use super::slow::{Answer, Decided, Decision, Hearsay, Scope};
use crate::addr::MacAddr;
use crate::config::Segment;
use crate::neighbor::{Discovery, Hearing};
use crate::parse::Network;
use crate::verdict::DropReason;

/// Reads a frame as discovery, if it is.
fn read(arrival: &Arrival<'_>) -> Option<Discovery> {
    match (&arrival.network, &arrival.discovery) {
        (Some(Network::Arp(arp)), _) => Discovery::from_arp(arp, arrival.link.destination),
        (Some(Network::Ip(ip)), Some(message)) => Discovery::from_ndisc(ip.source, message),
        _ => None,
    }
}

/// Decides about a discovery message; `None` when the frame is not one, or is one between other stations.
pub(super) fn decide<R: Recorder>(arrival: &Arrival<'_>, recorder: &mut R) -> Option<Decided> {
    let message = read(arrival)?;
    let segment = arrival.segment;
    let claimed = match &message {
        Discovery::Ask { sender, .. } => *sender,
        Discovery::Tell { address, .. } => Some(*address),
    };
    if let Some(address) = claimed
        && !arrival.is_managed()
        && is_ours(segment, address)
    {
        recorder.step(Stage::Discovery, || {
            alloc::format!("{address} is claimed by {}, but it is ours", arrival.link.source)
        });
        return Some(Decision::dropped(DropReason::ManagedAddressClaimed));
    }
    match message {
        Discovery::Ask { target, sender, mac } => ask(arrival, target, sender, mac, recorder),
        Discovery::Tell { address, mac, hearing } => tell(arrival, address, mac, hearing),
    }
}

/// Whether the address is the gateway's or a managed station's.
fn is_ours(segment: &Segment, address: IpAddr) -> bool {
    segment.gateway().is_some_and(|g| g.has(address)) || segment.station_by_address(address).is_some()
}

fn ask<R: Recorder>(
    arrival: &Arrival<'_>,
    target: IpAddr,
    sender: Option<IpAddr>,
    mac: Option<MacAddr>,
    recorder: &mut R,
) -> Option<Decided> {
    let segment = arrival.segment;
    let hearsay = |hearing| match (sender, mac) {
        (Some(address), Some(_)) if !arrival.is_managed() => Some(Hearsay { address, mac, hearing }),
        _ => None,
    };
    let asker_mac = mac.unwrap_or(arrival.link.source);
    // Nobody is at a group address or at zero, so nobody is answered there; answered by broadcast, all would hear it.
    let answered = asker_mac.is_valid_source();
    if let Some(gateway) = segment.gateway().filter(|g| g.has(target)) {
        recorder.step(Stage::Discovery, || alloc::format!("{target} is the gateway, at {}", gateway.mac));
        let answer = Answer::Discovery { target, mac: gateway.mac, router: true, asker: sender, asker_mac };
        // Only who can be a neighbour is worth an entry.
        let on_link = sender.is_some_and(|s| gateway.is_on_link(s));
        return Some(Decided {
            decision: Decision::Consume(answered.then_some(answer)),
            hearsay: hearsay(if on_link { Hearing::Solicitation } else { Hearing::Overheard }),
        });
    }
    if let Some(station) = segment.station_by_address(target) {
        recorder.step(Stage::Discovery, || alloc::format!("{target} is managed, at {}", station.mac));
        let answer = Answer::Discovery { target, mac: station.mac, router: false, asker: sender, asker_mac };
        // A station that asks for its own address (duplicate address detection) must not be told that it is taken.
        let answer = (answered && station.port != arrival.port.id()).then_some(answer);
        return Some(Decided { decision: Decision::Consume(answer), hearsay: hearsay(Hearing::Overheard) });
    }
    if !arrival.link.destination.is_multicast() {
        return None;
    }
    // Managed stations have answered already: only a foreign station can know more.
    recorder
        .step(Stage::Discovery, || alloc::format!("{target} is not known here, the foreign ports are asked"));
    Some(Decided { decision: flood(segment, Scope::Foreign), hearsay: hearsay(Hearing::Overheard) })
}

fn tell(arrival: &Arrival<'_>, address: IpAddr, mac: Option<MacAddr>, hearing: Hearing) -> Option<Decided> {
    let hearsay = (!arrival.is_managed()).then_some(Hearsay { address, mac, hearing });
    if arrival.to_gateway() {
        return Some(Decided { decision: Decision::Consume(None), hearsay });
    }
    if arrival.link.destination.is_multicast() {
        return Some(Decided { decision: flood(arrival.segment, Scope::All), hearsay });
    }
    None
}

/// Passes a message on to other stations, where there are such.
fn flood(segment: &Segment, scope: Scope) -> Decision {
    match segment.bridges() {
        true => Decision::Flood(scope),
        false => Decision::Drop { reason: DropReason::MulticastNotRouted, answer: None },
    }
}
