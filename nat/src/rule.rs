//! Rules: which new connections are translated, and to what. The first rule that matches decides; a connection that has
//! begun keeps what was decided.

use alloc::vec::Vec;

use crate::ports::PortRange;
use crate::tuple::{Address, Tuple, protocol};

/// Addresses with a common beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix<A> {
    /// One of them.
    pub address: A,
    /// How many bits they have in common.
    pub length: u8,
}

impl<A: Address> Prefix<A> {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: A) -> bool {
        let differing = self.address.to_bits() ^ address.to_bits();
        match A::BITS.checked_sub(u32::from(self.length)) {
            Some(rest) => differing.checked_shr(rest).unwrap_or(0) == 0,
            None => differing == 0,
        }
    }
}

/// Which connections a rule is for: those for which everything that is set is true.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match<A> {
    /// The interface that the packet comes in by, as the caller numbers them.
    pub ingress: Option<u32>,
    /// The interface that it leaves by; unknown, and so never matched, where destinations are translated.
    pub egress: Option<u32>,
    /// Where it comes from; anywhere if empty.
    pub sources: Vec<Prefix<A>>,
    /// Where it goes; anywhere if empty.
    pub destinations: Vec<Prefix<A>>,
    /// The protocol.
    pub protocol: Option<u8>,
    /// The L4 port that it comes from. Protocols without ports do not match.
    pub source_ports: Option<PortRange>,
    /// The L4 port that it goes to. Protocols without ports do not match.
    pub destination_ports: Option<PortRange>,
}

impl<A> Default for Match<A> {
    /// All connections.
    fn default() -> Self {
        Self {
            ingress: None,
            egress: None,
            sources: Vec::new(),
            destinations: Vec::new(),
            protocol: None,
            source_ports: None,
            destination_ports: None,
        }
    }
}

/// Where a packet passes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Way {
    /// The interface that it came in by.
    pub ingress: u32,
    /// The interface that it leaves by, once that is known.
    pub egress: Option<u32>,
    /// The zone that its answers come from.
    pub zone: u16,
}

/// Whether a protocol has L4 ports; an ICMP query's identifier is none.
pub(crate) const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::SCTP)
}

impl<A: Address> Match<A> {
    /// Whether the rule is for a connection that begins with this tuple.
    pub fn matches(&self, tuple: &Tuple<A>, way: Way) -> bool {
        let among = |prefixes: &[Prefix<A>], address| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(address))
        };
        let has_ports = has_ports(tuple.protocol);
        let within =
            |ports: Option<PortRange>, port| ports.is_none_or(|ports| has_ports && ports.contains(port));
        self.ingress.is_none_or(|ingress| ingress == way.ingress)
            && self.egress.is_none_or(|egress| Some(egress) == way.egress)
            && self.protocol.is_none_or(|protocol| protocol == tuple.protocol)
            && within(self.destination_ports, tuple.destination.port)
            && within(self.source_ports, tuple.source.port)
            && among(&self.sources, tuple.source.address)
            && among(&self.destinations, tuple.destination.address)
    }
}

/// What becomes of the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceAction<A> {
    /// It stays (RFC 6888 REQ-6).
    Keep,
    /// A port of the pool with this number. Masquerading is a pool with the address of the interface.
    Pool(usize),
    /// Another address, the same port: the address at the same place in a prefix of the same length. The rule is for the
    /// sources in its prefix alone.
    Prefix {
        /// Inside.
        from: Prefix<A>,
        /// Outside.
        to: Prefix<A>,
    },
}

/// What becomes of the destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DestinationAction<A> {
    /// It stays.
    Keep,
    /// Another address, or none for the same; other ports, or none for the same. Ports are matched by their place in the
    /// rule's range, counted around if the new range is shorter; protocols without ports keep what they have.
    To {
        /// The address.
        address: Option<A>,
        /// The ports.
        ports: Option<PortRange>,
    },
    /// The address at the same place in a prefix of the same length. The rule is for the destinations in its prefix alone.
    Prefix {
        /// Outside.
        from: Prefix<A>,
        /// Inside.
        to: Prefix<A>,
    },
}

/// A rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule<A, T> {
    /// Which connections it is for.
    pub matches: Match<A>,
    /// What becomes of them.
    pub action: T,
}

impl<A: Address> Rule<A, SourceAction<A>> {
    /// Whether it decides about a connection that begins with this tuple.
    pub(crate) fn decides(&self, tuple: &Tuple<A>, way: Way) -> bool {
        let concerns = match &self.action {
            SourceAction::Keep | SourceAction::Pool(_) => true,
            SourceAction::Prefix { from, .. } => from.contains(tuple.source.address),
        };
        concerns && self.matches.matches(tuple, way)
    }
}

impl<A: Address> Rule<A, DestinationAction<A>> {
    /// Whether it decides about a connection that begins with this tuple.
    pub(crate) fn decides(&self, tuple: &Tuple<A>, way: Way) -> bool {
        let concerns = match &self.action {
            DestinationAction::Keep | DestinationAction::To { .. } => true,
            DestinationAction::Prefix { from, .. } => from.contains(tuple.destination.address),
        };
        concerns && self.matches.matches(tuple, way)
    }
}

/// All rules of one family.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules<A> {
    /// What becomes of sources; of those that match no rule, nothing.
    pub source: Vec<Rule<A, SourceAction<A>>>,
    /// What becomes of destinations; of those that match no rule, nothing.
    pub destination: Vec<Rule<A, DestinationAction<A>>>,
}

impl<A> Default for Rules<A> {
    /// Nothing is translated.
    fn default() -> Self {
        Self { source: Vec::new(), destination: Vec::new() }
    }
}

/// The address at the same place in `to` as `address` is in `from`.
pub(crate) fn exchange<A: Address>(address: A, from: &Prefix<A>, to: &Prefix<A>) -> Option<A> {
    if !from.contains(address) || from.length != to.length {
        return None;
    }
    let rest = A::BITS.saturating_sub(u32::from(to.length));
    let low = if rest >= 128 { u128::MAX } else { (1 << rest) - 1 };
    Some(A::from_bits(to.address.to_bits() & !low | address.to_bits() & low))
}
