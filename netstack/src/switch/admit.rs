//! The first look at a frame: which port, which segment, is it well-formed, may its sender say what it says.

use core::net::IpAddr;

use super::explain::{Recorder, Stage};
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::bridge;
use crate::config::{Port, Segment, Snapshot, Station};
use crate::frame::Frame;
use crate::offload::{self, Checksum};
use crate::parse::{self, Ip, Link, NeighborDiscovery, Network, Transport, ethertype, protocol};
use crate::verdict::DropReason;

/// The VLAN identifier in a TCI.
const VLAN_ID: u16 = 0x0fff;

/// A frame that has been let in. Its tag is gone: from here on a segment stands for a VLAN.
pub(super) struct Arrival<'s> {
    pub(super) port: &'s Port,
    pub(super) segment: &'s Segment,
    pub(super) link: Link,
    /// What it carries; `None` when it is bridged by its Ethernet header alone.
    pub(super) network: Option<Network>,
    /// The neighbour discovery message it is, checked.
    pub(super) discovery: Option<NeighborDiscovery>,
}

impl<'s> Arrival<'s> {
    /// That of a frame which was let in before and has waited since; `None` if its port or segment is no more.
    pub(super) fn again(
        snapshot: &'s Snapshot,
        port: PortId,
        segment: SegmentId,
        frame: &Frame,
    ) -> Option<Self> {
        let (port, segment) = snapshot.port(port).zip(snapshot.segment(segment))?;
        let link = parse::link(frame.bytes()).ok()?;
        let network = parse::network(frame.bytes(), &link).ok()?;
        Some(Self { port, segment, link, network: Some(network), discovery: None })
    }

    /// The IP packet that it is.
    pub(super) fn ip(&self) -> Option<Ip> {
        match self.network {
            Some(Network::Ip(ip)) => Some(ip),
            Some(Network::Arp(_) | Network::Other) | None => None,
        }
    }

    pub(super) fn is_managed(&self) -> bool {
        matches!(self.port.station(), Station::Managed { .. })
    }

    pub(super) fn to_gateway(&self) -> bool {
        self.segment.gateway().is_some_and(|g| g.mac == self.link.destination)
    }
}

/// Lets a frame in, or says why not. Pops the frame's tag.
pub(super) fn admit<'s, R: Recorder>(
    snapshot: &'s Snapshot,
    port_id: PortId,
    frame: &mut Frame,
    recorder: &mut R,
) -> Result<Arrival<'s>, DropReason> {
    let port = snapshot.port(port_id).ok_or(DropReason::PortClosed)?;
    let mut link = parse::link(frame.bytes())?;
    let segment_id = port.segment_of(link.tag).ok_or(DropReason::VlanNotAllowed)?;
    let segment = snapshot.segment(segment_id).ok_or(DropReason::PortClosed)?;
    if let Some(tag) = link.tag.take() {
        bridge::pop_tag(frame);
        link.payload -= bridge::TAG_LEN;
        if tag & VLAN_ID == 0 && link.ethertype == ethertype::VLAN {
            // A tag behind a priority tag: where untagged frames leave, it would name the VLAN that the next bridge
            // takes the frame for, and so let its sender choose.
            return Err(DropReason::VlanNotAllowed);
        }
    }
    if !link.source.is_valid_source() {
        return Err(DropReason::SourceMacInvalid);
    }
    recorder.step(Stage::Parse, || {
        alloc::format!(
            "port {} to segment {:?}, {} > {}, {} octets",
            port.name(),
            segment.name(),
            link.source,
            link.destination,
            frame.len()
        )
    });
    let mut arrival = Arrival { port, segment, link, network: None, discovery: None };
    let strict = arrival.is_managed() || arrival.to_gateway() || is_offloaded(frame);
    // Answers to what was translated may be bridged, and still must be translated back.
    let tracked = snapshot.translator().is_some() && segment.gateway().is_some();
    arrival.network = look_inside(&arrival, frame, strict, tracked)?;
    if is_offloaded(frame) {
        match &arrival.network {
            Some(Network::Ip(ip)) => offload::validate(frame, ip)?,
            _ => return Err(DropReason::OffloadInvalid),
        }
    }
    if frame.offload.segmentation.is_some() {
        trim_padding(frame, &arrival);
    }
    if packet_len(frame, &arrival) > segment.mtu() {
        return Err(DropReason::FrameTooLong);
    }
    if arrival.to_gateway() {
        trim_padding(frame, &arrival);
    }
    if let Some(Network::Ip(ip)) = &arrival.network {
        if ip.option_problem.is_some() && arrival.is_managed() && !arrival.to_gateway() {
            return Err(DropReason::Ipv4Options);
        }
        arrival.discovery = match parse::neighbor_discovery(frame.bytes(), ip) {
            Ok(message) => message,
            Err(reason) if strict || segment.gateway().is_some() => return Err(reason),
            Err(_) => None,
        };
    }
    if let Station::Managed { mac, addresses } = port.station() {
        guard(&arrival, *mac, addresses)?;
        recorder.step(Stage::Guard, || "source MAC and address are the port's own".into());
    }
    Ok(arrival)
}

/// Parses what must be understood: all of it from a managed port or for the gateway, what the switch may have to answer,
/// and where connections are tracked what can be. Everything else is bridged whatever it carries.
fn look_inside(
    arrival: &Arrival<'_>,
    frame: &Frame,
    strict: bool,
    tracked: bool,
) -> Result<Option<Network>, DropReason> {
    let link = &arrival.link;
    let maybe_discovery = link.ethertype == ethertype::ARP
        || (link.ethertype == ethertype::IPV6 && !is_tcp_or_udp(frame.bytes(), link.payload));
    if !strict && !maybe_discovery && !tracked {
        return Ok(None);
    }
    match parse::network(frame.bytes(), link) {
        Ok(network) => Ok(Some(network)),
        Err(reason) if strict => Err(reason),
        Err(_) => Ok(None),
    }
}

/// Whether nothing stands between an IPv6 header and TCP or UDP: most of what a bridge sees, and never discovery.
#[inline]
pub(super) fn is_tcp_or_udp(frame: &[u8], payload: usize) -> bool {
    const NEXT_HEADER: usize = 6;
    matches!(frame.get(payload + NEXT_HEADER), Some(&(protocol::TCP | protocol::UDP)))
}

/// Whether a device has left something of a frame to be done.
#[inline]
pub(super) fn is_offloaded(frame: &Frame) -> bool {
    frame.offload.segmentation.is_some() || matches!(frame.offload.checksum, Checksum::Partial { .. })
}

/// Takes away what stands behind the IP packet: what pads a short frame on this link does not belong on the next, and
/// into none of a super-frame's pieces.
fn trim_padding(frame: &mut Frame, arrival: &Arrival<'_>) {
    if let Some(Network::Ip(ip)) = &arrival.network {
        let fits = frame.set_len(ip.end);
        debug_assert!(fits);
    }
}

/// Octets behind the Ethernet header that the frame will have on a link: a super-frame counts as its largest piece, and
/// in other frames padding counts.
fn packet_len(frame: &Frame, arrival: &Arrival<'_>) -> usize {
    match (&arrival.network, frame.offload.segmentation) {
        (Some(Network::Ip(ip)), Some(_)) => offload::packet_size_on_wire(frame, ip),
        _ => frame.len() - arrival.link.payload,
    }
}

/// Source guard of a managed port: MAC address, ARP sender, IP source, neighbour discovery.
fn guard(arrival: &Arrival<'_>, mac: MacAddr, addresses: &[IpAddr]) -> Result<(), DropReason> {
    if arrival.link.source != mac {
        return Err(DropReason::SpoofedMac);
    }
    let owns = |a: IpAddr| addresses.contains(&a) || a == IpAddr::V6(mac.link_local());
    match &arrival.network {
        Some(Network::Arp(arp)) => {
            let sender =
                arp.sender_mac == mac && (arp.sender.is_unspecified() || owns(IpAddr::V4(arp.sender)));
            if sender { Ok(()) } else { Err(DropReason::SpoofedArp) }
        }
        Some(Network::Ip(ip)) => {
            let allowed = owns(ip.source) || (ip.source.is_unspecified() && may_be_unspecified(ip));
            if !allowed {
                return Err(DropReason::SpoofedAddress);
            }
            guard_discovery(arrival.discovery.as_ref(), mac, owns)
        }
        Some(Network::Other) | None => Ok(()),
    }
}

/// The unspecified source is for duplicate address detection and multicast listener reports (RFC 4862 section 5.4.2,
/// RFC 3590), never for IPv4: a managed station knows its address.
fn may_be_unspecified(ip: &Ip) -> bool {
    const NEIGHBOR_SOLICITATION: u8 = 135;
    const LISTENER_REPORT_V1: u8 = 131;
    const LISTENER_REPORT_V2: u8 = 143;
    ip.source.is_ipv6()
        && matches!(
            ip.transport,
            Transport::Icmp { kind: NEIGHBOR_SOLICITATION | LISTENER_REPORT_V1 | LISTENER_REPORT_V2, .. }
        )
}

fn guard_discovery(
    message: Option<&NeighborDiscovery>,
    mac: MacAddr,
    owns: impl Fn(IpAddr) -> bool,
) -> Result<(), DropReason> {
    let honest = match message {
        None | Some(NeighborDiscovery::RouterSolicit) => true,
        Some(NeighborDiscovery::Solicit { source_link, .. }) => source_link.is_none_or(|m| m == mac),
        Some(NeighborDiscovery::Advert { target, target_link, router, .. }) => {
            owns(IpAddr::V6(*target)) && target_link.is_none_or(|m| m == mac) && !router
        }
        Some(NeighborDiscovery::RouterAdvert | NeighborDiscovery::Redirect) => false,
    };
    if honest { Ok(()) } else { Err(DropReason::SpoofedNeighbor) }
}
