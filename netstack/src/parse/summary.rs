//! What a frame is, in as many words as fit a line: for logs of laboratories and for captures that are read as they run.

use core::fmt;
use core::net::IpAddr;

use super::{
    Arp, Ip, Link, NeighborDiscovery, Network, Transport, link, neighbor_discovery, network, protocol,
};
use crate::verdict::DropReason;

/// The line. `{:#}` also shows the MAC addresses of what is not ARP.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    len: usize,
    link: Option<Link>,
    network: Result<Network, DropReason>,
    discovery: Option<NeighborDiscovery>,
}

/// The low eight flags of TCP, from the lowest bit on.
const TCP_FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

impl Summary {
    /// Reads the frame.
    pub fn of(frame: &[u8]) -> Self {
        let read = link(frame);
        let network = read.and_then(|link| network(frame, &link));
        let discovery = match &network {
            Ok(Network::Ip(ip)) => neighbor_discovery(frame, ip).ok().flatten(),
            Ok(Network::Arp(_) | Network::Other) | Err(_) => None,
        };
        Self { len: frame.len(), link: read.ok(), network, discovery }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(link) = self.link else { return write!(f, "no Ethernet header, {} octets", self.len) };
        if let Some(tag) = link.tag {
            write!(f, "VLAN {}, ", tag & super::VLAN_ID)?;
        }
        match self.network {
            // ARP says itself whose addresses are told.
            Ok(Network::Arp(arp)) => return write!(f, "{arp}"),
            Ok(Network::Ip(_)) if !f.alternate() => {}
            Ok(Network::Ip(_) | Network::Other) | Err(_) => {
                write!(f, "{} > {}, ", link.source, link.destination)?
            }
        }
        match self.network {
            Err(reason) => write!(f, "EtherType {:#06x}, malformed: {reason}", link.ethertype)?,
            Ok(Network::Ip(ip)) => {
                write!(f, "{ip}")?;
                match self.discovery {
                    Some(NeighborDiscovery::Solicit { target, .. }) => write!(f, " who-has {target}")?,
                    Some(NeighborDiscovery::Advert { target, target_link: Some(mac), .. }) => {
                        write!(f, " {target} is-at {mac}")?;
                    }
                    Some(NeighborDiscovery::Advert { target, target_link: None, .. }) => {
                        write!(f, " of {target}")?;
                    }
                    Some(
                        NeighborDiscovery::RouterSolicit
                        | NeighborDiscovery::RouterAdvert
                        | NeighborDiscovery::Redirect,
                    )
                    | None => {}
                }
                return Ok(());
            }
            Ok(Network::Arp(_) | Network::Other) => write!(f, "EtherType {:#06x}", link.ethertype)?,
        }
        write!(f, ", {} octets", self.len)
    }
}

impl fmt::Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            1 => write!(f, "ARP who-has {} tell {}", self.target, self.sender),
            2 => write!(f, "ARP {} is-at {}", self.sender, self.sender_mac),
            other => write!(f, "ARP operation {other}, {} > {}", self.sender, self.target),
        }
    }
}

/// Addresses with ports, the protocol with what matters of it, and the octets that it carries.
impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = match self.transport {
            Transport::Tcp { source_port, destination_port, .. }
            | Transport::Udp { source_port, destination_port }
            | Transport::Sctp { source_port, destination_port } => Some((source_port, destination_port)),
            Transport::Icmp { .. } | Transport::Opaque => None,
        };
        write!(f, "{} > ", End(self.source, ports.map(|(source, _)| source)))?;
        write!(f, "{} ", End(self.destination, ports.map(|(_, destination)| destination)))?;
        let header = match self.transport {
            Transport::Tcp { flags, header_len, .. } => {
                f.write_str("TCP")?;
                for (_, name) in TCP_FLAGS.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0) {
                    write!(f, " {name}")?;
                }
                header_len
            }
            Transport::Udp { .. } => {
                f.write_str("UDP")?;
                8
            }
            Transport::Sctp { .. } => {
                f.write_str("SCTP")?;
                12
            }
            Transport::Icmp { kind, code, id } => {
                match self.source {
                    IpAddr::V4(_) => write!(f, "ICMP {}", Named(kind, code, V4_TYPES, V4_CODES))?,
                    IpAddr::V6(_) => write!(f, "ICMPv6 {}", Named(kind, code, V6_TYPES, V6_CODES))?,
                }
                if let Some(id) = id {
                    write!(f, " id {id}")?;
                }
                8
            }
            Transport::Opaque => {
                match self.protocol {
                    protocol::TCP => f.write_str("TCP")?,
                    protocol::UDP => f.write_str("UDP")?,
                    protocol::SCTP => f.write_str("SCTP")?,
                    protocol::ICMP => f.write_str("ICMP")?,
                    protocol::ICMPV6 => f.write_str("ICMPv6")?,
                    other => write!(f, "protocol {other}")?,
                }
                0
            }
        };
        if let Some(fragment) = self.fragment {
            let last = if fragment.more { "" } else { "last " };
            write!(f, ", {last}fragment at {} of id {}", fragment.offset, fragment.id)?;
        }
        // No discovery message carries data, and their options are not told.
        let discovery =
            matches!((self.transport, self.source), (Transport::Icmp { kind: 133..=137, .. }, IpAddr::V6(_)));
        let carried = self.end.saturating_sub(self.transport_offset + header);
        if discovery { Ok(()) } else { write!(f, ", {carried} octets") }
    }
}

/// An address, and the port if there is one.
struct End(IpAddr, Option<u16>);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(address, None) => write!(f, "{address}"),
            Self(IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
            Self(IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
        }
    }
}

type Types = &'static [(u8, &'static str)];
type Codes = &'static [(u8, u8, &'static str)];

/// Types of ICMP (RFC 792) and of ICMPv6 (RFC 4443, RFC 2710, RFC 3810, RFC 4861) that are met, and the codes that tell
/// more.
const V4_TYPES: Types = &[
    (0, "echo reply"),
    (3, "unreachable"),
    (4, "source quench"),
    (5, "redirect"),
    (8, "echo request"),
    (9, "router advertisement"),
    (10, "router solicitation"),
    (11, "time exceeded"),
    (12, "parameter problem"),
    (13, "timestamp request"),
    (14, "timestamp reply"),
];
const V4_CODES: Codes = &[
    (3, 0, "net unreachable"),
    (3, 1, "host unreachable"),
    (3, 2, "protocol unreachable"),
    (3, 3, "port unreachable"),
    (3, 4, "fragmentation needed"),
    (3, 9, "net prohibited"),
    (3, 10, "host prohibited"),
    (3, 13, "administratively prohibited"),
    (11, 0, "time exceeded in transit"),
    (11, 1, "time exceeded in reassembly"),
];
const V6_TYPES: Types = &[
    (1, "unreachable"),
    (2, "packet too big"),
    (3, "time exceeded"),
    (4, "parameter problem"),
    (128, "echo request"),
    (129, "echo reply"),
    (130, "multicast listener query"),
    (131, "multicast listener report"),
    (132, "multicast listener done"),
    (133, "router solicitation"),
    (134, "router advertisement"),
    (135, "neighbor solicitation"),
    (136, "neighbor advertisement"),
    (137, "redirect"),
    (143, "multicast listener report v2"),
];
const V6_CODES: Codes = &[
    (1, 0, "no route"),
    (1, 1, "administratively prohibited"),
    (1, 3, "address unreachable"),
    (1, 4, "port unreachable"),
    (3, 0, "time exceeded in transit"),
    (3, 1, "time exceeded in reassembly"),
];

/// The name of a type and code, or their numbers.
struct Named(u8, u8, Types, Codes);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, code, types, codes) = *self;
        if let Some((_, _, name)) = codes.iter().find(|(k, c, _)| (*k, *c) == (kind, code)) {
            return f.write_str(name);
        }
        match types.iter().find(|(k, _)| *k == kind) {
            Some((_, name)) if code == 0 => f.write_str(name),
            Some((_, name)) => write!(f, "{name} code {code}"),
            None => write!(f, "type {kind} code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use etherparse::{PacketBuilder, icmpv4, icmpv6};

    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn line(frame: &[u8]) -> String {
        format!("{}", Summary::of(frame))
    }

    fn finish<T>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), T>) -> Vec<u8> {
        let mut frame = Vec::new();
        assert!(write(&mut frame).is_ok());
        frame
    }

    #[test]
    fn frames_in_words() {
        let v4 = || PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let mut address = [0; 16];
        (address[0], address[15]) = (0xfd, 1);
        let v6 = || PacketBuilder::ethernet2(A, B).ipv6(address, address, 64);
        let syn = finish(|out| v4().tcp(40_000, 80, 1, 1024).syn().write(out, &[]));
        assert_eq!(line(&syn), "10.0.0.1:40000 > 10.0.0.2:80 TCP SYN, 0 octets");
        assert_eq!(
            format!("{:#}", Summary::of(&syn)),
            "02:00:00:00:00:01 > 02:00:00:00:00:02, 10.0.0.1:40000 > 10.0.0.2:80 TCP SYN, 0 octets"
        );
        let data = finish(|out| v6().tcp(80, 40_000, 1, 1024).ack(1).psh().write(out, &[0; 7]));
        assert_eq!(line(&data), "[fd00::1]:80 > [fd00::1]:40000 TCP PSH ACK, 7 octets");
        let tagged = PacketBuilder::ethernet2(A, B).single_vlan(5.try_into().unwrap());
        let tagged =
            finish(|out| tagged.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 53).write(out, &[0; 3]));
        assert_eq!(line(&tagged), "VLAN 5, 10.0.0.1:1 > 10.0.0.2:53 UDP, 3 octets");
        let echo = finish(|out| v4().icmpv4_echo_request(7, 1).write(out, &[0; 56]));
        assert_eq!(line(&echo), "10.0.0.1 > 10.0.0.2 ICMP echo request id 7, 56 octets");
        let unreachable = icmpv4::DestUnreachableHeader::Port;
        let unreachable = etherparse::Icmpv4Type::DestinationUnreachable(unreachable);
        let unreachable = finish(|out| v4().icmpv4(unreachable).write(out, &[0; 28]));
        assert_eq!(line(&unreachable), "10.0.0.1 > 10.0.0.2 ICMP port unreachable, 28 octets");
        let exceeded = icmpv6::TimeExceededCode::HopLimitExceeded;
        let exceeded = etherparse::Icmpv6Type::TimeExceeded(exceeded);
        let exceeded = finish(|out| v6().icmpv6(exceeded).write(out, &[0; 48]));
        assert_eq!(line(&exceeded), "fd00::1 > fd00::1 ICMPv6 time exceeded in transit, 48 octets");
        let other = [&A[..], &B, &[0x88, 0xcc], &[0; 50]].concat();
        assert_eq!(line(&other), "02:00:00:00:00:02 > 02:00:00:00:00:01, EtherType 0x88cc, 64 octets");
        let mut broken = echo;
        broken[24] ^= 1;
        assert_eq!(
            line(&broken),
            "02:00:00:00:00:01 > 02:00:00:00:00:02, EtherType 0x0800, malformed: ipv4_checksum, 98 octets"
        );
        assert_eq!(line(&[0; 5]), "no Ethernet header, 5 octets");
    }

    #[test]
    fn resolution_in_words() {
        let arp = |operation: u8| {
            let head = [&[0xff; 6][..], &A, &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]].concat();
            line(&[&head[..], &A, &[10, 0, 0, 1], &B, &[10, 0, 0, 2]].concat())
        };
        assert_eq!(arp(1), "ARP who-has 10.0.0.2 tell 10.0.0.1");
        assert_eq!(arp(2), "ARP 10.0.0.1 is-at 02:00:00:00:00:01");
        assert_eq!(arp(8), "ARP operation 8, 10.0.0.1 > 10.0.0.2");
        let target: [u8; 16] = core::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9).octets();
        let discovery = |kind: u8, flags: u8| {
            let body = [&[flags, 0, 0, 0][..], &target, &[2, 1], &B].concat();
            let body = if kind == 135 { &body[..20] } else { &body };
            let raw =
                etherparse::Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [flags, 0, 0, 0] };
            let builder = PacketBuilder::ethernet2(A, B).ipv6(target, target, 255).icmpv6(raw);
            line(&finish(|out| builder.write(out, &body[4..])))
        };
        assert_eq!(discovery(135, 0), "fd00::9 > fd00::9 ICMPv6 neighbor solicitation who-has fd00::9");
        assert_eq!(
            discovery(136, 0x60),
            "fd00::9 > fd00::9 ICMPv6 neighbor advertisement fd00::9 is-at 02:00:00:00:00:02"
        );
    }
}
