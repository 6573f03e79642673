//! What becomes of a connection's packets in one direction.

use super::{ChecksumState, Unfit, crc32c, split, update};
use crate::checksum::Delta;
use crate::packet::{Content, Packet, Query, ipv6};
use crate::tuple::{Address, Endpoint, Tuple, protocol};

/// Where the checksums stand in their headers.
pub(super) mod at {
    pub(crate) const IPV4: usize = 10;
    pub(crate) const TCP: usize = 16;
    pub(crate) const UDP: usize = 6;
    pub(crate) const ICMP: usize = 2;
}

/// The endpoints that packets of one direction leave with, and what that does to their checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrite<A> {
    pub(super) source: Endpoint<A>,
    pub(super) destination: Endpoint<A>,
    /// For checksums that cover the addresses.
    pub(super) addresses: Delta,
    /// For checksums that cover addresses and L4 ports.
    pub(super) all: Delta,
}

impl<A: Address> Rewrite<A> {
    /// Packets that arrive with the tuple `from` are to leave with `to`; of the tuples the endpoints count. The type of an
    /// ICMP query is no identifier and stays.
    pub fn new(from: &Tuple<A>, to: &Tuple<A>) -> Self {
        let addresses = Delta::NONE
            .replace_address(from.source.address.into(), to.source.address.into())
            .replace_address(from.destination.address.into(), to.destination.address.into());
        let all = addresses
            .replace16(from.source.port, to.source.port)
            .replace16(from.destination.port, to.destination.port);
        Self { source: to.source, destination: to.destination, addresses, all }
    }

    /// Where packets come from afterwards.
    #[inline]
    pub fn source(&self) -> Endpoint<A> {
        self.source
    }

    /// Where they go.
    #[inline]
    pub fn destination(&self) -> Endpoint<A> {
        self.destination
    }

    /// Translates a packet that has the tuple the rewrite was made from, and its later fragments. `packet` was read from
    /// `bytes` and describes what they were before.
    ///
    /// Of later fragments the addresses change, and TCP's checksum where it is in one of them because the first is so
    /// small. Of an ICMP error and of other ICMP the outer addresses change.
    ///
    /// # Errors
    /// Why the packet was left as it is.
    #[inline]
    pub fn apply(&self, bytes: &mut [u8], packet: &Packet, state: ChecksumState) -> Result<(), Unfit> {
        let routed = A::BITS == 128 && ipv6::is_routed(bytes, &packet.layout);
        let (header, upper) = split(bytes, &packet.layout)?;
        if !is_header::<A>(header) {
            return Err(Unfit::Layout);
        }
        let rewrite = if routed { &self.routed(packet) } else { self };
        let protocol = packet.layout.protocol;
        // Nearly all packets are of these, so they are asked for before the others.
        if matches!(packet.content, Content::Ports { .. }) && protocol != protocol::SCTP {
            rewrite.write_ports(upper, protocol, state)?;
        } else {
            rewrite.write_other(upper, packet, state)?;
        }
        write_addresses(header, self.source.address, self.destination.address, self.addresses);
        Ok(())
    }

    /// Translates a whole packet of TCP or UDP, of whose header `header` holds all, without a routing header. False, and
    /// nothing changed, if the octets are too few or of the other family.
    #[inline]
    pub fn apply_plain(
        &self,
        header: &mut [u8],
        upper: &mut [u8],
        protocol: u8,
        state: ChecksumState,
    ) -> bool {
        if !is_header::<A>(header) || self.write_ports(upper, protocol, state).is_err() {
            return false;
        }
        write_addresses(header, self.source.address, self.destination.address, self.addresses);
        true
    }

    #[cold]
    fn write_other(&self, upper: &mut [u8], packet: &Packet, state: ChecksumState) -> Result<(), Unfit> {
        match packet.content {
            Content::Ports { .. } => self.write_sctp(upper, packet, state),
            Content::Query(query) => self.write_query(upper, query, state),
            Content::Rest => {
                self.write_rest(upper, packet);
                Ok(())
            }
            Content::Error(_) | Content::Control | Content::Opaque => {
                if packet.layout.protocol == protocol::ICMPV6 && A::BITS == 128 {
                    update(upper, at::ICMP, |sum| self.covered(sum, self.addresses, state));
                }
                Ok(())
            }
        }
    }

    /// As the upper layer's checksum sees it when a routing header names another destination.
    #[cold]
    pub(super) fn routed(&self, packet: &Packet) -> Self {
        let destination =
            Delta::NONE.replace_address(self.destination.address.into(), packet.layout.destination);
        Self { addresses: self.addresses.and(destination), all: self.all.and(destination), ..*self }
    }

    /// The checksum after the change `delta`, or after that of the addresses if it covers no more so far.
    #[inline]
    fn covered(&self, checksum: u16, delta: Delta, state: ChecksumState) -> u16 {
        match state {
            ChecksumState::Complete => delta.apply(checksum),
            ChecksumState::Partial => self.addresses.apply_partial(checksum),
        }
    }

    /// TCP's and UDP's ports and checksum; a checksum that is cut off is left out.
    #[inline]
    pub(super) fn write_ports(
        &self,
        upper: &mut [u8],
        protocol: u8,
        state: ChecksumState,
    ) -> Result<(), Unfit> {
        let ports = upper.first_chunk_mut::<4>().ok_or(Unfit::Layout)?;
        *ports = self.ports();
        match protocol {
            protocol::TCP => update(upper, at::TCP, |sum| self.covered(sum, self.all, state)),
            protocol::UDP => update(upper, at::UDP, |sum| match state {
                ChecksumState::Complete => self.all.apply_udp(sum),
                ChecksumState::Partial => self.addresses.apply_partial(sum),
            }),
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn ports(&self) -> [u8; 4] {
        (u32::from(self.source.port) << 16 | u32::from(self.destination.port)).to_be_bytes()
    }

    /// The identifier of a query and the checksum over it, which in ICMPv6 covers the addresses too.
    pub(super) fn write_query(
        &self,
        upper: &mut [u8],
        query: Query,
        state: ChecksumState,
    ) -> Result<(), Unfit> {
        let header = upper.first_chunk_mut::<8>().ok_or(Unfit::Layout)?;
        let identifier = if query.answers { self.destination.port } else { self.source.port };
        let pseudo = if A::BITS == 128 { self.addresses } else { Delta::NONE };
        let delta = pseudo.replace16(u16::from_be_bytes([header[4], header[5]]), identifier);
        header[4..6].copy_from_slice(&identifier.to_be_bytes());
        update(header, at::ICMP, |sum| match state {
            ChecksumState::Complete => delta.apply(sum),
            ChecksumState::Partial => pseudo.apply_partial(sum),
        });
        Ok(())
    }

    /// SCTP's checksum covers no addresses, so it changes with the ports alone. Zero says that there is none (RFC 9653).
    fn write_sctp(&self, upper: &mut [u8], packet: &Packet, state: ChecksumState) -> Result<(), Unfit> {
        let length = upper.len();
        let ports = *upper.first_chunk::<4>().ok_or(Unfit::Layout)?;
        if ports == self.ports() {
            return Ok(());
        }
        if packet.layout.fragment.is_some() {
            return Err(Unfit::Fragment);
        }
        let header = upper.first_chunk_mut::<12>().ok_or(Unfit::Layout)?;
        header[..4].copy_from_slice(&self.ports());
        let changed = u32::from_le_bytes(ports) ^ u32::from_le_bytes(self.ports());
        let field = header.last_chunk_mut::<4>().ok_or(Unfit::Layout)?;
        if state == ChecksumState::Complete && *field != [0; 4] {
            *field = (u32::from_le_bytes(*field) ^ crc32c::difference(changed, length)).to_le_bytes();
        }
        Ok(())
    }

    /// Of a later fragment, TCP's checksum if it is there. In IPv6 it never is: a first fragment holds all headers
    /// (RFC 8200 section 4.5).
    fn write_rest(&self, upper: &mut [u8], packet: &Packet) {
        let offset = packet.layout.fragment.map_or(0, |fragment| usize::from(fragment.offset));
        if A::BITS == 32
            && packet.layout.protocol == protocol::TCP
            && let Some(at) = at::TCP.checked_sub(offset)
        {
            update(upper, at, |sum| self.all.apply(sum));
        }
    }
}

/// Whether the octets are a header of the family.
#[inline]
pub(super) fn is_header<A: Address>(header: &[u8]) -> bool {
    let (version, length) = if A::BITS == 32 { (4, 20) } else { (6, 40) };
    header.len() >= length && header[0] >> 4 == version
}

/// Stores both addresses into an IP header of the family, whose checksum the change `delta` goes to.
#[inline]
pub(super) fn write_addresses<A: Address>(header: &mut [u8], source: A, destination: A, delta: Delta) {
    let (source, destination) = (source.to_bits().to_be_bytes(), destination.to_bits().to_be_bytes());
    if A::BITS == 32 {
        if let Some(header) = header.first_chunk_mut::<20>() {
            header[12..16].copy_from_slice(&source[12..]);
            header[16..].copy_from_slice(&destination[12..]);
            update(header, at::IPV4, |sum| delta.apply(sum));
        }
    } else if let Some(header) = header.first_chunk_mut::<40>() {
        header[8..24].copy_from_slice(&source);
        header[24..].copy_from_slice(&destination);
    }
}
