//! UDP sockets (RFC 768, RFC 1122 section 4.1).
//!
//! # Theory of operation
//! A socket is bound to an address of ours, or to all of one family, and a port. A datagram that arrives is kept in the
//! frame it came in, so that nothing is copied before the owner asks; each socket holds a bounded number of datagrams and
//! of buffer octets, and what comes beyond is dropped and counted. Datagrams go out whole or not at all: one that does
//! not fit the path MTU is refused.

use alloc::collections::VecDeque;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::Range;
use core::time::Duration;

use smoltcp::wire::{IpAddress, UdpPacket};

use super::config::HostLimits;
use super::event::HostEvent;
use super::icmp::Refusal;
use super::table::{Handle, Table};
use super::{BindError, EPHEMERAL_PORTS, Fate, Host, SendError, ephemeral_port};
use crate::frame::Frame;
use crate::parse::{Ip, protocol};
use crate::seed::{Rng, Seed};
use crate::verdict::DropReason;

const HEADER: usize = 8;

/// Names a UDP socket until it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UdpHandle(Handle);

/// A datagram that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of ours it was sent to.
    pub to: IpAddr,
    /// Octets copied out.
    pub len: usize,
    /// Octets it had; more than `len` if the caller's buffer was too short, and the rest is lost.
    pub full_len: usize,
}

/// Why nothing was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UdpError {
    /// No datagram waits.
    #[error("no datagram waits")]
    WouldBlock,
    /// The socket was closed.
    #[error("the socket was closed")]
    Stale,
}

#[derive(Debug)]
struct Received {
    from: SocketAddr,
    to: IpAddr,
    payload: Range<usize>,
    frame: Frame,
}

#[derive(Debug)]
struct Socket {
    queue: VecDeque<Received>,
    bytes: usize,
    /// Whether an event about it waits.
    told: bool,
}

#[derive(Debug)]
pub(super) struct Udp {
    sockets: Table<(IpAddr, u16), Socket>,
    told: VecDeque<Handle>,
    datagrams: usize,
    bytes: usize,
    rng: Rng,
}

impl Udp {
    pub(super) fn new(limits: &HostLimits, seed: &Seed) -> Self {
        Self {
            sockets: Table::new(limits.udp_sockets, seed.hasher("host udp")),
            told: VecDeque::with_capacity(limits.udp_sockets as usize),
            datagrams: limits.udp_datagrams,
            bytes: limits.udp_bytes,
            rng: seed.rng("host udp ports"),
        }
    }

    /// A socket that has something to tell.
    pub(super) fn poll_event(&mut self) -> Option<HostEvent> {
        while let Some(handle) = self.told.pop_front() {
            if let Some(socket) = self.sockets.of(handle) {
                socket.told = false;
                return Some(HostEvent::UdpReady(UdpHandle(handle)));
            }
        }
        None
    }

    fn find(&self, destination: IpAddr, l4_port: u16) -> Option<u32> {
        let any = match destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        self.sockets.slot(&(destination, l4_port)).or_else(|| self.sockets.slot(&(any, l4_port)))
    }

    fn free_port(&mut self, address: IpAddr) -> Option<u16> {
        // Any port is as good as another and none is to be foreseen (RFC 6056 section 3.3.1).
        let start = self.rng.below(EPHEMERAL_PORTS);
        (start..start + EPHEMERAL_PORTS)
            .map(ephemeral_port)
            .find(|&l4_port| self.sockets.slot(&(address, l4_port)).is_none())
    }
}

impl Host {
    /// Opens a socket on an address of ours, or on the unspecified address for all of that family. Port 0 asks for a
    /// free one.
    pub fn udp_bind(&mut self, local: SocketAddr) -> Result<UdpHandle, BindError> {
        if !local.ip().is_unspecified() && !self.link.is_ours(local.ip()) {
            return Err(BindError::NotOurs);
        }
        let l4_port = match local.port() {
            0 => self.udp.free_port(local.ip()).ok_or(BindError::InUse)?,
            chosen => chosen,
        };
        let key = (local.ip(), l4_port);
        if self.udp.sockets.slot(&key).is_some() {
            return Err(BindError::InUse);
        }
        let socket = Socket { queue: VecDeque::new(), bytes: 0, told: false };
        self.udp.sockets.insert(key, socket).map(UdpHandle).map_err(|_| BindError::TableFull)
    }

    /// Where a socket is bound.
    pub fn udp_local(&self, socket: UdpHandle) -> Option<SocketAddr> {
        let slot = self.udp.sockets.live(socket.0)?;
        self.udp.sockets.at(slot).map(|(&(address, l4_port), _)| SocketAddr::new(address, l4_port))
    }

    /// Sends a datagram, from the address the socket is bound to or from the one that suits the destination.
    pub fn udp_send_to(
        &mut self,
        now: Duration,
        socket: UdpHandle,
        payload: &[u8],
        destination: SocketAddr,
    ) -> Result<(), SendError> {
        self.link.now = now;
        let local = self.udp_local(socket).ok_or(SendError::Stale)?;
        let remote = destination.ip();
        if destination.port() == 0 || local.is_ipv4() != destination.is_ipv4() {
            return Err(SendError::InvalidDestination);
        }
        let source = match local.ip() {
            any if any.is_unspecified() => self.link.source_for(remote).ok_or(SendError::NoRoute)?,
            bound => bound,
        };
        if !self.link.has_route(remote) {
            return Err(SendError::NoRoute);
        }
        let header = if remote.is_ipv4() { 20 } else { 40 };
        let most = self.link.path_mtu(remote) - header - HEADER;
        if payload.len() > most {
            return Err(SendError::MessageTooLong { most });
        }
        let (length, hop_limit) = (HEADER + payload.len(), self.link.hop_limit);
        let (mut frame, at) = self.link.ip_packet(source, remote, protocol::UDP, length, hop_limit);
        let bytes = &mut frame.bytes_mut()[at..];
        bytes[HEADER..].copy_from_slice(payload);
        let mut datagram = UdpPacket::new_unchecked(bytes);
        datagram.set_src_port(local.port());
        datagram.set_dst_port(destination.port());
        datagram.set_len(u16::try_from(length).unwrap_or(u16::MAX));
        datagram.fill_checksum(&IpAddress::from(source), &IpAddress::from(remote));
        self.link.send(frame, remote);
        Ok(())
    }

    /// Takes the oldest datagram out, as far as it fits `buffer`.
    pub fn udp_recv_from(&mut self, socket: UdpHandle, buffer: &mut [u8]) -> Result<Datagram, UdpError> {
        let socket = self.udp.sockets.of(socket.0).ok_or(UdpError::Stale)?;
        let Received { from, to, payload, frame } = socket.queue.pop_front().ok_or(UdpError::WouldBlock)?;
        socket.bytes -= frame.capacity();
        let bytes = &frame.bytes()[payload];
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        let full_len = bytes.len();
        self.link.pool.recycle(frame);
        Ok(Datagram { from, to, len, full_len })
    }

    /// Datagrams that wait for [`Host::udp_recv_from`].
    pub fn udp_waiting(&self, socket: UdpHandle) -> usize {
        let slot = self.udp.sockets.live(socket.0);
        slot.and_then(|slot| self.udp.sockets.at(slot)).map_or(0, |(_, socket)| socket.queue.len())
    }

    /// Closes a socket; what waits in it is lost.
    pub fn udp_close(&mut self, handle: UdpHandle) {
        let Some(slot) = self.udp.sockets.live(handle.0) else { return };
        if let Some((_, socket)) = self.udp.sockets.remove_at(slot) {
            socket.queue.into_iter().for_each(|received| self.link.pool.recycle(received.frame));
            self.udp.told.retain(|&told| told != handle.0);
        }
    }

    /// Takes in a datagram to an address of ours or to a broadcast address. Keeps the frame if somebody wants it.
    pub(super) fn handle_udp(
        &mut self,
        frame: Frame,
        ip: &Ip,
        (source_port, destination_port): (u16, u16),
        unicast: bool,
    ) -> Fate {
        let Some(slot) = self.udp.find(ip.destination, destination_port) else {
            if unicast {
                self.refuse(&frame, ip, Refusal::Port);
            }
            return Fate::Dropped(DropReason::NoListener, frame);
        };
        let (datagrams, bytes) = (self.udp.datagrams, self.udp.bytes);
        let handle = self.udp.sockets.handle(slot);
        let Some((_, socket)) = self.udp.sockets.at_mut(slot) else {
            return Fate::Dropped(DropReason::NoListener, frame);
        };
        if socket.queue.len() >= datagrams || socket.bytes + frame.capacity() > bytes {
            return Fate::UdpQueueFull(frame);
        }
        let datagram = &frame.bytes()[ip.transport_offset..ip.end];
        let length = usize::from(UdpPacket::new_unchecked(datagram).len()).clamp(HEADER, datagram.len());
        let payload = ip.transport_offset + HEADER..ip.transport_offset + length;
        socket.bytes += frame.capacity();
        let from = SocketAddr::new(ip.source, source_port);
        socket.queue.push_back(Received { from, to: ip.destination, payload, frame });
        if !core::mem::replace(&mut socket.told, true) {
            self.udp.told.push_back(handle);
        }
        Fate::Kept
    }
}
