//! The system calls that have no safe wrapper elsewhere. The only module of this crate with unsafe code.
#![expect(unsafe_code, reason = "ioctl, fork, capabilities and descriptors received from the kernel")]

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sched::{CloneFlags, clone};
use nix::sys::signal::Signal;
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockFlag, UnixAddr};
use nix::unistd::{ForkResult, Pid};

/// At most this many descriptors are taken from one message; the protocol sends one.
const MAX_DESCRIPTORS: usize = 4;
/// Octets of stack for a child between `clone` and `execve`.
const CHILD_STACK: usize = 256 * 1024;

/// Creates the TAP device `name` in the calling thread's network namespace and returns its queue, non-blocking.
/// With `vnet_hdr` every frame carries a `virtio_net_hdr` in front.
///
/// # Errors
/// What opening `/dev/net/tun` or `TUNSETIFF` says: `EBUSY` if the name is taken, `EPERM` without `CAP_NET_ADMIN`.
pub(crate) fn open_tap(name: &str, vnet_hdr: bool) -> io::Result<OwnedFd> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: `ifreq` is plain old data for which all-zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if vnet_hdr { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(flags).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which outlives the call; its name
    // is terminated because the last octet was never written.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file.into()) }
}

/// Takes over a descriptor that this process was started with, and keeps it from the processes that it starts.
///
/// # Errors
/// When it is one of the standard ones, not open, or not one that the process was started with.
pub(crate) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "0, 1 and 2 have their own uses"));
    }
    // SAFETY: F_GETFD reads the flags of a number, whatever it is; no memory is passed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        let text = "it is open, but this process was not started with it";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    // SAFETY: as above; F_SETFD takes an integer.
    if unsafe { libc::fcntl(number, libc::F_SETFD, flags | libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open. Everything that this process opens itself, or has taken over here, is
    // close-on-exec; this one was not, so it came with the process and no value in it owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// What [`receive`] got.
pub(crate) struct Received {
    /// Octets of the message; zero at the end of the stream.
    pub(crate) length: usize,
    /// Whether the message did not fit and was cut.
    pub(crate) truncated: bool,
    /// The descriptors that came with it, close-on-exec.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Lets the calling thread, and those that it starts, give way to others when there are not enough processors.
pub(crate) fn give_way() {
    const NICENESS: libc::c_int = 10;
    // SAFETY: only integers are passed. 0 is the calling thread: on Linux each has a niceness of its own. It cannot fail,
    // as no thread may be kept from being nicer; if it did nothing else would be wrong.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

/// Has the calling thread, and those that it starts, keep no capabilities but these, by number (capabilities(7)), if it has
/// them.
///
/// # Errors
/// Those of `capset(2)`.
pub(crate) fn keep_capabilities(kept: &[u32]) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: 64 of them, in two halves.
    const VERSION: u32 = 0x2008_0522;
    /// The calling thread.
    const OWN: u32 = 0;
    // The kernel's `struct __user_cap_header_struct`: the version and whose they are.
    let mut header = [VERSION, OWN];
    // Two of `struct __user_cap_data_struct`: those in effect, those that can be, those that programs inherit.
    let mut halves = [[0u32; 3]; 2];
    // SAFETY: with this version the kernel reads and writes the header's two words and writes two times three; all of them
    // outlive the call.
    if unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), halves.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for (first, [effective, permitted, inheritable]) in [0, u32::BITS].into_iter().zip(&mut halves) {
        let within = |number: &&u32| (first..first + u32::BITS).contains(*number);
        let mask = kept.iter().filter(within).fold(0, |mask: u32, number| mask | 1 << (number - first));
        *effective &= mask;
        *permitted &= mask;
        *inheritable = 0;
    }
    // SAFETY: the kernel reads as many words, which outlive the call. What it changes are the thread's rights.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), halves.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives memory that was freed back to the system, where that does not happen by itself: what a large change took for a
/// moment is a multiple of what stays.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and touches nothing that is in use.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Receives one message and its descriptors.
///
/// # Errors
/// Those of `recvmsg(2)`.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = socket::recvmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for this message; nobody else knows them, so
            // each is owned exactly once.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    Ok(Received { length: message.bytes, truncated, descriptors })
}

/// Sets an option of a socket that is a number.
///
/// # Errors
/// Those of `setsockopt(2)`.
pub(crate) fn set_number(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 4;
    // SAFETY: the descriptor is open; the kernel reads the four octets of `value`, which outlives the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), LENGTH) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes up to `count` octets out of a TCP socket without looking at them, and says how many there were. Of no other
/// socket: for those the same flags mean something else.
///
/// # Errors
/// Those of `recv(2)`.
pub(crate) fn discard(socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    // SAFETY: with MSG_TRUNC a TCP socket copies nothing (tcp(7)); if it is another kind of socket, copying to the null
    // address fails with EFAULT and touches nothing.
    let result = unsafe { libc::recv(socket.as_raw_fd(), std::ptr::null_mut(), count, flags) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Accepts one connection, close-on-exec.
///
/// # Errors
/// Those of `accept4(2)`.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: `accept4` returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Forks a process that has no other thread, and returns the child's pid in the parent, `None` in the child.
///
/// # Errors
/// Those of `fork(2)`.
pub(crate) fn fork_single_threaded() -> io::Result<Option<Pid>> {
    // SAFETY: the only caller is the `__enter` role, which starts no thread before this call; with a single thread
    // no lock can be held by a thread that does not exist in the child, so the child may run any code.
    let result = unsafe { nix::unistd::fork() }?;
    Ok(match result {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    })
}

/// Starts `command` as the first process of a new PID namespace, from a process that has no other thread. Nothing
/// else can: after `unshare` all later children would be in the new namespace, and an ordinary user has no way back
/// into the host's.
///
/// # Errors
/// Those of `clone(2)`. If the program cannot be executed the child says so on standard error and ends.
pub(crate) fn spawn_in_new_pid_namespace(command: &mut Command) -> io::Result<Pid> {
    let mut stack = vec![0; CHILD_STACK];
    let child = Box::new(|| {
        let error = command.exec();
        let _ = writeln!(io::stderr(), "vswitch: cannot start the holder of a pod: {error}");
        127
    });
    // SAFETY: the only caller is the `__helper` role, which has a single thread here: it waits for the end of each
    // thread that it starts. So no lock can be held by a thread that does not exist in the child, and the child may
    // run any code. Without CLONE_VM it has a copy of our memory and of its stack, which is far larger than
    // `exec` needs.
    let pid = unsafe { clone(child, &mut stack, CloneFlags::CLONE_NEWPID, Some(Signal::SIGCHLD as i32)) }?;
    Ok(pid)
}
