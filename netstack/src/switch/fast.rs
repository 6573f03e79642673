//! The fast path: frames of flows that are known leave as the ones before them did, without a decision.
//!
//! # Theory of operation
//! A batch is gone through three times: what each frame is at a glance, and the tags of its flow; its flow's entry, and the
//! connection that it names; and then one frame after the other, those whose entry holds here and all others by the slow
//! path. So the frames of a batch wait for memory together. Entries that a frame's own batch has made or overwritten are
//! found, or found out, in the third.
//!
//! What goes through here leaves exactly as the slow path would have it, octet by octet, and leaves behind what that
//! would: the connection's state and deadline, the time at which a station was heard, the use of a neighbour, counters.
//! Whatever is out of the ordinary is left to the slow path, with nothing done yet.

use core::hint::black_box;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use alloc::sync::Arc;

use super::Switch;
use super::admit::Arrival;
use super::connections::{Kind, Tracked};
use super::flows::{Adjacency, Glimpse, Look, Reference, Through};
use super::slow::{Adjacent, Route};
use crate::addr::{MacAddr, PortId};
use crate::bridge::LOOP_PROBE;
use crate::config::{Port, Segment, Snapshot, Station};
use crate::flow::glance::{self, LinkKey, Macs, Packet, PacketKey};
use crate::flow::rewrite_plain;
use crate::frame::{Checksum, Frame, FrameBatch};
use crate::parse::{ethertype, protocol};
use crate::verdict::{Fate, Origin};

const ETHERNET_HEADER: usize = 14;

/// What the untagged frames of one port have in common.
struct Ingress<'s> {
    port: &'s Port,
    segment: &'s Segment,
    gateway: Option<MacAddr>,
    /// Whether sources are learned.
    learns: bool,
    /// Whether frames to other stations are bridged by their Ethernet header alone.
    by_link: bool,
    /// The source that was heard last, and needs no second look in this batch.
    heard: Option<[u8; 6]>,
}

impl Switch {
    /// Takes in the frames of a batch, leaving it empty.
    pub fn handle_frames(&mut self, now: Duration, port: PortId, batch: &mut FrameBatch) {
        let snapshot = Arc::clone(&self.snapshot);
        self.seen = now;
        let (frames, bytes) = (batch.len() as u64, batch.bytes() as u64);
        let counters = self.counters_mut(port);
        counters.rx_frames += frames;
        counters.rx_bytes += bytes;
        let Some(mut ingress) = self.ingress(&snapshot, port) else {
            return batch.drain().for_each(|frame| self.handle_frame(&snapshot, now, port, frame));
        };
        let mut glimpses = core::mem::take(&mut self.flows.glimpses);
        glimpses.clear();
        glimpses.extend(batch.iter().map(|frame| self.glimpse(&ingress, frame)));
        self.search(&mut glimpses);
        let made = self.flows.made;
        for (frame, glimpse) in batch.drain().zip(&mut glimpses) {
            if self.flows.made != made {
                self.search(core::slice::from_mut(glimpse));
            }
            let left = match glimpse {
                Glimpse::Other => Some(frame),
                Glimpse::V4(look) => self.forward::<Ipv4Addr>(&snapshot, now, &mut ingress, look, frame),
                Glimpse::V6(look) => self.forward::<Ipv6Addr>(&snapshot, now, &mut ingress, look, frame),
                Glimpse::Link(look) => self.forward_link(&snapshot, now, &ingress, look, frame),
            };
            if let Some(frame) = left {
                ingress.heard = None;
                self.flows.current = *glimpse;
                self.handle_frame(&snapshot, now, port, frame);
                self.flows.current = Glimpse::Other;
            }
        }
        self.flows.glimpses = glimpses;
    }

    /// Keeps what was decided about the frame at hand and done, for the next frames of its flow: it leaves by `port` for the
    /// station with this MAC address, routed as `way` says or as it came.
    pub(super) fn remember(
        &mut self,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        (port, egress): (PortId, &Segment),
        way: Option<&Route>,
    ) {
        let current = core::mem::replace(&mut self.flows.current, Glimpse::Other);
        if matches!(current, Glimpse::Other) || self.loops.is_blocked(port) {
            return;
        }
        let next = way.map_or(arrival.link.destination, |route| route.plan.destination);
        let station = match egress.station_by_mac(next) {
            Some(_) => None,
            None => match self.fdb.lookup_slot(now, egress.id(), next) {
                Some(hit) => Some(Reference { slot: hit.slot, generation: hit.generation }),
                None => return,
            },
        };
        let neighbor = match way.map(|route| route.adjacency) {
            Some(Adjacent::Unresolved) => return,
            Some(Adjacent::Learned { slot }) => match self.neighbors.generation(slot) {
                Some(generation) => Some(Reference { slot, generation }),
                None => return,
            },
            Some(Adjacent::Station { .. }) | None => None,
        };
        let mtu = way.map_or(u32::MAX, |_| u32::try_from(egress.mtu()).unwrap_or(u32::MAX));
        let to = Adjacency {
            port,
            segment: egress.id(),
            trim: arrival.to_gateway(),
            mtu,
            plan: way.map(|route| route.plan),
            neighbor,
            station,
        };
        match (current, tracked) {
            (Glimpse::V4(look), Tracked::V4(seen)) => {
                self.remember_packets(now, look.what.key, seen.through(), to)
            }
            (Glimpse::V6(look), Tracked::V6(seen)) => {
                self.remember_packets(now, look.what.key, seen.through(), to)
            }
            (Glimpse::V4(look), Tracked::Not) => {
                self.remember_packets(now, look.what.key, Some(Through::PLAIN), to);
            }
            (Glimpse::V6(look), Tracked::Not) => {
                self.remember_packets(now, look.what.key, Some(Through::PLAIN), to);
            }
            (Glimpse::Link(look), Tracked::Not) if way.is_none() => {
                self.remember_link(now, arrival, look.what, to)
            }
            (Glimpse::V4(_) | Glimpse::V6(_) | Glimpse::Link(_) | Glimpse::Other, _) => {}
        }
    }

    fn remember_packets<A: Kind>(
        &mut self,
        now: Duration,
        key: PacketKey<A>,
        through: Option<Through<A>>,
        to: Adjacency,
    ) {
        if let Some(through) = through {
            self.flows.keep_packets(key, through, to, second(now));
        }
    }

    fn remember_link(&mut self, now: Duration, arrival: &Arrival<'_>, key: LinkKey, to: Adjacency) {
        let (segment, mac) = (arrival.segment, arrival.link.source);
        let known = segment.gateway().is_some_and(|gateway| gateway.mac == mac)
            || segment.station_by_mac(mac).is_some();
        let source = match known {
            true => None,
            false => match self.fdb.lookup_slot(now, segment.id(), mac) {
                Some(hit) if hit.port == key.port => {
                    Some(Reference { slot: hit.slot, generation: hit.generation })
                }
                Some(_) | None => return,
            },
        };
        self.flows.keep_link(key, source, to, second(now));
    }

    /// What untagged frames of a port have in common; none if all of its frames are to be decided about.
    fn ingress<'s>(&self, snapshot: &'s Snapshot, id: PortId) -> Option<Ingress<'s>> {
        let port = snapshot.port(id).filter(|_| self.flows.is_enabled() && !self.loops.is_blocked(id))?;
        let segment = snapshot.segment(port.segment_of(None)?)?;
        let foreign = matches!(port.station(), Station::Foreign);
        let tracked = snapshot.translator().is_some() && segment.gateway().is_some();
        Some(Ingress {
            port,
            segment,
            gateway: segment.gateway().map(|gateway| gateway.mac),
            learns: foreign,
            by_link: foreign && !tracked,
            heard: None,
        })
    }

    /// What a frame is at a glance.
    fn glimpse(&self, ingress: &Ingress<'_>, frame: &Frame) -> Glimpse {
        let bytes = frame.bytes();
        let Some((macs, kind)) = glance::link(bytes) else { return Glimpse::Other };
        let port = ingress.port.id();
        let [d0, d1, d2, d3, d4, d5, ..] = macs;
        let destination = MacAddr([d0, d1, d2, d3, d4, d5]);
        if destination.is_multicast() {
            return Glimpse::Other;
        }
        if ingress.by_link && ingress.gateway != Some(destination) && !is_offloaded(frame) {
            if !is_opaque(bytes, kind) {
                return Glimpse::Other;
            }
            let what = LinkKey { macs, port };
            let hash = self.flows.links.hash(&what);
            black_box(self.flows.links.touch(hash));
            return Glimpse::Link(Look { what, hash, place: None });
        }
        match kind {
            ethertype::IPV4 => {
                self.look_up::<Ipv4Addr>(frame, macs, port).map_or(Glimpse::Other, Glimpse::V4)
            }
            ethertype::IPV6 => {
                self.look_up::<Ipv6Addr>(frame, macs, port).map_or(Glimpse::Other, Glimpse::V6)
            }
            _ => Glimpse::Other,
        }
    }

    #[inline]
    fn look_up<A: Kind>(&self, frame: &Frame, macs: Macs, port: PortId) -> Option<Look<Packet<A>>> {
        let what = Packet::<A>::read(frame, macs, port)?;
        let flows = A::flows(&self.flows);
        let hash = flows.hash(&what.key);
        black_box(flows.touch(hash));
        Some(Look { what, hash, place: None })
    }

    /// Finds the entries of frames, and has the memory fetch what they name.
    fn search(&self, glimpses: &mut [Glimpse]) {
        for glimpse in glimpses.iter_mut() {
            match glimpse {
                Glimpse::Other => {}
                Glimpse::V4(look) => look.place = self.flows.v4.find(look.hash, &look.what.key),
                Glimpse::V6(look) => look.place = self.flows.v6.find(look.hash, &look.what.key),
                Glimpse::Link(look) => look.place = self.flows.links.find(look.hash, &look.what),
            }
        }
        let touched = glimpses.iter().map(|glimpse| match glimpse {
            Glimpse::Other | Glimpse::Link(_) => 0,
            Glimpse::V4(look) => self.touch::<Ipv4Addr>(look.place),
            Glimpse::V6(look) => self.touch::<Ipv6Addr>(look.place),
        });
        black_box(touched.fold(0, |all, one| all ^ one));
    }

    /// Reads what following a connection looks at.
    #[inline]
    fn touch<A: Kind>(&self, place: Option<u32>) -> u32 {
        let through = place.and_then(|place| A::flows(&self.flows).peek(place));
        let id = through.and_then(|through| through.connection()).map(|(id, _)| id);
        let connection = id.zip(self.connections.as_ref()).and_then(|(id, all)| all.get::<A>(id));
        connection.map_or(0, |connection| connection.marks[0])
    }

    /// Sends a packet the way of its flow; gives it back, with nothing done, if that is for the slow path to decide.
    #[inline]
    fn forward<A: Kind>(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        ingress: &mut Ingress<'_>,
        look: &Look<Packet<A>>,
        mut frame: Frame,
    ) -> Option<Frame> {
        let Look { what: packet, place, .. } = look;
        let end = packet.end as usize;
        let entry = place.and_then(|place| A::flows(&self.flows).at(place, &packet.key, self.flows.stamp()));
        let Some(entry) = entry else { return Some(frame) };
        let through = entry.value;
        let Some(to) = self.flows.adjacency(entry.adjacency) else { return Some(frame) };
        let length = if frame.offload.segmentation.is_some() {
            packet.size as usize
        } else {
            frame.len() - ETHERNET_HEADER
        };
        let hops = to.plan.is_none_or(|plan| !plan.decrement || packet.hop_limit > 1);
        let source = through.rewrite.map(|rewrite| rewrite.source().address);
        let identified = packet.atomic || source.is_none_or(|source| source == packet.key.source);
        if packet.size > to.mtu || length > ingress.segment.mtu() || !hops || !identified {
            return Some(frame);
        }
        if !self.holds(now, &to) || !self.hears(now, ingress, &packet.key) {
            return Some(frame);
        }
        if let Some((id, direction)) = through.connection() {
            let upper = frame.bytes().get(A::UPPER..end).unwrap_or_default();
            let followed =
                self.connections.as_mut().is_some_and(|all| all.follow::<A>(now, id, direction, upper));
            if !followed {
                return Some(frame);
            }
        }
        if let Some(place) = place {
            A::flows_mut(&mut self.flows).used(*place, second(now));
        }
        if to.trim || frame.offload.segmentation.is_some() {
            let fits = frame.set_len(end);
            debug_assert!(fits);
        }
        if let Some(rewrite) = &through.rewrite {
            let rewritten =
                rewrite_plain(rewrite, &mut frame, (ETHERNET_HEADER, A::UPPER, end), packet.key.protocol);
            debug_assert!(rewritten);
        }
        self.leave(snapshot, now, ingress.port.id(), &to, frame);
        None
    }

    /// Sends a frame on between two stations; gives it back, with nothing done, if that is for the slow path to decide.
    #[inline]
    fn forward_link(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        ingress: &Ingress<'_>,
        look: &Look<LinkKey>,
        frame: Frame,
    ) -> Option<Frame> {
        let Look { what: key, place, .. } = look;
        let entry = place.and_then(|place| self.flows.links.at(place, key, self.flows.stamp()));
        let Some((source, number)) = entry.map(|entry| (entry.value, entry.adjacency)) else {
            return Some(frame);
        };
        let Some(to) = self.flows.adjacency(number) else { return Some(frame) };
        if frame.len() - ETHERNET_HEADER > ingress.segment.mtu() || !self.holds(now, &to) {
            return Some(frame);
        }
        if let Some(Reference { slot, generation }) = source
            && !self.fdb.hear(now, slot, generation)
        {
            return Some(frame);
        }
        if let Some(place) = place {
            self.flows.links.used(*place, second(now));
        }
        self.leave(snapshot, now, ingress.port.id(), &to, frame);
        None
    }

    /// Whether frames that went there lately may still.
    #[inline]
    fn holds(&self, now: Duration, to: &Adjacency) -> bool {
        to.neighbor.is_none_or(|at| self.neighbors.resolved(at.slot, at.generation).is_some())
            && to.station.is_none_or(|at| self.fdb.believes(now, at.slot, at.generation))
    }

    /// Takes note of where a packet came from; false if that is news.
    #[inline]
    fn hears<A: Copy>(&mut self, now: Duration, ingress: &mut Ingress<'_>, key: &PacketKey<A>) -> bool {
        if !ingress.learns {
            return true;
        }
        let [.., s0, s1, s2, s3, s4, s5] = key.macs;
        let source = [s0, s1, s2, s3, s4, s5];
        if ingress.heard == Some(source) {
            return true;
        }
        let mac = MacAddr(source);
        let known = ingress.gateway == Some(mac)
            || ingress.segment.station_by_mac(mac).is_some()
            || self.fdb.refresh(now, ingress.segment.id(), mac, key.port);
        if known {
            ingress.heard = Some(source);
        }
        known
    }

    /// Rewrites a frame for its next link and queues it.
    #[inline]
    fn leave(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        ingress: PortId,
        to: &Adjacency,
        mut frame: Frame,
    ) {
        if let Some(at) = to.neighbor {
            self.neighbors.use_entry(now, at.slot);
        }
        if let Some(plan) = &to.plan {
            plan.apply(&mut frame);
        }
        self.flows.known += 1;
        self.count_fate(ingress, Fate::Forwarded);
        if let Some(segment) = snapshot.segment(to.segment) {
            self.send(snapshot, to.port, segment, frame, Origin::Forwarded);
        }
    }
}

/// Whether a device has left something of a frame to be done.
fn is_offloaded(frame: &Frame) -> bool {
    frame.offload.segmentation.is_some() || matches!(frame.offload.checksum, Checksum::Partial { .. })
}

/// Whether frames of a kind mean nothing to a bridge that does not look into packets.
fn is_opaque(frame: &[u8], kind: u16) -> bool {
    const NEXT_HEADER: usize = ETHERNET_HEADER + 6;
    match kind {
        ethertype::ARP | ethertype::VLAN | LOOP_PROBE => false,
        ethertype::IPV6 => matches!(frame.get(NEXT_HEADER), Some(&(protocol::TCP | protocol::UDP))),
        _ => true,
    }
}

/// The second that it is, as far as entries tell them apart.
#[expect(clippy::cast_possible_truncation, reason = "seconds wrap around")]
pub(super) const fn second(now: Duration) -> u16 {
    now.as_secs() as u16
}
