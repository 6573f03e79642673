//! Datagrams: clients that go on from the same port, and that send two at once.

use super::doors::{is_ready, talk, talker};
use super::*;

const PORTS: &str = "ports: [{name: u, port: 53, protocol: UDP, targetPort: talk}]";

fn slices(four: &str, six: &str) -> String {
    let slice = |family: &str, address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {}, labels: \
             {{kubernetes.io/service-name: x}}}}\naddressType: {family}\nports: [{{name: u, protocol: UDP, port: 5353}}]\nendpoints: \
             [{{addresses: ['{address}']}}]\n",
            family.to_lowercase()
        )
    };
    slice("IPv4", four) + &slice("IPv6", six)
}

/// A Service that is told its endpoints.
pub(super) fn without_selector() -> String {
    let ports = "ports: [{name: u, port: 53, protocol: UDP}]";
    let addresses = "clusterIPs: [10.96.9.9, 'fd00:10:96::99'], ipFamilyPolicy: RequireDualStack";
    service("x", &format!("{addresses}, {ports}"))
}

/// Gives that Service one backend after the other: clients that go on from the same port notice at once.
pub(super) fn swap(cluster: &Cluster) {
    let addresses = |name: &str| -> [String; 2] {
        let pods = cluster.get("pods");
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name).unwrap();
        [0, 1].map(|which| pod["status"]["podIPs"][which]["ip"].as_str().unwrap().to_owned())
    };
    let [first, second] = ["u1", "u2"].map(addresses);
    for (name, [four, six]) in [("u1", &first), ("u2", &second), ("u1", &first)] {
        apply(cluster, "apply", &slices(four, six));
        for vip in ["10.96.9.9", "fd00:10:96::99"] {
            for from in ["alpha", "node/node-2"] {
                assert_eq!(talk(cluster, from, vip, 53, 4000).0, name, "{from} {vip}");
            }
        }
    }
    apply(cluster, "delete", &slices("10.0.0.1", "fd00::1"));
    assert_eq!(talk(cluster, "alpha", "10.96.9.9", 53, 4000).0, "ConnectionRefusedError");
}

#[test]
fn the_next_datagram_of_a_client_goes_to_the_new_backend() {
    if !ready(&["python3"]) {
        return;
    }
    let text = [
        talker("u1", "node-1"),
        talker("u2", "node-2"),
        service("s", &format!("{DUAL}, {PORTS}")),
        without_selector(),
    ];
    let cluster = lab("datagrams", &text);
    for pod in ["u1", "u2"] {
        until(&format!("{pod} is ready"), || is_ready(&cluster, pod));
    }
    swap(&cluster);
    // The same when the pod that has answered is deleted.
    for vip in VIPS {
        let who = talk(&cluster, "alpha", vip, 53, 4001).0;
        let node = if who == "u1" { "node-1" } else { "node-2" };
        assert_eq!(talk(&cluster, "alpha", vip, 53, 4001).0, who);
        apply(&cluster, "delete", &talker(&who, node));
        let other = if who == "u1" { "u2" } else { "u1" };
        assert_eq!(talk(&cluster, "alpha", vip, 53, 4001).0, other, "{vip}");
        apply(&cluster, "apply", &talker(&who, node));
        until("it is back", || is_ready(&cluster, &who));
    }
}

/// Sends two datagrams at once from a new socket, again and again, so often or as often as the time allows, and prints how
/// many times both were answered and how many times not.
const PAIRS: &str = "import socket, sys, time
to = socket.getaddrinfo(sys.argv[1], 0)[0]
count, limit, end = [0, 0], int(sys.argv[2]), time.monotonic() + 10
while sum(count) < limit and time.monotonic() < end:
    sockets = [socket.socket(to[0], socket.SOCK_DGRAM) for _ in range(50)]
    for s in sockets:
        s.connect((to[4][0], 53 + sum(count) * 4 // limit))
        s.settimeout(5)
        s.send(b'A')
        s.send(b'AAAA')
    for s in sockets:
        try: got = {s.recv(9), s.recv(9)}
        except OSError: got = set()
        count[got != {b'A', b'AAAA'}] += 1
        s.close()
print(*count)
";

#[test]
fn none_of_two_datagrams_at_once_is_lost() {
    if !ready(&["python3"]) {
        return;
    }
    let echo = |name: &str, node: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: echo}}}}\nspec: {{nodeName: {node}, \
             terminationGracePeriodSeconds: 0, containers: [{{name: c, image: vswitch/echo, readinessProbe: {{periodSeconds: 1, \
             tcpSocket: {{port: 7777}}}}}}]}}\n"
        )
    };
    let port = |number: u16| format!("{{name: u{number}, port: {number}, protocol: UDP, targetPort: 7777}}");
    let ports = (53..57).map(port).collect::<Vec<_>>().join(", ");
    let spec = format!("{}, ports: [{ports}]", DUAL.replace("app: web", "app: echo"));
    let text = [LAB, &echo("e1", "node-1"), &echo("e2", "node-2"), &service("s", &spec)].concat();
    let cluster = Cluster::of("pairs", &text, &[]);
    for pod in ["e1", "e2"] {
        until(&format!("{pod} is ready"), || is_ready(&cluster, pod));
    }
    for vip in VIPS {
        let told = cluster.must("alpha", &["python3", "-c", PAIRS, vip, "50000"]);
        let (answered, lost) = told.trim().split_once(' ').unwrap();
        assert!(answered.parse::<u32>().unwrap() >= 1000 && lost == "0", "{vip}: {told}");
    }
}
