//! What coturn's `turnutils_natdiscovery` finds out about us, between namespaces with kernels of their own: how we map, who
//! may use a mapping (RFC 5780), and whether who is inside reaches another's mapping from inside. And what it finds out
//! about a Linux router that masquerades, where the last does not work.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::fs::File;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::nat::{
    Behaviour, Filtering, NatConfig, NatMatch, PoolConfig, SourceNat, SourceRule, Timeouts,
};
use netstack::config::{Config, GatewayConfig, Limits, PortConfig, SegmentConfig, Snapshot, VlanMode};
use netstack::device::tap::{Mode, Tap};
use netstack::driver::{Clock, Driver, DriverHandle};
use netstack::frame::FramePool;
use netstack::seed::Seed;
use netstack::switch::Switch;
use nix::sched::{CloneFlags, setns};
use vswitch_tests::{run, skip};

/// Addresses of one family: the client and its router, the router outside and the server's two.
struct Net {
    client: &'static str,
    inside: &'static str,
    outside: &'static str,
    servers: [&'static str; 2],
    length: u8,
}

const NETS: [Net; 2] = [
    Net {
        client: "10.77.0.2",
        inside: "10.77.0.1",
        outside: "198.18.0.1",
        servers: ["198.18.0.2", "198.18.0.3"],
        length: 24,
    },
    Net {
        client: "fd77::2",
        inside: "fd77::1",
        outside: "2001:db8:78::1",
        servers: ["2001:db8:78::2", "2001:db8:78::3"],
        length: 64,
    },
];

/// A namespace that is gone with this, and a name for it.
struct Namespace(String);

impl Namespace {
    fn new(test: &str, role: &str) -> Self {
        let name = format!("nd-{}-{test}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let namespace = Self(name);
        namespace.ip("link set lo up");
        namespace
    }

    fn ip(&self, arguments: &str) {
        let arguments: Vec<&str> = ["-n", &self.0].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &arguments);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// A TAP in here, with these addresses.
    fn tap(&self, mac: MacAddr, addresses: &[String]) -> Tap {
        let path = format!("/run/netns/{}", self.0);
        let tap = thread::spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            Tap::open("eth0", Mode::Plain).unwrap()
        });
        let tap = tap.join().unwrap();
        self.ip(&format!("link set eth0 address {mac}"));
        self.configure("eth0", addresses);
        tap
    }

    fn configure(&self, link: &str, addresses: &[String]) {
        self.ip(&format!("link set {link} up"));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("address add {address} dev {link}{nodad}"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A process that is ended with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_length(address: &str, net: &Net) -> String {
    format!("{address}/{}", net.length)
}

fn client_addresses() -> Vec<String> {
    NETS.iter().map(|net| with_length(net.client, net)).collect()
}

fn server_addresses() -> Vec<String> {
    NETS.iter().flat_map(|net| net.servers.map(|server| with_length(server, net))).collect()
}

/// What stands between the two: a router of some kind.
enum Router {
    Ours(Filtering),
    Linux,
}

/// A driver with a switch that is ended with this.
struct Running(DriverHandle, Option<thread::JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
        let _ = self.1.take().map(thread::JoinHandle::join);
    }
}

fn switch(filtering: Filtering) -> Switch {
    let mac = |id| MacAddr::local(id);
    let nets = |of: fn(&Net) -> &'static str| -> Vec<IpNet> {
        NETS.iter().map(|net| with_length(of(net), net).parse().unwrap()).collect()
    };
    let routed = |id: u16, name: &str, addresses| SegmentConfig {
        gateway: Some(GatewayConfig::new(mac(u64::from(id) + 1), addresses)),
        ..SegmentConfig::new(SegmentId(id), name)
    };
    let port = |id| PortConfig::new(PortId(id), format!("port{id}"), VlanMode::Access(SegmentId(id)));
    let outside: Vec<IpAddr> = NETS.iter().map(|net| net.outside.parse().unwrap()).collect();
    let rule = |net: &Net| {
        let inside: IpNet = with_length(net.inside, net).parse().unwrap();
        let matches =
            NatMatch { egress: Some(SegmentId(1)), sources: vec![inside.trunc()], ..NatMatch::default() };
        SourceRule { matches, action: SourceNat::Pool("outside".into()) }
    };
    let nat = NatConfig {
        behaviour: Behaviour { filtering, ..Behaviour::strict() },
        timeouts: Timeouts::rfc(),
        pools: vec![PoolConfig::new("outside", outside)],
        source: NETS.iter().map(rule).collect(),
        ..NatConfig::default()
    };
    let config = Config {
        ports: vec![port(0), port(1)],
        segments: vec![
            routed(0, "inside", nets(|net| net.inside)),
            routed(1, "outside", nets(|net| net.outside)),
        ],
        nat: Some(nat),
        services: None,
        ..Config::default()
    };
    let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
    switch.install(Snapshot::compile(config, None).unwrap());
    switch
}

fn ours(filtering: Filtering, client: &Namespace, server: &Namespace) -> Running {
    let taps = [
        client.tap(MacAddr::local(10), &client_addresses()),
        server.tap(MacAddr::local(20), &server_addresses()),
    ];
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        let mut driver = Driver::new(Clock::start()).unwrap();
        let engine = driver.add_engine(Box::new(switch(filtering)));
        for (id, tap) in (0..).zip(taps) {
            driver.attach(engine, PortId(id), Box::new(tap)).unwrap();
        }
        sender.send(driver.handle()).unwrap();
        driver.run().unwrap();
    });
    Running(receiver.recv().unwrap(), Some(thread))
}

/// A kernel that forwards and masquerades.
fn linux(test: &str, client: &Namespace, server: &Namespace) -> Namespace {
    let router = Namespace::new(test, "router");
    for (end, link, addresses) in [(client, "in0", client_addresses()), (server, "out0", server_addresses())]
    {
        router.ip(&format!("link add {link} type veth peer name eth0 netns {}", end.0));
        let own =
            NETS.iter().map(|net| with_length(if link == "in0" { net.inside } else { net.outside }, net));
        router.configure(link, &own.collect::<Vec<_>>());
        end.configure("eth0", &addresses);
    }
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        assert!(router.command("sysctl").args(["-qw", setting]).status().unwrap().success());
    }
    for family in ["ip", "ip6"] {
        let rules = format!(
            "add table {family} nat; add chain {family} nat post {{ type nat hook postrouting priority srcnat; }}; \
             add rule {family} nat post oifname out0 masquerade"
        );
        assert!(router.command("nft").arg(rules).status().unwrap().success());
    }
    router
}

/// What the discovery prints, its parts for mapping, filtering and hairpinning.
fn discover(name: &str, router: &Router, net: &Net) -> String {
    let (client, server) = (Namespace::new(name, "client"), Namespace::new(name, "server"));
    let _router: (Option<Running>, Option<Namespace>) = match router {
        Router::Ours(filtering) => (Some(ours(*filtering, &client, &server)), None),
        Router::Linux => (None, Some(linux(name, &client, &server))),
    };
    for net in &NETS {
        client.ip(&format!("route add default via {}", net.inside));
    }
    let [first, second] = net.servers;
    let mut command = server.command("turnserver");
    command.args([
        "-n",
        "--no-tls",
        "--no-dtls",
        "--no-cli",
        "-z",
        "-L",
        first,
        "-L",
        second,
        "--log-file",
        "stdout",
    ]);
    let _server = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let listens = || {
        let sockets = server.command("ss").arg("-Hlun").output().unwrap();
        String::from_utf8_lossy(&sockets.stdout).contains(first)
    };
    let waited =
        (0..300).take_while(|_| !listens()).map(|_| thread::sleep(Duration::from_millis(100))).count();
    assert!(waited < 300, "{name}: turnserver does not listen");
    let output = client
        .command("turnutils_natdiscovery")
        .args(["-m", "-f", "-H", "-L", net.client, first])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The part of the report under a heading.
fn part<'a>(report: &'a str, heading: &str) -> &'a str {
    let from = report.find(heading).unwrap_or_else(|| panic!("no {heading:?} in: {report}"));
    let rest = &report[from + heading.len()..];
    rest.find("-= ").map_or(rest, |end| &rest[..end])
}

#[test]
fn nat_1_and_2_and_12_discovery_finds_what_was_configured_and_a_hairpin_that_linux_lacks() {
    if !nix::unistd::geteuid().is_root() {
        return skip("natdiscovery", "network namespaces need root");
    }
    for tool in ["turnserver", "turnutils_natdiscovery", "nft"] {
        if Command::new("which").arg(tool).output().is_ok_and(|o| !o.status.success()) {
            return skip(
                "natdiscovery",
                &format!("{tool} is not installed (Debian packages coturn, nftables)"),
            );
        }
    }
    let dependent = "NAT with Address and Port Dependent Filtering!";
    let routers = [
        (
            "eif",
            Router::Ours(Filtering::EndpointIndependent),
            "NAT with Endpoint Independent Filtering!",
            true,
        ),
        ("adf", Router::Ours(Filtering::AddressDependent), "NAT with Address Dependent Filtering!", true),
        ("apdf", Router::Ours(Filtering::AddressAndPortDependent), dependent, true),
        ("linux", Router::Linux, dependent, false),
    ];
    let runs: Vec<_> = routers
        .iter()
        .flat_map(|router| NETS.iter().zip(["v4", "v6"]).map(move |(net, family)| (router, net, family)))
        .collect();
    thread::scope(|scope| {
        for ((name, router, filtering, hairpin), net, family) in runs {
            scope.spawn(move || {
                let name = format!("{name}{family}");
                let report = discover(&name, router, net);
                let mapping = part(&report, "-= Mapping Behavior Discovery =-");
                assert!(mapping.contains("NAT with Endpoint Independent Mapping!"), "{name}: {report}");
                assert!(
                    part(&report, "-= Filtering Behavior Discovery =-").contains(filtering),
                    "{name}: {report}"
                );
                let works =
                    !part(&report, "-= Hairpinning Behavior Discovery =-").contains("receive timeout");
                assert_eq!(works, *hairpin, "{name}: {report}");
                eprintln!(
                    "{name}: endpoint independent mapping; {filtering} hairpin {}",
                    if works { "works" } else { "fails" }
                );
            });
        }
    });
}
