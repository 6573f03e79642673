//! Sockets of hosts: numbers that are never used twice, so that one that was closed names nothing else.

use core::net::SocketAddr;
use std::collections::{BTreeMap, HashMap};

use netstack::host::{
    BindError, ConnectError, Host, SendError, TcpError, TcpHandle, TcpListener, TcpState, UdpError, UdpHandle,
};

use crate::address::{netstack_address, netstack_endpoint};
use crate::caller::Outcome;
use crate::host::{HostState, netstack_host};
use crate::result::{Code, found, netstack_result};
use crate::switch::time;

/// What a number stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Socket {
    Connection(TcpHandle),
    Listener(TcpListener),
    Datagrams(UdpHandle),
}

/// The sockets of a host, by number and back.
#[derive(Debug, Default)]
pub struct Sockets {
    by_number: BTreeMap<u64, Socket>,
    numbers: HashMap<Socket, u64>,
    last: u64,
}

impl Sockets {
    /// A number for a socket.
    pub(crate) fn add(&mut self, socket: Socket) -> u64 {
        self.last += 1;
        self.by_number.insert(self.last, socket);
        self.numbers.insert(socket, self.last);
        self.last
    }

    /// The number of a socket that has one.
    pub(crate) fn number(&self, socket: Socket) -> Option<u64> {
        self.numbers.get(&socket).copied()
    }

    /// The socket of a number.
    pub(crate) fn get(&self, number: u64) -> Outcome<Socket> {
        self.by_number.get(&number).copied().ok_or(Code::StaleSocket)
    }

    fn connection(&self, number: u64) -> Outcome<TcpHandle> {
        match self.get(number)? {
            Socket::Connection(handle) => Ok(handle),
            Socket::Listener(_) | Socket::Datagrams(_) => Err(Code::InvalidArgument),
        }
    }

    fn datagrams(&self, number: u64) -> Outcome<UdpHandle> {
        match self.get(number)? {
            Socket::Datagrams(handle) => Ok(handle),
            Socket::Listener(_) | Socket::Connection(_) => Err(Code::InvalidArgument),
        }
    }

    fn remove(&mut self, number: u64) -> Outcome<Socket> {
        let socket = self.by_number.remove(&number).ok_or(Code::StaleSocket)?;
        self.numbers.remove(&socket);
        Ok(socket)
    }
}

/// What a socket is good for now, to be added up.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_ready_flag {
    /// Something can be read, or the end of it; a listener has a connection to accept.
    Readable = 1,
    /// Something can be sent.
    Writable = 2,
    /// The connection is over: nothing more is sent, and what is left can be read.
    Ended = 4,
    /// It failed; sending and receiving say why.
    Failed = 8,
}

/// The states of a TCP connection (RFC 9293 section 3.3.2).
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_tcp_state {
    /// Over, or forgotten.
    Closed = 0,
    /// LISTEN.
    Listen = 1,
    /// SYN-SENT.
    SynSent = 2,
    /// SYN-RECEIVED.
    SynReceived = 3,
    /// ESTABLISHED.
    Established = 4,
    /// FIN-WAIT-1.
    FinWait1 = 5,
    /// FIN-WAIT-2.
    FinWait2 = 6,
    /// CLOSE-WAIT.
    CloseWait = 7,
    /// CLOSING.
    Closing = 8,
    /// LAST-ACK.
    LastAck = 9,
    /// TIME-WAIT.
    TimeWait = 10,
}

const fn state_number(state: TcpState) -> u32 {
    use netstack_tcp_state as Number;
    let number = match state {
        TcpState::Closed => Number::Closed,
        TcpState::Listen => Number::Listen,
        TcpState::SynSent => Number::SynSent,
        TcpState::SynReceived => Number::SynReceived,
        TcpState::Established => Number::Established,
        TcpState::FinWait1 => Number::FinWait1,
        TcpState::FinWait2 => Number::FinWait2,
        TcpState::CloseWait => Number::CloseWait,
        TcpState::Closing => Number::Closing,
        TcpState::LastAck => Number::LastAck,
        TcpState::TimeWait => Number::TimeWait,
    };
    number as u32
}

fn tcp_code(error: TcpError) -> Code {
    match error {
        TcpError::WouldBlock => Code::WouldBlock,
        TcpError::Closed => Code::Closed,
        TcpError::Stale => Code::StaleSocket,
        TcpError::Refused => Code::Refused,
        TcpError::Reset => Code::Reset,
        TcpError::TimedOut => Code::TimedOut,
        TcpError::Unreachable => Code::Unreachable,
        TcpError::Aborted => Code::Aborted,
        _ => Code::InvalidArgument,
    }
}

fn connect_code(error: ConnectError) -> Code {
    match error {
        ConnectError::NoRoute => Code::NoRoute,
        ConnectError::InvalidDestination => Code::InvalidArgument,
        ConnectError::TableFull => Code::TableFull,
        ConnectError::NoFreePort => Code::AddressInUse,
        _ => Code::InvalidArgument,
    }
}

fn bind_code(error: BindError) -> Code {
    match error {
        BindError::NotOurs => Code::AddressNotOurs,
        BindError::InvalidPort => Code::InvalidArgument,
        BindError::InUse => Code::AddressInUse,
        BindError::TableFull => Code::TableFull,
        _ => Code::InvalidArgument,
    }
}

/// Why a packet was not sent.
pub(crate) fn send_code(error: SendError) -> Code {
    match error {
        SendError::NoRoute => Code::NoRoute,
        SendError::MessageTooLong { .. } => Code::TooLong,
        SendError::InvalidDestination => Code::InvalidArgument,
        SendError::Stale => Code::StaleSocket,
        _ => Code::InvalidArgument,
    }
}

/// What a socket is good for now.
pub(crate) fn ready(host: &Host, socket: Socket) -> u32 {
    use netstack_ready_flag::{Ended, Failed, Readable, Writable};
    let flag = |has: bool, flag: netstack_ready_flag| if has { flag as u32 } else { 0 };
    match socket {
        Socket::Connection(handle) => {
            let state = host.tcp_state(handle);
            let finished = matches!(
                state,
                TcpState::CloseWait
                    | TcpState::Closing
                    | TcpState::LastAck
                    | TcpState::TimeWait
                    | TcpState::Closed
            );
            flag(finished || host.tcp_readable(handle) > 0, Readable)
                | flag(host.tcp_writable(handle) > 0, Writable)
                | flag(matches!(state, TcpState::Closed | TcpState::TimeWait), Ended)
                | flag(host.tcp_error(handle).is_some(), Failed)
        }
        Socket::Listener(listener) => flag(host.tcp_incoming(listener) > 0, Readable),
        Socket::Datagrams(handle) => flag(host.udp_waiting(handle) > 0, Readable) | Writable as u32,
    }
}

/// Begins a TCP connection. It is established when its state says so; readiness tells when to ask.
/// NO_ROUTE, INVALID_ARGUMENT (port 0, or no unicast address), TABLE_FULL, ADDRESS_IN_USE (no port is free).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_connect(
    host: *mut netstack_host,
    now_us: u64,
    remote: *const netstack_endpoint,
    socket: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(socket)?;
        let remote = caller.value(remote)?.to_socket()?;
        let mut state = caller.write(host)?;
        let handle = state.host.tcp_connect(time(now_us), remote).map_err(connect_code)?;
        out.put(state.sockets.add(Socket::Connection(handle)));
        Ok(())
    })
}

/// Listens for TCP on an address of the host, or on the unspecified address for all of that family.
/// ADDRESS_NOT_OURS, ADDRESS_IN_USE, INVALID_ARGUMENT (port 0), TABLE_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_listen(
    host: *mut netstack_host,
    local: *const netstack_endpoint,
    socket: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(socket)?;
        let local = caller.value(local)?.to_socket()?;
        let mut state = caller.write(host)?;
        let listener = state.host.tcp_listen(local).map_err(bind_code)?;
        out.put(state.sockets.add(Socket::Listener(listener)));
        Ok(())
    })
}

/// Takes an established connection from a listener. What has come by it already is told of afterwards.
/// WOULD_BLOCK: none waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_accept(
    host: *mut netstack_host,
    listener: u64,
    socket: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(socket)?;
        let mut state = caller.write(host)?;
        let Socket::Listener(listener) = state.sockets.get(listener)? else {
            return Err(Code::InvalidArgument);
        };
        let handle = state.host.tcp_accept(listener).ok_or(Code::WouldBlock)?;
        out.put(state.sockets.add(Socket::Connection(handle)));
        Ok(())
    })
}

/// Puts octets into a connection's send buffer. `sent` gets how many fitted.
/// WOULD_BLOCK: none, or the handshake is not over. CLOSED, REFUSED, RESET, TIMED_OUT, UNREACHABLE, ABORTED: nothing more
/// can be sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_send(
    host: *mut netstack_host,
    now_us: u64,
    socket: u64,
    data: *const u8,
    length: usize,
    sent: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(sent)?;
        let data = caller.slice(data, length)?;
        let mut state = caller.write(host)?;
        let handle = state.sockets.connection(socket)?;
        out.put(state.host.tcp_send(time(now_us), handle, data).map_err(tcp_code)?);
        Ok(())
    })
}

/// Takes octets that a connection has received. `received` gets how many; 0 is the end: the other side has closed.
/// WOULD_BLOCK: none wait. REFUSED, RESET, TIMED_OUT, UNREACHABLE, ABORTED: none will come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_receive(
    host: *mut netstack_host,
    now_us: u64,
    socket: u64,
    buffer: *mut u8,
    capacity: usize,
    received: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(received)?;
        let buffer = caller.slice_mut(buffer, capacity)?;
        let mut state = caller.write(host)?;
        let handle = state.sockets.connection(socket)?;
        out.put(state.host.tcp_recv(time(now_us), handle, buffer).map_err(tcp_code)?);
        Ok(())
    })
}

/// Closes a connection's side: what is in the send buffer goes out, then a FIN. The other side may go on sending.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_shutdown(
    host: *mut netstack_host,
    now_us: u64,
    socket: u64,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(host)?;
        let handle = state.sockets.connection(socket)?;
        state.host.tcp_close(time(now_us), handle);
        Ok(())
    })
}

/// Ends a connection at once with a RST and closes the socket.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_abort(
    host: *mut netstack_host,
    now_us: u64,
    socket: u64,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(host)?;
        let handle = state.sockets.connection(socket)?;
        state.host.tcp_abort(time(now_us), handle);
        state.sockets.remove(socket).map(drop)
    })
}

/// A connection's state, one of netstack_tcp_state, its address and the other side's. The last two may be NULL.
/// NOT_FOUND: it is over and forgotten; the state is written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_tcp_state(
    host: *const netstack_host,
    socket: u64,
    state: *mut u32,
    local: *mut netstack_endpoint,
    remote: *mut netstack_endpoint,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.out(state)?;
        let (mut local, mut remote) = (caller.optional_out(local)?, caller.optional_out(remote)?);
        let it = caller.read(host)?;
        let handle = it.sockets.connection(socket)?;
        state.put(state_number(it.host.tcp_state(handle)));
        let (ours, theirs) = found(it.host.tcp_endpoints(handle))?;
        local.put(ours.into());
        remote.put(theirs.into());
        Ok(())
    })
}

/// Opens a UDP socket on an address of the host, or on the unspecified address for all of that family. Port 0 asks for a
/// free one; `bound` gets where it is, and may be NULL.
/// ADDRESS_NOT_OURS, ADDRESS_IN_USE, TABLE_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_udp_bind(
    host: *mut netstack_host,
    local: *const netstack_endpoint,
    socket: *mut u64,
    bound: *mut netstack_endpoint,
) -> netstack_result {
    boundary!(caller, {
        let (mut out, mut bound) = (caller.out(socket)?, caller.optional_out(bound)?);
        let local = caller.value(local)?.to_socket()?;
        let mut state = caller.write(host)?;
        let handle = state.host.udp_bind(local).map_err(bind_code)?;
        bound.put(state.host.udp_local(handle).unwrap_or(local).into());
        out.put(state.sockets.add(Socket::Datagrams(handle)));
        Ok(())
    })
}

/// Sends a datagram.
/// NO_ROUTE, TOO_LONG (nothing is fragmented), INVALID_ARGUMENT (port 0, or the other family).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_udp_send(
    host: *mut netstack_host,
    now_us: u64,
    socket: u64,
    data: *const u8,
    length: usize,
    destination: *const netstack_endpoint,
) -> netstack_result {
    boundary!(caller, {
        let data = caller.slice(data, length)?;
        let destination: SocketAddr = caller.value(destination)?.to_socket()?;
        let mut state = caller.write(host)?;
        let handle = state.sockets.datagrams(socket)?;
        state.host.udp_send_to(time(now_us), handle, data, destination).map_err(send_code)
    })
}

/// Takes the oldest datagram. `length` gets how many octets it has: what does not fit the buffer is lost. `from` is its
/// sender, `to` the host's address that it was sent to; either may be NULL.
/// WOULD_BLOCK: none waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_udp_receive(
    host: *mut netstack_host,
    socket: u64,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
    from: *mut netstack_endpoint,
    to: *mut netstack_address,
) -> netstack_result {
    boundary!(caller, {
        let mut length = caller.out(length)?;
        let (mut from, mut to) = (caller.optional_out(from)?, caller.optional_out(to)?);
        let buffer = caller.slice_mut(buffer, capacity)?;
        let mut state = caller.write(host)?;
        let handle = state.sockets.datagrams(socket)?;
        let datagram = state.host.udp_recv_from(handle, buffer).map_err(|error| match error {
            UdpError::WouldBlock => Code::WouldBlock,
            UdpError::Stale => Code::StaleSocket,
            _ => Code::InvalidArgument,
        })?;
        length.put(datagram.full_len);
        from.put(datagram.from.into());
        to.put(datagram.to.into());
        Ok(())
    })
}

/// Closes a socket of any kind; its number means nothing any more. A connection sends what is in its buffer, then a FIN;
/// connections that a listener has and nobody accepted are reset; datagrams that wait are lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_close(
    host: *mut netstack_host,
    now_us: u64,
    socket: u64,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(host)?;
        let HostState { host, sockets, .. } = &mut *state;
        match sockets.remove(socket)? {
            Socket::Connection(handle) => host.tcp_release(time(now_us), handle),
            Socket::Listener(listener) => host.tcp_unlisten(time(now_us), listener),
            Socket::Datagrams(handle) => host.udp_close(handle),
        }
        Ok(())
    })
}
