//! The virtio-net header that stands before each frame of a TAP with offload (virtio 1.2 section 5.1.6, the legacy
//! layout of 10 octets in the host's byte order).
//!
//! The header is a hint from the kernel about a frame that a pod chose: what is taken from it here is its meaning, and
//! whether that fits the frame is judged where all offload states are, in the switch.

use crate::offload::{Checksum, Offload, SegmentKind, Segmentation};

/// Octets of the header.
pub(super) const HEADER: usize = 10;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM: the L4 checksum is partial.
const NEEDS_CSUM: u8 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID: the L4 checksum has been verified.
const DATA_VALID: u8 = 2;
/// VIRTIO_NET_HDR_GSO_NONE.
const GSO_NONE: u8 = 0;
/// VIRTIO_NET_HDR_GSO_TCPV4.
const GSO_TCPV4: u8 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6.
const GSO_TCPV6: u8 = 4;
/// VIRTIO_NET_HDR_GSO_UDP_L4. (GSO_UDP, 3, is one datagram to be cut into IP fragments; it is not asked for, and Linux
/// dropped it in 4.14.)
const GSO_UDP_L4: u8 = 5;
/// VIRTIO_NET_HDR_GSO_ECN: CWR is set on the first segment only.
const GSO_ECN: u8 = 0x80;

/// Where the checksum field is in a TCP header (RFC 9293 section 3.1) and in a UDP header (RFC 768).
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// The header says something that has no name here: an unknown or unsolicited kind of segmentation, or size 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unsupported;

/// The meaning of a header.
pub(super) fn decode(header: &[u8; HEADER]) -> Result<Offload, Unsupported> {
    let [flags, gso_type, _, _, size_0, size_1, start_0, start_1, offset_0, offset_1] = *header;
    let checksum = if flags & NEEDS_CSUM != 0 {
        Checksum::Partial {
            start: u16::from_ne_bytes([start_0, start_1]),
            offset: u16::from_ne_bytes([offset_0, offset_1]),
        }
    } else if flags & DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Complete
    };
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE => return Ok(Offload { checksum, segmentation: None }),
        GSO_TCPV4 => SegmentKind::TcpV4,
        GSO_TCPV6 => SegmentKind::TcpV6,
        GSO_UDP_L4 => SegmentKind::Udp,
        _ => return Err(Unsupported),
    };
    let size = u16::from_ne_bytes([size_0, size_1]);
    if size == 0 {
        return Err(Unsupported);
    }
    Ok(Offload { checksum, segmentation: Some(Segmentation { kind, size, ecn: gso_type & GSO_ECN != 0 }) })
}

/// The header for a frame.
pub(super) fn encode(offload: &Offload, frame: &[u8]) -> [u8; HEADER] {
    let (flags, start, offset) = match offload.checksum {
        Checksum::Complete => (0, 0, 0),
        Checksum::Verified => (DATA_VALID, 0, 0),
        Checksum::Partial { start, offset } => (NEEDS_CSUM, start, offset),
    };
    let (gso_type, size) = offload.segmentation.map_or((GSO_NONE, 0), |segmentation| {
        let kind = match segmentation.kind {
            SegmentKind::TcpV4 => GSO_TCPV4,
            SegmentKind::TcpV6 => GSO_TCPV6,
            SegmentKind::Udp => GSO_UDP_L4,
        };
        (kind | if segmentation.ecn { GSO_ECN } else { 0 }, segmentation.size)
    });
    let mut header = [flags, gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&header_len(offload, frame).to_ne_bytes());
    header[4..6].copy_from_slice(&size.to_ne_bytes());
    header[6..8].copy_from_slice(&start.to_ne_bytes());
    header[8..10].copy_from_slice(&offset.to_ne_bytes());
    header
}

/// Octets of all headers. The kernel keeps as much of a long frame in one piece; with 0 it would have to gather the
/// headers itself, and it refuses a value beyond the frame.
fn header_len(offload: &Offload, frame: &[u8]) -> u16 {
    let Checksum::Partial { start, offset } = offload.checksum else { return 0 };
    let l4 = match offset {
        TCP_CHECKSUM => frame.get(usize::from(start) + 12).map_or(20, |&byte| u16::from(byte >> 4) * 4),
        UDP_CHECKSUM => 8,
        _ => offset.saturating_add(2),
    };
    let frame_len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    start.saturating_add(l4).min(frame_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A TCP header of 32 octets behind Ethernet and IPv4, then payload.
    fn tcp_frame() -> Vec<u8> {
        let mut frame = vec![0; 5000];
        frame[34 + 12] = 8 << 4;
        frame
    }

    #[test]
    fn layout_is_the_legacy_one() {
        let offload = Offload {
            checksum: Checksum::Partial { start: 34, offset: 16 },
            segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size: 1448, ecn: true }),
        };
        let header = encode(&offload, &tcp_frame());
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        assert_eq!((header[0], header[1]), (NEEDS_CSUM, GSO_TCPV4 | GSO_ECN));
        assert_eq!([word(2), word(4), word(6), word(8)], [34 + 32, 1448, 34, 16]);
        assert_eq!(decode(&header), Ok(offload));
    }

    #[test]
    fn what_was_not_asked_for_is_unsupported() {
        let mut header = [0; HEADER];
        header[4] = 1;
        header[5] = 1;
        for kind in 0..=u8::MAX {
            header[1] = kind;
            let known = matches!(kind & !GSO_ECN, GSO_NONE | GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4);
            assert_eq!(decode(&header).is_ok(), known, "{kind:#x}");
        }
        assert_eq!(decode(&[0, GSO_TCPV4, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Unsupported), "pieces of 0 octets");
    }

    #[test]
    fn the_kernel_is_never_told_of_more_header_than_there_is_frame() {
        let checksum = Checksum::Partial { start: u16::MAX, offset: 16 };
        let header = encode(&Offload { checksum, segmentation: None }, &[0; 60]);
        assert_eq!(u16::from_ne_bytes([header[2], header[3]]), 60);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            checksum in prop_oneof![
                Just(Checksum::Complete),
                Just(Checksum::Verified),
                (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
            ],
            segmentation in proptest::option::of((0..3, 1..=u16::MAX, any::<bool>())),
            len in 0usize..3000,
        ) {
            let kinds = [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp];
            let segmentation = segmentation
                .map(|(kind, size, ecn)| Segmentation { kind: kinds[kind as usize], size, ecn });
            let offload = Offload { checksum, segmentation };
            prop_assert_eq!(decode(&encode(&offload, &vec![0xff; len])), Ok(offload));
        }

        #[test]
        fn any_header_is_answered(header in any::<[u8; HEADER]>()) {
            if let Ok(offload) = decode(&header) {
                prop_assert_eq!(decode(&encode(&offload, &[])), Ok(offload));
            }
        }
    }
}
