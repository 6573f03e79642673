//! Sending and receiving, the two calls that are made for every piece of every stream.
//!
//! They go to the kernel without the C library: its functions for them are points at which a thread may be cancelled, and
//! switching that on and off again costs more than the rest of the way there.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Sends without waiting, and without a signal where nobody listens any more.
pub(super) fn send(socket: BorrowedFd<'_>, octets: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(socket, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(errno)
}

/// Takes in what is there, without waiting.
pub(super) fn receive(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    received(socket, into, RecvFlags::DONTWAIT)
}

/// Looks at what is there, without waiting.
pub(super) fn peek(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    received(socket, into, RecvFlags::DONTWAIT | RecvFlags::PEEK)
}

fn received(socket: BorrowedFd<'_>, into: &mut [u8], flags: RecvFlags) -> Result<usize, Errno> {
    rustix::net::recv(socket, into, flags).map(|(count, _)| count).map_err(errno)
}

fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}
