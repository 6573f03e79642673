//! Ports of the machine that lead to pods.

use super::*;
use crate::common::{Background, ManifestFile, both, ready};

/// Says to each client who he is.
const WHO: &str = r#"
import socketserver
class Who(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.client_address[0].removeprefix("::ffff:").encode())
class Server(socketserver.ThreadingTCPServer):
    address_family = 10
    allow_reuse_address = True
Server(("::", 8080), Who).serve_forever()
"#;

/// The same over UDP.
const WHO_UDP: &str = r#"
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 8080))
while True:
    octets, client = s.recvfrom(2000)
    s.sendto(client[0].removeprefix("::ffff:").encode(), client)
"#;

fn servers(cluster: &Cluster) -> [Background; 2] {
    let tcp = cluster.serve("alpha", 8080, &["python3", "-c", WHO]);
    let udp = cluster.spawn("alpha", &["python3", "-c", WHO_UDP]);
    until("it listens for datagrams, too", || {
        !cluster.must("alpha", &["ss", "-Hlun", "sport = :8080"]).trim().is_empty()
    });
    [tcp, udp]
}

/// Asks from one of the two namespaces who one is seen as; none if nobody answers.
fn asks(net: &Net, from: &str, kind: &str, host: &str, port: u16) -> Option<String> {
    let tcp = "s=socket.create_connection((h,p),5)";
    let udp = "s=socket.socket(socket.getaddrinfo(h,p)[0][0],socket.SOCK_DGRAM); s.settimeout(5); s.connect((h,p)); s.send(b\"x\")";
    let script = format!(
        "import socket\nh,p=\"{host}\",{port}\n{}\nprint(s.recv(100).decode())",
        if kind == "tcp" { tcp } else { udp }
    );
    let line = [&net.inside(from)[..], &["python3", "-c", &script]].concat();
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn ports_of_the_machine_lead_to_pods_who_see_their_clients() {
    if !ready(&["ip", "nsenter", "ss", "curl", "python3", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("published", "");
    let _servers = servers(&cluster);
    let (machine, internet) = (&net.machine[..], &net.internet[..]);
    assert_eq!(asks(&net, machine, "tcp", "127.0.0.1", 8080), None);
    let text = success("publish", &cluster.verb(&["publish", "8080:alpha:8080", "8080:alpha:8080/udp"]));
    assert!(text.contains("TCP 127.0.0.1:8080 leads to 10.244.0.2:8080"), "{text}");
    for kind in ["tcp", "udp"] {
        // Loopback means somebody else in a pod.
        assert_eq!(asks(&net, machine, kind, "127.0.0.1", 8080).as_deref(), Some("192.0.0.2"), "{kind}");
        assert_eq!(asks(&net, machine, kind, "::1", 8080).as_deref(), Some("fd00:192::2"), "{kind}");
    }
    for host in MACHINE {
        assert_eq!(asks(&net, internet, "tcp", host, 8080), None, "nobody else on the network sees it");
    }
    let wide = ["0.0.0.0:8081-8083:alpha:8078", "[::]:8083:alpha:8080", "0.0.0.0:8083:alpha:8080/udp4"];
    success("publish", &cluster.verb(&[&["publish"][..], &wide].concat()));
    assert_eq!(asks(&net, internet, "tcp", MACHINE[0], 8083).as_deref(), Some(INTERNET[0]));
    assert_eq!(asks(&net, internet, "tcp", MACHINE[1], 8083).as_deref(), Some(INTERNET[1]));
    assert_eq!(asks(&net, internet, "udp", MACHINE[0], 8083).as_deref(), Some(INTERNET[0]));
    assert_eq!(asks(&net, internet, "tcp", MACHINE[0], 8082), None, "nobody listens in the pod");
    // A port has one owner, and it is said who does not get it.
    let taken = cluster.verb(&["publish", "127.0.0.1:8083:beta:80", "127.0.0.1:8090:beta:80"]);
    assert!(!taken.status.success() && both(&taken).contains("in use"), "{}", both(&taken));
    assert_eq!(cluster.get("published").len(), 5, "all or none");
    let wrong = cluster.verb(&["publish", "8080:alpha"]);
    assert!(both(&wrong).contains("write [IP:]PORT"), "{}", both(&wrong));
    success("withdraw", &cluster.verb(&["withdraw", "8080:alpha:8080", "8080:alpha:8080/udp"]));
    assert_eq!(asks(&net, machine, "tcp", "127.0.0.1", 8080), None);
    assert_eq!(asks(&net, machine, "tcp", "127.0.0.1", 8083).as_deref(), Some("192.0.0.2"));
    assert!(!cluster.verb(&["withdraw", "8080:alpha:8080"]).status.success());
}

/// {TCP, UDP} by {IPv4, IPv6} by {2 KiB, 10 MiB}, from outside, from the machine, and from a pod.
#[test]
fn hashes_are_equal_through_published_ports() {
    if !ready(&["ip", "nsenter", "ss", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("inward", "");
    let _server = cluster.probe_server("alpha", PROBE);
    let probe = PROBE.to_string();
    let ports: Vec<String> = ["0.0.0.0", "[::]"]
        .iter()
        .flat_map(|at| ["tcp", "udp"].map(|kind| format!("{at}:{probe}:alpha:{probe}/{kind}")))
        .collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    success("publish", &cluster.verb(&[&["publish"][..], &ports].concat()));
    let from = [(&net.internet, MACHINE), (&net.machine, ["127.0.0.1", "::1"])];
    for (from, hosts) in from {
        for host in hosts {
            let to = if host.contains(':') { format!("[{host}]:{probe}") } else { format!("{host}:{probe}") };
            let probe = |arguments: &[&str]| {
                run(&[&net.inside(from)[..], &[executable(), "__probe"], arguments].concat())
            };
            for octets in [2048u64, 10 << 20] {
                let text = probe(&["tcp", &to, &octets.to_string()]);
                assert!(text.contains(&format!("\"bytes\":{},", octets * 2)), "{to}: {text}");
            }
            for (count, size) in [("50", "0"), ("50", "2048"), ("200", "52428"), ("20", "65507")] {
                all_come_back(&format!("{to} {size}"), || probe(&["udp", &to, count, size]));
            }
        }
    }
    // A pod reaches another by the machine's address, as everybody does.
    for host in MACHINE {
        let to = if host.contains(':') { format!("[{host}]:{probe}") } else { format!("{host}:{probe}") };
        for octets in [2048u64, 10 << 20] {
            let text = cluster.must("gamma", &[executable(), "__probe", "tcp", &to, &octets.to_string()]);
            assert!(text.contains(&format!("\"bytes\":{},", octets * 2)), "{to}: {text}");
        }
        for (count, size) in [("50", "2048"), ("20", "65507")] {
            let ask = [executable(), "__probe", "udp", &to, count, size];
            all_come_back(&format!("gamma {to} {size}"), || cluster.must("gamma", &ask));
        }
    }
    at_rest(&cluster);
}

/// A NodePort Service that keeps its clients' addresses, one that does not, a load balancer, a Service without ports of
/// nodes, and a pod with a `hostPort` behind all of them.
const SERVICES: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: node-2, containers: [{name: web, image: vswitch/http, ports: [{containerPort: 80, hostPort: 8081}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: any}
spec: {type: NodePort, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80, nodePort: 30081}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 8082, targetPort: 80, nodePort: 30082}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: rack}
spec: {addresses: [10.20.30.100/32, "fd00:20:30::100/128"]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: rack}
"#;

/// Who answers at a port, and whom he sees; none if nobody does.
fn answers(net: &Net, from: &str, host: &str, port: u16) -> Option<(String, String)> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = format!("http://{host}:{port}/");
    let line = [&net.inside(from)[..], &["curl", "-sS", "-g", "--noproxy", "*", "-m", "5", &url]].concat();
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let peer: std::net::SocketAddr = field("peer address ")?.parse().unwrap();
    Some((field("host ")?, peer.ip().to_string()))
}

fn problem(cluster: &Cluster, name: &str) -> String {
    let all = cluster.get("published");
    let one =
        all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} is not in {all:#?}"));
    one["problem"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn ports_of_nodes_are_ports_of_the_machine() {
    if !ready(&["ip", "nsenter", "ss", "curl", "python3", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let (machine, internet) = (&net.machine[..], &net.internet[..]);
    let http = ["python3", "-m", "http.server", "-b", "127.0.0.1", "30081"];
    let taken = net.serve(machine, 30081, &http);
    let builtin = include_str!("../../src/objects/builtin.yaml");
    let cluster = Cluster::of_by("nodes", &net.inside(machine), &format!("{builtin}{SERVICES}"), &[]);
    for (host, seen) in [("127.0.0.1", "192.0.0.2"), ("::1", "fd00:192::2")] {
        for port in [30080, 8081, 8082, 30082] {
            until(&format!("{host} port {port} leads to the pod"), || {
                answers(&net, machine, host, port).is_some_and(|(who, _)| who == "web")
            });
        }
        // Where nothing translates its address a pod sees whoever is seen in place of this machine's loopback.
        for port in [30080, 8081] {
            assert_eq!(answers(&net, machine, host, port).unwrap().1, seen, "{host} {port}");
        }
    }
    for host in MACHINE {
        assert_eq!(answers(&net, internet, host, 30080), None, "nobody else on the network sees it");
    }
    // A port that somebody has fails nothing; it is told, and had once it is free.
    assert!(answers(&net, machine, "::1", 30081).is_some(), "only one of the two is taken");
    let name = "30081:svc/default/any:80/tcp";
    assert!(problem(&cluster, name).contains("127.0.0.1:30081: the address and port are in use"));
    let told = success("events", &cluster.verb(&["get", "events"]));
    assert!(told.contains(&format!("{name} is not published at 127.0.0.1:30081")), "{told}");
    drop(taken);
    let gone = "{apiVersion: v1, kind: Service, metadata: {name: local}}\n";
    let file = ManifestFile::new("gone", gone);
    success("delete", &cluster.verb(&["delete", "-f", file.path()]));
    until("it is published", || answers(&net, machine, "127.0.0.1", 30081).is_some());
    assert_eq!(answers(&net, machine, "127.0.0.1", 30080), None, "its Service is gone");
    let refused = cluster.verb(&["withdraw", name]);
    assert!(both(&refused).contains("publishAddresses"), "{}", both(&refused));
    // A Service without ports of nodes is asked at one of its pods, which sees whoever that is.
    success("publish", &cluster.verb(&["publish", "0.0.0.0:8090:svc/plain:80", "8091:svc/any:80"]));
    assert_eq!(answers(&net, internet, MACHINE[0], 8090), Some(("web".to_owned(), INTERNET[0].to_owned())));
    assert_eq!(answers(&net, machine, "127.0.0.1", 8091).unwrap().0, "web");
    let more = builtin.replacen("\nspec:\n", "\nspec:\n  publishAddresses: [0.0.0.0]\n", 1);
    let file = ManifestFile::new("wide", &more);
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    until("everybody sees it", || answers(&net, internet, MACHINE[0], 30081).is_some());
    assert_eq!(answers(&net, machine, "::1", 30081), None);
    let none = builtin.replacen("\nspec:\n", "\nspec:\n  publishAddresses: []\n", 1);
    let file = ManifestFile::new("none", &none);
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    assert_eq!(cluster.get("published").len(), 2, "what the user has asked for stays");
}
