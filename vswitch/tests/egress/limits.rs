//! Many at once, and what happens when there is no more of something.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

use super::*;
use crate::common::{happens, ready};

/// A server in the internet that answers each client with one octet for one octet, and ends when it does.
struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    fn new(net: &Net, ports: std::ops::Range<u16>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = ports.map(|port| {
            let namespace = std::fs::File::open(format!("/run/netns/{}", net.internet)).unwrap();
            let (stop, (ready, is_ready)) = (Arc::clone(&stop), std::sync::mpsc::channel());
            let thread = std::thread::spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                let listener = TcpListener::bind(("::", port)).unwrap();
                nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
                listener.set_nonblocking(true).unwrap();
                ready.send(()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let Ok((mut stream, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_micros(200));
                        continue;
                    };
                    stream.set_nonblocking(false).unwrap();
                    std::thread::Builder::new()
                        .stack_size(64 * 1024)
                        .spawn(move || {
                            let mut octet = [0];
                            while stream.read(&mut octet).is_ok_and(|count| count > 0) {
                                if stream.write_all(&octet).is_err() {
                                    return;
                                }
                            }
                        })
                        .unwrap();
                }
            });
            is_ready.recv().unwrap();
            thread
        });
        let threads = threads.collect();
        Self { stop, threads }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// What runs in a pod: opens so many connections at once, asks on each, and says how many were answered and how many
/// refused.
const MANY: &str = r#"
import asyncio, sys, time
host, first, ports, count, hold = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
good = bad = 0
async def one(number):
    global good, bad
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, first + number % ports), 30)
        writer.write(b"x")
        answer = await asyncio.wait_for(reader.readexactly(1), 30)
        await asyncio.sleep(hold)
        writer.close()
        good += answer == b"x"
    except (OSError, asyncio.IncompleteReadError) as error:
        bad += 1
async def main():
    await asyncio.gather(*(one(number) for number in range(count)))
asyncio.run(main())
print(good, bad)
"#;

fn many(cluster: &Cluster, host: &str, ports: (u16, u16), count: usize, hold: &str) -> (usize, usize) {
    let (first, ports) = (ports.0.to_string(), ports.1.to_string());
    let limit = format!("ulimit -n 4096; exec python3 -c '{MANY}' \"$@\"");
    let argv = ["sh", "-c", &limit, "many", host, &first, &ports, &count.to_string(), hold];
    let text = cluster.must("alpha", &argv);
    let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn a_thousand_at_once_none_refused_and_nothing_left() {
    if !ready(&["ip", "nsenter", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("thousand", "");
    let _server = Echo::new(&net, 9000..9001);
    assert_eq!(many(&cluster, INTERNET[0], (9000, 1), 1, "0"), (1, 0));
    at_rest(&cluster);
    let before = descriptors(&cluster);
    for host in INTERNET {
        assert_eq!(many(&cluster, host, (9000, 1), 1000, "1"), (1000, 0), "{host}");
    }
    at_rest(&cluster);
    // Under such load frames are read through a ring, which has a descriptor and stays.
    until("as many descriptors are open as before", || descriptors(&cluster) <= before + 1);
}

#[test]
fn connect_request_close_again_and_again_without_a_reset() {
    if !ready(&["ip", "nsenter", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("again", "");
    let _server = Echo::new(&net, 9000..9008);
    assert_eq!(many(&cluster, INTERNET[0], (9000, 8), 8, "0"), (8, 0));
    at_rest(&cluster);
    let before = descriptors(&cluster);
    // Ten times as many in the long tier.
    let rounds = if std::env::var_os("VSWITCH_LONG").is_some() { 50 } else { 5 };
    for _ in 0..rounds {
        assert_eq!(many(&cluster, INTERNET[0], (9000, 8), 2000, "0"), (2000, 0));
    }
    at_rest(&cluster);
    // Under such load frames are read through a ring, which has a descriptor and stays.
    until("as many descriptors are open as before", || descriptors(&cluster) <= before + 1);
    assert_eq!(metric(&cluster, "vswitch_egress_established_total"), rounds * 2000 + 8);
    assert_eq!(metric(&cluster, "vswitch_egress_reset_by_outside_total"), 0);
}

#[test]
fn a_black_hole_holds_up_nobody() {
    if !ready(&["ip", "nsenter", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("hole", "");
    let _server = Echo::new(&net, 9000..9001);
    run(&["ip", "-n", &net.internet, "address", "add", "203.0.113.1/32", "dev", "lo"]);
    run(&["ip", "-n", &net.internet, "route", "add", "blackhole", "203.0.113.2/32"]);
    let script = "import socket,time\nall=[]\nfor n in range(200):\n s=socket.socket(); s.setblocking(False); \
                  s.connect_ex((\"203.0.113.2\",80)); all.append(s)\ntime.sleep(30)";
    let _waiting = cluster.spawn("beta", &["python3", "-c", script]);
    until("they wait", || metric(&cluster, r#"vswitch_egress_flows{kind="connections"}"#) >= 200);
    let script = format!(
        "import socket,time\nb=time.time()\ns=socket.create_connection((\"{}\",9000)); s.send(b\"x\"); s.recv(1)\n\
         print(time.time()-b)",
        INTERNET[0]
    );
    // A machine that has much else to do may take its time now and then.
    until("a connection stands within a tenth of a second", || {
        cluster.must("alpha", &["python3", "-c", &script]).trim().parse::<f64>().unwrap() < 0.1
    });
}

#[test]
fn without_descriptors_there_are_resets_and_then_there_is_service_again() {
    if !ready(&["ip", "nsenter", "python3", "curl", "prlimit", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("few", "");
    let _server = Echo::new(&net, 9000..9001);
    let few = (descriptors(&cluster) + 40).to_string();
    run(&["prlimit", "--pid", &cluster.pid().to_string(), &format!("--nofile={few}:{few}")]);
    let (good, bad) = many(&cluster, INTERNET[0], (9000, 1), 500, "2");
    assert!(good >= 5 && bad >= 400 && good + bad == 500, "{good} {bad}");
    assert!(metric(&cluster, r#"vswitch_egress_drops_total{reason="no_sockets"}"#) >= 400);
    // It does not spin: next to nothing to do costs next to nothing.
    at_rest(&cluster);
    let before = ticks(&cluster);
    std::thread::sleep(Duration::from_secs(2));
    assert!(ticks(&cluster) - before < 50, "{} ticks in two seconds", ticks(&cluster) - before);
    assert_eq!(many(&cluster, INTERNET[0], (9000, 1), 10, "0"), (10, 0));
}

#[test]
fn with_128_descriptors_it_is_the_same() {
    if !ready(&["ip", "nsenter", "python3", "curl", "prlimit", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster_by("tight", &["prlimit", "--nofile=128:128", "--"], "");
    let _server = Echo::new(&net, 9000..9001);
    let (good, bad) = many(&cluster, INTERNET[0], (9000, 1), 500, "2");
    assert!(good >= 5 && bad >= 300 && good + bad == 500, "{good} {bad}");
    assert!(metric(&cluster, r#"vswitch_egress_drops_total{reason="no_sockets"}"#) >= 300);
    at_rest(&cluster);
    assert_eq!(many(&cluster, INTERNET[0], (9000, 1), 10, "0"), (10, 0));
}

/// What runs in a pod: so many connections, each broken off as soon as it stands.
const BROKEN_OFF: &str = r#"
import socket, struct, sys
for _ in range(int(sys.argv[2])):
    s = socket.create_connection((sys.argv[1], 9000))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
"#;

#[test]
fn a_thousand_that_are_broken_off_leave_nothing() {
    if !ready(&["ip", "nsenter", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("broken", "");
    let _server = Echo::new(&net, 9000..9001);
    assert_eq!(many(&cluster, INTERNET[0], (9000, 1), 1, "0"), (1, 0));
    at_rest(&cluster);
    let before = descriptors(&cluster);
    cluster.must("alpha", &["python3", "-c", BROKEN_OFF, INTERNET[0], "1000"]);
    at_rest(&cluster);
    assert_eq!(metric(&cluster, "vswitch_egress_reset_by_pods_total"), 1000);
    until("as many descriptors are open as before", || descriptors(&cluster) <= before + 1);
}

/// What runs in a pod: so many connections that are ended from here and not from there, until it is killed.
const HALF_CLOSED: &str = r#"
import socket, sys, time
all = []
for number in range(int(sys.argv[2])):
    s = socket.create_connection((sys.argv[1], 9100 + number % 2))
    s.shutdown(socket.SHUT_WR)
    all.append(s)
time.sleep(600)
"#;

/// What runs in the internet: takes all of them, and keeps them until it is killed.
const KEEPS: &str = r#"
import socket, threading
def keep(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    kept = []
    while True: kept.append(listener.accept()[0])
threading.Thread(target=keep, args=(9101,), daemon=True).start()
keep(9100)
"#;

/// Octets of memory that `vswitch up` has.
fn memory(cluster: &Cluster) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn ten_thousand_half_closed_cost_little_and_leave_nothing() {
    const MANY: u64 = 10_000;
    if !ready(&["ip", "nsenter", "ss", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("half", "");
    let limit = |script: &str| format!("ulimit -n 12000; exec python3 -c '{script}' \"$@\"");
    let server = net.serve(&net.internet, 9100, &["sh", "-c", &limit(KEEPS), "keeps"]);
    let (descriptors_before, memory_before) = (descriptors(&cluster), memory(&cluster));
    let many = MANY.to_string();
    let _pod = cluster.spawn("alpha", &["sh", "-c", &limit(HALF_CLOSED), "half", INTERNET[0], &many]);
    let carried = || metric(&cluster, r#"vswitch_egress_flows{kind="connections"}"#);
    // A machine that has much else to do takes its time.
    for _ in 0..5 {
        if happens(|| carried() == MANY) {
            break;
        }
    }
    assert_eq!(carried(), MANY);
    let each = memory(&cluster).saturating_sub(memory_before) / MANY;
    assert!(
        each <= 64 << 10 && memory(&cluster) < 700 << 20,
        "{each} octets each, {} in all",
        memory(&cluster)
    );
    // It is said, as a figure to be published; a captured line would not be seen.
    let _ = writeln!(std::io::stderr(), "{MANY} connections at rest take {each} octets each");
    assert_eq!(metric(&cluster, "vswitch_egress_held_bytes"), 0);
    // Nobody is asked for more than he can give: the other half goes on being carried.
    let before = ticks(&cluster);
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks(&cluster) - before < 50, "{} ticks in a second", ticks(&cluster) - before);
    drop(server);
    at_rest(&cluster);
    until("as many descriptors are open as before", || descriptors(&cluster) <= descriptors_before + 1);
    let left = memory(&cluster).saturating_sub(memory_before);
    assert!(left < 64 << 20, "{left} octets are left of {each} each");
}
