//! Fragments: the later ones of a datagram go the way of its first, and wait for it.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use nat::fragment::{self, Part};
use nat::packet::Packet;

use super::packet::{Held, Kind, Seen, Taken, Tracked, Verdict, What};
use super::reason::fragment_reason;
use super::{Connections, read};
use crate::addr::SegmentId;
use crate::flow::{Change, Translation};
use crate::frame::Frame;
use crate::verdict::DropReason;

impl Connections {
    /// Takes those fragments that may go on.
    pub(in crate::switch) fn take_released(&mut self) -> Vec<(Held, Tracked)> {
        core::mem::take(&mut self.released)
    }

    /// Gives back the room for them.
    pub(in crate::switch) fn put_back(&mut self, released: Vec<(Held, Tracked)>) {
        self.released = released;
    }

    /// One of those fragments that go no further.
    pub(in crate::switch) fn take_lost(&mut self) -> Option<(Held, DropReason)> {
        self.lost.pop()
    }

    /// Takes a packet, which comes back unless it is a fragment that has to wait for the first.
    pub(in crate::switch) fn take<A: Kind>(
        &mut self,
        now: Duration,
        packet: &Packet,
        held: Held,
    ) -> Option<(Held, Taken<A>)> {
        let Some(part) = Part::<A>::of(held.frame.bytes(), packet, held.segment.0) else {
            return Some((held, Ok(None)));
        };
        let mut lost = core::mem::take(&mut self.lost);
        let taken = A::of_mut(self)
            .fragments
            .take(&part, held, now, &mut |held, refusal| lost.push((held, fragment_reason(refusal))));
        self.lost = lost;
        match taken {
            fragment::Taken::First(held) => Some((held, Ok(None))),
            fragment::Taken::Later(verdict, held) => Some((held, Ok(Some(verdict)))),
            fragment::Taken::Parked => None,
            fragment::Taken::Refused(refusal, held) => Some((held, Err(fragment_reason(refusal)))),
        }
    }

    /// Whether a fragment is one of a datagram that is translated, as far as is known.
    pub(in crate::switch) fn concerns<A: Kind>(
        &self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: SegmentId,
    ) -> bool {
        let Some(part) = Part::<A>::of(frame.bytes(), packet, ingress.0) else { return false };
        if part.is_first() {
            return self.translates::<A>(now, packet);
        }
        A::of(self).fragments.peek(&part.key, now).is_some()
    }

    /// Says that the first fragment of a datagram went no further.
    pub(in crate::switch) fn reject(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: SegmentId,
    ) {
        self.v4.reject(now, packet, frame, ingress, &mut self.lost);
        self.v6.reject(now, packet, frame, ingress, &mut self.lost);
    }

    /// Tells the later fragments of a first one what became of it.
    pub(in crate::switch) fn settle(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: SegmentId,
        translation: Option<Translation>,
    ) {
        if packet.layout.fragment.is_none() {
            return;
        }
        match translation {
            Some(Translation::V4(change)) => self.settle_one(now, packet, frame, ingress, Some(change)),
            Some(Translation::V6(change)) => self.settle_one(now, packet, frame, ingress, Some(change)),
            None => {
                self.settle_one::<Ipv4Addr>(now, packet, frame, ingress, None);
                self.settle_one::<Ipv6Addr>(now, packet, frame, ingress, None);
            }
        }
    }

    fn settle_one<A: Kind>(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: SegmentId,
        change: Option<Change<A>>,
    ) {
        let Some(part) = Part::<A>::of(frame.bytes(), packet, ingress.0).filter(Part::is_first) else {
            return;
        };
        let verdict = Verdict {
            rewrite: change.map(|change| change.rewrite),
            identification: change.and_then(|change| change.identification),
        };
        let mut released = core::mem::take(&mut self.released);
        A::of_mut(self).fragments.resolve(&part.key, verdict, now, &mut |held| {
            let seen = read(&held.frame).map(|packet| Seen { packet, what: What::Later(verdict) });
            let tracked = seen.map_or(Tracked::Not, A::tracked);
            released.push((held, tracked));
        });
        self.released = released;
    }
}
