//! The role `__agent SOCKET NODE`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::duties::{Hello, Order};
use super::health::Health;
use super::relay::{Relays, Room};
use super::{datagrams, health};
use crate::cluster::Protocol;

/// How long to wait before vswitch is looked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// Runs the role until it is ended.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    let Some([socket, node]) = words.as_deref() else {
        say("the agent is told a socket and a node");
        return ExitCode::FAILURE;
    };
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(Agent::new().serve(Path::new(socket), node))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("the agent cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Two descriptors for each connection outgrow the usual soft limit.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A line in the agent's log.
pub(super) fn say(what: &str) {
    // If nobody reads it, nobody is there to tell.
    let _ = writeln!(io::stderr(), "vswitch: {what}");
}

/// What listens.
pub(super) struct Agent {
    streams: Relays,
    datagrams: Relays,
    health: Arc<Health>,
    checks: BTreeMap<u16, tokio::task::JoinHandle<()>>,
}

impl Agent {
    pub(super) fn new() -> Self {
        let room = Room::new();
        let (streams, datagrams) = (Arc::clone(&room), room);
        Self {
            streams: Relays::new(move |at, to| super::relay::listen(at, to, Arc::clone(&streams))),
            datagrams: Relays::new(move |at, to| datagrams::listen(at, to, Arc::clone(&datagrams))),
            health: Arc::default(),
            checks: BTreeMap::new(),
        }
    }

    async fn serve(mut self, socket: &Path, node: &str) {
        drop(tokio::spawn(health::serve(super::HEALTHZ_PORT, Arc::clone(&self.health))));
        loop {
            if let Ok(stream) = UnixStream::connect(socket).await {
                if let Err(error) = self.obey(stream, node).await {
                    say(&format!("the connection to vswitch failed: {error}"));
                }
                self.health.disconnected();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Does what it is told until vswitch is gone.
    async fn obey(&mut self, stream: UnixStream, node: &str) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut hello = serde_json::to_vec(&Hello { node: node.to_owned() })?;
        hello.push(b'\n');
        writer.write_all(&hello).await?;
        let mut lines = BufReader::new(reader).lines();
        while let Some(line) = lines.next_line().await? {
            self.follow(serde_json::from_str(&line)?);
        }
        Ok(())
    }

    pub(super) fn follow(&mut self, order: Order) {
        if order.reset {
            let named = |protocol, at: &SocketAddr| {
                order.relays.iter().any(|relay| relay.protocol == protocol && relay.at == *at)
            };
            self.streams.retain(|at| named(Protocol::Tcp, at));
            self.datagrams.retain(|at| named(Protocol::Udp, at));
            let ports: Vec<u16> = self.checks.keys().copied().collect();
            for port in ports.into_iter().filter(|port| order.health.iter().all(|check| check.port != *port))
            {
                self.end_check(port);
            }
        }
        for relay in order.relays {
            match relay.protocol {
                Protocol::Tcp => self.streams.set(relay.at, relay.to),
                Protocol::Udp => self.datagrams.set(relay.at, relay.to),
                Protocol::Sctp => {}
            }
        }
        for told in order.health {
            let Some(check) = told.check else {
                self.end_check(told.port);
                continue;
            };
            self.health.set(check);
            let serve = || tokio::spawn(health::serve(told.port, Arc::clone(&self.health)));
            self.checks.entry(told.port).or_insert_with(serve);
        }
        self.health.connected();
    }

    fn end_check(&mut self, port: u16) {
        self.health.remove(port);
        if let Some(task) = self.checks.remove(&port) {
            task.abort();
        }
    }
}
