//! The way of an imagined packet, switch by switch: each switch is asked for its own reasons, and what it would send is
//! handed to the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId};
use netstack::switch::{Switch, Trace};

use super::{PacketSpec, Runtime, RuntimeError};
use crate::cluster::Place;
use crate::control::api::{TraceHop, TraceView};

/// More switches than this on one way is a loop.
const MOST_HOPS: usize = 16;

/// How often, and how long each time, the answer of a neighbour is waited for.
const RESOLUTION_TRIES: u32 = 10;
const RESOLUTION_STEP: Duration = Duration::from_millis(20);

/// A frame about to enter a switch.
struct Arriving {
    switch: String,
    port: PortId,
    frame: Vec<u8>,
}

impl Runtime {
    /// Follows the packet that `from` would send.
    ///
    /// # Errors
    /// When `from` does not exist or has no address of the packet's family.
    pub fn trace(&self, from: &Place, packet: &PacketSpec) -> Result<TraceView, RuntimeError> {
        let first = self.first_frame(from, packet)?;
        let wiring = Arc::clone(&self.fabric.read().wiring);
        let link = |switch: &str, port: PortId| {
            wiring.switches.iter().find_map(|plan| {
                plan.links.iter().find_map(|(own, other, theirs)| {
                    if plan.name == switch && *own == port {
                        Some((other.clone(), *theirs))
                    } else if other == switch && *theirs == port {
                        Some((plan.name.clone(), *own))
                    } else {
                        None
                    }
                })
            })
        };
        let mut view = TraceView { hops: Vec::new(), outcome: String::new(), delivered: false };
        let mut queue = VecDeque::from([first]);
        while let Some(arriving) = queue.pop_front() {
            if view.hops.len() >= MOST_HOPS {
                view.outcome = format!("given up after {MOST_HOPS} switches: this is a loop");
                return Ok(view);
            }
            let (hop, trace) = self.explain(&arriving)?;
            view.outcome = format!("{}: {}", hop.switch, hop.outcome);
            view.hops.push(hop);
            let Some(frame) = trace.frame else { continue };
            for port in trace.ports {
                if let Some((switch, port)) = link(&arriving.switch, port) {
                    queue.push_back(Arriving { switch, port, frame: frame.clone() });
                } else if let Some(place) = self.behind(&arriving.switch, port) {
                    view.delivered = true;
                    view.outcome = format!("delivered to {place}");
                } else if let Some(outcome) = self.proxied_on(&arriving.switch, port, &frame) {
                    view.delivered = true;
                    view.outcome = outcome;
                } else if let Some((outcome, delivered)) = self.leaves_by(&arriving.switch, port, &frame) {
                    (view.outcome, view.delivered) = (outcome, delivered);
                } else if self.is_named_on(&arriving.switch, port) {
                    view.delivered = true;
                    view.outcome = format!("delivered to the name server of {}", arriving.switch);
                }
            }
        }
        Ok(view)
    }

    fn behind(&self, switch: &str, port: PortId) -> Option<Place> {
        let at = |p: &&Arc<super::Placed>| p.owns(switch, port);
        self.all_placed().iter().find(at).map(|p| p.endpoint.place.clone())
    }

    /// Asks a switch for its reasons. Where the frame would wait for a neighbour, that neighbour is asked for, as the
    /// frame itself would do, and the question is put again.
    fn explain(&self, arriving: &Arriving) -> Result<(TraceHop, Trace), RuntimeError> {
        let (mut hop, mut trace) = self.explain_once(arriving)?;
        for _ in 0..RESOLUTION_TRIES {
            let Some((segment, neighbor)) = trace.waits_for else { break };
            let now = self.now();
            self.with_switch(&arriving.switch, move |switch: &mut Switch| {
                switch.ask_for(now, segment, neighbor)
            })?;
            std::thread::sleep(RESOLUTION_STEP);
            (hop, trace) = self.explain_once(arriving)?;
        }
        Ok((hop, trace))
    }

    fn explain_once(&self, arriving: &Arriving) -> Result<(TraceHop, Trace), RuntimeError> {
        let (port, frame, now) = (arriving.port, arriving.frame.clone(), self.now());
        let asked = self.with_switch(&arriving.switch, move |switch: &mut Switch| {
            let name = switch.snapshot().port(port).map_or_else(|| port.to_string(), |p| p.name().to_owned());
            (name, switch.explain(now, port, &frame))
        })?;
        let (port, trace) = asked.unwrap_or_default();
        let steps =
            trace.steps.iter().map(|s| (format!("{:?}", s.stage).to_lowercase(), s.text.clone())).collect();
        let hop = TraceHop { switch: arriving.switch.clone(), port, steps, outcome: trace.outcome.clone() };
        Ok((hop, trace))
    }

    /// The packet as the sender's own stack would put it on its link: to a station of its segment directly, else to the
    /// gateway.
    fn first_frame(&self, from: &Place, packet: &PacketSpec) -> Result<Arriving, RuntimeError> {
        let placed = self.placed(from)?;
        let attachment = placed.endpoint.attachment.clone();
        let (port, destination) = (attachment.port, packet.destination);
        let on_link = placed
            .endpoint
            .addresses
            .iter()
            .any(|n| n.contains(&destination) && n.prefix_len() < n.max_prefix_len());
        let now = self.now();
        let next = self.with_switch(&attachment.switch, move |switch: &mut Switch| -> Option<MacAddr> {
            let snapshot = switch.snapshot();
            let segment = snapshot.segment(snapshot.port(port)?.segment_of(None)?)?;
            let gateway = segment.gateway()?.mac;
            if !on_link {
                return Some(gateway);
            }
            let station = segment.station_by_address(destination).map(|s| s.mac);
            let learned = switch.neighbors().iter(now).find(|e| e.ip == destination).and_then(|e| e.mac);
            Some(station.or(learned).unwrap_or(gateway))
        })?;
        let addresses: Vec<_> = placed.endpoint.addresses.iter().map(netstack::addr::IpNet::addr).collect();
        let frame = next
            .flatten()
            .and_then(|mac| packet.frame(placed.endpoint.mac, mac, &addresses))
            .ok_or_else(|| RuntimeError::NoAddress(from.clone()))?;
        Ok(Arriving { switch: attachment.switch, port, frame })
    }
}
