//! What the table needs to know of a fragment.

use crate::packet::{Content, Packet, ipv6};
use crate::tuple::{Address, protocol};

use super::Refusal;

/// Which datagram a fragment is of. In IPv6 the protocol does not belong to it, and is 0 (RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key<A> {
    /// Source address, before translation.
    pub source: A,
    /// Destination address, before translation.
    pub destination: A,
    /// IPv4's identification, or that of the fragment header.
    pub identification: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// The zone, as in [`crate::tuple::Tuple`].
    pub zone: u16,
}

/// A fragment: its datagram, and which octets of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part<A> {
    /// The datagram.
    pub key: Key<A>,
    /// Where it begins.
    pub(super) start: u16,
    /// Where it ends; `Err` if that is out of bounds, or the fragment breaks another rule by itself.
    pub(super) end: Result<u16, Refusal>,
    pub(super) more: bool,
    /// Octets of the packet, with its headers.
    pub(super) octets: usize,
}

impl<A: Address> Part<A> {
    /// The fragment that `packet` is, which was read from `bytes`. `None` for whole packets and for the other family.
    pub fn of(bytes: &[u8], packet: &Packet, zone: u16) -> Option<Self> {
        let layout = &packet.layout;
        let fragment = layout.fragment?;
        let protocol = if A::BITS == 32 { layout.protocol } else { 0 };
        let key = Key {
            source: A::from_ip(layout.source)?,
            destination: A::from_ip(layout.destination)?,
            identification: fragment.identification,
            protocol,
            zone,
        };
        // Behind the fragment header further extension headers may follow, which are in fragments too.
        let from = if A::BITS == 32 { layout.upper } else { ipv6::fragmentable(bytes, layout)? };
        let length = layout.end.checked_sub(from)?;
        Some(Self {
            key,
            start: fragment.offset,
            end: end(packet, A::BITS == 32, length),
            more: fragment.more,
            octets: layout.end.checked_sub(layout.header)?,
        })
    }

    /// Whether it is the first of its datagram, which has the ports.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.start == 0
    }
}

/// Where a fragment of that length ends.
fn end(packet: &Packet, v4: bool, length: usize) -> Result<u16, Refusal> {
    let layout = &packet.layout;
    let (offset, more) = layout.fragment.map_or((0, false), |fragment| (fragment.offset, fragment.more));
    // All but the last are cut at a multiple of 8 octets, and none is empty.
    if length == 0 || (more && !length.is_multiple_of(8)) {
        return Err(Refusal::Length);
    }
    // In IPv4 the header counts as well (RFC 791 section 3.1).
    let headers = if v4 { layout.upper - layout.header } else { 0 };
    let end = usize::from(offset) + length;
    if end + headers > usize::from(u16::MAX) {
        return Err(Refusal::Length);
    }
    let upper = layout.end - layout.upper;
    let least = match layout.protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        _ => 8,
    };
    let is_tiny = match packet.content {
        // A second fragment here could overwrite flags that were judged in the first (RFC 3128).
        Content::Rest => v4 && layout.protocol == protocol::TCP && offset == 8,
        // The first fragment holds all headers (RFC 7112).
        Content::Ports { .. } => !v4 && upper < least,
        Content::Query(_) | Content::Error(_) | Content::Control | Content::Opaque => false,
    };
    if is_tiny {
        return Err(Refusal::Tiny);
    }
    u16::try_from(end).map_err(|_| Refusal::Length)
}
