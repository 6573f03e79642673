//! Which address and port a request would get. Nothing here changes the pool.

use super::blocks::Blocks;
use super::config::Assignment;
use super::draws::Draws;
use super::external::External;
use super::pool::Pool;
use super::set::{Parity, PortRange, PortSet};
use super::subscribers::Subscriber;
use super::{Lease, Protocol, Refused, Request};
use crate::tuple::Address;

/// Permitted ports that [`Pool::choose_shared`] looks at before it gives up.
pub const MOST_PROBES: u32 = 512;

/// How many it passes by to find them, permitted or not.
const MOST_STEPS: usize = 16 * MOST_PROBES as usize;

/// The first port of the upper class.
const UPPER_CLASS: u16 = 1024;

/// What [`Pool::take`] would lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice<A> {
    lease: Lease<A>,
    kind: Kind,
}

impl<A: Copy> Choice<A> {
    /// What the lease would be.
    pub const fn lease(&self) -> Lease<A> {
        self.lease
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A free port, of a block of the subscriber if there are blocks.
    Free,
    /// A free port, and the free block around it.
    NewBlock(NewBlock),
    /// A port that others hold.
    Shared,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NewBlock {
    pub(super) number: u16,
    pub(super) ports: PortRange,
    /// How many the subscriber had when this was chosen.
    pub(super) had: usize,
}

/// What a port must be like, and which would be best.
struct Wanted {
    range: PortRange,
    parity: Parity,
    preferred: Option<u16>,
}

impl Wanted {
    fn of<A>(request: &Request<A>, permitted: &PortSet) -> Self {
        let numbered = request.protocol != Protocol::Icmp;
        let class = if request.port < UPPER_CLASS {
            PortRange { first: 0, last: UPPER_CLASS - 1 }
        } else {
            PortRange { first: UPPER_CLASS, last: u16::MAX }
        };
        let classed = numbered && request.keep.class && permitted.first(class, Parity::Any).is_some();
        Self {
            range: if classed { class } else { PortRange::ALL },
            parity: if numbered && request.keep.parity { Parity::of(request.port) } else { Parity::Any },
            preferred: request.keep.port.then_some(request.port),
        }
    }

    /// The preferred port, if it lies in `range` and is free.
    fn preferred_in(&self, range: PortRange, free: &PortSet) -> Option<u16> {
        self.preferred.filter(|&port| self.range.intersection(range).contains(port) && free.contains(port))
    }

    fn port_in(&self, range: PortRange, free: &PortSet, draws: &mut Draws) -> Option<u16> {
        self.preferred_in(range, free)
            .or_else(|| free.pick(self.range.intersection(range), self.parity, draws))
    }
}

/// External addresses to try, and which of their ports.
struct Candidates {
    /// Where in the pool's addresses to begin.
    start: usize,
    /// How many to try; after the last comes the first.
    count: usize,
    range: PortRange,
}

impl<A: Address> Pool<A> {
    /// The address and port that a request would get. `random` decides what is left to chance.
    pub fn choose(&self, request: &Request<A>, random: u64) -> Result<Choice<A>, Refused> {
        let subscriber = self.admit(request.inside)?;
        let wanted = Wanted::of(request, self.permitted.set(request.protocol));
        let mut draws = Draws(random);
        let candidates = self.candidates(request.inside, subscriber, &mut draws)?;
        for external in self.each(&candidates) {
            let free = external.free(request.protocol, &self.permitted);
            let found = match self.assignment {
                Assignment::Blocks(blocks) => {
                    port_in_blocks(external, free, blocks, subscriber, &wanted, &mut draws)?
                }
                Assignment::Any | Assignment::Deterministic(_) => {
                    wanted.port_in(candidates.range, free, &mut draws).map(|port| (port, Kind::Free))
                }
            };
            if let Some((port, kind)) = found {
                return Ok(choice(request, external.address, port, kind));
            }
        }
        Err(Refused::Exhausted)
    }

    /// After [`Refused::Exhausted`]: a port that others hold and that `is_free` towards the destination in question. Ports are
    /// asked for in random order, the inside port first, and not more than [`MOST_PROBES`] of them. There is no sharing where
    /// ports are assigned, in blocks or by arithmetic, as they would no longer tell who used them.
    pub fn choose_shared(
        &self,
        request: &Request<A>,
        random: u64,
        mut is_free: impl FnMut(A, u16) -> bool,
    ) -> Result<Choice<A>, Refused> {
        let subscriber = self.admit(request.inside)?;
        if self.assignment != Assignment::Any {
            return Err(Refused::Exhausted);
        }
        let permitted = self.permitted.set(request.protocol);
        let wanted = Wanted::of(request, permitted);
        let range = wanted.range.intersection(self.permitted.span(request.protocol));
        let mut draws = Draws(random);
        let candidates = self.candidates(request.inside, subscriber, &mut draws)?;
        let mut probes = MOST_PROBES;
        for external in self.each(&candidates) {
            let Some(space) = external.space(request.protocol) else { continue };
            let ports = walk(range, wanted.preferred, &mut draws).take(MOST_STEPS);
            for port in ports.filter(|&port| permitted.contains(port)) {
                let Some(rest) = probes.checked_sub(1) else { return Err(Refused::Exhausted) };
                probes = rest;
                if wanted.parity.admits(port)
                    && space.owner(port).is_some()
                    && is_free(external.address, port)
                {
                    return Ok(choice(request, external.address, port, Kind::Shared));
                }
            }
        }
        Err(Refused::Exhausted)
    }

    /// Whether the inside address may have one more lease; what it has so far.
    pub(super) fn admit(&self, inside: A) -> Result<Option<&Subscriber<A>>, Refused> {
        let subscriber = self.subscribers.get(inside);
        let leases = subscriber.map_or(0, |subscriber| subscriber.leases);
        if leases >= self.limits.leases_per_subscriber {
            return Err(Refused::Quota);
        }
        if subscriber.is_none() && self.subscribers.is_full() {
            return Err(Refused::Subscribers);
        }
        Ok(subscriber)
    }

    fn candidates(
        &self,
        inside: A,
        subscriber: Option<&Subscriber<A>>,
        draws: &mut Draws,
    ) -> Result<Candidates, Refused> {
        if let Assignment::Deterministic(relation) = &self.assignment {
            let (external, range) = relation.external(inside).ok_or(Refused::Unmapped)?;
            let start = self.position(external).map_err(|_| Refused::Unmapped)?;
            return Ok(Candidates { start, count: 1, range });
        }
        if let Some(subscriber) = subscriber {
            let start = self.position(subscriber.external).map_err(|_| Refused::Exhausted)?;
            return Ok(Candidates { start, count: 1, range: PortRange::ALL });
        }
        let mut draw = || {
            let count = u32::try_from(self.externals.len()).unwrap_or(u32::MAX);
            let at = draws.below(count) as usize;
            self.externals.get(at).map(|external| (external.leases, at))
        };
        let (one, other) = draw().zip(draw()).ok_or(Refused::Exhausted)?;
        Ok(Candidates { start: one.min(other).1, count: self.externals.len(), range: PortRange::ALL })
    }

    fn each(&self, candidates: &Candidates) -> impl Iterator<Item = &External<A>> {
        let (before, from) = self.externals.split_at_checked(candidates.start).unwrap_or_default();
        from.iter().chain(before).take(candidates.count)
    }
}

const fn choice<A: Copy>(request: &Request<A>, external: A, port: u16, kind: Kind) -> Choice<A> {
    Choice { lease: Lease { inside: request.inside, external, protocol: request.protocol, port }, kind }
}

/// A port of a block that the subscriber has, else of one more; looks at each free block until one has a port that will do.
fn port_in_blocks<A: Address>(
    external: &External<A>,
    free: &PortSet,
    config: Blocks,
    subscriber: Option<&Subscriber<A>>,
    wanted: &Wanted,
    draws: &mut Draws,
) -> Result<Option<(u16, Kind)>, Refused> {
    let Some(blocks) = &external.blocks else { return Ok(None) };
    let own = subscriber.map_or(&[][..], Subscriber::blocks);
    let ranges = || own.iter().map(|&block| blocks.range(block));
    let port = ranges()
        .find_map(|range| wanted.preferred_in(range, free))
        .or_else(|| ranges().find_map(|range| wanted.port_in(range, free, draws)));
    if let Some(port) = port {
        return Ok(Some((port, Kind::Free)));
    }
    if own.len() >= usize::from(config.per_subscriber) {
        return Err(Refused::Quota);
    }
    let found = blocks.search(draws, |range, draws| wanted.port_in(range, free, draws));
    Ok(found.map(|(number, port)| {
        (port, Kind::NewBlock(NewBlock { number, ports: blocks.range(number), had: own.len() }))
    }))
}

/// Every port of `range` once, from `start` on if it lies there, else from one at random on, by a random stride that has no
/// divisor in common with their number. It is a quarter of the range or more, so that a gap is soon left.
pub(crate) fn walk(
    range: PortRange,
    start: Option<u16>,
    draws: &mut Draws,
) -> impl Iterator<Item = u16> + use<> {
    let count = range.len();
    let start = match start.filter(|&start| range.contains(start)) {
        Some(start) => u32::from(start - range.first),
        None => draws.below(count),
    };
    let mut stride = 1 + count / 4 + draws.below(count.div_ceil(2));
    while common_divisor(stride, count) > 1 {
        stride += 1;
    }
    (0..count).scan(start, move |at, _| {
        let port = u16::try_from(u32::from(range.first) + *at).ok();
        *at = (*at + stride) % count;
        port
    })
}

const fn common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
