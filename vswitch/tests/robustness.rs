//! What goes wrong around a running `vswitch`, with real namespaces: stopped pods, floods, stuck clients, things that
//! vanish, processes that are killed, and users without rights. The others go on, it is told, and nothing stays behind.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this file is tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Background, Cluster, both, executable, left_of, ready, success, until};
use netstack::driver::Clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vswitch::control::api::{EventView, PortView};
use vswitch::control::client::Client;

/// Throughputs are compared and all processes of the machine are looked at, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- asking a cluster --------------------------------------------------------------------------------------------

fn client(cluster: &Cluster) -> Client {
    Client::new(cluster.state.join("control.sock"))
}

fn port(cluster: &Cluster, switch: &str, name: &str) -> PortView {
    let ports: Vec<PortView> = client(cluster).get("/v1/ports").unwrap();
    ports.into_iter().find(|p| p.switch == switch && p.port == name).unwrap()
}

fn drops(cluster: &Cluster) -> BTreeMap<(String, String), u64> {
    let drops: Vec<vswitch::control::api::DropView> = client(cluster).get("/v1/drops").unwrap();
    let mut by_port = BTreeMap::new();
    for drop in drops {
        *by_port.entry((drop.port, drop.reason)).or_default() += drop.count;
    }
    by_port
}

fn events(cluster: &Cluster) -> Vec<String> {
    let events: Vec<EventView> = client(cluster).get("/v1/events").unwrap();
    events.into_iter().map(|event| event.text).collect()
}

/// The state of the port of each place.
fn state(cluster: &Cluster, name: &str) -> String {
    let ports: Vec<PortView> = client(cluster).get("/v1/ports").unwrap();
    ports.into_iter().find(|p| p.port == name).unwrap().state
}

/// Nothing that should add up does not.
fn check(cluster: &Cluster) {
    assert_eq!(client(cluster).get::<Vec<String>>("/v1/check").unwrap(), Vec::<String>::new());
}

fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Octets per second that pass a port towards its pod, one number per interval.
fn rates(cluster: &Cluster, switch: &str, name: &str, intervals: usize, milliseconds: u64) -> Vec<f64> {
    let clock = Clock::start();
    let sample = || (clock.now(), port(cluster, switch, name).tx_bytes);
    let mut last = sample();
    (0..intervals)
        .map(|_| {
            sleep(milliseconds);
            let now = sample();
            let rate = (now.1 - last.1) as f64 / (now.0 - last.0).as_secs_f64();
            last = now;
            rate
        })
        .collect()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The machine has other things to do as well, which moves a ratio either way; a cost that is there shows in every run. So
/// the comparison counts if it holds in one of five.
fn one_in_five(what: &str, mut ratio: impl FnMut() -> f64, least: f64) {
    let ratios: Vec<f64> = (0..5)
        .map_while({
            let mut enough = false;
            move |_| {
                let now = (!enough).then(&mut ratio)?;
                enough = now >= least;
                Some(now)
            }
        })
        .collect();
    eprintln!("{what}: {ratios:.3?}, at least {least} is wanted");
    assert!(ratios.iter().any(|ratio| *ratio >= least), "{what}: {ratios:?}");
}

fn iperf_server(cluster: &Cluster, place: &str) -> Background {
    cluster.serve(place, 5201, &["iperf3", "-s"])
}

fn children_of(pid: Pid) -> Vec<Pid> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

/// Processes of a pod that a program started in it consists of.
fn inside(program: &Background) -> Vec<Pid> {
    until("the program runs", || !children_of(program.pid()).is_empty());
    children_of(program.pid())
}

fn signal_all(pids: &[Pid], signal: Signal) {
    for &pid in pids {
        kill(pid, signal).unwrap();
    }
}

/// The only child of `vswitch up`.
fn helper_of(cluster: &Cluster) -> Pid {
    let pids = fs::read_dir(format!("/proc/{}/task", cluster.pid())).unwrap();
    let children = pids.flatten().flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    let all: Vec<String> = children.collect();
    let [helper] = &all[..] else { panic!("children of up: {all:?}") };
    Pid::from_raw(helper.parse().unwrap())
}

fn pause_of(cluster: &Cluster, place: &str) -> Pid {
    let places = cluster.get("places");
    let found = places.iter().find(|p| p["place"] == place).unwrap();
    Pid::from_raw(found["pause_pid"].as_u64().unwrap().try_into().unwrap())
}

fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// A ping that goes on beside something else; every echo must come back.
struct Pinging(Child);

impl Pinging {
    fn start(cluster: &Cluster, from: &str, to: &str, count: u32) -> Self {
        let count = count.to_string();
        let argv = ["exec", from, "--", "ping", "-q", "-i", "0.05", "-W", "10", "-c", &count, to];
        let mut command = cluster.command(&argv);
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn lost_nothing(self) {
        let output = self.0.wait_with_output().unwrap();
        let text = success("ping", &output);
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
}

/// A process that does not outlive a test that fails.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    /// Waits for its end.
    fn status(&mut self) -> ExitStatus {
        until("it ends", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            let _ = kill(self.pid(), Signal::SIGTERM);
            for _ in 0..250 {
                if self.0.try_wait().unwrap().is_some() {
                    return;
                }
                sleep(20);
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Nothing of a cluster is left that others could stumble over.
fn assert_nothing_left(name: &str, state: &Path) {
    until("all processes and namespaces are gone", || left_of(name).is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "a mount is left: {mounts}");
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!sockets.contains(name), "a socket is left: {sockets}");
    let mut files: Vec<String> = Vec::new();
    let mut directories = vec![state.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                directories.push(entry.path());
            } else {
                files.push(entry.path().display().to_string());
            }
        }
    }
    files.retain(|file| !file.ends_with("/lock") && !file.ends_with("/helper.log"));
    assert_eq!(files, Vec::<String>::new(), "files are left");
}

// ---- stopped pods, idle pods, floods --------------------------------------------------------------------------------

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
    let many = Cluster::up("many", &["--idle-pods", "64"]);
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
    until("it is told", || events(&cluster).iter().any(|text| text.contains("no room for more addresses")));
    let told = events(&cluster).iter().filter(|text| text.contains("no room for more addresses")).count();
    assert_eq!(told, 1);
    // Whoever was known before still is.
    cluster.must("gamma", &["ping", "-c", "1", "-W", "10", "192.168.10.200"]);
    check(&cluster);
}

// ---- what vanishes and what is killed ---------------------------------------------------------------------------------

#[test]
fn a_pod_that_vanishes_is_noticed_and_the_others_go_on() {
    let _alone = alone();
    if !ready(&["ping", "ip"]) {
        return;
    }
    let cluster = Cluster::up("vanish", &[]);
    let sleeper = cluster.spawn("gamma", &["sleep", "1000"]);
    let inner = inside(&sleeper);
    let ping = Pinging::start(&cluster, "alpha", "10.244.0.3", 60);
    // Its first process only: the name would keep the namespace.
    kill(pause_of(&cluster, "default/gamma"), Signal::SIGKILL).unwrap();
    until("the port is gone", || state(&cluster, "default/gamma") == "gone");
    let told = |what: &str| events(&cluster).iter().filter(|text| text.contains(what)).count();
    until("it is told", || told("default/gamma has ended") == 1);
    until("its processes are gone", || inner.iter().all(|pid| kill(*pid, None).is_err()));
    let netns = format!("/run/netns/{}.default.gamma", cluster.name);
    until("its name is gone", || !Path::new(&netns).exists());
    // The namespace first, and then the process.
    let netns = format!("{}.host.outside", cluster.name);
    success("ip netns del", &Command::new("ip").args(["netns", "del", &netns]).output().unwrap());
    kill(pause_of(&cluster, "host/outside"), Signal::SIGKILL).unwrap();
    until("the port is gone", || state(&cluster, "host/outside") == "gone");
    until("it is told", || told("host/outside") > 0);
    ping.lost_nothing();
    assert_eq!(state(&cluster, "default/alpha"), "up");
    assert_eq!((told("default/gamma"), told("host/outside")), (1, 1), "{:?}", events(&cluster));
    let refused = cluster.exec("gamma", &["true"]);
    assert_eq!(refused.status.code(), Some(125), "{}", both(&refused));
    assert!(both(&refused).contains("it is gone"), "{}", both(&refused));
    // Nobody answers for it any more.
    assert!(!cluster.exec("alpha", &["ping", "-c", "1", "-W", "1", "10.244.1.2"]).status.success());
    check(&cluster);
}

#[test]
fn a_capture_at_a_port_that_vanishes_ends_with_its_reader() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("capture", &[]);
    let file = cluster.state.join("capture.pcapng");
    let mut command = cluster.command(&["capture", "gamma", "-w", file.to_str().unwrap()]);
    let mut capture = Running::start(&mut command);
    until("the capture has begun", || fs::metadata(&file).is_ok_and(|m| m.len() > 0));
    cluster.must("alpha", &["ping", "-c", "2", "10.244.1.2"]);
    kill(pause_of(&cluster, "default/gamma"), Signal::SIGKILL).unwrap();
    until("the port is gone", || state(&cluster, "default/gamma") == "gone");
    assert!(capture.status().success());
    assert!(fs::metadata(&file).unwrap().len() > 400);
    let again = cluster.verb(&["capture", "gamma", "-c", "1", "-w", "/dev/null"]);
    assert!(!again.status.success() && both(&again).contains("gone"), "{}", both(&again));
}

#[test]
fn captures_of_one_port_do_not_disturb_each_other() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("captures", &[]);
    let size = |file: &Path| fs::metadata(file).map_or(0, |m| m.len());
    let [long, short] = ["long", "short"].map(|name| cluster.state.join(format!("{name}.pcapng")));
    let begin = |port: &str, file: &Path, more: &[&str]| {
        let capture = Running::start(cluster.command(&["capture", port, "-w"]).arg(file).args(more));
        until("the capture has begun", || size(file) > 0);
        capture
    };
    let mut all = begin("any", &long, &[]);
    let mut few = begin("alpha", &short, &["-c", "2"]);
    let echo = || cluster.must("alpha", &["ping", "-c", "2", "-i", "0.2", "-W", "10", "10.244.0.3"]);
    echo();
    assert!(few.status().success());
    // The shorter one is over; the longer one goes on at the same port.
    sleep(600);
    let before = size(&long);
    echo();
    until("the longer capture grows", || size(&long) > before);
    assert!(all.0.try_wait().unwrap().is_none());
    kill(all.pid(), Signal::SIGINT).unwrap();
    all.status();
}

#[test]
fn down_and_signals_leave_nothing_and_a_second_up_is_told_who_holds_the_directory() {
    let _alone = alone();
    if !ready(&["ip"]) {
        return;
    }
    let interfaces = || success("ip", &Command::new("ip").args(["-o", "link"]).output().unwrap());
    let before = interfaces().lines().count();
    let cluster = Cluster::up("down", &[]);
    assert_eq!(interfaces().lines().count(), before, "no interface of a pod is ever the host's");
    let second = cluster.verb(&["up", "--name", "vst-never"]);
    assert!(!second.status.success());
    let holder = format!("process {} is already running a cluster in", cluster.pid());
    assert!(both(&second).contains(&holder), "{}", both(&second));
    let absent = cluster.exec("alpha", &["no-such-program"]);
    assert_eq!(
        cluster.verb(&["exec", "alpha", "--", "no-such-program"]).status.code(),
        Some(127),
        "{absent:?}"
    );
    let (name, state) = (cluster.name.clone(), cluster.state.clone());
    let mut program = cluster.spawn("alpha", &["sleep", "1000"]);
    let text = success("down", &cluster.verb(&["down"]));
    assert_eq!(text, format!("cluster {name} is down\n"));
    assert_nothing_left(&name, &state);
    assert!(!program.runs());
    assert_eq!(success("down", &cluster.verb(&["down"])), "nothing runs here\n");
    drop(cluster);
    assert_eq!(interfaces().lines().count(), before);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let cluster = Cluster::up("signal", &[]);
        let _program = cluster.spawn("alpha", &["sleep", "1000"]);
        kill(cluster.pid(), signal).unwrap();
        assert_nothing_left(&cluster.name, &cluster.state);
        // Dropping it looks at the status of `up`.
    }
    // In the middle of being made.
    for delay in [0, 30, 100] {
        let name = format!("vst-early-{}-{delay}", std::process::id());
        let state = std::env::temp_dir().join(&name);
        let mut up = Command::new(executable());
        up.args(["up", "--name", &name, "--grace-ms", "0", "--state-dir"]).arg(&state).stdout(Stdio::null());
        let mut up = Running::start(&mut up);
        sleep(delay);
        kill(up.pid(), Signal::SIGINT).unwrap();
        up.status();
        assert_nothing_left(&name, &state);
        let _ = fs::remove_dir_all(&state);
    }
}

#[test]
fn what_a_killed_vswitch_left_is_reclaimed_by_up_by_down_and_by_time() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("killed", &[]);
    let name = cluster.name.clone();
    let killed = cluster.kill();
    assert!(!left_of(&name).is_empty(), "pods outlive vswitch, to be adopted or reclaimed");
    let cluster = Cluster::up_as(&name, &[]);
    cluster.must("alpha", &["ping", "-c", "1", "-W", "10", "10.244.1.2"]);
    drop(cluster);
    drop(killed);

    let killed = Cluster::up("left", &[]).kill();
    let mut down = Command::new(executable());
    let text = success("down", &down.args(["down", "--state-dir"]).arg(&killed.state).output().unwrap());
    assert!(text.contains("ended the helper") && text.contains("nothing runs here"), "{text}");
    assert_nothing_left(&killed.name, &killed.state);
    drop(killed);

    let killed = Cluster::up("grace", &["--grace-ms", "500"]).kill();
    until("all processes and namespaces are gone", || left_of(&killed.name).is_empty());
    // The socket of a dead process and nothing else.
    fs::remove_file(killed.state.join("control.sock")).unwrap();
    assert_nothing_left(&killed.name, &killed.state);
}

#[test]
fn a_killed_helper_is_noticed_and_nothing_of_it_stays() {
    let _alone = alone();
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("helper", &[]);
    kill(helper_of(&cluster), Signal::SIGKILL).unwrap();
    until("it is told", || events(&cluster).iter().any(|text| text.starts_with("the helper has ended")));
    let ports: Vec<PortView> = client(&cluster).get("/v1/ports").unwrap();
    let pods = ports.iter().filter(|p| p.port.contains('/'));
    assert!(pods.clone().count() > 5 && pods.clone().all(|p| p.state == "gone"), "{ports:?}");
    let namespaces = || left_of(&cluster.name).iter().any(|left| left.starts_with("namespace"));
    until("the names are gone", || !namespaces());
    assert!(both(&cluster.exec("alpha", &["true"])).contains("it is gone"));
    assert_eq!(success("down", &cluster.verb(&["down"])), format!("cluster {} is down\n", cluster.name));
    assert_nothing_left(&cluster.name, &cluster.state);
    drop(cluster);

    // Both at once, so that nobody notices anything.
    let cluster = Cluster::up("both", &[]);
    let helper = helper_of(&cluster);
    kill(cluster.pid(), Signal::SIGSTOP).unwrap();
    kill(helper, Signal::SIGKILL).unwrap();
    let killed = cluster.kill();
    let mut down = Command::new(executable());
    let text = success("down", &down.args(["down", "--state-dir"]).arg(&killed.state).output().unwrap());
    assert!(text.contains(&format!("removed the namespace {}.default.alpha", killed.name)), "{text}");
    assert_nothing_left(&killed.name, &killed.state);
}

// ---- clients that hang ------------------------------------------------------------------------------------------------

#[test]
fn clients_that_hang_stop_nothing() {
    let _alone = alone();
    if !ready(&["iperf3", "ss", "ping"]) {
        return;
    }
    let cluster = Cluster::up("hang", &[]);
    let _server = iperf_server(&cluster, "beta");
    let socket = cluster.state.join("control.sock");
    let half: Vec<UnixStream> = (0..20)
        .map(|_| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(b"GET /v1/ports HTTP/1.1\r\nHost: vsw").unwrap();
            stream
        })
        .collect();
    // A capture of everything that nobody reads.
    let mut unread = UnixStream::connect(&socket).unwrap();
    unread.write_all(b"GET /v1/capture?port=any HTTP/1.1\r\nHost: vswitch\r\n\r\n").unwrap();
    let mut first = [0; 12];
    unread.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let _stream = cluster.spawn("alpha", &["iperf3", "-t", "60", "-c", "10.244.0.3"]);
    until("the stream flows", || rates(&cluster, "node-1", "default/beta", 1, 100)[0] > 1e6);
    sleep(1500);
    let before = resident_kib(cluster.pid());
    let during = rates(&cluster, "node-1", "default/beta", 6, 300);
    assert!(during.iter().all(|rate| *rate > 1e6), "{during:?}");
    cluster.must("alpha", &["ping", "-q", "-c", "10", "-i", "0.05", "-W", "10", "10.244.1.2"]);
    let grown = resident_kib(cluster.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "the switch grew by {grown} KiB");
    assert!(before < 256 * 1024, "the switch has {before} KiB");
    assert_eq!(cluster.get("places").len(), 6);
    assert!(cluster.verb(&["trace", "alpha", "icmp 10.244.1.2"]).status.success());
    // And they do not keep it from coming down.
    success("down", &cluster.verb(&["down"]));
    assert_nothing_left(&cluster.name, &cluster.state);
    drop((half, unread));
}

// ---- in memory, and without rights ----------------------------------------------------------------------------------

#[test]
fn the_demo_in_memory_needs_nothing_and_leaves_nothing() {
    let _alone = alone();
    let mut demo = Command::new(executable());
    demo.args(["demo", "--require", "memory", "--mib", "2"]);
    let demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let directory = demo_directory(demo.id());
    let text = success("demo", &demo.wait_with_output().unwrap());
    assert!(!directory.exists());
    assert!(text.contains("All conversations were intact."), "{text}");
    let conversations = text.lines().filter(|line| line.contains("Gbit/s")).count();
    assert_eq!(conversations, 12, "six pairs, two families: {text}");
    assert!(!text.contains("FAILED") && text.contains("accounted for"), "{text}");
}

fn demo_directory(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("vswitch-demo-{pid}"))
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let _alone = alone();
    if !ready(&[]) {
        return;
    }
    for (signal, delay) in [(Signal::SIGINT, 100), (Signal::SIGTERM, 1500), (Signal::SIGKILL, 1500)] {
        let mut demo = Command::new(executable());
        demo.args(["demo", "--require", "tap", "--mib", "1024"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = Running::start(&mut demo);
        let name = format!("demo-{}", demo.pid());
        sleep(delay);
        kill(demo.pid(), signal).unwrap();
        let status = demo.status();
        if signal == Signal::SIGKILL {
            // The helper cannot remove a directory that is not its own.
            fs::remove_dir_all(demo_directory(demo.0.id())).unwrap();
        } else {
            assert_eq!(status.code(), Some(128 + signal as i32));
        }
        until("all processes and namespaces are gone", || left_of(&name).is_empty());
        assert!(!demo_directory(demo.0.id()).exists());
    }
}

/// An ordinary user with a home of its own, and `/dev/net/tun` as udev leaves it or closed, until it is dropped.
struct User {
    home: PathBuf,
    tun: fs::Permissions,
}

impl User {
    fn new(tun: u32) -> Self {
        let home = std::env::temp_dir().join(format!("vst-user-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(executable(), home.join("vswitch")).unwrap();
        fs::create_dir(home.join("tmp")).unwrap();
        std::os::unix::fs::chown(home.join("tmp"), Some(65534), Some(65534)).unwrap();
        let before = fs::metadata("/dev/net/tun").unwrap().permissions();
        fs::set_permissions("/dev/net/tun", fs::Permissions::from_mode(tun)).unwrap();
        Self { home, tun: before }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(self.home.join("vswitch"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("TMPDIR", self.home.join("tmp"))
            .env("VSWITCH_STATE_DIR", self.state())
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    fn state(&self) -> PathBuf {
        self.home.join("tmp/state")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn demo(&self, arguments: &[&str]) -> Output {
        let output = self.run(&[&["demo", "--mib", "2"], arguments].concat());
        let left: Vec<_> = fs::read_dir(self.home.join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?} after {arguments:?}");
        output
    }
}

impl Drop for User {
    fn drop(&mut self) {
        fs::set_permissions("/dev/net/tun", self.tun.clone()).unwrap();
        let _ = fs::remove_dir_all(&self.home);
    }
}

#[test]
fn an_ordinary_user_has_pods_of_its_own() {
    let _alone = alone();
    if !ready(&["setpriv", "ping"]) {
        return;
    }
    let user = User::new(0o666);
    let text = success("demo", &user.demo(&["--require", "tap"]));
    assert!(text.contains("on network namespaces with TAP devices"), "{text}");
    assert!(text.contains("All conversations were intact."), "{text}");

    let name = format!("vst-u-{}", std::process::id());
    let log = user.home.join("log");
    let mut up = user.command(&["up", "--require", "tap", "--name", &name]);
    let mut up = Running::start(up.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()));
    until("the cluster answers", || user.run(&["get", "pods"]).status.success());
    let ping = ["exec", "alpha", "--", "ping", "-c", "3", "-i", "0.2", "-W", "10"];
    for to in ["10.244.1.2", "fd00:10:244:1::2", "192.168.10.200"] {
        let text = success("ping", &user.run(&[&ping[..], &[to]].concat()));
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
    assert_eq!(user.run(&["exec", "alpha", "--", "no-such-program"]).status.code(), Some(127));
    // A pod that vanishes is noticed here as well.
    let places: serde_json::Value =
        serde_json::from_str(&success("get", &user.run(&["get", "pods", "-o", "json"]))).unwrap();
    let gamma = places.as_array().unwrap().iter().find(|p| p["place"] == "default/gamma").unwrap();
    kill(Pid::from_raw(gamma["pause_pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    until("it is told", || both(&user.run(&["get", "events"])).contains("default/gamma has ended"));
    assert!(both(&user.run(&["get", "ports"])).contains("gone"));
    success("ping", &user.run(&[&ping[..], &["10.244.0.3"]].concat()));
    assert_eq!(success("down", &user.run(&["down"])), format!("cluster {name} is down\n"));
    assert!(up.status().success(), "{}", fs::read_to_string(&log).unwrap());
    assert_nothing_left(&name, &user.state());
    success("doctor", &user.run(&["doctor"]));
}

#[test]
fn a_user_without_tun_is_told_and_has_memory_links() {
    let _alone = alone();
    if !ready(&["setpriv"]) {
        return;
    }
    let user = User::new(0o600);
    let output = user.demo(&[]);
    let text = success("demo", &output);
    assert!(text.contains("in-process pods on memory links"), "{text}");
    assert!(text.contains("no TAP devices") && text.contains("/dev/net/tun"), "{text}");
    assert!(text.contains("All conversations were intact."), "{text}");
    for arguments in [&["demo", "--require", "tap"][..], &["up", "--require", "tap"]] {
        let refused = user.run(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
        let text = both(&refused);
        assert!(text.contains("/dev/net/tun") && text.contains("vswitch doctor"), "{text}");
        assert!(text.contains("chmod 0666 /dev/net/tun"), "{text}");
    }
    let doctor = user.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    let text = both(&doctor);
    assert!(text.contains("FAIL  TUN/TAP") && text.contains("-> as root: chmod 0666 /dev/net/tun"), "{text}");

    // `up` says what it does instead, and what does not work then.
    let mut up = user.command(&["up"]);
    let mut up = Running::start(up.stdout(Stdio::piped()));
    until("the cluster answers", || user.run(&["get", "pods"]).status.success());
    let refused = user.run(&["exec", "alpha", "--", "true"]);
    assert!(both(&refused).contains("in-process pod on a memory link"), "{}", both(&refused));
    success("trace", &user.run(&["trace", "alpha", "icmp 10.244.0.3"]));
    success("down", &user.run(&["down"]));
    let mut said = String::new();
    up.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(up.status().success());
    assert!(said.contains("because TAPs cannot be used") && said.contains("vswitch doctor"), "{said}");
}
