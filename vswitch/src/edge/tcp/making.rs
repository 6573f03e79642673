//! Frames for a pod, made of what its socket has.

use netstack::frame::Frame;

use super::segment::{self, ACK, FIN, PSH};
use super::{DELAY, Fate, Link, Outside, Peeked, Stage, TCP_HEADER, Tcp, TcpHeader, Turn};

/// The longest IP packet.
const LONGEST: usize = 65_535;

/// What came out of a socket.
enum Read {
    Frame(Frame, usize),
    End,
    Nothing,
}

impl Tcp {
    /// The next frame for the pod, if there is anything to send and room for it; or the connection's end.
    pub(in crate::edge) fn next_frame<O: Outside>(
        &mut self,
        turn: &mut Turn<'_, O>,
    ) -> Result<Option<Frame>, Fate> {
        if self.stage != Stage::Open {
            return Ok(None);
        }
        if std::mem::take(&mut self.sending.again) && self.sending.is_owed() {
            return self.send_again(turn);
        }
        // What is to be sent again, without an end.
        let left = segment::distance(self.sending.next, self.sending.max);
        let (fresh, again) = (left == 0, left.saturating_sub(u32::from(self.end_sent)));
        if fresh && (self.end_sent || !(self.readable || self.ended)) {
            return Ok(None);
        }
        // An end needs no room.
        if (fresh && self.ended) || (!fresh && again == 0) {
            return Ok(Some(self.send_end(turn)));
        }
        let offset = self.octets_under_way();
        let room = self.sending.room();
        let room = usize::try_from(if fresh { room } else { room.min(again) }).unwrap_or(usize::MAX);
        if room == 0 {
            self.wait_for_window(turn);
            return Ok(None);
        }
        let made = self.read(turn, self.sending.next, offset, room)?;
        match made {
            Read::Frame(frame, octets) => {
                if fresh {
                    turn.counters.octets[1] += octets as u64;
                } else {
                    turn.counters.retransmitted += 1;
                }
                let owed = self.sending.is_owed();
                self.sending.sent(turn.now, u32::try_from(octets).unwrap_or(0));
                if !owed {
                    self.settle(turn);
                }
                // An answer that comes at once: the next one is worth waiting for.
                self.prompt &= turn.now > self.heard + DELAY;
                self.has_acknowledged();
                Ok(Some(frame))
            }
            Read::End => {
                self.ended = true;
                Ok(Some(self.send_end(turn)))
            }
            Read::Nothing => Ok(None),
        }
    }

    /// The oldest octets that are not acknowledged, whatever was sent behind them.
    fn send_again<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Result<Option<Frame>, Fate> {
        turn.counters.retransmitted += 1;
        let octets = segment::distance(self.sending.una, self.sending.max) - u32::from(self.end_sent);
        if octets == 0 {
            return Ok(Some(self.end_segment(turn, self.sending.una)));
        }
        let room = usize::try_from(octets.min(self.sending.resent())).unwrap_or(0);
        let readable = self.readable;
        let made = self.read(turn, self.sending.una, 0, room)?;
        // What is not there yet was not asked for.
        self.readable = readable;
        Ok(match made {
            Read::Frame(frame, _) => Some(frame),
            Read::End | Read::Nothing => None,
        })
    }

    /// A frame with what the socket has from `offset` on.
    fn read<O: Outside>(
        &mut self,
        turn: &mut Turn<'_, O>,
        sequence: u32,
        offset: usize,
        room: usize,
    ) -> Result<Read, Fate> {
        let size = usize::from(self.sending.size);
        // As many whole segments as one packet can say that it holds; `size` is of an MTU, so that is one at least.
        let longest = LONGEST - Link::ip_header(turn.key.source) - TCP_HEADER;
        let most = room.min(longest / size * size).max(1);
        let (mut frame, at) = turn.link.segment_room(&turn.key, most);
        let peeked = turn.outside.peek(turn.socket, offset, &mut frame.bytes_mut()[at..]);
        let count = match peeked {
            Ok(Peeked::Octets(count)) => count.min(most),
            Ok(Peeked::Nothing) => {
                self.readable = false;
                turn.link.pool.recycle(frame);
                return Ok(Read::Nothing);
            }
            Ok(Peeked::End) => {
                turn.link.pool.recycle(frame);
                return Ok(Read::End);
            }
            Err(_) => {
                turn.link.pool.recycle(frame);
                return Err(self.broken(turn));
            }
        };
        if count < most {
            // Less than there was room for: the socket tells when there is more, but for an end that it has told of.
            self.readable = self.hung;
        }
        let header = TcpHeader {
            flags: ACK | PSH,
            sequence,
            acknowledgement: self.next,
            window: self.offer(turn),
            options: &[],
        };
        let frame = turn.link.finish_segment(frame, &turn.key, &header, count, self.sending.size);
        Ok(Read::Frame(frame, count))
    }

    fn send_end<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Frame {
        let frame = self.end_segment(turn, self.sending.next);
        self.readable = false;
        self.sending.sent(turn.now, 1);
        self.end_sent = true;
        self.settle(turn);
        frame
    }

    fn end_segment<O: Outside>(&mut self, turn: &mut Turn<'_, O>, sequence: u32) -> Frame {
        self.has_acknowledged();
        let (acknowledgement, window) = (self.next, self.offer(turn));
        let header = TcpHeader { flags: FIN | ACK, sequence, acknowledgement, window, options: &[] };
        turn.link.bare_segment(&turn.key, &header)
    }

    /// Octets, not places, from `una` to `next`.
    fn octets_under_way(&self) -> usize {
        usize::try_from(self.sending.under_way()).unwrap_or(usize::MAX)
    }

    /// The pod takes nothing: it is asked about that now and then, if it does not say by itself.
    fn wait_for_window<O: Outside>(&mut self, turn: &Turn<'_, O>) {
        if self.sending.is_shut() && self.probes == 0 {
            self.settle(turn);
        }
    }
}
