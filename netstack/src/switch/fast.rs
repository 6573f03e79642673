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

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use lb::AT_ONCE;
use nat::connection::State;
use nat::ticks::Ticks;

use super::Switch;
use super::admit;
use super::connections::{Connections, Kind};
use super::flows::{Adjacency, Caches, Flow, Hint, Kinds, Reference, Through};
use super::port::PortState;
use crate::addr::{MacAddr, PortId};
use crate::bridge::{Fdb, LOOP_PROBE};
use crate::config::{Port, Segment, Snapshot, Station};
use crate::flow::cache::{Cache, Hash, NOWHERE};
use crate::flow::glance::{self, LinkKey, Macs, Packet, PacketKey};
use crate::flow::rewrite_plain;
use crate::frame::{Checksum, Frame, FrameBatch, FramePool};
use crate::neighbor::Neighbors;
use crate::parse::{ETHERNET_HEADER, ethertype};
use crate::verdict::{Fate, Origin};

/// What the untagged frames of one port have in common.
struct Ingress<'s> {
    port: &'s Port,
    segment: &'s Segment,
    mtu: usize,
    gateway: Option<MacAddr>,
    /// Whether sources are learned.
    learns: bool,
    /// Whether frames to other stations are bridged by their Ethernet header alone.
    by_link: bool,
    /// The MAC addresses of the frame whose source was heard last, which needs no second look in this batch.
    heard: Macs,
}

/// What the frames of one batch have in common.
struct Pass<'s> {
    snapshot: &'s Snapshot,
    now: Duration,
    moment: Ticks,
    second: u16,
    ingress: Ingress<'s>,
    /// Frames that have left.
    known: u64,
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
        let Some(ingress) = self.ingress(&snapshot, port) else {
            return batch.drain().for_each(|frame| self.handle_frame(&snapshot, now, port, frame));
        };
        let (moment, second) = (Ticks::at(now), second(now));
        let mut pass = Pass { snapshot: &snapshot, now, moment, second, ingress, known: 0 };
        let hints = self.hints(&pass.ingress, batch);
        batch.take_each(|at, frame| {
            let flow = match hints.get(at) {
                Some(hint) => self.forward(&mut pass, hint, frame),
                None => Err(Flow::Other),
            };
            if let Err(flow) = flow {
                pass.ingress.heard = [0; 12];
                self.flows.current = flow;
                self.handle_frame(&snapshot, now, port, core::mem::take(frame));
                self.flows.current = Flow::Other;
            }
        });
        self.flows.hints = hints;
        if let Some(connections) = &mut self.connections {
            connections.forget_foreseen();
        }
        self.flows.known += pass.known;
        self.counters_mut(port).fates[Fate::Forwarded.index()] += pass.known;
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
            mtu: segment.mtu(),
            gateway: segment.gateway().map(|gateway| gateway.mac),
            learns: foreign,
            by_link: foreign && !tracked,
            heard: [0; 12],
        })
    }

    /// Where the flows of a batch's frames probably are, having had the memory fetch what is there.
    fn hints(&mut self, ingress: &Ingress<'_>, batch: &FrameBatch) -> Vec<Hint> {
        let mut hints = core::mem::take(&mut self.flows.hints);
        hints.clear();
        let caches = &self.flows.caches;
        let mut touched = 0;
        for frame in batch.iter() {
            let (kind, hash) = glimpse(caches, ingress, frame);
            touched ^= match kind {
                Kinds::Other => 0,
                Kinds::V4 => caches.v4.touch(hash),
                Kinds::V6 => caches.v6.touch(hash),
                Kinds::Link => caches.links.touch(hash),
            };
            hints.push(Hint { kind, hash, candidate: NOWHERE });
        }
        black_box(touched);
        let connections = self.connections.as_deref();
        let (mut touched, mut strange) = (0, 0);
        for hint in &mut hints {
            match hint.kind {
                Kinds::Other => {}
                Kinds::V4 => {
                    hint.candidate = caches.v4.candidate(hint.hash);
                    touched ^= touch(&caches.v4, connections, hint.candidate);
                    strange += usize::from(hint.candidate == NOWHERE);
                }
                Kinds::V6 => {
                    hint.candidate = caches.v6.candidate(hint.hash);
                    touched ^= touch(&caches.v6, connections, hint.candidate);
                    strange += usize::from(hint.candidate == NOWHERE);
                }
                Kinds::Link => hint.candidate = caches.links.candidate(hint.hash),
            }
        }
        black_box(touched);
        if strange > 1
            && let Some(connections) = &mut self.connections
        {
            expect::<Ipv4Addr>(connections, ingress, (batch, &hints), Kinds::V4);
            expect::<Ipv6Addr>(connections, ingress, (batch, &hints), Kinds::V6);
        }
        hints
    }

    /// Sends a frame the way of its flow; if that is for the slow path to decide, says which flow it is, with nothing done.
    #[inline]
    fn forward(&mut self, pass: &mut Pass<'_>, hint: &Hint, frame: &mut Frame) -> Result<(), Flow> {
        let port = pass.ingress.port.id();
        let Some((macs, _)) = glance::link(frame.bytes()) else { return Err(Flow::Other) };
        match hint.kind {
            Kinds::Other => Err(Flow::Other),
            Kinds::V4 => {
                let Some(packet) = Packet::<Ipv4Addr>::read(frame, macs, port) else {
                    return Err(Flow::Other);
                };
                self.forward_packet(pass, hint, &packet, frame).then_some(()).ok_or(Flow::V4(packet.key))
            }
            Kinds::V6 => {
                let Some(packet) = Packet::<Ipv6Addr>::read(frame, macs, port) else {
                    return Err(Flow::Other);
                };
                self.forward_packet(pass, hint, &packet, frame).then_some(()).ok_or(Flow::V6(packet.key))
            }
            Kinds::Link => {
                let key = LinkKey { macs, port };
                self.forward_link(pass, hint, &key, frame).then_some(()).ok_or(Flow::Link(key))
            }
        }
    }

    /// Sends a packet the way of its flow; false, with nothing done, if that is for the slow path to decide.
    #[inline]
    fn forward_packet<A: Kind>(
        &mut self,
        pass: &mut Pass<'_>,
        hint: &Hint,
        packet: &Packet<A>,
        frame: &mut Frame,
    ) -> bool {
        let end = packet.end as usize;
        let Self { flows, fdb, neighbors, connections, ports, ready, pool, .. } = self;
        let cache = A::flows_mut(&mut flows.caches);
        let place = cache.find(hint.candidate, hint.hash, &packet.key);
        let Some(flow) = cache.holding(place, flows.stamp) else { return false };
        let Some(to) = flows.adjacencies.get(usize::from(flow.adjacency)) else { return false };
        let length = match frame.offload.segmentation {
            None => frame.len() - ETHERNET_HEADER,
            Some(_) => packet.size as usize,
        };
        let rewrite = flow.value.rewrite.as_ref();
        let hops = packet.hop_limit > 1 || to.plan.is_none_or(|plan| !plan.decrement);
        let identified =
            packet.atomic || rewrite.is_none_or(|rewrite| rewrite.source().address == packet.key.source);
        let fits = packet.size <= to.mtu && length <= pass.ingress.mtu && hops && identified;
        if !fits
            || !holds(fdb, neighbors, pass.now, to)
            || pass.ingress.learns && !pass.ingress.hears(fdb, pass.now, &packet.key.macs)
        {
            return false;
        }
        if let Some(connection) = flow.value.connection() {
            let Some(all) = connections else { return false };
            let upper = frame.bytes().get(A::UPPER..end).unwrap_or_default();
            if !all.follow::<A>((pass.now, pass.moment), connection, flow.value.renewal, upper) {
                return false;
            }
        }
        if to.trim || frame.offload.segmentation.is_some() {
            let fits = frame.set_len(end);
            debug_assert!(fits);
        }
        if let Some(rewrite) = rewrite {
            let at = (ETHERNET_HEADER, A::UPPER, end);
            let rewritten = rewrite_plain(rewrite, frame, at, packet.key.protocol);
            debug_assert!(rewritten);
        }
        flow.used = pass.second;
        if let Some(at) = to.neighbor {
            neighbors.use_entry(pass.now, at.slot);
        }
        if let Some(plan) = &to.plan {
            plan.apply(frame);
        }
        pass.known += 1;
        if !leave(ports, ready, pool, to, frame) {
            let to = *to;
            self.leave_finished(pass.snapshot, &to, core::mem::take(frame));
        }
        true
    }

    /// Sends a frame on between two stations; false, with nothing done, if that is for the slow path to decide.
    #[inline]
    fn forward_link(&mut self, pass: &mut Pass<'_>, hint: &Hint, key: &LinkKey, frame: &mut Frame) -> bool {
        let Self { flows, fdb, neighbors, ports, ready, pool, .. } = self;
        let place = flows.caches.links.find(hint.candidate, hint.hash, key);
        let Some(flow) = flows.caches.links.holding(place, flows.stamp) else { return false };
        let Some(to) = flows.adjacencies.get(usize::from(flow.adjacency)) else { return false };
        if frame.len() - ETHERNET_HEADER > pass.ingress.mtu || !holds(fdb, neighbors, pass.now, to) {
            return false;
        }
        if let Some(Reference { slot, generation }) = flow.value
            && !fdb.hear(pass.now, slot, generation)
        {
            return false;
        }
        flow.used = pass.second;
        pass.known += 1;
        if !leave(ports, ready, pool, to, frame) {
            let to = *to;
            self.leave_finished(pass.snapshot, &to, core::mem::take(frame));
        }
        true
    }

    /// Sends a frame that its device does not take as it is.
    #[inline(never)]
    fn leave_finished(&mut self, snapshot: &Snapshot, to: &Adjacency, frame: Frame) {
        if let Some(segment) = snapshot.segment(to.segment) {
            self.send(snapshot, to.port, segment, frame, Origin::Forwarded);
        }
    }
}

impl Ingress<'_> {
    /// Takes note of where a packet came from; false if that is news.
    #[inline]
    fn hears(&mut self, fdb: &mut Fdb, now: Duration, macs: &Macs) -> bool {
        if self.heard == *macs {
            return true;
        }
        let [.., s0, s1, s2, s3, s4, s5] = *macs;
        let (mac, segment) = (MacAddr([s0, s1, s2, s3, s4, s5]), self.segment);
        let known = segment.places(mac) || fdb.refresh(now, segment.id(), mac, self.port.id());
        if known {
            self.heard = *macs;
        }
        known
    }
}

/// Queues a frame; false, with nothing done, if its device does not take it as it is.
#[inline]
fn leave(
    ports: &mut [PortState],
    ready: &mut VecDeque<PortId>,
    pool: &mut FramePool,
    to: &Adjacency,
    frame: &mut Frame,
) -> bool {
    let taken = match (frame.offload.segmentation, frame.offload.checksum) {
        (None, Checksum::Complete | Checksum::Verified) => true,
        (None, Checksum::Partial { .. }) => to.offload.checksum,
        (Some(cut), _) => to.offload.checksum && to.offload.takes(cut.kind),
    };
    let Some(state) = ports.get_mut(usize::from(to.port.0)).filter(|_| taken && to.tag.is_none()) else {
        return false;
    };
    state.send(to.port, core::mem::take(frame), Origin::Forwarded, ready, pool);
    true
}

/// Whether frames that went there lately may still.
#[inline]
fn holds(fdb: &Fdb, neighbors: &Neighbors, now: Duration, to: &Adjacency) -> bool {
    to.neighbor.is_none_or(|at| neighbors.resolved(at.slot, at.generation).is_some())
        && to.station.is_none_or(|at| fdb.believes(now, at.slot, at.generation))
}

/// Has the memory fetch where packets of one family whose flow is not known will be looked for.
#[inline(never)]
fn expect<A: Kind>(
    connections: &mut Connections,
    ingress: &Ingress<'_>,
    (batch, hints): (&FrameBatch, &[Hint]),
    kind: Kinds,
) {
    let is_strange = |hint: &Hint| hint.kind == kind && hint.candidate == NOWHERE;
    let strange = batch.iter().zip(hints).filter(|(_, hint)| is_strange(hint));
    let mut tuples = strange.filter_map(|(frame, _)| glance::tuple::<A>(frame.bytes()));
    while let Some(first) = tuples.next() {
        let (mut some, mut count) = ([first; AT_ONCE], 1);
        for (place, tuple) in some[1..].iter_mut().zip(&mut tuples) {
            *place = tuple;
            count += 1;
        }
        connections.expect(&some[..count], ingress.segment);
    }
}

/// Reads what following a connection looks at.
#[inline]
fn touch<A: Kind>(
    cache: &Cache<PacketKey<A>, Through<A>>,
    connections: Option<&Connections>,
    place: u32,
) -> u32 {
    let connection = cache.peek(place).and_then(|through| through.connection());
    let connection = connection.zip(connections).and_then(|((id, _), all)| all.get::<A>(id));
    // Its state lies in a cache line of its own.
    connection.map_or(0, |it| it.marks[0] ^ u32::from(it.state == State::Query))
}

/// What a frame is at a glance, and the hash of its flow's key.
#[inline]
fn glimpse(caches: &Caches, ingress: &Ingress<'_>, frame: &Frame) -> (Kinds, Hash) {
    const NOTHING: (Kinds, Hash) = (Kinds::Other, Hash::NONE);
    let bytes = frame.bytes();
    let Some((macs, kind)) = glance::link(bytes) else { return NOTHING };
    let port = ingress.port.id();
    let [d0, d1, d2, d3, d4, d5, ..] = macs;
    let destination = MacAddr([d0, d1, d2, d3, d4, d5]);
    if destination.is_multicast() {
        return NOTHING;
    }
    if ingress.by_link && ingress.gateway != Some(destination) && !admit::is_offloaded(frame) {
        let hash = caches.links.hash(glance::link_words(&macs, port));
        return if is_opaque(bytes, kind) { (Kinds::Link, hash) } else { NOTHING };
    }
    match kind {
        ethertype::IPV4 => match glance::packet_words::<Ipv4Addr>(bytes, port) {
            Some(words) => (Kinds::V4, caches.v4.hash(words)),
            None => NOTHING,
        },
        ethertype::IPV6 => match glance::packet_words::<Ipv6Addr>(bytes, port) {
            Some(words) => (Kinds::V6, caches.v6.hash(words)),
            None => NOTHING,
        },
        _ => NOTHING,
    }
}

/// Whether frames of a kind mean nothing to a bridge that does not look into packets.
#[inline]
fn is_opaque(frame: &[u8], kind: u16) -> bool {
    match kind {
        ethertype::ARP | ethertype::VLAN | LOOP_PROBE => false,
        ethertype::IPV6 => admit::is_tcp_or_udp(frame, ETHERNET_HEADER),
        _ => true,
    }
}

/// The second that it is, as far as entries tell them apart.
#[expect(clippy::cast_possible_truncation, reason = "seconds wrap around")]
pub(super) const fn second(now: Duration) -> u16 {
    now.as_secs() as u16
}
