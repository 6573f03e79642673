//! What a host has to tell: by asking, by a callback, or by a descriptor that becomes readable.

use core::ffi::c_void;
use std::os::fd::AsRawFd;

use netstack::host::{HostEvent, IcmpError};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::address::{netstack_address, netstack_endpoint};
use crate::caller::Userdata;
use crate::host::{HostState, netstack_host, netstack_ready_callback};
use crate::result::{Code, netstack_result};
use crate::socket::{Socket, ready};

/// What happened. Behind each kind: which fields of netstack_host_event say something.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_host_event_kind {
    /// Something that this version of the ABI has no number for.
    Other = 0,
    /// A socket may be good for something: socket, ready.
    Socket = 1,
    /// The answer to a ping: address (who), id, sequence, value (its hop limit), length (of its payload).
    EchoReply = 2,
    /// A packet came to nothing: address (who says so), icmp, value (its code, or the MTU that fits), protocol, source,
    /// destination.
    IcmpError = 3,
    /// A neighbour did not answer: address.
    NeighborFailed = 4,
}

/// Something that happened.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct netstack_host_event {
    /// One of netstack_host_event_kind.
    pub kind: u32,
    /// What the socket is good for: a sum of NETSTACK_READY_FLAG_*.
    pub ready: u32,
    /// The socket.
    pub socket: u64,
    /// An address.
    pub address: netstack_address,
    /// A ping's identifier.
    pub id: u16,
    /// A ping's sequence number.
    pub sequence: u16,
    /// What went wrong: 1 unreachable, 2 too big, 3 time exceeded, 4 a parameter problem.
    pub icmp: u16,
    /// IP protocol number of the packet that it is about.
    pub protocol: u16,
    /// A number.
    pub value: u32,
    /// A length in octets.
    pub length: usize,
    /// Where the packet came from.
    pub source: netstack_endpoint,
    /// Where it went.
    pub destination: netstack_endpoint,
}

impl netstack_host_event {
    fn of(kind: netstack_host_event_kind) -> Self {
        Self { kind: kind as u32, ..Self::default() }
    }
}

impl HostState {
    /// The next event, those of sockets aside that the caller has no number of.
    fn next_event(&mut self) -> Option<netstack_host_event> {
        loop {
            let event = self.host.poll_event()?;
            if let Some(told) = self.told(&event) {
                return Some(told);
            }
        }
    }

    fn told(&self, event: &HostEvent) -> Option<netstack_host_event> {
        use netstack_host_event_kind as Kind;
        Some(match event {
            HostEvent::TcpReady(handle) => self.about(Socket::Connection(*handle))?,
            HostEvent::TcpIncoming(listener) => self.about(Socket::Listener(*listener))?,
            HostEvent::UdpReady(handle) => self.about(Socket::Datagrams(*handle))?,
            HostEvent::EchoReply { from, id, sequence, hop_limit, payload } => netstack_host_event {
                address: (*from).into(),
                id: *id,
                sequence: *sequence,
                value: (*hop_limit).into(),
                length: payload.len(),
                ..netstack_host_event::of(Kind::EchoReply)
            },
            HostEvent::IcmpError { from, error, quoted } => {
                let (icmp, value) = match *error {
                    IcmpError::Unreachable { code } => (1, code.into()),
                    IcmpError::PacketTooBig { mtu } => (2, mtu),
                    IcmpError::TimeExceeded { code } => (3, code.into()),
                    IcmpError::ParameterProblem { code } => (4, code.into()),
                };
                netstack_host_event {
                    address: (*from).into(),
                    icmp,
                    value,
                    protocol: quoted.protocol.into(),
                    source: quoted.source.into(),
                    destination: quoted.destination.into(),
                    ..netstack_host_event::of(Kind::IcmpError)
                }
            }
            HostEvent::NeighborFailed { address } => netstack_host_event {
                address: (*address).into(),
                ..netstack_host_event::of(Kind::NeighborFailed)
            },
            _ => netstack_host_event::of(Kind::Other),
        })
    }

    fn about(&self, socket: Socket) -> Option<netstack_host_event> {
        let number = self.sockets.number(socket)?;
        Some(netstack_host_event {
            socket: number,
            ready: ready(&self.host, socket),
            ..netstack_host_event::of(netstack_host_event_kind::Socket)
        })
    }

    /// Tells what has happened in the way that the caller has asked for.
    pub(crate) fn tell(&mut self) {
        if let Some((callback, userdata)) = self.callback {
            while let Some(event) = self.next_event() {
                if event.kind == netstack_host_event_kind::Socket as u32 {
                    call_back!(callback, userdata.0, event.socket, event.ready);
                }
            }
        } else if let Some(eventfd) = &self.eventfd {
            // Whether there is anything, netstack_host_poll_event says. A counter at its maximum is readable already.
            let _ = eventfd.write(1);
        }
    }
}

/// Takes the next event. `told` gets whether there was one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_poll_event(
    host: *mut netstack_host,
    event: *mut netstack_host_event,
    told: *mut bool,
) -> netstack_result {
    boundary!(caller, {
        let (mut out, mut told) = (caller.out(event)?, caller.out(told)?);
        let mut state = caller.write(host)?;
        let event = state.next_event();
        told.put(event.is_some());
        match event {
            Some(event) => out.put(event),
            // Nothing to be read at the moment.
            None => drop(state.eventfd.as_ref().map(EventFd::read)),
        }
        Ok(())
    })
}

/// What a socket is good for now, as a sum of NETSTACK_READY_FLAG_*.
/// STALE_SOCKET: it was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_poll(
    host: *const netstack_host,
    socket: u64,
    flags: *mut u32,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(flags)?;
        let state = caller.read(host)?;
        out.put(ready(&state.host, state.sockets.get(socket)?));
        Ok(())
    })
}

/// Has the library call back about sockets from now on, at the end of each call that takes frames or time; NULL ends that.
/// The host is in use meanwhile, so note what is told and act on it later. Events about other things are dropped while
/// there is a callback. Of a host that a driver turns it is called on the driver's thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_on_ready(
    host: *mut netstack_host,
    callback: netstack_ready_callback,
    userdata: *mut c_void,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(host)?;
        state.callback = callback.map(|callback| (callback, Userdata(userdata)));
        Ok(())
    })
}

/// An eventfd that becomes readable when netstack_host_poll_event may have something to tell, and is read when that says
/// that there is nothing; not while there is a callback. It stays the host's. For a host that a driver turns, or a loop that waits for descriptors.
/// OS: no descriptor is left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_descriptor(
    host: *mut netstack_host,
    descriptor: *mut i32,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(descriptor)?;
        let mut state = caller.write(host)?;
        if state.eventfd.is_none() {
            let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
            // What happened before is to be seen as well.
            state.eventfd = Some(EventFd::from_value_and_flags(1, flags).map_err(|_| Code::Os)?);
        }
        if let Some(eventfd) = &state.eventfd {
            out.put(eventfd.as_raw_fd());
        }
        Ok(())
    })
}
