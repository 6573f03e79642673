//! ARP and neighbour discovery as one conversation: who asks for whom, who tells where it is.

use core::net::IpAddr;

use super::Hearing;
use crate::addr::MacAddr;
use crate::parse::{Arp, NeighborDiscovery};

/// A question or a statement about an address, whatever protocol carried it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// "Who has `target`?"
    Ask {
        /// Whose MAC address is asked for.
        target: IpAddr,
        /// Who asks, unless it is a probe for an address not yet in use.
        sender: Option<IpAddr>,
        /// The asker's MAC address, when the message tells it.
        mac: Option<MacAddr>,
    },
    /// "`address` is at `mac`."
    Tell {
        /// Who.
        address: IpAddr,
        /// Where, when the message tells it.
        mac: Option<MacAddr>,
        /// What the statement is worth.
        hearing: Hearing,
    },
}

impl Discovery {
    /// Reads an ARP packet that came in a frame to `destination`; `None` for other operations than request and reply.
    pub fn from_arp(arp: &Arp, destination: MacAddr) -> Option<Self> {
        const REQUEST: u16 = 1;
        const REPLY: u16 = 2;
        let sender = IpAddr::V4(arp.sender);
        match arp.operation {
            // A request for the sender's own address announces it (RFC 5227 section 2.3).
            REQUEST if arp.sender == arp.target => {
                Some(Self::Tell { address: sender, mac: Some(arp.sender_mac), hearing: Hearing::Gratuitous })
            }
            REQUEST => Some(Self::Ask {
                target: IpAddr::V4(arp.target),
                sender: (!arp.sender.is_unspecified()).then_some(sender),
                mac: Some(arp.sender_mac),
            }),
            REPLY => {
                let hearing = if destination.is_multicast() { Hearing::Gratuitous } else { Hearing::Answer };
                Some(Self::Tell { address: sender, mac: Some(arp.sender_mac), hearing })
            }
            _ => None,
        }
    }

    /// Reads a neighbour discovery message from `source`; `None` for those of routers.
    pub fn from_ndisc(source: IpAddr, message: &NeighborDiscovery) -> Option<Self> {
        match *message {
            NeighborDiscovery::Solicit { target, source_link, .. } => Some(Self::Ask {
                target: IpAddr::V6(target),
                sender: (!source.is_unspecified()).then_some(source),
                mac: source_link,
            }),
            NeighborDiscovery::Advert { target, target_link, solicited, override_, .. } => {
                let hearing = Hearing::Advertisement { solicited, override_flag: override_ };
                Some(Self::Tell { address: IpAddr::V6(target), mac: target_link, hearing })
            }
            NeighborDiscovery::RouterSolicit
            | NeighborDiscovery::RouterAdvert
            | NeighborDiscovery::Redirect => None,
        }
    }
}
