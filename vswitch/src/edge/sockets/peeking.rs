//! Reading a stream without taking anything out of it.
//!
//! Linux 6.9 and later keep a place in the stream for each socket, behind what was peeked at last (`SO_PEEK_OFF`): then
//! nothing is stored here. Where it does not, octets are taken out and a copy is kept until they are discarded; that copy
//! is as large as what is under way to a pod, and there is none while nothing is.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags};

use super::super::outside::Peeked;
use crate::sys;

/// See the module.
#[derive(Debug)]
pub(super) enum Peeking {
    /// The kernel's place.
    Place(usize),
    /// What was taken out and not discarded.
    Kept(Vec<u8>),
}

impl Peeking {
    /// The better of what the kernel can do.
    pub(super) fn new(socket: BorrowedFd<'_>) -> Self {
        if set_place(socket, 0).is_ok() { Self::Place(0) } else { Self::Kept(Vec::new()) }
    }

    pub(super) fn peek(
        &mut self,
        socket: BorrowedFd<'_>,
        offset: usize,
        into: &mut [u8],
    ) -> Result<Peeked, Errno> {
        match self {
            Self::Place(place) => peek_at(socket, place, offset, into),
            Self::Kept(kept) => peek_and_keep(socket, kept, offset, into),
        }
    }

    pub(super) fn discard(&mut self, socket: BorrowedFd<'_>, count: usize) {
        match self {
            Self::Place(place) => {
                *place = place.saturating_sub(count);
                // Also when it is little: as long as something is left of what came in one piece, the kernel counts all of it,
                // and the other side may see no window.
                discard_in_kernel(socket, count);
            }
            Self::Kept(kept) => {
                kept.drain(..count.min(kept.len()));
                if kept.is_empty() {
                    *kept = Vec::new();
                }
            }
        }
    }
}

fn set_place(socket: BorrowedFd<'_>, offset: usize) -> io::Result<()> {
    let offset = i32::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    sys::set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

fn peek_at(
    socket: BorrowedFd<'_>,
    place: &mut usize,
    offset: usize,
    into: &mut [u8],
) -> Result<Peeked, Errno> {
    if *place != offset {
        set_place(socket, offset).map_err(|_| Errno::EOPNOTSUPP)?;
        *place = offset;
    }
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match socket::recv(socket.as_raw_fd(), into, flags) {
        Ok(0) => Ok(Peeked::End),
        Ok(count) => {
            *place += count;
            Ok(Peeked::Octets(count))
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Peeked::Nothing),
        Err(errno) => Err(errno),
    }
}

/// TCP takes the truncation of what it gives as the wish not to get it at all (tcp(7)), so nothing is copied.
fn discard_in_kernel(socket: BorrowedFd<'_>, count: usize) {
    let mut left = count;
    while left > 0 {
        match sys::discard(socket, left) {
            Ok(done) if done > 0 => left -= done.min(left),
            // What was peeked at is there; whatever ends the connection is told by the next peek.
            Ok(_) | Err(_) => return,
        }
    }
}

fn peek_and_keep(
    socket: BorrowedFd<'_>,
    kept: &mut Vec<u8>,
    offset: usize,
    into: &mut [u8],
) -> Result<Peeked, Errno> {
    let again = kept.get(offset..).unwrap_or_default();
    let mut count = again.len().min(into.len());
    into[..count].copy_from_slice(&again[..count]);
    let rest = &mut into[count..];
    if rest.is_empty() {
        return Ok(Peeked::Octets(count));
    }
    match socket::recv(socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT) {
        Ok(0) if count == 0 => Ok(Peeked::End),
        Ok(more) => {
            kept.extend_from_slice(&rest[..more]);
            count += more;
            Ok(Peeked::Octets(count))
        }
        // What is kept comes first.
        Err(_) if count > 0 => Ok(Peeked::Octets(count)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Peeked::Nothing),
        Err(errno) => Err(errno),
    }
}
