//! What the edge needs of the world outside: sockets, and not a word about how they are made.
//!
//! Nothing here waits. Who begins something is told later, by [`Outside::poll_ready`], that it may have got on, and asks
//! then. Being told so once too often does no harm; that is what makes it safe to give a number to another socket at once.

use std::net::{IpAddr, SocketAddr};

/// A socket, by the number that the edge has given it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SocketId(pub u32);

/// What a socket for messages carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Messages {
    /// Datagrams of UDP.
    Udp,
    /// ICMP or ICMPv6 echo, whole messages. Whoever carries them may choose the identifier and fills in the checksum.
    Echo,
}

/// What there is to read at a place of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peeked {
    /// So many octets, at least one. If that is less than there was room for, there are no more for now, though an end may
    /// follow.
    Octets(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing, ever: the other side has ended its stream here.
    End,
}

/// How a stream is given up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Farewell {
    /// What was sent is delivered still.
    Gentle,
    /// The other side is told that the connection was broken off (TCP's reset).
    Abrupt,
}

/// What may be possible now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// There may be something to read: octets, an end, an error.
    pub readable: bool,
    /// After what there is to read comes an end or an error.
    pub ended: bool,
    /// The connection is broken.
    pub broken: bool,
    /// There may be room to send, or a connection may stand.
    pub writable: bool,
}

/// Why the outside does not do what it was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nobody listens there.
    #[error("the connection was refused")]
    Refused,
    /// The other side broke the connection off.
    #[error("the connection was reset by the other side")]
    Reset,
    /// The other side does not answer.
    #[error("the other side does not answer")]
    TimedOut,
    /// This machine knows no way there, or has no address of that family.
    #[error("there is no route")]
    NoRoute,
    /// A router says that the other side is not there.
    #[error("the other side cannot be reached")]
    Unreachable,
    /// This machine, or a router, forbids it.
    #[error("it is forbidden")]
    Prohibited,
    /// The message is longer than can be carried.
    #[error("the message is too long")]
    TooLong,
    /// This process or this machine has no descriptor, port or memory left.
    #[error("there are no sockets left")]
    NoSockets,
    /// Somebody else has the address and port.
    #[error("the address and port are in use")]
    InUse,
    /// This machine carries nothing of that kind.
    #[error("this machine does not carry it")]
    Unsupported,
}

/// Sockets. Each is opened with a number that none has that is open.
pub trait Outside {
    /// Begins a TCP connection. [`Outside::connected`] says how it gets on.
    ///
    /// # Errors
    /// Why it cannot be; the number is free then.
    fn connect(&mut self, socket: SocketId, to: SocketAddr) -> Result<(), Refusal>;

    /// Whether a connection that was begun stands by now.
    ///
    /// # Errors
    /// Why it never will.
    fn connected(&mut self, socket: SocketId) -> Result<bool, Refusal>;

    /// Sends octets, and says how many were taken.
    ///
    /// # Errors
    /// Why none ever will be.
    fn send(&mut self, socket: SocketId, octets: &[u8]) -> Result<usize, Refusal>;

    /// Copies what has come in, from `offset` octets behind what was discarded last. It stays where it is.
    ///
    /// # Errors
    /// How the connection has ended, if not well.
    fn peek(&mut self, socket: SocketId, offset: usize, into: &mut [u8]) -> Result<Peeked, Refusal>;

    /// Lets go of the oldest octets that have come in, which have all been peeked at; it may be put off until [`Outside::settle`].
    fn discard(&mut self, socket: SocketId, count: usize);

    /// Does what was put off. Nothing is for longer than a batch of frames.
    fn settle(&mut self) {}

    /// Tells the other side that nothing more will be sent.
    fn shutdown(&mut self, socket: SocketId);

    /// Opens a socket that exchanges messages with one address alone.
    ///
    /// # Errors
    /// Why it cannot be; the number is free then.
    fn open(&mut self, socket: SocketId, messages: Messages, to: SocketAddr) -> Result<(), Refusal>;

    /// Sends one message; false if there is no room for it, and it is gone.
    ///
    /// # Errors
    /// Why it was not sent. This may also be what became of an earlier one, and is told once.
    fn send_message(&mut self, socket: SocketId, message: &[u8]) -> Result<bool, Refusal>;

    /// Sends several messages of `size` octets each, the last of which may be shorter, all of them or none; false if there is
    /// no room for all.
    ///
    /// # Errors
    /// Why none was sent. This may also be what became of an earlier one, and is told once.
    fn send_messages(&mut self, socket: SocketId, messages: &[u8], size: usize) -> Result<bool, Refusal> {
        let _ = (socket, messages, size);
        Err(Refusal::Unsupported)
    }

    /// Takes in one message and says how long it is; none if none waits.
    ///
    /// # Errors
    /// What became of a message that was sent; told once.
    fn receive_message(&mut self, socket: SocketId, into: &mut [u8]) -> Result<Option<usize>, Refusal>;

    /// Listens for connections at an address of this machine.
    ///
    /// # Errors
    /// Why it cannot be; the number is free then.
    fn listen(&mut self, socket: SocketId, at: SocketAddr) -> Result<(), Refusal>;

    /// Takes the next connection that waits at a socket that listens, gives it a number, and says whose it is.
    ///
    /// # Errors
    /// Why the next one was not taken.
    fn accept(&mut self, listener: SocketId, socket: SocketId) -> Result<Option<SocketAddr>, Refusal>;

    /// Waits for datagrams of anybody at an address of this machine.
    ///
    /// # Errors
    /// Why it cannot be; the number is free then.
    fn bind(&mut self, socket: SocketId, at: SocketAddr) -> Result<(), Refusal>;

    /// Takes in one of those: how long it is, who sent it, and to which address; none if none waits.
    ///
    /// # Errors
    /// What became of a datagram that was sent; told once.
    fn receive_from(
        &mut self,
        socket: SocketId,
        into: &mut [u8],
    ) -> Result<Option<(usize, SocketAddr, IpAddr)>, Refusal>;

    /// Sends a datagram from an address of this machine; false if there is no room for it, and it is gone.
    ///
    /// # Errors
    /// Why it was not sent, or what became of an earlier one.
    fn send_from(
        &mut self,
        socket: SocketId,
        at: IpAddr,
        to: SocketAddr,
        octets: &[u8],
    ) -> Result<bool, Refusal>;

    /// Gives a socket up. Its number is free from now on.
    fn close(&mut self, socket: SocketId, farewell: Farewell);

    /// Looks which sockets may have got on.
    fn look(&mut self);

    /// The next socket of those that were found then.
    fn poll_ready(&mut self) -> Option<(SocketId, Ready)>;
}
