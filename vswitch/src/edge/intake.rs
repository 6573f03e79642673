//! What comes in by the link: whether it is for us, whether it may go on, and which flow it is of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netstack::addr::MacAddr;
use netstack::emit::{self, IcmpError};
use netstack::flow::FlowKey;
use netstack::frame::{Frame, SegmentKind};
use netstack::parse::{self, Arp, Ip, NeighborDiscovery, Network, Transport};

use super::Edge;
use super::config::EdgeDrop;
use super::outside::{Messages, Outside};
use super::reach::Opening;

/// Kinds of ICMP messages.
pub(super) const ECHO_REQUEST: u8 = 8;
pub(super) const ECHO_REQUEST_V6: u8 = 128;

impl<O: Outside> Edge<O> {
    pub(super) fn receive(&mut self, frame: &Frame) -> Result<(), EdgeDrop> {
        let malformed = |_| EdgeDrop::Malformed;
        let link = parse::link(frame.bytes()).map_err(malformed)?;
        let network = parse::network(frame.bytes(), &link).map_err(malformed)?;
        let ours = link.destination == self.link.mac;
        match network {
            Network::Arp(arp) if ours || link.destination.is_broadcast() => {
                self.answer_neighbor(&arp);
                Ok(())
            }
            Network::Ip(ip) if ip.destination.is_multicast() => self.receive_group(frame, &ip),
            Network::Ip(ip) if ours => self.receive_packet(frame, &link, &ip),
            Network::Arp(_) | Network::Ip(_) | Network::Other => Err(EdgeDrop::Malformed),
        }
    }

    /// Tells whoever asks in ARP where our address is.
    fn answer_neighbor(&mut self, arp: &Arp) {
        const REQUEST: u16 = 1;
        if arp.operation != REQUEST || !self.link.is_own(IpAddr::V4(arp.target)) {
            return;
        }
        let asker = (!arp.sender.is_unspecified()).then_some(IpAddr::V4(arp.sender));
        self.tell_neighbor(IpAddr::V4(arp.target), (arp.sender_mac, asker));
    }

    fn tell_neighbor(&mut self, target: IpAddr, asker: (MacAddr, Option<IpAddr>)) {
        let mac = self.link.mac;
        let answer = emit::neighbor_answer(&mut self.link.pool, target, mac, asker, true, true);
        if let Some(answer) = answer {
            self.link.enqueue(answer, &mut self.counters);
        }
    }

    /// Of what is sent to groups only the question where we are concerns us.
    fn receive_group(&mut self, frame: &Frame, ip: &Ip) -> Result<(), EdgeDrop> {
        if self.receive_discovery(frame, ip)? { Ok(()) } else { Err(EdgeDrop::NotCarried) }
    }

    /// Returns whether it was neighbour discovery, which is done with then.
    fn receive_discovery(&mut self, frame: &Frame, ip: &Ip) -> Result<bool, EdgeDrop> {
        let message = parse::neighbor_discovery(frame.bytes(), ip).map_err(|_| EdgeDrop::Malformed)?;
        let Some(message) = message else { return Ok(false) };
        match message {
            NeighborDiscovery::Solicit { target, source_link, dad } if self.link.is_own(target.into()) => {
                let asker = (!dad).then_some(ip.source);
                let mac = source_link.unwrap_or(self.link.router);
                self.tell_neighbor(target.into(), (mac, asker));
            }
            NeighborDiscovery::Solicit { .. }
            | NeighborDiscovery::Advert { .. }
            | NeighborDiscovery::RouterSolicit
            | NeighborDiscovery::RouterAdvert
            | NeighborDiscovery::Redirect => {}
        }
        Ok(true)
    }

    fn receive_packet(&mut self, frame: &Frame, link: &parse::Link, ip: &Ip) -> Result<(), EdgeDrop> {
        if self.receive_discovery(frame, ip)? {
            return Ok(());
        }
        let trusted = frame.offload.is_trusted();
        if !trusted && !parse::verify_transport_checksum(frame.bytes(), ip) {
            return Err(EdgeDrop::Checksum);
        }
        let key = ip.flow_key();
        let to_us = self.link.is_own(ip.destination);
        if to_us && is_echo_request(ip) {
            let reply = emit::echo_reply(&mut self.link.pool, frame.bytes(), link, ip);
            if let Some(reply) = reply {
                self.link.enqueue(reply, &mut self.counters);
            }
            return Ok(());
        }
        if to_us && is_error(ip) {
            // Flows are told by their own timers.
            return Ok(());
        }
        // Of fragments it is not known yet what they are of.
        if ip.fragment.is_none() && !self.permits(&key) {
            self.refuse(frame, ip, IcmpError::AdminProhibited);
            return Err(EdgeDrop::Prohibited);
        }
        if ip.hop_limit <= 1 {
            self.refuse(frame, ip, IcmpError::TtlExceeded);
            return Err(EdgeDrop::HopLimit);
        }
        if let Some(fragment) = ip.fragment {
            let octets = frame.bytes().get(ip.transport_offset..ip.end).ok_or(EdgeDrop::Malformed)?;
            let whole = self.reassembly.take(self.now, ip, fragment, octets, &mut self.counters);
            return whole.map_or(Ok(()), |upper| self.receive_reassembled(ip, &upper));
        }
        match ip.transport {
            Transport::Tcp { .. } => self.receive_segment(key, frame, link, ip),
            Transport::Udp { .. } => {
                let upper = frame.bytes().get(ip.transport_offset..ip.end).ok_or(EdgeDrop::Malformed)?;
                let size = frame.offload.segmentation.filter(|s| s.kind == SegmentKind::Udp).map(|s| s.size);
                self.receive_datagrams(key, upper, size.map(usize::from))
            }
            Transport::Icmp { .. } if is_echo_request(ip) => {
                let upper = frame.bytes().get(ip.transport_offset..ip.end).ok_or(EdgeDrop::Malformed)?;
                self.receive_message(key, Messages::Echo, upper)
            }
            Transport::Icmp { .. } | Transport::Sctp { .. } | Transport::Opaque => {
                self.refuse(frame, ip, IcmpError::ProtocolUnreachable);
                Err(EdgeDrop::NotCarried)
            }
        }
    }

    /// Whether pods may send there: to whom they talk already, and to what is open.
    pub(super) fn permits(&self, key: &FlowKey) -> bool {
        self.is_open(key.destination) || self.flows.slot_of(key).is_some()
    }

    /// Whether pods may begin to talk to that address. Our own is the machine's loopback.
    pub(super) fn is_open(&self, to: IpAddr) -> bool {
        let reach = &self.config.reach;
        if self.link.is_own(to) { reach.is_open(Opening::MachineLoopback) } else { reach.permits(to) }
    }

    /// Where a socket is to go for it.
    pub(super) fn target(&self, key: &FlowKey) -> SocketAddr {
        let loopback = || match key.destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let address = if self.link.is_own(key.destination) { loopback() } else { key.destination };
        SocketAddr::new(address, key.destination_port)
    }

    /// Tells the sender of a packet that it goes no further. Errors are not told of errors, nor of what is not the first
    /// of its fragments (RFC 1122 section 3.2.2).
    fn refuse(&mut self, frame: &Frame, ip: &Ip, error: IcmpError) {
        let later = ip.fragment.is_some_and(|fragment| fragment.offset > 0);
        let silent = matches!(ip.transport, Transport::Icmp { .. }) && !is_echo_request(ip);
        let upper = frame.bytes().get(ip.transport_offset..ip.end).unwrap_or_default();
        let Some(quote) = upper.first_chunk::<8>().filter(|_| !later && !silent) else { return };
        self.link.send_error(self.now, &ip.flow_key(), *quote, error, &mut self.counters);
    }
}

fn is_echo_request(ip: &Ip) -> bool {
    let request = if ip.source.is_ipv4() { ECHO_REQUEST } else { ECHO_REQUEST_V6 };
    matches!(ip.transport, Transport::Icmp { kind, code: 0, id: Some(_) } if kind == request)
}

/// ICMP errors, of either family: unreachable, time exceeded, parameter problem, too big.
fn is_error(ip: &Ip) -> bool {
    let Transport::Icmp { kind, .. } = ip.transport else { return false };
    if ip.source.is_ipv4() { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 }
}
