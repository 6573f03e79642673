//! The role `__helper`: the process that owns the namespaces.
//!
//! # Theory of operation
//! One thread, one `poll`: requests are carried out one after the other, each to its end. The inherited socket is
//! the first owner; whoever connects to `helper.sock` (only this user can: the directory is private) may ask the
//! same questions and may become the owner. While there is no owner a deadline runs; when it passes, and on
//! SIGTERM, everything is undone and the process exits. The signals of a terminal do not reach it: it is in a
//! session of its own, so that Ctrl-C lets vswitch end in order.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::ops::Bound;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::pod::{Context, Pod};
use super::protocol::{
    Channel, Failure, FailureKind, HelperInfo, LIST_PAGE, Numbered, Reply, Request, VERSION,
};
use super::{netns, pause};
use crate::state::StatePaths;
use crate::sys;

/// Namespaces of one helper; each takes two descriptors here.
const MAX_NAMESPACES: usize = 4096;
/// Connections at once; another one is closed at once.
const MAX_CONNECTIONS: usize = 16;

/// Runs the role until vswitch asks it to end or has been gone for the grace period.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain("the helper", &error),
    }
}

/// Says on standard error why a role ended.
pub(super) fn complain(who: &str, error: &io::Error) -> ExitCode {
    // Standard error may be gone, and then there is nobody to tell.
    let _ = writeln!(io::stderr(), "vswitch: {who}: {error}");
    ExitCode::FAILURE
}

fn run() -> io::Result<()> {
    let channel = pause::take_standard_input()?;
    let Some((request, _)) = channel.receive::<Numbered<Request>>()? else { return Ok(()) };
    let Numbered { number, body: Request::Start { version, state_directory, grace_ms } } = request else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is not `start`"));
    };
    let started = if version == VERSION {
        Server::start(channel.as_fd().try_clone_to_owned()?, state_directory, grace_ms)
    } else {
        Err(other_version(version))
    };
    match started {
        Ok(server) => {
            channel.send(&Numbered { number, body: Reply::Ready(server.info()) }, &[])?;
            // From here on only the server's copy counts as the owner.
            drop(channel);
            server.serve()
        }
        Err(failure) => channel.send(&Numbered { number, body: Reply::Failed(failure) }, &[]),
    }
}

fn other_version(version: u32) -> Failure {
    let why = format!("the helper speaks version {VERSION} of its protocol and vswitch version {version}");
    Failure::new(FailureKind::Invalid, why)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the helper is part of the runtime: it measures its owner's absence"
)]
fn now() -> Instant {
    Instant::now()
}

struct Connection {
    channel: Channel,
    owner: bool,
    /// Where to say that something has ended, if the peer asked for that.
    watch: Option<OwnedFd>,
}

impl Connection {
    fn new(socket: OwnedFd, owner: bool) -> Self {
        Self { channel: Channel::new(socket), owner, watch: None }
    }
}

struct Server {
    context: Context,
    paths: StatePaths,
    grace: Duration,
    signals: SignalFd,
    listener: OwnedFd,
    connections: Vec<Connection>,
    /// When everything ends; set while there is no owner.
    deadline: Option<Instant>,
    pods: BTreeMap<String, Pod>,
}

/// What to send back.
struct Answer {
    reply: Reply,
    descriptor: Option<OwnedFd>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, descriptor: None }
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        Reply::Failed(failure).into()
    }
}

impl Server {
    fn start(owner: OwnedFd, state_directory: PathBuf, grace_ms: u64) -> Result<Self, Failure> {
        let system = |what: &'static str| move |error: io::Error| Failure::system(what, &error);
        let errno = |what: &'static str| move |errno: Errno| Failure::system(what, &errno.into());
        // Fails only for a leader of a process group, which a child just started is not.
        let _ = nix::unistd::setsid();
        std::env::set_current_dir("/").map_err(system("cannot enter /"))?;
        raise_descriptor_limit();
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
            signals.add(signal);
        }
        signals.thread_set_mask().map_err(errno("cannot block signals"))?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(errno("cannot receive signals"))?;

        let paths = StatePaths::new(state_directory);
        let socket = paths.helper_socket();
        if Channel::connect(&socket).is_ok() {
            let why =
                "a helper of a former vswitch still owns the state directory; adopt or reclaim it first";
            return Err(Failure::new(FailureKind::Exists, why));
        }
        let user_namespace = netns::enter_own_namespaces()?;
        netns::prepare_directory(user_namespace)?;
        remove_socket(&socket).map_err(system("cannot remove the old helper.sock"))?;
        let listener = Channel::listen(&socket)
            .map_err(|error| Failure::system(format!("cannot listen on {}", socket.display()), &error))?;
        let context = Context { user_namespace, records: paths.namespaces() };
        Ok(Self {
            context,
            paths,
            grace: Duration::from_millis(grace_ms),
            signals,
            listener,
            connections: vec![Connection::new(owner, true)],
            deadline: None,
            pods: BTreeMap::new(),
        })
    }

    fn info(&self) -> HelperInfo {
        HelperInfo { pid: std::process::id(), user_namespace: self.context.user_namespace }
    }

    fn serve(mut self) -> io::Result<()> {
        while self.turn()? {}
        for problem in self.end_all() {
            let _ = writeln!(io::stderr(), "vswitch: the helper left behind: {problem}");
        }
        // What nobody owns any more must not be found by the next instance. Agents end with their nodes' namespaces.
        remove_socket(&self.paths.helper_socket())?;
        remove_socket(&self.paths.agents_socket())
    }

    /// Waits for something to happen and deals with it; false when it is time to end.
    fn turn(&mut self) -> io::Result<bool> {
        if self.deadline.is_some_and(|deadline| deadline <= now()) {
            return Ok(false);
        }
        let ready = self.wait()?;
        while let Some(signal) = self.signals.read_signal()? {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                return Ok(false);
            }
        }
        let mut news = false;
        let mut gone = Vec::new();
        for pod in self.pods.values_mut() {
            if pod.notice_end() {
                news = true;
                gone.extend((!pod.is_guest()).then_some(pod.namespace.netns_inode));
            }
            news |= pod.containers.notice_ends(now());
        }
        // Whoever shares a network namespace goes with its owner.
        for guest in self.pods.values_mut().filter(|pod| pod.is_guest()) {
            if gone.contains(&guest.namespace.netns_inode) {
                guest.kill();
            }
        }
        if news {
            self.tell();
        }
        // From the last to the first, because a closed connection is removed.
        for (index, _) in ready.iter().enumerate().filter(|(_, ready)| **ready).rev() {
            if !self.hear(index) {
                return Ok(false);
            }
        }
        self.accept();
        self.watch_owner();
        // Without an owner and without pods nobody is waited for.
        Ok(self.deadline.is_none() || !self.pods.is_empty() || !self.connections.is_empty())
    }

    /// Waits for a signal, a connection, a message or the deadline; says which connections have something.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let mut waiting = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        waiting.extend(
            self.connections
                .iter()
                .map(|connection| PollFd::new(connection.channel.as_fd(), PollFlags::POLLIN)),
        );
        let timeout = match self.deadline {
            // One millisecond more, so that the deadline has passed when the time is over.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut waiting, timeout) {
            Ok(_) => Ok(waiting.iter().skip(2).map(|fd| fd.any() == Some(true)).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Says on every pipe that something has ended.
    fn tell(&self) {
        for watch in self.connections.iter().filter_map(|connection| connection.watch.as_ref()) {
            // If it is full the peer has enough to read.
            let _ = nix::unistd::write(watch, &[0]);
        }
    }

    fn accept(&mut self) {
        while let Ok(socket) = sys::accept(self.listener.as_fd()) {
            if self.connections.len() < MAX_CONNECTIONS {
                self.connections.push(Connection::new(socket, false));
            }
        }
    }

    /// Starts the deadline when the owner has gone and stops it when there is one.
    fn watch_owner(&mut self) {
        if self.connections.iter().any(|connection| connection.owner) {
            self.deadline = None;
        } else if self.deadline.is_none() {
            self.deadline = now().checked_add(self.grace);
        }
    }

    /// Answers one connection; false after a request to end.
    fn hear(&mut self, index: usize) -> bool {
        let Some(connection) = self.connections.get(index) else { return true };
        // A peer that does not keep to the protocol is as good as gone.
        let Ok(Some((Numbered { number, body }, _))) = connection.channel.receive::<Numbered<Request>>()
        else {
            self.connections.swap_remove(index);
            return true;
        };
        let ending = matches!(body, Request::Shutdown);
        let Answer { reply, descriptor } = self.answer(index, body);
        if let Some(connection) = self.connections.get(index) {
            let descriptors: Vec<_> = descriptor.iter().map(OwnedFd::as_fd).collect();
            if connection.channel.send(&Numbered { number, body: reply }, &descriptors).is_err() {
                self.connections.swap_remove(index);
            }
        }
        !ending
    }

    fn answer(&mut self, index: usize, request: Request) -> Answer {
        match request {
            Request::Start { .. } => {
                Failure::new(FailureKind::Invalid, "the helper has been started already").into()
            }
            Request::Adopt { version, grace_ms } => {
                if version != VERSION {
                    return other_version(version).into();
                }
                // Whoever holds the lock of the state directory is the owner, and the former one is gone.
                for (other, connection) in self.connections.iter_mut().enumerate() {
                    connection.owner = other == index;
                }
                self.grace = Duration::from_millis(grace_ms);
                Reply::Ready(self.info()).into()
            }
            Request::Create(spec) => self.create(&spec, None),
            Request::Join { spec, host } => self.create(&spec, Some(&host)),
            Request::Delete { name } => match self.pods.get_mut(&name) {
                Some(pod) => {
                    let problems = pod.end(&self.context);
                    // What could not be undone is kept, to be tried again.
                    if problems.is_empty() {
                        self.pods.remove(&name);
                    }
                    self.tell();
                    Reply::Ended { problems }.into()
                }
                None => not_found(&name),
            },
            Request::Rename { name, to } => self.rename(&name, to),
            Request::Tap { name } => match self.pods.get(&name) {
                Some(pod) => with_tap(Reply::Tap, pod),
                None => not_found(&name),
            },
            Request::ForgetNeighbors { name } => match self.pods.get(&name) {
                Some(pod) => match pod.forget_neighbors() {
                    Ok(()) => Reply::Ended { problems: Vec::new() }.into(),
                    Err(failure) => failure.into(),
                },
                None => not_found(&name),
            },
            Request::List { after } => self.list(after.as_deref()).into(),
            Request::Look { name } => match self.pods.get(&name) {
                Some(pod) => Reply::Namespace(Box::new(pod.namespace.clone())).into(),
                None => not_found(&name),
            },
            Request::Run { namespace, container } => match self.pods.get_mut(&namespace) {
                Some(pod) => pod.run(&self.context, &container, now()).map_or_else(Answer::from, Into::into),
                None => not_found(&namespace),
            },
            Request::Signal { namespace, container, signal } => match self.pods.get_mut(&namespace) {
                Some(pod) => {
                    let sent = pod.containers.signal(&container, signal);
                    sent.map_or_else(Answer::from, |()| Reply::Signalled.into())
                }
                None => not_found(&namespace),
            },
            Request::Forget { namespace } => match self.pods.get_mut(&namespace) {
                Some(pod) => {
                    pod.containers.forget();
                    Reply::Signalled.into()
                }
                None => not_found(&namespace),
            },
            Request::Containers { after } => self.containers(after).into(),
            Request::Watch => self.watch(index),
            Request::Shutdown => Reply::Ended { problems: self.end_all() }.into(),
        }
    }

    fn create(&mut self, spec: &super::NamespaceSpec, host: Option<&str>) -> Answer {
        if self.pods.contains_key(&spec.name) {
            let why = format!("a pod named {:?} exists already", spec.name);
            return Failure::new(FailureKind::Exists, why).into();
        }
        if self.pods.len() >= MAX_NAMESPACES {
            let why = format!("one helper owns at most {MAX_NAMESPACES} namespaces");
            return Failure::new(FailureKind::System, why).into();
        }
        let made = match host.map(|name| (name, self.pods.get(name).filter(|pod| pod.namespace.alive))) {
            None => Pod::create(&self.context, spec),
            Some((_, Some(host))) => Pod::join(&self.context, spec, host),
            Some((name, None)) => return not_found(name),
        };
        match made {
            Ok(mut pod) => {
                let mut namespace = pod.namespace.clone();
                // They are told once; a message about all pods has no room for them.
                pod.namespace.warnings = Vec::new();
                namespace.warnings.truncate(32);
                let answer = if pod.is_guest() {
                    Reply::Namespace(Box::new(namespace)).into()
                } else {
                    with_tap(Reply::Created(Box::new(namespace)), &pod)
                };
                self.pods.insert(spec.name.clone(), pod);
                answer
            }
            Err(failure) => failure.into(),
        }
    }

    fn rename(&mut self, name: &str, to: String) -> Answer {
        if self.pods.contains_key(&to) {
            return Failure::new(FailureKind::Exists, format!("a pod named {to:?} exists already")).into();
        }
        let Some(mut pod) = self.pods.remove(name) else { return not_found(name) };
        let renamed = pod.rename(&self.context, &to);
        self.pods.insert(pod.namespace.name.clone(), pod);
        renamed.map_or_else(Answer::from, |problems| Reply::Ended { problems }.into())
    }

    fn list(&self, after: Option<&str>) -> Reply {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.pods.range::<str, _>((start, Bound::Unbounded));
        let page = rest.by_ref().take(LIST_PAGE).map(|(_, pod)| pod.namespace.clone()).collect();
        Reply::Namespaces { page, more: rest.next().is_some() }
    }

    fn containers(&self, after: Option<(String, String)>) -> Reply {
        let (namespace, name) = after.unzip();
        let first = namespace.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let pods = self.pods.range::<str, _>((first, Bound::Unbounded));
        let mut rest = pods.flat_map(|(pod_name, pod)| {
            let after = name.as_deref().filter(|_| namespace.as_ref() == Some(pod_name));
            pod.containers.list(pod_name, after, now())
        });
        let page = rest.by_ref().take(LIST_PAGE).collect();
        Reply::Containers { page, more: rest.next().is_some() }
    }

    fn watch(&mut self, index: usize) -> Answer {
        let pipe = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK);
        let connection = self.connections.get_mut(index);
        match (pipe, connection) {
            (Ok((reader, writer)), Some(connection)) => {
                connection.watch = Some(writer);
                Answer { reply: Reply::Watching, descriptor: Some(reader) }
            }
            (Err(errno), _) => Failure::system("cannot make a pipe", &errno.into()).into(),
            (_, None) => Failure::new(FailureKind::System, "the connection is gone").into(),
        }
    }

    fn end_all(&mut self) -> Vec<String> {
        for pod in self.pods.values_mut() {
            pod.kill();
        }
        let mut problems = Vec::new();
        self.pods.retain(|_, pod| {
            let mut of_this = pod.end(&self.context);
            let keep = !of_this.is_empty();
            problems.append(&mut of_this);
            keep
        });
        problems
    }
}

fn not_found(name: &str) -> Answer {
    Failure::new(FailureKind::NotFound, format!("there is no pod named {name:?}")).into()
}

fn with_tap(reply: Reply, pod: &Pod) -> Answer {
    match pod.tap.as_ref().map(OwnedFd::try_clone) {
        Some(Ok(tap)) => Answer { reply, descriptor: Some(tap) },
        Some(Err(error)) => Failure::system("cannot duplicate the TAP's descriptor", &error).into(),
        None => not_found(&pod.namespace.name),
    }
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Two descriptors per pod outgrow the usual soft limit; whoever set the hard one meant that. A helper with the
/// lower limit still works until it reaches it.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
