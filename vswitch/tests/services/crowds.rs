//! Many connections at once, connections to nobody, and connections that look the same behind their Services.

use super::doors::{is_ready, talker};
use super::*;

/// Opens so many connections before any of them asks, and prints how many were answered.
const CROWD: &str = "import resource, selectors, socket, sys, time
count = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
to = socket.getaddrinfo(sys.argv[1], 80)[0]
waiting, asked, answered = selectors.DefaultSelector(), {}, 0
for i in range(count):
    s = socket.socket(to[0], socket.SOCK_STREAM)
    s.setblocking(False)
    s.connect_ex(to[4])
    waiting.register(s, selectors.EVENT_WRITE)
end = time.monotonic() + 50
while waiting.get_map() and time.monotonic() < end:
    for key, events in waiting.select(1):
        s = key.fileobj
        try:
            if events & selectors.EVENT_WRITE:
                s.send(b'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')
                waiting.modify(s, selectors.EVENT_READ)
                continue
            answered += b'200 OK' in s.recv(4096)
        except OSError as error: print(error)
        waiting.unregister(s)
        s.close()
print(answered)
";

/// Connects to where nobody is, so often, and meanwhile to somebody: prints the longest time that took, in milliseconds.
const BESIDE: &str = "import socket, sys, time
def begin(address):
    to = socket.getaddrinfo(address, 80)[0]
    s = socket.socket(to[0], socket.SOCK_STREAM)
    s.setblocking(False)
    s.connect_ex(to[4])
    return s
def good():
    to = socket.getaddrinfo(sys.argv[1], 80)[0]
    begin = time.monotonic()
    s = socket.socket(to[0], socket.SOCK_STREAM)
    s.settimeout(10)
    s.connect(to[4])
    s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    assert b'200 OK' in s.recv(4096)
    return (time.monotonic() - begin) * 1000
good()
longest, held = [], []
for _ in range(5):
    times = []
    for _ in range(40):
        held.append(begin(sys.argv[2]))
        times.append(good())
    longest.append(max(times))
print(min(longest))
";

/// Opens two connections from one port, to two addresses, and prints what each of them is told.
const SAME_PORT: &str = "import socket, sys
kind, port = (socket.SOCK_STREAM, 80) if sys.argv[1] == 'tcp' else (socket.SOCK_DGRAM, 53)
all = []
for address in sys.argv[2:]:
    to = socket.getaddrinfo(address, port)[0]
    s = socket.socket(to[0], kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('', 4242))
    s.settimeout(5)
    s.connect(to[4])
    all.append(s)
for turn in range(2):
    for s in all: s.send(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    for s in all: print(s.recv(4096).decode().replace('\\r\\n', ' ').replace('\\n', ' '))
";

#[test]
fn everybody_of_a_thousand_is_answered_and_nobody_waits_for_nobody() {
    if !ready(&["python3"]) {
        return;
    }
    let ports = "ports: [{port: 80, targetPort: web}]";
    let hole =
        "clusterIPs: [10.96.9.9, 'fd00:10:96::99'], ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]";
    let slice = |family: &str, address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {}, labels: \
             {{kubernetes.io/service-name: hole}}}}\naddressType: {family}\nports: [{{port: 8080}}]\nendpoints: \
             [{{addresses: ['{address}']}}]\n",
            family.to_lowercase()
        )
    };
    let text = [
        service("s", &format!("{DUAL}, {ports}")),
        service("hole", hole),
        slice("IPv4", "10.244.0.250"),
        slice("IPv6", "fd00:10:244::fa"),
    ];
    let cluster = lab("crowds", &text);
    for vip in VIPS {
        let told = success("crowd", &cluster.exec("alpha", &["python3", "-c", CROWD, vip, "1000"]));
        assert_eq!(told.trim(), "1000", "{vip}");
    }
    for (good, bad) in VIPS.iter().zip(["10.96.9.9", "fd00:10:96::99"]) {
        for from in ["alpha", "gamma", "node/node-1"] {
            let told = cluster.must(from, &["python3", "-c", BESIDE, good, bad]);
            let longest: f64 = told.trim().parse().unwrap();
            assert!(longest < 100.0, "{from} {good}: {longest} ms");
        }
    }
}

#[test]
fn one_port_serves_for_two_services_with_one_backend() {
    if !ready(&["python3"]) {
        return;
    }
    let ports =
        "ports: [{name: t, port: 80, targetPort: web}, {name: u, port: 53, protocol: UDP, targetPort: talk}]";
    let other = DUAL.replace("10.96.7.7", "10.96.7.8").replace("::77", "::78");
    let text = [
        talker("u1", "node-1"),
        service("s", &format!("{DUAL}, {ports}")),
        service("t", &format!("{other}, {ports}")),
    ];
    let cluster = lab("twice", &text);
    apply(&cluster, "delete", &web("w2", "node-2", ""));
    until("the other is ready", || is_ready(&cluster, "u1"));
    for (one, other) in VIPS.iter().zip(["10.96.7.8", "fd00:10:96::78"]) {
        for from in ["alpha", "gamma", "node/node-2"] {
            for (protocol, name) in [("tcp", "host w1"), ("udp", "u1")] {
                let told = cluster.must(from, &["python3", "-c", SAME_PORT, protocol, one, other]);
                assert_eq!(told.matches(name).count(), 4, "{from} {one} {protocol}: {told}");
            }
        }
    }
}
