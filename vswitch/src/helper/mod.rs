//! The helper: a process that owns network namespaces and TAP devices on behalf of vswitch.
//!
//! # Theory of operation
//! [`Helper::start`] runs this executable once more in the role `__helper` and talks to it over a socket. The helper
//! lives in a network namespace of its own and, when vswitch is not root, in a user and a mount namespace of its
//! own, so that it has every right it needs over things that nobody else sees. For each pod it starts a holder
//! (`__pause`), the first process of a new PID namespace, which makes the pod's network, mount and host-name
//! namespaces. The helper names the network namespace under [`NETNS_DIRECTORY`], makes a TAP device in its own
//! namespace, moves it into the pod's, configures it there, and passes the TAP's queue to vswitch.
//!
//! The helper also runs the containers of a pod, because a child lives as long as its parent at most and a container is
//! to outlive vswitch as its pod does. What should run when, and again, is not its business: it starts what it is told
//! to start ([`Containers::run`]), remembers what became of it, and wakes whoever asked for that.
//!
//! Who keeps what alive:
//! - the processes of a pod live as long as its holder, and that as long as the helper (parent-death signal, and
//!   the end of a socket for the moment before the signal is armed);
//! - the network namespace lives as long as its name under [`NETNS_DIRECTORY`] or a process in it;
//! - the TAP device lives as long as its network namespace **and** one descriptor of its queue. The helper keeps a
//!   duplicate, so that a vswitch that was killed can be succeeded by one that adopts the pods with their
//!   connections. When the namespace vanishes the descriptor reports `EBADFD`, because the queue was opened in the
//!   helper's namespace and not in the pod's;
//! - the helper lives while its owner is connected, and a grace period beyond that. In that time another vswitch
//!   can connect to `helper.sock` in the state directory and adopt it ([`Helper::adopt`]) or end it
//!   ([`Helper::reclaim`]). Then it undoes everything and exits. Without any namespace it exits at once.
//!
//! What a helper that was itself killed leaves behind is names under [`NETNS_DIRECTORY`] (root only). It wrote
//! them to the state directory before it made them; [`Helper::reclaim`] removes them.
//!
//! The directory [`NETNS_DIRECTORY`] itself and its mount onto itself are made as `ip netns add` makes them, and
//! stay as they do there.

mod contain;
mod container;
mod containers;
mod etc;
pub mod exec;
mod log;
pub(crate) mod netlink;
mod netns;
mod network;
pub(crate) mod pause;
mod pod;
mod protocol;
mod record;
mod running;
pub(crate) mod server;
mod spec;
mod wait;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use container::{ContainerInfo, ContainerSpec, RunState};
pub use containers::Containers;
pub(crate) use etc::MADE_BY;
pub use log::MAX_LOG;
pub(crate) use netns::DOCTOR_KNOWS;
pub(crate) use network::tun_remedy;
pub use protocol::{Failure, FailureKind, HelperInfo};
pub(crate) use spec::made_of;
pub use spec::{
    DEFAULT_TX_QUEUE_LENGTH, Existing, MAX_MTU, MIN_IPV6_MTU, MIN_MTU, Namespace, NamespaceSpec, Offload,
    PodFile, validate_name,
};

use crate::state::StatePaths;
use protocol::{Channel, Numbered, Reply, Request};

pub(crate) const HELPER_ROLE: &str = "__helper";
pub(crate) const PAUSE_ROLE: &str = "__pause";
pub(crate) const ENTER_ROLE: &str = "__enter";

/// Where `ip netns` finds namespaces by name.
pub const NETNS_DIRECTORY: &str = "/run/netns";
/// How long a helper outlives its owner unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// How long to wait for any one reply. Ending hundreds of namespaces takes seconds, never this long.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// This executable, even if it was replaced on disk meanwhile.
pub(crate) const SELF: &str = "/proc/self/exe";

/// How to start a helper.
#[derive(Clone, Debug)]
pub struct HelperOptions {
    /// Where the state directory is. It must exist, and its lock should be held by the caller.
    pub state: StatePaths,
    /// How long the helper outlives its owner.
    pub grace: Duration,
    /// The `vswitch` executable; this process's own if `None`. Programs that embed this crate must either name it
    /// or call [`crate::inner_role`] at the start of their `main`.
    pub executable: Option<PathBuf>,
}

impl HelperOptions {
    /// With [`DEFAULT_GRACE`] and this process's own executable.
    pub fn new(state: StatePaths) -> Self {
        Self { state, grace: DEFAULT_GRACE, executable: None }
    }
}

/// Why the helper did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// The helper could not be started.
    #[error("cannot start the helper: {what}: {source}")]
    Start {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The helper could not carry the request out. Nothing is left of it but what the failure lists.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The connection failed; what became of the request is unknown.
    #[error("the connection to the helper failed: {0}")]
    Connection(#[from] io::Error),
    /// The helper has ended.
    #[error("the helper has ended; its standard error is in helper.log in the state directory")]
    Gone,
    /// The helper's answer does not fit the question.
    #[error("the helper answered out of turn")]
    Protocol,
}

/// A namespace just made, and the queue of its TAP.
#[derive(Debug)]
pub struct Created {
    /// What was made.
    pub namespace: Namespace,
    /// The TAP, non-blocking; offloads and header size are still the kernel's defaults.
    pub tap: OwnedFd,
}

/// What [`Helper::reclaim`] found and removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reclaimed {
    /// The pid of a helper that was still there and has been ended.
    pub helper: Option<u32>,
    /// The names under [`NETNS_DIRECTORY`] that had been left behind by a helper that was killed.
    pub namespaces: Vec<String>,
    /// What could not be removed, in sentences.
    pub problems: Vec<String>,
}

/// A running helper whose owner this process is. Dropping it without [`Self::shutdown`] leaves the helper and its
/// namespaces running for the grace period.
#[derive(Debug)]
pub struct Helper {
    connection: Connection,
    info: HelperInfo,
    /// The process, if we started it: to be waited for.
    child: Option<Child>,
}

impl Helper {
    /// Starts a helper. What a former vswitch left in the state directory must have been adopted or reclaimed.
    ///
    /// # Errors
    /// [`HelperError::Start`] if the process cannot be started, [`HelperError::Failed`] with kind `Exists` if another
    /// helper lives in the state directory, with another kind if the operating system does not let it make its
    /// namespaces: [`crate::doctor`] says what to do about it.
    pub fn start(options: &HelperOptions) -> Result<Self, HelperError> {
        let start = |what| move |source| HelperError::Start { what, source };
        let (ours, theirs) = Channel::pair().map_err(start("socketpair"))?;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(options.state.helper_log())
            .map_err(start("helper.log"))?;
        let executable = options.executable.clone().unwrap_or_else(|| PathBuf::from(SELF));
        let mut child = Command::new(executable)
            .arg0("vswitch")
            .arg(HELPER_ROLE)
            // For whoever reads the list of processes.
            .arg(options.state.root())
            .stdin(Stdio::from(theirs.into_socket()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(start("exec"))?;
        let mut connection = match Connection::new(ours) {
            Ok(connection) => connection,
            Err(error) => {
                end(&mut child);
                return Err(error);
            }
        };
        let request = Request::Start {
            version: protocol::VERSION,
            state_directory: options.state.root().to_owned(),
            grace_ms: options.grace.as_millis().try_into().unwrap_or(u64::MAX),
        };
        match connection.ask(request) {
            Ok((Reply::Ready(info), _)) => Ok(Self { connection, info, child: Some(child) }),
            other => {
                end(&mut child);
                Err(unexpected(other))
            }
        }
    }

    /// Becomes the owner of a helper that a former vswitch left behind, with all its namespaces; `None` if there is
    /// none. Its TAPs are had by [`Self::list`] and [`Self::tap`]. Call with the lock of the state directory held.
    ///
    /// # Errors
    /// [`HelperError::Failed`] if the helper is of another version (reclaim it then), or the connection's.
    pub fn adopt(options: &HelperOptions) -> Result<Option<Self>, HelperError> {
        let Some(mut connection) = Connection::find(&options.state)? else { return Ok(None) };
        let grace_ms = options.grace.as_millis().try_into().unwrap_or(u64::MAX);
        match connection.ask(Request::Adopt { version: protocol::VERSION, grace_ms }) {
            Ok((Reply::Ready(info), _)) => Ok(Some(Self { connection, info, child: None })),
            // It ended between our connecting and its reading.
            Err(HelperError::Gone) => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    /// Ends a helper that a former vswitch left behind, with all its namespaces, and removes what a helper that was
    /// killed left behind. Does nothing if there is nothing. Call with the lock of the state directory held.
    ///
    /// # Errors
    /// Those of the connection, if there is a helper that does not answer.
    pub fn reclaim(state: &StatePaths) -> Result<Reclaimed, HelperError> {
        let mut reclaimed = Reclaimed::default();
        if let Some(mut connection) = Connection::find(state)? {
            let adopt = Request::Adopt { version: protocol::VERSION, grace_ms: 0 };
            // A helper of another version refuses to be adopted, yet can be told to end.
            match connection.ask(adopt) {
                Ok((Reply::Ready(info), _)) => reclaimed.helper = Some(info.pid),
                Ok(_) | Err(HelperError::Failed(_) | HelperError::Gone) => {}
                Err(error) => return Err(error),
            }
            match connection.ask(Request::Shutdown) {
                Ok((Reply::Ended { problems }, _)) => {
                    reclaimed.problems = problems;
                    connection.wait_for_end()?;
                }
                Err(HelperError::Gone) => {}
                other => return Err(unexpected(other)),
            }
        }
        let (removed, mut problems) = record::remove_stale(&state.namespaces());
        reclaimed.namespaces = removed;
        reclaimed.problems.append(&mut problems);
        for socket in [state.helper_socket(), state.agents_socket()] {
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    reclaimed.problems.push(format!("{}: {error}", socket.display()));
                }
                _ => {}
            }
        }
        Ok(reclaimed)
    }

    /// Who the helper is.
    pub fn info(&self) -> &HelperInfo {
        &self.info
    }

    /// Whether the helper has ended by itself, without waiting for anything.
    pub fn has_ended(&self) -> bool {
        let mut ended = [PollFd::new(self.connection.channel.as_fd(), PollFlags::empty())];
        // Its end of the socket closes with it; that is always reported.
        poll(&mut ended, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Makes a namespace.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `Invalid` or `Exists` before anything was made; with another kind after
    /// everything that had been made was undone again, except what the failure lists.
    pub fn create(&mut self, spec: &NamespaceSpec) -> Result<Created, HelperError> {
        spec.validate().map_err(|why| Failure::new(FailureKind::Invalid, why))?;
        match self.connection.ask(Request::Create(Box::new(spec.clone()))) {
            Ok((Reply::Created(namespace), Some(tap))) => Ok(Created { namespace: *namespace, tap }),
            other => Err(unexpected(other)),
        }
    }

    /// Makes a pod in the network namespace of another, whose name is `host`: it has processes, mounts and a host name of
    /// its own, and the other's interfaces. It ends when the other does. Of `spec` the name, the host name, the files and the
    /// tag matter.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if there is no such other, otherwise as [`Self::create`].
    pub fn join(&mut self, spec: &NamespaceSpec, host: &str) -> Result<Namespace, HelperError> {
        spec.validate().map_err(|why| Failure::new(FailureKind::Invalid, why))?;
        let request = Request::Join { spec: Box::new(spec.clone()), host: host.to_owned() };
        match self.connection.ask(request) {
            Ok((Reply::Namespace(namespace), _)) => Ok(*namespace),
            other => Err(unexpected(other)),
        }
    }

    /// Ends a namespace and every process in it, and returns what could not be undone, in sentences.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if there is none of that name.
    pub fn delete(&mut self, name: &str) -> Result<Vec<String>, HelperError> {
        match self.connection.ask(Request::Delete { name: name.to_owned() }) {
            Ok((Reply::Ended { problems }, _)) => Ok(problems),
            other => Err(unexpected(other)),
        }
    }

    /// Gives a namespace another name; whatever is in it goes on. Returns what of the old name could not be removed, in
    /// sentences.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `Exists` if the new name is taken, `NotFound` if there is none of the old; it has
    /// its old name then.
    pub fn rename(&mut self, name: &str, to: &str) -> Result<Vec<String>, HelperError> {
        validate_name(to).map_err(|why| Failure::new(FailureKind::Invalid, why))?;
        match self.connection.ask(Request::Rename { name: name.to_owned(), to: to.to_owned() }) {
            Ok((Reply::Ended { problems }, _)) => Ok(problems),
            other => Err(unexpected(other)),
        }
    }

    /// Every namespace, in order of name; without the warnings that [`Self::create`] returned.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn list(&mut self) -> Result<Vec<Namespace>, HelperError> {
        let mut all: Vec<Namespace> = Vec::new();
        loop {
            let after = all.last().map(|namespace| namespace.name.clone());
            match self.connection.ask(Request::List { after }) {
                Ok((Reply::Namespaces { page, more }, _)) => {
                    let more = more && !page.is_empty();
                    all.extend(page);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    /// The TAP of a namespace once more: another descriptor of the same queue.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if there is none of that name.
    pub fn tap(&mut self, name: &str) -> Result<OwnedFd, HelperError> {
        match self.connection.ask(Request::Tap { name: name.to_owned() }) {
            Ok((Reply::Tap, Some(tap))) => Ok(tap),
            other => Err(unexpected(other)),
        }
    }

    /// Has a namespace ask anew for all its neighbours.
    ///
    /// # Errors
    /// [`HelperError::Failed`] with kind `NotFound` if there is none of that name.
    pub fn forget_neighbors(&mut self, name: &str) -> Result<(), HelperError> {
        match self.connection.ask(Request::ForgetNeighbors { name: name.to_owned() }) {
            Ok((Reply::Ended { .. }, _)) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Ends every namespace and the helper, waits for it, and returns what could not be undone, in sentences.
    ///
    /// # Errors
    /// [`HelperError::Gone`] if the helper had ended by itself; [`Self::reclaim`] then removes what it left.
    pub fn shutdown(mut self) -> Result<Vec<String>, HelperError> {
        let reply = self.connection.ask(Request::Shutdown);
        let ended = match reply {
            Ok((Reply::Ended { problems }, _)) => self.connection.wait_for_end().map(|()| problems),
            other => Err(unexpected(other)),
        };
        if let (Some(child), Ok(_) | Err(HelperError::Gone)) = (&mut self.child, &ended) {
            child.wait()?;
        }
        ended
    }
}

/// Ends a helper that did not get as far as making anything.
fn end(child: &mut Child) {
    // Both fail only if the process is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn unexpected(result: Result<(Reply, Option<OwnedFd>), HelperError>) -> HelperError {
    match result {
        Ok(_) => HelperError::Protocol,
        Err(error) => error,
    }
}

/// Questions and answers in step.
#[derive(Debug)]
struct Connection {
    channel: Channel,
    number: u64,
}

impl Connection {
    fn new(channel: Channel) -> Result<Self, HelperError> {
        channel.limit_wait(REPLY_LIMIT)?;
        Ok(Self { channel, number: 0 })
    }

    /// Connects to the helper of this state directory, if there is one.
    fn find(state: &StatePaths) -> Result<Option<Self>, HelperError> {
        match Channel::connect(&state.helper_socket()) {
            Ok(channel) => Self::new(channel).map(Some),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn ask(&mut self, body: Request) -> Result<(Reply, Option<OwnedFd>), HelperError> {
        self.number += 1;
        match self.channel.send(&Numbered { number: self.number, body }, &[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(HelperError::Gone),
            // Nothing has been sent.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let why = format!("the helper cannot be told all that: {error}");
                return Err(Failure::new(FailureKind::Invalid, why).into());
            }
            other => other?,
        }
        loop {
            let Some((reply, mut descriptors)) = self.channel.receive::<Numbered<Reply>>()? else {
                return Err(HelperError::Gone);
            };
            if reply.number == self.number {
                if let Reply::Failed(failure) = reply.body {
                    return Err(failure.into());
                }
                return Ok((reply.body, descriptors.pop()));
            }
        }
    }

    /// Waits until the helper has closed its end, which it does by exiting.
    fn wait_for_end(&self) -> Result<(), HelperError> {
        while self.channel.receive::<Numbered<Reply>>()?.is_some() {}
        Ok(())
    }
}
