//! A TCP connection of a pod's, and the socket that carries it on.
//!
//! # Theory of operation
//! Two connections are made to look like one. The pod's is spoken here, segment by segment; the other is a socket of this
//! machine. Nothing is stored in between that does not have to be:
//!
//! - *From the pod* octets go into the socket within the frame's turn, and are acknowledged at its end. What the socket does
//!   not take at once is held, is taken off the window that the pod is offered, and goes when there is room.
//! - *To the pod* octets stay with their socket until the pod has acknowledged them ([`Outside::peek`]). So the window that
//!   the other side sees is what the pod leaves unread, and a connection that rests holds no buffer at all.
//!
//! *The beginning*: the pod's SYN is answered once the socket is connected. Until then the pod sees nothing; then SYN and
//! ACK, a reset, or an ICMP error, just as if it had spoken to the other side itself.
//! *The end*: each side's end is passed on by itself, after everything before it; a reset is passed on at once. Who is
//! silent is asked whether he is still there, so no connection ends only because nobody had anything to say.
//!
//! # Why not smoltcp
//! A connection of smoltcp's has an interface, a socket and two ring buffers that are as large as the window they offer;
//! hosts in this process ([`netstack::host`]) pay that. Ten thousand connections that rest would cost 10,000 times two
//! buffers, and each octet one more copy each way; the segments that it makes are of one MTU each, and the next thing
//! that happens to them is a copy into a TAP. Here a connection that rests is some 300 octets, an octet is copied once in
//! each direction, and up to 64 KiB leave in one frame. What is needed for that is a quarter of a TCP: there is one stream
//! each way whose octets somebody else keeps, and one route to the other side.

mod calling;
mod making;
mod receiving;
mod segment;
mod sending;

use std::net::SocketAddr;
use std::time::Duration;

use netstack::emit::IcmpError;

pub(super) use self::segment::Segment;
use self::segment::{ACK, MAXIMUM_SEGMENT_SIZE, RST, SYN, WINDOW_SCALE};
use self::sending::Sending;
use super::config::EdgeDrop;
use super::link::{Link, TCP_HEADER, TcpHeader, quote};
use super::outside::{Farewell, Outside, Peeked, Ready, Refusal};
use super::turn::{Fate, Turn};

/// What a pod may send that its socket has not taken yet.
const WINDOW: usize = 256 * 1024;
/// The shift of windows that we offer.
const SCALE: u8 = 7;
/// SYNs sent without an answer before a connection is given up, and segments (Linux: 5 and 15).
const SYNS: u8 = 5;
const TIMEOUTS: u8 = 12;
/// How long an acknowledgement waits for an answer to go with (RFC 9293 MUST-58: less than half a second). Long enough for an
/// answer of somebody near, and so short that nobody notices who is waiting for the acknowledgement (RFC 896).
const DELAY: Duration = Duration::from_millis(5);
/// Questions without an answer before a pod is held to be gone.
const PROBES: u8 = 8;

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The socket is being connected; the pod waits.
    Connecting,
    /// The socket is somebody's who came in; the pod is called.
    Calling,
    /// The pod was answered, and has not acknowledged that yet.
    Answered,
    /// Both stand.
    Open,
    /// Both have ended. There is no socket any more.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tcp {
    stage: Stage,
    sending: Sending,
    /// The next octet of the pod's, and up to where it was told that it may send.
    next: u32,
    edge: u32,
    /// Whether windows are scaled.
    scaled: bool,
    /// What the socket has not taken yet.
    held: Vec<u8>,
    /// The socket may have something to read.
    readable: bool,
    /// After that comes an end or an error, of which nothing more is told.
    hung: bool,
    /// The other side's stream ends where everything that it sent does.
    ended: bool,
    /// Our FIN was sent, once at least; it is the last place before `sending.max`.
    end_sent: bool,
    end_acknowledged: bool,
    /// The pod's FIN has come; it was passed on.
    pod_ended: bool,
    pod_end_passed: bool,
    /// An acknowledgement is due now, or then at the latest.
    owes: bool,
    delayed: Option<Duration>,
    /// No answer came that an acknowledgement could have gone with: the next one does not wait.
    prompt: bool,
    /// When new octets last came.
    heard: Duration,
    /// Questions without an answer since the pod was heard.
    probes: u8,
    deadline: Duration,
    /// Whether it stands in line to send.
    pub(super) queued: bool,
}

impl Tcp {
    /// Takes up a connection that a pod asks for, if the outside lets itself be asked. `first` is where our stream begins.
    pub(super) fn begin<O: Outside>(
        turn: &mut Turn<'_, O>,
        to: SocketAddr,
        syn: &Segment<'_>,
        first: u32,
    ) -> Option<Self> {
        let v4 = turn.key.source.is_ipv4();
        let sending = Sending::new(first, v4, turn.link.mtu);
        let deadline = turn.now + turn.timers.connect;
        let mut tcp = Self::resting(Stage::Connecting, sending, syn.sequence.wrapping_add(1), deadline);
        let (size, scale) = syn.offers();
        tcp.scaled = scale.is_some();
        tcp.sending.agree(size, scale, v4);
        tcp.sending.offer(syn.sequence, first, syn.window, false);
        match turn.outside.connect(turn.socket, to) {
            Ok(()) => Some(tcp),
            Err(refusal) => {
                tcp.refuse(turn, refusal);
                None
            }
        }
    }

    fn resting(stage: Stage, sending: Sending, next: u32, deadline: Duration) -> Self {
        Self {
            stage,
            sending,
            next,
            edge: next,
            scaled: false,
            held: Vec::new(),
            readable: false,
            hung: false,
            ended: false,
            end_sent: false,
            end_acknowledged: false,
            pod_ended: false,
            pod_end_passed: false,
            owes: false,
            delayed: None,
            prompt: false,
            heard: Duration::ZERO,
            probes: 0,
            deadline,
            queued: false,
        }
    }

    /// When it wants to be looked at.
    pub(super) fn deadline(&self) -> Duration {
        self.delayed.map_or(self.deadline, |delayed| delayed.min(self.deadline))
    }

    /// Whether there may be something to send to the pod.
    pub(super) fn wants_turn(&self) -> bool {
        let sending = &self.sending;
        let unsent = self.readable || (self.ended && !self.end_sent) || sending.next != sending.max;
        self.stage == Stage::Open && (sending.again || unsent)
    }

    /// The socket may have got on.
    pub(super) fn on_ready<O: Outside>(&mut self, turn: &mut Turn<'_, O>, ready: Ready) -> Fate {
        match self.stage {
            Stage::Connecting => match turn.outside.connected(turn.socket) {
                Ok(false) => Fate::Stays,
                Ok(true) => {
                    (self.readable, self.hung) = (ready.readable, ready.ended);
                    turn.counters.established += 1;
                    self.answer(turn);
                    Fate::Stays
                }
                Err(refusal) => {
                    self.refuse(turn, refusal);
                    turn.outside.close(turn.socket, Farewell::Abrupt);
                    Fate::Over
                }
            },
            Stage::Calling if ready.ended && turn.outside.peek(turn.socket, 0, &mut [0]).is_err() => {
                // The client does not wait any more.
                turn.counters.reset_by_outside += 1;
                self.leave(turn, Farewell::Abrupt)
            }
            Stage::Calling | Stage::Answered => {
                self.readable |= ready.readable;
                self.hung |= ready.ended;
                Fate::Stays
            }
            Stage::Open => {
                self.readable |= ready.readable;
                self.hung |= ready.ended;
                // Of a pod that takes nothing the socket is not read, and would not say it.
                let unread = ready.broken && self.sending.is_shut();
                if unread || (self.end_sent && ready.readable && self.is_broken(turn)) {
                    return self.broken(turn);
                }
                if ready.writable { self.flush(turn) } else { Fate::Stays }
            }
            Stage::Over => Fate::Stays,
        }
    }

    /// Whether the other side, which has ended its stream, has broken the connection off since.
    fn is_broken<O: Outside>(&self, turn: &mut Turn<'_, O>) -> bool {
        let places = segment::distance(self.sending.una, self.sending.max);
        let octets = places.saturating_sub(u32::from(!self.end_acknowledged));
        turn.outside.peek(turn.socket, usize::try_from(octets).unwrap_or(0), &mut [0]).is_err()
    }

    /// Tells the pod that its connection does not come to stand, and why.
    fn refuse<O: Outside>(&mut self, turn: &mut Turn<'_, O>, refusal: Refusal) {
        turn.counters.refused += 1;
        let error = match refusal {
            Refusal::NoRoute => IcmpError::NoRoute,
            Refusal::Unreachable | Refusal::TimedOut => IcmpError::AddressUnreachable,
            Refusal::Prohibited => IcmpError::AdminProhibited,
            Refusal::NoSockets => {
                turn.drop(EdgeDrop::NoSockets);
                return self.send_reset(turn);
            }
            Refusal::Refused | Refusal::Reset | Refusal::TooLong | Refusal::InUse | Refusal::Unsupported => {
                return self.send_reset(turn);
            }
        };
        // Linux believes an error only if it quotes what is under way.
        turn.send_error(quote(&turn.key, self.next.wrapping_sub(1)), error);
    }

    fn send_reset<O: Outside>(&mut self, turn: &mut Turn<'_, O>) {
        let header = TcpHeader {
            flags: RST | ACK,
            sequence: if self.stage == Stage::Connecting { 0 } else { self.sending.max },
            acknowledgement: self.next,
            window: 0,
            options: &[],
        };
        let frame = turn.link.bare_segment(&turn.key, &header);
        turn.enqueue(frame);
    }

    /// Sends SYN and ACK.
    fn answer<O: Outside>(&mut self, turn: &mut Turn<'_, O>) {
        self.stage = Stage::Answered;
        self.send_opening(turn, SYN | ACK);
    }

    /// Sends our SYN, with what else the segment says.
    fn send_opening<O: Outside>(&mut self, turn: &mut Turn<'_, O>, flags: u8) {
        let headers = if turn.key.source.is_ipv4() { 40 } else { 60 };
        let size = u16::try_from(turn.link.mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
        let [high, low] = size.to_be_bytes();
        let both = [MAXIMUM_SEGMENT_SIZE, 4, high, low, 1, WINDOW_SCALE, 3, SCALE];
        let options = if self.scaled { &both[..] } else { &both[..4] };
        // A window in a SYN is not scaled.
        let window = u16::MAX;
        self.edge = segment::on(self.next, usize::from(window));
        let header = TcpHeader {
            flags,
            sequence: self.sending.una,
            acknowledgement: if flags & ACK > 0 { self.next } else { 0 },
            window,
            options,
        };
        let frame = turn.link.bare_segment(&turn.key, &header);
        turn.enqueue(frame);
        self.sending.next = self.sending.una;
        self.sending.sent(turn.now, 1);
        self.deadline = turn.now + self.sending.patience();
    }

    /// What to do when nothing has happened for long.
    pub(super) fn on_deadline<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Fate {
        if self.delayed.is_some_and(|delayed| delayed <= turn.now) {
            (self.owes, self.prompt) = (true, true);
            self.acknowledge(turn);
        }
        if turn.now < self.deadline {
            return Fate::Stays;
        }
        match self.stage {
            Stage::Connecting => {
                self.refuse(turn, Refusal::TimedOut);
                turn.outside.close(turn.socket, Farewell::Abrupt);
                Fate::Over
            }
            Stage::Calling => self.call_again(turn),
            Stage::Answered if self.sending.backoff >= SYNS => self.give_up(turn),
            Stage::Answered => {
                self.sending.timed_out();
                self.answer(turn);
                Fate::Stays
            }
            Stage::Open if self.sending.is_owed() => {
                if self.sending.backoff >= TIMEOUTS {
                    return self.give_up(turn);
                }
                self.sending.timed_out();
                self.deadline = turn.now + self.sending.patience();
                Fate::Stays
            }
            Stage::Open => self.probe(turn),
            Stage::Over => Fate::Over,
        }
    }

    /// Asks whether the pod is still there, and what it takes: a segment before its window, which it must answer.
    fn probe<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Fate {
        // A pod that takes nothing has something to do, and is given more time.
        if self.probes >= if self.sending.is_shut() { TIMEOUTS } else { PROBES } {
            return self.give_up(turn);
        }
        self.probes += 1;
        let sequence = self.sending.una.wrapping_sub(1);
        self.send_bare(turn, ACK, sequence);
        if self.sending.is_shut() {
            self.sending.backoff = self.sending.backoff.saturating_add(1);
            self.deadline = turn.now + self.sending.patience();
        } else {
            self.deadline = turn.now + turn.timers.probe;
        }
        Fate::Stays
    }

    fn give_up<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Fate {
        turn.counters.given_up += 1;
        self.send_reset(turn);
        self.leave(turn, Farewell::Abrupt)
    }

    /// Gives up the socket and what is held for it.
    fn leave<O: Outside>(&mut self, turn: &mut Turn<'_, O>, farewell: Farewell) -> Fate {
        *turn.held -= self.held.len();
        self.held = Vec::new();
        self.delayed = None;
        if self.stage != Stage::Over {
            turn.outside.close(turn.socket, farewell);
        }
        self.stage = Stage::Over;
        Fate::Over
    }

    /// The other side has broken the connection off.
    fn broken<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Fate {
        turn.counters.reset_by_outside += 1;
        self.send_reset(turn);
        self.leave(turn, Farewell::Abrupt)
    }

    /// Sets the deadline after something has happened.
    fn settle<O: Outside>(&mut self, turn: &Turn<'_, O>) {
        let patience = match self.stage {
            Stage::Connecting | Stage::Over => return,
            Stage::Calling | Stage::Answered => self.sending.patience(),
            Stage::Open if self.sending.is_owed() || self.is_waiting_for_window() => self.sending.patience(),
            Stage::Open if self.pod_ended || self.end_sent => turn.timers.half_closed,
            Stage::Open => turn.timers.idle,
        };
        self.deadline = turn.now + patience;
    }

    fn is_waiting_for_window(&self) -> bool {
        self.sending.is_shut() && (self.readable || (self.ended && !self.end_sent))
    }

    /// Something new was heard in this many octets. One small segment is acknowledged with the answer, if that comes soon;
    /// whoever sends more at once may be waiting for nothing but the acknowledgement (RFC 9293 section 3.8.6.3).
    fn owe<O: Outside>(&mut self, turn: &Turn<'_, O>, octets: usize) {
        self.heard = turn.now;
        if self.prompt || self.delayed.is_some() || octets >= usize::from(self.sending.size) {
            self.owes = true;
        } else {
            self.delayed = Some(turn.now + DELAY);
        }
    }

    /// A segment goes out that acknowledges all that was heard.
    fn has_acknowledged(&mut self) {
        (self.owes, self.delayed) = (false, None);
    }

    /// The acknowledgement that is due, if there is one.
    pub(super) fn acknowledge<O: Outside>(&mut self, turn: &mut Turn<'_, O>) {
        if self.owes {
            // Not `next`, which may have gone back: what is before the pod's window is not listened to.
            let sequence = self.sending.max;
            self.send_bare(turn, ACK, sequence);
        }
    }

    fn send_bare<O: Outside>(&mut self, turn: &mut Turn<'_, O>, flags: u8, sequence: u32) {
        self.has_acknowledged();
        let (acknowledgement, window) = (self.next, self.offer(turn));
        let header = TcpHeader { flags, sequence, acknowledgement, window, options: &[] };
        let frame = turn.link.bare_segment(&turn.key, &header);
        turn.enqueue(frame);
    }

    /// The window that the pod is offered. What was offered once is never taken back.
    fn offer<O: Outside>(&mut self, turn: &Turn<'_, O>) -> u16 {
        let scale = if self.scaled { SCALE } else { 0 };
        let room = if *turn.held >= turn.limits.held { 0 } else { WINDOW.saturating_sub(self.held.len()) };
        let most = usize::from(u16::MAX) << scale;
        let wanted = segment::on(self.next, (room.min(most) >> scale) << scale);
        if segment::before(self.edge, wanted) {
            self.edge = wanted;
        }
        u16::try_from(segment::distance(self.next, self.edge) >> scale).unwrap_or(u16::MAX)
    }

    /// Whether an acknowledgement is due.
    pub(super) const fn owes(&self) -> bool {
        self.owes
    }
}
