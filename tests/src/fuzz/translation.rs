//! Translation of octets, held against sums and a rewrite that is undone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nat::packet::{Content, Layout, Packet, parse};
use nat::translate::{ChecksumState, Rewrite, Unfit, check_error};
use nat::tuple::{Address, Endpoint, Tuple, protocol};

use super::Input;
use super::wire::{checksum_at, crc32c, mend, pseudo, residue, store};

/// Any packet, translated to any endpoints and back. The input is an octet of choices, four ports and two addresses of 16
/// octets (IPv4 uses the last four), and the packet.
pub fn rewrite(data: &[u8]) {
    let mut input = Input(data);
    let how = input.octet().unwrap_or(0);
    let ports = [(); 4].map(|()| input.word());
    let addresses = [(); 2].map(|()| (0..8).fold(0, |bits, _| bits << 16 | u128::from(input.word())));
    let mut bytes = input.0.to_vec();
    if how & 1 != 0 {
        mend(&mut bytes, how & 2 != 0);
    }
    let Ok(packet) = parse(&bytes) else { return };
    let Layout { header, upper, end, .. } = packet.layout;
    assert!(header <= upper && upper <= end && end <= bytes.len());
    let state = if how & 4 == 0 { ChecksumState::Complete } else { ChecksumState::Partial };
    let case = Case { packet, bytes, ports, addresses, state };
    match packet.layout.source {
        IpAddr::V4(_) => case.check::<Ipv4Addr>(),
        IpAddr::V6(_) => case.check::<Ipv6Addr>(),
    }
}

struct Case {
    packet: Packet,
    bytes: Vec<u8>,
    /// Those that packets leave with, and those that they have where it cannot be read.
    ports: [u16; 4],
    addresses: [u128; 2],
    state: ChecksumState,
}

impl Case {
    fn check<A: Address>(&self) {
        let Self { packet, ports: [source, destination, ..], addresses, .. } = *self;
        let [from, to] = addresses.map(A::from_bits);
        let to = |like: Tuple<A>| Tuple {
            source: Endpoint { address: from, port: source },
            destination: Endpoint { address: to, port: destination },
            ..like
        };
        let has = packet.tuple(0).unwrap_or_else(|| self.unread(&packet.layout));
        let there = Rewrite::new(&has, &to(has));
        let back = Rewrite::new(&to(has), &has);
        self.packet_there_and_back(&there, &back);
        self.cut(&there);
        if let Content::Error(error) = packet.content {
            let answers = error.tuple(0).expect("it is of this family").inverse();
            let rewrites = [Rewrite::new(&answers, &to(answers)), Rewrite::new(&to(answers), &answers)];
            self.error_there_and_back(&rewrites);
        }
    }

    /// A tuple for what has none.
    fn unread<A: Address>(&self, layout: &Layout) -> Tuple<A> {
        let end = |address, port| Endpoint {
            address: A::from_ip(address).expect("it is of this family"),
            port: self.ports[port],
        };
        let (source, destination) = (end(layout.source, 2), end(layout.destination, 3));
        Tuple { source, destination, protocol: layout.protocol, zone: 0 }
    }

    fn packet_there_and_back<A: Address>(&self, there: &Rewrite<A>, back: &Rewrite<A>) {
        let Self { packet, bytes: original, state, .. } = self;
        let mut bytes = original.clone();
        match there.apply(&mut bytes, packet, *state) {
            Ok(()) => {}
            Err(reason) => {
                let part = packet.layout.protocol == protocol::SCTP && packet.layout.fragment.is_some();
                assert!(part && reason == Unfit::Fragment, "{reason:?}");
                return assert_eq!(&bytes, original, "it was not left as it is");
            }
        }
        let touched = touched(&packet.layout, &packet.content);
        for (at, (before, after)) in original.iter().zip(&bytes).enumerate() {
            assert!(before == after || touched.contains(&at), "octet {at} of {packet:?}");
        }
        let moved = parse(&bytes).unwrap_or_else(|fault| panic!("it is no packet any more: {fault:?}"));
        assert_eq!(moved.layout.destination, there.destination().address.into());
        assert_eq!(moved.layout.source, there.source().address.into());
        self.sums(&bytes);
        let sctp = packet.layout.upper + 8..packet.layout.upper + 12;
        if packet.layout.protocol == protocol::SCTP && bytes.get(sctp) == Some(&[0; 4]) {
            // It has become the number that says that there is none (RFC 9653).
            return;
        }
        back.apply(&mut bytes, &moved, *state).expect("what went goes back");
        same(original, &bytes, &packet.layout);
    }

    /// What was missing from a checksum is still missing, and nothing else.
    fn sums(&self, bytes: &[u8]) {
        let Self { packet: Packet { layout, content }, bytes: original, state, .. } = self;
        if matches!(content, Content::Rest) {
            return;
        }
        let upper = |bytes: &[u8]| bytes[layout.upper..layout.end].to_vec();
        if layout.protocol == protocol::SCTP && matches!(content, Content::Ports { .. }) {
            let [before, after] = [original, bytes].map(|bytes| Sctp::of(&upper(bytes)));
            if layout.fragment.is_none() && *state == ChecksumState::Complete && before.field != 0 {
                assert_eq!(before.field ^ before.computed, after.field ^ after.computed, "{layout:?}");
            }
            return assert!(before.field != 0 || after.field == 0, "a checksum was made up");
        }
        let Some(at) = checksum_at(layout).filter(|at| layout.upper + at + 2 <= layout.end) else { return };
        let field = |bytes: &[u8]| residue(&upper(bytes)[at..at + 2]);
        let none = |bytes: &[u8]| layout.protocol == protocol::UDP && upper(bytes)[at..at + 2] == [0; 2];
        match state {
            ChecksumState::Partial => {
                let missing = |bytes| (field(bytes) + 0xffff - residue(&pseudo(bytes, layout))) % 0xffff;
                assert_eq!(missing(original), missing(bytes), "{layout:?}");
            }
            ChecksumState::Complete if none(original) => assert!(none(bytes), "a checksum was made up"),
            ChecksumState::Complete => {
                let missing = |bytes| residue(&[pseudo(bytes, layout), upper(bytes)].concat());
                assert_eq!(missing(original), missing(bytes), "{layout:?}");
                assert!(!none(bytes), "a checksum was taken away");
            }
        }
    }

    /// A packet that is cut in two is translated like the whole.
    fn cut<A: Address>(&self, there: &Rewrite<A>) {
        let Self { packet: Packet { layout, content }, bytes: original, ports: [.., at, _], .. } = self;
        let fixed = if A::BITS == 32 { layout.upper - layout.header } else { 40 };
        let known = matches!(content, Content::Ports { .. } | Content::Query(_));
        let extended = layout.upper - layout.header != fixed || layout.fragment.is_some();
        // All of the upper layer's header is in IPv6's first fragment, its first 8 octets in IPv4's.
        let least = if A::BITS == 32 { 1 } else { 3 };
        let at = (usize::from(*at) % 16 + least) * 8;
        let length = layout.end - layout.upper;
        if !known || extended || layout.protocol == protocol::SCTP || at >= length {
            return;
        }
        let mut whole = original.clone();
        there.apply(&mut whole, &self.packet, ChecksumState::Complete).expect("it is no fragment");
        let mut joined: Vec<u8> = Vec::new();
        for part in [0..at, at..length] {
            let mut bytes = fragment(original, layout, part);
            let packet = parse(&bytes).expect("a fragment");
            there.apply(&mut bytes, &packet, ChecksumState::Complete).expect("a fragment");
            let addresses = if A::BITS == 32 { 12..20 } else { 8..40 };
            assert_eq!(bytes[addresses.clone()], whole[layout.header..][addresses]);
            joined.extend(&bytes[packet.layout.upper..]);
        }
        assert_eq!(joined, whole[layout.upper..layout.end], "cut at {at}: {layout:?}");
    }

    fn error_there_and_back<A: Address>(&self, [there, back]: &[Rewrite<A>; 2]) {
        let Self { packet, bytes: original, .. } = self;
        let Content::Error(error) = packet.content else { return };
        let (layout, quoted) = (packet.layout, error.quoted);
        let source = there.source().address;
        let mut bytes = original.clone();
        there.apply_error(&mut bytes, packet, source).expect("it is an error");
        for outside in [
            0..layout.header,
            layout.upper..layout.upper + 2,
            quoted.end..layout.end,
            layout.end..bytes.len(),
        ] {
            assert_eq!(bytes[outside.clone()], original[outside]);
        }
        let moved = parse(&bytes).unwrap_or_else(|fault| panic!("it is no packet any more: {fault:?}"));
        let Content::Error(moved_error) = moved.content else { panic!("it is no error any more: {moved:?}") };
        let ends = [moved.layout.source, moved.layout.destination];
        assert_eq!(ends, [source, there.destination().address].map(Into::into));
        let ends = [moved_error.quoted.source, moved_error.quoted.destination];
        assert_eq!(ends, [there.destination().address, source].map(Into::into));
        assert_eq!(check_error(original, packet).is_ok(), check_error(&bytes, &moved).is_ok());
        if layout.fragment.is_none() {
            let missing = |bytes: &[u8]| {
                residue(&[pseudo(bytes, &layout), bytes[layout.upper..layout.end].to_vec()].concat())
            };
            assert_eq!(missing(original), missing(&bytes), "{packet:?}");
        }
        // Back, there and back again: what the first step has set aside of the outer addresses is gone.
        let returned = A::from_ip(quoted.destination).expect("it is of this family");
        let mut once = bytes.clone();
        back.apply_error(&mut once, &moved, returned).expect("it is an error");
        let inside = |bytes: &[u8]| bytes[quoted.header..quoted.end].to_vec();
        let inner = Layout {
            header: 0,
            upper: quoted.upper - quoted.header,
            end: quoted.end - quoted.header,
            ..quoted
        };
        same(&inside(original), &inside(&once), &inner);
        let again = parse(&once).expect("it is still a packet");
        there.apply_error(&mut once, &again, source).expect("it is an error");
        same(&inside(&bytes), &inside(&once), &inner);
    }
}

/// The checksum of a message, and what it should be.
struct Sctp {
    field: u32,
    computed: u32,
}

impl Sctp {
    fn of(message: &[u8]) -> Self {
        let field = message
            .get(8..)
            .and_then(|rest| rest.first_chunk())
            .map_or(0, |&octets| u32::from_le_bytes(octets));
        let blank =
            message.iter().enumerate().map(|(at, &octet)| if (8..12).contains(&at) { 0 } else { octet });
        Self { field, computed: crc32c(blank) }
    }
}

/// Octets that translation may change.
fn touched(layout: &Layout, content: &Content) -> Vec<usize> {
    let v4 = layout.source.is_ipv4();
    let header = if v4 { 10..20 } else { 8..40 };
    let upper = match (content, layout.protocol) {
        (Content::Ports { .. }, protocol::TCP) => [0..4, 16..18],
        (Content::Ports { .. }, protocol::UDP) => [0..4, 6..8],
        (Content::Ports { .. }, _) => [0..4, 8..12],
        (Content::Query(_), _) => [2..6, 0..0],
        (Content::Error(_) | Content::Control, _) if !v4 => [2..4, 0..0],
        (Content::Rest, protocol::TCP) if v4 => {
            let at = layout.fragment.map_or(8, |fragment| usize::from(fragment.offset));
            [16usize.saturating_sub(at)..18usize.saturating_sub(at), 0..0]
        }
        (Content::Rest | Content::Error(_) | Content::Control | Content::Opaque, _) => [0..0, 0..0],
    };
    let [one, two] = upper.map(|range| range.map(|at| layout.upper + at));
    header.map(|at| layout.header + at).chain(one).chain(two).collect()
}

/// The fragment with a part of the upper layer.
fn fragment(bytes: &[u8], layout: &Layout, part: core::ops::Range<usize>) -> Vec<u8> {
    let (more, at) = (part.end < layout.end - layout.upper, u16::try_from(part.start).unwrap_or(0));
    let mut out = bytes[layout.header..layout.upper].to_vec();
    let length = |octets: usize| u16::try_from(octets).unwrap_or(0).to_be_bytes();
    if layout.source.is_ipv4() {
        let total = length(out.len() + part.len());
        out[2..4].copy_from_slice(&total);
        let more = u16::from(more) << 13;
        out[6..8].copy_from_slice(&(at / 8 + more).to_be_bytes());
        let header = 0..out.len();
        store(&mut out, header, 10, 0);
    } else {
        out[4..6].copy_from_slice(&length(8 + part.len()));
        out[6] = 44;
        let position = (at | u16::from(more)).to_be_bytes();
        out.extend([layout.protocol, 0, position[0], position[1], 0, 0, 0, 1]);
    }
    out.extend(&bytes[layout.upper..layout.end][part]);
    out
}

/// Equal, but that ones' complement has two zeros.
fn same(one: &[u8], other: &[u8], layout: &Layout) {
    let header = layout.source.is_ipv4().then_some(layout.header + 10);
    // Where TCP's checksum stands in a later fragment, seen from its start.
    let part = layout.fragment.map_or(0, |fragment| usize::from(fragment.offset));
    let upper = checksum_at(layout).and_then(|at| at.checked_sub(part)).map(|at| layout.upper + at);
    let mut one = one.to_vec();
    for at in [header, upper].into_iter().flatten() {
        let fields = one.get_mut(at..at + 2).zip(other.get(at..at + 2));
        if let Some((one, other)) = fields.filter(|(one, other)| residue(one) == residue(other)) {
            one.copy_from_slice(other);
        }
    }
    assert_eq!(one, other, "it is not what it was: {layout:?}");
}
