//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{self, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr};

use super::{Header, ethernet, packet};
use crate::addr::MacAddr;
use crate::frame::{Frame, FramePool};
use crate::parse::ETHERNET_HEADER;

/// What shows a receiver that a message has not passed a router (RFC 4861 section 3.1).
const LINK_HOP_LIMIT: u8 = 255;

/// All nodes of the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn arp(
    pool: &mut FramePool,
    operation: wire::ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
    destination: MacAddr,
) -> Frame {
    let repr = wire::ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: wire::EthernetAddress(sender.0.0),
        source_protocol_addr: sender.1,
        target_hardware_addr: wire::EthernetAddress(target.0.0),
        target_protocol_addr: target.1,
    };
    let mut frame = ethernet(pool, sender.0, destination, wire::EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut wire::ArpPacket::new_unchecked(&mut frame.bytes_mut()[ETHERNET_HEADER..]));
    frame
}

/// Asks who has `target`: everybody, or with a unicast `destination` whether it still has it (RFC 1122 section
/// 2.3.2.1). A `source` of 0.0.0.0 makes it a probe (RFC 5227 section 2.1.1).
pub fn arp_request(
    pool: &mut FramePool,
    source_mac: MacAddr,
    source: Ipv4Addr,
    target: Ipv4Addr,
    destination: MacAddr,
) -> Frame {
    arp(pool, wire::ArpOperation::Request, (source_mac, source), (MacAddr::ZERO, target), destination)
}

/// Tells the asker (`target`, at `target_mac`) that `address` is at `mac`.
pub fn arp_reply(
    pool: &mut FramePool,
    mac: MacAddr,
    address: Ipv4Addr,
    target_mac: MacAddr,
    target: Ipv4Addr,
) -> Frame {
    arp(pool, wire::ArpOperation::Reply, (mac, address), (target_mac, target), target_mac)
}

/// Tells everybody that `address` is at `mac`: an announcement in the form of a request, which is understood best
/// (RFC 5227 sections 2.3 and 3).
pub fn arp_announcement(pool: &mut FramePool, mac: MacAddr, address: Ipv4Addr) -> Frame {
    arp(pool, wire::ArpOperation::Request, (mac, address), (MacAddr::ZERO, address), MacAddr::BROADCAST)
}

fn discovery(
    pool: &mut FramePool,
    source: (MacAddr, Ipv6Addr),
    destination: (MacAddr, Ipv6Addr),
    message: NdiscRepr<'_>,
) -> Frame {
    let repr = Icmpv6Repr::Ndisc(message);
    let header = Header {
        source: IpAddr::V6(source.1),
        destination: IpAddr::V6(destination.1),
        protocol: wire::IpProtocol::Icmpv6,
        hop_limit: LINK_HOP_LIMIT,
        class: 0,
        id: None,
    };
    let (mut frame, at) = packet(pool, source.0, destination.0, &header, repr.buffer_len())
        .expect("both addresses are IPv6 and the message has under 100 octets");
    repr.emit(
        &source.1,
        &destination.1,
        &mut wire::Icmpv6Packet::new_unchecked(&mut frame.bytes_mut()[at..]),
        &ChecksumCapabilities::default(),
    );
    frame
}

/// Asks for the link-layer address of `target`: its solicited-node group, or with `unicast` whether it is still there
/// (RFC 4861 section 4.3). An unspecified `source` makes it a duplicate address detection, which names no link-layer
/// address (RFC 4862 section 5.4.2).
pub fn neighbor_solicitation(
    pool: &mut FramePool,
    source_mac: MacAddr,
    source: Ipv6Addr,
    target: Ipv6Addr,
    unicast: Option<MacAddr>,
) -> Frame {
    let destination = match unicast {
        Some(mac) => (mac, target),
        None => {
            let group = solicited_node(target);
            (MacAddr::for_multicast(IpAddr::V6(group)), group)
        }
    };
    let lladdr = (!source.is_unspecified()).then(|| wire::EthernetAddress(source_mac.0).into());
    let message = NdiscRepr::NeighborSolicit { target_addr: target, lladdr };
    discovery(pool, (source_mac, source), destination, message)
}

/// Tells that `target` is at `target_mac` (RFC 4861 section 4.4): `to` the asker as a solicited answer, or with `None`
/// unsolicited to all nodes, which is also the answer to duplicate address detection (section 7.2.4). It comes from
/// `target` itself. `router` is the R flag; `override_`, the O flag, is to replace what the receiver knows.
pub fn neighbor_advertisement(
    pool: &mut FramePool,
    target: Ipv6Addr,
    target_mac: MacAddr,
    to: Option<(MacAddr, Ipv6Addr)>,
    router: bool,
    override_: bool,
) -> Frame {
    let mut flags = NdiscNeighborFlags::empty();
    flags.set(NdiscNeighborFlags::ROUTER, router);
    flags.set(NdiscNeighborFlags::SOLICITED, to.is_some());
    flags.set(NdiscNeighborFlags::OVERRIDE, override_);
    let lladdr = Some(wire::EthernetAddress(target_mac.0).into());
    let message = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr };
    let everybody = || (MacAddr::for_multicast(IpAddr::V6(ALL_NODES)), ALL_NODES);
    discovery(pool, (target_mac, target), to.unwrap_or_else(everybody), message)
}

/// Asks for the MAC address of `target`, in the protocol of its family: everybody who may have it, or `unicast`. `None`
/// if the addresses are not of one family.
pub fn neighbor_question(
    pool: &mut FramePool,
    source_mac: MacAddr,
    source: IpAddr,
    target: IpAddr,
    unicast: Option<MacAddr>,
) -> Option<Frame> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            Some(arp_request(pool, source_mac, source, target, unicast.unwrap_or(MacAddr::BROADCAST)))
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            Some(neighbor_solicitation(pool, source_mac, source, target, unicast))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// Tells an asker that `target` is at `target_mac`, in the protocol of its family. A prober has no address yet: it is
/// answered at its MAC address (ARP) or with everybody else (RFC 4861 section 7.2.4). `override_` is not set by those who
/// answer for others (section 7.2.8). `None` if the addresses are not of one family.
pub fn neighbor_answer(
    pool: &mut FramePool,
    target: IpAddr,
    target_mac: MacAddr,
    (asker_mac, asker): (MacAddr, Option<IpAddr>),
    router: bool,
    override_: bool,
) -> Option<Frame> {
    let arp = |pool, target, asker| Some(arp_reply(pool, target_mac, target, asker_mac, asker));
    let advertisement =
        |pool, target, to| Some(neighbor_advertisement(pool, target, target_mac, to, router, override_));
    match (target, asker) {
        (IpAddr::V4(target), Some(IpAddr::V4(asker))) => arp(pool, target, asker),
        (IpAddr::V4(target), None) => arp(pool, target, Ipv4Addr::UNSPECIFIED),
        (IpAddr::V6(target), Some(IpAddr::V6(asker))) => {
            advertisement(pool, target, Some((asker_mac, asker)))
        }
        (IpAddr::V6(target), None) => advertisement(pool, target, None),
        (IpAddr::V4(_), Some(IpAddr::V6(_))) | (IpAddr::V6(_), Some(IpAddr::V4(_))) => None,
    }
}

/// Tells everybody that `address` is at `mac`, in the protocol of its family.
pub fn neighbor_announcement(pool: &mut FramePool, mac: MacAddr, address: IpAddr, router: bool) -> Frame {
    match address {
        IpAddr::V4(address) => arp_announcement(pool, mac, address),
        IpAddr::V6(address) => neighbor_advertisement(pool, address, mac, None, router, true),
    }
}

/// Asks whether anybody has `address`, without saying who asks (RFC 5227 section 2.1.1, RFC 4862 section 5.4.2).
pub fn neighbor_probe(pool: &mut FramePool, mac: MacAddr, address: IpAddr) -> Frame {
    match address {
        IpAddr::V4(address) => arp_request(pool, mac, Ipv4Addr::UNSPECIFIED, address, MacAddr::BROADCAST),
        IpAddr::V6(address) => neighbor_solicitation(pool, mac, Ipv6Addr::UNSPECIFIED, address, None),
    }
}

/// ff02::1:ffXX:XXXX with the last 24 bits of `address` (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}
