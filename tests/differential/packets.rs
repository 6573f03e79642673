//! Single packets through a Linux router and bridge, and through ours: equal octets, or a reason.
//!
//! `packets.py` plays the cases of `cases.py` to the kernel; here they are played to a switch in memory that is configured
//! alike. Masked before comparing, because neither side prescribes them:
//! - the IPv4 identification of packets the router makes itself (RFC 6864 leaves the choice open), and with it the header
//!   checksum; forwarded packets and fragments keep theirs and are compared whole;
//! - the IPv6 flow label of packets the router makes itself (RFC 6437 section 3);
//! - the TOS octet of ICMP errors (RFC 1812 section 4.3.2.5 allows 0, 6 or 7 as precedence, or the packet's own).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::exceptions::EXCEPTIONS;
use crate::oracle::{self, decode, list};
use crate::switched::Switched;

/// What follows from a packet within this time belongs to its case.
const STEP: Duration = Duration::from_secs(4);
/// Cases that the differential test must have at least.
const LEAST_CASES: usize = 60;

struct Case {
    name: String,
    side: String,
    sent: Vec<u8>,
    linux: Vec<(String, Vec<u8>)>,
}

#[test]
fn the_same_packets_through_linux_and_through_us() {
    let Some(mut script) = oracle::script("packets.py") else { return };
    let output = script.output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
    let (routed, bridged) = (cases(&results["routed"]), cases(&results["bridged"]));
    assert!(routed.len() >= LEAST_CASES, "{} cases", routed.len());

    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (cases, mut ours) in [(routed, Switched::router()), (bridged, Switched::bridge())] {
        for case in &cases {
            let frames = ours.play(&case.side, &[&case.sent], STEP);
            compare(case, &frames, &mut used, &mut wrong);
        }
        ours.switch.check().unwrap();
    }
    for (name, _, _) in EXCEPTIONS {
        if !used.contains(name) {
            wrong.push(format!("exception {name:?} is not needed: the outputs are equal"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differences from Linux {}:\n{}",
        wrong.len(),
        results["kernel"],
        wrong.join("\n")
    );
}

fn cases(list: &Value) -> Vec<Case> {
    list.as_array()
        .expect("a list")
        .iter()
        .map(|case| Case {
            name: oracle::text(&case["name"]),
            side: oracle::text(&case["side"]),
            sent: oracle::octets(&case["sent"]),
            linux: oracle::frames(&case["received"]),
        })
        .collect()
}

fn compare(case: &Case, ours: &[(String, Vec<u8>)], used: &mut BTreeSet<&str>, wrong: &mut Vec<String>) {
    let masked = |frames: &[(String, Vec<u8>)]| {
        let mut frames: Vec<(String, Vec<u8>)> =
            frames.iter().map(|(port, frame)| (port.clone(), mask(frame, &case.sent))).collect();
        // Copies of a flood have no order among ports; frames of one port keep theirs.
        frames.sort_by(|a, b| a.0.cmp(&b.0));
        frames
    };
    let (linux, ours) = (masked(&case.linux), masked(ours));
    let exception = EXCEPTIONS.iter().find(|(name, _, _)| *name == case.name);
    if linux == ours {
        return;
    }
    let expected = exception.is_some_and(|(_, behaviour, _)| behaviour.allows(&linux, &ours));
    if expected {
        used.extend(exception.map(|(name, _, _)| *name));
        return;
    }
    wrong.push(format!("{}\n    linux:{}\n    ours:{}", case.name, list(&linux), list(&ours)));
}

fn mask(frame: &[u8], sent: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if !shares_payload(&frame, sent) {
        oracle::mask_originated(&mut frame);
    }
    frame
}

/// A forwarded packet keeps addresses; one that the router made goes back to where the first came from.
fn shares_payload(frame: &[u8], sent: &[u8]) -> bool {
    let addresses = |f: &[u8]| match f.get(12..14) {
        Some([0x08, 0x00]) => f.get(26..34).map(<[u8]>::to_vec),
        Some([0x86, 0xdd]) => f.get(22..54).map(<[u8]>::to_vec),
        _ => None,
    };
    addresses(frame) == addresses(sent)
}

#[test]
fn the_comparison_catches_planted_bugs() {
    let sent = decode(
        "020000000a01020000000a02080045000024123400004011548f0a0100020a0200029c40138800107eae7061796c6f616421",
    );
    let good = decode(
        "020000000b02020000000b01080045000024123400003f11558f0a0100020a0200029c40138800107eae7061796c6f616421",
    );
    let case =
        Case { name: "planted".into(), side: "a".into(), sent, linux: vec![("b".into(), good.clone())] };
    let differences = |ours: &[(String, Vec<u8>)]| {
        let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
        compare(&case, ours, &mut used, &mut wrong);
        wrong.len()
    };
    assert_eq!(differences(&[("b".into(), good.clone())]), 0);
    // Every single octet counts: of a forwarded packet nothing is masked.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(differences(&[("b".into(), bad)]), 1, "octet {at}");
    }
    assert_eq!(differences(&[]), 1, "a lost packet");
    assert_eq!(differences(&[("a".into(), good.clone())]), 1, "the wrong port");
    assert_eq!(differences(&[("b".into(), good.clone()), ("b".into(), good)]), 1, "a duplicate");
}
