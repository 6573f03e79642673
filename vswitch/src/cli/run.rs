//! `up` and `down`.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use manifest::Strictness;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::ready::{self, Ready};
use super::{Failure, Up, manifests, mode, tell_warnings};
use crate::control::api::Status;
use crate::control::changes::Changes;
use crate::control::client::{Client, ClientError};
use crate::control::plane::{Desired, Frame, Plane};
use crate::control::server;
use crate::helper::{Helper, HelperOptions};
use crate::objects::{Store, builtin_source};
use crate::runtime::Options;
use crate::state::{StateDir, StatePaths};
use crate::sys::{give_back, give_way};

/// How long `down` waits for the other side to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn up(up: &Up, state: &StatePaths) -> Result<ExitCode, Failure> {
    // First of all: nothing that this process opens can be taken for it.
    let ready = Ready::take(up.ready_fd)?;
    ready::status("starting");
    let directory = StateDir::open(state.root())?;
    let mut out = io::stdout();
    let grace = Duration::from_millis(up.grace_ms);
    let kept = clear_up(directory.paths(), grace, &mut out)?;
    let desired = desired(up, directory.paths(), &mut out)?;
    let options = Options {
        mode: mode(up.require),
        offload: !up.no_offload,
        plain: up.no_offload_for.clone(),
        state: directory.paths().clone(),
        grace,
        latency: up.pace.latency(),
        threads: up.pace.threads(),
        confined: !up.unconfined,
    };
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything is made, so that a signal from here on ends in order.
    let stop = executor.block_on(async { stop_on_signal() })?;
    let frame = Frame { name: up.name.clone(), mtu: up.mtu };
    let (plane, warnings) = Plane::start(desired, frame, &options, kept)?;
    give_back();
    let changes = Changes::start()?;
    tell_warnings(&warnings)?;
    let runtime = plane.runtime();
    if let Some(reason) = runtime.fallback() {
        writeln!(out, "pods are in-process on memory links, because TAPs cannot be used: {reason}")?;
        writeln!(out, "`vswitch doctor` says what to do")?;
    }
    let served = std::thread::scope(|scope| {
        let control = scope.spawn(|| {
            // The data path and what runs in pods come first, whatever clients ask for.
            give_way();
            executor.block_on(serve(&plane, changes, directory.paths(), stop, ready))
        });
        control.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    ready::stopping();
    // Whoever waits for the socket or the lock to go may take it that everything else is gone.
    let problems = plane.stop();
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

/// What is wanted: the manifests', else what an earlier vswitch that was killed wanted, else the built-in cluster.
fn desired(up: &Up, state: &StatePaths, out: &mut impl io::Write) -> Result<Desired, Failure> {
    let mut desired = Desired::read(state)?;
    let sources = if up.files.is_empty() {
        if desired.store.iter().next().is_some() {
            writeln!(
                out,
                "going on with the objects of an earlier vswitch that did not end by `vswitch down`"
            )?;
            return Ok(desired);
        }
        vec![builtin_source()]
    } else {
        manifests::read(&up.files)?
    };
    let (store, warnings) = Store::read(&sources, Strictness::lenient_if(up.lenient))?;
    tell_warnings(&warnings)?;
    desired.store = store;
    Ok(desired)
}

async fn serve(
    plane: &Arc<Plane>,
    changes: Changes,
    state: &StatePaths,
    stop: Arc<Notify>,
    ready: Ready,
) -> io::Result<()> {
    let runtime = plane.runtime();
    let listener = server::listen(&state.control_socket())?;
    let status = format!(
        "cluster {} is up: {} places on {} switches ({})",
        runtime.cluster().name,
        runtime.places().len(),
        runtime.cluster().nodes.len() + 1,
        runtime.mode()
    );
    writeln!(io::stdout(), "{status}; Ctrl-C or `vswitch down` ends it")?;
    ready.tell(&status);
    server::serve(Arc::clone(plane), changes, listener, stop, |event| {
        // Whether anybody reads the log does not matter to the cluster.
        let _ = writeln!(io::stderr(), "{:9.3} {}: {}", event.at_seconds, event.switch, event.text);
    })
    .await;
    Ok(())
}

fn remove_control_socket(state: &StatePaths) -> io::Result<()> {
    match std::fs::remove_file(state.control_socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes room for a cluster: a helper that is left is taken over, without one what is left is removed.
fn clear_up(
    state: &StatePaths,
    grace: Duration,
    out: &mut impl io::Write,
) -> Result<Option<Helper>, Failure> {
    let mut options = HelperOptions::new(state.clone());
    options.grace = grace;
    // One of another version cannot be taken over.
    let Ok(Some(helper)) = Helper::adopt(&options) else {
        report_reclaimed(state, out)?;
        return Ok(None);
    };
    let pid = helper.info().pid;
    writeln!(out, "taking over from an earlier vswitch what its helper {pid} has kept")?;
    remove_control_socket(state)?;
    Ok(Some(helper))
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
            Desired::remove(directory.paths())?;
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
