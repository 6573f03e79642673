//! ARP and neighbour discovery on the wire: questions, answers, and what they teach (RFC 826, RFC 4861).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags,
    NdiscRepr,
};

use super::link::{Link, PACKET_AT};
use super::neighbor::Question;
use crate::addr::MacAddr;
use crate::parse::{Arp, Ip, ethertype, protocol};
use crate::verdict::DropReason;

/// The hop limit of every neighbour discovery message, which proves that it came from this link (RFC 4861 section 7.1).
const ND_HOP_LIMIT: u8 = 255;
/// ff02::1, every node on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which a node with this address listens for solicitations (RFC 4291 section 2.7.1).
pub(super) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let o = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(o[13]), u16::from_be_bytes([o[14], o[15]]))
}

impl Link {
    /// Whether a frame to this station is for us: ours, broadcast, or an IPv6 group that we listen to.
    pub(super) fn hears(&self, destination: MacAddr) -> bool {
        let group = |address: IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(a) => destination == MacAddr::for_multicast(IpAddr::V6(solicited_node(a))),
        };
        destination == self.mac
            || destination.is_broadcast()
            || destination == MacAddr::for_multicast(IpAddr::V6(ALL_NODES))
            || self.addresses().iter().any(|net| group(net.addr()))
    }

    /// Whether an IPv6 packet to this group is for us.
    pub(super) fn hears_group(&self, group: IpAddr) -> bool {
        let IpAddr::V6(group) = group else { return false };
        let solicited = |address: IpAddr| matches!(address, IpAddr::V6(a) if solicited_node(a) == group);
        group == ALL_NODES || self.addresses().iter().any(|net| solicited(net.addr()))
    }

    /// Takes in an ARP packet (RFC 826, "Packet Reception").
    pub(super) fn handle_arp(&mut self, arp: &Arp) -> Result<(), DropReason> {
        let for_us = self.is_ours(IpAddr::V4(arp.target));
        if !arp.sender_mac.is_valid_source() || arp.sender_mac == self.mac {
            return Err(DropReason::ArpMalformed);
        }
        // A probe has no sender address: it is answered and teaches nothing (RFC 5227 section 2.1.1).
        if !arp.sender.is_unspecified() && !arp.sender.is_multicast() && !arp.sender.is_broadcast() {
            self.learn(IpAddr::V4(arp.sender), arp.sender_mac, for_us);
        }
        if arp.operation == 1 && for_us {
            self.send_arp(ArpOperation::Reply, arp.target, arp.sender_mac, arp.sender, arp.sender_mac);
        }
        Ok(())
    }

    /// Takes in a neighbour solicitation or advertisement whose checksum is good. `message` begins at the ICMPv6
    /// header.
    pub(super) fn handle_nd(&mut self, ip: &Ip, message: &[u8]) -> Result<(), DropReason> {
        let invalid = DropReason::NeighborDiscoveryInvalid;
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
            return Err(invalid);
        };
        // RFC 4861 section 7.1.1 and 7.1.2.
        let packet = Icmpv6Packet::new_checked(message).map_err(|_| invalid)?;
        if ip.hop_limit != ND_HOP_LIMIT || packet.msg_code() != 0 {
            return Err(invalid);
        }
        match NdiscRepr::parse(&packet).map_err(|_| invalid)? {
            NdiscRepr::NeighborSolicit { target_addr, lladdr } => {
                let probe = source.is_unspecified();
                let mac = lladdr.and_then(link_layer);
                if target_addr.is_multicast()
                    || (probe && (mac.is_some() || destination != solicited_node(target_addr)))
                {
                    return Err(invalid);
                }
                let for_us = self.is_ours(IpAddr::V6(target_addr));
                if let (Some(mac), false) = (mac, probe) {
                    self.learn(IpAddr::V6(source), mac, for_us);
                }
                if for_us {
                    self.send_advertisement(target_addr, (!probe).then_some(source), mac);
                }
            }
            NdiscRepr::NeighborAdvert { flags, target_addr, lladdr } => {
                let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
                if target_addr.is_multicast() || (destination.is_multicast() && solicited) {
                    return Err(invalid);
                }
                // An advertisement makes no new entry (RFC 4861 section 7.2.5).
                if let Some(mac) = lladdr.and_then(link_layer) {
                    self.learn(IpAddr::V6(target_addr), mac, false);
                }
            }
            // A host with addresses from its configuration has no use for router discovery and redirects.
            NdiscRepr::RouterSolicit { .. } | NdiscRepr::RouterAdvert { .. } | NdiscRepr::Redirect { .. } => {
            }
        }
        Ok(())
    }

    fn learn(&mut self, address: IpAddr, mac: MacAddr, for_us: bool) {
        let new_allowed = for_us && self.is_on_link(address);
        let ethertype = if address.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        // The packets that waited go through the queue, which the neighbour table must not be borrowed for.
        let mut freed = core::mem::take(&mut self.freed);
        self.neighbors.learn(self.now, address, mac, new_allowed, |mac, frame| freed.push((mac, frame)));
        for (mac, frame) in freed.drain(..) {
            self.send_to(frame, mac, ethertype);
        }
        self.freed = freed;
    }

    /// Asks every question that is due.
    pub(super) fn ask(&mut self) {
        loop {
            let (pool, counters) = (&mut self.pool, &mut self.counters);
            let question = self.neighbors.poll_probe(self.now, |frame| {
                counters.neighbor_failed += 1;
                pool.recycle(frame);
            });
            let Some(Question { target, unicast }) = question else { return };
            let source = self.source_for(target);
            match (target, source) {
                (IpAddr::V4(target), Some(IpAddr::V4(source))) => {
                    let station = unicast.unwrap_or(MacAddr::BROADCAST);
                    self.send_arp(ArpOperation::Request, source, MacAddr::ZERO, target, station);
                }
                (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
                    self.send_solicitation(source, target, unicast);
                }
                (IpAddr::V4(_) | IpAddr::V6(_), _) => {}
            }
        }
    }

    fn send_arp(
        &mut self,
        operation: ArpOperation,
        source: Ipv4Addr,
        target_mac: MacAddr,
        target: Ipv4Addr,
        station: MacAddr,
    ) {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.mac.0),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress(target_mac.0),
            target_protocol_addr: target,
        };
        let mut frame = self.packet(arp.buffer_len());
        arp.emit(&mut ArpPacket::new_unchecked(&mut frame.bytes_mut()[PACKET_AT..]));
        self.send_to(frame, station, ethertype::ARP);
    }

    fn send_solicitation(&mut self, source: Ipv6Addr, target: Ipv6Addr, unicast: Option<MacAddr>) {
        let group = solicited_node(target);
        let (destination, station) = match unicast {
            Some(mac) => (target, mac),
            None => (group, MacAddr::for_multicast(IpAddr::V6(group))),
        };
        let mac = EthernetAddress(self.mac.0);
        let message = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(mac.into()) };
        self.send_nd(source, destination, message, station);
    }

    /// Answers a solicitation: to its sender, or to all nodes when the sender has no address yet (RFC 4861 section
    /// 7.2.4).
    fn send_advertisement(&mut self, target: Ipv6Addr, to: Option<Ipv6Addr>, mac: Option<MacAddr>) {
        let own = EthernetAddress(self.mac.0);
        let mut flags = NdiscNeighborFlags::OVERRIDE;
        flags.set(NdiscNeighborFlags::SOLICITED, to.is_some());
        let message = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr: Some(own.into()) };
        match (to, mac) {
            (Some(to), Some(mac)) => self.send_nd(target, to, message, mac),
            (Some(to), None) => {
                let frame = self.nd_packet(target, to, message);
                self.send(frame, IpAddr::V6(to));
            }
            (None, _) => {
                self.send_nd(target, ALL_NODES, message, MacAddr::for_multicast(IpAddr::V6(ALL_NODES)));
            }
        }
    }

    fn send_nd(&mut self, source: Ipv6Addr, destination: Ipv6Addr, message: NdiscRepr<'_>, station: MacAddr) {
        let frame = self.nd_packet(source, destination, message);
        self.send_to(frame, station, ethertype::IPV6);
    }

    fn nd_packet(
        &mut self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        message: NdiscRepr<'_>,
    ) -> crate::frame::Frame {
        let (mut frame, payload) = self.ip_packet(
            IpAddr::V6(source),
            IpAddr::V6(destination),
            protocol::ICMPV6,
            message.buffer_len(),
            ND_HOP_LIMIT,
        );
        let mut packet = Icmpv6Packet::new_unchecked(&mut frame.bytes_mut()[payload..]);
        Icmpv6Repr::Ndisc(message).emit(&source, &destination, &mut packet, &ChecksumCapabilities::default());
        frame
    }
}

/// The MAC address in a link-layer address option.
fn link_layer(raw: smoltcp::wire::RawHardwareAddress) -> Option<MacAddr> {
    let octets: [u8; 6] = raw.as_bytes().try_into().ok()?;
    Some(MacAddr(octets)).filter(|mac| mac.is_valid_source())
}
