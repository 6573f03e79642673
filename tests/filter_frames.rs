//! Frames to filter: both families, with options, extension headers, fragments, tags and errors, some of them cut off.
//! Few addresses and ports, so that an expression about one of them finds something.

use std::net::{Ipv4Addr, Ipv6Addr};

use netstack::addr::MacAddr;
use netstack::seed::Rng;

pub(crate) const STATIONS: &[&str] = &["02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff"];
pub(crate) const V4: &[&str] = &["10.0.0.1", "10.0.0.2", "10.1.0.3"];
pub(crate) const V6: &[&str] = &["fd00::1", "fd00::2", "fd00:1::3"];
const PORTS: [u16; 5] = [53, 80, 443, 0, 40_000];

/// Frames of a run.
const FRAMES: u32 = 400;
/// So many octets hold what any expression reads.
const WHOLE: usize = 160;

/// Frames as they come, and some that end anywhere.
pub(crate) fn with_cut(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for _ in 0..FRAMES {
        let frame = frame(rng);
        if rng.below(8) == 0 {
            // Never of no length: the formats cannot hold that well.
            let len = rng.below(u32::try_from(frame.len()).unwrap() - 1) + 1;
            frames.push(frame[..len as usize].to_vec());
        }
        frames.push(frame);
    }
    frames
}

/// Frames that no expression reads over the end of.
pub(crate) fn whole(rng: &mut Rng) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = (0..FRAMES).map(|_| frame(rng)).collect();
    frames.iter_mut().for_each(|frame| frame.resize(frame.len().max(WHOLE), 0));
    frames
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len().try_into().unwrap()) as usize]
}

fn octets(rng: &mut Rng, most: u32) -> Vec<u8> {
    (0..rng.below(most + 1)).map(|_| rng.next_u64().to_be_bytes()[0]).collect()
}

fn frame(rng: &mut Rng) -> Vec<u8> {
    let mut frame = Vec::new();
    for _ in 0..2 {
        frame.extend(pick(rng, STATIONS).parse::<MacAddr>().unwrap().0);
    }
    let tags = [0, 0, 0, 1, 1, 2, 3][rng.below(7) as usize];
    for _ in 0..tags {
        frame.extend(pick(rng, &[0x8100_u16, 0x8100, 0x88a8, 0x9100]).to_be_bytes());
        frame.extend(pick(rng, &[5_u16, 0xe005, 7, 0x1000, 9]).to_be_bytes());
    }
    let (ethertype, packet): (u16, _) = match rng.below(16) {
        0..=6 => (0x0800, ipv4(rng)),
        7..=12 => (0x86dd, ipv6(rng)),
        13 => (0x0806, arp(rng)),
        14 => (0x8035, arp(rng)),
        _ => (pick(rng, &[0x88cc, 0x0004, 0x88a8, 0x0800]), octets(rng, 60)),
    };
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn arp(rng: &mut Rng) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, pick(rng, &[1, 2])];
    for station in [1, 2] {
        packet.extend([2, 0, 0, 0, 0, station]);
        packet.extend(pick(rng, V4).parse::<Ipv4Addr>().unwrap().octets());
    }
    packet
}

fn ipv4(rng: &mut Rng) -> Vec<u8> {
    let number = pick(rng, &[6, 17, 132, 1, 58, 50]);
    let options = pick(rng, &[0, 0, 0, 1, 10]);
    let fragment: u16 = pick(rng, &[0, 0, 0, 0x4000, 0x2000, 0x2003, 0x0007]);
    let upper = upper(rng, number);
    let length = 20 + usize::from(options) * 4 + upper.len();
    let mut packet = vec![0x45 + options, 0];
    packet.extend(u16::try_from(length).unwrap().to_be_bytes());
    packet.extend([0, 77]);
    packet.extend(fragment.to_be_bytes());
    // The checksum is wrong nearly always: a capture shows such packets as well.
    packet.extend([64, number, 0xab, 0xcd]);
    for _ in 0..2 {
        packet.extend(pick(rng, V4).parse::<Ipv4Addr>().unwrap().octets());
    }
    packet.extend(std::iter::repeat_n(1, usize::from(options) * 4));
    packet.extend(upper);
    packet
}

fn ipv6(rng: &mut Rng) -> Vec<u8> {
    let number = pick(rng, &[6, 17, 132, 58, 1, 59]);
    let mut payload = upper(rng, number);
    let mut next = number;
    for _ in 0..pick(rng, &[0, 0, 0, 1, 2]) {
        let (kind, header) = match rng.below(4) {
            0 => (0, vec![next, 0, 1, 4, 0, 0, 0, 0]),
            1 => (60, [&[next, 1, 1, 12][..], &[0; 12]].concat()),
            2 => (43, vec![next, 0, 4, 0, 0, 0, 0, 0]),
            _ => (44, vec![next, 0, 0, pick(rng, &[0, 1, 9]), 0, 0, 0, 7]),
        };
        payload = [header, payload].concat();
        next = kind;
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    for _ in 0..2 {
        packet.extend(pick(rng, V6).parse::<Ipv6Addr>().unwrap().octets());
    }
    packet.extend(payload);
    packet
}

/// TCP, UDP and SCTP headers begin with the ports; ICMP errors quote a packet with some.
fn upper(rng: &mut Rng, number: u8) -> Vec<u8> {
    let mut header: Vec<u8> = match number {
        6 | 17 | 132 => (0..2).flat_map(|_| pick(rng, &PORTS).to_be_bytes()).collect(),
        1 => vec![pick(rng, &[0, 3, 8, 11]), 0, 0, 0, 0, 0, 0, 0],
        58 => vec![pick(rng, &[1, 2, 128, 129, 135, 136]), 0, 0, 0, 0, 0, 0, 0],
        _ => Vec::new(),
    };
    match header.first() {
        Some(3 | 11) if number == 1 => {
            header.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 80]);
        }
        _ => {}
    }
    header.extend(octets(rng, 40));
    header
}
