use super::*;
use crate::frame::{FramePool, HEADROOM};
use alloc::vec::Vec;
use etherparse::{Ethernet2HeaderSlice, SingleVlanHeaderSlice};
use proptest::prelude::*;

#[test]
fn br_8_reserved_group_addresses_are_the_first_sixteen() {
    for last in 0..=255u8 {
        assert_eq!(is_reserved(MacAddr([0x01, 0x80, 0xc2, 0, 0, last])), last < 16);
    }
    assert!(!is_reserved(MacAddr([0x01, 0x80, 0xc2, 0, 1, 0])));
    assert!(!is_reserved(MacAddr([0x00, 0x80, 0xc2, 0, 0, 0])));
    assert!(!is_reserved(MacAddr::BROADCAST));
}

#[test]
fn br_8_pushed_tag_reads_back_by_another_parser() {
    let mut pool = FramePool::new();
    let untagged: Vec<u8> = (0..60u8).collect();
    let mut frame = pool.copy_of(&untagged);
    frame.priority = 0xb000; // PCP 5, DEI set
    assert!(push_tag(&mut frame, 42));
    let ethernet = Ethernet2HeaderSlice::from_slice(frame.bytes()).unwrap();
    assert_eq!(ethernet.destination(), untagged[..6]);
    assert_eq!(ethernet.source(), untagged[6..12]);
    assert_eq!(ethernet.ether_type().0, 0x8100);
    let tag = SingleVlanHeaderSlice::from_slice(&frame.bytes()[14..]).unwrap();
    assert_eq!(tag.vlan_identifier().value(), 42);
    assert_eq!(tag.priority_code_point().value(), 5);
    assert!(tag.drop_eligible_indicator());
    assert_eq!(tag.ether_type().0.to_be_bytes(), untagged[12..14]);
    assert_eq!(frame.bytes()[18..], untagged[14..]);
}

#[test]
fn br_8_a_priority_tag_is_vlan_zero() {
    let mut pool = FramePool::new();
    let mut bytes = [0x22u8; 64];
    bytes[12..16].copy_from_slice(&[0x81, 0x00, 0xe0, 0x00]);
    let mut frame = pool.copy_of(&bytes);
    assert_eq!(pop_tag(&mut frame), Some(0));
    assert_eq!(frame.priority, 0xe000);
}

#[test]
fn br_10_what_holds_no_whole_tag_stays_as_it_is() {
    let mut pool = FramePool::new();
    let mut tagged = [0u8; 18];
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    for len in 0..18 {
        let mut frame = pool.copy_of(&tagged[..len]);
        assert_eq!(pop_tag(&mut frame), None);
        assert_eq!(frame.bytes(), &tagged[..len]);
        assert_eq!(push_tag(&mut frame, 1), len >= 14);
    }
    // An 802.3 length and an 802.1ad tag are not for us to take off.
    for other in [[0x00, 0x26], [0x88, 0xa8], [0x08, 0x00]] {
        let mut bytes = [7u8; 60];
        bytes[12..14].copy_from_slice(&other);
        let mut frame = pool.copy_of(&bytes);
        assert_eq!(pop_tag(&mut frame), None);
        assert_eq!(frame.bytes(), bytes);
    }
}

#[test]
fn a_push_without_room_is_refused_whole() {
    let mut pool = FramePool::new();
    let mut frame = pool.copy_of(&[1; 60]);
    for _ in 0..HEADROOM / TAG_LEN {
        assert!(push_tag(&mut frame, 1));
    }
    let before = frame.bytes().to_vec();
    frame.offload.checksum = Checksum::Partial { start: 34, offset: 16 };
    assert!(!push_tag(&mut frame, 1));
    assert_eq!(frame.bytes(), before);
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 34, offset: 16 });
    let mut frame = pool.copy_of(&[1; 60]);
    frame.offload.checksum = Checksum::Partial { start: u16::MAX - 3, offset: 16 };
    assert!(!push_tag(&mut frame, 1));
    assert_eq!(frame.bytes(), [1; 60]);
}

proptest! {
    #[test]
    fn br_8_push_and_pop_undo_each_other(
        bytes in proptest::collection::vec(any::<u8>(), 14..1514),
        vlan in 0u16..4096,
        priority in 0u16..16,
        start in 14u16..1000,
        partial in any::<bool>(),
    ) {
        let mut pool = FramePool::new();
        let mut frame = pool.copy_of(&bytes);
        frame.priority = priority << 12;
        let checksum = if partial { Checksum::Partial { start, offset: 6 } } else { Checksum::Verified };
        frame.offload.checksum = checksum;
        prop_assert!(push_tag(&mut frame, vlan));
        prop_assert_eq!(frame.len(), bytes.len() + TAG_LEN);
        if partial {
            prop_assert_eq!(frame.offload.checksum, Checksum::Partial { start: start + 4, offset: 6 });
        }
        let tagged = frame.bytes().to_vec();
        frame.priority = 0;
        prop_assert_eq!(pop_tag(&mut frame), Some(vlan));
        prop_assert_eq!(frame.bytes(), &bytes[..]);
        prop_assert_eq!(frame.priority, priority << 12);
        prop_assert_eq!(frame.offload.checksum, checksum);
        prop_assert!(push_tag(&mut frame, vlan));
        prop_assert_eq!(frame.bytes(), &tagged[..]);
    }
}
