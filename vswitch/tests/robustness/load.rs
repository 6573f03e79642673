//! Stopped pods, idle pods and floods.

use super::*;

#[test]
fn a_stopped_pod_slows_nobody_and_goes_on_when_continued() {
    let _alone = alone();
    if !ready(&["iperf3", "ss"]) {
        return;
    }
    let cluster = Cluster::up("stop", &[]);
    let stopping = iperf_server(&cluster, "gamma");
    let _server = iperf_server(&cluster, "beta");
    let _stream = cluster.spawn("alpha", &["iperf3", "-t", "600", "-c", "10.244.0.3"]);
    let into = cluster.spawn("host/outside", &["iperf3", "-t", "600", "-c", "10.244.1.2"]);
    let mut stopped = inside(&stopping);
    // All of the pod, its first process as well.
    stopped.push(pause_of(&cluster, "default/gamma"));
    let flows = |intervals| {
        until("bytes flow into the pod that will be stopped", || {
            rates(&cluster, "node-2", "default/gamma", 1, 100)[0] > 100_000.0
        });
        rates(&cluster, "node-1", "default/beta", intervals, 500)
    };
    one_in_five(
        "a rate beside a stopped pod to that before",
        || {
            let before = median(flows(7));
            let drops_before = drops(&cluster);
            signal_all(&stopped, Signal::SIGSTOP);
            until("nothing flows into the stopped pod", || {
                rates(&cluster, "node-2", "default/gamma", 1, 300)[0] < 10_000.0
            });
            let during = median(rates(&cluster, "node-1", "default/beta", 7, 500));
            let drops_during = drops(&cluster);
            signal_all(&stopped, Signal::SIGCONT);
            let others = |mut drops: BTreeMap<(String, String), u64>| {
                drops.retain(|(port, _), _| port.ends_with("alpha") || port.ends_with("beta"));
                drops
            };
            assert_eq!(others(drops_before), others(drops_during), "drops of ports that have no part in it");
            during / before
        },
        0.95,
    );
    // Continued, it takes up where it was.
    flows(1);
    assert_eq!(state(&cluster, "default/gamma"), "up");
    drop(into);
    check(&cluster);
}

#[test]
fn idle_pods_cost_their_neighbours_nothing_and_two_clusters_run_side_by_side() {
    let _alone = alone();
    if !ready(&["iperf3", "ss"]) {
        return;
    }
    let few = Cluster::up("few", &[]);
    let many = Cluster::of("many", &common::with_idle_pods(64), &[]);
    assert_eq!(many.get("places").len(), few.get("places").len() + 64);
    let servers = [&few, &many].map(|cluster| iperf_server(cluster, "beta"));
    let measure = |cluster: &Cluster| {
        let _stream = cluster.spawn("alpha", &["iperf3", "-t", "60", "-c", "10.244.0.3"]);
        until("the stream flows", || rates(cluster, "node-1", "default/beta", 1, 100)[0] > 1e6);
        rates(cluster, "node-1", "default/beta", 4, 250)
    };
    // Kernels greet the network (multicast listener reports) for some seconds after an interface is up.
    let idle = || -> u64 {
        let ports: Vec<PortView> = client(&many).get("/v1/ports").unwrap();
        ports.iter().filter(|p| p.port.starts_with("default/idle-")).map(|p| p.tx_frames).sum()
    };
    let mut last = idle();
    until("the idle pods are idle", || {
        sleep(2000);
        let before = std::mem::replace(&mut last, idle());
        last == before
    });
    one_in_five(
        "a rate among 64 idle pods to that without",
        || {
            let ratios = (0..6).map(|round| {
                // Whichever comes first, so that a machine that gets busier favours neither.
                let early = (round % 2 == 0).then(|| median(measure(&few)));
                let before = idle();
                let with = median(measure(&many));
                assert_eq!(idle(), before, "an idle pod received something");
                with / early.unwrap_or_else(|| median(measure(&few)))
            });
            median(ratios.collect())
        },
        0.95,
    );
    drop(servers);
    check(&many);
}

/// Sends frames from the pod it runs in: `KIND FRAMES OWN-MAC OWN-ADDRESS DESTINATION-MAC`, all different.
const FLOOD: &str = r#"
import socket, struct, sys
kind, count, own, address, to = sys.argv[1:]
count, own, to = int(count), bytes.fromhex(own.replace(":", "")), bytes.fromhex(to.replace(":", ""))
address = socket.inet_aton(address)
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
out.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS: a full queue is an error, and the frame is sent again
out.bind(("eth0", 0))
def folded(total):
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return total
def words(data): return sum(struct.unpack("!%dH" % (len(data) // 2), data))
head = bytes.fromhex("45000020000040004011")
fixed = words(head + address + address)
def ip(n):  # from 100.0.0.0 + n, or from the own address
    total, source = (fixed, address) if n is None else (fixed - words(address) + 0x6400 + (n >> 16) + (n & 0xffff), (0x64000000 + n).to_bytes(4, "big"))
    return b"\x08\0" + head + (~folded(total) & 0xffff).to_bytes(2, "big") + source + address
own_ip = ip(None)
udp = bytes.fromhex("0000000000") + b"\x0c\0\0abcd"
def mac(n): return to + b"\x0a" + n.to_bytes(5, "big") + own_ip + udp
def ip4(n): return to + own + ip(n) + udp
def arp(n): return b"\xff" * 6 + own + bytes.fromhex("08060001080006040001") + own + (0x64000000 + n).to_bytes(4, "big") + bytes(6) + address
def nd(n):
    source, target = b"\xfe\x80" + bytes(14), b"\xfd" + bytes(11) + n.to_bytes(4, "big")
    source = b"\xfe\x80" + bytes(6) + bytes([own[0] ^ 2]) + own[1:3] + b"\xff\xfe" + own[3:]
    every = b"\xff\x02" + bytes(13) + b"\1"
    body = b"\x88\0\0\0\x20\0\0\0" + target + b"\2\1" + own
    total = folded(words(source + every + body) + len(body) + 58)
    body = body[:2] + struct.pack("!H", ~total & 0xffff) + body[4:]
    return b"\x33\x33\0\0\0\1" + own + b"\x86\xdd\x60\0\0\0" + struct.pack("!HBB", len(body), 58, 255) + source + every + body
make, send = globals()[kind], out.send
for n in range(count):
    frame = make(n)
    while True:
        try:
            send(frame)
            break
        except OSError as error:
            if error.errno != 105: raise
"#;

fn flood(cluster: &Cluster, place: &str, kind: &str, count: u64) {
    let ports: Vec<PortView> = client(cluster).get("/v1/ports").unwrap();
    let full = if place.contains('/') { place.to_owned() } else { format!("default/{place}") };
    let own = ports.iter().find(|p| p.port == full).unwrap();
    let mac = cluster.must(place, &["cat", "/sys/class/net/eth0/address"]);
    let address = own.addresses.first().map_or_else(|| "192.168.10.200".to_owned(), ToString::to_string);
    let count = count.to_string();
    // Any address that nobody has.
    let to = "02:00:00:00:00:01";
    cluster.must(place, &["python3", "-c", FLOOD, kind, &count, mac.trim(), &address, to]);
}

const MILLION: u64 = 1_000_000;

#[test]
fn a_pod_that_makes_up_addresses_is_counted_and_disturbs_nobody() {
    let _alone = alone();
    if !ready(&["ping", "python3"]) {
        return;
    }
    let cluster = Cluster::up("spoof", &[]);
    // What is reserved at first use is there.
    cluster.must("alpha", &["ping", "-c", "2", "10.244.1.2"]);
    for kind in ["mac", "ip4", "arp", "nd"] {
        flood(&cluster, "beta", kind, 20_000);
    }
    let before = resident_kib(cluster.pid());
    let counted = |reason: &str| {
        drops(&cluster).get(&("default/beta".to_owned(), reason.to_owned())).copied().unwrap_or_default()
    };
    let events_before = events(&cluster).len();
    let ping = Pinging::start(&cluster, "alpha", "10.244.1.2", 200);
    for (kind, reason, count) in [
        ("mac", "spoofed_mac", MILLION),
        ("ip4", "spoofed_address", MILLION),
        ("arp", "spoofed_arp", 50_000),
        ("nd", "spoofed_neighbor", 50_000),
    ] {
        let base = counted(reason);
        flood(&cluster, "beta", kind, count);
        until(&format!("every frame is counted as {reason}"), || counted(reason) - base == count);
    }
    ping.lost_nothing();
    let grown = resident_kib(cluster.pid()).saturating_sub(before);
    eprintln!("the switch grew by {grown} KiB");
    assert!(grown < 8 * 1024, "the switch grew by {grown} KiB");
    let learned = |view: &serde_json::Value| view["kind"] == "learned" && view["switch"] == "node-1";
    assert!(cluster.get("fdb").iter().filter(|view| learned(view)).count() <= 2);
    assert_eq!(events(&cluster).len(), events_before, "a flood is no news");
    cluster.must("beta", &["ping", "-c", "1", "-W", "10", "10.244.0.2"]);
    check(&cluster);
}

#[test]
fn a_million_addresses_behind_a_foreign_port_stay_within_its_share() {
    let _alone = alone();
    if !ready(&["ping", "python3"]) {
        return;
    }
    let cluster = Cluster::up("learn", &[]);
    cluster.must("alpha", &["ping", "-c", "2", "10.244.1.2"]);
    flood(&cluster, "host/outside", "mac", 20_000);
    let before = resident_kib(cluster.pid());
    let ping = Pinging::start(&cluster, "alpha", "10.244.1.2", 100);
    let received = || port(&cluster, "underlay", "host/outside").rx_frames;
    let base = received();
    flood(&cluster, "host/outside", "mac", MILLION);
    until("all frames are seen", || received() - base >= MILLION);
    ping.lost_nothing();
    let learned = cluster.get("fdb").iter().filter(|view| view["port"] == "host/outside").count();
    assert_eq!(learned, 4096, "the share of one port");
    let grown = resident_kib(cluster.pid()).saturating_sub(before);
    eprintln!("the switch grew by {grown} KiB");
    assert!(grown < 8 * 1024, "the switch grew by {grown} KiB");
    until("it is told", || {
        events(&cluster).iter().any(|text| text.contains("no room for more addresses behind host/outside"))
    });
    let told = events(&cluster).iter().filter(|text| text.contains("no room for more addresses")).count();
    assert_eq!(told, 1);
    // Whoever was known before still is.
    cluster.must("gamma", &["ping", "-c", "1", "-W", "10", "192.168.10.200"]);
    check(&cluster);
}
