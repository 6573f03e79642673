//! What the control socket speaks: plain data, the same for the server, the command line and `-o json`.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who serves and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the serving `vswitch`.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The cluster's name.
    pub cluster: String,
    /// `tap` or `memory`.
    pub mode: String,
    /// Seconds since it became ready.
    pub uptime_seconds: f64,
}

/// How a capture is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureFormat {
    /// The octets, for other programs.
    #[default]
    Pcapng,
    /// A line per frame.
    Text,
}

/// One port of one switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortView {
    /// The switch.
    pub switch: String,
    /// The thread of the data path that the switch lives on, from 0.
    pub thread: usize,
    /// The port's name: a place, or `uplink`.
    pub port: String,
    /// Its number.
    pub id: u16,
    /// The segments it carries.
    pub segments: Vec<String>,
    /// `managed` or `foreign`.
    pub station: String,
    /// MAC address of a managed station.
    pub mac: Option<String>,
    /// Addresses of a managed station.
    pub addresses: Vec<IpAddr>,
    /// What the device takes over: `csum`, `tso4`, `tso6`, `uso`.
    pub offload: Vec<String>,
    /// `up`, `blocked: loop until SECONDS` since the data path started, or what happened to the device.
    pub state: String,
    /// Frames from the device.
    pub rx_frames: u64,
    /// Octets from the device.
    pub rx_bytes: u64,
    /// Frames to the device.
    pub tx_frames: u64,
    /// Octets to the device.
    pub tx_bytes: u64,
    /// Frames dropped, whatever the reason and direction.
    pub drops: u64,
    /// Those of them that came in too fast for the port's storm control.
    pub storm_drops: u64,
}

/// One MAC address that a switch knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FdbView {
    /// The switch.
    pub switch: String,
    /// Its broadcast domain.
    pub segment: String,
    /// The address.
    pub mac: String,
    /// The port it is behind; `-` for the switch itself.
    pub port: String,
    /// `self`, `static` or `learned`.
    pub kind: String,
    /// Seconds since it was last heard, for a learned one.
    pub age_seconds: Option<f64>,
}

/// One neighbour that a switch knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NeighborView {
    /// The switch.
    pub switch: String,
    /// Where the neighbour is.
    pub segment: String,
    /// The neighbour.
    pub address: IpAddr,
    /// Its MAC address, once known.
    pub mac: Option<String>,
    /// `permanent` for a managed station, else the state of RFC 4861 section 7.3.2.
    pub state: String,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteView {
    /// The switch.
    pub switch: String,
    /// Destinations.
    pub prefix: String,
    /// Where they go.
    pub target: String,
    /// `connected`, `local` or `static`.
    pub kind: String,
}

/// One reason for drops on one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DropView {
    /// The switch.
    pub switch: String,
    /// The port.
    pub port: String,
    /// The reason's name.
    pub reason: String,
    /// Frames.
    pub count: u64,
    /// What it means.
    pub description: String,
}

/// Which connections are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionQuery {
    /// The node that tracks them.
    pub node: Option<String>,
    /// Their protocol, by name or number.
    pub protocol: Option<String>,
    /// Who opened them: an address or a prefix.
    pub source: Option<String>,
    /// Whom they are to: an address or a prefix.
    pub destination: Option<String>,
    /// The port they were opened from.
    pub sport: Option<u16>,
    /// The port they are to.
    pub dport: Option<u16>,
    /// The state of their protocol, or a word of their status.
    pub state: Option<String>,
}

/// Connections that nodes track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionsView {
    /// Some thousands at most.
    pub connections: Vec<ConnectionView>,
    /// How many more there are of those that are wanted.
    pub omitted: u64,
}

/// One connection that a node tracks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectionView {
    /// The node.
    pub node: String,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number.
    pub protocol: String,
    /// The state of TCP or SCTP.
    pub state: Option<String>,
    /// `ASSURED` when it is kept even if the table is full, `UNREPLIED` while there is no answer.
    pub status: Vec<String>,
    /// How long it is kept if it stays silent.
    pub timeout_seconds: u64,
    /// Packets of who opened it, as they come.
    pub original: TupleView,
    /// Answers, as they come. Where this is not the inverse, packets are translated.
    pub reply: TupleView,
}

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TupleView {
    /// Where packets come from.
    pub source: IpAddr,
    /// The port they come from.
    pub source_port: Option<u16>,
    /// Where they go.
    pub destination: IpAddr,
    /// The port they go to.
    pub destination_port: Option<u16>,
    /// The identifier of a query of ICMP or ICMPv6.
    pub id: Option<u16>,
}

/// One place and how to enter it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaceView {
    /// As commands name it.
    pub place: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace's name, as `ip netns` shows it; none on memory links.
    pub netns: Option<String>,
    /// The process that holds its namespaces.
    pub pause_pid: Option<u32>,
    /// The inode of its network namespace, by which a stale answer is noticed.
    pub netns_inode: Option<u64>,
    /// The switch it is plugged into.
    pub switch: String,
}

/// What to explain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceRequest {
    /// Whose packet it is.
    pub from: String,
    /// What packet: `tcp 10.244.1.2:80`, `udp [fd00::1]:53`, `icmp 10.244.1.2`.
    pub packet: String,
}

/// The way of an imagined packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceView {
    /// Switch by switch.
    pub hops: Vec<TraceHop>,
    /// Where it ends.
    pub outcome: String,
    /// Whether it reaches an end station.
    pub delivered: bool,
}

/// One switch on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TraceHop {
    /// The switch.
    pub switch: String,
    /// The port it came in by.
    pub port: String,
    /// Decisions, in order: stage and reason.
    pub steps: Vec<(String, String)>,
    /// What this switch does with it.
    pub outcome: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// Seconds since the data path started.
    pub at_seconds: f64,
    /// Where.
    pub switch: String,
    /// What, in a sentence.
    pub text: String,
}

/// Manifests to apply or to delete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRequest {
    /// Texts with the names that messages call them by.
    pub sources: Vec<SourceText>,
    /// Whether a field that does not exist is a warning instead of an error.
    #[serde(default)]
    pub lenient: bool,
}

/// How many pods a Deployment is to have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScaleRequest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// So many.
    pub replicas: i32,
}

/// Ports to publish, or to withdraw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PublishRequest {
    /// `[IP:]PORT[-PORT]:POD|svc/SERVICE:PORT[/tcp|tcp4|tcp6|udp|udp4|udp6]`, each.
    pub ports: Vec<String>,
}

/// What is published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PublishedView {
    /// What it was published with.
    pub name: String,
    /// Who wants it: `publish`, or of a manifest `NodePort`, `LoadBalancer`, `hostPort`.
    pub by: String,
    /// What that is now.
    pub doors: Vec<DoorView>,
    /// Why it leads nowhere, if it does not.
    pub problem: Option<String>,
}

/// A port of this machine that leads inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DoorView {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Where it is.
    pub at: String,
    /// Where it leads.
    pub to: String,
}

/// A manifest's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceText {
    /// The file's name.
    pub name: String,
    /// YAML or JSON.
    pub text: String,
}

/// What applying or deleting did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyView {
    /// Each object, in the order of the manifests.
    pub changes: Vec<ChangeView>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<String>,
    /// What could not be done or undone.
    pub problems: Vec<String>,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeView {
    /// Kind, namespace and name.
    pub object: String,
    /// What became of it.
    pub change: crate::objects::Change,
}

/// That the end has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DownView {
    /// Always so.
    pub down: bool,
}

/// The log of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogView {
    /// The container.
    pub container: String,
    /// The file; when it was full, what it held is in one with `.1` behind its name.
    pub path: std::path::PathBuf,
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong and what to do.
    pub error: String,
}
