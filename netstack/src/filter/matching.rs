//! Whether a frame matches: the octets are read where libpcap's compiled filters read them, in the same order.
//!
//! `None` everywhere means that the frame ends before an octet that has to be read; the whole filter does not match then.

use super::{Carrier, Direction, Expression, Families, Question, Test};
use crate::addr::{IpNet, MacAddr};
use crate::parse::ethertype;

/// Tags of customers (802.1Q) and of providers (802.1ad, and the one in use before it).
const TAGS: [u16; 3] = [ethertype::VLAN, 0x88a8, 0x9100];
const VLAN_ID: u16 = 0x0fff;

/// Fields of an IPv4 header.
const V4_FRAGMENT: usize = 6;
const V4_PROTOCOL: usize = 9;
const V4_FRAGMENT_OFFSET: u16 = 0x1fff;
/// Fields of an IPv6 header, and its length.
const V6_NEXT_HEADER: usize = 6;
const V6_HEADER: usize = 40;
/// The next header value of an IPv6 fragment header.
const V6_FRAGMENT: u8 = 44;

impl Expression {
    pub(super) fn holds(&self, frame: &[u8]) -> Option<bool> {
        Some(match self {
            Self::Test(test) => test.holds(frame)?,
            Self::Not(inner) => !inner.holds(frame)?,
            Self::And(both) => both.0.holds(frame)? && both.1.holds(frame)?,
            Self::Or(either) => either.0.holds(frame)? || either.1.holds(frame)?,
        })
    }
}

impl Test {
    fn holds(&self, frame: &[u8]) -> Option<bool> {
        let payload = self.payload;
        let is = |wanted: u16| Some(word(frame, payload - 2)? == wanted);
        Some(match &self.what {
            Question::EtherType(wanted) => is(*wanted)?,
            Question::Vlan(wanted) => {
                TAGS.contains(&word(frame, payload - 2)?)
                    && match wanted {
                        Some(id) => word(frame, payload)? & VLAN_ID == *id,
                        None => true,
                    }
            }
            Question::Station(mac, direction) => direction.of([6, 0], |at| station(frame, at, *mac))?,
            Question::Address(net, direction, carriers) => {
                for Carrier { ethertype, addresses } in *carriers {
                    if is(*ethertype)? && direction.of(*addresses, |at| inside(frame, payload + at, net))? {
                        return Some(true);
                    }
                }
                false
            }
            Question::Protocol(number, families) => protocol(frame, payload, *number, *families)?,
            Question::Ports(range, direction, protocols) => {
                let Some(transport) = transport(frame, payload, protocols)? else { return Some(false) };
                direction.of([0, 2], |at| {
                    let port = word(frame, transport + at)?;
                    Some(range.0 <= port && port <= range.1)
                })?
            }
        })
    }
}

impl Direction {
    /// Asks about the source or the destination, or about one after the other.
    fn of(self, [source, destination]: [usize; 2], ask: impl Fn(usize) -> Option<bool>) -> Option<bool> {
        Some(match self {
            Self::Source => ask(source)?,
            Self::Destination => ask(destination)?,
            Self::Either => ask(source)? || ask(destination)?,
            Self::Both => ask(source)? && ask(destination)?,
        })
    }
}

/// Whether the MAC address stands at `at`. Its later octets are looked at first.
fn station(frame: &[u8], at: usize, mac: MacAddr) -> Option<bool> {
    let [first @ .., c, d, e, f] = mac.0;
    Some(frame.get(at + 2..at + 6)? == [c, d, e, f] && frame.get(at..at + 2)? == first)
}

/// Whether an address inside `net` stands at `at`, 32 bits at a time.
fn inside(frame: &[u8], at: usize, net: &IpNet) -> Option<bool> {
    match net {
        IpNet::V4(net) => same(frame, at, &net.netmask().octets(), &net.network().octets()),
        IpNet::V6(net) => same(frame, at, &net.netmask().octets(), &net.network().octets()),
    }
}

/// Whether what stands at `at`, under the mask, is `wanted`. What is masked out entirely is not read.
fn same(frame: &[u8], at: usize, mask: &[u8], wanted: &[u8]) -> Option<bool> {
    for part in (0..mask.len()).step_by(4) {
        let mask = long(mask, part)?;
        if mask != 0 && long(frame, at + part)? & mask != long(wanted, part)? {
            return Some(false);
        }
    }
    Some(true)
}

fn protocol(frame: &[u8], payload: usize, number: u8, families: Families) -> Option<bool> {
    let ethertype = word(frame, payload - 2)?;
    if families.v4 && ethertype == ethertype::IPV4 {
        return Some(octet(frame, payload + V4_PROTOCOL)? == number);
    }
    if families.v6 && ethertype == ethertype::IPV6 {
        let next = octet(frame, payload + V6_NEXT_HEADER)?;
        return Some(next == number || (next == V6_FRAGMENT && octet(frame, payload + V6_HEADER)? == number));
    }
    Some(false)
}

/// Where the header of one of these protocols begins, if the packet has one.
fn transport(frame: &[u8], payload: usize, protocols: &[u8]) -> Option<Option<usize>> {
    Some(match word(frame, payload - 2)? {
        ethertype::IPV6 if protocols.contains(&octet(frame, payload + V6_NEXT_HEADER)?) => {
            Some(payload + V6_HEADER)
        }
        ethertype::IPV4
            if protocols.contains(&octet(frame, payload + V4_PROTOCOL)?)
                && word(frame, payload + V4_FRAGMENT)? & V4_FRAGMENT_OFFSET == 0 =>
        {
            Some(payload + usize::from(octet(frame, payload)? & 0xf) * 4)
        }
        _ => None,
    })
}

fn octet(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn long(frame: &[u8], at: usize) -> Option<u32> {
    frame.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}
