//! `up` and `down`.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::{Failure, Up, mode};
use crate::cluster::{Cluster, Labels, Pod, builtin};
use crate::control::api::Status;
use crate::control::client::{Client, ClientError};
use crate::control::server;
use crate::helper::Helper;
use crate::runtime::{Options, Runtime};
use crate::state::{StateDir, StatePaths};

/// How long `down` waits for the other side to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn up(up: &Up, state: &StatePaths) -> Result<ExitCode, Failure> {
    let directory = StateDir::open(state.root())?;
    let mut out = io::stdout();
    report_reclaimed(directory.paths(), &mut out)?;
    let mut cluster = builtin(&up.name);
    add_idle_pods(&mut cluster, up.idle_pods);
    cluster.set_mtu(up.fabric.mtu);
    let options = Options {
        mode: mode(up.require),
        offload: !up.fabric.no_offload,
        plain: up.no_offload_for.clone(),
        state: directory.paths().clone(),
        grace: Duration::from_millis(up.grace_ms),
    };
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is made, so that a signal from here on ends in order.
    let stop = executor.block_on(async { stop_on_signal() })?;
    let runtime = Arc::new(Runtime::start(cluster, &options)?);
    if let Some(reason) = runtime.fallback() {
        writeln!(out, "pods are in-process on memory links, because TAPs cannot be used: {reason}")?;
        writeln!(out, "`vswitch doctor` says what to do")?;
    }
    let served = executor.block_on(serve(&runtime, directory.paths(), stop));
    // Whoever waits for the socket or the lock to go may take it that everything else is gone.
    let problems = runtime.stop();
    drop(executor);
    remove_control_socket(directory.paths())?;
    for problem in &problems {
        writeln!(io::stderr(), "vswitch: left behind: {problem}")?;
    }
    served?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What Ctrl-C and SIGTERM notify from now on.
fn stop_on_signal() -> io::Result<Arc<Notify>> {
    let stop = Arc::new(Notify::new());
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let on_signal = Arc::clone(&stop);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        on_signal.notify_one();
    });
    Ok(stop)
}

async fn serve(runtime: &Arc<Runtime>, state: &StatePaths, stop: Arc<Notify>) -> Result<(), Failure> {
    let listener = server::listen(&state.control_socket())?;
    writeln!(
        io::stdout(),
        "cluster {} is up: {} places on {} switches ({}); Ctrl-C or `vswitch down` ends it",
        runtime.cluster().name,
        runtime.places().len(),
        runtime.cluster().nodes.len() + 1,
        runtime.mode()
    )?;
    server::serve(Arc::clone(runtime), listener, stop, |event| {
        // Whether anybody reads the log does not matter to the cluster.
        let _ = writeln!(io::stderr(), "{:9.3} {}: {}", event.at_seconds, event.switch, event.text);
    })
    .await?;
    Ok(())
}

fn remove_control_socket(state: &StatePaths) -> io::Result<()> {
    match std::fs::remove_file(state.control_socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn report_reclaimed(state: &StatePaths, out: &mut impl io::Write) -> Result<(), Failure> {
    let reclaimed = Helper::reclaim(state)?;
    if let Some(pid) = reclaimed.helper {
        writeln!(out, "ended the helper {pid} that an earlier vswitch left behind")?;
    }
    for name in &reclaimed.namespaces {
        writeln!(out, "removed the namespace {name} that an earlier vswitch left behind")?;
    }
    for problem in &reclaimed.problems {
        writeln!(io::stderr(), "vswitch: {problem}")?;
    }
    Ok(remove_control_socket(state)?)
}

/// Pods that do nothing, to see that they cost nothing: 10.244.0.16 and on.
fn add_idle_pods(cluster: &mut Cluster, count: u16) {
    for number in 0..count {
        let last = number + 16;
        let v4 = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 0)) + u32::from(last));
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, last);
        cluster.pods.push(Pod {
            namespace: "default".into(),
            name: format!("idle-{number}"),
            node: "node-1".into(),
            addresses: vec![IpAddr::V4(v4), IpAddr::V6(v6)],
            labels: Labels::new(),
            spec: Arc::default(),
        });
    }
}

pub(super) fn down(client: &Client, state: &StatePaths) -> Result<ExitCode, Failure> {
    match client.get::<Status>("/v1/status") {
        Ok(status) => {
            let _: serde_json::Value = client.post("/v1/down", &())?;
            wait_for_the_end(state)?;
            writeln!(io::stdout(), "cluster {} is down", status.cluster)?;
        }
        Err(ClientError::NotRunning(_)) => {
            let directory = StateDir::open(state.root())?;
            report_reclaimed(directory.paths(), &mut io::stdout())?;
            writeln!(io::stdout(), "nothing runs here")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The lock is free once the other vswitch has removed everything and ended.
fn wait_for_the_end(state: &StatePaths) -> Result<(), Failure> {
    let step = Duration::from_millis(20);
    let mut left = PATIENCE;
    loop {
        match StateDir::open(state.root()) {
            Ok(_) => return Ok(()),
            Err(error) if left.is_zero() => return Err(error.into()),
            Err(_) => {
                std::thread::sleep(step);
                left = left.saturating_sub(step);
            }
        }
    }
}
