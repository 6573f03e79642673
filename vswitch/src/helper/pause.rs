//! The role `__pause`: the first process of a pod's PID namespace, which makes and holds the pod's other namespaces.
//!
//! # Theory of operation
//! It does nothing but be there and collect orphans that ended. As the first process of its PID namespace it takes
//! every other process of the pod with it when it ends. It ends when the helper kills it, when the helper ends
//! (parent-death signal), and when the socket to the helper closes, which covers the moment before that signal is
//! armed. It ignores every other signal.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::netns::{NONE, ROOT_ONLY, keep_mounts_to_ourselves};
use super::protocol::{Channel, Failure, FailureKind, PauseReply, PauseSpec};

/// Runs the role until the helper ends it.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::server::complain("the holder of a pod", &error),
    }
}

fn run() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let signals = SigSet::all();
    signals.thread_set_mask()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let channel = take_standard_input()?;
    let Some((spec, mut descriptors)) = channel.receive::<PauseSpec>()? else { return Ok(()) };
    match set_up(&spec, descriptors.pop()) {
        Ok(warnings) => channel.send(&PauseReply::Ready { warnings }, &[])?,
        Err(failure) => return channel.send(&PauseReply::Failed(failure), &[]),
    }
    loop {
        let mut waiting = [
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        // The helper says nothing more; its end of the socket closes when it ends.
        if waiting.first().and_then(PollFd::any) == Some(true) {
            return Ok(());
        }
        while signals.read_signal()?.is_some() {}
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
}

/// Takes the socket that the parent put in the place of standard input, and puts `/dev/null` there.
pub(super) fn take_standard_input() -> io::Result<Channel> {
    let stdin = io::stdin();
    let channel = Channel::new(stdin.as_fd().try_clone_to_owned()?);
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel)
}

/// Makes the pod's namespaces and returns what is not quite as it should be.
fn set_up(spec: &PauseSpec, existing: Option<OwnedFd>) -> Result<Vec<String>, Failure> {
    if std::process::id() != 1 {
        return Err(Failure::new(
            FailureKind::System,
            "the holder is not the first process of its PID namespace",
        ));
    }
    let mut made = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    if spec.existing {
        let existing = existing.ok_or_else(|| {
            Failure::new(FailureKind::System, "the network namespace to join did not arrive")
        })?;
        setns(existing, CloneFlags::CLONE_NEWNET).map_err(cannot_join)?;
    } else {
        made |= CloneFlags::CLONE_NEWNET;
    }
    unshare(made).map_err(|errno| Failure::system("cannot make the pod's namespaces", &errno.into()))?;
    keep_mounts_to_ourselves()?;
    if let Some(hostname) = &spec.hostname {
        nix::unistd::sethostname(hostname).map_err(|errno| {
            Failure::system(format!("cannot set the host name {hostname:?}"), &errno.into())
        })?;
    }
    let mut warnings = Vec::new();
    let mut attempt = |what: String, result: io::Result<()>| {
        if let Err(error) = result {
            warnings.push(format!("{what}: {error}"));
        }
    };
    attempt("the pod's /proc shows the host's processes".to_owned(), mount_proc());
    attempt("the pod's /sys shows the host's interfaces".to_owned(), mount_sys());
    for (source, target) in &spec.files {
        let result = mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE);
        attempt(format!("the pod sees the host's {}", target.display()), result.map_err(Into::into));
    }
    std::env::set_current_dir("/").map_err(|error| Failure::system("cannot enter /", &error))?;
    Ok(warnings)
}

fn cannot_join(errno: Errno) -> Failure {
    let mut failure = Failure::system("cannot join the existing network namespace", &errno.into());
    if errno == Errno::EPERM {
        failure.message.push_str(ROOT_ONLY);
    }
    if errno == Errno::EINVAL {
        failure.message.push_str("; it is a namespace of another kind");
    }
    failure
}

fn mount_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, NONE)?)
}

/// A new `/sys` belongs to the new network namespace; the cgroup tree is carried over.
fn mount_sys() -> io::Result<()> {
    let groups = Path::new("/sys/fs/cgroup");
    let below = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(groups).ok();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, NONE)?;
    if let Some(below) = below {
        let source = format!("/proc/self/fd/{}", below.as_raw_fd());
        mount(Some(source.as_str()), groups, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    }
    Ok(())
}
