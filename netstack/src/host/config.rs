//! What a host is made from, and what it counts.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use ipnet::IpNet;

use crate::addr::MacAddr;
use crate::frame::MAX_FRAME;
use crate::verdict::DropReason;

/// The smallest MTU of a host: what every IPv4 host must be able to receive (RFC 791 section 3.2).
pub const MIN_MTU: usize = 576;
/// The smallest MTU that carries IPv6 (RFC 8200 section 5); a host under it speaks IPv4 alone.
pub const MIN_MTU_V6: usize = 1280;
/// The largest MTU: an IPv4 packet's total length.
pub const MAX_MTU: usize = 65535;

/// What a [`Host`](super::Host) is made from.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The host's Ethernet address.
    pub mac: MacAddr,
    /// Its addresses with the prefixes that are on the link. The IPv6 link-local address made from `mac` comes in
    /// addition, unless the MTU is under [`MIN_MTU_V6`].
    pub addresses: Vec<IpNet>,
    /// The next hop of IPv4 packets to elsewhere. It need not be inside a prefix of `addresses`.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The next hop of IPv6 packets to elsewhere.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The largest IP packet, in octets: [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: usize,
    /// Bounds of every table and queue.
    pub limits: HostLimits,
    /// How long TCP waits for what.
    pub timers: HostTimers,
    /// How TCP reacts to loss.
    pub congestion: Congestion,
}

impl HostConfig {
    /// A host with one MAC address, these addresses, no gateway, an MTU of 1500 and default limits.
    pub fn new(mac: MacAddr, addresses: Vec<IpNet>) -> Self {
        Self {
            mac,
            addresses,
            gateway_v4: None,
            gateway_v6: None,
            mtu: 1500,
            limits: HostLimits::default(),
            timers: HostTimers::default(),
            congestion: Congestion::default(),
        }
    }

    /// Says what is wrong, if anything is.
    pub(super) fn check(&self) -> Result<(), HostConfigError> {
        if !self.mac.is_valid_source() {
            return Err(HostConfigError::Mac(self.mac));
        }
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) || self.mtu + 14 > MAX_FRAME {
            return Err(HostConfigError::Mtu(self.mtu));
        }
        for &net in &self.addresses {
            let address = net.addr();
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(HostConfigError::Address(net));
            }
            if address.is_ipv6() && self.mtu < MIN_MTU_V6 {
                return Err(HostConfigError::MtuForV6(self.mtu));
            }
        }
        let limits = &self.limits;
        if limits.send_buffer == 0 || limits.receive_buffer == 0 || limits.receive_buffer > 1 << 30 {
            return Err(HostConfigError::Buffer);
        }
        Ok(())
    }
}

/// A configuration that no host can be made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostConfigError {
    /// A group address, or all zero.
    #[error("{0} cannot be a host's MAC address: it is a group address or all zero")]
    Mac(MacAddr),
    /// Under [`MIN_MTU`] or over [`MAX_MTU`].
    #[error("an MTU of {0} octets is outside 576 to 65535")]
    Mtu(usize),
    /// An IPv6 address with an MTU under [`MIN_MTU_V6`].
    #[error("an MTU of {0} octets carries no IPv6, which needs 1280")]
    MtuForV6(usize),
    /// Not an address that a host can have.
    #[error("{0} cannot be a host's address: it is unspecified, multicast or loopback")]
    Address(IpNet),
    /// A TCP buffer without room, or a receive buffer over 1 GiB, which window scaling cannot offer (RFC 7323
    /// section 2.3).
    #[error("a TCP buffer must hold at least one octet, and a receive buffer at most 1 GiB")]
    Buffer,
}

/// Bounds of a host. At each bound something named happens and is counted in [`HostCounters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostLimits {
    /// TCP connections in any state, TIME-WAIT included. At the limit those make room that have been in TIME-WAIT for longest
    /// and that their owner has let go of; if there are none a connect is refused with an error, and a SYN is answered by
    /// nothing, so that its sender tries again.
    pub tcp_flows: u32,
    /// Closed connections whose buffers are kept for the next ones.
    pub idle_flows: usize,
    /// TCP listeners.
    pub tcp_listeners: u32,
    /// Connections per listener that are in their handshake or wait to be accepted. At the limit a SYN is answered by
    /// nothing.
    pub backlog: usize,
    /// Octets of receive buffer per connection, the largest window offered.
    pub receive_buffer: usize,
    /// Octets of send buffer per connection.
    pub send_buffer: usize,
    /// UDP sockets.
    pub udp_sockets: u32,
    /// Datagrams waiting per UDP socket; more are dropped.
    pub udp_datagrams: usize,
    /// Octets of buffers held by datagrams waiting per UDP socket; more are dropped.
    pub udp_bytes: usize,
    /// Neighbours known or asked for; at the limit those that failed or have not answered for long make room, else
    /// packets are dropped.
    pub neighbors: u32,
    /// Packets waiting for one neighbour's MAC address; the oldest makes room (RFC 1122 section 2.3.2.2).
    pub parked_per_neighbor: u32,
    /// Packets waiting for all neighbours; more are dropped.
    pub parked: u32,
    /// Destinations with a path MTU of their own; at the limit a new one is reported but not remembered.
    pub path_mtus: u32,
    /// Frames waiting to be sent that were not made on demand (replies, datagrams, unparked packets); more are
    /// dropped.
    pub transmit_queue: usize,
    /// Events waiting to be polled; the oldest is dropped.
    pub events: usize,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            tcp_flows: 4096,
            idle_flows: 64,
            tcp_listeners: 64,
            backlog: 128,
            receive_buffer: 64 * 1024,
            send_buffer: 64 * 1024,
            udp_sockets: 64,
            udp_datagrams: 256,
            udp_bytes: 1024 * 1024,
            neighbors: 256,
            parked_per_neighbor: 16,
            parked: 128,
            path_mtus: 256,
            transmit_queue: 1024,
            events: 1024,
        }
    }
}

/// How long TCP waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostTimers {
    /// For the answer to our SYN.
    pub connect: Duration,
    /// For the end of a handshake that the other side began.
    pub handshake: Duration,
    /// For an acknowledgement of data or a FIN; at least 100 s (RFC 9293 section 3.8.3, R2).
    pub user: Duration,
    /// For the other side's FIN once nobody holds the connection any more.
    pub orphan: Duration,
}

impl Default for HostTimers {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(60),
            handshake: Duration::from_secs(30),
            user: Duration::from_secs(120),
            orphan: Duration::from_secs(60),
        }
    }
}

/// How TCP reacts to loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Congestion {
    /// Slow start and congestion avoidance (RFC 5681), as a TCP on a shared network must.
    #[default]
    Reno,
    /// None: the peer's window alone limits, for links without loss.
    None,
}

/// What a host has done so far. Octets are counted without preamble and FCS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCounters {
    /// Frames that entered.
    pub rx_frames: u64,
    /// Octets that entered.
    pub rx_bytes: u64,
    /// Frames handed out.
    pub tx_frames: u64,
    /// Octets handed out.
    pub tx_bytes: u64,
    /// Frames that entered and were of use.
    pub consumed: u64,
    /// Frames that entered and were dropped, by reason.
    pub drops: [u64; DropReason::ALL.len()],
    /// Fragments that entered and were dropped: a host does not reassemble.
    pub fragments: u64,
    /// SYNs dropped because their listener's backlog was full.
    pub backlog_full: u64,
    /// SYNs dropped because the table of connections was full.
    pub tcp_table_full: u64,
    /// Connects refused because the table of connections was full.
    pub connects_refused: u64,
    /// Connections that left TIME-WAIT early to make room for others.
    pub time_waits_shortened: u64,
    /// Datagrams dropped because their socket's queue was full.
    pub udp_queue_full: u64,
    /// Packets on their way out that were dropped because too many waited for a neighbour.
    pub parked_full: u64,
    /// Packets on their way out that were dropped because the table of neighbours was full.
    pub neighbors_full: u64,
    /// Packets on their way out that were dropped because their neighbour did not answer.
    pub neighbor_failed: u64,
    /// Frames on their way out that were dropped because the transmit queue was full.
    pub transmit_full: u64,
    /// ICMP errors not sent because of the rate limit (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).
    pub icmp_limited: u64,
    /// Events dropped because nobody polled them.
    pub events_lost: u64,
    /// Sets of TCP buffers taken from the allocator: stands still once the host is warm.
    pub buffers_allocated: u64,
}

impl Default for HostCounters {
    fn default() -> Self {
        Self {
            rx_frames: 0,
            rx_bytes: 0,
            tx_frames: 0,
            tx_bytes: 0,
            consumed: 0,
            drops: [0; DropReason::ALL.len()],
            fragments: 0,
            backlog_full: 0,
            tcp_table_full: 0,
            connects_refused: 0,
            time_waits_shortened: 0,
            udp_queue_full: 0,
            parked_full: 0,
            neighbors_full: 0,
            neighbor_failed: 0,
            transmit_full: 0,
            icmp_limited: 0,
            events_lost: 0,
            buffers_allocated: 0,
        }
    }
}

impl HostCounters {
    /// Frames dropped on entry for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// Whether every frame that entered is accounted for by exactly one fate.
    pub fn balanced(&self) -> bool {
        let refused = self.fragments + self.backlog_full + self.tcp_table_full + self.udp_queue_full;
        self.rx_frames == self.consumed + self.drops.iter().sum::<u64>() + refused
    }
}
