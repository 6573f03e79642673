//! Waiting for a program on behalf of whoever started us.

use std::io;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::log::Pump;

/// Asks a process that waits to kill what it waits for. SIGKILL itself would end the waiting process at once, and
/// nobody could wait for the end of the rest any more.
pub(super) const KILL_REQUEST: Signal = Signal::SIGPWR;

/// The signals that a waiting process hands on.
pub(super) const HANDED_ON: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// What [`KILL_REQUEST`] does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum OnKillRequest {
    /// What it does to every program.
    Nothing,
    /// The child waits as well, and is asked in turn.
    PassOn,
    /// The child is killed; it is the first process of its PID namespace and takes the others along.
    Child,
    /// The child is killed with the process group that it leads.
    Group,
}

/// Waits for `child`, hands signals on to it, copies its output, collects orphans, and returns the status: what the
/// child returned, or 128 and the number of the signal that ended it. All signals must be blocked; those that are not
/// handed on do what they always do from then on.
pub(super) fn wait_for(
    child: Pid,
    on_kill_request: OnKillRequest,
    mut pump: Option<&mut Pump>,
) -> io::Result<u8> {
    let mut watched = SigSet::empty();
    for signal in HANDED_ON {
        watched.add(signal);
    }
    watched.add(Signal::SIGCHLD);
    if on_kill_request != OnKillRequest::Nothing {
        watched.add(KILL_REQUEST);
    }
    // Everything else does what it always does: above all the stop signals of a terminal stop us with the program.
    watched.thread_set_mask()?;
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        if let Some(status) = collect(child)? {
            if let Some(pump) = pump {
                pump.finish();
            }
            return Ok(status);
        }
        let mut waiting = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let source = pump.as_ref().and_then(|pump| pump.source());
        waiting.extend(source.map(|source| PollFd::new(source, PollFlags::POLLIN)));
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if let Some(pump) = &mut pump {
            pump.copy();
        }
        while let Some(received) = signals.read_signal()? {
            // What the terminal sends (SI_KERNEL) it has sent to the program as well.
            if received.ssi_code != libc::SI_KERNEL {
                hand_on(child, received.ssi_signo, on_kill_request);
            }
        }
    }
}

fn hand_on(child: Pid, signal: u32, on_kill_request: OnKillRequest) {
    let Ok(Ok(signal)) = i32::try_from(signal).map(Signal::try_from) else { return };
    // The child may have ended just now, and then there is nobody to tell.
    let _ = match (signal, on_kill_request) {
        (Signal::SIGCHLD, _) => Ok(()),
        (KILL_REQUEST, OnKillRequest::Child) => kill(child, Signal::SIGKILL),
        (KILL_REQUEST, OnKillRequest::Group) => {
            // Before it has made its group there is only itself.
            kill(Pid::from_raw(-child.as_raw()), Signal::SIGKILL).or_else(|_| kill(child, Signal::SIGKILL))
        }
        (signal, _) => kill(child, signal),
    };
}

/// Collects every child that has ended; the status if `child` is among them.
fn collect(child: Pid) -> io::Result<Option<u8>> {
    loop {
        let (ended, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(pid, status) => (pid, status.to_be_bytes()[3]),
            WaitStatus::Signaled(pid, signal, _) => (pid, 128 + u8::try_from(signal as i32).unwrap_or(127)),
            WaitStatus::StillAlive => return Ok(None),
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(..)
            | WaitStatus::Continued(..) => continue,
        };
        if ended == child {
            return Ok(Some(status));
        }
    }
}
