//! The switch's own addresses: probed, announced, defended, spoken with; and the router's advertisements.

use core::net::IpAddr;
use core::time::Duration;

use super::Switch;
use super::admit::Arrival;
use super::discovery;
use super::slow::Conflict;
use crate::addr::{MacAddr, PortId, SegmentId};
use crate::config::{Gateway, RouterAdvertisement, Segment, Snapshot};
use crate::emit;
use crate::event::Event;
use crate::neighbor::{ClaimAction, Standing};
use crate::verdict::Origin;

impl Switch {
    /// Takes up what a new configuration says about own addresses and advertisements. There is no time in this: what is
    /// to happen by and by begins when time is told next.
    pub(super) fn configure_own(&mut self, old: &Snapshot, new: &Snapshot) {
        self.end_advertisements(old, new);
        self.configure_claims(old, new);
        for segment in new.segments() {
            if let Some((_, advertisement)) = advertising(new, segment.id())
                && !advertises_alike(old, new, segment)
            {
                self.advertiser.begin(segment.id(), advertisement.min_interval, advertisement.max_interval);
            }
            self.announce_moved(old, new, segment);
        }
    }

    /// Addresses that were in use stay so; those of the same interface that were being probed or announced, or are lost, as
    /// well. One that an interface gets in addition is announced.
    fn configure_claims(&mut self, old: &Snapshot, new: &Snapshot) {
        let holder = |snapshot: &Snapshot, segment: SegmentId, address: IpAddr| -> Option<(MacAddr, bool)> {
            let gateway = snapshot.segment(segment)?.gateway()?;
            gateway.has(address).then_some((gateway.mac, gateway.probe))
        };
        self.claims.retain(|segment, address| {
            let now = holder(new, segment, address);
            now.is_some() && now == holder(old, segment, address)
        });
        for segment in new.segments() {
            let Some(gateway) = segment.gateway() else { continue };
            let before = old.segment(segment.id()).and_then(Segment::gateway);
            let before = before.filter(|before| before.mac == gateway.mac);
            for address in gateway.own().filter(|&address| before.is_none_or(|g| !g.has(address))) {
                if gateway.probe {
                    self.claims.begin(segment.id(), address);
                } else if before.is_some() {
                    self.claims.take_over(segment.id(), address);
                }
            }
        }
    }

    /// Where a router ceases to advertise itself, it says so (RFC 4861 section 6.2.5).
    fn end_advertisements(&mut self, old: &Snapshot, new: &Snapshot) {
        for segment in old.segments() {
            let Some((gateway, advertisement)) = advertising(old, segment.id()) else { continue };
            if advertising(new, segment.id()).is_some_and(|(g, _)| g.mac == gateway.mac) {
                continue;
            }
            // From an address that was lost, nothing has been told.
            let from = IpAddr::V6(gateway.link_local);
            if self.advertiser.end(segment.id())
                && self.is_usable(segment.id(), from)
                && let Some(kept) = new.segment(segment.id())
            {
                self.advertise(new, kept, gateway.mac, advertisement, true);
            }
        }
    }

    /// A managed station's address that has left a segment and is answered for by proxy from here on, or has come back:
    /// the stations of the segment know it by another MAC address, and are told.
    fn announce_moved(&mut self, old: &Snapshot, new: &Snapshot, segment: &Segment) {
        let (Some(gateway), Some(before)) = (segment.gateway(), old.segment(segment.id())) else { return };
        if !segment.proxies() || core::ptr::eq(before, segment) {
            return;
        }
        for (address, _) in before.stations() {
            if segment.station_by_address(address).is_none()
                && discovery::is_proxied(new, segment, address, None)
            {
                self.announce_to(new, segment, segment.members(), (address, gateway.mac), false);
            }
        }
        for (address, station) in segment.stations() {
            if before.station_by_address(address).is_none()
                && discovery::is_proxied(old, before, address, None)
            {
                self.announce_to(new, segment, segment.members(), (address, station.mac), false);
            }
        }
    }

    /// Probes, announces and advertises what is due.
    pub(super) fn own_timeouts(&mut self, snapshot: &Snapshot, now: Duration) {
        let mut actions = core::mem::take(&mut self.claim_actions);
        self.claims.handle_timeout(now, &mut |action| actions.push(action));
        for action in actions.drain(..) {
            self.act_on_claim(snapshot, now, action);
        }
        self.claim_actions = actions;
        let mut due = core::mem::take(&mut self.advertise_on);
        self.advertiser.handle_timeout(now, &mut |segment| due.push(segment));
        for id in due.drain(..) {
            let Some((gateway, advertisement)) = advertising(snapshot, id) else { continue };
            let from = IpAddr::V6(gateway.link_local);
            if let (Standing::Usable, Some(segment)) = (self.claims.standing(id, from), snapshot.segment(id))
            {
                self.advertise(snapshot, segment, gateway.mac, advertisement, false);
            }
        }
        self.advertise_on = due;
    }

    fn act_on_claim(&mut self, snapshot: &Snapshot, now: Duration, action: ClaimAction) {
        let (ClaimAction::Probe { segment: id, address }
        | ClaimAction::Announce { segment: id, address, .. }) = action;
        let Some(segment) = snapshot.segment(id) else { return };
        let Some(gateway) = segment.gateway() else { return };
        match action {
            ClaimAction::Probe { .. } => {
                let probe = emit::neighbor_probe(&mut self.pool, gateway.mac, address);
                self.copy_to(snapshot, segment, segment.foreign().iter().copied(), probe, Origin::Originated);
            }
            ClaimAction::Announce { first, .. } => {
                if first {
                    self.flows.forget();
                    self.event(Event::AddressReady { segment: id, address });
                }
                if first && address == IpAddr::V6(gateway.link_local) {
                    // What could not be advertised from it so far is now.
                    self.advertiser.solicited(now, id);
                }
                self.announce_to(snapshot, segment, segment.foreign(), (address, gateway.mac), true);
            }
        }
    }

    fn announce_to(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        ports: &[PortId],
        (address, mac): (IpAddr, MacAddr),
        router: bool,
    ) {
        let announcement = emit::neighbor_announcement(&mut self.pool, mac, address, router);
        self.copy_to(snapshot, segment, ports.iter().copied(), announcement, Origin::Originated);
    }

    /// Tells all nodes of a segment. On a purely routed segment, too, the ports are one link.
    fn advertise(
        &mut self,
        snapshot: &Snapshot,
        segment: &Segment,
        mac: MacAddr,
        advertisement: &RouterAdvertisement,
        final_: bool,
    ) {
        let mtu = u16::try_from(segment.mtu()).unwrap_or(u16::MAX);
        if let Some(frame) = emit::router_advertisement(&mut self.pool, mac, advertisement, mtu, final_) {
            self.copy_to(snapshot, segment, segment.members().iter().copied(), frame, Origin::Originated);
        }
    }

    /// A router solicitation was heard.
    pub(super) fn router_solicited(&mut self, now: Duration, segment: SegmentId) {
        self.advertiser.solicited(now, segment);
    }

    /// Someone else claims an address of ours: while it is being probed he has it, later he is told whose it is.
    pub(super) fn contest(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        arrival: &Arrival<'_>,
        conflict: &Conflict,
    ) {
        let (segment, address) = (arrival.segment, conflict.address);
        let (mac, port) = (arrival.link.source, arrival.port.id());
        let Some(owner) = conflict.owner else {
            if self.claims.lose(segment.id(), address) {
                self.flows.forget();
                self.event(Event::DuplicateAddress { segment: segment.id(), address, mac, port });
            }
            return;
        };
        if !self.defence.claimed(now, segment.id(), address) {
            return;
        }
        self.event(Event::AddressConflict { segment: segment.id(), address, mac, port });
        if conflict.announce {
            let router = segment.gateway().is_some_and(|g| g.mac == owner);
            self.announce_to(snapshot, segment, segment.foreign(), (address, owner), router);
        }
    }

    /// Whether an address is configured as the router's own, and if so whether it may be used. Link-local ones are those
    /// of `segment`.
    pub(super) fn own(
        &self,
        snapshot: &Snapshot,
        segment: &Segment,
        gateway: &Gateway,
        address: IpAddr,
    ) -> Option<Standing> {
        let on = match snapshot.router().own(address) {
            Some(on) => on,
            None if gateway.has(address) => segment.id(),
            None => return None,
        };
        Some(self.claims.standing(on, address))
    }

    /// The interface's address to speak with to a neighbour.
    pub(super) fn source_for(&self, segment: &Segment, gateway: &Gateway, peer: IpAddr) -> Option<IpAddr> {
        gateway.source_for(peer, |address| self.is_usable(segment.id(), address))
    }

    /// Any address of the router's in this family, for an interface without one.
    pub(super) fn any_source(&self, snapshot: &Snapshot, v4: bool) -> Option<IpAddr> {
        snapshot.router().any_own(v4, |segment, address| self.is_usable(segment, address))
    }

    fn is_usable(&self, segment: SegmentId, address: IpAddr) -> bool {
        self.claims.standing(segment, address) == Standing::Usable
    }
}

/// The interface that advertises itself on a segment, and what it says.
pub(super) fn advertising(
    snapshot: &Snapshot,
    segment: SegmentId,
) -> Option<(&Gateway, &RouterAdvertisement)> {
    let gateway = snapshot.segment(segment)?.gateway()?;
    Some((gateway, gateway.advertise.as_ref()?))
}

/// Whether the same is advertised on a segment as before.
fn advertises_alike(old: &Snapshot, new: &Snapshot, segment: &Segment) -> bool {
    let said = |snapshot: &Snapshot| {
        let (gateway, advertisement) = advertising(snapshot, segment.id())?;
        Some((gateway.mac, advertisement.clone(), snapshot.segment(segment.id())?.mtu()))
    };
    said(old) == said(new)
}
