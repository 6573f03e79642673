//! In-process endpoints: a host (a pod, a plain machine) without a kernel, with the same five verbs as a switch.
//!
//! # Theory of operation
//! A [`Host`] has one network interface with a MAC address and some IP addresses. Frames come in through
//! [`Host::handle_frames`] and go out through [`Host::poll_transmit`]; in between it resolves neighbours (ARP, ND), answers
//! echo requests, and carries the traffic of its sockets: TCP by smoltcp, one interface per connection found through a
//! table of ours (`connections`, `flow`), UDP and ping by a little code of its own.
//!
//! The order of a turn is free. What a caller needs to know:
//! - *Time* is a [`Duration`] since an epoch of the caller's choice and enters with every call that can begin something; the
//!   other calls happen at the last time given. Timers are due when [`Host::poll_timeout`] says so.
//! - *Segments are made when there is room for them*: [`Host::poll_transmit`] asks one connection after the other for what
//!   it has to send, so call it until it returns false after anything that may have made work: frames, timers, and the
//!   calls of the sockets.
//! - *Every table and queue is bounded* by [`HostLimits`]; [`HostCounters`] counts what happens at the bounds.
//!
//! # Checksums and super-frames
//! Frames go out with finished checksums ([`Checksum::Complete`]) and one segment each. On frames that come in, a checksum
//! that a device has [verified](Checksum::Verified), or that was never finished because the frame did not leave this
//! machine ([`Checksum::Partial`]), is taken as good; every other one is verified. A TCP super-frame is taken as the one
//! long segment it is; a UDP super-frame, which is several datagrams, is dropped.

mod config;
mod connections;
mod device;
mod event;
mod flow;
mod icmp;
mod lingering;
mod link;
mod parse;
mod resolution;
mod segment;
mod table;
mod tcp;
mod timer;
mod udp;

#[cfg(test)]
mod tests;

pub use config::{
    Congestion, HostConfig, HostConfigError, HostCounters, HostLimits, HostTimers, MAX_MTU, MIN_MTU,
    MIN_MTU_V6,
};
pub use event::{HostEvent, IcmpError, Quoted};
pub use tcp::{ConnectError, TcpError, TcpHandle, TcpListener, TcpState};
pub use udp::{Datagram, UdpError, UdpHandle};

use core::time::Duration;

use ipnet::IpNet;
use smoltcp::wire::{IpAddress, TcpPacket, UdpPacket};

use crate::addr::MacAddr;
use crate::emit;
use crate::frame::{Frame, FrameBatch};
use crate::offload::{Checksum, SegmentKind};
use crate::parse::{Ip, Link as LinkHeader, Network, Transport, protocol};
use crate::seed::Seed;
use crate::verdict::DropReason;
use connections::{Connections, Taken};
use event::Events;
use icmp::{ErrorLimit, Refusal};
use link::Link;
use segment::Segment;
use udp::Udp;

/// Connections woken by one call of [`Host::handle_timeout`]; more are due at once.
const EXPIRED_PER_CALL: usize = 1024;

/// A datagram or echo request was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No address of the destination's family, no gateway, or the destination is this host itself.
    #[error("no way to the destination: no address of its family, or no gateway")]
    NoRoute,
    /// Longer than the path carries in one packet. Nothing is fragmented.
    #[error("the message does not fit one packet: at most {most} octets do")]
    MessageTooLong {
        /// Octets of payload that fit.
        most: usize,
    },
    /// Port 0, or an address of another family than the socket's.
    #[error("not a destination that this socket can send to")]
    InvalidDestination,
    /// The socket was closed.
    #[error("the socket was closed")]
    Stale,
}

/// A socket or listener was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Not an address of this host.
    #[error("not an address of this host")]
    NotOurs,
    /// Port 0 cannot be listened on.
    #[error("port 0 cannot be listened on")]
    InvalidPort,
    /// Another socket has this address and port, or no port is free.
    #[error("the address and port are in use, or no port is free")]
    InUse,
    /// As many as [`HostLimits`] allows.
    #[error("there are as many sockets of this kind as the limits allow")]
    TableFull,
}

/// What became of a frame that entered.
enum Fate {
    /// A socket keeps it.
    Kept,
    Consumed(Frame),
    Dropped(DropReason, Frame),
    Fragment(Frame),
    BacklogFull(Frame),
    TableFull(Frame),
    UdpQueueFull(Frame),
}

/// An endpoint with sockets.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    link: Link,
    tcp: Connections,
    udp: Udp,
    events: Events,
    error_limit: ErrorLimit,
}

impl Host {
    /// A host that has sent and received nothing. The same configuration, seed and calls give the same frames.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: HostConfig, seed: Seed) -> Result<Self, HostConfigError> {
        config.check()?;
        Ok(Self {
            link: Link::new(&config, &seed),
            tcp: Connections::new(&config, &seed),
            udp: Udp::new(&config.limits, &seed),
            events: Events::new(config.limits.events),
            error_limit: ErrorLimit::default(),
            config,
        })
    }

    /// Takes in the frames of a batch and leaves it empty. Work is bounded by the batch.
    pub fn handle_frames(&mut self, now: Duration, batch: &mut FrameBatch) {
        self.link.now = now;
        for frame in batch.drain() {
            self.receive(frame);
        }
    }

    /// Does what time asks for. Work is bounded; what is left is due at once.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.link.now = now;
        self.tcp.expire(now, EXPIRED_PER_CALL);
        while let Some(address) = self.link.poll_failed() {
            self.tcp.neighbor_failed(&mut self.link, address);
            self.emit(HostEvent::NeighborFailed { address });
        }
    }

    /// Adds frames to the batch until it is full or there are none; returns whether the batch holds any.
    pub fn poll_transmit(&mut self, batch: &mut FrameBatch) -> bool {
        loop {
            self.link.drain_into(batch);
            if batch.is_full() || !self.tcp.run(&mut self.link) {
                return !batch.is_empty();
            }
        }
    }

    /// When to call [`Host::handle_timeout`] next, in the epoch of `now`; `None` if only a frame or the owner can make
    /// work.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match (self.tcp.deadline(), self.link.neighbors.next_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next thing worth knowing.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.events.pop().or_else(|| self.tcp.poll_event()).or_else(|| self.udp.poll_event())
    }

    /// The hop limit of what the sockets send from here on (a connection keeps the one it began with); 64 at first.
    /// With it a traceroute can be written.
    ///
    /// # Panics
    /// If it is 0, which no packet may leave with.
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        assert!(hop_limit > 0, "a packet cannot leave with a hop limit of 0");
        self.link.hop_limit = hop_limit;
    }

    /// The host's Ethernet address.
    pub fn mac(&self) -> MacAddr {
        self.link.mac
    }

    /// The host's addresses with their on-link prefixes, its IPv6 link-local address last.
    pub fn addresses(&self) -> &[IpNet] {
        self.link.addresses()
    }

    /// What the host has done so far.
    pub fn counters(&self) -> &HostCounters {
        &self.link.counters
    }

    fn receive(&mut self, frame: Frame) {
        self.link.counters.rx_frames += 1;
        self.link.counters.rx_bytes += frame.len() as u64;
        let fate = self.judge(frame);
        let counters = &mut self.link.counters;
        let (count, frame) = match fate {
            Fate::Kept => {
                counters.consumed += 1;
                return;
            }
            Fate::Consumed(frame) => (&mut counters.consumed, frame),
            Fate::Dropped(reason, frame) => (&mut counters.drops[reason.index()], frame),
            Fate::Fragment(frame) => (&mut counters.fragments, frame),
            Fate::BacklogFull(frame) => (&mut counters.backlog_full, frame),
            Fate::TableFull(frame) => (&mut counters.tcp_table_full, frame),
            Fate::UdpQueueFull(frame) => (&mut counters.udp_queue_full, frame),
        };
        *count += 1;
        self.link.pool.recycle(frame);
    }

    fn judge(&mut self, frame: Frame) -> Fate {
        let (link, network) = match parse::frame(frame.bytes()) {
            Ok(parsed) => parsed,
            Err(reason) => return Fate::Dropped(reason, frame),
        };
        if !link.source.is_valid_source() {
            return Fate::Dropped(DropReason::SourceMacInvalid, frame);
        }
        if !self.link.hears(link.destination) {
            return Fate::Dropped(DropReason::NotForUs, frame);
        }
        match network {
            Network::Arp(arp) => match self.link.handle_arp(&arp, &link) {
                Ok(()) => Fate::Consumed(frame),
                Err(reason) => Fate::Dropped(reason, frame),
            },
            Network::Ip(ip) => self.handle_ip(frame, &link, ip),
            Network::Other => Fate::Dropped(DropReason::NotForUs, frame),
        }
    }

    fn handle_ip(&mut self, mut frame: Frame, link: &LinkHeader, mut ip: Ip) -> Fate {
        let unicast = self.link.is_ours(ip.destination);
        let broadcast = self.link.is_broadcast(ip.destination);
        // A packet to one host in a frame to all is not to be believed (RFC 1122 section 3.3.6).
        let to_one = unicast && link.destination == self.link.mac;
        if !(to_one || broadcast || self.link.hears_group(ip.destination)) {
            return Fate::Dropped(DropReason::NotForUs, frame);
        }
        if !self.may_be_source(&ip) {
            return Fate::Dropped(DropReason::MartianSource, frame);
        }
        if ip.fragment.is_some() {
            return Fate::Fragment(frame);
        }
        let datagrams = frame.offload.segmentation.is_some_and(|s| s.kind == SegmentKind::Udp);
        if datagrams {
            return Fate::Dropped(DropReason::OffloadInvalid, frame);
        }
        if !checksum_is_good(&frame, &ip) {
            return Fate::Dropped(DropReason::TransportChecksum, frame);
        }
        let icmp = if ip.destination.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        match ip.transport {
            Transport::Tcp { source_port, destination_port, flags, .. } if unicast => {
                strip_extensions(&mut frame, &mut ip);
                let segment = Segment { source_port, destination_port, flags };
                let packet = &frame.bytes()[ip.offset..ip.end];
                match self.tcp.handle(&mut self.link, &self.config, &ip, segment, packet) {
                    Taken::Yes => Fate::Consumed(frame),
                    Taken::NoListener => {
                        let reset = emit::tcp_reset(&mut self.link.pool, frame.bytes(), link, &ip);
                        if let Some(reset) = reset {
                            self.link.enqueue(reset);
                        }
                        Fate::Dropped(DropReason::NoListener, frame)
                    }
                    Taken::BacklogFull => Fate::BacklogFull(frame),
                    Taken::TableFull => Fate::TableFull(frame),
                }
            }
            Transport::Udp { source_port, destination_port } if unicast || broadcast => {
                self.handle_udp(frame, &ip, (source_port, destination_port), unicast)
            }
            Transport::Icmp { .. } if ip.protocol == icmp => match self.handle_icmp(&frame, link.source, &ip)
            {
                Ok(()) => Fate::Consumed(frame),
                Err(reason) => Fate::Dropped(reason, frame),
            },
            Transport::Tcp { .. }
            | Transport::Udp { .. }
            | Transport::Icmp { .. }
            | Transport::Sctp { .. }
            | Transport::Opaque => {
                if unicast {
                    self.refuse(&frame, &ip, Refusal::Protocol);
                }
                Fate::Dropped(DropReason::NoListener, frame)
            }
        }
    }

    /// Whether the source may stand in a packet to us. Nobody has no address but a node that asks whether its own is
    /// free (RFC 4861 section 7.1.1).
    fn may_be_source(&self, ip: &Ip) -> bool {
        let source = ip.source;
        let nobody = source.is_unspecified() && (source.is_ipv4() || ip.protocol != protocol::ICMPV6);
        !(nobody
            || source.is_multicast()
            || source.is_loopback()
            || self.link.is_broadcast(source)
            || self.link.is_ours(source))
    }
}

/// Whether the L4 checksum is right or need not be looked at; see the module's documentation.
fn checksum_is_good(frame: &Frame, ip: &Ip) -> bool {
    match frame.offload.checksum {
        Checksum::Verified | Checksum::Partial { .. } => return true,
        Checksum::Complete => {}
    }
    let payload = &frame.bytes()[ip.transport_offset..ip.end];
    let (source, destination) = (IpAddress::from(ip.source), IpAddress::from(ip.destination));
    match ip.transport {
        Transport::Tcp { .. } => TcpPacket::new_unchecked(payload).verify_checksum(&source, &destination),
        Transport::Udp { .. } => {
            let datagram = UdpPacket::new_unchecked(payload);
            // A checksum of zero means none, which IPv6 does not allow (RFC 8200 section 8.1).
            (datagram.checksum() != 0 || ip.source.is_ipv4())
                && datagram.verify_checksum(&source, &destination)
        }
        Transport::Icmp { .. } => icmp::verify(ip, payload),
        Transport::Sctp { .. } | Transport::Opaque => true,
    }
}

/// Moves the fixed IPv6 header next to the upper layer, over the extension headers, which smoltcp's TCP does not follow.
fn strip_extensions(frame: &mut Frame, ip: &mut Ip) {
    const HEADER: usize = 40;
    if ip.source.is_ipv4() || ip.transport_offset == ip.offset + HEADER {
        return;
    }
    let Ok(length) = u16::try_from(ip.end - ip.transport_offset) else { return };
    let offset = ip.transport_offset - HEADER;
    let bytes = frame.bytes_mut();
    bytes.copy_within(ip.offset..ip.offset + HEADER, offset);
    bytes[offset + 4..offset + 6].copy_from_slice(&length.to_be_bytes());
    bytes[offset + 6] = ip.protocol;
    ip.offset = offset;
}

/// The ports given to sockets that ask for none (RFC 6335 section 6): how many, and the one at a place, which may lie
/// beyond the last.
const EPHEMERAL_PORTS: u32 = 16384;

fn ephemeral_port(place: u32) -> u16 {
    u16::try_from(49152 + place % EPHEMERAL_PORTS).unwrap_or(u16::MAX)
}
