//! SCTP associations as seen from between their ends (RFC 9260).
//!
//! # Theory of operation
//! The tracker acts as Linux's does. Chunks lead from state to state by a table. Each side picks a verification tag in its
//! INIT or INIT ACK that every packet to it has to carry; a packet with another one belongs to some other association (RFC
//! 9260 section 8.5). The path of a second address is known by HEARTBEATs alone, whose tags are believed; and if a
//! HEARTBEAT with a tag of its own is answered, then that tag has replaced the former.
//!
//! A packet counts as a whole or not at all. States are those of the association, not of either end.

#[cfg(test)]
mod tests;

use core::fmt;
use core::time::Duration;

use crate::accepted::Accepted;
use crate::timeouts::SctpTimeouts;
use crate::tuple::Direction;

/// Octets of the common header, and of a chunk's header.
const HEADER: usize = 12;
const CHUNK: usize = 4;
/// The tag or its peer's is in the chunk (RFC 9260 section 8.5.1).
const REFLECTED: u8 = 1;

/// How far an association has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// Nothing was seen. No association that stands is in this state.
    None,
    /// Over, or an INIT that was not answered.
    Closed,
    /// INIT and its INIT ACK.
    CookieWait,
    /// COOKIE ECHO.
    CookieEchoed,
    /// COOKIE ACK, or an answered HEARTBEAT.
    Established,
    /// SHUTDOWN in the original direction.
    ShutdownSent,
    /// SHUTDOWN in the reply's.
    ShutdownReceived,
    /// SHUTDOWN ACK.
    ShutdownAckSent,
    /// A HEARTBEAT that was not answered, and nothing before it.
    HeartbeatSent,
}

impl State {
    /// Its name, as Linux's tools write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownReceived => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a packet does not belong to an association, or opens none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invalid {
    /// Shorter than its header, or without a chunk.
    Truncated,
    /// A chunk's length is shorter than its header, or reaches beyond the packet.
    ChunkLength,
    /// A chunk that has to be the first or the only one is not.
    Bundle,
    /// It carries another verification tag.
    Tag,
    /// Nothing of the kind can come in this state, or open an association.
    State,
}

/// A packet whose chunks are known to be whole.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    tag: u32,
    chunks: &'a [u8],
    /// One bit for each type of chunk below 32.
    types: u32,
}

/// Types of chunks (RFC 9260 section 3.2).
mod chunk {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const HEARTBEAT: u8 = 4;
    pub(super) const HEARTBEAT_ACK: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const ERROR: u8 = 9;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: u8,
    flags: u8,
    value: &'a [u8],
}

/// The first chunk, and the octets after it and its padding. The last chunk's padding may be missing.
fn split(octets: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let &[kind, flags, high, low, ..] = octets else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let value = octets.get(CHUNK..length)?;
    let after = octets.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Some((Chunk { kind, flags, value }, after))
}

impl<'a> Packet<'a> {
    /// Reads a packet from its common header to its last chunk. The checksum is not looked at.
    pub fn read(packet: &'a [u8]) -> Result<Self, Invalid> {
        let Some((&[_, _, _, _, a, b, c, d, ..], chunks)) = packet.split_first_chunk::<HEADER>() else {
            return Err(Invalid::Truncated);
        };
        if chunks.is_empty() {
            return Err(Invalid::Truncated);
        }
        let mut read = Self { tag: u32::from_be_bytes([a, b, c, d]), chunks, types: 0 };
        let mut rest = chunks;
        // Each round takes four octets at least.
        while !rest.is_empty() {
            let Some((Chunk { kind, .. }, after)) = split(rest) else { return Err(Invalid::ChunkLength) };
            let first = read.types == 0;
            let alone = matches!(kind, chunk::INIT | chunk::INIT_ACK | chunk::SHUTDOWN_COMPLETE);
            let ahead = matches!(kind, chunk::COOKIE_ECHO | chunk::COOKIE_ACK);
            if (alone && !(first && after.is_empty())) || (ahead && !first) {
                return Err(Invalid::Bundle);
            }
            // Types above 31 change nothing; they count as the unassigned last one.
            read.types |= 1 << kind.min(31);
            rest = after;
        }
        Ok(read)
    }

    fn has_any(&self, kinds: &[u8]) -> bool {
        kinds.iter().any(|kind| self.types >> kind & 1 == 1)
    }

    fn chunks(self) -> impl Iterator<Item = Chunk<'a>> {
        let mut rest = self.chunks;
        core::iter::from_fn(move || {
            let (chunk, after) = split(rest)?;
            rest = after;
            Some(chunk)
        })
    }
}

/// One association.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sctp {
    /// The tag that packets of each direction carry, 0 if it is not known.
    tags: [u32; 2],
    state: State,
    bits: u8,
}

// A table of associations pays for every octet.
const _: () = assert!(size_of::<Sctp>() == 12);

/// Bits of an association.
mod bit {
    /// Something came in the reply's direction.
    pub(super) const REPLIED: u8 = 1;
    /// It was established.
    pub(super) const ASSURED: u8 = 1 << 1;
    /// An INIT went in the original direction, and in the reply's.
    pub(super) const INIT: [u8; 2] = [1 << 2, 1 << 3];
    /// A HEARTBEAT with another tag went in the original direction, and in the reply's.
    pub(super) const STRANGE: [u8; 2] = [1 << 4, 1 << 5];
}

impl Sctp {
    /// The association that a first packet opens, in the original direction.
    pub fn open(packet: Packet<'_>) -> Result<Self, Invalid> {
        use chunk::{ABORT, COOKIE_ACK, HEARTBEAT, INIT, SHUTDOWN_COMPLETE};
        if packet.has_any(&[ABORT, SHUTDOWN_COMPLETE, COOKIE_ACK]) {
            return Err(Invalid::State);
        }
        let mut sctp = Self { tags: [0; 2], state: State::None, bits: 0 };
        for chunk in packet.chunks() {
            if next(Direction::Original, chunk.kind, State::None) == Some(State::None) {
                return Err(Invalid::State);
            }
            match chunk.kind {
                INIT => {}
                HEARTBEAT => sctp.tags[0] = packet.tag,
                // A packet that belongs to nothing is answered with its own tag (RFC 9260 section 8.4).
                _ => sctp.tags[1] = packet.tag,
            }
        }
        sctp.update(Direction::Original, packet)?;
        Ok(sctp)
    }

    /// Takes a packet of the association.
    pub fn update(&mut self, direction: Direction, packet: Packet<'_>) -> Result<Accepted, Invalid> {
        use chunk::{ABORT, COOKIE_ECHO, HEARTBEAT, HEARTBEAT_ACK, INIT, SHUTDOWN_ACK, SHUTDOWN_COMPLETE};
        // These have rules of their own (RFC 9260 section 8.5.1).
        const OTHERWISE: [u8; 7] =
            [INIT, SHUTDOWN_COMPLETE, COOKIE_ECHO, ABORT, SHUTDOWN_ACK, HEARTBEAT, HEARTBEAT_ACK];
        if !packet.has_any(&OTHERWISE) && packet.tag != self.tags[direction.index()] {
            return Err(Invalid::Tag);
        }
        let mut new = *self;
        let mut refresh = true;
        for chunk in packet.chunks() {
            if !new.check_tag(direction, chunk, packet, &mut refresh)? {
                continue;
            }
            let from = new.state;
            let to = next(direction, chunk.kind, from).ok_or(Invalid::State)?;
            new.take_tag(direction, chunk)?;
            // As with TCP: who uses the ports again must not keep the association for ever.
            if chunk.kind == INIT && from == State::Closed && to == State::Closed {
                refresh = false;
            }
            new.state = to;
            if to == State::Established && from != to {
                new.bits |= bit::ASSURED;
            }
        }
        if direction == Direction::Reply {
            new.bits |= bit::REPLIED;
        }
        let changed = new.state != self.state;
        *self = new;
        Ok(Accepted { refresh, changed })
    }

    /// Whether a chunk's packet carries the tag that goes with the chunk. False if the chunk is passed on without counting.
    fn check_tag(
        &mut self,
        direction: Direction,
        chunk: Chunk<'_>,
        packet: Packet<'_>,
        refresh: &mut bool,
    ) -> Result<bool, Invalid> {
        let (here, there) = (direction.index(), direction.reverse().index());
        let matches = match chunk.kind {
            chunk::INIT => packet.tag == 0,
            chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
                packet.tag == self.tags[if chunk.flags & REFLECTED == 0 { here } else { there }]
            }
            chunk::COOKIE_ECHO => packet.tag == self.tags[here],
            chunk::COOKIE_ACK => {
                self.bits &= !(bit::INIT[0] | bit::INIT[1]);
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if self.tags[here] == 0 => {
                self.tags[here] = packet.tag;
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK if self.tags[here] == packet.tag => {
                self.bits &= !(bit::STRANGE[0] | bit::STRANGE[1]);
                true
            }
            chunk::HEARTBEAT | chunk::HEARTBEAT_ACK => {
                if packet.has_any(&[chunk::DATA]) || !*refresh {
                    return Err(Invalid::Tag);
                }
                return self.strange(direction, chunk.kind, packet.tag, refresh);
            }
            _ => true,
        };
        if matches { Ok(true) } else { Err(Invalid::Tag) }
    }

    /// A HEARTBEAT or its answer with a tag that is not the direction's: the answer proves that both ends have come to
    /// another tag.
    fn strange(
        &mut self,
        direction: Direction,
        kind: u8,
        tag: u32,
        refresh: &mut bool,
    ) -> Result<bool, Invalid> {
        let (here, there) = (direction.index(), direction.reverse().index());
        if kind == chunk::HEARTBEAT {
            self.bits &= !bit::STRANGE[there];
            self.bits |= bit::STRANGE[here];
            *refresh = false;
            return Ok(false);
        }
        if self.bits & bit::STRANGE[there] == 0 {
            return Err(Invalid::Tag);
        }
        self.bits &= !bit::STRANGE[there];
        self.tags[here] = tag;
        self.tags[there] = 0;
        Ok(true)
    }

    /// Notes the tag that an INIT or INIT ACK asks for in the other direction.
    fn take_tag(&mut self, direction: Direction, chunk: Chunk<'_>) -> Result<(), Invalid> {
        if !matches!(chunk.kind, chunk::INIT | chunk::INIT_ACK) {
            return Ok(());
        }
        let (here, there) = (direction.index(), direction.reverse().index());
        // Tag, window, streams and first sequence number have to be there (RFC 9260 section 3.3.2).
        let Some(&[a, b, c, d, ..]) = chunk.value.first_chunk::<16>() else {
            return Err(Invalid::ChunkLength);
        };
        let tag = u32::from_be_bytes([a, b, c, d]);
        let (asked, asked_there) = (self.bits & bit::INIT[here] != 0, self.bits & bit::INIT[there] != 0);
        if chunk.kind == chunk::INIT {
            if asked && asked_there {
                self.bits &= !bit::INIT[there];
            }
            self.bits |= bit::INIT[here];
        } else {
            // Unless its INIT is known, an INIT ACK only repeats; and if both sides sent INITs, it repeats its own side's.
            let known = self.tags[there];
            if known != tag && ((!asked_there && known != 0) || (asked && asked_there)) {
                return Err(Invalid::Tag);
            }
        }
        self.tags[there] = tag;
        Ok(())
    }

    /// How far the association has come.
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether anything came back, and was not invalid.
    #[inline]
    pub const fn has_reply(&self) -> bool {
        self.bits & bit::REPLIED != 0
    }

    /// Whether it was established. Such an association gives way to no other before it ends.
    #[inline]
    pub const fn is_assured(&self) -> bool {
        self.bits & bit::ASSURED != 0
    }

    /// Whether the association has begun to end, and may give way to another if there is no room.
    #[inline]
    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::ShutdownSent | State::ShutdownReceived | State::ShutdownAckSent)
    }

    /// How long the association is kept from now on if nothing comes. To be asked when it was opened, and after a packet
    /// whose [`Accepted::refresh`] says so.
    pub const fn timeout(&self, timeouts: &SctpTimeouts) -> Duration {
        match self.state {
            State::None | State::Closed => timeouts.closed,
            State::CookieWait => timeouts.cookie_wait,
            State::CookieEchoed => timeouts.cookie_echoed,
            State::Established => timeouts.established,
            State::ShutdownSent => timeouts.shutdown_sent,
            State::ShutdownReceived => timeouts.shutdown_received,
            State::ShutdownAckSent => timeouts.shutdown_ack_sent,
            State::HeartbeatSent => timeouts.heartbeat_sent,
        }
    }
}

/// Where a chunk leads from a state, if it can come there. Most chunks change nothing.
fn next(direction: Direction, kind: u8, state: State) -> Option<State> {
    let row = match kind {
        chunk::INIT => 0,
        chunk::INIT_ACK => 1,
        chunk::ABORT => 2,
        chunk::SHUTDOWN => 3,
        chunk::SHUTDOWN_ACK => 4,
        chunk::ERROR => 5,
        chunk::COOKIE_ECHO => 6,
        chunk::COOKIE_ACK => 7,
        chunk::SHUTDOWN_COMPLETE => 8,
        chunk::HEARTBEAT => 9,
        chunk::HEARTBEAT_ACK => 10,
        _ => return Some(state),
    };
    TABLE[direction.index()][row][state as usize]
}

const CL: Option<State> = Some(State::Closed);
const CW: Option<State> = Some(State::CookieWait);
const CE: Option<State> = Some(State::CookieEchoed);
const ES: Option<State> = Some(State::Established);
const SS: Option<State> = Some(State::ShutdownSent);
const SR: Option<State> = Some(State::ShutdownReceived);
const SA: Option<State> = Some(State::ShutdownAckSent);
const HS: Option<State> = Some(State::HeartbeatSent);
const IV: Option<State> = None;

/// By direction, chunk and state.
#[rustfmt::skip]
static TABLE: [[[Option<State>; 9]; 11]; 2] = [
    // From:         NO  CL  CW  CE  ES  SS  SR  SA  HS
    [
        /* INIT   */[CL, CL, CW, CE, ES, CL, CL, SA, CW],
        /* I ACK  */[CL, CL, CW, CE, ES, SS, SR, SA, CL],
        /* ABORT  */[CL, CL, CL, CL, CL, CL, CL, CL, CL],
        /* SHUTD. */[CL, CL, CW, CE, SS, SS, SR, SA, CL],
        /* S ACK  */[SA, CL, CW, CE, ES, SA, SA, SA, SA],
        /* ERROR  */[CL, CL, CW, CE, ES, SS, SR, SA, CL],
        /* C ECHO */[CL, CL, CE, CE, ES, SS, SR, SA, CL],
        /* C ACK  */[CL, CL, CW, ES, ES, SS, SR, SA, CL],
        /* S COMP.*/[CL, CL, CW, CE, ES, SS, SR, CL, CL],
        /* HEARTB.*/[HS, CL, CW, CE, ES, SS, SR, SA, HS],
        /* H ACK  */[CL, CL, CW, CE, ES, SS, SR, SA, HS],
    ],
    [
        /* INIT   */[IV, CL, CW, CE, ES, SS, SR, SA, IV],
        /* I ACK  */[IV, CW, CW, CE, ES, SS, SR, SA, IV],
        /* ABORT  */[IV, CL, CL, CL, CL, CL, CL, CL, IV],
        /* SHUTD. */[IV, CL, CW, CE, SR, SS, SR, SA, IV],
        /* S ACK  */[IV, CL, CW, CE, ES, SA, SA, SA, IV],
        /* ERROR  */[IV, CL, CW, CL, ES, SS, SR, SA, IV],
        /* C ECHO */[IV, CL, CE, CE, ES, SS, SR, SA, IV],
        /* C ACK  */[IV, CL, CW, ES, ES, SS, SR, SA, IV],
        /* S COMP.*/[IV, CL, CW, CE, ES, SS, SR, CL, IV],
        /* HEARTB.*/[IV, CL, CW, CE, ES, SS, SR, SA, HS],
        /* H ACK  */[IV, CL, CW, CE, ES, SS, SR, SA, ES],
    ],
];
