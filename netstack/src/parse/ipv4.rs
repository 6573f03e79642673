//! The IPv4 header and its options (RFC 791; validation after RFC 1812 section 5.2.2).

use core::net::{IpAddr, Ipv4Addr};

use nat::checksum;

use super::{Fragment, Ip, from, transport};
use crate::verdict::DropReason;

const MIN_HEADER: usize = 20;
/// The longest datagram, in octets, header included.
const MAX_DATAGRAM: usize = 65_535;

const FLAG_DONT_FRAGMENT: u16 = 0x4000;
const FLAG_MORE: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Option types (RFC 791 section 3.1).
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_LSRR: u8 = 131;
const OPTION_SSRR: u8 = 137;

/// Reads the packet that begins at `offset`.
pub(super) fn parse(frame: &[u8], offset: usize) -> Result<Ip, DropReason> {
    let arrived = from(frame, offset);
    let header = arrived.first_chunk::<MIN_HEADER>().ok_or(DropReason::Ipv4Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(DropReason::Ipv4Version);
    }
    let header_len = usize::from(header[0] & 0xf) * 4;
    if header_len < MIN_HEADER || header_len > arrived.len() {
        return Err(DropReason::Ipv4HeaderLength);
    }
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if total_len < header_len || total_len > arrived.len() {
        return Err(DropReason::Ipv4TotalLength);
    }
    if !checksum::is_valid(checksum::sum(&arrived[..header_len])) {
        return Err(DropReason::Ipv4Checksum);
    }
    let (source_route, option_problem) = options(&arrived[MIN_HEADER..header_len]);
    let position = u16::from_be_bytes([header[6], header[7]]);
    let fragment = fragment(position, u16::from_be_bytes([header[4], header[5]]), header_len, total_len)?;
    let protocol = header[9];
    let (transport_offset, end) = (offset + header_len, offset + total_len);
    Ok(Ip {
        source: IpAddr::V4(Ipv4Addr::new(header[12], header[13], header[14], header[15])),
        destination: IpAddr::V4(Ipv4Addr::new(header[16], header[17], header[18], header[19])),
        offset,
        transport_offset,
        end,
        hop_limit: header[8],
        protocol,
        dont_fragment: position & FLAG_DONT_FRAGMENT != 0,
        fragment,
        source_route,
        option_problem,
        transport: transport::parse(
            &frame[transport_offset..end],
            protocol,
            transport::Family::V4,
            fragment,
        )?,
    })
}

/// Walks the options; says whether one of them asks for source routing, and where one of impossible length stands, from
/// the start of the IP header. What stands behind such a one is not read.
fn options(options: &[u8]) -> (bool, Option<u8>) {
    let (mut source_route, mut at) = (false, 0);
    while let Some(&kind) = options.get(at) {
        match kind {
            OPTION_END => break,
            OPTION_NOP => at += 1,
            kind => {
                let len = options.get(at + 1).map_or(0, |&len| usize::from(len));
                if len < 2 || at + len > options.len() {
                    return (source_route, u8::try_from(MIN_HEADER + at).ok());
                }
                source_route |= matches!(kind, OPTION_LSRR | OPTION_SSRR);
                at += len;
            }
        }
    }
    (source_route, None)
}

/// The fragment's position, if it is one. The header counts towards the longest datagram, because the datagram that
/// fragments add up to has one as well.
fn fragment(
    position: u16,
    id: u16,
    header_len: usize,
    total_len: usize,
) -> Result<Option<Fragment>, DropReason> {
    let (offset, more) = ((position & FRAGMENT_OFFSET) * 8, position & FLAG_MORE != 0);
    if offset == 0 && !more {
        return Ok(None);
    }
    let odd = more && !(total_len - header_len).is_multiple_of(8);
    if odd || usize::from(offset) + total_len > MAX_DATAGRAM {
        return Err(DropReason::FragmentMalformed);
    }
    Ok(Some(Fragment { offset, more, id: u32::from(id) }))
}
