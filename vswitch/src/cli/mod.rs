//! The command line.

mod ask;
mod bench;
mod capture;
mod columns;
mod connections;
mod get;
mod logs;
mod manifests;
mod manual;
mod pace;
mod place;
mod policy;
mod probe;
mod publish;
mod ready;
mod run;
mod services;
mod tables;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use self::connections::Connections;
use self::pace::Pace;
use self::place::{Namespace, PlaceName};
use self::tables::Table;
use crate::control::client::Client;
use crate::demo;
use crate::runtime::Mode;
use crate::state::StatePaths;

/// What scripts may rely on.
const EXIT_STATUS: &str = "\
Exit status:
  0  what was asked is done
  1  it could not be done, or the answer is no; standard error says why
  2  the command line is wrong

The answer is no when a manifest is wrong (check), a traced packet does not arrive (trace), the machine lacks something
(doctor), something is lost (bench), or something is left behind (up). `vswitch exec` ends with the status of its command.";

/// What can be asked for, and what is special about it.
const FILTER: &str = "\
Which frames: an expression of pcap-filter(7), all if there is none. Understood are
  host ADDRESS, net PREFIX, port NUMBER, portrange FIRST-LAST, each after src or dst if only one of them is meant;
  before host and net: ip, ip6, arp; before port and portrange: tcp, udp, sctp; ether host MAC;
  ip, ip6, arp, tcp, udp, sctp, icmp, icmp6, vlan [NUMBER];
  and, or, not (&&, ||, !) and parentheses, which a shell wants quoted.
It means what it means to tcpdump: and and or bind alike, from left to right; `port 80 or 443` is short for `port 80 or
port 443`; what follows `vlan` is looked for behind the tag. `in` is into the switch, `out` is out of it.";

const CAPTURE_EXAMPLES: &str = "\
Examples:
  vswitch capture alpha                                      every frame of alpha, a line each, until Ctrl-C
  vswitch capture any 'tcp port 80 and host 10.244.1.2'      only these, at every port
  vswitch capture gamma -c 5 arp or icmp6                    five frames, and the end
  vswitch capture alpha -w alpha.pcapng not port 22          into a file
  vswitch capture any | tcpdump -n -r -                      into another program";

/// A virtual switch: pods in network namespaces of their own, and everything a node does with their packets, without
/// root, iptables or a kernel bridge.
#[derive(Debug, Parser)]
#[command(name = "vswitch", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
struct Arguments {
    /// Where the running vswitch keeps its sockets and its lock [default: /run/vswitch as root, else
    /// $XDG_RUNTIME_DIR/vswitch]
    #[arg(long, global = true, value_name = "DIR", env = "VSWITCH_STATE_DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the built-in two-node cluster, drive real traffic through it, say what happened, and exit
    Demo(Demo),
    /// Measure in less than a minute what this machine makes of the switch, beside the kernel's own bridge
    ///
    /// In memory: what a frame costs the switch alone. Over TAPs: what goes from pod to pod, and in turns with it what goes
    /// between the same network namespaces by veths and a bridge of the kernel. Nothing is left behind. It ends with 1 when
    /// anything was lost that should not be; where there can be no TAPs it says why, and measures the rest.
    #[command(after_help = "Example: vswitch bench --only tap --seconds 5 -o json")]
    Bench(bench::Bench),
    /// Run a cluster in the foreground until Ctrl-C or `vswitch down`: that of the manifests, or the built-in one
    #[command(after_help = "Example: vswitch up -f examples/lab")]
    Up(Up),
    /// Add and change objects of the running cluster
    ///
    /// When what the pods of a Deployment run has changed, they are replaced in turn, each when those before it are ready; it
    /// says how far it is, and waits.
    #[command(after_help = "Example: vswitch apply -f web.yaml")]
    Apply(Manifests),
    /// Remove objects from the running cluster, by their names in manifests
    ///
    /// Waits until what runs in them has ended, which may take their grace period.
    Delete(Manifests),
    /// Give a Deployment another number of pods
    #[command(after_help = "Example: vswitch scale deployment web --replicas 3")]
    Scale(Scale),
    /// Say what is wrong with manifests, without a cluster
    #[command(after_help = "Example: vswitch check --simulate -f examples/lab")]
    Check(Check),
    /// Have ports of this machine lead to pods and Services, for as long as the cluster runs
    ///
    /// Each is [IP:]PORT[-PORT]:POD:PORT or [IP:]PORT[-PORT]:svc/SERVICE:PORT, with /tcp, /tcp4, /tcp6, /udp, /udp4 or /udp6 behind it;
    /// without IP at 127.0.0.1 and ::1. `vswitch get published` lists them.
    #[command(after_help = "Example: vswitch publish 8080:alpha:80 0.0.0.0:5353:default/names:53/udp")]
    Publish(Ports),
    /// Close ports that were published, by what they were published with
    #[command(after_help = "Example: vswitch withdraw 8080:alpha:80")]
    Withdraw(Ports),
    /// Stop the running cluster; also clears up after one that was killed
    Down,
    /// Run a command in a pod's namespace (also node/NAME, host/NAME)
    #[command(after_help = "Example: vswitch exec alpha -- ping -c 3 10.244.1.2")]
    Exec(Exec),
    /// Show objects and tables of the running cluster
    #[command(
        after_help = "Examples: vswitch get pods -o wide, vswitch get node node-1 -o yaml, vswitch get ports -w,\n          vswitch get connections node-1 -p tcp -s 10.244.0.0/16 --state established"
    )]
    Get(Get),
    /// Show one object with all that is known of it
    #[command(after_help = "Example: vswitch describe pod alpha")]
    Describe(Describe),
    /// Show what the containers of a pod have written
    #[command(after_help = "Example: vswitch logs web -c server -f")]
    Logs(Logs),
    /// Say who can reach whom, as policies have it
    Policy {
        #[command(subcommand)]
        what: policy::Policy,
    },
    /// Follow an imagined packet: every decision on its way, with its reason
    #[command(after_help = "Example: vswitch trace alpha 'tcp 10.244.1.2:80'")]
    Trace(Trace),
    /// Show or write the frames that pass a port: a line each on a terminal, pcapng into a file or pipe
    #[command(after_help = CAPTURE_EXAMPLES)]
    Capture(Capture),
    /// Say what this machine allows, with the remedy for what it does not
    Doctor(Output),
    /// Say which version this command has, and the running cluster
    Version(Output),
    /// Write a script that completes this command line, to standard output
    #[command(
        after_help = "Example: vswitch completions bash > ~/.local/share/bash-completion/completions/vswitch"
    )]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual page to standard output, or a page for each verb into a directory
    #[command(after_help = "Example: vswitch man ~/.local/share/man/man1")]
    Man {
        /// The directory
        directory: Option<PathBuf>,
    },
    #[command(name = "__probe", hide = true)]
    Probe {
        #[command(subcommand)]
        probe: probe::Probe,
    },
}

#[derive(Debug, Args)]
struct Fabric {
    /// The largest IP packet on every link, in octets; below 1280 there is no IPv6
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..=65520))]
    mtu: u16,
    /// Finish every frame in software instead of passing super-frames and unfinished checksums between TAPs
    #[arg(long)]
    no_offload: bool,
}

#[derive(Debug, Args)]
struct Demo {
    #[command(flatten)]
    fabric: Fabric,
    /// What pods must be made of; without it TAPs if the machine allows them, else memory
    #[arg(long, value_name = "WHAT")]
    require: Option<Require>,
    #[command(flatten)]
    pace: Pace,
    /// MiB that each TCP conversation moves each way
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4096))]
    mib: u64,
}

/// Manifests and how to read them.
#[derive(Debug, Args)]
struct Manifests {
    /// A file of Kubernetes objects in YAML or JSON, a directory of such files, or `-` for standard input; may be repeated
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Warn of fields that do not exist instead of refusing them
    #[arg(long)]
    lenient: bool,
}

#[derive(Debug, Args)]
struct Scale {
    /// `deployment`, or `deployment/NAME`
    kind: String,
    /// NAME or NAMESPACE/NAME
    name: Option<String>,
    /// The namespace of a NAME without one
    #[arg(short, long)]
    namespace: Option<String>,
    /// How many pods
    #[arg(long)]
    replicas: i32,
}

#[derive(Debug, Args)]
struct Ports {
    /// [IP:]PORT[-PORT]:POD|svc/SERVICE:PORT[/PROTOCOL]
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    manifests: Manifests,
    /// Also build the cluster in a simulation, without a kernel, and let everyone ping everyone they should reach
    #[arg(long)]
    simulate: bool,
    /// What decides everything random in the simulation
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Up {
    /// A file of Kubernetes objects in YAML or JSON, a directory of such files, or `-` for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// Warn of fields that do not exist instead of refusing them
    #[arg(long)]
    lenient: bool,
    /// The largest IP packet on every link, in octets, whatever the manifests say; below 1280 there is no IPv6
    #[arg(long, value_parser = clap::value_parser!(u16).range(576..=65520))]
    mtu: Option<u16>,
    /// Finish every frame in software instead of passing super-frames and unfinished checksums between TAPs
    #[arg(long)]
    no_offload: bool,
    /// What pods must be made of; without it TAPs if the machine allows them, else memory
    #[arg(long, value_name = "WHAT")]
    require: Option<Require>,
    #[command(flatten)]
    pace: Pace,
    /// Leave threads that move frames and ask for names all rights that they were started with
    #[arg(long)]
    unconfined: bool,
    /// The cluster's name, which begins the names of its namespaces, unless a Cluster object has one
    #[arg(long, default_value = "lab")]
    name: String,
    /// Write a line to this descriptor and close it when the cluster can be asked
    #[arg(long, value_name = "DESCRIPTOR", value_parser = clap::value_parser!(i32).range(3..))]
    ready_fd: Option<i32>,
    /// Finish frames in software at this place alone: POD, NAMESPACE/POD, node/NAME or host/NAME; may be repeated
    #[arg(long, value_name = "PLACE", hide = true)]
    no_offload_for: Vec<crate::cluster::Place>,
    /// How long pods outlive a vswitch that was killed, so that a later one can clear up in order, in milliseconds
    #[arg(long, hide = true, value_name = "MILLISECONDS", default_value_t = default_grace_ms())]
    grace_ms: u64,
}

fn default_grace_ms() -> u64 {
    u64::try_from(crate::helper::DEFAULT_GRACE.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Require {
    /// Network namespaces and TAP devices.
    Tap,
    /// In-process pods on memory links.
    Memory,
}

#[derive(Debug, Args)]
struct Exec {
    /// POD, NAMESPACE/POD, node/NAME or host/NAME
    place: PlaceName,
    #[command(flatten)]
    namespace: Namespace,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
struct Get {
    /// What to list
    kind: Table,
    /// Only the one of this name: NAME or NAMESPACE/NAME; of connections those of this node
    name: Option<String>,
    /// Only those in this namespace; without it, those of all
    #[arg(short, long)]
    namespace: Option<String>,
    /// Those of all namespaces, as without -n
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Go on, and print what changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connections: Connections,
}

#[derive(Debug, Args)]
struct Describe {
    /// What kind of object
    kind: Table,
    /// NAME or NAMESPACE/NAME
    name: String,
    /// The namespace of a NAME without one [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
}

#[derive(Debug, Args)]
struct Logs {
    /// POD or NAMESPACE/POD
    pod: PlaceName,
    #[command(flatten)]
    namespace: Namespace,
    /// The container; needed when the pod has several
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as more is written
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, Args)]
struct Output {
    /// How to print
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns.
    Table,
    /// Columns, all of them.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

#[derive(Debug, Args)]
struct Trace {
    /// Whose packet: POD, NAMESPACE/POD, node/NAME or host/NAME
    from: PlaceName,
    /// What packet: 'tcp ADDRESS:PORT', 'udp [ADDRESS]:PORT' or 'icmp ADDRESS'
    packet: String,
    #[command(flatten)]
    namespace: Namespace,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Capture {
    /// `any`, POD, node/NAME, host/NAME, or SWITCH:PORT
    port: String,
    /// Which frames: an expression of pcap-filter(7), all if there is none
    #[arg(value_name = "FILTER", long_help = FILTER)]
    filter: Vec<String>,
    #[command(flatten)]
    namespace: Namespace,
    /// Write pcapng to this file instead of standard output
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    write: Option<PathBuf>,
    /// Print a line per frame although standard output is no terminal
    #[arg(short, long)]
    text: bool,
    /// Stop after so many frames that the filter matches
    #[arg(short, long, value_name = "FRAMES")]
    count: Option<u64>,
}

/// A failure that the user is told in one sentence.
type Failure = Box<dyn std::error::Error>;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let state = arguments.state_dir.map_or_else(StatePaths::standard, StatePaths::new);
    match dispatch(arguments.verb, state) {
        Ok(code) => code,
        Err(error) if error.is::<clap::Error>() => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(2)
        }
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "vswitch: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A command line that is wrong in what its grammar does not say.
fn wrong(why: &str) -> Failure {
    Arguments::command().error(clap::error::ErrorKind::InvalidValue, why).into()
}

/// Whoever read our output has seen enough: that is no failure.
fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn dispatch(verb: Verb, state: StatePaths) -> Result<ExitCode, Failure> {
    let client = || Client::new(state.control_socket());
    match verb {
        Verb::Demo(demo) => {
            let options = demo::Options {
                mode: mode(demo.require),
                offload: !demo.fabric.no_offload,
                mtu: demo.fabric.mtu,
                latency: demo.pace.latency(),
                threads: demo.pace.threads(),
                bytes: demo.mib << 20,
                progress: io::stderr().is_terminal(),
            };
            demo::run(&options, &mut io::stdout().lock())
        }
        Verb::Bench(what) => bench::bench(&what),
        Verb::Up(up) => run::up(&up, &state),
        Verb::Apply(what) => manifests::apply(&client(), &what, "/v1/apply"),
        Verb::Delete(what) => manifests::apply(&client(), &what, "/v1/delete"),
        Verb::Scale(what) => manifests::scale(&client(), &what),
        Verb::Publish(what) => publish::ports(&client(), what.ports, "/v1/publish"),
        Verb::Withdraw(what) => publish::ports(&client(), what.ports, "/v1/withdraw"),
        Verb::Check(what) => manifests::check(&what),
        Verb::Down => run::down(&client(), &state),
        Verb::Exec(exec) => ask::exec(&client(), &exec),
        Verb::Get(get) => get::get(&client(), &get),
        Verb::Describe(what) => get::describe(&client(), &what),
        Verb::Logs(what) => logs::logs(&client(), &what),
        Verb::Policy { what } => policy::run(&client(), &what),
        Verb::Trace(trace) => ask::trace(&client(), &trace),
        Verb::Capture(what) => capture::capture(&client(), &what),
        Verb::Doctor(output) => doctor(&output),
        Verb::Version(output) => ask::version(&client(), &output),
        Verb::Completions { shell } => manual::completions(shell),
        Verb::Man { directory } => manual::man(directory.as_deref()),
        Verb::Probe { probe } => probe::run(&probe),
    }
}

const fn mode(require: Option<Require>) -> Mode {
    match require {
        None => Mode::Auto,
        Some(Require::Tap) => Mode::Tap,
        Some(Require::Memory) => Mode::Memory,
    }
}

fn doctor(output: &Output) -> Result<ExitCode, Failure> {
    let checks = crate::doctor::checks();
    let text = match output.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&checks)?),
        Format::Yaml => get::yaml(&serde_json::to_value(&checks)?)?,
        Format::Table | Format::Wide => crate::doctor::report(&checks),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if crate::doctor::all_usable(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is not quite right, on standard error.
fn tell_warnings(warnings: &[impl std::fmt::Display]) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(io::stderr(), "warning: {warning}"))
}
