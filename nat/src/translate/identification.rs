//! IPv4's identification behind a shared address (RFC 6864).
//!
//! The identification tells the fragments of one datagram from those of others with the same source, destination and
//! protocol. Hosts that share an address choose theirs without knowing of each other, so a translator chooses anew for every
//! datagram that is or may yet be fragmented (RFC 6864 section 5.3.1). Others, the *atomic* ones, carry a value without
//! meaning and are left alone.
//!
//! Counters are shared by hash, so that memory does not grow with the destinations. A destination's values begin at a secret
//! place and then only rise; in between other destinations take some. So no value comes back before its counter has given
//! out 65,536.

use alloc::boxed::Box;
use alloc::vec;
use core::hash::BuildHasher;
use core::net::Ipv4Addr;

use foldhash::quality::FixedState;

use super::rewrite::{at, is_header};
use super::{split, update};
use crate::checksum::Delta;
use crate::packet::Packet;

/// Gives out identifications.
#[derive(Clone, Debug)]
pub struct Identifications {
    counters: Box<[u16]>,
    hasher: FixedState,
}

impl Identifications {
    /// With that many counters of two octets each, at least one. `seed` should not be guessable.
    pub fn new(counters: usize, seed: u64) -> Self {
        Self { counters: vec![0; counters.max(1)].into(), hasher: FixedState::with_seed(seed) }
    }

    /// The identification of the next datagram, and of the `count - 1` that follow it when a super-frame is cut into `count`
    /// datagrams. Addresses are those that it leaves with. All fragments of one datagram need the same.
    #[expect(clippy::cast_possible_truncation, reason = "any 16 bits of the hash will do")]
    pub fn next(&mut self, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, count: u16) -> u16 {
        let hash = self.hasher.hash_one((source, destination, protocol));
        let slot = (hash >> 16) % self.counters.len() as u64;
        let counter = &mut self.counters[slot as usize];
        let identification = counter.wrapping_add(hash as u16);
        *counter = counter.wrapping_add(count);
        identification
    }
}

/// Whether the packet is a whole datagram that nobody may fragment. Those of IPv6 are never given another identification.
pub fn is_atomic(bytes: &[u8], packet: &Packet) -> bool {
    let flags = bytes.get(packet.layout.header + 6).copied().unwrap_or(0);
    packet.layout.source.is_ipv6() || (packet.layout.fragment.is_none() && flags & 0x40 != 0)
}

/// Stores another identification into a packet, which atomic ones do not take.
pub fn write(bytes: &mut [u8], packet: &Packet, identification: u16) {
    if is_atomic(bytes, packet) {
        return;
    }
    let Ok((header, _)) = split(bytes, &packet.layout) else { return };
    if !is_header::<Ipv4Addr>(header) {
        return;
    }
    let old = u16::from_be_bytes([header[4], header[5]]);
    header[4..6].copy_from_slice(&identification.to_be_bytes());
    update(header, at::IPV4, |sum| Delta::NONE.replace16(old, identification).apply(sum));
}
