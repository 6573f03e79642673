//! What a packet is to the connections there are.

use core::time::Duration;

use super::Nat;
use crate::connection::{Connection, ConnectionId, State, Status};
use crate::packet::{Content, Packet};
use crate::sctp::{self, Sctp};
use crate::tcp::{self, Outcome, Segment, Tcp, flag};
use crate::ticks::Ticks;
use crate::timeouts::Timeouts;
use crate::translate::{ChecksumState, ErrorFault, Rewrite, check_error};
use crate::tuple::{Address, Direction, Tuple, protocol};

/// What a packet is to the connections there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracked<A> {
    /// It belongs to this one.
    Known {
        /// The connection, which has ended with this very packet if [`Nat::get`] does not find it.
        id: ConnectionId,
        /// Which way the packet goes in it.
        direction: Direction,
        /// How it leaves; `None` if nothing is translated.
        rewrite: Option<Rewrite<A>>,
    },
    /// It is an error about a packet of this one, and goes to who sent that.
    Related {
        /// The connection.
        id: ConnectionId,
        /// Which way the error goes in it.
        direction: Direction,
        /// How packets that go this way leave; see [`Rewrite::apply_error`].
        rewrite: Option<Rewrite<A>>,
        /// Where the error comes from afterwards: not from an address that is hidden (RFC 5508 REQ-5).
        source: A,
    },
    /// It may open one.
    New(New<A>),
    /// It belongs to none and cannot: to be dropped.
    Invalid(Invalid),
    /// Nothing is tracked of its kind: neighbour discovery and the like, fragments other than the first.
    Untracked,
}

/// Why a packet belongs to no connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Invalid {
    /// Its checksum is wrong.
    Checksum,
    /// Its upper layer's header contradicts itself.
    Malformed,
    /// It does not fit the TCP connection with its tuple, or opens none.
    Tcp(tcp::Invalid),
    /// It does not fit the SCTP association with its tuple, or opens none.
    Sctp(sctp::Invalid),
    /// It answers a query that nobody asked.
    Unasked,
    /// It is an error that must not be passed on.
    Error(ErrorFault),
    /// It is an error about a packet of no connection (RFC 5508 REQ-4c).
    Unrelated,
}

/// A packet that may open a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct New<A> {
    /// Its tuple.
    pub tuple: Tuple<A>,
    pub(super) state: State,
    pub(super) timeout: Duration,
}

/// What a packet of a known connection did to it.
enum Fed {
    /// Nothing but that it is still there, for so long.
    Kept(Duration),
    /// Nothing.
    Unchanged,
    /// It ended.
    Ended,
    /// It ended, and the packet may open another.
    Reopened,
    Invalid(Invalid),
}

/// How a packet prolongs its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Renewal {
    /// By the whole time, whatever it is of.
    Always,
    /// Where a state machine knows that it belongs.
    Sometimes,
    /// The connection goes through two mappings, and both are prolonged.
    OfBoth,
}

/// What a packet would do to its connection.
enum Trial {
    Fits,
    Refused(Invalid),
    /// It ends it, and may open another.
    Reopens,
}

/// A packet under judgement.
#[derive(Clone, Copy)]
struct Subject<'a> {
    /// What was read of it.
    packet: &'a Packet,
    /// What it was read from.
    bytes: &'a [u8],
    /// Whether its checksum can be judged.
    checksum: ChecksumState,
}

impl<'a> Subject<'a> {
    /// Its upper layer, header and all.
    fn upper(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.packet.layout.upper..self.packet.layout.end)
    }

    /// Whether it is the first part of a packet: of such the upper layer's length is not known.
    fn is_fragment(&self) -> bool {
        self.packet.layout.fragment.is_some()
    }

    /// Whether its checksum is known to be wrong.
    fn is_damaged(&self) -> bool {
        self.checksum == ChecksumState::Complete && !self.packet.has_sound_checksum(self.bytes)
    }
}

impl<A: Address> Nat<A> {
    /// Says what a packet is, and takes note of it if it belongs to a connection. `bytes` are those that `packet` was read
    /// from; of a checksum that a device will finish nothing is judged.
    pub fn track(
        &mut self,
        now: Duration,
        zone: u16,
        packet: &Packet,
        bytes: &[u8],
        checksum: ChecksumState,
    ) -> Tracked<A> {
        let tracked = self.decide(now, zone, Subject { packet, bytes, checksum });
        match tracked {
            Tracked::Invalid(Invalid::Unrelated) => self.counters.unrelated += 1,
            Tracked::Invalid(_) => self.counters.invalid += 1,
            Tracked::Known { .. } | Tracked::Related { .. } | Tracked::New(_) | Tracked::Untracked => {}
        }
        tracked
    }

    fn decide(&mut self, now: Duration, zone: u16, subject: Subject<'_>) -> Tracked<A> {
        let seen = self.judge(now, zone, subject);
        let Tracked::Known { id, direction, .. } = seen else { return seen };
        match self.feed(now, id, direction, subject) {
            Fed::Kept(timeout) => self.keep(now, id, direction, timeout),
            Fed::Unchanged => {}
            Fed::Ended => {
                self.counters.cut_short += 1;
                self.end(id, now, false);
            }
            Fed::Reopened => {
                self.counters.cut_short += 1;
                self.end(id, now, false);
                return self.judge(now, zone, subject);
            }
            Fed::Invalid(reason) => return Tracked::Invalid(reason),
        }
        seen
    }

    /// Takes note of a packet whose connection is known from one before it that had the same tuple: what [`Self::track`]
    /// would do, without searching. `upper` is the packet's upper layer, whole; `now` and `moment` are the same time, and
    /// `renewal` is what [`Self::renewal`] has said of the connection and the direction. False, and nothing noted, if the
    /// connection has ended or is not `fit`, or if the packet begins it, breaks it off, or does not fit: then `track` is to be
    /// asked. Of a FIN the caller has seen that its checksum needs no verification.
    #[inline]
    pub fn follow(
        &mut self,
        (now, moment): (Duration, Ticks),
        id: ConnectionId,
        direction: Direction,
        renewal: Renewal,
        upper: &[u8],
        fit: impl FnOnce(&Connection<A>) -> bool,
    ) -> bool {
        let (timeouts, behaviour) = (&self.timeouts, &self.behaviour);
        let mut later = None;
        let followed = self.table.follow(id, |connection| {
            if connection.deadline.has_come(moment) || !fit(connection) {
                return None;
            }
            let (timeout, renews) = match &mut connection.state {
                State::Udp(began) => {
                    let timeout = udp_timeout(timeouts, *began, moment, connection.status, direction);
                    (timeout, renewal == Renewal::Always)
                }
                State::Tcp(tcp) => match Segment::read(upper) {
                    Ok(segment) if tcp.proceed(direction, &segment, behaviour.tcp) => {
                        (tcp.timeout(&timeouts.tcp, behaviour.tcp), renewal != Renewal::OfBoth)
                    }
                    Ok(_) | Err(_) => return None,
                },
                State::Sctp(_) | State::Query | State::Other => return None,
            };
            connection.heard(direction);
            if renews {
                return Some(moment.after(timeout));
            }
            later = Some(timeout);
            Some(connection.deadline)
        });
        if let Some(timeout) = later {
            self.keep(now, id, direction, timeout);
        }
        followed
    }

    /// How packets of a connection in one direction prolong it; that stays as it is as long as the behaviour does.
    pub fn renewal(&self, id: ConnectionId, direction: Direction) -> Renewal {
        let Some(connection) = self.table.get(id) else { return Renewal::Sometimes };
        let outbound = !connection.is_translated() || direction == connection.outbound();
        match (connection.is_twice_translated(), outbound || self.behaviour.inbound_refreshes) {
            (true, _) => Renewal::OfBoth,
            (false, true) => Renewal::Always,
            (false, false) => Renewal::Sometimes,
        }
    }

    /// What [`Self::track`] would say, without taking note of anything.
    pub fn look(
        &self,
        now: Duration,
        zone: u16,
        packet: &Packet,
        bytes: &[u8],
        checksum: ChecksumState,
    ) -> Tracked<A> {
        let subject = Subject { packet, bytes, checksum };
        let seen = self.judge(now, zone, subject);
        match seen {
            Tracked::Known { id, direction, .. } => match self.trial(id, direction, subject) {
                Trial::Fits => seen,
                Trial::Refused(reason) => Tracked::Invalid(reason),
                Trial::Reopens => match packet.tuple(zone) {
                    Some(tuple) => self.open(now, tuple, subject),
                    None => seen,
                },
            },
            Tracked::Related { .. } | Tracked::New(_) | Tracked::Invalid(_) | Tracked::Untracked => seen,
        }
    }

    /// What a packet would open if the connection that it belongs to had ended; `None` if it could open none.
    pub fn reopening(
        &self,
        now: Duration,
        zone: u16,
        packet: &Packet,
        bytes: &[u8],
        checksum: ChecksumState,
    ) -> Option<New<A>> {
        match self.open(now, packet.tuple(zone)?, Subject { packet, bytes, checksum }) {
            Tracked::New(new) => Some(new),
            Tracked::Known { .. } | Tracked::Related { .. } | Tracked::Invalid(_) | Tracked::Untracked => {
                None
            }
        }
    }

    /// Whether there is a translated connection that a packet belongs to, be it allowed there or not.
    pub fn translates(&self, now: Duration, zone: u16, packet: &Packet) -> bool {
        let found = packet.tuple(zone).and_then(|tuple| self.table.find(&tuple, now));
        found.and_then(|(id, _)| self.table.get(id)).is_some_and(Connection::is_translated)
    }

    /// What a connection's state says to a packet, tried on a copy of it.
    fn trial(&self, id: ConnectionId, direction: Direction, subject: Subject<'_>) -> Trial {
        let upper = subject.upper().filter(|_| !subject.is_fragment());
        let Some((upper, connection)) = upper.zip(self.table.get(id)) else { return Trial::Fits };
        match connection.state {
            State::Tcp(mut tcp) => {
                let Ok(segment) = Segment::read(upper) else { return Trial::Refused(Invalid::Malformed) };
                if is_weighty(&segment) && subject.is_damaged() {
                    return Trial::Refused(Invalid::Checksum);
                }
                match tcp.update(direction, &segment, self.behaviour.tcp) {
                    Outcome::Invalid { reason, .. } => Trial::Refused(Invalid::Tcp(reason)),
                    Outcome::StartAgain => Trial::Reopens,
                    Outcome::Accepted(_) | Outcome::Ignored(_) | Outcome::Remove => Trial::Fits,
                }
            }
            State::Sctp(mut sctp) => {
                let updated = sctp::Packet::read(upper).and_then(|packet| sctp.update(direction, packet));
                updated.map_or_else(|reason| Trial::Refused(Invalid::Sctp(reason)), |_| Trial::Fits)
            }
            State::Udp(_) | State::Query | State::Other => Trial::Fits,
        }
    }

    fn judge(&self, now: Duration, zone: u16, subject: Subject<'_>) -> Tracked<A> {
        if let Content::Error(error) = subject.packet.content {
            if let Err(fault) = check_error(subject.bytes, subject.packet) {
                return Tracked::Invalid(Invalid::Error(fault));
            }
            // The error goes the way of what answers the packet that it quotes.
            let answer = error.tuple(zone).map(Tuple::inverse);
            let Some((id, direction)) = answer.and_then(|answer| self.table.find(&answer, now)) else {
                return Tracked::Invalid(Invalid::Unrelated);
            };
            return self.related(id, direction, subject.packet);
        }
        let Some(tuple) = subject.packet.tuple::<A>(zone) else { return Tracked::Untracked };
        match self.table.find(&tuple, now) {
            Some((id, direction)) => Tracked::Known { id, direction, rewrite: self.rewrite(id, direction) },
            None => self.open(now, tuple, subject),
        }
    }

    fn related(&self, id: ConnectionId, direction: Direction, packet: &Packet) -> Tracked<A> {
        let rewrite = self.rewrite(id, direction);
        let hidden = self.table.get(id).map(|connection| connection.tuple(direction).source.address);
        let shown = rewrite.map(|rewrite| rewrite.source().address);
        let source = match A::from_ip(packet.layout.source) {
            // Whoever on the hidden side has sent it is seen as the connection's end there.
            Some(source) if shown.is_none() || shown == hidden => source,
            Some(source) => shown.unwrap_or(source),
            None => return Tracked::Untracked,
        };
        Tracked::Related { id, direction, rewrite, source }
    }

    /// How packets of a connection leave that arrive in `direction`; `None` if they are not translated.
    pub fn rewrite(&self, id: ConnectionId, direction: Direction) -> Option<Rewrite<A>> {
        let connection = self.table.get(id).filter(|connection| connection.is_translated())?;
        Some(Rewrite::new(&connection.tuple(direction), &connection.translated(direction)))
    }

    /// Holds a packet against its connection.
    fn feed(&mut self, now: Duration, id: ConnectionId, direction: Direction, subject: Subject<'_>) -> Fed {
        let (behaviour, timeouts) = (&self.behaviour, &self.timeouts);
        let Some(connection) = self.table.get_mut(id) else { return Fed::Unchanged };
        let deadline = connection.deadline;
        let remaining = || deadline.from(Ticks::at(now));
        let Some(upper) = subject.upper() else { return Fed::Unchanged };
        let fed = match &mut connection.state {
            // Of a fragment the flags may be known and the length is not.
            State::Tcp(tcp) if subject.is_fragment() => {
                tcp.fragment(direction);
                Fed::Unchanged
            }
            State::Sctp(_) if subject.is_fragment() => Fed::Unchanged,
            State::Tcp(tcp) => {
                let Ok(segment) = Segment::read(upper) else { return Fed::Invalid(Invalid::Malformed) };
                if is_weighty(&segment) && subject.is_damaged() {
                    return Fed::Invalid(Invalid::Checksum);
                }
                match tcp.update(direction, &segment, behaviour.tcp) {
                    Outcome::Accepted(accepted) if accepted.refresh => {
                        let timeout = tcp.timeout(&timeouts.tcp, behaviour.tcp);
                        // A RST prolongs nothing (RFC 7857 section 8).
                        let reset = segment.flags & flag::RST != 0;
                        Fed::Kept(if reset { timeout.min(remaining()) } else { timeout })
                    }
                    Outcome::Accepted(_) | Outcome::Ignored(_) => Fed::Unchanged,
                    Outcome::Remove => return Fed::Ended,
                    Outcome::StartAgain => return Fed::Reopened,
                    Outcome::Invalid { reason, shorten } => {
                        if shorten {
                            self.table.keep(id, now, remaining().min(timeouts.tcp.unacknowledged));
                        }
                        return Fed::Invalid(Invalid::Tcp(reason));
                    }
                }
            }
            State::Sctp(sctp) => {
                let updated = sctp::Packet::read(upper).and_then(|packet| sctp.update(direction, packet));
                match updated {
                    Ok(accepted) if accepted.refresh => Fed::Kept(sctp.timeout(&timeouts.sctp)),
                    Ok(_) => Fed::Unchanged,
                    Err(reason) => return Fed::Invalid(Invalid::Sctp(reason)),
                }
            }
            State::Udp(began) => {
                Fed::Kept(udp_timeout(timeouts, *began, Ticks::at(now), connection.status, direction))
            }
            State::Query => Fed::Kept(timeouts.icmp),
            State::Other => Fed::Kept(timeouts.generic),
        };
        connection.heard(direction);
        fed
    }

    /// Keeps what a packet of a connection went through. Of what is translated it may be the inside alone that says how long
    /// it lasts (RFC 4787 REQ-6), except where a state machine knows.
    fn keep(&mut self, now: Duration, id: ConnectionId, direction: Direction, timeout: Duration) {
        let Some(connection) = self.table.get(id) else { return };
        let outbound = !connection.is_translated() || direction == connection.outbound();
        let stateless = matches!(connection.state, State::Udp(_) | State::Query | State::Other);
        let either = self.behaviour.inbound_refreshes;
        let receiver = connection.is_twice_translated().then(|| {
            let [asked, to] = [Direction::Original, Direction::Reply].map(|way| connection.tuple(way));
            self.asked(&asked, to.source).filter(|_| either || !outbound)
        });
        if outbound || either || !stateless {
            self.table.keep(id, now, timeout);
        }
        // Over a hairpin it has gone through two mappings, and what leaves one comes in by the other.
        if let Some(first) = receiver.flatten() {
            self.table.keep_at_least(first, now, timeout);
        }
    }

    /// What a packet of no connection may open.
    fn open(&self, now: Duration, tuple: Tuple<A>, subject: Subject<'_>) -> Tracked<A> {
        if subject.is_damaged() {
            return Tracked::Invalid(Invalid::Checksum);
        }
        match self.opening(now, tuple.protocol, subject) {
            Ok((state, timeout)) => Tracked::New(New { tuple, state, timeout }),
            Err(reason) => Tracked::Invalid(reason),
        }
    }

    fn opening(&self, now: Duration, number: u8, subject: Subject<'_>) -> Result<(State, Duration), Invalid> {
        let (timeouts, knobs) = (&self.timeouts, self.behaviour.tcp);
        let upper = subject.upper().ok_or(Invalid::Malformed)?;
        match (number, subject.packet.content) {
            (_, Content::Query(query)) if query.answers => Err(Invalid::Unasked),
            (_, Content::Query(_)) => Ok((State::Query, timeouts.icmp)),
            // Nobody begins with a segment that does not fit a packet.
            (protocol::TCP | protocol::SCTP, _) if subject.is_fragment() => Err(Invalid::Malformed),
            (protocol::TCP, _) => {
                let segment = Segment::read(upper).map_err(|_| Invalid::Malformed)?;
                let tcp = Tcp::open(&segment, knobs).map_err(Invalid::Tcp)?;
                Ok((State::Tcp(tcp), tcp.timeout(&timeouts.tcp, knobs)))
            }
            (protocol::SCTP, _) => {
                let sctp = sctp::Packet::read(upper).and_then(Sctp::open).map_err(Invalid::Sctp)?;
                Ok((State::Sctp(sctp), sctp.timeout(&timeouts.sctp)))
            }
            (protocol::UDP, _) => Ok((State::Udp(Ticks::at(now)), timeouts.udp)),
            _ => Ok((State::Other, timeouts.generic)),
        }
    }
}

/// Whether a segment does so much to its connection that its checksum counts.
const fn is_weighty(segment: &Segment) -> bool {
    segment.flags & (flag::SYN | flag::FIN | flag::RST) != 0
}

/// A UDP flow is a stream once datagrams have gone both ways for a while.
#[inline]
fn udp_timeout(
    timeouts: &Timeouts,
    began: Ticks,
    now: Ticks,
    status: Status,
    direction: Direction,
) -> Duration {
    let answered = status.has(Status::SEEN_REPLY) || direction == Direction::Reply;
    let lasting = began.after(Timeouts::UDP_STREAM_AFTER).has_come(now);
    if answered && lasting { timeouts.udp_stream } else { timeouts.udp }
}
