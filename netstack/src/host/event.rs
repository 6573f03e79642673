//! What a host tells its owner.

use alloc::collections::VecDeque;
use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::tcp::{TcpHandle, TcpListener};
use super::udp::UdpHandle;

/// Something happened. At most one event of each kind about a socket waits at a time, so those are never lost; of the
/// others the oldest are dropped and counted when nobody polls.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HostEvent {
    /// A connection changed: it was established, has data or room, ended or failed. Ask its state, receive and send
    /// until they would block; there may turn out to be nothing new.
    TcpReady(TcpHandle),
    /// A connection waits to be accepted.
    TcpIncoming(TcpListener),
    /// A datagram waits.
    UdpReady(UdpHandle),
    /// The answer to a ping.
    EchoReply {
        /// Who answered.
        from: IpAddr,
        /// Identifier and sequence number of the ping.
        id: u16,
        /// Sequence number of the ping.
        sequence: u16,
        /// The hop limit that the answer arrived with.
        hop_limit: u8,
        /// The ping's payload as it came back.
        payload: Bytes,
    },
    /// A router or host could not do something with a packet of ours.
    IcmpError {
        /// Who says so.
        from: IpAddr,
        /// What went wrong.
        error: IcmpError,
        /// The packet it is about.
        quoted: Quoted,
    },
    /// A neighbour did not answer three questions; packets for it were dropped and connects through it failed.
    NeighborFailed {
        /// The neighbour.
        address: IpAddr,
    },
}

/// An ICMP error, of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpError {
    /// Destination unreachable (RFC 792, RFC 4443 section 3.1) with its code, which differs between the families.
    Unreachable {
        /// ICMP or ICMPv6 code.
        code: u8,
    },
    /// Fragmentation needed (RFC 1191) or packet too big (RFC 4443 section 3.2). The path MTU has been lowered already
    /// when the quoted packet was ours beyond doubt.
    PacketTooBig {
        /// The largest packet that fits, in octets, as the router says; 0 from a router that does not say.
        mtu: u32,
    },
    /// Time exceeded (RFC 792, RFC 4443 section 3.3): code 0 on the way, 1 in reassembly.
    TimeExceeded {
        /// ICMP or ICMPv6 code.
        code: u8,
    },
    /// Parameter problem (RFC 792, RFC 4443 section 3.4).
    ParameterProblem {
        /// ICMP or ICMPv6 code.
        code: u8,
    },
}

/// What an ICMP error quotes of the packet it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quoted {
    /// IP protocol number.
    pub protocol: u8,
    /// Our address and source port; port 0 where there is none.
    pub source: SocketAddr,
    /// Where it was sent; port 0 where there is none.
    pub destination: SocketAddr,
    /// Identifier and sequence number of a ping.
    pub echo: Option<(u16, u16)>,
}

/// Events that are not about a socket, bounded.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<HostEvent>,
    limit: usize,
}

impl Events {
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: VecDeque::new(), limit }
    }

    /// Adds an event; returns whether an older one was dropped for it.
    pub(super) fn push(&mut self, event: HostEvent) -> bool {
        if self.limit == 0 {
            return true;
        }
        let full = self.queue.len() >= self.limit;
        if full {
            self.queue.pop_front();
        }
        self.queue.push_back(event);
        full
    }

    pub(super) fn pop(&mut self) -> Option<HostEvent> {
        self.queue.pop_front()
    }
}
