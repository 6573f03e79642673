//! The IPv6 header and its extensions (RFC 8200 section 4).

use core::net::{IpAddr, Ipv6Addr};

use super::{Fragment, Layout, Malformed, word};

/// Octets of the fixed header.
pub(super) const HEADER: usize = 40;
/// How many extension headers are followed; real traffic has three at the most.
const EXTENSIONS: usize = 8;

/// Extension headers, by protocol number.
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
}

/// Reads the headers that begin at `at`, and judges their lengths.
pub(super) fn layout(bytes: &[u8], at: usize) -> Result<Layout, Malformed> {
    let packet = bytes.get(at..).unwrap_or_default();
    let length = HEADER + usize::from(word(packet, 4));
    let packet = packet.get(..length).ok_or(Malformed::Header)?;
    fields(packet, at)
}

/// Reads the headers at the start of `packet`, which begins at `at`. It may be cut short behind them, as a quoted one is;
/// the layout ends with what is there.
pub(super) fn fields(packet: &[u8], at: usize) -> Result<Layout, Malformed> {
    let header: &[u8; HEADER] = packet.first_chunk().ok_or(Malformed::Header)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Header);
    }
    let address =
        |from: usize| IpAddr::V6(Ipv6Addr::from(core::array::from_fn::<u8, 16, _>(|i| header[from + i])));
    let mut layout = Layout {
        source: address(8),
        destination: address(24),
        protocol: header[6],
        header: at,
        upper: at + HEADER,
        end: at + packet.len(),
        fragment: None,
    };
    for _ in 0..=EXTENSIONS {
        let rest = &packet[layout.upper - at..];
        let Some(length) = length(layout.protocol, rest) else { return Ok(layout) };
        let extension = rest.get(..length).ok_or(Malformed::Extensions)?;
        if layout.protocol == extension::FRAGMENT {
            let position = word(extension, 2);
            let fragment = Fragment {
                offset: position & 0xfff8,
                more: position & 1 != 0,
                identification: u32::from(word(extension, 4)) << 16 | u32::from(word(extension, 6)),
            };
            // An atomic fragment is a whole packet (RFC 6946).
            if fragment.more || fragment.offset != 0 {
                layout.fragment = Some(fragment);
            }
        }
        layout.protocol = extension[0];
        layout.upper += length;
        // Behind the fragment header of a later fragment stand data, whatever they look like.
        if layout.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(layout);
        }
    }
    Err(Malformed::Extensions)
}

/// Octets of the extension header of this number that `rest` begins with; `None` for what is no extension header.
fn length(number: u8, rest: &[u8]) -> Option<usize> {
    let said = usize::from(rest.get(1).copied().unwrap_or(0));
    match number {
        extension::FRAGMENT => Some(8),
        extension::AUTHENTICATION => Some((said + 2) * 4),
        extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION | extension::MOBILITY => {
            Some((said + 1) * 8)
        }
        _ => None,
    }
}

/// Where each extension header begins that `layout` tells of, and its number.
fn extensions<'a>(bytes: &'a [u8], layout: &Layout) -> impl Iterator<Item = (usize, u8)> + 'a {
    let upper = layout.upper;
    let mut at = layout.header + HEADER;
    let mut number = bytes.get(layout.header + 6).copied().unwrap_or(0);
    core::iter::from_fn(move || {
        let rest = bytes.get(at..upper).filter(|rest| !rest.is_empty())?;
        let found = (at, number);
        at += length(number, rest)?;
        number = rest[0];
        Some(found)
    })
}

/// Whether a routing header sends the packet on from its destination. The upper layer's checksum covers the last
/// destination then, and not the one in the IPv6 header (RFC 8200 section 8.1).
#[inline]
pub(crate) fn is_routed(bytes: &[u8], layout: &Layout) -> bool {
    // All but a few packets have no extension header at all.
    let extended = layout.source.is_ipv6() && layout.upper.wrapping_sub(layout.header) != HEADER;
    extended
        && extensions(bytes, layout).any(|(at, number)| {
            number == extension::ROUTING && bytes.get(at + 3).is_some_and(|&left| left != 0)
        })
}

/// Where the part begins that was cut into fragments: behind the fragment header.
pub(crate) fn fragmentable(bytes: &[u8], layout: &Layout) -> Option<usize> {
    extensions(bytes, layout).find(|&(_, number)| number == extension::FRAGMENT).map(|(at, _)| at + 8)
}
