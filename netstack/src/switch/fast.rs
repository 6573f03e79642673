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

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use lb::AT_ONCE;
use nat::connection::State;
use nat::ticks::Ticks;
use nat::tuple::Tuple;

use super::Switch;
use super::admit;
use super::connections::{Connections, Kind};
use super::flows::{Adjacency, Flow, Glance, Hint, Reference, Through};
use crate::addr::PortId;
use crate::bridge::{Fdb, LOOP_PROBE};
use crate::config::{Port, Segment, Snapshot, Station};
use crate::flow::cache::{Cache, Hash, Key, NOWHERE};
use crate::flow::glance::{self, LinkKey, Macs, Packet, PacketKey};
use crate::flow::{checksum_state, rewrite_plain};
use crate::frame::{Checksum, Frame, FrameBatch};
use crate::neighbor::Neighbors;
use crate::parse::{ETHERNET_HEADER, ethertype};
use crate::verdict::{Fate, Origin};

/// What the untagged frames of one port have in common.
struct Ingress<'s> {
    port: &'s Port,
    segment: &'s Segment,
    mtu: usize,
    /// Its MAC address, as a number.
    gateway: Option<u64>,
    /// Whether sources are learned.
    learns: bool,
    /// Whether frames to other stations are bridged by their Ethernet header alone.
    by_link: bool,
    /// The MAC addresses of the frame whose source was heard last, which needs no second look in this batch.
    heard: Macs,
}

/// What the frames of one batch have in common.
struct Pass<'s> {
    now: Duration,
    moment: Ticks,
    second: u16,
    ingress: Ingress<'s>,
    /// The adjacency of the frame that was forwarded last, which needs no second look in this batch.
    held: Option<u16>,
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
        let mut pass = Pass { now, moment, second, ingress, held: None, known: 0 };
        let hints = self.hints(&pass.ingress, batch);
        batch.take_each(|at, frame| {
            let hint = hints.get(at);
            match hint.and_then(|hint| self.forward(&mut pass, hint, frame)) {
                Some(to) => self.leave(&snapshot, to, frame),
                None => self.take(&snapshot, &mut pass, hint, frame),
            }
        });
        self.flows.hints = hints;
        if let Some(connections) = &mut self.connections {
            connections.forget_foreseen();
        }
        self.flows.known += pass.known;
        self.counters_mut(port).fates[Fate::Forwarded.index()] += pass.known;
    }

    /// Takes in a frame that is not as nearly all are.
    #[inline(never)]
    fn take(&mut self, snapshot: &Snapshot, pass: &mut Pass<'_>, hint: Option<&Hint>, frame: &mut Frame) {
        if let Some(to) = hint.and_then(|hint| self.forward_end(pass, hint, frame)) {
            return self.leave(snapshot, to, frame);
        }
        pass.ingress.heard = Macs::default();
        pass.held = None;
        self.flows.current = hint.map_or(Flow::Other, |hint| hint.seen.flow());
        self.handle_frame(snapshot, pass.now, pass.ingress.port.id(), core::mem::take(frame));
        self.flows.current = Flow::Other;
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
            gateway: segment.gateway().map(|gateway| Macs::number(gateway.mac)),
            learns: foreign,
            by_link: foreign && !tracked,
            heard: Macs::default(),
        })
    }

    /// Where the flows of a batch's frames probably are, having had the memory fetch what is there.
    fn hints(&mut self, ingress: &Ingress<'_>, batch: &FrameBatch) -> Vec<Hint> {
        let mut hints = core::mem::take(&mut self.flows.hints);
        hints.clear();
        let caches = &self.flows.caches;
        let port = ingress.port.id();
        let mut touched = 0;
        for frame in batch.iter() {
            touched ^= match kind(ingress, frame) {
                Some((Kinds::V4, macs)) => hint(
                    &caches.v4,
                    &mut hints,
                    Packet::read(frame, macs, port),
                    |packet| packet.key,
                    Glance::V4,
                ),
                Some((Kinds::V6, macs)) => hint(
                    &caches.v6,
                    &mut hints,
                    Packet::read(frame, macs, port),
                    |packet| packet.key,
                    Glance::V6,
                ),
                Some((Kinds::Link, macs)) => {
                    hint(&caches.links, &mut hints, Some(LinkKey { macs, port }), |key| *key, Glance::Link)
                }
                None => hint(&caches.links, &mut hints, None, |key| *key, Glance::Link),
            };
        }
        black_box(touched);
        let connections = self.connections.as_deref();
        let (mut touched, mut strange) = (0, 0);
        for hint in &mut hints {
            match hint.seen {
                Glance::Other => {}
                Glance::V4(_) => {
                    hint.candidate = caches.v4.candidate(hint.hash);
                    touched ^= touch(&caches.v4, connections, hint.candidate);
                    strange += usize::from(hint.candidate == NOWHERE);
                }
                Glance::V6(_) => {
                    hint.candidate = caches.v6.candidate(hint.hash);
                    touched ^= touch(&caches.v6, connections, hint.candidate);
                    strange += usize::from(hint.candidate == NOWHERE);
                }
                Glance::Link(_) => hint.candidate = caches.links.candidate(hint.hash),
            }
        }
        black_box(touched);
        if strange > 1
            && let Some(connections) = &mut self.connections
        {
            let strange = || hints.iter().filter(|hint| hint.candidate == NOWHERE);
            let v4 = |hint: &Hint| {
                if let Glance::V4(packet) = &hint.seen { Some(packet.key.tuple()) } else { None }
            };
            let v6 = |hint: &Hint| {
                if let Glance::V6(packet) = &hint.seen { Some(packet.key.tuple()) } else { None }
            };
            expect::<Ipv4Addr>(connections, ingress, strange().filter_map(v4));
            expect::<Ipv6Addr>(connections, ingress, strange().filter_map(v6));
        }
        hints
    }

    /// Makes a frame ready to leave as those of its flow do, and says by which adjacency; none, with nothing done, if that is
    /// for the slow path to decide.
    #[inline]
    fn forward(&mut self, pass: &mut Pass<'_>, hint: &Hint, frame: &mut Frame) -> Option<u16> {
        match &hint.seen {
            Glance::V4(packet) => self.forward_packet::<_, false>(pass, hint, packet, frame),
            Glance::V6(packet) => self.forward_packet::<_, false>(pass, hint, packet, frame),
            Glance::Link(key) => self.forward_link(pass, hint, key, frame),
            Glance::Other => None,
        }
    }

    /// [`Self::forward`] for a frame that may be the last of its flow, a FIN.
    fn forward_end(&mut self, pass: &mut Pass<'_>, hint: &Hint, frame: &mut Frame) -> Option<u16> {
        match &hint.seen {
            Glance::V4(packet) if packet.ends() => self.forward_packet::<_, true>(pass, hint, packet, frame),
            Glance::V6(packet) if packet.ends() => self.forward_packet::<_, true>(pass, hint, packet, frame),
            Glance::V4(_) | Glance::V6(_) | Glance::Link(_) | Glance::Other => None,
        }
    }

    /// [`Self::forward`] for a packet.
    #[inline]
    fn forward_packet<A: Kind, const END: bool>(
        &mut self,
        pass: &mut Pass<'_>,
        hint: &Hint,
        packet: &Packet<A>,
        frame: &mut Frame,
    ) -> Option<u16> {
        let end = packet.end as usize;
        let Self { flows, fdb, neighbors, connections, .. } = self;
        let cache = A::flows_mut(&mut flows.caches);
        let flow = cache.get(hint.candidate, hint.hash, &packet.key)?;
        let adjacencies = &flows.adjacencies;
        if !flows.age.is_current(flow.stamp) && !flows.age.renew_packets(flow, adjacencies, neighbors) {
            return None;
        }
        let to = adjacencies.get(usize::from(flow.adjacency))?;
        let held = pass.held == Some(flow.adjacency);
        let length = match frame.offload.segmentation {
            None => frame.len() - ETHERNET_HEADER,
            Some(_) => packet.size as usize,
        };
        let rewrite = flow.value.rewrite.as_ref();
        let hops = packet.hop_limit > 1 || to.plan.is_none_or(|plan| !plan.decrement);
        let identified = packet.atomic
            || rewrite.is_none_or(|rewrite| rewrite.source().address == A::source(&packet.key.addresses));
        let usual = match END {
            false => packet.goes_on(),
            // What ends a connection that is remembered is judged by its checksum as well.
            true => flow.value.connection().is_none() || frame.offload.is_trusted(),
        };
        let fits = usual && packet.size <= to.mtu && length <= pass.ingress.mtu && hops && identified;
        if !fits
            || !held && !holds(fdb, neighbors, pass.now, to)
            || pass.ingress.learns && !pass.ingress.hears(fdb, pass.now, &packet.key.macs)
        {
            return None;
        }
        if let Some(connection) = flow.value.connection() {
            let upper = frame.bytes().get(A::UPPER..end)?;
            let now = (pass.now, pass.moment);
            if !connections.as_mut()?.follow::<A>(now, connection, flow.value.renewal, upper) {
                return None;
            }
        }
        if to.trim || frame.offload.segmentation.is_some() {
            let fits = frame.set_len(end);
            debug_assert!(fits);
        }
        let state = checksum_state(frame);
        let bytes = frame.bytes_mut();
        if let Some(rewrite) = rewrite {
            let rewritten = rewrite_plain(rewrite, bytes, (A::UPPER, end), packet.key.protocol, state);
            debug_assert!(rewritten);
        }
        flow.used = pass.second;
        if let Some(plan) = &to.plan {
            plan.write(bytes);
        }
        if !held && let Some(at) = to.neighbor {
            neighbors.use_entry(pass.now, at.slot);
        }
        pass.held = Some(flow.adjacency);
        pass.known += 1;
        Some(flow.adjacency)
    }

    /// [`Self::forward`] for a frame between two stations.
    #[inline]
    fn forward_link(
        &mut self,
        pass: &mut Pass<'_>,
        hint: &Hint,
        key: &LinkKey,
        frame: &Frame,
    ) -> Option<u16> {
        let Self { flows, fdb, neighbors, .. } = self;
        let flow = flows.caches.links.get(hint.candidate, hint.hash, key)?;
        if !flows.age.is_current(flow.stamp) && !flows.age.renew_link(flow, &flows.adjacencies) {
            return None;
        }
        let to = flows.adjacencies.get(usize::from(flow.adjacency))?;
        let held = pass.held == Some(flow.adjacency) || holds(fdb, neighbors, pass.now, to);
        if frame.len() - ETHERNET_HEADER > pass.ingress.mtu || !held {
            return None;
        }
        if pass.ingress.heard != key.macs {
            if let Some(Reference { slot, generation }) = flow.value
                && !fdb.hear(pass.now, slot, generation)
            {
                return None;
            }
            pass.ingress.heard = key.macs;
        }
        flow.used = pass.second;
        pass.held = Some(flow.adjacency);
        pass.known += 1;
        Some(flow.adjacency)
    }

    /// Queues a frame that goes by this adjacency.
    #[inline]
    fn leave(&mut self, snapshot: &Snapshot, to: u16, frame: &mut Frame) {
        let Some(to) = self.flows.adjacencies.get(usize::from(to)) else { return };
        let taken = match (frame.offload.segmentation, frame.offload.checksum) {
            (None, Checksum::Complete | Checksum::Verified) => true,
            (None, Checksum::Partial { .. }) => to.offload.checksum,
            (Some(cut), _) => to.offload.checksum && to.offload.takes(cut.kind),
        };
        let port = self.ports.get_mut(usize::from(to.port.0)).filter(|_| taken && to.tag.is_none());
        match port {
            Some(port) => port.send(to.port, frame, Origin::Forwarded, &mut self.ready, &mut self.pool),
            None => {
                let to = *to;
                self.leave_finished(snapshot, &to, core::mem::take(frame));
            }
        }
    }

    /// The same for one that its device does not take as it is.
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
        self.heard == *macs || self.hears_another(fdb, now, macs)
    }

    #[inline(never)]
    fn hears_another(&mut self, fdb: &mut Fdb, now: Duration, macs: &Macs) -> bool {
        let (mac, segment) = (macs.source(), self.segment);
        let known = segment.places(mac) || fdb.refresh(now, segment.id(), mac, self.port.id());
        if known {
            self.heard = *macs;
        }
        known
    }
}

/// Whether frames that went there lately may still.
#[inline(always)]
fn holds(fdb: &Fdb, neighbors: &Neighbors, now: Duration, to: &Adjacency) -> bool {
    to.neighbor.is_none_or(|at| neighbors.resolved(at.slot, at.generation).is_some())
        && to.station.is_none_or(|at| fdb.believes(now, at.slot, at.generation))
}

/// Has the memory fetch where packets of one family whose flow is not known will be looked for.
#[inline(never)]
fn expect<A: Kind>(
    connections: &mut Connections,
    ingress: &Ingress<'_>,
    mut tuples: impl Iterator<Item = Tuple<A>>,
) {
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

/// What tells frames of known flows apart: addresses and ports, or MAC addresses alone.
#[derive(Clone, Copy)]
enum Kinds {
    V4,
    V6,
    Link,
}

/// What a frame may be of at a glance, and its MAC addresses; none if nothing is kept of what it is.
#[inline]
fn kind(ingress: &Ingress<'_>, frame: &Frame) -> Option<(Kinds, Macs)> {
    let bytes = frame.bytes();
    let (macs, kind) = glance::link(bytes)?;
    if macs.is_multicast() {
        return None;
    }
    let own = ingress.gateway.is_some_and(|gateway| macs.is_for(gateway));
    if ingress.by_link && !own && !admit::is_offloaded(frame) {
        return is_opaque(bytes, kind).then_some((Kinds::Link, macs));
    }
    match kind {
        ethertype::IPV4 => Some((Kinds::V4, macs)),
        ethertype::IPV6 => Some((Kinds::V6, macs)),
        _ => None,
    }
}

/// Takes note of what a frame is, and reads the tags that its flow's search will look at.
#[inline]
fn hint<K: Key, V: Copy, S>(
    cache: &Cache<K, V>,
    hints: &mut Vec<Hint>,
    seen: Option<S>,
    key: impl FnOnce(&S) -> K,
    glance: impl FnOnce(S) -> Glance,
) -> u64 {
    let Some(seen) = seen else {
        hints.push(Hint { seen: Glance::Other, hash: Hash::NONE, candidate: NOWHERE });
        return 0;
    };
    let hash = cache.hash(key(&seen).words());
    let touched = cache.touch(hash);
    hints.push(Hint { seen: glance(seen), hash, candidate: NOWHERE });
    touched
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
