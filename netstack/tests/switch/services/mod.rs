//! Services in the switch: who answers, what is refused, and what becomes of connections when backends come and go.

mod choosing;
mod going;
mod random;
mod refusing;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{SlicedPacket, TransportSlice};
use lb::{Origin, Policy, Refusal, Service};
use netstack::config::{Config, Limits, ServicesConfig, Snapshot};
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::verdict::{DropReason, Fate, Origin as From};

use crate::lab::{Lab, Out, dropped, entered, left, ports};
use crate::packets::{self, Packet};
use crate::translation::{endpoints, from_outside, one};
use crate::world::{
    FAMILIES, FAR, FREE, Family, GUEST, Host, NODE, OTHER, POD_A, POD_B, UPLINK, VIP, acquainted, ip, net,
    node, route, service, services, via,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn vip(family: Family) -> IpAddr {
    ip(family.of(VIP[0], VIP[1]))
}

fn with_services(of: ServicesConfig) -> Config {
    Config { services: Some(of), ..node(|_| {}) }
}

fn lab(of: impl IntoIterator<Item = Service>) -> Lab {
    acquainted(with_services(services(of)))
}

/// Replaces the services and nothing else, as a controller does: by a change of the registry that is in use.
fn change(lab: &mut Lab, change: impl FnOnce(&mut lb::Registry)) {
    let mut config = lab.switch.snapshot().services().unwrap().config().clone();
    change(&mut config.registry);
    let next = lab.switch.snapshot().with_services(Some(config)).unwrap();
    lab.switch.install(next);
    lab.events();
}

/// Port 80 of the address in two protocols, answered by a pod.
fn web(family: Family, backends: &[(IpAddr, u16)]) -> Vec<Service> {
    [(TCP, "tcp"), (UDP, "udp"), (SCTP, "sctp")]
        .map(|(protocol, name)| service(name, protocol, &[(vip(family), 80)], backends))
        .into()
}

fn pod_b(family: Family) -> (IpAddr, u16) {
    (POD_B.ip(family), 8080)
}

/// The checksum of SCTP, worked out bit by bit (RFC 9260 appendix A).
fn crc32c(octets: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for octet in octets {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

fn sctp(packet: &Packet, (source, destination): (u16, u16), tag: [u8; 4], chunks: &[u8]) -> Vec<u8> {
    let ports = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let mut octets = [&ports[..], &tag, &[0; 4], chunks].concat();
    let checksum = crc32c(&octets);
    octets[8..12].copy_from_slice(&checksum);
    packet.protocol(SCTP, &octets)
}

pub(crate) fn sctp_init(packet: &Packet, source_port: u16, destination_port: u16) -> Vec<u8> {
    let init = [1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9];
    sctp(packet, (source_port, destination_port), [0; 4], &init)
}

/// Flags, sequence number and acknowledgement of a segment.
fn segment(frame: &[u8]) -> (u8, u32, u32) {
    packets::sound(frame);
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).unwrap().transport else {
        panic!("no TCP")
    };
    (tcp.slice()[13], tcp.sequence_number(), tcp.acknowledgment_number())
}

type Make = fn(&Packet, u16, u16) -> Vec<u8>;

/// What opens a connection, and what answers it.
const OPENERS: [(Make, Make); 2] = [
    (|p, from, to| p.udp(from, to, b"question"), |p, from, to| p.udp(from, to, b"answer")),
    (|p, from, to| p.tcp_syn(from, to), |p, from, to| p.tcp_syn_ack(from, to, 1001)),
];

fn connections(lab: &Lab) -> usize {
    lab.switch.connection_entries(lab.now).count()
}

/// What is told: that nobody listens, in the words of the packet's protocol.
fn told(lab: &mut Lab, host: &Host, family: Family, frame: &[u8]) {
    let out = one(lab.send(host.port, frame));
    assert_eq!(out.port, host.port);
    if frame[family.of(23, 20)] == TCP {
        let (asked, (flags, sequence, acknowledgement)) = (segment(frame), segment(&out.bytes));
        // RFC 9293 section 3.10.7.1; a client in SYN-SENT takes no reset that does not acknowledge its SYN.
        assert_eq!((flags, sequence, acknowledgement), (RST | ACK, 0, asked.1 + 1));
        let (from, to) = endpoints(frame);
        assert_eq!(endpoints(&out.bytes), (to, from), "from the service's address");
    } else {
        let message = packets::icmp(&out.bytes);
        assert_eq!((message.kind, message.code), family.of((3, 3), (1, 4)));
        assert_eq!(message.body[..20], frame[14..34]);
    }
}

fn questions(packet: &Packet, port: u16) -> Vec<Vec<u8>> {
    vec![packet.tcp_syn(40_000, port), packet.udp(40_000, port, b"x"), sctp_init(packet, 40_000, port)]
}

/// Backends of one pod, told apart by their ports.
fn numbered(family: Family, ports: impl IntoIterator<Item = u16>) -> Vec<(IpAddr, u16)> {
    ports.into_iter().map(|port| (POD_B.ip(family), port)).collect()
}

/// Opens a TCP connection to the service and completes the handshake.
fn establish(lab: &mut Lab, family: Family, port: u16) -> u16 {
    let packet = POD_A.via_router(vip(family));
    let out = one(lab.send(POD_A.port, &packet.tcp_segment(port, 80, SYN, (1000, 0))));
    let backend = endpoints(&out.bytes).1.port();
    let back = POD_B.to(&POD_A, family).tcp_segment(backend, port, SYN | ACK, (9000, 1001));
    assert_eq!(lab.send(POD_B.port, &back).len(), 1);
    assert_eq!(lab.send(POD_A.port, &packet.tcp_segment(port, 80, ACK, (1001, 9001))).len(), 1);
    backend
}

#[test]
fn what_is_wrong_with_services_is_said() {
    let all = |of: &ServicesConfig, config: Config| {
        let errors = Snapshot::compile(Config { services: Some(of.clone()), ..config }, None).unwrap_err();
        errors.to_string()
    };
    let of = services([]);
    let without = all(&of, crate::world::everybody());
    assert_eq!(
        without,
        "services: need connections: add `nat`, with its defaults if nothing else is translated"
    );
    let wrong = ServicesConfig {
        masquerade: Some("nod".into()),
        inside: vec![net("10.0.0.1/24")],
        ranges: vec![net("fd00:96::1/112"), net("0.0.0.0/0")],
        ..of
    };
    let said = all(&wrong, node(|_| {}));
    let expected = [
        "services: masquerade names the pool \"nod\", which is not in `nat` (there: node)",
        "services: inside: 10.0.0.1/24 has bits set behind its length; write 10.0.0.0/24",
        "services: ranges: fd00:96::1/112 has bits set behind its length; write fd00:96::/112",
        "services: ranges: 0.0.0.0/0 is every address there is; name those given to services",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    let good = Snapshot::compile(node(|_| {}), None).unwrap();
    assert_eq!(good.with_services(Some(wrong)).unwrap_err().to_string(), said);
    assert!(!format!("{:?}", services([])).contains("key"));
}

/// Not by the clock but by what is shared: nothing else is looked at, so nothing else can cost.
#[test]
fn other_services_share_everything_else() {
    let mut config = with_services(services([]));
    config.routes.extend((0..1000).map(|n: u32| {
        let [.., high, low] = n.to_be_bytes();
        let target = netstack::config::RouteTarget::Via(vec![via(1, FAR.v4)]);
        route(&format!("172.16.{high}.{low}/32"), target)
    }));
    let first = Snapshot::compile(config, None).unwrap();
    let of = services(web(Family::V4, &[pod_b(Family::V4)]));
    let second = first.with_services(Some(of)).unwrap();
    assert!(second.differs_in_services_alone(&first));
    assert_eq!(second.generation(), first.generation() + 1);
    assert!(std::ptr::eq(first.router(), second.router()));
    assert!(first.ports().zip(second.ports()).all(|(a, b)| std::ptr::eq(a, b)));
    assert_eq!(second.services().unwrap().registry().len(), 3);
    assert!(second.with_services(None).unwrap().services().is_none());
}
