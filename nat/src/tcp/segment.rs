//! What the tracker reads of a TCP segment (RFC 9293 section 3.1).

use super::state::Kind;

/// Bits of a segment's flags.
pub mod flag {
    /// The sender has no more data.
    pub const FIN: u8 = 1;
    /// Sequence numbers begin here.
    pub const SYN: u8 = 1 << 1;
    /// The connection is aborted.
    pub const RST: u8 = 1 << 2;
    /// Data is to be handed over at once.
    pub const PSH: u8 = 1 << 3;
    /// The acknowledgement counts.
    pub const ACK: u8 = 1 << 4;
    /// The urgent pointer counts.
    pub const URG: u8 = 1 << 5;
    /// Congestion was experienced (RFC 3168).
    pub const ECE: u8 = 1 << 6;
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: u8 = 1 << 7;
}

/// Octets of a header without options.
const HEADER: usize = 20;
/// The largest shift of a window (RFC 7323 section 2.3): a larger one counts as this.
const MAX_SCALE: u8 = 14;
/// Options that are nothing but timestamps, as nearly every stack lays them out (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];

/// Why octets are no TCP segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Shorter than a header.
    Truncated,
    /// The data offset says that the header is shorter than a header is.
    OffsetTooSmall,
    /// The data offset points beyond the segment.
    OffsetTooLarge,
}

/// The options that change what follows from a segment. One that is broken ends the list without harm, as it does for
/// the endpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// By how many bits the sender's windows are shifted, at most 14.
    pub scale: Option<u8>,
    /// The sender understands selective acknowledgements.
    pub sack_permitted: bool,
    /// The highest right edge of the selective acknowledgements, if it lies above the acknowledgement.
    pub sack: Option<u32>,
}

/// A segment without its ports, urgent pointer and data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// The low eight flags, see [`flag`].
    pub flags: u8,
    /// The sequence number of the first octet, or of the SYN.
    pub sequence: u32,
    /// The sequence number that the sender expects next, if ACK is set.
    pub acknowledgement: u32,
    /// As it stands in the header, not scaled.
    pub window: u16,
    /// Octets of data, all of them also when it is a super-frame that will be cut later.
    pub length: u32,
    /// The options.
    pub options: Options,
}

impl Segment {
    /// Reads a segment from its TCP header to its last octet of data. The checksum is not looked at.
    #[inline]
    pub fn read(segment: &[u8]) -> Result<Self, Malformed> {
        let Some((header, rest)) = segment.split_first_chunk::<HEADER>() else {
            return Err(Malformed::Truncated);
        };
        let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = header;
        let Some(options) = (usize::from(offset >> 4) * 4).checked_sub(HEADER) else {
            return Err(Malformed::OffsetTooSmall);
        };
        let Some((options, data)) = rest.split_at_checked(options) else {
            return Err(Malformed::OffsetTooLarge);
        };
        let acknowledgement = u32::from_be_bytes([a0, a1, a2, a3]);
        Ok(Self {
            flags,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgement,
            window: u16::from_be_bytes([w0, w1]),
            length: u32::try_from(data.len()).unwrap_or(u32::MAX),
            options: Options::read(options, acknowledgement),
        })
    }

    /// Whether all of `flags` are set.
    #[inline]
    pub(super) const fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether the flags make sense together. PSH, ECE and CWR go with everything.
    #[inline]
    pub const fn has_valid_flags(&self) -> bool {
        use flag::{ACK, FIN, RST, SYN, URG};
        const VALID: u64 = 1 << SYN
            | 1 << (SYN | URG)
            | 1 << (SYN | ACK)
            | 1 << RST
            | 1 << (RST | ACK)
            | 1 << (FIN | ACK)
            | 1 << (FIN | ACK | URG)
            | 1 << ACK
            | 1 << (ACK | URG);
        VALID >> (self.flags & (FIN | SYN | RST | ACK | URG)) & 1 == 1
    }

    /// The sequence number after the segment. SYN and FIN take one each.
    #[inline]
    pub const fn end(&self) -> u32 {
        self.sequence
            .wrapping_add(self.length)
            .wrapping_add(self.has(flag::SYN) as u32)
            .wrapping_add(self.has(flag::FIN) as u32)
    }

    /// As [`Self::end`], where the kind is known: sane flags are never both SYN and FIN.
    #[inline(always)]
    pub(super) const fn end_of(&self, kind: Kind) -> u32 {
        let control = kind.is_syn() || matches!(kind, Kind::Fin);
        self.sequence.wrapping_add(self.length).wrapping_add(control as u32)
    }
}

impl Options {
    #[inline]
    fn read(octets: &[u8], acknowledgement: u32) -> Self {
        if octets.is_empty() || (octets.len() == 12 && octets.starts_with(&TIMESTAMPS)) {
            return Self::default();
        }
        Self::walk(octets, acknowledgement)
    }

    fn walk(mut rest: &[u8], acknowledgement: u32) -> Self {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const SCALE: u8 = 3;
        const SACK_PERMITTED: u8 = 4;
        const SACK: u8 = 5;
        let mut options = Self::default();
        loop {
            let (kind, length) = match *rest {
                [] | [END, ..] => break,
                [NO_OPERATION, ref after @ ..] => {
                    rest = after;
                    continue;
                }
                [_] => break,
                [kind, length, ..] => (kind, usize::from(length)),
            };
            let Some((option, after)) = rest.split_at_checked(length) else { break };
            let Some((_, value)) = option.split_at_checked(2) else { break };
            match (kind, value) {
                (SCALE, &[scale]) => options.scale = Some(scale.min(MAX_SCALE)),
                (SACK_PERMITTED, []) => options.sack_permitted = true,
                (SACK, blocks) => options.sack = highest_edge(blocks, acknowledgement),
                _ => {}
            }
            rest = after;
        }
        options
    }
}

fn highest_edge(blocks: &[u8], acknowledgement: u32) -> Option<u32> {
    let (blocks, []) = blocks.as_chunks::<8>() else { return None };
    let above = blocks
        .iter()
        .map(|&[.., a, b, c, d]| u32::from_be_bytes([a, b, c, d]).wrapping_sub(acknowledgement))
        .filter(|above| above.cast_signed() > 0)
        .max()?;
    Some(acknowledgement.wrapping_add(above))
}
