//! The scripts that know Linux, and what is common to what they say.

use std::process::Command;

use serde_json::Value;
use vswitch_tests::{skip, top};

/// Frames and the ports that they came out of.
pub(crate) type Frames = Vec<(String, Vec<u8>)>;

/// How to run a script of this folder; nothing, and a word about why, where it cannot run.
pub(crate) fn script(name: &str) -> Option<Command> {
    const PYTHON: &str = "/usr/bin/python3";
    if !nix::unistd::geteuid().is_root() {
        skip("differential", "making a Linux router needs root");
        return None;
    }
    if Command::new(PYTHON).args(["-c", "import scapy"]).output().is_ok_and(|o| !o.status.success()) {
        skip("differential", "python3-scapy is not installed");
        return None;
    }
    let mut command = Command::new(PYTHON);
    command.arg("-B").arg(top().join("tests/differential").join(name));
    Some(command)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

pub(crate) fn octets(value: &Value) -> Vec<u8> {
    decode(value.as_str().expect("a string"))
}

pub(crate) fn frames(list: &Value) -> Frames {
    list.as_array().expect("a list").iter().map(|frame| (text(&frame[0]), octets(&frame[1]))).collect()
}

pub(crate) fn decode(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hexadecimal")).collect()
}

pub(crate) fn encode(octets: &[u8]) -> String {
    octets.iter().map(|o| format!("{o:02x}")).collect()
}

/// The lines that show frames in a message.
pub(crate) fn list(frames: &[(String, Vec<u8>)]) -> String {
    frames.iter().map(|(port, f)| format!("\n      {port}: {}", encode(&f[..f.len().min(120)]))).collect()
}

/// Zeroes what the router chose itself in a packet that it made itself.
pub(crate) fn mask_originated(frame: &mut [u8]) {
    if frame.len() < 34 {
        return;
    }
    match (frame[12], frame[13]) {
        (0x08, 0x00) => {
            let error = frame[23] == 1 && matches!(frame[34..], [3 | 11 | 12, ..]);
            if error {
                frame[15] = 0;
            }
            // Identification, and the checksum over it.
            frame[18..20].fill(0);
            frame[24..26].fill(0);
        }
        (0x86, 0xdd) => {
            frame[14] &= 0xf0;
            frame[15..18].fill(0);
        }
        _ => {}
    }
}
