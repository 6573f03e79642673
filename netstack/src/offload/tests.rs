use super::*;
use crate::frame::{Frame, FramePool};
use crate::parse::{Fragment, Ip, Transport, protocol};
use crate::verdict::DropReason;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use smoltcp::wire::{IpAddress, Ipv4Packet, TcpPacket, UdpPacket};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// A packet to be written out.
#[derive(Clone, Debug)]
struct Recipe {
    tag: bool,
    v6: bool,
    udp: bool,
    /// Options of IPv4, a destination options header of IPv6; in units of 4 octets.
    extra: Vec<u8>,
    tcp_options: Vec<u8>,
    flags: u8,
    id: u16,
    sequence: u32,
    payload: Vec<u8>,
    padding: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            tag: false,
            v6: false,
            udp: false,
            extra: Vec::new(),
            tcp_options: Vec::new(),
            flags: ACK,
            id: 0x1234,
            sequence: 0x0102_0304,
            payload: vec![7; 10],
            padding: 0,
        }
    }
}

impl Recipe {
    fn addresses(&self) -> (IpAddr, IpAddr) {
        if self.v6 {
            ("fd00::1".parse().unwrap(), "fd00:1::2".parse().unwrap())
        } else {
            ([10, 0, 0, 1].into(), [10, 1, 0, 2].into())
        }
    }

    /// TCP or UDP with the sum of the pseudo-header in the checksum field.
    fn upper(&self) -> Vec<u8> {
        let mut upper = Vec::new();
        if self.udp {
            let length = u16::try_from(8 + self.payload.len()).unwrap();
            for word in [1000, 2000, length, 0] {
                upper.extend(word.to_be_bytes());
            }
        } else {
            upper.extend([0x03, 0xe8, 0x07, 0xd0]);
            upper.extend(self.sequence.to_be_bytes());
            upper.extend([9, 9, 9, 9]);
            let words = u8::try_from(5 + self.tcp_options.len() / 4).unwrap();
            upper.extend([words << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
            upper.extend(&self.tcp_options);
        }
        upper.extend(&self.payload);
        let pseudo = self.pseudo(upper.len());
        upper[self.field()..self.field() + 2].copy_from_slice(&pseudo.to_be_bytes());
        upper
    }

    fn field(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    fn protocol(&self) -> u8 {
        if self.udp { protocol::UDP } else { protocol::TCP }
    }

    /// The ones' complement sum of the pseudo-header, word by word.
    fn pseudo(&self, length: usize) -> u16 {
        let mut bytes = Vec::new();
        let (source, destination) = self.addresses();
        for address in [source, destination] {
            match address {
                IpAddr::V4(a) => bytes.extend(a.octets()),
                IpAddr::V6(a) => bytes.extend(a.octets()),
            }
        }
        bytes.extend([0, self.protocol()]);
        bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        u16::try_from(sum).unwrap()
    }

    fn network(&self, upper: &[u8]) -> Vec<u8> {
        let length = |octets: usize| u16::try_from(octets).unwrap().to_be_bytes();
        let (source, destination) = self.addresses();
        let mut bytes = Vec::new();
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let words = u8::try_from(5 + self.extra.len() / 4).unwrap();
                bytes.extend([0x40 | words, 0]);
                bytes.extend(length(20 + self.extra.len() + upper.len()));
                bytes.extend(self.id.to_be_bytes());
                bytes.extend([0, 0, 64, self.protocol(), 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&self.extra);
                Ipv4Packet::new_unchecked(&mut bytes).fill_checksum();
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extension = self.extra.len().next_multiple_of(8);
                bytes.extend([0x60, 0, 0, 0]);
                bytes.extend(length(extension + upper.len()));
                bytes.extend([if extension > 0 { 60 } else { self.protocol() }, 64]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                if extension > 0 {
                    // A PadN option fills the header.
                    let (words, pad) = (u8::try_from(extension / 8 - 1), u8::try_from(extension - 4));
                    bytes.extend([self.protocol(), words.unwrap(), 1, pad.unwrap()]);
                    bytes.resize(40 + extension, 0);
                }
            }
            _ => unreachable!("both addresses are of one family"),
        }
        bytes
    }

    /// The frame with its partial checksum, and what a parser would find in it.
    fn build(&self, pool: &mut FramePool) -> (Frame, Ip) {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.tag {
            bytes.extend([0x81, 0, 0x60, 5]);
        }
        bytes.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        let offset = bytes.len();
        let upper = self.upper();
        bytes.extend(self.network(&upper));
        let transport_offset = bytes.len();
        bytes.extend(&upper);
        let end = bytes.len();
        bytes.resize(end + self.padding, 0xaa);
        let mut frame = pool.copy_of(&bytes);
        frame.priority = 0x6000;
        let start = u16::try_from(transport_offset).unwrap();
        frame.offload.checksum = Checksum::Partial { start, offset: u16::try_from(self.field()).unwrap() };
        let (source, destination) = self.addresses();
        let ports = (1000, 2000);
        let transport = if self.udp {
            Transport::Udp { source_port: ports.0, destination_port: ports.1 }
        } else {
            let header_len = 20 + self.tcp_options.len();
            Transport::Tcp { source_port: ports.0, destination_port: ports.1, flags: self.flags, header_len }
        };
        let ip = Ip {
            source,
            destination,
            offset,
            transport_offset,
            end,
            hop_limit: 64,
            protocol: self.protocol(),
            dont_fragment: self.v6,
            fragment: None,
            source_route: false,
            option_problem: None,
            transport,
        };
        (frame, ip)
    }

    fn build_super(&self, size: u16, pool: &mut FramePool) -> (Frame, Ip) {
        let (mut frame, ip) = self.build(pool);
        let kind = match (self.udp, self.v6) {
            (true, _) => SegmentKind::Udp,
            (false, false) => SegmentKind::TcpV4,
            (false, true) => SegmentKind::TcpV6,
        };
        frame.offload.segmentation = Some(Segmentation { kind, size, ecn: false });
        (frame, ip)
    }

    /// The upper layer with a full checksum, by smoltcp.
    fn finished(&self) -> Vec<u8> {
        let mut upper = self.upper();
        let (source, destination) = self.addresses();
        let (source, destination) = (IpAddress::from(source), IpAddress::from(destination));
        if self.udp {
            UdpPacket::new_unchecked(&mut upper).fill_checksum(&source, &destination);
        } else {
            TcpPacket::new_unchecked(&mut upper).fill_checksum(&source, &destination);
        }
        upper
    }
}

fn recipe(longest: usize) -> impl Strategy<Value = Recipe> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    (
        any::<[bool; 3]>(),
        0usize..=10,
        0usize..=10,
        any::<u8>(),
        any::<u16>(),
        any::<u32>(),
        bytes(longest),
        0usize..20,
    )
        .prop_map(|(bits, extra, options, flags, id, sequence, payload, padding)| Recipe {
            tag: bits[0],
            v6: bits[1],
            udp: bits[2],
            // Router alert (RFC 2113), copied, and no-operations.
            extra: [0x94, 4, 0, 0].into_iter().chain([1; 36]).take(extra * 4).collect(),
            tcp_options: vec![1; options * 4],
            flags,
            id,
            sequence,
            payload,
            padding,
        })
}

/// Reads a frame with etherparse: checks the lengths and the IPv4 header's checksum.
fn slice(bytes: &[u8]) -> SlicedPacket<'_> {
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    if let Some(NetSlice::Ipv4(v4)) = &sliced.net {
        let header = v4.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    sliced
}

/// Whether the L4 checksum of a whole packet is right, by smoltcp.
fn verifies(bytes: &[u8], ip: &Ip) -> bool {
    let (source, destination) = (IpAddress::from(ip.source), IpAddress::from(ip.destination));
    let upper = &bytes[ip.transport_offset..];
    if ip.protocol == protocol::UDP {
        let packet = UdpPacket::new_checked(upper).unwrap();
        packet.checksum() != 0 && packet.verify_checksum(&source, &destination)
    } else {
        TcpPacket::new_checked(upper).unwrap().verify_checksum(&source, &destination)
    }
}

fn segments(frame: &Frame, ip: &Ip, features: OffloadFeatures, pool: &mut FramePool) -> Vec<Frame> {
    let mut pieces = Vec::new();
    let count = segment(frame, ip, features, pool, &mut |piece| pieces.push(piece)).unwrap();
    assert_eq!(count, pieces.len());
    pieces
}

fn fragments(frame: &Frame, ip: &Ip, mtu: usize, pool: &mut FramePool) -> Vec<Frame> {
    let mut pieces = Vec::new();
    let count = fragment_ipv4(frame, ip, mtu, pool, &mut |piece| pieces.push(piece)).unwrap();
    assert_eq!(count, pieces.len());
    pieces
}

mod completion {
    use super::*;

    proptest! {
        #[test]
        fn equals_a_full_checksum(recipe in recipe(3000)) {
            let mut pool = FramePool::new();
            let (mut frame, ip) = recipe.build(&mut pool);
            let before = frame.bytes().to_vec();
            complete_checksum(&mut frame).unwrap();
            prop_assert_eq!(frame.offload.checksum, Checksum::Complete);
            prop_assert_eq!(&frame.bytes()[ip.transport_offset..ip.end], &recipe.finished()[..]);
            prop_assert_eq!(&frame.bytes()[..ip.transport_offset], &before[..ip.transport_offset]);
            prop_assert_eq!(&frame.bytes()[ip.end..], &before[ip.end..]);
        }

        #[test]
        fn never_panics_on_what_a_device_claims(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), start: u16, offset: u16, near: bool,
            ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806]),
        ) {
            let mut bytes = bytes;
            if let Some(field) = bytes.get_mut(12..14) { field.copy_from_slice(&ethertype.to_be_bytes()); }
            let mut frame = FramePool::new().copy_of(&bytes);
            let (start, offset) = if near { (start % 100, offset % 100) } else { (start, offset) };
            frame.offload.checksum = Checksum::Partial { start, offset };
            if complete_checksum(&mut frame).is_err() {
                prop_assert_eq!(frame.bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn finished_frames_are_left_alone() {
        let mut frame = FramePool::new().copy_of(b"short");
        for checksum in [Checksum::Complete, Checksum::Verified] {
            frame.offload.checksum = checksum;
            assert_eq!(complete_checksum(&mut frame), Ok(()));
            assert_eq!((frame.bytes(), frame.offload.checksum), (&b"short"[..], checksum));
        }
    }

    /// A payload word that makes the sum all ones, so that the checksum computes to zero.
    #[test]
    fn udp_sends_a_computed_zero_as_all_ones_and_tcp_does_not() {
        for (v6, udp) in [(false, true), (true, true), (false, false), (true, false)] {
            let mut recipe = Recipe { v6, udp, payload: vec![0, 0], ..Recipe::default() };
            let checksum = u16::from_be_bytes(recipe.finished()[recipe.field()..][..2].try_into().unwrap());
            recipe.payload = checksum.to_be_bytes().to_vec();
            let mut pool = FramePool::new();
            let (mut frame, ip) = recipe.build(&mut pool);
            complete_checksum(&mut frame).unwrap();
            let field = &frame.bytes()[ip.transport_offset + recipe.field()..][..2];
            assert_eq!(field, if udp { [0xff; 2] } else { [0; 2] });
        }
    }
}

mod validation {
    use super::*;

    fn with(recipe: &Recipe, change: impl FnOnce(&mut Frame, &mut Ip)) -> Result<(), DropReason> {
        let mut pool = FramePool::new();
        let (mut frame, mut ip) = recipe.build_super(4, &mut pool);
        change(&mut frame, &mut ip);
        validate(&frame, &ip)
    }

    const REFUSED: Result<(), DropReason> = Err(DropReason::OffloadInvalid);

    fn segmentation(frame: &mut Frame) -> &mut Segmentation {
        frame.offload.segmentation.as_mut().unwrap()
    }

    #[test]
    fn true_claims_pass() {
        for (v6, udp) in [(false, true), (true, true), (false, false), (true, false)] {
            let recipe = Recipe { v6, udp, tag: v6, extra: vec![1; 8], ..Recipe::default() };
            assert_eq!(with(&recipe, |_, _| ()), Ok(()));
            assert_eq!(with(&recipe, |f, _| f.offload.segmentation = None), Ok(()));
            assert_eq!(with(&recipe, |f, _| f.offload = Offload::default()), Ok(()));
            let verified = Offload { checksum: Checksum::Verified, segmentation: None };
            assert_eq!(with(&recipe, |f, _| f.offload = verified), Ok(()));
        }
    }

    #[test]
    fn a_partial_checksum_is_where_tcp_or_udp_has_it() {
        for udp in [false, true] {
            let recipe = Recipe { udp, ..Recipe::default() };
            for (start, offset) in
                [(33, 16), (35, 6), (34, 0), (34, 15), (34, 2), (0, 16), (u16::MAX, u16::MAX)]
            {
                assert_eq!(
                    with(&recipe, |f, _| f.offload.checksum = Checksum::Partial { start, offset }),
                    REFUSED
                );
            }
            let other = Checksum::Partial { start: 34, offset: if udp { 16 } else { 6 } };
            assert_eq!(with(&recipe, |f, _| f.offload.checksum = other), REFUSED);
            assert_eq!(with(&recipe, |_, ip| ip.transport = Transport::Opaque), REFUSED);
            let icmp = Transport::Icmp { kind: 8, code: 0, id: None };
            assert_eq!(with(&recipe, |_, ip| ip.transport = icmp), REFUSED);
            let fragment = Some(Fragment { offset: 0, more: true, id: 1 });
            assert_eq!(with(&recipe, |_, ip| ip.fragment = fragment), REFUSED);
            assert_eq!(with(&recipe, |f, _| assert!(f.set_len(30))), REFUSED);
        }
    }

    #[test]
    fn a_super_frame_is_of_its_kind_and_has_something_to_cut() {
        for (v6, udp) in [(false, true), (true, true), (false, false), (true, false)] {
            let recipe = Recipe { v6, udp, ..Recipe::default() };
            assert_eq!(with(&recipe, |f, _| f.offload.checksum = Checksum::Complete), REFUSED);
            assert_eq!(with(&recipe, |f, _| f.offload.checksum = Checksum::Verified), REFUSED);
            assert_eq!(with(&recipe, |f, _| segmentation(f).size = 0), REFUSED);
            for kind in [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp] {
                let own = with(&recipe, |f, _| segmentation(f).kind = kind).is_ok();
                assert_eq!(
                    own,
                    (kind == SegmentKind::Udp) == udp && (udp || (kind == SegmentKind::TcpV6) == v6)
                );
            }
            assert_eq!(with(&Recipe { payload: Vec::new(), ..recipe.clone() }, |_, _| ()), REFUSED);
            let long = Recipe { payload: vec![0; MAX_PIECES * 2 + 1], ..recipe };
            assert_eq!(with(&long, |f, _| segmentation(f).size = 2), REFUSED);
            assert_eq!(with(&long, |f, _| segmentation(f).size = 3), Ok(()));
        }
    }

    #[test]
    fn size_on_the_wire_is_that_of_the_largest_piece() {
        let mut pool = FramePool::new();
        let recipe = Recipe {
            tag: true,
            v6: true,
            tcp_options: vec![1; 12],
            payload: vec![0; 5000],
            ..Recipe::default()
        };
        let (frame, ip) = recipe.build_super(1400, &mut pool);
        assert_eq!(packet_size_on_wire(&frame, &ip), 40 + 32 + 1400);
        let (frame, ip) = recipe.build_super(6000, &mut pool);
        assert_eq!(packet_size_on_wire(&frame, &ip), 40 + 32 + 5000);
        let (frame, ip) = Recipe { padding: 9, ..recipe }.build(&mut pool);
        assert_eq!(packet_size_on_wire(&frame, &ip), 40 + 32 + 5000);
        let (frame, ip) =
            Recipe { udp: true, extra: vec![1; 4], ..Recipe::default() }.build_super(3, &mut pool);
        assert_eq!(packet_size_on_wire(&frame, &ip), 24 + 8 + 3);
    }
}

mod segmentation {
    use super::*;

    proptest! {
        #[test]
        fn pieces_verify_and_together_are_the_whole(
            recipe in recipe(6000).prop_filter("has payload", |r| !r.payload.is_empty()),
            size in 100u16..3000,
            partial: bool,
        ) {
            let mut pool = FramePool::new();
            let (frame, ip) = recipe.build_super(size, &mut pool);
            let features = OffloadFeatures { checksum: partial, ..OffloadFeatures::NONE };
            let mut payload = Vec::<u8>::new();
            let count = recipe.payload.len().div_ceil(usize::from(size));
            for (index, mut piece) in segments(&frame, &ip, features, &mut pool).into_iter().enumerate() {
                prop_assert!(piece.len() - ip.offset <= packet_size_on_wire(&frame, &ip));
                prop_assert_eq!(piece.priority, frame.priority);
                prop_assert_eq!(piece.offload.segmentation, None);
                if partial {
                    prop_assert_eq!(piece.offload.checksum, frame.offload.checksum);
                    let own = Ip { end: piece.len(), ..ip };
                    prop_assert_eq!(validate(&piece, &own), Ok(()));
                    complete_checksum(&mut piece).unwrap();
                }
                prop_assert_eq!(piece.offload.checksum, Checksum::Complete);
                prop_assert!(verifies(piece.bytes(), &ip));
                let sliced = slice(piece.bytes());
                let (last, position) = (index + 1 == count, payload.len());
                match (sliced.net.unwrap(), sliced.transport.unwrap()) {
                    (net, TransportSlice::Tcp(tcp)) => {
                        prop_assert_eq!(net.is_ipv4(), !recipe.v6);
                        let expected = recipe.sequence.wrapping_add(u32::try_from(position).unwrap());
                        prop_assert_eq!(tcp.sequence_number(), expected);
                        prop_assert_eq!(tcp.fin(), last && recipe.flags & FIN != 0);
                        prop_assert_eq!(tcp.psh(), last && recipe.flags & PSH != 0);
                        prop_assert_eq!(tcp.cwr(), index == 0 && recipe.flags & CWR != 0);
                        let others = !(FIN | PSH | CWR);
                        prop_assert_eq!(piece.bytes()[ip.transport_offset + 13] & others, recipe.flags & others);
                        prop_assert_eq!(tcp.options(), &recipe.tcp_options[..]);
                        payload.extend(tcp.payload());
                    }
                    (_, TransportSlice::Udp(udp)) => {
                        prop_assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
                        prop_assert_eq!((udp.source_port(), udp.destination_port()), (1000, 2000));
                        payload.extend(udp.payload());
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
                let chunk = payload.len() - position;
                let fits = if last { chunk > 0 } else { chunk == usize::from(size) };
                prop_assert!(fits);
                if !recipe.v6 {
                    let id = u16::from_be_bytes(piece.bytes()[ip.offset + 4..][..2].try_into().unwrap());
                    prop_assert_eq!(id, recipe.id.wrapping_add(u16::try_from(index).unwrap()));
                }
                // What is neither length, identification nor checksum is copied.
                prop_assert_eq!(&piece.bytes()[..ip.offset], &frame.bytes()[..ip.offset]);
                let after = ip.offset + if recipe.v6 { 6 } else { 12 };
                prop_assert_eq!(&piece.bytes()[after..ip.transport_offset], &frame.bytes()[after..ip.transport_offset]);
            }
            prop_assert_eq!(payload, recipe.payload);
        }

        #[test]
        fn a_wrong_sum_is_not_repaired(wrong in 1u16..0xffff) {
            let mut pool = FramePool::new();
            let (mut frame, ip) = Recipe { payload: vec![1; 100], ..Recipe::default() }.build_super(40, &mut pool);
            let field = &mut frame.bytes_mut()[ip.transport_offset + 16..][..2];
            let sum = u16::from_be_bytes([field[0], field[1]]).wrapping_add(wrong);
            // Zero and all ones are the same number.
            prop_assume!(u32::from(sum) % 0xffff != u32::from(sum.wrapping_sub(wrong)) % 0xffff);
            field.copy_from_slice(&sum.to_be_bytes());
            for piece in segments(&frame, &ip, OffloadFeatures::NONE, &mut pool) {
                prop_assert!(!verifies(piece.bytes(), &ip));
            }
        }
    }

    #[test]
    fn tcp_by_hand() {
        let mut pool = FramePool::new();
        let recipe = Recipe {
            flags: CWR | ACK | PSH | FIN,
            id: 0xffff,
            sequence: 0xffff_fffe,
            payload: b"abcdefgh".to_vec(),
            padding: 3,
            ..Recipe::default()
        };
        let (frame, ip) = recipe.build_super(3, &mut pool);
        let pieces = segments(&frame, &ip, OffloadFeatures::NONE, &mut pool);
        let seen: Vec<_> = pieces
            .iter()
            .map(|p| {
                let b = &p.bytes()[14..];
                let word = |at: usize| u16::from_be_bytes([b[at], b[at + 1]]);
                (word(2), word(4), u32::from_be_bytes(b[24..28].try_into().unwrap()), b[33], &b[40..])
            })
            .collect();
        let expected = [
            (43, 0xffff, 0xffff_fffe, CWR | ACK, &b"abc"[..]),
            (43, 0x0000, 0x0000_0001, ACK, &b"def"[..]),
            (42, 0x0001, 0x0000_0004, ACK | PSH | FIN, &b"gh"[..]),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn the_largest_super_frames_are_cut() {
        let mut pool = FramePool::new();
        for (v6, udp, most) in
            [(false, false, 65_495), (true, false, 65_515), (false, true, 65_507), (true, true, 65_527)]
        {
            let recipe = Recipe { v6, udp, flags: SYN, payload: vec![5; most], ..Recipe::default() };
            let (frame, ip) = recipe.build_super(1448, &mut pool);
            let pieces = segments(&frame, &ip, OffloadFeatures::NONE, &mut pool);
            assert_eq!(pieces.len(), most.div_ceil(1448));
            assert!(pieces.iter().all(|p| verifies(p.bytes(), &ip)));
        }
    }

    #[test]
    fn what_is_not_a_super_frame_is_refused_whole() {
        let mut pool = FramePool::new();
        let (frame, ip) = Recipe::default().build(&mut pool);
        let none = &mut |_| panic!("nothing may be handed out");
        assert_eq!(segment(&frame, &ip, OffloadFeatures::NONE, &mut pool, none), Err(OffloadInvalid));
        let (mut frame, ip) = Recipe::default().build_super(4, &mut pool);
        frame.offload.checksum = Checksum::Complete;
        assert_eq!(segment(&frame, &ip, OffloadFeatures::NONE, &mut pool, none), Err(OffloadInvalid));
    }
}

mod fragmentation {
    use super::*;
    use etherparse::defrag::IpDefragPool;

    fn v4(longest: usize) -> impl Strategy<Value = Recipe> {
        recipe(longest).prop_map(|r| Recipe { v6: false, ..r })
    }

    /// What a receiver sees of a fragment: where it stands, whether more follow, and what it carries.
    fn read(piece: &Frame) -> (usize, bool, Vec<u8>) {
        let sliced = slice(piece.bytes());
        let Some(NetSlice::Ipv4(v4)) = &sliced.net else { panic!("not IPv4") };
        let header = v4.header();
        let offset = usize::from(header.fragments_offset().value()) * 8;
        assert_eq!(usize::from(header.total_len()), v4.payload().payload.len() + header.slice().len());
        (offset, header.more_fragments(), v4.payload().payload.to_vec())
    }

    /// Puts fragments together that came in order, without gap or overlap.
    fn reassemble(pieces: &[Frame]) -> (usize, bool, Vec<u8>) {
        let (start, _, _) = read(&pieces[0]);
        let mut whole = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let (offset, more, payload) = read(piece);
            assert_eq!(offset, start + whole.len());
            assert!(more || index + 1 == pieces.len());
            assert!(!more || payload.len() % 8 == 0);
            whole.extend(payload);
        }
        (start, read(&pieces[pieces.len() - 1]).1, whole)
    }

    /// The parser's view of a fragment.
    fn view(piece: &Frame, ip: &Ip) -> Ip {
        let (offset, more, _) = read(piece);
        let fragment =
            (offset > 0 || more).then(|| Fragment { offset: offset.try_into().unwrap(), more, id: 1 });
        let transport = if offset > 0 { Transport::Opaque } else { ip.transport };
        Ip { end: piece.len(), fragment, transport, ..*ip }
    }

    proptest! {
        #[test]
        fn fragments_fit_and_together_are_the_whole(recipe in v4(5000), mtu in 68usize..2000) {
            let mut pool = FramePool::new();
            let (frame, ip) = recipe.build(&mut pool);
            let pieces = fragments(&frame, &ip, mtu, &mut pool);
            for piece in &pieces {
                prop_assert!(piece.len() - ip.offset <= mtu);
                prop_assert_eq!((piece.priority, piece.offload), (frame.priority, Offload::default()));
                prop_assert_eq!(&piece.bytes()[..ip.offset + 2], &frame.bytes()[..ip.offset + 2]);
                prop_assert_eq!(&piece.bytes()[ip.offset + 4..ip.offset + 6], &recipe.id.to_be_bytes());
                let addresses = ip.offset + 12..ip.offset + 20;
                prop_assert_eq!(&piece.bytes()[addresses.clone()], &frame.bytes()[addresses]);
            }
            // No more pieces than must be.
            let room = (mtu - (ip.transport_offset - ip.offset)) & !7;
            let least = (ip.end - ip.transport_offset).div_ceil(room);
            prop_assert!(pieces.len() <= least && pieces.len() + 1 >= least);
            let (start, more, whole) = reassemble(&pieces);
            prop_assert_eq!((start, more), (0, false));
            prop_assert_eq!(&whole, &recipe.finished());
            // The same by an independent implementation.
            let mut defrag = IpDefragPool::<(), ()>::new();
            let mut done = None;
            for piece in &pieces {
                done = defrag.process_sliced_packet(&slice(piece.bytes()), (), ()).unwrap();
            }
            prop_assert_eq!(done.map(|d| d.payload), (pieces.len() > 1).then_some(whole));
        }

        #[test]
        fn fragments_of_fragments_are_fragments_of_the_whole(
            recipe in v4(4000), first in 200usize..2000, second in 68usize..400,
        ) {
            let mut pool = FramePool::new();
            let (frame, ip) = recipe.build(&mut pool);
            let mut all = Vec::new();
            for piece in fragments(&frame, &ip, first, &mut pool) {
                let before = read(&piece);
                let pieces = fragments(&piece, &view(&piece, &ip), second, &mut pool);
                prop_assert_eq!(reassemble(&pieces), before);
                all.extend(pieces);
            }
            prop_assert_eq!(reassemble(&all), (0, false, recipe.finished()));
        }
    }

    #[test]
    fn by_hand() {
        let mut pool = FramePool::new();
        let recipe = Recipe { udp: true, payload: (0..100).collect(), ..Recipe::default() };
        let (frame, ip) = recipe.build(&mut pool);
        let pieces = fragments(&frame, &ip, 68, &mut pool);
        let seen: Vec<_> = pieces
            .iter()
            .map(|p| {
                let b = &p.bytes()[14..];
                (u16::from_be_bytes([b[2], b[3]]), u16::from_be_bytes([b[6], b[7]]), p.len() - 14)
            })
            .collect();
        // 108 octets in units of 8, 48 at a time; 0x2000 is more-fragments.
        assert_eq!(seen, [(68, 0x2000, 68), (68, 0x2006, 68), (32, 0x000c, 32)]);
    }

    #[test]
    fn options_without_the_copied_flag_stay_in_the_first_fragment() {
        let mut pool = FramePool::new();
        // Record route (7, not copied), no-operation, router alert (0x94, copied), end, and what lies behind the end.
        let options = vec![7, 7, 4, 1, 2, 3, 4, 1, 0x94, 4, 0, 0, 0, 7, 3, 4];
        let recipe = Recipe { udp: true, extra: options.clone(), payload: vec![1; 200], ..Recipe::default() };
        let (frame, ip) = recipe.build(&mut pool);
        let pieces = fragments(&frame, &ip, 100, &mut pool);
        assert!(pieces.len() > 2);
        assert_eq!(pieces[0].bytes()[34..50], options);
        for piece in &pieces[1..] {
            assert_eq!(piece.bytes()[34..50], [1, 1, 1, 1, 1, 1, 1, 1, 0x94, 4, 0, 0, 0, 7, 3, 4]);
        }
    }

    #[test]
    fn a_packet_that_fits_is_one_frame_without_its_padding() {
        let mut pool = FramePool::new();
        let (frame, ip) = Recipe { padding: 6, ..Recipe::default() }.build(&mut pool);
        let pieces = fragments(&frame, &ip, 68, &mut pool);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].bytes()[..ip.transport_offset], frame.bytes()[..ip.transport_offset]);
        assert_eq!(pieces[0].bytes()[ip.transport_offset..], Recipe::default().finished());
    }

    #[test]
    fn what_must_not_be_cut_is_refused() {
        let mut pool = FramePool::new();
        let mut refused = |recipe: &Recipe, mtu, change: &dyn Fn(&mut Frame, &mut Ip)| {
            let (mut frame, mut ip) = recipe.build(&mut pool);
            change(&mut frame, &mut ip);
            let none = &mut |_| panic!("nothing may be handed out");
            fragment_ipv4(&frame, &ip, mtu, &mut pool, none).unwrap_err()
        };
        let v6 = Recipe { v6: true, ..Recipe::default() };
        let plain = Recipe::default();
        let invalid = FragmentError::OffloadInvalid(OffloadInvalid);
        assert_eq!(refused(&v6, 1280, &|_, _| ()), FragmentError::NotIpv4);
        assert_eq!(refused(&plain, 1280, &|_, ip| ip.dont_fragment = true), FragmentError::DontFragment);
        assert_eq!(refused(&plain, 67, &|_, _| ()), FragmentError::MtuTooSmall);
        let super_frame = Some(Segmentation { kind: SegmentKind::TcpV4, size: 9, ecn: false });
        assert_eq!(refused(&plain, 68, &|f, _| f.offload.segmentation = super_frame), invalid);
        let beyond = Checksum::Partial { start: 60, offset: 16 };
        assert_eq!(refused(&plain, 68, &|f, _| f.offload.checksum = beyond), invalid);
    }

    #[test]
    fn cutting_gives_every_slab_back() {
        let mut pool = FramePool::new();
        let (frame, ip) = Recipe { payload: vec![1; 4000], ..Recipe::default() }.build(&mut pool);
        let mut warm = None;
        for _ in 0..10 {
            fragments(&frame, &ip, 576, &mut pool).into_iter().for_each(|piece| pool.recycle(piece));
            assert_eq!(*warm.get_or_insert(pool.counters().allocated), pool.counters().allocated);
        }
    }
}

mod joining {
    use super::*;

    const CHECKED: OffloadFeatures = OffloadFeatures { checksum: true, ..OffloadFeatures::NONE };

    /// A datagram of the flow that all of these are of, number `at` of its sender.
    fn datagram(v6: bool, df: bool, at: u16, payload: Vec<u8>, pool: &mut FramePool) -> (Frame, Ip) {
        let recipe = Recipe { v6, udp: true, payload, id: 0xfffe_u16.wrapping_add(at), ..Recipe::default() };
        let (mut frame, mut ip) = recipe.build(pool);
        if df && !v6 {
            frame.bytes_mut()[20] = 0x40;
            Ipv4Packet::new_unchecked(&mut frame.bytes_mut()[14..34]).fill_checksum();
            ip.dont_fragment = true;
        }
        (frame, ip)
    }

    proptest! {
        /// What was joined is what its pieces are, octet by octet, whatever their lengths.
        #[test]
        fn cutting_gives_back_what_was_joined(
            v6: bool, df: bool, size in 1usize..1400, lengths in proptest::collection::vec(0usize..5, 1..80), seed: u8,
        ) {
            let mut pool = FramePool::new();
            let mut heads: Vec<(Frame, Ip)> = Vec::new();
            let mut before = Vec::new();
            for (at, shorter) in lengths.iter().enumerate() {
                // Most are of one length.
                let octets = if *shorter == 4 { size / 2 } else { size };
                let payload = (0..octets).map(|i| seed.wrapping_add(u8::try_from((i + at) % 256).unwrap())).collect();
                let (frame, ip) = datagram(v6, df, u16::try_from(at).unwrap(), payload, &mut pool);
                before.push(frame.bytes().to_vec());
                let joined = heads.last_mut().is_some_and(|(head, _)| join(head, &frame, &mut pool));
                if joined { pool.recycle(frame) } else { heads.push((frame, ip)) }
            }
            let mut after = Vec::new();
            for (head, mut ip) in heads {
                ip.end = head.len();
                prop_assert!(slice(head.bytes()).transport.is_some());
                prop_assert_eq!(validate(&head, &ip), Ok(()));
                match head.offload.segmentation {
                    None => after.push(head.bytes().to_vec()),
                    Some(_) => after.extend(segments(&head, &ip, CHECKED, &mut pool).iter().map(|f| f.bytes().to_vec())),
                }
            }
            prop_assert_eq!(after, before);
        }

        #[test]
        fn never_panics_on_what_a_device_claims(
            first in proptest::collection::vec(any::<u8>(), 0..120), second in proptest::collection::vec(any::<u8>(), 0..120),
            start: u16, near: bool, size: u16, kind in 0u8..3, v6: bool,
        ) {
            let mut pool = FramePool::new();
            let start = if near { [34, 54][usize::from(v6)] } else { start };
            let [mut head, mut next] = [first, second].map(|mut bytes| {
                if let Some(field) = bytes.get_mut(12..14) {
                    field.copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
                }
                let mut frame = pool.copy_of(&bytes);
                frame.offload.checksum = Checksum::Partial { start, offset: 6 };
                frame
            });
            let kind = [None, Some(SegmentKind::Udp), Some(SegmentKind::TcpV4)][usize::from(kind)];
            head.offload.segmentation = kind.map(|kind| Segmentation { kind, size, ecn: false });
            let before = head.bytes().to_vec();
            if !join(&mut head, &next, &mut pool) {
                prop_assert_eq!(head.bytes(), &before[..]);
            }
            next.offload = Offload::default();
            prop_assert!(!join(&mut head, &next, &mut pool));
        }
    }

    #[test]
    fn so_many_are_joined_and_no_more() {
        let mut pool = FramePool::new();
        let (mut head, _) = datagram(false, true, 0, vec![1; 18], &mut pool);
        let (next, _) = datagram(false, true, 1, vec![2; 18], &mut pool);
        let joined = (0..200).take_while(|_| join(&mut head, &next, &mut pool)).count();
        assert_eq!(joined + 1, MOST_JOINED);
        assert!(!head.is_large());

        // As long as a packet can be.
        let (mut head, _) = datagram(true, true, 0, vec![1; 1400], &mut pool);
        let (next, _) = datagram(true, true, 1, vec![2; 1400], &mut pool);
        let joined = (0..200).take_while(|_| join(&mut head, &next, &mut pool)).count();
        assert_eq!(joined + 1, (0xffff - 48) / 1400);
        assert!(head.is_large());
    }

    #[test]
    fn what_differs_in_anything_else_is_left_alone() {
        for v6 in [false, true] {
            let mut pool = FramePool::new();
            let (mut head, ip) = datagram(v6, true, 0, vec![1; 100], &mut pool);
            let (original, _) = datagram(v6, true, 1, vec![2; 100], &mut pool);
            let mut copy = |change: &mut dyn FnMut(&mut Frame)| {
                let mut next = pool.copy_of(original.bytes());
                (next.offload, next.priority) = (original.offload, original.priority);
                change(&mut next);
                join(&mut head, &next, &mut pool)
            };
            // Every octet of the headers, but for the checksum of the IPv4 header and its identification: those of DF
            // mean nothing.
            for at in 0..ip.transport_offset + 8 {
                let free = !v6 && (matches!(at, 18 | 19 | 24 | 25));
                assert!(free || !copy(&mut |next| next.bytes_mut()[at] ^= 1), "octet {at}, v6 {v6}");
            }
            assert!(!copy(&mut |next| next.priority = 0));
            assert!(!copy(&mut |next| next.offload.checksum = Checksum::Verified));
            assert!(!copy(&mut |next| assert!(next.set_len(next.len() + 1))), "padding");
            assert!(!copy(&mut |next| {
                next.offload.segmentation =
                    Some(Segmentation { kind: SegmentKind::Udp, size: 50, ecn: false });
            }));
            assert!(copy(&mut |_| ()));
        }
    }

    #[test]
    fn without_df_identifications_count_up() {
        let mut pool = FramePool::new();
        let (mut head, _) = datagram(false, false, 0, vec![1; 100], &mut pool);
        let [one, two, three] = [1, 2, 3].map(|at| datagram(false, false, at, vec![1; 100], &mut pool).0);
        assert!(!join(&mut head, &two, &mut pool));
        assert!(join(&mut head, &one, &mut pool));
        assert!(!join(&mut head, &three, &mut pool));
        assert!(join(&mut head, &two, &mut pool));
    }
}
