//! What smoltcp sees of the network: one packet in, packets out through the [`Link`].

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};

use super::link::{Link, PACKET_AT};

/// smoltcp's time.
pub(super) fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// Our time.
pub(super) fn duration(instant: Instant) -> Duration {
    Duration::from_micros(u64::try_from(instant.total_micros()).unwrap_or(0))
}

/// The network of one flow for the length of one call.
pub(super) struct FlowDevice<'a> {
    pub(super) link: &'a mut Link,
    /// The flow's other end.
    pub(super) remote: IpAddr,
    pub(super) mtu: usize,
    /// The packet that came in, until it is taken.
    pub(super) received: Option<&'a [u8]>,
    /// The sequence number of the last segment sent.
    pub(super) sequence: &'a mut u32,
}

/// What a flow's interface is told. Checksums of arriving packets are judged before they get here, because what is
/// known of them travels with the frame.
pub(super) fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut checksum = ChecksumCapabilities::default();
    checksum.ipv4 = Checksum::Tx;
    checksum.tcp = Checksum::Tx;
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum = checksum;
    capabilities
}

impl FlowDevice<'_> {
    fn token(&mut self) -> Transmit<'_> {
        Transmit { link: self.link, remote: self.remote, sequence: self.sequence }
    }
}

impl phy::Device for FlowDevice<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Transmit<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), self.token()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(self.token())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// One packet that came in.
pub(super) struct Received<'a>(&'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// The right to send one packet.
pub(super) struct Transmit<'a> {
    link: &'a mut Link,
    remote: IpAddr,
    sequence: &'a mut u32,
}

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = self.link.packet(len);
        let result = f(&mut frame.bytes_mut()[PACKET_AT..]);
        // smoltcp writes neither IP options nor extension headers.
        let header = if self.remote.is_ipv4() { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
        if let Some(&[a, b, c, d]) = frame.bytes().get(PACKET_AT + header + 4..PACKET_AT + header + 8) {
            *self.sequence = u32::from_be_bytes([a, b, c, d]);
        }
        self.link.send(frame, self.remote);
        result
    }
}
