//! `vswitch demo`: the built-in cluster, real traffic through it, and an account of what happened.

use std::io::{self, BufRead as _, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use netstack::driver::Latency;

use crate::cluster::Place;
use crate::control::table;
use crate::ephemeral::{self, Ephemeral};
use crate::helper::exec::Enter;
use crate::objects::builtin;
use crate::probe::{PORT, Report};
use crate::progress;
use crate::runtime::{Exchange, Kind, Mode, PacketSpec, Runtime, RuntimeError};

/// How long one conversation may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PINGS: u64 = 5;
const DATAGRAMS: u64 = 100;
const DATAGRAM_SIZE: usize = 1000;

/// Who talks to whom.
const PAIRS: &[(&str, &str, &str)] = &[
    ("alpha", "beta", "two pods on one node"),
    ("alpha", "gamma", "pods on two nodes"),
    ("gamma", "host/outside", "a pod to a machine outside"),
    ("host/outside", "alpha", "a machine outside to a pod"),
    ("alpha", "node/node-2", "a pod to another node"),
    ("node/node-1", "gamma", "a node to a pod elsewhere"),
];

/// How to run the demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// What pods are made of.
    pub mode: Mode,
    /// Whether TAPs carry super-frames.
    pub offload: bool,
    /// The largest IP packet on every link.
    pub mtu: u16,
    /// What the data path pays for a short way from pod to pod.
    pub latency: Latency,
    /// How many threads move frames.
    pub threads: NonZeroUsize,
    /// Octets of each TCP conversation, each way.
    pub bytes: u64,
    /// Whether to show what is being done on standard error.
    pub progress: bool,
}

/// Runs the demo and writes its account.
///
/// # Errors
/// When the cluster cannot be started or stopped. Conversations that fail are told in the account and by the exit code.
pub fn run(options: &Options, out: &mut impl Write) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut cluster = builtin(&ephemeral::name("demo"));
    cluster.set_mtu(options.mtu);
    let Options { mode, offload, latency, threads, .. } = *options;
    let cluster = Ephemeral::start(cluster, mode, offload, latency, threads)?;
    let told = Demo { runtime: cluster.runtime(), options, servers: Vec::new() }.tell(out);
    let problems = cluster.stop();
    for problem in &problems {
        writeln!(out, "left behind: {problem}")?;
    }
    let good = told? && problems.is_empty();
    writeln!(
        out,
        "{}",
        if good { "All conversations were intact." } else { "Something went wrong, see above." }
    )?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Demo<'a> {
    runtime: &'a Runtime,
    options: &'a Options,
    servers: Vec<Child>,
}

impl Demo<'_> {
    fn tell(mut self, out: &mut impl Write) -> Result<bool, Box<dyn std::error::Error>> {
        self.introduce(out)?;
        if self.runtime.mode() == "tap" {
            self.start_servers()?;
        }
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        for (from, to, why) in PAIRS {
            let (from, to): (Place, Place) = (from.parse()?, to.parse()?);
            let addresses =
                self.runtime.cluster().addresses(&to).ok_or("the built-in cluster names all")?.to_vec();
            for address in addresses {
                self.progress(&format!("{from} to {to} ({address})"));
                rows.push(self.converse(&from, &to, address, why, &mut failures));
            }
        }
        self.progress("");
        let header = ["FROM", "TO", "ADDRESS", "PING", "UDP", "TCP EACH WAY, SHA-256 EQUAL", "PATH", "WHAT"];
        writeln!(out, "\n{}", table::render(&header, &rows))?;
        for failure in &failures {
            writeln!(out, "FAILED: {failure}")?;
        }
        let accounted = self.account(out)?;
        Ok(failures.is_empty() && accounted)
    }

    fn introduce(&self, out: &mut impl Write) -> io::Result<()> {
        let runtime = self.runtime;
        let what = match runtime.mode() {
            "tap" => "network namespaces with TAP devices",
            _ => "in-process pods on memory links",
        };
        let dual = runtime.places().iter().any(|p| p.addresses.iter().any(IpAddr::is_ipv6));
        let families = if dual { "dual stack" } else { "IPv4 only" };
        writeln!(out, "Two nodes, {families}, on {what}, MTU {}:", self.options.mtu)?;
        if let Some(reason) = runtime.fallback() {
            writeln!(out, "(no TAP devices: {reason}; `vswitch doctor` says what to do)")?;
        }
        for place in runtime.places() {
            let addresses: Vec<String> = place.addresses.iter().map(ToString::to_string).collect();
            writeln!(out, "  {:<16} {} on {}", place.place, addresses.join(", "), place.switch)?;
        }
        Ok(())
    }

    fn progress(&self, text: &str) {
        if self.options.progress {
            progress::show(text);
        }
    }

    /// A server in every namespace that is talked to.
    fn start_servers(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        for place in self.runtime.cluster().places() {
            let mut command =
                self.enter(&place)?.arguments(["__probe", "serve", &PORT.to_string()]).command();
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let mut line = String::new();
            let stdout = child.stdout.take().ok_or("the server has a standard output")?;
            self.servers.push(child);
            BufReader::new(stdout).read_line(&mut line)?;
            if line.trim() != "ready" {
                return Err(format!("the server in {place} did not start").into());
            }
        }
        Ok(())
    }

    fn enter(&self, place: &Place) -> Result<Enter, RuntimeError> {
        let namespace = self.runtime.namespace(place)?;
        Ok(Enter::new(namespace.target(), std::env::current_exe()?))
    }

    /// All kinds of traffic from one place to one address; a row of the account.
    fn converse(
        &self,
        from: &Place,
        to: &Place,
        address: IpAddr,
        why: &str,
        failures: &mut Vec<String>,
    ) -> Vec<String> {
        let socket = SocketAddr::new(address, PORT);
        let mut ask = |what: &str, exchange: Exchange| match self.exchange(from, exchange) {
            Ok(report) if report.received == report.sent => Some(report),
            Ok(report) => {
                failures.push(format!(
                    "{what} from {from} to {address}: {} of {} came back",
                    report.received, report.sent
                ));
                Some(report)
            }
            Err(error) => {
                failures.push(format!("{what} from {from} to {address}: {error}"));
                None
            }
        };
        let messages = |report: Option<Report>| match report {
            Some(r) => format!("{}/{} {:.0} µs", r.received, r.sent, r.median_rtt * 1e6),
            None => "failed".to_owned(),
        };
        let ping = messages(ask("ping", Exchange::Ping { to: address, count: PINGS, size: 56 }));
        let size = DATAGRAM_SIZE.min(usize::from(self.options.mtu) - 48);
        let udp = messages(ask("UDP", Exchange::Udp { to: socket, count: DATAGRAMS, size }));
        let tcp = ask("TCP", Exchange::Tcp { to: socket, bytes: self.options.bytes }).map_or_else(
            || "failed".to_owned(),
            |r| format!("{} in {:.2} s, {:.2} Gbit/s", table::bytes(r.bytes / 2), r.seconds, rate(&r)),
        );
        let path = self.path(from, address).unwrap_or_else(|e| e.to_string());
        vec![from.to_string(), to.to_string(), address.to_string(), ping, udp, tcp, path, why.to_owned()]
    }

    fn exchange(&self, from: &Place, exchange: Exchange) -> Result<Report, String> {
        if self.runtime.mode() == "memory" {
            return self.runtime.exchange(from, exchange, PATIENCE);
        }
        let arguments = match exchange {
            Exchange::Tcp { to, bytes } => vec!["tcp".to_owned(), to.to_string(), bytes.to_string()],
            Exchange::Udp { to, count, size } => {
                vec!["udp".to_owned(), to.to_string(), count.to_string(), size.to_string()]
            }
            Exchange::Ping { to, count, size } => {
                vec!["ping".to_owned(), to.to_string(), count.to_string(), size.to_string()]
            }
        };
        let enter = self.enter(from).map_err(|e| e.to_string())?.arguments(["__probe"]).arguments(arguments);
        let output = enter.command().stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
    }

    /// The switches on the way, by their own account.
    fn path(&self, from: &Place, destination: IpAddr) -> Result<String, RuntimeError> {
        let view = self.runtime.trace(from, &PacketSpec { kind: Kind::Tcp(PORT), destination })?;
        let hops: Vec<&str> = view.hops.iter().map(|h| h.switch.as_str()).collect();
        Ok(hops.join(" > "))
    }

    /// Drops by reason, and whether every frame has a fate.
    fn account(&self, out: &mut impl Write) -> Result<bool, Box<dyn std::error::Error>> {
        let drops = self.runtime.drops()?;
        if drops.is_empty() {
            writeln!(out, "No frame was dropped.")?;
        } else {
            let rows: Vec<Vec<String>> = drops
                .iter()
                .map(|d| {
                    vec![
                        d.switch.clone(),
                        d.port.clone(),
                        d.reason.clone(),
                        d.count.to_string(),
                        d.description.clone(),
                    ]
                })
                .collect();
            writeln!(
                out,
                "Drops by reason:\n{}",
                table::render(&["SWITCH", "PORT", "REASON", "FRAMES", "MEANING"], &rows)
            )?;
        }
        let wrong = self.runtime.check()?;
        for line in &wrong {
            writeln!(out, "NOT ACCOUNTED FOR: {line}")?;
        }
        if wrong.is_empty() {
            let frames: u64 = self.runtime.ports()?.iter().map(|p| p.rx_frames).sum();
            writeln!(out, "All {frames} frames that entered a switch are accounted for.")?;
        }
        Ok(wrong.is_empty())
    }
}

fn rate(report: &Report) -> f64 {
    if report.seconds > 0.0 { report.bytes as f64 * 8.0 / report.seconds / 1e9 } else { 0.0 }
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // They end with their namespaces anyway.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
