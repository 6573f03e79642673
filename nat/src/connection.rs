//! What is kept of a connection.

use core::fmt;
use core::time::Duration;

use crate::sctp::Sctp;
use crate::tcp::Tcp;
use crate::ticks::Ticks;
use crate::tuple::{Address, Direction, Endpoint, Tuple};

/// Which connection; goes stale when the connection ends, and never means another one (until 2^32 have been in its slot).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnectionId {
    /// Its place in the table.
    pub slot: u32,
    /// How many were there before it.
    pub generation: u32,
}

/// What else is known of a connection, one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status(u8);

impl Status {
    /// A packet was seen in the reply direction.
    pub const SEEN_REPLY: Self = Self(1);
    /// It is worth keeping when the table is full: both sides have spoken, TCP's handshake is complete.
    pub const ASSURED: Self = Self(1 << 1);
    /// It holds an external port, alone or with others of the same inside endpoint.
    pub const LEASED: Self = Self(1 << 2);
    /// It holds an external port that others hold towards other destinations.
    pub const SHARED: Self = Self(1 << 3);
    /// Its opener's port was changed for no other reason than to tell its answers from those of another connection.
    pub(crate) const MOVED: Self = Self(1 << 4);
    /// It was opened from inside and has an external port, be that its own source: who masquerades as an address that is
    /// already his keeps his port, and then it is the destination alone that is translated.
    pub(crate) const OUTWARD: Self = Self(1 << 5);
    /// There is no connection in this slot.
    pub(crate) const FREE: Self = Self(1 << 7);

    /// Whether it has all of `bits`.
    #[inline]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }

    /// Adds `bits`.
    #[inline]
    pub const fn set(&mut self, bits: Self) {
        self.0 |= bits.0;
    }
}

/// The state of its protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// TCP.
    Tcp(Tcp),
    /// SCTP.
    Sctp(Sctp),
    /// UDP, and when its first datagram came.
    Udp(Ticks),
    /// A query of ICMP or ICMPv6.
    Query,
    /// A protocol known by its addresses alone.
    Other,
}

impl State {
    /// Its name, as Linux's tools write it; none where the protocol has no states.
    pub const fn name(&self) -> Option<&'static str> {
        match self {
            Self::Tcp(tcp) => Some(tcp.state().name()),
            Self::Sctp(sctp) => Some(sctp.state().name()),
            Self::Udp(_) | Self::Query | Self::Other => None,
        }
    }
}

impl fmt::Display for State {
    /// [`Self::name`]; nothing where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name().unwrap_or_default())
    }
}

/// A connection: the tuple each side's packets carry on arrival. Where they are not each other's inverse, packets are
/// translated: what goes one way leaves as the inverse of what comes the other.
///
/// What a search compares and a packet changes lies in front, in one cache line where possible.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Connection<A> {
    /// Source and destination, by direction.
    pub(crate) endpoints: [[Endpoint<A>; 2]; 2],
    /// By direction, like the endpoints: tenants that use the same addresses can share an outside.
    pub(crate) zones: [u16; 2],
    pub(crate) protocol: u8,
    /// What else is known.
    pub status: Status,
    pub(crate) deadline: Ticks,
    pub(crate) generation: u32,
    /// Its neighbours among the connections of one mapping.
    pub(crate) siblings: [u32; 2],
    /// For the owner of the table to use: what the connection was judged under, where it goes.
    pub marks: [u32; 3],
    /// The state of its protocol.
    pub state: State,
}

// What a million connections cost is decided here.
const _: () = assert!(size_of::<Connection<core::net::Ipv4Addr>>() <= 116);
const _: () = assert!(size_of::<Connection<core::net::Ipv6Addr>>() <= 164);

impl<A: Address> Connection<A> {
    /// The tuple of packets that arrive in `direction`.
    #[inline]
    pub fn tuple(&self, direction: Direction) -> Tuple<A> {
        let [source, destination] = self.endpoints[direction.index()];
        Tuple { source, destination, protocol: self.protocol, zone: self.zones[direction.index()] }
    }

    /// The tuple with which packets that arrive in `direction` leave.
    #[inline]
    pub fn translated(&self, direction: Direction) -> Tuple<A> {
        self.tuple(direction.reverse()).inverse()
    }

    /// The direction in which packets leave for the outside: that of the opener, unless it is its destination alone that is
    /// translated, by a rule or a mapping.
    #[inline]
    pub fn outbound(&self) -> Direction {
        let [[source, destination], [answerer, answered]] = self.endpoints;
        let destination_alone =
            destination != answerer && (source == answered || self.status.has(Status::MOVED));
        if destination_alone && !self.status.has(Status::OUTWARD) {
            Direction::Reply
        } else {
            Direction::Original
        }
    }

    /// The tuple of packets from its inside, as they arrive.
    pub fn inside(&self) -> Tuple<A> {
        self.tuple(self.outbound())
    }

    /// The same, as they leave: from the external endpoint to the one outside.
    pub fn outside(&self) -> Tuple<A> {
        self.translated(self.outbound())
    }

    /// The external address that its inside is seen with; `None` if that is not translated.
    pub fn external(&self) -> Option<A> {
        let (inside, outside) = (self.inside().source, self.outside().source);
        let has_port = self.status.has(Status::LEASED) || self.status.has(Status::OUTWARD);
        (inside != outside || has_port).then_some(outside.address)
    }

    /// Whether packets are translated at all.
    #[inline]
    pub fn is_translated(&self) -> bool {
        self.endpoints[0][0] != self.endpoints[1][1] || self.endpoints[0][1] != self.endpoints[1][0]
    }

    /// Whether both its ends are translated, as they are where an inside endpoint asks the mapping of another.
    #[inline]
    pub(crate) fn is_twice_translated(&self) -> bool {
        self.endpoints[0][0] != self.endpoints[1][1] && self.endpoints[0][1] != self.endpoints[1][0]
    }

    /// Notes that a packet went in `direction` that belongs to it.
    #[inline]
    pub(crate) fn heard(&mut self, direction: Direction) {
        if direction == Direction::Reply {
            self.status.set(Status::SEEN_REPLY);
        }
        let assured = match &self.state {
            State::Tcp(tcp) => tcp.is_assured(),
            State::Sctp(sctp) => sctp.is_assured(),
            State::Udp(_) | State::Query | State::Other => self.status.has(Status::SEEN_REPLY),
        };
        if assured {
            self.status.set(Status::ASSURED);
        }
    }

    /// How long it is kept from `now` on if it stays silent.
    pub fn remaining(&self, now: Duration) -> Duration {
        self.deadline.from(Ticks::at(now))
    }
}
