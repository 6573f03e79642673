//! A long way to the outside: what TCP makes of it is not less for the edge in between.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::thread::JoinHandle;

use netstack::addr::PortId;
use netstack::device::fault::{Fault, LinkProfile, Probability};
use netstack::device::tap::{Mode, Tap};
use netstack::driver::{Clock, Driver, DriverHandle, Engine};
use netstack::event::Event;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::seed::Seed;
use nix::sched::{CloneFlags, setns};

use super::*;
use crate::common::ready;

/// Octets a second: 100 Mbit/s.
const RATE: u64 = 12_500_000;
/// Seconds for which is looked at how much goes, after those in which TCP finds out how much that is.
const LOOKED: &str = "3";

/// Carries what comes in at one port to the other.
struct Cable {
    ways: [VecDeque<Frame>; 2],
    pool: FramePool,
}

impl Engine for Cable {
    fn handle_frames(&mut self, _now: Duration, port: PortId, batch: &mut FrameBatch) {
        self.ways[1 - usize::from(port.0)].extend(batch.drain());
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        for (port, way) in [PortId(0), PortId(1)].into_iter().zip(&mut self.ways) {
            while !batch.is_full()
                && let Some(frame) = way.pop_front()
            {
                assert!(batch.push(frame).is_ok(), "there is room");
            }
            if !batch.is_empty() {
                return Some(port);
            }
        }
        None
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

/// The link of the machine to the internet, as long as the value lives.
struct Link {
    handle: DriverHandle,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Link {
    /// Makes `uplink` and `downlink`, between which a frame is on its way for half of `round_trip`.
    fn new(net: &Net, round_trip: Duration, loss: Probability) -> Self {
        let tap = |namespace: &str, name: &str| {
            let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
            let name = name.to_owned();
            // A thread that has been there cannot come back, and need not.
            let open = move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                Tap::open(&name, Mode::Plain).unwrap()
            };
            std::thread::spawn(open).join().unwrap()
        };
        let (near, far) = (tap(&net.machine, "uplink"), tap(&net.internet, "downlink"));
        let clock = Clock::start();
        let seed = Seed::from_u64(1);
        let delay = round_trip / 2;
        let queue_bytes =
            usize::try_from(RATE).unwrap() * usize::try_from(round_trip.as_millis()).unwrap() / 1000;
        let profile = LinkProfile {
            rate: RATE,
            loss,
            delay,
            queue_bytes: queue_bytes.max(256 * 1024),
            ..LinkProfile::PERFECT
        };
        let near = Fault::new(near, profile, profile, &seed, move || clock.now());
        let (handle, thread) = Driver::spawn(clock, "cable", |driver| {
            let cable = driver.add_engine(Box::new(Cable {
                ways: [VecDeque::new(), VecDeque::new()],
                pool: FramePool::new(),
            }));
            driver.attach(cable, PortId(0), Box::new(near))?;
            driver.attach(cable, PortId(1), Box::new(far))
        })
        .unwrap();
        Self { handle, thread: Some(thread) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.handle.stop();
        let _ = self.thread.take().unwrap().join();
    }
}

/// A server in the internet: says so much for an octet `d`, hears so much for a `u`, and says how many octets a second that
/// were once it had settled.
const SERVER: &str = r#"
import socket, sys, threading
s = socket.create_server(("::", 9100), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(c):
    try:
        if c.recv(1) == b"d":
            piece = bytes(65536)
            while True: c.sendall(piece)
        while c.recv(1 << 20): pass
    except OSError: pass
    c.close()
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"#;

/// In the pod: octets a second after `settle` seconds, for some seconds.
const CLIENT: &str = r#"
import socket, sys, time
host, way, settle, looked = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
s = socket.create_connection((host, 9100))
s.sendall(way.encode())
piece, total, base, begun = bytes(65536), 0, None, time.monotonic()
while True:
    total += len(s.recv(1 << 20)) if way == "d" else s.send(piece)
    now = time.monotonic() - begun
    if base is None and now >= settle: base, at = total, now
    if base is not None and now >= at + looked: break
print(int((total - base) / (now - at)))
"#;

fn client<'a>(way: &'a str, settle: &'a str) -> [&'a str; 7] {
    ["python3", "-c", CLIENT, INTERNET[0], way, settle, LOOKED]
}

fn rate(cluster: &Cluster, way: &str, settle: &str) -> u64 {
    cluster.must("alpha", &client(way, settle)).trim().parse().unwrap()
}

/// Whether so much of the way is made use of. A machine that has much else to do gets other tries; false, which it says, where
/// it does not make that use of the way itself either.
fn is_used(cluster: &Cluster, net: &Net, [way, settle]: [&str; 2], enough: u64, what: &str) -> bool {
    let itself = || -> u64 {
        let words = [&net.inside(&net.machine)[..], &client(way, settle)].concat();
        run(&words).trim().parse().unwrap()
    };
    let mut tries = Vec::new();
    while tries.len() < 4 {
        let reached = rate(cluster, way, settle);
        if reached >= enough {
            let _ = writeln!(std::io::stderr(), "{what}: {reached} of {RATE} octets/s, after {tries:?}");
            return true;
        }
        tries.push((reached, itself()));
    }
    let able = tries.iter().filter(|(_, itself)| *itself >= enough).count();
    assert!(able < 2, "{what}: {tries:?} octets/s of {RATE}, the second of each pair by the machine itself");
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {what}: of {RATE} octets/s this machine has {tries:?}, the second of each pair without the switch"
    );
    false
}

#[test]
fn a_long_way_is_filled() {
    if !ready(&["ip", "nsenter", "ss", "python3", "curl", "sysctl"]) {
        return;
    }
    for (round_trip, settle) in [(10, "1"), (50, "1.5"), (200, "4")] {
        let (net, _link) =
            Net::by(|net| Link::new(net, Duration::from_millis(round_trip), Probability::NEVER));
        let cluster = net.cluster("far", "");
        let _server = net.serve(&net.internet, 9100, &["python3", "-c", SERVER]);
        for way in ["d", "u"] {
            let what = format!("{way} at {round_trip} ms");
            if !is_used(&cluster, &net, [way, settle], RATE * 8 / 10, &what) {
                return;
            }
        }
        let text = cluster.must("alpha", &["ip", "-s", "-j", "link", "show", "eth0"]);
        let link: serde_json::Value = serde_json::from_str(&text).unwrap();
        let counts = &link[0]["stats64"];
        assert_eq!(counts["rx"]["dropped"], 0, "{text}");
        assert_eq!(counts["tx"]["dropped"], 0, "{text}");
    }
}

#[test]
fn a_way_that_loses_now_and_then_goes_on() {
    if !ready(&["ip", "nsenter", "ss", "python3", "curl", "sysctl"]) {
        return;
    }
    let loss = Probability::per_million(1000);
    let (net, _link) = Net::by(|net| Link::new(net, Duration::from_millis(10), loss));
    let cluster = net.cluster("lossy", "");
    let _server = net.serve(&net.internet, 9100, &["python3", "-c", SERVER]);
    for way in ["d", "u"] {
        // What TCP gets out of such a way (RFC 3649 section 1) is far more; this is that it does not stand still.
        is_used(&cluster, &net, [way, "1"], RATE / 20, &format!("{way} with losses"));
    }
    assert_eq!(
        metric(&cluster, "vswitch_egress_retransmitted_total"),
        0,
        "that is the machine's to make good"
    );
}
