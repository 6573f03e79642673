//! The edge's way to its router: the frames it makes, and the queue they wait in.
//!
//! Everything for the inside goes to one MAC address. Headers are written once the length of what is behind them is known,
//! so that octets go from a socket straight to where they stand in a frame. Checksums of TCP and UDP are left to whoever
//! takes the frame off the link ([`Checksum::Partial`]).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use nat::checksum;
use netstack::addr::MacAddr;
use netstack::emit::{self, IcmpError};
use netstack::flow::FlowKey;
use netstack::frame::{Checksum, Frame, FrameBatch, FramePool, Offload, SegmentKind, Segmentation};
use netstack::offload::fragment_ipv4;
use netstack::parse::{self, ETHERNET_HEADER, Ip, Network, Transport, ethertype, protocol};
use netstack::rate::{Bucket, Pace};

use super::config::{EdgeConfig, EdgeCounters, EdgeDrop};

const HOP_LIMIT: u8 = 64;
pub(super) const TCP_HEADER: usize = 20;
const TCP_CHECKSUM: u16 = 16;
const UDP_HEADER: usize = 8;
const UDP_CHECKSUM: u16 = 6;
/// The header of an IPv6 fragment (RFC 8200 section 4.5), and what names it.
const FRAGMENT_HEADER: usize = 8;
const FRAGMENT: u8 = 44;
/// What of a packet an error must quote: its header and eight octets (RFC 792).
const QUOTED: usize = 8;
/// Errors a second, and at once: pods that try what is forbidden are told so, and not more often than they can use.
const ERRORS: (u32, u32) = (1000, 200);

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) mac: MacAddr,
    pub(super) router: MacAddr,
    pub(super) mtu: usize,
    addresses: Vec<IpAddr>,
    pub(super) pool: FramePool,
    queue: VecDeque<Frame>,
    limit: usize,
    /// Of the next packet in fragments.
    identification: u32,
    errors: Bucket,
}

/// What stands in a TCP header besides ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpHeader<'a> {
    pub(super) flags: u8,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) window: u16,
    /// A multiple of four octets.
    pub(super) options: &'a [u8],
}

impl Link {
    pub(super) fn new(config: &EdgeConfig, pool: FramePool, identification: u32) -> Self {
        Self {
            mac: config.mac,
            router: config.router,
            mtu: usize::from(config.mtu),
            addresses: config.addresses.clone(),
            pool,
            queue: VecDeque::new(),
            limit: config.limits.queue,
            identification,
            errors: Bucket::default(),
        }
    }

    /// The edge's own address of the same family.
    pub(super) fn own(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|own| own.is_ipv4() == like.is_ipv4())
    }

    /// Whether neighbours are told our MAC address for this one.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || address == IpAddr::V6(self.mac.link_local())
    }

    /// Has a frame wait to be sent.
    pub(super) fn enqueue(&mut self, frame: Frame, counters: &mut EdgeCounters) {
        if self.queue.len() >= self.limit {
            counters.drop(EdgeDrop::QueueFull);
            return self.pool.recycle(frame);
        }
        self.queue.push_back(frame);
    }

    /// Moves waiting frames into the batch; false if it is full before all are in.
    pub(super) fn drain_into(&mut self, batch: &mut FrameBatch) -> bool {
        while let Some(frame) = self.queue.pop_front() {
            if let Err(frame) = batch.push(frame) {
                self.queue.push_front(frame);
                return false;
            }
        }
        true
    }

    /// Octets of an IP header like this address's, as we write it.
    pub(super) const fn ip_header(like: IpAddr) -> usize {
        match like {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        }
    }

    /// A frame with room for a segment to the source of `key` with so many octets, and where these stand.
    pub(super) fn segment_room(&mut self, key: &FlowKey, octets: usize) -> (Frame, usize) {
        let at = ETHERNET_HEADER + Self::ip_header(key.source) + TCP_HEADER;
        (self.pool.take(at + octets), at)
    }

    /// Writes the headers of a segment from [`Link::segment_room`] that holds so many octets now, which are to be cut into
    /// segments of `size`.
    pub(super) fn finish_segment(
        &mut self,
        mut frame: Frame,
        key: &FlowKey,
        header: &TcpHeader<'_>,
        octets: usize,
        size: u16,
    ) -> Frame {
        let at = ETHERNET_HEADER + Self::ip_header(key.source);
        let upper = TCP_HEADER + header.options.len() + octets;
        let fits = frame.set_len(at + upper);
        debug_assert!(fits, "room was taken for it");
        let frame = self.shortened(frame);
        let mut frame = self.headers(frame, (key.destination, key.source), protocol::TCP, upper, None);
        let bytes = &mut frame.bytes_mut()[at..];
        bytes[..2].copy_from_slice(&key.destination_port.to_be_bytes());
        bytes[2..4].copy_from_slice(&key.source_port.to_be_bytes());
        bytes[4..8].copy_from_slice(&header.sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&header.acknowledgement.to_be_bytes());
        let words = (TCP_HEADER + header.options.len()) / 4;
        bytes[12] = u8::try_from(words).unwrap_or(0) << 4;
        bytes[13] = header.flags;
        bytes[14..16].copy_from_slice(&header.window.to_be_bytes());
        bytes[18..20].fill(0);
        bytes[TCP_HEADER..TCP_HEADER + header.options.len()].copy_from_slice(header.options);
        partial(&mut frame, at, TCP_CHECKSUM, (key.destination, key.source), protocol::TCP);
        if octets > usize::from(size) {
            let kind = if key.source.is_ipv4() { SegmentKind::TcpV4 } else { SegmentKind::TcpV6 };
            frame.offload.segmentation = Some(Segmentation { kind, size, ecn: false });
        }
        frame
    }

    /// A segment without octets.
    pub(super) fn bare_segment(&mut self, key: &FlowKey, header: &TcpHeader<'_>) -> Frame {
        let (frame, _) = self.segment_room(key, header.options.len());
        self.finish_segment(frame, key, header, 0, u16::MAX)
    }

    /// A long frame that holds little becomes a short one, so that the long ones are few and stay in cache.
    fn shortened(&mut self, frame: Frame) -> Frame {
        const SHORT: usize = 1600;
        if !frame.is_large() || frame.len() > SHORT {
            return frame;
        }
        let short = self.pool.copy_of(frame.bytes());
        self.pool.recycle(frame);
        short
    }

    /// Sends a datagram to the source of `key`, in fragments if it is long.
    pub(super) fn send_datagram(&mut self, key: &FlowKey, payload: &[u8], counters: &mut EdgeCounters) {
        let ends = (key.destination, key.source);
        let at = ETHERNET_HEADER + Self::ip_header(key.source);
        let upper = UDP_HEADER + payload.len();
        let Ok(length) = u16::try_from(upper) else { return counters.drop(EdgeDrop::Malformed) };
        let mut frame = self.pool.take(at + upper);
        let bytes = &mut frame.bytes_mut()[at..];
        bytes[..2].copy_from_slice(&key.destination_port.to_be_bytes());
        bytes[2..4].copy_from_slice(&key.source_port.to_be_bytes());
        bytes[4..6].copy_from_slice(&length.to_be_bytes());
        bytes[6..8].fill(0);
        bytes[UDP_HEADER..].copy_from_slice(payload);
        partial(&mut frame, at, UDP_CHECKSUM, ends, protocol::UDP);
        self.send_packet(frame, ends, protocol::UDP, upper, counters);
    }

    /// Sends an ICMP message whose checksum is right to the source of `key`, in fragments if it is long.
    pub(super) fn send_icmp(&mut self, key: &FlowKey, message: &[u8], counters: &mut EdgeCounters) {
        let at = ETHERNET_HEADER + Self::ip_header(key.source);
        let mut frame = self.pool.take(at + message.len());
        frame.bytes_mut()[at..].copy_from_slice(message);
        frame.offload = Offload::default();
        let ends = (key.destination, key.source);
        self.send_packet(frame, ends, key.protocol, message.len(), counters);
    }

    fn send_packet(
        &mut self,
        frame: Frame,
        ends: (IpAddr, IpAddr),
        protocol: u8,
        upper: usize,
        counters: &mut EdgeCounters,
    ) {
        let header = Self::ip_header(ends.0);
        if header + upper <= self.mtu {
            let frame = self.headers(frame, ends, protocol, upper, None);
            return self.enqueue(frame, counters);
        }
        self.identification = self.identification.wrapping_add(1);
        match ends.0 {
            IpAddr::V4(_) => self.fragments_v4(frame, ends, protocol, upper, counters),
            IpAddr::V6(_) => self.fragments_v6(frame, ends, protocol, counters),
        }
    }

    fn fragments_v4(
        &mut self,
        frame: Frame,
        ends: (IpAddr, IpAddr),
        protocol: u8,
        upper: usize,
        counters: &mut EdgeCounters,
    ) {
        if u16::try_from(20 + upper).is_err() {
            counters.drop(EdgeDrop::Malformed);
            return self.pool.recycle(frame);
        }
        let identification = self.identification;
        let frame = self.headers(frame, ends, protocol, upper, Some(identification));
        let mut pieces = Vec::new();
        let cut = parsed(&frame).and_then(|ip| {
            fragment_ipv4(&frame, &ip, self.mtu, &mut self.pool, &mut |piece| pieces.push(piece)).ok()
        });
        self.pool.recycle(frame);
        if cut.is_none() {
            counters.drop(EdgeDrop::Malformed);
        }
        for piece in pieces {
            self.enqueue(piece, counters);
        }
    }

    /// IPv6 is fragmented by its sender, which we are to the pod.
    fn fragments_v6(
        &mut self,
        mut frame: Frame,
        ends: (IpAddr, IpAddr),
        protocol: u8,
        counters: &mut EdgeCounters,
    ) {
        let at = ETHERNET_HEADER + Self::ip_header(ends.0);
        // The checksum covers what will be in several frames.
        complete(&mut frame, at);
        let identification = self.identification.to_be_bytes();
        let room = (self.mtu - Self::ip_header(ends.0) - FRAGMENT_HEADER) & !7;
        let whole = frame.bytes()[at..].len();
        for offset in (0..whole).step_by(room) {
            let count = room.min(whole - offset);
            let more = u16::from(offset + count < whole);
            let mut piece = self.pool.take(at + FRAGMENT_HEADER + count);
            let bytes = &mut piece.bytes_mut()[at..];
            bytes[..2].copy_from_slice(&[protocol, 0]);
            // The offset counts in units of eight octets and stands above three bits: as if it counted in octets.
            let place = u16::try_from(offset).unwrap_or(u16::MAX) | more;
            bytes[2..4].copy_from_slice(&place.to_be_bytes());
            bytes[4..8].copy_from_slice(&identification);
            bytes[FRAGMENT_HEADER..].copy_from_slice(&frame.bytes()[at + offset..at + offset + count]);
            piece.offload = Offload::default();
            let piece = self.headers(piece, ends, FRAGMENT, FRAGMENT_HEADER + count, None);
            self.enqueue(piece, counters);
        }
        self.pool.recycle(frame);
    }

    /// Writes Ethernet and IP headers in front of so many octets of an upper layer. Without an identification the packet
    /// must not be fragmented, and needs none (RFC 6864 section 4.1).
    fn headers(
        &self,
        mut frame: Frame,
        (source, destination): (IpAddr, IpAddr),
        protocol: u8,
        upper: usize,
        identification: Option<u32>,
    ) -> Frame {
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&self.router.0);
        bytes[6..12].copy_from_slice(&self.mac.0);
        let (link, packet) = bytes.split_at_mut(ETHERNET_HEADER);
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                link[12..].copy_from_slice(&ethertype::IPV4.to_be_bytes());
                let length = u16::try_from(20 + upper).unwrap_or(u16::MAX);
                let [.., high, low] = identification.unwrap_or(0).to_be_bytes();
                let unfragmented = if identification.is_none() { 0x40 } else { 0 };
                packet[..2].copy_from_slice(&[0x45, 0]);
                packet[2..4].copy_from_slice(&length.to_be_bytes());
                packet[4..12].copy_from_slice(&[high, low, unfragmented, 0, HOP_LIMIT, protocol, 0, 0]);
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                let sum = checksum::checksum(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                link[12..].copy_from_slice(&ethertype::IPV6.to_be_bytes());
                let length = u16::try_from(upper).unwrap_or(u16::MAX);
                packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
                packet[4..6].copy_from_slice(&length.to_be_bytes());
                packet[6..8].copy_from_slice(&[protocol, HOP_LIMIT]);
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                debug_assert!(false, "a flow is of one family");
            }
        }
        frame
    }

    /// Tells the source of `key` by ICMP what has become of something that it sent, of which `quote` are the first octets
    /// behind the IP header.
    pub(super) fn send_error(
        &mut self,
        now: Duration,
        key: &FlowKey,
        quote: [u8; QUOTED],
        error: IcmpError,
        counters: &mut EdgeCounters,
    ) {
        let Some(own) = self.own(key.source) else { return };
        if !self.errors.take(now, Pace::new(ERRORS.0, ERRORS.1)) {
            return;
        }
        // What is quoted is made again: nothing of what pods send is kept for the case that it fails.
        let transport_offset = ETHERNET_HEADER + Self::ip_header(key.source);
        let mut quoted = self.pool.take(transport_offset + QUOTED);
        quoted.bytes_mut()[transport_offset..].copy_from_slice(&quote);
        let quoted = self.headers(quoted, (key.source, key.destination), key.protocol, QUOTED, None);
        let ip = Ip {
            source: key.source,
            destination: key.destination,
            offset: ETHERNET_HEADER,
            transport_offset,
            end: transport_offset + QUOTED,
            hop_limit: HOP_LIMIT,
            protocol: key.protocol,
            dont_fragment: true,
            fragment: None,
            source_route: false,
            option_problem: None,
            transport: Transport::Opaque,
        };
        let made = emit::icmp_error(&mut self.pool, error, quoted.bytes(), &ip, own, self.mac, self.router);
        self.pool.recycle(quoted);
        if let Some(made) = made {
            counters.errors += 1;
            self.enqueue(made, counters);
        }
    }
}

/// What an error quotes of a segment or datagram with these ports and this in the four octets behind them.
pub(super) fn quote(key: &FlowKey, rest: u32) -> [u8; QUOTED] {
    let mut quote = [0; QUOTED];
    quote[..2].copy_from_slice(&key.source_port.to_be_bytes());
    quote[2..4].copy_from_slice(&key.destination_port.to_be_bytes());
    quote[4..].copy_from_slice(&rest.to_be_bytes());
    quote
}

fn parsed(frame: &Frame) -> Option<Ip> {
    let link = parse::link(frame.bytes()).ok()?;
    match parse::network(frame.bytes(), &link).ok()? {
        Network::Ip(ip) => Some(ip),
        Network::Arp(_) | Network::Other => None,
    }
}

/// Leaves the checksum of the upper layer at `at` to whoever takes the frame.
fn partial(frame: &mut Frame, at: usize, offset: u16, ends: (IpAddr, IpAddr), protocol: u8) {
    let bytes = frame.bytes_mut();
    let length = u32::try_from(bytes.len() - at).unwrap_or(u32::MAX);
    let pseudo = checksum::fold(checksum::pseudo_header(ends.0, ends.1, protocol, length));
    let field = at + usize::from(offset);
    bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    // Headers are far shorter than 64 KiB.
    let start = u16::try_from(at).unwrap_or(0);
    frame.offload = Offload { checksum: Checksum::Partial { start, offset }, segmentation: None };
}

/// Finishes such a checksum here.
fn complete(frame: &mut Frame, at: usize) {
    let Checksum::Partial { offset, .. } = frame.offload.checksum else { return };
    let upper = &mut frame.bytes_mut()[at..];
    let sum = match checksum::checksum(upper) {
        // Zero means that there is none (RFC 768).
        0 if offset == UDP_CHECKSUM => 0xffff,
        sum => sum,
    };
    let field = usize::from(offset);
    upper[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    frame.offload = Offload::default();
}
