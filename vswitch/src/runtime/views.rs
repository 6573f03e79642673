//! Tables of a running cluster, as plain data.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netstack::addr::{PortId, SegmentId};
use netstack::config::{Snapshot, Station, Target, VlanMode};
use netstack::driver::{Driver, DriverEvent, EngineId};
use netstack::event::Event;
use netstack::switch::Switch;
use netstack::verdict::{DropReason, EgressDrop};

use super::paths::EngineAt;
use super::{EVENTS, Runtime, RuntimeError};
use crate::control::api::{DropView, FdbView, NeighborView, PlaceView, PortView, RouteView};

impl Runtime {
    /// Asks every switch in turn and puts the answers into one list.
    pub(super) fn each_switch<T: Send + 'static>(
        &self,
        ask: impl Fn(&str, &mut Switch, Duration) -> Vec<T> + Send + Clone + 'static,
    ) -> Result<Vec<T>, RuntimeError> {
        let mut all = Vec::new();
        for name in self.switches().keys() {
            let (ask, name_there, now) = (ask.clone(), name.clone(), self.now());
            all.extend(
                self.with_switch(name, move |switch| ask(&name_there, switch, now))?.unwrap_or_default(),
            );
        }
        Ok(all)
    }

    /// Everyone with an address.
    pub fn places(&self) -> Vec<PlaceView> {
        self.all_placed()
            .iter()
            .map(|p| PlaceView {
                place: p.endpoint.place.to_string(),
                addresses: p.endpoint.addresses.iter().map(netstack::addr::IpNet::addr).collect(),
                netns: p.namespace.as_ref().map(|n| n.name.clone()),
                pause_pid: p.namespace.as_ref().map(|n| n.pause_pid),
                netns_inode: p.namespace.as_ref().map(|n| n.netns_inode),
                switch: p.endpoint.attachment.switch.clone(),
            })
            .collect()
    }

    /// Every port of every switch.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub fn ports(&self) -> Result<Vec<PortView>, RuntimeError> {
        let mut ports = self.each_switch(|name, switch, _| {
            let snapshot = switch.snapshot().clone();
            snapshot.ports().map(|p| port_view(name, &snapshot, switch, p.id())).collect()
        })?;
        let (log, switches) = (self.log.lock(), self.switches());
        for port in &mut ports {
            port.thread = switches.get(&port.switch).map_or(0, |at| at.thread);
            if log.gone.contains(&(port.switch.clone(), PortId(port.id))) {
                port.state = "gone".to_owned();
            }
        }
        Ok(ports)
    }

    /// How many switches each thread of the data path has.
    pub(crate) fn thread_loads(&self) -> Vec<u64> {
        let mut loads = vec![0; self.paths.count()];
        self.switches().values().for_each(|at| loads[at.thread] += 1);
        loads
    }

    /// Every MAC address that a switch knows.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub fn fdb(&self) -> Result<Vec<FdbView>, RuntimeError> {
        self.each_switch(|name, switch, now| {
            let snapshot = switch.snapshot();
            let mut rows = Vec::new();
            for segment in snapshot.segments() {
                let row = |mac: String, port: String, kind: &str, age: Option<f64>| FdbView {
                    switch: name.to_owned(),
                    segment: segment.name().to_owned(),
                    mac,
                    port,
                    kind: kind.to_owned(),
                    age_seconds: age,
                };
                if let Some(gateway) = segment.gateway() {
                    rows.push(row(gateway.mac.to_string(), "-".to_owned(), "self", None));
                }
                for &port in segment.members() {
                    if let Some(Station::Managed { mac, .. }) = snapshot.port(port).map(|p| p.station()) {
                        rows.push(row(mac.to_string(), port_name(snapshot, port), "static", None));
                    }
                }
                for entry in switch.fdb().iter(now).filter(|e| e.segment == segment.id()) {
                    let age = Some(entry.age.as_secs_f64());
                    rows.push(row(entry.mac.to_string(), port_name(snapshot, entry.port), "learned", age));
                }
            }
            rows
        })
    }

    /// Every neighbour that a switch knows.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub fn neighbors(&self) -> Result<Vec<NeighborView>, RuntimeError> {
        self.each_switch(|name, switch, now| {
            let snapshot = switch.snapshot();
            let row = |segment: SegmentId, address: IpAddr, mac: Option<String>, state: &str| NeighborView {
                switch: name.to_owned(),
                segment: snapshot
                    .segment(segment)
                    .map_or_else(|| segment.to_string(), |s| s.name().to_owned()),
                address,
                mac,
                state: state.to_owned(),
            };
            let mut rows: Vec<NeighborView> = Vec::new();
            for segment in snapshot.segments() {
                let stations = segment.stations();
                rows.extend(
                    stations.map(|(a, s)| row(segment.id(), a, Some(s.mac.to_string()), "permanent")),
                );
            }
            let learned = switch.neighbors().iter(now);
            rows.extend(learned.map(|e| row(e.segment, e.ip, e.mac.map(|m| m.to_string()), e.state.name())));
            rows.sort_by(|a, b| (&a.segment, a.address).cmp(&(&b.segment, b.address)));
            rows
        })
    }

    /// Every route.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub fn routes(&self) -> Result<Vec<RouteView>, RuntimeError> {
        self.each_switch(|name, switch, _| {
            let snapshot = switch.snapshot();
            let mut rows: Vec<RouteView> = snapshot
                .router()
                .routes()
                .map(|(prefix, target)| RouteView {
                    switch: name.to_owned(),
                    prefix: prefix.to_string(),
                    target: snapshot.describe(target),
                    kind: match target {
                        Target::Connected(_) => "connected",
                        Target::Configured(_) => "static",
                    }
                    .to_owned(),
                })
                .collect();
            for segment in snapshot.segments() {
                for net in segment.gateway().iter().flat_map(|g| &g.addresses) {
                    rows.push(RouteView {
                        switch: name.to_owned(),
                        prefix: net.addr().to_string(),
                        target: format!("this switch on {}", segment.name()),
                        kind: "local".to_owned(),
                    });
                }
            }
            rows
        })
    }

    /// Every reason for which a port dropped something.
    ///
    /// # Errors
    /// When the data path has stopped.
    pub fn drops(&self) -> Result<Vec<DropView>, RuntimeError> {
        let mut rows = self.each_switch(|name, switch, _| {
            let snapshot = switch.snapshot().clone();
            snapshot
                .ports()
                .flat_map(|port| {
                    let drops =
                        switch.port_counters(port.id()).map(netstack::counters::Counters::drops_by_name);
                    let (switch, port) = (name.to_owned(), port.name().to_owned());
                    drops.into_iter().flatten().map(move |(reason, count)| DropView {
                        switch: switch.clone(),
                        port: port.clone(),
                        reason: reason.to_owned(),
                        count,
                        description: describe(reason),
                    })
                })
                .collect()
        })?;
        rows.extend(self.refused()?);
        Ok(rows)
    }

    /// Frames that devices refused because their own queue was full.
    fn refused(&self) -> Result<Vec<DropView>, RuntimeError> {
        let mut rows = Vec::new();
        for (name, EngineAt { thread, id }) in self.switches() {
            rows.extend(self.paths.ask(thread, move |driver| refused_by(driver, &name, id))?);
        }
        Ok(rows)
    }

    /// Whether every frame is accounted for on every switch.
    ///
    /// # Errors
    /// When the data path has stopped. The inner text says what does not add up.
    pub fn check(&self) -> Result<Vec<String>, RuntimeError> {
        self.each_switch(|name, switch, _| {
            switch.check().err().map(|e| format!("{name}: {e}")).into_iter().collect()
        })
    }
}

/// Frames that the devices of one switch refused.
fn refused_by(driver: &mut Driver, name: &str, id: EngineId) -> Vec<DropView> {
    let Some(snapshot) = driver.engine_mut::<Switch>(id).map(|s| s.snapshot().clone()) else {
        return Vec::new();
    };
    let row = |(port, count): (String, u64)| DropView {
        switch: name.to_owned(),
        port,
        reason: "device_refused".to_owned(),
        count,
        description: "The device's own queue was full, or its other end was down.".to_owned(),
    };
    let counts = snapshot.ports().map(|port| {
        let count = driver.device_counters(id, port.id()).map_or(0, |c| c.tx_refused);
        (port.name().to_owned(), count)
    });
    counts.filter(|(_, count)| *count > 0).map(row).collect()
}

fn port_name(snapshot: &Snapshot, port: PortId) -> String {
    snapshot.port(port).map_or_else(|| port.to_string(), |p| p.name().to_owned())
}

fn port_view(switch_name: &str, snapshot: &Snapshot, switch: &Switch, id: PortId) -> PortView {
    let config = snapshot.config().ports.iter().find(|p| p.id == id);
    let segments: Vec<SegmentId> = match config.map(|c| &c.vlan) {
        Some(VlanMode::Access(segment)) => vec![*segment],
        Some(VlanMode::Trunk { native, tagged }) => {
            native.iter().copied().chain(tagged.iter().map(|&(_, segment)| segment)).collect()
        }
        None => Vec::new(),
    };
    let (station, mac, addresses) = match config.map(|c| &c.station) {
        Some(Station::Managed { mac, addresses }) => ("managed", Some(mac.to_string()), addresses.clone()),
        Some(Station::Foreign) | None => ("foreign", None, Vec::new()),
    };
    let features = config.map(|c| c.offload).unwrap_or_default();
    let offload = [
        ("csum", features.checksum),
        ("tso4", features.tso4),
        ("tso6", features.tso6),
        ("uso", features.uso),
    ];
    let counters = switch.port_counters(id).cloned().unwrap_or_default();
    PortView {
        switch: switch_name.to_owned(),
        thread: 0,
        port: port_name(snapshot, id),
        id: id.0,
        segments: segments
            .iter()
            .map(|&s| snapshot.segment(s).map_or_else(|| s.to_string(), |s| s.name().to_owned()))
            .collect(),
        station: station.to_owned(),
        mac,
        addresses,
        offload: offload.iter().filter(|(_, on)| *on).map(|(name, _)| (*name).to_owned()).collect(),
        state: switch.blocked_until(id).map_or_else(
            || "up".to_owned(),
            |until| format!("blocked: loop until {:.3}", until.as_secs_f64()),
        ),
        rx_frames: counters.rx_frames,
        rx_bytes: counters.rx_bytes,
        tx_frames: counters.tx_frames,
        tx_bytes: counters.tx_bytes,
        drops: counters.drops_by_name().iter().map(|(_, count)| count).sum(),
        storm_drops: counters.dropped(DropReason::StormControl),
    }
}

fn describe(reason: &str) -> String {
    let entry = DropReason::ALL.iter().find(|r| r.name() == reason).map(|r| r.describe());
    let egress = EgressDrop::ALL
        .iter()
        .find(|r| reason.strip_prefix("egress_") == Some(r.name()))
        .map(|r| r.describe());
    entry.or(egress).unwrap_or_default().trim().to_owned()
}

/// An event, and what a switch says with it.
pub(super) type News = (DriverEvent, Option<String>);

/// What a thread of the data path has to tell, with the names that ports have now.
pub(super) fn news(driver: &mut Driver) -> Vec<News> {
    let polled: Vec<_> = std::iter::from_fn(|| driver.poll_event()).take(EVENTS).collect();
    polled.into_iter().map(|event| (event, told_by_switch(driver, &event))).collect()
}

fn told_by_switch(driver: &mut Driver, event: &DriverEvent) -> Option<String> {
    let DriverEvent::Engine { engine, event } = event else { return None };
    let switch: &mut Switch = driver.engine_mut(*engine)?;
    event_text(event, switch.snapshot())
}

/// A switch's event in a sentence; none for those that only confirm what was just done.
fn event_text(event: &Event, snapshot: &Snapshot) -> Option<String> {
    let name = |&port: &PortId| port_name(snapshot, port);
    Some(match event {
        Event::MacMoved { mac, from, to, .. } => format!("{mac} moved from {} to {}", name(from), name(to)),
        Event::MacMovesUntold { count } => format!("{count} more MAC addresses moved"),
        Event::Storm { port } => {
            format!("storm control drops what comes in too fast by {}", name(port))
        }
        Event::LoopDetected { port, other, blocked_for, .. } => {
            let (port, other, seconds) = (name(port), name(other), blocked_for.as_secs());
            format!("{port} and {other} are one loop: {port} is blocked for {seconds} s")
        }
        Event::LoopCleared { port } => format!("{} is open again", name(port)),
        Event::AddressConflict { address, mac, port, .. } => {
            format!("{mac} behind {} claims {address}, which is in use here", name(port))
        }
        Event::DuplicateAddress { address, mac, port, .. } => {
            format!("{address} is taken by {mac} behind {}: it stays unused here", name(port))
        }
        Event::AddressReady { address, .. } => format!("{address} is free and in use from here on"),
        Event::FdbFull { port } => {
            format!("the MAC table has no room for more addresses behind {}", name(port))
        }
        Event::NeighborChanged { address, mac, .. } => format!("{address} has moved to {mac}"),
        Event::NeighborFailed { address, .. } => format!("{address} does not answer"),
        Event::NeighborTableFull { .. } => "the neighbour table is full".to_owned(),
        Event::ConnectionRefused { reason, source } => {
            format!("{source} wants more connections than there may be ({reason})")
        }
        Event::ServiceRefused { reason, source, destination, port } => {
            let at = match port {
                0 => destination.to_string(),
                port => SocketAddr::new(*destination, *port).to_string(),
            };
            format!("{source} asks {at} in vain ({reason})")
        }
        Event::Installed { .. } => return None,
        _ => return None,
    })
}
