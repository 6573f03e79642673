//! Reading segments, against another implementation.

use super::*;
use etherparse::{TcpHeader, TcpOptionElement};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn bytes(header: &TcpHeader, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.write(&mut bytes).unwrap();
    bytes.resize(bytes.len() + length, 0xaa);
    bytes
}

#[test]
fn nat_24_a_header_that_is_cut_or_contradicts_itself_is_malformed() {
    let whole = bytes(&TcpHeader::new(1, 2, 3, 4), 0);
    for length in 0..20 {
        assert_eq!(Segment::read(&whole[..length]), Err(Malformed::Truncated), "{length}");
    }
    for offset in 0..16_u8 {
        for length in 20..64_usize {
            let mut segment = vec![0; length];
            segment[12] = offset << 4;
            let expected = match usize::from(offset) * 4 {
                0..20 => Err(Malformed::OffsetTooSmall),
                header if header > length => Err(Malformed::OffsetTooLarge),
                header => Ok(u32::try_from(length - header).unwrap()),
            };
            assert_eq!(Segment::read(&segment).map(|s| s.length), expected, "{offset} {length}");
        }
    }
}

#[test]
fn a_broken_option_ends_the_list_without_harm() {
    let with = |options: &[u8]| {
        let mut segment = vec![0; 20];
        segment.extend_from_slice(options);
        segment.resize(segment.len().next_multiple_of(4), 0);
        segment[12] = u8::try_from(segment.len() / 4).unwrap() << 4;
        Segment::read(&segment).unwrap().options
    };
    let scale = |scale| Options { scale: Some(scale), ..Options::default() };
    assert_eq!(with(&[3, 3, 7]), scale(7));
    assert_eq!(with(&[3, 3, 200]), scale(14), "capped");
    assert_eq!(with(&[1, 1, 1, 3, 3, 7]), scale(7));
    assert_eq!(with(&[254, 4, 9, 9, 3, 3, 7]), scale(7), "unknown ones are skipped");
    for broken in [
        &[0, 3, 3, 7][..],                     // after the end
        &[3, 0, 7, 0],                         // no length
        &[3, 1, 7, 0],                         // shorter than itself
        &[3, 4, 7, 0],                         // of the wrong length
        &[254, 5, 3, 3],                       // beyond the header
        &[1, 1, 1, 3],                         // without a length
        &[5, 9, 0, 0, 0, 0, 0, 0, 9, 3, 3, 7], // not in blocks of eight: skipped like the one after it is read
    ] {
        let options = with(broken);
        assert_eq!(options.sack, None, "{broken:?}");
        assert!(options.scale.is_none() || broken.len() == 12, "{broken:?}");
    }
}

#[test]
fn the_highest_edge_above_the_acknowledgement_counts_across_the_wrap() {
    let options = |acknowledgement: u32, first, more: [Option<(u32, u32)>; 3]| {
        let mut header = TcpHeader::new(1, 2, 3, 4);
        header.acknowledgment_number = acknowledgement;
        header.set_options(&[TcpOptionElement::SelectiveAcknowledgement(first, more)]).unwrap();
        Segment::read(&bytes(&header, 0)).unwrap().options.sack
    };
    assert_eq!(options(100, (200, 300), [None; 3]), Some(300));
    assert_eq!(options(100, (200, 300), [Some((400, 500)), Some((250, 320)), None]), Some(500));
    assert_eq!(options(100, (50, 90), [None; 3]), None, "a duplicate was reported");
    assert_eq!(options(0xffff_ff00, (0xffff_ff80, 0xffff_fff0), [Some((5, 20)), None, None]), Some(20));
}

fn element() -> impl Strategy<Value = TcpOptionElement> {
    let block = any::<(u32, u32)>();
    prop_oneof![
        Just(TcpOptionElement::Noop),
        any::<u16>().prop_map(TcpOptionElement::MaximumSegmentSize),
        any::<u8>().prop_map(TcpOptionElement::WindowScale),
        Just(TcpOptionElement::SelectiveAcknowledgementPermitted),
        any::<(u32, u32)>().prop_map(|(a, b)| TcpOptionElement::Timestamp(a, b)),
        (block, proptest::option::of(block))
            .prop_map(|(first, more)| TcpOptionElement::SelectiveAcknowledgement(first, [more, None, None])),
    ]
}

/// What the options say, by the other implementation's list of them.
fn expected(elements: &[TcpOptionElement], acknowledgement: u32) -> Options {
    let mut options = Options::default();
    for element in elements {
        match element {
            TcpOptionElement::WindowScale(scale) => options.scale = Some((*scale).min(14)),
            TcpOptionElement::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
            TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                let distance = |edge: &u32| edge.wrapping_sub(acknowledgement).cast_signed();
                options.sack = [Some(*first)]
                    .iter()
                    .chain(more)
                    .flatten()
                    .map(|&(_, right)| right)
                    .filter(|edge| distance(edge) > 0)
                    .max_by_key(distance);
            }
            TcpOptionElement::Noop
            | TcpOptionElement::MaximumSegmentSize(_)
            | TcpOptionElement::Timestamp(..) => {}
        }
    }
    options
}

proptest! {
    #[test]
    fn segments_are_read_as_another_implementation_writes_them(
        numbers: (u32, u32, u16),
        flags: u8,
        length in 0_usize..70_000,
        elements in proptest::collection::vec(element(), 0..5),
    ) {
        let mut header = TcpHeader::new(80, 40_000, numbers.0, numbers.2);
        header.acknowledgment_number = numbers.1;
        let [fin, syn, rst, psh, ack, urg, ece, cwr] = core::array::from_fn(|bit| flags >> bit & 1 == 1);
        (header.fin, header.syn, header.rst, header.psh) = (fin, syn, rst, psh);
        (header.ack, header.urg, header.ece, header.cwr) = (ack, urg, ece, cwr);
        prop_assume!(header.set_options(&elements).is_ok());
        let read = Segment::read(&bytes(&header, length)).unwrap();
        prop_assert_eq!(read, Segment {
            flags,
            sequence: numbers.0,
            acknowledgement: numbers.1,
            window: numbers.2,
            length: u32::try_from(length).unwrap(),
            options: expected(&elements, numbers.1),
        });
    }

    #[test]
    fn no_octets_make_reading_panic(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(segment) = Segment::read(&octets) {
            prop_assert!(segment.options.scale.unwrap_or(0) <= 14);
            prop_assert!(usize::try_from(segment.length).unwrap() + 20 <= octets.len());
        }
    }
}
