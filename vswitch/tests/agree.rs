//! What `trace` says of a packet and what a capture shows of it are the same, port by port, with the same MAC addresses.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Cluster, ready, success};
use serde_json::Value;

/// One passage of a packet through a port: `SWITCH:PORT`, in or out, and the MAC addresses it had there.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Passage {
    port: String,
    inbound: bool,
    macs: Option<(String, String)>,
}

/// The passages that a trace tells of. It shows the MAC addresses of frames as they come in.
fn traced(cluster: &Cluster, from: &str, packet: &str) -> Vec<Passage> {
    let text = success("trace", &cluster.verb(&["trace", from, packet, "-o", "json"]));
    let trace: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(trace["delivered"], true, "{text}");
    let mut passages = Vec::new();
    for hop in trace["hops"].as_array().unwrap() {
        let switch = hop["switch"].as_str().unwrap();
        let parsed = hop["steps"][0][1].as_str().unwrap();
        let words: Vec<&str> = parsed.split([' ', ',']).collect();
        let at = words.iter().position(|word| *word == ">").unwrap();
        let macs = Some((words[at - 1].to_owned(), words[at + 1].to_owned()));
        let port = |name: &str| format!("{switch}:{name}");
        passages.push(Passage { port: port(hop["port"].as_str().unwrap()), inbound: true, macs });
        let outcome = hop["outcome"].as_str().unwrap();
        let out = outcome.split_once(" to ").unwrap().1;
        passages.push(Passage { port: port(out), inbound: false, macs: None });
    }
    passages
}

/// The passages of the packets that match `filter` in a capture of all ports, in order.
fn captured(file: &str, filter: &str) -> Vec<Passage> {
    let fields = ["frame.interface_name", "frame.packet_flags_direction", "eth.src", "eth.dst"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-r", file, "-Y", filter, "-T", "fields"]);
    tshark.args(fields.iter().flat_map(|field| ["-e", field]));
    let text = success("tshark", &tshark.output().unwrap());
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let inbound = fields[1].trim_start_matches("0x").trim_start_matches('0') == "1";
        Passage {
            port: fields[0].to_owned(),
            inbound,
            macs: Some((fields[2].to_owned(), fields[3].to_owned())),
        }
    };
    text.lines().map(row).collect()
}

#[test]
fn trace_and_capture_tell_the_same_way() {
    if !ready(&["tshark", "ping", "curl"]) {
        return;
    }
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/lab");
    let mut manifest = String::new();
    for file in ["cluster.yaml", "pods.yaml"] {
        manifest += "---\n";
        manifest += &std::fs::read_to_string(lab.join(file)).unwrap();
    }
    let name = format!("agree{}", std::process::id());
    let cluster = Cluster::of("agree", &manifest.replace("{name: lab}", &format!("{{name: {name}}}")), &[]);
    common::until("the web pods serve", || cluster.serves());
    let ways = [
        ("front", "10.10.10.3", "10.10.10.2", "ip"),
        ("front", "10.10.20.2", "10.10.10.2", "ip"),
        ("front", "10.10.30.2", "10.10.10.2", "ip"),
        ("web-2", "fd00:10:10:20::2", "fd00:10:10:40::2", "ipv6"),
        ("host/outside", "10.10.10.2", "192.168.10.200", "ip"),
    ];
    // Everybody knows everybody's MAC address from here on, so that nothing is asked in between.
    for (from, to, ..) in ways {
        cluster.must(from, &["ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", to]);
    }
    for (number, (from, to, own, family)) in ways.into_iter().enumerate() {
        let file = cluster.state.join(format!("way-{number}.pcapng"));
        let file = file.to_str().unwrap();
        let address = if family == "ip" { to.to_owned() } else { format!("[{to}]") };
        let expected = traced(&cluster, from, &format!("tcp {address}:8080"));
        let capture = cluster.capture("any", file, 400);
        cluster.must(from, &["curl", "-sS", "--noproxy", "*", &format!("http://{address}:8080/")]);
        // The rest of the frames that the capture waits for.
        cluster.must("web-3", &["ping", "-n", "-c", "150", "-i", "0.002", "-W", "5", "10.10.20.2"]);
        capture.finish();
        let syn = format!(
            "{family}.src == {own} && {family}.dst == {to} && tcp.flags.syn == 1 && tcp.flags.ack == 0"
        );
        let seen = captured(file, &syn);
        assert_eq!(seen.len(), expected.len(), "{from} to {to}: {expected:#?}\n{seen:#?}");
        for (expected, seen) in expected.iter().zip(&seen) {
            assert_eq!((&expected.port, expected.inbound), (&seen.port, seen.inbound), "{from} to {to}");
            if expected.macs.is_some() {
                assert_eq!(expected.macs, seen.macs, "{from} to {to}, at {}", seen.port);
            }
        }
    }
}
