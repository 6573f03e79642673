//! Netlink conversations, in whichever network namespace they are to be.
//!
//! # Theory of operation
//! A netlink socket belongs to the namespace that it was opened in, whatever its thread does later. A conversation has a
//! thread of its own, which begins in the namespace of the one that asks for it and may enter others.

use std::os::fd::{AsFd as _, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rtnetlink::Handle;
use rtnetlink::packet_route::link::LinkMessage;

use super::protocol::{Failure, FailureKind};

/// Takes the calling thread into a network namespace.
pub(crate) fn enter(netns: &OwnedFd) -> Result<(), Failure> {
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Failure::system("cannot enter the pod's network namespace", &errno.into()))
}

/// Runs a netlink conversation on a thread of its own, which may enter another network namespace.
pub(crate) fn in_a_thread<T: Send>(
    conversation: impl AsyncFnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let work = || -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| Failure::system("cannot start a runtime", &error))?;
        runtime.block_on(conversation())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, work)
            .map_err(|error| Failure::system("cannot start a thread", &error))?;
        thread.join().unwrap_or_else(|_| Err(Failure::new(FailureKind::System, "the thread panicked")))
    })
}

/// A netlink socket in the calling thread's network namespace, served until the runtime ends.
pub(crate) fn connect() -> Result<Handle, Failure> {
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error| Failure::system("cannot open a netlink socket", &error))?;
    // Detached: it ends with the runtime, within the same configuration.
    drop(tokio::spawn(connection));
    Ok(handle)
}

/// The index of an interface in the calling thread's network namespace.
pub(crate) fn index_of(interface: &str) -> Result<u32, Failure> {
    nix::net::if_::if_nametoindex(interface)
        .map_err(|errno| Failure::system(format!("cannot find the interface {interface}"), &errno.into()))
}

/// Changes an interface; `what` is what could not be done.
pub(crate) async fn set_link(
    handle: &Handle,
    link: LinkMessage,
    what: impl Fn() -> String,
) -> Result<(), Failure> {
    handle.link().set(link).execute().await.map_err(|error| failure(what(), error))
}

/// A failure while doing `what`.
pub(crate) fn failure(what: String, error: rtnetlink::Error) -> Failure {
    if let rtnetlink::Error::NetlinkError(message) = error {
        Failure::system(what, &message.to_io())
    } else {
        Failure::new(FailureKind::System, format!("{what}: {error}"))
    }
}
