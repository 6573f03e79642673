//! What pods are seen with, and how they are reached: masquerade, host ports and the connections behind them, with real
//! programs in both families.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::Stdio;

use common::two_nodes::{LAB, curl, seen};
use common::{Background, Cluster, ManifestFile, both, executable, ready, success, until};
use serde_json::Value;

/// A pod on node-1 that serves HTTP on 8080 and has these ports.
fn web(name: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: node-1\n  containers:\n  \
         - {{name: c, image: vswitch/http, args: [--port, '8080'], ports: [{ports}]}}\n"
    )
}

const ALPHA: [&str; 2] = ["10.244.0.2", "fd00:10:244::2"];
const GAMMA: [&str; 2] = ["10.244.1.2", "fd00:10:244:1::2"];
const NODE_1: [&str; 2] = ["10.20.30.2", "fd00:20:30::2"];
const NODE_2: [&str; 2] = ["10.20.30.3", "fd00:20:30::3"];
const INSIDE: [&str; 2] = ["10.20.30.200", "fd00:20:30::200"];
const OUTSIDE: [&str; 2] = ["198.51.100.7", "fd00:198::7"];
const PARTNER: [&str; 2] = ["203.0.113.7", "fd00:203::7"];

fn http(cluster: &Cluster, place: &str) -> Background {
    cluster.serve(place, 8080, &[executable(), "__image", "http", "--port", "8080"])
}

/// Serves UDP: what comes goes back, with the address that it came from in front of it.
const ECHO: &str = "import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(peer[0].replace('::ffff:', '').encode() + b' ' + data, peer)
";

/// Sends so many octets and prints whom they were heard from, once they have come back as they were.
const ASK: &str = "import os, socket, sys
data = os.urandom(int(sys.argv[3]))
to = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
s = socket.socket(to[0], socket.SOCK_DGRAM)
s.settimeout(10)
s.connect(to[4])
s.send(data)
peer, _, back = s.recv(65535).partition(b' ')
assert back == data
print(peer.decode())
";

/// Sends one octet and prints what the error says that comes back.
const UNHEARD: &str = "import socket, sys
to = socket.getaddrinfo(sys.argv[1], 9, type=socket.SOCK_DGRAM)[0]
s = socket.socket(to[0], socket.SOCK_DGRAM)
s.settimeout(2)
s.connect(to[4])
s.send(b'x')
try: s.recv(1)
except OSError as error: print(type(error).__name__)
";

fn echo(cluster: &Cluster, place: &str, port: u16) -> Background {
    let server = cluster.spawn(place, &["python3", "-c", ECHO, &port.to_string()]);
    let filter = format!("sport = :{port}");
    until(&format!("UDP {port} is served in {place}"), || {
        !cluster.must(place, &["ss", "-Hlun", &filter]).trim().is_empty()
    });
    server
}

#[track_caller]
fn ask(cluster: &Cluster, from: &str, address: &str, port: u16, octets: u32) -> String {
    let (port, octets) = (port.to_string(), octets.to_string());
    cluster.must(from, &["python3", "-c", ASK, address, &port, &octets]).trim().to_owned()
}

fn connections(cluster: &Cluster, filters: &[&str]) -> Vec<Value> {
    let output = cluster.verb(&[&["get", "connections", "-o", "json"], filters].concat());
    serde_json::from_str(&success(&filters.join(" "), &output)).unwrap()
}

#[test]
fn pods_are_seen_with_their_own_address_inside_and_with_their_nodes_outside() {
    if !ready(&["curl", "python3", "ss"]) {
        return;
    }
    let cluster = Cluster::of("seen", LAB, &[]);
    let _servers: Vec<Background> = ["gamma", "host/inside", "host/outside", "node/node-2"]
        .iter()
        .flat_map(|place| [http(&cluster, place), echo(&cluster, place, 7000)])
        .collect();
    for (to, by) in [(GAMMA, ALPHA), (INSIDE, ALPHA), (NODE_2, ALPHA), (OUTSIDE, NODE_1)] {
        for (to, by) in to.iter().zip(by) {
            assert_eq!(seen(&cluster, "alpha", to, 8080).1, by, "{to}");
            // One datagram, and one in fragments both ways.
            for octets in [1, 5000] {
                assert_eq!(ask(&cluster, "alpha", to, 7000, octets), by, "{to}");
            }
        }
    }
    for (address, node) in OUTSIDE.iter().zip(NODE_2) {
        assert_eq!(seen(&cluster, "gamma", address, 8080).1, node);
        // A node is seen with its own address anyway, and nobody outside has a route to a pod.
        assert_eq!(seen(&cluster, "node/node-2", address, 8080).1, node);
    }
    for address in GAMMA {
        assert!(!curl(&cluster, "host/outside", address, 8080).status.success());
    }
    // Nobody there has a route back, so what comes is heard, and no more.
    let told = cluster.state.join("told");
    let listen = "import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(('::', 7000))
while True: open(sys.argv[1], 'a').write(s.recvfrom(9)[1][0] + '\\n')
";
    let _listener = cluster.spawn("host/partner", &["python3", "-c", listen, told.to_str().unwrap()]);
    for (address, own) in PARTNER.iter().zip(ALPHA) {
        until(&format!("{address} hears {own}"), || {
            let send =
                "import socket, sys\nto = socket.getaddrinfo(sys.argv[1], 7000, type=socket.SOCK_DGRAM)[0]
socket.socket(to[0], to[1]).sendto(b'x', to[4])";
            cluster.must("alpha", &["python3", "-c", send, address]);
            let heard = fs::read_to_string(&told).unwrap_or_default();
            heard.lines().any(|line| line.trim_start_matches("::ffff:") == own)
        });
    }
}

#[test]
fn streams_pass_whole_and_errors_find_their_way_back() {
    if !ready(&["python3", "traceroute", "ss"]) {
        return;
    }
    let cluster = Cluster::of("errors", LAB, &[]);
    let _server = cluster.probe_server("host/outside", 7001);
    let routers = [["10.244.0.1", "10.20.30.1"], ["fd00:10:244::1", "fd00:20:30::1"]];
    for (address, [pods, rack]) in OUTSIDE.iter().zip(routers) {
        let to = if address.contains(':') { format!("[{address}]:7001") } else { format!("{address}:7001") };
        cluster.must("alpha", &[executable(), "__probe", "tcp", &to, "16777216"]);
        cluster.must("alpha", &[executable(), "__probe", "udp", &to, "200", "1400"]);
        // Linux sends few errors to one destination in a short time, and routers do.
        until(&format!("{address} is said to be closed"), || {
            let text = cluster.must("alpha", &["python3", "-c", UNHEARD, address]);
            text == "ConnectionRefusedError\n"
        });
        let ways = format!("{pods} {rack} {address}");
        until(&format!("traceroute shows {ways}"), || {
            let text = cluster.must("alpha", &["traceroute", "-n", "-q", "1", "-w", "2", "-m", "5", address]);
            let hops = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
            hops.collect::<Vec<_>>().join(" ") == ways
        });
    }
}

#[test]
fn a_host_port_leads_to_its_pod_whoever_asks() {
    if !ready(&["curl", "python3", "ss"]) {
        return;
    }
    let ports = "{containerPort: 8080, hostPort: 80}, {containerPort: 7000, hostPort: 5300, protocol: UDP}, \
                 {containerPort: 8080, hostPort: 81, hostIP: 10.20.30.2}, {containerPort: 8080, hostPort: 82, hostIP: '::'}";
    let cluster = Cluster::of("hostport", &format!("{LAB}{}", web("web", ports)), &[]);
    until("web serves", || curl(&cluster, "web", "127.0.0.1", 8080).status.success());
    let _echo = echo(&cluster, "web", 7000);
    let askers = [
        ("alpha", ALPHA),
        ("gamma", GAMMA),
        ("web", NODE_1),
        ("node/node-2", NODE_2),
        ("host/inside", INSIDE),
        ("host/outside", OUTSIDE),
    ];
    for (from, own) in askers {
        for (address, own) in NODE_1.iter().zip(own) {
            let expected = ("web".to_owned(), own.to_owned());
            assert_eq!(seen(&cluster, from, address, 80), expected, "{from} at {address}");
            for octets in [1, 5000] {
                assert_eq!(ask(&cluster, from, address, 5300, octets), own, "{from} at {address}");
            }
        }
        let answers = |port| NODE_1.map(|address| curl(&cluster, from, address, port).status.success());
        assert_eq!((answers(81), answers(82)), ([true, false], [false, true]), "{from}");
    }
    // The second one is refused as a whole; where it may be elsewhere it goes there.
    let second = web("second", "{containerPort: 8080, hostPort: 80}");
    let file = ManifestFile::new("second", &second);
    let refused = cluster.verb(&["apply", "-f", file.path()]);
    let reason = "port 80/TCP of node-1 belongs to the pod default/web already";
    assert!(!refused.status.success() && both(&refused).contains(reason), "{}", both(&refused));
    let elsewhere = second.replace("  nodeName: node-1\n", "");
    let file = ManifestFile::new("elsewhere", &elsewhere);
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    for address in NODE_2 {
        until("the second one serves", || curl(&cluster, "host/outside", address, 80).status.success());
        assert_eq!(seen(&cluster, "alpha", address, 80).0, "second");
    }
    // With its pod a port is the node's again, and nobody's there.
    let file = ManifestFile::new("gone", &web("web", ""));
    success("delete", &cluster.verb(&["delete", "-f", file.path()]));
    let output = curl(&cluster, "host/outside", NODE_1[0], 80);
    assert!(both(&output).contains("Failed to connect"), "{}", both(&output));
    assert_eq!(seen(&cluster, "alpha", NODE_2[0], 80).0, "second");
}

/// Sends what it is told line by line and prints what comes back.
const TALK: &str = "import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
f = s.makefile('rwb', 0)
for line in sys.stdin.buffer:
    f.write(line)
    sys.stdout.buffer.write(f.readline())
    sys.stdout.buffer.flush()
";

const ECHO_TCP: &str = "import socketserver, sys
class Server(socketserver.ThreadingTCPServer):
    address_family = socketserver.socket.AF_INET6
    daemon_threads = True
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
Server(('::', int(sys.argv[1])), Handler).serve_forever()
";

#[test]
fn open_connections_outlive_changes_that_are_not_theirs() {
    if !ready(&["python3", "ss"]) {
        return;
    }
    let lab = format!("{LAB}{}", web("web", "{containerPort: 7002, hostPort: 7002}"));
    let cluster = Cluster::of("survive", &lab, &[]);
    let _servers =
        ["host/outside", "web"].map(|place| cluster.serve(place, 7002, &["python3", "-c", ECHO_TCP, "7002"]));
    let mut talks = Vec::new();
    let both_families = |from: &'static str, to: [&'static str; 2]| to.map(|to| (from, to));
    let all = [
        both_families("alpha", OUTSIDE),
        both_families("host/outside", NODE_1),
        both_families("web", NODE_1),
    ];
    for (from, to) in all.into_iter().flatten() {
        let mut command = cluster.command(&["exec", from, "--", "python3", "-c", TALK, to, "7002"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to_it, from_it) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        talks.push((child, to_it, from_it));
    }
    let mut say = |word: &str| {
        for (_, to_it, from_it) in &mut talks {
            writeln!(to_it, "{word}").unwrap();
            let mut line = String::new();
            from_it.read_line(&mut line).unwrap();
            assert_eq!(line.trim(), word);
        }
    };
    say("before");
    let other = web("other", "{containerPort: 8080, hostPort: 80}");
    let file = ManifestFile::new("other", &other);
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    say("with another");
    success("delete", &cluster.verb(&["delete", "-f", file.path()]));
    say("without it");
    assert_eq!(connections(&cluster, &["--dport", "7002", "--state", "established"]).len(), 6);
    for (mut child, to_it, _) in talks {
        drop(to_it);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn connections_are_listed_filtered_watched_and_counted() {
    if !ready(&["curl", "ping", "python3"]) {
        return;
    }
    let cluster =
        Cluster::of("conntrack", &format!("{LAB}{}", web("web", "{containerPort: 8080, hostPort: 80}")), &[]);
    let _server = http(&cluster, "host/outside");
    let watched = cluster.state.join("watched");
    let mut command = cluster.command(&["get", "connections", "-w", "-p", "tcp", "-d", OUTSIDE[0]]);
    let mut watch = command.stdout(fs::File::create(&watched).unwrap()).spawn().unwrap();
    for address in OUTSIDE {
        seen(&cluster, "alpha", address, 8080);
        cluster.must("alpha", &["ping", "-n", "-c", "1", "-W", "5", address]);
    }
    until("web serves", || curl(&cluster, "host/inside", NODE_1[0], 80).status.success());

    for (at, (address, node)) in OUTSIDE.iter().zip(NODE_1).enumerate() {
        let [tcp] = &connections(&cluster, &["-p", "tcp", "-d", address])[..] else {
            panic!("one connection")
        };
        let ends = |tuple: &Value| (tuple["source"].clone(), tuple["destination"].clone());
        assert_eq!(ends(&tcp["original"]), (ALPHA[at].into(), (*address).into()));
        assert_eq!(ends(&tcp["reply"]), ((*address).into(), node.into()));
        assert_eq!((&tcp["node"], &tcp["status"][0]), (&"node-1".into(), &"ASSURED".into()));
        assert_eq!(tcp["original"]["destination_port"], 8080);
        let port = tcp["reply"]["destination_port"].as_u64().unwrap();
        assert!((1024..30_000).contains(&port) || port >= 61_000, "{port}");
        // By what it is seen with, too.
        let found = connections(&cluster, &["-s", node, "--sport", &port.to_string()]);
        assert_eq!(found.len(), 1, "{found:?}");
        let queries = connections(&cluster, &["-d", address, "-p", ["icmp", "icmpv6"][at]]);
        assert!(queries.len() == 1 && queries[0]["reply"]["id"].is_u64(), "{queries:?}");
    }
    let prefix =
        |family: usize| connections(&cluster, &["-s", ["10.244.0.0/16", "fd00:10:244::/56"][family]]);
    assert!(prefix(0).iter().chain(&prefix(1)).all(|c| c["node"] == "node-1"));
    let to_pod = connections(&cluster, &["node-1", "-d", "10.244.0.3", "--dport", "80"]);
    let all_to_pod = to_pod.iter().all(|c| c["original"]["destination"] == NODE_1[0]);
    assert!(!to_pod.is_empty() && all_to_pod, "{to_pod:?}");
    assert_eq!(connections(&cluster, &["node-2"]), [Value::Null; 0]);
    assert!(connections(&cluster, &["--state", "unreplied"]).iter().all(|c| c["status"][0] == "UNREPLIED"));

    let wide = success("wide", &cluster.verb(&["get", "connections", "-o", "wide", "-p", "icmp"]));
    let head = [
        "NODE",
        "PROTO",
        "STATE",
        "SOURCE",
        "DESTINATION",
        "STATUS",
        "TIMEOUT",
        "REPLY-SOURCE",
        "REPLY-DESTINATION",
    ];
    assert_eq!(wide.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), head);
    assert!(wide.contains("10.244.0.2,id="), "{wide}");
    for (arguments, said) in [
        (&["get", "connections", "-p", "tpc"][..], "protocol: \"tpc\" is none of tcp"),
        (&["get", "connections", "-s", "10.1"], "source: \"10.1\" is neither an address"),
        (&["get", "connections", "node-9"], "node/node-9 does not exist"),
        (&["get", "pods", "--sport", "1"], "--sport is for connections"),
    ] {
        let output = cluster.verb(arguments);
        assert!(!output.status.success() && both(&output).contains(said), "{}", both(&output));
    }
    until("the connection is seen", || fs::read_to_string(&watched).unwrap().contains("198.51.100.7:8080"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    let line = |text: &str| text.lines().filter(|line| line.contains(":8080")).count();
    assert!(line(&fs::read_to_string(&watched).unwrap()) <= 3, "a timeout that runs is no change");

    let get = "import http.client, socket, sys
c = http.client.HTTPConnection('x')
c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect(sys.argv[1])
c.request('GET', '/metrics')
print(c.getresponse().read().decode())";
    let socket = cluster.state.join("control.sock");
    let output = std::process::Command::new("python3").args(["-c", get]).arg(socket).output().unwrap();
    let metrics = success("metrics", &output);
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}\n{metrics}")).trim().parse::<u64>().unwrap()
    };
    for (family, address) in ["ipv4", "ipv6"].iter().zip(NODE_1) {
        assert!(value(&format!("vswitch_connections{{switch=\"node-1\",family=\"{family}\"}}")) >= 2);
        assert!(
            value(&format!("vswitch_connections_opened_total{{switch=\"node-1\",family=\"{family}\"}}")) >= 2
        );
        let of = |protocol| {
            value(&format!(
                "vswitch_nat_ports_in_use{{switch=\"node-1\",address=\"{address}\",protocol=\"{protocol}\"}}"
            ))
        };
        assert_eq!((of("tcp"), of("udp"), of("icmp")), (1, 0, 1));
    }
}

#[test]
fn a_trace_goes_on_with_what_the_translation_made() {
    if !ready(&[]) {
        return;
    }
    let cluster =
        Cluster::of("nattrace", &format!("{LAB}{}", web("web", "{containerPort: 8080, hostPort: 80}")), &[]);
    let trace = |from: &str, packet: &str| -> Value {
        let output = cluster.verb(&["trace", from, packet, "-o", "json"]);
        serde_json::from_str(&success(packet, &output)).unwrap()
    };
    let step = |hop: &Value, stage: &str| {
        let steps = hop["steps"].as_array().unwrap().clone();
        steps.into_iter().find(|step| step[0] == stage).map(|step| step[1].as_str().unwrap().to_owned())
    };
    let at = |address: &str, port: &str| match address.parse::<IpAddr>().unwrap() {
        IpAddr::V4(_) => format!("{address}:{port}"),
        IpAddr::V6(_) => format!("[{address}]:{port}"),
    };
    for (family, address) in OUTSIDE.iter().enumerate() {
        let view = trace("alpha", &format!("tcp {}", at(address, "80")));
        let hops = view["hops"].as_array().unwrap();
        assert_eq!((hops.len(), &view["outcome"]), (2, &"delivered to host/outside".into()));
        let opened = step(&hops[0], "track").unwrap();
        assert!(
            opened.starts_with(&format!("opens a connection, tcp {}", at(ALPHA[family], ""))),
            "{opened}"
        );
        let leaves = step(&hops[0], "translate").unwrap();
        assert!(leaves.starts_with(&format!("leaves as {}", at(NODE_1[family], ""))), "{leaves}");
        // The underlay translates nothing, and gets what the node made: it has a route to the pod's address, too.
        assert!(step(&hops[1], "track").is_none() && step(&hops[1], "translate").is_none());

        let view = trace("host/outside", &format!("tcp {}", at(NODE_1[family], "80")));
        let hops = view["hops"].as_array().unwrap();
        assert_eq!((hops.len(), &view["outcome"]), (2, &"delivered to default/web".into()));
        let leaves = step(&hops[1], "translate").unwrap();
        assert!(
            leaves.ends_with(&format!("> {}", at(["10.244.0.3", "fd00:10:244::3"][family], "8080"))),
            "{leaves}"
        );
        // Towards the exception and inside nothing is translated.
        for to in [PARTNER[family], GAMMA[family]] {
            let view = trace("alpha", &format!("udp {}", at(to, "53")));
            let hops = view["hops"].as_array().unwrap();
            assert!(hops.iter().all(|hop| step(hop, "translate").is_none()), "{view}");
        }
    }
    assert_eq!(connections(&cluster, &["-s", "10.244.0.2"]), [Value::Null; 0], "a trace opens nothing");
}
