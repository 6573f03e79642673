//! Imagined packets: what `vswitch trace` sends through the switches' own reasoning.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use netstack::addr::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire;

/// A packet put into words: protocol and destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// What it carries.
    pub kind: Kind,
    /// Where it goes.
    pub destination: IpAddr,
}

/// What an imagined packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP SYN to this port.
    Tcp(u16),
    /// A datagram to this port.
    Udp(u16),
    /// An echo request.
    Icmp,
}

/// The words make no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} describes no packet; write 'tcp ADDRESS:PORT', 'udp [ADDRESS]:PORT' or 'icmp ADDRESS'")]
pub struct PacketSpecError(String);

impl FromStr for PacketSpec {
    type Err = PacketSpecError;

    fn from_str(text: &str) -> Result<Self, PacketSpecError> {
        let error = || PacketSpecError(text.to_owned());
        let mut words = text.split_whitespace();
        let (Some(kind), Some(to), None) = (words.next(), words.next(), words.next()) else {
            return Err(error());
        };
        let socket = || to.parse::<SocketAddr>().map_err(|_| error());
        Ok(match kind {
            "tcp" => Self { kind: Kind::Tcp(socket()?.port()), destination: socket()?.ip() },
            "udp" => Self { kind: Kind::Udp(socket()?.port()), destination: socket()?.ip() },
            "icmp" | "ping" => Self { kind: Kind::Icmp, destination: to.parse().map_err(|_| error())? },
            _ => return Err(error()),
        })
    }
}

/// The L4 port that imagined packets come from.
const SOURCE_PORT: u16 = 49_152;
const ETHERNET: usize = 14;

impl PacketSpec {
    /// The frame that a station with these addresses would send; `None` if it has no address of the family.
    pub fn frame(&self, source_mac: MacAddr, gateway_mac: MacAddr, addresses: &[IpAddr]) -> Option<Vec<u8>> {
        let source = addresses.iter().copied().find(|a| a.is_ipv4() == self.destination.is_ipv4())?;
        let (payload, protocol) = self.transport(source);
        let ip = wire::IpRepr::new(source.into(), self.destination.into(), protocol, payload.len(), 64);
        let mut frame = vec![0; ETHERNET + ip.header_len() + payload.len()];
        let mut ethernet = wire::EthernetFrame::new_unchecked(&mut frame[..]);
        wire::EthernetRepr {
            src_addr: wire::EthernetAddress(source_mac.0),
            dst_addr: wire::EthernetAddress(gateway_mac.0),
            ethertype: if source.is_ipv4() {
                wire::EthernetProtocol::Ipv4
            } else {
                wire::EthernetProtocol::Ipv6
            },
        }
        .emit(&mut ethernet);
        ip.emit(&mut frame[ETHERNET..], &ChecksumCapabilities::default());
        frame[ETHERNET + ip.header_len()..].copy_from_slice(&payload);
        Some(frame)
    }

    fn transport(&self, source: IpAddr) -> (Vec<u8>, wire::IpProtocol) {
        let (from, to) = (wire::IpAddress::from(source), wire::IpAddress::from(self.destination));
        let checksums = ChecksumCapabilities::default();
        match self.kind {
            Kind::Tcp(port) => {
                let repr = wire::TcpRepr {
                    src_port: SOURCE_PORT,
                    dst_port: port,
                    control: wire::TcpControl::Syn,
                    seq_number: wire::TcpSeqNumber(1),
                    ack_number: None,
                    window_len: 64_240,
                    window_scale: None,
                    max_seg_size: Some(1460),
                    sack_permitted: false,
                    sack_ranges: [None; 3],
                    timestamp: None,
                    payload: &[],
                };
                let mut bytes = vec![0; repr.buffer_len()];
                repr.emit(&mut wire::TcpPacket::new_unchecked(&mut bytes[..]), &from, &to, &checksums);
                (bytes, wire::IpProtocol::Tcp)
            }
            Kind::Udp(port) => {
                let repr = wire::UdpRepr { src_port: SOURCE_PORT, dst_port: port };
                let mut bytes = vec![0; repr.header_len()];
                let mut packet = wire::UdpPacket::new_unchecked(&mut bytes[..]);
                repr.emit(&mut packet, &from, &to, 0, |_| (), &checksums);
                (bytes, wire::IpProtocol::Udp)
            }
            Kind::Icmp => echo_request(source, self.destination, &checksums),
        }
    }
}

fn echo_request(
    source: IpAddr,
    destination: IpAddr,
    checksums: &ChecksumCapabilities,
) -> (Vec<u8>, wire::IpProtocol) {
    const DATA: &[u8] = b"vswitch trace";
    let v6 = |a: IpAddr| match a {
        IpAddr::V6(a) => a,
        IpAddr::V4(a) => Ipv4Addr::to_ipv6_mapped(&a),
    };
    if destination.is_ipv4() {
        let repr = wire::Icmpv4Repr::EchoRequest { ident: 1, seq_no: 1, data: DATA };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut wire::Icmpv4Packet::new_unchecked(&mut bytes[..]), checksums);
        (bytes, wire::IpProtocol::Icmp)
    } else {
        let repr = wire::Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: DATA };
        let mut bytes = vec![0; repr.buffer_len()];
        let (from, to): (Ipv6Addr, Ipv6Addr) = (v6(source), v6(destination));
        repr.emit(&from, &to, &mut wire::Icmpv6Packet::new_unchecked(&mut bytes[..]), checksums);
        (bytes, wire::IpProtocol::Icmpv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_packets() {
        let spec: PacketSpec = "tcp 10.244.1.2:80".parse().unwrap();
        assert_eq!(spec, PacketSpec { kind: Kind::Tcp(80), destination: "10.244.1.2".parse().unwrap() });
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        for text in [
            "tcp 10.0.0.9:80",
            "udp 10.0.0.9:53",
            "icmp 10.0.0.9",
            "tcp [fd00::9]:80",
            "udp [fd00::9]:53",
            "icmp fd00::9",
        ] {
            let spec: PacketSpec = text.parse().unwrap();
            let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            let frame = spec.frame(mac, mac, &addresses).unwrap();
            let link = netstack::parse::link(&frame).unwrap();
            let netstack::parse::Network::Ip(ip) = netstack::parse::network(&frame, &link).unwrap() else {
                panic!()
            };
            assert_eq!(ip.destination, spec.destination);
            assert!(netstack::parse::verify_transport_checksum(&frame, &ip), "{text}");
        }
        for bad in [
            "",
            "tcp",
            "tcp 10.0.0.1",
            "icmp 10.0.0.1:80",
            "sctp 10.0.0.1:80",
            "tcp 10.0.0.1:99999",
            "tcp a b",
        ] {
            assert!(bad.parse::<PacketSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_family_makes_no_packet() {
        let spec: PacketSpec = "icmp fd00::9".parse().unwrap();
        assert_eq!(spec.frame(MacAddr::ZERO, MacAddr::ZERO, &["10.0.0.1".parse().unwrap()]), None);
    }
}
