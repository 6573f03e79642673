//! ICMP (RFC 792, RFC 1812 section 4.3) and ICMPv6 (RFC 4443): echo replies and errors.

use core::net::IpAddr;

use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4ParamProblem, Icmpv4TimeExceeded, Icmpv6DstUnreachable,
    Icmpv6Message, Icmpv6ParamProblem, Icmpv6TimeExceeded, IpProtocol,
};

use super::{HOP_LIMIT, Header, IPV4_HEADER, IPV6_HEADER, class_and_id, fill_icmp_checksum, packet};
use crate::addr::MacAddr;
use crate::frame::{Frame, FramePool};
use crate::parse::{Ip, Link, Transport, protocol_named_at};

/// Octets in front of an error's quote, and of an echo's data.
const ICMP_HEADER: usize = 8;
/// The longest error, IP header included: RFC 1812 section 4.3.2.3, and RFC 4443 section 2.4(c).
const MAX_ERROR_V4: usize = 576;
const MAX_ERROR_V6: usize = 1280;
/// Precedence 6, internetwork control (RFC 1812 section 4.3.2.5), as Linux sends it.
const ERROR_TOS: u8 = 0xc0;

/// What an ICMP error says, in words of both families.
///
/// | | ICMP type/code (RFC 792, 1812) | ICMPv6 type/code (RFC 4443) |
/// |-|-|-|
/// | `TtlExceeded` | 11/0 TTL exceeded in transit | 3/0 hop limit exceeded |
/// | `ReassemblyTimeout` | 11/1 | 3/1 |
/// | `NoRoute` | 3/0 network unreachable | 1/0 no route to destination |
/// | `RouteUnreachable` | 3/1 host unreachable | 1/0 no route to destination |
/// | `AddressUnreachable` | 3/1 host unreachable | 1/3 address unreachable |
/// | `PortUnreachable` | 3/3 | 1/4 |
/// | `ProtocolUnreachable` | 3/2 | 4/1 unrecognized next header, with a pointer to its name |
/// | `AdminProhibited` | 3/13 communication administratively prohibited | 1/1 |
/// | `SourceRouteFailed` | 3/5 | 1/0 (IPv6 has no such route here) |
/// | `BeyondScope` | 3/1 host unreachable (IPv4 has no scopes) | 1/2 |
/// | `PacketTooBig` | 3/4 fragmentation needed, with the MTU (RFC 1191) | 2/0, with the MTU |
/// | `ParameterProblem` | 12/0, pointer in one octet | 4/0 erroneous header field, pointer in four |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IcmpError {
    /// TTL or hop limit ran out on the way.
    TtlExceeded,
    /// Not all fragments came in time, but the first one did.
    ReassemblyTimeout,
    /// No route to the destination.
    NoRoute,
    /// The route says unreachable.
    RouteUnreachable,
    /// The destination, or the next router, did not answer on its link.
    AddressUnreachable,
    /// Nobody listens on this L4 port.
    PortUnreachable,
    /// This upper layer is not spoken here.
    ProtocolUnreachable,
    /// Forbidden by configuration.
    AdminProhibited,
    /// The packet asks for source routing.
    SourceRouteFailed,
    /// The source address is not valid beyond the link the packet came from.
    BeyondScope,
    /// Does not fit the next link and must not be fragmented here.
    PacketTooBig {
        /// The next link's MTU, in octets.
        mtu: u16,
    },
    /// A header field is wrong.
    ParameterProblem {
        /// Where, in octets from the start of the IP header.
        pointer: u32,
    },
}

impl IcmpError {
    /// Type, code, and what stands in the four octets before the quote.
    fn v4(self) -> (Icmpv4Message, u8, u32) {
        use Icmpv4DstUnreachable as Unreachable;
        let unreachable = |code: Unreachable| (Icmpv4Message::DstUnreachable, code.into(), 0);
        match self {
            Self::TtlExceeded => (Icmpv4Message::TimeExceeded, Icmpv4TimeExceeded::TtlExpired.into(), 0),
            Self::ReassemblyTimeout => {
                (Icmpv4Message::TimeExceeded, Icmpv4TimeExceeded::FragExpired.into(), 0)
            }
            Self::NoRoute => unreachable(Unreachable::NetUnreachable),
            Self::RouteUnreachable | Self::AddressUnreachable | Self::BeyondScope => {
                unreachable(Unreachable::HostUnreachable)
            }
            Self::PortUnreachable => unreachable(Unreachable::PortUnreachable),
            Self::ProtocolUnreachable => unreachable(Unreachable::ProtoUnreachable),
            Self::AdminProhibited => unreachable(Unreachable::CommProhibited),
            Self::SourceRouteFailed => unreachable(Unreachable::SrcRouteFailed),
            Self::PacketTooBig { mtu } => {
                (Icmpv4Message::DstUnreachable, Unreachable::FragRequired.into(), u32::from(mtu))
            }
            Self::ParameterProblem { pointer } => {
                let pointer = u8::try_from(pointer).unwrap_or(u8::MAX);
                (Icmpv4Message::ParamProblem, Icmpv4ParamProblem::AtPointer.into(), u32::from(pointer) << 24)
            }
        }
    }

    /// As [`Self::v4`]; `protocol_at` is where the packet names its upper layer.
    fn v6(self, protocol_at: usize) -> (Icmpv6Message, u8, u32) {
        use Icmpv6DstUnreachable as Unreachable;
        let unreachable = |code: Unreachable| (Icmpv6Message::DstUnreachable, code.into(), 0);
        match self {
            Self::TtlExceeded => {
                (Icmpv6Message::TimeExceeded, Icmpv6TimeExceeded::HopLimitExceeded.into(), 0)
            }
            Self::ReassemblyTimeout => {
                (Icmpv6Message::TimeExceeded, Icmpv6TimeExceeded::FragReassemExceeded.into(), 0)
            }
            Self::NoRoute | Self::RouteUnreachable | Self::SourceRouteFailed => {
                unreachable(Unreachable::NoRoute)
            }
            Self::AddressUnreachable => unreachable(Unreachable::AddrUnreachable),
            Self::PortUnreachable => unreachable(Unreachable::PortUnreachable),
            Self::ProtocolUnreachable => {
                let pointer = u32::try_from(protocol_at).unwrap_or(0);
                (Icmpv6Message::ParamProblem, Icmpv6ParamProblem::UnrecognizedNxtHdr.into(), pointer)
            }
            Self::AdminProhibited => unreachable(Unreachable::AdminProhibit),
            Self::BeyondScope => unreachable(Unreachable::BeyondScope),
            Self::PacketTooBig { mtu } => (Icmpv6Message::PktTooBig, 0, u32::from(mtu)),
            Self::ParameterProblem { pointer } => {
                (Icmpv6Message::ParamProblem, Icmpv6ParamProblem::ErroneousHdrField.into(), pointer)
            }
        }
    }
}

/// An ICMP or ICMPv6 error about the packet `ip` in `frame`, from `source` to the packet's source. `None` if `source`
/// is not of the packet's family.
///
/// It quotes the packet as it came in and as much of it as fits (576 octets in all for IPv4, 1280 for IPv6). The
/// checksum of a quoted upper layer is as it stands in `frame`: what a sender left to a device
/// ([`Checksum::Partial`](crate::offload::Checksum)) is for the caller to finish first.
/// IPv4 errors take over the identification of the packet they are about, and may be fragmented.
pub fn icmp_error(
    pool: &mut FramePool,
    error: IcmpError,
    frame: &[u8],
    ip: &Ip,
    source: IpAddr,
    source_mac: MacAddr,
    destination_mac: MacAddr,
) -> Option<Frame> {
    let (limit, header_len, kind, code, rest) = match ip.source {
        IpAddr::V4(_) => {
            let (kind, code, rest) = error.v4();
            (MAX_ERROR_V4, IPV4_HEADER, u8::from(kind), code, rest)
        }
        IpAddr::V6(_) => {
            let (kind, code, rest) = error.v6(protocol_named_at(frame, ip));
            (MAX_ERROR_V6, IPV6_HEADER, u8::from(kind), code, rest)
        }
    };
    let quote = frame.get(ip.offset..ip.end)?;
    let quote = &quote[..quote.len().min(limit - header_len - ICMP_HEADER)];
    let header = match ip.source {
        IpAddr::V4(_) => Header {
            source,
            destination: ip.source,
            protocol: IpProtocol::Icmp,
            hop_limit: HOP_LIMIT,
            class: ERROR_TOS,
            id: Some(class_and_id(frame, ip).1),
        },
        IpAddr::V6(_) => Header {
            source,
            destination: ip.source,
            protocol: IpProtocol::Icmpv6,
            hop_limit: HOP_LIMIT,
            class: 0,
            id: None,
        },
    };
    let (mut made, at) = packet(pool, source_mac, destination_mac, &header, ICMP_HEADER + quote.len())?;
    let message = &mut made.bytes_mut()[at..];
    message[..2].copy_from_slice(&[kind, code]);
    message[4..8].copy_from_slice(&rest.to_be_bytes());
    message[ICMP_HEADER..].copy_from_slice(quote);
    fill_icmp_checksum(&mut made, at, &header);
    Some(made)
}

/// The answer to an echo request: its data, its addresses exchanged, its type of service (RFC 1349 section 5.1).
/// `None` if the packet is not a whole echo request from and to unicast addresses.
///
/// IPv4 options and IPv6 extension headers are not sent back. The checksum is computed anew, so whoever wants a wrong
/// one ignored verifies the request before; one that was left to a device comes out right. Over IPv4 the reply may be
/// fragmented, and takes over the request's identification (or its sequence number, where that is 0), which its sender
/// does not repeat within a datagram's lifetime either.
pub fn echo_reply(pool: &mut FramePool, request: &[u8], link: &Link, ip: &Ip) -> Option<Frame> {
    let Transport::Icmp { kind, code: 0, id: Some(_) } = ip.transport else { return None };
    let unicast = !link.source.is_multicast() && !link.destination.is_multicast();
    if ip.fragment.is_some() || !unicast || ip.source.is_unspecified() || ip.destination.is_multicast() {
        return None;
    }
    let message = request.get(ip.transport_offset..ip.end)?;
    let [_, _, _, _, _, _, s0, s1] = *message.first_chunk::<ICMP_HEADER>()?;
    let (class, request_id) = class_and_id(request, ip);
    let (reply_kind, id) = match ip.source {
        IpAddr::V4(_) if kind == u8::from(Icmpv4Message::EchoRequest) => {
            let id = if request_id == 0 { u16::from_be_bytes([s0, s1]) } else { request_id };
            (u8::from(Icmpv4Message::EchoReply), Some(id))
        }
        IpAddr::V6(_) if kind == u8::from(Icmpv6Message::EchoRequest) => {
            (u8::from(Icmpv6Message::EchoReply), None)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    let header = Header {
        source: ip.destination,
        destination: ip.source,
        protocol: IpProtocol::from(ip.protocol),
        hop_limit: HOP_LIMIT,
        class,
        id,
    };
    let (mut reply, at) = packet(pool, link.destination, link.source, &header, message.len())?;
    reply.bytes_mut()[at..].copy_from_slice(message);
    reply.bytes_mut()[at] = reply_kind;
    fill_icmp_checksum(&mut reply, at, &header);
    Some(reply)
}
