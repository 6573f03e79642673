//! What comes from a pod.
//!
//! Segments are taken in the order of their octets. One that comes early is let fall and answered at once with what is
//! missing, so that its sender sees a loss as soon as it can (RFC 5681 section 4.2); on a way of a few queues in one
//! process that is rare, and a queue for such segments would be one more thing that pods can fill.

use super::segment::{ACK, FIN, RST, SYN, before, distance, on};
use super::sending::Told;
use super::{EdgeDrop, Farewell, Fate, Outside, Segment, Stage, Tcp, Turn};

impl Tcp {
    /// Takes in a segment.
    pub(in crate::edge) fn on_segment<O: Outside>(
        &mut self,
        turn: &mut Turn<'_, O>,
        segment: &Segment<'_>,
    ) -> Fate {
        match self.stage {
            Stage::Connecting => self.while_connecting(turn, segment),
            Stage::Calling => self.while_calling(turn, segment),
            Stage::Answered => self.while_answered(turn, segment),
            Stage::Open => self.while_open(turn, segment),
            Stage::Over => {
                // The pod has missed that its end was heard.
                if segment.has(FIN) {
                    let sequence = self.sending.max;
                    self.send_bare(turn, ACK, sequence);
                }
                Fate::Stays
            }
        }
    }

    /// Whether another connection with the same ports may take this one's place: it is over, or the pod has given it up
    /// without our hearing of it (RFC 9293 section 3.10.7.4, RFC 6191).
    pub(in crate::edge) fn gives_way_to(&self, syn: &Segment<'_>) -> bool {
        let newer = before(self.next.wrapping_sub(1), syn.sequence);
        match self.stage {
            Stage::Over => newer,
            Stage::Connecting => syn.sequence != self.next.wrapping_sub(1),
            Stage::Calling | Stage::Answered | Stage::Open => false,
        }
    }

    /// Gives up a connection that another takes the place of.
    pub(in crate::edge) fn give_way<O: Outside>(&mut self, turn: &mut Turn<'_, O>) {
        let _ = self.leave(turn, Farewell::Abrupt);
    }

    /// The pod can only wait, or not want to any more.
    fn while_connecting<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) -> Fate {
        if segment.has(RST) && segment.sequence == self.next {
            turn.counters.reset_by_pods += 1;
            return self.leave(turn, Farewell::Abrupt);
        }
        Fate::Stays
    }

    fn while_answered<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) -> Fate {
        if segment.has(RST) {
            if segment.sequence != self.next {
                turn.drop(EdgeDrop::Unacceptable);
                return Fate::Stays;
            }
            turn.counters.reset_by_pods += 1;
            return self.leave(turn, Farewell::Abrupt);
        }
        if segment.has(SYN) {
            if segment.sequence.wrapping_add(1) == self.next {
                self.answer(turn);
            } else {
                turn.drop(EdgeDrop::Unacceptable);
            }
            return Fate::Stays;
        }
        if !segment.has(ACK) || segment.acknowledgement != self.sending.max {
            turn.drop(EdgeDrop::Unacceptable);
            return Fate::Stays;
        }
        self.sending.acknowledged(turn.now, segment.acknowledgement, false);
        self.stage = Stage::Open;
        self.while_open(turn, segment)
    }

    fn while_open<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) -> Fate {
        self.probes = 0;
        if segment.has(RST) {
            return self.on_reset(turn, segment);
        }
        // RFC 5961 section 4: whoever has forgotten the connection says so when he is asked.
        if segment.has(SYN) || !segment.has(ACK) {
            turn.drop(EdgeDrop::Unacceptable);
            self.owes = true;
            return Fate::Stays;
        }
        let progress = self.on_acknowledgement(turn, segment);
        if self.on_octets(turn, segment) == Fate::Over {
            return Fate::Over;
        }
        let was_ended = self.pod_ended;
        self.on_end(turn, segment);
        self.pass_end(turn);
        // What is owed is waited for from when the last of it was paid, whatever else the pod says meanwhile.
        if progress || !self.sending.is_owed() {
            self.settle(turn);
        }
        if !(self.pod_end_passed && self.end_acknowledged) {
            return Fate::Stays;
        }
        if was_ended {
            // The pod remembers the connection, as whoever ends first does.
            return self.leave(turn, Farewell::Gentle);
        }
        self.owes = true;
        self.acknowledge(turn);
        let _ = self.leave(turn, Farewell::Gentle);
        self.deadline = turn.now + turn.timers.linger;
        Fate::Stays
    }

    /// RFC 5961 section 3: a reset is believed at the one place where nobody can guess it to be.
    fn on_reset<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) -> Fate {
        if segment.sequence == self.next {
            turn.counters.reset_by_pods += 1;
            return self.leave(turn, Farewell::Abrupt);
        }
        turn.drop(EdgeDrop::Unacceptable);
        self.owes |= before(self.next, segment.sequence) && before(segment.sequence, self.edge);
        Fate::Stays
    }

    /// Returns whether anything new was acknowledged.
    fn on_acknowledgement<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) -> bool {
        let (was_shut, window) = (self.sending.window == 0, self.sending.window);
        let to = segment.acknowledgement;
        if !before(to, self.sending.una) && !before(self.sending.max, to) {
            self.sending.offer(segment.sequence, to, segment.window, true);
        }
        if was_shut {
            // It lives, and says how it is.
            self.sending.backoff =
                if self.sending.window == 0 { self.sending.backoff.min(SLOWEST) } else { 0 };
        }
        let same_window = window == self.sending.window;
        let bare = segment.payload.is_empty() && !segment.has(FIN) && same_window;
        match self.sending.acknowledged(turn.now, to, bare) {
            Told::New(places) => {
                // Our SYN is no octet, nor is our FIN.
                let ends = self.end_sent && to == self.sending.max;
                self.end_acknowledged |= ends;
                let octets = places - u32::from(ends);
                if octets > 0 {
                    turn.outside.discard(turn.socket, usize::try_from(octets).unwrap_or(0));
                }
                true
            }
            Told::Old => false,
            Told::Nonsense => {
                turn.drop(EdgeDrop::Unacceptable);
                self.owes = true;
                false
            }
        }
    }

    /// Takes in what is new of a segment's octets.
    fn on_octets<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) -> Fate {
        if segment.payload.is_empty() {
            // A question whether we are still there is before the window.
            self.owes |= before(segment.sequence, self.next);
            return Fate::Stays;
        }
        if before(self.next, segment.sequence) {
            turn.drop(EdgeDrop::OutOfOrder);
            let sequence = self.sending.max;
            self.send_bare(turn, ACK, sequence);
            return Fate::Stays;
        }
        let known = usize::try_from(distance(segment.sequence, self.next)).unwrap_or(usize::MAX);
        let Some(new) = segment.payload.get(known..).filter(|new| !new.is_empty()) else {
            self.owes = true;
            return Fate::Stays;
        };
        if self.pod_ended {
            turn.drop(EdgeDrop::Unacceptable);
            self.owes = true;
            return Fate::Stays;
        }
        let offered = usize::try_from(distance(self.next, self.edge)).unwrap_or(usize::MAX);
        if new.len() > offered {
            turn.drop(EdgeDrop::Unacceptable);
            self.owes = true;
        }
        self.owe(turn, new.len());
        self.pass_on(turn, &new[..new.len().min(offered)])
    }

    /// Gives octets to the socket, and holds what it does not take.
    fn pass_on<O: Outside>(&mut self, turn: &mut Turn<'_, O>, octets: &[u8]) -> Fate {
        let mut taken = 0;
        if self.held.is_empty() {
            match turn.outside.send(turn.socket, octets) {
                Ok(count) => taken = count.min(octets.len()),
                Err(_) => return self.broken(turn),
            }
        }
        let rest = &octets[taken..];
        let held = rest.len().min(turn.limits.held.saturating_sub(*turn.held));
        if held < rest.len() {
            turn.drop(EdgeDrop::Held);
        }
        self.held.extend_from_slice(&rest[..held]);
        *turn.held += held;
        turn.counters.octets[0] += (taken + held) as u64;
        self.next = on(self.next, taken + held);
        Fate::Stays
    }

    /// The socket has room again.
    pub(super) fn flush<O: Outside>(&mut self, turn: &mut Turn<'_, O>) -> Fate {
        if self.held.is_empty() {
            return Fate::Stays;
        }
        let offered = distance(self.next, self.edge);
        match turn.outside.send(turn.socket, &self.held) {
            Ok(count) => {
                let count = count.min(self.held.len());
                self.held.drain(..count);
                *turn.held -= count;
            }
            Err(_) => return self.broken(turn),
        }
        if self.held.is_empty() {
            // Whoever holds nothing takes no memory.
            self.held = Vec::new();
        }
        self.pass_end(turn);
        // A pod that has used up its window waits to hear that it has grown.
        self.owes |= usize::try_from(offered).unwrap_or(usize::MAX) < super::WINDOW / 2;
        if self.pod_end_passed && self.end_acknowledged {
            return self.leave(turn, Farewell::Gentle);
        }
        Fate::Stays
    }

    fn on_end<O: Outside>(&mut self, turn: &mut Turn<'_, O>, segment: &Segment<'_>) {
        if !segment.has(FIN) {
            return;
        }
        let place = on(segment.sequence, segment.payload.len());
        if place == self.next && !self.pod_ended {
            self.pod_ended = true;
            self.next = self.next.wrapping_add(1);
            // The other side's end often comes at once.
            return self.owe(turn, 0);
        }
        if before(self.next, place) {
            turn.drop(EdgeDrop::OutOfOrder);
        }
        self.owes = true;
    }

    /// Passes the pod's end on, after everything before it.
    fn pass_end<O: Outside>(&mut self, turn: &mut Turn<'_, O>) {
        if self.pod_ended && !self.pod_end_passed && self.held.is_empty() {
            self.pod_end_passed = true;
            turn.outside.shutdown(turn.socket);
        }
    }
}

/// Timeouts in a row that are counted of a pod that answers, but takes nothing.
const SLOWEST: u8 = 6;
