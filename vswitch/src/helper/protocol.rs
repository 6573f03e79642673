//! The words between vswitch, its helper and the holders of namespaces.
//!
//! # Theory of operation
//! A `SOCK_SEQPACKET` socket carries one JSON document per packet, at most [`MAX_PACKET`] octets, with descriptors
//! as ancillary data. A packet arrives whole or not at all, so a peer that stops in the middle of a message cannot
//! hold the helper up. What is longer, as the variables of a container among a thousand services are, is in a file in
//! memory whose descriptor comes with a packet that says so; it is sealed, so that it cannot change while it is read.
//! Every request has exactly one reply with the same number; a reply that comes after its asker gave up is recognised
//! by its number and dropped.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::container::{ContainerInfo, ContainerSpec};
use super::spec::{Namespace, NamespaceSpec};
use crate::sys;

/// Two programs that do not agree on this do not talk.
pub(crate) const VERSION: u32 = 5;
/// Octets in one packet; far below what a socket buffer holds, so that one reply never blocks.
pub(crate) const MAX_PACKET: usize = 64 * 1024;
/// Octets in one message: as JSON, more variables than execve(2) takes.
const MAX_MESSAGE: usize = 8 << 20;
/// The packet that comes with a file instead of a message; no JSON is like it.
const IN_FILE: &[u8] = b"\0";
/// What a file with a message must be kept from.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_WRITE);
/// Namespaces or containers in one reply; with the longest names they fit in a message.
pub(crate) const LIST_PAGE: usize = 64;

/// What can be asked of the helper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// First message on the inherited socket.
    Start { version: u32, state_directory: PathBuf, grace_ms: u64 },
    /// Makes the asking connection the helper's owner.
    Adopt { version: u32, grace_ms: u64 },
    /// Makes a namespace; the reply carries the TAP.
    Create(Box<NamespaceSpec>),
    /// Makes a pod in the network namespace of another, by that one's name.
    Join { spec: Box<NamespaceSpec>, host: String },
    /// Ends a namespace and everything in it.
    Delete { name: String },
    /// Gives a namespace another name, which nobody has.
    Rename { name: String, to: String },
    /// The TAP of a namespace once more.
    Tap { name: String },
    /// A page of what exists, in order of name, after the given one.
    List { after: Option<String> },
    /// One namespace.
    Look { name: String },
    /// Has a namespace ask anew for all its neighbours.
    ForgetNeighbors { name: String },
    /// Starts a container.
    Run { namespace: String, container: Box<ContainerSpec> },
    /// Signals a container.
    Signal { namespace: String, container: String, signal: i32 },
    /// Forgets the containers of a namespace that have ended.
    Forget { namespace: String },
    /// A page of the containers, in order of namespace and name, after the given one.
    Containers { after: Option<(String, String)> },
    /// A pipe on which an octet arrives whenever a container or a pod has ended, and whose end is the helper's.
    Watch,
    /// Ends every namespace, then the helper.
    Shutdown,
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// To `Start` and `Adopt`.
    Ready(HelperInfo),
    /// To `Create`; with one descriptor.
    Created(Box<Namespace>),
    /// To `Tap`; with one descriptor.
    Tap,
    /// To `Delete`, `Rename` and `Shutdown`; what could not be undone, in sentences.
    Ended { problems: Vec<String> },
    /// To `List`.
    Namespaces { page: Vec<Namespace>, more: bool },
    /// To `Join` and `Look`.
    Namespace(Box<Namespace>),
    /// To `Run`: the process that stands for the container.
    Started { pid: u32 },
    /// To `Signal` and `Forget`.
    Signalled,
    /// To `Containers`.
    Containers { page: Vec<ContainerInfo>, more: bool },
    /// To `Watch`; with one descriptor.
    Watching,
    /// To anything.
    Failed(Failure),
}

/// Who the helper is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HelperInfo {
    /// Its pid, by the host's numbering.
    pub pid: u32,
    /// Whether it lives in a user namespace of its own, because vswitch does not run as root.
    pub user_namespace: bool,
}

/// What kind of failure a [`Failure`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The request itself cannot be carried out.
    Invalid,
    /// A namespace, or a running container, of that name exists.
    Exists,
    /// No namespace, or no running container, of that name exists.
    NotFound,
    /// The operating system does not permit it.
    NotPermitted,
    /// The operating system refused for another reason.
    System,
}

/// A request that the helper could not carry out, and what became of undoing its parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What was being done and why it failed.
    pub message: String,
    /// What could not be undone afterwards, in sentences. Empty if nothing was left behind.
    pub left_behind: Vec<String>,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), left_behind: Vec::new() }
    }

    /// A failure of the operating system while doing `what`.
    pub(crate) fn system(what: impl std::fmt::Display, error: &io::Error) -> Self {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let kind = if denied { FailureKind::NotPermitted } else { FailureKind::System };
        Self::new(kind, format!("{what}: {error}"))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        for problem in &self.left_behind {
            write!(f, "; left behind: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What the helper tells the holder of a namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PauseSpec {
    /// The pod's name for itself.
    pub(crate) hostname: Option<String>,
    /// Files to lay over others: (what, where).
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// Whether the network namespace comes as a descriptor with this message instead of being made.
    pub(crate) existing: bool,
}

/// What the holder answers once its namespaces exist.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PauseReply {
    /// It holds them; what is not quite as asked.
    Ready { warnings: Vec<String> },
    /// It could not make them and ends.
    Failed(Failure),
}

/// A message with the number that joins a reply to its request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered<T> {
    pub(crate) number: u64,
    pub(crate) body: T,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
}

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Two connected ends, close-on-exec.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self::new(one), Self::new(other)))
    }

    /// A socket that accepts connections at `path`. Who may connect is decided by the directory's permissions.
    pub(crate) fn listen(path: &std::path::Path) -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
        socket::listen(&listener, socket::Backlog::new(8)?)?;
        Ok(listener)
    }

    /// Connects to a socket made by [`Self::listen`].
    pub(crate) fn connect(path: &std::path::Path) -> io::Result<Self> {
        let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self::new(socket))
    }

    /// The socket itself, to hand to a child.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Makes [`Self::receive`] give up after this long, with `WouldBlock`.
    pub(crate) fn limit_wait(&self, limit: std::time::Duration) -> io::Result<()> {
        let limit = nix::sys::time::TimeVal::new(
            limit.as_secs().try_into().unwrap_or(i64::MAX),
            limit.subsec_micros().into(),
        );
        socket::setsockopt(&self.socket, socket::sockopt::ReceiveTimeout, &limit)?;
        Ok(())
    }

    /// Sends one message without ever blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is too long for the protocol; `WouldBlock` if the peer does not read.
    pub(crate) fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MAX_MESSAGE {
            let why = format!("a message of {} octets; {MAX_MESSAGE} are allowed", text.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        if text.len() <= MAX_PACKET {
            return self.send_packet(&text, descriptors);
        }
        let file = sealed(&text)?;
        let all: Vec<_> = std::iter::once(file.as_fd()).chain(descriptors.iter().copied()).collect();
        self.send_packet(IN_FILE, &all)
    }

    fn send_packet(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        socket::sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(packet)], control, flags, None)?;
        Ok(())
    }

    /// Waits for one message; `None` when the peer has closed.
    ///
    /// # Errors
    /// `InvalidData` if it is not a `T` or was cut; otherwise those of the socket.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_PACKET];
        let received = loop {
            match sys::receive(self.socket.as_fd(), &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The peer closed with our last message unread.
                Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => return Ok(None),
                other => break other?,
            }
        };
        if received.length == 0 {
            return Ok(None);
        }
        if received.truncated {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message was too long"));
        }
        let mut descriptors = received.descriptors;
        buffer.truncate(received.length);
        if buffer == IN_FILE && !descriptors.is_empty() {
            buffer = unsealed(descriptors.remove(0))?;
        }
        let message = serde_json::from_slice(&buffer)?;
        Ok(Some((message, descriptors)))
    }
}

/// A file in memory that holds this for ever.
fn sealed(text: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("message", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(text)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file)
}

/// What a file holds that [`sealed`] made. Of any other kind of file nothing is read: it might have us wait.
fn unsealed(file: OwnedFd) -> io::Result<Vec<u8>> {
    let not_ours =
        || io::Error::new(io::ErrorKind::InvalidData, "a message in a file that is not sealed, or too long");
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| not_ours())?;
    let file = File::from(file);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if !SealFlag::from_bits_retain(seals).contains(SEALS) || length > MAX_MESSAGE {
        return Err(not_ours());
    }
    let mut text = vec![0; length];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_descriptor_arrive_together() {
        let (one, other) = Channel::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        one.send(&Numbered { number: 7, body: Reply::Tap }, &[file.as_fd()]).unwrap();
        let (message, descriptors) = other.receive::<Numbered<Reply>>().unwrap().unwrap();
        assert_eq!(message.number, 7);
        assert!(matches!(message.body, Reply::Tap));
        assert_eq!(descriptors.len(), 1);
        drop(one);
        assert!(other.receive::<Numbered<Reply>>().unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_or_not_a_message_is_an_error() {
        let (one, other) = Channel::pair().unwrap();
        let long = "x".repeat(MAX_MESSAGE);
        assert_eq!(one.send(&long, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        nix::unistd::write(&one, &vec![b' '; MAX_PACKET + 1]).unwrap();
        assert_eq!(other.receive::<Numbered<Request>>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        nix::unistd::write(&one, b"{\"number\":1}").unwrap();
        assert!(other.receive::<Numbered<Request>>().is_err());
        one.send(&Numbered { number: 1, body: Request::Shutdown }, &[]).unwrap();
        assert!(other.receive::<Numbered<Request>>().unwrap().is_some());
    }

    #[test]
    fn what_no_packet_holds_arrives_in_a_file_with_what_came_along() {
        let (one, other) = Channel::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        for length in [MAX_PACKET - 2, MAX_PACKET - 1, 2 << 20, MAX_MESSAGE - 2] {
            let long = "x".repeat(length);
            one.send(&long, &[null.as_fd()]).unwrap();
            let (said, descriptors) = other.receive::<String>().unwrap().unwrap();
            assert_eq!((said == long, descriptors.len()), (true, 1), "{length}");
        }
        one.send(&"short", &[]).unwrap();
        assert_eq!(other.receive::<String>().unwrap().unwrap().0, "short");
    }

    #[test]
    fn a_file_that_may_change_or_have_us_wait_is_not_read() {
        let (one, other) = Channel::pair().unwrap();
        let mut writable = File::from(memfd_create("message", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        writable.write_all(b"\"x\"").unwrap();
        let huge = File::from(memfd_create("message", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        huge.set_len(1 << 40).unwrap();
        fcntl(&huge, FcntlArg::F_ADD_SEALS(SEALS)).unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        for file in [writable.as_fd(), huge.as_fd(), pipe.as_fd()] {
            one.send_packet(IN_FILE, &[file]).unwrap();
            assert_eq!(other.receive::<String>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        one.send_packet(IN_FILE, &[]).unwrap();
        assert!(other.receive::<String>().is_err(), "no file at all");
    }

    #[test]
    fn a_page_of_the_longest_names_fits_in_a_message() {
        let namespace = Namespace {
            name: "x".repeat(200),
            pause_pid: u32::MAX,
            netns_inode: u64::MAX,
            interface: "x".repeat(15),
            mtu: u16::MAX,
            vnet_hdr: false,
            alive: false,
            tag: "x".repeat(64),
            warnings: Vec::new(),
        };
        let page = vec![namespace; LIST_PAGE];
        let text =
            serde_json::to_vec(&Numbered { number: u64::MAX, body: Reply::Namespaces { page, more: false } })
                .unwrap();
        // The rest is room for warnings, which a list leaves out.
        assert!(text.len() < MAX_PACKET / 2, "{}", text.len());
    }

    #[test]
    fn a_page_of_containers_fits_in_a_message() {
        let container = ContainerInfo {
            namespace: "x".repeat(200),
            name: "x".repeat(200),
            made_of: "x".repeat(32),
            pid: u32::MAX,
            state: super::super::container::RunState::Exited { code: 255 },
            starts: u32::MAX,
            age_ms: u64::MAX,
        };
        let page = vec![container; LIST_PAGE];
        let text =
            serde_json::to_vec(&Numbered { number: u64::MAX, body: Reply::Containers { page, more: false } })
                .unwrap();
        assert!(text.len() < MAX_PACKET, "{}", text.len());
    }

    #[test]
    fn receiving_gives_up_at_the_limit() {
        let (_one, other) = Channel::pair().unwrap();
        other.limit_wait(std::time::Duration::from_millis(20)).unwrap();
        assert_eq!(other.receive::<Reply>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
