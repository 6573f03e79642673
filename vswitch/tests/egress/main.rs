//! Pods reach the outside by sockets of whoever runs vswitch: real programs in real pods, against servers in a namespace
//! that stands for the internet. vswitch itself runs in another, which stands for the machine.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

#[path = "../common/mod.rs"]
mod common;
mod far;
mod faults;
mod kernel;
mod limits;
mod policy;
mod published;
mod traffic;
mod user;

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::{Cluster, executable, success, until};

/// The internet's addresses, and the machine's.
const INTERNET: [&str; 2] = ["198.51.100.1", "2001:db8:100::1"];
const MACHINE: [&str; 2] = ["198.51.100.2", "2001:db8:100::2"];
/// The built-in server of probes.
const PROBE: u16 = 7007;

/// One at a time: they share the names of namespaces, and each wants the processors for itself.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A machine and the internet, joined by a cable.
struct Net {
    machine: String,
    internet: String,
    _alone: MutexGuard<'static, ()>,
}

impl Net {
    fn new() -> Self {
        Self::by(|net| {
            let (machine, internet) = (&net.machine[..], &net.internet[..]);
            run(&[
                "ip", "-n", machine, "link", "add", "uplink", "type", "veth", "peer", "name", "downlink",
                "netns", internet,
            ]);
        })
        .0
    }

    /// With a link that somebody else makes, whose ends are `uplink` and `downlink`.
    fn by<L>(link: impl FnOnce(&Self) -> L) -> (Self, L) {
        let alone = alone();
        let pid = std::process::id();
        let net = Self { machine: format!("vstm-{pid}"), internet: format!("vsti-{pid}"), _alone: alone };
        for name in [&net.machine, &net.internet] {
            // One that a test left that was killed.
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
            run(&["ip", "netns", "add", name]);
        }
        let link = link(&net);
        let (machine, internet) = (&net.machine[..], &net.internet[..]);
        for (name, link, [v4, v6]) in [(machine, "uplink", MACHINE), (internet, "downlink", INTERNET)] {
            run(&["ip", "-n", name, "address", "add", &format!("{v4}/24"), "dev", link]);
            run(&["ip", "-n", name, "address", "add", &format!("{v6}/64"), "dev", link, "nodad"]);
            run(&["ip", "-n", name, "link", "set", link, "up"]);
            run(&["ip", "-n", name, "link", "set", "lo", "up"]);
        }
        run(&["ip", "-n", machine, "route", "add", "default", "via", INTERNET[0]]);
        run(&["ip", "-n", machine, "-6", "route", "add", "default", "via", INTERNET[1]]);
        let pings = "net.ipv4.ping_group_range=0 2147483647";
        run(&[&net.inside(machine)[..], &["sysctl", "-qw", pings]].concat());
        // What became of one connection says nothing of the next.
        for name in [machine, internet] {
            run(&[&net.inside(name)[..], &["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"]].concat());
        }
        (net, link)
    }

    /// What comes before a program that is to run in one of the two.
    fn inside<'a>(&self, name: &'a str) -> [&'a str; 3] {
        let path: &'static str = Box::leak(format!("--net=/run/netns/{name}").into_boxed_str());
        ["nsenter", path, "--"]
    }

    /// The built-in cluster, with more in its Cluster.
    fn cluster(&self, label: &str, more: &str) -> Cluster {
        self.cluster_by(label, &[], more)
    }

    /// The same by a program that becomes it.
    fn cluster_by(&self, label: &str, by: &[&str], more: &str) -> Cluster {
        let builtin = include_str!("../../src/objects/builtin.yaml");
        let manifest = builtin.replacen("\nspec:\n", &format!("\nspec:\n{more}"), 1);
        assert!(more.is_empty() || manifest != builtin);
        let by = [&self.inside(&self.machine)[..], by].concat();
        Cluster::of_by(label, &by, &manifest, &[])
    }

    /// Runs a program in one of the two until the value is dropped.
    fn serve(&self, name: &str, port: u16, argv: &[&str]) -> Server {
        let line = [&self.inside(name)[..], argv].concat();
        let child = Command::new(line[0]).args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let server = Server(child.unwrap());
        let filter = format!("sport = :{port}");
        let look = [&self.inside(name)[..], &["ss", "-Hltn", &filter]].concat();
        until("a server listens", || {
            let seen = Command::new(look[0]).args(&look[1..]).output().unwrap();
            !success("ss", &seen).trim().is_empty()
        });
        server
    }

    fn probes(&self, name: &str) -> Server {
        self.serve(name, PROBE, &[executable(), "__probe", "serve", &PROBE.to_string()])
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.machine, &self.internet] {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}

/// A server that ends with the value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn run(argv: &[&str]) -> String {
    success(&argv.join(" "), &Command::new(argv[0]).args(&argv[1..]).output().unwrap())
}

/// A number among the metrics.
fn metric(cluster: &Cluster, line: &str) -> u64 {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--unix-socket"]).arg(cluster.state.join("control.sock"));
    let text = success("metrics", &command.arg("http://vswitch/metrics").output().unwrap());
    let found = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
    found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line} is not in\n{text}"))
}

/// Waits until no connection is left.
fn at_rest(cluster: &Cluster) {
    until("no connection is left", || metric(cluster, r#"vswitch_egress_flows{kind="connections"}"#) == 0);
    assert_eq!(metric(cluster, "vswitch_egress_held_bytes"), 0);
}

/// Descriptors that `vswitch up` has open.
fn descriptors(cluster: &Cluster) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cluster.pid())).unwrap().count()
}

/// Processor time that `vswitch up` has taken, in hundredths of a second.
fn ticks(cluster: &Cluster) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", cluster.pid())).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Has datagrams exchanged, one at a time, until all of them have come back. One that takes a second is lost to its sender,
/// and those behind it are each taken for the one before: a machine that has much else to do gets another try.
#[track_caller]
fn all_come_back(what: &str, mut exchange: impl FnMut() -> String) {
    let mut text = String::new();
    for _ in 0..4 {
        text = exchange();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        if report["sent"] == report["received"] {
            return;
        }
    }
    panic!("{what}: {text}");
}

fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
