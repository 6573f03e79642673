//! ARP and neighbour discovery as one conversation: who asks for whom, who tells where it is.

use core::net::IpAddr;

use super::admit::Arrival;
use super::explain::{Recorder, Stage};
use super::slow::{Answer, Decided, Decision, Hearsay, Scope};
use crate::addr::MacAddr;
use crate::config::Segment;
use crate::neighbor::Hearing;
use crate::parse::{Arp, NeighborDiscovery, Network};
use crate::verdict::DropReason;

/// A question or a statement about an address, whatever protocol carried it.
pub(super) enum Discovery {
    /// "Who has `target`?"
    Ask {
        target: IpAddr,
        /// Who asks, unless it is a probe for an address not yet in use.
        sender: Option<IpAddr>,
        /// The asker's MAC address, when the message tells it.
        mac: Option<MacAddr>,
    },
    /// "`address` is at `mac`."
    Tell { address: IpAddr, mac: Option<MacAddr>, hearing: Hearing },
}

/// Reads a frame as discovery, if it is.
fn read(arrival: &Arrival<'_>) -> Option<Discovery> {
    match (&arrival.network, &arrival.discovery) {
        (Some(Network::Arp(arp)), _) => read_arp(arp, arrival.link.destination),
        (Some(Network::Ip(ip)), Some(message)) => read_ndisc(ip.source, message),
        _ => None,
    }
}

fn read_arp(arp: &Arp, destination: MacAddr) -> Option<Discovery> {
    const REQUEST: u16 = 1;
    const REPLY: u16 = 2;
    let sender = IpAddr::V4(arp.sender);
    match arp.operation {
        // A request for the sender's own address announces it (RFC 5227 section 2.3).
        REQUEST if arp.sender == arp.target => {
            Some(Discovery::Tell { address: sender, mac: Some(arp.sender_mac), hearing: Hearing::Gratuitous })
        }
        REQUEST => Some(Discovery::Ask {
            target: IpAddr::V4(arp.target),
            sender: (!arp.sender.is_unspecified()).then_some(sender),
            mac: Some(arp.sender_mac),
        }),
        REPLY => {
            let hearing = if destination.is_multicast() { Hearing::Gratuitous } else { Hearing::Answer };
            Some(Discovery::Tell { address: sender, mac: Some(arp.sender_mac), hearing })
        }
        _ => None,
    }
}

fn read_ndisc(source: IpAddr, message: &NeighborDiscovery) -> Option<Discovery> {
    match *message {
        NeighborDiscovery::Solicit { target, source_link, .. } => Some(Discovery::Ask {
            target: IpAddr::V6(target),
            sender: (!source.is_unspecified()).then_some(source),
            mac: source_link,
        }),
        NeighborDiscovery::Advert { target, target_link, solicited, override_, .. } => {
            let hearing = Hearing::Advertisement { solicited, override_flag: override_ };
            Some(Discovery::Tell { address: IpAddr::V6(target), mac: target_link, hearing })
        }
        NeighborDiscovery::RouterSolicit | NeighborDiscovery::RouterAdvert | NeighborDiscovery::Redirect => {
            None
        }
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
