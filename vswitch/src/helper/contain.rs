//! The inside of a container: a kill domain of its own within the pod's.
//!
//! # Theory of operation
//! Three processes stand between the helper and a container's program, all of them the role `__enter`, forked. The
//! first waits outside the pod and writes the log. The second is in the pod's PID namespace; it is there because a
//! process that has entered a PID namespace can make another one only after a fork. The third is the first process of
//! the container's own PID namespace: it does nothing but collect orphans and hand signals on, so that the program
//! need not be able to be a first process, and it takes everything that the program left behind along when the program
//! has ended. Each dies with the one before it, and all of them with the pod.
//!
//! So the end of a container is the end of all its processes: a port that one of them held is free when the helper
//! says that the container has ended.

use std::io::{self, PipeReader, Write as _};
use std::os::fd::AsFd as _;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::exec::{Order, Refusal, become_program, refuse};
use super::netns::NONE;
use super::wait::{OnKillRequest, wait_for};
use crate::sys;

/// In the second process: makes the third, and waits for it.
pub(super) fn contain(order: &Order, end: &PipeReader) -> Result<u8, Refusal> {
    die_with_parent(end)?;
    unshare(CloneFlags::CLONE_NEWPID)
        .map_err(|errno| refuse("cannot make the container's PID namespace", errno))?;
    fork_and_wait(OnKillRequest::Child, |end| first_process(order, end))
}

/// In the third process: makes the program's process, and waits for it.
fn first_process(order: &Order, end: &PipeReader) -> Result<u8, Refusal> {
    die_with_parent(end)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), flags, NONE));
    if let Err(errno) = mounted {
        // Most programs never look; those that do see the numbers of the pod.
        let _ = writeln!(io::stderr(), "vswitch: the container's /proc shows the pod's processes: {errno}");
    }
    fork_and_wait(OnKillRequest::Child, |end| match become_program(order, end)? {})
}

/// Forks; the child does `work`, and the parent waits for it.
fn fork_and_wait(
    on_kill_request: OnKillRequest,
    work: impl FnOnce(&PipeReader) -> Result<u8, Refusal>,
) -> Result<u8, Refusal> {
    let cannot_fork = |error| refuse("cannot fork in the pod", error);
    let (end, life) = io::pipe().map_err(cannot_fork)?;
    match sys::fork_single_threaded().map_err(cannot_fork)? {
        None => {
            // The parent's is the only copy now, so that the pipe ends with it.
            drop(life);
            work(&end)
        }
        Some(child) => wait_for(child, on_kill_request, None)
            .map_err(|error| refuse("cannot wait for the program", error)),
    }
}

/// From now on this process is killed when its parent ends. `end` ends with the parent.
pub(super) fn die_with_parent(end: &PipeReader) -> Result<(), Refusal> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| refuse("cannot ask for a parent-death signal", errno))?;
    // The parent may have died before the signal was asked for. Its number does not tell: from inside a PID namespace
    // every process outside has the number 0.
    let mut ended = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::ZERO) != Ok(0) {
        return Err(refuse("not started", "the process that was to wait for it is gone"));
    }
    Ok(())
}
