//! Neighbours: who is asked, what is answered, and the packets that wait (RFC 826, RFC 4861).

use core::net::IpAddr;
use core::time::Duration;

use super::config::HostLimits;
use super::link::{Link, ethertype_of};
use crate::addr::{MacAddr, SegmentId};
use crate::config::Limits;
use crate::emit::{self, ALL_NODES, solicited_node};
use crate::frame::Frame;
use crate::neighbor::{
    Adjacency, Discovery, Heard, Hearing, NeighborAction, NeighborTimers, Neighbors, Parked, Parking,
    Resolving,
};
use crate::parse::{self, Arp};
use crate::seed::Seed;
use crate::verdict::DropReason;

/// The host's only link, as the table of neighbours names it.
const SEGMENT: SegmentId = SegmentId(0);

/// A host believes an answer for at most 30 s, its random factor included (RFC 4861 section 10, REACHABLE_TIME). It has no
/// hints from above that a delay before the first probe could wait for. And a packet of its own is worth asking again for
/// a neighbour that failed: there is no steady stream from elsewhere.
fn timers() -> NeighborTimers {
    NeighborTimers {
        reachable: Duration::from_secs(20),
        delay_first_probe: Duration::ZERO,
        failed_hold: Duration::ZERO,
        ..NeighborTimers::default()
    }
}

/// An empty table of neighbours, and room for what waits for them. What waits is bounded in packets alone.
pub(super) fn tables(limits: &HostLimits, seed: &Seed) -> (Neighbors, Parked<()>) {
    let limits = Limits {
        neighbors: limits.neighbors,
        parked_per_neighbor: limits.parked_per_neighbor,
        parked: limits.parked,
        parked_bytes: usize::MAX,
        ..Limits::default()
    };
    (Neighbors::new(&limits, seed, timers()), Parked::new(&limits))
}

impl Link {
    /// Whether a frame to this station is for us: ours, broadcast, or an IPv6 group that we listen to.
    pub(super) fn hears(&self, destination: MacAddr) -> bool {
        destination == self.mac
            || destination.is_broadcast()
            || self.groups().any(|group| destination == MacAddr::for_multicast(group))
    }

    /// Whether a packet to this group is for us.
    pub(super) fn hears_group(&self, group: IpAddr) -> bool {
        self.groups().any(|ours| ours == group)
    }

    /// The IPv6 groups of a node with our addresses (RFC 4291 section 2.8).
    fn groups(&self) -> impl Iterator<Item = IpAddr> {
        let solicited = |address: IpAddr| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(solicited_node(address)),
        };
        let solicited = self.addresses().iter().filter_map(move |net| solicited(net.addr()));
        core::iter::once(ALL_NODES).chain(solicited).map(IpAddr::V6)
    }

    /// Takes in an ARP packet (RFC 826, "Packet Reception").
    pub(super) fn handle_arp(&mut self, arp: &Arp, link: &parse::Link) -> Result<(), DropReason> {
        if !arp.sender_mac.is_valid_source() || arp.sender_mac == self.mac {
            return Err(DropReason::ArpMalformed);
        }
        if let Some(message) = Discovery::from_arp(arp, link.destination) {
            self.discover(message, link.source);
        }
        Ok(())
    }

    /// Takes in what a station asks or tells.
    pub(super) fn discover(&mut self, message: Discovery, station: MacAddr) {
        match message {
            Discovery::Ask { target, sender, mac } => {
                let for_us = self.is_ours(target);
                if let (Some(sender), Some(_)) = (sender, mac) {
                    // Only who can be a neighbour is worth an entry.
                    let new_allowed = for_us && self.is_on_link(sender);
                    let hearing = if new_allowed { Hearing::Solicitation } else { Hearing::Overheard };
                    self.hear(sender, mac, hearing);
                }
                let asker = mac.unwrap_or(station);
                if for_us && asker.is_valid_source() {
                    let own = self.mac;
                    let answer =
                        emit::neighbor_answer(&mut self.pool, target, own, (asker, sender), false, true);
                    if let Some(answer) = answer {
                        self.enqueue(answer);
                    }
                }
            }
            Discovery::Tell { address, mac, hearing } => self.hear(address, mac, hearing),
        }
    }

    /// Takes note of where a neighbour is, and sends what waited to learn it.
    fn hear(&mut self, address: IpAddr, mac: Option<MacAddr>, hearing: Hearing) {
        let heard = self.neighbors.heard(self.now, SEGMENT, address, mac, hearing);
        let (Some(mac), Heard::Resolved { slot }) = (mac, heard) else { return };
        while let Some((frame, ())) = self.parked.take_oldest(slot) {
            self.send_to(frame, mac, ethertype_of(address));
        }
    }

    /// Sends a packet to a neighbour, or lets it wait and asks.
    pub(super) fn send_to_neighbor(&mut self, frame: Frame, address: IpAddr) {
        match self.neighbors.lookup(self.now, SEGMENT, address) {
            Adjacency::Known { mac, slot, .. } => {
                self.neighbors.use_entry(self.now, slot);
                self.send_to(frame, mac, ethertype_of(address));
            }
            Adjacency::Pending { .. } | Adjacency::Unknown | Adjacency::Failed => self.park(frame, address),
        }
    }

    fn park(&mut self, frame: Frame, address: IpAddr) {
        let Ok(Resolving { slot, solicit }) = self.neighbors.resolve(self.now, SEGMENT, address) else {
            self.counters.neighbors_full += 1;
            return self.pool.recycle(frame);
        };
        match self.parked.park(slot, frame, ()) {
            Parking::Parked => {}
            Parking::ParkedDroppingOldest(frame, ()) | Parking::Refused(frame, ()) => {
                self.counters.parked_full += 1;
                self.pool.recycle(frame);
            }
        }
        if solicit {
            self.ask(address, None);
        }
    }

    fn ask(&mut self, target: IpAddr, unicast: Option<MacAddr>) {
        let Some(source) = self.source_for(target) else { return };
        let question = emit::neighbor_question(&mut self.pool, self.mac, source, target, unicast);
        if let Some(question) = question {
            self.enqueue(question);
        }
    }

    /// Asks every question that is due, up to the next neighbour that did not answer: what waited for it is dropped.
    pub(super) fn poll_failed(&mut self) -> Option<IpAddr> {
        while self.neighbors.next_timeout().is_some_and(|at| at <= self.now) {
            let mut due = None;
            self.neighbors.handle_timeout(self.now, 1, &mut |action| due = Some(action));
            match due {
                Some(NeighborAction::Solicit { ip, unicast_to, .. }) => self.ask(ip, unicast_to),
                Some(NeighborAction::Failed { ip, slot, .. }) => {
                    while let Some((frame, ())) = self.parked.take_oldest(slot) {
                        self.counters.neighbor_failed += 1;
                        self.pool.recycle(frame);
                    }
                    return Some(ip);
                }
                None => {}
            }
        }
        None
    }
}
