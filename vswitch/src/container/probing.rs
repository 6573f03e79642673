//! Asking one probe: a process in the pod, with a limit to its time and its words.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::spec::{Check, Container};
use super::supervisor::Finding;
use super::{CHECK_ROLE, check};
use crate::helper::SELF;
use crate::helper::exec::{Enter, NamespaceRef};

/// Octets kept of what a probe says.
const MAX_WORDS: usize = 1024;
/// How long a probe that was killed may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The process that asks.
pub(super) fn command(
    target: NamespaceRef,
    check: &Check,
    address: Option<IpAddr>,
    of: &Container,
    executable: Option<&PathBuf>,
) -> Command {
    let mut enter = match check {
        Check::Exec(argv) => {
            let mut enter = Enter::new(target, argv.first().map_or("", String::as_str))
                .arguments(argv.iter().skip(1))
                .directory(of.working_dir.clone().unwrap_or_else(|| PathBuf::from("/")));
            if let Some((uid, gid)) = of.user {
                enter = enter.user(uid, gid);
            }
            if of.no_new_privs {
                enter = enter.no_new_privileges();
            }
            enter
        }
        Check::HttpGet { .. } | Check::TcpSocket { .. } | Check::Grpc { .. } => {
            let words = check::arguments(check, address).unwrap_or_default();
            Enter::new(target, SELF).arguments([CHECK_ROLE]).arguments(words).directory("/")
        }
    };
    if let Some(executable) = executable {
        enter = enter.executable(executable);
    }
    let mut command = enter.session().command();
    command.env_clear();
    if matches!(check, Check::Exec(_)) {
        command.envs(of.environment());
    }
    command
}

/// Runs the process; well if its status is 0. At the limit, and when the other end of `closing` is dropped, it is killed
/// with its process group.
pub(super) async fn ask(command: Command, limit: Duration, closing: watch::Receiver<()>) -> Finding {
    run(command, limit, closing)
        .await
        .unwrap_or_else(|error| Err(format!("the probe cannot be run: {error}")))
}

async fn run(mut command: Command, limit: Duration, mut closing: watch::Receiver<()>) -> io::Result<Finding> {
    let (words, sink) = io::pipe()?;
    let mut words = Words { pipe: pipe::Receiver::from_owned_fd(words.into())?, kept: Vec::new() };
    command.stdin(Stdio::null()).stdout(sink.try_clone()?).stderr(sink);
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn()?;
    // Ours are the last copies of the sink outside the process.
    drop(command);
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            more = words.read(), if open => open = more,
            _ = closing.changed() => {
                end(&mut child).await;
                return Ok(Err("nobody waits for the answer any more".to_owned()));
            }
            () = &mut deadline => {
                end(&mut child).await;
                return Ok(Err(format!("no answer within {} s", limit.as_secs_f32())));
            }
        }
    };
    if status.success() {
        return Ok(Ok(()));
    }
    words.read_some();
    let said = String::from_utf8_lossy(&words.kept).trim().to_owned();
    let status = status.code().map_or_else(|| status.to_string(), |code| format!("status {code}"));
    Ok(Err(if said.is_empty() { status } else { said }))
}

/// Kills a probe and waits for it.
async fn end(child: &mut tokio::process::Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It has not been waited for, so that the number is still its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGPWR);
    }
    if tokio::time::timeout(END_LIMIT, child.wait()).await.is_err() {
        // Fails only if it has ended.
        let _ = child.kill().await;
    }
}

/// The first of what a process says; the rest is read and dropped, so that it need not wait.
struct Words {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
}

impl Words {
    /// Waits for something to read and reads it; false at the end.
    async fn read(&mut self) -> bool {
        self.pipe.readable().await.is_ok() && self.read_some()
    }

    /// Reads what is there; false at the end.
    fn read_some(&mut self) -> bool {
        let mut octets = [0; 4096];
        match self.pipe.try_read(&mut octets) {
            Ok(length) => {
                keep(&mut self.kept, octets.get(..length).unwrap_or_default());
                length > 0
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

fn keep(kept: &mut Vec<u8>, octets: &[u8]) {
    let room = MAX_WORDS.saturating_sub(kept.len()).min(octets.len());
    kept.extend_from_slice(octets.get(..room).unwrap_or_default());
}
