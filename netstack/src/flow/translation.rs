//! What translation changes in a packet: with [`Plan`](super::Plan) the only code that writes into a forwarded one.

use core::net::{Ipv4Addr, Ipv6Addr};

use nat::packet::Packet;
use nat::translate::{ChecksumState, Rewrite, Unfit, identification};
use nat::tuple::Address;

use crate::frame::{Checksum, Frame};
use crate::parse::ETHERNET_HEADER;

/// How a packet of either family leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// An IPv4 packet.
    V4(Change<Ipv4Addr>),
    /// An IPv6 packet.
    V6(Change<Ipv6Addr>),
}

/// How a packet leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<A> {
    /// Its endpoints.
    pub rewrite: Rewrite<A>,
    /// Where it comes from if it is an ICMP error, whose quote is translated instead of its L4 header.
    pub error_from: Option<A>,
    /// IPv4's identification, where another one is needed.
    pub identification: Option<u16>,
}

impl<A: Address> Change<A> {
    /// Other endpoints and nothing else.
    pub const fn of(rewrite: Rewrite<A>) -> Self {
        Self { rewrite, error_from: None, identification: None }
    }

    fn apply(&self, frame: &mut Frame, packet: &Packet) -> Result<(), Unfit> {
        let state = checksum_state(frame);
        match self.error_from {
            Some(source) => self.rewrite.apply_error(frame.bytes_mut(), packet, source)?,
            None => self.rewrite.apply(frame.bytes_mut(), packet, state)?,
        }
        if let Some(number) = self.identification {
            identification::write(frame.bytes_mut(), packet, number);
        }
        Ok(())
    }
}

/// Gives a whole packet of TCP or UDP, whose headers have neither options nor extensions, other endpoints; its upper layer
/// begins and ends there in the frame. False, and nothing changed, if that is not so.
#[inline]
pub fn rewrite_plain<A: Address>(
    rewrite: &Rewrite<A>,
    frame: &mut [u8],
    (upper, end): (usize, usize),
    protocol: u8,
    state: ChecksumState,
) -> bool {
    let parts = frame.get_mut(..end).and_then(|frame| frame.split_at_mut_checked(upper));
    parts.is_some_and(|(headers, upper)| {
        rewrite.apply_plain(&mut headers[ETHERNET_HEADER..], upper, protocol, state)
    })
}

/// How far the frame's L4 checksum has been computed.
pub const fn checksum_state(frame: &Frame) -> ChecksumState {
    match frame.offload.checksum {
        Checksum::Partial { .. } => ChecksumState::Partial,
        Checksum::Complete | Checksum::Verified => ChecksumState::Complete,
    }
}

impl Translation {
    /// Translates a frame; `packet` was read from it.
    ///
    /// # Errors
    /// Why it cannot be translated; then it is as it was.
    pub fn apply(&self, frame: &mut Frame, packet: &Packet) -> Result<(), Unfit> {
        match self {
            Self::V4(change) => change.apply(frame, packet),
            Self::V6(change) => change.apply(frame, packet),
        }
    }
}
