//! Addresses of load balancers: who announces them, who may ask, and who comes back to whom.

use super::*;

/// Two nodes that may announce, of which the second does.
fn announcers() -> String {
    let node = |name: &str, labels: &str| {
        format!("---\n{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{{labels}}}}}}}\n")
    };
    let announcing = "---\napiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: some}\nspec: \
                      {nodeSelectors: [{matchLabels: {announces: 'yes'}}]}\n";
    [&node("node-3", "announces: 'yes'"), &node("node-6", "announces: 'yes'"), announcing].concat()
}

/// Asks all of a segment for an address and prints who answers, by hardware address: by ARP, or by neighbour discovery.
const WHO_HAS: &str = "import socket, struct, sys, time
own, asked = sys.argv[1:]
six = ':' in own
mac = bytes.fromhex(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind(('eth0', 0))
raw.settimeout(0.1)
pack = lambda text: socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, text)
if six:
    group = b'\\xff\\x02' + bytes(9) + b'\\x01\\xff' + pack(asked)[13:]
    body = struct.pack('!BBHI', 135, 0, 0, 0) + pack(asked) + b'\\x01\\x01' + mac
    words = struct.unpack('!%dH' % ((40 + len(body)) // 2), pack(own) + group + struct.pack('!II', len(body), 58) + body)
    sum_ = sum(words)
    while sum_ >> 16: sum_ = (sum_ & 0xffff) + (sum_ >> 16)
    body = body[:2] + struct.pack('!H', ~sum_ & 0xffff) + body[4:]
    frame = b'\\x33\\x33' + group[12:] + mac + b'\\x86\\xdd' + struct.pack('!IHBB', 6 << 28, len(body), 58, 255) + pack(own) + group + body
else:
    frame = b'\\xff' * 6 + mac + b'\\x08\\x06' + struct.pack('!HHBBH', 1, 0x800, 6, 4, 1) + mac + pack(own) + bytes(6) + pack(asked)
raw.send(frame)
seen, end = [], time.monotonic() + 1
while time.monotonic() < end:
    try: got = raw.recv(2048)
    except OSError: continue
    if six and got[12:14] == b'\\x86\\xdd' and got[20] == 58 and got[54] == 136 and got[62:78] == pack(asked): seen.append(got[6:12].hex())
    if not six and got[12:14] == b'\\x08\\x06' and got[20:22] == b'\\0\\2' and got[28:32] == pack(asked): seen.append(got[6:12].hex())
print(' '.join(set(seen)))
";

const LOAD_BALANCER: [&str; 2] = ["10.20.30.100", "fd00:20:30::100"];

fn who_has(cluster: &Cluster, own: &str, asked: &str) -> Vec<String> {
    let told = cluster.must("host/inside", &["python3", "-c", WHO_HAS, own, asked]);
    told.split_whitespace().map(ToOwned::to_owned).collect()
}

/// The hardware address that the machine beside the nodes sends to.
fn neighbor(cluster: &Cluster, address: &str) -> String {
    let told = cluster.must("host/inside", &["ip", "neigh", "show", address]);
    let mut words = told.split_whitespace().skip_while(|word| *word != "lladdr").skip(1);
    words.next().unwrap_or_default().replace(':', "")
}

#[test]
fn one_node_answers_for_an_address_and_another_says_so_when_it_goes() {
    if !ready(&["curl", "ip", "python3"]) {
        return;
    }
    let ports = "ports: [{port: 80, targetPort: web}]";
    let lab = LAB.replace("---\n{apiVersion: v1, kind: Node, metadata: {name: node-2}}\n", "");
    let lab = lab.replace("name: gamma}, spec: {nodeName: node-2", "name: gamma}, spec: {nodeName: node-1");
    let text = [
        &lab,
        &announcers(),
        &web("w1", "node-1", ""),
        &service("s", &format!("type: LoadBalancer, {DUAL}, {ports}")),
    ];
    let cluster = Cluster::of("owner", &text.map(String::as_str).concat(), &[]);
    let clients = ["10.20.30.200", "fd00:20:30::200"];
    until("it answers", || curl(&cluster, "host/inside", LOAD_BALANCER[0], 80).status.success());
    for (address, own) in LOAD_BALANCER.iter().zip(clients) {
        assert_eq!(seen(&cluster, "host/inside", address, 80).0, "w1");
        let before = who_has(&cluster, own, address);
        assert_eq!(before.len(), 1, "{address}: {before:?}");
        assert_eq!(neighbor(&cluster, address), before[0]);
    }
    let owners = || LOAD_BALANCER.map(|address| uplinks_with(&cluster, address).concat());
    assert_eq!(owners(), ["node-6"; 2]);
    let before = LOAD_BALANCER.map(|address| neighbor(&cluster, address));
    let gone = "---\n{apiVersion: v1, kind: Node, metadata: {name: node-6}}\n";
    apply(&cluster, "delete", gone);
    for (address, before) in LOAD_BALANCER.iter().zip(before) {
        // Nobody has asked: it was announced.
        until("the other has told", || {
            ![before.as_str(), ""].contains(&neighbor(&cluster, address).as_str())
        });
        assert_eq!(seen(&cluster, "host/inside", address, 80).0, "w1");
    }
    assert_eq!(owners(), ["node-3"; 2]);
    for (address, own) in LOAD_BALANCER.iter().zip(clients) {
        assert_eq!(who_has(&cluster, own, address).len(), 1, "{address}");
    }
}

#[test]
fn sources_further_addresses_and_the_time_of_affinity() {
    if !ready(&["curl", "ip", "python3"]) {
        return;
    }
    let spec = |sources: &str| {
        format!(
            "type: LoadBalancer, {DUAL}, loadBalancerSourceRanges: [{sources}], externalIPs: [203.0.113.7, '2001:db8:113::7'], \
             sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 2}}}}, ports: [{{port: 80, targetPort: web}}]"
        )
    };
    let in_turn =
        |text: String| text.replace("{name: s}", "{name: s, annotations: {vswitch/lb-policy: round-robin}}");
    let cluster = lab("sources", &[in_turn(service("s", &spec("10.20.30.0/24, 'fd00:20:30::/64'")))]);
    for address in LOAD_BALANCER {
        assert!(curl(&cluster, "host/inside", address, 80).status.success(), "{address}");
        let told = refused(&cluster, "host/outside", address, 80, "tcp");
        assert!(["TimeoutError", "timeout"].contains(&told.as_str()), "{told}");
    }
    for (address, node) in [("203.0.113.7", "10.20.30.2"), ("2001:db8:113::7", "fd00:20:30::2")] {
        cluster.must("host/inside", &["ip", "route", "add", address, "via", node]);
        for from in ["alpha", "node/node-1", "host/inside"] {
            assert!(curl(&cluster, from, address, 80).status.success(), "{from} {address}");
        }
    }
    // Whoever has been silent for long is led to whose turn it is.
    for vip in VIPS {
        let before = answers(&cluster, "alpha", vip, 80, 8);
        assert_eq!(before.len(), 1, "{vip}");
        std::thread::sleep(Duration::from_millis(2500));
        let after = answers(&cluster, "alpha", vip, 80, 8);
        assert!(after.len() == 1 && after != before, "{vip}: {before:?} {after:?}");
    }
}
