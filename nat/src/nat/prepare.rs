//! How a new connection would leave: decided without a change to anything.

use core::time::Duration;

use super::Nat;
use super::track::New;
use crate::behaviour::{Filtering, Sharing};
use crate::connection::{Connection, ConnectionId, Status};
use crate::ports::{Choice, Draws, Keep, Lease, PortRange, Protocol, Refused, Request, walk};
use crate::rule::{DestinationAction, Match, Rule, SourceAction, Way, exchange, has_ports};
use crate::translate::Rewrite;
use crate::tuple::{Address, Endpoint, Tuple};

/// Ports that are tried for a connection whose answers would belong to another one.
const ATTEMPTS: u64 = 128;

/// Why a connection cannot begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// The table is full of connections that are worth more.
    Full,
    /// There is no external port for it.
    Ports(Refused),
    /// Packets of its other side would belong to another connection, and none of the ports tried changes that.
    Clash,
}

/// Where a new connection goes, as whoever balances load or a rule has chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Towards<A> {
    /// What its destination becomes; none if that stays.
    pub destination: Option<Endpoint<A>>,
    /// The pool that its source is to come from, whatever the rules say of sources; none to ask them. Who is behind an
    /// address of the pool itself is not shown that address as another's: towards such a destination the source stays.
    pub masquerade: Option<usize>,
}

impl<A> From<Option<Endpoint<A>>> for Towards<A> {
    /// A destination; the source is what the rules say.
    fn from(destination: Option<Endpoint<A>>) -> Self {
        Self { destination, masquerade: None }
    }
}

/// How a connection would begin.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<A> {
    pub(super) new: New<A>,
    pub(super) reply: Tuple<A>,
    pub(super) port: Port<A>,
    pub(super) marks: [u32; 3],
}

/// Where the external port comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Port<A> {
    /// None is needed.
    None,
    /// It is the source's own but for the number, which nobody has to hold: towards this destination it is free.
    Moved,
    /// It is that of a mapping, by one of its connections, for another connection from its inside.
    Mapped(ConnectionId),
    /// The same, for a connection from outside.
    Asked(ConnectionId),
    /// It is to be leased.
    Leased { pool: usize, choice: Choice<A>, shared: bool },
}

impl<A: Address> Prepared<A> {
    const fn new(new: New<A>, reply: Tuple<A>, port: Port<A>) -> Self {
        Self { new, reply, port, marks: [0; 3] }
    }

    /// The tuple of its first packet, as it came.
    pub const fn tuple(&self) -> &Tuple<A> {
        &self.new.tuple
    }

    /// The same with these [marks](Connection::marks).
    #[must_use]
    pub const fn marked(self, marks: [u32; 3]) -> Self {
        Self { marks, ..self }
    }

    /// How the first packet leaves; `None` if nothing is translated.
    pub fn rewrite(&self) -> Option<Rewrite<A>> {
        let leaves = self.reply.inverse();
        (leaves.source != self.new.tuple.source || leaves.destination != self.new.tuple.destination)
            .then(|| Rewrite::new(&self.new.tuple, &leaves))
    }
}

impl<A: Address> Nat<A> {
    /// Where a new connection goes instead, by a rule or by a mapping of the external address that it asks for; `None` if
    /// its destination stays.
    pub fn destination(&self, new: &New<A>, way: Way) -> Option<Endpoint<A>> {
        let tuple = &new.tuple;
        match self.rules.destination.iter().find(|rule| rule.decides(tuple, way)) {
            Some(rule) => to(rule, tuple),
            None => self.mapped(tuple, way),
        }
    }

    /// Who uses the external endpoint that a packet goes to, if the packet may.
    fn mapped(&self, tuple: &Tuple<A>, way: Way) -> Option<Endpoint<A>> {
        let mut siblings = self.table.siblings(self.owner(tuple)?);
        let (_, first) = siblings.next()?;
        let inside = first.inside().source;
        let asked = |remote: Endpoint<A>| remote.address == tuple.source.address;
        let may = match self.behaviour.filtering {
            Filtering::EndpointIndependent => true,
            // Whoever is inside may, and is seen with its own external endpoint (RFC 4787 REQ-9).
            Filtering::AddressDependent | Filtering::AddressAndPortDependent
                if self.is_inside(tuple, way) =>
            {
                true
            }
            Filtering::AddressDependent => {
                asked(first.outside().destination)
                    || siblings.any(|(_, sibling)| asked(sibling.outside().destination))
            }
            Filtering::AddressAndPortDependent => false,
        };
        (may && first.external() == Some(tuple.destination.address)).then_some(inside)
    }

    /// Who holds the external port that a packet goes to.
    fn owner(&self, tuple: &Tuple<A>) -> Option<u32> {
        let protocol = Protocol::from_number(tuple.protocol)?;
        let Endpoint { address, port } = tuple.destination;
        self.pools.iter().find_map(|pool| pool.owner(address, protocol, port))
    }

    /// Whether the source would be translated if it sent to somebody outside: it is what some rule is for, and does not come
    /// in where that rule's packets leave.
    fn is_inside(&self, tuple: &Tuple<A>, way: Way) -> bool {
        self.rules.source.iter().any(|rule| {
            let Match { ingress, egress, sources, .. } = &rule.matches;
            // A rule for all sources and all interfaces does not tell inside from outside.
            let tells = !sources.is_empty() || egress.is_some();
            tells
                && rule.action != SourceAction::Keep
                && (sources.is_empty() || sources.iter().any(|prefix| prefix.contains(tuple.source.address)))
                && ingress.is_none_or(|ingress| ingress == way.ingress)
                && egress.is_none_or(|egress| egress != way.ingress)
        })
    }

    /// How a connection would begin that goes to `towards`.
    ///
    /// # Errors
    /// Why it cannot. Count it with [`Self::count_refusal`].
    pub fn prepare(
        &self,
        now: Duration,
        new: &New<A>,
        towards: Towards<A>,
        way: Way,
    ) -> Result<Prepared<A>, Refusal> {
        let (tuple, destination) = (new.tuple, towards.destination);
        if self.table.is_full() && self.table.victim(&tuple, now, None).is_none() {
            return Err(Refusal::Full);
        }
        let remote = destination.unwrap_or(tuple.destination);
        let leaving = Tuple { destination: remote, ..tuple };
        let answer = |source: Endpoint<A>| Tuple { source, zone: way.zone, ..leaving }.inverse();
        let wanted = SourceAction::Pool(towards.masquerade.unwrap_or_default());
        let action = match towards.masquerade {
            Some(pool) if self.pools.get(pool).is_some_and(|pool| pool.contains(remote.address)) => None,
            Some(_) => Some(&wanted),
            None => self.source_action(&tuple, destination, way),
        };
        let pool = match action {
            None | Some(SourceAction::Keep) => {
                let port = self.asked(&tuple, remote).map_or(Port::None, Port::Asked);
                // Who reaches itself by another address would get a packet from its own, which nobody takes. It is seen with
                // the address that it has asked for (RFC 4787 REQ-9).
                let itself = remote.address == tuple.source.address && remote != tuple.destination;
                let address = if itself { tuple.destination.address } else { tuple.source.address };
                return self.without_port(now, new, Endpoint { address, ..tuple.source }, answer, port);
            }
            Some(SourceAction::Prefix { from, to }) => {
                let address = exchange(tuple.source.address, from, to).unwrap_or(tuple.source.address);
                return self.without_port(now, new, Endpoint { address, ..tuple.source }, answer, Port::None);
            }
            Some(SourceAction::Pool(pool)) => *pool,
        };
        self.leased(now, new, pool, answer)
    }

    /// What the rules say of the source of a connection whose destination becomes `destination`.
    fn source_action(
        &self,
        tuple: &Tuple<A>,
        destination: Option<Endpoint<A>>,
        way: Way,
    ) -> Option<&SourceAction<A>> {
        let leaving = Tuple { destination: destination.unwrap_or(tuple.destination), ..*tuple };
        // Of rules the original destination counts, but for one that sends a packet back to where it came from.
        let hairpin = destination.is_some_and(|to| self.is_hairpin(tuple, to, way));
        let mut rules = self.rules.source.iter();
        let rule = rules.find(|rule| {
            let way = if hairpin { Way { egress: rule.matches.egress, ..way } } else { way };
            rule.decides(if hairpin { tuple } else { &leaving }, way)
        });
        rule.map(|rule| &rule.action)
    }

    /// Whether a packet goes to an inside endpoint because it went to its mapping.
    fn is_hairpin(&self, tuple: &Tuple<A>, to: Endpoint<A>, way: Way) -> bool {
        to != tuple.destination && self.owner(tuple).is_some() && self.is_inside(tuple, way)
    }

    /// The mapping that leads to `to`, by its first connection.
    pub(super) fn asked(&self, tuple: &Tuple<A>, to: Endpoint<A>) -> Option<ConnectionId> {
        let (id, first) = self.table.siblings(self.owner(tuple)?).next()?;
        (first.status.has(Status::LEASED) && first.inside().source == to).then_some(id)
    }

    /// With a source that nobody leases. Where its answers would belong to another connection, because both go to one server
    /// by different services, it gets another port.
    fn without_port(
        &self,
        now: Duration,
        new: &New<A>,
        source: Endpoint<A>,
        answer: impl Fn(Endpoint<A>) -> Tuple<A>,
        port: Port<A>,
    ) -> Result<Prepared<A>, Refusal> {
        let is_free = |source| !self.table.is_taken(&answer(source), now);
        if is_free(source) {
            return Ok(Prepared::new(*new, answer(source), port));
        }
        // Who is behind a mapping is known by the port that the other side sees.
        let moved = match port {
            Port::None => self.moved(source, new.tuple.protocol, is_free),
            Port::Moved | Port::Mapped(_) | Port::Asked(_) | Port::Leased { .. } => None,
        };
        let own = source.address == new.tuple.source.address;
        let port = if own { Port::Moved } else { Port::None };
        Ok(Prepared::new(*new, answer(moved.ok_or(Refusal::Clash)?), port))
    }

    /// The same address with another port that is free, of the same class.
    fn moved(
        &self,
        source: Endpoint<A>,
        number: u8,
        is_free: impl Fn(Endpoint<A>) -> bool,
    ) -> Option<Endpoint<A>> {
        let range = match (Protocol::from_number(number)?, source.port) {
            (Protocol::Icmp, _) => PortRange::ALL,
            (_, ..1024) => PortRange { first: 1, last: 1023 },
            (_, 1024..) => PortRange { first: 1024, last: u16::MAX },
        };
        let mut draws = Draws(self.random ^ u64::from(source.port) << 32);
        let tried = (0..ATTEMPTS).zip(walk(range, None, &mut draws));
        tried.map(|(_, port)| Endpoint { port, ..source }).find(|source| is_free(*source))
    }

    /// The mapping that the inside endpoint has in the pool, or a port of it.
    fn leased(
        &self,
        now: Duration,
        new: &New<A>,
        number: usize,
        answer: impl Fn(Endpoint<A>) -> Tuple<A>,
    ) -> Result<Prepared<A>, Refusal> {
        let tuple = new.tuple;
        let pool = self.pools.get(number).ok_or(Refusal::Ports(Refused::Exhausted))?;
        let Some(protocol) = Protocol::from_number(tuple.protocol) else {
            // What has no ports can share an address as long as the tuples differ.
            let address = pool.addresses().next().ok_or(Refusal::Ports(Refused::Exhausted))?;
            return self.without_port(now, new, Endpoint { address, port: 0 }, answer, Port::None);
        };
        let is_free = |address, port| !self.table.is_taken(&answer(Endpoint { address, port }), now);
        let mapping = self.table.mapping(&tuple, |connection| {
            connection.external().is_some_and(|external| pool.contains(external))
        });
        if let Some(id) = mapping
            && let Some(connection) = self.table.get(id)
        {
            let external = connection.outside().source;
            if is_free(external.address, external.port) {
                return Ok(Prepared::new(*new, answer(external), Port::Mapped(id)));
            }
        }
        let source = tuple.source;
        let request =
            Request { inside: source.address, protocol, port: source.port, keep: self.behaviour.keep };
        let random = self.random ^ u64::from(source.port) << 32;
        let chosen = |choice: Choice<A>, shared| {
            let lease = choice.lease();
            let reply = answer(Endpoint { address: lease.external, port: lease.port });
            Prepared::new(*new, reply, Port::Leased { pool: number, choice, shared })
        };
        let own = pool.choose(&request, random);
        let kept = own.as_ref().is_ok_and(|choice| choice.lease().port == source.port);
        let sharing = match self.behaviour.sharing {
            Sharing::Never => false,
            Sharing::Exhausted => own == Err(Refused::Exhausted),
            Sharing::Eager => !kept,
        };
        // Who is cleared away on the way would take the port along.
        let stays = |address, port| {
            let holder =
                self.holder(number, Lease { inside: source.address, external: address, protocol, port });
            holder.is_some_and(|(_, holder)| !holder.remaining(now).is_zero())
        };
        let both = |address, port| is_free(address, port) && stays(address, port);
        if sharing && let Ok(choice) = pool.choose_shared(&request, random, both) {
            return Ok(chosen(choice, true));
        }
        // A port that was never leased can still be in use: a forward, or the caller's own connection.
        let any = Request { keep: Keep { port: false, ..request.keep }, ..request };
        let others = (1..ATTEMPTS).map(|attempt| pool.choose(&any, random.wrapping_add(attempt)));
        core::iter::once(own)
            .chain(others)
            .map(|choice| choice.map(|choice| chosen(choice, false)).map_err(Refusal::Ports))
            .find(|prepared| !prepared.as_ref().is_ok_and(|it| self.table.is_taken(&it.reply, now)))
            .unwrap_or(Err(Refusal::Clash))
    }

    /// The connection that holds an external port, the first if there are several.
    pub(super) fn holder(&self, pool: usize, lease: Lease<A>) -> Option<(ConnectionId, &Connection<A>)> {
        let slot = self.pools.get(pool)?.owner(lease.external, lease.protocol, lease.port)?;
        self.table.siblings(slot).next()
    }

    /// Counts a connection that could not begin.
    pub fn count_refusal(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Full => self.counters.refused_full += 1,
            Refusal::Ports(_) => self.counters.refused_ports += 1,
            Refusal::Clash => self.counters.refused_clash += 1,
        }
    }
}

/// Where a rule sends a packet that goes to `destination`.
fn to<A: Address>(rule: &Rule<A, DestinationAction<A>>, tuple: &Tuple<A>) -> Option<Endpoint<A>> {
    let destination = tuple.destination;
    match &rule.action {
        DestinationAction::Keep => None,
        DestinationAction::Prefix { from, to } => {
            Some(Endpoint { address: exchange(destination.address, from, to)?, ..destination })
        }
        DestinationAction::To { address, ports } => {
            let first = rule.matches.destination_ports.map_or(destination.port, |ports| ports.first);
            let port = ports.filter(|_| has_ports(tuple.protocol)).map_or(destination.port, |ports| {
                let place = u32::from(destination.port.saturating_sub(first)) % ports.len().max(1);
                ports.first.saturating_add(u16::try_from(place).unwrap_or(0))
            });
            Some(Endpoint { address: address.unwrap_or(destination.address), port })
        }
    }
}
