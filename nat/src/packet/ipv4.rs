//! The IPv4 header (RFC 791).

use core::net::{IpAddr, Ipv4Addr};

use super::{Fragment, Layout, Malformed, word};
use crate::checksum;

/// Octets of a header without options.
pub(super) const HEADER: usize = 20;

/// Reads the header that begins at `at`, and judges it: lengths and checksum.
pub(super) fn layout(bytes: &[u8], at: usize) -> Result<Layout, Malformed> {
    let packet = bytes.get(at..).unwrap_or_default();
    let (layout, length) = fields(packet, at)?;
    if length > packet.len() || length < layout.upper - at {
        return Err(Malformed::Header);
    }
    if !checksum::is_valid(checksum::sum(&packet[..layout.upper - at])) {
        return Err(Malformed::HeaderChecksum);
    }
    Ok(Layout { end: at + length, ..layout })
}

/// Reads the header at the start of `packet`, which begins at `at`, and the total length that it names. The packet itself
/// may be cut short after the header, as a quoted one is; the layout ends with what is there.
pub(super) fn fields(packet: &[u8], at: usize) -> Result<(Layout, usize), Malformed> {
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(Malformed::Header)?;
    let length = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || length < HEADER || packet.len() < length {
        return Err(Malformed::Header);
    }
    let flags = word(header, 6);
    // Flag MF and the offset in units of 8 octets.
    let (more, offset) = (flags & 0x2000 != 0, (flags & 0x1fff) << 3);
    let fragment =
        (more || offset != 0).then(|| Fragment { offset, more, identification: u32::from(word(header, 4)) });
    let address =
        |from: usize| IpAddr::V4(Ipv4Addr::from(core::array::from_fn::<u8, 4, _>(|i| header[from + i])));
    let layout = Layout {
        source: address(12),
        destination: address(16),
        protocol: header[9],
        header: at,
        upper: at + length,
        end: at + packet.len(),
        fragment,
    };
    Ok((layout, usize::from(word(header, 2))))
}
