//! What goes wrong on either side harms nobody else, and ends.

use super::*;
use crate::common::ready;

/// A server in the internet at two ports: it answers nobody and reads nothing at 9200, and echoes at 9201.
const SILENT: &str = r#"
import socket, threading
silent = socket.create_server(("::", 9200), family=socket.AF_INET6, dualstack_ipv6=True)
kept = []
def keep():
    while True: kept.append(silent.accept()[0])
threading.Thread(target=keep, daemon=True).start()
echo = socket.create_server(("::", 9201), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(c):
    try:
        while octets := c.recv(65536): c.sendall(octets)
    except OSError: pass
    c.close()
while True: threading.Thread(target=serve, args=(echo.accept()[0],), daemon=True).start()
"#;

/// Says much to somebody who does not read, until that ends; then what ended it.
const TALKS: &str = r#"
import socket, sys
s = socket.create_connection((sys.argv[1], 9200))
try:
    while True: s.send(bytes(65536))
except OSError as error: print(type(error).__name__)
"#;

/// Asks for much and does not read it.
const DEAF: &str = r#"
import socket, sys, threading, time
s = socket.create_connection((sys.argv[1], 9201))
def say():
    while True: s.sendall(bytes(65536))
threading.Thread(target=say, daemon=True).start()
time.sleep(60)
"#;

fn flows(cluster: &Cluster) -> u64 {
    metric(cluster, r#"vswitch_egress_flows{kind="connections"}"#)
}

/// Whether an octet comes back at once.
fn is_answered(cluster: &Cluster, place: &str) -> bool {
    let script = format!(
        "import socket\ns=socket.create_connection((\"{}\",9201),2); s.settimeout(2); s.send(b\"x\"); print(s.recv(1))",
        INTERNET[0]
    );
    cluster.exec(place, &["python3", "-c", &script]).status.success()
}

#[test]
fn who_does_not_read_holds_up_himself_alone() {
    if !ready(&["ip", "nsenter", "ss", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("deaf", "");
    let server = net.serve(&net.internet, 9201, &["python3", "-c", SILENT]);
    assert!(is_answered(&cluster, "alpha"));
    let talks = std::thread::scope(|scope| {
        let talks = scope.spawn(|| cluster.must("beta", &["python3", "-c", TALKS, INTERNET[0]]));
        let deaf = cluster.spawn("gamma", &["python3", "-c", DEAF, INTERNET[1]]);
        until("both are carried", || flows(&cluster) >= 2);
        let mut before = 0;
        until("nothing goes any more", || {
            pause();
            let now = metric(&cluster, r#"vswitch_egress_tcp_bytes_total{direction="out"}"#);
            std::mem::replace(&mut before, now) == now && now > 0
        });
        // What sockets do not take is bounded, and nobody else notices.
        assert!(metric(&cluster, "vswitch_egress_held_bytes") <= 2 * 256 * 1024);
        until("others are answered", || is_answered(&cluster, "alpha"));
        let before = ticks(&cluster);
        std::thread::sleep(Duration::from_secs(1));
        assert!(ticks(&cluster) - before < 30, "it spins");
        // The server ends, and whoever talked to it is told.
        drop(server);
        let talks = talks.join().unwrap();
        drop(deaf);
        talks
    });
    assert!(["ConnectionResetError", "BrokenPipeError"].contains(&talks.trim()), "{talks}");
    at_rest(&cluster);
}

#[test]
fn the_machine_s_addresses_go_and_come_back() {
    if !ready(&["ip", "nsenter", "ss", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("addresses", "");
    let _server = net.serve(&net.internet, 9201, &["python3", "-c", SILENT]);
    assert!(is_answered(&cluster, "alpha"));
    let machine = &net.machine[..];
    run(&["ip", "-n", machine, "address", "flush", "dev", "uplink"]);
    assert!(!is_answered(&cluster, "alpha"));
    run(&["ip", "-n", machine, "address", "add", &format!("{}/24", MACHINE[0]), "dev", "uplink"]);
    run(&["ip", "-n", machine, "route", "replace", "default", "via", INTERNET[0]]);
    until("the outside is reached again", || is_answered(&cluster, "alpha"));
    // Another address, as of a network that one has moved to.
    run(&["ip", "-n", machine, "address", "flush", "dev", "uplink"]);
    run(&["ip", "-n", machine, "address", "add", "198.51.100.99/24", "dev", "uplink"]);
    run(&["ip", "-n", machine, "route", "replace", "default", "via", INTERNET[0]]);
    until("the outside is reached from there", || is_answered(&cluster, "alpha"));
    run(&["ip", "-n", machine, "link", "set", "uplink", "down"]);
    assert!(!is_answered(&cluster, "alpha"));
    run(&["ip", "-n", machine, "link", "set", "uplink", "up"]);
    run(&["ip", "-n", machine, "route", "replace", "default", "via", INTERNET[0]]);
    until("the outside is reached once more", || is_answered(&cluster, "alpha"));
}
