//! Flows by number, and their packets.

use nat::checksum;
use nat::packet::{self, Packet};
use nat::tuple::{Address, Endpoint, Tuple, protocol};

use super::TURN;

/// Inside hosts that the flows are spread over.
const HOSTS: u32 = 1024;
/// Ports of an external address.
pub(super) const PORTS: u32 = 64_512;

/// An address of a network that begins with `network`.
pub(super) fn address<A: Address>(network: [u8; 4], n: u32) -> A {
    let low = u128::from(u32::from_be_bytes(network) + n);
    A::from_bits(if A::BITS == 32 { low } else { 0xfd00 << 112 | low })
}

pub(super) fn port(n: u32) -> u16 {
    u16::try_from(1024 + n % PORTS).expect("1024 and 64,511 are 65,535")
}

/// Numbers of flows in no order, all of them before one comes again, and a turn of them at least.
pub(super) fn shuffled(flows: u32) -> impl Iterator<Item = u32> {
    // A prime, which so has no divisor in common with their number.
    let flow = move |n: u32| u64::from(n) * 2_654_435_761 % u64::from(flows);
    (0..flows.next_multiple_of(TURN)).map(move |n| u32::try_from(flow(n)).expect("below their number"))
}

pub(super) fn external<A: Address>(n: u32) -> A {
    address([192, 0, 2, 0], n)
}

/// The tuple of flow `n` on the inside: hosts in turn, each with ports of its own that lie apart.
pub(super) fn inside<A: Address>(n: u32, protocol: u8) -> Tuple<A> {
    let host = n % HOSTS;
    let source = Endpoint { address: address([10, 0, 0, 0], host), port: port(host * 61 + n / HOSTS * 7919) };
    let destination = Endpoint { address: address([198, 51, 100, 0], n % 199), port: 443 };
    Tuple { source, destination, protocol, zone: 0 }
}

/// What flow `n` leaves with.
pub(super) fn outside<A: Address>(n: u32, protocol: u8) -> Tuple<A> {
    let source = Endpoint { address: external(n / PORTS), port: port(n) };
    Tuple { source, ..inside(n, protocol) }
}

/// A packet with a tuple. UDP has no flags.
pub(super) fn packet<A: Address>(
    tuple: &Tuple<A>,
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    data: usize,
) -> Arrived {
    let mut upper = [tuple.source.port.to_be_bytes(), tuple.destination.port.to_be_bytes()].concat();
    let at = if tuple.protocol == protocol::TCP {
        upper.extend([sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat());
        upper.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        16
    } else {
        upper.extend(u16::try_from(8 + data).expect("it fits a packet").to_be_bytes());
        upper.extend([0, 0]);
        6
    };
    upper.resize(upper.len() + data, 7);
    let (source, destination) = (tuple.source.address, tuple.destination.address);
    let length = u16::try_from(upper.len()).expect("it fits a packet");
    let pseudo =
        checksum::pseudo_header(source.into(), destination.into(), tuple.protocol, u32::from(length));
    let sum = !checksum::fold(pseudo + checksum::sum(&upper));
    upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let (source, destination) = (source.to_bits().to_be_bytes(), destination.to_bits().to_be_bytes());
    let header = if A::BITS == 32 {
        let length = (20 + length).to_be_bytes();
        let mut header =
            [&[0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, tuple.protocol, 0, 0], &source[12..]]
                .concat();
        header.extend(&destination[12..]);
        let sum = checksum::checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        header
    } else {
        let length = length.to_be_bytes();
        [&[0x60, 0, 0, 0, length[0], length[1], tuple.protocol, 64], &source[..], &destination].concat()
    };
    Arrived::new([header, upper].concat())
}

/// A packet as it came, and what was read from it.
pub(super) struct Arrived {
    pub(super) bytes: Vec<u8>,
    pub(super) packet: Packet,
}

impl Arrived {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { packet: packet::parse(&bytes).expect("it is well-formed"), bytes }
    }
}
