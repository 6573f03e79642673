//! The same things by either proxy, one taken for the other while the cluster runs.

use super::datagrams::{swap, without_selector};
use super::doors::{is_ready, talk, talker};
use super::*;

/// A pod that sends back what it got, once it has got all of it.
const MIRROR: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: mirror, labels: {app: mirror}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 1
  containers:
  - name: m
    image: python
    command:
    - python3
    - -uc
    - |
      import socket, threading
      s = socket.create_server(('::', 7000), family=socket.AF_INET6, dualstack_ipv6=True)
      def serve(c):
        got = b''.join(iter(lambda: c.recv(65536), b''))
        c.sendall(got)
        c.close()
      while True: threading.Thread(target=serve, args=(s.accept()[0],)).start()
    ports: [{name: m, containerPort: 7000}]
    readinessProbe: {periodSeconds: 1, exec: {command: [sh, -c, 'ss -Hltn sport = :7000 | grep -q .']}}
"#;

const MIRRORED: &str = "ipFamilyPolicy: RequireDualStack, clusterIPs: [10.96.7.70, 'fd00:10:96::70'], selector: {app: mirror}, \
                        ports: [{port: 7000}]";
const MIRRORS: [&str; 2] = ["10.96.7.70", "fd00:10:96::70"];
const EMPTY: &str = "ipFamilyPolicy: RequireDualStack, clusterIPs: [10.96.7.71, 'fd00:10:96::71'], selector: {app: nobody}, \
                     ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]";
const NOBODY: [&str; 2] = ["10.96.7.71", "fd00:10:96::71"];

/// Sends ten mebibytes and the end, and prints whether the same came back.
const TRANSFER: &str = "import hashlib, os, socket, sys
sent = os.urandom(10 << 20)
s = socket.create_connection((sys.argv[1], 7000), 5)
s.settimeout(50)
s.sendall(sent)
s.shutdown(socket.SHUT_WR)
got = b''.join(iter(lambda: s.recv(65536), b''))
print(len(got), hashlib.sha256(sent).digest() == hashlib.sha256(got).digest())
";

fn everything(cluster: &Cluster, mode: &str) {
    for ((vip, mirror), empty) in VIPS.iter().zip(MIRRORS).zip(NOBODY) {
        // Whom the server sees tells who has led there.
        let own = ["10.244.0.2", "fd00:10:244::2"].contains(&seen(cluster, "alpha", vip, 80).1.as_str());
        assert_eq!(own, mode == "maglev", "{mode} {vip}");
        for from in ["alpha", "gamma", "w1", "node/node-1", "node/node-2"] {
            assert_eq!(answers(cluster, from, vip, 80, 24).len(), 2, "{mode} {from} {vip}");
            let who = talk(cluster, from, vip, 53, 0).0;
            assert!(["u1", "u2"].contains(&who.as_str()), "{mode} {from} {vip}: {who}");
            for protocol in ["tcp", "udp"] {
                let told = refused(cluster, from, empty, 80, protocol);
                assert_eq!(told, "ConnectionRefusedError", "{mode} {from} {vip} {protocol}");
            }
        }
        for from in ["alpha", "node/node-1"] {
            let told = cluster.must(from, &["python3", "-c", TRANSFER, mirror]);
            assert_eq!(told.trim(), format!("{} True", 10 << 20), "{mode} {from} {vip}");
        }
    }
    let nodes = [NODES[0], NODES[1], "fd00:20:30::2", "fd00:20:30::3"];
    for from in ["host/inside", "alpha", "node/node-1"] {
        for address in nodes {
            assert_eq!(answers(cluster, from, address, 30_080, 24).len(), 2, "{mode} {from} {address}");
            let who = talk(cluster, from, address, 30_053, 0).0;
            assert!(["u1", "u2"].contains(&who.as_str()), "{mode} {from} {address}: {who}");
        }
    }
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(answers(cluster, "node/node-2", address, 30_080, 24).len(), 2, "{mode} {address}");
    }
    swap(cluster);
}

#[test]
fn either_proxy_does_the_same_and_takes_the_others_place() {
    if !ready(&["curl", "python3"]) {
        return;
    }
    let ports = "ports: [{name: t, port: 80, targetPort: web, nodePort: 30080}, {name: u, port: 53, protocol: UDP, \
                 targetPort: talk, nodePort: 30053}]";
    let text = [
        talker("u1", "node-1"),
        talker("u2", "node-2"),
        MIRROR.to_owned(),
        service("s", &format!("type: NodePort, {DUAL}, {ports}")),
        service("empty", EMPTY),
        service("mirror", MIRRORED),
        without_selector(),
    ];
    let cluster = lab("either", &text);
    for pod in ["u1", "u2", "mirror"] {
        until(&format!("{pod} is ready"), || is_ready(&cluster, pod));
    }
    let userspace = LAB.replacen("spec:\n", "spec:\n  proxyMode: userspace\n", 1);
    for (mode, text) in [("maglev", LAB), ("userspace", userspace.as_str()), ("maglev", LAB)] {
        apply(&cluster, "apply", text);
        everything(&cluster, mode);
        assert_eq!(accepted(&cluster) > 0, mode == "userspace", "{mode}");
    }
}

/// Connections that proxies have taken, as the metrics have it.
fn accepted(cluster: &Cluster) -> u64 {
    let socket = cluster.state.join("control.sock");
    let mut ask = std::process::Command::new("curl");
    ask.args(["-sS", "http://vswitch/metrics", "--unix-socket"]).arg(socket);
    let metrics = success("metrics", &ask.output().unwrap());
    let of_proxies = metrics.lines().filter(|line| line.starts_with("vswitch_proxy_accepted_total"));
    of_proxies.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}
