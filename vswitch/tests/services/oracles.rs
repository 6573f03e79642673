//! Services as others see them, by either proxy: what nmap finds open, refused and silent, and what tshark finds wrong.

use super::doors::{is_ready, talk, talker};
use super::*;
use common::tshark;

const BALANCED: [&str; 2] = ["10.20.30.100", "fd00:20:30::100"];
const FREE: [&str; 2] = ["10.96.7.99", "fd00:10:96::99"];

/// What must match no frame. The severity is that of errors: frames that contradict themselves.
const WRONG: &str = "_ws.malformed || _ws.expert.severity >= 8388608 || ip.checksum.status == 0 || \
                     tcp.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0 || \
                     icmpv6.checksum.status == 0";
/// Flags that no end of a connection sends together, or none of those that one of them has always.
const NO_FLAGS: &str = "tcp.flags.syn == 1 && (tcp.flags.fin == 1 || tcp.flags.reset == 1) || tcp.flags.res != 0 || \
                        tcp.flags.syn == 0 && tcp.flags.reset == 0 && tcp.flags.ack == 0";

/// What nmap says of two ports of each address, asked in this way: a state and its reason.
fn scan(cluster: &Cluster, from: &str, how: &str, addresses: &[&str], ports: &str) -> Vec<[String; 2]> {
    let family = if addresses[0].contains(':') { &["-6"][..] } else { &[] };
    let ask = [&["nmap", "-n", "-Pn", "--reason", how, "-p", ports][..], family, addresses].concat();
    let told = cluster.must(from, &ask);
    let words = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ports =
        words.filter(|words| words.len() > 3 && words[0].contains("/tcp") | words[0].contains("/udp"));
    let found: Vec<_> = ports.map(|words| [words[1].to_owned(), words[3].to_owned()]).collect();
    assert_eq!(found.len(), 2 * addresses.len(), "{}: {told}", ask.join(" "));
    found
}

fn scans(cluster: &Cluster, from: &str, addresses: &[&str]) {
    for (how, ports, open, closed, silent) in [
        ("-sT", "80,81", ["open", "syn-ack"], ["closed", "conn-refused"], "filtered"),
        ("-sS", "80,81", ["open", "syn-ack"], ["closed", "reset"], "filtered"),
        // A datagram is refused by the router, in its own name, which nmap takes for a filter.
        ("-sU", "53,54", ["open", "udp-response"], ["filtered", "port-unreach"], "open|filtered"),
    ] {
        let found = scan(cluster, from, how, addresses, ports);
        assert_eq!(found[..2], [open, closed], "{from} {how} {addresses:?}");
        for free in &found[2..] {
            assert_eq!(*free, [silent, "no-response"], "{from} {how} {addresses:?}");
        }
    }
}

/// Connections, datagrams and refusals.
fn everything(cluster: &Cluster) {
    for (vip, balanced) in VIPS.iter().zip(BALANCED) {
        assert!(!answers(cluster, "alpha", vip, 80, 8).is_empty(), "{vip}");
        assert!(talk(cluster, "alpha", vip, 53, 0).0.starts_with('u'), "{vip}");
        for (port, protocol) in [(81, "tcp"), (54, "udp")] {
            assert_eq!(refused(cluster, "alpha", vip, port, protocol), "ConnectionRefusedError", "{vip}");
        }
        assert!(!answers(cluster, "host/inside", balanced, 80, 4).is_empty(), "{balanced}");
    }
}

#[test]
fn scans_find_what_is_there_and_tshark_nothing_wrong() {
    if !ready(&["curl", "nmap", "python3", "tshark"]) {
        return;
    }
    let ports =
        "ports: [{name: t, port: 80, targetPort: web}, {name: u, port: 53, protocol: UDP, targetPort: talk}]";
    let text = [
        LAB.to_owned(),
        web("w1", "node-1", ""),
        web("w2", "node-2", ""),
        talker("u1", "node-1"),
        talker("u2", "node-2"),
        service("s", &format!("type: LoadBalancer, {DUAL}, {ports}")),
    ];
    let cluster = Cluster::of("oracles", &text.concat(), &["--no-offload"]);
    for pod in ["w1", "w2", "u1", "u2"] {
        until(&format!("{pod} is ready"), || is_ready(&cluster, pod));
    }
    let userspace = LAB.replacen("spec:\n", "spec:\n  proxyMode: userspace\n", 1);
    for (mode, text) in [("maglev", LAB), ("userspace", &userspace)] {
        apply(&cluster, "apply", text);
        for ((vip, free), balanced) in VIPS.iter().zip(FREE).zip(BALANCED) {
            scans(&cluster, "alpha", &[vip, free]);
            scans(&cluster, "host/inside", &[balanced]);
        }
        let path = cluster.state.join(format!("{mode}.pcapng"));
        let file = path.to_str().unwrap();
        let mut capture = cluster.capture("any", file, 2000);
        while !capture.ended() {
            everything(&cluster);
        }
        capture.finish();
        for wrong in [WRONG, NO_FLAGS] {
            assert_eq!(tshark(file, wrong), "", "{mode}");
        }
        // Both windows, or nothing has been shown: the client sees the Service, and the server one whom it can answer.
        let clients = match mode {
            "maglev" => ["10.244.0.2", "fd00:10:244::2"],
            _ => ["10.20.30.2", "fd00:20:30::2"],
        };
        for (at, ip) in ["ip", "ipv6"].into_iter().enumerate() {
            let own = format!("frame.interface_name == \"node-1:default/alpha\" && {ip}.src == {}", VIPS[at]);
            let theirs = format!("{ip}.dst == {} && !({ip}.addr == {})", clients[at], VIPS[at]);
            for (server, sound) in
                [("w", "tcp.checksum.status == 1 && tcp.len > 0"), ("u", "udp.checksum.status == 1 && !icmp")]
            {
                let server = format!("frame.interface_name contains \"default/{server}\" && {theirs}");
                for window in [&own, &server] {
                    let filter = format!("{window} && {sound}");
                    assert_ne!(tshark(file, &filter), "", "{mode} has nothing of {filter}");
                }
            }
            let reset = format!("{ip}.src == {} && tcp.flags.reset == 1 && tcp.seq_raw == 0", VIPS[at]);
            assert_ne!(tshark(file, &reset), "", "{mode} has nothing of {reset}");
        }
        for told in ["icmp.type == 3 && icmp.code == 3", "icmpv6.type == 1 && icmpv6.code == 4"] {
            assert_ne!(tshark(file, told), "", "{mode} has nothing of {told}");
        }
    }
}
