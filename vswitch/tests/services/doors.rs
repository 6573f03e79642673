//! Every way in: from pods, nodes and outside, by TCP and UDP, in both families.

use super::*;

/// A pod on its node's own network that says who it is, by TCP and UDP.
const ON_NODE: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: h2, labels: {app: web, at: node}}
spec:
  nodeName: node-2
  hostNetwork: true
  containers:
  - name: c
    image: vswitch/http
    args: [--port, '9090']
    ports: [{name: web, containerPort: 9090}]
    startupProbe: {periodSeconds: 1, failureThreshold: 60, exec: {command: [sh, -c, 'ss -Hltn sport = :9090 | grep -q .']}}
"#;

/// A pod that says by UDP who it is and whom it sees.
pub(super) fn talker(name: &str, node: &str) -> String {
    const SERVE: &str = "import socket; s = socket.socket(10, 2); s.setsockopt(41, 26, 0); s.bind(('::', 5353))\n      while \
                         True: d, p = s.recvfrom(2048); s.sendto((socket.gethostname() + ' ' + p[0].replace('::ffff:', '')).encode(), p)";
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: u\n    image: python\n    command:\n    - python3\n    - -uc\n    - |\n      {SERVE}\n    \
         ports: [{{name: talk, containerPort: 5353, protocol: UDP}}]\n    readinessProbe: {{periodSeconds: 1, exec: {{command: [sh, \
         -c, 'ss -Hlun sport = :5353 | grep -q .']}}}}\n"
    )
}

/// Asks by UDP from a port, any if it is 0, and prints the answer or the error.
const TALK: &str = "import socket, sys
to = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]))[0]
s = socket.socket(to[0], socket.SOCK_DGRAM)
s.bind(('', int(sys.argv[3])))
s.settimeout(3)
try:
    s.connect(to[4])
    s.send(b'x')
    print(s.recv(99).decode())
except OSError as error: print(type(error).__name__)
";

/// Who answers by UDP, and with which address it sees the asker.
pub(super) fn talk(
    cluster: &Cluster,
    from: &str,
    address: &str,
    port: u16,
    own_port: u16,
) -> (String, String) {
    let (port, own_port) = (port.to_string(), own_port.to_string());
    let told = cluster.must(from, &["python3", "-c", TALK, address, &port, &own_port]);
    let told = told.trim();
    let (who, peer) = told.split_once(' ').unwrap_or((told, ""));
    (who.to_owned(), peer.to_owned())
}

pub(super) fn is_ready(cluster: &Cluster, name: &str) -> bool {
    let pods = cluster.get("pods");
    let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
    pod.is_some_and(|pod| pod["status"]["conditions"][0]["status"] == "True")
}

/// How a health check is answered.
fn health(cluster: &Cluster, address: &str, port: u16) -> String {
    let url = format!("http://{address}:{port}/healthz");
    let ask = ["curl", "-sSg", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", &url];
    String::from_utf8_lossy(&cluster.exec("host/inside", &ask).stdout).into_owned()
}

const NODE_ADDRESSES: [&str; 4] = ["10.20.30.2", "fd00:20:30::2", "10.20.30.3", "fd00:20:30::3"];

#[test]
fn a_node_reaches_its_own_ports_and_everybody_elses() {
    if !ready(&["curl", "python3"]) {
        return;
    }
    let ports = "ports: [{name: t, port: 80, targetPort: web, nodePort: 30080}, {name: u, port: 53, protocol: UDP, \
                 targetPort: talk, nodePort: 30053}]";
    let empty = "type: NodePort, ipFamilyPolicy: RequireDualStack, clusterIPs: [10.96.8.8, 'fd00:10:96::88'], selector: \
                 {app: nobody}, ports: [{name: t, port: 80, nodePort: 30081}, {name: u, port: 53, protocol: UDP, nodePort: 30054}]";
    let text = [
        talker("u1", "node-1"),
        talker("u2", "node-2"),
        ON_NODE.to_owned(),
        service("s", &format!("type: NodePort, {DUAL}, {ports}")),
        service("empty", empty),
    ];
    let cluster = lab("doors", &text);
    for pod in ["u1", "u2", "h2"] {
        until(&format!("{pod} is ready"), || is_ready(&cluster, pod));
    }
    let loopback = ["127.0.0.1", "::1"];
    for from in ["node/node-1", "node/node-2", "alpha", "gamma", "host/inside"] {
        let local = if from.starts_with("node/") { &loopback[..] } else { &[] };
        for address in NODE_ADDRESSES.iter().chain(local) {
            let counts = answers(&cluster, from, address, 30_080, 40);
            assert_eq!(counts.keys().collect::<Vec<_>>(), ["node-2", "w1", "w2"], "{from} {address}");
            let who = talk(&cluster, from, address, 30_053, 0).0;
            assert!(["u1", "u2"].contains(&who.as_str()), "{from} {address}: {who}");
            for (port, protocol) in [(30_081, "tcp"), (30_054, "udp")] {
                let told = refused(&cluster, from, address, port, protocol);
                assert_eq!(told, "ConnectionRefusedError", "{from} {address} {protocol}");
            }
        }
    }
    for from in ["node/node-1", "node/node-2", "alpha", "h2"] {
        for vip in VIPS {
            // The pods of the cluster, and the one that is on a node's network.
            let counts = answers(&cluster, from, vip, 80, 40);
            assert_eq!(counts.keys().collect::<Vec<_>>(), ["node-2", "w1", "w2"], "{from} {vip}");
            let (who, peer) = talk(&cluster, from, vip, 53, 0);
            assert!(["u1", "u2"].contains(&who.as_str()), "{from} {vip}: {who}");
            // Pods are seen with their own address, and nodes with theirs.
            let nodes = if from.ends_with('1') { &NODE_ADDRESSES[..2] } else { &NODE_ADDRESSES[2..] };
            assert_eq!(nodes.contains(&peer.as_str()), from != "alpha", "{from} {vip}: {peer}");
        }
    }
}

#[test]
fn a_node_gets_pods_of_all_nodes_at_its_own_port_whatever_the_policies_say() {
    if !ready(&["curl", "python3"]) {
        return;
    }
    let ports = "ports: [{name: t, port: 80, targetPort: web, nodePort: 30080}, {name: u, port: 53, protocol: UDP, \
                 targetPort: talk, nodePort: 30053}]";
    let local = "type: NodePort, internalTrafficPolicy: Local, externalTrafficPolicy: Local";
    let cluster = lab("local", &[talker("u2", "node-2"), service("s", &format!("{local}, {DUAL}, {ports}"))]);
    apply(&cluster, "delete", &web("w1", "node-1", ""));
    until("the other is ready", || is_ready(&cluster, "u2"));
    for (address, own) in [
        ("127.0.0.1", NODE_ADDRESSES[0]),
        ("::1", NODE_ADDRESSES[1]),
        (NODE_ADDRESSES[0], NODE_ADDRESSES[0]),
        (NODE_ADDRESSES[1], NODE_ADDRESSES[1]),
    ] {
        let all_nodes = ("w2".to_owned(), own.to_owned());
        assert_eq!(seen(&cluster, "node/node-1", address, 30_080), all_nodes, "{address}");
        let all_nodes = ("u2".to_owned(), own.to_owned());
        assert_eq!(talk(&cluster, "node/node-1", address, 30_053, 0), all_nodes, "{address}");
    }
    // Of the cluster IP the policy holds for nodes as for everybody, and whoever comes from outside gets nobody here.
    for (from, address, port) in
        [("node/node-1", VIPS[0], 80), ("alpha", VIPS[1], 80), ("host/inside", NODE_ADDRESSES[0], 30_080)]
    {
        let dropped = refused(&cluster, from, address, port, "tcp");
        assert!(["TimeoutError", "timeout"].contains(&dropped.as_str()), "{from} {address}: {dropped}");
    }
}

#[test]
fn a_node_is_healthy_as_long_as_it_has_endpoints_that_stay() {
    if !ready(&["curl"]) {
        return;
    }
    let ports = "ports: [{port: 80, targetPort: web, nodePort: 30080}]";
    let spec = format!(
        "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 30900, {DUAL}, {ports}"
    );
    let slow = web("w3", "node-2", ", lifecycle: {preStop: {sleep: {seconds: 8}}}");
    let slow = slow.replace("terminationGracePeriodSeconds: 2", "terminationGracePeriodSeconds: 15");
    let cluster = lab("health", &[service("s", &spec), slow.clone()]);
    apply(&cluster, "delete", &web("w2", "node-2", ""));
    until("the other is ready", || is_ready(&cluster, "w3"));
    for (node, address) in NODE_ADDRESSES.iter().enumerate() {
        let (expected, client) =
            (["w1", "w1", "w3", "w3"][node], ["10.20.30.200", "fd00:20:30::200"][node % 2]);
        let bracketed = if address.contains(':') { format!("[{address}]") } else { (*address).to_owned() };
        until(&format!("{address} is healthy"), || health(&cluster, &bracketed, 30_900) == "200");
        until("its agent is", || health(&cluster, &bracketed, 10_256) == "200");
        let seen = seen(&cluster, "host/inside", address, 30_080);
        assert_eq!(seen, (expected.to_owned(), client.to_owned()));
    }
    // One that is about to go is asked as long as there is no other, and that is no node to choose.
    let file = ManifestFile::new("slow", &slow);
    let mut delete = cluster.command(&["delete", "-f", file.path()]).spawn().unwrap();
    until("it is not healthy any more", || health(&cluster, "10.20.30.3", 30_900) == "503");
    assert_eq!(seen(&cluster, "host/inside", "10.20.30.3", 30_080).0, "w3");
    assert_eq!(health(&cluster, "10.20.30.2", 30_900), "200");
    assert!(delete.wait().unwrap().success());
    let dropped = refused(&cluster, "host/inside", "10.20.30.3", 30_080, "tcp");
    assert!(["TimeoutError", "timeout"].contains(&dropped.as_str()), "{dropped}");
    // Where there is nobody anywhere, whoever asks is told.
    apply(&cluster, "delete", &web("w1", "node-1", ""));
    until("the other is not healthy either", || health(&cluster, "10.20.30.2", 30_900) == "503");
    for address in ["10.20.30.2", "10.20.30.3"] {
        assert_eq!(refused(&cluster, "host/inside", address, 30_080, "tcp"), "ConnectionRefusedError");
    }
    apply(&cluster, "apply", &web("w1", "node-1", ""));
    until("it is again", || health(&cluster, "10.20.30.2", 30_900) == "200");
    assert_eq!(health(&cluster, "10.20.30.2", 10_256), "200");
}
