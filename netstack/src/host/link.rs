//! The host's way to the wire: addresses, next hops, path MTUs and the transmit queue.
//!
//! # Theory of operation
//! Whoever has a packet asks [`Link::packet`] for a frame with room for the Ethernet header, writes the packet behind
//! it, and hands it to [`Link::send`] with its destination. The next hop is the destination itself when it lies in a
//! prefix of ours, else the gateway of its family; the neighbour table gives the MAC address or keeps the packet. What
//! can leave waits in one queue; a full queue drops the newest and counts it.
//!
//! A path MTU is learned from ICMP and forgotten after ten minutes (RFC 1191 section 6.3, RFC 8201 section 4).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr};

use super::config::{HostConfig, HostCounters, MIN_MTU, MIN_MTU_V6};
use super::resolution;
use crate::addr::MacAddr;
use crate::frame::{Frame, FrameBatch, FramePool};
use crate::neighbor::{Neighbors, Parked};
use crate::parse::ethertype;
use crate::seed::Seed;
use crate::table::BoundedMap;

/// Where a packet begins in a frame of ours: behind an Ethernet header without a tag.
pub(super) const PACKET_AT: usize = 14;
/// The hop limit of packets whose sender did not choose (RFC 1700, "IP TIME TO LIVE PARAMETER").
pub(super) const DEFAULT_HOP_LIMIT: u8 = 64;
/// How long a path MTU is believed (RFC 1191 section 6.3, RFC 8201 section 4).
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(600);

/// Where a packet goes first.
enum NextHop {
    Group(MacAddr),
    Neighbor(IpAddr),
}

#[derive(Debug)]
pub(super) struct Link {
    /// The time of the last call that carried one.
    pub(super) now: Duration,
    pub(super) mac: MacAddr,
    pub(super) mtu: usize,
    /// The hop limit that the sockets' packets get.
    pub(super) hop_limit: u8,
    pub(super) pool: FramePool,
    pub(super) counters: HostCounters,
    pub(super) neighbors: Neighbors,
    pub(super) parked: Parked<()>,
    addresses: Vec<IpNet>,
    gateway_v4: Option<Ipv4Addr>,
    gateway_v6: Option<Ipv6Addr>,
    path_mtus: BoundedMap<IpAddr, (usize, Duration)>,
    queue: VecDeque<Frame>,
    queue_limit: usize,
}

impl Link {
    pub(super) fn new(config: &HostConfig, seed: &Seed) -> Self {
        let mut addresses = config.addresses.clone();
        if config.mtu >= MIN_MTU_V6 {
            addresses.push(IpNet::V6(Ipv6Net::new_assert(config.mac.link_local(), 64)));
        }
        let (neighbors, parked) = resolution::tables(&config.limits, seed);
        Self {
            now: Duration::ZERO,
            mac: config.mac,
            mtu: config.mtu,
            hop_limit: DEFAULT_HOP_LIMIT,
            pool: FramePool::new(),
            counters: HostCounters::default(),
            neighbors,
            parked,
            addresses,
            gateway_v4: config.gateway_v4,
            gateway_v6: config.gateway_v6,
            path_mtus: BoundedMap::new(config.limits.path_mtus, seed.hasher("host path mtu")),
            queue: VecDeque::with_capacity(config.limits.transmit_queue),
            queue_limit: config.limits.transmit_queue,
        }
    }

    pub(super) fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// Whether the address is one of ours.
    pub(super) fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }

    /// Whether this reaches every host on the link: limited broadcast, or that of a prefix of ours.
    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        let directed = |net: &IpNet| match net {
            IpNet::V4(net) => net.prefix_len() < 31 && net.broadcast() == address,
            IpNet::V6(_) => false,
        };
        address.is_broadcast() || self.addresses.iter().any(directed)
    }

    /// The address to send from: one that shares a prefix with the destination, else the first of the same family that
    /// is not confined to the link.
    pub(super) fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let of_family = || self.addresses.iter().filter(|net| net.addr().is_ipv4() == destination.is_ipv4());
        let on_link = of_family().filter(|net| net.contains(&destination)).max_by_key(|net| net.prefix_len());
        let link_scope = |address: IpAddr| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(a) => a.is_unicast_link_local() || (a.is_multicast() && a.segments()[0] & 0xf == 2),
        };
        let wanted = link_scope(destination);
        on_link
            .or_else(|| of_family().find(|net| link_scope(net.addr()) == wanted))
            .or_else(|| of_family().next())
            .map(IpNet::addr)
    }

    /// Whether a packet to this destination has somewhere to go.
    pub(super) fn has_route(&self, destination: IpAddr) -> bool {
        self.next_hop(destination).is_some()
    }

    /// The neighbour that packets to this destination go through.
    pub(super) fn neighbor_for(&self, destination: IpAddr) -> Option<IpAddr> {
        match self.next_hop(destination)? {
            NextHop::Neighbor(address) => Some(address),
            NextHop::Group(_) => None,
        }
    }

    /// Whether the address is one that packets of ours are sent to on this link.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        let gateway = match address {
            IpAddr::V4(a) => self.gateway_v4 == Some(a),
            IpAddr::V6(a) => self.gateway_v6 == Some(a),
        };
        gateway || self.addresses.iter().any(|net| net.contains(&address))
    }

    fn next_hop(&self, destination: IpAddr) -> Option<NextHop> {
        if destination.is_multicast() {
            return Some(NextHop::Group(MacAddr::for_multicast(destination)));
        }
        if self.is_broadcast(destination) {
            return Some(NextHop::Group(MacAddr::BROADCAST));
        }
        if destination.is_unspecified() || destination.is_loopback() || self.is_ours(destination) {
            return None;
        }
        if self.addresses.iter().any(|net| net.contains(&destination)) {
            return Some(NextHop::Neighbor(destination));
        }
        let gateway = match destination {
            IpAddr::V4(_) => self.gateway_v4.map(IpAddr::V4),
            IpAddr::V6(a) if a.is_unicast_link_local() => None,
            IpAddr::V6(_) => self.gateway_v6.map(IpAddr::V6),
        };
        gateway.map(NextHop::Neighbor)
    }

    /// A frame with room for a packet of `len` octets at [`PACKET_AT`]; the caller writes every octet of the packet.
    pub(super) fn packet(&mut self, len: usize) -> Frame {
        self.pool.take(PACKET_AT + len)
    }

    /// A frame with an IP header in place, and where its payload begins. The addresses are of one family.
    pub(super) fn ip_packet(
        &mut self,
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        payload: usize,
        hop_limit: u8,
    ) -> (Frame, usize) {
        let header =
            IpRepr::new(source.into(), destination.into(), IpProtocol::from(protocol), payload, hop_limit);
        let mut frame = self.packet(header.buffer_len());
        header.emit(&mut frame.bytes_mut()[PACKET_AT..], &ChecksumCapabilities::default());
        (frame, PACKET_AT + header.header_len())
    }

    /// Sends a packet to its destination, by way of its next hop.
    pub(super) fn send(&mut self, frame: Frame, destination: IpAddr) {
        match self.next_hop(destination) {
            None => self.pool.recycle(frame),
            Some(NextHop::Group(mac)) => self.send_to(frame, mac, ethertype_of(destination)),
            Some(NextHop::Neighbor(address)) => self.send_to_neighbor(frame, address),
        }
    }

    /// Sends what follows the Ethernet header to one station.
    pub(super) fn send_to(&mut self, mut frame: Frame, destination: MacAddr, ethertype: u16) {
        let header = &mut frame.bytes_mut()[..PACKET_AT];
        header[..6].copy_from_slice(&destination.0);
        header[6..12].copy_from_slice(&self.mac.0);
        header[12..].copy_from_slice(&ethertype.to_be_bytes());
        self.enqueue(frame);
    }

    /// Sends a finished frame.
    pub(super) fn enqueue(&mut self, frame: Frame) {
        if self.queue.len() >= self.queue_limit {
            self.counters.transmit_full += 1;
            self.pool.recycle(frame);
            return;
        }
        self.queue.push_back(frame);
    }

    /// Moves waiting frames into the batch.
    pub(super) fn drain_into(&mut self, batch: &mut FrameBatch) {
        while let Some(frame) = self.queue.pop_front() {
            let len = frame.len() as u64;
            if let Err(frame) = batch.push(frame) {
                self.queue.push_front(frame);
                return;
            }
            self.counters.tx_frames += 1;
            self.counters.tx_bytes += len;
        }
    }

    /// The largest packet that reaches this destination whole, as far as is known.
    pub(super) fn path_mtu(&self, destination: IpAddr) -> usize {
        match self.path_mtus.get(&destination) {
            Some(&(mtu, expires)) if expires > self.now => mtu.min(self.mtu),
            _ => self.mtu,
        }
    }

    /// Takes in a router's word that packets to this destination must be smaller, and says how large they may be. An
    /// MTU under the family's minimum is raised to it (RFC 8201 section 4), a larger one than known is ignored.
    pub(super) fn lower_path_mtu(&mut self, destination: IpAddr, mtu: usize) -> usize {
        let floor = if destination.is_ipv4() { MIN_MTU } else { MIN_MTU_V6 };
        let mtu = mtu.max(floor).min(self.path_mtu(destination));
        let now = self.now;
        if self.path_mtus.len() == self.path_mtus.capacity() {
            self.path_mtus.sweep(16, |_, &(_, expires)| expires <= now, |_, _| ());
        }
        // A full table forgets this one: the next large packet will be answered by the same router.
        let _ = self.path_mtus.insert(destination, (mtu, now + PATH_MTU_LIFETIME));
        mtu
    }
}

/// The EtherType of packets to this address.
pub(super) fn ethertype_of(address: IpAddr) -> u16 {
    if address.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(addresses: &[&str]) -> Link {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let mut config = HostConfig::new(MacAddr::local(1), addresses);
        config.gateway_v4 = Some(Ipv4Addr::new(169, 254, 1, 1));
        Link::new(&config, &Seed::from_u64(1))
    }

    #[test]
    fn the_source_shares_a_prefix_or_at_least_the_scope() {
        let link = link(&["10.1.0.5/16", "10.1.2.5/24", "192.0.2.7/32", "fd00::5/64"]);
        let source = |to: &str| link.source_for(to.parse().unwrap()).map(|a| alloc::format!("{a}"));
        assert_eq!(source("10.1.9.9").as_deref(), Some("10.1.0.5"));
        assert_eq!(source("10.1.2.9").as_deref(), Some("10.1.2.5"));
        assert_eq!(source("198.51.100.1").as_deref(), Some("10.1.0.5"));
        assert_eq!(source("2001:db8::1").as_deref(), Some("fd00::5"));
        assert_eq!(source("fe80::1"), Some(alloc::format!("{}", MacAddr::local(1).link_local())));
        assert_eq!(source("ff02::1"), Some(alloc::format!("{}", MacAddr::local(1).link_local())));
    }

    #[test]
    fn the_gateway_may_lie_outside_every_prefix() {
        let link = link(&["10.1.0.5/32"]);
        let hop = |to: &str| link.neighbor_for(to.parse().unwrap()).map(|a| alloc::format!("{a}"));
        assert_eq!(hop("10.1.0.6").as_deref(), Some("169.254.1.1"));
        assert_eq!(hop("fe80::9").as_deref(), Some("fe80::9"));
        assert_eq!(hop("2001:db8::1"), None);
        assert_eq!(hop("10.1.0.5"), None);
        assert_eq!(hop("127.0.0.1"), None);
    }

    #[test]
    fn a_path_mtu_falls_to_its_floor_and_is_forgotten() {
        let mut link = link(&["10.1.0.5/24", "fd00::5/64"]);
        let (v4, v6) = ("10.1.0.6".parse().unwrap(), "fd00::6".parse().unwrap());
        assert_eq!(link.lower_path_mtu(v4, 1000), 1000);
        assert_eq!(link.lower_path_mtu(v4, 1200), 1000);
        assert_eq!(link.lower_path_mtu(v4, 68), MIN_MTU);
        assert_eq!(link.lower_path_mtu(v6, 68), MIN_MTU_V6);
        assert_eq!(link.path_mtu(v6), MIN_MTU_V6);
        link.now += PATH_MTU_LIFETIME;
        assert_eq!(link.path_mtu(v6), 1500);
    }
}
