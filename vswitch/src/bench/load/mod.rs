//! The two ends between which is measured: programs that run in a network namespace each, told what to do on standard input,
//! and telling on standard output what they have counted. What is asked and how it is counted is as in `benches/peers`.
//!
//! Both ends count, and the counts are held against each other: a measurement that has lost what it should not is none.

mod datagrams;
mod requests;
mod server;
mod streams;

use std::fs;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use server::serve;

/// Where the serving end takes octets and counts them.
pub(super) const STREAMS: u16 = 7010;
/// Where it answers requests.
pub(super) const REQUESTS: u16 = 7011;
/// Where it answers those that come through a service: no connection is then between the same ports both ways.
pub(super) const REQUESTS_OF_SERVICE: u16 = 7012;
/// Where it counts datagrams.
pub(super) const DATAGRAMS: u16 = 7013;

/// How long whoever should answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the asking end is to do.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) load: Load,
    pub(super) to: SocketAddr,
    pub(super) seconds: f64,
}

/// What there is between the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Load {
    /// So many TCP streams, as fast as they go.
    Streams(u16),
    /// Datagrams of 18 octets, as fast as they go.
    Flood,
    /// Requests on so many connections, the next when the last is answered.
    Requests(u16),
    /// So many at a time, each request on a connection of its own.
    Connections(u16),
}

/// What the asking end has counted.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Octets, datagrams or requests.
    pub(super) sent: u64,
    /// Octets that the other end says it has, or right answers; nothing comes back for datagrams.
    pub(super) confirmed: u64,
    pub(super) seconds: f64,
}

/// What the serving end has counted since it told the last time.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Served {
    /// Connections on which requests came.
    pub(super) connections: u64,
    pub(super) answered: u64,
    /// Connections that ended in the middle of a request, and what was none.
    pub(super) broken: u64,
    pub(super) datagrams: u64,
    /// Datagrams that had come before.
    pub(super) twice: u64,
    /// Datagrams that nobody has sent like that.
    pub(super) changed: u64,
    /// From the first datagram to the last.
    pub(super) seconds: f64,
}

/// What the serving end is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Question {
    /// What it has counted.
    Counts,
    /// The same, once no datagram has come for a while.
    CountsAtRest,
}

/// The asking end: does what it is told until there is nothing more.
///
/// # Errors
/// When it is told nonsense, or nobody listens any more. Loads that fail are told.
pub(crate) fn ask(input: impl BufRead, mut out: impl Write) -> io::Result<()> {
    settle();
    tell(&mut out, &())?;
    for line in input.lines() {
        let order: Order = serde_json::from_str(&line?)?;
        tell(&mut out, &order.carry_out().map_err(|error| error.to_string()))?;
    }
    Ok(())
}

impl Order {
    fn carry_out(self) -> io::Result<Asked> {
        let Self { load, to, seconds } = self;
        let time = Duration::from_secs_f64(seconds);
        match load {
            Load::Streams(count) => streams::send(to, count, time),
            Load::Flood => datagrams::flood(to, time),
            Load::Requests(count) => requests::ask(to, count, false, time),
            Load::Connections(count) => requests::ask(to, count, true, time),
        }
    }
}

fn tell(out: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, what)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Ports enough for many short connections, and no memory of old ones, in the namespace that this is in.
fn settle() {
    for (option, value) in
        [("ip_local_port_range", "10000 65535"), ("tcp_tw_reuse", "1"), ("tcp_no_metrics_save", "1")]
    {
        // Without it ports may run out, and then the connection that has none says so.
        let _ = fs::write(format!("/proc/sys/net/ipv4/{option}"), value);
    }
}
