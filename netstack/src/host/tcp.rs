//! The sockets of TCP: what the owner of a host sees of its connections.
//!
//! A connection is named by a [`TcpHandle`], which goes stale once the connection is over and its owner has closed it and
//! read what it received (or has let go of it). Until then a connection keeps its place in the table, TIME-WAIT (10 s)
//! included.

use core::net::SocketAddr;
use core::time::Duration;

use smoltcp::socket::tcp::{RecvError, State};

use super::connections::ListenKey;
use super::table::Handle;
use super::{BindError, Host};

/// Names a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TcpHandle(pub(super) Handle);

/// Names a listener until it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TcpListener(pub(super) Handle);

/// The states of a connection (RFC 9293 section 3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "the names are those of the RFC, which defines them")]
pub enum TcpState {
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

impl From<State> for TcpState {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Listen => Self::Listen,
            State::SynSent => Self::SynSent,
            State::SynReceived => Self::SynReceived,
            State::Established => Self::Established,
            State::FinWait1 => Self::FinWait1,
            State::FinWait2 => Self::FinWait2,
            State::CloseWait => Self::CloseWait,
            State::Closing => Self::Closing,
            State::LastAck => Self::LastAck,
            State::TimeWait => Self::TimeWait,
        }
    }
}

/// Why a connect was refused on the spot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address of the destination's family, no gateway, or the destination is this host itself.
    #[error("no way to the destination: no address of its family, or no gateway")]
    NoRoute,
    /// Port 0, or not a unicast address.
    #[error("not an address and port that can be connected to")]
    InvalidDestination,
    /// As many connections as [`HostLimits::tcp_flows`](super::HostLimits::tcp_flows) allows.
    #[error("the table of connections is full")]
    TableFull,
    /// Every local port is connected to this destination already.
    #[error("every local port is connected to this destination already")]
    NoFreePort,
}

/// Why a connection could not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpError {
    /// Not now: no data has arrived, there is no room to send, or the handshake is not over.
    #[error("the operation would block")]
    WouldBlock,
    /// The owner has closed its side, so nothing more can be sent.
    #[error("the connection was closed on this side")]
    Closed,
    /// The handle's connection is over and forgotten.
    #[error("the connection is over")]
    Stale,
    /// The other side answered the SYN with a RST, or said by ICMP that nobody listens.
    #[error("the connection was refused")]
    Refused,
    /// The other side ended the connection with a RST.
    #[error("the connection was reset by the other side")]
    Reset,
    /// The other side did not answer in time.
    #[error("the other side did not answer in time")]
    TimedOut,
    /// The neighbour on the way does not answer, or a router says that there is no way.
    #[error("the other side cannot be reached")]
    Unreachable,
    /// The owner aborted the connection.
    #[error("the connection was aborted on this side")]
    Aborted,
}

impl Host {
    /// Begins a connection to `remote` from the address that suits it and a free port. It is established when
    /// [`Host::tcp_state`] says so; [`HostEvent::TcpReady`](super::HostEvent::TcpReady) tells when to ask.
    pub fn tcp_connect(&mut self, now: Duration, remote: SocketAddr) -> Result<TcpHandle, ConnectError> {
        self.link.now = now;
        self.tcp.connect(&mut self.link, &self.config, remote).map(TcpHandle)
    }

    /// Listens on an address of ours, or on the unspecified address for all of that family.
    pub fn tcp_listen(&mut self, local: SocketAddr) -> Result<TcpListener, BindError> {
        if !local.ip().is_unspecified() && !self.link.is_ours(local.ip()) {
            return Err(BindError::NotOurs);
        }
        self.tcp.listen(ListenKey { address: local.ip(), l4_port: local.port() }).map(TcpListener)
    }

    /// Takes an established connection from a listener.
    pub fn tcp_accept(&mut self, listener: TcpListener) -> Option<TcpHandle> {
        self.tcp.accept(listener.0).map(TcpHandle)
    }

    /// Connections that wait for [`Host::tcp_accept`].
    pub fn tcp_incoming(&self, listener: TcpListener) -> usize {
        self.tcp.incoming(listener.0)
    }

    /// Stops listening. Connections that were not accepted are reset.
    pub fn tcp_unlisten(&mut self, now: Duration, listener: TcpListener) {
        self.link.now = now;
        self.tcp.unlisten(listener.0);
    }

    /// Puts octets into the send buffer and says how many fitted.
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`] when none did or the handshake is not over, else why nothing more can be sent.
    pub fn tcp_send(&mut self, now: Duration, connection: TcpHandle, data: &[u8]) -> Result<usize, TcpError> {
        self.link.now = now;
        let (slot, flow) = self.tcp.flow(connection.0).ok_or(TcpError::Stale)?;
        if let Some(error) = flow.error {
            return Err(error);
        }
        if flow.closed_by_owner {
            return Err(TcpError::Closed);
        }
        // A connection that cannot send and was neither closed nor failed is in its handshake.
        let count = flow.socket_mut().send_slice(data).map_err(|_| TcpError::WouldBlock)?;
        if count == 0 && !data.is_empty() {
            return Err(TcpError::WouldBlock);
        }
        self.tcp.mark_ready(slot);
        Ok(count)
    }

    /// Takes received octets out and says how many. 0 means that the other side has closed and everything was read.
    ///
    /// # Errors
    /// [`TcpError::WouldBlock`] when none wait, else why none will come. What arrived before a failure can be read
    /// first.
    pub fn tcp_recv(
        &mut self,
        now: Duration,
        connection: TcpHandle,
        buffer: &mut [u8],
    ) -> Result<usize, TcpError> {
        self.link.now = now;
        let (slot, flow) = self.tcp.flow(connection.0).ok_or(TcpError::Stale)?;
        let error = flow.error;
        let received = flow.socket_mut().recv_slice(buffer);
        match received {
            Ok(0) if buffer.is_empty() => Ok(0),
            Ok(0) => Err(TcpError::WouldBlock),
            Ok(count) => {
                // The window may have opened, and TIME-WAIT may have waited for this.
                self.tcp.mark_ready(slot);
                Ok(count)
            }
            Err(RecvError::Finished) => Ok(0),
            Err(RecvError::InvalidState) => Err(error.unwrap_or(TcpError::WouldBlock)),
        }
    }

    /// Octets that wait to be read.
    pub fn tcp_readable(&self, connection: TcpHandle) -> usize {
        self.tcp.peek(connection.0).map_or(0, |flow| flow.socket().recv_queue())
    }

    /// Octets that fit the send buffer at once.
    pub fn tcp_writable(&self, connection: TcpHandle) -> usize {
        let room = |flow: &super::flow::Flow| {
            let socket = flow.socket();
            if socket.may_send() { socket.send_capacity() - socket.send_queue() } else { 0 }
        };
        self.tcp.peek(connection.0).map_or(0, room)
    }

    /// Octets sent or to be sent that the other side has not acknowledged.
    pub fn tcp_unacknowledged(&self, connection: TcpHandle) -> usize {
        self.tcp.peek(connection.0).map_or(0, |flow| flow.socket().send_queue())
    }

    /// Closes our side: what is in the send buffer goes out, then a FIN. The other side may go on sending; read until the
    /// end, or [let go](Host::tcp_release).
    pub fn tcp_close(&mut self, now: Duration, connection: TcpHandle) {
        self.link.now = now;
        if let Some((slot, flow)) = self.tcp.flow(connection.0) {
            flow.closed_by_owner = true;
            if flow.state() == State::SynSent {
                // A connection that never was needs no RST (RFC 9293 section 3.10.4).
                flow.fail(TcpError::Aborted);
            } else {
                flow.socket_mut().close();
            }
            self.tcp.finish(&mut self.link, slot);
        }
    }

    /// Closes our side and lets go of the connection: the handle is not to be used again. Data that still arrives or was
    /// not read resets the connection (RFC 9293 section 3.6.1).
    pub fn tcp_release(&mut self, now: Duration, connection: TcpHandle) {
        self.link.now = now;
        if let Some((_, flow)) = self.tcp.flow(connection.0) {
            flow.released = true;
            self.tcp_close(now, connection);
        }
    }

    /// Ends the connection at once with a RST and lets go of it.
    pub fn tcp_abort(&mut self, now: Duration, connection: TcpHandle) {
        self.link.now = now;
        if let Some((slot, flow)) = self.tcp.flow(connection.0) {
            flow.released = true;
            flow.fail(TcpError::Aborted);
            self.tcp.finish(&mut self.link, slot);
        }
    }

    /// The state of a connection, [`TcpState::Closed`] for one that is over and forgotten.
    pub fn tcp_state(&self, connection: TcpHandle) -> TcpState {
        self.tcp.peek(connection.0).map_or(TcpState::Closed, |flow| flow.state().into())
    }

    /// Why a connection failed, if it did.
    pub fn tcp_error(&self, connection: TcpHandle) -> Option<TcpError> {
        self.tcp.peek(connection.0).and_then(|flow| flow.error)
    }

    /// Our and the other side's address of a connection.
    pub fn tcp_endpoints(&self, connection: TcpHandle) -> Option<(SocketAddr, SocketAddr)> {
        self.tcp.peek(connection.0).map(|flow| (flow.tuple.local, flow.tuple.remote))
    }

    /// Whether small segments wait for an acknowledgement of earlier ones (RFC 9293 section 3.7.4); they do by default.
    pub fn tcp_set_nagle(&mut self, connection: TcpHandle, enabled: bool) {
        if let Some((_, flow)) = self.tcp.flow(connection.0) {
            flow.socket_mut().set_nagle_enabled(enabled);
        }
    }

    /// Connections held, in any state.
    pub fn tcp_connections(&self) -> usize {
        self.tcp.len()
    }
}
