//! Checksum and segmentation state: whole between devices that take it, finished in software for those that do not.

use std::net::IpAddr;

use netstack::config::Config;
use netstack::offload::{Checksum, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::verdict::{DropReason, Fate, Origin};
use smoltcp::wire;

use crate::lab::{Counter, Lab, Out, counted, dropped, entered, left};
use crate::packets::{Packet, as_routed, ethernet, icmp, sound, tagged, tell};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, OTHER, POD_A, POD_B, UPLINK, acquainted, introduce, ip, trunk, with,
};

const PLAIN: OffloadFeatures = OffloadFeatures::NONE;
const ALL: OffloadFeatures = OffloadFeatures::ALL;

/// What a sender hands to a device that finishes checksums and cuts.
#[derive(Clone, Debug)]
struct Super {
    bytes: Vec<u8>,
    offload: Offload,
    headers: usize,
}

impl Super {
    fn payload(&self) -> &[u8] {
        &self.bytes[self.headers..]
    }

    fn size(&self) -> usize {
        usize::from(self.offload.segmentation.unwrap().size)
    }
}

fn family_of(packet: &Packet) -> Family {
    if packet.source.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Puts the sum of the pseudo-header where the checksum will be, as a sender with a capable device does.
fn unfinished(packet: &Packet, mut bytes: Vec<u8>, size: Option<u16>) -> Super {
    let start = 14 + family_of(packet).of(20, 40);
    let tcp = bytes[family_of(packet).of(23, 20)] == 6;
    let (offset, protocol, header) = if tcp { (16, 6, 20) } else { (6, 17, 8) };
    let octets: Vec<u8> = match (packet.source, packet.destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => [s.octets(), d.octets()].concat(),
        (IpAddr::V6(s), IpAddr::V6(d)) => [s.octets(), d.octets()].concat(),
        _ => panic!("addresses of two families"),
    };
    let mut sum: u32 = octets.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    sum += protocol + (bytes.len() - start) as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[start + offset..][..2].copy_from_slice(&(sum as u16).to_be_bytes());
    let kind = match (tcp, family_of(packet)) {
        (true, Family::V4) => SegmentKind::TcpV4,
        (true, Family::V6) => SegmentKind::TcpV6,
        (false, _) => SegmentKind::Udp,
    };
    let checksum = Checksum::Partial { start: start as u16, offset: offset as u16 };
    let segmentation = size.map(|size| Segmentation { kind, size, ecn: false });
    Super { bytes, offload: Offload { checksum, segmentation }, headers: start + header }
}

fn numbers(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn tcp(packet: &Packet, len: usize, size: u16) -> Super {
    unfinished(packet, packet.tcp(1000, 80, &numbers(len)), Some(size))
}

fn udp(packet: &Packet, len: usize, size: u16) -> Super {
    unfinished(packet, packet.udp(1000, 80, &numbers(len)), Some(size))
}

/// Checks that `out` is `sent` in order, cut at its segment size and finished.
fn whole_from_pieces(sent: &Super, out: &[Out]) {
    let mut payload = Vec::new();
    for (i, piece) in out.iter().enumerate() {
        assert_eq!(piece.offload, Offload::default());
        sound(&piece.bytes);
        if sent.headers == 54 || sent.headers == 74 {
            let segment = wire::TcpPacket::new_checked(&piece.bytes[sent.headers - 20..]).unwrap();
            assert_eq!(segment.seq_number().0, 1000 + payload.len() as i32);
            assert_eq!(segment.psh(), i + 1 == out.len());
        }
        let part = &piece.bytes[sent.headers..];
        assert!(part.len() == sent.size() || i + 1 == out.len());
        payload.extend_from_slice(part);
    }
    assert_eq!(payload, sent.payload());
}

/// Everybody, with these features on the ports of pod A, pod B, the far station and the guest.
fn featured(a: OffloadFeatures, b: OffloadFeatures, far: OffloadFeatures, guest: OffloadFeatures) -> Config {
    with(|c| {
        for (port, features) in [(POD_A, a), (POD_B, b), (FAR, far), (GUEST, guest)] {
            c.ports[usize::from(port.port)].offload = features;
        }
    })
}

#[test]
fn super_frames_pass_whole_between_devices_that_take_them() {
    let mut lab = acquainted(featured(ALL, ALL, ALL, PLAIN));
    for family in FAMILIES {
        let (bridged, routed) = (POD_A.to(&POD_B, family), POD_A.via_router(FAR.ip(family)));
        for make in [tcp, udp] {
            let sent = make(&bridged, 60_000, 1400);
            let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
            assert_eq!((&out[0].bytes, out[0].offload), (&sent.bytes, sent.offload));
            lab.expect([entered(POD_A.port, Fate::Forwarded), left(POD_B.port, Origin::Forwarded)]);
            let sent = make(&routed, 60_000, 1400);
            let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
            assert_eq!(
                (&out[0].bytes, out[0].offload),
                (&as_routed(&sent.bytes, UPLINK, FAR.mac), sent.offload)
            );
            lab.expect([entered(POD_A.port, Fate::Forwarded), left(FAR.port, Origin::Forwarded)]);
        }
    }
}

#[test]
fn super_frames_are_cut_for_a_plain_port() {
    let mut lab = acquainted(featured(ALL, PLAIN, PLAIN, PLAIN));
    for family in FAMILIES {
        for (packet, port) in
            [(POD_A.to(&POD_B, family), POD_B.port), (POD_A.via_router(FAR.ip(family)), FAR.port)]
        {
            for make in [tcp, udp] {
                let sent = make(&packet, 10_000, 1400);
                let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
                whole_from_pieces(&sent, &out);
                lab.expect([
                    entered(POD_A.port, Fate::Forwarded),
                    counted(Counter::Replaced(port, Origin::Forwarded)),
                    left(port, Origin::Segment) * 8,
                ]);
            }
        }
    }
}

#[test]
fn a_device_that_only_finishes_checksums_gets_them_to_finish() {
    let features = OffloadFeatures { checksum: true, ..PLAIN };
    let mut lab = acquainted(featured(ALL, features, PLAIN, PLAIN));
    for family in FAMILIES {
        let sent = tcp(&POD_A.to(&POD_B, family), 3000, 1400);
        let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        assert_eq!(out.len(), 3);
        assert!(out.iter().all(|o| o.offload == Offload { segmentation: None, ..sent.offload }));
        lab.settle();
    }
    // One family of super-frames does not stand for the other.
    let mut lab =
        acquainted(featured(ALL, OffloadFeatures { tso4: true, checksum: true, ..PLAIN }, PLAIN, PLAIN));
    for family in FAMILIES {
        let sent = tcp(&POD_A.to(&POD_B, family), 3000, 1400);
        assert_eq!(lab.send_with(POD_A.port, &sent.bytes, sent.offload).len(), family.of(1, 3));
    }
    lab.settle();
}

#[test]
fn partial_checksums_are_completed_for_a_plain_port_alone() {
    for family in FAMILIES {
        let mut lab = acquainted(featured(ALL, PLAIN, ALL, PLAIN));
        for destination in [POD_B, FAR] {
            let packet = POD_A.via_router(destination.ip(family));
            for bytes in [packet.tcp(1, 2, b"odd"), packet.udp(1, 2, b"even")] {
                let sent = unfinished(&packet, bytes.clone(), None);
                let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
                match destination.port {
                    1 => {
                        assert_eq!(out[0].offload, Offload::default());
                        assert_eq!(out[0].bytes, as_routed(&bytes, POD_A.router, POD_B.mac));
                        sound(&out[0].bytes);
                    }
                    _ => assert_eq!(out[0].offload, sent.offload),
                }
                lab.expect([entered(POD_A.port, Fate::Forwarded), left(destination.port, Origin::Forwarded)]);
            }
        }
    }
}

#[test]
fn a_flood_is_finished_for_each_port_as_it_needs() {
    let mut lab = acquainted(featured(ALL, PLAIN, PLAIN, ALL));
    for family in FAMILIES {
        let mut packet = POD_A.to(&POD_B, family);
        packet.to = netstack::addr::MacAddr([2, 0, 0, 0, 9, 9]);
        let sent = tcp(&packet, 5000, 1000);
        let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        let (whole, pieces): (Vec<Out>, Vec<Out>) = out.into_iter().partition(|o| o.port == GUEST.port);
        assert_eq!((&whole[0].bytes, whole[0].offload), (&sent.bytes, sent.offload));
        whole_from_pieces(&sent, &pieces);
        lab.expect([
            entered(POD_A.port, Fate::Flooded),
            left(GUEST.port, Origin::FloodCopy),
            counted(Counter::Replaced(OTHER.port, Origin::FloodCopy)),
            left(OTHER.port, Origin::Segment) * 5,
        ]);
    }
}

#[test]
fn tags_move_the_start_of_a_checksum() {
    let config = |features| {
        let mut config = featured(ALL, PLAIN, PLAIN, PLAIN);
        config.ports.push(trunk(6, None, &[(10, 0)]));
        config.ports[6].offload = features;
        config
    };
    for family in FAMILIES {
        let station =
            crate::world::Host { port: 6, mac: netstack::addr::MacAddr([2, 0, 0, 0, 0, 0x66]), ..GUEST };
        let mut lab = Lab::new(config(ALL));
        let out = lab.send(6, &tagged(&station.to(&POD_A, family).udp(1, 2, b"x"), 10));
        assert_eq!(out[0].port, POD_A.port);
        lab.settle();
        let sent = tcp(&POD_A.to(&station, family), 5000, 1000);
        let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        assert_eq!(out[0].bytes, tagged(&sent.bytes, 10));
        let Checksum::Partial { start, offset } = sent.offload.checksum else { panic!("partial") };
        assert_eq!(out[0].offload.checksum, Checksum::Partial { start: start + 4, offset });
        lab.settle();
        // And back: a tagged super-frame from the trunk, for a pod that takes it.
        let sent = tcp(&station.to(&POD_A, family), 5000, 1000);
        let offload = Offload { checksum: Checksum::Partial { start: start + 4, offset }, ..sent.offload };
        let out = lab.send_with(6, &tagged(&sent.bytes, 10), offload);
        assert_eq!((&out[0].bytes, out[0].offload), (&sent.bytes, sent.offload));
        lab.settle();
        // A plain trunk gets pieces, each with its tag.
        let mut lab = Lab::new(config(PLAIN));
        lab.send(6, &tagged(&station.to(&POD_A, family).udp(1, 2, b"x"), 10));
        let sent = tcp(&POD_A.to(&station, family), 5000, 1000);
        let mut out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        for piece in &mut out {
            assert_eq!(piece.bytes.drain(12..16).collect::<Vec<u8>>(), [0x81, 0, 0, 10]);
        }
        whole_from_pieces(&sent, &out);
        lab.settle();
    }
}

#[test]
fn the_mtu_is_that_of_a_piece() {
    for family in FAMILIES {
        let mut lab = acquainted(featured(ALL, ALL, ALL, PLAIN));
        // Headers are 40 and 60 octets: the largest pieces that fit 1500.
        let fits = family.of(1460, 1440);
        let sent = tcp(&POD_A.to(&POD_B, family), 60_000, fits);
        lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        lab.expect([entered(POD_A.port, Fate::Forwarded), left(POD_B.port, Origin::Forwarded)]);
        let sent = tcp(&POD_A.to(&POD_B, family), 60_000, fits + 1);
        lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        lab.expect([dropped(POD_A.port, DropReason::FrameTooLong)]);
        // A packet of one piece is as long as it is, whatever size it claims.
        let sent = tcp(&POD_A.to(&POD_B, family), 100, 9000);
        lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        lab.expect([entered(POD_A.port, Fate::Forwarded), left(POD_B.port, Origin::Forwarded)]);
        // What pads a super-frame goes no further.
        let mut sent = tcp(&POD_A.to(&POD_B, family), 5000, 1000);
        let whole = sent.bytes.clone();
        sent.bytes.resize(60_000, 7);
        assert_eq!(lab.send_with(POD_A.port, &sent.bytes, sent.offload)[0].bytes, whole);
        lab.expect([entered(POD_A.port, Fate::Forwarded), left(POD_B.port, Origin::Forwarded)]);
    }
}

#[test]
fn pieces_too_long_for_the_next_link_are_told_or_cut_again() {
    for features in [ALL, PLAIN] {
        for family in FAMILIES {
            let mut config = featured(ALL, ALL, features, PLAIN);
            config.segments[1].mtu = 1280;
            let mut lab = acquainted(config);
            let packet = POD_A.via_router(FAR.ip(family));
            let sent = tcp(&packet, 20_000, 1400);
            let error = icmp(&lab.send_with(POD_A.port, &sent.bytes, sent.offload)[0].bytes);
            assert_eq!((error.kind, error.code, error.rest), family.of((3, 4, 1280), (2, 0, 1280)));
            lab.expect([dropped(POD_A.port, DropReason::PacketTooBig), left(POD_A.port, Origin::Originated)]);
            let sent = tcp(&packet, 20_000, 1000);
            assert_eq!(lab.send_with(POD_A.port, &sent.bytes, sent.offload)[0].port, FAR.port);
            lab.settle();
        }
        let mut config = featured(ALL, ALL, features, PLAIN);
        config.segments[1].mtu = 1280;
        let mut lab = acquainted(config);
        let packet = Packet { dont_fragment: false, ..POD_A.via_router(FAR.ip(Family::V4)) };
        for (sent, count) in [(tcp(&packet, 2800, 1400), 4), (udp(&packet, 1400, 2000), 2)] {
            let out = lab.send_with(POD_A.port, &sent.bytes, sent.offload);
            assert_eq!(out.len(), count);
            // Two fragments make one segment, whose checksum is then right.
            let mut rest = Vec::new();
            for pair in out.chunks(2) {
                let [first, second] = pair else { panic!("pairs") };
                pair.iter()
                    .for_each(|o| assert!(o.bytes.len() <= 14 + 1280 && o.offload == Offload::default()));
                let mut segment = first.bytes.clone();
                segment.extend_from_slice(&second.bytes[34..]);
                let length = (segment.len() - 14) as u16;
                let mut header = wire::Ipv4Packet::new_unchecked(&mut segment[14..]);
                header.set_total_len(length);
                header.set_more_frags(false);
                header.fill_checksum();
                sound(&segment);
                rest.extend_from_slice(&segment[sent.headers..]);
            }
            assert_eq!(rest, sent.payload());
            lab.expect([
                entered(POD_A.port, Fate::Forwarded),
                counted(Counter::Replaced(FAR.port, Origin::Forwarded)),
                left(FAR.port, Origin::Fragment) * count as u64,
            ]);
        }
    }
}

#[test]
fn super_frames_can_wait() {
    for family in FAMILIES {
        let mut lab = Lab::new(featured(ALL, ALL, PLAIN, PLAIN));
        let sent = tcp(&POD_A.via_router(FAR.ip(family)), 5000, 1000);
        lab.send_with(POD_A.port, &sent.bytes, sent.offload);
        lab.settle();
        let asker = ip(family.of("10.1.0.1", "fd00:1::1"));
        let out = lab.send(FAR.port, &tell(FAR.mac, FAR.ip(family), UPLINK, asker));
        whole_from_pieces(&sent, &out);
        lab.expect([
            entered(FAR.port, Fate::Consumed),
            counted(Counter::Replaced(FAR.port, Origin::Unparked)),
            left(FAR.port, Origin::Segment) * 5,
        ]);
    }
}

#[test]
fn an_offload_state_that_lies_is_dropped() {
    let mut lab = Lab::new(featured(ALL, ALL, ALL, ALL));
    introduce(&mut lab, &GUEST);
    for family in FAMILIES {
        for host in [POD_A, GUEST] {
            let packet = host.to(&POD_B, family);
            let honest = tcp(&packet, 5000, 1000);
            let Checksum::Partial { start, offset } = honest.offload.checksum else { panic!("partial") };
            let segmentation = honest.offload.segmentation.unwrap();
            let wrong_kind = [family.of(SegmentKind::TcpV6, SegmentKind::TcpV4), SegmentKind::Udp];
            let mut lies = vec![
                (Checksum::Complete, Some(segmentation)),
                (Checksum::Verified, Some(segmentation)),
                (Checksum::Partial { start: start + 2, offset }, Some(segmentation)),
                (Checksum::Partial { start, offset: offset - 10 }, Some(segmentation)),
                (Checksum::Partial { start: 0xffff, offset }, None),
                (Checksum::Partial { start, offset: 0xffff }, None),
                (honest.offload.checksum, Some(Segmentation { size: 0, ..segmentation })),
                (honest.offload.checksum, Some(Segmentation { size: 1, ..segmentation })),
            ];
            let kinds =
                wrong_kind.map(|kind| (honest.offload.checksum, Some(Segmentation { kind, ..segmentation })));
            lies.extend(kinds);
            for (checksum, segmentation) in lies {
                lab.send_with(host.port, &honest.bytes, Offload { checksum, segmentation });
                lab.expect([dropped(host.port, DropReason::OffloadInvalid)]);
            }
            // Of what has no checksum of this kind.
            for bytes in [packet.echo(1, 2, b"x"), ethernet(host.mac, POD_B.mac, 0x88b5, 60)] {
                lab.send_with(
                    host.port,
                    &bytes,
                    Offload { checksum: honest.offload.checksum, segmentation: None },
                );
                lab.expect([dropped(host.port, DropReason::OffloadInvalid)]);
            }
        }
    }
}
