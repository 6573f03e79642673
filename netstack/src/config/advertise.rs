//! What a gateway tells the stations of its segment about itself (RFC 4861 section 6.2.1, RFC 8106).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};

use crate::addr::IpNet;

/// Router advertisements on one segment. Times are in seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct RouterAdvertisement {
    /// The M flag: addresses are to be had by DHCPv6.
    pub managed: bool,
    /// The O flag: other things are to be had by DHCPv6.
    pub other: bool,
    /// The hop limit that stations are to use; 0 to say nothing (AdvCurHopLimit, default 64).
    pub hop_limit: u8,
    /// For how long the router is a default router after each advertisement: 0 for none at all, else from
    /// `max_interval` to 9000 (AdvDefaultLifetime, default 1800).
    pub router_lifetime: u16,
    /// The least time between two advertisements: from 3 to three quarters of `max_interval` (MinRtrAdvInterval, default
    /// 200).
    pub min_interval: u16,
    /// The longest time between two advertisements: 4 to 1800 (MaxRtrAdvInterval, default 600).
    pub max_interval: u16,
    /// Whether the segment's MTU is told (AdvLinkMTU, default yes).
    pub mtu: bool,
    /// What is told about prefixes.
    pub prefixes: Vec<AdvertisedPrefix>,
    /// Recursive DNS servers (RFC 8106 section 5.1).
    pub dns_servers: Vec<Ipv6Addr>,
    /// For how long those are good after each advertisement (RFC 8106 section 5.1: three times `max_interval` by
    /// default, 1800).
    pub dns_lifetime: u32,
}

/// One prefix in a router advertisement (RFC 4861 section 4.6.2). Times are in seconds; `u32::MAX` is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct AdvertisedPrefix {
    /// The prefix, IPv6.
    pub prefix: IpNet,
    /// The L flag: its addresses are on this link.
    #[cfg_attr(feature = "serde", serde(default = "super::yes"))]
    pub on_link: bool,
    /// The A flag: stations make addresses of their own from it (RFC 4862 section 5.5), which needs a length of 64.
    #[cfg_attr(feature = "serde", serde(default = "super::yes"))]
    pub autonomous: bool,
    /// How long it is good (AdvValidLifetime, default 30 days).
    #[cfg_attr(feature = "serde", serde(default = "valid_lifetime"))]
    pub valid_lifetime: u32,
    /// How long addresses made from it are preferred (AdvPreferredLifetime, default 7 days); not longer than it is good.
    #[cfg_attr(feature = "serde", serde(default = "preferred_lifetime"))]
    pub preferred_lifetime: u32,
}

const DAY: u32 = 24 * 60 * 60;

const fn valid_lifetime() -> u32 {
    30 * DAY
}

const fn preferred_lifetime() -> u32 {
    7 * DAY
}

/// The defaults of RFC 4861 section 6.2.1, and nothing about prefixes.
impl Default for RouterAdvertisement {
    fn default() -> Self {
        Self {
            managed: false,
            other: false,
            hop_limit: 64,
            router_lifetime: 1800,
            min_interval: 200,
            max_interval: 600,
            mtu: true,
            prefixes: Vec::new(),
            dns_servers: Vec::new(),
            dns_lifetime: 1800,
        }
    }
}

impl AdvertisedPrefix {
    /// A prefix that is on this link and that stations make addresses from if its length is 64, with the lifetimes of RFC
    /// 4861 section 6.2.1.
    pub fn new(prefix: IpNet) -> Self {
        Self {
            prefix,
            on_link: true,
            autonomous: prefix.prefix_len() == 64,
            valid_lifetime: valid_lifetime(),
            preferred_lifetime: preferred_lifetime(),
        }
    }
}

/// Octets of an advertisement without prefixes and DNS servers: IPv6 header, message, link-layer address, MTU.
const FIXED: usize = 40 + 16 + 8 + 8;
const PREFIX_OPTION: usize = 32;
const DNS_OPTION: usize = 8;
const DNS_SERVER: usize = 16;
/// What every IPv6 link carries (RFC 8200 section 5): an advertisement is never fragmented (RFC 6980).
const MAX_PACKET: usize = 1280;

impl RouterAdvertisement {
    /// The advertisement for a segment: on-link and autonomous prefixes, everything else by default.
    pub fn for_prefixes(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        Self { prefixes: prefixes.into_iter().map(AdvertisedPrefix::new).collect(), ..Self::default() }
    }

    /// What is wrong with it, in words.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if !(4..=1800).contains(&self.max_interval) {
            return Some("max_interval is 4 to 1800 seconds");
        }
        if self.min_interval < 3 || u32::from(self.min_interval) * 4 > u32::from(self.max_interval) * 3 {
            return Some("min_interval is 3 seconds to three quarters of max_interval");
        }
        if self.router_lifetime != 0 && !(self.max_interval..=9000).contains(&self.router_lifetime) {
            return Some("router_lifetime is 0, or max_interval to 9000 seconds");
        }
        let dns = match self.dns_servers.len() {
            0 => 0,
            servers => DNS_OPTION + DNS_SERVER * servers,
        };
        if FIXED + PREFIX_OPTION * self.prefixes.len() + dns > MAX_PACKET {
            return Some("prefixes and DNS servers do not fit a packet of 1280 octets");
        }
        if self.dns_servers.iter().any(|s| s.is_unspecified() || s.is_multicast() || s.is_loopback()) {
            return Some("a DNS server's address names no server");
        }
        self.prefixes.iter().find_map(AdvertisedPrefix::problem)
    }
}

impl AdvertisedPrefix {
    fn problem(&self) -> Option<&'static str> {
        let IpAddr::V6(network) = self.prefix.network() else {
            return Some("a prefix in it is IPv4");
        };
        if self.prefix != self.prefix.trunc() {
            return Some("a prefix in it has bits set behind its length");
        }
        if network.is_multicast() || network.is_unicast_link_local() {
            return Some("a link-local or multicast prefix is not advertised (RFC 4861 section 4.6.2)");
        }
        if self.autonomous && self.prefix.prefix_len() != 64 {
            return Some("stations make addresses only from a prefix of 64 bits (RFC 4862 section 5.5.3)");
        }
        (self.preferred_lifetime > self.valid_lifetime)
            .then_some("a prefix in it is preferred for longer than it is valid")
    }
}
