//! What was decided about a frame and done, kept for the next frames of its flow.

use core::time::Duration;

use super::Switch;
use super::admit::Arrival;
use super::connections::{Kind, Seen, Tracked};
use super::fast::second;
use super::flows::{Adjacency, Flow, Reference, Through};
use super::slow::{Adjacent, Route};
use crate::addr::PortId;
use crate::config::{Segment, Snapshot};
use crate::flow::glance::{LinkKey, PacketKey};

impl Switch {
    /// Keeps what was decided about the frame at hand: it leaves by a port for a segment, routed as `way` says or as it came.
    pub(super) fn remember(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        (port, egress): (PortId, &Segment),
        way: Option<&Route>,
    ) {
        let current = core::mem::replace(&mut self.flows.current, Flow::Other);
        let worth = match tracked {
            Tracked::Not => !matches!(current, Flow::Other),
            Tracked::V4(seen) => matches!(current, Flow::V4(_)) && seen.known().is_some(),
            Tracked::V6(seen) => matches!(current, Flow::V6(_)) && seen.known().is_some(),
        };
        // What a SYN may announce is rewritten in no other segment.
        let alike = way.is_none_or(|route| route.plan.mss.is_none());
        if !worth || !alike || self.loops.is_blocked(port) {
            return;
        }
        let Some(to) = self.adjacency(snapshot, now, arrival, (port, egress), way) else { return };
        match (current, tracked) {
            (Flow::V4(key), Tracked::V4(seen)) => self.remember_tracked(now, key, seen, to),
            (Flow::V6(key), Tracked::V6(seen)) => self.remember_tracked(now, key, seen, to),
            (Flow::V4(key), Tracked::Not) => {
                self.flows.keep_packets(key, Through::PLAIN, to, second(now));
            }
            (Flow::V6(key), Tracked::Not) => {
                self.flows.keep_packets(key, Through::PLAIN, to, second(now));
            }
            (Flow::Link(key), Tracked::Not) if way.is_none() => {
                self.remember_link(now, arrival, key, to);
            }
            (Flow::V4(_) | Flow::V6(_) | Flow::Link(_) | Flow::Other, _) => {}
        }
    }

    /// Where a frame goes, with what names it for as long as it is true; none if that cannot be named.
    fn adjacency(
        &self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        (port, egress): (PortId, &Segment),
        way: Option<&Route>,
    ) -> Option<Adjacency> {
        let leaves = snapshot.port(port)?;
        let next = way.map_or(arrival.link.destination, |route| route.plan.destination);
        let station = match egress.station_by_mac(next) {
            Some(_) => None,
            None => Some(self.fdb.lookup_slot(now, egress.id(), next)?),
        };
        let neighbor = match way.map(|route| route.adjacency) {
            Some(Adjacent::Unresolved) => return None,
            Some(Adjacent::Learned { slot }) => {
                Some(Reference { slot, generation: self.neighbors.generation(slot)? })
            }
            Some(Adjacent::Station { .. }) | None => None,
        };
        let mtu = u32::try_from(egress.mtu()).unwrap_or(u32::MAX);
        Some(Adjacency {
            port,
            segment: egress.id(),
            trim: arrival.to_gateway(),
            mtu: way.map_or(u32::MAX, |_| mtu),
            tag: leaves.tag_for(egress.id())?,
            offload: leaves.offload(),
            plan: way.map(|route| route.plan),
            neighbor,
            station: station.map(|hit| Reference { slot: hit.slot, generation: hit.generation }),
        })
    }

    fn remember_tracked<A: Kind>(&mut self, now: Duration, key: PacketKey<A>, seen: &Seen<A>, to: Adjacency) {
        if let Some((known, connections)) = seen.known().zip(self.connections.as_deref()) {
            let through = connections.through(known);
            self.flows.keep_packets(key, through, to, second(now));
        }
    }

    fn remember_link(&mut self, now: Duration, arrival: &Arrival<'_>, key: LinkKey, to: Adjacency) {
        let (segment, mac) = (arrival.segment, arrival.link.source);
        let source = match segment.places(mac) {
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
}
