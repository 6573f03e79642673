//! The containers of one pod, in the helper.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::container::{ContainerInfo, ContainerSpec, RunState};
use super::exec::NamespaceRef;
use super::log;
use super::protocol::{Failure, FailureKind};
use super::wait::{HANDED_ON, KILL_REQUEST};

/// Containers of one pod, those that ended included.
const MAX_CONTAINERS: usize = 64;

/// How long the containers of an ended pod may take to end.
const END_LIMIT: Duration = Duration::from_secs(2);
const END_STEP: Duration = Duration::from_millis(2);

/// One container, running or ended.
#[derive(Debug)]
struct Container {
    /// The process that stands for it, while it runs.
    process: Option<Child>,
    pid: u32,
    state: RunState,
    starts: u32,
    since: Instant,
    made_of: String,
}

/// The containers of one pod, by name.
#[derive(Debug, Default)]
pub(super) struct Running(BTreeMap<String, Container>);

impl Running {
    /// Starts a container, for the first time or once more after it has ended, and returns its pid.
    pub(super) fn start(
        &mut self,
        target: NamespaceRef,
        spec: &ContainerSpec,
        now: Instant,
    ) -> Result<u32, Failure> {
        let invalid = |why: String| Failure::new(FailureKind::Invalid, why);
        spec.validate().map_err(invalid)?;
        let before = self.0.get(&spec.name);
        if before.is_some_and(|container| container.process.is_some()) {
            let why = format!("container {} runs already", spec.name);
            return Err(Failure::new(FailureKind::Exists, why));
        }
        let starts = before.map_or(0, |container| container.starts).saturating_add(1);
        if before.is_none() && self.0.len() >= MAX_CONTAINERS {
            return Err(invalid(format!("one pod has at most {MAX_CONTAINERS} containers")));
        }
        let enter = spec.enter(target).ok_or_else(|| invalid("there is no program to run".to_owned()))?;
        let (out, err) = open_log(&spec.log)?;
        let mut command = enter.command();
        command.env_clear().envs(spec.links.iter().chain(&spec.env).map(|(name, value)| (name, value)));
        // What goes wrong before the program runs is told in the log as well.
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let process = command.spawn().map_err(|error| {
            // By far the most come from services.
            let remedy = if error.kind() == std::io::ErrorKind::ArgumentListTooLong && !spec.links.is_empty()
            {
                " (`enableServiceLinks: false` leaves out the variables of services)"
            } else {
                ""
            };
            Failure::system(format!("cannot start container {}{remedy}", spec.name), &error)
        })?;
        let pid = process.id();
        let container = Container {
            process: Some(process),
            pid,
            state: RunState::Running,
            starts,
            since: now,
            made_of: spec.made_of(),
        };
        self.0.insert(spec.name.clone(), container);
        Ok(pid)
    }

    /// Sends a signal to the program of a container, or, if it is SIGKILL, to all its processes.
    pub(super) fn signal(&mut self, name: &str, signal: i32) -> Result<(), Failure> {
        let to_send = match Signal::try_from(signal) {
            Ok(Signal::SIGKILL) => KILL_REQUEST,
            Ok(signal) if HANDED_ON.contains(&signal) => signal,
            Ok(_) | Err(_) => {
                let why = format!(
                    "signal {signal} cannot be sent to a container; KILL, TERM, INT, QUIT, HUP, USR1, USR2 and ALRM can"
                );
                return Err(Failure::new(FailureKind::Invalid, why));
            }
        };
        let running = self.0.get(name).filter(|container| container.process.is_some());
        let Some(container) = running else {
            let why = format!("no container named {name:?} runs there");
            return Err(Failure::new(FailureKind::NotFound, why));
        };
        // It is our child and has not been waited for, so that the number is still its own.
        kill(Pid::from_raw(container.pid.cast_signed()), to_send)
            .map_err(|errno| Failure::system(format!("cannot signal container {name}"), &errno.into()))
    }

    /// Forgets those that have ended.
    pub(super) fn forget(&mut self) {
        self.0.retain(|_, container| container.process.is_some());
    }

    /// Looks which containers have ended; true if that is news.
    pub(super) fn notice_ends(&mut self, now: Instant) -> bool {
        let mut news = false;
        for container in self.0.values_mut() {
            let ended = match container.process.as_mut().map(Child::try_wait) {
                None | Some(Ok(None)) => continue,
                Some(Ok(Some(status))) => code_of(status),
                // Somebody else has waited for it; it is gone.
                Some(Err(_)) => u8::MAX,
            };
            container.process = None;
            container.state = RunState::Exited { code: ended };
            container.since = now;
            news = true;
        }
        news
    }

    /// Waits for the processes that stand for the containers of a pod that has just ended: they write the last of the
    /// logs and end.
    pub(super) fn wait_for_all(&mut self) {
        let mut left = END_LIMIT;
        for process in self.0.values_mut().filter_map(|container| container.process.as_mut()) {
            while matches!(process.try_wait(), Ok(None)) {
                if left.is_zero() {
                    // Only one that cannot write to its log takes as long.
                    let _ = process.kill();
                    let _ = process.wait();
                    break;
                }
                std::thread::sleep(END_STEP);
                left = left.saturating_sub(END_STEP);
            }
        }
        self.0.clear();
    }

    /// Those after `after`, in order of name.
    pub(super) fn list<'a>(
        &'a self,
        namespace: &'a str,
        after: Option<&str>,
        now: Instant,
    ) -> impl Iterator<Item = ContainerInfo> + 'a {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.range::<str, _>((start, Bound::Unbounded)).map(move |(name, container)| ContainerInfo {
            namespace: namespace.to_owned(),
            name: name.clone(),
            made_of: container.made_of.clone(),
            pid: container.pid,
            state: container.state,
            starts: container.starts,
            age_ms: now.saturating_duration_since(container.since).as_millis().try_into().unwrap_or(u64::MAX),
        })
    }
}

/// The log twice, for standard output and standard error.
fn open_log(path: &Path) -> Result<(Stdio, Stdio), Failure> {
    let open = || {
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = log::open(path)?;
        Ok((Stdio::from(file.try_clone()?), Stdio::from(file)))
    };
    open().map_err(|error| Failure::system(format!("cannot open the log {}", path.display()), &error))
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
