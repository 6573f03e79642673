//! What is carried, and that it arrives.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sched::{CloneFlags, setns};

use super::*;
use crate::common::{both, ready, three_pings};

fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// {TCP, UDP} by {IPv4, IPv6} by {pod to outside, pod to machine, node to outside, host to outside} by {2 KiB, 10 MiB}.
#[test]
fn hashes_are_equal_whoever_asks_whom() {
    if !ready(&["ip", "nsenter", "ss", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("matrix", "");
    let _servers = [net.probes(&net.internet), net.probes(&net.machine)];
    for (from, to) in
        [("alpha", INTERNET), ("gamma", MACHINE), ("node/node-1", INTERNET), ("host/outside", INTERNET)]
    {
        for address in to {
            let to = at(address, PROBE);
            for octets in [2048u64, 10 << 20] {
                let text = cluster.must(from, &[executable(), "__probe", "tcp", &to, &octets.to_string()]);
                let report: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(report["bytes"], octets * 2, "{from} {to}: {text}");
            }
            for (count, size) in [("50", "0"), ("50", "2048"), ("200", "52428"), ("20", "65507")] {
                let ask = [executable(), "__probe", "udp", &to, count, size];
                all_come_back(&format!("{from} {to} {size}"), || cluster.must(from, &ask));
            }
        }
    }
    at_rest(&cluster);
    assert_eq!(metric(&cluster, "vswitch_egress_given_up_total"), 0);
}

#[test]
fn curl_and_git_and_a_gigabyte() {
    if !ready(&["ip", "nsenter", "ss", "curl", "git", "python3", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("programs", "");
    let served = cluster.state.join("served");
    std::fs::create_dir(&served).unwrap();
    let path = served.to_str().unwrap();
    let repository = served.join("repository.git");
    let repository = repository.to_str().unwrap();
    run(&["git", "init", "-q", "--bare", "-b", "main", repository]);
    let work = cluster.state.join("work");
    let work = work.to_str().unwrap();
    run(&["git", "clone", "-q", repository, work]);
    std::fs::write(format!("{work}/file"), "what is in it\n").unwrap();
    run(&["git", "-C", work, "add", "file"]);
    run(&["git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@example", "commit", "-qm", "first"]);
    run(&["git", "-C", work, "push", "-q", "origin", "main"]);
    run(&["git", "-C", repository, "update-server-info"]);
    let server = ["python3", "-m", "http.server", "-b", "::", "-d", path, "8080"];
    let _server = net.serve(&net.internet, 8080, &server);
    let _probes = net.probes(&net.internet);
    for host in [INTERNET[0].to_owned(), format!("[{}]", INTERNET[1])] {
        let url = format!("http://{host}:8080/repository.git/HEAD");
        let text = cluster.must("alpha", &["curl", "-sS", "--fail", "--noproxy", "*", &url]);
        assert_eq!(text, "ref: refs/heads/main\n");
        let clone = cluster.state.join(format!("clone-{}", host.len()));
        let clone = clone.to_str().unwrap();
        let url = format!("http://{host}:8080/repository.git");
        cluster.must("alpha", &["git", "clone", "-q", &url, clone]);
        assert_eq!(std::fs::read_to_string(format!("{clone}/file")).unwrap(), "what is in it\n");
        // Nobody listens there: that is told, and at once.
        let url = format!("http://{host}:9/");
        let refused = cluster.exec("alpha", &["curl", "-sS", "--noproxy", "*", "-m", "5", &url]);
        assert_eq!(refused.status.code(), Some(7), "{}", both(&refused));
    }
    let octets = (1u64 << 30).to_string();
    let text = cluster.must("alpha", &[executable(), "__probe", "tcp", &at(INTERNET[0], PROBE), &octets]);
    assert!(text.contains("\"bytes\":2147483648"), "{text}");
    at_rest(&cluster);
}

#[test]
fn pings_are_answered_by_whoever_is_pinged() {
    if !ready(&["ip", "nsenter", "ping", "sysctl", "curl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("ping", "");
    for address in INTERNET.into_iter().chain(MACHINE) {
        for size in ["56", "1400", "5000"] {
            let text = cluster.must("alpha", &three_pings(size, address));
            assert!(text.contains(" 3 received, 0% packet loss"), "{address}: {text}");
        }
    }
    // There is nobody, and nobody answers in his stead.
    for address in ["198.51.100.77", "2001:db8:100::77", "203.0.113.1"] {
        let output = cluster.exec("alpha", &["ping", "-n", "-c", "1", "-W", "1", address]);
        assert_eq!(output.status.code(), Some(1), "{address}: {}", both(&output));
    }
    // Where nobody may ping there is silence, which is counted.
    let forbid =
        [&net.inside(&net.machine)[..], &["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"]].concat();
    run(&forbid);
    let before = metric(&cluster, r#"vswitch_egress_drops_total{reason="refused"}"#);
    let output = cluster.exec("beta", &["ping", "-n", "-c", "1", "-W", "1", INTERNET[0]]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(metric(&cluster, r#"vswitch_egress_drops_total{reason="refused"}"#) > before);
}

/// A server of HTTP/2 without TLS in the internet: answers each request with what it was sent.
struct Http2(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Http2 {
    fn new(net: &Net, port: u16) -> Self {
        let namespace = std::fs::File::open(format!("/run/netns/{}", net.internet)).unwrap();
        let (stop, (ready, is_ready)) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(("::", port)).await.unwrap();
                ready.send(()).unwrap();
                while !stopped.load(Ordering::Relaxed) {
                    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
                    let Ok(Ok((stream, _))) = accepted else { continue };
                    let echo = service_fn(|request: Request<Incoming>| async {
                        Ok::<_, Infallible>(Response::new(request.into_body()))
                    });
                    let connection = http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(connection.serve_connection(TokioIo::new(stream), echo));
                }
            });
        });
        is_ready.recv().unwrap();
        Self(stop, Some(thread))
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn http_2_is_carried_both_ways() {
    if !ready(&["ip", "nsenter", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("http2", "");
    let _server = Http2::new(&net, 8080);
    let sent = cluster.state.join("sent");
    let octets: Vec<u8> = (0..3u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(&sent, &octets).unwrap();
    let (data, heard) = (format!("@{}", sent.display()), cluster.state.join("heard"));
    for host in [INTERNET[0].to_owned(), format!("[{}]", INTERNET[1])] {
        for number in 0..4 {
            // One at a time: curl 7.88 fails to use such a connection twice (its pull request 10643), whoever is asked.
            let curl = [
                "curl",
                "-sS",
                "--fail",
                "--http2-prior-knowledge",
                "--noproxy",
                "*",
                "-g",
                "-w",
                "%{http_version}",
            ];
            let url = format!("http://{host}:8080/{number}");
            let what = ["--data-binary", &data, "-o", heard.to_str().unwrap(), &url];
            assert_eq!(cluster.must("alpha", &[&curl[..], &what].concat()), "2", "{host}");
            let heard = std::fs::read(&heard).unwrap();
            assert!(heard == octets, "{host} {number}: {} octets", heard.len());
        }
    }
    at_rest(&cluster);
}

/// Both ends of a conversation over UDP as QUIC has it: each says much in numbered datagrams of 1200 octets, acknowledges what
/// it hears, and repeats what is not acknowledged. Prints the hash of what it has heard.
const BOTH_WAYS: &str = r#"
import hashlib, socket, struct, sys, time
listens, host, size = sys.argv[1] == "listen", sys.argv[2], 1192
family = socket.AF_INET6 if ":" in host else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
own = hashlib.shake_128(b"server" if listens else b"client").digest(2 << 20)
pieces = [own[at:at + size] for at in range(0, len(own), size)]
if listens:
    s.bind((host, 9300))
    peer = None
else:
    s.connect((host, 9300))
    peer = (host, 9300)
s.settimeout(0.02)
unsure, heard, ended = dict.fromkeys(range(len(pieces))), {}, None
limit = time.monotonic() + 50
def send(data):
    try: s.sendto(data, peer) if listens else s.send(data)
    except ConnectionRefusedError: pass
while time.monotonic() < limit and (ended is None or time.monotonic() < ended):
    if peer:
        for number in list(unsure)[:32]: send(struct.pack("!II", 0, number) + pieces[number])
    while True:
        try: data, sender = s.recvfrom(2000)
        except (TimeoutError, ConnectionRefusedError): break
        if listens: peer = sender
        kind, number = struct.unpack("!II", data[:8])
        if kind: unsure.pop(number, None)
        else:
            heard[number] = data[8:]
            send(struct.pack("!II", 1, number))
        if kind and len(unsure) % 32 == 0: break
    if ended is None and not unsure and len(heard) == len(pieces): ended = time.monotonic() + 3
print(hashlib.sha256(b"".join(heard[n] for n in sorted(heard))).hexdigest(), len(unsure))
"#;

#[test]
fn datagrams_go_both_ways_at_once_as_quic_has_it() {
    if !ready(&["ip", "nsenter", "python3", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("quic", "");
    for host in INTERNET {
        let listens =
            [&net.inside(&net.internet)[..], &["python3", "-c", BOTH_WAYS, "listen", host]].concat();
        let server = Command::new(listens[0]).args(&listens[1..]).stdout(Stdio::piped()).spawn().unwrap();
        let client = cluster.must("alpha", &["python3", "-c", BOTH_WAYS, "call", host]);
        let server = success("the server", &server.wait_with_output().unwrap());
        let said = |name: &str| {
            let script = format!(
                "import hashlib; print(hashlib.sha256(hashlib.shake_128(b\"{name}\").digest(2 << 20)).hexdigest(), 0)"
            );
            run(&["python3", "-c", &script])
        };
        assert_eq!((client, server), (said("server"), said("client")), "{host}");
    }
}
