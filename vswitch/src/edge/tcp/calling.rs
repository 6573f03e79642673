//! A connection that somebody outside asked for, and that a pod is called for.
//!
//! The client's connection stands already, because nobody can take back what a listening socket has taken. So a pod that
//! refuses, or is not there, is a reset to the client; what the client has said meanwhile is where everything is that a pod
//! has not acknowledged.

use super::segment::{ACK, RST, SYN};
use super::sending::Sending;
use super::{EdgeDrop, Farewell, Fate, Outside, Segment, Stage, Tcp, Turn, segment};

impl Tcp {
    /// Calls the source of the turn's key for a client whose connection has the turn's socket. `first` is where our stream
    /// begins.
    pub(in crate::edge) fn call<O: Outside>(turn: &mut Turn<'_, O>, first: u32) -> Self {
        let v4 = turn.key.source.is_ipv4();
        let sending = Sending::new(first, v4, turn.link.mtu);
        let mut tcp = Self::resting(Stage::Calling, sending, 0, turn.now);
        tcp.scaled = true;
        tcp.send_opening(turn, SYN);
        tcp
    }

    /// Takes in what a pod says that is being called.
    pub(super) fn while_calling<O: Outside>(
        &mut self,
        turn: &mut Turn<'_, O>,
        segment: &Segment<'_>,
    ) -> Fate {
        let ours = segment.has(ACK) && segment.acknowledgement == self.sending.max;
        if segment.has(RST) && ours {
            turn.counters.refused += 1;
            return self.leave(turn, Farewell::Abrupt);
        }
        if segment.has(RST) || !segment.has(SYN) || !ours {
            turn.drop(EdgeDrop::Unacceptable);
            return Fate::Stays;
        }
        let (size, scale) = segment.offers();
        self.scaled = scale.is_some();
        self.sending.agree(size, scale, turn.key.source.is_ipv4());
        self.sending.offer(segment.sequence, segment.acknowledgement, segment.window, false);
        self.sending.acknowledged(turn.now, segment.acknowledgement, false);
        self.next = segment.sequence.wrapping_add(1);
        self.edge = segment::on(self.next, usize::from(u16::MAX));
        self.stage = Stage::Open;
        (self.readable, self.owes) = (true, true);
        turn.counters.established += 1;
        self.settle(turn);
        Fate::Stays
    }

    /// Nobody has answered.
    pub(super) fn call_again<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Fate {
        if self.sending.backoff >= super::SYNS {
            turn.counters.given_up += 1;
            return self.leave(turn, Farewell::Abrupt);
        }
        self.sending.timed_out();
        self.send_opening(turn, SYN);
        Fate::Stays
    }
}
