//! Running programs in a pod's namespaces.
//!
//! # Theory of operation
//! A program that is to run in a pod starts as this executable in the role `__enter`, because only a process without
//! threads may enter a user or a mount namespace, and because what [`std::process::Command`] starts has no thread
//! whatever its parent has. The role opens the pod's namespaces, makes sure they are the ones that were meant and
//! not those of a later process with the same pid, enters them, and forks: a PID namespace is entered by one's
//! children only. The child becomes the program; the parent waits for it, hands on the signals that it gets itself
//! (those of the terminal reach both), and ends with the program's status, or 128 and the number of the signal that
//! ended it. If the waiting process is killed the program is killed too.
//!
//! The helper runs containers by the same role, with more between the waiting process and the program: see `contain`.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::contain::{contain, die_with_parent};
use super::log::Pump;
use super::wait::{OnKillRequest, wait_for};
use crate::sys;

/// Status when the namespaces could not be entered (as of `docker run`).
pub const STATUS_NOT_ENTERED: u8 = 125;
/// Status when the program was found and could not be run (as of shells).
pub const STATUS_NOT_RUN: u8 = 126;
/// Status when the program was not found (as of shells).
pub const STATUS_NOT_FOUND: u8 = 127;

/// The namespaces of one pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamespaceRef {
    /// The process that holds them, by the host's numbering.
    pub pause_pid: u32,
    /// The inode of the network namespace, which tells it from that of a later process with the same pid.
    pub netns_inode: u64,
}

/// What to run in a pod, and as whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enter {
    target: NamespaceRef,
    program: OsString,
    arguments: Vec<OsString>,
    directory: Option<PathBuf>,
    user: Option<(u32, u32)>,
    no_new_privileges: bool,
    session: bool,
    log: Option<PathBuf>,
    executable: Option<PathBuf>,
}

impl Enter {
    /// Runs `program`, found by the `PATH` of the environment it gets.
    pub fn new(target: NamespaceRef, program: impl Into<OsString>) -> Self {
        Self {
            target,
            program: program.into(),
            arguments: Vec::new(),
            directory: None,
            user: None,
            no_new_privileges: false,
            session: false,
            log: None,
            executable: None,
        }
    }

    /// With these arguments more.
    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// In this directory of the pod; it is an error if it does not exist. Otherwise the program starts in the
    /// caller's directory if that exists in the pod, else in `/`.
    #[must_use]
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// As this user and group of the pod's user namespace, without further groups. When vswitch is not root that
    /// namespace knows user and group 0 only, which are the caller's own.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Without ever gaining rights by executing a file (`PR_SET_NO_NEW_PRIVS`).
    #[must_use]
    pub fn no_new_privileges(mut self) -> Self {
        self.no_new_privileges = true;
        self
    }

    /// In a session of its own, so that no terminal reaches it, and so that SIGPWR to what is started kills the program
    /// and its process group.
    #[must_use]
    pub(crate) fn session(mut self) -> Self {
        self.session = true;
        self
    }

    /// As a container whose output goes to the file `log`.
    #[must_use]
    pub(super) fn contained(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// By this `vswitch` executable instead of the running one; see [`super::HelperOptions::executable`].
    #[must_use]
    pub fn executable(mut self, executable: impl Into<PathBuf>) -> Self {
        self.executable = Some(executable.into());
        self
    }

    /// The command to spawn, from any thread. Environment, standard streams and process group are the caller's to
    /// set on it as on any other command. Killing what it starts kills the program.
    pub fn command(&self) -> Command {
        let executable = self.executable.clone().unwrap_or_else(|| PathBuf::from(super::SELF));
        let mut command = Command::new(executable);
        command.arg0("vswitch").arg(super::ENTER_ROLE);
        command.arg(self.target.pause_pid.to_string()).arg(self.target.netns_inode.to_string());
        if let Some(directory) = &self.directory {
            command.arg("--directory").arg(directory);
        }
        if let Some((uid, gid)) = self.user {
            command.arg("--user").arg(uid.to_string()).arg(gid.to_string());
        }
        if self.no_new_privileges {
            command.arg("--no-new-privileges");
        }
        if self.session {
            command.arg("--session");
        }
        if let Some(log) = &self.log {
            command.arg("--log").arg(log);
        }
        command.arg("--").arg(&self.program).args(&self.arguments);
        command
    }

    /// Runs the program with this process's standard streams and waits for it. Ctrl-C is the program's business
    /// meanwhile.
    ///
    /// # Errors
    /// If the process cannot be started. That the namespaces cannot be entered or the program cannot be run shows
    /// in the status ([`STATUS_NOT_ENTERED`], [`STATUS_NOT_RUN`], [`STATUS_NOT_FOUND`]) and on standard error.
    pub fn run(&self) -> io::Result<ExitStatus> {
        let mut terminal = SigSet::empty();
        terminal.add(Signal::SIGINT);
        terminal.add(Signal::SIGQUIT);
        let before = terminal.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let status = self.command().status();
        before.thread_set_mask()?;
        status
    }

    /// Becomes the program: returns only if that fails. For a command line that has nothing else to do, this leaves
    /// one process less between the terminal and the program.
    pub fn replace(&self) -> io::Error {
        self.command().exec()
    }
}

/// What the role was told on its command line.
pub(super) struct Order {
    target: NamespaceRef,
    directory: Option<PathBuf>,
    user: Option<(Uid, Gid)>,
    no_new_privileges: bool,
    session: bool,
    /// Set for a container only.
    log: Option<PathBuf>,
    program: OsString,
    arguments: Vec<OsString>,
}

/// A status to end with, and why.
pub(super) struct Refusal {
    status: u8,
    why: String,
}

pub(super) fn refuse(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Refusal {
    Refusal { status: STATUS_NOT_ENTERED, why: format!("{what}: {error}") }
}

/// Runs the role: enters the namespaces and becomes, or waits for, the program.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let status = parse(arguments)
        .ok_or_else(|| refuse("cannot enter the pod", "the arguments are incomplete"))
        .and_then(|order| enter(&order));
    ExitCode::from(status.unwrap_or_else(|refusal| {
        let _ = writeln!(io::stderr(), "vswitch: {}", refusal.why);
        refusal.status
    }))
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Order> {
    fn number<T: std::str::FromStr>(text: Option<OsString>) -> Option<T> {
        text?.to_str()?.parse().ok()
    }
    let target =
        NamespaceRef { pause_pid: number(arguments.next())?, netns_inode: number(arguments.next())? };
    let (mut directory, mut user, mut no_new_privileges) = (None, None, false);
    let (mut session, mut log) = (false, None);
    loop {
        match arguments.next()?.to_str()? {
            "--directory" => directory = Some(PathBuf::from(arguments.next()?)),
            "--user" => {
                let (uid, gid) = (number(arguments.next())?, number(arguments.next())?);
                user = Some((Uid::from_raw(uid), Gid::from_raw(gid)));
            }
            "--no-new-privileges" => no_new_privileges = true,
            "--session" => session = true,
            "--log" => log = Some(PathBuf::from(arguments.next()?)),
            "--" => break,
            _ => return None,
        }
    }
    let program = arguments.next()?;
    let arguments = arguments.collect();
    Some(Order { target, directory, user, no_new_privileges, session, log, program, arguments })
}

fn enter(order: &Order) -> Result<u8, Refusal> {
    let directory = std::env::current_dir();
    // In the host's file system.
    let pump = order.log.as_deref().map(Pump::new).transpose();
    let (mut pump, sink) = pump.map_err(|error| refuse("cannot write the log", error))?.unzip();
    enter_namespaces(order.target)?;
    enter_directory(order, directory.ok())?;
    // Before the fork, so that no signal is lost between it and the wait.
    let all = SigSet::all();
    all.thread_set_mask().map_err(|errno| refuse("cannot block signals", errno))?;
    let cannot_fork = |error| refuse("cannot fork in the pod", error);
    let (end, life) = io::pipe().map_err(cannot_fork)?;
    match sys::fork_single_threaded().map_err(cannot_fork)? {
        None => {
            // The parent's is the only copy now, so that the pipe ends with it.
            drop((life, pump));
            let Some(sink) = sink else { match become_program(order, &end)? {} };
            nix::unistd::dup2_stdout(&sink)
                .and_then(|()| nix::unistd::dup2_stderr(&sink))
                .map_err(|errno| refuse("cannot write the log", errno))?;
            drop(sink);
            contain(order, &end)
        }
        Some(child) => {
            drop(sink);
            let on_kill_request = match (&order.log, order.session) {
                (Some(_), _) => OnKillRequest::PassOn,
                (None, true) => OnKillRequest::Group,
                (None, false) => OnKillRequest::Nothing,
            };
            wait_for(child, on_kill_request, pump.as_mut())
                .map_err(|error| refuse("cannot wait for the program", error))
        }
    }
}

/// Enters the directory that was asked for, else `kept`, else `/`.
fn enter_directory(order: &Order, kept: Option<PathBuf>) -> Result<(), Refusal> {
    if let Some(wanted) = &order.directory {
        return std::env::set_current_dir(wanted).map_err(|error| refuse(wanted.display(), error));
    }
    if kept.is_some_and(|kept| std::env::set_current_dir(kept).is_ok()) {
        return Ok(());
    }
    std::env::set_current_dir("/").map_err(|error| refuse("/", error))
}

/// Enters every namespace of the pod that is not ours already; the user namespace first, because it gives the right
/// to enter the others.
fn enter_namespaces(target: NamespaceRef) -> Result<(), Refusal> {
    let theirs = PathBuf::from(format!("/proc/{}/ns", target.pause_pid));
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER),
        ("mnt", CloneFlags::CLONE_NEWNS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("pid", CloneFlags::CLONE_NEWPID),
    ];
    // All are opened before the first is entered: afterwards `/proc` is another one.
    let mut open = Vec::with_capacity(kinds.len());
    for (name, kind) in kinds {
        let path = theirs.join(name);
        let cannot = |error| refuse(format!("cannot open {}", path.display()), error);
        let file = File::open(&path).map_err(|error| {
            // Where the kernel has such namespaces it is the process that is gone, or all but.
            let gone = error.kind() == io::ErrorKind::NotFound;
            if gone && Path::new("/proc/self/ns").join(name).exists() {
                return refuse("cannot enter the pod", "it is gone, with all its processes");
            }
            cannot(error)
        })?;
        let inode = file.metadata().map_err(cannot)?.ino();
        if kind == CloneFlags::CLONE_NEWNET && inode != target.netns_inode {
            return Err(refuse("cannot enter the pod", "it is gone, and its process number is in use again"));
        }
        let own = std::fs::metadata(Path::new("/proc/self/ns").join(name)).map_err(cannot)?.ino();
        if inode != own {
            open.push((name, kind, file));
        }
    }
    for (name, kind, file) in open {
        setns(file, kind)
            .map_err(|errno| refuse(format!("cannot enter the pod's {name} namespace"), errno))?;
    }
    Ok(())
}

/// In the last child: takes on the user and becomes the program. `end` ends with the parent.
pub(super) fn become_program(order: &Order, end: &io::PipeReader) -> Result<Infallible, Refusal> {
    if order.session || order.log.is_some() {
        nix::unistd::setsid().map_err(|errno| refuse("cannot start a session", errno))?;
    }
    if let Some((uid, gid)) = order.user {
        // In a user namespace that may not drop groups there is only one user to be.
        if !(uid == Uid::effective() && gid == Gid::effective()) {
            if order.log.is_some() {
                // So that the program can open its /dev/stdout and /dev/stderr, which are one pipe; if it cannot,
                // it can still write to them.
                let _ = nix::unistd::fchown(io::stdout(), Some(uid), Some(gid));
            }
            nix::unistd::setgroups(&[])
                .and_then(|()| nix::unistd::setgid(gid))
                .and_then(|()| nix::unistd::setuid(uid))
                .map_err(|errno| refuse(format!("cannot become user {uid} and group {gid}"), errno))?;
        }
    }
    // After the change of user, which would take it back.
    die_with_parent(end)?;
    if order.no_new_privileges {
        nix::sys::prctl::set_no_new_privs().map_err(|errno| refuse("cannot set no_new_privs", errno))?;
    }
    SigSet::empty().thread_set_mask().map_err(|errno| refuse("cannot unblock signals", errno))?;
    let mut command = Command::new(&order.program);
    if order.program == super::SELF {
        command.arg0("vswitch");
    }
    let error = command.args(&order.arguments).exec();
    let program: &OsStr = &order.program;
    if error.kind() == io::ErrorKind::NotFound || !may_exist(program) {
        return Err(Refusal { status: STATUS_NOT_FOUND, why: format!("cannot find {}", program.display()) });
    }
    Err(Refusal { status: STATUS_NOT_RUN, why: format!("cannot run {}: {error}", program.display()) })
}

/// Whether the program is at its path or in a directory of `PATH`. `execvp` says "permission denied" also for a
/// program that is nowhere, if it was not permitted to look into one of those directories.
fn may_exist(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH");
    program.as_encoded_bytes().contains(&b'/')
        || path
            .is_none_or(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_understands_what_the_builder_says() {
        let target = NamespaceRef { pause_pid: 7, netns_inode: 4_026_531_840 };
        let command = Enter::new(target, "ping")
            .arguments(["-c", "1", "--", "10.0.0.1"])
            .directory("/tmp")
            .user(1000, 100)
            .no_new_privileges()
            .session()
            .contained("/x/y.log")
            .command();
        let order = parse(command.get_args().skip(1).map(OsStr::to_owned)).unwrap();
        assert_eq!(order.target, target);
        assert_eq!(order.directory.as_deref(), Some(Path::new("/tmp")));
        assert_eq!(order.user, Some((Uid::from_raw(1000), Gid::from_raw(100))));
        assert!(order.no_new_privileges && order.session);
        assert_eq!(order.log.as_deref(), Some(Path::new("/x/y.log")));
        assert_eq!(order.program, "ping");
        assert_eq!(order.arguments, ["-c", "1", "--", "10.0.0.1"]);
    }

    #[test]
    fn incomplete_orders_are_refused() {
        for bad in
            ["", "1", "1 2", "1 2 --", "x 2 -- true", "1 2 --directory", "1 2 --other -- true", "1 2 --log"]
        {
            assert!(parse(bad.split_whitespace().map(OsString::from)).is_none(), "{bad:?}");
        }
    }
}
