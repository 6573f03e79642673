//! Router advertisements (RFC 4861 section 4.2, RFC 8106). `smoltcp::wire` knows one prefix per message and no DNS
//! servers, so the message is written out here.

use core::net::{IpAddr, Ipv6Addr};

use smoltcp::wire;

use super::neighbor::ALL_NODES;
use super::{Header, fill_icmp_checksum, packet};
use crate::addr::MacAddr;
use crate::config::{AdvertisedPrefix, RouterAdvertisement};
use crate::frame::{Frame, FramePool};

const ROUTER_ADVERTISEMENT: u8 = 134;
/// What shows a receiver that a message has not passed a router (RFC 4861 section 4.2).
const LINK_HOP_LIMIT: u8 = 255;
const MESSAGE: usize = 16;

/// Options (RFC 4861 section 4.6, RFC 8106 section 5.1), and their lengths in octets.
const SOURCE_LINK_ADDRESS: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const RECURSIVE_DNS: u8 = 25;
const SHORT_OPTION: usize = 8;
const PREFIX_OPTION: usize = 32;
const ADDRESS: usize = 16;

/// Tells all nodes what `advertisement` says, from the router at `mac`. `mtu` is the link's, told if the advertisement
/// wants it. `final_` says instead that the router is none from here on (RFC 4861 section 6.2.5). `None` if it does not
/// fit a packet, which a validated configuration does.
pub fn router_advertisement(
    pool: &mut FramePool,
    mac: MacAddr,
    advertisement: &RouterAdvertisement,
    mtu: u16,
    final_: bool,
) -> Option<Frame> {
    let source = mac.link_local();
    let header = Header {
        source: IpAddr::V6(source),
        destination: IpAddr::V6(ALL_NODES),
        protocol: wire::IpProtocol::Icmpv6,
        hop_limit: LINK_HOP_LIMIT,
        class: 0,
        id: None,
    };
    let dns = match advertisement.dns_servers.len() {
        0 => 0,
        servers => SHORT_OPTION + ADDRESS * servers,
    };
    let fixed = MESSAGE + SHORT_OPTION + if advertisement.mtu { SHORT_OPTION } else { 0 };
    let len = fixed + PREFIX_OPTION * advertisement.prefixes.len() + dns;
    let group = MacAddr::for_multicast(IpAddr::V6(ALL_NODES));
    let (mut frame, at) = packet(pool, mac, group, &header, len)?;
    let mut writer = Writer { rest: &mut frame.bytes_mut()[at..] };
    let lifetime = if final_ { 0 } else { advertisement.router_lifetime };
    let flags = u8::from(advertisement.managed) << 7 | u8::from(advertisement.other) << 6;
    writer.put(&[ROUTER_ADVERTISEMENT, 0, 0, 0, advertisement.hop_limit, flags]);
    writer.put(&lifetime.to_be_bytes());
    // Reachable time and retransmission timer: not specified by this router.
    writer.put(&[0; 8]);
    writer.put(&[SOURCE_LINK_ADDRESS, 1]);
    writer.put(&mac.0);
    if advertisement.mtu {
        writer.put(&[MTU, 1, 0, 0]);
        writer.put(&u32::from(mtu).to_be_bytes());
    }
    for prefix in &advertisement.prefixes {
        put_prefix(&mut writer, prefix);
    }
    if !advertisement.dns_servers.is_empty() {
        put_dns(&mut writer, advertisement);
    }
    fill_icmp_checksum(&mut frame, at, &header);
    Some(frame)
}

/// RFC 4861 section 4.6.2.
fn put_prefix(writer: &mut Writer<'_>, prefix: &AdvertisedPrefix) {
    let network = match prefix.prefix.network() {
        IpAddr::V6(network) => network,
        // Refused by validation.
        IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
    };
    let flags = u8::from(prefix.on_link) << 7 | u8::from(prefix.autonomous) << 6;
    writer.put(&[PREFIX_INFORMATION, 4, prefix.prefix.prefix_len(), flags]);
    writer.put(&prefix.valid_lifetime.to_be_bytes());
    writer.put(&prefix.preferred_lifetime.to_be_bytes());
    writer.put(&[0; 4]);
    writer.put(&network.octets());
}

/// RFC 8106 section 5.1.
fn put_dns(writer: &mut Writer<'_>, advertisement: &RouterAdvertisement) {
    let units = u8::try_from(1 + 2 * advertisement.dns_servers.len()).unwrap_or(u8::MAX);
    writer.put(&[RECURSIVE_DNS, units, 0, 0]);
    writer.put(&advertisement.dns_lifetime.to_be_bytes());
    advertisement.dns_servers.iter().for_each(|server| writer.put(&server.octets()));
}

/// Writes one field after the other.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, octets: &[u8]) {
        let rest = core::mem::take(&mut self.rest);
        let Some((field, rest)) = rest.split_at_mut_checked(octets.len()) else {
            debug_assert!(false, "the length was computed from the same fields");
            return;
        };
        field.copy_from_slice(octets);
        self.rest = rest;
    }
}
