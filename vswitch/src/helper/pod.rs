//! One pod from its making to its end.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::container::ContainerSpec;
use super::protocol::{Channel, Failure, FailureKind, PauseReply, PauseSpec, Reply};
use super::record::{self, Record};
use super::running::Running;
use super::spec::{Namespace, NamespaceSpec};
use super::{etc, netns, network};
use crate::sys;

/// How long the holder may take to make its namespaces.
const HOLDER_START_LIMIT: Duration = Duration::from_secs(10);
/// How long the processes of a pod may take to end after SIGKILL; only one stuck in the kernel takes longer.
const HOLDER_END_LIMIT: Duration = Duration::from_secs(5);
const HOLDER_END_STEP: Duration = Duration::from_millis(2);

/// What all pods of one helper have in common.
#[derive(Debug)]
pub(super) struct Context {
    /// Whether the helper lives in a user namespace of its own.
    pub(super) user_namespace: bool,
    /// Where the records are.
    pub(super) records: PathBuf,
}

/// A pod, complete or on the way to be; each field says what has to be undone.
#[derive(Debug)]
pub(super) struct Pod {
    /// What is known about it.
    pub(super) namespace: Namespace,
    /// The queue of its TAP.
    pub(super) tap: Option<OwnedFd>,
    /// What runs in it.
    pub(super) containers: Running,
    holder: Option<Holder>,
    /// The holder ends when this closes.
    channel: Option<Channel>,
    /// Whether it lives in the network namespace of another pod.
    guest: bool,
    /// Somebody else's network namespace, and the index of our interface there.
    foreign: Option<(OwnedFd, Option<u32>)>,
    named: bool,
    recorded: bool,
}

impl Pod {
    /// Has the pod ask anew for all its neighbours: it has moved, and they are not where they were.
    pub(super) fn forget_neighbors(&self) -> Result<(), Failure> {
        let path = format!("/proc/{}/ns/net", self.namespace.pause_pid);
        let netns = File::open(&path).map_err(|error| Failure::system(path, &error))?;
        network::forget_neighbors(&netns.into(), &self.namespace.interface)
    }

    /// Makes a pod, or undoes what was made of it.
    pub(super) fn create(context: &Context, spec: &NamespaceSpec) -> Result<Self, Failure> {
        Self::make(context, spec, None)
    }

    /// Makes a pod in the network namespace of another, or undoes what was made of it.
    pub(super) fn join(context: &Context, spec: &NamespaceSpec, host: &Self) -> Result<Self, Failure> {
        let path = format!("/proc/{}/ns/net", host.namespace.pause_pid);
        let netns = File::open(&path).map_err(|error| Failure::system(path, &error))?;
        Self::make(context, spec, Some(netns.into()))
    }

    /// Whether it lives in the network namespace of another pod.
    pub(super) fn is_guest(&self) -> bool {
        self.guest
    }

    fn make(context: &Context, spec: &NamespaceSpec, host: Option<OwnedFd>) -> Result<Self, Failure> {
        spec.validate().map_err(|why| Failure::new(FailureKind::Invalid, why))?;
        let mut pod = Self {
            namespace: Namespace {
                name: spec.name.clone(),
                pause_pid: 0,
                netns_inode: 0,
                interface: spec.interface.clone(),
                mtu: spec.mtu,
                vnet_hdr: false,
                alive: false,
                tag: spec.tag.clone(),
                warnings: Vec::new(),
            },
            tap: None,
            containers: Running::default(),
            holder: None,
            channel: None,
            guest: host.is_some(),
            foreign: host.map(|netns| (netns, None)),
            named: false,
            recorded: false,
        };
        match pod.build(context, spec) {
            Ok(()) => Ok(pod),
            Err(mut failure) => {
                failure.left_behind = pod.end(context);
                Err(failure)
            }
        }
    }

    fn build(&mut self, context: &Context, spec: &NamespaceSpec) -> Result<(), Failure> {
        let recording = |error| Failure::system("cannot write to the state directory", &error);
        if self.guest {
            // It has a namespace already, and needs no name for it.
        } else if let Some(existing) = &spec.existing {
            self.foreign = Some((netns::open_existing(existing)?, None));
        } else if netns::name_path(&spec.name).exists() {
            // Before the record, which must never name what is not ours.
            netns::reserve_name(&spec.name)?;
        }
        // Somebody else's namespace gets no name from us, and so there is none to be removed.
        let private = context.user_namespace || self.foreign.is_some();
        let mut record = Record { name: spec.name.clone(), private, netns_inode: None };
        self.recorded = true;
        record::write(&context.records, &record).map_err(recording)?;
        if self.foreign.is_none() {
            netns::reserve_name(&spec.name)?;
            self.named = true;
        }

        let files = write_files(&context.records, spec).map_err(recording)?;
        let existing = self.foreign.is_some();
        self.start_holder(&PauseSpec { hostname: spec.hostname.clone(), files, existing }, &spec.name)?;
        if self.named {
            netns::give_name(&spec.name, self.namespace.pause_pid)?;
        }
        if self.is_seen(context)
            && let Err(error) = etc::write(&spec.name, &spec.files)
        {
            self.namespace.warnings.push(format!("`ip netns exec` shows the machine's files: {error}"));
        }
        let look = |error| Failure::system("cannot look at the pod's network namespace", &error);
        let netns: OwnedFd =
            File::open(format!("/proc/{}/ns/net", self.namespace.pause_pid)).map_err(look)?.into();
        let inode = File::from(netns.try_clone().map_err(look)?).metadata().map_err(look)?.ino();
        self.namespace.netns_inode = inode;
        record.netns_inode = Some(inode);
        record::write(&context.records, &record).map_err(recording)?;

        if self.guest {
            return Ok(());
        }
        let (tap, vnet_hdr) = network::make_tap(spec)?;
        self.tap = Some(tap);
        self.namespace.vnet_hdr = vnet_hdr;
        let index = self.foreign.as_mut().map(|(_, index)| index);
        let mut warnings = network::configure(spec, &netns, context.user_namespace, index)?;
        self.namespace.warnings.append(&mut warnings);
        Ok(())
    }

    /// Gives the pod another name; it has its old one if that fails. Returns what of the old one could not be removed.
    pub(super) fn rename(&mut self, context: &Context, to: &str) -> Result<Vec<String>, Failure> {
        let name = self.namespace.name.clone();
        let private = context.user_namespace || self.foreign.is_some();
        let netns_inode = Some(self.namespace.netns_inode);
        if self.named {
            // Before the record, which must never name what is not ours.
            netns::reserve_name(to)?;
        }
        let record = Record { name: to.to_owned(), private, netns_inode };
        let given = record::write(&context.records, &record)
            .map_err(|error| Failure::system("cannot write to the state directory", &error))
            .and_then(|()| if self.named { netns::give_name(to, self.namespace.pause_pid) } else { Ok(()) });
        let undone = if given.is_ok() { &name } else { to };
        let mut problems = Vec::new();
        if given.is_ok()
            && self.is_seen(context)
            && let Err(error) = etc::rename(&name, to)
        {
            problems.push(format!("the files of {to}: {error}"));
        }
        if self.named
            && let Err(error) = netns::unname(undone)
        {
            problems.push(format!("{}: {error}", netns::name_path(undone).display()));
        } else if let Err(error) = record::remove(&context.records, undone) {
            problems.push(format!("the record of pod {undone}: {error}"));
        }
        match given {
            Ok(()) => {
                to.clone_into(&mut self.namespace.name);
                Ok(problems)
            }
            Err(mut failure) => {
                failure.left_behind = problems;
                Err(failure)
            }
        }
    }

    /// Whether `ip netns` of the machine sees it.
    fn is_seen(&self, context: &Context) -> bool {
        self.named && !context.user_namespace
    }

    /// Starts a container.
    pub(super) fn run(
        &mut self,
        context: &Context,
        spec: &ContainerSpec,
        now: Instant,
    ) -> Result<Reply, Failure> {
        let name = &self.namespace.name;
        if !self.namespace.alive {
            let why = format!("pod {name} has ended: nothing can be started in it any more");
            return Err(Failure::new(FailureKind::NotFound, why));
        }
        if let Some((uid, gid)) = spec.user.filter(|user| context.user_namespace && *user != (0, 0)) {
            let why = format!(
                "container {} cannot run as user {uid} and group {gid}: without root there is only user 0 in a pod, \
                 which is whoever runs vswitch",
                spec.name
            );
            return Err(Failure::new(FailureKind::NotPermitted, why));
        }
        self.containers.start(self.namespace.target(), spec, now).map(|pid| Reply::Started { pid })
    }

    fn start_holder(&mut self, spec: &PauseSpec, name: &str) -> Result<(), Failure> {
        let start = |error: io::Error| Failure::system("cannot start the holder of the pod", &error);
        let (ours, theirs) = Channel::pair().map_err(start)?;
        ours.limit_wait(HOLDER_START_LIMIT).map_err(start)?;
        let mut command = Command::new(super::SELF);
        command.arg0("vswitch").arg(super::PAUSE_ROLE).arg(name);
        command.stdin(Stdio::from(theirs.into_socket())).stdout(Stdio::null());
        let holder = Holder::start(&mut command).map_err(start)?;
        self.namespace.pause_pid = holder.0.as_raw().cast_unsigned();
        self.holder = Some(holder);
        // Ours is the only copy of the other end of the socket from here on.
        drop(command);
        let descriptors: Vec<_> = self.foreign.iter().map(|(netns, _)| netns.as_fd()).collect();
        ours.send(spec, &descriptors).map_err(start)?;
        match ours.receive::<PauseReply>().map_err(start)? {
            Some((PauseReply::Ready { warnings }, _)) => {
                self.namespace.alive = true;
                self.namespace.warnings = warnings;
                self.channel = Some(ours);
                Ok(())
            }
            Some((PauseReply::Failed(failure), _)) => Err(failure),
            None => Err(Failure::new(FailureKind::System, "the holder of the pod ended at once")),
        }
    }

    /// Looks whether the holder ended by itself; true if that is news.
    pub(super) fn notice_end(&mut self) -> bool {
        let ended = self.holder.as_ref().is_some_and(Holder::has_ended);
        if ended {
            self.holder = None;
            self.channel = None;
            self.namespace.alive = false;
        }
        ended
    }

    /// Kills the holder without waiting for it, so that many pods can end side by side.
    pub(super) fn kill(&mut self) {
        self.channel = None;
        if let Some(holder) = &self.holder {
            holder.kill();
        }
    }

    /// Undoes everything there is of the pod, and returns what could not be undone. May be called again then.
    pub(super) fn end(&mut self, context: &Context) -> Vec<String> {
        let mut problems = Vec::new();
        // A namespace that lives on would keep the interface as long as anybody has its queue.
        if let Some((netns, Some(index))) = &self.foreign {
            match network::remove(netns, *index) {
                Ok(()) => self.foreign = None,
                Err(failure) => problems.push(failure.to_string()),
            }
        }
        self.kill();
        if self.holder.as_ref().is_some_and(|holder| !holder.wait()) {
            let pid = self.namespace.pause_pid;
            problems.push(format!("process {pid}, the holder of pod {}, did not end", self.namespace.name));
        } else {
            self.holder = None;
            self.namespace.alive = false;
            self.containers.wait_for_all();
        }
        self.tap = None;
        if self.is_seen(context)
            && let Err(error) = etc::remove(&self.namespace.name)
        {
            problems.push(format!("the files of {}: {error}", self.namespace.name));
        }
        if self.named {
            match netns::unname(&self.namespace.name) {
                Ok(()) => self.named = false,
                Err(error) => {
                    problems.push(format!("{}: {error}", netns::name_path(&self.namespace.name).display()));
                }
            }
        }
        if self.recorded && !self.named {
            match record::remove(&context.records, &self.namespace.name) {
                Ok(()) => self.recorded = false,
                Err(error) => problems.push(format!("the record of pod {}: {error}", self.namespace.name)),
            }
        }
        problems
    }
}

/// The first process of a pod, a child of ours that has not been waited for.
#[derive(Debug)]
struct Holder(Pid);

impl Holder {
    /// Starts `command` in a new PID namespace.
    fn start(command: &mut Command) -> io::Result<Self> {
        sys::spawn_in_new_pid_namespace(command).map(Self)
    }

    fn kill(&self) {
        // Fails only if there is no such process, and it is ours until we have waited for it.
        let _ = kill(self.0, Signal::SIGKILL);
    }

    /// Whether it has ended. After that its number may belong to another process.
    fn has_ended(&self) -> bool {
        !matches!(waitpid(self.0, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
    }

    /// Waits for it after it was killed; false if it does not end.
    fn wait(&self) -> bool {
        let mut left = HOLDER_END_LIMIT;
        while !self.has_ended() {
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(HOLDER_END_STEP);
            left = left.saturating_sub(HOLDER_END_STEP);
        }
        true
    }
}

/// Writes what the pod is to see at other places, and returns (what, where).
fn write_files(records: &Path, spec: &NamespaceSpec) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    if spec.files.is_empty() {
        return Ok(Vec::new());
    }
    let directory = record::files_directory(records, &spec.name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    let mut written = Vec::with_capacity(spec.files.len());
    for (index, file) in spec.files.iter().enumerate() {
        let path = directory.join(index.to_string());
        fs::write(&path, &file.content)?;
        // Processes of any user read it in the pod, where only the file itself is to be seen.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        written.push((path, file.path.clone()));
    }
    Ok(written)
}
