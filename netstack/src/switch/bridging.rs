//! Layer 2's share of the slow path: which port a frame between stations of one segment goes to.

use super::Switch;
use super::admit::Arrival;
use super::explain::{Recorder, Stage};
use super::protect;
use super::slow::{Decision, Scope};
use crate::addr::{MacAddr, PortId};
use crate::bridge;
use crate::config::{Segment, Snapshot};
use crate::verdict::DropReason;

impl Switch {
    /// Layer 2: known station, learned address, or flood.
    pub(super) fn bridge<R: Recorder>(
        &self,
        snapshot: &Snapshot,
        now: core::time::Duration,
        arrival: &Arrival<'_>,
        recorder: &mut R,
    ) -> Decision {
        let (segment, destination) = (arrival.segment, arrival.link.destination);
        let drop = |reason| Decision::Drop { reason, answer: None };
        if !segment.bridges() {
            // What a host says to a group, reports and discovery of others, is not the router's to pass on.
            let to_group = destination.is_multicast();
            return drop(if to_group { DropReason::MulticastNotRouted } else { DropReason::NotForUs });
        }
        if destination.is_multicast() {
            let scope = if is_for_foreign_only(destination) { Scope::Foreign } else { Scope::All };
            recorder.step(Stage::Classify, || alloc::format!("group address, flooded to {scope:?} ports"));
            return Decision::Flood(scope);
        }
        match self.port_of(now, segment, destination) {
            Some(port) if port == arrival.port.id() => drop(DropReason::SameIngress),
            Some(port) if protect::isolates(snapshot, arrival.port, port) => {
                recorder.step(Stage::Protection, || {
                    alloc::format!("{destination} is behind {port}, which is isolated like this one")
                });
                drop(DropReason::PortIsolated)
            }
            Some(port) => {
                recorder.step(Stage::Classify, || alloc::format!("bridged, {destination} is behind {port}"));
                Decision::Bridge(port)
            }
            None if self.storms(now, arrival.port, recorder) => drop(DropReason::StormControl),
            None => {
                recorder.step(Stage::Classify, || {
                    alloc::format!("{destination} is unknown, flooded to foreign ports")
                });
                Decision::Flood(Scope::Foreign)
            }
        }
    }

    /// The port that a station is behind: managed ones are known, others may have been learned.
    pub(super) fn port_of(
        &self,
        now: core::time::Duration,
        segment: &Segment,
        mac: MacAddr,
    ) -> Option<PortId> {
        match segment.station_by_mac(mac) {
            Some(station) => Some(station.port),
            None => self.fdb.lookup(now, segment.id(), mac),
        }
    }
}

/// Groups that only routers join: all-routers and the listener report address (RFC 3376 section 4.2.14, RFC 3810
/// section 5.2.14); and other switches' probes for loops. Managed stations are neither routers nor switches.
fn is_for_foreign_only(mac: MacAddr) -> bool {
    mac == bridge::LOOP_GROUP
        || matches!(mac.0, [0x33, 0x33, 0, 0, 0, 0x02 | 0x16] | [0x01, 0x00, 0x5e, 0, 0, 0x02 | 0x16])
}
