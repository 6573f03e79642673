//! What the command tells about the traffic is what happened: captures, traces, tables.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use common::{Background, Cluster, ready, success, tshark, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What must match no frame of ours. The severity is that of errors: frames that contradict themselves.
const WRONG: &str = "_ws.malformed || _ws.expert.severity >= 8388608 || ip.checksum.status == 0 || \
                     tcp.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0 || \
                     icmpv6.checksum.status == 0";

/// The same where pods leave checksums to their devices. Then a receiving kernel quotes a datagram for a closed L4 port as
/// it got it, without its checksum, as it does behind veth; what the switches quote is whole.
const WRONG_WITH_OFFLOAD: &str = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || \
                                  icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || \
                                  (!(icmp.type == 3 || icmpv6.type == 1) && \
                                  (_ws.expert.severity >= 8388608 || udp.checksum.status == 0))";

/// Each must match some frame, or nothing has been shown.
const PRESENT: [&str; 12] = [
    "arp",
    "icmpv6.type == 135",
    "ip.checksum.status == 1",
    "tcp.checksum.status == 1 && ip && tcp.len > 0",
    "tcp.checksum.status == 1 && ipv6 && tcp.len > 0",
    "udp.checksum.status == 1 && ip && !icmp",
    "udp.checksum.status == 1 && ipv6 && !icmpv6",
    "icmp.checksum.status == 1 && icmp.type == 0",
    "icmpv6.checksum.status == 1 && icmpv6.type == 129",
    "icmp.type == 3 && icmp.code == 3",
    "icmp.type == 11",
    "icmpv6.type == 3",
];

const MARKER: &[u8] = b"marker-in-a-datagram";

/// A little of everything: errors, resolution, datagrams, echoes, connections.
fn mixed_traffic(cluster: &Cluster) {
    for address in ["10.244.1.2", "fd00:10:244:1::2", "10.20.30.12", "192.168.10.200"] {
        cluster.must("alpha", &["ping", "-n", "-c", "2", "-i", "0.01", address]);
        // The second port is one that tshark knows a protocol for.
        for port in ["9", "47000"] {
            let shell = format!("echo {} > /dev/udp/{address}/{port}", String::from_utf8_lossy(MARKER));
            cluster.must("alpha", &["bash", "-c", &shell]);
        }
        let _ =
            cluster.exec("alpha", &["traceroute", "-n", "-q", "1", "-N", "1", "-w", "1", "-m", "4", address]);
    }
    for target in ["10.244.1.2:7007", "[fd00:10:244:1::2]:7007"] {
        cluster.must("alpha", &[common::executable(), "__probe", "udp", target, "3", "1000"]);
        cluster.must("alpha", &[common::executable(), "__probe", "tcp", target, "50000"]);
    }
}

fn servers(cluster: &Cluster) -> [Background; 2] {
    ["gamma", "host/outside"].map(|place| cluster.probe_server(place, 7007))
}

#[track_caller]
fn assert_sound(file: &str, wrong: &str) {
    assert_eq!(tshark(file, wrong), "", "{file}");
    for filter in PRESENT {
        assert_ne!(tshark(file, filter), "", "{file} has nothing of {filter}");
    }
}

#[test]
fn captures_hold_nothing_that_tshark_finds_wrong() {
    if !ready(&["tshark", "capinfos", "traceroute", "ping"]) {
        return;
    }
    for (arguments, wrong) in [
        (&[][..], WRONG_WITH_OFFLOAD),
        (&["--no-offload"], WRONG),
        (&["--no-offload-for", "gamma"], WRONG_WITH_OFFLOAD),
    ] {
        let cluster = Cluster::up("tshark", arguments);
        let _servers = servers(&cluster);
        let path = cluster.state.join("any.pcapng");
        let file = path.to_str().unwrap();
        let mut capture = cluster.capture("any", file, 3000);
        while !capture.ended() {
            mixed_traffic(&cluster);
        }
        capture.finish();
        let info =
            success("capinfos", &Command::new("capinfos").args(["-t", "-c", "-M", file]).output().unwrap());
        assert!(info.contains("pcapng") && info.contains("3000"), "{info}");
        assert_sound(file, wrong);

        // The oracle sees a planted error: one octet of each datagram that we know.
        let mut bytes = fs::read(&path).unwrap();
        let at: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i..].starts_with(MARKER)).collect();
        assert!(!at.is_empty());
        for i in at {
            bytes[i] ^= 0x20;
        }
        let planted = cluster.state.join("planted.pcapng");
        fs::write(&planted, bytes).unwrap();
        assert_ne!(tshark(planted.to_str().unwrap(), wrong), "");
    }
}

/// The same seen from within a pod, by a program that is none of ours.
#[test]
fn what_arrives_in_a_pod_has_sound_checksums() {
    if !ready(&["tshark", "tcpdump", "traceroute", "ping"]) {
        return;
    }
    let cluster = Cluster::up("tcpdump", &["--no-offload"]);
    let _servers = servers(&cluster);
    let path = cluster.state.join("alpha.pcap");
    let file = path.to_str().unwrap();
    let tcpdump = cluster
        .spawn("alpha", &["tcpdump", "--immediate-mode", "-U", "-n", "-i", "eth0", "-Z", "root", "-w", file]);
    until("tcpdump writes", || {
        cluster.must("alpha", &["ping", "-n", "-c", "1", "10.244.0.1"]);
        fs::metadata(&path).is_ok_and(|m| m.len() > 100)
    });
    // Resolution happens again within the capture.
    cluster.must("alpha", &["ip", "neigh", "flush", "all"]);
    mixed_traffic(&cluster);
    // What the kernel has handed over, tcpdump writes within its read timeout of a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    drop(tcpdump);
    assert_sound(file, WRONG);
}

#[test]
fn a_capture_without_a_file_is_a_stream() {
    if !ready(&["tshark"]) {
        return;
    }
    let cluster = Cluster::up("stream", &[]);
    let mut capture =
        cluster.command(&["capture", "alpha", "-c", "4"]).stdout(Stdio::piped()).spawn().unwrap();
    let stream = capture.stdout.take().unwrap();
    let tshark = Command::new("tshark")
        .args(["-n", "-r", "-", "-T", "fields", "-e", "frame.number"])
        .stdin(stream)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("four frames have passed", || {
        cluster.must("alpha", &["ping", "-n", "-c", "1", "10.244.0.3"]);
        capture.try_wait().unwrap().is_some()
    });
    let output = tshark.wait_with_output().unwrap();
    assert_eq!(success("tshark", &output), "1\n2\n3\n4\n");
    let refused = cluster.verb(&["capture", "nobody", "-w", "/dev/null"]);
    assert!(!refused.status.success() && common::both(&refused).contains("names no port"), "{refused:?}");
}

/// Few frames wanted out of many: the filter is asked where the copy is made, so that none of them is lost.
#[test]
fn a_filtered_capture_holds_all_that_match_and_nothing_else() {
    if !ready(&["tcpdump", "ping"]) {
        return;
    }
    let cluster = Cluster::up("filter", &[]);
    let _servers = servers(&cluster);
    let path = cluster.state.join("filtered.pcapng");
    let file = path.to_str().unwrap();
    let filter = "udp dst port 7007 and net 10.244.0.0/16";
    // Each datagram enters and leaves three switches.
    let count = 6 * 20;
    let mut command = cluster.command(&["capture", "any", "-w", file, "-c", &count.to_string(), filter]);
    let mut capture = command.stderr(Stdio::piped()).spawn().unwrap();
    until("the capture has begun", || fs::metadata(file).is_ok_and(|m| m.len() > 0));
    let tcp = [common::executable(), "__probe", "tcp", "10.244.1.2:7007", "50000000"];
    let _heavy = cluster.spawn("alpha", &tcp);
    cluster.must("beta", &[common::executable(), "__probe", "udp", "10.244.1.2:7007", "20", "100"]);
    until("the capture has its frames", || capture.try_wait().unwrap().is_some());
    let read = |filter: &str| {
        let output = Command::new("tcpdump").args(["-n", "-r", file, filter]).output().unwrap();
        success("tcpdump", &output).lines().count()
    };
    assert_eq!((read(""), read(filter)), (count, count));
    let refused = cluster.verb(&["capture", "any", "-w", "/dev/null", "tcp", "prot", "80"]);
    let told = common::both(&refused);
    assert!(!refused.status.success() && told.contains("\"prot\" at column 5: expected"), "{told}");
}

#[test]
fn frames_are_shown_as_they_pass_until_ctrl_c() {
    if !ready(&["ping", "tcpdump", "traceroute"]) {
        return;
    }
    let cluster = Cluster::up("text", &[]);
    let _servers = servers(&cluster);
    let path = cluster.state.join("lines");
    let capture = |arguments: &[&str]| {
        let out = fs::File::create(&path).unwrap();
        cluster.command(&[&["capture"], arguments].concat()).stdout(out).spawn().unwrap()
    };
    let shown = || fs::read_to_string(&path).unwrap();
    let mut process = capture(&["-n", "default", "alpha", "--text", "icmp", "or", "arp", "or", "icmp6"]);
    until("the capture has begun", || shown().starts_with("TIME (UTC)"));
    cluster.must("alpha", &["ip", "neigh", "flush", "all"]);
    for (address, lines) in [
        (
            "10.244.0.3",
            [
                "node-1:default/alpha  in   ARP who-has 10.244.0.3 tell 10.244.0.2",
                "node-1:default/alpha  in   10.244.0.2 > 10.244.0.3 ICMP echo request id ",
                "node-1:default/alpha  out  10.244.0.3 > 10.244.0.2 ICMP echo reply id ",
            ],
        ),
        (
            "fd00:10:244::3",
            [
                "ICMPv6 neighbor solicitation who-has fd00:10:244::3",
                "node-1:default/alpha  in   fd00:10:244::2 > fd00:10:244::3 ICMPv6 echo request id ",
                "node-1:default/alpha  out  fd00:10:244::3 > fd00:10:244::2 ICMPv6 echo reply id ",
            ],
        ),
    ] {
        cluster.must("alpha", &["ping", "-n", "-c", "1", "-W", "5", address]);
        until(&format!("{lines:#?} is shown"), || lines.iter().all(|line| shown().contains(line)));
    }
    kill(Pid::from_raw(process.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let mut ended = None;
    until("it ends", || {
        ended = process.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success(), "{ended:?}");

    // Interrupted, a file ends at a whole frame.
    let mut process = capture(&["any"]);
    until("the capture has begun", || !fs::read(&path).unwrap().is_empty());
    mixed_traffic(&cluster);
    kill(Pid::from_raw(process.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert!(process.wait().unwrap().success());
    let read = Command::new("tcpdump").args(["-n", "-r", path.to_str().unwrap()]).output().unwrap();
    assert!(success("tcpdump", &read).lines().count() > 20);
    let wrong = cluster.verb(&["capture", "-n", "default", "any"]);
    assert!(!wrong.status.success() && common::both(&wrong).contains("leave -n default out"), "{wrong:?}");
}

/// The built-in cluster, which nothing leaves: what is nowhere has no route.
fn closed() -> String {
    include_str!("../src/objects/builtin.yaml").replacen("\nspec:\n", "\nspec:\n  egress: none\n", 1)
}

/// A trace and the packet itself end at the same place, for the same reason.
#[test]
fn traces_agree_with_what_happens() {
    if !ready(&["ping", "curl"]) {
        return;
    }
    let cluster = Cluster::of("trace", &closed(), &[]);
    // Whoever is on the way knows its neighbours first; the unknown address has been asked for in vain.
    for address in ["10.244.1.2", "fd00:10:244:1::2", "192.168.10.200", "fd00:192:168:10::200"] {
        cluster.must("alpha", &["ping", "-n", "-c", "2", "-i", "0.01", "-W", "5", address]);
    }
    let delivered = [
        ("alpha", "10.244.0.3", "default/beta", &["node-1"][..]),
        ("alpha", "10.244.1.2", "default/gamma", &["node-1", "underlay", "node-2"]),
        ("alpha", "fd00:10:244:1::2", "default/gamma", &["node-1", "underlay", "node-2"]),
        ("alpha", "10.20.30.12", "node/node-2", &["node-1", "underlay", "node-2"]),
        ("alpha", "192.168.10.200", "host/outside", &["node-1", "underlay"]),
        ("host/outside", "fd00:10:244::2", "default/alpha", &["underlay", "node-1"]),
    ];
    for (from, to, place, way) in delivered {
        cluster.must(from, &["ping", "-n", "-c", "2", "-i", "0.01", "-W", "5", to]);
        let packet = match to.contains(':') {
            true => format!("udp [{to}]:9"),
            false => format!("udp {to}:9"),
        };
        let trace = trace(&cluster, from, &packet);
        assert_eq!(trace["outcome"], format!("delivered to {place}"), "{from} to {to}: {trace:#}");
        assert_eq!(trace["delivered"], true);
        let switches: Vec<&str> =
            trace["hops"].as_array().unwrap().iter().map(|hop| hop["switch"].as_str().unwrap()).collect();
        assert_eq!(switches, way, "{from} to {to}");
    }
    let not_delivered = [
        ("10.244.0.1", "echo reply", " 1 received"),
        ("10.20.30.11", "echo reply", " 1 received"),
        (
            "203.0.113.9",
            "underlay: dropped: no_route",
            "From 10.20.30.1 icmp_seq=1 Destination Net Unreachable",
        ),
        ("2001:db8::9", "underlay: dropped: no_route", "Destination unreachable: No route"),
    ];
    for (to, traced, pinged) in not_delivered {
        let trace = trace(&cluster, "alpha", &format!("icmp {to}"));
        assert_eq!(trace["delivered"], false);
        assert!(trace["outcome"].as_str().unwrap().contains(traced), "{to}: {trace:#}");
        let ping = common::both(&cluster.exec("alpha", &["ping", "-n", "-c", "1", "-W", "5", to]));
        assert!(ping.contains(pinged), "{to}: {ping}");
    }
    let trace = trace(&cluster, "alpha", "tcp 10.244.0.1:9");
    assert!(trace["outcome"].as_str().unwrap().contains("TCP reset"), "{trace:#}");
    let curl = cluster.exec("alpha", &["curl", "-sS", "-m", "5", "--noproxy", "*", "http://10.244.0.1:9/"]);
    assert_eq!(curl.status.code(), Some(7), "{}", common::both(&curl));
}

/// The exit status says whether the packet is delivered, and the text is the same in words.
fn trace(cluster: &Cluster, from: &str, packet: &str) -> Value {
    let output = cluster.verb(&["trace", from, packet, "-o", "json"]);
    let trace: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(output.status.success(), trace["delivered"].as_bool().unwrap());
    let words = cluster.verb(&["trace", from, packet]);
    let words = String::from_utf8(words.stdout).unwrap();
    assert_eq!(words.lines().last(), trace["outcome"].as_str());
    trace
}

fn has(rows: &[Value], fields: &[(&str, &str)]) -> bool {
    rows.iter().any(|row| fields.iter().all(|(field, value)| row[*field] == *value))
}

#[track_caller]
fn assert_has(rows: &[Value], fields: &[(&str, &str)]) {
    assert!(has(rows, fields), "{fields:?} is not in {rows:#?}");
}

fn count(cluster: &Cluster, port: &str, reason: &str) -> u64 {
    let drops = cluster.get("drops");
    let rows = drops.iter().filter(|row| row["port"] == port && row["reason"] == reason);
    rows.map(|row| row["count"].as_u64().unwrap()).sum()
}

#[test]
fn drops_are_counted_where_they_happen_and_by_their_reason() {
    if !ready(&["ping", "traceroute", "ip"]) {
        return;
    }
    let cluster = Cluster::of("drops", &closed(), &[]);
    let mut last = 0;
    for (port, reason, argv) in [
        ("default/alpha", "ttl_exceeded", &["traceroute", "-n", "-q", "1", "-w", "1", "10.244.1.2"][..]),
        ("uplink", "ttl_exceeded", &["traceroute", "-n", "-q", "1", "-w", "1", "10.244.1.2"]),
        ("node-1", "no_route", &["ping", "-c", "1", "-W", "1", "203.0.113.9"]),
        ("node-1", "no_route", &["ping", "-c", "1", "-W", "1", "2001:db8::9"]),
        ("default/alpha", "no_listener", &["bash", "-c", "echo > /dev/udp/10.244.0.1/9"]),
        ("uplink", "neighbor_failed", &["ping", "-c", "1", "-W", "5", "10.244.1.99"]),
        (
            "default/alpha",
            "spoofed_address",
            &["ping", "-c", "1", "-W", "1", "-I", "10.99.0.1", "10.244.1.2"],
        ),
        ("default/alpha", "spoofed_mac", &["ping", "-c", "1", "-W", "1", "10.244.0.3"]),
    ] {
        if reason == "spoofed_address" {
            cluster.must("alpha", &["ip", "address", "add", "10.99.0.1/32", "dev", "eth0"]);
        }
        if reason == "spoofed_mac" {
            cluster.must("alpha", &["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"]);
        }
        let before = count(&cluster, port, reason);
        let output = cluster.exec("alpha", argv);
        let after = count(&cluster, port, reason);
        assert!(after > before, "{port} {reason}: {before}, {after}\n{}", common::both(&output));
        last += 1;
    }
    assert_eq!(last, 8);
    assert!(cluster.get("drops").iter().all(|row| row["description"].as_str().unwrap().len() > 10));
    let events = cluster.get("events");
    assert_has(&events, &[("switch", "node-2"), ("text", "10.244.1.99 does not answer")]);
    let table = success("get drops", &cluster.verb(&["get", "drops"]));
    assert!(table.contains("spoofed_mac"), "{table}");
}

#[test]
fn tables_hold_what_is_there() {
    if !ready(&["ping", "ip"]) {
        return;
    }
    let cluster = Cluster::up("tables", &[]);
    for address in ["10.244.1.2", "fd00:10:244:1::2", "192.168.10.200", "10.244.0.3", "10.20.30.12"] {
        cluster.must("alpha", &["ping", "-n", "-c", "3", "-i", "0.01", "-W", "5", address]);
    }
    let kernel = |place: &str| -> Value {
        let text = cluster.must(place, &["ip", "-s", "-j", "link", "show", "eth0"]);
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    };
    let mac = |place: &str| kernel(place)["address"].as_str().unwrap().to_owned();

    let fdb = cluster.get("fdb");
    let alpha = mac("alpha");
    assert_has(&fdb, &[("switch", "node-1"), ("port", "default/alpha"), ("kind", "static"), ("mac", &alpha)]);
    let outside = mac("host/outside");
    assert_has(
        &fdb,
        &[("switch", "underlay"), ("port", "host/outside"), ("kind", "learned"), ("mac", &outside)],
    );
    assert_has(&fdb, &[("switch", "node-2"), ("segment", "pods"), ("kind", "self")]);

    let neighbors = cluster.get("neighbors");
    assert_has(
        &neighbors,
        &[("switch", "node-1"), ("address", "10.244.0.2"), ("mac", &alpha), ("state", "permanent")],
    );
    assert_has(&neighbors, &[("switch", "underlay"), ("address", "192.168.10.200"), ("mac", &outside)]);
    assert_has(&neighbors, &[("switch", "node-1"), ("segment", "uplink"), ("address", "fd00:20:30::12")]);

    let routes = cluster.get("routes");
    for fields in [
        [("switch", "node-1"), ("prefix", "10.244.1.0/24"), ("target", "via 10.20.30.12 on uplink")],
        [("switch", "node-2"), ("prefix", "::/0"), ("target", "via fd00:20:30::1 on uplink")],
        [("switch", "underlay"), ("prefix", "fd00:10:244::/64"), ("target", "via fd00:20:30::11 on rack-a")],
        [("switch", "node-1"), ("prefix", "10.244.0.0/24"), ("kind", "connected")],
        [("switch", "node-1"), ("prefix", "10.244.0.1"), ("kind", "local")],
    ] {
        assert_has(&routes, &fields);
    }

    let places: BTreeSet<String> =
        cluster.get("places").iter().map(|p| p["place"].as_str().unwrap().to_owned()).collect();
    assert_eq!(places.len(), 6);
    assert_eq!(cluster.get("events"), Vec::<Value>::new());

    // The kernel counts the other end of each port.
    for place in &places {
        let mut seen = (Value::Null, Value::Null);
        until(&format!("both ends of {place} count the same"), || {
            let ports = cluster.get("ports");
            let port = ports.iter().find(|p| p["port"] == **place).unwrap().clone();
            let statistics = kernel(place)["stats64"].clone();
            let same =
                [("rx_frames", "tx", "packets"), ("rx_bytes", "tx", "bytes"), ("tx_frames", "rx", "packets")]
                    .iter()
                    .all(|(ours, direction, theirs)| port[*ours] == statistics[*direction][*theirs]);
            seen = (port, statistics);
            same && seen.0["state"] == "up"
        });
    }
    for kind in ["places", "ports", "fdb", "neighbors", "routes", "events"] {
        let json = cluster.get(kind).len();
        let table = success(kind, &cluster.verb(&["get", kind, "-o", "wide"]));
        assert_eq!(table.lines().count(), json + 1, "{kind}: a header and a line for each\n{table}");
    }
}
