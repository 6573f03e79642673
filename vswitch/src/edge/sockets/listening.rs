//! Sockets that wait for whoever comes.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockType, SockaddrIn, SockaddrIn6,
    SockaddrStorage, sockopt,
};

use super::{SEND, is_kept, make, prepare};
use crate::sys;

/// A socket at an address of this machine, which one family alone reaches.
fn at(most: u64, address: SocketAddr, kind: SockType) -> Result<OwnedFd, Errno> {
    let fd = make(most, address, kind, None)?;
    if address.is_ipv6() {
        socket::setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        // What is left of connections of before keeps nobody from listening again.
        socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    match address {
        SocketAddr::V4(address) => socket::bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => socket::bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?,
    }
    Ok(fd)
}

/// Listens for connections.
pub(super) fn listen(most: u64, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let fd = at(most, address, SockType::Stream)?;
    socket::listen(&fd, Backlog::MAXCONN)?;
    Ok(fd)
}

/// Waits for datagrams, of which is told what address they came to.
pub(super) fn bind(most: u64, address: SocketAddr) -> Result<OwnedFd, Errno> {
    let fd = at(most, address, SockType::Datagram)?;
    if address.is_ipv4() {
        socket::setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        socket::setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    Ok(fd)
}

/// Takes the next connection, if one waits.
pub(super) fn accept(most: u64, listener: &OwnedFd) -> Result<Option<(OwnedFd, SocketAddr)>, Errno> {
    let fd = match sys::accept(listener.as_fd()) {
        Ok(fd) => fd,
        Err(error) => {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
            let nobody = matches!(errno, Errno::EAGAIN | Errno::EINTR);
            return if nobody { Ok(None) } else { Err(errno) };
        }
    };
    if is_kept(most, &fd) {
        // Who asks again comes to stand in line again; a silent end would look like an answer.
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        socket::setsockopt(&fd, sockopt::Linger, &at_once)?;
        return Err(Errno::EMFILE);
    }
    let from = socket::getpeername::<SockaddrStorage>(fd.as_raw_fd())?;
    let from = plain(&from).ok_or(Errno::EAFNOSUPPORT)?;
    prepare(&fd)?;
    Ok(Some((fd, from)))
}

/// Takes in a datagram: how long it is, who sent it, and to which address.
pub(super) fn receive(fd: &OwnedFd, into: &mut [u8]) -> Result<(usize, SocketAddr, IpAddr), Errno> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = socket::recvmsg::<SockaddrStorage>(fd.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut to = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = control {
            // Our own address, also where it came to all of a network.
            to = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))));
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = control {
            to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
        }
    }
    let from = message.address.as_ref().and_then(plain);
    Ok((message.bytes, from.ok_or(Errno::EAFNOSUPPORT)?, to.ok_or(Errno::EAFNOSUPPORT)?))
}

/// Sends a datagram from one of this machine's addresses.
pub(super) fn send(fd: &OwnedFd, from: IpAddr, to: SocketAddr, octets: &[u8]) -> Result<(), Errno> {
    let parts = [IoSlice::new(octets)];
    let (fd, to) = (fd.as_raw_fd(), SockaddrStorage::from(to));
    let sent = match from {
        IpAddr::V4(from) => {
            let own = libc::in_addr { s_addr: u32::from(from).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: own, ipi_addr: own };
            socket::sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], SEND, Some(&to))
        }
        // A group is nobody's source: the kernel chooses one.
        IpAddr::V6(from) if from.is_multicast() => socket::sendmsg(fd, &parts, &[], SEND, Some(&to)),
        IpAddr::V6(from) => {
            let own = libc::in6_addr { s6_addr: from.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: own, ipi6_ifindex: 0 };
            socket::sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], SEND, Some(&to))
        }
    };
    sent.map(|_| ())
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
}
