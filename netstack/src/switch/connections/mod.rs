//! The connections of both families, the fragments whose first one has not come, and what is asked of them.
//!
//! # Theory of operation
//! A packet is *tracked* once, before anything is decided about it: that is the only time its connection takes note of it.
//! What it is then to the connections there are goes along with it as [`Tracked`]. When its way is known, its [`Passage`]
//! is worked out, which changes nothing: how it leaves, or which connection it would open. Only what does leave is
//! *finished*: the connection begins, and the octets change.

mod expect;
mod family;
mod fragments;
mod packet;
mod policy;
mod reason;
mod service;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use lb::{Balancer, Refusal};
use nat::connection::{Connection, ConnectionId};
use nat::fragment::Part;
use nat::packet::{Content, Packet};
use nat::ticks::Ticks;
use nat::translate::identification::{self, Identifications};
use nat::translate::{ChecksumState, Rewrite};
use nat::tuple::Direction;
use nat::{Nat, Renewal};

use self::family::{Family, found};
use self::packet::Opening;
pub(super) use self::packet::{Denial, Going, Held, Kind, Passage, Seen, Tracked, What};
use self::policy::Finding;
pub(super) use self::policy::Policing;
pub use self::policy::PolicyCounters;
use self::reason::{refusal_named, refusal_reason};
pub(super) use self::service::{Balancing, Judged, mark};
use self::service::{Orphan, Standing, orphan, renew};
use super::explain;
use super::flows::Through;
use crate::addr::SegmentId;
use crate::config::nat::OnRefusal;
use crate::config::{Limits, Segment, Services, Translator, translator};
use crate::flow::{Change, Translation};
use crate::frame::Frame;
use crate::parse::{self, Network};
use crate::policy::Policies;
use crate::verdict::DropReason;

/// Counters of identifications that IPv4 packets are given.
const IDENTIFICATIONS: usize = 2048;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connections {
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
    identifications: Identifications,
    balancing: Balancing,
    policing: Policing,
    /// What the pools and rules were made from.
    translator: Option<Arc<Translator>>,
    /// Fragments whose first one has gone on just now.
    released: Vec<(Held, Tracked)>,
    /// Fragments that go no further.
    lost: Vec<(Held, DropReason)>,
}

impl Connections {
    /// Takes the memory for all that it may ever hold.
    pub(super) fn new(limits: &Limits, translator: &Translator, seed: u64) -> Self {
        Self {
            v4: Family::new(limits, translator, seed),
            v6: Family::new(limits, translator, seed ^ 1),
            identifications: Identifications::new(IDENTIFICATIONS, seed ^ 2),
            balancing: Balancing::new(limits.affinities, seed ^ 3),
            policing: Policing::default(),
            translator: None,
            released: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Takes up another configuration. Connections stay, but for those of external addresses that are no more.
    pub(super) fn configure(
        &mut self,
        translator: &Arc<Translator>,
        services: Option<&Arc<Services>>,
        policies: Option<&Arc<Policies>>,
        now: Duration,
    ) {
        self.balancing.configure(services);
        self.policing.configure(policies);
        if self.translator.as_ref().is_some_and(|before| Arc::ptr_eq(before, translator)) {
            return;
        }
        self.translator = Some(Arc::clone(translator));
        self.v4.configure(translator, now);
        self.v6.configure(translator, now);
        self.v4.nat.set_rules(translator.v4().clone());
        self.v6.nat.set_rules(translator.v6().clone());
    }

    pub(super) fn balancing(&self) -> &Balancing {
        &self.balancing
    }

    /// The policies in use.
    pub(super) fn policing(&self) -> &Policing {
        &self.policing
    }

    /// The same, to count what they stop.
    pub(super) fn policing_mut(&mut self) -> &mut Policing {
        &mut self.policing
    }

    /// What chooses backends, if services were ever configured.
    pub(super) fn balancer(&self) -> Option<&Balancer> {
        self.balancing.balancer()
    }

    /// Connections that services gave a backend.
    pub(super) fn balanced(&self) -> u64 {
        self.balancing.balanced()
    }

    /// Fragments that wait for the first of their datagram.
    pub(super) fn held(&self) -> usize {
        self.v4.fragments.parked() + self.v6.fragments.parked()
    }

    /// What the sender of a refused packet is told.
    pub(super) fn on_refusal(&self) -> OnRefusal {
        self.v4.nat.on_refusal()
    }

    /// A connection in words.
    pub(super) fn describe<A: Kind>(&self, now: Duration, id: ConnectionId) -> String {
        match A::of(self).nat.get(id) {
            Some(connection) => format!(
                "{} ({} s {})",
                explain::tuple(&connection.tuple(Direction::Original)),
                connection.remaining(now).as_secs(),
                connection.state
            ),
            None => String::new(),
        }
    }

    pub(super) fn nats(&self) -> (&Nat<Ipv4Addr>, &Nat<Ipv6Addr>) {
        (&self.v4.nat, &self.v6.nat)
    }

    pub(super) fn expire(&mut self, now: Duration) {
        self.v4.expire(now, &mut self.lost);
        self.v6.expire(now, &mut self.lost);
    }

    /// When [`Self::expire`] has something to do next, seen from `now`.
    pub(super) fn next_timeout(&self, now: Duration) -> Option<Duration> {
        self.v4.next_timeout(now).into_iter().chain(self.v6.next_timeout(now)).min()
    }

    /// A connection, unless it has ended.
    pub(super) fn get<A: Kind>(&self, id: ConnectionId) -> Option<&Connection<A>> {
        A::of(self).nat.get(id)
    }

    /// How the next packets of a connection go through.
    pub(super) fn through<A: Kind>(
        &self,
        (id, direction, rewrite): (ConnectionId, Direction, Option<Rewrite<A>>),
    ) -> Through<A> {
        Through::of(id, direction, rewrite, A::of(self).nat.renewal(id, direction))
    }

    /// Has a connection take note of a packet of TCP or UDP that goes through it. False, and nothing noted, if
    /// [`Self::track`] is to be asked.
    #[inline]
    pub(super) fn follow<A: Kind>(
        &mut self,
        now: (Duration, Ticks),
        (id, direction): (ConnectionId, Direction),
        renewal: Renewal,
        upper: &[u8],
    ) -> bool {
        let (family, balancing) = A::parts(self);
        let judged = |connection: &_| direction == Direction::Reply || balancing.is_current(connection);
        family.nat.follow(now, id, direction, renewal, upper, judged)
    }

    /// Says what a packet is, and has its connection take note of it. A connection whose backend is gone may end by it.
    pub(super) fn track<A: Kind>(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: &Segment,
    ) -> Result<What<A>, DropReason> {
        let (family, balancing) = A::parts(self);
        let tracked = family.nat.track(now, 0, packet, frame.bytes(), trust(frame));
        let stands = standing(balancing, &family.nat, &tracked, ingress);
        if let Some((id, Standing::Renewed(version))) = stands
            && let Some(connection) = family.nat.get_mut(id)
        {
            renew(connection, version);
        }
        let orphaned = orphaned(&family.nat, stands, now, packet, frame);
        if let (Some((id, _)), Orphan::Moves(_) | Orphan::Reset) = (stands, &orphaned) {
            family.nat.remove(id, now);
        }
        let what = known(family, balancing, now, (tracked, orphaned), ingress)?;
        Ok(self.police(what))
    }

    /// What a packet is after all that policies say, and takes note of that.
    fn police<A: Kind>(&mut self, what: What<A>) -> What<A> {
        let number = self.policing.number();
        let let_through = match self.policing.find(&A::of(self).nat, &what) {
            Finding::Free => None,
            Finding::Renewed(id) => Some(id),
            Finding::Forbidden(judgement, id) if self.policing.audits() => {
                self.policing.count_audited(&judgement);
                id
            }
            Finding::Forbidden(judgement, _) => return policy::forbidden(judgement),
        };
        if let Some(connection) = let_through.and_then(|id| A::of_mut(self).nat.get_mut(id)) {
            policy::renew(connection, number);
        }
        let_through_under(what, number)
    }

    /// Whether there is a translated connection that a packet belongs to.
    pub(super) fn translates<A: Kind>(&self, now: Duration, packet: &Packet) -> bool {
        A::of(self).nat.translates(now, 0, packet)
    }

    /// What [`Self::track`] says, without taking note.
    pub(super) fn look<A: Kind>(
        &self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        ingress: &Segment,
    ) -> Result<What<A>, DropReason> {
        let family = A::of(self);
        let part = Part::<A>::of(frame.bytes(), packet, ingress.id().0).filter(|part| !part.is_first());
        if let Some(part) = part {
            return Ok(family.fragments.peek(&part.key, now).map_or(What::Waits, What::Later));
        }
        let tracked = family.nat.look(now, 0, packet, frame.bytes(), trust(frame));
        let stands = standing(&self.balancing, &family.nat, &tracked, ingress);
        let orphaned = orphaned(&family.nat, stands, now, packet, frame);
        let what = known(family, &self.balancing, now, (tracked, orphaned), ingress)?;
        Ok(match self.policing.find(&family.nat, &what) {
            Finding::Forbidden(judgement, _) if !self.policing.audits() => policy::forbidden(judgement),
            Finding::Free | Finding::Renewed(_) | Finding::Forbidden(..) => {
                let_through_under(what, self.policing.number())
            }
        })
    }

    /// How a packet leaves for `egress`: puts it into `passage` if that is not as it came.
    pub(super) fn passage(
        &self,
        now: Duration,
        tracked: &Tracked,
        ingress: SegmentId,
        egress: SegmentId,
        passage: &mut Passage,
    ) -> Result<(), DropReason> {
        let way = translator::way(ingress, Some(egress));
        match tracked {
            Tracked::Not => Ok(()),
            Tracked::V4(seen) => self.v4.passage(now, &seen.what, way, passage),
            Tracked::V6(seen) => self.v6.passage(now, &seen.what, way, passage),
        }
    }

    /// Counts a connection that was refused, if it was one that a frame was dropped for; says whether.
    pub(super) fn count_refusal(&mut self, tracked: &Tracked, reason: DropReason) -> bool {
        let Some(refusal) = refusal_named(reason) else { return false };
        match tracked {
            Tracked::Not => return false,
            Tracked::V4(_) => self.v4.nat.count_refusal(refusal),
            Tracked::V6(_) => self.v6.nat.count_refusal(refusal),
        }
        true
    }

    /// Begins the connection of a packet that leaves, and says what is to be written into it.
    pub(super) fn begin(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        passage: &Passage,
    ) -> Result<Option<Translation>, DropReason> {
        match passage {
            Passage::Plain => Ok(None),
            Passage::V4(going) => self.begin_one(now, packet, frame, going),
            Passage::V6(going) => self.begin_one(now, packet, frame, going),
        }
    }

    fn begin_one<A: Kind>(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        going: &Going<A>,
    ) -> Result<Option<Translation>, DropReason> {
        let mut change = match going {
            Going::Translated(change) => Some(*change),
            Going::Opens(opening) => {
                let (family, balancing) = A::parts(self);
                family.nat.commit(now, &opening.prepared).map_err(refusal_reason)?;
                balancing.begun(now, opening);
                opening.prepared.rewrite().map(Change::of)
            }
        };
        if let Some(change) = &mut change {
            change.identification = change.identification.or_else(|| self.identify(packet, frame, change));
        }
        Ok(change.map(A::translation))
    }

    /// Another identification for an IPv4 packet that shares its new source with others (RFC 6864 section 5.3.1).
    fn identify<A: Kind>(&mut self, packet: &Packet, frame: &Frame, change: &Change<A>) -> Option<u16> {
        let source = change.rewrite.source().address.into();
        let IpAddr::V4(address) = source else { return None };
        let IpAddr::V4(destination) = change.rewrite.destination().address.into() else { return None };
        if source == packet.layout.source || identification::is_atomic(frame.bytes(), packet) {
            return None;
        }
        let upper = packet.layout.end.saturating_sub(packet.layout.upper);
        let pieces = frame.offload.segmentation.map_or(1, |cut| upper.div_ceil(usize::from(cut.size.max(1))));
        let count = u16::try_from(pieces).unwrap_or(u16::MAX);
        Some(self.identifications.next(address, destination, packet.layout.protocol, count))
    }

    /// The passage of a packet that has waited: its connection may have been begun by another that waited with it, or have
    /// ended. None if it goes elsewhere than was decided when it came.
    pub(super) fn resume(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        passage: &Passage,
    ) -> Result<Option<Passage>, DropReason> {
        match passage {
            Passage::Plain => Ok(Some(Passage::Plain)),
            Passage::V4(going) => self.resume_one(now, packet, frame, going),
            Passage::V6(going) => self.resume_one(now, packet, frame, going),
        }
    }

    fn resume_one<A: Kind>(
        &mut self,
        now: Duration,
        packet: &Packet,
        frame: &Frame,
        going: &Going<A>,
    ) -> Result<Option<Passage>, DropReason> {
        let family = A::of_mut(self);
        let (state, bytes) = (trust(frame), frame.bytes());
        match going {
            Going::Opens(opening) => {
                let tracked = family.nat.track(now, 0, packet, bytes, state);
                // Where it goes was decided when it came.
                let &Opening { towards, judged, way, prepared } = opening;
                let what = found(tracked, |new| What::Opens { new, towards, judged })?;
                if let What::Known { rewrite, .. } = what {
                    let asked = prepared.tuple().destination;
                    // Another that came later may have begun the connection, with another backend.
                    if rewrite.map_or(asked, |rewrite| rewrite.destination())
                        != towards.destination.unwrap_or(asked)
                    {
                        return Ok(None);
                    }
                }
                let mut passage = Passage::Plain;
                family.passage(now, &what, way, &mut passage).map(|()| Some(passage))
            }
            // What later fragments are told holds as long as it is remembered.
            Going::Translated(_) if packet.content == Content::Rest => Ok(Some(A::passage(*going))),
            Going::Translated(change) => match family.nat.look(now, 0, packet, bytes, state) {
                nat::Tracked::Known { rewrite: Some(rewrite), .. }
                | nat::Tracked::Related { rewrite: Some(rewrite), .. } => {
                    Ok(Some(A::passage(Going::Translated(Change { rewrite, ..*change }))))
                }
                nat::Tracked::Known { rewrite: None, .. }
                | nat::Tracked::Related { rewrite: None, .. }
                | nat::Tracked::New(_)
                | nat::Tracked::Invalid(_)
                | nat::Tracked::Untracked => Err(DropReason::ConnectionInvalid),
            },
        }
    }

    /// Forgets everything; fragments that wait are lost.
    pub(super) fn close(&mut self) {
        self.v4.close(&mut self.lost);
        self.v6.close(&mut self.lost);
    }
}

/// The connection that a packet of its opener belongs to, and how that stands to services.
#[inline]
fn standing<A: Kind>(
    balancing: &Balancing,
    nat: &Nat<A>,
    tracked: &nat::Tracked<A>,
    ingress: &Segment,
) -> Option<(ConnectionId, Standing)> {
    let nat::Tracked::Known { id, direction: Direction::Original, .. } = *tracked else { return None };
    Some((id, balancing.standing(nat.get(id)?, ingress)))
}

/// What becomes of that connection if its backend is gone.
fn orphaned<A: Kind>(
    nat: &Nat<A>,
    stands: Option<(ConnectionId, Standing)>,
    now: Duration,
    packet: &Packet,
    frame: &Frame,
) -> Orphan<A> {
    let Some((id, Standing::Gone { reset })) = stands else { return Orphan::Stays };
    let Some(connection) = nat.get(id) else { return Orphan::Stays };
    orphan(connection, reset, || nat.reopening(now, 0, packet, frame.bytes(), trust(frame)))
}

/// A packet whose connection remembers under which policies it was let through, if it is about to begin.
fn let_through_under<A>(what: What<A>, number: u32) -> What<A> {
    match what {
        What::Opens { new, towards, judged } => What::Opens { new, towards, judged: judged.under(number) },
        What::Known { .. }
        | What::Related { .. }
        | What::Denied(_)
        | What::Later(_)
        | What::Waits
        | What::Untracked => what,
    }
}

/// What a packet is, after all that services say.
fn known<A: Kind>(
    family: &Family<A>,
    balancing: &Balancing,
    now: Duration,
    (tracked, orphaned): (nat::Tracked<A>, Orphan<A>),
    ingress: &Segment,
) -> Result<What<A>, DropReason> {
    let way = translator::way(ingress.id(), None);
    match orphaned {
        Orphan::Stays => found(tracked, |new| balancing.opens(now, &family.nat, new, ingress, way)),
        Orphan::Moves(new) => Ok(balancing.opens(now, &family.nat, new, ingress, way)),
        Orphan::Reset => {
            let (reason, how) = (DropReason::ServiceBackendGone, Refusal::Reject);
            Ok(What::Denied(Denial { reason, how, mark: None, judgement: None }))
        }
    }
}

/// The packet in a frame that was let in before.
pub(super) fn read(frame: &Frame) -> Option<Packet> {
    let link = parse::link(frame.bytes()).ok()?;
    match parse::network(frame.bytes(), &link).ok()? {
        Network::Ip(ip) => ip.layout().read(frame.bytes()).ok(),
        Network::Arp(_) | Network::Other => None,
    }
}

/// What is not to be judged of a frame's checksum: what its device has judged, or has yet to make.
fn trust(frame: &Frame) -> ChecksumState {
    if frame.offload.is_trusted() { ChecksumState::Partial } else { ChecksumState::Complete }
}
