//! ICMP and ICMPv6 errors: the quoted packet inside, and the message around it (RFC 5508 section 4).

use super::rewrite::{at, is_header, write_addresses};
use super::{ChecksumState, Rewrite, Unfit, split, update};
use crate::checksum::{self, Delta};
use crate::packet::{Content, Error, Layout, Packet, icmp, ipv6};
use crate::tuple::{Address, protocol};

/// Octets of a quoted upper-layer header in which anything changes: TCP's checksum stands last.
const TOUCHED: usize = at::TCP + 2;

/// Why an ICMP error deserves no belief, and is dropped silently (RFC 5508 REQ-3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorFault {
    /// The message's own checksum is wrong. It covers the extensions of RFC 4884 too.
    Checksum,
    /// The quoted IPv4 header's checksum is wrong.
    QuotedHeader,
    /// It is a fragment, so that its checksum cannot be judged. Errors are small enough to need none.
    Fragment,
}

/// Judges an ICMP error. Other packets pass, and the quoted packet's upper-layer checksum is never judged: the quote need not
/// hold all that it covers.
///
/// # Errors
/// What is wrong with it.
pub fn check_error(bytes: &[u8], packet: &Packet) -> Result<(), ErrorFault> {
    let Content::Error(error) = packet.content else { return Ok(()) };
    if packet.layout.fragment.is_some() {
        return Err(ErrorFault::Fragment);
    }
    if !packet.has_sound_checksum(bytes) {
        return Err(ErrorFault::Checksum);
    }
    let header = bytes.get(error.quoted.header..error.quoted.upper).unwrap_or_default();
    if error.quoted.source.is_ipv4() && !checksum::is_valid(checksum::sum(header)) {
        return Err(ErrorFault::QuotedHeader);
    }
    Ok(())
}

impl<A: Address> Rewrite<A> {
    /// Translates an ICMP error that goes the way of the packets this rewrite is for. The packet it quotes went the other
    /// way, so the quote's source becomes this rewrite's destination, and its destination this rewrite's source: what its
    /// sender once sent. The error goes to that sender and comes from `source`, which is the address it came from, or one
    /// of the translator's if that must not be seen (RFC 5508 REQ-4 and REQ-5).
    ///
    /// Of the quoted packet, addresses, L4 ports or identifier change, and the checksums as far as they are quoted; UDP's
    /// zero stays, and so does SCTP's checksum, since nobody can check it. Type, code and what follows the quoted packet
    /// stay. The message's checksum must have been complete.
    ///
    /// # Errors
    /// Why the packet was left as it is.
    pub fn apply_error(&self, bytes: &mut [u8], packet: &Packet, source: A) -> Result<(), Unfit> {
        let Content::Error(error) = packet.content else { return Err(Unfit::Content) };
        let Layout { upper, end, .. } = packet.layout;
        let (header, _) = split(bytes, &packet.layout)?;
        if !is_header::<A>(header) || error.quoted.header <= upper || error.quoted.end > end {
            return Err(Unfit::Layout);
        }
        let routed = ipv6::is_routed(bytes, &packet.layout);
        let inside = self.apply_quoted(bytes, &error)?;

        let from = Delta::NONE.replace_address(packet.layout.source, source.into());
        let to = Delta::NONE.replace_address(packet.layout.destination, self.destination.address.into());
        // ICMPv6 covers the outer addresses as well.
        let covered = match (A::BITS, routed) {
            (32, _) => inside,
            (_, false) => inside.and(from).and(to),
            (_, true) => inside.and(from),
        };
        let (header, message) = split(bytes, &packet.layout)?;
        update(message, at::ICMP, |sum| covered.apply(sum));
        write_addresses(header, source, self.destination.address, from.and(to));
        Ok(())
    }

    /// Translates the quoted packet, and tells what that does to a checksum over it.
    fn apply_quoted(&self, bytes: &mut [u8], error: &Error) -> Result<Delta, Unfit> {
        let quoted = &error.quoted;
        // Its packets go the other way: source and destination change places, and with them nothing in the sums.
        let inner = Self { source: self.destination, destination: self.source, ..*self };
        let routed = ipv6::is_routed(bytes, quoted);
        let (header, upper) = split(bytes, quoted)?;
        if !is_header::<A>(header) {
            return Err(Unfit::Layout);
        }
        let sum = |header: &[u8], upper: &[u8]| {
            checksum::fold(checksum::sum(header) + checksum::sum(&upper[..upper.len().min(TOUCHED)]))
        };
        let before = sum(header, upper);
        let covering = if routed {
            &inner.routed(&Packet { layout: *quoted, content: Content::Opaque })
        } else {
            &inner
        };
        match quoted.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP => {
                covering.write_ports(upper, quoted.protocol, ChecksumState::Complete)?;
            }
            _ => {
                if let Some(query) = icmp::query(quoted, upper) {
                    covering.write_query(upper, query, ChecksumState::Complete)?;
                }
            }
        }
        write_addresses(header, inner.source.address, inner.destination.address, inner.addresses);
        Ok(Delta::NONE.replace16(before, sum(header, upper)))
    }
}
