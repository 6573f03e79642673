//! Neighbour discovery messages (RFC 4861), with every rule of their validity.

use core::net::{IpAddr, Ipv6Addr};

use super::{Ip, Transport, ipv6, transport};
use crate::addr::MacAddr;
use crate::verdict::DropReason;

/// ICMPv6 types (RFC 4861 section 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Options (RFC 4861 section 4.6).
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

/// The hop limit that shows a message has not passed a router.
const HOP_LIMIT: u8 = 255;

/// A valid neighbour discovery message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NeighborDiscovery {
    /// Neighbour solicitation.
    Solicit {
        /// Whose link-layer address is asked for.
        target: Ipv6Addr,
        /// The asker's own address, not yet judged.
        source_link: Option<MacAddr>,
        /// Whether the asker has no address yet and wants to know if the target is taken (RFC 4862 section 5.4).
        dad: bool,
    },
    /// Neighbour advertisement.
    Advert {
        /// Whose link-layer address is told.
        target: Ipv6Addr,
        /// The target's link-layer address, not yet judged.
        target_link: Option<MacAddr>,
        /// The R flag: the target is a router.
        router: bool,
        /// The S flag: this answers a solicitation.
        solicited: bool,
        /// The O flag: this replaces what is known.
        override_: bool,
    },
    /// Router solicitation.
    RouterSolicit,
    /// Router advertisement.
    RouterAdvert,
    /// Redirect.
    Redirect,
}

/// Reads a neighbour discovery message; `None` if `ip` is none. `ip` is what [`network`](super::network) read from the
/// same frame, and the frame's checksum must be complete: hosts do not leave that of neighbour discovery to a device.
///
/// # Errors
/// [`DropReason::NeighborDiscoveryInvalid`] for a message that breaks a rule of RFC 4861 section 6.1.1, 6.1.2, 7.1.1,
/// 7.1.2 or 8.1, or that has a fragment header (RFC 6980 section 5).
pub fn neighbor_discovery(frame: &[u8], ip: &Ip) -> Result<Option<NeighborDiscovery>, DropReason> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (ip.source, ip.destination) else {
        return Ok(None);
    };
    let (kind, code) = match ip.transport {
        Transport::Icmp { kind: kind @ ROUTER_SOLICITATION..=REDIRECT, code, .. } => (kind, code),
        Transport::Icmp { .. }
        | Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Opaque => return Ok(None),
    };
    let sound = ip.hop_limit == HOP_LIMIT
        && code == 0
        && !ipv6::has_fragment_header(frame.get(ip.offset..ip.end).unwrap_or_default())
        && transport::verify_transport_checksum(frame, ip);
    sound
        .then(|| read(kind, transport::segment(frame, ip), source, destination))
        .flatten()
        .map(Some)
        .ok_or(DropReason::NeighborDiscoveryInvalid)
}

fn read(kind: u8, message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Option<NeighborDiscovery> {
    let body = match kind {
        ROUTER_SOLICITATION => 8,
        ROUTER_ADVERTISEMENT => 16,
        NEIGHBOR_SOLICITATION | NEIGHBOR_ADVERTISEMENT => 24,
        _ => 40,
    };
    let (message, options) = message.split_at_checked(body)?;
    let options = Options::read(options)?;
    match kind {
        ROUTER_SOLICITATION => (!source.is_unspecified() || options.source_link.is_none())
            .then_some(NeighborDiscovery::RouterSolicit),
        ROUTER_ADVERTISEMENT => source.is_unicast_link_local().then_some(NeighborDiscovery::RouterAdvert),
        NEIGHBOR_SOLICITATION => solicitation(address(message, 8)?, &options, source, destination),
        NEIGHBOR_ADVERTISEMENT => advertisement(message[4], address(message, 8)?, &options, destination),
        _ => {
            let (target, redirected) = (address(message, 8)?, address(message, 24)?);
            (source.is_unicast_link_local()
                && !redirected.is_multicast()
                && (target.is_unicast_link_local() || target == redirected))
                .then_some(NeighborDiscovery::Redirect)
        }
    }
}

/// RFC 4861 section 7.1.1.
fn solicitation(
    target: Ipv6Addr,
    options: &Options,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Option<NeighborDiscovery> {
    let dad = source.is_unspecified();
    if target.is_multicast() || (dad && (!is_solicited_node(destination) || options.source_link.is_some())) {
        return None;
    }
    Some(NeighborDiscovery::Solicit { target, source_link: options.source_link, dad })
}

/// RFC 4861 section 7.1.2.
fn advertisement(
    flags: u8,
    target: Ipv6Addr,
    options: &Options,
    destination: Ipv6Addr,
) -> Option<NeighborDiscovery> {
    let solicited = flags & 0x40 != 0;
    if target.is_multicast() || (destination.is_multicast() && solicited) {
        return None;
    }
    Some(NeighborDiscovery::Advert {
        target,
        target_link: options.target_link,
        router: flags & 0x80 != 0,
        solicited,
        override_: flags & 0x20 != 0,
    })
}

/// Whether `address` is a solicited-node multicast address, ff02::1:ff00:0/104 (RFC 4291 section 2.7.1).
fn is_solicited_node(address: Ipv6Addr) -> bool {
    address.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]
}

fn address(message: &[u8], at: usize) -> Option<Ipv6Addr> {
    message.get(at..)?.first_chunk::<16>().map(|&octets| Ipv6Addr::from(octets))
}

/// The options that matter to a neighbour table.
struct Options {
    source_link: Option<MacAddr>,
    target_link: Option<MacAddr>,
}

impl Options {
    /// `None` if an option has length 0 or is cut off, or if a link-layer address is not an Ethernet one, which has an
    /// option of length 1 (RFC 2464 section 6). Of several addresses the last one counts.
    fn read(mut rest: &[u8]) -> Option<Self> {
        let mut options = Self { source_link: None, target_link: None };
        while let [kind, units, ..] = *rest {
            let (option, tail) = rest.split_at_checked(usize::from(units) * 8)?;
            let slot = match kind {
                _ if units == 0 => return None,
                SOURCE_LINK_ADDRESS => Some(&mut options.source_link),
                TARGET_LINK_ADDRESS => Some(&mut options.target_link),
                _ => None,
            };
            if let Some(slot) = slot {
                let &[_, _, a, b, c, d, e, f] = option else { return None };
                *slot = Some(MacAddr([a, b, c, d, e, f]));
            }
            rest = tail;
        }
        rest.is_empty().then_some(options)
    }
}
