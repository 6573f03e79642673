//! Ports and identifiers that a router chose, made comparable: the first that appears in a conversation becomes one
//! number, the second another, wherever they stand and whatever they were. Checksums follow.

use std::collections::BTreeSet;

/// What the first chosen port becomes.
const FIRST: u16 = 61_000;

/// What was chosen in one conversation.
#[derive(Default)]
pub(crate) struct Relation {
    /// What the hosts use by themselves.
    said: BTreeSet<u16>,
    chosen: Vec<u16>,
    /// Identifications of fragments that came out of a port.
    identifications: Vec<(String, [u16; 2])>,
}

/// A port in a packet.
struct Place {
    at: usize,
    /// The checksum over it, and that of the ICMP error around both.
    sums: [Option<usize>; 2],
}

impl Relation {
    /// A frame that a host sent: the ports that the router did not choose are its own.
    pub(crate) fn sent(&mut self, frame: &[u8]) -> Vec<u8> {
        for place in places(frame) {
            let port = word(frame, place.at);
            if !self.chosen.contains(&port) {
                self.said.insert(port);
            }
        }
        self.renamed(frame)
    }

    /// A frame that the router sent: the ports that no host has said are its choice.
    pub(crate) fn came(&mut self, side: &str, frame: &[u8]) -> Vec<u8> {
        for place in places(frame) {
            let port = word(frame, place.at);
            if !self.said.contains(&port) && !self.chosen.contains(&port) {
                self.chosen.push(port);
            }
        }
        let mut frame = self.renamed(frame);
        self.number(side, &mut frame);
        frame
    }

    /// Gives a fragment the number of its datagram as identification: in IPv4 a translator may need another one, and Linux
    /// puts datagrams of IPv6 together and cuts them anew.
    fn number(&mut self, side: &str, frame: &mut [u8]) {
        let Some((at, sum)) = identification(frame) else { return };
        let words = [word(frame, at), word(frame, at + 2)];
        // In IPv4 flags and offset follow, which tell fragments apart.
        let identification = (side.to_owned(), if sum.is_some() { [words[0], 0] } else { words });
        let known = self.identifications.iter().position(|known| *known == identification);
        let number = known.unwrap_or_else(|| {
            self.identifications.push(identification);
            self.identifications.len() - 1
        });
        let number = u16::try_from(number).unwrap();
        set(frame, at, number);
        match sum {
            Some(sum) => set(frame, sum, follow(word(frame, sum), words[0], number)),
            None => set(frame, at + 2, 0),
        }
    }

    fn renamed(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        for Place { at, sums } in places(&frame) {
            let port = word(&frame, at);
            let Some(which) = self.chosen.iter().position(|chosen| *chosen == port) else { continue };
            let mut changes = vec![(port, FIRST + u16::try_from(which).unwrap())];
            set(&mut frame, at, changes[0].1);
            for sum in sums.into_iter().flatten() {
                let before = word(&frame, sum);
                let after = changes.iter().fold(before, |sum, &(old, new)| follow(sum, old, new));
                set(&mut frame, sum, after);
                changes.push((before, after));
            }
        }
        frame
    }
}

/// Where a fragment's identification stands, and the checksum over it.
fn identification(frame: &[u8]) -> Option<(usize, Option<usize>)> {
    let ipv4 = *frame.get(14)? >> 4 == 4;
    match ipv4 {
        true => (word(frame, 20) & 0x3fff != 0).then_some((18, Some(24))),
        false => (frame.get(20) == Some(&44)).then_some((58, None)),
    }
}

/// Where ports and identifiers stand in an Ethernet frame.
fn places(frame: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    collect(frame, 14, None, &mut found);
    found.retain(|place| place.at + 2 <= frame.len());
    found
}

fn collect(frame: &[u8], at: usize, around: Option<usize>, found: &mut Vec<Place>) {
    let Some((protocol, upper)) = upper(frame, at) else { return };
    let sum = |offset: usize| Some(upper + offset).filter(|at| at + 2 <= frame.len());
    let mut add = |at: usize, own: Option<usize>| found.push(Place { at, sums: [own, around] });
    match (protocol, frame.get(upper)) {
        (6, _) => [0, 2].iter().for_each(|port| add(upper + port, sum(16))),
        (17, _) => {
            let own = sum(6).filter(|&at| word(frame, at) != 0);
            [0, 2].iter().for_each(|port| add(upper + port, own));
        }
        (1, Some(0 | 8)) | (58, Some(128 | 129)) => add(upper + 4, sum(2)),
        (1, Some(3 | 11 | 12)) | (58, Some(1..=4)) if around.is_none() => {
            collect(frame, upper + 8, sum(2), found);
        }
        _ => {}
    }
}

/// The protocol of the packet at `at` and where its upper layer begins, unless that is in another fragment.
fn upper(frame: &[u8], at: usize) -> Option<(u8, usize)> {
    let octet = |offset: usize| frame.get(at + offset).copied();
    match octet(0)? >> 4 {
        4 => {
            let later = word(frame, at + 6) & 0x1fff != 0;
            (!later).then_some((octet(9)?, at + usize::from(octet(0)? & 15) * 4))
        }
        6 => {
            let (mut next, mut offset) = (octet(6)?, 40);
            loop {
                let length = match next {
                    0 | 43 | 60 => usize::from(octet(offset + 1)?) * 8 + 8,
                    44 if word(frame, at + offset + 2) & 0xfff8 == 0 => 8,
                    44 => return None,
                    _ => return Some((next, at + offset)),
                };
                next = octet(offset)?;
                offset += length;
            }
        }
        _ => None,
    }
}

fn word(frame: &[u8], at: usize) -> u16 {
    frame.get(at..at + 2).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]))
}

fn set(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// RFC 1624 equation 3; both zeros are one.
fn follow(sum: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    match !u16::try_from(total).unwrap() {
        0 => 0xffff,
        other => other,
    }
}
