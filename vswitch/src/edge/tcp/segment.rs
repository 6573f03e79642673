//! Segments as they come from pods, and numbers that go round.

use netstack::parse::Ip;

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// Options (RFC 9293 section 3.2, RFC 7323 section 2.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
pub(super) const MAXIMUM_SEGMENT_SIZE: u8 = 2;
pub(super) const WINDOW_SCALE: u8 = 3;
/// The largest shift (RFC 7323 section 2.3).
const MOST_SCALED: u8 = 14;

/// A segment.
#[derive(Clone, Copy, Debug)]
pub(in crate::edge) struct Segment<'a> {
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) window: u16,
    options: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads the segment of a packet that was parsed, so its lengths are right.
    pub(in crate::edge) fn read(frame: &'a [u8], ip: &Ip) -> Option<Self> {
        let segment = frame.get(ip.transport_offset..ip.end)?;
        let header = segment.first_chunk::<20>()?;
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let end = usize::from(header[12] >> 4) * 4;
        Some(Self {
            flags: header[13],
            sequence: word(4),
            acknowledgement: word(8),
            window: u16::from_be_bytes([header[14], header[15]]),
            options: segment.get(20..end)?,
            payload: segment.get(end..)?,
        })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it opens a connection.
    pub(in crate::edge) const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// The largest segment that its sender takes, and its window scale, if it said so.
    pub(super) fn offers(&self) -> (Option<u16>, Option<u8>) {
        let (mut size, mut scale, mut rest) = (None, None, self.options);
        while let Some((&kind, behind)) = rest.split_first() {
            match kind {
                END => break,
                NO_OPERATION => rest = behind,
                _ => {
                    let length = behind.first().map_or(0, |length| usize::from(*length));
                    let Some(option) = rest.get(..length).filter(|option| option.len() >= 2) else { break };
                    match *option {
                        [MAXIMUM_SEGMENT_SIZE, 4, high, low] => size = Some(u16::from_be_bytes([high, low])),
                        [WINDOW_SCALE, 3, shift] => scale = Some(shift.min(MOST_SCALED)),
                        _ => {}
                    }
                    rest = &rest[length..];
                }
            }
        }
        (size, scale)
    }
}

/// Whether `a` comes before `b`, both being places of one stream (RFC 9293 section 3.4).
pub(super) const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// How far it is from `from` to `to`, which does not come before it; zero if it does.
pub(super) const fn distance(from: u32, to: u32) -> u32 {
    if before(to, from) { 0 } else { to.wrapping_sub(from) }
}

/// The place so many octets on.
pub(super) fn on(from: u32, octets: usize) -> u32 {
    from.wrapping_add(u32::try_from(octets).unwrap_or(u32::MAX))
}
