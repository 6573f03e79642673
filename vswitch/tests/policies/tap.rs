//! A sample of policies over TAPs, with real sockets; and pods that come while a neighbour floods them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::common::{Cluster, ManifestFile, both, ready, success, until};
use super::evaluator::{Ask, End, World, namespace};
use super::table;

/// Policies of the sample.
const SAMPLE: usize = 30;
/// Pods that come under a flood.
const FLOODED: usize = 20;

/// Serves TCP and UDP on the ports, both families, until it is killed; writes what came to a file.
const SERVE: &str = "
import selectors, socket, sys
sel = selectors.DefaultSelector()
for port in (80, 81):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(('::', port))
        if kind == socket.SOCK_STREAM: s.listen(64)
        s.setblocking(False)
        sel.register(s, selectors.EVENT_READ, kind)
while True:
    for key, _ in sel.select():
        try:
            if key.data == socket.SOCK_STREAM:
                c, _ = key.fileobj.accept(); c.sendall(b'here'); c.close()
            else:
                data, who = key.fileobj.recvfrom(99); key.fileobj.sendto(data, who)
        except OSError: pass
";

/// Asks all that its argument names at once, and says of each whether an answer came in time.
const ASK: &str = "
import json, selectors, socket, sys, time
sel, done = selectors.DefaultSelector(), {}
asks = json.loads(sys.argv[1])
for at, (kind, address, port) in enumerate(asks):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == 'TCP' else socket.SOCK_DGRAM)
    s.setblocking(False)
    try: s.connect((address, port))
    except BlockingIOError: pass
    if kind == 'UDP': s.send(b'here')
    sel.register(s, selectors.EVENT_READ, at)
    done[at] = False
end = time.time() + float(sys.argv[2])
while not all(done.values()) and time.time() < end:
    for key, _ in sel.select(0.1):
        try: done[key.data] = key.fileobj.recv(9) == b'here'
        except OSError: pass
        sel.unregister(key.fileobj)
    if not sel.get_map(): break
print(json.dumps([done[at] for at in range(len(asks))]))
";

fn applied(cluster: &Cluster, verb: &str, objects: &[Value]) -> String {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = ManifestFile::new("policies", &list.to_string());
    success(verb, &cluster.verb(&[verb, "-f", file.path()]))
}

fn full_name(pod: &Value) -> String {
    format!("{}/{}", namespace(pod), pod["metadata"]["name"].as_str().unwrap())
}

/// A pod asks all others for everything that sockets can ask for. What is answered must be what the evaluator allows.
fn ask_everybody(
    cluster: &Cluster,
    world: &World,
    addresses: &BTreeMap<String, Vec<IpAddr>>,
    from: &Value,
    policy: &Value,
) {
    let (mut asks, mut expected) = (Vec::new(), Vec::new());
    for to in world.pods().into_iter().filter(|to| !std::ptr::eq(*to, from)) {
        for (ask, v6) in table::ASKS.into_iter().flat_map(|ask| [(ask, false), (ask, true)]) {
            let Ask { protocol: protocol @ ("TCP" | "UDP"), port } = ask else { continue };
            let of = |pod: &Value| *addresses[&full_name(pod)].iter().find(|a| a.is_ipv6() == v6).unwrap();
            asks.push(json!([protocol, of(to).to_string(), port]));
            expected.push(world.allows(End::Pod(from, of(from)), End::Pod(to, of(to)), ask));
        }
    }
    let asked = Value::from(asks).to_string();
    let answered = |patience: &str| -> Vec<bool> {
        let told = cluster.must(&full_name(from), &["python3", "-c", ASK, &asked, patience]);
        serde_json::from_str(&told).unwrap()
    };
    // Who must be silent is waited for; who must answer may take longer on a busy machine.
    let mut found = answered("0.5");
    let passed = found.iter().zip(&expected).filter(|(found, allowed)| **found && !**allowed).count();
    assert_eq!(passed, 0, "{}: {asked}\n{found:?}\n{policy}", full_name(from));
    if found != expected {
        found = answered("5");
    }
    assert_eq!(found, expected, "{}: {asked}\n{policy}", full_name(from));
}

#[test]
fn a_sample_holds_for_real_sockets() {
    if !ready(&["python3"]) {
        return;
    }
    let mut world = table::world();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": world.objects});
    let cluster = Cluster::of("policies", &list.to_string(), &[]);
    let pods: Vec<Value> = world.pods().into_iter().cloned().collect();
    let servers: Vec<_> =
        pods.iter().map(|pod| cluster.serve(&full_name(pod), 80, &["python3", "-c", SERVE])).collect();
    let addresses: BTreeMap<String, Vec<IpAddr>> = cluster
        .get("pods")
        .iter()
        .map(|pod| {
            let ips = pod["status"]["podIPs"].as_array().unwrap().iter();
            (full_name(pod), ips.map(|ip| ip["ip"].as_str().unwrap().parse().unwrap()).collect())
        })
        .collect();
    let all = table::policies();
    let step = all.len() / SAMPLE;
    let begin = world.objects.len();
    for policy in all.into_iter().step_by(step).take(SAMPLE) {
        applied(&cluster, "apply", std::slice::from_ref(&policy));
        world.objects.push(policy.clone());
        std::thread::scope(|scope| {
            for from in world.pods() {
                let (world, cluster, addresses, policy) = (&world, &cluster, &addresses, &policy);
                scope.spawn(move || ask_everybody(cluster, world, addresses, from, policy));
            }
        });
        applied(&cluster, "delete", std::slice::from_ref(&policy));
        world.objects.truncate(begin);
    }
    drop(servers);
}

/// The pods' own devices say what they received: nothing but what neighbours ask each other.
#[test]
fn pods_that_come_under_a_flood_hear_nothing_of_it() {
    const FLOOD: &str = "
import socket, sys, time
end = time.time() + 60
while time.time() < end:
    for last in range(2, 40):
        for address in ('10.244.0.%d' % last, 'fd00:10:244::%x' % last):
            family = socket.AF_INET6 if ':' in address else socket.AF_INET
            s = socket.socket(family, socket.SOCK_STREAM); s.setblocking(False)
            try: s.connect((address, 80))
            except OSError: pass
            s.close()
            u = socket.socket(family, socket.SOCK_DGRAM)
            try: u.sendto(b'flood', (address, 80))
            except OSError: pass
            u.close()
";
    if !ready(&["python3", "nstat"]) {
        return;
    }
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let pod = |name: &str, namespace: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]}})
    };
    let closed = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "target"}, "spec": {"podSelector": {}}});
    let first =
        json!({"apiVersion": "v1", "kind": "List", "items": [node, pod("attacker", "default"), closed]});
    let cluster = Cluster::of("flood", &first.to_string(), &[]);
    let flood = cluster.spawn("attacker", &["python3", "-c", FLOOD]);
    for number in 0..FLOODED {
        applied(&cluster, "apply", &[pod(&format!("t{number}"), "target")]);
    }
    std::thread::sleep(Duration::from_secs(2));
    drop(flood);
    for number in 0..FLOODED {
        let told = cluster.must(&format!("target/t{number}"), &["nstat", "-asz"]);
        for counter in ["TcpInSegs", "UdpInDatagrams", "UdpNoPorts", "Udp6InDatagrams", "Udp6NoPorts"] {
            let line = told.lines().find(|line| line.starts_with(&format!("{counter} "))).unwrap_or_default();
            assert_eq!(line.split_whitespace().nth(1), Some("0"), "t{number}: {line}");
        }
    }
    let drops = cluster.get("policies");
    let closed = drops.iter().find(|policy| policy["name"] == "closed").unwrap();
    assert_eq!(closed["pods"].as_array().unwrap().len(), FLOODED);
    assert!(closed["dropped"]["n1"].as_u64().unwrap() > 1000, "{closed}");
    until("a trace names the policy", || {
        both(&cluster.verb(&["trace", "attacker", "tcp 10.244.0.3:80"]))
            .contains("NetworkPolicy target/closed")
    });
}
