//! The sockets of this machine.
//!
//! # Theory of operation
//! All of them are in one epoll, which is a descriptor itself: the driver sleeps on it as on any device ([`Bell`]), and
//! then one call tells of up to [`FOUND`] sockets. Streams are watched by edges, as octets that a pod has not acknowledged
//! stay where they are; sockets for messages by levels, as not all that waits is taken at once.
//!
//! None of them waits, none raises SIGPIPE, and none is passed on to a program that is started.

mod bell;
mod calls;
mod listening;
mod peeking;
mod words;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{
    self, AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrIn6, SockaddrStorage, sockopt,
};

pub use self::bell::Bell;
use self::peeking::Peeking;
use self::words::{refusal, refusal_of_address};
use super::doors::place;
use super::outside::{Farewell, Messages, Outside, Peeked, Ready, Refusal, SocketId};
use crate::sys;

/// Sockets told of by one call.
const FOUND: usize = 256;
/// Descriptors that are not used for sockets; of few a quarter.
const KEPT: u64 = 64;
/// What is told of a stream, each time it changes.
const EDGES: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLPRI)
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);
/// How what never waits and raises no signal is sent.
const SEND: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    /// Of a stream.
    peeking: Option<Peeking>,
}

/// See the module.
#[derive(Debug)]
pub struct Sockets {
    epoll: Epoll,
    sockets: Vec<Option<Socket>>,
    doors: Vec<Option<Socket>>,
    events: Vec<EpollEvent>,
    found: VecDeque<(SocketId, Ready)>,
    /// Octets to be discarded. The acknowledgements of a batch are mostly of one connection: one call for all of them, after
    /// which the kernel tells the other side once that there is room.
    discarded: Option<(SocketId, usize)>,
    /// Descriptors that this process may have.
    most: u64,
    /// Whether the kernel remembers places in streams, once one was asked.
    places: Option<bool>,
}

impl Sockets {
    /// No sockets yet.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let (most, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Self {
            most,
            places: None,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            sockets: Vec::new(),
            doors: Vec::new(),
            events: vec![EpollEvent::empty(); FOUND],
            found: VecDeque::new(),
            discarded: None,
        })
    }

    /// What tells the driver that some of them have got on, to be attached to [`BELL`](super::BELL).
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn bell(&self) -> io::Result<Bell> {
        Ok(Bell::new(self.epoll.0.try_clone()?))
    }

    /// Sockets that are open.
    pub fn open_sockets(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    fn fd(&self, socket: SocketId) -> Result<RawFd, Refusal> {
        self.get(socket).map(|socket| socket.fd.as_raw_fd())
    }

    fn get(&self, socket: SocketId) -> Result<&Socket, Refusal> {
        let found = match place(socket) {
            Some(door) => self.doors.get(door as usize),
            None => self.sockets.get(socket.0 as usize),
        };
        found.and_then(Option::as_ref).ok_or(Refusal::Reset)
    }

    fn add_stream(&mut self, id: SocketId, fd: OwnedFd) -> Result<(), Refusal> {
        let places = *self.places.get_or_insert_with(|| Peeking::has_places(fd.as_fd()));
        self.add(id, Socket { fd, peeking: Some(Peeking::new(places)) }, EDGES)
    }

    /// Watches a socket and gives it its number.
    fn add(&mut self, id: SocketId, socket: Socket, events: EpollFlags) -> Result<(), Refusal> {
        self.epoll.add(socket.fd.as_fd(), EpollEvent::new(events, id.0.into())).map_err(refusal)?;
        let (all, at) = match place(id) {
            Some(door) => (&mut self.doors, door as usize),
            None => (&mut self.sockets, id.0 as usize),
        };
        if all.len() <= at {
            all.resize_with(at + 1, || None);
        }
        debug_assert!(all[at].is_none(), "a number has one socket at a time");
        all[at] = Some(socket);
        Ok(())
    }
}

/// A socket, unless it were one of the last descriptors: those are for whatever else this process has to do, being asked how
/// it is among it.
fn make(most: u64, to: SocketAddr, kind: SockType, protocol: Option<SockProtocol>) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket::socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)?;
    if is_kept(most, &fd) { Err(Errno::EMFILE) } else { Ok(fd) }
}

/// Whether it is one of the last descriptors. The kernel gives the lowest number that is free.
fn is_kept(most: u64, fd: &OwnedFd) -> bool {
    let number = u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX);
    number.saturating_add(KEPT.min(most / 4)) >= most
}

/// What every stream's socket is told: what was sent at once goes at once, who does not answer any more is found out, and
/// urgent octets (RFC 6093) stay in their place among the others.
fn prepare(stream: &OwnedFd) -> Result<(), Errno> {
    socket::setsockopt(stream, sockopt::TcpNoDelay, &true)?;
    socket::setsockopt(stream, sockopt::KeepAlive, &true)?;
    socket::setsockopt(stream, sockopt::OobInline, &true)
}

/// Whether this machine has an address to speak to that one from. `connect` of a stream says the same of that as of a want of
/// ports; that of a socket for datagrams, which sends nothing, does not.
fn has_source(most: u64, to: SocketAddr) -> bool {
    let called = make(most, to, SockType::Datagram, None).and_then(|fd| call(&fd, to));
    called != Err(Errno::EADDRNOTAVAIL)
}

fn call(fd: &OwnedFd, to: SocketAddr) -> Result<(), Errno> {
    match to {
        SocketAddr::V4(to) => socket::connect(fd.as_raw_fd(), &SockaddrIn::from(to)),
        SocketAddr::V6(to) => socket::connect(fd.as_raw_fd(), &SockaddrIn6::from(to)),
    }
}

impl Outside for Sockets {
    fn connect(&mut self, socket: SocketId, to: SocketAddr) -> Result<(), Refusal> {
        let fd = make(self.most, to, SockType::Stream, None).map_err(refusal)?;
        prepare(&fd).map_err(refusal)?;
        match call(&fd, to) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(Errno::EADDRNOTAVAIL) if !has_source(self.most, to) => return Err(Refusal::NoRoute),
            Err(errno) => return Err(refusal(errno)),
        }
        self.add_stream(socket, fd)
    }

    fn connected(&mut self, socket: SocketId) -> Result<bool, Refusal> {
        let of = self.get(socket)?;
        match socket::getpeername::<SockaddrStorage>(of.fd.as_raw_fd()) {
            // One that is broken already says so when it is read.
            Ok(_) => Ok(true),
            Err(Errno::ENOTCONN) => {
                match socket::getsockopt(&of.fd, sockopt::SocketError).map_err(refusal)? {
                    0 => Ok(false),
                    error => Err(refusal(Errno::from_raw(error))),
                }
            }
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn send(&mut self, socket: SocketId, octets: &[u8]) -> Result<usize, Refusal> {
        match calls::send(self.get(socket)?.fd.as_fd(), octets) {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn peek(&mut self, socket: SocketId, offset: usize, into: &mut [u8]) -> Result<Peeked, Refusal> {
        self.settle();
        let of = self.sockets.get_mut(socket.0 as usize).and_then(Option::as_mut).ok_or(Refusal::Reset)?;
        let peeking = of.peeking.as_mut().ok_or(Refusal::Unsupported)?;
        peeking.peek(of.fd.as_fd(), offset, into).map_err(refusal)
    }

    fn discard(&mut self, socket: SocketId, count: usize) {
        if let Some((_, before)) = self.discarded.as_mut().filter(|(of, _)| *of == socket) {
            *before += count;
        } else {
            self.settle();
            self.discarded = Some((socket, count));
        }
    }

    fn settle(&mut self) {
        let Some((socket, count)) = self.discarded.take() else { return };
        let Some(Some(of)) = self.sockets.get_mut(socket.0 as usize) else { return };
        if let Some(peeking) = &mut of.peeking {
            peeking.discard(of.fd.as_fd(), count);
        }
    }

    fn shutdown(&mut self, socket: SocketId) {
        if let Ok(fd) = self.fd(socket) {
            // Whoever has broken the connection off meanwhile is noticed by reading.
            let _ = socket::shutdown(fd, Shutdown::Write);
        }
    }

    fn open(&mut self, socket: SocketId, messages: Messages, to: SocketAddr) -> Result<(), Refusal> {
        let fd = match messages {
            Messages::Udp => make(self.most, to, SockType::Datagram, None).map_err(refusal)?,
            Messages::Echo => {
                let protocol = if to.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
                // Not everybody may ping; nobody is told so, as nobody along the way forbids it.
                let forbidden = |errno| matches!(errno, Errno::EACCES | Errno::EPERM);
                make(self.most, to, SockType::Datagram, Some(protocol))
                    .map_err(|errno| if forbidden(errno) { Refusal::Unsupported } else { refusal(errno) })?
            }
        };
        if to.is_ipv4() {
            // What is too long for the way is cut: that pods may not cut is not known here.
            let never = libc::IP_PMTUDISC_DONT;
            let _ = sys::set_number(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, never);
        }
        // An echo has no port.
        let to = if messages == Messages::Echo { SocketAddr::new(to.ip(), 0) } else { to };
        call(&fd, to).map_err(refusal_of_address)?;
        self.add(socket, Socket { fd, peeking: None }, EpollFlags::EPOLLIN)
    }

    fn send_message(&mut self, socket: SocketId, message: &[u8]) -> Result<bool, Refusal> {
        match calls::send(self.get(socket)?.fd.as_fd(), message) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(false),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn send_messages(&mut self, socket: SocketId, messages: &[u8], size: usize) -> Result<bool, Refusal> {
        let size = u16::try_from(size).map_err(|_| Refusal::TooLong)?;
        let (parts, cut) = ([IoSlice::new(messages)], [ControlMessage::UdpGsoSegments(&size)]);
        match socket::sendmsg::<SockaddrStorage>(self.fd(socket)?, &parts, &cut, SEND, None) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(false),
            // Too long for the way's MTU, or a way that cannot cut: one by one they are cut, or find their way.
            Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE) => Err(Refusal::Unsupported),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn receive_message(&mut self, socket: SocketId, into: &mut [u8]) -> Result<Option<usize>, Refusal> {
        match calls::receive(self.get(socket)?.fd.as_fd(), into) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn close(&mut self, socket: SocketId, farewell: Farewell) {
        // A connection that is closed with octets in it is reset.
        self.settle();
        let all = match place(socket) {
            Some(door) => self.doors.get_mut(door as usize),
            None => self.sockets.get_mut(socket.0 as usize),
        };
        let Some(of) = all.and_then(Option::take) else { return };
        if farewell == Farewell::Abrupt && of.peeking.is_some() {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = socket::setsockopt(&of.fd, sockopt::Linger, &at_once);
        }
        // Closing takes it out of the epoll as well: nobody else has this descriptor.
    }

    fn listen(&mut self, socket: SocketId, at: SocketAddr) -> Result<(), Refusal> {
        let fd = listening::listen(self.most, at).map_err(refusal_of_address)?;
        // By edges: who cannot be taken for want of descriptors must not be told of again and again.
        self.add(socket, Socket { fd, peeking: None }, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)
    }

    fn accept(&mut self, listener: SocketId, socket: SocketId) -> Result<Option<SocketAddr>, Refusal> {
        let Some((fd, from)) = listening::accept(self.most, &self.get(listener)?.fd).map_err(refusal)? else {
            return Ok(None);
        };
        self.add_stream(socket, fd)?;
        Ok(Some(from))
    }

    fn bind(&mut self, socket: SocketId, at: SocketAddr) -> Result<(), Refusal> {
        let fd = listening::bind(self.most, at).map_err(refusal_of_address)?;
        self.add(socket, Socket { fd, peeking: None }, EpollFlags::EPOLLIN)
    }

    fn receive_from(
        &mut self,
        socket: SocketId,
        into: &mut [u8],
    ) -> Result<Option<(usize, SocketAddr, IpAddr)>, Refusal> {
        match listening::receive(&self.get(socket)?.fd, into) {
            Ok(received) => Ok(Some(received)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn send_from(
        &mut self,
        socket: SocketId,
        at: IpAddr,
        to: SocketAddr,
        octets: &[u8],
    ) -> Result<bool, Refusal> {
        match listening::send(&self.get(socket)?.fd, at, to, octets) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(false),
            Err(errno) => Err(refusal(errno)),
        }
    }

    fn look(&mut self) {
        let count = self.epoll.wait(&mut self.events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &self.events[..count] {
            let Ok(socket) = u32::try_from(event.data()) else { continue };
            let flags = event.events();
            // A look also ends at an urgent octet, with more behind it.
            let ended =
                EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLPRI;
            let readable = flags.intersects(EpollFlags::EPOLLIN | ended);
            let writable =
                flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            let (ended, broken) = (flags.intersects(ended), flags.contains(EpollFlags::EPOLLERR));
            self.found.push_back((SocketId(socket), Ready { readable, ended, broken, writable }));
        }
    }

    fn poll_ready(&mut self) -> Option<(SocketId, Ready)> {
        self.found.pop_front()
    }
}
