//! The tuple that identifies a flow.

use core::net::IpAddr;

/// Addresses, protocol and L4 ports. For ICMP queries the identifier stands in both ports; where there are no ports (a
/// fragment, another protocol) they are 0, so that every fragment of a datagram has the same key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number of the upper layer.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}
