//! ICMP and ICMPv6: echo both ways, errors both ways (RFC 792, RFC 1122 section 3.2.2, RFC 4443).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{IpAddress, IpProtocol, checksum};

use super::event::{HostEvent, IcmpError, Quoted};
use super::link::{DEFAULT_HOP_LIMIT, Link};
use super::{Host, SendError};
use crate::addr::MacAddr;
use crate::frame::Frame;
use crate::neighbor::Discovery;
use crate::parse::{self, Ip, protocol};
use crate::verdict::DropReason;

/// Octets of an ICMP header, or of an echo header.
const HEADER: usize = 8;
/// The longest ICMP error over IPv4 (RFC 1812 section 4.3.2.3).
const ERROR_V4: usize = 576;
/// The longest ICMPv6 error (RFC 4443 section 2.4 c).
const ERROR_V6: usize = 1280;
/// ICMP errors in a burst, and the time one of them costs: 1000 a second (RFC 1812 section 4.3.2.8, RFC 4443 section
/// 2.4 f ask for a limit; the figures are those of Linux).
const ERROR_BURST: u32 = 50;
const ERROR_COST: Duration = Duration::from_millis(1);

/// ICMP types.
mod kind {
    pub(super) const V4_ECHO_REPLY: u8 = 0;
    pub(super) const V4_UNREACHABLE: u8 = 3;
    pub(super) const V4_ECHO_REQUEST: u8 = 8;
    pub(super) const V4_TIME_EXCEEDED: u8 = 11;
    pub(super) const V4_PARAMETER_PROBLEM: u8 = 12;
    pub(super) const V6_UNREACHABLE: u8 = 1;
    pub(super) const V6_PACKET_TOO_BIG: u8 = 2;
    pub(super) const V6_TIME_EXCEEDED: u8 = 3;
    pub(super) const V6_PARAMETER_PROBLEM: u8 = 4;
    pub(super) const V6_ECHO_REQUEST: u8 = 128;
    pub(super) const V6_ECHO_REPLY: u8 = 129;
}

/// Why a packet for us cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    Port,
    Protocol,
}

/// Tokens for ICMP errors: a bucket kept as the time at which it would be full.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorLimit {
    full_at: Duration,
}

impl ErrorLimit {
    fn take(&mut self, now: Duration) -> bool {
        let full_at = self.full_at.max(now) + ERROR_COST;
        let allowed = full_at - now <= ERROR_COST * ERROR_BURST;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

impl Host {
    /// Sends an echo request; the answer is a [`HostEvent::EchoReply`]. Uses the hop limit of [`Host::set_hop_limit`].
    pub fn ping(
        &mut self,
        now: Duration,
        destination: IpAddr,
        id: u16,
        sequence: u16,
        payload: &[u8],
    ) -> Result<(), SendError> {
        self.link.now = now;
        let source = self.link.source_for(destination).ok_or(SendError::NoRoute)?;
        if !self.link.has_route(destination) {
            return Err(SendError::NoRoute);
        }
        let (header, request) = match destination {
            IpAddr::V4(_) => (20, kind::V4_ECHO_REQUEST),
            IpAddr::V6(_) => (40, kind::V6_ECHO_REQUEST),
        };
        let most = self.link.path_mtu(destination) - header - HEADER;
        if payload.len() > most {
            return Err(SendError::MessageTooLong { most });
        }
        let [a, b] = id.to_be_bytes();
        let [c, d] = sequence.to_be_bytes();
        let hop_limit = self.link.hop_limit;
        let head = [request, 0, 0, 0, a, b, c, d];
        let frame = self.link.icmp_packet(source, destination, head, payload, hop_limit);
        self.link.send(frame, destination);
        Ok(())
    }

    /// Takes in an ICMP message to an address of ours, or a neighbour discovery message to a group of ours, from
    /// `station`.
    pub(super) fn handle_icmp(&mut self, frame: &Frame, station: MacAddr, ip: &Ip) -> Result<(), DropReason> {
        if let Some(message) = parse::neighbor_discovery(frame.bytes(), ip)? {
            // A host with addresses from its configuration has no use for router discovery and redirects.
            let message = Discovery::from_ndisc(ip.source, &message).ok_or(DropReason::NoListener)?;
            self.link.discover(message, station);
            return Ok(());
        }
        let v4 = ip.source.is_ipv4();
        let truncated = if v4 { DropReason::IcmpTruncated } else { DropReason::Icmpv6Truncated };
        let message = &frame.bytes()[ip.transport_offset..ip.end];
        let [kind, code, _, _, a, b, c, d, rest @ ..] = message else { return Err(truncated) };
        let word = [*a, *b, *c, *d];
        match (v4, *kind) {
            _ if !self.link.is_ours(ip.destination) => return Err(DropReason::NoListener),
            (true, kind::V4_ECHO_REQUEST) => self.link.answer(ip, kind::V4_ECHO_REPLY, word, rest),
            (false, kind::V6_ECHO_REQUEST) => self.link.answer(ip, kind::V6_ECHO_REPLY, word, rest),
            (true, kind::V4_ECHO_REPLY) | (false, kind::V6_ECHO_REPLY) => self.emit(HostEvent::EchoReply {
                from: ip.source,
                id: u16::from_be_bytes([*a, *b]),
                sequence: u16::from_be_bytes([*c, *d]),
                hop_limit: ip.hop_limit,
                payload: Bytes::copy_from_slice(rest),
            }),
            (v4, kind) => {
                let Some(error) = error_of(v4, kind, *code, word) else { return Err(DropReason::NoListener) };
                let quoted = quoted(v4, rest).filter(|(quoted, _)| self.link.is_ours(quoted.source.ip()));
                // An error about somebody else's packet, or one that quotes too little, concerns nobody here.
                let Some((quoted, sequence)) = quoted else { return Err(truncated) };
                self.take_error(ip.source, error, quoted, sequence);
            }
        }
        Ok(())
    }

    fn take_error(&mut self, from: IpAddr, error: IcmpError, quoted: Quoted, sequence: Option<u32>) {
        match (quoted.protocol, error) {
            (protocol::TCP, _) => self.tcp.handle_error(&mut self.link, error, &quoted, sequence),
            (_, IcmpError::PacketTooBig { mtu }) if mtu > 0 => {
                self.link.lower_path_mtu(quoted.destination.ip(), mtu as usize);
            }
            (_, _) => {}
        }
        self.emit(HostEvent::IcmpError { from, error, quoted });
    }

    /// Tells the sender that nobody here wants its packet, unless the rules or the rate limit forbid it.
    pub(super) fn refuse(&mut self, frame: &Frame, ip: &Ip, refusal: Refusal) {
        let (kind, code, word) = match (ip.source, refusal) {
            // RFC 1122 section 3.2.2.1.
            (IpAddr::V4(_), Refusal::Port) => (kind::V4_UNREACHABLE, 3, [0; 4]),
            (IpAddr::V4(_), Refusal::Protocol) => (kind::V4_UNREACHABLE, 2, [0; 4]),
            // RFC 4443 section 3.1 and 3.4.
            (IpAddr::V6(_), Refusal::Port) => (kind::V6_UNREACHABLE, 4, [0; 4]),
            (IpAddr::V6(_), Refusal::Protocol) => (kind::V6_PARAMETER_PROBLEM, 1, next_header_at(frame, ip)),
        };
        if !self.error_limit.take(self.link.now) {
            self.link.counters.icmp_limited += 1;
            return;
        }
        let [a, b, c, d] = word;
        let room = if ip.source.is_ipv4() { ERROR_V4 - 20 } else { ERROR_V6 - 40 } - HEADER;
        let quote = &frame.bytes()[ip.offset..ip.end.min(ip.offset + room)];
        let head = [kind, code, 0, 0, a, b, c, d];
        let reply = self.link.icmp_packet(ip.destination, ip.source, head, quote, DEFAULT_HOP_LIMIT);
        self.link.send(reply, ip.source);
    }

    pub(super) fn emit(&mut self, event: HostEvent) {
        if self.events.push(event) {
            self.link.counters.events_lost += 1;
        }
    }
}

impl Link {
    fn answer(&mut self, ip: &Ip, kind: u8, [a, b, c, d]: [u8; 4], payload: &[u8]) {
        let head = [kind, 0, 0, 0, a, b, c, d];
        let reply = self.icmp_packet(ip.destination, ip.source, head, payload, DEFAULT_HOP_LIMIT);
        self.send(reply, ip.source);
    }

    fn icmp_packet(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        head: [u8; HEADER],
        payload: &[u8],
        hop_limit: u8,
    ) -> Frame {
        let protocol = if source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        let (mut frame, at) =
            self.ip_packet(source, destination, protocol, HEADER + payload.len(), hop_limit);
        let message = &mut frame.bytes_mut()[at..];
        message[..HEADER].copy_from_slice(&head);
        message[HEADER..].copy_from_slice(payload);
        let sum = !checksum_of(source, destination, message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

/// The ones' complement sum of an ICMP message, with the pseudo-header where the family has one (RFC 4443 section 2.3).
fn checksum_of(source: IpAddr, destination: IpAddr, message: &[u8]) -> u16 {
    match (source, destination) {
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
            let (source, destination) = (IpAddress::from(source), IpAddress::from(destination));
            let pseudo = checksum::pseudo_header(&source, &destination, IpProtocol::Icmpv6, length);
            checksum::combine(&[pseudo, checksum::data(message)])
        }
        (IpAddr::V4(_) | IpAddr::V6(_), _) => checksum::data(message),
    }
}

/// Whether an ICMP message's checksum is right.
pub(super) fn verify(ip: &Ip, message: &[u8]) -> bool {
    checksum_of(ip.source, ip.destination, message) == !0
}

fn error_of(v4: bool, kind: u8, code: u8, word: [u8; 4]) -> Option<IcmpError> {
    let [_, _, c, d] = word;
    Some(match (v4, kind) {
        (true, kind::V4_UNREACHABLE) if code == 4 => {
            IcmpError::PacketTooBig { mtu: u32::from(u16::from_be_bytes([c, d])) }
        }
        (false, kind::V6_PACKET_TOO_BIG) => IcmpError::PacketTooBig { mtu: u32::from_be_bytes(word) },
        (true, kind::V4_UNREACHABLE) | (false, kind::V6_UNREACHABLE) => IcmpError::Unreachable { code },
        (true, kind::V4_TIME_EXCEEDED) | (false, kind::V6_TIME_EXCEEDED) => IcmpError::TimeExceeded { code },
        (true, kind::V4_PARAMETER_PROBLEM) | (false, kind::V6_PARAMETER_PROBLEM) => {
            IcmpError::ParameterProblem { code }
        }
        (true | false, _) => return None,
    })
}

/// Reads the packet that an error quotes: at least its header and eight octets (RFC 792). Gives the TCP sequence number
/// as well.
fn quoted(v4: bool, packet: &[u8]) -> Option<(Quoted, Option<u32>)> {
    let (source, destination, protocol, rest) = if v4 {
        let header = usize::from(packet.first()? & 0xf) * 4;
        let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        (IpAddr::from(source), IpAddr::from(destination), *packet.get(9)?, packet.get(header.max(20)..)?)
    } else {
        let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
        let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
        (IpAddr::from(source), IpAddr::from(destination), *packet.get(6)?, packet.get(40..)?)
    };
    let [a, b, c, d, e, f, g, h, ..] = *rest else { return None };
    let pair = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let last = (u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]));
    let (ports, echo, sequence) = match protocol {
        protocol::TCP => (pair, None, Some(u32::from_be_bytes([e, f, g, h]))),
        protocol::UDP | protocol::SCTP => (pair, None, None),
        protocol::ICMP | protocol::ICMPV6 => ((0, 0), Some(last), None),
        _ => ((0, 0), None, None),
    };
    let quoted = Quoted {
        protocol,
        source: SocketAddr::new(source, ports.0),
        destination: SocketAddr::new(destination, ports.1),
        echo,
    };
    Some((quoted, sequence))
}

/// Where the field stands that names the upper protocol, from the start of the IPv6 header (RFC 4443 section 3.4).
fn next_header_at(frame: &Frame, ip: &Ip) -> [u8; 4] {
    let bytes = frame.bytes();
    // The fixed header names it, or the extension header that ends where the upper layer begins.
    let (mut field, mut at) = (ip.offset + 6, ip.offset + 40);
    while at < ip.transport_offset {
        let fragment = bytes[field] == 44;
        field = at;
        at += if fragment { 8 } else { (usize::from(bytes[at + 1]) + 1) * 8 };
    }
    u32::try_from(field - ip.offset).unwrap_or(0).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_limited_to_a_burst_and_a_rate() {
        let mut limit = ErrorLimit::default();
        let at = Duration::from_secs(5);
        assert_eq!((0..1000).filter(|_| limit.take(at)).count(), 50);
        let later = at + Duration::from_millis(10);
        assert_eq!((0..1000).filter(|_| limit.take(later)).count(), 10);
    }
}
