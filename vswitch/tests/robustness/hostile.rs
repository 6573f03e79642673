//! The data path beside hostile clients of the control socket.

use super::*;

/// Sends back every datagram.
const ECHO: &str = r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9009))
while True:
    s.sendto(*s.recvfrom(2048))
"#;

/// Asks `ADDRESS` for `SECONDS` and prints the 99th percentile of the round trips, in microseconds.
const ASK: &str = r#"
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((sys.argv[1], 9009))
end, trips = time.monotonic() + float(sys.argv[2]), []
while time.monotonic() < end:
    begin = time.monotonic()
    s.send(b"x" * 64)
    s.recv(2048)
    trips.append(time.monotonic() - begin)
    time.sleep(0.0005)
trips.sort()
print(trips[len(trips) * 99 // 100] * 1e6)
"#;

/// Torments the control socket `PATH` until it is killed, beginning anew whatever comes to an end: halves of requests on a
/// thousand connections, bodies of a GiB, answers and captures that nobody reads.
const TORMENT: &str = r#"
import resource, socket, sys, threading, time
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
def connect(text):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.sendall(text)
    return s
def get(path): return connect(b"GET " + path + b" HTTP/1.1\r\nHost: v\r\n\r\n")
def halves():
    held = []
    for _ in range(1000):
        try: held.append(connect(b"POST /v1/trace HTTP/1.1\r\nHost: v\r\nContent-Le"))
        except OSError: pass
    time.sleep(0.1)
def body():
    s = connect(b"POST /v1/apply HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1 << 14): s.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
def answers():
    held = [get(path) for path in [b"/v1/ports", b"/metrics", b"/v1/openapi.json", b"/v1/objects/pods"] * 5]
    time.sleep(0.05)
def capture():
    held = get(b"/v1/capture?port=any")
    time.sleep(5)
def forever(work):
    while True:
        try: work()
        except OSError: time.sleep(0.01)
for work in [halves, body, answers, capture]:
    threading.Thread(target=forever, args=(work,), daemon=True).start()
print("tormenting", flush=True)
time.sleep(600)
"#;

/// The processor of clients and of the threads that serve them, and that of the data path and the pods: what clients take
/// of a processor for themselves is theirs and the kernel's affair, and moves a percentile more than anything measured here.
const CLIENTS: &str = "0";
const DATA_PATH: &str = "1";

/// Gives each thread of the process its processor.
fn pin(cluster: &Cluster) {
    for task in fs::read_dir(format!("/proc/{}/task", cluster.pid())).unwrap() {
        let task = task.unwrap();
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        let processor = if name.starts_with("data path") { DATA_PATH } else { CLIENTS };
        let thread = task.file_name();
        success("taskset", &Command::new("taskset").args(["-pc", processor]).arg(thread).output().unwrap());
    }
}

struct Tormentors(Running);

impl Tormentors {
    fn start(cluster: &Cluster) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", CLIENTS, "python3", "-c", TORMENT]).arg(cluster.state.join("control.sock"));
        let mut tormentors = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut said = [0; 10];
        tormentors.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Self(tormentors)
    }

    fn end(mut self) {
        self.0.0.kill().unwrap();
        self.0.0.wait().unwrap();
    }
}

#[test]
fn hostile_clients_do_not_slow_round_trips_between_pods() {
    let _alone = alone();
    if !ready(&["python3", "taskset"]) {
        return;
    }
    let cluster = Cluster::up("hostile", &[]);
    pin(&cluster);
    let _echo = cluster.spawn("gamma", &["taskset", "-c", DATA_PATH, "python3", "-c", ECHO]);
    let ask = |seconds| ["taskset", "-c", DATA_PATH, "python3", "-c", ASK, "10.244.1.2", seconds];
    let p99 = || -> f64 { cluster.must("alpha", &ask("1.5")).trim().parse().unwrap() };
    until("the echo answers", || cluster.exec("alpha", &ask("0.01")).status.success());
    one_in_five(
        "the 99th percentile of quiet round trips to that beside hostile clients",
        || {
            let rounds = (0..5).map(|_| {
                let quiet = p99();
                let tormentors = Tormentors::start(&cluster);
                let beside = p99();
                tormentors.end();
                eprintln!("  quiet {quiet:.0} us, beside hostile clients {beside:.0} us");
                quiet / beside
            });
            median(rounds.collect())
        },
        0.5,
    );
    check(&cluster);
}
